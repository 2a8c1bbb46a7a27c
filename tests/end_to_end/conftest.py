from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator

import pytest

from tests.end_to_end.browser import Driver
from tests.end_to_end.demo import Demo
from tests.end_to_end.person import Person


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    """The demo world on two server processes; nobody changes Mara's, Juno's or Silas' record."""
    demo = Demo(tmp_path_factory.mktemp("demo"))
    asyncio.run(demo.start())
    yield demo
    demo.stop()


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
