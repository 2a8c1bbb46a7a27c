"""What a practice labels by rule, and when results are released: one record for each practice.

A rule labels by type and by codes, an Encounter's among them: what refers to it is then as hidden
(`fhir_portal.access.closure`). A release rule holds results of a type back for some hours, or until
staff release them; its reason is one of the exceptions of 45 CFR part 171, for staff to read.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Final

import jsonschema
import msgspec

from fhir_portal.consent.labels import SENSITIVE, WITHHELD, labels_of
from fhir_portal.fhir.definitions import served_types
from fhir_portal.records import Record, RecordReader

MOST_RULES: Final = 200
MOST_CODES: Final = 2_000
LONGEST_DELAY_HOURS: Final = 24 * 30
RELEASABLE: Final = (
    "DiagnosticReport",
    "DocumentReference",
    "ImagingStudy",
    "Media",
    "Observation",
)
EXCEPTIONS: Final = {
    "preventing-harm": "Preventing Harm Exception (45 CFR 171.201)",
    "privacy": "Privacy Exception (45 CFR 171.202)",
    "security": "Security Exception (45 CFR 171.203)",
    "infeasibility": "Infeasibility Exception (45 CFR 171.204)",
    "patient-request": "The patient asked for it",
}


class InvalidRules(Exception):
    """Rules that cannot be used; the words say where and why."""


class LabelRule(msgspec.Struct, frozen=True):
    """What is of one of ``types`` (empty: of any) and carries one of ``codes`` has ``label``.

    ``codes`` are ``system|code``, looked for in every Coding of the resource itself; empty: all of
    the types.
    """

    name: str
    label: str
    types: tuple[str, ...] = ()
    codes: tuple[str, ...] = ()


class ReleaseRule(msgspec.Struct, frozen=True):
    """Results of a type (and one of ``codes``) wait ``hours`` from ``issued`` on, or for staff.

    ``hours`` is ``None`` where they wait until staff release them.
    """

    name: str
    type: str
    reason: str
    codes: tuple[str, ...] = ()
    hours: int | None = None


class LabelRules(Record, frozen=True, kw_only=True):
    """The rules of the practice that is the ``key``; ``change`` counts how often they were set."""

    kind: ClassVar[str] = "label-rules"

    labels: tuple[LabelRule, ...] = ()
    release: tuple[ReleaseRule, ...] = ()
    holds: bool = False
    """Whether staff ever held a result back by hand."""
    change: int = 0

    def of(self, tree: Mapping[str, Any]) -> frozenset[str]:
        """Return the labels that the rules give a resource."""
        if not self.labels:
            return frozenset()
        name = tree["resourceType"]
        codes: frozenset[str] | None = None
        found: set[str] = set()
        for rule in self.labels:
            if rule.types and name not in rule.types:
                continue
            if rule.codes:
                codes = codes_in(tree) if codes is None else codes
                if codes.isdisjoint(rule.codes):
                    continue
            found.add(rule.label)
        return frozenset(found)

    def release_of(self, tree: Mapping[str, Any]) -> ReleaseRule | None:
        """Return the rule that holds a result longest, or ``None``."""
        name = tree["resourceType"]
        if name not in RELEASABLE:
            return None
        found = [
            rule
            for rule in self.release
            if rule.type == name and (not rule.codes or not codes_in(tree).isdisjoint(rule.codes))
        ]
        return max(found, key=lambda rule: (rule.hours is None, rule.hours or 0), default=None)


class Relabelling(Record, frozen=True, kw_only=True):
    """That stored resources of the practice, the ``key``, are not yet labelled as they should be.

    ``before`` are the rules they may still be labelled by, ``change`` the rules they should be by
    (0: they are). ``spreads`` says that a write concerned so many that not all are hidden yet.
    While ``hides`` or ``spreads`` nobody of the practice's patients, and nobody who acts for one,
    sees anything of a record.
    """

    kind: ClassVar[str] = "relabelling"

    before: tuple[LabelRule, ...] = ()
    hides: bool = True
    change: int = 0
    spreads: bool = False

    @property
    def shuts(self) -> bool:
        """Whether nothing of the practice's records is shown."""
        return self.hides or self.spreads


async def label_rules_of(reader: RecordReader, practice: str) -> LabelRules:
    """Return a practice's rules: none where it has set none."""
    return await reader.get(LabelRules, practice) or LabelRules(key=practice)


def own_labels(tree: Mapping[str, Any], rules: LabelRules) -> frozenset[str]:
    """Return the labels of a resource by itself: those it carries, and those of the rules."""
    return labels_of(tree) | rules.of(tree)


def codes_in(tree: Mapping[str, Any]) -> frozenset[str]:
    """Return every ``system|code`` that a resource carries but for its ``meta``, in lower case."""
    rest = {name: value for name, value in tree.items() if name != "meta"}
    return frozenset(_codes(rest))


def _codes(node: Any) -> Iterator[str]:
    if isinstance(node, Mapping):
        code = node.get("code")
        if isinstance(code, str):
            yield f"{node.get('system') or ''}|{code}".lower()
        for value in node.values():
            yield from _codes(value)
    elif isinstance(node, list):
        for one in node:
            yield from _codes(one)


_CODE: Final = re.compile(r"^[^\s|]{0,200}\|[^\s|][^|]{0,99}$")
_CODES: Final = {
    "type": "array",
    "maxItems": MOST_CODES,
    "items": {"type": "string", "pattern": _CODE.pattern},
}
_NAME: Final = {"type": "string", "pattern": r"^[a-z0-9][a-z0-9-]{0,63}$"}
SCHEMA: Final[Mapping[str, Any]] = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "additionalProperties": False,
    "properties": {
        "labels": {
            "type": "array",
            "maxItems": MOST_RULES,
            "items": {
                "type": "object",
                "additionalProperties": False,
                "required": ["name", "label"],
                "anyOf": [
                    {"required": ["types"]},
                    {"required": ["codes"]},
                    {"required": ["valueSet"]},
                ],
                "properties": {
                    "name": _NAME,
                    "label": {"enum": sorted({*SENSITIVE, WITHHELD})},
                    "types": {
                        "type": "array",
                        "minItems": 1,
                        "items": {"enum": sorted(served_types())},
                    },
                    "codes": {**_CODES, "minItems": 1},
                    "valueSet": {
                        "type": "object",
                        "properties": {"resourceType": {"const": "ValueSet"}},
                        "required": ["resourceType"],
                    },
                },
            },
        },
        "release": {
            "type": "array",
            "maxItems": MOST_RULES,
            "items": {
                "type": "object",
                "additionalProperties": False,
                "required": ["name", "type", "reason"],
                "properties": {
                    "name": _NAME,
                    "type": {"enum": list(RELEASABLE)},
                    "reason": {"enum": sorted(EXCEPTIONS)},
                    "codes": {**_CODES, "minItems": 1},
                    "hours": {"type": "integer", "minimum": 1, "maximum": LONGEST_DELAY_HOURS},
                },
            },
        },
    },
}
"""What a file of rules holds."""


def read_rules(practice: str, tree: Any) -> LabelRules:
    """Read rules that somebody wrote down; what they leave out has none.

    Raises `InvalidRules`.
    """
    errors = jsonschema.Draft202012Validator(SCHEMA).iter_errors(tree)
    first = next(iter(sorted(errors, key=lambda error: list(map(str, error.path)))), None)
    if first is not None:
        place = ".".join(map(str, first.path)) or "the rules"
        raise InvalidRules(f"{place}: {first.message[:200]}")
    labels = tuple(_label_rule(one) for one in tree.get("labels", ()))
    release = tuple(
        msgspec.convert(
            {**one, "codes": [code.lower() for code in one.get("codes", ())]}, ReleaseRule
        )
        for one in tree.get("release", ())
    )
    for rules in (labels, release):
        names = [rule.name for rule in rules]
        if len(set(names)) < len(names):
            raise InvalidRules("a rule's name is there twice")
    return LabelRules(key=practice, labels=labels, release=release)


def _label_rule(one: Mapping[str, Any]) -> LabelRule:
    codes = [*one.get("codes", ()), *_listed(one.get("valueSet") or {})]
    if "valueSet" in one and not codes:
        raise InvalidRules(f"{one['name']}: the ValueSet lists no code: expand it first")
    # A ValueSet's too: rules are set as a whole, and with one that is refused none can be changed.
    wrong = next((code for code in codes if not _CODE.search(code)), None)
    if wrong is not None:
        raise InvalidRules(f"{one['name']}: {wrong[:120]!r} is no system|code")
    if len(codes) > MOST_CODES:
        raise InvalidRules(f"{one['name']}: {MOST_CODES} codes at most")
    return LabelRule(
        one["name"],
        one["label"],
        tuple(one.get("types", ())),
        tuple(dict.fromkeys(code.lower() for code in codes)),
    )


def _listed(value_set: Mapping[str, Any]) -> Iterator[str]:
    """Yield the codes that a ValueSet lists one by one (FHIR R4 §4.9); filters are not followed."""
    compose = value_set.get("compose") or {}
    contains = list((value_set.get("expansion") or {}).get("contains") or ())
    if not contains:
        for include in compose.get("include") or ():
            if include.get("filter") or include.get("valueSet") or not include.get("concept"):
                raise InvalidRules("a ValueSet has to list its codes, or to be expanded")
            contains += [{"system": include.get("system"), **one} for one in include["concept"]]
        if compose.get("exclude"):
            raise InvalidRules("a ValueSet that leaves codes out has to be expanded")
    while contains:
        one = contains.pop(0)
        contains += one.get("contains") or ()
        if isinstance(one.get("code"), str) and not one.get("abstract"):
            yield f"{one.get('system') or ''}|{one['code']}"
