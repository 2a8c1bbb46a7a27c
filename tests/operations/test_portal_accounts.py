"""``Person/$portal-accounts``: a practice's accounts, filtered and page by page."""

from __future__ import annotations

from dataclasses import replace
from typing import Any
from urllib.parse import urlencode

import pytest

from fhir_portal.accounts.account import AccountPerson
from fhir_portal.accounts.sessions import LatestSignIn
from fhir_portal.embedded.store import EmbeddedStore
from fhir_portal.operations import portal_accounts
from fhir_portal.smart.revocation import disable_account
from tests.builders import DERM, FAMILY, START, Caller, Json, a_person, an_account, keep
from tests.operations.holding import parameters, values
from tests.staff import a_member_of_staff

LIST = "Person/$portal-accounts"

pytestmark = [
    pytest.mark.requirement("portal", "S4-19"),
    pytest.mark.requirement("portal", "S4-22"),
]


@pytest.fixture
async def world(accounts: EmbeddedStore, ehr: Caller, other_ehr: Caller) -> EmbeddedStore:
    """Bo is disabled here, Cy has no account, Di acts for somebody, Eve is elsewhere."""
    await ehr.store(
        a_person("bo", links=["Patient/bo"], name=[{"family": "Okonma", "given": ["Bo"]}]),
        a_person("cy", links=["Patient/kit"], name=[{"family": "Okello", "given": ["Cy"]}]),
        a_person("di", links=["RelatedPerson/mother"]),
    )
    await other_ehr.store(a_person("eve", links=["Patient/kit"], name=[{"family": "Okafor"}]))
    await keep(
        accounts,
        an_account("bo", f"{DERM}/Person/bo"),
        AccountPerson(key=f"{DERM}/Person/bo", account="bo"),
        an_account("di", f"{DERM}/Person/di"),
        AccountPerson(key=f"{DERM}/Person/di", account="di"),
        an_account("eve", f"{FAMILY}/Person/eve"),
        AccountPerson(key=f"{FAMILY}/Person/eve", account="eve"),
        LatestSignIn(key="ada", at=START - 10),
        LatestSignIn(key="bo", at=START - 1000),
    )
    because = parameters(reason_Code="left-practice")
    assert (await ehr.ask("POST", "Person/bo/$account-disable", because)).status == 200
    because = parameters(reason_Code="deceased")
    assert (await other_ehr.ask("POST", "Person/eve/$account-disable", because)).status == 200
    return accounts


def listed(found: Json) -> list[Json]:
    accounts = found.get("account", [])
    return accounts if isinstance(accounts, list) else [accounts]


def ids(found: Json) -> list[str]:
    return [one["person"]["reference"].removeprefix("Person/") for one in listed(found)]


async def asked(caller: Caller, **filters: Any) -> list[str]:
    """The ids on all pages."""
    query = {name.replace("_", "-"): value for name, value in filters.items()}
    found, following = list[str](), f"{LIST}?{urlencode(query)}"
    while following:
        page = values(await caller.get(following))
        found += ids(page)
        following = f"{LIST}?{urlencode({'page': page['page']})}" if "page" in page else ""
    return found


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ({}, ["ada", "bo", "cy", "di"]),
        ({"status": "enabled"}, ["ada", "di"]),
        ({"status": "disabled"}, ["bo"]),
        ({"status": "none"}, ["cy"]),
        ({"kind": "self"}, ["ada", "bo", "cy"]),
        ({"kind": "proxy"}, ["ada", "di"]),
        ({"kind": "proxy", "status": "disabled"}, []),
        ({"signed_in_before": "2030-03-17T17:46:00Z"}, ["bo", "di"]),
        ({"signed_in_before": "2030-03-17T17:46:00Z", "status": "enabled"}, ["di"]),
        ({"name": "ok"}, ["bo", "cy"]),
        ({"name": "ok", "status": "disabled"}, ["bo"]),
        ({"name": "oka"}, []),
        ({"name": "okonma,okello"}, []),
        ({"name": "%_$|\\"}, []),
    ],
)
@pytest.mark.parametrize("count", [1, 2, 200])
async def test_each_filter_finds_its_own_of_this_practice_on_whatever_pages(
    world: EmbeddedStore, ehr: Caller, filters: Any, expected: list[str], count: int
) -> None:
    assert world is not None
    assert sorted(await asked(ehr, count=count, **filters)) == expected


async def test_a_disabled_one_says_since_when_by_whom_and_why(
    world: EmbeddedStore, ehr: Caller
) -> None:
    assert world is not None
    (one,) = listed(values(await ehr.get(f"{LIST}?status=disabled")))
    assert one == {
        "person": {"reference": "Person/bo"},
        "status": "disabled",
        "kind": "self",
        "name": "Bo Okonma",
        "created": "2030-03-17T17:46:40.000Z",
        "signed-in": "2030-03-17T17:30:00.000Z",
        "since": "2030-03-17T17:46:40.000Z",
        "by": "client:ehr-of-dermatology",
        "reason": "left-practice",
    }


async def test_what_an_operator_shut_is_listed_as_disabled_at_every_practice(
    world: EmbeddedStore, ehr: Caller, other_ehr: Caller
) -> None:
    await disable_account(world, "ada", now=START)
    assert sorted(await asked(ehr, status="disabled")) == ["ada", "bo"]
    assert sorted(await asked(other_ehr, status="disabled")) == ["ada", "eve"]


async def test_who_is_disabled_at_two_practices_is_listed_once_at_each(
    world: EmbeddedStore, ehr: Caller, other_ehr: Caller
) -> None:
    assert world is not None
    because = parameters(reason_Code="deceased")
    for caller in (ehr, other_ehr):
        await caller.ask("POST", "Person/ada/$account-disable", because)
    for count in (1, 2, 3, 50):
        assert sorted(await asked(ehr, status="disabled", count=count)) == ["ada", "bo"]
        assert sorted(await asked(other_ehr, status="disabled", count=count)) == ["ada", "eve"]


async def test_what_is_open_again_is_not_listed_as_disabled(
    world: EmbeddedStore, ehr: Caller
) -> None:
    assert world is not None
    await ehr.ask("POST", "Person/bo/$account-enable", parameters(reason_Code="resolved"))
    assert await asked(ehr, status="disabled") == []


async def test_a_page_looks_at_a_bounded_number_and_goes_on_where_it_stopped(
    world: EmbeddedStore, ehr: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert world is not None
    monkeypatch.setattr(portal_accounts, "EXAMINED", 2)
    filters = {"status": "enabled", "signed_in_before": "2030-03-17T17:46:00Z"}
    query = {name.replace("_", "-"): value for name, value in filters.items()}
    first = values(await ehr.get(f"{LIST}?{urlencode(query)}"))
    assert "account" not in first
    second = values(await ehr.get(f"{LIST}?{urlencode({'page': first['page']})}"))
    assert ids(second) == ["di"]
    assert await asked(ehr, **filters) == ["di"]


async def test_those_without_an_account_and_closed_ones_are_sought_and_not_gone_through(
    world: EmbeddedStore, ehr: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However few of them there are among how many: by the index of their status."""
    assert world is not None
    await ehr.ask("POST", "Person/di/$account-close", parameters(reason_Code="left-practice"))
    await ehr.ask("POST", "Person/ada/$account-enable", parameters(reason_Code="resolved"))
    monkeypatch.setattr(portal_accounts, "EXAMINED", 1)
    for status, expected in (("closed", "di"), ("none", "cy")):
        assert ids(values(await ehr.get(f"{LIST}?status={status}"))) == [expected]
        assert await asked(ehr, status=status) == [expected]


async def test_a_page_is_of_the_practice_that_asks_for_it(
    world: EmbeddedStore, ehr: Caller, other_ehr: Caller
) -> None:
    assert world is not None
    page = values(await ehr.get(f"{LIST}?status=disabled&count=1"))["page"]
    there = values(await other_ehr.get(f"{LIST}?{urlencode({'page': page})}"))
    assert "bo" not in ids(there)
    for bad in (page[:-2], "x", page + "&status=none"):
        query = bad if "&" in bad else urlencode({"page": bad})
        answer = await ehr.get(f"{LIST}?page={query.removeprefix('page=')}")
        assert answer.status == 400


@pytest.mark.parametrize(
    "query",
    [
        "status=open",
        "kind=staff",
        "count=0",
        "count=x",
        "signed-in-before=soon",
        "who=ada",
        "name=",
    ],
)
async def test_what_is_not_understood_is_refused(
    world: EmbeddedStore, ehr: Caller, query: str
) -> None:
    assert world is not None
    assert (await ehr.get(f"{LIST}?{query}")).status == 400


async def test_staff_without_the_permission_see_no_list(world: EmbeddedStore, ehr: Caller) -> None:
    assert world is not None
    member = a_member_of_staff()
    assert member.staff is not None
    assert values(await Caller(ehr.portal, member).get(LIST))
    without = replace(member, staff=replace(member.staff, permissions=frozenset({"invite"})))
    assert (await Caller(ehr.portal, without).get(LIST)).status == 403


async def test_the_list_holds_no_secret(world: EmbeddedStore, ehr: Caller) -> None:
    await keep(world, an_account("di", f"{DERM}/Person/di", password_hash="$argon2id$secret"))
    body = (await ehr.get(LIST)).body
    for secret in (b"argon2", b"family-medicine"):
        assert secret not in body
