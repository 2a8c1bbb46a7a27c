from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.conformance.whole import Whole, prepare
from tests.web.conftest import as_anyone, as_ehr, as_patient, fhir

__all__ = ["as_anyone", "as_ehr", "as_patient", "fhir"]


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a store that was filled once."""
    folder = tmp_path_factory.mktemp("prepared")
    asyncio.run(prepare(folder))
    return folder


@pytest.fixture
async def whole(prepared: Path, tmp_path: Path) -> AsyncIterator[Whole]:
    whole = await Whole.begin(tmp_path, of=prepared)
    yield whole
    await whole.close()
