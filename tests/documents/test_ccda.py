"""C-CDA documents: complete for an independent reader, well built, and never markup by accident."""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
from ccda_to_fhir import convert_document
from lxml import etree

from fhir_portal.documents.ccda.document import SECTIONS, as_ccd
from fhir_portal.documents.chart import Chart
from tests.builders import Json, a_condition, a_patient, an_observation, concept
from tests.charts import (
    a_chart,
    a_prescription,
    an_allergy,
    an_immunization,
    inferno_charts,
    synthea_charts,
)
from tests.documents.reading import entries_in, keys_in
from tests.search.corpus import has_data

V3 = {"v": "urn:hl7-org:v3"}
XSI_TYPE = "{http://www.w3.org/2001/XMLSchema-instance}type"

needs_data = pytest.mark.skipif(not has_data(), reason="no sample data; set FHIR_PORTAL_TEST_DATA")


def tree_of(chart: Chart) -> Any:
    return etree.fromstring(as_ccd(chart))


def read_back(chart: Chart) -> list[Json]:
    """What ccda-to-fhir makes of the document."""
    logging.getLogger("ccda_to_fhir").setLevel(logging.ERROR)
    bundle = convert_document(as_ccd(chart).decode())["bundle"]
    return [one["resource"] for one in bundle["entry"]]


def identifiers_of(tree: Json) -> list[str]:
    given = tree.get("identifier", [])
    return [one.get("value", "") for one in (given if isinstance(given, list) else [given])]


def nameable(chart: Chart) -> Chart:
    """Without vaccines of which the record says that nobody knows which: the reader drops them."""
    unknown = "http://terminology.hl7.org/CodeSystem/data-absent-reason"
    known = [
        one
        for one in chart.resources.get("Immunization", ())
        if any(coding.get("system") != unknown for coding in one["vaccineCode"]["coding"])
    ]
    return replace(chart, resources={**chart.resources, "Immunization": known})


SECTION_OF = {
    "AllergyIntolerance": "Allergies",
    "MedicationRequest": "Medicines",
    "MedicationStatement": "Medicines",
    "Condition": "Health problems",
    "Procedure": "Operations and procedures",
    "Immunization": "Vaccines",
    "Encounter": "Visits",
    "Goal": "Plans and goals",
    "ServiceRequest": "Plans and goals",  # what a Planned Act becomes there
    "laboratory": "Test results",
    "vital-signs": "Measurements",
    "social-history": "Daily life",
}


def entries_out(found: list[Json]) -> dict[str, int]:
    """How many entries each section gave; of measurements, how many values."""
    count: Counter[str] = Counter()
    for one in found:
        kind, values = one["resourceType"], 1
        if kind == "Observation":
            if one.get("hasMember"):
                continue  # the organizer, not one of its values
            kind = one["category"][0]["coding"][0]["code"]
            own = any(name.startswith("value") for name in one)
            values = (len(one.get("component", ())) + own) or 1
        if kind in SECTION_OF:
            count[SECTION_OF[kind]] += values
    return dict(count)


@needs_data
@pytest.mark.requirement("portal", "S0-02")
def test_an_independent_reader_finds_every_entry_of_every_section() -> None:
    """The 31 Synthea records and Inferno's, by ccda-to-fhir: in are out, by number and by id."""
    charts = [a_chart(), *synthea_charts(), *inferno_charts()]
    assert len(charts) > 32
    for number, chart in enumerate(charts):
        found = read_back(chart)
        assert entries_out(found) == entries_in(nameable(chart)), number
        told = {one for tree in found for one in identifiers_of(tree)}
        keys = keys_in(nameable(chart))
        pairs = {key for key in keys if "/component/" in key}  # put together there
        assert keys - told <= pairs, number


@needs_data
def test_codes_dates_and_values_come_back_as_they_were() -> None:
    chart = a_chart()
    found = {one: tree for tree in read_back(chart) for one in identifiers_of(tree)}
    problem = found["Condition/flu-of-old"]
    assert problem["code"]["coding"][0]["code"] == "6142004"
    assert problem["onsetPeriod"] == {"start": "2020-01-01", "end": "2020-02-01"}
    assert problem["clinicalStatus"]["coding"][0]["code"] in {"resolved", "inactive"}
    assert found["Condition/eczema"]["clinicalStatus"]["coding"][0]["code"] == "active"
    allergy = found["AllergyIntolerance/nuts"]
    assert allergy["code"]["coding"][0]["code"] == "91935009"
    assert allergy["criticality"] == "high"
    reaction = allergy["reaction"][0]
    assert reaction["manifestation"][0]["coding"][0]["code"] == "247472004"
    assert reaction["severity"] == "moderate"
    medicine = found["MedicationRequest/cream"]
    assert medicine["status"] == "active"
    assert medicine["medicationCodeableConcept"]["coding"][0]["code"] == "103403"
    assert found["MedicationRequest/old-cream"]["status"] in {"stopped", "cancelled"}
    sugar = found["Observation/sugar"]
    assert sugar["valueQuantity"]["value"] == 95
    assert sugar["valueQuantity"]["code"] == "mg/dL"
    assert sugar["effectiveDateTime"] == "2029-03-01"
    assert found["Observation/smoking"]["valueCodeableConcept"]["coding"][0]["code"] == "266919005"
    assert found["Immunization/flu"]["vaccineCode"]["coding"][0]["code"] == "140"
    assert found["Procedure/biopsy"]["performedDateTime"] == "2028-05-04"
    assert found["Encounter/visit"]["period"]["start"].startswith("2029-03-01T09:00:00")


def test_it_declares_the_templates_of_2015_and_each_section_its_own() -> None:
    tree = tree_of(a_chart())
    declared = {(one.get("root"), one.get("extension")) for one in tree.iter("{*}templateId")}
    for root, version in (
        ("1.1", "2015-08-01"),
        ("1.2", "2015-08-01"),
        *((section.root, section.version) for section in SECTIONS),
    ):
        assert (f"2.16.840.1.113883.10.20.22.{root}", version) in declared
    assert tree.find("v:code", V3).get("code") == "34133-9"


def test_sections_that_must_be_there_say_that_they_have_no_information() -> None:
    tree = tree_of(a_chart(an_immunization()))
    empty = {
        one.findtext("v:title", "", V3): one.findtext("v:text", "", V3)
        for one in tree.iterfind(".//v:section[@nullFlavor='NI']", V3)
    }
    assert set(empty) == {section.part.title for section in SECTIONS if section.required}
    assert set(empty.values()) == {"No information is available here."}


@needs_data
def test_every_id_in_a_narrative_is_there_once_and_every_reference_leads_to_one() -> None:
    for chart in (a_chart(), next(iter(synthea_charts()))):
        tree = tree_of(chart)
        anchors = [str(one) for one in tree.xpath("//@ID")]
        assert len(anchors) == len(set(anchors))
        named = {
            str(one.get("value"))[1:]
            for one in tree.iter("{*}reference")
            if str(one.get("value")).startswith("#")
        }
        assert named <= set(anchors)


def test_it_is_the_same_bytes_each_time_and_another_document_at_another_time() -> None:
    chart = a_chart()
    assert as_ccd(chart) == as_ccd(a_chart())
    first, later = tree_of(chart), tree_of(a_chart(made=chart.made + 1))
    assert first.find("v:id", V3).get("root") != later.find("v:id", V3).get("root")


EVIL = '"><script>alert(1)</script>&amp;<!-- ]]> \u202e'


def test_what_somebody_wrote_is_text_everywhere() -> None:
    said = {"coding": [{"system": "http://loinc.org", "code": EVIL, "display": EVIL}]}
    trees = [
        a_condition("c") | {"code": {"text": EVIL}},
        an_allergy(code=said),
        a_prescription(dosageInstruction=[{"text": EVIL}], medicationCodeableConcept=said),
        an_observation("o", category="laboratory", valueQuantity=None, valueString=EVIL),
        an_immunization(lotNumber=EVIL),
    ]
    patient = a_patient(
        family=EVIL, telecom=[{"system": "phone", "value": EVIL}], address=[{"line": [EVIL]}]
    )
    content = as_ccd(a_chart(*trees, patient=patient))
    assert b"<script" not in content
    assert b"<!--" not in content
    assert EVIL.split(maxsplit=1)[0] in " ".join(map(str, etree.fromstring(content).itertext()))


@pytest.mark.parametrize(
    ("more", "kind", "attributes"),
    [
        ({"valueQuantity": {"value": 7, "unit": "points"}}, "PQ", {"value": "7", "unit": "points"}),
        ({"valueQuantity": {"value": 7}}, "PQ", {"value": "7"}),
        ({"valueQuantity": {"value": 7, "unit": "two words"}}, "ST", {}),
        ({"valueQuantity": {"value": 7, "comparator": "<", "unit": "mg"}}, "IVL_PQ", {}),
        ({"valueString": "cloudy"}, "ST", {}),
        ({"valueBoolean": False}, "BL", {"value": "false"}),
        ({"valueInteger": 3}, "INT", {"value": "3"}),
        ({"valueDateTime": "2029-01"}, "TS", {"value": "202901"}),
        ({"valueRange": {"low": {"value": 1}, "high": {"value": 2}}}, "ST", {}),
        ({"valueRatio": {"numerator": {"value": 1}, "denominator": {"value": 8}}}, "ST", {}),
        ({"valueCodeableConcept": concept("http://loinc.org", "LA1-1")}, "CD", {"code": "LA1-1"}),
        ({"valueCodeableConcept": {"text": "odd"}}, "CD", {"nullFlavor": "UNK"}),
        ({"dataAbsentReason": {"text": "lost"}}, "ST", {}),
        ({}, "CD", {"nullFlavor": "UNK"}),
    ],
)
def test_a_value_of_each_kind_has_its_cda_type(
    more: Json, kind: str, attributes: dict[str, str]
) -> None:
    given: Json = {"valueQuantity": None} | more
    tree = tree_of(a_chart(an_observation("o", category="laboratory", **given)))
    (found,) = tree.iterfind(".//v:observation/v:value", V3)
    assert found.get(XSI_TYPE) == kind
    assert {name: found.get(name) for name in attributes} == attributes


@pytest.mark.parametrize(
    ("sent", "written"),
    [
        ("2029", "2029"),
        ("2029-03", "202903"),
        ("2029-03-01", "20290301"),
        ("2029-03-01T09:05:07Z", "20290301090507+0000"),
        ("2029-03-01T09:05:07.125-05:30", "20290301090507-0530"),
    ],
)
def test_a_time_is_as_precise_as_it_was(sent: str, written: str) -> None:
    tree = tree_of(a_chart(an_observation("o", category="laboratory", on=sent)))
    found = tree.find(".//v:component/v:observation/v:effectiveTime", V3)
    assert found.get("value") == written


def test_a_patient_without_particulars_is_one_whose_particulars_are_not_known() -> None:
    tree = tree_of(a_chart(patient={"resourceType": "Patient", "id": "ada"}))
    role = tree.find(".//v:patientRole", V3)
    for path in ("v:addr", "v:telecom", "v:patient/v:name", "v:patient/v:birthTime",
                 "v:patient/v:raceCode", "v:patient/v:ethnicGroupCode",
                 "v:patient/v:administrativeGenderCode"):  # fmt: skip
        assert role.find(path, V3).get("nullFlavor") == "UNK", path
