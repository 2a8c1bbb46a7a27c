"""The software that this server runs on: distributions, their licences, and a bill of materials.

Read from the metadata of what is installed (core metadata 2.4, PEP 639), so that it says what is
there and not what a list says. The bill is a CycloneDX 1.6 document.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import Distribution, distribution
from typing import Any, Final
from uuid import NAMESPACE_URL, uuid5

import msgspec
from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

OWN: Final = "fhir-portal"
_TEXT_FILE: Final = re.compile(
    r"(?:licen[cs]e|copying|notice|copyright)(?:[.-].*)?|authors\.txt", re.IGNORECASE
)
_LONGEST_TEXT: Final = 200_000
_LONGEST_NAME: Final = 100
_CLASSIFIER: Final = "License :: "


@dataclass(frozen=True, slots=True)
class Installed:
    """One distribution: ``needs`` are the names of those it asks for, as installed here.

    ``expression`` is its licence as SPDX writes it, ``names`` the licence in its own words where
    it has no expression; ``texts`` are file name and text of what it ships.
    """

    name: str
    version: str
    summary: str
    home: str
    expression: str
    names: tuple[str, ...]
    needs: tuple[str, ...]
    texts: tuple[tuple[str, str], ...]

    @property
    def licence(self) -> str:
        """The licence in a few words."""
        return self.expression or ", ".join(self.names) or "see its text"

    @property
    def purl(self) -> str:
        """Its package URL."""
        return f"pkg:pypi/{self.name}@{self.version}"


@functools.cache
def installed(root: str = OWN) -> tuple[Installed, ...]:
    """Return a distribution and all it needs to run, by name; ``root`` comes first.

    What is asked for on other systems only, and by extras that nobody asked for, is not needed.

    Raises `importlib.metadata.PackageNotFoundError`: the root, or something it needs, is missing.
    """
    found: dict[str, Installed] = {}
    extras: dict[str, set[str]] = {}
    waiting: list[tuple[str, frozenset[str]]] = [(canonicalize_name(root), frozenset())]
    while waiting:
        name, wanted = waiting.pop()
        if name in found and wanted <= extras[name]:
            continue
        extras[name] = extras.get(name, set()) | wanted
        known = distribution(name)
        needed = list(_needed(known, extras[name]))
        waiting += [(canonicalize_name(one.name), frozenset(one.extras)) for one in needed]
        found[name] = _read(known, name, needed)
    first = found.pop(canonicalize_name(root))
    return (first, *(found[name] for name in sorted(found)))


def bill_of_materials(parts: Sequence[Installed]) -> bytes:
    """Return the CycloneDX 1.6 JSON of `installed`; the same for the same parts."""
    first, *others = parts
    serial = uuid5(NAMESPACE_URL, "\n".join(one.purl for one in parts))
    return msgspec.json.encode(
        {
            "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
            "bomFormat": "CycloneDX",
            "specVersion": "1.6",
            "serialNumber": f"urn:uuid:{serial}",
            "version": 1,
            "metadata": {"component": _component(first, "application")},
            "components": [_component(one, "library") for one in others],
            "dependencies": [
                {"ref": one.purl, "dependsOn": _purls(parts, one.needs)} for one in parts
            ],
        }
    )


def _purls(parts: Sequence[Installed], names: Sequence[str]) -> list[str]:
    by_name = {one.name: one.purl for one in parts}
    return sorted({by_name[name] for name in names})


def _component(one: Installed, kind: str) -> dict[str, Any]:
    component: dict[str, Any] = {
        "type": kind,
        "bom-ref": one.purl,
        "name": one.name,
        "version": one.version,
        "purl": one.purl,
    }
    if one.summary:
        component["description"] = one.summary
    if one.expression:
        component["licenses"] = [{"expression": one.expression}]
    elif one.names:
        component["licenses"] = [{"license": {"name": name}} for name in one.names]
    if one.home:
        component["externalReferences"] = [{"type": "website", "url": one.home}]
    return component


def _needed(known: Distribution, extras: set[str]) -> Iterator[Requirement]:
    for text in known.requires or ():
        try:
            one = Requirement(text)
        except InvalidRequirement:
            continue
        marker = one.marker
        if marker is None or any(marker.evaluate({"extra": extra}) for extra in ("", *extras)):
            yield one


def _read(known: Distribution, name: str, needed: Sequence[Requirement]) -> Installed:
    metadata = known.metadata
    expression = _line(_member(known, "License-Expression"))
    listed = [
        one.removeprefix(_CLASSIFIER).removeprefix("OSI Approved :: ")
        for one in metadata.get_all("Classifier") or ()
        if one.startswith(_CLASSIFIER) and one != f"{_CLASSIFIER}OSI Approved"
    ]
    own_words = _member(known, "License")
    if not listed and own_words and len(own_words) <= _LONGEST_NAME:
        listed = [_line(own_words)]
    texts = tuple(_texts(known))
    if not listed:
        listed = [title for _, text in texts if (title := _title(text))]
    return Installed(
        name=name,
        version=known.version,
        summary=_line(_member(known, "Summary")),
        home=_home(metadata.get_all("Project-URL") or (), _line(_member(known, "Home-page"))),
        expression=expression,
        names=() if expression else tuple(dict.fromkeys(one for one in listed if one)),
        needs=tuple(sorted({canonicalize_name(one.name) for one in needed})),
        texts=texts,
    )


def _texts(known: Distribution) -> Iterator[tuple[str, str]]:
    """Licence files beside the metadata (PEP 639 puts them into ``licenses``)."""
    for file in sorted(known.files or (), key=str):
        beside = any(part.endswith(".dist-info") for part in file.parts)
        if beside and ("licenses" in file.parts or _TEXT_FILE.fullmatch(file.name)):
            try:
                text = file.read_text("utf-8")
            except (OSError, UnicodeDecodeError):
                continue
            if text.strip():
                yield file.name, text[:_LONGEST_TEXT]


def _title(text: str) -> str:
    """The first line of a licence's text, where that says which it is."""
    first = text.strip().partition("\n")[0].strip("# \t\r")
    return first if len(first) <= _LONGEST_NAME and "licen" in first.casefold() else ""


def _home(urls: Sequence[str], home_page: str) -> str:
    """Its website, if that is a link to follow."""
    labelled: Mapping[str, str] = {
        label.strip().lower(): url.strip() for label, _, url in (one.partition(",") for one in urls)
    }
    order = ("homepage", "home", "source", "repository", "source code", "documentation")
    for url in (*(labelled.get(label, "") for label in order), home_page):
        if url.startswith(("https://", "http://")) and url.isprintable() and " " not in url:
            return url
    return ""


def _member(known: Distribution, name: str) -> str:
    return next(iter(known.metadata.get_all(name) or ()), "")


def _line(text: str) -> str:
    return " ".join(text.split())
