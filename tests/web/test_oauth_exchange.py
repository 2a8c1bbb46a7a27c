"""Several records over HTTP: what is published, what is refused, who is kept out.

Each attack was seen to succeed with the fault that its docstring names.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import jsonschema
import msgspec
import pytest

from fhir_portal.access.authenticate import Callers
from fhir_portal.fhir.errors import Unauthenticated
from fhir_portal.smart.client import disable_client
from fhir_portal.smart.exchange import TOKEN_EXCHANGE
from fhir_portal.smart.token import AccessToken, TokenFamily
from tests.smart.proofs import Holder
from tests.smart.several import (
    DETAILS,
    KIT,
    OWN,
    PIP,
    SCOPE,
    TYPE,
    a_family,
    consent,
    listed,
    of,
    swap,
)
from tests.smart.world import (
    BASE,
    World,
    assert_oauth_error,
    assert_redirect_error,
    query_of,
)


@pytest.fixture
async def world() -> AsyncIterator[World]:
    world = await World.begin()
    await a_family(world)
    yield world
    world.close()


async def test_the_type_is_published_where_it_says(world: World) -> None:
    for document in (world.server.smart_configuration(), world.server.openid_configuration()):
        assert document["authorization_details_types_supported"] == [TYPE]
        assert TOKEN_EXCHANGE in document["grant_types_supported"]
    async with world.http() as http:
        response = await http.get(
            TYPE.removeprefix(BASE), headers={"Origin": "https://any.example"}
        )
    assert response.status_code == 200
    assert response.headers["access-control-allow-origin"] == "*"
    told = (await listed(await world.public_app()))["authorization_details"]
    description = jsonschema.Draft202012Validator(response.json())
    for one in told:
        known = {name: one[name] for name in ("type", "locations", "identifier")}
        description.validate(known)


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"authorization_details": "x"}, "invalid_authorization_details"),
        ({"authorization_details": "[]"}, "invalid_authorization_details"),
        ({"authorization_details": '[{"type":"other"}]'}, "invalid_authorization_details"),
        ({"scope": "launch/patient patient/Patient.rs"}, "invalid_scope"),
        ({"scope": "openid"}, "invalid_scope"),
        ({"scope": "openid user/Patient.rs"}, "invalid_scope"),
    ],
)
async def test_the_app_is_told_what_is_wrong(
    world: World, change: dict[str, str], error: str
) -> None:
    app = await world.public_app()
    changes = {"scope": SCOPE, "authorization_details": DETAILS, **change}
    assert_redirect_error(await world.browser().authorize(app, **changes), error)


@pytest.mark.parametrize("values", [[PIP], [OWN, PIP], [OWN, PIP, KIT]])
async def test_on_the_pages_a_person_ticks_the_records(world: World, values: list[str]) -> None:
    """Planted fault: the picker's other ticks are lost."""
    app = await world.public_app()
    browser = world.browser()
    await browser.authorize(app, scope=SCOPE, authorization_details=DETAILS)
    await browser.sign_in()
    await browser.submit({"record": values})
    await browser.submit({"decision": "approve", "scope": browser.boxes(ticked=True)})
    code = query_of(browser.page.headers["location"])["code"]
    body = (await app.exchange(code)).json()
    assert [one["identifier"] for one in body["authorization_details"]] == values
    for identifier in values:
        assert (await swap(app, body["access_token"], identifier)).status_code == 200


async def test_the_request_may_be_pushed(world: World) -> None:
    app = await world.public_app()
    form = app.parameters(scope=SCOPE, authorization_details=DETAILS)
    assert (await app.post("/oauth/par", form)).status_code == 201
    wrong = app.parameters(scope=SCOPE, authorization_details="[{}]")
    assert_oauth_error(await app.post("/oauth/par", wrong), "invalid_authorization_details")


@pytest.mark.parametrize("grant_type", ["authorization_code", "refresh_token"])
async def test_details_go_with_an_exchange_only(world: World, grant_type: str) -> None:
    """Passed over, they would be thought to be granted. Planted fault: they are ignored."""
    app = await world.public_app()
    code = await consent(app)
    form = {"grant_type": grant_type, "code": code, "authorization_details": DETAILS}
    assert_oauth_error(await app.post("/oauth/token", form), "invalid_authorization_details")


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"subject_token": None}, "invalid_request"),
        ({"subject_token": "unknown-token-of-nobody-x"}, "invalid_request"),
        ({"subject_token": "é"}, "invalid_request"),
        ({"subject_token_type": None}, "invalid_request"),
        ({"subject_token_type": "urn:ietf:params:oauth:token-type:jwt"}, "invalid_request"),
        (
            {"requested_token_type": "urn:ietf:params:oauth:token-type:refresh_token"},
            "invalid_request",
        ),
        ({"actor_token": "x"}, "invalid_request"),
        ({"actor_token_type": "x"}, "invalid_request"),
        ({"resource": "https://elsewhere.example/fhir"}, "invalid_target"),
        ({"audience": "elsewhere"}, "invalid_target"),
        ({"authorization_details": None}, "invalid_authorization_details"),
        ({"authorization_details": "x"}, "invalid_authorization_details"),
        ({"authorization_details": DETAILS}, "invalid_authorization_details"),
        ({"scope": "patient/Goal.rs"}, "invalid_scope"),
        ({"scope": "patient/Patient.cruds"}, "invalid_scope"),
        ({"scope": "system/*.rs"}, "invalid_scope"),
        ({"scope": "openid"}, "invalid_scope"),
        ({"scope": "nonsense"}, "invalid_scope"),
    ],
)
async def test_a_bad_exchange_gives_nothing(
    world: World, change: dict[str, Any], error: str
) -> None:
    """Planted fault: the scope asked for is not held against what was consented to."""
    app = await world.public_app()
    body = await listed(app)
    before = await world.rows()
    assert_oauth_error(await swap(app, body["access_token"], **change), error)
    assert await world.rows() == before


@pytest.mark.parametrize("place", [f"{BASE}/fhir", "http://localhost:8000/fhir/"])
async def test_the_place_may_be_named(world: World, place: str) -> None:
    app = await world.public_app()
    body = await listed(app)
    response = await swap(app, body["access_token"], resource=place, audience=place)
    assert response.status_code == 200


async def test_less_may_be_asked_for(world: World) -> None:
    app = await world.public_app()
    body = await listed(app)
    response = await swap(app, body["access_token"], scope="patient/Observation.s")
    assert response.json()["scope"] == "patient/Observation.s"
    assert of(response.json(), PIP)["scope"] == "patient/Observation.s"


async def test_a_record_that_was_not_chosen_is_not_given(world: World) -> None:
    """Another record of the same person. Planted fault: any of their records can be named."""
    app = await world.public_app()
    body = await listed(app, [OWN, PIP])
    for identifier in (KIT, "skin/Patient/kit", "Patient/nobodys", "Consent/kit-to-mara"):
        response = await swap(app, body["access_token"], identifier)
        assert_oauth_error(response, "invalid_authorization_details")


async def test_what_was_not_ticked_is_not_given(world: World) -> None:
    """Planted fault: the exchange gives what the client may ask for."""
    app = await world.public_app()
    body = await listed(app, ticked=["patient/Observation.rs"])
    assert of(body, PIP)["scope"] == "launch/patient patient/Observation.rs"
    wider = await swap(app, body["access_token"], scope="patient/Patient.rs")
    assert_oauth_error(wider, "invalid_scope")
    assert (await swap(app, body["access_token"])).json()["scope"] == of(body, PIP)["scope"]


async def test_a_records_own_token_is_exchanged_for_nothing(world: World) -> None:
    """From one child to the other. Planted fault: any token of the consent is a subject."""
    app = await world.public_app()
    body = await listed(app)
    pips = (await swap(app, body["access_token"], PIP)).json()
    assert_oauth_error(await swap(app, pips["access_token"], KIT), "invalid_request")
    usual = await app.tokens(scope="launch/patient patient/Patient.rs")
    assert_oauth_error(await swap(app, usual["access_token"], KIT), "invalid_request")


@pytest.mark.parametrize("which", ["refresh_token", "id_token"])
async def test_only_the_access_token_is_exchanged(world: World, which: str) -> None:
    app = await world.public_app()
    body = await listed(app)
    assert_oauth_error(await swap(app, body[which]), "invalid_request")


async def test_another_app_exchanges_nothing(world: World) -> None:
    """A stolen list. Planted fault: whose token it is, is not compared."""
    app, thief = await world.public_app(), await world.public_app("thief")
    body = await listed(app)
    assert_oauth_error(await swap(thief, body["access_token"]), "invalid_request")
    ehr = await world.backend()
    response = await swap(ehr, body["access_token"])
    assert_oauth_error(response, "unauthorized_client")


async def test_a_client_that_cannot_authenticate_exchanges_nothing(world: World) -> None:
    app = await world.confidential_app()
    body = await listed(app)
    app.secret = "wrong"
    assert_oauth_error(await swap(app, body["access_token"]), "invalid_client", 401)


async def expires(world: World) -> None:
    world.clock.advance(900)


async def account_is_disabled(world: World) -> None:
    changed = msgspec.structs.replace(world.mara, disabled=True)

    async def put(transaction: Any) -> None:
        await transaction.put(changed)

    await world.store.transact(put)


@pytest.mark.parametrize("happens", [expires, account_is_disabled])
async def test_a_list_that_is_over_is_exchanged_for_nothing(world: World, happens: Any) -> None:
    """Planted fault: the account is not looked at."""
    app = await world.public_app()
    body = await listed(app)
    await happens(world)
    response = await swap(app, body["access_token"])
    assert response.json()["error"] in ("invalid_request", "invalid_target")


async def test_a_client_shut_out_exchanges_nothing(world: World) -> None:
    """Planted fault: a disabled client still authenticates."""
    app = await world.public_app()
    body = await listed(app)
    await disable_client(world.store, app.client_id, now=world.clock())
    assert_oauth_error(await swap(app, body["access_token"]), "invalid_client", 401)


async def test_an_exchange_that_races_a_revocation_leaves_nothing_alive(world: World) -> None:
    """Planted fault: the exchange does not look again whether its families still stand."""
    app = await world.public_app()
    body = await listed(app)
    await asyncio.gather(
        *(swap(app, body["access_token"], one) for one in (OWN, PIP, KIT)),
        app.post("/oauth/revoke", {"token": body["access_token"]}),
        *(swap(app, body["access_token"], one) for one in (OWN, PIP, KIT)),
    )
    assert await world.store.every(AccessToken) == []


async def test_a_revocation_between_reading_and_writing_is_noticed(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Planted fault: the exchange does not look again whether its families still stand."""
    app = await world.public_app()
    body = await listed(app)
    pips = next(f for f in await world.store.every(TokenFamily) if f.patient == PIP)
    transact = world.store.transact

    async def slow(work: Any) -> Any:
        async def end(transaction: Any) -> None:
            await transaction.put(msgspec.structs.replace(pips, ended=world.clock()))

        await transact(end)
        return await transact(work)

    monkeypatch.setattr(world.store, "transact", slow)
    assert_oauth_error(await swap(app, body["access_token"], PIP), "invalid_target")
    monkeypatch.undo()
    assert [t for t in await world.store.every(AccessToken) if t.patient] == []


async def test_the_list_itself_opens_no_record_at_the_api(world: World) -> None:
    """Planted fault: a token without a patient is taken for one with every patient."""
    app = await world.public_app()
    body = await listed(app)
    callers = Callers(world.store, world.clock)
    with pytest.raises(Unauthenticated):
        await callers.of(body["access_token"])


async def test_a_bound_list_is_exchanged_by_the_holder_of_its_key(world: World) -> None:
    """Planted fault: the subject's key is not compared."""
    app, holder = await world.public_app(), Holder(world)
    body = await listed(app, headers={"DPoP": holder.proof()})
    assert body["token_type"] == "DPoP"
    assert_oauth_error(await swap(app, body["access_token"]), "invalid_dpop_proof")
    other = {"DPoP": Holder(world).proof()}
    stolen = await swap(app, body["access_token"], headers=other)
    assert_oauth_error(stolen, "invalid_dpop_proof")
    good = await swap(app, body["access_token"], headers={"DPoP": holder.proof()})
    assert good.json()["token_type"] == "DPoP"
    tokens = await world.store.every(AccessToken)
    assert {token.jkt for token in tokens} == {holder.jkt}


async def test_introspection_tells_the_records_of_a_list_and_the_one_of_a_record(
    world: World,
) -> None:
    app = await world.confidential_app()
    body = await listed(app)
    pips = (await swap(app, body["access_token"], PIP)).json()
    for which in ("access_token", "refresh_token"):
        response = await app.post("/oauth/introspect", {"token": body[which]})
        found = response.json()
        assert found["active"] is True
        assert "patient" not in found
        assert found["authorization_details"] == body["authorization_details"]
        assert (found["iss"], found["sub"]) == (BASE, world.mara.key)
    found = (await app.post("/oauth/introspect", {"token": pips["access_token"]})).json()
    assert found["patient"] == "pip"
    assert found["scope"] == pips["scope"]
    assert found["authorization_details"] == pips["authorization_details"]


async def test_a_parameter_comes_once(world: World) -> None:
    """Parameter pollution: two records in one exchange. Planted fault: the last one counts."""
    app = await world.public_app()
    body = await listed(app)
    form = [
        ("grant_type", TOKEN_EXCHANGE),
        ("client_id", app.client_id),
        ("subject_token", body["access_token"]),
        ("subject_token_type", "urn:ietf:params:oauth:token-type:access_token"),
        *(
            ("authorization_details", json.dumps([{"type": TYPE, "identifier": one}]))
            for one in (PIP, KIT)
        ),
    ]
    async with world.http() as http:
        content = str(httpx.QueryParams(form))
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        response = await http.post("/oauth/token", content=content, headers=headers)
    assert_oauth_error(response, "invalid_request")
