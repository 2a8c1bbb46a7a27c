from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from fhir_portal.accounts import account
from fhir_portal.accounts.account import (
    Account,
    DuplicateAccount,
    InvalidUsername,
    PersonTaken,
    UnknownAccount,
    account_named,
    account_of_person,
    add_account,
    add_person,
    enable_account,
    fill_in_persons,
    folded,
)
from fhir_portal.app import open_store
from fhir_portal.embedded.store import EmbeddedStore
from fhir_portal.settings import load
from tests.builders import an_account, keep


@pytest.fixture
async def store() -> AsyncIterator[EmbeddedStore]:
    store = EmbeddedStore.open(":memory:")
    yield store
    store.close()


async def add(store: EmbeddedStore, username: str) -> Account:
    return await add_account(
        store, username=username, password_hash=None, now=1.0, random=lambda n: b"r" * n
    )


async def test_a_user_name_is_found_however_it_is_written(store: EmbeddedStore) -> None:
    account = await add(store, " Mara@Example.org ")
    for written in ("mara@example.org", "MARA@EXAMPLE.ORG", "\uff4dara@example.org "):
        assert await account_named(store, written) == account
    assert await account_named(store, "mara@example.com") is None


async def test_a_user_name_is_taken_once(store: EmbeddedStore) -> None:
    first = await add(store, "mara")
    with pytest.raises(DuplicateAccount):
        await add(store, "MARA")
    assert await store.every(Account) == [first]


@pytest.mark.parametrize("username", ["", "  ", "x" * 201, "two\nlines", "ma\u202era"])
async def test_a_user_name_can_be_typed(store: EmbeddedStore, username: str) -> None:
    with pytest.raises(InvalidUsername):
        await add(store, username)
    assert await store.every(Account) == []


async def test_nobody_unknown_is_let_in_again(store: EmbeddedStore) -> None:
    with pytest.raises(UnknownAccount):
        await enable_account(store, "nobody")


def test_folding_is_stable() -> None:
    assert folded(folded("Straße")) == folded("STRASSE")
    for code in range(0x3000):
        for written in (f"{chr(code)}anna", f"anna{chr(code)}", f"an{chr(code)}na"):
            assert folded(folded(written)) == folded(written), hex(code)


async def test_names_that_are_compared_alike_are_one_name(store: EmbeddedStore) -> None:
    """An acute accent is normalised to a space and a combining one; the space is no part of it."""
    added = await add(store, "\u00b4anna")
    assert added.username == folded(added.username)
    with pytest.raises(DuplicateAccount):
        await add(store, "\u0301anna")
    assert await account_named(store, added.username) == added


def test_what_is_longer_than_any_user_name_is_not_normalised(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Combining marks out of order take time with the square of their number."""

    def unwanted(*_: str) -> str:
        raise AssertionError("it was normalised")

    monkeypatch.setattr(account, "unicodedata", SimpleNamespace(normalize=unwanted))
    assert folded("a" + "\u0301\u0327" * 100) == ""


@pytest.mark.parametrize("length", [200, 201])
async def test_a_name_is_long_as_it_is_written(store: EmbeddedStore, length: int) -> None:
    written = ("e\u0301" * 101)[:length]
    if length == 200:
        added = await add(store, written)
        assert await account_named(store, "é" * 100) == added
    else:
        with pytest.raises(InvalidUsername):
            await add(store, written)
        assert await account_named(store, written) is None


async def old_accounts(store: EmbeddedStore, count: int) -> None:
    """Accounts as they were stored before there was an `AccountPerson`."""
    await keep(store, *(an_account(f"a{at:03}", f"p/Person/{at}") for at in range(count)))


async def test_persons_of_old_accounts_are_filled_in_once(
    store: EmbeddedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(account, "_AT_ONCE", 3)
    await old_accounts(store, 7)
    await keep(store, an_account("b", "p/Person/3", "q/Person/3"))  # has one in common
    assert await account_of_person(store, "p/Person/6") is None
    await asyncio.gather(fill_in_persons(store), fill_in_persons(store))
    for at in range(7):
        found = await account_of_person(store, f"p/Person/{at}")
        assert found is not None
        assert found.key == f"a{at:03}"
    found = await account_of_person(store, "q/Person/3")
    assert found is not None
    assert found.key == "b"
    new = an_account("new")
    await keep(store, new)
    with pytest.raises(PersonTaken):
        await store.transact(lambda transaction: add_person(transaction, new, "p/Person/0"))
    await keep(store, an_account("late", "p/Person/late"))
    await fill_in_persons(store)  # it was done
    assert await account_of_person(store, "p/Person/late") is None


async def test_whoever_opens_the_store_has_them_filled_in(tmp_path: Path) -> None:
    settings = load(data=tmp_path / "portal.db")
    old = EmbeddedStore.open(str(settings.data))
    await old_accounts(old, 1)
    await old.aclose()
    store = await open_store(settings)
    found = await account_of_person(store, "p/Person/0")
    await store.aclose()
    assert found is not None
