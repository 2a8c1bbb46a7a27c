"""``DocumentReference/[id]/$render``: stored C-CDA as a page, for who may see all of it."""

from __future__ import annotations

from base64 import b64decode, b64encode
from dataclasses import replace
from typing import Any

import pytest

from fhir_portal.documents.ccda.document import as_ccd
from tests.builders import (
    RESTRICTED,
    START,
    WITHHELD,
    Answer,
    Caller,
    Json,
    a_document,
    oneself,
    resource,
)
from tests.charts import a_chart
from tests.operations.charted import aunt, narrowed, record, refused

__all__ = ["aunt", "record"]

pytestmark = pytest.mark.usefixtures("record")

CONTENT = as_ccd(a_chart())
RENDER = "DocumentReference/letter/$render"


def a_letter(
    own_id: str = "letter", *, of: str = "ada", url: str = "Binary/xml", **more: Any
) -> Json:
    attachment = {"contentType": "application/cda+xml; charset=utf-8", "url": url}
    return a_document(own_id, of=of, content=[{"attachment": attachment}], **more)


def a_file(own_id: str = "xml", content: bytes = CONTENT) -> Json:
    data = b64encode(content).decode()
    return resource("Binary", own_id, contentType="application/cda+xml", data=data)


@pytest.fixture(autouse=True)
async def letter(record: object, ehr: Caller) -> None:
    assert record is not None
    await ehr.store(a_file(), a_letter())


def page_of(answer: Answer) -> str:
    assert answer.status == 200, answer.body
    assert answer.json["contentType"] == "text/html; charset=utf-8"
    return b64decode(answer.json["data"]).decode()


async def test_it_is_a_page_for_the_person_a_proxy_staff_and_the_ehr(
    ada: Caller, aunt: Caller, ehr: Caller
) -> None:
    page = page_of(await ada.get(RENDER))
    assert "Eczema" in page
    for caller in (aunt, ehr, narrowed(aunt, "documents")):
        assert page_of(await caller.get(RENDER)) == page


async def test_content_that_the_document_holds_itself_is_read_too(ada: Caller, ehr: Caller) -> None:
    attachment = {"contentType": "text/xml", "data": b64encode(CONTENT).decode()}
    await ehr.put(a_document("letter", content=[{"attachment": attachment}]))
    assert "Eczema" in page_of(await ada.get(RENDER))


@pytest.mark.parametrize("tags", [WITHHELD, RESTRICTED])
async def test_a_labelled_document_is_hidden_whole(aunt: Caller, ehr: Caller, tags: Json) -> None:
    absent = await aunt.get("DocumentReference/nobody/$render")
    await ehr.put(a_letter(meta=tags))
    answer = await aunt.get(RENDER)
    assert answer.status == absent.status == 404
    assert answer.body == absent.body.replace(b"nobody", b"letter")


async def test_a_labelled_binary_hides_what_is_in_it(aunt: Caller, ehr: Caller) -> None:
    await ehr.put(a_file() | {"meta": RESTRICTED})
    assert (await aunt.get(RENDER)).status == 404


async def test_a_document_that_names_the_binary_of_another_shows_nothing_of_it(
    ada: Caller, ehr: Caller
) -> None:
    await ehr.store(a_file("other"), a_letter("theirs", of="bo", url="Binary/other"))
    await ehr.put(a_letter(url="Binary/other"))  # now it is nobody's alone
    assert (await ada.get(RENDER)).status == 404
    assert (await ada.get("DocumentReference/theirs/$render")).status == 404


@pytest.mark.parametrize("lacking", [0, 1, 2, 3, 5])
async def test_it_is_refused_to_whoever_lacks_one_thing(aunt: Caller, lacking: int) -> None:
    auth = refused(aunt.auth, "results", "health-summary")[lacking]
    assert (await Caller(aunt.portal, auth).get(RENDER)).status in {401, 403}


async def test_both_letters_and_a_grant_that_stands_are_needed(ada: Caller, aunt: Caller) -> None:
    for scope in ("patient/DocumentReference.r", "patient/Binary.r"):
        assert (await ada.with_scope(scope).get(RENDER)).status == 403
    assert (
        await ada.with_scope("patient/DocumentReference.r patient/Binary.r").get(RENDER)
    ).status == 200
    assert aunt.auth.record is not None
    ended = replace(aunt.auth, record=replace(aunt.auth.record, until=START))
    assert (await Caller(aunt.portal, ended).get(RENDER)).status == 403
    other = Caller(ada.portal, oneself("bo"))
    assert (await other.get(RENDER)).status == 404


@pytest.mark.parametrize(
    "attachment",
    [
        {"contentType": "application/pdf", "url": "Binary/xml"},
        {"contentType": "application/cda+xml", "url": "https://attacker.example/ccd.xml"},
        {"contentType": "application/cda+xml", "url": "file:///etc/passwd"},
        {"contentType": "application/cda+xml", "url": "Patient/ada"},
        {"contentType": "application/cda+xml", "title": "nothing"},
        {"contentType": "application/cda+xml", "data": b64encode(b"no xml").decode()},
        {
            "contentType": "application/cda+xml",
            "data": b64encode(
                b'<!DOCTYPE x [<!ENTITY x SYSTEM "file:///etc/passwd">]>'
                b'<ClinicalDocument xmlns="urn:hl7-org:v3"><title>&x;</title></ClinicalDocument>'
            ).decode(),
        },
    ],
)
async def test_what_cannot_be_shown_is_refused_by_name(
    ada: Caller, ehr: Caller, attachment: Json
) -> None:
    stored = await ehr.put(a_document("letter", content=[{"attachment": attachment}]))
    if stored.status >= 400:  # refused where it came in already
        return
    answer = await ada.get(RENDER)
    assert answer.status == 422
    assert b"root:" not in answer.body
    assert answer.json["issue"][0]["expression"] == ["DocumentReference.content"]
