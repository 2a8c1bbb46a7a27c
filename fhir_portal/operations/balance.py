"""``Account/$balance`` and ``Account/[id]/$balance``: what somebody owes, and what makes it.

It is reckoned when it is asked for and stored nowhere: a sum that is written beside its bills is
untrue whenever one of them changes, until somebody writes it anew. Source: FHIR R5 §8.1 (Account).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from fhir_portal.access.owners import local_target
from fhir_portal.billing.amount import Amount, NoAmount
from fhir_portal.billing.invoice import PAYABLE, Balance, NotReckoned, balances_of
from fhir_portal.fhir import json
from fhir_portal.fhir.datetime import instant
from fhir_portal.fhir.errors import Forbidden, Unprocessable
from fhir_portal.fhir.interaction import FhirResponse
from fhir_portal.operations.call import Call
from fhir_portal.operations.definition import parameter
from fhir_portal.resources.permission import checked, permitted, permitted_or_none
from fhir_portal.resources.store import Row
from fhir_portal.search.request import parse_search

BALANCE: Final = "http://hl7.org/fhir/5.0/StructureDefinition/extension-Account.balance"
CALCULATED: Final = "http://hl7.org/fhir/5.0/StructureDefinition/extension-Account.calculatedAt"
AGGREGATE: Final = "http://hl7.org/fhir/account-aggregate"
_OURS: Final = frozenset({BALANCE, CALCULATED})
BILLS: Final = f"{PAYABLE},balanced"
_MOST: Final = 200
"""Bills, and claims, that are looked at together."""
_NAMED: Final = 100
"""Claims that one search names: it takes 200 values at most."""
_MICROSECONDS: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class _Pending:
    """A claim that no insurer has answered."""

    row: Row
    amount: Amount | None
    created: str | None


async def balance(call: Call) -> FhirResponse:
    """Say what is due and why, as far as the caller sees the bills.

    Raises:
        NotFound, Gone: there is no such Account for the caller.
        Unprocessable, Forbidden: nobody says whose bills are meant, or another's than the token's.
    """
    account = await call.target(call.server.reader) if call.request.id is not None else None
    if account is not None and call.arguments.one("patient") is not None:
        message = "an Account says whose it is"
        raise Unprocessable(message, expression=parameter("patient"))
    patient = _patient_of(account) if account is not None else _patient(call)
    asked = [("subject", f"Patient/{patient}"), ("status", BILLS), ("_sort", "-date")]
    if account is not None:
        asked.append(("account", str(account.key)))
    bills, more = await _found(call, "Invoice", asked)
    found = await balances_of(call.server.store, bills)
    pending = await _pending(call, patient) if account is None else []
    state = _state(found, more=more)
    sums = _sums([one for one in found if isinstance(one, Balance)]) if state == "known" else []
    answer = {
        "state": state,
        "sum": sums,
        "insurer": [
            {
                "claim": {"reference": str(one.row.key)},
                "amount": one.amount.money if one.amount is not None else None,
                "created": one.created,
            }
            for one in pending
        ],
        "bill": [_told(row, one) for row, one in zip(bills, found, strict=True)],
        "account": _shown(account, sums, at=call.server.clock()) if account is not None else None,
    }
    rows = [*bills, *(one.row for one in pending), *filter(None, [account])]
    return call.answer(answer, *rows)


def _state(found: Sequence[Balance | NotReckoned], *, more: bool) -> str:
    if not found:
        return "none"
    return "unknown" if more or any(isinstance(one, NotReckoned) for one in found) else "known"


def _sums(found: Sequence[Balance]) -> list[dict[str, Any]]:
    """One sum for each currency."""
    sums: dict[str, list[int]] = {}
    for one in found:
        parts = (one.total, _settled(one), one.under_way, one.due)
        before = sums.get(one.total.currency, [0] * len(parts))
        added = [sum_ + part.units for sum_, part in zip(before, parts, strict=True)]
        sums[one.total.currency] = added
    return [
        {
            name: Amount(units, currency).money
            for name, units in zip(("total", "paid", "under-way", "due"), all_of_it, strict=True)
        }
        for currency, all_of_it in sorted(sums.items())
    ]


def _settled(one: Balance) -> Amount:
    """What was paid of a bill; all of it where the practice says that nothing is open any more.

    How that came about need not be here: it may have been paid at the desk, or waived.
    """
    return one.paid if one.is_payable or one.paid.units > one.total.units else one.total


def _told(row: Row, one: Balance | NotReckoned) -> dict[str, Any]:
    tree = json.parse(row.body)
    told = {
        "invoice": {"reference": str(row.key)},
        "status": tree["status"],
        "date": tree.get("date"),
    }
    if isinstance(one, NotReckoned):
        return told | {"problem": str(one)}
    return told | {
        "total": one.total.money,
        "paid": _settled(one).money,
        "under-way": one.under_way.money,
        "due": one.due.money,
    }


def _shown(account: Row, sums: Sequence[Mapping[str, Any]], *, at: float) -> dict[str, Any]:
    """The Account with its balance of now, in the place of what a client said it was."""
    tree = json.parse(account.body)
    kept = [one for one in tree.get("extension") or () if one.get("url") not in _OURS]
    patient = {"coding": [{"system": AGGREGATE, "code": "patient"}]}
    made: list[dict[str, Any]] = [
        {
            "url": BALANCE,
            "extension": [
                {"url": "aggregate", "valueCodeableConcept": patient},
                {"url": "estimate", "valueBoolean": False},
                {"url": "amount", "valueMoney": one["due"]},
            ],
        }
        for one in sums
    ]
    if made:
        made.append({"url": CALCULATED, "valueInstant": instant(int(at * _MICROSECONDS))})
    tree.pop("extension", None)
    return tree | ({"extension": [*kept, *made]} if kept or made else {})


async def _pending(call: Call, patient: str) -> list[_Pending]:
    """Return the claims without an answer; none where the caller does not see both."""
    if permitted_or_none(call.server, call.auth, "s", "ClaimResponse") is None:
        return []
    if permitted_or_none(call.server, call.auth, "s", "Claim") is None:
        return []
    asked = [("patient", f"Patient/{patient}"), ("status", "active"), ("use", "claim")]
    claims, _ = await _found(call, "Claim", [*asked, ("_sort", "-created")])
    answered = set[str]()
    for at in range(0, len(claims), _NAMED):
        some = [str(row.key) for row in claims[at : at + _NAMED]]
        answered |= await _answered(call, patient, some)
    return [_of(row) for row in claims if str(row.key) not in answered]


async def _answered(call: Call, patient: str, claims: Sequence[str]) -> set[str]:
    """Return those of some claims that an insurer has answered.

    One may have many answers: those that are known are asked for no more.
    """
    answered = set[str]()
    left, more = list(claims), True
    while left and more:
        asked = [
            ("patient", f"Patient/{patient}"), ("status", "active"), ("outcome:not", "queued"),
            ("request", ",".join(left)),
        ]  # fmt: skip
        answers, more = await _found(call, "ClaimResponse", asked)
        answered |= {
            str(local_target(str((json.parse(row.body).get("request") or {}).get("reference"))))
            for row in answers
        }
        known = len(left)
        left = [name for name in left if name not in answered]
        more = more and len(left) < known
    return answered


def _of(row: Row) -> _Pending:
    tree = json.parse(row.body)
    try:
        amount = Amount.of(tree.get("total"))
    except NoAmount:
        amount = None
    return _Pending(row, amount, tree.get("created"))


async def _found(
    call: Call, resource_type: str, asked: Sequence[tuple[str, str]]
) -> tuple[list[Row], bool]:
    """Search as the caller; whether there are more than are looked at."""
    visible = permitted(call.server, call.auth, "s", resource_type)
    search = parse_search(resource_type, [*asked, ("_count", str(_MOST))], base=call.server.base)
    page = await call.server.reader.search(search, visible)
    return checked(page.rows, visible), page.next is not None


def _patient(call: Call) -> str:
    own = call.auth.patient or call.auth.staff_patient
    given = call.arguments.one("patient")
    if given is None and own is None:
        message = "say whose bills"
        raise Unprocessable(message, expression=parameter("patient"))
    if given is not None and own is not None and given != own:
        message = "this token is for another record"
        raise Forbidden(message, expression=parameter("patient"))
    return str(own or given)


def _patient_of(account: Row) -> str:
    if len(account.facts.owners) != 1:
        message = "this Account is not one patient's"
        raise Unprocessable(message, expression="Account.subject")
    return account.facts.owners[0]
