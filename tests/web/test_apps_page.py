"""``/account/apps`` over HTTP: what people see and do there, and what others try to."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import msgspec
import pytest

from fhir_portal.access.log import AccessRow
from fhir_portal.accounts.account import Account
from fhir_portal.notify.connection import OutboxConnectionNotices
from fhir_portal.notify.outbox import OutboxMessage
from fhir_portal.smart.code import AuthorizationCode
from fhir_portal.smart.connection import Change, UnknownConnection, WouldWiden, is_adult
from fhir_portal.smart.connection_notices import made_by_proxy
from fhir_portal.smart.connection_receipt import Receipt
from fhir_portal.smart.connections import Connections
from fhir_portal.smart.revocation import ACCESS_ENDED, RevocationListener
from fhir_portal.smart.scope import ScopeSet
from fhir_portal.smart.security_event import reason_of
from fhir_portal.smart.token import AccessToken, TokenFamily
from fhir_portal.web.pages.apps import APPS, NOT_THERE, RECEIPTS, apps_router
from fhir_portal.web.site import take_in
from tests.smart.several import OWN, PIP, listed, swap
from tests.smart.world import (
    PASSWORD,
    SCOPE,
    START,
    App,
    Browser,
    World,
    childs_record,
    own_record,
    query_of,
)
from tests.web.signing_in import fields_of, forms, post, problem, submit

DAY = 86_400
WRITING = (
    "launch/patient openid fhirUser offline_access patient/Patient.rs"
    " patient/Observation.rs patient/QuestionnaireResponse.cruds"
)


@pytest.fixture
async def world() -> AsyncIterator[World]:
    world = await World.begin()
    take_in(
        world.app,
        apps_router(
            server=world.server,
            sessions=world.sessions,
            store=world.store,
            directory=world.directory,
            log=world.store.log,
            clock=world.clock,
            random=world.random,
        ),
    )
    yield world
    world.close()


def connections_of(world: World) -> Connections:
    return Connections(
        world.store,
        directory=world.directory,
        keys=world.keys,
        notices=OutboxConnectionNotices(),
        lifetimes=world.server.lifetimes,
        clock=world.clock,
        random=world.random,
    )


async def at_apps(world: World, username: str = "mara@example.org") -> Browser:
    browser = world.browser()
    await browser.open(APPS)
    await submit(browser, "/signin", username=username, password=PASSWORD)
    assert browser.heading == "Connected apps", browser.text
    return browser


def connection_id(browser: Browser) -> str:
    """The one connection on the page."""
    (action,) = {
        form.get("action")
        for form in browser.document.xpath("//form")
        if "/end" in form.get("action")
    }
    return str(action.split("/")[3])


async def end(browser: Browser, connection: str) -> Any:
    return await submit(browser, f"{APPS}/{connection}/end")


async def told(world: World) -> list[tuple[str, str]]:
    found = await world.store.every(OutboxMessage)
    return sorted((one.template, one.to) for one in found)


def a_proxys_way(until: float | None = None) -> Any:
    """How Dana may use Mara's record."""
    return replace(
        own_record(),
        relation="daughter",
        fhir_user="RelatedPerson/dana-for-mara",
        grant="Consent/mara-to-dana",
        sections=frozenset({"results", "demographics"}),
        until=until,
    )


async def of_a_proxy(world: World) -> tuple[Account, App, dict[str, Any]]:
    """Dana connected an app to Mara's record."""
    dana = await world.account("dana@example.org", a_proxys_way())
    app = await world.public_app("danas-app", name="Family Planner")
    mara, world.mara = world.mara, dana
    tokens = await app.tokens()
    world.mara = mara
    return dana, app, tokens


# --- what a page shows ----------------------------------------------------------------------------


async def test_nobody_sees_them_unless_signed_in(world: World) -> None:
    for path in (APPS, f"{APPS}/x", f"{RECEIPTS}/x"):
        response = await world.browser().http.get(path)
        assert response.headers["location"] == f"/signin?then={APPS}"


async def uses(world: World, client: str, what: str, times: int) -> None:
    at = int(world.clock() * 1000)
    row = AccessRow(
        at, "skin", "mara", "read", what, 200, client, "patient", "Patient/mara", world.mara.key
    )
    await world.store.log.append([row] * times)


async def test_an_app_cannot_hide_what_another_read(world: World) -> None:
    """However much it reads itself: each app's use is looked up for itself."""
    quiet = await world.public_app("quiet", name="Quiet App")
    await quiet.tokens()
    world.clock.advance(60)
    await uses(world, "quiet", "Condition/c", 37)
    world.clock.advance(60)
    await uses(world, "noisy", "Patient/mara", 5000)
    await uses(world, "quiet-too", "Patient/mara", 10)
    browser = await at_apps(world)
    assert "Health problems and diagnoses: 37 times" in browser.text
    assert "Only the latest uses" not in browser.text


async def test_what_was_not_counted_is_not_said_to_be_nothing(world: World) -> None:
    app = await world.public_app()
    await app.tokens()
    world.clock.advance(60)
    await uses(world, app.client_id, "Condition/c", 1)
    row = AccessRow(
        int(world.clock() * 1000),
        "skin",
        "mara",
        "read",
        "Patient/x",
        403,
        app.client_id,
        "patient",
        "Patient/mara",
        world.mara.key,
    )
    await world.store.log.append([row] * 5000)
    browser = await at_apps(world)
    assert "Has read Not known" in browser.text.replace("  ", " ")
    assert "Nothing" not in browser.text


async def test_a_period_is_told_in_days(world: World) -> None:
    app = await world.public_app(scope=SCOPE)
    browser = world.browser()
    await browser.authorize(app)
    await browser.sign_in()
    period = {"data_from": "2024-01-01", "data_to": "2024-12-31"}
    answer = await browser.submit({"scope": browser.boxes(), "decision": "approve", **period})
    await app.exchange(query_of(answer.headers["location"])["code"])
    browser = await at_apps(world)
    assert "from 1 January 2024 to 31 December 2024" in browser.text
    for raw in ("date=", "ge2024", "lt2025", "1 January 2025"):
        assert raw not in browser.text


async def test_a_page_says_which_app_since_when_and_until_when(world: World) -> None:
    app = await world.public_app()
    browser = await at_apps(world)
    assert "No app is connected" in browser.text
    await app.tokens()
    world.clock.advance(600)
    await browser.open(APPS)
    assert "Heart Diary" in browser.text
    assert "Mara Quill (your own record), Hillside Dermatology" in browser.text
    assert "Not used yet" in browser.text
    assert "17 March 2030" in browser.text  # since
    assert "17 March 2031 at the latest" in browser.text
    (seen,) = browser.document.xpath("//p[span[text()='See']]/following-sibling::ul[1]")
    titles = [one.text_content() for one in seen.xpath("li")]
    assert titles[0] == "Name, contact details and other personal details"
    assert titles[1].startswith("Test results")
    assert browser.page.headers["cache-control"] == "no-store"
    assert "frame-ancestors 'none'" in browser.page.headers["content-security-policy"]


async def test_what_was_read_is_counted_from_the_log_of_that_record_and_app(world: World) -> None:
    app = await world.public_app()
    await app.tokens()
    world.clock.advance(60)

    def row(what: str, interaction: str = "search-type", **changes: Any) -> AccessRow:
        values: dict[str, Any] = {
            "at": int(world.clock() * 1000),
            "practice": "skin",
            "record": "mara",
            "interaction": interaction,
            "what": what,
            "status": 200,
            "client": "app",
            "context": "patient",
            "agent": "Patient/mara",
            "account": world.mara.key,
            **changes,
        }
        return AccessRow(**values)

    await world.store.log.append(
        [
            row("Observation"),
            row("Observation/one", "read"),
            row("Patient/mara", "read"),
            row("QuestionnaireResponse/q", "create", status=201),
            row("Coverage", status=403),
            # None of these is this app, this person, this record, or since then.
            row("Condition", client="another"),
            row("Condition", agent="RelatedPerson/x", account="other"),
            row("Condition", record="pip"),
            row("Condition", practice="family"),
            row("Condition", at=int((START - 10) * 1000)),
            row("Condition", account="another account"),
        ]
    )
    world.clock.advance(3600)
    browser = await at_apps(world)
    assert "1 hour ago" in browser.text
    assert "Test results, vital signs and other observations: 2 times" in browser.text
    assert "Name, contact details and other personal details: 1 time" in browser.text
    assert "Filled-in forms: 1 time" in browser.text
    assert "1 time it asked for what it may not have" in browser.text
    assert "Health problems" not in browser.text


async def test_without_staying_connected_it_is_gone_when_its_token_is(world: World) -> None:
    app = await world.public_app()
    await app.tokens(scope="launch/patient patient/Observation.rs")
    browser = await at_apps(world)
    assert "It did not ask to stay connected" in browser.text
    world.clock.advance(901)
    await browser.open(APPS)
    assert "No app is connected" in browser.text


async def test_two_devices_are_one_connection(world: World) -> None:
    app = await world.public_app()
    first, second = await app.tokens(), await app.tokens()
    browser = await at_apps(world)
    await end(browser, connection_id(browser))
    for tokens in (first, second):
        assert not await world.is_alive(tokens["access_token"])
        assert (await app.refresh(tokens["refresh_token"])).status_code == 400
    assert "(access tokens): 2" in browser.text
    assert "(refresh tokens): 2" in browser.text


# --- ending ---------------------------------------------------------------------------------------


async def test_ending_kills_everything_of_that_app_at_once(world: World) -> None:
    app, other = await world.public_app(), await world.public_app("other", name="Other")
    tokens, kept = await app.tokens(), await other.tokens()
    code = await app.code()
    browser = await at_apps(world)
    (action,) = [
        one.get("action")
        for one in browser.document.xpath('//section[h2[starts-with(., "Heart Diary")]]//form')
    ]
    await submit(browser, action)
    assert not await world.is_alive(tokens["access_token"])
    assert (await app.refresh(tokens["refresh_token"])).json()["error"] == "invalid_grant"
    assert (await app.exchange(code)).json()["error"] == "invalid_grant"
    assert await world.is_alive(kept["access_token"])
    assert (await other.refresh(kept["refresh_token"])).status_code == 200
    assert "(codes): 1" in browser.text
    assert await told(world) == [("app-ended", f"account:{world.mara.key}")]


async def test_the_receipt_is_dated_numbered_and_opens_again(world: World) -> None:
    app = await world.public_app()
    await app.tokens()
    world.clock.advance(DAY)
    browser = await at_apps(world)
    await end(browser, connection_id(browser))
    assert browser.heading == "Receipt: access ended"
    (receipt,) = await world.store.every(Receipt)
    address = f"{RECEIPTS}/{receipt.key}"
    assert browser.page.url.path == address
    assert len(receipt.key) == 24
    for text in ("18 March 2030, 17:46 UTC", "Heart Diary", "Mara Quill", "mara@example.org"):
        assert text in browser.text
    await browser.open(APPS)
    assert "No app is connected" in browser.text
    assert browser.document.xpath(f'//a[@href="{address}"]')
    world.clock.advance(400 * DAY)
    again = await at_apps(world)
    await again.open(address)
    assert "18 March 2030, 17:46 UTC" in again.text


async def test_the_receipt_of_what_a_practice_ended_says_so(world: World) -> None:
    app = await world.public_app()
    tokens = await app.tokens()
    connections = connections_of(world)
    (found,) = await connections.of(world.mara)
    with pytest.raises(UnknownConnection):
        await connections.end(world.mara, found.id, practice="family")
    assert await world.is_alive(tokens["access_token"])
    receipt = await connections.end(world.mara, found.id, practice="skin")
    assert not await world.is_alive(tokens["access_token"])
    browser = await at_apps(world)
    await browser.open(f"{RECEIPTS}/{receipt.key}")
    assert "The practice" in browser.text
    assert "You, signed in as" not in browser.text
    assert await told(world) == [("app-ended-by-practice", f"account:{world.mara.key}")]


async def test_ending_twice_gives_the_same_receipt(world: World) -> None:
    app = await world.public_app()
    await app.tokens()
    browser = await at_apps(world)
    connection = connection_id(browser)
    data = fields_of(forms(browser, f"{APPS}/{connection}/end")[0])
    first = await post(browser, f"{APPS}/{connection}/end", data)
    second = await post(browser, f"{APPS}/{connection}/end", data)
    assert first.url == second.url
    assert first.text == second.text
    assert len(await world.store.every(Receipt)) == 1
    assert len(await told(world)) == 1


async def test_ending_ten_times_at_once_gives_one_receipt(world: World) -> None:
    app = await world.public_app()
    await app.tokens()
    connections = connections_of(world)
    (found,) = await connections.of(world.mara)
    receipts = await asyncio.gather(*(connections.end(world.mara, found.id) for _ in range(10)))
    assert len({receipt.key for receipt in receipts}) == 1
    assert len(await world.store.every(Receipt)) == 1


async def test_ended_and_connected_again_it_can_be_ended_again(world: World) -> None:
    app = await world.public_app()
    await app.tokens()
    browser = await at_apps(world)
    connection = connection_id(browser)
    await end(browser, connection)
    world.clock.advance(60)
    tokens = await app.tokens()
    await browser.open(APPS)
    assert connection_id(browser) == connection
    await end(browser, connection)
    assert not await world.is_alive(tokens["access_token"])
    assert len(await world.store.every(Receipt)) == 2


async def test_what_fails_on_the_way_ends_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One transaction: the notice that cannot be written takes all of it back."""
    app = await world.public_app()
    tokens = await app.tokens()
    before = await world.rows()
    browser = await at_apps(world)

    async def broken(*_: object, **__: object) -> bool:
        raise OSError("no room left")

    monkeypatch.setattr("fhir_portal.notify.outbox.enqueue", broken)
    response = await end(browser, connection_id(browser))
    assert response.status_code == 500
    assert await world.is_alive(tokens["access_token"])
    assert await world.rows() == before
    assert await world.store.every(Receipt) == []


@pytest.mark.parametrize("order", [0, 1])
async def test_a_refresh_that_races_the_end_gets_nothing_to_keep(world: World, order: int) -> None:
    app = await world.public_app()
    tokens = await app.tokens()
    connections = connections_of(world)
    (found,) = await connections.of(world.mara)
    both = [
        connections.end(world.mara, found.id),
        app.refresh(tokens["refresh_token"]),
    ]
    results: list[Any] = await asyncio.gather(*(both if order else reversed(both)))
    answer = results[1] if order else results[0]
    assert (await world.only_family()).ended is not None
    assert await world.store.every(AccessToken) == []
    if answer.status_code == 200:  # it was first: what it got is over all the same
        tokens = answer.json()
        assert not await world.is_alive(tokens["access_token"])
    again = await app.refresh(tokens["refresh_token"])
    assert again.json()["error"] == "invalid_grant"


async def test_one_record_of_a_consent_for_several_can_be_ended_alone(world: World) -> None:
    world.directory.access[world.mara.key] = (own_record(), childs_record())
    app = await world.public_app()
    tokens = await listed(app, (OWN, PIP))
    connections = connections_of(world)
    of_pip, of_mara = sorted(await connections.of(world.mara), key=lambda one: one.practice)
    assert (of_pip.patient, of_mara.patient) == ("Patient/pip", "Patient/mara")
    await connections.end(world.mara, of_pip.id)
    assert [one.patient for one in await connections.of(world.mara)] == ["Patient/mara"]
    assert await world.is_alive(tokens["access_token"])
    assert (await swap(app, tokens["access_token"])).json()["error"] == "invalid_target"
    assert (await swap(app, tokens["access_token"], OWN)).status_code == 200
    receipt = await connections.end(world.mara, of_mara.id)
    assert receipt.held == {"access-token": 2, "refresh-token": 1, "code": 0}
    assert not await world.is_alive(tokens["access_token"])
    assert (await app.refresh(tokens["refresh_token"])).status_code == 400


async def test_narrowing_one_of_several_records_outlives_a_refresh(world: World) -> None:
    world.directory.access[world.mara.key] = (own_record(), childs_record())
    app = await world.public_app()
    tokens = await listed(app, (OWN, PIP))
    connections = connections_of(world)
    of_pip, _ = sorted(await connections.of(world.mara), key=lambda one: one.practice)
    ends = START + 3 * DAY
    await connections.narrow(world.mara, of_pip.id, Change(frozenset({"Observation"}), until=ends))
    refreshed = (await app.refresh(tokens["refresh_token"])).json()
    got = await swap(app, refreshed["access_token"])
    assert got.status_code == 200, got.text
    assert "patient/Patient" not in got.json()["scope"]
    world.clock.advance(3 * DAY)
    refreshed = (await app.refresh(refreshed["refresh_token"])).json()
    got = await swap(app, refreshed["access_token"])
    assert got.json()["error"] in ("invalid_target", "invalid_grant")
    assert [one.patient for one in await connections.of(world.mara)] == ["Patient/mara"]


# --- attacks --------------------------------------------------------------------------------------


async def test_anothers_connection_and_none_are_answered_alike(world: World) -> None:
    app = await world.public_app()
    tokens = await app.tokens()
    owner = await at_apps(world)
    theirs = connection_id(owner)
    evil = await world.account("eve@example.org", own_record("Patient/eve", "Eve Else"))
    eve = await at_apps(world, "eve@example.org")
    mara_app_token = fields_of(forms(owner, f"{APPS}/{theirs}/end")[0])["form_token"]
    nobodys = "A" * len(theirs)
    seen = {(await eve.http.get(f"{APPS}/{one}")).text for one in (theirs, nobodys)}
    assert len(seen) == 1
    assert NOT_THERE in seen.pop()
    for one in (theirs, nobodys):
        assert (await eve.http.get(f"{APPS}/{one}")).status_code == 404
        for action in ("end", "change"):
            response = await eve.http.post(
                f"{APPS}/{one}/{action}", data={"form_token": mara_app_token}
            )
            assert response.status_code == 403
    # Below the pages, where no form is asked for:
    connections = connections_of(world)
    with pytest.raises(UnknownConnection):
        await connections.end(evil, theirs)
    with pytest.raises(UnknownConnection):
        await connections.narrow(evil, theirs, Change(frozenset({"Patient"})))
    assert await world.is_alive(tokens["access_token"])


async def test_a_receipt_is_for_those_it_concerns(world: World) -> None:
    app = await world.public_app()
    await app.tokens()
    browser = await at_apps(world)
    await end(browser, connection_id(browser))
    address = browser.page.url.path
    await world.account("eve@example.org", own_record("Patient/eve", "Eve Else"))
    eve = await at_apps(world, "eve@example.org")
    theirs, nobodys = await eve.http.get(address), await eve.http.get(f"{RECEIPTS}/{'a' * 24}")
    assert theirs.status_code == nobodys.status_code == 404
    assert theirs.text == nobodys.text


@pytest.mark.parametrize("action", ["end", "change"])
async def test_a_form_that_is_not_ours_does_nothing(world: World, action: str) -> None:
    app = await world.public_app()
    tokens = await app.tokens()
    other_app = await world.public_app("other", name="Other")
    browser = await at_apps(world)
    connection = connection_id(browser)
    await other_app.tokens()
    await browser.open(APPS)
    tokens_of_forms = {
        form.get("action"): fields_of(form)["form_token"]
        for form in browser.document.xpath("//form")
    }
    of_other = next(token for at, token in tokens_of_forms.items() if connection not in at)
    stranger = world.browser()
    await stranger.open("/signin")
    theirs = fields_of(forms(stranger, "/signin")[0])["form_token"]
    before = await world.rows()
    path = f"{APPS}/{connection}/{action}"
    for data in ({}, {"form_token": ""}, {"form_token": theirs}, {"form_token": of_other}):
        response = await browser.http.post(path, data={"keep": "Patient", **data})
        assert response.status_code == 403, data
    genuine = tokens_of_forms[f"{APPS}/{connection}/end"]
    response = await browser.http.post(
        path, data={"form_token": genuine}, headers={"Sec-Fetch-Site": "cross-site"}
    )
    assert response.status_code == 403
    assert (await browser.http.get(path)).status_code == 405  # a link or an image ends nothing
    assert await world.rows() == before
    assert await world.is_alive(tokens["access_token"])


# --- narrowing ------------------------------------------------------------------------------------


async def narrowed(browser: Browser, connection: str, **fields: Any) -> Any:
    await browser.open(f"{APPS}/{connection}")
    (form,) = forms(browser, f"{APPS}/{connection}/change")
    ticked = [one.get("value") for one in form.xpath('.//input[@name="keep"][@checked]')]
    data = {**fields_of(form), "keep": ticked, **fields}
    return await post(browser, f"{APPS}/{connection}/change", data)


async def test_types_are_dropped_from_the_next_request_on(world: World) -> None:
    app = await world.public_app()
    tokens = await app.tokens(scope=WRITING)
    browser = await at_apps(world)
    await narrowed(browser, connection_id(browser), keep=["Patient", "QuestionnaireResponse"])
    assert browser.heading == "Receipt: access narrowed"
    (token,) = await world.store.every(AccessToken)
    assert {one.resource_type for one in ScopeSet.parse(token.scope).resource} == {
        "Patient",
        "QuestionnaireResponse",
    }
    refreshed = await app.refresh(tokens["refresh_token"])
    assert refreshed.status_code == 200, refreshed.text
    assert "Observation" not in refreshed.json()["scope"]
    assert "offline_access" in refreshed.json()["scope"]
    wider = await app.refresh(refreshed.json()["refresh_token"], scope="patient/Observation.rs")
    assert wider.json()["error"] == "invalid_scope"
    assert await told(world) == [("app-narrowed", f"account:{world.mara.key}")]


async def test_writing_is_switched_off(world: World) -> None:
    app = await world.public_app()
    tokens = await app.tokens(scope=WRITING)
    browser = await at_apps(world)
    await narrowed(browser, connection_id(browser), read_only="yes")
    (token,) = await world.store.every(AccessToken)
    assert "patient/QuestionnaireResponse.rs" in token.scope.split()
    refreshed = (await app.refresh(tokens["refresh_token"])).json()
    assert "patient/QuestionnaireResponse.rs" in refreshed["scope"].split()
    await browser.open(f"{APPS}/{(await connections_of(world).of(world.mara))[0].id}")
    assert not browser.document.xpath('//input[@name="read_only"]')


async def test_an_earlier_end_holds_however_often_it_is_refreshed(world: World) -> None:
    app = await world.public_app()
    refresh_token = (await app.tokens())["refresh_token"]
    browser = await at_apps(world)
    await narrowed(browser, connection_id(browser), until="2030-03-20")
    assert "until 20 March 2030 at the latest The same as before." in browser.text
    for _ in range(3):
        world.clock.advance(DAY)
        refreshed = await app.refresh(refresh_token)
        assert refreshed.status_code == 200, refreshed.text
        refresh_token = refreshed.json()["refresh_token"]
    world.clock.advance(6 * 3600 + 14 * 60)  # 00:00:40 on the 21st
    assert not await world.is_alive(refreshed.json()["access_token"])
    assert (await app.refresh(refresh_token)).json()["error"] == "invalid_grant"


async def test_a_repeated_refresh_is_still_one_after_a_narrowing(world: World) -> None:
    """The lost answer is given again, narrowed: it is no reuse that would end everything."""
    app = await world.public_app()
    tokens = await app.tokens(scope=WRITING)
    first = await app.refresh(tokens["refresh_token"])
    connections = connections_of(world)
    (found,) = await connections.of(world.mara)
    await connections.narrow(world.mara, found.id, Change(frozenset({"Patient"})))
    again = await app.refresh(tokens["refresh_token"])
    assert again.status_code == 200, again.text
    assert again.json()["refresh_token"] == first.json()["refresh_token"]
    assert "Observation" not in again.json()["scope"]


async def test_nothing_widens(world: World) -> None:
    app = await world.public_app()
    await app.tokens(scope=f"{SCOPE} patient/QuestionnaireResponse.rs")
    browser = await at_apps(world)
    connection = connection_id(browser)
    before = await world.rows()
    attempts: list[dict[str, Any]] = [
        {"keep": ["Patient", "Condition"]},
        {"keep": ["Patient", "*"]},
        {"keep": ["patient/Patient.cruds"]},
        {"until": "2031-03-18"},
        {"until": "9999-12-31"},
        {"until": "2030-03-16"},
        {"until": "20300320"},
        {"until": "x"},
        {"keep": []},
        {},
        {"read_only": "yes"},
    ]
    for attempt in attempts:
        response = await narrowed(browser, connection, **attempt)
        assert response.status_code == 400, attempt
        assert problem(browser), attempt
    assert await world.rows() == before
    assert await world.store.every(Receipt) == []


async def test_a_second_narrowing_starts_from_the_first(world: World) -> None:
    """A page that was open before says less now: what it ticks is refused, not given back."""
    app = await world.public_app()
    await app.tokens(scope=WRITING)
    connections = connections_of(world)
    (found,) = await connections.of(world.mara)
    browser = await at_apps(world)
    await browser.open(f"{APPS}/{found.id}")
    (form,) = forms(browser, f"{APPS}/{found.id}/change")
    data: Any = {**fields_of(form), "keep": ["Patient", "Observation"]}
    await connections.narrow(
        world.mara, found.id, Change(frozenset({"Patient"}), until=START + 5 * DAY)
    )
    response = await post(browser, f"{APPS}/{found.id}/change", data)
    assert response.status_code == 400
    assert "has changed" in problem(browser)
    later = Change(frozenset({"Patient"}), until=START + 9 * DAY)
    with pytest.raises(WouldWiden):
        await connections.narrow(world.mara, found.id, later)
    assert "Observation" not in (await world.only_family()).scope
    assert (await world.only_family()).until == START + 5 * DAY


async def test_narrowing_takes_back_codes_that_were_not_exchanged(world: World) -> None:
    app = await world.public_app()
    await app.tokens(scope=WRITING)
    code = await app.code(scope=WRITING)
    browser = await at_apps(world)
    await narrowed(browser, connection_id(browser), keep=["Patient"])
    assert (await app.exchange(code)).json()["error"] == "invalid_grant"


# --- proxies --------------------------------------------------------------------------------------


async def test_an_adult_sees_and_ends_what_a_proxy_connected(world: World) -> None:
    dana, app, tokens = await of_a_proxy(world)
    mara = await at_apps(world)
    assert "Family Planner" in mara.text
    assert "Somebody else (daughter), who may use your record" in mara.text
    await end(mara, connection_id(mara))
    assert not await world.is_alive(tokens["access_token"])
    assert (await app.refresh(tokens["refresh_token"])).status_code == 400
    assert await told(world) == [
        ("app-ended", f"account:{world.mara.key}"),
        ("app-ended-by-record", f"account:{dana.key}"),
        ("app-made-by-proxy", "record:skin/Patient/mara"),
    ]
    address = mara.page.url.path
    at_danas = await at_apps(world, "dana@example.org")
    assert "No app is connected" in at_danas.text
    await at_danas.open(address)
    assert "The person whose record it is" in at_danas.text


async def test_a_childs_other_parent_sees_nothing_of_it(world: World) -> None:
    world.directory.access[world.mara.key] = (childs_record(),)
    app = await world.public_app()
    await app.tokens()
    other = replace(childs_record(), fhir_user="RelatedPerson/otto", grant="Consent/otto")
    await world.account("otto@example.org", other)
    browser = await at_apps(world, "otto@example.org")
    assert "No app is connected" in browser.text


async def test_a_proxy_sees_nothing_of_what_the_adult_connected(world: World) -> None:
    app = await world.public_app()
    await app.tokens()
    await world.account("dana@example.org", a_proxys_way())
    browser = await at_apps(world, "dana@example.org")
    assert "No app is connected" in browser.text


async def test_the_same_id_at_another_practice_is_another_record(world: World) -> None:
    dana = await world.account("dana@example.org", a_proxys_way())
    app = await world.public_app()
    mara, world.mara = world.mara, dana
    await app.tokens()
    world.mara = mara
    elsewhere = replace(own_record(), practice="family")
    await world.account("maya@example.org", elsewhere)
    browser = await at_apps(world, "maya@example.org")
    assert "No app is connected" in browser.text


async def test_a_proxy_whose_grant_ended_learns_nothing_and_can_clear_away(world: World) -> None:
    dana, _, _ = await of_a_proxy(world)
    await world.store.log.append(
        [
            AccessRow(
                at=int(world.clock() * 1000),
                practice="skin",
                record="mara",
                interaction="search-type",
                what="Observation",
                status=200,
                client="danas-app",
                context="patient",
                agent="RelatedPerson/dana-for-mara",
                account=dana.key,
            )
        ]
    )
    browser = await at_apps(world, "dana@example.org")
    assert "Mara Quill" in browser.text
    assert "observations: 1 time" in browser.text
    world.directory.access[dana.key] = ()
    await browser.open(APPS)
    assert "A record that you may no longer use" in browser.text
    assert "Mara Quill" not in browser.text
    assert "1 time" not in browser.text
    connection = connection_id(browser)
    await browser.open(f"{APPS}/{connection}")
    assert not forms(browser, f"{APPS}/{connection}/change")
    with pytest.raises(WouldWiden):
        await connections_of(world).narrow(dana, connection, Change(frozenset({"Patient"})))
    await end(browser, connection)
    assert browser.heading == "Receipt: access ended"
    assert "Mara Quill" not in browser.text
    assert "A record that you may no longer use" in browser.text


async def test_a_new_grant_is_no_way_for_what_the_old_one_allowed(world: World) -> None:
    dana, _, _ = await of_a_proxy(world)
    world.directory.access[dana.key] = (replace(a_proxys_way(), grant="Consent/another"),)
    (found,) = await connections_of(world).of(dana)
    assert not found.works


@pytest.mark.parametrize(
    ("birth_date", "adult"),
    [
        ("2012-03-17", True),  # the clock says 2030-03-17
        ("2012-03-18", False),
        ("2012-03", True),
        ("2012-04", False),
        ("2012", True),
        ("2013", False),
        ("1984-05-12", True),
        (None, True),
        ("unknown", True),
    ],
)
def test_who_is_of_age(birth_date: str | None, *, adult: bool) -> None:
    assert is_adult(birth_date, now=START) is adult


async def test_an_adult_is_told_when_a_proxy_connects_an_app(world: World) -> None:
    records = [own_record(), a_proxys_way(), childs_record()]
    writes = made_by_proxy(OutboxConnectionNotices(), records, once="a-consent", now=world.clock())

    async def keep(transaction: Any) -> None:
        for write in (*writes, *writes):  # a transaction may be run twice
            await write(transaction)

    await world.store.transact(keep)
    assert await told(world) == [("app-made-by-proxy", "record:skin/Patient/mara")]


async def test_a_notice_names_no_app_and_nothing_of_a_record(world: World) -> None:
    app = await world.public_app(name="Living With Psoriasis")
    await app.tokens()
    browser = await at_apps(world)
    await end(browser, connection_id(browser))
    (message,) = await world.store.every(OutboxMessage)
    text = msgspec.json.encode(message).decode()
    for hidden in ("Psoriasis", "Mara", "Patient/", "skin/Patient", "Observation"):
        assert hidden not in text


async def test_exchanged_codes_stay_to_be_known_when_replayed(world: World) -> None:
    app = await world.public_app()
    code = await app.code()
    await app.exchange(code)
    browser = await at_apps(world)
    await end(browser, connection_id(browser))
    assert len(await world.store.every(AuthorizationCode)) == 1
    assert (await world.store.every(TokenFamily))[0].ended_because == "by-person"


async def test_an_app_that_asked_for_it_is_told_in_the_same_transaction(world: World) -> None:
    app = await world.public_app()
    await app.tokens()

    async def listen(transaction: Any) -> None:
        await transaction.put(RevocationListener(key="app", uri="https://app.example/events"))

    await world.store.transact(listen)
    browser = await at_apps(world)
    await end(browser, connection_id(browser))
    (message,) = [
        one for one in await world.store.every(OutboxMessage) if one.template == ACCESS_ENDED
    ]
    assert (message.channel, message.to) == ("webhook", "https://app.example/events")
    assert reason_of(message.values["because"]) == "person"
