"""What every grant gives out: an access token's row and the token response that shows it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from authlib.oauth2.rfc6749 import InvalidGrantError, InvalidScopeError

from fhir_portal.accounts.account import Account
from fhir_portal.consent.record import RecordAccess
from fhir_portal.smart.authorization_details import detail
from fhir_portal.smart.code import AuthorizationCode
from fhir_portal.smart.exchange import Exchange, LoadedClient
from fhir_portal.smart.launch_context import LaunchContext
from fhir_portal.smart.offer import OFFLINE_ACCESS
from fhir_portal.smart.proxy_context import proxy_context
from fhir_portal.smart.right import ends_of
from fhir_portal.smart.scope import ScopeSet
from fhir_portal.smart.token import (
    AccessToken,
    RefreshToken,
    TokenFamily,
    derive_access_token,
    grant_id,
    token_hash,
)


def narrowed_scope(exchange: Exchange, text: str) -> ScopeSet:
    """What of a consented scope can be granted now; refuses when that is nothing."""
    scope = exchange.setting.narrow(ScopeSet.parse(text), exchange.loaded.right)
    if not scope:
        raise InvalidScopeError
    return scope


def family_expires(exchange: Exchange, *, issued: float, until: float | None) -> float:
    """When a family that is used now ends.

    Unused, in all, when the person said, or with the person's own access.
    """
    lifetimes = exchange.setting.lifetimes
    ends = min(exchange.now + lifetimes.refresh_token, issued + lifetimes.refresh_in_all)
    return earliest(ends, until, ends_of(exchange.loaded.right))


def earliest(end: float, *others: float | None) -> float:
    """The first of several ends; ``None`` is no end."""
    return min([end, *(one for one in others if one is not None)])


def refresh_binding(exchange: Exchange, client: LoadedClient) -> str | None:
    """The DPoP key that refresh tokens are bound to (RFC 9449 §5): those of public clients.

    The others are bound to their client by its own authentication.
    """
    return exchange.jkt if client.record.type == "public" else None


def token_type(jkt: str | None) -> str:
    """How an access token is presented: by itself, or with a proof."""
    return "Bearer" if jkt is None else "DPoP"


def access_token_of(
    exchange: Exchange, family: TokenFamily, handle: bytes, scope: ScopeSet
) -> AccessToken:
    """Make the row of a family's access token.

    It outlives neither the person's own access nor the end that the person chose.
    """
    key = token_hash(derive_access_token(exchange.setting.keys, handle, family.generation))
    return access_token_row(exchange, family, key, scope)


def access_token_row(
    exchange: Exchange, family: TokenFamily, key: str, scope: ScopeSet
) -> AccessToken:
    """Make the row of an access token with this key."""
    expires = earliest(
        exchange.now + exchange.setting.lifetimes.access_token,
        family.until,
        ends_of(exchange.loaded.right),
    )
    if expires - exchange.now < 1:
        raise InvalidGrantError("Access to this record has ended.")
    return AccessToken(
        key=key,
        expires=expires,
        issued=exchange.now,
        client_id=family.client_id,
        context=family.context,
        scope=str(scope),
        practice=family.practice,
        family=family.key,
        patient=family.patient or None,
        fhir_user=family.fhir_user or None,
        account=family.account,
        grant=family.grant,
        until=family.until,
        jkt=exchange.jkt,
    )


def launch_context(
    exchange: Exchange, granted: AccessToken | TokenFamily | AuthorizationCode
) -> dict[str, Any]:
    """Whose record it is, which visit, who uses it and how, and until when.

    The same in the token response, in introspection (SMART 2.2 §6) and in the id_token.
    """
    if not (granted.patient or granted.context == "user"):
        return {}
    launched = _launched(exchange, granted)
    told: dict[str, Any] = {}
    if granted.patient:
        told["patient"] = granted.patient.partition("/")[2]
    if launched is not None and launched.encounter:
        told["encounter"] = launched.encounter.partition("/")[2]
    if granted.fhir_user and "fhirUser" in ScopeSet.parse(granted.scope).identity:
        told["fhirUser"] = exchange.setting.issuer.url_of(granted.fhir_user)
    right = exchange.loaded.right
    context = list(launched.fhir_context) if launched is not None else []
    if right is not None:
        context += proxy_context(right, until=granted.until)
    if context:
        told["fhirContext"] = context
    return told


def launch_display(exchange: Exchange, granted: AccessToken | TokenFamily) -> dict[str, Any]:
    """What is told of how to show things (SMART 2.2 §2.0.11), where there is a patient in context.

    In the token response and in introspection; nothing of it is about anybody.
    """
    if not granted.patient:
        return {}
    return (_launched(exchange, granted) or LaunchContext()).told


def _launched(
    exchange: Exchange, granted: AccessToken | TokenFamily | AuthorizationCode
) -> LaunchContext | None:
    """The launch is kept with the code and the family; an access token's family is loaded."""
    if not isinstance(granted, AccessToken):
        return granted.launched
    family = exchange.loaded.family
    return family.launched if family is not None else None


def details_of(
    exchange: Exchange, records: Iterable[tuple[TokenFamily, RecordAccess]]
) -> list[dict[str, Any]]:
    """What is told of the records of a consent for several (RFC 9396 §7)."""
    return [
        detail_of(
            exchange,
            family,
            scope=str(exchange.setting.narrow(ScopeSet.parse(family.scope), record)),
        )
        for family, record in records
    ]


def detail_of(exchange: Exchange, family: TokenFamily, *, scope: str) -> dict[str, Any]:
    """What is told of one record of a consent for several."""
    return detail(
        exchange.setting.issuer,
        identifier=family.identifier,
        patient=family.patient,
        fhir_user=family.fhir_user,
        scope=scope,
    )


def person_of(account: Account, records: Iterable[RecordAccess]) -> str:
    """The account's ``Person/<id>`` at the one practice that has all the records, or ``""``."""
    practices = {record.practice for record in records}
    known = [
        reference
        for practice, _, reference in (one.partition("/") for one in account.persons)
        if {practice} == practices
    ]
    return known[0] if len(known) == 1 else ""


def named_grant(exchange: Exchange, family: TokenFamily) -> dict[str, Any]:
    """The name by which an app that wants to be told is told of the end of this access."""
    client = exchange.loaded.clients[family.client_id]
    if client.backchannel_revocation_uri is None:
        return {}
    return {"grant_id": grant_id(family.key)}


def token_response(
    exchange: Exchange,
    family: TokenFamily,
    handle: bytes,
    granted: AccessToken,
    records: Iterable[tuple[TokenFamily, RecordAccess]] = (),
) -> dict[str, Any]:
    """The JSON of RFC 6749 §5.1 with the launch context of SMART 2.2.

    It follows from its arguments alone, so a repeated request gets the same bytes.
    """
    keys = exchange.setting.keys
    response: dict[str, Any] = {
        "access_token": derive_access_token(keys, handle, family.generation),
        "token_type": token_type(granted.jkt),
        "expires_in": round(granted.expires - granted.issued),
        "scope": granted.scope,
        **launch_context(exchange, family),
        **launch_display(exchange, family),
    }
    response |= named_grant(exchange, family)
    if family.is_list:
        response["authorization_details"] = details_of(exchange, records)
    if OFFLINE_ACCESS in ScopeSet.parse(family.scope).identity:
        response["refresh_token"] = str(RefreshToken.derive(keys, handle, family.generation))
    return response
