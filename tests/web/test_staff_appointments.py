"""The staff side of appointments: the day, requests and their answers, and whose it is not."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.builders import Json, a_patient, a_practitioner, an_appointment
from tests.operations.booking import DAY, a_schedule, a_slot, at
from tests.smart.launching import put
from tests.smart.world import Browser
from tests.staff import a_level
from tests.web.signing_in import fields_of, forms, post, submit
from tests.web.staff_world import ADMIN, FAMILY, READER, SCRIPT, SKIN, StaffWorld, buttons, links

APPOINTMENTS = "/staff/appointments"
KITS = f"{APPOINTMENTS}/for/kit"


@pytest.fixture
async def staff() -> AsyncIterator[StaffWorld]:
    found = await StaffWorld.begin()
    await put(found.world, SKIN, a_practitioner("booker"))
    await found.keep(a_level("booker", "view", "appointments", practice=SKIN))
    await found.member("booker", SKIN)
    await put(
        found.world,
        SKIN,
        a_schedule("lark", "Practitioner/admin"),
        a_slot("one", 2 * DAY),
        a_slot("two", 3 * DAY),
        visit("soon", 600),
        wish("wish", reasonCode=[{"text": SCRIPT}]),
    )
    await put(
        found.world, FAMILY, an_appointment("far", of=["elsewhere"], start=at(60), end=at(90))
    )
    yield found
    found.close()


def visit(own_id: str, begins: float, **more: Any) -> Json:
    return an_appointment(own_id, of=["bo"], start=at(begins), end=at(begins + 600), **more)


def wish(own_id: str, **more: Any) -> Json:
    tree = an_appointment(own_id, of=["kit"], status="proposed", **more)
    del tree["start"], tree["end"]
    return tree


async def test_staff_see_the_day_and_what_waits_for_an_answer(staff: StaffWorld) -> None:
    browser = await staff.at(APPOINTMENTS)
    assert "Ada Quillon" in browser.text
    assert "Ada Quill" in browser.text
    assert "Answer by" in browser.text
    assert "Quillfar" not in browser.text
    assert SCRIPT in browser.text
    assert SCRIPT not in browser.page.text
    staff.world.clock.advance(49 * 3600)
    browser = await staff.at(APPOINTMENTS)
    assert "Overdue: an answer was due by" in browser.text
    await browser.open(f"{APPOINTMENTS}?day=1999-01-01")
    assert "None on this day." in browser.text
    for odd in ("9999-12-31", "0001-01-01", "x"):
        await browser.open(f"{APPOINTMENTS}?day={odd}")
        assert browser.page.status_code == 200


@pytest.mark.requirement("portal", "S0-04")
async def test_a_request_is_answered_with_a_time(staff: StaffWorld) -> None:
    browser = await staff.at(APPOINTMENTS, "booker")
    await browser.open(next(one for one in links(browser, KITS)))
    await submit(browser, KITS, nth=1)
    assert "booked" in browser.text
    assert "Nobody waits for an answer." in browser.text
    rows = [row for row in await staff.rows() if row.interaction in {"$hold", "$book"}]
    assert {row.agent for row in rows} == {"Practitioner/booker"}


async def test_staff_move_decline_cancel_and_check_in(staff: StaffWorld) -> None:
    browser = await staff.at(APPOINTMENTS, "booker")
    await submit(browser, f"{APPOINTMENTS}/one/wish/cancel", reason="No time this month")
    assert "Nobody waits for an answer." in browser.text
    await submit(browser, f"{APPOINTMENTS}/one/soon/check-in")
    assert "is here" in browser.text
    await submit(browser, f"{APPOINTMENTS}/one/soon/check-in")
    await browser.open(next(one for one in links(browser, f"{APPOINTMENTS}/for/bo")))
    await submit(browser, f"{APPOINTMENTS}/for/bo", nth=1)
    assert "booked" in browser.text
    await browser.open(APPOINTMENTS)
    assert "cancelled: It was moved." in browser.text


async def test_what_is_taken_meanwhile_is_refused_and_the_request_stays(staff: StaffWorld) -> None:
    browser = await staff.at(APPOINTMENTS, "booker")
    await browser.open(next(one for one in links(browser, KITS)))
    fields = fields_of(forms(browser, KITS)[1])
    tree = visit("first", 2 * DAY)
    tree["participant"].append({"actor": {"reference": "Practitioner/admin"}, "status": "accepted"})
    await put(staff.world, SKIN, tree)
    await post(browser, KITS, fields)
    assert browser.page.status_code == 404
    await browser.open(APPOINTMENTS)
    assert "asked for" in browser.text


@pytest.mark.parametrize("name", [READER, "blind"])
async def test_without_the_permission_there_is_no_page_and_no_button(
    staff: StaffWorld, name: str
) -> None:
    browser = await staff.at(name=name)
    assert APPOINTMENTS not in links(browser)
    for path in (APPOINTMENTS, KITS):
        await browser.open(path)
        assert browser.page.status_code == 403
    for path in (KITS, f"{APPOINTMENTS}/one/soon/cancel", f"{APPOINTMENTS}/one/soon/check-in"):
        await post(browser, path, {"slot": "Slot/one", "form_token": "x"})
        assert browser.page.status_code == 403


async def test_another_practices_patient_and_appointment_are_not_there(staff: StaffWorld) -> None:
    browser = await staff.at(APPOINTMENTS, "booker")
    await browser.open(f"{APPOINTMENTS}/for/elsewhere")
    assert browser.page.status_code == 404
    fields = fields_of(forms_of_day(browser, await browser.open(APPOINTMENTS)))
    for path in (f"{APPOINTMENTS}/one/far/cancel", f"{APPOINTMENTS}/one/nobody/cancel"):
        await post(browser, path, fields)
        assert browser.page.status_code == 404


def forms_of_day(browser: Browser, page: object) -> Any:
    assert page is not None
    return forms(browser, f"{APPOINTMENTS}/one/soon/cancel")[0]


async def test_a_form_of_another_patient_books_nothing(staff: StaffWorld) -> None:
    await put(staff.world, SKIN, a_patient("cy"))
    browser = await staff.at(KITS, "booker")
    fields = fields_of(forms(browser, KITS)[1])
    await post(browser, f"{APPOINTMENTS}/for/cy", fields)
    assert browser.page.status_code == 403
    await browser.open(KITS)
    assert len([one for one in buttons(browser) if one.startswith("Book")]) == 2


async def test_the_administrator_has_it_too(staff: StaffWorld) -> None:
    browser = await staff.at(name=ADMIN)
    assert APPOINTMENTS in links(browser)
