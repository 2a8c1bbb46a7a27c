"""Pairs of a request and a hidden change: the answer must not differ by a single byte.

The world is built once. For each hidden change there are two copies of it, one with the change;
the reader asks both the same. Each pair has its completeness twin: the answer holds exactly what a
naive reading of the world expects, and so does the answer to the practice's EHR, or to another
reader who may see what changed.
"""

from __future__ import annotations

import asyncio
import functools
import json
import random
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

from fhir_portal.resources.store import PortalStore
from fhir_portal.web.fhir import FhirApi
from tests import builders as b
from tests.builders import BASE, DERM, FAMILY, START, Caller, Clock, Ids
from tests.leaks import world
from tests.leaks.changes import Change, hidden_change
from tests.leaks.oracle import OWN_LABELS, SHARED, State, View, adds_a_line
from tests.leaks.requests import (
    KINDS,
    MAX_PAGES,
    READ_ONLY,
    Ask,
    Asking,
    Foreign,
    Raw,
    Situation,
    read,
    search,
)
from tests.leaks.world import READERS, Reader, Write
from tests.places import File, Place, fill

ASKED = START + 3600.0
"""When everybody asks: the clock stands still."""
PER_CHANGE = 10
TURNS = (*READERS, *(one for one in READERS if one.is_narrow))
"""Who asks, in turn: whoever sees part of a record twice as often, for most faults show there."""


@dataclass(frozen=True)
class Finding:
    """Something wrong: a difference in the answer, or an answer that is not complete."""

    sort: str
    reader: str
    ask: str
    change: str
    detail: str

    def __str__(self) -> str:
        return f"[{self.sort}] {self.reader} {self.ask}\n    after {self.change}\n    {self.detail}"


@dataclass
class Figures:
    pairs: int = 0
    twins: int = 0
    answers: int = 0
    kinds: Counter[str] = field(default_factory=Counter)
    changes: Counter[str] = field(default_factory=Counter)
    readers: Counter[str] = field(default_factory=Counter)
    findings: list[Finding] = field(default_factory=list)

    @property
    def differences(self) -> list[Finding]:
        return [one for one in self.findings if one.sort == "leak"]

    @property
    def incomplete(self) -> list[Finding]:
        return [one for one in self.findings if one.sort != "leak"]


class EhrView(View):
    """What a practice's EHR may see: its practice, and what all practices share."""

    def __init__(self, state: State, practice: str) -> None:
        super().__init__(
            state, Reader(f"ehr-{practice}", practice, "", f"Patient/{''}", "system/*.cruds")
        )

    def allows(self, letter: str, name: str) -> bool:
        return bool(letter and name)

    def sees(self, key: str, letter: str) -> bool:
        return bool(letter) and self.versions_of(key) is not None

    def versions(self, key: str, letter: str = "r") -> list[int]:
        assert self.allows(letter, key)
        return [version.number for version in reversed(self.versions_of(key) or ())]


class Copy:
    """One copy of the world, opened; it answers over the FHIR API."""

    @classmethod
    async def of(cls, base: Place, place: Place) -> Self:
        """Copy the world from where it was built, over what is at a place."""
        await fill(place, base)
        clock = Clock(ASKED - 60)
        return cls(await place.open(clock), clock)

    def __init__(self, store: PortalStore, clock: Clock) -> None:
        self.store = store
        self.clock = clock
        self.portal = b.a_portal(self.store, self.clock, ids=Ids("asked"))
        self._changer = b.a_portal(self.store, self.clock, ids=Ids("changed"))
        self._api = FhirApi(
            self.portal,
            capabilities=lambda: b"",
            smart_configuration=dict,
            max_body=2**24,
            max_transaction=2**24,
        )

    async def change(self, change: Change) -> None:
        for write in change.writes:
            await world.apply(Caller(self._changer, b.an_ehr(write.practice)), write)

    async def ask(self, bearer: str, ask: Ask) -> list[Raw]:
        answers = [await self.fetch(bearer, ask.method, ask.path, ask.headers, ask.body, ask.form)]
        while ask.walk and answers[-1].status == 200 and len(answers) < MAX_PAGES:
            following = answers[-1].next
            if following is None:
                break
            answers.append(await self.fetch(bearer, "GET", following))
        return answers

    async def fetch(
        self,
        bearer: str,
        method: str,
        url: str,
        headers: Sequence[tuple[str, str]] = (),
        body: Any = None,
        form: str | None = None,
    ) -> Raw:
        """Send one HTTP request to the ASGI app and collect the whole answer."""
        parts = urlsplit(url)
        given = {"accept": "application/fhir+json", "authorization": f"Bearer {bearer}"}
        content = b"" if body is None else json.dumps(body).encode()
        media = "application/fhir+json"
        if form is not None:
            content, media = form.encode(), "application/x-www-form-urlencoded"
        if content:
            given |= {"content-type": media, "content-length": str(len(content))}
        scope = {
            "type": "http",
            "method": method,
            "path": f"/fhir{parts.path}",
            "query_string": parts.query.encode(),
            "headers": [(k.encode(), v.encode()) for k, v in (given | dict(headers)).items()],
        }
        sent: list[dict[str, Any]] = []

        waiting: list[dict[str, Any]] = [{"type": "http.request", "body": content}]

        async def receive() -> dict[str, Any]:
            if not waiting:
                await asyncio.Event().wait()  # nobody hangs up
            return waiting.pop()

        async def send(message: Any) -> None:
            sent.append(message)

        await self._api(scope, receive, send)
        found = b"".join(message.get("body", b"") for message in sent[1:])
        return Raw(sent[0]["status"], tuple(sent[0]["headers"]), found)

    async def aclose(self) -> None:
        await self.store.aclose()


class Run:
    """A run over many pairs; everything follows from the seed. ``base`` is where the world is."""

    def __init__(
        self,
        base: Place,
        seed: int,
        *,
        stop_at_first: bool = False,
        told: Callable[[int], None] | None = None,
    ) -> None:
        self._base = base
        self._plain, self._altered = base.another(), base.another()
        self.rng = random.Random(seed)
        self.figures = Figures()
        self._stop_at_first = stop_at_first
        self._told = told
        self._state, self._lines = _replayed()
        self._foreign = Foreign()

    async def go(self, pairs: int) -> Figures:
        """Run, and leave nothing but the world as it was built."""
        try:
            await self._gather()
            number = 0
            while self.figures.pairs < pairs and not (
                self._stop_at_first and self.figures.findings
            ):
                number += 1
                reader = TURNS[number % len(TURNS)]
                await self._around_one_change(reader, min(PER_CHANGE, pairs - self.figures.pairs))
                if self._told is not None:
                    self._told(self.figures.pairs)
        finally:
            for place in (self._plain, self._altered):
                await place.drop()
        return self.figures

    def _told_of(self, practice: str, key: str) -> bool | None:
        """Whether the person sees all versions of a resource, or none (``None``: some)."""
        told = {
            len(v.facts.owners) == 1 and v.facts.labels <= OWN_LABELS
            for v in self._state.practices[practice][key]
        }
        return told.pop() if len(told) == 1 else None

    async def _gather(self) -> None:
        """Collect paging links and ids of log lines that belong to others."""
        copy = await Copy.of(self._base, self._plain)
        try:
            for practice in (DERM, FAMILY):
                ehr = b.bearer_of(f"ehr-of-{practice}")
                for name in ("Observation", "Patient", "DocumentReference", "Practitioner"):
                    for sort in ("", "&_sort=-_lastUpdated"):
                        page = await copy.fetch(ehr, "GET", f"/{name}?_count=2{sort}")
                        self._foreign.links.append((name, page.next or f"/{name}"))
                for record in world.PATIENTS[practice]:
                    page = await copy.fetch(
                        ehr, "GET", f"/AuditEvent?patient=Patient/{record}&_count=60"
                    )
                    for entry in page.entries:
                        line = entry["resource"]
                        if line["subtype"][0]["code"] != "update":
                            continue  # of this copy only: what was asked here
                        about = [one["what"]["reference"] for one in line["entity"]]
                        told = {self._told_of(practice, key) for key in about}
                        if len(told) == 1:
                            self._foreign.lines.append((practice, record, line["id"], *told))
        finally:
            await copy.aclose()

    async def _around_one_change(self, reader: Reader, pairs: int) -> None:
        change, after = hidden_change(self.rng, self._state, reader)
        async with AsyncExitStack() as stack:
            plain = await Copy.of(self._base, self._plain)
            stack.push_async_callback(plain.aclose)
            altered = await Copy.of(self._base, self._altered)
            stack.push_async_callback(altered.aclose)
            await altered.change(change)
            plain.clock.now = altered.clock.now = ASKED
            asked = await self._pairs(plain, altered, reader, change, after, pairs)
            await self._twins(altered, reader, change, after, asked)

    async def _pairs(
        self,
        plain: Copy,
        altered: Copy,
        reader: Reader,
        change: Change,
        after: State,
        pairs: int,
    ) -> list[Ask]:
        view = View(after, reader)
        trees: dict[str, list[Any]] = {}
        for state in (self._state, after):
            for rows in state.practices.values():
                for key, versions in rows.items():
                    known = [v.tree for v in versions if v.tree is not None]
                    trees.setdefault(key.partition("/")[0], []).append(known[-1])
        changed = [(write.practice, write.tree or self._last(write)) for write in change.writes]
        asking = Asking(self.rng, view, trees, changed, self._foreign)
        lines = self._lines[reader.practice, reader.patient] if reader.is_self else 0
        asked: list[Ask] = []
        for _ in range(pairs):
            ask = asking.some_ask()
            without = await plain.ask(reader.bearer, ask)
            having = await altered.ask(reader.bearer, ask)
            self.figures.pairs += 1
            self.figures.answers += len(without)
            self.figures.kinds[ask.kind] += 1
            self.figures.changes[change.kind] += 1
            self.figures.readers[reader.name] += 1
            if without != having:
                self._found("leak", reader.name, ask, change, _difference(without, having))
            self._judge(reader.name, ask, change, Situation(view, lines), having)
            lines += ask.rows * len(having)
            asked.append(ask)
            if ask.kind in {"create", "update"}:
                self._learn(reader, ask, having[0], after)
                view = asking.view = View(after, reader)
            if self._stop_at_first and self.figures.findings:
                break
        return asked

    def _last(self, write: Write) -> Any:
        versions = self._state.practices[write.practice][write.key]
        return next(v.tree for v in reversed(versions) if v.tree is not None)

    def _learn(self, reader: Reader, ask: Ask, answer: Raw, after: State) -> None:
        """Take over what the reader wrote."""
        stored = answer.status == 201 or (ask.method == "PUT" and answer.status == 200)
        if stored:
            tree = {**answer.json}
            after.apply(Write.of(reader.practice, tree))

    async def _twins(
        self, copy: Copy, reader: Reader, change: Change, after: State, asked: Sequence[Ask]
    ) -> None:
        """The same requests by the EHR, and what changed by all who may see it."""
        write = change.writes[-1]
        name = write.key.partition("/")[0]
        practice = write.practice if write.practice != SHARED else reader.practice
        about = [read(write.key), search("search", name, [], [("_count", "200")])]
        for ask in [*(one for one in asked if one.kind in READ_ONLY), *about]:
            view = EhrView(after, practice)
            having = await copy.ask(b.bearer_of(f"ehr-of-{practice}"), ask)
            self.figures.twins += 1
            self._judge(view.reader.name, ask, change, Situation(view, None), having)
        for other in READERS:
            if other.practice != practice or other is reader or _rests_on(other, change):
                continue
            for ask in about:
                having = await copy.ask(other.bearer, ask)
                self.figures.twins += 1
                self._judge(other.name, ask, change, Situation(View(after, other), None), having)

    def _judge(
        self, who: str, ask: Ask, change: Change, now: Situation, answers: list[Raw]
    ) -> None:
        try:
            wrong = ask.judge(now, answers)
        except (KeyError, ValueError) as error:
            wrong = f"{error!r}: {answers[0].status} {answers[0].body[:300]!r}"
        if wrong:
            self._found("incomplete", who, ask, change, wrong)

    def _found(self, sort: str, who: str, ask: Ask, change: Change, detail: str) -> None:
        self.figures.findings.append(Finding(sort, who, str(ask), str(change), detail))


@functools.cache
def _replayed() -> tuple[State, Counter[tuple[str, str]]]:
    """The state of the world, and how many lines its writes added to the logs people can read."""
    state, lines = State(), Counter[tuple[str, str]]()
    for write in world.writes():
        state.apply(write)
        line = adds_a_line(state, write)
        if line is not None:
            lines[line] += 1
    return state, lines


def _rests_on(reader: Reader, change: Change) -> bool:
    """Whether the change is to what gives this reader their rights."""
    rests = {reader.user, f"Patient/{reader.patient}", f"Consent/{reader.grant}"}
    return any(write.key in rests for write in change.writes)


def _difference(without: list[Raw], having: list[Raw]) -> str:
    if len(without) != len(having):
        return f"{len(without)} pages became {len(having)}"
    for before, after in zip(without, having, strict=True):
        if before != after:
            return (
                f"{before.status} {before.headers} {before.body[:1500]!r}\n    became\n    "
                f"{after.status} {after.headers} {after.body[:1500]!r}"
            )
    return ""


def run(
    pairs: int,
    seed: int,
    *,
    stop_at_first: bool = False,
    told: Callable[[int], None] | None = None,
    place: Place | None = None,
    built: bool = False,
) -> Figures:
    """Run pairs and return the figures.

    The world is built at ``place``, by default in files of its own, unless it is ``built``.
    """

    async def go(base: Place) -> Figures:
        if not built:
            await world.build(base)
        return await Run(base, seed, stop_at_first=stop_at_first, told=told).go(pairs)

    with tempfile.TemporaryDirectory() as folder:
        return asyncio.run(go(place or File(Path(folder) / "base" / "portal.db")))


__all__ = ["BASE", "KINDS", "Figures", "Finding", "run"]
