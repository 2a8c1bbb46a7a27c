"""Introspection (RFC 7662) and revocation (RFC 7009): Authlib's endpoints over the loaded token."""

from __future__ import annotations

from typing import Any, ClassVar

from authlib.oauth2.rfc7009 import RevocationEndpoint
from authlib.oauth2.rfc7662 import IntrospectionEndpoint

from fhir_portal.smart.exchange import TOKEN_AUTH_METHODS, LoadedClient, LoadedToken
from fhir_portal.smart.grants.issue import (
    detail_of,
    details_of,
    launch_context,
    launch_display,
    token_type,
)
from fhir_portal.smart.scope import ScopeSet


class Introspection(IntrospectionEndpoint):  # type: ignore[misc] # Authlib has no type information
    """A client sees its own tokens; with the ``introspect`` permission, those of its practice."""

    CLIENT_AUTH_METHODS: ClassVar = [m for m in TOKEN_AUTH_METHODS if m != "none"]

    def query_token(self, token_string: str, token_type_hint: str | None) -> LoadedToken | None:  # noqa: ARG002 - looked up before
        return _loaded_token(self)

    def check_permission(self, token: LoadedToken, client: LoadedClient, request: Any) -> bool:  # noqa: ARG002
        own = token.check_client(client)
        return own or (
            "introspect" in client.record.permissions
            and token.record.practice == client.record.practice
        )

    def introspect_token(self, token: LoadedToken) -> dict[str, Any]:
        """What the token response said, and for an id_token its ``iss``, ``sub``, ``fhirUser``.

        Of a consent for several records also which: of one record's token, that one.
        """
        record, issuer = token.record, self.server.setting.issuer
        payload: dict[str, Any] = {
            "active": True,
            "scope": record.scope,
            "client_id": record.client_id,
            "token_type": token_type(record.jkt),
            "iat": int(record.issued),
            "exp": int(record.expires),
        }
        if record.jkt is not None:
            payload["cnf"] = {"jkt": record.jkt}  # RFC 9449 §6.2
        payload |= launch_context(self.server, record) | launch_display(self.server, record)
        listed = self.server.loaded.records
        if listed and record.patient:
            family, _ = listed[0]
            one = detail_of(self.server, family, scope=record.scope)
            payload["authorization_details"] = [one]
        elif listed:
            payload["authorization_details"] = details_of(self.server, listed)
        identity = ScopeSet.parse(record.scope).identity
        if record.account is not None and "openid" in identity:
            payload |= {"iss": issuer.base, "sub": record.account}
        if record.fhir_user and "fhirUser" in identity:
            payload["fhirUser"] = issuer.url_of(record.fhir_user)
        return payload


class Revocation(RevocationEndpoint):  # type: ignore[misc] # Authlib has no type information
    """Ends the whole family of the token; the exchange says which, `outcome.commit` does it."""

    CLIENT_AUTH_METHODS: ClassVar = list(TOKEN_AUTH_METHODS)

    def query_token(self, token_string: str, token_type_hint: str | None) -> LoadedToken | None:  # noqa: ARG002 - looked up before
        return _loaded_token(self)

    def revoke_token(self, token: LoadedToken, request: Any) -> None:  # noqa: ARG002
        self.server.revoked = token.record


def _loaded_token(endpoint: Any) -> LoadedToken | None:
    record = endpoint.server.loaded.token
    return None if record is None else LoadedToken(record, endpoint.server.now)
