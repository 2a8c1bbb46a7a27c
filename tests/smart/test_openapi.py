"""What the OpenAPI description says is what the endpoints do.

Every refusal that it names is given here by its endpoint, and every answer here is held against it:
its status, its headers, its content, and no member beside those described.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import jsonschema
import pytest
from openapi_spec_validator import validate
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT202012

from fhir_portal.fhir.errors import Unavailable
from fhir_portal.smart import errors, server
from fhir_portal.smart.dpop import DpopPolicy
from fhir_portal.smart.exchange import TOKEN_EXCHANGE
from fhir_portal.smart.grants.token_exchange import ACCESS_TOKEN
from fhir_portal.smart.openapi.description import openapi
from fhir_portal.smart.openapi.paths import OPENAPI_PATH
from fhir_portal.smart.openapi.refusals import AUTHORIZATION_REFUSALS, REFUSALS
from fhir_portal.smart.registration import METADATA_SCHEMA
from fhir_portal.web.brands import brands_router
from fhir_portal.web.developers import developers_router
from fhir_portal.web.oauth import OAuthEndpoints
from fhir_portal.web.site import take_in
from tests.smart.launching import Practice
from tests.smart.proofs import Holder
from tests.smart.several import DETAILS, KIT, OWN, PIP, TYPE, a_family, consent, known_at
from tests.smart.world import REDIRECT, World, client_key, query_of

Json = dict[str, Any]
Case = Callable[[World], Awaitable[httpx.Response]]

KEYS = {"keys": [client_key("ES384", "app-key").as_dict(private=False)]}
LONG = "x" * (65 * 1024)
METADATA: Json = {
    "redirect_uris": [REDIRECT],
    "client_name": "Heart Diary",
    "token_endpoint_auth_method": "none",
}
METHODS = ("get", "put", "post", "delete")


class Description:
    """The description of a world's server, and answers held against it."""

    def __init__(self, world: World) -> None:
        scopes = world.server.smart_configuration()["scopes_supported"]
        self.document = openapi(world.server.issuer, scopes=scopes, version="test")
        whole = Resource.from_contents(self.document, default_specification=DRAFT202012)
        self.registry = Registry().with_resource("urn:openapi", whole)
        self.operations: dict[str, tuple[str, str, Json]] = {
            operation["operationId"]: (method, path, operation)
            for path, item in self.document["paths"].items()
            for method, operation in item.items()
            if method in METHODS
        }

    def check(self, name: str, answer: httpx.Response) -> None:
        """Hold an answer against the operation of this name."""
        method, path, operation = self.operations[name]
        status = str(answer.status_code)
        assert status in operation["responses"], (name, status, answer.text)
        described = operation["responses"][status]
        pointer = "/".join(
            part.replace("~", "~0").replace("/", "~1")
            for part in ("paths", path, method, "responses", status)
        )
        for header, one in described.get("headers", {}).items():
            if one.get("required"):
                assert header in answer.headers
            if header in answer.headers and "schema" in one:
                jsonschema.validate(answer.headers[header], one["schema"])
        content = described.get("content", {})
        if not content:
            assert answer.content == b""
            return
        kind = answer.headers["content-type"].partition(";")[0]
        assert kind in content
        if kind.endswith("json"):
            place = f"content/{kind.replace('/', '~1')}/schema"
            schema = {"$ref": f"urn:openapi#/{pointer}/{place}"}
            jsonschema.Draft202012Validator(schema, registry=self.registry).validate(answer.json())


@pytest.fixture
def described(world: World) -> Description:
    return Description(world)


def test_the_description_is_valid(described: Description) -> None:
    validate(described.document)
    assert described.document["openapi"].startswith("3.1.")


def test_every_endpoint_is_described(described: Description) -> None:
    """Planted fault: an endpoint is served and left out."""
    paths = described.document["paths"]
    assert paths.keys() >= OAuthEndpoints.PATHS


def test_every_address_that_discovery_names_is_described(
    world: World, described: Description
) -> None:
    for configuration in (
        world.server.smart_configuration(),
        world.server.openid_configuration(),
    ):
        for name, value in configuration.items():
            if name == "management_endpoint":  # a page for people
                continue
            if name.endswith(("_endpoint", "_uri", "_bundle")):
                assert value.removeprefix(world.base) in described.document["paths"], name


def test_patterns_are_those_of_json_schema(described: Description) -> None:
    """Planted fault: a pattern ends as Python has it, and means the letter Z to everybody else."""
    assert r"\\Z" not in json.dumps(described.document)


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"redirect_uris": None},
        {"redirect_uris": []},
        {"grant_types": ["client_credentials"]},
        {"grant_types": ["client_credentials"], "redirect_uris": None},
        {"grant_types": ["client_credentials"], "redirect_uris": None, "scope": "system/*.rs"},
        {"grant_types": ["authorization_code", "refresh_token"]},
        {"grant_types": ["refresh_token"]},
        {"grant_types": ["authorization_code", "implicit"]},
        {"response_types": []},
        {"response_types": ["code"]},
        {"response_types": ["token"]},
        {"scope": 7},
    ],
)
def test_client_metadata_is_described_as_it_is_judged(described: Description, change: Json) -> None:
    """The description has two kinds of clients in the place of an if."""
    metadata = {name: one for name, one in {**METADATA, **change}.items() if one is not None}
    schema = {"$ref": "urn:openapi#/components/schemas/ClientMetadata"}
    validator = jsonschema.Draft202012Validator(schema, registry=described.registry)
    judged = jsonschema.Draft202012Validator(METADATA_SCHEMA)
    assert validator.is_valid(metadata) == judged.is_valid(metadata)


# --- refusals ------------------------------------------------------------------------------------


async def send(world: World, method: str, path: str, **options: Any) -> httpx.Response:
    async with world.http() as http:
        return await http.request(method, path, **options)


def posting(path: str, **form: str) -> Case:
    """A form of a public app; ``client_id`` is its own unless another is given."""

    async def case(world: World) -> httpx.Response:
        app = await world.public_app()
        return await app.post(path, form)

    return case


def without_a_token(path: str) -> Case:
    async def case(world: World) -> httpx.Response:
        return await (await world.confidential_app()).post(path, {})

    return case


def waiting(path: str) -> Case:
    async def case(world: World) -> httpx.Response:
        app = await world.confidential_app(scope="user/*.rs", awaits_review=True)
        return await app.post(path, {"grant_type": "refresh_token", "token": "x"})

    return case


def proving(path: str, **form: str) -> Case:
    async def case(world: World) -> httpx.Response:
        app = await world.public_app()
        return await app.post(path, form, headers={"DPoP": "no proof"})

    return case


def without_nonce(path: str) -> Case:
    async def case(_: World) -> httpx.Response:
        careful = await World.begin(dpop=DpopPolicy(nonce=True))
        app = await careful.public_app()
        proof = Holder(careful).proof(url=f"{careful.base}{path}")
        form = app.parameters() if path == "/oauth/par" else {}
        form = {"grant_type": "authorization_code", "code": "x", "code_verifier": "v" * 64, **form}
        answer = await app.post(path, form, headers={"DPoP": proof})
        assert answer.headers["dpop-nonce"]
        careful.close()
        return answer

    return case


def pushing(**changes: str | None) -> Case:
    async def case(world: World) -> httpx.Response:
        app = await world.public_app()
        return await app.post("/oauth/par", app.parameters(**changes))

    return case


def registering(**changes: Any) -> Case:
    async def case(world: World) -> httpx.Response:
        return await send(world, "POST", "/oauth/register", json={**METADATA, **changes})

    return case


def managing(method: str, *, token: str | None = None, query: str = "", **changes: Any) -> Case:
    async def case(world: World) -> httpx.Response:
        told = (await send(world, "POST", "/oauth/register", json=METADATA)).json()
        path = told["registration_client_uri"].removeprefix(world.base) + query
        headers = {"Authorization": f"Bearer {token or told['registration_access_token']}"}
        body = {"client_id": told["client_id"], **METADATA, **changes}
        sent = {"json": body} if method == "PUT" else {}
        return await send(world, method, path, headers=headers, **sent)

    return case


def launching(*, permission: bool = True, token: str | None = None, **body: Any) -> Case:
    async def case(world: World) -> httpx.Response:
        ehr = await world.backend(permissions=["launch"] if permission else [])
        held = token or (await ehr.backend_token()).json()["access_token"]
        headers = {"Authorization": f"Bearer {held}"}
        return await send(world, "POST", "/oauth/launch", json=body, headers=headers)

    return case


async def asked_for_more(world: World) -> httpx.Response:
    app = await world.public_app()
    granted = await app.tokens()
    return await app.refresh(granted["refresh_token"], scope="patient/*.cruds")


async def for_another_server(world: World) -> httpx.Response:
    app = await world.public_app()
    return await app.post(
        "/oauth/token",
        {
            "grant_type": TOKEN_EXCHANGE,
            "subject_token": "x",
            "subject_token_type": ACCESS_TOKEN,
            "authorization_details": json.dumps([{"type": TYPE, "identifier": OWN}]),
            "resource": "https://elsewhere.example/fhir",
        },
    )


async def pushed_too_often(world: World) -> httpx.Response:
    app = await world.public_app()
    for _ in range(2):
        answer = await app.post("/oauth/par", app.parameters())
    return answer


async def registered_too_often(world: World) -> httpx.Response:
    for _ in range(21):
        answer = await registering()(world)
    return answer


STATEMENT = "eyJhbGciOiJSUzI1NiJ9.e30.c2ln"
METADATA_FAULTS: list[tuple[type[errors.OAuthError], Json]] = [
    (errors.InvalidClientMetadata, {"logo_uri": "javascript:alert(1)"}),
    (errors.InvalidRedirectUri, {"redirect_uris": ["http://app.example/"]}),
    (errors.InvalidSoftwareStatement, {"software_statement": "x"}),
    (errors.UnapprovedSoftwareStatement, {"software_statement": STATEMENT}),
    (errors.TooLarge, {"x": LONG}),
]
_UNKNOWN = {"client_id": "nobody", "grant_type": "refresh_token", "token": "x"}

CASES: list[tuple[str, type[errors.OAuthError], Case]] = [
    ("token", errors.InvalidRequest, posting("/oauth/token")),
    ("token", errors.InvalidClient, posting("/oauth/token", **_UNKNOWN)),
    ("token", errors.UnauthorizedClient, waiting("/oauth/token")),
    ("token", errors.TooLarge, posting("/oauth/token", x=LONG)),
    (
        "token",
        errors.InvalidGrant,
        posting("/oauth/token", grant_type="refresh_token", refresh_token="x"),
    ),
    ("token", errors.UnsupportedGrantType, posting("/oauth/token", grant_type="password")),
    ("token", errors.InvalidScope, asked_for_more),
    (
        "token",
        errors.InvalidDpopProof,
        proving("/oauth/token", grant_type="refresh_token", refresh_token="x"),
    ),
    ("token", errors.UseDpopNonce, without_nonce("/oauth/token")),
    (
        "token",
        errors.InvalidAuthorizationDetails,
        posting("/oauth/token", grant_type="refresh_token", authorization_details="[]"),
    ),
    ("token", errors.InvalidTarget, for_another_server),
    ("pushAuthorizationRequest", errors.InvalidRequest, pushing(response_type=None)),
    ("pushAuthorizationRequest", errors.InvalidClient, pushing(client_id="nobody")),
    ("pushAuthorizationRequest", errors.UnauthorizedClient, waiting("/oauth/par")),
    ("pushAuthorizationRequest", errors.TooLarge, pushing(x=LONG)),
    (
        "pushAuthorizationRequest",
        errors.UnsupportedResponseType,
        pushing(response_type="token"),
    ),
    ("pushAuthorizationRequest", errors.InvalidScope, pushing(scope="nonsense")),
    (
        "pushAuthorizationRequest",
        errors.InvalidAuthorizationDetails,
        pushing(authorization_details="{}"),
    ),
    ("pushAuthorizationRequest", errors.RequestNotSupported, pushing(request="e30.e30.")),
    (
        "pushAuthorizationRequest",
        errors.InvalidDpopProof,
        proving("/oauth/par", redirect_uri=REDIRECT),
    ),
    ("pushAuthorizationRequest", errors.UseDpopNonce, without_nonce("/oauth/par")),
    ("pushAuthorizationRequest", errors.TooManyRequests, pushed_too_often),
    *(
        (name, kind, case)
        for name in ("introspect", "revoke")
        for kind, case in (
            (errors.InvalidRequest, without_a_token(f"/oauth/{name}")),
            (errors.InvalidClient, posting(f"/oauth/{name}", **_UNKNOWN)),
            (errors.UnauthorizedClient, waiting(f"/oauth/{name}")),
            (errors.TooLarge, posting(f"/oauth/{name}", x=LONG)),
        )
    ),
    ("register", errors.InvalidRequest, posting("/oauth/register")),
    ("register", errors.TooManyRequests, registered_too_often),
    *(("register", kind, registering(**change)) for kind, change in METADATA_FAULTS),
    ("readRegistration", errors.InvalidRequest, managing("GET", query="?x=1")),
    ("readRegistration", errors.InvalidToken, managing("GET", token="x")),
    ("replaceRegistration", errors.InvalidRequest, managing("PUT", client_id="another")),
    ("replaceRegistration", errors.InvalidToken, managing("PUT", token="x")),
    *(("replaceRegistration", kind, managing("PUT", **change)) for kind, change in METADATA_FAULTS),
    ("endRegistration", errors.InvalidRequest, managing("DELETE", query="?x=1")),
    ("endRegistration", errors.InvalidToken, managing("DELETE", token="x")),
    ("launch", errors.InvalidRequest, launching(patient="Patient/nobody")),
    ("launch", errors.InvalidToken, launching(token="x" * 43)),
    ("launch", errors.AccessDenied, launching(permission=False)),
    ("launch", errors.TooLarge, launching(x=LONG)),
]


@pytest.mark.parametrize(
    ("name", "kind", "case"), CASES, ids=[f"{name}-{kind.__name__}" for name, kind, _ in CASES]
)
async def test_a_refusal_that_is_named_is_given(
    world: World,
    described: Description,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    kind: type[errors.OAuthError],
    case: Case,
) -> None:
    """Planted faults: an error that is left out, of another status, or with a member of its own."""
    if case is pushed_too_often:
        monkeypatch.setattr(server, "REQUESTS_PER_ADDRESS", "1 per hour")
    answer = await case(world)
    assert (answer.status_code, answer.json()["error"]) == (kind.status, kind.error)
    described.check(name, answer)


def test_no_refusal_is_named_that_is_not_given() -> None:
    """Planted fault: the description promises an error that never comes."""
    given = [(name, kind) for name, kind, _ in CASES]
    assert len(given) == len(set(given))
    assert set(given) == {(name, kind) for name, kinds in REFUSALS.items() for kind in kinds}


FAULTS: dict[str, Case] = {
    "token": posting("/oauth/token", grant_type="refresh_token", refresh_token="x"),
    "pushAuthorizationRequest": pushing(),
    "introspect": posting("/oauth/introspect", token="x"),
    "revoke": posting("/oauth/revoke", token="x"),
    "register": registering(),
    "readRegistration": managing("GET"),
    "replaceRegistration": managing("PUT"),
    "endRegistration": managing("DELETE"),
    "launch": launching(patient="Patient/mara"),
}


@pytest.mark.parametrize(
    ("fault", "status"),
    [(Unavailable("busy"), 503), (RuntimeError("a fault of ours"), 500)],
    ids=["busy", "fault"],
)
@pytest.mark.parametrize("name", FAULTS)
async def test_faults_of_ours_are_described_too(
    described: Description,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    fault: Exception,
    status: int,
) -> None:
    """The last request of each case meets the fault."""
    answered = OAuthEndpoints._answer  # noqa: SLF001 - where an endpoint does its work
    requests, last = 0, 0

    async def failing(*arguments: Any) -> Any:
        nonlocal requests
        requests += 1
        if requests == last:
            raise fault
        return await answered(*arguments)

    monkeypatch.setattr(OAuthEndpoints, "_answer", failing)
    for _ in range(2):  # first to count them
        last, requests = requests, 0
        world = await World.begin()
        answer = await FAULTS[name](world)
        world.close()
    assert answer.status_code == status
    described.check(name, answer)


# --- what is answered when all is well -----------------------------------------------------------


async def test_tokens_are_answered_as_described(world: World, described: Description) -> None:
    app = await world.public_app()
    answer = await app.exchange(await app.code(nonce="n"))
    assert answer.json().keys() >= {"id_token", "refresh_token", "patient", "fhirUser"}
    described.check("token", answer)
    described.check("token", await app.refresh(answer.json()["refresh_token"]))
    holder = Holder(world)
    bound = await app.exchange(await app.code(), headers={"DPoP": holder.proof()})
    assert bound.json()["token_type"] == "DPoP"
    described.check("token", bound)
    described.check("token", await (await world.backend()).backend_token())
    for held in (answer.json()["access_token"], "unknown"):
        described.check("revoke", await app.post("/oauth/revoke", {"token": held}))


async def test_several_records_are_told_as_described(world: World, described: Description) -> None:
    await a_family(world)
    await known_at(world, "skin/Person/mara")
    app = await world.confidential_app(
        backchannel_revocation_uri="https://app.example/ended",
        scope="launch/patient openid fhirUser offline_access patient/*.rs",
    )
    listed = await app.exchange(await consent(app, [OWN, PIP, KIT]))
    assert len(listed.json()["authorization_details"]) == 3
    assert "grant_id" in listed.json()
    described.check("token", listed)
    for one in listed.json()["authorization_details"]:
        form = {
            "grant_type": TOKEN_EXCHANGE,
            "subject_token": listed.json()["access_token"],
            "subject_token_type": ACCESS_TOKEN,
            "authorization_details": json.dumps([{"type": TYPE, "identifier": one["identifier"]}]),
        }
        exchanged = await app.post("/oauth/token", form)
        assert exchanged.status_code == 200
        described.check("token", exchanged)
        shown = await app.post("/oauth/introspect", {"token": exchanged.json()["access_token"]})
        assert shown.json()["active"]
        described.check("introspect", shown)
    shown = await app.post("/oauth/introspect", {"token": listed.json()["access_token"]})
    assert shown.json()["active"]
    described.check("introspect", shown)


async def test_introspection_is_answered_as_described(world: World, described: Description) -> None:
    app = await world.confidential_app()
    bound = await app.exchange(await app.code(), headers={"DPoP": Holder(world).proof()})
    for name in ("access_token", "refresh_token"):
        shown = await app.post("/oauth/introspect", {"token": bound.json()[name]})
        assert shown.json()["active"]
        described.check("introspect", shown)
    unknown = await app.post("/oauth/introspect", {"token": "x"})
    assert unknown.json() == {"active": False}
    described.check("introspect", unknown)
    ehr = await world.backend()
    token = (await ehr.backend_token()).json()["access_token"]
    described.check("introspect", await ehr.post("/oauth/introspect", {"token": token}))


async def test_an_ehr_launch_is_answered_as_described() -> None:
    practice = await Practice.begin()
    world = practice.world
    described = Description(world)
    order = {"reference": "ServiceRequest/order-1", "type": "ServiceRequest"}
    answer = await practice.post(
        fhirContext=[order], intent="review", smart_style_url="https://ehr.example/style.json"
    )
    described.check("launch", answer)
    browser = await practice.opened(answer.json()["launch"])
    await browser.submit({"decision": "approve", "scope": browser.boxes(ticked=True)})
    code = query_of(browser.page.headers["location"])["code"]
    tokens = await practice.app.exchange(code)
    assert tokens.json().keys() >= {"encounter", "intent", "smart_style_url", "fhirContext"}
    described.check("token", tokens)
    world.close()


async def test_registrations_are_answered_as_described(
    world: World, described: Description
) -> None:
    for changes in (
        {"client_uri": "https://app.example", "contacts": ["a@app.example"], "software_id": "x"},
        {"token_endpoint_auth_method": "client_secret_basic"},
        {"token_endpoint_auth_method": "private_key_jwt", "jwks": KEYS},
        {"scope": "user/*.rs", "dpop_bound_access_tokens": True},
        {"backchannel_revocation_uri": "https://app.example/ended"},
        {"initiate_login_uri": "https://app.example/launch"},
    ):
        registered = await registering(**changes)(world)
        described.check("register", registered)
        told = registered.json()
        path = told["registration_client_uri"].removeprefix(world.base)
        headers = {"Authorization": f"Bearer {told['registration_access_token']}"}
        described.check("readRegistration", await send(world, "GET", path, headers=headers))
        sent = {**METADATA, **changes, "client_id": told["client_id"], "client_name": "Other"}
        replaced = await send(world, "PUT", path, headers=headers, json=sent)
        described.check("replaceRegistration", replaced)
        headers = {"Authorization": f"Bearer {replaced.json()['registration_access_token']}"}
        described.check("endRegistration", await send(world, "DELETE", path, headers=headers))


async def test_what_is_pushed_is_answered_as_described(
    world: World, described: Description
) -> None:
    answer = await pushing(authorization_details=DETAILS)(world)
    assert answer.status_code == 201
    described.check("pushAuthorizationRequest", answer)


@pytest.fixture
async def site(world: World) -> World:
    take_in(
        world.app,
        developers_router(
            server=world.server, store=world.store, clock=world.clock, random=world.random
        ),
    )
    take_in(
        world.app, brands_router(store=world.store, issuer=world.server.issuer, clock=world.clock)
    )
    return world


DOCUMENTS = ["jwks", "openidConfiguration", "authorizationDetails", "accessEndedEvent", "openapi"]


@pytest.mark.parametrize("name", [*DOCUMENTS, "brands"])
async def test_public_documents_are_as_described(
    site: World, described: Description, name: str
) -> None:
    method, path, _ = described.operations[name]
    answer = await send(site, method, path, headers={"Origin": "https://anywhere.example"})
    assert answer.status_code == 200
    assert answer.headers["access-control-allow-origin"] == "*"
    described.check(name, answer)
    if name == "brands":
        known = {"If-None-Match": answer.headers["etag"]}
        described.check(name, await send(site, method, path, headers=known))


async def test_the_description_itself_is_served(site: World) -> None:
    served = (await send(site, "GET", OPENAPI_PATH)).json()
    assert served["paths"] == Description(site).document["paths"]
    validate(served)
    asked = await send(site, "OPTIONS", OPENAPI_PATH, headers={"Origin": "https://a.example"})
    assert (asked.status_code, asked.headers["access-control-allow-methods"]) == (204, "GET, HEAD")


# --- the authorization endpoint ------------------------------------------------------------------


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({}, 303),
        ({"client_id": "nobody"}, 401),
        ({"redirect_uri": "https://evil.example/"}, 400),
        ({"client_id": "waiting"}, 400),
        ({"request_uri": "urn:ietf:params:oauth:request_uri:x", "redirect_uri": None}, 400),
    ],
)
async def test_authorization_requests_are_answered_as_described(
    world: World, described: Description, method: str, changes: Json, status: int
) -> None:
    app = await world.public_app()
    await world.public_app("waiting", scope="user/*.rs", awaits_review=True)
    form = app.parameters(**changes)
    options = {"data": form} if method == "POST" else {"params": form}
    answer = await send(world, method, "/oauth/authorize", **options)
    assert answer.status_code == status
    described.check("authorize" if method == "GET" else "authorizeByForm", answer)


async def test_an_authorization_request_has_its_limits(
    world: World, described: Description, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = await world.public_app()
    long = await send(world, "POST", "/oauth/authorize", data=app.parameters(state=LONG))
    assert long.status_code == 413
    described.check("authorizeByForm", long)
    monkeypatch.setattr(server, "REQUESTS_PER_ADDRESS", "1 per hour")
    for _ in range(2):
        answer = await send(world, "GET", "/oauth/authorize", params=app.parameters())
    assert answer.status_code == 429
    described.check("authorize", answer)


async def refused_at_once(world: World, **changes: str | None) -> str:
    app = await world.public_app()
    with pytest.raises(errors.OAuthError) as refusal:
        await world.server.begin(list(app.parameters(**changes).items()))
    assert refusal.value.redirect_uri == REDIRECT
    return refusal.value.error


async def refused_silently(world: World, *, signed_in: bool, records: int = 1) -> str:
    if records > 1:
        await a_family(world)
    app = await world.public_app()
    browser = world.browser()
    if signed_in:
        await browser.open("/signin")
        await browser.sign_in()
    answer = await browser.authorize(app, prompt="none")
    return query_of(answer.headers["location"])["error"]


async def refused_by_the_person(world: World) -> str:
    browser = world.browser()
    await browser.authorize(await world.public_app())
    await browser.sign_in()
    answer = await browser.submit({"decision": "deny"})
    return query_of(answer.headers["location"])["error"]


ANSWERS: dict[type[errors.OAuthError], Callable[[World], Awaitable[str]]] = {
    errors.InvalidRequest: lambda world: refused_at_once(world, aud="https://other.example"),
    errors.UnsupportedResponseType: lambda world: refused_at_once(world, response_type="token"),
    errors.InvalidScope: lambda world: refused_at_once(world, scope="nonsense"),
    errors.InvalidAuthorizationDetails: lambda world: refused_at_once(
        world, authorization_details="{}"
    ),
    errors.RequestNotSupported: lambda world: refused_at_once(world, request="e30.e30."),
    errors.RequestUriNotSupported: lambda world: refused_at_once(
        world, request_uri="https://app.example/request"
    ),
    errors.LoginRequired: lambda world: refused_silently(world, signed_in=False),
    errors.ConsentRequired: lambda world: refused_silently(world, signed_in=True),
    errors.InteractionRequired: lambda world: refused_silently(world, signed_in=True, records=3),
    errors.AccessDenied: refused_by_the_person,
}


@pytest.mark.parametrize("kind", AUTHORIZATION_REFUSALS)
async def test_what_an_app_is_told_is_described(
    world: World, described: Description, kind: type[errors.OAuthError]
) -> None:
    assert await ANSWERS[kind](world) == kind.error
    for name, place in (
        ("authorize", "{$request.query.redirect_uri}"),
        ("authorizeByForm", "{$request.body#/redirect_uri}"),
    ):
        answer = described.operations[name][2]["callbacks"]["answer"][place]["get"]
        (error,) = [one for one in answer["parameters"] if one["name"] == "error"]
        assert kind.error in error["schema"]["enum"]


def test_the_app_is_told_nothing_else() -> None:
    assert ANSWERS.keys() == set(AUTHORIZATION_REFUSALS)
