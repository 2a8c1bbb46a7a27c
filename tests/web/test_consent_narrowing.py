"""What a person leaves out on the consent page, and what apps are told about who acts for whom.

Each attack was seen to succeed with the fault that its docstring names.
"""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator
from datetime import UTC, date, datetime
from typing import Any

import pytest
from joserfc import jwt

from fhir_portal.consent.record import RecordAccess
from fhir_portal.smart.authorization import AuthorizationRequest
from fhir_portal.smart.code import AuthorizationCode
from fhir_portal.smart.narrowing import Narrowing
from fhir_portal.smart.offer import SUB_RESOURCES
from fhir_portal.smart.scope import ScopeSet
from fhir_portal.smart.token import AccessToken, TokenFamily, token_hash
from tests.smart.several import DETAILS, KIT, OWN, PIP, a_family, swap
from tests.smart.several import SCOPE as SEVERAL
from tests.smart.world import (
    BASE,
    START,
    App,
    Browser,
    World,
    assert_oauth_error,
    assert_redirect_error,
    childs_record,
    own_record,
    published_keys,
    query_of,
)
from tests.web.fhir_world import FhirWorld, ids, observation

DAY = 86_400.0
ROLE = "https://fhir-portal.example/ig/proxy-role/"
OBSERVATION, CONDITION, PATIENT = (
    "patient/Observation.rs",
    "patient/Condition.rs",
    "patient/Patient.rs",
)
WRITES = "patient/QuestionnaireResponse.crus"
SCOPE = f"launch/patient openid fhirUser offline_access {PATIENT} {OBSERVATION} {CONDITION}"
CATEGORIES = {
    CONDITION: [f"{CONDITION}?{query}" for query in SUB_RESOURCES["Condition"]],
    OBSERVATION: [f"{OBSERVATION}?{query}" for query in SUB_RESOURCES["Observation"]],
}


@pytest.fixture
async def world() -> AsyncIterator[World]:
    world = await World.begin()
    yield world
    world.close()


@pytest.fixture
async def app(world: World) -> App:
    return await world.confidential_app()


async def asked(world: World, app: App, scope: str = SCOPE, record: str = "") -> Browser:
    """A browser in which Mara sees the consent page."""
    browser = world.browser()
    await browser.authorize(app, scope=scope)
    await browser.sign_in()
    if record:
        await browser.submit({"record": record})
    assert browser.heading.startswith("Allow Heart Diary"), browser.text
    return browser


async def answer(browser: Browser, *ticked: str, **limits: Any) -> str:
    """Allow what is ticked, or what the page has ticked; returns the code."""
    fields = {"scope": list(ticked) or browser.boxes(ticked=True), "decision": "approve", **limits}
    response = await browser.submit(fields)
    assert "location" in response.headers, browser.text
    return query_of(response.headers["location"])["code"]


async def tokens(app: App, code: str) -> dict[str, Any]:
    response = await app.exchange(code)
    assert response.status_code == 200, response.text
    body: dict[str, Any] = response.json()
    return body


async def introspected(app: App, token: str) -> dict[str, Any]:
    response = await app.post("/oauth/introspect", {"token": token})
    body: dict[str, Any] = response.json()
    return body


def id_token(world: World, body: dict[str, Any]) -> dict[str, Any]:
    keys = published_keys(world.keys.jwks())
    return dict(jwt.decode(body["id_token"], keys, algorithms=["RS256"]).claims)


def resources(scope: str) -> list[str]:
    return [word for word in scope.split() if word.startswith("patient/")]


def problem(browser: Browser) -> str:
    (said,) = browser.document.xpath('//p[@role="alert"]')
    return str(" ".join(said.text_content().split()))


def field(browser: Browser, name: str) -> Any:
    (found,) = browser.document.xpath(f'//input[@name="{name}"]')
    return found


async def refused(world: World, browser: Browser, **fields: Any) -> None:
    """The answer changes nothing, and the app is told nothing."""
    before = await world.rows()
    response = await browser.submit({"decision": "approve", **fields})
    assert response.status_code == 400, browser.text
    assert "location" not in response.headers
    assert await world.rows() == before


# --- types and categories (G10, G23) ------------------------------------------------------------


async def test_only_the_ticked_types_are_granted(world: World, app: App) -> None:
    """G10."""
    asked_for = f"launch/patient openid fhirUser offline_access {PATIENT} patient/*.rs"
    browser = await asked(world, app, asked_for)
    assert "patient/Goal.rs" in browser.boxes(ticked=True)
    body = await tokens(app, await answer(browser, PATIENT, CONDITION, OBSERVATION))
    assert set(resources(body["scope"])) == {PATIENT, CONDITION, OBSERVATION}
    assert "patient/*" not in body["scope"]


async def test_the_categories_are_listed_under_their_type_and_unticked(
    world: World, app: App
) -> None:
    browser = await asked(world, app)
    for parent, children in CATEGORIES.items():
        at = browser.boxes().index(parent)
        assert browser.boxes()[at + 1 : at + 1 + len(children)] == children
        assert not set(children) & set(browser.boxes(ticked=True))
    for words in ("Problem list", "Health concerns", "Diagnoses made at visits"):
        assert words in browser.text
    for words in ("Clinical tests", "Laboratory results", "Social history", "Vital signs"):
        assert words in browser.text


async def test_chosen_categories_take_the_place_of_their_type(world: World, app: App) -> None:
    """G23: at least one of each, and the type's own scope of neither."""
    browser = await asked(world, app)
    problems, labs = CATEGORIES[CONDITION][1], CATEGORIES[OBSERVATION][1]
    ticked = [*browser.boxes(ticked=True), problems, labs]
    body = await tokens(app, await answer(browser, *ticked))
    assert set(resources(body["scope"])) == {PATIENT, problems, labs}
    assert (await introspected(app, body["access_token"]))["scope"] == body["scope"]
    again = (await app.refresh(body["refresh_token"], scope=body["scope"])).json()
    assert again["scope"] == body["scope"]


async def test_staying_connected_can_be_refused(world: World, app: App) -> None:
    browser = await asked(world, app)
    body = await tokens(app, await answer(browser, OBSERVATION))
    assert "offline_access" not in body["scope"]
    assert "refresh_token" not in body


# --- reading only -------------------------------------------------------------------------------


async def test_only_looking_drops_what_writes(world: World, app: App) -> None:
    browser = await asked(world, app, f"{PATIENT} {WRITES}")
    code = await answer(browser, PATIENT, WRITES, only_reading="yes")
    body = await tokens(app, code)
    assert body["scope"] == f"{PATIENT} patient/QuestionnaireResponse.rs"


async def test_only_looking_is_offered_where_something_is_written(world: World, app: App) -> None:
    browser = await asked(world, app)
    assert browser.document.xpath('//input[@name="only_reading"]') == []
    browser = await asked(world, app, f"{PATIENT} {WRITES}")
    box = field(browser, "only_reading")
    assert box.get("checked") is None
    assert browser.document.xpath(f'//label[@for="{box.get("id")}"]')


@pytest.mark.parametrize("value", ["no", "0", "on", "yes yes"])
async def test_a_forged_wish_to_only_look_is_no_wish_to_write(
    world: World, app: App, value: str
) -> None:
    """Seen to fail with ``only_reading=form.get("only_reading") == "yes"`` alone: a box with
    another value counted as not ticked, and the app was let write."""
    browser = await asked(world, app, f"{PATIENT} {WRITES}")
    await refused(world, browser, scope=[PATIENT, WRITES], only_reading=value)


async def test_a_wish_to_only_look_that_leaves_nothing_is_said(world: World, app: App) -> None:
    browser = await asked(world, app, "patient/Communication.c patient/QuestionnaireResponse.c")
    await refused(world, browser, scope=browser.boxes(), only_reading="yes")
    assert problem(browser).startswith("With these limits nothing is left.")


# --- the end ------------------------------------------------------------------------------------


async def test_the_end_is_asked_for_with_its_bounds(world: World, app: App) -> None:
    browser = await asked(world, app)
    until = field(browser, "until")
    assert (until.get("type"), until.get("value")) == ("date", "")
    assert (until.get("min"), until.get("max")) == ("2030-03-17", "2031-03-17")
    assert browser.document.xpath('//label[@for="until"]')
    assert browser.document.get_element_by_id(until.get("aria-describedby")) is not None
    assert "The latest is 17 March 2031." in browser.text


async def test_a_day_ends_access_and_refresh_at_its_midnight(world: World, app: App) -> None:
    """Seen to fail on the very moment with ``now <= found.expires`` in `authenticate`; with
    ``family.until`` left out of `access_token_row`; and with ``before.until`` left out of
    `family_expires` (the refresh then bought 92 days)."""
    end = datetime(2030, 3, 19, tzinfo=UTC).timestamp()
    browser = await asked(world, app)
    body = await tokens(app, await answer(browser, until="2030-03-18"))
    assert (await introspected(app, body["refresh_token"]))["exp"] == end
    world.clock.now = end - 600
    again = (await app.refresh(body["refresh_token"])).json()
    assert again["expires_in"] == 600
    assert (await world.only_family()).expires == end
    for token in (again["access_token"], again["refresh_token"]):
        assert (await introspected(app, token))["exp"] == end
    world.clock.now = end - 0.5
    assert await world.is_alive(again["access_token"])
    assert (await introspected(app, again["access_token"]))["active"] is True
    assert_oauth_error(await app.refresh(again["refresh_token"]), "invalid_grant")
    world.clock.now = end
    assert not await world.is_alive(again["access_token"])
    for token in (again["access_token"], again["refresh_token"]):
        assert await introspected(app, token) == {"active": False}
    assert_oauth_error(await app.refresh(again["refresh_token"]), "invalid_grant")


async def test_a_code_is_not_good_after_the_end(world: World, app: App) -> None:
    """Seen to fail without the ``min`` over ``approval.until`` in ``save_authorization_code``."""
    end = datetime(2030, 3, 18, tzinfo=UTC).timestamp()
    world.clock.now = end - 20
    browser = await asked(world, app)
    code = await answer(browser, until="2030-03-17")
    (stored,) = await world.store.every(AuthorizationCode)
    assert (stored.good_until, stored.until) == (end, end)
    world.clock.now = end
    assert_oauth_error(await app.exchange(code), "invalid_grant")
    world.clock.now = end - 2
    assert (await tokens(app, code))["expires_in"] == 2


async def test_the_day_is_one_of_the_practices_zone(world: World, app: App) -> None:
    chicago = dataclasses.replace(own_record(), zone="America/Chicago")
    world.directory.access[world.mara.key] = (chicago,)
    browser = await asked(world, app)
    await answer(browser, until="2030-03-18")
    (code,) = await world.store.every(AuthorizationCode)
    assert code.until == datetime(2030, 3, 19, 5, tzinfo=UTC).timestamp()


@pytest.mark.parametrize(
    "until",
    [
        *("2030-03-16", "1970-01-01", "2031-03-18", "2999-12-31", "9999-12-31", "0001-01-01"),
        *("99999", "2030-02-30", "tomorrow", "2030-03-18T23:59:59Z", "-1", "2030-03-18 ", "NaN"),
    ],
)
async def test_a_past_or_absurd_end_is_refused(world: World, app: App, until: str) -> None:
    """Seen to fail with a clamp instead of the refusal in ``EndDates.end_of``: a past day bought
    tokens, a far one was silently another."""
    browser = await asked(world, app)
    ticked = [PATIENT, CATEGORIES[CONDITION][0]]
    await refused(world, browser, scope=ticked, until=until)
    assert field(browser, "until").get("value") == until
    assert field(browser, "until").get("aria-invalid") == "true"
    assert "problem" in field(browser, "until").get("aria-describedby").split()
    assert problem(browser)
    assert browser.boxes(ticked=True) == ticked  # what was filled in is not lost
    assert browser.document.xpath("string(//title)").startswith("Problem: ")


async def test_no_end_reaches_beyond_the_grant(world: World, app: App) -> None:
    """Seen to fail with ``grants`` left out of ``EndDates.of``."""
    world.directory.access[world.mara.key] = (childs_record(until=START + 2 * DAY),)
    browser = await asked(world, app, f"offline_access {OBSERVATION}", "Patient/pip")
    assert field(browser, "until").get("max") == "2030-03-19"
    await refused(world, browser, scope=[OBSERVATION], until="2030-03-20")
    await answer(browser, OBSERVATION, "offline_access", until="2030-03-19")
    (code,) = await world.store.every(AuthorizationCode)
    assert code.until == START + 2 * DAY  # its own moment, not that day's midnight


async def test_an_end_stays_where_it_was_put_when_the_app_asks_again(
    world: World, app: App
) -> None:
    """Seen to fail without ``family.until is None`` in ``may_be_skipped``: the app asked again for
    the same, nobody was asked, and the new tokens lived for a year."""
    scope = f"openid offline_access {OBSERVATION}"
    browser = await asked(world, app, scope)
    await tokens(app, await answer(browser, until="2030-03-18"))
    await browser.authorize(app, scope=scope)
    assert browser.heading.startswith("Allow")
    assert_redirect_error(
        await browser.authorize(app, scope=scope, prompt="none"), "consent_required"
    )


async def test_less_than_was_asked_for_is_asked_about_again(world: World, app: App) -> None:
    """Seen to fail with ``covers`` looking at the types alone."""
    scope = f"openid {OBSERVATION}"
    browser = await asked(world, app, scope)
    await tokens(app, await answer(browser, OBSERVATION, data_from="2029-01-01"))
    await browser.authorize(app, scope=scope)
    assert browser.heading.startswith("Allow")


# --- a period of data ---------------------------------------------------------------------------


async def test_a_period_is_in_the_granted_scope(world: World, app: App) -> None:
    browser = await asked(world, app, f"offline_access {SCOPE}")
    labs = CATEGORIES[OBSERVATION][1]
    ticked = [PATIENT, OBSERVATION, labs, CONDITION, "offline_access"]
    body = await tokens(
        app, await answer(browser, *ticked, data_from="2029-01-01", data_to="2029-12-31")
    )
    granted = [
        PATIENT,
        f"{labs}&date=ge2029-01-01&date=lt2030-01-01",
        f"{CONDITION}?recorded-date=ge2029-01-01&recorded-date=lt2030-01-01",
    ]
    assert set(resources(body["scope"])) == set(granted)
    again = (await app.refresh(body["refresh_token"])).json()
    assert again["scope"] == body["scope"]


async def test_a_period_is_held_in_every_answer(fhir: FhirWorld) -> None:
    """Seen to fail with `_scope` of ``Narrowing`` returning the scope without its bounds."""
    auth = await fhir.ehr()
    for own_id, at in (
        ("before", "2028-12-31T23:59:59Z"),
        ("first", "2029-01-01"),
        ("last", "2029-12-31T23:59:59Z"),
        ("after", "2030-01-01T00:00:00Z"),
    ):
        body = observation(own_id, at=at)
        await fhir.perform(auth, "update", "Observation", own_id, body=body)
    undated = {k: v for k, v in observation("undated").items() if k != "effectiveDateTime"}
    await fhir.perform(auth, "update", "Observation", "undated", body=undated)
    whole = ScopeSet.parse(f"{OBSERVATION} patient/Patient.rs")
    granted = Narrowing(data_from=date(2029, 1, 1), data_to=date(2029, 12, 31)).applied(
        whole, "UTC"
    )
    for token, scope in (("a-token-of-all-there-is", whole), ("a-token-of-one-year-xx", granted)):
        await fhir.insert(
            AccessToken(
                key=token_hash(token),
                expires=START + 3600,
                issued=START,
                client_id="app",
                context="patient",
                scope=str(scope),
                practice="derm",
                patient="Patient/anna",
                fhir_user="Patient/anna",
                account="acc-a",
            )
        )
    async with fhir.client("a-token-of-all-there-is") as client:
        found = (await client.get("/fhir/Observation")).json()
        assert len(ids(found)) == 5
    async with fhir.client("a-token-of-one-year-xx") as client:
        found = (await client.get("/fhir/Observation?_total=accurate")).json()
        assert sorted(ids(found)) == ["Observation/first", "Observation/last"]
        assert found["total"] == 2
        included = (await client.get("/fhir/Patient?_revinclude=Observation:subject")).json()
        assert sorted(ids(included, mode="include")) == ["Observation/first", "Observation/last"]
        for own_id, status in (("first", 200), ("before", 404), ("after", 404), ("undated", 404)):
            assert (await client.get(f"/fhir/Observation/{own_id}")).status_code == status
            history = await client.get(f"/fhir/Observation/{own_id}/_history")
            assert history.status_code == status
        forged = (await client.get("/fhir/Observation?date=ge2000-01-01")).json()
        assert sorted(ids(forged)) == ["Observation/first", "Observation/last"]


async def test_what_has_no_date_is_said(world: World, app: App) -> None:
    browser = await asked(world, app, "patient/*.rs")
    hint = browser.document.get_element_by_id("period-hint").text_content()
    assert "These days do not limit what has none" in hint
    assert "Insurance cards and coverage" in hint
    for name in ("data_from", "data_to"):
        assert field(browser, name).get("aria-describedby").split() == ["period-hint"]
        assert browser.document.xpath(f'//label[@for="{name}"]')


@pytest.mark.parametrize(
    "period",
    [
        {"data_from": "2029-01-02", "data_to": "2029-01-01"},
        {"data_from": "2029-01-01&category=x"},
        {"data_to": "2029-01-01 patient/*.cruds"},
        {"data_from": "ge2029-01-01"},
        {"data_to": "0000-00-00"},
    ],
)
async def test_a_period_that_is_none_is_refused(
    world: World, app: App, period: dict[str, str]
) -> None:
    """Seen to fail with the text of the field put into the scope as it came: it added scopes."""
    browser = await asked(world, app)
    await refused(world, browser, scope=[OBSERVATION], **period)
    assert problem(browser)


# --- attacks on the form ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "forged",
    [
        "patient/*.cruds",
        "patient/Observation.cruds",
        "patient/Goal.rs",
        f"{OBSERVATION}?date=ge1900-01-01",
        f"patient/Goal.rs?{SUB_RESOURCES['Condition'][0]}",
        "patient/Observation.cruds?" + SUB_RESOURCES["Observation"][0],
        "user/Observation.rs",
        "system/Observation.rs",
        "offline_access openid",
        f"{OBSERVATION} patient/Goal.rs",
        "online_access",
        "patient/observation.rs",
        "",
    ],
)
async def test_a_forged_tick_grants_nothing(world: World, app: App, forged: str) -> None:
    """Seen to fail without the ``issuperset`` in ``ConsentOffer.granted``: for what it skips
    silently there, the answer went on as if the person had not been tricked."""
    browser = await asked(world, app)
    await refused(world, browser, scope=[OBSERVATION, forged])


async def test_categories_of_a_type_nobody_asked_for_grant_nothing(world: World, app: App) -> None:
    """Seen to fail with ``SUB_RESOURCES`` of all types among the offered texts."""
    browser = await asked(world, app, OBSERVATION)
    page = browser.page
    for child in CATEGORIES[CONDITION]:
        browser.page = page
        await refused(world, browser, scope=[OBSERVATION, child])


async def test_categories_of_a_type_the_grant_leaves_out_grant_nothing(
    world: World, app: App
) -> None:
    """Seen to fail with the offer made of what was asked, without the grant (``narrowed``)."""
    world.directory.access[world.mara.key] = (childs_record(),)
    browser = await asked(world, app, SCOPE, "Patient/pip")
    assert CONDITION not in browser.boxes()  # health-summary is not in the grant
    page = browser.page
    for forged in (CONDITION, *CATEGORIES[CONDITION]):
        browser.page = page
        await refused(world, browser, scope=[OBSERVATION, forged])


async def test_offline_access_cannot_be_slipped_in(world: World, app: App) -> None:
    """Seen to fail with ``OFFLINE_ACCESS`` always among the offered texts."""
    browser = await asked(world, app, f"openid {OBSERVATION}")
    await refused(world, browser, scope=[OBSERVATION, "offline_access"])


@pytest.mark.parametrize("name", ["until", "only_reading", "data_from", "data_to"])
async def test_a_limit_comes_once(world: World, app: App, name: str) -> None:
    """Seen to fail with ``dict(pairs)`` for ``once_each``: the last of two ends counted."""
    browser = await asked(world, app)
    values = ["yes", ""] if name == "only_reading" else ["2030-03-18", ""]
    await refused(world, browser, scope=[OBSERVATION], **{name: values})


async def test_the_address_says_nothing_of_what_is_granted(world: World, app: App) -> None:
    """Seen to fail with the pairs of the query string read before those of the body."""
    browser = await asked(world, app)
    (form,) = browser.document.xpath("//form")
    hidden = {one.get("name"): one.get("value") for one in form.xpath('.//input[@type="hidden"]')}
    response = await browser.http.post(
        "/oauth/consent?scope=patient/Patient.rs&until=2031-03-17&decision=deny",
        data={**hidden, "scope": [OBSERVATION], "until": "2030-03-18", "decision": "approve"},
    )
    body = await tokens(app, query_of(response.headers["location"])["code"])
    assert resources(body["scope"]) == [OBSERVATION]
    (family,) = await world.store.every(TokenFamily)
    assert family.until == datetime(2030, 3, 19, tzinfo=UTC).timestamp()


async def test_a_tick_that_comes_twice_counts_once(world: World, app: App) -> None:
    browser = await asked(world, app)
    body = await tokens(app, await answer(browser, OBSERVATION, OBSERVATION))
    assert resources(body["scope"]) == [OBSERVATION]


async def test_the_form_cannot_be_sent_again_for_more(world: World, app: App) -> None:
    """Seen to fail without the ``delete`` of the request in ``give``."""
    browser = await asked(world, app)
    page = browser.page
    await answer(browser, PATIENT, until="2030-03-18")
    before = await world.rows()
    browser.page = page
    fields = {"scope": [OBSERVATION, CONDITION, "offline_access"], "decision": "approve"}
    response = await browser.submit(fields)
    assert response.status_code == 400
    assert await world.rows() == before


async def test_a_refusal_asks_nothing_of_the_limits(world: World, app: App) -> None:
    browser = await asked(world, app)
    response = await browser.submit({"decision": "deny", "until": "never", "data_from": "x"})
    assert_redirect_error(response, "access_denied")
    assert await world.store.every(AuthorizationRequest) == []


# --- a grant that ends meanwhile ----------------------------------------------------------------


async def test_a_grant_that_was_shortened_is_looked_at_again(world: World, app: App) -> None:
    """Seen to fail without ``record.until`` in ``about``."""
    world.directory.access[world.mara.key] = (childs_record(START + 9 * DAY),)
    browser = await asked(world, app, f"offline_access {OBSERVATION}", "Patient/pip")
    world.directory.access[world.mara.key] = (childs_record(START + 2 * DAY),)
    await refused(world, browser, scope=[OBSERVATION], until="2030-03-25")
    assert problem(browser) == "What this page was about has changed. Look at it again."
    assert field(browser, "until").get("max") == "2030-03-19"


@pytest.mark.parametrize("left", [(), (childs_record(START + 60),)])
async def test_a_grant_that_ends_while_the_answer_is_kept_gives_nothing_beyond_it(
    world: World, app: App, left: tuple[RecordAccess, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The page, its check and the code come before the end of the grant; redemption after it.

    Seen to fail with the record of the code row trusted at redemption (``_access`` not
    asked): the tokens lived for as long as the person had chosen.
    """
    world.directory.access[world.mara.key] = (childs_record(START + 9 * DAY),)
    browser = await asked(world, app, f"offline_access {OBSERVATION}", "Patient/pip")
    transact = world.store.transact

    async def late(work: Any) -> Any:
        world.directory.access[world.mara.key] = left
        return await transact(work)

    monkeypatch.setattr(world.store, "transact", late)
    code = await answer(browser, OBSERVATION, "offline_access", until="2030-03-20")
    response = await app.exchange(code)
    if not left:
        assert_oauth_error(response, "invalid_grant")
        assert await world.store.every(TokenFamily) == []
        return
    assert response.json()["expires_in"] == 60
    assert (await world.only_family()).expires == START + 60
    (*_, told) = response.json()["fhirContext"]
    assert told["identifier"]["value"] == "2030-03-17T17:47:40Z"


# --- who acts for whom --------------------------------------------------------------------------


def context(body: dict[str, Any]) -> dict[str, Any]:
    return {name: body.get(name) for name in ("patient", "fhirUser", "fhirContext")}


async def test_a_proxys_app_is_told_the_same_everywhere(world: World, app: App) -> None:
    """Seen to fail with `launch_context` left out of each of the three in turn."""
    record = dataclasses.replace(childs_record(START + 9 * DAY), act=frozenset({"forms"}))
    world.directory.access[world.mara.key] = (record,)
    browser = await asked(world, app, SCOPE, "Patient/pip")
    code = await answer(browser, until="2030-03-20")
    body = await tokens(app, code)
    assert context(body) == {
        "patient": "pip",
        "fhirUser": f"{BASE}/fhir/RelatedPerson/mara-for-pip",
        "fhirContext": [
            {
                "reference": "RelatedPerson/mara-for-pip",
                "type": "RelatedPerson",
                "role": f"{ROLE}related-person",
            },
            {
                "identifier": {"system": f"{ROLE}relationship", "value": "mother"},
                "type": "RelatedPerson",
                "role": f"{ROLE}relationship",
            },
            {"reference": "Consent/pip-to-mara", "type": "Consent", "role": f"{ROLE}grant"},
            *(
                {
                    "identifier": {
                        "system": "https://fhir-portal.example/ig/CodeSystem/portal-section",
                        "value": section,
                    },
                    "type": "Consent",
                    "role": f"{ROLE}{role}",
                }
                for role, section in (
                    ("section", "demographics"),
                    ("section", "forms"),
                    ("section", "results"),
                    ("act-section", "forms"),
                )
            ),
            {
                "identifier": {"system": f"{ROLE}access-ends", "value": "2030-03-21T00:00:00Z"},
                "type": "Consent",
                "role": f"{ROLE}access-ends",
            },
        ],
    }
    assert context(id_token(world, body)) == context(body)
    for token in (body["access_token"], body["refresh_token"]):
        assert context(await introspected(app, token)) == context(body)
    again = (await app.refresh(body["refresh_token"])).json()
    assert context(again) == context(body)


async def test_who_acts_is_told_as_it_is_now(world: World, app: App) -> None:
    """Seen to fail with the context of the consent kept in the family."""
    world.directory.access[world.mara.key] = (childs_record(),)
    browser = await asked(world, app, SCOPE, "Patient/pip")
    body = await tokens(app, await answer(browser))
    fewer = dataclasses.replace(childs_record(START + DAY), sections=frozenset({"results"}))
    world.directory.access[world.mara.key] = (fewer,)
    for told in (
        await introspected(app, body["access_token"]),
        (await app.refresh(body["refresh_token"])).json(),
    ):
        values = [one.get("identifier", {}).get("value") for one in told["fhirContext"]]
        assert values == [None, "mother", None, "results", "2030-03-18T17:46:40Z"]


async def test_without_the_scope_nobody_is_named(world: World, app: App) -> None:
    browser = await asked(world, app, f"openid {OBSERVATION}")
    body = await tokens(app, await answer(browser))
    told = (body, id_token(world, body), await introspected(app, body["access_token"]))
    for one in told:
        assert "fhirUser" not in one
        assert "fhirContext" not in one  # one's own record, and no end
        assert one["patient"] == "mara"


async def test_a_client_of_another_practice_is_told_nothing(world: World, app: App) -> None:
    """Seen to fail without `check_permission`'s comparison of the practices."""
    world.directory.access[world.mara.key] = (childs_record(),)
    browser = await asked(world, app, SCOPE, "Patient/pip")
    body = await tokens(app, await answer(browser))
    elsewhere = await world.backend("skin-api", permissions=["introspect"])
    assert await introspected(elsewhere, body["access_token"]) == {"active": False}


# --- what is asked for --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scope", "said"),
    [
        (f"{OBSERVATION}?code:in=http://v", "a modifier (name:modifier) in a scope"),
        (f"{OBSERVATION}?patient.name=x", "a chained parameter (name.name) in a scope"),
        (f"{OBSERVATION}?_filter=x", "_filter in a scope"),
        ("launch/patient?role=x", "a role for a launch scope"),
    ],
)
async def test_what_smart_marks_experimental_is_refused_by_name(
    world: World, app: App, scope: str, said: str
) -> None:
    response = await world.browser().authorize(app, scope=f"openid {scope}")
    assert_redirect_error(response, "invalid_scope")
    assert query_of(response.headers["location"])["error_description"] == (
        f"{said} is experimental in SMART 2.2 and is not supported here"
    )


@pytest.mark.parametrize(
    "query",
    [
        "code=http://loinc.org|8867-4",
        "status=final",
        "date=2029-01-01",
        "date=ge2029-01-01&date=lt2030-01-01",
        "category=laboratory&status=final",
        "performer=Practitioner/p",
        "value-quantity=5||mg",
    ],
)
async def test_a_scope_may_name_any_indexed_parameter(world: World, app: App, query: str) -> None:
    scope = f"{OBSERVATION}?{query}"
    browser = await asked(world, app, scope)
    assert (await tokens(app, await answer(browser, scope)))["scope"] == scope


@pytest.mark.parametrize("query", ["nonsense=x", "_id=x", "date=ap2029", "value-quantity=lt5"])
async def test_a_scope_that_cannot_be_held_is_not_granted(
    world: World, app: App, query: str
) -> None:
    """Seen to fail with ``understands`` always true: the token then showed nothing, or all."""
    response = await world.browser().authorize(app, scope=f"{OBSERVATION}?{query}")
    assert_redirect_error(response, "invalid_scope")


# --- several records in one answer --------------------------------------------------------------


async def test_several_records_are_ticked_shown_and_allowed_with_one_end(
    world: World, app: App
) -> None:
    await a_family(world)
    browser = world.browser()
    await browser.authorize(app, scope=SEVERAL, authorization_details=DETAILS)
    await browser.sign_in()
    boxes = browser.document.xpath('//input[@name="record"]')
    assert [(box.get("type"), box.get("value")) for box in boxes] == [
        ("checkbox", one) for one in (OWN, PIP, KIT)
    ]
    await browser.submit({"record": [OWN, KIT]})
    assert browser.heading == "Allow Heart Diary to use these 2 records?"
    for name, shown in (("Mara Quill", True), ("Kit Quill", True), ("Pip Quill", False)):
        assert (name in browser.text) is shown
    again = browser.document.xpath('string(//main//a[contains(., "Choose other")]/@href)')
    page = browser.page
    await browser.open(again)
    ticked = [
        box.get("value") for box in browser.document.xpath('//input[@name="record"][@checked]')
    ]
    assert ticked == [OWN, KIT]
    browser.page = page
    body = await tokens(app, await answer(browser, until="2030-03-18"))
    assert [one["identifier"] for one in body["authorization_details"]] == [OWN, KIT]
    end = datetime(2030, 3, 19, tzinfo=UTC).timestamp()
    assert {one.expires for one in await world.store.every(TokenFamily)} == {end}
    world.clock.now = end - 300
    again_listed = (await app.refresh(body["refresh_token"])).json()
    one = (await swap(app, again_listed["access_token"], KIT)).json()
    assert one["expires_in"] == 300
    (detail,) = one["authorization_details"]
    assert detail["fhirUser"] == f"{BASE}/fhir/RelatedPerson/mara-for-kit"
    assert one["fhirContext"][0]["reference"] == "RelatedPerson/mara-for-kit"
    (*_, told) = one["fhirContext"]
    assert told["identifier"]["value"] == "2030-03-19T00:00:00Z"


@pytest.mark.parametrize("values", [[OWN, PIP], [OWN, OWN], ["Patient/jon", OWN]])
async def test_one_record_is_chosen_where_one_was_asked_for(
    world: World, app: App, values: list[str]
) -> None:
    """Seen to fail with ``MOST_RECORDS`` as the bound of every choice in ``choose_records``."""
    await a_family(world)
    browser = world.browser()
    await browser.authorize(app)
    await browser.sign_in()
    before = await world.rows()
    assert (await browser.submit({"record": values})).status_code == 400
    assert await world.rows() == before
