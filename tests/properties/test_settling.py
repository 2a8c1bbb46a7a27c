"""Whatever is written while a job settles labels: nothing is shown too early, and the end is right.

The same writes go into a store that has no bound and computes everything at once. Of each row that
is not marked as unsettled the labels must at no time be fewer than there, and at the end the same.
"""

from __future__ import annotations

import random
from typing import Any

import pytest

from fhir_portal.consent.label_rules import Relabelling
from fhir_portal.consent.labels import UNSETTLED
from fhir_portal.embedded.store import EmbeddedStore
from fhir_portal.notify import jobs
from fhir_portal.operations import settling_jobs as jobs_module
from fhir_portal.operations.settling_jobs import settle_step
from fhir_portal.resources import passing_on, settling
from tests.access.test_closure import CODE, NORMAL, labels
from tests.builders import (
    DERM,
    RESTRICTED,
    WITHHELD,
    Caller,
    Clock,
    Json,
    a_binary,
    a_communication,
    a_document,
    a_patient,
    a_portal,
    a_provenance,
    an_ehr,
    an_encounter,
    an_observation,
    reference,
    resource,
)

KEYS = [f"{name}/{n}" for name, most in (
    ("Encounter", 2), ("Observation", 7), ("DiagnosticReport", 3), ("Communication", 5),
    ("DocumentReference", 2), ("Binary", 2), ("Provenance", 2),
) for n in range(most)]  # fmt: skip
METAS = (NORMAL, NORMAL, NORMAL, NORMAL, NORMAL, RESTRICTED, WITHHELD)


def a_tree(key: str, chance: random.Random) -> Json:
    """Something under a key that refers to whatever it may, in circles too."""
    name, _, own_id = key.partition("/")
    of = chance.choice(["ada", "bo"])

    def some(kind: str) -> Json:
        return reference(chance.choice([one for one in KEYS if one.startswith(f"{kind}/")]))

    more: Json = {"meta": chance.choice(METAS)}
    if chance.random() < 0.7:
        more["encounter"] = some("Encounter")
    if name == "Encounter":
        more.pop("encounter", None)
        return an_encounter(own_id, of=of, **more)
    if name == "Observation":
        if chance.random() < 0.3:
            more["hasMember"] = [some("Observation")]
        return an_observation(own_id, of=of, **more)
    if name == "DiagnosticReport":
        return resource(
            name, own_id, status="final", code=CODE, subject=reference(f"Patient/{of}"),
            result=[some("Observation"), some("Observation")], **more,
        )  # fmt: skip
    if name == "Communication":
        about = [some(chance.choice(["Communication", "Observation", "DiagnosticReport"]))]
        return a_communication(own_id, of=of, about=about, **more)
    if name == "DocumentReference":
        more.pop("encounter", None)
        binary = str(chance.randrange(2))
        return a_document(own_id, of=of, binary=binary, **more)
    if name == "Binary":
        return a_binary(own_id, meta=more["meta"])
    return a_provenance(own_id, about=[chance.choice(KEYS[:17])], meta=more["meta"])


class Twins:
    """A store with hardly a bound, one without, and the same writes to both."""

    def __init__(self, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
        self.stores = [EmbeddedStore.open(":memory:", clock=clock) for _ in range(2)]
        self.callers = [Caller(a_portal(one, clock), an_ehr()) for one in self.stores]
        self.bounds = (2, 10**9)
        self.patch = monkeypatch

    async def write(self, tree: Json | None, key: str) -> None:
        for caller, bound in zip(self.callers, self.bounds, strict=True):
            self.patch.setattr(passing_on, "MOST", bound)
            answer = await (caller.delete(key) if tree is None else caller.put(tree))
            assert answer.status < 300 or answer.status == 404, answer.body

    async def step(self) -> bool:
        return await self.stores[0].transact(lambda t: settle_step(t, DERM))

    async def compared(self, keys: list[str], *, settled: bool) -> None:
        marker = await self.stores[0].get(Relabelling, DERM)
        if marker is not None and marker.shuts:
            return  # nothing is shown of any row
        found = [await labels(one, *keys) for one in self.stores]
        for key, held, due in zip(keys, *found, strict=True):
            if settled:
                assert held == due, key
            elif held.isdisjoint(UNSETTLED):
                assert held >= due, key


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("hidden_at_once", [1000, 3])
async def test_nothing_is_shown_too_early_and_the_end_is_right(
    seed: int, hidden_at_once: int, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settling, "HIDDEN_AT_ONCE", hidden_at_once)
    monkeypatch.setattr(settling, "PIECE", 3)
    monkeypatch.setattr(jobs_module, "HIDDEN_IN_A_STEP", 2)
    monkeypatch.setattr(jobs_module, "SHOWN_IN_A_STEP", 1)
    chance = random.Random(seed)
    twins = Twins(clock, monkeypatch)
    for patient in ("ada", "bo"):
        await twins.write(a_patient(patient), f"Patient/{patient}")
    there: set[str] = set()
    settled = 0
    for _ in range(60):
        key = chance.choice(KEYS)
        if key in there and chance.random() < 0.12:
            await twins.write(None, key)
        else:
            await twins.write(a_tree(key, chance), key)
            there.add(key)
        await twins.compared(sorted(there), settled=False)
        for _ in range(chance.choice([0, 0, 1, 2, 40])):
            settled += await twins.step()
            await twins.compared(sorted(there), settled=False)
    while await twins.step():
        settled += 1
    await twins.compared(sorted(there), settled=True)
    assert settled > 5, "the job has had something to do"


def test_this_job_is_one_of_those_that_are_done(clock: Clock) -> None:
    store = EmbeddedStore.open(":memory:", clock=clock)
    known: Any = jobs_module.settling_jobs(a_portal(store, clock).server)
    assert set(known) == {settling.SETTLE_JOB}
    assert jobs.queue_of(settling.SETTLE_JOB) == "job.settle"
