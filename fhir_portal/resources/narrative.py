"""Is a Narrative's XHTML safe to show? Source: FHIR R4 §2.4.0 (Narrative, txt-1 and txt-2).

Only what is listed here passes: formatting elements of HTML 4.0 chapters 7 to 11 (without 9.4) and
15, links and images. Scripts, event attributes, forms, frames and document types are not on the
list, and links, images and styles may not carry active content.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from lxml import etree

_XHTML = "{http://www.w3.org/1999/xhtml}"
_XML = "{http://www.w3.org/XML/1998/namespace}"

_PLAIN = (
    "abbr acronym address b bdo big br caption center cite code dd dfn div dl dt em h1 h2 h3 h4 h5"
    " h6 i kbd p s samp small span strike strong sub sup tt u var"
)
_CELLS = "abbr axis headers scope rowspan colspan nowrap width height bgcolor"
_ALIGN = "align valign char charoff"

_EVERYWHERE = frozenset(
    {"class", "dir", "id", "lang", "style", "title", "tabindex", "accesskey", "align", "clear"}
    | {f"{_XML}lang", f"{_XML}space", f"{_XML}id"}
)

_ELEMENTS: Mapping[str, frozenset[str]] = {
    **dict.fromkeys(
        _PLAIN.split(),
        _EVERYWHERE,
    ),
    **{
        name: _EVERYWHERE | frozenset(more.split())
        for name, more in {
            "a": "href hreflang name rel rev target type charset coords shape",
            "area": "alt coords href nohref shape target",
            "blockquote": "cite",
            "col": f"span width {_ALIGN}",
            "colgroup": f"span width {_ALIGN}",
            "font": "color face size",
            "hr": "noshade size width",
            "img": "alt border height hspace ismap longdesc name src usemap vspace width",
            "li": "type value",
            "map": "name",
            "ol": "compact start type",
            "pre": "width",
            "q": "cite",
            "table": "bgcolor border cellpadding cellspacing frame rules summary width",
            "tbody": _ALIGN,
            "td": f"{_CELLS} {_ALIGN}",
            "tfoot": _ALIGN,
            "th": f"{_CELLS} {_ALIGN}",
            "thead": _ALIGN,
            "tr": f"bgcolor {_ALIGN}",
            "ul": "compact type",
        }.items()
    },
}

_LINKS = frozenset({"cite", "href", "longdesc"})
_LINK_SCHEMES = frozenset({"", "http", "https", "mailto", "tel", "urn"})
_IMAGE_SCHEMES = frozenset({"", "http", "https"})
_IMAGE_DATA = re.compile(r"data:image/(?:png|jpeg|gif|webp)[;,]")

# A comment that starts `<!-->` is over at once for an HTML parser, and what follows it is live.
_DECLARATION = re.compile(r"<!(?!--)|<\?|<!---?>")
_SCHEME = re.compile(r"([a-z][a-z0-9+.\-]*):")
_IGNORED_IN_URLS = re.compile(r"[\x00-\x20\x7f-\x9f\u200b-\u200f\u2028\u2029\ufeff]")
_ACTIVE_STYLE = re.compile(
    r"expression\s*\(|@import|behaviou?r\s*:|-moz-binding|script\s*:|\\|/\*"
    r"|(?<![\w-])position\s*:"  # what leaves its place can cover the page around it
)
_STYLE_URL = re.compile(r"url\s*\(\s*['\"]?\s*(.{0,64})")


def fault_in(div: str) -> str | None:
    """What is wrong with ``Narrative.div``, in plain words that quote none of it; None if safe."""
    if _DECLARATION.search(div):
        return "The narrative may hold no DOCTYPE, entity, CDATA or processing instruction."
    try:
        root = etree.fromstring(div, _parser())
    except (etree.XMLSyntaxError, ValueError):
        return "The narrative is not well-formed XHTML; of named entities only XML's own exist."
    if root.tag != f"{_XHTML}div":
        return "The narrative must be one div in the XHTML namespace."
    shows_something = False
    for element in root.iter():
        if not isinstance(element.tag, str):
            shows_something = shows_something or _has_text(element.tail)
            continue  # a comment
        namespace, _, name = element.tag.rpartition("}")
        allowed = _ELEMENTS.get(name)
        if allowed is None or f"{namespace}}}" != _XHTML:
            return "The narrative holds an element that is not allowed, such as script or form."
        for attribute, value in element.attrib.items():
            if attribute not in allowed:
                return "The narrative holds an attribute that is not allowed, such as onclick."
            if not _is_passive(str(attribute), str(value)):
                return "The narrative holds a link, image or style with active content."
        shows_something = (
            shows_something or name == "img" or _has_text(element.text) or _has_text(element.tail)
        )
    return None if shows_something else "The narrative shows nothing."


def _parser() -> etree.XMLParser:
    return etree.XMLParser(resolve_entities=False, no_network=True, load_dtd=False)


def _has_text(text: str | None) -> bool:
    return bool(text and text.strip())


def _is_passive(attribute: str, value: str) -> bool:
    """The value can load or run nothing but a picture, and a link leads to a page or an address."""
    if attribute in _LINKS:
        return _scheme(value) in _LINK_SCHEMES
    if attribute == "src":
        return _is_picture(value)
    if attribute == "style":
        style = value.lower()
        if _ACTIVE_STYLE.search(style):
            return False
        return all(_is_local_picture(url) for url in _STYLE_URL.findall(style))
    return True


def _scheme(url: str) -> str:
    """The scheme as a browser sees it, which skips blanks and controls; empty when relative."""
    match = _SCHEME.match(_IGNORED_IN_URLS.sub("", url).lower())
    return match[1] if match else ""


def _is_picture(url: str) -> bool:
    return _scheme(url) in _IMAGE_SCHEMES or bool(_IMAGE_DATA.match(url.strip().lower()))


def _is_local_picture(url: str) -> bool:
    if _scheme(url):
        return bool(_IMAGE_DATA.match(url))
    return not _IGNORED_IN_URLS.sub("", url).startswith(("//", "\\\\"))
