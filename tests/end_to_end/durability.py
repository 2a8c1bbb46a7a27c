"""kill -9 under load: what was acknowledged is there, every answered access is in the log.

``python -m tests.end_to_end.durability --writes 10000 --reads 20000`` prints the figures.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import random
import sqlite3
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import msgspec

from fhir_portal.access.log import AccessRow
from tests.end_to_end.running import (
    EHR_TOKEN,
    PATIENT_TOKEN,
    Running,
    an_observation,
    bearer,
    prepare,
)

CONNECTIONS = 16


@dataclass
class Outcome:
    """What happened: acknowledged writes by address, answered reads by address, kills, losses."""

    written: dict[str, bytes] = field(default_factory=dict)
    answered: Counter[str] = field(default_factory=Counter)
    kills: int = 0
    lost: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    unlogged: list[str] = field(default_factory=list)
    integrity: str = ""
    seconds: float = 0.0


async def run(folder: Path, *, writes: int, reads: int, kills: int, seed: int = 1) -> Outcome:
    """Write and read through ``kills`` sudden deaths of the server, then look at what is there."""
    started = time.monotonic()
    chance = random.Random(seed)
    data = folder / "portal.db"
    await prepare(data)
    server = Running(data)
    outcome = Outcome()
    await server.start()
    total = writes + reads
    at = sorted(chance.sample(range(total // 10, total), kills))
    jobs = ["w"] * writes + ["r"] * reads
    chance.shuffle(jobs)
    done = 0
    up = asyncio.Event()
    up.set()

    async def worker() -> None:
        nonlocal done
        async with httpx.AsyncClient(base_url=server.base, timeout=20) as client:
            while jobs:
                job = jobs.pop()
                await up.wait()
                with contextlib.suppress(httpx.TransportError):
                    if job == "w":
                        await _write(client, outcome, done)
                    else:
                        await _read(client, outcome, chance)
                done += 1

    async def killer() -> None:
        for place in at:
            while done < place and jobs:
                await asyncio.sleep(0.002)
            up.clear()
            server.kill()
            outcome.kills += 1
            await server.start()
            up.set()

    await asyncio.gather(killer(), *(worker() for _ in range(CONNECTIONS)))
    server.kill()
    outcome.kills += 1
    await server.start()
    await _compare(server, outcome)
    server.stop()
    _look_at_log(data, outcome)
    outcome.seconds = time.monotonic() - started
    return outcome


async def _write(client: httpx.AsyncClient, outcome: Outcome, number: int) -> None:
    answer = await client.post(
        "/fhir/Observation",
        content=msgspec.json.encode(an_observation(number)),
        headers=bearer(EHR_TOKEN) | {"Content-Type": "application/fhir+json"},
    )
    assert answer.status_code == 201, answer.text
    path = answer.headers["location"].partition("/fhir/")[2].partition("/_history")[0]
    outcome.written[path] = answer.content


async def _read(client: httpx.AsyncClient, outcome: Outcome, chance: random.Random) -> None:
    known = list(outcome.written)[-50:] or ["Observation/first"]
    path = chance.choice(known)
    answer = await client.get(f"/fhir/{path}", headers=bearer(PATIENT_TOKEN))
    assert answer.status_code == 200, (path, answer.text)
    outcome.answered[path] += 1


async def _compare(server: Running, outcome: Outcome) -> None:
    async with httpx.AsyncClient(base_url=server.base, timeout=20) as client:
        for path, body in outcome.written.items():
            answer = await client.get(f"/fhir/{path}", headers=bearer(EHR_TOKEN))
            if answer.status_code != 200:
                outcome.lost.append(path)
            elif answer.content != body:
                outcome.changed.append(path)


def _look_at_log(data: Path, outcome: Outcome) -> None:
    logged: Counter[str] = Counter()
    with (
        contextlib.closing(sqlite3.connect(data)) as store,
        contextlib.closing(sqlite3.connect(data.with_suffix(".log.db"))) as log,
    ):
        for (body,) in log.execute("SELECT body FROM access"):
            row = msgspec.json.decode(body, type=AccessRow)
            if (row.interaction, row.status, row.agent) == ("read", 200, "Patient/ida"):
                logged[row.what] += 1
        checks = (c.execute("PRAGMA integrity_check").fetchone()[0] for c in (store, log))
        outcome.integrity = ", ".join(checks)
    outcome.unlogged = [p for p, n in outcome.answered.items() if logged[p] < n]


def main() -> None:
    """Run with the figures given and print what came out."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--writes", type=int, default=10_000)
    parser.add_argument("--reads", type=int, default=20_000)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        outcome = asyncio.run(run(Path(folder), **vars(given)))
    print(
        f"{len(outcome.written)} writes acknowledged, {sum(outcome.answered.values())} reads "
        f"answered, {outcome.kills} kills, {outcome.seconds:.0f} s: {len(outcome.lost)} lost, "
        f"{len(outcome.changed)} changed, {len(outcome.unlogged)} without their log row; "
        f"integrity: {outcome.integrity}"
    )


if __name__ == "__main__":
    main()
