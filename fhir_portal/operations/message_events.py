"""``Communication/$message-events``: which conversations have changed, by asking or by a stream.

What is told is where to look, and nothing of what is there: whoever looks is decided on anew.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from fhir_portal.access.context import AuthContext
from fhir_portal.access.policy import Deny, decide_operation
from fhir_portal.access.visibility import Visibility
from fhir_portal.fhir.datetime import instant
from fhir_portal.fhir.errors import Unprocessable
from fhir_portal.fhir.interaction import FhirResponse
from fhir_portal.operations.call import Call
from fhir_portal.operations.definition import parameter
from fhir_portal.resources.communication import CATEGORY, THREAD
from fhir_portal.resources.permission import checked
from fhir_portal.resources.server import Server
from fhir_portal.search.request import MAX_COUNT, parse_search

CODE: Final = "message-events"
OVERLAP: Final = 10_000
"""Milliseconds that are looked at again: a commit may be seen after one that is later."""
_MOST: Final = 5000
"""Threads of a practice that change within the overlap, and are told of at one turn."""
_MARK: Final = re.compile(r"[0-9]{1,15}")


@dataclass(frozen=True, slots=True)
class Changed:
    """A thread (``Communication/<id>``), its version, and when that was stored (milliseconds)."""

    thread: str
    version: int
    updated: int


async def message_events(call: Call) -> FhirResponse:
    """Return what has changed since a mark. Raises `Unprocessable` for a mark of nobody's."""
    now = int(call.server.clock() * 1000)
    given = call.arguments.one("mark")
    if given is not None and not _MARK.fullmatch(str(given)):
        message = "this mark is not one of ours"
        raise Unprocessable(message, expression=parameter("mark"))
    since = now if given is None else min(int(str(given)), now)
    found = [] if given is None else await changed_since(call.server, call.visible, since)
    mark = max((one.updated for one in found), default=since)
    return call.answer(
        {
            "mark": str(mark),
            "changed": [
                {"thread": {"reference": one.thread}, "version": str(one.version)} for one in found
            ],
        }
    )


async def changed_since(server: Server, visible: Visibility, since: int) -> list[Changed]:
    """Return the threads within a visibility that changed from shortly before ``since`` on."""
    moment = instant(max(since - OVERLAP, 0) * 1000)
    query = [
        ("category", f"{CATEGORY}|{THREAD}"),
        ("_lastUpdated", f"gt{moment}"),
        ("_sort", "_lastUpdated"),
        ("_count", str(MAX_COUNT)),
    ]
    search = parse_search("Communication", query, base=server.base)
    found: list[Changed] = []
    after: Sequence[Any] | None = None
    while len(found) < _MOST:
        page = await server.reader.search(search, visible, after=after)
        rows = checked(page.rows, visible)
        found += [Changed(str(row.key), row.version, row.updated) for row in rows]
        after = page.next
        if after is None:
            break
    return found


def sees_now(auth: AuthContext, server: Server) -> Visibility | None:
    """Return which threads a caller may see at this moment, or ``None`` when that has ended."""
    decision = decide_operation(auth, CODE, server.clock())
    return None if isinstance(decision, Deny) else decision.visible
