"""SMART Health Cards on paper: their QR codes, and beside each what can be read in it.

The page stands alone and takes all its text through an escaping template; the PDF has the core
fonts. A code is 60 mm wide: what is scanned at 40 mm has room for a fold or a bad printer.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import segno
from fpdf import FPDF
from markupsafe import Markup

from fhir_portal.accounts.practice import local_time
from fhir_portal.documents.printed_sheet import begun, line, template

TITLE: Final = "Signed vaccine card"
READABLE: Final = (
    "The code is not secret: an app that scans it reads name, birth date and the vaccines beside "
    "it. Show it only to whom you would show this page."
)
USE: Final = (
    "An app that reads SMART Health Cards can check that the practice signed this and that nothing "
    "was changed since."
)
TOO_LONG: Final = "This one is too long for a code: it is in the file that can be downloaded."
_MARGIN: Final = 16.0
_SIZE: Final = 10.0
_SIDE: Final = 60.0
_LARGEST: Final = 22
"""QR version up to which a code can be scanned at 40 mm."""


@dataclass(frozen=True, slots=True)
class PrintedCard:
    """One card: the segments of its code (``None`` if it has none), and vaccines with days."""

    code: tuple[str, str] | None
    doses: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class CardSheet:
    """What is printed. ``made`` is in seconds since 1970 UTC, ``zone`` the practice's (IANA)."""

    practice: str
    zone: str
    made: float
    name: str
    born: str
    cards: Sequence[PrintedCard]

    @property
    def origin(self) -> str:
        """Who signed it, and when."""
        return f"Signed by {self.practice} on {local_time(self.zone, self.made)}."

    @property
    def whose(self) -> tuple[tuple[str, str], ...]:
        """Whose card it is."""
        known = (("Name", self.name), ("Born", self.born))
        return tuple((name, value) for name, value in known if value)

    def heading(self, number: int) -> str:
        """What a card is called among several."""
        return f"Card {number} of {len(self.cards)}"


def as_html(sheet: CardSheet) -> bytes:
    """Return it as a page to print."""
    codes = [
        None
        if one.code is None
        else Markup(  # noqa: S704 - drawn here, of squares alone
            drawn(one.code).svg_inline(border=4, dark="#000", light="#fff", omitsize=True)
        )
        for one in sheet.cards
    ]
    page = template("health_card.html")
    return page.render(
        title=TITLE, sheet=sheet, codes=codes, readable=READABLE, use=USE, too_long=TOO_LONG
    ).encode()


def as_pdf(sheet: CardSheet) -> bytes:
    """Return it as a PDF."""
    pdf = begun(TITLE, zone=sheet.zone, made=sheet.made, margin=_MARGIN)
    line(pdf, sheet.practice, _SIZE)
    line(pdf, TITLE, _SIZE * 1.8, bold=True)
    for name, value in sheet.whose:
        line(pdf, f"{name}: {value}", _SIZE * 1.1)
    for text in (sheet.origin, USE, READABLE):
        line(pdf, text, _SIZE)
    for number, card in enumerate(sheet.cards, start=1):
        pdf.ln(_SIZE * 0.5)
        if pdf.will_page_break(_SIDE):
            pdf.add_page()
        if len(sheet.cards) > 1:
            line(pdf, sheet.heading(number), _SIZE * 1.2, bold=True)
        if card.code is None:
            line(pdf, TOO_LONG, _SIZE)
        else:
            _code(pdf, card.code, sheet.heading(number))
        for vaccine, day in card.doses:
            line(pdf, f"{vaccine}: {day}", _SIZE)
    return bytes(pdf.output())


def _code(pdf: FPDF, code: tuple[str, str], said: str) -> None:
    picture = io.BytesIO()
    drawn(code).save(picture, kind="png", scale=6, border=4)
    top = pdf.get_y() + 1
    pdf.image(picture, x=_MARGIN, y=top, w=_SIDE, h=_SIDE, alt_text=f"QR code: {said}")
    pdf.set_y(top + _SIDE + 1)


def drawn(code: tuple[str, str]) -> segno.QRCode:
    """Bytes, then digits (SMART Health Cards and Links 1.0.0, "Encoding QRs")."""
    # segno takes segments, which its types do not say
    made = segno.make(code, error="l", micro=False, boost_error=False)  # type: ignore[arg-type]
    if int(made.version) > _LARGEST:
        raise ValueError("a card of this length has no code")
    return made
