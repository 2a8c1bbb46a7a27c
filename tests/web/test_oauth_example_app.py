"""The example app against this server: what the tutorial shows is what happens."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import json
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn

from fhir_portal.smart.token import authenticate
from tests.smart.world import PASSWORD, World

SCRIPT = Path(__file__).parents[2] / "examples" / "standalone_app.py"
REDIRECT_URI = "http://127.0.0.1:8765/callback"
PATIENT = {
    "resourceType": "Patient",
    "id": "mara",
    "name": [{"given": ["Mara"], "family": "Quill"}],
    "birthDate": "1984-05-12",
}
OBSERVATION = {
    "resourceType": "Observation",
    "code": {"text": "Heart rate"},
    "effectiveDateTime": "2026-11-01T08:00:00Z",
    "valueQuantity": {"value": 61, "unit": "/min"},
}


def example() -> Any:
    spec = importlib.util.spec_from_file_location("standalone_app", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class FhirStandIn:
    """Just enough of `/fhir`: discovery, and two answers for who bears a live token."""

    def __init__(self, world: World) -> None:
        self._world = world

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http" or not scope["path"].startswith("/fhir"):
            await self._world.asgi(scope, receive, send)
            return
        bearer = dict(scope["headers"]).get(b"authorization", b"").removeprefix(b"Bearer ")
        world = self._world
        status, body = 200, {}
        if scope["path"].endswith("/smart-configuration"):
            body = world.server.smart_configuration()
        elif await authenticate(world.store, bearer.decode(), world.clock()) is None:
            status = 401
        elif scope["path"] == "/fhir/Patient/mara":
            body = PATIENT
        else:
            body = {"resourceType": "Bundle", "entry": [{"resource": OBSERVATION}]}
        headers = [(b"content-type", b"application/json")]
        headers += [(b"www-authenticate", b"Bearer")] if status == 401 else []
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": json.dumps(body).encode()})


@contextlib.asynccontextmanager
async def served(world: World, listener: socket.socket) -> AsyncIterator[None]:
    config = uvicorn.Config(FhirStandIn(world), log_config=None, lifespan="off")
    server = uvicorn.Server(config)
    listener.listen()  # from here on connections wait until the server takes them
    task = asyncio.create_task(server.serve([listener]))
    yield
    server.should_exit = True
    await task


async def test_the_example_app_reads_refreshes_and_is_revoked(
    capsys: pytest.CaptureFixture[str],
) -> None:
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    base = f"http://127.0.0.1:{listener.getsockname()[1]}"
    world = await World.begin(base=base)
    await world.public_app("example-app", redirect_uris=[REDIRECT_URI])
    app = example()
    arguments = app.arguments_of(
        [
            *("--base", f"{base}/fhir"),
            *("--client-id", "example-app"),
            *("--demo-user", "mara@example.org"),
            *("--demo-password", PASSWORD),
        ]
    )
    async with served(world, listener):
        await app.main(arguments)
    listener.close()
    world.close()
    lines = [line for line in capsys.readouterr().out.splitlines() if line[:4] != "2026"]
    granted, *rest = lines
    assert "patient/Observation.rs" in granted
    assert rest == [
        "record     Mara Quill, born 1984-05-12",
        "           2026-11-01  Heart rate  61 /min",
        "refreshed  200",
        "revoked    401 Bearer",
    ]


async def test_the_example_app_waits_for_a_browser_to_come_back() -> None:
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    listener.close()
    redirect_uri = f"http://127.0.0.1:{port}/callback"
    waiting = asyncio.create_task(example().listen("https://portal.example", redirect_uri))
    await asyncio.sleep(0)
    async with httpx.AsyncClient(transport=httpx.AsyncHTTPTransport(retries=3)) as browser:
        await browser.get(f"http://127.0.0.1:{port}/favicon.ico")
        shown = await browser.get(f"{redirect_uri}?code=c&state=s%2F1")
    assert "go back to the app" in shown.text
    assert await waiting == {"code": "c", "state": "s/1"}


def test_the_example_is_short_enough_to_be_read() -> None:
    assert len(SCRIPT.read_text("utf-8").splitlines()) < 200
