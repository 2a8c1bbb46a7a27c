"""What every grant gives out: an access token's row and the token response that shows it."""

from __future__ import annotations

from typing import Any

from authlib.oauth2.rfc6749 import InvalidGrantError, InvalidScopeError

from fhir_portal.smart.exchange import Exchange
from fhir_portal.smart.offer import OFFLINE_ACCESS
from fhir_portal.smart.scope import ScopeSet
from fhir_portal.smart.token import (
    AccessToken,
    RefreshToken,
    TokenFamily,
    derive_access_token,
    token_hash,
)


def narrowed_scope(exchange: Exchange, text: str) -> ScopeSet:
    """What of a consented scope can be granted now; refuses when that is nothing."""
    scope = exchange.setting.narrow(ScopeSet.parse(text), exchange.loaded.record)
    if not scope:
        raise InvalidScopeError
    return scope


def family_expires(exchange: Exchange, *, issued: float) -> float:
    """When a family that is used now ends: unused, in all, or with the person's own access."""
    lifetimes, record = exchange.setting.lifetimes, exchange.loaded.record
    ends = min(exchange.now + lifetimes.refresh_token, issued + lifetimes.refresh_in_all)
    return ends if record is None or record.until is None else min(ends, record.until)


def access_token_of(
    exchange: Exchange, family: TokenFamily, handle: bytes, scope: ScopeSet
) -> AccessToken:
    """Make the row of a family's access token; it never outlives the person's own access."""
    record = exchange.loaded.record
    expires = exchange.now + exchange.setting.lifetimes.access_token
    if record is not None and record.until is not None:
        expires = min(expires, record.until)
    if expires - exchange.now < 1:
        raise InvalidGrantError("Access to this record has ended.")
    return AccessToken(
        key=token_hash(derive_access_token(exchange.setting.keys, handle, family.generation)),
        expires=expires,
        issued=exchange.now,
        client_id=family.client_id,
        context="user" if scope.context == "user" else "patient",
        scope=str(scope),
        practice=family.practice,
        family=family.key,
        patient=family.patient,
        fhir_user=family.fhir_user,
        account=family.account,
        grant=family.grant,
    )


def token_response(
    exchange: Exchange, family: TokenFamily, handle: bytes, granted: AccessToken
) -> dict[str, Any]:
    """The JSON of RFC 6749 §5.1 with the launch context of SMART 2.2.

    It follows from its arguments alone, so a repeated request gets the same bytes.
    """
    keys = exchange.setting.keys
    response: dict[str, Any] = {
        "access_token": derive_access_token(keys, handle, family.generation),
        "token_type": "Bearer",
        "expires_in": round(granted.expires - granted.issued),
        "scope": granted.scope,
        "patient": family.patient.partition("/")[2],
        "need_patient_banner": True,
    }
    if OFFLINE_ACCESS in ScopeSet.parse(family.scope).identity:
        response["refresh_token"] = str(RefreshToken.derive(keys, handle, family.generation))
    return response
