"""The seam: the only module that knows Motor, PyMongo and their errors.

Motor and PyMongo's asynchronous client have nearly the same calls; what differs is in
`_connect`, `MongoDriver.begin` and `MongoDriver.close`. Every command of the rooms goes through
`MongoDriver.run`, which turns the driver's errors into ours; the tests plant their faults there.
"""

from __future__ import annotations

import asyncio
import inspect
import warnings
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Literal, Protocol, TypeVar, cast
from urllib.parse import unquote_plus, urlsplit

from bson.codec_options import CodecOptions, TypeDecoder, TypeRegistry
from bson.int64 import Int64
from pymongo import (
    DeleteOne,
    IndexModel,
    InsertOne,
    ReadPreference,
    ReplaceOne,
    ReturnDocument,
    UpdateOne,
    WriteConcern,
)
from pymongo.errors import (
    BulkWriteError,
    ConnectionFailure,
    DocumentTooLarge,
    DuplicateKeyError,
    OperationFailure,
    PyMongoError,
    WTimeoutError,
)
from pymongo.read_concern import ReadConcern

from fhir_portal.fhir.errors import TooLarge, Unavailable

Document = dict[str, Any]
DriverName = Literal["motor", "pymongo"]
Session = Any
T = TypeVar("T")

READ_MILLISECONDS: Final = 10_000
"""How long the database may work on one read before it is given up."""
_COMMIT_MILLISECONDS: Final = 10_000
_DURABLE: Final = WriteConcern("majority", j=True)
_DEFAULTS: Final[Mapping[str, Any]] = {
    # What the URI says of these wins; without them a dead server is waited for half a minute.
    "serverSelectionTimeoutMS": 4_000,
    "connectTimeoutMS": 4_000,
    "socketTimeoutMS": 20_000,
    "waitQueueTimeoutMS": 10_000,
    "appName": "fhir-portal",
}
_DUPLICATE_KEY: Final = 11000
_INTERNAL: Final = 1
_UNDONE: Final = frozenset({112, 16908292})
"""Write conflict; deadlock (FerretDB)."""
_TIME_LIMIT: Final = 50
_TOO_LARGE: Final = frozenset({10334, 17280, 17419, 17420})
_NO_RIGHTS: Final = frozenset({13, 18, 8000})
_NO_TRANSACTIONS: Final = frozenset({20, 115, 238, 263})


class DriverError(Exception):
    """What the rooms of ``mongo`` settle among themselves.

    Not a `FhirError`: what handles those must not take it for the answer to a request.
    """


class Transient(DriverError):
    """The transaction was undone by the database and may be run again."""


class UnknownOutcome(DriverError):
    """The connection broke: the command was run, or it was not."""


class NoTransactions(DriverError):
    """The server has no transactions."""


class Taken(DriverError):
    """A document with such a unique key exists already; ``positions`` in what was sent."""

    def __init__(self, positions: Sequence[int] = ()) -> None:
        super().__init__("a unique key is taken")
        self.positions = list(positions)


@dataclass(frozen=True, slots=True)
class Insert:
    """Store a document whose ``_id`` is new."""

    document: Document


@dataclass(frozen=True, slots=True)
class Replace:
    """Store a document, replacing what has its ``_id``."""

    document: Document


@dataclass(frozen=True, slots=True)
class Update:
    """Change the document with this ``_id``, if there is one."""

    id: str
    change: Document


@dataclass(frozen=True, slots=True)
class Delete:
    """Remove the document with this ``_id``, if there is one."""

    id: str


Change = Insert | Replace | Update | Delete


@dataclass(frozen=True, slots=True)
class Index:
    """A declared index: its fields with their direction (1, -1), and seconds until expiry."""

    name: str
    keys: tuple[tuple[str, int], ...]
    expire_after: int | None = None


@dataclass(frozen=True, slots=True)
class ServerFacts:
    """What the server says of itself; ``time`` is its clock, seconds since 1970 UTC."""

    version: str
    wire_version: int
    replica_set: str
    sharded: bool
    time: float


class Driver(Protocol):
    """What the rooms of ``mongo`` ask of a driver.

    Raises, besides what is said at a call: `Unavailable` when the database does not answer or
    refuses, `UnknownOutcome` when a write may or may not have been done, `Transient` when a
    transaction was undone, `fhir_portal.fhir.errors.TooLarge` for what no document can hold.
    """

    name: str

    async def find(
        self,
        collection: str,
        filter: Document,  # noqa: A002 - MongoDB's word
        *,
        sort: Sequence[tuple[str, int]] = (),
        limit: int = 0,
        hint: str | None = None,
        fields: Sequence[str] | None = None,
        session: Session | None = None,
    ) -> list[Document]:
        """Return documents; ``fields`` are those wanted, besides ``_id``."""
        ...

    async def count(
        self,
        collection: str,
        filter: Document,  # noqa: A002
        *,
        hint: str | None = None,
        limit: int = 0,
        session: Session | None = None,
    ) -> int:
        """Count documents, up to ``limit`` if it is not 0."""
        ...

    async def write(
        self, collection: str, changes: Sequence[Change], *, session: Session | None = None
    ) -> None:
        """Make changes in order. Raises `Taken`, at the first `Insert` that finds its key taken."""
        ...

    async def insert_many(self, collection: str, documents: Sequence[Document]) -> list[int]:
        """Store each document whose key is free; return the positions of the others."""
        ...

    async def find_and_update(
        self,
        collection: str,
        filter: Document,  # noqa: A002
        change: Document,
        *,
        session: Session | None = None,
    ) -> Document | None:
        """Change one document and return it as it is then, or ``None`` if none matches."""
        ...

    async def delete_many(self, collection: str, filter: Document) -> None:  # noqa: A002
        """Remove documents."""
        ...

    async def begin(self) -> Session:
        """Begin a transaction."""
        ...

    async def commit(self, session: Session) -> None:
        """Commit it. After `UnknownOutcome` it may be asked for again."""
        ...

    async def abandon(self, session: Session) -> None:
        """Undo what was not committed and let the session go; never fails."""
        ...

    async def facts(self) -> ServerFacts:
        """Ask the server what it is."""
        ...

    async def indexes(self, collection: str) -> dict[str, tuple[tuple[str, int], ...]]:
        """Return the indexes there are: name to fields and directions."""
        ...

    async def create_indexes(self, collection: str, indexes: Sequence[Index]) -> None:
        """Create indexes; those that exist as asked for stay."""
        ...

    async def close(self) -> None:
        """Close every connection."""
        ...


class _PlainNumbers(TypeDecoder):
    """Numbers come as what they were sent as: nobody else knows a class of BSON's."""

    bson_type = Int64

    def transform_bson(self, value: Any) -> int:
        return int(value)


class MongoDriver:
    """`Driver` over Motor or PyMongo's asynchronous client."""

    def __init__(self, client: Any, database: str, name: DriverName) -> None:
        self.name: str = name
        self.builder: Callable[[], Any] = lambda: client
        """Makes a client that waits for as long as an index takes to be built."""
        self._client = client
        self._database = client.get_database(
            database,
            codec_options=CodecOptions(type_registry=TypeRegistry([_PlainNumbers()])),
            read_preference=ReadPreference.PRIMARY,
            write_concern=_DURABLE,
            read_concern=ReadConcern("majority"),
        )

    async def run(self, command: str, call: Callable[[], Awaitable[T]]) -> T:
        """Run one command; its name is for who watches. Raises our errors for the driver's."""
        del command
        try:
            return await call()
        except PyMongoError as error:
            raise _ours(error) from error

    async def find(
        self,
        collection: str,
        filter: Document,  # noqa: A002
        *,
        sort: Sequence[tuple[str, int]] = (),
        limit: int = 0,
        hint: str | None = None,
        fields: Sequence[str] | None = None,
        session: Session | None = None,
    ) -> list[Document]:
        options: dict[str, Any] = {"max_time_ms": READ_MILLISECONDS}
        if sort:
            options["sort"] = list(sort)
        if hint is not None:
            options["hint"] = hint
        if fields is not None:
            options["projection"] = list(fields) or ["_id"]
        if session is not None:
            options["session"] = session
        if limit:
            options["limit"] = limit
            options["batch_size"] = limit  # one reply, unless that would pass 16 MB
        found = self._database[collection].find

        async def call() -> list[Document]:
            documents: list[Document] = await found(filter, **options).to_list(None)
            return documents

        return await self.run("find", call)

    async def count(
        self,
        collection: str,
        filter: Document,  # noqa: A002
        *,
        hint: str | None = None,
        limit: int = 0,
        session: Session | None = None,
    ) -> int:
        options: dict[str, Any] = {"maxTimeMS": READ_MILLISECONDS}
        if hint is not None:
            options["hint"] = hint
        if limit:
            options["limit"] = limit
        counted = self._database[collection].count_documents
        return await self.run("count", lambda: counted(filter, session=session, **options))

    async def write(
        self, collection: str, changes: Sequence[Change], *, session: Session | None = None
    ) -> None:
        requests = [_REQUESTS[type(one)](one) for one in changes]
        write = self._database[collection].bulk_write
        await self.run("write", lambda: write(requests, ordered=True, session=session))

    async def insert_many(self, collection: str, documents: Sequence[Document]) -> list[int]:
        # Insertion by single requests leaves the documents as they are (no `_id` is added).
        requests = [InsertOne(document) for document in documents]
        write = self._database[collection].bulk_write
        try:
            await self.run("insert", lambda: write(requests, ordered=False))
        except Taken as taken:
            return taken.positions
        return []

    async def find_and_update(
        self,
        collection: str,
        filter: Document,  # noqa: A002
        change: Document,
        *,
        session: Session | None = None,
    ) -> Document | None:
        call = self._database[collection].find_one_and_update
        return cast(
            "Document | None",
            await self.run(
                "update",
                lambda: call(filter, change, return_document=ReturnDocument.AFTER, session=session),
            ),
        )

    async def delete_many(self, collection: str, filter: Document) -> None:  # noqa: A002
        call = self._database[collection].delete_many
        await self.run("delete", lambda: call(filter))

    async def begin(self) -> Session:
        async def call() -> Session:
            # Motor awaits the first of these, PyMongo the second.
            started = self._client.start_session()
            session = await started if inspect.isawaitable(started) else started
            begun = session.start_transaction(
                read_concern=ReadConcern("snapshot"),
                write_concern=_DURABLE,
                read_preference=ReadPreference.PRIMARY,
                max_commit_time_ms=_COMMIT_MILLISECONDS,
            )
            if inspect.isawaitable(begun):
                await begun
            return session

        return await self.run("begin", call)

    async def commit(self, session: Session) -> None:
        await self.run("commit", session.commit_transaction)

    async def abandon(self, session: Session) -> None:
        try:
            if session.in_transaction:
                await self.run("abort", session.abort_transaction)
        except Exception:  # noqa: BLE001, S110 - the server undoes what is not committed by itself
            pass
        finally:
            await session.end_session()

    async def facts(self) -> ServerFacts:
        command = self._database.command
        hello = await self.run("hello", lambda: command("hello"))
        built = await self.run("buildInfo", lambda: command("buildInfo"))
        time: datetime | None = hello.get("localTime")
        return ServerFacts(
            version=str(built.get("version", "")),
            wire_version=int(hello.get("maxWireVersion", 0)),
            replica_set=str(hello.get("setName", "")),
            sharded=hello.get("msg") == "isdbgrid",
            time=0.0 if time is None else _seconds(time),
        )

    async def indexes(self, collection: str) -> dict[str, tuple[tuple[str, int], ...]]:
        found = await self.run("listIndexes", self._database[collection].index_information)
        return {
            name: tuple((field, int(direction)) for field, direction in index["key"])
            for name, index in found.items()
        }

    async def create_indexes(self, collection: str, indexes: Sequence[Index]) -> None:
        models = []
        for index in indexes:
            options: dict[str, Any] = {"name": index.name}
            if index.expire_after is not None:
                options["expireAfterSeconds"] = index.expire_after
            models.append(IndexModel(list(index.keys), **options))
        patient = self.builder()
        try:
            call = patient.get_database(self._database.name)[collection].create_indexes
            await self.run("createIndexes", lambda: call(models))
        finally:
            if patient is not self._client:
                await _close(patient)

    async def close(self) -> None:
        await _close(self._client)


async def _close(client: Any) -> None:
    closed = client.close()  # PyMongo's is awaited, Motor's is not
    if inspect.isawaitable(closed):
        await closed


_REQUESTS: Final[Mapping[type, Callable[[Any], Any]]] = {
    Insert: lambda one: InsertOne(one.document),
    Replace: lambda one: ReplaceOne({"_id": one.document["_id"]}, one.document, upsert=True),
    Update: lambda one: UpdateOne({"_id": one.id}, one.change),
    Delete: lambda one: DeleteOne({"_id": one.id}),
}


D = TypeVar("D", bound=MongoDriver)


def connect(
    uri: str,
    name: DriverName,
    database: str | None = None,
    *,
    kind: type[D] = MongoDriver,  # type: ignore[assignment]  # mypy 9424: a default for a type
) -> D:
    """Make a driver for a URI; nothing is sent yet. Call it in the loop that will use it.

    ``database`` is by default the one the URI names, or ``fhir_portal``; ``kind`` may be a driver
    that watches what is sent.

    Raises:
        Unavailable: the URI cannot be understood. What it holds is not repeated: there is a
            password in it.
    """
    try:
        with warnings.catch_warnings():
            # What the driver does not understand of a URI it would only mention, and leave out.
            warnings.simplefilter("error", UserWarning)
            client = _connect(uri, name)
            if database is None:
                database = client.get_default_database("fhir_portal").name
            driver = kind(client, database, name)
    except (PyMongoError, OSError, ValueError, TypeError, UserWarning) as error:
        reason = str(error)
        told = "" if _secret_in(uri, reason) else f": {reason}"
        raise Unavailable(f"FHIR_PORTAL_MONGODB_URI cannot be used{told}") from None
    driver.builder = lambda: _connect(uri, name, socketTimeoutMS=0)
    return driver


def _connect(uri: str, name: DriverName, **more: Any) -> Any:
    named = urlsplit(uri).query.lower()
    options = {key: value for key, value in _DEFAULTS.items() if f"{key.lower()}=" not in named}
    options |= more
    if name == "motor":
        from motor.motor_asyncio import AsyncIOMotorClient  # noqa: PLC0415 - only the one used

        return AsyncIOMotorClient(uri, io_loop=asyncio.get_running_loop(), **options)
    from pymongo import AsyncMongoClient  # noqa: PLC0415

    return AsyncMongoClient(uri, **options)


def _secret_in(uri: str, reason: str) -> bool:
    try:
        password = urlsplit(uri).password or None
    except ValueError:
        return True
    if "@" in reason:
        return True
    return password is not None and (password in reason or unquote_plus(password) in reason)


def _seconds(time: datetime) -> float:
    return time.replace(tzinfo=time.tzinfo or UTC).timestamp()


def _ours(error: PyMongoError) -> Exception:
    """Return what the rooms are told. No message of the server's: it may quote a document."""
    if error.has_error_label("UnknownTransactionCommitResult"):
        return UnknownOutcome()
    if error.has_error_label("TransientTransactionError"):
        return Transient()
    if isinstance(error, BulkWriteError):
        return _of_bulk(error)
    if isinstance(error, DuplicateKeyError):
        return Taken([0])
    if isinstance(error, WTimeoutError):
        return UnknownOutcome()
    if isinstance(error, ConnectionFailure):
        return UnknownOutcome()
    if isinstance(error, DocumentTooLarge):
        return TooLarge("this is too large to be stored")
    if isinstance(error, OperationFailure):
        return _of_code(error.code or 0, str(error))
    return Unavailable(f"the database cannot be used ({type(error).__name__})")


def _of_bulk(error: BulkWriteError) -> Exception:
    details: Mapping[str, Any] = error.details
    errors = details.get("writeErrors", [])
    others = [one for one in errors if one.get("code") != _DUPLICATE_KEY]
    if others:
        return _of_code(int(others[0].get("code", 0)), str(others[0].get("errmsg", "")))
    if errors and not details.get("writeConcernErrors"):
        return Taken([int(one["index"]) for one in errors])
    return UnknownOutcome()  # stored, but not known to be stored by a majority


def _of_code(code: int, message: str) -> Exception:
    if code in _UNDONE:
        return Transient()
    if code == _INTERNAL:
        # FerretDB's word for a database that went away under a command.
        return UnknownOutcome()
    if code == _TIME_LIMIT:
        return Unavailable("this takes the database too long; ask for less at a time")
    if code in _TOO_LARGE or "MaxDocumentSize" in message:  # FerretDB has no code for it
        return TooLarge("this is too large to be stored")
    if code in _NO_RIGHTS:
        return Unavailable(
            "the database refuses this user: it needs the role readWrite on its database"
        )
    if code in _NO_TRANSACTIONS:
        return NoTransactions()
    return Unavailable(f"the database refused a command (code {code})")
