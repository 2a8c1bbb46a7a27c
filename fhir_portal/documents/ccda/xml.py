"""CDA elements and data types from FHIR's. Source: CDA R2, Data Types R1, C-CDA R2.1.

Everything becomes text or an attribute of an element tree, so that no value is ever markup.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterable, Mapping
from typing import Any, Final

from lxml import etree

from fhir_portal.documents import wording
from fhir_portal.documents.wording import Json, clean

HL7: Final = "urn:hl7-org:v3"
SDTC: Final = "urn:hl7-org:sdtc"
XSI: Final = "http://www.w3.org/2001/XMLSchema-instance"
NAMESPACES: Final = {None: HL7, "sdtc": SDTC, "xsi": XSI}

SNOMED: Final = "2.16.840.1.113883.6.96"
LOINC: Final = "2.16.840.1.113883.6.1"
ACT_CODE: Final = "2.16.840.1.113883.5.4"
CLINICAL: Final = "2.16.840.1.113883.10.20.22"
"""Under it stand the templates of C-CDA."""

Element = etree._Element  # noqa: SLF001 - lxml has no other name for it

_SYSTEMS: Final[Mapping[str, tuple[str, str]]] = {
    "http://snomed.info/sct": (SNOMED, "SNOMED CT"),
    "http://loinc.org": (LOINC, "LOINC"),
    "http://www.nlm.nih.gov/research/umls/rxnorm": ("2.16.840.1.113883.6.88", "RxNorm"),
    "http://hl7.org/fhir/sid/cvx": ("2.16.840.1.113883.12.292", "CVX"),
    "http://hl7.org/fhir/sid/icd-10-cm": ("2.16.840.1.113883.6.90", "ICD-10-CM"),
    "http://hl7.org/fhir/sid/icd-10": ("2.16.840.1.113883.6.3", "ICD-10"),
    "http://hl7.org/fhir/sid/icd-9-cm": ("2.16.840.1.113883.6.103", "ICD-9-CM"),
    "http://www.ama-assn.org/go/cpt": ("2.16.840.1.113883.6.12", "CPT"),
    "http://hl7.org/fhir/sid/ndc": ("2.16.840.1.113883.6.69", "NDC"),
    "http://www.ada.org/cdt": ("2.16.840.1.113883.6.13", "CDT"),
    "http://fdasis.nlm.nih.gov": ("2.16.840.1.113883.4.9", "UNII"),
    "http://ncimeta.nci.nih.gov": ("2.16.840.1.113883.3.26.1.1", "NCI Thesaurus"),
    "https://www.cms.gov/Medicare/Coding/HCPCSReleaseCodeSets": (
        "2.16.840.1.113883.6.285",
        "HCPCS",
    ),
    "http://terminology.hl7.org/CodeSystem/v3-ActCode": (ACT_CODE, "ActCode"),
}
_OID: Final = re.compile(r"urn:oid:([0-2](?:\.(?:0|[1-9][0-9]*))+)")
_UCUM: Final = "http://unitsofmeasure.org"
_UNIT: Final = re.compile(r"[!-~]+")
_DECIMAL: Final = re.compile(r"-?[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
_TIME: Final = re.compile(
    r"([0-9]{4})(?:-([0-9]{2})(?:-([0-9]{2})"
    r"(?:T([0-9]{2}):([0-9]{2}):([0-9]{2})(?:\.[0-9]+)?(?:(Z)|([+-][0-9]{2}):([0-9]{2})))?)?)?"
)


def element(
    name: str,
    attributes: Mapping[str, str | None] | None = None,
    *children: Element | None,
    text: str | None = None,
) -> Element:
    """Return an element; attributes and children that are ``None`` are left out.

    The attribute ``type`` is ``xsi:type``.
    """
    found = etree.Element(f"{{{HL7}}}{name}", nsmap=NAMESPACES)  # type: ignore[arg-type]  # None names the default one
    for key, value in (attributes or {}).items():
        if value is not None:
            found.set(f"{{{XSI}}}type" if key == "type" else key, clean(value))
    if text is not None:
        found.text = clean(text)
    found.extend(one for one in children if one is not None)
    return found


def template(root: str, *extensions: str) -> list[Element]:
    """Return the templateIds of a template, below `CLINICAL`: without a version and with each."""
    full = f"{CLINICAL}.{root}"
    found = [element("templateId", {"root": full})]
    return found + [element("templateId", {"root": full, "extension": one}) for one in extensions]


def identifier(base: str, key: str) -> Element:
    """Return the id of what comes from a resource: the server's own root, and ``Type/id``."""
    root = str(uuid.uuid5(uuid.NAMESPACE_URL, base))
    return element("id", {"root": root, "extension": key})


def code(name: str, value: str, system: str, system_name: str, display: str) -> Element:
    """Return a code of the document's own vocabulary."""
    return element(name, {
        "code": value, "codeSystem": system, "codeSystemName": system_name, "displayName": display,
    })  # fmt: skip


def status(value: str) -> Element:
    """Return a statusCode (HL7 ActStatus)."""
    return element("statusCode", {"code": value})


def concept(
    name: str,
    given: Json | None,
    *,
    prefer: Iterable[str] = (),
    reference: str | None = None,
    kind: str | None = None,
) -> Element:
    """Return a CodeableConcept: the best coding, others as translations, text as ``originalText``.

    ``prefer`` are OIDs in order; ``reference`` is the narrative's ID; ``kind`` the ``xsi:type``.
    Without a coding of a system that has an OID it is ``nullFlavor`` ``UNK`` with the text.
    """
    codings = _codings(given)
    order = list(prefer)
    codings.sort(key=lambda one: order.index(one[1]) if one[1] in order else len(order))
    words = wording.words_of(given)
    said = None
    if reference is not None:
        said = element("originalText", None, element("reference", {"value": f"#{reference}"}))
    elif words:
        said = element("originalText", text=words)
    if not codings:
        return element(name, {"type": kind, "nullFlavor": "UNK"}, said)
    first, *others = codings
    translations = [element("translation", _coded(one)) for one in others]
    return element(name, {"type": kind, **_coded(first)}, said, *translations)


def _codings(given: Json | None) -> list[tuple[str, str, str, str]]:
    """Code, OID, name of the system and display of each coding that can be said in CDA."""
    found = []
    for one in (given or {}).get("coding") or ():
        system, value = str(one.get("system") or ""), one.get("code")
        oid, named = _SYSTEMS.get(system, ("", ""))
        match = _OID.fullmatch(system)
        oid = oid or (match[1] if match else "")
        if oid and value:
            found.append((clean(value), oid, named, clean(one.get("display") or "")))
    return found


def _coded(one: tuple[str, str, str, str]) -> dict[str, str | None]:
    value, oid, named, display = one
    return {
        "code": value,
        "codeSystem": oid,
        "codeSystemName": named or None,
        "displayName": display or None,
    }


def moment(text: str | None) -> str | None:
    """Return a FHIR date, dateTime or instant as an HL7 timestamp; ``None`` for none.

    As precise as it was; parts of a second are left out.
    """
    match = _TIME.fullmatch(text or "")
    if match is None:
        return None
    year, month, day, hour, minute, second, utc, hours, minutes = match.groups()
    found = year + (month or "") + (day or "")
    if hour is None:
        return found
    return f"{found}{hour}{minute}{second}{'+0000' if utc else hours + minutes}"


def at(name: str, text: str | None) -> Element:
    """Return a point in time, or that it is not known."""
    value = moment(text)
    return element(name, {"value": value} if value else {"nullFlavor": "UNK"})


def lasting(
    name: str, start: str | None, end: str | None, *, over: bool, kind: str | None = None
) -> Element:
    """Return an interval; its end is there where it has one, or is ``over`` without saying when."""
    high = at("high", end) if end or over else None
    return element(name, {"type": kind}, at("low", start), high)


def quantity(name: str, given: Json | None, *, kind: str | None = None) -> Element | None:
    """Return a physical quantity; ``None`` where its number or unit cannot be said in CDA."""
    if not isinstance(given, Mapping) or "value" not in given:
        return None
    value = wording.number(given["value"])
    unit = given.get("code") if given.get("system") == _UCUM else given.get("unit")
    if not _DECIMAL.fullmatch(value) or (unit and not _UNIT.fullmatch(unit)):
        return None
    return element(name, {"type": kind, "value": value, "unit": unit})


def value(tree: Json) -> Element:
    """Return the ``value[x]`` of an Observation or a component."""
    given = tree.get("valueQuantity")
    if isinstance(given, Mapping):
        found = _measured(given)
        if found is not None:
            return found
    for name, build in _VALUES.items():
        if name in tree:
            return build(tree[name])
    said = wording.value(tree)
    if said:
        return element("value", {"type": "ST"}, text=said)
    return element("value", {"type": "CD", "nullFlavor": "UNK"})


def _measured(given: Json) -> Element | None:
    comparator = given.get("comparator")
    if comparator is None:
        return quantity("value", given, kind="PQ")
    side = "high" if comparator.startswith("<") else "low"
    bound = quantity(side, given)
    if bound is None:
        return None
    bound.set("inclusive", "true" if comparator.endswith("=") else "false")
    return element("value", {"type": "IVL_PQ"}, bound)


def _coded_value(given: Any) -> Element:
    return concept("value", given, kind="CD")


def _truth(given: Any) -> Element:
    return element("value", {"type": "BL", "value": "true" if given is True else "false"})


def _whole(given: Any) -> Element:
    return element("value", {"type": "INT", "value": wording.number(given)})


def _time(given: Any) -> Element:
    return element("value", {"type": "TS", "value": moment(given)})


_VALUES: Final = {
    "valueCodeableConcept": _coded_value,
    "valueBoolean": _truth,
    "valueInteger": _whole,
    "valueDateTime": _time,
}
