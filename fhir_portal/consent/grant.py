"""A proxy grant: what a Consent of the ``proxy-grant`` profile says, read strictly.

Anything outside the profile makes it convey nothing (DESIGN: the grant). Source: FHIR R4 §6.2
(Consent); the profile is ``ig/input/fsh``.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, time, timedelta
from typing import Any, ClassVar, Final
from zoneinfo import ZoneInfo

from fhir_portal.consent.sections import SECTION_SYSTEM, section_displays
from fhir_portal.records import Record

IG: Final = "https://fhir-portal.example/ig"
CATEGORY: Final = (f"{IG}/CodeSystem/consent-category", "proxy-grant")
_SCOPE: Final = ("http://terminology.hl7.org/CodeSystem/consentscope", "patient-privacy")
_OPTOUT: Final = ("http://terminology.hl7.org/CodeSystem/v3-ActCode", "OPTOUT")
_GRANTEE: Final = ("http://terminology.hl7.org/CodeSystem/v3-RoleCode", "GRANTEE")
_ACTION: Final = "http://terminology.hl7.org/CodeSystem/consentaction"

_CONSENT: Final = frozenset(
    (
        "resourceType id meta text language identifier status scope category patient dateTime "
        "performer organization sourceReference policyRule provision"
    ).split()
)
_ROOT: Final = frozenset({"period", "actor", "provision"})
_NESTED: Final = frozenset({"type", "code", "action"})


class Grant(Record, frozen=True, kw_only=True):
    """One standing grant, kept by the server beside the Consent it was read from.

    Only a Consent written by someone who may write grants gets one, in the same transaction;
    ``key`` is ``practice/<Consent id>``. ``start`` and ``end`` are seconds since 1970 UTC, ``end``
    exclusive.
    """

    kind: ClassVar[str] = "grant"
    indexed: ClassVar[tuple[str, ...]] = ("related_person", "patient")

    practice: str
    consent: str
    patient: str
    related_person: str
    """``practice/<RelatedPerson id>``."""
    sections: tuple[str, ...]
    act: tuple[str, ...]
    start: float | None
    end: float | None


def is_grant(tree: Mapping[str, Any]) -> bool:
    """Whether a Consent claims to be a proxy grant, well made or not."""
    return any(_is(concept, CATEGORY) for concept in tree.get("category") or ())


def read_grant(tree: Mapping[str, Any], *, practice: str, zone: ZoneInfo) -> Grant | None:
    """Read a grant from a Consent; ``None`` when it is not active or leaves the profile.

    A date-only end runs to midnight in the practice's ``zone``.
    """
    provision: Any = tree.get("provision")
    if (
        tree.get("status") != "active"
        or not _CONSENT.issuperset(tree)
        or _has_modifier(tree)
        or not _is(tree.get("scope"), _SCOPE)
        or len(tree.get("category") or ()) != 1
        or not is_grant(tree)
        or not _is(tree.get("policyRule"), _OPTOUT)
        or not tree.get("performer")
        or not (tree.get("sourceReference") or _patient_granted(tree))
        or not isinstance(provision, Mapping)
        or not _ROOT.issuperset(provision)
    ):
        return None
    period: Any = provision.get("period")
    actors: Any = provision.get("actor") or []
    patient = _local((tree.get("patient") or {}), "Patient")
    if not isinstance(period, Mapping) or not {"start", "end"}.issuperset(period):
        return None
    if "start" not in period or patient is None or len(actors) != 1:
        return None
    if {"role", "reference"} != set(actors[0]) or not _is(actors[0]["role"], _GRANTEE):
        return None
    related_person = _local(actors[0].get("reference") or {}, "RelatedPerson")
    sections: set[str] = set()
    act: set[str] = set()
    for nested in provision.get("provision") or ():
        read = _section(nested)
        if read is None or read[0] in sections:
            return None
        sections.add(read[0])
        if read[1]:
            act.add(read[0])
    try:
        start = _edge(period.get("start"), zone, end=False)
        end = _edge(period.get("end"), zone, end=True)
    except (ValueError, OverflowError):
        return None
    if related_person is None or not sections:
        return None
    return Grant(
        key=f"{practice}/{tree['id']}",
        practice=practice,
        consent=tree["id"],
        patient=patient,
        related_person=f"{practice}/{related_person}",
        sections=tuple(sorted(sections)),
        act=tuple(sorted(act)),
        start=start,
        end=end,
    )


def is_current(grant: Grant, at: float) -> bool:
    """Whether a grant's period covers an instant (seconds since 1970 UTC)."""
    return (grant.start is None or grant.start <= at) and (grant.end is None or at < grant.end)


def goes_beyond(new: Grant, old: Grant) -> bool:
    """Whether a grant lets anybody do, see or go on longer than the one it takes the place of.

    Somebody else's, or for somebody else's record, goes beyond any.
    """
    return (
        (new.practice, new.patient, new.related_person)
        != (old.practice, old.patient, old.related_person)
        or not set(new.sections) <= set(old.sections)
        or not set(new.act) <= set(old.act)
        or (old.start is not None and (new.start is None or new.start < old.start))
        or (old.end is not None and (new.end is None or new.end > old.end))
    )


def _section(nested: Mapping[str, Any]) -> tuple[str, bool] | None:
    codes: Any = nested.get("code") or []
    actions: Any = nested.get("action") or []
    if nested.get("type") != "permit" or not _NESTED.issuperset(nested) or len(codes) != 1:
        return None
    codings: Any = codes[0].get("coding") or []
    if len(codings) != 1 or codings[0].get("system") != SECTION_SYSTEM:
        return None
    section = codings[0].get("code")
    if section not in section_displays():
        return None
    if actions and _is(actions[0], (_ACTION, "access")):
        if len(actions) == 1:
            return section, False
        if len(actions) == 2 and _is(actions[1], (_ACTION, "correct")):  # noqa: PLR2004
            return section, True
    return None


def _patient_granted(tree: Mapping[str, Any]) -> bool:
    patient = (tree.get("patient") or {}).get("reference")
    return any(one.get("reference") == patient for one in tree["performer"])


def _is(concept: Any, wanted: tuple[str, str]) -> bool:
    codings: Any = (concept.get("coding") or []) if isinstance(concept, Mapping) else []
    return len(codings) == 1 and (codings[0].get("system"), codings[0].get("code")) == wanted


def _local(reference: Mapping[str, Any], resource_type: str) -> str | None:
    name, _, own_id = (reference.get("reference") or "").partition("/")
    return own_id if name == resource_type and own_id and "/" not in own_id else None


def _has_modifier(node: Any) -> bool:
    if isinstance(node, Mapping):
        return "modifierExtension" in node or any(_has_modifier(v) for v in node.values())
    return isinstance(node, list) and any(_has_modifier(v) for v in node)


def _edge(text: str | None, zone: ZoneInfo, *, end: bool) -> float | None:
    """One edge of the period; a partial date covers its whole span in the practice's zone.

    An end in the year 9999 is how some systems write "open".
    """
    if text is None or (end and text.startswith("9999")):
        return None
    if "T" in text:
        moment = datetime.fromisoformat(text)
        if moment.tzinfo is None:
            raise ValueError(text)
        return moment.timestamp()
    year, *rest = (int(part) for part in text.split("-"))
    month, day = (*rest, 1, 1)[:2]
    if end:
        if len(rest) == 2:  # noqa: PLR2004 - a full date ends at its midnight
            following = datetime(year, month, day, tzinfo=zone).date() + timedelta(days=1)
            return datetime.combine(following, time(), zone).timestamp()
        if len(rest) == 1:
            year, month = (year + 1, 1) if month == 12 else (year, month + 1)  # noqa: PLR2004
        else:
            year += 1
    return datetime(year, month, day, tzinfo=zone).timestamp()
