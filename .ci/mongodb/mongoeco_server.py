"""mongoeco's wire server, made to do what drivers and this project count on MongoDB to do.

    python mongoeco_server.py PORT      prints its URI once it answers, and serves until SIGTERM

It is one member of a replica set with its data in memory, and differs from mongoeco alone in this:

* Transactions conflict where they write the same document or unique key, at the second write, with
  112 WriteConflict, which may be retried; a write outside of them waits. mongoeco's own fail in the
  commit if anything else was written anywhere, with neither code nor label.
* Any error in a transaction aborts it, and a command of another one, or of none, ends what its
  session has left open. mongoeco would go on in it with whatever the driver's pool sends next.
* A write that is sent again after a lost reply is answered from memory, not done twice.
* $gt and its like find values of one type, $elemMatch takes $or, and cursors have batches.
* Indexes are asked for unique keys of several fields, $in, and what is equal inside $elemMatch,
  where mongoeco reads the whole collection.

Most of this is done in private methods, so it fits the one version that mongoeco.txt names.
"""

# ruff: noqa: INP001, SLF001, T201 - a script, which knows mongoeco well, and whose result is printed

from __future__ import annotations

import asyncio
import signal
import sys
import time
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

from bson import MaxKey, MinKey
from mongoeco.compat.base import _bson_type_rank
from mongoeco.core import _filtering_matching, _filtering_specials, compiled_query, query_plan
from mongoeco.core.bson_scalars import unwrap_bson_numeric
from mongoeco.core.identity import id_contains_numeric_value
from mongoeco.core.query_operators import query_operator_keys
from mongoeco.core.query_plan import (
    AndCondition,
    ElemMatchCondition,
    EqualsCondition,
    InCondition,
)
from mongoeco.engines._memory_collection import MemoryCollection
from mongoeco.engines.memory import MemoryEngine, _MemoryIndexedCandidates
from mongoeco.engines.virtual_indexes import document_in_virtual_index
from mongoeco.errors import DuplicateKeyError, OperationFailure
from mongoeco.wire._session_identity import wire_session_key
from mongoeco.wire.cursors import WireCursorStore
from mongoeco.wire.executor import WireCommandExecutor
from mongoeco.wire.proxy import AsyncMongoEcoProxyServer
from mongoeco.wire.sessions import WireSessionStore

REPLICA_SET = "rs0"
TRANSIENT = "TransientTransactionError"
WRITE_CONFLICT = 112
LIFETIME = 60  # seconds, of a transaction


def _failure(message: str, code: int, name: str, *labels: str) -> OperationFailure:
    return OperationFailure(message, code, {"codeName": name, "errorLabels": list(labels)})


# Without the label: mongoeco would itself commit again what has it.
def _conflict(why: str) -> OperationFailure:
    message = f"Write conflict: {why}. Please retry your operation or multi-document transaction."
    return _failure(message, WRITE_CONFLICT, "WriteConflict")


def _transient(message: str) -> OperationFailure:
    return _failure(message, WRITE_CONFLICT, "WriteConflict", TRANSIENT)


def _unknown() -> OperationFailure:
    message = "Given transaction number does not match any in-progress transactions."
    return _failure(message, 251, "NoSuchTransaction", TRANSIENT)


# Whether a write of its own waits for the transaction that has written the same document.
_waits: ContextVar[bool] = ContextVar("_waits", default=False)


@dataclass
class _Written:
    """The documents that an open transaction has written, as they were when it began."""

    state: Any
    began: float = field(default_factory=time.monotonic)
    before: dict[tuple[str, str], dict[Any, Any]] = field(default_factory=dict)
    indexes: dict[tuple[str, str], list[Any]] = field(default_factory=dict)


class Engine(MemoryEngine):
    def __init__(self) -> None:
        super().__init__()
        self._written: dict[int, _Written] = {}

    def _open(self, state: Any) -> _Written:
        return self._written.setdefault(id(state), _Written(state))

    def _others(self, state: Any) -> list[_Written]:
        """The other open transactions; one that nobody ends gives way after a minute."""
        for session, old in [*self._mvcc_states.items()]:
            written = self._written.get(id(old))
            if written is not None and written.began < time.monotonic() - LIFETIME:
                del self._mvcc_states[session], self._written[id(old)]
        return [written for written in self._written.values() if written.state is not state]

    def _write(self, collection: Any, key: Any) -> None:
        """Called before each document is written."""
        publication = self._publication_stack[-1]
        (namespace,) = publication.touched_namespaces
        db, name = namespace
        locked = any(
            key in other.before.get(namespace, ()) for other in self._others(publication.state)
        )
        if publication.state is None:
            if locked and _waits.get():
                raise _conflict("a transaction has written the document")
            return
        mine = self._open(publication.state)
        before = mine.before.setdefault(namespace, {})
        mine.indexes.setdefault(namespace, list(self._indexes.get(db, {}).get(name, [])))
        if key in before:
            return
        if locked:
            raise _conflict("another transaction has written the document")
        value = collection.get(key)
        if value is not self._storage.get(db, {}).get(name, {}).get(key):
            raise _conflict("the document has changed since the transaction began")
        before[key] = value

    def _ensure_unique_indexes(
        self, db_name, coll_name, candidate, *, storage_view=None, **options
    ):
        self._ensure_unique(db_name, coll_name, candidate, storage_view=storage_view, **options)
        state = next(
            (state for state in self._mvcc_states.values() if state.storage is storage_view), None
        )
        if state is None:
            return
        live = SimpleNamespace(
            storage=self._storage, indexes=self._indexes, index_data=self._index_data
        )
        for view in (live, *(other.state for other in self._others(state))):
            views = {"indexes_view": view.indexes, "index_data_view": view.index_data}
            try:
                self._ensure_unique(
                    db_name,
                    coll_name,
                    candidate,
                    storage_view=view.storage,
                    **views,
                    exclude_storage_key=options.get("exclude_storage_key"),
                )
            except DuplicateKeyError as error:
                raise _conflict("another transaction has written the same key") from error

    # Compound indexes are asked, too, and no _id is looked for among all of them unless it could be
    # there as another type of number.

    def _index_keys(self, document, fields):
        return (
            super()._index_keys(document, fields)
            if len(fields) == 1
            else self._unique_index_keys(document, fields)
        )

    def _ensure_unique(
        self, db, name, candidate, *, indexes_view=None, index_data_view=None, **options
    ):
        indexes = (
            (self._indexes if indexes_view is None else indexes_view).get(db, {}).get(name, [])
        )
        maps = (
            (self._index_data if index_data_view is None else index_data_view)
            .get(db, {})
            .get(name, {})
        )
        left = []
        for index in indexes:
            members = maps.get(index["name"])
            if (
                len(index["fields"]) == 1
                or not index.get("unique")
                or index.get("collation")
                or members is None
            ):
                left.append(index)
            elif document_in_virtual_index(candidate, index):
                self._validate_compound_multikey_shape(candidate, index)
                for key in self._unique_index_keys(candidate, index["fields"]):
                    if set(members.get(key, ())) - {options.get("exclude_storage_key")}:
                        message, namespace = "Duplicate key", f"{db}.{name}"
                        raise self._unique_key_error(
                            message, namespace, candidate, index=index, conflict=key
                        )
        if not id_contains_numeric_value(candidate.get("_id")):
            options["scan_payload_id"] = False
        super()._ensure_unique_indexes(
            db,
            name,
            candidate,
            indexes_view={db: {name: left}},
            index_data_view=index_data_view,
            **options,
        )

    def _purge_expired_documents_locked(self, *args, context=None, **options):
        if context is not None and context.in_transaction:
            return 0  # a transaction that only reads would else write
        return super()._purge_expired_documents_locked(*args, context=context, **options)

    def _set_storage_document_locked(self, collection, storage_key, document):
        self._write(collection, storage_key)
        super()._set_storage_document_locked(collection, storage_key, document)

    def _delete_storage_document_locked(self, collection, storage_key):
        self._write(collection, storage_key)
        super()._delete_storage_document_locked(collection, storage_key)

    def _commit_session_transaction(self, session):
        state = self._mvcc_states.get(session.session_id)
        if state is None:
            raise _conflict("the transaction has been open for too long")
        if state.has_writes and state.snapshot_version != self._mvcc_version:
            self._rebase(state)
            state.snapshot_version = self._mvcc_version
        super()._commit_session_transaction(session)
        self._written.pop(id(state), None)

    def _abort_session_transaction(self, session):
        self._written.pop(id(self._mvcc_states.get(session.session_id)), None)
        super()._abort_session_transaction(session)

    def _rebase(self, state: Any) -> None:
        """Makes of a transaction's collections the live ones with its own documents in them."""
        mine = self._open(state)
        for namespace, before in mine.before.items():
            db, name = namespace
            live = self._storage.get(db, {}).get(name)
            if mine.indexes[namespace] != list(self._indexes.get(db, {}).get(name, [])):
                raise _conflict("the indexes have changed since the transaction began")
            if any((live or {}).get(key) is not value for key, value in before.items()):
                raise _conflict("a document has changed since the transaction began")
            written = state.storage[db][name]
            after = {key: written[key] for key in before if key in written}
            views = {"indexes_view": state.indexes, "index_data_view": state.index_data}
            collection = state.storage[db][name] = (
                MemoryCollection() if live is None else live.copy()
            )
            state.index_data.setdefault(db, {})[name] = {
                index: members.copy()
                for index, members in self._index_data.get(db, {}).get(name, {}).items()
            }
            with self._publication_scope(state.storage, touched_namespaces={namespace}):
                for key, value in before.items():
                    if value is not None:
                        old = self._borrow_storage_document(value)
                        self._update_indexes_locked(db, name, key, old, action="delete", **views)
                        if key not in after:
                            del collection[key]
                for key, value in after.items():
                    new = self._borrow_storage_document(value)
                    try:
                        self._ensure_unique(
                            db,
                            name,
                            new,
                            exclude_storage_key=key,
                            storage_view=state.storage,
                            **views,
                        )
                    except DuplicateKeyError as error:
                        raise _conflict("another transaction has written the same key") from error
                    collection[key] = value
                    self._update_indexes_locked(db, name, key, new, action="insert", **views)

    def _indexed_candidate_storage_keys_for_plan_locked(
        self, indexes, index_data, query_plan, **options
    ):
        ask = super()._indexed_candidate_storage_keys_for_plan_locked
        found = ask(indexes, index_data, query_plan, **options)
        for node in _all_of(query_plan):
            if found is not None or options["collation"] is not None:
                break
            if isinstance(node, InCondition) and all(isinstance(it, str) for it in node.values):
                if node.field == "_id":
                    found = _MemoryIndexedCandidates({self._storage_key(it) for it in node.values})
                    break
                each = [
                    ask(indexes, index_data, EqualsCondition(node.field, it), **options)
                    for it in node.values
                ]
                if None not in each:
                    found = _MemoryIndexedCandidates(
                        {key for one in each for key in one.storage_keys}
                    )
            elif (
                isinstance(node, ElemMatchCondition) and node.compiled_plan and not node.wrap_value
            ):
                for inner in _all_of(node.compiled_plan):
                    if isinstance(inner, EqualsCondition) and isinstance(inner.value, str):
                        equals = EqualsCondition(f"{node.field}.{inner.field}", inner.value)
                        found = found or ask(indexes, index_data, equals, **options)
        return found


def _all_of(plan: Any) -> tuple[Any, ...]:
    return plan.clauses if isinstance(plan, AndCondition) else (plan,)


# --- queries ------------------------------------------------------------------------------------


def _of_one_type(compare: Any) -> Any:
    """$gt and its like find values of their operand's type alone; mongoeco orders all types."""

    def compare_of_one_type(left, right, *, dialect, **options):
        one, other = (
            _bson_type_rank(value, unwrap_bson_numeric(value), dialect.bson_type_order)
            for value in (left, right)
        )
        if one != other and not isinstance(right, MinKey | MaxKey):
            return float("nan")  # neither less nor greater nor equal
        return compare(left, right, dialect=dialect, **options)

    return compare_of_one_type


def _condition_keys(document: Any) -> tuple[str, ...]:
    """The keys by which $elemMatch sees that it is about values: of documents there is $or, too."""
    return tuple(key for key in query_operator_keys(document) if key not in {"$and", "$or", "$nor"})


for module in (_filtering_matching, compiled_query):
    module.compare_with_collation = _of_one_type(module.compare_with_collation)
_filtering_specials.query_operator_keys = query_plan.query_operator_keys = _condition_keys


class Cursors(WireCursorStore):
    """Answers with 101 documents where the driver asks for no number, as MongoDB does."""

    @staticmethod
    def _resolve_batch_size(command_document):
        size = WireCursorStore._resolve_batch_size(command_document)
        return 101 if size is None else size


# --- the server ---------------------------------------------------------------------------------


class Sessions(WireSessionStore):
    """Sessions in which a transaction lives no longer than MongoDB would let it."""

    def __init__(self) -> None:
        super().__init__()
        self._numbers: dict[str, Any] = {}  # of each session's newest transaction
        self._committed: dict[str, Any] = {}  # the same, once that is committed
        self._replies: dict[str, tuple[Any, Any]] = {}  # of each session's newest retryable write

    def resolve_for_command(self, client, body, *, capability):
        if not capability.binds_session or body.get("lsid") is None:
            return super().resolve_for_command(client, body, capability=capability)
        key = wire_session_key(body["lsid"])
        inside = body.get("autocommit") is False
        if (
            body.get("startTransaction")
            or not inside
            or self._numbers.get(key) != body.get("txnNumber")
        ):
            self.abort(body)
        if body.get("startTransaction"):
            self._numbers[key] = body.get("txnNumber")
            self._committed.pop(key, None)
        session = super().resolve_for_command(client, body, capability=capability)
        if inside and not session.transaction_active and capability.kind == "passthrough":
            raise _unknown()
        return session

    def commit_transaction(self, body: dict[str, Any]) -> dict[str, Any]:
        session = self._require_session(body)
        key = wire_session_key(body["lsid"])
        if not session.transaction_active:
            if key in self._committed and self._committed[key] == body.get("txnNumber"):
                return {"ok": 1.0}
            raise _unknown()
        try:
            session.commit_transaction()
        except OperationFailure as error:
            self.abort(body)
            raise _transient(str(error)) from error
        self._committed[key] = body.get("txnNumber")
        return {"ok": 1.0}

    def abort_transaction(self, body: dict[str, Any]) -> dict[str, Any]:
        if not self._require_session(body).transaction_active:
            raise _unknown()
        return super().abort_transaction(body)

    def abort(self, body: dict[str, Any]) -> None:
        context = self._sessions.get(wire_session_key(body["lsid"]))
        if context is not None and context.session.active and context.session.transaction_active:
            context.session.abort_transaction()

    def answered(self, body: dict[str, Any]) -> dict[str, Any] | None:
        number, reply = self._replies.get(wire_session_key(body["lsid"]), (None, None))
        return reply if number == body["txnNumber"] else None

    def answer(self, body: dict[str, Any], reply: dict[str, Any]) -> None:
        self._replies[wire_session_key(body["lsid"])] = body["txnNumber"], reply

    def end_sessions(self, session_specs: object) -> dict[str, Any]:
        if isinstance(session_specs, list):
            for key in map(wire_session_key, session_specs):
                for kept in (self._numbers, self._committed, self._replies):
                    kept.pop(key, None)
        return super().end_sessions(session_specs)


class Executor(WireCommandExecutor):
    address: str

    async def execute_prepared(self, context):
        body = context.raw_body
        inside = body.get("autocommit") is False
        retryable = not inside and "txnNumber" in body and "lsid" in body
        if retryable and (reply := self._session_store.answered(body)) is not None:
            return reply
        try:
            reply = await self._execute(context, waits=not inside)
        except Exception as error:
            if inside and context.capability.kind == "passthrough":
                self._session_store.abort(body)
                if getattr(error, "code", None) == WRITE_CONFLICT:
                    raise _transient(str(error)) from error
            raise
        if inside and (errors := reply.get("writeErrors")):
            self._session_store.abort(body)
            if errors[0].get("code") == WRITE_CONFLICT:
                raise _transient(errors[0]["errmsg"])
        if retryable:
            self._session_store.answer(body, reply)
        if context.capability.kind == "handshake":
            reply = {**reply, **self._membership()}
        return reply

    async def _execute(self, context, *, waits: bool):
        """Executes; a write outside transactions waits for one that has written the document."""
        document = context.command_document
        lists = (document[name] for name in ("documents", "updates", "deletes") if name in document)
        first, *more = next(lists, [{}])
        if not waits or more or first.get("multi") or first.get("limit") == 0:
            return await super().execute_prepared(context)  # could be half done when it has to wait
        deadline = time.monotonic() + (document.get("maxTimeMS") or LIFETIME * 1000) / 1000
        while True:
            _waits.set(time.monotonic() < deadline)
            try:
                reply = await super().execute_prepared(context)
                if [error.get("code") for error in reply.get("writeErrors", ())] != [
                    WRITE_CONFLICT
                ]:
                    return reply
            except OperationFailure as error:
                if error.code != WRITE_CONFLICT:
                    raise
            finally:
                _waits.set(False)
            await asyncio.sleep(0.002)

    def _membership(self) -> dict[str, Any]:
        now = datetime.now(UTC)
        return {
            "setName": REPLICA_SET,
            "setVersion": 1,
            "hosts": [self.address],
            "me": self.address,
            "primary": self.address,
            "secondary": False,
            "lastWrite": {"lastWriteDate": now, "majorityWriteDate": now},
        }


class Server(AsyncMongoEcoProxyServer):
    def __init__(self, port: int) -> None:
        super().__init__(engine=Engine(), port=port)
        self._cursor_store = Cursors()
        self._session_store = Sessions()
        self._executor = Executor(
            self._client,
            self._cursor_store,
            self._session_store,
            surface=self._surface,
            auth=self._auth,
        )


async def main(port: int) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    server = Server(port)
    Executor.address = f"127.0.0.1:{port}"
    async with server:
        print(f"mongodb://{Executor.address}/?replicaSet={REPLICA_SET}", flush=True)
        await stop.wait()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
