"""What is wrong with a database is said when the store is opened, or makes the server not ready."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import socket
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from datetime import UTC
from typing import Any, TypeVar
from urllib.parse import urlsplit

import pytest
from pymongo import AsyncMongoClient
from pymongo.errors import OperationFailure

from fhir_portal.fhir.errors import TooLarge, Unavailable
from fhir_portal.mongo import schema
from fhir_portal.mongo.driver import MongoDriver, ServerFacts, connect
from fhir_portal.mongo.store import MongoStore
from tests.builders import an_observation, keep
from tests.mongo.faults import Note
from tests.places import NO_SERVER, SERVER, TRANSACTIONS, Database
from tests.stores.rows import KEY, a_row, of_record, write

T = TypeVar("T")

# PyMongo leaves a socket behind that it was just connecting when it was closed; the collector finds
# it in whichever test comes next.
pytestmark = [
    pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

PASSWORD = "hunter2-do-not-tell"
DRIVERS = pytest.mark.parametrize("driver", ["motor", "pymongo"])
on_a_server = pytest.mark.skipif(not SERVER, reason=NO_SERVER)


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


# --- without a server -----------------------------------------------------------------------------


@DRIVERS
@pytest.mark.parametrize(
    "uri",
    [
        f"mongodb://ada:{PASSWORD}@",
        f"mongodb://ada:{PASSWORD}@127.0.0.1:notaport/",
        f"mongodb://ada:{PASSWORD}:{PASSWORD}@127.0.0.1/",
        "mongodb://127.0.0.1/a.b/c",
        "mongodb://127.0.0.1/a%00b",
        "mongodb://127.0.0.1/a?readPreference=nonsense",
        "mongodb://127.0.0.1/a?replicasett=rs0",
        f"mongodb://ada:{PASSWORD}@127.0.0.1/a?authMechanism=NOPE",
        "mongodb://127.0.0.1/a?tls=true&tlsCAFile=/nowhere/ca.pem",
        "mongodb://127.0.0.1/a?tls=true&tlsCertificateKeyFile=/nowhere/key.pem",
    ],
)
async def test_a_wrong_uri_is_refused_without_repeating_its_password(driver: Any, uri: str) -> None:
    with pytest.raises(Unavailable, match="FHIR_PORTAL_MONGODB_URI") as refused:
        await MongoStore.open(uri, driver=driver)
    assert PASSWORD not in str(refused.value)


async def test_a_reason_that_quotes_the_password_is_not_repeated(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Also not as it is meant, where the URI has it percent-encoded."""

    def quote(uri: str, name: str) -> Any:
        del uri
        raise ValueError(f"{name} cannot use hunter/2")

    monkeypatch.setattr("fhir_portal.mongo.driver._connect", quote)
    with pytest.raises(Unavailable) as refused:
        connect("mongodb://ada:hunter%2F2@127.0.0.1/", "pymongo")
    assert "hunter" not in str(refused.value)


@DRIVERS
async def test_an_absent_server_is_told_in_seconds(driver: Any) -> None:
    uri = f"mongodb://127.0.0.1:{_free_port()}/?serverSelectionTimeoutMS=300"
    began = time.monotonic()
    with pytest.raises(Unavailable, match="does not answer"):
        await MongoStore.open(uri, driver=driver)
    assert time.monotonic() - began < 5
    gc.collect()


class _Told(MongoDriver):
    """A driver over a server that says of itself what a test wants, or refuses a command."""

    facts_told: ServerFacts | None = None
    refused: tuple[str, int] | None = None

    async def facts(self) -> ServerFacts:
        return await super().facts() if self.facts_told is None else self.facts_told

    async def run(self, command: str, call: Callable[[], Awaitable[T]]) -> T:
        if self.refused is not None and command == self.refused[0]:
            code = self.refused[1]

            async def refuse() -> T:
                raise OperationFailure("planted", code)

            return await super().run(command, refuse)
        return await super().run(command, call)


async def test_a_server_that_is_too_old_is_refused() -> None:
    driver = connect("mongodb://127.0.0.1:1/", "pymongo", "x", kind=_Told)
    driver.facts_told = ServerFacts("4.4.29", 9, "rs0", sharded=False, time=time.time())
    with pytest.raises(Unavailable, match=r"4\.4\.29 is too old"):
        await MongoStore.over(driver)


async def test_a_server_outside_a_replica_set_is_refused_and_told_what_to_do() -> None:
    driver = connect("mongodb://127.0.0.1:1/", "pymongo", "x", kind=_Told)
    driver.facts_told = ServerFacts("8.0.4", 25, "", sharded=False, time=time.time())
    with pytest.raises(Unavailable, match="FHIR_PORTAL_MONGODB_TRANSACTIONS=false"):
        await MongoStore.over(driver)


# --- with one -------------------------------------------------------------------------------------


@pytest.fixture
async def place() -> AsyncIterator[Database]:
    here = Database.new(SERVER, "pymongo", transactions=TRANSACTIONS)
    yield here
    await here.drop()


@pytest.mark.mongo
@on_a_server
class TestOnAServer:
    async def test_a_server_that_takes_transactions_and_does_not_undo_them_is_refused(
        self, place: Database
    ) -> None:
        """Planted: with the proof left out this opens on FerretDB, which ignores transactions."""
        if place.transactions:
            pytest.skip("this server has transactions")
        driver = connect(place.uri, "pymongo", kind=_Told)
        driver.facts_told = ServerFacts("7.0.77", 21, "rs0", sharded=False, time=time.time())
        with pytest.raises(Unavailable, match="transactions"):
            await MongoStore.over(driver)
        await driver.close()

    @pytest.mark.parametrize(
        ("command", "code", "told"),
        [
            ("write", 13, "readWrite"),
            ("createIndexes", 13, "readWrite"),
            ("createIndexes", 67, "could not be built"),
            ("listIndexes", 8000, "readWrite"),
        ],
    )
    async def test_missing_rights_and_refused_indexes_are_told(
        self, place: Database, command: str, code: int, told: str
    ) -> None:
        driver = connect(place.uri, "pymongo", kind=_Told)
        driver.refused = (command, code)
        with pytest.raises(Unavailable, match=told):
            await MongoStore.over(driver, transactions=place.transactions)
        await driver.close()

    async def test_an_index_with_other_fields_is_refused_by_name(self, place: Database) -> None:
        async with AsyncMongoClient[Any](place.uri) as raw:
            await raw.get_default_database()["resource"].create_index([("u", 1)], name="place")
        with pytest.raises(Unavailable, match=r"resource\.place"):
            await place.open()

    async def test_another_layout_is_refused(self, place: Database) -> None:
        async with AsyncMongoClient[Any](place.uri) as raw:
            await raw.get_default_database()["turn"].insert_one({"_id": "layout", "layout": 99})
        with pytest.raises(Unavailable, match="layout 99"):
            await place.open()

    async def test_missing_indexes_are_made_and_told(self, place: Database) -> None:
        store = await place.open()
        assert isinstance(store, MongoStore)
        assert all(line.endswith("present") for line in await store.check_indexes())
        async with AsyncMongoClient[Any](place.uri) as raw:
            await raw.get_default_database()["resource"].drop_index("term")
        lines = await store.check_indexes()
        assert [line for line in lines if not line.endswith("present")] == [
            "resource.term (p, t, s, o, _id): created"
        ]
        await store.aclose()

    async def test_clocks_apart_make_the_server_not_ready(self, place: Database) -> None:
        driver = connect(place.uri, "pymongo", kind=_Told)
        store = await MongoStore.over(driver, transactions=place.transactions)
        assert await store.faults() == []
        told = await MongoDriver.facts(driver)
        driver.facts_told = ServerFacts(
            told.version, told.wire_version, told.replica_set, sharded=False, time=time.time() - 90
        )
        assert "clocks" in (await store.faults())[0]
        await store.aclose()

    async def test_names_with_dots_and_dollars_are_only_text(self, place: Database) -> None:
        store = await place.open()
        tree = an_observation("odd")
        tree["extension"] = [{"url": "http://a.b/$where", "valueString": "$gt .. {'$ne': 1}"}]
        tree["code"]["text"] = "$where.a.b"
        await write(store, a_row(tree))
        row = await store.read(KEY("Observation/odd"), of_record())
        assert row is not None
        assert row.body == a_row(tree).row.body
        await keep(store, Note(key="$a.b", topic="a.$b"))
        assert await store.find(Note, "topic", "a.$b") == [Note(key="$a.b", topic="a.$b")]
        await store.aclose()

    async def test_what_no_document_can_hold_is_refused_and_leaves_nothing(
        self, place: Database
    ) -> None:
        store = await place.open()
        with pytest.raises(TooLarge):
            await keep(store, Note(key="small"), Note(key="big", topic="x" * (17 * 1024 * 1024)))
        assert await store.every(Note) == []
        await keep(store, Note(key="small"))
        await store.aclose()

    @DRIVERS
    async def test_a_server_that_goes_and_comes_back(self, place: Database, driver: Any) -> None:
        """Requests are refused in seconds meanwhile, and the store works again by itself."""
        address = urlsplit(place.uri)
        wire = _Wire(address.hostname or "", address.port or 27017)
        await wire.up()
        uri = (
            f"mongodb://127.0.0.1:{wire.port}{address.path}"
            "?directConnection=true&serverSelectionTimeoutMS=500"
        )
        connected = connect(uri, driver, kind=_Told)
        store = await MongoStore.over(connected, transactions=place.transactions)
        await keep(store, Note(key="a"))
        await wire.down()
        began = time.monotonic()
        with pytest.raises(Unavailable):
            await store.get(Note, "a")
        assert await store.faults() == ["the database does not answer"]
        assert time.monotonic() - began < 10
        await wire.up()
        async with asyncio.timeout(20):
            while await store.faults():
                await asyncio.sleep(0.05)
        assert await store.get(Note, "a") == Note(key="a")
        await keep(store, Note(key="b"))
        await store.aclose()
        await wire.down()
        wire.close()

    async def test_the_database_removes_what_expired_by_itself(self, place: Database) -> None:
        """The index is what does it; when the server looks is its own affair."""
        async with AsyncMongoClient[Any](place.uri) as raw:
            store = await MongoStore.over(
                connect(place.uri, "pymongo"), transactions=place.transactions, expire=True
            )
            later = float(int(time.time()) + 1_000)
            await keep(store, Note(key="young", expires=later))
            records = raw.get_default_database()["record"]
            kept = await records.find_one({"_id": "note/young"})
            assert kept is not None
            assert kept["dropped"].replace(tzinfo=UTC).timestamp() == later
            indexes = await records.index_information()
            assert indexes["ttl"]["expireAfterSeconds"] == schema.EXPIRED_STAY_SECONDS
            await store.aclose()


class _Wire:
    """A wire to the server that can be cut.

    Its loop is its own: Motor, which closes a client, keeps everything else in its loop waiting.
    """

    def __init__(self, host: str, port: int) -> None:
        self._host, self._there = host, port
        self.port = _free_port()
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.StreamWriter] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    async def up(self) -> None:
        await self._do(self._up())

    async def down(self) -> None:
        await self._do(self._down())

    def close(self) -> None:
        """End it; it must be down."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _do(self, work: Coroutine[Any, Any, None]) -> None:
        await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, self._loop))

    async def _up(self) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port)

    async def _down(self) -> None:
        assert self._server is not None
        self._server.close()
        for one in list(self._open):
            one.transport.abort()
        self._open.clear()
        await asyncio.sleep(0)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection(self._host, self._there)
        self._open |= {writer, back}
        await asyncio.gather(self._pass(reader, back), self._pass(there, writer))

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65_536):
                writer.write(data)
                await writer.drain()
        writer.close()
