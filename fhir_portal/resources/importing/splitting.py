"""A document taken apart: its resources as the sender's bytes, and what their ids will be.

Only the outside of a document is read here, so that one bad resource does not spoil its
neighbours and the costly checks are left to the processes beside this one.
Source: FHIR R4 §2.36.4 (resolving references in Bundles), §3.1.0.11 (transactions).
"""

from __future__ import annotations

import hashlib
import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from fhir_portal.fhir import json
from fhir_portal.fhir.errors import FhirError, Invalid, Issue, NotSupported
from fhir_portal.fhir.reference import ResourceKey, is_id
from fhir_portal.resources.importing.files import Document

_CARRIERS: Final = frozenset({"batch", "collection", "searchset", "transaction"})
"""Bundle types that carry resources."""
_ONE_RESOURCE: Final = frozenset({"document", "message"})
"""Bundle types that are kept whole, as the resource they are."""
_WRITES: Final = frozenset({None, "POST", "PUT"})
_UUID: Final = "urn:uuid:"
_OFFSET: Final = re.compile(r"\(byte (\d+)\)\.?$")


@dataclass(frozen=True, slots=True)
class Place:
    """Where in a file: the line of the document, and the entry if it is a Bundle (from 0)."""

    line: int
    entry: int | None = None

    @property
    def order(self) -> tuple[int, int]:
        """What places of one file are sorted by."""
        return self.line, self.entry or 0


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where a Bundle's references lead: ``fullUrl`` to ``Type/id``.

    ``closed`` says that a ``urn:`` reference must lead to an entry, as in a transaction.
    """

    keys: Mapping[str, str]
    closed: bool = False


NO_ADDRESSES: Final = Addresses({})


@dataclass(frozen=True, slots=True)
class Piece:
    """One resource as it came, and the id it shall have (``None``: what it says itself)."""

    place: Place
    data: bytes
    id: str | None
    addresses: Addresses


@dataclass(frozen=True, slots=True)
class Refused:
    """A resource, or a whole document, that is not stored, and why."""

    place: Place
    issues: tuple[Issue, ...]
    type: str | None = None
    id: str | None = None


class _Head(msgspec.Struct):
    resourceType: Any = None  # noqa: N815 - FHIR's name
    type: Any = None
    id: Any = None


class _Entry(msgspec.Struct):
    fullUrl: Any = None  # noqa: N815 - FHIR's name
    resource: msgspec.Raw = msgspec.Raw(b"")
    request: Any = None
    search: Any = None


class _Bundle(msgspec.Struct):
    entry: list[_Entry] = []


_head = msgspec.json.Decoder(_Head).decode
_bundle = msgspec.json.Decoder(_Bundle).decode


def split(document: Document) -> list[Piece | Refused]:
    """Return the resources of a document in their order."""
    try:
        head = _head(document.data)
        if head.resourceType != "Bundle" or head.type in _ONE_RESOURCE:
            return [_single(document, head)]
        if head.type not in _CARRIERS:
            message = "Only Bundles of the types batch, collection, searchset and transaction "
            raise NotSupported(f"{message}carry resources to import.", expression="Bundle.type")
        return _entries(document, closed=head.type == "transaction")
    except FhirError as error:
        return [Refused(Place(document.line), error.issues)]
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return [Refused(*_unreadable(document))]


def _single(document: Document, head: _Head) -> Piece:
    return Piece(
        Place(document.line), document.data, _own_id(head, None, None, document.data), NO_ADDRESSES
    )


def _entries(document: Document, *, closed: bool) -> list[Piece | Refused]:
    entries = _bundle(document.data).entry
    _refuse_loose_shell(document.data, entries)
    keys: dict[str, str] = {}
    addresses = Addresses(keys, closed)
    found: list[Piece | Refused] = []
    for index, entry in enumerate(entries):
        place = Place(document.line, index)
        data = bytes(entry.resource)
        if _member(entry.search, "mode") == "outcome":
            continue  # how a search went, not what was found
        method = _member(entry.request, "method")
        if method not in _WRITES or not data:
            words = "This entry holds no resource to store."
            found.append(Refused(place, (Issue("not-supported", words, "Bundle.entry"),)))
            continue
        head = _head_or_nothing(data)
        own_id = _own_id(head, entry.fullUrl, _member(entry.request, "url"), data)
        name = head.resourceType
        if isinstance(name, str) and own_id is not None:
            if isinstance(entry.fullUrl, str):
                keys[address(entry.fullUrl)] = f"{name}/{own_id}"
            if isinstance(head.id, str) and head.id != own_id:
                keys[f"{name}/{head.id}"] = f"{name}/{own_id}"
        found.append(Piece(place, data, own_id, addresses))
    return found


def address(url: str) -> str:
    """Return a URL as it is compared: the letters of a UUID may be written large or small."""
    return url.lower() if url[: len(_UUID)].lower() == _UUID else url


def _own_id(head: _Head, full_url: Any, request_url: Any, data: bytes) -> str | None:
    """The id under which a resource is stored; the same whenever it is imported again.

    Its own id if that is one. Without one, what PUT names, then the ``fullUrl``, then nothing is
    left to tell it by but its content. An id that is malformed and has no ``fullUrl`` to stand in
    for it is left for the checks to refuse.
    """
    if head.id is not None and (not isinstance(head.id, str) or is_id(head.id)):
        return head.id if isinstance(head.id, str) else None
    if head.id is None and isinstance(request_url, str):
        try:
            return ResourceKey.parse(request_url).id
        except Invalid:
            pass  # POST names only the type
    if isinstance(full_url, str):
        bare = full_url[len(_UUID) :].lower()
        return bare if address(full_url) == _UUID + bare and _is_uuid(bare) else _digest(full_url)
    return _digest(data) if head.id is None else None


def _is_uuid(text: str) -> bool:
    try:
        return str(uuid.UUID(text)) == text
    except ValueError:
        return False


def _digest(content: str | bytes) -> str:
    data = content.encode() if isinstance(content, str) else content.strip()
    return hashlib.sha256(data).hexdigest()[:32]


def _member(value: Any, name: str) -> Any:
    return value.get(name) if isinstance(value, dict) else None


def _head_or_nothing(data: bytes) -> _Head:
    try:
        return _head(data)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return _Head()  # the checks will say what is wrong with it


def _refuse_loose_shell(data: bytes, entries: list[_Entry]) -> None:
    """Read the Bundle without its resources as strictly as any other body.

    Raises:
        Invalid: for example for a member that appears twice.
    """
    parts: list[bytes] = []
    position = 0
    for entry in entries:
        resource = bytes(entry.resource)
        if resource:
            start = data.index(resource, position)
            parts += (data[position:start], b"{}")
            position = start + len(resource)
    parts.append(data[position:])
    json.parse(b"".join(parts))


def _unreadable(document: Document) -> tuple[Place, tuple[Issue, ...]]:
    """Say what is wrong with a document that is no JSON or has the wrong shape, and where."""
    try:
        json.parse(document.data)
    except Invalid as error:
        return place_of(Place(document.line), document.data, error), error.issues
    words = "Bundle.entry must be an array of objects."
    return Place(document.line), (Issue("structure", words, "Bundle.entry"),)


def place_of(place: Place, data: bytes, error: Exception) -> Place:
    """Return the line of a document on which it stops being JSON, where the error tells."""
    offset = _OFFSET.search(str(error))
    if offset is None or place.entry is not None:
        return place
    return Place(place.line + data.count(b"\n", 0, int(offset[1])))
