"""The sheet to print: complete in each language and size, on the practice's paper, in its time."""

from __future__ import annotations

import io
from dataclasses import fields, replace

import pytest
from pypdf import PdfReader

from fhir_portal.documents.instruction_sheet import (
    LANGUAGES,
    WORDS,
    Sheet,
    Words,
    as_html,
    as_pdf,
)

SHEET = Sheet(
    practice="Elm Street Dermatology",
    phone="(312) 555-0199",
    zone="America/Chicago",
    portal="https://portal.elm.example/activate",
    link="https://portal.elm.example/activate/" + "a1b2c3d4" * 8,
    code="7KQ4-MX2P-9RTC",
    portal_id="048213",
    word="bulatimoredu",
    initials="A. Q.",
    expires=1_900_259_200.0,
)


def pages(sheet: Sheet) -> PdfReader:
    return PdfReader(io.BytesIO(as_pdf(sheet, now=1.9e9)))


def text_of(sheet: Sheet) -> str:
    return " ".join(" ".join(page.extract_text().split()) for page in pages(sheet).pages)


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("large", [False, True])
def test_everything_is_on_it_in_each_language_and_size(language: str, *, large: bool) -> None:
    sheet = replace(SHEET, language=language, large=large)
    plain, page = text_of(sheet), as_html(sheet).decode()
    for wanted in (sheet.code, sheet.portal_id, sheet.word, sheet.portal, sheet.phone, "A. Q."):
        assert wanted in plain
        assert wanted in page
    for name in ("title", "begin", "scan", "then", "ask", "keep"):
        assert " ".join(getattr(sheet.words, name).split()) in plain
    assert "<svg" in page
    assert sheet.link not in plain  # in the picture alone: nobody reads it over a shoulder
    assert sheet.link not in page


def test_each_language_says_everything() -> None:
    assert set(WORDS) == set(LANGUAGES)
    for words in WORDS.values():
        assert all(getattr(words, one.name) for one in fields(Words))
        assert (len(words.days), len(words.months)) == (7, 12)


def test_the_end_is_told_in_the_practices_time() -> None:
    assert "Wednesday, March 20, 2030, 12:46 PM (CDT)" in SHEET.until
    assert (
        "miércoles 20 de marzo de 2030, 18:46 h (CET)"
        in replace(SHEET, language="es", zone="Europe/Berlin").until
    )


def test_paper_is_that_of_the_place() -> None:
    assert round(float(pages(SHEET).pages[0].mediabox.width)) == 612
    assert round(float(pages(replace(SHEET, zone="Europe/Berlin")).pages[0].mediabox.width)) == 595


def test_a_normal_sheet_is_one_page_and_a_large_one_two_at_most() -> None:
    long = replace(SHEET, practice="Dermatology and Allergy of the Upper River Counties " * 3)
    assert len(pages(long).pages) == 1
    assert len(pages(replace(long, large=True)).pages) == 2


def test_other_letters_are_written_as_near_as_can_be() -> None:
    sheet = replace(SHEET, practice="Łódź — Praxis “Ünal” 皮膚科", initials="Ł. Š.", phone="")
    plain = text_of(sheet)
    assert "Lódz — Praxis “Ünal” ???" in plain
    assert "L. Š." in plain
    assert "Łódź — Praxis" in as_html(sheet).decode()


def test_markup_in_a_name_stays_text() -> None:
    page = as_html(replace(SHEET, practice="<b>Elm</b>", initials="<i>")).decode()
    assert "<b>" not in page
    assert "<i>" not in page


def test_the_same_sheet_is_the_same_bytes() -> None:
    assert as_pdf(SHEET, now=1.9e9) == as_pdf(SHEET, now=1.9e9)
