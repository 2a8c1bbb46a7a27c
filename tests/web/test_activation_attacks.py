"""What others try at ``/activate`` and ``/register``: guessing, finding out, replaying, racing."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import msgspec
import pytest

from fhir_portal.accounts import invitation as invitations
from fhir_portal.accounts.account import Account, AccountPerson
from fhir_portal.accounts.activation import Activation
from fhir_portal.accounts.contacts import Contact
from fhir_portal.accounts.invitation import TRIES, Invitation, InvitationSecret
from fhir_portal.accounts.one_time_code import Challenge
from fhir_portal.accounts.sessions import Session
from fhir_portal.accounts.spoken_code import read_signs
from fhir_portal.accounts.step_up import FIVE_MINUTES
from fhir_portal.consent.grant import Grant
from fhir_portal.embedded.store import EmbeddedStore
from fhir_portal.notify.outbox import OutboxMessage
from fhir_portal.operations.staff_task import STRANGERS_A_NETWORK, STRANGERS_AN_HOUR
from fhir_portal.web.pages.activation_proof import WRONG_CODE
from fhir_portal.web.pages.activation_room import NOT_MATCHED
from tests.builders import DERM, FAMILY, a_patient, a_person, a_practice, a_task, keep
from tests.matters import tasks_made
from tests.web.activating import ADA, GOOD, MAIL, PHONE, Town, fill, words
from tests.web.signing_in import fields_of, forms, post, problem

DERM_ID, FAMILY_ID = a_practice(DERM).practice_id, a_practice(FAMILY).practice_id
UNKNOWN = "2222-2222-2222"


@pytest.fixture
async def town() -> AsyncIterator[Town]:
    town = await Town.begin()
    yield town
    town.close()


async def made(town: Town) -> tuple[Any, ...]:
    """What only a redemption makes."""
    store = town.world.store
    persons = (await town.ehr.get("Person?_total=accurate")).json["total"]
    return (
        [one.username for one in await store.every(Account)],
        await store.every(AccountPerson),
        await store.every(Grant),
        persons,
    )


def an_unknown_code() -> str:
    """A security code that is well formed and nobody's."""
    return next(
        f"{UNKNOWN[:-1]}{sign}"
        for sign in "23456789ABCDEFGHJKMNPQRSTVWXYZ"
        if invitations.read_code(f"{UNKNOWN[:-1]}{sign}")
    )


# --- finding out ---------------------------------------------------------------------------------


async def over(town: Town, how: str) -> Invitation:
    """An invitation that is over in some way."""
    invitation = await town.invite()
    if how == "expired":
        town.world.clock.advance(73 * 3600)
    elif how in {"revoked", "redeemed"}:
        await town.end(invitation, how)
    elif how == "sent again":

        async def again(transaction: Any) -> None:
            await invitations.issue_again(
                transaction,
                town.secrets,
                invitation,
                ends=invitation.ends,
                channel="mail",
                to=MAIL,
                now=town.world.clock(),
            )

        await town.world.store.transact(again)
    elif how == "locked":
        await keep(town.world.store, msgspec.structs.replace(invitation, tries=TRIES))
    return invitation


OVER = ["expired", "revoked", "redeemed", "sent again", "locked"]


@pytest.mark.parametrize("how", OVER)
@pytest.mark.requirement("portal", "S0-19", "S0-54")
async def test_every_link_that_is_over_looks_like_one_that_never_was(town: Town, how: str) -> None:
    link = town.of(await over(town, how)).link
    browser, other = town.browser(), town.browser()
    await browser.open(f"/activate/{link}")
    await other.open(f"/activate/{'0' * 64}")
    assert browser.page.status_code == other.page.status_code == 404
    assert words(browser) == words(other)


@pytest.mark.parametrize("how", OVER)
async def test_every_code_that_is_over_fails_like_one_that_never_was(town: Town, how: str) -> None:
    invitation = await over(town, how)
    before = await made(town)
    texts = set()
    for code in (town.of(invitation).code, an_unknown_code(), "wrong", ""):
        browser = town.browser()
        await browser.open("/activate/code")
        await fill(browser, "/activate/code", code=code, practice_id=DERM_ID, **ADA)
        assert browser.page.status_code == 403
        assert problem(browser) == NOT_MATCHED
        texts.add(words(browser))
    assert len(texts) == 1
    assert await made(town) == before
    assert await town.world.store.every(Activation) == []


WRONG_BY_LINK: list[dict[str, str]] = [
    {"code": "ABCD-EFGH-JKMN"},
    {"code": ""},
    {"year": "1985"},
    {"year": "x"},
    {"postal_code": "60602"},
    {"postal_code": ""},
    {"month": "1985-05-12"},
]


@pytest.mark.parametrize("wrong", WRONG_BY_LINK)
@pytest.mark.requirement("portal", "S0-22", "S0-54")
async def test_whatever_is_wrong_beside_a_link_the_answer_is_the_same(
    town: Town, wrong: dict[str, str]
) -> None:
    invitation = await town.invite()
    browser, other = town.browser(), town.browser()
    await town.by_link(browser, invitation, **wrong)
    await town.by_link(other, invitation, code=an_unknown_code())
    assert browser.page.status_code == 403
    assert problem(browser) == NOT_MATCHED
    assert words(browser) == words(other)
    assert (await town.stored(invitation)).tries == 2
    assert await town.world.store.every(Activation) == []


WRONG_BY_SHEET: list[dict[str, str]] = [
    {"portal_id": "000000"},
    {"portal_id": "x"},
    {"first_initial": "b"},
    {"last_initial": "a"},
    {"first_initial": ""},
    {"word": "bababababa"},
    {"word": ""},
    {"day": "13"},
    {"practice_id": FAMILY_ID},
    {"practice_id": "nobody"},
]


@pytest.mark.parametrize("wrong", WRONG_BY_SHEET)
@pytest.mark.requirement("portal", "S3-17")
async def test_whatever_is_wrong_on_a_sheet_the_answer_is_the_same(
    town: Town, wrong: dict[str, str]
) -> None:
    invitation = await town.invite(channel="paper", to="")
    secrets, texts = town.of(invitation), set()
    right = {
        "practice_id": DERM_ID,
        "portal_id": secrets.portal_id,
        "first_initial": "a",
        "last_initial": "q",
        "word": secrets.word,
        **ADA,
    }
    for one in (wrong, {"word": "nonononono"}):
        browser = town.browser()
        await browser.open("/activate/sheet")
        await fill(browser, "/activate/sheet", **{**right, **one})
        assert browser.page.status_code == 403
        assert problem(browser) == NOT_MATCHED
        texts.add(browser.text)
    assert len(texts) == 1


@pytest.mark.requirement("portal", "S3-13")
async def test_a_portal_id_without_the_word_opens_nothing(town: Town) -> None:
    """S3-13: six digits, initials and birth date alone, with any word at all."""
    invitation = await town.invite(channel="paper", to="")
    browser = town.browser()
    await browser.open("/activate/sheet")
    portal_id = town.of(invitation).portal_id
    given = {"portal_id": portal_id, "first_initial": "a", "last_initial": "q", **ADA}
    for word in ("", "a", town.of(invitation).word[:-1]):
        await fill(browser, "/activate/sheet", word=word, **given)
        assert problem(browser) == NOT_MATCHED


REGISTERED: list[dict[str, str]] = [
    {},
    {"mail": "nobody@mail.example"},
    {"first": "Eve"},
    {"last": "Eve"},
    {"year": "1985"},
    {"practice_id": FAMILY_ID},
    {"first": "Kit", "month": "2", "day": "3", "year": "2018"},
]


@pytest.mark.requirement("portal", "S0-54", "S0-58", "S1-04")
async def test_registering_answers_the_same_whoever_is_on_file(town: Town) -> None:
    """S1-04: no disclosure whether the address is known; the message has the same moment."""
    texts = set()
    for number, fields in enumerate(REGISTERED):
        browser = town.browser()
        mail = fields.get("mail", MAIL)
        response = await town.register(browser, **fields)
        assert response.status_code == 200
        texts.add(browser.text.replace("n•••", "a•••"))
        assert len(await town.world.store.every(Challenge)) == number + 1
        assert len(await town.world.store.every(OutboxMessage)) == number + 1
        assert mail not in browser.page.text
    assert len(texts) == 1


class Work:
    """Counts what is asked of a store, and the commits."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.done: Counter[str] = Counter()
        for name in ("get", "find", "read", "search", "referring", "transact"):
            monkeypatch.setattr(EmbeddedStore, name, self._counted(name))

    def _counted(self, name: str) -> Callable[..., Any]:
        genuine = getattr(EmbeddedStore, name)

        async def counted(store: EmbeddedStore, *arguments: Any, **more: Any) -> Any:
            self.done[name] += 1
            return await genuine(store, *arguments, **more)

        return counted

    def since(self) -> Counter[str]:
        done, self.done = self.done, Counter()
        return done


async def test_a_failure_costs_the_same_look_ups_and_commits(
    town: Town, monkeypatch: pytest.MonkeyPatch
) -> None:
    invitation = await town.invite()
    code = town.of(invitation).code
    browser = town.browser()
    await browser.open("/activate/code")
    work, costs = Work(monkeypatch), []
    for one in (
        {"code": an_unknown_code()},
        {"code": code, "year": "1985"},
        {"code": code, "practice_id": FAMILY_ID},
    ):
        work.since()
        fields = {"practice_id": DERM_ID, **ADA, **one}
        await fill(browser, "/activate/code", **fields)
        assert problem(browser) == NOT_MATCHED
        costs.append(work.since())
    # One more to see whether what a known code leads to is an invitation.
    assert costs[0]["transact"] == costs[1]["transact"] == costs[2]["transact"]
    assert costs[0]["read"] == costs[1]["read"] == costs[2]["read"]
    assert abs(costs[0]["get"] - costs[1]["get"]) <= 1


async def test_registering_costs_the_same_for_anybody(
    town: Town, monkeypatch: pytest.MonkeyPatch
) -> None:
    work, costs = Work(monkeypatch), []
    for fields in REGISTERED[:5]:
        browser = town.browser()
        await browser.open("/register")
        given = {
            "practice_id": DERM_ID,
            "mail": MAIL,
            "first": "Ada",
            "last": "Quill",
            **ADA,
            **fields,
        }
        sent = {**fields_of(forms(browser, "/register")[0]), **given}
        work.since()
        await browser.http.post("/register", data=sent)
        costs.append(work.since())
    assert all(one == costs[0] for one in costs), costs


# --- guessing ------------------------------------------------------------------------------------


@pytest.mark.requirement("portal", "S0-22", "S3-17")
async def test_five_tries_then_locked_and_staff_are_told(town: Town) -> None:
    invitation = await town.invite()
    browser = town.browser()
    for _ in range(TRIES - 1):
        await town.by_link(browser, invitation, year="1985")
    assert await town.helps() == []
    await town.by_link(browser, invitation, year="1985")
    (left,) = await town.helps()
    assert (left.practice, left.reason, left.invitation) == (DERM, "locked", invitation.key)
    link = town.of(invitation).link
    form = {"code": town.of(invitation).code, **ADA}
    await browser.open(f"/activate/{link}")
    assert browser.page.status_code == 404
    await browser.open("/activate/code")
    await fill(browser, "/activate/code", practice_id=DERM_ID, **form)
    assert problem(browser) == NOT_MATCHED


async def test_the_fifth_try_may_be_right(town: Town) -> None:
    invitation = await town.invite()
    browser = town.browser()
    for _ in range(TRIES - 1):
        await town.by_link(browser, invitation, postal_code="1")
    await town.by_link(browser, invitation)
    assert browser.heading == "Your account"
    assert await town.helps() == []
    assert (await town.stored(invitation)).tries == TRIES - 1


async def test_guesses_at_once_are_no_more_than_five(town: Town) -> None:
    """The right birth date is the twentieth of those that come in parallel."""
    invitation = await town.invite()
    browser = town.browser()
    await browser.open(f"/activate/{town.of(invitation).link}")
    action = f"/activate/{town.of(invitation).link}"
    fields = {**fields_of(forms(browser, action)[0]), **ADA, "code": town.of(invitation).code}
    years = [str(1965 + number) for number in range(20)]
    guesses = [browser.http.post(action, data={**fields, "year": year}) for year in years]
    answers = await asyncio.gather(*guesses)
    assert sum(one.status_code == 303 for one in answers) <= 1
    assert (await town.stored(invitation)).tries <= TRIES
    wrong = sum(one.status_code == 403 for one in answers)
    assert wrong >= 19
    assert len(await town.helps()) <= 1


async def test_a_network_that_tries_many_codes_has_to_wait(town: Town) -> None:
    browser = town.browser()
    await browser.open("/activate/code")
    for _ in range(60):
        await fill(browser, "/activate/code", code=an_unknown_code(), practice_id=DERM_ID, **ADA)
    form = fields_of(forms(browser, "/activate/code")[0])
    response = await browser.http.post("/activate/code", data={**form, "code": "x", **ADA})
    assert response.status_code == 429
    assert int(response.headers["retry-after"]) > 0


async def test_one_time_codes_guessed_in_parallel(town: Town) -> None:
    browser = town.browser()
    await town.register(browser)
    genuine = await town.code_sent_to(MAIL)
    fields = fields_of(forms(browser, "/activate/proof")[0])
    wrong = [f"{number:08d}" for number in range(20) if f"{number:08d}" != genuine]
    posted = [browser.http.post("/activate/proof", data={**fields, "code": one}) for one in wrong]
    answers = await asyncio.gather(*posted)
    assert {one.status_code for one in answers} == {403}
    assert {one.reason for one in await town.helps()} == {"locked"}
    await fill(browser, "/activate/proof", code=genuine)
    assert problem(browser) == WRONG_CODE


async def test_the_code_of_a_challenge_for_nobody_is_wrong_too(town: Town) -> None:
    browser = town.browser()
    await town.register(browser, last="Eve")
    (challenge,) = await town.world.store.every(Challenge)
    assert challenge.for_nobody
    await fill(browser, "/activate/proof", code=town.codes.code(challenge.key, 1))
    assert problem(browser) == WRONG_CODE


async def test_the_second_contact_does_not_come_before_the_mailbox(town: Town) -> None:
    """Who took the telephone has no use for the fields of a page that is not shown yet."""
    browser = town.browser()
    await town.register(browser)
    assert not forms(browser, "/activate/proof/send")
    activation = (await town.world.store.every(Activation))[0]
    (session,) = await town.world.store.every(Session)
    assert session.browser == activation.browser
    await browser.open("/activate/account")
    assert browser.heading == "Prove that it is you"


# --- other people's secrets ----------------------------------------------------------------------


async def test_a_link_of_one_practice_with_the_code_of_another(town: Town) -> None:
    mine = await town.invite()
    theirs = await town.invite(
        "t-f", practice=FAMILY, patients=("Patient/ada-f",), persons=("Patient/ada-f",)
    )
    browser = town.browser()
    await town.by_link(browser, mine, code=town.of(theirs).code)
    assert problem(browser) == NOT_MATCHED
    await browser.open("/activate/code")
    code = town.of(theirs).code
    await fill(browser, "/activate/code", code=code, practice_id=DERM_ID, **ADA)
    assert problem(browser) == NOT_MATCHED


async def test_the_other_parent_who_knows_all_facts_gets_nowhere(town: Town) -> None:
    """The child's birth date and zip are no secret to them; code and contacts are the mother's."""
    invitation = await town.invite_mother()
    other = town.browser()
    for code in (an_unknown_code(), ""):
        await town.by_link(other, invitation, code=code)
        assert problem(other) == NOT_MATCHED
    await town.register(other, first="Kit", month="2", day="3", year="2018")
    await other.open("/activate/account")
    assert other.heading == "Prove that it is you"
    assert {one.to for one in await town.messages()} == {"nobody:"}


async def test_the_code_of_somebody_else_is_no_second_proof(town: Town) -> None:
    """After proving Ada's mailbox, the desk code of Kit's mother adds nothing."""
    patient = (await town.ehr.get("Patient/ada")).json
    await town.ehr.store({**patient, "telecom": patient["telecom"][:1]})
    theirs = await town.invite_mother(channel="desk", to="")
    browser = town.browser()
    await town.register(browser)
    await fill(browser, "/activate/proof", code=await town.code_sent_to(MAIL))
    code = town.of(theirs).code
    await fill(browser, "/activate/proof/security-code", security_code=code)
    assert problem(browser) == NOT_MATCHED
    assert (await town.stored(theirs)).state == "queued"


async def test_link_and_code_at_one_contact_are_one_proof(town: Town) -> None:
    """However that contact is written, the mailbox alone opens nothing."""
    invitation = await town.invite(to="ADA@MAIL.example", code_by="mail", code_to=MAIL)
    browser = town.browser()
    await town.by_link(browser, invitation)
    assert browser.heading == "Prove that it is you"
    assert "••• 42" in browser.text
    await browser.open("/activate/account")
    assert browser.heading == "Prove that it is you"
    await fill(browser, "/activate/proof/send", contact="0")
    await fill(browser, "/activate/proof", code=await town.code_sent_to(PHONE))
    assert browser.heading == "Your account"


async def test_a_practice_that_asks_for_more_gets_more(town: Town) -> None:
    await town.decide(assurance="level3")
    invitation = await town.invite()
    browser = town.browser()
    await town.by_link(browser, invitation)
    assert browser.heading == "Prove that it is you"


async def test_what_a_practice_asks_later_closes_what_it_opened(town: Town) -> None:
    browser = town.browser()
    await town.by_link(browser, await town.invite())
    await town.create(browser)
    assert len(await town.records()) == 1
    await town.decide(assurance="level3")
    assert await town.records() == ()


# --- replaying, racing ---------------------------------------------------------------------------


async def test_an_invitation_is_good_once(town: Town) -> None:
    invitation = await town.invite()
    browser, other = town.browser(), town.browser()
    await town.by_link(browser, invitation)
    form = fields_of(forms(browser, "/activate/account")[0])
    await town.create(browser)
    before = await made(town)
    await post(browser, "/activate/account", {**form, "username": "eve.q", "password": GOOD})
    await other.open(f"/activate/{town.of(invitation).link}")
    assert other.page.status_code == 404
    assert await made(town) == before


async def test_of_two_submits_at_once_one_makes_an_account(town: Town) -> None:
    invitation = await town.invite()
    browser = town.browser()
    await town.by_link(browser, invitation)
    form = {**fields_of(forms(browser, "/activate/account")[0]), "password": GOOD}
    posts = [
        browser.http.post("/activate/account", data={**form, "username": f"ada.{number}"})
        for number in range(5)
    ]
    answers = await asyncio.gather(*posts)
    assert Counter(one.status_code for one in answers)[303] == 1
    assert len([one for one in (await made(town))[0] if one.startswith("ada.")]) == 1


async def test_of_two_people_with_one_invitation_the_one_who_proved_last_goes_on(
    town: Town,
) -> None:
    invitation = await town.invite()
    first, second = town.browser(), town.browser()
    await town.by_link(first, invitation)
    form = fields_of(forms(first, "/activate/account")[0])
    await town.by_link(second, invitation)
    await post(first, "/activate/account", {**form, "username": "first", "password": GOOD})
    assert first.page.status_code == 403
    await town.create(second, username="second")
    assert await town.account("first") is None
    assert await town.account("second") is not None


@pytest.mark.parametrize("how", ["revoked", "expired", "sent again"])
async def test_what_ends_between_proof_and_account_gives_nothing(town: Town, how: str) -> None:
    invitation = await town.invite_mother()
    if how == "expired":
        town.world.clock.advance(72 * 3600 - 60)
    browser = town.browser()
    await town.by_link(browser, invitation)
    before = await made(town)
    if how == "revoked":
        await town.end(invitation, "revoked")
    elif how == "expired":
        town.world.clock.advance(120)
    else:
        now = await town.stored(invitation)

        async def again(transaction: Any) -> None:
            await invitations.issue_again(
                transaction,
                town.secrets,
                now,
                ends=now.ends + 9,
                channel="mail",
                to=MAIL,
                now=town.world.clock(),
            )

        await town.world.store.transact(again)
    await town.create(browser)
    assert browser.page.status_code == 403
    assert await made(town) == before
    assert (await town.ehr.get("Consent/grant")).json["status"] == "proposed"
    assert (await town.ehr.get("Task/t-kit")).json["status"] != "completed"
    assert await town.account() is None


async def test_a_record_that_is_somebodys_stays_theirs(town: Town) -> None:
    """Ada has an account; whoever is invited as Ada once more gets no second one."""
    browser, other = town.browser(), town.browser()
    await town.by_link(browser, await town.invite())
    await town.create(browser)
    again = await town.invite("t-2")
    before = await made(town)
    await town.by_link(other, again)
    await town.create(other, username="second")
    assert other.page.status_code == 403
    assert "Somebody has this access already" in other.text
    assert await made(town) == before
    assert (await town.stored(again)).state == "opened"


async def test_a_person_of_the_ehr_with_more_links_is_not_taken_over(town: Town) -> None:
    """Only one that is for these records alone, and then only at the level that was proved."""
    await town.ehr.store(a_person("wide", links=["Patient/ada", "Patient/bo"], assurance="level4"))
    browser = town.browser()
    await town.by_link(browser, await town.invite())
    await town.create(browser)
    assert (await town.person())["id"] != "wide"
    assert [one.patient for one in await town.records()] == ["Patient/ada"]


async def test_a_person_of_the_ehr_for_this_record_alone_is_used(town: Town) -> None:
    await town.ehr.store(a_person("narrow", links=["Patient/ada"], assurance="level4"))
    browser = town.browser()
    await town.by_link(browser, await town.invite())
    await town.create(browser)
    person = await town.person()
    assert person["id"] == "narrow"
    assert person["link"][0]["assurance"] == "level2"


async def test_ids_of_another_practice_lead_nowhere(town: Town) -> None:
    """An invitation whose RelatedPerson is for another record than it says opens neither."""
    invitation = await town.invite(
        patients=("Patient/bo",), persons=("RelatedPerson/mother",), relation="guardian"
    )
    bo = {"month": "1", "day": "31", "year": "1950"}
    browser = town.browser()
    await town.by_link(browser, invitation, **bo)
    before = await made(town)
    await town.create(browser)
    assert browser.page.status_code == 403
    assert await made(town) == before


# --- browsers ------------------------------------------------------------------------------------


@pytest.mark.requirement("portal", "S0-12")
async def test_a_scanner_opens_the_link_a_hundred_times(town: Town) -> None:
    """GET and HEAD use nothing up and change nothing."""
    invitation = await town.invite()
    store = town.world.store
    kinds: tuple[Any, ...] = (Invitation, InvitationSecret, Activation, Session, OutboxMessage)
    before = [await store.every(kind) for kind in kinds]
    link = f"/activate/{town.of(invitation).link}"
    async with town.world.http() as http:
        for number in range(100):
            response = await http.request("HEAD" if number % 4 == 0 else "GET", link)
            assert response.status_code == 200
    assert [await store.every(kind) for kind in kinds] == before
    browser = town.browser()
    await town.by_link(browser, invitation)
    assert browser.heading == "Your account"


ACTIONS = [
    "/register",
    "/activate/code",
    "/activate/sheet",
    "/activate/proof",
    "/activate/proof/send",
    "/activate/proof/again",
    "/activate/proof/security-code",
    "/activate/proof/help",
    "/activate/proof/other",
    "/activate/contact",
    "/activate/account",
    "/activate/account/add",
    "/activate/passkey",
    "/activate/passkey/options",
]


@pytest.mark.parametrize("path", ACTIONS)
async def test_a_form_that_is_not_ours_does_nothing(town: Town, path: str) -> None:
    """Cross-site request forgery: the session is there, our hidden field is not."""
    invitation = await town.invite()
    browser, other = town.browser(), town.browser()
    await town.by_link(browser, invitation)
    await town.by_link(other, await town.invite_mother())
    foreign = fields_of(forms(other, "/activate/account")[0])["form_token"]
    before = (await made(town), await town.world.store.every(Activation), await town.messages())
    for token in ("", "x", foreign):
        sent = {"form_token": token, "username": "eve.quill", "password": GOOD, **ADA}
        response = await browser.http.post(path, data=sent)
        assert response.status_code == 403
    assert (
        await made(town),
        await town.world.store.every(Activation),
        await town.messages(),
    ) == before


async def test_what_is_proved_is_proved_in_a_session_nobody_could_plant(town: Town) -> None:
    invitation = await town.invite()
    browser, planter = town.browser(), town.browser()
    await planter.open(f"/activate/{town.of(invitation).link}")
    planted = planter.http.cookies["portal-session"]
    browser.http.cookies.set("portal-session", planted, domain="127.0.0.1", path="/")
    await town.by_link(browser, invitation)
    assert browser.heading == "Your account"
    await planter.open("/activate/account")
    assert planter.page.status_code == 403


@pytest.mark.parametrize(
    "username",
    [
        "m\u0430ra.quill",  # a Cyrillic letter among Latin ones
        "\u0430\u0441\u0435",  # Cyrillic letters only, read as Latin ones
        "\u03bf\u03bd\u03b1",
        "somebody@mail.example",
        "ad",
        "ada quill",
        "ada\u200bquill",
        "ada\nquill",
        "x" * 300,
        "",
    ],
)
async def test_user_names_that_look_like_others_are_refused(town: Town, username: str) -> None:
    browser = town.browser()
    await town.by_link(browser, await town.invite())
    await town.create(browser, username=username)
    assert browser.page.status_code == 400
    assert problem(browser)
    assert len(await town.world.store.every(Account)) == 1


@pytest.mark.parametrize("username", ["MARA@example.org", "mara@EXAMPLE.org "])
async def test_a_taken_user_name_is_taken_however_it_is_written(town: Town, username: str) -> None:
    patient = (await town.ehr.get("Patient/ada")).json
    telecom = [{"system": "email", "value": "mara@example.org"}]
    await town.ehr.store({**patient, "telecom": telecom})
    browser = town.browser()
    await town.by_link(browser, await town.invite(to="mara@example.org"))
    await town.create(browser, username=username)
    assert "taken" in problem(browser)


@pytest.mark.requirement("portal", "S1-08")
async def test_a_weak_password_makes_no_account(town: Town) -> None:
    browser = town.browser()
    invitation = await town.invite()
    await town.by_link(browser, invitation)
    await town.create(browser, password="dermatology1")
    assert browser.page.status_code == 400
    assert await town.account() is None
    await town.create(browser)
    assert await town.account() is not None


async def test_no_page_holds_a_secret_or_a_whole_contact(town: Town) -> None:
    invitation = await town.invite()
    secrets = town.of(invitation)
    browser = town.browser()
    pages: list[httpx.Response] = [await browser.open(f"/activate/{secrets.link}")]
    pages.append(await town.by_link(browser, invitation))
    for one in pages:
        for secret in (secrets.code, secrets.word, PHONE, "1984-05-12", "60601", "Ada", "Quill"):
            assert secret not in one.text
        policy = one.headers["content-security-policy"]
        assert re.search(r"form-action 'self'$", policy)


async def test_a_record_that_has_nothing_to_compare_opens_nothing(town: Town) -> None:
    """Without a birth date on file an empty one is not the same."""
    await town.ehr.store(a_patient("blank", birthDate=None))
    invitation = await town.invite(patients=("Patient/blank",), persons=("Patient/blank",))
    browser = town.browser()
    await town.by_link(browser, invitation, month="", day="", year="")
    assert problem(browser) == NOT_MATCHED


@pytest.mark.requirement("portal", "S0-18")
def test_practice_ids_differ_and_have_a_sign_to_check() -> None:
    assert DERM_ID != FAMILY_ID
    for practice_id in (DERM_ID, FAMILY_ID):
        assert len(practice_id) == 6
        assert read_signs(practice_id, 6) == practice_id
        wrong = practice_id[:-1] + ("2" if practice_id[-1] != "2" else "3")
        assert read_signs(wrong, 6) is None


# --- what is between invitation and account ------------------------------------------------------


async def test_a_record_of_another_person_does_not_open_what_was_closed(town: Town) -> None:
    """Who got Ada's account by another practice's help is a patient here as well, and invited."""
    browser = town.browser()
    await town.by_link(browser, await town.invite())
    await town.create(browser)
    account = await town.account()
    assert account is not None
    await keep(town.world.store, msgspec.structs.replace(account, closed_at=(DERM,)))
    await town.ehr.store(a_task("t-bo", of="bo"))
    bo = await town.invite(
        "t-bo", patients=("Patient/bo",), persons=("Patient/bo",),
        to="bo@mail.example", code_to="+13125550143",
    )  # fmt: skip
    before = await made(town)
    await town.by_link(browser, bo, month="1", day="31", year="1950")
    await fill(browser, "/activate/account/add")
    assert browser.page.status_code == 403
    assert "has to prove" in browser.page.text
    assert await town.records() == ()
    assert await made(town) == before
    assert (await town.stored(bo)).state != "redeemed"


async def test_whoever_found_a_browser_signed_in_adds_nothing_to_the_account(town: Town) -> None:
    """A proved mailbox helps to recover the account: it takes what adding a contact takes."""
    browser = town.browser()
    await town.by_link(browser, await town.invite())
    await town.create(browser)
    await town.ehr.store(a_task("t-bo", of="bo"))
    bo = await town.invite(
        "t-bo", patients=("Patient/bo",), persons=("Patient/bo",),
        to="bo@mail.example", code_to="+13125550143",
    )  # fmt: skip
    town.world.clock.advance(FIVE_MINUTES + 1)
    await town.by_link(browser, bo, month="1", day="31", year="1950")
    await fill(browser, "/activate/account/add")
    assert browser.page.url.path == "/account/confirm"
    assert {one.patient for one in await town.records()} == {"Patient/ada"}
    assert await town.world.store.find(Contact, "value", "bo@mail.example") == []


async def test_contacts_are_told_that_a_contact_came_with_a_record(town: Town) -> None:
    browser = town.browser()
    await town.by_link(browser, await town.invite())
    await town.create(browser)
    await town.by_link(browser, await town.invite_mother(to="other@mail.example"))
    await fill(browser, "/activate/account/add")
    told = [one.template for one in await town.messages()]
    assert told.count("security-contact-added") == 1


async def test_nobody_activates_for_whoever_died_meanwhile(town: Town) -> None:
    browser = town.browser()
    await town.by_link(browser, await town.invite())
    await town.ehr.store(a_patient("ada", deceasedDateTime="2026-01-01"))
    before = await made(town)
    await town.create(browser)
    assert browser.page.status_code == 403
    assert await made(town) == before


@pytest.mark.parametrize("what", ["portal off", "contact gone", "code's contact gone", "inactive"])
async def test_a_link_that_is_over_brings_no_new_one_where_staff_would_not_send_one(
    town: Town, what: str
) -> None:
    invitation = await town.invite()
    telecom = [
        {"system": "email", "value": MAIL},
        {"system": "phone", "use": "mobile", "value": PHONE},
    ]
    if what == "portal off":
        await town.decide(portal=False)
    elif what == "inactive":
        await town.ehr.store(a_patient("ada", telecom=telecom, active=False))
    else:
        del telecom[0 if what == "contact gone" else 1]
        await town.ehr.store(a_patient("ada", telecom=telecom))
    town.world.clock.advance(73 * 3600)
    browser = town.browser()
    await browser.open(f"/activate/{town.of(invitation).link}")
    await fill(browser, f"/activate/{town.of(invitation).link}/again")
    assert browser.page.status_code == 200
    assert (await town.stored(invitation)).attempt == 1
    assert await town.messages() == []


async def test_a_link_to_a_contact_that_staff_named_is_renewed_to_it(town: Town) -> None:
    invitation = await town.invite(to="named@mail.example", is_named=True)
    town.world.clock.advance(73 * 3600)
    browser = town.browser()
    await browser.open(f"/activate/{town.of(invitation).link}")
    await fill(browser, f"/activate/{town.of(invitation).link}/again")
    again = await town.stored(invitation)
    assert (again.attempt, again.to, again.is_named) == (2, "named@mail.example", True)


async def test_whose_proof_is_not_done_learns_of_no_user_name(town: Town) -> None:
    """The form of the last step, kept from an earlier time, asks nothing before its turn."""
    browser = town.browser()
    await town.by_link(browser, await town.invite())
    form = fields_of(forms(browser, "/activate/account")[0])
    await keep(
        town.world.store,
        *(
            msgspec.structs.replace(one, evidence=())
            for one in await town.world.store.every(Activation)
        ),
    )
    await browser.http.post(
        "/activate/account", data={**form, "username": "somebody", "how": "passkey"}
    )
    (activation,) = await town.world.store.every(Activation)
    assert "username" not in activation.typed


async def test_a_link_of_an_expired_invitation_that_was_taken_back_brings_no_new_one(
    town: Town,
) -> None:
    invitation = await town.invite()
    town.world.clock.advance(73 * 3600)
    await town.end(invitation, "expired")
    await town.end(invitation, "revoked")
    link = town.of(invitation).link
    browser = town.browser()
    await browser.open(f"/activate/{link}")
    await fill(browser, f"/activate/{link}/again")
    assert browser.page.status_code == 200
    stored = await town.stored(invitation)
    assert (stored.state, stored.attempt) == ("revoked", 1)
    assert await town.messages() == []


async def test_one_network_does_not_use_up_a_practices_help(town: Town) -> None:
    """It registers as often as it may; who really asks in that hour from elsewhere has a Task."""
    bad = town.world.browser("203.0.113.9")
    for number in range(STRANGERS_AN_HOUR):
        await town.register(bad, mail=f"x{number}@mail.example", first="No", last=f"Body{number}")
    await tasks_made(town.ehr.portal)
    real = town.world.browser("198.51.100.7")
    await town.register(real, mail="real@mail.example", first="Real", last="Patient")
    await tasks_made(town.ehr.portal)
    matters = await town.helps()
    (found,) = [one for one in matters if one.typed.get("mail") == "real@mail.example"]
    assert found.task is not None
    assert sum(one.task is not None for one in matters) == STRANGERS_A_NETWORK + 1
    assert not any("203.0.113" in one.network or "198.51" in one.network for one in matters)
