"""Who acts for whom, how, in what and until when: ``fhirContext`` with roles of our own.

SMART App Launch 2.2 §2.0.11.3: an array of objects, each with a reference or an identifier, whose
``role`` is an absolute URI when the guide does not define it. Ours are the CodeSystem
``proxy-role``; docs/reference/proxy-context.md shows them to app developers. The token response,
introspection and the id_token all tell it in these words.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

from fhir_portal.consent.record import RecordAccess
from fhir_portal.consent.sections import SECTION_SYSTEM, section_displays
from fhir_portal.fhir.definitions import ig_resource
from fhir_portal.smart.right import Right, ends_of

RELATED_PERSON: Final = "related-person"
GRANT: Final = "grant"
RELATIONSHIP: Final = "relationship"
SECTION: Final = "section"
ACT_SECTION: Final = "act-section"
ACCESS_ENDS: Final = "access-ends"


@functools.cache
def role_uris() -> Mapping[str, str]:
    """Code of a role to the URI that stands in the launch context."""
    return {
        concept["code"]: next(
            one["valueString"] for one in concept["property"] if one["code"] == "uri"
        )
        for concept in ig_resource("CodeSystem", "proxy-role")["concept"]
    }


def proxy_context(right: Right, *, until: float | None) -> list[dict[str, Any]]:
    """What is told beside ``patient`` and ``fhirUser``; empty for one's own record without an end.

    ``until`` is the end the person chose. The end that is told is the earlier of that and the
    grant's own; when a token is refreshed that of the grant may have changed.
    """
    ends = min((one for one in (until, ends_of(right)) if one is not None), default=None)
    found: list[dict[str, Any]] = []
    if isinstance(right, RecordAccess) and right.grant is not None:
        found = [
            _referred(RELATED_PERSON, "RelatedPerson", right.fhir_user),
            _named(RELATIONSHIP, "RelatedPerson", right.relation),
            _referred(GRANT, "Consent", right.grant),
            *_sections(SECTION, right.sections or frozenset()),
            *_sections(ACT_SECTION, right.act),
        ]
    if ends is not None:
        moment = datetime.fromtimestamp(int(ends), UTC)
        found.append(_named(ACCESS_ENDS, "Consent", f"{moment:%Y-%m-%dT%H:%M:%SZ}"))
    return found


def _sections(role: str, held: frozenset[str]) -> list[dict[str, Any]]:
    return [
        _named(role, "Consent", code, system=SECTION_SYSTEM)
        for code in section_displays()
        if code in held
    ]


def _referred(role: str, resource_type: str, reference: str) -> dict[str, Any]:
    return {"reference": reference, "type": resource_type, "role": role_uris()[role]}


def _named(role: str, resource_type: str, value: str, *, system: str = "") -> dict[str, Any]:
    uri = role_uris()[role]
    identifier = {"system": system or uri, "value": value}
    return {"identifier": identifier, "type": resource_type, "role": uri}
