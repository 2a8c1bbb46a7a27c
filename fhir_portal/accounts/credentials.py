"""Passwords and the sign-in that checks them: always the same work, always the same words.

A password may hold any character and needs none in particular; it must be long, and not what
everybody would guess. NIST SP 800-63B-4 §3.1.1, OWASP ASVS 5.0 chapter 6.
"""

from __future__ import annotations

import asyncio
import secrets
import unicodedata
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final, TypeVar

import msgspec
from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from fhir_portal.accounts.account import Account, account_named, folded
from fhir_portal.accounts.guessable import is_leaked, is_of_the_place
from fhir_portal.accounts.throttle import Attempt, Throttle, TooManyAttempts
from fhir_portal.fhir.errors import Unavailable
from fhir_portal.records import RecordStore, RecordTransaction

MIN_LENGTH: Final = 12
MAX_LENGTH: Final = 128
MOST_WAITING: Final = 64
"""Hashes under way and waiting, some two seconds of work: who comes then is to come back later."""
SIGN_INS: Final = "100 per hour"
"""Right passwords of one account, from browsers that nobody knows; as many from known ones."""
BY_ALL_NAMES: Final = "150 per hour"
"""Sign-ins to one account by all its names together, from browsers that nobody knows."""
HASHER = PasswordHasher(time_cost=2, memory_cost=19 * 1024, parallelism=1)
"""Argon2id with 19 MiB and two passes."""
_AT_ONCE: Final = 2
_UNTYPABLE: Final = frozenset({"Cc", "Cs"})  # RFC 8264 §9.11, and half a character

T = TypeVar("T")


class UnacceptablePassword(Exception):
    """Too short, too long, or among the first that anybody would try; the words are for people."""


class SignInRefused(Exception):
    """Unknown user, wrong password, disabled account: nobody is told which."""


class Passwords:
    """Hashes of `HASHER`, at most two at once in this process.

    Whatever hashes raises `fhir_portal.fhir.errors.Unavailable` when ``most_waiting`` do.
    """

    def __init__(self, *, most_waiting: int = MOST_WAITING) -> None:
        self._hasher = HASHER
        self._threads = ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="argon2")
        self._most_waiting = most_waiting
        self._waiting = 0
        self._nobodys = self._hasher.hash(secrets.token_urlsafe())

    async def hash(self, password: str, *, username: str = "", names: Iterable[str] = ()) -> str:
        """Return what is stored. Raises `UnacceptablePassword`.

        ``names`` are what the person's practices are called: like the user name they are tried
        early.
        """
        text = "" if len(password) > MAX_LENGTH else _normal(password)
        if not MIN_LENGTH <= len(text) <= MAX_LENGTH:
            raise UnacceptablePassword(
                f"A password has {MIN_LENGTH} to {MAX_LENGTH} characters. "
                "Several words in a row are easy to remember."
            )
        if any(unicodedata.category(character) in _UNTYPABLE for character in text):
            raise UnacceptablePassword("This password holds a character that nobody can type.")
        if folded(text) == folded(username) or is_of_the_place(text, (username, *names)):
            raise UnacceptablePassword(
                "This password is little more than your user name or the name of this place. "
                "Choose another."
            )
        if await self._run(is_leaked, text):
            raise UnacceptablePassword(
                "This password is on the lists of those who try to get into other people's "
                "accounts. Choose another."
            )
        return await self.hash_unchecked(text)

    async def hash_unchecked(self, secret: str) -> str:
        """Hash what needs no judging: a password that was right just now, a code of our own."""
        return await self._run(self._hasher.hash, _normal(secret))

    async def verify(self, stored: str | None, password: str) -> bool:
        """Check a password; without a stored one the same work is done and the answer is no.

        So it is for what is longer than any password: it is not even looked at.
        """
        if len(password) > MAX_LENGTH:
            stored, password = None, ""
        matches = await self._run(self._matches, stored or self._nobodys, _normal(password))
        return matches and stored is not None

    def is_outdated(self, stored: str) -> bool:
        """Whether the hash was made with other parameters than today's."""
        return self._hasher.check_needs_rehash(stored)

    def close(self) -> None:
        """Let the threads go."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _matches(self, stored: str, password: str) -> bool:
        try:
            return self._hasher.verify(stored, password)
        except (VerificationError, InvalidHashError):
            return False

    async def _run(self, work: Callable[..., T], *arguments: str) -> T:
        if self._waiting >= self._most_waiting:
            raise Unavailable("too many passwords are being checked")
        self._waiting += 1
        hashing = asyncio.get_running_loop().run_in_executor(self._threads, work, *arguments)
        hashing.add_done_callback(self._hashed)  # and not before, though who waits may give up
        return await hashing

    def _hashed(self, _: object) -> None:
        self._waiting -= 1


@dataclass(frozen=True, slots=True)
class SignIn:
    """Sign-in with user name and password, over a store, passwords and a throttle."""

    store: RecordStore
    passwords: Passwords
    throttle: Throttle
    successes: str = SIGN_INS
    by_all_names: str = BY_ALL_NAMES

    async def __call__(
        self, username: str, password: str, *, address: str, device: str | None = None
    ) -> Account:
        """Return the account.

        ``address`` is where the request came from; ``device`` names a browser in which this
        account signed in before, so that strangers' failures do not lock it out. Raises
        `SignInRefused` or `fhir_portal.accounts.throttle.TooManyAttempts`, both the same whether
        or not the account exists.
        """
        attempt = await self.throttle.attempt(folded(username), address=address, device=device)
        account = await account_named(self.store, username)
        usable = device is not None or await self._may_guess(account, username)
        return await self._checked(
            attempt, account if usable else None, password, is_known=device is not None
        )

    async def _may_guess(self, account: Account | None, username: str) -> bool:
        """Whether an account may be tried once more, by whichever of its names.

        Who may not is told that the password is wrong: to be told to wait would tell that two names
        are one account's.
        """
        key = account.key if account is not None else folded(username)
        try:
            await self.throttle.limit(self.by_all_names, f"all names of {key}")
        except TooManyAttempts:
            return False
        return True

    async def again(self, account: Account, password: str, *, address: str, device: str) -> Account:
        """Return an account whose password somebody gives who is signed in to it already.

        It is looked up by its key. Raises what signing in does.
        """
        attempt = await self.throttle.attempt(account.username, address=address, device=device)
        found = await self.store.get(Account, account.key)
        return await self._checked(attempt, found, password, is_known=True)

    async def _checked(
        self, attempt: Attempt, account: Account | None, password: str, *, is_known: bool
    ) -> Account:
        usable = account is not None and not account.disabled
        stored = account.password_hash if account is not None and usable else None
        async with self.throttle.looking_at(attempt):
            matches = await self.passwords.verify(stored, password)
        if not matches or account is None:
            raise SignInRefused
        await self.throttle.succeeded(attempt)
        whence = "known browsers" if is_known else "new browsers"
        await self.throttle.limit(self.successes, f"right password {account.key} {whence}")
        if stored is not None and self.passwords.is_outdated(stored):
            return await self._rehashed(account, password)
        return account

    async def _rehashed(self, account: Account, password: str) -> Account:
        """Store a hash of today; the account stays as it is if somebody else changes it."""
        password_hash = await self.passwords.hash_unchecked(password)
        renewed = msgspec.structs.replace(account, password_hash=password_hash)

        async def change(transaction: RecordTransaction) -> Account | None:
            if await transaction.replace(account, renewed):
                return renewed
            return await transaction.get(Account, account.key)

        found = await self.store.transact(change)
        if found is None or not await self.passwords.verify(found.password_hash, password):
            raise SignInRefused
        return found


def _normal(password: str) -> str:
    """One form for what looks alike, all kinds of spaces included.

    RFC 8265 §4.2 (OpaqueString) has NFC and maps the spaces; NFKC does more of the same.
    """
    return unicodedata.normalize("NFKC", password.replace("\u1680", " "))
