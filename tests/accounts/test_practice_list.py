"""The list of practices: read once for all who ask, until one of them changes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fhir_portal.accounts.policy import PracticePolicy
from fhir_portal.accounts.practice import Practice
from fhir_portal.accounts.practice_list import PracticeList
from fhir_portal.embedded.store import EmbeddedStore
from tests.builders import an_account, keep


class Counting:
    """A reader that counts how often all of a kind is read."""

    def __init__(self, store: EmbeddedStore) -> None:
        self._store = store
        self.read = 0

    async def get(self, kind: Any, key: str) -> Any:
        return await self._store.get(kind, key)

    async def find(self, kind: Any, field: str, value: str, *, limit: int = 1000) -> Any:
        raise NotImplementedError

    async def every(self, kind: Any, *, after: str = "", limit: int = 1000) -> Any:
        self.read += 1
        return await self._store.every(kind, after=after, limit=limit)


@pytest.fixture
async def path(tmp_path: Path) -> str:
    return str(tmp_path / "portal.db")


async def test_it_is_read_again_only_after_a_practice_or_its_policy_has_changed(path: str) -> None:
    store, another = EmbeddedStore.open(path), EmbeddedStore.open(path)
    reader = Counting(store)
    known = PracticeList(reader)

    async def names() -> list[tuple[str, bool]]:
        return [
            (practice.name, policy.portal) for practice, policy in (await known.now()).practices
        ]

    try:
        assert await names() == []
        await keep(store, Practice(key="b", name="Oak"), Practice(key="a", name="elm"))
        first = await known.now()
        assert await names() == [("elm", True), ("Oak", True)]
        once = reader.read
        for number in range(20):
            await keep(store, an_account(f"ada-{number}"))
            assert await known.now() is first
        assert reader.read == once
        await keep(another, PracticePolicy(key="a", portal=False))
        assert await names() == [("elm", False), ("Oak", True)]
        await keep(another, Practice(key="a", name="Ash"))
        assert await names() == [("Ash", False), ("Oak", True)]

        async def remove(transaction: Any) -> None:
            await transaction.delete(Practice, "a")

        await another.transact(remove)
        assert await names() == [("Oak", True)]
    finally:
        await store.aclose()
        await another.aclose()


async def test_what_changes_while_it_is_read_is_seen_the_next_time(path: str) -> None:
    """Planted fault: the count is read after the practices."""
    store = EmbeddedStore.open(path)
    await keep(store, Practice(key="a", name="Ash"))
    reader = Counting(store)
    read = reader.every

    async def slow(kind: Any, **more: Any) -> Any:
        found = await read(kind, **more)
        if kind is Practice and not more.get("after"):
            reader.every = read  # type: ignore[method-assign]
            await keep(store, Practice(key="a", name="Elm"))
        return found

    reader.every = slow  # type: ignore[method-assign]
    known = PracticeList(reader)
    try:
        assert [one.name for one, _ in (await known.now()).practices] == ["Ash"]
        assert [one.name for one, _ in (await known.now()).practices] == ["Elm"]
    finally:
        await store.aclose()


async def test_a_practice_is_meant_by_its_id_or_its_name_if_no_other_has_it(path: str) -> None:
    store = EmbeddedStore.open(path)
    elm = Practice(key="elm", name="Elm Street")
    await keep(
        store, elm, Practice(key="a", name="Twice"), Practice(key="b", name="twice"),
        PracticePolicy(key="elm", portal=False),
    )  # fmt: skip
    found = await PracticeList(store).now()
    try:
        for typed in (elm.practice_id, elm.practice_id.lower(), "elm  STREET", " Elm Street "):
            assert found.meant(typed) == (elm, PracticePolicy(key="elm", portal=False)), typed
        for typed in ("", "Twice", "elm", "Elm", elm.practice_id[:-1], "x" * 10_000):
            assert found.meant(typed) is None, typed
    finally:
        await store.aclose()
