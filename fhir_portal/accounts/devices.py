"""Browsers that a person told us to remember: there the second factor is not asked again.

Only that: the password is. The cookie's token is hashed at rest, lives 90 days, and works for
one account. Every one of them is listed on the security page and can be forgotten there.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Callable
from typing import ClassVar, Final

import msgspec

from fhir_portal.accounts.proof import Proof, Spent, Write
from fhir_portal.records import Record, RecordStore, RecordTransaction

REMEMBERED_SECONDS: Final = 90 * 86_400.0
_TOKEN_BYTES: Final = 32
_ALL: Final = 1_000_000

_BROWSERS: Final = (  # the first that is named: most claim to be others as well
    ("Edge", re.compile(r"\bEdg(e|A|iOS)?/")),
    ("Opera", re.compile(r"\b(OPR|OPiOS|Opera)/")),
    ("Samsung Internet", re.compile(r"\bSamsungBrowser/")),
    ("Firefox", re.compile(r"\b(Firefox|FxiOS)/")),
    ("Chrome", re.compile(r"\b(Chrome|HeadlessChrome|CriOS|Chromium)/")),
    ("Safari", re.compile(r"\bSafari/")),
)
_SYSTEMS: Final = (
    ("iPhone", re.compile(r"\biPhone\b")),
    ("iPad", re.compile(r"\biPad\b")),
    ("Android", re.compile(r"\bAndroid\b")),
    ("Windows", re.compile(r"\bWindows\b")),
    ("ChromeOS", re.compile(r"\bCrOS\b")),
    ("Mac", re.compile(r"\bMacintosh\b|\bMac OS X\b")),
    ("Linux", re.compile(r"\bLinux\b|\bX11\b")),
)
_LOOKED_AT: Final = 400


class RememberedDevice(Record, frozen=True, kw_only=True):
    """One remembered browser of an account; ``key`` is the hash of its token."""

    kind: ClassVar[str] = "remembered-device"
    indexed: ClassVar[tuple[str, ...]] = ("account",)

    expires: float
    account: str
    device: str
    added: float
    used: float


class RememberedDevices:
    """Remembers browsers and forgets them."""

    def __init__(
        self, store: RecordStore, *, clock: Callable[[], float], random: Callable[[int], bytes]
    ) -> None:
        self._store = store
        self._clock = clock
        self._random = random

    def remember(self, account: str, device: str) -> tuple[str, Write]:
        """Return a token for the browser's cookie, and the write that makes it good."""
        token = base64.urlsafe_b64encode(self._random(_TOKEN_BYTES)).rstrip(b"=").decode()
        now = self._clock()
        remembered = RememberedDevice(
            key=_hash(token),
            expires=now + REMEMBERED_SECONDS,
            account=account,
            device=device,
            added=now,
            used=now,
        )

        async def insert(transaction: RecordTransaction) -> None:
            await transaction.insert(remembered)

        return token, insert

    async def prove(self, account: str, token: str) -> Proof | None:
        """Return the proof that this browser is remembered for this account, or ``None``."""
        if not token:
            return None
        key, now = _hash(token), self._clock()
        found = await self._store.get(RememberedDevice, key)
        if found is None or found.account != account or now >= found.expires:
            return None

        async def use(transaction: RecordTransaction) -> None:
            there = await transaction.get(RememberedDevice, key)
            if there is None:
                raise Spent
            await transaction.put(msgspec.structs.replace(there, used=now))

        return Proof("remembered-device", use)

    async def of(self, account: str) -> list[RememberedDevice]:
        """Return an account's remembered browsers, the last used first."""
        now = self._clock()
        found = await self._store.find(RememberedDevice, "account", account)
        alive = [device for device in found if now < device.expires]
        return sorted(alive, key=lambda device: device.used, reverse=True)

    async def forget(self, account: str, key: str) -> bool:
        """Forget one browser if it is this account's; true if it was."""

        async def remove(transaction: RecordTransaction) -> bool:
            found = await transaction.get(RememberedDevice, key)
            if found is None or found.account != account:
                return False
            return await transaction.delete(RememberedDevice, key)

        return await self._store.transact(remove)


async def forget_devices(transaction: RecordTransaction, account: str) -> int:
    """Forget every browser of an account inside a transaction; returns how many there were."""
    found = await transaction.find(RememberedDevice, "account", account, limit=_ALL)
    for device in found:
        await transaction.delete(RememberedDevice, device.key)
    return len(found)


def device_words(user_agent: str) -> str:
    """Return what a person calls a browser: “Firefox on Windows”.

    The rest of a ``User-Agent`` would tell one person from another, and is not kept.
    """
    seen = user_agent[:_LOOKED_AT]
    browser = next((name for name, sign in _BROWSERS if sign.search(seen)), "")
    system = next((name for name, sign in _SYSTEMS if sign.search(seen)), "")
    if not browser and not system:
        return "Unknown browser"
    return f"{browser or 'Browser'} on {system}" if system else browser


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()
