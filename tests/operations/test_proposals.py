"""Changes that people propose: made in the fitting section, decided field by field, told of."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from fhir_portal.embedded.store import EmbeddedStore
from fhir_portal.notify import jobs
from fhir_portal.notify.outbox import OutboxMessage
from fhir_portal.operations.proposal_jobs import proposal_jobs
from fhir_portal.portal import Portal
from tests.builders import (
    DERM,
    RESTRICTED,
    START,
    WITHHELD,
    Caller,
    Json,
    a_grant,
    a_patient,
    a_proxy,
    a_task,
    assert_outcome,
    oneself,
    reference,
)
from tests.operations.invitations import staff
from tests.operations.messages import a_prescription
from tests.operations.proposing import (
    HOME,
    MAIL,
    NEW,
    OLD,
    call,
    cleared,
    decision,
    details,
    inside,
    not_taken,
    outcomes,
    part,
    proposed,
    reviewed,
    task_of,
    version,
)
from tests.staff import a_member_of_staff

PRONOUNS = "http://hl7.org/fhir/StructureDefinition/individual-pronouns"
CODE = "https://fhir-portal.example/ig/CodeSystem/portal-task"


@pytest.fixture(autouse=True)
async def on_file(practice: EmbeddedStore, ehr: Caller) -> None:
    """Ada's record is at its second version, Kit's at its third; of Ada a good deal is on file."""
    assert practice is not None
    await ehr.store(
        a_patient("ada", telecom=[OLD, MAIL], address=[HOME], identifier=[{"value": "MRN-1"}]),
        a_patient("kit", telecom=[OLD]),
        a_prescription("cream"),
        a_prescription("hidden", meta=WITHHELD),
        a_prescription("kits", of="kit"),
        a_grant("grant", of="kit", to="mother", sections=["demographics"], act=["demographics"]),
    )


@pytest.fixture
def ada(portal: Portal) -> Caller:
    return Caller(portal, oneself("ada"))


@pytest.fixture
def front(practice: EmbeddedStore, portal: Portal) -> Caller:
    assert practice is not None
    return staff(portal, "forms")


def a_mother(portal: Portal, *sections: str, act: tuple[str, ...] | None = None) -> Caller:
    proxy = a_proxy(sections=sections, act=sections if act is None else act)
    return Caller(portal, replace(proxy, account="ada"))


async def tasks(caller: Caller) -> list[Json]:
    return (await caller.get(f"Task?code={CODE}|propose-demographics")).entries


async def letters(portal: Portal, store: EmbeddedStore) -> list[OutboxMessage]:
    """What the jobs have written to people about proposals."""
    functions = proposal_jobs(portal.server)
    await jobs.work_off(store, functions, worker="w", clock=portal.server.clock)
    return [one for one in await store.every(OutboxMessage) if "proposal" in one.template]


# ---------------------------------------------------------------- proposing


@pytest.mark.requirement("portal", "S0-40", "S1-29")
async def test_details_are_proposed_and_decided_about_field_by_field(
    practice: EmbeddedStore, ada: Caller, front: Caller, ehr: Caller
) -> None:
    pronouns = {
        "url": PRONOUNS,
        "extension": [{"url": "value", "valueCodeableConcept": {"text": "she/her"}}],
    }
    home = HOME | {"line": ["14 Oak"]}
    answer = await proposed(
        ada,
        details(telecom=[NEW, MAIL], address=[home], birthDate="1984-05-12", extension=[pronouns]),
        version(2),
    )
    task = await task_of(ada, answer)
    assert (task["status"], task["intent"]) == ("requested", "proposal")
    assert task["requester"] == task["for"] == reference("Patient/ada")
    assert inside(task, "p1") == {
        "telecom": [NEW, MAIL],
        "address": [home],
        "extension": [pronouns],
    }
    assert inside(task, "b1") == {"telecom": [OLD, MAIL], "address": [HOME]}
    assert [e["valueString"] for e in task["input"][0]["extension"][1:]] == [
        *("pronouns", "telecom", "address"),
    ]
    assert (await ada.get("Patient/ada")).json["telecom"] == [OLD, MAIL], "nothing changed yet"
    assert await letters(ada.portal, practice) == []
    decided = await reviewed(
        front,
        task,
        decision("p1", "accept", "telecom", "pronouns"),
        decision("p1", "refuse", "address", reason_String="That street is not in this town"),
    )
    assert decided.status == 200, decided.body
    record = (await ada.get("Patient/ada")).json
    assert record["telecom"] == [NEW, MAIL]
    assert record["extension"] == [pronouns]
    assert record["address"] == [HOME]
    assert record["identifier"] == [{"value": "MRN-1"}]
    after = (await ada.get(f"Task/{task['id']}")).json
    assert after["status"] == "completed"
    assert outcomes(after) == [
        ("accepted", "pronouns", ""),
        ("accepted", "telecom", ""),
        ("refused", "address", "That street is not in this town"),
    ]
    (told,) = await letters(ada.portal, practice)
    assert (told.template, told.to) == ("proposal-answered", f"record:{DERM}/Patient/ada")
    assert "555" not in repr(told)
    found = (await ehr.get("Provenance?target=Patient/ada")).entries
    (provenance,) = [one for one in found if len(one["agent"]) == 2]
    kinds = [one["type"]["coding"][0]["code"] for one in provenance["agent"]]
    assert kinds == ["author", "verifier"]
    assert provenance["entity"][0]["what"] == reference(f"Task/{task['id']}")
    assert provenance["target"] == [reference("Patient/ada/_history/3")]


async def test_a_whole_resource_can_be_sent_and_only_what_differs_is_proposed(
    ada: Caller, ehr: Caller
) -> None:
    whole = (await ada.get("Patient/ada")).json
    whole["maritalStatus"] = {"text": "married"}
    task = await task_of(
        ada, await proposed(ada, {"name": "patient", "resource": whole}, version(2))
    )
    assert inside(task, "p1") == {"maritalStatus": {"text": "married"}}
    changed = whole | {"identifier": [{"value": "MRN-2"}], "active": False}
    answer = await proposed(ada, {"name": "patient", "resource": changed}, version(2))
    assert_outcome(answer, 422, "processing")
    assert len(await tasks(ehr)) == 1


async def test_a_field_can_be_emptied(ada: Caller, front: Caller) -> None:
    task = await task_of(ada, await proposed(ada, cleared("address"), version(2)))
    assert (await reviewed(front, task, {"name": "others", "valueCode": "accept"})).status == 200
    assert "address" not in (await ada.get("Patient/ada")).json


async def test_staff_accept_something_else_in_its_place(ada: Caller, front: Caller) -> None:
    task = await task_of(ada, await proposed(ada, details(telecom=[NEW, MAIL]), version(2)))
    better = {"resourceType": "Patient", "telecom": [NEW | {"rank": 1}, MAIL], "gender": "male"}
    answer = await reviewed(front, task, decision("p1", "accept", "telecom", resource=better))
    assert answer.status == 200, answer.body
    record = (await ada.get("Patient/ada")).json
    assert record["telecom"][0] == NEW | {"rank": 1}
    assert "gender" not in record, "nothing but the field"


@pytest.mark.requirement("portal", "S0-40")
async def test_what_the_ehr_changed_meanwhile_is_shown_and_never_silently_overwritten(
    ada: Caller, front: Caller, ehr: Caller
) -> None:
    task = await task_of(
        ada,
        await proposed(
            ada, details(telecom=[NEW], address=[HOME | {"city": "Aurora"}]), version(2)
        ),
    )
    theirs = OLD | {"value": "+1 312 555 0100"}
    there = {n: v for n, v in (await ehr.get("Patient/ada")).json.items() if n != "meta"}
    await ehr.store(there | {"telecom": [theirs]})
    answer = await reviewed(front, task, {"name": "others", "valueCode": "accept"})
    assert answer.status == 412
    assert "telecom" in answer.words[0]
    assert "version 3" in answer.words[0]
    assert (await ada.get("Patient/ada")).json["telecom"] == [theirs]
    # What the EHR left alone needs no second look.
    partly = await reviewed(
        front,
        task,
        decision("p1", "accept", "telecom", version_String="2"),
        decision("p1", "accept", "address"),
    )
    assert partly.status == 412
    looked = await reviewed(
        front,
        task,
        decision("p1", "accept", "telecom", version_String="3"),
        decision("p1", "accept", "address"),
    )
    assert looked.status == 200, looked.body
    record = (await ada.get("Patient/ada")).json
    assert (record["telecom"], record["address"][0]["city"]) == ([NEW], "Aurora")


async def test_what_was_changed_since_it_was_looked_at_is_not_proposed(
    ada: Caller, ehr: Caller
) -> None:
    there = {n: v for n, v in (await ehr.get("Patient/ada")).json.items() if n != "meta"}
    await ehr.store(there | {"telecom": [MAIL]})
    answer = await proposed(ada, details(telecom=[NEW]), version(2))
    assert answer.status == 412
    assert "telecom" in answer.words[0]
    assert (await proposed(ada, details(address=[]), version(2))).status in {400, 422}
    assert (await proposed(ada, details(gender="female"), version(2))).status == 200


async def test_a_proxy_who_looked_at_an_earlier_version_is_to_look_again(portal: Portal) -> None:
    """Earlier versions are not shown to them; that there was one is no secret."""
    acting = a_mother(portal, "demographics")
    answer = await proposed(acting, details(telecom=[NEW]), version(2), of="kit")
    assert answer.status == 412
    never = await proposed(acting, details(telecom=[NEW]), version(9), of="kit")
    assert never.status == 422


async def test_an_ehr_sees_proposals_and_answers_them_by_a_transaction(
    practice: EmbeddedStore, ada: Caller, ehr: Caller, front: Caller
) -> None:
    task = await task_of(ada, await proposed(ada, details(telecom=[NEW]), version(2)))
    assert [one["id"] for one in await tasks(ehr)] == [task["id"]]
    assert len((await ehr.get(f"Task/{task['id']}/_history")).entries) == 1
    record = (await ehr.get("Patient/ada")).json | {"telecom": [NEW]}
    answered = (await ehr.get(f"Task/{task['id']}")).json | {"status": "completed"}
    made = await ehr.bundle(
        {
            "resourceType": "Bundle",
            "type": "transaction",
            "entry": [
                {"resource": one, "request": {"method": "PUT", "url": f"{kind}/{one['id']}"}}
                for kind, one in (("Patient", record), ("Task", answered))
            ],
        }
    )
    assert made.status == 200, made.body
    assert (await ada.get("Patient/ada")).json["telecom"] == [NEW]
    assert len(await letters(ada.portal, practice)) == 1
    again = await reviewed(front, task, {"name": "others", "valueCode": "accept"})
    assert again.status == 409


async def test_a_proposal_is_taken_back_while_nobody_has_decided(
    practice: EmbeddedStore, ada: Caller, front: Caller
) -> None:
    task = await task_of(ada, await proposed(ada, details(telecom=[NEW]), version(2)))
    assert (await proposed(ada, details(telecom=[MAIL]), version(2))).status == 409
    for _ in range(2):
        answer = await call(ada, f"Task/{task['id']}", "cancel-proposal")
        assert answer.status == 200, answer.body
    assert (await ada.get(f"Task/{task['id']}")).json["status"] == "cancelled"
    assert (await reviewed(front, task, decision("p1", "accept"))).status == 409
    assert (await proposed(ada, details(telecom=[MAIL]), version(2))).status == 200
    assert await letters(ada.portal, practice) == []


async def test_what_was_decided_is_not_taken_back(ada: Caller, front: Caller) -> None:
    task = await task_of(ada, await proposed(ada, details(telecom=[NEW]), version(2)))
    await reviewed(front, task, decision("p1", "refuse", reason_String="Call us"))
    assert (await ada.get(f"Task/{task['id']}")).json["status"] == "rejected"
    assert (await call(ada, f"Task/{task['id']}", "cancel-proposal")).status == 409


async def test_of_many_at_once_one_is_made_and_one_decides(ada: Caller, front: Caller) -> None:
    answers = await asyncio.gather(
        *(proposed(ada, details(telecom=[NEW]), version(2)) for _ in range(5))
    )
    assert sorted(one.status for one in answers) == [200, 409, 409, 409, 409]
    (task,) = await tasks(ada)
    others: Json = {"name": "others", "valueCode": "accept"}
    decided = await asyncio.gather(*(reviewed(front, task, others) for _ in range(5)))
    assert sorted(one.status for one in decided) == [200, 409, 409, 409, 409]


# ---------------------------------------------------------------- what cannot be proposed

WRONG: dict[str, tuple[list[Json], int]] = {
    "nothing": ([], 422),
    "what is on file": ([details(telecom=[OLD, MAIL]), version(2)], 422),
    "without the version": ([details(telecom=[NEW])], 400),
    "a version that is none": ([details(telecom=[NEW]), version(99)], 422),
    "a version that is no number": (
        [details(telecom=[NEW]), {"name": "version", "valueString": "²"}],
        422,
    ),
    "an identifier": ([details(identifier=[{"value": "X"}]), version(2)], 422),
    "another patient": (
        [{"name": "patient", "resource": a_patient("bo", telecom=[NEW])}, version(2)],
        422,
    ),
    "a link": (
        [details(link=[{"other": reference("Patient/bo"), "type": "seealso"}]), version(2)],
        422,
    ),
    "a reference in a contact": (
        [details(contact=[{"organization": reference("Organization/derm")}]), version(2)],
        422,
    ),
    "an extension of nobody": (
        [details(extension=[{"url": "https://x.example/e", "valueString": "x"}]), version(2)],
        422,
    ),
    "an extension within": (
        [
            details(telecom=[NEW | {"extension": [{"url": "https://x.example", "valueUri": "x"}]}]),
            version(2),
        ],
        422,
    ),
    "a reference in the pronouns": (
        [
            details(
                extension=[
                    {
                        "url": PRONOUNS,
                        "extension": [{"url": "value", "valueReference": reference("Patient/bo")}],
                    }
                ]
            ),
            version(2),
        ],
        422,
    ),
    "a file in the pronouns": (
        [
            details(
                extension=[
                    {
                        "url": PRONOUNS,
                        "extension": [
                            {
                                "url": "value",
                                "valueAttachment": {"contentType": "a/b", "url": "Binary/x"},
                            }
                        ],
                    }
                ]
            ),
            version(2),
        ],
        422,
    ),
    "a photo by its address": (
        [details(photo=[{"contentType": "image/png", "url": "Binary/x"}]), version(2)],
        422,
    ),
    "no date": ([details(birthDate="soon"), version(2)], 400),
    "to clear what is none": ([cleared("identifier"), version(2)], 422),
    "to clear and to set": ([details(telecom=[NEW]), cleared("telecom"), version(2)], 422),
    "a novel": ([details(name=[{"family": "Q" * 30_000}]), version(2)], 422),
    "a parameter of nobody": ([{"name": "else", "valueString": "x"}], 400),
    "two patients": ([details(telecom=[NEW]), details(telecom=[MAIL]), version(2)], 400),
    "a medicine of somebody else": ([not_taken("MedicationRequest/kits")], 404),
    "a medicine that is withheld": ([not_taken("MedicationRequest/hidden")], 404),
    "a medicine that is none": ([not_taken("Patient/ada")], 422),
    "a medicine twice": (
        [not_taken("MedicationRequest/cream"), not_taken("MedicationRequest/cream")],
        409,
    ),
    "one wrong of two": (
        [details(telecom=[NEW]), version(2), not_taken("MedicationRequest/kits")],
        404,
    ),
}


@pytest.mark.parametrize("given", WRONG.values(), ids=WRONG)
async def test_what_is_proposed_wrongly_is_refused_and_leaves_nothing(
    ada: Caller, ehr: Caller, given: tuple[list[Json], int]
) -> None:
    parameters, status = given
    answer = await proposed(ada, *parameters)
    assert answer.status == status, answer.body
    assert (await ehr.get("Task")).entries == []
    assert (await ehr.get("Patient/ada")).json["meta"]["versionId"] == "2"


async def test_more_than_anybody_looks_at_is_not_proposed(ada: Caller, ehr: Caller) -> None:
    await ehr.store(*(a_prescription(f"m{at}") for at in range(22)))
    for at in range(20):
        assert (await proposed(ada, not_taken(f"MedicationRequest/m{at}"))).status == 200
    assert (await proposed(ada, not_taken("MedicationRequest/m21"))).status == 409


REVIEWS: dict[str, list[Json]] = {
    "none": [],
    "not about each field": [decision("p1", "accept", "telecom")],
    "about what is not proposed": [decision("p1", "accept", "gender")],
    "about another proposal": [decision("p2", "accept")],
    "twice": [decision("p1", "accept", "telecom"), decision("p1", "refuse", "telecom")],
    "in another way": [decision("p1", "perhaps")],
    "with something in the place of a refusal": [
        decision("p1", "refuse", resource={"resourceType": "Patient"})
    ],
    "with another type in its place": [
        decision("p1", "accept", resource={"resourceType": "Person", "name": [{"text": "x"}]})
    ],
    "with something that is no patient": [
        decision("p1", "accept", resource={"resourceType": "Patient", "telecom": [{"use": "old"}]})
    ],
    "with a long reason": [decision("p1", "refuse", reason_String="x" * 600)],
}


@pytest.mark.parametrize("given", REVIEWS.values(), ids=REVIEWS)
async def test_what_is_decided_wrongly_changes_nothing(
    ada: Caller, front: Caller, given: list[Json]
) -> None:
    made = await proposed(ada, details(telecom=[NEW], address=[HOME | {"city": "X"}]), version(2))
    task = await task_of(ada, made)
    answer = await reviewed(front, task, *given)
    if given == REVIEWS["with something that is no patient"]:
        assert answer.status in {200, 422}  # a contact point that says nothing is FHIR still
        return
    assert answer.status == 422, answer.body
    assert (await ada.get(f"Task/{task['id']}")).json["status"] == "requested"
    assert (await ada.get("Patient/ada")).json["meta"]["versionId"] == "2"


# ---------------------------------------------------------------- medicines


@pytest.mark.requirement("portal", "S2-11")
async def test_a_medicine_that_is_not_taken_is_reported(ada: Caller, front: Caller) -> None:
    made = await proposed(
        ada, not_taken("MedicationRequest/cream", since_Date="2029-06-01", note_String="It burned")
    )
    task = await task_of(ada, made)
    assert task["code"]["coding"][0]["code"] == "propose-medications"
    assert (await ada.get("MedicationStatement")).entries == []
    assert (await reviewed(front, task, decision("p1", "accept"))).status == 200
    (said,) = (await ada.get("MedicationStatement")).entries
    assert said["status"] == "not-taken"
    assert said["medicationCodeableConcept"] == {"text": "a cream"}
    assert said["derivedFrom"] == [reference("MedicationRequest/cream")]
    assert said["informationSource"] == reference("Patient/ada")
    assert said["effectivePeriod"] == {"start": "2029-06-01"}
    assert said["meta"]["tag"][0]["code"] == "patient-reported"


async def test_a_medicine_that_is_referred_to_is_said_with_its_name(
    ada: Caller, ehr: Caller
) -> None:
    named = {"code": {"text": "cetirizine"}}
    named_by = reference("Medication/cetirizine")
    inside_ = {"resourceType": "Medication", "id": "m", "code": {"text": "an ointment"}}
    referring: Json = {"medicationCodeableConcept": None}
    await ehr.store(
        {"resourceType": "Medication", "id": "cetirizine", **named},
        a_prescription("pills", **referring, medicationReference=named_by),
        a_prescription(
            "tube", **referring, contained=[inside_], medicationReference=reference("#m")
        ),
    )
    task = await task_of(
        ada,
        await proposed(
            ada, not_taken("MedicationRequest/pills"), not_taken("MedicationRequest/tube")
        ),
    )
    pills = reference("Medication/cetirizine") | {"display": "cetirizine"}
    assert inside(task, "p1")["medicationReference"] == pills
    assert inside(task, "p2")["medicationCodeableConcept"] == {"text": "an ointment"}


async def test_what_is_said_of_a_labelled_medicine_is_no_less_hidden(
    front: Caller, ehr: Caller, portal: Portal
) -> None:
    await ehr.store(a_prescription("secret", of="kit", meta=RESTRICTED))
    kit = Caller(portal, oneself("kit"))
    mother = a_mother(portal, "medications")
    task = await task_of(kit, await proposed(kit, not_taken("MedicationRequest/secret"), of="kit"))
    assert (await mother.get(f"Task/{task['id']}")).status == 404
    assert (await mother.get("Task")).entries == []
    assert (await call(mother, f"Task/{task['id']}", "cancel-proposal")).status == 404
    assert (await proposed(mother, not_taken("MedicationRequest/secret"), of="kit")).status == 404
    await reviewed(front, task, decision("p1", "accept"))
    assert len((await kit.get("MedicationStatement")).entries) == 1
    assert (await mother.get("MedicationStatement")).entries == []


# ---------------------------------------------------------------- who may


@pytest.mark.requirement("portal", "S0-40")
async def test_a_proxy_proposes_in_the_sections_in_which_they_act(
    practice: EmbeddedStore, portal: Portal, front: Caller
) -> None:
    acting = a_mother(portal, "demographics")
    given = (details(telecom=[NEW]), version(3))
    task = await task_of(acting, await proposed(acting, *given, of="kit"))
    assert task["requester"] == reference("RelatedPerson/mother")
    (provenance,) = (await acting.get(f"Provenance?target=Task/{task['id']}")).entries
    assert provenance["agent"][0]["onBehalfOf"] == reference("Patient/kit")
    for other in (a_mother(portal, "forms"), a_mother(portal, "insurance", "medications")):
        assert (await other.get(f"Task/{task['id']}")).status == 404
        assert (await other.get("Task")).entries == []
        assert (await other.get("Task?_summary=count")).json["total"] == 0
    await reviewed(front, task, decision("p1", "accept"))
    (told,) = await letters(portal, practice)
    assert told.to == "account:ada"


@pytest.mark.parametrize("section", ["demographics", "insurance", "medications"])
async def test_without_the_section_or_the_act_nothing_is_proposed(
    portal: Portal, ehr: Caller, section: str
) -> None:
    given: dict[str, list[Json]] = {
        "demographics": [details(telecom=[NEW]), version(3)],
        "insurance": [
            part(
                "coverage",
                action_Code="new",
                coverage={
                    "resourceType": "Coverage",
                    "status": "active",
                    "beneficiary": reference("Patient/kit"),
                    "payor": [{"display": "Sample Health"}],
                },
            )
        ],
        "medications": [not_taken("MedicationRequest/kits")],
    }
    all_sections = set(given)
    others = tuple(sorted(all_sections - {section}))
    for caller in (
        a_mother(portal, section, act=("results",)),
        a_mother(portal, section, act=others),
        a_mother(portal, *others),
        a_mother(portal, "results"),
    ):
        answer = await proposed(caller, *given[section], of="kit")
        assert answer.status == 403, answer.body
    ended = Caller(portal, replace(a_mother(portal, section).auth, expires=START))
    assert (await proposed(ended, *given[section], of="kit")).status == 403
    over = a_proxy(sections=(section,), act=(section,), until=START)
    assert (await proposed(Caller(portal, over), *given[section], of="kit")).status == 403
    assert (await ehr.get("Task")).entries == []
    assert (await proposed(a_mother(portal, section), *given[section], of="kit")).status == 200


async def test_of_two_sections_one_without_the_right_is_nothing(
    portal: Portal, ehr: Caller
) -> None:
    half = a_mother(portal, "demographics", "medications", act=("demographics",))
    answer = await proposed(
        half, details(telecom=[NEW]), version(3), not_taken("MedicationRequest/kits"), of="kit"
    )
    assert answer.status == 403
    assert (await ehr.get("Task")).entries == []


async def test_narrower_scopes_propose_less(ada: Caller) -> None:
    given = (details(telecom=[NEW]), version(2))
    for scope in (
        "patient/Patient.rs",
        "patient/Coverage.cruds patient/Task.rs",
        "patient/Patient.u",
        "patient/Patient.r patient/Patient.u?identifier=x|1",
    ):
        assert (await proposed(ada.with_scope(scope), *given)).status == 403, scope
    assert (await proposed(ada.with_scope("patient/Patient.ru"), *given)).status == 200


async def test_a_stranger_and_another_practice_are_told_that_there_is_nothing(
    portal: Portal, ada: Caller, other_ehr: Caller
) -> None:
    task = await task_of(ada, await proposed(ada, details(telecom=[NEW]), version(2)))
    bo = Caller(portal, oneself("bo"))
    far = Caller(
        portal, a_member_of_staff(practice="family-medicine", permissions=("view", "forms"))
    )
    assert (await proposed(bo, details(telecom=[NEW]), version(2))).status == 404
    assert (await call(bo, f"Task/{task['id']}", "cancel-proposal")).status == 404
    assert (await reviewed(far, task, decision("p1", "accept"))).status == 404
    assert (await reviewed(other_ehr, task, decision("p1", "accept"))).status == 404
    missing = await call(bo, "Task/nothing", "cancel-proposal")
    hidden = await call(bo, f"Task/{task['id']}", "cancel-proposal")
    assert missing.body.replace(b"nothing", b"X") == hidden.body.replace(task["id"].encode(), b"X")


async def test_only_staff_with_forms_and_an_ehr_decide(
    portal: Portal, ada: Caller, ehr: Caller
) -> None:
    task = await task_of(ada, await proposed(ada, details(telecom=[NEW]), version(2)))
    for caller in (ada, staff(portal, "messages", "administer"), staff(portal)):
        assert (await reviewed(caller, task, decision("p1", "accept"))).status == 403
    assert (await reviewed(ehr, task, decision("p1", "accept"))).status == 200


async def test_one_proxy_does_not_take_back_what_another_proposed(
    portal: Portal, ehr: Caller
) -> None:
    mother = a_mother(portal, "demographics")
    father = Caller(
        portal,
        a_proxy(
            related_person="father", grant="his", sections=["demographics"], act=["demographics"]
        ),
    )
    kit = Caller(portal, oneself("kit"))
    made = await proposed(mother, details(telecom=[NEW]), version(3), of="kit")
    task = await task_of(mother, made)
    assert (await father.get(f"Task/{task['id']}")).status == 200, "both see the section"
    assert (await call(father, f"Task/{task['id']}", "cancel-proposal")).status == 403
    reading = a_mother(portal, "demographics", act=())
    assert (await call(reading, f"Task/{task['id']}", "cancel-proposal")).status == 403
    assert (await call(kit, f"Task/{task['id']}", "cancel-proposal")).status == 200
    assert (await ehr.get(f"Task/{task['id']}")).json["status"] == "cancelled"


async def test_a_task_that_proposes_nothing_is_neither_decided_nor_taken_back(
    ada: Caller, front: Caller, ehr: Caller
) -> None:
    await ehr.store(a_task("other"))
    other = {"id": "other"}
    assert (await reviewed(front, other, decision("p1", "accept"))).status == 422
    assert (await call(ada, "Task/other", "cancel-proposal")).status == 422


async def test_a_task_of_an_ehr_changes_nobody_but_whom_it_is_about(
    ada: Caller, front: Caller, ehr: Caller
) -> None:
    task = await task_of(ada, await proposed(ada, details(telecom=[NEW]), version(2)))
    forged: Any = (await ehr.get(f"Task/{task['id']}")).json
    forged["input"][0]["extension"][0]["valueReference"] = reference("Patient/kit/_history/2")
    await ehr.store({n: v for n, v in forged.items() if n != "meta"})
    assert (await reviewed(front, task, decision("p1", "accept"))).status == 409
    assert (await ehr.get("Patient/kit")).json["telecom"] == [OLD]
