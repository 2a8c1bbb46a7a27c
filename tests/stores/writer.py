"""A process of its own that writes into a store: ``python -m tests.stores.writer PATH NAME N``."""

from __future__ import annotations

import asyncio
import sys
import time
from typing import Any

from fhir_portal.embedded.store import EmbeddedStore
from tests.builders import an_observation
from tests.stores.rows import a_row


async def write_many(path: str, name: str, count: int) -> None:
    store = EmbeddedStore.open(path)
    try:

        async def one(n: int) -> None:
            async def work(transaction: Any) -> None:
                at = await transaction.next_instant(int(time.time() * 1000))
                await transaction.write(a_row(an_observation(f"{name}{n}"), updated=at))

            await store.transact(work)

        for start in range(0, count, 10):
            await asyncio.gather(*(one(n) for n in range(start, start + 10)))
    finally:
        store.close()


if __name__ == "__main__":
    asyncio.run(write_many(sys.argv[1], sys.argv[2], int(sys.argv[3])))
