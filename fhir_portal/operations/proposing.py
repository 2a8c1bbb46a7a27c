"""What a ``$propose-update`` says, read against what is on file: one proposal after the other.

Everything is looked up under what the caller may see. Nobody's words lead anywhere: in what is
proposed there is no reference and no address of a file but those that stand there already.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from fhir_portal.access.owners import local_target
from fhir_portal.fhir import json
from fhir_portal.fhir.datetime import instant
from fhir_portal.fhir.errors import Invalid, PreconditionFailed, Unprocessable
from fhir_portal.fhir.reference import ResourceKey
from fhir_portal.operations.call import Call
from fhir_portal.operations.deciding import require_valid
from fhir_portal.operations.definition import Arguments
from fhir_portal.operations.message_thread import agent_of
from fhir_portal.resources.forms.extract import finished
from fhir_portal.resources.interactions.read import unknown
from fhir_portal.resources.permission import checked, permitted, permitted_or_none
from fhir_portal.resources.proposal import (
    FIELDS,
    IN_EXTENSIONS,
    Proposed,
    changed_since,
    is_same,
    value_of,
    with_value,
)
from fhir_portal.resources.store import ResourceReader, ResourceTransaction, Row

LONGEST_NOTE: Final = 500
_LONGEST: Final = 20_000
_MICROSECONDS: Final = 1_000_000
_MEDICINES: Final = ("MedicationRequest", "MedicationStatement")
_NOT_PROPOSED: Final = frozenset({"resourceType", "id", "meta", "text", "implicitRules"})
_LEADS: Final = frozenset({"reference", "url", "data", "contained", "modifierExtension"})
_NEEDED: Final[Mapping[str, tuple[str, ...]]] = {
    "Patient": (),
    "Coverage": ("status", "beneficiary", "payor"),
}
"""Without these a resource of the type is none."""


@dataclass(frozen=True, slots=True)
class Made:
    """A proposal, and the row that it is about."""

    proposed: Proposed
    about: Row


async def seen(reader: ResourceReader, call: Call, key: ResourceKey) -> Row:
    """Return a resource as the caller may see it. Raises `NotFound`: absent, hidden, deleted."""
    visible = permitted(call.server, call.auth, "r", key.type)
    row = await reader.read(key, visible)
    if row is None or row.deleted:
        raise unknown(key)
    checked([row], visible)
    return row


async def details(
    transaction: ResourceTransaction,
    call: Call,
    name: str,
    *,
    photo: Sequence[Mapping[str, Any]] | None,
) -> Made | None:
    """Return what is proposed about the Patient; ``None`` where that is what is on file.

    ``photo`` is the new value of ``Patient.photo``; ``None``: nothing is said of it.
    """
    arguments = call.arguments
    given = arguments.one("patient") or {"resourceType": "Patient"}
    cleared = [str(one) for one in arguments.all("clear")]
    wrong = [one for one in cleared if one not in FIELDS["Patient"]]
    if wrong:
        message = f"clear names fields: {', '.join(FIELDS['Patient'])}"
        raise Unprocessable(message, expression=_place("clear"))
    row = await seen(transaction, call, ResourceKey("Patient", str(call.request.id)))
    now = json.parse(row.body)
    values = dict(_values(given, now, _place("patient"), str(call.request.id)))
    both = [one for one in cleared if values.get(one)]
    if both or (photo and "photo" in cleared):
        message = f"{(both or ['photo'])[0]} is to be something, and to be empty"
        raise Unprocessable(message, expression=_place("clear"))
    values |= {one: None for one in cleared if value_of(now, one)}
    if values:
        await _require_seen(
            transaction, call, row, arguments.one("version"), list(values), _place("version")
        )
    if photo is not None:
        values["photo"] = list(photo)
    return _update(row, now, values, name)


async def insurance(
    transaction: ResourceTransaction,
    call: Call,
    given: Arguments,
    at: int,
    name: str,
    *,
    cards: Sequence[Mapping[str, Any]],
) -> Made | None:
    """Return what is proposed about a Coverage; ``cards`` are extensions with its new pictures."""
    place = f"{_place('coverage')}[{at}]"
    action, target, tree = given.one("action"), given.one("target"), given.one("coverage")
    if action not in {"new", "change", "end"}:
        message = "action is new, change or end"
        raise Unprocessable(message, expression=f"{place}.part.where(name='action')")
    wants = {"target": action != "new", "end": action == "end", "coverage": action == "new"}
    for part, is_wanted in wants.items():
        is_there = given.one(part) is not None
        is_taken = is_wanted or (part == "coverage" and action == "change")
        if (is_wanted and not is_there) or (is_there and not is_taken):
            message = f"of what is to be '{action}' {part} is {'given' if is_wanted else 'not'}"
            raise Unprocessable(message, expression=f"{place}.part.where(name='{part}')")
    if action == "new":
        return await _new_coverage(transaction, call, tree, name, place, cards)
    row = await seen(transaction, call, _key(target, ("Coverage",), f"{place}.part"))
    now = json.parse(row.body)
    if action == "end":
        if cards:
            message = "of what ends no picture is taken"
            raise Unprocessable(message, expression=place)
        period = {**(now.get("period") or {}), "end": given.one("end")}
        start = str(period.get("start", ""))
        if start and str(given.one("end")) < start[:10]:
            message = "it cannot end before it began"
            raise Unprocessable(message, expression=f"{place}.part.where(name='end')")
        return _update(row, now, {"period": period}, name)
    values = dict(_values(tree or {"resourceType": "Coverage"}, now, place, str(call.request.id)))
    if "payor" in values and not values["payor"]:
        message = "there is a payor"
        raise Unprocessable(message, expression=f"{place}.payor")
    if values:
        await _require_seen(transaction, call, row, given.one("version"), list(values), place)
    if cards:
        values["card"] = _with_cards(now, cards)
    return _update(row, now, values, name)


async def not_taken(
    transaction: ResourceTransaction, call: Call, given: Arguments, at: int, name: str
) -> Made:
    """Return a MedicationStatement which says that a medicine of the list is not taken."""
    place = f"{_place('not-taken')}[{at}]"
    row = await seen(transaction, call, _key(given.one("target"), _MEDICINES, f"{place}.part"))
    medicine = json.parse(row.body)
    since, note = given.one("since"), str(given.one("note") or "").strip()
    if len(note) > LONGEST_NOTE or not note.isprintable():
        message = f"note is one line of at most {LONGEST_NOTE} signs"
        raise Unprocessable(message, expression=f"{place}.part.where(name='note')")
    tree: dict[str, Any] = {
        "resourceType": "MedicationStatement",
        "status": "not-taken",
        **await _medicine(transaction, call, medicine),
        **({"effectivePeriod": {"start": since}} if since else {}),
        "derivedFrom": [{"reference": str(row.key)}],
        **({"note": [{"text": note}]} if note else {}),
    }
    return Made(Proposed(name, _finished(call, tree, place)), row)


def part_of(made: Made, fields: Sequence[str]) -> Made | None:
    """Return a proposal about some of its fields alone; ``None`` where it is about none."""
    proposed = made.proposed
    kept = tuple(one for one in proposed.fields if one in fields)
    if not kept:
        return None
    trees = []
    for whole in (proposed.tree, proposed.before or {}):
        tree: dict[str, Any] = {"resourceType": proposed.tree["resourceType"]}
        for field in kept:
            with_value(tree, field, value_of(whole, field))
        trees.append(tree)
    return replace(made, proposed=replace(proposed, tree=trees[0], before=trees[1], fields=kept))


def contained(made: Proposed) -> Iterator[dict[str, Any]]:
    """Yield what stands in the Task: what is proposed, and what it would change."""
    yield _inside(made.tree, made.name)
    if made.before is not None:
        yield _inside(made.before, f"b{made.name[1:]}")


def _inside(tree: Mapping[str, Any], name: str) -> dict[str, Any]:
    kept = {member: value for member, value in tree.items() if member not in {"id", "meta"}}
    return {"resourceType": kept.pop("resourceType"), "id": name, **kept}


async def _new_coverage(
    transaction: ResourceTransaction,
    call: Call,
    given: Mapping[str, Any],
    name: str,
    place: str,
    cards: Sequence[Mapping[str, Any]],
) -> Made:
    own = {"status": "active", "beneficiary": {"reference": f"Patient/{call.request.id}"}}
    values = dict(_values(given, own, place, str(call.request.id)))
    tree: dict[str, Any] = {"resourceType": "Coverage"}
    for field, value in values.items():
        with_value(tree, field, value)
    if not tree.get("payor"):
        message = "say who the insurance is with: payor, by display"
        raise Unprocessable(message, expression=f"{place}.payor")
    if cards:
        with_value(tree, "card", list(cards))
    patient = await call.target(transaction)
    return Made(Proposed(name, _finished(call, tree, place)), patient)


def _finished(call: Call, tree: Mapping[str, Any], place: str) -> dict[str, Any]:
    """Return something new as one of this patient, and of who says so."""
    said = {
        "subject": {"reference": f"Patient/{call.request.id}"},
        "source": {"reference": agent_of(call)},
        "authored": instant(int(call.server.clock() * _MICROSECONDS)),
    }
    made = finished(tree, said)
    assert made is not None  # noqa: S101 - the types are ours
    _require_short(made, place)
    require_valid(made)
    return made


def _update(row: Row, now: Mapping[str, Any], values: Mapping[str, Any], name: str) -> Made | None:
    changed = {n: v for n, v in values.items() if not is_same(v, value_of(now, n))}
    if not changed:
        return None
    kind = row.key.type
    fields = tuple(one for one in FIELDS[kind] if one in changed)
    whole = dict(now)
    after: dict[str, Any] = {"resourceType": kind}
    before: dict[str, Any] = {"resourceType": kind}
    for needed in _NEEDED[kind]:
        if needed in now:
            after[needed] = before[needed] = now[needed]
    for field in fields:
        with_value(whole, field, changed[field])
        with_value(after, field, changed[field])
        with_value(before, field, value_of(now, field))
    require_valid(whole)
    _require_short(after, kind)
    return Made(Proposed(name, after, fields, row.key, str(row.version), before), row)


def _values(
    given: Mapping[str, Any], now: Mapping[str, Any], place: str, patient: str
) -> Iterator[tuple[str, Any]]:
    """Yield the fields in which a resource that was sent is another one, with their values.

    Raises `Unprocessable` for an element that cannot be proposed.
    """
    kind = str(given["resourceType"])
    if "id" in given and now and given["id"] != now.get("id"):
        message = "this is another resource than the one that is to be changed"
        raise Unprocessable(message, expression=f"{place}.id")
    for field, value in given.items():
        if field in _NOT_PROPOSED or field == "extension":
            continue
        if is_same(value, now.get(field)):
            continue
        if field not in FIELDS[kind] or field == "photo":
            message = f"{field[:40]} is not changed by a proposal"
            raise Unprocessable(message, expression=f"{place}.{field[:40]}")
        _require_plain(value, now.get(field), f"{place}.{field}", patient, in_extension=False)
        yield field, value
    known = {url: field for field, urls in IN_EXTENSIONS.items() for url in urls}
    fields = set[str]()
    for one in given.get("extension") or ():
        proposed = known.get(str(one.get("url")))
        if proposed in FIELDS[kind] and proposed != "card":
            fields.add(str(proposed))
        elif not any(is_same(one, other) for other in now.get("extension") or ()):
            message = "this extension is not changed by a proposal"
            raise Unprocessable(message, expression=f"{place}.extension")
    for field in sorted(fields):
        value = value_of(given, field)
        if not is_same(value, value_of(now, field)):
            there = value_of(now, field)
            _require_plain(value, there, f"{place}.extension", patient, in_extension=True)
            yield field, value


def _require_plain(value: Any, there: Any, place: str, patient: str, *, in_extension: bool) -> None:
    """Refuse what leads elsewhere, or says what nobody shows. What is on file may stay."""
    known = {json.dumps(one) for one in _objects(there)}
    own = f"Patient/{patient}"
    stack: list[tuple[Any, bool]] = [(value, in_extension)]
    while stack:
        node, is_extension = stack.pop()
        if isinstance(node, list):
            stack += [(one, is_extension) for one in node]
        if not isinstance(node, Mapping) or json.dumps(dict(node)) in known:
            continue
        for name, inner in node.items():
            is_own = name == "reference" and inner == own
            # Of an extension alone: the url of an Attachment in one leads to a file.
            is_part = is_extension and name in {"url", "extension"}
            leads = name in _LEADS or name == "extension" or name.startswith("_")
            if leads and not is_own and not is_part:
                message = f"{name[:40]} is not part of a proposal: say it in words"
                raise Unprocessable(message, expression=place)
            stack.append((inner, is_extension and name == "extension"))


def _objects(value: Any) -> Iterable[dict[str, Any]]:
    stack = [value]
    while stack:
        node = stack.pop()
        if isinstance(node, list):
            stack += node
        elif isinstance(node, Mapping):
            yield dict(node)
            stack += node.values()


async def _require_seen(
    transaction: ResourceTransaction,
    call: Call,
    row: Row,
    version: Any,
    fields: Sequence[str],
    place: str,
) -> None:
    """Hold what was looked at against what is on file now.

    Raises:
        Invalid: it is not said. Unprocessable: there was no such version. PreconditionFailed: one
            of the fields was changed since.
    """
    if version is None:
        message = "say which version was looked at: meta.versionId"
        raise Invalid(message, expression=place)
    if str(version) == str(row.version):
        return
    text = str(version)
    visible = permitted(call.server, call.auth, "r", row.key.type)
    old = None
    if text.isascii() and text.isdecimal() and len(text) < 10 and 0 < int(text) < row.version:  # noqa: PLR2004
        old = await transaction.vread(row.key, int(text), visible)
        if old is None and visible.only_current:  # it may have been there: they are to look again
            message = "the record was changed meanwhile: look at it again"
            raise PreconditionFailed(message, expression=place)
    if old is None or old.deleted:
        message = "there is no such version"
        raise Unprocessable(message, expression=place)
    changed = changed_since(json.parse(old.body), json.parse(row.body), fields)
    if changed:
        message = f"the record was changed meanwhile ({', '.join(changed)}): look at it again"
        raise PreconditionFailed(message, expression=place)


def _with_cards(
    now: Mapping[str, Any], cards: Sequence[Mapping[str, Any]]
) -> list[Mapping[str, Any]]:
    """Return the pictures of a card with the new ones, each in the place of the one like it."""
    labels = {label_of(one) for one in cards}
    return [*(one for one in value_of(now, "card") or () if label_of(one) not in labels), *cards]


def label_of(extension: Mapping[str, Any]) -> str:
    """Return what a picture of an insurance card is called."""
    parts = extension.get("extension") or ()
    return next((str(one.get("valueString")) for one in parts if one.get("url") == "label"), "")


async def _medicine(
    transaction: ResourceTransaction, call: Call, tree: Mapping[str, Any]
) -> dict[str, Any]:
    """Return what medicine it is, with its name; one that is contained by what it is called."""
    referred = tree.get("medicationReference") or {}
    text = str(referred.get("reference", ""))
    if not text.startswith("#"):
        own = {name: value for name, value in tree.items() if name.startswith("medication")}
        key = local_target(text)
        visible = permitted_or_none(call.server, call.auth, "r", "Medication")
        if key is None or key.type != "Medication" or "display" in referred or visible is None:
            return own
        row = await transaction.read(key, visible)
        concept = {} if row is None or row.deleted else json.parse(row.body).get("code") or {}
        codings = concept.get("coding") or [{}]
        name = concept.get("text") or codings[0].get("display")
        return {"medicationReference": {**referred, "display": name}} if name else own
    codes = [one.get("code") for one in tree.get("contained") or () if f"#{one.get('id')}" == text]
    code = next(iter(codes), None)
    return {"medicationCodeableConcept": code or {"text": referred.get("display") or "a medicine"}}


def _key(reference: Any, types: tuple[str, ...], place: str) -> ResourceKey:
    text = str((reference or {}).get("reference", ""))
    try:
        key = ResourceKey.parse(text) if text.count("/") == 1 else None
    except Invalid:
        key = None
    if key is None or key.type not in types:
        message = f"target is a reference to a {' or '.join(types)}"
        raise Unprocessable(message, expression=f"{place}.where(name='target')")
    return key


def _require_short(tree: Mapping[str, Any], place: str) -> None:
    if len(json.dumps(dict(tree))) > _LONGEST:
        message = "this is longer than anybody would read"
        raise Unprocessable(message, expression=place)


def _place(name: str) -> str:
    return f"Parameters.parameter.where(name='{name}')"
