"""Recovery codes: ten to print, each good once, in place of a phone that is lost.

A code has twelve signs; the first says which of the ten it is, so that checking one costs one
Argon2id and not ten (OWASP ASVS 5.0, 6.5.2: secrets of less than 112 bits are hashed as passwords
are). Letters that look like digits are left out and read as those digits.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar, Final

import msgspec

from fhir_portal.accounts.credentials import Passwords
from fhir_portal.accounts.proof import Proof, Spent, Write
from fhir_portal.accounts.totp import WrongCode
from fhir_portal.records import Record, RecordStore, RecordTransaction

CODES: Final = 10
_SIGNS: Final = "0123456789abcdefghjkmnpqrstvwxyz"  # 32, so that five bits of a byte are fair
_LENGTH: Final = 12
_GROUP: Final = 4
_LONGEST: Final = 40
_READ_AS: Final = str.maketrans("oil", "011")


class RecoveryCodes(Record, frozen=True, kw_only=True):
    """What is left of an account's recovery codes: hashes by first sign; ``key`` the account's."""

    kind: ClassVar[str] = "recovery-codes"

    made: float
    hashes: dict[str, str]


class RecoveryCodeBook:
    """Makes and checks recovery codes."""

    def __init__(
        self,
        store: RecordStore,
        passwords: Passwords,
        *,
        clock: Callable[[], float],
        random: Callable[[int], bytes],
    ) -> None:
        self._store = store
        self._passwords = passwords
        self._clock = clock
        self._random = random

    async def left(self, account: str) -> int:
        """Return how many codes an account has that were not used."""
        found = await self._store.get(RecoveryCodes, account)
        return len(found.hashes) if found is not None else 0

    async def new(self, account: str) -> tuple[list[str], Write]:
        """Return new codes, and the write by which they take the place of all earlier ones."""
        codes = [self._code(number) for number in range(CODES)]
        # One after the other: a sign-in that comes meanwhile waits for one of them, not for ten.
        hashes = [await self._passwords.hash_unchecked(code) for code in codes]
        made = RecoveryCodes(
            key=account,
            made=self._clock(),
            hashes={code[0]: stored for code, stored in zip(codes, hashes, strict=True)},
        )

        async def put(transaction: RecordTransaction) -> None:
            await transaction.put(made)

        return [_in_groups(code) for code in codes], put

    async def prove(self, account: str | None, typed: str) -> Proof:
        """Return the proof that somebody has a code. Raises `WrongCode`.

        Without an account, or without such a code, the same work is done.
        """
        code = _read(typed)
        found = await self._store.get(RecoveryCodes, account or "")
        stored = found.hashes.get(code[:1]) if found is not None else None
        if not await self._passwords.verify(stored, code) or account is None:
            raise WrongCode

        async def use(transaction: RecordTransaction) -> None:
            now = await transaction.get(RecoveryCodes, account)
            if now is None or now.hashes.get(code[0]) != stored:
                raise Spent
            left = {sign: one for sign, one in now.hashes.items() if sign != code[0]}
            if not await transaction.replace(now, msgspec.structs.replace(now, hashes=left)):
                raise Spent

        return Proof("recovery-code", use)

    def _code(self, number: int) -> str:
        signs = (_SIGNS[byte & 31] for byte in self._random(_LENGTH - 1))
        return _SIGNS[number] + "".join(signs)


def is_recovery_code(typed: str) -> bool:
    """Whether somebody means a recovery code: it is longer than what an app shows."""
    return len(_read(typed)) == _LENGTH


def _read(typed: str) -> str:
    """The signs of a code however it is written; ``""`` for what is far too long for one."""
    if len(typed) > _LONGEST:
        return ""
    signs = "".join(sign for sign in typed.casefold() if sign.isascii() and sign.isalnum())
    return signs.translate(_READ_AS)


def _in_groups(code: str) -> str:
    return "-".join(code[at : at + _GROUP] for at in range(0, len(code), _GROUP))
