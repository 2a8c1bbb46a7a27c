"""The id_token (OpenID Connect Core §2, SMART App Launch 2.2 §2.0.13): RS256, with ``fhirUser``."""

from __future__ import annotations

from typing import Any

from authlib.oidc.core.grants import OpenIDCode

from fhir_portal.smart.exchange import Exchange, LoadedClient
from fhir_portal.smart.grants.issue import launch_context, person_of
from fhir_portal.smart.scope import ScopeSet


class IdToken(OpenIDCode):  # type: ignore[misc] # Authlib has no type information
    """Authlib's extension to the code grant, over the exchange's keys and clock."""

    def __init__(self) -> None:
        super().__init__(require_nonce=False)
        self._exchange: Exchange

    def __call__(self, grant: Any) -> None:
        self._exchange = grant.server
        grant.register_hook("after_create_token_response", self.process_token)

    def get_client_algorithm(self, client: LoadedClient) -> str:  # noqa: ARG002
        return "RS256"

    def get_encode_header(self, client: LoadedClient) -> dict[str, str]:  # noqa: ARG002
        return {"alg": "RS256", "kid": self._exchange.setting.keys.kid}

    def resolve_client_private_key(self, client: LoadedClient) -> Any:  # noqa: ARG002
        return self._exchange.setting.keys.signing

    def get_client_claims(self, client: LoadedClient) -> dict[str, Any]:
        now = int(self._exchange.now)
        return {
            "iss": self._exchange.setting.issuer.base,
            "aud": client.client_id,
            "iat": now,
            "exp": now + self._exchange.setting.lifetimes.id_token,
        }

    def generate_user_info(self, user: Any, scope: str) -> dict[str, Any]:
        """``sub`` is the account; the rest what the token response says of person and record."""
        exchange = self._exchange
        claims: dict[str, Any] = {"sub": user.key}
        code = exchange.loaded.code
        if not exchange.loaded.records and code is not None:
            return claims | launch_context(exchange, code)
        # A Person, and no patient, where several records are listed.
        fhir_user = person_of(user, [record for _, record in exchange.loaded.records])
        if fhir_user and "fhirUser" in ScopeSet.parse(scope).identity:
            claims["fhirUser"] = exchange.setting.issuer.url_of(fhir_user)
        return claims
