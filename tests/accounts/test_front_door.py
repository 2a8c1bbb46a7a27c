"""The ways in, and what strangers can and cannot do at the door."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from fhir_portal.accounts.account import Account
from fhir_portal.accounts.credentials import SignInRefused
from fhir_portal.accounts.front_door import Place
from fhir_portal.accounts.proof import Spent
from fhir_portal.accounts.sessions import Opened, Session, SignedOutMeanwhile
from fhir_portal.accounts.throttle import TooManyAttempts
from fhir_portal.accounts.totp import WrongCode
from fhir_portal.smart.revocation import disable_account
from tests.accounts.authenticator import Authenticator
from tests.accounts.house import HOME, House
from tests.smart.world import PASSWORD

KNOWN = Place("192.0.2.1", known="the-kitchen-computer", device="Firefox on Linux")


def network(number: int) -> str:
    return f"198.51.{number // 200}.{number % 200 + 1}"


async def recover(house: House, code: str, password: str = PASSWORD, **how: Any) -> Opened:
    before = house.sessions.drafted().visitor.session
    place = how.pop("place", HOME)
    return await house.door.by_recovery_code(
        before, how.pop("username", "mara"), password, code, place
    )


# --- the second factor ---------------------------------------------------------------------------


async def test_without_a_second_factor_the_password_opens(house: House) -> None:
    opened = await house.enters()
    visitor = await house.find(opened)
    assert visitor is not None
    assert visitor.account == house.mara
    assert visitor.session.factors == ("password",)
    assert visitor.session.second_factor_at == 0
    assert visitor.session.device == "Firefox on Linux"


async def test_with_an_app_the_password_alone_opens_nothing(house: House) -> None:
    app = await house.app()
    pending = await house.enters()
    visitor = await house.find(pending)
    assert visitor is not None
    assert visitor.account is None
    assert pending.visitor.session.key not in {
        session.key for session in await house.sessions.of(house.mara.key)
    }
    opened, token = await house.door.by_code(visitor.session, app.code, HOME)
    assert token is None
    entered = await house.find(opened)
    assert entered is not None
    assert entered.account == house.mara
    assert entered.session.factors == ("password", "totp")
    assert entered.session.second_factor_at == house.clock()
    assert opened.cookie != pending.cookie
    assert await house.find(pending) is None


async def test_a_wrong_code_opens_nothing_and_can_be_corrected(house: House) -> None:
    app = await house.app()
    pending = (await house.enters()).visitor.session
    with pytest.raises(WrongCode):
        await house.door.by_code(pending, "000000", HOME)
    opened, _ = await house.door.by_code(pending, app.code, HOME)
    assert opened.visitor.account == house.mara


async def test_a_recovery_code_stands_in_for_the_app_and_its_owner_is_told(house: House) -> None:
    await house.app()
    code = (await house.recovery_codes())[0]
    pending = (await house.enters()).visitor.session
    opened, _ = await house.door.by_code(pending, code, HOME)
    assert opened.visitor.session.factors == ("password", "recovery-code")
    assert await house.told() == ["security-recovery-code-used"]
    again = (await house.enters()).visitor.session
    with pytest.raises(WrongCode):
        await house.door.by_code(again, code, HOME)


async def test_one_code_opens_one_session_however_many_try_at_once(house: House) -> None:
    """The code and what it buys are one transaction."""
    app = await house.app()
    pending = [(await house.enters()).visitor.session for _ in range(8)]
    before = len(await house.sessions.of(house.mara.key))
    tried = await asyncio.gather(
        *(house.door.by_code(one, app.code, HOME) for one in pending), return_exceptions=True
    )
    kinds = [type(one) for one in tried]
    assert kinds.count(tuple) == 1
    assert set(kinds) <= {tuple, Spent, WrongCode}
    assert len(await house.sessions.of(house.mara.key)) == before + 1


async def test_a_session_that_waits_is_used_once(house: House) -> None:
    app = await house.app()
    codes = await house.recovery_codes()
    pending = (await house.enters()).visitor.session
    before = len(await house.sessions.of(house.mara.key))
    tried = await asyncio.gather(
        *(house.door.by_code(pending, code, HOME) for code in (app.code, *codes[:4])),
        return_exceptions=True,
    )
    assert [type(one) for one in tried].count(tuple) == 1
    assert len(await house.sessions.of(house.mara.key)) == before + 1
    assert len(await house.told()) <= 1  # what failed was rolled back with its notice


async def test_waiting_for_a_code_has_an_end(house: House) -> None:
    app = await house.app()
    pending = await house.enters()
    house.clock.advance(600)
    assert await house.find(pending) is None
    assert app.code


async def test_a_session_that_waits_for_nobody_takes_no_code(house: House) -> None:
    app = await house.app()
    opened = await house.sessions.open()
    with pytest.raises(SignedOutMeanwhile):
        await house.door.by_code(opened.visitor.session, app.code, HOME)


async def test_a_code_is_for_the_account_whose_password_was_given(house: House) -> None:
    """Session of one, code of the other."""
    jon = await house.account("jon")
    await house.app()
    his = await house.app(jon)
    pending = (await house.enters()).visitor.session
    with pytest.raises(WrongCode):
        await house.door.by_code(pending, his.code, HOME)


async def test_who_is_shut_out_meanwhile_stays_out(house: House) -> None:
    app = await house.app()
    pending = (await house.enters()).visitor.session
    await disable_account(house.store, house.mara.key, now=house.clock())
    with pytest.raises(SignedOutMeanwhile):
        await house.door.by_code(pending, app.code, HOME)


async def test_one_may_begin_anew_as_somebody_else(house: House) -> None:
    await house.app()
    await house.account("jon")
    pending = (await house.enters()).visitor.session
    opened = await house.door.by_password(pending, "jon", PASSWORD, HOME)
    assert opened.visitor.account is not None
    assert opened.visitor.account.username == "jon"


# --- remembered browsers -------------------------------------------------------------------------


async def test_a_remembered_browser_is_spared_the_code_and_not_the_password(house: House) -> None:
    app = await house.app()
    pending = (await house.enters()).visitor.session
    _, token = await house.door.by_code(pending, app.code, HOME, remember=True)
    assert token
    opened = await house.enters(remembered=lambda _: token)
    assert opened.visitor.account == house.mara
    assert opened.visitor.session.factors == ("password", "remembered-device")
    assert opened.visitor.session.second_factor_at == 0  # it proves no second factor
    with pytest.raises(SignInRefused):
        await house.enters(password="wrong password", remembered=lambda _: token)


async def test_another_accounts_token_spares_nothing(house: House) -> None:
    jon = await house.account("jon")
    await house.app()
    token, keep = house.door.devices.remember(jon.key, "")
    await house.store.transact(keep)
    opened = await house.enters(remembered=lambda _: token)
    assert opened.visitor.account is None


async def test_a_session_fixed_before_is_dead_after_each_rise(house: House) -> None:
    """Password, then code: two new cookies, and neither old one lives (ASVS 7.2.4)."""
    app = await house.app()
    planted = await house.sessions.open()
    pending = await house.door.by_password(planted.visitor.session, "mara", PASSWORD, HOME)
    opened, _ = await house.door.by_code(pending.visitor.session, app.code, HOME)
    assert len({planted.cookie, pending.cookie, opened.cookie}) == 3
    assert await house.find(planted) is None
    assert await house.find(pending) is None
    assert (
        len([s for s in await house.store.every(Session) if s.browser == (planted.visitor.browser)])
        == 1
    )


# --- a password and a recovery code at once ------------------------------------------------------


async def test_a_recovery_code_and_the_password_open(house: House) -> None:
    code = (await house.recovery_codes())[0]
    opened = await recover(house, code)
    assert opened.visitor.account == house.mara
    assert opened.visitor.session.factors == ("password", "recovery-code")
    with pytest.raises(SignInRefused):
        await recover(house, code)


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"username": "nobody"}, None),
        ({"password": "wrong password"}, None),
        ({}, "0000-0000-0000"),
        ({"username": ""}, ""),
    ],
    ids=["unknown", "password", "code", "empty"],
)
async def test_whatever_of_it_is_wrong_is_refused_alike(
    house: House, change: dict[str, str], code: str | None
) -> None:
    codes = await house.recovery_codes()
    with pytest.raises(SignInRefused) as refused:
        await recover(house, code if code is not None else codes[0], **change)
    assert str(refused.value) == ""
    assert await house.door.second_factor.codes.left(house.mara.key) == 10  # it is not lost


async def test_a_disabled_account_has_no_recovery(house: House) -> None:
    codes = await house.recovery_codes()
    await disable_account(house.store, house.mara.key, now=house.clock())
    with pytest.raises(SignInRefused):
        await recover(house, codes[0])


async def test_who_holds_a_code_cannot_guess_the_password_without_end(house: House) -> None:
    """The paper was stolen: each guess from another network counts together."""
    codes = await house.recovery_codes()
    for number in range(10):
        with pytest.raises(SignInRefused):
            await recover(house, codes[0], "wrong password", place=Place(network(number)))
    with pytest.raises(TooManyAttempts):
        await recover(house, codes[1], "wrong password", place=Place(network(99)))


# --- strangers at the door -----------------------------------------------------------------------


class Siege:
    """A stranger with as many networks as it takes, who does not stop trying."""

    def __init__(self, house: House) -> None:
        self.house = house
        self.tried = 0

    async def hammer(self, times: int) -> None:
        """Try until the account's count over all networks is used up, and go on."""
        for _ in range(times):
            self.tried += 1
            place = Place(network(self.tried % 3000))
            with pytest.raises((SignInRefused, TooManyAttempts)):
                await self.house.enters(place, "a wrong password")


@pytest.fixture
async def siege(house: House) -> AsyncIterator[Siege]:
    siege = Siege(house)
    for number in range(50):  # failures, without the hashing that each of them costs
        throttle = house.door.password.throttle
        await throttle.attempt("mara", address=network(number), device=None)
    await siege.hammer(5)
    with pytest.raises(TooManyAttempts):  # a browser that nobody knows has to wait
        await house.enters(Place("203.0.113.200"))
    yield siege
    with pytest.raises(TooManyAttempts):  # and the siege went on all the time
        await house.enters(Place("203.0.113.200"))


async def while_hammered(siege: Siege, owner: Any) -> Any:
    """Let the owner come in while the stranger goes on hammering, and does not stop before."""
    inside = asyncio.Event()

    async def go_on() -> None:
        while not inside.is_set():
            await siege.hammer(1)
            await asyncio.sleep(0)

    before = siege.tried
    hammering = asyncio.create_task(go_on())
    await asyncio.sleep(0)
    try:
        return await owner
    finally:
        inside.set()
        await hammering
        assert siege.tried > before


def is_mara(opened: Opened, mara: Account) -> bool:
    return opened.visitor.account is not None and opened.visitor.account.key == mara.key


async def test_the_owner_comes_in_from_a_known_browser(house: House, siege: Siege) -> None:
    assert is_mara(await while_hammered(siege, house.enters(KNOWN)), house.mara)


async def test_the_owner_comes_in_by_passkey_from_anywhere(house: House, siege: Siege) -> None:
    authenticator = await Authenticator.of(house)
    before = house.sessions.drafted().visitor.session
    answer = await authenticator.answer(before)
    coming = house.door.by_passkey(before, answer, Place("203.0.113.200"))
    assert is_mara(await while_hammered(siege, coming), house.mara)


async def test_the_owner_comes_in_by_recovery_code_from_anywhere(
    house: House, siege: Siege
) -> None:
    codes = await house.recovery_codes()
    coming = recover(house, codes[0], place=Place("203.0.113.200"))
    assert is_mara(await while_hammered(siege, coming), house.mara)


async def test_the_owner_comes_in_from_a_remembered_browser_with_an_app(
    house: House, siege: Siege
) -> None:
    await house.app()
    token, keep = house.door.devices.remember(house.mara.key, "")
    await house.store.transact(keep)
    coming = house.enters(KNOWN, remembered=lambda _: token)
    assert is_mara(await while_hammered(siege, coming), house.mara)


async def test_who_is_signed_in_confirms_undisturbed(house: House, siege: Siege) -> None:
    opened = await house.signed_in()
    coming = house.door.confirm(opened.visitor, PASSWORD, "", Place("203.0.113.200"))
    confirmed, write = await while_hammered(siege, coming)
    await house.store.transact(write)
    assert is_mara(confirmed, house.mara)


async def test_other_accounts_do_not_notice(house: House, siege: Siege) -> None:
    await house.account("jon")
    before = house.sessions.drafted().visitor.session
    coming = house.door.by_password(before, "jon", PASSWORD, Place("203.0.113.200"))
    opened = await while_hammered(siege, coming)
    assert opened.visitor.account.username == "jon"


async def test_nobody_waits_longer_than_the_window(house: House) -> None:
    """However long a siege lasts, the wait it causes has an upper bound."""
    siege, longest = Siege(house), 0
    for _ in range(4):
        await siege.hammer(55)
        with pytest.raises(TooManyAttempts) as waiting:
            await house.enters(Place("203.0.113.200"))
        longest = max(longest, waiting.value.retry_after)
        house.clock.advance(1200)
    assert 0 < longest <= 3600
    house.clock.advance(3600)
    assert is_mara(await house.enters(Place("203.0.113.200")), house.mara)


async def test_a_neighbour_on_the_same_network_cannot_lock_out_a_known_browser(
    house: House,
) -> None:
    """One address, many accounts tried: its count is used up, and a known browser has its own."""
    for number in range(100):
        attempt = house.door.password.throttle.attempt(
            f"somebody-{number}", address=KNOWN.address, device=None
        )
        await attempt
    with pytest.raises(TooManyAttempts):
        await house.enters(HOME)
    assert is_mara(await house.enters(KNOWN), house.mara)


async def test_unknown_accounts_are_besieged_just_the_same(house: House) -> None:
    """Waiting tells nobody whether an account exists."""
    seen: dict[str, list[str]] = {}
    for username in ("mara", "nobody"):
        answers = []
        for number in range(60):
            before = house.sessions.drafted().visitor.session
            place = Place(network(number + 100 * len(seen)))
            try:
                await house.door.by_password(before, username, "a wrong password", place)
            except (SignInRefused, TooManyAttempts) as refused:
                answers.append(repr(refused))
        seen[username] = answers
    assert seen["mara"] == seen["nobody"]
    assert any("TooMany" in answer for answer in seen["mara"])


# --- guessing codes ------------------------------------------------------------------------------


async def guess_codes(house: House, times: int) -> list[str]:
    kinds = []
    for number in range(times):
        place = Place(network(number))
        pending = (await house.enters(place)).visitor.session
        try:
            await house.door.by_code(pending, "000000", place)
        except (WrongCode, TooManyAttempts) as refused:
            kinds.append(type(refused).__name__)
    return kinds


async def test_codes_cannot_be_guessed_and_the_owner_is_told(house: House) -> None:
    """Somebody has the password: twenty guesses a day in all, from however many networks."""
    await house.app()
    kinds = await guess_codes(house, 30)
    assert kinds == ["WrongCode"] * 20 + ["TooManyAttempts"] * 10
    assert await house.told() == ["security-codes-guessed"]  # once a day
    house.clock.advance(86_400)
    await guess_codes(house, 25)
    assert await house.told() == ["security-codes-guessed"] * 2


async def test_guesses_of_codes_do_not_lock_the_owner_out(house: House) -> None:
    app = await house.app()
    codes = await house.recovery_codes()
    await guess_codes(house, 30)
    pending = (await house.enters(KNOWN)).visitor.session
    opened, _ = await house.door.by_code(pending, app.code, KNOWN)
    assert is_mara(opened, house.mara)
    stranger = Place("203.0.113.200")
    pending = (await house.enters(stranger)).visitor.session
    opened, _ = await house.door.by_code(pending, codes[0], stranger)
    assert is_mara(opened, house.mara)


# --- confirming ----------------------------------------------------------------------------------


async def test_confirming_makes_a_session_fresh_under_a_new_cookie(house: House) -> None:
    opened = await house.signed_in()
    house.clock.advance(1000)
    confirmed, write = await house.door.confirm(opened.visitor, PASSWORD, "", HOME)
    await house.store.transact(write)
    visitor = await house.find(confirmed)
    assert visitor is not None
    assert visitor.auth_time == house.clock()
    assert visitor.session.created == opened.visitor.session.created
    assert await house.find(opened) is None


async def test_confirming_takes_the_second_factor_too(house: House) -> None:
    opened = await house.signed_in()
    app = await house.app()
    for password, code in ((PASSWORD, ""), (PASSWORD, "000000"), ("wrong password", app.code)):
        with pytest.raises((SignInRefused, WrongCode)):
            await house.door.confirm(opened.visitor, password, code, HOME)
    confirmed, write = await house.door.confirm(opened.visitor, PASSWORD, app.code, HOME)
    await house.store.transact(write)
    assert confirmed.visitor.session.second_factor_at == house.clock()


async def test_an_unattended_browser_is_no_place_to_guess(house: House) -> None:
    opened = await house.signed_in()
    for _ in range(10):
        with pytest.raises(SignInRefused):
            await house.door.confirm(opened.visitor, "a wrong password", "", HOME)
    with pytest.raises(TooManyAttempts):
        await house.door.confirm(opened.visitor, PASSWORD, "", HOME)
    assert is_mara(await house.enters(HOME), house.mara)  # and nobody else is locked out by it


async def test_a_session_that_was_ended_meanwhile_is_not_confirmed(house: House) -> None:
    opened = await house.signed_in()
    confirmed, write = await house.door.confirm(opened.visitor, PASSWORD, "", HOME)
    await house.sessions.end(house.mara.key, opened.visitor.session.key)
    with pytest.raises(SignedOutMeanwhile):
        await house.store.transact(write)
    assert await house.find(confirmed) is None


# --- codes, and browsers that are known --------------------------------------------------------


async def guesses_as_known(house: House, times: int) -> list[type]:
    """Wrong codes from as many known browsers as it takes."""
    kinds: list[type] = []
    for number in range(times):
        place = Place("192.0.2.1", known=f"browser-{number // 9}")
        pending = (await house.enters(place)).visitor.session
        try:
            await house.door.by_code(pending, "000000", place)
        except (WrongCode, TooManyAttempts) as error:
            kinds.append(type(error))
    return kinds


async def test_known_browsers_guess_codes_so_often_and_no_more(house: House) -> None:
    """However many of them somebody has: it is one account whose codes they guess."""
    app = await house.app()
    kinds = await guesses_as_known(house, 50)
    assert (kinds.count(WrongCode), kinds.count(TooManyAttempts)) == (40, 10)
    pending = (await house.enters()).visitor.session  # and strangers have used up nothing
    opened, _ = await house.door.by_code(pending, app.code, HOME)
    assert is_mara(opened, house.mara)


async def test_sessions_guess_codes_so_often_and_no_more(house: House) -> None:
    sessions = [await house.signed_in() for _ in range(6)]
    app = await house.app()
    kinds: list[type] = []
    for opened in sessions:
        for _ in range(9):
            try:
                await house.door.confirm(opened.visitor, PASSWORD, "000000", HOME)
            except (WrongCode, TooManyAttempts) as error:
                kinds.append(type(error))
    assert (kinds.count(WrongCode), kinds.count(TooManyAttempts)) == (40, 14)
    assert app.code


@pytest.mark.parametrize("place", [HOME, KNOWN], ids=["stranger", "known browser"])
async def test_who_guesses_slowly_is_reported_too(house: House, place: Place) -> None:
    """Five in a day, however far apart; once a day."""
    await house.app()
    for told in (["security-codes-guessed"], ["security-codes-guessed"] * 2):
        for number in range(8):
            pending = (await house.enters(place)).visitor.session
            with pytest.raises(WrongCode):
                await house.door.by_code(pending, "000000", place)
            assert len(await house.told()) == len(told) - (number < 4)
            house.clock.advance(600)
        assert await house.told() == told
        house.clock.advance(86_400)


async def test_who_is_kept_waiting_for_a_code_is_let_in_no_later(house: House) -> None:
    """The time to give a code ends while the form that brings it is held back."""
    app = await house.app()
    pending = await house.enters()
    house.clock.advance(600)
    with pytest.raises(SignedOutMeanwhile):
        await house.door.by_code(pending.visitor.session, app.code, HOME)
