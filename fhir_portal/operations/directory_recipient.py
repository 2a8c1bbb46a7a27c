"""Whom of the practice's directory a record can be sent to, and at which address.

What is in the directory is what the practice tagged so; a Direct address is a mail address that
carries the US Core extension ``us-core-direct``. An Organization's Endpoint is looked up by the
server, and its address told to nobody.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from fhir_portal.access.owners import local_target
from fhir_portal.access.relation import name_of
from fhir_portal.access.visibility import Visibility
from fhir_portal.accounts.contacts import InvalidContact, mail_address
from fhir_portal.consent.labels import is_listed_in_directory
from fhir_portal.fhir import json
from fhir_portal.fhir.reference import ResourceKey
from fhir_portal.operations.call import Call
from fhir_portal.resources.permission import checked, permitted, permitted_or_none
from fhir_portal.resources.store import ResourceReader
from fhir_portal.search.request import parse_search

LISTED: Final = ("Practitioner", "Organization")
NAMED: Final = frozenset({"Practitioner", "PractitionerRole", "Organization"})
DIRECT: Final = "http://hl7.org/fhir/us/core/StructureDefinition/us-core-direct"
FHIR_REST: Final = "hl7-fhir-rest"
_MOST: Final = 50


@dataclass(frozen=True, slots=True)
class Listed:
    """Somebody of the directory: ``addresses`` by channel (``mail``, ``direct``, ``endpoint``)."""

    reference: str
    name: str
    addresses: Mapping[str, str]


async def directory_recipient(call: Call, reader: ResourceReader, reference: str) -> Listed | None:
    """Return who a reference names, if the practice lists them and the caller may see them."""
    key = local_target(reference)
    if key is None or str(key) != reference or key.type not in NAMED:
        return None
    visible = permitted(call.server, call.auth, "r", key.type)
    row = await reader.read(key, visible)
    if row is None or row.deleted or not row.facts.directory:
        return None
    checked([row], visible)
    return await _listed(call, reader, json.parse(row.body))


async def directory_recipients(call: Call, reader: ResourceReader, name: str) -> list[Listed]:
    """Return those of the directory whose name begins so and who can be reached in some way."""
    found: list[Listed] = []
    for kind in LISTED:
        visible = permitted_or_none(call.server, call.auth, "s", kind)
        if visible is None:
            continue
        pairs = [("name", _plain(name))] if name else []
        asked = parse_search(kind, [*pairs, ("_count", str(_MOST))], base="")
        page = await reader.search(asked, visible)
        found += [
            await _listed(call, reader, json.parse(row.body))
            for row in checked(page.rows, visible)
            if row.facts.directory
        ]
    return sorted((one for one in found if one.addresses), key=lambda one: one.name)


async def _listed(call: Call, reader: ResourceReader, tree: Mapping[str, Any]) -> Listed:
    own = f"{tree['resourceType']}/{tree['id']}"
    addresses = dict(reversed(list(_mails(tree))))  # the first of each kind
    for one in tree.get("endpoint") or ():
        address = await _endpoint(call, reader, str(one.get("reference") or ""))
        if address and "endpoint" not in addresses:
            addresses["endpoint"] = address
    named = tree.get("name")
    name = named if isinstance(named, str) else name_of(tree)
    return Listed(own, str(name or own), addresses)


def _mails(tree: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for one in tree.get("telecom") or ():
        if one.get("system") != "email" or one.get("use") in {"home", "old", "temp"}:
            continue
        is_direct = any(
            each.get("url") == DIRECT and each.get("valueBoolean") is True
            for each in one.get("extension") or ()
        )
        try:
            yield ("direct" if is_direct else "mail"), mail_address(str(one.get("value") or ""))
        except InvalidContact:
            continue


async def _endpoint(call: Call, reader: ResourceReader, reference: str) -> str:
    """The address of an Endpoint that the practice lists and that takes FHIR; or ``""``."""
    key = local_target(reference)
    if key is None or key.type != "Endpoint":
        return ""
    visible = Visibility.of_server("Endpoint", practice=call.auth.practice)
    row = await reader.read(ResourceKey("Endpoint", key.id), visible)
    if row is None or row.deleted:
        return ""
    tree = json.parse(row.body)
    if not is_listed_in_directory(tree):
        return ""
    takes = (tree.get("connectionType") or {}).get("code") == FHIR_REST
    return str(tree.get("address") or "") if takes and tree.get("status") == "active" else ""


def _plain(text: str) -> str:
    """Escape what has a meaning in a search (FHIR R4 §3.1.1.5.7)."""
    for sign in "\\|,$":
        text = text.replace(sign, f"\\{sign}")
    return text
