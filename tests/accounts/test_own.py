"""What people change about their own sign-in, and what each change ends."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from fhir_portal.accounts.account import Account
from fhir_portal.accounts.credentials import Passwords, SignInRefused, UnacceptablePassword
from fhir_portal.accounts.own import LastWayIn
from fhir_portal.accounts.passkeys import Passkey
from fhir_portal.accounts.practice import Practice
from fhir_portal.accounts.proof import Spent
from fhir_portal.accounts.sessions import Opened, SignedOutMeanwhile, Visitor
from fhir_portal.accounts.throttle import TooManyAttempts
from fhir_portal.accounts.totp import WrongCode
from fhir_portal.notify.outbox import OutboxMessage
from fhir_portal.smart.revocation import disable_account
from tests.accounts.authenticator import SITE, Authenticator
from tests.accounts.house import HOME, App, House
from tests.smart.world import PASSWORD

NEW = "seven quiet otters"


async def change(house: House, opened: Opened, current: str = PASSWORD, new: str = NEW) -> Opened:
    return await house.own.change_password(opened.visitor, current, new, HOME)


async def offered(house: House, opened: Opened) -> App:
    return App(house, (await house.own.offer_app(opened.visitor)).secret)


# --- password ------------------------------------------------------------------------------------


async def test_the_new_password_opens_and_the_old_one_does_not(house: House) -> None:
    await change(house, await house.signed_in())
    assert (await house.enters(password=NEW)).visitor.account is not None
    with pytest.raises(SignInRefused):
        await house.enters(password=PASSWORD)
    assert await house.told() == ["security-password-changed"]


async def test_everything_the_old_password_opened_ends(house: House) -> None:
    """Other sessions, those that wait for a code, and remembered browsers; not this one."""
    others = [await house.signed_in() for _ in range(3)]
    await house.app()
    waiting = await house.enters()
    token, keep = house.door.devices.remember(house.mara.key, "")
    await house.store.transact(keep)
    jon = await house.account("jon")
    his = await house.signed_in(jon)
    mine = await house.signed_in()
    opened = await change(house, mine)
    assert [await house.find(one) for one in (*others, waiting, mine)] == [None] * 5
    assert await house.door.devices.prove(house.mara.key, token) is None
    visitor = await house.find(opened)
    assert visitor is not None
    assert visitor.account is not None
    assert visitor.account.key == house.mara.key
    assert await house.find(his) is not None


@pytest.mark.parametrize(
    ("new", "words"),
    [
        ("short", "12 to 128"),
        ("x" * 129, "12 to 128"),
        ("password1234", "lists"),
        ("mara mara mara", "little more than your user name"),
        ("Marrowbrook 2026", "the name of this place"),
        (PASSWORD, "the password you have now"),
    ],
)
async def test_a_password_that_is_not_taken_changes_nothing(
    house: House, new: str, words: str
) -> None:
    await house.change(lambda t: t.put(Practice(key="mb", name="Marrowbrook Family Medicine")))
    known = msgspec.structs.replace(house.mara, persons=("mb/Person/mara", "gone/Person/m"))
    await house.change(lambda t: t.put(known))
    other, mine = await house.signed_in(known), await house.signed_in(known)
    with pytest.raises(UnacceptablePassword, match=words):
        await change(house, mine, new=new)
    assert await house.find(other) is not None
    assert await house.find(mine) is not None
    assert await house.told() == []


async def test_the_current_password_is_asked(house: House) -> None:
    opened = await house.signed_in()
    for current in ("", "wrong password", NEW):
        with pytest.raises(SignInRefused):
            await change(house, opened, current)
    assert await house.find(opened) is not None


async def test_it_cannot_be_guessed_in_a_session(house: House) -> None:
    opened = await house.signed_in()
    for _ in range(10):
        with pytest.raises(SignInRefused):
            await change(house, opened, "wrong password")
    with pytest.raises(TooManyAttempts):
        await change(house, opened)


async def test_of_two_changes_at_once_one_is_made(house: House) -> None:
    sessions = [await house.signed_in() for _ in range(2)]
    made = await asyncio.gather(
        *(change(house, one, new=f"{NEW} {n}") for n, one in enumerate(sessions)),
        return_exceptions=True,
    )
    assert sorted(type(one).__name__ for one in made) == ["Opened", "SignedOutMeanwhile"]
    assert await house.told() == ["security-password-changed"]
    assert len(await house.sessions.of(house.mara.key)) == 1


async def test_what_others_change_meanwhile_is_not_undone(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A practice links the person while the new password is hashed."""
    opened = await house.signed_in()
    linked = msgspec.structs.replace(house.mara, persons=("mb/Person/mara",))
    hashing = Passwords.hash

    async def slow(self: Passwords, *args: Any, **named: Any) -> str:
        await house.change(lambda t: t.put(linked))
        return await hashing(self, *args, **named)

    monkeypatch.setattr(Passwords, "hash", slow)
    with pytest.raises(SignedOutMeanwhile):
        await change(house, opened)
    assert await house.store.get(Account, house.mara.key) == linked


async def test_a_session_ended_meanwhile_changes_nothing(house: House) -> None:
    opened = await house.signed_in()
    await house.sessions.end(house.mara.key, opened.visitor.session.key)
    with pytest.raises(SignedOutMeanwhile):
        await change(house, opened)
    assert await house.store.get(Account, house.mara.key) == house.mara
    assert await house.told() == []


async def test_who_is_shut_out_changes_nothing(house: House) -> None:
    opened = await house.signed_in()
    await disable_account(house.store, house.mara.key, now=house.clock())
    with pytest.raises(SignInRefused):
        await change(house, opened)


async def test_nobody_changes_nothing(house: House) -> None:
    anonymous = await house.sessions.open()
    visitor: Visitor = anonymous.visitor
    own: Any = house.own
    for action in (
        own.change_password(visitor, PASSWORD, NEW, HOME),
        own.offer_app(visitor),
        own.add_app(visitor, "000000"),
        own.remove_app(visitor),
        own.new_codes(visitor),
        own.add_passkey(visitor, "{}", "Key"),
        own.remove_passkey(visitor, "key"),
    ):
        with pytest.raises(SignedOutMeanwhile):
            await action


# --- authenticator app ---------------------------------------------------------------------------


async def test_an_app_comes_with_recovery_codes(house: House) -> None:
    opened = await house.signed_in()
    app = await offered(house, opened)
    after, codes = await house.own.add_app(opened.visitor, app.code)
    assert len(codes) == 10
    assert await house.told() == ["security-totp-added"]
    visitor = await house.find(after)
    assert visitor is not None
    assert visitor.session.second_factor_at == house.clock()
    assert await house.find(opened) is None  # the cookie is another
    house.clock.advance(30)
    for code in (app.code, codes[0]):
        pending = (await house.enters()).visitor.session
        entered, _ = await house.door.by_code(pending, code, HOME)
        assert entered.visitor.account is not None


async def test_a_second_app_takes_the_place_of_the_first_and_leaves_the_codes(
    house: House,
) -> None:
    first = await house.app()
    codes = await house.recovery_codes()
    token, keep = house.door.devices.remember(house.mara.key, "")
    await house.store.transact(keep)
    opened = await house.signed_in()
    second = await offered(house, opened)
    _, made = await house.own.add_app(opened.visitor, second.code)
    assert made == []
    assert await house.door.devices.prove(house.mara.key, token) is None
    house.clock.advance(30)
    pending = (await house.enters()).visitor.session
    with pytest.raises(WrongCode):
        await house.door.by_code(pending, first.code, HOME)
    assert await house.door.by_code(pending, codes[0], HOME)


async def test_a_wrong_code_adds_no_app(house: House) -> None:
    opened = await house.signed_in()
    await house.own.offer_app(opened.visitor)
    with pytest.raises(WrongCode):
        await house.own.add_app(opened.visitor, "000000")
    assert (await house.enters()).visitor.account is not None
    assert await house.told() == []


async def test_removing_the_app_is_told_and_forgets_browsers(house: House) -> None:
    await house.app()
    token, keep = house.door.devices.remember(house.mara.key, "")
    await house.store.transact(keep)
    opened = await house.signed_in()
    await house.own.remove_app(opened.visitor)
    assert await house.told() == ["security-totp-removed"]
    assert await house.door.devices.prove(house.mara.key, token) is None
    assert (await house.enters()).visitor.account is not None
    with pytest.raises(Spent):
        await house.own.remove_app(opened.visitor)
    assert await house.told() == ["security-totp-removed"]


# --- recovery codes and passkeys -----------------------------------------------------------------


async def test_new_codes_are_told(house: House) -> None:
    opened = await house.signed_in()
    assert len(await house.own.new_codes(opened.visitor)) == 10
    assert await house.told() == ["security-recovery-codes-made"]


async def test_passkeys_come_and_go_with_a_notice(house: House) -> None:
    opened = await house.signed_in()
    authenticator = Authenticator()
    options = await house.door.passkeys.begin_adding(opened.visitor.session, house.mara, SITE)
    await house.own.add_passkey(opened.visitor, authenticator.make(options), " My \n key ")
    (passkey,) = await house.door.passkeys.of(house.mara.key)
    assert passkey.name == "My key"
    await house.own.remove_passkey(opened.visitor, passkey.key)
    assert await house.store.every(Passkey) == []
    assert await house.told() == ["security-passkey-added", "security-passkey-removed"]


async def test_a_passkey_is_removed_by_its_owner_alone(house: House) -> None:
    await Authenticator.of(house)
    (passkey,) = await house.door.passkeys.of(house.mara.key)
    jon = await house.account("jon")
    his = await house.signed_in(jon)
    with pytest.raises(Spent):
        await house.own.remove_passkey(his.visitor, passkey.key)
    assert await house.store.every(Passkey) == [passkey]


async def test_the_last_way_in_cannot_be_removed(house: House) -> None:
    jon = await house.account("jon", with_password=False)
    await Authenticator.of(house, jon)
    (passkey,) = await house.door.passkeys.of(jon.key)
    opened = await house.signed_in(jon)
    with pytest.raises(LastWayIn):
        await house.own.remove_passkey(opened.visitor, passkey.key)
    await Authenticator.of(house, jon, credential_id=b"another-of-sixteen")
    await house.own.remove_passkey(opened.visitor, passkey.key)
    assert len(await house.door.passkeys.of(jon.key)) == 1


# --- notices -------------------------------------------------------------------------------------


async def test_a_notice_names_the_account_and_holds_nothing_else(house: House) -> None:
    opened = await house.signed_in()
    await change(house, opened)
    (message,) = await house.store.every(OutboxMessage)
    assert message.to == f"account:{house.mara.key}"
    assert message.channel == "mail"
    assert message.values == {}
    assert message.link_for is None
    assert message.practice == ""


async def test_a_notice_belongs_to_the_persons_practice(house: House) -> None:
    known = msgspec.structs.replace(house.mara, persons=("mb/Person/mara",))
    await house.change(lambda t: t.put(known))
    opened = await house.signed_in(known)
    await change(house, opened)
    (message,) = await house.store.every(OutboxMessage)
    assert message.practice == "mb"


# --- what began before a session ended --------------------------------------------------------


async def ended(house: House, opened: Opened, how: str) -> None:
    session = opened.visitor.session
    if how == "signed out":
        await house.sessions.sign_out(session)
    elif how == "ended elsewhere":
        other = await house.signed_in()
        await house.sessions.end_others(other.visitor.session)
    elif how == "expired":
        house.clock.advance(1800)
    elif how == "shut out":
        shut = msgspec.structs.replace(house.mara, disabled=True)
        await house.change(lambda t: t.put(shut))
    else:
        changed = msgspec.structs.replace(house.mara, password_hash="another")
        await house.change(lambda t: t.put(changed))


@pytest.mark.parametrize(
    "how", ["signed out", "ended elsewhere", "expired", "shut out", "password changed"]
)
async def test_a_form_held_back_changes_nothing_once_its_session_is_over(
    house: House, how: str
) -> None:
    """The session was there when the request began; it counts when the change is written."""
    await house.app()
    codes = await house.recovery_codes()
    await Authenticator.of(house)
    (passkey,) = await house.door.passkeys.of(house.mara.key)
    held = await house.signed_in()
    session = held.visitor.session
    await ended(house, held, how)
    options = await house.door.passkeys.begin_adding(session, house.mara, SITE)
    answer = Authenticator(credential_id=b"a-strangers-key-").make(options)
    for action in (
        house.own.add_passkey(held.visitor, answer, "Key"),
        house.own.remove_passkey(held.visitor, passkey.key),
        house.own.remove_app(held.visitor),
        house.own.new_codes(held.visitor),
    ):
        with pytest.raises(SignedOutMeanwhile):
            await action
    assert await house.door.passkeys.of(house.mara.key) == [passkey]
    assert await house.door.second_factor.is_asked_of(house.mara.key)
    proof = await house.door.second_factor.codes.prove(house.mara.key, codes[0])
    assert proof.factor == "recovery-code"
    assert await house.told() == []


async def test_a_session_that_ran_out_is_not_confirmed(house: House) -> None:
    opened = await house.signed_in()
    house.clock.advance(1800)
    confirmed, write = await house.door.confirm(opened.visitor, PASSWORD, "", HOME)
    with pytest.raises(SignedOutMeanwhile):
        await house.store.transact(write)
    assert await house.find(confirmed) is None


async def test_recovery_codes_are_made_so_often_and_no_more(house: House) -> None:
    """Ten hashes each: nobody may keep the server busy with them."""
    opened = await house.signed_in()
    made = await asyncio.gather(
        *(house.own.new_codes(opened.visitor) for _ in range(8)), return_exceptions=True
    )
    kinds = [type(one) for one in made]
    assert (kinds.count(list), kinds.count(TooManyAttempts)) == (5, 3)
    jon = await house.account("jon")
    assert await house.own.new_codes((await house.signed_in(jon)).visitor)
    house.clock.advance(3600)
    assert await house.own.new_codes((await house.signed_in()).visitor)
