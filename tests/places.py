"""Where a store is: in memory, in a file, or in a database of a MongoDB server.

A place has a text, by which runners and processes are told of it: ``memory``, the path of a file,
or the URI of a database under the driver's name, ``motor+mongodb://127.0.0.1:27017/name`` or, on a
server without transactions, ``motor-without-transactions+mongodb://127.0.0.1:27017/name``.

The environment says which MongoDB server the tests may use; each test has databases of its own:

    FHIR_PORTAL_TEST_MONGODB_URI            mongodb://127.0.0.1:27017/, or several, one for each
                                            of the test runner's workers
    FHIR_PORTAL_TEST_MONGODB_TRANSACTIONS   0 for a server without transactions
"""

from __future__ import annotations

import argparse
import os
import secrets
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Final, Literal, Protocol
from urllib.parse import urlsplit

import pytest
from pymongo import AsyncMongoClient

from fhir_portal.embedded.store import EmbeddedStore
from fhir_portal.resources.store import PortalStore

Clock = Callable[[], float]
Driver = Literal["motor", "pymongo"]

_OURS: Final = "FHIR_PORTAL_"


def _mine(servers: list[str]) -> str:
    """The server of this worker of the test runner."""
    worker = os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")
    return servers[int(worker) % len(servers)] if servers else ""


SERVER: Final = _mine(os.environ.get(f"{_OURS}TEST_MONGODB_URI", "").split())
TRANSACTIONS: Final = os.environ.get(f"{_OURS}TEST_MONGODB_TRANSACTIONS", "1") != "0"
NO_SERVER: Final = f"{_OURS}TEST_MONGODB_URI names no MongoDB server"

EMBEDDED: Final = ("memory", "file")
DRIVERS: Final = ("motor", "pymongo")
_WITHOUT: Final = "-without-transactions"


class Place(Protocol):
    """Where a store is. Its ``str`` is its text."""

    @property
    def transactions(self) -> bool:
        """Whether nobody sees what a transaction wrote before it commits."""
        ...

    @property
    def settings(self) -> Mapping[str, Any]:
        """The settings that lead a server here."""
        ...

    async def open(self, clock: Clock = time.time) -> PortalStore:
        """Open the store; again for each call, unless it is in memory."""
        ...

    async def empty(self) -> None:
        """Remove what is stored here; nobody may have it open."""
        ...

    async def drop(self) -> None:
        """Leave nothing behind."""
        ...

    def another(self) -> Place:
        """A place of the same kind for another store."""
        ...


@dataclass(frozen=True)
class Memory:
    """The embedded store in memory: one process's, while it is open."""

    transactions: ClassVar[bool] = True

    @property
    def settings(self) -> Mapping[str, Any]:
        raise NotImplementedError("a store in memory belongs to one process")

    async def open(self, clock: Clock = time.time) -> PortalStore:
        return EmbeddedStore.open(":memory:", clock=clock)

    async def empty(self) -> None:
        """It is empty whenever it is opened."""

    async def drop(self) -> None:
        """It leaves nothing."""

    def another(self) -> Place:
        return self

    def __str__(self) -> str:
        return "memory"


@dataclass(frozen=True)
class File:
    """The embedded store in a file, with its access log beside it."""

    path: Path
    transactions: ClassVar[bool] = True

    @property
    def log(self) -> Path:
        """The file of the access log."""
        return self.path.with_suffix(".log.db")

    @property
    def settings(self) -> Mapping[str, Any]:
        return {"data": self.path}

    async def open(self, clock: Clock = time.time) -> PortalStore:
        return EmbeddedStore.open(str(self.path), clock=clock)

    async def empty(self) -> None:
        for file in (self.path, self.log):
            for end in ("", "-wal", "-shm"):
                file.with_name(f"{file.name}{end}").unlink(missing_ok=True)

    async def drop(self) -> None:
        await self.empty()

    def another(self) -> Place:
        return File(self.path.parent / secrets.token_hex(4) / self.path.name)

    def __str__(self) -> str:
        return str(self.path)


@dataclass(frozen=True)
class Database:
    """A database of a MongoDB server, named by the URI, and how it is spoken to."""

    uri: str
    driver: Driver
    transactions: bool = True

    @classmethod
    def new(cls, uri: str, driver: str, *, transactions: bool) -> Database:
        """A database that nobody has yet, on the server of a URI."""
        parts = urlsplit(uri)
        query = parts.query
        if "@" in parts.netloc and "authsource=" not in query.lower():
            # The database in the path is also that of the user, unless the URI says otherwise.
            source = f"authSource={parts.path.strip('/') or 'admin'}"
            query = f"{query}&{source}" if query else source
        name = f"fhir-portal-test-{secrets.token_hex(6)}"
        own = parts._replace(path=f"/{name}", query=query).geturl()
        return cls(own, _driver(driver), transactions)

    @property
    def name(self) -> str:
        """The name of the database."""
        return urlsplit(self.uri).path.strip("/")

    @property
    def settings(self) -> Mapping[str, Any]:
        return {
            "mongodb_uri": self.uri,
            "mongodb_driver": self.driver,
            "mongodb_transactions": self.transactions,
        }

    async def open(self, clock: Clock = time.time) -> PortalStore:
        from fhir_portal.mongo.store import MongoStore  # noqa: PLC0415 - most tests need no driver

        return await MongoStore.open(
            self.uri,
            driver=self.driver,
            transactions=self.transactions,
            clock=clock,
            expire=False,  # by the database's clock; the tests have their own
        )

    async def empty(self) -> None:
        """Remove every document. The indexes stay, which a real server is slow to build."""
        async with AsyncMongoClient[dict[str, Any]](self.uri) as client:
            database = client[self.name]
            for collection in await database.list_collection_names():
                await database[collection].delete_many({})

    async def drop(self) -> None:
        async with AsyncMongoClient[dict[str, Any]](self.uri) as client:
            await client.drop_database(self.name)

    def another(self) -> Place:
        name = f"fhir-portal-test-{secrets.token_hex(6)}"
        return replace(self, uri=urlsplit(self.uri)._replace(path=f"/{name}").geturl())

    def __str__(self) -> str:
        return f"{self.driver}{'' if self.transactions else _WITHOUT}+{self.uri}"


def _driver(name: str) -> Driver:
    return {"motor": "motor", "pymongo": "pymongo"}[name]  # type: ignore[return-value]


def place_of(text: str) -> Place:
    """The place of a text."""
    if text == "memory":
        return Memory()
    driver, plus, uri = text.partition("+mongodb")
    if not plus:
        return File(Path(text))
    name = driver.removesuffix(_WITHOUT)
    return Database(f"mongodb{uri}", _driver(name), transactions=name == driver)


def new_place(kind: str, folder: Path) -> Place:
    """A place for a store of a kind: ``memory``, ``file``, or the driver for the tests' server."""
    if kind == "memory":
        return Memory()
    if kind == "file":
        return File(folder / "portal.db")
    assert SERVER, NO_SERVER
    return Database.new(SERVER, kind, transactions=TRANSACTIONS)


def kinds(*embedded: str) -> list[Any]:
    """Parameters of a test: kinds of the embedded store, and each driver, marked ``mongo``."""
    absent = [pytest.mark.skip(reason=NO_SERVER)] if not SERVER else []
    marks = [pytest.mark.mongo, *absent]
    return [*map(pytest.param, embedded), *(pytest.param(one, marks=marks) for one in DRIVERS)]


async def fill(target: Place, source: Place) -> None:
    """Put into a place what another one of its kind holds; nobody may have either open."""
    await target.empty()
    if isinstance(source, File):
        assert isinstance(target, File)
        target.path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source.path, target.path)
        shutil.copyfile(source.log, target.log)
        return
    assert isinstance(source, Database)
    assert isinstance(target, Database)
    async with AsyncMongoClient[dict[str, Any]](source.uri) as client:
        for name in await client[source.name].list_collection_names():
            documents = await client[source.name][name].find({}).to_list(None)
            if documents:
                await client[target.name][name].insert_many(documents)


# ---------------------------------------------------------------- processes and runners


def variables(settings: Mapping[str, Any]) -> dict[str, str]:
    """The settings as variables of the environment."""
    return {f"{_OURS}{name.upper()}": str(value) for name, value in settings.items()}


def environment(settings: Mapping[str, Any]) -> dict[str, str]:
    """The environment of a process that is to have these settings, and no others of ours."""
    others = {name: value for name, value in os.environ.items() if not name.startswith(_OURS)}
    return others | variables(settings)


def ask_for_place(parser: argparse.ArgumentParser) -> None:
    """Let a runner be told where its store is to be."""
    parser.add_argument(
        "--place",
        default="file",
        help="file (by default), memory, motor or pymongo (a new database of the server that"
        f" {_OURS}TEST_MONGODB_URI names), a path, or DRIVER[{_WITHOUT}]+mongodb://HOST/NAME",
    )


def asked_place(text: str, folder: Path) -> Place:
    """The place that ``--place`` says; ``folder`` is for a new file."""
    if text in (*EMBEDDED, *DRIVERS):
        return new_place(text, folder)
    return place_of(text)
