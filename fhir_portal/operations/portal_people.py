"""``Patient/[id]/$portal-people``: the Persons behind whom somebody may come to a record."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from fhir_portal.access.owners import local_target
from fhir_portal.access.visibility import Visibility
from fhir_portal.accounts.account import account_of_person
from fhir_portal.fhir import json
from fhir_portal.fhir.interaction import FhirResponse
from fhir_portal.operations.call import Call
from fhir_portal.resources.store import Row
from fhir_portal.search.request import MAX_VALUES, SearchRequest, parse_query

_MOST: Final = 100
"""RelatedPersons of one patient that are looked at; with the patient they fit one search."""
assert _MOST < MAX_VALUES  # noqa: S101 - by the two numbers


async def portal_people(call: Call) -> FhirResponse:
    """Return each Person of the practice that is this patient, or is related to them.

    A Person says who somebody is, not what they may see: that is for the grants to say.
    """
    row = await call.target(call.server.store)
    related = await _found(call, "RelatedPerson", f"patient={row.key}")
    ways = [str(row.key), *(str(one.key) for one in related)]
    found = []
    for person in await _found(call, "Person", f"link={','.join(ways)}"):
        account = await account_of_person(call.server.store, f"{call.auth.practice}/{person.key}")
        status = "none" if account is None else "disabled" if account.disabled else "enabled"
        found += [
            (ways.index(way), str(person.key), way, assurance, status)
            for way, assurance in _links(json.parse(person.body))
            if way in ways
        ]
    return call.answer(
        {
            "people": [
                {
                    "person": {"reference": person},
                    "as": {"reference": way},
                    "assurance": assurance,
                    "status": status,
                }
                for _, person, way, assurance, status in sorted(found, key=lambda one: one[:3])
            ]
        },
        row,
    )


def _links(person: Mapping[str, Any]) -> Iterator[tuple[str, str | None]]:
    for link in person.get("link") or ():
        target = local_target((link.get("target") or {}).get("reference") or "")
        if target is not None:
            yield str(target), link.get("assurance")


async def _found(call: Call, resource_type: str, query: str) -> tuple[Row, ...]:
    visible = Visibility.of_practice(resource_type, practice=call.auth.practice, labels=None).own()
    request = SearchRequest(resource_type, parse_query(resource_type, query), count=_MOST)
    return (await call.server.store.search(request, visible)).rows
