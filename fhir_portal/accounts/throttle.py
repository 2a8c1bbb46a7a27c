"""Rate limits that hold across workers and restarts: the ``limits`` library over the records.

Sign-in counts failures. Each try is counted before the password is looked at and taken back when
it was right. What a stranger can use up is never what the owner needs:

- a browser in which the account signed in before has a count of its own and, where it is codes that
  are tried, one for all such browsers of the account, which no other browser adds to;
- other browsers share one count for each network, and one for the account from all of them. Whoever
  commands many networks can use up that last one. It never makes anybody wait longer than its own
  window, and it is not asked where something is shown that cannot be guessed: a passkey, or a
  recovery code beside the password (`fhir_portal.accounts.front_door`).

Unknown accounts have the same counts, so that waiting tells nothing.
"""

from __future__ import annotations

import contextlib
import hashlib
import ipaddress
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import ClassVar, Final

import msgspec
from limits import RateLimitItem, parse
from limits.aio.storage import Storage
from limits.aio.strategies import FixedWindowRateLimiter

from fhir_portal.fhir.errors import Unavailable
from fhir_portal.records import Record, RecordStore, RecordTransaction

PER_ACCOUNT: Final = "10 per 15 minutes"
"""Tries on one account from one network, or from a browser it signed in from before."""
PER_ACCOUNT_ANYWHERE: Final = "50 per hour"
PER_ADDRESS: Final = "100 per hour"


class TooManyAttempts(Exception):
    """Wait: ``retry_after`` seconds."""

    def __init__(self, retry_after: int) -> None:
        super().__init__(f"try again in {retry_after} seconds")
        self.retry_after = retry_after


class AttemptCount(Record, frozen=True, kw_only=True):
    """How often something was tried in the window that ends at ``expires``."""

    kind: ClassVar[str] = "attempt-count"

    expires: float
    count: int


class RecordStorage(Storage):
    """Storage of the ``limits`` library in a `RecordStore`, by an injected clock."""

    STORAGE_SCHEME = ["fhir-portal-records"]  # noqa: RUF012 - declared so by its base

    def __init__(self, store: RecordStore, clock: Callable[[], float]) -> None:
        super().__init__()
        self._store = store
        self._clock = clock

    @property
    def base_exceptions(self) -> type[Exception]:
        return OSError

    async def incr(self, key: str, expiry: int, amount: int = 1) -> int:
        """Count; the first count of a window starts it."""
        now = self._clock()

        async def count(transaction: RecordTransaction) -> int:
            found = await transaction.get(AttemptCount, _hashed(key))
            if found is None or now >= found.expires:
                found = AttemptCount(key=_hashed(key), expires=now + expiry, count=0)
            changed = msgspec.structs.replace(found, count=max(0, found.count + amount))
            await transaction.put(changed)
            return changed.count

        return await self._store.transact(count)

    async def get(self, key: str) -> int:
        found = await self._store.get(AttemptCount, _hashed(key))
        return found.count if found is not None and self._clock() < found.expires else 0

    async def get_expiry(self, key: str) -> float:
        found = await self._store.get(AttemptCount, _hashed(key))
        return found.expires if found is not None else self._clock()

    async def check(self) -> bool:
        return True

    async def reset(self) -> int | None:
        """Not offered: there is no reason to forget everybody's counts."""
        return None

    async def clear(self, key: str) -> None:
        async def forget(transaction: RecordTransaction) -> None:
            await transaction.delete(AttemptCount, _hashed(key))

        await self._store.transact(forget)


@dataclass(frozen=True, slots=True)
class Attempt:
    """The counts one try went into: a limit and who it counts against."""

    counted: tuple[tuple[RateLimitItem, str], ...]


class Throttle:
    """Limits on tries, for each account (from a network, a known browser, anywhere) and network."""

    def __init__(
        self,
        store: RecordStore,
        clock: Callable[[], float],
        *,
        per_account: str = PER_ACCOUNT,
        per_account_anywhere: str = PER_ACCOUNT_ANYWHERE,
        per_account_known: str | None = None,
        per_address: str = PER_ADDRESS,
    ) -> None:
        self._clock = clock
        self._storage = RecordStorage(store, clock)
        self._limiter = FixedWindowRateLimiter(self._storage)
        self._per_account = parse(per_account)
        self._per_account_anywhere = parse(per_account_anywhere)
        self._per_account_known = parse(per_account_known) if per_account_known else None
        self._per_address = parse(per_address)

    async def attempt(
        self, account: str, *, address: str, device: str | None, guessable: bool = True
    ) -> Attempt:
        """Count a try. Raises `TooManyAttempts` when a limit is passed; that try is not counted.

        ``device`` names a browser known to be the account's. ``guessable`` is false for a secret
        that nobody finds by trying: it needs no limit over all networks.
        """
        network = network_of(address)
        if device:
            limits = [(self._per_account, f"device:{device}")]
            if guessable and self._per_account_known is not None:
                limits.append((self._per_account_known, f"known:{account}"))
        else:
            limits = [
                (self._per_address, f"address:{network}"),
                (self._per_account, f"account:{account} from:{network}"),
            ]
            if guessable:
                limits.append((self._per_account_anywhere, f"account:{account}"))
        counted: list[tuple[RateLimitItem, str]] = []
        for limit, key in limits:
            allowed = await self._limiter.hit(limit, key)
            counted.append((limit, key))
            if not allowed:
                await self.succeeded(Attempt(tuple(counted)))
                raise TooManyAttempts(await self._wait(limit, key))
        return Attempt(tuple(counted))

    async def succeeded(self, attempt: Attempt) -> None:
        """Take a try back: it was no failure."""
        for limit, key in attempt.counted:
            await self._storage.incr(limit.key_for(key), limit.get_expiry(), -1)

    async def left(self, attempt: Attempt) -> int:
        """Return how many tries more the counts that a try went into take, for now."""
        counts = [
            limit.amount - await self._storage.get(limit.key_for(key))
            for limit, key in attempt.counted
        ]
        return max(0, min(counts))

    @contextlib.asynccontextmanager
    async def looking_at(self, attempt: Attempt) -> AsyncIterator[None]:
        """Take a try back if the server is too busy to look at it."""
        try:
            yield
        except Unavailable:
            await self.succeeded(attempt)
            raise

    async def limit(self, rule: str, key: str) -> None:
        """Count one use of anything. Raises `TooManyAttempts` when ``rule`` is used up."""
        item = parse(rule)
        if not await self._limiter.hit(item, key):
            raise TooManyAttempts(await self._wait(item, key))

    async def allows(
        self, per_source: str, anywhere: str, key: str, *, address: str, device: str | None
    ) -> bool:
        """Count one use of what nobody must be able to use up for somebody else; whether it may be.

        A browser known to be the account's (``device``) has a count of its own. Other browsers have
        one for each network, and one from all of them together, in which only what their own
        network may do is counted: so no single network uses it up.
        """
        source = f"device:{device}" if device else f"from:{network_of(address)}"
        if not await self._limiter.hit(parse(per_source), f"{key} {source}"):
            return False
        return bool(device) or await self._limiter.hit(parse(anywhere), key)

    async def _wait(self, limit: RateLimitItem, key: str) -> int:
        stats = await self._limiter.get_window_stats(limit, key)
        return max(1, round(stats.reset_time - self._clock()))


def network_of(address: str) -> str:
    """Return what an address is counted by: itself, or the /64 that one IPv6 customer has."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv4Address):
        return str(parsed)
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(ipaddress.ip_network((parsed, 64), strict=False))


def _hashed(key: str) -> str:
    """Names and addresses are not kept in the clear."""
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()
