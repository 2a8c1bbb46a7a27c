"""How a Person's portal account stands, as a tag of the Person: ``Person?portal-status=``.

The tag is the server's. It is computed from the records in the transaction of every write of a
Person, whoever writes, so that no client can say something else; what changes an account without
its Person writes the Person anew (`fhir_portal.operations.account_status`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from fhir_portal.accounts.at_practice import status_of
from fhir_portal.consent.grant import IG
from fhir_portal.fhir.definitions import ig_resource
from fhir_portal.records import RecordReader

SYSTEM: Final = f"{IG}/CodeSystem/portal-status"


async def put_status(
    reader: RecordReader, practice: str, tree: dict[str, Any], *, now: float
) -> None:
    """Set the tag of a Person that is about to be stored, in place; it comes after all others."""
    person = f"{practice}/Person/{tree['id']}"
    code = await status_of(reader, practice, person, tree, now=now)
    meta = dict(tree.get("meta") or {})
    meta["tag"] = [*others(meta.get("tag")), {"system": SYSTEM, "code": code}]
    tree["meta"] = meta


def said_status(tree: Mapping[str, Any]) -> str | None:
    """Return what a Person's tag says, ``None`` where it has none."""
    for tag in (tree.get("meta") or {}).get("tag") or ():
        if tag.get("system") == SYSTEM:
            return str(tag.get("code"))
    return None


def others(tags: Sequence[Mapping[str, Any]] | None) -> list[Mapping[str, Any]]:
    """Return the tags that are not the server's own word about an account."""
    return [one for one in tags or () if one.get("system") != SYSTEM]


def without_status(tree: Mapping[str, Any]) -> dict[str, Any]:
    """Return a Person without that tag, which is not its writer's; other types as they are."""
    if tree.get("resourceType") != "Person":
        return dict(tree)
    meta = dict(tree.get("meta") or {})
    if "tag" in meta:
        meta["tag"] = others(meta["tag"])
        if not meta["tag"]:
            del meta["tag"]
    rest = {name: value for name, value in tree.items() if name != "meta"}
    return rest | ({"meta": meta} if meta else {})


def statuses() -> tuple[str, ...]:
    """Return the codes of the guide's code system."""
    return tuple(one["code"] for one in ig_resource("CodeSystem", "portal-status")["concept"])
