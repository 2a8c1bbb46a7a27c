"""Generated searches through the front door of a real store, against the oracle.

``python -m tests.stores.oracle --queries 2000`` prints the figures; ``--place motor`` runs it on
MongoDB (`tests.places`).
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import msgspec

from fhir_portal.access.context import AuthContext
from fhir_portal.access.owners import OWNERS, Owned, own_patients
from fhir_portal.access.policy import Ask, Permit, decide
from fhir_portal.fhir.interaction import FhirRequest
from fhir_portal.fhir.json import parse
from fhir_portal.fhir.reference import ResourceKey
from fhir_portal.portal import Portal
from fhir_portal.resources.writing import relative, update_in
from tests.builders import a_portal, an_ehr, oneself
from tests.places import Place, ask_for_place, asked_place
from tests.search.corpus import BASE, Corpus, full_corpus, has_data, small_corpus
from tests.search.matcher import NOW
from tests.search.queries import (
    Difference,
    Pair,
    Query,
    differences,
    expected,
    generate,
    statistics,
)

_BATCH = 100


def clock() -> float:
    """The moment for which the oracle judges ``ap``."""
    return NOW.timestamp()


async def load(portal: Portal, corpus: Corpus, auth: AuthContext) -> None:
    """Store every resource of the corpus under its own id."""
    everything = [
        (ResourceKey(name, own_id), body)
        for name, bodies in corpus.bodies.items()
        for own_id, body in bodies.items()
    ]
    for start in range(0, len(everything), _BATCH):
        batch = everything[start : start + _BATCH]

        async def work(transaction: Any, batch: Any = batch) -> None:
            for key, body in batch:
                tree = parse(body)
                relative(tree, portal.server)
                permit = decide(auth, Ask("u", key.type, clock()))
                assert isinstance(permit, Permit), permit
                await update_in(
                    transaction,
                    portal.server,
                    auth,
                    tree,
                    permit.visible,
                    key=key,
                    if_match=None,
                    if_none_match=None,
                )

        await portal.server.store.transact(work)


def through_the_door(
    portal: Portal, auth: AuthContext, run: Callable[[Any], Any], count: int = 50
) -> Callable[[str, list[Pair]], set[str]]:
    """Return a runner that walks every page of a search as a caller would."""

    async def walk(resource_type: str, pairs: list[Pair]) -> set[str]:
        found: list[str] = []
        query: tuple[Pair, ...] = (*pairs, ("_count", str(count)), ("_total", "accurate"))
        while True:
            response = await portal.perform(
                FhirRequest("search-type", resource_type, query=query), auth
            )
            page = msgspec.json.decode(response.body)
            found += [entry["resource"]["id"] for entry in page.get("entry", [])]
            following = [link["url"] for link in page["link"] if link["relation"] == "next"]
            if not following:
                assert page["total"] == len(found) == len(set(found)), (pairs, page["total"])
                return set(found)
            query = tuple(parse_qsl(following[0].partition("?")[2]))

    return lambda resource_type, pairs: run(walk(resource_type, pairs))


def of_patient(corpus: Corpus, patient: str) -> dict[str, set[str]]:
    """Ids by type of what belongs to one Patient, read from the corpus alone."""
    address = f'"{BASE}/'.encode()  # this server's own, which it stores as relative
    return {
        name: {
            own_id
            for own_id, body in bodies.items()
            if own_patients(parse(body.replace(address, b'"'))) == (patient,)
        }
        for name, bodies in corpus.bodies.items()
        if isinstance(OWNERS.get(name), Owned)
    }


def compare(
    place: Place, corpus: Corpus, queries: list[Query], *, as_patient: int
) -> tuple[list[Difference], list[Difference]]:
    """Run the queries as the EHR, and some of them as the Patient with most resources."""
    with asyncio.Runner() as runner:
        store = runner.run(place.open(clock))
        portal = a_portal(store, clock, base=BASE)
        ehr = an_ehr()
        runner.run(load(portal, corpus, ehr))
        every = list(differences(corpus, queries, through_the_door(portal, ehr, runner.run)))
        owners = Counter(
            owner
            for trees in corpus.trees.values()
            for tree in trees.values()
            for owner in own_patients(tree)
        )
        patient = owners.most_common(1)[0][0]
        owned = of_patient(corpus, patient)
        search = through_the_door(portal, oneself(patient), runner.run, count=7)
        own: list[Difference] = []
        for query in [q for q in queries if q.resource_type in owned][:as_patient]:
            wanted = expected(query, corpus) & owned[query.resource_type]
            found = search(query.resource_type, list(query.pairs))
            if found != wanted:
                own.append(Difference(query, frozenset(wanted - found), frozenset(found - wanted)))
        runner.run(store.aclose())
    return every, own


def main() -> None:
    """Print how many queries, how varied, and what differs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--queries", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=20260701)
    parser.add_argument("--as-patient", type=int, default=500)
    ask_for_place(parser)
    given = parser.parse_args()
    corpus = full_corpus() if has_data() else small_corpus()
    queries = generate(corpus, given.queries, given.seed)
    facts = statistics(corpus, queries)
    with tempfile.TemporaryDirectory() as folder:
        place = asked_place(given.place, Path(folder))
        started = time.monotonic()
        try:
            every, own = compare(place, corpus, queries, as_patient=given.as_patient)
        finally:
            asyncio.run(place.drop())
    print(
        f"{corpus.size} resources, {len(queries)} queries on {len(facts.types)} types; "
        f"{facts.share_sought:.0%} find 1 to 50; each of {len(facts.labels)} combinations of "
        f"type, modifier and prefix at least {min(facts.labels.values())} times; "
        f"{len(every)} differences; as a patient {given.as_patient}: {len(own)} differences; "
        f"{time.monotonic() - started:.0f} s"
    )
    for difference in (*every, *own):
        print(difference)


if __name__ == "__main__":
    main()
