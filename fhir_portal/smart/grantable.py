"""What of the scopes that an app asks for can be granted here: at all, and by a right; pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from fhir_portal.consent.record import RecordAccess, ScopePolicy
from fhir_portal.smart.launch import LAUNCH, LAUNCH_ENCOUNTER, LAUNCH_PATIENT, Launch
from fhir_portal.smart.right import Right
from fhir_portal.smart.scope import LETTERS, Scope, ScopeSet


@dataclass(frozen=True, slots=True)
class Grantable:
    """``policy`` bounds every scope, ``resource_types`` are what a wildcard stands for.

    ``understands`` says whether the search parameters of a granular scope exist; ``visits``,
    whether a person can be asked which visit an app is about.
    """

    policy: ScopePolicy
    resource_types: Sequence[str]
    understands: Callable[[Scope], bool]
    visits: bool

    def narrowed(self, scope: ScopeSet, right: Right | None) -> ScopeSet:
        """What of these scopes may be granted at all (``right`` ``None``) or by a right.

        Wildcards become one scope per type, except ``system/*``: there the FHIR side applies
        the same policy type by type.
        """
        context = scope.context
        if context is None:
            return scope
        if context != "system":
            scope = scope.expanded(self.resource_types)
        record = right if isinstance(right, RecordAccess) else None

        def letters(one: Scope) -> str:
            if one.query and not self.understands(one):
                return ""
            if one.resource_type != "*":
                return self.policy.grantable(one.context, one.resource_type, record)
            types = self.resource_types
            found = {c for t in types for c in self.policy.grantable(one.context, t, record)}
            return "".join(letter for letter in LETTERS if letter in found)

        return scope.limited_by(letters)

    def askable(self, scope: ScopeSet, launch: Launch | None) -> ScopeSet:
        """Leave out the launch scopes that nothing can be told for.

        ``launch`` goes with a launch by an EHR, and ``launch/patient`` without one is a choice of
        record, which staff do not make. A visit is the EHR's, or chosen from those the app may see.
        """
        if launch is not None:
            told = {LAUNCH, LAUNCH_PATIENT}
            told |= {LAUNCH_ENCOUNTER} if launch.context.encounter is not None else set()
        else:
            told = {LAUNCH_PATIENT} if scope.context != "user" else set()
            if self.visits and sees_visits(scope):
                told.add(LAUNCH_ENCOUNTER)
        words = tuple(
            word for word in scope.identity if not word.startswith(LAUNCH) or word in told
        )
        return replace(scope, identity=words)


def sees_visits(scope: ScopeSet) -> bool:
    """Whether an app with these scopes could look up and read visits of the record."""
    return all(
        any(one.context == "patient" and one.allows(letter, "Encounter") for one in scope.resource)
        for letter in "rs"
    )
