"""A passkey device made of software, which a test can have do what no device does."""

from __future__ import annotations

import hashlib
import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from dataclasses import dataclass, field
from typing import Any

import cbor2
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from fhir_portal.accounts.account import Account
from fhir_portal.accounts.passkeys import Site
from fhir_portal.accounts.sessions import Session
from tests.accounts.house import House

ORIGIN, DOMAIN = "https://portal.example.org", "portal.example.org"
SITE = Site(ORIGIN, DOMAIN)
PRESENT, VERIFIED, ATTESTED = 0x01, 0x04, 0x40  # WebAuthn §6.1


def base64url(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode()


@dataclass
class Authenticator:
    """Holds one key. ``origin`` and ``domain`` are what it believes the page to be."""

    credential_id: bytes = b"credential-of-sixteen"
    origin: str = ORIGIN
    domain: str = DOMAIN
    flags: int = PRESENT | VERIFIED
    counter: int = 0
    handle: bytes | None = None
    client_data: dict[str, Any] = field(default_factory=dict)
    key: ec.EllipticCurvePrivateKey = field(
        default_factory=lambda: ec.generate_private_key(ec.SECP256R1())
    )
    house: House | None = None

    @classmethod
    async def of(cls, house: House, account: Account | None = None, **how: Any) -> Authenticator:
        """One whose passkey is an account's already."""
        owner = account or house.mara
        authenticator = cls(handle=owner.key.encode(), house=house, **how)
        session = (await house.signed_in(owner)).visitor.session
        options = await house.door.passkeys.begin_adding(session, owner, SITE)
        made = authenticator.make(options)
        add = await house.door.passkeys.added(session, owner, made, "Key")
        await house.store.transact(add)
        return authenticator

    async def answer(self, session: Session, account: Account | None = None, **how: Any) -> str:
        """Ask for a challenge in this session and answer it."""
        assert self.house is not None
        options = await self.house.door.passkeys.begin_proving(session, SITE, account)
        return self.sign(options, **how)

    def make(self, options: str, **changes: Any) -> str:
        """What ``navigator.credentials.create`` gives for these options."""
        asked = json.loads(options)
        self.handle = self.handle or urlsafe_b64decode(asked["user"]["id"] + "===")
        public = self.key.public_key().public_numbers()
        cose = {
            1: 2,
            3: -7,
            -1: 1,
            -2: public.x.to_bytes(32, "big"),
            -3: public.y.to_bytes(32, "big"),
        }
        attested = (
            bytes(16)
            + len(self.credential_id).to_bytes(2, "big")
            + self.credential_id
            + cbor2.dumps(cose)
        )
        data = self._data(self.flags | ATTESTED) + attested
        attestation = {"fmt": "none", "attStmt": {}, "authData": data}
        response = {
            "clientDataJSON": base64url(self._client("webauthn.create", asked["challenge"])),
            "attestationObject": base64url(cbor2.dumps(attestation)),
            "transports": ["internal", "made-up"],
        }
        return self._credential({**response, **changes})

    def sign(self, options: str, **changes: Any) -> str:
        """What ``navigator.credentials.get`` gives for these options."""
        asked = json.loads(options)
        data = self._data(self.flags)
        client = self._client("webauthn.get", asked["challenge"])
        signed = data + hashlib.sha256(client).digest()
        response = {
            "clientDataJSON": base64url(client),
            "authenticatorData": base64url(data),
            "signature": base64url(self.key.sign(signed, ec.ECDSA(hashes.SHA256()))),
            "userHandle": base64url(self.handle) if self.handle is not None else None,
        }
        return self._credential({**response, **changes})

    def _credential(self, response: dict[str, Any]) -> str:
        name = base64url(self.credential_id)
        made = {"id": name, "rawId": name, "type": "public-key", "response": response}
        return json.dumps(made)

    def _client(self, kind: str, challenge: str) -> bytes:
        said = {"type": kind, "challenge": challenge, "origin": self.origin, **self.client_data}
        return json.dumps(said).encode()

    def _data(self, flags: int) -> bytes:
        hashed = hashlib.sha256(self.domain.encode()).digest()
        return hashed + bytes([flags]) + self.counter.to_bytes(4, "big")
