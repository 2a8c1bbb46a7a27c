"""What holds for every scope, order and label, not only for the examples."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fhir_portal.access.policy import Ask, Permit, decide
from fhir_portal.access.visibility import RowFacts, Visibility, VisibilityClass
from fhir_portal.fhir.reference import ResourceKey
from fhir_portal.resources.store import PortalStore
from fhir_portal.smart.scope import ScopeSet
from tests.builders import (
    DERM,
    OBSERVATION_CATEGORY,
    RESTRICTED,
    START,
    WITHHELD,
    Caller,
    Clock,
    Json,
    a_binary,
    a_document,
    a_patient,
    a_portal,
    a_practitioner,
    a_provenance,
    an_ehr,
    an_observation,
    oneself,
)
from tests.places import EMBEDDED, Place, kinds, new_place

SCOPES = (
    "patient/*.rs",
    "patient/*.read",
    "patient/Observation.rs",
    "patient/Observation.r",
    "patient/Patient.rs",
    "patient/Practitioner.rs",
    "patient/Provenance.rs",
    "patient/Binary.rs",
    f"patient/Observation.rs?category={OBSERVATION_CATEGORY}|vital-signs",
    f"patient/Observation.rs?category={OBSERVATION_CATEGORY}|laboratory",
    f"patient/Observation.rs?category={OBSERVATION_CATEGORY}|laboratory&status=final",
)
scopes = st.lists(st.sampled_from(SCOPES), max_size=4)
SEARCHED = ("Observation", "Patient", "Practitioner", "Provenance", "DocumentReference", "Binary")

TREES: tuple[Json, ...] = (
    a_patient("ada"),
    a_practitioner("lark"),
    an_observation("pulse", of="ada", performer="Practitioner/lark"),
    an_observation("lab", of="ada", category="laboratory"),
    an_observation("theirs", of="bo"),
    a_provenance("of-pulse", about=["Observation/pulse"]),
    a_provenance("of-both", about=["Observation/pulse", "Observation/theirs"]),
    a_provenance("of-scan", about=["Binary/scan"]),
    a_binary("scan"),
    a_document("letter", of="ada", binary="scan"),
)


@pytest.fixture(scope="module", params=kinds("memory"))
def place(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    place = new_place(request.param, tmp_path_factory.mktemp("store"))
    yield place
    asyncio.run(place.drop())


def examples(place: Place, most: int) -> settings:
    return settings(max_examples=most if str(place) in EMBEDDED else most // 4, deadline=None)


def in_a_portal(place: Place, work: Callable[[Caller, PortalStore], Awaitable[Any]]) -> Any:
    async def run() -> Any:
        clock = Clock()
        await place.empty()
        store = await place.open(clock)
        try:
            return await work(Caller(a_portal(store, clock), an_ehr()), store)
        finally:
            await store.aclose()

    return asyncio.run(run())


async def seen_with(caller: Caller, scope: str) -> set[str]:
    narrowed = caller.with_scope(scope)
    found: set[str] = set()
    for name in SEARCHED:
        answer = await narrowed.get(
            f"{name}?_include=Observation:performer" if name == "Observation" else name
        )
        if answer.status == 200:
            found |= set(answer.ids)
    return found


def test_narrowing_a_scope_never_shows_more(place: Place) -> None:
    @examples(place, 40)
    @given(wide=scopes, more=scopes)
    def holds(wide: list[str], more: list[str]) -> None:
        async def work(ehr: Caller, _: PortalStore) -> tuple[set[str], set[str]]:
            await ehr.store(*TREES)
            ada = Caller(ehr.portal, oneself("ada"))
            return (
                await seen_with(ada, " ".join(wide)),
                await seen_with(ada, " ".join([*wide, *more])),
            )

        narrow, broad = in_a_portal(place, work)
        assert narrow <= broad

    holds()


async def facts_after(
    order: list[int], repeated: list[int], ehr: Caller, store: PortalStore
) -> dict[str, RowFacts]:
    labelled = [dict(tree) for tree in TREES]
    labelled[3] = {**labelled[3], "meta": RESTRICTED}
    labelled[9] = {**labelled[9], "meta": WITHHELD}
    await ehr.store(*(TREES[n] for n in repeated), *(labelled[n] for n in order))
    found = {}
    for tree in TREES:
        key = ResourceKey(tree["resourceType"], tree["id"])
        row = await store.read(key, Visibility.of_server(key.type, practice=DERM))
        assert row is not None
        found[str(key)] = row.facts
    return found


def test_the_order_of_writes_does_not_change_whose_anything_is(place: Place) -> None:
    """Derived rows end the same, whichever came first and however often each was written."""

    @examples(place, 60)
    @given(
        order=st.permutations(range(len(TREES))), repeated=st.lists(st.integers(0, 9), max_size=6)
    )
    def holds(order: list[int], repeated: list[int]) -> None:
        facts = in_a_portal(place, functools.partial(facts_after, order, repeated))
        assert facts["Provenance/of-pulse"].owners == ("ada",)
        assert facts["Provenance/of-both"].owners == ("ada", "bo")
        assert facts["Binary/scan"].owners == ("ada",)
        assert facts["Binary/scan"].visibility_class.labels == {"withheld"}
        assert facts["Provenance/of-scan"].visibility_class == VisibilityClass(
            frozenset({"documents"}), frozenset({"withheld"})
        )

    holds()


words = st.sampled_from(["results", "visits", "-unclassified", "-none"])
label_sets = st.frozensets(st.sampled_from(["R", "SEX", "withheld", "-unknown"]))


@given(st.frozensets(words), label_sets)
def test_a_class_is_read_back(sections: frozenset[str], labels: frozenset[str]) -> None:
    one = VisibilityClass(sections, labels)
    assert VisibilityClass.parse(str(one)) == one


@given(st.frozensets(words), label_sets, st.frozensets(words), label_sets)
def test_fewer_sections_or_labels_never_permit_more(
    sections: frozenset[str], labels: frozenset[str], other: frozenset[str], more: frozenset[str]
) -> None:
    wide = Visibility.of_record(
        "Observation", practice=DERM, record="ada", sections=sections | other, labels=labels | more
    )
    narrow = Visibility.of_record(
        "Observation", practice=DERM, record="ada", sections=sections, labels=labels
    )
    for held in (VisibilityClass(sections, more), VisibilityClass(other, labels)):
        assert not narrow.permits_class(held) or wide.permits_class(held)


@given(scopes, st.sampled_from("cruds"), st.sampled_from([*SEARCHED, "Person", "Consent"]))
def test_a_decision_is_the_same_every_time(given_: list[str], letter: str, name: str) -> None:
    auth = oneself("ada", scope=" ".join(given_))
    ask = Ask(letter, name, START)
    first = decide(auth, ask)
    assert decide(auth, ask) == first
    assert decide(oneself("ada", scope=str(ScopeSet.parse(" ".join(given_)))), ask) == first
    if isinstance(first, Permit):
        assert first.visible.practices[0] == DERM
