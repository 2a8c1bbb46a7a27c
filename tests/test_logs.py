"""What a fault of ours leaves in the log: that it was, and where; nothing of whom it was about."""

from __future__ import annotations

import asyncio
import io
import json
import logging
from pathlib import Path
from typing import Any

import httpx
import pytest
import structlog

from fhir_portal.accounts.account import AccountName
from fhir_portal.logs import configure
from fhir_portal.smart.code import AuthorizationCode
from fhir_portal.smart.token import AccessToken
from tests.smart.world import World
from tests.web.fhir_world import FhirWorld

SECRETS = {
    "password": "a-password-of-a-person",
    "code": "a-code-of-an-app-x",
    "token": "a-bearer-token-of-an-app",
    "name": "Quillfeather",
    "words": "the words of an exception",
}


@pytest.fixture
def written(log_as_it_was: None) -> io.StringIO:
    """The log as the server process writes it."""
    del log_as_it_was
    stream = io.StringIO()
    configure("debug", stream)
    return stream


def fails_at(world: Any, kind: type, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the store fail when it is asked for one kind of record, with words that tell."""
    get = world.store.get

    async def failing(asked: type, key: str) -> Any:
        if asked is kind:
            secret = {**SECRETS, "key": key}
            raise ValueError(f"{SECRETS['words']}: {secret}")
        return await get(asked, key)

    monkeypatch.setattr(world.store, "get", failing)


def lines(written: io.StringIO) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in written.getvalue().splitlines()]
    assert all({"event", "level", "timestamp"} <= line.keys() for line in found)
    return found


def assert_silent(written: io.StringIO, capfd: pytest.CaptureFixture[str]) -> None:
    captured = capfd.readouterr()
    for text in (written.getvalue(), captured.out, captured.err):
        assert not [secret for secret in SECRETS.values() if secret in text]
        assert "Traceback" not in text


async def test_a_fault_in_sign_in_leaks_no_password(
    written: io.StringIO, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    world = await World.begin()
    browser = world.browser()
    await browser.open("/signin")
    fails_at(world, AccountName, monkeypatch)
    response = await browser.sign_in(SECRETS["name"], SECRETS["password"])
    world.close()
    assert response.status_code == 500
    (line,) = lines(written)
    assert (line["level"], line["error"], line["path"]) == ("error", "ValueError", "/signin")
    assert any("credentials.py" in place for place in line["at"])
    assert_silent(written, capfd)


async def test_before_the_log_is_set_up_a_fault_leaks_no_more(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a test, or in a program that uses a part of this one."""
    structlog.reset_defaults()
    world = await World.begin()
    app, browser = await world.confidential_app(), world.browser()
    await browser.open("/signin")
    fails_at(world, AccountName, monkeypatch)
    assert (await browser.sign_in(SECRETS["name"], SECRETS["password"])).status_code == 500
    fails_at(world, AuthorizationCode, monkeypatch)
    assert (await app.exchange(SECRETS["code"])).status_code == 500
    world.close()
    assert_silent(io.StringIO(), capfd)


async def test_a_fault_in_a_token_request_leaks_neither_code_nor_secret(
    written: io.StringIO, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    world = await World.begin()
    app = await world.confidential_app()
    fails_at(world, AuthorizationCode, monkeypatch)
    response = await app.exchange(SECRETS["code"])
    world.close()
    assert response.status_code == 500
    (line,) = lines(written)
    assert (line["error"], line["path"]) == ("ValueError", "/oauth/token")
    assert app.secret
    assert app.secret not in written.getvalue()
    assert_silent(written, capfd)


async def test_a_fault_in_the_fhir_api_leaks_neither_token_nor_data(
    tmp_path: Path,
    written: io.StringIO,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = await FhirWorld.begin(tmp_path)
    fails_at(world, AccessToken, monkeypatch)
    async with world.client(SECRETS["token"]) as client:
        response = await client.get(f"/fhir/Patient?name={SECRETS['name']}")
    world.close()
    assert response.status_code == 500
    (line,) = lines(written)
    assert line["error"] == "ValueError"
    assert_silent(written, capfd)


async def test_what_a_library_says_of_an_exception_is_cut_too(
    written: io.StringIO, capfd: pytest.CaptureFixture[str]
) -> None:
    try:
        int(SECRETS["words"])
    except ValueError as error:
        asyncio.get_running_loop().call_exception_handler(
            {"message": "Task exception was never retrieved", "exception": error, "x": error}
        )
        logging.getLogger("uvicorn.error").exception("Exception in ASGI application\n")
        structlog.get_logger().exception("here")
    logging.getLogger("httpx").info("GET https://x.example/?token=%s", SECRETS["token"])
    assert [(line["event"], line["error"]) for line in lines(written)] == [
        ("Task exception was never retrieved", "ValueError"),
        ("Exception in ASGI application", "ValueError"),
        ("here", "ValueError"),
    ]
    assert_silent(written, capfd)


@pytest.mark.parametrize("level", ["info", "warning", "error"])
def test_the_level_is_the_one_that_was_set(written: io.StringIO, level: Any) -> None:
    configure(level, written)
    for name in ("debug", "info", "warning", "error"):
        getattr(structlog.get_logger(), name)(name)
    names = ["debug", "info", "warning", "error"]
    assert [line["event"] for line in lines(written)] == names[names.index(level) :]


def test_an_exception_without_a_place_is_named(written: io.StringIO) -> None:
    structlog.get_logger().error("gone", exc_info=httpx.ConnectError(SECRETS["words"]))
    assert [(line["error"], line["at"]) for line in lines(written)] == [("ConnectError", [])]
