"""A patient summary to read: a page, and a PDF to keep or print.

Nothing in either is active: no script, form, link or picture. The page stands alone and takes all
its text through an escaping template; the PDF has the core fonts and nothing but text.
"""

from __future__ import annotations

from typing import Final

from fpdf import FPDF

from fhir_portal.accounts.practice import local_time
from fhir_portal.documents.chart import NOTHING
from fhir_portal.documents.print_letters import POINT
from fhir_portal.documents.printed_sheet import begun, line, table, template
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
        template("summary.html")
        .render(
            title=TITLE, about=ABOUT, nothing=NOTHING,
            facts=_facts(summary), sections=summary.sections, made=_made(summary),
        )
        .encode()
    )  # fmt: skip


def as_pdf(summary: Summary) -> bytes:
    """Return the summary as a PDF."""
    chart = summary.chart
    pdf = begun(TITLE, zone=chart.zone, made=chart.made, margin=_MARGIN)
    line(pdf, chart.practice, _SIZE)
    line(pdf, TITLE, _SIZE * 1.8, bold=True)
    for name, value in _facts(summary):
        line(pdf, f"{name}: {value}", _SIZE * 1.1)
    line(pdf, _made(summary), _SIZE)
    line(pdf, ABOUT, _SIZE)
    for section in summary.sections:
        _section(pdf, section)
    return bytes(pdf.output())


def _section(pdf: FPDF, section: Section) -> None:
    pdf.ln(_SIZE * 0.4)
    if pdf.will_page_break(_SIZE * POINT * 6):  # no heading alone at the foot of a page
        pdf.add_page()
    line(pdf, section.part.title, _SIZE * 1.3, bold=True)
    if not section.items:
        line(pdf, NOTHING, _SIZE)
        return
    columns = section.part.columns
    widths = (2, *(1 for _ in columns[1:]))
    table(pdf, columns, [item.cells for item in section.items], widths=widths, size=_SIZE)


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
