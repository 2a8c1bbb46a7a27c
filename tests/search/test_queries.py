"""Generated searches: the server's answer and the oracle's are the same set."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from fhir_portal.fhir.json import parse
from fhir_portal.search.evaluate import matches
from fhir_portal.search.indexer import extract
from fhir_portal.search.request import parse_search
from tests.search.corpus import BASE, Corpus, full_corpus, has_data, small_corpus
from tests.search.matcher import NOW
from tests.search.queries import (
    LABELS,
    Pair,
    Search,
    differences,
    expected,
    generate,
    statistics,
)

NOW_US = int(NOW.timestamp()) * 1_000_000


def in_memory(corpus: Corpus) -> Search:
    """The runner without a store: parse, extract, evaluate."""
    entries = {
        (type_, id_): extract(type_, parse(body), base=BASE)
        for type_, bodies in corpus.bodies.items()
        for id_, body in bodies.items()
    }

    def search(resource_type: str, pairs: list[Pair]) -> set[str]:
        criteria = parse_search(resource_type, pairs, base=BASE).criteria
        return {
            id_
            for id_ in corpus.bodies[resource_type]
            if matches(criteria, entries[resource_type, id_], id=id_, last_updated=0, now=NOW_US)
        }

    return search


@pytest.mark.skipif(not has_data(), reason="the sample data folder is absent")
def test_2000_queries_on_sample_data_find_what_the_oracle_finds() -> None:
    corpus = full_corpus()
    queries = generate(corpus, 2000, seed=20260701)
    assert list(differences(corpus, queries, in_memory(corpus))) == []
    facts = statistics(corpus, queries)
    assert facts.share_sought >= 0.6
    assert len(facts.types) >= 15
    assert {label for label in LABELS if facts.labels[label] < 30} == set()


def test_queries_on_made_up_data_find_what_the_oracle_finds() -> None:
    corpus = small_corpus()
    queries = generate(corpus, 600, seed=5)
    assert list(differences(corpus, queries, in_memory(corpus))) == []
    assert statistics(corpus, queries).share_sought >= 0.6


def test_the_same_seed_gives_the_same_queries() -> None:
    assert generate(small_corpus(), 50, seed=1) == generate(small_corpus(), 50, seed=1)
    assert generate(small_corpus(), 50, seed=1) != generate(small_corpus(), 50, seed=2)


def _without_modifiers(pairs: list[Pair]) -> list[Pair]:
    return [(name.partition(":")[0] if ":not" in name else name, text) for name, text in pairs]


def _first_value_only(pairs: list[Pair]) -> list[Pair]:
    return [(name, text.partition(",")[0] or text) for name, text in pairs]


def _first_pair_only(pairs: list[Pair]) -> list[Pair]:
    return pairs[:1]


def _exclusive(pairs: list[Pair]) -> list[Pair]:
    return [(name, text.replace("ge", "gt").replace("le", "lt")) for name, text in pairs]


@pytest.mark.parametrize(
    "spoil", [_without_modifiers, _first_value_only, _first_pair_only, _exclusive]
)
def test_a_runner_that_misreads_its_queries_is_caught(
    spoil: Callable[[list[Pair]], list[Pair]],
) -> None:
    corpus = small_corpus()
    sound = in_memory(corpus)
    queries = generate(corpus, 600, seed=5)
    spoiled = differences(corpus, queries, lambda type_, pairs: sound(type_, spoil(pairs)))
    assert next(spoiled, None) is not None


def test_a_query_s_expected_ids_are_those_of_all_its_pairs() -> None:
    corpus = small_corpus()
    for query in generate(corpus, 60, seed=8):
        found = expected(query, corpus)
        assert found <= set(corpus.bodies[query.resource_type])
