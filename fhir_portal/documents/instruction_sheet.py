"""The sheet that goes with an invitation: where to begin, by which codes, until when, whom to call.

It is handed over or posted, so whoever finds it learns of a practice and of somebody's initials:
no name, no birth date, nothing about anybody's health. PDF is made with the core fonts, without a
file of the system; they have the letters of western Europe, and others are written as near as can
be. HTML stands alone: no script, no address of ours but the one to begin at.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from zoneinfo import ZoneInfo

import segno
from fpdf import FPDF
from markupsafe import Markup

from fhir_portal.documents.print_letters import written
from fhir_portal.documents.printed_sheet import begun, line, template

LANGUAGES: Final = ("en", "es")
_MARGIN: Final = 18.0
_NORMAL: Final = 12.0
_LARGE: Final = 18.0
"""Points; what is called large print begins with 18."""


@dataclass(frozen=True, slots=True)
class Words:
    """What a sheet says in one language; ``{…}`` is filled in."""

    title: str
    whom: str
    begin: str
    scan: str
    or_type: str
    then: str
    code: str
    portal_id: str
    word: str
    ask: str
    until: str
    keep: str
    help_at: str
    help_here: str
    days: tuple[str, ...]
    months: tuple[str, ...]
    date: str
    time: str


WORDS: Final = {
    "en": Words(
        title="Your way into the patient portal",
        whom="For: {initials}",
        begin="1.  Open the portal",
        scan="Scan this with the camera of your telephone.",
        or_type="Or type this address into your browser:",
        then="2.  Type what you are asked for",
        code="Security code",
        portal_id="Portal ID",
        word="Activation word",
        ask="The portal also asks for something that is not on this sheet, such as a birth date.",
        until="This sheet is good until {when}, and once.",
        keep=(
            "Keep it like a key until then. Nobody from the practice will ask you for these codes "
            "by telephone, mail or text message."
        ),
        help_at="Questions, or a new sheet: call {practice}.",
        help_here="Questions, or a new sheet: ask at {practice}.",
        days=("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"),
        months=(
            *("January", "February", "March", "April", "May", "June", "July", "August"),
            *("September", "October", "November", "December"),
        ),
        date="{weekday}, {month} {day}, {year}, {time} ({zone})",
        time="%I:%M %p",
    ),
    "es": Words(
        title="Su acceso al portal del paciente",
        whom="Para: {initials}",
        begin="1.  Abra el portal",
        scan="Escanee este código con la cámara de su teléfono.",
        or_type="O escriba esta dirección en su navegador:",
        then="2.  Escriba lo que se le pida",
        code="Código de seguridad",
        portal_id="Número del portal",
        word="Palabra de activación",
        ask="El portal le pedirá también algo que no está en esta hoja, como una fecha de "
        "nacimiento.",
        until="Esta hoja vale hasta el {when}, y una sola vez.",
        keep=(
            "Guárdela hasta entonces como una llave. Nadie del consultorio le pedirá estos códigos "
            "por teléfono, correo o mensaje."
        ),
        help_at="Preguntas, o una hoja nueva: llame a {practice}.",
        help_here="Preguntas, o una hoja nueva: en {practice}.",
        days=("lunes", "martes", "miércoles", "jueves", "viernes", "sábado", "domingo"),
        months=(
            *("enero", "febrero", "marzo", "abril", "mayo", "junio", "julio", "agosto"),
            *("septiembre", "octubre", "noviembre", "diciembre"),
        ),
        date="{weekday} {day} de {month} de {year}, {time} ({zone})",
        time="%H:%M h",
    ),
}
"""By language (BCP 47). A further one is a further entry."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sheet:
    """What is on the sheet. ``portal`` is the address to type, ``link`` what the QR code opens.

    ``expires`` is in seconds since 1970 UTC, ``zone`` the practice's (IANA); ``initials`` may be
    ``""``, and ``phone`` too.
    """

    practice: str
    phone: str
    zone: str
    portal: str
    link: str
    code: str
    portal_id: str
    word: str
    initials: str
    expires: float
    language: str = "en"
    large: bool = False

    @property
    def words(self) -> Words:
        """The words of its language."""
        return WORDS[self.language]

    @property
    def until(self) -> str:
        """Until when, in the practice's own time."""
        words = self.words
        moment = datetime.fromtimestamp(self.expires, ZoneInfo(self.zone))
        when = words.date.format(
            weekday=words.days[moment.weekday()],
            day=moment.day,
            month=words.months[moment.month - 1],
            year=moment.year,
            time=moment.strftime(words.time).removeprefix("0"),
            zone=moment.tzname() or self.zone,
        )
        return words.until.format(when=when)

    @property
    def help(self) -> str:
        """Whom to ask."""
        text = self.words.help_at if self.phone else self.words.help_here
        return text.format(practice=self.practice)

    @property
    def whom(self) -> str:
        """For whom, ``""`` when that is not known."""
        return self.words.whom.format(initials=self.initials) if self.initials else ""


def as_html(sheet: Sheet) -> bytes:
    """Return the sheet as a page to be printed."""
    drawn = io.BytesIO()
    # Error correction M: a fold or a stain on the paper may cover a seventh of it.
    segno.make(sheet.link, error="m").save(drawn, kind="svg", xmldecl=False, svgns=True, scale=4)
    page = template("instruction_sheet.html")
    return page.render(
        sheet=sheet,
        words=sheet.words,
        qr=Markup(drawn.getvalue().decode()),  # noqa: S704 - drawn here, of squares alone
    ).encode()


def as_pdf(sheet: Sheet, *, now: float) -> bytes:
    """Return the sheet as a PDF, made at ``now`` (seconds since 1970 UTC)."""
    size = _LARGE if sheet.large else _NORMAL
    small = size if sheet.large else size * 0.85
    pdf = begun(
        written(sheet.words.title),
        zone=sheet.zone,
        made=now,
        margin=_MARGIN,
        language=sheet.language,
    )
    words = sheet.words
    line(pdf, sheet.practice, size * 0.95)
    line(pdf, words.title, size * 1.6, bold=True)
    if sheet.whom:
        line(pdf, sheet.whom, size)
    pdf.ln(size * 0.35)
    line(pdf, words.begin, size * 1.2, bold=True)
    _begin(pdf, sheet, size)
    pdf.ln(size * 0.35)
    with pdf.unbreakable() as whole:
        line(whole, words.then, size * 1.2, bold=True)
        for name, value in (
            (words.code, sheet.code),
            (words.portal_id, sheet.portal_id),
            (words.word, sheet.word),
        ):
            line(whole, name, small)
            line(whole, value, size * 1.5, bold=True, family="Courier")
            whole.ln(size * 0.12)
        line(whole, words.ask, size)
    pdf.ln(size * 0.35)
    with pdf.unbreakable() as whole:
        line(whole, sheet.until, size, bold=True)
        line(whole, words.keep, size)
        whole.ln(size * 0.25)
        line(whole, sheet.help, size)
        if sheet.phone:
            line(whole, sheet.phone, size * 1.2, bold=True)
    return bytes(pdf.output())


def _begin(pdf: FPDF, sheet: Sheet, size: float) -> None:
    """The QR code and what to do with it; below, on a line of its own, the address to type."""
    code = segno.make(sheet.link, error="m")
    picture = io.BytesIO()
    code.save(picture, kind="png", scale=8, border=4)
    side = 52.0 if sheet.large else 44.0
    top = pdf.get_y() + 1
    pdf.image(picture, x=_MARGIN - 3, y=top, w=side, h=side, alt_text=sheet.words.scan)
    pdf.set_left_margin(_MARGIN + side + 2)
    pdf.set_xy(_MARGIN + side + 2, top + side / 3)
    line(pdf, sheet.words.scan, size)
    pdf.set_left_margin(_MARGIN)
    pdf.set_xy(_MARGIN, max(pdf.get_y(), top + side))
    line(pdf, sheet.words.or_type, size)
    line(pdf, sheet.portal, size * 1.1, bold=True)
