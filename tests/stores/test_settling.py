"""What settling asks of a store: edges both ways, labels of many rows, and two workers at once."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from fhir_portal.access.visibility import Visibility
from fhir_portal.consent.labels import SETTLING
from fhir_portal.fhir.errors import Unavailable
from fhir_portal.notify import jobs
from fhir_portal.operations import settling_jobs as module
from fhir_portal.operations.settling_jobs import settling_jobs
from fhir_portal.resources import passing_on, settling
from fhir_portal.resources.settling import SettlingPiece
from tests.access.test_closure import NORMAL, labels
from tests.builders import (
    DERM,
    FAMILY,
    WITHHELD,
    Caller,
    Clock,
    a_communication,
    a_patient,
    a_portal,
    a_provenance,
    an_ehr,
    an_encounter,
    an_observation,
    oneself,
    reference,
)
from tests.stores.rows import KEY, a_row, of_record, write

A, B, P = KEY("Observation/a"), KEY("Observation/b"), KEY("Provenance/p")


async def test_edges_are_those_from_and_to_the_rows_of_the_practice(store: Any) -> None:
    follows = an_observation("b", derivedFrom=[reference("Observation/a")])
    about = a_provenance("p", about=["Observation/b", "Observation/none"])
    await write(
        store,
        a_row(an_observation("a")),
        a_row(follows),
        a_row(about),
        a_row(follows | {"id": "elsewhere"}, practice=FAMILY),
        a_row(follows | {"id": "gone"}),
    )

    async def work(transaction: Any) -> set[tuple[str, str]]:
        gone = a_row(follows | {"id": "gone"}, version=2, deleted=True)
        gone = type(gone)(gone.row, gone.entries, ("Observation/a",))
        await transaction.write(gone)
        found = await transaction.edges([A, B], DERM)
        assert len(found) == len(set(found))
        return {(str(source), str(target)) for source, target in found}

    found = await store.transact(work)
    own = {one for one in found if one[1].startswith("Observation/")}
    assert own == {
        ("Observation/b", "Observation/a"),
        ("Observation/gone", "Observation/a"),
        ("Provenance/p", "Observation/b"),
    }
    assert ("Observation/b", "Patient/ada") in found
    assert await store.transact(lambda t: t.edges([], DERM)) == []


async def test_other_labels_are_those_of_the_current_version_alone(store: Any) -> None:
    await write(
        store,
        a_row(an_observation("a"), labels=["R"]),
        a_row(an_observation("a"), version=2, sections=["visits"]),
        a_row(an_observation("b")),
        a_row(an_observation("b"), version=2, deleted=True),
        a_row(an_observation("a"), practice=FAMILY),
    )
    wanted = {A: frozenset({"withheld"}), B: frozenset({"SEX"}), P: frozenset({"R"})}

    async def work(transaction: Any) -> Any:
        await transaction.relabel(wanted, DERM)
        await transaction.relabel({}, DERM)
        return {one.id: one for one in await transaction.facts([A, B], DERM)}

    facts = await store.transact(work)
    assert facts["a"].visibility_class.labels == {"withheld"}
    assert facts["a"].visibility_class.sections == {"visits"}
    assert (facts["a"].owners, facts["b"].visibility_class.labels) == (("ada",), {"SEX"})
    assert await store.read(A, of_record()) is None
    first = await store.vread(A, 1, Visibility.of_server("Observation", practice=DERM))
    assert first.facts.visibility_class.labels == {"R"}
    other = await store.read(A, of_record(practice=FAMILY))
    assert other.facts.visibility_class.labels == set()


async def test_what_is_too_much_is_hidden_and_settled_by_two_workers(
    store: Any, second: Any, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(passing_on, "MOST", 4)
    monkeypatch.setattr(settling, "PIECE", 3)
    monkeypatch.setattr(settling, "HIDDEN_AT_ONCE", 5)
    monkeypatch.setattr(module, "HIDDEN_IN_A_STEP", 4)
    portal = a_portal(store, clock)
    ehr, ada = Caller(portal, an_ehr()), Caller(portal, oneself("ada"))
    visit = reference("Encounter/visit")
    await ehr.store(a_patient("ada"), an_encounter("visit"))
    await ehr.store(*(an_observation(f"o{n}", encounter=visit) for n in range(9)))
    await ehr.store(a_communication("c", about=[reference("Observation/o8")]))
    keys = ["Encounter/visit", "Communication/c", *(f"Observation/o{n}" for n in range(9))]

    async def work_off(which: Any, name: str) -> None:
        known = settling_jobs(a_portal(which, clock).server)
        while (await which.every(SettlingPiece, limit=1)) or not await _is_done(which):
            try:
                await jobs.work_off(which, known, worker=name, clock=clock)
            except Unavailable:
                clock.advance(1)
            clock.advance(31)
            await asyncio.sleep(0)

    for meta, held in ((WITHHELD, {"withheld"}), (NORMAL, set[str]())):
        await ehr.store(an_encounter("visit", meta=meta))
        first = await labels(store, *keys)
        assert [one for one in first if one == {SETTLING}], "some at once"
        await asyncio.wait_for(
            asyncio.gather(work_off(store, "one"), work_off(second, "two")), timeout=120
        )
        assert await labels(store, *keys) == [held] * len(keys)
        shown = (await ada.get("Observation?_summary=count")).json["total"]
        assert shown == (0 if held else 9)


async def _is_done(store: Any) -> bool:
    found = await store.get(settling.Settling, DERM)
    return found is not None and not found.is_open
