"""Ten thousand invitations at once: what the server does, and what everybody else notices of it.

    python -m tests.end_to_end.invitations               (about four minutes)
    python -m tests.end_to_end.invitations --number 700

A real server with its worker inside, on loopback, over the embedded store in a file, and a mail
server that takes 20 ms for a mail. In turn, each over a new store:

    limit      an EHR sends the calls of `$portal-invite` in batches; the practice's limit is 500
    no limit   the same with the limit raised beyond them
    bookings   an EHR sends transactions of booked appointments; each sets off the event rule

Meanwhile a patient's page is asked for ten times a second, and a message that somebody waits for is
put into the outbox every two seconds. What is counted afterwards is counted in the store. Needs
what the tests need (``make .venv/.test``).
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal, get_args

import httpx
import msgspec

from fhir_portal.access.visibility import Visibility
from fhir_portal.accounts.invitation import Invitation
from fhir_portal.accounts.policy import PracticePolicy
from fhir_portal.fhir.json import parse
from fhir_portal.fhir.reference import ResourceKey
from fhir_portal.notify import outbox
from fhir_portal.notify.jobs import Job
from fhir_portal.notify.outbox import OutboxMessage
from fhir_portal.records import RecordReader
from fhir_portal.resources.event_rules import INVITE
from fhir_portal.resources.store import PortalStore
from tests.end_to_end.running import EHR_TOKEN, PRACTICE, Running, bearer, prepare
from tests.notify.receiver import Receiver, receiving
from tests.places import File

A_BATCH: Final = 2_500
A_TRANSACTION: Final = 500
MAIL_SECONDS: Final = 0.02
_TO: Final = "waiting-"


def a_patient(number: int) -> dict[str, Any]:
    return {
        "resourceType": "Patient",
        "id": f"p{number}",
        "name": [{"family": "Quill", "given": [f"N{number}"]}],
        "birthDate": "1970-01-01",
        "telecom": [{"system": "email", "value": f"p{number}@people.example"}],
    }


def an_appointment(number: int) -> dict[str, Any]:
    return {
        "resourceType": "Appointment",
        "id": f"v{number}",
        "status": "booked",
        "start": "2099-01-05T09:00:00Z",
        "end": "2099-01-05T09:20:00Z",
        "participant": [{"actor": {"reference": f"Patient/p{number}"}, "status": "accepted"}],
    }


def an_invitation(number: int) -> dict[str, Any]:
    parameters = [
        {"name": "kind", "valueCode": "self"},
        {"name": "channel", "valueCode": "mail"},
        {"name": "idempotency-key", "valueString": f"campaign-{number}"},
    ]
    return {"resourceType": "Parameters", "parameter": parameters}


Case = Literal["limit", "no limit", "bookings"]
CASES: Final[tuple[Case, ...]] = get_args(Case)
POLICIES: Final[dict[Case, dict[str, Any]]] = {
    "limit": {},
    "no limit": {"invitations_an_hour": 100_000, "messages_a_minute": 6_000},
    "bookings": {"invite_on_booking": True},
}


@dataclass
class Noticed:
    """What others noticed: seconds for each page, and for each message until it was there."""

    pages: list[float] = field(default_factory=list)
    mails: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class Measured:
    """The line of the table, and what it was made of."""

    line: str
    counted: Counter[str]
    made: int
    is_whole: bool
    noticed: Noticed


@dataclass
class Bench:
    """One server over one store."""

    running: Running
    store: PortalStore
    receiver: Receiver
    http: httpx.AsyncClient
    noticed: Noticed = field(default_factory=Noticed)

    async def post(self, kind: str, entries: Sequence[tuple[str, str, dict[str, Any]]]) -> Any:
        tree = {
            "resourceType": "Bundle",
            "type": kind,
            "entry": [
                {"resource": one, "request": {"method": method, "url": url}}
                for method, url, one in entries
            ],
        }
        return await self.http.post("/fhir", content=msgspec.json.encode(tree))

    def memory(self) -> tuple[int, int]:
        """MB resident now, and at most, of the process that serves."""
        process = self.running.process
        assert process is not None
        served = max(self.running.processes(), default=process.pid)
        lines = Path(f"/proc/{served}/status").read_text("ascii").splitlines()
        found = {line.split(":")[0]: line.split()[1] for line in lines if line.startswith("Vm")}
        return int(found["VmRSS"]) // 1024, int(found["VmHWM"]) // 1024

    async def others(self) -> None:
        """Be the others, until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._pages())
            tasks.create_task(self._mails())

    async def _pages(self) -> None:
        async with httpx.AsyncClient(base_url=self.running.base, timeout=60) as http:
            while True:
                began = time.perf_counter()
                assert (await http.get("/signin")).status_code == 200
                self.noticed.pages.append(time.perf_counter() - began)
                await asyncio.sleep(0.1)

    async def _mails(self) -> None:
        number = 0
        while True:
            number += 1
            to, began = f"{_TO}{number}@people.example", time.time()
            await self._send(f"waiting.{number}", to, began)
            while not any(to in one.recipients for one in self.receiver.taken[-500:]):
                await asyncio.sleep(0.05)
            self.noticed.mails.append(time.time() - began)
            await asyncio.sleep(2)

    async def _send(self, key: str, to: str, now: float) -> None:
        async def work(transaction: Any) -> None:
            await outbox.enqueue(
                transaction, key=key, practice=PRACTICE, channel="mail", to=f"mail:{to}",
                template="app-ended", now=now,
            )  # fmt: skip

        await self.store.transact(work)


async def every(store: RecordReader, kind: Any) -> list[Any]:
    found: list[Any] = []
    after = ""
    while page := await store.every(kind, after=after, limit=1000):
        found += page
        after = page[-1].key
    return found


@contextlib.asynccontextmanager
async def a_bench(folder: Path, receiver: Receiver, **policy: Any) -> AsyncIterator[Bench]:
    folder.mkdir()  # noqa: ASYNC240 - nobody else waits here
    place = File(folder / "portal.db")
    await prepare(folder, place)
    store = await place.open()

    async def decide(transaction: Any) -> None:
        await transaction.put(PracticePolicy(key=PRACTICE, **policy))

    await store.transact(decide)
    mail = {"smtp_host": "127.0.0.1", "smtp_port": receiver.port, "smtp_tls": "none"}
    running = Running(folder, place, settings={**mail, "smtp_from": "portal@practice.example"})
    await running.start()
    try:
        headers = {**bearer(EHR_TOKEN), "Content-Type": "application/fhir+json"}
        async with httpx.AsyncClient(base_url=running.base, headers=headers, timeout=900) as http:
            yield Bench(running, store, receiver, http)
    finally:
        running.stop()
        await store.aclose()


async def patients(bench: Bench, number: int) -> None:
    for at in range(0, number, A_TRANSACTION):
        some = range(at, min(at + A_TRANSACTION, number))
        answer = await bench.post(
            "transaction", [("PUT", f"Patient/p{one}", a_patient(one)) for one in some]
        )
        assert answer.status_code == 200, answer.text


async def calls(bench: Bench, number: int) -> Counter[str]:
    """Send every call in batches; return the statuses of the entries."""
    statuses: Counter[str] = Counter()
    for at in range(0, number, A_BATCH):
        some = range(at, min(at + A_BATCH, number))
        answer = await bench.post(
            "batch",
            [("POST", f"Patient/p{one}/$portal-invite", an_invitation(one)) for one in some],
        )
        assert answer.status_code == 200, answer.text
        statuses.update(one["response"]["status"][:3] for one in parse(answer.content)["entry"])
    return statuses


async def bookings(bench: Bench, number: int) -> Counter[str]:
    """Send every appointment in transactions; return the states of the jobs."""
    for at in range(0, number, A_TRANSACTION):
        some = range(at, min(at + A_TRANSACTION, number))
        answer = await bench.post(
            "transaction", [("PUT", f"Appointment/v{one}", an_appointment(one)) for one in some]
        )
        assert answer.status_code == 200, answer.text
    while True:
        jobs = [one for one in await every(bench.store, Job) if one.name == INVITE]
        if not any(one.due is not None and one.due <= time.time() for one in jobs):
            return Counter(one.state if one.due is None else "put off" for one in jobs)
        await asyncio.sleep(5)


async def whole(bench: Bench) -> tuple[int, bool]:
    """How many invitations there are, and whether each has all that belongs to it, and no more."""
    invitations = await every(bench.store, Invitation)
    messages = [one for one in await every(bench.store, OutboxMessage) if one.stream]
    ends = [one for one in await every(bench.store, Job) if one.name == "expire-invitation"]
    visible = Visibility.of_server("Task", practice=PRACTICE)
    tasks = await bench.store.read_many(
        [ResourceKey("Task", one.task) for one in invitations], visible
    )
    return len(invitations), len(invitations) == len(messages) == len(ends) == len(tasks)


def shown(case: Case, seconds: float, happened: str, bench: Bench, before: int) -> str:
    now, most = bench.memory()
    pages, mails = sorted(bench.noticed.pages), bench.noticed.mails
    page = f"{statistics.median(pages) * 1e3:.0f} / {pages[int(len(pages) * 0.99)] * 1e3:.0f}"
    mail = f"{statistics.median(mails):.1f} / {max(mails):.1f}" if mails else "none came"
    return f"| {case} | {happened} | {seconds:.0f} | {page} | {mail} | {before}, {now}, {most} |"


async def measure(case: Case, folder: Path, number: int, *, afterwards: float = 20.0) -> Measured:
    """Do one of the cases; ``afterwards`` are the seconds that sending is watched for."""
    receiver = Receiver(at_data=lambda: time.sleep(MAIL_SECONDS))
    with receiving(receiver):
        async with a_bench(folder, receiver, **POLICIES[case]) as bench:
            await patients(bench, number)
            before, _ = bench.memory()
            others = asyncio.create_task(bench.others())
            try:
                began = time.perf_counter()
                counted = await (bookings if case == "bookings" else calls)(bench, number)
                seconds = time.perf_counter() - began
                if counted["429"]:
                    await refused_alone(bench, number - 1)
                await asyncio.sleep(afterwards)
            finally:
                others.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await others
            made, is_whole = await whole(bench)
            happened = ", ".join(f"{count} {what}" for what, count in sorted(counted.items()))
            assert sum(counted.values()) == number
            line = shown(case, seconds, f"{happened}; {made} whole", bench, before)
            return Measured(line, counted, made, is_whole, bench.noticed)


async def refused_alone(bench: Bench, patient: int) -> None:
    """A call on its own is told by a header how long to wait."""
    answer = await bench.http.post(
        f"/fhir/Patient/p{patient}/$portal-invite",
        content=msgspec.json.encode(an_invitation(patient)),
    )
    assert answer.status_code == 429, answer.text
    assert 0 < int(answer.headers["Retry-After"]) <= 3601


async def main() -> bool:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument("--number", type=int, default=10_000)
    parser.add_argument("--only", choices=CASES)
    given = parser.parse_args()
    print("| | what became of them | s | page, ms p50 / p99 | mail, s p50 / most | MB |")
    print("| --- | --- | ---: | ---: | ---: | ---: |")
    is_right = True
    with tempfile.TemporaryDirectory() as folder:
        for case in CASES if given.only is None else (given.only,):
            found = await measure(case, Path(folder) / case.replace(" ", "-"), given.number)
            print(found.line, flush=True)
            is_right &= found.is_whole
    return is_right


if __name__ == "__main__":
    sys.exit(not asyncio.run(main()))
