"""``private_key_jwt``: a client signs an assertion with a key it registered.

RFC 7523 §3, SMART App Launch 2.2 §4 (asymmetric client authentication). ``iat``, ``nbf`` and
``jku`` are not required. Each assertion is good once: its ``jti`` is stored by the transaction
that issues what it buys, and lasts as long as the assertion.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Final

from authlib.oauth2.rfc6749 import InvalidClientError
from authlib.oauth2.rfc7523 import JWTBearerClientAssertion
from joserfc import jws, jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet

from fhir_portal.records import Record
from fhir_portal.smart.errors import InvalidClient
from fhir_portal.smart.jwks import ALGORITHMS, key_for

MAX_AGE_SECONDS: Final = 300
SKEW_SECONDS: Final = 30
_MAX_ASSERTION: Final = 16 * 1024
_MAX_JTI: Final = 512


class UsedAssertion(Record, frozen=True, kw_only=True):
    """A ``jti`` that a client has used; ``key`` is the hash of both."""

    kind: ClassVar[str] = "used-assertion"


@dataclass(frozen=True, slots=True)
class Asserted:
    """What an assertion says before anything is verified: whom, and which key, to look up."""

    client_id: str
    kid: str | None


def asserted(assertion: str) -> Asserted:
    """Read the client and the key that an assertion names.

    Raises `InvalidClient` for what cannot be read, so that nobody else has to try.
    """
    unreadable = InvalidClient("The assertion cannot be read.")
    if len(assertion) > _MAX_ASSERTION:
        raise unreadable
    try:
        compact = jws.extract_compact(assertion.encode())
        header, claims = compact.headers(), json.loads(compact.payload)
        subject, crit = claims["sub"], header.get("crit", [])
        subject.encode()  # half a character (a lone surrogate) is no text that a store takes
    except (JoseError, ValueError, RecursionError, TypeError, AttributeError, LookupError):
        raise unreadable from None
    if not isinstance(subject, str) or not isinstance(crit, list):
        raise unreadable
    kid = header.get("kid")
    return Asserted(subject, kid if isinstance(kid, str) else None)


def assertion_used() -> InvalidClient:
    """The refusal of an assertion whose `UsedAssertion` is stored already."""
    return InvalidClient("The assertion was used before.")


class PrivateKeyJwt(JWTBearerClientAssertion):  # type: ignore[misc] # Authlib is untyped
    """Authlib's assertion check over our clients, clock and algorithms.

    ``audiences`` are the addresses of the token endpoint; ``use`` is told of each `UsedAssertion`
    to be stored.
    """

    CLIENT_AUTH_METHOD = "private_key_jwt"

    def __init__(
        self,
        *,
        audiences: list[str],
        now: float,
        use: Callable[[UsedAssertion], None],
    ) -> None:
        super().__init__(validate_jti=True, leeway=SKEW_SECONDS)
        self._audiences = audiences
        self._now = now
        self._use = use

    def resolve_client_public_key(self, client: Any) -> Any:
        """Return the client's registered keys; which one signed is decided by the header."""
        known = client.check_endpoint_auth_method(self.CLIENT_AUTH_METHOD, "token")
        if not known or client.jwks is None:
            raise InvalidClientError(description="This client does not authenticate by assertion.")
        return KeySet.import_key_set(client.jwks)

    def process_assertion_claims(self, assertion: str, resolve_key: Any) -> Any:
        """Verify signature and claims. The words of the refusal never repeat the assertion."""
        try:
            header = jws.extract_compact(assertion.encode()).headers()
            key = key_for(header, resolve_key)
            token = jwt.decode(assertion, key, algorithms=list(ALGORITHMS))
        except (JoseError, ValueError, TypeError, RecursionError):
            raise InvalidClientError(description="The assertion cannot be verified.") from None
        self.verify_claims(token.claims)
        return token.claims

    def verify_claims(self, claims: dict[str, Any]) -> None:
        registry = jwt.JWTClaimsRegistry(
            now=int(self._now),
            leeway=self.leeway,
            iss={"essential": True},
            sub={"essential": True},
            aud={"essential": True, "values": self.get_audiences()},
            exp={"essential": True},
            jti={"essential": True},
        )
        try:
            registry.validate(claims)
        except JoseError as error:
            raise InvalidClientError(description=f"The assertion: {error.error}.") from None
        if claims["iss"] != claims["sub"]:
            raise InvalidClientError(description="The assertion: iss and sub must match.")
        if claims["exp"] > self._now + MAX_AGE_SECONDS + SKEW_SECONDS:
            raise InvalidClientError(description="The assertion: exp is over five minutes ahead.")
        if len(claims["jti"]) > _MAX_JTI:
            raise InvalidClientError(description="The assertion: jti is too long.")
        self.validate_jti(claims, claims["jti"])

    def get_audiences(self) -> list[str]:
        return self._audiences

    def validate_jti(self, claims: dict[str, Any], jti: str) -> bool:
        """Have the ``jti`` stored; whether it was used before shows when that is done."""
        named = f"{len(claims['sub'])}:{claims['sub']}:{jti}"
        self._use(
            UsedAssertion(
                key=hashlib.sha256(named.encode("utf-8", "surrogatepass")).hexdigest(),
                expires=claims["exp"] + SKEW_SECONDS,
            )
        )
        return True
