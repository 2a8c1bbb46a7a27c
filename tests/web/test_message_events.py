"""Events of messages: what is told, to whom, and that a stream closes when access ends."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from fhir_portal.operations import charting
from fhir_portal.smart.token import AccessToken, token_hash
from fhir_portal.web.events import AT_ONCE, PATH
from fhir_portal.web.fhir import FhirApi
from tests.web.fhir_world import (
    ANNA,
    BEN,
    EHR,
    MAX_BODY,
    MAX_TRANSACTION,
    FhirWorld,
    capabilities,
    configuration,
)

WITHIN = 20.0  # of waiting for what has to come: a busy machine is slow, a stream is not


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[FhirWorld]:
    found = await FhirWorld.begin(tmp_path)
    found.api = FhirApi(
        found.portal,
        capabilities=capabilities,
        smart_configuration=configuration,
        max_body=MAX_BODY,
        max_transaction=MAX_TRANSACTION,
        event_turn_seconds=0.01,
    )
    yield found
    found.close()


@dataclass
class Stream:
    """An open request, and what has come of its answer."""

    status: int = 0
    headers: dict[bytes, bytes] = field(default_factory=dict)
    text: str = ""
    closed: bool = False
    came: asyncio.Event = field(default_factory=asyncio.Event)
    leave: asyncio.Event = field(default_factory=asyncio.Event)

    async def receive(self) -> dict[str, Any]:
        await self.leave.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Any) -> None:
        if message["type"] == "http.response.start":
            self.status, self.headers = message["status"], dict(message["headers"])
        else:
            self.text += message.get("body", b"").decode()
            self.closed = not message.get("more_body", False)
        self.came.set()

    async def until(self, words: str) -> None:
        await self.holds(lambda: words in self.text)

    async def holds(self, found: Callable[[], bool]) -> None:
        async with asyncio.timeout(WITHIN):
            while not found():
                self.came.clear()
                await self.came.wait()

    @property
    def threads(self) -> list[str]:
        lines = [one for one in self.text.splitlines() if one.startswith('data: {"thread')]
        return [json.loads(one.removeprefix("data: "))["thread"] for one in lines]


@asynccontextmanager
async def opened(world: FhirWorld, token: str = ANNA) -> AsyncIterator[Stream]:
    stream = Stream()
    scope = {
        "type": "http",
        "method": "GET",
        "path": f"/fhir/{PATH}",
        "raw_path": f"/fhir/{PATH}".encode(),
        "query_string": b"",
        "headers": [
            (b"authorization", f"Bearer {token}".encode()),
            (b"accept", b"text/event-stream"),
        ],
    }
    task = asyncio.create_task(world.api(scope, stream.receive, stream.send))
    await stream.holds(lambda: stream.status != 0)
    yield stream
    stream.leave.set()
    async with asyncio.timeout(WITHIN):
        await task


async def store(world: FhirWorld, own_id: str, of: str, **more: Any) -> None:
    tree = {
        "resourceType": "Communication",
        "id": own_id,
        "status": "in-progress",
        "category": [
            {
                "coding": [
                    {
                        "system": "https://fhir-portal.example/ig/CodeSystem/portal-conversation",
                        "code": "thread",
                    }
                ]
            }
        ],
        "subject": {"reference": f"Patient/{of}"},
        "payload": [{"contentString": "a secret rash"}],
    } | more
    await world.perform(await world.ehr(), "update", "Communication", own_id, body=tree)


async def test_a_change_is_told_to_whoever_may_see_it_and_to_nobody_else(
    world: FhirWorld,
) -> None:
    await store(world, "before", "anna")
    async with opened(world) as annas, opened(world, BEN) as bens:
        await annas.until(": open")
        await bens.until(": open")
        await store(world, "his", "ben")
        await store(world, "hers", "anna")
        await annas.until("hers")
        await bens.until("his")
        withheld = {"system": "https://fhir-portal.example/ig/CodeSystem/portal-tag"}
        await store(world, "kept", "anna", meta={"tag": [{**withheld, "code": "withheld"}]})
        await store(world, "hers", "anna", status="on-hold")
        await annas.until('"version":"2"')
        assert annas.threads == ["Communication/hers", "Communication/hers"]
        assert bens.threads == ["Communication/his"]
        assert "secret" not in annas.text
        assert annas.headers[b"content-type"].startswith(b"text/event-stream")
        assert annas.headers[b"cache-control"] == b"no-store"


async def revoke(world: FhirWorld, token: str = ANNA) -> None:
    async def work(transaction: Any) -> None:
        await transaction.delete(AccessToken, token_hash(token))

    await world.store.transact(work)


async def test_a_stream_ends_when_its_token_is_revoked_and_tells_nothing_after(
    world: FhirWorld,
) -> None:
    async with opened(world) as stream, opened(world, BEN) as other:
        await stream.until(": open")
        await revoke(world)
        await store(world, "late", "anna")
        await stream.until("event: end")
        await stream.holds(lambda: stream.closed)
        assert stream.threads == []
        assert not other.closed


async def test_a_stream_ends_with_its_token(world: FhirWorld) -> None:
    async with opened(world) as stream:
        await stream.until(": open")
        world.clock.advance(1e9)
        await stream.until("event: end")


async def test_who_may_not_see_messages_gets_no_stream(world: FhirWorld) -> None:
    async with opened(world, "nobody") as stream:
        assert stream.status == 401
    async with opened(world, EHR) as stream:
        assert stream.status == 403, "an EHR has the history feed"
    await revoke(world)
    async with opened(world) as stream:
        assert stream.status == 401


async def test_so_many_streams_are_open_at_once_and_room_is_made_again(world: FhirWorld) -> None:
    streams = [opened(world) for _ in range(AT_ONCE)]
    for one in streams:
        assert (await one.__aenter__()).status == 200
    async with opened(world) as refused:
        assert refused.status == 429
    for one in streams:
        await one.__aexit__(None, None, None)
    async with opened(world) as stream:
        assert stream.status == 200


async def test_without_a_stream_the_same_is_told_by_asking(world: FhirWorld) -> None:
    async with world.client(ANNA) as client:
        first = (await client.get(f"/fhir/{PATH}")).json()
        (mark,) = [one["valueString"] for one in first["parameter"]]
        world.clock.advance(60)
        await store(world, "hers", "anna")
        await store(world, "his", "ben")
        again = (await client.get(f"/fhir/{PATH}?mark={mark}")).json()
        changed = [one["part"][0] for one in again["parameter"] if one["name"] == "changed"]
        assert [one["valueReference"]["reference"] for one in changed] == ["Communication/hers"]
        (mark,) = [one["valueString"] for one in again["parameter"] if one["name"] == "mark"]
        world.clock.advance(60)
        later = (await client.get(f"/fhir/{PATH}?mark={mark}")).json()
        assert [one["name"] for one in later["parameter"]] == ["mark", "changed"], "within overlap"
        for wrong in ("x", "-1", "9" * 30):
            assert (await client.get(f"/fhir/{PATH}?mark={wrong}")).status_code == 422


async def test_streams_opened_at_the_same_moment_are_bounded_too(world: FhirWorld) -> None:
    async with AsyncExitStack() as stack:
        opening = [stack.enter_async_context(opened(world)) for _ in range(AT_ONCE * 4)]
        streams = await asyncio.gather(*opening)
        assert Counter(one.status for one in streams) == {200: AT_ONCE, 429: AT_ONCE * 3}


async def test_a_document_is_not_given_to_whoever_lost_access_while_it_was_made(
    world: FhirWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, revoked = charting.of_record, list[bool]()

    async def slow(*given: Any, **more: Any) -> Any:
        if not revoked:
            revoked.append(True)
            await revoke(world)
        return await real(*given, **more)

    monkeypatch.setattr(charting, "of_record", slow)
    async with world.client(ANNA) as client:
        answer = await client.get("/fhir/Patient/anna/$ccd")
    assert revoked
    assert answer.status_code == 401
