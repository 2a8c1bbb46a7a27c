"""Lines of the access log that are written with a change: both last, or neither."""

from __future__ import annotations

from typing import Any

import pytest

from fhir_portal.access.log import AccessRow
from fhir_portal.access.owed import OwedLines, owe, pay, pay_due
from fhir_portal.accounts.account import Account
from fhir_portal.fhir.errors import Unavailable
from tests.builders import DERM, START, an_account

LINE = AccessRow(
    at=int(START * 1000), practice=DERM, record="", interaction="update", what="access-levels",
    status=200, client="portal-staff", context="user", detail="desk: +invite -", told=False,
)  # fmt: skip


class BrokenLog:
    """Cannot be written."""

    async def append(self, _rows: Any) -> None:
        raise Unavailable("the disk is full")


async def change(store: Any, *, fails: bool = False) -> None:
    async def work(transaction: Any) -> None:
        await transaction.put(an_account("ada"))
        await owe(transaction, "once", [LINE], now=START)
        if fails:
            raise LookupError

    await store.transact(work)


async def lines(store: Any) -> list[AccessRow]:
    found = await store.log.of_record(
        DERM, None, agent=None, told=False, low=0, high=2**62, before=None, limit=9
    )
    return [one.row for one in found]


async def test_after_the_commit_it_is_in_the_log_once(store: Any) -> None:
    await change(store)
    assert await lines(store) == []
    for _ in range(2):
        await pay(store, store.log, "once")
    assert await lines(store) == [LINE]
    assert await store.every(OwedLines) == []
    assert await pay_due(store, store.log, START + 999) == 0
    assert await lines(store) == [LINE]


async def test_what_was_not_changed_has_no_line(store: Any) -> None:
    with pytest.raises(LookupError):
        await change(store, fails=True)
    assert await store.get(Account, "ada") is None
    await pay(store, store.log, "once")
    assert await pay_due(store, store.log, START + 999) == 0
    assert await lines(store) == []


async def test_what_a_dying_process_left_is_written_by_another(store: Any) -> None:
    await change(store)
    assert await pay_due(store, store.log, START + 59) == 0  # its own process may be at it
    assert await pay_due(store, store.log, START + 60) == 1
    assert await lines(store) == [LINE]
    assert await store.every(OwedLines) == []


async def test_a_log_that_cannot_be_written_owes_it_still(store: Any) -> None:
    await change(store)
    broken: Any = BrokenLog()
    await pay(store, broken, "once")
    with pytest.raises(Unavailable):
        await pay_due(store, broken, START + 60)
    assert len(await store.every(OwedLines)) == 1
    assert await pay_due(store, store.log, START + 100) == 0
    assert await pay_due(store, store.log, START + 200) == 1
    assert await lines(store) == [LINE]
