"""One code, one refresh token, many askers at once, two server processes.

``python -m tests.end_to_end.races --parallel 50 --rounds 10`` prints the figures. Half of the
requests go to each process; each is sent up to its last byte before any is completed.
``--place motor`` runs them on MongoDB (`tests.places`).
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import hashlib
import secrets
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlencode

import msgspec

from fhir_portal.resources.store import PortalStore
from fhir_portal.smart.token import RefreshToken, TokenFamily
from tests.end_to_end.demo import CALLBACK, PUBLIC, Demo
from tests.end_to_end.person import Person, parameters_of
from tests.end_to_end.processes import Connection, Reply, at_once, connections, request
from tests.places import Place, ask_for_place, asked_place

SCOPE = "launch/patient offline_access patient/Patient.rs patient/Observation.rs"


@dataclass(frozen=True)
class Tokens:
    """What a token response gave."""

    access: str
    refresh: str

    @classmethod
    def of(cls, reply: Reply) -> Tokens:
        assert reply.status == 200, reply.body
        answered = reply.json()
        return cls(answered["access_token"], answered["refresh_token"])


@dataclass
class Outcome:
    """How many asked which process, what was answered, and what holds afterwards at each."""

    asked: Counter[int]
    answers: Counter[str]
    bodies: int
    seconds: float
    read: set[int] = field(default_factory=set)
    refreshed: set[str] = field(default_factory=set)
    ended: str | None = None


@dataclass
class Racers:
    """The same public app on many connections, and a person who says yes to it."""

    demo: Demo
    person: Person
    by_process: dict[int, list[Connection]]

    @property
    def all(self) -> list[Connection]:
        """Every connection, the processes taking turns."""
        return [one for turn in zip(*self.by_process.values(), strict=True) for one in turn]

    @property
    def one_each(self) -> list[Connection]:
        """One connection to each process."""
        return [held[0] for held in self.by_process.values()]

    async def code(self) -> tuple[str, str]:
        """A fresh authorization code and its verifier."""
        verifier = secrets.token_urlsafe(48)
        digest = hashlib.sha256(verifier.encode()).digest()
        query = {
            "response_type": "code",
            "client_id": PUBLIC,
            "redirect_uri": CALLBACK,
            "scope": SCOPE,
            "state": "state",
            "aud": self.demo.fhir,
            "code_challenge": base64.urlsafe_b64encode(digest).rstrip(b"=").decode(),
            "code_challenge_method": "S256",
        }
        address = f"{self.demo.server.base}/oauth/authorize?{urlencode(query)}"
        callback = await asyncio.to_thread(
            self.person.visit, address, back_to=CALLBACK, record="Patient/mara"
        )
        return parameters_of(callback)["code"], verifier

    async def tokens(self) -> Tokens:
        """Fresh tokens."""
        return Tokens.of(await self.all[0].ask(exchange(*await self.code())))

    async def race(self, sent: bytes) -> tuple[Outcome, list[Reply]]:
        """Everybody sends the same request at once."""
        started = time.monotonic()
        replies = await at_once(self.all, sent)
        outcome = Outcome(
            asked=Counter(one.process for one in replies),
            answers=Counter(word(one) for one in replies),
            bodies=len({one.body for one in replies if one.status == 200}),
            seconds=time.monotonic() - started,
        )
        return outcome, replies

    async def look(self, outcome: Outcome, tokens: Sequence[Tokens]) -> None:
        """Note what each token is good for now, at each process."""
        for one in self.one_each:
            for held in tokens:
                outcome.read.add((await reads(one, held.access)).status)
            for held in tokens:
                outcome.refreshed.add(word(await one.ask(refresh(held.refresh))))
        outcome.ended = await ended(self.demo, tokens[0].refresh)


async def race_code(racers: Racers) -> Outcome:
    """Exchange one code many times at once."""
    outcome, replies = await racers.race(exchange(*await racers.code()))
    won = [Tokens.of(one) for one in replies if one.status == 200]
    await racers.look(outcome, won)
    return outcome


async def race_refresh(racers: Racers) -> tuple[Outcome, Tokens, Tokens]:
    """Refresh by one token many times at once; return it and its successor, which is unused."""
    first = await racers.tokens()
    outcome, replies = await racers.race(refresh(first.refresh))
    successor = Tokens.of(next(one for one in replies if one.status == 200))
    return outcome, first, successor


async def race_refresh_and_reuse(racers: Racers) -> Outcome:
    """The same; then the successor is used, and after that the first one again, as by a thief."""
    outcome, first, successor = await race_refresh(racers)
    here, there = racers.one_each
    newest = Tokens.of(await here.ask(refresh(successor.refresh)))
    assert (await reads(there, newest.access)).status == 200
    assert word(await there.ask(refresh(first.refresh))) == "invalid_grant"
    await racers.look(outcome, [newest, successor, first])
    return outcome


def exchange(code: str, verifier: str) -> bytes:
    """The request that buys tokens for a code."""
    form = {
        "grant_type": "authorization_code",
        "client_id": PUBLIC,
        "code": code,
        "redirect_uri": CALLBACK,
        "code_verifier": verifier,
    }
    return request("POST", "/oauth/token", form=form)


def refresh(token: str, client_id: str = PUBLIC) -> bytes:
    """The request that buys tokens for a refresh token."""
    form = {"grant_type": "refresh_token", "client_id": client_id, "refresh_token": token}
    return request("POST", "/oauth/token", form=form)


async def reads(connection: Connection, access_token: str) -> Reply:
    """Read the patient with a token."""
    return await connection.ask(request("GET", "/fhir/Patient/mara", token=access_token))


def word(reply: Reply) -> str:
    """``granted``, or the error that was answered."""
    return "granted" if reply.status == 200 else str(reply.json()["error"])


async def ended(demo: Demo, refresh_token: str) -> str | None:
    """Why the family of a refresh token ended; ``None`` while it lives."""
    return (await _family(demo, refresh_token)).ended_because or None


async def grow_older(demo: Demo, refresh_token: str, seconds: float) -> None:
    """Let the family's last refresh lie further back, as if so much time had passed."""
    family = await _family(demo, refresh_token)
    older = msgspec.structs.replace(family, rotated=family.rotated - seconds)
    async with _store(demo) as store:
        assert await store.transact(lambda transaction: transaction.replace(family, older))


async def _family(demo: Demo, refresh_token: str) -> TokenFamily:
    presented = RefreshToken.parse(refresh_token)
    assert presented is not None
    async with _store(demo) as store:
        family = await store.get(TokenFamily, presented.family)
    assert family is not None
    return family


@contextlib.asynccontextmanager
async def _store(demo: Demo) -> AsyncIterator[PortalStore]:
    store = await demo.place.open()
    try:
        yield store
    finally:
        await store.aclose()


async def run(folder: Path, place: Place, *, parallel: int, rounds: int) -> None:
    """Race again and again, and print what came out."""
    demo = Demo(folder, place)
    try:
        await demo.start()
        with Person("mara") as person:
            async with connections(demo.server, parallel // demo.workers) as held:
                racers = Racers(demo, person, held)
                print(f"{parallel} at once, {len(held)} processes, {rounds} rounds of each")
                for _ in range(rounds):
                    tell("code", await race_code(racers))
                for _ in range(rounds):
                    tell("refresh token", await race_refresh_and_reuse(racers))
    finally:
        demo.stop()
        await place.drop()


def tell(what: str, outcome: Outcome) -> None:
    """Print one race."""
    answers = ", ".join(f"{count} {answer}" for answer, count in sorted(outcome.answers.items()))
    asked = " + ".join(str(count) for count in outcome.asked.values())
    print(
        f"one {what}, {asked} requests in {outcome.seconds * 1000:.0f} ms: {answers}; "
        f"{outcome.bodies} distinct success; afterwards a read gives "
        f"{sorted(outcome.read)}, a refresh {sorted(outcome.refreshed)}; family: {outcome.ended}"
    )


def main() -> None:
    """Run with the figures given."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--parallel", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=10)
    ask_for_place(parser)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        place = asked_place(given.place, folder)
        asyncio.run(run(folder, place, parallel=given.parallel, rounds=given.rounds))


if __name__ == "__main__":
    main()
