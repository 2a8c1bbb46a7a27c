"""kill -9 under load: what was acknowledged is there, every answered access is in the log.

``python -m tests.end_to_end.durability --writes 10000 --reads 20000`` prints the figures.
``--place motor`` runs it on MongoDB (`tests.places`). There the database can be killed as well, by
commands that ``--kill-database`` and ``--restart-database`` give, or the environment:

    FHIR_PORTAL_TEST_MONGODB_KILL      .ci/mongodb/ferretdb.sh kill-database
    FHIR_PORTAL_TEST_MONGODB_RESTART   .ci/mongodb/ferretdb.sh restart-database

The server must come through that by itself.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import random
import sqlite3
import subprocess
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import httpx
import msgspec

from tests.end_to_end.running import (
    EHR_TOKEN,
    PATIENT_TOKEN,
    PRACTICE,
    Running,
    an_observation,
    bearer,
    prepare,
)
from tests.places import File, Place, ask_for_place, asked_place

CONNECTIONS: Final = 16
RECOVERY_SECONDS: Final = 90.0
"""How long the server may take until it stores again after its database came back."""
_DOWN_SECONDS: Final = 1.5
_PAGE: Final = 1000


@dataclass(frozen=True)
class Outage:
    """Commands that kill the database and bring it back."""

    kill: str
    restart: str

    @classmethod
    def of_environment(cls) -> Outage:
        """What the environment says; ``""`` for what it does not."""
        names = ("KILL", "RESTART")
        return cls(*(os.environ.get(f"FHIR_PORTAL_TEST_MONGODB_{name}", "") for name in names))

    def __bool__(self) -> bool:
        return bool(self.kill and self.restart)

    async def run(self, command: str) -> None:
        """Run one of them; it must succeed."""
        done = await asyncio.to_thread(
            subprocess.run, command, shell=True, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"


@dataclass
class Outcome:
    """What happened: acknowledged writes by address, answered reads by address, kills, losses.

    ``refused`` counts the answers 503, ``recoveries`` has the seconds that the server took to
    store again once its database was back.
    """

    written: dict[str, bytes] = field(default_factory=dict)
    answered: Counter[str] = field(default_factory=Counter)
    refused: int = 0
    kills: int = 0
    recoveries: list[float] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    unlogged: list[str] = field(default_factory=list)
    integrity: str = ""
    seconds: float = 0.0


async def run(
    folder: Path,
    place: Place,
    *,
    writes: int,
    reads: int,
    kills: int,
    outages: int = 0,
    outage: Outage | None = None,
    seed: int = 1,
) -> Outcome:
    """Write and read through sudden deaths, then look at what is there.

    The server dies ``kills`` times, and once more at the end; its database ``outages`` times.
    """
    started = time.monotonic()
    chance = random.Random(seed)
    await prepare(folder, place)
    server = Running(folder, place)
    outcome = Outcome()
    await server.start()
    total = writes + reads
    at = sorted(chance.sample(range(total // 10, total), kills + outages))
    of_database = set(chance.sample(at, outages))
    jobs = ["w"] * writes + ["r"] * reads
    chance.shuffle(jobs)
    done, answered = 0, time.monotonic()
    up = asyncio.Event()
    up.set()

    async def worker() -> None:
        nonlocal done, answered
        async with httpx.AsyncClient(base_url=server.base, timeout=RECOVERY_SECONDS) as client:
            while jobs:
                job = jobs.pop()
                await up.wait()
                try:
                    if job == "w":
                        await _write(client, outcome, done)
                    else:
                        await _read(client, outcome, chance)
                except httpx.TransportError:
                    pass
                except Refused:
                    patience = time.monotonic() - answered
                    assert patience < 2 * RECOVERY_SECONDS, "the server refuses everything"
                    outcome.refused += 1
                    jobs.append(job)
                    await asyncio.sleep(0.1)
                    continue
                done, answered = done + 1, time.monotonic()

    async def killer() -> None:
        for moment in at:
            while done < moment and jobs:
                await asyncio.sleep(0.002)
            if moment in of_database:
                assert outage is not None
                await outage.run(outage.kill)
                await asyncio.sleep(_DOWN_SECONDS)
                await outage.run(outage.restart)
                outcome.recoveries.append(await _recovered(server, outcome))
                continue
            up.clear()
            server.kill()
            outcome.kills += 1
            await server.start()
            up.set()

    try:
        await asyncio.gather(killer(), *(worker() for _ in range(CONNECTIONS)))
        server.kill()
        outcome.kills += 1
        await server.start()
        await _compare(server, outcome)
    finally:
        server.stop()
    await _look_at_log(place, outcome)
    if isinstance(place, File):
        outcome.integrity = _integrity(place)
    outcome.seconds = time.monotonic() - started
    return outcome


class Refused(Exception):
    """The server said that it cannot, for now."""


async def _recovered(server: Running, outcome: Outcome) -> float:
    """Wait until a server that nobody started again stores; return how long that took."""
    assert server.process is not None
    started = time.monotonic()
    async with httpx.AsyncClient(base_url=server.base, timeout=RECOVERY_SECONDS) as client:
        while True:
            assert server.process.poll() is None, "the server died with its database"
            assert time.monotonic() - started < RECOVERY_SECONDS, "the server does not recover"
            try:
                await _write(client, outcome, 0)
            except Refused:
                await asyncio.sleep(0.05)
            else:
                break
        ready = await client.get("/health/ready")
        assert ready.status_code == 200, ready.text
    return time.monotonic() - started


async def _write(client: httpx.AsyncClient, outcome: Outcome, number: int) -> None:
    answer = await client.post(
        "/fhir/Observation",
        content=msgspec.json.encode(an_observation(number)),
        headers=bearer(EHR_TOKEN) | {"Content-Type": "application/fhir+json"},
    )
    if answer.status_code == 503:
        raise Refused
    assert answer.status_code == 201, answer.text
    path = answer.headers["location"].partition("/fhir/")[2].partition("/_history")[0]
    outcome.written[path] = answer.content


async def _read(client: httpx.AsyncClient, outcome: Outcome, chance: random.Random) -> None:
    known = list(outcome.written)[-50:] or ["Observation/first"]
    path = chance.choice(known)
    answer = await client.get(f"/fhir/{path}", headers=bearer(PATIENT_TOKEN))
    if answer.status_code == 503:
        raise Refused
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


async def _look_at_log(place: Place, outcome: Outcome) -> None:
    logged: Counter[str] = Counter()
    store = await place.open()
    before = None
    while True:
        lines = await store.log.of_record(
            PRACTICE,
            None,
            agent=None,
            told=False,
            low=0,
            high=2**62,
            before=before,
            limit=_PAGE,
        )
        for row in (line.row for line in lines):
            if (row.interaction, row.status, row.agent) == ("read", 200, "Patient/ida"):
                logged[row.what] += 1
        if len(lines) < _PAGE:
            break
        before = lines[-1].id
    await store.aclose()
    outcome.unlogged = [p for p, n in outcome.answered.items() if logged[p] < n]


def _integrity(place: File) -> str:
    with (
        contextlib.closing(sqlite3.connect(place.path)) as store,
        contextlib.closing(sqlite3.connect(place.log)) as log,
    ):
        checks = (c.execute("PRAGMA integrity_check").fetchone()[0] for c in (store, log))
        return ", ".join(checks)


def main() -> None:
    """Run with the figures given and print what came out."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--writes", type=int, default=10_000)
    parser.add_argument("--reads", type=int, default=20_000)
    parser.add_argument("--kills", type=int, default=10, help="of the server")
    parser.add_argument("--outages", type=int, default=0, help="kills of its database")
    parser.add_argument("--kill-database", default=Outage.of_environment().kill)
    parser.add_argument("--restart-database", default=Outage.of_environment().restart)
    parser.add_argument("--seed", type=int, default=1)
    ask_for_place(parser)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        outcome = asyncio.run(_once(folder, asked_place(given.place, folder), given))
    recoveries = ", ".join(f"{seconds:.1f}" for seconds in outcome.recoveries)
    print(
        f"{len(outcome.written)} writes acknowledged, {sum(outcome.answered.values())} reads "
        f"answered, {outcome.refused} refused, {outcome.kills} kills, {outcome.seconds:.0f} s: "
        f"{len(outcome.lost)} lost, {len(outcome.changed)} changed, "
        f"{len(outcome.unlogged)} without their log row"
        + (f"; integrity: {outcome.integrity}" if outcome.integrity else "")
        + (f"; seconds to recover from its database's death: {recoveries}" if recoveries else "")
    )


async def _once(folder: Path, place: Place, given: argparse.Namespace) -> Outcome:
    try:
        return await run(
            folder,
            place,
            writes=given.writes,
            reads=given.reads,
            kills=given.kills,
            outages=given.outages,
            outage=Outage(given.kill_database, given.restart_database),
            seed=given.seed,
        )
    finally:
        await place.drop()


if __name__ == "__main__":
    main()
