"""``$account-disable`` and ``$account-enable``: a practice closes its own records alone."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import msgspec
import pytest

from fhir_portal.access.relation import Relations
from fhir_portal.accounts.account import Account, AccountPerson
from fhir_portal.accounts.at_practice import AccountAtPractice
from fhir_portal.accounts.sessions import Session
from fhir_portal.embedded.store import EmbeddedStore
from fhir_portal.notify.outbox import OutboxMessage
from fhir_portal.operations.account_disable import WARNING
from fhir_portal.operations.person import account_reasons
from fhir_portal.smart.authorization_details import ConsentedRecord
from fhir_portal.smart.code import SEVERAL, AuthorizationCode
from fhir_portal.smart.token import TokenFamily
from tests.builders import (
    DERM,
    FAMILY,
    Caller,
    Clock,
    a_grant,
    a_person,
    a_practitioner,
    a_proxy,
    a_related_person,
    an_account,
    an_ehr,
    keep,
    oneself,
)
from tests.operations.holding import a_code, a_session, an_app_of, parameters, values, works
from tests.staff import a_chart_app, a_member_of_staff, records_of_staff

BECAUSE = parameters(reason_Code="suspected-misuse", text_String="called from two countries")
DISABLE, ENABLE = "Person/ada/$account-disable", "Person/ada/$account-enable"

pytestmark = pytest.mark.requirement("portal", "S4-20")


def as_ada(auth: Any) -> Any:
    return replace(auth, account="ada")


@pytest.fixture
async def world(accounts: EmbeddedStore, ehr: Caller) -> EmbeddedStore:
    """Ada uses her own record here, her child's, and her own at the other practice."""
    mother = a_proxy(sections=("results", "messages"), act=("messages",))
    await an_app_of(accounts, "own", as_ada(oneself("ada")))
    await an_app_of(accounts, "kit", as_ada(mother))
    await an_app_of(accounts, "elsewhere", as_ada(oneself("ada-f", FAMILY)))
    assert [await works(ehr.portal, one) for one in ("own", "elsewhere")] == [True, True]
    return accounts


async def outbox(store: EmbeddedStore) -> list[OutboxMessage]:
    return await store.every(OutboxMessage)


async def test_tokens_and_codes_of_the_practice_end_at_once_and_those_of_others_stay(
    world: EmbeddedStore, ehr: Caller
) -> None:
    ada_f = ConsentedRecord(
        identifier="1",
        practice=FAMILY,
        patient="Patient/ada-f",
        fhir_user="Patient/ada-f",
        grant=None,
        scope="patient/*.rs",
    )
    ada = msgspec.structs.replace(
        ada_f, identifier="2", practice=DERM, patient="Patient/ada", fhir_user="Patient/ada"
    )
    elsewhere = as_ada(oneself("ada-f", FAMILY))
    await keep(
        world,
        a_code("here", as_ada(oneself("ada"))),
        a_code("there", elsewhere),
        a_code("both", elsewhere, records=(ada_f, ada), for_several=SEVERAL),
        a_session("s", "ada"),
    )
    found = values(await ehr.ask("POST", DISABLE, BECAUSE))
    assert (found["status"], found["ended-apps"]) == ("disabled", 2)
    assert found["warning"] == WARNING
    assert [await works(ehr.portal, one) for one in ("own", "elsewhere")] == [False, True]
    ended = [one.key for one in await world.every(TokenFamily) if one.ended is not None]
    assert ended == ["family-kit", "family-own"]
    codes = {one.key: one.records for one in await world.every(AuthorizationCode)}
    assert codes == {"there": (), "both": (ada_f,)}
    assert await world.get(Session, "s") is not None


async def test_the_sign_in_leads_to_no_record_here_and_to_those_elsewhere(
    world: EmbeddedStore, ehr: Caller, clock: Clock
) -> None:
    relations = Relations(world, clock)
    account = await world.get(Account, "ada")
    assert account is not None
    before = [(one.practice, one.patient) for one in await relations.records_of(account)]
    assert len(before) == 3
    await ehr.ask("POST", DISABLE, BECAUSE)
    left = [(one.practice, one.patient) for one in await relations.records_of(account)]
    assert left == [(FAMILY, "Patient/ada-f")]
    assert await relations.record_of(account, DERM, "Patient/ada") is None


async def test_sessions_end_where_the_account_is_known_here_alone(
    accounts: EmbeddedStore, ehr: Caller
) -> None:
    await ehr.store(a_person("bo", links=["Patient/bo"]))
    await keep(
        accounts,
        an_account("bo", f"{DERM}/Person/bo"),
        AccountPerson(key=f"{DERM}/Person/bo", account="bo"),
        a_session("s", "bo"),
    )
    found = values(await ehr.ask("POST", "Person/bo/$account-disable", BECAUSE))
    assert not any("session" in name for name in found)
    assert await accounts.get(Session, "s") is None


async def test_who_works_here_keeps_session_and_token_of_staff(
    accounts: EmbeddedStore, ehr: Caller
) -> None:
    staff = a_member_of_staff("bo", account="bo")
    await ehr.store(a_person("bo", links=["Patient/bo"]), a_practitioner("bo"))
    await keep(
        accounts,
        an_account("bo", f"{DERM}/Person/bo"),
        AccountPerson(key=f"{DERM}/Person/bo", account="bo"),
        a_session("s", "bo"),
        a_chart_app(),
        *records_of_staff(("work", staff)),
    )
    await an_app_of(accounts, "work", staff)
    await an_app_of(accounts, "own", replace(oneself("bo"), account="bo"))
    found = values(await ehr.ask("POST", "Person/bo/$account-disable", BECAUSE))
    assert found["ended-apps"] == 1
    assert [await works(ehr.portal, one) for one in ("work", "own")] == [True, False]


async def another_proxy(store: EmbeddedStore, ehr: Caller) -> None:
    """Bo acts for Ada, and uses his own record."""
    await ehr.store(
        a_related_person("friend", of="ada"),
        a_grant("for-bo", of="ada", to="friend", sections=["results", "demographics"]),
        a_person("bo", links=["Patient/bo", "RelatedPerson/friend"]),
    )
    await keep(store, an_account("bo", f"{DERM}/Person/bo"))
    proxy = a_proxy("ada", "friend", sections=("results", "demographics"), grant="for-bo")
    await an_app_of(store, "for-ada", replace(proxy, account="bo"))
    await an_app_of(store, "bo", replace(oneself("bo"), account="bo"))


async def test_who_acts_for_the_person_is_left_alone(world: EmbeddedStore, ehr: Caller) -> None:
    await another_proxy(world, ehr)
    await ehr.ask("POST", DISABLE, BECAUSE)
    assert [await works(ehr.portal, one) for one in ("for-ada", "bo")] == [True, True]


async def test_proxies_are_shut_out_of_this_record_alone_when_it_is_said(
    world: EmbeddedStore, ehr: Caller, clock: Clock
) -> None:
    await another_proxy(world, ehr)
    body = parameters(reason_Code="suspected-misuse", include__proxies_Boolean=True)
    found = values(await ehr.ask("POST", DISABLE, body))
    assert found["ended-apps"] == 3
    assert [await works(ehr.portal, one) for one in ("for-ada", "bo")] == [False, True]
    account, relations = await world.get(Account, "bo"), Relations(world, clock)
    assert account is not None
    assert [one.patient for one in await relations.records_of(account)] == ["Patient/bo"]
    await ehr.ask("POST", ENABLE, parameters(reason_Code="resolved"))
    assert len(await relations.records_of(account)) == 2
    assert not await works(ehr.portal, "for-ada")


async def test_a_link_that_nobody_proved_shuts_no_proxies_out(
    world: EmbeddedStore, ehr: Caller
) -> None:
    await another_proxy(world, ehr)
    await ehr.store(a_person("ada", links=["Patient/ada"], assurance="level1"))
    body = parameters(reason_Code="suspected-misuse", include__proxies_Boolean=True)
    await ehr.ask("POST", DISABLE, body)
    assert await works(ehr.portal, "for-ada")


async def test_an_end_opens_the_records_by_itself_and_brings_no_token_back(
    world: EmbeddedStore, ehr: Caller, clock: Clock
) -> None:
    await another_proxy(world, ehr)
    body = parameters(
        reason_Code="identity-doubt",
        until_Instant="2030-03-18T18:00:00Z",
        include__proxies_Boolean=True,
    )
    answer = values(await ehr.ask("POST", DISABLE, body))
    account, relations = await world.get(Account, "ada"), Relations(world, clock)
    assert account is not None
    assert answer["until"] == "2030-03-18T18:00:00.000Z"
    assert len(await relations.records_of(account)) == 1
    clock.advance(2 * 86_400)
    assert len(await relations.records_of(account)) == 3
    friend = await world.get(Account, "bo")
    assert friend is not None
    assert len(await relations.records_of(friend)) == 2
    assert not await works(ehr.portal, "own")
    state = values(await ehr.get("Person/ada/$portal-account"))
    assert state["at-practice"] == "enabled"


@pytest.mark.parametrize(
    "body",
    [
        parameters(reason_Code="because"),
        parameters(reason_Code="other", until_Instant="2020-01-01T00:00:00Z"),
        parameters(reason_Code="other", text_String="x" * 1001),
        parameters(text_String="no reason"),
        parameters(reason_Code="other", until_Instant="tomorrow"),
    ],
)
async def test_what_is_not_understood_closes_nothing(
    world: EmbeddedStore, ehr: Caller, body: Any
) -> None:
    answer = await ehr.ask("POST", DISABLE, body)
    assert answer.status in {400, 422}
    assert await works(ehr.portal, "own")
    assert not await world.every(AccountAtPractice)


async def test_since_when_by_whom_and_why_is_told_to_this_practice_alone(
    world: EmbeddedStore, ehr: Caller, other_ehr: Caller
) -> None:
    assert world is not None
    member = a_member_of_staff()
    assert member.staff is not None
    permissions = frozenset({"view", "revoke"})
    staff = Caller(
        ehr.portal, replace(member, staff=replace(member.staff, permissions=permissions))
    )
    await staff.ask("POST", DISABLE, BECAUSE)
    found = values(await ehr.get("Person/ada/$portal-account"))
    assert (found["status"], found["at-practice"]) == ("enabled", "disabled")
    assert found["said"] == {
        "since": "2030-03-17T17:46:40.000Z",
        "by": "Practitioner/desk",
        "reason": "suspected-misuse",
        "text": "called from two countries",
        "proxies": False,
    }
    there = values(await other_ehr.get("Person/ada/$portal-account"))
    assert there["at-practice"] == "enabled"
    assert "said" not in there


async def test_the_owner_is_told_once_and_of_the_opening_too(
    world: EmbeddedStore, ehr: Caller
) -> None:
    for _ in range(2):
        assert (await ehr.ask("POST", DISABLE, BECAUSE)).status == 200
    opened = parameters(reason_Code="resolved")
    for _ in range(2):
        assert values(await ehr.ask("POST", ENABLE, opened))["status"] == "enabled"
    told = [(one.template, one.to, one.practice) for one in await outbox(world)]
    assert sorted(told) == [
        ("security-disabled-at-practice", "account:ada", DERM),
        ("security-enabled-at-practice", "account:ada", DERM),
    ]


async def test_said_again_it_stays_closed_since_the_first_time(
    world: EmbeddedStore, ehr: Caller, clock: Clock
) -> None:
    assert world is not None
    first = values(await ehr.ask("POST", DISABLE, BECAUSE))
    clock.advance(60)
    again = values(await ehr.ask("POST", DISABLE, parameters(reason_Code="deceased")))
    assert again["since"] == first["since"]
    assert again["ended-apps"] == 0
    found = values(await ehr.get("Person/ada/$portal-account"))
    assert found["said"]["reason"] == "deceased"


async def test_opening_needs_a_client_that_may_write_grants(
    world: EmbeddedStore, ehr: Caller
) -> None:
    assert world is not None
    weak = Caller(ehr.portal, an_ehr(DERM, "label"))
    assert (await weak.ask("POST", DISABLE, BECAUSE)).status == 200
    assert (await weak.ask("POST", ENABLE, parameters(reason_Code="resolved"))).status == 403
    assert not await works(ehr.portal, "own")


async def test_another_practice_closes_and_opens_nothing_here(
    world: EmbeddedStore, ehr: Caller, other_ehr: Caller
) -> None:
    await other_ehr.ask("POST", DISABLE, BECAUSE)
    assert [await works(ehr.portal, one) for one in ("own", "elsewhere")] == [True, False]
    await ehr.ask("POST", DISABLE, BECAUSE)
    await other_ehr.ask("POST", ENABLE, parameters(reason_Code="resolved"))
    assert (await world.get(AccountAtPractice, f"{DERM}/ada")).state == "disabled"  # type: ignore[union-attr]


async def test_what_an_operator_shut_is_not_opened_by_a_practice(
    world: EmbeddedStore, ehr: Caller
) -> None:
    account = an_account("ada", f"{DERM}/Person/ada", f"{FAMILY}/Person/ada", disabled=True)
    await keep(world, account)
    answer = values(await ehr.ask("POST", ENABLE, parameters(reason_Code="resolved")))
    assert answer["status"] == "disabled"
    assert (await world.get(Account, "ada")).disabled  # type: ignore[union-attr]


async def test_a_person_without_an_account_has_nothing_to_close(
    world: EmbeddedStore, ehr: Caller
) -> None:
    assert world is not None
    await ehr.store(a_person("nobody", links=["Patient/bo"]))
    assert (await ehr.ask("POST", "Person/nobody/$account-disable", BECAUSE)).status == 422


def test_the_reasons_are_those_of_the_guide() -> None:
    assert {"suspected-misuse", "deceased", "resolved", "other"} < set(account_reasons())


# ---------------------------------------------------------------- in whose log it is


async def test_those_she_acts_for_find_that_an_access_ended_or_began_and_not_whose(
    world: EmbeddedStore, ehr: Caller
) -> None:
    """Ada's own record tells all of it; Kit's that the practice did something about it."""
    assert world is not None
    await ehr.ask("POST", DISABLE, BECAUSE)
    await ehr.ask("POST", ENABLE, parameters(reason_Code="resolved"))
    renewal = parameters(reason_Code="staff-request")
    await ehr.ask("POST", "Person/ada/$require-credential-renewal", renewal)
    both = ["account-enable", "account-disable"]
    for patient, expected in (
        ("ada", ["require-credential-renewal", *both]),
        ("kit", both),
        ("bo", []),
    ):
        events = (await Caller(ehr.portal, oneself(patient)).get("AuditEvent")).entries
        called = [one for one in events if one["subtype"][0]["code"] == "operation"]
        assert [one["subtype"][1]["code"] for one in called] == expected
        assert ("Person/ada" in str(called)) == (patient == "ada")
