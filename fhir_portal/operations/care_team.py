"""Who a patient can write to: the people of their care team, as far as the caller may see it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any, Final

from fhir_portal.access.owners import local_target
from fhir_portal.access.relation import name_of
from fhir_portal.access.visibility import Visibility
from fhir_portal.consent.labels import PROXY_LABELS, SELF_LABELS
from fhir_portal.fhir import json
from fhir_portal.fhir.reference import ResourceKey
from fhir_portal.operations.call import Call
from fhir_portal.resources.permission import checked
from fhir_portal.resources.store import ResourceReader
from fhir_portal.search.request import parse_search

_MOST_TEAMS: Final = 10
_ANSWERING: Final = frozenset({"Practitioner", "PractitionerRole"})


async def care_team(reader: ResourceReader, call: Call, patient: str) -> dict[str, str]:
    """Return the names of a patient's care team by ``Practitioner/<id>`` (or PractitionerRole).

    ``patient`` is an id. They are of active CareTeams, and the general practitioners; a proxy sees
    those of the sections that the grant shows.
    """
    found: dict[str, str] = {}
    for reference in [one async for one in _members(reader, call, patient)]:
        key = local_target(reference)
        if key is None or key.type not in _ANSWERING or str(key) in found:
            continue
        name = await _name(reader, call.auth.practice, key)
        if name is not None:
            found[str(key)] = name
    return found


async def _members(reader: ResourceReader, call: Call, patient: str) -> AsyncIterator[str]:
    search = parse_search(
        "CareTeam",
        [
            ("patient", f"Patient/{patient}"),
            ("status", "active"),
            ("_count", str(_MOST_TEAMS)),
        ],
        base=call.server.base,
    )
    visible = _visible(call, "CareTeam", patient)
    page = await reader.search(search, visible)
    for row in checked(page.rows, visible):
        for one in json.parse(row.body).get("participant") or ():
            for reference in _references([one.get("member"), one.get("onBehalfOf")]):
                yield reference
    own = _visible(call, "Patient", patient)
    whose = await reader.read(ResourceKey("Patient", patient), own)
    if whose is not None and not whose.deleted:
        for reference in _references(json.parse(whose.body).get("generalPractitioner")):
            yield reference


def _references(listed: Any) -> Iterator[str]:
    for one in listed or ():
        if isinstance(one, Mapping) and isinstance(one.get("reference"), str):
            yield one["reference"]


def _visible(call: Call, resource_type: str, patient: str) -> Visibility:
    """What the caller may see of a type in the record; staff see who is to be written to."""
    record = call.auth.record
    labels = None
    if record is not None:
        labels = SELF_LABELS if call.auth.is_self else PROXY_LABELS
    return Visibility.of_record(
        resource_type,
        practice=call.auth.practice,
        record=patient,
        sections=record.sections if record is not None else None,
        labels=labels,
    )


async def _name(reader: ResourceReader, practice: str, key: ResourceKey) -> str | None:
    row = await reader.read(key, Visibility.of_server(key.type, practice=practice))
    if row is None or row.deleted:
        return None
    tree = json.parse(row.body)
    if tree.get("active") is False:
        return None
    if key.type == "Practitioner":
        return name_of(tree)
    person = tree.get("practitioner") or {}
    return str(person.get("display") or "a member of the care team")
