"""Passkeys: what an answer has to be, and everything it must not be (WebAuthn §7.1 and §7.2)."""

from __future__ import annotations

import asyncio
import json
from base64 import urlsafe_b64decode
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fhir_portal.accounts.passkeys import (
    CHALLENGE_SECONDS,
    MOST,
    Passkey,
    PasskeyChallenge,
    PasskeyRefused,
    Passkeys,
    TooManyPasskeys,
)
from fhir_portal.accounts.proof import Proof, Spent
from fhir_portal.accounts.sessions import Opened, Session
from fhir_portal.smart.revocation import disable_account
from tests.accounts.authenticator import (
    ORIGIN,
    PRESENT,
    SITE,
    VERIFIED,
    Authenticator,
    base64url,
)
from tests.accounts.house import HOME, House


def a_browser(house: House) -> Session:
    """The session of a browser where nobody signed in."""
    return house.sessions.drafted().visitor.session


async def adding(house: House, authenticator: Authenticator, **changes: Any) -> Any:
    session = (await house.signed_in()).visitor.session
    options = await house.door.passkeys.begin_adding(session, house.mara, SITE)
    made = authenticator.make(options, **changes)
    add = await house.door.passkeys.added(session, house.mara, made, "Key")
    await house.store.transact(add)


async def enters(house: House, session: Session, answer: str) -> Opened:
    return await house.door.by_passkey(session, answer, HOME)


# --- what is asked -------------------------------------------------------------------------------


async def test_a_new_passkey_is_asked_to_be_discoverable_and_to_verify_the_person(
    house: House,
) -> None:
    opened = await house.signed_in()
    options = json.loads(
        await house.door.passkeys.begin_adding(opened.visitor.session, house.mara, SITE)
    )
    assert options["rp"] == {"name": "The portal", "id": "portal.example.org"}
    assert options["attestation"] == "none"
    assert options["authenticatorSelection"] == {
        "residentKey": "required",
        "requireResidentKey": True,
        "userVerification": "required",
    }
    assert {one["alg"] for one in options["pubKeyCredParams"]} == {-7, -8, -257}
    assert options["user"]["name"] == "mara"
    handle = urlsafe_b64decode(options["user"]["id"] + "===")
    assert handle == house.mara.key.encode()  # random: it says nothing of the person
    assert len(urlsafe_b64decode(options["challenge"] + "===")) == 32


async def test_a_device_is_told_which_passkeys_the_account_has(house: House) -> None:
    authenticator = await Authenticator.of(house)
    opened = await house.signed_in()
    options = json.loads(
        await house.door.passkeys.begin_adding(opened.visitor.session, house.mara, SITE)
    )
    (excluded,) = options["excludeCredentials"]
    assert excluded["id"] == base64url(authenticator.credential_id)
    assert excluded["transports"] == ["internal"]


async def test_sign_in_asks_for_any_passkey_and_names_none(house: House) -> None:
    await Authenticator.of(house)
    options = json.loads(await house.door.passkeys.begin_proving(a_browser(house), SITE))
    assert options["userVerification"] == "required"
    assert options["rpId"] == "portal.example.org"
    assert options.get("allowCredentials", []) == []


@pytest.mark.parametrize(
    ("host", "origin", "domain"),
    [
        ("portal.example.org", ORIGIN, "portal.example.org"),
        ("PORTAL.example.org", ORIGIN, "portal.example.org"),
        ("www.portal.example.org", "https://www.portal.example.org", "portal.example.org"),
        ("other.example", "https://other.example", "other.example"),
        ("evil.example", ORIGIN, "portal.example.org"),
        ("portal.example.org:444", ORIGIN, "portal.example.org"),
        ("", ORIGIN, "portal.example.org"),
    ],
)
def test_the_domain_is_one_of_ours_whatever_the_header_says(
    host: str, origin: str, domain: str
) -> None:
    house = House()
    site = house.door.passkeys.site(host)
    assert site is not None
    assert (site.origin, site.domain) == (origin, domain)
    house.store.close()


def test_an_address_of_numbers_has_no_passkeys() -> None:
    house = House()
    origins = ("http://127.0.0.1:8000", "http://localhost:8000", "http://[::1]:8000")
    passkeys = Passkeys(
        house.store, origins=origins, name="", clock=house.clock, random=house.random
    )
    assert passkeys.site("127.0.0.1:8000") is None
    assert passkeys.site("[::1]:8000") is None
    assert passkeys.site("elsewhere") is None
    site = passkeys.site("localhost:8000")
    assert site is not None
    assert (site.origin, site.domain) == ("http://localhost:8000", "localhost")
    house.store.close()


# --- signing in ----------------------------------------------------------------------------------


async def test_a_passkey_signs_its_owner_in_without_a_user_name(house: House) -> None:
    authenticator = await Authenticator.of(house)
    await house.account("jon")
    before = a_browser(house)
    opened = await enters(house, before, await authenticator.answer(before))
    visitor = await house.find(opened)
    assert visitor is not None
    assert visitor.account == house.mara
    assert visitor.session.factors == ("passkey",)
    assert visitor.session.second_factor_at == house.clock()  # it is both factors


async def test_it_works_beside_an_app(house: House) -> None:
    await house.app()
    authenticator = await Authenticator.of(house)
    before = a_browser(house)
    opened = await enters(house, before, await authenticator.answer(before))
    assert opened.visitor.account == house.mara


async def test_several_passkeys_open_one_account(house: House) -> None:
    keys = [
        await Authenticator.of(house, credential_id=f"credential-{n}".encode()) for n in range(3)
    ]
    for key in keys:
        before = a_browser(house)
        assert (await enters(house, before, await key.answer(before))).visitor.account
    assert len(await house.door.passkeys.of(house.mara.key)) == 3


async def test_one_answer_opens_one_session(house: House) -> None:
    """Sent again, from anywhere, and many times at once."""
    authenticator = await Authenticator.of(house)
    before = a_browser(house)
    answer = await authenticator.answer(before)
    sessions = len(await house.sessions.of(house.mara.key))
    tried = await asyncio.gather(
        *(enters(house, before, answer) for _ in range(50)), return_exceptions=True
    )
    kinds = [type(one) for one in tried]
    assert kinds.count(Opened) == 1
    assert set(kinds) <= {Opened, Spent, PasskeyRefused}
    with pytest.raises(PasskeyRefused):
        await enters(house, before, answer)
    assert len(await house.sessions.of(house.mara.key)) == sessions + 1


@pytest.mark.requirement("attacks", "race on a passkey challenge")
async def test_two_who_prove_at_once_spend_one_challenge(house: House) -> None:
    """Both answers were found right; what spends them is one compare-and-set."""
    authenticator = await Authenticator.of(house)
    before = a_browser(house)
    answer = await authenticator.answer(before)
    proofs: list[Proof] = [(await house.door.passkeys.prove(before, answer))[1] for _ in range(2)]
    first, second = (proof.spend for proof in proofs)
    assert first is not None
    assert second is not None
    await house.store.transact(first)
    with pytest.raises(Spent):
        await house.store.transact(second)


async def test_an_answer_in_another_browser_opens_nothing(house: House) -> None:
    authenticator = await Authenticator.of(house)
    victim, attacker = a_browser(house), a_browser(house)
    answer = await authenticator.answer(victim)
    await house.door.passkeys.begin_proving(attacker, SITE)
    with pytest.raises(PasskeyRefused):
        await enters(house, attacker, answer)


async def test_a_wrong_answer_uses_the_challenge_up(house: House) -> None:
    authenticator = await Authenticator.of(house)
    before = a_browser(house)
    answer = await authenticator.answer(before)
    with pytest.raises(PasskeyRefused):
        await enters(house, before, "{}")
    with pytest.raises(PasskeyRefused):
        await enters(house, before, answer)


async def test_a_challenge_is_over_after_a_while(house: House) -> None:
    authenticator = await Authenticator.of(house)
    before = a_browser(house)
    answer = await authenticator.answer(before)
    house.clock.advance(CHALLENGE_SECONDS)
    with pytest.raises(PasskeyRefused):
        await enters(house, before, answer)


async def test_a_new_challenge_makes_the_old_one_void(house: House) -> None:
    authenticator = await Authenticator.of(house)
    before = a_browser(house)
    old = await authenticator.answer(before)
    await house.door.passkeys.begin_proving(before, SITE)
    with pytest.raises(PasskeyRefused):
        await enters(house, before, old)


WRONG: dict[str, dict[str, Any]] = {
    "another site's page (phishing)": {"origin": "https://portal-example.org"},
    "another scheme": {"origin": "http://portal.example.org"},
    "an origin that begins like ours": {"origin": "https://portal.example.org.evil.example"},
    "another domain": {"domain": "evil.example"},
    "a frame of another site": {"client_data": {"crossOrigin": True}},
    "the other ceremony": {"client_data": {"type": "webauthn.create"}},
    "a challenge of one's own": {"client_data": {"challenge": base64url(b"c" * 32)}},
    "nobody was verified": {"flags": PRESENT},
    "nobody was there": {"flags": VERIFIED},
    "no person at all": {"flags": 0},
    "another key": {"key": ec.generate_private_key(ec.SECP256R1())},
    "an unknown credential": {"credential_id": b"unknown-credential"},
    "no user handle": {"handle": None},
    "somebody else's handle": {"handle": b"somebody-else"},
}


@pytest.mark.parametrize("change", WRONG.values(), ids=WRONG)
async def test_what_is_wrong_with_an_answer_does_not_matter(
    house: House, change: dict[str, Any]
) -> None:
    authenticator = await Authenticator.of(house)
    for name, value in change.items():
        setattr(authenticator, name, value)
    before = a_browser(house)
    answer = await authenticator.answer(before)
    with pytest.raises(PasskeyRefused) as refused:
        await enters(house, before, answer)
    assert str(refused.value) == ""
    assert len(await house.store.every(Session)) == 1  # the one in which it was added


async def test_a_signature_over_other_bytes_is_refused(house: House) -> None:
    authenticator = await Authenticator.of(house)
    before = a_browser(house)
    answer = json.loads(await authenticator.answer(before))
    raw = bytearray(urlsafe_b64decode(answer["response"]["signature"] + "==="))
    raw[-1] ^= 1
    answer["response"]["signature"] = base64url(bytes(raw))
    with pytest.raises(PasskeyRefused):
        await enters(house, before, json.dumps(answer))


async def test_a_disabled_account_is_refused_like_an_unknown_key(house: House) -> None:
    authenticator = await Authenticator.of(house)
    await disable_account(house.store, house.mara.key, now=house.clock())
    before = a_browser(house)
    answer = await authenticator.answer(before)
    with pytest.raises(PasskeyRefused):
        await enters(house, before, answer)


async def test_a_removed_passkey_opens_nothing(house: House) -> None:
    authenticator = await Authenticator.of(house)
    (passkey,) = await house.door.passkeys.of(house.mara.key)
    before = a_browser(house)
    answer = await authenticator.answer(before)
    _, proof = await house.door.passkeys.prove(before, answer)
    await house.store.transact(house.door.passkeys.removal(house.mara.key, passkey.key))
    assert proof.spend is not None
    with pytest.raises(Spent):  # looked at before, used after
        await house.store.transact(proof.spend)
    with pytest.raises(PasskeyRefused):
        await enters(house, before, await authenticator.answer(before))


@pytest.mark.parametrize(("stored", "shown", "good"), [(5, 6, True), (5, 5, False), (5, 4, False)])
async def test_a_count_that_does_not_grow_means_a_copy(
    house: House, stored: int, shown: int, *, good: bool
) -> None:
    """WebAuthn §7.2 step 22."""
    authenticator = await Authenticator.of(house, counter=stored)
    authenticator.counter = shown
    before = a_browser(house)
    answer = await authenticator.answer(before)
    if good:
        await enters(house, before, answer)
        (passkey,) = await house.door.passkeys.of(house.mara.key)
        assert passkey.sign_count == shown
    else:
        with pytest.raises(PasskeyRefused):
            await enters(house, before, answer)


async def test_a_passkey_of_an_alias_is_not_taken_elsewhere(house: House) -> None:
    """Each domain has its own; an answer for one is none for the other."""
    authenticator = await Authenticator.of(house)
    other = house.door.passkeys.site("other.example")
    assert other is not None
    before = a_browser(house)
    options = await house.door.passkeys.begin_proving(before, other)
    authenticator.origin, authenticator.domain = other.origin, other.domain
    with pytest.raises(PasskeyRefused):
        await enters(house, before, authenticator.sign(options))


# --- adding --------------------------------------------------------------------------------------

NOT_ADDED: dict[str, dict[str, Any]] = {
    name: change
    for name, change in WRONG.items()
    if name
    not in (
        "the other ceremony",
        "another key",
        "an unknown credential",
        "no user handle",
        "somebody else's handle",
    )
} | {"the other ceremony": {"client_data": {"type": "webauthn.get"}}}


@pytest.mark.parametrize("change", NOT_ADDED.values(), ids=NOT_ADDED)
async def test_what_is_not_made_for_us_is_not_added(house: House, change: dict[str, Any]) -> None:
    with pytest.raises(PasskeyRefused):
        await adding(house, Authenticator(**change))
    assert await house.store.every(Passkey) == []


async def test_a_credential_belongs_to_one_account(house: House) -> None:
    """Or whoever registers a copied id would sign in as, or lock out, its owner."""
    authenticator = await Authenticator.of(house)
    jon = await house.account("jon")
    with pytest.raises(PasskeyRefused):
        await Authenticator.of(house, jon, credential_id=authenticator.credential_id)
    before = a_browser(house)
    opened = await enters(house, before, await authenticator.answer(before))
    assert opened.visitor.account == house.mara


async def test_a_challenge_to_add_is_for_one_session_and_account(house: House) -> None:
    passkeys, jon = house.door.passkeys, await house.account("jon")
    mine, other = (await house.signed_in()).visitor.session, a_browser(house)
    options = await passkeys.begin_adding(mine, house.mara, SITE)
    made = Authenticator().make(options)
    for session, account in ((other, house.mara), (mine, jon)):
        with pytest.raises(PasskeyRefused):
            await passkeys.added(session, account, made, "Key")


async def test_a_challenge_to_add_is_used_once(house: House) -> None:
    passkeys = house.door.passkeys
    session = (await house.signed_in()).visitor.session
    options = await passkeys.begin_adding(session, house.mara, SITE)
    writes = [
        await passkeys.added(
            session, house.mara, Authenticator(credential_id=f"key-{n}".encode()).make(options), ""
        )
        for n in range(2)
    ]
    await house.store.transact(writes[0])
    with pytest.raises(Spent):
        await house.store.transact(writes[1])
    (passkey,) = await passkeys.of(house.mara.key)
    assert passkey.name == "Passkey"
    assert passkey.transports == ("internal",)


async def test_a_challenge_to_prove_adds_nothing(house: House) -> None:
    session = (await house.signed_in()).visitor.session
    options = json.loads(await house.door.passkeys.begin_proving(session, SITE, house.mara))
    asked = json.dumps({**options, "user": {"id": ""}})
    with pytest.raises(PasskeyRefused):
        await house.door.passkeys.added(
            session, house.mara, Authenticator(handle=b"x").make(asked), "Key"
        )


async def test_an_account_has_so_many_and_no_more(house: House) -> None:
    for number in range(MOST):
        await Authenticator.of(house, credential_id=f"credential-{number}".encode())
    session = (await house.signed_in()).visitor.session
    with pytest.raises(TooManyPasskeys):
        await house.door.passkeys.begin_adding(session, house.mara, SITE)


# --- confirming ----------------------------------------------------------------------------------


async def test_a_passkey_confirms_who_somebody_is(house: House) -> None:
    authenticator = await Authenticator.of(house)
    opened = await house.signed_in()
    house.clock.advance(1000)
    answer = await authenticator.answer(opened.visitor.session, house.mara)
    confirmed, write = await house.door.confirm_by_passkey(opened.visitor, answer)
    await house.store.transact(write)
    visitor = await house.find(confirmed)
    assert visitor is not None
    assert visitor.auth_time == visitor.session.second_factor_at == house.clock()
    assert visitor.session.factors == ("password", "passkey")


async def test_somebody_elses_passkey_confirms_nothing(house: House) -> None:
    jon = await house.account("jon")
    authenticator = await Authenticator.of(house, jon)
    opened = await house.signed_in()
    options = await house.door.passkeys.begin_proving(opened.visitor.session, SITE, house.mara)
    with pytest.raises(PasskeyRefused):
        await house.door.confirm_by_passkey(opened.visitor, authenticator.sign(options))


async def test_an_answer_to_a_sign_in_confirms_nothing(house: House) -> None:
    authenticator = await Authenticator.of(house)
    opened = await house.signed_in()
    answer = await authenticator.answer(opened.visitor.session)  # asked of anybody
    with pytest.raises(PasskeyRefused):
        await house.door.confirm_by_passkey(opened.visitor, answer)


# --- what strangers send -------------------------------------------------------------------------

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=12), inner),
    max_leaves=10,
)
PARTS = ("clientDataJSON", "authenticatorData", "signature", "userHandle", "attestationObject")


@pytest.mark.parametrize(
    "answer",
    ["", "null", "[]", '"x"', "{}", "{" * 30_000, "[" * 60_000, "1e999", '{"id": NaN}', "\ud800"],
    ids=range(10),
)
async def test_what_is_no_answer_is_refused(house: House, answer: str) -> None:
    await Authenticator.of(house)
    before = a_browser(house)
    await house.door.passkeys.begin_proving(before, SITE)
    with pytest.raises(PasskeyRefused):
        await enters(house, before, answer)
    session = (await house.signed_in()).visitor.session
    await house.door.passkeys.begin_adding(session, house.mara, SITE)
    with pytest.raises(PasskeyRefused):
        await house.door.passkeys.added(session, house.mara, answer, "Key")


KEY = ec.generate_private_key(ec.SECP256R1())


async def proves(house: House, session: Session, answer: str) -> bool:
    try:
        await enters(house, session, answer)
    except PasskeyRefused:
        return False
    return True


async def adds(house: House, session: Session, answer: str) -> bool:
    try:
        add = await house.door.passkeys.added(session, house.mara, answer, "Key")
        await house.store.transact(add)
    except PasskeyRefused:
        return False
    return True


@settings(
    max_examples=200,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    part=st.sampled_from((*PARTS, "id", "rawId", "type", "response")),
    value=JSON | st.binary(max_size=200).map(base64url),
)
async def test_an_answer_with_anything_in_it_is_refused_or_right(
    house: House, part: str, value: Any
) -> None:
    """Never a fault of ours, whatever a part of the answer is; a part nobody reads may be it."""
    authenticator = Authenticator(
        handle=house.mara.key.encode(), house=house, credential_id=b"fuzzed-credential", key=KEY
    )
    passkeys, session = house.door.passkeys, (await house.signed_in()).visitor.session
    made = json.loads(authenticator.make(await passkeys.begin_adding(session, house.mara, SITE)))
    (made["response"] if part in PARTS else made)[part] = value
    there = await house.store.get(Passkey, base64url(authenticator.credential_id)) is not None
    unread = part in ("authenticatorData", "signature", "userHandle")
    added = await adds(house, session, json.dumps(made))
    assert added is (unread and not there)
    if not there and not added:
        await Authenticator.of(house, credential_id=authenticator.credential_id, key=KEY)
    before = a_browser(house)
    answer = json.loads(await authenticator.answer(before))
    (answer["response"] if part in PARTS else answer)[part] = value
    assert await proves(house, before, json.dumps(answer)) is (part == "attestationObject")


async def test_challenges_are_removed_when_they_are_over(house: House) -> None:
    await house.door.passkeys.begin_proving(a_browser(house), SITE)
    house.clock.advance(CHALLENGE_SECONDS + 1)
    await house.change(lambda t: t.drop_expired(house.clock()))
    assert await house.store.every(PasskeyChallenge) == []
