"""Whoever holds a DPoP key, and the proofs they make with it."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from typing import Any

from joserfc import jws
from joserfc.jwk import ECKey, Key

from fhir_portal.smart.dpop import ALGORITHMS
from tests.smart.world import BASE, World

TOKEN_URL = f"{BASE}/oauth/token"


class LongHeaders(jws.JWSRegistry):
    """A proof's header holds a key: joserfc's own limit is too short for RSA."""

    max_header_length = 8192

    def __init__(self, *more: str) -> None:
        super().__init__(algorithms=[*ALGORITHMS, *more], strict_check_header=False)


class Holder:
    """One DPoP key. A change to ``None`` leaves a claim or header out."""

    def __init__(self, world: Any, key: Key | None = None, alg: str = "ES256") -> None:
        self.world: World = world
        self.key = key or ECKey.generate_key("P-256")
        self.alg = alg
        self.count = 0

    @property
    def jkt(self) -> str:
        return self.key.thumbprint()

    def claims(self, **changes: Any) -> dict[str, Any]:
        self.count += 1
        valid = {
            "jti": f"proof-{self.count}",
            "htm": "POST",
            "htu": TOKEN_URL,
            "iat": int(self.world.clock()),
            **changes,
        }
        return {name: value for name, value in valid.items() if value is not None}

    def proof(
        self,
        method: str = "POST",
        url: str = TOKEN_URL,
        *,
        token: str | None = None,
        header: Mapping[str, Any] | None = None,
        **changes: Any,
    ) -> str:
        if token is not None:
            digest = hashlib.sha256(token.encode()).digest()
            changes.setdefault("ath", base64.urlsafe_b64encode(digest).rstrip(b"=").decode())
        claims = self.claims(**{"htm": method, "htu": url, **changes})
        public = {k: v for k, v in self.key.as_dict(private=False).items() if k != "kid"}
        full = {"typ": "dpop+jwt", "alg": self.alg, "jwk": public, **(header or {})}
        sent = {name: value for name, value in full.items() if value is not None}
        return jws.serialize_compact(
            sent, json.dumps(claims), self.key, registry=LongHeaders(str(full["alg"]))
        )

    def headers(self, method: str, url: str, token: str, **changes: Any) -> dict[str, str]:
        """What a request for a resource carries."""
        return {
            "Authorization": f"DPoP {token}",
            "DPoP": self.proof(method, url, token=token, **changes),
        }
