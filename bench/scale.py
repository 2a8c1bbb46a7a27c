"""How reads and searches cost at ten thousand and at a million resources.

    python bench/scale.py --sizes 10000,100000,1000000

Fills one embedded store step by step (100 Observations a patient) and at each size times the same
requests through `Portal.perform`, in this process, as CPU time: medians over the requests, and
the ratio to the first size.
"""

from __future__ import annotations

import argparse
import asyncio
import functools
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fhir_portal.access.context import AuthContext
from fhir_portal.access.policy import Ask, Permit, decide
from fhir_portal.consent.record import RecordAccess
from fhir_portal.embedded.store import EmbeddedStore
from fhir_portal.fhir.interaction import FhirRequest
from fhir_portal.fhir.reference import ResourceKey
from fhir_portal.portal import Portal
from fhir_portal.resources.writing import update_in
from fhir_portal.smart.keys import derive
from fhir_portal.smart.scope import ScopeSet

PRACTICE = "scale"
OF_ONE = 100
BATCH = 500
CATEGORY = "http://terminology.hl7.org/CodeSystem/observation-category"


def an_observation(number: int) -> dict[str, Any]:
    """The ``number``-th Observation; its patient is ``p<number // 100>``."""
    return {
        "resourceType": "Observation",
        "id": f"o{number}",
        "status": "final",
        "category": [
            {"coding": [{"system": CATEGORY, "code": ("vital-signs", "laboratory")[number % 2]}]}
        ],
        "code": {"coding": [{"system": "http://loinc.org", "code": f"{8000 + number % 90}-4"}]},
        "subject": {"reference": f"Patient/p{number // OF_ONE}"},
        "effectiveDateTime": f"20{10 + number % 15}-{1 + number % 12:02}-{1 + number % 28:02}",
        "valueQuantity": {
            "value": number % 200,
            "unit": "/min",
            "system": "http://unitsofmeasure.org",
            "code": "/min",
        },
    }


def an_ehr() -> AuthContext:
    """The practice's EHR."""
    scopes = ScopeSet.parse("system/*.cruds")
    return AuthContext("ehr", "system", scopes, PRACTICE, time.time() + 1e6, "")


def a_person(patient: str) -> AuthContext:
    """A person with a token for their own record."""
    key = f"Patient/{patient}"
    record = RecordAccess(
        key, PRACTICE, "Scale", patient, None, "self", key, None, None, frozenset(), None
    )
    scopes = ScopeSet.parse("patient/*.rs")
    return AuthContext(
        "app", "patient", scopes, PRACTICE, time.time() + 1e6, "", record=record, account=patient
    )


async def fill(portal: Portal, low: int, high: int) -> None:
    """Store the Observations from ``low`` to ``high``, without the write gate."""
    auth = an_ehr()
    permit = decide(auth, Ask("u", "Observation", time.time()))
    if not isinstance(permit, Permit):
        raise TypeError(permit)
    for start in range(low, high, BATCH):

        async def work(transaction: Any, start: int = start) -> None:
            for number in range(start, min(start + BATCH, high)):
                await update_in(
                    transaction,
                    portal.server,
                    auth,
                    an_observation(number),
                    permit.visible,
                    key=ResourceKey("Observation", f"o{number}"),
                    if_match=None,
                    if_none_match=None,
                )

        await portal.server.store.transact(work)


async def timed(
    portal: Portal, make: Callable[[random.Random], tuple[FhirRequest, AuthContext]], times: int
) -> float:
    """Return the median CPU microseconds of one request, sixteen at a time."""
    chance = random.Random(7)  # noqa: S311 - the same requests at each size
    found = []
    for _ in range(times // 16):
        asked = [make(chance) for _ in range(16)]
        began = time.process_time()
        await asyncio.gather(*(portal.perform(request, auth) for request, auth in asked))
        found.append((time.process_time() - began) / 16 * 1e6)
    return statistics.median(found)


async def measure(portal: Portal, size: int) -> dict[str, float]:
    """Time each kind of request at a size."""
    patients = size // OF_ONE
    people = [a_person(f"p{n}") for n in range(min(patients, 200))]
    ehr = an_ehr()

    def search(**more: str) -> FhirRequest:
        pairs = {"_count": "20", **more}
        return FhirRequest("search-type", "Observation", query=tuple(pairs.items()))

    kinds: dict[str, Callable[[random.Random], tuple[FhirRequest, AuthContext]]] = {
        "read by id (person)": lambda c: (
            FhirRequest("read", "Observation", f"o{(n := c.randrange(200)) * OF_ONE % size}"),
            people[n * OF_ONE % size // OF_ONE % len(people)],
        ),
        "search page of 20 (person, category)": lambda c: (
            search(category="vital-signs"),
            people[c.randrange(len(people))],
        ),
        "search page of 20 (person, newest first)": lambda c: (
            search(_sort="-date"),
            people[c.randrange(len(people))],
        ),
        "search page of 20 (EHR, patient and category)": lambda c: (
            search(patient=f"p{c.randrange(patients)}", category="vital-signs"),
            ehr,
        ),
        "search page of 20 (EHR, code over the practice)": lambda c: (
            search(code=f"http://loinc.org|{8000 + c.randrange(90)}-4"),
            ehr,
        ),
    }
    return {name: await timed(portal, make, 640) for name, make in kinds.items()}


def size_of(folder: str) -> int:
    """Return the bytes of the files in a folder."""
    return sum(path.stat().st_size for path in Path(folder).iterdir())


async def run(sizes: list[int]) -> None:
    """Fill and measure, size by size."""
    with tempfile.TemporaryDirectory() as folder:
        store = EmbeddedStore.open(f"{folder}/portal.db")
        portal = Portal.over(
            store,
            store.log,
            clock=time.time,
            base="http://127.0.0.1:8000/fhir",
            aliases=(),
            derive=functools.partial(derive, b"0123456789abcdef" * 2),
        )
        figures: dict[int, dict[str, float]] = {}
        stored = 0
        for size in sizes:
            began = time.perf_counter()
            await fill(portal, stored, size)
            rate = (size - stored) / (time.perf_counter() - began)
            stored = size
            figures[size] = await measure(portal, size)
            megabytes = size_of(folder) / 1e6
            print(f"{size:,} resources, {megabytes:,.0f} MB, filled at {rate:,.0f}/s", flush=True)
        print("\n| CPU per request, us |" + "".join(f" {size:,} |" for size in sizes) + " ratio |")
        print("| --- |" + " ---: |" * (len(sizes) + 1))
        for name in figures[sizes[0]]:
            row = [figures[size][name] for size in sizes]
            cells = "".join(f" {value:,.0f} |" for value in row)
            print(f"| {name} |{cells} {row[-1] / row[0]:.2f} |")
        store.close()


def main() -> None:
    """Read the sizes and run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", default="10000,100000,1000000")
    given = parser.parse_args()
    asyncio.run(run([int(size) for size in given.sizes.split(",")]))


if __name__ == "__main__":
    main()
