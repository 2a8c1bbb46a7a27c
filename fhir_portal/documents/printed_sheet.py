"""What every sheet that is printed has: its template as a page, and lines and tables as a PDF."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Final
from zoneinfo import ZoneInfo

from fpdf import FPDF
from fpdf.fonts import FontFace
from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template

from fhir_portal.documents.print_letters import ENCODING, POINT, paper_in, written

_HEAD: Final = (226, 236, 240)


def template(name: str) -> Template:
    """Return the template of a page, by the name of its file."""
    return _environment().get_template(name)


def begun(title: str, *, zone: str, made: float, margin: float, language: str = "en") -> FPDF:
    """Begin a PDF on the paper that is used in a time zone.

    ``made`` is when, in seconds since 1970 UTC; ``margin`` in millimetres.
    """
    pdf = FPDF(format=paper_in(zone))
    pdf.core_fonts_encoding = ENCODING
    pdf.set_creation_date(datetime.fromtimestamp(made, ZoneInfo("UTC")))
    pdf.set_lang(language)
    pdf.set_title(title)
    pdf.set_margin(margin)
    pdf.set_auto_page_break(auto=True, margin=margin)
    pdf.add_page()
    return pdf


def line(
    pdf: Any, text: str, size: float, *, bold: bool = False, family: str = "Helvetica"
) -> None:
    """Write a paragraph; ``size`` is that of its letters in points."""
    pdf.set_font(family, style="B" if bold else "", size=size)
    pdf.multi_cell(0, size * POINT * 1.35, written(text), align="L", new_x="LMARGIN", new_y="NEXT")


def table(
    pdf: FPDF,
    columns: Sequence[str],
    rows: Iterable[Iterable[str]],
    *,
    widths: Sequence[float],
    size: float,
) -> None:
    """Write a table; ``widths`` are shares of the width of the paper."""
    pdf.set_font("Helvetica", size=size)
    with pdf.table(
        headings_style=FontFace(emphasis="BOLD", fill_color=_HEAD),
        line_height=size * POINT * 1.45,
        text_align="LEFT",
        borders_layout="HORIZONTAL_LINES",
        padding=0.8,
        col_widths=tuple(widths),
    ) as made:
        for row in ([*columns], *rows):
            made.row([written(one) for one in row])


@functools.cache
def _environment() -> Environment:
    return Environment(
        loader=FileSystemLoader(Path(__file__).with_name("templates")),
        autoescape=True,
        undefined=StrictUndefined,
    )
