"""Tokens: opaque to everyone, SHA-256 at rest, one look-up to check.

An authorization starts a *family*: one access token and, with ``offline_access``, one refresh
token per generation. Both are derived from the server's secret, a random handle and the
generation, so the same request asked twice is answered with the same tokens although neither is
stored. The handle itself is only in the refresh tokens; its hash is the key of the family.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
from dataclasses import dataclass
from typing import ClassVar, Final, Literal, Self

from fhir_portal.consent.record import Access
from fhir_portal.records import Record, RecordReader
from fhir_portal.smart.keys import ServerKeys
from fhir_portal.smart.launch_context import LaunchContext

HANDLE_BYTES: Final = 16
_GENERATION_BYTES: Final = 4
_REFRESH_BYTES: Final = HANDLE_BYTES + _GENERATION_BYTES + 32
_BEARER: Final = re.compile(r"[A-Za-z0-9._~+/=-]{20,512}")


class AccessToken(Record, frozen=True, kw_only=True):
    """What one access token stands for; ``key`` is its hash.

    ``scope`` is what the token response said. ``family`` is ``""`` for backend clients, which
    have neither account nor patient. In the ``user`` context ``patient`` is that of the launch:
    it bounds nothing. ``until`` is the end that the person chose. ``jkt`` is the thumbprint of the
    DPoP key whose holder alone may use it. ``browser`` is the `browser_key` of the session
    for which the server itself holds it (``page_session.py``): it is over when that is. ``share``
    is the key of the link (``sharing.py``) that the server reads by it.
    """

    kind: ClassVar[str] = "access-token"
    indexed: ClassVar[tuple[str, ...]] = ("family", "client_id")

    expires: float
    issued: float
    client_id: str
    context: Literal["patient", "user", "system"]
    scope: str
    practice: str
    family: str = ""
    patient: str | None = None
    fhir_user: str | None = None
    account: str | None = None
    grant: str | None = None
    until: float | None = None
    jkt: str | None = None
    browser: str | None = None
    share: str | None = None

    @property
    def access(self) -> Access | None:
        """By what right of a person's it was given; ``None`` for a backend client."""
        patient = "" if self.context == "user" else self.patient
        if patient is None or self.fhir_user is None:
            return None
        return self.practice, patient, self.fhir_user, self.grant


class TokenFamily(Record, frozen=True, kw_only=True):
    """What a person approved for a client, and how far its refresh tokens have come.

    ``key`` is the hash of the handle. ``rotated`` is when ``generation`` began. ``until`` is the
    end that the person chose: no use of a refresh token moves ``expires`` beyond it. ``jkt`` is the
    thumbprint of the DPoP key that its refresh tokens are bound to, when the client cannot
    authenticate. A family that ``ended`` is kept until it expires, to say why.

    In the ``user`` context it is for what a member of staff may use, and ``patient`` is only told,
    or ``""``. ``launched`` is where the app was launched, if there is more to tell than that.

    A consent for several records has a family that ``is_list``: it lists them, without a patient,
    and reads none. Below it is one family for each record: ``parent`` is the key of the one above,
    ``identifier`` names the record in it. Those have access tokens by exchange and no refresh
    tokens.
    """

    kind: ClassVar[str] = "token-family"
    indexed: ClassVar[tuple[str, ...]] = ("account", "client_id", "patient", "grant", "parent")

    expires: float
    issued: float
    rotated: float
    client_id: str
    account: str
    patient: str
    practice: str
    fhir_user: str
    grant: str | None
    scope: str
    context: Literal["patient", "user"] = "patient"
    launched: LaunchContext | None = None
    generation: int = 0
    until: float | None = None
    jkt: str | None = None
    is_list: bool = False
    parent: str | None = None
    identifier: str = ""
    ended: float | None = None
    ended_because: str = ""

    @property
    def access(self) -> Access:
        """By what right of the person's it was given; of a list, by none."""
        patient = "" if self.context == "user" else self.patient
        return self.practice, patient, self.fhir_user, self.grant


@dataclass(frozen=True, slots=True)
class RefreshToken:
    """A refresh token taken apart: whose it is, which one it is, and the proof."""

    handle: bytes
    generation: int
    proof: bytes

    @classmethod
    def derive(cls, keys: ServerKeys, handle: bytes, generation: int) -> Self:
        """Make the refresh token of a generation."""
        number = generation.to_bytes(_GENERATION_BYTES, "big")
        return cls(handle, generation, keys.derive("refresh-token", handle, number))

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """Take a presented token apart; ``None`` when it cannot be one of ours."""
        try:
            raw = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
        except (binascii.Error, ValueError):
            return None
        if len(raw) != _REFRESH_BYTES or base64url(raw) != text:
            return None
        number = raw[HANDLE_BYTES : HANDLE_BYTES + _GENERATION_BYTES]
        return cls(
            raw[:HANDLE_BYTES], int.from_bytes(number, "big"), raw[HANDLE_BYTES + len(number) :]
        )

    def __str__(self) -> str:
        number = self.generation.to_bytes(_GENERATION_BYTES, "big")
        return base64url(self.handle + number + self.proof)

    @property
    def family(self) -> str:
        """The key of the family this token claims to belong to."""
        return family_key(self.handle)

    def is_genuine(self, keys: ServerKeys) -> bool:
        """Whether this server made it, some time."""
        made = RefreshToken.derive(keys, self.handle, self.generation)
        return hmac.compare_digest(made.proof, self.proof)


def derive_access_token(keys: ServerKeys, handle: bytes, generation: int) -> str:
    """Make the access token of a generation."""
    number = generation.to_bytes(_GENERATION_BYTES, "big")
    return base64url(keys.derive("access-token", handle, number))


def family_key(handle: bytes) -> str:
    """The key under which a family is stored."""
    return hashlib.sha256(handle).hexdigest()


def grant_id(family: str) -> str:
    """What an app is told a family by: nothing that leads back to its key."""
    return base64url(hashlib.sha256(b"grant-id:" + family.encode()).digest())


def token_hash(token: str) -> str:
    """What is stored of a code or access token."""
    return hashlib.sha256(token.encode()).hexdigest()


def base64url(raw: bytes) -> str:
    """Base64url without padding (RFC 7515 §2)."""
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


async def authenticate(reader: RecordReader, bearer: str, now: float) -> AccessToken | None:
    """Return what a bearer token stands for, or ``None``: unknown, expired or revoked (RFC 6750).

    Revoking deletes the row in its own transaction, so this one look-up is enough.
    """
    if not _BEARER.fullmatch(bearer):
        return None
    found = await reader.get(AccessToken, token_hash(bearer))
    return found if found is not None and now < found.expires else None
