"""The standalone launch as Inferno's SMART App Launch kits do it (checklist S14 to S27)."""

from __future__ import annotations

import base64
import json
import uuid
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.conformance.inferno import KINDS, STANDALONE, Client, public, symmetric
from tests.conformance.whole import INFERNO as ORIGIN
from tests.conformance.whole import MOTHER, PUBLIC, REDIRECT, SYMMETRIC, Whole, sign_in
from tests.smart.world import Browser

INFERNO = "inferno"
REFERENCE = r"[A-Z][A-Za-z]+/[A-Za-z0-9.-]{1,64}"


@pytest.mark.requirement(INFERNO, "S14")
async def test_what_inferno_sends_and_no_more_leads_to_tokens(whole: Whole) -> None:
    """``aud`` as it was typed, a verifier of 73 characters, no ``nonce``."""
    launched = await public(whole).launch()
    assert set(launched.sent) == {
        "response_type",
        "client_id",
        "redirect_uri",
        "scope",
        "state",
        "aud",
        "code_challenge",
        "code_challenge_method",
    }
    assert len(launched.verifier) == 73
    response = await public(whole).exchange(launched)
    assert response.status_code == 200, response.text
    assert "id_token" in response.json()


@pytest.mark.requirement(INFERNO, "S15")
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_a_request_may_come_by_get_and_by_post(whole: Whole, method: str) -> None:
    begun = await public(whole).ask(method=method)
    assert begun.browser.heading == "Sign in"
    assert (await public(whole).launch(method=method)).code


@pytest.mark.requirement(INFERNO, "S16")
async def test_parameters_of_the_address_are_parameters_of_the_request(whole: Whole) -> None:
    """Whatever an address has already counts beside the form that is posted to it."""
    async with whole.http() as http:
        endpoint = (await http.get("/fhir/.well-known/smart-configuration")).json()[
            "authorization_endpoint"
        ]
    assert urlsplit(endpoint).query == ""
    parameters = dict((await public(whole).ask()).sent)
    aud = parameters.pop("aud")
    browser = Browser(whole, whole.http())  # type: ignore[arg-type] # it keeps its world, no more
    posted = await browser.http.post(
        "/oauth/authorize", params={"aud": aud, "tenant": "1"}, data=parameters
    )
    await browser.open(posted.headers["location"])
    assert browser.heading == "Sign in"
    await sign_in(browser)
    assert browser.heading.startswith("Allow Inferno")


@pytest.mark.requirement(INFERNO, "S17", "X11")
@pytest.mark.parametrize("state", [None, "a+b/c=d e&f?g%20h"])
async def test_code_and_the_same_state_come_back(whole: Whole, state: str | None) -> None:
    client = public(whole)
    launched = await (client.launch(state=state) if state else client.launch())
    assert launched.response.status_code in {302, 303}
    answer = launched.answer
    assert answer["code"].strip()
    assert answer["state"] == launched.sent["state"]
    assert not answer.keys() & {"error", "error_description"}


@pytest.mark.requirement(INFERNO, "S18")
async def test_the_only_record_of_ones_own_is_chosen(whole: Whole) -> None:
    body = await public(whole).tokens("launch/patient patient/Patient.rs")
    assert body["patient"] == "anna"


@pytest.mark.requirement(INFERNO, "S18")
async def test_somebody_elses_record_is_chosen_by_the_person(whole: Whole) -> None:
    client = Client(whole, person=MOTHER)
    begun = await client.ask()
    await sign_in(begun.browser, MOTHER)
    offered = begun.browser.document.xpath('//input[@name="record"]/@value')
    assert offered == ["Patient/kit"]
    await begun.browser.submit({"record": offered[0]})
    begun.response = await client.allow(begun.browser)
    body = (await client.exchange(begun)).json()
    assert body["patient"] == "kit"


@pytest.mark.requirement(INFERNO, "S19")
async def test_a_public_client_names_itself_in_the_form(whole: Whole) -> None:
    launched = await public(whole).launch()
    form = {
        "code": launched.code,
        "redirect_uri": REDIRECT,
        "grant_type": "authorization_code",
        "code_verifier": launched.verifier,
        "client_id": PUBLIC,
    }
    async with whole.http() as http:
        response = await http.post("/oauth/token", data=form, headers={"Origin": ORIGIN})
    assert response.status_code == 200, response.text


@pytest.mark.requirement(INFERNO, "S19")
async def test_a_secret_comes_by_basic_as_it_stands(whole: Whole) -> None:
    launched = await symmetric(whole).launch()
    raw = f"{SYMMETRIC}:{whole.secrets[SYMMETRIC]}".encode()
    form = {
        "code": launched.code,
        "redirect_uri": REDIRECT,
        "grant_type": "authorization_code",
        "code_verifier": launched.verifier,
    }
    headers = {"Authorization": f"Basic {base64.b64encode(raw).decode()}"}
    async with whole.http() as http:
        response = await http.post("/oauth/token", data=form, headers=headers)
    assert response.status_code == 200, response.text


@pytest.mark.requirement(INFERNO, "S19")
@pytest.mark.parametrize("alg", ["ES384", "RS384"])
async def test_an_assertion_names_the_client_alone(whole: Whole, alg: str) -> None:
    """No ``client_id`` in the form and no Authorization header."""
    client = Client(whole, "signing-app", alg)
    launched = await client.launch()
    response = await client.exchange(launched)
    sent = response.request
    assert "authorization" not in sent.headers
    assert b"client_id=" not in sent.content
    assert response.status_code == 200, response.text


@pytest.mark.requirement(INFERNO, "S20", "S21", "S24", "S27", "X17")
@pytest.mark.parametrize("kind", KINDS)
async def test_the_token_response(whole: Whole, kind: Callable[[Whole], Client]) -> None:
    client = kind(whole)
    response = await client.exchange(await client.launch())
    assert_token_response(response)
    assert isinstance(response.json()["refresh_token"], str)


def assert_token_response(response: Any) -> None:
    assert response.status_code == 200, response.text
    assert response.headers["content-type"].startswith("application/json")
    assert "no-store" in response.headers["cache-control"]
    assert "no-cache" in response.headers["pragma"]
    body = response.json()
    for name in ("access_token", "token_type", "scope"):
        assert isinstance(body[name], str), name
        assert body[name].strip(), name
    assert body["token_type"] == "Bearer"
    assert type(body["expires_in"]) is int  # a JSON number, not a string and not true
    assert 300 <= body["expires_in"] <= 3600


@pytest.mark.requirement(INFERNO, "S22")
@pytest.mark.parametrize(
    "scope", [STANDALONE, "launch/patient openid fhirUser patient/Patient.read patient/Goal.read"]
)
async def test_what_was_asked_and_allowed_is_what_is_granted(whole: Whole, scope: str) -> None:
    body = await public(whole).tokens(scope)
    assert set(body["scope"].split()) == set(scope.split())


@pytest.mark.requirement(INFERNO, "S23")
async def test_fhir_context_is_left_out_where_there_is_none_to_tell(whole: Whole) -> None:
    assert "fhirContext" not in await public(whole).tokens()


@pytest.mark.requirement(INFERNO, "S23")
async def test_fhir_context_is_of_the_form_of_version_2_2(whole: Whole) -> None:
    body = await Client(whole, person=MOTHER).tokens(record="Patient/kit")
    context = body["fhirContext"]
    assert isinstance(context, list)
    assert context
    for one in context:
        assert isinstance(one, dict)
        assert one.keys() & {"reference", "canonical", "identifier"}
        if "reference" in one:
            name, _, own_id = one["reference"].partition("/")
            assert name[0].isupper()
            assert own_id
            assert "/" not in own_id
        if "canonical" in one:
            assert urlsplit(one["canonical"]).scheme
        if "identifier" in one:
            assert isinstance(one["identifier"], dict)
        if "type" in one:
            assert one["type"][0].isupper()


@pytest.mark.requirement(INFERNO, "S25")
async def test_a_browser_app_may_read_the_token_response(whole: Whole) -> None:
    client = public(whole)
    response = await client.exchange(await client.launch())
    assert response.request.headers["origin"] == ORIGIN
    assert response.status_code == 200
    assert response.headers["access-control-allow-origin"] in {"*", ORIGIN}


@pytest.mark.requirement(INFERNO, "S26")
async def test_context_values_stand_at_the_top_as_plain_values(whole: Whole) -> None:
    body = await public(whole).tokens()
    assert body["patient"] == "anna"
    assert isinstance(body["need_patient_banner"], bool)
    assert isinstance(body["id_token"], str)
    nested = {name for name, value in body.items() if isinstance(value, (dict, list))}
    assert nested <= {"fhirContext", "authorization_details"}, json.dumps(body)


@pytest.mark.requirement(INFERNO, "S14", "X18")
@pytest.mark.parametrize("slash", ["", "/"])
async def test_one_slash_at_the_end_of_the_audience_does_not_count(
    whole: Whole, slash: str
) -> None:
    assert (await public(whole).launch(aud=f"{whole.fhir}{slash}")).code
    twice = await public(whole).ask(aud=f"{whole.fhir}//")
    assert twice.answer["error"] == "invalid_request"


@pytest.mark.requirement(INFERNO, "X11")
async def test_state_is_echoed_with_an_error_and_nonce_in_the_id_token(whole: Whole) -> None:
    refused = await public(whole).ask(aud="https://elsewhere.example/fhir", state="s t/+")
    assert refused.answer["state"] == "s t/+"
    nonce = str(uuid.uuid4())
    body = await public(whole).tokens(nonce=nonce)
    payload = body["id_token"].split(".")[1]
    claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    assert claims["nonce"] == nonce
