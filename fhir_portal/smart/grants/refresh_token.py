"""The refresh token grant (RFC 6749 §6), with rotation and reuse detection (RFC 9700 §4.14).

Each use turns the family one generation further. A repeat of the last request, within seconds, by
the same client, while its successor is unused, is a lost answer asked for again: it gets the same
answer. Any other use of an old token ends the family.
"""

from __future__ import annotations

from typing import Any, ClassVar

import msgspec
from authlib.oauth2.rfc6749 import InvalidGrantError, InvalidScopeError, grants

from fhir_portal.smart.errors import InvalidScope
from fhir_portal.smart.exchange import (
    TOKEN_AUTH_METHODS,
    Insert,
    LoadedClient,
    LoadedToken,
    Replace,
)
from fhir_portal.smart.grants.issue import (
    access_token_of,
    earliest,
    family_expires,
    narrowed_scope,
    refresh_binding,
    token_response,
)
from fhir_portal.smart.scope import MOST_REQUESTED, ScopeSet


class RefreshTokenGrant(grants.RefreshTokenGrant):  # type: ignore[misc] # Authlib is untyped
    """Authlib's grant over the loaded family."""

    TOKEN_ENDPOINT_AUTH_METHODS: ClassVar = list(TOKEN_AUTH_METHODS)
    INCLUDE_NEW_REFRESH_TOKEN = True

    _repeated = False

    def _validate_request_client(self) -> LoadedClient:
        client: LoadedClient = super()._validate_request_client()
        self.request.client = client  # authenticate_refresh_token asks whose token it is
        return client

    def authenticate_refresh_token(self, refresh_token: str) -> LoadedToken | None:  # noqa: ARG002
        """Return the family if this is its newest token, or a repeat; end it on any other use."""
        exchange, loaded = self.server, self.server.loaded
        presented, family = loaded.presented, loaded.family
        if presented is None or family is None or not presented.is_genuine(exchange.setting.keys):
            return None
        if family.client_id != self.request.client.client_id or family.ended is not None:
            return None
        if exchange.now >= family.expires:
            return None
        if family.jkt not in (None, exchange.jkt):  # a thief's try must not end it for its owner
            raise InvalidGrantError("The refresh token is bound to another DPoP key.")
        behind = family.generation - presented.generation
        age = exchange.now - family.rotated
        self._repeated = behind == 1 and age <= exchange.setting.lifetimes.refresh_repeat
        if behind != 0 and not self._repeated:
            exchange.ended = (family.key, "refresh-token-reused")
            return None
        left = loaded.records if family.is_list else loaded.right
        if loaded.account is None or loaded.account.disabled or not left:
            exchange.ended = (family.key, "access-ended")
            return None
        return LoadedToken(family, exchange.now)

    def _validate_token_scope(self, token: LoadedToken) -> None:
        """Refuse a scope that was not granted; the same or less is fine, however it is spelled."""
        if not self.request.payload.scope:
            return
        try:
            asked = ScopeSet.parse(self.request.payload.scope, at_most=MOST_REQUESTED)
        except InvalidScope:
            raise InvalidScopeError from None
        if not ScopeSet.parse(token.get_scope()).covers(asked):
            raise InvalidScopeError

    def authenticate_user(self, refresh_token: LoadedToken) -> Any:  # noqa: ARG002
        return self.server.loaded.account

    def generate_token(self, *, scope: str, **_: Any) -> dict[str, Any]:
        """Turn the family one generation further, or answer a repeat as before."""
        exchange, loaded = self.server, self.server.loaded
        handle, before = loaded.presented.handle, loaded.family
        granted = narrowed_scope(exchange, scope)
        if self._repeated:
            answered = loaded.current
            if answered is None or (answered.scope, answered.jkt) != (str(granted), exchange.jkt):
                exchange.ended = (before.key, "refresh-token-reused")
                raise InvalidGrantError
            return token_response(exchange, before, handle, loaded.current, loaded.records)
        family = msgspec.structs.replace(
            before,
            generation=before.generation + 1,
            rotated=exchange.now,
            expires=family_expires(exchange, issued=before.issued, until=before.until),
            jkt=refresh_binding(exchange, self.request.client),
        )
        access_token = access_token_of(exchange, family, handle, granted)
        exchange.writes += [Replace(before, family), Insert(access_token)]
        for below, record in loaded.records:
            ends = earliest(family.expires, record.until, below.until)
            exchange.writes.append(Replace(below, msgspec.structs.replace(below, expires=ends)))
        return token_response(exchange, family, handle, access_token, loaded.records)

    def save_token(self, token: dict[str, Any]) -> None:
        """`generate_token` has collected the rows."""

    def revoke_old_credential(self, refresh_token: LoadedToken) -> None:
        """Its generation has passed: there is nothing of it to delete."""
