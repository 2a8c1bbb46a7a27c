"""Whether what somebody says of themselves fits a Patient: deterministic, with score and reasons.

For people who begin without an invitation, by the mail address that the practice has. The mail
address and the birth date must be the same; the name may be written in other ways, as one is: in
any use (a former name, a nickname), order, case, with accents and hyphens or without, or as it
stands on the own insurance card. What only comes near is for staff. Nothing in here reaches a page.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from fhir_portal.accounts.matter import Candidate
from fhir_portal.operations.same_person import (
    current_telecom,
    name_parts,
    same_name,
    words_of,
)

MAIL: Final = 30
BIRTH_DATE: Final = 40
NAME: Final = 30
HALF_A_NAME: Final = 15
EXACT: Final = MAIL + BIRTH_DATE + NAME
NEAR: Final = MAIL + NAME
"""From here on staff see a candidate: two of the three fit."""


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
    names = [(name, *name_parts(name)) for name in patient.get("name") or ()]
    for name, given, family in names:
        if same_name(said.first, said.last, given, family):
            return NAME, f"name ({name.get('use', 'no use')})"
    for card in cards:
        if words_of(f"{said.first} {said.last}") == words_of(card) and words_of(card):
            return NAME, "name on the insurance card"
    for _, given, family in names:
        if words_of(said.last) & words_of(family):
            return HALF_A_NAME, "last name alone"
        if words_of(said.first) & words_of(" ".join(given)):
            return HALF_A_NAME, "first name alone"
    return 0, ""
