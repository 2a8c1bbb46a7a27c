"""``fhir-portal worker``: sends what is due once, or until it is told to stop."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from fhir_portal.embedded.store import EmbeddedStore
from fhir_portal.notify import outbox
from fhir_portal.notify.outbox import OutboxMessage
from tests.commands.running import refused, run

pytestmark = pytest.mark.usefixtures("log_as_it_was")


def ask_for(data: Path, *keys: str) -> None:
    """Leave messages in the outbox of a store."""

    async def work(transaction: Any) -> None:
        for key in keys:
            await outbox.enqueue(
                transaction,
                key=key,
                practice="elm",
                channel="mail",
                to="mail:ada@people.example",
                template="test",
                now=time.time(),
            )

    store = EmbeddedStore.open(str(data), clock=time.time)
    asyncio.run(store.transact(work))
    store.close()


def test_once_sends_what_is_due_and_ends(own_store: Path) -> None:
    ask_for(own_store, "m1", "m2")
    assert run("worker", "--once").stdout == "2 arrived\n"
    assert run("worker", "--once").stdout == "0 arrived\n"
    sent = json.loads((own_store.parent / "outbox" / "m1.json").read_text())
    assert sent["subject"] == "A test message - your patient portal"


def test_settings_that_cannot_be_used_end_it(
    own_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FHIR_PORTAL_SMTP_HOST", "mail.hill.example")
    assert "smtp_host needs smtp_from" in refused("worker", "--once")
    assert not own_store.exists()


def test_it_works_until_it_is_told_to_stop(own_store: Path) -> None:
    ask_for(own_store, "m1")
    process = subprocess.Popen(
        [sys.executable, "-m", "fhir_portal", "worker"],
        env=os.environ,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        deadline = time.monotonic() + 60
        while not (own_store.parent / "outbox" / "m1.json").exists():
            assert process.poll() is None, process.communicate()[1]
            assert time.monotonic() < deadline
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=30)
    finally:
        process.kill()
        process.wait()
    assert (process.returncode, errors) == (0, "")
    store = EmbeddedStore.open(str(own_store), clock=time.time)
    (message,) = asyncio.run(store.every(OutboxMessage))
    store.close()
    assert message.attempts == 1
