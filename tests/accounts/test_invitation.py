"""Invitations: one live for a person, secrets of the latest attempt only, five tries, used once."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fhir_portal.accounts import invitation as room
from fhir_portal.accounts.invitation import (
    CODE_PREFIX,
    LIFETIME,
    LINK_PREFIX,
    MOST_ATTEMPTS,
    TRIES,
    AlreadyInvited,
    Invitation,
    InvitationSecret,
    InvitationSecrets,
    NotUsable,
    code_maker,
    link_maker,
    read_code,
)
from fhir_portal.notify.content import MadeBy
from fhir_portal.records import drop_expired
from tests.accounts.house import House

SECRETS = InvitationSecrets(b"i" * 32)


def an_invitation(house: House, task: str = "t1", invitee: str = "ada", **more: Any) -> Invitation:
    return msgspec.structs.replace(
        Invitation(
            key=f"derm/Task/{task}",
            practice="derm",
            invitee=f"derm/Patient/{invitee}",
            patients=(f"Patient/{invitee}",),
            persons=(f"Patient/{invitee}",),
            relation="self",
            channel="mail",
            to="ada@mail.example",
            created=house.clock(),
            ends=house.clock() + LIFETIME,
        ),
        **more,
    )


async def do(house: House, work: Callable[..., Awaitable[Any]], *args: Any, **more: Any) -> Any:
    async def change(transaction: Any) -> Any:
        return await work(transaction, *args, **more)

    return await house.store.transact(change)


async def issued(house: House, **more: Any) -> Invitation:
    found: Invitation = await do(house, room.issue, SECRETS, an_invitation(house, **more))
    return found


async def test_link_code_and_portal_id_lead_to_it_and_looking_uses_nothing_up(house: House) -> None:
    invitation = await issued(house)
    secrets = SECRETS.of(invitation)
    for _ in range(3):
        assert await SECRETS.by_link(house.store, secrets.link) == invitation
        typed = secrets.code.replace("-", " ").lower()
        assert await SECRETS.by_code(house.store, typed) == invitation
        assert await SECRETS.by_portal_id(house.store, "derm", secrets.portal_id) == invitation
    assert await SECRETS.by_portal_id(house.store, "family", secrets.portal_id) is None
    assert SECRETS.is_word(invitation, f" {secrets.word.upper()} ")
    assert not SECRETS.is_word(invitation, "")
    assert not SECRETS.is_code(invitation, "")


async def test_the_store_holds_none_of_its_secrets(house: House) -> None:
    invitation = await issued(house)
    secrets = SECRETS.of(invitation)
    kept = [invitation, *await house.store.every(InvitationSecret)]
    text = b"".join(msgspec.json.encode(one) for one in kept)
    code = read_code(secrets.code) or "?"
    for secret in (secrets.link, secrets.code, code, secrets.portal_id, secrets.word):
        assert secret.encode() not in text


async def test_a_person_has_one_live_invitation(house: House) -> None:
    first = await issued(house)
    with pytest.raises(AlreadyInvited) as refused:
        await issued(house, task="t2")
    assert refused.value.key == first.key
    await issued(house, task="t3", invitee="bo")
    house.clock.now += LIFETIME
    second = await issued(house, task="t2")
    assert (await room.invitations_of(house.store, first.invitee))[0].key == second.key
    expired = await house.store.get(Invitation, first.key)
    assert expired is not None
    assert expired.state == "expired"


async def test_of_two_who_invite_at_once_one_does(house: House) -> None:
    async def invite(task: str) -> str:
        try:
            await issued(house, task=task)
        except AlreadyInvited:
            return "already"
        return "invited"

    outcomes = await asyncio.gather(*(invite(f"t{number}") for number in range(10)))
    assert Counter(outcomes) == {"invited": 1, "already": 9}


async def test_another_attempt_makes_the_one_before_void_and_tries_begin_anew(house: House) -> None:
    first = await issued(house)
    before = SECRETS.of(first)
    for _ in range(TRIES):
        await do(house, room.count_try, first.key, attempt=first.attempt)
    now = house.clock() + 10
    locked = await house.store.get(Invitation, first.key)
    assert locked is not None
    assert locked.is_locked
    again = await do(
        house,
        room.issue_again,
        SECRETS,
        locked,
        ends=now + LIFETIME,
        channel="sms",
        to="+13125550142",
        now=now,
    )
    assert await SECRETS.by_link(house.store, before.link) is None
    assert await SECRETS.by_code(house.store, before.code) is None
    assert await SECRETS.by_portal_id(house.store, "derm", before.portal_id) is None
    assert await SECRETS.by_link(house.store, SECRETS.of(again).link) == again
    assert again.is_usable(now)
    with pytest.raises(NotUsable):
        await do(house, room.count_try, first.key, attempt=first.attempt)


async def test_one_that_is_issued_again_is_no_longer_going_to_be_dropped(house: House) -> None:
    first = await issued(house)
    over = await do(house, room.end, SECRETS, first, "expired", now=house.clock())
    assert over.expires is not None
    now = over.expires - 1
    again = await do(
        house,
        room.issue_again,
        SECRETS,
        over,
        ends=now + LIFETIME,
        channel="mail",
        to="ada@mail.example",
        now=now,
    )
    await drop_expired(house.store, now + 2)
    assert await SECRETS.by_link(house.store, SECRETS.of(again).link) == again


async def test_there_is_an_end_to_attempts(house: House) -> None:
    invitation = await issued(house, attempt=MOST_ATTEMPTS)
    with pytest.raises(NotUsable):
        await do(
            house,
            room.issue_again,
            SECRETS,
            invitation,
            ends=house.clock() + LIFETIME,
            channel="mail",
            to="",
            now=house.clock(),
        )


async def test_tries_at_once_are_counted_before_they_are_looked_at(house: House) -> None:
    invitation = await issued(house)

    async def attempt() -> str:
        try:
            await do(house, room.count_try, invitation.key, attempt=1)
        except NotUsable:
            return "none left"
        return "counted"

    outcomes = Counter(await asyncio.gather(*(attempt() for _ in range(50))))
    assert outcomes == {"counted": TRIES, "none left": 50 - TRIES}
    await do(house, room.take_back_try, invitation.key, attempt=1)
    assert await attempt() == "counted"


async def test_of_many_who_redeem_at_once_one_does(house: House) -> None:
    invitation = await issued(house)

    async def redeem(account: str) -> str:
        try:
            await do(
                house,
                room.end,
                SECRETS,
                invitation,
                "redeemed",
                now=house.clock(),
                account=account,
            )
        except NotUsable:
            return "over"
        return "redeemed"

    outcomes = Counter(await asyncio.gather(*(redeem(f"a{number}") for number in range(20))))
    assert outcomes == {"redeemed": 1, "over": 19}
    assert await SECRETS.by_link(house.store, SECRETS.of(invitation).link) is None


@pytest.mark.parametrize("state", ["revoked", "expired", "redeemed"])
async def test_what_is_over_cannot_be_redeemed_and_leads_nowhere(house: House, state: Any) -> None:
    invitation = await issued(house)
    await do(house, room.end, SECRETS, invitation, state, now=house.clock())
    assert await SECRETS.by_code(house.store, SECRETS.of(invitation).code) is None
    with pytest.raises(NotUsable):
        await do(house, room.end, SECRETS, invitation, "redeemed", now=house.clock(), account="a")
    await issued(house, task="t2")


async def test_a_late_or_locked_one_is_not_redeemed(house: House) -> None:
    invitation = await issued(house)
    with pytest.raises(NotUsable):
        await do(house, room.end, SECRETS, invitation, "redeemed", now=invitation.ends, account="a")
    for _ in range(TRIES):
        await do(house, room.count_try, invitation.key, attempt=1)
    with pytest.raises(NotUsable):
        await do(house, room.end, SECRETS, invitation, "redeemed", now=house.clock(), account="a")


async def test_how_far_it_has_come_only_goes_on(house: House) -> None:
    invitation = await issued(house)
    now = house.clock()
    assert (await do(house, room.advance, invitation.key, "opened", attempt=1, now=now)) is not None
    assert await do(house, room.advance, invitation.key, "sent", attempt=1, now=now) is None
    assert await do(house, room.advance, invitation.key, "sent", attempt=2, now=now) is None


async def test_a_message_holds_the_link_or_the_code_and_never_both(house: House) -> None:
    invitation = await issued(house)
    content = MadeBy(
        {
            LINK_PREFIX: link_maker(SECRETS, "https://portal.example", house.clock),
            CODE_PREFIX: code_maker(SECRETS, house.clock),
        }
    )
    link = await content(house.store, LINK_PREFIX + invitation.key, 1)
    code = await content(house.store, CODE_PREFIX + invitation.key, 1)
    secrets = SECRETS.of(invitation)
    until = "Wednesday, March 20, 2030, 5:46 PM (UTC)"
    assert link == {"link": f"https://portal.example/activate/{secrets.link}", "until": until}
    assert code == {"code": secrets.code, "until": until}
    assert await content(house.store, LINK_PREFIX + invitation.key, 2) is None
    house.clock.now = invitation.ends
    assert await content(house.store, LINK_PREFIX + invitation.key, 1) is None


@pytest.mark.parametrize("number", range(20))
def test_a_code_with_one_wrong_sign_or_two_in_each_others_place_is_seen_as_mistyped(
    number: int,
) -> None:
    code = read_code(SECRETS.of_attempt(f"derm/Task/{number}", 1).code) or ""
    assert len(code) == 12
    for at in range(12):
        for sign in "23456789ABCDEFGHJKMNPQRSTVWXYZ":
            if sign != code[at]:
                assert read_code(code[:at] + sign + code[at + 1 :]) is None
        one, other = code[at], code[at + 1 : at + 2]
        if other and one != other and {one, other} != {"2", "Z"}:
            assert read_code(code[:at] + other + one + code[at + 2 :]) is None


@given(st.text(max_size=100))
def test_whatever_is_typed_for_a_code_is_read_or_not(typed: str) -> None:
    found = read_code(typed)
    assert found is None or len(found) == 12
