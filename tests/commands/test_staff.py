from __future__ import annotations

import asyncio
import functools
import json
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
from typer.testing import CliRunner, Result

from fhir_portal.access.log import STAFF_LEVEL, AccessRow
from fhir_portal.access.relation import Relations
from fhir_portal.access.visibility import Visibility
from fhir_portal.accounts.account import Account, AccountName, account_named, add_person
from fhir_portal.accounts.credentials import Passwords
from fhir_portal.accounts.staff import StaffMember, StaffPractitioner, suspend_staff
from fhir_portal.cli import cli
from fhir_portal.commands.store import in_store, portal_over
from fhir_portal.fhir.reference import ResourceKey
from fhir_portal.portal import Portal
from fhir_portal.resources.importing import operator
from fhir_portal.resources.portal_status import said_status
from fhir_portal.smart.keys import derive
from fhir_portal.smart.token import TokenFamily
from tests.builders import (
    BASE,
    Caller,
    Clock,
    Json,
    a_person,
    a_practitioner,
    an_account,
    an_ehr,
    keep,
)
from tests.staff import a_level

PASSWORD = "seven mossy kettles"
ADD = ("add", "noor", "--practice", "elm")


@pytest.fixture(autouse=True)
def _two_practices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FHIR_PORTAL_DATA", str(tmp_path / "portal.db"))
    for key, name in (("elm", "Elm Street"), ("oak", "Oak Street")):
        assert CliRunner().invoke(cli, ["practice", "add", key, name]).exit_code == 0
    given("elm", a_practitioner("lark"), a_practitioner("gone", active=False))


def run(*arguments: str, said: str = PASSWORD) -> Result:
    return CliRunner().invoke(cli, ["staff", *arguments], input=f"{said}\n")


def told(*arguments: str, said: str = PASSWORD) -> Any:
    result = run(*arguments, "--json", said=said)
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def refused(*arguments: str, said: str = PASSWORD) -> str:
    result = run(*arguments, said=said)
    assert result.exit_code == 2, result.output
    assert "Traceback" not in result.output
    assert len(result.stderr.splitlines()) == 1
    return result.stderr


def inside(work: Callable[[Any], Awaitable[Any]]) -> Any:
    return asyncio.run(in_store(work))


def given(practice: str, *trees: Json) -> None:
    async def work(store: Any) -> None:
        portal = Portal.over(
            store,
            store.log,
            clock=Clock(),
            base=BASE,
            aliases=(),
            derive=functools.partial(derive, b"k" * 32),
        )
        await Caller(portal, operator(practice)).store(*trees)

    inside(work)


def practitioners(practice: str = "elm") -> list[Json]:
    async def work(store: Any) -> list[Json]:
        portal = Portal.over(
            store,
            store.log,
            clock=Clock(),
            base=BASE,
            aliases=(),
            derive=functools.partial(derive, b"k" * 32),
        )
        answer = await Caller(portal, operator(practice)).get("Practitioner?_count=50")
        return answer.entries

    found: list[Json] = inside(work)
    return found


def account(username: str = "noor") -> Account | None:
    found: Account | None = inside(lambda store: account_named(store, username))
    return found


def signs_in(password: str, username: str = "noor") -> bool:
    known = account(username)
    assert known is not None
    passwords = Passwords()
    try:
        return asyncio.run(passwords.verify(known.password_hash, password))
    finally:
        passwords.close()


def at(practice: str, username: str = "noor") -> str | None:
    async def work(store: Any) -> str | None:
        known = await account_named(store, username)
        assert known is not None
        found = await Relations(store, Clock()).staff_at(known, practice)
        return found.fhir_user if found else None

    where: str | None = inside(work)
    return where


def test_somebody_in_the_practices_records_gets_an_account() -> None:
    added = told(*ADD, "--practitioner", "Practitioner/lark")
    assert {name: added[name] for name in ("username", "practice", "practitioner", "name")} == {
        "username": "noor",
        "practice": "elm",
        "practitioner": "Practitioner/lark",
        "name": "Lark",
    }
    assert added["state"] == "active"
    assert at("elm") == "Practitioner/lark"
    assert at("oak") is None
    made = account()
    assert made is not None
    assert (made.role, made.persons) == ("staff", ())
    assert signs_in(PASSWORD)
    assert not signs_in("another long password")


def test_who_is_not_in_the_records_yet_is_put_there() -> None:
    added = told(*ADD, "--name", "Noor Saffrey")
    assert added["name"] == "Noor Saffrey"
    assert at("elm") == added["practitioner"]
    (made,) = [one for one in practitioners() if one["name"] == [{"text": "Noor Saffrey"}]]
    assert f"Practitioner/{made['id']}" == added["practitioner"]
    assert made["active"] is True
    assert practitioners("oak") == []


def test_a_password_is_shown_only_when_it_was_made_here() -> None:
    assert PASSWORD not in run(*ADD, "--practitioner", "Practitioner/lark").output
    made = run("add", "ivo", "--practice", "oak", "--name", "Ivo", "--generate-password", "--json")
    password = json.loads(made.stdout)["password"]
    assert "not shown again" in made.stderr
    assert len(password) >= 20
    assert signs_in(password, "ivo")
    assert password not in run("list").output


@pytest.mark.parametrize("option", ["--password", "--pass", "-p"])
def test_a_password_is_no_argument(option: str) -> None:
    result = run(*ADD, "--name", "Noor", option, PASSWORD)
    assert result.exit_code == 2
    assert account() is None


@pytest.mark.parametrize("password", ["", "short", "password1234", "noor-elm-street", "x" * 200])
def test_a_bad_password_makes_no_account(password: str) -> None:
    before = practitioners()
    assert "password" in refused(*ADD, "--name", "Noor", said=password).casefold()
    assert account() is None
    assert practitioners() == before


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--practice", "nowhere", "--name", "N"], "no practice 'nowhere' (known: elm, oak)"),
        (["--practice", "elm"], "--practitioner Practitioner/ID"),
        (["--practice", "elm", "--practitioner", "Practitioner/lark", "--name", "N"], "say who"),
        (["--practice", "elm", "--practitioner", "Practitioner/nobody"], "has no"),
        (["--practice", "oak", "--practitioner", "Practitioner/lark"], "'oak' has no"),
        (["--practice", "elm", "--practitioner", "Practitioner/gone"], "not active"),
        (["--practice", "elm", "--practitioner", "lark"], "written Practitioner/ID"),
        (["--practice", "elm", "--practitioner", "Patient/lark"], "written Practitioner/ID"),
        (["--practice", "elm", "--practitioner", "Practitioner/lark/_history/1"], "written"),
        (["--practice", "elm", "--name", " "], "name"),
        (["--practice", "elm", "--name", "N", "--existing-account"], "no account 'noor'"),
        (
            ["--practice", "elm", "--name", "N", "--existing-account", "--generate-password"],
            "keeps its password",
        ),
    ],
)
def test_what_cannot_be_is_refused_and_nothing_is_stored(arguments: list[str], words: str) -> None:
    before = practitioners()
    assert words in refused("add", "noor", *arguments)
    assert account() is None
    assert practitioners() == before
    assert told("list") == []


def test_a_user_name_that_nobody_can_have_is_refused() -> None:
    assert "user name" in refused("add", " ", "--practice", "elm", "--name", "N")


def test_an_account_joins_the_staff_only_when_that_is_said() -> None:
    """A slip of the pen must not open a practice to a patient."""
    inside(lambda store: _patient(store, "mara"))
    new = ("add", "mara", "--practice", "elm", "--practitioner", "Practitioner/lark")
    assert "--existing-account" in refused(*new)
    assert told("list") == []
    told(*new, "--existing-account", said="")
    assert at("elm", "mara") == "Practitioner/lark"
    kept = account("mara")
    assert kept is not None
    assert (kept.role, kept.password_hash, kept.persons) == ("patient", "h", ("elm/Person/mara",))


async def _patient(store: Any, username: str) -> None:
    made = an_account(username, f"elm/Person/{username}", password_hash="h")
    await keep(store, made, AccountName(key=username, account=made.key))


def test_one_is_on_a_practices_staff_once_and_a_practitioner_is_one_person() -> None:
    told(*ADD, "--practitioner", "Practitioner/lark")
    assert "already" in refused(*ADD, "--name", "Again", "--existing-account")
    assert not [one for one in practitioners() if one["name"] == [{"text": "Again"}]]
    another = ("add", "ivo", "--practice", "elm", "--practitioner", "Practitioner/lark")
    assert "is another account" in refused(*another)
    assert account("ivo") is None


def test_one_account_is_on_two_staffs() -> None:
    told(*ADD, "--practitioner", "Practitioner/lark")
    told("add", "noor", "--practice", "oak", "--name", "Noor", "--existing-account")
    assert [one["practice"] for one in told("list")] == ["elm", "oak"]
    assert [one["practice"] for one in told("list", "--practice", "oak")] == ["oak"]
    assert "no practice" in refused("list", "--practice", "nowhere")


def test_the_list_says_who_is_shut_out_and_why() -> None:
    assert told("list") == []
    told(*ADD, "--practitioner", "Practitioner/lark")
    assert run("list").stdout.split() == ["noor", "elm", "read", "Practitioner/lark", "Lark"]
    given("elm", a_practitioner("lark", active=False))
    assert told("list")[0]["state"] == "Practitioner inactive or deleted"
    given("elm", a_practitioner("lark"))
    told("disable", "noor")
    assert "(account disabled)" in run("list").stdout


async def _family(store: Any, practitioner: str, practice: str) -> None:
    known = await account_named(store, "noor")
    assert known is not None
    family = TokenFamily(
        key=f"{practice}-{practitioner}",
        expires=4e9,
        issued=0,
        rotated=0,
        client_id="chart",
        account=known.key,
        patient="",
        practice=practice,
        fhir_user=practitioner,
        grant=None,
        scope="user/*.rs",
    )
    await keep(store, family)


def test_removing_ends_what_they_hold_there_and_keeps_the_account() -> None:
    told(*ADD, "--practitioner", "Practitioner/lark")
    told("add", "noor", "--practice", "oak", "--name", "Noor", "--existing-account")
    inside(lambda store: _family(store, "Practitioner/lark", "elm"))
    inside(lambda store: _family(store, "Practitioner/noor", "oak"))
    removed = told("remove", "noor", "--practice", "elm")
    assert removed == {"username": "noor", "practice": "elm", "ended": 1}
    assert at("elm") is None
    assert at("oak") is not None
    assert signs_in(PASSWORD)
    assert "not on the staff of 'elm'" in refused("remove", "noor", "--practice", "elm")
    told(*ADD, "--practitioner", "Practitioner/lark", "--existing-account")  # free again


async def _keep(record: Account, store: Any) -> None:
    await keep(store, record)


def test_whoever_is_put_on_the_staff_again_works_and_their_own_record_stays_closed() -> None:
    """Another practice helped with the account: that they are the patient is proved otherwise."""
    told(*ADD, "--practitioner", "Practitioner/lark")
    known = account("noor")
    assert known is not None
    taken = msgspec.structs.replace(known, persons=("elm/Person/noor",), closed_at=("elm",))
    inside(functools.partial(_keep, taken))
    inside(functools.partial(_suspend, taken.key))
    assert at("elm") is None
    told("remove", "noor", "--practice", "elm")
    told(*ADD, "--practitioner", "Practitioner/lark", "--existing-account")
    known = account("noor")
    assert known is not None
    assert (at("elm"), known.closed_at) == ("Practitioner/lark", ("elm",))


async def _suspend(account: str, store: Any) -> None:
    async def work(transaction: Any) -> None:
        await suspend_staff(transaction, account, helped_by=["bob"], now=1.0)

    await store.transact(work)


def test_nothing_is_left_of_a_membership_that_was_removed() -> None:
    told(*ADD, "--practitioner", "Practitioner/lark")
    told("remove", "noor", "--practice", "elm")
    assert inside(lambda store: store.every(StaffMember)) == []
    assert inside(lambda store: store.every(StaffPractitioner)) == []


def test_disabling_shuts_the_account_out_and_enabling_lets_it_in() -> None:
    told(*ADD, "--practitioner", "Practitioner/lark")
    inside(lambda store: _family(store, "Practitioner/lark", "elm"))
    assert told("disable", "noor") == {"username": "noor", "disabled": True, "ended": 1}
    assert at("elm") is None
    assert told("enable", "noor") == {"username": "noor", "disabled": False}
    assert at("elm") == "Practitioner/lark"


def test_the_persons_of_the_account_say_that_it_is_shut_and_open_again() -> None:
    """``Person?portal-status=`` at each practice that knows the member of staff as a patient."""
    told(*ADD, "--practitioner", "Practitioner/lark")

    async def known(store: Any) -> None:
        account = await account_named(store, "noor")
        assert account is not None
        await store.transact(lambda t: add_person(t, account, "elm/Person/noor"))

    async def said(store: Any) -> str | None:
        visible = Visibility.of_server("Person", practice="elm")
        row = await store.read(ResourceKey("Person", "noor"), visible)
        return said_status(json.loads(row.body))

    inside(known)
    person = a_person("noor", links=["Patient/noor"])
    inside(lambda store: Caller(portal_over(store), an_ehr("elm")).store(person))
    assert inside(said) == "enabled"
    told("disable", "noor")
    assert inside(said) == "disabled"
    told("enable", "noor")
    assert inside(said) == "enabled"


@pytest.mark.parametrize("command", ["disable", "enable"])
def test_a_patients_account_is_not_this_commands_business(command: str) -> None:
    inside(lambda store: _patient(store, "mara"))
    assert "no practice's staff" in refused(command, "mara")
    assert "no account 'nobody'" in refused(command, "nobody")
    assert "no account 'nobody'" in refused("remove", "nobody", "--practice", "elm")
    kept = account("mara")
    assert kept is not None
    assert not kept.disabled


async def _rows(store: Any) -> list[AccessRow]:
    found = await store.log.of_record(
        "elm", None, agent=None, told=False, low=0, high=2**62, before=None, limit=200
    )
    return [one.row for one in found if one.row.interaction == STAFF_LEVEL]


def test_each_change_of_a_membership_is_a_line_of_the_access_log() -> None:
    told(*ADD, "--practitioner", "Practitioner/lark")
    inside(lambda store: keep(store, a_level("desk", "view", practice="elm")))
    told("set-level", "noor", "--practice", "elm", "--level", "Desk")
    told("remove", "noor", "--practice", "elm")
    rows = inside(_rows)
    assert [one.detail for one in rows] == ["level=", "level=desk", "level=read"]
    assert {(one.what, one.record, one.client) for one in rows} == {
        ("Practitioner/lark", "", "operator")
    }


@pytest.mark.parametrize("command", [("remove", "noor", "--practice", "elm"), ("disable", "noor")])
def test_the_last_administrator_goes_only_if_the_operator_says_so(command: Sequence[str]) -> None:
    inside(lambda store: keep(store, a_level("boss", "administer", practice="elm")))
    told(*ADD, "--practitioner", "Practitioner/lark", "--level", "boss")
    assert "nobody would be left" in refused(*command)
    assert at("elm") == "Practitioner/lark"
    told(*command, "--even-last")
    assert at("elm") is None


def test_who_was_helped_back_in_works_again_when_the_operator_says_so() -> None:
    told(*ADD, "--practitioner", "Practitioner/lark")
    known = account("noor")
    assert known is not None
    inside(functools.partial(_suspend, known.key))
    (one,) = told("list")
    assert one["state"] == "suspended since staff helped to recover the account"
    assert told("resume", "noor", "--practice", "elm")["state"] == "active"
    assert "not on the staff" in refused("resume", "noor", "--practice", "oak")
