"""The canary scan, shorter than ``python -m tests.end_to_end.canary``; and that it finds leaks."""

from __future__ import annotations

import base64
import io
import json
import time
from collections.abc import AsyncIterator
from email.message import EmailMessage
from pathlib import Path
from urllib.parse import quote

import httpx
import pytest
import structlog

from fhir_portal.embedded.store import EmbeddedStore
from fhir_portal.logs import configure
from fhir_portal.notify.outbox import OutboxMessage, mail_id_of
from fhir_portal.records import RecordTransaction
from tests.end_to_end.canary.evidence import CALLBACK, Evidence, Exchange, logged, stored
from tests.end_to_end.canary.scan import PEOPLE, Canaries, Canary, Text, scan, spellings
from tests.end_to_end.canary.show import run
from tests.end_to_end.canary.visitor import Visitor
from tests.notify.receiver import Taken
from tests.places import File, Place, kinds, new_place

LINK = "ab12" * 16
VALUES = {
    "name": "Mizifanenenapa",
    "telecom": "+13125550142",
    "birth date": "1947-03-02",
    "link": LINK,
    "one-time code": "4711 0815",
    "security code": "7KQ2-MX4B-9TRW",
    "portal ID": "471108",
    "access token": "c2rW8Sv0yGglFnWxlhDExMImv3UDBYSDeXhKc5GGBXk",
    "authorization code": "Zq7-fWxlhDExMImv3UDBYSDeXhKc5G_BXk",
    "password": "seven quiet otters",
    "user name": "mizi.fanene",
    "session cookie": "S3ss1on-fWxlhDExMImv3UDBYSDeXhKc5G_BXkaaaaa",
}


@pytest.fixture
async def place(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Place]:
    place = new_place(request.param, tmp_path)
    yield place
    await place.drop()


@pytest.mark.parametrize("place", kinds("file"), indirect=True)
async def test_no_canary_is_where_it_must_not_be(tmp_path: Path, place: Place) -> None:
    outcome = await run(tmp_path, place, short=True)
    assert [str(one) for one in outcome.found] == []
    # All was there to be found, and everywhere was looked.
    counted = outcome.canaries.counted
    for kind in (*PEOPLE, "link", "security code", "one-time code", "portal ID", "recovery code"):
        assert counted[kind], kind
    for kind in ("activation word", "desk code", "access token", "refresh token", "DPoP proof"):
        assert counted[kind], kind
    places = {one.place for one in outcome.texts}
    assert places >= {
        *("log lines", "mails", "SMS", "outbox records", "store", "request targets", "redirects"),
        *("headers of answers", "error pages", "OperationOutcomes, OAuth errors"),
    }


# --- the scan finds what is planted -----------------------------------------------------------


@pytest.fixture
def canaries() -> Canaries:
    made = Canaries()
    for kind, value in VALUES.items():
        made.add(kind, value)
    return made


def kinds_found(canaries: Canaries, texts: list[Text]) -> set[tuple[str, str]]:
    return {(one.canary.kind, one.place) for one in scan(canaries, texts)}


@pytest.mark.parametrize("kind", VALUES)
def test_a_line_of_the_log_with_a_value_is_found(
    kind: str, canaries: Canaries, tmp_path: Path, log_as_it_was: None
) -> None:
    """Written by the log as the server writes it."""
    del log_as_it_was
    stream = io.StringIO()
    configure("debug", stream)
    structlog.get_logger().info("as it should be", practice="elm", status=200)
    (tmp_path / "server.log").write_text(stream.getvalue(), "utf-8")
    assert kinds_found(canaries, logged(tmp_path)) == set()
    structlog.get_logger().debug("planted", about=f"a {VALUES[kind]} in it")
    (tmp_path / "server.log").write_text(stream.getvalue(), "utf-8")
    assert kinds_found(canaries, logged(tmp_path)) == {(kind, "log lines")}


async def send(store: EmbeddedStore, key: str = "mail", **more: str | dict[str, str]) -> None:
    async def work(transaction: RecordTransaction) -> None:
        await transaction.put(
            OutboxMessage(
                key=key,
                practice="elm",
                created=time.time(),
                due=time.time(),
                channel="mail",
                to="mail:mizi@people.example",
                template="one-time-code",
                **more,  # type: ignore[arg-type]  # fields of the record
            )
        )

    await store.transact(work)


@pytest.mark.parametrize("kind", ["one-time code", "security code", "link", "name"])
async def test_a_value_in_a_record_of_the_outbox_is_found(
    kind: str, canaries: Canaries, tmp_path: Path
) -> None:
    """In the record as it is read, and a secret also in the bytes of the store."""
    place = File(tmp_path / "portal.db")
    store = await place.open()
    await send(store, link_for="one-time-code/challenge")  # type: ignore[arg-type]
    evidence = Evidence(canaries)
    before = await evidence.of_messages(store)
    assert kinds_found(canaries, before) == set()
    await send(store, values={"code": VALUES[kind]})  # type: ignore[arg-type]
    after = await evidence.of_messages(store)
    store.close()  # type: ignore[attr-defined]
    assert kinds_found(canaries, after) == {(kind, "outbox records")}
    in_bytes = kinds_found(canaries, await stored(place, tmp_path))
    assert in_bytes == (set() if kind in PEOPLE else {(kind, "store")})


async def test_a_message_carries_what_it_was_made_for_and_nothing_else(
    canaries: Canaries, tmp_path: Path
) -> None:
    store = await File(tmp_path / "portal.db").open()
    await send(store, link_for="invitation/elm/Task/1")  # type: ignore[arg-type]

    async def found_in(text: str, **head: str) -> set[tuple[str, str]]:
        mail = EmailMessage()
        mail["Message-ID"] = f"<{mail_id_of('mail')}@portal.example>"
        mail["To"] = "mizi@people.example"
        for name, value in head.items():
            mail[name] = value
        mail.set_content(text, cte="base64")
        evidence = Evidence(canaries)
        evidence.mails.append(Taken("x@portal.example", [mail["To"]], bytes(mail)))
        return kinds_found(canaries, await evidence.of_messages(store))

    assert await found_in(f"Open https://portal.example/activate/{LINK}") == set()
    for kind in ("security code", "one-time code", "name", "user name", "access token"):
        text = f"Open https://portal.example/activate/{LINK} with {VALUES[kind]}"
        assert await found_in(text) == {(kind, "mails")}
    assert await found_in("Hello", Subject=f"For {VALUES['name']}") == {("name", "mails")}
    store.close()  # type: ignore[attr-defined]


def exchange(target: str, *, location: str = "", **more: object) -> Exchange:
    headers = [("location", location)] if location else []
    given = {"referer": "", "status": 303 if location else 200, "body": b"", **more}
    return Exchange("GET", target, headers=headers, **given)  # type: ignore[arg-type]


def found_at(canaries: Canaries, *exchanges: Exchange) -> set[tuple[str, str]]:
    evidence = Evidence(canaries, list(exchanges))
    return kinds_found(canaries, list(evidence.of_exchanges()))


@pytest.mark.parametrize("kind", ["access token", "session cookie", "name", "one-time code"])
def test_a_value_in_a_redirect_or_an_address_is_found(kind: str, canaries: Canaries) -> None:
    spelt = quote(VALUES[kind], safe="")
    for location in (f"/account?x={spelt}", f"{CALLBACK}?token={spelt}"):
        planted = exchange("http://x/signin", location=location)
        assert found_at(canaries, planted) == {(kind, "redirects")}
    assert found_at(canaries, exchange(f"http://x/account?x={spelt}")) == {
        (kind, "request targets")
    }


def test_one_time_values_are_allowed_in_their_own_addresses_alone(canaries: Canaries) -> None:
    code = VALUES["authorization code"]
    assert found_at(canaries, exchange(f"http://x/activate/{LINK}")) == set()
    assert found_at(canaries, exchange(f"http://x/signin?then=/activate/{LINK}"))
    assert found_at(canaries, exchange("http://x/a", location=f"{CALLBACK}?code={code}")) == set()
    assert found_at(canaries, exchange("http://x/a", location=f"https://other/?code={code}"))
    assert found_at(canaries, exchange("http://x/a", location=f"/account?code={code}"))


def test_what_was_typed_into_an_address_is_not_the_servers_word_until_it_repeats_it(
    canaries: Canaries,
) -> None:
    token = VALUES["access token"]
    typed = exchange(f"http://x/fhir/Patient?{token}=x", typed=True)
    assert found_at(canaries, typed) == set()
    told = exchange(f"http://x/?{token}", typed=True, status=400, body=token.encode())
    assert found_at(canaries, told) == {("access token", "OperationOutcomes, OAuth errors")}
    elsewhere = exchange(f"http://x/?{token}", location=f"https://other/{token}", typed=True)
    assert found_at(canaries, elsewhere) == {("access token", "redirects")}


@pytest.mark.parametrize("kind", ["password", "name", "telecom", "birth date", "portal ID"])
def test_a_value_in_an_answer_that_refuses_is_found(kind: str, canaries: Canaries) -> None:
    body = json.dumps({"error_description": f"no {VALUES[kind]} here"}).encode()
    refused = exchange("http://x/oauth/token", status=400, body=body)
    assert found_at(canaries, refused) == {(kind, "OperationOutcomes, OAuth errors")}


def test_a_page_may_repeat_a_field_to_who_typed_it_and_in_that_field_alone(
    canaries: Canaries,
) -> None:
    password = VALUES["password"]
    sent = f"username={quote(password)}".encode()
    page = f'<p role="alert">No.</p><input id="username" name="username" value="{password}">'

    def found_on(body: str) -> bool:
        return bool(found_at(canaries, exchange("http://x/signin", body=body.encode(), sent=sent)))

    assert not found_on(page)
    assert found_on(page.replace('name="username"', 'name="other"'))
    assert found_on(f"{page}<p>{password}</p>")


def test_a_referer_is_sent_where_a_page_does_not_forbid_it_and_found(canaries: Canaries) -> None:
    """As a browser does by default."""
    evidence = Evidence(canaries)
    policy: dict[str, str] = {"referrer-policy": "no-referrer"}

    def answer(_: httpx.Request) -> httpx.Response:
        return httpx.Response(200, headers={"content-type": "text/html", **policy}, text="<p>")

    for said, found in (("no-referrer", set()), ("", {("link", "Referer headers")})):
        policy["referrer-policy"] = said
        if not said:
            policy.clear()
        visitor = Visitor("http://x", evidence)
        hooks = {"response": [evidence.record]}
        visitor.http = httpx.Client(
            base_url="http://x", transport=httpx.MockTransport(answer), event_hooks=hooks
        )
        visitor.open(f"/activate/{LINK}").open("/help")
        assert kinds_found(canaries, list(evidence.of_exchanges())) == found
        visitor.close()


@pytest.mark.parametrize(
    ("kind", "value", "text"),
    [
        ("telecom", "+13125550142", "call (312) 555-0142 now"),
        ("birth date", "1947-03-02", "born 3/2/1947"),
        ("birth date", "1947-03-02", "March 2, 1947"),
        ("security code", "7KQ2-MX4B-9TRW", "7kq2mx4b9trw"),
        ("one-time code", "4711 0815", "code=47110815&"),
        ("telecom", "mizi@people.example", "to=mizi%40people.example"),
        ("name", "Mizifanenenapa", base64.b64encode(b"x Mizifanenenapa y").decode()),
        ("name", "Mizifanenenapa", base64.urlsafe_b64encode(b"\xff~Mizifanenenapa").decode()),
        ("name", "Mizifanenenapa", b"Mizifanenenapa".hex()),
        ("password", 'it"s & <quiet>', "it&quot;s &amp; &lt;quiet&gt;"),
        ("password", 'it"s quiet', json.dumps({"x": 'it"s quiet'})),
    ],
)
def test_a_value_is_found_however_it_is_spelt(kind: str, value: str, text: str) -> None:
    assert scan([Canary(kind, value)], [Text("here", "text", text.encode())])


def test_a_short_number_is_found_as_a_whole_and_not_in_others() -> None:
    canary = Canary("portal ID", "471108")
    for text, there in (("id 471108.", True), ("x=471108", True), ("1471108", False)):
        assert bool(scan([canary], [Text("here", "text", text.encode())])) == there
    assert b"471108" in spellings(canary)


def test_people_are_allowed_where_only_secrets_are_looked_for(canaries: Canaries) -> None:
    content = " ".join(VALUES.values()).encode()
    found = scan(canaries, [Text("store", "rows", content, secrets_only=True)])
    assert {one.canary.kind for one in found} == set(VALUES) - PEOPLE
