"""``Person?portal-status=``: true after each change of an account, whoever changed it and how."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from fhir_portal.accounts.account import Account, AccountPerson, enable_account
from fhir_portal.embedded.store import EmbeddedStore
from fhir_portal.notify.jobs import work_off
from fhir_portal.operations.account_status import (
    StatusesFilledIn,
    fill_in_statuses,
    follow_statuses,
    status_jobs,
)
from fhir_portal.portal import Portal
from fhir_portal.resources import writing
from fhir_portal.resources.portal_status import SYSTEM, said_status, statuses
from fhir_portal.resources.store import PortalStore
from fhir_portal.search.registry import parameters_for
from fhir_portal.smart.revocation import disable_account
from tests.builders import (
    DERM,
    START,
    Caller,
    Clock,
    a_patient,
    a_person,
    a_proxy,
    an_account,
    an_ehr,
    assert_outcome,
    keep,
    oneself,
)
from tests.operations.holding import parameters, values
from tests.staff import a_member_of_staff

PERSON = "Person/ada"
WHY = parameters(reason_Code="other")

pytestmark = [
    pytest.mark.requirement("portal", "S4-19"),
    pytest.mark.requirement("portal", "S4-22"),
]


@pytest.fixture
async def world(accounts: EmbeddedStore, ehr: Caller, other_ehr: Caller) -> EmbeddedStore:
    """The Persons were stored before there were accounts: as an earlier release left them."""
    portal = ehr.portal
    account = await accounts.get(Account, "ada")
    assert account is not None
    await accounts.transact(lambda t: follow_statuses(t, portal.server, account))
    assert await status(ehr) == await status(other_ehr) == "enabled"
    return accounts


async def status(caller: Caller, own_id: str = "ada") -> str:
    """What a Person's tag says: the search finds it by this status, and by no other one."""
    said = said_status((await caller.get(f"Person/{own_id}")).json)
    found = []
    for code in statuses():
        page = await caller.get(f"Person?_id={own_id}&portal-status={SYSTEM}|{code}")
        if own_id in [one["id"] for one in page.entries]:
            found.append(code)
    assert found == [said]
    return found[0]


async def ask(caller: Caller, operation: str, body: Any = WHY, own_id: str = "ada") -> None:
    assert (await caller.ask("POST", f"Person/{own_id}/${operation}", body)).status == 200


async def test_it_follows_each_operation_at_this_practice_alone(
    world: EmbeddedStore, ehr: Caller, other_ehr: Caller
) -> None:
    assert world is not None
    for operation, expected in (
        ("account-disable", "disabled"),
        ("account-disable", "disabled"),
        ("account-enable", "enabled"),
        ("require-credential-renewal", "enabled"),
        ("account-disable", "disabled"),
        ("account-close", "closed"),
    ):
        body = parameters(reason_Code="staff-request") if "renewal" in operation else WHY
        await ask(ehr, operation, body)
        assert await status(ehr) == expected, operation
        assert await status(other_ehr) == "enabled"
        listed = values(await ehr.get("Person/$portal-accounts"))["account"]
        accounts = listed if isinstance(listed, list) else [listed]
        assert {one["status"] for one in accounts} == {expected}


async def test_what_opens_by_itself_is_followed_by_a_job(
    world: EmbeddedStore, ehr: Caller, clock: Clock
) -> None:
    until = parameters(reason_Code="other", until_Instant="2030-03-18T18:00:00Z")
    await ask(ehr, "account-disable", until)
    jobs = status_jobs(ehr.portal.server)
    assert await work_off(world, jobs, worker="w", clock=clock) == 0
    clock.advance(2 * 86_400)
    assert await work_off(world, jobs, worker="w", clock=clock) == 1
    assert await status(ehr) == "enabled"
    # One that was closed for longer meanwhile stays closed.
    again = parameters(reason_Code="other", until_Instant="2030-03-20T00:00:00Z")
    await ask(ehr, "account-disable", again)
    await ask(ehr, "account-disable")
    clock.advance(5 * 86_400)
    assert await work_off(world, jobs, worker="w", clock=clock) == 1
    assert await status(ehr) == "disabled"


async def test_an_operator_shuts_and_opens_it_at_every_practice(
    world: EmbeddedStore, ehr: Caller, other_ehr: Caller
) -> None:
    account = await world.get(Account, "ada")
    assert account is not None

    async def last(transaction: Any) -> None:
        await follow_statuses(transaction, ehr.portal.server, account)

    await disable_account(world, "ada", now=START, last=last)
    assert [await status(one) for one in (ehr, other_ehr)] == ["disabled", "disabled"]
    # A practice that opens its own records opens nothing that is shut as a whole.
    await ask(other_ehr, "account-disable")
    await ask(other_ehr, "account-enable", parameters(reason_Code="resolved"))
    assert await status(other_ehr) == "disabled"
    await enable_account(world, "ada", last=last)
    assert [await status(one) for one in (ehr, other_ehr)] == ["enabled", "enabled"]


async def test_a_merge_and_its_undoing_leave_it_true(world: EmbeddedStore, ehr: Caller) -> None:
    """Also when the account was disabled in between: that is no change of the Person itself."""
    await ehr.store(a_patient("ada-2"), a_person("none", links=["Patient/bo"]))
    assert await status(ehr, "none") == "none"
    sides = {
        f"{one}__patient_Reference": {"reference": f"Patient/{own_id}"}
        for one, own_id in (("source", "ada"), ("target", "ada-2"))
    }
    shown = values(
        await ehr.ask("POST", "Patient/$merge", parameters(**sides, preview_Boolean=True))
    )
    body = parameters(**sides, accept_String=shown["accept"])
    assert (await ehr.ask("POST", "Patient/$merge", body)).status == 200
    assert await status(ehr) == "enabled"
    await ask(ehr, "account-disable")
    assert (await ehr.ask("POST", "Patient/ada/$undo-merge")).status == 200
    assert await status(ehr) == "disabled"
    assert (await ehr.get(PERSON)).json["link"][0]["target"] == {"reference": "Patient/ada"}
    assert world is not None


LIES = [{"system": SYSTEM, "code": "closed"}, {"system": "urn:other", "code": "kept"}]


@pytest.mark.parametrize("meta", [{"tag": LIES}, {}, None])
@pytest.mark.parametrize("permissions", [("label", "grant-writing"), ("grant-writing",)])
async def test_no_client_says_it_and_none_is_refused_for_repeating_it(
    world: EmbeddedStore, ehr: Caller, meta: Any, permissions: Any
) -> None:
    """By PUT and POST, in a transaction too; another tag is kept where tags may be set."""
    caller = Caller(ehr.portal, an_ehr(DERM, *permissions))
    tree = (await ehr.get(PERSON)).json
    if "label" not in permissions and meta:
        meta = {"tag": LIES[:1]}
    sent = {**tree, "gender": "female"}
    if meta is not None:
        sent = {name: value for name, value in sent.items() if name != "meta"}
        sent |= {"meta": meta} if meta else {}
    answer = await caller.ask("PUT", PERSON, sent)
    assert answer.status == 200, answer.body
    assert await status(ehr) == "enabled"
    tags = (await ehr.get(PERSON)).json["meta"]["tag"]
    assert ([one for one in tags if one["system"] == "urn:other"] != []) == (
        meta is not None and len(meta.get("tag", ())) == 2
    )
    new = {name: value for name, value in sent.items() if name != "id"}
    made = await caller.ask("POST", "Person", _unlinked(new))
    assert made.status == 201, made.body
    assert await status(ehr, made.json["id"]) == "none"
    assert world is not None


async def test_on_another_type_it_is_a_tag_like_any_other(ehr: Caller) -> None:
    """Who may not set tags sets none of ours either; nothing keeps it in step there."""
    weak = Caller(ehr.portal, an_ehr(DERM, "grant-writing"))
    tree = {**a_patient("eve"), "meta": {"tag": LIES[:1]}}
    assert_outcome(await weak.ask("PUT", "Patient/eve", tree), 403, "forbidden")
    assert (await ehr.ask("PUT", "Patient/eve", tree)).status == 201
    assert (await ehr.get("Patient/eve")).json["meta"]["tag"] == LIES[:1]


def _unlinked(tree: Any) -> Any:
    return {name: value for name, value in tree.items() if name != "link"}


async def test_another_practices_clients_and_patients_search_for_none(
    world: EmbeddedStore, ehr: Caller, other_ehr: Caller
) -> None:
    await ask(ehr, "account-disable")
    found = await other_ehr.get("Person?portal-status=disabled")
    assert found.entries == []
    for one in (oneself("ada"), a_proxy(sections=("sharing",)), a_member_of_staff()):
        answer = await Caller(ehr.portal, one).get("Person?portal-status=disabled")
        assert_outcome(answer, 403, "forbidden")
    narrow = Caller(ehr.portal, replace(an_ehr(), scopes=oneself("ada").scopes))
    assert (await narrow.get("Person?portal-status=disabled")).status == 403
    assert world is not None


async def test_what_an_earlier_release_stored_is_filled_in_once(
    accounts: EmbeddedStore,
    ehr: Caller,
    other_ehr: Caller,
    portal: Portal,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """More Persons than one batch, of two practices; a version with no tag is left as history."""

    async def nothing(*_: Any, **__: Any) -> None:
        return None

    earlier = {"tag": [{"system": "urn:other", "code": "kept"}]}
    with monkeypatch.context() as before:
        before.setattr(writing, "put_status", nothing)
        for number in range(130):
            await ehr.store(a_person(f"p{number}", links=["Patient/bo"]))
        await ehr.store(a_person("ada", links=["Patient/ada"], meta=earlier))
        await other_ehr.store(a_person("ada", links=["Patient/ada-f"], meta=earlier))
    assert (await ehr.get("Person?portal-status:missing=true&_summary=count")).json["total"] == 131
    store: PortalStore = accounts
    assert await fill_in_statuses(store, portal.server) == 132
    assert await accounts.get(StatusesFilledIn, "all") is not None
    assert await fill_in_statuses(store, portal.server) == 0
    assert (await ehr.get("Person?portal-status:missing=true&_summary=count")).json["total"] == 0
    assert await status(ehr) == await status(other_ehr) == "enabled"
    assert await status(ehr, "p129") == "none"


async def test_it_is_listed_with_its_definition(ehr: Caller) -> None:
    found = parameters_for("Person")["portal-status"]
    assert found.url == "https://fhir-portal.example/ig/SearchParameter/Person-portal-status"
    assert "portal-status" not in parameters_for("Patient")
    assert (await ehr.get("Patient?portal-status=enabled")).status == 400


async def test_a_new_account_is_told_with_the_write_of_its_person(
    accounts: EmbeddedStore, ehr: Caller
) -> None:
    await keep(
        accounts,
        an_account("bo", f"{DERM}/Person/bo"),
        AccountPerson(key=f"{DERM}/Person/bo", account="bo"),
    )
    await ehr.store(a_person("bo", links=["Patient/bo"]))
    assert await status(ehr, "bo") == "enabled"
