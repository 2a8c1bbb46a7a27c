"""Remembered browsers: the second factor is spared there, and nothing else."""

from __future__ import annotations

import pytest

from fhir_portal.accounts.devices import (
    REMEMBERED_SECONDS,
    RememberedDevice,
    device_words,
    forget_devices,
)
from fhir_portal.accounts.proof import Spent
from tests.accounts.house import House


async def remembered(house: House, device: str = "Firefox on Linux") -> str:
    token, keep = house.door.devices.remember(house.mara.key, device)
    await house.store.transact(keep)
    return token


async def test_a_token_proves_the_browser_to_its_account_alone(house: House) -> None:
    token = await remembered(house)
    jon = await house.account("jon")
    proof = await house.door.devices.prove(house.mara.key, token)
    assert proof is not None
    assert proof.factor == "remembered-device"
    assert await house.door.devices.prove(jon.key, token) is None
    for other in ("", "x", token[:-1], "é"):
        assert await house.door.devices.prove(house.mara.key, other) is None


async def test_it_lasts_ninety_days(house: House) -> None:
    token = await remembered(house)
    house.clock.advance(90 * 86_400 - 1)
    assert await house.door.devices.prove(house.mara.key, token) is not None
    house.clock.advance(1)
    assert await house.door.devices.prove(house.mara.key, token) is None
    assert await house.door.devices.of(house.mara.key) == []
    assert REMEMBERED_SECONDS == 90 * 86_400


async def test_use_does_not_make_it_last_longer(house: House) -> None:
    token = await remembered(house)
    (before,) = await house.door.devices.of(house.mara.key)
    house.clock.advance(1000)
    proof = await house.door.devices.prove(house.mara.key, token)
    assert proof is not None
    assert proof.spend is not None
    await house.store.transact(proof.spend)
    (after,) = await house.door.devices.of(house.mara.key)
    assert after.used == before.used + 1000
    assert after.expires == before.expires


async def test_the_token_is_not_at_rest(house: House) -> None:
    token = await remembered(house)
    assert token not in str(await house.store.every(RememberedDevice))


async def test_one_can_be_forgotten_by_its_owner_alone(house: House) -> None:
    token, other = await remembered(house), await remembered(house, "Safari on iPhone")
    jon = await house.account("jon")
    (key,) = [
        one.key for one in await house.door.devices.of(house.mara.key) if "Firefox" in one.device
    ]
    assert not await house.door.devices.forget(jon.key, key)
    assert await house.door.devices.prove(house.mara.key, token) is not None
    assert await house.door.devices.forget(house.mara.key, key)
    assert await house.door.devices.prove(house.mara.key, token) is None
    assert await house.door.devices.prove(house.mara.key, other) is not None


async def test_a_browser_forgotten_meanwhile_proves_nothing(house: House) -> None:
    token = await remembered(house)
    proof = await house.door.devices.prove(house.mara.key, token)
    assert proof is not None
    assert proof.spend is not None
    assert await house.change(lambda t: forget_devices(t, house.mara.key)) == 1
    with pytest.raises(Spent):
        await house.store.transact(proof.spend)


@pytest.mark.parametrize(
    ("user_agent", "words"),
    [
        (
            "Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:144.0) Gecko/20100101 Firefox/144.0",
            "Firefox on Windows",
        ),
        (
            (
                "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) "
                "Chrome/142.0.0.0 Safari/537.36 Edg/142.0.0.0"
            ),
            "Edge on Windows",
        ),
        (
            (
                "Mozilla/5.0 (iPhone; CPU iPhone OS 18_6 like Mac OS X) AppleWebKit/605.1.15 "
                "(KHTML, like Gecko) Version/18.6 Mobile/15E148 Safari/604.1"
            ),
            "Safari on iPhone",
        ),
        (
            (
                "Mozilla/5.0 (Linux; Android 10; K) AppleWebKit/537.36 (KHTML, like Gecko) "
                "Chrome/142.0.0.0 Mobile Safari/537.36"
            ),
            "Chrome on Android",
        ),
        (
            (
                "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 "
                "(KHTML, like Gecko) Version/18.6 Safari/605.1.15"
            ),
            "Safari on Mac",
        ),
        ("python-httpx/0.28", "Unknown browser"),
        ("", "Unknown browser"),
        ("x" * 100_000 + " Firefox/1", "Unknown browser"),
        ("<script>Firefox/1", "Firefox"),
    ],
)
def test_a_browser_is_called_what_people_call_it(user_agent: str, words: str) -> None:
    assert device_words(user_agent) == words
