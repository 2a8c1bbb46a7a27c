"""``Patient/[id]/$portal-dashboard``: what a portal shows first, in one call.

Each part is what a search of the caller's would find: a type that the token or the grant does not
let them see is left out, and does not count. So the numbers are those of the sections' own screens.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from fhir_portal.access.policy import Ask, Deny, decide
from fhir_portal.billing.amount import Amount
from fhir_portal.billing.invoice import PAYABLE, NotReckoned, balances_of
from fhir_portal.consent.sections import types_in
from fhir_portal.fhir import json
from fhir_portal.fhir.datetime import instant
from fhir_portal.fhir.interaction import FhirResponse
from fhir_portal.operations.appointments import is_over
from fhir_portal.operations.call import Call
from fhir_portal.operations.message_thread import MessagesRead, agent_of, unread_of
from fhir_portal.resources.communication import CATEGORY, MESSAGE
from fhir_portal.resources.forms.request import OPEN, REQUESTS
from fhir_portal.resources.store import Page, Row
from fhir_portal.search.request import MAX_COUNT, parse_search

NEW_DAYS: Final = 30
"""So long results count as new."""
_MOST: Final = 50
_DAY: Final = 86_400
_MICROSECONDS: Final = 1_000_000
_TO_COME: Final = "booked,pending,proposed,arrived,checked-in"

Part = Mapping[str, Any]


@dataclass(slots=True)
class _Looking:
    """The searches of one call, and every resource that an answer shows something of."""

    call: Call
    rows: list[Row] = field(default_factory=list)

    @property
    def patient(self) -> str:
        return f"Patient/{self.call.request.id}"

    @property
    def now(self) -> float:
        return self.call.server.clock()

    def at(self, seconds: float) -> str:
        """A moment as a search has it."""
        return instant(int(seconds * _MICROSECONDS))

    async def search(
        self, resource_type: str, *asked: tuple[str, str], told: bool = True
    ) -> Page | None:
        """Search as the caller would; ``None`` where they see nothing of the type.

        ``told`` says that the answer shows something of all that is found.
        """
        auth = self.call.auth
        answer = decide(auth, Ask("s", resource_type, self.now))
        # Of a section that a grant leaves out a search finds nothing; here "none" would be untrue.
        shown = types_in(auth.record.sections if auth.record is not None else None)
        if isinstance(answer, Deny) or resource_type not in shown:
            return None
        request = parse_search(resource_type, asked, base=self.call.server.base)
        page = await self.call.server.store.search(request, answer.visible)
        self.rows += page.rows if told else ()
        return page


async def portal_dashboard(call: Call) -> FhirResponse:
    """Return next and last visit, what is due, and what is new, as far as the caller may see it."""
    row = await call.target(call.server.store)
    looking = _Looking(call, [row])
    values = {
        "next-appointment": await _next_appointment(looking),
        "last-visit": await _last_visit(looking),
        "balance": await _balance(looking),
        "new-results": await _new_results(looking),
        "messages": await _messages(looking),
        "forms-due": await _forms_due(looking),
    }
    return call.answer(values, *looking.rows)


async def _next_appointment(looking: _Looking) -> Part | None:
    page = await looking.search(
        "Appointment",
        ("patient", looking.patient),
        ("date", f"ge{looking.at(looking.now)}"),
        ("status", _TO_COME),
        ("_sort", "date"),
        ("_count", str(_MOST)),
        told=False,
    )
    for row in page.rows if page is not None else ():
        if await is_over(looking.call.server.store, row, looking.now):
            continue
        looking.rows.append(row)
        tree = json.parse(row.body)
        return {
            "appointment": {"reference": str(row.key)},
            "status": tree["status"],
            "start": tree.get("start"),
        }
    return None


async def _last_visit(looking: _Looking) -> Part | None:
    page = await looking.search(
        "Encounter",
        ("patient", looking.patient),
        ("status", "finished"),
        ("_sort", "-date"),
        ("_count", "1"),
    )
    if page is None or not page.rows:
        return None
    period = json.parse(page.rows[0].body).get("period") or {}
    return {
        "encounter": {"reference": str(page.rows[0].key)},
        "start": period.get("start"),
        "end": period.get("end"),
    }


async def _balance(looking: _Looking) -> Part | None:
    """What is due on all open bills: nothing due is said, and differs from nothing known."""
    page = await looking.search(
        "Invoice", ("subject", looking.patient), ("status", PAYABLE), ("_count", str(_MOST))
    )
    if page is None:
        return None
    found = await balances_of(looking.call.server.store, page.rows)
    reckoned = [one for one in found if not isinstance(one, NotReckoned)]
    return {
        "bills": len(page.rows),
        "due": _in_all([one.due for one in reckoned]),
        "under-way": _in_all([one.under_way for one in reckoned]),
        "not-reckoned": len(found) - len(reckoned),
        "more": page.next is not None,
    }


def _in_all(amounts: Sequence[Amount]) -> list[dict[str, Any]]:
    """Return one sum for each currency."""
    sums: dict[str, int] = {}
    for one in amounts:
        sums[one.currency] = sums.get(one.currency, 0) + one.units
    return [Amount(units, currency).money for currency, units in sorted(sums.items())]


async def _messages(looking: _Looking) -> Part | None:
    """What is unread; `fhir_portal.operations.threads` tells of which conversations."""
    call = looking.call
    if call.auth.record is None:
        return None
    page = await looking.search(
        "Communication",
        ("subject", looking.patient),
        ("category", f"{CATEGORY}|{MESSAGE}"),
        ("_sort", "-sent"),
        ("_count", str(MAX_COUNT)),
    )
    if page is None:
        return None
    of_thread: dict[str, list[Mapping[str, Any]]] = {}
    for row in page.rows:
        tree = json.parse(row.body)
        thread = next((one.get("reference") or "" for one in tree.get("partOf") or ()), "")
        of_thread.setdefault(thread.rpartition("/")[2], []).append(tree)
    agent, unread = agent_of(call), 0
    for own_id, messages in of_thread.items():
        read = await call.server.store.get(MessagesRead, f"{call.auth.practice}/{own_id}/{agent}")
        unread += unread_of(messages, agent, read.upto if read else 0)
    return {"unread": unread, "more": page.next is not None}


async def _new_results(looking: _Looking) -> Part | None:
    # From a whole day on, so that the answer is the same until something in it changes.
    since = looking.at((looking.now // _DAY - NEW_DAYS) * _DAY)
    page = await looking.search(
        "DiagnosticReport",
        ("patient", looking.patient),
        ("issued", f"ge{since}"),
        ("_sort", "-issued"),
        ("_count", str(_MOST)),
    )
    if page is None:
        return None
    return {
        "count": len(page.rows),
        "more": page.next is not None,
        "since": since,
        "latest": {"reference": str(page.rows[0].key)} if page.rows else None,
    }


async def _forms_due(looking: _Looking) -> Part | None:
    page = await looking.search(
        "Task",
        ("patient", looking.patient),
        ("code", REQUESTS),
        ("status", ",".join(OPEN)),
        ("_count", str(_MOST)),
    )
    if page is None:
        return None
    ends = [
        (json.parse(row.body).get("restriction") or {}).get("period", {}).get("end")
        for row in page.rows
    ]
    first = min((str(one) for one in ends if one), default=None)
    return {
        "count": len(page.rows),
        "more": page.next is not None,
        "due": None if first is None else first[:10],
    }
