"""``/portal/timeline``: visits, results, documents and vaccines by date, a year on each page.

Each type is a search of the caller's own; what they may not see is in none of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response

from fhir_portal.documents.chart import is_told, when
from fhir_portal.documents.wording import Json, clean, words_of
from fhir_portal.fhir.datetime import period_of
from fhir_portal.fhir.errors import Forbidden
from fhir_portal.web.form import parse_pairs
from fhir_portal.web.pages.portal import (
    DOCUMENTS,
    IMMUNIZED,
    REPORT,
    TIMELINE,
    VISITS,
    AtPortal,
    PatientRoom,
    has_page,
    portal_page,
)
from fhir_portal.web.pages.refusals import Handler

SECTIONS: Final = ("visits", "results", "documents", "immunizations")
"""Of which there is something on it; documents of a visit are among the visits."""
_AT_ONCE: Final = 200
_MOST: Final = 1000
_NEAR: Final = 50
_YEAR: Final = 4
_MICROSECONDS: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class _Kind:
    """A type on the timeline: by which parameters it has a date, and what is said of one."""

    resource_type: str
    title: str
    dates: tuple[str, ...]
    words: Callable[[Json], str]
    address: Callable[[Json], str]


class TimelinePages:
    """The page that has everything by date."""

    def __init__(self, room: PatientRoom) -> None:
        self._room = room

    def routes(self) -> Sequence[tuple[str, str, Handler]]:
        """Path, method and handler of each page."""
        return ((TIMELINE, "GET", portal_page(self.show)),)

    async def show(self, request: Request) -> Response:
        """A year, the latest first; without one the latest year that has something."""
        here = await self._room.at(request)
        given = dict(parse_pairs(request.scope["query_string"])).get("year", "")
        year = _year(given) or await self._near(here, 9998, later=False)
        entries, more = await self._of_year(here, year) if year else ([], False)
        undated = [] if given else await self._undated(here)
        earlier = await self._near(here, year, later=False) if year else None
        later = await self._near(here, year, later=True) if year and given else None
        return self._room.page(
            here,
            "portal_timeline.html",
            year=year,
            entries=entries,
            undated=undated,
            more=_MOST if more else 0,
            earlier=(f"?year={earlier:04}", earlier) if earlier else None,
            later=(f"?year={later:04}", later) if later else None,
        )

    async def _of_year(self, here: AtPortal, year: int) -> tuple[list[dict[str, str]], bool]:
        """What falls in a year by the practice's clock."""
        # A day more on both sides: a date has no zone, and the year begins where the practice is.
        low, high = f"ge{year - 1:04}-12-31", f"lt{year + 1:04}-01-02"
        if year == 1:
            low = "ge0001-01-01"
        found: dict[str, tuple[int, dict[str, str]]] = {}
        more = False
        for kind in _KINDS:
            for name in kind.dates:
                trees, cut = await self._all(
                    here, kind.resource_type, (name, low), (name, high), ("_sort", f"-{name}")
                )
                more = more or cut
                for tree in trees:
                    moment = _moment(tree)
                    if is_told(tree) and moment is not None and _year_of(here, tree) == year:
                        key = f"{kind.resource_type}/{tree['id']}"
                        found[key] = moment, self._entry(here, kind, tree)
        ordered = sorted(found.items(), key=lambda one: (-one[1][0], one[0]))
        return [entry for _, (_, entry) in ordered], more

    async def _undated(self, here: AtPortal) -> list[dict[str, str]]:
        found: dict[str, dict[str, str]] = {}
        for kind in _KINDS:
            for name in kind.dates:
                trees, _ = await self._all(here, kind.resource_type, (f"{name}:missing", "true"))
                for tree in trees:
                    if is_told(tree) and _moment(tree) is None:
                        key = f"{kind.resource_type}/{tree['id']}"
                        found[key] = self._entry(here, kind, tree)
        return [found[key] for key in sorted(found)]

    async def _near(self, here: AtPortal, year: int, *, later: bool) -> int | None:
        """The nearest year before or after one in which there is something."""
        # A few are looked at, since what is near the turn of a year may be on the other side of it.
        bound = f"ge{year:04}-12-31" if later else f"lt{year:04}-01-02"
        years: set[int] = set()
        for kind in _KINDS:
            for name in kind.dates:
                sort = ("_sort", name if later else f"-{name}")
                query = ((name, bound), sort, ("_count", str(_NEAR)))
                trees = await self._search(here, kind.resource_type, query)
                years |= {
                    found
                    for tree in trees[0]
                    if is_told(tree) and (found := _year_of(here, tree)) is not None
                }
        near = [one for one in years if (one > year if later else one < year)]
        return (min(near) if later else max(near)) if near else None

    async def _all(
        self, here: AtPortal, name: str, *query: tuple[str, str]
    ) -> tuple[list[Mapping[str, Any]], bool]:
        asked: tuple[tuple[str, str], ...] = (*query, ("_count", str(_AT_ONCE)))
        found: list[Mapping[str, Any]] = []
        while True:
            trees, following = await self._search(here, name, asked)
            found += trees
            if not following or len(found) >= _MOST:
                return found, bool(following)
            asked = (("_page", following),)

    async def _search(
        self, here: AtPortal, name: str, query: Sequence[tuple[str, str]]
    ) -> tuple[list[Mapping[str, Any]], str]:
        try:
            answer = await self._room.ask(here, "search-type", name, query=query)
        except Forbidden:
            return [], ""
        return answer.entries, answer.next

    @staticmethod
    def _entry(here: AtPortal, kind: _Kind, tree: Json) -> dict[str, str]:
        return {
            "kind": kind.title,
            "words": kind.words(tree),
            "when": here.moment(_when(tree)),
            "address": kind.address(tree),
        }


def _when(tree: Json) -> str:
    if tree["resourceType"] != "DocumentReference":
        return when(tree)
    period = (tree.get("context") or {}).get("period") or {}
    return str(tree.get("date") or period.get("start") or "")


def _moment(tree: Json) -> int | None:
    try:
        return period_of(_when(tree))[0]
    except ValueError:
        return None


def _year_of(here: AtPortal, tree: Json) -> int | None:
    """The year by the practice's clock; of a date without a time its own."""
    text, moment = _when(tree), _moment(tree)
    if moment is None:
        return None
    if "T" not in text:
        return int(text[:_YEAR])
    try:
        return datetime.fromtimestamp(moment / _MICROSECONDS, here.zone).year
    except (OverflowError, ValueError, OSError):
        return int(text[:_YEAR])


def _year(text: str) -> int | None:
    """A year that somebody asks for; there are pages of 1 to 9998."""
    if len(text) != _YEAR or not (text.isascii() and text.isdigit()):
        return None
    return int(text) if 1 <= int(text) <= 9998 else None  # noqa: PLR2004 - a year has one after it


def _visit(tree: Json) -> str:
    kind = next(filter(None, map(words_of, tree.get("type") or ())), "")
    return kind or clean((tree.get("class") or {}).get("display") or "Visit")


def _document(tree: Json) -> str:
    return clean(tree.get("description") or "") or words_of(tree.get("type")) or "Document"


_KINDS: Final = (
    _Kind(
        "Encounter", "Visit", ("date",), _visit, lambda _: VISITS if has_page(VISITS) else ""
    ),
    _Kind(
        "DiagnosticReport", "Result", ("date", "issued"),
        lambda tree: words_of(tree.get("code")) or "Report",
        lambda tree: f"{REPORT}/{tree['id']}",
    ),
    _Kind(
        "DocumentReference", "Document", ("date", "period"), _document,
        lambda _: DOCUMENTS if has_page(DOCUMENTS) else "",
    ),
    _Kind(
        "Immunization", "Vaccine", ("date",),
        lambda tree: words_of(tree.get("vaccineCode")) or "Vaccine",
        lambda _: IMMUNIZED,
    ),
)  # fmt: skip
