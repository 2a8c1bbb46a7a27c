"""Who may see what, worked out naively from the world's writes.

Nothing of the server's authorization, classification or search is used here: the rules are
written a second time, as plainly as possible, from the design.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from tests.builders import Json
from tests.leaks.world import Reader, Write

T = TypeVar("T")

SUBJECT = {
    **dict.fromkeys(
        [
            "Observation",
            "Condition",
            "Encounter",
            "DocumentReference",
            "Communication",
            "QuestionnaireResponse",
            "Task",
        ],
        "subject",
    ),
    **dict.fromkeys(["Immunization", "RelatedPerson", "Consent"], "patient"),
    "Coverage": "beneficiary",
}
SECTION = {
    "Patient": "demographics",
    "Coverage": "insurance",
    "Appointment": "appointments",
    "Communication": "messages",
    "QuestionnaireResponse": "forms",
    "Immunization": "immunizations",
    "Condition": "health-summary",
    "Encounter": "visits",
    "Consent": "sharing",
    "RelatedPerson": "sharing",
}
OBSERVATIONS = {
    "laboratory": "results",
    "vital-signs": "results",
    "social-history": "health-summary",
}
STAFF_ENTRIES = {"Practitioner", "PractitionerRole", "Organization", "Location", "Medication"}
FOLLOWING = {"Provenance", "Binary"}
RECORD_TYPES = {*SECTION, "Observation", "DocumentReference", *FOLLOWING}
OWN_LABELS = {"R", "SDV"}
"""Labels of this world that the person sees on their own record; a proxy sees none."""
SHARED = "shared"


@dataclass(frozen=True)
class Facts:
    """Whose, in which sections, under which labels, and whether the practice lists it."""

    owners: frozenset[str]
    sections: frozenset[str]
    labels: frozenset[str]
    listed: bool = False


@dataclass
class Version:
    number: int
    tree: Json | None
    facts: Facts


Rows = dict[str, list[Version]]


def _once(find: Callable[[Any], T]) -> Callable[[Any], T]:
    """What is found in a tree is found once: no tree is changed once a state may hold it."""
    known: dict[int, tuple[Any, T]] = {}  # with the tree, whose id is nobody else's then

    def found(tree: Any) -> T:
        if id(tree) not in known:
            known[id(tree)] = (tree, find(tree))
        return known[id(tree)][1]

    return found


@dataclass
class State:
    """All practices after some writes; `apply` gives the state after one more."""

    practices: dict[str, Rows] = field(default_factory=dict)

    @classmethod
    def after(cls, writes: Iterable[Write]) -> State:
        state = cls()
        for write in writes:
            state.apply(write)
        return state

    def copy(self) -> State:
        """A copy that can be changed; the trees are shared and stay as they are."""
        return State(
            {
                practice: {
                    key: [Version(v.number, v.tree, v.facts) for v in versions]
                    for key, versions in rows.items()
                }
                for practice, rows in self.practices.items()
            }
        )

    def apply(self, write: Write) -> None:
        rows = self.practices.setdefault(write.practice, {})
        versions = rows.setdefault(write.key, [])
        if write.tree is None:
            facts = versions[-1].facts
            if write.key.partition("/")[0] in FOLLOWING:
                # What it followed may change on, and it follows no more.
                facts = Facts(frozenset(), frozenset({"?"}), facts.labels)
            versions.append(Version(len(versions) + 1, None, facts))
        else:
            tree = _keeping_labels(versions, write.tree)
            versions.append(Version(len(versions) + 1, tree, own_facts(tree)))
        self._follow(rows)

    def _follow(self, rows: Rows) -> None:
        """Give what follows other rows the facts of those, until nothing changes."""
        shades = _closed(rows)
        pending = True
        while pending:
            pending = False
            for key, versions in rows.items():
                current = versions[-1]
                if current.tree is None:
                    continue
                facts = current.facts
                if key.partition("/")[0] in FOLLOWING:
                    facts = followed_facts(key, current.tree, rows)
                facts = replace(facts, labels=shades[key])
                if facts != current.facts:
                    current.facts = facts
                    pending = True

    def living(self, practice: str) -> Iterator[tuple[str, Version]]:
        for key, versions in self.practices.get(practice, {}).items():
            if versions[-1].tree is not None:
                yield key, versions[-1]


SHADELESS = {*STAFF_ENTRIES, "Questionnaire", "Patient", "RelatedPerson", "Person", "Group"}
"""They neither give labels nor take them."""


@_once
def _named(tree: Json) -> tuple[frozenset[str], dict[str, list[str]]]:
    """What a resource is as hidden as, and what is as hidden as it is, by where it stands."""
    name = tree["resourceType"]
    named = frozenset(
        text
        for text in _references(tree) | _urls(tree)
        if text.partition("/")[0] not in SHADELESS and name not in SHADELESS
    )
    lists: dict[str, list[str]] = {}
    if name == "Encounter":
        lists["when"] = list(_values(tree.get("appointment", []), "reference"))
        lists["why"] = list(_values(tree.get("diagnosis", []), "reference"))
    if name == "Observation":
        lists["of"] = list(_values(tree.get("hasMember", []), "reference"))
    return named, lists


def _closed(rows: Rows) -> dict[str, frozenset[str]]:
    """The labels of every row: its own, and those of what it names or is listed by."""
    shades = {
        key: frozenset() if versions[-1].tree is not None else versions[-1].facts.labels
        for key, versions in rows.items()
    }

    def of(keys: Iterable[str]) -> frozenset[str]:
        return frozenset(label for key in keys for label in shades.get(key, ()))

    pending = True
    while pending:
        pending = False
        given: dict[str, set[str]] = {}
        for versions in rows.values():
            last = versions[-1]
            tree = last.tree
            if tree is None and len(versions) > 1:
                tree = versions[-2].tree
            if tree is None:
                continue
            named, lists = _named(tree)
            for keys in lists.values():
                elsewhere = named - set(keys)
                for key in keys:
                    hidden = of(elsewhere - {key}) | _labels(tree)
                    if last.tree is None:
                        hidden = last.facts.labels
                    given.setdefault(key, set()).update(hidden)
            if last.tree is not None and tree["resourceType"] not in FOLLOWING:
                for url in _urls(tree):
                    if own_facts(tree).owners:
                        shade = shades[f"{tree['resourceType']}/{tree['id']}"]
                        given.setdefault(url, set()).update(shade)
        for key, versions in rows.items():
            tree = versions[-1].tree
            if tree is None:
                continue
            now = _labels(tree) | of(_named(tree)[0] - {key}) | given.get(key, set())
            if now != shades[key]:
                shades[key] = now
                pending = True
    return shades


def _keeping_labels(versions: list[Version], tree: Json) -> Json:
    """Labels stay where a new version says nothing about them."""
    before = next((v.tree for v in reversed(versions) if v.tree is not None), {})
    kept = {n: v for n, v in before.get("meta", {}).items() if n in {"security", "tag"}}
    return {**tree, "meta": {**kept, **tree.get("meta", {})}} if kept else tree


def adds_a_line(state: State, write: Write) -> tuple[str, str] | None:
    """Return the practice and record whose person can read the log's line about a write."""
    facts = state.practices[write.practice][write.key][-1].facts
    if len(facts.owners) == 1 and facts.labels <= OWN_LABELS:
        return write.practice, next(iter(facts.owners))
    return None


@_once
def own_facts(tree: Json) -> Facts:
    name = tree["resourceType"]
    return Facts(
        owners=frozenset(_owners(tree)),
        sections=frozenset(_sections(tree)),
        labels=_labels(tree),
        listed=any(t.get("code") == "directory" for t in tree.get("meta", {}).get("tag", ()))
        and name in STAFF_ENTRIES,
    )


def followed_facts(key: str, tree: Json, rows: Rows) -> Facts:
    parents: list[Facts] = []
    if tree["resourceType"] == "Provenance":
        for target in tree["target"]:
            versions = rows.get(target["reference"])
            followed = not target["reference"].startswith("Provenance/")
            if followed and versions and versions[-1].tree is not None:
                parents.append(versions[-1].facts)
    else:
        parents = [
            versions[-1].facts
            for other, versions in rows.items()
            if versions[-1].tree is not None
            and other.partition("/")[0] not in FOLLOWING
            and key in _urls(versions[-1].tree)
            and versions[-1].facts.owners
        ]
    own = own_facts(tree)
    sections = {s for facts in parents for s in facts.sections}
    if not sections or any(not facts.owners and not facts.listed for facts in parents):
        sections.add("?")
    return Facts(
        owners=frozenset(owner for facts in parents for owner in facts.owners),
        sections=frozenset("-" if s == "sharing" else s for s in sections),
        labels=own.labels | frozenset(label for facts in parents for label in facts.labels),
    )


def _owners(tree: Json) -> Iterator[str]:
    name = tree["resourceType"]
    if name == "Patient":
        yield tree["id"]
    elif name == "Appointment":
        for one in tree["participant"]:
            kind, _, own_id = one["actor"]["reference"].partition("/")
            if kind == "Patient":
                yield own_id
    elif name in SUBJECT:
        yield tree[SUBJECT[name]]["reference"].partition("/")[2]


def _sections(tree: Json) -> Iterator[str]:
    name = tree["resourceType"]
    codes = [c["code"] for one in tree.get("category", ()) for c in one["coding"]]
    if name == "Observation":
        yield from {OBSERVATIONS[code] for code in codes if code in OBSERVATIONS} or {"?"}
    elif name == "DocumentReference":
        yield "visits" if "clinical-note" in codes else "documents"
    else:
        yield SECTION.get(name, "-")


@_once
def _labels(tree: Json) -> frozenset[str]:
    meta = tree.get("meta", {})
    withheld = (one["code"] for one in meta.get("tag", ()) if one["code"] == "withheld")
    return frozenset([*(one["code"] for one in meta.get("security", ())), *withheld])


@_once
def _references(tree: Json) -> frozenset[str]:
    return frozenset(_values(tree, "reference"))


@_once
def _urls(tree: Json) -> frozenset[str]:
    return frozenset(_values(tree, "url"))


@_once
def _text(tree: Json | None) -> str:
    return repr(tree)


def _values(node: Any, name: str) -> Iterator[str]:
    if isinstance(node, dict):
        for member, value in node.items():
            if member == name and isinstance(value, str):
                yield value
            else:
                yield from _values(value, name)
    elif isinstance(node, list):
        for one in node:
            yield from _values(one, name)


# ---------------------------------------------------------------- one reader's view


_SCOPE = re.compile(r"(?:patient|user)/(\*|[A-Za-z]+)\.([cruds]+)(?:\?category=(.+))?")


class View:
    """What one reader may see in a state."""

    def __init__(self, state: State, reader: Reader) -> None:
        self.reader = reader
        self.rows = state.practices.get(reader.practice, {})
        self.shared = state.practices.get(SHARED, {})
        self._not_for_staff = {"AuditEvent"} if reader.is_staff else set()
        self._scopes = [m.groups() for m in map(_SCOPE.fullmatch, reader.scope.split()) if m]
        self._mentioned = {
            reference
            for key, versions in self.rows.items()
            if versions[-1].tree is not None
            and key.partition("/")[0] in RECORD_TYPES
            and (self.sees(key, "r") or self.sees(key, "s"))
            for reference in _references(versions[-1].tree)
        }

    def allows(self, letter: str, name: str) -> bool:
        """Whether any scope gives this letter on a type that a person can reach."""
        reached = RECORD_TYPES | STAFF_ENTRIES | ({"AuditEvent"} - self._not_for_staff)
        return name in reached and any(
            kind in {"*", name} and letter in letters for kind, letters, _ in self._scopes
        )

    def sees(self, key: str, letter: str) -> bool:
        """Whether the current version, a deletion included, may be known of."""
        versions = self.versions_of(key)
        if versions is None:
            return False
        name, _, own_id = key.partition("/")
        current = versions[-1]
        if self._own_user(key, letter):
            return self._facts(name, own_id, current.facts)
        if not self._scoped(letter, name, current.tree):
            return False
        if name in STAFF_ENTRIES and not self.reader.is_staff:
            return not current.facts.labels and (current.facts.listed or key in self._mentioned)
        return self._facts(name, own_id, current.facts) and name in RECORD_TYPES | STAFF_ENTRIES

    def versions(self, key: str, letter: str = "r") -> list[int]:
        """Numbers of the versions that may be seen, the newest first."""
        if not self.sees(key, letter):
            return []
        name, _, own_id = key.partition("/")
        versions = self.versions_of(key) or []
        by_mention = name in STAFF_ENTRIES and not self.reader.is_staff
        by_grant = self.reader.grant is not None  # what it named may be labelled by now
        if by_mention or by_grant or self._only_by_category(letter, name):
            return [versions[-1].number]  # what lets it be seen is known of the current one only
        return [v.number for v in reversed(versions) if self._facts(name, own_id, v.facts)]

    def found(self, name: str) -> list[tuple[str, Json]]:
        """Key and content of what a search of a type may find."""
        return [
            (key, versions[-1].tree)
            for rows in (self.rows, self.shared)
            for key, versions in rows.items()
            if key.startswith(f"{name}/") and versions[-1].tree is not None and self.sees(key, "s")
        ]

    def nearly_seen(self) -> list[Json]:
        """What is of the reader's record and sections, and hidden all the same."""
        sections = self.reader.sections
        return [
            version.tree
            for key, version in ((key, versions[-1]) for key, versions in self.rows.items())
            if version.tree is not None
            and version.facts.owners == {self.reader.patient}
            and (sections is None or version.facts.sections <= sections)
            and self.allows("s", key.partition("/")[0])
            and not self.sees(key, "s")
        ]

    def image(self) -> object:
        """Everything this reader can see, for comparing two states."""
        everything = [*self.rows, *self.shared]
        return {
            (key, letter): [
                (number, _text((self.versions_of(key) or [])[number - 1].tree))
                for number in self.versions(key, letter)
            ]
            for key in everything
            for letter in "rs"
            if self.sees(key, letter)
        }

    def versions_of(self, key: str) -> list[Version] | None:
        found = self.rows.get(key)
        if found is None and key.partition("/")[0] in STAFF_ENTRIES:
            found = self.shared.get(key)
        return found

    def _own_user(self, key: str, letter: str) -> bool:
        name = key.partition("/")[0]
        return (
            letter == "r"
            and key == self.reader.user
            and "fhirUser" in self.reader.scope.split()
            and not self.allows("r", name)
        )

    def _scoped(self, letter: str, name: str, tree: Json | None) -> bool:
        for kind, letters, category in self._scopes:
            if kind not in {"*", name} or letter not in letters:
                continue
            if category is None:
                return True
            if tree is not None and category in {
                f"{c['system']}|{c['code']}"
                for one in tree.get("category", ())
                for c in one["coding"]
            }:
                return True
        return False

    def _only_by_category(self, letter: str, name: str) -> bool:
        return (
            bool(self._scopes)
            and not any(
                kind in {"*", name} and letter in letters and category is None
                for kind, letters, category in self._scopes
            )
            and self.allows(letter, name)
        )

    def _facts(self, name: str, own_id: str, facts: Facts) -> bool:
        reader = self.reader
        if reader.is_staff:
            return self._facts_for_staff(name, facts)
        if facts.owners != {reader.patient}:
            return False
        if reader.is_self:
            return facts.labels <= OWN_LABELS
        if name == "RelatedPerson":
            return not facts.labels and f"RelatedPerson/{own_id}" == reader.user
        if name == "Consent":
            return not facts.labels and own_id == reader.grant
        return not facts.labels and facts.sections <= (reader.sections or frozenset())

    def _facts_for_staff(self, name: str, facts: Facts) -> bool:
        if name in STAFF_ENTRIES:
            return True
        if name in FOLLOWING and "?" in facts.sections:
            return False  # it may follow what is no patient's
        return not self.reader.patient or facts.owners == {self.reader.patient}
