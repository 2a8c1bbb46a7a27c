"""A practice on this deployment: its key in every row, its name on pages, its time zone."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import datetime
from typing import ClassVar, Final
from zoneinfo import ZoneInfo

from fhir_portal.accounts.spoken_code import check_sign, number_in_signs, read_signs
from fhir_portal.records import Record, RecordReader

_ID_SIGNS: Final = 5  # and one to check
_LONGEST_NAME: Final = 200


class Practice(Record, frozen=True, kw_only=True):
    """``key`` is the practice key, ``zone`` an IANA time zone, ``organization`` its own.

    ``phone`` is where people ask for help who cannot sign in.
    """

    kind: ClassVar[str] = "practice"
    is_counted: ClassVar[bool] = True

    name: str
    zone: str = "UTC"
    organization: str | None = None
    phone: str | None = None

    @property
    def practice_id(self) -> str:
        """What people type to say which practice they mean: six signs, the last one to check."""
        number = int.from_bytes(hashlib.sha256(f"practice-id {self.key}".encode()).digest())
        signs = number_in_signs(number, _ID_SIGNS)
        return signs + check_sign(signs)


async def every_practice(reader: RecordReader) -> list[Practice]:
    """Return the practices of this deployment, by name."""
    found: list[Practice] = []
    while page := await reader.every(Practice, after=found[-1].key if found else ""):
        found += page
    return sorted(found, key=lambda one: (one.name.casefold(), one.key))


def practice_id_in(typed: str) -> str | None:
    """Return the practice ID that was typed, as `Practice.practice_id` writes it, or ``None``."""
    return read_signs(typed, _ID_SIGNS + 1) or None


def practice_name_in(typed: str) -> str:
    """Return a practice's name as it is compared: case and runs of spaces do not matter."""
    return " ".join(typed[:_LONGEST_NAME].casefold().split())


def local_time(zone: str, moment: float) -> str:
    """Return a moment (seconds since 1970 UTC) as people of a practice read it, with its zone."""
    there = datetime.fromtimestamp(moment, ZoneInfo(zone))
    clock = f"{there:%I:%M %p}".removeprefix("0")
    return f"{there:%A, %B} {there.day}, {there.year}, {clock} ({there.tzname() or zone})"


async def practice_names(reader: RecordReader, persons: Sequence[str]) -> list[str]:
    """Return what the practices are called that know an account's ``persons``."""
    keys = {person.partition("/")[0] for person in persons}
    found = [await reader.get(Practice, key) for key in sorted(keys)]
    return [practice.name for practice in found if practice is not None]
