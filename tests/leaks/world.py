"""One family and its neighbours at two practices, as a list of writes, and its people as tokens.

The list is the only truth: `tests.leaks.oracle` replays it naively, `build` sends it through the
front door of a portal.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from fhir_portal.access.context import AuthContext
from fhir_portal.access.visibility import SHARED
from tests import builders as b
from tests.builders import DERM, DIRECTORY, FAMILY, RESTRICTED, WITHHELD, Caller, Clock, Ids, Json
from tests.places import Place
from tests.staff import a_chart_app, a_member_of_staff, a_membership, a_staff_token

SENSITIVE: Json = {
    "security": [{"system": "http://terminology.hl7.org/CodeSystem/v3-ActCode", "code": "SDV"}]
}
RELEASED: Json = {"tag": [{"system": "https://tags.example", "code": "released"}]}
STRANGE: Json = {"security": [{"system": "https://labels.example", "code": "house-rule"}]}


@dataclass(frozen=True)
class Write:
    """One PUT by a practice's EHR, or with ``tree`` ``None`` a DELETE of ``key``."""

    practice: str
    key: str
    tree: Json | None

    @classmethod
    def of(cls, practice: str, tree: Json) -> Write:
        return cls(practice, f"{tree['resourceType']}/{tree['id']}", tree)


@dataclass(frozen=True)
class Reader:
    """Somebody with a token. ``sections`` are ``None`` for one's own record and for staff.

    A practice's staff are its Practitioner; without a ``patient`` they see the whole practice.
    """

    name: str
    practice: str
    patient: str
    user: str
    scope: str
    sections: frozenset[str] | None = None
    grant: str | None = None

    @property
    def is_self(self) -> bool:
        return self.grant is None and not self.is_staff

    @property
    def is_staff(self) -> bool:
        return self.user.startswith("Practitioner/")

    @property
    def is_narrow(self) -> bool:
        """Whether they see few sections, or few types."""
        return self.scope in {GRANULAR, NARROW, LABS} or self.sections in {MOTHER, FATHER}

    @property
    def account(self) -> str:
        return self.name.partition("-")[0]

    @property
    def bearer(self) -> str:
        return b.bearer_of(self.name)


EVERYTHING = "openid fhirUser patient/*.cruds"
GRANULAR = (
    "openid patient/Patient.rs patient/Practitioner.rs patient/DocumentReference.rs"
    " patient/AuditEvent.rs patient/Provenance.rs patient/Binary.rs"
    f" patient/Observation.rs?category={b.OBSERVATION_CATEGORY}|vital-signs"
)
WHOLE = "openid fhirUser user/*.cruds"
LABS = (
    "openid fhirUser user/Patient.rs user/DocumentReference.r user/Provenance.rs user/Binary.rs"
    f" user/Observation.rs?category={b.OBSERVATION_CATEGORY}|laboratory"
)
NARROW = "openid fhirUser patient/Provenance.rs patient/Organization.rs patient/Encounter.s"
MOTHER = frozenset({"results", "visits", "documents", "messages"})
FATHER = frozenset({"health-summary", "immunizations", "appointments", "demographics", "sharing"})
ALL = frozenset(
    [
        "demographics",
        "insurance",
        "appointments",
        "messages",
        "documents",
        "forms",
        "results",
        "medications",
        "immunizations",
        "health-summary",
        "visits",
        "billing",
        "sharing",
    ]
)

READERS: tuple[Reader, ...] = (
    Reader("ada", DERM, "ada", "Patient/ada", EVERYTHING),
    Reader("ada-vitals", DERM, "ada", "Patient/ada", GRANULAR),
    Reader("ada-narrow", DERM, "ada", "Patient/ada", NARROW),
    Reader("ada-elsewhere", FAMILY, "ada-f", "Patient/ada-f", EVERYTHING),
    Reader("ada-for-kit", DERM, "kit", "RelatedPerson/mother", EVERYTHING, MOTHER, "grant-mother"),
    Reader("ben-for-kit", DERM, "kit", "RelatedPerson/father", EVERYTHING, FATHER, "grant-father"),
    Reader("tess", DERM, "tess", "Patient/tess", EVERYTHING),
    Reader(
        "ada-for-tess", DERM, "tess", "RelatedPerson/tess-mother", EVERYTHING, ALL, "grant-tess"
    ),
    Reader("zoe", FAMILY, "kit", "Patient/kit", EVERYTHING),
    Reader("desk", DERM, "", "Practitioner/desk", WHOLE),
    Reader("desk-labs", DERM, "", "Practitioner/desk", LABS),
    Reader("desk-in-kit", DERM, "kit", "Practitioner/desk", EVERYTHING),
    Reader("clerk", FAMILY, "", "Practitioner/clerk", WHOLE),
)

PATIENTS = {DERM: ("ada", "bo", "kit", "tess"), FAMILY: ("ada-f", "kit", "uma")}


def reader(name: str) -> Reader:
    return next(one for one in READERS if one.name == name)


# ---------------------------------------------------------------- the record of one patient


def chart(of: str, mark: str, doctor: str) -> Iterator[Json]:
    """What every patient has; ids carry ``mark``, so that two practices can use the same ids."""
    yield b.an_observation(
        f"pulse-{mark}",
        of=of,
        value=71.5,
        performer=f"Practitioner/{doctor}",
        encounter=b.reference(f"Encounter/visit-{mark}"),
    )
    yield b.an_observation(f"lab-{mark}", of=of, category="laboratory", code="718-7", value=13.2)
    yield b.an_observation(
        f"lab2-{mark}",
        of=of,
        category="laboratory",
        code="718-7",
        value=14.9,
        on="2029-06-02",
        derivedFrom=[b.reference(f"Observation/lab-{mark}")],
    )
    yield b.an_observation(f"smoking-{mark}", of=of, category="social-history", code="72166-2")
    yield b.an_observation(f"loose-{mark}", of=of, category=None, code="39156-5", value=22.1)
    yield b.an_observation(f"shy-{mark}", of=of, code="8310-5", value=37.1, meta=RESTRICTED)
    yield b.an_observation(f"kept-{mark}", of=of, category="laboratory", meta=WITHHELD)
    yield b.an_observation(f"odd-{mark}", of=of, category="laboratory", meta=STRANGE)
    yield b.a_condition(f"rash-{mark}", of=of, encounter=b.reference(f"Encounter/visit-{mark}"))
    yield b.a_condition(f"secret-{mark}", of=of, code="77386006", meta=SENSITIVE)
    yield b.an_encounter(
        f"visit-{mark}",
        of=of,
        participant=[{"individual": b.reference(f"Practitioner/{doctor}")}],
        serviceProvider=b.reference("Organization/house"),
        period={"start": "2029-03-01T09:00:00Z"},
    )
    yield from _hushed(of, mark)
    yield b.resource(
        "Immunization",
        f"shot-{mark}",
        status="completed",
        vaccineCode=b.concept("http://hl7.org/fhir/sid/cvx", "140"),
        patient=b.reference(f"Patient/{of}"),
        occurrenceDateTime="2028-10-01",
        performer=[{"actor": b.reference(f"Practitioner/nurse-{mark}")}],
    )
    yield b.an_appointment(f"slot-{mark}", of=[of])
    yield b.a_binary(f"scan-{mark}", content="JVBERi0x")
    yield b.a_binary(f"note-{mark}", content="JVBERi0y")
    yield b.a_binary(f"sealed-{mark}", content="JVBERi0z")
    yield b.a_document(f"letter-{mark}", of=of, binary=f"scan-{mark}")
    yield b.a_document(f"story-{mark}", of=of, binary=f"note-{mark}", note=True)
    yield b.a_document(f"dossier-{mark}", of=of, binary=f"sealed-{mark}", meta=WITHHELD)
    yield b.a_provenance(f"source-{mark}", about=[f"Observation/lab-{mark}"])
    yield b.a_provenance(
        f"wide-{mark}", about=[f"Observation/lab-{mark}", f"Condition/rash-{mark}"]
    )
    yield b.a_provenance(f"hidden-{mark}", about=[f"Observation/kept-{mark}"])
    yield b.a_communication(f"hello-{mark}", of=of, sender=f"Patient/{of}")
    yield b.some_answers(f"form-{mark}", of=of, source=f"Patient/{of}")
    yield b.resource(
        "Coverage",
        f"card-{mark}",
        status="active",
        beneficiary=b.reference(f"Patient/{of}"),
        payor=[b.reference("Organization/payer")],
    )


def _hushed(of: str, mark: str) -> Iterator[Json]:
    """A visit of which only the Encounter is labelled, and its shadows."""
    visit = b.reference(f"Encounter/hush-{mark}")
    yield b.an_observation(f"shade-{mark}", of=of, code="8867-4", encounter=visit)
    yield b.a_condition(f"told-{mark}", of=of, code="35489007")
    yield b.an_appointment(f"when-{mark}", of=[of])
    yield b.an_encounter(
        f"hush-{mark}",
        of=of,
        meta=SENSITIVE,
        appointment=[b.reference(f"Appointment/when-{mark}")],
        diagnosis=[{"condition": b.reference(f"Condition/told-{mark}")}],
    )
    yield b.a_condition(f"echo-{mark}", of=of, code="35489007", encounter=visit)
    yield b.an_observation(
        f"panel-{mark}",
        of=of,
        category="laboratory",
        encounter=visit,
        hasMember=[b.reference(f"Observation/member-{mark}")],
    )
    yield b.an_observation(f"member-{mark}", of=of, category="laboratory", value=4.4)
    yield b.an_observation(
        f"grown-{mark}",
        of=of,
        category="laboratory",
        derivedFrom=[b.reference(f"Observation/member-{mark}")],
    )
    yield b.a_binary(f"minutes-{mark}", content="JVBERi0t")
    yield b.a_document(
        f"minutes-{mark}", of=of, binary=f"minutes-{mark}", context={"encounter": [visit]}
    )
    yield b.a_communication(f"word-{mark}", of=of, sender=f"Patient/{of}", encounter=visit)
    yield b.a_communication(
        f"answer-{mark}",
        of=of,
        sender=f"Patient/{of}",
        about=[b.reference(f"Communication/word-{mark}")],
    )
    yield b.some_answers(f"asked-{mark}", of=of, source=f"Patient/{of}", encounter=visit)
    yield b.resource(
        "Immunization",
        f"hushed-{mark}",
        status="completed",
        vaccineCode=b.concept("http://hl7.org/fhir/sid/cvx", "62"),
        patient=b.reference(f"Patient/{of}"),
        occurrenceDateTime="2028-11-01",
        encounter=visit,
    )
    # One labelled result hides the panel and not the others in it; the label is withheld here.
    yield b.an_observation(
        f"mixed-{mark}",
        of=of,
        category="laboratory",
        hasMember=[b.reference(f"Observation/{one}-{mark}") for one in ("lab", "kept")],
    )
    yield b.a_provenance(f"traced-{mark}", about=[f"Observation/grown-{mark}"])


def _derm() -> Iterator[Json]:
    yield b.resource("Organization", "house", name="House of Skin", meta=DIRECTORY)
    yield b.resource("Organization", "payer", name="Payer")
    yield b.a_practitioner("lark", family="Lark")
    yield b.a_practitioner("wren", family="Wren")
    yield b.a_practitioner("listed", family="Listed", meta=DIRECTORY)
    yield b.a_practitioner("idle", family="Idle")
    yield b.a_practitioner("desk", family="Desk")
    yield b.a_patient("ada", family="Quill", generalPractitioner=[b.reference("Practitioner/lark")])
    yield b.a_patient("bo", family="Quillon", birthDate="1971-01-20")
    yield b.a_patient("kit", family="Quill", birthDate="2021-02-03")
    yield b.a_patient("tess", family="Quill", birthDate="2014-08-09")
    for mark, doctor in (("ada", "lark"), ("bo", "wren"), ("kit", "lark"), ("tess", "wren")):
        yield b.a_practitioner(f"nurse-{mark}", family=f"Nurse {mark}")
        yield from chart(mark, mark, doctor)
    yield b.a_related_person("mother", of="kit", relationship="mother")
    yield b.a_related_person("father", of="kit", relationship="father")
    yield b.a_related_person("tess-mother", of="tess", relationship="mother")
    yield b.a_related_person("bo-friend", of="bo", relationship="friend")
    yield b.a_grant(
        "grant-mother", of="kit", to="mother", sections=sorted(MOTHER), act=["messages"]
    )
    yield b.a_grant("grant-father", of="kit", to="father", sections=sorted(FATHER))
    yield b.a_grant("grant-tess", of="tess", to="tess-mother", sections=sorted(ALL))
    yield b.a_grant("grant-bo", of="bo", to="bo-friend", sections=["results"])
    yield b.a_person(
        "ada", links=["Patient/ada", "RelatedPerson/mother", "RelatedPerson/tess-mother"]
    )
    yield b.a_person("ben", links=["RelatedPerson/father"])
    yield b.a_person("tess", links=["Patient/tess"])
    yield b.an_appointment("together", of=["ada", "kit"])
    yield b.a_provenance("both", about=["Observation/lab-ada", "Observation/lab-bo"])
    yield b.a_provenance("of-binary", about=["Binary/scan-ada", "DocumentReference/letter-ada"])


def _family() -> Iterator[Json]:
    yield b.resource("Organization", "house", name="House of Families")
    yield b.resource("Organization", "payer", name="Payer")
    yield b.a_practitioner("lark", family="Larkspur")
    yield b.a_practitioner("robin", family="Robin", meta=DIRECTORY)
    yield b.a_practitioner("clerk", family="Clerk")
    yield b.a_practitioner("desk", family="Desk of another house")
    yield b.a_patient("ada-f", family="Quill")
    yield b.a_patient("kit", family="Zander", birthDate="1990-12-01")
    yield b.a_patient("uma", family="Umber")
    for of, mark, doctor in (
        ("ada-f", "ada", "lark"),
        ("kit", "kit", "lark"),
        ("uma", "bo", "robin"),
    ):
        yield b.a_practitioner(f"nurse-{mark}", family=f"Nurse {mark} F")
        yield from chart(of, mark, doctor)
    yield b.a_person("ada", links=["Patient/ada-f"])
    yield b.a_person("zoe", links=["Patient/kit"])


def _later() -> Iterator[Write]:
    """What happened after the first writes: corrections, moves, labels, deletions."""
    lab = b.an_observation("lab-ada", of="ada", category="laboratory", code="718-7", value=13.4)
    yield Write.of(DERM, lab)
    # Once another record's, once labelled, once unclassified: earlier versions stay hidden.
    yield Write.of(DERM, b.an_observation("moved", of="bo", value=61))
    yield Write.of(DERM, b.an_observation("moved", of="ada", value=62))
    yield Write.of(DERM, b.an_observation("opened", of="ada", value=63, meta=WITHHELD))
    yield Write.of(DERM, b.an_observation("opened", of="ada", value=64, meta=RELEASED))
    yield Write.of(DERM, b.an_observation("sorted", of="kit", category=None, value=65))
    yield Write.of(DERM, b.an_observation("sorted", of="kit", category="laboratory", value=66))
    yield Write.of(DERM, b.an_observation("closed", of="kit", category="laboratory", value=67))
    yield Write.of(
        DERM, b.an_observation("closed", of="kit", category="laboratory", value=68, meta=RESTRICTED)
    )
    for practice, of, mark in ((DERM, "ada", "ada"), (DERM, "bo", "bo"), (DERM, "kit", "kit")):
        yield Write.of(practice, b.a_condition(f"gone-{mark}", of=of, code="195662009"))
        yield Write(practice, f"Condition/gone-{mark}", None)
    yield Write.of(DERM, b.a_document("shared-scan", of="ada", binary="scan-ada"))
    # A Binary that documents of two records name is hidden from both.
    yield Write.of(DERM, b.a_binary("contested", content="JVBERi00"))
    yield Write.of(DERM, b.a_document("mine", of="ada", binary="contested"))
    yield Write.of(DERM, b.a_document("theirs", of="bo", binary="contested"))
    # Labelled as a document, so its Binary is too, although nothing on the Binary says so.
    yield Write.of(DERM, b.a_binary("whisper", content="JVBERi01"))
    yield Write.of(DERM, b.a_document("quiet", of="kit", binary="whisper", meta=RESTRICTED))
    yield Write.of(DERM, b.a_practitioner("lark", family="Lark-Heron"))


def writes() -> list[Write]:
    """The world, in the order it came to be."""
    return [
        Write.of(SHARED, b.resource("Organization", "union", name="Union", meta=DIRECTORY)),
        Write.of(SHARED, b.resource("Organization", "quiet-union", name="Quiet Union")),
        *(Write.of(DERM, tree) for tree in _derm()),
        *(Write.of(FAMILY, tree) for tree in _family()),
        *_later(),
    ]


# ---------------------------------------------------------------- into a store


def token_of(one: Reader) -> AuthContext:
    """Only what the stored token says; the relation is resolved by the server."""
    if one.is_staff:
        return a_member_of_staff(
            one.user.partition("/")[2],
            one.practice,
            patient=one.patient or None,
            scope=one.scope,
            account=one.account,
        )
    if one.grant is None:
        return b.oneself(one.patient, one.practice, scope=one.scope)
    return b.a_proxy(
        one.patient,
        one.user.partition("/")[2],
        one.practice,
        grant=one.grant,
        sections=sorted(one.sections or ()),
        scope=one.scope,
    )


async def build(place: Place) -> None:
    """Make the world's store at a place."""
    clock = Clock()
    store = await place.open(clock)
    try:
        await b.keep(store, b.a_practice(DERM), b.a_practice(FAMILY), b.a_client("app"))
        portal = b.a_portal(store, clock, ids=Ids("built"))
        for write in writes():
            clock.advance(1)
            await apply(Caller(portal, b.an_ehr(write.practice)), write)
        await b.keep(store, *_accounts(), *(_token(one) for one in READERS))
        await b.keep(store, a_chart_app(), *(_membership(one) for one in READERS if one.is_staff))
        ehrs = (b.an_ehr(practice) for practice in (DERM, FAMILY))
        await b.keep(
            store,
            *(b.an_access_token(one.client, one) for one in ehrs),
            *(
                b.a_client(f"ehr-of-{practice}", permissions=("label", "grant-writing"))
                for practice in (DERM, FAMILY)
            ),
        )
    finally:
        await store.aclose()


async def apply(ehr: Caller, write: Write) -> None:
    """Send one write through the front door; it must be taken."""
    if write.tree is None:
        answer = await ehr.delete(write.key)
        assert answer.status == 204, (write, answer.body)
        return
    answer = await ehr.put(json.loads(json.dumps(write.tree)))
    assert answer.status in {200, 201}, (write, answer.body)


def _accounts() -> Sequence[Any]:
    return [
        b.an_account("ada", f"{DERM}/Person/ada", f"{FAMILY}/Person/ada"),
        b.an_account("ben", f"{DERM}/Person/ben"),
        b.an_account("tess", f"{DERM}/Person/tess"),
        b.an_account("zoe", f"{FAMILY}/Person/zoe"),
        b.an_account("desk", role="staff"),
        b.an_account("clerk", role="staff"),
    ]


def _membership(one: Reader) -> Any:
    return a_membership(one.account, one.practice, one.user.partition("/")[2])


def _token(one: Reader) -> Any:
    token = a_staff_token(one.name, token_of(one))
    return b.changed(token, account=one.account)


def patched(tree: Json, **elements: Any) -> Json:
    """A copy with some elements replaced; ``None`` removes one."""
    copied: Json = json.loads(json.dumps(tree))
    for name, value in elements.items():
        if value is None:
            copied.pop(name, None)
        else:
            copied[name] = value
    return copied
