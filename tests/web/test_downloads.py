"""Long answers: sent piece by piece, and cut, so that it shows, when the caller's rights end."""

from __future__ import annotations

import asyncio
import io
import os
from base64 import b64encode
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from zipfile import BadZipFile, ZipFile

import pytest

from fhir_portal.accounts.account import Account
from fhir_portal.smart.token import AccessToken, token_hash
from fhir_portal.web.downloads import AT_ONCE, CUT, DROP, LONG, PIECE, Downloads
from fhir_portal.web.fhir import FhirApi
from tests.web.fhir_world import (
    ANNA,
    BEN,
    MAX_BODY,
    MAX_TRANSACTION,
    FhirWorld,
    capabilities,
    configuration,
    observation,
)

pytestmark = pytest.mark.requirement("portal", "S2-15")

WITHIN = 20.0
TURN = 0.02
CONTENT = os.urandom(20 * PIECE + 7)
BINARY = "/fhir/Binary/scan"
EXPORT = "/fhir/Patient/anna/$export-self"


def api_of(world: FhirWorld, *, stalled: float) -> FhirApi:
    return FhirApi(
        world.portal,
        capabilities=capabilities,
        smart_configuration=configuration,
        max_body=MAX_BODY,
        max_transaction=MAX_TRANSACTION,
        downloads=Downloads(world.portal, TURN, stalled_seconds=stalled),
    )


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[FhirWorld]:
    """Anna has a large file, as the EHR stored it."""
    found = await FhirWorld.begin(tmp_path)
    found.api = api_of(found, stalled=1000.0)
    ehr = await found.ehr()
    file = {
        "resourceType": "Binary",
        "id": "scan",
        "contentType": "application/dicom",
        "data": b64encode(CONTENT).decode(),
    }
    document = {
        "resourceType": "DocumentReference",
        "id": "letter",
        "status": "current",
        "subject": {"reference": "Patient/anna"},
        "content": [{"attachment": {"contentType": "application/dicom", "url": "Binary/scan"}}],
    }
    for tree in (file, document, observation("pulse")):
        await found.perform(ehr, "update", str(tree["resourceType"]), str(tree["id"]), body=tree)
    yield found
    found.close()


@dataclass
class Reader:
    """Somebody who reads an answer; held back, they take nothing."""

    status: int = 0
    headers: dict[bytes, bytes] = field(default_factory=dict)
    content: bytes = b""
    whole: bool = False
    cut: bool = False
    takes: asyncio.Event = field(default_factory=asyncio.Event)
    came: asyncio.Event = field(default_factory=asyncio.Event)
    leave: asyncio.Event = field(default_factory=asyncio.Event)

    async def receive(self) -> dict[str, Any]:
        await self.leave.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Any) -> None:
        if message["type"] == "http.response.start":
            self.status, self.headers = message["status"], dict(message["headers"])
        elif not message.get("more_body"):
            self.whole = True
            self.content += message.get("body", b"")
        else:
            self.content += message["body"]
            self.came.set()
            await self.takes.wait()

    def drop(self) -> None:
        self.cut = True
        self.leave.set()

    async def began(self) -> None:
        async with asyncio.timeout(WITHIN):
            await self.came.wait()


@asynccontextmanager
async def asking(
    world: FhirWorld, path: str, token: str = ANNA, *, method: str = "GET"
) -> AsyncIterator[tuple[Reader, Callable[[], Any]]]:
    """A request whose answer is not taken yet; what it gives waits until it is over."""
    reader = Reader()
    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "headers": [(b"authorization", f"Bearer {token}".encode())],
        "extensions": {CUT: {DROP: reader.drop}},
    }
    task = asyncio.create_task(world.api(scope, reader.receive, reader.send))

    async def over() -> None:
        async with asyncio.timeout(WITHIN):
            await asyncio.shield(task)

    try:
        yield reader, over
    finally:
        task.cancel()


async def revoke(world: FhirWorld, token: str = ANNA) -> None:
    async def work(transaction: Any) -> None:
        assert await transaction.delete(AccessToken, token_hash(token))

    await world.store.transact(work)


async def test_a_long_answer_arrives_whole(world: FhirWorld) -> None:
    assert len(CONTENT) > LONG
    for path, wanted in ((BINARY, CONTENT), ("/fhir/Observation/pulse", None)):
        async with asking(world, path) as (reader, over):
            reader.takes.set()
            await over()
            assert reader.status == 200
            assert reader.whole
            assert not reader.cut
            assert int(reader.headers[b"content-length"]) == len(reader.content)
            assert wanted in (None, reader.content)


async def test_a_part_of_it_is_sent_so_too(world: FhirWorld) -> None:
    got = await world.raw("GET", BINARY, token=ANNA, headers=[("Range", "bytes=1-400000")])
    assert got.status_code == 206
    assert got.content == CONTENT[1:400_001]


@pytest.mark.parametrize("path", [BINARY, EXPORT])
async def test_it_is_cut_while_its_reader_takes_nothing(world: FhirWorld, path: str) -> None:
    async with asking(world, path) as (reader, over):
        await reader.began()
        await revoke(world)
        await over()
        assert reader.cut
        assert not reader.whole
        assert len(reader.content) <= PIECE


@pytest.mark.parametrize("path", [BINARY, EXPORT])
async def test_nothing_is_sent_to_a_quick_reader_after_the_end(world: FhirWorld, path: str) -> None:
    async with asking(world, path) as (reader, over):
        await reader.began()
        await revoke(world)
        before = len(reader.content)
        reader.takes.set()
        await over()
        assert reader.cut
        assert not reader.whole
        assert len(reader.content) == before


async def test_a_cut_archive_opens_as_none_and_a_whole_one_opens(world: FhirWorld) -> None:
    async with asking(world, EXPORT) as (reader, over):
        await reader.began()
        await revoke(world, BEN)  # somebody else's end is nothing to her
        reader.takes.set()
        await over()
        assert reader.whole
        assert reader.headers[b"content-type"] == b"application/zip"
        assert reader.headers[b"content-disposition"].startswith(b'attachment; filename="health-')
        assert b"anna" not in reader.headers[b"content-disposition"].lower()
        assert reader.headers[b"cache-control"] == b"no-store"
        assert b"content-length" not in reader.headers
        with ZipFile(io.BytesIO(reader.content)) as found:
            assert found.testzip() is None
            assert CONTENT in [found.read(name) for name in found.namelist()]
    async with asking(world, EXPORT) as (reader, over):
        await reader.began()
        await revoke(world)
        await over()
        with pytest.raises(BadZipFile):
            ZipFile(io.BytesIO(reader.content))


async def test_it_is_cut_when_the_account_is_closed_and_when_the_token_expires(
    world: FhirWorld,
) -> None:
    async with asking(world, BINARY) as (reader, over):
        await reader.began()
        world.clock.advance(3600)
        await over()
        assert reader.cut
    world.clock.advance(-3600)
    async with asking(world, BINARY) as (reader, over):
        await reader.began()

        async def disable(transaction: Any) -> None:
            account = await transaction.get(Account, "acc-a")
            await transaction.put(Account(**{**_fields(account), "disabled": True}))

        await world.store.transact(disable)
        await over()
        assert reader.cut


def _fields(account: Account) -> dict[str, Any]:
    return {name: getattr(account, name) for name in account.__struct_fields__}


async def test_who_takes_nothing_for_long_is_let_go_of(world: FhirWorld) -> None:
    world.api = api_of(world, stalled=5 * TURN)
    async with asking(world, BINARY) as (reader, over):
        await over()
        assert reader.cut
        assert len(reader.content) <= PIECE


async def test_who_has_gone_is_sent_nothing_more(world: FhirWorld) -> None:
    async with asking(world, EXPORT) as (reader, over):
        await reader.began()
        reader.leave.set()
        await over()
        assert not reader.whole


async def test_so_many_archives_at_once_and_no_more(world: FhirWorld) -> None:
    async with asking(world, EXPORT) as (first, over), asking(world, EXPORT) as (second, also):
        await first.began()
        await second.began()
        assert AT_ONCE == 2
        refused = await world.raw("GET", EXPORT, token=ANNA)
        assert refused.status_code == 429
        assert refused.headers["retry-after"]
        other = await world.raw("GET", "/fhir/Patient/ben/$export-self", token=BEN)
        assert other.status_code == 200
        for one, wait in ((first, over), (second, also)):
            one.takes.set()
            await wait()
    assert (await world.raw("GET", EXPORT, token=ANNA)).status_code == 200


async def test_a_refused_archive_takes_no_place(world: FhirWorld) -> None:
    for _ in range(AT_ONCE + 1):
        got = await world.raw("GET", "/fhir/Patient/ben/$export-self", token=ANNA)
        assert got.status_code == 404
    for _ in range(AT_ONCE + 1):
        got = await world.raw("HEAD", EXPORT, token=ANNA)
        assert (got.status_code, got.content) == (200, b"")
        assert got.headers["content-type"] == "application/zip"


async def test_it_is_asked_for_by_post_too(world: FhirWorld) -> None:
    got = await world.raw("POST", EXPORT, token=ANNA)
    assert got.status_code == 200
    assert ZipFile(io.BytesIO(got.content)).testzip() is None
    assert (await world.raw("PUT", EXPORT, token=ANNA)).status_code == 405
    assert (await world.raw("GET", f"{EXPORT}?_type=Patient", token=ANNA)).status_code == 400
