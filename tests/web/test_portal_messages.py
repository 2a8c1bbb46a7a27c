"""The portal's pages about messages, as people use them and as they must not."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from fhir_portal.accounts.messaging import Messaging
from fhir_portal.web.pages.portal_messages import FILE, NEW, THREAD
from tests.builders import Caller, a_grant, concept, keep, oneself, reference, resource
from tests.documents.pictures import SECRET, a_pdf, a_picture
from tests.operations.messages import CATEGORY, a_thread, read, replied, sent, thread_of, words
from tests.operations.messages import messages as listed
from tests.smart.world import Browser
from tests.staff import a_member_of_staff
from tests.web.portal_world import ADA, BO, SKIN, PortalWorld
from tests.web.signing_in import fields_of, forms, problem
from tests.web.staff_world import buttons, links

MESSAGES = "/portal/messages"
SCRIPT = '<script>alert("x")</script>'


@pytest.fixture
async def portal() -> AsyncIterator[PortalWorld]:
    found = await PortalWorld.begin()
    await keep(found.world.store, Messaging(key=SKIN, away={"Practitioner/lark": "Back soon."}))
    await found.put(
        resource(
            "CareTeam",
            "team",
            status="active",
            subject=reference("Patient/bo"),
            participant=[{"member": reference("Practitioner/lark")}],
        ),
        a_grant("grant", of="kit", to="mother", sections=["messages"], act=["messages"]),
    )
    yield found
    found.close()


@pytest.fixture
def desk(portal: PortalWorld) -> Caller:
    return Caller(
        portal.world.portal, a_member_of_staff("lark", SKIN, permissions=("messages", "view"))
    )


@pytest.fixture
def bo(portal: PortalWorld) -> Caller:
    return Caller(portal.world.portal, oneself("bo", SKIN))


Files = list[tuple[str, tuple[str, bytes, str]]]


async def filled(browser: Browser, path: str, files: Files | None = None, **fields: str) -> None:
    """Send one of the page's forms as a browser does, in parts."""
    wanted = [one for one in forms(browser, path) if one.get("enctype")]
    given = {**fields_of(wanted[0]), **fields}
    await in_parts(browser, path, given, files)


async def in_parts(
    browser: Browser, path: str, given: dict[str, str], files: Files | None = None
) -> None:
    parts: list[tuple[str, Any]] = [(name, (None, value)) for name, value in given.items()]
    browser.page = await browser.http.post(path, files=[*parts, *(files or [])])
    while browser.page.is_redirect:
        browser.page = await browser.http.get(browser.page.headers["location"])


async def written(browser: Browser, files: Files | None = None, **fields: str) -> None:
    await browser.open(NEW)
    default = {"to": "topic:medical", "subject": "A rash", "text": "It itches.", "read": "yes"}
    await filled(browser, NEW, files, **{**default, "do": "send", **fields})


def thread_at(browser: Browser) -> str:
    return f"Communication/{browser.page.url.path.rpartition('/')[2]}"


async def test_a_patient_writes_is_answered_and_goes_on(portal: PortalWorld, desk: Caller) -> None:
    browser = await portal.at(MESSAGES, BO)
    assert "No conversations" in browser.text
    await browser.open(NEW)
    assert "emergency" in browser.text
    assert "out of the office: Back soon." in browser.text
    assert "within 2 working days" in browser.text
    await written(browser, text=f"It itches.\n{SCRIPT}", subject=f"A rash {SCRIPT}")
    assert "Your message was sent." in browser.text
    assert SCRIPT in browser.text
    assert SCRIPT not in browser.page.text
    thread = thread_at(browser)
    await replied(desk, thread, "Since when?")
    await browser.open(MESSAGES)
    assert "1 unread message" in browser.text
    await browser.open(f"{THREAD}/{thread.partition('/')[2]}")
    assert "Since when?" in browser.text
    assert "Lark" in browser.text
    path = browser.page.url.path
    await filled(browser, path, do="reply", text="A week.")
    assert words(await read(desk, thread))[1:] == ["Since when?", "A week."]
    await browser.open(MESSAGES)
    assert "unread" not in browser.text
    await browser.open(path)
    await filled(browser, path, do="close")
    assert "closed" in browser.text
    assert "Send" not in buttons(browser)
    await filled(browser, path, do="reopen")
    assert "Send" in buttons(browser)


async def test_nothing_is_sent_before_the_note_is_read_and_nothing_typed_is_lost(
    portal: PortalWorld, bo: Caller
) -> None:
    browser = await portal.at(MESSAGES, BO)
    for name, value in (("read", ""), ("to", ""), ("subject", ""), ("to", "Practitioner/none")):
        await written(browser, None, **{"text": "What I typed.", name: value})
        assert browser.page.status_code == 400
        assert problem(browser)
        assert "What I typed." in browser.page.text
    assert (await bo.get("Communication")).entries == []


async def test_pictures_are_sent_and_shown_and_a_lie_stops_the_whole_message(
    portal: PortalWorld, bo: Caller
) -> None:
    browser = await portal.at(MESSAGES, BO)
    files: Files = [
        ("files", ("rash.jpg", a_picture(), "image/jpeg")),
        ("files", ("photo.heic", a_picture("HEIF"), "application/octet-stream")),
        ("files", ("letter.pdf", a_pdf(), "application/pdf")),
        ("files", ("", b"", "application/octet-stream")),
    ]
    await written(browser, files)
    (message,) = listed(await read(bo, thread_at(browser)))
    kinds = [one["contentAttachment"]["contentType"] for one in message["payload"][1:]]
    assert kinds == ["image/jpeg", "image/jpeg", "application/pdf"]
    images = browser.document.xpath("//main//img")
    assert [one.get("alt") for one in images] == ["rash.jpg", "photo.heic"]
    for address in (images[0].get("src"), *links(browser, FILE)):
        answer = await browser.open(address)
        assert answer.status_code == 200
        assert SECRET not in answer.content
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert "sandbox" in answer.headers["content-security-policy"]
    for name, content in (
        ("x.svg", b"<svg onload=alert(1)>"),
        ("x.html", b"<script>alert(1)</script>"),
        ("x.jpg", b"\xff\xd8\xff" + b"\x00" * 50),
        ("x.exe", b"MZ\x90\x00"),
    ):
        await written(browser, [("files", (name, content, "image/jpeg"))], text="With a lie.")
        assert browser.page.status_code == 400
        assert "With a lie." in browser.page.text
    await written(browser, [("files", ("x", b"x", "text/plain"))] * 6)
    assert browser.page.status_code == 400
    assert len((await bo.get("Communication?part-of:missing=false")).entries) == 1


async def test_a_form_sent_twice_is_one_message(portal: PortalWorld, bo: Caller) -> None:
    browser = await portal.at(NEW, BO)
    given = fields_of(next(one for one in forms(browser, NEW) if one.get("enctype")))
    given |= {"to": "topic:medical", "subject": "x", "text": "Once.", "read": "yes", "do": "send"}
    for _ in range(3):
        await in_parts(browser, NEW, given)
        assert "Your message was sent." in browser.text
    assert len((await bo.get("Communication?part-of:missing=false")).entries) == 1


async def test_a_draft_is_kept_found_and_sent_or_thrown_away(
    portal: PortalWorld, bo: Caller
) -> None:
    browser = await portal.at(NEW, BO)
    await written(browser, do="draft", text="It it", to="Practitioner/lark", read="")
    assert "Nobody but you sees it." in browser.text
    (address,) = links(browser, f"{NEW}?draft=")
    await browser.open(address)
    assert "It it" in browser.page.text
    assert browser.document.xpath("//option[@selected]/@value") == ["Practitioner/lark"]
    await filled(
        browser, NEW, do="send", to="topic:medical", subject="A rash", text="All.", read="yes"
    )
    assert words(await read(bo, thread_at(browser))) == ["All."]
    await browser.open(MESSAGES)
    assert links(browser, f"{NEW}?draft=") == []
    await written(browser, do="draft", text="No.", read="")
    await browser.open(links(browser, f"{NEW}?draft=")[0])
    await filled(browser, NEW, do="discard")
    assert "The draft is gone." in browser.text
    assert (await browser.open(address)).status_code == 404


async def test_words_are_found_without_standing_in_an_address(
    portal: PortalWorld, bo: Caller
) -> None:
    thread = thread_of(await sent(bo, "A red rash."))
    await sent(bo, "A bill.")
    browser = await portal.at(MESSAGES, BO)
    form = next(one for one in forms(browser, MESSAGES) if not one.get("enctype"))
    browser.page = await browser.http.post(MESSAGES, data={**fields_of(form), "text": "RED"})
    assert links(browser, THREAD) == [f"{THREAD}/{thread.partition('/')[2]}"]
    assert "RED" not in str(browser.page.url)


async def test_a_mother_writes_as_herself_and_sees_nothing_confidential(
    portal: PortalWorld,
) -> None:
    kit = Caller(portal.world.portal, oneself("kit", SKIN))
    hidden = thread_of(await sent(kit, "Only me.", confidential=True))
    browser = await portal.at(MESSAGES, ADA, "kit")
    assert "No conversations" in browser.text
    await browser.open(f"{THREAD}/{hidden.partition('/')[2]}")
    assert browser.page.status_code == 404
    await browser.open(NEW)
    assert not browser.document.xpath("//input[@name='confidential']")
    await written(browser)
    (message,) = listed(await read(kit, thread_at(browser)))
    assert message["sender"] == reference("RelatedPerson/mother")
    await written(browser, confidential="yes")
    assert browser.page.status_code == 403


async def test_who_may_only_read_is_offered_nothing_to_send(portal: PortalWorld) -> None:
    await portal.put(a_grant("grant", of="kit", to="mother", sections=["messages"]))
    kit = Caller(portal.world.portal, oneself("kit", SKIN))
    thread = thread_of(await sent(kit))
    browser = await portal.at(MESSAGES, ADA, "kit")
    assert NEW not in links(browser)
    await browser.open(f"{THREAD}/{thread.partition('/')[2]}")
    assert browser.page.status_code == 200
    assert buttons(browser) == []
    await portal.put(a_grant("grant", of="kit", to="mother", sections=["appointments"]))
    await browser.open(MESSAGES)
    if "Record of Kit" in browser.text:
        assert browser.page.status_code == 403


async def test_forms_of_others_and_broken_ones_do_nothing(portal: PortalWorld, bo: Caller) -> None:
    browser = await portal.at(NEW, BO)
    given = fields_of(next(one for one in forms(browser, NEW) if one.get("enctype")))
    given |= {"to": "topic:medical", "subject": "x", "text": "x", "read": "yes", "do": "send"}
    other = await portal.at(NEW, ADA, "ada")
    await in_parts(other, NEW, given)
    assert other.page.status_code in {400, 403}
    await in_parts(browser, NEW, {**given, "form_token": "x"})
    assert browser.page.status_code in {400, 403}
    broken: list[tuple[str, bytes]] = [
        ("multipart/form-data", b"x"),
        ("multipart/form-data; boundary=x", b"--x\r\nnonsense"),
        (
            "multipart/form-data; boundary=x",
            b"--x\r\nContent-Disposition: form-data\r\n\r\nx\r\n--x--",
        ),
        ("application/json", b"{}"),
        ("multipart/form-data; boundary=x", b"y" * (12 * 1024 * 1024 + 1)),
    ]
    for kind, content in broken:
        answer = await browser.http.post(NEW, content=content, headers={"content-type": kind})
        assert 400 <= answer.status_code < 500, kind
    assert (await bo.get("Communication")).entries == []
    await browser.open(f"{MESSAGES}/go")
    for nothing in (f"{THREAD}/none", f"{FILE}/none/1", f"{FILE}/none/x", f"{NEW}?draft=none"):
        assert (await browser.open(nothing)).status_code == 404


def of_parts(*names: str, value: bytes = b"") -> bytes:
    head = b"--b\r\nContent-Disposition: form-data; name=%s\r\n\r\n"
    return b"".join(head % one.encode() + value + b"\r\n" for one in names) + b"--b--\r\n"


IN_PARTS = {"content-type": "multipart/form-data; boundary=b"}


@pytest.mark.parametrize(
    "content",
    [
        of_parts(*("a" for _ in range(61))),
        of_parts(*(f"f{n:05}" for n in range(20_000))),
        of_parts(*("a; filename=f" for _ in range(61))),
        of_parts("a", value=b"x" * (64 * 1024)),
    ],
    ids=["one name", "many names", "files", "long"],
)
async def test_a_form_of_too_many_or_too_long_parts_is_refused(
    portal: PortalWorld, bo: Caller, content: bytes
) -> None:
    browser = await portal.at(NEW, BO)
    answer = await browser.http.post(NEW, content=content, headers=IN_PARTS)
    assert answer.status_code == 413
    assert (await bo.get("Communication")).entries == []


async def test_nothing_of_nobodys_is_read(portal: PortalWorld) -> None:
    """The session comes first, then what the form says of its length, then the form."""
    read: list[bytes] = []

    async def body() -> AsyncIterator[bytes]:
        for _ in range(3):
            read.append(b"x" * 1024)
            yield read[-1]

    browser = portal.world.browser()
    answer = await browser.http.post(NEW, content=body(), headers=IN_PARTS)
    assert answer.is_redirect
    browser = await portal.at(NEW, BO)
    too_long = {**IN_PARTS, "content-length": str(12 * 1024 * 1024 + 1)}
    answer = await browser.http.post(NEW, content=body(), headers=too_long)
    assert answer.status_code == 413
    assert read == []


@pytest.mark.parametrize(
    "kind",
    [
        "multipart/form-data; boundary=" + "b" * 300,
        "multipart/form-data; boundary=\u00e9",
        "multipart/form-data; boundary*=utf-8''b",
    ],
)
async def test_a_boundary_is_no_fault_of_the_server(portal: PortalWorld, kind: str) -> None:
    browser = await portal.at(NEW, BO)
    headers = {b"content-type": kind.encode("latin-1")}
    answer = await browser.http.post(NEW, content=b"--b--\r\n", headers=headers)
    assert 400 <= answer.status_code < 500


@pytest.mark.parametrize("when", ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-12:00"])
async def test_an_odd_thread_leaves_the_list_and_what_was_taken_back_is_told(
    portal: PortalWorld, when: str
) -> None:
    of_it = [concept(CATEGORY, "message")]
    odd = a_thread("m", of="bo", sent=when, partOf=[reference("Communication/odd")], category=of_it)
    odd |= {"status": "entered-in-error", "payload": [{"contentString": "For another."}]}
    await portal.put(a_thread("odd", of="bo", sent=when), odd)
    browser = await portal.at(MESSAGES, BO)
    assert browser.page.status_code == 200
    await browser.open(f"{THREAD}/odd")
    assert browser.page.status_code == 200
    assert "This message was taken back" in browser.page.text
    assert "For another." not in browser.page.text


@pytest.mark.parametrize("kind", ["\u65e5\u672c/x", "text/html;charset=utf-7", 'image/png;x="'])
async def test_a_file_whose_type_an_ehr_made_up_is_saved_all_the_same(
    portal: PortalWorld, bo: Caller, kind: str
) -> None:
    thread = thread_of(await sent(bo, "x"))
    of_it = [concept(CATEGORY, "message")]
    attachment = {"contentType": "text/plain", "url": "Binary/odd"}
    message = a_thread("odd", of="bo", partOf=[reference(thread)], category=of_it)
    message |= {"status": "completed", "payload": [{"contentAttachment": attachment}]}
    await portal.put(
        {"resourceType": "Binary", "id": "odd", "contentType": kind, "data": "QQ=="}, message
    )
    browser = await portal.at(MESSAGES, BO)
    answer = await browser.http.get(f"{FILE}/odd/1")
    assert answer.status_code == 200
    assert answer.content == b"A"
    assert answer.headers["content-disposition"].startswith("attachment")
