"""A read past its step budget goes on in a thread."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from fhir_portal.embedded import database
from fhir_portal.embedded.store import EmbeddedStore
from fhir_portal.fhir.errors import InvalidSearch
from tests.builders import Clock, an_observation, reference
from tests.stores.rows import a_row, asked, found, of_practice, of_record, write


@pytest.fixture
def store(tmp_path: Path, clock: Clock) -> Iterator[EmbeddedStore]:
    opened = EmbeddedStore.open(str(tmp_path / "portal.db"), clock=clock)
    yield opened
    opened.close()


@pytest.fixture
def hurried(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> Iterator[EmbeddedStore]:
    """A store to which any read of more than a few steps is long."""
    monkeypatch.setattr(database, "READ_STEPS", 2_000)
    opened = EmbeddedStore.open(str(tmp_path / "portal.db"), clock=clock)
    yield opened
    opened.close()


async def test_a_long_read_leaves_the_loop_to_others(hurried: EmbeddedStore) -> None:
    """With the same answer."""
    await write(hurried, *(a_row(an_observation(f"o{n}", value=n)) for n in range(400)))
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    beside = asyncio.create_task(others())
    page = await hurried.search(
        asked("value-quantity=gt-1&_sort=-value-quantity&_count=200"), of_practice()
    )
    beside.cancel()
    assert [row.facts.id for row in page.rows] == [f"o{n}" for n in range(399, 199, -1)]
    assert turns > 1


async def test_rows_that_refer_to_many_are_not_walked_for_a_few(
    store: EmbeddedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each of a few targets is looked for in the index; the read stays on the loop."""
    many = [reference(f"Observation/of-{n}") for n in range(1_000)]
    rows = [a_row(an_observation(f"o{n}", derivedFrom=many)) for n in range(20)]
    last = [*many[1:], reference("Observation/last")]
    await write(store, *rows, a_row(an_observation("o20", derivedFrom=last)))
    monkeypatch.setattr(store.database, "_read_long", None)
    query = "derived-from=Observation/none,Observation/last"
    assert await found(store, query, of_record()) == ["o20"]
    assert await found(store, "derived-from=last", of_record()) == ["o20"]


async def test_a_long_read_among_others_takes_them_along(hurried: EmbeddedStore) -> None:
    """And leaves no transaction behind, in which the next would see what was there before."""
    await write(hurried, *(a_row(an_observation(f"o{n}", value=n)) for n in range(400)))
    one, many = asked("_id=o7"), asked("_sort=-value-quantity&_count=200")
    for number in range(2):
        pages = await hurried.search_all([(one, of_practice()), (many, of_practice())])
        assert [row.version for row in pages[0].rows] == [number + 1]
        assert len(pages[1].rows) == 200
        await write(hurried, a_row(an_observation("o7", value=7), version=number + 2))
    assert not hurried.database.reader.in_transaction
    assert not hurried.database.long_reader.in_transaction


async def test_reads_made_together_fail_as_one_alone_does(hurried: EmbeddedStore) -> None:
    """In a thread too, and also where SQLite has ended the transaction, as after a read error."""
    numbers = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < 9000)"
    long, undone = (f"{numbers} SELECT max(x) FROM n", ()), ("ROLLBACK", ())
    too_many = (f"SELECT {','.join('?' * 300_000)}", (1,) * 300_000)
    for before in ((), (long,)):
        with pytest.raises(InvalidSearch, match="too many values"):
            await hurried.database.select_all([*before, too_many])
        with pytest.raises(sqlite3.OperationalError, match="no such table"):
            await hurried.database.select_all([*before, undone, ("SELECT 1 FROM absent", ())])
        assert await hurried.database.select_all([*before, ("SELECT 7", ())])
