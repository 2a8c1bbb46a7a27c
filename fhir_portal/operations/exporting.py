"""A record on its way into an archive: read page by page, and let go of as it leaves.

What is held at any time is one page, one file that came with a document, and what the index says
of each file. Resources stand in it as they are stored, a line for each.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

import msgspec

from fhir_portal.access.owners import DIRECTORY, OWNERS, local_target
from fhir_portal.access.policy import Permit, decide_operation
from fhir_portal.access.relation import name_of
from fhir_portal.access.visibility import Visibility
from fhir_portal.accounts.practice import Practice, local_time
from fhir_portal.documents.archive import PIECE, Archive, Member, extension_of, pieces
from fhir_portal.documents.ccda.document import as_ccd
from fhir_portal.documents.chart import CHART_TYPES, Chart
from fhir_portal.documents.ips import as_bundle
from fhir_portal.documents.record_index import Filed, as_index
from fhir_portal.documents.summary import summary_of
from fhir_portal.documents.summary_page import as_html
from fhir_portal.fhir import json
from fhir_portal.fhir.datetime import instant
from fhir_portal.fhir.errors import Unprocessable
from fhir_portal.fhir.reference import ResourceKey, links_in
from fhir_portal.operations.call import Call
from fhir_portal.operations.charting import chart_of
from fhir_portal.resources import audit_event
from fhir_portal.resources.permission import checked, permitted_or_none
from fhir_portal.resources.server import Server
from fhir_portal.resources.store import Row
from fhir_portal.search.request import parse_search

INDEX: Final = "index.html"
MANIFEST: Final = "manifest.json"
CCD: Final = "documents/record.xml"
IPS: Final = "documents/summary.json"
SUMMARY: Final = "summary.html"
_PAGE: Final = 200
_FEW: Final = 8
"""Resources at a time of a type that can hold whole files."""
_WINDOW: Final = 4 * 1024 * 1024
"""Bytes that a page should not be larger than, by what the page before was."""
_SPLIT: Final = 1024 * 1024 * 1024
"""A data file that grew to this is ended, and another begun: old programs read no longer ones."""
_TOGETHER: Final = 5_000
"""A document is made of so many resources at most: it is put together in memory."""
_ROUNDS: Final = 3
"""A role names a practitioner, and that one a place: so often what is referred to is followed."""
_MOST_NAMED: Final = 20_000
_TOO_MUCH: Final = (
    "The summary to read and the documents for another practice are not here: the record has more "
    f"than {_TOGETHER:,} entries, too many for one document. All of the entries are in the data "
    "below. An app can fetch a document of a shorter time; or ask the practice for one."
)
_CUT: Final = (
    f"The record names more than {_MOST_NAMED:,} people, places and medicines of the practice. So "
    "many of them are here; of the others the data have the number they are known by, and no more."
)
_MOST_LISTED: Final = 20_000
"""Files that the index lists by name; the manifest has all of them."""
_CHUNK: Final = 200
_LONGEST_TITLE: Final = 200
_WITH_FILES: Final = frozenset(
    {
        *("Binary", "Communication", "CommunicationRequest", "Consent", "Contract"),
        *("DiagnosticReport", "DocumentReference", "Media", "Patient", "QuestionnaireResponse"),
        "RelatedPerson",
    }
)
_INLINE: Final[Mapping[str, str]] = {
    "Communication": "payload.contentAttachment",
    "Consent": "sourceAttachment",
    "DiagnosticReport": "presentedForm",
    "DocumentReference": "content.attachment",
    "Media": "content",
}
"""Where a resource can hold a file itself, or name the Binary that it is."""


def parts_of(call: Call, patient: str) -> dict[str, Visibility]:
    """Return what the caller may list of each type of one record; a type they may not is not in it.

    A Binary cannot be searched for: whoever may read one gets those of the record.
    """
    found = {}
    for name in sorted(OWNERS.keys() - DIRECTORY - {"AuditEvent"}):
        letter = "r" if name == "Binary" else "s"
        visible = permitted_or_none(call.server, call.auth, letter, name)
        if visible is not None:
            found[name] = replace(visible.own(), record=patient)
    return found


async def counted(server: Server, parts: Mapping[str, Visibility]) -> dict[str, int]:
    """Return how many there are of each type, of those of which there are any."""
    found = {}
    for name, visible in parts.items():
        request = parse_search(name, [("_summary", "count")], base=server.base)
        total = (await server.reader.search(request, visible)).total
        if total:
            found[name] = total
    return found


@dataclass(slots=True)
class _Title:
    """What a file is called where it is referred to."""

    text: str
    date: str


class Export:
    """One record on its way into an archive. ``counts`` is what there was when it was begun."""

    def __init__(
        self,
        call: Call,
        patient: str,
        parts: Mapping[str, Visibility],
        counts: Mapping[str, int],
    ) -> None:
        self._call = call
        self._server = call.server
        self._patient = patient
        self._parts = parts
        self._counts = counts
        self._now = call.server.clock()
        self._archive = Archive(self._now)
        self._filed: list[Filed] = []
        self._resources: Counter[str] = Counter()
        self._sections: dict[str, Counter[str]] = {}
        self._named: dict[str, set[str]] = {}
        """Ids of what the record refers to in the practice's directory, by type."""
        self._titles: dict[str, _Title] = {}
        self._inline: set[str] = set()
        self._whose = ""
        self._files = 0
        self._left_out: list[str] = []
        """What is not in the archive and might be looked for, in words."""

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        """Yield the archive as it is made; without its last bytes it is none."""
        whole = False
        try:
            for name, visible in self._parts.items():
                if name != "Binary":
                    async for ready in self._data(name, self._pages(name, visible)):
                        yield ready
            async for ready in self._directory():
                yield ready
            async for ready in self._data("AuditEvent", self._log()):
                yield ready
            async for ready in self._binaries():
                yield ready
            async for ready in self._held_files():
                yield ready
            async for ready in self._documents():
                yield ready
            practice = await self._server.store.get(Practice, self._call.auth.practice)
            async for ready in self._told(practice):
                yield ready
            last = self._archive.finish()
            whole = True
            yield last
        finally:
            if not whole:
                self._archive.abandon()

    # --- resources -----------------------------------------------------------------------------

    async def _pages(self, name: str, visible: Visibility) -> AsyncIterator[list[_Line]]:
        most = 1 if name == "Binary" else _FEW if name in _WITH_FILES else _PAGE
        request, after, count = parse_search(name, (), base=self._server.base), None, most
        while True:
            page = await self._server.reader.search(
                replace(request, count=count), visible, after=after
            )
            rows = checked(page.rows, visible)
            yield [_Line.of(row) for row in rows]
            after = page.next
            if after is None:
                return
            size = max(sum(len(row.body) for row in rows) // max(len(rows), 1), 1)
            count = min(max(_WINDOW // size, 1), most)

    async def _data(self, name: str, pages: AsyncIterator[list[_Line]]) -> AsyncIterator[bytes]:
        """Write what the pages hold to as many data files as it takes; none for nothing."""
        archive, number, lines = self._archive, 1, 0
        async for page in pages:
            for line in page:
                if not lines:
                    tail = "" if number == 1 else f"-{number}"
                    archive.begin(f"data/{name}{tail}.ndjson")
                for piece in pieces(_on_one_line(line.body)):
                    archive.write(piece)
                    if len(line.body) > PIECE:
                        yield archive.taken()
                size, lines = archive.write(b"\n"), lines + 1
                self._note(name, line)
                if size > _SPLIT:
                    self._file(archive.end(), name, lines)
                    number, lines = number + 1, 0
            yield archive.taken()
        if lines:
            self._file(archive.end(), name, lines)

    def _note(self, name: str, line: _Line) -> None:
        """Remember of a resource what the rest of the archive needs."""
        self._resources[name] += 1
        for section in line.sections:
            self._sections.setdefault(section, Counter())[name] += 1
        if name in {"AuditEvent", "Binary"}:
            return
        tree = json.parse(line.body)
        if name == "Patient":
            self._whose = name_of(tree)
        for holder, member in links_in(tree):
            key = local_target(holder[member]) if member == "reference" else None
            if key is not None and key.type in DIRECTORY:
                self._name(key)
        for attachment in _attachments(tree):
            if "data" in attachment:
                self._inline.add(name)
            key = local_target(str(attachment.get("url") or ""))
            if key is not None and key.type == "Binary" and len(self._titles) < _MOST_LISTED:
                self._titles[key.id] = _title(tree, attachment)

    def _name(self, key: ResourceKey) -> None:
        known = self._named.setdefault(key.type, set())
        if key.id in known:
            return
        if sum(map(len, self._named.values())) < _MOST_NAMED:
            known.add(key.id)
        elif _CUT not in self._left_out:
            self._left_out.append(_CUT)

    async def _directory(self) -> AsyncIterator[bytes]:
        """What the record refers to by name: who, where, which medicine; as far as it may be read.

        What those refer to in turn is followed, so that a role comes with its practitioner.
        """
        found: dict[str, set[str]] = {}
        asked: dict[str, set[str]] = {}
        for _ in range(_ROUNDS):
            fresh = {name: ids - asked.get(name, set()) for name, ids in self._named.items()}
            for name in sorted(name for name, ids in fresh.items() if ids):
                asked.setdefault(name, set()).update(fresh[name])
                visible = permitted_or_none(self._server, self._call.auth, "r", name)
                if visible is None:
                    continue
                async for rows in self._read(name, fresh[name], visible):
                    for row in rows:
                        found.setdefault(name, set()).add(row.facts.id)
                        for holder, member in links_in(json.parse(row.body)):
                            key = local_target(holder[member]) if member == "reference" else None
                            if key is not None and key.type in DIRECTORY:
                                self._name(key)
                    yield b""  # others get their turn, and rights are asked for again
        for name, ids in sorted(found.items()):
            visible = permitted_or_none(self._server, self._call.auth, "r", name)
            if visible is not None:
                async for ready in self._data(name, self._lines(name, ids, visible)):
                    yield ready

    async def _lines(
        self, name: str, ids: Collection[str], visible: Visibility
    ) -> AsyncIterator[list[_Line]]:
        async for rows in self._read(name, ids, visible):
            lines = {row.facts.id: _Line(row.body, frozenset()) for row in rows}
            yield [lines[one] for one in sorted(lines)]

    async def _read(
        self, name: str, ids: Collection[str], visible: Visibility
    ) -> AsyncIterator[list[Row]]:
        """Read what has these ids, by their order, a chunk at a time."""
        ordered = sorted(ids)
        for start in range(0, len(ordered), _CHUNK):
            keys = [ResourceKey(name, one) for one in ordered[start : start + _CHUNK]]
            yield list(checked(await self._server.reader.read_many(keys, visible), visible))

    async def _log(self) -> AsyncIterator[list[_Line]]:
        """Who looked at the record, as far as the caller may read it; staff read that elsewhere."""
        auth = self._call.auth
        visible = permitted_or_none(self._server, auth, "s", "AuditEvent")
        if visible is None or auth.record is None:
            return
        async for bodies in audit_event.every(self._server, visible, auth, self._now):
            yield [_Line(body, frozenset({"sharing"})) for body in bodies]

    # --- files ---------------------------------------------------------------------------------

    async def _binaries(self) -> AsyncIterator[bytes]:
        visible = self._parts.get("Binary")
        if visible is None:
            return
        async for page in self._pages("Binary", visible):
            for line in page:
                self._note("Binary", line)
                tree = json.parse(line.body)
                title = self._titles.get(tree["id"], _Title("", ""))
                media = str(tree.get("contentType") or "")
                async for ready in self._content(tree["id"], media, tree.get("data"), title):
                    yield ready

    async def _held_files(self) -> AsyncIterator[bytes]:
        """Files that stand in a resource itself: that is read once more."""
        for name in sorted(self._inline):
            async for page in self._pages(name, self._parts[name]):
                for line in page:
                    tree = json.parse(line.body)
                    for one in _attachments(tree):
                        if "data" not in one:
                            continue
                        media = str(one.get("contentType") or "")
                        title = _title(tree, one)
                        async for ready in self._content(tree["id"], media, one["data"], title):
                            yield ready

    async def _content(
        self, own_id: str, media: str, data: Any, title: _Title
    ) -> AsyncIterator[bytes]:
        try:
            content = base64.b64decode(str(data or ""))
        except (binascii.Error, ValueError):
            return  # it stands in the data as it was sent
        self._files += 1
        # By number first: two ids may differ in case alone, and some names mean devices.
        name = f"files/{self._files:05d}-{own_id}.{extension_of(media)}"
        async for ready in self._written(name, content, title=title.text, date=title.date):
            yield ready

    async def _documents(self) -> AsyncIterator[bytes]:
        """The documents that the caller may have made of the record."""
        auth = self._call.auth
        wanted = {
            code: found.visible
            for code in ("ccd", "summary")
            if isinstance(found := decide_operation(auth, code, self._now), Permit)
        }
        if not wanted:
            return
        if sum(self._counts.get(name, 0) for name in CHART_TYPES) > _TOGETHER:
            self._left_out.append(_TOO_MUCH)
            return
        call = replace(self._call, visible=next(iter(wanted.values())))
        try:
            chart, _ = await chart_of(call, self._patient)
        except Unprocessable:  # it grew meanwhile
            self._left_out.append(_TOO_MUCH)
            return
        making = {}
        if "summary" in wanted:
            making[SUMMARY] = "Summary, to read", _summary_page
            making[IPS] = "Summary, for another practice (International Patient Summary)", _ips
        if "ccd" in wanted:
            making[CCD] = "Record as one document, for another practice (C-CDA)", as_ccd
        for name, (title, make) in making.items():
            content = await asyncio.to_thread(make, chart)
            async for ready in self._written(name, content, title=title):
                yield ready

    # --- what is in it -------------------------------------------------------------------------

    async def _told(self, practice: Practice | None) -> AsyncIterator[bytes]:
        place = practice.name if practice is not None else self._call.auth.practice
        zone = practice.zone if practice is not None else "UTC"
        index = as_index(
            whose=self._whose,
            practice=place,
            made=local_time(zone, self._now),
            sections=self._sections,
            resources=self._resources,
            filed=self._filed,
            listed=_MOST_LISTED,
            left_out=self._left_out,
        )
        async for ready in self._written(INDEX, index):
            yield ready
        manifest = {
            "made": instant(int(self._now * 1_000_000)),
            "practice": place,
            "source": self._server.url(f"Patient/{self._patient}"),
            "resources": dict(sorted(self._resources.items())),
            "files": [one.told for one in self._filed],
        }
        async for ready in self._written(MANIFEST, msgspec.json.encode(manifest)):
            yield ready

    async def _written(
        self, name: str, content: bytes, *, title: str = "", date: str = ""
    ) -> AsyncIterator[bytes]:
        self._archive.begin(name)
        for piece in pieces(content):
            self._archive.write(piece)
            yield self._archive.taken()
        self._file(self._archive.end(), "", 0, title=title, date=date)
        yield self._archive.taken()

    def _file(
        self, member: Member, name: str, lines: int, *, title: str = "", date: str = ""
    ) -> None:
        self._filed.append(Filed(member, name, lines, title=title, date=date))


@dataclass(frozen=True, slots=True)
class _Line:
    """A resource as it stands in a data file, and the sections it falls in."""

    body: bytes
    sections: frozenset[str]

    @classmethod
    def of(cls, row: Row) -> _Line:
        return cls(row.body, row.facts.visibility_class.sections)


def _on_one_line(body: bytes) -> bytes:
    """Return JSON without line ends between its parts; what was stored mostly has none."""
    return msgspec.json.format(body, indent=-1) if b"\n" in body or b"\r" in body else body


def _attachments(tree: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    path = _INLINE.get(str(tree.get("resourceType")))
    nodes: list[Any] = [tree] if path else []
    for name in (path or "").split("."):
        below = [node.get(name) for node in nodes if isinstance(node, Mapping)]
        nodes = [one for node in below for one in (node if isinstance(node, list) else [node])]
    yield from (node for node in nodes if isinstance(node, Mapping))


def _title(tree: Mapping[str, Any], attachment: Mapping[str, Any]) -> _Title:
    """What a file is called where it stands: its own title, or what its resource is about."""
    kind = tree.get("type") or tree.get("code")
    words = kind if isinstance(kind, Mapping) else {}
    coded = next((one.get("display") for one in words.get("coding") or () if one), None)
    text = attachment.get("title") or tree.get("description") or words.get("text") or coded or ""
    date = tree.get("date") or tree.get("issued") or tree.get("sent") or tree.get("dateTime") or ""
    return _Title(str(text)[:_LONGEST_TITLE], str(date)[:10])


def _summary_page(chart: Chart) -> bytes:
    return as_html(summary_of(chart))


def _ips(chart: Chart) -> bytes:
    return as_bundle(summary_of(chart))
