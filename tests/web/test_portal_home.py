"""The portal's start page: what is next and new in one call, the tour, and who has access."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from itertools import combinations
from typing import Any

import pytest

from fhir_portal.accounts.account import Account, account_named
from fhir_portal.consent.grant import IG
from fhir_portal.resources.audit_event import ACTIVITY
from fhir_portal.smart.token import TokenFamily
from fhir_portal.web.pages.portal import PAGES
from fhir_portal.web.pages.portal_home import TOUR
from tests.builders import (
    RESTRICTED,
    WITHHELD,
    Caller,
    Json,
    a_client,
    a_grant,
    an_appointment,
    an_encounter,
    an_invoice,
    concept,
    keep,
    oneself,
    reference,
    resource,
)
from tests.operations.booking import DAY, at
from tests.operations.test_portal_dashboard import a_report
from tests.resources.forms.twenty import QUESTIONNAIRES
from tests.smart.world import Browser
from tests.web.portal_world import ADA, BO, SKIN, PortalWorld
from tests.web.signing_in import submit
from tests.web.staff_world import buttons, links
from tests.web.test_portal_forms import a_request

HOME = "/portal"
SECTIONS = {
    "appointments": "The next visit",
    "visits": "The last visit",
    "messages": "Messages",
    "forms": "Forms",
    "billing": "Bills",
    "results": "Results",
}
CONVERSATION = f"{IG}/CodeSystem/portal-conversation"


def subsets() -> Iterator[tuple[str, ...]]:
    for size in range(1, len(SECTIONS) + 1):
        yield from combinations(SECTIONS, size)


def conversation(own_id: str, *, of: str, messages: int, **more: Any) -> list[Json]:
    """A conversation that the practice began, as an EHR brings it."""
    common: Json = {
        "subject": reference(f"Patient/{of}"),
        "sender": reference("Practitioner/lark"),
        "recipient": [reference(f"Patient/{of}")],
        **more,
    }
    header = resource(
        "Communication", own_id, status="on-hold", category=[concept(CONVERSATION, "thread")],
        sent=at(-9 * DAY), payload=[{"contentString": "About your visit"}], **common,
    )  # fmt: skip
    return [
        header,
        *(
            resource(
                "Communication", f"{own_id}-{number}", status="completed",
                category=[concept(CONVERSATION, "message")],
                partOf=[reference(f"Communication/{own_id}")],
                sent=at((number - 8) * DAY), payload=[{"contentString": "Drink water."}], **common,
            )
            for number in range(messages)
        ),
    ]  # fmt: skip


def chart(who: str, *, meta: Json | None = None) -> list[Json]:
    """Something of each section."""
    more: Json = {"meta": meta} if meta else {}
    sleep = QUESTIONNAIRES["sleep"]
    mark = "x" if meta else ""
    return [
        an_appointment(
            f"{who}-next{mark}", of=[who], start=at(4 * DAY), end=at(4 * DAY + 900),
            serviceType=[{"text": "Skin check"}], **more,
        ),
        an_appointment(
            f"{who}-far{mark}", of=[who], start=at(9 * DAY), end=at(9 * DAY + 900), **more
        ),
        an_encounter(f"{who}-seen{mark}", of=who, period={"start": at(-5 * DAY)}, **more),
        an_invoice(f"{who}-bill{mark}", of=who, total=75, **more),
        an_invoice(f"{who}-other{mark}", of=who, total=12.5, **more),
        a_report(f"{who}-blood{mark}", at(-2 * DAY), of=who, **more),
        a_report(f"{who}-older{mark}", at(-90 * DAY), of=who, **more),
        a_request(f"{who}-form{mark}", "sleep", sleep["url"], of=who, **more),
        *conversation(f"{who}-talk{mark}", of=who, messages=3, **more),
    ]  # fmt: skip


@pytest.fixture
async def portal() -> AsyncIterator[PortalWorld]:
    found = await PortalWorld.begin()
    await found.put(QUESTIONNAIRES["sleep"], *chart("kit"), *chart("ada"))
    yield found
    found.close()


def facts(browser: Browser) -> dict[str, str]:
    """What the page says now, by its titles."""
    return {
        " ".join(one.xpath("string(dt)").split()): " ".join(one.xpath("string(dd)").split())
        for one in browser.document.xpath("//section[@aria-labelledby='now']//dl/div")
    }


async def granted(portal: PortalWorld, *sections: str, act: tuple[str, ...] = ()) -> None:
    await portal.put(a_grant("grant", of="kit", to="mother", sections=sections, act=act))


@pytest.mark.requirement("portal", "S0-32", "S1-02")
async def test_the_page_says_what_is_next_and_new(portal: PortalWorld) -> None:
    browser = await portal.at(HOME, ADA, "ada")
    found = facts(browser)
    assert found["Your next visit"].endswith("Skin check")
    assert found["Messages"] == "3 unread messages"
    assert found["Forms"].startswith("1 form to fill in The first one is wanted by")
    assert found["Bills"] == "87.50 USD due On 2 open bills"
    assert found["Results"].startswith("1 new report Since")
    assert {"/portal/messages/new", "/portal/appointments/one/ada-next"} <= set(links(browser))
    assert "I am here" not in browser.text


@pytest.mark.requirement("portal", "S0-32", "S1-02")
async def test_it_is_one_call_of_the_api(portal: PortalWorld) -> None:
    """All that is new comes in one answer; only who has access is asked for beside it."""
    browser = await portal.at(HOME, ADA, "ada")
    ada = Caller(portal.world.portal, oneself("ada", SKIN))

    async def asked() -> Counter[str]:
        log = await ada.ask("GET", "AuditEvent?_count=200")
        events = [one["resource"] for one in log.json["entry"]]
        codes = [
            [one["code"] for one in event["subtype"] if one.get("system") != ACTIVITY]
            for event in events
        ]
        return Counter(one[-1] for one in codes)

    before = await asked()
    await browser.open(HOME)
    after = await asked()
    after.subtract(before)
    assert {name: times for name, times in after.items() if times} == {
        "portal-dashboard": 1,
        "search-type": 2,  # of Consents, and the one for this log
    }


async def test_who_stands_at_the_door_can_say_so_from_here(portal: PortalWorld) -> None:
    soon = an_appointment("soon", of=["ada"], start=at(600), end=at(1500))
    await portal.put(soon)
    browser = await portal.at(HOME, ADA, "ada")
    assert "/portal/appointments/one/soon#here" in links(browser)
    portal.world.clock.advance(1200)
    await browser.open(HOME)  # it has begun, and is not over
    assert "/portal/appointments/one/soon" in links(browser)
    await granted(portal, "appointments")
    await portal.put(soon | {"id": "kits", "participant": soon["participant"]})
    await browser.open("/portal/record")
    await submit(browser, "/portal/record", record=f"{SKIN}/Patient/kit")
    assert "I am here" not in browser.text  # she may look at Kit's, and not act


@pytest.mark.requirement("portal", "S0-32")
async def test_nothing_due_is_said_and_differs_from_not_being_told(portal: PortalWorld) -> None:
    browser = await portal.at(HOME, BO)
    found = facts(browser)
    assert found == {
        "The next visit": "No appointment to come",
        "The last visit": "No visit yet",
        "Messages": "No unread messages",
        "Forms": "No forms to fill in",
        "Bills": "Nothing is due",
        "Results": found["Results"],
    }
    assert found["Results"].startswith("No new reports")
    await granted(portal, "appointments")
    browser = await portal.at(HOME, ADA, "kit")
    assert list(facts(browser)) == ["The next visit"]


@pytest.mark.requirement("portal", "S0-32")
async def test_its_numbers_are_those_of_the_screens(portal: PortalWorld) -> None:
    """For oneself, and for a proxy with each choice of sections."""
    browser = await portal.at(HOME, ADA, "ada")
    await same_numbers(browser, tuple(SECTIONS))
    await browser.open("/portal/record")
    await submit(browser, "/portal/record", record=f"{SKIN}/Patient/kit")
    for sections in subsets():
        await granted(portal, *sections)
        await same_numbers(browser, sections)


async def same_numbers(browser: Browser, sections: tuple[str, ...]) -> None:
    await browser.open(HOME)
    assert browser.page.status_code == 200
    found = facts(browser)
    told = {title.replace("Your next", "The next") for title in found}
    assert told == {SECTIONS[one] for one in sections}
    if "appointments" in sections:
        (said,) = [text for title, text in found.items() if title.endswith("next visit")]
        await browser.open("/portal/appointments")
        first = browser.document.xpath("string(//ul[@class='entries']/li[1]//a)")
        assert said.startswith(first)
    if "messages" in sections:
        await browser.open("/portal/messages")
        unread = re.search(r"(\d+) unread message", browser.text)
        assert unread is not None
        assert found["Messages"] == f"{unread[1]} unread messages"
    if "forms" in sections:
        await browser.open("/portal/forms")
        asked = browser.document.xpath("//section[@aria-labelledby='asked']//li")
        assert found["Forms"].startswith(f"{len(asked)} form")
    if "results" in sections:
        await browser.open("/portal/results")
        new = re.search(r"(\d+) new", browser.text)
        assert new is not None
        assert found["Results"].startswith(f"{new[1]} new report")


@pytest.mark.parametrize("meta", [WITHHELD, RESTRICTED])
async def test_what_is_kept_from_a_proxy_leaves_the_page_as_it_is(
    portal: PortalWorld, meta: Json
) -> None:
    await granted(portal, *SECTIONS)
    browser = await portal.at(HOME, ADA, "kit")
    before = browser.text
    await portal.put(*chart("kit", meta=meta))
    await browser.open(HOME)
    assert browser.text == before


async def test_of_somebody_elses_record_and_after_the_grant_there_is_nothing(
    portal: PortalWorld,
) -> None:
    browser = await portal.at(HOME, BO)
    assert "Skin check" not in browser.text
    browser = await portal.at(HOME, ADA, "kit")
    await portal.put(a_grant("grant", of="kit", to="mother", status="inactive"))
    await browser.open(HOME)
    assert browser.heading != "Kit Quill"


# ---------------------------------------------------------------- the tour


@pytest.mark.requirement("portal", "S1-25")
async def test_the_tour_is_skipped_once_and_can_be_had_again(portal: PortalWorld) -> None:
    browser = await portal.at(HOME, BO)
    assert "What you find here" in browser.text
    await submit(browser, TOUR)
    assert "What you find here" not in browser.text
    again = await portal.at(HOME, BO)
    assert "What you find here" not in again.text
    await again.open(f"{HOME}?tour=again")
    assert "What you find here" in again.text
    other = await portal.at(HOME, ADA, "ada")
    assert "What you find here" in other.text


@pytest.mark.requirement("portal", "S1-25")
async def test_the_tour_shows_what_there_is_to_see(portal: PortalWorld) -> None:
    await granted(portal, "forms")
    browser = await portal.at(HOME, ADA, "kit")
    shown = browser.document.xpath("//ol[@class='steps']//a/@href")
    assert shown == ["/portal/forms", "/portal/export", "/account/security"]


async def test_the_tour_says_of_each_page_what_it_is_for(portal: PortalWorld) -> None:
    browser = await portal.at(HOME, BO)
    steps = [" ".join(one.text_content().split()) for one in browser.document.xpath("//ol/li")]
    assert len(steps) == len(PAGES) + 1  # and the account
    assert all(re.fullmatch(r"[^:]+: .+\.", one) for one in steps)
    assert len({one.partition(": ")[2] for one in steps}) == len(steps)


async def test_a_form_of_another_page_ends_no_tour(portal: PortalWorld) -> None:
    browser = await portal.at(HOME, BO)
    answer = await browser.http.post(TOUR, data={"form_token": "made-up"})
    assert answer.status_code == 403
    await browser.open(HOME)
    assert "What you find here" in browser.text


@pytest.mark.requirement("portal", "S0-36")
async def test_a_message_is_begun_from_here_by_whoever_may_write(portal: PortalWorld) -> None:
    browser = await portal.at(HOME, BO)
    assert "/portal/messages/new" in links(browser)
    await granted(portal, "messages")
    browser = await portal.at(HOME, ADA, "kit")
    assert "/portal/messages/new" not in links(browser)
    await granted(portal, "messages", act=("messages",))
    await browser.open(HOME)
    assert "/portal/messages/new" in links(browser)
    assert "Do not show this again" in buttons(browser)


# ---------------------------------------------------------------- who has access


async def connected(portal: PortalWorld, account: Account, patient: str) -> None:
    now = portal.world.clock()
    user = "Patient/ada" if patient == "ada" else "RelatedPerson/mother"
    await keep(
        portal.world.store,
        a_client("heart", name="Heart Diary"),
        TokenFamily(
            key=f"family-{patient}", expires=now + 1e6, issued=now, rotated=now,
            client_id="heart", account=account.key, patient=f"Patient/{patient}", practice=SKIN,
            fhir_user=user, grant=None if patient == "ada" else "Consent/grant",
            scope="patient/Patient.r offline_access",
        ),
    )  # fmt: skip


@pytest.mark.requirement("portal", "S1-25")
async def test_the_page_says_which_apps_and_people_have_access(portal: PortalWorld) -> None:
    browser = await portal.at(HOME, ADA, "ada")
    assert "No app uses your record" in browser.text
    assert "Nobody acts for you" in browser.text
    account = await account_named(portal.world.store, ADA)
    assert account is not None
    await connected(portal, account, "ada")
    await portal.put(
        resource(
            "RelatedPerson", "aunt", patient=reference("Patient/ada"),
            name=[{"family": "Sallow", "given": ["Wren"]}], active=True,
        ),
        a_grant("aunts", of="ada", to="aunt", sections=["results"]),
        a_grant("over", of="ada", to="aunt", sections=["forms"], status="inactive"),
    )  # fmt: skip
    await browser.open(HOME)
    assert "Heart Diary" in browser.text
    assert browser.text.count("Wren Sallow") == 1
    assert "/account/apps" in links(browser)


async def test_of_another_record_and_to_a_proxy_nothing_is_told_of_it(portal: PortalWorld) -> None:
    account = await account_named(portal.world.store, ADA)
    assert account is not None
    await connected(portal, account, "ada")
    browser = await portal.at(HOME, ADA, "kit")
    assert "Heart Diary" not in browser.text
    assert "acts for you" not in browser.text
    await connected(portal, account, "kit")
    await browser.open(HOME)
    assert "Heart Diary" in browser.text


@pytest.mark.parametrize("query", ["?tour=maybe", "?tour=again&tour=again", "?x=1"])
async def test_an_odd_address_is_still_the_page(portal: PortalWorld, query: str) -> None:
    browser = await portal.at(f"{HOME}{query}", BO)
    assert browser.page.status_code in {200, 400}
