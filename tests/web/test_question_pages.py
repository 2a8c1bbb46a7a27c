"""Security questions: chosen on the security page, asked in a recovery, and never enough alone."""

from __future__ import annotations

from collections.abc import AsyncIterator

import msgspec
import pytest

from fhir_portal.accounts.account import Account
from fhir_portal.accounts.contacts import RECOVERY_AFTER_SECONDS
from fhir_portal.accounts.recovery import Recovery
from fhir_portal.accounts.security_questions import (
    QUESTIONS,
    RecoveryPolicy,
    SecurityAnswers,
    WrongAnswers,
)
from fhir_portal.records import RecordTransaction
from tests.matters import open_matters
from tests.smart.world import Browser, World
from tests.web.recovering import begins, chooses, code_for, contact, gives, questions_of
from tests.web.signing_in import (
    Resident,
    at_security,
    done,
    fields_of,
    forms,
    post,
    problem,
)

PAGE, ASKED = "/account/security/questions", "/recover/questions"
ANSWERS = {"first-pet": "Mister Whiskers", "first-dish": "Pancakes!", "far-journey": "Córdoba"}


@pytest.fixture
async def world() -> AsyncIterator[World]:
    world = await World.begin()
    person = msgspec.structs.replace(world.mara, persons=("skin/Person/mara",))

    async def keep(transaction: RecordTransaction) -> None:
        await transaction.put(person)
        await transaction.put(RecoveryPolicy(key="skin", security_questions=True))

    await world.store.transact(keep)
    world.mara = person
    yield world
    world.close()


async def answers(browser: Browser, action: str, fields: dict[str, str]) -> None:
    """Fill in the page's form and send it off."""
    (form,) = forms(browser, action)
    await post(browser, action, {**fields_of(form), **fields})


def form_of(given: dict[str, str]) -> dict[str, str]:
    fields: dict[str, str] = {}
    for number, (question, text) in enumerate(given.items(), 1):
        fields |= {f"question{number}": question, f"answer{number}": text}
    return fields


async def chose(world: World, given: dict[str, str] = ANSWERS) -> None:
    """Mara's answers, which count already."""
    await world.store.transact(
        await questions_of(world).answered(
            world.mara.key, list(given.items()), now=world.clock(), is_first=True
        )
    )


async def at_questions(world: World) -> Browser:
    await contact(world, world.mara)
    browser = await begins(world)
    await gives(browser, await code_for(world, browser))
    assert browser.heading == "Your security questions"
    return browser


@pytest.mark.requirement("portal", "S0-30", "S0-31", "S2-33")
async def test_answers_are_asked_beside_a_code(world: World) -> None:
    await chose(world)
    browser = await at_questions(world)
    assert QUESTIONS["first-pet"] in browser.text
    assert QUESTIONS["first-job-town"] not in browser.text
    await answers(browser, ASKED, {**ANSWERS, "first-pet": "Rex"})
    assert problem(browser) == "Not all of these answers are right."
    await answers(browser, ASKED, ANSWERS)
    await chooses(browser)
    assert browser.heading == "You are signed in"


async def test_case_spaces_and_punctuation_make_no_difference(world: World) -> None:
    await chose(world)
    browser = await at_questions(world)
    typed = {
        "first-pet": "  mister-WHISKERS ",
        "first-dish": "pan cakes",
        "far-journey": "CO\u0301RDOBA",
    }
    await answers(browser, ASKED, typed)
    assert browser.heading == "Choose a new password"


async def test_the_second_factor_is_asked_before_them(world: World) -> None:
    await chose(world)
    app = await Resident(world).app()
    await contact(world, world.mara)
    browser = await begins(world)
    await gives(browser, await code_for(world, browser))
    assert browser.heading == "One more proof"
    form = fields_of(forms(browser, "/recover/code")[0])
    assert (await browser.http.post(ASKED, data={**form, **ANSWERS})).status_code == 403
    await gives(browser, app.code)
    assert browser.heading == "Your security questions"


@pytest.mark.requirement("portal", "S0-30")
async def test_they_are_never_enough_alone(world: World) -> None:
    await chose(world)
    await contact(world, world.mara)
    browser = await begins(world)
    assert all(text not in browser.text for text in QUESTIONS.values())
    form = fields_of(forms(browser, "/recover/code")[0])
    await browser.http.post(ASKED, data={**form, **ANSWERS})
    (recovery,) = await world.store.every(Recovery)
    assert not recovery.answered


async def test_no_address_leads_past_them(world: World) -> None:
    await chose(world)
    browser = await at_questions(world)
    form = fields_of(forms(browser, ASKED)[0])
    await post(browser, "/recover/password", {**form, "new_password": "seven quiet otters"})
    assert await world.store.get(Account, world.mara.key) == world.mara


@pytest.mark.requirement("portal", "S0-30")
async def test_five_tries_then_locked_for_the_window(world: World) -> None:
    await chose(world)
    browser = await at_questions(world)
    for _ in range(5):
        await answers(browser, ASKED, {**ANSWERS, "first-pet": "Rex"})
    assert browser.heading == "Your practice can help"
    assert len(await open_matters(world.store, "recovery-help")) == 1
    again = await begins(world)
    await gives(again, await code_for(world, again))
    form = fields_of(forms(again, ASKED)[0])
    locked = await again.http.post(ASKED, data={**form, **ANSWERS})
    assert locked.status_code == 429
    world.clock.advance(int(locked.headers["retry-after"]) + 1)
    later = await begins(world)
    await gives(later, await code_for(world, later))
    await answers(later, ASKED, ANSWERS)
    assert later.heading == "Choose a new password"


@pytest.mark.requirement("portal", "S1-16")
async def test_new_answers_count_after_a_day_and_the_old_until_then(world: World) -> None:
    await chose(world)
    browser = await at_security(world)
    await browser.open(PAGE)
    new = {"first-job-town": "Elmhurst", "first-teacher": "Quince", "parents-met": "Oakfield"}
    await answers(browser, PAGE, form_of(new))
    assert done(browser)
    assert (await Resident(world).told())[-1] == "security-security-questions-changed"
    questions = questions_of(world)
    assert set(await questions.asked_of(world.mara, world.clock())) == set(ANSWERS)
    later = world.clock() + RECOVERY_AFTER_SECONDS
    assert set(await questions.asked_of(world.mara, later)) == set(new)


@pytest.mark.requirement("portal", "S0-30", "S0-31")
@pytest.mark.parametrize(("age", "at_once"), [(3599, True), (3601, False)])
async def test_what_an_account_begins_with_counts_at_once(
    world: World, age: int, *, at_once: bool
) -> None:
    """Whoever registers chooses them then; on an older account the first ones wait, too."""
    born = msgspec.structs.replace(world.mara, created=world.clock() - age)
    await world.store.transact(lambda transaction: transaction.put(born))
    browser = await at_security(world)
    await browser.open(PAGE)
    await answers(browser, PAGE, form_of(ANSWERS))
    assert done(browser)
    assert ("is asked from" in browser.text) is not at_once
    found = await questions_of(world).asked_of(born, world.clock())
    assert set(found) == (set(ANSWERS) if at_once else set())


@pytest.mark.requirement("portal", "S1-16")
async def test_only_the_first_answers_of_a_new_account_count_at_once(world: World) -> None:
    born = msgspec.structs.replace(world.mara, created=world.clock())
    await world.store.transact(lambda transaction: transaction.put(born))
    browser = await at_security(world)
    await browser.open(PAGE)
    await answers(browser, PAGE, form_of(ANSWERS))
    new = {"first-job-town": "Elmhurst", "first-teacher": "Quince", "parents-met": "Oakfield"}
    await answers(browser, PAGE, form_of(new))
    assert "is asked from" in browser.text
    assert set(await questions_of(world).asked_of(born, world.clock())) == set(ANSWERS)


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"first-pet": "Rex the dog", "first-dish": "Pancakes"},
        {**ANSWERS, "first-pet": "a!"},
        {**ANSWERS, "first-pet": "x" * 101},
        {**ANSWERS, "first-pet": "pancakes"},
        {"first-pet": "Rex the dog", "first-dish": "Pancakes", "mothers-name": "Quill"},
    ],
)
async def test_what_are_no_three_answers_is_refused(world: World, given: dict[str, str]) -> None:
    browser = await at_security(world)
    await browser.open(PAGE)
    await answers(browser, PAGE, form_of(given))
    assert browser.page.status_code == 400
    assert problem(browser)
    assert await world.store.every(SecurityAnswers) == []


async def test_the_same_question_thrice_is_refused(world: World) -> None:
    browser = await at_security(world)
    await browser.open(PAGE)
    fields = {f"question{n}": "first-pet" for n in (1, 2, 3)}
    fields |= {f"answer{n}": f"Rex {n}00" for n in (1, 2, 3)}
    await answers(browser, PAGE, fields)
    assert browser.page.status_code == 400


@pytest.mark.requirement("portal", "S0-30")
async def test_a_practice_that_does_not_ask_never_shows_them(world: World) -> None:
    await chose(world)
    off = RecoveryPolicy(key="skin", security_questions=False)
    await world.store.transact(lambda transaction: transaction.put(off))
    browser = await at_security(world)
    assert "Security questions" not in browser.text
    await browser.open(PAGE)
    assert browser.page.status_code == 400
    await contact(world, world.mara)
    recovering = await begins(world)
    await gives(recovering, await code_for(world, recovering))
    assert recovering.heading == "Choose a new password"


@pytest.mark.requirement("portal", "S0-30", "S1-16")
async def test_changing_them_needs_a_fresh_proof_and_our_form(world: World) -> None:
    browser = await at_security(world)
    await browser.open(PAGE)
    form = {**fields_of(forms(browser, PAGE)[0]), **form_of(ANSWERS)}
    forged = await browser.http.post(PAGE, data={**form, "form_token": "x"})
    assert forged.status_code == 403
    world.clock.advance(301)
    await post(browser, PAGE, form)
    assert browser.heading == "Confirm that it is you"
    nobody = world.browser()
    assert (await nobody.http.post(PAGE, data=form)).headers["location"].startswith("/signin")
    assert await world.store.every(SecurityAnswers) == []


async def test_answers_are_of_no_use_without_the_servers_key(world: World) -> None:
    await chose(world)
    (kept,) = await world.store.every(SecurityAnswers)
    text = msgspec.json.encode(kept).decode().casefold()
    assert not any(answer.casefold()[:5] in text for answer in ANSWERS.values())
    other = questions_of(world)
    stolen = type(other)(other.store, other.passwords, b"another key of thirty-two bytes!")
    with pytest.raises(WrongAnswers):
        await stolen.check(world.mara.key, ANSWERS, at=world.clock())
