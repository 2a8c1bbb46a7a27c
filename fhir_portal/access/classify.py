"""What the server computes about a resource when it is written: owners, class, directory mark.

Derived rows (Provenance, Binary, PaymentNotice, AppointmentResponse) take theirs from the
resources they belong to, and labels close over references (`fhir_portal.access.closure`), both in
the transaction that changes either.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any, Protocol

import msgspec

from fhir_portal.access.closure import (
    LISTED_BY,
    Link,
    conveyed_by,
    conveying,
    conveys,
    links_at,
    listing,
)
from fhir_portal.access.owners import (
    DERIVED,
    DIRECTORY,
    OWNERS,
    FromReferrers,
    FromTargets,
    local_target,
    own_patients,
    references_at,
)
from fhir_portal.access.visibility import NO_SECTION, UNCLASSIFIED, RowFacts, VisibilityClass
from fhir_portal.consent.labels import UNKNOWN, is_listed_in_directory
from fhir_portal.consent.sections import sections_of
from fhir_portal.fhir.reference import ResourceKey


class Neighbours(Protocol):
    """How derived rows look at the rows around them, inside the writing transaction."""

    async def facts_of(self, key: ResourceKey, practice: str) -> RowFacts | None:
        """Return the facts of a current row, or ``None`` when there is none."""
        ...

    async def own_labels(self, tree: Mapping[str, Any], practice: str) -> frozenset[str]:
        """Return the labels of a resource by itself: carried, by rule, by its release."""
        ...

    async def labels_of(self, keys: Collection[ResourceKey], practice: str) -> frozenset[str]:
        """Return the labels of rows, those of the last version where one was deleted."""
        ...

    async def listed_in(
        self, key: ResourceKey, practice: str, types: Collection[str]
    ) -> list[tuple[Mapping[str, Any] | None, frozenset[str]]]:
        """Return the labelled rows of these types that point at ``key``, and their labels.

        Of one that was deleted it is what it said last, ``None`` where that is not known.
        """
        ...

    async def facts_of_referrers(
        self, key: ResourceKey, practice: str
    ) -> list[tuple[RowFacts, bool]]:
        """Return the facts of the current rows that point at ``key``, each with whether it stands.

        What was entered in error does not: what it names is not of its record.
        """
        ...


async def classify(
    tree: Mapping[str, Any],
    practice: str,
    neighbours: Neighbours,
    *,
    links: Iterable[Link] | None = None,
) -> RowFacts:
    """Compute the facts of a resource (with its id set) as it would be stored.

    ``links`` are what `fhir_portal.access.closure.links_at` found in it, where that is known.
    """
    name, own_id = tree["resourceType"], tree["id"]
    rule = OWNERS.get(name)
    labels = await neighbours.own_labels(tree, practice)
    owners = own_patients(tree)
    sections = _own_sections(tree)
    if name in DERIVED:
        found: list[RowFacts] = []
        standing: list[RowFacts] | None = None
        if isinstance(rule, FromTargets):
            for path in rule.paths:
                for key in filter(None, map(local_target, references_at(tree, path))):
                    if key.type == name:
                        continue  # what is about its own kind would keep itself alive
                    facts = await neighbours.facts_of(key, practice)
                    if facts is not None:
                        found.append(facts)
        elif isinstance(rule, FromReferrers):
            key = ResourceKey(name, own_id)
            referrers = [
                (facts, stands)
                for facts, stands in await neighbours.facts_of_referrers(key, practice)
                # What takes its own owner from here would keep this row alive by itself.
                if facts.owners and facts.resource_type not in DERIVED
            ]
            found = [facts for facts, _ in referrers]
            # The file of an error may be about somebody else: then it is nobody's, for staff alone.
            standing = [facts for facts, stands in referrers if stands]
        giving = found if standing is None else standing
        owners = tuple(sorted({owner for facts in giving for owner in facts.owners}))
        sections = frozenset(s for facts in giving or found for s in _passed_on(facts))
        if not sections or any(not facts.owners and not facts.directory for facts in found):
            sections |= {UNCLASSIFIED}
        labels |= frozenset(label for facts in found for label in facts.visibility_class.labels)
        if name == "Binary" and owners and "securityContext" in tree:
            context = await _context_of(tree, practice, neighbours)
            if context is None:
                labels |= {UNKNOWN}
            else:
                labels |= context.visibility_class.labels
                if context.owners:
                    owners = tuple(sorted({*owners, *context.owners}))
                    if context.resource_type != "Patient":  # that says whose it is, no more
                        sections |= _passed_on(context)
    labels |= await _taken_on(tree, practice, neighbours, links)
    return RowFacts(
        resource_type=name,
        id=own_id,
        practice=practice,
        owners=owners,
        visibility_class=VisibilityClass(sections, labels),
        directory=name in DIRECTORY and is_listed_in_directory(tree),
    )


async def _taken_on(
    tree: Mapping[str, Any],
    practice: str,
    neighbours: Neighbours,
    links: Iterable[Link] | None,
) -> frozenset[str]:
    """Return the labels a resource takes from what it refers to and from what lists it."""
    own = ResourceKey(tree["resourceType"], tree["id"])
    labels = frozenset[str]()
    targets = conveyed_by(tree, links)
    if targets:
        labels |= await neighbours.labels_of(targets, practice)
    return labels | await _from_lists(own, practice, neighbours, {own})


async def _from_lists(
    own: ResourceKey, practice: str, neighbours: Neighbours, seen: set[ResourceKey]
) -> frozenset[str]:
    """Return the labels a resource takes from what lists it, and what lists that."""
    labels = frozenset[str]()
    if own.type not in LISTED_BY:
        return labels
    for lister, held in await neighbours.listed_in(own, practice, LISTED_BY[own.type]):
        if lister is None:
            labels |= held
            continue
        places = {path for path, key in listing(lister) if key == own}
        if not places:
            continue
        # Not what its other entries have: one labelled result hides the report, not the rest.
        others = {key for path, key in conveying(lister) if path not in places} - {own}
        labels |= await neighbours.own_labels(lister, practice)
        if others:
            labels |= await neighbours.labels_of(others, practice)
        above = ResourceKey(lister["resourceType"], lister["id"])
        if above not in seen:
            labels |= await _from_lists(above, practice, neighbours, seen | {above})
    return labels


async def _context_of(
    tree: Mapping[str, Any], practice: str, neighbours: Neighbours
) -> RowFacts | None:
    """Return the facts of what a Binary is to be guarded like (FHIR R4 §2.45, ``securityContext``).

    It takes away and never gives: whoever may not see that resource does not see the Binary.
    ``None`` when it is not there.
    """
    key = next(filter(None, map(local_target, references_at(tree, "securityContext"))), None)
    return None if key is None else await neighbours.facts_of(key, practice)


def _passed_on(facts: RowFacts) -> frozenset[str]:
    """Return the sections that a derived row takes over.

    Of grants and RelatedPersons a proxy sees the own ones only; what is about any of them is for
    the person whose record it is.
    """
    if facts.resource_type in {"Consent", "RelatedPerson"}:
        return frozenset({NO_SECTION})
    return facts.visibility_class.sections


def unowned(facts: RowFacts) -> RowFacts:
    """Return the facts of a derived row that was deleted: what it belonged to may change on."""
    if facts.resource_type not in DERIVED:
        return facts
    nobody = VisibilityClass(frozenset({UNCLASSIFIED}), facts.visibility_class.labels)
    return msgspec.structs.replace(facts, owners=(), visibility_class=nobody)


def _own_sections(tree: Mapping[str, Any]) -> frozenset[str]:
    sections = sections_of(tree)
    if sections is None:
        return frozenset({NO_SECTION})
    return sections or frozenset({UNCLASSIFIED})


def wholes_of(tree: Mapping[str, Any]) -> tuple[ResourceKey, ...]:
    """Return the Communications that this one is part of."""
    if tree["resourceType"] != "Communication":
        return ()
    keys = (local_target(text) for text in references_at(tree, "partOf"))
    return tuple(key for key in keys if key is not None and key.type == "Communication")


def edges_of(tree: Mapping[str, Any], links: Iterable[Link] | None = None) -> tuple[str, ...]:
    """Return the local resources that a change of this one, or of them, may concern.

    Directory entries it refers to, Binaries that its attachments name, the targets of a derived
    row, and what it takes labels from: ``Type/id`` each. ``links`` as of `classify`.
    """
    return tuple(dict.fromkeys(_edges(tree, links_at(tree) if links is None else links)))


def kept_edges(tree: Mapping[str, Any]) -> tuple[str, ...]:
    """Return those of a resource that outlive it.

    What it listed stays as hidden as it was, and what refers to it follows what it named.
    """
    return tuple(dict.fromkeys(str(key) for _, key in conveying(tree)))


def _edges(tree: Mapping[str, Any], links: Iterable[Link]) -> Iterator[str]:
    name = tree["resourceType"]
    for path, member, key in links:
        shown = (key.type in DIRECTORY) if member == "reference" else (key.type == "Binary")
        if shown or conveys(name, path, key):
            yield str(key)
    rule = OWNERS.get(name)
    paths = rule.paths if isinstance(rule, FromTargets) else ()
    if tree["resourceType"] == "Binary":
        paths = ("securityContext",)
    for path in paths:
        for target in filter(None, map(local_target, references_at(tree, path))):
            yield str(target)


def binaries_of(tree: Mapping[str, Any], links: Iterable[Link] | None = None) -> list[ResourceKey]:
    """Return the Binaries on this server that a resource's attachments name.

    ``links`` as of `classify`.
    """
    found = links_at(tree) if links is None else links
    return [key for _, member, key in found if member == "url" and key.type == "Binary"]
