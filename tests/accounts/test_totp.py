"""Codes of an authenticator app: each good once, for the moment it is shown."""

from __future__ import annotations

import asyncio
import base64
from urllib.parse import parse_qs, urlsplit

import pytest
from cryptography.exceptions import InvalidTag

from fhir_portal.accounts.proof import Proof, Spent
from fhir_portal.accounts.totp import OFFER_SECONDS, Totp, TotpOffer, Totps, WrongCode
from tests.accounts.house import App, House


async def spend(house: House, proof: Proof) -> None:
    assert proof.spend is not None
    await house.store.transact(proof.spend)


async def test_the_code_of_now_is_right(house: House) -> None:
    app = await house.app()
    proof = await house.door.second_factor.totps.prove(house.mara.key, app.code)
    assert proof.factor == "totp"
    await spend(house, proof)


@pytest.mark.parametrize(("seconds", "right"), [(-60, False), (-30, True), (30, True), (60, False)])
async def test_a_clock_may_be_half_a_minute_off(house: House, seconds: int, *, right: bool) -> None:
    app = await house.app()
    house.clock.advance(300)
    totps = house.door.second_factor.totps
    if right:
        assert (await totps.prove(house.mara.key, app.at(seconds))).factor == "totp"
    else:
        with pytest.raises(WrongCode):
            await totps.prove(house.mara.key, app.at(seconds))


async def test_a_code_is_good_once(house: House) -> None:
    """RFC 6238 §5.2: the same time step is not taken again, nor an earlier one."""
    app = await house.app()
    totps = house.door.second_factor.totps
    earlier, now = app.at(-30), app.code
    await spend(house, await totps.prove(house.mara.key, now))
    for code in (now, earlier):
        with pytest.raises(WrongCode):
            await totps.prove(house.mara.key, code)
    house.clock.advance(30)
    with pytest.raises(WrongCode):
        await totps.prove(house.mara.key, now)
    await spend(house, await totps.prove(house.mara.key, app.code))


@pytest.mark.requirement("attacks", "race on a one-time password")
async def test_of_many_who_show_one_code_at_once_one_gets_in(house: House) -> None:
    app = await house.app()
    totps = house.door.second_factor.totps
    proofs = [await totps.prove(house.mara.key, app.code) for _ in range(50)]
    spent = await asyncio.gather(*(spend(house, proof) for proof in proofs), return_exceptions=True)
    assert [type(one) for one in spent].count(Spent) == 49


@pytest.mark.parametrize(
    "typed", ["", "000", "12345678", "abcdef", "١٢٣٤٥٦", "\ud800" * 6, "0" * 9999]
)
async def test_what_is_no_code_is_wrong(house: House, typed: str) -> None:
    await house.app()
    with pytest.raises(WrongCode):
        await house.door.second_factor.totps.prove(house.mara.key, typed)


async def test_a_code_may_be_typed_in_two_halves(house: House) -> None:
    app = await house.app()
    typed = f" {app.code[:3]} {app.code[3:]} "
    proof = await house.door.second_factor.totps.prove(house.mara.key, typed)
    assert proof.factor == "totp"


async def test_without_an_app_every_code_is_wrong(house: House) -> None:
    with pytest.raises(WrongCode):
        await house.door.second_factor.totps.prove(house.mara.key, "000000")


async def test_another_persons_code_is_wrong(house: House) -> None:
    jon = await house.account("jon")
    await house.app()
    his = await house.app(jon)
    with pytest.raises(WrongCode):
        await house.door.second_factor.totps.prove(house.mara.key, his.code)


async def test_an_app_is_offered_a_secret_of_160_bits_under_a_name(house: House) -> None:
    visitor = (await house.signed_in()).visitor
    totps = house.door.second_factor.totps
    offer = await totps.offer(visitor.session, house.mara)
    assert len(base64.b32decode(offer.secret)) == 20
    parts = urlsplit(offer.uri)
    query = parse_qs(parts.query)
    assert (parts.scheme, parts.netloc) == ("otpauth", "totp")
    assert parts.path == "/The%20portal:mara"
    assert query["secret"] == [offer.secret]
    assert query["issuer"] == ["The portal"]
    assert await totps.offer(visitor.session, house.mara) == offer  # a reload changes nothing


async def test_an_offer_is_taken_with_the_right_code_alone(house: House) -> None:
    visitor = (await house.signed_in()).visitor
    totps = house.door.second_factor.totps
    await totps.offer(visitor.session, house.mara)
    with pytest.raises(WrongCode):
        await totps.accepted(visitor.session, house.mara, "000000")
    assert await totps.of(house.mara.key) is None


async def test_an_offer_is_over_after_a_while(house: House) -> None:
    visitor = (await house.signed_in()).visitor
    totps = house.door.second_factor.totps
    offer = await totps.offer(visitor.session, house.mara)
    house.clock.advance(OFFER_SECONDS)
    with pytest.raises(WrongCode):
        await totps.accepted(visitor.session, house.mara, App(house, offer.secret).code)
    assert (await totps.offer(visitor.session, house.mara)).secret != offer.secret


async def test_an_offer_is_for_one_session_and_one_account(house: House) -> None:
    jon = await house.account("jon")
    visitor, other = (await house.signed_in()).visitor, (await house.signed_in()).visitor
    totps = house.door.second_factor.totps
    app = App(house, (await totps.offer(visitor.session, house.mara)).secret)
    with pytest.raises(WrongCode):
        await totps.accepted(other.session, house.mara, app.code)
    with pytest.raises(WrongCode):
        await totps.accepted(visitor.session, jon, app.code)


async def test_an_offer_is_taken_once(house: House) -> None:
    visitor = (await house.signed_in()).visitor
    totps = house.door.second_factor.totps
    app = App(house, (await totps.offer(visitor.session, house.mara)).secret)
    proofs = [await totps.accepted(visitor.session, house.mara, app.code) for _ in range(2)]
    await spend(house, proofs[0])
    with pytest.raises(Spent):
        await spend(house, proofs[1])
    with pytest.raises(WrongCode):  # the code that confirmed it is used up
        await totps.prove(house.mara.key, app.code)


async def test_the_secret_is_not_at_rest(house: House) -> None:
    app = await house.app()
    visitor = (await house.signed_in()).visitor
    offer = await house.door.second_factor.totps.offer(visitor.session, house.mara)
    sealed = [one.sealed for one in await house.store.every(Totp)]
    sealed += [one.sealed for one in await house.store.every(TotpOffer)]
    assert len(sealed) == 2
    stored = b"".join(sealed)
    for secret in (app.secret, offer.secret):
        assert base64.b32decode(secret) not in stored
        assert secret.encode() not in stored


async def test_a_sealed_secret_opens_for_its_account_and_key_alone(house: House) -> None:
    app = await house.app()
    jon = await house.account("jon")
    totp = await house.door.second_factor.totps.of(house.mara.key)
    assert totp is not None
    moved = Totp(key=jon.key, sealed=totp.sealed, added=0.0, last_step=-1)
    await house.change(lambda transaction: transaction.put(moved))
    with pytest.raises(InvalidTag):
        await house.door.second_factor.totps.prove(jon.key, app.code)
    other = Totps(house.store, key=b"x" * 32, issuer="", clock=house.clock, random=house.random)
    with pytest.raises(InvalidTag):
        await other.prove(house.mara.key, app.code)
