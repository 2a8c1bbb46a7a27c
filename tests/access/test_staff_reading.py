"""What staff see through the front door: their practice, or one record of it; and write nothing."""

from __future__ import annotations

import base64
from dataclasses import replace
from typing import Any

import pytest

from fhir_portal.access.owners import OF_STAFF
from fhir_portal.access.policy import Ask, Deny, Permit, decide
from fhir_portal.access.visibility import SHARED
from fhir_portal.consent.labels import staff_labels
from fhir_portal.embedded.store import EmbeddedStore
from fhir_portal.fhir.definitions import served_types
from fhir_portal.portal import Portal
from tests.builders import (
    DERM,
    DIRECTORY,
    FAMILY,
    OBSERVATION_CATEGORY,
    PORTAL_TAG,
    RESTRICTED,
    START,
    WITHHELD,
    Answer,
    Caller,
    Json,
    a_binary,
    a_bundle,
    a_communication,
    a_condition,
    a_document,
    a_patient,
    a_person,
    a_practitioner,
    a_provenance,
    a_related_person,
    an_ehr,
    an_observation,
    assert_outcome,
    oneself,
    reference,
    resource,
    some_answers,
)
from tests.staff import a_member_of_staff

STRANGE: Json = {"security": [{"system": "https://labels.example", "code": "odd"}]}
LABS = f"category={OBSERVATION_CATEGORY}|laboratory"
ANONYMOUS = "Observation/of-nobody"


@pytest.fixture
async def practice(family: EmbeddedStore, ehr: Caller, other_ehr: Caller) -> None:
    """Two records at one practice, the same ids and words at the other."""
    assert family is not None
    shared = Caller(ehr.portal, an_ehr(SHARED))
    await shared.store(resource("Organization", "union", name="Union"))
    for at, word in ((ehr, "Heron"), (other_ehr, "Stranger")):
        await at.store(
            a_practitioner("desk", family=f"Desk-{word}"),
            a_practitioner("lark", family=f"Lark-{word}"),
        )
    for own_id, of, category, meta in (
        ("pulse", "ada", "vital-signs", None),
        ("lab", "kit", "laboratory", None),
        ("loose", "kit", None, None),
        ("held", "kit", "laboratory", WITHHELD),
        ("closed", "ada", "laboratory", RESTRICTED),
        ("odd", "ada", "laboratory", STRANGE),
    ):
        await ehr.store(
            an_observation(
                own_id, of=of, category=category, performer="Practitioner/lark", meta=meta
            )
        )
    await ehr.store(
        {**an_observation("of-nobody"), "subject": {"display": "a water sample"}},
        a_binary("scan"),
        a_document("letter", of="kit", binary="scan"),
        a_provenance("of-lab", about=["Observation/lab"]),
        a_condition("itch", of="ada"),
        # What is a Person's, and what follows nothing that is a patient's:
        a_binary("portrait"),
        a_person("with-photo", links=["Patient/bo"], photo={"url": "Binary/portrait"}),
        a_binary("stray"),
        a_provenance("of-person", about=["Person/ada"]),
        resource("Questionnaire", "sleep", status="active", title="Sleep"),
    )
    await other_ehr.store(
        a_patient("ada"),
        an_observation("lab", of="ada-f", category="laboratory", value=99),
        an_observation("theirs", of="kit", performer="Practitioner/lark"),
        an_observation("stray-link", of="ada-f", performer="Practitioner/desk"),
        a_binary("their-scan", content="JVBERi05"),
        a_document("their-letter", of="kit", binary="their-scan"),
        a_provenance("of-theirs", about=["Observation/theirs"]),
        a_person("theirs", links=["Patient/kit"]),
        a_related_person("their-mother", of="kit"),
    )


@pytest.fixture
def staff(practice: None, portal: Portal) -> Caller:
    assert practice is None
    return Caller(portal, a_member_of_staff())


@pytest.fixture
def bound(practice: None, portal: Portal) -> Caller:
    assert practice is None
    return Caller(portal, a_member_of_staff(patient="kit"))


OF_ADA = {"Observation/pulse", "Observation/closed", "Observation/odd"}
OF_KIT = {"Observation/lab", "Observation/loose", "Observation/held"}


async def found(caller: Caller, url: str) -> set[str]:
    everything = await caller.everything(url)
    assert len(everything) == len(set(everything))
    return set(everything)


# ---------------------------------------------------------------- the decision


@pytest.mark.parametrize("name", served_types())
@pytest.mark.parametrize("patient", [None, "kit"])
def test_staff_are_bounded_to_the_practice_and_to_what_belongs_to_records(
    name: str, patient: str | None
) -> None:
    auth = a_member_of_staff(patient=patient)
    for letter in "rs":
        answer = decide(auth, Ask(letter, name, START))
        if name not in OF_STAFF:
            assert isinstance(answer, Deny)
            continue
        assert isinstance(answer, Permit)
        visible = answer.visible
        in_directory = name in {
            *("Practitioner", "PractitionerRole", "Organization", "Location", "Medication"),
            "Questionnaire",
        }
        assert visible.practices == ((DERM, SHARED) if in_directory else (DERM,))
        assert visible.labels == staff_labels({"view"})
        assert visible.record == (None if in_directory else patient)


@pytest.mark.parametrize("name", ["AuditEvent", "Person", "ValueSet", "Group", "Library"])
def test_what_is_nobodys_record_is_not_for_staff(name: str) -> None:
    assert name not in OF_STAFF


@pytest.mark.parametrize("patient", [None, "kit"])
def test_without_the_membership_a_token_of_staff_sees_nothing(patient: str | None) -> None:
    auth = replace(a_member_of_staff(patient=patient), staff=None)
    for name in ("Observation", "Practitioner", "Patient"):
        assert isinstance(decide(auth, Ask("r", name, START)), Deny)


def test_a_patient_token_without_its_patient_sees_no_record() -> None:
    auth = replace(a_member_of_staff(patient="kit"), staff_patient=None)
    assert isinstance(decide(auth, Ask("s", "Observation", START)), Deny)


def test_an_expired_token_decides_nothing() -> None:
    auth = replace(a_member_of_staff(), expires=START)
    assert isinstance(decide(auth, Ask("s", "Observation", START)), Deny)


# ---------------------------------------------------------------- the practice, whole


async def test_staff_see_every_record_of_the_practice_with_every_label(staff: Caller) -> None:
    assert await found(staff, "Observation?_count=2") == OF_ADA | OF_KIT | {ANONYMOUS}
    assert await found(staff, "Patient") == {"Patient/ada", "Patient/kit", "Patient/bo"}
    for key in OF_ADA | OF_KIT:
        assert (await staff.get(key)).status == 200
    total = await staff.get("Observation?_total=accurate&_count=1")
    assert total.json["total"] == len(OF_ADA | OF_KIT) + 1


async def test_the_completeness_twin_is_what_the_ehr_sees(staff: Caller, ehr: Caller) -> None:
    for name in sorted(OF_STAFF - {"Binary", "Provenance"}):
        assert await found(staff, name) == await found(ehr, name), name


async def test_nothing_of_another_practice_is_seen(staff: Caller) -> None:
    hidden = ("Observation/theirs", "Patient/ada-f", "DocumentReference/their-letter")
    for key in (*hidden, "Binary/their-scan", "Provenance/of-theirs", "RelatedPerson/their-mother"):
        absent = await staff.get(key.replace("/", "/no-"))
        answer = await staff.get(key)
        assert_outcome(answer, 404, "not-found")
        assert answer.body == absent.body.replace(b"/no-", b"/")
        assert_outcome(await staff.get(f"{key}/_history"), 404, "not-found")
        assert_outcome(await staff.get(f"{key}/_history/1"), 404, "not-found")


async def test_the_same_id_at_two_practices_is_the_own_one(staff: Caller) -> None:
    lab = await staff.get("Observation/lab")
    assert lab.json["subject"] == reference("Patient/kit")
    assert b"Stranger" not in (await staff.get("Practitioner?_count=50")).body
    assert await found(staff, "Observation?value-quantity=99") == set()
    (version,) = (await staff.get("Observation/lab/_history")).entries
    assert version["subject"] == reference("Patient/kit")


ACROSS = [
    ("Observation?performer=Practitioner/lark&_include=Observation:performer", "Stranger"),
    ("Practitioner?_revinclude=Observation:performer&_count=50", "theirs"),
    ("Practitioner?_id=desk&_revinclude=Observation:performer", "stray-link"),
    ("Patient?_revinclude=Observation:patient&_revinclude=DocumentReference:patient", "their"),
    ("Patient?_revinclude=RelatedPerson:patient&_revinclude=Person:patient", "their"),
    ("Observation?_include=Observation:subject&_revinclude=Provenance:target", "ada-f"),
    ("_history?_count=500", "their"),
    ("_history?_count=500", "Stranger"),
]


@pytest.mark.parametrize(("url", "word"), ACROSS)
async def test_no_include_and_no_feed_reaches_another_practice(
    staff: Caller, ehr: Caller, url: str, word: str
) -> None:
    mine, whole = await staff.get(url), await ehr.get(url)
    assert mine.status == 200
    assert word.encode() not in mine.body
    assert len(mine.entries) >= 1
    assert len(mine.entries) <= len(whole.entries)


@pytest.mark.parametrize(
    "url",
    [
        "Observation?performer:Practitioner.family=Lark-Stranger",
        "Observation?patient.family=Quill",
        "Patient?_has:Observation:patient:value-quantity=99",
        "Patient?_has:Person:link:name=x",
        "Observation?patient:Patient._has:Person:patient:_id=theirs",
    ],
)
async def test_chains_find_nothing_of_another_practice(staff: Caller, url: str) -> None:
    """They are refused as long as there are none; then they must find nothing."""
    answer = await staff.get(url)
    assert answer.status in {200, 400}
    if answer.status == 200:
        assert not set(answer.ids) - OF_ADA - OF_KIT
    assert b"Stranger" not in answer.body


async def test_a_paging_link_of_the_other_practice_shows_the_own(
    staff: Caller, other_ehr: Caller
) -> None:
    link = (await other_ehr.get("Observation?_count=1")).next
    assert link is not None
    assert set((await staff.get(link)).ids) <= OF_ADA | OF_KIT | {ANONYMOUS}


async def test_what_all_practices_share_is_seen_in_the_directory_only(staff: Caller) -> None:
    assert "Organization/union" in await found(staff, "Organization")
    shared = Caller(staff.portal, an_ehr(SHARED))
    await shared.store(a_patient("everybody"), an_observation("everybodys", of="everybody"))
    assert (await staff.get("Patient/everybody")).status == 404
    assert (await staff.get("Observation/everybodys")).status == 404


@pytest.mark.parametrize("patient", [None, "kit"])
async def test_identity_and_the_log_are_not_for_staff(staff: Caller, patient: str | None) -> None:
    caller = staff.who(**_identity(patient))
    for url in ("Person", "Person/ada", "Person/ada/_history", "AuditEvent", "AuditEvent/x"):
        assert_outcome(await caller.get(url), 403, "forbidden")
    assert_outcome(await caller.get("AuditEvent?patient=Patient/kit"), 403, "forbidden")
    page = await caller.get(
        "Patient?_revinclude=Person:patient&_revinclude=AuditEvent:patient&_count=50"
    )
    assert not any(one.startswith(("Person", "AuditEvent")) for one in page.ids)
    feed = await caller.get("_history?_count=500")
    kinds = {one.get("resourceType") for one in feed.entries}
    assert not kinds & {"Person", "AuditEvent"}


def _identity(patient: str | None) -> dict[str, Any]:
    auth = a_member_of_staff(patient=patient)
    return {
        "context": auth.context,
        "scopes": auth.scopes,
        "staff": auth.staff,
        "staff_patient": auth.staff_patient,
    }


@pytest.mark.parametrize("key", ["Binary/portrait", "Binary/stray", "Provenance/of-person"])
async def test_what_follows_no_patients_record_is_not_for_staff(
    staff: Caller, bound: Caller, key: str
) -> None:
    for caller in (staff, bound):
        assert_outcome(await caller.get(key), 404, "not-found")
        assert_outcome(await caller.get(f"{key}/_history"), 404, "not-found")
    name = key.partition("/")[0]
    assert key not in (await staff.get("_history?_count=500")).body.decode()
    assert key not in await found(staff, name)


async def test_what_follows_a_record_comes_with_it(staff: Caller, bound: Caller) -> None:
    for caller in (staff, bound):
        scan = await caller.get("Binary/scan")
        assert scan.response is not None
        assert scan.response.binary == ("application/pdf", base64.b64decode("JVBERi0x"))
        assert (await caller.get("Provenance/of-lab")).status == 200


# ---------------------------------------------------------------- one record of it


async def test_a_patient_token_of_staff_sees_one_record_with_every_label(bound: Caller) -> None:
    assert await found(bound, "Observation") == OF_KIT
    assert await found(bound, "Patient") == {"Patient/kit"}
    assert await found(bound, "RelatedPerson") == {"RelatedPerson/mother"}
    assert await found(bound, "Consent") == {"Consent/grant"}
    total = await bound.get("Observation?_summary=count")
    assert total.json["total"] == len(OF_KIT)


@pytest.mark.parametrize(
    "key",
    [*sorted(OF_ADA), "Patient/ada", "Patient/bo", "Condition/itch", ANONYMOUS, "Patient/ada-f"],
)
async def test_a_patient_token_of_staff_sees_no_other_record(bound: Caller, key: str) -> None:
    absent = await bound.get(f"{key}-absent")
    answer = await bound.get(key)
    assert_outcome(answer, 404, "not-found")
    assert answer.body == absent.body.replace(b"-absent", b"")
    name = key.partition("/")[0]
    assert key not in await found(bound, name)
    assert await found(bound, f"{name}?_id={key.partition('/')[2]}") == set()
    assert key.encode() not in (await bound.get("_history?_count=500")).body


async def test_no_include_of_a_patient_token_reaches_another_record(bound: Caller) -> None:
    for url in (
        "Practitioner?_revinclude=Observation:performer",
        "Observation?_include=Observation:subject&_include=Observation:performer",
        "Patient?_revinclude=Observation:patient&_revinclude=Condition:patient",
    ):
        page = await bound.get(url)
        ids = {one for one in page.ids if one.partition("/")[0] in {"Observation", "Patient"}}
        assert ids
        assert ids <= OF_KIT | {"Patient/kit"}


# ---------------------------------------------------------------- scopes


async def test_a_narrower_scope_is_a_narrower_view(staff: Caller) -> None:
    labs = staff.with_scope("openid user/Observation.rs")
    assert len(await found(labs, "Observation")) == 7
    assert_outcome(await labs.get("Patient"), 403, "forbidden")
    assert_outcome(await labs.get("Practitioner/desk"), 403, "forbidden")
    included = await labs.get("Observation?_include=Observation:subject")
    assert {one.partition("/")[0] for one in included.ids} == {"Observation"}
    assert_outcome(
        await staff.with_scope("user/Observation.r").get("Observation"), 403, "forbidden"
    )
    assert_outcome(
        await staff.with_scope("user/Observation.s").get("Observation/lab"), 403, "forbidden"
    )


async def test_granular_scopes_are_in_the_query(staff: Caller, bound: Caller) -> None:
    for caller, context, expected in (
        (staff, "user", {"Observation/lab", "Observation/held", *OF_ADA - {"Observation/pulse"}}),
        (bound, "patient", {"Observation/lab", "Observation/held"}),
    ):
        labs = caller.with_scope(f"{context}/Observation.rs?{LABS}")
        assert await found(labs, "Observation?_count=2") == expected
        total = await labs.get("Observation?_total=accurate&_count=1")
        assert total.json["total"] == len(expected)
        assert (await labs.get("Observation/lab")).status == 200
        assert_outcome(await labs.get("Observation/loose"), 404, "not-found")
        assert_outcome(await labs.get("Observation/pulse"), 404, "not-found")
        feed = await labs.get("_history?_count=500")
        assert set(feed.ids) == expected


@pytest.mark.parametrize("scope", ["patient/*.cruds", "system/*.cruds", "openid fhirUser", ""])
async def test_scopes_of_another_context_give_staff_nothing(staff: Caller, scope: str) -> None:
    caller = staff.with_scope(scope)
    for url in ("Observation", "Observation/lab", "Patient", "Practitioner", "_history"):
        assert_outcome(await caller.get(url), 403, "forbidden")


@pytest.mark.parametrize("patient", [None, "kit"])
async def test_with_fhir_user_staff_read_their_own_practitioner_and_no_more(
    staff: Caller, patient: str | None
) -> None:
    caller = staff.who(**_identity(patient)).with_scope("openid fhirUser")
    own = await caller.get("Practitioner/desk")
    assert own.json["name"][0]["family"] == "Desk-Heron"
    assert_outcome(await caller.get("Practitioner/lark"), 404, "not-found")
    assert_outcome(await caller.get("Practitioner"), 403, "forbidden")
    assert_outcome(await caller.with_scope("openid").get("Practitioner/desk"), 403, "forbidden")


# ---------------------------------------------------------------- writes


@pytest.mark.parametrize("patient", [None, "kit"])
async def test_staff_write_nothing_in_any_way(
    staff: Caller, ehr: Caller, patient: str | None
) -> None:
    caller = staff.who(**_identity(patient))
    before = (await ehr.get("_history?_count=500")).body
    lab = an_observation("lab", of="kit", category="laboratory", value=1)
    for tree in (
        an_observation(of="kit"),
        a_communication(of="kit", sender="Practitioner/desk"),
        some_answers(of="kit", source="Practitioner/desk"),
        a_practitioner(),
        a_person(links=["Patient/kit"]),
        resource(
            "Task", None, status="requested", intent="order", **{"for": reference("Patient/kit")}
        ),
    ):
        assert_outcome(await caller.post(tree), 403, "forbidden")
    for tree in (lab, a_practitioner("desk", family="Boss"), a_patient("kit"), a_patient("new")):
        assert_outcome(await caller.put(tree), 403, "forbidden")
    for key in ("Observation/lab", "Observation/theirs", "Observation/nothing"):
        assert_outcome(await caller.delete(key), 403, "forbidden")
    refused = await caller.post(an_observation(of="kit"), if_none_exist="_id=theirs")
    assert_outcome(refused, 403, "forbidden")
    assert (await ehr.get("_history?_count=500")).body == before


@pytest.mark.parametrize("kind", ["batch", "transaction"])
@pytest.mark.parametrize("patient", [None, "kit"])
async def test_a_bundle_has_no_side_door(
    staff: Caller, ehr: Caller, kind: str, patient: str | None
) -> None:
    caller = staff.who(**_identity(patient))
    before = (await ehr.get("_history?_count=500")).body
    lab = an_observation("lab", of="kit", category="laboratory", value=1)
    conditional = a_bundle(kind, ("POST", "Observation", an_observation(of="kit")))
    conditional["entry"][0]["request"]["ifNoneExist"] = "_id=theirs"
    for tree in (
        a_bundle(kind, ("POST", "Observation", an_observation(of="kit"))),
        a_bundle(kind, ("PUT", "Observation/lab", lab)),
        a_bundle(kind, ("DELETE", "Observation/lab")),
        conditional,
    ):
        answer = await caller.bundle(tree)
        assert "403" in _statuses(answer) or answer.status == 403, answer.body
        assert not {"200 OK", "201 Created", "204 No Content"} & _statuses(answer)
    assert (await ehr.get("_history?_count=500")).body == before


def _statuses(answer: Answer) -> set[str]:
    entries = answer.json.get("entry", ())
    found = {entry.get("response", {}).get("status", "") for entry in entries}
    return found | {status[:3] for status in found}


async def test_reads_in_a_batch_are_judged_one_by_one(staff: Caller) -> None:
    answer = await staff.bundle(
        a_bundle(
            "batch",
            ("GET", "Observation/lab"),
            ("GET", "Observation/theirs"),
            ("GET", "Person/ada"),
            ("GET", "AuditEvent"),
        )
    )
    statuses = [entry["response"]["status"][:3] for entry in answer.json["entry"]]
    assert statuses == ["200", "404", "403", "403"]


# ---------------------------------------------------------------- the access log


async def lines(portal: Portal, patient: str, practice: str = DERM) -> list[Json]:
    """The lines that the person whose record it is reads, newest first."""
    page = await Caller(portal, oneself(patient, practice)).get("AuditEvent?_count=60")
    assert page.status == 200
    return [one for one in page.entries if _by_staff(one)]


def _by_staff(line: Json) -> bool:
    return any(
        one.get("who", {}).get("reference", "").startswith("Practitioner/") for one in line["agent"]
    )


async def test_the_log_names_the_practitioner_to_whom_was_looked_at(
    staff: Caller, bound: Caller
) -> None:
    await staff.get("Observation/pulse")
    await bound.get("Observation/lab")
    (mine,) = await lines(staff.portal, "ada")
    (kits,) = await lines(staff.portal, "kit")
    for line, what in ((mine, "Observation/pulse"), (kits, "Observation/lab")):
        agent = line["agent"][0]
        assert agent["who"] == reference("Practitioner/desk")
        assert agent["requestor"] is True
        assert {"reference": what} in [one.get("what") for one in line["entity"]]


async def test_a_search_is_in_the_log_of_each_record_it_found(staff: Caller) -> None:
    await staff.get("Observation?code=8867-4&performer=Practitioner/lark")
    for patient in ("ada", "kit"):
        (line,) = await lines(staff.portal, patient)
        query = base64.b64decode(line["entity"][-1]["query"]).decode()
        assert query == "Observation"  # not what was searched for
    assert await lines(staff.portal, "bo") == []
    assert await lines(staff.portal, "kit", FAMILY) == []


@pytest.mark.parametrize("patient", [None, "kit"])
async def test_a_line_about_what_is_hidden_from_the_person_is_hidden_too(
    staff: Caller, ehr: Caller, patient: str | None
) -> None:
    caller = staff.who(**_identity(patient))
    await caller.get("Observation/held")
    await caller.get("Observation?_id=held")
    await caller.get("Observation?_id=nothing")
    await caller.get("Observation/nothing")
    assert await lines(staff.portal, "kit") == []
    logged = (await ehr.get("AuditEvent?agent=Practitioner/desk&_count=60")).entries
    assert len(logged) == 4


@pytest.mark.parametrize("query", ["_summary=count", "_count=0"])
async def test_a_total_alone_is_not_told_to_staff(staff: Caller, query: str) -> None:
    """It touches no record, so nobody could read in theirs that it was asked for."""
    answer = await staff.get(f"Observation?patient=kit&code=8867-4&{query}")
    assert_outcome(answer, 400, "not-supported")


async def test_a_search_that_finds_nothing_in_one_record_is_written_down_there(
    staff: Caller, ehr: Caller
) -> None:
    caller = staff.who(**_identity("kit"))
    await caller.get("Observation?_id=nothing")
    (line,) = (await ehr.get("AuditEvent?patient=kit&agent=Practitioner/desk")).entries
    assert line["resourceType"] == "AuditEvent"


async def test_a_labelled_item_that_the_person_sees_is_told(staff: Caller) -> None:
    await staff.get("Observation/closed")
    assert len(await lines(staff.portal, "ada")) == 1


async def test_a_tag_of_the_portal_gives_staff_no_more(staff: Caller, ehr: Caller) -> None:
    tagged = {"tag": [{"system": PORTAL_TAG, "code": "directory"}]}
    assert tagged == DIRECTORY
    await ehr.store(a_person("listed", links=["Patient/bo"], meta=tagged))
    assert_outcome(await staff.get("Person/listed"), 403, "forbidden")
