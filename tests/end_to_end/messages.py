"""kill -9 of the server while people write: no message is lost, and none is there twice.

``python -m tests.end_to_end.messages --messages 1000 --kills 10`` prints the figures; ``--place
motor`` runs it on MongoDB (`tests.places`). Each of a number of patients has one conversation and
writes in it, several messages at once. Whoever gets no answer sends the same again under the same
identifier until one comes, as an app would; some do so although one came.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import httpx
import msgspec

from fhir_portal.accounts.account import Account
from fhir_portal.accounts.messaging import Messaging
from fhir_portal.app import Application
from fhir_portal.fhir.interaction import FhirRequest
from fhir_portal.notify.jobs import Job
from fhir_portal.resources.communication import AN_HOUR, SENT
from fhir_portal.settings import load
from fhir_portal.smart.token import AccessToken, token_hash
from tests.end_to_end.running import (
    EHR_TOKEN,
    PRACTICE,
    Running,
    bearer,
    prepare,
    settings_of,
)
from tests.places import Place, ask_for_place, asked_place

_AT_ONCE: Final = 16
_PATIENCE: Final = 120.0
_AGAIN: Final = 0.1
"""Of the messages that were answered, so many are sent once more."""


@dataclass
class Outcome:
    """What was answered, by identifier: the message; and what is there in the end."""

    answered: dict[str, str] = field(default_factory=dict)
    asked: int = 0
    kills: int = 0
    otherwise: list[str] = field(default_factory=list)
    """Identifiers whose repetition was answered with another message."""
    there: Counter[str] = field(default_factory=Counter)
    lost: list[str] = field(default_factory=list)
    out_of_order: int = 0
    without_provenance: int = 0
    jobs: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0

    @property
    def doubled(self) -> list[str]:
        """What is there more than once."""
        return [name for name, times in self.there.items() if times > 1]

    @property
    def told_otherwise(self) -> int:
        """Messages that leave no job to tell of them, or several."""
        return len(set(self.answered.values()) ^ set(self.jobs)) + sum(
            times - 1 for times in self.jobs.values()
        )

    @property
    def right(self) -> bool:
        """Whether all is as it has to be."""
        wrong = (self.otherwise, self.lost, self.doubled, self.out_of_order)
        return not any((*wrong, self.without_provenance, self.told_otherwise))


def token_of(patient: str) -> str:
    return f"{patient}-{'t' * 40}"


def _parameters(**given: tuple[str, Any]) -> bytes:
    listed = [
        {"name": name.replace("_", "-"), kind: value} for name, (kind, value) in given.items()
    ]
    return msgspec.json.encode({"resourceType": "Parameters", "parameter": listed})


async def people(folder: Path, place: Place, count: int) -> list[str]:
    """Add so many patients, each with an account and a token that writes messages."""
    app = Application(load(**settings_of(folder, place)), background=False)
    await app.open()
    names = [f"p{number}" for number in range(count)]
    now = time.time()

    async def keep(transaction: Any) -> None:
        for name in names:
            person = f"{PRACTICE}/Person/{name}"
            await transaction.put(Account(key=name, username=name, created=now, persons=(person,)))
            await transaction.put(
                AccessToken(
                    key=token_hash(token_of(name)),
                    client_id="app",
                    context="patient",
                    scope="openid fhirUser patient/Communication.crs",
                    family=name,
                    patient=f"Patient/{name}",
                    fhir_user=f"Patient/{name}",
                    account=name,
                    expires=now + 86_400,
                    issued=now,
                    practice=PRACTICE,
                )
            )

    await app.store.transact(keep)
    ehr = await app.portal.callers.of(EHR_TOKEN)
    for name in names:
        link = {"target": {"reference": f"Patient/{name}"}, "assurance": "level3"}
        for tree in (
            {"resourceType": "Patient", "id": name},
            {"resourceType": "Person", "id": name, "link": [link]},
        ):
            body = msgspec.json.encode(tree)
            request = FhirRequest("update", str(tree["resourceType"]), name, body=body)
            await app.portal.perform(request, ehr)
    await app.close()
    return names


async def run(folder: Path, place: Place, *, messages: int, kills: int, seed: int = 1) -> Outcome:
    """Write through sudden deaths, then look at what is there."""
    started, chance = time.monotonic(), random.Random(seed)
    await prepare(folder, place)
    names = await people(folder, place, messages // (AN_HOUR - 1) + 1)
    server = Running(folder, place, settings={"worker": False})
    outcome = Outcome()
    await server.start()
    up = asyncio.Event()
    up.set()
    threads: dict[str, str] = {}
    todo = [(names[number % len(names)], f"urn:m{number}") for number in range(messages)]
    at = sorted(chance.sample(range(messages // 20, messages), kills))

    async def send(client: httpx.AsyncClient, who: str, name: str) -> None:
        identifier = ("valueIdentifier", {"system": "urn:app", "value": name})
        deadline = time.monotonic() + _PATIENCE
        begins = who not in threads
        while True:
            await up.wait()
            assert time.monotonic() < deadline, "the server does not answer"
            outcome.asked += 1
            try:
                if not begins:
                    body = _parameters(identifier=identifier, text=("valueString", name))
                    path = f"/fhir/{threads[who]}/$reply"
                else:
                    body = _parameters(
                        identifier=identifier,
                        text=("valueString", name),
                        subject=("valueString", "A rash"),
                        topic=("valueCode", "medical"),
                        warning=("valueCode", Messaging(key=PRACTICE).warning_code),
                    )
                    path = "/fhir/Communication/$send"
                headers = bearer(token_of(who)) | {"Content-Type": "application/fhir+json"}
                answer = await client.post(path, content=body, headers=headers)
            except httpx.TransportError:
                await asyncio.sleep(0.01)
                continue
            if answer.status_code == 503:
                await asyncio.sleep(0.05)
                continue
            assert answer.status_code == 200, answer.text
            told = {
                one["name"]: one["valueReference"]["reference"]
                for one in answer.json()["parameter"]
                if "valueReference" in one
            }
            threads.setdefault(who, told["thread"])
            if outcome.answered.setdefault(name, told["message"]) != told["message"]:
                outcome.otherwise.append(name)
            if chance.random() >= _AGAIN:
                return

    async def worker() -> None:
        async with httpx.AsyncClient(base_url=server.base, timeout=30) as client:
            while todo:
                await send(client, *todo.pop())

    async def killer() -> None:
        for moment in at:
            while len(outcome.answered) < moment and todo:
                await asyncio.sleep(0.002)
            up.clear()
            server.kill()
            outcome.kills += 1
            await server.start()
            up.set()

    try:
        async with httpx.AsyncClient(base_url=server.base, timeout=30) as client:
            for who in names:  # each begins a conversation before many write in it at once
                own = next(one for one in todo if one[0] == who)
                todo.remove(own)
                await send(client, *own)
        await asyncio.gather(killer(), *(worker() for _ in range(_AT_ONCE)))
        server.kill()
        outcome.kills += 1
        await server.start()
    finally:
        server.stop()
    await _look(folder, place, outcome)
    outcome.seconds = time.monotonic() - started
    return outcome


async def _look(folder: Path, place: Place, outcome: Outcome) -> None:
    """Read everything through the front door, as the EHR."""
    app = Application(load(**settings_of(folder, place)), background=False)
    await app.open()
    try:
        ehr = await app.portal.callers.of(EHR_TOKEN)

        async def everything(name: str) -> list[dict[str, Any]]:
            found: list[dict[str, Any]] = []
            query: tuple[tuple[str, str], ...] = (("_count", "200"),)
            while True:
                request = FhirRequest("search-type", name, query=query)
                page = msgspec.json.decode((await app.portal.perform(request, ehr)).body)
                found += [one["resource"] for one in page.get("entry", ())]
                links = {one["relation"]: one["url"] for one in page.get("link", ())}
                if "next" not in links:
                    return found
                query = tuple(httpx.URL(links["next"]).params.multi_items())

        messages = [one for one in await everything("Communication") if "partOf" in one]
        outcome.there = Counter(one["identifier"][0]["value"] for one in messages)
        stored = {f"Communication/{one['id']}": one for one in messages}
        outcome.lost = [
            name
            for name, message in outcome.answered.items()
            if message not in stored
            or stored[message]["payload"] != [{"contentString": name}]
            or outcome.there[name] < 1
        ]
        moments = Counter((one["partOf"][0]["reference"], one["sent"]) for one in messages)
        outcome.out_of_order = sum(times - 1 for times in moments.values())
        about = Counter(one["target"][0]["reference"] for one in await everything("Provenance"))
        outcome.without_provenance = sum(about[message] != 1 for message in stored)
        for job in await app.store.every(Job, limit=1_000_000):
            if job.name == SENT:
                outcome.jobs[f"Communication/{job.arguments['message']}"] += 1
    finally:
        await app.close()


def main() -> None:
    """Run with the figures given and print what came out."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--messages", type=int, default=1000)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=1)
    ask_for_place(parser)
    given = parser.parse_args()

    async def once(folder: Path, place: Place) -> Outcome:
        try:
            return await run(
                folder, place, messages=given.messages, kills=given.kills, seed=given.seed
            )
        finally:
            await place.drop()

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        outcome = asyncio.run(once(folder, asked_place(given.place, folder)))
    print(
        f"{len(outcome.answered)} messages, {outcome.asked} times sent, {outcome.kills} kills, "
        f"{outcome.seconds:.0f} s: {len(outcome.lost)} lost, {len(outcome.doubled)} doubled, "
        f"{len(outcome.otherwise)} answered otherwise the second time, {outcome.out_of_order} at "
        f"the same moment, {outcome.without_provenance} without one Provenance, "
        f"{outcome.told_otherwise} without one job"
    )
    raise SystemExit(0 if outcome.right else 1)


if __name__ == "__main__":
    main()
