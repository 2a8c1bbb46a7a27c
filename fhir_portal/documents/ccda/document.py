"""A Continuity of Care Document: the whole record, or what falls in a time.

Source: C-CDA R2.1, US Realm Header and CCD (templates of 2015-08-01). Sections that a CCD has to
have are there with ``nullFlavor`` ``NI`` where there is nothing to say, whatever the reason.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from lxml import etree

from fhir_portal.documents import chart as parts
from fhir_portal.documents.ccda import entries
from fhir_portal.documents.ccda.entries import OF_2014, OF_2015, Row
from fhir_portal.documents.ccda.xml import (
    LOINC,
    SDTC,
    Element,
    at,
    code,
    element,
    identifier,
    moment,
    template,
)
from fhir_portal.documents.chart import NOTHING, Chart, Part
from fhir_portal.documents.wording import Json, clean
from fhir_portal.fhir import json
from fhir_portal.fhir.datetime import instant

MEDIA: Final = "application/cda+xml"
CCD_TYPE: Final = "34133-9"
TITLE: Final = "Health record"
FORMAT: Final = "urn:hl7-org:sdwg:ccda-structuredBody:2.1"
"""The format code of such a document (DocumentReference.content.format)."""

_CONFIDENTIALITY: Final = "http://terminology.hl7.org/CodeSystem/v3-Confidentiality"
_LEVELS: Final = {"V": "very restricted", "R": "restricted", "N": "normal"}
_RACE: Final = "2.16.840.1.113883.6.238"
_US_CORE: Final = "http://hl7.org/fhir/us/core/StructureDefinition/us-core-"

Builder = Callable[[Sequence[Row], Chart], Iterator[Element]]


@dataclass(frozen=True, slots=True)
class Section:
    """A section template of C-CDA: the part it holds, and how its entries are written."""

    part: Part
    root: str
    version: str
    build: Builder
    required: bool = False


SECTIONS: Final = (
    Section(parts.ALLERGIES, "2.6.1", OF_2015, entries.allergies, required=True),
    Section(parts.MEDICATIONS, "2.1.1", OF_2014, entries.medications, required=True),
    Section(parts.PROBLEMS, "2.5.1", OF_2015, entries.problems, required=True),
    Section(parts.PROCEDURES, "2.7.1", OF_2014, entries.procedures),
    Section(parts.RESULTS, "2.3.1", OF_2015, entries.results, required=True),
    Section(parts.VITAL_SIGNS, "2.4.1", OF_2015, entries.vital_signs, required=True),
    Section(parts.SOCIAL_HISTORY, "2.17", OF_2015, entries.social_history, required=True),
    Section(parts.IMMUNIZATIONS, "2.2.1", OF_2015, entries.immunizations),
    Section(parts.ENCOUNTERS, "2.22.1", OF_2015, entries.encounters),
    Section(parts.PLAN, "2.10", OF_2014, entries.plan),
)


def as_ccd(chart: Chart) -> bytes:
    """Return a record as the XML of a CCD."""
    held = {section.part.key: section.part.items(chart) for section in SECTIONS}
    shown = [item.tree for items in held.values() for item in items]
    body = element("structuredBody")
    for section in SECTIONS:
        items = held[section.part.key]
        if items or section.required:
            rows = [Row(item, f"{section.part.key}.{item.key.replace('/', '-')}") for item in items]
            body.append(element("component", None, _section(section, rows, chart)))
    own = _own_id(chart, shown)
    root = element("ClinicalDocument", None, *_header(chart, own, shown))
    root.append(element("component", None, body))
    etree.cleanup_namespaces(root, keep_ns_prefixes=["sdtc", "xsi"])
    return etree.tostring(root, xml_declaration=True, encoding="UTF-8")


def _own_id(chart: Chart, shown: Sequence[Json]) -> str:
    """The document's id: that of its content and moment, so that what is not in it changes none."""
    digest = hashlib.sha256(f"{chart.base} {chart.made} {chart.start} {chart.end}".encode())
    for tree in (chart.patient, *shown):
        digest.update(json.dumps(dict(tree)))
    return str(uuid.uuid5(uuid.NAMESPACE_URL, f"ccd {digest.hexdigest()}"))


def _section(section: Section, rows: Sequence[Row], chart: Chart) -> Element:
    part = section.part
    found = element(
        "section",
        None if rows else {"nullFlavor": "NI"},
        *template(section.root, section.version),
        code("code", part.loinc, LOINC, "LOINC", part.display),
        element("title", text=part.title),
        _narrative(part, rows),
    )
    for one in section.build(rows, chart):
        found.append(element("entry", {"typeCode": "DRIV"}, one))
    return found


def _narrative(part: Part, rows: Sequence[Row]) -> Element:
    if not rows:
        return element("text", text=NOTHING)
    head = element("tr", None, *(element("th", text=column) for column in part.columns))
    body = element("tbody")
    for row in rows:
        first, *others = row.item.cells
        line = element("tr", None, element("td", None, _content(row.anchor, first)))
        for place, cell in enumerate(others):
            is_sig = part is parts.MEDICATIONS and place == 0 and cell
            line.append(
                element("td", None, _content(f"{row.anchor}.sig", cell))
                if is_sig
                else element("td", text=cell)
            )
        body.append(line)
    return element(
        "text", None, element("table", {"border": "1"}, element("thead", None, head), body)
    )


def _content(anchor: str, text: str) -> Element:
    return element("content", {"ID": anchor}, text=text)


# ------------------------------------------------------------------ header


def _header(chart: Chart, own: str, shown: Sequence[Json]) -> Iterator[Element]:
    made = instant(datetime.fromtimestamp(chart.made, UTC))
    yield element("realmCode", {"code": "US"})
    yield element("typeId", {"root": "2.16.840.1.113883.1.3", "extension": "POCD_HD000040"})
    yield from template("1.1", OF_2015)
    yield from template("1.2", OF_2015)
    yield element("id", {"root": own})
    yield code("code", CCD_TYPE, LOINC, "LOINC", "Summarization of Episode Note")
    yield element("title", text=TITLE)
    yield at("effectiveTime", made)
    level = confidentiality((chart.patient, *shown))
    yield code(
        "confidentialityCode", level, "2.16.840.1.113883.5.25", "Confidentiality", _LEVELS[level]
    )
    yield element("languageCode", {"code": "en-US"})
    yield _record_target(chart)
    yield _author(chart, made)
    yield element(
        "custodian",
        None,
        element(
            "assignedCustodian",
            None,
            element("representedCustodianOrganization", None, *_practice(chart)),
        ),
    )
    yield _service_event(chart, shown, made)


def confidentiality(trees: Sequence[Json]) -> str:
    """Return the highest confidentiality code that any of the resources carries, ``N`` at least."""
    found = {
        coding.get("code")
        for tree in trees
        for coding in (tree.get("meta") or {}).get("security") or ()
        if coding.get("system") == _CONFIDENTIALITY
    }
    return next((level for level in _LEVELS if level in found), "N")


def _record_target(chart: Chart) -> Element:
    patient = chart.patient
    race, more_races = _omb(patient, "race")
    ethnicity, _ = _omb(patient, "ethnicity")
    person = element(
        "patient",
        None,
        *_names(patient.get("name")),
        _gender(patient),
        at("birthTime", patient.get("birthDate")),
        race,
        *more_races,
        ethnicity,
    )
    role = element(
        "patientRole",
        None,
        identifier(chart.base, f"Patient/{chart.patient_id}"),
        *_addresses(patient.get("address")),
        *_telecoms(patient.get("telecom")),
        person,
    )
    return element("recordTarget", None, role)


_GENDERS: Final = {"male": ("M", "Male"), "female": ("F", "Female"), "other": ("UN", "Other")}


def _gender(patient: Json) -> Element:
    known = _GENDERS.get(str(patient.get("gender")))
    if known is None:
        return element("administrativeGenderCode", {"nullFlavor": "UNK"})
    return code(
        "administrativeGenderCode", known[0], "2.16.840.1.113883.5.1", "AdministrativeGender",
        known[1],
    )  # fmt: skip


def _omb(patient: Json, name: str) -> tuple[Element, list[Element]]:
    """Race or ethnicity (US Core extension): the first category, and further ones of race."""
    member = {"race": "raceCode", "ethnicity": "ethnicGroupCode"}[name]
    codings: list[Any] = []
    for extension in patient.get("extension") or ():
        if extension.get("url") == f"{_US_CORE}{name}":
            codings += [
                part.get("valueCoding") or {}
                for part in extension.get("extension") or ()
                if part.get("url") == "ombCategory"
            ]
    known = [one for one in codings if one.get("system") == f"urn:oid:{_RACE}" and one.get("code")]
    if not known:
        return element(member, {"nullFlavor": "UNK"}), []
    found = [
        code(member, one["code"], _RACE, "Race and Ethnicity", clean(one.get("display") or ""))
        for one in known
    ]
    for one in found[1:]:
        one.tag = f"{{{SDTC}}}{member}"
    return found[0], found[1:]


def _names(names: Any) -> Iterator[Element]:
    known = [one for one in names or () if one.get("family") or one.get("given")]
    for one in known[:1]:
        given = [element("given", text=each) for each in one.get("given") or ()]
        yield element(
            "name",
            {"use": "L"},
            *(element("prefix", text=each) for each in one.get("prefix") or ()),
            *(given or [element("given", {"nullFlavor": "UNK"})]),
            element("family", text=one["family"])
            if one.get("family")
            else element("family", {"nullFlavor": "UNK"}),
            *(element("suffix", text=each) for each in one.get("suffix") or ()),
        )
    if not known:
        yield element("name", {"nullFlavor": "UNK"})


_USES: Final = {"home": "HP", "work": "WP", "temp": "TMP"}


def _addresses(addresses: Any) -> list[Element]:
    found = []
    for one in [one for one in addresses or () if one.get("use") != "old"][:1]:
        lines = [element("streetAddressLine", text=line) for line in one.get("line") or ()]
        members = (("city", "city"), ("state", "state"), ("postalCode", "postalCode"))
        rest = [element(tag, text=one[name]) for name, tag in members if one.get(name)]
        country = element("country", text=one["country"]) if one.get("country") else None
        use = {"use": _USES.get(one.get("use", ""))}
        if lines or rest:
            found.append(element("addr", use, *lines, *rest, country))
    return found or [element("addr", {"nullFlavor": "UNK"})]


_SCHEMES: Final = {"phone": "tel", "email": "mailto", "fax": "fax"}


def _telecoms(points: Any) -> list[Element]:
    found = []
    for one in points or ():
        scheme = _SCHEMES.get(one.get("system", ""))
        if scheme is None or not one.get("value") or one.get("use") == "old":
            continue
        use = "MC" if one.get("use") == "mobile" else _USES.get(one.get("use", ""))
        address = "".join(clean(one["value"]).split()) if scheme != "mailto" else one["value"]
        found.append(element("telecom", {"use": use, "value": f"{scheme}:{clean(address)}"}))
    return found or [element("telecom", {"nullFlavor": "UNK"})]


def _practice(chart: Chart) -> list[Element]:
    own = chart.organization or {}
    key = f"Organization/{own['id']}" if own else "practice"
    return [
        identifier(chart.base, key),
        element("name", text=chart.practice),
        *_telecoms(own.get("telecom"))[:1],
        *_addresses(own.get("address")),
    ]


def _author(chart: Chart, made: str) -> Element:
    """The server: a device, in the practice's name."""
    own = chart.organization or {}
    device = element(
        "assignedAuthoringDevice",
        None,
        element("manufacturerModelName", text="fhir-portal"),
        element("softwareName", text="fhir-portal"),
    )
    assigned = element(
        "assignedAuthor",
        None,
        identifier(chart.base, "device"),
        *_addresses(own.get("address")),
        *_telecoms(own.get("telecom"))[:1],
        device,
        element("representedOrganization", None, *_practice(chart)),
    )
    return element("author", None, at("time", made), assigned)


def _service_event(chart: Chart, shown: Sequence[Json], made: str) -> Element:
    """What the document is about: the time asked for, or from the first thing in it until now."""
    known = sorted(filter(None, (moment(parts.when(tree)) for tree in shown)))
    first = moment(chart.start) or (known[0] if known else moment(made))
    last = moment(chart.end) or moment(made)
    event = element(
        "serviceEvent",
        {"classCode": "PCPR"},
        element(
            "effectiveTime",
            None,
            element("low", {"value": first}),
            element("high", {"value": last}),
        ),
    )
    return element("documentationOf", None, event)
