"""Sign-in and security pages as people meet them, and passkeys by Chromium's own authenticator.

Pictures of all pages are left in ``build/browser/pages``.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterator
from typing import Any

import pyotp
import pytest

from tests.end_to_end.browser import Browser, Driver, missing
from tests.end_to_end.demo import Demo
from tests.end_to_end.looks import NARROW, PICTURES, looked_at
from tests.end_to_end.person import PASSWORD
from tests.places import new_place

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(bool(missing()), reason=missing() or "all is there"),
]
FOLDER = PICTURES / "pages"
NEW = "seven quiet otters"
DEVICE = {  # W3C WebAuthn Level 3, section 12: virtual authenticators
    "protocol": "ctap2",
    "transport": "internal",
    "hasResidentKey": True,
    "hasUserVerification": True,
    "isUserConsenting": True,
    "isUserVerified": True,
}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    """A demo world of its own: here people change how they sign in."""
    folder = tmp_path_factory.mktemp("home")
    demo = Demo(folder, new_place("file", folder), workers=1)
    asyncio.run(demo.start())
    yield demo
    demo.stop()


@pytest.fixture
def browser(driver: Driver) -> Iterator[Browser]:
    with driver.browser() as browser:
        yield browser


def base(demo: Demo) -> str:
    """The address with a name: one of numbers has no passkeys."""
    return demo.server.base.replace("127.0.0.1", "localhost")


def security(browser: Browser, demo: Demo, username: str, password: str = PASSWORD) -> None:
    browser.open(f"{base(demo)}/account/security")
    browser.type("#username", username)
    browser.type("#password", password)
    browser.follow("button.primary")


def command(browser: Browser, path: str, **body: Any) -> Any:
    answer = browser.http.post(f"{browser.session}/{path}", json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()["value"]


def plug_in(browser: Browser, **changes: Any) -> str:
    """Give the browser a device for passkeys; return its id."""
    return str(command(browser, "webauthn/authenticator", **{**DEVICE, **changes}))


def credentials(browser: Browser, device: str) -> list[Any]:
    path = f"{browser.session}/webauthn/authenticator/{device}/credentials"
    return list(browser.http.get(path).json()["value"])


def set_up_app(browser: Browser, demo: Demo) -> pyotp.TOTP:
    """Set up an authenticator app; the page with the recovery codes is open then."""
    browser.open(f"{base(demo)}/account/security/app")
    app = pyotp.TOTP(browser.text("code.key").replace(" ", ""))
    browser.type("#code", app.now())
    browser.follow("button.primary")
    assert browser.text("h1") == "Your recovery codes"
    return app


def recovery_codes(browser: Browser) -> list[str]:
    return re.findall(r"[0-9a-z]{4}-[0-9a-z]{4}-[0-9a-z]{4}", browser.text("ol"))


# --- each page, by the way that leads to it -------------------------------------------------------


def at_throttled(browser: Browser, demo: Demo) -> None:
    browser.open(f"{base(demo)}/signin")
    for _ in range(11):
        browser.type("#username", "nobody-in-particular")
        browser.type("#password", "not the password")
        browser.follow("button.primary")


def at_recovery_code(browser: Browser, demo: Demo) -> None:
    browser.open(f"{base(demo)}/signin/recovery-code")


def at_security(browser: Browser, demo: Demo) -> None:
    security(browser, demo, "oskar")


def at_password(browser: Browser, demo: Demo) -> None:
    at_security(browser, demo)
    browser.open(f"{base(demo)}/account/security/password")


def at_refused_password(browser: Browser, demo: Demo) -> None:
    at_password(browser, demo)
    browser.type("#password", PASSWORD)
    browser.type("#new_password", "password1234")
    browser.follow("button.primary")


def at_app(browser: Browser, demo: Demo) -> None:
    at_security(browser, demo)
    browser.open(f"{base(demo)}/account/security/app")


def at_app_removal(browser: Browser, demo: Demo) -> None:
    at_security(browser, demo)
    browser.open(f"{base(demo)}/account/security/app/remove")


def at_codes(browser: Browser, demo: Demo) -> None:
    at_security(browser, demo)
    browser.open(f"{base(demo)}/account/security/recovery-codes")


def at_codes_made(browser: Browser, demo: Demo) -> None:
    at_codes(browser, demo)
    browser.follow("button.primary")


def at_passkey(browser: Browser, demo: Demo) -> None:
    at_security(browser, demo)
    browser.open(f"{base(demo)}/account/security/passkeys")


def at_confirm(browser: Browser, demo: Demo) -> None:
    at_security(browser, demo)
    browser.open(f"{base(demo)}/account/confirm?then=/account/security/app")


def at_problem(browser: Browser, demo: Demo) -> None:
    at_security(browser, demo)
    browser.evaluate('document.querySelector("[name=form_token]").value = "x"')
    browser.follow("section form button")


Way = Callable[[Browser, Demo], None]
PAGES: dict[str, tuple[Way, str]] = {
    "throttled": (at_throttled, "Sign in"),
    "recovery-code": (at_recovery_code, "Sign in with a recovery code"),
    "security": (at_security, "Security"),
    "password": (at_password, "Change your password"),
    "password-refused": (at_refused_password, "Change your password"),
    "app": (at_app, "Set up an authenticator app"),
    "app-remove": (at_app_removal, "Remove the authenticator app?"),
    "codes": (at_codes, "Recovery codes"),
    "codes-made": (at_codes_made, "Your recovery codes"),
    "passkey": (at_passkey, "Add a passkey"),
    "confirm": (at_confirm, "Confirm that it is you"),
    "problem": (at_problem, "This did not work"),
}


@pytest.mark.parametrize("name", PAGES)
def test_a_page_fits_and_can_be_used_by_everybody(browser: Browser, home: Demo, name: str) -> None:
    way, heading = PAGES[name]
    way(browser, home)
    assert browser.text("h1") == heading
    looked_at(browser, FOLDER, name)


def test_a_full_security_page_fits_too(browser: Browser, driver: Driver, home: Demo) -> None:
    """With passkeys, an app, other sessions and remembered browsers."""
    plug_in(browser)
    security(browser, home, "teodor")
    browser.open(f"{base(home)}/account/security/passkeys")
    browser.type("#name", "A phone with a rather long name that somebody gave it")
    browser.click(".passkey button")
    browser.wait_for("h1", "Security")
    app = set_up_app(browser, home)
    code = recovery_codes(browser)[0]
    with driver.browser() as other:
        security(other, home, "teodor")
        assert other.text("h1") == "Enter a code"
        looked_at(other, FOLDER, "code")
        other.type("#code", code)
        other.click("#remember")
        other.follow("button.primary")
        assert other.text("h1") == "Security"
        browser.open(f"{base(home)}/account/security")
        assert browser.text("[aria-labelledby=codes] p") == "9 left."
        looked_at(browser, FOLDER, "security-full")
        browser.follow("[aria-labelledby=sessions] .entries button")
        assert browser.text("[role=status]") == "That browser is signed out."
        other.open(f"{base(home)}/account/security")
        assert other.text("h1") == "Sign in"
    assert app.secret


# --- without a script -----------------------------------------------------------------------------


def test_everything_but_a_passkey_works_without_javascript(browser: Browser, home: Demo) -> None:
    browser.without_javascript()
    browser.resize(NARROW)
    security(browser, home, "petra")
    assert browser.text("h1") == "Security"
    browser.follow('a[href="/account/security/password"]')
    browser.type("#password", PASSWORD)
    browser.type("#new_password", NEW)
    browser.type("#repeated", f"{NEW}!")
    browser.follow("button.primary")
    assert "not typed the same way twice" in browser.text("[role=alert]")
    for field, text in (("password", PASSWORD), ("new_password", NEW), ("repeated", NEW)):
        browser.type(f"#{field}", text)
    browser.follow("button.primary")
    assert browser.text("[role=status]").startswith("Your password is changed.")
    browser.follow('a[href="/account/security/app"]')
    app = pyotp.TOTP(browser.text("code.key").replace(" ", ""))
    browser.type("#code", app.now())
    browser.follow("button.primary")
    codes = recovery_codes(browser)
    assert len(codes) == 10
    browser.follow("main a")
    browser.follow('a[href="/account/security/passkeys"]')
    assert "needs JavaScript" in browser.text("[data-without-script]")
    assert not browser.evaluate("return document.querySelector('.passkey').checkVisibility()")
    browser.follow("main a")
    browser.follow("[aria-labelledby=leave] button")
    assert browser.text("h1") == "Sign in"
    security(browser, home, "petra", NEW)
    browser.type("#code", codes[0])
    browser.click("#remember")
    browser.follow("button.primary")
    assert browser.text("h1") == "Security"
    browser.follow("[aria-labelledby=devices] button")
    assert browser.text("[role=status]").startswith("That browser is forgotten.")
    browser.open(f"{base(home)}/signin/recovery-code")
    browser.type("#username", "petra")
    browser.type("#password", NEW)
    browser.type("#code", codes[1])
    browser.follow("button.primary")
    assert browser.text("h1") == "You are signed in"


# --- the script -----------------------------------------------------------------------------------


def test_a_password_can_be_shown_and_pasted(browser: Browser, home: Demo) -> None:
    """WCAG 3.3.8, ASVS 6.2.6 and 6.2.7."""
    browser.open(f"{base(home)}/signin")
    browser.type("#password", PASSWORD)
    kind = "return document.getElementById('password').type"
    pressed = "return document.querySelector('button.show').getAttribute('aria-pressed')"
    assert (browser.evaluate(kind), browser.evaluate(pressed)) == ("password", "false")
    browser.click("button.show")
    assert (browser.evaluate(kind), browser.evaluate(pressed)) == ("text", "true")
    browser.click("button.show")
    assert browser.evaluate(kind) == "password"
    accepted = browser.evaluate(
        "const paste = new ClipboardEvent('paste', {bubbles: true, cancelable: true});"
        "return document.getElementById('password').dispatchEvent(paste)"
    )
    assert accepted is True  # nobody stopped it


def test_a_password_that_can_be_looked_at_is_typed_once(browser: Browser, home: Demo) -> None:
    security(browser, home, "ruben")
    browser.follow('a[href="/account/security/password"]')
    assert not browser.has("#repeated")
    browser.type("#password", PASSWORD)
    browser.type("#new_password", NEW)
    browser.follow("button.primary")
    assert browser.text("[role=status]").startswith("Your password is changed.")


# --- passkeys -------------------------------------------------------------------------------------


def test_a_passkey_is_made_and_signs_in_without_a_user_name(browser: Browser, home: Demo) -> None:
    device = plug_in(browser)
    security(browser, home, "silas")
    browser.follow('a[href="/account/security/passkeys"]')
    assert browser.evaluate("return document.getElementById('name').value") == "Chrome on Linux"
    browser.type("#name", "Kitchen tablet")
    browser.click(".passkey button")
    browser.wait_for("[role=status]", "Your passkey is ready.")
    assert browser.text("[aria-labelledby=passkeys] .name") == "Kitchen tablet"
    (made,) = credentials(browser, device)
    assert made["isResidentCredential"] is True
    assert made["rpId"] == "localhost"
    browser.follow("[aria-labelledby=leave] button")
    browser.open(f"{base(home)}/signin?then=/account/security")
    browser.click(".passkey button")
    browser.wait_for("h1", "Security")
    assert "silas" in browser.text("main")
    (used,) = credentials(browser, device)
    assert used["signCount"] > made["signCount"]
    # A device that makes none twice is not asked to.
    browser.follow('a[href="/account/security/passkeys"]')
    browser.click(".passkey button")
    browser.wait_for(".passkey .problem", "This device has a passkey for your account already.")
    # It also confirms who somebody is.
    browser.open(f"{base(home)}/account/confirm?then=/account/security/recovery-codes")
    looked_at(browser, FOLDER, "confirm-passkey")
    browser.click(".passkey button")
    browser.wait_for("h1", "Recovery codes")
    # Removed, it signs nobody in any more.
    browser.open(f"{base(home)}/account/security")
    browser.follow("[aria-labelledby=passkeys] button")
    assert browser.text("[role=status]").startswith("The passkey is removed.")
    browser.follow("[aria-labelledby=leave] button")
    browser.click(".passkey button")
    browser.wait_for("[role=alert]#problem", "That passkey did not work here.")
    looked_at(browser, FOLDER, "passkey-refused")


def test_a_device_that_did_not_verify_the_person_is_not_enough(
    browser: Browser, home: Demo
) -> None:
    device = plug_in(browser)
    security(browser, home, "dana")
    browser.follow('a[href="/account/security/passkeys"]')
    browser.type("#name", "Phone")
    browser.press("Enter")  # in the field, it does what the button does
    browser.wait_for("[role=status]", "Your passkey is ready.")
    path = f"{browser.session}/webauthn/authenticator/{device}/uv"
    browser.http.post(path, json={"isUserVerified": False})
    browser.follow("[aria-labelledby=leave] button")
    browser.click(".passkey button")
    browser.wait_for(".passkey .problem", "No passkey was used.")
    browser.open(f"{base(home)}/account/security")
    assert browser.text("h1") == "Sign in"


def test_who_has_no_passkey_here_signs_in_another_way(browser: Browser, home: Demo) -> None:
    plug_in(browser)
    browser.open(f"{base(home)}/signin")
    browser.click(".passkey button")
    browser.wait_for(".passkey .problem", "No passkey was used.")
    looked_at(browser, FOLDER, "passkey-none")
    browser.type("#username", "mara")
    browser.type("#password", PASSWORD)
    browser.follow("button.primary")
    assert browser.text("h1") == "You are signed in"


def test_at_an_address_of_numbers_there_is_no_button(browser: Browser, home: Demo) -> None:
    browser.open(f"{home.server.base}/signin")
    assert not browser.has(".passkey")


# --- by keyboard ----------------------------------------------------------------------------------


def test_the_security_page_by_keyboard(browser: Browser, home: Demo) -> None:
    """Tab reaches every link and button, in the order of the page, each with an outline."""
    security(browser, home, "mara")
    expected = browser.evaluate(
        "return [...document.querySelectorAll('main a, main button')]"
        ".map((one) => one.textContent.trim())"
    )
    seen = []
    for _ in expected:
        browser.press("Tab")
        assert browser.outlined
        seen.append(browser.focused)
    assert seen == expected
