"""Keys rotate, processes are replaced, and no app notices; the full figures: ``rotation.py``.

Seen to fail: with uvicorn's own protocol in place of `PoliteProtocol` (idle connections are
closed); with a new key that signs at once (`PUBLISHED_SECONDS` of 0); with a key that is retired
too early.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

import pytest

from tests.end_to_end.demo import Demo
from tests.end_to_end.processes import (
    CAN_TELL,
    Connection,
    Reply,
    connections,
    holder,
    request,
)
from tests.end_to_end.rotation import Load, Operator, rotate_under_load

pytestmark = pytest.mark.skipif(not CAN_TELL, reason="only Linux tells who holds a connection")
_SECONDS = 90.0


async def test_a_rotation_under_load_fails_nobody(demo: Demo) -> None:
    """Apps that keep the keys for as long as they may verify every id_token."""
    load = Load(demo)
    async with load.at_work():
        await rotate_under_load(load, Operator(demo), restarting=False)
    assert load.wrong == {}


async def test_processes_are_replaced_under_load_and_no_request_fails(demo: Demo) -> None:
    load = Load(demo)
    before = demo.server.processes()
    async with load.at_work():
        after = await demo.server.replace_processes()
        await load.some_more()
    assert len(after) == demo.workers
    assert not before & after
    assert load.wrong == {}


async def test_a_process_that_ends_answers_what_is_on_its_way_and_says_so(demo: Demo) -> None:
    """On a connection that waited, on one without any request yet, and half a request."""
    async with connections(demo.server, 2) as held:
        waiting = [await Ending.of(demo, *of_one) for of_one in held.values()]
        async with asyncio.TaskGroup() as group:
            answers = [group.create_task(one.answers()) for one in waiting]
            after = await demo.server.replace_processes()
        for one in waiting:
            await one.close()
        for process, answered in zip(held, answers, strict=True):
            assert process not in after
            for reply in answered.result():
                assert reply.status in (200, 400)  # the token request was no good one
                assert reply.headers["connection"] == "close"


@dataclass
class Ending:
    """Connections to one process: one that is asked at times, half a request, none at all."""

    idle: Connection
    half: Connection
    unused: Connection

    @classmethod
    async def of(cls, demo: Demo, idle: Connection, half: Connection) -> Ending:
        """With one connection more, on which nothing was asked."""
        deadline = time.monotonic() + _SECONDS
        while True:
            assert time.monotonic() < deadline
            unused = Connection(*await asyncio.open_connection("127.0.0.1", demo.server.port))
            if await holder(demo.server, unused) == idle.process:
                return cls(idle, half, unused)
            await unused.close()

    async def answers(self) -> list[Reply]:
        """Ask until the answer says that it is the last; it, and what the others are answered."""
        live = request("GET", "/health/live")
        token = request("POST", "/oauth/token", form={"grant_type": "none"})
        self.half.writer.write(token[:-4])
        deadline = time.monotonic() + _SECONDS
        while "connection" not in (last := await self.idle.ask(live)).headers:
            assert time.monotonic() < deadline, "the process does not end"
            await asyncio.sleep(0.02)
        found = [last, await self.unused.ask(live)]
        self.half.writer.write(token[-4:])
        return [*found, await self.half.reply()]

    async def close(self) -> None:
        """Hang up what `connections` does not."""
        await self.unused.close()
