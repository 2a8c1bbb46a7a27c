"""fhir/reference.py: the forms of a reference, and where references and attachments stand."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fhir_portal.fhir.errors import Invalid
from fhir_portal.fhir.reference import (
    ID,
    Reference,
    ResourceKey,
    attachments_in,
    is_id,
    references_in,
)

UUID = "urn:uuid:c757873d-ec9a-4326-a141-556f43239520"


@pytest.mark.parametrize(
    ("text", "reference"),
    [
        ("Patient/7", Reference("Patient", "7")),
        ("Patient/7/_history/2", Reference("Patient", "7", "2")),
        (
            "https://ehr.example/fhir/Patient/7",
            Reference("Patient", "7", url="https://ehr.example/fhir/Patient/7"),
        ),
        (
            "http://ehr.example/Patient/7/_history/2",
            Reference("Patient", "7", "2", url="http://ehr.example/Patient/7/_history/2"),
        ),
        ("https://ehr.example/x?y=z", Reference(url="https://ehr.example/x?y=z")),
        (UUID, Reference(url=UUID)),
        ("urn:oid:1.2.3", Reference(url="urn:oid:1.2.3")),
        ("#p1", Reference(contained="p1")),
        ("#", Reference(contained="")),
        ("Patient?identifier=a|b", Reference("Patient", query="identifier=a|b")),
    ],
)
def test_the_forms_of_a_reference(text, reference):
    assert Reference.parse(text) == reference
    assert str(reference) == text


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            "Patient",
            "Patient/",
            "/Patient/7",
            "Patient/a b",
            "Patient/" + "a" * 65,
            "patient/7",
        ),
        *("Patient/7/", "Patient/7/_history", "Patient/7/_history/", "Patient/7#x", "../Patient/7"),
        *("urn:uuid:7", "urn:oid:x", "http://", "https:///x", "#a b", "javascript:alert(1)"),
        *("Patient?", "Patient/7\n", "http://x/a b", "ftp://x/Patient/7", "Patient_/7"),
    ],
)
def test_what_is_no_reference(text):
    with pytest.raises(Invalid):
        Reference.parse(text)


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("Patient/7", ResourceKey("Patient", "7")),
        ("Patient/7/_history/2", ResourceKey("Patient", "7")),
        ("https://ehr.example/fhir/Patient/7", None),
        (UUID, None),
        ("#p1", None),
        ("Patient?identifier=x", None),
    ],
)
def test_only_a_relative_reference_is_to_a_resource_here(text, key):
    assert Reference.parse(text).key == key


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("https://ehr.example/fhir/Patient/7", "Patient/7"),
        ("https://ehr.example/fhir/Patient/7/_history/2", "Patient/7/_history/2"),
        ("https://ehr.example/fhir/a/Patient/7", "https://ehr.example/fhir/a/Patient/7"),
        ("https://ehr.example/fhirPatient/7", "https://ehr.example/fhirPatient/7"),
        ("https://other.example/fhir/Patient/7", "https://other.example/fhir/Patient/7"),
        ("Patient/7", "Patient/7"),
        (UUID, UUID),
    ],
)
@pytest.mark.parametrize("slash", ["", "/"])
def test_an_absolute_reference_to_a_resource_under_the_base_is_relative(text, seen, slash):
    assert str(Reference.parse(text).seen_from(f"https://ehr.example/fhir{slash}")) == seen


def test_a_key_is_written_type_slash_id():
    assert str(ResourceKey("Patient", "7")) == "Patient/7"
    assert ResourceKey.parse("Patient/7") == ResourceKey("Patient", "7")
    with pytest.raises(Invalid):
        ResourceKey.parse("Patient/7/_history/1")


@pytest.mark.parametrize(
    ("text", "true"),
    [
        *(("a", True), ("A-1.b", True), ("a" * 64, True)),
        *(("a" * 65, False), ("", False), ("a_b", False), ("a\n", False), ("é", False)),
    ],
)
def test_ids(text, true):
    assert is_id(text) is true


ids = st.from_regex(ID, fullmatch=True)
references = st.one_of(
    st.builds(
        lambda id_, v: f"Patient/{id_}" + (f"/_history/{v}" if v else ""), ids, st.none() | ids
    ),
    st.builds(lambda id_: f"https://ehr.example/fhir/Task/{id_}", ids),
    ids.map(lambda id_: f"#{id_}"),
    st.uuids().map(lambda uuid: f"urn:uuid:{uuid}"),
)


@given(references | st.text(max_size=20))
def test_a_reference_is_written_as_it_was_read(text):
    try:
        reference = Reference.parse(text)
    except Invalid:
        return
    assert str(reference) == text


TREE = {
    "resourceType": "Observation",
    "contained": [{"resourceType": "Device", "id": "d", "owner": {"reference": "Organization/o"}}],
    "extension": [{"url": "http://e", "valueReference": {"reference": "Patient/e"}}],
    "subject": {"reference": "Patient/p", "_reference": {"id": "x"}},
    "focus": [{"display": "none"}, {"reference": "#d"}],
    "note": [{"text": "reference"}],
    "device": {"identifier": {"assigner": {"reference": "Organization/i"}}},
}


def test_every_reference_is_found_where_it_stands():
    assert {path: holder["reference"] for path, holder in references_in(TREE)} == {
        "Observation.contained[0].owner": "Organization/o",
        "Observation.extension[0].valueReference": "Patient/e",
        "Observation.subject": "Patient/p",
        "Observation.focus[1]": "#d",
        "Observation.device.identifier.assigner": "Organization/i",
    }


def test_references_come_in_the_order_of_the_document():
    found = [holder["reference"] for _, holder in references_in(TREE)]
    assert found == ["Organization/o", "Patient/e", "Patient/p", "#d", "Organization/i"]


def test_a_reference_found_can_be_changed_in_place():
    tree = {"resourceType": "Task", "for": {"reference": UUID}}
    for _, holder in references_in(tree):
        holder["reference"] = "Patient/1"
    assert tree["for"] == {"reference": "Patient/1"}


def test_an_element_called_reference_is_not_itself_one():
    tree = {
        "resourceType": "Consent",
        "provision": {"data": [{"meaning": "related", "reference": {"reference": "Task/1"}}]},
    }
    assert [path for path, _ in references_in(tree)] == ["Consent.provision.data[0].reference"]


def test_attachments_are_told_from_what_else_has_a_url():
    tree = {
        "resourceType": "DocumentReference",
        "extension": [
            {"url": "http://e"},
            {"url": "http://e", "extension": [{"url": "http://f"}]},
            {"url": "http://e", "valueAttachment": {"url": "Binary/e"}},
        ],
        "content": [
            {"attachment": {"contentType": "text/plain", "url": "Binary/1", "_title": {"id": "x"}}},
            {"attachment": {"url": "https://ehr.example/fhir/Binary/2"}},
            {"attachment": {"contentType": "text/plain", "data": "aGk="}},
        ],
        "link": [{"relation": "self", "url": "Binary/no"}],
        "request": {"method": "GET", "url": "Binary/no"},
    }
    assert {path: holder["url"] for path, holder in attachments_in(tree)} == {
        "DocumentReference.extension[2].valueAttachment": "Binary/e",
        "DocumentReference.content[0].attachment": "Binary/1",
        "DocumentReference.content[1].attachment": "https://ehr.example/fhir/Binary/2",
    }


def test_a_resource_with_a_url_of_its_own_is_no_attachment():
    assert list(attachments_in({"resourceType": "Library", "url": "http://example.org/l"})) == []
