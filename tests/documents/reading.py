"""What a C-CDA has to hold, by section: of that, readers find as much."""

from __future__ import annotations

from fhir_portal.documents.ccda.document import SECTIONS
from fhir_portal.documents.ccda.entries import values_in
from fhir_portal.documents.chart import Chart


def entries_in(chart: Chart) -> dict[str, int]:
    """How many entries each section has that is not empty; of measurements, how many values."""
    found = {}
    for section in SECTIONS:
        items = section.part.items(chart)
        if section.part.types == ("Observation",):
            count = sum(len(values_in(item)) for item in items)
        else:
            count = len(items)
        if count:
            found[section.part.title] = count
    return found


def keys_in(chart: Chart) -> set[str]:
    """``Type/id`` of everything that is in the document, values of components with their place."""
    return {
        key
        for section in SECTIONS
        for item in section.part.items(chart)
        for key in (
            [one for one, _ in values_in(item)]
            if section.part.types == ("Observation",)
            else [item.key]
        )
    }
