"""``DocumentReference/$docref``: the documents there are of a record, made on demand and stored.

Source: US Core 7.0.0, OperationDefinition ``docref``. Whoever names no type means the CCD. Stored
documents come whole or not at all; the ones made on demand hold what the caller may see.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import urlencode
from zoneinfo import ZoneInfo

from fhir_portal.access.policy import Permit, decide_operation
from fhir_portal.documents import ips
from fhir_portal.documents.ccda import document as ccda
from fhir_portal.documents.chart import Chart
from fhir_portal.documents.summary import TITLE, summary_of
from fhir_portal.fhir import json
from fhir_portal.fhir.bundle import bundle, search_entries
from fhir_portal.fhir.datetime import instant, period_in
from fhir_portal.fhir.errors import NotFound, Unprocessable
from fhir_portal.fhir.interaction import FhirResponse
from fhir_portal.fhir.reference import is_id
from fhir_portal.operations.call import Call
from fhir_portal.operations.charting import chart_of, of_record
from fhir_portal.operations.definition import parameter
from fhir_portal.operations.shared_files import is_within
from fhir_portal.resources.store import Row

LOINC: Final = "http://loinc.org"
_CATEGORY: Final = "http://hl7.org/fhir/us/core/CodeSystem/us-core-documentreference-category"
_FORMATS: Final = "http://ihe.net/fhir/ihe.formatcode.fhir/CodeSystem/formatcode"

_DAY: Final = 86_400_000_000


async def docref(call: Call) -> FhirResponse:
    """Return a searchset of DocumentReferences, with the Binaries of those made on demand.

    It is empty for a Patient who is absent or hidden (US Core: no match is no error).

    Raises:
        Unprocessable: the times are none, or ``patient`` is no id.
    """
    patient = call.arguments.one("patient")
    if not is_id(patient):
        message = "patient is the id of a Patient"
        raise Unprocessable(message, expression=parameter("patient"))
    start, end = call.arguments.one("start"), call.arguments.one("end")
    wanted = {
        (one.get("system") or LOINC, one.get("code") or "") for one in call.arguments.all("type")
    } or {(LOINC, ccda.CCD_TYPE)}
    try:
        chart, rows = await chart_of(call, patient, start=start, end=end)
    except NotFound:
        return FhirResponse(200, bundle("searchset", total=0, links=(), entries=()))
    made = await asyncio.to_thread(lambda: list(_made(call, chart, wanted)))
    stored: list[Row] = []
    if call.arguments.one("on-demand") is not True and not call.arguments.all("profile"):
        stored = await _stored(call, patient, wanted, chart)
    found = [(row.facts.resource_type, row.facts.id, row.body) for row in stored]
    entries = [
        *(entry for one in made for entry in one),
        *search_entries(call.server.base, found, "match"),
    ]
    body = bundle("searchset", total=len(made) + len(stored), links=(), entries=entries)
    return call.document(body, *rows, *stored)


async def _stored(
    call: Call, patient: str, wanted: set[tuple[str, str]], chart: Chart
) -> list[Row]:
    """Return the current documents of these types that the caller may see, of the chart's time."""
    zone = ZoneInfo(chart.zone)
    types = ",".join(sorted(f"{_plain(system)}|{_plain(number)}" for system, number in wanted))
    pairs = [("status", "current"), ("type", types), ("_sort", "-date")]
    # A search has the days of UTC: what it finds in one more on each side is looked at again.
    pairs += [("period", f"ge{_around(chart.start, 0, zone)}")] if chart.start else []
    pairs += [("period", f"le{_around(chart.end, 1, zone)}")] if chart.end else []
    found = await of_record(call, "DocumentReference", patient, pairs)
    if chart.start is None and chart.end is None:
        return found
    return [row for row in found if is_within(json.parse(row.body), chart.start, chart.end, zone)]


def _around(text: str, edge: int, zone: ZoneInfo) -> str:
    """The beginning (0) of a time less a day, or its end (1) and a day, as a search has it."""
    moment = period_in(text, zone)[edge] + (_DAY if edge else -_DAY)
    try:
        return instant(moment)
    except OverflowError:  # at the end of the calendar
        return text


def _plain(text: str) -> str:
    """Escape what has a meaning in a search (FHIR R4 §3.1.1.5.7)."""
    for sign in "\\|,$":
        text = text.replace(sign, f"\\{sign}")
    return text


def _made(call: Call, chart: Chart, wanted: set[tuple[str, str]]) -> Iterator[tuple[bytes, bytes]]:
    """Yield the documents made on demand: entries of the DocumentReference and of its Binary.

    Each only for who may call the operation that makes it.
    """
    now, profiles = call.server.clock(), call.arguments.all("profile")
    if profiles:
        return  # those that are made here claim no profile
    times = {name: value for name, value in (("start", chart.start), ("end", chart.end)) if value}
    query = f"?{urlencode(times)}" if times else ""
    at = f"{chart.base}/Patient/{chart.patient_id}"
    if (LOINC, ccda.CCD_TYPE) in wanted and isinstance(
        decide_operation(call.auth, "ccd", now), Permit
    ):
        yield _entries(
            chart, f"{at}/$ccd{query}", ccda.MEDIA, ccda.as_ccd(chart), ccda.CCD_TYPE, ccda.TITLE,
            {"system": _FORMATS, "code": ccda.FORMAT},
        )  # fmt: skip
    if (
        (LOINC, ips.SUMMARY_TYPE) in wanted
        and not times
        and isinstance(decide_operation(call.auth, "summary", now), Permit)
    ):
        body = ips.as_bundle(summary_of(chart))
        yield _entries(
            chart, f"{at}/$summary", "application/fhir+json", body, ips.SUMMARY_TYPE, TITLE, None
        )


def _entries(
    chart: Chart, url: str, media: str, content: bytes, number: str, title: str,
    form: dict[str, str] | None,
) -> tuple[bytes, bytes]:  # fmt: skip
    made = instant(datetime.fromtimestamp(chart.made, UTC))
    own = uuid.uuid5(uuid.NAMESPACE_URL, f"{url} {hashlib.sha256(content).hexdigest()}")
    practice: dict[str, Any] = {"display": chart.practice}
    if chart.organization is not None:
        practice = {"reference": f"Organization/{chart.organization['id']}", **practice}
    period = {name: value for name, value in (("start", chart.start), ("end", chart.end)) if value}
    tree: dict[str, Any] = {
        "resourceType": "DocumentReference",
        "identifier": [{"system": "urn:ietf:rfc:3986", "value": f"urn:uuid:{own}"}],
        "status": "current",
        "type": {"coding": [{"system": LOINC, "code": number}], "text": title},
        "category": [{"coding": [{"system": _CATEGORY, "code": "clinical-note"}]}],
        "subject": {"reference": f"Patient/{chart.patient_id}"},
        "date": made,
        "author": [practice],
        "custodian": practice,
        "description": title,
        "content": [
            {
                "attachment": {
                    "contentType": media,
                    "language": "en",
                    "url": url,
                    "size": len(content),
                    # The algorithm is the specification's; it protects nothing here.
                    "hash": base64.b64encode(
                        hashlib.sha1(content, usedforsecurity=False).digest()
                    ).decode(),
                    "title": title,
                    "creation": made,
                }
            }
            | ({"format": form} if form else {})
        ],
    }
    if period:
        tree["context"] = {"period": period}
    binary = {
        "resourceType": "Binary",
        "contentType": media,
        "data": base64.b64encode(content).decode(),
    }
    return _entry(f"urn:uuid:{own}", tree, "match"), _entry(url, binary, "include")


def _entry(url: str, tree: dict[str, Any], mode: str) -> bytes:
    return json.dumps({"fullUrl": url, "resource": tree, "search": {"mode": mode}})
