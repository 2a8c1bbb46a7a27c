"""What a link shows: files, each read by its own request under the right of who made the link.

Nothing is kept: a file is made when it is asked for, and holds what may be seen at that moment.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import tzinfo
from typing import Any, Final
from zoneinfo import ZoneInfo

from fhir_portal.access.owners import local_target
from fhir_portal.fhir import json
from fhir_portal.fhir.datetime import period_in
from fhir_portal.fhir.errors import Forbidden, Gone, NotFound, Unprocessable
from fhir_portal.fhir.interaction import FhirRequest, FhirResponse
from fhir_portal.smart.sharing import ShareLink

Perform = Callable[[FhirRequest], Awaitable[FhirResponse]]
"""`fhir_portal.portal.Portal.perform` as who made the link. Raises `FhirError`."""

FHIR: Final = "application/fhir+json"
SUMMARY: Final = "summary"
RECORD: Final = "record"
_FORMS: Final[Mapping[str, tuple[str, str]]] = {
    "html": ("summary.html", "text/html; charset=utf-8"),
    "pdf": ("summary.pdf", "application/pdf"),
    "fhir": ("summary.json", FHIR),
}
_NOT_THERE: Final = (NotFound, Gone, Forbidden, Unprocessable)


@dataclass(frozen=True, slots=True)
class SharedFile:
    """A file of a link, by what it is asked for: ``summary/html``, ``document/<id>/0``."""

    name: str
    title: str
    media: str
    file_name: str


async def listed(link: ShareLink, perform: Perform) -> list[SharedFile]:
    """Return the files that a link shows now, as they are downloaded."""
    found = []
    if link.summary:
        found = [
            SharedFile(f"{SUMMARY}/html", "Summary, to read", *_swapped("html")),
            SharedFile(f"{SUMMARY}/pdf", "Summary, to print (PDF)", *_swapped("pdf")),
            SharedFile(f"{SUMMARY}/fhir", "Summary for another system (FHIR)", *_swapped("fhir")),
            SharedFile(
                f"{RECORD}/ccda", "Record for another system (C-CDA)", "application/cda+xml",
                "record.xml",
            ),
        ]  # fmt: skip
    for own_id, tree in await _documents(link, perform):
        title = title_of(tree)
        for number, one in enumerate(tree.get("content") or ()):
            attachment = one.get("attachment") or {}
            media = str(attachment.get("contentType") or "application/octet-stream")
            named = f"document-{own_id}-{number + 1}"
            found.append(SharedFile(f"document/{own_id}/{number}", title, media, named))
    return found


async def content_of(link: ShareLink, name: str, perform: Perform) -> tuple[str, bytes] | None:
    """Return media type and content of one file; ``None`` where the link shows none of that name.

    Raises `FhirError` where it cannot be made.
    """
    kind, _, rest = name.partition("/")
    if kind == SUMMARY and link.summary and rest in _FORMS:
        answer = await perform(_summary(link, rest))
        return answer.binary or (FHIR, answer.body)
    if kind == RECORD and link.summary:
        answer = await perform(_operation(link, "ccd"))
        return answer.binary
    own_id, _, number = rest.partition("/")
    for known, tree in await _documents(link, perform, only=own_id):
        contents = tree.get("content") or ()
        if known == own_id and number.isdecimal() and int(number) < len(contents):
            return await _attached(contents[int(number)].get("attachment") or {}, perform)
    return None


async def health_files(link: ShareLink, perform: Perform) -> list[str]:
    """Return the names of the files that its manifest lists: each is FHIR JSON."""
    found = [f"{SUMMARY}/fhir", f"{SUMMARY}/page"] if link.summary else []
    return found + [f"whole/{own_id}" for own_id, _ in await _documents(link, perform)]


async def health_file(link: ShareLink, name: str, perform: Perform) -> bytes | None:
    """Return one of these: the summary, a page of it as a Binary, or a document with its content.

    ``None`` where the link shows no such file, or no more.
    """
    kind, _, rest = name.partition("/")
    if kind == SUMMARY and link.summary and rest in {"fhir", "page"}:
        return (await perform(_summary(link, "html" if rest == "page" else "fhir"))).body
    for known, tree in await _documents(link, perform, only=rest) if kind == "whole" else ():
        if known == rest:
            return json.dumps(await _whole(tree, perform))
    return None


def is_within(tree: Mapping[str, Any], start: str | None, end: str | None, zone: tzinfo) -> bool:
    """Whether a DocumentReference is about a time, or, where it does not say, was made in it.

    Days are those of ``zone``, the practice's.
    """
    if start is None and end is None:
        return True
    period = (tree.get("context") or {}).get("period") or {}
    first, last = period.get("start"), period.get("end")
    if first is None and last is None:
        first = last = tree.get("date")
    try:
        begins = period_in(first, zone)[0] if first else None
        ends = period_in(last, zone)[1] if last else None
    except ValueError:
        return False
    if begins is None and ends is None:
        return False
    too_late = end is not None and begins is not None and begins > period_in(end, zone)[1]
    too_early = start is not None and ends is not None and ends < period_in(start, zone)[0]
    return not too_late and not too_early


def was_an_error(tree: Mapping[str, Any]) -> bool:
    """Whether a DocumentReference was taken back: its file may be about somebody else."""
    return tree.get("status") == "entered-in-error"


def _swapped(form: str) -> tuple[str, str]:
    name, media = _FORMS[form]
    return media, name


def _summary(link: ShareLink, form: str) -> FhirRequest:
    return _operation(link, "summary", ("format", "valueCode", form))


def _operation(link: ShareLink, code: str, *given: tuple[str, str, str]) -> FhirRequest:
    times = [("start", "valueDateTime", link.start), ("end", "valueDateTime", link.end)]
    listed = [{"name": name, kind: value} for name, kind, value in (*given, *times) if value]
    body = json.dumps({"resourceType": "Parameters", "parameter": listed}) if listed else b""
    own_id = link.patient.partition("/")[2]
    return FhirRequest("operation", "Patient", own_id, operation=code, body=body)


async def _documents(
    link: ShareLink, perform: Perform, *, only: str | None = None
) -> list[tuple[str, dict[str, Any]]]:
    """The chosen documents that may be seen now and fall in the days of the link."""
    found = []
    for text in link.documents:
        own_id = text.partition("/")[2]
        if only not in {None, own_id}:
            continue
        try:
            answer = await perform(FhirRequest("read", "DocumentReference", own_id))
        except _NOT_THERE:
            continue
        tree = json.parse(answer.body)
        is_shown = is_within(tree, link.start, link.end, ZoneInfo(link.zone))
        if is_shown and not was_an_error(tree):
            found.append((own_id, tree))
    return found


async def _attached(attachment: Mapping[str, Any], perform: Perform) -> tuple[str, bytes] | None:
    """What an attachment holds, or its Binary here; no other address is asked."""
    media = str(attachment.get("contentType") or "application/octet-stream")
    if "data" in attachment:
        try:
            return media, base64.b64decode(attachment["data"])
        except (binascii.Error, ValueError):
            return None
    key = local_target(str(attachment.get("url") or ""))
    if key is None or key.type != "Binary":
        return None
    try:
        answer = await perform(FhirRequest("read", "Binary", key.id))
    except _NOT_THERE:
        return None
    return answer.binary


async def _whole(tree: dict[str, Any], perform: Perform) -> dict[str, Any]:
    """A DocumentReference that needs nothing else: its content stands in it."""
    contents: Sequence[Mapping[str, Any]] = tree.get("content") or ()
    held = []
    for one in contents:
        attachment = dict(one.get("attachment") or {})
        content = await _attached(attachment, perform)
        if content is not None:
            attachment.pop("url", None)
            attachment["contentType"] = content[0]
            attachment["data"] = base64.b64encode(content[1]).decode()
        held.append({**one, "attachment": attachment})
    return {**tree, "content": held} if held else tree


def title_of(tree: Mapping[str, Any]) -> str:
    """Return what a DocumentReference is called."""
    kind = tree.get("type") or {}
    shown = [one.get("display") for one in kind.get("coding") or ()]
    contents = tree.get("content") or [{}]
    attachment = contents[0].get("attachment") or {}
    words = [tree.get("description"), attachment.get("title"), kind.get("text"), *shown]
    return str(next(filter(None, words), "Document"))[:200]
