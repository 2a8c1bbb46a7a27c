from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fhirpathpy
import pytest
from fhirpathpy.models import models

from fhir_portal.fhir import definitions
from ig import generate_r4

EXAMPLES = Path(generate_r4.__file__).parent / "examples"
SECTION = "https://fhir-portal.example/ig/CodeSystem/portal-section"
ACTION = "http://terminology.hl7.org/CodeSystem/consentaction"
MODIFIER = {"modifierExtension": [{"url": "https://x.example/m", "valueBoolean": True}]}
R4 = models["r4"]
Json = dict[str, Any]


def example(name: str) -> Json:
    resource: Json = json.loads((EXAMPLES / f"Consent-{name}.json").read_bytes())
    return resource


def concept(system: str, code: str) -> Json:
    return {"coding": [{"system": system, "code": code}]}


def values(parent: Json, name: str) -> list[Any]:
    if name.endswith("[x]"):
        stem = name.removesuffix("[x]")
        return [value for key, value in parent.items() if key.startswith(stem)]
    found = parent.get(name, [])
    return found if isinstance(found, list) else [found]


def parents_of(root: Json, path: str) -> Iterator[Json]:
    nodes = [root]
    for name in path.split(".")[1:-1]:
        nodes = [value for node in nodes for value in values(node, name)]
    return iter(nodes)


def contains(value: Any, pattern: Any) -> bool:
    if isinstance(pattern, dict):
        return all(name in value and contains(value[name], part) for name, part in pattern.items())
    if isinstance(pattern, list):
        return all(any(contains(each, part) for each in value) for part in pattern)
    return bool(value == pattern)


def faults(grant: Json) -> set[str]:
    """What the profile has against a Consent: cardinality, patterns, types, bindings, invariants.

    Written for this profile's elements only, because the judges at hand do not look inside a
    profile's nested backbone elements.
    """
    found = set()
    profile = definitions.ig_resource("StructureDefinition", "proxy-grant")
    for element in profile["snapshot"]["element"]:
        path = element["path"]
        for constraint in element.get("constraint", ()):
            if constraint["key"].startswith("pg-") and not holds(grant, path, constraint):
                found.add(constraint["key"])
        if path == "Consent":
            continue
        name = path.rpartition(".")[2]
        for parent in parents_of(grant, path):
            present = values(parent, name)
            most = len(present) if element["max"] == "*" else int(element["max"])
            if not element["min"] <= len(present) <= most:
                found.add(path)
            patterns = [value for key, value in element.items() if key.startswith("pattern")]
            if not all(contains(value, pattern) for value in present for pattern in patterns):
                found.add(path)
            allowed = allowed_codes(element)
            if allowed and not all(
                each["code"] in allowed for v in present for each in v["coding"]
            ):
                found.add(path)
        if name == "source[x]" and "sourceAttachment" in grant:
            found.add(path)
    return found


def holds(grant: Json, path: str, constraint: Json) -> bool:
    expression = constraint["expression"].replace("%resource", "%context")
    inner = path.partition(".")[2]
    if inner:
        expression = f"{inner}.all({expression})"
    return bool(fhirpathpy.evaluate(grant, expression, model=R4) == [True])


def allowed_codes(element: Json) -> set[str]:
    url = element.get("binding", {}).get("valueSet", "")
    if not url.startswith("https://fhir-portal.example/"):
        return set()
    value_set = definitions.ig_resource("ValueSet", url.rpartition("/")[2])
    codes = set()
    for include in value_set["compose"]["include"]:
        listed = include.get("concept")
        if listed is None:
            listed = definitions.ig_resource("CodeSystem", include["system"].rpartition("/")[2])[
                "concept"
            ]
        codes |= {each["code"] for each in listed}
    return codes


@pytest.mark.parametrize("name", ["guardian-grant", "helper-grant"])
def test_the_examples_are_grants(name: str) -> None:
    assert faults(example(name)) == set()


def test_a_guardian_may_act_in_some_sections_and_only_see_others() -> None:
    provisions = example("guardian-grant")["provision"]["provision"]
    actions = {
        each["code"][0]["coding"][0]["code"]: {
            action["coding"][0]["code"] for action in each["action"]
        }
        for each in provisions
    }
    assert actions["messages"] == {"access", "correct"}
    assert actions["results"] == {"access"}
    assert "sharing" not in actions


def nested(change: Callable[[Json], object]) -> Callable[[Json], object]:
    return lambda grant: change(grant["provision"]["provision"][0])


@pytest.mark.parametrize(
    ("change", "refused_for"),
    [
        (lambda g: g.update(MODIFIER), "Consent.modifierExtension"),
        (lambda g: g.update(implicitRules="https://x.example"), "Consent.implicitRules"),
        (lambda g: g.update(contained=[{"resourceType": "Basic"}]), "Consent.contained"),
        (lambda g: g.update(scope=concept("urn:x", "research")), "Consent.scope"),
        (lambda g: g["scope"]["coding"].append({"code": "research"}), "Consent.scope.coding"),
        (
            lambda g: g.update(category=[concept("http://loinc.org", "59284-0")]),
            "Consent.category.coding.code",
        ),
        (lambda g: g["category"].append(g["category"][0]), "Consent.category"),
        (lambda g: g.pop("patient"), "Consent.patient"),
        (lambda g: g.update(patient={"display": "Pippa"}), "Consent.patient.reference"),
        (lambda g: g["patient"].update(reference="Group/1"), "pg-2"),
        (lambda g: g["patient"].update(reference="Patient/child/_history/1"), "pg-2"),
        (lambda g: g.pop("performer"), "Consent.performer"),
        (lambda g: g.pop("sourceReference"), "pg-3"),
        (lambda g: g.update(sourceAttachment={"title": "x"}), "Consent.source[x]"),
        (lambda g: g.update(policy=[{"uri": "https://x.example"}]), "Consent.policy"),
        (lambda g: g.pop("policyRule"), "Consent.policyRule"),
        (
            lambda g: g.update(
                policyRule=concept("http://terminology.hl7.org/CodeSystem/v3-ActCode", "NOPP")
            ),
            "Consent.policyRule",
        ),
        (lambda g: g.update(verification=[{"verified": False}]), "Consent.verification"),
        (lambda g: g.pop("provision"), "Consent.provision"),
        (lambda g: g["provision"].update(MODIFIER), "Consent.provision.modifierExtension"),
        (lambda g: g["provision"].update(type="permit"), "Consent.provision.type"),
        (lambda g: g["provision"].pop("period"), "Consent.provision.period"),
        (lambda g: g["provision"]["period"].pop("start"), "Consent.provision.period.start"),
        (lambda g: g["provision"].pop("actor"), "Consent.provision.actor"),
        (
            lambda g: g["provision"]["actor"].append(g["provision"]["actor"][0]),
            "Consent.provision.actor",
        ),
        (
            lambda g: g["provision"]["actor"][0].update(MODIFIER),
            "Consent.provision.actor.modifierExtension",
        ),
        (
            lambda g: g["provision"]["actor"][0].update(role=concept("urn:x", "AUT")),
            "Consent.provision.actor.role",
        ),
        (
            lambda g: g["provision"]["actor"][0]["reference"].update(reference="Practitioner/1"),
            "pg-2",
        ),
        (
            lambda g: g["provision"].update(action=[concept(ACTION, "access")]),
            "Consent.provision.action",
        ),
        (
            lambda g: g["provision"].update(code=[concept(SECTION, "visits")]),
            "Consent.provision.code",
        ),
        (lambda g: g["provision"].pop("provision"), "Consent.provision.provision"),
        (nested(lambda p: p.update(MODIFIER)), "Consent.provision.provision.modifierExtension"),
        (nested(lambda p: p.update(type="deny")), "Consent.provision.provision.type"),
        (nested(lambda p: p.pop("type")), "Consent.provision.provision.type"),
        (nested(lambda p: p.update(period={})), "Consent.provision.provision.period"),
        (nested(lambda p: p.update(actor=[{}])), "Consent.provision.provision.actor"),
        (nested(lambda p: p.pop("action")), "Consent.provision.provision.action"),
        (
            nested(lambda p: p["action"].append(concept(ACTION, "disclose"))),
            "Consent.provision.provision.action",
        ),
        (nested(lambda p: p["action"].pop(0)), "pg-4"),
        (nested(lambda p: p.update(action=[p["action"][0]] * 2)), "pg-4"),
        (
            nested(lambda p: p.update(purpose=[{"code": "TREAT"}])),
            "Consent.provision.provision.purpose",
        ),
        (nested(lambda p: p.update(data=[{}])), "Consent.provision.provision.data"),
        (nested(lambda p: p.update(dataPeriod={})), "Consent.provision.provision.dataPeriod"),
        (nested(lambda p: p.update(provision=[{}])), "Consent.provision.provision.provision"),
        (nested(lambda p: p.pop("code")), "Consent.provision.provision.code"),
        (
            nested(lambda p: p.update(code=[concept(SECTION, "everything")])),
            "Consent.provision.provision.code",
        ),
        (
            nested(lambda p: p["code"][0]["coding"].append({"system": SECTION, "code": "visits"})),
            "Consent.provision.provision.code.coding",
        ),
        (lambda g: g["provision"]["provision"].append(g["provision"]["provision"][0]), "pg-1"),
    ],
)
def test_a_consent_outside_the_profile_is_refused_for(
    change: Callable[[Json], object], refused_for: str
) -> None:
    grant = copy.deepcopy(example("guardian-grant"))
    change(grant)
    assert refused_for in faults(grant)


def test_the_patients_own_grant_needs_no_evidence_but_anybody_elses_does() -> None:
    grant = example("helper-grant")
    assert "sourceReference" not in grant
    grant["performer"] = [{"reference": "Patient/somebody-else"}]
    assert faults(grant) == {"pg-3"}


def test_an_absolute_reference_names_the_person_too() -> None:
    grant = example("helper-grant")
    actor = grant["provision"]["actor"][0]["reference"]
    actor["reference"] = f"https://portal.example/fhir/{actor['reference']}"
    assert faults(grant) == set()
