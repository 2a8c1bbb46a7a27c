"""oidc-client-ts from npm, in Chromium: a page that signs people in by OpenID Connect.

It knows nothing of SMART: only ``aud`` is added to what it sends.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlencode

import pytest

from tests.end_to_end.browser import Browser, Driver, missing, served_app
from tests.end_to_end.demo import Demo
from tests.end_to_end.test_fhirclient_browser import approve, choose, sign_in

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(bool(missing()), reason=missing() or "all is there"),
]
SCOPE = "launch/patient openid fhirUser offline_access patient/Patient.rs patient/Observation.rs"


@pytest.fixture(scope="module")
def app(demo: Demo) -> Iterator[str]:
    """The origin of the app, registered as ``oidc-app``."""
    with served_app() as origin:
        demo.command(
            *("client", "add", "Page app", "--client-id", "oidc-app", "--scope", SCOPE),
            *("--redirect-uri", f"{origin}/oidc.html"),
        )
        yield origin


@pytest.fixture
def browser(driver: Driver) -> Iterator[Browser]:
    with driver.browser() as browser:
        yield browser


def leave(browser: Browser, demo: Demo, app: str, **more: Any) -> None:
    """Have the app send the browser to the server."""
    settings = {
        "authority": demo.server.base,
        "client_id": "oidc-app",
        "scope": SCOPE,
        "extraQueryParams": {"aud": demo.fhir},
        **more,
    }
    browser.open(f"{app}/oidc.html?{urlencode({'settings': json.dumps(settings)})}")
    browser.wait_for("h1", "Sign in", "Whose record?", "Allow")


def come_back(browser: Browser, record: str = "Patient/juno") -> None:
    """Sign in, choose, allow; back at the app."""
    sign_in(browser, "mara")
    choose(browser, record)
    approve(browser, "Allow Page app")
    assert browser.wait_for("#state", "done", "failed") == "done"


def user(browser: Browser) -> dict[str, Any]:
    """What the library holds of the person and the tokens."""
    found: dict[str, Any] = browser.awaited("manager.getUser()")
    return found


def read(browser: Browser, address: str) -> dict[str, Any]:
    found: dict[str, Any] = browser.awaited("read(arguments[0])", address)
    return found


@pytest.mark.parametrize("way", ["bearer", "bound"])
def test_a_page_signs_in_reads_and_renews(browser: Browser, demo: Demo, app: str, way: str) -> None:
    """The renewal is silent: by refresh token, without a page; with DPoP it keeps its key."""
    leave(browser, demo, app, bound=way == "bound")
    come_back(browser)
    first = user(browser)
    assert first["token_type"] == ("DPoP" if way == "bound" else "Bearer")
    assert set(first["scope"].split()) == set(SCOPE.split())
    profile = first["profile"]
    assert (profile["iss"], profile["aud"]) == (demo.server.base, "oidc-app")
    assert profile["fhirUser"].startswith(f"{demo.fhir}/RelatedPerson/")
    assert read(browser, f"{demo.fhir}/Patient/juno")["resource"]["id"] == "juno"
    assert read(browser, f"{demo.fhir}/Patient/mara")["status"] == 404

    where = browser.address
    browser.awaited("manager.signinSilent()")
    renewed = user(browser)
    assert browser.address == where
    assert renewed["access_token"] != first["access_token"]
    assert renewed["refresh_token"] != first["refresh_token"]
    assert renewed["profile"]["sub"] == profile["sub"]
    assert read(browser, f"{demo.fhir}/Patient/juno")["status"] == 200


def test_a_stolen_token_is_of_no_use_without_its_key(
    browser: Browser, demo: Demo, app: str
) -> None:
    leave(browser, demo, app, bound=True)
    come_back(browser)
    token = user(browser)["access_token"]
    for scheme in ("Bearer", "DPoP"):
        status = browser.awaited(
            "fetch(arguments[0], {headers: {authorization: arguments[1]}}).then((a) => a.status)",
            f"{demo.fhir}/Patient/juno",
            f"{scheme} {token}",
        )
        assert status == 401


def test_what_the_app_revokes_has_ended(browser: Browser, demo: Demo, app: str) -> None:
    """Signing out of an app: it revokes what it holds. There is no page that signs one out here."""
    leave(browser, demo, app)
    come_back(browser)
    assert "end_session_endpoint" not in browser.awaited("manager.metadataService.getMetadata()")
    assert read(browser, f"{demo.fhir}/Patient/juno")["status"] == 200
    token = user(browser)["access_token"]
    assert browser.awaited("manager.revokeTokens(['refresh_token'])") is None
    assert user(browser)["refresh_token"] is None
    assert user(browser)["access_token"] == token
    assert read(browser, f"{demo.fhir}/Patient/juno")["status"] == 401
    browser.awaited("manager.removeUser()")
    assert user(browser) is None


def test_the_page_is_told_of_a_no(browser: Browser, demo: Demo, app: str) -> None:
    leave(browser, demo, app)
    sign_in(browser, "mara")
    choose(browser, "Patient/mara")
    browser.wait_for("h1", "Allow")
    browser.follow('button[value="deny"]')
    assert "said no" in browser.wait_for("#state", "done", "failed")
    assert user(browser) is None
