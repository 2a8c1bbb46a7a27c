"""What a practice has on file about reaching a person, and whether it knows that person already."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any, Final

from fhir_portal.access.visibility import Visibility
from fhir_portal.accounts.account import Account, AccountPerson
from fhir_portal.accounts.contacts import InvalidContact, Medium, mail_address, telephone_number
from fhir_portal.fhir import json
from fhir_portal.fhir.datetime import period_of
from fhir_portal.fhir.reference import ResourceKey
from fhir_portal.resources.store import ResourceTransaction, Row
from fhir_portal.search.registry import parameters_for

_MOST: Final = 200
_MICROSECONDS: Final = 1_000_000
_NO_LONGER: Final = "old"
_LANDLINES: Final = frozenset({"home", "work", "temp"})
_UNRANKED: Final = 1000


@dataclass(frozen=True, slots=True)
class OnFile:
    """One address or number, as `fhir_portal.accounts.contacts` writes it."""

    medium: Medium
    value: str


def contacts_on_file(tree: Mapping[str, Any], *, country: str, now: float) -> list[OnFile]:
    """Return how a Patient or RelatedPerson can be written to, the preferred first.

    What cannot be an address, is old, or is no mobile telephone, is left out.
    """
    points = [one for one in tree.get("telecom") or () if isinstance(one, Mapping)]
    points.sort(key=lambda one: int(one.get("rank") or _UNRANKED))  # R4: the lower, the better
    found = (contact_of(one, country=country) for one in points if not _is_over(one, now))
    return list(dict.fromkeys(one for one in found if one is not None))


def contact_of(point: Mapping[str, Any], *, country: str) -> OnFile | None:
    """Return what a ContactPoint says, ``None`` if nobody can write there."""
    system, value = point.get("system"), point.get("value")
    if not isinstance(value, str) or point.get("use") == _NO_LONGER:
        return None
    try:
        if system == "email":
            return OnFile("mail", mail_address(value))
        if system == "sms" or (system == "phone" and point.get("use") not in _LANDLINES):
            return OnFile("sms", telephone_number(value, region=country or None))
    except InvalidContact:
        return None
    return None


def _is_over(point: Mapping[str, Any], now: float) -> bool:
    end = (point.get("period") or {}).get("end")
    try:
        return end is not None and period_of(end)[1] < now * _MICROSECONDS
    except ValueError:
        return True


def may_be_invited(person: Mapping[str, Any]) -> bool:
    """Whether a Patient or RelatedPerson, if there is one, is active and known to live."""
    return (
        bool(person)
        and person.get("active") is not False
        and person.get("deceasedBoolean") is not True
        and "deceasedDateTime" not in person
    )


def last_day_under(years: int, birth_date: str | None) -> str | None:
    """Return the last day on which somebody is younger; of a partial date, the first it may be."""
    if birth_date is None:
        return None
    try:
        born = date.fromisoformat(f"{birth_date}-01-01"[:10])
        leap = (born.month, born.day) == (2, 29)
        grown = born.replace(year=born.year + years, day=28 if leap else born.day)
    except ValueError:
        return None
    return (grown - timedelta(days=1)).isoformat()


async def account_of_record(
    transaction: ResourceTransaction, practice: str, key: ResourceKey
) -> str | None:
    """Return the account that a Patient or RelatedPerson of a practice has, by its Person."""
    persons = await transaction.referring(
        parameters_for("Person")["link"],
        [key],
        Visibility.of_server("Person", practice=practice),
        limit=_MOST,
    )
    for person in persons:
        found = await transaction.get(AccountPerson, f"{practice}/{person.key}")
        if found is not None:
            return found.account
    return None


async def has_account(transaction: ResourceTransaction, practice: str, key: ResourceKey) -> bool:
    """Whether somebody has an account that may use the record, if the practice does not shut it.

    One that another practice helped to recover needs a new proof here, so that it is invited anew.
    """
    known = await account_of_record(transaction, practice, key)
    account = await transaction.get(Account, known or "")
    return bool(known) and (account is None or practice not in account.closed_at)


async def related_persons_of(
    transaction: ResourceTransaction, practice: str, patient: ResourceKey
) -> list[tuple[Row, Mapping[str, Any]]]:
    """Return the active RelatedPersons of a patient."""
    rows = await transaction.referring(
        parameters_for("RelatedPerson")["patient"],
        [patient],
        Visibility.of_server("RelatedPerson", practice=practice),
        limit=_MOST,
    )
    trees = [(row, json.parse(row.body)) for row in rows if not row.deleted]
    return [(row, tree) for row, tree in trees if tree.get("active") is not False]


def seem_the_same(
    one: Mapping[str, Any], other: Mapping[str, Any], *, country: str, now: float
) -> str:
    """Return why two RelatedPersons may be one person, or ``""``."""
    if set(folded_names(one)) & set(folded_names(other)):
        return "has the same name"
    mine = set(contacts_on_file(one, country=country, now=now))
    if mine & set(contacts_on_file(other, country=country, now=now)):
        return "is reached in the same way"
    return ""


def initials(tree: Mapping[str, Any]) -> str:
    """Return a person's initials, as far as they have any: ``A. Q.``."""
    for name in tree.get("name") or ():
        words = [*(name.get("given") or ())[:1], *str(name.get("family") or "").split()[:1]]
        words = words or str(name.get("text") or "").split()[:2]
        letters = [word.strip()[:1].upper() for word in words if isinstance(word, str)]
        if any(letter.isalpha() for letter in letters):
            return " ".join(f"{letter}." for letter in letters if letter.isalpha())
    return ""


def folded_names(tree: Mapping[str, Any]) -> Iterator[str]:
    """Yield the names of a person as they are compared: in each use, letters and digits alone."""
    for name in tree.get("name") or ():
        words = [*(name.get("given") or ()), name.get("family") or ""]
        text = " ".join(str(word) for word in words).strip() or str(name.get("text") or "")
        plain = unicodedata.normalize("NFKD", text).casefold()
        folded = "".join(sign for sign in plain if sign.isalnum())
        if folded:
            yield folded
