"""``Patient/$match``: the front desk sees who may be there already, and only in its practice."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from fhir_portal.operations.match import MATCH_GRADE
from tests.builders import Answer, Caller, Json, a_patient, oneself
from tests.staff import a_member_of_staff

MRN = "https://derm.example/mrn"

pytestmark = pytest.mark.usefixtures("people")


async def ask(who: Caller, patient: Json, **more: Any) -> Answer:
    members = {"count": "valueInteger", "onlyCertainMatches": "valueBoolean"}
    listed: list[Json] = [{"name": "resource", "resource": patient}]
    listed += [{"name": name, members[name]: value} for name, value in more.items()]
    tree = {"resourceType": "Parameters", "parameter": listed}
    return await who.ask("POST", "Patient/$match", tree)


def found(answer: Answer) -> list[tuple[str, float, str]]:
    assert answer.status == 200, answer.body
    assert answer.json["type"] == "searchset"
    return [
        (
            one["resource"]["id"],
            one["search"]["score"],
            next(
                part["valueCode"]
                for part in one["search"]["extension"]
                if part["url"] == MATCH_GRADE
            ),
        )
        for one in answer.json.get("entry", [])
    ]


@pytest.fixture
async def people(ehr: Caller, other_ehr: Caller) -> None:
    await ehr.store(
        a_patient("one", identifier=[{"system": MRN, "value": "7"}]),
        a_patient("two", telecom=[{"system": "phone", "value": "(312) 555-0142"}]),
        a_patient(
            "three",
            family="O'Brien-Marsh",
            birthDate="1990-02-03",
            address=[{"postalCode": "60601"}],
        ),
        a_patient("gone", active=False),
    )
    await other_ehr.store(a_patient("elsewhere", identifier=[{"system": MRN, "value": "7"}]))


@pytest.mark.requirement("portal", "S0-10")
async def test_before_a_record_is_made_the_front_desk_sees_whom_it_may_be(ehr: Caller) -> None:
    """The duplicate check: then the record is made by conditional create, or it is not."""
    desk = Caller(ehr.portal, a_member_of_staff(permissions=("view", "invite")))
    new = a_patient(
        None,
        identifier=[{"system": MRN, "value": "7"}],
        telecom=[{"system": "phone", "value": "+1 312-555-0142"}],
    )
    for who in (desk, ehr):
        listed = found(await ask(who, new))
        assert listed == [("one", 1.0, "certain"), ("two", 0.75, "probable")]
    condition = f"identifier={MRN}|7"
    made = await ehr.post(new, if_none_exist=condition)
    assert (made.status, made.json["id"]) == (200, "one")
    other = a_patient(None, family="Sable", identifier=[{"system": MRN, "value": "8"}])
    assert found(await ask(desk, other)) == []
    made = await ehr.post(other, if_none_exist=f"identifier={MRN}|8")
    assert made.status == 201
    again = await ehr.post(other, if_none_exist=f"identifier={MRN}|8")
    assert (again.status, again.json["id"]) == (200, made.json["id"])


async def test_names_are_found_however_they_are_written(ehr: Caller) -> None:
    for family in ("O'BRIEN", "obrien marsh", "O\u2019Brien-Marsh", "Marsh"):
        wanted = a_patient(None, family=family, birthDate="1990-02-03")
        assert [one[0] for one in found(await ask(ehr, wanted))] == ["three"], family
    wanted = a_patient(None, family="Ada", name=[{"family": "Ada", "given": ["O'Brien Marsh"]}])
    wanted["birthDate"] = "1990-03-02"
    assert found(await ask(ehr, wanted)) == [("three", 0.45, "possible")]


async def test_only_certain_matches_is_one_or_none(ehr: Caller) -> None:
    sure = a_patient(None, identifier=[{"system": MRN, "value": "7"}])
    assert found(await ask(ehr, sure, onlyCertainMatches=True)) == [("one", 1.0, "certain")]
    assert found(await ask(ehr, a_patient(None), onlyCertainMatches=True)) == []
    await ehr.store(a_patient("twin", identifier=[{"system": MRN, "value": "7"}]))
    assert found(await ask(ehr, sure, onlyCertainMatches=True)) == []


async def test_count_bounds_the_answer(ehr: Caller) -> None:
    assert [one[0] for one in found(await ask(ehr, a_patient(None), count=1))] == ["one"]
    for count in (0, -1):
        assert (await ask(ehr, a_patient(None), count=count)).status == 400


async def test_what_cannot_be_looked_for_is_refused(ehr: Caller) -> None:
    nothing = {"resourceType": "Patient", "gender": "female"}
    assert (await ask(ehr, nothing)).status == 422
    assert (await ask(ehr, {"resourceType": "Person", "birthDate": "1984-05-12"})).status == 400
    assert (await ehr.ask("POST", "Patient/$match")).status == 400


async def test_another_practices_records_change_no_answer(ehr: Caller, other_ehr: Caller) -> None:
    wanted = a_patient(None, identifier=[{"system": MRN, "value": "7"}])
    before = (await ask(ehr, wanted)).body
    await other_ehr.store(a_patient("again", identifier=[{"system": MRN, "value": "7"}]))
    assert (await ask(ehr, wanted)).body == before
    assert {one[0] for one in found(await ask(other_ehr, wanted))} == {"elsewhere", "again"}


async def test_staff_need_to_invite_and_to_view_and_people_are_refused(ehr: Caller) -> None:
    for permissions in ({"view"}, {"invite"}, {"view", "audit", "recover"}):
        caller = Caller(ehr.portal, a_member_of_staff(permissions=permissions))
        assert (await ask(caller, a_patient(None))).status == 403
    narrow = a_member_of_staff(permissions=("view", "invite"), scope="user/Patient.r")
    assert (await ask(Caller(ehr.portal, narrow), a_patient(None))).status == 403
    assert (await ask(Caller(ehr.portal, oneself()), a_patient(None))).status == 403


async def test_in_one_opened_record_staff_find_no_other(ehr: Caller) -> None:
    bound = a_member_of_staff(permissions=("view", "invite"), patient="two")
    assert [one[0] for one in found(await ask(Caller(ehr.portal, bound), a_patient(None)))] == [
        "two"
    ]


async def test_records_shown_are_in_the_access_log(ehr: Caller) -> None:
    await ask(ehr, a_patient(None, identifier=[{"system": MRN, "value": "7"}]))
    answer = await ehr.get("AuditEvent?patient=Patient/one")
    assert b'"code":"match"' in answer.body
    expired = replace(ehr.auth, expires=0.0)
    assert (await ask(replace(ehr, auth=expired), a_patient(None))).status == 403
