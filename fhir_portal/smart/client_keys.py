"""JWK Sets that clients keep at an address of their own (``jwks_uri``, RFC 7591 §2).

SMART App Launch 2.2 §4: a set is not kept longer than its cache header says. It is read anew
when that time is over, and when a signature names a key that is not in it, at most once a minute.
While its host is down, the last good set serves for a short time, unless the header forbids it.

Anybody can have us ask: an assertion names a client before its signature is looked at, and anybody
may register a client. So a made-up key takes nothing from a set that is fresh; one host is asked at
most every `FLOOR_SECONDS`, and who comes in between waits for that answer; a host that fails is
left alone for a growing time. Clients that nobody has looked at are kept apart from the others, so
that whatever they do with their hosts, the others' keys are read.
"""

from __future__ import annotations

import asyncio
import json
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import Any, Final

import structlog

from fhir_portal.smart.client import Client
from fhir_portal.smart.jwks import BadKeys, kids_of, usable
from fhir_portal.smart.outbound import AddressRefused, BadAnswer, NoAnswer, NoTurn, Outbound

DEFAULT_SECONDS: Final = 300
"""How long a set is kept that says nothing about it."""
MOST_SECONDS: Final = 3600
GRACE_SECONDS: Final = 300
REFETCH_SECONDS: Final = 60
RETRY_SECONDS: Final = 10
"""How long a host that failed once is left alone; twice as long after each further failure."""
LONGEST_RETRY: Final = 60
LONGEST_RETRY_OF_STRANGERS: Final = 600
FLOOR_SECONDS: Final = 2
REMEMBERED: Final = 1000
_NOT_KEPT: Final = frozenset({"no-store", "no-cache"})

_log = structlog.get_logger(__name__)


class KeysUnavailable(Exception):
    """The client's keys cannot be had at this moment; the words are for its developer."""


@dataclass(slots=True)
class _Held:
    """What is known of one address. Times are the clock's.

    ``asks`` counts the requests to the host that were begun, ``failures`` those that failed since
    the last good one. ``fresh_until`` and ``good_until`` bound the use of ``jwks``: as its header
    said, and while the host is down.
    """

    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    asks: int = 0
    asked: float = float("-inf")
    failed: float = float("-inf")
    failures: int = 0
    problem: str = ""
    jwks: dict[str, Any] | None = None
    fresh_until: float = float("-inf")
    good_until: float = float("-inf")


class ClientKeys:
    """Reads and remembers JWK Sets by their address; of one address, one request at a time.

    ``strangers`` asks for clients that nobody has looked at: it should share no turns with
    ``outbound``. ``pause`` waits for so many seconds.
    """

    def __init__(
        self,
        outbound: Outbound,
        clock: Callable[[], float],
        *,
        strangers: Outbound | None = None,
        pause: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self._known = _Sets(outbound, clock, pause, LONGEST_RETRY)
        self._strange = _Sets(strangers or outbound, clock, pause, LONGEST_RETRY_OF_STRANGERS)

    async def of(self, url: str, kid: str | None, *, looked_at: bool = False) -> dict[str, Any]:
        """Return the usable keys at ``url``; ``kid`` is the key that will be looked for.

        ``looked_at`` says that somebody let the client in: `was_looked_at`.

        Raises:
            KeysUnavailable: there are none that may be used now.
        """
        return await (self._known if looked_at else self._strange).of(url, kid)


def was_looked_at(client: Client) -> bool:
    """Whether an operator added a client, or approved it as it is now."""
    approved = client.practice is not None or bool(client.approved_at)
    return not client.awaits_review and (approved or not client.self_registered)


class _Sets:
    """The JWK Sets of one sort of client."""

    def __init__(
        self,
        outbound: Outbound,
        clock: Callable[[], float],
        pause: Callable[[float], Awaitable[object]],
        longest_retry: float,
    ) -> None:
        self._outbound = outbound
        self._clock = clock
        self._pause = pause
        self._longest_retry = longest_retry
        self._held: OrderedDict[str, _Held] = OrderedDict()

    async def of(self, url: str, kid: str | None) -> dict[str, Any]:
        held = self._remember(url)
        if self._is_fresh(held) and not self._must_ask(held, kid) and held.jwks is not None:
            return held.jwks  # and no wait for what somebody else asks for
        asked_before = held.asks
        async with held.turn:
            # Whoever had the turn before us may have asked after we came: that answer is ours too.
            answered = held.asks > asked_before
            if not answered and self._must_ask(held, kid):
                await self._pause_before(held)
                await self._ask(url, held)
                answered = True
            if held.jwks is None or not (answered or self._clock() < held.good_until):
                raise KeysUnavailable(held.problem or "they could not be read a moment ago")
            return held.jwks

    def _remember(self, url: str) -> _Held:
        held = self._held.setdefault(url, _Held())
        self._held.move_to_end(url)
        while len(self._held) > REMEMBERED:
            self._held.popitem(last=False)
        return held

    def _must_ask(self, held: _Held, kid: str | None) -> bool:
        now = self._clock()
        if now < held.failed + self._left_alone(held):
            return False
        if held.jwks is None or not self._is_fresh(held):
            return True
        unknown = kid is not None and kid not in kids_of(held.jwks)
        return unknown and now >= held.asked + REFETCH_SECONDS

    def _is_fresh(self, held: _Held) -> bool:
        return held.jwks is not None and self._clock() < held.fresh_until

    def _left_alone(self, held: _Held) -> float:
        doublings = min(max(held.failures - 1, 0), 10)
        return min(RETRY_SECONDS * 2.0**doublings, self._longest_retry)

    async def _pause_before(self, held: _Held) -> None:
        """Keep to the floor. What may not be kept is not used meanwhile: whoever came waits."""
        left = held.asked + FLOOR_SECONDS - self._clock()
        if left > 0:
            await self._pause(left)

    async def _ask(self, url: str, held: _Held) -> None:
        """Read the set; keep it for as long as its header and our bounds allow."""
        held.asks += 1
        held.asked = self._clock()
        try:
            answer = await self._outbound.get_json(url)
            jwks = usable(_parsed(answer.content))
        except NoTurn as error:
            held.problem = str(error)  # and no failure of the host's
            self._drop_if_old(held)
        except (NoAnswer, AddressRefused, BadAnswer, BadKeys) as error:
            _log.warning("keys of a client cannot be read", problem=str(error))
            if self._is_fresh(held):
                return  # asked for a key that a stranger may have made up: the set stands
            held.failed, held.problem = self._clock(), str(error)
            held.failures += 1
            if isinstance(error, NoAnswer):
                self._drop_if_old(held)
            else:
                # The host speaks for the client: what it took away is not used any more.
                held.jwks = None
        else:
            now = self._clock()
            seconds, grace = _kept(answer.headers)
            held.jwks, held.failed, held.failures, held.problem = jwks, float("-inf"), 0, ""
            held.fresh_until = now + seconds
            held.good_until = held.fresh_until + grace

    def _drop_if_old(self, held: _Held) -> None:
        if self._clock() >= held.good_until:
            held.jwks = None


def _parsed(content: bytes) -> Any:
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        raise BadAnswer("the answer is not JSON") from None


def _kept(headers: Mapping[str, str]) -> tuple[float, float]:
    """How many seconds a set is fresh, and for how many more it may serve while its host is down.

    RFC 9111 §4.2 and §5.2; what cannot be read counts as over.
    """
    directives = [
        (name.strip().lower(), value.strip().strip('"'))
        for part in headers.get("cache-control", "").split(",")
        for name, _, value in [part.partition("=")]
    ]
    names = {name for name, _ in directives}
    if not _NOT_KEPT.isdisjoint(names):
        return 0, 0
    grace = 0 if "must-revalidate" in names else GRACE_SECONDS
    fresh: float = DEFAULT_SECONDS
    if "max-age" in names:
        said = min(_seconds(value) for name, value in directives if name == "max-age")
        fresh = said - _seconds(headers.get("age", "0"))
    elif "expires" in headers:
        fresh = _until(headers)
    return (min(fresh, MOST_SECONDS), grace) if fresh > 0 else (0, 0)


def _seconds(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() and len(text) < len("9999999999") else 0


def _until(headers: Mapping[str, str]) -> float:
    """Seconds from ``Date`` to ``Expires``, by the host's own clock."""
    try:
        ends = parsedate_to_datetime(headers["expires"])
        return (ends - parsedate_to_datetime(headers["date"])).total_seconds()
    except (LookupError, TypeError, ValueError):
        return 0
