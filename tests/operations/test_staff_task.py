"""The Tasks of what staff have to see to: what they hold, who sees them, who may complete them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import msgspec
import pytest

from fhir_portal.accounts.account import AccountPerson
from fhir_portal.accounts.levels import PERMISSIONS
from fhir_portal.accounts.matter import About, Candidate, StaffMatter, matter_key
from fhir_portal.consent.labels import FOR_STAFF, PORTAL_TAG
from fhir_portal.notify.matters import QueuedMatters
from fhir_portal.operations.staff_task import PROFILE, STRANGERS_A_NETWORK, STRANGERS_AN_HOUR, WORDS
from fhir_portal.portal import Portal
from fhir_portal.resources.task import SHOWN_TO
from tests.builders import (
    DERM,
    FAMILY,
    START,
    Answer,
    Caller,
    Clock,
    a_person,
    a_proxy,
    an_account,
    an_ehr,
    keep,
    oneself,
)
from tests.matters import open_matters, tasks_made
from tests.operations.invitations import call, invited, staff

pytestmark = pytest.mark.usefixtures("practice")

REASONS: dict[About, str] = {
    "recovery-help": "locked",
    "activation-help": "near-miss",
    "undelivered-message": "bounced",
    "payment-mismatch": "other-amount",
    "overlapping-appointments": "calendar-changed",
}


def a_matter(about: About = "recovery-help", practice: str = DERM, **more: Any) -> StaffMatter:
    given: dict[str, Any] = {"reason": REASONS[about], "since": START, "latest": START} | more
    return StaffMatter(
        key=matter_key(practice, about, "x"),
        practice=practice,
        about=about,
        expires=START + 9e6,
        **given,
    )


async def noted(portal: Portal, *matters: StaffMatter) -> None:
    """Note them when they are, and do the jobs."""
    clock: Any = portal.server.clock
    clock.advance(max(one.latest for one in matters) - clock())

    async def work(transaction: Any) -> None:
        for one in matters:
            await QueuedMatters().note(transaction, one)

    await portal.server.store.transact(work)
    await tasks_made(portal)


async def done(caller: Caller, task: str, **given: Any) -> Answer:
    return await call(caller, f"Task/{task}", "task-done", **given)


async def tasks(ehr: Caller, status: str = "requested") -> list[dict[str, Any]]:
    return (await ehr.get(f"Task?status={status}")).entries


@pytest.fixture
def desk(portal: Portal) -> Caller:
    return staff(portal, *PERMISSIONS)


# ---------------------------------------------------------------- what it holds


@pytest.mark.requirement("portal", "S0-53", "S2-17")
async def test_it_says_what_and_why_and_nothing_that_identifies(
    ehr: Caller, portal: Portal
) -> None:
    """Neither the account nor the address nor what was typed is in it, in any version."""
    await ehr.store(a_person("bo", links=["Patient/bo"]))
    await keep(
        portal.server.store,
        an_account("canary-account", f"{DERM}/Person/bo"),
        AccountPerson(key=f"{DERM}/Person/bo", account="canary-account"),
    )
    for about in SHOWN_TO:
        matter = a_matter(
            about,
            accounts=("canary-account",),
            contact="canary-contact",
            typed={"last": "canary-name"},
            candidates=(Candidate("Patient/canary", 50, ("canary-reason",)),),
        )
        await noted(portal, matter, matter)
    found = await tasks(ehr)
    assert len(found) == len(SHOWN_TO)
    for one in found:
        about = one["code"]["coding"][0]["code"]
        assert one["meta"]["profile"] == [PROFILE]
        assert one["meta"]["tag"] == [{"system": PORTAL_TAG, "code": FOR_STAFF[SHOWN_TO[about]]}]
        assert one["reasonCode"]["coding"][0]["code"] == REASONS[about]
        assert one["description"].startswith(WORDS[about, REASONS[about]])
        assert one["owner"] == {"reference": "Organization/derm"}
        assert one["for"] == {"reference": "Patient/bo"}
        history = repr((await ehr.get(f"Task/{one['id']}/_history")).json)
        assert "canary" not in history


async def test_of_an_invitation_it_names_the_invitation_and_its_one_patient(
    ehr: Caller, portal: Portal, desk: Caller
) -> None:
    task = (await invited(desk, "bo", channel="desk"))["invitation"]
    await noted(portal, a_matter("activation-help", invitation=f"{DERM}/{task}"))
    (found,) = await tasks(ehr, "requested&code=activation-help")
    assert (found["focus"]["reference"], found["for"]["reference"]) == (task, "Patient/bo")


@pytest.mark.parametrize("known", [(), ("gone",), ("one", "two")])
async def test_without_one_patient_it_is_for_nobody(
    ehr: Caller, portal: Portal, known: tuple[str, ...]
) -> None:
    for name, own in (("one", "bo"), ("two", "cy")):
        await ehr.store(a_person(own, links=[f"Patient/{own}"]))
        await keep(portal.server.store, an_account(name, f"{DERM}/Person/{own}"))
    await noted(portal, a_matter(accounts=known))
    (found,) = await tasks(ehr)
    assert "for" not in found


async def test_a_patient_who_is_gone_or_of_another_practice_is_not_named(
    ehr: Caller, portal: Portal
) -> None:
    await noted(portal, a_matter(patient="Patient/nobody"))
    (found,) = await tasks(ehr)
    assert "for" not in found


async def test_what_is_nobodys_has_no_task(ehr: Caller, portal: Portal) -> None:
    await noted(portal, a_matter(practice=""), a_matter(practice="closed-down"))
    assert await tasks(ehr) == []


@pytest.mark.parametrize(("about", "reason"), sorted(WORDS))
async def test_each_reason_makes_a_task_of_the_profile(
    ehr: Caller, portal: Portal, about: About, reason: str
) -> None:
    await noted(portal, a_matter(about, reason=reason))
    (found,) = await tasks(ehr)
    assert found["reasonCode"]["coding"][0]["code"] == reason


# ---------------------------------------------------------------- one matter, one Task


async def test_the_same_once_more_is_the_same_task(ehr: Caller, portal: Portal) -> None:
    await noted(portal, a_matter())
    await noted(portal, a_matter(latest=START + 60, reason="unverified-contact"))
    (found,) = await tasks(ehr)
    assert found["reasonCode"]["coding"][0]["code"] == "unverified-contact"
    assert found["description"] == "No contact of the account was proved; 2 times."


async def test_whoever_got_in_meanwhile_needs_nobody(ehr: Caller, portal: Portal) -> None:
    matter = a_matter()
    await noted(portal, matter)
    store = portal.server.store
    await store.transact(lambda one: QueuedMatters().settle(one, matter.key, now=START))
    await tasks_made(portal)
    (found,) = await tasks(ehr, "completed")
    assert found["statusReason"] == {"text": "they need no help any more"}
    await noted(portal, a_matter(since=START + 90, latest=START + 90))
    (again,) = await tasks(ehr)
    assert again["id"] != found["id"]


async def test_settled_before_its_task_was_made_it_has_none(ehr: Caller, portal: Portal) -> None:
    async def work(transaction: Any) -> None:
        await QueuedMatters().note(transaction, a_matter())
        await QueuedMatters().settle(transaction, a_matter().key, now=START)
        await QueuedMatters().settle(transaction, "never/there", now=START)

    await portal.server.store.transact(work)
    assert await tasks_made(portal) == 3
    assert (await ehr.get("Task")).entries == []


async def test_an_ehr_moves_it_on_and_completes_it(ehr: Caller, portal: Portal) -> None:
    """It is in the feed; a client that may not label changes it; the same again is a new one."""
    await noted(portal, a_matter())
    feed = (await ehr.get("_history?_count=500")).json["entry"]
    listed = [one["resource"] for one in feed if "/Task/" in one["fullUrl"]]
    assert [one["code"]["coding"][0]["code"] for one in listed] == ["recovery-help"]
    plain = Caller(portal, an_ehr(DERM, "none"))
    (found,) = await tasks(plain)
    assert (await plain.put({**found, "status": "in-progress"})).status == 200
    await noted(portal, a_matter(latest=START + 60))
    (moved,) = await tasks(plain, "in-progress")
    assert moved["id"] == found["id"]
    assert (await plain.put({**moved, "status": "completed"})).status == 200
    await noted(portal, a_matter(latest=START + 90))
    (again,) = await tasks(plain)
    assert again["id"] != found["id"]
    assert "times" not in again["description"]


# ---------------------------------------------------------------- who sees it


@pytest.mark.parametrize("permission", ["invite", "recover"])
async def test_staff_see_what_their_level_is_for(
    ehr: Caller, portal: Portal, permission: Any
) -> None:
    """By read, search, version, history and operation alike; the rest is as if it were not."""
    await noted(portal, *(a_matter(about) for about in SHOWN_TO))
    member = staff(portal, "view", permission)
    for one in await tasks(ehr):
        about = one["code"]["coding"][0]["code"]
        may = SHOWN_TO[about] == permission
        task = one["id"]
        for url in (f"Task/{task}", f"Task/{task}/_history/1", f"Task/{task}/_history"):
            assert (await member.get(url)).status == (200 if may else 404), url
        assert (await done(member, task)).status == (200 if may else 404)
    listed = {one["code"]["coding"][0]["code"] for one in await tasks(member, "completed")}
    assert listed == {about for about, needed in SHOWN_TO.items() if needed == permission}


async def test_who_may_only_view_sees_none_and_completes_none(ehr: Caller, portal: Portal) -> None:
    await noted(portal, *(a_matter(about) for about in SHOWN_TO))
    viewer = staff(portal, "view")
    assert (await viewer.get("Task")).entries == []
    for one in await tasks(ehr):
        assert (await done(viewer, one["id"])).status == 404
    member = staff(portal, "invite", "recover")
    assert member.auth.staff is not None
    blind = replace(member.auth.staff, permissions=frozenset({"invite", "recover"}))
    without_view = member.who(staff=blind)
    for one in await tasks(ehr):
        assert (await done(without_view, one["id"])).status == 403


@pytest.mark.parametrize("who", [oneself("bo"), a_proxy("bo", sections=("messages", "forms"))])
async def test_neither_the_patient_nor_a_proxy_learns_of_it(
    ehr: Caller, portal: Portal, who: Any
) -> None:
    await noted(portal, *(a_matter(about, patient="Patient/bo") for about in SHOWN_TO))
    caller = Caller(portal, who)
    assert (await caller.get("Task")).entries == []
    for one in await tasks(ehr):
        assert one["for"] == {"reference": "Patient/bo"}
        assert (await caller.get(f"Task/{one['id']}")).status == 404
        assert (await done(caller, one["id"])).status == 403
    assert len(await tasks(ehr)) == len(SHOWN_TO)


async def moved_on(ehr: Caller, found: dict[str, Any], **more: Any) -> None:
    """An EHR that labels writes it with a tag of its own."""
    meta = {"tag": [{"system": "urn:ehr", "code": "synced"}]}
    assert (await ehr.put({**found, "meta": meta, **more})).status == 200


@pytest.mark.parametrize("code", [None, {"text": "call back"}])
async def test_no_client_takes_the_tag_away_that_hides_it(
    ehr: Caller, portal: Portal, code: Any
) -> None:
    """Nor with another code; the client's own tags stay."""
    await noted(portal, a_matter(patient="Patient/bo"))
    (found,) = await tasks(ehr)
    await moved_on(ehr, found, status="in-progress", **({"code": code} if code else {}))
    for caller in (Caller(portal, oneself("bo")), staff(portal, "view", "invite")):
        for url in (f"Task/{found['id']}", f"Task/{found['id']}/_history/2"):
            assert (await caller.get(url)).status == 404
        assert (await caller.get("Task?status=in-progress")).entries == []
    kept = (await ehr.get(f"Task/{found['id']}")).json["meta"]["tag"]
    assert [one["code"] for one in kept] == ["synced", "staff-recover"]
    listed = await ehr.get(f"Task?_tag={PORTAL_TAG}|staff-recover")
    assert [one["id"] for one in listed.entries] == [found["id"]]


@pytest.mark.parametrize("way", ["completed", "cancelled", "entered-in-error", "deleted", "other"])
async def test_what_was_typed_goes_when_an_ehr_saw_to_it(
    ehr: Caller, portal: Portal, way: str
) -> None:
    """By whatever status that is not open, with another code, or by deleting the Task."""
    near = (Candidate("Patient/bo", 50, ("birth date",)),)
    await noted(portal, a_matter("activation-help", typed={"last": "Reed"}, candidates=near))
    (found,) = await tasks(ehr)
    if way == "deleted":
        await ehr.ask("DELETE", f"Task/{found['id']}")
    elif way == "other":
        await moved_on(ehr, found, status="completed", code={"text": "done"})
    else:
        await moved_on(ehr, found, status=way)
    (kept,) = await portal.server.store.every(StaffMatter)
    assert (kept.typed, kept.candidates, kept.settled) == ({}, (), portal.server.clock())


async def test_of_another_practice_there_is_none(
    ehr: Caller, other_ehr: Caller, portal: Portal
) -> None:
    await noted(portal, a_matter())
    (found,) = await tasks(ehr)
    elsewhere = staff(portal, *PERMISSIONS, practice=FAMILY)
    for caller in (other_ehr, elsewhere):
        assert (await caller.get(f"Task/{found['id']}")).status == 404
        assert (await done(caller, found["id"])).status == 404
    assert len(await tasks(ehr)) == 1


async def test_staff_bound_to_another_record_do_not_see_it(ehr: Caller, portal: Portal) -> None:
    await noted(portal, a_matter(patient="Patient/bo"))
    (found,) = await tasks(ehr)
    for patient, status in (("bo", 200), ("cy", 404)):
        bound = staff(portal, *PERMISSIONS, patient=patient)
        assert (await bound.get(f"Task/{found['id']}")).status == status


async def test_its_line_in_the_log_is_not_for_the_patient(
    ehr: Caller, portal: Portal, desk: Caller
) -> None:
    await noted(portal, a_matter(patient="Patient/bo"))
    (found,) = await tasks(ehr)
    assert (await done(desk, found["id"])).status == 200
    rows = await portal.server.log.of_record(
        DERM, "bo", agent=None, told=False, low=0, high=2**62, before=None, limit=50
    )
    (row,) = [one.row for one in rows if one.row.interaction == "$task-done"]
    assert (row.what, row.told) == (f"Task/{found['id']}", False)


# ---------------------------------------------------------------- completing it


async def test_whoever_saw_to_it_is_named(
    ehr: Caller, portal: Portal, desk: Caller, clock: Clock
) -> None:
    await noted(portal, a_matter())
    (found,) = await tasks(ehr)
    for reason in ("called them", "once more"):
        answer = await done(desk, found["id"], reason=reason)
        assert answer.json["parameter"][1]["valueCode"] == "completed"
    (over,) = await tasks(ehr, "completed")
    assert over["statusReason"] == {"text": "called them"}
    assert over["owner"] == {"reference": desk.auth.fhir_user}
    assert "end" in over["executionPeriod"]
    assert await open_matters(portal.server.store) == []
    clock.advance(60)
    await noted(portal, a_matter(latest=clock()))
    assert len(await tasks(ehr)) == 1


async def test_a_task_of_another_kind_is_not_done_this_way(ehr: Caller, desk: Caller) -> None:
    task = (await invited(desk, "bo", channel="desk"))["invitation"].partition("/")[2]
    assert (await done(desk, task)).status == 422
    assert (await ehr.get(f"Task/{task}")).json["status"] == "received"


async def test_what_was_typed_is_gone_when_somebody_has_seen_to_it(
    ehr: Caller, portal: Portal, desk: Caller
) -> None:
    near = (Candidate("Patient/bo", 50, ("birth date",)),)
    await noted(portal, a_matter("activation-help", typed={"last": "Reed"}, candidates=near))
    (found,) = await tasks(ehr)
    assert (await done(desk, found["id"])).status == 200
    (kept,) = await portal.server.store.every(StaffMatter)
    assert (kept.typed, kept.candidates) == ({}, ())


async def test_whatever_tag_an_ehr_sends_it_is_completed_by_nobody_else(
    ehr: Caller, portal: Portal
) -> None:
    await noted(portal, a_matter())
    (found,) = await tasks(ehr)
    bare = {**found, "meta": {"tag": [{"system": "urn:x", "code": "x"}]}}
    assert (await ehr.put(bare)).status == 200
    viewer = staff(portal, "invite")
    assert (await done(viewer, found["id"])).status == 404
    assert len(await tasks(ehr)) == 1


async def test_one_network_of_strangers_uses_up_nothing_of_another(
    ehr: Caller, portal: Portal, clock: Clock
) -> None:
    many = [
        msgspec.structs.replace(a_matter("activation-help", network="a"), key=f"{DERM}/{number}")
        for number in range(STRANGERS_AN_HOUR + 5)
    ]
    await noted(portal, *many)
    assert len(await tasks(ehr)) == STRANGERS_A_NETWORK
    for network in "bcdef":
        few = [
            msgspec.structs.replace(one, key=f"{one.key}/{network}", network=network)
            for one in many[: STRANGERS_A_NETWORK + 1]
        ]
        await noted(portal, *few)
    found = (await ehr.get("Task?status=requested&_count=200")).entries
    assert len(found) == STRANGERS_AN_HOUR == 6 * STRANGERS_A_NETWORK
    clock.advance(3600)
    await noted(portal, msgspec.structs.replace(many[0], latest=clock(), key=f"{DERM}/again"))
    assert len((await ehr.get("Task?status=requested&_count=200")).entries) == len(found) + 1


async def test_strangers_fill_no_feed(ehr: Caller, portal: Portal, clock: Clock) -> None:
    """Beyond sixty an hour they have no Task; who was invited, or fits a record, has one still."""
    many = [
        msgspec.structs.replace(a_matter("activation-help"), key=f"{DERM}/{number}")
        for number in range(STRANGERS_AN_HOUR + 5)
    ]
    await noted(portal, *many)
    assert len((await ehr.get("Task?status=requested&_count=200")).entries) == STRANGERS_AN_HOUR
    await noted(portal, a_matter("activation-help", patient="Patient/bo"))
    clock.advance(3600)
    await noted(portal, msgspec.structs.replace(many[-1], latest=clock()))
    assert len((await ehr.get("Task?status=requested&_count=200")).entries) == STRANGERS_AN_HOUR + 2
