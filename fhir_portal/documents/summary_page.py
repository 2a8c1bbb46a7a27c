"""A patient summary to read: a page, and a PDF to keep or print.

Nothing in either is active: no script, form, link or picture. The page stands alone and takes all
its text through an escaping template; the PDF has the core fonts and nothing but text.
"""

from __future__ import annotations

import functools
from datetime import datetime
from pathlib import Path
from typing import Final
from zoneinfo import ZoneInfo

from fpdf import FPDF
from fpdf.fonts import FontFace
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from fhir_portal.accounts.practice import local_time
from fhir_portal.documents.chart import NOTHING
from fhir_portal.documents.print_letters import ENCODING, POINT, paper_in, written
from fhir_portal.documents.summary import TITLE, Section, Summary
from fhir_portal.documents.wording import day

ABOUT: Final = (
    "What this practice has on file and this reader may see. It may not be complete: "
    "ask the practice before you rely on it."
)
_MARGIN: Final = 16.0
_SIZE: Final = 10.0
_HEAD: Final = (226, 236, 240)


def as_html(summary: Summary) -> bytes:
    """Return the summary as a page."""
    return (
        _environment()
        .get_template("summary.html")
        .render(
            title=TITLE, about=ABOUT, nothing=NOTHING,
            facts=_facts(summary), sections=summary.sections, made=_made(summary),
        )
        .encode()
    )  # fmt: skip


def as_pdf(summary: Summary) -> bytes:
    """Return the summary as a PDF."""
    chart = summary.chart
    pdf = FPDF(format=paper_in(chart.zone))
    pdf.core_fonts_encoding = ENCODING
    pdf.set_creation_date(datetime.fromtimestamp(chart.made, ZoneInfo("UTC")))
    pdf.set_lang("en")
    pdf.set_title(TITLE)
    pdf.set_margin(_MARGIN)
    pdf.set_auto_page_break(auto=True, margin=_MARGIN)
    pdf.add_page()
    _line(pdf, chart.practice, _SIZE)
    _line(pdf, TITLE, _SIZE * 1.8, bold=True)
    for name, value in _facts(summary):
        _line(pdf, f"{name}: {value}", _SIZE * 1.1)
    _line(pdf, _made(summary), _SIZE)
    _line(pdf, ABOUT, _SIZE)
    for section in summary.sections:
        _section(pdf, section)
    return bytes(pdf.output())


def _section(pdf: FPDF, section: Section) -> None:
    pdf.ln(_SIZE * 0.4)
    if pdf.will_page_break(_SIZE * POINT * 6):  # no heading alone at the foot of a page
        pdf.add_page()
    _line(pdf, section.part.title, _SIZE * 1.3, bold=True)
    if not section.items:
        _line(pdf, NOTHING, _SIZE)
        return
    pdf.set_font("Helvetica", size=_SIZE)
    style = FontFace(emphasis="BOLD", fill_color=_HEAD)
    with pdf.table(
        headings_style=style,
        line_height=_SIZE * POINT * 1.45,
        text_align="LEFT",
        borders_layout="HORIZONTAL_LINES",
        padding=0.8,
        col_widths=(2, *(1 for _ in section.part.columns[1:])),
    ) as table:
        table.row([written(one) for one in section.part.columns])
        for item in section.items:
            table.row([written(one) for one in item.cells])


def _line(pdf: FPDF, text: str, size: float, *, bold: bool = False) -> None:
    pdf.set_font("Helvetica", style="B" if bold else "", size=size)
    pdf.multi_cell(0, size * POINT * 1.35, written(text), align="L", new_x="LMARGIN", new_y="NEXT")


def _facts(summary: Summary) -> list[tuple[str, str]]:
    """Who it is about, as far as the reader may see that."""
    patient = summary.chart.patient
    found = (
        ("Name", summary.chart.name),
        ("Born", day(patient.get("birthDate"))),
        ("Sex on file", str(patient.get("gender") or "")),
    )
    return [(name, value) for name, value in found if value]


def _made(summary: Summary) -> str:
    chart = summary.chart
    return f"Made by {chart.practice} on {local_time(chart.zone, chart.made)}."


@functools.cache
def _environment() -> Environment:
    return Environment(
        loader=FileSystemLoader(Path(__file__).with_name("templates")),
        autoescape=True,
        undefined=StrictUndefined,
    )
