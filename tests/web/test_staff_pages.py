"""``/staff`` over HTTP: who comes in, what they see there, and what others try."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from typing import Any

import pytest

from fhir_portal.access.relation import works
from fhir_portal.accounts.levels import OPERATOR
from fhir_portal.accounts.practice import Practice
from fhir_portal.consent.grant import Grant
from fhir_portal.consent.label_rules import Relabelling
from fhir_portal.consent.sections import section_displays
from fhir_portal.notify import jobs
from fhir_portal.notify.lease import fail
from fhir_portal.operations.invitation_task import CODE
from fhir_portal.operations.settling_jobs import settle_step
from fhir_portal.resources import passing_on
from fhir_portal.resources.settling import SETTLE_JOB
from fhir_portal.smart.client import disable_client, withdraw_approval
from fhir_portal.smart.page_session import StaffSession
from fhir_portal.smart.revocation import disable_account, remove_staff
from fhir_portal.smart.staff_pages import CLIENT, IDLE_SECONDS
from fhir_portal.smart.token import AccessToken
from tests.builders import (
    RESTRICTED,
    a_grant,
    a_patient,
    a_related_person,
    a_task,
    an_encounter,
    an_observation,
    reference,
)
from tests.smart.launching import put
from tests.smart.world import PASSWORD
from tests.staff import a_level
from tests.web.signing_in import fields_of, forms, post, problem, submit
from tests.web.staff_world import (
    ADMIN,
    BLIND,
    BOTH,
    DESK,
    FAMILY,
    FIND,
    HOME,
    KIT,
    READER,
    SCRIPT,
    SKIN,
    StaffWorld,
    buttons,
    find,
    links,
)

RESULTS = section_displays()["results"]
PAGES = (HOME, FIND, KIT, f"{KIT}/activity", f"{KIT}/as/mother")


@pytest.fixture
async def staff() -> AsyncIterator[StaffWorld]:
    found = await StaffWorld.begin()
    yield found
    found.close()


# --- the way in -----------------------------------------------------------------------------------


@pytest.mark.parametrize("path", PAGES)
async def test_nobody_sees_a_page_unless_signed_in(staff: StaffWorld, path: str) -> None:
    response = await staff.world.browser().http.get(path)
    assert response.headers["location"] == f"/signin?then={path}"


@pytest.mark.parametrize("path", PAGES)
async def test_a_patients_account_is_told_the_same_of_every_page(
    staff: StaffWorld, path: str
) -> None:
    for name in ("kits-mother", "mara@example.org"):
        browser = await staff.at(path, name)
        assert browser.page.status_code == 403
        assert browser.heading == "For a practice's staff"
        assert "Quill" not in browser.text
    assert not await staff.world.store.every(AccessToken)


async def test_signing_in_leads_to_the_page_that_was_asked_for(staff: StaffWorld) -> None:
    browser = await staff.at(KIT)
    assert browser.heading == "Portal of Ada Quill"


async def test_somebody_at_one_practice_is_not_asked_which(staff: StaffWorld) -> None:
    browser = await staff.at()
    assert browser.heading == "Hillside Dermatology"
    (token,) = await staff.world.store.every(AccessToken)
    assert (token.client_id, token.context, token.practice) == (CLIENT, "user", SKIN)
    assert token.fhir_user == "Practitioner/admin"


async def test_somebody_at_two_practices_chooses_and_may_choose_again(staff: StaffWorld) -> None:
    browser = await staff.at(name=BOTH)
    assert browser.heading == "Which practice?"
    await submit(browser, "/staff/practice", practice=FAMILY)
    assert browser.heading == "Brook Family Medicine"
    await browser.open("/staff/practice")
    await submit(browser, "/staff/practice", practice=SKIN)
    assert browser.heading == "Hillside Dermatology"
    assert [one.practice for one in await staff.world.store.every(StaffSession)] == [SKIN]


async def test_a_practice_of_others_cannot_be_chosen(staff: StaffWorld) -> None:
    browser = await staff.at()
    await browser.open("/staff/practice")
    await submit(browser, "/staff/practice", practice=FAMILY)
    assert browser.page.status_code == 403
    assert {one.practice for one in await staff.world.store.every(StaffSession)} == {SKIN}


async def test_the_token_and_its_key_reach_no_browser(staff: StaffWorld) -> None:
    browser = await staff.at()
    seen = ""
    for path in PAGES:
        await browser.open(path)
        seen += browser.page.text + str(browser.page.headers)
    seen += str(dict(browser.http.cookies))
    for one in await staff.world.store.every(AccessToken):
        assert one.key not in seen
    for session in await staff.world.store.every(StaffSession):
        assert session.key not in seen
        assert session.account not in seen


async def test_every_access_is_in_the_log_as_the_practitioners_by_this_client(
    staff: StaffWorld,
) -> None:
    browser = await staff.at(KIT)
    assert browser.page.status_code == 200
    rows = await staff.rows()
    own = [one for one in rows if one.client == CLIENT]
    assert {(one.interaction, one.agent, one.context) for one in own} >= {
        ("read", "Practitioner/admin", "user"),
        ("$portal-people", "Practitioner/admin", "user"),
        ("search-type", "Practitioner/admin", "user"),
    }


async def test_a_look_at_a_patient_is_no_more_lines_than_it_looks_things_up(
    staff: StaffWorld,
) -> None:
    """One for what is read or searched once; an invitation of one version needs no history."""
    code = {"coding": [{"system": CODE[0], "code": CODE[1]}]}
    for own_id, versions in (("new", 1), ("sent", 2)):
        for number in range(versions):
            note = [{"text": f"version {number}"}]
            await put(staff.world, SKIN, a_task(own_id, of="kit", code=code, note=note))
    browser = await staff.at(KIT)
    before = len(await staff.rows())
    await browser.open(KIT)
    looked = [one for one in await staff.rows() if one.client == CLIENT]
    latest = looked[: len(await staff.rows()) - before]
    found = [(one.interaction, one.what) for one in latest if one.record == "kit"]
    assert len(found) == len(set(found))
    assert [what for interaction, what in found if interaction == "history-instance"] == [
        "Task/sent"
    ]


# --- the way out ----------------------------------------------------------------------------------


async def test_fifteen_minutes_without_a_request_ask_who_it_is(staff: StaffWorld) -> None:
    browser = await staff.at()
    staff.world.clock.advance(IDLE_SECONDS + 1)
    await browser.open(KIT)
    assert browser.heading == "Confirm that it is you"
    await submit(browser, "/account/confirm", password=PASSWORD)
    assert browser.heading == "Portal of Ada Quill"


async def test_a_form_that_comes_too_late_changes_nothing(staff: StaffWorld) -> None:
    browser = await staff.at(FIND)
    staff.world.clock.advance(IDLE_SECONDS + 1)
    await submit(browser, FIND, name="Quill")
    assert browser.page.status_code == 403
    assert "Kit" not in browser.text


async def test_signing_out_closes_the_pages(staff: StaffWorld) -> None:
    browser = await staff.at()
    await submit(browser, "/signout")
    await browser.open(KIT)
    assert browser.heading == "Sign in"


async def test_a_removed_member_sees_nothing_more(staff: StaffWorld) -> None:
    browser = await staff.at(FIND, DESK)
    await remove_staff(
        staff.world.store,
        account=await staff.account_key(DESK),
        practice=SKIN,
        now=0.0,
        by=OPERATOR,
        works=works,
    )
    await submit(browser, FIND, name="Quill")
    assert browser.page.status_code == 403
    await browser.open(KIT)
    assert browser.heading == "For a practice's staff"


async def test_a_disabled_member_is_signed_out(staff: StaffWorld) -> None:
    browser = await staff.at(KIT, DESK)
    await disable_account(staff.world.store, await staff.account_key(DESK), now=0.0)
    await browser.open(KIT)
    assert browser.heading == "Sign in"


async def test_a_new_level_counts_from_the_next_request(staff: StaffWorld) -> None:
    browser = await staff.at(f"{KIT}/activity")
    assert browser.page.status_code == 200
    await staff.keep(a_level(ADMIN, "view", practice=SKIN, version=2))
    await browser.open(f"{KIT}/activity")
    assert browser.page.status_code == 403


async def test_an_operator_may_switch_the_pages_off(staff: StaffWorld) -> None:
    browser = await staff.at()
    await withdraw_approval(staff.world.store, CLIENT, practices=[SKIN], now=0.0)
    await browser.open(KIT)
    assert browser.page.status_code == 403
    assert "switched off" in browser.text
    await disable_client(staff.world.store, CLIENT, now=0.0)
    await browser.open(KIT)
    assert browser.page.status_code == 403


# --- finding --------------------------------------------------------------------------------------


async def test_patients_are_found_by_name_birth_date_and_number(staff: StaffWorld) -> None:
    await put(
        staff.world,
        SKIN,
        a_patient("num", family="Ash", identifier=[{"system": "urn:mrn", "value": "A-17"}]),
    )
    browser = await staff.at()
    await find(browser, name="quil")
    assert set(links(browser, f"{FIND}/")) == {f"{FIND}/kit", f"{FIND}/bo"}
    await find(browser, name="quill", born="2018-02-03")
    assert links(browser, f"{FIND}/") == [f"{FIND}/kit"]
    await find(browser, number="A-17")
    assert links(browser, f"{FIND}/") == [f"{FIND}/num"]


async def test_no_patient_of_another_practice_is_found(staff: StaffWorld) -> None:
    browser = await staff.at()
    await find(browser, name="Quillfar")
    assert not links(browser, f"{FIND}/")
    hidden = await browser.open(f"{FIND}/elsewhere")
    absent = await browser.open(f"{FIND}/nobody-at-all")
    assert hidden.status_code == absent.status_code == 404
    assert hidden.text == absent.text


async def test_a_long_list_has_pages(staff: StaffWorld) -> None:
    await put(staff.world, SKIN, *(a_patient(f"p{n}", family=f"Zed{n:02}") for n in range(25)))
    browser = await staff.at()
    await find(browser, name="Zed")
    first = links(browser, f"{FIND}/")
    assert len(first) == 20
    await submit(browser, FIND, nth=1)
    second = links(browser, f"{FIND}/")
    assert len(second) == 5
    assert not set(first) & set(second)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({}, "Give a name"),
        ({"name": " "}, "Give a name"),
        ({"name": "x" * 101}, "too long"),
        ({"born": "12/5/1984"}, "year, month and day"),
        ({"born": "1984-13-40"}, "year, month and day"),
    ],
)
async def test_what_cannot_be_searched_for_is_said(
    staff: StaffWorld, fields: dict[str, str], words: str
) -> None:
    browser = await staff.at()
    await find(browser, **fields)
    assert browser.page.status_code == 400
    assert words in problem(browser)


@pytest.mark.parametrize("name", ["a,b", "a|b", "a$b", "a\\b", "*", "%", "_", "a&_count=1", SCRIPT])
async def test_signs_of_the_search_are_searched_for(staff: StaffWorld, name: str) -> None:
    browser = await staff.at()
    await find(browser, name=name)
    assert browser.page.status_code == 200
    assert SCRIPT not in browser.page.text
    assert f"{FIND}/kit" not in links(browser)


async def test_a_forged_paging_link_is_refused(staff: StaffWorld) -> None:
    browser = await staff.at(FIND)
    await submit(browser, FIND, page="x" * 40)
    assert browser.page.status_code == 400
    await browser.open(FIND)
    await submit(browser, FIND, page="a b")
    assert browser.page.status_code == 400


async def test_nothing_that_is_searched_for_is_in_an_address(staff: StaffWorld) -> None:
    browser = await staff.at()
    await find(browser, name="Quill")
    assert browser.page.request.method == "POST"
    assert not browser.page.url.query


async def test_without_view_nobody_is_found(staff: StaffWorld) -> None:
    browser = await staff.at(FIND, BLIND)
    assert browser.page.status_code == 403
    for path in (KIT, f"{KIT}/activity", f"{KIT}/as/mother"):
        await browser.open(path)
        assert browser.page.status_code == 403
        assert "Quill" not in browser.text


# --- a patient's page -----------------------------------------------------------------------------


async def test_the_page_tells_accounts_and_grants(staff: StaffWorld) -> None:
    browser = await staff.at(KIT)
    assert "born 3 February 2018" in browser.text
    assert "Mara Quill" in browser.text
    assert "in force" in browser.text
    assert "Acts in Forms" in " ".join(browser.text.split()).replace("inForms", "in Forms")
    assert "enabled" in browser.text  # the mother's account


async def test_what_somebody_sees_is_told_in_words(staff: StaffWorld) -> None:
    browser = await staff.at(f"{KIT}/as/mother")
    rows = {
        " ".join(one.xpath("./dt")[0].text_content().split()): " ".join(
            one.xpath("./dd")[0].text_content().split()
        )
        for one in browser.document.xpath("//dl/div")
    }
    assert rows["Forms"] == "sees it and acts in it"
    assert [title for title, what in rows.items() if what == "sees it"] == [RESULTS]
    await browser.open(f"{KIT}/as/uncle")
    assert "no grant in force" in browser.text
    assert "sees it" not in browser.text
    await browser.open(f"{KIT}/as/nobody")
    assert browser.page.status_code == 404


async def test_what_is_stored_is_shown_as_text(staff: StaffWorld) -> None:
    browser = await staff.at(KIT)
    for path in (KIT, f"{FIND}/odd", f"{KIT}/as/uncle"):
        await browser.open(path)
        assert browser.page.status_code == 200
        assert SCRIPT not in browser.page.text
        assert not browser.document.xpath("//main//script")


async def test_the_log_is_for_who_may_audit(staff: StaffWorld) -> None:
    browser = await staff.at(KIT)
    assert f"{KIT}/activity" in links(browser)
    await browser.open(f"{KIT}/activity")
    assert "admin by portal-staff" in browser.text
    reader = await staff.at(KIT, READER)
    assert f"{KIT}/activity" not in links(reader)
    await reader.open(f"{KIT}/activity")
    assert reader.page.status_code == 403


async def test_earlier_lines_of_the_log_are_behind_a_button(staff: StaffWorld) -> None:
    browser = await staff.at(KIT)
    for _ in range(6):
        await browser.open(KIT)
    await browser.open(f"{KIT}/activity")
    assert buttons(browser) == ["Earlier"]
    await submit(browser, f"{KIT}/activity")
    assert browser.page.status_code == 200
    assert browser.document.xpath("//ul[@class='entries']/li")


@pytest.mark.parametrize("own_id", ["x" * 65, "kit%20", "k_t", "kit%3Fx"])
async def test_an_id_that_cannot_be_is_not_there(staff: StaffWorld, own_id: str) -> None:
    browser = await staff.at()
    assert (await browser.open(f"{FIND}/{own_id}")).status_code == 404


# --- forms and headers ----------------------------------------------------------------------------


async def test_a_form_without_our_token_is_refused(staff: StaffWorld) -> None:
    browser = await staff.at(FIND)
    for token in ("", "x" * 43):
        response = await post(browser, FIND, {"name": "Quill", "form_token": token})
        assert response.status_code == 403
        assert "Kit" not in browser.text


async def test_a_form_of_one_page_is_none_of_another(staff: StaffWorld) -> None:
    browser = await staff.at(FIND)
    fields = fields_of(forms(browser, FIND)[0])
    response = await post(browser, f"{KIT}/activity", {**fields, "page": "x"})
    assert response.status_code == 403


async def test_a_form_of_one_practice_is_none_of_the_other(staff: StaffWorld) -> None:
    browser = await staff.at(name=BOTH)
    await submit(browser, "/staff/practice", practice=SKIN)
    await browser.open(FIND)
    fields = fields_of(forms(browser, FIND)[0])
    await browser.open("/staff/practice")
    await submit(browser, "/staff/practice", practice=FAMILY)
    response = await post(browser, FIND, {**fields, "name": "Quill"})
    assert response.status_code == 403


async def test_a_form_from_another_site_is_refused(staff: StaffWorld) -> None:
    browser = await staff.at(FIND)
    fields = fields_of(forms(browser, FIND)[0])
    response = await browser.http.post(
        FIND, data={**fields, "name": "Quill"}, headers={"Sec-Fetch-Site": "cross-site"}
    )
    assert response.status_code == 403


@pytest.mark.parametrize("path", [*PAGES, "/staff/practice"])
async def test_no_page_is_framed_kept_or_sniffed(staff: StaffWorld, path: str) -> None:
    browser = await staff.at()
    response = await browser.open(path)
    assert response.headers["x-frame-options"] == "DENY"
    assert "frame-ancestors 'none'" in response.headers["content-security-policy"]
    assert "script-src" not in response.headers["content-security-policy"]
    assert response.headers["cache-control"] == "no-store"
    assert response.headers["referrer-policy"] == "no-referrer"
    assert response.headers["x-content-type-options"] == "nosniff"


# --- launches -------------------------------------------------------------------------------------


@pytest.fixture
async def ehr(staff: StaffWorld) -> Any:
    await staff.at()  # the practice's pages have been opened once: the client is there
    return await staff.world.backend("ehr", scope="system/*.cruds", permissions=["launch"])


async def launched(staff: StaffWorld, ehr: Any, **changes: Any) -> dict[str, Any]:
    token = (await ehr.backend_token()).json()["access_token"]
    body = {"patient": "Patient/kit", "client_id": CLIENT, **changes}
    async with staff.world.http() as http:
        response = await http.post(
            "/oauth/launch", json=body, headers={"Authorization": f"Bearer {token}"}
        )
    assert response.status_code == 201, response.text
    found: dict[str, Any] = response.json()
    return found


def path_of(launch_url: str) -> str:
    return launch_url.removeprefix("http://127.0.0.1:8000")


async def test_an_ehr_opens_a_patients_page(staff: StaffWorld, ehr: Any) -> None:
    url = (await launched(staff, ehr))["launch_url"]
    assert url.startswith("http://127.0.0.1:8000/staff/launch?iss=")
    browser = await staff.at(path_of(url), DESK)
    assert browser.heading == "Portal of Ada Quill"
    assert browser.page.url.path == KIT
    await browser.open(path_of(url))  # it was used
    assert browser.page.status_code == 400


async def test_a_launch_for_somebody_signed_in_opens_at_once(staff: StaffWorld, ehr: Any) -> None:
    browser = await staff.at(name=DESK)
    await browser.open(path_of((await launched(staff, ehr))["launch_url"]))
    assert browser.page.url.path == KIT


async def test_a_launch_opens_its_practice_without_asking(staff: StaffWorld, ehr: Any) -> None:
    browser = await staff.at(path_of((await launched(staff, ehr))["launch_url"]), BOTH)
    assert browser.page.url.path == KIT


@pytest.mark.parametrize(
    "iss",
    [
        "https://evil.example/fhir",
        "http://127.0.0.1:8000",
        "http://127.0.0.1:8000/fhir/../x",
        "http://127.0.0.1:8000.evil.example/fhir",
        "",
    ],
)
async def test_a_launch_for_another_server_goes_nowhere(
    staff: StaffWorld, ehr: Any, iss: str
) -> None:
    handle = (await launched(staff, ehr))["launch"]
    browser = await staff.at()
    response = await browser.http.get("/staff/launch", params={"iss": iss, "launch": handle})
    assert response.status_code == 400
    assert "location" not in response.headers


@pytest.mark.parametrize(
    "handle", ["", "//evil.example", "https://evil.example", "a/../b", "x" * 99]
)
async def test_a_launch_leads_nowhere_else(staff: StaffWorld, handle: str) -> None:
    browser = await staff.at()
    response = await browser.http.get(
        "/staff/launch", params={"iss": "http://127.0.0.1:8000/fhir", "launch": handle}
    )
    location = response.headers.get("location", "/")
    assert re.fullmatch(r"/(staff/launch/x+)?", location)
    if location != "/":
        assert (await browser.open(location)).status_code == 400


async def test_a_launch_is_no_right(staff: StaffWorld, ehr: Any) -> None:
    """Whoever comes with it: a patient, staff elsewhere, a member whose level does not view."""
    await staff.member("far", FAMILY, level=READER)
    for name, status in (("kits-mother", 403), ("far", 403), (BLIND, 403)):
        browser = await staff.at(path_of((await launched(staff, ehr))["launch_url"]), name)
        assert browser.page.status_code == status
        assert "Quill" not in browser.text


async def test_a_launch_for_one_person_is_not_for_another(staff: StaffWorld, ehr: Any) -> None:
    url = (await launched(staff, ehr, fhirUser="Practitioner/desk"))["launch_url"]
    browser = await staff.at(path_of(url), READER)
    assert browser.page.status_code == 400
    desk = await staff.at(path_of(url), DESK)
    assert desk.page.url.path == KIT


async def test_the_pages_client_gets_no_token_by_oauth(staff: StaffWorld, ehr: Any) -> None:
    """Its secret is known to nobody; a code for it buys nothing."""
    assert ehr
    async with staff.world.http() as http:
        for auth in ((CLIENT, ""), (CLIENT, CLIENT)):
            response = await http.post(
                "/oauth/token",
                data={"grant_type": "authorization_code", "code": "x", "client_id": CLIENT},
                auth=auth,
            )
            assert response.status_code == 401


@pytest.mark.parametrize("zone", ["America/Chicago", "Asia/Tokyo"])
async def test_a_time_beyond_the_calendar_leaves_the_page_readable(
    staff: StaffWorld, zone: str
) -> None:
    """Some EHRs write the first and the last moment there is for "ever"."""
    await staff.keep(Practice(key=SKIN, name="Hillside Dermatology", zone=zone))
    grant = a_grant("ever", of="kit", to="uncle", sections=["results"])
    grant["provision"]["period"] = {"start": "0001-01-01T00:00:00Z", "end": "9999-12-31T23:59:59Z"}
    await put(staff.world, SKIN, grant)
    browser = await staff.at(KIT)
    assert browser.page.status_code == 200
    assert "9999" in browser.text


# --- ending a grant -------------------------------------------------------------------------------


async def test_a_grant_is_ended_on_the_patients_page(staff: StaffWorld) -> None:
    browser = await staff.at(KIT)
    assert "End this grant of Mara Quill" in buttons(browser)
    await submit(browser, f"{KIT}/grant", reason=" ")
    assert browser.page.status_code in {400, 422}
    assert len(await staff.world.store.every(Grant)) == 1
    await browser.open(KIT)
    await submit(browser, f"{KIT}/grant", reason="the father asked for it")
    assert browser.page.url.path == KIT
    assert "The grant was ended. The patient and who had it are told." in browser.text
    assert "over: it was ended" in browser.text
    assert not [one for one in buttons(browser) if one.startswith("End this grant")]
    assert await staff.world.store.every(Grant) == []


async def test_without_proxies_there_is_no_button_and_no_way(staff: StaffWorld) -> None:
    browser, admin = await staff.at(KIT, DESK), await staff.at(KIT)
    assert not [one for one in buttons(browser) if one.startswith("End this grant")]
    sent = fields_of(forms(admin, f"{KIT}/grant")[0]) | {"reason": "x"}
    response = await post(browser, f"{KIT}/grant", sent)
    assert response.status_code == 403
    assert len(await staff.world.store.every(Grant)) == 1


async def test_a_grant_of_another_record_is_not_ended_by_this_ones_form(staff: StaffWorld) -> None:
    await put(
        staff.world,
        SKIN,
        a_related_person("son", of="bo"),
        a_grant("bos", of="bo", to="son"),
    )
    browser = await staff.at(KIT)
    await submit(browser, f"{KIT}/grant", grant="bos", reason="x")
    assert browser.page.status_code == 404
    assert len(await staff.world.store.every(Grant)) == 2


# --- what is being worked out ---------------------------------------------------------------------


async def test_staff_read_what_is_hidden_while_labels_are_worked_out(
    staff: StaffWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(passing_on, "MOST", 1)
    browser = await staff.at()
    assert "worked out" not in browser.page.text
    visit = an_encounter("visit", of="kit")
    results = [
        an_observation(f"o{n}", of="kit", encounter=reference("Encounter/visit")) for n in range(4)
    ]
    await put(staff.world, SKIN, visit, *results, {**visit, "meta": RESTRICTED})
    await browser.open(HOME)
    assert "hidden from patients" in browser.page.text
    assert "all records of the practice" not in browser.page.text
    assert "does not get on" not in browser.page.text
    store, clock = staff.world.store, staff.world.clock
    await store.transact(
        lambda t: t.put(Relabelling(key=SKIN, hides=False, spreads=True)),
    )
    held = await jobs.claim(store, SETTLE_JOB, "w", clock())
    assert held is not None
    await fail(store, held, retry_at=None)
    await browser.open(HOME)
    assert "all records of the practice" in browser.page.text
    assert "does not get on" in browser.page.text
    other = await staff.at(name=BOTH)
    await submit(other, "/staff/practice", practice=FAMILY)
    assert "worked out" not in other.page.text
    await store.transact(lambda t: t.delete(Relabelling, SKIN))
    while await store.transact(lambda t: settle_step(t, SKIN)):
        pass
    await browser.open(HOME)
    assert "worked out" not in browser.page.text
