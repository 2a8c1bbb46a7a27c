"""People walk from an invitation to their account and back into it, and staff beside them.

Each walk is what one kind of portal of today lets people do, from its first page to its last.
Pictures of the pages are left in ``build/browser/pages``, as ``walk-...``.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pypdf import PdfReader

from tests.end_to_end.browser import Driver, missing, served_app
from tests.end_to_end.walk import BETTER, GOOD, PICTURES, ZIP, Town, Walker, town

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(bool(missing()), reason=missing() or "all is there"),
]
QUILLFERN, MARROWBROOK = "quillfern", "marrowbrook"
IGNACE, ROSALIND, NOOR, CYRIL = "ignace", "rosalind", "noor", "cyril"
MRN = "https://quillfern.example/mrn"
ANSWERS = ("Larch Lane", "Miss Ostrow", "Pebble")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, driver: Driver) -> Iterator[Town]:
    """The demo world, with terms of use, and a dermatology practice that invites by itself."""
    folder = tmp_path_factory.mktemp("walks")
    with town(folder, driver) as found:
        text, summary = folder / "terms.txt", folder / "summary.txt"
        text.write_text("The portal is there for your own records.\n\nKeep your password.\n")
        summary.write_text("You keep your password to yourself.\n")
        found.demo.command("terms", "publish", str(text), "--summary", str(summary))
        found.demo.command("practice", "policy", QUILLFERN, "--set", "invite-on-booking=on")
        yield found


def telecom(mail: str = "", mobile: str = "") -> list[dict[str, str]]:
    """How a record says that somebody is reached."""
    found = []
    if mail:
        found.append({"system": "email", "value": mail})
    if mobile:
        found.append({"system": "phone", "use": "mobile", "value": mobile})
    return found


def at_the_desk(walker: Walker, patient: str, username: str = IGNACE) -> None:
    """Staff sign in, find a patient by name and birth date, and open the page of the portal."""
    walker.open("/staff")
    if walker.browser.text("h1") == "Sign in":
        walker.signs_in(username)
        walker.accepts_terms()
    walker.open("/staff/patients")
    walker.fills(name=patient)
    walker.sends()
    walker.sees("Find a patient", "Found")
    walker.browser.follow("ul.entries a")
    walker.sees(f"Portal of {patient}", picture="portal-of-a-patient")


def answers_questions(walker: Walker) -> None:
    """Choose three security questions."""
    walker.sees("Security questions", "Choose three different questions")
    codes = ("first-street", "first-teacher", "first-pet")
    for number, (code, answer) in enumerate(zip(codes, ANSWERS, strict=True), 1):
        walker.chooses(f"question{number}", code)
        walker.fills(**{f"answer{number}": answer})
    walker.sends()
    walker.sees("Security questions", "Your answers are kept", picture="questions-kept")


def gives_answers(walker: Walker) -> None:
    """Answer them at a recovery."""
    walker.sees("Your security questions", picture="questions-at-recovery")
    codes = ("first-street", "first-teacher", "first-pet")
    walker.fills(**dict(zip(codes, ("larch lane!", "MISS OSTROW", "pebble"), strict=True)))
    walker.sends()


def leaves(walker: Walker) -> None:
    """Sign out."""
    walker.open("/account/security")
    walker.sends("/signout")


def makes_account(walker: Walker, username: str, password: str = GOOD) -> None:
    """Choose user name and password, and accept the terms."""
    walker.sees("Your account", "Step 3 of 3")
    walker.fills(username=username, password=password)
    walker.sends("/activate/account", ".primary")
    walker.accepts_terms()


# --- a practice that invites by mail and SMS ------------------------------------------------------


@pytest.mark.requirement(
    "portal",
    *("S0-07", "S0-10", "S0-11", "S0-12", "S0-13", "S0-14", "S0-17", "S0-18", "S0-19", "S0-20"),
    *("S0-21", "S0-22", "S0-23", "S0-26", "S0-27", "S0-28", "S0-29", "S0-30", "S0-31", "S0-33"),
    *("S0-50", "S0-51", "S0-52", "S0-53", "S0-54", "S0-58", "S0-59", "S0-62", "S1-19"),
)
def test_a_practice_that_invites_by_mail_and_sms(world: Town) -> None:
    mail, mobile, born = "ansel@people.example", "+13125550161", "1979-04-17"
    record: dict[str, Any] = {
        "resourceType": "Patient",
        "identifier": [{"system": MRN, "value": "A-1"}],
        "name": [{"given": ["Ansel"], "family": "Whitcombe"}],
        "birthDate": born,
        "address": [{"postalCode": ZIP}],
        "telecom": telecom(mail, mobile),
    }
    once = {"If-None-Exist": f"identifier={MRN}|A-1"}
    made = world.ehr("POST", "Patient", record, practice=QUILLFERN, **once)
    world.ehr("POST", "Patient", record, practice=QUILLFERN, **once)
    found = world.ehr("GET", "Patient?family=Whitcombe", practice=QUILLFERN)
    assert len(found["entry"]) == 1
    ansel = str(made["id"])
    start = datetime.now(UTC).replace(microsecond=0) + timedelta(days=9)
    appointment = {
        "resourceType": "Appointment",
        "id": "ansel-first",
        "status": "booked",
        "start": start.isoformat(),
        "end": (start + timedelta(minutes=20)).isoformat(),
        "participant": [{"actor": {"reference": f"Patient/{ansel}"}, "status": "accepted"}],
    }
    for _ in range(3):  # an EHR that tries again and again
        world.ehr("PUT", "Appointment/ansel-first", appointment, practice=QUILLFERN)

    invitation, code = world.message(mail, carries="link"), world.message(mobile, carries="code")
    assert invitation["link"] in invitation["text"]
    for words in ("It is good until", "do not reply", "call Quillfern Dermatology at +1"):
        assert words in invitation["text"]
    for word in ("Ansel", "Whitcombe", code["code"]):
        assert word not in invitation["text"]

    with world.person() as walker:
        walker.open("/demo/outbox")
        walker.sees("Outbox of the demo", mail, mobile)
        walker.browser.follow(f'a[href="{invitation["link"]}"]')
        walker.open(invitation["link"])  # as a scanner of mail does: nothing is used up
        walker.sees("Your invitation from Quillfern", "A. W.", "Practice ID", "good until")
        walker.born(born)
        walker.fills(code="ABCD-EFGH-JKMN", postal_code=ZIP)
        walker.sends()
        walker.sees("Your invitation from", picture="wrong-code")
        refused = walker.browser.text("#problem")
        walker.fills(code=code["code"].lower(), postal_code="99999")
        walker.sends()
        assert walker.browser.text("#problem") == refused  # nobody is told which it was
        walker.fills(code=code["code"].lower(), postal_code=ZIP)
        walker.sends()
        walker.sees("Your account", "Step 3 of 3")
        walker.fills(username="ansel", password="short")
        walker.sends("/activate/account", ".primary")
        walker.sees("Your account", "characters", picture="short-password")
        makes_account(walker, "ansel")
        walker.sees("Your account is ready", "You are signed in")
        walker.browser.follow('a[href="/account/security/questions"]')
        answers_questions(walker)
        assert "asked from" not in walker.text()  # those that an account begins with count at once
        assert world.count(mail, "link") == 1

        with world.person() as desk:
            adds_a_child(world, walker, desk, mail)
        uses_an_app(world, walker)
        leaves(walker)
        forgets(world, walker, mail)
        walker.open("/help")
        walker.sees("Help")
        walker.browser.follow('ul.practices a[href*="quillfern"]')
        walker.sees("How to reach Quillfern", "08:00 to 17:30", "711", picture="help-of-a-practice")
        walker.open("/about/licences")
        walker.sees("Software", "authlib")


def adds_a_child(world: Town, walker: Walker, desk: Walker, mail: str) -> None:
    """Staff invite a father for his child; he is signed in and adds the record."""
    born = "2019-02-03"
    world.patient("Wren Whitcombe", born, practice=QUILLFERN)
    at_the_desk(desk, "Wren Whitcombe")
    desk.browser.follow('a[href$="/invite/guardian"]')
    desk.sees("Invite: A parent or guardian", "What they see")
    desk.fills(given="Ansel", family="Whitcombe", relationship="father", mail=mail)
    desk.chooses("basis", "parent")
    desk.sends()
    desk.sees("To hand over", "Security code")
    code = desk.browser.text("dl.codes .key")
    walker.open(world.message(mail, carries="link", number=2)["link"])
    walker.born(born)
    slip = code[:-1] + ("2" if code[-1] != "2" else "3")
    walker.fills(code=slip, postal_code=ZIP)
    walker.sends()
    assert walker.browser.has("#problem")
    walker.fills(code=code, postal_code=ZIP)
    walker.sends()
    walker.sees("Your account", "You are signed in as ansel", picture="add-to-this-account")
    walker.sends("/activate/account/add")
    walker.sees("Show this number to the practice", "makes sure", picture="number-to-show")
    number = walker.browser.text("p.key")
    desk.open("/staff/patients/wren")
    desk.browser.type('input[name="number"]', number)
    desk.browser.type('input[name="alone"]', "nobody else invites here")
    desk.browser.follow('main form[action$="/confirm"] button')
    desk.sees("Portal of Wren", "Confirmed: the record is open", picture="confirmed-alone")
    assert "used: there is an account by it" in desk.text()


def uses_an_app(world: Town, walker: Walker) -> None:
    """The same account signs in to somebody else's app, which gets what the person allows."""
    with served_app() as origin:
        scope = "launch/patient openid fhirUser offline_access patient/*.rs"
        world.demo.command(
            *("client", "add", "Page app", "--client-id", "page-app", "--scope", scope),
            *("--redirect-uri", f"{origin}/index.html"),
        )
        browser = walker.browser
        browser.open(
            f"{origin}/launch.html?iss={world.demo.fhir}&client_id=page-app&scope={scope}".replace(
                " ", "%20"
            )
        )
        browser.wait_for("h1", "Whose record?")
        walker.sees("Whose record?", "Ansel Whitcombe", "Wren Whitcombe")
        browser.click('input[value="Patient/wren"]')
        browser.follow("button")
        browser.wait_for("h1", "Allow")
        browser.follow('button[value="approve"]')
        assert browser.wait_for("#state", "done", "failed") == "done"
        assert browser.text("#name") == "Wren Whitcombe"


def forgets(world: Town, walker: Walker, mail: str) -> None:
    """User name, password and both forgotten; the answers are asked beside the code."""
    walker.open("/signin")
    walker.sees("Sign in", "Create an account")
    walker.browser.click("summary")
    walker.browser.follow('a[href*="want=username"]')
    walker.sees("Forgotten user name")
    walker.fills(name=mail)
    walker.sends()
    walker.sees("Look at your messages")
    reminder = world.said(mail, "It is:")
    assert "ansel" in reminder["text"]
    known, text = world.count(mail, "code"), walker.text()
    walker.open("/recover?want=username")
    walker.fills(name="nobody@people.example")
    walker.sends()
    assert walker.text() == text  # the same for who has no account
    for want, password, name in (("password", BETTER, "ansel"), ("both", GOOD, mail)):
        walker.open(f"/recover?want={want}")
        walker.fills(name=name)
        walker.sends()
        walker.sees("Type the code")
        known += 1
        walker.fills(code=world.message(mail, carries="code", number=known)["code"])
        walker.sends()
        gives_answers(walker)
        walker.sees("Choose a new password")
        walker.fills(new_password=password)
        walker.sends()
        assert walker.browser.text("h1") != "Sign in"
        leaves(walker)
    walker.open("/recover")
    walker.fills(name="ansel")
    walker.sends()
    walker.sends("/recover/help")
    walker.sees("Your practice can help", "Quillfern Dermatology", "+1 312 555 0120")


# --- registration by mail on file, or by user name ------------------------------------------------


@pytest.mark.requirement(
    "portal",
    *("S1-04", "S1-06", "S1-07", "S1-08", "S1-09", "S1-10", "S1-11", "S1-12", "S1-16", "S1-18"),
    *("S1-20", "S1-21", "S1-22", "S1-23", "S1-40", "S4-09"),
)
def test_registration_by_the_mail_address_on_file(world: Town) -> None:
    mail, mobile, born = "zoe@people.example", "+13125550162", "1988-11-30"
    name = [{"use": "official", "given": ["Zoé"], "family": "Marchetti-Lund"}]
    contacts = telecom(mail, mobile)
    world.patient("Zoe Lund", born, practice=MARROWBROOK, name=name, telecom=contacts)
    with world.person() as walker:
        browser = walker.browser
        walker.open("/signin")
        browser.follow('nav a[href="/register"]')
        walker.sees("Create an account", "Step 1 of 3", "register by user name")

        def asks(**more: str) -> None:
            browser.click("#practice_id option:nth-child(2)")
            walker.fills(**{"mail": mail, "first": "zoe", "last": "Marchetti Lund", **more})
            walker.born(born)
            walker.sends()

        assert "Marrowbrook" in browser.text("#practice_id option:nth-child(2)")
        asks(last="Somebody")
        walker.sees("Prove that it is you", "If what you typed", picture="register-code")
        page = walker.text()
        walker.open("/register")
        asks()
        assert walker.text() == page  # right or wrong, it is the same page
        walker.open("/help")  # closed, and opened again
        walker.open("/activate")
        walker.sees("Get your account", "What do you have from your practice?")
        browser.follow("p.done a")
        walker.fills(code="00000000")
        walker.sends("/activate/proof")
        assert browser.has("#problem")
        walker.fills(code=world.message(mail, carries="code")["code"])
        walker.sends("/activate/proof")
        walker.sees("Prove that it is you", "Where shall a code go?", picture="second-contact")
        assert mobile not in walker.text()
        walker.sends("/activate/proof/send")
        walker.fills(code=world.message(mobile, carries="code")["code"])
        walker.sends("/activate/proof")
        walker.sees("Your account", "Step 3 of 3", "leaked elsewhere")
        walker.fills(username=mail, password="passwordpassword")
        walker.sends("/activate/account", ".primary")
        assert browser.has("#problem")
        walker.fills(username=mail, password=GOOD)
        walker.sends("/activate/account", ".primary")
        walker.accepts_terms()
        walker.sees("Your account is ready", "Print recovery codes")
        browser.follow('a[href="/account/security/recovery-codes"]')
        walker.sees("Recovery codes")
        walker.sends()
        walker.sees("Your recovery codes", "shown this once")

        walker.open("/account/contacts")
        walker.sees("How we reach you", mail, mobile, "Proved on")
        browser.follow('a[href="/account/contacts/add"]')
        walker.sees("Add a mail address")
        walker.fills(contact="zoe.again@people.example")
        walker.sends()
        walker.sees("Type the code", picture="prove-a-contact")
        walker.fills(code=world.message("zoe.again@people.example", carries="code")["code"])
        walker.sends()
        assert "It helps to get back into your account from" in walker.text()
        world.said(mobile, "another address or number was added")
        leaves(walker)

        walker.open("/register")
        asks()
        world.said(mail, "You have one already")

        walker.open("/signin")
        walker.signs_in(mail, GOOD)
        add_another_practice(world, walker, mail, mobile)


def add_another_practice(world: Town, walker: Walker, mail: str, mobile: str) -> None:
    """An account is a person's: another practice's invitation is added to it."""
    links = world.count(mail, "link")
    codes = world.count(mobile, "code")
    born = "1988-11-30"
    contacts = telecom(mail, mobile)
    world.patient("Zoeq Lund", born, practice=QUILLFERN, telecom=contacts)
    with world.person() as desk:
        at_the_desk(desk, "Zoeq Lund")
        desk.browser.follow('a[href$="/invite/self"]')
        desk.sees("Invite: The patient")
        desk.chooses("channel", "mail")
        desk.sends()
    walker.open(world.message(mail, carries="link", number=links + 1)["link"])
    walker.born(born)
    code = world.message(mobile, carries="code", number=codes + 1)["code"]
    walker.fills(code=code, postal_code=ZIP)
    walker.sends()
    walker.sends("/activate/account/add")
    walker.accepts_terms()
    assert walker.browser.text("h1") == "The record is added"


@pytest.mark.requirement(
    "portal", "S1-05", "S1-10", "S1-13", "S1-14", "S1-15", "S1-24", "S1-40", "S3-08"
)
def test_registration_by_user_name_and_security_code(world: Town) -> None:
    born = "1951-06-09"
    world.patient("Corin Ashdown", born, practice=QUILLFERN)
    with world.person() as desk:
        at_the_desk(desk, "Corin Ashdown")
        desk.browser.follow('a[href$="/invite/self"]')
        desk.chooses("channel", "desk")
        desk.sends()
        desk.sees("To hand over", "shown once")
        (code,) = re.findall(r"[0-9A-Z]{4}-[0-9A-Z]{4}-[0-9A-Z]{4}", desk.text())[:1]
    with world.person() as walker:
        walker.open("/register")
        walker.browser.follow('main a[href="/activate/code"]')
        walker.sees("Use a security code", "You need no mail address")
        walker.fills(code=code[:-1] + "?", practice_id="Quillfern Dermatology")
        walker.born(born)
        walker.sends()
        assert walker.browser.has("#problem")  # without the code there is no way in
        walker.fills(code=code.replace("-", " ").lower(), practice_id="Quillfern Dermatology")
        walker.sends()
        walker.sees("How can we reach you?")
        walker.sends()
        walker.sees("Go on without a mail address?", "recovery codes to print")
        walker.browser.follow('button[value="back"]')
        assert walker.browser.text("h1") == "How can we reach you?"
        walker.sends()
        walker.browser.follow('button[value="without"]')
        walker.sees("Your account", "three letters or more", picture="account-without-mail")
        walker.fills(username="corin", password=GOOD)
        walker.sends("/activate/account", ".primary")
        walker.sees("Your account is ready", "Your recovery codes", picture="account-with-codes")
        assert len(walker.browser.evaluate("return [...document.querySelectorAll('code')]")) == 10
        walker.open("/account/security/questions")
        walker.accepts_terms()
        walker.open("/account/security/questions")
        answers_questions(walker)


# --- a list of frequently asked questions ---------------------------------------------------------


@pytest.mark.requirement(
    "portal",
    *("S2-16", "S2-17", "S2-18", "S2-19", "S2-20", "S2-32", "S2-33", "S2-34"),
    *("S2-35", "S0-20", "S0-53", "S4-25"),
)
def test_what_people_ask_most(world: Town) -> None:
    mail, born = "lotte@people.example", "1967-08-21"
    world.demo.command("practice", "policy", QUILLFERN, "--set", "invite-on-mail-address=on")
    world.patient("Lotte Harkness", born, practice=QUILLFERN)
    assert not world.messages(mail)
    world.patient("Lotte Harkness", born, practice=QUILLFERN, telecom=telecom(mail))
    first = world.message(mail, carries="link")["link"]
    with world.person() as desk:
        at_the_desk(desk, "Lotte Harkness")
        assert "sent or printed" in desk.text()
        desk.browser.follow('form[action$="/again"] button')
        code = desk.browser.text("dl.codes .key")
        desk.browser.follow("main p > a")
        desk.sees("Portal of Lotte", "History", picture="history-of-an-invitation")
    link = world.message(mail, carries="link", number=2)["link"]
    with world.person() as walker:
        walker.open("/help")
        walker.sees("Help", "You can set up an account there by yourself")
        walker.open(first)
        walker.sees("This link cannot be used", "there is a newer one")
        walker.open(link)
        walker.born(born)
        walker.fills(code=code, postal_code=ZIP)
        walker.sends()
        makes_account(walker, "lotte")
        walker.open("/account/security/questions")
        answers_questions(walker)
        walker.open(link)
        assert walker.browser.text("h1") == "This link cannot be used"

        with world.person() as elsewhere:
            elsewhere.open("/signin?practice=quillfern")
            elsewhere.sees("Sign in", "You come from Quillfern", picture="sign-in-from-a-practice")
            elsewhere.signs_in("lotte", GOOD)
            walker.open("/account/security")
            walker.sees("Security", "Where you are signed in", "This browser")
            walker.sends("/account/security/sessions/end")
            elsewhere.open("/account/security")
            assert elsewhere.browser.text("h1") == "Sign in"
        leaves(walker)

        walker.open("/recover?want=both")
        walker.fills(name=mail)
        walker.sends()
        walker.fills(code=world.message(mail, carries="code")["code"])
        walker.sends()
        gives_answers(walker)
        walker.fills(new_password=BETTER)
        walker.sends()
        leaves(walker)
        cannot_answer(world, walker, mail)


def cannot_answer(world: Town, walker: Walker, mail: str) -> None:
    """Who does not know the answers is let in by the practice, which sees no password."""
    known = world.count(mail, "code")
    walker.open("/recover")
    walker.fills(name=mail)
    walker.sends()
    walker.fills(code=world.message(mail, carries="code", number=known + 1)["code"])
    walker.sends()
    walker.sends("/recover/help")
    walker.sees("Your practice can help", "They never see your password")
    with world.person() as desk:
        desk.open("/staff")
        desk.signs_in(IGNACE)
        desk.accepts_terms()
        desk.opens_when("/staff/matters", "Lotte Harkness")
        desk.sees("To see to", "Could not get back into their account", "Lotte Harkness")
        desk.browser.follow("ul.entries a")
        desk.browser.click('select[name="basis"] option[value="photo-id"]')
        desk.sends("/staff/accounts/recovery")
        desk.sees("To hand over", "Desk code", "You never see it", picture="desk-code")
        (code,) = keys(desk)
        desk.browser.follow("main p > a")
        desk.sees("Portal of Lotte", "Help back in was started", picture="help-was-started")
    world.said(mail, "has begun to help somebody back")
    known = world.count(mail, "code")
    walker.browser.follow('a[href="/recover/desk"]')
    walker.sees("A code from your practice")
    walker.fills(code=code)
    walker.sends()
    walker.sees("Type the code", picture="desk-and-contact")
    walker.fills(code=world.message(mail, carries="code", number=known + 1)["code"])
    walker.sends()
    assert walker.browser.text("h1") == "Choose a new password"
    walker.fills(new_password=GOOD)
    walker.sends()
    walker.open("/account/security")
    assert walker.browser.text("h1") == "Security"


@pytest.mark.requirement("portal", "S2-21")
def test_a_notice_leads_by_way_of_the_sign_in_to_the_page_it_is_about(world: Town) -> None:
    with world.person() as walker:
        walker.open("/signin")
        walker.signs_in("silas")
        walker.accepts_terms()
        walker.open("/account/security/recovery-codes")
        walker.sends()
        leaves(walker)
        notice = world.said("silas@people.example", "New recovery codes were made")
        (link,) = re.findall(r"http\S+/go/\S+?(?=[, ])", notice["text"])
        walker.open(link)
        assert walker.browser.text("h1") == "Sign in"
        walker.signs_in("silas")
        walker.sees("Security")


# --- the desk prints a sheet with a portal ID -----------------------------------------------------


@pytest.mark.requirement(
    "portal",
    *("S3-01", "S3-02", "S3-03", "S3-04", "S3-05", "S3-06", "S3-07", "S3-08", "S3-09", "S3-10"),
    *("S3-11", "S3-12", "S3-13", "S3-14", "S3-15", "S3-16", "S3-17", "S3-18", "S3-19", "S4-02"),
)
def test_the_desk_prints_a_sheet_with_a_portal_id(world: Town) -> None:
    born = "1944-03-05"
    world.patient("Émile Quist", born, practice=MARROWBROOK, id="emile-quist")
    switch = ("practice", "portal", MARROWBROOK)
    world.demo.command(*switch, "--off")
    with world.person() as walker:
        walker.open("/help")
        walker.sees("Help", "It does not use this portal at the moment", picture="help-while-off")
        world.demo.command(*switch, "--on")
        gives_levels(walker)
    with world.person() as walker:
        launched = world.ehr(
            "POST",
            f"{world.base}/oauth/launch",
            {"patient": "Patient/emile-quist"},
            practice=MARROWBROOK,
        )
        opens = f"/staff/launch?iss={world.demo.fhir}&launch={launched['launch']}"
        walker.open(opens)
        walker.signs_in("imke")
        walker.accepts_terms()
        walker.sees("Portal of Émile Quist", "No account", "Invitations")
        assert not walker.browser.has('a[href$="/invite/self"]')  # she may view, and no more
    with world.person() as desk:
        at_the_desk(desk, "Émile Quist", NOOR)
        desk.browser.follow('a[href$="/invite/self"]')
        desk.chooses("channel", "paper")
        desk.sends()
        desk.sees("To hand over", "Portal ID", "Activation word", picture="to-hand-over-on-paper")
        shown = desk.browser.address
        before = dict(zip(("code", "id", "word"), keys(desk), strict=False))
        desk.open(shown)
        assert desk.browser.text("h1") == "This did not work"
        desk.open("/staff/patients/emile-quist")
        sheet = reads_sheet(world, desk)
        assert before["id"] not in sheet.values()
    with world.person() as auditor:
        auditor.open("/staff/patients/emile-quist/activity")
        auditor.signs_in(ROSALIND)
        auditor.sees("Who looked at the record", "Noor Saffrey", "$print-instructions")
    activates_by_sheet(world, sheet, born)


def keys(walker: Walker) -> list[str]:
    """What is to be handed over, in the order of the page."""
    found = walker.browser.evaluate(
        "return [...document.querySelectorAll('dl.codes .key')].map((one) => one.textContent)"
    )
    return [str(one) for one in found]


def gives_levels(walker: Walker) -> None:
    """An administrator gives two levels at once what they may do, and sees it before."""
    walker.open("/staff/levels")
    walker.signs_in(ROSALIND)
    walker.accepts_terms()
    walker.sees("Access levels", "What may front desk do?")
    places = walker.browser.evaluate(
        "return [...document.querySelectorAll('input[name^=name-]')].map((one) => one.value)"
    )
    for name in ("front desk", "nurse"):
        at = walker.browser.evaluate(
            "return [...document.querySelectorAll('input[name^=name-]')]"
            ".find((one) => one.value === arguments[0]).name.slice(5)",
            name,
        )
        walker.browser.click(f"#may-{at}-revoke")
    assert {"front desk", "nurse"} <= set(places)
    walker.sends()
    walker.sees("What would change", "front desk", "nurse", "may from then on")
    walker.sends()
    walker.sees("Access levels", "version 2", picture="levels-changed")
    exported = walker.saves("a[href*=export]")
    assert b'"revoke"' in exported


def reads_sheet(world: Town, desk: Walker) -> dict[str, str]:
    """Print the sheet as a PDF and as a page; what is on the page, which is the later one."""
    form = 'form[action$="/print"]'
    desk.browser.click(f"{form} input[type=checkbox]")
    content = desk.saves(f"{form} button")
    PICTURES.mkdir(parents=True, exist_ok=True)
    (PICTURES / "walk-sheet.pdf").write_bytes(content)
    text = "\n".join(page.extract_text() for page in PdfReader(io.BytesIO(content)).pages)
    assert "Portal ID" in text
    assert "Émile" not in text
    desk.open("/staff/patients/emile-quist")
    desk.browser.click(f'{form} option[value="html"]')
    desk.browser.follow(f"{form} button")
    desk.browser.wait_for("h1", "Your way into the patient portal")
    for width in (320, 1280):
        desk.browser.resize(width)
        desk.browser.screenshot(PICTURES / f"walk-sheet-{width}.png")
        assert desk.browser.overhang <= 0
    words = desk.browser.text("body")
    assert f"{world.base}/activate" in words
    assert "Quist" not in words
    code, portal_id, word = desk.browser.evaluate(
        "return [...document.querySelectorAll('dd')].map((one) => one.textContent)"
    )
    assert portal_id not in text
    return {"code": code, "portal_id": portal_id, "word": word}


def activates_by_sheet(world: Town, sheet: dict[str, str], born: str) -> None:
    """Portal ID, initials, birth date and word; then user name and password, and signed in."""
    with world.person() as walker:
        walker.open("/activate")
        walker.sees("Get your account")
        walker.browser.follow('a[href="/activate/sheet"]')
        walker.sees("Use a printed sheet", "Portal ID")
        walker.browser.click("#practice_id option:nth-child(2)")
        year, month, day = born.split("-")
        facts = {"first_initial": "e", "last_initial": "Q", "month": f"{month}/{day}/{year}"}
        walker.fills(portal_id=sheet["portal_id"], word="not-the-word", **facts)
        walker.sends()
        walker.sees("Use a printed sheet", picture="wrong-sheet")
        refused = walker.browser.text("#problem")
        walker.fills(word=sheet["word"], last_initial="X")
        walker.sends()
        assert walker.browser.text("#problem") == refused
        walker.fills(word=sheet["word"], last_initial="q")
        walker.sends()
        walker.sees("How can we reach you?")
        walker.fills(mail="emile@people.example")
        walker.sends()
        makes_account(walker, "emile")
        walker.sees("Your account is ready", "You are signed in", "What to do next")
        walker.open("/account/security")
        assert walker.browser.text("h1") == "Security"


# --- staff set up accounts ------------------------------------------------------------------------


@pytest.mark.requirement(
    "portal",
    *("S4-01", "S4-04", "S4-08", "S4-10", "S4-11", "S4-12", "S4-13", "S4-15"),
    *("S4-17", "S4-19", "S4-20", "S4-21", "S4-22", "S4-23", "S4-24", "S3-02"),
)
def test_staff_set_up_and_run_accounts(world: Town) -> None:
    mail, born = "agna@people.example", "1939-12-24"
    contact = {
        "name": {"given": ["Agna"], "family": "Veldt"},
        "relationship": [{"text": "daughter"}],
        "telecom": telecom(mail),
    }
    world.patient("Hendrik Veldt", born, practice=MARROWBROOK, contact=[contact])
    document = {
        "resourceType": "DocumentReference",
        "id": "hendrik-attorney",
        "status": "current",
        "description": "Power of attorney",
        "subject": {"reference": "Patient/hendrik"},
        "content": [{"attachment": {"contentType": "text/plain", "data": "c2lnbmVk"}}],
    }
    world.ehr("PUT", "DocumentReference/hendrik-attorney", document, practice=MARROWBROOK)
    with world.person() as desk, world.person() as daughter:
        desk.open("/staff/patients/hendrik")
        desk.signs_in(ROSALIND)
        desk.accepts_terms()
        desk.sees("Portal of Hendrik Veldt", "Name and birth date are changed in your EHR")
        link, code = invites_representative(desk)
        daughter.open(link)
        daughter.born(born)
        daughter.fills(code=code, postal_code=ZIP)
        daughter.sends()
        daughter.fills(mail=mail)
        daughter.sends()
        daughter.fills(username="agna", password=GOOD)
        daughter.sends("/activate/account", ".primary")
        daughter.accepts_terms()
        daughter.sees("Show this number to the practice", "Your account is ready")
        confirms_another(world, "hendrik", daughter.browser.text("p.key"))

        desk.open("/staff/patients/hendrik")
        desk.sees("Portal of Hendrik", "Agna Veldt", "Sees", picture="portal-with-representative")
        desk.browser.follow('a[href*="/as/"]')
        desk.sees("What Agna Veldt sees", picture="view-as")
        runs_accounts(desk, daughter)
        edits_words(world, desk)


def confirms_another(world: Town, patient: str, number: str) -> None:
    """A second member of staff makes sure of the person; who invited them could not."""
    with world.person() as colleague:
        colleague.open(f"/staff/patients/{patient}")
        colleague.signs_in(NOOR)
        colleague.accepts_terms()
        colleague.browser.type('input[name="number"]', number)
        colleague.browser.follow('main form[action$="/confirm"] button')
        colleague.sees("Portal of", "Confirmed: the record is open", picture="confirmed")


def invites_representative(desk: Walker) -> tuple[str, str]:
    """Somebody on file is invited; what is handed over is a message to copy, and no password."""
    desk.browser.follow('a[href$="/invite/representative"]')
    desk.sees("Invite: A legal representative", "Agna Veldt (contact on file)")
    desk.browser.click("#who-1")
    desk.chooses("basis", "power-of-attorney")
    desk.chooses("channel", "desk")
    desk.sends()
    desk.sees("Invite: A legal", "as evidence", picture="without-evidence")
    desk.chooses("evidence", "DocumentReference/hendrik-attorney")
    desk.fills(end="12312031")
    desk.sends()
    desk.sees("To hand over", "Activation message, to copy", picture="messages-to-copy")
    message = desk.browser.evaluate("return document.querySelector('#message').value")
    (link,) = re.findall(r"http\S+/activate/[0-9a-f]+", message)
    code = desk.browser.evaluate("return document.querySelector('#code-message').value")
    assert "password" not in (message + code).lower()
    return link, str(code).rpartition(" ")[2]


def runs_accounts(desk: Walker, daughter: Walker) -> None:
    """The list, its file, shutting out and in again, and a renewed password at the next sign-in."""
    desk.open("/staff/accounts")
    desk.fills(name="Agna")
    desk.sends()
    desk.sees("Accounts", "Agna Veldt", picture="accounts")
    assert "Mara" not in desk.text()
    saved = desk.saves('form[action="/staff/accounts/export"] button')
    rows = list(csv.DictReader(io.StringIO(saved.decode("utf-8-sig"))))
    assert [row["name"] for row in rows] == ["Agna Veldt"]

    def does(act: str, **fields: str) -> None:
        desk.open("/staff/accounts")
        desk.fills(name="Agna")
        desk.sends()
        desk.browser.click("#person-1")
        desk.chooses("act", act)
        desk.browser.follow('form[action$="/preview"] button')
        desk.sees("", "Nothing has been changed yet", picture=f"preview-{act}")
        if fields:
            desk.fills(**fields)
        desk.sends()
        desk.sees("", "what was done", picture=f"results-{act}")

    does("disable", text="asked by telephone")
    daughter.open("/account/security")
    assert daughter.browser.text("h1") == "Sign in"
    desk.open("/staff/accounts")
    desk.chooses("status", "disabled")
    desk.sends()
    told = ("Agna Veldt", "asked by telephone", "by Rosalind Thackmoor")
    desk.sees("Accounts", *told, picture="disabled")
    does("enable")
    does("renew")
    daughter.open("/signin")
    daughter.signs_in("agna", GOOD)
    daughter.sees("Renew your sign-in")
    daughter.fills(new_password=BETTER)
    daughter.sends()
    daughter.open("/account/security")
    daughter.sees("Security")


def edits_words(world: Town, desk: Walker) -> None:
    """Two who edit the same message at once: the second is told, and nothing is overwritten."""
    with world.person() as other:
        for walker in (desk, other):
            walker.open("/staff/messages/invitation-link")
            if walker.browser.text("h1") == "Sign in":
                walker.signs_in(ROSALIND)
                walker.accepts_terms()
        desk.sees("Message invitation-link")
        desk.browser.type("#subject", "Come and see - {practice}")
        desk.browser.follow('button[value="preview"]')
        desk.sees(
            "Message invitation-link", "Come and see - Marrowbrook", picture="message-preview"
        )
        desk.browser.follow('button[value="store"]')
        other.browser.type("#subject", "Something else")
        other.browser.follow('button[value="store"]')
        assert other.browser.has("#problem")
        desk.open("/staff/messages/invitation-link")
        desk.sees("Message invitation-link", "version 1", picture="message-of-ones-own")
        value = desk.browser.evaluate("return document.querySelector('#subject').value")
        assert value == "Come and see - {practice}"
