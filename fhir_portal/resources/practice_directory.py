"""What a practice's own directory says of how to reach it, published for everybody.

Source: FHIR R4 Organization and HealthcareService. What leaves here is the copy that
`fhir_portal.accounts.practice_contact` describes, and nothing else of the resources.
"""

from __future__ import annotations

from typing import Final, Protocol

from fhir_portal.access.visibility import Visibility
from fhir_portal.accounts.practice import Practice
from fhir_portal.accounts.practice_contact import PracticeContact, contact_of
from fhir_portal.consent.labels import is_listed_in_directory
from fhir_portal.fhir import json
from fhir_portal.fhir.reference import ResourceKey
from fhir_portal.records import RecordReader
from fhir_portal.resources.store import ResourceReader, ResourceTransaction
from fhir_portal.search.request import parse_search

_SERVICES: Final = 50


class NotInDirectory(Exception):
    """The practice has no Organization of its own that is in its directory; the words say why."""


class DirectoryReader(RecordReader, ResourceReader, Protocol):
    """Records and resources."""


async def contact_in_directory(
    reader: DirectoryReader, practice: str, *, now: float
) -> PracticeContact:
    """Return how to reach a practice, by its own Organization and the HealthcareServices of that.

    Only what carries the tag `directory` is taken: the practice's own word that everybody may see
    it. Raises `NotInDirectory`.
    """
    known = await reader.get(Practice, practice)
    name = known.organization if known is not None else None
    if name is None:
        message = f"the practice '{practice}' names no Organization of its own"
        raise NotInDirectory(message)
    visible = Visibility.of_server("Organization", practice=practice)
    row = await reader.read(ResourceKey.parse(name), visible)
    if row is None or row.deleted or not row.facts.directory:
        message = f"{name} is not in the practice's directory"
        raise NotInDirectory(message)
    asked = parse_search(
        "HealthcareService",
        [("organization", name), ("_sort", "name"), ("_count", str(_SERVICES))],
        base="",
    )
    page = await reader.search(asked, Visibility.of_server("HealthcareService", practice=practice))
    services = [json.parse(one.body) for one in page.rows]
    return contact_of(
        practice,
        json.parse(row.body),
        [one for one in services if one.get("active") is not False and is_listed_in_directory(one)],
        now=now,
    )


async def publish_contact(
    transaction: ResourceTransaction, practice: str, *, now: float
) -> PracticeContact:
    """Put `contact_in_directory` in place of what was published before, and return it."""
    contact = await contact_in_directory(transaction, practice, now=now)
    await transaction.put(contact)
    return contact
