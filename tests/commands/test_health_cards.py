from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.builders import a_patient
from tests.commands.running import refused, run, told

pytestmark = pytest.mark.usefixtures("own_store")


@pytest.fixture(autouse=True)
def elm(own_store: object) -> None:  # noqa: ARG001 - it has to be there first
    told("practice", "add", "elm", "Elm Practice")


def states() -> list[str]:
    return [key["state"] for key in told("health-cards", "keys", "elm")]


def test_keys_are_rotated_and_withdrawn_for_one_practice() -> None:
    assert told("health-cards", "keys", "elm") == []
    first = told("health-cards", "rotate", "elm")
    assert (first["state"], first["withdrawn"]) == ("signing", None)
    second = told("health-cards", "rotate", "elm")
    assert second["state"] == "next"
    assert states() == ["next", "signing"]
    told("health-cards", "rotate", "elm", "--now")
    assert states() == ["signing", "verifying", "verifying"]
    listed = run("health-cards", "keys", "elm").stdout.splitlines()
    assert [line.split()[1] for line in listed] == ["signing", "verifying", "verifying"]
    gone = told("health-cards", "withdraw", "elm", first["kid"])
    assert gone["state"] == "withdrawn"
    assert gone["withdrawn"]
    assert states() == ["signing", "verifying", "withdrawn"]
    assert first["kid"] in refused("health-cards", "withdraw", "elm", first["kid"])


def kept(folder: Path, *ids: str, practice: str = "elm") -> None:
    file = folder / "patients.ndjson"
    file.write_text("".join(f"{json.dumps(a_patient(one))}\n" for one in ids))
    assert run("import", str(file), "--practice", practice).exit_code == 0


def test_cards_of_a_patient_are_revoked(tmp_path: Path) -> None:
    kept(tmp_path, "ada")
    assert "no key" in refused("health-cards", "revoke", "elm", "ada")
    told("health-cards", "rotate", "elm")
    told("health-cards", "rotate", "elm")
    assert told("health-cards", "revoke", "elm", "Patient/ada") == {"patient": "ada", "lists": 2}
    assert "no id" in refused("health-cards", "revoke", "elm", "Patient/../x")


def test_who_is_no_patient_of_the_practice_is_not_said_to_be_revoked(tmp_path: Path) -> None:
    """Planted fault: an id that was mistyped is put on the lists, and the cards stay good."""
    told("practice", "add", "ash", "Ash Practice")
    kept(tmp_path, "ada", practice="ash")
    told("health-cards", "rotate", "elm")
    for name in ("ada", "adda"):
        assert f"no patient '{name}'" in refused("health-cards", "revoke", "elm", name)


def test_the_wrong_secret_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted fault: a key is made that the server cannot sign with; a list has what no card has.

    Also where there is no key that could be opened: before the first, after the last.
    """
    kept(tmp_path, "ada")
    told("keys", "rotate", "--now")
    other = tmp_path / "other.key"
    other.write_text("ab" * 32)

    def refuses(*arguments: str) -> None:
        with monkeypatch.context() as patched:
            patched.setenv("FHIR_PORTAL_SECRET_KEY_FILE", str(other))
            assert "another server secret" in refused("health-cards", *arguments)

    refuses("rotate", "elm")
    assert told("health-cards", "keys", "elm") == []
    told("health-cards", "rotate", "elm")
    kid = told("health-cards", "rotate", "elm", "--now")["kid"]
    for arguments in (("rotate", "elm"), ("rotate", "elm", "--now"), ("revoke", "elm", "ada")):
        refuses(*arguments)
    told("health-cards", "withdraw", "elm", kid)
    refuses("revoke", "elm", "ada")
    assert states() == ["withdrawn", "verifying"]


@pytest.mark.parametrize(
    "arguments", [("keys",), ("rotate",), ("withdraw", "-kid"), ("revoke", "ada")]
)
def test_a_practice_that_is_not_there_is_refused(arguments: tuple[str, ...]) -> None:
    name, *more = arguments
    assert "no practice 'ash'" in refused("health-cards", name, "ash", *more)


@pytest.mark.parametrize("kid", ["-no-such-key", "--no-such-key"])
def test_a_kid_may_begin_with_a_dash(kid: str) -> None:
    assert kid in refused("health-cards", "withdraw", "elm", kid)
