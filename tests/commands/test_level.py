"""``fhir-portal level``, and the level of a member of staff."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fhir_portal.access.relation import Relations
from fhir_portal.accounts.account import account_named
from fhir_portal.accounts.level_changes import FORMAT
from fhir_portal.accounts.levels import PERMISSIONS
from fhir_portal.commands.store import run_in_store
from tests.builders import Clock
from tests.commands.running import refused, run, told

AT = ("--practice", "elm")
DESK = ("level", "set", "Front desk", *AT, "--permission", "view", "--permission", "invite")


pytestmark = pytest.mark.usefixtures("own_store", "two_practices")


@pytest.fixture
def two_practices(own_store: Path) -> None:
    assert not own_store.exists()
    for key, name in (("elm", "Elm Street"), ("oak", "Oak Street")):
        run("practice", "add", key, name)


def add(username: str, *more: str) -> Any:
    return told(
        *("staff", "add", username, *AT, "--name", username.title(), *more),
        given="seven mossy kettles\n",
    )


def may(username: str) -> set[str] | None:
    async def work(store: Any) -> set[str] | None:
        account = await account_named(store, username)
        assert account is not None
        found = await Relations(store, Clock()).staff_at(account, "elm")
        return set(found.permissions) if found else None

    return run_in_store(work)


def names(practice: str = "elm") -> list[str]:
    return [one["name"] for one in told("level", "list", "--practice", practice)]


def a_file(folder: Path, *levels: tuple[str, list[str]]) -> str:
    file = folder / "levels.json"
    listed = [{"name": name, "permissions": given} for name, given in levels]
    file.write_text(json.dumps({"format": FORMAT, "levels": listed}))
    return str(file)


def test_every_practice_begins_with_the_level_to_read() -> None:
    assert told("level", "list", *AT) == [
        {"name": "read", "practice": "elm", "version": 0, "permissions": ["view"], "people": 0}
    ]
    assert run("level", "list", *AT).stdout == "read  0 people    view\n"


def test_a_level_is_made_and_is_the_practices_own() -> None:
    assert told(*DESK) == {
        "practice": "elm",
        "saved": True,
        "changes": [
            {
                "name": "Front desk",
                "new": True,
                "added": ["view", "invite"],
                "taken": [],
                "permissions": ["view", "invite"],
                "people": 0,
            }
        ],
    }
    assert names() == ["read", "Front desk"]
    assert names("oak") == ["read"]


def test_what_a_level_may_do_is_said_in_plain_words() -> None:
    run(*DESK)
    add("noor", "--level", "front DESK")
    shown = run("level", "show", "front desk", *AT).stdout
    assert shown.startswith("Front desk: noor\n  may      read the records of")
    allowed, _, denied = shown.partition("may not")
    assert "invite patients" in allowed
    assert "take invitations back" in denied
    assert "version 1, by operator at " in denied
    found = told("level", "show", "Front desk", *AT)
    assert found["people"] == ["noor"]
    assert len(found["may"]) + len(found["may_not"]) == len(PERMISSIONS)
    run("level", "set", "x", *AT, "--nothing")
    assert "  may      nothing\n  may not  read" in run("level", "show", "x", *AT).stdout
    run("level", "set", "x", *AT, *(f"--permission={one}" for one in PERMISSIONS))
    assert "may not" not in run("level", "show", "x", *AT).stdout


def test_several_levels_change_in_one_action_with_the_difference_before() -> None:
    run(*DESK)
    run("level", "set", "nurse", *AT, "--permission", "view", "--permission", "forms")
    add("noor", "--level", "front desk")
    change = ("level", "set", "front desk", "NURSE", *AT, "--add", "documents", "--take", "forms")
    first = run(*change, "--dry-run")
    lines = ["Front desk  1 person    + documents", "nurse       0 people    + documents, - forms"]
    assert first.stdout.splitlines() == lines
    assert "Nothing was changed" in first.stderr
    assert may("noor") == {"view", "invite"}
    assert run(*change).stdout.splitlines() == lines
    assert may("noor") == {"view", "invite", "documents"}
    assert {one["saved"] for one in (told(*change, "--dry-run"), told(*change))} == {False, True}
    found = told("level", "show", "nurse", *AT)
    assert (found["permissions"], found["version"]) == (["view", "documents"], 2)
    assert [one["permissions"] for one in found["earlier"]] == [["view", "forms"]]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["set", "read", *AT, "--permission", "view"], "built in"),
        (["set", "desk", *AT], "say what it gives"),
        (["set", "desk", *AT, "--permission", "view", "--add", "forms"], "say what it gives"),
        (["set", "desk", *AT, "--permission", "view", "--nothing"], "say what it gives"),
        (["set", "desk", *AT, "--permission", "fly"], "no permission 'fly'"),
        (["set", "none", *AT, "--add", "forms"], "no access level 'none' in 'elm' (there are:"),
        (["set", "desk", "none", *AT, "--add", "forms"], "no access level 'none'"),
        (["set", "desk", "DESK", *AT, "--add", "forms"], "named twice"),
        (["set", "x" * 41, *AT, "--permission", "view"], "1 to 40 printable"),
        (["set", "a\nb", *AT, "--permission", "view"], "1 to 40 printable"),
        (["set", "desk", "--practice", "ash", "--add", "view"], "no practice 'ash'"),
        (["show", "none", *AT], "no access level 'none'"),
        (["show", "desk", "--practice", "oak"], "no access level 'desk' in 'oak'"),
        (["remove", "none", *AT], "no access level 'none'"),
        (["remove", "read", *AT], "built in"),
        (["remove", "desk", *AT], "1 member of staff has the access level 'desk'"),
        (["remove", "desk", "--practice", "oak"], "no access level 'desk' in 'oak'"),
        (["import", "/nowhere/levels.json", *AT], "cannot be read"),
        (["import", "/", *AT], "cannot be read"),
    ],
)
def test_what_cannot_be_is_one_line_and_changes_nothing(arguments: list[str], words: str) -> None:
    run("level", "set", "desk", *AT, "--permission", "view")
    add("noor", "--level", "desk")
    before = told("level", "list", *AT)
    said = refused("level", *arguments)
    assert words in said
    assert len(said.splitlines()) == 1
    assert told("level", "list", *AT) == before


def test_who_is_on_the_staff_gets_another_level() -> None:
    run(*DESK)
    assert add("noor")["level"] == "read"
    moved = told("staff", "set-level", "noor", *AT, "--level", "FRONT desk")
    assert (moved["level"], moved["state"]) == ("Front desk", "active")
    assert may("noor") == {"view", "invite"}
    assert "Front desk" in run("staff", "list").stdout
    words = refused("staff", "set-level", "noor", *AT, "--level", "boss")
    assert "no access level 'boss' in 'elm' (there are: read, Front desk)" in words
    set_at_oak = ("staff", "set-level", "noor", "--practice", "oak", "--level")
    assert "no access level 'Front desk' in 'oak'" in refused(*set_at_oak, "Front desk")
    assert "not on the staff of 'oak'" in refused(*set_at_oak, "read")
    nobody = refused("staff", "set-level", "nobody", *AT, "--level", "read")
    assert "no account 'nobody'" in nobody
    assert may("noor") == {"view", "invite"}


def test_a_level_that_there_is_not_makes_no_account() -> None:
    words = refused(
        *("staff", "add", "noor", *AT, "--name", "Noor", "--level", "boss"),
        given="seven mossy kettles\n",
    )
    assert "no access level 'boss'" in words
    assert told("staff", "list") == []
    assert run_in_store(lambda store: account_named(store, "noor")) is None


def test_the_last_administrator_stays_one() -> None:
    run("level", "set", "boss", *AT, "--permission", "administer")
    add("noor", "--level", "boss")
    assert "nobody would be left" in refused("staff", "set-level", "noor", *AT, "--level", "read")
    assert "nobody would be left" in refused("level", "set", "boss", *AT, "--nothing")
    run("staff", "remove", "noor", *AT)  # who leaves, leaves
    run("level", "set", "boss", *AT, "--nothing")


def test_a_level_is_removed_when_nobody_has_it() -> None:
    run(*DESK)
    assert told("level", "remove", "front desk", *AT) == {
        "name": "Front desk",
        "practice": "elm",
        "removed": True,
    }
    assert names() == ["read"]


def test_an_export_is_imported_at_another_practice(tmp_path: Path) -> None:
    run(*DESK)
    run("level", "set", "boss", *AT, *(f"--permission={one}" for one in PERMISSIONS))
    file = tmp_path / "export.json"
    file.write_text(run("level", "export", *AT).stdout)
    trial = told("level", "import", str(file), "--practice", "oak", "--dry-run")
    assert [(one["name"], one["new"]) for one in trial["changes"]] == [
        ("boss", True),
        ("Front desk", True),
    ]
    assert names("oak") == ["read"]
    done = run("level", "import", "-", "--practice", "oak", given=file.read_text())
    assert done.exit_code == 0
    assert names("oak") == ["read", "boss", "Front desk"]
    again = told("level", "import", str(file), "--practice", "oak")
    assert not any(one["added"] or one["taken"] for one in again["changes"])


def test_an_import_is_all_or_nothing(tmp_path: Path) -> None:
    run("level", "set", "boss", *AT, "--permission", "administer")
    add("noor", "--level", "boss")
    before = told("level", "list", *AT)
    for levels, words in (
        ([("desk", ["view"]), ("read", ["view"])], "built in"),
        ([("desk", ["view"]), ("nurse", ["fly"])], "levels[1].permissions[0]"),
        ([("desk", ["view"]), ("DESK", [])], "twice"),
        ([("desk", ["view"]), ("boss", ["view"])], "nobody would be left"),
    ):
        file = a_file(tmp_path, *levels)
        assert words in refused("level", "import", file, *AT)
        assert words in refused("level", "import", file, *AT, "--dry-run")
    (tmp_path / "big.json").write_bytes(b" " * (1 << 20) + b"{}")
    assert "too large" in refused("level", "import", str(tmp_path / "big.json"), *AT)
    (tmp_path / "odd.json").write_bytes(b"\xff\xfe")
    assert "no export" in refused("level", "import", str(tmp_path / "odd.json"), *AT)
    assert told("level", "list", *AT) == before
