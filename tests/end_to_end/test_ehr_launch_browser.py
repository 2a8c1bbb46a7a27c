"""An EHR opens fhirclient (npm) on a patient, in Chromium, and a member of staff signs in."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlencode

import pytest

from tests.end_to_end.browser import Browser, Driver, missing, served_app
from tests.end_to_end.demo import Demo
from tests.end_to_end.test_backend_client import a_key
from tests.end_to_end.test_fhirclient_browser import HELD, approve, sign_in

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(bool(missing()), reason=missing() or "all is there"),
]
PATIENT = "launch openid fhirUser patient/*.rs"
USER = "launch openid fhirUser offline_access user/*.rs"
EHR, STAFF = "launching-ehr", "noor"
ON_MARA = {"patient": "Patient/mara", "intent": "review-results", "need_patient_banner": False}


@pytest.fixture(scope="module")
def app(demo: Demo) -> Iterator[str]:
    """The origin of an app that Marrowbrook's staff may use, and not Quillfern's."""
    with served_app() as origin:
        for client_id, scope in (("chart-app", PATIENT), ("list-app", USER)):
            demo.command(
                *("client", "add", "Chart app", "--client-id", client_id, "--scope", scope),
                *("--redirect-uri", f"{origin}/index.html", "--practice", "marrowbrook"),
            )
        yield origin


@pytest.fixture(scope="module")
def key(demo: Demo, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The private key of an EHR that may launch apps."""
    key = a_key("ES384")
    file = tmp_path_factory.mktemp("ehr") / "jwks.json"
    file.write_text(json.dumps({"keys": [key.as_dict(private=False)]}))
    demo.command(
        *("client", "add", "Launching EHR", "--client-id", EHR, "--type", "backend"),
        *("--practice", "marrowbrook", "--permission", "launch", "--scope", "system/*.rs"),
        *("--jwks", str(file)),
    )
    return dict(key.as_dict(private=True))


@pytest.fixture
def browser(driver: Driver) -> Iterator[Browser]:
    with driver.browser() as browser:
        yield browser


def launched(demo: Demo, key: dict[str, Any], context: dict[str, Any] = ON_MARA) -> str:
    """What the EHR gets for what its screen shows."""

    async def post() -> str:
        async with demo.ehr(EHR, key) as ehr:
            answer = await ehr.post(f"{demo.server.base}/oauth/launch", json=context)
            assert answer.status_code == 201, answer.text
            return str(answer.json()["launch"])

    return asyncio.run(post())


def open_app(browser: Browser, demo: Demo, app: str, launch: str, client_id: str) -> None:
    """Do what the EHR does: open the app with ``iss`` and ``launch``."""
    scope = {"chart-app": PATIENT, "list-app": USER}[client_id]
    more = {"client_id": client_id, "scope": scope}
    browser.open(f"{app}/launch.html?{urlencode({'iss': demo.fhir, 'launch': launch, **more})}")


@pytest.mark.parametrize(
    ("client_id", "heading"),
    [
        ("chart-app", "Allow Chart app to use the record of Mara"),
        ("list-app", "Allow Chart app to use the records of Marrowbrook"),
    ],
)
def test_staff_see_in_the_app_what_the_ehr_shows(
    browser: Browser, demo: Demo, app: str, key: dict[str, Any], client_id: str, heading: str
) -> None:
    """No record is asked for: it is the one on the screen, with what is held back from Mara."""
    open_app(browser, demo, app, launched(demo, key), client_id)
    browser.wait_for("h1", "Sign in")
    sign_in(browser, STAFF)
    approve(browser, heading)
    assert browser.wait_for("#state", "done", "failed") == "done"
    assert browser.text("#patient") == "mara"
    assert browser.text("#user").startswith("Practitioner/")
    screen = json.loads(browser.text("#screen"))
    assert screen == {"intent": "review-results", "need_patient_banner": False}
    found = asyncio.run(demo.searched("Observation?patient=mara"))
    assert HELD in {f"Observation/{one['id']}" for one in found}
    assert browser.text("#Observation") == str(len(found))


def test_the_patient_on_the_screen_may_sign_in_too(
    browser: Browser, demo: Demo, app: str, key: dict[str, Any]
) -> None:
    open_app(browser, demo, app, launched(demo, key), "chart-app")
    browser.wait_for("h1", "Sign in")
    sign_in(browser, "mara")
    approve(browser, "Allow Chart app to use your record?")
    assert browser.wait_for("#state", "done", "failed") == "done"
    assert browser.text("#user") == "Patient/mara"


@pytest.mark.parametrize("username", ["femi", "silas"])
def test_who_may_not_see_the_record_gets_nothing_by_a_launch(
    browser: Browser, demo: Demo, app: str, key: dict[str, Any], username: str
) -> None:
    """Another practice's staff, and another patient: a launch gives no right."""
    open_app(browser, demo, app, launched(demo, key), "chart-app")
    browser.wait_for("h1", "Sign in")
    sign_in(browser, username)
    assert not browser.has("button[value=approve]")
    assert "Mara" not in browser.text("body")


def test_a_launch_opens_an_app_once(
    browser: Browser, demo: Demo, app: str, key: dict[str, Any]
) -> None:
    launch = launched(demo, key)
    open_app(browser, demo, app, launch, "chart-app")
    browser.wait_for("h1", "Sign in")
    sign_in(browser, STAFF)
    approve(browser, "Allow Chart app to use the record of Mara")
    assert browser.wait_for("#state", "done", "failed") == "done"
    open_app(browser, demo, app, launch, "chart-app")
    assert browser.wait_for("#state", "failed")


def test_a_made_up_launch_opens_nothing(browser: Browser, demo: Demo, app: str) -> None:
    open_app(browser, demo, app, "x" * 43, "chart-app")
    assert browser.wait_for("#state", "failed")
