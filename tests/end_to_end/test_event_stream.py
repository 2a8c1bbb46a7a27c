"""Streams of events of a real server: they end with the access of who listens, and with it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from fhir_portal.app import Application
from fhir_portal.settings import load
from fhir_portal.smart.token import AccessToken, token_hash
from tests.end_to_end.messages import people, token_of
from tests.end_to_end.running import EHR_TOKEN, Running, bearer, prepare, settings_of
from tests.places import File

WITHIN = 60.0  # of waiting for what has to come on a busy machine; what is shown is measured
STREAM = "/fhir/Communication/$message-events"


@asynccontextmanager
async def listening(server: Running, who: str) -> AsyncIterator[AsyncIterator[str]]:
    headers = bearer(token_of(who)) | {"Accept": "text/event-stream"}
    async with (
        httpx.AsyncClient(base_url=server.base, timeout=WITHIN) as client,
        client.stream("GET", STREAM, headers=headers) as answer,
    ):
        assert answer.status_code == 200
        yield answer.aiter_lines()


async def until(lines: AsyncIterator[str], words: str) -> None:
    async with asyncio.timeout(WITHIN):
        async for line in lines:
            if words in line:
                return
    raise AssertionError(f"the stream ended without {words}")


async def a_thread(server: Running, own_id: str, of: str) -> None:
    system = "https://fhir-portal.example/ig/CodeSystem/portal-conversation"
    tree: dict[str, Any] = {
        "resourceType": "Communication",
        "id": own_id,
        "status": "in-progress",
        "category": [{"coding": [{"system": system, "code": "thread"}]}],
        "subject": {"reference": f"Patient/{of}"},
    }
    headers = bearer(EHR_TOKEN) | {"Content-Type": "application/fhir+json"}
    async with httpx.AsyncClient(base_url=server.base, timeout=WITHIN) as client:
        answer = await client.put(f"/fhir/Communication/{own_id}", json=tree, headers=headers)
        assert answer.status_code == 201, answer.text


@pytest.mark.parametrize("workers", [1, 2])
async def test_events_arrive_and_streams_end_with_access_and_with_the_server(
    tmp_path: Path, workers: int
) -> None:
    place = File(tmp_path / "portal.db")
    await prepare(tmp_path, place)
    await people(tmp_path, place, 2)
    server = Running(tmp_path, place, workers=workers, settings={"worker": False})
    await server.start()
    try:
        async with listening(server, "p0") as hers, listening(server, "p1") as his:
            await until(hers, ": open")
            await until(his, ": open")
            await a_thread(server, "hers", "p0")
            await until(hers, "Communication/hers")
            await _revoke(tmp_path, place, "p0")
            ended = time.monotonic()
            await until(hers, "event: end")
            took = time.monotonic() - ended
            print(f"the stream closed {took:.2f} s after the commit of the revocation")
            assert [line async for line in hers if line.startswith("event")] == []
            await a_thread(server, "his", "p1")
            await until(his, "Communication/his")
            stopping = time.monotonic()
            await asyncio.to_thread(server.stop)
            assert time.monotonic() - stopping < 20, "an open stream keeps no server from ending"
            with pytest.raises(httpx.TransportError):
                [line async for line in his]
    finally:
        server.stop()


async def _revoke(folder: Path, place: File, who: str) -> None:
    """From another process than those that serve the stream."""
    app = Application(load(**settings_of(folder, place)), background=False)
    await app.open()

    async def work(transaction: Any) -> None:
        assert await transaction.delete(AccessToken, token_hash(token_of(who)))

    await app.store.transact(work)
    await app.close()
