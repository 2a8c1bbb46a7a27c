"""Client credentials for backend services (RFC 6749 §4.4, SMART App Launch 2.2 §5)."""

from __future__ import annotations

from typing import Any, ClassVar

from authlib.oauth2.rfc6749 import InvalidScopeError, grants

from fhir_portal.smart.errors import InvalidScope
from fhir_portal.smart.exchange import Insert
from fhir_portal.smart.grants.issue import narrowed_scope, token_type
from fhir_portal.smart.scope import MOST_REQUESTED, ScopeSet
from fhir_portal.smart.token import AccessToken, base64url, token_hash

_TOKEN_BYTES = 32


class ClientCredentialsGrant(grants.ClientCredentialsGrant):  # type: ignore[misc] # untyped
    """Authlib's grant, for ``system/`` scopes of one practice; no refresh token."""

    # Basic is named so that an attempt with it is told 401 and how to authenticate.
    TOKEN_ENDPOINT_AUTH_METHODS: ClassVar = ["private_key_jwt", "client_secret_basic"]

    def generate_token(self, *, scope: str | None, **_: Any) -> dict[str, Any]:
        exchange, client = self.server, self.client.record
        try:
            asked = ScopeSet.parse(scope or "", at_most=MOST_REQUESTED)
        except InvalidScope:
            raise InvalidScopeError from None
        if asked.identity or asked.context != "system":
            raise InvalidScopeError
        allowed = asked.within(client.may_ask_for)
        if not allowed:
            raise InvalidScopeError
        granted = narrowed_scope(exchange, str(allowed))
        lifetime = exchange.setting.lifetimes.backend_token
        token = base64url(exchange.setting.random(_TOKEN_BYTES))
        exchange.writes.append(
            Insert(
                AccessToken(
                    key=token_hash(token),
                    expires=exchange.now + lifetime,
                    issued=exchange.now,
                    client_id=client.key,
                    context="system",
                    scope=str(granted),
                    practice=client.practice,
                    jkt=exchange.jkt,
                )
            )
        )
        return {
            "access_token": token,
            "token_type": token_type(exchange.jkt),
            "expires_in": lifetime,
            "scope": str(granted),
        }

    def save_token(self, token: dict[str, Any]) -> None:
        """`generate_token` has collected the row."""
