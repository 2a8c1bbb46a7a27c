"""Resources to search: some Synthea patients, the Inferno set, and made-up ones for rare elements.

References between entries of a Bundle (``urn:uuid:…``) are rewritten to ``Type/id``; apart from
that a resource is as its source wrote it, digits of numbers included.
"""

from __future__ import annotations

import functools
import gzip
import json
import os
import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

from fhir_portal.fhir.json import dumps, parse

BASE = "https://portal.example/fhir"
"""The server's base address for which the corpus and its queries are made."""

SYNTHEA = (2, 9, 15, 20)
"""Which of the Synthea Bundles are loaded: by place in the file."""


@dataclass(frozen=True, eq=False)
class Corpus:
    """Resources by type and id: the JSON as sent, and read with every number a ``Decimal``."""

    bodies: dict[str, dict[str, bytes]]
    trees: dict[str, dict[str, dict[str, Any]]]

    @property
    def size(self) -> int:
        return sum(map(len, self.bodies.values()))


def data_folder() -> Path:
    """Where the public sample data lies, which a checkout may do without."""
    root = Path(__file__).resolve().parents[2]
    return Path(os.environ.get("FHIR_PORTAL_TEST_DATA", root.parent / "shared" / "data"))


def has_data() -> bool:
    return (data_folder() / "synthea" / "bundles.ndjson.gz").is_file()


@functools.cache
def full_corpus() -> Corpus:
    """Sample data and made-up resources together."""
    found = [*sample_resources(SYNTHEA), *made_up_resources()]
    return corpus_of(found)


@functools.cache
def small_corpus() -> Corpus:
    """Only the made-up resources: needs no data folder."""
    return corpus_of(made_up_resources())


def corpus_of(trees: Iterable[dict[str, Any]]) -> Corpus:
    bodies: dict[str, dict[str, bytes]] = {}
    for tree in trees:
        bodies.setdefault(tree["resourceType"], {}).setdefault(tree["id"], dumps(tree))
    read = {
        type_: {
            id_: json.loads(body, parse_float=Decimal, parse_int=Decimal)
            for id_, body in of_type.items()
        }
        for type_, of_type in bodies.items()
    }
    return Corpus(bodies, read)


def sample_resources(synthea: Iterable[int] | None = None) -> Iterator[dict[str, Any]]:
    """Every resource of the chosen Synthea Bundles (all, if none are named) and of Inferno's."""
    chosen = None if synthea is None else set(synthea)
    for place, tree in enumerate(_lines("synthea")):
        if chosen is None or place in chosen:
            yield from _entries(tree)
    for tree in _lines("inferno"):
        yield from _entries(tree)


def sample_records(name: str = "synthea") -> Iterator[list[dict[str, Any]]]:
    """The resources of each Bundle or line of a sample: of Synthea's, one patient's record each."""
    for tree in _lines(name):
        yield list(_entries(tree))


def _lines(name: str) -> Iterator[dict[str, Any]]:
    with gzip.open(data_folder() / name / "bundles.ndjson.gz", "rb") as file:
        for line in file:
            yield parse(line)


def _entries(tree: dict[str, Any]) -> Iterator[dict[str, Any]]:
    if tree["resourceType"] != "Bundle":
        yield tree
        return
    names = {
        entry["fullUrl"]: f"{entry['resource']['resourceType']}/{entry['resource']['id']}"
        for entry in tree["entry"]
        if "fullUrl" in entry
    }
    for entry in tree["entry"]:
        _rewrite(entry["resource"], names)
        yield entry["resource"]


def _rewrite(node: Any, names: dict[str, str]) -> None:
    if isinstance(node, list):
        for item in node:
            _rewrite(item, names)
    elif isinstance(node, dict):
        if isinstance(text := node.get("reference"), str):
            node["reference"] = names.get(text, text)
        for item in node.values():
            _rewrite(item, names)


# --- made-up resources: parameters, types and number forms that the samples lack ------------------

UCUM = "http://unitsofmeasure.org"


def made_up_resources(seed: int = 7) -> list[dict[str, Any]]:
    """The same list for the same seed; every resource is valid R4."""
    dice = random.Random(seed)
    makers = {
        "Patient": (24, _patient),
        "RiskAssessment": (60, _risk_assessment),
        "ChargeItem": (40, _charge_item),
        "MolecularSequence": (30, _molecular_sequence),
        "Observation": (60, _observation),
        "Condition": (24, _condition),
        "Encounter": (20, _encounter),
        "Appointment": (20, _appointment),
        "ServiceRequest": (20, _service_request),
        "Invoice": (12, _invoice),
        "ValueSet": (16, _value_set),
        "QuestionnaireResponse": (16, _questionnaire_response),
        "Provenance": (12, _provenance),
        "Person": (10, _person),
        "Goal": (10, _goal),
        "Composition": (8, _composition),
        "Location": (8, _location),
    }
    trees = [
        {"resourceType": type_, "id": f"made-{n}", **make(dice, n)}
        for type_, (count, make) in makers.items()
        for n in range(count)
    ]
    return [
        parse(json.dumps({name: value for name, value in tree.items() if value != []}).encode())
        for tree in trees
    ]


_Tree = dict[str, Any]


def _someone(dice: random.Random) -> _Tree:
    """A reference to a made-up patient in one of the forms a reference can have."""
    key = f"Patient/made-{dice.randrange(24)}"
    forms = (key, key, key, f"{BASE}/{key}", f"{key}/_history/2", f"https://ehr.example/r4/{key}")
    return {"reference": dice.choice(forms)}


def _day(dice: random.Random) -> str:
    return f"20{dice.randrange(10, 26)}-{dice.randrange(1, 13):02d}-{dice.randrange(1, 29):02d}"


def _moment(dice: random.Random) -> str:
    """A dateTime of any precision and zone."""
    day = _day(dice)
    time = f"T{dice.randrange(24):02d}:{dice.randrange(60):02d}:{dice.randrange(60):02d}"
    zone = dice.choice(("Z", "+00:00", "-05:00", "+05:30", "+14:00"))
    forms = (day[:4], day[:7], day, day + time + zone, f"{day}{time}.{dice.randrange(1000)}{zone}")
    return dice.choice(forms)


def _period(dice: random.Random) -> _Tree:
    first, last = sorted((_day(dice), _day(dice)))
    forms: tuple[_Tree, ...] = (
        {"start": first, "end": last},
        {"start": first},
        {"end": last},
        {"start": first[:7], "end": f"{last}T23:30:00-03:00"},
    )
    return dice.choice(forms)


def _instant(dice: random.Random) -> str:
    return f"{_day(dice)}T{dice.randrange(24):02d}:15:{dice.randrange(60):02d}.125+01:00"


def _decimal(dice: random.Random) -> float:
    return dice.choice((0.0, 0.5, 0.05, 0.25, 0.333, 0.9, 1.0, 12.5, 5.4, 100.25, 0.0054, 72.0))


def _concept(dice: random.Random, *codes: str) -> _Tree:
    code = dice.choice(codes)
    system = "http://codes.example/clinical"
    forms: tuple[_Tree, ...] = (
        {"coding": [{"system": system, "code": code}], "text": f"The {code}"},
        {"coding": [{"system": system, "code": code}, {"code": code.upper()}]},
        {"coding": [{"code": code}]},
        {"coding": [{"system": system, "display": "without a code"}]},
        {"text": f"only words: {code}"},
    )
    return dice.choice(forms)


def _patient(dice: random.Random, n: int) -> _Tree:
    names = ("Zoë", "Renée", "Åsa", "José", "Ana-María", "O'Neil", "Straße", "İpek", "Anna  Lena")
    families = ("Núñez", "Nunez", "Müller", "Muller", "van der Berg", "Carreño Quiñones", "Ng")
    tree: _Tree = {
        "identifier": [{"system": "http://ids.example/mrn", "value": f"A,{n}|b$c\\{n % 5}"}],
        "name": [{"family": dice.choice(families), "given": dice.sample(names, 2)}],
        "gender": dice.choice(("male", "female", "other", "unknown")),
        "birthDate": dice.choice((_day(dice), _day(dice)[:4], f"19{_day(dice)[2:]}")),
        "telecom": [
            {"system": "phone", "value": f"+1 555 01{n:02d}", "use": "home"},
            {"system": "email", "value": f"Person.{n}@example.org"},
        ],
        "address": [{"line": [f"{n} Elm St.", "Apt 2"], "city": "Évry", "country": "FR"}],
        "generalPractitioner": [{"reference": f"Practitioner/made-{n % 3}"}],
        "meta": {
            "profile": [f"http://profiles.example/patient|{n % 3}.0"],
            "tag": [{"system": "http://tags.example", "code": f"T{n % 4}"}],
            "source": f"urn:source:{n % 4}",
        },
    }
    if n % 4 == 0:
        tree["deceasedBoolean"] = n % 8 == 0
    elif n % 4 == 1:
        tree["deceasedDateTime"] = _moment(dice)
    if n % 3:
        tree["active"] = n % 2 == 0
        tree["link"] = [{"other": {"reference": f"Patient/made-{n // 2}"}, "type": "seealso"}]
    if n % 5 == 0:
        del tree["gender"], tree["birthDate"]
        tree["_gender"] = {
            "extension": [
                {
                    "url": "http://hl7.org/fhir/StructureDefinition/data-absent-reason",
                    "valueCode": "unknown",
                }
            ]
        }
    return tree


def _risk_assessment(dice: random.Random, n: int) -> _Tree:
    low, high = (
        {"value": value, "unit": "%", "system": UCUM, "code": "%"} for value in (10.5, 30 + n)
    )
    prediction: _Tree = dice.choice(
        (
            {"probabilityDecimal": min(_decimal(dice), 100)},
            {"probabilityDecimal": round(dice.random(), 4)},
            {"probabilityRange": {"low": low, "high": high}},
            {"probabilityRange": {"low": {**low, "value": n / 4}}},
            {"qualitativeRisk": {"text": "likely"}},
        )
    )
    occurrence: _Tree = dice.choice(
        ({"occurrenceDateTime": _moment(dice)}, {"occurrencePeriod": _period(dice)}, {})
    )
    return {
        "status": dice.choice(("final", "preliminary")),
        "subject": _someone(dice),
        "prediction": [prediction, {"probabilityDecimal": min(_decimal(dice), 100)}][: n % 3],
        **occurrence,
    }


def _charge_item(dice: random.Random, n: int) -> _Tree:
    tree: _Tree = {
        "status": "billable",
        "code": _concept(dice, "visit", "supply"),
        "subject": _someone(dice),
        "factorOverride": dice.choice((-1.5, 0.8, 1, 1.0, 2, 100, 1e-7, 1.25e3)),
        "quantity": {"value": dice.choice((1, 2, 2.5, -3)), "unit": "each"},
        "priceOverride": {"value": _decimal(dice), "currency": dice.choice(("USD", "EUR"))},
        "definitionUri": [f"http://definitions.example/{n % 4}"],
        "definitionCanonical": [f"http://canonicals.example/{n % 3}|1.{n % 2}"],
        "occurrencePeriod": _period(dice),
        "enteredDate": _moment(dice),
    }
    if n % 4 == 0:
        del tree["factorOverride"], tree["priceOverride"]
    elif n % 4 == 1:
        del tree["priceOverride"]["currency"]
    return tree


def _molecular_sequence(dice: random.Random, n: int) -> _Tree:
    start = dice.randrange(1, 200)
    tree: _Tree = {
        "type": dice.choice(("dna", "rna", "aa")),
        "coordinateSystem": n % 2,
        "patient": _someone(dice),
        "variant": [
            {"start": start, "end": start + 3},
            {"start": start + 10, "end": start + 12},
        ][: n % 3],
    }
    if n % 2:
        tree["referenceSeq"] = {
            "windowStart": start,
            "windowEnd": start + 100,
            "strand": "watson",
            "referenceSeqId": _concept(dice, "NC_000023", "NC_000024"),
        }
    return tree


def _observation(dice: random.Random, n: int) -> _Tree:
    quantities: tuple[_Tree, ...] = (
        {"value": _decimal(dice), "unit": "mg/dL", "system": UCUM, "code": "mg/dL"},
        {"value": _decimal(dice), "unit": "milligrams per decilitre", "system": UCUM, "code": "mg"},
        {"value": _decimal(dice), "unit": "mg"},
        {"value": _decimal(dice), "code": "mg", "system": "http://units.example"},
        {"value": dice.choice((5, 0.5)), "comparator": dice.choice("<>"), "unit": "mg"},
        {"value": 12, "comparator": dice.choice(("<=", ">=")), "system": UCUM, "code": "mg"},
        {"value": -40.0, "unit": "°C", "system": UCUM, "code": "Cel"},
    )
    values: tuple[_Tree, ...] = (
        *({"valueQuantity": quantity} for quantity in quantities),
        {"valueCodeableConcept": _concept(dice, "positive", "negative")},
        {"valueString": dice.choice(("Trace", "trace amounts", "Négatif"))},
        {"valueDateTime": _moment(dice)},
        {"valuePeriod": _period(dice)},
        {"valueSampledData": {"origin": {"value": 0}, "period": 10, "dimensions": 1}},
        {"valueBoolean": True},
        {},
    )
    times: tuple[_Tree, ...] = (
        {"effectiveDateTime": _moment(dice)},
        {"effectivePeriod": _period(dice)},
        {"effectiveInstant": _instant(dice)},
        {"effectiveTiming": _timing(dice)},
        {},
    )
    tree: _Tree = {
        "status": dice.choice(("final", "amended", "registered")),
        "category": [_concept(dice, "vitals", "labs")],
        "code": _concept(dice, "glucose", "weight", "fever"),
        "subject": dice.choice(
            (_someone(dice), {"reference": f"Group/made-{n % 4}"}, {"display": "somebody"})
        ),
        **dice.choice(values),
        **dice.choice(times),
    }
    if n % 3 == 0:
        tree["component"] = [
            {"code": {"coding": [{"code": "systolic"}]}, "valueQuantity": dice.choice(quantities)},
            {"code": {"text": "diastolic"}, "valueQuantity": dice.choice(quantities)},
        ]
        tree["contained"] = [{"resourceType": "Device", "id": "d"}]
        tree["device"] = {"reference": "#d"}
    return tree


def _timing(dice: random.Random) -> _Tree:
    forms: tuple[_Tree, ...] = (
        {"event": [_moment(dice), _moment(dice)]},
        {"repeat": {"boundsPeriod": _period(dice), "frequency": 2, "period": 1, "periodUnit": "d"}},
        {"event": [_day(dice)], "repeat": {"boundsPeriod": {"start": _day(dice)}}},
        {"repeat": {"frequency": 1, "period": 1, "periodUnit": "d"}},
    )
    return dice.choice(forms)


def _condition(dice: random.Random, n: int) -> _Tree:
    onset: tuple[_Tree, ...] = (
        {"onsetAge": {"value": n + 0.5, "unit": "years", "system": UCUM, "code": "a"}},
        {"onsetRange": {"low": {"value": n, "unit": "a"}, "high": {"value": n + 5, "unit": "a"}}},
        {"onsetRange": {"high": {"value": n, "unit": "yr", "system": UCUM, "code": "a"}}},
        {"onsetDateTime": _moment(dice)},
        {"onsetPeriod": _period(dice)},
        {"onsetString": "since childhood"},
    )
    return {
        "clinicalStatus": {
            "coding": [
                {
                    "system": "http://terminology.hl7.org/CodeSystem/condition-clinical",
                    "code": dice.choice(("active", "resolved")),
                }
            ]
        },
        "code": _concept(dice, "asthma", "eczema"),
        "subject": _someone(dice),
        **dice.choice(onset),
    }


def _encounter(dice: random.Random, n: int) -> _Tree:
    return {
        "status": dice.choice(("planned", "finished", "in-progress")),
        "class": {"system": "http://terminology.hl7.org/CodeSystem/v3-ActCode", "code": "AMB"},
        "subject": _someone(dice),
        "length": {"value": 5 * n, "unit": "minutes", "system": UCUM, "code": "min"},
        "period": _period(dice),
        "participant": [
            {"individual": {"reference": f"Practitioner/made-{n % 4}"}},
            {"individual": {"reference": f"RelatedPerson/made-{n % 3}"}},
            {"individual": {"reference": "urn:uuid:0d3b9a2c-4f7a-4b0e-9a55-1b2c3d4e5f60"}},
        ][: n % 4],
    }


def _appointment(dice: random.Random, n: int) -> _Tree:
    actor = dice.choice(("Practitioner", "Location", "HealthcareService", "RelatedPerson"))
    return {
        "status": dice.choice(("booked", "arrived", "cancelled")),
        "start": _instant(dice),
        "end": "2026-01-01T00:00:00Z",
        "participant": [
            {"actor": _someone(dice), "status": "accepted"},
            {"actor": {"reference": f"{actor}/made-{n % 4}"}, "status": "tentative"},
        ],
    }


def _service_request(dice: random.Random, n: int) -> _Tree:
    occurrence: tuple[_Tree, ...] = (
        {"occurrenceTiming": _timing(dice)},
        {"occurrencePeriod": _period(dice)},
        {"occurrenceDateTime": _moment(dice)},
    )
    return {
        "status": "active",
        "intent": "order",
        "subject": _someone(dice),
        "instantiatesCanonical": [
            f"http://plans.example/p{n % 5}|2.{n % 2}",
            "PlanDefinition/made-1",
        ][: n % 3],
        "instantiatesUri": [f"http://protocols.example/{n % 4}"],
        **dice.choice(occurrence),
    }


def _invoice(dice: random.Random, n: int) -> _Tree:
    return {
        "status": "issued",
        "subject": _someone(dice),
        "totalNet": {"value": _decimal(dice), "currency": dice.choice(("USD", "EUR"))},
        "totalGross": {"value": n * 10.5},
        "date": _moment(dice),
    }


def _value_set(dice: random.Random, n: int) -> _Tree:
    context: tuple[_Tree, ...] = (
        {"valueQuantity": {"value": n, "unit": "a"}},
        {"valueRange": {"low": {"value": 1, "unit": "a"}, "high": {"value": n + 2, "unit": "a"}}},
        {"valueCodeableConcept": _concept(dice, "adult", "child")},
    )
    code = {"system": "http://terminology.hl7.org/CodeSystem/usage-context-type", "code": "age"}
    return {
        "status": "draft",
        "url": f"http://sets.example/v{n % 6}",
        "name": f"Set{n}",
        "title": f"Élan set {n}",
        "description": "A set, (with) punctuation",
        "useContext": [{"code": code, **dice.choice(context)}],
        "compose": {"include": [{"system": f"http://codes.example/{n % 3}"}]},
    }


def _questionnaire_response(dice: random.Random, n: int) -> _Tree:
    url = "http://hl7.org/fhir/StructureDefinition/questionnaireresponse-isSubject"
    marked = [{"url": url, "valueBoolean": True}] if n % 2 else []
    item: _Tree = {"linkId": "1", "answer": [{"valueReference": _someone(dice)}]}
    if marked:
        item["extension"] = marked
    return {
        "status": "completed",
        "questionnaire": dice.choice(
            (
                f"http://forms.example/f{n % 3}|1.0",
                "Questionnaire/made-1",
                f"{BASE}/Questionnaire/q",
            )
        ),
        "subject": _someone(dice),
        "authored": _moment(dice),
        "item": [item],
    }


def _provenance(dice: random.Random, n: int) -> _Tree:
    occurred: tuple[_Tree, ...] = (
        {"occurredDateTime": _moment(dice)},
        {"occurredPeriod": _period(dice)},
        {},
    )
    return {
        "target": [_someone(dice), {"reference": f"Observation/made-{n}"}],
        "recorded": _instant(dice),
        "agent": [{"who": {"reference": f"Organization/made-{n % 3}"}}],
        **dice.choice(occurred),
    }


def _person(dice: random.Random, n: int) -> _Tree:
    target = dice.choice(("Practitioner", "RelatedPerson", "Patient"))
    return {
        "name": [{"text": f"Dr. Ødegård {n}", "prefix": ["Dr."]}],
        "birthDate": _day(dice),
        "link": [{"target": {"reference": f"{target}/made-{n % 3}"}}, {"target": _someone(dice)}],
    }


def _goal(dice: random.Random, n: int) -> _Tree:
    return {
        "lifecycleStatus": dice.choice(("active", "proposed")),
        "description": {"text": f"Goal {n}"},
        "subject": _someone(dice),
        "startDate": _day(dice),
        "target": [
            {"dueDate": _day(dice)},
            {"dueDuration": {"value": 3, "system": UCUM, "code": "d"}},
        ][: n % 3],
    }


def _composition(dice: random.Random, n: int) -> _Tree:
    related: tuple[_Tree, ...] = (
        {"targetIdentifier": {"system": "http://ids.example/doc", "value": f"D-{n}"}},
        {"targetReference": {"reference": f"Composition/made-{n // 2}"}},
    )
    return {
        "status": "final",
        "type": _concept(dice, "note"),
        "subject": _someone(dice),
        "date": _moment(dice),
        "author": [{"reference": f"Practitioner/made-{n % 2}"}],
        "title": f"Visit note {n}",
        "relatesTo": [{"code": "appends", **dice.choice(related)}],
    }


def _location(dice: random.Random, n: int) -> _Tree:
    return {
        "status": dice.choice(("active", "suspended")),
        "name": f"Ward {n}",
        "alias": ["Station Süd", "South ward"],
        "address": {"text": "1 Rue de l'Église", "city": "Lyon", "postalCode": f"6900{n}"},
        "managingOrganization": {"reference": f"Organization/made-{n % 2}"},
    }
