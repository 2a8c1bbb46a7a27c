"""The summary to read: everything of the document is on the page and on paper, and nothing acts."""

from __future__ import annotations

import io

import pytest
from lxml import html
from pypdf import PdfReader

from fhir_portal.documents.chart import NOTHING
from fhir_portal.documents.summary import summary_of
from fhir_portal.documents.summary_page import as_html, as_pdf
from tests.builders import a_condition, a_patient
from tests.charts import a_chart, an_allergy

EVIL = "<script>alert(1)</script><img src=x onerror=alert(1)> javascript:x {{ 7*7 }}"


def words(pdf: bytes) -> str:
    return " ".join(
        " ".join(page.extract_text().split()) for page in PdfReader(io.BytesIO(pdf)).pages
    )


def text_of(content: bytes) -> str:
    return "".join(map(str, html.fromstring(content).itertext()))


@pytest.mark.parametrize("render", [as_html, as_pdf])
def test_every_cell_of_every_section_is_on_it(render) -> None:
    summary = summary_of(a_chart())
    content = render(summary)
    shown = words(content) if render is as_pdf else text_of(content)
    for section in summary.sections:
        assert section.part.title in shown
        for item in section.items:
            for cell in item.cells:
                assert all(word in shown for word in cell.split()), cell


def test_a_section_without_anything_says_one_sentence_whatever_the_reason() -> None:
    summary = summary_of(a_chart(an_allergy()))
    assert as_html(summary).decode().count(NOTHING) == 2
    assert words(as_pdf(summary)).count(NOTHING) == 2


def test_what_somebody_wrote_is_text_on_the_page() -> None:
    patient = a_patient(family=EVIL)
    content = as_html(summary_of(a_chart(a_condition("c", code="1") | {"code": {"text": EVIL}},
                                         patient=patient)))  # fmt: skip
    page = html.fromstring(content)
    assert page.xpath("//script | //img | //form | //iframe | //object | //a | //link") == []
    assert not [name for one in page.iter() for name in one.attrib if str(name).startswith("on")]
    assert EVIL in " ".join(text_of(content).split())


def test_a_pdf_holds_nothing_active_and_is_the_same_each_time() -> None:
    summary = summary_of(a_chart())
    content = as_pdf(summary)
    for name in (b"/JavaScript", b"/JS", b"/AA", b"/Launch", b"/URI", b"/EmbeddedFile"):
        assert name not in content
    opens = PdfReader(io.BytesIO(content)).root_object["/OpenAction"]
    assert isinstance(opens, list)  # where to begin, which is no action
    assert as_pdf(summary) == content


def test_letters_that_the_fonts_do_not_have_become_the_nearest() -> None:
    shown = words(as_pdf(summary_of(a_chart(patient=a_patient(family="Łódźka 李")))))
    assert "Lódzka ?" in shown


def test_a_long_record_goes_over_many_pages() -> None:
    trees = [a_condition(f"c{n}") | {"code": {"text": "word " * 60}} for n in range(120)]
    assert len(PdfReader(io.BytesIO(as_pdf(summary_of(a_chart(*trees))))).pages) > 5


def test_without_personal_details_there_are_none_on_it() -> None:
    bare = {"resourceType": "Patient", "id": "ada"}
    content = as_html(summary_of(a_chart(patient=bare))).decode()
    assert "Name" not in content
    assert "Born" not in content
