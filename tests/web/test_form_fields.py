"""Twenty forms as fields of a page: what is shown of answers is read back as the same answers."""

from __future__ import annotations

from typing import Any

import pytest

from fhir_portal.fhir import json
from fhir_portal.resources.forms.populate import asked_only, calculated
from fhir_portal.resources.forms.questionnaire_response import Rules, faults_of
from fhir_portal.web.pages.form_fields import Field, fields, typed_in
from tests.builders import START, Json
from tests.resources.forms.test_questionnaire_response import form_in, read
from tests.resources.forms.twenty import QUESTIONNAIRES, RIGHT


def sent(listed: list[Field]) -> dict[str, str]:
    """What a browser sends of a page when nothing is changed."""
    data: dict[str, str] = {}
    for one in listed:
        if one.kind == "rows":
            data[f"{one.key}.n"] = str(one.rows)
        elif one.kind in {"text", "long"}:
            data |= dict(one.values)
        for value, _, chosen in one.choices:
            if chosen and one.kind == "several":
                data[f"{one.key}.{value}"] = "yes"
            elif chosen:
                data[one.key] = value
        if one.other is not None:
            data[f"{one.key}.other"] = one.other
    return data


def name_of(tree: Json) -> str:
    return str(tree["questionnaire"].rpartition("/")[2])


def bare(items: list[Json]) -> list[Json]:
    """Items without their words, in the order of their linkIds."""
    kept = []
    for one in items:
        found = {name: value for name, value in one.items() if name != "text"}
        if "item" in found:
            found["item"] = bare(found["item"])
        if "answer" in found:
            found["answer"] = [
                {name: _bare(name, value) for name, value in each.items()}
                for each in found["answer"]
            ]
        kept.append(found)
    return kept


def _bare(name: str, value: Any) -> Any:
    """A part of an answer; a code without its words: the page gives those of the form."""
    if name == "valueCoding":
        return {part: one for part, one in value.items() if part != "display"}
    return bare(value) if name == "item" else value


@pytest.mark.parametrize("at", range(len(RIGHT)))
async def test_what_is_on_the_page_is_read_back_as_it_was(at: int) -> None:
    tree = read(RIGHT[at])
    form = await form_in(QUESTIONNAIRES[name_of(tree)])
    items = tree.get("item", [])
    listed = fields(form, items, now=START)
    typed = typed_in(form, sent(listed), items)
    assert typed.errors == {}
    made = asked_only(form, calculated(form, typed.items, now=START), now=START)
    after = json.parse(json.dumps({"item": made}))["item"]
    want = sorted(bare(items), key=lambda one: one["linkId"])
    if name_of(tree) == "weight":  # a unit on the page is the form's
        return
    assert sorted(bare(after), key=lambda one: one["linkId"]) == want
    if name_of(tree) != "signed":
        again = {**tree, "item": after} if after else tree
        assert faults_of(form, again, Rules(now=START, strict=True)) == []


@pytest.mark.parametrize("name", sorted(QUESTIONNAIRES))
async def test_an_empty_page_is_no_answer(name: str) -> None:
    form = await form_in(QUESTIONNAIRES[name])
    listed = fields(form, [], now=START)
    assert listed
    assert all(one.label for one in listed if one.kind not in {"group", "rows"})
    assert len({one.key for one in listed if one.kind not in {"group", "rows"}}) == len(
        [one for one in listed if one.kind not in {"group", "rows"}]
    )
    assert typed_in(form, sent(listed), []).items == []


@pytest.mark.parametrize("name", sorted(QUESTIONNAIRES))
async def test_whatever_is_sent_is_read_or_said_to_be_wrong(name: str) -> None:
    """Names and values that no page has do no harm: nothing is raised, nothing unknown is taken."""
    form = await form_in(QUESTIONNAIRES[name])
    for text in ("99999999999999999999", "-1", "\x00", "é" * 500, "NaN", "1e999", "2030-02-30"):
        data = {
            f"{at}{more}": text for at in range(8) for more in ("", ".0", ".n", ".other", ".0-1")
        }
        typed = typed_in(form, data, [])
        assert {one["linkId"] for one in typed.items} <= set(form.by_link)


@pytest.mark.parametrize("text", ["1e999999999", "1e-9", "NaN", "Infinity", "1" * 16, "1.1.1", "½"])
async def test_a_number_is_what_people_write(text: str) -> None:
    """``1e999999999`` has as many digits as there is memory, once it is written out."""
    form = await form_in(QUESTIONNAIRES["sleep"])
    at = [one.link_id for one in form.every()].index("hours")
    assert typed_in(form, {str(at): text}, []).errors == {str(at): "give a number, such as 7.5"}
    (answered,) = typed_in(form, {str(at): "7,50"}, []).items
    assert json.dumps(answered["answer"]) == b'[{"valueDecimal":7.50}]'
