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
from dataclasses import dataclass
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
    """An answer: status, headers by lower-case name, body, and the process it came from."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    process: int

    def json(self) -> Any:
        """The body as JSON."""
        return msgspec.json.decode(self.body)


@dataclass
class Connection:
    """One kept-alive connection and the process at its other end."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    process: int = 0

    @classmethod
    async def open(cls, server: Running) -> Connection:
        """Connect, and have one request answered, so that a process has taken the connection."""
        made = cls(*await asyncio.open_connection("127.0.0.1", server.port))
        reply = await made.ask(request("GET", "/health/live"))
        assert reply.status == 200
        local = made.writer.get_extra_info("sockname")[1]
        assert server.process is not None
        made.process = _holder(_inode(server.port, local), server.process.pid)
        return made

    async def ask(self, sent: bytes) -> Reply:
        """Send a request and read its answer."""
        self.writer.write(sent)
        return await self.reply()

    async def reply(self) -> Reply:
        """Read an answer."""
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        headers = {}
        for line in filter(None, head[1:]):
            name, _, value = line.partition(":")
            headers[name.lower()] = value.strip()
        body = await self.reader.readexactly(int(headers["content-length"]))
        return Reply(int(head[0].split()[1]), headers, body, self.process)

    async def close(self) -> None:
        """Hang up."""
        self.writer.close()
        with suppress(OSError):
            await self.writer.wait_closed()


@asynccontextmanager
async def connections(server: Running, each: int) -> AsyncIterator[dict[int, list[Connection]]]:
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
                    held[one.process].append(one)
                else:
                    await one.close()
        yield dict(held)
    finally:
        for one in opened:
            await one.close()


async def at_once(made: Sequence[Connection], sent: bytes) -> list[Reply]:
    """Send one request on every connection, its last byte held back until all have the rest."""
    for one in made:
        one.writer.write(sent[:-1])
        await one.writer.drain()
    for one in made:
        one.writer.write(sent[-1:])
    return list(await asyncio.gather(*(one.reply() for one in made)))


def request(
    method: str, path: str, *, token: str = "", form: Mapping[str, str] | None = None
) -> bytes:
    """Compose an HTTP/1.1 request."""
    lines = [f"{method} {path} HTTP/1.1", "Host: 127.0.0.1", "Accept: application/json"]
    lines += [f"Authorization: Bearer {token}"] if token else []
    body = urlencode(form).encode() if form is not None else b""
    if form is not None:
        lines.append("Content-Type: application/x-www-form-urlencoded")
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode() + body


def _inode(server_port: int, client_port: int) -> str:
    """The inode of the server's end of a connection over loopback."""
    ends = [f"0100007F:{port:04X}" for port in (server_port, client_port)]
    for line in Path("/proc/net/tcp").read_text("ascii").splitlines()[1:]:
        fields = line.split()
        if fields[1:3] == ends:
            return fields[9]
    raise AssertionError(f"no connection from port {client_port}")


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
    raise AssertionError(f"nobody in the server's group holds socket {inode}")
