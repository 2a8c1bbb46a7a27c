"""``/about/licences``: the software of others that this server is built of, and its SBOM.

Both are made of the metadata of what is installed, so they say what runs.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from typing import Final

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from fhir_portal.web.pages.render import page

LICENCES: Final = "/about/licences"
SBOM: Final = "/about/sbom.json"
_OURS: Final = "fhir-portal"
_LONGEST: Final = 60
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_CLASSIFIER: Final = "License :: "


@dataclass(frozen=True, slots=True)
class Component:
    """One package: its name, version and licence, as its makers say them."""

    name: str
    version: str
    licence: str

    @property
    def purl(self) -> str:
        """Its package URL (purl-spec, type pypi)."""
        name = re.sub(r"[-_.]+", "-", self.name).lower()
        return f"pkg:pypi/{name}@{self.version}"


def about_router() -> APIRouter:
    """The pages as routes for FastAPI."""
    router = APIRouter(include_in_schema=False)
    router.add_route(LICENCES, show_licences, methods=["GET"])
    router.add_route(SBOM, show_sbom, methods=["GET"])
    return router


async def show_licences(request: Request) -> Response:  # noqa: ARG001 - Starlette's signature
    """Show who made what, and under which licence."""
    return page("licences.html", components=components(), sbom=SBOM)


async def show_sbom(request: Request) -> Response:  # noqa: ARG001 - Starlette's signature
    """Return the bill of materials (CycloneDX 1.5, JSON)."""
    bill = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {
            "component": {
                "type": "application",
                "name": _OURS,
                "version": metadata.version(_OURS),
            }
        },
        "components": [
            {
                "type": "library",
                "bom-ref": one.purl,
                "name": one.name,
                "version": one.version,
                "purl": one.purl,
                "licenses": [{"license": {"name": one.licence}}],
            }
            for one in components()
        ],
    }
    return Response(
        json.dumps(bill, indent=2),
        media_type="application/vnd.cyclonedx+json; version=1.5",
        headers={"X-Content-Type-Options": "nosniff"},
    )


@functools.cache
def components() -> tuple[Component, ...]:
    """Return every package that this one needs, and those that these need, by name."""
    found: dict[str, Component] = {}
    waiting = list(_needed(metadata.distribution(_OURS)))
    while waiting:
        name = waiting.pop()
        try:
            there = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            continue  # for another system, or an extra that nobody asked for
        if there.name not in found:
            found[there.name] = Component(there.name, there.version, _licence(there))
            waiting += _needed(there)
    return tuple(sorted(found.values(), key=lambda one: one.name.casefold()))


def _needed(distribution: metadata.Distribution) -> Iterator[str]:
    """The names of what a package needs, without its extras (PEP 508)."""
    for text in distribution.requires or ():
        name, marker = _NAME.match(text), text.partition(";")[2]
        if name is not None and "extra" not in marker:
            yield name[0]


def _licence(distribution: metadata.Distribution) -> str:
    about = distribution.metadata
    for name in ("License-Expression", "License"):
        said = str(about[name]) if name in about else ""
        if said and "\n" not in said and len(said) <= _LONGEST:
            return said
    named = [
        one.rpartition(" :: ")[2]
        for one in about.get_all("Classifier") or ()
        if one.startswith(_CLASSIFIER)
    ]
    return ", ".join(named) or "see the package"
