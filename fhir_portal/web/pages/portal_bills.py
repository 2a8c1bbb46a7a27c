"""``/portal/bills``: what is due and why, each bill item by item, and paying it.

Whoever pays for a patient need not see what was done: what a service was called is shown to the
patient, and to who may see the visits. Card and account numbers are given to the payment provider
on its own page; a link leads there, since a form of ours may not.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any, Final

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from fhir_portal.access.owners import local_target, references_at
from fhir_portal.accounts.policy import PracticePolicy, policy_of
from fhir_portal.billing.amount import Amount, NoAmount, digits_of
from fhir_portal.fhir.errors import FhirError, NotFound
from fhir_portal.fhir.interaction import FhirRequest
from fhir_portal.operations.dispute import DISPUTE, HELD, status_of
from fhir_portal.operations.payment_plan import PLAN, RUNNING, parts_of
from fhir_portal.resources.task import CODE, is_about
from fhir_portal.web.pages.portal import APPOINTMENTS, BILLS, AtPortal, PatientRoom, portal_page
from fhir_portal.web.pages.refusals import Handler
from fhir_portal.web.pages.render import download, redirect
from fhir_portal.web.payments import PAYMENT

SECTION: Final = "billing"
ONE: Final = f"{BILLS}/one"
RECEIPT: Final = f"{BILLS}/receipt"
PAY: Final = "bill-pay"
_MOST: Final = 100
_TYPED: Final = re.compile(r"(\d{1,9})(?:[.,](\d{1,4}))?")
_WORDS: Final = {
    "draft": "Not made out yet",
    "issued": "To be paid",
    "balanced": "Paid",
    "cancelled": "Taken back by the practice",
    "entered-in-error": "Made by mistake",
}
_PARTS: Final = {
    "base": "Price",
    "surcharge": "Surcharge",
    "deduction": "Paid by others",
    "discount": "Discount",
    "tax": "Tax",
}
_SERVICE: Final = "A service"
_NUMBER: Final = re.compile(r"[1-9][0-9]?")
_DISPUTED: Final = {
    "requested": "Sent to the practice",
    "in-review": "The practice looks at it",
    "corrected": "The practice corrects the bill",
    "upheld": "The practice says that the bill is right",
}
_HELD: Final = ", and does not ask for the money meanwhile"
_PLAN_OVER: Final = {
    "completed": "The plan to pay in parts is completed.",
    "cancelled": "The plan to pay in parts was ended.",
}


class BillPages:
    """The pages about bills of the record that is open."""

    def __init__(self, room: PatientRoom) -> None:
        self._room = room

    def routes(self) -> Sequence[tuple[str, str, Handler]]:
        """Path, method and handler of each page."""
        one = f"{ONE}/{{id}}"
        return (
            (BILLS, "GET", portal_page(self.show)),
            (one, "GET", _page(self.one)),
            (f"{one}/pay", "POST", _page(self.pay)),
            (f"{one}/dispute", "POST", _page(self.dispute)),
            (f"{one}/plan", "POST", _page(self.agree)),
            (f"{one}/plan/end", "POST", _page(self.end_plan)),
            (f"{PAYMENT}/{{key}}", "GET", _page(self.payment)),
            (f"{RECEIPT}/{{id}}", "GET", _page(self.receipt)),
        )

    # --- the balance ---------------------------------------------------------------------------

    async def show(self, request: Request) -> Response:
        """What is due, what makes it, and the bills, those to be paid first."""
        here = await self._room.at(request)
        found = await self._room.call(here, "balance", "Account")
        cancelled = await self._room.ask(
            here,
            "search-type",
            "Invoice",
            query=(("status", "cancelled"), ("_sort", "-date"), ("_count", str(_MOST))),
        )
        bills = [self._line(here, one) for one in found.values("bill")]
        return self._room.page(
            here,
            "portal_bills.html",
            state=found.value("state"),
            sums=[
                {name.replace("-", "_"): text_of(money) for name, money in one.items()}
                | {"nothing_due": not _units(one["due"]), "waits": _units(one["under-way"])}
                for one in found.values("sum")
            ],
            insurer=[
                {"amount": text_of(one.get("amount")), "when": here.moment(one.get("created"))}
                for one in found.values("insurer")
            ],
            to_pay=[one for one in bills if one["open"]],
            paid=[one for one in bills if not one["open"]],
            cancelled=[
                {
                    "address": f"{ONE}/{one['id']}",
                    "title": _title(here, one.get("date")),
                    "total": text_of(one.get("totalGross") or one.get("totalNet")),
                }
                for one in cancelled.entries
            ],
        )

    @staticmethod
    def _line(here: AtPortal, told: Mapping[str, Any]) -> dict[str, Any]:
        return {
            "address": f"{ONE}/{told['invoice']['reference'].partition('/')[2]}",
            "title": _title(here, told.get("date")),
            "open": told["status"] == "issued",
            "total": text_of(told.get("total")),
            "due": text_of(told.get("due")),
            "paid": text_of(told.get("paid")),
            "under_way": text_of(told["under-way"]) if _units(told.get("under-way")) else "",
            "problem": told.get("problem", ""),
        }

    # --- one bill ------------------------------------------------------------------------------

    async def one(self, request: Request) -> Response:
        here = await self._room.at(request)
        return await self._shown(here, request.path_params["id"])

    async def _shown(
        self,
        here: AtPortal,
        own_id: str,
        *,
        problem: str = "",
        amount: str = "",
        words: str = "",
    ) -> Response:
        tree = (await self._room.ask(here, "read", "Invoice", own_id)).tree
        address = f"{ONE}/{own_id}"
        stands: dict[str, Any] | None = None
        try:
            stands = await self._stands(here, own_id)
        except FhirError as error:
            if error.status != 422:  # noqa: PLR2004 - it cannot be reckoned with
                raise
        provider = self._room.portal.collaborators.payments
        takes = provider is not None and PAY in here.features
        may_pay = bool(takes and here.acts(SECTION) and stands and stands["left"])
        items = [await self._item(here, one) for one in tree.get("lineItem") or ()]
        tasks = await self._tasks(here, own_id)
        disputes = [_dispute(here, one) for one in tasks if is_about(one, DISPUTE)]
        plan = next((one for one in tasks if is_about(one, PLAN)), None)
        policy = await policy_of(self._room.store, here.session.practice)
        acts, due = here.acts(SECTION), stands["due_units"] if stands else 0
        runs = plan is not None and plan["status"] == RUNNING
        return self._room.page(
            here,
            "portal_bill.html",
            status=400 if problem else 200,
            title=_title(here, tree.get("date")),
            state=_WORDS.get(tree["status"], ""),
            reason=tree.get("cancelledReason", ""),
            number=next(
                (one["value"] for one in tree.get("identifier") or () if "value" in one), ""
            ),
            issuer=(tree.get("issuer") or {}).get("display", ""),
            note="; ".join(str(one.get("text", "")) for one in tree.get("note") or ())
            if self._names_services(here)
            else "",
            terms=tree.get("paymentTerms", ""),
            items=items,
            total=text_of(tree.get("totalGross") or tree.get("totalNet")),
            stands=stands,
            may_pay=may_pay,
            takes=takes,
            problem=problem,
            amount=amount or (stands["due_value"] if stands else ""),
            action=f"{address}/pay",
            key=self._room.new_key(),
            form_token=self._room.form_token(here, f"{ONE}/pay", own_id),
            disputes=disputes,
            may_dispute=acts
            and tree["status"] in {"issued", "balanced"}
            and not any(one["open"] for one in disputes),
            words=words,
            plan=_plan(here, plan, due) if plan is not None and runs else None,
            plan_over=_PLAN_OVER.get(plan["status"], "") if plan is not None and not runs else "",
            choices=_choices(policy, stands) if acts and takes and stands and not runs else [],
            acts=acts,
            forms={
                name: (
                    f"{address}/{name}",
                    self._room.form_token(here, f"{ONE}/{name}", own_id),
                )
                for name in ("dispute", "plan", "plan/end")
            },
            back=BILLS,
        )

    async def _tasks(self, here: AtPortal, own_id: str) -> Sequence[Mapping[str, Any]]:
        """What was said against a bill, and the plans to pay it, the latest first."""
        found = await self._room.ask(
            here,
            "search-type",
            "Task",
            query=(
                ("focus", f"Invoice/{own_id}"),
                ("code", f"{CODE}|{DISPUTE},{CODE}|{PLAN}"),
                ("_sort", "-authored-on"),
                ("_count", str(_MOST)),
            ),
        )
        return found.entries

    async def _stands(self, here: AtPortal, own_id: str) -> dict[str, Any]:
        """What was paid of a bill and what is left of it."""
        found = await self._room.call(here, "amount-due", f"Invoice/{own_id}")
        due = found.value("due")
        total, paid = found.value("total"), found.value("paid")
        rest = _units(total) - _units(paid) if found.value("status") == "balanced" else 0
        return {
            "settled": str(Amount(rest, total["currency"])) if rest > 0 else "",
            "total": text_of(total),
            "paid": text_of(paid),
            "due": text_of(due),
            "due_value": Amount.of(due).text,
            "due_units": _units(due),
            "currency": due["currency"],
            "left": _units(due) > 0,
            "under_way": text_of(found.value("under-way"))
            if _units(found.value("under-way"))
            else "",
            "payments": [
                {
                    "amount": text_of(one["amount"]),
                    "when": here.moment(one.get("date")),
                    "receipt": f"{RECEIPT}/{one['notice']['reference'].partition('/')[2]}",
                }
                for one in found.values("payment")
            ],
        }

    @staticmethod
    def _names_services(here: AtPortal) -> bool:
        """Whether whoever is there may read what was done, and not only what it costs."""
        return here.auth.is_self or here.sees("visits")

    async def _item(self, here: AtPortal, item: Mapping[str, Any]) -> dict[str, Any]:
        words = _words_of(item.get("chargeItemCodeableConcept"))
        visit: dict[str, str] | None = None
        key = local_target((item.get("chargeItemReference") or {}).get("reference") or "")
        charge = await self._seen(here, key.type, key.id) if key is not None else None
        if charge is not None:
            words = words or _words_of(charge.get("code"))
            visit = await self._visit(here, charge)
        return {
            "words": words if words and self._names_services(here) else _SERVICE,
            "visit": visit,
            "parts": [
                (_PARTS[one["type"]], text_of(one.get("amount")))
                for one in item.get("priceComponent") or ()
                if one.get("type") in _PARTS and one.get("amount")
            ],
        }

    async def _visit(self, here: AtPortal, charge: Mapping[str, Any]) -> dict[str, str] | None:
        """When the visit was that something was charged for, and where it is on these pages."""
        key = next(filter(None, map(local_target, references_at(charge, "context"))), None)
        if key is None or key.type != "Encounter":
            return None
        visit = await self._seen(here, "Encounter", key.id)
        if visit is None:
            return None
        address = ""
        planned = next(filter(None, map(local_target, references_at(visit, "appointment"))), None)
        if planned is not None and await self._seen(here, "Appointment", planned.id):
            address = f"{APPOINTMENTS}/one/{planned.id}"
        when = here.moment((visit.get("period") or {}).get("start"))
        return {"when": when or "A visit", "address": address}

    async def _seen(self, here: AtPortal, name: str, own_id: str) -> Mapping[str, Any] | None:
        try:
            return (await self._room.ask(here, "read", name, own_id)).tree
        except FhirError:
            return None

    # --- saying something against it, and paying in parts --------------------------------------

    async def dispute(self, request: Request) -> Response:
        own_id = request.path_params["id"]
        here, form = await self._room.posted(request, f"{ONE}/dispute", own_id)
        words = " ".join(form.get("reason", "").split())
        given = ("reason", "valueString", words or None)
        if not words:
            return await self._shown(here, own_id, problem="Say what is not right with the bill.")
        return await self._do(here, "dispute", f"Invoice/{own_id}", own_id, given, words=words)

    async def agree(self, request: Request) -> Response:
        own_id = request.path_params["id"]
        here, form = await self._room.posted(request, f"{ONE}/plan", own_id)
        text = form.get("parts", "")
        if not _NUMBER.fullmatch(text):
            return await self._shown(here, own_id, problem="Choose in how many parts.")
        given = ("parts", "valuePositiveInt", int(text))
        return await self._do(here, "payment-plan", f"Invoice/{own_id}", own_id, given)

    async def end_plan(self, request: Request) -> Response:
        own_id = request.path_params["id"]
        here, _ = await self._room.posted(request, f"{ONE}/plan/end", own_id)
        plans = [one for one in await self._tasks(here, own_id) if is_about(one, PLAN)]
        running = next((one for one in plans if one["status"] == RUNNING), None)
        if running is None:
            return redirect(f"{ONE}/{own_id}")
        return await self._do(here, "cancel-plan", f"Task/{running['id']}", own_id)

    async def _do(
        self,
        here: AtPortal,
        operation: str,
        target: str,
        own_id: str,
        *given: tuple[str, str, Any],
        words: str = "",
    ) -> Response:
        """Call an operation; what it refuses is told beside the bill."""
        try:
            await self._room.call(here, operation, target, *given)
        except FhirError as error:
            if error.status not in {400, 409, 422}:
                raise
            why = "; ".join(one.diagnostics for one in error.issues)
            problem = f"It was not done: {why}."
            return await self._shown(here, own_id, problem=problem, words=words)
        return redirect(f"{ONE}/{own_id}")

    # --- paying --------------------------------------------------------------------------------

    async def pay(self, request: Request) -> Response:
        """Begin to pay; the same form sent twice is one payment."""
        own_id = request.path_params["id"]
        here, form = await self._room.posted(request, f"{ONE}/pay", own_id)
        typed = form.get("amount", "").strip()
        money: dict[str, Any] | None = None
        if typed:
            stands = await self._room.call(here, "amount-due", f"Invoice/{own_id}")
            currency = stands.value("total")["currency"]
            money = _typed(typed, currency)
            if money is None:
                problem = "Type the amount like 25 or 25.50."
                return await self._shown(here, own_id, problem=problem, amount=typed[:20])
        key = form.get("key", "")
        try:
            answer = await self._room.call(
                here,
                "pay",
                f"Invoice/{own_id}",
                ("idempotency-key", "valueString", key or None),
                ("amount", "valueMoney", money),
            )
        except FhirError as error:
            if error.status not in {409, 422}:
                raise
            words = "; ".join(one.diagnostics for one in error.issues)
            problem = f"Nothing was paid: {words}."
            return await self._shown(here, own_id, problem=problem, amount=typed[:20])
        return redirect(f"{PAYMENT}/{answer.value('payment')}")

    async def payment(self, request: Request) -> Response:
        """How a payment stands: to go on, paid, or not paid."""
        here = await self._room.at(request)
        given = ("payment", "valueString", request.path_params["key"])
        found = await self._room.call(here, "payment", "Invoice", given)
        own_id = found.value("invoice")["reference"].partition("/")[2]
        notice = (found.value("notice") or {}).get("reference", "").partition("/")[2]
        return self._room.page(
            here,
            "portal_payment.html",
            state=found.value("status"),
            amount=text_of(found.value("amount")),
            begun=here.moment(found.value("begun")),
            pay_at=found.value("pay-at") or "",
            receipt=f"{RECEIPT}/{notice}" if notice else "",
            bill=f"{ONE}/{own_id}",
            again=request.url.path,
            back=BILLS,
        )

    async def receipt(self, request: Request) -> Response:
        here = await self._room.at(request)
        own_id = request.path_params["id"]
        asked = FhirRequest("operation", "PaymentNotice", own_id, operation="receipt", is_get=True)
        answer = await self._room.perform(here, asked)
        if answer.binary is None:
            raise NotFound
        media, content = answer.binary
        return download(content, "receipt.pdf", media)


def _dispute(here: AtPortal, task: Mapping[str, Any]) -> dict[str, Any]:
    """What was said against a bill, and what became of it, in plain words."""
    status = status_of(task)
    held = task["status"] == HELD
    return {
        "open": status in {"requested", "in-review"},
        "words": "; ".join(str(one.get("text", "")) for one in task.get("note") or ()),
        "when": here.moment(task.get("authoredOn")),
        "status": _DISPUTED.get(status, "") + (_HELD if held else ""),
        "answer": (task.get("statusReason") or {}).get("text", ""),
    }


def _plan(here: AtPortal, task: Mapping[str, Any], due: int) -> dict[str, Any]:
    """The parts of a plan: those whose money is there already are done."""
    parts = parts_of(task)
    found, left = [], sum(one.amount.units for one in parts)
    following = ""
    for one in parts:
        left -= one.amount.units
        paid = due <= left
        if not paid and not following:
            following = Amount(due - left, one.amount.currency).text
        found.append(
            {
                "when": here.moment(one.due.isoformat()),
                "amount": str(one.amount),
                "paid": paid,
            }
        )
    return {"parts": found, "next": following}


def _choices(policy: PracticePolicy, stands: Mapping[str, Any]) -> list[tuple[int, str]]:
    """In how many parts a bill may be paid, with what each comes to about."""
    currency, due = stands["currency"], stands["due_units"]
    least = policy.plan_least * 10 ** digits_of(currency)
    return [
        (number, str(Amount(due // number, currency)))
        for number in range(2, policy.plan_months + 1)
        if due // number >= least
    ]


def _page(handler: Handler) -> Handler:
    return portal_page(handler, back=BILLS)


def text_of(money: Mapping[str, Any] | None) -> str:
    """A Money as people read it; ``""`` for none, or one that is not to be reckoned with."""
    try:
        return str(Amount.of(money)) if money else ""
    except NoAmount:
        return ""


def _units(money: Mapping[str, Any] | None) -> int:
    try:
        return Amount.of(money).units if money else 0
    except NoAmount:
        return 0


def _typed(text: str, currency: str) -> dict[str, Any] | None:
    """Read an amount that somebody typed; ``None`` for what is none."""
    found = _TYPED.fullmatch(text)
    if found is None:
        return None
    number = Decimal(f"{found[1]}.{found[2] or '0'}")
    return {"value": msgspec.Raw(str(number).encode()), "currency": currency}


def _title(here: AtPortal, date: str | None) -> str:
    when = here.moment(date).partition(",")[0] if date and "T" in date else here.moment(date)
    return f"Bill of {when}" if when else "A bill without a date"


def _words_of(concept: Mapping[str, Any] | None) -> str:
    found = concept or {}
    displays = (one.get("display") for one in found.get("coding") or ())
    return str(found.get("text") or next(filter(None, displays), ""))
