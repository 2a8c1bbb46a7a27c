"""The staff pages as people meet them: narrow and wide, by day and by night.

Pictures of all of them are left in ``build/browser/staff``.
"""

from __future__ import annotations

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
FOLDER = PICTURES / "staff"
JUNO = "/staff/patients/juno"


@pytest.fixture
def browser(driver: Driver) -> Iterator[Browser]:
    with driver.browser() as browser:
        yield browser


def at(browser: Browser, demo: Demo, path: str, username: str = "rosalind") -> None:
    """Staff, or somebody else, at a page."""
    enter(browser, demo, path, username)


def at_home(browser: Browser, demo: Demo) -> None:
    at(browser, demo, "/staff")


def at_nothing(browser: Browser, demo: Demo) -> None:
    at(browser, demo, "/staff", "mara")


def at_search(browser: Browser, demo: Demo) -> None:
    at(browser, demo, "/staff/patients")


def at_found(browser: Browser, demo: Demo) -> None:
    at_search(browser, demo)
    browser.type("#name", "o")
    browser.follow("button.primary")


def at_not_found(browser: Browser, demo: Demo) -> None:
    at_search(browser, demo)
    browser.follow("button.primary")


def at_patient(browser: Browser, demo: Demo) -> None:
    at(browser, demo, JUNO)


def at_view_as(browser: Browser, demo: Demo) -> None:
    at_patient(browser, demo)
    browser.follow(f'a[href^="{JUNO}/as/"]')


def at_activity(browser: Browser, demo: Demo) -> None:
    at(browser, demo, f"{JUNO}/activity")


def at_refused(browser: Browser, demo: Demo) -> None:
    at(browser, demo, "/staff/levels", "noor")


def at_levels(browser: Browser, demo: Demo) -> None:
    at(browser, demo, "/staff/levels")


def at_levels_preview(browser: Browser, demo: Demo) -> None:
    at_levels(browser, demo)
    browser.type("#name-101", "night desk")
    browser.click("#may-101-view")
    browser.follow("button.primary")


def at_levels_history(browser: Browser, demo: Demo) -> None:
    at(browser, demo, "/staff/levels/history")


def at_members(browser: Browser, demo: Demo) -> None:
    at(browser, demo, "/staff/members")


def at_invite(browser: Browser, demo: Demo) -> None:
    at(browser, demo, "/staff/patients/mara/invite/caregiver")


def at_invite_oneself(browser: Browser, demo: Demo) -> None:
    at(browser, demo, f"{JUNO}/invite/self")


def at_handed_out(browser: Browser, demo: Demo) -> None:
    """Juno has no account yet; whoever comes second sends the invitation again."""
    at(browser, demo, JUNO)
    again = 'form[action$="/again"] button'
    if not browser.has(again):
        browser.open(f"{demo.server.base}{JUNO}/invite/self")
        browser.evaluate("document.querySelector('#channel').value = 'desk'")
        again = "button.primary"
    browser.follow(again)


def at_invitations(browser: Browser, demo: Demo) -> None:
    at_handed_out(browser, demo)
    browser.open(f"{demo.server.base}{JUNO}")


def at_accounts(browser: Browser, demo: Demo) -> None:
    at(browser, demo, "/staff/accounts")


def at_accounts_preview(browser: Browser, demo: Demo) -> None:
    at_accounts(browser, demo)
    browser.click("#person-1")
    browser.follow('form[action$="/preview"] button')


def at_accounts_results(browser: Browser, demo: Demo) -> None:
    at_accounts(browser, demo)
    browser.evaluate("document.querySelector('#act').value = 'renew'")
    browser.evaluate("document.querySelector('[value^=\"Person/dana \"]').checked = true")
    browser.follow('form[action$="/preview"] button')
    browser.follow("button.primary")


def at_close(browser: Browser, demo: Demo) -> None:
    """What would end for the patient whose account it is; nothing does."""
    at(browser, demo, "/staff/patients/mara")
    browser.follow('form[action$="/accounts/close"] button')


def at_grants(browser: Browser, demo: Demo) -> None:
    at_patient(browser, demo)


def at_messages(browser: Browser, demo: Demo) -> None:
    at(browser, demo, "/staff/messages")


def at_message(browser: Browser, demo: Demo) -> None:
    at(browser, demo, "/staff/messages/one-time-code")
    browser.follow('button[value="preview"]')


def at_same(browser: Browser, demo: Demo) -> None:
    at(browser, demo, f"{JUNO}/same")


def at_merge(browser: Browser, demo: Demo) -> None:
    at(browser, demo, f"{JUNO}/merge/mara")


def at_settings(browser: Browser, demo: Demo) -> None:
    at(browser, demo, "/staff/settings")


def at_settings_preview(browser: Browser, demo: Demo) -> None:
    at_settings(browser, demo)
    browser.click("#portal")
    browser.follow("button.primary")


def at_inbox(browser: Browser, demo: Demo) -> None:
    at(browser, demo, "/staff/inbox?status=all")


def at_thread(browser: Browser, demo: Demo) -> None:
    at(browser, demo, "/staff/inbox/mara-iron")


def at_new_message(browser: Browser, demo: Demo) -> None:
    at(browser, demo, "/staff/inbox/to/juno")


Way = Callable[[Browser, Demo], None]
PAGES: dict[str, tuple[Way, str]] = {
    "home": (at_home, "Marrowbrook"),
    "nothing": (at_nothing, "For a practice's staff"),
    "search": (at_search, "Find a patient"),
    "found": (at_found, "Find a patient"),
    "not-found": (at_not_found, "Find a patient"),
    "patient": (at_patient, "Portal of Juno"),
    "view-as": (at_view_as, "What"),
    "activity": (at_activity, "Who looked at the record"),
    "refused": (at_refused, "This did not work"),
    "levels": (at_levels, "Access levels"),
    "levels-preview": (at_levels_preview, "What would change"),
    "levels-history": (at_levels_history, "Earlier versions"),
    "members": (at_members, "Staff"),
    "invite": (at_invite, "Invite:"),
    "invite-oneself": (at_invite_oneself, "Invite: The patient"),
    "handed-out": (at_handed_out, "To hand over"),
    "invitations": (at_invitations, "Portal of Juno"),
    "accounts": (at_accounts, "Accounts"),
    "accounts-preview": (at_accounts_preview, "Disable?"),
    "accounts-results": (at_accounts_results, "Require"),
    "close": (at_close, "End the portal for"),
    "grants": (at_grants, "Portal of"),
    "messages": (at_messages, "Messages"),
    "message": (at_message, "Message one-time-code"),
    "same": (at_same, "Another record of the same person?"),
    "merge": (at_merge, "Merge two records?"),
    "settings": (at_settings, "Settings"),
    "settings-preview": (at_settings_preview, "Change the settings?"),
    "inbox": (at_inbox, "Inbox"),
    "thread": (at_thread, "Iron and the thyroid tablet"),
    "new-message": (at_new_message, "Write to the patient"),
}


@pytest.mark.parametrize("name", PAGES)
def test_a_page_fits_and_can_be_used_by_everybody(browser: Browser, demo: Demo, name: str) -> None:
    way, heading = PAGES[name]
    way(browser, demo)
    assert browser.text("h1").startswith(heading)
    looked_at(browser, FOLDER, name)
