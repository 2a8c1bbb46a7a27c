"""Several records in one consent, and one token for each (RFC 8693, RFC 9396)."""

from __future__ import annotations

from typing import Any

import pytest
from joserfc import jwt

from fhir_portal.smart import errors
from fhir_portal.smart.approval import NothingTicked, RecordChanged
from fhir_portal.smart.authorization import AskConsent, ChooseRecord, Finished
from fhir_portal.smart.code import AuthorizationCode
from fhir_portal.smart.errors import ConsentRequired
from fhir_portal.smart.grants.token_exchange import ACCESS_TOKEN
from fhir_portal.smart.revocation import revoke_where
from fhir_portal.smart.token import AccessToken, TokenFamily, authenticate
from tests.smart.several import (
    DETAILS,
    KIT,
    OWN,
    PIP,
    SCOPE,
    TYPE,
    a_family,
    consent,
    give,
    kits_record,
    known_at,
    listed,
    of,
    swap,
)
from tests.smart.world import (
    BASE,
    World,
    assert_oauth_error,
    childs_record,
    own_record,
    published_keys,
)


async def asked(world: World, app: Any, **changes: str | None) -> Any:
    """Where the person stands after signing in: request, visitor, step."""
    parameters = app.parameters(**{"scope": SCOPE, "authorization_details": DETAILS, **changes})
    handle = await world.server.begin(list(parameters.items()))
    opened = await world.sessions.open()
    opened = await world.sessions.sign_in(opened.visitor.session, world.mara)
    request = await world.server.resume(handle, opened.visitor.browser)
    return handle, opened.visitor, await world.server.step(request, opened.visitor)


async def test_the_picker_takes_several(world: World) -> None:
    await a_family(world)
    app = await world.public_app()
    _, _, step = await asked(world, app)
    assert isinstance(step, ChooseRecord)
    assert step.several
    _, _, step = await asked(world, app, authorization_details=None)
    assert not step.several


async def test_the_consent_is_about_all_that_were_chosen(world: World) -> None:
    await a_family(world)
    app = await world.public_app()
    handle, visitor, _ = await asked(world, app)
    request = await world.server.resume(handle, visitor.browser)
    await world.server.choose_records(request, visitor, [PIP, KIT, PIP])
    request = await world.server.resume(handle, visitor.browser)
    step = await world.server.step(request, visitor)
    assert isinstance(step, AskConsent)
    assert step.record is not None
    assert [one.patient for one in (step.record, *step.others)] == [PIP, KIT]
    assert step.other_records


async def test_a_consent_page_is_about_the_records_it_showed(world: World) -> None:
    """Swapping records below a consent. Planted fault: ``about`` names the first record only."""
    await a_family(world)
    app = await world.public_app()
    handle, visitor, _ = await asked(world, app)
    request = await world.server.resume(handle, visitor.browser)
    await world.server.choose_records(request, visitor, [OWN, PIP])
    request = await world.server.resume(handle, visitor.browser)
    step: Any = await world.server.step(request, visitor)
    await world.server.choose_records(request, visitor, [OWN, KIT])
    request = await world.server.resume(handle, visitor.browser)
    with pytest.raises(RecordChanged):
        await world.server.decide(
            request, visitor, approve=True, about=step.about, ticked=["patient/Patient.rs"]
        )


@pytest.mark.parametrize("values", [[], ["Patient/nobodys"], [OWN, "Patient/nobodys"]])
async def test_only_ones_own_records_can_be_chosen(world: World, values: list[str]) -> None:
    """Planted fault: what is not known is passed over, or taken."""
    await a_family(world)
    app = await world.public_app()
    handle, visitor, _ = await asked(world, app)
    request = await world.server.resume(handle, visitor.browser)
    with pytest.raises((errors.AccessDenied, errors.InvalidRequest)):
        await world.server.choose_records(request, visitor, values)
    assert await world.server.resume(handle, visitor.browser) == request


async def test_without_the_detail_one_record_is_chosen(world: World) -> None:
    """Planted fault: any request may be answered with several records."""
    await a_family(world)
    app = await world.public_app()
    handle, visitor, _ = await asked(world, app, authorization_details=None)
    request = await world.server.resume(handle, visitor.browser)
    with pytest.raises(errors.InvalidRequest):
        await world.server.choose_records(request, visitor, [OWN, PIP])


async def test_a_record_lost_meanwhile_is_chosen_again(world: World) -> None:
    await a_family(world)
    app = await world.public_app()
    handle, visitor, _ = await asked(world, app)
    request = await world.server.resume(handle, visitor.browser)
    await world.server.choose_records(request, visitor, [OWN, PIP])
    await give(world, own_record(), kits_record())
    request = await world.server.resume(handle, visitor.browser)
    assert isinstance(await world.server.step(request, visitor), ChooseRecord)


async def test_the_code_buys_a_token_that_lists_and_reads_nothing(world: World) -> None:
    """DESIGN 3.7. Planted fault: the token reads the first record as well."""
    await a_family(world)
    app = await world.public_app()
    body = await listed(app)
    assert "patient" not in body
    assert "need_patient_banner" not in body
    assert set(body["scope"].split()) == {"openid", "fhirUser", "offline_access"}
    token = await authenticate(world.store, body["access_token"], world.clock())
    assert token is not None
    assert (token.patient, token.access, token.grant) == (None, None, None)
    assert [one["identifier"] for one in body["authorization_details"]] == [OWN, PIP, KIT]
    assert of(body, PIP) == {
        "type": TYPE,
        "locations": [f"{BASE}/fhir"],
        "identifier": PIP,
        "patient": "pip",
        "fhirUser": f"{BASE}/fhir/RelatedPerson/mara-for-pip",
        "scope": "launch/patient patient/Patient.rs patient/Observation.rs",
    }


async def test_each_record_is_exchanged_for_its_own_token(world: World) -> None:
    await a_family(world)
    app = await world.public_app()
    body = await listed(app)
    for identifier, patient, fhir_user, practice in (
        (OWN, "mara", "Patient/mara", "skin"),
        (PIP, "pip", "RelatedPerson/mara-for-pip", "family"),
        (KIT, "kit", "RelatedPerson/mara-for-kit", "skin"),
    ):
        response = await swap(app, body["access_token"], identifier)
        one = response.json()
        assert response.status_code == 200, response.text
        assert response.headers["cache-control"] == "no-store"
        assert one["issued_token_type"] == ACCESS_TOKEN
        assert (one["token_type"], one["expires_in"]) == ("Bearer", 900)
        assert (one["patient"], one["need_patient_banner"]) == (patient, True)
        assert "refresh_token" not in one
        assert one["scope"] == of(body, identifier)["scope"]
        assert one["authorization_details"] == [of(body, identifier)]
        token = await authenticate(world.store, one["access_token"], world.clock())
        assert token is not None
        assert token.access is not None
        assert token.access[:3] == (practice, f"Patient/{patient}", fhir_user)


async def test_two_records_of_one_id_are_told_apart_by_their_practices(world: World) -> None:
    same = kits_record(patient=PIP)
    await give(world, childs_record(), same)
    app = await world.public_app()
    body = await listed(app, ["family/Patient/pip", "skin/Patient/pip"])
    for identifier, practice in (("family/Patient/pip", "family"), ("skin/Patient/pip", "skin")):
        one = (await swap(app, body["access_token"], identifier)).json()
        token = await authenticate(world.store, one["access_token"], world.clock())
        assert token is not None
        assert (token.practice, token.patient) == (practice, PIP)


async def test_what_was_ticked_holds_for_each_as_far_as_it_allows(world: World) -> None:
    """Planted fault: what one record allows is kept and listed for all of them."""
    narrow = kits_record(sections=frozenset({"demographics"}))
    await give(world, own_record(), narrow)
    app = await world.public_app()
    body = await listed(app, [OWN, KIT])
    assert of(body, OWN)["scope"] == "launch/patient patient/Patient.rs patient/Observation.rs"
    assert of(body, KIT)["scope"] == "launch/patient patient/Patient.rs"


async def test_a_record_on_which_nothing_was_allowed_is_left_out(world: World) -> None:
    narrow = kits_record(sections=frozenset({"demographics"}))
    await give(world, own_record(), narrow)
    app = await world.public_app()
    body = await listed(app, [OWN, KIT], ticked=["patient/Observation.rs"])
    assert [one["identifier"] for one in body["authorization_details"]] == [OWN]


async def test_to_tick_nothing_allows_nothing(world: World) -> None:
    await a_family(world)
    app = await world.public_app()
    with pytest.raises(NothingTicked):
        await consent(app, [OWN, PIP], ticked=[])


async def test_the_id_token_names_a_person_where_one_practice_knows_them_all(
    world: World,
) -> None:
    """Person stands for somebody with several records, and nowhere else (DESIGN 3.7)."""
    await a_family(world)
    await known_at(world, "skin/Person/p1", "family/Person/p2")
    app = await world.confidential_app()
    keys = published_keys(world.keys.jwks())

    async def fhir_user(values: list[str]) -> Any:
        body = await listed(app, values)
        claims = jwt.decode(body["id_token"], keys, algorithms=["RS256"]).claims
        assert claims["sub"] == world.mara.key
        introspected = await app.post("/oauth/introspect", {"token": body["access_token"]})
        assert introspected.json().get("fhirUser") == claims.get("fhirUser")
        return claims.get("fhirUser")

    assert await fhir_user([OWN, KIT]) == f"{BASE}/fhir/Person/p1"
    assert await fhir_user([PIP]) == f"{BASE}/fhir/Person/p2"
    assert await fhir_user([OWN, PIP]) is None


async def test_the_list_is_refreshed_and_exchanged_again(world: World) -> None:
    await a_family(world)
    app = await world.public_app()
    body = await listed(app)
    world.clock.advance(86_400)
    response = await app.refresh(body["refresh_token"])
    again = response.json()
    assert response.status_code == 200
    assert "patient" not in again
    assert again["authorization_details"] == body["authorization_details"]
    assert (await swap(app, again["access_token"], KIT)).json()["patient"] == "kit"
    repeated = await app.refresh(body["refresh_token"])
    assert repeated.content == response.content


async def test_the_records_stay_as_long_as_the_list(world: World) -> None:
    """Planted fault: refreshing the list does not prolong what is below it."""
    await a_family(world)
    app = await world.public_app()
    body = await listed(app)
    for _ in range(4):
        world.clock.advance(80 * 86_400)
        body = (await app.refresh(body["refresh_token"])).json()
    assert (await swap(app, body["access_token"], PIP)).status_code == 200
    families = await world.store.every(TokenFamily)
    assert len({family.expires for family in families}) == 1


async def test_a_record_goes_from_the_list_when_access_to_it_ends(world: World) -> None:
    """Planted fault: the list is what it was when it was consented to."""
    await a_family(world)
    app = await world.public_app()
    body = await listed(app)
    await give(world, own_record(), kits_record())
    assert_oauth_error(await swap(app, body["access_token"], PIP), "invalid_target")
    again = (await app.refresh(body["refresh_token"])).json()
    assert [one["identifier"] for one in again["authorization_details"]] == [OWN, KIT]
    await give(world)
    assert_oauth_error(await app.refresh(again["refresh_token"]), "invalid_grant")
    assert {f.ended_because for f in await world.store.every(TokenFamily)} == {"access-ended"}


async def test_another_grant_for_the_same_record_is_another_consent(world: World) -> None:
    """Planted fault: the record is looked up, the grant it was given for is not compared."""
    await a_family(world)
    app = await world.public_app()
    body = await listed(app)
    await give(world, own_record(), childs_record(), kits_record(grant="Consent/later"))
    assert_oauth_error(await swap(app, body["access_token"], KIT), "invalid_target")


async def test_ending_one_record_leaves_the_others(world: World) -> None:
    await a_family(world)
    app = await world.public_app()
    body = await listed(app)
    pips, kits = [(await swap(app, body["access_token"], one)).json() for one in (PIP, KIT)]

    async def end(transaction: Any) -> int:
        return await revoke_where(
            transaction,
            "grant",
            "Consent/pip-to-mara",
            practice="family",
            now=world.clock(),
            because="grant-ended",
        )

    assert await world.store.transact(end) == 1
    assert not await world.is_alive(pips["access_token"])
    assert await world.is_alive(kits["access_token"])
    assert_oauth_error(await swap(app, body["access_token"], PIP), "invalid_target")
    again = (await app.refresh(body["refresh_token"])).json()
    assert [one["identifier"] for one in again["authorization_details"]] == [OWN, KIT]


async def test_a_grant_that_ends_is_taken_from_a_code_that_waits(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also between the look at the code and the transaction that exchanges it.

    Planted fault: codes are found by the first of their records only.
    """
    await a_family(world)
    app = await world.public_app()
    code = await consent(app, (OWN, PIP, KIT))
    transact = world.store.transact

    async def end(transaction: Any) -> int:
        return await revoke_where(
            transaction,
            "grant",
            "Consent/kit-to-mara",
            practice="skin",
            now=world.clock(),
            because="grant-ended",
        )

    async def ended_first(work: Any) -> Any:
        monkeypatch.setattr(world.store, "transact", transact)
        await transact(end)
        return await transact(work)

    monkeypatch.setattr(world.store, "transact", ended_first)
    body = (await app.exchange(code)).json()
    assert [one["identifier"] for one in body["authorization_details"]] == [OWN, PIP]
    families = await world.store.every(TokenFamily)
    assert KIT not in {family.patient for family in families}
    (used,) = await world.store.every(AuthorizationCode)
    assert used.for_several is None


async def test_a_code_of_which_nothing_is_left_goes(world: World) -> None:
    await a_family(world)
    app = await world.public_app()
    await consent(app, (PIP,))

    async def end(transaction: Any) -> int:
        return await revoke_where(
            transaction,
            "patient",
            PIP,
            practice="family",
            now=world.clock(),
            because="record-ended",
        )

    await world.store.transact(end)
    assert await world.store.every(AuthorizationCode) == []


async def test_ending_the_list_ends_all_of_them(world: World) -> None:
    """Planted fault: what is below a family outlives it."""
    await a_family(world)
    app = await world.public_app()
    body = await listed(app)
    pips = (await swap(app, body["access_token"], PIP)).json()
    await app.post("/oauth/revoke", {"token": body["refresh_token"]})
    assert not await world.is_alive(pips["access_token"])
    assert await world.store.every(AccessToken) == []
    assert all(f.ended is not None for f in await world.store.every(TokenFamily))
    assert_oauth_error(await swap(app, body["access_token"], PIP), "invalid_request")


async def test_a_replayed_code_ends_all_of_them(world: World) -> None:
    await a_family(world)
    app = await world.public_app()
    code = await consent(app)
    body = (await app.exchange(code)).json()
    await swap(app, body["access_token"], PIP)
    assert_oauth_error(await app.exchange(code), "invalid_grant")
    assert await world.store.every(AccessToken) == []


async def test_a_token_of_a_record_ends_with_the_access_to_it(world: World) -> None:
    until = world.clock() + 100
    await give(world, own_record(), childs_record(until=until))
    app = await world.public_app()
    body = await listed(app, [OWN, PIP])
    assert (await swap(app, body["access_token"], PIP)).json()["expires_in"] == 100
    assert (await swap(app, body["access_token"], OWN)).json()["expires_in"] == 900


async def test_consent_for_several_is_asked_each_time(world: World) -> None:
    """Planted fault: a client that can keep a secret gets several records unasked."""
    await give(world, own_record())
    app = await world.confidential_app()
    await app.tokens()
    _, _, step = await asked(world, app, authorization_details=None, prompt="none")
    assert isinstance(step, Finished)
    with pytest.raises(ConsentRequired):
        await asked(world, app, prompt="none")
