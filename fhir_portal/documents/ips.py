"""A patient summary as a FHIR document: a Composition and everything its sections refer to.

Source: FHIR R4 §2.36 and §3.3 (documents), International Patient Summary 2.0. Resources stand in it
as they were sent. All ids and identifiers of its own come from what is in it: the same record gives
the same document, and what its reader may not see changes nothing in it.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, Final

from lxml import etree

from fhir_portal.documents.chart import NOTHING, Chart
from fhir_portal.documents.summary import TITLE, Section, Summary
from fhir_portal.documents.wording import Json, clean
from fhir_portal.fhir import json
from fhir_portal.fhir.datetime import instant

LOINC: Final = "http://loinc.org"
EMPTY_REASON: Final = "http://terminology.hl7.org/CodeSystem/list-empty-reason"
CONFIDENTIALITY: Final = "http://terminology.hl7.org/CodeSystem/v3-Confidentiality"
SUMMARY_TYPE: Final = "60591-5"
_XHTML: Final = "http://www.w3.org/1999/xhtml"
_LEVELS: Final = ("N", "R", "V")


def as_bundle(summary: Summary) -> bytes:
    """Return the summary as a Bundle of type ``document``, in FHIR JSON."""
    chart = summary.chart
    members = _members(summary)
    own = _own_id(chart, members.values())
    moment = instant(datetime.fromtimestamp(chart.made, UTC))
    labels = _labels(members.values())
    composition = _composition(summary, own, moment, labels)
    entries = [{"fullUrl": f"urn:uuid:{own}", "resource": composition}]
    entries += [
        {"fullUrl": f"{chart.base}/{key}", "resource": tree} for key, tree in members.items()
    ]
    meta = {"meta": {"security": labels}} if labels else {}
    tree = {
        "resourceType": "Bundle",
        "id": str(uuid.uuid5(uuid.UUID(own), moment)),
        **meta,
        "language": "en",
        "identifier": {
            "system": "urn:ietf:rfc:3986",
            "value": f"urn:uuid:{uuid.uuid5(uuid.UUID(own), f'document {moment}')}",
        },
        "type": "document",
        "timestamp": moment,
        "entry": entries,
    }
    return json.dumps(tree)


def _members(summary: Summary) -> dict[str, Json]:
    """Everything in the document but its Composition, by ``Type/id``: the patient first."""
    chart = summary.chart
    found: dict[str, Json] = {f"Patient/{chart.patient_id}": chart.patient}
    if chart.organization is not None:
        found[f"Organization/{chart.organization['id']}"] = chart.organization
    for section in summary.sections:
        for item in section.items:
            found.setdefault(item.key, item.tree)
            medicine = chart.named(item.tree.get("medicationReference"))
            if medicine:
                found.setdefault(f"Medication/{medicine['id']}", medicine)
    return found


def _own_id(chart: Chart, members: Iterable[Json]) -> str:
    digest = hashlib.sha256(chart.base.encode())
    for tree in members:
        digest.update(json.dumps(dict(tree)))
    return str(uuid.uuid5(uuid.NAMESPACE_URL, digest.hexdigest()))


def _labels(members: Iterable[Json]) -> list[dict[str, Any]]:
    """The labels of all that is in it, each once (FHIR R4 §6.1.1: a Bundle carries those)."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for tree in members:
        for coding in (tree.get("meta") or {}).get("security") or ():
            found.setdefault((coding.get("system", ""), coding.get("code", "")), dict(coding))
    return [found[key] for key in sorted(found)]


def _composition(
    summary: Summary, own: str, moment: str, labels: list[dict[str, Any]]
) -> dict[str, Any]:
    chart = summary.chart
    practice: dict[str, Any] = {"display": chart.practice}
    if chart.organization is not None:
        practice = {"reference": f"Organization/{chart.organization['id']}", **practice}
    codes = {one.get("code") for one in labels if one.get("system") == CONFIDENTIALITY}
    level = next((one for one in reversed(_LEVELS) if one in codes), "N")
    said = f"{TITLE}, made by {chart.practice} on {moment[:10]}."
    return {
        "resourceType": "Composition",
        "id": own,
        "language": "en",
        "text": {"status": "generated", "div": _div(_paragraph(said))},
        "identifier": {"system": "urn:ietf:rfc:3986", "value": f"urn:uuid:{own}"},
        "status": "final",
        "type": {"coding": [{"system": LOINC, "code": SUMMARY_TYPE, "display": TITLE}]},
        "subject": {"reference": f"Patient/{chart.patient_id}"},
        "date": moment,
        "author": [practice],
        "title": TITLE,
        "confidentiality": level,
        "custodian": practice,
        "section": [_section(one) for one in summary.sections],
    }


def _section(section: Section) -> dict[str, Any]:
    part = section.part
    tree: dict[str, Any] = {
        "title": part.title,
        "code": {"coding": [{"system": LOINC, "code": part.loinc, "display": part.display}]},
        "text": {"status": "generated", "div": _div(_table(section))},
    }
    if section.items:
        tree["entry"] = [{"reference": item.key} for item in section.items]
    else:
        # One reason for all: whether nothing is stored, or it is not for this reader, is not said.
        tree["emptyReason"] = {
            "coding": [{"system": EMPTY_REASON, "code": "unavailable", "display": "Unavailable"}],
            "text": NOTHING,
        }
    return tree


def _table(section: Section) -> etree._Element:
    """The narrative: one row for each entry, its ``id`` the entry's ``Type-id``."""
    if not section.items:
        return _paragraph(NOTHING)
    table = _element("table")
    row = etree.SubElement(etree.SubElement(table, f"{{{_XHTML}}}thead"), f"{{{_XHTML}}}tr")
    for column in section.part.columns:
        etree.SubElement(row, f"{{{_XHTML}}}th").text = column
    body = etree.SubElement(table, f"{{{_XHTML}}}tbody")
    for item in section.items:
        attributes = {"id": item.key.replace("/", "-")}
        row = etree.SubElement(body, f"{{{_XHTML}}}tr", attributes)
        for cell in item.cells:
            etree.SubElement(row, f"{{{_XHTML}}}td").text = clean(cell)
    return table


def _paragraph(text: str) -> etree._Element:
    found = _element("p")
    found.text = clean(text)
    return found


def _div(content: etree._Element) -> str:
    div = _element("div")
    div.append(content)
    return etree.tostring(div, encoding="unicode")


def _element(name: str) -> etree._Element:
    return etree.Element(f"{{{_XHTML}}}{name}", nsmap=_NAMESPACES)  # type: ignore[arg-type]  # None names the default one


_NAMESPACES: Final[Mapping[str | None, str]] = {None: _XHTML}
