"""What somebody who invites asks for.

An operation reads it of its parameters; a rule of the practice's has its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fhir_portal.accounts.invitation import Channel, Kind
from fhir_portal.consent.presets import Basis


@dataclass(frozen=True, slots=True, kw_only=True)
class ForAnother:
    """What is asked for somebody who acts for the patients.

    ``persons`` and ``evidence`` are by Patient id: the RelatedPerson's resource, and the text of
    the reference to a DocumentReference of that patient. ``telecom``, ``name`` and ``relationship``
    are a new RelatedPerson's. Without ``sections`` (code, whether to act) the preset counts.
    """

    persons: Mapping[str, Mapping[str, Any]]
    basis: Basis | None
    evidence: Mapping[str, str]
    name: Mapping[str, Any] | None = None
    relationship: Mapping[str, Any] | None = None
    telecom: Sequence[Mapping[str, Any]] = ()
    sections: Sequence[tuple[str, bool]] = ()
    start: str | None = None
    end: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What is asked for; ``lifetime`` is in seconds, ``another`` is for all kinds but ``self``."""

    kind: Kind
    another: ForAnother | None = None
    channel: Channel | None = None
    contact: str | None = None
    lifetime: float | None = None
    reason: str = ""
    force: bool = False
