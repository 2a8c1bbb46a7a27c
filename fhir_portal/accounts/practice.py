"""A practice on this deployment: its key in every row, its name on pages, its time zone."""

from __future__ import annotations

from typing import ClassVar

from fhir_portal.records import Record


class Practice(Record, frozen=True, kw_only=True):
    """``key`` is the practice key, ``zone`` an IANA time zone, ``organization`` its own."""

    kind: ClassVar[str] = "practice"

    name: str
    zone: str = "UTC"
    organization: str | None = None
