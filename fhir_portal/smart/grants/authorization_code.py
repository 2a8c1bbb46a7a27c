"""The authorization code grant, at both its endpoints (RFC 6749 §4.1, OpenID Connect Core §3.1)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import msgspec
from authlib.oauth2.rfc6749 import InvalidGrantError, grants
from authlib.oidc.core import AuthorizationCodeMixin

from fhir_portal.smart.authorization_details import ConsentedRecord
from fhir_portal.smart.client import Client
from fhir_portal.smart.code import KEPT_SECONDS, SEVERAL, AuthorizationCode
from fhir_portal.smart.exchange import (
    TOKEN_AUTH_METHODS,
    Exchange,
    Insert,
    Loaded,
    LoadedClient,
    LoadedRequest,
    Replace,
    Setting,
)
from fhir_portal.smart.grants.issue import (
    access_token_of,
    family_expires,
    narrowed_scope,
    person_of,
    refresh_binding,
    token_response,
)
from fhir_portal.smart.launch_context import LaunchContext
from fhir_portal.smart.pkce import RequiredS256
from fhir_portal.smart.right import Right
from fhir_portal.smart.scope import ScopeSet
from fhir_portal.smart.token import HANDLE_BYTES, TokenFamily, base64url, family_key, token_hash

_CODE_BYTES = 32


@dataclass(frozen=True, slots=True)
class Approval:
    """What a person said yes to: Authlib's ``grant_user`` at the authorization endpoint.

    ``until`` is the end of it, where they chose one. With ``records``, for each of them; ``scope``
    is then that of the token which lists them. ``patient`` is who is in context of a right that is
    for no one record; ``launched`` what else is told of the launch.
    """

    account: str
    right: Right
    scope: ScopeSet
    auth_time: float
    until: float | None = None
    records: tuple[ConsentedRecord, ...] = ()
    patient: str = ""
    launched: LaunchContext | None = None


class LoadedCode(AuthorizationCodeMixin):  # type: ignore[misc] # Authlib has no type information
    """An `AuthorizationCode` as Authlib wants to ask it."""

    code_challenge_method = "S256"

    def __init__(self, record: AuthorizationCode) -> None:
        self.record = record
        self.code_challenge = record.code_challenge

    def get_redirect_uri(self) -> str:
        return self.record.redirect_uri

    def get_scope(self) -> str:
        return self.record.scope

    def get_nonce(self) -> str | None:
        return self.record.nonce

    def get_auth_time(self) -> int:
        return int(self.record.auth_time)


class AuthorizationCodeGrant(grants.AuthorizationCodeGrant):  # type: ignore[misc] # Authlib is untyped
    """Authlib's grant over the loaded code."""

    TOKEN_ENDPOINT_AUTH_METHODS: ClassVar = list(TOKEN_AUTH_METHODS)

    def generate_authorization_code(self) -> str:
        return base64url(self.server.setting.random(_CODE_BYTES))

    def save_authorization_code(self, code: str, request: Any) -> None:
        """Collect the code for what ``request.user``, an `Approval`, said yes to."""
        approval: Approval = request.user
        practice, patient, fhir_user, grant = approval.right.access
        self.server.code = code
        good_until = self.server.now + self.server.setting.lifetimes.code
        if approval.until is not None:
            good_until = min(good_until, approval.until)
        self.server.writes.append(
            Insert(
                AuthorizationCode(
                    key=token_hash(code),
                    expires=good_until + KEPT_SECONDS,
                    good_until=good_until,
                    client_id=request.client.client_id,
                    redirect_uri=request.payload.redirect_uri,
                    code_challenge=request.payload.data["code_challenge"],
                    scope=str(approval.scope),
                    account=approval.account,
                    practice=practice,
                    patient=patient or approval.patient,
                    fhir_user=fhir_user,
                    grant=grant,
                    nonce=request.payload.data.get("nonce"),
                    auth_time=approval.auth_time,
                    until=approval.until,
                    dpop_jkt=request.payload.data.get("dpop_jkt"),
                    records=approval.records,
                    for_several=SEVERAL if approval.records else None,
                    context="patient" if patient else "user",
                    launched=approval.launched,
                )
            )
        )

    def query_authorization_code(
        self,
        code: str,  # noqa: ARG002 - it was looked up by its hash
        client: LoadedClient,
    ) -> LoadedCode | None:
        """Return the loaded code if it is this client's, unused and fresh; note a replay."""
        found = self.server.loaded.code
        if found is None or found.client_id != client.client_id:
            return None
        if found.family:
            self.server.ended = (found.family, "code-replayed")
            return None
        if self.server.now >= found.good_until:
            return None
        if found.dpop_jkt not in (None, self.server.jkt):
            raise InvalidGrantError("The code is bound to another DPoP key.")
        return LoadedCode(found)

    def authenticate_user(self, authorization_code: LoadedCode) -> Any:  # noqa: ARG002
        """Return the account, while it may still use what was chosen."""
        loaded = self.server.loaded
        if loaded.account is None or loaded.account.disabled:
            return None
        return loaded.account if loaded.right or loaded.records else None

    def generate_token(self, *, scope: str, **_: Any) -> dict[str, Any]:
        """Start a family and answer with its first generation."""
        exchange, now = self.server, self.server.now
        code = exchange.loaded.code
        if code.records:
            return self._list_records(ScopeSet.parse(scope))
        handle = exchange.setting.random(HANDLE_BYTES)
        granted = narrowed_scope(exchange, scope)
        family = TokenFamily(
            key=family_key(handle),
            expires=family_expires(exchange, issued=now, until=code.until),
            issued=now,
            rotated=now,
            client_id=code.client_id,
            account=code.account,
            patient=code.patient,
            practice=code.practice,
            fhir_user=code.fhir_user,
            grant=code.grant,
            scope=str(granted),
            context=code.context,
            launched=code.launched,
            until=code.until,
            jkt=refresh_binding(exchange, self.request.client),
        )
        access_token = access_token_of(exchange, family, handle, granted)
        exchange.writes += [
            Replace(code, msgspec.structs.replace(code, family=family.key)),
            Insert(family),
            Insert(access_token),
        ]
        return token_response(exchange, family, handle, access_token)

    def _list_records(self, granted: ScopeSet) -> dict[str, Any]:
        """Start a family that lists the records, and one below it for each of them."""
        exchange, now = self.server, self.server.now
        code, records = exchange.loaded.code, exchange.loaded.records
        handle = exchange.setting.random(HANDLE_BYTES)
        family = TokenFamily(
            key=family_key(handle),
            expires=family_expires(exchange, issued=now, until=code.until),
            issued=now,
            rotated=now,
            client_id=code.client_id,
            account=code.account,
            patient="",
            practice="",
            is_list=True,
            fhir_user=person_of(exchange.loaded.account, [record for _, record in records]),
            grant=None,
            scope=str(granted),
            until=code.until,
            jkt=refresh_binding(exchange, self.request.client),
        )
        below = [
            (
                TokenFamily(
                    # No handle hashes to such a key: there is no refresh token for it.
                    key=f"{family.key}.{number:02}",
                    expires=min(family.expires, record.until or family.expires),
                    issued=now,
                    rotated=now,
                    client_id=code.client_id,
                    account=code.account,
                    patient=record.patient,
                    practice=record.practice,
                    fhir_user=record.fhir_user,
                    grant=record.grant,
                    scope=consented.scope,
                    until=code.until,
                    parent=family.key,
                    identifier=consented.identifier,
                ),
                record,
            )
            for number, (consented, record) in enumerate(records)
        ]
        access_token = access_token_of(exchange, family, handle, granted)
        exchange.writes += [
            Replace(code, msgspec.structs.replace(code, family=family.key, for_several=None)),
            Insert(family),
            *(Insert(one) for one, _ in below),
            Insert(access_token),
        ]
        return token_response(exchange, family, handle, access_token, below)

    def save_token(self, token: dict[str, Any]) -> None:
        """`generate_token` has collected the rows."""

    def delete_authorization_code(self, authorization_code: LoadedCode) -> None:
        """The code is marked as used, not deleted: a replay must be known as one."""


def consent_grant(
    setting: Setting, client: Client, parameters: Mapping[str, str], *, now: float
) -> AuthorizationCodeGrant:
    """Have Authlib validate an authorization request; return the grant that a yes completes.

    Its ``server`` is the `Exchange`. Raises `errors.OAuthError`.
    """
    exchange = Exchange(
        setting,
        Loaded({client.key: client}),
        now,
        grants=((AuthorizationCodeGrant, (RequiredS256(required=True),)),),
    )
    request = LoadedRequest("GET", setting.issuer.at("/oauth/authorize"), parameters)
    grant: AuthorizationCodeGrant = exchange.validated_grant(request)
    return grant
