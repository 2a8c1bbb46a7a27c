"""Rules of labels and of release as the staff pages show them, and as their forms say them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from fhir_portal.consent.label_rules import EXCEPTIONS, LONGEST_DELAY_HOURS, RELEASABLE
from fhir_portal.operations.labels import LABELLED_BY_HAND
from fhir_portal.web.form import Pairs
from fhir_portal.web.pages.label_words import LABEL_WORDS, hidden_from, label_words
from fhir_portal.web.pages.words import type_words

LABEL, RELEASE = "label", "release"
EDITABLE: Final = 500
"""Codes that fit in a form; a longer list is set by an operator."""
_SHOWN: Final = 5
_LONGEST: Final = 120_000
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,63}")
_CODE: Final = re.compile(r"[^\s|]{0,200}\|[^\s|][^|]{0,99}")
_HOURS: Final = re.compile(r"[1-9][0-9]{0,2}")
CODE_SYSTEMS: Final[Mapping[str, str]] = {
    "http://loinc.org": "LOINC (tests, documents)",
    "http://snomed.info/sct": "SNOMED CT (problems, visits)",
    "http://hl7.org/fhir/sid/icd-10-cm": "ICD-10-CM (diagnoses)",
    "http://www.nlm.nih.gov/research/umls/rxnorm": "RxNorm (medicines)",
    "http://hl7.org/fhir/sid/cvx": "CVX (vaccines)",
    "http://www.ama-assn.org/go/cpt": "CPT (services)",
}
COMMON: Final = (
    *("Encounter", "Observation", "DiagnosticReport", "DocumentReference", "Condition"),
    *("MedicationRequest", "Procedure", "ServiceRequest", "Appointment", "Communication"),
    *("Immunization", "Invoice"),
)
OTHERS: Final = tuple(sorted(LABELLED_BY_HAND - {*COMMON} | {"Schedule", "Slot"}, key=type_words))


def listed(value: Any) -> list[Any]:
    """Return the values of a part that is there any number of times."""
    return value if isinstance(value, list) else [] if value is None else [value]


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule of either ``kind``; what the other kind has is empty. ``hours`` 0: until staff act."""

    kind: str
    name: str
    label: str = ""
    types: tuple[str, ...] = ()
    codes: tuple[str, ...] = ()
    reason: str = ""
    hours: int = 0
    waiting: int = field(default=0, compare=False)

    @classmethod
    def of(cls, kind: str, told: Mapping[str, Any]) -> Rule:
        """Read a rule of ``$label-rules``."""
        return cls(
            kind,
            told["name"],
            str(told.get("label", "")),
            tuple(map(str, listed(told.get("type")))),
            tuple(map(str, listed(told.get("code")))),
            str(told.get("reason", "")),
            told.get("hours") or 0,
            told.get("waiting") or 0,
        )

    @property
    def parameter(self) -> tuple[str, str, Any]:
        """The rule as a parameter of ``$set-label-rules``."""
        parts: list[dict[str, Any]] = [{"name": "name", "valueString": self.name}]
        parts += [{"name": "type", "valueCode": one} for one in self.types]
        parts += [{"name": "code", "valueString": one} for one in self.codes]
        for name, value in (("label", self.label), ("reason", self.reason)):
            parts += [{"name": name, "valueCode": value}] if value else []
        parts += [{"name": "hours", "valueInteger": self.hours}] if self.hours else []
        return (self.kind, "part", parts)

    @property
    def told(self) -> dict[str, Any]:
        """The rule in words."""
        codes = [_code_words(one) for one in self.codes]
        return {
            "name": self.name,
            "label": label_words(self.label) if self.label else "",
            "hides": hidden_from(self.label) if self.label else "",
            "types": ", ".join(map(type_words, self.types)) or "Anything in a record",
            "of_visits": self.label and self.types == ("Encounter",),
            "codes": codes[:_SHOWN],
            "more": len(codes) - _SHOWN,
            "waits": until_words(self.hours) if self.kind == RELEASE else "",
            "reason": EXCEPTIONS.get(self.reason, ""),
            "waiting": self.waiting,
        }


def until_words(hours: int) -> str:
    """Return how long a release rule holds results."""
    if not hours:
        return "Until staff release it"
    days, rest = divmod(hours, 24)
    words = [f"{days} {'day' if days == 1 else 'days'}"] if days else []
    words += [f"{rest} {'hour' if rest == 1 else 'hours'}"] if rest else []
    return f"{' and '.join(words)} from when it was issued"


def types_of(rule: Rule | None) -> list[tuple[str, str]]:
    """Return further types that a form offers: those of a rule that an operator set, too."""
    own = set(rule.types) - {*COMMON, *OTHERS} if rule is not None else set()
    return [(name, type_words(name)) for name in (*sorted(own), *OTHERS)]


def read_form(kind: str, pairs: Pairs, form: Mapping[str, str]) -> tuple[Rule, str, str]:
    """Return what a form says, and what is wrong with it: words and the field, or ``""``."""
    name = "-".join(form.get("name", "").lower().split())
    codes, wrong = _codes(form.get("codes", "")[:_LONGEST], form.get("system", ""))
    hours = form.get("hours", "").strip()
    waits_hours = form.get("until") == "hours"
    rule = Rule(
        kind,
        name,
        label=form.get("label", "") if kind == LABEL else "",
        types=tuple(dict.fromkeys(value for given, value in pairs if given == "type")),
        codes=codes,
        reason=form.get("reason", "") if kind == RELEASE else "",
        hours=int(hours) if kind == RELEASE and waits_hours and _HOURS.fullmatch(hours) else 0,
    )
    if not _NAME.fullmatch(name):
        return rule, "Give a short name of letters, digits and hyphens.", "name"
    if kind == LABEL and rule.label not in LABEL_WORDS:
        return rule, "Choose a label.", "label"
    if wrong:
        return rule, f"“{wrong}” is no code: choose its code system, or write system|code.", "codes"
    if len(codes) > EDITABLE:
        return rule, f"That are more than {EDITABLE} codes: ask whoever runs the portal.", "codes"
    if kind == LABEL and not (rule.types or rule.codes):
        return rule, "Choose what it is about, or give codes: a rule is not for all.", "codes"
    if kind == RELEASE:
        return rule, *_wrong_release(rule, waits_hours=waits_hours, until=form.get("until", ""))
    return rule, "", ""


def _wrong_release(rule: Rule, *, waits_hours: bool, until: str) -> tuple[str, str]:
    if len(rule.types) != 1 or rule.types[0] not in RELEASABLE:
        return "Choose one kind of result.", "type"
    if until not in {"hours", "staff"}:
        return "Say how long it waits.", "until"
    if waits_hours and not 0 < rule.hours <= LONGEST_DELAY_HOURS:
        return f"Give the hours: 1 to {LONGEST_DELAY_HOURS} (30 days).", "hours"
    if rule.reason not in EXCEPTIONS:
        return "Choose why that is allowed.", "reason"
    return "", ""


def _codes(text: str, system: str) -> tuple[tuple[str, ...], str]:
    """Return the codes of a text, one a line, and the first line that is none."""
    found: dict[str, None] = {}
    for line in filter(None, map(str.strip, text.splitlines())):
        code = line if "|" in line else f"{system}|{line}" if system in CODE_SYSTEMS else ""
        if not _CODE.fullmatch(code):
            return tuple(found), line[:80]
        found[code.lower()] = None
    return tuple(found), ""


def _code_words(code: str) -> str:
    system, _, value = code.partition("|")
    known = {one.lower(): words.partition(" (")[0] for one, words in CODE_SYSTEMS.items()}
    return f"{known.get(system, system)} {value}".strip()


def without(rules: Iterable[Rule], kind: str, name: str) -> list[Rule]:
    """Return the rules but for one."""
    return [one for one in rules if (one.kind, one.name) != (kind, name)]
