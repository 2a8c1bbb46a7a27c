"""The receipt of a payment: who paid what to whom, when, for which bill, and by what reference.

It says nothing of what the bill is for, and nothing of the card or account that was charged: that
never comes here. PDF is made with the core fonts; HTML stands alone and takes its text through an
escaping template.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from fhir_portal.accounts.practice import local_time
from fhir_portal.documents.printed_sheet import begun, line, template

TITLE: Final = "Receipt"
_MARGIN: Final = 18.0
_SIZE: Final = 12.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """What is on it. ``paid_by`` may be ``""``; ``made`` is in seconds since 1970 UTC."""

    practice: str
    phone: str
    zone: str
    number: str
    amount: str
    day: str
    paid_by: str
    patient: str
    bill: str
    billed: str
    reference: str
    made: float

    @property
    def lines(self) -> list[tuple[str, str]]:
        """Names and values, in their order; what is not known is left out."""
        found = (
            ("Amount paid", self.amount),
            ("Paid on", self.day),
            ("Paid by", self.paid_by),
            ("Paid to", self.practice),
            ("For the bill", self.bill),
            ("Bill of", self.billed),
            ("Patient", self.patient),
            ("Receipt number", self.number),
            ("Payment reference", self.reference),
        )
        return [(name, value) for name, value in found if value]

    @property
    def foot(self) -> str:
        """When it was made, and whom to ask."""
        made = f"Made on {local_time(self.zone, self.made)}."
        return f"{made} Questions: call {self.phone}." if self.phone else made


def as_html(receipt: Receipt) -> bytes:
    """Return the receipt as a page to be printed."""
    page = template("receipt.html")
    return page.render(title=TITLE, receipt=receipt).encode()


def as_pdf(receipt: Receipt) -> bytes:
    """Return the receipt as a PDF."""
    pdf = begun(TITLE, zone=receipt.zone, made=receipt.made, margin=_MARGIN)
    line(pdf, receipt.practice, _SIZE)
    line(pdf, TITLE, _SIZE * 1.6, bold=True)
    for name, value in receipt.lines:
        pdf.ln(_SIZE * 0.15)
        line(pdf, name, _SIZE * 0.85)
        line(pdf, value, _SIZE, bold=name == receipt.lines[0][0])
    pdf.ln(_SIZE * 0.4)
    line(pdf, receipt.foot, _SIZE * 0.85)
    return bytes(pdf.output())
