"""After ``$account-close``: who comes back, how, and who does not."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from fhir_portal.operations.no_more_invitations import NoMoreInvitations
from fhir_portal.resources.portal_status import said_status
from tests.builders import DERM, FAMILY, keep
from tests.operations.holding import parameters, values
from tests.operations.invitations import call, invite, invited, the_invitation
from tests.smart.world import Browser
from tests.web.activating import GOOD, MAIL, PHONE, Town, fill

BECAUSE = parameters(reason_Code="left-practice")

pytestmark = pytest.mark.requirement("portal", "S4-16")


@pytest.fixture
async def town() -> AsyncIterator[Town]:
    town = await Town.begin()
    yield town
    town.close()


async def closed(town: Town) -> str:
    """Ada's own access ends here; her account is known at the other practice, too."""
    first = await town.invite()
    browser = town.browser()
    await town.by_link(browser, first)
    await town.create(browser)
    elsewhere = await town.invite(
        "t-f", practice=FAMILY, patients=("Patient/ada-f",), persons=("Patient/ada-f",)
    )
    await town.by_link(browser, elsewhere)
    await fill(browser, "/activate/account/add")
    assert {one.practice for one in await town.records()} == {DERM, FAMILY}
    assert said_status(await town.person()) == "enabled"
    own_id = str((await town.person())["id"])
    ended = await town.ehr.ask("POST", f"Person/{own_id}/$account-close", BECAUSE)
    assert values(ended)["status"] == "closed"
    assert [one.practice for one in await town.records()] == [FAMILY]
    return own_id


async def by_link(town: Town, browser: Browser) -> None:
    made = await invited(town.ehr, "ada", channel="mail", force=True)
    invitation = await the_invitation(town.world.store, made["invitation"])
    await town.by_link(browser, invitation)


@pytest.mark.parametrize("account", ["ada.quill", "ada.second"])
async def test_who_is_invited_again_comes_back_by_a_new_person(town: Town, account: str) -> None:
    """Into the account of before, or into a new one; the Person of before stays as history."""
    before = await closed(town)
    browser = town.browser()
    await by_link(town, browser)
    if account == "ada.quill":
        await browser.open("/signin?then=/activate/account")
        await browser.sign_in(account, GOOD)
        await fill(browser, "/activate/account/add")
    else:
        await town.create(browser, username=account)
    assert "Patient/ada" in {one.patient for one in await town.records(account)}
    person = await town.person(account)
    assert person["id"] != before
    assert [one["target"] for one in person["link"]] == [{"reference": "Patient/ada"}]
    old = (await town.ehr.get(f"Person/{before}")).json
    assert old["active"] is False
    assert "link" not in old
    assert (said_status(person), said_status(old)) == ("enabled", "closed")
    assert await town.world.store.every(NoMoreInvitations) == []


async def test_nobody_comes_back_by_themselves_and_the_page_says_nothing_of_it(town: Town) -> None:
    """By the mail address on file: the same page as for anybody, and staff are told."""
    browser, never = town.browser(), town.browser()
    await town.register(never, mail="a@m.example", first="Nobody")
    await closed(town)
    await town.register(browser)
    assert browser.text == never.text
    (left,) = [one for one in await town.helps() if one.reason == "closed"]
    assert left.practice == DERM
    answer = await invite(town.ehr, "ada", channel="mail")
    assert answer.status == 409


async def test_an_activation_that_was_under_way_ends_in_nothing(town: Town) -> None:
    """Begun by the mail address before the portal was ended, finished after it."""
    browser = town.browser()
    await town.register(browser)
    await fill(browser, "/activate/proof", code=await town.code_sent_to(MAIL))
    await fill(browser, "/activate/proof/send", contact="0")
    await fill(browser, "/activate/proof", code=await town.code_sent_to(PHONE))
    assert browser.heading == "Your account"
    await town.ehr.store(
        {
            "resourceType": "Person",
            "id": "ehrs",
            "link": [{"target": {"reference": "Patient/ada"}, "assurance": "level3"}],
        }
    )
    ended = await town.ehr.ask("POST", "Person/ehrs/$account-close", BECAUSE)
    assert values(ended)["status"] == "closed"
    await town.create(browser)
    assert await town.account() is None


async def test_an_invitation_of_before_that_nobody_found_brings_nobody_back(town: Town) -> None:
    """Expired when the portal was ended, and under another name: staff send it again."""
    made = await invited(town.ehr, "ada", channel="mail")
    ended = NoMoreInvitations(key=f"{DERM}/Patient/ada", since=town.world.clock() + 1, closed=True)
    await keep(town.world.store, ended)
    town.world.clock.advance(60)
    answer = await call(town.ehr, made["invitation"], "invite-resend")
    assert answer.status == 200
    browser = town.browser()
    invitation = await the_invitation(town.world.store, made["invitation"])
    await town.by_link(browser, invitation)
    await town.create(browser)
    assert await town.account() is None
    assert (await town.stored(invitation)).state == "opened"


async def test_a_live_invitation_leads_nowhere_once_the_portal_was_ended(town: Town) -> None:
    made = await invited(town.ehr, "ada", channel="mail")
    invitation = await the_invitation(town.world.store, made["invitation"])
    browser = town.browser()
    await town.by_link(browser, invitation)
    await town.ehr.store(
        {
            "resourceType": "Person",
            "id": "ehrs",
            "link": [{"target": {"reference": "Patient/ada"}, "assurance": "level1"}],
        }
    )
    await town.ehr.ask("POST", "Person/ehrs/$account-close", BECAUSE)
    await town.create(browser)
    assert await town.account() is None


async def test_it_stays_ended_when_the_record_is_merged(town: Town) -> None:
    await closed(town)
    ada = (await town.ehr.get("Patient/ada")).json
    await town.ehr.store({**{n: v for n, v in ada.items() if n != "meta"}, "id": "ada-new"})
    patients = {
        "source__patient_Reference": {"reference": "Patient/ada"},
        "target__patient_Reference": {"reference": "Patient/ada-new"},
    }
    assert (await town.ehr.ask("POST", "Patient/$merge", parameters(**patients))).status == 200
    await town.register(town.browser())
    assert [one.reason for one in await town.helps()] == ["closed"]


async def test_it_is_ended_for_a_person_whose_link_nobody_proved_too(town: Town) -> None:
    """An EHR's own Person, of whom nobody has an account: what was ended is that Patient's."""
    link = {"target": {"reference": "Patient/ada"}, "assurance": "level1"}
    await town.ehr.store({"resourceType": "Person", "id": "ehrs", "link": [link]})
    assert (await town.ehr.ask("POST", "Person/ehrs/$account-close", BECAUSE)).status == 200
    await town.register(town.browser())
    assert [one.reason for one in await town.helps()] == ["closed"]
