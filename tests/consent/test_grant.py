"""A proxy grant is read strictly: anything outside the profile makes it convey nothing."""

from __future__ import annotations

import copy
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from fhir_portal.consent.grant import Grant, is_current, is_grant, read_grant
from fhir_portal.consent.sections import SECTION_SYSTEM, section_displays
from tests.builders import DERM, Json, a_grant, concept, reference

UTC_ZONE = ZoneInfo("UTC")
VIENNA = ZoneInfo("Europe/Vienna")
ACTION = "http://terminology.hl7.org/CodeSystem/consentaction"


def read(tree: Json, zone: ZoneInfo = UTC_ZONE) -> Grant | None:
    return read_grant(tree, practice=DERM, zone=zone)


def instant(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def test_a_grant_in_the_profile_says_who_what_and_how_long() -> None:
    tree = a_grant("g", of="kit", to="mother", sections=["results", "messages"], act=["messages"])
    assert read(tree) == Grant(
        key=f"{DERM}/g",
        practice=DERM,
        consent="g",
        patient="kit",
        related_person=f"{DERM}/mother",
        sections=("messages", "results"),
        act=("messages",),
        start=instant("2020-01-01T00:00:00+00:00"),
        end=instant("2040-01-02T00:00:00+00:00"),
    )


@pytest.mark.parametrize("section", section_displays())
def test_every_portal_section_can_be_granted(section: str) -> None:
    grant = read(a_grant(sections=[section]))
    assert grant is not None
    assert grant.sections == (section,)


def test_what_only_describes_the_grant_is_allowed() -> None:
    more: Json = {
        "meta": {"versionId": "3"},
        "text": {"status": "generated", "div": "<div/>"},
        "language": "en",
        "identifier": [{"value": "1"}],
        "organization": [reference("Organization/house")],
    }
    assert read(a_grant(**more)) is not None


Spoil = Callable[[Json], Any]


def spoiled(name: str) -> Spoil:
    return SPOILED[name]


def root(tree: Json) -> Json:
    found: Json = tree["provision"]
    return found


def nested(tree: Json) -> Json:
    found: Json = root(tree)["provision"][0]
    return found


def actor(tree: Json) -> Json:
    found: Json = root(tree)["actor"][0]
    return found


MODIFIER = [{"url": "https://example.org/not", "valueBoolean": True}]
EXTENSION = [{"url": "https://example.org/more", "valueBoolean": True}]

SPOILED: dict[str, Spoil] = {
    **{
        f"status {status}": lambda t, s=status: t.update(status=s)  # type: ignore[misc]
        for status in ("draft", "proposed", "rejected", "inactive", "entered-in-error")
    },
    "no status": lambda t: t.pop("status"),
    "another scope": lambda t: t.update(
        scope=concept("http://terminology.hl7.org/CodeSystem/consentscope", "research")
    ),
    "no scope": lambda t: t.pop("scope"),
    "a scope of another system": lambda t: t.update(scope=concept("urn:x", "patient-privacy")),
    "two scope codings": lambda t: t["scope"]["coding"].append(t["scope"]["coding"][0]),
    "no category": lambda t: t.pop("category"),
    "a second category": lambda t: t["category"].append(concept("urn:x", "y")),
    "another category": lambda t: t.update(category=[concept("urn:x", "proxy-grant")]),
    "no policy": lambda t: t.pop("policyRule"),
    "opt-in": lambda t: t.update(
        policyRule=concept("http://terminology.hl7.org/CodeSystem/v3-ActCode", "OPTIN")
    ),
    "a policy besides": lambda t: t.update(policy=[{"uri": "https://example.org/policy"}]),
    "verification": lambda t: t.update(verification=[{"verified": False}]),
    "an attachment as source": lambda t: t.update(sourceAttachment={"title": "scan"}),
    "an extension": lambda t: t.update(extension=EXTENSION),
    "contained resources": lambda t: t.update(contained=[{"resourceType": "Patient"}]),
    "implicit rules": lambda t: t.update(implicitRules="https://example.org/rules"),
    "a modifier at the root": lambda t: t.update(modifierExtension=MODIFIER),
    "a modifier in the provision": lambda t: root(t).update(modifierExtension=MODIFIER),
    "a modifier in a section": lambda t: nested(t).update(modifierExtension=MODIFIER),
    "a modifier at the actor": lambda t: actor(t).update(modifierExtension=MODIFIER),
    "a modifier on the patient": lambda t: t["patient"].update(modifierExtension=MODIFIER),
    "a member of a primitive": lambda t: t.update(_status={"extension": EXTENSION}),
    "no patient": lambda t: t.pop("patient"),
    "a patient elsewhere": lambda t: t.update(
        patient=reference("https://other.example/fhir/Patient/kit")
    ),
    "a patient in a version": lambda t: t.update(patient=reference("Patient/kit/_history/1")),
    "a patient that is a group": lambda t: t.update(patient=reference("Group/kit")),
    "no performer": lambda t: t.pop("performer"),
    "granted by staff without evidence": lambda t: t.update(
        performer=[reference("Practitioner/desk")]
    ),
    "no provision": lambda t: t.pop("provision"),
    "a root type": lambda t: root(t).update(type="permit"),
    "a root deny": lambda t: root(t).update(type="deny"),
    "a root purpose": lambda t: root(t).update(purpose=[{"code": "TREAT"}]),
    "a root class": lambda t: root(t).update({"class": [{"code": "Observation"}]}),
    "a root code": lambda t: root(t).update(code=[concept(SECTION_SYSTEM, "results")]),
    "a root action": lambda t: root(t).update(action=[concept(ACTION, "access")]),
    "root data": lambda t: root(t).update(
        data=[{"meaning": "instance", "reference": reference("Observation/x")}]
    ),
    "a root data period": lambda t: root(t).update(dataPeriod={"start": "2020"}),
    "root labels": lambda t: root(t).update(securityLabel=[{"code": "R"}]),
    "a root id": lambda t: root(t).update(id="x"),
    "no period": lambda t: root(t).pop("period"),
    "no start": lambda t: root(t)["period"].pop("start"),
    "an extended period": lambda t: root(t)["period"].update(extension=EXTENSION),
    "a primitive member in the period": lambda t: root(t)["period"].update(_end={"id": "x"}),
    "a time without zone": lambda t: root(t)["period"].update(end="2030-01-01T10:00:00"),
    "an end that is no date": lambda t: root(t)["period"].update(end="soon"),
    "a day that does not exist": lambda t: root(t)["period"].update(end="2030-02-30"),
    "no actor": lambda t: root(t).pop("actor"),
    "no actors": lambda t: root(t).update(actor=[]),
    "two actors": lambda t: root(t)["actor"].append(copy.deepcopy(actor(t))),
    "an actor without role": lambda t: actor(t).pop("role"),
    "another role": lambda t: actor(t).update(
        role=concept("http://terminology.hl7.org/CodeSystem/v3-RoleCode", "DELEGATEE")
    ),
    "an actor without reference": lambda t: actor(t).pop("reference"),
    "an actor by identifier": lambda t: actor(t).update(reference={"identifier": {"value": "x"}}),
    "an actor who is a practitioner": lambda t: actor(t).update(
        reference=reference("Practitioner/mother")
    ),
    "an actor who is a patient": lambda t: actor(t).update(reference=reference("Patient/mother")),
    "an actor elsewhere": lambda t: actor(t).update(
        reference=reference("https://other.example/RelatedPerson/mother")
    ),
    "an extended actor": lambda t: actor(t).update(extension=EXTENSION),
    "no sections": lambda t: root(t).pop("provision"),
    "an empty list of sections": lambda t: root(t).update(provision=[]),
    "a section twice": lambda t: root(t)["provision"].append(copy.deepcopy(nested(t))),
    "a denied section": lambda t: nested(t).update(type="deny"),
    "a section without type": lambda t: nested(t).pop("type"),
    "a section with a period": lambda t: nested(t).update(period={"end": "2021"}),
    "a section with an actor": lambda t: nested(t).update(actor=[copy.deepcopy(actor(t))]),
    "a section with data": lambda t: nested(t).update(data=[]),
    "a section with a purpose": lambda t: nested(t).update(purpose=[{"code": "TREAT"}]),
    "a section within a section": lambda t: nested(t).update(provision=[copy.deepcopy(nested(t))]),
    "an extended section": lambda t: nested(t).update(extension=EXTENSION),
    "no section code": lambda t: nested(t).pop("code"),
    "two section codes": lambda t: nested(t)["code"].append(concept(SECTION_SYSTEM, "visits")),
    "two codings of a section": lambda t: nested(t)["code"][0]["coding"].append(
        {"system": SECTION_SYSTEM, "code": "visits"}
    ),
    "an unknown section": lambda t: nested(t).update(code=[concept(SECTION_SYSTEM, "secrets")]),
    "a stand-in for unclassified": lambda t: nested(t).update(
        code=[concept(SECTION_SYSTEM, "-unclassified")]
    ),
    "a stand-in for no section": lambda t: nested(t).update(
        code=[concept(SECTION_SYSTEM, "-none")]
    ),
    "a section of another system": lambda t: nested(t).update(code=[concept("urn:x", "results")]),
    "no action": lambda t: nested(t).pop("action"),
    "an empty list of actions": lambda t: nested(t).update(action=[]),
    "correct without access": lambda t: nested(t).update(action=[concept(ACTION, "correct")]),
    "another action": lambda t: nested(t).update(action=[concept(ACTION, "disclose")]),
    "another second action": lambda t: nested(t)["action"].append(concept(ACTION, "disclose")),
    "three actions": lambda t: nested(t)["action"].extend([concept(ACTION, "correct")] * 2),
}


@pytest.mark.parametrize("name", SPOILED)
def test_a_deviation_from_the_profile_conveys_nothing(name: str) -> None:
    tree = a_grant(sections=["results", "messages"])
    assert read(tree) is not None
    SPOILED[name](tree)
    assert read(tree) is None


def test_evidence_lets_staff_record_a_grant() -> None:
    tree = a_grant(
        performer=[reference("Practitioner/desk")],
        sourceReference=reference("DocumentReference/signed"),
    )
    assert read(tree) is not None


def test_a_consent_that_claims_to_be_a_grant_is_recognised_even_when_it_conveys_nothing() -> None:
    tree = a_grant(status="inactive")
    assert is_grant(tree)
    assert read(tree) is None
    assert not is_grant({"resourceType": "Consent"})
    assert not is_grant({"resourceType": "Consent", "category": [{"text": "proxy-grant"}]})


@pytest.mark.parametrize(
    ("zone", "end", "last", "over"),
    [
        ("UTC", "2030-05-31", "2030-05-31T23:59:59+00:00", "2030-06-01T00:00:00+00:00"),
        ("Europe/Vienna", "2030-05-31", "2030-05-31T23:59:59+02:00", "2030-06-01T00:00:00+02:00"),
        ("America/Chicago", "2030-05-31", "2030-05-31T23:59:59-05:00", "2030-06-01T00:00:00-05:00"),
        # The days on which summer time begins and ends: 23 and 25 hours long.
        ("Europe/Vienna", "2030-03-31", "2030-03-31T23:59:59+02:00", "2030-04-01T00:00:00+02:00"),
        ("Europe/Vienna", "2030-10-27", "2030-10-27T23:59:59+01:00", "2030-10-28T00:00:00+01:00"),
        # Midnight does not exist on the day summer time begins here: the day ends at 1 o'clock.
        (
            "America/Santiago",
            "2030-09-07",
            "2030-09-07T23:59:59-04:00",
            "2030-09-08T01:00:00-03:00",
        ),
        ("UTC", "2028-02-29", "2028-02-29T23:59:59+00:00", "2028-03-01T00:00:00+00:00"),
        ("UTC", "2030-12", "2030-12-31T23:59:59+00:00", "2031-01-01T00:00:00+00:00"),
        ("UTC", "2030-02", "2030-02-28T23:59:59+00:00", "2030-03-01T00:00:00+00:00"),
        ("UTC", "2030", "2030-12-31T23:59:59+00:00", "2031-01-01T00:00:00+00:00"),
        ("UTC", "2030-05-31T12:00:00Z", "2030-05-31T11:59:59+00:00", "2030-05-31T12:00:00+00:00"),
        (
            "Europe/Vienna",
            "2030-05-31T12:00:00-05:00",
            "2030-05-31T16:59:59+00:00",
            "2030-05-31T17:00:00+00:00",
        ),
    ],
)
def test_an_end_without_a_time_runs_to_midnight_in_the_practices_zone(
    zone: str, end: str, last: str, over: str
) -> None:
    grant = read(a_grant(end=end), ZoneInfo(zone))
    assert grant is not None
    assert is_current(grant, instant(last))
    assert not is_current(grant, instant(over))


def test_a_start_without_a_time_is_midnight_in_the_practices_zone() -> None:
    grant = read(a_grant(start="2030-05-31"), VIENNA)
    assert grant is not None
    assert not is_current(grant, instant("2030-05-30T23:59:59+02:00"))
    assert is_current(grant, instant("2030-05-31T00:00:00+02:00"))


def test_a_grant_without_an_end_goes_on() -> None:
    grant = read(a_grant(end=None))
    assert grant is not None
    assert grant.end is None
    assert is_current(grant, datetime(2999, 1, 1, tzinfo=UTC).timestamp())


@pytest.mark.parametrize("end", ["9999", "9999-12", "9999-12-31"])
def test_an_end_that_means_never_is_no_fault(end: str) -> None:
    grant = read(a_grant(end=end))
    assert grant is not None
    assert is_current(grant, datetime(2999, 1, 1, tzinfo=UTC).timestamp())


def test_a_period_that_ends_before_it_starts_is_never_current() -> None:
    grant = read(a_grant(start="2030-05-31", end="2030-01-01"))
    assert grant is not None
    for text in ("2030-01-01", "2030-03-01", "2030-05-31", "2030-06-01"):
        assert not is_current(grant, instant(f"{text}T12:00:00+00:00"))
