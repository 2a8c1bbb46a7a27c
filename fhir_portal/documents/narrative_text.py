"""What a narrative says, as lines of text: nothing of its markup is left (FHIR R4 §2.4.0)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from lxml import etree

from fhir_portal.documents.wording import clean

LONGEST: Final = 1_000_000
_BLOCKS: Final = frozenset(
    "address blockquote caption center dd div dl dt h1 h2 h3 h4 h5 h6 hr li ol p pre table tr "
    "tbody tfoot thead ul br".split()
)
_CELLS: Final = frozenset({"td", "th"})


def narrative_lines(narrative: Mapping[str, Any] | None) -> list[str]:
    """Return the lines of a Narrative; none of one that cannot be read."""
    div = str((narrative or {}).get("div") or "")
    if not div or len(div) > LONGEST:
        return []
    parser = etree.XMLParser(resolve_entities=False, no_network=True, load_dtd=False)
    try:
        root = etree.fromstring(div, parser)
    except (etree.XMLSyntaxError, ValueError):
        return []
    found = "".join(_pieces(root)).split("\n")
    return [line for one in found if (line := clean(one).strip(" ;"))]


def _pieces(root: etree._Element) -> Iterator[str]:
    for event, node in etree.iterwalk(root, events=("start", "end", "comment")):
        if not isinstance(node.tag, str):
            if event == "comment":
                yield _plain(node.tail)
            continue
        name = etree.QName(node).localname
        if event == "start":
            yield "\n" if name in _BLOCKS else ""
            yield _plain(node.text)
        else:
            yield "\n" if name in _BLOCKS else "; " if name in _CELLS else ""
            yield _plain(node.tail)


def _plain(text: str | None) -> str:
    return (text or "").replace("\n", " ")
