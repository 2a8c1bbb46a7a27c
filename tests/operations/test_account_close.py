"""``$account-close``: the portal ends for somebody at one practice, and the history stays."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from fhir_portal.access.relation import Relations
from fhir_portal.accounts.account import Account, AccountPerson, account_of_person
from fhir_portal.accounts.assisted_recovery import AssistedRecovery
from fhir_portal.accounts.at_practice import AccountAtPractice, ClosedPerson
from fhir_portal.accounts.sessions import Session
from fhir_portal.consent.grant import Grant
from fhir_portal.embedded.store import EmbeddedStore
from fhir_portal.notify.jobs import work_off
from fhir_portal.notify.outbox import OutboxMessage
from fhir_portal.operations.account_close import WARNING
from fhir_portal.operations.invitation_jobs import invitation_jobs
from fhir_portal.operations.no_more_invitations import NoMoreInvitations
from fhir_portal.portal import Portal
from fhir_portal.smart.code import AuthorizationCode
from fhir_portal.smart.token import TokenFamily
from tests.builders import (
    DERM,
    FAMILY,
    START,
    Caller,
    Clock,
    a_grant,
    a_person,
    a_proxy,
    a_related_person,
    an_account,
    an_ehr,
    assert_outcome,
    changed,
    keep,
    oneself,
)
from tests.operations.holding import a_code, a_session, an_app_of, parameters, values, works
from tests.operations.invitations import call, invite, invited, staff, the_invitation
from tests.staff import a_member_of_staff

CLOSE = "Person/ada/$account-close"
BECAUSE = parameters(reason_Code="left-practice", text_String="moved away")

pytestmark = pytest.mark.requirement("portal", "S4-16")


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


@pytest.fixture
def desk(portal: Portal) -> Caller:
    return staff(portal, "invite", "proxies", "revoke")


async def told(store: EmbeddedStore) -> list[tuple[str, str]]:
    return sorted((one.template, one.to) for one in await store.every(OutboxMessage))


async def stored(store: EmbeddedStore) -> Any:
    """All that is stored, but for the access log and what is only counted."""
    return [
        sorted(map(repr, await store.database.select(f"SELECT * FROM {table}")))
        for table in ("record", "record_field", "resource", "version")
    ]


async def test_what_hangs_from_this_practices_person_ends_and_nothing_else(
    world: EmbeddedStore, ehr: Caller, other_ehr: Caller, clock: Clock
) -> None:
    """Person inactive, links ended, grants inactive, tokens and codes dead; the history is kept."""
    elsewhere = as_ada(oneself("ada-f", FAMILY))
    await keep(
        world,
        a_code("here", as_ada(oneself("ada"))),
        a_code("there", elsewhere),
        a_session("s", "ada"),
    )
    account = await world.get(Account, "ada")
    assert account is not None
    found = values(await ehr.ask("POST", CLOSE, BECAUSE))
    assert found == {
        "status": "closed",
        "since": "2030-03-17T17:46:40.000Z",
        "link": [{"reference": "Patient/ada"}, {"reference": "RelatedPerson/mother"}],
        "grant": {"reference": "Consent/grant"},
        "ended-apps": 2,
        "warning": WARNING,
    }
    person = (await ehr.get("Person/ada")).json
    assert person["active"] is False
    assert "link" not in person
    assert (await ehr.get("Consent/grant")).json["status"] == "inactive"
    assert await world.every(Grant) == []
    assert [await works(ehr.portal, one) for one in ("own", "elsewhere")] == [False, True]
    ended = [one.key for one in await world.every(TokenFamily) if one.ended is not None]
    assert ended == ["family-kit", "family-own"]
    assert [one.key for one in await world.every(AuthorizationCode)] == ["there"]
    # The sign-in, its session and what another practice knows stay.
    left = await world.get(Account, "ada")
    assert left is not None
    assert left.persons == (f"{FAMILY}/Person/ada",)
    assert await account_of_person(world, f"{DERM}/Person/ada") is None
    assert await world.get(Session, "s") is not None
    records = await Relations(world, clock).records_of(left)
    assert [(one.practice, one.patient) for one in records] == [(FAMILY, "Patient/ada-f")]
    assert await Relations(world, clock).record_of(account, DERM, "Patient/ada") is None
    there = (await other_ehr.get("Person/ada")).json
    assert there["link"]
    assert there.get("active") is not False
    # The history: every version, and in the log of those whose record it was.
    versions = (await ehr.get("Person/ada/_history")).json["entry"]
    assert versions[-1]["resource"]["link"][0]["target"] == {"reference": "Patient/ada"}
    assert len((await ehr.get("Consent/grant/_history")).json["entry"]) == 2


async def test_who_did_it_and_why_stands_in_a_provenance_and_is_told_to_the_practice(
    world: EmbeddedStore, ehr: Caller, other_ehr: Caller
) -> None:
    assert world is not None
    member = a_member_of_staff(permissions=("administer",))
    assert (await Caller(ehr.portal, member).ask("POST", CLOSE, BECAUSE)).status == 200
    found = {one["target"][0]["reference"]: one for one in (await ehr.get("Provenance")).entries}
    assert set(found) == {"Person/ada", "Consent/grant"}
    assert found["Person/ada"]["reason"] == [{"text": "Left the practice: moved away"}]
    assert found["Person/ada"]["agent"][0]["who"] == {"reference": member.fhir_user}
    # Kit's record tells of the grant, and not why Ada left; nobody's record holds the other one.
    assert "moved" not in str(found["Consent/grant"])
    for patient, expected in (("kit", ["Consent/grant"]), ("ada", []), ("bo", [])):
        seen = (await Caller(ehr.portal, oneself(patient)).get("Provenance")).entries
        assert [one["target"][0]["reference"] for one in seen] == expected
    state = values(await ehr.get("Person/ada/$portal-account"))
    assert state["status"] == "closed"
    assert state["said"] == {
        "since": "2030-03-17T17:46:40.000Z",
        "by": member.fhir_user,
        "reason": "left-practice",
        "text": "moved away",
        "proxies": False,
    }
    assert values(await other_ehr.get("Person/ada/$portal-account"))["status"] == "enabled"
    for status, expected in (("closed", ["Person/ada"]), ("enabled", []), ("none", [])):
        page = await ehr.get(f"Person/$portal-accounts?status={status}")
        assert [one for one in ["Person/ada"] if one in page.body.decode()] == expected


async def test_it_is_in_the_log_of_the_person_and_of_those_they_acted_for(
    world: EmbeddedStore, ehr: Caller
) -> None:
    assert world is not None
    await ehr.ask("POST", CLOSE, BECAUSE)
    for patient, expected in (("ada", ["account-close"]), ("kit", ["account-close"]), ("bo", [])):
        events = (await Caller(ehr.portal, oneself(patient)).get("AuditEvent")).entries
        called = [one for one in events if one["subtype"][0]["code"] == "operation"]
        assert [one["subtype"][1]["code"] for one in called] == expected
        assert ("Person/ada" in str(called)) == (patient == "ada")


async def test_the_person_is_told_and_so_is_whoever_they_acted_for(
    world: EmbeddedStore, ehr: Caller
) -> None:
    await ehr.ask("POST", CLOSE, BECAUSE)
    assert await told(world) == [
        ("proxy-ended", f"record:{DERM}/Patient/kit"),
        ("security-closed-at-practice", "account:ada"),
    ]
    (notice,) = [one for one in await world.every(OutboxMessage) if "closed" in one.template]
    assert notice.practice == DERM


async def test_said_again_it_stays_closed_since_the_first_time_and_nobody_is_told_again(
    world: EmbeddedStore, ehr: Caller, clock: Clock
) -> None:
    first = values(await ehr.ask("POST", CLOSE, BECAUSE))
    clock.advance(3600)
    before = await stored(world)
    again = values(await ehr.ask("POST", CLOSE, parameters(reason_Code="deceased")))
    assert again["since"] == first["since"]
    assert (again["ended-apps"], "grant" in again, "link" in again) == (0, False, False)
    assert await stored(world) == before


async def test_a_preview_says_what_would_end_and_changes_nothing(
    world: EmbeddedStore, ehr: Caller, portal: Portal
) -> None:
    await ehr.store(a_related_person("aunt", of="bo"))
    await ehr.store(a_person("bo", links=["RelatedPerson/aunt"]))
    await keep(
        world,
        an_account("bo", f"{DERM}/Person/bo"),
        AccountPerson(key=f"{DERM}/Person/bo", account="bo"),
        a_session("s", "bo"),
        a_session("over", "bo", expires=START - 1),
    )
    before = await stored(world)
    asked = parameters(reason_Code="other", preview_Boolean=True)
    member = Caller(portal, a_member_of_staff(permissions=("administer",)))
    found = values(await member.ask("POST", CLOSE, asked))
    assert found["status"] == "open"
    assert "since" not in found
    assert found["grant"] == {"reference": "Consent/grant"}
    assert found["ended-apps"] == 2
    found = values(await member.ask("POST", "Person/bo/$account-close", asked))
    assert found["ended-apps"] == 0
    assert await stored(world) == before


async def test_the_answer_does_not_tell_whether_somebody_is_known_elsewhere(
    world: EmbeddedStore, ehr: Caller
) -> None:
    """Ada is known at another practice, too, so that her sign-in stays; of Bo's nothing does."""
    await ehr.store(
        a_person("bo", links=["Patient/bo"]),
        a_person("ada", links=["Patient/ada"]),
    )
    await keep(
        world,
        an_account("bo", f"{DERM}/Person/bo"),
        AccountPerson(key=f"{DERM}/Person/bo", account="bo"),
        a_session("s", "bo"),
        a_session("t", "ada"),
    )
    for asked in (parameters(reason_Code="other", preview_Boolean=True), BECAUSE):
        both = [
            values(await ehr.ask("POST", f"Person/{one}/$account-close", asked))
            for one in ("bo", "ada")
        ]
        assert both[0].keys() == both[1].keys()
        assert not any("session" in name for name in both[0])
    assert await world.get(Session, "s") is None
    assert await world.get(Session, "t") is not None


async def test_sessions_and_help_back_in_end_where_the_account_is_known_here_alone(
    world: EmbeddedStore, ehr: Caller
) -> None:
    await ehr.store(a_person("bo", links=["Patient/bo"]))
    recovery = AssistedRecovery(
        key="r",
        expires=START + 1000,
        account="bo",
        practice=DERM,
        code="x",
        by="desk",
        basis="photo-id",
        started=START,
        opens_at=START,
        half="contact",
        needs_approval=False,
        removes_second=False,
    )
    await keep(
        world,
        an_account("bo", f"{DERM}/Person/bo"),
        AccountPerson(key=f"{DERM}/Person/bo", account="bo"),
        a_session("s", "bo"),
        recovery,
        replace_key(recovery, "other", practice=FAMILY),
    )
    found = values(await ehr.ask("POST", "Person/bo/$account-close", BECAUSE))
    assert found["ended-apps"] == 0
    assert await world.get(Session, "s") is None
    assert [one.key for one in await world.every(AssistedRecovery)] == ["other"]
    assert (await world.get(Account, "bo")).persons == ()  # type: ignore[union-attr]
    # The practice has no hold on the account any more.
    again = parameters(reason_Code="staff-request")
    for operation in ("$require-credential-renewal", "$end-session", "$account-disable"):
        body = parameters(all_Boolean=True) if operation == "$end-session" else again
        body = BECAUSE if operation == "$account-disable" else body
        answer = await ehr.ask("POST", f"Person/bo/{operation}", body)
        assert answer.status == 422, operation


def replace_key(record: Any, key: str, **more: Any) -> Any:
    return type(record)(
        **{name: getattr(record, name) for name in record.__struct_fields__} | {"key": key} | more
    )


async def test_a_grant_that_another_account_uses_stays(world: EmbeddedStore, ehr: Caller) -> None:
    """Two Persons of one RelatedPerson: what one account holds is not ended with the other."""
    await ehr.store(a_person("twin", links=["RelatedPerson/mother"]))
    await keep(
        world,
        an_account("twin", f"{DERM}/Person/twin"),
        AccountPerson(key=f"{DERM}/Person/twin", account="twin"),
    )
    assert "grant" not in values(await ehr.ask("POST", CLOSE, BECAUSE))
    assert (await ehr.get("Consent/grant")).json["status"] == "active"


async def test_a_link_that_nobody_proved_ends_no_grant_and_bars_nobody(
    world: EmbeddedStore, ehr: Caller
) -> None:
    """A Person that only claims to be somebody takes nothing from them."""
    await ehr.store(
        a_person("claims", links=["Patient/ada", "RelatedPerson/mother"], assurance="level1")
    )
    found = values(await ehr.ask("POST", "Person/claims/$account-close", BECAUSE))
    assert "grant" not in found
    assert await works(ehr.portal, "own")
    assert [one.key for one in await world.every(Grant)] == [f"{DERM}/grant"]
    assert await world.every(NoMoreInvitations) == []


async def test_grants_of_others_on_the_persons_own_record_stay(
    world: EmbeddedStore, ehr: Caller
) -> None:
    await ehr.store(
        a_related_person("friend", of="ada"),
        a_grant("for-bo", of="ada", to="friend"),
    )
    await ehr.ask("POST", CLOSE, BECAUSE)
    assert [one.key for one in await world.every(Grant)] == [f"{DERM}/for-bo"]


async def test_invitations_by_which_they_could_come_back_are_taken_back(
    world: EmbeddedStore, ehr: Caller, desk: Caller, clock: Clock
) -> None:
    """A live one, and one that expired but whose link would still bring a new one."""
    await ehr.store(a_person("bo", links=["Patient/bo", "RelatedPerson/aunt"]))
    await ehr.store(a_related_person("aunt", of="kit"))
    old = await invited(
        desk, "kit", kind="caregiver", basis="consent-form", channel="desk", lifetime_hours=1,
        related_person="RelatedPerson/aunt",
    )  # fmt: skip
    clock.advance(2 * 3600)
    jobs = invitation_jobs(ehr.portal.server, ehr.portal.collaborators)
    assert await work_off(world, jobs, worker="w", clock=clock) == 1
    assert (await the_invitation(world, old["invitation"])).state == "expired"
    live = await invited(desk, "bo", channel="desk")
    other = await invited(desk, "kit", kind="caregiver", basis="consent-form", channel="desk",
                          name={"family": "Else"}, relationship={"text": "friend"})  # fmt: skip
    found = values(await ehr.ask("POST", "Person/bo/$account-close", BECAUSE))
    assert sorted(one["reference"] for one in found["invitation"]) == sorted(
        (old["invitation"], live["invitation"])
    )
    for one in (old, live):
        assert (await the_invitation(world, one["invitation"])).state == "revoked"
        task = (await ehr.get(one["invitation"])).json
        assert task["status"] == "cancelled"
        assert "moved" not in str(task)
    (grant,) = old["grant"]
    assert (await ehr.get(grant)).json["status"] == "rejected"
    assert (await the_invitation(world, other["invitation"])).state == "delivered"


async def test_what_a_colleague_has_not_confirmed_yet_is_never_confirmed(
    world: EmbeddedStore, ehr: Caller, desk: Caller
) -> None:
    """Ada used an invitation to act for Bo, which waits; whatever she is called there."""
    made = await invited(
        desk, "bo", kind="caregiver", basis="consent-form", channel="desk",
        name={"family": "Quill"}, relationship={"text": "friend"},
    )  # fmt: skip
    waits = await the_invitation(world, made["invitation"])
    await keep(world, changed(waits, state="awaiting", redeemed_by="ada"))
    found = values(await ehr.ask("POST", CLOSE, BECAUSE))
    assert found["invitation"] == {"reference": made["invitation"]}
    assert (await the_invitation(world, made["invitation"])).state == "revoked"
    (grant,) = made["grant"]
    assert (await ehr.get(grant)).json["status"] == "rejected"


async def test_inviting_again_is_said_on_purpose_and_no_event_does_it(
    world: EmbeddedStore, ehr: Caller, desk: Caller
) -> None:
    await ehr.ask("POST", CLOSE, BECAUSE)
    answer = await invite(desk, "ada", channel="desk")
    assert_outcome(answer, 409, "conflict")
    assert "the portal was ended for this person" in answer.body.decode()
    made = await invited(desk, "ada", channel="desk", force=True)
    # Taken back, it leaves no door open: the next one is said on purpose, too.
    assert (await call(desk, made["invitation"], "invite-revoke", reason="x")).status == 200
    assert await world.get(NoMoreInvitations, f"{DERM}/Patient/ada") is not None
    assert_outcome(await invite(desk, "ada", channel="desk"), 409, "conflict")


async def test_what_the_practice_had_shut_does_not_open_by_it(
    world: EmbeddedStore, ehr: Caller
) -> None:
    """The account stays disabled: who is in it again by an invitation, sees nothing yet."""
    await ehr.ask("POST", "Person/ada/$account-disable", parameters(reason_Code="identity-doubt"))
    assert (await ehr.ask("POST", CLOSE, BECAUSE)).status == 200
    assert (await world.get(AccountAtPractice, f"{DERM}/ada")).state == "disabled"  # type: ignore[union-attr]


async def test_while_proxies_are_shut_out_with_the_account_it_is_not_closed(
    world: EmbeddedStore, ehr: Caller
) -> None:
    """Nobody could let them in again, or knows that they should not be."""
    shut = parameters(reason_Code="suspected-misuse", include__proxies_Boolean=True)
    await ehr.ask("POST", "Person/ada/$account-disable", shut)
    assert_outcome(await ehr.ask("POST", CLOSE, BECAUSE), 409, "conflict")
    await ehr.ask("POST", "Person/ada/$account-disable", parameters(reason_Code="other"))
    assert (await ehr.ask("POST", CLOSE, BECAUSE)).status == 200
    assert [one.key for one in await world.every(ClosedPerson)] == [f"{DERM}/Person/ada"]


async def test_a_person_without_an_account_is_closed_too(world: EmbeddedStore, ehr: Caller) -> None:
    await ehr.store(a_person("cy", links=["Patient/bo"]))
    assert values(await ehr.ask("POST", "Person/cy/$account-close", BECAUSE))["ended-apps"] == 0
    assert (await ehr.get("Person/cy")).json["active"] is False
    assert await told(world) == []


async def test_an_ehr_that_uses_the_person_again_opens_nothing_by_it(
    world: EmbeddedStore, ehr: Caller, clock: Clock
) -> None:
    await ehr.ask("POST", CLOSE, BECAUSE)
    await ehr.store(a_person("ada", links=["Patient/ada", "RelatedPerson/mother"]))
    account = await world.get(Account, "ada")
    assert account is not None
    records = await Relations(world, clock).records_of(account)
    assert [one.practice for one in records] == [FAMILY]
    assert not await works(ehr.portal, "own")
    assert values(await ehr.get("Person/ada/$portal-account"))["status"] == "none"


@pytest.mark.parametrize(
    "body",
    [
        parameters(reason_Code="because"),
        parameters(text_String="no reason"),
        parameters(reason_Code="other", text_String="x" * 1001),
    ],
)
async def test_what_is_not_understood_ends_nothing(
    world: EmbeddedStore, ehr: Caller, body: Any
) -> None:
    before = await stored(world)
    assert (await ehr.ask("POST", CLOSE, body)).status in {400, 422}
    assert await stored(world) == before


@pytest.mark.parametrize(
    "permissions",
    [("view", "revoke", "proxies", "invite", "recover"), ()],
)
async def test_staff_without_the_permission_end_nothing(
    world: EmbeddedStore, portal: Portal, permissions: Any
) -> None:
    member = Caller(portal, a_member_of_staff(permissions=permissions))
    for body in (BECAUSE, parameters(reason_Code="other", preview_Boolean=True)):
        assert (await member.ask("POST", CLOSE, body)).status == 403
    assert await works(portal, "own")
    assert await world.every(ClosedPerson) == []


async def test_neither_does_an_ehr_that_may_not_write_grants_nor_another_practice(
    world: EmbeddedStore, ehr: Caller, other_ehr: Caller
) -> None:
    weak = Caller(ehr.portal, an_ehr(DERM, "label"))
    assert (await weak.ask("POST", CLOSE, BECAUSE)).status == 403
    assert (await other_ehr.ask("POST", CLOSE, BECAUSE)).status == 200  # its own Person/ada
    assert [await works(ehr.portal, one) for one in ("own", "elsewhere")] == [True, False]
    assert (await ehr.get("Person/ada")).json["link"]
    left = await world.get(Account, "ada")
    assert left is not None
    assert left.persons == (f"{DERM}/Person/ada",)
