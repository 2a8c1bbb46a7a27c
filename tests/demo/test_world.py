from __future__ import annotations

import asyncio
import functools
import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date

import fhirkit
import pytest

from fhir_portal.access.context import AuthContext
from fhir_portal.access.relation import Relations
from fhir_portal.accounts.account import account_named
from fhir_portal.accounts.credentials import Passwords, SignIn, SignInRefused
from fhir_portal.accounts.levels import PERMISSIONS
from fhir_portal.accounts.throttle import Throttle
from fhir_portal.consent.grant import Grant
from fhir_portal.consent.record import RecordAccess
from fhir_portal.demo.marrowbrook import marrowbrook
from fhir_portal.demo.people import ACCOUNTS, LEVELS, PASSWORD, PRACTICES, DemoAccount
from fhir_portal.demo.quillfern import quillfern
from fhir_portal.demo.world import World, build_world
from fhir_portal.embedded.store import EmbeddedStore
from fhir_portal.fhir.definitions import served_types
from fhir_portal.fhir.json import parse
from fhir_portal.fhir.reference import Reference, attachments_in, references_in
from fhir_portal.portal import Portal
from fhir_portal.resources.validation import validate
from fhir_portal.smart.client import Client
from fhir_portal.smart.scope import ScopeSet
from tests.builders import BASE, START, Caller, Clock, Json, a_portal, an_ehr, oneself

DAY = date(2030, 3, 17)  # of START
CATEGORY = "http://terminology.hl7.org/CodeSystem/observation-category"
FRONT_DESK = "marrowbrook/Practitioner/saffrey"
DIRECTORY = {
    *("Organization", "Practitioner", "PractitionerRole", "Location", "Medication"),
    "Questionnaire",
}

SECTION_OF_TYPE = {
    "Patient": "demographics",
    "Coverage": "insurance",
    "Appointment": "appointments",
    "Communication": "messages",
    "QuestionnaireResponse": "forms",
    "Task": "forms",
    "DiagnosticReport": "results",
    "MedicationRequest": "medications",
    "Immunization": "immunizations",
    "AllergyIntolerance": "health-summary",
    "Condition": "health-summary",
    "Procedure": "health-summary",
    "Encounter": "visits",
    "Invoice": "billing",
}
SECTION_OF_CATEGORY = {
    "laboratory": "results",
    "vital-signs": "results",
    "social-history": "health-summary",
    "survey": "health-summary",
}


@dataclass(frozen=True)
class Built:
    store: EmbeddedStore
    portal: Portal
    world: World

    async def records_of(self, username: str) -> tuple[RecordAccess, ...]:
        account = await account_named(self.store, username)
        assert account is not None
        return await Relations(self.store, Clock()).records_of(account)

    async def person(self, username: str, patient: str) -> Caller:
        """Somebody with a token for everything that may be read of one record."""
        record = next(one for one in await self.records_of(username) if one.patient == patient)
        auth = AuthContext(
            client="sample-app",
            context="patient",
            scopes=ScopeSet.parse("openid fhirUser patient/*.rs"),
            practice=record.practice,
            expires=START + 1e6,
            token="",
            record=record,
            account=username,
        )
        return Caller(self.portal, auth)


def build() -> Built:
    clock = Clock()
    store = EmbeddedStore.open(":memory:", clock=clock)
    world = asyncio.run(build_world(store, clock=clock, base=BASE))
    return Built(store, a_portal(store, clock), world)


@pytest.fixture(scope="module")
def built() -> Iterator[Built]:
    built = build()
    yield built
    built.store.close()


@functools.cache
def charts() -> list[Json]:
    return marrowbrook(DAY).resources + quillfern(DAY).resources


def chart_of(patient: str) -> list[Json]:
    """What the charts hold of one record, by the references that say whose it is."""
    found = {patient}
    for tree in charts():
        owners = [tree.get(one) for one in ("subject", "patient", "beneficiary", "for")]
        owners += [one["actor"] for one in tree.get("participant", ()) if "actor" in one]
        if {"reference": patient} in owners:
            found.add(key_of(tree))
            found |= {one["attachment"]["url"] for one in tree.get("content", ())}
            if tree["resourceType"] == "DocumentReference":
                found.add(f"Provenance/{tree['id']}")
    return [tree for tree in charts() if key_of(tree) in found]


def key_of(tree: Json) -> str:
    return f"{tree['resourceType']}/{tree['id']}"


def section_of(tree: Json) -> str | None:
    name = tree["resourceType"]
    codes = [c["coding"][0]["code"] for c in tree.get("category", ()) if "coding" in c]
    if name == "Observation":
        return SECTION_OF_CATEGORY[codes[0]] if codes else None
    if name == "DocumentReference":
        return "visits" if "clinical-note" in codes else "documents"
    if name in {"Binary", "Provenance"}:
        document = next(t for t in charts() if key_of(t) == f"DocumentReference/{tree['id']}")
        return section_of(document)
    return SECTION_OF_TYPE.get(name)


def is_labelled(tree: Json) -> bool:
    """Only its Encounter says so; everything else takes it from there."""
    return str(tree["id"]).startswith("silas-confidential")


def is_withheld(tree: Json) -> bool:
    return any(tag["code"] == "withheld" for tag in tree.get("meta", {}).get("tag", ()))


async def seen_by(caller: Caller) -> set[str]:
    """``Type/id`` of all that a caller finds, by search or, for Binary, by what documents name."""
    found: set[str] = set()
    for name in sorted(set(served_types()) - DIRECTORY - {"AuditEvent", "Binary"}):
        if (await caller.get(f"{name}?_count=1")).status == 200:
            found |= set(await caller.everything(f"{name}?_count=200"))
    for tree in charts():
        if tree["resourceType"] == "Binary" and (await caller.get(key_of(tree))).status == 200:
            found.add(key_of(tree))
    return found


def test_the_same_day_gives_the_same_world() -> None:
    first, second = build(), build()
    try:
        for practice in PRACTICES:
            pages = []
            for one in (first, second):
                ehr = Caller(one.portal, an_ehr(practice.key))
                pages.append(asyncio.run(ehr.get("_history?_count=500")).body)
            assert pages[0] == pages[1]
            assert len(json.loads(pages[0])["entry"]) > 25
    finally:
        first.store.close()
        second.store.close()


def test_another_day_gives_other_dates_and_the_same_values() -> None:
    today, later = marrowbrook(DAY).resources, marrowbrook(date(2031, 6, 2)).resources
    assert [key_of(tree) for tree in today] == [key_of(tree) for tree in later]
    weights = [
        (one["effectiveDateTime"][:10], two["effectiveDateTime"][:10])
        for one, two in zip(today, later, strict=True)
        if one["resourceType"] == "Observation"
        and one.get("valueQuantity") == two.get("valueQuantity")
    ]
    assert len(weights) > 200
    assert not any(before == after for before, after in weights)


@pytest.mark.parametrize("day", [date(2028, 2, 29), date(2027, 3, 14), date(2027, 12, 31)])
def test_every_day_of_the_calendar_can_be_the_day(day: date) -> None:
    for tree in marrowbrook(day).resources + quillfern(day).resources:
        body = json.dumps(tree).encode()
        assert not [i for i in validate(parse(body), body) if i.severity == "error"], key_of(tree)


def test_another_judge_finds_no_fault_in_the_charts() -> None:
    faults = {
        key_of(tree): found
        for tree in charts()
        if (found := [str(i) for i in fhirkit.validate(json.dumps(tree)) if i.severity == "error"])
    }
    assert not faults


def test_every_reference_leads_to_something_in_the_same_practice() -> None:
    for chart in (marrowbrook(DAY), quillfern(DAY)):
        known = {key_of(tree) for tree in chart.resources}
        assert len(known) == len(chart.resources)
        for tree in chart.resources:
            texts = [holder["reference"] for _, holder in references_in(tree)]
            texts = [text for text in texts if not text.startswith("#")]  # contained
            texts += [holder["url"] for _, holder in attachments_in(tree)]
            assert {str(Reference.parse(text).key) for text in texts} <= known, key_of(tree)


def test_no_id_is_used_by_both_practices() -> None:
    """The record picker and tokens name a record by its Patient alone."""
    patients = [key_of(t) for t in charts() if t["resourceType"] in {"Patient", "RelatedPerson"}]
    assert len(patients) == len(set(patients))


def test_the_adult_has_enough_to_fill_pages_of_several_categories() -> None:
    found = [t for t in chart_of("Patient/mara") if t["resourceType"] == "Observation"]
    count = {
        category: sum(t["category"][0]["coding"][0]["code"] == category for t in found)
        for category in SECTION_OF_CATEGORY
    }
    assert len(found) >= 150
    assert count["laboratory"] >= 60
    assert count["vital-signs"] >= 60
    assert count["social-history"] >= 3
    assert count["survey"] >= 3
    dates = sorted(t["effectiveDateTime"][:10] for t in found)
    assert 650 < (date.fromisoformat(dates[-1]) - date.fromisoformat(dates[0])).days < 760


async def test_everybody_signs_in_with_the_password_of_the_demo(built: Built) -> None:
    passwords = Passwords()
    sign_in = SignIn(built.store, passwords, Throttle(built.store, Clock()))
    try:
        for account in ACCOUNTS:
            found = await sign_in(account.username, PASSWORD, address="192.0.2.1")
            assert (found.persons, found.role) == (account.persons, account.role)
        with pytest.raises(SignInRefused):
            await sign_in("mara", "demo-passwort", address="192.0.2.1")
    finally:
        passwords.close()


@pytest.mark.parametrize("account", ACCOUNTS, ids=lambda account: account.username)
async def test_an_account_has_exactly_the_records_it_is_said_to(
    built: Built, account: DemoAccount
) -> None:
    everything = set(next(a for a in ACCOUNTS if a.username == "mara").records[0].sections)
    found = [
        (one.patient, one.relation, everything if one.sections is None else set(one.sections))
        for one in await built.records_of(account.username)
    ]
    said = [(one.patient, one.relation, set(one.sections)) for one in account.records]
    assert found == said


async def test_a_mother_and_an_attorney_act_in_the_sections_they_were_given(built: Built) -> None:
    acts = {
        (account.username, record.patient): record.act
        for account in ACCOUNTS
        for record in await built.records_of(account.username)
        if record.grant is not None
    }
    assert acts == {
        ("mara", "Patient/juno"): {"messages", "forms"},
        ("oskar", "Patient/juno"): set(),
        ("petra", "Patient/silas"): set(),
        ("lorcan", "Patient/ottilie"): {"appointments", "messages", "forms", "billing"},
    }


def _proxies() -> list[tuple[str, str, tuple[str, ...]]]:
    return [
        (account.username, record.patient, record.sections)
        for account in ACCOUNTS
        for record in account.records
        if record.relation != "self"
    ]


@pytest.mark.parametrize(("username", "patient", "sections"), _proxies())
async def test_a_parent_sees_exactly_the_sections_of_the_grant(
    built: Built, username: str, patient: str, sections: tuple[str, ...]
) -> None:
    parent = await built.person(username, patient)
    assert parent.auth.record is not None
    expected = {
        key_of(tree)
        for tree in chart_of(patient)
        if section_of(tree) in sections and not is_labelled(tree) and not is_withheld(tree)
    }
    own = {parent.auth.record.fhir_user, str(parent.auth.record.grant)}
    assert await seen_by(parent) == expected | own


@pytest.mark.parametrize("patient", ["mara", "silas", "teodor", "teodor-q"])
async def test_a_patient_sees_the_whole_record_but_what_the_practice_holds_back(
    built: Built, patient: str
) -> None:
    expected = {key_of(tree) for tree in chart_of(f"Patient/{patient}") if not is_withheld(tree)}
    oneself = await built.person(patient.removesuffix("-q"), f"Patient/{patient}")
    assert await seen_by(oneself) == expected


@pytest.mark.requirement("portal", "S0-34", "S2-09")
async def test_the_confidential_visit_is_the_teenagers_own(built: Built) -> None:
    shadows = [tree for tree in charts() if is_labelled(tree)]
    confidential = {key_of(tree) for tree in shadows}
    assert {tree["resourceType"] for tree in shadows} == {
        "Appointment",
        "Binary",
        "ChargeItem",
        "Communication",
        "Condition",
        "DocumentReference",
        "Encounter",
        "Invoice",
        "MedicationRequest",
        "Observation",
        "Provenance",
        "QuestionnaireResponse",
    }
    says_so = {key_of(tree) for tree in charts() if "security" in tree.get("meta", {})}
    assert says_so == {"Encounter/silas-confidential"}
    silas = await built.person("silas", "Patient/silas")
    petra = await built.person("petra", "Patient/silas")
    assert confidential <= await seen_by(silas)
    for key in confidential:
        assert (await silas.get(key)).status == 200
        assert (await petra.get(key)).status in {403, 404}
        name = key.partition("/")[0]
        found = await petra.get(f"{name}?_count=50")
        if found.status == 200:
            assert key not in {key_of(one) for one in found.entries}


async def test_a_held_back_result_is_the_practices_alone(built: Built) -> None:
    held = next(key_of(t) for t in charts() if is_withheld(t))
    assert (await Caller(built.portal, an_ehr("marrowbrook")).get(held)).status == 200
    assert (await (await built.person("mara", "Patient/mara")).get(held)).status == 404


async def test_one_grant_has_run_out_and_one_was_taken_back(built: Built) -> None:
    expired = await built.store.get(Grant, "marrowbrook/mara-brother-grant")
    assert expired is not None
    assert expired.end is not None
    assert expired.end < START
    assert await built.store.get(Grant, "marrowbrook/mara-neighbour-grant") is None
    ehr = Caller(built.portal, an_ehr("marrowbrook"))
    revoked = await ehr.get("Consent/mara-neighbour-grant/_history")
    assert [one["status"] for one in revoked.entries] == ["inactive", "active"]


async def test_the_directory_lists_the_practice_and_not_those_it_works_with(built: Built) -> None:
    silas = await built.person("silas", "Patient/silas")
    listed = await silas.everything("Practitioner?_count=50")
    works_there = ("astrup", "ondaro", "saffrey", "thackmoor", "vantongel")
    assert set(listed) == {f"Practitioner/{one}" for one in works_there}
    mara = await built.person("mara", "Patient/mara")
    assert "Practitioner/wexcombe" in await mara.everything("Practitioner?_count=50")
    organizations = await mara.everything("Organization?_count=50")
    assert "Organization/marrowbrook" in organizations
    assert "Organization/quillfern" not in organizations


async def test_every_practice_has_an_ehr_that_writes_there_alone(built: Built) -> None:
    backends = [one for one in built.world.clients if one["type"] == "backend"]
    found = [await built.store.get(Client, one["client_id"]) for one in backends]
    assert [one.practice for one in found if one is not None] == [p.key for p in PRACTICES]
    for described, stored in zip(backends, found, strict=True):
        assert stored is not None
        assert stored.jwks is not None
        public = stored.jwks["keys"][0]
        assert "d" not in public
        assert described["private_jwk"].items() >= {**public, "alg": "ES384"}.items()


async def test_each_practice_has_somebody_on_its_staff_and_there_alone(built: Built) -> None:
    relations = Relations(built.store, Clock())
    places = []
    for account in ACCOUNTS:
        known = await account_named(built.store, account.username)
        assert known is not None
        staff = [f"{one.practice}/{one.fhir_user}" for one in await relations.staff_of(known)]
        assert staff == ([account.works_as] if account.works_as else [])
        assert (account.role in {"staff", "admin"}) is bool(staff)
        places += [one.partition("/")[0] for one in staff]
    assert set(places) == {practice.key for practice in PRACTICES}


async def test_the_staff_have_four_access_levels_and_the_built_in_one(built: Built) -> None:
    """What each person may is what the table of the demo says of their level."""
    relations, may = Relations(built.store, Clock()), dict[str, tuple[str, frozenset[str]]]()
    for account in ACCOUNTS:
        known = await account_named(built.store, account.username)
        assert known is not None
        for staff in await relations.staff_of(known):
            expected = LEVELS[staff.practice].get(account.level, ("view",))
            assert staff.permissions == set(expected)
            assert (account.role == "admin") is ("administer" in staff.permissions)
            may[account.username] = (staff.level, staff.permissions)
    assert {name: level for name, (level, _) in may.items()} == {
        "noor": "front desk",
        "cyril": "nurse",
        "imke": "billing",
        "rosalind": "administrator",
        "femi": "read",
        "ignace": "administrator",
    }
    assert len({permissions for _, permissions in may.values()}) == 5
    assert may["rosalind"][1] == set(PERMISSIONS)


async def test_the_staff_see_what_the_practice_holds_of_its_patients(built: Built) -> None:
    account = next(one for one in ACCOUNTS if one.works_as == FRONT_DESK)
    known = await account_named(built.store, account.username)
    assert known is not None
    (staff,) = await Relations(built.store, Clock()).staff_of(known)
    auth = AuthContext(
        client="sample-staff-app",
        context="user",
        scopes=ScopeSet.parse("openid fhirUser user/*.rs"),
        practice=staff.practice,
        expires=START + 1e6,
        token="",
        account=known.key,
        staff=staff,
    )
    hidden = {"Person", "AuditEvent", "HealthcareService", "Schedule", "Slot"}
    hidden |= DIRECTORY
    expected = {
        key_of(tree) for tree in marrowbrook(DAY).resources if tree["resourceType"] not in hidden
    }
    assert await seen_by(Caller(built.portal, auth)) == expected


async def test_an_app_for_staff_is_approved_at_both_practices(built: Built) -> None:
    app = await built.store.get(Client, "sample-staff-app")
    assert app is not None
    assert all(app.serves_staff_of(practice.key) for practice in PRACTICES)
    other = await built.store.get(Client, "sample-app")
    assert other is not None
    assert not any(other.serves_staff_of(practice.key) for practice in PRACTICES)


def test_people_are_told_apart_by_their_names() -> None:
    names = [
        (name["family"], *name["given"])
        for tree in charts()
        if tree["resourceType"] in {"Patient", "Practitioner"}
        for name in tree["name"]
        if not tree["id"].endswith("-q")
    ]
    assert all(one != two for one, two in itertools.combinations(names, 2))


async def test_there_are_times_to_book_for_the_weeks_to_come(built: Built) -> None:
    """What patients may not book themselves is offered to the EHR alone."""
    for practice, patient, own, others in (
        ("marrowbrook", "mara", {"checkup", "nurse"}, set()),
        ("quillfern", "teodor-q", {"skin-check"}, {"light-therapy"}),
    ):
        callers = (oneself(patient, practice), an_ehr(practice))
        for auth, services in zip(callers, (own, own | others), strict=True):
            found = await Caller(built.portal, auth).get("Appointment/$find?_count=100")
            assert found.status == 200
            codes = {one["serviceType"][0]["coding"][0]["code"] for one in found.entries}
            assert codes == services
            assert len(found.entries) >= 20
