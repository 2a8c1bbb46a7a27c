"""Other people's hosts: names with addresses, and what is answered there. No network."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import httpx

PUBLIC = "93.184.216.34"
Answers = Callable[[httpx.Request], httpx.Response]


class Hosts:
    """Set `names` and `answers`; `asked` and `looked_up` tell what a server did."""

    def __init__(self) -> None:
        self.names: dict[str, Sequence[str]] = {}
        self.answers: dict[str, Answers] = {}
        self.asked: list[httpx.Request] = []
        self.looked_up: list[str] = []

    def serve(self, name: str, answer: Answers, *addresses: str) -> None:
        """Put a host at a name."""
        self.names[name] = addresses or (PUBLIC,)
        self.answers[name] = answer

    async def resolve(self, host: str, port: int) -> Sequence[str]:  # noqa: ARG002 - as resolvers do
        self.looked_up.append(host)
        if host not in self.names:
            raise OSError("name or service not known")
        return self.names[host]

    @property
    def http(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(transport=httpx.MockTransport(self._answer))

    async def _answer(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(request)
        host = request.headers["host"].rpartition(":")[0] or request.headers["host"]
        return self.answers[host](request)


class Parts(httpx.AsyncByteStream):
    """A body in parts; `sent` counts those that somebody read."""

    def __init__(self, *parts: bytes) -> None:
        self.parts = parts
        self.sent = 0

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for part in self.parts:
            self.sent += 1
            yield part


def as_it_is(
    content: bytes = b"{}", *, status: int = 200, stream: Any = None, **headers: str
) -> Answers:
    """A host that always answers this; header names with ``_`` for ``-``."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    named.setdefault("content-type", "application/json")

    def answer(_: httpx.Request) -> httpx.Response:
        body = stream or Parts(content)
        return httpx.Response(status, headers=named, stream=body)

    return answer
