from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from fhir_portal.cli import cli
from fhir_portal.embedded.store import EmbeddedStore
from fhir_portal.fhir.errors import Unavailable


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    file = tmp_path / "portal.db"
    monkeypatch.setenv("FHIR_PORTAL_DATA", str(file))
    return file


def check(*options: str) -> Result:
    result = CliRunner().invoke(cli, ["check", *options])
    assert "Traceback" not in result.output
    return result


def test_a_store_that_is_well_is_described(data: Path) -> None:
    EmbeddedStore.open(str(data)).close()
    result = check()
    assert result.exit_code == 0
    first, *_, last = result.stdout.splitlines()
    assert first == f"embedded store at {data}, layout 1"
    assert last == "ready"


def test_its_indexes_are_listed(data: Path) -> None:
    EmbeddedStore.open(str(data)).close()
    result = check("--indexes")
    assert result.exit_code == 0
    assert "indexes" in result.stdout


def test_what_is_wrong_is_told_by_the_exit_status_too(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    EmbeddedStore.open(str(data)).close()

    async def three(_: EmbeddedStore) -> int:
        return 3

    monkeypatch.setattr(EmbeddedStore, "stale", three)
    result = check()
    assert result.exit_code == 1
    assert result.stderr == "fhir-portal: 3 resources wait for a reindex\n"
    assert "ready" not in result.stdout


def test_a_store_that_is_not_there_is_not_made_by_looking(data: Path) -> None:
    result = check()
    assert result.exit_code == 1
    assert f"no store at {data}" in result.stderr
    assert not list(data.parent.iterdir())


def test_a_file_that_is_no_store_is_said(data: Path) -> None:
    data.write_text("somebody's letter, and long enough to be taken for pages of a database" * 9)
    result = check()
    assert result.exit_code == 1
    assert f"{data} cannot be opened" in result.stderr


def test_indexes_that_cannot_be_made_are_said(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    EmbeddedStore.open(str(data)).close()

    async def fails(_: EmbeddedStore) -> list[str]:
        raise Unavailable("the index resource.place could not be built")

    monkeypatch.setattr(EmbeddedStore, "check_indexes", fails)
    result = check("--indexes")
    assert result.exit_code == 1
    assert "resource.place could not be built" in result.stderr
    assert "embedded store" in result.stdout


def test_a_database_that_does_not_answer_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(
        "FHIR_PORTAL_MONGODB_URI",
        "mongodb://portal:secret@127.0.0.1:1/?serverSelectionTimeoutMS=50",
    )
    result = check()
    assert result.exit_code == 1
    assert "does not answer" in result.stderr
    assert "secret" not in result.output


def test_settings_that_cannot_be_used_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FHIR_PORTAL_MONGODB_URI", "postgres://portal:secret@db")
    result = check()
    assert result.exit_code == 2
    assert "FHIR_PORTAL_MONGODB_URI" in result.stderr
    assert "secret" not in result.output
