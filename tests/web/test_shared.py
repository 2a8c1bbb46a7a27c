"""``/shared`` over HTTP: the manifest of SMART Health Links, files, and the page for people."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from fhir_portal.smart.portal_pages import CLIENT
from fhir_portal.smart.sharing import DAY, TICKET_SECONDS, TRIES, ShareLink, end_share
from fhir_portal.web import downloads
from fhir_portal.web.downloads import LONG
from fhir_portal.web.pages.portal import portal_page_scope
from tests.builders import (
    Caller,
    a_binary,
    a_client,
    a_document,
    an_observation,
    keep,
    oneself,
    resource,
)
from tests.charts import an_allergy, an_immunization
from tests.operations.sharing import Link, a_link, documents, sections, signed_in
from tests.web.portal_world import SKIN, PortalWorld

pytestmark = pytest.mark.requirement("portal", "S2-15", "S0-45")


@pytest.fixture
async def world() -> AsyncIterator[PortalWorld]:
    found = await PortalWorld.begin()
    await keep(found.world.store, a_client(CLIENT))
    await found.put(
        an_allergy("nuts"), an_immunization("flu"), an_observation("pulse"),
        a_binary("letter"), a_document("letter", binary="letter"),
        resource("Binary", "page", contentType="text/html", data="PHNjcmlwdD54PC9zY3JpcHQ+"),
        a_document("page", binary="page"),
    )  # fmt: skip
    yield found
    found.close()


async def caller_of(world: PortalWorld) -> Caller:
    """Ada, as by the portal's pages."""
    store = world.world.store
    account = next(one for one in await every_account(store) if one.username == "ada")
    auth = replace(oneself("ada", SKIN, scope="patient/*.cruds"), account=account.key,
                   client=CLIENT)  # fmt: skip
    return await signed_in(world.world.portal, auth, "ada", family="")


async def every_account(store: Any) -> Any:
    from fhir_portal.accounts.account import Account  # noqa: PLC0415

    return await store.every(Account)


@pytest.fixture
async def link(world: PortalWorld) -> Link:
    return await a_link(await caller_of(world), "ada", *documents("letter"))


@pytest.fixture
async def http(world: PortalWorld) -> AsyncIterator[httpx.AsyncClient]:
    async with world.world.http() as client:
        yield client


async def manifest(http: httpx.AsyncClient, link: Link, **more: Any) -> httpx.Response:
    body = {"recipient": "Dr. Abel", "passcode": link.passcode} | more
    return await http.post(
        link.payload["url"], json={name: value for name, value in body.items() if value is not ...}
    )


# --- for apps ------------------------------------------------------------------------------------


async def test_a_manifest_holds_the_files_encrypted(http: httpx.AsyncClient, link: Link) -> None:
    answer = await manifest(http, link)
    assert answer.status_code == 200
    found = answer.json()
    assert found["status"] == "can-change"
    assert {one["contentType"] for one in found["files"]} == {
        "application/fhir+json;fhirVersion=4.0.1"
    }
    bundle, page, letter = (link.read(one["embedded"]) for one in found["files"])
    assert (bundle["resourceType"], bundle["type"]) == ("Bundle", "document")
    assert page["resourceType"] == "Binary"
    assert page["contentType"].startswith("text/html")
    assert letter["id"] == "letter"
    assert letter["content"][0]["attachment"]["data"] == "JVBERi0x"
    assert b"Peanut" not in answer.content


async def test_a_file_that_is_too_long_has_an_address(
    http: httpx.AsyncClient, link: Link, world: PortalWorld
) -> None:
    """It is for that file, encrypted, for an hour at most, and once."""
    found = (await manifest(http, link, embeddedLengthMax=0)).json()["files"]
    assert all(set(one) == {"contentType", "location"} for one in found)
    places = [urlsplit(one["location"]) for one in found]
    assert {one.netloc for one in places} == {urlsplit(link.payload["url"]).netloc}
    first = await http.get(places[0].path)
    assert first.status_code == 200
    assert first.headers["content-type"] == "application/jose"
    assert first.headers["access-control-allow-origin"] == "*"
    assert link.read(first.text)["resourceType"] == "Bundle"
    assert (await http.get(places[0].path)).status_code == 404  # used once
    world.world.clock.advance(TICKET_SECONDS)
    assert TICKET_SECONDS <= 3600
    assert (await http.get(places[1].path)).status_code == 404


@pytest.mark.parametrize("most", [10**9, 2**53])
async def test_an_oversized_bound_is_no_reason_to_embed_everything(
    http: httpx.AsyncClient, link: Link, world: PortalWorld, most: int
) -> None:
    big = "QUJD" * 400_000
    await world.put(a_binary("letter", content=big))
    found = (await manifest(http, link, embeddedLengthMax=most)).json()["files"]
    assert "location" in found[2]
    answer = await http.get(urlsplit(found[2]["location"]).path)
    assert link.read(answer.text)["content"][0]["attachment"]["data"] == big


@pytest.mark.parametrize(
    "change",
    [
        {"embeddedLengthMax": -1},
        {"embeddedLengthMax": "5"},
        {"embeddedLengthMax": True},
        {"embeddedLengthMax": 1.5},
        {"recipient": ...},
        {"recipient": ""},
        {"recipient": 7},
        {"recipient": "x" * 101},
        {"recipient": "Dr.\x1bX"},
        {"recipient": "\u202eabc\u0000"},
        {"passcode": 22222222},
        {"passcode": ["2"]},
    ],
)
async def test_a_bad_request_is_told_so_and_is_no_try(
    http: httpx.AsyncClient, link: Link, world: PortalWorld, change: dict[str, Any]
) -> None:
    answer = await manifest(http, link, **change)
    assert answer.status_code == 400, answer.content
    found = await world.world.store.get(ShareLink, link.key)
    assert found is not None
    assert (found.failed, found.views) == (0, 0)


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b"null", b"\xff", b'{"recipient"' + b" " * 9000]
)
async def test_what_is_no_manifest_request_is_refused(
    http: httpx.AsyncClient, link: Link, body: bytes
) -> None:
    answer = await http.post(link.payload["url"], content=body)
    assert answer.status_code in {400, 413}


async def test_a_wrong_passcode_says_how_many_tries_are_left(
    http: httpx.AsyncClient, link: Link
) -> None:
    """Then this network waits, with the right one too."""
    for left in range(TRIES - 1, -1, -1):
        answer = await manifest(http, link, passcode="22222222")
        assert (answer.status_code, answer.json()) == (401, {"remainingAttempts": left})
    waits = await manifest(http, link)
    assert waits.status_code == 429
    assert 0 < int(waits.headers["retry-after"]) <= 3600
    page = await opened(http, link)
    assert page.status_code == 429
    assert "Try again in 1 hour" in page.text


async def test_a_missing_passcode_is_401(http: httpx.AsyncClient, link: Link) -> None:
    answer = await manifest(http, link, passcode=...)
    assert (answer.status_code, answer.json()) == (401, {"remainingAttempts": TRIES})


async def test_parallel_guesses_are_all_counted(http: httpx.AsyncClient, link: Link) -> None:
    answers = await asyncio.gather(
        *(manifest(http, link, passcode=f"2345678{one}") for one in "ABCDEFGHJKMNPQRSTVWX")
    )
    statuses = [one.status_code for one in answers]
    assert statuses.count(401) == TRIES
    assert statuses.count(429) == len(statuses) - TRIES
    assert (await manifest(http, link)).status_code == 429


async def test_what_is_unknown_over_or_ended_is_answered_alike(
    http: httpx.AsyncClient, world: PortalWorld
) -> None:
    caller = await caller_of(world)
    ended, expired = [await a_link(caller) for _ in range(2)]

    async def work(transaction: Any) -> None:
        found = await transaction.get(ShareLink, ended.key)
        await end_share(transaction, found, now=world.world.clock(), because="x")

    await world.world.store.transact(work)
    world.world.clock.advance(31 * DAY)
    unknown = ended.payload["url"].replace(ended.handle, "A" * 43)
    answers = [await manifest(http, one) for one in (ended, expired)]
    body = {"recipient": "x", "passcode": "y"}
    answers += [await http.post(one, json=body) for one in (unknown, "/shared/x/manifest")]
    assert {one.status_code for one in answers} == {404}
    assert len({one.content for one in answers}) == 1
    pages = [
        await http.post(f"/shared/{one}", data={"name": "x", "passcode": "y"})
        for one in (ended.handle, expired.handle, "A" * 43, "x")
    ]
    assert {one.status_code for one in pages} == {404}
    assert len({one.content for one in pages}) == 1


async def test_the_form_is_the_same_for_every_address(http: httpx.AsyncClient, link: Link) -> None:
    answers = [await http.get(f"/shared/{one}") for one in (link.handle, "A" * 43, "nothing")]
    assert len({one.content for one in answers}) == 1


async def test_every_origin_may_ask(http: httpx.AsyncClient, link: Link) -> None:
    asked = {
        "Origin": "https://viewer.example",
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "content-type",
    }
    answer = await http.options(link.payload["url"], headers=asked)
    assert answer.status_code == 204
    assert answer.headers["access-control-allow-origin"] == "*"
    assert "content-type" in answer.headers["access-control-allow-headers"]
    assert "access-control-allow-credentials" not in answer.headers
    for change in ({}, {"passcode": "x"}, {"recipient": ""}):
        found = await manifest(http, link, **change)
        assert found.headers["access-control-allow-origin"] == "*"
        assert found.headers["cache-control"] == "no-store"


async def test_one_network_comes_so_often_and_no_more(http: httpx.AsyncClient, link: Link) -> None:
    statuses = [
        (await http.post("/shared/x/manifest", json={"recipient": "x"})).status_code
        for _ in range(121)
    ]
    assert statuses[-1] == 429
    assert set(statuses[:-1]) == {404}
    answer = await manifest(http, link)
    assert answer.status_code == 429
    assert int(answer.headers["retry-after"]) > 0


async def test_a_file_whose_right_ended_meanwhile_is_not_given(
    http: httpx.AsyncClient, link: Link, world: PortalWorld
) -> None:
    found = (await manifest(http, link, embeddedLengthMax=0)).json()["files"]
    paths = [urlsplit(one["location"]).path for one in found]

    async def work(transaction: Any) -> None:
        stored = await transaction.get(ShareLink, link.key)
        await end_share(transaction, stored, now=world.world.clock(), because="x")

    await world.world.store.transact(work)
    for path in (*paths, "/shared/files/x", f"/shared/files/{'A' * 43}"):
        assert (await http.get(path)).status_code == 404


async def test_a_long_file_ends_with_the_link(
    http: httpx.AsyncClient, world: PortalWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = base64.b64encode(bytes(2 * LONG)).decode()
    await world.put(a_binary("scan", content=content), a_document("scan", binary="scan"))
    made = await a_link(await caller_of(world), "ada", *documents("scan"))

    async def ends(body: bytes) -> AsyncIterator[bytes]:
        yield body[:LONG]
        await world.world.store.transact(work)
        yield body[LONG:]

    async def work(transaction: Any) -> None:
        stored = await transaction.get(ShareLink, made.key)
        await end_share(transaction, stored, now=world.world.clock(), because="x")

    found = (await manifest(http, made, embeddedLengthMax=0)).json()["files"]
    path = urlsplit(found[-1]["location"]).path
    monkeypatch.setattr(downloads, "in_pieces", ends)
    with pytest.raises(AssertionError, match=r"^$"):  # the answer has no end
        await http.get(path)


async def test_a_manifest_with_long_files_in_it_ends_with_the_link(
    http: httpx.AsyncClient, world: PortalWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = base64.b64encode(bytes(LONG)).decode()
    await world.put(a_binary("scan", content=content), a_document("scan", binary="scan"))
    made = await a_link(await caller_of(world), "ada", *documents("scan"))

    async def ends(body: bytes) -> AsyncIterator[bytes]:
        yield body[:LONG]
        await world.world.store.transact(work)
        yield body[LONG:]

    async def work(transaction: Any) -> None:
        stored = await transaction.get(ShareLink, made.key)
        await end_share(transaction, stored, now=world.world.clock(), because="x")

    assert len((await manifest(http, made)).content) > LONG
    monkeypatch.setattr(downloads, "in_pieces", ends)
    with pytest.raises(AssertionError, match=r"^$"):  # the answer has no end
        await manifest(http, made)


async def test_a_document_that_was_entered_in_error_is_shown_no_more(
    http: httpx.AsyncClient, world: PortalWorld
) -> None:
    scan = a_document("scan", binary="scan")
    scan["content"] = [{"attachment": {"contentType": "text/plain", "data": "c2VjcmV0"}}]
    await world.put(scan)
    made = await a_link(await caller_of(world), "ada", *documents("scan"))
    before = [made.read(one["embedded"]) for one in (await manifest(http, made)).json()["files"]]
    assert "DocumentReference" in {one["resourceType"] for one in before}
    await world.put(scan | {"status": "entered-in-error"})
    after = [made.read(one["embedded"]) for one in (await manifest(http, made)).json()["files"]]
    assert "DocumentReference" not in {one["resourceType"] for one in after}


# --- for people ----------------------------------------------------------------------------------


async def opened(http: httpx.AsyncClient, link: Link, **more: str) -> httpx.Response:
    form = {"name": "Dr. Abel", "passcode": link.passcode} | more
    return await http.post(f"/shared/{link.handle}", data=form)


def addresses_in(text: str) -> list[str]:
    return [one.partition('"')[0] for one in text.split('href="')[1:] if "/shared/files/" in one]


async def test_somebody_without_an_app_reads_it(http: httpx.AsyncClient, link: Link) -> None:
    form = await http.get(f"/shared/{link.handle}")
    assert form.status_code == 200
    assert "<script" not in form.text
    answer = await opened(http, link)
    assert answer.status_code == 200
    kinds = []
    for address in addresses_in(answer.text):
        found = await http.get(address)
        assert found.status_code == 200
        assert "sandbox" in found.headers["content-security-policy"]
        assert found.headers["cache-control"] == "no-store"
        kinds.append(found.headers["content-type"].partition(";")[0])
    assert kinds == [
        "text/html",
        "application/pdf",
        "application/fhir+json",
        "application/cda+xml",
        "application/pdf",
    ]


async def test_a_shared_page_of_somebody_cannot_act(
    http: httpx.AsyncClient, world: PortalWorld
) -> None:
    link = await a_link(await caller_of(world), "ada", *documents("page"))
    address = addresses_in((await opened(http, link)).text)[-1]
    found = await http.get(address)
    assert found.headers["content-disposition"].startswith("attachment")
    assert found.headers["content-security-policy"] == "sandbox; default-src 'none'"


@pytest.mark.parametrize(
    ("form", "status"),
    [
        ({"passcode": "22222222"}, 401),
        ({"passcode": ""}, 401),
        ({"name": ""}, 400),
        ({"name": "x" * 101}, 400),
    ],
)
async def test_the_form_says_what_is_wrong(
    http: httpx.AsyncClient, link: Link, form: dict[str, str], status: int
) -> None:
    answer = await opened(http, link, **form)
    assert answer.status_code == status
    assert 'role="alert"' in answer.text


async def test_a_name_is_shown_as_the_text_it_is(http: httpx.AsyncClient, link: Link) -> None:
    answer = await opened(http, link, name='"><script>x', passcode="22222222")
    assert "<script" not in answer.text


async def test_the_log_says_who_it_was(
    http: httpx.AsyncClient, link: Link, world: PortalWorld
) -> None:
    await opened(http, link)
    ada = await caller_of(world)
    log = (await ada.get("AuditEvent?subtype=read&_count=50")).entries
    assert log
    for one in log:
        assert "Dr. Abel" in [agent.get("name") for agent in one["agent"]]


async def test_sections_hold_in_what_is_downloaded(
    http: httpx.AsyncClient, world: PortalWorld
) -> None:
    link = await a_link(await caller_of(world), "ada", *sections("immunizations"))
    for address in addresses_in((await opened(http, link)).text):
        content = (await http.get(address)).content
        assert b"Peanut" not in content
        assert b"Quill" not in content


async def test_the_pages_of_the_portal_have_the_scopes_to_share() -> None:
    scope = portal_page_scope()
    for name in ("AllergyIntolerance", "Observation", "Binary", "DocumentReference"):
        assert f"patient/{name}." in scope
    assert json.dumps(scope)
