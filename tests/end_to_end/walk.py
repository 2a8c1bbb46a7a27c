"""A walk: people go from page to page in Chromium, and every page on the way is looked at.

The world is the demo's, by server processes of its own, with what a practice's EHR sends. Mail and
SMS are read where the demo leaves them.
"""

from __future__ import annotations

import asyncio
import json
import re
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from fhir_portal.app import Application
from fhir_portal.settings import load
from tests.end_to_end.browser import ROOT, Browser, Driver
from tests.end_to_end.demo import Demo
from tests.end_to_end.person import PASSWORD
from tests.end_to_end.running import settings_of
from tests.places import File

PICTURES: Final = ROOT / "build" / "browser" / "pages"
NARROW, WIDE = 320, 1280
ZIP: Final = "60601"
GOOD: Final = "seven quiet otters"
BETTER: Final = "nine loud herons here"
Json = dict[str, Any]
_PATIENCE: Final = 30.0
_ROUND_SECONDS: Final = 0.2


@dataclass(frozen=True)
class WithOutbox(File):
    """A file whose server shows its mail and SMS on a page, and leaves sending to a worker."""

    @property
    def settings(self) -> Mapping[str, Any]:
        return {**super().settings, "demo_outbox": True, "worker": False}


@dataclass
class Town:
    """The demo world for walks: what its EHRs send, and what people there receive."""

    demo: Demo
    driver: Driver
    folder: Path
    files: int = 0
    looked_at: set[str] = field(default_factory=set)

    @property
    def base(self) -> str:
        """The origin."""
        return self.demo.server.base

    # --- what a practice's EHR does --------------------------------------------------------------

    def ehr(
        self,
        method: str,
        path: str,
        resource: Json | None = None,
        *,
        practice: str,
        **headers: str,
    ) -> Json:
        """Send one request to the FHIR API as a practice's EHR; return what it answers."""

        async def send() -> Json:
            async with self.demo.ehr(f"{practice}-ehr") as ehr:
                address = path if path.startswith("http") else f"{self.demo.fhir}/{path}"
                answer = await ehr.request(method, address, json=resource, headers=headers)
                assert answer.status_code < 300, answer.text
                return dict(answer.json()) if answer.content else {}

        return asyncio.run(send())

    def patient(self, who: str, born: str, *, practice: str, **more: Any) -> str:
        """Have the EHR write a patient; return the id."""
        given, _, family = who.partition(" ")
        tree = {
            "resourceType": "Patient",
            "id": given.lower(),
            "name": [{"use": "official", "given": [given], "family": family}],
            "birthDate": born,
            "address": [{"postalCode": ZIP}],
            **more,
        }
        self.ehr("PUT", f"Patient/{tree['id']}", tree, practice=practice)
        return given.lower()

    # --- what arrives ----------------------------------------------------------------------------

    def messages(self, to: str) -> list[Json]:
        """What was left for an address or number, the oldest first."""
        found = [json.loads(file.read_text("utf-8")) for file in self.outbox.glob("[!.]*.json")]
        found = [one for one in found if one["to"].partition(":")[2] == to or one["to"] == to]
        return sorted(found, key=lambda one: one["created"])

    @property
    def outbox(self) -> Path:
        """Where messages are left."""
        return self.folder / "outbox"

    def message(self, to: str, *, carries: str, number: int = 1) -> Json:
        """Wait for the message with a ``link`` or ``code``, the ``number``th one there."""
        deadline = time.monotonic() + _PATIENCE
        while time.monotonic() < deadline:
            found = [one for one in self.messages(to) if one[carries]]
            if len(found) >= number:
                return found[number - 1]
            time.sleep(0.05)
        raise AssertionError(f"no message {number} with a {carries} for {to}: {self.messages(to)}")

    def said(self, to: str, words: str) -> Json:
        """Wait for a message that says something."""
        deadline = time.monotonic() + _PATIENCE
        while time.monotonic() < deadline:
            for one in self.messages(to):
                if words in one["text"]:
                    return one
            time.sleep(0.05)
        raise AssertionError(f"nobody told {to}: {words}; {self.messages(to)}")

    def count(self, to: str, carries: str) -> int:
        """How many messages with a ``link`` or ``code`` are there."""
        return len([one for one in self.messages(to) if one[carries]])

    # --- who walks -------------------------------------------------------------------------------

    @contextmanager
    def person(self) -> Iterator[Walker]:
        """Somebody at a browser of their own."""
        with self.driver.browser() as browser:
            browser.resize(WIDE)
            yield Walker(self, browser)


@dataclass
class Walker:
    """Somebody at a browser."""

    town: Town
    browser: Browser

    def open(self, path: str) -> None:
        """Go to an address of the server's."""
        self.browser.open(path if path.startswith("http") else f"{self.town.base}{path}")

    def opens_when(self, address: str, words: str) -> None:
        """Open a page anew until it says something, which a job does in the background."""
        deadline = time.monotonic() + _PATIENCE
        while time.monotonic() < deadline:
            self.open(address)
            if words in self.browser.text("body"):
                return
            time.sleep(0.2)
        raise AssertionError((words, self.browser.text("body")))

    def sees(self, heading: str, *words: str, picture: str = "") -> None:
        """Be at the page with this heading, and these words somewhere; look at it, the first time.

        It has to fit 320 px (WCAG 1.4.10), and axe-core may object to nothing. What is another
        state of a page has a ``picture`` name of its own.
        """
        browser = self.browser
        assert browser.text("h1").startswith(heading), (browser.address, browser.text("main"))
        said = browser.text("body")
        for each in words:
            assert each in said, (each, said)
        name = picture or re.sub(r"[^a-z]+", "-", heading.lower()).strip("-")
        if name in self.town.looked_at:
            return
        self.town.looked_at.add(name)
        for width in (NARROW, WIDE):
            browser.resize(width)
            browser.screenshot(PICTURES / f"walk-{name}-{width}.png")
            assert browser.overhang <= 0, f"{name}: {width} px"
        assert browser.axe() == [], name

    def fills(self, **fields: str) -> None:
        """Type into fields by their ids."""
        for name, text in fields.items():
            self.browser.type(f"#{name}", text)

    def chooses(self, name: str, value: str) -> None:
        """Choose an option of a list."""
        self.browser.click(f'#{name} option[value="{value}"]')

    def sends(self, action: str = "", button: str = "") -> None:
        """Send a form, by its action or the page's foremost one."""
        form = f'form[action="{action}"] ' if action else ""
        self.browser.follow(f"main {form}button{button or ('' if action else '.primary')}")

    def saves(self, selector: str) -> bytes:
        """Click what gives a file; return what is in it."""
        self.town.files += 1
        return self.browser.saved(selector, self.town.folder / f"saved-{self.town.files}")

    def text(self) -> str:
        """All that the page says."""
        return self.browser.text("main")

    def signs_in(self, username: str, password: str = PASSWORD) -> None:
        """Fill in the sign-in page."""
        self.fills(username=username, password=password)
        self.browser.follow("button.primary")

    def born(self, date: str) -> None:
        """Type a birth date into its three fields."""
        year, month, day = date.split("-")
        self.fills(month=month, day=day, year=year)

    def accepts_terms(self) -> None:
        """Read the terms of use and accept them, if they are asked."""
        if self.browser.text("h1") == "Terms of use":
            self.sees("Terms of use", "In short", "The full text")
            self.browser.click("input[name=accept]")
            self.sends()


@contextmanager
def town(folder: Path, driver: Driver) -> Iterator[Town]:
    """Build the world and serve it."""
    demo = Demo(folder, WithOutbox(folder / "portal.db"), workers=1)
    try:
        asyncio.run(demo.start())
        with _worker(demo):
            yield Town(demo, driver, folder)
    finally:
        demo.stop()


@contextmanager
def _worker(demo: Demo) -> Iterator[None]:
    """Send mail and do jobs as ``fhir-portal worker`` does, but without its pauses of seconds."""
    over = threading.Event()

    async def work() -> None:
        settings = load(**settings_of(demo.folder, demo.place), port=demo.server.port)
        application = Application(settings, background=False)
        await application.open()
        try:
            while not over.is_set():
                await application.work_once()
                await asyncio.sleep(_ROUND_SECONDS)
        finally:
            await application.close()

    thread = threading.Thread(target=asyncio.run, args=(work(),))
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
