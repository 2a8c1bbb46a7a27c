"""Labels close over references: what refers to a labelled resource is as hidden as that is.

By default every reference conveys, wherever it stands in a resource; what does not is declared
here, so that an element nobody thought of hides too much and never too little. `BOTH_WAYS` says
where what is named takes on the labels of what names it, too.

The labels of a resource are the least that satisfy this: its own, those of what it refers to, and
those of what lists it, less what that one has from its other entries in the same place.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from fhir_portal.access.owners import DIRECTORY, local_target
from fhir_portal.fhir.reference import ResourceKey, attachment_like

IDENTITIES: Final = frozenset({"Patient", "RelatedPerson", "Person", "Group"})
"""Whose record it is, not what it is about; a label there speaks of that person's particulars."""
CONVEY_NOTHING: Final = DIRECTORY | IDENTITIES
"""Types whose labels stay with them."""
TAKE_NOTHING: Final = DIRECTORY | IDENTITIES
"""Types that are labelled by nothing but their own labels."""

NOT_FROM: Final[Mapping[str, frozenset[str]]] = {
    # The evidence for a grant is not what the grant is about: the proxy may read the own grant.
    "Consent": frozenset({"sourceReference"}),
    # `fhir_portal.access.classify` has its own rule for what guards a Binary.
    "Binary": frozenset({"securityContext"}),
}
"""By type, the members whose references convey no label."""


@dataclass(frozen=True, slots=True)
class BothWays:
    """What stands at a path takes on labels; ``to`` are the types that do."""

    path: str
    to: frozenset[str]


def _both(path: str, *to: str) -> BothWays:
    return BothWays(path, frozenset(to))


BOTH_WAYS: Final[Mapping[str, tuple[BothWays, ...]]] = {
    "DiagnosticReport": (
        _both("result", "Observation"),
        _both("imagingStudy", "ImagingStudy"),
        _both("media.link", "Media"),
    ),
    "Encounter": (
        _both("appointment", "Appointment"),
        _both("diagnosis.condition", "Condition", "Procedure"),
    ),
    "Invoice": (_both("lineItem.chargeItemReference", "ChargeItem"),),
    "Observation": (_both("hasMember", "Observation", "QuestionnaireResponse"),),
    "Task": (_both("output.valueReference", "QuestionnaireResponse"),),
}
"""By type, the paths at which a resource lists others that are as hidden as it is itself."""

LISTED_BY: Final[Mapping[str, frozenset[str]]] = {
    name: frozenset(
        lister for lister, rows in BOTH_WAYS.items() if any(name in row.to for row in rows)
    )
    for name in {name for rows in BOTH_WAYS.values() for row in rows for name in row.to}
}
"""By type, the types that may list it."""


Link = tuple[str, str, ResourceKey]
"""Its path (member names, no numbers), the member that holds it (``reference`` or ``url``), and
what it means."""


def links_at(tree: Mapping[str, Any]) -> list[Link]:
    """Return every local reference and attachment of a resource, contained ones included."""
    found: list[Link] = []
    # Strings are met on the way to what holds them: most objects hold no link, and cost no look.
    stack: list[tuple[str, str, Any]] = [("", "", tree)]
    while stack:
        path, member, node = stack.pop()
        before = f"{path}." if path else ""
        for name, value in node.items():
            kind = value.__class__
            if kind is str:
                if member and (
                    name == "reference" or (name == "url" and attachment_like(member, node))
                ):
                    key = local_target(value)
                    if key is not None:
                        found.append((path, name, key))
            elif kind is dict:
                stack.append((before + name, name, value))
            elif kind is list:
                place = before + name
                stack += [(place, name, item) for item in value if item.__class__ is dict]
    return found


def conveys(name: str, path: str, key: ResourceKey) -> bool:
    """Whether a resource of a type takes labels from what it refers to at a path."""
    if name in TAKE_NOTHING or key.type in CONVEY_NOTHING:
        return False
    return name not in NOT_FROM or path.partition(".")[0] not in NOT_FROM[name]


def conveying(
    tree: Mapping[str, Any], links: Iterable[Link] | None = None
) -> Iterator[tuple[str, ResourceKey]]:
    """Yield what a resource takes labels from, each with the path at which it says so.

    ``links`` are those of the resource, where they are known already.
    """
    name = tree["resourceType"]
    if name in TAKE_NOTHING:
        return
    for path, _, key in links_at(tree) if links is None else links:
        if conveys(name, path, key):
            yield path, key


def conveyed_by(
    tree: Mapping[str, Any], links: Iterable[Link] | None = None
) -> frozenset[ResourceKey]:
    """Return what a resource takes labels from, itself left out; ``links`` as of `conveying`."""
    own = ResourceKey(tree["resourceType"], tree["id"])
    return frozenset({key for _, key in conveying(tree, links)} - {own})


def listing(tree: Mapping[str, Any]) -> Iterator[tuple[str, ResourceKey]]:
    """Yield what takes on the labels of a resource that lists it, each with its path."""
    rows = BOTH_WAYS.get(tree["resourceType"], ())
    if rows:
        for path, _, key in links_at(tree):
            if any(path == row.path and key.type in row.to for row in rows):
                yield path, key
