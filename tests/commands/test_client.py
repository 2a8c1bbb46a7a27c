from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from joserfc.jwk import ECKey
from typer.testing import CliRunner, Result

from fhir_portal.cli import cli

CALLBACK = "http://127.0.0.1:8765/callback"


@pytest.fixture(autouse=True)
def _a_store_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FHIR_PORTAL_DATA", str(tmp_path / "portal.db"))


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli, arguments)


def told(*arguments: str) -> Any:
    result = run(*arguments, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def refused(*arguments: str) -> str:
    result = run(*arguments)
    assert result.exit_code == 2, result.output
    assert "Traceback" not in result.output
    return result.stderr


def test_an_added_client_is_listed_and_shown() -> None:
    added = told("client", "add", "Tracker", "--redirect-uri", CALLBACK)
    assert added["type"] == "public"
    assert added["redirect_uris"] == [CALLBACK]
    assert told("client", "show", added["client_id"]) == added
    assert told("client", "list") == [added]
    assert added["client_id"] in run("client", "list").stdout


def test_a_secret_is_shown_when_it_is_made_and_never_again() -> None:
    made = run("client", "add", "Web", "--type", "confidential", "--redirect-uri", CALLBACK)
    assert "client_secret" in made.stdout
    assert "not shown again" in made.stderr
    listed = told("client", "list")[0]
    assert "client_secret" not in listed
    assert not any("secret_hash" in name for name in listed)
    first = told("client", "rotate-secret", listed["client_id"])["client_secret"]
    second = told("client", "rotate-secret", listed["client_id"])["client_secret"]
    assert first != second
    assert second not in run("client", "show", listed["client_id"]).output


def test_a_backend_client_has_a_practice_keys_and_permissions(tmp_path: Path) -> None:
    told("practice", "add", "elm", "Elm Street", "--zone", "America/Chicago")
    key = ECKey.generate_key("P-384", {"alg": "ES384"}, auto_kid=True).as_dict(private=False)
    file = tmp_path / "keys.json"
    backend = ("client", "add", "EHR", "--type", "backend", "--scope", "system/*.cruds")
    given = ("--practice", "elm", "--jwks", str(file), "--permission", "label")
    for content in ({"keys": [key]}, key):
        file.write_text(json.dumps(content))
        added = told(*backend, *given, "--permission", "grant-writing")
        assert added["practice"] == "elm"
        assert added["permissions"] == ["label", "grant-writing"]
        assert added["jwks"] == {"keys": [key]}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["X"], "needs a redirect URI"),
        (["X", "--redirect-uri", "http://app.example/cb"], "loopback"),
        (["X", "--redirect-uri", CALLBACK, "--scope", "system/*.rs"], "backend"),
        (["X", "--redirect-uri", CALLBACK, "--scope", "patient/Patient.xyz"], "scope"),
        (["X", "--type", "backend", "--practice", "nowhere"], "no practice 'nowhere'"),
        (["X", "--type", "backend", "--jwks", "/nowhere.json"], "/nowhere.json"),
        (["X", "--redirect-uri", CALLBACK, "--permission", "fly"], "permissions"),
        ([" ", "--redirect-uri", CALLBACK], "name"),
    ],
)
def test_what_cannot_be_registered_is_refused_with_the_reason(
    arguments: list[str], words: str
) -> None:
    assert words in refused("client", "add", *arguments)
    assert told("client", "list") == []


def test_an_id_is_taken_once() -> None:
    arguments = ("client", "add", "X", "--redirect-uri", CALLBACK, "--client-id", "one")
    told(*arguments)
    assert "a client 'one' already" in refused(*arguments)


def test_a_private_key_is_refused(tmp_path: Path) -> None:
    told("practice", "add", "elm", "Elm Street")
    file = tmp_path / "keys.json"
    key: dict[str, Any] = dict(ECKey.generate_key("P-384").as_dict(private=True))
    file.write_text(json.dumps({"keys": [key]}))
    arguments = ("client", "add", "EHR", "--type", "backend", "--scope", "system/*.rs")
    reason = refused(*arguments, "--practice", "elm", "--jwks", str(file))
    assert "public" in reason
    assert key["d"] not in reason


def test_a_client_is_disabled_and_enabled() -> None:
    told("client", "add", "X", "--redirect-uri", CALLBACK, "--client-id", "one")
    assert told("client", "disable", "one") == {"client_id": "one", "disabled": True, "ended": 0}
    assert "disabled" in run("client", "list").stdout
    told("client", "enable", "one")
    assert told("client", "show", "one")["disabled"] is False


@pytest.mark.parametrize("command", ["show", "rotate-secret", "disable", "enable"])
def test_an_unknown_client_is_said(command: str) -> None:
    assert "no client 'nobody'" in refused("client", command, "nobody")


def test_practices_are_added_once_and_listed() -> None:
    added = told("practice", "add", "elm", "Elm Street", "--zone", "America/Chicago")
    assert added == {"key": "elm", "name": "Elm Street", "zone": "America/Chicago"}
    assert told("practice", "list") == [added]
    assert "already" in refused("practice", "add", "elm", "Another")
    assert "time zone" in refused("practice", "add", "oak", "Oak Street", "--zone", "Nowhere/Else")
    assert "key" in refused("practice", "add", "Oak Street", "Oak Street")
    assert "shared" in refused("practice", "add", "shared", "Everybody")
    assert [one["key"] for one in told("practice", "list")] == ["elm"]
