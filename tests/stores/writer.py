"""A process of its own that writes into a store: ``python -m tests.stores.writer PLACE NAME N``."""

from __future__ import annotations

import asyncio
import sys
import time
from typing import Any

from tests.builders import an_observation
from tests.places import place_of
from tests.stores.rows import a_row


async def write_many(place: str, name: str, count: int) -> None:
    store = await place_of(place).open()
    try:

        async def one(n: int) -> None:
            async def work(transaction: Any) -> None:
                at = await transaction.next_instant(int(time.time() * 1000))
                await transaction.write(a_row(an_observation(f"{name}{n}"), updated=at))

            await store.transact(work)

        for start in range(0, count, 10):
            await asyncio.gather(*(one(n) for n in range(start, start + 10)))
    finally:
        await store.aclose()


if __name__ == "__main__":
    asyncio.run(write_many(sys.argv[1], sys.argv[2], int(sys.argv[3])))
