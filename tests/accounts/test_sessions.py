from __future__ import annotations

import hashlib
import random
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from fhir_portal.accounts.account import Account, add_account
from fhir_portal.accounts.proof import PASSWORD
from fhir_portal.accounts.sessions import (
    LatestSignIn,
    Session,
    SessionLimits,
    Sessions,
    SignedOutMeanwhile,
    end_sessions,
)
from fhir_portal.embedded.store import EmbeddedStore
from fhir_portal.records import RecordTransaction
from fhir_portal.smart.revocation import disable_account
from tests.smart.world import Clock


class Rooms:
    def __init__(self) -> None:
        self.clock = Clock()
        self.store = EmbeddedStore.open(":memory:", clock=self.clock)
        self.sessions = Sessions(
            self.store,
            clock=self.clock,
            random=random.Random(3).randbytes,
            limits=SessionLimits(idle=1800, absolute=7200, anonymous=3600),
        )
        self.account: Account

    async def signed_in(self) -> str:
        opened = await self.sessions.open()
        return (await self.sessions.sign_in(opened.visitor.session, self.account)).cookie


@pytest.fixture
async def rooms() -> AsyncIterator[Rooms]:
    rooms = Rooms()
    rooms.account = await add_account(
        rooms.store, username="mara", password_hash=None, now=0.0, random=lambda n: b"r" * n
    )
    yield rooms
    rooms.store.close()


async def test_signing_in_changes_the_cookie_and_kills_the_old_one(rooms: Rooms) -> None:
    before = await rooms.sessions.open()
    after = await rooms.sessions.sign_in(before.visitor.session, rooms.account)
    assert after.cookie != before.cookie
    assert await rooms.sessions.find(before.cookie) is None
    found = await rooms.sessions.find(after.cookie)
    assert found is not None
    assert found.account == rooms.account
    assert found.browser == before.visitor.browser
    assert found.auth_time == rooms.clock()


async def test_the_latest_sign_in_is_kept_when_the_session_is_gone(rooms: Rooms) -> None:
    await rooms.signed_in()
    rooms.clock.advance(60)
    cookie = await rooms.signed_in()
    found = await rooms.sessions.find(cookie)
    assert found is not None
    await rooms.sessions.sign_out(found.session)
    latest = await rooms.store.get(LatestSignIn, rooms.account.key)
    assert latest is not None
    assert latest.at == rooms.clock()


async def test_the_cookie_is_not_at_rest(rooms: Rooms) -> None:
    cookie = await rooms.signed_in()
    assert cookie not in str(await rooms.store.every(Session))


async def test_an_idle_session_ends(rooms: Rooms) -> None:
    cookie = await rooms.signed_in()
    rooms.clock.advance(1800)
    assert await rooms.sessions.find(cookie) is None


async def test_a_used_session_stays_until_the_absolute_limit(rooms: Rooms) -> None:
    cookie = await rooms.signed_in()
    for _ in range(7):
        rooms.clock.advance(1000)
        assert await rooms.sessions.find(cookie) is not None
    rooms.clock.advance(200)
    assert await rooms.sessions.find(cookie) is None


async def test_a_session_before_sign_in_ends_too(rooms: Rooms) -> None:
    opened = await rooms.sessions.open()
    rooms.clock.advance(3600)
    assert await rooms.sessions.find(opened.cookie) is None


async def test_signing_out_ends_the_session(rooms: Rooms) -> None:
    cookie = await rooms.signed_in()
    visitor = await rooms.sessions.find(cookie)
    assert visitor is not None
    await rooms.sessions.sign_out(visitor.session)
    assert await rooms.sessions.find(cookie) is None


async def test_a_disabled_account_loses_its_sessions(rooms: Rooms) -> None:
    cookies = [await rooms.signed_in() for _ in range(3)]
    await disable_account(rooms.store, rooms.account.key, now=rooms.clock())
    assert [await rooms.sessions.find(cookie) for cookie in cookies] == [None] * 3
    assert await rooms.store.every(Session) == []


async def test_all_sessions_of_an_account_can_be_ended(rooms: Rooms) -> None:
    cookies = [await rooms.signed_in() for _ in range(2)]

    async def end(transaction: RecordTransaction) -> int:
        return await end_sessions(transaction, rooms.account.key)

    assert await rooms.store.transact(end) == 2
    assert [await rooms.sessions.find(cookie) for cookie in cookies] == [None] * 2


@pytest.mark.parametrize("cookie", ["", "unknown", "é", "x" * 5000])
async def test_an_unknown_cookie_is_no_session(rooms: Rooms, cookie: str) -> None:
    assert await rooms.sessions.find(cookie) is None


@pytest.mark.parametrize("change", [{"disabled": True}, {"password_hash": "another"}])
async def test_who_is_shut_out_while_signing_in_gets_no_session(
    rooms: Rooms, change: dict[str, Any]
) -> None:
    """The password was right; what happens before the session is stored counts all the same."""
    opened = await rooms.sessions.open()
    changed = msgspec.structs.replace(rooms.account, **change)

    async def put(transaction: RecordTransaction) -> None:
        await transaction.put(changed)

    await rooms.store.transact(put)
    with pytest.raises(SignedOutMeanwhile):
        await rooms.sessions.sign_in(opened.visitor.session, rooms.account)
    assert await rooms.store.find(Session, "account", rooms.account.key) == []


async def test_a_drafted_session_is_not_stored_until_something_is_bound_to_it(rooms: Rooms) -> None:
    drafted = rooms.sessions.drafted()
    assert await rooms.sessions.find(drafted.cookie) is None
    again = rooms.sessions.drafted(drafted.cookie)
    assert again.visitor.session.key == drafted.visitor.session.key
    await rooms.sessions.keep(drafted)
    assert await rooms.sessions.find(drafted.cookie) == drafted.visitor


async def test_sessions_of_a_person_are_listed_the_last_used_first(rooms: Rooms) -> None:
    first, second = await rooms.signed_in(), await rooms.signed_in()
    rooms.clock.advance(100)
    assert await rooms.sessions.find(first) is not None
    await rooms.sessions.open()  # of nobody
    listed = await rooms.sessions.of(rooms.account.key)
    assert [session.key for session in listed] == [key_of(first), key_of(second)]
    rooms.clock.advance(1750)
    assert [session.key for session in await rooms.sessions.of(rooms.account.key)] == [
        key_of(first)
    ]


async def test_one_session_can_be_ended_by_its_account_alone(rooms: Rooms) -> None:
    cookie, other = await rooms.signed_in(), await rooms.signed_in()
    assert not await rooms.sessions.end("somebody-else", key_of(cookie))
    assert not await rooms.sessions.end(rooms.account.key, "unknown")
    assert await rooms.sessions.find(cookie) is not None
    assert await rooms.sessions.end(rooms.account.key, key_of(cookie))
    assert await rooms.sessions.find(cookie) is None
    assert await rooms.sessions.find(other) is not None


async def test_all_others_can_be_ended(rooms: Rooms) -> None:
    cookies = [await rooms.signed_in() for _ in range(4)]
    pending = await rooms.sessions.await_second_factor(
        (await rooms.sessions.open()).visitor.session, rooms.account
    )
    visitor = await rooms.sessions.find(cookies[0])
    assert visitor is not None
    assert await rooms.sessions.end_others(visitor.session) == 4
    found = [await rooms.sessions.find(cookie) for cookie in cookies]
    assert [one is not None for one in found] == [True, False, False, False]
    assert await rooms.sessions.find(pending.cookie) is None


async def test_ending_the_sessions_of_nobody_ends_none(rooms: Rooms) -> None:
    await rooms.signed_in()
    anonymous = await rooms.sessions.open()
    assert await rooms.sessions.end_others(anonymous.visitor.session) == 0
    assert len(await rooms.store.every(Session)) == 2


async def test_an_ended_session_is_not_brought_back_by_its_use(rooms: Rooms) -> None:
    """Looked at before it was ended, touched after."""
    cookie = await rooms.signed_in()
    rooms.clock.advance(100)
    stored = await rooms.store.get(Session, key_of(cookie))
    assert stored is not None
    await rooms.sessions.end(rooms.account.key, key_of(cookie))
    await rooms.sessions._touched(stored, rooms.clock())  # noqa: SLF001 - the second half of `find`
    assert await rooms.sessions.find(cookie) is None


async def test_confirming_does_not_move_the_absolute_limit(rooms: Rooms) -> None:
    opened = await rooms.sessions.open()
    opened = await rooms.sessions.sign_in(opened.visitor.session, rooms.account)
    for _ in range(4):
        rooms.clock.advance(1700)
        opened, write = rooms.sessions.confirmed(opened.visitor, [PASSWORD])
        await rooms.store.transact(write)
    assert await rooms.sessions.find(opened.cookie) is not None
    rooms.clock.advance(400)
    assert await rooms.sessions.find(opened.cookie) is None


async def test_of_two_who_confirm_one_session_at_once_one_goes_on(rooms: Rooms) -> None:
    opened = await rooms.sessions.open()
    opened = await rooms.sessions.sign_in(opened.visitor.session, rooms.account)
    one, write_one = rooms.sessions.confirmed(opened.visitor, [PASSWORD])
    other, write_other = rooms.sessions.confirmed(opened.visitor, [PASSWORD])
    await rooms.store.transact(write_one)
    with pytest.raises(SignedOutMeanwhile):
        await rooms.store.transact(write_other)
    assert await rooms.sessions.find(one.cookie) is not None
    assert await rooms.sessions.find(other.cookie) is None


async def test_nobody_is_confirmed(rooms: Rooms) -> None:
    anonymous = await rooms.sessions.open()
    with pytest.raises(SignedOutMeanwhile):
        rooms.sessions.confirmed(anonymous.visitor, [PASSWORD])


def key_of(cookie: str) -> str:
    return hashlib.sha256(cookie.encode()).hexdigest()


async def test_an_account_has_so_many_sessions_and_no_more(
    rooms: Rooms, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one that was not used for longest makes room."""
    monkeypatch.setattr("fhir_portal.accounts.sessions.MOST", 3)
    first, *others = [await rooms.signed_in() for _ in range(3)]
    rooms.clock.advance(61)
    assert await rooms.sessions.find(first) is not None  # used again
    newest = await rooms.signed_in()
    alive = [await rooms.sessions.find(one) is not None for one in (first, *others, newest)]
    assert alive.count(True) == 3
    assert (alive[0], alive[-1]) == (True, True)
