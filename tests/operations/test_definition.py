"""What goes into an operation and comes out is what its definition says, and nothing else."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fhir_portal.fhir.errors import FhirError, Invalid, NotSupported
from fhir_portal.operations.definition import (
    OperationDefinition,
    Parameter,
    parameters,
    posted,
    queried,
)

DEFINITION = OperationDefinition(
    code="test",
    url="https://fhir-portal.example/ig/OperationDefinition/test",
    title="Test",
    types=("Patient",),
    on_instance=True,
    on_type=False,
    on_system=False,
    affects_state=False,
    takes=(
        Parameter("kind", 1, 1, "code", ()),
        Parameter("count", 0, 1, "integer", ()),
        Parameter("sure", 0, 1, "boolean", ()),
        Parameter("person", 0, None, "RelatedPerson", ()),
        Parameter("of", 0, 2, "Reference", ()),
        Parameter(
            "section",
            0,
            None,
            None,
            (Parameter("code", 1, 1, "code", ()), Parameter("act", 0, 1, "boolean", ())),
        ),
    ),
    returns=(
        Parameter("status", 1, 1, "code", ()),
        Parameter("detail", 0, None, None, (Parameter("text", 1, 1, "string", ()),)),
    ),
)


def body(*listed: Any, **more: Any) -> bytes:
    return json.dumps({"resourceType": "Parameters", "parameter": list(listed)} | more).encode()


KIND = {"name": "kind", "valueCode": "self"}


def test_values_parts_and_resources_are_read_by_name() -> None:
    person = {"resourceType": "RelatedPerson", "patient": {"reference": "Patient/kit"}}
    given_ = posted(
        DEFINITION,
        body(
            KIND,
            {"name": "of", "valueReference": {"reference": "Patient/ada"}},
            {"name": "of", "valueReference": {"reference": "Patient/bo"}},
            {"name": "person", "resource": person},
            {"name": "section", "part": [{"name": "code", "valueCode": "results"}]},
        ),
    )
    assert given_.one("kind") == "self"
    assert [one["reference"] for one in given_.all("of")] == ["Patient/ada", "Patient/bo"]
    assert given_.one("person") == person
    assert given_.one("section").one("code") == "results"
    assert given_.one("section").one("act") is None
    assert given_.one("count") is None


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"{}",
        b"[]",
        b"not json",
        json.dumps({"resourceType": "Patient"}).encode(),
        body(),
        body(KIND, KIND),
        body({"name": "kind", "valueString": "self"}),
        body({"name": "kind", "valueCode": 1}),
        body({"name": "kind"}),
        body(KIND, {"name": "kinds", "valueCode": "self"}),
        body(KIND, {"name": "count", "valueInteger": "3"}),
        body(KIND, {"name": "person", "resource": {"resourceType": "Patient"}}),
        body(KIND, *[{"name": "of", "valueReference": {"reference": "Patient/a"}}] * 3),
        body(KIND, {"name": "section", "part": []}),
        body(KIND, {"name": "section", "part": [{"name": "act", "valueBoolean": True}]}),
        body(KIND, {"name": "section", "valueCode": "results"}),
        body(KIND | {"extension": [{"url": "http://x.example", "valueCode": "x"}]}),
        body(KIND, id="x" * 70),
        body(KIND, surprise=True),
        body(KIND, implicitRules="https://rules.example/other"),
    ],
)
def test_what_the_definition_does_not_have_is_refused(sent: bytes) -> None:
    with pytest.raises(FhirError) as refused:
        posted(DEFINITION, sent)
    assert refused.value.status in {400, 422}


def test_a_query_holds_simple_parameters() -> None:
    asked = [("kind", "self"), ("count", "3"), ("sure", "true"), ("of", "Patient/ada")]
    found = queried(DEFINITION, asked)
    assert (found.one("kind"), found.one("count"), found.one("sure")) == ("self", 3, True)
    assert found.one("of") == {"reference": "Patient/ada"}
    for wrong in (
        [("kind", "self"), ("count", "three")],
        [("kind", "self"), ("count", "٣")],
        [("kind", "self"), ("count", "03")],
        [("kind", "self"), ("sure", "yes")],
        [("kind", "self"), ("of", "not one")],
        [],
    ):
        with pytest.raises(Invalid):
            queried(DEFINITION, wrong)
    for unknown in ("section", "surprise", "_count"):
        with pytest.raises(NotSupported):
            queried(DEFINITION, [("kind", "self"), (unknown, "x")])


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), st.lists, max_leaves=5))
def test_whatever_stands_for_the_parameters_is_read_or_refused(value: Any) -> None:
    tree = {"resourceType": "Parameters", "parameter": value}
    with pytest.raises(FhirError):
        posted(DEFINITION, json.dumps(tree).encode())


def test_an_answer_is_built_by_the_definition() -> None:
    tree = parameters(DEFINITION, {"status": "done", "detail": [{"text": "a"}, {"text": "b"}]})
    assert tree["parameter"] == [
        {"name": "status", "valueCode": "done"},
        {"name": "detail", "part": [{"name": "text", "valueString": "a"}]},
        {"name": "detail", "part": [{"name": "text", "valueString": "b"}]},
    ]
    with pytest.raises(LookupError):
        parameters(DEFINITION, {"status": "done", "password": "no"})
    with pytest.raises(LookupError):
        parameters(DEFINITION, {})
