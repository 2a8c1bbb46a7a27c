"""Long answers on their way: sent piece by piece, while whoever asked may still have them.

Their rights are asked for again before each piece, and at each turn while a piece waits for a slow
reader, so that an answer ends within a second after they do (DESIGN §3.10). One that is cut looks
cut: the connection is reset, there is no last chunk, and less than Content-Length has come. What is
being sent lies in memory or is made as it leaves: a reader who is slow keeps no transaction and no
reader of the store waiting.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, MutableMapping
from typing import Any, Final, TypeVar

import structlog
from starlette.responses import Response

from fhir_portal.access.context import AuthContext
from fhir_portal.fhir.errors import FhirError, TooManyRequests, Unauthenticated
from fhir_portal.fhir.interaction import Stream
from fhir_portal.portal import Portal, fault

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]

T = TypeVar("T")
_log = structlog.get_logger()

PIECE: Final = 64 * 1024
LONG: Final = 256 * 1024
"""Answers longer than this are sent in pieces."""
TURN_SECONDS: Final = 0.5
STALLED_SECONDS: Final = 60.0
"""So long a reader may take nothing, and then it is over."""
AT_ONCE: Final = 2
"""Archives that one account, or one token without an account, fetches at a time on one worker."""
CUT: Final = "fhir_portal.cut"
"""The extension of the ASGI scope by which a server drops a connection, and what waits in it: a
function under the name `DROP`."""
DROP: Final = "drop"


class Over(Exception):
    """Nobody takes what is sent, or may take it."""


class Downloads:
    """The long answers of one worker."""

    def __init__(
        self,
        portal: Portal,
        turn_seconds: float = TURN_SECONDS,
        stalled_seconds: float = STALLED_SECONDS,
    ) -> None:
        self._portal = portal
        self._turn = turn_seconds
        self._stalled = stalled_seconds
        self._archives = Counter[str]()

    def room(self, auth: AuthContext) -> Room:
        """Take the place of one archive for a caller. Raises `TooManyRequests`."""
        who = auth.account or auth.token
        if self._archives[who] >= AT_ONCE:
            message = f"{AT_ONCE} downloads of this kind are running already"
            raise TooManyRequests(message, retry_after=30)
        return Room(self._archives, who)

    async def still(self, auth: AuthContext) -> None:
        """Raise `Unauthenticated` when a caller's rights have ended or changed."""
        await self._portal.callers.confirm(auth)
        if self._portal.server.clock() >= auth.expires:
            message = "the access token has expired"
            raise Unauthenticated(message)

    async def send(
        self,
        auth: AuthContext,
        chunks: AsyncGenerator[bytes, None],
        *,
        status: int,
        headers: Headers,
        scope: Scope,
        receive: Receive,
        send: Send,
    ) -> None:
        """Send an answer as far as the caller may have it, and cut it where that ends."""
        gone = asyncio.create_task(gone_of(receive))
        whole = False
        try:
            await send({"type": "http.response.start", "status": status, "headers": headers})
            await self._pieces(auth, chunks, gone, send)
            whole = True
        except (Over, FhirError, OSError):
            pass
        except Exception as error:  # noqa: BLE001 - the answer has begun: it can only be cut
            _log.error("download failed", **fault(error))
        finally:
            await chunks.aclose()
            if not whole:
                await cut(scope, gone)
            gone.cancel()
        if whole:
            await send({"type": "http.response.body", "body": b""})

    async def _pieces(
        self,
        auth: AuthContext,
        chunks: AsyncIterator[bytes],
        gone: asyncio.Task[None],
        send: Send,
    ) -> None:
        while True:
            chunk = await self.held(auth, _next(chunks), gone)
            if chunk is None:
                await self.still(auth)
                return
            for start in range(0, len(chunk), PIECE):
                await self.still(auth)
                piece = chunk[start : start + PIECE]
                message = {"type": "http.response.body", "body": piece, "more_body": True}
                await self.held(auth, send(message), gone, within=self._stalled)

    async def held(
        self,
        auth: AuthContext,
        work: Awaitable[T],
        gone: asyncio.Task[None],
        *,
        within: float | None = None,
    ) -> T:
        """Wait for something for as long as the caller is there and their rights stand.

        Raises:
            Unauthenticated, Over: they do not, or nothing came of it in time.
        """
        task = asyncio.ensure_future(work)
        waited = 0.0
        try:
            while True:
                done, _ = await asyncio.wait(
                    {task, gone}, timeout=self._turn, return_when=asyncio.FIRST_COMPLETED
                )
                if task in done:
                    return task.result()
                if gone in done:
                    raise Over
                await self.still(auth)
                waited += self._turn
                if within is not None and waited >= within:
                    raise Over
        finally:
            if not task.done():
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError, Exception):
                    await task


class Room:
    """The place of one archive that is being fetched; to be given back once."""

    def __init__(self, archives: Counter[str], who: str) -> None:
        self._archives = archives
        self._who: str | None = who
        archives[who] += 1

    def close(self) -> None:
        """Give it back; a second time does nothing."""
        who, self._who = self._who, None
        if who is None:
            return
        self._archives[who] -= 1
        if self._archives[who] <= 0:
            del self._archives[who]


class Sent(Response):
    """An answer of a page that is sent while the token it was made under may have it."""

    def __init__(
        self,
        downloads: Downloads,
        auth: AuthContext,
        chunks: AsyncGenerator[bytes, None],
        *,
        headers: Headers,
        room: Room | None = None,
    ) -> None:
        super().__init__()
        self.raw_headers = headers
        self._downloads = downloads
        self._auth = auth
        self._chunks = chunks
        self._room = room

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it; the place it took is free again when that is over."""
        try:
            await self._downloads.send(
                self._auth,
                self._chunks,
                status=self.status_code,
                headers=self.raw_headers,
                scope=scope,
                receive=receive,
                send=send,
            )
        finally:
            if self._room is not None:
                self._room.close()


def while_allowed(downloads: Downloads, auth: AuthContext, answer: Response) -> Response:
    """Return an answer that is there already, to be sent so if it is long."""
    body = bytes(answer.body)
    if len(body) <= LONG:
        return answer
    return Sent(downloads, auth, in_pieces(body), headers=list(answer.raw_headers))


async def in_pieces(body: bytes) -> AsyncGenerator[bytes, None]:
    """Yield a body that is there already."""
    for start in range(0, len(body), PIECE):
        yield body[start : start + PIECE]


def saved_as(stream: Stream) -> Headers:
    """Return the headers of a stream: it is saved, whatever it is."""
    return [
        (b"content-type", stream.media.encode()),
        (b"content-security-policy", b"sandbox; default-src 'none'"),
        (b"content-disposition", b'attachment; filename="%b"' % stream.name.encode()),
    ]


async def cut(scope: Scope, gone: asyncio.Task[None]) -> None:
    """Drop the connection, and what of the answer has not left yet.

    Without the extension a server closes it itself, since the answer was never completed.
    """
    drop = ((scope.get("extensions") or {}).get(CUT) or {}).get(DROP)
    if drop is not None:
        drop()
        await asyncio.wait({gone}, timeout=1)  # until the server knows


async def _next(chunks: AsyncIterator[bytes]) -> bytes | None:
    return await anext(chunks, None)


async def gone_of(receive: Receive) -> None:
    """Wait until whoever asked has hung up."""
    while (await receive())["type"] != "http.disconnect":  # noqa: ASYNC110 - nothing is polled
        await asyncio.sleep(0)  # whoever gives something again and again holds up nobody
