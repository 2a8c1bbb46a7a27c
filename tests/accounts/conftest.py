from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.accounts.house import House


@pytest.fixture
async def house() -> AsyncIterator[House]:
    house = await House.built()
    yield house
    house.store.close()
