"""Checking a proof, RFC 9449 §4.3: each of its twelve points.

Each attack was seen to succeed with the fault that its docstring names.
"""

from __future__ import annotations

import base64
import hmac
import json
from typing import Any

import pytest
from joserfc.jwk import ECKey, Key, OctKey, OKPKey, RSAKey

from fhir_portal.smart.dpop import (
    ALGORITHMS,
    NONCE_SECONDS,
    Shown,
    UsedProof,
    nonces_at,
    verify,
)
from fhir_portal.smart.errors import InvalidDpopProof, UseDpopNonce
from fhir_portal.smart.keys import ServerKeys
from tests.smart.proofs import TOKEN_URL, Holder
from tests.smart.world import START, Clock, client_key, signing_key

RESOURCE = "https://portal.example/fhir/Patient/1"


class Somewhere:
    clock = Clock()


@pytest.fixture
def holder() -> Holder:
    return Holder(Somewhere())


def taken(
    proof: str, *, method: str = "POST", urls: tuple[str, ...] = (TOKEN_URL,), **options: Any
) -> str:
    seen: list[UsedProof] = []
    jkt = verify(Shown(proof, method, urls), now=START, seen=seen.append, **options)
    (used,) = seen
    assert used.expires is not None
    return jkt


def refused(proof: str, **options: Any) -> str:
    seen: list[UsedProof] = []
    shown = Shown(proof, options.pop("method", "POST"), options.pop("urls", (TOKEN_URL,)))
    with pytest.raises(InvalidDpopProof) as refusal:
        verify(shown, now=options.pop("now", START), seen=seen.append, **options)
    assert seen == []
    return refusal.value.description


KEYS: dict[str, Key] = {
    "ES256": ECKey.generate_key("P-256"),
    "ES384": ECKey.generate_key("P-384"),
    "PS256": client_key("RS384", "r"),
    "PS384": client_key("RS384", "r"),
    "RS256": client_key("RS384", "r"),
    "RS384": client_key("RS384", "r"),
    "Ed25519": OKPKey.generate_key("Ed25519"),
}


@pytest.mark.parametrize("alg", ALGORITHMS)
def test_a_proof_shows_which_key_its_sender_holds(alg: str) -> None:
    holder = Holder(Somewhere(), KEYS[alg], alg)
    assert taken(holder.proof()) == KEYS[alg].thumbprint()


def test_the_thumbprint_is_that_of_rfc_7638() -> None:
    """The example of RFC 9449 §6.1."""
    jwk: Any = {
        "kty": "EC",
        "crv": "P-256",
        "x": "l8tFrhx-34tV3hRICRDY9zCkDlpBhF42UQUfWVAWBFs",
        "y": "9VE4jf_Ok_o64zbTTlcuNJajHmt6v9TDVrU0CdvGRDA",
    }
    assert ECKey.import_key(jwk).thumbprint() == "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I"


@pytest.mark.parametrize(
    "header",
    [
        {"typ": "JWT"},
        {"typ": None},
        {"typ": "at+jwt"},
        {"jwk": None},
        {"jwk": {}},
        {"jwk": {"kty": "EC"}},
    ],
)
def test_what_is_no_proof_is_refused(holder: Holder, header: dict[str, Any]) -> None:
    """Another JWT of the same key is no proof. Planted fault: ``typ`` is not looked at."""
    refused(holder.proof(header=header))


@pytest.mark.parametrize(
    "header",
    [
        {"jwk": "key"},
        {"jwk": ["key"]},
        {"jwk": {"kty": ["EC"]}},
        {"crit": ["exp"], "exp": 1},
        {"crit": []},
        {"alg": ["ES256"]},
        {"alg": {}},
        {"alg": None},
    ],
)
def test_a_header_that_cannot_be_read_is_refused(holder: Holder, header: dict[str, Any]) -> None:
    good, payload, signature = holder.proof().split(".")
    read = json.loads(base64.urlsafe_b64decode(good + "=" * (-len(good) % 4)))
    refused(f"{part({**read, **header})}.{payload}.{signature}")


@pytest.mark.parametrize(
    "proof", ["", "x", "a.b.c", "..", "é.é.é", "e30.e30.", "[" * 9000, "x" * 9000]
)
def test_what_is_no_jwt_is_refused(proof: str) -> None:
    refused(proof)


def part(value: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


@pytest.mark.parametrize("payload", [[], "x", 7, None])
def test_claims_are_an_object(holder: Holder, payload: Any) -> None:
    """Signed all right, but nothing can be read from it."""
    holder.claims = lambda **_: payload  # type: ignore[method-assign] # an odd sender
    refused(holder.proof())


def test_an_unsigned_proof_is_refused(holder: Holder) -> None:
    """Planted fault: ``none`` is among the algorithms."""
    public = holder.key.as_dict(private=False)
    for alg in ("none", "None", ""):
        header = {"typ": "dpop+jwt", "alg": alg, "jwk": public}
        refused(f"{part(header)}.{part(holder.claims())}.")


@pytest.mark.parametrize("alg", ["HS256", "HS384", "HS512"])
def test_a_symmetric_proof_is_refused(holder: Holder, alg: str) -> None:
    """Algorithm confusion: everybody has the key it carries.

    Planted fault: HS256 is allowed, and keys of type ``oct``.
    """
    shared = OctKey.generate_key(256)
    digest = f"sha{alg[2:]}"
    for jwk in (shared.as_dict(private=True), holder.key.as_dict(private=False)):
        header = {"typ": "dpop+jwt", "alg": alg, "jwk": jwk}
        signed = f"{part(header)}.{part(holder.claims())}"
        secret = shared.raw_value if "k" in jwk else json.dumps(jwk).encode()
        made = hmac.digest(secret, signed.encode(), digest)
        proof = base64.urlsafe_b64encode(made).rstrip(b"=").decode()
        refused(f"{signed}.{proof}")


def test_a_proof_that_shows_the_private_key_is_refused(holder: Holder) -> None:
    """RFC 9449 §4.3, point 7. Planted fault: the secret half is dropped, the rest is taken."""
    refused(holder.proof(header={"jwk": holder.key.as_dict(private=True)}))


def test_a_proof_signed_by_another_key_is_refused(holder: Holder) -> None:
    """Planted fault: the signature is not verified."""
    other = ECKey.generate_key("P-256")
    refused(holder.proof(header={"jwk": other.as_dict(private=False)}))


def test_a_changed_proof_is_refused(holder: Holder) -> None:
    """Planted fault: the signature is not verified."""
    header, payload, signature = holder.proof().split(".")
    changed = part({**holder.claims(), "htm": "POST", "jti": "another"})
    refused(f"{header}.{changed}.{signature}")
    refused(f"{header}.{payload}.{signature[:-4]}AAAA")


@pytest.mark.parametrize(("alg", "kty"), [("ES256", "RSA"), ("RS256", "EC"), ("Ed25519", "EC")])
def test_key_and_algorithm_fit(holder: Holder, alg: str, kty: str) -> None:
    jwk = next(k for k in KEYS.values() if k.key_type == kty).as_dict(private=False)
    header = {"typ": "dpop+jwt", "alg": alg, "jwk": jwk}
    refused(f"{part(header)}.{part(holder.claims())}.{part('x' * 60)}")


@pytest.mark.parametrize(
    "change",
    [
        {"n": client_key("RS384", "r").as_dict(private=False)["n"], "e": "A" * 400},
        {"n": "A" * 800, "e": "AQAB"},
        {"n": 7, "e": "AQAB"},
    ],
)
def test_a_key_that_takes_long_to_verify_with_is_not_even_read(
    holder: Holder, change: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Planted fault: any modulus and exponent will do."""

    def unwanted(*_: Any) -> Any:
        raise AssertionError("the key was imported")

    monkeypatch.setattr("fhir_portal.smart.dpop.import_key", unwanted)
    header = {"typ": "dpop+jwt", "alg": "RS256", "jwk": {"kty": "RSA", **change}}
    refused(f"{part(header)}.{part(holder.claims())}.{part('x' * 300)}")


def test_a_weak_key_is_refused() -> None:
    """Planted fault: joserfc's warning is only a warning."""
    with pytest.warns(match="size"):
        weak = RSAKey.generate_key(1024)
    refused(Holder(Somewhere(), weak, "RS256").proof())


@pytest.mark.parametrize("htm", [None, "GET", "post", "POST ", 7, ["POST"], ""])
def test_a_proof_is_for_one_method(holder: Holder, htm: Any) -> None:
    """Planted fault: ``htm`` is not looked at."""
    assert "htm" in refused(holder.proof(htm=htm))


@pytest.mark.parametrize(
    "htu",
    [
        "https://portal.example/fhir/Patient/1",
        "HTTPS://Portal.EXAMPLE/fhir/Patient/1",
        "https://portal.example:443/fhir/Patient/1",
        "https://portal.example/fhir/Patient/1?_pretty=true",
        "https://portal.example/fhir/Patient/1#x",
        "https://portal.example/fhir/Patient/%31",
        "https://portal.example/fhir/P%61tient/1",
        "https://alias.example:8443/fhir/Patient/1",
    ],
)
def test_an_address_may_be_spelled_as_addresses_may(holder: Holder, htu: str) -> None:
    urls = (RESOURCE, "https://alias.example:8443/fhir/Patient/1")
    assert taken(holder.proof("GET", htu), method="GET", urls=urls) == holder.jkt


@pytest.mark.parametrize(
    "htu",
    [
        None,
        "",
        7,
        ["https://portal.example/fhir/Patient/1"],
        "https://portal.example/fhir/Patient/2",
        "https://portal.example/fhir/patient/1",
        "https://portal.example/fhir/Patient/1/",
        "https://portal.example/fhir/Patient",
        "https://portal.example/fhir/Patient%2F1",
        "https://portal.example/",
        "https://portal.example",
        "http://portal.example/fhir/Patient/1",
        "https://portal.example:8443/fhir/Patient/1",
        "https://evil.example/fhir/Patient/1",
        "https://portal.example@evil.example/fhir/Patient/1",
        "https://portal.example.evil.example/fhir/Patient/1",
        "//portal.example/fhir/Patient/1",
        "/fhir/Patient/1",
        "ftp://portal.example/fhir/Patient/1",
    ],
)
def test_a_proof_is_for_one_address(holder: Holder, htu: Any) -> None:
    """A proof for one server is shown to another. Planted fault: ``htu`` is not looked at."""
    assert "htu" in refused(holder.proof("GET", htu=htu), method="GET", urls=(RESOURCE,))


@pytest.mark.parametrize(
    ("age", "good"),
    [(0, True), (60, True), (89, True), (90, False), (3600, False), (-30, True), (-31, False)],
)
@pytest.mark.requirement("attacks", "clock skew")
def test_a_proof_is_fresh_for_a_minute_and_clocks_may_differ(
    holder: Holder,
    age: float,
    good: bool,  # noqa: FBT001 - a table
) -> None:
    """Planted faults: an old proof will do; a proof made out ahead will do."""
    proof = holder.proof(iat=START - age)
    if good:
        assert taken(proof) == holder.jkt
    else:
        assert "iat" in refused(proof)


@pytest.mark.parametrize("iat", [None, "now", True, [], float("inf"), float("nan"), 10**400])
def test_a_proof_says_when_it_was_made(holder: Holder, iat: Any) -> None:
    assert "iat" in refused(holder.proof(iat=iat))


@pytest.mark.parametrize("jti", [None, "", 7, [], "j" * 513])
def test_a_proof_has_a_name_of_its_own(holder: Holder, jti: Any) -> None:
    """Planted fault: a proof without ``jti`` is taken, and taken again."""
    assert "jti" in refused(holder.proof(jti=jti))


def test_a_used_proof_is_known_until_it_is_too_old(holder: Holder) -> None:
    """Planted fault: what was used is forgotten while it is still fresh."""
    seen: list[UsedProof] = []
    for iat in (START, START - 89):
        proof = holder.proof(iat=iat, jti="same \ud800")
        verify(Shown(proof, "POST", (TOKEN_URL,)), now=START, seen=seen.append)
    one, other = seen
    assert one.key == other.key
    assert one.expires == START + 90
    refused(holder.proof(iat=START), now=one.expires)


def test_two_keys_may_choose_the_same_name(holder: Holder) -> None:
    seen: list[UsedProof] = []
    for one in (holder, Holder(Somewhere())):
        verify(Shown(one.proof(jti="1"), "POST", (TOKEN_URL,)), now=START, seen=seen.append)
    assert len({used.key for used in seen}) == 2


@pytest.mark.parametrize("ath", [None, "", "x" * 43, "another", 7])
def test_with_a_token_the_proof_is_for_that_token(holder: Holder, ath: Any) -> None:
    """A proof is moved to a stolen token. Planted fault: ``ath`` is not looked at."""
    token = "t" * 43
    another = holder.proof(token="u" * 43)
    proof = another if ath == "another" else holder.proof(token=token, ath=ath)
    assert "ath" in refused(proof, access_token=token)
    assert taken(holder.proof(token=token), access_token=token) == holder.jkt


def test_a_nonce_is_made_of_the_time_and_the_secret() -> None:
    keys, others = ServerKeys(b"s" * 32, signing_key()), ServerKeys(b"t" * 32, signing_key())
    now, before = nonces_at(keys, START)
    assert nonces_at(keys, START - NONCE_SECONDS)[0] == before
    assert nonces_at(keys, START + NONCE_SECONDS)[1] == now
    assert not {now, before} & set(nonces_at(others, START))


def test_where_a_nonce_is_asked_for_the_proof_has_it(holder: Holder) -> None:
    """Proofs made ahead, for later. Planted fault: the nonce is asked for and not compared."""
    nonces = nonces_at(ServerKeys(b"s" * 32, signing_key()), START)
    for nonce in nonces:
        assert taken(holder.proof(nonce=nonce), nonces=nonces) == holder.jkt
    for wrong in (None, "", "made-up", 7, [nonces[0]]):
        shown = Shown(holder.proof(nonce=wrong), "POST", (TOKEN_URL,))
        with pytest.raises(UseDpopNonce) as refusal:
            verify(shown, now=START, seen=lambda _: None, nonces=nonces)
        assert refusal.value.headers == {"DPoP-Nonce": nonces[0]}


def test_no_refusal_repeats_the_proof(holder: Holder) -> None:
    changes: Any = ({"htm": "SECRET"}, {"htu": "SECRET"}, {"iat": "SECRET"}, {"jti": "S" * 600})
    for change in changes:
        assert "SECRET" not in refused(holder.proof(**change))
