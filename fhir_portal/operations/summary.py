"""``Patient/[id]/$summary``: an International Patient Summary of what the caller may see.

Source: International Patient Summary 2.0, OperationDefinition ``summary``; FHIR R4 §3.3.
"""

from __future__ import annotations

import asyncio
from typing import Final

from fhir_portal.documents.ips import as_bundle
from fhir_portal.documents.summary import Summary, summary_of
from fhir_portal.documents.summary_page import as_html, as_pdf
from fhir_portal.fhir.errors import Invalid, NotSupported, Unprocessable
from fhir_portal.fhir.interaction import FhirResponse
from fhir_portal.fhir.reference import ResourceKey
from fhir_portal.operations.call import Call
from fhir_portal.operations.charting import chart_of
from fhir_portal.operations.definition import parameter
from fhir_portal.resources.interactions.read import unknown
from fhir_portal.resources.permission import checked
from fhir_portal.search.request import parse_search

FHIR: Final = "fhir"
RENDERED: Final = {
    "html": ("text/html; charset=utf-8", as_html),
    "pdf": ("application/pdf", as_pdf),
}
"""What a summary is rendered as, with the media type, by the word for it in ``format``."""

PROFILES: Final = frozenset(
    {
        "http://hl7.org/fhir/uv/ips/StructureDefinition/Bundle-uv-ips",
        "http://hl7.org/fhir/uv/ips/StructureDefinition/Composition-uv-ips",
    }
)
"""Profiles that may be asked for; their versions may be named."""


async def summary(call: Call) -> FhirResponse:
    """Return a summary as a document Bundle, or as a Binary that is stored nowhere.

    Raises:
        NotFound: the Patient is absent, or hidden; the same words.
        Unprocessable, NotSupported: a format or a profile that is not offered, times that are none.
    """
    form = call.arguments.one("format") or FHIR
    if form != FHIR and form not in RENDERED:
        message = f"format is one of {FHIR}, {', '.join(RENDERED)}"
        raise Unprocessable(message, expression=parameter("format"))
    profile = (call.arguments.one("profile") or "").partition("|")[0]
    if profile and profile not in PROFILES:
        message = "the summary is an International Patient Summary: no other profile is offered"
        raise NotSupported(message, expression=parameter("profile"))
    chart, rows = await chart_of(
        call,
        await _patient(call),
        start=call.arguments.one("start"),
        end=call.arguments.one("end"),
        latest=True,
    )
    if form == FHIR:
        body = await asyncio.to_thread(lambda: as_bundle(summary_of(chart)))
        return call.document(body, *rows)
    media, render = RENDERED[form]

    def rendered(found: Summary) -> bytes:
        return render(found)

    content = await asyncio.to_thread(lambda: rendered(summary_of(chart)))
    return call.binary(media, content, *rows)


async def _patient(call: Call) -> str:
    """Return the id of the Patient that is meant: the target's, or the one with an identifier.

    Raises:
        Invalid: neither says which.
        NotFound: nobody whom the caller may see, or more than one, has it.
    """
    if call.request.id is not None:
        return call.request.id
    given = call.arguments.one("identifier")
    if given is None:
        if call.auth.patient is not None:
            return call.auth.patient
        message = "say whose summary it is: call it on a Patient, or give an identifier"
        raise Invalid(message, expression=parameter("identifier"))
    asked = parse_search("Patient", [("identifier", given), ("_count", "2")], base="")
    page = await call.server.reader.search(asked, call.visible)
    found = checked(page.rows, call.visible)
    if len(found) != 1:
        raise unknown(ResourceKey("Patient", "identifier"))
    return found[0].facts.id
