"""Every operation ends all or nothing, applied once, whatever a command meets."""

from __future__ import annotations

import pytest

from tests.mongo.faults import OPERATIONS, try_everything
from tests.places import NO_SERVER, SERVER, TRANSACTIONS, Database

pytestmark = [pytest.mark.mongo, pytest.mark.skipif(not SERVER, reason=NO_SERVER)]


@pytest.mark.parametrize("driver", ["motor", "pymongo"])
async def test_operations_end_all_or_nothing_and_applied_once(driver: str) -> None:
    place = Database.new(SERVER, driver, transactions=TRANSACTIONS)
    report = await try_everything(place, every=9)  # all: python -m tests.mongo.faults
    assert report.wrong == []
    assert report.tried > 20 * len(OPERATIONS)
