"""``/portal/appointments``: what is to come and what was, booking, moving, cancelling, arriving."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any, Final
from urllib.parse import quote, urlencode

from starlette.requests import Request
from starlette.responses import Response

from fhir_portal.access.owners import local_target, references_at
from fhir_portal.access.relation import name_of
from fhir_portal.accounts.messaging import is_present
from fhir_portal.accounts.policy import PracticePolicy, policy_of
from fhir_portal.fhir import json
from fhir_portal.fhir.datetime import is_date, period_of
from fhir_portal.fhir.errors import FhirError, Forbidden, Gone, NotFound
from fhir_portal.fhir.interaction import FhirRequest
from fhir_portal.operations.appointments import PREVIOUS, Held, purpose_of, with_whom
from fhir_portal.operations.calendar import place_of
from fhir_portal.operations.check_in import OPEN_TASKS, is_to_do, may_arrive
from fhir_portal.operations.message_thread import CLOSED
from fhir_portal.operations.visit_thread import SECTION as MESSAGES_SECTION
from fhir_portal.operations.visit_thread import VisitThread
from fhir_portal.resources.appointment import codes_of, is_over
from fhir_portal.web.form import parse_pairs
from fhir_portal.web.pages.desk import Answer
from fhir_portal.web.pages.portal import (
    APPOINTMENTS,
    MESSAGES,
    AtPortal,
    PatientRoom,
    portal_page,
)
from fhir_portal.web.pages.refusals import Handler
from fhir_portal.web.pages.render import download, redirect

SECTION: Final = "appointments"
HISTORY: Final = f"{APPOINTMENTS}/history"
FIND: Final = f"{APPOINTMENTS}/find"
ASK: Final = f"{APPOINTMENTS}/request"
HOLD: Final = f"{APPOINTMENTS}/hold"
_ONE: Final = f"{APPOINTMENTS}/one"
"""Before an id, so that no id is taken for one of the pages above."""

_COMING: Final = "proposed,pending,booked,arrived,checked-in,waitlist"
_OVER: Final = frozenset({"cancelled", "noshow", "fulfilled", "entered-in-error"})
_WORDS: Final = {
    "proposed": "Asked for",
    "pending": "Waiting for confirmation",
    "booked": "Booked",
    "arrived": "You are here",
    "checked-in": "Checked in",
    "fulfilled": "Took place",
    "cancelled": "Cancelled",
    "noshow": "Missed",
    "waitlist": "On the waiting list",
    "entered-in-error": "Recorded by mistake",
}
_HELD: Final = "Held for you, not booked yet"
_MICROSECONDS: Final = 1_000_000
_HOUR: Final = 3600
_PAGE: Final = 20
_MOST: Final = 100
_WINDOW: Final = timedelta(days=14)
_FURTHEST: Final = timedelta(days=1000)


class AppointmentPages:
    """The pages about appointments of the record that is open."""

    def __init__(self, room: PatientRoom) -> None:
        self._room = room

    def routes(self) -> Sequence[tuple[str, str, Handler]]:
        """Path, method and handler of each page."""
        one = f"{_ONE}/{{id}}"
        return (
            (APPOINTMENTS, "GET", portal_page(self.show)),
            (HISTORY, "GET", _page(self.history)),
            (FIND, "GET", _page(self.find)),
            (HOLD, "POST", portal_page(self.hold, back=FIND)),
            (ASK, "GET", _page(self.show_request)),
            (ASK, "POST", _page(self.request)),
            (one, "GET", _page(self.one)),
            (f"{one}/calendar", "GET", _page(self.calendar)),
            (f"{one}/book", "POST", _page(self.book)),
            (f"{one}/cancel", "POST", _page(self.cancel)),
            (f"{one}/check-in", "POST", _page(self.check_in)),
        )

    # --- lists ---------------------------------------------------------------------------------

    async def show(self, request: Request) -> Response:
        """What is to come, with what has no time yet."""
        here = await self._room.at(request)
        policy = await policy_of(self._room.store, here.session.practice)
        found = await self._room.ask(
            here,
            "search-type",
            "Appointment",
            query=(("status", _COMING), ("_sort", "date"), ("_count", str(_MOST))),
        )
        now = self._room.clock()
        lines = []
        for one in found.entries:
            until = await self._held_until(here, one)
            # What was held and not booked is free again; it will say so itself.
            if not is_over(one, now) and (until is None or now < until):
                lines.append(self._line(here, policy, one, found, until))
        return self._room.page(
            here,
            "portal_appointments.html",
            lines=lines,
            history=HISTORY,
            find=FIND if self._may_book(here, policy) else "",
            ask=ASK if self._may_ask(here, policy) else "",
        )

    async def history(self, request: Request) -> Response:
        """What was, cancelled and missed ones too, with the reason; the latest first."""
        here = await self._room.at(request)
        policy = await policy_of(self._room.store, here.session.practice)
        given = dict(parse_pairs(request.scope["query_string"]))
        query: tuple[tuple[str, str], ...] = (("_page", given.get("page", "")),)
        if not given.get("page"):
            query = (("_sort", "-date"), ("_count", str(_PAGE)))
        found = await self._room.ask(here, "search-type", "Appointment", query=query)
        now = self._room.clock()
        lines = [
            self._line(here, policy, one, found)
            for one in found.entries
            if one["status"] in _OVER or is_over(one, now)
        ]
        following = f"{HISTORY}?{urlencode({'page': found.next})}" if found.next else ""
        return self._room.page(
            here, "portal_appointments_history.html", lines=lines, back=APPOINTMENTS, next=following
        )

    # --- one -----------------------------------------------------------------------------------

    async def one(self, request: Request) -> Response:
        here = await self._room.at(request)
        policy = await policy_of(self._room.store, here.session.practice)
        found = await self._room.ask(here, "read", "Appointment", request.path_params["id"])
        given = dict(parse_pairs(request.scope["query_string"]))
        return await self._shown(here, policy, found.tree, found, moves=given.get("moves", ""))

    async def _shown(
        self,
        here: AtPortal,
        policy: PracticePolicy,
        tree: Mapping[str, Any],
        answer: Answer,
        **more: Any,
    ) -> Response:
        own_id, now = tree["id"], self._room.clock()
        until = await self._held_until(here, tree)
        acts, held = here.acts(SECTION), until is not None
        changes = acts and policy.booking_of(codes_of(tree)) != "view"
        is_open = tree["status"] in {"proposed", "pending", "booked", "waitlist"}
        too_late = not held and _too_late(tree, policy, now)
        forms = {
            name: self._room.form_token(here, f"{_ONE}/{name}", own_id)
            for name in ("book", "cancel", "check-in")
        }
        return self._room.page(
            here,
            "portal_appointment.html",
            **{
                "line": self._line(here, policy, tree, answer, until),
                "state": tree["status"],
                "held": held,
                "until": here.clock(until) if until is not None else "",
                "place": await self._place(here, tree),
                "who": await self._who(here, tree),
                "preparation": tree.get("patientInstruction") or "",
                "comment": tree.get("comment") or "",
                "tasks": await self._tasks(here, tree),
                "reply": self._reply(here, policy, tree),
                "rule": policy.cancel_hours,
                "may_cancel": changes and is_open and not too_late,
                "too_late": changes and is_open and too_late,
                "move": self._move(tree)
                if changes and tree["status"] == "booked" and not too_late
                else "",
                "may_book": changes and until is not None and now < until,
                "moves": "",
                "earlier": _previous(tree),
                "one": _ONE,
                "may_check_in": acts and not held and may_arrive(tree, policy, now),
                "may_undo": acts and tree["status"] == "arrived",
                "from_minutes": policy.check_in_before,
                "calendar": f"{_ONE}/{own_id}/calendar" if tree.get("start") else "",
                "forms": forms,
                "address": f"{_ONE}/{own_id}",
                "back": APPOINTMENTS,
                "queue": None,
                "desk": await self._desk(here, tree),
            }
            | more,
        )

    async def _desk(self, here: AtPortal, tree: Mapping[str, Any]) -> dict[str, Any] | None:
        """Where somebody who is here writes to the front desk; ``None`` for who may not."""
        if tree["status"] not in {"arrived", "checked-in"} or not here.sees(MESSAGES_SECTION):
            return None
        practice = here.session.practice
        known = await self._room.store.get(VisitThread, f"{practice}/{tree['id']}")
        if known is None:
            return None
        try:
            thread = (await self._room.ask(here, "read", "Communication", known.thread)).tree
        except (Forbidden, Gone, NotFound):
            return None
        return {
            "address": f"{MESSAGES}/thread/{known.thread}",
            "is_open": thread["status"] != CLOSED,
            "present": await is_present(self._room.store, practice, now=self._room.clock()),
        }

    async def calendar(self, request: Request) -> Response:
        here = await self._room.at(request)
        own_id = request.path_params["id"]
        asked = FhirRequest("operation", "Appointment", own_id, operation="calendar", is_get=True)
        answer = await self._room.perform(here, asked)
        assert answer.binary is not None  # noqa: S101 - the operation always gives one
        media, content = answer.binary
        return download(content, "appointment.ics", media)

    # --- finding and holding -------------------------------------------------------------------

    async def find(self, request: Request) -> Response:
        """The times of two weeks, by day; with ``moves`` for one that is to be moved."""
        here = await self._room.at(request)
        given = dict(parse_pairs(request.scope["query_string"]))
        today = datetime.fromtimestamp(self._room.clock(), here.zone).date()
        first = _day(given.get("from", "")) or today
        first = min(max(first, today), today + _FURTHEST)
        service = given.get("service", "")
        moves = given.get("moves", "")
        query = [
            ("start", _midnight(first, here)),
            ("end", _midnight(first + _WINDOW, here)),
            ("_count", str(_MOST)),
        ]
        if service:
            query.append(("visit-type", service))
        asked = FhirRequest(
            "operation", "Appointment", None, operation="find", query=tuple(query), is_get=True
        )
        answer = json.parse((await self._room.perform(here, asked)).body)
        found = [one["resource"] for one in answer.get("entry") or ()]
        days: dict[str, list[Any]] = {}
        services: dict[str, str] = {}
        for one in found:
            for code in codes_of(one):
                services.setdefault(code, _service(one) or code)
            days.setdefault(self._day_of(here, one["start"]), []).append(
                {
                    "slot": one["slot"][0]["reference"],
                    "start": one["start"],
                    "end": one["end"],
                    "time": here.clock(period_of(one["start"])[0] / _MICROSECONDS),
                    "what": _service(one),
                    "minutes": one["minutesDuration"],
                    "who": ", ".join(with_whom(one)),
                }
            )
        kept = {"service": service} | ({"moves": moves} if moves else {})
        return self._room.page(
            here,
            "portal_appointments_find.html",
            days=list(days.items()),
            more=answer["total"] > len(found),
            services=sorted(services.items(), key=lambda one: one[1]),
            service=service,
            moves=moves,
            start=first.isoformat(),
            earlier=_link(first - _WINDOW, kept) if first > today else "",
            later=_link(first + _WINDOW, kept),
            action=HOLD,
            find=FIND,
            may_hold=here.acts(SECTION),
            rule=(await policy_of(self._room.store, here.session.practice)).cancel_hours,
            form_token=self._room.form_token(here, HOLD),
            back=APPOINTMENTS,
        )

    async def hold(self, request: Request) -> Response:
        here, form = await self._room.posted(request, HOLD)
        wanted: dict[str, Any] = {
            "resourceType": "Appointment",
            "status": "proposed",
            "slot": [{"reference": form.get("slot", "")}],
            "participant": [{"actor": {"reference": here.record.patient}, "status": "accepted"}],
        }
        for name in ("start", "end"):
            if form.get(name):
                wanted[name] = form[name]
        answer = await self._room.call(
            here, "hold", "Appointment", ("appointment-resource", "resource", wanted)
        )
        held = answer.entries[0]["id"]
        moves = form.get("moves", "")
        query = f"?{urlencode({'moves': moves})}" if moves else ""
        return redirect(f"{_ONE}/{held}{query}")

    # --- changing ------------------------------------------------------------------------------

    async def book(self, request: Request) -> Response:
        own_id = request.path_params["id"]
        here, form = await self._room.posted(request, f"{_ONE}/book", own_id)
        given: list[tuple[str, str, Any]] = [
            ("appointment-reference", "valueReference", {"reference": f"Appointment/{own_id}"})
        ]
        if form.get("moves"):
            replaced = {"reference": f"Appointment/{form['moves']}"}
            given.append(("replaces", "valueReference", replaced))
        if form.get("comment", "").strip():
            comment = form["comment"].replace("\r\n", "\n")
            given.append(("comment", "valueString", comment))
        await self._room.call(here, "book", "Appointment", *given)
        return redirect(f"{_ONE}/{own_id}")

    async def cancel(self, request: Request) -> Response:
        own_id = request.path_params["id"]
        here, form = await self._room.posted(request, f"{_ONE}/cancel", own_id)
        tree: dict[str, Any] = {
            "resourceType": "Appointment",
            "id": own_id,
            "status": "cancelled",
            "participant": [{"actor": {"reference": here.record.patient}, "status": "declined"}],
        }
        reason = " ".join(form.get("reason", "").split())
        if reason:
            tree["cancelationReason"] = {"text": reason}
        await self._room.call(
            here, "book", "Appointment", ("appointment-resource", "resource", tree)
        )
        return redirect(APPOINTMENTS)

    async def check_in(self, request: Request) -> Response:
        own_id = request.path_params["id"]
        here, form = await self._room.posted(request, f"{_ONE}/check-in", own_id)
        undo = ("undo", "valueBoolean", True if form.get("undo") else None)
        answer = await self._room.call(here, "check-in", f"Appointment/{own_id}", undo)
        policy = await policy_of(self._room.store, here.session.practice)
        queue = None
        if answer.value("arrived"):
            queue = {"ahead": answer.value("ahead"), "forms": answer.value("forms-due")}
        return await self._shown(here, policy, answer.value("appointment"), answer, queue=queue)

    # --- asking --------------------------------------------------------------------------------

    async def show_request(self, request: Request) -> Response:
        here = await self._room.at(request)
        return await self._request_page(here, {})

    async def request(self, request: Request) -> Response:
        here, form = await self._room.posted(request, ASK)
        policy = await policy_of(self._room.store, here.session.practice)
        if not self._may_ask(here, policy):
            message = "nobody asks here"
            raise Forbidden(message)
        reason = " ".join(form.get("reason", "").split())
        days = [_day(form.get(name, "")) for name in ("from", "to")]
        if not reason:
            problem = "Say in a few words what it is about."
            return await self._request_page(here, form, problem=problem)
        if any(form.get(name) and not _day(form[name]) for name in ("from", "to")):
            return await self._request_page(here, form, problem="A day has a year, month and day.")
        first, last = days
        if first is not None and last is not None and last < first:
            problem = "The last day is before the first one."
            return await self._request_page(here, form, problem=problem)
        period = {name: day.isoformat() for name, day in (("start", first), ("end", last)) if day}
        tree: dict[str, Any] = {
            "resourceType": "Appointment",
            "status": "waitlist" if form.get("wait") else "proposed",
            "reasonCode": [{"text": reason[:200]}],
            "participant": [{"actor": {"reference": here.record.patient}, "status": "accepted"}],
        }
        if period:
            tree["requestedPeriod"] = [period]
        try:
            answer = await self._room.ask(here, "create", "Appointment", body=json.dumps(tree))
        except FhirError as error:
            if error.status in {401, 403}:
                raise
            words = "; ".join(one.diagnostics for one in error.issues)
            return await self._request_page(here, form, problem=words)
        return redirect(f"{_ONE}/{answer.tree['id']}")

    async def _request_page(
        self, here: AtPortal, given: Mapping[str, str], *, problem: str = ""
    ) -> Response:
        policy = await policy_of(self._room.store, here.session.practice)
        return self._room.page(
            here,
            "portal_appointments_request.html",
            status=400 if problem else 200,
            problem=problem,
            given={name: given.get(name, "") for name in ("reason", "from", "to", "wait")},
            may_ask=self._may_ask(here, policy),
            hours=policy.reply_hours,
            action=ASK,
            form_token=self._room.form_token(here, ASK),
            back=APPOINTMENTS,
        )

    # --- in words ------------------------------------------------------------------------------

    def _line(
        self,
        here: AtPortal,
        policy: PracticePolicy,
        tree: Mapping[str, Any],
        answer: Answer,
        until: float | None = None,
    ) -> dict[str, Any]:
        """Return one as a page lists it; the ``answer`` it came in says whether it is labelled."""
        labelled = f"Appointment/{tree['id']}" in answer.labelled
        reason = tree.get("cancelationReason") or {}
        displays = (one.get("display") for one in reason.get("coding") or ())
        return {
            "address": f"{_ONE}/{tree['id']}",
            "when": here.moment(tree.get("start")) or _wished(here, tree),
            "status": "Held for you, not booked yet"
            if until is not None
            else _WORDS.get(tree["status"], ""),
            "purpose": purpose_of(tree, policy, labelled=labelled),
            "who": ", ".join(with_whom(tree)),
            "reason": reason.get("text") or next(filter(None, displays), ""),
        }

    async def _held_until(self, here: AtPortal, tree: Mapping[str, Any]) -> float | None:
        """When the hold of what was just read ends; ``None`` where it is not held."""
        if tree["status"] != "pending":
            return None
        key = f"{here.session.practice}/{tree['id']}"
        held = await self._room.store.get(Held, key)
        return None if held is None else held.until

    def _reply(self, here: AtPortal, policy: PracticePolicy, tree: Mapping[str, Any]) -> str:
        """By when a wish is answered."""
        if tree["status"] != "proposed":
            return ""
        asked = datetime.fromisoformat(tree["meta"]["lastUpdated"])
        return here.moment((asked + timedelta(hours=policy.reply_hours)).isoformat())

    async def _place(self, here: AtPortal, tree: Mapping[str, Any]) -> dict[str, str] | None:
        for text in references_at(tree, "participant.actor"):
            key = local_target(text)
            if key is None or key.type != "Location":
                continue
            location = await self._seen(here, "Location", key.id)
            if location is not None:
                lines = place_of(location)
                where = location.get("position") or {}
                spot = ",".join(
                    str(where[one]) for one in ("latitude", "longitude") if one in where
                )
                wanted = quote(spot or ", ".join(lines[1:] or lines))
                return {
                    "text": ", ".join(lines),
                    "map": f"https://www.openstreetmap.org/search?query={wanted}",
                }
        return None

    async def _who(self, here: AtPortal, tree: Mapping[str, Any]) -> str:
        names = with_whom(tree)
        if names:
            return ", ".join(names)
        for text in references_at(tree, "participant.actor"):
            key = local_target(text)
            if key is not None and key.type == "Practitioner":
                found = await self._seen(here, "Practitioner", key.id)
                if found is not None:
                    names.append(name_of(found))
        return ", ".join(names)

    async def _seen(self, here: AtPortal, name: str, own_id: str) -> Mapping[str, Any] | None:
        try:
            return (await self._room.ask(here, "read", name, own_id)).tree
        except FhirError:
            return None

    async def _tasks(self, here: AtPortal, tree: Mapping[str, Any]) -> list[str]:
        """What is to be done before it, as far as the caller may see that."""
        if not here.sees("forms") or tree["status"] in _OVER:
            return []
        found = await self._room.ask(
            here,
            "search-type",
            "Task",
            query=(("status", OPEN_TASKS), ("_count", str(_PAGE))),
        )
        lines = []
        for one in filter(is_to_do, found.entries):
            named = one.get("description") or (one.get("code") or {}).get("text")
            words = named or "A form to fill in"
            end = ((one.get("restriction") or {}).get("period") or {}).get("end")
            lines.append(f"{words}: by {here.moment(end)}" if end else str(words))
        return lines

    def _move(self, tree: Mapping[str, Any]) -> str:
        codes = codes_of(tree)
        query = {"moves": tree["id"]} | ({"service": codes[0]} if codes else {})
        return f"{FIND}?{urlencode(query)}"

    def _day_of(self, here: AtPortal, start: str) -> str:
        there = datetime.fromtimestamp(period_of(start)[0] / _MICROSECONDS, here.zone)
        return f"{there:%A} {there.day} {there:%B %Y}"

    @staticmethod
    def _may_book(here: AtPortal, policy: PracticePolicy) -> bool:
        ways = {policy.booking, *policy.booking_services.values()}
        return here.acts(SECTION) and "book" in ways

    @staticmethod
    def _may_ask(here: AtPortal, policy: PracticePolicy) -> bool:
        return here.acts(SECTION) and policy.booking != "view"


def _page(handler: Handler) -> Handler:
    return portal_page(handler, back=APPOINTMENTS)


def _too_late(tree: Mapping[str, Any], policy: PracticePolicy, now: float) -> bool:
    start = tree.get("start")
    if start is None or tree["status"] in {"proposed", "waitlist"}:
        return False
    return now > period_of(start)[0] / _MICROSECONDS - policy.cancel_hours * _HOUR


def _previous(tree: Mapping[str, Any]) -> str:
    for one in tree.get("extension") or ():
        if one.get("url") == PREVIOUS:
            return str((one.get("valueReference") or {}).get("reference", "")).rpartition("/")[2]
    return ""


def _wished(here: AtPortal, tree: Mapping[str, Any]) -> str:
    for one in tree.get("requestedPeriod") or ():
        days = [here.moment(one.get(name)) for name in ("start", "end")]
        return " to ".join(filter(None, days))
    return "No time yet"


def _service(tree: Mapping[str, Any]) -> str:
    for concept in tree.get("serviceType") or ():
        displays = (one.get("display") for one in concept.get("coding") or ())
        words = concept.get("text") or next(filter(None, displays), "")
        if words:
            return str(words)
    return ""


def _day(text: str) -> date | None:
    return date.fromisoformat(text) if len(text) == 10 and is_date(text) else None  # noqa: PLR2004


def _midnight(day: date, here: AtPortal) -> str:
    there = datetime(day.year, day.month, day.day, tzinfo=here.zone)
    return there.astimezone(UTC).isoformat().replace("+00:00", "Z")


def _link(day: date, kept: Mapping[str, str]) -> str:
    return f"{FIND}?{urlencode({'from': day.isoformat(), **kept})}"
