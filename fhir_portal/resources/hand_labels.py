"""Labels that staff put on a resource by hand: they stay whatever its sender sends afterwards.

They stand in ``meta.security`` like all others. An EHR that may label replaces that with each
update; so what was put there by hand is kept beside it, until it is taken away by hand.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from fhir_portal.fhir.reference import ResourceKey
from fhir_portal.records import Record, RecordTransaction


class HandLabels(Record, frozen=True, kw_only=True):
    """The labels by hand, system and code, of one resource: the ``key`` is ``practice/Type/id``."""

    kind: ClassVar[str] = "hand-labels"

    labels: tuple[tuple[str, str], ...]


async def note_by_hand(
    transaction: RecordTransaction,
    practice: str,
    key: ResourceKey,
    *,
    added: Sequence[Mapping[str, Any]],
    removed: Sequence[Mapping[str, Any]],
) -> None:
    """Note what was put on a resource by hand, and what was taken away."""
    own = f"{practice}/{key}"
    found = await transaction.get(HandLabels, own)
    before = found.labels if found is not None else ()
    gone = {_pair(one) for one in removed}
    labels = tuple(dict.fromkeys([one for one in before if one not in gone] + [*map(_pair, added)]))
    if labels:
        await transaction.put(HandLabels(key=own, labels=labels))
    elif found is not None:
        await transaction.delete(HandLabels, own)


async def keep_by_hand(
    transaction: RecordTransaction,
    practice: str,
    key: ResourceKey,
    old: Mapping[str, Any],
    tree: dict[str, Any],
) -> None:
    """Put back into ``meta.security`` what is there by hand and is missing in an update."""
    meta = tree.get("meta") or {}
    sent = list(meta.get("security") or ())
    there = {_pair(one) for one in sent}
    left_out = [
        one for one in (old.get("meta") or {}).get("security") or () if _pair(one) not in there
    ]
    if not left_out:
        return
    found = await transaction.get(HandLabels, f"{practice}/{key}")
    kept = [one for one in left_out if found is not None and _pair(one) in found.labels]
    if kept:
        tree["meta"] = {**meta, "security": sent + kept}


def _pair(coding: Mapping[str, Any]) -> tuple[str, str]:
    return str(coding.get("system") or ""), str(coding.get("code") or "")
