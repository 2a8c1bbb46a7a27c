"""``read``. Source: FHIR R4 §3.1.0.2."""

from __future__ import annotations

import pytest

from tests.builders import a_patient, a_practitioner, an_observation, assert_outcome


async def test_a_read_returns_the_current_version(ehr):
    await ehr.store(a_patient("ada", family="One"), a_patient("ada", family="Two"))
    answer = await ehr.get("Patient/ada")
    assert answer.status == 200
    assert answer.json["name"][0]["family"] == "Two"
    assert answer.json["meta"]["versionId"] == "2"
    assert answer.response.version == 2


async def test_what_was_never_there_is_404(ehr):
    answer = await ehr.get("Patient/nobody")
    assert_outcome(answer, 404, "not-found")
    assert answer.words == ["Patient/nobody is not known"]


async def test_what_was_deleted_is_410(ehr):
    await ehr.store(a_patient("ada"))
    await ehr.delete("Patient/ada")
    assert_outcome(await ehr.get("Patient/ada"), 410, "deleted")


async def test_the_id_of_another_type_is_404(ehr):
    await ehr.store(a_patient("ada"))
    assert_outcome(await ehr.get("Practitioner/ada"), 404, "not-found")


async def test_ids_tell_upper_from_lower_case(ehr):
    await ehr.store(a_patient("ada"), a_patient("ADA", family="Other"))
    assert (await ehr.get("Patient/ada")).json["name"][0]["family"] == "Quill"
    assert (await ehr.get("Patient/ADA")).json["name"][0]["family"] == "Other"
    assert_outcome(await ehr.get("Patient/Ada"), 404, "not-found")


@pytest.mark.parametrize("hidden", ["Patient/kit", "Observation/theirs", "Practitioner/unlisted"])
async def test_hidden_and_absent_are_answered_alike(ehr, ada, hidden):
    name = hidden.partition("/")[0]
    absent = await ada.get(f"{name}/{'x' * (len(hidden) - len(name) - 1)}")
    await ehr.store(
        a_patient("ada"),
        a_patient("kit"),
        an_observation("theirs", of="kit"),
        a_practitioner("unlisted"),
    )
    found = await ada.get(hidden)
    assert found.status == absent.status == 404
    assert found.body.replace(hidden.encode(), b"?") == absent.body.replace(
        f"{name}/{'x' * (len(hidden) - len(name) - 1)}".encode(), b"?"
    )
    await ehr.delete(hidden)
    assert (await ada.get(hidden)).body == found.body


async def test_one_practice_does_not_see_the_other(ehr, other_ehr):
    await ehr.store(a_patient("ada", family="Here"))
    assert_outcome(await other_ehr.get("Patient/ada"), 404, "not-found")
    await other_ehr.store(a_patient("ada", family="There"))
    assert (await ehr.get("Patient/ada")).json["name"][0]["family"] == "Here"
    assert (await other_ehr.get("Patient/ada")).json["name"][0]["family"] == "There"
