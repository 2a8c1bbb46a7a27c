"""``delete``. Source: FHIR R4 §3.1.0.7."""

from __future__ import annotations

from tests.builders import a_patient, an_observation, assert_outcome, some_answers
from tests.resources.test_transaction import versions


async def test_a_deletion_is_a_version(ehr):
    await ehr.store(a_patient("ada"))
    answer = await ehr.delete("Patient/ada")
    assert (answer.status, answer.body) == (204, b"")
    assert answer.response.version == 2
    assert_outcome(await ehr.get("Patient/ada"), 410, "deleted")
    assert (await ehr.get("Patient")).ids == []
    assert (await ehr.get("Patient?name=quill")).ids == []


async def test_deleting_again_changes_nothing(ehr, store):
    await ehr.store(a_patient("ada"))
    await ehr.delete("Patient/ada")
    before = versions(store)
    again = await ehr.delete("Patient/ada")
    assert (again.status, again.response.version) == (204, 2)
    assert versions(store) == before


async def test_what_was_never_there_is_404(ehr, store):
    before = versions(store)
    assert_outcome(await ehr.delete("Patient/nobody"), 404, "not-found")
    assert versions(store) == before


async def test_what_was_deleted_can_be_made_again(ehr):
    await ehr.store(a_patient("ada"))
    await ehr.delete("Patient/ada")
    answer = await ehr.put(a_patient("ada", family="Again"))
    assert answer.status == 201
    assert answer.json["meta"]["versionId"] == "3"
    assert (await ehr.get("Patient?name=again")).ids == ["Patient/ada"]
    assert_outcome(await ehr.get("Patient/ada/_history/2"), 410, "deleted")


async def test_a_stale_if_match_deletes_nothing(ehr, store):
    await ehr.store(a_patient("ada"), a_patient("ada"))
    before = versions(store)
    assert_outcome(await ehr.delete("Patient/ada", if_match='W/"1"'), 412, "conflict")
    assert versions(store) == before
    assert (await ehr.delete("Patient/ada", if_match='W/"2"')).status == 204


async def test_what_refers_to_it_stays(ehr):
    await ehr.store(a_patient("ada"), an_observation("o", of="ada"))
    await ehr.delete("Patient/ada")
    assert (await ehr.get("Observation/o")).json["subject"] == {"reference": "Patient/ada"}


async def test_people_delete_nothing(ehr, ada, store):
    await ehr.store(a_patient("ada"), some_answers("mine"), some_answers("theirs", of="kit"))
    before = versions(store)
    for url in (
        "Patient/ada",
        "QuestionnaireResponse/mine",
        "QuestionnaireResponse/theirs",
        "QuestionnaireResponse/absent",
    ):
        assert_outcome(await ada.delete(url), 403, "forbidden")
    assert versions(store) == before
