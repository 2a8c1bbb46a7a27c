"""EHR launches: what an EHR may say, who may use it, and what the app is told of it.

Each attack was seen to succeed with the fault that its docstring names.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from fhir_portal.smart.authorization import AuthorizationRequest
from fhir_portal.smart.client import Client, disable_client
from fhir_portal.smart.code import AuthorizationCode
from fhir_portal.smart.launch import LIFETIME_SECONDS, Launch
from fhir_portal.smart.par import PushedRequest
from fhir_portal.smart.proxy_context import role_uris
from fhir_portal.smart.scope import ScopeSet
from fhir_portal.smart.token import AccessToken, TokenFamily, token_hash
from tests.builders import WITHHELD
from tests.smart.launching import (
    AT_SKIN,
    KIT,
    MARA,
    NOT_KNOWN,
    PATIENT_SCOPE,
    ROWAN,
    STYLE,
    USER_SCOPE,
    Practice,
    approved,
    patient_app,
    put,
    staff_app,
    visit,
)
from tests.smart.proofs import Holder
from tests.smart.several import DETAILS
from tests.smart.world import (
    BASE,
    assert_oauth_error,
    assert_redirect_error,
    own_record,
    query_of,
)

INFERNO = "inferno"
LAUNCH_URL = f"{BASE}/oauth/launch"


@pytest.fixture
async def practice() -> AsyncIterator[Practice]:
    practice = await Practice.begin()
    yield practice
    practice.world.close()


async def logged(practice: Practice, patient: str = "mara") -> list[tuple[str, str, int]]:
    """What the access log of a record says of the EHR and the app."""
    rows = await practice.world.store.log.of_record(
        "skin", patient, agent=None, told=False, low=0, high=2**60, before=None, limit=100
    )
    return [
        (one.row.interaction, one.row.what, one.row.status)
        for one in rows
        if one.row.client == "ehr"
    ]


# --- what an EHR says --------------------------------------------------------------------------


async def test_the_ehr_gets_a_launch_of_which_only_the_hash_is_kept(practice: Practice) -> None:
    response = await practice.post()
    assert response.status_code == 201
    assert response.headers["cache-control"] == "no-store"
    body = response.json()
    assert body.keys() == {"launch", "expires_in"}
    assert body["expires_in"] == LIFETIME_SECONDS
    (kept,) = await practice.world.store.every(Launch)
    assert kept.key == token_hash(body["launch"])
    assert body["launch"] not in str(kept)


@pytest.mark.parametrize("header", [None, "Basic ZWhyOng=", "Bearer", "Bearer bad", "DPoP bad"])
async def test_a_launch_needs_an_access_token(practice: Practice, header: str | None) -> None:
    headers = {} if header is None else {"Authorization": header}
    async with practice.world.http() as http:
        response = await http.post("/oauth/launch", json={"patient": MARA}, headers=headers)
    assert_oauth_error(response, "invalid_token", 401)
    scheme = "DPoP" if header == "DPoP bad" else "Bearer"
    assert response.headers["www-authenticate"].startswith(scheme)


async def test_the_token_is_asked_for_now(practice: Practice) -> None:
    token = (await practice.ehr.backend_token()).json()["access_token"]
    await disable_client(practice.world.store, "ehr", now=practice.world.clock())
    assert_oauth_error(await practice.post(token=token), "invalid_token", 401)


async def test_where_proofs_need_a_nonce_the_ehr_is_given_one(practice: Practice) -> None:
    world, holder = practice.world, Holder(practice.world)
    form = {"grant_type": "client_credentials", "scope": "system/*.rs"}
    answered = await practice.ehr.post("/oauth/token", form, headers={"DPoP": holder.proof()})
    token = answered.json()["access_token"]
    world.portal.callers.nonces = lambda _: ("a-nonce",)
    async with world.http() as http:
        headers = holder.headers("POST", LAUNCH_URL, token)
        refused = await http.post("/oauth/launch", json={"patient": MARA}, headers=headers)
        headers = holder.headers("POST", LAUNCH_URL, token, nonce=refused.headers["dpop-nonce"])
        taken = await http.post("/oauth/launch", json={"patient": MARA}, headers=headers)
    assert 'error="use_dpop_nonce"' in refused.headers["www-authenticate"]
    assert taken.status_code == 201


async def test_only_a_client_with_the_permission_makes_launches(practice: Practice) -> None:
    """Planted fault: the permission is not asked for in ``EhrLaunches.caller``."""
    other = await practice.world.backend("laboratory")
    assert_oauth_error(await practice.post(ehr=other), "access_denied", 403)
    diary = await practice.world.confidential_app("diary")
    token = (await diary.tokens())["access_token"]
    response = await practice.post(token=token)
    assert response.status_code in (401, 403)
    assert await practice.world.store.every(Launch) == []


async def test_a_token_bound_to_a_key_comes_with_a_proof_for_this_address(
    practice: Practice,
) -> None:
    """Planted fault: ``shown`` is ``None`` in ``EhrLaunches.caller``."""
    world, holder = practice.world, Holder(practice.world)
    form = {"grant_type": "client_credentials", "scope": "system/*.rs"}
    answered = await practice.ehr.post("/oauth/token", form, headers={"DPoP": holder.proof()})
    token = answered.json()["access_token"]
    assert_oauth_error(await practice.post(token=token), "invalid_token", 401)
    elsewhere = holder.headers("POST", f"{BASE}/oauth/token", token)
    here = holder.headers("POST", LAUNCH_URL, token)
    async with world.http() as http:
        wrong = await http.post("/oauth/launch", json={"patient": MARA}, headers=elsewhere)
        right = await http.post("/oauth/launch", json={"patient": MARA}, headers=here)
        again = await http.post("/oauth/launch", json={"patient": MARA}, headers=here)
    assert_oauth_error(wrong, "invalid_token", 401)
    assert right.status_code == 201
    assert_oauth_error(again, "invalid_token", 401)


@pytest.mark.parametrize(
    "body",
    [
        "",
        "no json",
        "[]",
        '"Patient/mara"',
        "{}",
        '{"patient": "Patient/mara", "patient": "Patient/kit"}',
        {"patient": "mara"},
        {"patient": "Patient/mara\n"},
        {"patient": "Patient/../kit"},
        {"patient": f"{BASE}/fhir/Patient/mara"},
        {"patient": "Practitioner/rowan"},
        {"patient": {"reference": MARA}},
        {"patient": MARA, "encounter": "ServiceRequest/order-1"},
        {"patient": MARA, "practice": "family"},
        {"patient": MARA, "intent": ""},
        {"patient": MARA, "intent": "two\nlines"},
        {"patient": MARA, "intent": "x" * 201},
        {"patient": MARA, "need_patient_banner": "true"},
        {"patient": MARA, "fhirUser": MARA},
        {"patient": MARA, "client_id": "nobody"},
        {"patient": MARA, "client_id": "ehr"},
    ],
)
async def test_what_is_no_launch_context_is_refused(practice: Practice, body: Any) -> None:
    text = body if isinstance(body, str) else json.dumps(body)
    assert_oauth_error(await practice.post(text), "invalid_request")
    assert await practice.world.store.every(Launch) == []


@pytest.mark.parametrize(
    "url",
    [
        "javascript:alert(1)",
        "data:application/json,{}",
        "http://ehr.example/style.json",
        "https://user@ehr.example/style.json",
        "//ehr.example/style.json",
        "/style.json",
        "https://ehr.example/style.json#x",
        "https://ehr.example\\@evil.example/",
        "https://ehr.example/\nstyle.json",
    ],
)
async def test_a_style_is_at_an_https_address(practice: Practice, url: str) -> None:
    """Planted fault: ``check_address`` is left out."""
    assert_oauth_error(await practice.post(smart_style_url=url), "invalid_request")


@pytest.mark.parametrize(
    "item",
    [
        {},
        "ServiceRequest/order-1",
        {"role": "launch"},
        {"reference": "ServiceRequest/order-1", "extra": 1},
        {"reference": "order-1"},
        {"reference": f"{BASE}/fhir/ServiceRequest/order-1"},
        {"reference": "ServiceRequest/order-1", "type": "Observation"},
        {"reference": "ServiceRequest/order-1", "type": "Unheard"},
        {"reference": "ServiceRequest/order-1", "role": ""},
        {"reference": "ServiceRequest/order-1", "role": "mine"},
        {"reference": "ServiceRequest/order-1", "role": "javascript:alert(1)"},
        {"reference": "ServiceRequest/order-1", "role": role_uris()["grant"]},
        {"reference": MARA},
        {"reference": MARA, "role": "launch"},
        {"reference": "Encounter/visit-1"},
        {"identifier": {"value": "7"}, "type": "Patient"},
        {"canonical": "Questionnaire/7"},
        {"canonical": "javascript:alert(1)"},
        {"identifier": {"system": "urn:x:y"}},
        {"identifier": {"value": "7", "assigner": {"reference": "Organization/1"}}},
    ],
)
async def test_a_bent_fhir_context_is_refused(practice: Practice, item: Any) -> None:
    """Planted faults: each rule of ``_check_item`` left out in turn."""
    assert_oauth_error(await practice.post(fhirContext=[item]), "invalid_request")


@pytest.mark.requirement(INFERNO, "S23")
async def test_fhir_context_is_told_as_the_guide_has_it(practice: Practice) -> None:
    context = [
        {"reference": "ServiceRequest/order-1"},
        {"reference": "Practitioner/rowan", "role": "https://ehr.example/roles#referrer"},
        {"reference": MARA, "role": "https://ehr.example/roles#donor"},
        {"canonical": "https://ehr.example/Questionnaire/phq9|2", "type": "Questionnaire"},
        {"identifier": {"system": "urn:oid:1.2.3", "value": "7"}, "type": "ImagingStudy"},
    ]
    tokens = await practice.tokens(await practice.launch(fhirContext=context))
    assert tokens["fhirContext"] == context


@pytest.mark.parametrize("granted", ["system/*.rs", "system/Goal.rs"])
@pytest.mark.parametrize(
    ("hidden", "absent"),
    [
        ({"patient": "Patient/elsewhere"}, {"patient": "Patient/nobody"}),
        ({"encounter": "Encounter/elsewhere-visit"}, {"encounter": "Encounter/nothing"}),
        ({"encounter": "Encounter/kits-visit"}, {"encounter": "Encounter/nothing"}),
        (
            {"fhirContext": [{"reference": "ServiceRequest/kits-order"}]},
            {"fhirContext": [{"reference": "ServiceRequest/nothing"}]},
        ),
        (
            {"fhirContext": [{"reference": KIT, "role": "urn:x:y"}]},
            {"fhirContext": [{"reference": "Patient/nobody", "role": "urn:x:y"}]},
        ),
        ({"fhirUser": "Practitioner/elsewhere"}, {"fhirUser": "Practitioner/nobody"}),
        (
            {"fhirContext": [{"reference": "Person/mara"}]},
            {"fhirContext": [{"reference": "Person/nobody"}]},
        ),
        (
            {"fhirContext": [{"reference": "AuditEvent/a-1"}]},
            {"fhirContext": [{"reference": "AuditEvent/b-1"}]},
        ),
    ],
)
async def test_hidden_and_absent_are_answered_alike(
    practice: Practice, hidden: dict[str, Any], absent: dict[str, Any], granted: str
) -> None:
    """Planted faults: what cannot be read counts as known; ``own_patients`` is not compared."""
    await put(practice.world, "family", {"resourceType": "Practitioner", "id": "elsewhere"})
    await put(practice.world, "skin", {"resourceType": "Person", "id": "mara"})
    # An EHR without the scopes learns no more.
    token = (await practice.ehr.backend_token(scope=granted)).json()["access_token"]
    first = await practice.post(token=token, **hidden)
    second = await practice.post(token=token, **absent)
    assert_oauth_error(first, "invalid_request")
    assert first.content == second.content
    assert NOT_KNOWN in first.json()["error_description"]
    assert await practice.world.store.every(Launch) == []


async def test_what_has_two_owners_is_in_neithers_launch(practice: Practice) -> None:
    """Planted fault: one owner among others is enough."""
    both = [{"actor": {"reference": one}, "status": "accepted"} for one in (MARA, KIT)]
    appointment = {
        "resourceType": "Appointment",
        "id": "together",
        "status": "proposed",
        "participant": both,
    }
    await put(practice.world, "skin", appointment)
    item = {"reference": "Appointment/together"}
    assert_oauth_error(await practice.post(fhirContext=[item]), "invalid_request")


async def test_what_the_ehr_reads_for_a_launch_is_in_the_access_log(practice: Practice) -> None:
    await practice.launch(fhirContext=[{"reference": "ServiceRequest/order-1"}])
    assert sorted(await logged(practice)) == [
        ("read", "Encounter/visit-1", 200),
        ("read", "Patient/mara", 200),
        ("read", "ServiceRequest/order-1", 200),
    ]


async def test_where_the_app_is_opened_is_told_if_it_is_known(practice: Practice) -> None:
    address = "https://app.example/launch?tenant=7"
    await staff_app(practice.world, "known", metadata={"initiate_login_uri": address})
    body = (await practice.post(client_id="known")).json()
    iss = "http%3A%2F%2F127.0.0.1%3A8000%2Ffhir"
    assert body["launch_url"] == f"{address}&iss={iss}&launch={body['launch']}"


# --- what the app is told ----------------------------------------------------------------------


@pytest.mark.requirement(INFERNO, "S26", "S29", "S30", "S51", "S56", "G1", "G4", "G7", "G8")
async def test_the_app_is_told_the_context_and_only_user_scopes_are_granted(
    practice: Practice,
) -> None:
    """Planted faults: ``launched`` left out of the family; out of introspection."""
    launch = await practice.launch(
        intent="reconcile-medications", need_patient_banner=False, smart_style_url=STYLE
    )
    tokens = await practice.tokens(launch)
    told = {
        "patient": "mara",
        "encounter": "visit-1",
        "intent": "reconcile-medications",
        "need_patient_banner": False,
        "smart_style_url": STYLE,
        "fhirUser": f"{BASE}/fhir/{AT_SKIN.fhir_user}",
    }
    assert told.items() <= tokens.items()
    assert "fhirContext" not in tokens
    assert all(str(one).startswith("user/") for one in ScopeSet.parse(tokens["scope"]).resource)
    assert {"launch", "openid", "fhirUser", "offline_access"} <= set(tokens["scope"].split())
    form = {"token": tokens["access_token"]}
    shown = (await practice.app.post("/oauth/introspect", form)).json()
    assert (told | {"active": True}).items() <= shown.items()
    again = (await practice.app.refresh(tokens["refresh_token"])).json()
    assert told.items() <= again.items()
    (token,) = [
        one
        for one in await practice.world.store.every(AccessToken)
        if one.key == token_hash(again["access_token"])
    ]
    assert (token.context, token.practice, token.patient) == ("user", "skin", MARA)
    assert token.access == ("skin", "", "Practitioner/rowan", None)


async def test_without_a_word_about_it_the_app_shows_the_banner(practice: Practice) -> None:
    tokens = await practice.tokens(await practice.launch(encounter=None))
    assert tokens["need_patient_banner"] is True
    assert "encounter" not in tokens
    assert not tokens.keys() & {"intent", "smart_style_url"}


@pytest.mark.requirement(INFERNO, "G12")
async def test_patient_scopes_in_an_ehr_launch_are_granted_literally(practice: Practice) -> None:
    app = await patient_app(practice.world)
    tokens = await practice.tokens(await practice.launch(), app=app, scope=PATIENT_SCOPE)
    assert tokens["scope"] == PATIENT_SCOPE
    assert tokens["patient"] == "mara"
    assert tokens["fhirUser"] == f"{BASE}/fhir/Practitioner/rowan"
    family = await practice.world.only_family()
    assert family.context == "patient"
    assert family.access == ("skin", MARA, "Practitioner/rowan", None)


async def test_somebody_opens_an_app_on_their_own_record_in_the_portal(practice: Practice) -> None:
    app = await patient_app(practice.world)
    browser = practice.world.browser()
    await browser.authorize(app, launch=await practice.launch(), scope=PATIENT_SCOPE)
    await browser.sign_in()
    assert browser.heading == "Allow Heart Diary to use your record?"
    tokens = (await app.exchange(await approved(browser))).json()
    assert tokens["patient"] == "mara"
    assert tokens["fhirUser"] == f"{BASE}/fhir/{MARA}"


OF_THE_EHR = {
    "intent": "review-a-result",
    "smart_style_url": STYLE,
    "fhirContext": [
        {
            "reference": "Observation/told",
            "role": "urn:a-role",
            "type": "Observation",
        },
        {"reference": "Observation/held", "identifier": {"value": "words of the EHR"}},
        {"identifier": {"value": "more words"}},
    ],
}
LOOKING = "launch launch/encounter openid patient/Patient.rs patient/Encounter.rs"


async def with_held_back(practice: Practice) -> None:
    """A result that Mara sees, and a visit and a result that are held back from her."""
    of_mara = {
        "resourceType": "Observation",
        "status": "final",
        "code": {"text": "A result"},
        "subject": {"reference": MARA},
    }
    await put(
        practice.world,
        "skin",
        {**of_mara, "id": "told"},
        {**of_mara, "id": "held", "meta": WITHHELD},
        {**visit("held-visit", "2030-03-04", "Talk"), "meta": WITHHELD},
    )


async def told_to_mara(practice: Practice, scope: str, **launch: Any) -> dict[str, Any]:
    await with_held_back(practice)
    app = await patient_app(practice.world)
    browser = practice.world.browser()
    handle = await practice.launch(**{**OF_THE_EHR, **launch})
    await browser.authorize(app, launch=handle, scope=scope)
    await browser.sign_in()
    tokens: dict[str, Any] = (await app.exchange(await approved(browser))).json()
    return tokens


async def test_a_patients_app_is_told_what_its_patient_may_read(practice: Practice) -> None:
    """Planted fault: what an EHR says is told to whoever signs in."""
    tokens = await told_to_mara(practice, f"{LOOKING} patient/Observation.rs")
    assert tokens["encounter"] == "visit-1"
    assert "launch/encounter" in tokens["scope"].split()
    assert tokens["fhirContext"] == [
        {"reference": "Observation/told", "role": "urn:a-role", "type": "Observation"}
    ]
    assert "intent" not in tokens
    assert tokens["smart_style_url"] == STYLE


async def test_what_is_held_back_from_a_patient_is_not_told_by_a_launch(
    practice: Practice,
) -> None:
    tokens = await told_to_mara(practice, LOOKING, encounter="Encounter/held-visit")
    assert "encounter" not in tokens
    assert "launch/encounter" not in tokens["scope"].split()
    assert "fhirContext" not in tokens


async def test_nor_what_the_app_may_not_read(practice: Practice) -> None:
    """Planted fault: it is read with all that the person may see, and not within the scopes."""
    tokens = await told_to_mara(practice, "launch openid patient/Patient.rs")
    assert not {"encounter", "fhirContext", "intent"} & tokens.keys()


async def test_staff_are_told_all_of_it(practice: Practice) -> None:
    await with_held_back(practice)
    tokens = await practice.tokens(
        await practice.launch(**OF_THE_EHR, encounter="Encounter/held-visit")
    )
    assert tokens["encounter"] == "held-visit"
    assert tokens["intent"] == "review-a-result"
    assert len(tokens["fhirContext"]) == len(OF_THE_EHR["fhirContext"])


async def test_on_their_own_record_staff_are_patients(practice: Practice) -> None:
    """Planted fault: staff come first, and their own app sees what is held back from them."""
    world = practice.world
    world.directory.access[practice.rowan.key] = (own_record(),)
    unapproved = await patient_app(world, "own", approved_at=[])
    tokens = await practice.tokens(await practice.launch(), app=unapproved, scope=PATIENT_SCOPE)
    assert tokens["fhirUser"] == f"{BASE}/fhir/{MARA}"
    app = await patient_app(world)
    launch = await practice.launch(fhirUser="Practitioner/rowan")
    tokens = await practice.tokens(launch, app=app, scope=PATIENT_SCOPE)
    assert tokens["fhirUser"] == f"{BASE}/fhir/Practitioner/rowan"


@pytest.mark.parametrize(
    "change",
    [{"disabled": True}, {"permissions": ()}, {"practice": "family"}, {"awaits_review": True}],
)
async def test_a_launch_ends_with_the_rights_of_its_ehr(
    practice: Practice, change: dict[str, Any]
) -> None:
    """Planted fault: who made a launch is not looked at again."""
    launch = await practice.launch()
    ehr = await practice.world.store.get(Client, "ehr")
    assert ehr is not None
    changed = msgspec.structs.replace(ehr, **change)
    await practice.world.store.transact(lambda transaction: transaction.put(changed))
    browser = practice.world.browser()
    await browser.authorize(practice.app, launch=launch, scope=USER_SCOPE)
    assert_redirect_error(browser.page, "invalid_request")


@pytest.mark.parametrize("text", ["\ud800", "left\u202eright", "one\u2028two"])
async def test_a_launch_holds_text_that_can_be_shown(practice: Practice, text: str) -> None:
    """Planted fault: any text is taken, and the store cannot write half a character."""
    items = ({"intent": text}, {"fhirContext": [{"identifier": {"value": text}}]})
    for change in items:
        assert_oauth_error(await practice.post(**change), "invalid_request")


async def test_pushed_and_posted_requests_bring_a_launch_too(practice: Practice) -> None:
    """Planted fault: what was pushed is hashed once more."""
    app, world = practice.app, practice.world
    launch = await practice.launch()
    parameters = app.parameters(launch=launch, scope=USER_SCOPE)
    pushed = (await app.post("/oauth/par", parameters)).json()
    (kept,) = await world.store.every(PushedRequest)
    assert launch not in str(kept)
    browser = world.browser()
    reference = {"client_id": app.client_id, "request_uri": pushed["request_uri"]}
    answer = await browser.http.post("/oauth/authorize", data=reference)
    await browser.open(answer.headers["location"])
    (kept_request,) = await world.store.every(AuthorizationRequest)
    assert launch not in str(kept_request)
    await browser.sign_in(ROWAN)
    assert (await app.exchange(await approved(browser))).json()["patient"] == "mara"


async def test_the_hash_that_is_kept_is_no_launch(practice: Practice) -> None:
    """Planted fault: a browser's request is taken for a pushed one."""
    key = token_hash(await practice.launch())
    browser = await practice.opened(key)
    assert_redirect_error(browser.page, "invalid_request")


# --- one-time, short-lived, and bound ----------------------------------------------------------


@pytest.mark.parametrize("launch", ["unknown", "x" * 43])
async def test_an_unknown_launch_is_refused(practice: Practice, launch: str) -> None:
    browser = await practice.opened(launch)
    assert_redirect_error(browser.page, "invalid_request")
    assert "launch" in query_of(browser.page.headers["location"])["error_description"]


async def test_a_launch_is_used_once(practice: Practice) -> None:
    """Planted fault: the launch is not deleted when it buys a code."""
    launch = await practice.launch()
    await practice.code(launch)
    assert_redirect_error((await practice.opened(launch)).page, "invalid_request")


@pytest.mark.requirement("attacks", "race on a launch")
async def test_of_two_answers_for_one_launch_one_gets_the_code(practice: Practice) -> None:
    """Planted fault: ``give`` does not look whether there was a launch to delete."""
    launch = await practice.launch()
    browsers = [await practice.opened(launch) for _ in range(3)]
    answers = await asyncio.gather(
        *(one.submit({"decision": "approve", "scope": "user/Patient.rs"}) for one in browsers)
    )
    found = [query_of(one.headers["location"]) for one in answers]
    assert sorted("code" in one for one in found) == [False, False, True]
    assert [one["error"] for one in found if "error" in one] == ["invalid_request"] * 2
    assert len(await practice.world.store.every(AuthorizationCode)) == 1
    assert await practice.world.store.every(AuthorizationRequest) == []


async def test_a_launch_is_over_after_minutes(practice: Practice) -> None:
    """Planted fault: ``expires`` is not compared in ``_launch``."""
    early, late = await practice.launch(), await practice.launch()
    practice.world.clock.advance(LIFETIME_SECONDS - 1)
    browser = await practice.opened(early)
    assert browser.heading.startswith("Allow")
    practice.world.clock.advance(1)
    assert_redirect_error((await practice.opened(late)).page, "invalid_request")
    response = await browser.submit({"decision": "approve", "scope": "user/Patient.rs"})
    assert_redirect_error(response, "invalid_request")
    assert await practice.world.store.every(AuthorizationCode) == []


async def test_a_launch_for_one_app_is_of_no_use_to_another(practice: Practice) -> None:
    """Planted fault: ``client_id`` is not compared in ``_launch``."""
    thief = await staff_app(practice.world, "thief")
    launch = await practice.launch(client_id=practice.app.client_id)
    browser = await practice.opened(launch, app=thief)
    assert_redirect_error(browser.page, "invalid_request")
    assert (await practice.tokens(launch))["patient"] == "mara"


async def test_a_launch_needs_its_scope_and_the_scope_a_launch(practice: Practice) -> None:
    """Planted faults: ``askable`` keeps ``launch`` without one; its scope is not asked for."""
    launch = await practice.launch()
    without = USER_SCOPE.removeprefix("launch ")
    browser = await practice.opened(launch, scope=without)
    assert_redirect_error(browser.page, "invalid_scope")
    unlaunchable = await staff_app(practice.world, "unlaunchable", scope="openid user/*.rs")
    browser = await practice.opened(launch, app=unlaunchable)
    assert_redirect_error(browser.page, "invalid_scope")
    standalone = await practice.tokens(None, scope=USER_SCOPE)
    assert "launch" not in standalone["scope"].split()
    assert "patient" not in standalone


@pytest.mark.parametrize(
    "scope",
    [
        "launch patient/Patient.rs user/Patient.rs",
        "launch user/*.rs system/*.rs",
        "launch user/Patient.rs patient/*.read",
    ],
)
async def test_contexts_do_not_mix_in_a_launch(practice: Practice, scope: str) -> None:
    browser = await practice.opened(await practice.launch(), scope=scope)
    assert_redirect_error(browser.page, "invalid_scope")


async def test_a_launch_is_for_one_record(practice: Practice) -> None:
    """Planted fault: authorization_details are not looked at beside a launch."""
    app = await patient_app(practice.world)
    launch = await practice.launch()
    browser = await practice.opened(
        launch, app=app, scope=PATIENT_SCOPE, authorization_details=DETAILS
    )
    assert_redirect_error(browser.page, "invalid_request")
    browser = await practice.opened(None, authorization_details=DETAILS)
    assert_redirect_error(browser.page, "invalid_scope")


async def test_a_user_token_is_exchanged_for_nothing(practice: Practice) -> None:
    tokens = await practice.tokens(await practice.launch())
    response = await practice.app.post(
        "/oauth/token",
        {
            "grant_type": "urn:ietf:params:oauth:grant-type:token-exchange",
            "subject_token": tokens["access_token"],
            "subject_token_type": "urn:ietf:params:oauth:token-type:access_token",
            "authorization_details": DETAILS.replace("}]", ', "identifier": "Patient/kit"}]'),
        },
    )
    assert response.status_code == 400
    assert "access_token" not in response.json()


# --- who may use it ----------------------------------------------------------------------------


async def nobodys(practice: Practice, browser: Any, *secrets: str) -> None:
    """The person is refused, learns nothing, and cannot approve it all the same."""
    assert browser.page.status_code == 403
    assert browser.heading == "You cannot use this"
    for secret in ("Mara Quill", "Kit Quill", "Hillside", "Brook", "kits-visit", *secrets):
        assert secret not in browser.page.text
    forced = await browser.submit({"decision": "approve", "scope": "user/Patient.rs"})
    assert not forced.is_redirect
    assert await practice.world.store.every(AuthorizationCode) == []


@pytest.mark.parametrize("scope", [USER_SCOPE, PATIENT_SCOPE])
async def test_a_launch_of_another_practice_is_nothing_to_its_neighbours_staff(
    practice: Practice, scope: str
) -> None:
    """Planted fault: the first of `staff_of` is taken for the launch's practice."""
    neighbour = await practice.world.backend("brook-ehr", practice="family", permissions=["launch"])
    launch = await practice.launch(
        ehr=neighbour, patient="Patient/elsewhere", encounter="Encounter/elsewhere-visit"
    )
    app = practice.app if scope == USER_SCOPE else await patient_app(practice.world)
    browser = await practice.opened(launch, app=app, scope=scope)
    await nobodys(practice, browser, "Iris Fell", "elsewhere")


@pytest.mark.parametrize("scope", [USER_SCOPE, PATIENT_SCOPE])
async def test_a_patient_cannot_use_a_launch_on_somebody_else(
    practice: Practice, scope: str
) -> None:
    """Planted fault: the first of their records is taken for that of the launch."""
    app = practice.app if scope == USER_SCOPE else await patient_app(practice.world)
    launch = await practice.launch(patient=KIT, encounter="Encounter/kits-visit")
    browser = practice.world.browser()
    await browser.authorize(app, launch=launch, scope=scope)
    await browser.sign_in()
    await nobodys(practice, browser)


async def test_user_scopes_are_for_staff_even_on_the_own_record(practice: Practice) -> None:
    """Planted fault: whoever may use the record answers with ``user/`` scopes too."""
    browser = practice.world.browser()
    await browser.authorize(practice.app, launch=await practice.launch(), scope=USER_SCOPE)
    await browser.sign_in()
    await nobodys(practice, browser)


async def test_going_back_tells_the_app(practice: Practice) -> None:
    browser = practice.world.browser()
    await browser.authorize(practice.app, launch=await practice.launch(), scope=USER_SCOPE)
    await browser.sign_in()
    assert_redirect_error(await browser.submit({"decision": "deny"}), "access_denied")


async def test_a_launch_for_one_colleague_is_not_anothers(practice: Practice) -> None:
    """Planted fault: ``fhir_user`` is not compared."""
    await put(practice.world, "skin", {"resourceType": "Practitioner", "id": "sam"})
    launch = await practice.launch(fhirUser="Practitioner/sam")
    await nobodys(practice, await practice.opened(launch))
    mine = await practice.launch(fhirUser="Practitioner/rowan")
    assert (await practice.tokens(mine))["patient"] == "mara"


async def test_an_app_that_the_practice_did_not_approve_is_not_opened(practice: Practice) -> None:
    """Planted fault: ``serves_staff_of`` is not asked in ``_right_at_launch``."""
    user = await staff_app(practice.world, "elsewhere", approved_at=["family"])
    patient = await patient_app(practice.world, "unapproved", approved_at=[])
    for app, scope in ((user, USER_SCOPE), (patient, PATIENT_SCOPE)):
        browser = await practice.opened(await practice.launch(), app=app, scope=scope)
        assert "has not approved" in browser.text
        assert "Mara" not in browser.page.text
        assert_redirect_error(await browser.submit({"decision": "deny"}), "access_denied")


async def test_who_is_taken_off_the_staff_gets_nothing_for_the_code(practice: Practice) -> None:
    """Planted fault: ``authenticate_user`` does not ask for the right."""
    code = await practice.code(await practice.launch())
    practice.posts[practice.rowan.key] = ()
    assert_oauth_error(await practice.app.exchange(code), "invalid_grant")


@pytest.mark.parametrize("what", ["staff", "post", "approval", "patient"])
async def test_what_was_given_ends_with_the_right_it_was_given_by(
    practice: Practice, what: str
) -> None:
    """Planted faults: approval is not asked in ``_access``; rights are not compared."""
    app = await patient_app(practice.world) if what == "patient" else practice.app
    scope = PATIENT_SCOPE if what == "patient" else USER_SCOPE
    tokens = await practice.tokens(await practice.launch(), app=app, scope=scope)
    form = {"token": tokens["access_token"]}
    assert (await app.post("/oauth/introspect", form)).json()["active"] is True
    if what == "staff":
        practice.posts[practice.rowan.key] = ()
    elif what == "post":
        other = AT_SKIN.__class__("skin", "Hillside Dermatology", "Practitioner/other", "Rowan")
        practice.posts[practice.rowan.key] = (other,)
    elif what == "patient":
        del practice.world.directory.patients[f"skin/{MARA}"]
    else:
        client = await practice.world.store.get(Client, app.client_id)
        assert client is not None

        async def withdraw(transaction: Any) -> None:
            # As it is in a transaction that begins while this app refreshes.
            await transaction.put(_without_approval(client))

        await practice.world.store.transact(withdraw)
    assert (await app.post("/oauth/introspect", form)).json() == {"active": False}
    assert_oauth_error(await app.refresh(tokens["refresh_token"]), "invalid_grant")


def _without_approval(client: Client) -> Client:
    return msgspec.structs.replace(client, approved_at=("family",))


# --- without asking ----------------------------------------------------------------------------


async def test_with_nothing_to_ask_nobody_is_asked(practice: Practice) -> None:
    browser = practice.world.browser()
    app = practice.app
    await browser.authorize(app, launch=await practice.launch(), scope=USER_SCOPE)
    await browser.sign_in(ROWAN)
    await approved(browser)
    code = query_of(browser.page.headers["location"])["code"]
    await app.exchange(code)
    kits = await practice.launch(patient=KIT, encounter="Encounter/kits-visit")
    await browser.authorize(app, launch=kits, scope=USER_SCOPE, prompt="none")
    code = query_of(browser.page.headers["location"])["code"]
    assert (await app.exchange(code)).json()["patient"] == "kit"
    assert len(await practice.world.store.every(TokenFamily)) == 2
    await browser.authorize(app, launch=kits, scope=USER_SCOPE, prompt="none")
    assert_redirect_error(browser.page, "invalid_request")


async def test_what_has_to_be_asked_is_told_to_the_app(practice: Practice) -> None:
    """Planted fault: a public client's consent is skipped for staff."""
    public = await practice.world.public_app(
        "phone",
        scope="launch openid fhirUser offline_access user/*.rs",
        approved_at=["skin", "family"],
    )
    browser, launch = practice.world.browser(), await practice.launch()
    await browser.authorize(public, launch=launch, scope=USER_SCOPE, prompt="none")
    assert_redirect_error(browser.page, "login_required")
    await browser.authorize(public, launch=launch, scope=USER_SCOPE)
    await browser.sign_in(ROWAN)
    assert (await public.exchange(await approved(browser))).status_code == 200
    again = await practice.launch()
    await browser.authorize(public, launch=again, scope=USER_SCOPE, prompt="none")
    assert_redirect_error(browser.page, "consent_required")
    unapproved = await staff_app(practice.world, "elsewhere", approved_at=["family"])
    await browser.authorize(unapproved, launch=again, scope=USER_SCOPE, prompt="none")
    assert_redirect_error(browser.page, "access_denied")


async def test_one_patients_consent_is_not_anothers(practice: Practice) -> None:
    """Planted fault: ``access`` is not compared in ``may_be_skipped``."""
    app = await patient_app(practice.world)
    browser = practice.world.browser()
    await browser.authorize(app, launch=await practice.launch(), scope=PATIENT_SCOPE)
    await browser.sign_in(ROWAN)
    await app.exchange(await approved(browser))
    kits = await practice.launch(patient=KIT, encounter=None)
    await browser.authorize(app, launch=kits, scope=PATIENT_SCOPE, prompt="none")
    assert_redirect_error(browser.page, "consent_required")


async def test_a_visit_needs_no_date_to_be_launched(practice: Practice) -> None:
    undated = visit("undated", "2030-03-01", "Check")
    del undated["period"]
    await put(practice.world, "skin", undated)
    tokens = await practice.tokens(await practice.launch(encounter="Encounter/undated"))
    assert tokens["encounter"] == "undated"
