"""Whether what somebody says of themselves fits a Patient: deterministic, with score and reasons.

For people who begin without an invitation, by the mail address that the practice has. The mail
address and the birth date must be the same; the name may be written in other ways, as one is: in
any use (a former name, a nickname), order, case, with accents and hyphens or without, or as it
stands on the own insurance card. What only comes near is for staff. Nothing in here reaches a page.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from fhir_portal.accounts.activation import Candidate

MAIL: Final = 30
BIRTH_DATE: Final = 40
NAME: Final = 30
HALF_A_NAME: Final = 15
EXACT: Final = MAIL + BIRTH_DATE + NAME
NEAR: Final = MAIL + NAME
"""From here on staff see a candidate: two of the three fit."""

_APART: Final = re.compile("[\\s\\-\u2010-\u2015'\u2019.,]+")
_LETTERS: Final = str.maketrans(
    {"ø": "o", "ł": "l", "đ": "d", "ð": "d", "æ": "ae", "œ": "oe", "þ": "th"}
)
_LONGEST: Final = 200


@dataclass(frozen=True, slots=True)
class Said:
    """What somebody says of themselves; ``mail`` is as `contacts.mail_address` writes it."""

    mail: str
    first: str
    last: str
    birth_date: str


@dataclass(frozen=True, slots=True)
class Match:
    """What came of it: the one Patient that fits, or what staff are left."""

    outcome: Literal["exact", "near-miss", "ambiguous", "not-found"]
    candidates: tuple[Candidate, ...]

    @property
    def patient(self) -> str | None:
        """``Patient/<id>`` if one fits, and only one."""
        return self.candidates[0].patient if self.outcome == "exact" else None


def match(
    said: Said, patients: Sequence[Mapping[str, Any]], cards: Mapping[str, Sequence[str]]
) -> Match:
    """Hold what was said against Patients; ``cards`` are names on their own insurance cards, by id.

    The answer depends on nothing but what is given, and not on its order.
    """
    scored = [_scored(said, one, cards.get(str(one.get("id")), ())) for one in patients]
    scored.sort(key=lambda one: (-one.score, one.patient))
    exact = [one for one in scored if one.score == EXACT]
    if len(exact) == 1:
        return Match("exact", (exact[0],))
    if exact:
        return Match("ambiguous", tuple(exact))
    near = tuple(one for one in scored if one.score >= NEAR)
    return Match("near-miss", near) if near else Match("not-found", ())


def _scored(said: Said, patient: Mapping[str, Any], cards: Sequence[str]) -> Candidate:
    score = 0
    reasons: list[str] = []
    mails = {str(one.get("value", "")).strip().lower() for one in current_telecom(patient, "email")}
    if said.mail and said.mail in mails:
        score, reasons = score + MAIL, [*reasons, "mail address on file"]
    if said.birth_date and patient.get("birthDate") == said.birth_date:
        score, reasons = score + BIRTH_DATE, [*reasons, "birth date"]
    points, why = _name(said, patient, cards)
    return Candidate(
        patient=f"Patient/{patient.get('id')}",
        score=score + points,
        reasons=(*reasons, *([why] if why else [])),
    )


def _name(said: Said, patient: Mapping[str, Any], cards: Sequence[str]) -> tuple[int, str]:
    names = [(name, *_parts(name)) for name in patient.get("name") or ()]
    for name, given, family in names:
        if same_name(said.first, said.last, given, family):
            return NAME, f"name ({name.get('use', 'no use')})"
    for card in cards:
        if _words(f"{said.first} {said.last}") == _words(card) and _words(card):
            return NAME, "name on the insurance card"
    for _, given, family in names:
        if _words(said.last) & _words(family):
            return HALF_A_NAME, "last name alone"
        if _words(said.first) & _words(" ".join(given)):
            return HALF_A_NAME, "first name alone"
    return 0, ""


def same_name(first: str, last: str, given: Sequence[str], family: str) -> bool:
    """Whether a first and a last name are these, in either order and any way of writing them."""
    typed, has_given, has_family = (
        _words(f"{first} {last}"),
        _words(" ".join(given)),
        _words(family),
    )
    if not typed or not has_given or not has_family:
        return False
    if typed <= has_given | has_family and has_family <= typed and typed & has_given:
        return True
    ways = {_joined(one) for one in (*given, " ".join(given))}
    pairs = {(_joined(first), _joined(last)), (_joined(last), _joined(first))}
    return any((way, _joined(family)) in pairs for way in ways)


def same_initials(typed: tuple[str, str], names: Iterable[Mapping[str, Any]]) -> bool:
    """Whether these are the first letters of a first and a last name, of any use."""
    first, last = (_joined(one)[:1] for one in typed)
    if not first or not last:
        return False
    for name in names:
        given, family = _parts(name)
        if last == _joined(family)[:1] and first in {_joined(one)[:1] for one in given}:
            return True
    return False


def initials(names: Sequence[Mapping[str, Any]]) -> str:
    """Return the initials that a person is greeted by, ``""`` without a name."""
    known = [one for one in names if one.get("use") in {"official", "usual"}] or list(names)
    for name in known:
        given, family = _parts(name)
        signs = [part[:1].upper() for part in (*given[:1], family) if part]
        if signs:
            return " ".join(f"{sign}." for sign in signs)
    return ""


def current_telecom(resource: Mapping[str, Any], *systems: str) -> list[Mapping[str, Any]]:
    """Return the contacts of these systems that are not given up."""
    return [
        one
        for one in resource.get("telecom") or ()
        if one.get("system") in systems
        and one.get("value")
        and one.get("use") != "old"
        and "end" not in (one.get("period") or {})
    ]


def postal_code(text: str) -> str:
    """Return a postal code as it is compared: the first five of a ZIP+4 (``12345-6789``)."""
    signs = "".join(sign for sign in text[:20].upper() if sign.isascii() and sign.isalnum())
    return signs[:5] if signs.isdigit() and len(signs) == 9 else signs  # noqa: PLR2004


def _parts(name: Mapping[str, Any]) -> tuple[list[str], str]:
    """First and last name; of one that is only text, the last word is the last name."""
    given = [str(one) for one in name.get("given") or ()]
    family = str(name.get("family") or "")
    if not given and not family:
        *given, family = str(name.get("text") or "").split() or [""]
    return given, family


def _words(text: str) -> frozenset[str]:
    return frozenset(filter(None, _APART.split(_folded(text))))


def _joined(text: str) -> str:
    return _APART.sub("", _folded(text))


def _folded(text: str) -> str:
    plain = unicodedata.normalize("NFKD", text[:_LONGEST]).casefold()
    return "".join(sign for sign in plain if not unicodedata.combining(sign)).translate(_LETTERS)
