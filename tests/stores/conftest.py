"""The stores the contract holds for, opened empty; MongoDB joins here."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fhir_portal.embedded.store import EmbeddedStore
from tests.builders import Clock


@pytest.fixture(params=["memory", "file"])
def opened(request: pytest.FixtureRequest, tmp_path: Path, clock: Clock) -> Iterator[Any]:
    """Open the store under test; called twice it opens the same one again (a file only)."""
    path = ":memory:" if request.param == "memory" else str(tmp_path / "portal.db")
    stores: list[EmbeddedStore] = []

    def open_store() -> EmbeddedStore:
        if stores and path == ":memory:":
            pytest.skip("a store in memory is opened once")
        stores.append(EmbeddedStore.open(path, clock=clock))
        return stores[-1]

    yield open_store
    for store in stores:
        store.close()


@pytest.fixture
def store(opened: Callable[[], EmbeddedStore]) -> EmbeddedStore:
    return opened()


@pytest.fixture
def second(store: EmbeddedStore, opened: Callable[[], EmbeddedStore]) -> EmbeddedStore:
    """Another process's view of the same store."""
    del store
    return opened()
