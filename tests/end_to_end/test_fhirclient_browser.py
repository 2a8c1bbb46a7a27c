"""fhirclient from npm, the SMART JS client, in Chromium: an app of another origin.

The app's page comes from ``localhost``, the server is ``127.0.0.1``: another origin and another
site, so tokens and records pass through CORS, and cookies obey SameSite.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import pytest

from tests.end_to_end.browser import Browser, Driver, missing, served_app
from tests.end_to_end.demo import Demo, ids
from tests.end_to_end.person import PASSWORD
from tests.end_to_end.test_backend_client import a_key

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(bool(missing()), reason=missing() or "all is there"),
]
SCOPE = "launch/patient openid fhirUser offline_access patient/*.rs"
HELD = "Observation/mara-a1c-held"  # a result that the practice has not released


@pytest.fixture(scope="module")
def app(demo: Demo) -> Iterator[str]:
    """The origin of the app, registered as ``page-app``."""
    with served_app() as origin:
        demo.command(
            *("client", "add", "Page app", "--client-id", "page-app", "--scope", SCOPE),
            *("--redirect-uri", f"{origin}/index.html"),
        )
        yield origin


@pytest.fixture
def browser(driver: Driver) -> Iterator[Browser]:
    with driver.browser() as browser:
        yield browser


def launch(
    browser: Browser,
    demo: Demo,
    app: str,
    scope: str = SCOPE,
    client_id: str = "page-app",
    **more: Any,
) -> None:
    """Open the app; ``more`` are options of the library beyond the usual."""
    query = urlencode({"iss": demo.fhir, "client_id": client_id, "scope": scope})
    browser.open(f"{app}/launch.html?{query}#{quote(json.dumps(more))}")
    browser.wait_for("h1", "Sign in", "Whose record?", "Allow")


def sign_in(browser: Browser, username: str) -> None:
    browser.type("#username", username)
    browser.type("#password", PASSWORD)
    browser.follow("button.primary")


def choose(browser: Browser, patient: str) -> None:
    browser.wait_for("h1", "Whose record?")
    browser.click(f'input[value="{patient}"]')
    browser.follow("button")


def approve(browser: Browser, heading: str) -> None:
    browser.wait_for("h1", heading)
    browser.follow('button[value="approve"]')


def expected(demo: Demo, search: str) -> set[str]:
    return ids(asyncio.run(demo.searched(search))) - {HELD}


def test_a_patient_reads_the_own_record(browser: Browser, demo: Demo, app: str) -> None:
    launch(browser, demo, app)
    sign_in(browser, "mara")
    choose(browser, "Patient/mara")
    approve(browser, "Allow Page app to use your record?")
    assert browser.wait_for("#state", "done", "failed") == "done"
    assert browser.address.startswith(f"{app}/index.html")
    assert browser.text("#patient") == "mara"
    assert browser.text("#name") == "Mara Ellwick"
    assert browser.text("#user") == "Patient/mara"
    for kind in ("Observation", "DocumentReference"):
        everything = expected(demo, f"{kind}?patient=mara")
        assert everything
        assert browser.text(f"#{kind}") == str(len(everything))
    assert browser.text("#refreshed") == "mara"


@pytest.mark.parametrize("alg", ["ES384", "RS384"])
def test_an_app_with_a_key_reads_the_record(
    browser: Browser, demo: Demo, app: str, tmp_path: Path, alg: str
) -> None:
    """It names the address of its keys in ``jku`` too, and that counts for nothing here.

    To its refreshes the library adds no assertion, so they are refused.
    """
    key = a_key(alg)
    keys = tmp_path / "jwks.json"
    keys.write_text(json.dumps({"keys": [key.as_dict(private=False)]}))
    client_id = f"page-app-{alg.lower()}"
    demo.command(
        *("client", "add", "Page app", "--client-id", client_id, "--type", "confidential"),
        *("--auth-method", "private_key_jwt", "--jwks", str(keys), "--scope", SCOPE),
        *("--redirect-uri", f"{app}/index.html"),
    )
    private = {**key.as_dict(private=True), "key_ops": ["sign"]}
    private.pop("use")
    elsewhere = "https://keys.example/jwks.json"
    asked = (browser, demo, app, SCOPE, client_id)
    launch(*asked, clientPrivateJwk=private, clientPublicKeySetUrl=elsewhere)
    sign_in(browser, "mara")
    choose(browser, "Patient/mara")
    approve(browser, "Allow Page app to use your record?")
    assert browser.wait_for("#state", "done", "failed") == "done"
    assert browser.text("#patient") == "mara"
    assert browser.text("#refreshed") == "refused: 401"

    launch(*asked, clientPrivateJwk=another(private, alg), clientPublicKeySetUrl=elsewhere)
    choose(browser, "Patient/juno")
    approve(browser, "Allow Page app to use the record of Juno")
    assert browser.wait_for("#state", "done", "failed").startswith("failed")


def another(jwk: dict[str, Any], alg: str) -> dict[str, Any]:
    """A key of somebody else under the same name."""
    other = {**a_key(alg).as_dict(private=True), "key_ops": ["sign"], "kid": jwk["kid"]}
    other.pop("use")
    return other


def test_an_app_with_a_secret_reads_and_refreshes(browser: Browser, demo: Demo, app: str) -> None:
    added = demo.command(
        *("client", "add", "Page app", "--client-id", "page-app-secret", "--scope", SCOPE),
        *("--type", "confidential", "--redirect-uri", f"{app}/index.html", "--json"),
    )
    secret = json.loads(added)["client_secret"]
    launch(browser, demo, app, SCOPE, "page-app-secret", clientSecret=secret)
    sign_in(browser, "mara")
    choose(browser, "Patient/mara")
    approve(browser, "Allow Page app to use your record?")
    assert browser.wait_for("#state", "done", "failed") == "done"
    assert browser.text("#Observation") == str(len(expected(demo, "Observation?patient=mara")))
    assert browser.text("#refreshed") == "mara"
    launch(browser, demo, app, SCOPE, "page-app-secret", clientSecret=f"{secret}x")
    choose(browser, "Patient/juno")
    approve(browser, "Allow Page app to use the record of Juno")
    assert browser.wait_for("#state", "done", "failed").startswith("failed")


def test_a_proxy_reads_the_sections_of_the_grant(browser: Browser, demo: Demo, app: str) -> None:
    launch(browser, demo, app)
    sign_in(browser, "mara")
    choose(browser, "Patient/juno")
    approve(browser, "Allow Page app to use the record of Juno")
    assert browser.wait_for("#state", "done", "failed") == "done"
    assert browser.text("#patient") == "juno"
    assert browser.text("#user").startswith("RelatedPerson/")
    documents = expected(demo, "DocumentReference?patient=juno")
    assert browser.text("#DocumentReference") == str(len(documents))
    assert int(browser.text("#Observation")) > 0


def test_a_proxy_gets_nothing_of_a_missing_section(browser: Browser, demo: Demo, app: str) -> None:
    assert demo.sections("oskar", "Patient/juno").isdisjoint({"documents", "visits"})
    assert expected(demo, "DocumentReference?patient=juno")
    launch(browser, demo, app)
    sign_in(browser, "oskar")
    choose(browser, "Patient/juno")  # also when there is no other: whose record it is, is seen
    approve(browser, "Allow Page app to use the record of Juno")
    assert browser.wait_for("#state", "done", "failed") == "done"
    assert browser.text("#user").startswith("RelatedPerson/")
    assert browser.text("#DocumentReference") == "refused: 403"  # it was not offered
    assert int(browser.text("#Observation")) > 0


def test_what_was_unticked_is_refused_to_the_app(browser: Browser, demo: Demo, app: str) -> None:
    launch(browser, demo, app)
    sign_in(browser, "mara")
    choose(browser, "Patient/mara")
    browser.wait_for("h1", "Allow")
    browser.click('input[value="patient/DocumentReference.rs"]')
    approve(browser, "Allow")
    assert browser.wait_for("#state", "done", "failed") == "done"
    assert browser.text("#DocumentReference") == "refused: 403"
    assert "patient/DocumentReference.rs" not in browser.text("#scope")


def test_a_second_launch_asks_for_no_password(browser: Browser, demo: Demo, app: str) -> None:
    """The session lives in the browser: on the way from another site its cookie is sent too."""
    launch(browser, demo, app)
    sign_in(browser, "mara")
    choose(browser, "Patient/mara")
    approve(browser, "Allow")
    browser.wait_for("#state", "done")
    launch(browser, demo, app)
    choose(browser, "Patient/juno")
    approve(browser, "Allow")
    browser.wait_for("#state", "done")
    assert browser.text("#patient") == "juno"


def test_the_app_is_told_of_a_no(browser: Browser, demo: Demo, app: str) -> None:
    launch(browser, demo, app)
    sign_in(browser, "mara")
    choose(browser, "Patient/mara")
    browser.wait_for("h1", "Allow")
    browser.follow('button[value="deny"]')
    assert "said no" in browser.wait_for("#state", "done", "failed")
    assert browser.address.startswith(f"{app}/index.html")


def test_a_page_of_an_unknown_origin_reads_no_answer(
    browser: Browser, demo: Demo, app: str
) -> None:
    """Only the origins of registered redirect URIs may read; discovery is for everybody."""
    reading = "fetch(arguments[0], {headers: {Authorization: 'Bearer x'}})"
    asking = "fetch(arguments[0], {method: 'POST', body: new URLSearchParams()})"
    reading, asking = (f"{one}.then((answer) => answer.status)" for one in (reading, asking))
    discovery = "fetch(arguments[0]).then((answer) => answer.status)"
    smart = f"{demo.fhir}/.well-known/smart-configuration"
    patient, token = f"{demo.fhir}/Patient/mara", f"{demo.server.base}/oauth/token"

    browser.open(f"{app}/launch.html")
    assert browser.awaited(reading, patient) == 401
    assert browser.awaited(asking, token) == 400
    assert browser.awaited(discovery, smart) == 200
    with served_app() as stranger:
        browser.open(f"{stranger}/launch.html")
        assert browser.awaited(reading, patient) == "failed: TypeError: Failed to fetch"
        assert browser.awaited(asking, token) == "failed: TypeError: Failed to fetch"
        assert browser.awaited(discovery, smart) == 200
