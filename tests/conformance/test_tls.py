"""Over TLS, with a certificate made for the test (checklist S13).

In production a proxy speaks TLS; here uvicorn does, on loopback, so that what depends on the
address (documents, cookies, audiences) is tried behind ``https``.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn

from tests.conformance.inferno import Client, public
from tests.conformance.whole import Whole
from tests.smart.test_outbound_tls import certificate
from tests.smart.world import Browser

INFERNO = "inferno"
OLD = [ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1]
NEW = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]
ENDPOINTS = ["/oauth/authorize", "/oauth/token", "/fhir/metadata"]

pytestmark = pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")


class OverTls(Whole):
    """The server behind a certificate; its clients verify it."""

    trust: ssl.SSLContext
    browsers: list[Browser]

    def browser(self) -> Browser:
        self.browsers.append(super().browser())
        return self.browsers[-1]

    def http(self, **options: Any) -> httpx.AsyncClient:
        return httpx.AsyncClient(verify=self.trust, trust_env=False, base_url=self.base, **options)


@dataclass
class Served:
    whole: OverTls
    port: int


@pytest.fixture
async def served(prepared: Path, tmp_path: Path) -> AsyncIterator[Served]:
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    file = certificate(tmp_path, "localhost")
    whole = await OverTls.begin(tmp_path, of=prepared, base=f"https://localhost:{port}")
    whole.browsers = []
    whole.trust = ssl.create_default_context(cafile=str(file))
    config = uvicorn.Config(
        whole.app,
        ssl_certfile=file,
        ssl_keyfile=file,
        lifespan="off",
        log_config=None,  # the loggers are everybody's
    )
    server = uvicorn.Server(config)
    listener.listen()
    task = asyncio.create_task(server.serve([listener]))
    yield Served(whole, port)
    for browser in whole.browsers:
        await browser.http.aclose()
    server.should_exit = True
    await task
    listener.close()
    await whole.close()


async def handshake(served: Served, version: ssl.TLSVersion) -> str | None:
    """Offer one version of TLS; the one agreed upon."""
    context = ssl.create_default_context(cafile=str(served.whole.folder / "localhost.pem"))
    context.set_ciphers("ALL:@SECLEVEL=0")  # or old versions would not even be offered
    context.minimum_version = context.maximum_version = version

    def offer() -> str | None:
        with (
            socket.create_connection(("127.0.0.1", served.port), timeout=10) as plain,
            context.wrap_socket(plain, server_hostname="localhost") as secured,
        ):
            return secured.version()

    return await asyncio.to_thread(offer)


@pytest.mark.requirement(INFERNO, "S13")
@pytest.mark.parametrize("version", NEW, ids=str)
async def test_tls_1_2_and_later_are_spoken(served: Served, version: ssl.TLSVersion) -> None:
    assert await handshake(served, version) == version.name.replace("_", ".", 1)


@pytest.mark.requirement(INFERNO, "S13")
@pytest.mark.parametrize("version", OLD, ids=str)
async def test_older_versions_are_refused(served: Served, version: ssl.TLSVersion) -> None:
    with pytest.raises((ssl.SSLError, ConnectionError)):
        await handshake(served, version)


@pytest.mark.requirement(INFERNO, "S13")
@pytest.mark.parametrize("path", ENDPOINTS)
async def test_the_certificate_is_verified_at_each_endpoint(served: Served, path: str) -> None:
    async with served.whole.http() as http:
        assert (await http.get(path)).status_code in {200, 400, 405}

    def stranger() -> None:
        with httpx.Client(trust_env=False) as http:
            http.get(f"{served.whole.base}{path}")

    with pytest.raises(httpx.ConnectError, match="certificate verify failed"):
        await asyncio.to_thread(stranger)


@pytest.mark.requirement(INFERNO, "S13")
async def test_all_addresses_and_cookies_are_of_https(served: Served) -> None:
    whole = served.whole
    async with whole.http() as http:
        for path in ("/fhir/.well-known/smart-configuration", "/.well-known/openid-configuration"):
            text = (await http.get(path)).text
            assert f"{whole.base}/oauth/token" in text
            assert "http://localhost" not in text
        page = await http.get("/signin")
    cookies = page.headers.get_list("set-cookie")
    assert cookies
    for cookie in cookies:
        assert cookie.startswith("__Host-")
        assert "Secure" in cookie


@pytest.mark.requirement(INFERNO, "S13")
async def test_a_launch_works_over_tls(served: Served) -> None:
    client: Client = public(served.whole)
    body = await client.tokens()
    read = await client.read(body["access_token"], f"Patient/{body['patient']}")
    assert read.status_code == 200
    async with client.api(body["access_token"]) as http:
        bundle = (await http.get("/fhir/Observation?_count=1")).json()
    assert {one["url"].split("/")[0] for one in bundle["link"]} == {"https:"}
