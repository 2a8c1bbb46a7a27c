"""``Patient/[id]/$portal-dashboard``: what a portal shows first, in one call.

Each part is what a search of the caller's would find: a type that the token or the grant does not
let them see is left out, and does not count. So the numbers are those of the sections' own screens.

The searches are the server's own, made together, and ask nothing of a caller's but a day; rows are
read for what is shown of them, without looking for faults that the write gate has looked for.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, TypedDict

from fhir_portal.access.policy import Ask, Deny, decide, decide_operation
from fhir_portal.access.visibility import Visibility
from fhir_portal.accounts.policy import policy_of
from fhir_portal.billing.amount import Amount
from fhir_portal.billing.invoice import PAYABLE, NotReckoned, balances_of
from fhir_portal.consent.sections import types_in
from fhir_portal.fhir import json
from fhir_portal.fhir.datetime import instant
from fhir_portal.fhir.interaction import FhirResponse
from fhir_portal.fhir.reference import ResourceKey
from fhir_portal.operations.appointments import Held, has_lapsed, purpose_of, with_whom
from fhir_portal.operations.call import Call
from fhir_portal.operations.check_in import may_arrive
from fhir_portal.operations.message_thread import MessagesRead, agent_of, unread_of
from fhir_portal.resources.appointment import is_over
from fhir_portal.resources.communication import CATEGORY, MESSAGE, THREAD, is_thread
from fhir_portal.resources.forms.request import OPEN, REQUESTS
from fhir_portal.resources.opening import shown_since
from fhir_portal.resources.permission import checked
from fhir_portal.resources.store import Page, Row
from fhir_portal.search.request import MAX_COUNT, SearchRequest, parse_search, standing_search

NEW_DAYS: Final = 30
"""So long results count as new."""
COMING: Final = "proposed,pending,booked,arrived,checked-in"
"""The status of an Appointment that is to come, if it has a time."""
MOST: Final = 50
"""So many of a part are counted at most."""
_DAY: Final = 86_400
_MICROSECONDS: Final = 1_000_000
_CONVERSATION: Final = f"{CATEGORY}|{MESSAGE},{CATEGORY}|{THREAD}"
_LATEST_VISIT: Final = (("status", "finished"), ("_sort", "-date"), ("_count", "1"))
_OPEN_BILLS: Final = (("status", PAYABLE), ("_count", str(MOST)))
_LATEST_MESSAGES: Final = (
    ("category", _CONVERSATION),
    ("_sort", "-sent"),
    ("_count", str(MAX_COUNT)),
)
_OPEN_FORMS: Final = (("code", REQUESTS), ("status", ",".join(OPEN)), ("_count", str(MOST)))

Part = Mapping[str, Any]


class _Visit(TypedDict, total=False):
    """What is looked at of an Encounter."""

    period: dict[str, Any]


class _Asked(TypedDict, total=False):
    """What is looked at of a Task for a form."""

    restriction: dict[str, Any]


class _Said(TypedDict, total=False):
    """What is looked at of a Communication: who said it when and where, and not what."""

    status: str
    category: list[dict[str, Any]]
    partOf: list[dict[str, Any]]
    subject: dict[str, Any]
    sent: str
    sender: dict[str, Any]


_visit: Final = json.stored_as(_Visit)
_asked: Final = json.stored_as(_Asked)
_said: Final = json.stored_as(_Said)


@dataclass(slots=True)
class _Looking:
    """The searches of one call, and every resource that an answer shows something of."""

    call: Call
    now: float
    rows: list[Row] = field(default_factory=list)

    async def search_all(self, **asked: Sequence[tuple[str, str]]) -> Mapping[str, Page | None]:
        """Search types as the caller would; ``None`` where they see nothing of one."""
        found: dict[str, Page | None] = dict.fromkeys(asked)
        bounds = {name: self._visible(name) for name in asked}
        seen = {name: visible for name, visible in bounds.items() if visible is not None}
        pages = await self.call.server.store.search_all(
            [
                (self._request(standing_search(name, *asked[name]), visible), visible)
                for name, visible in seen.items()
            ]
        )
        for (name, visible), page in zip(seen.items(), pages, strict=True):
            found[name] = self._shown(page, visible)
        return found

    async def search(self, resource_type: str, *asked: tuple[str, str]) -> Page | None:
        """Search one type as the caller would, for what is asked but once."""
        visible = self._visible(resource_type)
        if visible is None:
            return None
        request = self._request(parse_search(resource_type, asked, base=""), visible)
        return self._shown(await self.call.server.store.search(request, visible), visible)

    def _visible(self, resource_type: str) -> Visibility | None:
        auth = self.call.auth
        answer = decide(auth, Ask("s", resource_type, self.now))
        # Of a section that a grant leaves out a search finds nothing; here "none" would be untrue.
        shown = types_in(auth.record.sections if auth.record is not None else None)
        return None if isinstance(answer, Deny) or resource_type not in shown else answer.visible

    def _request(self, request: SearchRequest, visible: Visibility) -> SearchRequest:
        return request if visible.record == self.call.request.id else self._of_patient(request)

    def _shown(self, page: Page, visible: Visibility) -> Page:
        rows = checked(page.rows, visible)
        if self.call.auth.record is None:  # a person's access is in the log of their token's record
            self.rows += rows
        return page

    def _of_patient(self, request: SearchRequest) -> SearchRequest:
        """The same for one patient, asked by who sees more than one record."""
        whose = [("patient", f"Patient/{self.call.request.id}")]
        bound = parse_search(request.resource_type, whose, base=self.call.server.base)
        return replace(request, criteria=(*request.criteria, *bound.criteria), standing=False)


def _day(now: float, before: int) -> str:
    """The beginning of a day (UTC), so many before today, as a search has it.

    From a whole day on, so that an answer is the same until something in it changes.
    """
    return _beginning(int(now // _DAY) - before)


@functools.lru_cache(8)
def _beginning(day: int) -> str:
    return instant(day * _DAY * _MICROSECONDS)


def new_since(now: float) -> str:
    """Since when results count as new."""
    return _day(now, NEW_DAYS)


async def portal_dashboard(call: Call) -> FhirResponse:
    """Return next and last visit, what is due, and what is new, as far as the caller may see it."""
    row = await call.target(call.server.store)
    looking = _Looking(call, call.server.clock(), [row])
    pages = await looking.search_all(
        Appointment=_coming_visits(_day(looking.now, 1)),
        Encounter=_LATEST_VISIT,
        Invoice=_OPEN_BILLS,
        DiagnosticReport=_latest_reports(new_since(looking.now)),
        Task=_OPEN_FORMS,
        # Whoever holds no record of their own has read nothing and left nothing unread.
        **({} if call.auth.record is None else {"Communication": _LATEST_MESSAGES}),
    )
    values = {
        "next-appointment": await _next_appointment(looking, pages["Appointment"]),
        "last-visit": _last_visit(pages["Encounter"]),
        "balance": await _balance(looking, pages["Invoice"]),
        "new-results": await _new_results(looking, pages["DiagnosticReport"]),
        "messages": await _messages(looking, pages.get("Communication")),
        "forms-due": _forms_due(pages["Task"]),
    }
    return call.answer(values, *looking.rows)


@functools.lru_cache(8)
def _coming_visits(since: str) -> Sequence[tuple[str, str]]:
    return (
        ("date", f"ge{since}"),
        ("status", COMING),
        ("_sort", "date"),
        ("_count", str(MOST)),
    )


@functools.lru_cache(8)
def _latest_reports(since: str) -> Sequence[tuple[str, str]]:
    return (("issued", f"ge{since}"), ("_sort", "-issued"), ("_count", str(MOST)))


async def _next_appointment(looking: _Looking, page: Page | None) -> Part | None:
    """The first that is not over: one that has begun may be the one somebody arrives for."""
    call, now = looking.call, looking.now
    for row in page.rows if page is not None else ():
        tree = json.stored(row.body)
        if "start" not in tree or is_over(tree, now):
            continue
        store = call.server.store
        if tree["status"] == "pending" and await has_lapsed(store, row, now):
            continue
        policy = await policy_of(store, call.auth.practice)
        labelled = bool(row.facts.visibility_class.labels)
        return {
            "appointment": {"reference": str(row.key)},
            "status": tree["status"],
            "start": tree["start"],
            "purpose": purpose_of(tree, policy, labelled=labelled) or None,
            "with": ", ".join(with_whom(tree)) or None,
            "check-in": may_arrive(tree, policy, now)
            and not isinstance(decide_operation(call.auth, "check-in", now), Deny)
            and await store.get(Held, f"{call.auth.practice}/{row.key.id}") is None,
        }
    return None


def _last_visit(page: Page | None) -> Part | None:
    if page is None or not page.rows:
        return None
    period = _visit(page.rows[0].body).get("period") or {}
    return {
        "encounter": {"reference": str(page.rows[0].key)},
        "start": period.get("start"),
        "end": period.get("end"),
    }


async def _balance(looking: _Looking, page: Page | None) -> Part | None:
    """What is due on all open bills: nothing due is said, and differs from nothing known."""
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


async def _messages(looking: _Looking, page: Page | None) -> Part | None:
    """What is unread; `fhir_portal.operations.threads` tells of which conversations."""
    call = looking.call
    if page is None:
        return None
    threads, of_thread = set[str](), dict[str, list[Mapping[str, Any]]]()
    for row in page.rows:
        tree: Mapping[str, Any] = _said(row.body)
        if is_thread(tree):
            threads.add(row.key.id)
            continue
        whole = next((one.get("reference") or "" for one in tree.get("partOf") or ()), "")
        of_thread.setdefault(whole.rpartition("/")[2], []).append(tree)
    agent, unread = agent_of(call), 0
    for own_id, messages in of_thread.items():
        if own_id not in threads and page.next is None:
            continue  # of no conversation that they see: there is no screen to read it on
        read = await call.server.store.get(MessagesRead, f"{call.auth.practice}/{own_id}/{agent}")
        unread += unread_of(messages, agent, read)
    return {"unread": unread, "more": page.next is not None}


async def _new_results(looking: _Looking, page: Page | None) -> Part | None:
    if page is None:
        return None
    found, more = [str(row.key) for row in page.rows], page.next is not None
    late = [key for key in await _released(looking) if str(key) not in found]
    while late and not more:
        some, late = late[:MOST], late[MOST:]
        ids = ("_id", ",".join(key.id for key in some))
        page = await looking.search("DiagnosticReport", ids, ("_count", str(MOST)))
        seen = {row.key for row in page.rows} if page is not None else set()
        found += [str(key) for key in some if key in seen]
        more = len(found) > MOST
    return {
        "count": len(found[:MOST]),
        "more": more,
        "since": new_since(looking.now),
        "latest": {"reference": found[0]} if found else None,
        "report": [{"reference": one} for one in found[:MOST]],
    }


async def _released(looking: _Looking) -> list[ResourceKey]:
    """The reports of the record that were withheld and are not, the last one first.

    Whether the caller sees them is for the search to say.
    """
    call = looking.call
    since = (int(looking.now // _DAY) - NEW_DAYS) * _DAY
    return await shown_since(call.server.store, call.auth.practice, str(call.request.id), since)


def _forms_due(page: Page | None) -> Part | None:
    if page is None:
        return None
    ends = [
        (_asked(row.body).get("restriction") or {}).get("period", {}).get("end")
        for row in page.rows
    ]
    first = min((str(one) for one in ends if one), default=None)
    return {
        "count": len(page.rows),
        "more": page.next is not None,
        "due": None if first is None else first[:10],
    }
