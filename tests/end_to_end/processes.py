"""Connections of which it is known which server process answers them.

The workers accept from one listening socket, so the kernel decides who gets a connection. Linux
says who got it: ``/proc/net/tcp`` gives the inode of the server's end, ``/proc/PID/fd`` its holder.
"""

from __future__ import annotations

import asyncio
import os
from collections import defaultdict
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import msgspec

from tests.end_to_end.running import Running

CAN_TELL = Path("/proc/net/tcp").exists()
_AT_ONCE = 40
_MOST_CONNECTIONS = 2000


@dataclass(frozen=True)
class Reply:
    """An answer: status, headers by lower-case name, body, and the process it came from.

    ``cookies`` are those it sets.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes
    process: int
    cookies: Mapping[str, str] = field(default_factory=dict)

    def json(self) -> Any:
        """The body as JSON."""
        return msgspec.json.decode(self.body)


class NobodyHolds(Exception):
    """No process of the server holds its end of a connection, or there is none any more."""


@dataclass
class Connection:
    """One kept-alive connection and the process at its other end.

    With ``lasting``, one that the server closed since nothing was asked on it for long is opened
    again, to the same process.
    """

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    process: int = 0
    lasting: Running | None = None

    @classmethod
    async def open(cls, server: Running) -> Connection:
        """Connect, and have one request answered, so that a process has taken the connection.

        On a machine that is busy the server may close it as idle before that process is found.
        """
        for _ in range(_MOST_CONNECTIONS):
            made = cls(*await asyncio.open_connection("127.0.0.1", server.port))
            try:
                reply = await made.ask(request("GET", "/health/live"))
                assert reply.status == 200
                made.process = await holder(server, made)
            except NobodyHolds:
                await made.close()
            except BaseException:
                await made.close()
                raise
            else:
                return made
        raise NobodyHolds(f"port {server.port}")

    async def ask(self, sent: bytes) -> Reply:
        """Send a request and read its answer."""
        await self.awake()
        self.writer.write(sent)
        return await self.reply()

    async def awake(self) -> None:
        """Be open and just used, if it is a lasting one: what is idle for long is closed."""
        while self.lasting is not None:
            with suppress(ConnectionError, asyncio.IncompleteReadError):
                self.writer.write(request("GET", "/health/live"))
                await self.reply()
                return
            await self.close()
            again = await Connection.open(self.lasting)
            if again.process == self.process:
                self.reader, self.writer = again.reader, again.writer
            else:
                await again.close()

    async def reply(self) -> Reply:
        """Read an answer."""
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        headers, cookies = {}, {}
        for line in filter(None, head[1:]):
            name, _, value = line.partition(":")
            headers[name.lower()] = value.strip()
            if name.lower() == "set-cookie":
                cookie, _, content = value.strip().partition(";")[0].partition("=")
                cookies[cookie] = content
        body = await self.reader.readexactly(int(headers["content-length"]))
        return Reply(int(head[0].split()[1]), headers, body, self.process, cookies)

    async def close(self) -> None:
        """Hang up."""
        self.writer.close()
        with suppress(OSError):
            await self.writer.wait_closed()


@asynccontextmanager
async def connections(
    server: Running, each: int, *, lasting: bool = False
) -> AsyncIterator[dict[int, list[Connection]]]:
    """Open connections until every worker has ``each`` of them; the rest are closed."""
    held: dict[int, list[Connection]] = defaultdict(list)
    opened: list[Connection] = []
    try:
        while len(held) < server.workers or min(map(len, held.values())) < each:
            assert len(opened) < _MOST_CONNECTIONS, {pid: len(c) for pid, c in held.items()}
            some = await asyncio.gather(*(Connection.open(server) for _ in range(_AT_ONCE)))
            opened += some
            for one in some:
                if len(held[one.process]) < each:
                    one.lasting = server if lasting else None
                    held[one.process].append(one)
                else:
                    await one.close()
        yield dict(held)
    finally:
        for one in opened:
            await one.close()


async def at_once(made: Sequence[Connection], sent: bytes | Sequence[bytes]) -> list[Reply]:
    """Send a request on every connection, its last byte held back until all have the rest.

    It is the same on all of them, unless each has its own.
    """
    each = [sent] * len(made) if isinstance(sent, bytes) else sent
    await asyncio.gather(*(one.awake() for one in made))
    for one, own in zip(made, each, strict=True):
        one.writer.write(own[:-1])
        await one.writer.drain()
    for one, own in zip(made, each, strict=True):
        one.writer.write(own[-1:])
    return list(await asyncio.gather(*(one.reply() for one in made)))


def request(
    method: str,
    path: str,
    *,
    token: str = "",
    form: Mapping[str, str] | Sequence[tuple[str, str]] | None = None,
    resource: Any = None,
    headers: Mapping[str, str] | None = None,
) -> bytes:
    """Compose an HTTP/1.1 request; ``headers`` take the place of those it would have."""
    sent = {"Host": "127.0.0.1", "Accept": "application/json"}
    body = b""
    if token:
        sent["Authorization"] = f"Bearer {token}"
    if form is not None:
        body = urlencode(form).encode()
        sent["Content-Type"] = "application/x-www-form-urlencoded"
    elif resource is not None:
        body = msgspec.json.encode(resource)
        sent["Content-Type"] = "application/fhir+json"
    if form is not None or resource is not None:
        sent["Content-Length"] = str(len(body))
    sent |= headers or {}
    lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in sent.items())]
    return "\r\n".join([*lines, "", ""]).encode() + body


async def holder(server: Running, connection: Connection) -> int:
    """The process that has taken a connection; waits until one has."""
    assert server.process is not None
    local = connection.writer.get_extra_info("sockname")[1]
    while (inode := _inode(server.port, local)) == "0":
        await asyncio.sleep(0.005)
    return _holder(inode, server.process.pid)


def _inode(server_port: int, client_port: int) -> str:
    """The inode of the server's end of a connection over loopback."""
    ends = [f"0100007F:{port:04X}" for port in (server_port, client_port)]
    for line in Path("/proc/net/tcp").read_text("ascii").splitlines()[1:]:
        fields = line.split()
        if fields[1:3] == ends:
            return fields[9]
    raise NobodyHolds(f"no connection from port {client_port}")


def _holder(inode: str, group: int) -> int:
    """The process of a group that holds a socket."""
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        with suppress(OSError):
            if os.getpgid(int(entry.name)) != group:
                continue
            for descriptor in (entry / "fd").iterdir():
                with suppress(OSError):
                    if descriptor.readlink().name == f"socket:[{inode}]":
                        return int(entry.name)
    raise NobodyHolds(f"nobody in the server's group holds socket {inode}")
