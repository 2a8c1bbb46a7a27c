"""Requests that schemathesis makes of the description, valid and not; every answer is described.

The endpoints are the real ones. Where a client is named, it is mostly one that exists, so that what
is asked gets further than its name.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode

from fhir_portal.smart import server
from fhir_portal.web.brands import brands_router
from fhir_portal.web.developers import developers_router
from fhir_portal.web.oauth import OAuthEndpoints
from fhir_portal.web.site import take_in
from tests.smart.test_openapi import KEYS, Description
from tests.smart.world import REDIRECT, App, World

ELSEWHERE = frozenset({"smartConfiguration"})
"""Served with the FHIR API (tests/web/test_fhir_metadata.py)."""
often = settings(
    max_examples=25,
    deadline=None,
    database=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)


class Driven:
    """A world in a loop of its own, for tests that hypothesis calls again and again."""

    def __init__(self) -> None:
        self.runner = asyncio.Runner()
        self.world = self.runner.run(World.begin())
        take_in(
            self.world.app,
            developers_router(
                server=self.world.server,
                store=self.world.store,
                clock=self.world.clock,
                random=self.world.random,
            ),
        )
        take_in(
            self.world.app,
            brands_router(
                store=self.world.store, issuer=self.world.server.issuer, clock=self.world.clock
            ),
        )
        self.app: App = self.runner.run(self.world.public_app())
        self.web: App = self.runner.run(self.world.confidential_app())
        self.ehr: App = self.runner.run(self.world.backend(permissions=["launch"]))
        answer = self.runner.run(self.ehr.backend_token())
        self.token: str = answer.json()["access_token"]
        self.described = Description(self.world)
        self.schema = schemathesis.openapi.from_dict(self.described.document)

    def close(self) -> None:
        self.world.close()
        self.runner.close()

    def send(self, method: str, url: str, **options: Any) -> httpx.Response:
        async def work() -> httpx.Response:
            async with self.world.http() as http:
                return await http.request(method, url, **options)

        return self.runner.run(work())


@pytest.fixture(scope="module")
def driven() -> Iterator[Driven]:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(server, "REGISTRATIONS_PER_ADDRESS", "100000 per hour")
        driven = Driven()
        yield driven
        driven.close()


def cases() -> list[tuple[str, GenerationMode]]:
    """Every operation as it is described, and those that take something also as it is not."""
    driven = Driven()
    found = [
        (name, mode)
        for name, (_, _, operation) in sorted(driven.described.operations.items())
        if name not in ELSEWHERE
        for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE)
        if mode is GenerationMode.POSITIVE
        or "requestBody" in operation
        or any(one["in"] == "query" for one in operation.get("parameters", ()))
    ]
    driven.close()
    return found


def sent(case: Any, driven: Driven, *, known: bool) -> dict[str, Any]:
    """What schemathesis would send, by the names of httpx; with clients and tokens that exist."""
    asked = case.as_transport_kwargs(base_url=driven.world.base)
    headers = {
        name: value
        for name, value in asked["headers"].items()
        if name != "User-Agent" and not name.startswith("X-Schemathesis")
    }
    options: dict[str, Any] = {"params": asked.get("params") or {}}
    for name in ("json", "data"):
        if name in asked and asked[name] is not None:
            options[name] = asked[name]
    if isinstance(options.get("data"), bytes | str):
        options["content"] = options.pop("data")
    form = options.get("data")
    if known and isinstance(form, dict):
        if case.operation.definition.raw["operationId"] in ("introspect", "revoke"):
            form |= {"client_id": driven.web.client_id, "client_secret": driven.web.secret or ""}
            form.pop("client_assertion", None)
            form.pop("client_assertion_type", None)
            headers.pop("Authorization", None)
        else:
            form |= {"client_id": driven.app.client_id, "redirect_uri": REDIRECT}
    if known and "client_id" in options["params"]:
        options["params"] |= {"client_id": driven.app.client_id, "redirect_uri": REDIRECT}
    registers = case.operation.definition.raw["operationId"] == "register"
    if known and registers and isinstance(options.get("json"), dict):
        make_registrable(options["json"])
    if case.operation.definition.raw["operationId"] == "launch":
        headers["Authorization"] = f"Bearer {driven.token}"
    return {"method": asked["method"], "url": asked["url"], "headers": headers, **options}


def make_registrable(metadata: dict[str, Any]) -> None:
    """Give client metadata what no generator makes: words, addresses and keys that are taken."""
    for name, value in list(metadata.items()):
        if name in ("jwks", "software_statement") or (
            isinstance(value, str) and not (value.isprintable() and value.strip())
        ):
            del metadata[name]
    for name in ("jwks_uri", "backchannel_revocation_uri", "initiate_login_uri", "contacts"):
        metadata.pop(name, None)
    if "redirect_uris" in metadata:
        metadata |= {"redirect_uris": [REDIRECT], "scope": "openid patient/*.rs"}
    else:
        metadata["scope"] = "system/*.rs"
    if metadata.get("token_endpoint_auth_method") == "private_key_jwt":
        metadata["jwks"] = KEYS


@pytest.mark.parametrize(
    ("name", "mode"), cases(), ids=[f"{name}-{mode.value}" for name, mode in cases()]
)
def test_whatever_is_asked_is_answered_as_described(
    driven: Driven, name: str, mode: GenerationMode
) -> None:
    """Planted faults: a status, a member or a header that is not described; a fault of ours."""
    method, path, _ = driven.described.operations[name]
    operation = driven.schema[path][method]

    @often
    @given(case=operation.as_strategy(generation_mode=mode), known=st.booleans())
    def ask(case: Any, known: bool) -> None:  # noqa: FBT001 - hypothesis calls it
        try:
            request = sent(case, driven, known=known)
            answer = driven.send(**request)
        except (UnicodeEncodeError, httpx.InvalidURL):
            return  # what no client could send
        assert answer.status_code < 500, answer.text
        if answer.request.method == method.upper() and not elsewhere(answer, path):
            driven.described.check(name, answer)

    ask()


def elsewhere(answer: httpx.Response, path: str) -> bool:
    """Whether the address became another one: an id that is none leads to no endpoint."""
    return "{" in path and answer.status_code == 404


@pytest.mark.parametrize("path", sorted(OAuthEndpoints.PATHS))
def test_other_methods_are_refused_by_name(driven: Driven, path: str) -> None:
    described = driven.described.document["paths"][path]
    for method in ("GET", "PUT", "POST", "DELETE", "PATCH"):
        answer = driven.send(method, path)
        if method.lower() in described:
            assert answer.status_code != 405
        else:
            assert answer.status_code == 405
            assert answer.json()["error"] == "invalid_request"
            allowed = answer.headers["allow"].lower().split(", ")
            assert set(allowed) - {"head", "options"} == described.keys() - {"parameters"}
