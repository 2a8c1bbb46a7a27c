"""What an access level opens, and that a change of it bites on the next request everywhere."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from fhir_portal.access.authenticate import Callers
from fhir_portal.access.context import AuthContext
from fhir_portal.access.owners import OF_STAFF
from fhir_portal.access.policy import Ask, Deny, Permit, decide
from fhir_portal.access.relation import Relations, works
from fhir_portal.access.visibility import VisibilityClass
from fhir_portal.accounts.account import Account
from fhir_portal.accounts.level_changes import Edit, change_levels, remove_level
from fhir_portal.accounts.levels import OPERATOR, PERMISSIONS, AccessLevel, Permission
from fhir_portal.accounts.staff import set_level
from fhir_portal.consent.labels import FOR_STAFF, WITHHELD
from fhir_portal.embedded.store import EmbeddedStore
from fhir_portal.fhir.definitions import served_types
from fhir_portal.fhir.errors import Unauthenticated
from fhir_portal.portal import Portal
from tests.builders import (
    DERM,
    FAMILY,
    START,
    Caller,
    Clock,
    a_bundle,
    a_document,
    a_patient,
    a_practitioner,
    an_access_token,
    an_account,
    an_observation,
    assert_outcome,
    bearer_of,
    changed,
    keep,
    oneself,
)
from tests.staff import (
    a_chart_app,
    a_level,
    a_member_of_staff,
    a_membership,
    a_staff_token,
    records_of_staff,
)

EVERYTHING_BUT_VIEW = frozenset(PERMISSIONS) - {"view"}
DESK = a_member_of_staff()
BOUND = a_member_of_staff(patient="kit", account="desk")
BLIND = "the access level 'blind' does not let its holders read records"


@pytest.fixture
async def practice(family: EmbeddedStore, ehr: Caller, other_ehr: Caller) -> EmbeddedStore:
    """A member of staff with the level "desk", to view and invite; tokens of theirs."""
    await ehr.store(
        a_practitioner("desk", family="Desk"),
        a_practitioner("nurse"),
        an_observation("pulse", of="kit"),
        an_observation("other", of="ada"),
        a_document("letter", of="kit"),
    )
    await other_ehr.store(a_practitioner("desk"))
    await keep(family, an_account("desk", role="staff"), a_chart_app())
    await keep(family, *records_of_staff(("whole", DESK), ("bound", BOUND)))
    await keep(family, a_level("desk", "view", "invite"), a_membership(level="desk"))
    return family


@pytest.fixture
def workers(practice: EmbeddedStore, clock: Clock) -> tuple[Callers, Callers]:
    """Two processes, each with what it remembers."""
    return Callers(practice, clock), Callers(practice, clock)


async def come(workers: tuple[Callers, Callers], name: str = "whole") -> AuthContext:
    """A request at each process; both see the same caller."""
    found = [await one.of(bearer_of(name)) for one in workers]
    assert found[0] == found[1]
    return found[0]


async def change(store: EmbeddedStore, name: str, *permissions: str, seen: int = 1) -> None:
    edit = Edit(name, frozenset(permissions), seen)
    await store.transact(
        lambda transaction: change_levels(
            transaction, DERM, [edit], by=OPERATOR, now=START, works=works
        )
    )


async def remove(store: EmbeddedStore, kind: Any, key: str) -> None:
    async def work(transaction: Any) -> None:
        assert await transaction.delete(kind, key)

    await store.transact(work)


# ---------------------------------------------------------------- the decision


@pytest.mark.parametrize("patient", [None, "kit"])
@pytest.mark.parametrize("name", served_types())
def test_without_view_no_type_is_read_whatever_else_the_level_has(
    name: str, patient: str | None
) -> None:
    auth = a_member_of_staff(patient=patient, level="blind", permissions=EVERYTHING_BUT_VIEW)
    for letter in "cruds":
        answer = decide(auth, Ask(letter, name, START))
        if (letter, name) == ("r", "Practitioner"):  # their own, by the scope fhirUser
            assert isinstance(answer, Permit)
            assert answer.visible.ids == frozenset({"desk"})
            continue
        assert isinstance(answer, Deny)
        if letter in "rs":
            assert answer.reason == BLIND


def untagged(found: Permit | Deny) -> object:
    """A decision but for what is tagged for those of the staff who have a permission."""
    if isinstance(found, Deny) or found.visible.labels is None:
        return found
    labels = found.visible.labels - set(FOR_STAFF.values())
    return replace(found.visible, labels=labels)


@pytest.mark.parametrize("permissions", [{"view"}, {"view", "invite"}, {"view", "recover"}])
def test_what_is_tagged_for_a_permission_is_shown_with_it_alone(
    permissions: set[Permission],
) -> None:
    for patient in (None, "kit"):
        member = a_member_of_staff(permissions=permissions, patient=patient)
        for name in sorted(OF_STAFF):
            found = decide(member, Ask("s", name, START))
            assert isinstance(found, Permit)
            for permission, label in FOR_STAFF.items():
                tagged = VisibilityClass(frozenset(), frozenset({label, "HIV"}))
                assert found.visible.permits_class(tagged) == (permission in permissions)
            assert found.visible.permits_class(VisibilityClass(frozenset(), frozenset({WITHHELD})))


@pytest.mark.parametrize("extra", sorted(EVERYTHING_BUT_VIEW))
def test_no_permission_widens_what_view_shows(extra: str) -> None:
    """Nothing implies anything else: a level with more sees what `view` alone sees.

    Who may audit reads the access log beside that; what the practice has to see to is tagged for
    who may see to it (`FOR_STAFF`), and nothing else is.
    """
    plain, more = a_member_of_staff(), a_member_of_staff(permissions=("view", extra))
    for name in served_types():
        for letter in "cruds":
            ask = Ask(letter, name, START)
            if (extra, name) == ("audit", "AuditEvent") and letter in "rs":
                assert isinstance(decide(plain, ask), Deny)
                assert isinstance(decide(more, ask), Permit)
                continue
            assert untagged(decide(plain, ask)) == untagged(decide(more, ask))


def test_an_auditor_whose_token_is_for_one_patient_reads_no_log() -> None:
    auditor = a_member_of_staff(permissions=("view", "audit"), patient="kit")
    assert isinstance(decide(auditor, Ask("s", "AuditEvent", START)), Deny)


@pytest.mark.usefixtures("practice")
async def test_an_auditor_reads_the_practices_log_and_no_other(
    portal: Portal, ehr: Caller, other_ehr: Caller
) -> None:
    auditor = Caller(portal, a_member_of_staff(permissions=("view", "audit")))
    await ehr.get("Patient/kit")
    await ehr.get("Patient/ada")
    await other_ehr.get("Patient/kit")
    clients = [
        agent["who"]["display"]
        for one in (await auditor.get("AuditEvent?patient=Patient/kit&_count=50")).entries
        for agent in one["agent"]
        if "display" in agent["who"]
    ]
    assert clients
    assert set(clients) == {ehr.auth.client}
    found = await auditor.get("AuditEvent?patient=Patient/kit&_count=50")
    assert (
        found.ids
        == (await ehr.get("AuditEvent?patient=Patient/kit&_count=50")).ids[-len(found.ids) :]
    )
    own = await auditor.get(f"AuditEvent/{found.entries[0]['id']}")
    assert own.status == 200
    plain = Caller(portal, a_member_of_staff(permissions=("view", "administer")))
    assert (await plain.get("AuditEvent?patient=Patient/kit")).status == 403


def test_may_is_of_staff_and_of_the_permissions_they_have() -> None:
    auth = a_member_of_staff(permissions=("invite", "billing"))
    assert [one for one in PERMISSIONS if auth.may(one)] == ["invite", "billing"]
    assert not any(oneself("ada").may(one) for one in PERMISSIONS)
    nobody = a_member_of_staff(permissions=())
    assert not any(nobody.may(one) for one in PERMISSIONS)


# ---------------------------------------------------------------- through the front door


@pytest.mark.usefixtures("practice")
@pytest.mark.parametrize("patient", [None, "kit"])
async def test_without_view_the_front_door_shows_nothing_in_any_way(
    portal: Portal, patient: str | None
) -> None:
    auth = a_member_of_staff(patient=patient, level="blind", permissions=EVERYTHING_BUT_VIEW)
    caller = Caller(portal, auth)
    for url in (
        "Patient",
        "Patient/kit",
        "Patient/kit/_history",
        "Patient/kit/_history/1",
        "Patient/nobody",
        "Observation?_count=1",
        "Observation?_summary=count",
        "Observation?_include=Observation:subject",
        "Practitioner?_revinclude=Observation:performer",
        "Practitioner",
        "Organization",
        "_history",
        "AuditEvent",
        "Person",
    ):
        answer = await caller.get(url)
        assert_outcome(answer, 403, "forbidden")
        assert b"kit" not in answer.body.replace(url.encode(), b"")
    answer = await caller.bundle(a_bundle("batch", ("GET", "Patient/kit"), ("GET", "Observation")))
    assert [one["response"]["status"][:3] for one in answer.json["entry"]] == ["403", "403"]
    assert (await caller.get("Practitioner/desk")).status == 200
    hidden, absent = await caller.get("Patient/kit"), await caller.get("Patient/nobody")
    assert hidden.body == absent.body


@pytest.mark.usefixtures("practice")
@pytest.mark.parametrize("patient", [None, "kit"])
async def test_the_refusal_speaks_of_the_level(portal: Portal, patient: str | None) -> None:
    auth = a_member_of_staff(patient=patient, level="blind", permissions=("invite",))
    answer = await Caller(portal, auth).get("Patient/kit")
    assert BLIND in answer.body.decode()


# ---------------------------------------------------------------- resolved anew


async def test_the_level_is_the_practices_own(practice: EmbeddedStore, clock: Clock) -> None:
    await keep(
        practice,
        a_level("desk", "billing", practice=FAMILY),
        a_level("theirs", *PERMISSIONS, practice=FAMILY),
        a_membership("desk", FAMILY, level="desk"),
    )
    account = await practice.get(Account, "desk")
    assert account is not None
    found = {one.practice: one for one in await Relations(practice, clock).staff_of(account)}
    assert found[DERM].permissions == {"view", "invite"}
    assert found[FAMILY].permissions == {"billing"}
    await keep(practice, a_membership(level="theirs"))  # no level of this practice
    at = [one.practice for one in await Relations(practice, clock).staff_of(account)]
    assert at == [FAMILY]


async def test_the_name_is_told_as_it_is_written(
    practice: EmbeddedStore, workers: tuple[Callers, Callers]
) -> None:
    await change(practice, "Desk", "view", "invite")
    staff = (await come(workers)).staff
    assert staff is not None
    assert (staff.level, staff.permissions) == ("Desk", frozenset({"view", "invite"}))


@pytest.mark.parametrize("name", ["whole", "bound"])
async def test_a_changed_level_bites_on_the_next_request_at_every_process(
    practice: EmbeddedStore, workers: tuple[Callers, Callers], portal: Portal, name: str
) -> None:
    before = await come(workers, name)
    assert before.may("invite")
    assert (await Caller(portal, before).get("Observation/pulse")).status == 200
    await change(practice, "desk", "invite")
    after = await come(workers, name)
    assert (after.may("view"), after.may("invite")) == (False, True)
    assert_outcome(await Caller(portal, after).get("Observation/pulse"), 403, "forbidden")

    async def write(transaction: Any) -> None:
        await workers[0].still(transaction, before)

    with pytest.raises(Unauthenticated):  # what began under the old level ends
        await practice.transact(write)
    with pytest.raises(Unauthenticated):
        await workers[1].confirm(before)
    await change(practice, "desk", "view", "billing", seen=2)
    again = await come(workers, name)
    assert again.staff is not None
    assert again.staff.permissions == {"view", "billing"}
    assert (await Caller(portal, again).get("Observation/pulse")).status == 200


@pytest.mark.parametrize("name", ["whole", "bound"])
async def test_another_level_bites_on_the_next_request_at_every_process(
    practice: EmbeddedStore, workers: tuple[Callers, Callers], name: str
) -> None:
    before = await come(workers, name)
    await practice.transact(
        lambda transaction: set_level(
            transaction,
            practice=DERM,
            account="desk",
            level="read",
            by=OPERATOR,
            now=START,
            works=works,
        )
    )
    after = await come(workers, name)
    assert not after.may("invite")
    with pytest.raises(Unauthenticated):
        await workers[0].confirm(before)


GONE: dict[str, Any] = {
    "removed": lambda store: remove(store, AccessLevel, f"{DERM}/desk"),
    "called something else": lambda store: keep(store, a_membership(level="front desk")),
    "of another practice": lambda store: keep(
        store,
        a_level("theirs", *PERMISSIONS, practice=FAMILY),
        a_membership(level="theirs"),
    ),
    "no name at all": lambda store: keep(store, a_membership(level="")),
    "a path into another practice": lambda store: keep(
        store,
        a_level("theirs", *PERMISSIONS, practice=FAMILY),
        a_membership(level=f"../{FAMILY}/theirs"),
    ),
}


@pytest.mark.parametrize("name", ["whole", "bound"])
@pytest.mark.parametrize("ending", GONE)
async def test_a_level_that_is_not_there_conveys_nothing_from_the_next_request_on(
    practice: EmbeddedStore, workers: tuple[Callers, Callers], ending: str, name: str
) -> None:
    before = await come(workers, name)
    await GONE[ending](practice)
    for worker in workers:
        with pytest.raises(Unauthenticated):
            await worker.of(bearer_of(name))
        with pytest.raises(Unauthenticated):
            await worker.confirm(before)


async def test_a_removed_level_that_is_made_again_is_what_it_is_then(
    practice: EmbeddedStore, workers: tuple[Callers, Callers]
) -> None:
    await keep(practice, a_membership())
    await practice.transact(
        lambda transaction: remove_level(transaction, DERM, "desk", by=OPERATOR, now=START)
    )
    await change(practice, "desk", "audit", seen=0)
    await keep(practice, a_membership(level="desk"))
    staff = (await come(workers)).staff
    assert staff is not None
    assert staff.permissions == {"audit"}


async def test_without_view_there_is_no_record_to_open_an_app_on(
    practice: EmbeddedStore, clock: Clock
) -> None:
    """The record would bring the patient's name to the pages on which an app is connected."""
    account = await practice.get(Account, "desk")
    assert account is not None
    relations = Relations(practice, clock)
    assert await relations.staff_record_of(account, DERM, "Patient/kit") is not None
    await change(practice, "desk", "invite", "audit")
    assert await relations.staff_record_of(account, DERM, "Patient/kit") is None
    assert await relations.staff_at(account, DERM) is not None


async def test_a_bound_token_without_view_still_ends_with_its_patient(
    practice: EmbeddedStore, workers: tuple[Callers, Callers], ehr: Caller
) -> None:
    await ehr.store(a_patient("brief"))
    brief = a_member_of_staff(patient="brief", account="desk")
    await keep(practice, a_staff_token("brief", brief))
    await change(practice, "desk", "invite")
    await come(workers, "brief")
    await ehr.delete("Patient/brief")
    for worker in workers:
        with pytest.raises(Unauthenticated):
            await worker.of(bearer_of("brief"))


async def test_being_staff_with_every_permission_gives_a_persons_token_nothing(
    practice: EmbeddedStore, workers: tuple[Callers, Callers]
) -> None:
    await keep(practice, a_level("all", *PERMISSIONS), a_membership("ada", level="all"))
    mine = changed(an_access_token("mine", oneself("ada")), account="ada")
    await keep(practice, mine)
    own = await come(workers, "mine")
    assert own.is_self
    assert not any(own.may(one) for one in PERMISSIONS)


@pytest.mark.usefixtures("practice")
async def test_with_view_alone_everything_of_the_practice_is_seen(
    portal: Portal, ehr: Caller
) -> None:
    """The completeness twin."""
    seeing = Caller(portal, a_member_of_staff(permissions=("view",)))
    for name in sorted(OF_STAFF - {"Binary", "Provenance"}):
        assert set(await seeing.everything(name)) == set(await ehr.everything(name))


@pytest.mark.parametrize("ending", ["inactive", "deleted", "elsewhere"])
async def test_a_membership_whose_practitioner_is_gone_is_nobody_at_work(
    practice: EmbeddedStore, ehr: Caller, ending: str
) -> None:
    member = a_membership(level="desk")
    assert await works(practice, member)
    if ending == "inactive":
        await ehr.store(a_practitioner("desk", active=False))
    elif ending == "deleted":
        await ehr.delete("Practitioner/desk")
    else:
        member = changed(member, practitioner="Practitioner/of-nobody")
    assert not await works(practice, member)
