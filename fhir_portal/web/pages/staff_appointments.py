"""``/staff/appointments``: the day's appointments, what patients ask for, and booking for them.

Everything is done by the operations of the API, with the rights of the member of staff: whoever
books, moves or cancels here is named in the Provenance, and taken time is not taken twice.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any, Final
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import Response

from fhir_portal.access.relation import name_of
from fhir_portal.accounts.policy import policy_of
from fhir_portal.fhir.datetime import is_date, period_of
from fhir_portal.fhir.errors import Forbidden, NotFound
from fhir_portal.operations.appointments import patient_in
from fhir_portal.web.form import parse_pairs
from fhir_portal.web.pages.desk import APPOINTMENTS, AtDesk, Desk, desk_page
from fhir_portal.web.pages.refusals import Handler
from fhir_portal.web.pages.render import redirect

_ID: Final = re.compile(r"[A-Za-z0-9.-]{1,64}")
_MOST: Final = 100
_DATE_LENGTH: Final = 10
_WINDOW: Final = timedelta(days=14)
_FURTHEST: Final = timedelta(days=20_000)
_MICROSECONDS: Final = 1_000_000
_CANCELLED_BY: Final = "It was cancelled by the practice."
_WORDS: Final[Mapping[str, str]] = {
    "proposed": "asked for",
    "pending": "waiting for confirmation, or held",
    "booked": "booked",
    "arrived": "is here",
    "checked-in": "checked in",
    "fulfilled": "took place",
    "cancelled": "cancelled",
    "noshow": "did not come",
    "waitlist": "on the waiting list",
    "entered-in-error": "recorded by mistake",
}


class StaffAppointmentPages:
    """The day, the requests, and the times for a patient."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def routes(self) -> Sequence[tuple[str, str, Handler]]:
        """Path, method and handler of each page."""
        times = f"{APPOINTMENTS}/for/{{patient}}"
        one = f"{APPOINTMENTS}/one/{{id}}"
        return (
            (APPOINTMENTS, "GET", desk_page(self.show)),
            (times, "GET", _page(self.times)),
            (times, "POST", _page(self.book)),
            (f"{one}/cancel", "POST", _page(self.cancel)),
            (f"{one}/check-in", "POST", _page(self.check_in)),
        )

    async def show(self, request: Request) -> Response:
        """A day's appointments, and what waits for an answer whatever the day."""
        here = await self._desk.at(request)
        _require(here)
        given = dict(parse_pairs(request.scope["query_string"]))
        today = datetime.fromtimestamp(self._desk.clock(), here.zone).date()
        day = min(max(_day(given.get("day", "")) or today, today - _FURTHEST), today + _FURTHEST)
        span = (("date", f"ge{_midnight(day, here)}"), ("date", f"lt{_midnight(_next(day), here)}"))
        found = await self._desk.search_all(
            here, "Appointment", *span, ("_sort", "date"), most=_MOST
        )
        wishes = await self._desk.search_all(
            here, "Appointment", ("status", "proposed,waitlist"), ("_sort", "_lastUpdated")
        )
        policy = await policy_of(self._desk.store, here.session.practice)
        names = await self._names(here, [*found, *wishes])
        return self._desk.page(
            here,
            "staff_appointments.html",
            day=day.isoformat(),
            title=here.moment(day.isoformat()),
            lines=[self._line(here, one, names) for one in found],
            full=len(found) >= _MOST,
            wishes=[
                self._line(here, one, names) | self._due(here, one, policy.reply_hours)
                for one in wishes
            ],
            action=APPOINTMENTS,
            before=f"{APPOINTMENTS}?{urlencode({'day': (day - timedelta(1)).isoformat()})}",
            after=f"{APPOINTMENTS}?{urlencode({'day': _next(day).isoformat()})}",
            form_token=self._desk.form_token(here, APPOINTMENTS),
        )

    async def times(self, request: Request) -> Response:
        """The times that a patient can be given; ``replaces`` is what they take the place of."""
        here = await self._desk.at(request)
        _require(here)
        own_id = _id(request.path_params["patient"])
        patient = (await self._desk.ask(here, "read", "Patient", own_id)).tree
        given = dict(parse_pairs(request.scope["query_string"]))
        today = datetime.fromtimestamp(self._desk.clock(), here.zone).date()
        first = min(max(_day(given.get("from", "")) or today, today), today + _FURTHEST)
        answer = await self._desk.call(
            here,
            "find",
            "Appointment",
            ("start", "valueDateTime", _midnight(first, here)),
            ("end", "valueDateTime", _midnight(first + _WINDOW, here)),
            ("_count", "valueInteger", _MOST),
        )
        replaces = given.get("replaces", "")
        return self._desk.page(
            here,
            "staff_appointments_times.html",
            name=name_of(patient),
            replaces=replaces,
            start=first.isoformat(),
            more=answer.tree["total"] > len(answer.entries),
            times=[
                {
                    "slot": one["slot"][0]["reference"],
                    "when": here.moment(one["start"]),
                    "what": _service(one),
                    "who": _with(one),
                }
                for one in answer.entries
            ],
            address=f"{APPOINTMENTS}/for/{own_id}",
            form_token=self._desk.form_token(here, "times", own_id),
            back=APPOINTMENTS,
        )

    async def book(self, request: Request) -> Response:
        """Hold a time for the patient and book it; what somebody else has by now is refused."""
        own_id = _id(request.path_params["patient"])
        here, _, form = await self._desk.posted(request, "times", own_id)
        _require(here)
        wanted = {
            "resourceType": "Appointment",
            "status": "proposed",
            "slot": [{"reference": form.get("slot", "")}],
            "participant": [
                {"actor": {"reference": f"Patient/{own_id}"}, "status": "needs-action"}
            ],
        }
        held = await self._desk.call(
            here, "hold", "Appointment", ("appointment-resource", "resource", wanted)
        )
        replaces = form.get("replaces", "")
        named = {"reference": f"Appointment/{_id(replaces)}"} if replaces else None
        answer = await self._desk.call(
            here,
            "book",
            "Appointment",
            (
                "appointment-reference",
                "valueReference",
                {"reference": f"Appointment/{held.entries[0]['id']}"},
            ),
            ("replaces", "valueReference", named),
        )
        begins = period_of(answer.entries[0]["start"])[0] / _MICROSECONDS
        there = datetime.fromtimestamp(begins, here.zone)
        return redirect(f"{APPOINTMENTS}?{urlencode({'day': there.date().isoformat()})}")

    async def cancel(self, request: Request) -> Response:
        own_id = _id(request.path_params["id"])
        here, _, form = await self._desk.posted(request, APPOINTMENTS)
        _require(here)
        reason = " ".join(form.get("reason", "").split()) or _CANCELLED_BY
        tree = {
            "resourceType": "Appointment",
            "id": own_id,
            "status": "cancelled",
            "cancelationReason": {"text": reason},
            "participant": [{"type": [{"text": "patient"}], "status": "declined"}],
        }
        await self._desk.call(
            here, "book", "Appointment", ("appointment-resource", "resource", tree)
        )
        return self._back(form)

    async def check_in(self, request: Request) -> Response:
        own_id = _id(request.path_params["id"])
        here, _, form = await self._desk.posted(request, APPOINTMENTS)
        _require(here)
        undo = ("undo", "valueBoolean", True if form.get("undo") else None)
        await self._desk.call(here, "check-in", f"Appointment/{own_id}", undo)
        return self._back(form)

    @staticmethod
    def _back(form: Mapping[str, str]) -> Response:
        day = _day(form.get("day", ""))
        query = f"?{urlencode({'day': day.isoformat()})}" if day else ""
        return redirect(f"{APPOINTMENTS}{query}")

    # --- in words ------------------------------------------------------------------------------

    async def _names(self, here: AtDesk, found: Sequence[Mapping[str, Any]]) -> Mapping[str, str]:
        """The names of the patients, by their ids."""
        ids = sorted({key.id for one in found if (key := patient_in(one)) is not None})
        names: dict[str, str] = {}
        for at in range(0, len(ids), _MOST):
            wanted = ("_id", ",".join(ids[at : at + _MOST]))
            for one in await self._desk.search_all(here, "Patient", wanted):
                names[one["id"]] = name_of(one)
        return names

    def _line(
        self, here: AtDesk, tree: Mapping[str, Any], names: Mapping[str, str]
    ) -> dict[str, Any]:
        patient = patient_in(tree)
        own_id = patient.id if patient is not None else ""
        state = tree["status"]
        query = urlencode({"replaces": tree["id"]})
        times = f"{APPOINTMENTS}/for/{own_id}?{query}" if own_id else ""
        reason = tree.get("cancelationReason") or {}
        return {
            "address": f"{APPOINTMENTS}/one/{tree['id']}",
            "when": here.moment(tree.get("start")),
            "name": names.get(own_id, "several people, or nobody named"),
            "state": _WORDS.get(state, state),
            "what": _service(tree) or _text(tree.get("reasonCode")),
            "who": _with(tree),
            "why": reason.get("text") or "",
            "period": _period(here, tree),
            "may_cancel": state in {"proposed", "pending", "booked", "waitlist"},
            "may_check_in": state in {"booked", "pending"},
            "may_undo": state == "arrived",
            "times": times if state in {"proposed", "booked", "waitlist"} else "",
        }

    def _due(self, here: AtDesk, tree: Mapping[str, Any], hours: int) -> dict[str, Any]:
        asked = datetime.fromisoformat(tree["meta"]["lastUpdated"])
        due = asked + timedelta(hours=hours)
        waits = tree["status"] == "proposed"
        return {
            "due": here.moment(due.isoformat()) if waits else "",
            "overdue": waits and due.timestamp() < self._desk.clock(),
        }


def _page(handler: Handler) -> Handler:
    return desk_page(handler, back=APPOINTMENTS)


def _require(here: AtDesk) -> None:
    if not (here.calls("book") and here.may("view")):
        message = f"the level '{here.staff.level}' does not let its holders do this"
        raise Forbidden(message)


def _id(text: str) -> str:
    if not _ID.fullmatch(text):
        raise NotFound
    return text


def _day(text: str) -> date | None:
    return date.fromisoformat(text) if len(text) == _DATE_LENGTH and is_date(text) else None


def _next(day: date) -> date:
    return day + timedelta(1)


def _midnight(day: date, here: AtDesk) -> str:
    there = datetime(day.year, day.month, day.day, tzinfo=here.zone)
    return there.astimezone(UTC).isoformat().replace("+00:00", "Z")


def _period(here: AtDesk, tree: Mapping[str, Any]) -> str:
    for one in tree.get("requestedPeriod") or ():
        return " to ".join(filter(None, (here.moment(one.get(n)) for n in ("start", "end"))))
    return ""


def _service(tree: Mapping[str, Any]) -> str:
    return _text(tree.get("serviceType"))


def _text(concepts: Any) -> str:
    for concept in concepts or ():
        displays = (one.get("display") for one in concept.get("coding") or ())
        words = concept.get("text") or next(filter(None, displays), "")
        if words:
            return str(words)
    return ""


def _with(tree: Mapping[str, Any]) -> str:
    return ", ".join(
        one["actor"]["display"]
        for one in tree.get("participant") or ()
        if (one.get("actor") or {}).get("display")
        and str(one["actor"].get("reference", "")).startswith(("Practitioner", "HealthcareService"))
    )
