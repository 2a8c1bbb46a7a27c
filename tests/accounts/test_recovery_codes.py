"""Recovery codes: ten on paper, each good once."""

from __future__ import annotations

import asyncio
import re

import pytest

from fhir_portal.accounts.credentials import Passwords
from fhir_portal.accounts.proof import Proof, Spent
from fhir_portal.accounts.recovery_codes import RecoveryCodes, is_recovery_code
from fhir_portal.accounts.totp import WrongCode
from tests.accounts.house import House


async def spend(house: House, proof: Proof) -> None:
    assert proof.spend is not None
    await house.store.transact(proof.spend)


async def prove(house: House, code: str) -> Proof:
    return await house.door.second_factor.codes.prove(house.mara.key, code)


async def test_there_are_ten_and_each_is_good_once(house: House) -> None:
    codes = await house.recovery_codes()
    assert len(set(codes)) == 10
    book = house.door.second_factor.codes
    for used, code in enumerate(codes, 1):
        await spend(house, await prove(house, code))
        assert await book.left(house.mara.key) == 10 - used
        with pytest.raises(WrongCode):
            await prove(house, code)


async def test_a_code_can_be_read_from_paper(house: House) -> None:
    """Three groups of four, without signs that look like others."""
    codes = await house.recovery_codes()
    for code in codes:
        assert re.fullmatch(r"[0-9a-hjkmnp-tv-z]{4}(-[0-9a-hjkmnp-tv-z]{4}){2}", code)
    written = codes[3].upper().replace("-", " ").replace("0", "O").replace("1", "I")
    assert is_recovery_code(written)
    assert (await prove(house, f"  {written} ")).factor == "recovery-code"


async def test_the_hashes_alone_are_at_rest(house: House) -> None:
    codes = await house.recovery_codes()
    (stored,) = await house.store.every(RecoveryCodes)
    for code in codes:
        assert code.replace("-", "")[1:] not in str(stored)
    assert all(one.startswith("$argon2id$") for one in stored.hashes.values())


async def test_new_codes_make_the_old_ones_void(house: House) -> None:
    old = await house.recovery_codes()
    proof = await prove(house, old[0])
    new = await house.recovery_codes()
    for code in old:
        with pytest.raises(WrongCode):
            await prove(house, code)
    with pytest.raises(Spent):  # looked at before, used after
        await spend(house, proof)
    await spend(house, await prove(house, new[0]))


@pytest.mark.requirement("attacks", "race on a recovery code")
async def test_of_many_who_show_one_code_at_once_one_gets_in(house: House) -> None:
    code = (await house.recovery_codes())[0]
    proofs = await asyncio.gather(*(prove(house, code) for _ in range(10)))
    spent = await asyncio.gather(*(spend(house, proof) for proof in proofs), return_exceptions=True)
    assert [type(one) for one in spent].count(Spent) == 9


async def test_two_codes_at_once_are_both_used(house: House) -> None:
    codes = await house.recovery_codes()
    proofs = [await prove(house, code) for code in codes[:2]]
    await asyncio.gather(*(spend(house, proof) for proof in proofs))
    assert await house.door.second_factor.codes.left(house.mara.key) == 8


@pytest.mark.parametrize("typed", ["", "0", "0000-0000-0000", "x" * 100_000, "é" * 12, "\ud800"])
async def test_what_is_no_code_is_wrong(house: House, typed: str) -> None:
    await house.recovery_codes()
    with pytest.raises(WrongCode):
        await prove(house, typed)


async def test_one_check_costs_one_hash_whoever_asks(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An account without codes, or no account at all, cannot be told by the time it takes."""
    await house.recovery_codes()
    jon = await house.account("jon")
    looked = []
    matches = Passwords._matches  # noqa: SLF001 - what is counted

    def counting(self: Passwords, stored: str, text: str) -> bool:
        looked.append(stored)
        return matches(self, stored, text)

    monkeypatch.setattr(Passwords, "_matches", counting)
    for account in (house.mara.key, jon.key, None):
        with pytest.raises(WrongCode):
            await house.door.second_factor.codes.prove(account, "0000-0000-0000")
    assert len(looked) == 3


@pytest.mark.parametrize(
    ("typed", "means"), [("123456", False), ("0abc-defg-hjkm", True), ("", False), ("0abc", False)]
)
def test_what_is_typed_says_what_it_is(typed: str, *, means: bool) -> None:
    assert is_recovery_code(typed) is means


async def test_new_codes_are_hashed_one_after_the_other(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody else's sign-in waits for one of them and not for ten."""
    under_way, most = 0, 0
    hashing = Passwords.hash_unchecked

    async def watched(self: Passwords, secret: str) -> str:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        try:
            return await hashing(self, secret)
        finally:
            under_way -= 1

    monkeypatch.setattr(Passwords, "hash_unchecked", watched)
    await house.door.second_factor.codes.new(house.mara.key)
    assert most == 1
