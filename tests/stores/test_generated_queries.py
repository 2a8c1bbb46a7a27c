"""Generated searches on a real store find what the oracle finds; figures: ``oracle.py``."""

from __future__ import annotations

from pathlib import Path

from tests.search.corpus import full_corpus, has_data, small_corpus
from tests.search.queries import generate
from tests.stores.oracle import compare


def test_a_store_finds_what_the_oracle_finds(tmp_path: Path) -> None:
    corpus = full_corpus() if has_data() else small_corpus()
    queries = generate(corpus, 500, seed=11)
    every, own = compare(tmp_path, corpus, queries, as_patient=120)
    assert every == []
    assert own == []
