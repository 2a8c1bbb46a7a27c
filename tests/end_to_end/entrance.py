"""The way in for tests that begin behind the sign-in."""

from __future__ import annotations

import time
from typing import Final

from tests.end_to_end.browser import Browser
from tests.end_to_end.demo import Demo
from tests.end_to_end.person import PASSWORD

_RECENT: Final = 120.0
"""Some pages ask who signed in five minutes ago to confirm it."""


def enter(browser: Browser, demo: Demo, path: str, username: str, record: str = "") -> None:
    """Open a page as somebody, at a record that is chosen where there are several.

    They sign in by the pages, once: later browsers of the same person are given what that one got.
    """
    now = time.monotonic()
    since, cookies = demo.signed_in.get((username, record), (-_RECENT, []))
    if now - since < _RECENT:
        browser.keep(cookies)
    else:
        sign_in(browser, demo, "/portal/record" if record else "/signin", username)
        if record:
            browser.click(f'input[name="record"][value$="{record}"]')
            browser.follow("button.primary")
        demo.signed_in[username, record] = now, browser.cookies
    browser.open(f"{demo.server.base}{path}")


def sign_in(browser: Browser, demo: Demo, path: str, username: str) -> None:
    """Sign in on the way to a page."""
    browser.open(f"{demo.server.base}{path}")
    browser.type("#username", username)
    browser.type("#password", PASSWORD)
    browser.follow("button.primary")
