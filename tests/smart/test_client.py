from __future__ import annotations

from typing import Any

import msgspec
import pytest

from fhir_portal.smart.client import (
    ChangedSinceReview,
    Client,
    DuplicateClient,
    UnknownClient,
    add_client,
    approve_client,
    disable_client,
    enable_client,
    fingerprint,
    is_registered_origin,
    new_client_secret,
    withdraw_approval,
)
from fhir_portal.smart.code import AuthorizationCode
from fhir_portal.smart.errors import InvalidClientMetadata, InvalidRedirectUri, InvalidScope
from fhir_portal.smart.token import AccessToken, TokenFamily, token_hash
from tests.smart.world import REDIRECT, START, World, assert_oauth_error, client_key

KEYS = {"keys": [client_key("ES384", "k").as_dict(private=False)]}


async def test_an_id_that_is_made_is_never_taken_for_an_option_of_a_command(world: World) -> None:
    """An operator types it after ``fhir-portal client show``."""
    added = await add_client(
        world.store,
        name="App",
        type="public",
        redirect_uris=[REDIRECT],
        now=START,
        random=lambda length: b"\xfb" * length,
    )
    assert added.client.key.isalnum()


async def test_a_duplicate_client_is_refused_and_the_first_stays(world: World) -> None:
    await world.public_app("app")
    before = await world.rows()
    with pytest.raises(DuplicateClient):
        await world.confidential_app("app", redirect_uris=["https://evil.example/cb"])
    assert await world.rows() == before
    assert not await is_registered_origin(world.store, "https://evil.example")


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"client_id": "with space"}, InvalidClientMetadata),
        ({"client_id": "x" * 101}, InvalidClientMetadata),
        ({"name": " "}, InvalidClientMetadata),
        ({"name": "Diary\u202e"}, InvalidClientMetadata),
        ({"redirect_uris": []}, InvalidClientMetadata),
        ({"redirect_uris": ["http://app.example/cb"]}, InvalidRedirectUri),
        ({"permissions": ["everything"]}, InvalidClientMetadata),
        ({"scope": "nonsense"}, InvalidScope),
        ({"scope": "system/*.rs"}, InvalidClientMetadata),
        ({"scope": "launch user/*.rs"}, InvalidClientMetadata),
        ({"permissions": ["introspect"]}, InvalidClientMetadata),
        ({"permissions": ["launch"], "practice": "skin"}, InvalidClientMetadata),
        ({"metadata": {"initiate_login_uri": "http://app.example/"}}, InvalidClientMetadata),
        ({"metadata": {"initiate_login_uri": f"{REDIRECT}?launch=x"}}, InvalidClientMetadata),
        ({"metadata": {"initiate_login_uri": f"{REDIRECT}?launch="}}, InvalidClientMetadata),
        ({"metadata": {"initiate_login_uri": f"{REDIRECT}?iss=x"}}, InvalidClientMetadata),
        ({"auth_method": "client_secret_basic"}, InvalidClientMetadata),
        ({"jwks": KEYS}, InvalidClientMetadata),
        ({"type": "confidential", "auth_method": "none"}, InvalidClientMetadata),
        ({"type": "confidential", "auth_method": "private_key_jwt"}, InvalidClientMetadata),
        ({"type": "backend", "redirect_uris": [], "scope": "system/*.rs"}, InvalidClientMetadata),
        (
            {"type": "backend", "redirect_uris": [], "scope": "system/*.rs", "jwks": KEYS},
            InvalidClientMetadata,
        ),
        (
            {
                "type": "backend",
                "redirect_uris": [],
                "scope": "system/*.rs",
                "jwks": KEYS,
                "practice": "skin",
                "approved_at": ["skin", "family"],
            },
            InvalidClientMetadata,
        ),
        (
            {
                "type": "backend",
                "redirect_uris": [],
                "scope": "patient/*.rs",
                "jwks": KEYS,
                "practice": "skin",
            },
            InvalidClientMetadata,
        ),
    ],
)
async def test_what_cannot_work_is_refused(
    world: World, changes: dict[str, Any], error: type[Exception]
) -> None:
    valid: dict[str, Any] = {"name": "Diary", "type": "public", "redirect_uris": [REDIRECT]}
    before = await world.rows()
    with pytest.raises(error):
        await add_client(world.store, now=0, random=world.random, **{**valid, **changes})
    assert await world.rows() == before


@pytest.mark.parametrize(
    "name",
    [
        "\u3164",
        "\u115f\u1160",
        "\uffa0",
        "\U00013441\U00013442",
        "\u0301\u0489",
        "\u2800\u2800",
        "-- ! --",
    ],
)
async def test_a_name_that_nobody_can_read_is_refused(world: World, name: str) -> None:
    """An app without a name on the consent page. Planted fault: printable is legible."""
    with pytest.raises(InvalidClientMetadata):
        await world.public_app(name=name)
    assert (await world.rows())["client"] == []


@pytest.mark.parametrize("name", ["7", "x\u0301", "Дневник", "日記", "ㅎ", "\u3164a"])
async def test_a_name_is_of_any_script(world: World, name: str) -> None:
    assert (await world.public_app(name=name)).client.name == name


@pytest.mark.parametrize(
    "jwks",
    [
        {},
        {"keys": []},
        {"keys": [{"kty": "oct", "k": "c2VjcmV0"}]},
        {"keys": [client_key("ES384", "k").as_dict(private=True)]},
        {"keys": "none"},
        {"keys": [{"kty": "EC"}]},
        {"keys": [7]},
        {"keys": [{"kty": "RSA", "e": "AQAB", "n": "sXchDaQebHnPiGvyDOAT4saGEUetSyo9"}]},
    ],
)
async def test_only_public_keys_are_kept(world: World, jwks: dict[str, Any]) -> None:
    with pytest.raises(InvalidClientMetadata):
        await world.backend(jwks=jwks)
    assert (await world.rows())["client"] == []


async def test_a_new_secret_replaces_the_old_one(world: World) -> None:
    app = await world.confidential_app()
    secret = await new_client_secret(world.store, app.client_id, random=world.random)
    assert secret != app.secret
    assert_oauth_error(await app.exchange("x"), "invalid_client", 401)
    app.secret = secret
    assert_oauth_error(await app.exchange("x"), "invalid_grant")


async def test_a_client_without_a_secret_gets_none(world: World) -> None:
    await world.public_app()
    with pytest.raises(InvalidClientMetadata):
        await new_client_secret(world.store, "app", random=world.random)


async def test_a_disabled_backend_loses_its_tokens(world: World) -> None:
    ehr = await world.backend()
    token = (await ehr.backend_token()).json()["access_token"]
    await disable_client(world.store, "ehr", now=world.clock())
    assert not await world.is_alive(token)
    assert_oauth_error(await ehr.backend_token(), "invalid_client", 401)
    await enable_client(world.store, "ehr")
    assert (await ehr.backend_token()).status_code == 200
    assert not await world.is_alive(token)


async def test_a_client_let_in_again_is_managed_by_nobody(world: World) -> None:
    """A leaked token. Planted fault: it comes back when the client does."""
    await world.public_app("chart", registration_hash="a hash")
    await disable_client(world.store, "chart", now=START)
    assert (await of(world)).registration_hash is None
    await enable_client(world.store, "chart")
    assert (await of(world)).registration_hash is None


async def test_an_unknown_client_cannot_be_changed(world: World) -> None:
    with pytest.raises(UnknownClient):
        await disable_client(world.store, "nobody", now=0)
    with pytest.raises(UnknownClient):
        await enable_client(world.store, "nobody")
    with pytest.raises(UnknownClient):
        await new_client_secret(world.store, "nobody", random=world.random)


async def test_secrets_are_hashed_at_rest(world: World) -> None:
    app = await world.confidential_app()
    assert app.secret
    assert app.secret not in str(await world.store.every(Client))


# --- approval, practice by practice --------------------------------------------------------------

USERS = "openid fhirUser launch user/*.rs"


async def staff_app(world: World, *practices: str, scope: str = USERS) -> Client:
    await world.public_app("chart", scope=scope, approved_at=practices)
    return await of(world)


async def of(world: World, client_id: str = "chart") -> Client:
    client = await world.store.get(Client, client_id)
    assert client is not None
    return client


async def given(
    world: World, name: str, practice: str, fhir_user: str, client_id: str = "chart"
) -> None:
    """Rows as an exchanged code leaves them, and one of a code that waits for its exchange."""
    common: dict[str, Any] = {
        "client_id": client_id,
        "scope": "openid",
        "account": "account",
        "practice": practice,
        "patient": "Patient/mara",
        "fhir_user": fhir_user,
        "grant": None,
        "expires": START + 3600,
    }
    times: dict[str, Any] = {"issued": START, "rotated": START}
    family = TokenFamily(key=name, **common, **times)
    token = AccessToken(
        key=token_hash(name * 20), context="patient", family=name, issued=START, **common
    )
    code = AuthorizationCode(
        key=f"code-{name}",
        good_until=START + 60,
        redirect_uri=REDIRECT,
        code_challenge="c",
        nonce=None,
        auth_time=START,
        **common,
    )

    async def keep(transaction: Any) -> None:
        for record in (family, token, code):
            await transaction.insert(record)

    await world.store.transact(keep)


async def alive(world: World) -> list[str]:
    """Which of `given` are in force as a whole: family, access token and code."""
    families = [one.key for one in await world.store.every(TokenFamily) if one.ended is None]
    tokens = {one.family for one in await world.store.every(AccessToken)}
    codes = {one.key.removeprefix("code-") for one in await world.store.every(AuthorizationCode)}
    assert set(families) == tokens == codes
    return sorted(families)


async def test_an_app_serves_the_staff_of_practices_that_approved_it(world: World) -> None:
    """Planted fault: one approval is every practice's."""
    client = await staff_app(world, "skin")
    assert client.serves_staff_of("skin")
    assert not client.serves_staff_of("family")
    client = await approve_client(world.store, "chart", practices=["family", "family"])
    assert client.approved_at == ("family", "skin")
    assert client == await of(world)
    assert client.serves_staff_of("family")
    await disable_client(world.store, "chart", now=START)
    assert not (await of(world)).serves_staff_of("skin")


async def test_a_patients_app_serves_no_staff_until_a_practice_approves_it(world: World) -> None:
    await world.public_app("chart", scope="launch patient/*.rs")
    assert not (await of(world)).serves_staff_of("skin")
    await approve_client(world.store, "chart", practices=["skin"])
    assert (await of(world)).serves_staff_of("skin")


REVIEWED: dict[str, Any] = {
    "name": "Other",
    "type": "backend",
    "auth_method": "private_key_jwt",
    "scope": "user/*.cruds",
    "redirect_uris": ("https://other.example/cb",),
    "jwks": KEYS,
    "jwks_uri": "https://other.example/jwks",
    "backchannel_revocation_uri": "https://other.example/ended",
    "require_pushed_authorization_requests": True,
    "dpop_bound_access_tokens": True,
    "metadata": {"client_uri": "https://other.example/"},
}


async def test_the_fingerprint_is_of_all_that_a_client_says_of_itself(world: World) -> None:
    """Planted fault: a field is left out."""
    client = await staff_app(world, "skin")
    others = [msgspec.structs.replace(client, **{name: REVIEWED[name]}) for name in REVIEWED]
    assert len({fingerprint(one) for one in [client, *others]}) == len(REVIEWED) + 1
    ours: dict[str, Any] = {
        "approved_at": ("eye",),
        "practice": "skin",
        "permissions": ("label",),
        "key": "x",
    }
    ours |= {"awaits_review": True, "disabled": True, "registration_hash": "x", "registered": 0.0}
    assert fingerprint(msgspec.structs.replace(client, **ours)) == fingerprint(client)
    rest = {"expires", "secret_hash", "self_registered"}
    assert {*REVIEWED, *ours, *rest} == {one.name for one in msgspec.structs.fields(Client)}


async def test_the_fingerprint_does_not_depend_on_the_order_of_members(world: World) -> None:
    client = await staff_app(world, "skin")
    one, other = (
        msgspec.structs.replace(client, metadata=dict(members))
        for members in ([("a", "1"), ("b", "2")], [("b", "2"), ("a", "1")])
    )
    assert fingerprint(one) == fingerprint(other)


async def test_what_was_looked_at_is_what_is_approved(world: World) -> None:
    """Another client between the look and the approval. Planted fault: it is not compared."""
    client = await staff_app(world, "skin")
    seen = fingerprint(msgspec.structs.replace(client, scope="patient/*.rs"))
    before = await world.rows()
    with pytest.raises(ChangedSinceReview):
        await approve_client(world.store, "chart", practices=["eye"], reviewed=seen)
    assert await world.rows() == before
    seen = fingerprint(client)
    approved = await approve_client(world.store, "chart", practices=["eye"], reviewed=seen)
    assert approved.approved_at == ("eye", "skin")


async def test_an_approval_is_taken_back_at_one_practice_and_its_tokens_end(world: World) -> None:
    """Planted faults: the tokens stay; all practices' tokens go; what patients gave goes."""
    await staff_app(world, "skin", "family", "eye")
    await given(world, "a", "skin", "Practitioner/ann")
    await given(world, "b", "family", "Practitioner/ben")
    await given(world, "c", "skin", "Patient/mara")
    client, ended = await withdraw_approval(
        world.store, "chart", practices=["skin", "eye"], now=START
    )
    assert (client.approved_at, client.awaits_review, ended) == (("family",), False, 1)
    assert client == await of(world)
    assert await alive(world) == ["b", "c"]
    family = await world.store.get(TokenFamily, "a")
    assert family is not None
    assert family.ended_because == "approval-withdrawn"


async def test_without_any_approval_an_app_for_staff_waits_again(world: World) -> None:
    await staff_app(world, "skin")
    await given(world, "a", "skin", "Practitioner/ann")
    await given(world, "b", "family", "Practitioner/ben")
    client, ended = await withdraw_approval(world.store, "chart", practices=["skin"], now=START)
    assert (client.approved_at, client.awaits_review, ended) == ((), True, 2)
    assert await alive(world) == []
    with pytest.raises(InvalidClientMetadata):
        await approve_client(world.store, "chart")
    assert (await approve_client(world.store, "chart", practices=["eye"])).is_open


async def test_a_patients_app_stays_open_to_patients(world: World) -> None:
    """Planted fault: what no practice approves waits, whatever it asks for."""
    await staff_app(world, "skin", scope="launch patient/*.rs")
    await given(world, "a", "skin", "Practitioner/ann")
    await given(world, "b", "skin", "Patient/mara")
    client, ended = await withdraw_approval(world.store, "chart", practices=["skin"], now=START)
    assert (client.is_open, client.approved_at, ended) == (True, (), 1)
    assert await alive(world) == ["b"]


async def test_a_backend_waits_again_and_stays_its_practices(world: World) -> None:
    """Planted fault: a practice takes over what another one turned away."""
    ehr = await world.backend(permissions=["launch"])
    token = (await ehr.backend_token()).json()["access_token"]
    client, _ = await withdraw_approval(world.store, "ehr", practices=["skin"], now=world.clock())
    assert (client.practice, client.awaits_review) == ("skin", True)
    assert not await world.is_alive(token)
    assert_oauth_error(await ehr.backend_token(), "unauthorized_client")
    with pytest.raises(InvalidClientMetadata):
        await approve_client(world.store, "ehr", practices=["family"])
    approved = await approve_client(world.store, "ehr", practices=["skin"])
    assert approved.permissions == ("launch",)
    assert (await ehr.backend_token()).status_code == 200


async def test_who_introspects_for_a_practice_does_so_no_more(world: World) -> None:
    await world.confidential_app(
        "chart", practice="skin", approved_at=["skin"], permissions=["introspect"]
    )
    client, _ = await withdraw_approval(world.store, "chart", practices=["skin"], now=START)
    assert (client.practice, client.permissions, client.is_open) == (None, (), True)
    with pytest.raises(InvalidClientMetadata):
        await approve_client(world.store, "chart", permissions=["introspect"])
    for practices in (["skin", "family"], ["nobody", "skin"]):
        with pytest.raises(InvalidClientMetadata):
            await approve_client(
                world.store, "chart", practices=practices, permissions=["introspect"]
            )


@pytest.mark.parametrize("practices", [[], ["family"], ["skin", "family"]])
async def test_only_what_was_approved_is_taken_back(world: World, practices: list[str]) -> None:
    await staff_app(world, "skin")
    await world.backend()
    before = await world.rows()
    for client_id in ("chart", "ehr"):
        with pytest.raises(InvalidClientMetadata):
            await withdraw_approval(world.store, client_id, practices=practices, now=START)
    with pytest.raises(UnknownClient):
        await withdraw_approval(world.store, "nobody", practices=["skin"], now=START)
    assert await world.rows() == before
