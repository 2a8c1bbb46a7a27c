"""resources/validation: what is refused, where, in words that give nothing away; and what is not.

``cases/wrong.json`` holds one fault each, with the place it is expected at. ``lax`` marks what
``fhir.resources`` lets through. ``cases/invariants.json`` has for each invariant the definition's
expression and an element that keeps it and one that does not.
"""

from __future__ import annotations

import copy
import gzip
import json as stdlib_json
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fhirkit
import fhirpathpy
import msgspec
import pytest
from fhirpathpy.models import models
from hypothesis import given
from hypothesis import strategies as st

from fhir_portal.fhir import json, model
from fhir_portal.fhir.definitions import served_types
from fhir_portal.fhir.errors import Invalid, Issue, UnknownType
from fhir_portal.resources.validation import status_for, validate
from fhir_portal.resources.validation.invariants import invariant_keys, invariants_of
from fhir_portal.resources.validation.walker import MAX_ISSUES
from tests.resources import instances

HERE = Path(__file__).parent
DATA = Path(os.environ.get("FHIR_PORTAL_TEST_DATA", HERE.parents[2] / "shared" / "data"))
WHOLE = bool(os.environ.get("FHIR_PORTAL_TEST_WHOLE"))
PART_OF_SYNTHEA = 10  # every tenth Bundle, unless the whole set is asked for

needs_data = pytest.mark.skipif(
    not DATA.is_dir(), reason=f"no sample data at {DATA}; set FHIR_PORTAL_TEST_DATA"
)


def cases(name: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = stdlib_json.loads((HERE / "cases" / name).read_text())
    return found


def named(case: dict[str, Any]) -> str:
    return str(case.get("fact") or f"{case['structure']}-{case['key']}")


def body_of(case: dict[str, Any]) -> bytes:
    text: str = case.get("raw") or stdlib_json.dumps(case["resource"])
    return text.encode()


def issues_in(body: bytes) -> list[Issue]:
    return validate(json.parse(body), body)


def second_judge(body: bytes) -> list[str]:
    return [str(issue) for issue in fhirkit.validate(body.decode()) if issue.severity == "error"]


# ---- one fault at a time


@pytest.mark.parametrize("case", cases("wrong.json"), ids=named)
def test_a_fault_is_refused_at_its_place(case):
    found = issues_in(body_of(case))
    assert [(issue.code, issue.expression) for issue in found] == [(case["code"], case["at"])]
    assert found[0].diagnostics.endswith((".", ")"))


@pytest.mark.parametrize("case", cases("wrong.json"), ids=named)
def test_the_gate_alone_finds_the_fault_unless_it_is_lax_there(case):
    found = model.check(case["resource"]["resourceType"], body_of(case))
    assert bool(found) is not case.get("lax", False)


@pytest.mark.parametrize("case", cases("right.json"), ids=named)
def test_what_is_right_is_accepted(case):
    assert issues_in(body_of(case)) == []
    assert second_judge(body_of(case)) == []


def test_form_is_400_and_rules_are_422():
    statuses = {
        (case["code"], status_for(issues_in(body_of(case)))) for case in cases("wrong.json")
    }
    assert statuses == {
        ("structure", 400),
        ("required", 400),
        ("value", 400),
        ("not-supported", 400),
        ("code-invalid", 422),
        ("invariant", 422),
    }


def test_form_and_rule_together_are_400():
    assert status_for([Issue("invariant", "x"), Issue("structure", "x")]) == 400


# ---- what is not a resource at all


@pytest.mark.parametrize("body", [b"{}", b'{"resourceType":5}', b'{"resourceType":null}'])
def test_a_body_without_a_type_is_malformed(body):
    with pytest.raises(Invalid, match="no resourceType"):
        issues_in(body)


@pytest.mark.parametrize(
    "name", ["Dragon", "patient", "MedicinalProduct", "HumanName", "Patient.contact"]
)
def test_a_type_that_is_not_served_is_unknown(name):
    with pytest.raises(UnknownType):
        issues_in(b'{"resourceType":"%s"}' % name.encode())


# ---- the gate's own errors, as places and words


def gate(resource: dict[str, Any]) -> list[tuple[str, str | None]]:
    found = model.check(resource["resourceType"], stdlib_json.dumps(resource).encode())
    return [(issue.code, issue.expression) for issue in found]


OBSERVATION = {"resourceType": "Observation", "status": "final", "code": {"text": "x"}}


@pytest.mark.parametrize(
    ("resource", "issues"),
    [
        (
            {"resourceType": "Patient", "name": [{"nick": "x"}]},
            [("structure", "Patient.name[0].nick")],
        ),
        ({"resourceType": "Observation", "status": "final"}, [("required", "Observation.code")]),
        ({"resourceType": "Observation", "code": {}}, [("required", "Observation.status")]),
        ({**OBSERVATION, "valueQuantity": {"value": "x"}}, [("value", "Observation.value.value")]),
        (
            {"resourceType": "Patient", "_birthDate": {"extension": [{"url": "u", "nick": 1}]}},
            [("structure", "Patient.birthDate.extension[0].nick")],
        ),
        (
            {"resourceType": "Patient", "contained": [{"resourceType": "Device", "nick": 1}]},
            [("structure", "Patient.contained[0].nick")],
        ),
        (
            {
                "resourceType": "Bundle",
                "type": "collection",
                "entry": [{"resource": {**OBSERVATION, "effectiveDateTime": "x"}}],
            },
            [("value", "Bundle.entry[0].resource.effective")],
        ),
        ({"resourceType": "Patient", "name": {}}, [("structure", "Patient.name")]),
        ({"resourceType": "Patient", "_birthDate": [1]}, [("structure", "Patient.birthDate")]),
        (
            {"resourceType": "Patient", "deceasedBoolean": True, "deceasedDateTime": "2020"},
            [("structure", "Patient")],
        ),
        (
            {"resourceType": "Communication", "status": "completed", "payload": [{}]},
            [("required", "Communication.payload[0]")],
        ),
        (
            {"resourceType": "Patient", "contained": [{"resourceType": "Dragon"}]},
            [("not-supported", "Patient")],
        ),
        ({"resourceType": "Patient", "a name: Jane Roe": 1}, [("structure", "Patient")]),
    ],
)
def test_an_error_of_the_gate_becomes_a_fhirpath(resource, issues):
    assert gate(resource) == issues


def test_the_gate_knows_served_types_only():
    with pytest.raises(UnknownType):
        model.check("MedicinalProduct", b"{}")


@pytest.mark.parametrize("make", [instances.least, instances.most])
@pytest.mark.parametrize("resource_type", served_types())
def test_every_served_type_passes_walk_gate_and_second_judge(resource_type, make):
    body = json.dumps(make(resource_type))
    assert [issue for issue in issues_in(body) if issue.code != "invariant"] == []
    assert model.check(resource_type, body) == []
    assert second_judge(body) == []


# ---- invariants


@pytest.mark.parametrize("case", cases("invariants.json"), ids=named)
def test_an_invariant_tells_right_from_wrong(case):
    rules = [rule for rule in invariants_of(case["structure"]) if rule.key == case["key"]]
    assert all(rule.holds(case["right"]) for rule in rules)
    assert not all(rule.holds(case["wrong"]) for rule in rules)


def has_value(focus: list[Any]) -> list[bool]:
    return [bool(focus)]


@pytest.mark.parametrize(
    "case", [case for case in cases("invariants.json") if "oracle_fails" not in case], ids=named
)
@pytest.mark.parametrize("side", ["right", "wrong"])
def test_the_definition_itself_agrees(case, side):
    """fhirpathpy evaluates the expression that the definition gives the invariant."""
    outcome = fhirpathpy.evaluate(
        case[side],
        {"base": case["structure"], "expression": case["expression"]},
        {"resource": case[side], "ucum": "http://unitsofmeasure.org"},
        models["r4"],
        {"userInvocationTable": {"hasValue": {"fn": has_value, "arity": {0: []}}}},
    )
    assert (outcome == [True]) is (side == "right")


def test_every_invariant_has_a_case():
    assert {(case["structure"], case["key"]) for case in cases("invariants.json")} == set(
        invariant_keys()
    )


# ---- whatever comes in


SECRET = "Jane-Roe-1970-01-01"
JUNK: list[Any] = [
    *(None, True, 0, -1, 99**9, msgspec.Raw(b"1.5"), msgspec.Raw(b"-0"), "", " ", SECRET, "5"),
    *("2020-02-30", "2020-01-01", f"Patient/{SECRET}", f"#{SECRET}", f"http://x {SECRET}"),
    *([], {}, [None], [[]], [{}], {"id": SECRET}, {"extension": []}, {"resourceType": "Patient"}),
    *({"extension": [{"url": SECRET}]}, {"coding": [{"code": SECRET}]}, {SECRET: SECRET}),
    *({"reference": SECRET}, {"resourceType": SECRET}, {"resourceType": []}, [{"coding": SECRET}]),
]
SOUND = [json.dumps(instances.most(name)) for name in served_types()]


def places(node: Any) -> Iterator[tuple[Any, Any]]:
    members = node.items() if isinstance(node, dict) else enumerate(node)
    for name, value in members:
        yield node, name
        if isinstance(value, dict | list):
            yield from places(value)


@given(st.sampled_from(SOUND), st.randoms(use_true_random=False))
def test_any_damage_gives_issues_or_none_but_never_a_crash_or_a_value(body, rng):
    tree = json.parse(body)
    for _ in range(rng.randint(1, 3)):
        node, name = rng.choice([place for place in places(tree) if place[1] != "resourceType"])
        if isinstance(node, dict) and rng.random() < 0.3:
            name = rng.choice([f"_{name}", SECRET, "contained", "extension", "id", "valueString"])
        node[name] = copy.deepcopy(rng.choice(JUNK))
    damaged = json.dumps(tree)
    for issue in [*validate(tree, damaged), *model.check(tree["resourceType"], damaged)]:
        assert SECRET not in f"{issue.diagnostics}{issue.expression}"
        assert issue.expression is not None
        assert issue.expression.startswith(tree["resourceType"])
    if not validate(tree, damaged):
        assert second_judge(damaged) == []


def test_the_list_of_faults_ends_somewhere():
    body = stdlib_json.dumps({"resourceType": "Patient", "name": [{"family": 5}] * 1000}).encode()
    assert len(issues_in(body)) == MAX_ISSUES


def test_nested_entities_cost_nothing():
    declared = "".join(f'<!ENTITY e{n} "{f"&e{n - 1};" * 10}">' for n in range(1, 12))
    div = f'<!DOCTYPE d [<!ENTITY e0 "ha">{declared}]><div>&e11;</div>'
    body = stdlib_json.dumps(
        {"resourceType": "Patient", "text": {"status": "generated", "div": div}}
    ).encode()
    assert [issue.expression for issue in issues_in(body)] == ["Patient.text.div"]


# ---- real data


def bundles(source: str) -> list[bytes]:
    return gzip.decompress((DATA / source / "bundles.ndjson.gz").read_bytes()).splitlines()


def resources_of(lines: list[bytes]) -> list[dict[str, Any]]:
    found = []
    for line in lines:
        tree = json.parse(line)
        found += [entry["resource"] for entry in tree["entry"]] if "entry" in tree else [tree]
    return found


def refused(resources: list[dict[str, Any]]) -> dict[str, list[str]]:
    found = {}
    for resource in resources:
        issues = validate(resource, json.dumps(resource))
        if issues:
            name = f"{resource['resourceType']}/{resource.get('id')}"
            found[name] = [f"{issue.expression}: {issue.diagnostics}" for issue in issues]
    return found


@needs_data
def test_no_resource_of_the_synthea_patients_is_refused():
    """All 31 patients with FHIR_PORTAL_TEST_WHOLE set, else every tenth."""
    lines = bundles("synthea")
    resources = resources_of(lines if WHOLE else lines[::PART_OF_SYNTHEA])
    assert refused(resources) == {}
    assert len(resources) == (9985 if WHOLE else 1742)


@needs_data
def test_no_resource_of_the_us_core_test_patients_is_refused():
    resources = resources_of(bundles("inferno"))
    assert refused(resources) == {}
    assert len(resources) == 328


@needs_data
def test_no_example_of_us_core_is_refused():
    with tarfile.open(DATA / "fhir-packages" / "hl7.fhir.us.core-7.0.0.tgz") as package:
        files = [name for name in package.getnames() if name.startswith("package/example/")]
        read = [file.read() for name in files if (file := package.extractfile(name))]
    examples = [json.parse(body) for body in read if b'"resourceType"' in body]
    assert refused(examples) == {}
    assert len(examples) == 214


# Published with the specification, and yet against it.
WRONG_EXAMPLES = {
    # concept has the code chol-mass twice
    "CodeSystem/example": ["CodeSystem: Each code may be defined once. (csd-1)"],
    # refers to a DeviceDefinition; R4 §8.12: parent is Reference(Device)
    "DeviceMetric/example": ["DeviceMetric.parent: May refer to Device, but not to this type."],
    # refers to a Procedure, which R4 does not list
    "DeviceUseStatement/example": [
        (
            "DeviceUseStatement.reasonReference[0]: May refer to Condition, DiagnosticReport,"
            " DocumentReference, Media, Observation, but not to this type."
        )
    ],
    # refers to a Practitioner; R4 §11.1: dispenseRequest.performer is Reference(Organization)
    "MedicationRequest/medrx0301": [
        (
            "MedicationRequest.dispenseRequest.performer: May refer to Organization, but not to"
            " this type."
        )
    ],
}


@needs_data
def test_of_the_published_examples_only_the_wrong_ones_are_refused():
    files = sorted((DATA / "r4-examples").glob("*.json"))
    assert refused([json.parse(file.read_bytes()) for file in files]) == WRONG_EXAMPLES
    assert len(files) == 44
