"""What the server says of a version in its ``meta``. Source: FHIR R4 §2.27.1."""

from __future__ import annotations

from typing import Any

from fhir_portal.fhir.datetime import instant


def stamp(tree: dict[str, Any], version: int, updated: int) -> None:
    """Set version and time (milliseconds since 1970 UTC) of a resource with an id, in place."""
    meta = {"versionId": str(version), "lastUpdated": instant(updated * 1000)}
    sent = tree.get("meta") or {}
    meta |= {name: value for name, value in sent.items() if name not in meta}
    if "meta" in tree:
        tree["meta"] = meta
        return
    members = list(tree.items())
    tree.clear()
    for name, value in members:
        tree[name] = value
        if name == "id":
            tree["meta"] = meta
