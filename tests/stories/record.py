"""What patients did, and what an EHR that follows the feed has seen of it."""

from __future__ import annotations

import asyncio
import json
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import httpx

from fhir_portal.fhir.datetime import period_of
from tests.builders import Json

if TYPE_CHECKING:
    from tests.stories.house import Fhir

_REFERENCE: Final = re.compile(r"[A-Z][A-Za-z]+/[A-Za-z0-9.-]{1,64}")
_SECOND: Final = 1_000_000

NO_RESOURCE: Final = frozenset(
    {
        *("$find", "$message-options", "$threads", "$thread", "$drafts", "$mark-read"),
        *("$save-draft", "$discard-draft", "$populate", "$summary", "$ccd", "$docref", "$render"),
        *("$calendar", "$amount-due", "$refill-status", "$attachment", "$pay", "$portal-dashboard"),
    }
)
"""What leaves nothing for an EHR: it reads, keeps a draft or a mark, or only begins something."""


@dataclass(frozen=True)
class Action:
    """One thing that somebody did: when, and which resources its answer names."""

    who: str
    what: str
    second: int
    keys: tuple[str, ...]

    @property
    def is_told(self) -> bool:
        """Whether the EHR has to learn of it."""
        return not NO_RESOURCE & set(self.what.replace("/", " ").split())


@dataclass
class Recorder:
    """Notes each thing that patients do. Each is done in a second of its own."""

    clock: Callable[[], float]
    actions: list[Action] = field(default_factory=list)

    def note(self, who: str, what: str, response: httpx.Response) -> None:
        body = response.json() if response.content else {}
        keys = tuple(dict.fromkeys(_named(body)))
        self.actions.append(Action(who, what, int(self.clock()), keys))

    def done(self, who: str, what: str, *keys: str) -> None:
        """Note what was done elsewhere than by the API: on a page, or at the payment provider."""
        self.actions.append(Action(who, what, int(self.clock()), keys))


def _named(tree: Any) -> Iterator[str]:
    """Yield the resources that an answer is, or names: ``Type/id``."""
    if "versionId" in (tree.get("meta") or {}):
        yield f"{tree['resourceType']}/{tree['id']}"
    for one in tree.get("parameter", ()):
        if "resource" in one:
            yield from _named(one["resource"])
        text = (one.get("valueReference") or {}).get("reference", "")
        if _REFERENCE.fullmatch(text):
            yield text


@dataclass
class Feed:
    """An EHR that follows ``_history`` (docs/reference/fhir-api.md, "Following the feed").

    ``since`` and what came at that very instant are kept in a file: whoever goes on from it after
    a restart misses nothing, and takes nothing twice.
    """

    ehr: Fhir
    kept: Path
    page: int = 7
    taken: list[Json] = field(default_factory=list)

    async def poll(self) -> list[Json]:
        """Take what is new: entries, the oldest first."""
        cursor = json.loads(self.kept.read_text("utf-8")) if self.kept.exists() else {}
        since, seen = cursor.get("since", ""), set(cursor.get("seen", ()))
        entries, path = [], f"_history?_count={self.page}"
        if since:
            path += f"&_since={since}"
        while path:
            found = await self.ehr.get(path)
            entries += found.get("entry", ())
            links = {one["relation"]: one["url"] for one in found["link"]}
            path = links.get("next", "").partition("/fhir/")[2]
        new = [one for one in reversed(entries) if version_of(one) not in seen]
        if new:
            since = new[-1]["response"]["lastModified"]
            latest = [one for one in entries if one["response"]["lastModified"] == since]
            seen = {version_of(one) for one in latest}
            self.kept.write_text(json.dumps({"since": since, "seen": sorted(seen)}), "utf-8")
        self.taken += new
        return new

    def at(self, second: int) -> set[str]:
        """What came to be in a second: ``Type/id``."""
        return {
            version_of(one).partition(" ")[0]
            for one in self.taken
            if _second(one["response"]["lastModified"]) == second
        }


@dataclass
class Followers:
    """EHRs that follow the same practice: at each look, two at once, after restarts, and late."""

    ehr: Fhir
    folder: Path
    steady: list[Feed] = field(init=False)
    restarted: list[Json] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.steady = [
            Feed(self.ehr, self.folder / f"{number}.json", page)
            for number, page in enumerate((7, 50))
        ]

    def ehr_again(self, ehr: Fhir) -> None:
        """Go on with a new token: what was kept stays."""
        self.ehr = ehr
        for one in self.steady:
            one.ehr = ehr

    async def look(self) -> Feed:
        """Have them all take what is new; return one of them."""
        again = Feed(self.ehr, self.folder / "restarted.json", page=3)
        await asyncio.gather(*(one.poll() for one in (*self.steady, again)))
        self.restarted += again.taken
        return self.steady[0]

    async def compare(self, actions: list[Action]) -> None:
        """Hold what each of them has taken against what was done."""
        await self.look()
        late = Feed(self.ehr, self.folder / "late.json", page=1000)
        await late.poll()
        after = Feed(self.ehr, self.folder / "restarted.json", taken=self.restarted)
        for feed in (*self.steady, after, late):
            await compare(feed, actions)
        taken = [sorted(map(version_of, one.taken)) for one in (*self.steady, after, late)]
        assert all(one == taken[0] for one in taken)


def version_of(entry: Json) -> str:
    """``Type/id W/"version"`` of an entry of the feed."""
    key = entry["fullUrl"].partition("/fhir/")[2]
    return f"{key} {entry['response']['etag']}"


def _second(instant: str) -> int:
    return period_of(instant)[0] // _SECOND


async def compare(feed: Feed, actions: list[Action]) -> None:
    """Hold what an EHR has taken against what was done: none missing, none doubled."""
    counted = Counter(map(version_of, feed.taken))
    assert [one for one, times in counted.items() if times > 1] == []
    for action in actions:
        if not action.is_told:
            continue
        seen = feed.at(action.second)
        assert seen, action
        assert set(action.keys) <= {one.partition(" ")[0] for one in counted}, action
    # Of each resource every version, from the first to the one that is there now.
    keys = {one.partition(" ")[0] for one in counted}
    for key in sorted(keys):
        versions = sorted(int(one.split('"')[1]) for one in counted if one.startswith(f"{key} "))
        assert versions == list(range(1, len(versions) + 1)), (key, versions)
        response = await feed.ehr.ask("GET", key)
        if response.status_code == 200:
            assert response.json()["meta"]["versionId"] == str(versions[-1]), key
