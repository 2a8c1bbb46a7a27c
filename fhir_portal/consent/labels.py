"""Security labels: which of them hide a resource, and from whom.

Source: FHIR R4 §6.1.1 (security labels), v3-Confidentiality, v3-ActCode sensitivity codes. A label
this table does not know is kept as ``-unknown``, which no restricted reader is permitted.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any, Final

CONFIDENTIALITY: Final = "http://terminology.hl7.org/CodeSystem/v3-Confidentiality"
ACT_CODE: Final = "http://terminology.hl7.org/CodeSystem/v3-ActCode"
PORTAL_TAG: Final = "https://fhir-portal.example/ig/CodeSystem/portal-tag"

ORIGIN: Final = "https://fhir-portal.example/ig/CodeSystem/information-origin"
SUPPLIED: Final = "patient-supplied"
"""The tag and the category of what somebody of the patient's side brought."""

WITHHELD: Final = "withheld"
"""Held back by the practice: from the patient and from every proxy."""
UNKNOWN: Final = "-unknown"
SETTLING: Final = "-settling"
SETTLED: Final = "-settled"
UNSETTLED: Final = frozenset({SETTLING, SETTLED})
"""Stand where labels are being computed anew (`fhir_portal.resources.settling`): on what is not
computed yet, and on what is and waits for the rest. No restricted reader is permitted either."""
FOR_STAFF: Final[Mapping[str, str]] = {
    "appointments": "staff-appointments",
    "invite": "staff-invite",
    "recover": "staff-recover",
    "billing": "staff-billing",
    "documents": "staff-documents",
}
"""By permission of an access level, the tag of what is for those of a practice's staff who have it,
and for no patient and nobody who acts for one."""

_OPEN: Final = frozenset({"U", "L", "M", "N"})
_CONFIDENTIAL: Final = frozenset({"R", "V"})
_SENSITIVE: Final = frozenset(
    (
        "ADOL ALC BH CELEB DEMO DIA DRGIS DVD EMP ETH ETHUD GDIS HIV LOCIS MARST MST OPIOIDUD PHY "
        "PREGNANT PSY PSYTHPN RACE REL SCA SDV SEX SICKLE SOC SPI SSP STD SUD TABOO VIO"
    ).split()
)
_HARMLESS_SYSTEMS: Final = frozenset(
    {
        "http://terminology.hl7.org/CodeSystem/v3-ActReason",
        "http://terminology.hl7.org/CodeSystem/v3-ObservationValue",
    }
)

SENSITIVE: Final = _CONFIDENTIAL | _SENSITIVE
SELF_LABELS: Final = SENSITIVE - {"TABOO"}
"""Labels a person's own record may carry and still be shown to that person. TABOO says of itself
that a physician tells the patient first: until it is taken away it hides as `WITHHELD` does."""
PROXY_LABELS: Final[frozenset[str]] = frozenset()
"""A proxy sees nothing that carries a label; a grant cannot widen this yet."""
OWN_GRANT_LABELS: Final = frozenset({"R"})
"""But for the own grant: ``$portal-invite`` makes each restricted, so that nobody else who acts for
the patient sees it."""
_OF_TAG: Final = frozenset({WITHHELD, *FOR_STAFF.values()})


def staff_labels(permissions: Collection[str]) -> frozenset[str] | None:
    """Return the labels of what staff of an access level may see (``None``: whatever they are)."""
    if FOR_STAFF.keys() <= set(permissions):
        return None
    shown = {label for permission, label in FOR_STAFF.items() if permission in permissions}
    return SENSITIVE | {WITHHELD, UNKNOWN} | shown


def labels_of(tree: Mapping[str, Any]) -> frozenset[str]:
    """Return the labels a resource carries in ``meta.security`` and ``meta.tag``."""
    return frozenset(_labels(tree.get("meta") or {}))


def labelling(*trees: Mapping[str, Any]) -> dict[str, Any]:
    """Return the ``meta`` that labels a resource as these are: what is made of them is as hidden.

    It holds every ``security`` label, and of the tags those that label; nothing where none is.
    """
    found: dict[str, dict[str, Any]] = {"security": {}, "tag": {}}
    for tree in trees:
        meta = tree.get("meta") or {}
        found["security"] |= {str(one): one for one in meta.get("security") or ()}
        found["tag"] |= {str(one): one for one in meta.get("tag") or () if _is_label(one)}
    return {name: list(codings.values()) for name, codings in found.items() if codings}


def is_listed_in_directory(tree: Mapping[str, Any]) -> bool:
    """Whether the practice tagged a resource as part of its directory."""
    tags = (tree.get("meta") or {}).get("tag") or ()
    return any(tag.get("system") == PORTAL_TAG and tag.get("code") == "directory" for tag in tags)


def is_supplied(tree: Mapping[str, Any]) -> bool:
    """Whether somebody of the patient's side brought it."""
    tags = (tree.get("meta") or {}).get("tag") or ()
    return any((one.get("system"), one.get("code")) == (ORIGIN, SUPPLIED) for one in tags)


def _labels(meta: Mapping[str, Any]) -> Iterator[str]:
    for coding in meta.get("security") or ():
        system, code = coding.get("system"), coding.get("code")
        if system == CONFIDENTIALITY and code in _OPEN:
            continue
        if system in _HARMLESS_SYSTEMS:
            continue
        known = (system == CONFIDENTIALITY and code in _CONFIDENTIAL) or (
            system == ACT_CODE and code in _SENSITIVE
        )
        yield code if known else UNKNOWN
    for tag in meta.get("tag") or ():
        if _is_label(tag):
            yield tag["code"]


def _is_label(tag: Mapping[str, Any]) -> bool:
    return tag.get("system") == PORTAL_TAG and tag.get("code") in _OF_TAG
