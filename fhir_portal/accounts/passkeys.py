"""Passkeys: signing in with a key that never leaves the person's device (WebAuthn Level 3).

Each ceremony has a challenge of its own, kept for this browser's session and used up by the first
answer, right or wrong. The device must have verified the person (a finger, a face, a PIN), so a
passkey counts as both factors. Keys are discoverable: nobody types a user name.

A key belongs to a domain, the relying party id. That is the base URL's host; where a browser
comes by an alias that is no part of it, the alias' own. An IP address is no domain: no passkeys.
"""

from __future__ import annotations

import contextlib
import ipaddress
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, Final
from urllib.parse import urlsplit

import msgspec
import structlog
from webauthn import (
    generate_authentication_options,
    generate_registration_options,
    options_to_json,
    verify_authentication_response,
    verify_registration_response,
)
from webauthn.helpers import (
    base64url_to_bytes,
    bytes_to_base64url,
    parse_authentication_credential_json,
    parse_client_data_json,
    parse_registration_credential_json,
)
from webauthn.helpers.cose import COSEAlgorithmIdentifier
from webauthn.helpers.structs import (
    AuthenticatorSelectionCriteria,
    AuthenticatorTransport,
    PublicKeyCredentialDescriptor,
    ResidentKeyRequirement,
    UserVerificationRequirement,
)

from fhir_portal.accounts.account import Account
from fhir_portal.accounts.proof import Proof, Spent, Write
from fhir_portal.accounts.sessions import Session
from fhir_portal.records import DuplicateRecord, Record, RecordStore, RecordTransaction

MOST: Final = 20
"""Passkeys of one account."""
CHALLENGE_SECONDS: Final = 5 * 60.0
MAX_NAME: Final = 60
_CHALLENGE_BYTES: Final = 32
_TIMEOUT: Final = int(CHALLENGE_SECONDS * 1000)
_ALGORITHMS: Final = [
    COSEAlgorithmIdentifier.ECDSA_SHA_256,
    COSEAlgorithmIdentifier.EDDSA,
    COSEAlgorithmIdentifier.RSASSA_PKCS1_v1_5_SHA_256,
]

_log = structlog.get_logger(__name__)


class PasskeyRefused(Exception):
    """The answer is not to our question, or not by a key that is known. Nobody is told which."""


class TooManyPasskeys(Exception):
    """An account has at most `MOST`."""


class Passkey(Record, frozen=True, kw_only=True):
    """One passkey; ``key`` is its credential id, ``domain`` where it works.

    ``sign_count`` is what the device counted at its last use; many never count, and stay at 0.
    """

    kind: ClassVar[str] = "passkey"
    indexed: ClassVar[tuple[str, ...]] = ("account",)

    account: str
    public_key: bytes
    sign_count: int
    domain: str
    name: str
    added: float
    used: float
    transports: tuple[str, ...] = ()


class PasskeyChallenge(Record, frozen=True, kw_only=True):
    """What a browser was asked to sign; ``key`` is the session's, behind the ceremony's name."""

    kind: ClassVar[str] = "passkey-challenge"

    expires: float
    challenge: bytes
    domain: str
    origin: str
    account: str | None = None


@dataclass(frozen=True, slots=True)
class Site:
    """Where a browser is: the origin it shows, and the domain its passkeys belong to."""

    origin: str
    domain: str


class Passkeys:
    """Passkeys of accounts. ``origins`` are the addresses of this server, the base URL first."""

    def __init__(
        self,
        store: RecordStore,
        *,
        origins: Sequence[str],
        name: str,
        clock: Callable[[], float],
        random: Callable[[int], bytes],
    ) -> None:
        self._store = store
        self._origins = tuple(origins)
        self._name = name
        self._clock = clock
        self._random = random

    def site(self, host: str) -> Site | None:
        """Return the site of a ``Host`` header; ``None`` where there can be no passkeys.

        The header chooses among our own addresses; an unknown one means the base URL.
        """
        base = self._origins[0]
        origin = next((one for one in self._origins if urlsplit(one).netloc == host.lower()), base)
        here, home = _host(origin), _host(base)
        domain = home if here == home or here.endswith(f".{home}") else here
        return None if _is_ip(domain) else Site(origin, domain)

    async def of(self, account: str) -> list[Passkey]:
        """Return an account's passkeys, the last used first."""
        found = await self._store.find(Passkey, "account", account)
        return sorted(found, key=lambda passkey: passkey.used, reverse=True)

    # --- adding --------------------------------------------------------------------------------

    async def begin_adding(self, session: Session, account: Account, site: Site) -> str:
        """Return options for ``navigator.credentials.create``, as JSON.

        Raises `TooManyPasskeys`.
        """
        there = await self.of(account.key)
        if len(there) >= MOST:
            raise TooManyPasskeys
        challenge = await self._challenge("add", session, site, account.key)
        options = generate_registration_options(
            rp_id=site.domain,
            rp_name=self._name,
            user_id=account.key.encode(),
            user_name=account.username,
            challenge=challenge,
            timeout=_TIMEOUT,
            authenticator_selection=AuthenticatorSelectionCriteria(
                resident_key=ResidentKeyRequirement.REQUIRED,
                require_resident_key=True,
                user_verification=UserVerificationRequirement.REQUIRED,
            ),
            exclude_credentials=_described(there, site),
            supported_pub_key_algs=_ALGORITHMS,
        )
        return options_to_json(options)

    async def added(self, session: Session, account: Account, answer: str, name: str) -> Write:
        """Return the write that gives an account the passkey made in answer to our challenge.

        Raises `PasskeyRefused`; the write does so for a passkey that is known already.
        """
        async with self._asked("add", session, account.key) as asked:
            return self._added(asked, account, answer, name)

    def _added(self, asked: PasskeyChallenge, account: Account, answer: str, name: str) -> Write:
        with _refusing():
            credential = parse_registration_credential_json(answer)
            _same_page(credential.response.client_data_json)
            verified = verify_registration_response(
                credential=credential,
                expected_challenge=asked.challenge,
                expected_rp_id=asked.domain,
                expected_origin=asked.origin,
                require_user_verification=True,
                supported_pub_key_algs=_ALGORITHMS,
            )
        now = self._clock()
        passkey = Passkey(
            key=bytes_to_base64url(verified.credential_id),
            account=account.key,
            public_key=verified.credential_public_key,
            sign_count=verified.sign_count,
            domain=asked.domain,
            name=_named(name),
            added=now,
            used=now,
            transports=tuple(one.value for one in credential.response.transports or ()),
        )

        async def add(transaction: RecordTransaction) -> None:
            await _use_up(transaction, asked)
            if len(await transaction.find(Passkey, "account", account.key)) >= MOST:
                raise TooManyPasskeys
            try:
                await transaction.insert(passkey)
            except DuplicateRecord:
                raise PasskeyRefused from None

        return add

    def removal(self, account: str, key: str) -> Write:
        """Return the write that takes one passkey away. Raises `Spent` if it is not theirs."""

        async def remove(transaction: RecordTransaction) -> None:
            found = await transaction.get(Passkey, key)
            if found is None or found.account != account:
                raise Spent
            await transaction.delete(Passkey, key)

        return remove

    # --- proving -------------------------------------------------------------------------------

    async def begin_proving(
        self, session: Session, site: Site, account: Account | None = None
    ) -> str:
        """Return options for ``navigator.credentials.get``, as JSON.

        Without an account any passkey of this site may answer, and says whose it is.
        """
        challenge = await self._challenge("prove", session, site, account.key if account else None)
        options = generate_authentication_options(
            rp_id=site.domain,
            challenge=challenge,
            timeout=_TIMEOUT,
            allow_credentials=_described(await self.of(account.key), site) if account else None,
            user_verification=UserVerificationRequirement.REQUIRED,
        )
        return options_to_json(options)

    async def prove(
        self, session: Session, answer: str, account: Account | None = None
    ) -> tuple[Account, Proof]:
        """Return whose passkey answered, and the proof. Raises `PasskeyRefused`."""
        key = account.key if account else None
        async with self._asked("prove", session, key) as asked:
            return await self._proved(asked, answer, account)

    async def _proved(
        self, asked: PasskeyChallenge, answer: str, account: Account | None
    ) -> tuple[Account, Proof]:
        with _refusing():
            credential = parse_authentication_credential_json(answer)
            _same_page(credential.response.client_data_json)
        passkey = await self._store.get(Passkey, bytes_to_base64url(credential.raw_id))
        if passkey is None or passkey.domain != asked.domain:
            raise PasskeyRefused
        with _refusing():
            verified = verify_authentication_response(
                credential=credential,
                expected_challenge=asked.challenge,
                expected_rp_id=asked.domain,
                expected_origin=asked.origin,
                credential_public_key=passkey.public_key,
                credential_current_sign_count=passkey.sign_count,
                require_user_verification=True,
            )
        owner = await self._store.get(Account, passkey.account)
        handle = credential.response.user_handle
        if owner is None or owner.disabled or (account is not None and owner.key != account.key):
            raise PasskeyRefused
        if handle != owner.key.encode() and (handle is not None or account is None):
            raise PasskeyRefused  # WebAuthn §7.2, step 6
        used = msgspec.structs.replace(
            passkey, sign_count=verified.new_sign_count, used=self._clock()
        )

        async def use(transaction: RecordTransaction) -> None:
            await _use_up(transaction, asked)
            if not await transaction.replace(passkey, used):
                raise Spent

        return owner, Proof("passkey", use)

    async def _challenge(
        self, ceremony: str, session: Session, site: Site, account: str | None
    ) -> bytes:
        """Keep a new challenge for this session, in place of an earlier one."""
        asked = PasskeyChallenge(
            key=f"{ceremony} {session.key}",
            expires=self._clock() + CHALLENGE_SECONDS,
            challenge=self._random(_CHALLENGE_BYTES),
            domain=site.domain,
            origin=site.origin,
            account=account,
        )

        async def keep(transaction: RecordTransaction) -> None:
            await transaction.put(asked)

        await self._store.transact(keep)
        return asked.challenge

    @contextlib.asynccontextmanager
    async def _asked(
        self, ceremony: str, session: Session, account: str | None
    ) -> AsyncIterator[PasskeyChallenge]:
        """Give this session's challenge; after a wrong answer it is gone."""
        found = await self._store.get(PasskeyChallenge, f"{ceremony} {session.key}")
        if found is None or self._clock() >= found.expires or found.account != account:
            raise PasskeyRefused
        try:
            yield found
        except PasskeyRefused:

            async def drop(transaction: RecordTransaction) -> None:
                await transaction.delete(PasskeyChallenge, found.key)

            await self._store.transact(drop)
            raise


async def _use_up(transaction: RecordTransaction, asked: PasskeyChallenge) -> None:
    """Take a challenge away. Raises `Spent` when it was answered, or asked anew, meanwhile."""
    if await transaction.get(PasskeyChallenge, asked.key) != asked:
        raise Spent
    await transaction.delete(PasskeyChallenge, asked.key)


@contextlib.contextmanager
def _refusing() -> Iterator[None]:
    """Whatever a strange answer makes the library say is a refusal."""
    try:
        yield
    except Exception as error:  # noqa: BLE001 - it parses what strangers sent
        _log.info("passkey refused", error=type(error).__name__)
        raise PasskeyRefused from None


def _same_page(client_data: bytes) -> None:
    """Refuse an answer given in another site's frame (WebAuthn §7.1 step 10, §7.2 step 13)."""
    if parse_client_data_json(client_data).cross_origin:
        raise PasskeyRefused


def _described(passkeys: Sequence[Passkey], site: Site) -> list[PublicKeyCredentialDescriptor]:
    known = {transport.value for transport in AuthenticatorTransport}
    return [
        PublicKeyCredentialDescriptor(
            id=base64url_to_bytes(passkey.key),
            transports=[AuthenticatorTransport(one) for one in passkey.transports if one in known],
        )
        for passkey in passkeys
        if passkey.domain == site.domain
    ]


def _named(name: str) -> str:
    printable = "".join(character for character in name if character.isprintable())
    return " ".join(printable.split())[:MAX_NAME] or "Passkey"


def _host(origin: str) -> str:
    return urlsplit(origin).hostname or ""


def _is_ip(host: str) -> bool:
    with contextlib.suppress(ValueError):
        ipaddress.ip_address(host)
        return True
    return False
