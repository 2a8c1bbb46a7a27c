"""What a reader asks, and what a naive reading of the world says the answer must hold."""

from __future__ import annotations

import io
import json
import random
import re
from base64 import b64decode
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode
from zipfile import ZipFile

from fhir_portal.documents.chart import CHART_TYPES, is_told
from tests import builders as b
from tests.builders import BASE, Json
from tests.leaks.oracle import RECORD_TYPES, STAFF_ENTRIES, View

MAX_PAGES = 60


@dataclass(frozen=True)
class Raw:
    """One HTTP answer, complete."""

    status: int
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes

    @property
    def json(self) -> Json:
        found: Json = json.loads(self.body)
        return found

    @property
    def entries(self) -> list[Json]:
        found: list[Json] = self.json.get("entry", [])
        return found

    def keys(self, mode: str | None = None) -> list[str]:
        return [
            f"{entry['resource']['resourceType']}/{entry['resource']['id']}"
            for entry in self.entries
            if mode is None or entry["search"]["mode"] == mode
        ]

    @property
    def next(self) -> str | None:
        links = {link["relation"]: link["url"] for link in self.json.get("link", ())}
        return links["next"].removeprefix(BASE) if "next" in links else None


@dataclass
class Situation:
    """What the judge of an answer knows: the reader's view, and how long their log is."""

    view: View
    logged: int | None


Judge = Callable[[Situation, Sequence[Raw]], str]
"""Returns what is wrong with the answers, or an empty text."""


@dataclass(frozen=True)
class Ask:
    """One request. ``walk`` follows the paging links to their end."""

    kind: str
    method: str
    path: str
    judge: Judge
    headers: tuple[tuple[str, str], ...] = ()
    body: Json | None = None
    form: str | None = None
    walk: bool = False
    rows: int = 1
    """Lines one answer adds to the log."""

    def __str__(self) -> str:
        return f"{self.kind}: {self.method} {self.path} {dict(self.headers) or ''}"


def differs(what: str, expected: Any, found: Any) -> str:
    if expected == found:
        return ""
    if isinstance(expected, set) and isinstance(found, set):
        return f"{what}: too many {sorted(found - expected)}, missing {sorted(expected - found)}"
    return f"{what}: expected {expected}, found {found}"


# ---------------------------------------------------------------- single resources


def read_judge(key: str, *, native: bool = False) -> Judge:
    name = key.partition("/")[0]

    def judge(now: Situation, answers: Sequence[Raw]) -> str:
        (answer,) = answers
        view = now.view
        if not view.allows("r", name) and not view.sees(key, "r"):
            own = key.partition("/")[0] == view.reader.user.partition("/")[0]
            hidden = 404 if own and "fhirUser" in view.reader.scope.split() else 403
            return differs("status", hidden, answer.status)
        if not view.sees(key, "r"):
            return differs("status", 404, answer.status)
        current = (view.versions_of(key) or [])[-1]
        if current.tree is None:
            return differs("status", 410, answer.status)
        if answer.status != 200:
            return differs("status", 200, answer.status)
        if native:
            return differs("content", b64decode(current.tree["data"]), answer.body)
        return differs("version", str(current.number), answer.json["meta"]["versionId"])

    return judge


def read(key: str) -> Ask:
    return Ask("read", "GET", f"/{key}", read_judge(key))


def native(key: str) -> Ask:
    judge = read_judge(key, native=True)
    return Ask("binary-content", "GET", f"/{key}", judge, headers=(("accept", "*/*"),))


def read_if_changed(key: str, version: int) -> Ask:
    whole = read_judge(key)

    def judge(now: Situation, answers: Sequence[Raw]) -> str:
        seen = now.view.sees(key, "r")
        versions = now.view.versions_of(key) or []
        if seen and versions[-1].tree is not None and versions[-1].number == version:
            return differs("status", 304, answers[0].status)
        return whole(now, answers)

    headers = (("if-none-match", f'W/"{version}"'),)
    return Ask("read-if-changed", "GET", f"/{key}", judge, headers=headers)


def vread(key: str, version: int) -> Ask:
    name = key.partition("/")[0]

    def judge(now: Situation, answers: Sequence[Raw]) -> str:
        view, status = now.view, answers[0].status
        if not view.allows("r", name) and not view.sees(key, "r"):
            return "" if status in {403, 404} else f"status {status} without a scope"
        if version not in view.versions(key):
            return differs("status", 404, status)
        tree = (view.versions_of(key) or [])[version - 1].tree
        return differs("status", 200 if tree is not None else 410, status)

    return Ask("vread", "GET", f"/{key}/_history/{version}", judge)


def history(key: str, count: int) -> Ask:
    name = key.partition("/")[0]

    def judge(now: Situation, answers: Sequence[Raw]) -> str:
        view = now.view
        if not view.allows("r", name) and not view.sees(key, "r"):
            return "" if answers[0].status in {403, 404} else "an answer without a scope"
        expected = view.versions(key)
        if not expected:
            return differs("status", 404, answers[0].status)
        found = [version_of(entry) for answer in answers for entry in answer.entries]
        return differs("versions", expected, found) or differs(
            "totals", {len(expected)}, {answer.json["total"] for answer in answers}
        )

    return Ask("history", "GET", f"/{key}/_history?_count={count}", judge, walk=True)


def version_of(entry: Json) -> int:
    return int(entry["response"]["etag"].removeprefix('W/"').strip('"'))


def feed(count: int, since: str | None) -> Ask:
    def judge(now: Situation, answers: Sequence[Raw]) -> str:
        view = now.view
        names = {n for n in RECORD_TYPES | STAFF_ENTRIES | {"Person"} if view.allows("s", n)}
        if not names:
            return differs("status", 403, answers[0].status)
        expected = {
            (key, number)
            for rows in (view.rows, view.shared)
            for key in rows
            if key.partition("/")[0] in names
            for number in view.versions(key, "s")
        }
        found = [
            (entry["fullUrl"].removeprefix(f"{BASE}/"), version_of(entry))
            for answer in answers
            for entry in answer.entries
        ]
        if len(found) != len(set(found)):
            return "a version comes twice"
        if since is None:
            return differs("versions", expected, set(found))
        return differs("versions", set(), set(found) - expected)

    query = f"_count={count}" + (f"&_since={since}" if since else "")
    return Ask("feed", "GET", f"/_history?{query}", judge, walk=True)


# ---------------------------------------------------------------- searches


@dataclass(frozen=True)
class Criterion:
    """A search parameter with a value, and the same question put to the JSON."""

    name: str
    value: str
    holds: Callable[[Json], bool]


def codes(tree: Json, *path: str) -> set[str]:
    node: Any = tree
    for name in path:
        node = node.get(name, {}) if isinstance(node, dict) else {}
    concepts = node if isinstance(node, list) else [node]
    return {coding["code"] for one in concepts for coding in one.get("coding", ())}


def targets(tree: Json, path: str) -> set[str]:
    nodes: list[Any] = [tree]
    for name in path.split("."):
        below = [node.get(name) for node in nodes if isinstance(node, dict)]
        nodes = [x for one in below if one for x in (one if isinstance(one, list) else [one])]
    return {node["reference"] for node in nodes if isinstance(node, dict) and "reference" in node}


REFERENCES = {
    "Observation": {
        "patient": "subject",
        "subject": "subject",
        "performer": "performer",
        "encounter": "encounter",
        "derived-from": "derivedFrom",
    },
    "Condition": {"patient": "subject", "subject": "subject", "encounter": "encounter"},
    "Encounter": {
        "patient": "subject",
        "participant": "participant.individual",
        "service-provider": "serviceProvider",
    },
    "Immunization": {"patient": "patient", "performer": "performer.actor"},
    "DocumentReference": {"patient": "subject", "subject": "subject"},
    "Provenance": {"target": "target"},
    "Patient": {"general-practitioner": "generalPractitioner"},
    "Communication": {"sender": "sender", "subject": "subject"},
    "QuestionnaireResponse": {"source": "source", "subject": "subject"},
    "Coverage": {"beneficiary": "beneficiary", "payor": "payor"},
    "Appointment": {"actor": "participant.actor"},
    "Consent": {"patient": "patient", "actor": "provision.actor.reference"},
    "RelatedPerson": {"patient": "patient"},
}
TOKENS = {
    "Observation": {"category": ("category",), "code": ("code",)},
    "Condition": {"code": ("code",)},
    "Immunization": {"vaccine-code": ("vaccineCode",)},
    "DocumentReference": {"category": ("category",)},
    "Consent": {"category": ("category",)},
}
STATUS = ("Observation", "Encounter", "Immunization", "Communication", "Appointment", "Consent")
DATES = {"Observation": ("date", "effectiveDateTime"), "Patient": ("birthdate", "birthDate")}
NAMES = {"Patient": "family", "Practitioner": "family", "Organization": "name"}
SORTS = {
    "Observation": ("date", "-date", "code", "value-quantity", "-_lastUpdated"),
    "Patient": ("family", "-birthdate"),
    "Practitioner": ("-family",),
    "Provenance": ("recorded",),
    "Encounter": ("-date", "status"),
}


def _names(tree: Json) -> list[str]:
    name = tree.get("name")
    return [name] if isinstance(name, str) else [one["family"] for one in name or ()]


Test = Callable[[Json], bool]


def _points_at(path: str, target: str) -> Test:
    return lambda tree: target in targets(tree, path)


def _points_nowhere(path: str) -> Test:
    return lambda tree: not targets(tree, path)


def _is_coded(steps: Sequence[str], code: str) -> Test:
    return lambda tree: code in codes(tree, *steps)


def _is_not_coded(steps: Sequence[str], code: str) -> Test:
    return lambda tree: code not in codes(tree, *steps)


def criterion(rng: random.Random, name: str, like: Json) -> Criterion:
    """A question that ``like`` is an answer to, most of the time."""
    made: list[Criterion] = []
    for parameter, path in REFERENCES.get(name, {}).items():
        made += [
            Criterion(parameter, target, _points_at(path, target)) for target in targets(like, path)
        ]
        made.append(Criterion(f"{parameter}:missing", "true", _points_nowhere(path)))
    for parameter, steps in TOKENS.get(name, {}).items():
        for code in codes(like, *steps):
            made.append(Criterion(parameter, code, _is_coded(steps, code)))
            made.append(Criterion(f"{parameter}:not", code, _is_not_coded(steps, code)))
    if name in STATUS:
        made.append(Criterion("status", like["status"], lambda t: t["status"] == like["status"]))
    if name in DATES:
        parameter, element = DATES[name]
        on = like[element]
        made += [
            Criterion(parameter, f"ge{on}", lambda t: t[element] >= on),
            Criterion(parameter, f"lt{on}", lambda t: t[element] < on),
        ]
    if name == "Observation":
        value = like["valueQuantity"]["value"]
        made.append(
            Criterion("value-quantity", f"gt{value}", lambda t: t["valueQuantity"]["value"] > value)
        )
    if name in NAMES:
        parameter = NAMES[name]
        text = _names(like)[0]
        made += [
            Criterion(
                parameter,
                text[:4].lower(),
                lambda t: any(n.lower().startswith(text[:4].lower()) for n in _names(t)),
            ),
            Criterion(f"{parameter}:exact", text, lambda t: text in _names(t)),
            Criterion(
                f"{parameter}:contains",
                text[1:4],
                lambda t: any(text[1:4].lower() in n.lower() for n in _names(t)),
            ),
        ]
    made.append(Criterion("_id", like["id"], lambda t: t["id"] == like["id"]))
    return rng.choice(made)


def query_of(criteria: Sequence[Criterion]) -> list[tuple[str, str]]:
    return [(one.name, one.value) for one in criteria]


def matching(view: View, name: str, criteria: Sequence[Criterion]) -> dict[str, Json]:
    return {key: tree for key, tree in view.found(name) if all(one.holds(tree) for one in criteria)}


def search(
    kind: str,
    name: str,
    criteria: Sequence[Criterion],
    shape: Sequence[tuple[str, str]] = (),
    *,
    walk: bool = False,
    includes: Sequence[tuple[str, str]] = (),
    revincludes: Sequence[tuple[str, str, str]] = (),
    by_post: bool = False,
) -> Ask:
    """``includes`` are (parameter, path), ``revincludes`` (type, parameter, path)."""
    shaping = dict(shape)

    def judge(now: Situation, answers: Sequence[Raw]) -> str:
        view = now.view
        if not view.allows("s", name):
            return differs("status", 403, answers[0].status)
        if "_summary" in shaping and view.reader.is_staff and not view.reader.patient:
            return differs("status", 400, answers[0].status)  # a total is in nobody's log
        if answers[0].status != 200:
            return differs("status", 200, answers[0].status) + str(answers[0].body)
        expected = matching(view, name, criteria)
        if shaping.get("_total") == "accurate" or "_summary" in shaping:
            totals = {answer.json.get("total") for answer in answers}
            wrong = differs("total", {len(expected)}, totals)
            if wrong or "_summary" in shaping:
                return wrong
        found = [key for answer in answers for key in answer.keys("match")]
        if len(found) != len(set(found)):
            return f"matches come twice: {found}"
        wrong = differs("matches", set(expected), set(found))
        if wrong or not (includes or revincludes):
            return wrong
        also = {
            key
            for _, path in includes
            for tree in expected.values()
            for key in targets(tree, path)
            if key not in expected and view.sees(key, "s") and _lives(view, key)
        } | {
            key
            for other, _, path in revincludes
            for key, tree in view.found(other)
            if key not in expected and targets(tree, path) & set(expected)
        }
        return differs("included", also, {k for answer in answers for k in answer.keys("include")})

    pairs = [
        *query_of(criteria),
        *shape,
        *(("_include", f"{name}:{parameter}") for parameter, _ in includes),
        *(("_revinclude", f"{other}:{parameter}") for other, parameter, _ in revincludes),
    ]
    if by_post:
        return Ask(kind, "POST", f"/{name}/_search", judge, form=urlencode(pairs), walk=walk)
    return Ask(kind, "GET", f"/{name}?{urlencode(pairs)}", judge, walk=walk)


def _lives(view: View, key: str) -> bool:
    versions = view.versions_of(key)
    return bool(versions) and versions is not None and versions[-1].tree is not None


# ---------------------------------------------------------------- bundles, the log, foreign links


def batch(asks: Sequence[Ask]) -> Ask:
    def judge(now: Situation, answers: Sequence[Raw]) -> str:
        entries = answers[0].entries
        if len(entries) != len(asks):
            return differs("entries", len(asks), len(entries))
        for one, entry in zip(asks, entries, strict=True):
            inner = Raw(
                int(entry["response"]["status"][:3]),
                (),
                json.dumps(entry.get("resource", entry["response"].get("outcome"))).encode(),
            )
            wrong = one.judge(now, [inner])
            if wrong:
                return f"{one}: {wrong}"
        return ""

    body = b.a_bundle("batch", *((one.method, one.path.lstrip("/")) for one in asks))
    return Ask("batch", "POST", "", judge, body=body, rows=len(asks) + 1)


def own_log(count: int, more: str = "") -> Ask:
    def judge(now: Situation, answers: Sequence[Raw]) -> str:
        if not now.view.allows("s", "AuditEvent"):
            return differs("status", 403, answers[0].status)
        found = [key for answer in answers for key in answer.keys("match")]
        if len(found) != len(set(found)):
            return "a line of the log comes twice"
        if now.logged is None or more:
            return ""
        return differs("lines of the log", now.logged, len(found))

    return Ask("log", "GET", f"/AuditEvent?_count={count}{more}", judge, walk=True)


def line_of_log(row_id: str, *, own: bool) -> Ask:
    def judge(now: Situation, answers: Sequence[Raw]) -> str:
        if not now.view.allows("r", "AuditEvent"):
            return differs("status", 403, answers[0].status)
        return differs("status", 200 if own else 404, answers[0].status)

    return Ask("log-line", "GET", f"/AuditEvent/{row_id}", judge)


def foreign_link(name: str, link: str) -> Ask:
    def judge(now: Situation, answers: Sequence[Raw]) -> str:
        if not now.view.allows("s", name):
            return differs("status", 403, answers[0].status)
        permitted = {key for key, _ in now.view.found(name)}
        found = {key for answer in answers for key in answer.keys("match")}
        return differs("beyond what is permitted", set(), found - permitted)

    return Ask("foreign-link", "GET", link, judge, walk=True)


# ---------------------------------------------------------------- documents made on demand

DOCUMENTS = (
    "Patient/{}/$ccd",
    "Patient/{}/$summary",
    "DocumentReference/$docref?patient={}",
    "Patient/{}/$export-self",
)
_HELD = re.compile(rb'(?:extension="|"reference":"|<tr id=")([A-Z][A-Za-z]+)/([A-Za-z0-9.-]+)')
_WHOLE = ("Condition", "Immunization", "Encounter")
"""Types of which a C-CDA holds all that its reader finds."""


def document(path: str, patient: str) -> Ask:
    """A document holds nothing that its reader could not find; a C-CDA holds all of some types."""

    def judge(now: Situation, answers: Sequence[Raw]) -> str:
        (answer,) = answers
        view = now.view
        if answer.status != 200:
            return "" if answer.status in {403, 404} else f"status {answer.status}"
        if path.endswith("$export-self"):
            return archived(view, patient, answer.body)
        held = {f"{a.decode()}/{c.decode()}" for a, c in _HELD.findall(answer.body)}
        if path.startswith("Patient/{}/$summary"):
            held = {
                key
                for one in answer.entries[0]["resource"]["section"]
                for key in (entry["reference"] for entry in one.get("entry", ()))
            }
        owned = {key for key in held if key.partition("/")[0] in CHART_TYPES}
        hidden = {key for key in owned if not (view.sees(key, "s") and _lives(view, key))}
        if hidden or "$ccd" not in path:
            return differs("hidden", set(), hidden)
        own = b.reference(f"Patient/{patient}")
        for name in _WHOLE:
            found = view.found(name) if view.allows("s", name) else ()
            expected = {
                key
                for key, tree in found
                if is_told(tree) and own in (tree.get("subject"), tree.get("patient"))
            }
            wrong = differs(name, expected, {key for key in owned if key.startswith(f"{name}/")})
            if wrong:
                return wrong
        return ""

    headers = (("accept", "*/*"),)
    return Ask("document", "GET", f"/{path.format(patient)}", judge, headers=headers)


def archived(view: View, patient: str, content: bytes) -> str:
    """An archive holds what its reader finds of each type of the record, and nothing else."""
    held: dict[str, set[str]] = {}
    with ZipFile(io.BytesIO(content)) as archive:
        for name in archive.namelist():
            if name.startswith("data/"):
                for tree in map(json.loads, archive.read(name).splitlines()):
                    key = f"{tree['resourceType']}/{tree['id']}"
                    held.setdefault(tree["resourceType"], set()).add(key)
    own = b.reference(f"Patient/{patient}")
    for name in _WHOLE:
        found = view.found(name) if view.allows("s", name) else ()
        expected = {key for key, tree in found if own in (tree.get("subject"), tree.get("patient"))}
        wrong = differs(name, expected, held.get(name, set()))
        if wrong:
            return wrong
    owned = {key for name, keys in held.items() if name in CHART_TYPES for key in keys}
    return differs("hidden", set(), {key for key in owned if not view.sees(key, "s")})


# ---------------------------------------------------------------- a person's writes


@dataclass(frozen=True)
class Rights:
    """Who in this world may write, from the write table and the grants."""

    communicate: frozenset[str] = frozenset({"ada", "ada-elsewhere", "ada-for-kit", "tess", "zoe"})
    answer: frozenset[str] = frozenset({"ada", "ada-elsewhere", "tess", "zoe"})


RIGHTS = Rights()


def message(
    view: View,
    *,
    subject: str,
    sender: str,
    about: str | None = None,
    attachment: str | None = None,
    if_none_exist: Criterion | None = None,
) -> Ask:
    reader = view.reader
    tree = b.a_communication(of=subject, sender=sender)
    if about:
        tree["about"] = [b.reference(about)]
    if attachment:
        tree["payload"] = [{"contentAttachment": {"url": attachment}}]

    def judge(now: Situation, answers: Sequence[Raw]) -> str:
        (answer,) = answers
        if reader.name not in RIGHTS.communicate or sender != reader.user:
            return differs("status", 403, answer.status)
        if if_none_exist is not None:
            found = matching(now.view, "Communication", [if_none_exist])
            if len(found) > 1:
                return differs("status", 412, answer.status)
            if found:
                own_id = next(iter(found)).partition("/")[2]
                return differs("status", 200, answer.status) or differs(
                    "match", own_id, answer.json["id"]
                )
        if subject != reader.patient:
            return differs("status", 403, answer.status)
        if attachment:
            return differs("status", 422, answer.status)  # a Binary is never a person's to attach
        for key in filter(None, (about,)):
            if not (now.view.sees(key, "r") and _lives(now.view, key)):
                return differs("status", 422, answer.status)
        return differs("status", 201, answer.status)

    headers: tuple[tuple[str, str], ...] = ()
    if if_none_exist is not None:
        headers = (("if-none-exist", urlencode(query_of([if_none_exist]))),)
    return Ask("create", "POST", "/Communication", judge, headers=headers, body=tree)


def answers_form(view: View, own_id: str, *, subject: str, if_match: int | None = None) -> Ask:
    reader = view.reader
    key = f"QuestionnaireResponse/{own_id}"
    tree = b.some_answers(own_id, of=subject, source=reader.user)

    def judge(now: Situation, answers: Sequence[Raw]) -> str:
        status = answers[0].status
        if reader.name not in RIGHTS.answer:
            return differs("status", 403, status)
        if not now.view.sees(key, "u"):
            return differs("status", 404, status)
        versions = now.view.versions_of(key) or []
        if if_match is not None and if_match != versions[-1].number:
            return differs("status", 412, status)
        return differs("status", 200 if subject == reader.patient else 403, status)

    headers = (("if-match", f'W/"{if_match}"'),) if if_match is not None else ()
    return Ask("update", "PUT", f"/{key}", judge, headers=headers, body=tree)


def forbidden_write(method: str, key: str, tree: Json | None) -> Ask:
    def judge(_: Situation, answers: Sequence[Raw]) -> str:
        return differs("status", 403, answers[0].status)

    path = f"/{key}" if method != "POST" else f"/{key.partition('/')[0]}"
    return Ask("write-refused", method, path, judge, body=tree)


# ---------------------------------------------------------------- choosing


@dataclass
class Foreign:
    """What the reader should not have, but asks with: other people's links and log ids."""

    links: list[tuple[str, str]] = field(default_factory=list)
    lines: list[tuple[str, str, str, bool | None]] = field(default_factory=list)
    """(practice, record, id) of lines of the log, and whether the record's person may see them."""


INCLUDABLE = {name: tuple(paths.items()) for name, paths in REFERENCES.items()}
REVINCLUDABLE: dict[str, tuple[tuple[str, str, str], ...]] = {
    "Patient": (
        ("Observation", "patient", "subject"),
        ("Condition", "patient", "subject"),
        ("DocumentReference", "patient", "subject"),
        ("Consent", "patient", "patient"),
        ("RelatedPerson", "patient", "patient"),
    ),
    "Observation": (("Provenance", "target", "target"),),
    "Condition": (("Provenance", "target", "target"),),
    "DocumentReference": (("Provenance", "target", "target"),),
    "Binary": (("Provenance", "target", "target"),),
    "Practitioner": (
        ("Observation", "performer", "performer"),
        ("Encounter", "participant", "participant.individual"),
        ("Patient", "general-practitioner", "generalPractitioner"),
    ),
    "Organization": (
        ("Coverage", "payor", "payor"),
        ("Encounter", "service-provider", "serviceProvider"),
    ),
    "RelatedPerson": (("Consent", "actor", "provision.actor.reference"),),
}
SEARCHED = tuple(sorted({*REFERENCES, "Practitioner", "Organization", "Binary", "Person"}))
REFUSED = 0.15
"""How often a search is of any type, the reader's scopes left aside."""


@dataclass
class Asking:
    """Makes up requests for one reader: about everything, and often about what changed."""

    rng: random.Random
    view: View
    trees: dict[str, list[Json]]
    """Every resource of the world by type, hidden ones included."""
    changed: Sequence[tuple[str, Json]]
    foreign: Foreign
    missed: dict[str, list[Json]] = field(init=False)
    """By type, what one label, or one step of a scope, keeps from the reader."""

    def __post_init__(self) -> None:
        self.missed = {}
        for tree in self.view.nearly_seen():
            self.missed.setdefault(tree["resourceType"], []).append(tree)

    def some_ask(self) -> Ask:
        kind = self.rng.choices(list(KINDS), [weight for weight, _ in KINDS.values()])[0]
        return KINDS[kind][1](self)

    def key(self) -> str:
        return f"{(tree := self.tree())['resourceType']}/{tree['id']}"

    def tree(self, names: Sequence[str] | None = None) -> Json:
        rng = self.rng
        near = [t for _, t in self.changed if names is None or t["resourceType"] in names]
        if near and rng.random() < 0.5:
            return rng.choice(near)
        missed = [name for name in self.missed if names is None or name in names]
        if missed and rng.random() < 0.3:
            return rng.choice(self.missed[rng.choice(missed)])
        name = rng.choice(names or SEARCHED)
        return rng.choice(self.trees[name])

    def searchable(self, names: Sequence[str]) -> str:
        """Return a type, mostly one that the reader may search: the others are all answered 403."""
        open_to = [name for name in names if self.view.allows("s", name)]
        anything = not open_to or self.rng.random() < REFUSED
        name: str = self.tree(names if anything else open_to)["resourceType"]
        return name

    def criteria(self, name: str) -> list[Criterion]:
        rng = self.rng
        made = [criterion(rng, name, self.tree([name])) for _ in range(rng.choice((0, 1, 1, 2)))]
        by_name = {one.name.partition(":")[0]: one for one in made}
        return list(by_name.values())

    def read(self) -> Ask:
        return read(self.key())

    def read_if_changed(self) -> Ask:
        return read_if_changed(self.key(), self.rng.choice((1, 1, 2)))

    def native(self) -> Ask:
        return native(f"Binary/{self.tree(['Binary'])['id']}")

    def vread(self) -> Ask:
        return vread(self.key(), self.rng.choice((1, 1, 2, 3)))

    def history(self) -> Ask:
        return history(self.key(), self.rng.choice((1, 2, 50)))

    def feed(self) -> Ask:
        since = self.rng.choice((None, "2030-03-17T17:48:00Z", "2030-03-17T17:51:00Z"))
        return feed(self.rng.choice((7, 40, 300)), since)

    def search(self) -> Ask:
        name = self.searchable(SEARCHED)
        by_post = self.rng.random() < 0.2
        return search("search", name, self.criteria(name), [("_count", "200")], by_post=by_post)

    def total(self) -> Ask:
        name = self.searchable(SEARCHED)
        shape = self.rng.choice(
            ([("_total", "accurate"), ("_count", "200")], [("_summary", "count")])
        )
        return search("total", name, self.criteria(name), shape)

    def walk(self) -> Ask:
        name = self.searchable(SEARCHED)
        shape = [("_count", str(self.rng.choice((1, 2, 3, 5))))]
        if self.rng.random() < 0.7:
            shape.append(("_sort", self.rng.choice((*SORTS.get(name, ()), "_id", "_lastUpdated"))))
        if self.rng.random() < 0.3:
            shape.append(("_total", "accurate"))
        return search("paging", name, self.criteria(name), shape, walk=True)

    def include(self) -> Ask:
        name = self.searchable(list(INCLUDABLE))
        paths = self.rng.sample(INCLUDABLE[name], self.rng.randint(1, len(INCLUDABLE[name])))
        criteria = self.criteria(name) if self.rng.random() < 0.5 else []
        return search("include", name, criteria, [("_count", "200")], includes=paths)

    def revinclude(self) -> Ask:
        name = self.searchable(list(REVINCLUDABLE))
        rows = REVINCLUDABLE[name]
        chosen = self.rng.sample(rows, self.rng.randint(1, len(rows)))
        criteria = self.criteria(name) if self.rng.random() < 0.5 else []
        return search("revinclude", name, criteria, [("_count", "200")], revincludes=chosen)

    def batch(self) -> Ask:
        makers = (self.read, self.vread, self.search, self.include, self.revinclude, self.total)
        asks = [self.rng.choice(makers)() for _ in range(self.rng.randint(2, 4))]
        return batch([one for one in asks if one.method == "GET"])

    def log(self) -> Ask:
        more = self.rng.choice(
            ("", "", f"&patient=Patient/{self.view.reader.patient}", "&date=ge2030")
        )
        return own_log(self.rng.choice((3, 50, 200)), more)

    def log_line(self) -> Ask:
        lines = [line for line in self.foreign.lines if line[3] is not None]
        practice, record, row_id, told = self.rng.choice(lines)
        reader = self.view.reader
        own = (practice, record) == (reader.practice, reader.patient) and reader.is_self
        own = own and bool(told)
        return line_of_log(row_id, own=own)

    def foreign_link(self) -> Ask:
        return foreign_link(*self.rng.choice(self.foreign.links))

    def document(self) -> Ask:
        reader = self.view.reader
        patient = self.rng.choice((reader.patient or "ada", reader.patient or "kit", "bo"))
        return document(self.rng.choice(DOCUMENTS), patient)

    def message(self) -> Ask:
        rng, reader = self.rng, self.view.reader
        exists = None
        if rng.random() < 0.7:
            exists = criterion(rng, "Communication", self.tree(["Communication"]))
        return message(
            self.view,
            subject=rng.choice((reader.patient, reader.patient, reader.patient, "bo")),
            sender=rng.choice((*(reader.user,) * 6, "Practitioner/lark", "Patient/bo")),
            about=self.key() if rng.random() < 0.4 else None,
            attachment=f"Binary/{self.tree(['Binary'])['id']}" if rng.random() < 0.4 else None,
            if_none_exist=exists,
        )

    def form(self) -> Ask:
        return answers_form(
            self.view,
            self.tree(["QuestionnaireResponse"])["id"],
            subject=self.rng.choice((self.view.reader.patient, "bo")),
            if_match=self.rng.choice((None, None, 1, 2)),
        )

    def refused(self) -> Ask:
        tree = self.tree(
            [n for n in SEARCHED if n not in {"Communication", "QuestionnaireResponse"}]
        )
        key = f"{tree['resourceType']}/{tree['id']}"
        method = self.rng.choice(("PUT", "POST", "DELETE"))
        return forbidden_write(method, key, None if method == "DELETE" else tree)


KINDS: dict[str, tuple[int, Callable[[Asking], Ask]]] = {
    "read": (12, Asking.read),
    "read-if-changed": (3, Asking.read_if_changed),
    "binary-content": (5, Asking.native),
    "vread": (6, Asking.vread),
    "history": (6, Asking.history),
    "feed": (5, Asking.feed),
    "search": (14, Asking.search),
    "total": (6, Asking.total),
    "paging": (8, Asking.walk),
    "include": (7, Asking.include),
    "revinclude": (7, Asking.revinclude),
    "batch": (5, Asking.batch),
    "document": (6, Asking.document),
    "log": (4, Asking.log),
    "log-line": (2, Asking.log_line),
    "foreign-link": (3, Asking.foreign_link),
    "create": (9, Asking.message),
    "update": (5, Asking.form),
    "write-refused": (2, Asking.refused),
}
READ_ONLY = frozenset(
    {"read", "read-if-changed", "binary-content", "vread", "history", "feed", "search", "total"}
    | {"paging", "include", "revinclude", "batch"}
)
"""Kinds that the EHR can be asked too."""
