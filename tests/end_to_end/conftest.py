from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

import httpx
import pytest
from argon2 import PasswordHasher

from fhir_portal.accounts import credentials
from tests.end_to_end.browser import Driver
from tests.end_to_end.demo import CALLBACK, PUBLIC, Demo
from tests.end_to_end.person import Person, parameters_of
from tests.places import File, kinds, new_place


@dataclass(frozen=True)
class Development(File):
    """A file whose server lets apps keep their keys on this machine, and asks for DPoP nonces."""

    @property
    def settings(self) -> Mapping[str, Any]:
        return {**super().settings, "apps_on_loopback": True, "dpop_nonce": True}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Everything from outside is tried on MongoDB too, but for what a browser shows."""
    if "demo" in metafunc.fixturenames:
        browser = metafunc.definition.get_closest_marker("browser")
        stores = ["file"] if browser else kinds("file")
        metafunc.parametrize("demo", stores, indirect=True, scope="session")


@pytest.fixture(scope="module", autouse=True)
def _hashing_as_the_servers_do(served_hasher: PasswordHasher) -> Iterator[None]:
    """What is put into the store of a server of its own process is as that has it."""
    with patch.object(credentials, "HASHER", served_hasher):
        yield


@pytest.fixture(scope="session")
def demo(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Demo]:
    """The demo world on two server processes; nobody changes Mara's, Juno's or Silas' record."""
    folder = tmp_path_factory.mktemp("demo")
    place = new_place(request.param, folder)
    demo = Demo(folder, place)
    try:
        asyncio.run(demo.start())
        yield demo
    finally:
        demo.stop()
        asyncio.run(place.drop())


@pytest.fixture(scope="session")
def development(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    """A demo world as a developer could have it for apps on the own machine."""
    folder = tmp_path_factory.mktemp("development")
    demo = Demo(folder, Development(folder / "portal.db"))
    try:
        asyncio.run(demo.start())
        yield demo
    finally:
        demo.stop()


@pytest.fixture
def person() -> Iterator[Callable[[str], Person]]:
    """People by their user names, each at a browser of their own."""
    with contextlib.ExitStack() as browsers:
        yield lambda username: browsers.enter_context(Person(username))


@pytest.fixture
def patient_token(demo: Demo, person: Callable[[str], Person]) -> str:
    """An access token of the sample app, which Mara let read her record."""
    with httpx.Client(base_url=demo.server.base) as app:
        asked = {
            "response_type": "code",
            "client_id": PUBLIC,
            "redirect_uri": CALLBACK,
            "scope": "launch/patient patient/*.rs",
            "state": "state",
            "aud": demo.fhir,
            "code_challenge": "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM",  # RFC 7636 appendix B
            "code_challenge_method": "S256",
        }
        address = app.build_request("GET", "/oauth/authorize", params=asked).url
        back = person("mara").visit(str(address), back_to=CALLBACK, record="Patient/mara")
        form = {
            "grant_type": "authorization_code",
            "code": parameters_of(back)["code"],
            "redirect_uri": CALLBACK,
            "client_id": PUBLIC,
            "code_verifier": "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk",
        }
        answer = app.post("/oauth/token", data=form)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["access_token"])


@pytest.fixture(scope="session")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Driver]:
    """A chromedriver for all browsers."""
    with Driver.running(tmp_path_factory.mktemp("chromium")) as driver:
        yield driver
