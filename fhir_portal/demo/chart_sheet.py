"""What every part of a chart is written with."""

from __future__ import annotations

import zlib
from dataclasses import dataclass, field
from datetime import date, datetime, time, timedelta
from zoneinfo import ZoneInfo

from fhir_portal.demo.codes import Json


def reference(to: str, display: str | None = None) -> Json:
    """A Reference to a resource of this server."""
    return {"reference": to} | ({"display": display} if display else {})


def stray(name: str) -> float:
    """A number from -1 to 1 that follows from a name."""
    return zlib.crc32(name.encode()) / 2**31 - 1


@dataclass(slots=True)
class Sheet:
    """The resources of one practice, in the order they are written, and its calendar."""

    practice: str
    name: str
    zone: str
    day: date
    resources: list[Json] = field(default_factory=list)

    def on(self, days: int) -> str:
        """The date so many days after the day of building (negative: before)."""
        return (self.day + timedelta(days)).isoformat()

    def at(self, days: int, hour: int = 9, minute: int = 0) -> str:
        """An instant on such a day, in the practice's zone."""
        moment = datetime.combine(
            self.day + timedelta(days), time(hour, minute), ZoneInfo(self.zone)
        )
        return moment.isoformat()

    def years_ago(self, years: int, days: int = 0) -> str:
        """A date of birth: so many years and days before the day of building."""
        return _years_before(self.day, years, days).isoformat()

    def add(self, kind: str, own_id: str, /, **elements: object) -> str:
        """Write a resource down and return its reference; ``None`` is no element."""
        given = {name.rstrip("_"): value for name, value in elements.items() if value is not None}
        self.resources.append({"resourceType": kind, "id": own_id, **given})
        return f"{kind}/{own_id}"


def _years_before(day: date, years: int, days: int) -> date:
    then = day - timedelta(days)
    try:
        return then.replace(year=then.year - years)
    except ValueError:  # 29 February
        return then.replace(year=then.year - years, day=28)


def coded(system: str, code: str) -> Json:
    """A CodeableConcept of one code, without words."""
    return {"coding": [{"system": system, "code": code}]}


def phone(name: str) -> list[Json]:
    """A telephone number of the block that is kept free for invented people."""
    return [{"system": "phone", "value": f"+1 555 555 01{zlib.crc32(name.encode()) % 100:02}"}]


def address(line: str) -> Json:
    """An address in the town where the demo plays."""
    return {"line": [line], "city": "Fernhollow", "postalCode": "00000", "country": "US"}
