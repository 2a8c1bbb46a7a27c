"""``Patient/[id]/$immunization-certificate``: the vaccines of a record, to print."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from fhir_portal.accounts.practice import Practice
from fhir_portal.documents.immunization_certificate import (
    Certificate,
    as_html,
    as_pdf,
    certificate_of,
)
from fhir_portal.fhir import json
from fhir_portal.fhir.errors import Unprocessable
from fhir_portal.fhir.interaction import FhirResponse
from fhir_portal.operations.call import Call
from fhir_portal.operations.charting import of_record, subject_row
from fhir_portal.operations.definition import parameter

RENDERED: Final[dict[str, tuple[str, Callable[[Certificate], bytes]]]] = {
    "pdf": ("application/pdf", as_pdf),
    "html": ("text/html; charset=utf-8", as_html),
}
"""What it is rendered as, with the media type, by the word for it in ``format``."""


async def immunization_certificate(call: Call) -> FhirResponse:
    """Return a Binary that is stored nowhere.

    Raises:
        NotFound: the Patient is absent, or hidden; the same words.
        Unprocessable: a format that is not offered, or too much for one document.
    """
    form = call.arguments.one("format") or "pdf"
    if form not in RENDERED:
        message = f"format is one of {', '.join(RENDERED)}"
        raise Unprocessable(message, expression=parameter("format"))
    patient = call.request.id or ""
    subject = await subject_row(call, patient)
    rows = await of_record(call, "Immunization", patient)
    practice = await call.server.store.get(Practice, call.auth.practice)
    made = certificate_of(
        [json.parse(row.body) for row in rows],
        patient=json.parse(subject.body) if subject is not None else {},
        practice=practice.name if practice is not None else call.auth.practice,
        zone=practice.zone if practice is not None else "UTC",
        made=call.server.clock(),
    )
    media, render = RENDERED[form]
    content = await asyncio.to_thread(render, made)
    return call.binary(media, content, *([subject] if subject is not None else rows[:1]))
