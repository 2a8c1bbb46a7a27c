"""One-time codes: of one browser and one purpose, five tries, ten minutes, good once."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest

from fhir_portal.accounts.one_time_code import (
    CODE_SECONDS,
    MOST_IN_AN_HOUR,
    MOST_SENT,
    TRIES,
    Challenge,
    OneTimeCodes,
    Purpose,
    SentTooOften,
    WrongOneTimeCode,
    code_maker,
    link_for,
)
from fhir_portal.accounts.proof import Spent
from fhir_portal.notify.content import MadeBy
from tests.accounts.house import House

BROWSER = "browser-of-mara"


def codes_of(house: House) -> OneTimeCodes:
    return OneTimeCodes(b"c" * 32, house.clock, house.random)


async def sent(house: House, *, for_nobody: bool = False) -> Challenge:
    """A challenge that was sent once."""
    challenge = codes_of(house).challenge(
        "recovery",
        subject=house.mara.key,
        browser=BROWSER,
        medium="mail",
        to="mara@mail.example",
        for_nobody=for_nobody,
    )

    async def insert(transaction: Any) -> Challenge:
        return await codes_of(house).keep(transaction, challenge)

    return await house.store.transact(insert)


async def tried(
    house: House, key: str, typed: str, *, purpose: Purpose = "recovery", browser: str = BROWSER
) -> str:
    """What comes of typing a code and using what it proves."""
    try:
        _, spend = await codes_of(house).prove(
            house.store, key, typed, purpose=purpose, browser=browser
        )
        await house.store.transact(spend)
    except WrongOneTimeCode:
        return "wrong"
    except Spent:
        return "spent"
    return "proved"


async def test_a_code_is_good_once(house: House) -> None:
    challenge = await sent(house)
    code = codes_of(house).code(challenge.key, 1)
    assert await tried(house, challenge.key, code.replace(" ", "-")) == "proved"
    assert await tried(house, challenge.key, code) == "wrong"


async def test_of_many_uses_at_once_one_succeeds(house: House) -> None:
    challenge = await sent(house)
    code = codes_of(house).code(challenge.key, 1)
    outcomes = await asyncio.gather(*(tried(house, challenge.key, code) for _ in range(20)))
    counted = Counter(outcomes)
    assert counted["proved"] == 1
    assert counted["spent"] < TRIES


@pytest.mark.parametrize(
    "changed", [{"purpose": "activation"}, {"purpose": "contact"}, {"browser": "another"}]
)
async def test_a_code_is_good_for_its_purpose_and_browser_alone(
    house: House, changed: dict[str, Any]
) -> None:
    challenge = await sent(house)
    code = codes_of(house).code(challenge.key, 1)
    assert await tried(house, challenge.key, code, **changed) == "wrong"
    assert await tried(house, challenge.key, code) == "proved"


async def test_five_wrong_tries_end_it_and_tries_at_once_are_not_cheaper(house: House) -> None:
    challenge = await sent(house)
    wrong = [f"{number:08d}" for number in range(50)]
    await asyncio.gather(*(tried(house, challenge.key, one) for one in wrong))
    left = await house.store.get(Challenge, challenge.key)
    assert left is not None
    assert left.tries == TRIES
    assert await tried(house, challenge.key, codes_of(house).code(challenge.key, 1)) == "wrong"


async def test_a_code_ends_after_ten_minutes(house: House) -> None:
    challenge = await sent(house)
    house.clock.now += CODE_SECONDS
    assert await tried(house, challenge.key, codes_of(house).code(challenge.key, 1)) == "wrong"


async def test_sending_again_makes_the_code_before_void(house: House) -> None:
    challenge, codes = await sent(house), codes_of(house)

    async def again(transaction: Any) -> Challenge:
        return await codes.again(transaction, challenge)

    second = await house.store.transact(again)
    assert await tried(house, challenge.key, codes.code(challenge.key, 1)) == "wrong"
    assert await tried(house, challenge.key, codes.code(challenge.key, second.attempt)) == "proved"


async def test_there_is_an_end_to_sending_again(house: House) -> None:
    challenge, codes = await sent(house), codes_of(house)

    async def again(transaction: Any) -> Challenge:
        return await codes.again(transaction, challenge)

    for _ in range(MOST_SENT - 1):
        await house.store.transact(again)
    with pytest.raises(SentTooOften):
        await house.store.transact(again)


async def test_a_challenge_that_is_over_is_not_sent_again(house: House) -> None:
    challenge, codes = await sent(house), codes_of(house)

    async def again(transaction: Any) -> Challenge:
        return await codes.again(transaction, challenge)

    house.clock.now += CODE_SECONDS
    with pytest.raises(SentTooOften):
        await house.store.transact(again)
    assert await house.store.get(Challenge, challenge.key) == challenge


async def test_a_challenge_for_nobody_is_met_by_no_code(house: House) -> None:
    challenge = await sent(house, for_nobody=True)
    assert await tried(house, challenge.key, codes_of(house).code(challenge.key, 1)) == "wrong"
    content = MadeBy({"one-time-code/": code_maker(codes_of(house))})
    assert await content(house.store, link_for(challenge), 1) is None


async def test_the_store_holds_no_code_and_a_message_gets_it_when_it_is_sent(house: House) -> None:
    challenge, codes = await sent(house), codes_of(house)
    content = MadeBy({"one-time-code/": code_maker(codes)})
    made = await content(house.store, link_for(challenge), 1)
    assert made == {"code": codes.code(challenge.key, 1)}
    assert codes.code(challenge.key, 1).replace(" ", "") not in repr(challenge)
    assert await content(house.store, link_for(challenge), 2) is None
    assert await content(house.store, "one-time-code/unknown", 1) is None
    assert await content(house.store, "something-else/1", 1) is None
    house.clock.now += CODE_SECONDS
    assert await content(house.store, link_for(challenge), 1) is None


async def test_one_that_was_not_counted_is_met_by_no_code(house: House) -> None:
    """So whoever makes challenges in a new place cannot forget the limit."""
    codes = codes_of(house)
    challenge = codes.challenge(
        "recovery", subject="x", browser=BROWSER, medium="mail", to="mara@mail.example"
    )

    async def insert(transaction: Any) -> None:
        await transaction.insert(challenge)

    await house.store.transact(insert)
    assert await tried(house, challenge.key, codes.code(challenge.key, 1)) == "wrong"
    content = MadeBy({"one-time-code/": code_maker(codes)})
    assert await content(house.store, link_for(challenge), 1) is None


async def test_one_subject_has_so_many_challenges_in_an_hour_and_is_not_told(house: House) -> None:
    codes = codes_of(house)
    for _ in range(MOST_IN_AN_HOUR):
        last = await sent(house)
    await asyncio.gather(*(sent(house, for_nobody=True) for _ in range(5)))
    assert await tried(house, last.key, codes.code(last.key, 1)) == "proved"
    house.clock.now += 3599
    over = await sent(house)
    assert over.for_nobody
    assert await tried(house, over.key, codes.code(over.key, 1)) == "wrong"
    house.clock.now += 1
    new = await sent(house)
    assert await tried(house, new.key, codes.code(new.key, 1)) == "proved"
