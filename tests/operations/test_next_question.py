"""``$next-question``: a form asked one question at a time, and what everybody else is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from fhir_portal.embedded.store import EmbeddedStore
from tests.builders import (
    START,
    Answer,
    Caller,
    Json,
    a_proxy,
    assert_outcome,
    oneself,
    reference,
)
from tests.operations.holding import values
from tests.operations.test_forms import HISTORY, SLEEP, asked, forms, front
from tests.resources.forms.twenty import QUESTIONNAIRES, SIGNED, answer

__all__ = ["forms", "front"]
NEXT = "Questionnaire/$next-question"
YES: Json = {"valueBoolean": True}
NO: Json = {"valueBoolean": False}


def begun(form: str = HISTORY, of: str = "ada") -> Json:
    return {
        "resourceType": "QuestionnaireResponse",
        "questionnaire": form,
        "status": "in-progress",
        "subject": reference(f"Patient/{of}"),
    }


async def said(caller: Caller, tree: Any) -> Answer:
    name = "questionnaire-response"
    body: Json = {"resourceType": "Parameters", "parameter": [{"name": name, "resource": tree}]}
    return await caller.ask("POST", NEXT, body)


async def after(caller: Caller, tree: Json) -> Json:
    found: Json = values(await said(caller, tree))["return"]
    return found


def linked(items: list[Json]) -> list[str]:
    """The linkIds of questions, wherever they stand."""
    found = []
    for one in items:
        if one.get("type") not in {"group", "display"}:
            found.append(one["linkId"])
        found += linked(one.get("item", []))
    return found


def asked_in(tree: Json) -> list[str]:
    (contained,) = tree["contained"]
    return linked(contained["item"])


def with_answer(tree: Json, link_id: str, value: Json) -> Json:
    """Answer a question where the contained form has it."""

    def filled(questions: list[Json], given: list[Json]) -> list[Json]:
        made = []
        for one in questions:
            before = next((g for g in given if g["linkId"] == one["linkId"]), None)
            node: Json = dict(before) if before else {"linkId": one["linkId"]}
            if one["linkId"] == link_id:
                node["answer"] = [value]
            elif one["type"] == "group":
                below = filled(one.get("item", []), node.get("item", []))
                if below:
                    node["item"] = below
            if "answer" in node or "item" in node:
                made.append(node)
        return made

    (contained,) = tree["contained"]
    return tree | {"item": filled(contained["item"], tree.get("item", []))}


@pytest.mark.requirement("portal", "S2-30")
async def test_a_form_is_asked_one_question_at_a_time_and_handed_in(
    front: Caller, ada: Caller
) -> None:
    """Only what the answers lead to is asked; the end is what the form as a whole takes."""
    await asked(front, questionnaire_Canonical=HISTORY)
    tree, order = await after(ada, begun()), list[str]()
    told: Json = {
        "problems": NO,
        "allergies": YES,
        "medicines": NO,
        "smokes": NO,
        "allergy-to": {"valueString": "Wool"},
    }
    while "contained" in tree:
        (new,) = [one for one in asked_in(tree) if one not in order]
        order.append(new)
        value = told.get(new, {"valueString": "Wool"})
        if new == "allergy-to":
            value = {"valueString": "Wool"}
        tree = await after(
            ada, with_answer(tree, new, value) if new in told or "allergy" in new else tree
        )
        assert len(order) < 30
    assert order[:2] == ["problems", "allergies"]
    assert "problem-what" not in order
    assert "allergy-to" in order
    assert "packs" not in order
    assert tree["status"] == "completed"
    assert tree["questionnaire"].startswith(HISTORY)
    assert (await ada.get("QuestionnaireResponse")).ids == []
    own = {"source": reference("Patient/ada")}
    handed = await ada.post(tree | own | SIGNED)
    assert handed.status == 201, handed.body


async def test_what_is_asked_no_more_is_taken_out(front: Caller, ada: Caller) -> None:
    await asked(front, questionnaire_Canonical=HISTORY)
    tree = await after(ada, begun())
    tree = await after(ada, with_answer(tree, "problems", YES))
    assert "problem-what" in asked_in(tree)
    tree = with_answer(tree, "problem-what", {"valueString": "Hay fever"})
    tree = await after(ada, with_answer(tree, "problems", NO))
    assert "problem-what" not in asked_in(tree)
    assert "Hay fever" not in json.dumps(tree)


async def test_it_goes_on_after_a_right_answer_alone(front: Caller, ada: Caller) -> None:
    await asked(front, questionnaire_Canonical=HISTORY)
    tree = await after(ada, begun())
    assert_outcome(await said(ada, tree), 422, "required")
    wrong = with_answer(tree, "problems", {"valueString": "yes"})
    assert_outcome(await said(ada, wrong), 422, "structure")
    unknown = tree | {"item": [answer("nothing-of-it", YES)]}
    assert_outcome(await said(ada, unknown), 422, "structure")


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"questionnaire": "#nothing"}, 422),
        ({"questionnaire": ""}, 400),
        ({"questionnaire": None}, 422),
        ({"questionnaire": "https://forms.example/Questionnaire/none"}, 404),
        ({"questionnaire": f"{SLEEP}|99"}, 404),
        ({"subject": None}, 422),
        ({"subject": {"reference": "Patient/kit"}}, 404),
        ({"subject": {"reference": "Group/all"}}, 422),
        ({"contained": [{"resourceType": "Questionnaire", "id": "x", "status": "active"}],
          "questionnaire": "#x"}, 422),
        ({"status": "no-status"}, 422),
    ],
)  # fmt: skip
async def test_what_is_asked_wrongly_is_refused_by_name(
    front: Caller, ada: Caller, change: Json, status: int
) -> None:
    await asked(front, questionnaire_Canonical=SLEEP)
    tree = {name: value for name, value in (begun(SLEEP) | change).items() if value is not None}
    told = await said(ada, tree)
    assert told.status == status, told.body
    assert told.json["issue"][0]["diagnostics"]


async def test_another_resource_or_none_is_refused(front: Caller, ada: Caller) -> None:
    await asked(front, questionnaire_Canonical=SLEEP)
    other = {"resourceType": "Patient", "id": "ada"}
    assert (await said(ada, other)).status in {400, 422}
    assert (await ada.ask("POST", NEXT)).status in {400, 422}


async def test_who_does_not_see_the_form_is_not_asked(
    front: Caller, ada: Caller, other_ehr: Caller
) -> None:
    """Another patient, practice or section, a narrower scope, a token or a grant that is over."""
    await asked(front, questionnaire_Canonical=SLEEP)
    kit = Caller(front.portal, oneself("kit"))
    assert (await said(kit, begun(SLEEP, "kit"))).status == 404
    assert (await said(kit, begun(SLEEP))).status == 404
    assert (await said(other_ehr, begun(SLEEP))).status == 404
    parent = a_proxy("ada", sections=("forms",))
    assert (await said(Caller(front.portal, parent), begun(SLEEP))).status == 200
    for caller in (
        Caller(front.portal, a_proxy("ada", sections=("results",))),
        Caller(front.portal, replace(parent, record=replace(parent.record, until=START))),  # type: ignore[type-var]
        ada.with_scope("patient/Questionnaire.r"),
        ada.who(expires=START),
    ):
        assert (await said(caller, begun(SLEEP))).status == 403


async def test_a_form_that_is_asked_in_confidence_is_no_parents(front: Caller, ada: Caller) -> None:
    await asked(front, questionnaire_Canonical=SLEEP, answer__by_Reference=reference("Patient/ada"))
    assert (await said(ada, begun(SLEEP))).status == 200
    parent = Caller(front.portal, a_proxy("ada", sections=("forms",), act=("forms",)))
    assert (await said(parent, begun(SLEEP))).status == 404


async def test_a_form_that_is_not_understood_is_not_asked(
    forms: EmbeddedStore, ehr: Caller
) -> None:
    assert forms is not None
    odd = QUESTIONNAIRES["sleep"] | {
        "modifierExtension": [{"url": "urn:x", "valueBoolean": True}],
    }
    await ehr.store(odd)
    assert_outcome(await said(ehr, begun(SLEEP)), 422, "not-supported")
