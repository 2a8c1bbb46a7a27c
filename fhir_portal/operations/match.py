"""``Patient/$match``: which records of the practice somebody's particulars fit.

Source: FHIR R4, http://hl7.org/fhir/OperationDefinition/Patient-match. How well one fits is said by
`fhir_portal.operations.particulars`.
"""

from __future__ import annotations

from typing import Final

import msgspec

from fhir_portal.fhir.bundle import bundle
from fhir_portal.fhir.errors import Invalid, Unprocessable
from fhir_portal.fhir.interaction import FhirResponse
from fhir_portal.operations.call import Call
from fhir_portal.operations.particulars import Match, matches, particulars_of

MATCH_GRADE: Final = "http://hl7.org/fhir/StructureDefinition/match-grade"
DEFAULT_COUNT: Final = 20
MOST: Final = 50


async def match(call: Call) -> FhirResponse:
    """Return a searchset of the Patients that fit, with score and grade, the best first.

    With ``onlyCertainMatches`` that is the one certain match; where there is none, or another
    comes near it, the answer is empty.

    Raises:
        Invalid: ``resource`` is no Patient, ``count`` is less than one.
        Unprocessable: there is nothing to look for in it.
    """
    patient = call.arguments.one("resource")
    if patient.get("resourceType") != "Patient":
        message = "the parameter resource holds a Patient"
        raise Invalid(message, expression="Parameters.parameter.resource")
    count = call.arguments.one("count")
    if count is not None and count < 1:
        message = "count is 1 or more"
        raise Invalid(message, expression="Parameters.parameter.value")
    wanted = particulars_of(patient)
    if not wanted.say_anything:
        message = "give an identifier, a name, a date of birth or a contact to look for"
        raise Unprocessable(message, expression="Parameters.parameter.resource")
    found = await matches(call.server.reader, wanted, call.visible, base=call.server.base)
    if call.arguments.one("onlyCertainMatches"):
        certain = [one for one in found if one.fit.grade == "certain"]
        found = certain if len(certain) == 1 else []
    found = found[: min(count or DEFAULT_COUNT, MOST)]
    body = bundle(
        "searchset",
        total=len(found),
        links=(),
        entries=[_entry(call.server.base, one) for one in found],
    )
    touched = {record: None for one in found for record in one.row.facts.touched}
    return FhirResponse(200, body, records=tuple(touched))


def _entry(base: str, found: Match) -> bytes:
    """An entry with the record's own bytes; the score is a part of 1."""
    facts = found.row.facts
    search = {
        "extension": [{"url": MATCH_GRADE, "valueCode": found.fit.grade}],
        "mode": "match",
        "score": found.fit.points / 100,
    }
    head = f'{{"fullUrl":"{base}/{facts.resource_type}/{facts.id}","resource":'.encode()
    return b"".join((head, found.row.body, b',"search":', msgspec.json.encode(search), b"}"))
