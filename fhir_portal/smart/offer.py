"""What the consent page offers, and what a set of ticks grants; pure.

DESIGN section 7 fixes the rule. Each resource scope is offered by itself (wildcards were expanded
before). A type that has sub-resource scopes offers them as children: the parent with none or all
of its children ticked grants the type's scope; the parent with some, or children alone, grants
exactly those children; never both.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Final, Self

from fhir_portal.smart.errors import InvalidRequest
from fhir_portal.smart.scope import GRANTABLE_IDENTITY, Scope, ScopeSet

OFFLINE_ACCESS: Final = "offline_access"

_CONDITION_CATEGORY: Final = "http://terminology.hl7.org/CodeSystem/condition-category"
_US_CORE_CONDITION: Final = "http://hl7.org/fhir/us/core/CodeSystem/condition-category"
_OBSERVATION_CATEGORY: Final = "http://terminology.hl7.org/CodeSystem/observation-category"
_US_CORE_CATEGORY: Final = "http://hl7.org/fhir/us/core/CodeSystem/us-core-category"

SUB_RESOURCES: Final[Mapping[str, tuple[str, ...]]] = {
    "Condition": (
        f"category={_CONDITION_CATEGORY}|encounter-diagnosis",
        f"category={_CONDITION_CATEGORY}|problem-list-item",
        f"category={_US_CORE_CONDITION}|health-concern",
    ),
    "Observation": (
        f"category={_OBSERVATION_CATEGORY}|procedure",
        f"category={_OBSERVATION_CATEGORY}|laboratory",
        f"category={_OBSERVATION_CATEGORY}|social-history",
        f"category={_US_CORE_CATEGORY}|sdoh",
        f"category={_OBSERVATION_CATEGORY}|survey",
        f"category={_OBSERVATION_CATEGORY}|vital-signs",
    ),
}
"""Type to the categories that can be granted alone (US Core, "Scopes"; 45 CFR 170.315(g)(10))."""


@dataclass(frozen=True, slots=True)
class OfferedScope:
    """One tickable resource scope and the sub-resource scopes listed under it."""

    scope: Scope
    children: tuple[Scope, ...] = ()


@dataclass(frozen=True, slots=True)
class ConsentOffer:
    """What a person may grant: the fixed scopes, ``offline_access`` when asked for, the rest."""

    fixed: tuple[str, ...]
    offline: bool
    scopes: tuple[OfferedScope, ...]

    @classmethod
    def of(cls, grantable: ScopeSet) -> Self:
        """Lay out what can be granted; ``grantable`` is narrowed and expanded already."""
        return cls(
            tuple(
                word
                for word in grantable.identity
                if word in GRANTABLE_IDENTITY and word != OFFLINE_ACCESS
            ),
            OFFLINE_ACCESS in grantable.identity,
            tuple(OfferedScope(scope, _children(scope)) for scope in grantable.resource),
        )

    @property
    def everything(self) -> ScopeSet:
        """The scopes of an approval that leaves nothing out."""
        identity = (*self.fixed, OFFLINE_ACCESS) if self.offline else self.fixed
        return ScopeSet(identity, tuple(offered.scope for offered in self.scopes))

    def granted(self, ticked: Collection[str]) -> ScopeSet:
        """What these ticked scope texts grant.

        Raises `InvalidRequest` when one of them was not offered.
        """
        offered_texts = {
            str(scope) for offered in self.scopes for scope in (offered.scope, *offered.children)
        }
        if self.offline:
            offered_texts.add(OFFLINE_ACCESS)
        if not offered_texts.issuperset(ticked):
            raise InvalidRequest("a scope was ticked that was not offered")
        identity = (*self.fixed, OFFLINE_ACCESS) if OFFLINE_ACCESS in ticked else self.fixed
        resource: list[Scope] = []
        for offered in self.scopes:
            parent = str(offered.scope) in ticked
            children = [child for child in offered.children if str(child) in ticked]
            if parent and len(children) in (0, len(offered.children)):
                resource.append(offered.scope)
            else:
                resource.extend(children)
        return ScopeSet(identity, tuple(resource))


def _children(scope: Scope) -> tuple[Scope, ...]:
    if scope.query:
        return ()
    return tuple(
        replace(scope, query=query, version_1=False)
        for query in SUB_RESOURCES.get(scope.resource_type, ())
    )
