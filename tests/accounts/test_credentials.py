from __future__ import annotations

import asyncio
import os
import threading
import unicodedata
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from argon2 import PasswordHasher, extract_parameters

from fhir_portal.accounts import account, credentials
from fhir_portal.accounts.account import Account, add_account
from fhir_portal.accounts.credentials import (
    Passwords,
    SignIn,
    SignInRefused,
    UnacceptablePassword,
)
from fhir_portal.accounts.throttle import AttemptCount, Throttle, TooManyAttempts, network_of
from fhir_portal.embedded.store import EmbeddedStore
from fhir_portal.fhir.errors import Unavailable
from fhir_portal.smart.revocation import disable_account
from tests.builders import passwords
from tests.smart.world import PASSWORD, Clock, password_hash

MARKS = "a" + "\u0301" * 10_000 + "\u0327" * 10_000
"""Takes seconds to normalise: marks out of order are sorted."""


class Door:
    """A store with one account, and the sign-in in front of it."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.store = EmbeddedStore.open(":memory:", clock=self.clock)
        self.sign_in = SignIn(self.store, passwords(), Throttle(self.store, self.clock))
        self.account: Account

    async def __call__(
        self,
        username: str = "mara",
        password: str = PASSWORD,
        *,
        address: str = "192.0.2.1",
        device: str | None = None,
    ) -> Account:
        return await self.sign_in(username, password, address=address, device=device)

    async def fails(self, times: int, **how: Any) -> None:
        for _ in range(times):
            with pytest.raises(SignInRefused):
                await self(password="wrong", **how)


@pytest.fixture
async def door() -> AsyncIterator[Door]:
    door = Door()
    door.account = await add_account(
        door.store,
        username="mara",
        password_hash=password_hash(),
        now=door.clock(),
        random=lambda n: b"r" * n,
    )
    yield door
    door.store.close()


async def test_the_right_password_opens(door: Door) -> None:
    assert await door("Mara") == door.account


async def test_further_names_of_an_account_are_no_further_guesses(door: Door) -> None:
    """Over all names there is one limit, of which nobody is told; a known browser has its own."""
    sign_in = replace(door.sign_in, by_all_names="4 per hour")
    await door.store.transact(
        lambda transaction: account.add_alias(transaction, door.account.key, "m")
    )
    for number in range(4):
        with pytest.raises(SignInRefused):
            await sign_in("mara" if number % 2 else "m", "wrong", address="192.0.2.1")
    for name in ("mara", "m"):
        with pytest.raises(SignInRefused):
            await sign_in(name, PASSWORD, address="192.0.2.2")
    assert await sign_in("m", PASSWORD, address="192.0.2.1", device="known") == door.account
    for _ in range(5):  # the same for a name that is nobody's
        with pytest.raises(SignInRefused):
            await sign_in("nobody", "wrong", address="192.0.2.3")
    door.clock.advance(3600)
    assert await sign_in("m", PASSWORD, address="192.0.2.2") == door.account


async def test_passwords_are_compared_as_people_type_them(door: Door) -> None:
    hashed = await passwords().hash("Ångström cafe\u0301")
    assert await passwords().verify(hashed, "A\u030angström café")
    assert not await passwords().verify(hashed, "ångström café")
    assert door.account.password_hash not in (None, PASSWORD)


@pytest.mark.parametrize(
    ("username", "password"),
    [
        ("mara", "wrong"),
        ("mara", ""),
        ("nobody", PASSWORD),
        ("", ""),
        ("mara", "x" * 100_000),
        ("x" * 201, PASSWORD),
        ("mara" + "\u0301\u0327" * 100, PASSWORD),
        (MARKS, MARKS),
    ],
    ids=range(8),
)
async def test_every_failure_is_the_same(door: Door, username: str, password: str) -> None:
    with pytest.raises(SignInRefused) as refused:
        await door(username, password)
    assert str(refused.value) == ""


@pytest.mark.parametrize(("username", "password"), [(MARKS, PASSWORD), ("mara", MARKS)])
async def test_what_is_too_long_costs_a_hash_and_nothing_more(
    door: Door, monkeypatch: pytest.MonkeyPatch, username: str, password: str
) -> None:
    normalised, verified = [], []
    verify = Passwords._matches  # noqa: SLF001 - what is counted

    def measured(form: Any, text: str) -> str:
        normalised.append(len(text))
        return unicodedata.normalize(form, text)

    def counting(self: Passwords, stored: str, tried: str) -> bool:
        verified.append(stored)
        return verify(self, stored, tried)

    for module in (account, credentials):
        monkeypatch.setattr(module, "unicodedata", SimpleNamespace(normalize=measured))
    monkeypatch.setattr(Passwords, "_matches", counting)
    with pytest.raises(SignInRefused):
        await door(username, password)
    assert max(normalised) <= 256
    assert len(verified) == 1


async def test_a_password_too_long_to_be_taken_is_not_normalised() -> None:
    with pytest.raises(UnacceptablePassword):
        await passwords().hash("e\u0301" * 129)


async def test_a_disabled_account_fails_like_a_wrong_password(door: Door) -> None:
    await disable_account(door.store, door.account.key, now=door.clock())
    with pytest.raises(SignInRefused):
        await door()


async def test_an_account_without_a_password_cannot_be_signed_in_to(door: Door) -> None:
    await add_account(
        door.store, username="jon", password_hash=None, now=0.0, random=lambda n: b"j" * n
    )
    with pytest.raises(SignInRefused):
        await door("jon", "")


@pytest.fixture
def served(served_hasher: PasswordHasher, monkeypatch: pytest.MonkeyPatch) -> Iterator[Passwords]:
    """Passwords as a server has them."""
    monkeypatch.setattr(credentials, "HASHER", served_hasher)
    served = Passwords()
    yield served
    served.close()


async def test_unknown_users_cost_a_hash_too(
    door: Door, served: Passwords, monkeypatch: pytest.MonkeyPatch
) -> None:
    await add_account(
        door.store,
        username="noor",
        password_hash=await served.hash(PASSWORD),
        now=door.clock(),
        random=lambda n: b"n" * n,
    )
    door.sign_in = replace(door.sign_in, passwords=served)
    verified = []
    verify = Passwords._matches  # noqa: SLF001 - what is counted

    def counting(self: Passwords, stored: str, password: str) -> bool:
        verified.append(extract_parameters(stored))
        return verify(self, stored, password)

    monkeypatch.setattr(Passwords, "_matches", counting)
    for username in ("noor", "nobody"):
        with pytest.raises(SignInRefused):
            await door(username, "wrong")
    known, unknown = verified
    assert known == unknown
    assert (known.memory_cost, known.time_cost, known.parallelism) == (19 * 1024, 2, 1)


async def test_at_most_two_passwords_are_looked_at_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    busy, most = 0, 0
    lock = threading.Lock()
    passed = threading.Barrier(2)

    def slow(self: Passwords, stored: str, password: str) -> bool:  # noqa: ARG001
        nonlocal busy, most
        with lock:
            busy += 1
            most = max(most, busy)
        passed.wait(timeout=10)
        with lock:
            busy -= 1
        return False

    monkeypatch.setattr(Passwords, "_matches", slow)
    await asyncio.gather(*(passwords().verify(None, "x") for _ in range(6)))
    assert most == 2


async def test_an_outdated_hash_is_renewed_at_sign_in(door: Door) -> None:
    old = PasswordHasher(time_cost=1, memory_cost=16, parallelism=1).hash(PASSWORD)
    account = await add_account(
        door.store, username="jon", password_hash=old, now=0.0, random=lambda n: b"j" * n
    )
    await door("jon")
    renewed = await door.store.get(Account, account.key)
    assert renewed is not None
    assert renewed.password_hash != old
    assert renewed.password_hash
    assert not passwords().is_outdated(renewed.password_hash)
    assert await door("jon") == renewed


@pytest.mark.parametrize("password", ["", "short", "x" * 129, "Mara@Example.org"])
async def test_a_bad_password_is_not_taken(password: str) -> None:
    with pytest.raises(UnacceptablePassword):
        await passwords().hash(password, username="mara@example.org")


async def test_after_ten_failures_the_account_waits(door: Door) -> None:
    await door.fails(10)
    with pytest.raises(TooManyAttempts) as refused:
        await door()
    assert refused.value.retry_after == 900
    door.clock.advance(900)
    assert await door() == door.account


async def test_an_unknown_account_waits_just_the_same(door: Door) -> None:
    await door.fails(10, username="nobody")
    with pytest.raises(TooManyAttempts) as refused:
        await door("nobody")
    assert refused.value.retry_after == 900


async def test_successes_do_not_count(door: Door) -> None:
    for _ in range(15):
        await door()


async def test_strangers_failures_do_not_lock_out_a_known_browser(door: Door) -> None:
    await door.fails(10, address="203.0.113.9")
    assert await door(device="known-browser") == door.account


async def test_a_strangers_failures_do_not_lock_out_other_networks(door: Door) -> None:
    await door.fails(10, address="203.0.113.9")
    with pytest.raises(TooManyAttempts):
        await door(address="203.0.113.9")
    assert await door(address="192.0.2.1") == door.account


async def test_but_guesses_from_many_networks_have_an_end(door: Door) -> None:
    for network in range(5):
        await door.fails(10, address=f"203.0.113.{network}")
    with pytest.raises(TooManyAttempts) as refused:
        await door(address="192.0.2.1")
    assert refused.value.retry_after == 3600
    assert await door(address="192.0.2.1", device="known-browser") == door.account


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("2001:db8::1", "2001:db8::ffff:1", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("192.0.2.1", "::ffff:192.0.2.1", True),
        ("192.0.2.1", "192.0.2.2", False),
        ("fe80::1%eth0", "fe80::2%eth1", True),
        ("", "testclient", False),
    ],
)
def test_one_customers_addresses_are_one_network(one: str, other: str, *, same: bool) -> None:
    assert (network_of(one) == network_of(other)) is same


async def test_a_known_browser_cannot_guess_without_end(door: Door) -> None:
    await door.fails(10, device="known-browser")
    with pytest.raises(TooManyAttempts):
        await door(device="known-browser")


async def test_one_address_cannot_try_account_after_account(door: Door) -> None:
    for number in range(100):
        attempt = door.sign_in.throttle.attempt(f"u{number}", address="203.0.113.9", device=None)
        await attempt
    with pytest.raises(TooManyAttempts) as refused:
        await door(address="203.0.113.9")
    assert refused.value.retry_after == 3600
    assert await door(address="192.0.2.1") == door.account


async def test_refused_tries_do_not_lengthen_the_wait(door: Door) -> None:
    await door.fails(10)
    for _ in range(20):
        with pytest.raises(TooManyAttempts):
            await door()
    door.clock.advance(900)
    assert await door() == door.account


async def test_parallel_guesses_do_not_slip_past_the_limit(door: Door) -> None:
    tried = await asyncio.gather(
        *(door(password="wrong") for _ in range(30)), return_exceptions=True
    )
    kinds = [type(result) for result in tried]
    assert kinds.count(SignInRefused) == 10
    assert kinds.count(TooManyAttempts) == 20


async def test_names_and_addresses_are_not_stored_in_the_clear(door: Door) -> None:
    await door.fails(1)
    stored = str(await door.store.every(AttemptCount))
    assert "mara" not in stored
    assert "192.0.2.1" not in stored


async def test_more_than_can_be_checked_soon_is_turned_away() -> None:
    """Whoever sends many at once makes nobody wait behind all of them."""
    few = Passwords(most_waiting=4)
    tried = await asyncio.gather(
        *(few.verify(None, "guess") for _ in range(10)), return_exceptions=True
    )
    assert [type(one) for one in tried].count(Unavailable) == 6
    assert await few.verify(None, "guess") is False
    few.close()


async def test_a_try_that_was_not_looked_at_is_no_failure(
    door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def busy(*_: object) -> bool:
        raise Unavailable("busy")

    with monkeypatch.context() as patched:
        patched.setattr(Passwords, "verify", busy)
        for _ in range(20):
            with pytest.raises(Unavailable):
                await door()
    assert await door() == door.account


async def test_sign_ins_that_succeed_have_a_limit(door: Door) -> None:
    """Those of browsers nobody knows and of known ones count apart."""
    limited = replace(door.sign_in, successes="3 per hour")
    for device in (None, "known-browser"):
        for _ in range(3):
            await limited("mara", PASSWORD, address="192.0.2.1", device=device)
        with pytest.raises(TooManyAttempts) as refused:
            await limited("mara", PASSWORD, address="192.0.2.2", device=device)
        assert refused.value.retry_after == 3600
    door.clock.advance(3600)
    await limited("mara", PASSWORD, address="192.0.2.1", device=None)


async def test_somebody_signed_in_is_asked_for_their_own_password(door: Door) -> None:
    """Whoever an account's name leads to: it is the account itself that is looked at."""
    other = await add_account(
        door.store,
        username="other",
        password_hash=await passwords().hash("another long phrase"),
        now=0,
        random=os.urandom,
    )
    mixed = msgspec.structs.replace(other, key=door.account.key)
    where: dict[str, str] = {"address": "192.0.2.1", "device": "session"}
    assert await door.sign_in.again(mixed, PASSWORD, **where) == door.account
    with pytest.raises(SignInRefused):
        await door.sign_in.again(mixed, "another long phrase", **where)
