"""``vread``. Source: FHIR R4 §3.1.0.3."""

from __future__ import annotations

import pytest

from tests.builders import a_patient, an_observation, assert_outcome


async def test_every_version_stays_as_it_was(ehr):
    made = [await ehr.put(a_patient("ada", family=family)) for family in ("One", "Two", "Three")]
    for number, answer in enumerate(made, 1):
        found = await ehr.get(f"Patient/ada/_history/{number}")
        assert found.body == answer.body
        assert found.json["meta"]["versionId"] == str(number)


@pytest.mark.parametrize(
    "version", ["0", "4", "99", "01", "1.0", "-1", "one", "9" * 15, "9" * 64, "1e0"]
)
async def test_a_version_that_is_not_there_is_404(ehr, version):
    await ehr.store(a_patient("ada"))
    assert_outcome(await ehr.get(f"Patient/ada/_history/{version}"), 404, "not-found")


async def test_the_version_that_deleted_is_410_and_the_earlier_ones_stay(ehr):
    await ehr.store(a_patient("ada"))
    await ehr.delete("Patient/ada")
    assert_outcome(await ehr.get("Patient/ada/_history/2"), 410, "deleted")
    assert (await ehr.get("Patient/ada/_history/1")).status == 200


async def test_a_version_of_another_record_stays_hidden_after_it_moved(ehr, ada):
    """Both the version and the current one must be the caller's."""
    await ehr.store(a_patient("ada"), a_patient("kit"), an_observation("o", of="kit"))
    await ehr.store(an_observation("o", of="ada"))
    assert_outcome(await ada.get("Observation/o/_history/1"), 404, "not-found")
    assert (await ada.get("Observation/o/_history/2")).status == 200
    await ehr.store(an_observation("o", of="kit"))
    assert_outcome(await ada.get("Observation/o/_history/2"), 404, "not-found")
