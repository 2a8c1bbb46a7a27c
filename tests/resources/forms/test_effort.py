"""What a form may ask of the machine: short expressions and patterns that would take for ever."""

from __future__ import annotations

import re
import time
from decimal import Decimal
from typing import Any

import pytest

from fhir_portal.fhir import json
from fhir_portal.resources.forms.fhirpath import (
    Effort,
    ExpressionFault,
    TooCostly,
    compiled,
    number,
)
from fhir_portal.resources.forms.pattern import LONGEST_MATCHED, pattern_fault
from tests.builders import Caller, Json, a_patient, assert_outcome, reference
from tests.operations.holding import parameters
from tests.resources.forms.twenty import answer, ext, form, item, response, text

ANSWERS: Json = {
    "resourceType": "QuestionnaireResponse",
    "item": [{"linkId": str(at), "answer": [{"valueString": "x" * 50}]} for at in range(400)],
}
TWICE = ".select($this & $this)"
EACH = "%resource.item.select({})"


def value_of(text: str, effort: Effort | None = None) -> list[Any]:
    return compiled(text)(ANSWERS, {"resource": ANSWERS}, now=0.0, effort=effort)


@pytest.mark.parametrize(
    "text",
    [
        f"'abcdefghij'{TWICE * 60}",
        f"99999{'.select($this * $this)' * 60}",
        EACH.format(EACH.format("linkId")),
        f"'{'a' * 900}'.select(replace('a', $this)).select(replace('a', $this)).length()",
        f"%resource.item.linkId.join('{'a' * 900}')",
        "2.power(900).power(900)",
    ],
)
def test_an_expression_makes_nothing_that_has_no_end(text: str) -> None:
    before = time.thread_time()
    with pytest.raises((TooCostly, ExpressionFault)):
        value_of(text)
    assert time.thread_time() - before < 5


def test_the_time_of_expressions_is_counted_together() -> None:
    deep = "1"
    for _ in range(4):
        deep = EACH.format(deep)
    effort = Effort(0.2)
    with pytest.raises(TooCostly):
        value_of(f"{deep}.count()", effort)
    with pytest.raises(TooCostly):
        effort.spend()


def test_what_forms_really_say_takes_next_to_nothing() -> None:
    effort = Effort(1.0)
    assert value_of("%resource.item.where(linkId='7').answer.value.first()", effort) == ["x" * 50]
    assert value_of("10.power(2) + iif(%resource.item.exists(), 1, 2)", effort) == [Decimal(101)]
    assert value_of("%resource.item.answer.value.join(',').length()", effort) == [400 * 51 - 1]
    assert value_of("'a-b-c'.replace('-', '')", effort) == ["abc"]


@pytest.mark.parametrize("name", ["now", "node", "self", "effort", "variables", "context"])
async def test_a_variable_may_have_any_name(ehr: Caller, name: str) -> None:
    """A name that the code has, too, was an error of the server."""
    variable = {
        "url": "http://hl7.org/fhir/StructureDefinition/variable",
        "valueExpression": {"name": name, "language": "text/fhirpath", "expression": "1"},
    }
    computed = {
        "url": "http://hl7.org/fhir/uv/sdc/StructureDefinition/"
        "sdc-questionnaire-calculatedExpression",
        "valueExpression": {"language": "text/fhirpath", "expression": f"%{name}"},
    }
    asked = form("named", item("a", "integer", ext=[computed]), extension=[variable])
    await ehr.store(a_patient("ada"), asked)
    told = await ehr.ask(
        "POST",
        "Questionnaire/named/$populate",
        parameters(subject_Reference=reference("Patient/ada")),
    )
    assert told.status == 200
    assert (await ehr.post(response("named", answer("a", {"valueInteger": 1})))).status == 201


async def test_a_form_that_takes_for_ever_is_refused_and_holds_nobody_up(
    ehr: Caller, ada: Caller
) -> None:
    deep = "true"
    for _ in range(12):
        deep = f"%resource.item.answer.value.where({deep})"
    rule = {
        "url": "http://hl7.org/fhir/StructureDefinition/questionnaire-constraint",
        "extension": [
            {"url": "key", "valueId": "slow"},
            {"url": "severity", "valueCode": "error"},
            {"url": "human", "valueString": "it never ends"},
            {"url": "expression", "valueString": f"{deep}.exists()"},
        ],
    }
    asked = form("slow", item("a", "string", repeats=True), extension=[rule])
    await ehr.store(a_patient("ada"), asked)
    tree = response("slow", answer("a", *(text(str(at)) for at in range(300))))
    before = time.thread_time()
    assert_outcome(await ada.post(tree), 422, "too-costly")
    assert time.thread_time() - before < 10
    # An EHR's own answers are held against no rule.
    assert (await ehr.post(tree)).status == 201


async def test_a_form_has_as_many_expressions_as_can_be_read(ehr: Caller, ada: Caller) -> None:
    def computed(at: int) -> Json:
        return {
            "url": "http://hl7.org/fhir/uv/sdc/StructureDefinition/"
            "sdc-questionnaire-calculatedExpression",
            "valueExpression": {
                "language": "text/fhirpath",
                "expression": f"'{at}{'x' * 1900}'",
            },
        }

    items = [item(str(at), "string", ext=[computed(at)]) for at in range(40)]
    await ehr.store(a_patient("ada"), form("long", *items))
    told = await ada.post(response("long", answer("1", text("a"))))
    assert_outcome(told, 422, "not-supported")
    assert b"more expressions" in told.body


# ---- patterns


@pytest.mark.parametrize(
    "pattern",
    [
        "(a+)+b",
        "a*a*a*a*[bc]",
        "(?:a?){25}a{25}",
        f"{'a?' * 25}{'a' * 25}",
        f"{'(?:a|a)' * 25}b",
        "(?:a*)?(?:a*)?(?:a*)?(?:a*)?[bc]",
        "(?:(?:a))*(?:(?:a))*(?:(?:a))*[bc]",
        r"\x61*\x61*\x61*\x61*[bc]",
        "a*?a*?a*?a*?[bc]",
        "[ab]{0,90}[ab]{0,90}[ab]{0,90}[ab]{0,90}[cd]",
    ],
)
def test_a_pattern_that_can_take_ages_is_not_used(pattern: str) -> None:
    assert pattern_fault(pattern)


@pytest.mark.parametrize(
    "pattern",
    [
        r"[A-Za-z0-9._%+-]+@[A-Za-z0-9.-]+\.[A-Za-z]{2,}",
        r"^[^@\s]+@[^@\s]+\.[^@\s]+$",
        r"\+?[0-9 ()-]{7,20}",
        r"\d{3}-?\d{3}-?\d{4}",
        r"[0-9]{5}(-[0-9]{4})?",
        r"(\d{1,3}\.){3}\d{1,3}",
        r"(?:0[1-9]|1[0-2])/(?:0[1-9]|[12]\d|3[01])/\d{4}",
        ".*foo.*bar.*",
        "[^,]+, [^,]+",
        r"[A-Z]{2}\d{6}[A-D]?",
        "x{a}",
    ],
)
def test_patterns_as_forms_have_them_are_used_and_quick(pattern: str) -> None:
    assert pattern_fault(pattern) == ""
    for sign in "a1@.-,foo ":
        before = time.thread_time()
        re.fullmatch(pattern, (sign * LONGEST_MATCHED)[:LONGEST_MATCHED])
        assert time.thread_time() - before < 1


async def test_many_answers_are_held_against_a_pattern_for_so_long_alone(
    ehr: Caller, ada: Caller
) -> None:
    pattern = f"{'(?:a|aa)' * 16}a*[bc]"
    asked = form(
        "matched", item("a", "string", repeats=True, ext=[ext("regex", valueString=pattern)])
    )
    await ehr.store(a_patient("ada"), asked)
    tree = response("matched", answer("a", *(text("a" * (249 - at % 50)) for at in range(200))))
    before = time.thread_time()
    assert_outcome(await ada.post(tree), 422, "too-costly")
    assert time.thread_time() - before < 10


# ---- numbers


@pytest.mark.parametrize("text", ["1e999999999", "1e-999999999", "-1E+99999"])
def test_a_number_is_written_out_as_far_as_anybody_reads_it(text: str) -> None:
    written = json.dumps({"a": number(Decimal(text))})
    assert len(written) < 30
    assert json.decimal(json.parse(written)["a"]) == Decimal(text)
    assert json.dumps({"a": number(Decimal("7.50"))}) == b'{"a":7.50}'
