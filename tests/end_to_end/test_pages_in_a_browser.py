"""The pages on the way to a token as people meet them: narrow and wide, by day and by night.

Pictures of all of them are left in ``build/browser/pages``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from urllib.parse import urlencode

import pytest

from tests.end_to_end.browser import Browser, Driver, missing, served_app
from tests.end_to_end.demo import Demo
from tests.end_to_end.looks import NARROW, PICTURES, looked_at
from tests.end_to_end.person import PASSWORD

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(bool(missing()), reason=missing() or "all is there"),
]
FOLDER = PICTURES / "pages"
SCOPE = "launch/patient openid fhirUser offline_access patient/*.cruds"
CHALLENGE = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"  # RFC 7636 appendix B

POSTED = """
const form = document.createElement("form");
form.method = "post";
form.action = arguments[0];
for (const [name, value] of Object.entries(arguments[1])) {
  const field = document.createElement("input");
  field.name = name;
  field.value = value;
  form.append(field);
}
document.body.append(form);
form.submit();
"""

PLACE = """
const reachable = "main :is(a[href], button, input:not([type=hidden]), select, textarea, summary)";
return [...document.querySelectorAll(reachable)].indexOf(document.activeElement);
"""  # of what has the focus, among all that can have it


@pytest.fixture(scope="module")
def app(demo: Demo) -> Iterator[str]:
    with served_app() as origin:
        demo.command(
            *("client", "add", "Heart Diary", "--client-id", "heart-diary"),
            *("--redirect-uri", f"{origin}/index.html"),
            *("--scope", "openid fhirUser launch/patient offline_access patient/*.cruds"),
        )
        yield origin


@pytest.fixture
def browser(driver: Driver) -> Iterator[Browser]:
    with driver.browser() as browser:
        yield browser


def parameters(demo: Demo, app: str, scope: str = SCOPE) -> dict[str, str]:
    return {
        "response_type": "code",
        "client_id": "heart-diary",
        "redirect_uri": f"{app}/index.html",
        "scope": scope,
        "state": "state",
        "aud": demo.fhir,
        "code_challenge": CHALLENGE,
        "code_challenge_method": "S256",
    }


def authorize(browser: Browser, demo: Demo, app: str, scope: str = SCOPE) -> None:
    query = urlencode(parameters(demo, app, scope))
    browser.open(f"{demo.server.base}/oauth/authorize?{query}")


def sign_in(browser: Browser, username: str, password: str = PASSWORD) -> None:
    browser.type("#username", username)
    browser.type("#password", password)
    browser.follow("button.primary")


def choose(browser: Browser, patient: str) -> None:
    browser.click(f'input[value="{patient}"]')
    browser.follow("button")


# --- each page, by the way that leads to it -------------------------------------------------------


def at_sign_in(browser: Browser, demo: Demo, app: str) -> None:
    authorize(browser, demo, app)


def at_wrong_password(browser: Browser, demo: Demo, app: str) -> None:
    authorize(browser, demo, app)
    sign_in(browser, "nobody-at-all", "not the password")


def at_picker(browser: Browser, demo: Demo, app: str) -> None:
    authorize(browser, demo, app)
    sign_in(browser, "mara")


def at_consent(browser: Browser, demo: Demo, app: str) -> None:
    at_picker(browser, demo, app)
    choose(browser, "Patient/mara")


def at_consent_of_proxy(browser: Browser, demo: Demo, app: str) -> None:
    at_picker(browser, demo, app)
    choose(browser, "Patient/juno")


def at_nothing_ticked(browser: Browser, demo: Demo, app: str) -> None:
    authorize(browser, demo, app, "launch/patient patient/Observation.rs")
    sign_in(browser, "silas")
    browser.click('input[value="patient/Observation.rs"]')
    browser.follow('button[value="approve"]')


def at_no_record(browser: Browser, demo: Demo, app: str) -> None:
    authorize(browser, demo, app)
    sign_in(browser, "ruben")


def at_error(browser: Browser, demo: Demo, app: str) -> None:
    authorize(browser, demo, f"{app}/elsewhere")


def at_home(browser: Browser, demo: Demo, app: str) -> None:  # noqa: ARG001 - as the others
    browser.open(f"{demo.server.base}/signin")
    sign_in(browser, "mara")


Way = Callable[[Browser, Demo, str], None]
PAGES: dict[str, tuple[Way, str]] = {
    "sign-in": (at_sign_in, "Sign in"),
    "wrong-password": (at_wrong_password, "Sign in"),
    "picker": (at_picker, "Whose record?"),
    "consent": (at_consent, "Allow Heart Diary to use your record?"),
    "consent-proxy": (at_consent_of_proxy, "Allow Heart Diary to use the record of Juno"),
    "nothing-ticked": (at_nothing_ticked, "Allow Heart Diary to use your record?"),
    "no-record": (at_no_record, "No record to share"),
    "error": (at_error, "This did not work"),
    "signed-in": (at_home, "You are signed in"),
}


@pytest.mark.parametrize("name", PAGES)
def test_a_page_fits_and_can_be_used_by_everybody(
    browser: Browser, demo: Demo, app: str, name: str
) -> None:
    way, heading = PAGES[name]
    way(browser, demo, app)
    assert browser.text("h1").startswith(heading)
    looked_at(browser, FOLDER, name)


def test_axe_would_object(browser: Browser) -> None:
    """The check itself sees a field without a label and a page without a language."""
    browser.open("data:text/html,<title>x</title><main><h1>x</h1><input></main>")
    found = {problem.partition(":")[0] for problem in browser.axe()}
    assert {"label", "html-has-lang"} <= found


def test_the_whole_way_without_javascript(browser: Browser, demo: Demo, app: str) -> None:
    browser.without_javascript()
    browser.resize(NARROW)
    browser.open(f"{app}/launch.html")
    assert browser.text("#state") == "no script"  # it would say something else
    authorize(browser, demo, app)
    sign_in(browser, "mara", "not the password")
    assert "wrong" in browser.text("[role=alert]")
    sign_in(browser, "mara")
    browser.click("button")  # nothing chosen: the browser itself asks for it
    assert browser.text("h1") == "Whose record?"
    choose(browser, "Patient/juno")
    assert browser.text("h1").startswith("Allow Heart Diary to use the record of Juno")
    browser.follow("main a")  # choose another record
    choose(browser, "Patient/mara")
    assert browser.text("h1") == "Allow Heart Diary to use your record?"
    browser.click('input[value="offline_access"]')
    browser.follow('button[value="approve"]')
    assert browser.address.startswith(f"{app}/index.html?")
    assert "code=" in browser.address
    assert browser.text("#state") == "no script"


def test_an_app_may_post_its_request(browser: Browser, demo: Demo, app: str) -> None:
    """From another site: the cookie stays away from the POST, and the session is found again."""
    at_home(browser, demo, app)
    browser.open(f"{app}/launch.html")
    browser.evaluate(POSTED, f"{demo.server.base}/oauth/authorize", parameters(demo, app))
    browser.wait_for("h1", "Whose record?")
    browser.without_javascript()  # the app's script would tidy up its address
    choose(browser, "Patient/mara")
    browser.follow('button[value="approve"]')
    assert browser.address.startswith(f"{app}/index.html?")
    assert "code=" in browser.address


def test_the_whole_way_by_keyboard(browser: Browser, demo: Demo, app: str) -> None:
    """Tab and Enter reach everything, in the order of the page; what has the focus is outlined."""
    authorize(browser, demo, app)
    browser.press("Tab", "mara", "Tab", PASSWORD, "Tab")
    assert browser.focused == "Show"
    assert browser.outlined
    browser.press("Tab")
    assert browser.focused == "Sign in"
    assert browser.outlined
    browser.press("Enter")
    browser.wait_for("h1", "Whose record?")
    browser.press("Tab", "Space", "Tab")
    assert browser.focused == "Continue"
    assert browser.outlined
    browser.press("Enter")
    browser.wait_for("h1", "Allow")
    reached: list[int] = []
    while browser.focused != "Allow":
        browser.press("Tab")
        place = browser.evaluate(PLACE)
        assert place >= 0, "the end of the page came before its button"
        # A date field has places within, of which Chromium outlines the calendar's by itself.
        assert reached[-1:] == [place] or browser.outlined
        reached.append(place)
    assert reached == sorted(reached)
    assert set(reached) == set(range(reached[-1] + 1))
    browser.press("Tab")
    assert browser.focused == "Do not allow"
    browser.press("Enter")
    browser.wait_for("h1", "The app")
    assert "error=access_denied" in browser.address
