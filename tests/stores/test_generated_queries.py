"""Generated searches on a real store find what the oracle finds; figures: ``oracle.py``."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.places import kinds, new_place
from tests.search.corpus import full_corpus, has_data, small_corpus
from tests.search.queries import generate
from tests.stores.oracle import compare


@pytest.mark.parametrize("kind", kinds("file"))
def test_a_store_finds_what_the_oracle_finds(kind: str, tmp_path: Path) -> None:
    embedded = kind == "file"
    corpus = full_corpus() if has_data() and embedded else small_corpus()
    queries = generate(corpus, 500 if embedded else 200, seed=11)
    place = new_place(kind, tmp_path)
    try:
        every, own = compare(place, corpus, queries, as_patient=120 if embedded else 60)
    finally:
        asyncio.run(place.drop())
    assert every == []
    assert own == []
