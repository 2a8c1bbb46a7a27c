"""Which records of a practice somebody's particulars fit, and how well.

What makes two names, postal codes or contacts the same is said in one place for every such
question (`fhir_portal.operations.same_person`). Here it is counted. The rules are fixed and few, so
that staff can see why two records were put together; none of them learns or guesses:

    =================================================  =====
    an identifier of the same system and value          +60
    the name: all of its words                          +30
    the name: the family name, and a given name begun   +20
    the name: the family name                           +10
    the date of birth                                   +30
    the same with day and month changed over            +15
    as much of it as was given (year, or with month)    +10
    a telephone number or a mail address                +15
    the postal code                                     +10
    another date of birth                               -30
    another name, in every word                         -20
    another value of an identifier's system             -20
    another administrative gender                       -10
    =================================================  =====

At most 100. From 85 a record is a *certain* match if an identifier is among what fits and nothing
speaks against it; from 60 *probable*, from 30 *possible*; below that it is not one. Candidates come
out of indexed searches under the caller's visibility, a fixed number of each: never a scan.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import phonenumbers

from fhir_portal.access.visibility import Visibility
from fhir_portal.fhir import json
from fhir_portal.fhir.reference import ResourceKey
from fhir_portal.operations.same_person import (
    current_telecom,
    name_parts,
    postal_code,
    same_name,
    words_of,
)
from fhir_portal.resources.permission import checked
from fhir_portal.resources.store import ResourceReader, Row
from fhir_portal.search.request import parse_search
from fhir_portal.search.values import escape

Grade = Literal["certain", "probable", "possible"]

IDENTIFIER, NAME, BORN, TELECOM, POSTAL_CODE = 60, 30, 30, 15, 10
NAME_BEGUN, FAMILY_ONLY, BORN_CHANGED_OVER, BORN_IN_PART = 20, 10, 15, 10
OTHER_BORN, OTHER_NAME, OTHER_IDENTIFIER, OTHER_GENDER = 30, 20, 20, 10
CERTAIN, PROBABLE, POSSIBLE = 85, 60, 30

LOOKED_AT: Final = 100
"""Candidates that each search brings at most."""
MOST_VALUES: Final = 10
"""Identifiers, contacts and words of names that are looked for at most."""

_DATE: Final = re.compile(r"(\d{4})(?:-(\d{2})(?:-(\d{2}))?)?")
_FULL_DATE: Final = len("1984-05-12")
_LEAST_DIGITS: Final = 7
_LATER_MONTHS: Final = 12


@dataclass(frozen=True, slots=True)
class PersonName:
    """One name, as it is written."""

    given: tuple[str, ...]
    family: str

    def is_same_as(self, other: PersonName) -> bool:
        """Whether one of them is the other, or that with further given names."""
        return any(
            same_name(" ".join(one.given), one.family, two.given, two.family)
            for one, two in ((self, other), (other, self))
        )

    @property
    def words(self) -> frozenset[str]:
        """All its words."""
        return words_of(" ".join((*self.given, self.family)))


@dataclass(frozen=True, slots=True)
class Particulars:
    """What is known of a person, as it is compared.

    ``identifiers`` are system and value; one without a system says nothing. ``born`` is a date of
    FHIR, also in part, or ``""``. ``contacts`` are mail addresses in lower case and the digits of
    telephone numbers; ``written`` is how they came.
    """

    identifiers: frozenset[tuple[str, str]] = frozenset()
    names: tuple[PersonName, ...] = ()
    born: str = ""
    contacts: frozenset[str] = frozenset()
    postal_codes: frozenset[str] = frozenset()
    gender: str = ""
    written: frozenset[str] = field(default=frozenset(), compare=False)

    @property
    def say_anything(self) -> bool:
        """Whether there is something to look for."""
        return bool(self.identifiers or self.names or self.born or self.contacts)


@dataclass(frozen=True, slots=True)
class Fit:
    """How well a record fits: points out of 100, its grade, and what speaks for and against it."""

    points: int
    grade: Grade | None
    reasons: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Match:
    """A record that fits."""

    row: Row
    fit: Fit


def particulars_of(patient: Mapping[str, Any]) -> Particulars:
    """Return what a Patient says that can be compared: names of every use, all contacts."""
    names = (_name(one) for one in patient.get("name") or ())
    telecom = current_telecom(patient, "phone", "sms", "email")
    return Particulars(
        identifiers=frozenset(
            (one["system"], one["value"])
            for one in patient.get("identifier") or ()
            if one.get("system") and one.get("value")
        ),
        names=tuple(dict.fromkeys(one for one in names if one.words)),
        born=patient.get("birthDate") or "",
        contacts=frozenset(
            found for one in telecom if (found := contact_of(one["value"])) is not None
        ),
        postal_codes=frozenset(
            found
            for one in patient.get("address") or ()
            if (found := postal_code(one.get("postalCode") or ""))
        ),
        gender=patient.get("gender") or "",
        written=frozenset(one["value"] for one in telecom),
    )


def contact_of(value: str) -> str | None:
    """Return a mail address or a telephone number as it is compared, ``None`` if it is neither."""
    text = value.strip()
    if "@" in text:
        return text.casefold()
    digits = phonenumbers.normalize_digits_only(text)
    # Ten digits from the end: with and without the country, or the zero of the trunk.
    return digits[-10:] if len(digits) >= _LEAST_DIGITS else None


def fit(wanted: Particulars, found: Particulars) -> Fit:
    """Return how well a record fits what is wanted, by the rules of this module."""
    points, reasons, against = 0, list[str](), list[str]()

    def count(number: int, reason: str) -> None:
        nonlocal points
        points += number
        (reasons if number > 0 else against).append(reason)

    same = wanted.identifiers & found.identifiers
    if same:
        count(IDENTIFIER, "identifier")
    elif {system for system, _ in wanted.identifiers} & {system for system, _ in found.identifiers}:
        count(-OTHER_IDENTIFIER, "other-identifier")
    number, reason = max(
        (_name_fit(one, other) for one in wanted.names for other in found.names), default=(0, "")
    )
    if number:
        count(number, reason)
    elif wanted.names and found.names:
        count(-OTHER_NAME, "other-name")
    number, reason = _born_fit(wanted.born, found.born)
    if number:
        count(number, reason)
    if wanted.contacts & found.contacts:
        count(TELECOM, "telecom")
    if wanted.postal_codes & found.postal_codes:
        count(POSTAL_CODE, "postal-code")
    sexes = {wanted.gender, found.gender}
    if sexes == {"male", "female"}:
        count(-OTHER_GENDER, "other-gender")
    points = max(0, min(points, 100))
    grade: Grade | None = None
    if points >= CERTAIN and same and not against:
        grade = "certain"
    elif points >= PROBABLE:
        grade = "probable"
    elif points >= POSSIBLE:
        grade = "possible"
    return Fit(points, grade, (*reasons, *against))


async def matches(
    reader: ResourceReader, wanted: Particulars, visible: Visibility, *, base: str
) -> list[Match]:
    """Return the active Patients that fit, the best first; equals stand in the order of their ids.

    ``visible`` bounds what is looked at and returned; ``base`` is the FHIR base.
    """
    rows: dict[ResourceKey, Row] = {}
    for pairs in _searches(wanted):
        asked = parse_search("Patient", [*pairs, ("_count", str(LOOKED_AT))], base=base)
        page = await reader.search(asked, visible)
        rows.update((row.key, row) for row in checked(page.rows, visible))
    found = []
    for row in rows.values():
        patient = json.parse(row.body)
        if patient.get("active") is False:
            continue
        its_fit = fit(wanted, particulars_of(patient))
        if its_fit.grade is not None:
            found.append(Match(row, its_fit))
    return sorted(found, key=lambda one: (-one.fit.points, str(one.row.key)))


def _searches(wanted: Particulars) -> Iterable[Sequence[tuple[str, str]]]:
    """Searches that together bring whatever could fit well enough; each uses an index."""
    identifiers = sorted(wanted.identifiers)[:MOST_VALUES]
    if identifiers:
        texts = (f"{escape(system)}|{escape(value)}" for system, value in identifiers)
        yield [("identifier", ",".join(texts))]
    if len(wanted.born) == _FULL_DATE:
        days = ",".join((wanted.born, *_changed_over(wanted.born)))
        yield [("birthdate", days), *_begun(wanted)]
        yield [("birthdate", days)]
    contacts = sorted(wanted.contacts)[:MOST_VALUES]
    mails = [escape(one) for one in contacts if "@" in one]
    if mails:
        yield [("email", ",".join(mails))]
    numbers = [spelled for one in contacts if "@" not in one for spelled in _spelled(one)]
    if numbers:
        written = sorted(one for one in wanted.written if "@" not in one)[:MOST_VALUES]
        yield [("phone", ",".join(map(escape, (*written, *numbers))))]
    for one in wanted.names[:MOST_VALUES]:
        families, given = _asked_for(one.family), _asked_for(" ".join(one.given))
        if families and given:
            yield [("name", families), ("name", given)]
            for code in sorted(wanted.postal_codes)[:MOST_VALUES]:
                yield [("name", families), ("address-postalcode", escape(code))]


def _begun(wanted: Particulars) -> list[tuple[str, str]]:
    """Words of the names: of those born on one day, these before all others."""
    words = _asked_for(" ".join(f"{' '.join(one.given)} {one.family}" for one in wanted.names))
    return [("name", words)] if words else []


def _asked_for(text: str) -> str:
    """What the index of names is asked for: words as written, and as they are compared."""
    written = text.replace(",", " ").split()
    words = dict.fromkeys((*written, *sorted(words_of(text))))
    long_ones = [one for one in words if len(one) > 1] or list(words)
    return ",".join(map(escape, long_ones[:MOST_VALUES]))


def _spelled(digits: str) -> list[str]:
    """A number of ten digits in the ways it is often written down: the index has it as it came."""
    area, middle, last = digits[:-7], digits[-7:-4], digits[-4:]
    return [
        digits,
        f"+1{digits}",
        f"+1-{area}-{middle}-{last}",
        f"+1 {area} {middle} {last}",
        f"+1 {area}-{middle}-{last}",
        f"+1 ({area}) {middle}-{last}",
        f"{area}-{middle}-{last}",
        f"({area}) {middle}-{last}",
        f"({area}) {middle} {last}",
        f"{area} {middle} {last}",
        f"{area}.{middle}.{last}",
    ]


def _name(name: Mapping[str, Any]) -> PersonName:
    given, family = name_parts(name)
    return PersonName(tuple(given), family)


def _name_fit(wanted: PersonName, found: PersonName) -> tuple[int, str]:
    if wanted.is_same_as(found) or (wanted.words and wanted.words == found.words):
        return NAME, "name"
    for one, other in ((wanted, found), (found, wanted)):
        # A word of the family name: of a double name people leave one away.
        families = words_of(one.family)
        rest = other.words - families
        if families & other.words and any(
            its.startswith(word) for word in words_of(" ".join(one.given)) for its in rest
        ):
            return NAME_BEGUN, "name-begun"
    if words_of(wanted.family) & found.words:
        return FAMILY_ONLY, "family-name"
    return 0, ""


def _born_fit(wanted: str, found: str) -> tuple[int, str]:
    if not wanted or not found:
        return 0, ""
    if len(wanted) == len(found) == _FULL_DATE:
        if wanted == found:
            return BORN, "birth-date"
        if found in _changed_over(wanted):
            return BORN_CHANGED_OVER, "birth-date-changed-over"
    elif wanted.startswith(found) or found.startswith(wanted):
        return BORN_IN_PART, "birth-date-in-part"
    return -OTHER_BORN, "other-birth-date"


def _changed_over(date: str) -> tuple[str, ...]:
    """The date with day and month changed over, if that is another one."""
    known = _DATE.fullmatch(date)
    if known is None or known[3] is None:
        return ()
    year, month, day = known.groups()
    return (f"{year}-{day}-{month}",) if day != month and int(day) <= _LATER_MONTHS else ()
