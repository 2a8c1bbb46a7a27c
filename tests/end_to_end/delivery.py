"""kill -9 of workers that send mail: none is lost, and a repeat is the same mail.

A real SMTP server takes the mail of a real worker process, which dies at a moment that is chosen:

    before-connect     it has taken the message, and is not connected yet
    before-data        the server knows the address, and has no mail
    after-data         the server has the mail, and has not said so
    before-recording   it was told that the server has the mail, and has not written that down
    after-recording    it has

``python -m tests.end_to_end.delivery --rounds 5 --messages 300 --kills 10`` does each of them so
many times, then kills two workers at once while they send many, and prints the figures. ``--place
motor`` runs it on MongoDB (`tests.places`). A lease lasts a minute: whoever comes after a death has
a clock that is ahead by so much, as if one had waited.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import hashlib
import random
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal, get_args

from fhir_portal.accounts.practice import Practice
from fhir_portal.app import Application
from fhir_portal.commands.worker import run_worker
from fhir_portal.notify import outbox
from fhir_portal.notify.outbox import LEASE_SECONDS, OutboxMessage
from fhir_portal.resources.store import PortalStore
from fhir_portal.settings import load
from tests.end_to_end.running import settings_of
from tests.notify.receiver import Receiver, Taken, receiving
from tests.places import Place, ask_for_place, asked_place, environment

Window = Literal[
    "before-connect", "before-data", "after-data", "before-recording", "after-recording"
]
WINDOWS: Final[tuple[Window, ...]] = get_args(Window)
REPEATS: Final[frozenset[Window]] = frozenset({"after-data", "before-recording"})
"""In these the server has the mail and nobody wrote it down: only there may it come twice."""
PRACTICE: Final = "elm"
_PATIENCE: Final = 120.0
_AHEAD: Final = f"{LEASE_SECONDS + 1:.0f}"
_LINK: Final = re.compile(r"https?://\S+/activate/\S+")


@dataclass
class Outcome:
    """What was sent and came in, by the name of each message; and what is wrong with that."""

    sent: list[str] = field(default_factory=list)
    taken: dict[str, list[Taken]] = field(default_factory=dict)
    may_repeat: Counter[str] = field(default_factory=Counter)
    kills: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0

    @property
    def lost(self) -> list[str]:
        """What never came in."""
        return [key for key in self.sent if not self.taken.get(key)]

    @property
    def repeated(self) -> dict[str, int]:
        """What came in more than once, and how many times too often."""
        return {key: len(all_) - 1 for key, all_ in self.taken.items() if len(all_) > 1}

    @property
    def wrongly_repeated(self) -> list[str]:
        """What came in more often than deaths in the window after DATA explain."""
        return [key for key, times in self.repeated.items() if times > self.may_repeat[key]]

    @property
    def changed(self) -> list[str]:
        """What came in again as another mail: another ``Message-ID``, another link."""
        return [
            key
            for key, all_ in self.taken.items()
            if len({(one.mail["Message-ID"], *_LINK.findall(one.text)) for one in all_}) > 1
            or not all(len(_LINK.findall(one.text)) == 1 for one in all_)
        ]

    @property
    def right(self) -> bool:
        """Whether all is as it has to be."""
        return not (self.lost or self.wrongly_repeated or self.changed)


@dataclass
class Show:
    """One store, and the clock's lead of whoever works next."""

    folder: Path
    place: Place
    store: PortalStore
    outcome: Outcome
    ahead: float = 0.0

    async def send(self, *keys: str) -> None:
        """Leave messages in the outbox, each with a link of its own."""

        async def work(transaction: Any) -> None:
            for key in keys:
                await outbox.enqueue(
                    transaction,
                    key=key,
                    practice=PRACTICE,
                    channel="mail",
                    to=f"mail:{key}@people.example",
                    template="invitation-link",
                    now=time.time() + self.ahead,
                    link_for=f"show/{key}",
                    link_attempt=1,
                )

        await self.store.transact(work)
        self.outcome.sent += keys

    async def state(self, key: str) -> str:
        """What the store says of a message."""
        found = await self.store.get(OutboxMessage, key)
        assert found is not None
        return found.state

    async def committed(self, key: str) -> str:
        """The same between two transactions: one under way may show what is not committed yet."""
        found = await self.store.transact(lambda transaction: transaction.get(OutboxMessage, key))
        assert found is not None
        return found.state

    async def until(self, key: str, state: str) -> None:
        """Wait for a message to be in a state for good, whoever dies then."""
        deadline = time.monotonic() + _PATIENCE
        while await self.state(key) != state or await self.committed(key) != state:
            assert time.monotonic() < deadline, f"{key} does not become {state}; {self.said}"
            await asyncio.sleep(0.02)

    @property
    def said(self) -> str:
        """What the workers logged."""
        log = self.folder / "worker.log"
        return log.read_text("utf-8") if log.exists() else ""

    @contextlib.contextmanager
    def worker(self, port: int) -> Iterator[subprocess.Popen[bytes]]:
        """A worker process that sends to a port, killed at the end."""
        settings = {
            **settings_of(self.folder, self.place),
            "smtp_host": "127.0.0.1",
            "smtp_port": port,
            "smtp_tls": "none",
            "smtp_from": "no-reply@portal.example.org",
        }
        with (self.folder / "worker.log").open("ab") as errors:
            process = subprocess.Popen(
                [sys.executable, "-m", "tests.end_to_end.delivery", "--ahead", str(self.ahead)],
                env=environment(settings),
                stderr=errors,
            )
        try:
            yield process
        finally:
            _kill(process)

    def died(self, key: str) -> None:
        """Whoever comes next finds the leases over."""
        self.outcome.kills[key] += 1
        self.ahead += float(_AHEAD)

    def note(self, receiver: Receiver) -> None:
        """Add what a receiver has taken."""
        for one in receiver.taken:
            key = one.recipients[0].partition("@")[0]
            self.outcome.taken.setdefault(key, []).append(one)

    async def finish(self, *keys: str) -> None:
        """Have a worker that lives send the rest; it is not killed, but asked to stop."""
        with receiving() as receiver, self.worker(receiver.port) as process:
            for key in keys:
                await self.until(key, "done")
            process.terminate()
            await asyncio.to_thread(process.wait, _PATIENCE)
        self.note(receiver)

    async def die_in(self, window: Window, key: str) -> None:
        """Send one message through a death in a window, and to its end."""
        await self.send(key)
        if window == "before-connect":
            with _unanswered() as port, self.worker(port):
                await self.until(key, "taken")
        else:
            await self._die_at_the_server(window, key)
        self.died(window)
        if window in REPEATS:
            self.outcome.may_repeat[key] += 1
        assert (await self.state(key) == "done") == (window == "after-recording")
        await self.finish(key)

    async def _die_at_the_server(self, window: Window, key: str) -> None:
        dead = asyncio.Event()
        loop = asyncio.get_running_loop()
        running: list[subprocess.Popen[bytes]] = []

        def die() -> None:
            _kill(running[0])
            loop.call_soon_threadsafe(dead.set)

        receiver = Receiver()
        if window == "before-data":
            receiver.at_recipient = die
        elif window == "after-data":
            receiver.at_data = die
        elif window == "before-recording":
            receiver.at_quit = die
        with receiving(receiver), self.worker(receiver.port) as process:
            running.append(process)
            if window == "after-recording":
                await self.until(key, "done")
            else:
                async with asyncio.timeout(_PATIENCE):
                    await dead.wait()
        self.note(receiver)

    async def die_at_random(self, keys: Sequence[str], kills: int, chance: random.Random) -> None:
        """Send many by two workers, and kill both again and again while they are at it."""
        await self.send(*keys)
        each = max(1, len(keys) // (kills + 1))
        for _ in range(kills):
            receiver, enough = Receiver(), chance.randrange(each // 2, each + 1)
            at_work = contextlib.ExitStack()
            with receiving(receiver), at_work:
                both = [at_work.enter_context(self.worker(receiver.port)) for _ in range(2)]
                deadline = time.monotonic() + _PATIENCE
                while len(receiver.taken) < enough:
                    assert time.monotonic() < deadline, self.said
                    await asyncio.sleep(0.001)
                for process in both:
                    process.send_signal(signal.SIGKILL)
            # The receiver has stopped: what it has now, it has.
            self.note(receiver)
            self.died("at random")
            for one in {taken.recipients[0].partition("@")[0] for taken in receiver.taken}:
                if await self.state(one) != "done":
                    self.outcome.may_repeat[one] += 1
        await self.finish(*keys)


async def run(
    folder: Path, place: Place, *, rounds: int, messages: int, kills: int, seed: int = 1
) -> Outcome:
    """Die in each window, so many rounds; then at random while many messages are sent."""
    started = time.monotonic()
    outcome = Outcome()
    store = await place.open()
    try:
        await store.transact(_open_practice)
        show = Show(folder, place, store, outcome)
        for number in range(rounds):
            for window in WINDOWS:
                await show.die_in(window, f"{window}.{number}")
        if messages:
            keys = [f"many.{number:05}" for number in range(messages)]
            await show.die_at_random(keys, kills, random.Random(seed))
    finally:
        await store.aclose()
    outcome.seconds = time.monotonic() - started
    return outcome


async def _open_practice(transaction: Any) -> None:
    await transaction.put(Practice(key=PRACTICE, name="Elm Street Dermatology"))


@contextlib.contextmanager
def _unanswered() -> Iterator[int]:
    """A port at which a connection is never made: its queue is full."""
    with socket.socket() as listening, contextlib.ExitStack() as waiting:
        listening.bind(("127.0.0.1", 0))
        listening.listen(0)
        port = int(listening.getsockname()[1])
        for _ in range(4):
            one = waiting.enter_context(socket.socket())
            one.settimeout(0)
            one.connect_ex(("127.0.0.1", port))
        yield port


def _kill(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.kill()
    process.wait()


def _work(ahead: float) -> None:
    """The worker: that of ``fhir-portal worker``, on a clock that is ahead, with links to send."""

    def prepare(application: Application) -> None:
        async def link(_reader: Any, rest: str, attempt: int) -> dict[str, str]:
            proof = hashlib.sha256(f"{rest} {attempt}".encode()).hexdigest()
            return {"link": f"{application.settings.base_url}/activate/{proof}"}

        application.makers["show/"] = link

    asyncio.run(run_worker(load(), clock=lambda: time.time() + ahead, prepare=prepare))


def main() -> None:
    """Run with the figures given and print what came out."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="deaths in each window")
    parser.add_argument("--messages", type=int, default=300)
    parser.add_argument("--kills", type=int, default=10, help="while those are sent")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--ahead", type=float, help="be a worker, on a clock that is ahead")
    ask_for_place(parser)
    given = parser.parse_args()
    if given.ahead is not None:
        _work(given.ahead)
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        outcome = asyncio.run(_once(folder, asked_place(given.place, folder), given))
    repeats = Counter(key.partition(".")[0] for key in outcome.repeated)
    print(
        f"{len(outcome.sent)} messages, {sum(map(len, outcome.taken.values()))} mails, "
        f"{sum(outcome.kills.values())} kills ({', '.join(sorted(outcome.kills))}), "
        f"{outcome.seconds:.0f} s: {len(outcome.lost)} lost, "
        f"{len(outcome.repeated)} repeated ({dict(repeats)}), "
        f"{len(outcome.wrongly_repeated)} of them outside of the window, "
        f"{len(outcome.changed)} with another Message-ID or link"
    )
    sys.exit(0 if outcome.right else 1)


async def _once(folder: Path, place: Place, given: argparse.Namespace) -> Outcome:
    try:
        return await run(
            folder,
            place,
            rounds=given.rounds,
            messages=given.messages,
            kills=given.kills,
            seed=given.seed,
        )
    finally:
        await place.drop()


if __name__ == "__main__":
    main()
