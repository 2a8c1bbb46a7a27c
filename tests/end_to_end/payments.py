"""Many who pay one bill at once, a provider and a server that die: the books agree.

``python -m tests.end_to_end.payments --parallel 50 --rounds 3`` prints the figures. Two server
processes serve one store; the provider is a third one, with books of its own. ``--place motor``
runs it on MongoDB (`tests.places`).

1. Fifty pay parts of one bill at once, half of them at each server: no more is taken than is due.
2. Fifty send one payment at once: it is one.
3. Payers pay, and the provider tells nobody; it tells twice; it dies between charging and telling.
4. The provider charges as an order is opened, and its answer never comes, or it dies.
5. The same, and the server that asked is killed before the answer.
6. Then every order is asked about, and the provider's books are held against the bills.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import httpx
import msgspec

from fhir_portal.billing.payment import Payment
from fhir_portal.notify.jobs import Job
from fhir_portal.notify.lease import Turn
from fhir_portal.operations.settlement import PAYMENT_SYSTEM, WATCH
from fhir_portal.resources.store import PortalStore
from fhir_portal.smart.token import AccessToken, token_hash
from tests.end_to_end.running import EHR_TOKEN, PRACTICE, Running, bearer, free_port, prepare
from tests.places import Place, ask_for_place, asked_place

PAYER_TOKEN: Final = "payer-" * 8
SECRET: Final = "books-" * 8
TOTAL: Final = 120
PART: Final = 20
_PATIENCE: Final = 120.0
_ANSWER_SECONDS: Final = 30.0


@dataclass
class Outcome:
    """What happened, and what does not agree at the end (nothing, if all is well)."""

    begun: Counter[int] = field(default_factory=Counter)
    same: Counter[int] = field(default_factory=Counter)
    lost: int = 0
    kills: int = 0
    charged: dict[str, int] = field(default_factory=dict)
    disagreements: list[str] = field(default_factory=list)
    seconds: float = 0.0


@dataclass
class Till:
    """The provider's process."""

    folder: Path
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    @property
    def base(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def start(self, portal: str = "") -> None:
        """Start it, or start it again with its books as they are."""
        command = [sys.executable, "-m", "tests.end_to_end.payment_provider"]
        with (self.folder / "provider.log").open("ab") as errors:
            self.process = subprocess.Popen(
                [*command, str(self.port), str(self.folder / "books.db"), SECRET],
                start_new_session=True,
                stdout=subprocess.DEVNULL,
                stderr=errors,
            )
        deadline = time.monotonic() + _PATIENCE
        while time.monotonic() < deadline:
            with contextlib.suppress(httpx.TransportError):
                await self.tell(portal=portal)
                return
            await asyncio.sleep(0.05)
        message = "the provider did not start"
        raise AssertionError(message)

    async def tell(self, **what: str) -> None:
        async with httpx.AsyncClient(base_url=self.base) as http:
            (await http.post("/tell", params=what)).raise_for_status()

    async def pays(self, pay_at: str) -> None:
        """The payer pays on the page; the provider may die of it."""
        async with httpx.AsyncClient(timeout=_ANSWER_SECONDS) as http:
            with contextlib.suppress(httpx.TransportError):
                await http.post(pay_at)

    async def charged(self) -> dict[str, int]:
        async with httpx.AsyncClient(base_url=self.base) as http:
            return dict((await http.get("/charged")).json())

    async def died(self) -> None:
        """Wait until it has killed itself."""
        assert self.process is not None
        await asyncio.to_thread(self.process.wait, _PATIENCE)
        assert self.process.returncode == -signal.SIGKILL

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGTERM)
            self.process.wait(timeout=20)


@dataclass
class Show:
    """Two servers, a provider, and what came out so far."""

    place: Place
    servers: tuple[Running, Running]
    till: Till
    outcome: Outcome = field(default_factory=Outcome)
    bills: list[str] = field(default_factory=list)

    async def bill(self, name: str) -> str:
        """Have the practice send a bill."""
        tree = {
            "resourceType": "Invoice",
            "id": name,
            "status": "issued",
            "subject": {"reference": "Patient/ida"},
            "totalGross": {"value": TOTAL, "currency": "USD"},
        }
        async with self._at(1, EHR_TOKEN) as ehr:
            answer = await ehr.put(f"/fhir/Invoice/{name}", json=tree)
            assert answer.status_code == 201, answer.text
        self.bills.append(name)
        return name

    async def pay(
        self, bill: str, key: str, *, at: int = 0, amount: int | None = None
    ) -> httpx.Response | None:
        """Call ``$pay`` at one of the servers; ``None`` where the answer got lost."""
        given: list[dict[str, Any]] = [{"name": "idempotency-key", "valueString": key}]
        if amount is not None:
            given.append({"name": "amount", "valueMoney": {"value": amount, "currency": "USD"}})
        body = {"resourceType": "Parameters", "parameter": given}
        async with self._at(at, PAYER_TOKEN) as payer:
            try:
                return await payer.post(f"/fhir/Invoice/{bill}/$pay", json=body)
            except httpx.TransportError:
                return None

    async def killed(self, which: int) -> None:
        """Kill a server, and start it again."""
        self.servers[which].kill()
        self.outcome.kills += 1
        await self.servers[which].start()

    def _at(self, which: int, token: str) -> httpx.AsyncClient:
        return httpx.AsyncClient(
            base_url=self.servers[which].base,
            headers={**bearer(token), "Content-Type": "application/fhir+json"},
            timeout=_ANSWER_SECONDS,
        )


def pay_at(answer: httpx.Response) -> str:
    """Where the payer goes on."""
    return next(
        str(one["valueUrl"]) for one in answer.json()["parameter"] if one["name"] == "pay-at"
    )


async def many_at_once(show: Show, bill: str, parallel: int) -> None:
    """Parts of one bill, from both servers; those that were begun are paid, all at once."""
    answers = await asyncio.gather(
        *(show.pay(bill, f"{bill}-{n:08}", at=n % 2, amount=PART) for n in range(parallel))
    )
    begun = [one for one in answers if one is not None and one.status_code == 200]
    show.outcome.begun += Counter(0 if one is None else one.status_code for one in answers)
    assert len(begun) == TOTAL // PART, show.outcome.begun
    await asyncio.gather(*(show.till.pays(pay_at(one)) for one in begun for _ in range(2)))


async def one_at_once(show: Show, bill: str, parallel: int) -> None:
    """The same payment, from both servers; it is paid and nobody is told."""
    answers = await asyncio.gather(
        *(show.pay(bill, f"{bill}-00000000", at=n % 2) for n in range(parallel))
    )
    show.outcome.same += Counter(0 if one is None else one.status_code for one in answers)
    pages = {pay_at(one) for one in answers if one is not None and one.status_code == 200}
    assert len(pages) == 1, pages
    await show.till.tell(fault="lost")
    await show.till.pays(pages.pop())
    await show.till.tell(fault="")


async def charged_and_dead(show: Show, bill: str, fault: str, *, then: int | None = None) -> None:
    """The provider charges and fails; ``then`` a server is killed before it has an answer."""
    await show.till.tell(fault=fault)
    asked = asyncio.create_task(show.pay(bill, f"{bill}-00000000", at=0))
    if fault == "die":
        await show.till.died()
        await show.till.start(show.servers[1].base)
    if then is not None:
        deadline = time.monotonic() + _PATIENCE
        before = set(show.outcome.charged)
        while not set(await show.till.charged()) - before:
            assert time.monotonic() < deadline, "nothing was charged"
            await asyncio.sleep(0.05)
        await show.killed(then)
    answer = await asked
    show.outcome.charged = await show.till.charged()
    assert answer is None or answer.status_code == 503, answer.text
    show.outcome.lost += 1


async def dead_before_telling(show: Show, bill: str) -> None:
    """The payer pays on the page; the provider charges, and dies before it tells."""
    answer = await show.pay(bill, f"{bill}-00000000", at=1)
    assert answer is not None
    assert answer.status_code == 200, answer.text
    await show.till.tell(fault="die-told")
    await show.till.pays(pay_at(answer))
    await show.till.died()
    await show.till.start(show.servers[1].base)
    show.outcome.lost += 1


async def settled(show: Show) -> None:
    """Let the time pass after which every order is asked about; wait until all is known."""
    store = await show.place.open()
    try:
        deadline = time.monotonic() + _PATIENCE
        while True:
            open_ones = [one for one in await _every(store, Payment) if one.state == "begun"]
            if not open_ones:
                return
            assert time.monotonic() < deadline, f"{len(open_ones)} payments are not settled"
            await _hurry(store)
            await asyncio.sleep(2)
    finally:
        await store.aclose()


async def _hurry(store: PortalStore) -> None:
    """Have what asks the provider come up now: the jobs have no other memory of the time."""

    async def work(transaction: Any) -> None:
        for job in await _every(store, Job):
            if job.name != WATCH or job.due is None or job.due <= time.time():
                continue
            # Of a server that was killed meanwhile, too: its lease would keep others waiting.
            due = msgspec.structs.replace(job, due=time.time())
            turn, before = Turn.of(due), Turn.of(job)
            if turn is not None and before is not None and await transaction.replace(job, due):
                await transaction.delete(Turn, before.key)
                await transaction.insert(turn)

    await store.transact(work)


async def _every(store: PortalStore, kind: type[Any]) -> list[Any]:
    found: list[Any] = []
    while page := await store.every(kind, after=found[-1].key if found else ""):
        found += page
    return found


async def compare(show: Show) -> None:
    """Hold the provider's books against what the practice reads of its bills."""
    charged = show.outcome.charged = await show.till.charged()
    wrong = show.outcome.disagreements
    async with show._at(1, EHR_TOKEN) as ehr:  # noqa: SLF001 - this module's own
        taken_in = await _all(ehr, "PaymentReconciliation")
        notices = await _all(ehr, "PaymentNotice")
        bills = {one["id"]: one for one in await _all(ehr, "Invoice")}
    entered = Counter(
        {
            identifier["value"]: _cents(one["paymentAmount"])
            for one in taken_in
            for identifier in one["identifier"]
            if identifier["system"] == PAYMENT_SYSTEM
        }
    )
    if dict(entered) != charged:
        wrong.append(f"charged {len(charged)}, entered {len(entered)}: {charged} != {entered}")
    if len(taken_in) != len(charged) or len(notices) != len(charged):
        wrong.append(f"{len(charged)} orders, {len(taken_in)} and {len(notices)} resources")
    for name in show.bills:
        of_it = [one for one in notices if one["request"]["reference"] == f"Invoice/{name}"]
        paid = sum(_cents(one["amount"]) for one in of_it)
        status = bills[name]["status"]
        if (paid, status) != (TOTAL * 100, "balanced"):
            wrong.append(f"{name}: {paid} of {TOTAL * 100}, {status}")


def _cents(money: dict[str, Any]) -> int:
    return int(Decimal(str(money["value"])) * 100)


async def _all(ehr: httpx.AsyncClient, name: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    following: str | None = f"/fhir/{name}?_count=100"
    while following:
        answer = (await ehr.get(following)).raise_for_status().json()
        found += [one["resource"] for one in answer.get("entry", ())]
        links: Iterable[dict[str, str]] = answer["link"]
        following = next((one["url"] for one in links if one["relation"] == "next"), None)
        if following is not None:  # the other server names itself
            following = "/fhir" + following.partition("/fhir")[2]
    return found


@contextlib.asynccontextmanager
async def opened(folder: Path, place: Place) -> AsyncIterator[Show]:
    """Two servers over one prepared store, and a provider."""
    await prepare(folder, place)
    store = await place.open()
    now = time.time()
    token = AccessToken(
        key=token_hash(PAYER_TOKEN),
        client_id="app",
        context="patient",
        scope="patient/Invoice.rs patient/PaymentNotice.crs",
        family="family",
        patient="Patient/ida",
        fhir_user="Patient/ida",
        account="ida",
        practice=PRACTICE,
        issued=now,
        expires=now + 86_400,
    )
    await store.transact(lambda transaction: transaction.put(token))
    await store.aclose()
    till = Till(folder)
    settings = {"payments_url": till.base, "payments_secret": SECRET}
    servers = (
        Running(folder, place, settings=settings),
        Running(folder, place, settings=settings),
    )
    try:
        await till.start(servers[1].base)
        for one in servers:
            await one.start()
        yield Show(place, servers, till)
    finally:
        for server in servers:
            server.stop()
        till.stop()


async def run(folder: Path, place: Place, *, parallel: int, rounds: int) -> Outcome:
    """Do all of it, then look at what is there."""
    started = time.monotonic()
    async with opened(folder, place) as show:
        for turn in range(rounds):
            await many_at_once(show, await show.bill(f"parts-{turn}"), parallel)
            await one_at_once(show, await show.bill(f"once-{turn}"), parallel)
            await dead_before_telling(show, await show.bill(f"untold-{turn}"))
            show.outcome.charged = await show.till.charged()
            await charged_and_dead(show, await show.bill(f"slow-{turn}"), "slow")
            await charged_and_dead(show, await show.bill(f"die-{turn}"), "die")
            await charged_and_dead(show, await show.bill(f"killed-{turn}"), "slow", then=0)
            await charged_and_dead(show, await show.bill(f"both-{turn}"), "die", then=0)
        await settled(show)
        await compare(show)
        show.outcome.seconds = time.monotonic() - started
        return show.outcome


def main() -> int:
    """Run it and print the figures."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--parallel", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=3)
    ask_for_place(parser)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        place = asked_place(asked.place, Path(folder))
        try:
            outcome = asyncio.run(
                run(Path(folder), place, parallel=asked.parallel, rounds=asked.rounds)
            )
        finally:
            asyncio.run(place.drop())
    print(f"{asked.parallel} parts at once, {asked.rounds} rounds: {dict(outcome.begun)}")
    print(f"{asked.parallel} times one payment at once: {dict(outcome.same)}")
    print(f"answers lost after charging: {outcome.lost}; servers killed: {outcome.kills}")
    total = sum(outcome.charged.values())
    print(f"charged: {len(outcome.charged)} orders, {total / 100:.2f} USD")
    print(f"disagreements: {outcome.disagreements or 'none'}; {outcome.seconds:.0f} s")
    return 1 if outcome.disagreements else 0


if __name__ == "__main__":
    sys.exit(main())
