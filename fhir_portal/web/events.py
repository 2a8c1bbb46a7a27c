"""Server-sent events of messages: one stream for each caller who asks, closed when access ends.

Source: HTML Living Standard §9.2 (server-sent events). The rights of the caller are asked for again
at each turn, so that a stream ends within a second after they do (DESIGN §3.10); what was opened is
one access in the log, and what is read after an event is one of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final

import msgspec
import structlog

from fhir_portal.access.context import AuthContext
from fhir_portal.fhir.errors import FhirError, TooManyRequests
from fhir_portal.operations.message_events import changed_since, sees_now
from fhir_portal.portal import Portal, fault
from fhir_portal.web.downloads import STALLED_SECONDS, Downloads, Over, cut, gone_of

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Write = Callable[[bytes], Awaitable[None]]

_log = structlog.get_logger()

PATH: Final = "Communication/$message-events"
MEDIA: Final = b"text/event-stream"
TURN_SECONDS: Final = 0.5
QUIET_TURNS: Final = 30
"""So many turns without an event, and a comment says that the stream is alive."""
LONGEST_TURNS: Final = 7200
"""Then it ends, and whoever still wants it opens another."""
AT_ONCE: Final = 4
"""Streams of one token on one worker."""
MOST_REMEMBERED: Final = 20_000
HEADERS: Final = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-store"),
    (b"x-content-type-options", b"nosniff"),
    (b"x-accel-buffering", b"no"),
]


class EventStreams:
    """The open streams of one worker."""

    def __init__(self, portal: Portal, turn_seconds: float = TURN_SECONDS) -> None:
        self._portal = portal
        self._turn = turn_seconds
        self._held = Downloads(portal, turn_seconds).held
        self._open = Counter[str]()

    def make_room(self, auth: AuthContext) -> None:
        """Raise `TooManyRequests` for one stream too many of a caller."""
        if self._open[auth.token] >= AT_ONCE:
            message = f"{AT_ONCE} streams are open already"
            raise TooManyRequests(message, retry_after=10)

    async def run(
        self,
        auth: AuthContext,
        scope: MutableMapping[str, Any],
        receive: Receive,
        send: Send,
        headers: list[tuple[bytes, bytes]],
    ) -> None:
        """Send events until the caller has gone, or may no longer see what they are about.

        Raises `TooManyRequests`: others were opened while this one was let in.
        """
        self.make_room(auth)
        self._open[auth.token] += 1
        gone = asyncio.create_task(gone_of(receive))

        async def write(text: bytes) -> None:
            """Have a text read; who takes nothing hears no more, and nothing after the end."""
            message = {"type": "http.response.body", "body": text, "more_body": True}
            await self._held(auth, send(message), gone, within=STALLED_SECONDS)

        try:
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            try:
                await self._events(auth, gone, write)
            except (Over, FhirError):
                await cut(scope, gone)
                return
            except Exception as error:  # noqa: BLE001 - the answer has begun: it can only end
                _log.error("stream of events failed", **fault(error))
            with contextlib.suppress(OSError):
                await send({"type": "http.response.body", "body": b""})
        finally:
            gone.cancel()
            self._open[auth.token] -= 1
            if self._open[auth.token] <= 0:
                del self._open[auth.token]

    async def _events(self, auth: AuthContext, gone: asyncio.Task[None], write: Write) -> None:
        server, callers = self._portal.server, self._portal.callers
        mark, quiet = int(server.clock() * 1000), 0
        told: dict[str, int] = {}
        first = sees_now(auth, server)
        if first is not None:  # what was there before the stream began is no news
            told = {one.thread: one.version for one in await changed_since(server, first, mark)}
        await write(b": open\n\n")
        epoch: object = None
        for _ in range(LONGEST_TURNS):
            done, _ = await asyncio.wait({gone}, timeout=self._turn)
            if done:
                return
            try:
                await callers.confirm(auth)
            except FhirError:
                await write(b"event: end\ndata: {}\n\n")
                return
            visible = sees_now(auth, server)
            if visible is None:
                await write(b"event: end\ndata: {}\n\n")
                return
            now = await server.store.epoch()
            quiet += 1
            if now != epoch:
                epoch = now
                for one in await changed_since(server, visible, mark):
                    if told.get(one.thread) == one.version:
                        continue
                    told[one.thread] = one.version
                    mark, quiet = max(mark, one.updated), 0
                    await write(_event(one.thread, one.version, mark))
                if len(told) > MOST_REMEMBERED:
                    told.clear()  # some may be told again, which does no harm
            if quiet >= QUIET_TURNS:
                quiet = 0
                await write(b": still here\n\n")


def _event(thread: str, version: int, mark: int) -> bytes:
    data = msgspec.json.encode({"thread": thread, "version": str(version)})
    return b"event: thread\nid: %d\ndata: %b\n\n" % (mark, data)
