"""Who a message comes from: the practice's name, and the telephone for questions."""

from __future__ import annotations

from typing import Final

from fhir_portal.access.owners import local_target
from fhir_portal.access.relation import IdentityReader
from fhir_portal.access.visibility import Visibility
from fhir_portal.accounts.practice import Practice
from fhir_portal.fhir import json
from fhir_portal.notify.letter import Letterhead

NO_PRACTICE: Final = "your patient portal"
"""The name on messages about an account that belongs to no practice."""


async def letterhead_of(reader: IdentityReader, practice: str, *, portal: str) -> Letterhead:
    """Return a practice's letterhead; ``portal`` is the base URL.

    The telephone is the first one of the practice's Organization (``telecom``), or the one that the
    operator has set; ``""`` if there is none.
    """
    found = await reader.get(Practice, practice)
    if found is None:
        return Letterhead(NO_PRACTICE, "", portal)
    return Letterhead(found.name, await _phone(reader, found) or found.phone or "", portal)


async def _phone(reader: IdentityReader, practice: Practice) -> str:
    key = local_target(practice.organization or "")
    if key is None or key.type != "Organization":
        return ""
    row = await reader.read(key, Visibility.of_server(key.type, practice=practice.key))
    if row is None or row.deleted:
        return ""
    for point in json.parse(row.body).get("telecom") or ():
        if point.get("system") == "phone" and point.get("value") and point.get("use") != "old":
            return str(point["value"])
    return ""
