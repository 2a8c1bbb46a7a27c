"""Everything about a resource that needs no store: run in processes beside the writing one."""

from __future__ import annotations

import hashlib
import os
import re
import signal
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing import parent_process
from typing import Any, Final

from fhir_portal.fhir import json
from fhir_portal.fhir.errors import FhirError, Invalid, Issue
from fhir_portal.fhir.reference import Reference, links_in, references_in
from fhir_portal.resources.importing.splitting import (
    Addresses,
    Piece,
    Place,
    Refused,
    address,
    place_of,
)
from fhir_portal.resources.validation import validate
from fhir_portal.resources.writing import with_id
from fhir_portal.search.indexer import IndexEntries, extract

_CONDITIONAL: Final = re.compile(r"[A-Z][A-Za-z]{1,63}\?\S")


@dataclass(frozen=True, slots=True)
class Condition:
    """A conditional reference (``Organization?identifier=…``): the store has to say where it leads.

    Until then ``stand_in`` holds its place in the resource and its index entries.
    """

    text: str
    stand_in: str
    path: str


@dataclass(frozen=True, slots=True)
class Prepared:
    """A resource that may be stored: its id set, its references rewritten, its index made."""

    place: Place
    type: str
    id: str
    body: bytes
    entries: IndexEntries
    conditions: tuple[Condition, ...] = ()


def prepare(pieces: Sequence[Piece], bases: tuple[str, ...]) -> list[Prepared | Refused]:
    """Judge resources and make them ready; ``bases`` are the server's own FHIR addresses."""
    return [_prepared(piece, bases) for piece in pieces]


def _prepared(piece: Piece, bases: tuple[str, ...]) -> Prepared | Refused:
    tree: dict[str, Any] = {}
    try:
        tree = json.parse(piece.data)
        if piece.id is not None and tree.get("id") != piece.id and "resourceType" in tree:
            tree = with_id(tree, piece.id)
        conditions, dangling = _rewrite(tree, piece.addresses, bases)
        body = json.dumps(tree)
        issues = [issue for issue in validate(tree, body) if issue.severity in {"error", "fatal"}]
        if dangling or issues:
            return _refused(piece, tree, (*dangling, *issues))
        name = tree["resourceType"]
        entries = extract(name, tree)
        return Prepared(piece.place, name, tree["id"], body, entries, tuple(conditions))
    except FhirError as error:
        place = piece.place if tree else place_of(piece.place, piece.data, error)
        return _refused(piece, tree, error.issues, place)


def _refused(
    piece: Piece, tree: dict[str, Any], issues: Sequence[Issue], place: Place | None = None
) -> Refused:
    name = tree.get("resourceType")
    return Refused(
        place or piece.place, tuple(issues), name if isinstance(name, str) else None, piece.id
    )


def _rewrite(
    tree: dict[str, Any], addresses: Addresses, bases: tuple[str, ...]
) -> tuple[list[Condition], list[Issue]]:
    """Make references to other entries and to this server relative, in place.

    Returns:
        the conditional references, and an issue for each that leads to no entry although it must.
    """
    keys = addresses.keys
    leading_nowhere: list[dict[str, Any]] = []
    for holder, member in links_in(tree):
        text = holder[member]
        if not (keys or addresses.closed) and "://" not in text:
            continue
        key = keys.get(address(text)) or keys.get(text.partition("/_history/")[0])
        if key is not None:
            holder[member] = key
        elif (
            addresses.closed
            and member == "reference"
            and (text.startswith("urn:") or _CONDITIONAL.match(text))
        ):
            leading_nowhere.append(holder)
        elif "://" in text:
            holder[member] = _seen_from(bases, text)
    if not leading_nowhere:
        return [], []
    return _looked_at(tree, leading_nowhere)


def _looked_at(
    tree: dict[str, Any], holders: Sequence[dict[str, Any]]
) -> tuple[list[Condition], list[Issue]]:
    """Say of references that lead to no entry what each is, in the order of the resource."""
    conditions: list[Condition] = []
    dangling: list[Issue] = []
    wanted = {id(holder) for holder in holders}
    for path, holder in references_in(tree):
        if id(holder) not in wanted:
            continue
        text = holder["reference"]
        if text.startswith("urn:"):
            words = "This reference leads to no entry of the transaction."
            dangling.append(Issue("invalid", words, path))
        else:
            name, _, _ = text.partition("?")
            stand_in = f"{name}/{hashlib.sha256(text.encode()).hexdigest()}"
            conditions.append(Condition(text, stand_in, path))
            holder["reference"] = stand_in
    return conditions, dangling


def _seen_from(bases: tuple[str, ...], text: str) -> str:
    for base in bases:
        if text.startswith(f"{base}/"):
            try:
                return str(Reference.parse(text).seen_from(base))
            except Invalid:
                return text  # the checks judge it
    return text


def stay_with_parent() -> None:
    """Make a process end when the one that started it does, however that ended.

    An interrupt at the keyboard is left to the parent, which ends both in order.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = parent_process()
    if parent is not None:
        threading.Thread(target=_end_after, args=(parent,), daemon=True).start()


def _end_after(parent: Any) -> None:
    parent.join()
    os._exit(1)
