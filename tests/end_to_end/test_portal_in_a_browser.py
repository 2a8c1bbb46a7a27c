"""The portal's pages as patients meet them: narrow and wide, by day and by night.

Pictures of all of them are left in ``build/browser/portal``.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable, Iterator

import pytest

from tests.end_to_end.browser import Browser, Driver, missing
from tests.end_to_end.demo import Demo
from tests.end_to_end.entrance import enter
from tests.end_to_end.looks import PICTURES, looked_at

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(bool(missing()), reason=missing() or "all is there"),
]
FOLDER = PICTURES / "portal"
SILAS = "/staff/patients/silas"

Way = Callable[[Browser, Demo], None]


@pytest.fixture
def browser(driver: Driver) -> Iterator[Browser]:
    with driver.browser() as browser:
        yield browser


def at(path: str, record: str = "Patient/mara") -> Way:
    """Mara at a page of a record, which she chooses where there are several."""

    def go(browser: Browser, demo: Demo) -> None:
        enter(browser, demo, path, "mara", record)

    return go


def first(path: str, link: str, record: str = "Patient/mara") -> Way:
    """The first page that a list leads to."""

    def go(browser: Browser, demo: Demo) -> None:
        at(path, record)(browser, demo)
        browser.follow(f'main a[href^="{link}"]')

    return go


def sheet(path: str) -> Way:
    """A sheet to print, taken out of the sandbox that it is served in: axe-core waits by timers."""

    def go(browser: Browser, demo: Demo) -> None:
        at(path)(browser, demo)
        content = str(browser.evaluate("return document.documentElement.outerHTML")).encode()
        text = b64encode(b"<!doctype html>" + content).decode()
        browser.open(f"data:text/html;charset=utf-8;base64,{text}")

    return go


def at_desk(path: str) -> Way:
    def go(browser: Browser, demo: Demo) -> None:
        enter(browser, demo, path, "rosalind")

    return go


def first_at_desk(path: str, link: str) -> Way:
    def go(browser: Browser, demo: Demo) -> None:
        at_desk(path)(browser, demo)
        browser.follow(f'main a[href^="{link}"]')

    return go


def at_label_preview(browser: Browser, demo: Demo) -> None:
    at_desk("/staff/labels/label")(browser, demo)
    browser.type("#name", "hiv tests")
    browser.evaluate("document.querySelector('#label').value = 'HIV'")
    browser.type("#codes", "http://loinc.org|75622-1")
    browser.follow("button.primary")


def at_record_visits(browser: Browser, demo: Demo) -> None:
    at_desk(f"{SILAS}/labels")(browser, demo)
    browser.follow('form[action$="/labels/of"] button')


PAGES: dict[str, tuple[Way, str]] = {
    "records": (at("/portal/record", ""), "Whose record?"),
    "home": (at("/portal"), "Mara"),
    "appointments": (at("/portal/appointments"), "Appointments"),
    "times": (at("/portal/appointments/find"), "Find a time"),
    "request": (at("/portal/appointments/request"), "Ask for an appointment"),
    "earlier": (at("/portal/appointments/history"), "Earlier and cancelled"),
    "messages": (at("/portal/messages"), "Messages"),
    "thread": (first("/portal/messages", "/portal/messages/thread/"), ""),
    "new-message": (at("/portal/messages/new"), "Write to the practice"),
    "forms": (at("/portal/forms"), "Forms"),
    "details": (at("/portal/details"), "Your details"),
    "change-details": (at("/portal/details/change"), "Change your details"),
    "insurance": (at("/portal/insurance"), "Insurance"),
    "new-insurance": (at("/portal/insurance/new"), "Add an insurance"),
    "not-taken": (at("/portal/proposals/medicines"), "Medicines that are not taken"),
    "form": (first("/portal/forms", "/portal/forms/fill-in/"), ""),
    "bills": (at("/portal/bills"), "Bills"),
    "bill": (first("/portal/bills", "/portal/bills/one/"), "Bill of"),
    "desk-bills": (at_desk("/staff/bills"), "Bills"),
    "export": (at("/portal/export"), "Take your record with you"),
    "documents": (at("/portal/documents"), "Documents"),
    "document": (first("/portal/documents", "/portal/documents/one/"), ""),
    "send-document": (at("/portal/documents/new"), "Send a document"),
    "visits": (at("/portal/visits"), "Visits"),
    "visit": (first("/portal/visits", "/portal/visits/"), ""),
    "activity": (at("/portal/activity"), "Activity"),
    "desk-documents": (at_desk("/staff/documents"), "Documents"),
    "sharing": (at("/portal/sharing"), "Sharing"),
    "share": (at("/portal/sharing/new"), "Share part of the record"),
    "send": (at("/portal/sharing/send"), "Send to somebody"),
    "shared": (at("/shared/nothing"), "Somebody shared"),
    "tour": (at("/portal?tour=again"), "Mara"),
    "results": (at("/portal/results"), "Results"),
    "report": (first("/portal/results", "/portal/results/report/"), ""),
    "tests": (at("/portal/results/tests"), "Tests and measurements"),
    "test": (first("/portal/results/tests", "/portal/results/test/"), ""),
    "medicines": (at("/portal/medications"), "Medicines"),
    "refill": (first("/portal/medications", "/portal/medications/refill/"), ""),
    "health": (at("/portal/health"), "Health problems"),
    "vaccines": (at("/portal/immunizations"), "Vaccines"),
    "signed-card": (sheet("/portal/immunizations/card/html"), "Signed vaccine card"),
    "timeline": (at("/portal/timeline"), "Visits, results"),
    "desk-appointments": (at_desk("/staff/appointments"), "Appointments"),
    "desk-forms": (at_desk("/staff/forms"), "Forms"),
    "desk-changes": (at_desk("/staff/proposals"), "Changes that patients ask for"),
    "desk-labels": (at_desk("/staff/labels"), "Labels and release"),
    "desk-label-rule": (at_desk("/staff/labels/label"), "Add a rule that labels"),
    "desk-release-rule": (at_desk("/staff/labels/release"), "Add a rule that holds results"),
    "desk-label-preview": (at_label_preview, "Add the rule"),
    "desk-record-labels": (at_desk(f"{SILAS}/labels"), "Labels and release"),
    "desk-record-visits": (at_record_visits, "Visits"),
    "desk-record-visit": (first_at_desk(f"{SILAS}/labels", f"{SILAS}/labels/Encounter/"), ""),
    "desk-change": (first_at_desk("/staff/proposals", "/staff/proposals/"), "Changes for"),
}


@pytest.mark.parametrize("name", PAGES)
def test_a_page_fits_and_can_be_used_by_everybody(browser: Browser, demo: Demo, name: str) -> None:
    way, heading = PAGES[name]
    way(browser, demo)
    assert browser.text("h1").startswith(heading)
    looked_at(browser, FOLDER, name)
