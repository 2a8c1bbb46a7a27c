"""Quillfern Dermatology: Teodor's skin, seen from the second practice."""

from __future__ import annotations

from datetime import date
from typing import Final

from fhir_portal.demo import codes, people
from fhir_portal.demo.chart import Chart
from fhir_portal.demo.chart_sheet import reference
from fhir_portal.demo.codes import Code, concept
from fhir_portal.demo.people import QUILLFERN

_DERMATOLOGIST: Final = Code(codes.SNOMED, "18803008", "Dermatologist")
_ASSISTANT: Final = Code(codes.SNOMED, "449161006", "Physician assistant")

PSORIASIS: Final = (
    Code(codes.ICD_10, "L40.0", "Psoriasis vulgaris"),
    Code(codes.SNOMED, "9014002", "Psoriasis"),
)
KERATOSIS: Final = (
    Code(codes.ICD_10, "L57.0", "Actinic keratosis"),
    Code(codes.SNOMED, "201101007", "Actinic keratosis"),
)
_BIOPSY: Final = Code(codes.SNOMED, "240977001", "Biopsy of skin")
_CALCIPOTRIENE: Final = Code(codes.RXNORM, "29365", "calcipotriene")
_HYDROCORTISONE: Final = Code(codes.RXNORM, "5492", "hydrocortisone")
_SURGICAL_PATHOLOGY: Final = Code(codes.LOINC, "11529-5", "Surgical pathology study")


def quillfern(day: date) -> Chart:
    """Everything the dermatology practice holds."""
    chart = Chart(QUILLFERN.key, QUILLFERN.name, QUILLFERN.zone, day)
    chart.organization("quillfern", QUILLFERN.name, "prov", listed=True)
    laboratory = chart.organization("tarnmoor", "Tarnmoor Pathology", "other", listed=False)
    chart.location("quillfern", QUILLFERN.name, "4 Candlewick Row")
    chart.support_line("Help with the portal")
    ottoline = chart.practitioner("brask", "Ottoline", "Brask", _DERMATOLOGIST)
    chart.practitioner("larkhill", "Femi", "Larkhill", _ASSISTANT)
    chart.practitioner("dunmarrow", "Ignace", "Dunmarrow", codes.OFFICE_STAFF)

    teodor = chart.patient(
        "teodor-q", "Teodor", "Brandvik", "male", chart.years_ago(51, 40), "31 Gorse Hill"
    )
    chart.person("teodor-q", "Teodor", "Brandvik", teodor)

    first = chart.visit(
        "teodor-q-1",
        teodor,
        -300,
        codes.FOR_SYMPTOM,
        PSORIASIS[0],
        ottoline,
        "Scaly plaques on both elbows, itching for two months. Cream twice a day for six weeks.",
    )
    chart.condition("psoriasis", teodor, PSORIASIS, -300, encounter=first)
    chart.prescription(
        "hydrocortisone",
        teodor,
        _HYDROCORTISONE,
        "Thin layer on the elbows, twice a day",
        -300,
        ottoline,
        stopped=True,
        encounter=first,
    )
    second = chart.visit(
        "teodor-q-2",
        teodor,
        -250,
        codes.FOLLOW_UP,
        KERATOSIS[0],
        ottoline,
        "Elbows better. A rough spot on the left temple: biopsy taken, stitches out in a week.",
    )
    chart.condition("keratosis", teodor, KERATOSIS, -250, encounter=second)
    chart.prescription(
        "calcipotriene",
        teodor,
        _CALCIPOTRIENE,
        "Thin layer on the elbows at night",
        -250,
        ottoline,
        encounter=second,
    )
    chart.add(
        "Procedure",
        "biopsy",
        status="completed",
        code=concept(_BIOPSY),
        subject=reference(teodor),
        encounter=reference(second),
        performedDateTime=chart.at(-250, 9, 15),
        performer=[{"actor": reference(ottoline)}],
        bodySite=[{"text": "Left temple"}],
    )
    chart.add(
        "DiagnosticReport",
        "biopsy",
        status="final",
        category=[concept(codes.PATHOLOGY_REPORT)],
        code=concept(_SURGICAL_PATHOLOGY),
        subject=reference(teodor),
        encounter=reference(second),
        effectiveDateTime=chart.at(-250, 9, 15),
        issued=chart.at(-244, 15),
        performer=[reference(laboratory)],
        conclusion="Actinic keratosis. Margins free. No sign of invasion.",
    )
    chart.document(
        "teodor-q-letter",
        teodor,
        -243,
        codes.LETTER,
        "Your biopsy result",
        "The spot was harmless and has been removed completely. Please wear a hat in the sun.",
        ottoline,
    )
    chart.bill("teodor-q-bill", teodor, -250, "Office visit and biopsy", 212.5, "balanced")
    chart.appointment("teodor-q-past", teodor, -250, 9, "Skin check", ottoline, "fulfilled")
    chart.appointment("teodor-q-next", teodor, 23, 14, "Yearly skin check", ottoline, "booked")
    chart.conversation(
        "teodor-q-swim",
        teodor,
        "Swimming",
        ("medical", "A medical question"),
        ("teodor-q-1", teodor, ottoline, -241, 19, "Thank you. May I swim again?"),
    )
    chart.open_times("skin-checks", ottoline, "Ottoline Brask", people.SKIN_CHECK, hours=(8, 13))
    chart.open_times("light", ottoline, "Ottoline Brask", people.LIGHT_THERAPY, hours=(16,))
    return chart
