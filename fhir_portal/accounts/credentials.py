"""Passwords and the sign-in that checks them: always the same work, always the same words.

NIST SP 800-63B-4 §3.1.1, OWASP ASVS 5.0 chapter 6.
"""

from __future__ import annotations

import asyncio
import secrets
import unicodedata
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final, TypeVar

import msgspec
from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from fhir_portal.accounts.account import Account, account_named, folded
from fhir_portal.accounts.throttle import Throttle
from fhir_portal.records import RecordStore, RecordTransaction

MIN_LENGTH: Final = 8
MAX_LENGTH: Final = 256
_AT_ONCE: Final = 2

T = TypeVar("T")


class UnacceptablePassword(Exception):
    """Too short, too long, or the user name itself."""


class SignInRefused(Exception):
    """Unknown user, wrong password, disabled account: nobody is told which."""


class Passwords:
    """Argon2id with 19 MiB and two passes, at most two at once in this process."""

    def __init__(self) -> None:
        self._hasher = PasswordHasher(time_cost=2, memory_cost=19 * 1024, parallelism=1)
        self._threads = ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="argon2")
        self._nobodys = self._hasher.hash(secrets.token_urlsafe())

    async def hash(self, password: str, *, username: str = "") -> str:
        """Return what is stored. Raises `UnacceptablePassword`."""
        text = "" if len(password) > MAX_LENGTH else _normal(password)
        if not MIN_LENGTH <= len(text) <= MAX_LENGTH:
            raise UnacceptablePassword(f"a password has {MIN_LENGTH} to {MAX_LENGTH} characters")
        if username and folded(text) == folded(username):
            raise UnacceptablePassword("the password must not be the user name")
        return await self._run(self._hasher.hash, text)

    async def rehash(self, password: str) -> str:
        """Hash a password that was right just now with today's parameters, whatever it is like."""
        return await self._run(self._hasher.hash, _normal(password))

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
        return await asyncio.get_running_loop().run_in_executor(self._threads, work, *arguments)


@dataclass(frozen=True, slots=True)
class SignIn:
    """Sign-in with user name and password, over a store, passwords and a throttle."""

    store: RecordStore
    passwords: Passwords
    throttle: Throttle

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
        usable = account is not None and not account.disabled
        stored = account.password_hash if account is not None and usable else None
        if not await self.passwords.verify(stored, password) or account is None:
            raise SignInRefused
        await self.throttle.succeeded(attempt)
        if stored is not None and self.passwords.is_outdated(stored):
            return await self._rehashed(account, password)
        return account

    async def _rehashed(self, account: Account, password: str) -> Account:
        """Store a hash of today; the account stays as it is if somebody else changes it."""
        password_hash = await self.passwords.rehash(password)
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
    return unicodedata.normalize("NFKC", password)
