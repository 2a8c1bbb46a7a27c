"""``$portal-people``: from a patient to the Persons of whoever may come to the record."""

from __future__ import annotations

from typing import Any

from fhir_portal.embedded.store import EmbeddedStore
from tests.builders import Answer, Caller, a_person, a_related_person, an_account, changed, keep
from tests.staff import a_member_of_staff


def people(answer: Answer) -> list[tuple[Any, ...]]:
    assert answer.status == 200, answer.body
    found = []
    for one in answer.json.get("parameter", ()):
        parts = {
            part["name"]: next(value for name, value in part.items() if name != "name")
            for part in one["part"]
        }
        found.append((parts["person"]["reference"], parts["as"]["reference"], parts["status"]))
    return found


async def test_the_patient_and_those_related_are_found_with_their_accounts(
    accounts: EmbeddedStore, ehr: Caller
) -> None:
    await ehr.store(
        a_person("kit", links=["Patient/kit"]),
        a_related_person("father", of="kit"),
        a_person("pat", links=["RelatedPerson/father"]),
        a_person("bo", links=["Patient/bo"]),
    )
    await keep(accounts, changed(an_account("ada"), disabled=True))
    staff = Caller(ehr.portal, a_member_of_staff())
    for caller in (ehr, staff):
        found = people(await caller.get("Patient/kit/$portal-people"))
        assert found[0] == ("Person/kit", "Patient/kit", "none")  # the patient's own comes first
        assert set(found[1:]) == {
            ("Person/pat", "RelatedPerson/father", "none"),
            ("Person/ada", "RelatedPerson/mother", "disabled"),
        }


async def test_another_practices_people_of_the_same_ids_are_not_found(
    accounts: EmbeddedStore, ehr: Caller, other_ehr: Caller
) -> None:
    assert accounts is not None
    await other_ehr.store(a_person("there", links=["Patient/kit"]))
    found = people(await ehr.get("Patient/kit/$portal-people"))
    assert [person for person, _, _ in found] == ["Person/ada"]


async def test_it_tells_nothing_that_belongs_to_the_account(
    accounts: EmbeddedStore, ehr: Caller
) -> None:
    assert accounts is not None
    answer = await ehr.get("Patient/kit/$portal-people")
    for secret in (b"argon2", b"family-medicine", b"username"):
        assert secret not in answer.body
