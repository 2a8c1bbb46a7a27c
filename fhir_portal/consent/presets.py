"""Which sections a grant opens by the kind of person it is for, where nobody chose others.

``most`` bounds the kind: a payer of bills never sees anything else, and whoever helps with the
care acts in little. What a guardian or a representative is given can be any of the sections, but
for ``sharing``: who else may see the record is for the patient, and for the practice.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

ProxyKind = Literal["guardian", "representative", "caregiver", "payer"]
Basis = Literal["parent", "guardian", "court-order", "power-of-attorney", "consent-form"]

BASES: Final[Mapping[Basis, str]] = {
    "parent": "Parent",
    "guardian": "Legal guardian",
    "court-order": "Court order",
    "power-of-attorney": "Power of attorney",
    "consent-form": "Consent form",
}


@dataclass(frozen=True, slots=True)
class Preset:
    """What a kind of person sees, and acts in, by default; and at the most."""

    see: tuple[str, ...]
    act: tuple[str, ...]
    most: frozenset[str]
    most_act: frozenset[str]


_CARE: Final = (
    *("demographics", "insurance", "appointments", "messages", "documents", "forms", "results"),
    *("medications", "immunizations", "health-summary", "visits", "billing"),
)
_IN_FULL: Final = Preset(
    see=_CARE,
    act=("demographics", "insurance", "appointments", "messages", "forms", "billing"),
    most=frozenset(_CARE),
    most_act=frozenset(_CARE),
)
_CAREGIVER: Final = (
    *("appointments", "messages", "documents", "results", "medications", "immunizations"),
    *("health-summary", "visits"),
)

PRESETS: Final[Mapping[ProxyKind, Preset]] = {
    "guardian": _IN_FULL,
    "representative": _IN_FULL,
    "caregiver": Preset(
        see=_CAREGIVER,
        act=("appointments",),
        most=frozenset(_CAREGIVER),
        most_act=frozenset({"appointments", "messages"}),
    ),
    "payer": Preset(
        see=("billing",),
        act=("billing",),
        most=frozenset({"billing"}),
        most_act=frozenset({"billing"}),
    ),
}
