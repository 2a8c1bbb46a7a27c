"""What the server computes about a resource when it is written: owners, class, directory mark.

Derived rows (Provenance, Binary, PaymentNotice, AppointmentResponse) take theirs from the
resources they belong to, in the transaction that changes either.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Protocol

import msgspec

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
from fhir_portal.consent.labels import UNKNOWN, is_listed_in_directory, labels_of
from fhir_portal.consent.sections import sections_of
from fhir_portal.fhir.reference import ResourceKey, attachments_in, links_in


class Neighbours(Protocol):
    """How derived rows look at the rows around them, inside the writing transaction."""

    async def facts_of(self, key: ResourceKey, practice: str) -> RowFacts | None:
        """Return the facts of a current row, or ``None`` when there is none."""
        ...

    async def labels_of(self, key: ResourceKey, practice: str) -> frozenset[str]:
        """Return the labels of a row, those of its last version where it was deleted."""
        ...

    async def facts_of_referrers(self, key: ResourceKey, practice: str) -> list[RowFacts]:
        """Return the facts of the current rows that point at ``key``."""
        ...


async def classify(tree: Mapping[str, Any], practice: str, neighbours: Neighbours) -> RowFacts:
    """Compute the facts of a resource (with its id set) as it would be stored."""
    name, own_id = tree["resourceType"], tree["id"]
    rule = OWNERS.get(name)
    labels = labels_of(tree)
    owners = own_patients(tree)
    sections = _own_sections(tree)
    if name in DERIVED:
        found: list[RowFacts] = []
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
            found = [
                facts
                for facts in await neighbours.facts_of_referrers(key, practice)
                # What takes its own owner from here would keep this row alive by itself.
                if facts.owners and facts.resource_type not in DERIVED
            ]
        owners = tuple(sorted({owner for facts in found for owner in facts.owners}))
        sections = frozenset(s for facts in found for s in _passed_on(facts))
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
    for key in wholes_of(tree):
        if key != ResourceKey(name, own_id):
            labels |= await neighbours.labels_of(key, practice)
    return RowFacts(
        resource_type=name,
        id=own_id,
        practice=practice,
        owners=owners,
        visibility_class=VisibilityClass(sections, labels),
        directory=name in DIRECTORY and is_listed_in_directory(tree),
    )


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
    """Return what this one is part of, and no less hidden than that is.

    Of a Communication the Communications, of a Task about a bill the bill. Of those that name each
    other in a circle, a label that was taken away stays.
    """
    if tree["resourceType"] == "Task" and "billing" in (sections_of(tree) or ()):
        bills = map(local_target, references_at(tree, "focus"))
        return tuple(key for key in bills if key is not None and key.type == "Invoice")
    if tree["resourceType"] != "Communication":
        return ()
    keys = (local_target(text) for text in references_at(tree, "partOf"))
    return tuple(key for key in keys if key is not None and key.type == "Communication")


def edges_of(tree: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the local resources that this one makes visible or takes its ownership from.

    Directory entries it refers to, Binaries that its attachments name, the targets of a derived
    row, and the thread of a message, whose labels it takes over: ``Type/id`` each.
    """
    return tuple(dict.fromkeys(_edges(tree)))


def _edges(tree: Mapping[str, Any]) -> Iterator[str]:
    for holder, member in links_in(tree):
        key = local_target(holder[member])
        if key is None:
            continue
        if (key.type in DIRECTORY) if member == "reference" else (key.type == "Binary"):
            yield str(key)
    rule = OWNERS.get(tree["resourceType"])
    yield from map(str, wholes_of(tree))
    paths = rule.paths if isinstance(rule, FromTargets) else ()
    if tree["resourceType"] == "Binary":
        paths = ("securityContext",)
    for path in paths:
        for target in filter(None, map(local_target, references_at(tree, path))):
            yield str(target)


def binaries_of(tree: Mapping[str, Any]) -> list[ResourceKey]:
    """Return the Binaries on this server that a resource's attachments name."""
    keys = (local_target(holder["url"]) for _, holder in attachments_in(tree))
    return [key for key in keys if key is not None and key.type == "Binary"]
