from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator

import pytest

from tests.end_to_end.browser import Driver
from tests.end_to_end.demo import Demo
from tests.end_to_end.person import Person
from tests.places import kinds, new_place


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Everything from outside is tried on MongoDB too, but for what a browser shows."""
    if "demo" in metafunc.fixturenames:
        browser = metafunc.definition.get_closest_marker("browser")
        stores = ["file"] if browser else kinds("file")
        metafunc.parametrize("demo", stores, indirect=True, scope="session")


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


@pytest.fixture
def person() -> Iterator[Callable[[str], Person]]:
    """People by their user names, each at a browser of their own."""
    with contextlib.ExitStack() as browsers:
        yield lambda username: browsers.enter_context(Person(username))


@pytest.fixture(scope="session")
def driver() -> Iterator[Driver]:
    """A chromedriver for all browsers."""
    with Driver.running() as driver:
        yield driver
