"""All checks on a resource before it is written: the model gate, and our own rules.

What ``fhir.resources`` lets through is caught here: required bindings, reference targets and
syntax, strict JSON types, empty arrays, invariants, unsafe narrative.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from fhir_portal.fhir import model
from fhir_portal.fhir.definitions import served_types
from fhir_portal.fhir.errors import Invalid, Issue, UnknownType
from fhir_portal.resources.validation.walker import walk

_MALFORMED = frozenset({"structure", "required", "value", "not-supported"})


def validate(tree: dict[str, Any], body: bytes) -> list[Issue]:
    """What is wrong with a resource; an empty list when it may be written.

    Our own walk over ``tree`` comes first because it is cheap and names places best; only what it
    finds sound is put to ``fhir.resources``, which reads ``body``, the same resource as JSON.
    The words never quote a value; ``expression`` is FHIRPath from the outermost resource.

    Raises:
        Invalid: when there is no ``resourceType``.
        UnknownType: when it is not a type this server serves.
    """
    resource_type = tree.get("resourceType")
    if not isinstance(resource_type, str):
        raise Invalid("The body has no resourceType.")
    if resource_type not in served_types():
        raise UnknownType("resourceType is not a type of this server.")
    return walk(tree) or model.check(resource_type, body)


def status_for(issues: Iterable[Issue]) -> int:
    """400 when any issue is about form, 422 when all are about rules (FHIR R4 §3.1.0.8).

    Form: structure, cardinality, value syntax. Rules: invariants, reference targets, value sets.
    """
    return 400 if any(issue.code in _MALFORMED for issue in issues) else 422
