"""``$portal-dashboard``: in one call what searches would find, and nothing that they would not."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from fhir_portal.access.context import AuthContext
from fhir_portal.embedded.store import EmbeddedStore
from fhir_portal.portal import Portal
from fhir_portal.resources.reservation import TakenTime
from fhir_portal.smart.scope import ScopeSet
from tests.access.conftest import family
from tests.builders import (
    FAMILY,
    RESTRICTED,
    WITHHELD,
    Caller,
    Clock,
    Json,
    a_condition,
    a_practice,
    a_proxy,
    a_task,
    an_appointment,
    an_encounter,
    an_invoice,
    concept,
    keep,
    oneself,
    reference,
    resource,
)
from tests.operations.holding import values

__all__ = ["family"]

TYPES = ("Appointment", "Encounter", "Invoice", "DiagnosticReport")
PARTS = dict(zip(TYPES, ("next-appointment", "last-visit", "balance", "new-results"), strict=True))
SECTIONS = dict(zip(TYPES, ("appointments", "visits", "billing", "results"), strict=True))


def a_report(own_id: str, issued: str, *, of: str = "kit", **more: Any) -> Json:
    return resource(
        "DiagnosticReport", own_id,
        status="final", code=concept("http://loinc.org", "58410-2"),
        category=[concept("http://terminology.hl7.org/CodeSystem/v2-0074", "LAB")],
        subject=reference(f"Patient/{of}"), issued=issued, **more,
    )  # fmt: skip


@pytest.fixture
async def world(family: EmbeddedStore, ehr: Caller) -> EmbeddedStore:
    """Kit: two visits, two appointments to come and one that is over, two bills, three reports."""
    await keep(family, a_practice())
    await ehr.store(
        an_encounter("before", of="kit", period={"start": "2029-01-05", "end": "2029-01-05"}),
        an_encounter("latest", of="kit", period={"start": "2030-02-05", "end": "2030-02-05"}),
        an_encounter("planned", of="kit", status="planned", period={"start": "2030-06-05"}),
        appointment("over", "2030-03-01"),
        appointment("later", "2030-05-02"),
        appointment("next", "2030-04-02"),
        appointment("cancelled", "2030-03-20", status="cancelled"),
        an_invoice("one", of="kit", total=75),
        an_invoice("two", of="kit", total=12.5),
        an_invoice("done", of="kit", total=500, status="balanced"),
        a_report("old", "2029-12-01T10:00:00Z"),
        a_report("new", "2030-03-01T10:00:00Z"),
        a_report("newer", "2030-03-02T10:00:00Z"),
    )
    return family


def appointment(own_id: str, day: str, **more: Any) -> Json:
    return an_appointment(
        own_id, of=["kit"], start=f"{day}T09:00:00Z", end=f"{day}T09:20:00Z", **more
    )


def caller(portal: Portal, auth: AuthContext, *types: str) -> Caller:
    scope = " ".join(f"patient/{one}.rs" for one in types)
    return Caller(portal, replace(auth, scopes=ScopeSet.parse(scope)))


def mother(*types: str) -> AuthContext:
    return a_proxy(sections=[SECTIONS[one] for one in types])


async def shown(by: Caller, whose: str = "kit") -> Json:
    return values(await by.ask("GET", f"Patient/{whose}/$portal-dashboard"))


async def test_one_call_says_what_the_screens_say(world: EmbeddedStore, portal: Portal) -> None:
    assert world is not None
    by = caller(portal, oneself("kit"), *TYPES)
    found = await shown(by)
    assert found["next-appointment"] == {
        "appointment": reference("Appointment/next"),
        "status": "booked",
        "start": "2030-04-02T09:00:00Z",
        "check-in": False,
    }
    assert found["last-visit"]["encounter"] == reference("Encounter/latest")
    balance = found["balance"]
    assert (balance["bills"], balance["not-reckoned"], balance["more"]) == (2, 0, False)
    assert balance["due"] == {"value": 87.5, "currency": "USD"}
    assert (found["new-results"]["count"], found["new-results"]["latest"]) == (
        2,
        reference("DiagnosticReport/newer"),
    )
    search = await by.ask("GET", "Invoice?status=issued&_summary=count")
    assert search.json["total"] == balance["bills"]


async def test_nothing_due_is_said_and_differs_from_not_being_told(
    world: EmbeddedStore, portal: Portal
) -> None:
    assert world is not None
    found = await shown(caller(portal, oneself("ada"), *TYPES), "ada")
    assert found["balance"]["bills"] == 0
    assert "due" not in found["balance"]
    assert "next-appointment" not in found
    untold = await shown(caller(portal, oneself("ada"), "Appointment"), "ada")
    assert untold == {}


@pytest.mark.parametrize("only", TYPES)
async def test_a_proxy_and_an_app_see_their_part_alone(
    world: EmbeddedStore, portal: Portal, only: str
) -> None:
    assert world is not None
    for by in (
        caller(portal, mother(only), *TYPES),
        caller(portal, oneself("kit"), only),
        caller(portal, mother(*TYPES), only),
    ):
        assert set(await shown(by)) == {PARTS[only]}


@pytest.mark.parametrize("only", TYPES)
async def test_a_proxy_without_the_section_learns_nothing_of_it(
    world: EmbeddedStore, portal: Portal, ehr: Caller, only: str
) -> None:
    """What changes in a section that they do not see leaves the answer as it is."""
    others = [one for one in TYPES if one != only]
    by = caller(portal, mother(*others), *TYPES)
    before = (await by.ask("GET", "Patient/kit/$portal-dashboard")).body
    await ehr.store(
        {
            "Appointment": appointment("more", "2030-03-18"),
            "Encounter": an_encounter("more", of="kit", period={"start": "2030-03-10"}),
            "Invoice": an_invoice("more", of="kit"),
            "DiagnosticReport": a_report("more", "2030-03-10T10:00:00Z"),
        }[only]
    )
    assert (await by.ask("GET", "Patient/kit/$portal-dashboard")).body == before
    all_of_it = caller(portal, oneself("kit"), *TYPES)
    assert (await all_of_it.ask("GET", "Patient/kit/$portal-dashboard")).body != before
    assert world is not None


async def test_a_purpose_that_is_labelled_from_elsewhere_is_not_told(
    world: EmbeddedStore, portal: Portal, ehr: Caller
) -> None:
    assert world is not None
    why = [reference("Condition/secret")]
    talk = [{"text": "Talk"}]
    await ehr.store(
        a_condition("secret", of="kit"),
        appointment("next", "2030-04-02", serviceType=talk, reasonReference=why),
    )
    by = caller(portal, oneself("kit"), *TYPES)
    assert (await shown(by))["next-appointment"]["purpose"] == "Talk"
    await ehr.store(a_condition("secret", of="kit", meta=RESTRICTED))
    following = (await shown(by))["next-appointment"]
    assert following["appointment"] == reference("Appointment/next")
    assert "purpose" not in following


@pytest.mark.parametrize("meta", [WITHHELD, RESTRICTED])
async def test_what_is_labelled_does_not_count_for_a_proxy(
    world: EmbeddedStore, portal: Portal, ehr: Caller, meta: Json
) -> None:
    assert world is not None
    by = caller(portal, mother(*TYPES), *TYPES)
    before = (await by.ask("GET", "Patient/kit/$portal-dashboard")).body
    await ehr.store(
        appointment("more", "2030-03-18", meta=meta),
        an_encounter("more", of="kit", period={"start": "2030-03-10"}, meta=meta),
        an_invoice("more", of="kit", meta=meta),
        a_report("more", "2030-03-10T10:00:00Z", meta=meta),
    )
    assert (await by.ask("GET", "Patient/kit/$portal-dashboard")).body == before


async def test_the_record_of_somebody_else_is_not_there(
    world: EmbeddedStore, portal: Portal
) -> None:
    assert world is not None
    answers = []
    for auth in (oneself("ada"), oneself("kit", FAMILY), mother(*TYPES)):
        for whose in ("bo", "nobody"):
            by = caller(portal, auth, *TYPES)
            answer = await by.ask("GET", f"Patient/{whose}/$portal-dashboard")
            answers.append((answer.status, answer.body.replace(whose.encode(), b"X")))
    assert {status for status, _ in answers} == {404}
    assert len(set(answers)) == 1


async def test_what_is_over_shows_nothing(
    world: EmbeddedStore, portal: Portal, clock: Clock
) -> None:
    assert world is not None
    ended = a_proxy(sections=["billing"], until=clock())
    for auth in (ended, replace(mother("Invoice"), expires=clock())):
        answer = await caller(portal, auth, *TYPES).ask("GET", "Patient/kit/$portal-dashboard")
        assert answer.status == 403


@pytest.mark.requirement("portal", "S1-36")
async def test_who_has_it_already_is_told_so_and_the_access_is_logged(
    world: EmbeddedStore, portal: Portal, ehr: Caller
) -> None:
    assert world is not None
    by = caller(portal, oneself("kit"), *TYPES)
    first = await by.ask("GET", "Patient/kit/$portal-dashboard")
    assert first.response is not None
    tag = f'W/"{first.response.version}"'
    again = await by.ask("GET", "Patient/kit/$portal-dashboard", if_none_match=tag)
    assert (again.status, again.body) == (304, b"")
    await ehr.store(an_invoice("three", of="kit"))
    later = await by.ask("GET", "Patient/kit/$portal-dashboard", if_none_match=tag)
    assert later.status == 200
    events = await ehr.ask("GET", "AuditEvent?entity=Patient/kit&_count=50")
    told = [one["resource"]["subtype"] for one in events.json["entry"]]
    codes = [code["code"] for subtype in told for code in subtype]
    assert codes.count("portal-dashboard") == 3


async def test_a_hold_that_is_over_is_no_appointment_to_come(
    world: EmbeddedStore, portal: Portal, ehr: Caller, clock: Clock
) -> None:
    """Before the job has come that ends it."""
    await ehr.store(appointment("held", "2030-04-01", status="pending"))

    async def until(transaction: Any) -> None:
        taken = TakenTime(
            key="dermatology/held",
            actors=("Practitioner/lark",),
            start=1_900_000_000_000_000,
            end=1_900_000_600_000_000,
            until=clock.now + 60,
        )
        await transaction.put(taken)

    await world.transact(until)
    by = caller(portal, oneself("kit"), *TYPES)
    assert (await shown(by))["next-appointment"]["appointment"] == reference("Appointment/held")
    clock.advance(60)
    assert (await shown(by))["next-appointment"]["appointment"] == reference("Appointment/next")


async def test_what_nobody_had_stored_before_counts_at_once(
    world: EmbeddedStore, portal: Portal, ehr: Caller
) -> None:
    """The searches are kept as the store compiled them: never longer than nothing is committed."""
    assert world is not None
    by = caller(portal, oneself("kit"), *TYPES, "Task")
    for _ in range(2):
        assert (await shown(by))["forms-due"]["count"] == 0
    system = "https://fhir-portal.example/ig/CodeSystem/form-task"
    task = a_task(
        "asked", of="kit", status="requested", code=concept(system, "complete-questionnaire")
    )
    await ehr.store(task | {"meta": {"tag": [{"system": "urn:new", "code": "class"}]}})
    assert (await shown(by))["forms-due"]["count"] == 1
    await ehr.store(task | {"status": "completed"})
    assert (await shown(by))["forms-due"]["count"] == 0


async def test_an_appointment_that_has_begun_is_the_next_one_until_it_is_over(
    world: EmbeddedStore, portal: Portal, ehr: Caller, clock: Clock
) -> None:
    assert world is not None
    now = datetime.fromtimestamp(clock(), UTC)
    begun, ends = (now + timedelta(minutes=one) for one in (-5, 10))
    await ehr.store(
        an_appointment("begun", of=["kit"], start=begun.isoformat(), end=ends.isoformat())
    )
    by = caller(portal, oneself("kit"), *TYPES)
    assert (await shown(by))["next-appointment"]["appointment"] == reference("Appointment/begun")
    clock.advance(16 * 60)
    assert (await shown(by))["next-appointment"]["appointment"] == reference("Appointment/next")


async def test_whether_one_can_say_that_one_is_here_is_told_by_right_and_time(
    world: EmbeddedStore, portal: Portal, ehr: Caller, clock: Clock
) -> None:
    assert world is not None
    start = datetime.fromtimestamp(clock(), UTC) + timedelta(minutes=30)
    await ehr.store(
        an_appointment("soon", of=["kit"], start=start.isoformat(), end=start.isoformat())
    )

    async def can(auth: AuthContext, scope: str) -> bool:
        by = Caller(portal, replace(auth, scopes=ScopeSet.parse(scope)))
        return bool((await shown(by))["next-appointment"]["check-in"])

    acting = a_proxy(sections=["appointments"], act=["appointments"])
    assert await can(oneself("kit"), "patient/Appointment.crus")
    assert not await can(oneself("kit"), "patient/Appointment.rs")
    assert await can(acting, "patient/Appointment.crus")
    assert not await can(a_proxy(sections=["appointments"]), "patient/Appointment.crus")
