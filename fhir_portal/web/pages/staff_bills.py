"""``/staff/bills``: money that disagrees, words against bills, plans, and payments.

What a page shows is read as the member of staff who looks; what was paid stands in PaymentNotices,
whoever wrote them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response

from fhir_portal.fhir.errors import FhirError, Forbidden, NotFound
from fhir_portal.operations.dispute import DISPUTE, HELD, status_of
from fhir_portal.operations.payment_plan import PLAN, RUNNING, parts_of
from fhir_portal.resources.task import CODE, OPEN
from fhir_portal.web.pages.desk import BILLS, AtDesk, Desk, desk_page
from fhir_portal.web.pages.portal_bills import text_of
from fhir_portal.web.pages.refusals import Handler
from fhir_portal.web.pages.render import redirect

_MOST: Final = 100
_ID: Final = re.compile(r"[A-Za-z0-9.-]{1,64}")
_ANSWERS: Final[Mapping[str, str]] = {
    "in-review": "We look at it",
    "corrected": "The bill was not right, and is corrected",
    "upheld": "The bill is right",
}
_DONE: Final[Mapping[str, str]] = {
    "seen": "Done.",
    "answered": "Answered. The patient is told that there is an answer.",
    "ended": "The plan was ended.",
}


class StaffBillPages:
    """The one page about bills, and its buttons."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def routes(self) -> Sequence[tuple[str, str, Handler]]:
        """Path, method and handler of each page."""
        return (
            (BILLS, "GET", desk_page(self.show)),
            (f"{BILLS}/{{task}}/seen", "POST", desk_page(self.seen, back=BILLS)),
            (f"{BILLS}/{{task}}/answer", "POST", desk_page(self.answer, back=BILLS)),
            (f"{BILLS}/{{task}}/end", "POST", desk_page(self.end, back=BILLS)),
        )

    async def show(self, request: Request) -> Response:
        here = await self._desk.at(request)
        _require(here)
        return await self._shown(here, done=_DONE.get(request.query_params.get("done", ""), ""))

    async def _shown(
        self, here: AtDesk, *, done: str = "", problem: str = "", task: str = "", given: str = ""
    ) -> Response:
        open_now = ",".join(sorted(OPEN))
        wrong = await self._tasks(here, "payment-mismatch", open_now)
        disputes = await self._tasks(here, DISPUTE, open_now)
        plans = await self._tasks(here, PLAN, RUNNING)
        under_way = (await self._desk.call(here, "payments", "Invoice")).values("payment")
        paid = await self._desk.search_all(
            here, "PaymentNotice", ("status", "active"), ("_sort", "-created"), most=50
        )
        bills = await self._bills(here, [*under_way, *paid])
        names = await self._desk.names_of_patients(
            here, map(_subject, [*wrong, *disputes, *plans, *bills.values()])
        )
        return self._desk.page(
            here,
            "staff_bills.html",
            status=400 if problem else 200,
            done=done,
            problem=problem,
            wrong=[
                self._line(here, one, names, "seen") | {"why": one.get("description", "")}
                for one in wrong
            ],
            disputes=[
                self._line(here, one, names, "answer")
                | {
                    "words": "; ".join(str(n.get("text", "")) for n in one.get("note") or ()),
                    "status": status_of(one),
                    "held": one["status"] == HELD,
                    "given": given if one["id"] == task else "",
                    "wrong": one["id"] == task,
                }
                for one in disputes
            ],
            answers=_ANSWERS,
            plans=[
                self._line(here, one, names, "end")
                | {
                    "parts": [
                        f"{part.amount} by {here.moment(part.due.isoformat())}"
                        for part in parts_of(one)
                    ]
                }
                for one in plans
            ],
            under_way=[
                {
                    "who": names.get(_subject(bills.get(_bill(one["invoice"]))), "a patient"),
                    "bill": _bill(one["invoice"]),
                    "amount": text_of(one["amount"]),
                    "when": here.moment(one["begun"]),
                    "reference": one["payment"][:12],
                }
                for one in under_way
            ],
            paid=[
                {
                    "who": names.get(_subject(bills.get(_bill(one.get("request")))), "a patient"),
                    "bill": _bill(one.get("request")),
                    "amount": text_of(one.get("amount")),
                    "when": here.moment(one.get("paymentDate") or one.get("created")),
                }
                for one in paid
            ],
        )

    # --- buttons -------------------------------------------------------------------------------

    async def seen(self, request: Request) -> Response:
        """Somebody has seen to money that disagreed."""
        task = _task_at(request)
        here, _, _ = await self._desk.posted(request, "seen", task)
        _require(here)
        await self._desk.call(here, "task-done", f"Task/{task}")
        return redirect(f"{BILLS}?done=seen")

    async def answer(self, request: Request) -> Response:
        task = _task_at(request)
        here, _, form = await self._desk.posted(request, "answer", task)
        _require(here)
        status, words = form.get("status", ""), " ".join(form.get("reason", "").split())
        if status not in _ANSWERS:
            return await self._shown(here, problem="Choose an answer.", task=task, given=words)
        try:
            await self._desk.call(
                here,
                "answer-dispute",
                f"Task/{task}",
                ("status", "valueCode", status),
                ("reason", "valueString", words or None),
                ("hold", "valueBoolean", True if form.get("hold") else None),
            )
        except FhirError as error:
            if error.status not in {400, 422}:
                raise
            why = "; ".join(one.diagnostics for one in error.issues)
            problem = f"It was not answered: {why}."
            return await self._shown(here, problem=problem, task=task, given=words)
        return redirect(f"{BILLS}?done=answered")

    async def end(self, request: Request) -> Response:
        task = _task_at(request)
        here, _, _ = await self._desk.posted(request, "end", task)
        _require(here)
        await self._desk.call(here, "cancel-plan", f"Task/{task}")
        return redirect(f"{BILLS}?done=ended")

    # --- what is on it -------------------------------------------------------------------------

    async def _tasks(self, here: AtDesk, code: str, status: str) -> Sequence[Mapping[str, Any]]:
        return await self._desk.search_all(
            here,
            "Task",
            ("code", f"{CODE}|{code}"),
            ("status", status),
            ("_sort", "authored-on"),
            most=_MOST,
        )

    async def _bills(
        self, here: AtDesk, payments: Sequence[Mapping[str, Any]]
    ) -> dict[str, Mapping[str, Any]]:
        """The Invoices of payments, by id, as far as the level shows them."""
        ids = (_bill(one.get("invoice") or one.get("request")) for one in payments)
        return await self._desk.by_ids(here, "Invoice", ids)

    def _line(
        self, here: AtDesk, task: Mapping[str, Any], names: Mapping[str, str], action: str
    ) -> dict[str, Any]:
        return {
            "id": task["id"],
            "who": names.get(_subject(task), "a patient"),
            "bill": _bill(task.get("focus")),
            "when": here.moment(task.get("authoredOn")),
            "action": f"{BILLS}/{task['id']}/{action}",
            "form_token": self._desk.form_token(here, action, task["id"]),
        }


def _require(here: AtDesk) -> None:
    if not (here.may("view") and here.may("billing")):
        message = "it does not hold 'view' and 'billing'"
        raise Forbidden(message)


def _task_at(request: Request) -> str:
    task = str(request.path_params["task"])
    if not _ID.fullmatch(task):
        raise NotFound
    return task


def _bill(reference: Mapping[str, Any] | None) -> str:
    """The id of a bill that something refers to."""
    name, _, own_id = str((reference or {}).get("reference", "")).partition("/")
    return own_id if name == "Invoice" else ""


def _subject(tree: Mapping[str, Any] | None) -> str:
    """The id of the patient whom a Task or a bill is of."""
    whose = (tree or {}).get("for") or (tree or {}).get("subject") or {}
    return str(whose.get("reference", "")).rpartition("/")[2]
