"""``/activate`` and ``/register`` over HTTP: every way to an account, walked to its end."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from fhir_portal.accounts import terms
from fhir_portal.accounts.account import AccountPerson
from fhir_portal.accounts.activation import Activation
from fhir_portal.accounts.contacts import contacts_of
from fhir_portal.accounts.passkeys import Passkey
from fhir_portal.accounts.recovery_codes import RecoveryCodes
from fhir_portal.accounts.security_questions import RecoveryPolicy
from fhir_portal.web.pages.activation_room import NOT_MATCHED
from fhir_portal.web.pages.birth_date import birth_date_of
from tests.accounts.authenticator import Authenticator
from tests.builders import (
    DERM,
    FAMILY,
    Json,
    a_patient,
    a_person,
    a_practice,
    a_task,
    an_account,
    keep,
)
from tests.operations.invitations import invite, invited, the_invitation
from tests.smart.world import PASSWORD, Browser
from tests.web.activating import ADA, GOOD, HOME, KIT, MAIL, PHONE, Town, fill
from tests.web.signing_in import done, fields_of, forms, post, problem

DERM_ID = a_practice(DERM).practice_id


@pytest.fixture
async def town() -> AsyncIterator[Town]:
    town = await Town.begin()
    yield town
    town.close()


def field_value(browser: Browser, name: str) -> str:
    (found,) = browser.document.xpath(f'//input[@name="{name}"]')
    return str(found.get("value", ""))


# --- by the link ---------------------------------------------------------------------------------


@pytest.mark.requirement(
    "portal",
    "S0-12",
    "S0-17",
    "S0-18",
    "S0-22",
    "S0-26",
    "S0-27",
    "S1-06",
    "S1-19",
    "S1-40",
    "S2-18",
    "S3-18",
    "S3-19",
)
async def test_by_link_and_security_code_to_a_signed_in_account(town: Town) -> None:
    """S0-12 to S0-29, S1-19, S3-19: link, code, birth date and zip, user name, password, done."""
    invitation = await town.invite()
    browser = town.browser()
    page = await browser.open(f"/activate/{town.of(invitation).link}")
    assert page.status_code == 200
    assert page.headers["referrer-policy"] == "no-referrer"
    assert "A. Q." in browser.text
    assert "Quill" not in browser.text
    assert "Dermatology" in browser.heading
    await town.by_link(browser, invitation)
    assert browser.heading == "Your account"
    await town.create(browser)
    assert browser.heading == "Your account is ready"
    (record,) = await town.records()
    assert (record.patient, record.practice, record.is_own) == ("Patient/ada", DERM, True)
    opened = await town.world.sessions.find(browser.http.cookies["portal-session"])
    assert opened is not None
    assert opened.account == await town.account()


@pytest.mark.requirement("portal", "S1-23")
async def test_what_was_redeemed_is_recorded(town: Town) -> None:
    """S1-23: Person, Task, Provenance with channel and time, a line of the log, the invitation."""
    invitation = await town.invite()
    browser = town.browser()
    await town.by_link(browser, invitation)
    await town.create(browser)
    person = await town.person()
    assert person["link"] == [{"target": {"reference": "Patient/ada"}, "assurance": "level2"}]
    assert person["name"][0]["family"] == "Quill"
    task = (await town.ehr.get("Task/t-ada")).json
    assert task["status"] == "completed"
    assert task["businessStatus"]["coding"][0]["code"] == "redeemed"
    found = (await town.ehr.get(f"Provenance?target=Person/{person['id']}")).entries
    said = [one["what"]["display"] for one in found[0]["entity"]]
    assert said[1].startswith("Gave the security code, sent by SMS, 2030-")
    assert MAIL not in str(found)
    stored = await town.stored(invitation)
    account = await town.account()
    assert account is not None
    assert (stored.state, stored.redeemed_by) == ("redeemed", account.key)
    lines = (await town.ehr.get("AuditEvent?patient=Patient/ada")).entries
    assert any("redeem-invite" in str(line) for line in lines)
    assert await town.world.store.every(Activation) == []


async def test_what_is_written_is_valid(town: Town) -> None:
    """What the server writes itself passes the checks that others' writes pass."""
    invitation = await town.invite_mother()
    browser = town.browser()
    await town.by_link(browser, invitation)
    await town.create(browser)
    person = await town.person()
    trees = [person, (await town.ehr.get("Task/t-kit")).json]
    trees += (await town.ehr.get(f"Provenance?target=Person/{person['id']}")).entries
    assert len(trees) == 3
    for tree in trees:
        assert (await town.ehr.put(tree)).status == 200


async def test_proved_contacts_come_along_and_all_contacts_are_told(town: Town) -> None:
    invitation = await town.invite()
    browser = town.browser()
    await town.by_link(browser, invitation)
    await town.create(browser, username=MAIL)
    account = await town.account(MAIL)
    assert account is not None
    contacts = await contacts_of(town.world.store, account.key)
    assert {(one.value, one.verified is not None) for one in contacts} == {
        (MAIL, True),
        (PHONE, True),
    }
    told = [one.to for one in await town.messages() if one.template == "account-created"]
    assert told == [f"account:{account.key}"]


async def test_a_contact_on_file_that_nobody_proved_is_told_too(town: Town) -> None:
    invitation = await town.invite(channel="desk", to="")
    browser = town.browser()
    await town.by_link(browser, invitation)
    await fill(browser, "/activate/contact", mail="", how="without")
    await town.create(browser)
    told = {one.to for one in await town.messages() if one.template == "account-created"}
    assert {f"mail:{MAIL}", f"sms:{PHONE}"} < told


@pytest.mark.requirement(
    "portal",
)
async def test_a_mother_gets_the_grant_that_waited_for_her(town: Town) -> None:
    """S2-23: she is no patient of the practice; the proposed grant becomes active with it."""
    invitation = await town.invite_mother()
    browser = town.browser()
    await town.by_link(browser, invitation)
    await town.create(browser)
    (record,) = await town.records()
    assert (record.patient, record.grant) == ("Patient/kit", "Consent/grant")
    assert record.sections == frozenset({"results"})
    assert (await town.ehr.get("Consent/grant")).json["status"] == "active"


async def test_a_grant_taken_back_meanwhile_stays_so(town: Town) -> None:
    """What was proposed and is not any more opens nothing, and leaves nothing half done."""
    invitation = await town.invite_mother()
    browser = town.browser()
    await town.by_link(browser, invitation)
    consent = (await town.ehr.get("Consent/grant")).json
    await town.ehr.store({**consent, "status": "rejected"})
    await town.create(browser)
    assert browser.page.status_code == 403
    assert await town.account() is None
    assert (await town.ehr.get("Consent/grant")).json["status"] == "rejected"


@pytest.mark.requirement("portal", "S0-14", "S1-07")
async def test_who_is_signed_in_adds_the_record_in_one_step(town: Town) -> None:
    """S0-14, S0-24: an account that is known at another practice, and a second child."""
    first = await town.invite()
    browser = town.browser()
    await town.by_link(browser, first)
    await town.create(browser)
    second = await town.invite_mother()
    await town.by_link(browser, second)
    assert "Add the record to this account" in browser.text
    await fill(browser, "/activate/account/add")
    assert browser.heading == "The record is added"
    assert {one.patient for one in await town.records()} == {"Patient/ada", "Patient/kit"}
    account = await town.account()
    assert account is not None
    assert len(account.persons) == 1
    assert len((await town.person())["link"]) == 2
    elsewhere = await town.invite(
        "t-f", practice=FAMILY, patients=("Patient/ada-f",), persons=("Patient/ada-f",)
    )
    await town.by_link(browser, elsewhere)
    await fill(browser, "/activate/account/add")
    assert {one.practice for one in await town.records()} == {DERM, FAMILY}
    told = [one.template for one in await town.messages()]
    assert told.count("record-added") >= 2


@pytest.mark.requirement("portal", "S0-14", "S1-06", "S1-17")
async def test_who_has_an_account_signs_in_and_goes_on(town: Town) -> None:
    invitation = await town.invite()
    browser = town.browser()
    await town.by_link(browser, invitation)
    await browser.open("/signin?then=/activate/account")
    await browser.sign_in()
    assert "signed in as mara@example.org" in browser.text
    await fill(browser, "/activate/account/add")
    assert [one.patient for one in await town.records("mara@example.org")] == ["Patient/ada"]


@pytest.mark.requirement(
    "portal",
)
async def test_several_children_in_one_invitation(town: Town) -> None:
    """S0-24: any one of them is asked for."""
    invitation = await town.invite(
        patients=("Patient/ada", "Patient/kit"),
        persons=("Patient/ada", "RelatedPerson/mother"),
        grants=("Consent/grant",),
    )
    browser = town.browser()
    await town.by_link(browser, invitation, **KIT)
    await town.create(browser)
    assert {one.patient for one in await town.records()} == {"Patient/ada", "Patient/kit"}


# --- by security code, without mail --------------------------------------------------------------


@pytest.mark.requirement("portal", "S0-59", "S1-05", "S1-10", "S1-13", "S1-14", "S1-18")
async def test_by_security_code_and_user_name_without_mail(town: Town) -> None:
    """S1-05, S1-13, S1-14: the consequences are explained, codes are printed at the end."""
    invitation = await town.invite(channel="desk", to="")
    browser = town.browser()
    await browser.open("/activate/code")
    code = town.of(invitation).code.lower().replace("-", " ")
    practice_id = DERM_ID.lower()
    await fill(browser, "/activate/code", code=code, practice_id=practice_id, **ADA)
    assert browser.heading == "How can we reach you?"
    await fill(browser, "/activate/contact", mail="", how="next")
    assert browser.heading == "Go on without a mail address?"
    await fill(browser, "/activate/contact", how="back")
    assert browser.heading == "How can we reach you?"
    await fill(browser, "/activate/contact", how="without")
    await town.create(browser)
    codes = browser.document.xpath('//ol[@class="codes"]/li')
    assert len(codes) == 10
    account = await town.account()
    assert account is not None
    assert await town.world.store.get(RecoveryCodes, account.key) is not None
    assert await contacts_of(town.world.store, account.key) == []
    assert (await town.person())["link"][0]["assurance"] == "level3"


@pytest.mark.requirement("portal", "S1-12")
async def test_a_mail_address_that_nobody_proved_does_not_count_yet(town: Town) -> None:
    invitation = await town.invite(channel="desk", to="")
    browser = town.browser()
    await browser.open("/activate/code")
    code = town.of(invitation).code
    await fill(browser, "/activate/code", code=code, practice_id=DERM_ID, **ADA)
    await fill(browser, "/activate/contact", mail="new@mail.example", how="next")
    await town.create(browser, username="new@mail.example")
    assert "proved" in problem(browser)
    await town.create(browser)
    account = await town.account()
    assert account is not None
    (contact,) = await contacts_of(town.world.store, account.key)
    assert (contact.value, contact.verified) == ("new@mail.example", None)


@pytest.mark.requirement("portal", "S0-17", "S1-21", "S1-24")
async def test_a_code_that_was_sent_needs_a_second_contact(town: Town) -> None:
    """Who has the telephone alone gets no further than to a code sent to the mailbox."""
    invitation = await town.invite()
    browser = town.browser()
    await browser.open("/activate/code")
    code = town.of(invitation).code
    await fill(browser, "/activate/code", code=code, practice_id=DERM_ID, **ADA)
    assert browser.heading == "Prove that it is you"
    assert "a•••@m•••" in browser.text
    assert MAIL not in browser.page.text
    await fill(browser, "/activate/proof/send", contact="0")
    await fill(browser, "/activate/proof", code=await town.code_sent_to(MAIL))
    await town.create(browser)
    assert [one.patient for one in await town.records()] == ["Patient/ada"]


# --- by a printed sheet --------------------------------------------------------------------------


async def at_sheet(town: Town, browser: Browser, invitation: Any, **fields: str) -> None:
    secrets = town.of(invitation)
    await browser.open("/activate/sheet")
    given = {
        "portal_id": secrets.portal_id,
        "first_initial": "a",
        "last_initial": "q",
        "word": secrets.word.upper(),
        **ADA,
    }
    await fill(browser, "/activate/sheet", **{**given, **fields})


@pytest.mark.requirement("portal", "S3-12", "S3-13", "S3-14", "S3-15", "S3-16", "S3-18")
async def test_by_portal_id_initials_birth_date_and_activation_word(town: Town) -> None:
    """S3-12 to S3-19."""
    invitation = await town.invite(channel="paper", to="")
    browser = town.browser()
    await browser.open("/activate")
    assert "/activate/sheet" in browser.page.text
    await at_sheet(town, browser, invitation)
    await fill(browser, "/activate/contact", how="without")
    await town.create(browser)
    assert (await town.person())["link"][0]["assurance"] == "level2"


async def test_the_sheet_is_the_practices_policy(town: Town) -> None:
    invitation = await town.invite(channel="paper", to="")
    await town.decide(self_registration=("link",))
    browser = town.browser()
    await browser.open("/activate")
    assert "/activate/sheet" not in browser.page.text
    await at_sheet(town, browser, invitation, practice_id=DERM_ID)
    assert problem(browser) == NOT_MATCHED


async def test_while_the_portal_is_off_nobody_begins_or_finishes(town: Town) -> None:
    invitation = await town.invite()
    waiting = town.browser()
    await waiting.open(f"/activate/{town.of(invitation).link}")
    await town.by_link(waiting, invitation)
    assert waiting.heading == "Your account"
    await town.decide(portal=False)
    await town.create(waiting)
    assert await town.account() is None
    late = town.browser()
    await late.open(f"/activate/{town.of(invitation).link}")
    assert "A. Q." not in late.text
    await town.decide(portal=True)
    again = town.browser()
    await again.open(f"/activate/{town.of(invitation).link}")
    assert "A. Q." in again.text


# --- by the mail address on file -----------------------------------------------------------------


@pytest.mark.requirement("portal", "S1-04", "S1-09", "S1-20", "S1-21")
async def test_by_mail_on_file_and_a_second_contact(town: Town) -> None:
    """S1-04, S1-09, S1-20 to S1-23: code to the mailbox, then one to another contact on file."""
    browser = town.browser()
    await town.register(browser, first="ÁDA", last="quill ")
    assert browser.heading == "Prove that it is you"
    await fill(browser, "/activate/proof", code=await town.code_sent_to(MAIL))
    assert "••• 42" in browser.text
    assert "Security code from your practice" in browser.text
    await fill(browser, "/activate/proof/send", contact="0")
    await fill(browser, "/activate/proof", code=await town.code_sent_to(PHONE))
    assert browser.heading == "Your account"
    assert field_value(browser, "username") == MAIL
    await town.create(browser, username=MAIL)
    assert (await town.person(MAIL))["link"][0]["assurance"] == "level2"


async def test_another_address_of_the_same_mailbox_is_no_second_contact(town: Town) -> None:
    """``name+tag@`` is not offered: a code that was sent there would prove nothing more."""
    patient = (await town.ehr.get("Patient/ada")).json
    local, _, domain = MAIL.partition("@")
    tagged = {"system": "email", "value": f"{local}+clinic@{domain}"}
    await town.ehr.store({**patient, "telecom": [patient["telecom"][0], tagged]})
    browser = town.browser()
    await town.register(browser)
    await fill(browser, "/activate/proof", code=await town.code_sent_to(MAIL))
    assert browser.heading == "Prove that it is you"
    assert not browser.document.xpath('//input[@name="contact"]')
    await browser.open("/activate/account")
    assert browser.heading == "Prove that it is you"


@pytest.mark.requirement("portal", "S1-21", "S1-24")
async def test_by_mail_alone_a_security_code_is_asked_for(town: Town) -> None:
    """Where the practice has one contact only, the mailbox alone opens nothing."""
    patient = (await town.ehr.get("Patient/ada")).json
    await town.ehr.store({**patient, "telecom": patient["telecom"][:1]})
    browser = town.browser()
    await town.register(browser)
    await fill(browser, "/activate/proof", code=await town.code_sent_to(MAIL))
    assert not browser.document.xpath('//input[@name="contact"]')
    for page in ("/activate/account", "/activate/contact"):
        await browser.open(page)
        assert browser.heading == "Prove that it is you"
    await fill(browser, "/activate/proof/help")
    assert "Your practice is told" in done(browser)
    assert {one.reason for one in await town.helps()} == {"no-second-proof"}
    invitation = await town.invite(channel="desk", to="")
    code = town.of(invitation).code
    await fill(browser, "/activate/proof/security-code", security_code=code)
    await town.create(browser)
    assert (await town.person())["link"][0]["assurance"] == "level4"
    assert (await town.stored(invitation)).state == "redeemed"


@pytest.mark.requirement("portal", "S1-09", "S1-20")
async def test_a_near_miss_is_for_staff_and_the_page_says_nothing(town: Town) -> None:
    browser, right = town.browser(), town.browser()
    await town.register(right)
    await town.register(browser, first="Adelaide")
    assert browser.text == right.text
    (left,) = await town.helps()
    assert (left.practice, left.reason) == (DERM, "near-miss")
    assert left.candidates[0].patient == "Patient/ada"
    assert left.candidates[0].reasons == ("mail address on file", "birth date", "last name alone")


@pytest.mark.requirement("portal", "S1-06")
async def test_who_has_an_account_learns_it_by_mail_not_on_the_page(town: Town) -> None:
    """S1-06."""
    invitation = await town.invite()
    await town.by_link(first := town.browser(), invitation)
    await town.create(first)
    other, unknown = town.browser(), town.browser()
    await town.register(other)
    await town.register(unknown, mail="aba@mall.example")
    assert other.text == unknown.text
    sent = [(one.to, one.template) for one in await town.messages()]
    assert (f"mail:{MAIL}", "account-exists") in sent
    assert ("nobody:", "one-time-code") in sent


async def test_a_child_does_not_begin_on_its_own(town: Town) -> None:
    """A parent's mailbox and telephone would make a child's record the parent's own."""
    browser = town.browser()
    await town.register(browser, first="Kit", last="Quill", **KIT)
    assert browser.heading == "Prove that it is you"
    assert {one.reason for one in await town.helps()} == {"minor"}
    assert {one.to for one in await town.messages()} == {"nobody:"}


# --- going back, another device, a passkey -------------------------------------------------------


@pytest.mark.requirement("portal", "S0-29", "S1-22")
async def test_going_back_loses_nothing_and_closing_the_tab_neither(town: Town) -> None:
    """S0-29, S1-22."""
    invitation = await town.invite()
    browser = town.browser()
    await town.by_link(browser, invitation)
    await browser.open(f"/activate/{town.of(invitation).link}")
    assert field_value(browser, "year") == "1984"
    assert field_value(browser, "postal_code") == "60601"
    await browser.open("/activate")
    assert "Go on where you stopped" in browser.text
    town.world.clock.advance(29 * 60)
    await browser.open("/activate/proof")
    assert browser.heading == "Your account"


async def test_after_thirty_minutes_one_begins_anew(town: Town) -> None:
    invitation = await town.invite()
    browser = town.browser()
    await town.by_link(browser, invitation)
    form = fields_of(forms(browser, "/activate/account")[0])
    town.world.clock.advance(31 * 60)
    await post(browser, "/activate/account", {**form, "username": "ada", "password": GOOD})
    assert browser.page.status_code == 403
    assert "Begin again" in browser.text
    assert await town.account("ada") is None
    await town.by_link(browser, invitation)
    await town.create(browser)
    assert await town.account() is not None


@pytest.mark.requirement("portal", "S0-29", "S1-22")
async def test_another_device_goes_on_after_the_same_proof(town: Town) -> None:
    invitation = await town.invite(channel="desk", to="")
    first, second = town.browser(), town.browser()
    await town.by_link(first, invitation)
    await fill(first, "/activate/contact", how="without")
    await fill(first, "/activate/account", username="ada.q", password="", how="passkey")
    await second.open("/activate/account")
    assert second.page.status_code == 403
    await town.by_link(second, invitation)
    await fill(second, "/activate/contact", how="without")
    assert field_value(second, "username") == "ada.q"
    await first.open("/activate/account")
    assert first.page.status_code == 403


@pytest.mark.requirement("portal", "S0-26")
async def test_an_account_with_a_passkey(town: Town) -> None:
    invitation = await town.invite()
    browser = town.browser()
    browser.http.base_url = "http://localhost:8000"
    await town.by_link(browser, invitation)
    await fill(browser, "/activate/account", username="ada.quill", password="", how="passkey")
    assert browser.heading == "Make a passkey"
    fields = fields_of(forms(browser, "/activate/passkey")[0])
    options = await browser.http.post("/activate/passkey/options", data=fields)
    assert options.status_code == 200, options.text
    answer = Authenticator(origin="http://localhost:8000", domain="localhost").make(options.text)
    await post(browser, "/activate/passkey", {**fields, "credential": answer})
    assert browser.heading == "Your account is ready"
    account = await town.account()
    assert account is not None
    assert account.password_hash is None
    assert len(await town.world.store.find(Passkey, "account", account.key)) == 1


@pytest.mark.requirement("portal", "S0-19")
async def test_a_link_that_is_over_brings_a_new_one_to_the_same_place(town: Town) -> None:
    """S0-19: and it says the same for a link that never was."""
    invitation = await town.invite()
    link = town.of(invitation).link
    town.world.clock.advance(73 * 3600)
    browser, other = town.browser(), town.browser()
    await browser.open(f"/activate/{link}")
    await other.open(f"/activate/{'0' * 64}")
    assert browser.page.status_code == other.page.status_code == 404
    assert browser.text == other.text
    await fill(browser, f"/activate/{link}/again")
    await fill(other, f"/activate/{'0' * 64}/again")
    assert browser.text == other.text
    sent = {(one.to, one.template): one for one in await town.messages()}
    assert set(sent) == {(MAIL, "invitation-resent"), (PHONE, "invitation-code")}
    link_sent = sent[MAIL, "invitation-resent"]
    assert (link_sent.link_for, link_sent.link_attempt) == (f"invitation/{invitation.key}", 2)
    await town.by_link(browser, await town.stored(invitation))
    assert browser.heading == "Your account"


@pytest.mark.parametrize(
    ("typed", "date"),
    [
        ({"month": "5", "day": "12", "year": "1984"}, "1984-05-12"),
        ({"month": "May", "day": "12", "year": "1984"}, "1984-05-12"),
        ({"month": "1984-05-12", "day": "", "year": ""}, "1984-05-12"),
        ({"month": "", "day": "", "year": "05/12/1984"}, "1984-05-12"),
        ({"birth_date": "1984-5-12"}, "1984-05-12"),
        ({"month": "2", "day": "30", "year": "1984"}, ""),
        ({"month": "ju", "day": "1", "year": "1984"}, ""),
        ({"month": "\u0665", "day": "12", "year": "1984"}, ""),
        ({}, ""),
    ],
)
@pytest.mark.requirement("portal", "S0-22", "S3-16")
def test_dates_are_taken_as_people_write_them(typed: dict[str, str], date: str) -> None:
    """S0-22, S3-16."""
    assert birth_date_of(typed) == date


async def test_it_leads_home(town: Town) -> None:
    invitation = await town.invite()
    browser = town.browser()
    await town.by_link(browser, invitation)
    await town.create(browser)
    assert browser.document.xpath(f'//a[@href="{HOME}"]')
    await browser.open("/activate/done")
    assert browser.heading == "Your account is ready"
    assert PASSWORD not in browser.page.text


@pytest.mark.requirement("portal", "S0-28", "S1-11")
async def test_terms_of_use_are_asked_before_anything_else(town: Town) -> None:
    """S0-28, S1-11: with time and account, apart from any consent to share."""
    store = town.world.store

    async def publish(transaction: Any) -> None:
        await terms.publish(
            transaction, terms.PORTAL, summary="Be kind.", text="All of it.", now=1.0
        )

    await store.transact(publish)
    browser = town.browser()
    await town.by_link(browser, await town.invite())
    await town.create(browser)
    assert browser.page.url.path == "/account/terms"
    await fill(browser, "/account/terms", accept="yes")
    assert browser.heading == "Your account is ready"
    (accepted,) = await store.every(terms.TermsAccepted)
    account = await town.account()
    assert account is not None
    assert accepted.account == account.key


@pytest.mark.requirement("portal", "S4-09")
async def test_a_proved_mail_address_signs_in_beside_the_user_name(town: Town) -> None:
    """S4-09."""
    browser, later = town.browser(), town.browser()
    await town.by_link(browser, await town.invite())
    await town.create(browser)
    await later.open("/signin")
    await later.sign_in(MAIL, GOOD)
    opened = await town.world.sessions.find(later.http.cookies["portal-session"])
    assert opened is not None
    assert opened.account == await town.account()


@pytest.mark.requirement("portal", "S1-15")
async def test_security_questions_are_offered_where_the_practice_asks_them(town: Town) -> None:
    await keep(town.world.store, RecoveryPolicy(key=DERM, security_questions=True))
    browser = town.browser()
    await town.by_link(browser, await town.invite())
    await town.create(browser)
    assert browser.document.xpath('//a[@href="/account/security/questions"]')


@pytest.mark.requirement("portal", "S0-18")
async def test_the_practice_is_its_id_or_its_name(town: Town) -> None:
    """S0-18: whoever has no practice ID at hand chooses by name."""
    invitation = await town.invite(channel="desk", to="")
    code = town.of(invitation).code
    for typed, heading in (
        ("Family Medicine", "Use a security code"),
        (" dermatology ", "How can we reach you?"),
    ):
        browser = town.browser()
        await browser.open("/activate/code")
        assert {one.get("value") for one in browser.document.xpath("//datalist/option")} == {
            "Dermatology",
            "Family Medicine",
        }
        await fill(browser, "/activate/code", code=code, practice_id=typed, **ADA)
        assert browser.heading == heading


# --- from the practice's invitation to the person's account --------------------------------------


@pytest.mark.requirement("portal", "S0-58", "S4-08")
async def test_from_portal_invite_to_a_signed_in_account(town: Town) -> None:
    """Staff or EHR invite, two messages go to two contacts, the person does the rest."""
    made = await invited(town.ehr, "ada", channel="mail")
    assert (made["channel"], made["code-by"]) == ("mail", "sms")
    invitation = await the_invitation(town.world.store, made["invitation"])
    assert invitation.code_to == PHONE
    browser = town.browser()
    await town.by_link(browser, invitation)
    assert browser.heading == "Your account"
    task = (await town.ehr.get(made["invitation"])).json
    assert task["businessStatus"]["coding"][0]["code"] == "opened"
    await town.create(browser)
    assert [one.patient for one in await town.records()] == ["Patient/ada"]
    task = (await town.ehr.get(made["invitation"])).json
    assert (task["status"], task["businessStatus"]["coding"][0]["code"]) == (
        "completed",
        "redeemed",
    )
    again = await invite(town.ehr, "ada", channel="mail")
    assert again.status == 409


@pytest.mark.requirement(
    "portal",
)
async def test_from_an_invitation_at_the_desk_to_the_childs_record(town: Town) -> None:
    """A guardian without an account, with the code that the desk gave her."""
    made = await invited(
        town.ehr,
        "kit",
        kind="guardian",
        name={"family": "Quill", "given": ["Nan"]},
        relationship={"text": "mother"},
        basis="parent",
        channel="desk",
        sections={"results": False},
    )
    browser = town.browser()
    await browser.open("/activate/code")
    await fill(
        browser,
        "/activate/code",
        code=made["security-code"],
        practice_id="Dermatology",
        **KIT,
    )
    await fill(browser, "/activate/contact", how="without", mail="")
    await town.create(browser)
    (record,) = await town.records()
    assert (record.patient, record.relation) == ("Patient/kit", "mother")
    assert record.sections == frozenset({"results"})
    (related,) = made["related-person"]
    assert record.fhir_user == related
    grant = (await town.ehr.get(made["grant"][0])).json
    assert grant["status"] == "active"


async def test_a_link_that_is_over_brings_none_to_who_has_an_account_by_now(town: Town) -> None:
    """The page says what it says to everybody; staff see who tried."""
    invitation = await town.invite()
    link = town.of(invitation).link
    town.world.clock.advance(73 * 3600)
    await town.ehr.store(a_person("ada", links=["Patient/ada"]))
    await keep(
        town.world.store,
        an_account("ada", f"{DERM}/Person/ada"),
        AccountPerson(key=f"{DERM}/Person/ada", account="ada"),
    )
    browser = town.browser()
    await browser.open(f"/activate/{link}")
    await fill(browser, f"/activate/{link}/again")
    assert browser.heading == "Look at your messages"
    assert await town.messages() == []
    assert (await town.stored(invitation)).attempt == 1


async def test_a_link_whose_code_was_given_by_hand_is_renewed_by_staff(town: Town) -> None:
    """A new link would make void the code that the person holds: staff are told instead."""
    invitation = await town.invite(code_by="hand", code_to="")
    link = town.of(invitation).link
    town.world.clock.advance(73 * 3600)
    browser = town.browser()
    await browser.open(f"/activate/{link}")
    await fill(browser, f"/activate/{link}/again")
    assert browser.heading == "Look at your messages"
    assert await town.messages() == []
    assert {one.reason for one in await town.helps()} == {"expired"}


async def test_a_practice_that_was_closed_opens_with_its_own_proof(town: Town) -> None:
    """After another practice helped to recover the account, its own proof was to be repeated."""
    browser = town.browser()
    await town.by_link(browser, await town.invite())
    await town.create(browser)
    assert (await invite(town.ehr, "ada", channel="mail")).status == 409
    await closed_again(town)
    made = await invited(town.ehr, "ada", channel="mail")
    await town.by_link(browser, await the_invitation(town.world.store, made["invitation"]))
    await fill(browser, "/activate/account/add")
    assert {one.patient for one in await town.records()} == {"Patient/ada"}
    changed = await town.account()
    assert changed is not None
    assert changed.closed_at == (FAMILY,)


async def test_a_practice_that_was_closed_stays_so_for_whoever_is_invited_as_somebody_else(
    town: Town,
) -> None:
    """Who took the account over is a patient there, too, and has proofs of that."""
    browser = town.browser()
    await town.by_link(browser, await town.invite())
    await town.create(browser)
    await closed_again(town)
    person = await town.person()
    await town.ehr.store(
        a_patient("bo", birthDate="1950-01-31", address=[{"postalCode": "60601"}]),
        a_task("t-bo", of="bo"),
    )
    bo = {"month": "1", "day": "31", "year": "1950"}
    for invitation in (
        await town.invite_mother(),
        await town.invite("t-bo", patients=("Patient/bo",), persons=("Patient/bo",)),
    ):
        is_bo = "Patient/bo" in invitation.patients
        await town.by_link(browser, invitation, **(bo if is_bo else {}))
        await fill(browser, "/activate/account/add")
        assert browser.page.status_code == 403
        assert "prove again who you are" in browser.text
        assert await town.records() == ()
        assert await town.person() == person
        assert (await town.stored(invitation)).state == "opened"


async def closed_again(town: Town) -> None:
    account = await town.account()
    assert account is not None
    await keep(town.world.store, msgspec.structs.replace(account, closed_at=(DERM, FAMILY)))
    assert await town.records() == ()


# --- while two records are joined ----------------------------------------------------------------


async def joined(town: Town, source: str, target: str) -> None:
    """The practice merges two Patients, and accepts whoever gains by it."""
    asked: Json = {
        "resourceType": "Parameters",
        "parameter": [
            {"name": "source-patient", "valueReference": {"reference": f"Patient/{source}"}},
            {"name": "target-patient", "valueReference": {"reference": f"Patient/{target}"}},
        ],
    }
    look = {"name": "preview", "valueBoolean": True}
    shown = await town.ehr.ask(
        "POST", "Patient/$merge", asked | {"parameter": [*asked["parameter"], look]}
    )
    accepts = [one for one in shown.json["parameter"] if one["name"] == "accept"]
    body = asked | {"parameter": [*asked["parameter"], *accepts]}
    answer = await town.ehr.ask("POST", "Patient/$merge", body)
    assert answer.status == 200, answer.body


@pytest.fixture
async def survivor(town: Town) -> Json:
    """The same human once more, reached by another mail address."""
    telecom = [{"system": "email", "value": "ada.new@mail.example"}]
    tree = a_patient("ada-2", telecom=telecom)
    await town.ehr.store(tree)
    return tree


@pytest.mark.usefixtures("survivor")
async def test_who_began_before_a_merge_ends_with_the_record_that_stays(town: Town) -> None:
    """Nothing is written to the record that went, and nothing more sent by what it said."""
    invitation = await town.invite()
    browser = town.browser()
    await town.by_link(browser, invitation)
    assert browser.heading == "Your account"
    await joined(town, "ada", "ada-2")
    before = {one.key for one in await town.messages()}
    versions = (await town.ehr.get("Patient/ada")).json["meta"]["versionId"]
    await town.create(browser)
    assert browser.heading == "Your account is ready"
    (record,) = await town.records()
    assert (record.patient, record.is_own) == ("Patient/ada-2", True)
    assert [one["target"]["reference"] for one in (await town.person())["link"]] == [
        "Patient/ada-2"
    ]
    for query in ("Provenance?_count=50", "Communication?_count=50"):
        for one in (await town.ehr.get(query)).entries:
            assert 'Patient/ada"' not in json.dumps(one)
    assert (await town.ehr.get("Patient/ada")).json["meta"]["versionId"] == versions
    new = [one for one in await town.messages() if one.key not in before]
    assert {one.to for one in new} >= {"mail:ada.new@mail.example"}
    log = town.world.store.log
    rows = await log.of_record(
        DERM, "ada", agent=None, told=False, low=0, high=2**62, before=None, limit=99
    )
    assert "$redeem-invite" not in {one.row.interaction for one in rows}


@pytest.mark.usefixtures("survivor")
async def test_codes_go_where_the_record_that_stays_says_after_a_merge(town: Town) -> None:
    """The one that was awaited is void: it went by what the other record said."""
    invitation = await town.invite(code_by="hand", code_to="")
    browser = town.browser()
    await browser.open("/activate/code")
    code = town.of(invitation).code
    await fill(browser, "/activate/code", code=code, practice_id=DERM_ID, **ADA)
    await joined(town, "ada", "ada-2")
    (under_way,) = await town.world.store.every(Activation)
    assert (under_way.patients, under_way.persons) == (("Patient/ada-2",), ("Patient/ada-2",))
    assert [one.value for one in under_way.file_contacts] == ["ada.new@mail.example"]
    assert under_way.challenge == ""
    undone = await town.ehr.ask("POST", "Patient/ada/$undo-merge")
    assert undone.status == 200, undone.body
    (under_way,) = await town.world.store.every(Activation)
    assert under_way.persons == ("Patient/ada",)
    assert [one.value for one in under_way.file_contacts] == [MAIL, PHONE]


@pytest.mark.usefixtures("survivor")
async def test_an_activation_that_a_merge_did_not_reach_ends_nowhere(town: Town) -> None:
    """Planted fault: it names the record that went. The invitation is read again, and counts."""
    invitation = await town.invite()
    browser = town.browser()
    await town.by_link(browser, invitation)
    (under_way,) = await town.world.store.every(Activation)
    await joined(town, "ada", "ada-2")
    patient = (await town.ehr.get("Patient/ada")).json
    await town.ehr.store({**patient, "active": True})
    await keep(town.world.store, under_way)
    await town.create(browser)
    assert browser.heading != "Your account is ready"
    assert await town.account() is None
    assert (await town.ehr.get("Person")).entries == []


@pytest.mark.usefixtures("survivor")
async def test_who_began_without_an_invitation_begins_again_after_a_merge(town: Town) -> None:
    browser = town.browser()
    await town.register(browser)
    await fill(browser, "/activate/proof", code=await town.code_sent_to(MAIL))
    await fill(browser, "/activate/proof/send", contact="0")
    await fill(browser, "/activate/proof", code=await town.code_sent_to(PHONE))
    await joined(town, "ada", "ada-2")
    await town.create(browser, username=MAIL)
    assert browser.heading != "Your account is ready"
    assert await town.account(MAIL) is None
