"""Answers at the front door: who writes them, and against which form they are held."""

from __future__ import annotations

from typing import Any

import pytest

from fhir_portal.portal import Portal
from tests.builders import (
    FAMILY,
    Caller,
    Json,
    a_bundle,
    a_patient,
    a_proxy,
    assert_outcome,
    oneself,
    reference,
)
from tests.resources.forms.twenty import (
    FORMS,
    QUESTIONNAIRES,
    RIGHT,
    WRONG,
    answer,
    group,
    response,
    text,
)

HOURS = answer("hours", {"valueDecimal": 7})


@pytest.fixture
async def forms(ehr: Caller) -> None:
    await ehr.store(a_patient("ada"), a_patient("kit"), *QUESTIONNAIRES.values())


@pytest.mark.usefixtures("forms")
async def test_a_person_hands_in_every_form(ada: Caller) -> None:
    for tree in RIGHT:
        made = await ada.post(tree)
        assert made.status == 201, made.body


@pytest.mark.usefixtures("forms")
async def test_each_wrong_answer_is_refused_and_nothing_is_stored(ada: Caller) -> None:
    for wrong in WRONG:
        told = await ada.post(response(wrong.form, *wrong.items, **wrong.more or {}))  # type: ignore[arg-type]
        assert told.status == 422, wrong.name
        if wrong.says == "Patient/ada":  # nor can it be told whether the other patient exists
            assert told.json["issue"][0]["expression"][0].endswith("valueSignature.who")
            continue
        assert [one["expression"] for one in told.json["issue"]] == [[wrong.where]]
    assert (await ada.get("QuestionnaireResponse")).ids == []


@pytest.mark.usefixtures("forms")
async def test_answers_are_saved_taken_up_again_and_handed_in(ada: Caller) -> None:
    made = await ada.post(response("sleep", status="in-progress"))
    assert made.status == 201
    tree = made.json | {"status": "completed"}
    assert_outcome(await ada.put(tree), 422, "required")
    tree["item"] = [HOURS]
    done = await ada.put(tree)
    assert done.status == 200
    back = await ada.put(done.json | {"status": "in-progress"})
    assert_outcome(back, 422, "processing")
    assert (await ada.put(done.json | {"status": "amended"})).status == 200


@pytest.mark.usefixtures("forms")
async def test_answers_stay_answers_to_their_form(ada: Caller) -> None:
    made = await ada.post(response("sleep", HOURS, status="in-progress"))
    other = made.json | {"questionnaire": f"{FORMS}nothing-is-known-of-this"}
    assert_outcome(await ada.put(other), 422, "processing")


@pytest.mark.usefixtures("forms")
async def test_a_proxy_answers_in_their_own_name_with_the_right_to_act(portal: Portal) -> None:
    mother: Json = {
        "subject": reference("Patient/kit"),
        "source": reference("RelatedPerson/mother"),
    }
    tree = response("sleep", HOURS, **mother)
    for sections, act, status in (
        (("forms",), ("forms",), 201),
        (("forms",), (), 403),
        (("results",), ("results",), 403),
    ):
        proxy = Caller(portal, a_proxy(sections=sections, act=act))
        assert (await proxy.post(tree)).status == status
    acting = Caller(portal, a_proxy(sections=("forms",), act=("forms",)))
    assert (await acting.post(response("sleep", **mother))).status == 422
    assert (await acting.post(tree | {"source": reference("Patient/kit")})).status == 403
    assert (await acting.post(tree | {"subject": reference("Patient/ada")})).status == 403
    assert (await acting.who(expires=0.0).post(tree)).status == 403


@pytest.mark.usefixtures("forms")
async def test_another_practices_form_is_not_known_here(portal: Portal, other_ehr: Caller) -> None:
    await other_ehr.store(a_patient("ada-f"))
    ada = Caller(portal, oneself("ada-f", FAMILY))
    told = response("sleep", answer("anything", text("x")), subject=reference("Patient/ada-f"))
    told["source"] = reference("Patient/ada-f")
    assert (await ada.post(told)).status == 201


@pytest.mark.usefixtures("forms")
async def test_an_ehrs_answers_are_taken_unless_their_shape_is_wrong(ehr: Caller) -> None:
    assert (await ehr.post(response("sleep"))).status == 201
    assert (
        await ehr.post(response("smoking", answer("smokes", {"valueBoolean": False})))
    ).status == 201
    unknown = response("sleep", answer("dreams", text("x")))
    assert_outcome(await ehr.post(unknown), 422, "structure")
    bundle = await ehr.bundle(a_bundle("transaction", ("POST", "QuestionnaireResponse", unknown)))
    assert bundle.status == 422


@pytest.mark.usefixtures("forms")
async def test_the_version_that_is_named_counts(ehr: Caller, ada: Caller) -> None:
    newer: dict[str, Any] = QUESTIONNAIRES["sleep"] | {"id": "sleep-2", "version": "2"}
    newer["item"] = [{"linkId": "well", "type": "boolean", "text": "Did you sleep well?"}]
    await ehr.store(QUESTIONNAIRES["sleep"] | {"version": "1"}, newer)
    old, new = f"{FORMS}sleep|1", f"{FORMS}sleep|2"
    assert (await ada.post(response("sleep", HOURS, questionnaire=old))).status == 201
    assert (await ada.post(response("sleep", HOURS, questionnaire=new))).status == 422
    assert (await ada.post(response("sleep", HOURS, questionnaire=f"{FORMS}sleep|3"))).status == 422
    # Without a version it is the latest one.
    assert (await ada.post(response("sleep", HOURS))).status == 422


@pytest.mark.usefixtures("forms")
async def test_more_answers_than_anybody_gives_are_refused_at_once(
    ehr: Caller, ada: Caller
) -> None:
    allergy = group("allergy", answer("to-what", text("Wool")))
    tree = response("allergies", *[allergy] * 1000)
    assert_outcome(await ada.post(tree), 422, "too-long")
    assert (await ehr.post(tree)).status == 201


@pytest.mark.usefixtures("forms")
async def test_what_cannot_be_filled_in_here_is_kept_but_not_answered(
    ehr: Caller, ada: Caller
) -> None:
    odd = QUESTIONNAIRES["sleep"] | {"id": "odd", "url": f"{FORMS}odd"}
    odd = odd | {"modifierExtension": [{"url": "urn:x", "valueBoolean": True}]}
    await ehr.store(odd)
    told = await ada.post(response("odd", HOURS))
    assert_outcome(told, 422, "not-supported")
    assert (await ehr.post(response("odd", HOURS))).status == 201
