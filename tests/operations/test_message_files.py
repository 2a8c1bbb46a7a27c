"""Files that come with a message: bounded, stripped, of the same record, seen with the message."""

from __future__ import annotations

import base64
import threading
from dataclasses import replace
from typing import Any

import pytest

from fhir_portal.documents.malware_scan import Infected, ScanUnavailable
from fhir_portal.documents.upload import Taken, take
from fhir_portal.embedded.store import EmbeddedStore
from fhir_portal.operations import attachments
from fhir_portal.operations.attachments import MOST_FILES, THUMBNAIL
from fhir_portal.portal import Portal
from fhir_portal.resources.communication import AN_HOUR
from tests.builders import Caller, Clock, a_proxy, oneself
from tests.documents.pictures import SECRET, a_pdf, a_picture
from tests.operations.messages import a_file, a_thread, out, read, replied, sent, thread_of
from tests.operations.messages import messages as listed
from tests.staff import a_member_of_staff

PHOTO = a_picture("JPEG")


@pytest.fixture
def ada(family: EmbeddedStore, portal: Portal) -> Caller:
    assert family is not None
    return Caller(portal, oneself("ada"))


async def attached(caller: Caller, thread: str) -> list[dict[str, Any]]:
    (message,) = listed(await read(caller, thread))
    return [one["contentAttachment"] for one in message["payload"][1:]]


@pytest.mark.requirement("portal", "S2-28")
async def test_pictures_are_sent_without_their_place_and_seen_small_and_large(
    ada: Caller, portal: Portal
) -> None:
    kinds = (("JPEG", "image/jpeg"), ("PNG", "image/png"), ("HEIF", "image/heic"))
    files = [a_file(a_picture(form), kind, f"{form}.x") for form, kind in kinds]
    files += [a_file(a_pdf(), "application/pdf", "letter.pdf"), a_file(b"note", "text/plain")]
    thread = thread_of(await sent(ada, files=files))
    found = await attached(ada, thread)
    assert [one["contentType"] for one in found] == [
        *("image/jpeg", "image/png", "image/jpeg", "application/pdf", "text/plain"),
    ]
    assert [one["title"] for one in found][:2] == ["JPEG.x", "PNG.x"]
    staff = Caller(portal, a_member_of_staff(permissions=("view", "messages")))
    for one in found:
        for caller in (ada, staff):
            binary = await caller.get(one["url"])
            assert binary.status == 200
            content = base64.b64decode(binary.json["data"])
            assert len(content) == one["size"]
            assert SECRET not in content
    (small,) = found[0]["extension"]
    assert small["url"] == THUMBNAIL
    assert (await ada.get(small["valueAttachment"]["url"])).status == 200


async def test_who_answers_sees_the_files_of_messages_and_nothing_else_of_the_record(
    ada: Caller, portal: Portal
) -> None:
    files = [a_file(PHOTO, "image/jpeg"), a_file(b"note", "text/plain")]
    begun = await sent(ada, files=files)
    message = out(begun, "message")["reference"]
    (photo, _) = await attached(ada, thread_of(begun))
    desk = Caller(portal, a_member_of_staff(permissions=("messages",)))
    assert (await desk.get(photo["url"])).status == 403
    shown = await desk.get(f"{message}/$attachment?number=1")
    assert base64.b64decode(shown.json["data"])[:3] == b"\xff\xd8\xff"
    small = await desk.get(f"{message}/$attachment?number=1&small=true")
    assert 0 < len(small.json["data"]) < len(shown.json["data"])
    for nothing in ("number=0", "number=3", "number=2&small=true"):
        assert (await desk.get(f"{message}/$attachment?{nothing}")).status == 404
    thread = thread_of(begun)
    assert (await desk.get(f"{thread}/$attachment?number=1")).status == 404
    kit = Caller(portal, oneself("kit"))
    assert (await kit.get(f"{message}/$attachment?number=1")).status == 404


async def test_files_belong_to_the_record_and_carry_the_labels_of_their_thread(
    family: EmbeddedStore, portal: Portal, ada: Caller, ehr: Caller
) -> None:
    assert family is not None
    kit = Caller(portal, oneself("kit"))
    mother = Caller(portal, a_proxy(sections=("messages",), act=("messages",)))
    shown = (await attached(kit, thread_of(await sent(kit, files=[a_file(PHOTO, "image/jpeg")]))))[
        0
    ]
    kept = thread_of(await sent(kit, files=[a_file(PHOTO, "image/jpeg")], confidential=True))
    hidden = (await attached(kit, kept))[0]
    thumbnail = hidden["extension"][0]["valueAttachment"]
    assert (await mother.get(shown["url"])).status == 200
    for one in (hidden, thumbnail):
        assert (await kit.get(one["url"])).status == 200
        assert (await mother.get(one["url"])).status == 404
        assert (await ada.get(one["url"])).status == 404
    no_section = Caller(portal, a_proxy(sections=("results",)))
    assert (await no_section.get(shown["url"])).status == 404
    assert (await ehr.get(shown["url"])).status == 200


@pytest.mark.parametrize(
    ("content", "declared", "status"),
    [
        (a_picture("PNG"), "image/jpeg", 422),
        (b"<svg onload=alert(1)>", "image/svg+xml", 422),
        (b"<html><script>alert(1)</script>", "text/html", 422),
        (b"<html>", "text/plain", 422),
        (b"x" * (5 * 1024 * 1024 + 1), "text/plain", 413),
    ],
)
async def test_a_file_that_is_not_taken_stops_the_whole_message(
    ada: Caller, ehr: Caller, content: bytes, declared: str, status: int
) -> None:
    files = [a_file(PHOTO, "image/jpeg"), a_file(content, declared)]
    answer = await sent(ada, files=files)
    assert answer.status == status
    assert "file 2" in answer.words[0]
    assert (await ehr.get("Communication")).entries == []
    assert (await ehr.get("Binary")).entries == []


async def test_too_many_files_and_files_that_lead_elsewhere_are_refused(
    ada: Caller, ehr: Caller
) -> None:
    one = a_file(b"x", "text/plain")
    assert (await sent(ada, files=[one] * (MOST_FILES + 1))).status in {400, 422}
    large = a_file(b"x" * (4 * 1024 * 1024), "text/plain")
    assert (await sent(ada, files=[large] * 3)).status == 413
    for wrong in (
        {"contentType": "text/plain", "url": "Binary/of-somebody"},
        {"contentType": "text/plain", "data": "eA==", "url": "https://elsewhere.example/x"},
        {"contentType": "text/plain"},
        {"contentType": "text/plain", "data": "eA"},
    ):
        assert (await sent(ada, files=[wrong])).status in {400, 422}
    assert (await ehr.get("Communication")).entries == []


async def test_a_retry_with_files_stores_them_once(ada: Caller, ehr: Caller) -> None:
    thread = thread_of(await sent(ada))
    files = [a_file(PHOTO, "image/jpeg")]
    answers = [await replied(ada, thread, identifier="urn:uuid:f", files=files) for _ in range(3)]
    assert len({out(one, "message")["reference"] for one in answers}) == 1
    assert len((await ehr.get("Communication?_count=50")).entries) == 3
    (one,) = [
        payload["contentAttachment"]
        for message in listed(await read(ada, thread))
        for payload in message["payload"]
        if "contentAttachment" in payload
    ]
    assert (await ehr.get(one["url"])).status == 200


async def test_a_scanner_is_asked_and_its_silence_is_a_no(
    family: EmbeddedStore, portal: Portal, ehr: Caller
) -> None:
    assert family is not None
    said: list[type[Exception] | None] = [None]

    async def scan(content: bytes) -> None:
        assert content == PHOTO, "it sees what came, and not what is left of it"
        if said[0] is not None:
            raise said[0]

    scanned = replace(portal, collaborators=replace(portal.collaborators, scan=scan))
    ada = Caller(scanned, oneself("ada"))
    files = [a_file(PHOTO, "image/jpeg")]
    for error, status in ((Infected, 422), (ScanUnavailable, 503), (None, 200)):
        said[0] = error
        assert (await sent(ada, files=files)).status == status
    assert len((await ehr.get("Communication?_count=50")).entries) == 2
    assert (await sent(ada)).status == 200, "words alone need no scanner"


async def test_files_are_looked_at_only_for_whoever_may_send_them(
    ada: Caller, ehr: Caller, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A picture takes a second of a worker: none is unpacked where its message cannot be sent."""
    looked_at: list[str] = []

    def looking(content: bytes, *, name: str, **more: Any) -> Taken:
        looked_at.append(name)
        return take(content, name=name, **more)

    monkeypatch.setattr(attachments, "take", looking)
    files = [a_file(b"It itches.", "text/plain", "note.txt")]
    assert (await replied(ada, "Communication/none", files=files)).status == 404
    await ehr.store(a_thread("closed", status="completed"), a_thread("open"))
    assert (await replied(ada, "Communication/closed", files=files)).status == 409
    assert looked_at == []
    lie = [a_file(b"It itches.", "image/png", "note.png")]
    for _ in range(AN_HOUR):
        assert (await replied(ada, "Communication/open", files=lie)).status == 422
    assert len(looked_at) == AN_HOUR
    assert (await replied(ada, "Communication/open", files=files)).status == 429
    assert (await sent(ada, files=files)).status == 429
    assert len(looked_at) == AN_HOUR
    assert (await replied(ada, "Communication/open")).status == 200
    clock.advance(3600)
    assert (await replied(ada, "Communication/open", files=files)).status == 200


async def test_so_many_files_wait_at_once(ada: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attachments, "_PLACES", threading.BoundedSemaphore(1))
    files = [a_file(b"It itches.", "text/plain", "note.txt")]
    assert (await sent(ada, files=files)).status == 200
    assert attachments._PLACES.acquire(blocking=False), "the place is free again"  # noqa: SLF001
    assert (await sent(ada, files=files)).status == 503
