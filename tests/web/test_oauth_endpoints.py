"""The token endpoints over HTTP: methods, media types, limits, repeats, CORS."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from fhir_portal.fhir.errors import Unavailable
from fhir_portal.smart.loading import Loader
from tests.smart.world import BASE, REDIRECT, World, assert_oauth_error

ORIGIN = "https://app.example"
ENDPOINTS = ["/oauth/token", "/oauth/introspect", "/oauth/revoke", "/oauth/register"]
FORM = {"Content-Type": "application/x-www-form-urlencoded"}


@pytest.fixture
async def world() -> AsyncIterator[World]:
    world = await World.begin()
    yield world
    world.close()


@pytest.mark.parametrize("path", ENDPOINTS)
@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "PATCH"])
async def test_only_post_is_taken(world: World, path: str, method: str) -> None:
    async with world.http() as http:
        response = await http.request(method, path)
    assert response.status_code == 405
    assert response.headers["allow"] == "POST, OPTIONS"


@pytest.mark.parametrize("path", ENDPOINTS[:3])
async def test_only_forms_are_taken(world: World, path: str) -> None:
    async with world.http() as http:
        response = await http.post(path, json={"token": "x"})
    assert_oauth_error(response, "invalid_request")


@pytest.mark.parametrize(
    "name", ["grant_type", "code", "client_id", "redirect_uri", "code_verifier", "unheard_of"]
)
@pytest.mark.requirement("attacks", "parameter pollution")
async def test_a_parameter_may_come_once_only(world: World, name: str) -> None:
    app = await world.public_app()
    code = await app.code()
    before = await world.rows()
    pairs = [
        ("grant_type", "authorization_code"),
        ("code", code),
        ("redirect_uri", REDIRECT),
        ("client_id", "app"),
        ("code_verifier", app.verifier),
        ("unheard_of", "x"),
    ]
    polluted = [*pairs, (name, dict(pairs)[name])]
    body = "&".join(f"{key}={value}" for key, value in polluted)
    async with world.http() as http:
        response = await http.post("/oauth/token", content=body, headers=FORM)
    assert_oauth_error(response, "invalid_request")
    assert await world.rows() == before


async def test_a_token_request_without_a_grant_type_is_invalid(world: World) -> None:
    app = await world.public_app()
    assert_oauth_error(await app.post("/oauth/token", {"code": "x"}), "invalid_request")
    assert_oauth_error(await app.post("/oauth/token", {"grant_type": ""}), "invalid_request")


async def test_a_fault_of_ours_says_nothing_of_the_inside(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = await world.public_app()

    async def broken(*_: Any) -> None:
        raise RuntimeError("table tokens at 10.0.0.7")

    monkeypatch.setattr(Loader, "clients", broken)
    response = await app.post("/oauth/token", {"grant_type": "refresh_token"})
    assert_oauth_error(response, "server_error", 500)
    assert "10.0.0.7" not in response.text


async def test_a_store_that_is_too_busy_is_said_so(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = await world.public_app()

    async def busy(*_: Any) -> None:
        raise Unavailable("the writer is busy")

    monkeypatch.setattr(Loader, "clients", busy)
    response = await app.post("/oauth/token", {"grant_type": "refresh_token"})
    assert_oauth_error(response, "temporarily_unavailable", 503)


async def test_parameters_do_not_come_in_the_address(world: World) -> None:
    app = await world.public_app()
    response = await app.post("/oauth/token?code=x", {"grant_type": "authorization_code"})
    assert_oauth_error(response, "invalid_request")


@pytest.mark.parametrize("body", [b"code=%ff", b"\xff=1", b"code=%ed%a0%80"])
async def test_bytes_that_are_no_text_are_refused(world: World, body: bytes) -> None:
    async with world.http() as http:
        response = await http.post("/oauth/token", content=body, headers=FORM)
    assert_oauth_error(response, "invalid_request")


@pytest.mark.parametrize("path", ENDPOINTS)
async def test_a_large_body_is_not_read_to_its_end(world: World, path: str) -> None:
    async with world.http() as http:
        response = await http.post(path, content=b"x" * 70_000, headers=FORM)
    assert_oauth_error(response, "invalid_request", 413)


@pytest.mark.parametrize(
    "header",
    ["Basic", "Basic !!!", "Basic é", "Basic bm9jb2xvbg==", "Basic /w==", "Bearer x", "Digest x=1"],
)
async def test_a_header_that_is_not_basic_is_refused(world: World, header: str) -> None:
    async with world.http() as http:
        response = await http.post(
            "/oauth/token",
            data={"grant_type": "refresh_token"},
            headers={b"Authorization": header.encode("latin-1")},
        )
    assert_oauth_error(response, "invalid_client", 401)
    assert response.headers["www-authenticate"].startswith("Basic ")


@pytest.mark.parametrize("name", ["Authorization", "Content-Type", "Origin"])
@pytest.mark.requirement("attacks", "parameter pollution")
async def test_a_header_that_comes_twice_is_refused(world: World, name: str) -> None:
    """Who reads the first and who reads the last would see different requests."""
    app = await world.confidential_app()
    right = httpx.BasicAuth("web-app", app.secret or "")
    request = next(right.auth_flow(httpx.Request("POST", BASE)))
    values = {
        "Authorization": ["Basic d2ViLWFwcDp3cm9uZw==", request.headers["Authorization"]],
        "Content-Type": ["text/plain", FORM["Content-Type"]],
        "Origin": ["https://evil.example", ORIGIN],
    }
    headers = [(name, value) for value in values[name]]
    headers += [(other, given[1]) for other, given in values.items() if other != name]
    async with world.http() as http:
        response = await http.post("/oauth/introspect", content="token=x", headers=headers)
    assert_oauth_error(response, "invalid_request")


@pytest.mark.parametrize("blank", ["client_id", "client_secret", "scope", "client_assertion"])
async def test_a_parameter_without_a_value_is_as_good_as_none(world: World, blank: str) -> None:
    app = await world.confidential_app()
    body = await app.tokens()
    form = {"grant_type": "refresh_token", "refresh_token": body["refresh_token"], blank: ""}
    response = await app.post("/oauth/token", form, auth=("web-app", app.secret))
    assert response.status_code == 200


@pytest.mark.parametrize(
    "form",
    [
        {"client_id": "other-app"},
        {"client_secret": "x"},
        {"client_assertion": "x"},
        {"client_id": "web-app", "client_secret": "x"},
    ],
)
async def test_a_client_is_one_client_and_proves_it_once(
    world: World, form: dict[str, Any]
) -> None:
    app = await world.confidential_app()
    await world.confidential_app("other-app")
    assert app.secret is not None
    response = await app.post(
        "/oauth/token",
        {"grant_type": "refresh_token", "refresh_token": "x", **form},
        auth=("web-app", app.secret),
    )
    assert_oauth_error(response, "invalid_request")


async def test_basic_may_be_percent_encoded(world: World) -> None:
    app = await world.confidential_app("web.app~1")
    assert app.secret is not None
    code = await app.code()
    form = {
        "grant_type": "authorization_code",
        "code": code,
        "redirect_uri": REDIRECT,
        "code_verifier": app.verifier,
    }
    response = await app.post("/oauth/token", form, auth=("web%2Eapp%7E1", app.secret))
    assert response.status_code == 200


async def test_registered_origins_may_read_the_answers(world: World) -> None:
    app = await world.public_app()
    code = await app.code()
    form = {
        "grant_type": "authorization_code",
        "code": code,
        "redirect_uri": REDIRECT,
        "code_verifier": app.verifier,
    }
    good = await app.post("/oauth/token", form, headers={"Origin": ORIGIN})
    bad = await app.post("/oauth/token", form, headers={"Origin": ORIGIN})
    for response in (good, bad):
        assert response.headers["access-control-allow-origin"] == ORIGIN
        assert response.headers["vary"] == "Origin"
        assert "access-control-allow-credentials" not in response.headers
    assert (good.status_code, bad.status_code) == (200, 400)


async def test_an_origin_is_registered_however_its_port_was_written(world: World) -> None:
    app = await world.public_app("spa", redirect_uris=["https://spa.example:443/callback"])
    headers = {"Origin": "https://spa.example"}
    response = await app.post("/oauth/token", {"grant_type": "x"}, headers=headers)
    assert response.headers["access-control-allow-origin"] == "https://spa.example"


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "null", "http://app.example", "x" * 1000, ""]
)
async def test_other_origins_may_not(world: World, origin: str) -> None:
    app = await world.public_app()
    response = await app.post("/oauth/token", {"grant_type": "x"}, headers={"Origin": origin})
    assert "access-control-allow-origin" not in response.headers
    assert response.headers["vary"] == "Origin"


@pytest.mark.parametrize("path", ENDPOINTS)
async def test_a_preflight_of_a_registered_origin_is_answered(world: World, path: str) -> None:
    await world.public_app()
    headers = {
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization, content-type",
    }
    async with world.http() as http:
        known = await http.options(path, headers={**headers, "Origin": ORIGIN})
        unknown = await http.options(path, headers={**headers, "Origin": "https://evil.example"})
    assert known.status_code == 204
    assert known.headers["access-control-allow-origin"] == ORIGIN
    assert known.headers["access-control-allow-methods"] == "POST"
    allowed = known.headers["access-control-allow-headers"].split(", ")
    assert {"authorization", "content-type"} <= set(allowed)
    assert unknown.status_code == 204
    assert "access-control-allow-origin" not in unknown.headers


async def test_what_stands_in_the_place_of_a_grant_type_is_not_repeated(world: World) -> None:
    """It may be a token in the wrong field."""
    token = "c2rW8Sv0yGglFnWxlhDExMImv3UDBYSDeXhKc5GGBXk"
    async with world.http() as http:
        response = await http.post("/oauth/token", data={"grant_type": token})
    assert_oauth_error(response, "unsupported_grant_type")
    assert token not in response.text
    assert response.json()["error_description"] == "this grant_type is not supported"
