"""A C-CDA document that somebody sent, as a page to read: its narrative, and nothing that acts.

The document is hostile until shown otherwise. It is parsed without a DTD, entities or the network,
within limits; of its narrative the page is built anew from the few elements known here, so that
what is not known is text or gone. No link, picture, style or attribute of the sender's is kept but
how many rows and columns a cell spans. Source: CDA R2 §4.3.5 (narrative block).
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from lxml import etree
from markupsafe import Markup

from fhir_portal.documents.ccda.xml import HL7
from fhir_portal.documents.printed_sheet import template
from fhir_portal.documents.wording import clean, day

MEDIA: Final = frozenset(
    {"application/cda+xml", "application/hl7-cda+xml", "application/xml", "text/xml"}
)
"""Media types under which C-CDA documents are sent."""

MAX_BYTES: Final = 12 * 1024 * 1024
MAX_ELEMENTS: Final = 250_000
MAX_DEPTH: Final = 120
_MAX_SECTIONS: Final = 500
_MAX_SPAN: Final = 50

Element = etree._Element  # noqa: SLF001 - lxml has no other name for it


class NotReadable(Exception):
    """The content is no C-CDA document that can be shown; the words quote none of it."""


@dataclass(frozen=True, slots=True)
class _Section:
    title: str
    level: int
    body: Markup


def as_page(content: bytes) -> bytes:
    """Return a C-CDA document as HTML.

    Raises `NotReadable`.
    """
    root = parsed(content)
    sections = list(_sections(root))
    other = root.find(f"{{{HL7}}}component/{{{HL7}}}nonXMLBody/{{{HL7}}}text")
    return (
        template("cda.html")
        .render(
            title=_said(root, "title") or "Document",
            facts=_facts(root),
            sections=sections,
            text=_plain_body(other),
            apart=other is not None and _plain_body(other) is None,
        )
        .encode()
    )


def parsed(content: bytes) -> Element:
    """Parse a document from somebody else and return its root.

    Raises `NotReadable`: too large or deep, with a document type, not well-formed, or no C-CDA.
    """
    if len(content) > MAX_BYTES:
        message = f"the document is larger than {MAX_BYTES} bytes"
        raise NotReadable(message)
    depth = count = 0
    parser = etree.XMLPullParser(
        events=("start", "end"),
        resolve_entities=False,
        no_network=True,
        load_dtd=False,
        dtd_validation=False,
        attribute_defaults=False,
        huge_tree=False,
        remove_comments=True,
        remove_pis=True,
    )
    try:
        for start in range(0, len(content), _CHUNK):
            parser.feed(content[start : start + _CHUNK])
            for event, element in parser.read_events():
                # A document type stands before the first element.
                if count == 0 and _has_type(element):
                    message = "the document has a document type, which C-CDA does not"
                    raise NotReadable(message)
                depth += 1 if event == "start" else -1
                count += event == "start"
                if depth > MAX_DEPTH or count > MAX_ELEMENTS:
                    message = "the document has too many elements, or they are nested too deep"
                    raise NotReadable(message)
        root = parser.close()
    except (etree.XMLSyntaxError, ValueError):
        message = "the document is not well-formed XML"
        raise NotReadable(message) from None
    if root.tag != f"{{{HL7}}}ClinicalDocument":
        message = "the document is no ClinicalDocument of CDA"
        raise NotReadable(message)
    return root


def _has_type(element: Any) -> bool:
    return bool(element.getroottree().docinfo.doctype)


_CHUNK: Final = 64 * 1024


def _said(element: Element, path: str) -> str:
    """Return the text at a path of CDA elements, ``""`` where there is none."""
    found = element.find(_path(path))
    return "" if found is None else clean("".join(_texts(found)))


def _path(names: str) -> str:
    return "/".join(f"{{{HL7}}}{name}" for name in names.split("/"))


def _texts(element: Element) -> Iterator[str]:
    return (str(one) for one in element.itertext())


def _facts(root: Element) -> list[tuple[str, str]]:
    names = "recordTarget/patientRole/patient/name"
    given = [clean("".join(_texts(one))) for one in root.iterfind(_path(f"{names}/given"))]
    name = " ".join(filter(None, [*given, _said(root, f"{names}/family")]))
    practice = "assignedCustodian/representedCustodianOrganization/name"
    found = (
        ("Patient", name),
        ("Born", _date(root, "recordTarget/patientRole/patient/birthTime")),
        ("Written", _date(root, "effectiveTime")),
        ("From", _said(root, f"custodian/{practice}")),
    )
    return [(label, value) for label, value in found if value]


def _date(root: Element, path: str) -> str:
    found = root.find(_path(path))
    text = "" if found is None else str(found.get("value") or "")[:8]
    if not text.isascii() or not text.isdigit():
        return ""
    return day("-".join(filter(None, (text[:4], text[4:6], text[6:8]))))


def _plain_body(text: Element | None) -> str | None:
    """Return a body that is plain text; ``None`` for none, and for what is something else."""
    if text is None or (text.get("mediaType") or "text/plain") != "text/plain":
        return None
    said = "".join(_texts(text))
    if text.get("representation") != "B64":
        return said
    try:
        return base64.b64decode(said).decode("utf-8", "replace")
    except (binascii.Error, ValueError):
        return None


def _sections(root: Element) -> Iterator[_Section]:
    """Yield the sections in their order, each before those within it."""
    body = root.find(f"{{{HL7}}}component/{{{HL7}}}structuredBody")
    if body is None:
        return
    waiting = [(one, 2) for one in reversed(_within(body))]
    seen = 0
    while waiting:
        section, level = waiting.pop()
        seen += 1
        if seen > _MAX_SECTIONS:
            message = "the document has too many sections"
            raise NotReadable(message)
        text = section.find(f"{{{HL7}}}text")
        shown = etree.Element("div")
        if text is not None:
            _copy(text, shown)
        markup = etree.tostring(shown, method="html", encoding="unicode")
        title = _said(section, "title")
        # Built here of elements without attributes of the sender's.
        yield _Section(title, min(level, 6), Markup(markup))  # noqa: S704
        waiting += [(one, level + 1) for one in reversed(_within(section))]


def _within(parent: Element) -> list[Element]:
    return parent.findall(f"{{{HL7}}}component/{{{HL7}}}section")


_PLAIN: Final = {
    "paragraph": "p", "item": "li", "br": "br", "sub": "sub", "sup": "sup", "table": "table",
    "thead": "thead", "tbody": "tbody", "tfoot": "tfoot", "tr": "tr", "th": "th", "td": "td",
    "footnote": "small",
}  # fmt: skip
_STYLES: Final = {"Bold": "strong", "Italics": "em", "Emphasis": "em", "Underline": "u"}
_GONE: Final = frozenset(
    "script style object embed applet iframe frame form input button svg math template link meta"
    " base renderMultiMedia colgroup col".split()
)
"""What is left out with all it holds: none of it is text to read."""


def _copy(source: Element, target: Element) -> None:
    """Build the elements of a narrative anew under ``target``.

    The depth is bounded by `MAX_DEPTH`.
    """
    _add_text(target, source.text)
    for child in source:
        if isinstance(child.tag, str):
            name = etree.QName(child).localname
            if name.lower() not in _GONE and name not in _GONE:
                _copy(child, _made(child, name, target))
        _add_text(target, child.tail)


def _made(child: Element, name: str, target: Element) -> Element:
    """Return where the content of a child goes: a new element, or ``target`` itself."""
    if etree.QName(child).namespace != HL7:
        return target
    if name == "list":
        return etree.SubElement(target, "ol" if child.get("listType") == "ordered" else "ul")
    if name == "caption":
        return etree.SubElement(target, "caption" if target.tag == "table" else "strong")
    if name == "content":
        styles = (child.get("styleCode") or "").split()
        known = next((_STYLES[one] for one in styles if one in _STYLES), "span")
        return etree.SubElement(target, known)
    if name not in _PLAIN:
        return target
    made = etree.SubElement(target, _PLAIN[name])
    if name in {"th", "td"}:
        for span in ("rowspan", "colspan"):
            value = child.get(span) or ""
            if value.isascii() and value.isdigit() and 1 < int(value[:4]) <= _MAX_SPAN:
                made.set(span, str(int(value[:4])))
    return made


def _add_text(target: Element, text: str | None) -> None:
    if not text:
        return
    if len(target):
        target[-1].tail = (target[-1].tail or "") + text
    else:
        target.text = (target.text or "") + text
