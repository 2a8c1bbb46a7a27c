"""Asking `decide` on behalf of an interaction, and the second belt behind the query."""

from __future__ import annotations

from collections.abc import Iterable

from fhir_portal.access.context import AuthContext
from fhir_portal.access.policy import Ask, Deny, decide
from fhir_portal.access.visibility import Visibility
from fhir_portal.fhir.errors import Forbidden
from fhir_portal.resources.server import Server
from fhir_portal.resources.store import Row


class Leak(Exception):
    """A store returned a row outside its Visibility: answered with 500, never with the row."""


def permitted(server: Server, auth: AuthContext, letter: str, resource_type: str) -> Visibility:
    """Return what the caller may see of a type for this letter.

    Raises:
        Forbidden: with the reason, which speaks of token and type only.
    """
    answer = decide(auth, Ask(letter, resource_type, server.clock()))
    if isinstance(answer, Deny):
        raise Forbidden(answer.reason)
    return answer.visible


def permitted_or_none(
    server: Server, auth: AuthContext, letter: str, resource_type: str
) -> Visibility | None:
    """Like `permitted`, for what is left out rather than refused (includes)."""
    answer = decide(auth, Ask(letter, resource_type, server.clock()))
    return None if isinstance(answer, Deny) else answer.visible


def checked(rows: Iterable[Row], visible: Visibility) -> list[Row]:
    """Return the rows after looking once more that each is one the caller may see.

    Granular criteria and being referred to are the query's alone; everything else is repeated.
    """
    found = list(rows)
    looked_at: set[tuple[str, str, tuple[str, ...], int]] = set()
    for row in found:
        facts = row.facts
        if visible.ids is not None and facts.id not in visible.ids:
            raise Leak(visible.resource_type)
        # Rows alike in everything that counts are looked at once; classes are shared objects.
        alike = (
            facts.resource_type,
            facts.practice,
            facts.owners,
            id(facts.visibility_class),
        )
        if alike in looked_at:
            continue
        looked_at.add(alike)
        if not (
            facts.resource_type == visible.resource_type
            and facts.practice in visible.practices
            and (visible.record is None or facts.owners == (visible.record,))
            and visible.permits_class(facts.visibility_class)
        ):
            raise Leak(visible.resource_type)
    return found
