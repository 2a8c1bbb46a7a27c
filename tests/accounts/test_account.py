from __future__ import annotations

from collections.abc import AsyncIterator
from types import SimpleNamespace

import pytest

from fhir_portal.accounts import account
from fhir_portal.accounts.account import (
    Account,
    DuplicateAccount,
    InvalidUsername,
    UnknownAccount,
    account_named,
    add_account,
    enable_account,
    folded,
)
from fhir_portal.embedded.store import EmbeddedStore


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
