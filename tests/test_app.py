"""The application as a whole: what it does while it is open, besides answering."""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from fhir_portal.accounts.account import Account
from fhir_portal.accounts.contacts import Contact
from fhir_portal.accounts.sessions import Session
from fhir_portal.accounts.staff import ClosedSuspended
from fhir_portal.app import (
    DELIVERY_SECONDS,
    HOUSEKEEPING_SECONDS,
    JOB_SECONDS,
    Application,
    open_store,
)
from fhir_portal.embedded.store import EmbeddedStore
from fhir_portal.fhir.errors import Unavailable
from fhir_portal.notify import jobs, outbox
from fhir_portal.notify.outbox import CHANNELS, PRIORITIES, OutboxMessage
from fhir_portal.operations.account_status import FOLLOW, StatusesFilledIn
from fhir_portal.records import DROPPED_AT_ONCE, drop_expired
from fhir_portal.settings import InvalidSettings, load


class Pauses:
    """The waiting between two rounds of the tasks, which the test ends: ``await round(60)``."""

    def __init__(self) -> None:
        self._waiting: defaultdict[float, list[asyncio.Future[None]]] = defaultdict(list)
        self._changed = asyncio.Event()

    async def __call__(self, seconds: float) -> None:
        over = asyncio.get_running_loop().create_future()
        self._waiting[seconds].append(over)
        self._changed.set()
        await over

    async def round(self, seconds: float, *, tasks: int = 1) -> None:
        """Let one round of the tasks that pause so long happen, and wait for their next pause."""
        await self._until(seconds, tasks)
        begun, self._waiting[seconds] = self._waiting[seconds], []
        for over in begun:
            over.set_result(None)
        await self._until(seconds, tasks)

    async def _until(self, seconds: float, tasks: int) -> None:
        while len(self._waiting[seconds]) < tasks:
            self._changed.clear()
            await self._changed.wait()


@contextlib.asynccontextmanager
async def opened(folder: Path, pauses: Pauses) -> AsyncIterator[Application]:
    application = Application(load(data=folder / "portal.db"), pause=pauses)
    await application.open()
    try:
        yield application
    finally:
        await application.close()


def a_session(key: str, expires: float) -> Session:
    return Session(key=key, expires=expires, browser="b", created=0.0, seen=0.0)


async def told_somebody(transaction: Any) -> None:
    """A notice to an account with one contact."""
    await transaction.put(Account(key="somebody", username="somebody", created=1.0))
    await transaction.put(
        Contact(
            key="key",
            account="somebody",
            medium="mail",
            value="somebody@people.example",
            added=1.0,
            verified=1.0,
        )
    )
    await outbox.enqueue(
        transaction,
        key="app.ended.1",
        practice="quillfern",
        channel="mail",
        to="account:somebody",
        template="app-ended",
        now=1.0,
    )


async def keep(application: Application, *sessions: Session) -> None:
    async def insert(transaction: Any) -> None:
        for session in sessions:
            await transaction.insert(session)

    await application.store.transact(insert)


async def kept(application: Application) -> list[str]:
    return [session.key for session in await application.store.every(Session, limit=10_000)]


async def test_what_has_expired_is_removed_while_the_server_runs(tmp_path: Path) -> None:
    pauses = Pauses()
    async with opened(tmp_path, pauses) as application:
        over = [a_session(f"{n:05}", 1.0) for n in range(2 * DROPPED_AT_ONCE + 1)]
        await keep(application, *over, a_session("alive", time.time() + 600))
        await pauses.round(HOUSEKEEPING_SECONDS)
        assert await kept(application) == ["alive"]


async def test_what_waits_in_the_outbox_is_sent_while_the_server_runs(tmp_path: Path) -> None:
    pauses = Pauses()
    async with opened(tmp_path, pauses) as application:
        await application.store.transact(told_somebody)
        await pauses.round(DELIVERY_SECONDS, tasks=len(CHANNELS) * len(PRIORITIES))
        sent = application.settings.outbox_folder / "app.ended.1.key.json"
        assert json.loads(sent.read_text())["to"] == "mail:somebody@people.example"
        messages = await application.store.every(OutboxMessage)
        assert [one.state for one in messages] == ["done", "done"]


async def test_without_a_background_nothing_is_sent_until_somebody_works(tmp_path: Path) -> None:
    """Two processes: a server that only serves, and what `fhir-portal worker --once` does."""
    settings = load(data=tmp_path / "portal.db", worker=False)
    server = Application(settings, pause=Pauses())
    before = asyncio.all_tasks()
    await server.open()
    try:
        assert asyncio.all_tasks() == before
        await server.store.transact(told_somebody)
        worker = Application(settings, background=False)
        await worker.open()
        try:
            assert await worker.work_once() == 1
            assert await worker.work_once() == 0
        finally:
            await worker.close()
        assert {one.state for one in await server.store.every(OutboxMessage)} == {"done"}
    finally:
        await server.close()


async def test_jobs_are_done_while_the_server_runs(tmp_path: Path) -> None:
    pauses, done = Pauses(), []
    async with opened(tmp_path, pauses) as application:

        async def tidy(held: Any) -> None:
            done.append(held.work.key)

        async def enqueue(transaction: Any) -> None:
            await jobs.enqueue(transaction, key="j", practice="elm", name="tidy", now=1.0)

        application.jobs["tidy"] = tidy
        await application.store.transact(enqueue)
        await pauses.round(JOB_SECONDS)
        assert done == ["j"]


async def test_persons_say_how_their_accounts_stand_before_anybody_asks(tmp_path: Path) -> None:
    """Those that an earlier release stored; and a worker knows the job that follows an end."""
    async with opened(tmp_path, Pauses()) as application:
        assert await application.store.get(StatusesFilledIn, "all") is not None
        assert FOLLOW in application.jobs


async def test_staff_whom_an_earlier_release_shut_out_are_suspended_before_anybody_asks(
    tmp_path: Path,
) -> None:
    async with opened(tmp_path, Pauses()) as application:
        assert await application.store.get(ClosedSuspended, "all") is not None


async def test_a_round_that_fails_is_not_the_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses = Pauses()
    async with opened(tmp_path, pauses) as application:
        await keep(application, a_session("over", 1.0))
        with monkeypatch.context() as patch:

            async def busy(*_: Any) -> None:
                raise Unavailable("the store could not write")

            patch.setattr(application.store, "transact", busy)
            await pauses.round(HOUSEKEEPING_SECONDS)
        assert await kept(application) == ["over"]
        await pauses.round(HOUSEKEEPING_SECONDS)
        assert await kept(application) == []


async def test_closing_ends_the_rounds(tmp_path: Path) -> None:
    before = asyncio.all_tasks()
    async with opened(tmp_path, Pauses()):
        assert asyncio.all_tasks() != before
    assert asyncio.all_tasks() == before


async def test_one_round_removes_a_bounded_number(tmp_path: Path) -> None:
    async with opened(tmp_path, Pauses()) as application:
        await keep(application, *(a_session(f"{n:05}", 1.0) for n in range(3 * DROPPED_AT_ONCE)))
        dropped = await drop_expired(application.store, 2.0, at_most=DROPPED_AT_ONCE)
        assert dropped == DROPPED_AT_ONCE
        assert len(await kept(application)) == 2 * DROPPED_AT_ONCE


@pytest.mark.parametrize("path", ["/signin/", "//signin/", "/oauth/consent/", "/openapi.json"])
async def test_an_address_that_is_almost_one_of_ours_leads_nowhere(
    tmp_path: Path, path: str
) -> None:
    """A redirect would go wherever the Host header says."""
    async with (
        opened(tmp_path, Pauses()) as application,
        httpx.AsyncClient(
            transport=httpx.ASGITransport(application), base_url="http://127.0.0.1:8000"
        ) as http,
    ):
        response = await http.get(f"http://127.0.0.1:8000{path}", headers={"Host": "evil.example"})
    assert response.status_code == 404
    assert "location" not in response.headers


async def readiness(application: Application) -> httpx.Response:
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(application), base_url="http://127.0.0.1:8000"
    ) as http:
        return await http.get("/health/ready")


async def test_a_server_whose_store_is_well_is_ready(tmp_path: Path) -> None:
    async with opened(tmp_path, Pauses()) as application:
        response = await readiness(application)
    assert (response.status_code, response.json()) == (200, {"status": "ready"})


async def test_every_fault_of_the_store_is_a_reason_not_to_be_ready(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(tmp_path, Pauses()) as application:
        store = application.store

        async def three() -> int:
            return 3

        monkeypatch.setattr(store, "stale", three)
        monkeypatch.setattr(store.log, "fault", "the access log cannot be synced: OSError")
        response = await readiness(application)
    assert response.status_code == 503
    assert response.json()["reasons"] == [
        "3 resources wait for a reindex",
        "the access log cannot be synced: OSError",
    ]


@pytest.mark.parametrize("how", ["fails", "hangs"])
async def test_a_store_that_does_not_answer_is_said_in_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    monkeypatch.setattr("fhir_portal.app.ANSWER_SECONDS", 0.01)

    async def faults() -> list[str]:
        if how == "hangs":
            await asyncio.Event().wait()
        raise Unavailable("mongodb://portal:secret@db is gone")

    async with opened(tmp_path, Pauses()) as application:
        monkeypatch.setattr(application.store, "faults", faults)
        response = await readiness(application)
    assert response.status_code == 503
    assert response.json() == {"status": "not ready", "reasons": ["the store does not answer"]}


async def test_a_start_that_fails_leaves_no_store_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed = []
    close = EmbeddedStore.close

    def closing(store: EmbeddedStore) -> None:
        closed.append(store)
        close(store)

    monkeypatch.setattr(EmbeddedStore, "close", closing)
    (tmp_path / "key").write_text("no key")
    application = Application(
        load(data=tmp_path / "portal.db", secret_key_file=tmp_path / "key"), pause=Pauses()
    )
    with pytest.raises(InvalidSettings):
        await application.open()
    assert closed == [application.store]
    await application.close()


async def test_closing_waits_for_the_writes_that_are_under_way(tmp_path: Path) -> None:
    async with opened(tmp_path, Pauses()) as application:
        writing = asyncio.create_task(keep(application, a_session("one", time.time() + 600)))
        await asyncio.sleep(0)
    await writing
    async with opened(tmp_path, Pauses()) as application:
        assert await kept(application) == ["one"]


def test_the_embedded_store_loads_no_mongodb_driver(tmp_path: Path) -> None:
    script = f"""
import asyncio, sys
from fhir_portal.app import Application
from fhir_portal.cli import cli
from fhir_portal.settings import InvalidSettings, load

async def start():
    application = Application(load(data={str(tmp_path / "portal.db")!r}))
    await application.open()
    await application.close()

asyncio.run(start())
print(sorted({{"motor", "pymongo", "bson", "fhir_portal.mongo"}} & set(sys.modules)))
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"


async def test_a_database_that_is_not_there_is_said_without_its_password() -> None:
    uri = "mongodb://portal:secret@127.0.0.1:1/portal?serverSelectionTimeoutMS=50"
    with pytest.raises(Unavailable) as refusal:
        await open_store(load(mongodb_uri=uri))
    assert "FHIR_PORTAL_MONGODB_URI" in str(refusal.value)
    assert "secret" not in str(refusal.value)
