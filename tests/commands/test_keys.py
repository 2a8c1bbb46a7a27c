from __future__ import annotations

from pathlib import Path

import pytest

from fhir_portal.smart.keys import PUBLISHED_SECONDS
from tests.commands.running import refused, run, told

pytestmark = pytest.mark.usefixtures("own_store")


def states() -> list[str]:
    return [key["state"] for key in told("keys", "list")]


def test_a_new_key_is_published_before_it_signs() -> None:
    assert told("keys", "list") == []
    first = told("keys", "rotate", "--now")
    assert (first["state"], first["retired"]) == ("signing", None)
    second = told("keys", "rotate")
    assert second["state"] == "next"
    assert told("keys", "list") == [second, first]
    listed = run("keys", "list").stdout.splitlines()
    assert [line.split()[:2] for line in listed] == [
        [second["kid"], "next"],
        [first["kid"], "signing"],
    ]
    assert second["signs_from"] > first["signs_from"]


@pytest.mark.parametrize("kid", ["-no-such-key", "--no-such-key"])
def test_a_kid_may_begin_with_a_dash(kid: str) -> None:
    assert "no such option" not in refused("keys", "retire", kid).lower()
    assert kid in refused("keys", "retire", kid)


def test_a_key_that_leaked_is_replaced_and_retired_at_once() -> None:
    """Planted fault: a key that signs, or whose tokens are good, is retired without a word."""
    leaked = told("keys", "rotate", "--now")["kid"]
    assert "rotate first" in refused("keys", "retire", leaked)
    assert "rotate first" in refused("keys", "retire", leaked, "--now")
    told("keys", "rotate", "--now")
    assert states() == ["signing", "verifying"]
    assert "seconds" in refused("keys", "retire", leaked)
    assert states() == ["signing", "verifying"]
    retired = told("keys", "retire", leaked, "--now")
    assert retired["state"] == "retired"
    assert retired["retired"]
    assert states() == ["signing", "retired"]
    assert "retired 20" in run("keys", "list").stdout
    assert f"no key '{leaked}'" in refused("keys", "retire", leaked, "--now")


def test_a_key_that_did_not_sign_yet_is_taken_back() -> None:
    told("keys", "rotate", "--now")
    waiting = told("keys", "rotate")["kid"]
    assert told("keys", "retire", waiting)["state"] == "retired"
    assert PUBLISHED_SECONDS > 0
    assert states() == ["retired", "signing"]


def test_an_unknown_key_is_said() -> None:
    assert "no key 'nothing'" in refused("keys", "retire", "nothing")


def test_the_wrong_secret_changes_nothing(
    own_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Planted fault: a key is made that no server could read beside the others."""
    told("keys", "rotate", "--now")
    other = tmp_path / "other.key"
    other.write_text("ab" * 32)
    monkeypatch.setenv("FHIR_PORTAL_SECRET_KEY_FILE", str(other))
    assert "another server secret" in refused("keys", "rotate")
    other.write_text("short")
    assert "secret_key_file" in refused("keys", "rotate")
    monkeypatch.delenv("FHIR_PORTAL_SECRET_KEY_FILE")
    assert len(told("keys", "list")) == 1
    assert "other" not in own_store.name


def test_private_halves_are_not_shown() -> None:
    kid = told("keys", "rotate", "--now")["kid"]
    for output in (run("keys", "list", "--json").output, run("keys", "rotate").output):
        assert '"d"' not in output
        assert "sealed" not in output
    assert kid in run("keys", "list").output
