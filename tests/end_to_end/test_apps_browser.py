"""Connected apps, receipts and the developers' sandbox as people meet them, in Chromium.

Pictures of all pages are left in ``build/browser/pages``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta

import httpx
import pytest

from tests.end_to_end.browser import Browser, Driver, missing
from tests.end_to_end.demo import Demo
from tests.end_to_end.looks import NARROW, PICTURES, looked_at
from tests.end_to_end.person import PASSWORD, Person
from tests.end_to_end.test_pages_in_a_browser import CHALLENGE
from tests.places import new_place

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(bool(missing()), reason=missing() or "all is there"),
]
FOLDER = PICTURES / "pages"
CALLBACK = "http://127.0.0.1:8765/callback"
SCOPE = "launch/patient openid fhirUser offline_access patient/*.cruds"
VERIFIER = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"  # RFC 7636 appendix B


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    """A demo world of its own, on two workers: here people end what apps have."""
    folder = tmp_path_factory.mktemp("apps")
    demo = Demo(folder, new_place("file", folder))
    asyncio.run(demo.start())
    demo.command(
        *("client", "add", "Heart Diary", "--client-id", "heart-diary"),
        *("--redirect-uri", CALLBACK, "--scope", SCOPE),
    )
    yield demo
    demo.stop()


@pytest.fixture
def browser(driver: Driver) -> Iterator[Browser]:
    with driver.browser() as browser:
        yield browser


def connect(demo: Demo, person: Callable[[str], Person], username: str, record: str) -> str:
    """Have somebody connect the app to a record, and the app use it; its access token."""
    parameters = {
        "response_type": "code",
        "client_id": "heart-diary",
        "redirect_uri": CALLBACK,
        "scope": SCOPE,
        "state": "s",
        "aud": demo.fhir,
        "code_challenge": CHALLENGE,
        "code_challenge_method": "S256",
    }
    asked = httpx.URL(f"{demo.server.base}/oauth/authorize", params=parameters)
    back = httpx.URL(person(username).visit(str(asked), back_to=CALLBACK, record=record))
    form = {
        "grant_type": "authorization_code",
        "code": back.params["code"],
        "redirect_uri": CALLBACK,
        "client_id": "heart-diary",
        "code_verifier": VERIFIER,
    }
    answer = httpx.post(f"{demo.server.base}/oauth/token", data=form)
    assert answer.status_code == 200, answer.text
    token = str(answer.json()["access_token"])
    for asked_for in ("Observation", "Observation?category=laboratory", record):
        assert read(demo, token, asked_for) == 200
    return token


def read(demo: Demo, token: str, what: str) -> int:
    """The status that a read is answered with, by a worker that has no connection open to us."""
    headers = {"Authorization": f"Bearer {token}"}
    return httpx.get(f"{demo.fhir}/{what}", headers=headers).status_code


def apps(browser: Browser, demo: Demo, username: str) -> None:
    browser.open(f"{demo.server.base}/account/apps")
    browser.type("#username", username)
    browser.type("#password", PASSWORD)
    browser.follow("button.primary")
    assert browser.text("h1") == "Connected apps"


def test_access_is_narrowed_and_ended_without_javascript(
    browser: Browser, home: Demo, person: Callable[[str], Person]
) -> None:
    token = connect(home, person, "mara", "Patient/mara")
    assert read(home, token, "Observation") == 200
    browser.without_javascript()
    browser.resize(NARROW)
    apps(browser, home, "mara")
    assert "just now" in browser.text("main .facts")
    assert "Test results, vital signs and other observations: " in browser.text("main .facts")
    browser.follow("main section a")
    assert browser.text("h1") == "Heart Diary"
    browser.click('input[value="Observation"]')
    browser.click("#read-only")
    browser.follow("button.primary")
    assert browser.text("h1") == "Receipt: access narrowed"
    for _ in range(4):  # whichever worker answers
        assert read(home, token, "Observation") == 403
        assert read(home, token, "Patient/mara") == 200
    browser.follow("main > p a")
    browser.follow("section form button")
    assert browser.text("h1") == "Receipt: access ended"
    for _ in range(4):
        assert read(home, token, "Patient/mara") == 401
    receipt = browser.address
    browser.follow("main > p a")
    assert "No app is connected" in browser.text("main")
    browser.open(receipt)
    assert "Heart Diary" in browser.text("main")


def test_the_pages_fit_and_can_be_used_by_everybody(
    browser: Browser, home: Demo, person: Callable[[str], Person]
) -> None:
    connect(home, person, "mara", "Patient/mara")
    connect(home, person, "mara", "Patient/juno")
    apps(browser, home, "mara")
    looked_at(browser, FOLDER, "apps")
    browser.follow("main section a")
    looked_at(browser, FOLDER, "apps-change")
    end = datetime.now(UTC).date() + timedelta(days=30)
    browser.evaluate("document.getElementById('until').value = arguments[0]", end.isoformat())
    browser.follow("button.primary")
    assert browser.text("h1") == "Receipt: access narrowed"
    looked_at(browser, FOLDER, "receipt-narrowed")
    browser.follow("main > p a")
    browser.follow("main section a")
    browser.evaluate("document.querySelectorAll('[name=keep]').forEach((box) => box.click())")
    browser.follow("button.primary")
    assert browser.text("[role=alert]").startswith("That leaves the app nothing")
    looked_at(browser, FOLDER, "apps-problem")
    browser.follow("section form button")
    looked_at(browser, FOLDER, "receipt-ended")
    browser.open(f"{home.server.base}/account/apps/nothing-here")
    looked_at(browser, FOLDER, "apps-not-found")


def test_ending_by_keyboard(browser: Browser, home: Demo, person: Callable[[str], Person]) -> None:
    token = connect(home, person, "silas", "Patient/silas")
    apps(browser, home, "silas")
    for _ in range(12):
        browser.press("Tab")
        assert browser.outlined
        if browser.focused.startswith("End access"):
            break
    assert browser.focused.startswith("End access of Heart Diary to the record of Silas")
    browser.press("Enter")
    browser.wait_for("h1", "Receipt: access ended")
    assert read(home, token, "Patient/silas") == 401


def test_the_sandbox_launches_reads_and_gives_its_token_back(browser: Browser, home: Demo) -> None:
    browser.open(f"{home.server.base}/developers")
    looked_at(browser, FOLDER, "developers")
    browser.follow("#sandbox-start")
    browser.type("#username", "mara")
    browser.type("#password", PASSWORD)
    browser.follow("button.primary")
    browser.click('input[value="Patient/mara"]')
    browser.follow("button")
    assert browser.text("h1").startswith("Allow Developer sandbox")
    browser.follow('button[value="approve"]')
    browser.wait_for("#sandbox-state", "Done")
    assert browser.address == f"{home.server.base}/developers"
    assert '"patient": "mara"' in browser.text("#sandbox-token")
    assert '"resourceType": "Patient"' in browser.text("#sandbox-found")
    looked_at(browser, FOLDER, "developers-done")
    browser.click("#sandbox-revoke")
    browser.wait_for(
        "#sandbox-state", "The token is given back. Used again, it is answered with 401"
    )


def test_the_sandbox_takes_no_answer_it_did_not_ask_for(browser: Browser, home: Demo) -> None:
    browser.open(f"{home.server.base}/developers?code=x&state=y&iss={home.server.base}")
    browser.wait_for("#sandbox-state", "It did not work: this page did not ask for that")
    assert browser.address == f"{home.server.base}/developers"
