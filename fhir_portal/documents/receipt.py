"""The receipt of a payment: who paid what to whom, when, for which bill, and by what reference.

It says nothing of what the bill is for, and nothing of the card or account that was charged: that
never comes here. PDF is made with the core fonts; HTML stands alone and takes its text through an
escaping template.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final
from zoneinfo import ZoneInfo

from fpdf import FPDF
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from fhir_portal.accounts.practice import local_time
from fhir_portal.documents.print_letters import ENCODING, POINT, paper_in, written

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
    page = _environment().get_template("receipt.html")
    return page.render(title=TITLE, receipt=receipt).encode()


def as_pdf(receipt: Receipt) -> bytes:
    """Return the receipt as a PDF."""
    pdf = FPDF(format=paper_in(receipt.zone))
    pdf.core_fonts_encoding = ENCODING
    pdf.set_creation_date(datetime.fromtimestamp(receipt.made, ZoneInfo("UTC")))
    pdf.set_lang("en")
    pdf.set_title(TITLE)
    pdf.set_margin(_MARGIN)
    pdf.set_auto_page_break(auto=True, margin=_MARGIN)
    pdf.add_page()
    _line(pdf, receipt.practice, _SIZE)
    _line(pdf, TITLE, _SIZE * 1.6, bold=True)
    for name, value in receipt.lines:
        pdf.ln(_SIZE * 0.15)
        _line(pdf, name, _SIZE * 0.85)
        _line(pdf, value, _SIZE, bold=name == receipt.lines[0][0])
    pdf.ln(_SIZE * 0.4)
    _line(pdf, receipt.foot, _SIZE * 0.85)
    return bytes(pdf.output())


def _line(pdf: FPDF, text: str, size: float, *, bold: bool = False) -> None:
    pdf.set_font("Helvetica", style="B" if bold else "", size=size)
    pdf.multi_cell(0, size * POINT * 1.35, written(text), align="L", new_x="LMARGIN", new_y="NEXT")


@functools.cache
def _environment() -> Environment:
    return Environment(
        loader=FileSystemLoader(Path(__file__).with_name("templates")),
        autoescape=True,
        undefined=StrictUndefined,
    )
