"""``transaction``: all or nothing. Source: FHIR R4 §3.1.0.11."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from fhir_portal.fhir.interaction import FhirRequest, Prefer
from tests.builders import (
    BASE,
    Answer,
    a_binary,
    a_bundle,
    a_document,
    a_patient,
    a_practitioner,
    an_observation,
    reference,
    resource,
    some_answers,
)

UUID = "urn:uuid:11111111-2222-3333-4444-555555555555"
OTHER = "urn:uuid:99999999-2222-3333-4444-555555555555"


def entry(method: str, url: str, tree: Any = None, *, full_url: str | None = None, **request: Any):
    found: dict[str, Any] = {"request": {"method": method, "url": url, **request}}
    if full_url is not None:
        found["fullUrl"] = full_url
    if tree is not None:
        found["resource"] = tree
    return found


def transaction(*entries: Any, kind: str = "transaction", **more: Any):
    return {"resourceType": "Bundle", "type": kind, "entry": list(entries), **more}


def versions(store) -> list[int]:
    reader = store.database.reader
    return [
        reader.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
        for table in ("version", "resource", "term", "string", "span", "edge")
    ]


def assert_refused(answer: Answer, status: int, code: str, expression: str | None = None) -> None:
    issue = answer.json["issue"][0]
    assert (answer.status, issue["code"]) == (status, code), answer.body
    if expression is not None:
        assert issue["expression"] == [expression], answer.body


def responses(answer: Answer) -> list[Any]:
    assert answer.status == 200, answer.body
    assert answer.json["type"] == "transaction-response"
    return [one["response"] for one in answer.json["entry"]]


async def test_references_between_entries_lead_to_the_new_ids(ehr):
    answer = await ehr.bundle(
        transaction(
            entry("POST", "Observation", an_observation() | {"subject": reference(UUID)}),
            entry("POST", "Patient", a_patient(None), full_url=UUID),
        )
    )
    first, second = responses(answer)
    assert first["status"] == second["status"] == "201 Created"
    patient = second["location"].removeprefix(f"{BASE}/").partition("/_history/")[0]
    observation = first["location"].removeprefix(f"{BASE}/").partition("/_history/")[0]
    stored = await ehr.get(observation)
    assert stored.json["subject"] == {"reference": patient}
    assert (await ehr.get(f"Observation?subject={patient}")).ids == [observation]


async def test_references_in_contained_resources_and_attachments_are_led_too(ehr):
    document = a_document("doc", of="ada")
    document["content"] = [{"attachment": {"url": UUID}}]
    document["author"] = [reference("#who")]
    document["contained"] = [
        {"resourceType": "PractitionerRole", "id": "who", "practitioner": reference(OTHER)}
    ]
    answer = await ehr.bundle(
        transaction(
            entry("PUT", "DocumentReference/doc", document),
            entry("POST", "Binary", a_binary(), full_url=UUID),
            entry("POST", "Practitioner", a_practitioner(), full_url=OTHER),
        )
    )
    responses(answer)
    stored = (await ehr.get("DocumentReference/doc")).json
    assert stored["content"][0]["attachment"]["url"].startswith("Binary/new-")
    assert stored["contained"][0]["practitioner"]["reference"].startswith("Practitioner/new-")


async def test_relative_references_are_read_from_the_full_url_of_their_entry(ehr):
    """FHIR R4 §2.36.4.1: what another server called Patient/1 is what stands beside it here."""
    answer = await ehr.bundle(
        transaction(
            entry(
                "POST",
                "Patient",
                a_patient("1"),
                full_url="https://ehr.example/fhir/Patient/1",
            ),
            entry(
                "POST",
                "Observation",
                an_observation(of="1"),
                full_url="https://ehr.example/fhir/Observation/1",
            ),
            entry("PUT", "Observation/kept", an_observation("kept", of="1")),
        )
    )
    patient, observation, _ = responses(answer)
    own = patient["location"].removeprefix(f"{BASE}/").partition("/_history/")[0]
    found = observation["location"].removeprefix(f"{BASE}/").partition("/_history/")[0]
    assert own != "Patient/1"
    assert (await ehr.get(found)).json["subject"] == {"reference": own}
    assert (await ehr.get("Observation/kept")).json["subject"] == {"reference": "Patient/1"}


async def test_deletes_come_first_then_creates_updates_and_reads(ehr):
    await ehr.store(a_patient("old"), a_patient("ada"))
    answer = await ehr.bundle(
        transaction(
            entry("GET", "Patient?_total=accurate&_sort=_id"),
            entry("GET", "Patient/ada"),
            entry("PUT", "Patient/ada", a_patient("ada", family="Later")),
            entry("POST", "Patient", a_patient(None)),
            entry("DELETE", "Patient/old"),
        )
    )
    found = responses(answer)
    assert [one["status"][:3] for one in found] == ["200", "200", "200", "201", "204"]
    assert answer.entries[1]["name"][0]["family"] == "Later"
    assert answer.entries[0]["total"] == 2
    assert found[2]["etag"] == 'W/"2"'
    assert found[4]["etag"] == 'W/"2"'
    assert "resource" not in answer.json["entry"][4]


async def test_the_answer_has_bodies_as_prefer_says(ehr):
    body = msgspec.json.encode(transaction(entry("POST", "Patient", a_patient(None))))
    asked: list[tuple[Prefer | None, str | None]] = [
        (None, None),
        ("minimal", None),
        ("representation", "Patient"),
        ("OperationOutcome", "OperationOutcome"),
    ]
    for prefer, kind in asked:
        answer = await ehr.perform(FhirRequest("bundle", body=body, prefer=prefer))
        assert answer.entries[0].get("resourceType") == kind
        assert responses(answer)[0]["lastModified"] == "2030-03-17T17:46:40.000Z"


FAULTS: dict[str, tuple[Any, int, str, str | None]] = {
    "a dangling reference": (
        entry("POST", "Observation", an_observation() | {"subject": reference(OTHER)}),
        400,
        "invalid",
        "Bundle.entry[1].resource.subject",
    ),
    "an invalid resource": (
        entry("POST", "Patient", a_patient(None, birthDate="x")),
        400,
        "value",
        "Bundle.entry[1].resource.birthDate",
    ),
    "a broken rule": (
        entry("POST", "Patient", a_patient(None, gender="F")),
        422,
        "code-invalid",
        "Bundle.entry[1].resource.gender",
    ),
    "another type than the address": (
        entry("POST", "Observation", a_patient(None)),
        400,
        "invalid",
        "Bundle.entry[1].resource.resourceType",
    ),
    "another id than the address": (
        entry("PUT", "Patient/eve", a_patient("bob")),
        400,
        "invalid",
        "Bundle.entry[1].resource.id",
    ),
    "a stale ifMatch": (
        entry("PUT", "Patient/ada", a_patient("ada"), ifMatch='W/"7"'),
        412,
        "conflict",
        "Bundle.entry[1]",
    ),
    "an ifMatch that is no text": (
        entry("PUT", "Patient/ada", a_patient("ada"), ifMatch=7),
        400,
        "invalid",
        "Bundle.entry[1].request.ifMatch",
    ),
    "a misspelt condition": (
        entry("PUT", "Patient/ada", a_patient("ada"), ifmatch='W/"7"'),
        400,
        "structure",
        "Bundle.entry[1].request.ifmatch",
    ),
    "an unknown element of the entry": (
        entry("PUT", "Patient/ada", a_patient("ada")) | {"priority": 1},
        400,
        "structure",
        "Bundle.entry[1].priority",
    ),
    "the deletion of nothing": (
        entry("DELETE", "Patient/nobody"),
        404,
        "not-found",
        "Bundle.entry[1]",
    ),
    "a read of nothing": (entry("GET", "Patient/nobody"), 404, "not-found", "Bundle.entry[1]"),
    "a bad search": (entry("GET", "Patient?favourite=x"), 400, "invalid", "Bundle.entry[1]"),
    "a search that is not UTF-8": (
        entry("GET", "Patient?name=%ff"),
        400,
        "invalid",
        "Bundle.entry[1]",
    ),
    "the same resource twice": (
        entry("PUT", "Patient/new", a_patient("new")),
        400,
        "invalid",
        "Bundle.entry[1]",
    ),
    "the same fullUrl twice": (
        entry("POST", "Patient", a_patient(None), full_url=UUID),
        400,
        "invalid",
        "Bundle.entry[1].fullUrl",
    ),
    "a relative fullUrl": (
        entry("POST", "Patient", a_patient(None), full_url="Patient/1"),
        400,
        "invalid",
        "Bundle.entry[1].fullUrl",
    ),
    "a fullUrl that is no text": (
        entry("POST", "Patient", a_patient(None)) | {"fullUrl": 7},
        400,
        "invalid",
        "Bundle.entry[1].fullUrl",
    ),
    "a type that is not served": (
        entry("POST", "MedicinalProduct", {"resourceType": "MedicinalProduct"}),
        404,
        "not-supported",
        "Bundle.entry[1]",
    ),
    "a read of a type that is not served": (
        entry("GET", "MedicinalProduct/1"),
        404,
        "not-supported",
        "Bundle.entry[1]",
    ),
    "a type that is never written": (
        entry("POST", "AuditEvent", {"resourceType": "AuditEvent"}),
        403,
        "forbidden",
        "Bundle.entry[1]",
    ),
    "PATCH": (
        entry("PATCH", "Patient/ada", a_patient("ada")),
        400,
        "not-supported",
        "Bundle.entry[1].request",
    ),
    "a conditional update": (
        entry("PUT", "Patient?name=x", a_patient(None)),
        400,
        "not-supported",
        "Bundle.entry[1].request",
    ),
    "a conditional delete": (
        entry("DELETE", "Patient?name=x"),
        400,
        "not-supported",
        "Bundle.entry[1].request",
    ),
    "a history": (
        entry("GET", "Patient/ada/_history"),
        400,
        "not-supported",
        "Bundle.entry[1]",
    ),
    "a bundle within": (
        entry("POST", "", transaction()),
        400,
        "not-supported",
        "Bundle.entry[1].request",
    ),
    "metadata": (entry("GET", "metadata"), 400, "not-supported", "Bundle.entry[1].request"),
    "a leading slash": (
        entry("GET", "/Patient/ada"),
        400,
        "not-supported",
        "Bundle.entry[1].request",
    ),
    "a path trick": (
        entry("PUT", "Patient/..", a_patient("..")),
        400,
        "not-supported",
        "Bundle.entry[1].request",
    ),
    "a write without a resource": (
        entry("POST", "Patient"),
        400,
        "invalid",
        "Bundle.entry[1].resource",
    ),
    "a read with a resource": (
        entry("GET", "Patient/ada", a_patient("ada")),
        400,
        "invalid",
        "Bundle.entry[1].resource",
    ),
    "no request": ({"resource": a_patient(None)}, 400, "invalid", "Bundle.entry[1].request"),
    "a request that is text": (
        {"request": "GET Patient"},
        400,
        "invalid",
        "Bundle.entry[1].request",
    ),
    "a method that is no text": (
        {"request": {"method": 1, "url": "Patient/ada"}},
        400,
        "invalid",
        "Bundle.entry[1].request",
    ),
    "a conditional reference to nothing": (
        entry(
            "POST", "Observation", an_observation() | {"subject": reference("Patient?name=nobody")}
        ),
        412,
        "conflict",
        "Bundle.entry[1].resource.subject",
    ),
    "a conditional reference to several": (
        entry(
            "POST", "Observation", an_observation() | {"subject": reference("Patient?name=quill")}
        ),
        412,
        "conflict",
        "Bundle.entry[1].resource.subject",
    ),
    "a conditional reference that is not clear": (
        entry("POST", "Observation", an_observation() | {"subject": reference("Patient?_count=1")}),
        400,
        "invalid",
        "Bundle.entry[1].resource.subject",
    ),
}


@pytest.mark.parametrize(("faulty", "status", "code", "expression"), FAULTS.values(), ids=FAULTS)
async def test_one_bad_entry_and_nothing_is_stored(ehr, store, faulty, status, code, expression):
    await ehr.store(a_patient("ada"), a_patient("kit"))
    before = versions(store)
    answer = await ehr.bundle(
        transaction(
            entry("PUT", "Patient/new", a_patient("new"), full_url=UUID),
            faulty,
            entry("DELETE", "Patient/kit"),
        )
    )
    assert_refused(answer, status, code, expression)
    assert versions(store) == before
    assert (await ehr.get("Patient/new")).status == 404
    assert (await ehr.get("Patient/kit")).status == 200


async def test_what_fails_last_undoes_what_was_done_first(ehr, store):
    """The stale update is found when deletes and creates were applied already."""
    await ehr.store(a_patient("ada"), a_patient("kit"))
    before = versions(store)
    answer = await ehr.bundle(
        transaction(
            entry("DELETE", "Patient/kit"),
            *(entry("POST", "Observation", an_observation()) for _ in range(30)),
            entry("PUT", "Patient/ada", a_patient("ada"), ifMatch='W/"2"'),
        )
    )
    assert_refused(answer, 412, "conflict", "Bundle.entry[31]")
    assert versions(store) == before
    created = await ehr.post(an_observation())
    assert created.json["meta"]["versionId"] == "1"


async def test_a_conditional_reference_leads_to_what_the_writer_can_see(ehr, other_ehr):
    await other_ehr.store(a_patient("theirs", family="Finch"))
    await ehr.store(a_patient("ours", family="Finch"))
    sent = transaction(
        entry(
            "PUT",
            "Observation/o",
            an_observation("o") | {"subject": reference("Patient?name=finch")},
        )
    )
    responses(await ehr.bundle(sent))
    assert (await ehr.get("Observation/o")).json["subject"] == {"reference": "Patient/ours"}


async def test_a_conditional_create_is_made_once_and_referred_to(ehr):
    identified = a_patient(None, identifier=[{"system": "urn:x:mrn", "value": "7"}])
    sent = transaction(
        entry("POST", "Patient", identified, full_url=UUID, ifNoneExist="identifier=urn:x:mrn|7"),
        entry("POST", "Observation", an_observation() | {"subject": reference(UUID)}),
    )
    first, second = responses(await ehr.bundle(sent)), responses(await ehr.bundle(sent))
    assert [one["status"] for one in first] == ["201 Created", "201 Created"]
    assert [one["status"] for one in second] == ["200 OK", "201 Created"]
    assert first[0]["location"] == second[0]["location"]
    patient = first[0]["location"].removeprefix(f"{BASE}/").partition("/_history/")[0]
    assert len((await ehr.get(f"Observation?subject={patient}")).ids) == 2


async def test_a_conditional_create_with_several_matches_undoes_everything(ehr, store):
    identified = a_patient(None, identifier=[{"system": "urn:x:mrn", "value": "7"}])
    for _ in range(2):
        await ehr.post(identified)
    before = versions(store)
    answer = await ehr.bundle(
        transaction(
            entry("POST", "Observation", an_observation()),
            entry("POST", "Patient", identified, ifNoneExist="identifier=urn:x:mrn|7"),
        )
    )
    assert_refused(answer, 412, "conflict", "Bundle.entry[1]")
    assert versions(store) == before


async def test_two_conditional_creates_of_one_thing_are_refused_together(ehr, store):
    identified = a_patient(None, identifier=[{"system": "urn:x:mrn", "value": "7"}])
    before = versions(store)
    one = entry("POST", "Patient", identified, ifNoneExist="identifier=urn:x:mrn|7")
    answer = await ehr.bundle(transaction(one, one))
    assert_refused(answer, 409, "conflict", "Bundle.entry[1]")
    assert versions(store) == before


async def test_what_a_conditional_create_found_may_be_updated_beside_it_in_either_order(ehr):
    await ehr.store(a_patient("ada", identifier=[{"system": "urn:x:mrn", "value": "7"}]))
    found = entry("POST", "Patient", a_patient(None), ifNoneExist="identifier=urn:x:mrn|7")
    changed = entry("PUT", "Patient/ada", a_patient("ada", active=True))
    for entries in ((found, changed), (changed, found)):
        await ehr.store(a_patient("ada", identifier=[{"system": "urn:x:mrn", "value": "7"}]))
        responses(await ehr.bundle(transaction(*entries)))


async def test_an_empty_transaction_is_answered(ehr):
    for sent in (transaction(), {"resourceType": "Bundle", "type": "transaction"}):
        answer = await ehr.bundle(sent)
        assert answer.json == {"resourceType": "Bundle", "type": "transaction-response"}


@pytest.mark.parametrize(
    ("sent", "code", "expression"),
    [
        (a_bundle("collection"), "invalid", "Bundle.type"),
        (a_bundle("searchset"), "invalid", "Bundle.type"),
        (a_bundle("Transaction"), "invalid", "Bundle.type"),
        ({"resourceType": "Bundle"}, "invalid", "Bundle.type"),
        ({"resourceType": "Bundle", "type": ["transaction"]}, "invalid", "Bundle.type"),
        ({"resourceType": "Bundle", "type": {"$gt": ""}}, "invalid", "Bundle.type"),
        (a_patient(None), "invalid", "resourceType"),
        (transaction() | {"entry": {}}, "invalid", "Bundle.entry"),
        (transaction() | {"entry": "x"}, "invalid", "Bundle.entry"),
        (transaction() | {"entry": None}, "invalid", "Bundle.entry"),
        (transaction() | {"entry": ["x"]}, "invalid", "Bundle.entry"),
        (transaction() | {"entries": []}, "structure", "Bundle.entries"),
    ],
)
async def test_what_is_no_transaction_is_refused(ehr, sent, code, expression):
    answer = await ehr.ask("POST", "", sent)
    assert_refused(answer, 400, code, expression)


async def test_more_than_5000_entries_are_too_many(ehr, store):
    before = versions(store)
    for kind in ("transaction", "batch"):
        answer = await ehr.bundle(transaction(*[entry("GET", "Patient/a")] * 5001, kind=kind))
        assert_refused(answer, 413, "too-long")
    assert versions(store) == before


async def test_a_large_transaction_is_one_commit(ehr, store):
    count = 400
    sent = transaction(
        entry("POST", "Patient", a_patient(None), full_url=UUID),
        *(
            entry("POST", "Observation", an_observation() | {"subject": reference(UUID)})
            for _ in range(count)
        ),
    )
    _, commits = await store.epoch()
    assert len(responses(await ehr.bundle(sent))) == count + 1
    assert (await store.epoch())[1] == commits + 1
    assert (await ehr.get("Observation?_summary=count")).json["total"] == count


async def test_each_entry_has_its_row_in_the_access_log(ehr, store):
    await ehr.store(a_patient("ada"))
    sent = transaction(
        entry("GET", "Patient/ada"), entry("PUT", "Observation/o", an_observation("o"))
    )
    responses(await ehr.bundle(sent))
    rows = await store.log.of_record(
        ehr.auth.practice, "ada", agent=None, told=False, low=0, high=2**60, before=None, limit=10
    )
    assert [(one.row.interaction, one.row.what) for one in rows[:2]] == [
        ("update", "Observation/o"),
        ("read", "Patient/ada"),
    ]


async def test_a_person_writes_in_a_transaction_only_what_they_may_write(ehr, ada, store):
    await ehr.store(a_patient("ada"), a_patient("kit"))
    own = entry("POST", "QuestionnaireResponse", some_answers())
    responses(await ada.bundle(transaction(own)))
    before = versions(store)
    for faulty, status in (
        (entry("POST", "Observation", an_observation()), 403),
        (entry("PUT", "Patient/ada", a_patient("ada")), 403),
        (entry("DELETE", "Patient/ada"), 403),
        (entry("POST", "QuestionnaireResponse", some_answers(of="kit")), 403),
        (entry("POST", "QuestionnaireResponse", some_answers(source="Patient/kit")), 403),
        (entry("PUT", "QuestionnaireResponse/x", some_answers("x")), 404),
        (
            entry(
                "POST",
                "QuestionnaireResponse",
                some_answers(encounter=reference("Encounter/nobody")),
            ),
            422,
        ),
        (entry("GET", "Patient/kit"), 404),
        (entry("POST", "Consent", resource("Consent", None)), 403),
    ):
        answer = await ada.bundle(transaction(own, faulty))
        assert answer.status == status, answer.body
        assert versions(store) == before
