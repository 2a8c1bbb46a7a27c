"""The portal's pages about appointments, as people use them and as they must not."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import pytest

from fhir_portal.accounts.policy import PracticePolicy
from fhir_portal.smart.client import Client
from fhir_portal.smart.page_session import PortalSession
from fhir_portal.smart.portal_pages import CLIENT
from fhir_portal.smart.token import AccessToken
from tests.builders import (
    RESTRICTED,
    Json,
    a_condition,
    a_grant,
    a_task,
    an_appointment,
    changed,
    concept,
    keep,
)
from tests.operations.booking import CHECK, DAY, SERVICES, at
from tests.smart.world import Browser
from tests.web.portal_world import ADA, BO, ONE, SKIN, PortalWorld
from tests.web.signing_in import fields_of, forms, post, problem, submit
from tests.web.staff_world import buttons, links

APPOINTMENTS = "/portal/appointments"
FIND = f"{APPOINTMENTS}/find"
HOLD = f"{APPOINTMENTS}/hold"
ASK = f"{APPOINTMENTS}/request"
HISTORY = f"{APPOINTMENTS}/history"


@pytest.fixture
async def portal() -> AsyncIterator[PortalWorld]:
    found = await PortalWorld.begin()
    yield found
    found.close()


def where(browser: Browser) -> str:
    return browser.page.url.path


def bos(own_id: str, days: float, **more: Any) -> Json:
    """An appointment of Bo's, so many days from now."""
    return an_appointment(own_id, of=["bo"], start=at(days * DAY), end=at(days * DAY + 60), **more)


async def asked(browser: Browser, **fields: str) -> None:
    """Send the form of a request; ``first`` and ``last`` are its days."""
    names = {"first": "from", "last": "to"}
    sent = {names.get(name, name): value for name, value in fields.items()}
    await post(browser, ASK, {**fields_of(forms(browser, ASK)[0]), **sent})


async def booked(browser: Browser, *, nth: int = 0) -> str:
    """Book one of the times on the page; returns the address of the appointment."""
    await browser.open(FIND)
    await submit(browser, HOLD, nth=nth)
    address = where(browser)
    await submit(browser, f"{address}/book")
    assert "Booked" in browser.text
    return address


# ---------------------------------------------------------------- the room


async def test_who_has_one_record_is_led_into_it(portal: PortalWorld) -> None:
    browser = await portal.at("/portal")
    assert browser.heading == "Ada Reed"
    assert APPOINTMENTS in links(browser)


async def test_who_has_several_chooses_one_and_no_address_names_it(portal: PortalWorld) -> None:
    browser = await portal.at("/portal", ADA)
    assert browser.heading == "Whose record?"
    await submit(browser, "/portal/record", record="skin/Patient/bo")
    assert browser.page.status_code == 400
    assert problem(browser) == "Choose a record."
    await submit(browser, "/portal/record", record="skin/Patient/kit")
    assert browser.heading == "Kit Quill"
    assert "you are: mother" in browser.text
    assert where(browser) == "/portal"


async def test_nobody_gets_in_without_signing_in(portal: PortalWorld) -> None:
    browser = portal.world.browser()
    for path in ("/portal", APPOINTMENTS, f"{ONE}/x", "/portal/record"):
        await browser.open(path)
        assert where(browser) == "/signin"
    answer = await browser.http.post(HOLD, data={"slot": "Slot/nine"})
    assert answer.headers["location"].startswith("/signin")


async def test_a_form_of_one_record_does_nothing_in_another(portal: PortalWorld) -> None:
    """Two tabs: in one of them the other record was opened meanwhile."""
    browser = await portal.at(FIND, ADA, "ada")
    fields = fields_of(forms(browser, HOLD)[0])
    await browser.open("/portal/record")
    await submit(browser, "/portal/record", record="skin/Patient/kit")
    await post(browser, HOLD, fields)
    assert browser.page.status_code == 403
    await browser.open(APPOINTMENTS)
    assert "No appointments to come" in browser.text


async def test_what_ends_a_grant_closes_the_record_at_once(portal: PortalWorld) -> None:
    browser = await portal.at(FIND, ADA, "kit")
    fields = fields_of(forms(browser, HOLD)[0])
    await portal.put(a_grant("grant", of="kit", to="mother", status="inactive"))
    await post(browser, HOLD, fields)
    assert browser.page.status_code == 403
    await browser.open(APPOINTMENTS)
    assert "Record of Ada Quill" in browser.text  # her own is the one that is left


async def test_an_operator_can_switch_the_pages_off(portal: PortalWorld) -> None:
    browser = await portal.at(APPOINTMENTS)
    client = await portal.world.store.get(Client, CLIENT)
    assert client is not None
    await keep(portal.world.store, changed(client, disabled=True))
    await browser.open(APPOINTMENTS)
    assert browser.page.status_code == 403
    assert "switched off" in browser.text


async def test_its_token_is_of_one_record_and_opens_nothing_from_outside(
    portal: PortalWorld,
) -> None:
    await portal.at(APPOINTMENTS)
    (session,) = await portal.world.store.every(PortalSession)
    token = await portal.world.store.get(AccessToken, session.token)
    assert token is not None
    assert (token.context, token.patient, token.browser) == ("patient", "Patient/bo", session.key)
    answer = await portal.world.browser().http.get(
        "/fhir/Patient/bo", headers={"Authorization": f"Bearer {session.token}"}
    )
    assert answer.status_code in {401, 404}


async def test_it_closes_after_half_an_hour_and_with_the_sign_in(portal: PortalWorld) -> None:
    browser = await portal.at(APPOINTMENTS)
    portal.world.clock.advance(29 * 60)
    await browser.open(APPOINTMENTS)
    assert browser.heading == "Appointments"
    await submit(browser, "/signout")
    await browser.open(APPOINTMENTS)
    assert where(browser) == "/signin"


# ---------------------------------------------------------------- booking


@pytest.mark.requirement("portal", "S0-05", "S0-34", "S2-02")
async def test_a_patient_books_looks_moves_and_cancels(portal: PortalWorld) -> None:
    browser = await portal.at(APPOINTMENTS)
    assert "No appointments to come" in browser.text
    await browser.open(FIND)
    assert "Dr. Lark" in browser.text
    assert "until 24 hours before" in browser.text  # the rule, before anything is chosen
    await submit(browser, HOLD)
    first = where(browser)
    assert "The time is held for you until" in browser.text
    assert "You can move or cancel it here until 24 hours before" in browser.text
    await submit(browser, f"{first}/book", comment="I use a wheelchair")
    assert "Booked" in browser.text
    assert "I use a wheelchair" in browser.text
    there = datetime.fromtimestamp(portal.world.clock() + 3 * DAY, UTC)
    assert there.strftime("%A") in browser.heading
    assert browser.heading.endswith(("CDT", "CST"))
    assert "Elm House, 1 Elm Street, Marrow" in browser.text
    assert [one for one in links(browser) if "openstreetmap" in one]
    await browser.open(APPOINTMENTS)
    assert "With Dr. Lark" in browser.text
    await browser.open(next(one for one in links(browser, first)))
    await browser.open(next(one for one in links(browser, FIND)))
    assert browser.heading == "Move to another time"
    await submit(browser, HOLD)
    second = where(browser)
    assert second != first
    await submit(browser, f"{second}/book")
    await browser.open(first)
    assert "Cancelled: It was moved." in browser.text
    await browser.open(second)
    await submit(browser, f"{second}/cancel", reason="I am away")
    assert where(browser) == APPOINTMENTS
    assert "No appointments to come" in browser.text
    await browser.open(HISTORY)
    assert "Cancelled: I am away" in browser.text


@pytest.mark.parametrize("query", ["from=9999-12-31", "from=0001-01-01", "from=x", "service=x|y"])
async def test_an_odd_question_gets_a_page(portal: PortalWorld, query: str) -> None:
    browser = await portal.at(FIND)
    await browser.open(f"{FIND}?{query}")
    assert browser.page.status_code == 200


async def test_a_time_that_somebody_else_took_is_said_to_be_gone(portal: PortalWorld) -> None:
    bo, ada = await portal.at(FIND), await portal.at(FIND, ADA, "ada")
    fields = fields_of(forms(bo, HOLD)[0])
    await submit(ada, HOLD)
    await post(bo, HOLD, fields)
    assert bo.page.status_code == 404
    assert "This time is not available; find another one." in bo.text


async def test_a_hold_that_is_over_is_said_to_be_over(portal: PortalWorld) -> None:
    browser = await portal.at(FIND)
    await submit(browser, HOLD)
    address = where(browser)
    fields = fields_of(forms(browser, f"{address}/book")[0])
    portal.world.clock.advance(601)
    await post(browser, f"{address}/book", fields)
    assert browser.page.status_code == 404
    assert "not available" in browser.text
    await browser.open(address)
    assert "It is not held any more" in browser.text


async def test_buttons_are_there_only_where_they_do_something(portal: PortalWorld) -> None:
    browser = await portal.at(APPOINTMENTS)
    address = await booked(browser)
    assert buttons(browser) == ["Cancel this appointment"]
    portal.world.clock.advance(2 * DAY + 60)
    browser = await portal.at(address)
    assert buttons(browser) == []
    assert "less than 24 hours" in browser.text
    await keep(portal.world.store, PracticePolicy(key=SKIN, booking="view"))
    browser = await portal.at(APPOINTMENTS)
    assert not links(browser, FIND) + links(browser, ASK)
    assert "call the practice" in browser.text


async def test_a_proxy_who_may_only_look_has_no_buttons_and_cannot_press_them() -> None:
    portal = await PortalWorld.begin(act=())
    await portal.put(an_appointment("kits", of=["kit"], start=at(5 * DAY), end=at(5 * DAY + 600)))
    browser = await portal.at(f"{ONE}/kits", ADA, "kit")
    assert browser.page.status_code == 200
    assert buttons(browser) == []
    await browser.open(FIND)
    assert forms(browser, HOLD) == []
    portal.close()


@pytest.mark.parametrize("path", ["book", "cancel", "check-in"])
async def test_a_form_that_is_not_ours_does_nothing(portal: PortalWorld, path: str) -> None:
    browser = await portal.at(FIND)
    await submit(browser, HOLD)
    address = where(browser)
    another = fields_of(forms(browser, f"{address}/{'book' if path == 'cancel' else 'cancel'}")[0])
    for data in ({"comment": "x"}, {"form_token": "x"}, another):
        answer = await browser.http.post(f"{address}/{path}", data=data)
        assert (answer.status_code, "out of date" in answer.text) == (403, True)
    answer = await browser.http.post(HOLD, data={"slot": "Slot/ten"})
    assert answer.status_code == 403
    await browser.open(address)
    assert "The time is held for you" in browser.text


async def test_anothers_appointment_is_not_there(portal: PortalWorld) -> None:
    theirs = await booked(await portal.at(APPOINTMENTS))
    browser = await portal.at(APPOINTMENTS, ADA, "ada")
    for path in ("", "/calendar"):
        found = await browser.open(f"{theirs}{path}")
        absent = await browser.open(f"{ONE}/nobody{path}")
        assert (found.status_code, found.text) == (404, absent.text)


# ---------------------------------------------------------------- looking


@pytest.mark.requirement("portal", "S2-12")
async def test_what_was_is_told_with_its_reason(portal: PortalWorld) -> None:
    reason = {"coding": [{"code": "x", "display": "Practitioner unavailable"}]}
    await portal.put(
        an_appointment(
            "past", of=["bo"], status="fulfilled", start=at(-9 * DAY), end=at(-9 * DAY + 60)
        ),
        an_appointment(
            "off",
            of=["bo"],
            status="cancelled",
            start=at(9 * DAY),
            end=at(9 * DAY + 60),
            cancelationReason=reason,
        ),
        an_appointment(
            "missed", of=["bo"], status="noshow", start=at(-3 * DAY), end=at(-3 * DAY + 60)
        ),
        *(
            an_appointment(
                f"p{n}",
                of=["bo"],
                status="fulfilled",
                start=at(-(20 + n) * DAY),
                end=at(-(20 + n) * DAY + 60),
            )
            for n in range(30)
        ),
    )
    browser = await portal.at(HISTORY)
    for words in ("Took place", "Cancelled: Practitioner unavailable", "Missed"):
        assert words in browser.text
    seen = set(links(browser, ONE))
    while following := links(browser, f"{HISTORY}?"):
        await browser.open(following[0])
        seen |= set(links(browser, ONE))
    assert len(seen) == 33
    await browser.open(APPOINTMENTS)
    assert "No appointments to come" in browser.text


@pytest.mark.requirement("portal", "S0-34")
async def test_what_is_private_is_not_on_the_pages(portal: PortalWorld) -> None:
    service = [concept(SERVICES, CHECK) | {"text": "Skin check"}]
    await portal.put(
        bos("plain", 5, serviceType=service),
        bos("hidden", 5, serviceType=[{"text": "Talk"}], meta=RESTRICTED),
    )
    browser = await portal.at(APPOINTMENTS)
    assert "Skin check" in browser.text
    assert "Talk" not in browser.text
    await keep(portal.world.store, PracticePolicy(key=SKIN, private_services=(CHECK,)))
    for path in (APPOINTMENTS, f"{ONE}/plain", f"{ONE}/hidden"):
        await browser.open(path)
        assert "Skin check" not in browser.text
        assert "Talk" not in browser.text


async def test_a_purpose_that_is_labelled_from_elsewhere_is_not_on_the_pages(
    portal: PortalWorld,
) -> None:
    talk = [{"text": "Talk"}]
    reason = [{"reference": "Condition/secret"}]
    await portal.put(
        a_condition("secret", of="bo"),
        bos("next", 0.01, serviceType=talk, reasonReference=reason),
        bos("before", -5, status="fulfilled", serviceType=talk, reasonReference=reason),
        bos("plain", 6, serviceType=[{"text": "Skin check"}]),
    )
    pages = (APPOINTMENTS, f"{ONE}/next", HISTORY, f"{ONE}/before", "/portal")
    browser = await portal.at(APPOINTMENTS)
    for path in pages:
        await browser.open(path)
        assert "Talk" in browser.text, path
    await portal.put(a_condition("secret", of="bo", meta=RESTRICTED))
    for path in pages:
        await browser.open(path)
        assert browser.page.status_code == 200
        assert "Talk" not in browser.text, path
    await browser.open(APPOINTMENTS)
    assert "Skin check" in browser.text
    await browser.open(f"{ONE}/next")
    await submit(browser, f"{ONE}/next/check-in")
    assert browser.page.status_code == 200
    assert "Talk" not in browser.text


@pytest.mark.requirement("portal", "S0-05")
async def test_it_says_how_to_prepare_and_gives_a_file_for_the_calendar(
    portal: PortalWorld,
) -> None:
    await portal.put(
        an_appointment(
            "a",
            of=["bo"],
            start=at(5 * DAY),
            end=at(5 * DAY + 60),
            patientInstruction="Eat nothing before.",
        ),
        a_task(
            "t",
            of="bo",
            description="Fill in your history",
            restriction={"period": {"end": at(4 * DAY)}},
        ),
    )
    browser = await portal.at(f"{ONE}/a")
    assert "Eat nothing before." in browser.text
    assert "Fill in your history: by" in browser.text
    answer = await browser.http.get(f"{ONE}/a/calendar")
    assert answer.headers["content-type"].startswith("text/calendar")
    assert answer.headers["content-disposition"] == 'attachment; filename="appointment.ics"'
    assert answer.headers["content-security-policy"] == "sandbox; default-src 'none'"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.text.startswith("BEGIN:VCALENDAR")


# ---------------------------------------------------------------- arriving, asking


async def test_a_patient_arrives_sees_the_queue_and_takes_it_back(portal: PortalWorld) -> None:
    await portal.put(
        an_appointment("soon", of=["bo"], start=at(1800), end=at(2400))
        | {
            "participant": [
                {"actor": {"reference": "Patient/bo"}, "status": "accepted"},
                {"actor": {"reference": "Practitioner/lark"}, "status": "accepted"},
            ]
        },
        a_task("t", of="bo", description="Fill in your history"),
    )
    browser = await portal.at(f"{ONE}/soon")
    assert "I am here" in buttons(browser)
    await submit(browser, f"{ONE}/soon/check-in")
    assert "The practice knows that you are here. Nobody waits before you." in browser.text
    assert "Forms to fill in while you wait: 1." in browser.text
    await submit(browser, f"{ONE}/soon/check-in")
    assert "Booked" in browser.text


async def test_a_patient_asks_and_sees_by_when_there_is_an_answer(portal: PortalWorld) -> None:
    browser = await portal.at(ASK)
    assert "within 48 hours" in browser.text
    await submit(browser, ASK, reason="  ")
    assert problem(browser).startswith("Say in a few words")
    await asked(browser, reason="a spot", first="2030-04-09", last="2030-04-01")
    assert problem(browser).startswith("The last day")
    await asked(browser, reason="a spot", first="2030-04-01", last="2030-04-09")
    assert "Asked for" in browser.text
    assert "Answer by" in browser.text
    assert "Monday 1 April 2030 to Tuesday 9 April 2030" in browser.text
    address = where(browser)
    await submit(browser, f"{address}/cancel")
    await browser.open(ASK)
    await submit(browser, ASK, reason="a spot", wait="1")
    assert "On the waiting list" in browser.text


@pytest.mark.parametrize("path", ["/portal", APPOINTMENTS, FIND, ASK, HISTORY])
async def test_pages_are_kept_nowhere_and_run_nothing(portal: PortalWorld, path: str) -> None:
    browser = await portal.at(path)
    assert browser.page.status_code == 200
    assert browser.page.headers["cache-control"] == "no-store"
    assert "script-src" not in browser.page.headers["content-security-policy"]
    assert browser.document.xpath("//script") == []
    assert len(browser.document.xpath("//h1")) == 1


async def test_what_others_write_is_text_on_the_pages(portal: PortalWorld) -> None:
    script = "<script>alert(1)</script>"
    await portal.put(
        bos("x", 5, patientInstruction=script, comment=script, serviceType=[{"text": script}])
    )
    for path in (APPOINTMENTS, f"{ONE}/x"):
        browser = await portal.at(path, BO)
        assert script not in browser.page.text
        assert script in browser.text
