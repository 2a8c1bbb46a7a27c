"""What an earlier release stored takes over labels as if it were written now, in any order."""

from __future__ import annotations

import random
import sys
from typing import Any

import pytest

from fhir_portal.access import classify
from fhir_portal.resources import passing_on
from fhir_portal.resources.reindex import reindex
from fhir_portal.resources.store import INDEX_VERSION
from tests.access.test_classify import facts
from tests.builders import Caller, a_patient, an_observation
from tests.leaks.world import chart
from tests.stores.rows import KEY, of_practice


async def test_rows_of_an_earlier_release_are_classified_as_if_written_now(
    store: Any, ehr: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    trees = [a_patient("ada"), *chart("ada", "ada", "lark")]
    with monkeypatch.context() as earlier:
        earlier.setattr(classify, "conveyed_by", lambda *_: frozenset())
        earlier.setattr(classify, "conveying", lambda *_: iter(()))
        earlier.setattr(classify, "LISTED_BY", {})
        earlier.setattr(passing_on, "conveyed_by", lambda *_: frozenset())
        for module in _with_index_version():
            earlier.setattr(module, "INDEX_VERSION", INDEX_VERSION - 1)
        await ehr.store(*trees)
        await ehr.store(an_observation("gone"))
        await ehr.delete("Observation/gone")
    keys = [f"{tree['resourceType']}/{tree['id']}" for tree in trees]
    before = {key: await facts(store, key) for key in keys}
    assert not before["Observation/shade-ada"].visibility_class.labels
    assert await store.stale() == len(trees) + 1
    assert await store.faults()
    done: list[int] = []
    monkeypatch.setattr(passing_on, "MOST", 0)  # a server must come to serve, whatever depends
    assert await reindex(store, told=done.append) == len(trees) + 1
    assert done[-1] == len(trees) + 1
    monkeypatch.undo()
    assert await store.stale() == 0
    assert await store.faults() == []
    after = {key: await facts(store, key) for key in keys}
    await ehr.store(*random.Random(4).sample(trees, len(trees)))
    assert {key: await facts(store, key) for key in keys} == after
    assert after["Observation/shade-ada"].visibility_class.labels == {"SDV"}
    row = await store.read(KEY("Observation/shade-ada"), of_practice())
    assert row.version == 2, "indexing anew wrote no version"


async def test_a_store_without_old_rows_is_left_alone(store: Any, ehr: Caller) -> None:
    await ehr.store(a_patient("ada"))
    assert await reindex(store) == 0


def _with_index_version() -> list[Any]:
    return [
        module
        for name, module in list(sys.modules.items())
        if name.startswith("fhir_portal.") and hasattr(module, "INDEX_VERSION")
    ]
