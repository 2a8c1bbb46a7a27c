"""The application as a whole: what it does while it is open, besides answering."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from fhir_portal.accounts.sessions import Session
from fhir_portal.app import HOUSEKEEPING_SECONDS, Application
from fhir_portal.fhir.errors import Unavailable
from fhir_portal.records import DROPPED_AT_ONCE, drop_expired
from fhir_portal.settings import load


class Pauses:
    """The waiting between two rounds, which the test ends: ``await pauses.round()``."""

    def __init__(self) -> None:
        self.asked: list[float] = []
        self._started = asyncio.Event()
        self._over = asyncio.Event()

    async def __call__(self, seconds: float) -> None:
        self.asked.append(seconds)
        self._started.set()
        await self._over.wait()
        self._over.clear()

    async def round(self) -> None:
        """Let one round happen, and wait until the next pause has begun."""
        await self._started.wait()
        self._started.clear()
        self._over.set()
        await self._started.wait()


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
        await pauses.round()
        assert await kept(application) == ["alive"]
    assert set(pauses.asked) == {HOUSEKEEPING_SECONDS}


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
            await pauses.round()
        assert await kept(application) == ["over"]
        await pauses.round()
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
