"""``PaymentNotice/[id]/$receipt``: a payment as a document to keep or print.

It is made when it is asked for: whoever sees the payment gets it, by the section and the labels of
the payment, and it says what is stored now. A stored copy would stand among the documents, which
are another section, and would stay as it was when a payment is taken back.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, Final

from fhir_portal.access.owners import local_target, references_at
from fhir_portal.access.relation import name_of
from fhir_portal.access.visibility import Visibility
from fhir_portal.accounts.practice import Practice
from fhir_portal.billing.amount import Amount, NoAmount
from fhir_portal.documents.receipt import Receipt, as_html, as_pdf
from fhir_portal.fhir import json
from fhir_portal.fhir.errors import Unprocessable
from fhir_portal.fhir.interaction import FhirResponse
from fhir_portal.fhir.reference import ResourceKey
from fhir_portal.operations.call import Call
from fhir_portal.operations.definition import parameter
from fhir_portal.resources.interactions.read import unknown
from fhir_portal.resources.permission import checked, permitted
from fhir_portal.resources.store import Row
from fhir_portal.search.registry import parameters_for

PDF: Final = "pdf"
RENDERED: Final = {
    PDF: ("application/pdf", as_pdf),
    "html": ("text/html; charset=utf-8", as_html),
}
_OTHER: Final = "somebody else who may pay for this patient"
_MOST: Final = 20
_DAY_SIGNS: Final = 10


async def receipt(call: Call) -> FhirResponse:
    """Return the receipt as a Binary that is stored nowhere.

    Raises:
        NotFound: the payment or its bill is absent, or hidden; the same words.
        Unprocessable: the payment was taken back, or is of nothing that can be told.
    """
    form = call.arguments.one("format") or PDF
    if form not in RENDERED:
        message = f"format is one of {', '.join(RENDERED)}"
        raise Unprocessable(message, expression=parameter("format"))
    row = await call.target(call.server.reader)
    tree = json.parse(row.body)
    if tree.get("status") != "active":
        message = "this payment was taken back: there is no receipt of it"
        raise Unprocessable(message, expression="PaymentNotice.status")
    bill = await _bill(call, tree)
    if len(row.facts.owners) != 1:
        message = "this payment is of no single patient's bill"
        raise Unprocessable(message, expression="PaymentNotice.request")
    told = await _told(call, row, tree, json.parse(bill.body))
    media, render = RENDERED[form]
    content = await asyncio.to_thread(render, told)
    return call.binary(media, content, row, bill)


async def _bill(call: Call, tree: Mapping[str, Any]) -> Row:
    key = next(filter(None, map(local_target, references_at(tree, "request"))), None)
    if key is None or key.type != "Invoice":
        message = "this payment is of no bill that is here"
        raise Unprocessable(message, expression="PaymentNotice.request")
    visible = permitted(call.server, call.auth, "r", "Invoice")
    found = await call.server.reader.read(key, visible)
    if found is None or found.deleted:
        raise unknown(key)
    checked([found], visible)
    return found


async def _told(call: Call, row: Row, tree: Mapping[str, Any], bill: Mapping[str, Any]) -> Receipt:
    try:
        amount = Amount.of(tree.get("amount"))
    except NoAmount as error:
        message = f"there is no receipt of this payment: {error}"
        raise Unprocessable(message, expression="PaymentNotice.amount") from None
    practice = await call.server.store.get(Practice, row.facts.practice)
    named = next((one["value"] for one in bill.get("identifier") or () if "value" in one), None)
    payment = tree.get("payment") or {}
    reference = str(payment.get("reference") or payment.get("display") or "")
    return Receipt(
        practice=practice.name if practice is not None else "",
        phone=(practice.phone or "") if practice is not None else "",
        zone=practice.zone if practice is not None else "UTC",
        number=row.key.id,
        amount=str(amount),
        day=str(tree.get("paymentDate") or tree.get("created") or "")[:_DAY_SIGNS],
        paid_by=await _payer(call, row),
        patient=await _name(call, row, f"Patient/{row.facts.owners[0]}"),
        bill=str(named or bill["id"]),
        billed=str(bill.get("date") or "")[:_DAY_SIGNS],
        reference=reference.rpartition("/")[2],
        made=call.server.clock(),
    )


async def _payer(call: Call, row: Row) -> str:
    """Return the name of who paid here; of others a proxy learns no more than that.

    Who pays for a patient is for the patient and the practice, not for everybody who may pay.
    """
    found = await call.server.reader.referring(
        parameters_for("Provenance")["target"],
        [row.key],
        Visibility.of_server("Provenance", practice=row.facts.practice),
        limit=_MOST,
    )
    for one in found:
        for text in references_at(json.parse(one.body), "agent.who"):
            key = local_target(text)
            if key is None or key.type not in {"Patient", "RelatedPerson"}:
                continue
            auth = call.auth
            if (
                auth.record is None
                or auth.is_self
                or str(key) in {auth.fhir_user, auth.record.patient}
            ):
                return await _name(call, row, str(key))
            return _OTHER
    return ""


async def _name(call: Call, row: Row, reference: str) -> str:
    key = ResourceKey.parse(reference)
    visible = Visibility.of_server(key.type, practice=row.facts.practice)
    found = await call.server.reader.read(key, visible)
    return "" if found is None or found.deleted else name_of(json.parse(found.body))
