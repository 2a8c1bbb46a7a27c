from __future__ import annotations

import asyncio
import json
import socket
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from typer.testing import CliRunner, Result

from fhir_portal.accounts.account import Account
from fhir_portal.accounts.practice import Practice
from fhir_portal.cli import cli
from fhir_portal.demo.people import ACCOUNTS, PASSWORD
from fhir_portal.demo.place import NotTheDemo, Placed, place_demo
from fhir_portal.embedded.store import EmbeddedStore
from fhir_portal.settings import Settings
from fhir_portal.smart.client import Client
from fhir_portal.smart.client_auth.secret import secret_hash
from tests.builders import Caller, Clock, a_patient, a_portal, an_ehr, keep


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(data=tmp_path / "var" / "portal.db")


def placed(settings: Settings, *, reset: bool = False) -> Placed:
    return asyncio.run(place_demo(settings, reset=reset, clock=Clock()))


def inside(settings: Settings, work: Callable[[EmbeddedStore], Any]) -> Any:
    store = EmbeddedStore.open(str(settings.data), clock=Clock())
    try:
        return asyncio.run(work(store))
    finally:
        store.close()


def demo_of(settings: Settings) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(settings.demo_file.read_text())
    return found


async def _accounts(store: EmbeddedStore) -> list[Account]:
    return await store.every(Account)


async def _patient_is_there(store: EmbeddedStore) -> bool:
    answer = await Caller(a_portal(store, Clock()), an_ehr("marrowbrook")).get("Patient/ada")
    return answer.status == 200


async def _write_a_patient(store: EmbeddedStore) -> None:
    await Caller(a_portal(store, Clock()), an_ehr("marrowbrook")).store(a_patient("ada"))


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["demo", *arguments])


def test_a_new_store_gets_the_world_and_its_description(settings: Settings) -> None:
    assert placed(settings) == Placed("2030-03-17", new=True, described=True)
    assert len(inside(settings, _accounts)) == len(ACCOUNTS)
    assert {file.name for file in settings.data.parent.iterdir()} == {
        "portal.db",
        "portal.log.db",
        "demo.json",
    }


def test_demo_json_has_the_agreed_form_and_is_its_owners_alone(settings: Settings) -> None:
    placed(settings)
    assert stat.S_IMODE(settings.demo_file.stat().st_mode) == 0o600
    demo = demo_of(settings)
    assert list(demo) == ["base", "accounts", "clients", "outbox"]
    assert demo["base"] == "http://127.0.0.1:8000/fhir"
    for account in demo["accounts"]:
        assert list(account) == ["role", "username", "password", "person", "records", "note"]
        assert account["password"] == PASSWORD
        for record in account["records"]:
            assert list(record) == ["patient", "relation", "sections"]
    kinds = {one["client_id"]: set(one) for one in demo["clients"]}
    common = {"client_id", "type", "redirect_uris", "scope"}
    assert kinds == {
        "marrowbrook-ehr": common | {"private_jwk"},
        "quillfern-ehr": common | {"private_jwk"},
        "sample-app": common,
        "sample-web-app": common | {"client_secret"},
        "sample-staff-app": common,
    }


def test_the_secret_that_is_written_down_is_the_clients(settings: Settings) -> None:
    placed(settings)
    written = next(c for c in demo_of(settings)["clients"] if "client_secret" in c)

    async def stored(store: EmbeddedStore) -> str | None:
        client = await store.get(Client, written["client_id"])
        return client.secret_hash if client else None

    assert inside(settings, stored) == secret_hash(written["client_secret"])


def test_a_second_start_keeps_what_is_there(settings: Settings) -> None:
    placed(settings)
    before, demo = inside(settings, _accounts), demo_of(settings)
    inside(settings, _write_a_patient)
    assert placed(settings) == Placed("2030-03-17", new=False, described=True)
    assert inside(settings, _accounts) == before
    assert inside(settings, _patient_is_there)
    assert demo_of(settings) == demo


def test_demo_json_follows_the_server_to_another_port(settings: Settings) -> None:
    placed(settings)
    clients = demo_of(settings)["clients"]
    placed(Settings(data=settings.data, port=9000))
    assert demo_of(settings)["base"] == "http://127.0.0.1:9000/fhir"
    assert demo_of(settings)["clients"] == clients


def test_reset_builds_anew(settings: Settings) -> None:
    placed(settings)
    inside(settings, _write_a_patient)
    keys = [account.key for account in inside(settings, _accounts)]
    assert placed(settings, reset=True).new
    assert not inside(settings, _patient_is_there)
    assert not {account.key for account in inside(settings, _accounts)} & set(keys)


def test_what_an_interrupted_start_left_is_built_anew(settings: Settings) -> None:
    site = settings.data.parent / ".portal.db.building"
    site.mkdir(parents=True)
    (site / "portal.db").write_bytes(b"half")
    settings.data.with_name("portal.db-wal").write_bytes(b"of a store that is gone")
    settings.demo_file.write_text("{")
    assert placed(settings).new
    assert len(inside(settings, _accounts)) == len(ACCOUNTS)
    assert not site.exists()


def test_a_build_that_fails_leaves_nothing_to_be_taken_for_a_store(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fails(*_: Any, **__: Any) -> None:
        raise RuntimeError

    monkeypatch.setattr("fhir_portal.demo.world._add_clients", fails)
    with pytest.raises(RuntimeError):
        placed(settings)
    assert not settings.data.exists()
    monkeypatch.undo()
    assert placed(settings).new


def test_a_store_nobody_has_used_counts_as_new(settings: Settings) -> None:
    settings.data.parent.mkdir()
    EmbeddedStore.open(str(settings.data)).close()
    assert placed(settings).new


@pytest.mark.parametrize("reset", [False, True])
def test_a_store_of_somebody_elses_is_never_touched(settings: Settings, *, reset: bool) -> None:
    settings.data.parent.mkdir()

    async def add(store: EmbeddedStore) -> None:
        async def insert(transaction: Any) -> None:
            await transaction.insert(Practice(key="real", name="A real practice"))

        await store.transact(insert)

    inside(settings, add)
    with pytest.raises(NotTheDemo):
        placed(settings, reset=reset)

    async def practices(store: EmbeddedStore) -> list[str]:
        return [one.key for one in await store.every(Practice)]

    assert inside(settings, practices) == ["real"]
    assert not settings.demo_file.exists()


def test_a_lost_demo_json_is_said(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FHIR_PORTAL_DATA", str(settings.data))
    placed(settings)
    settings.demo_file.unlink()
    result = run("--no-serve")
    assert result.exit_code == 0
    assert "demo.json is gone" in result.output
    assert "--reset" in result.output


def test_the_command_names_addresses_and_everybody(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FHIR_PORTAL_DATA", str(settings.data))
    result = run("--no-serve", "--port", "9123")
    assert result.exit_code == 0
    assert "http://127.0.0.1:9123/fhir" in result.output
    assert str(settings.demo_file) in result.output
    assert PASSWORD in result.output
    for account in ACCOUNTS:
        assert f"  {account.username} " in result.output


@pytest.mark.parametrize(
    "arguments", [["demo", "--no-serve"], ["demo", "--reset", "--no-serve"], ["client", "list"]]
)
def test_a_file_that_is_no_store_is_said_and_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str]
) -> None:
    file = tmp_path / "portal.db"
    file.write_text("somebody's letter, and long enough to be taken for pages of a database" * 9)
    before = file.read_bytes()
    monkeypatch.setenv("FHIR_PORTAL_DATA", str(file))
    result = CliRunner().invoke(cli, arguments)
    assert result.exit_code == 2
    assert f"{file} cannot be opened" in result.stderr
    assert file.read_bytes() == before


def test_a_port_in_use_is_said_before_anything_is_built(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FHIR_PORTAL_DATA", str(settings.data))
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        result = run("--port", str(port))
    assert result.exit_code == 2
    assert f"127.0.0.1 port {port}" in result.output
    assert not settings.data.parent.exists()


def test_a_folder_that_cannot_be_written_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "var").write_text("a file where the folder should be")
    monkeypatch.setenv("FHIR_PORTAL_DATA", str(tmp_path / "var" / "portal.db"))
    result = run("--no-serve")
    assert result.exit_code == 2
    assert str(tmp_path / "var") in result.output
    assert "Traceback" not in result.output


@pytest.fixture
def in_mongodb(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Settings that name a MongoDB; a store like any other, of another file, stands for it."""
    database = settings.data.parent / "database"

    async def open_store(_: Settings, clock: Clock) -> EmbeddedStore:
        database.mkdir(parents=True, exist_ok=True)
        return EmbeddedStore.open(str(database / "portal.db"), clock=clock)

    monkeypatch.setattr("fhir_portal.demo.place.open_store", open_store)
    return Settings(data=settings.data, mongodb_uri=SecretStr("mongodb://portal:secret@db/demo"))


def test_a_database_nobody_has_used_gets_the_world_once(in_mongodb: Settings) -> None:
    assert placed(in_mongodb) == Placed("2030-03-17", new=True, described=True)
    assert placed(in_mongodb) == Placed("2030-03-17", new=False, described=True)
    assert not in_mongodb.data.exists()
    assert len(demo_of(in_mongodb)["clients"]) == 5


def test_a_database_is_not_emptied(in_mongodb: Settings) -> None:
    placed(in_mongodb)
    with pytest.raises(NotTheDemo, match="drop the database"):
        placed(in_mongodb, reset=True)
    assert not placed(in_mongodb).new


def test_a_database_with_somebody_elses_practice_is_left_alone(in_mongodb: Settings) -> None:
    file = in_mongodb.data.parent / "database" / "portal.db"

    async def add(store: EmbeddedStore) -> None:
        await keep(store, Practice(key="real", name="A real practice"))

    inside(Settings(data=file), add)
    with pytest.raises(NotTheDemo, match="not the demo's"):
        placed(in_mongodb)
    assert not in_mongodb.demo_file.exists()


def test_a_building_that_was_interrupted_is_not_taken_for_the_demo(
    in_mongodb: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fails(*_: Any, **__: Any) -> None:
        raise RuntimeError

    with monkeypatch.context() as patch:
        patch.setattr("fhir_portal.demo.world._add_clients", fails)
        with pytest.raises(RuntimeError):
            placed(in_mongodb)
    with pytest.raises(NotTheDemo, match="not whole"):
        placed(in_mongodb)
    assert not in_mongodb.demo_file.exists()
