"""``Patient/[id]/$labels``, ``$label``, ``$release``, ``$hold-back``: what staff do about labels.

They are called on the patient whose record it is and name the resource; what belongs to another
record, or to several, is as absent.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

import msgspec

from fhir_portal.access.closure import IDENTITIES, conveyed_by
from fhir_portal.access.owners import DERIVED, DIRECTORY, OWNERS
from fhir_portal.access.visibility import Visibility
from fhir_portal.consent.label_rules import EXCEPTIONS, RELEASABLE, LabelRules
from fhir_portal.consent.labels import (
    ACT_CODE,
    CONFIDENTIALITY,
    UNSETTLED,
    WITHHELD,
    labels_of,
    staff_labels,
)
from fhir_portal.fhir import json
from fhir_portal.fhir.datetime import instant
from fhir_portal.fhir.errors import Conflict, NotFound, Unprocessable
from fhir_portal.fhir.interaction import FhirResponse
from fhir_portal.fhir.reference import ResourceKey
from fhir_portal.operations.call import Call
from fhir_portal.operations.definition import parameter
from fhir_portal.operations.message_thread import agent_of, plain_text, record_provenance
from fhir_portal.records import RecordReader
from fhir_portal.resources.hand_labels import note_by_hand
from fhir_portal.resources.opening import Opening
from fhir_portal.resources.passing_on import Surroundings, relabel
from fhir_portal.resources.release import Release, release_key
from fhir_portal.resources.store import ResourceTransaction, Row
from fhir_portal.resources.writing import record_disclosure, update_in

LONGEST_REASON: Final = 500
LABELLED_BY_HAND: Final = (
    OWNERS.keys() - DERIVED - DIRECTORY - IDENTITIES - {"AuditEvent", "Consent"}
)
"""Types that staff label: not who somebody is, what they granted, nor what follows other rows."""
_SETTLING_WORDS: Final = (
    "labels are being worked out, for much depends on what was changed; until that is done it is"
    " not shown to patients, nor to whoever acts for them"
)
_MICROSECONDS: Final = 1_000_000
_SYSTEMS: Final = frozenset({CONFIDENTIALITY, ACT_CODE})


async def labels(call: Call) -> FhirResponse:
    """Say which labels a resource has, and where each comes from."""

    async def work(transaction: ResourceTransaction) -> tuple[Row, list[dict[str, Any]]]:
        await call.server.still(transaction, call.auth)
        row = await _named(transaction, call)
        return row, await _explained(transaction, call.auth.practice, row)

    row, found = await call.server.store.transact(work)
    return call.answer({"label": found}, row)


async def label(call: Call) -> FhirResponse:
    """Put labels on a resource, or take away what it carries itself.

    Raises:
        Unprocessable: no label that hides anything, one that is not there to be taken away, or
            neither.
    """
    reason = plain_text(call.arguments.one("reason"), "reason", LONGEST_REASON)
    added = [_coding(one, "add") for one in call.arguments.all("add")]
    removed = [_coding(one, "remove") for one in call.arguments.all("remove")]
    if not added and not removed:
        message = "say which label to add, or which to remove"
        raise Unprocessable(message, expression=parameter("add"))

    async def work(transaction: ResourceTransaction) -> tuple[Row, list[str]]:
        await call.server.still(transaction, call.auth)
        row = await _named(transaction, call)
        tree = json.parse(row.body)
        meta = dict(tree.get("meta") or {})
        before = list(meta.get("security") or ())
        missing = [one for one in removed if not any(_is_same(one, held) for held in before)]
        if missing:
            message = "it does not carry this label itself; $labels says where it comes from"
            raise Unprocessable(message, expression=parameter("remove"))
        kept = [held for held in before if not any(_is_same(one, held) for one in removed)]
        kept += [one for one in added if not any(_is_same(one, held) for held in kept)]
        await note_by_hand(transaction, call.auth.practice, row.key, added=added, removed=removed)
        if kept == before:
            return row, _told(row)
        tree["meta"] = {**meta, "security": kept or [_normal()]}
        written = await update_in(
            transaction, call.server, call.as_practice, tree, _everything(call, row.key.type),
            key=row.key, if_match=None, if_none_match=None,
        )  # fmt: skip
        await record_provenance(
            transaction, call, [str(row.key)], "UPDATE", reason=reason, for_staff=True
        )
        return written.row, _told(written.row)

    row, now = await call.server.store.transact(work)
    return call.answer({"label": now}, row)


async def release(call: Call) -> FhirResponse:
    """Release a result that waits or was held back. Raises `Conflict` where it does neither."""

    async def change(before: Release | None, **_: str) -> Release:
        if before is None or before.withheld is None:
            message = "nothing waits here for its release; $labels says why it is hidden"
            raise Conflict(message)
        return msgspec.structs.replace(before, state="released", withheld=None, due=None)

    return await _released(call, change)


async def hold_back(call: Call) -> FhirResponse:
    """Hold a result back until somebody releases it."""
    why = call.arguments.one("exception")
    if why not in EXCEPTIONS:
        message = f"one of {', '.join(EXCEPTIONS)}"
        raise Unprocessable(message, expression=parameter("exception"))

    async def change(_: Release | None, *, key: str, what: str) -> Release:
        return Release(
            key=key,
            practice=call.auth.practice,
            what=what,
            state="held",
            at=0,
            reason=str(why),
            withheld=call.auth.practice,
        )

    return await _released(call, change)


async def _released(call: Call, change: Any) -> FhirResponse:
    reason = plain_text(call.arguments.one("reason"), "reason", LONGEST_REASON)
    practice = call.auth.practice

    async def work(transaction: ResourceTransaction) -> tuple[Row, list[str]]:
        await call.server.still(transaction, call.auth)
        row = await _named(transaction, call)
        if row.key.type not in RELEASABLE:
            message = f"one of {', '.join(RELEASABLE)} is released or held back"
            raise Unprocessable(message, expression=parameter("resource"))
        rules = await transaction.get(LabelRules, practice) or LabelRules(key=practice)
        if not rules.holds:
            await transaction.put(msgspec.structs.replace(rules, holds=True))
        key = release_key(practice, row.key)
        before = await transaction.get(Release, key)
        now = await change(before, key=key, what=str(row.key))
        by = "" if call.auth.staff is None else call.auth.staff.fhir_user
        await transaction.put(
            msgspec.structs.replace(now, at=call.server.clock(), by=by, words=reason)
        )
        opening = Opening(transaction, now=call.server.clock())
        await relabel(transaction, practice, [row.key], opening=opening)
        await record_disclosure(
            transaction, call.server, practice, opening.rows, agent=_agent(call), reason=reason
        )
        # Of whoever may not see it while its labels are being worked out, too: they did this.
        again = await transaction.read(row.key, _everything(call, row.key.type)) or row
        if again.version == row.version:  # it is held back, or hidden for another reason as well
            await record_provenance(
                transaction, call, [str(row.key)], "UPDATE", reason=reason, for_staff=True
            )
        return again, _told(again)

    row, now = await call.server.store.transact(work)
    return call.answer({"label": now}, row)


def _agent(call: Call) -> dict[str, Any]:
    """Return who releases something, and for whom."""
    agent: dict[str, Any] = {"who": {"reference": agent_of(call)}}
    if call.auth.staff is not None:
        agent["onBehalfOf"] = {"display": call.auth.staff.practice_name}
    return agent


async def _named(transaction: ResourceTransaction, call: Call) -> Row:
    """Return the resource that a call names. Raises `NotFound`; `Unprocessable` for its type."""
    record = await call.target(transaction)
    text = (call.arguments.one("resource") or {}).get("reference") or ""
    name, _, own_id = text.partition("/")
    message = f"{text[:80]} is not known"
    if name not in OWNERS or not own_id or "/" in own_id:
        raise NotFound(message)
    if name not in LABELLED_BY_HAND:
        words = f"a {name} is not labelled by hand"
        raise Unprocessable(words, expression=parameter("resource"))
    staff = call.auth.staff
    visible = Visibility.of_record(
        name,
        practice=call.auth.practice,
        record=record.key.id,
        sections=None,
        labels=None if staff is None else staff_labels(staff.permissions),
    )
    row = await transaction.read(ResourceKey(name, own_id), visible)
    if row is None or row.deleted:
        raise NotFound(message)
    return row


async def of_itself(
    reader: RecordReader, rules: LabelRules, key: ResourceKey, tree: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """Return the labels that a resource has by itself: carried, by rules, by its release."""
    found: list[dict[str, Any]] = []
    found += [{"code": one, "source": "own"} for one in sorted(labels_of(tree))]
    for rule in rules.labels:
        if rule.label in LabelRules(key=rules.key, labels=(rule,)).of(tree):
            found.append({"code": rule.label, "source": "rule", "name": rule.name})
    waiting = await reader.get(Release, release_key(rules.key, key))
    if waiting is not None and waiting.withheld is not None:
        found.append(
            {
                "code": WITHHELD,
                "source": "release",
                "name": waiting.rule or None,
                "reason": waiting.words or EXCEPTIONS.get(waiting.reason),
                "exception": waiting.reason or None,
                "until": None if waiting.due is None else instant(int(waiting.due * _MICROSECONDS)),
            }
        )
    return found


async def _explained(
    transaction: ResourceTransaction, practice: str, row: Row
) -> list[dict[str, Any]]:
    tree = json.parse(row.body)
    rules = await Surroundings(transaction).rules(practice)
    found = await of_itself(transaction, rules, row.key, tree)
    named = conveyed_by(tree)
    for facts in await transaction.facts(named, practice):
        key = f"{facts.resource_type}/{facts.id}"
        found += _from(key, facts.visibility_class.labels, "reference")
    told = {one["code"] for one in found}
    left = row.facts.visibility_class.labels - told
    if not UNSETTLED.isdisjoint(left):
        found.append({"code": WITHHELD, "source": "settling", "reason": _SETTLING_WORDS})
    if left - UNSETTLED:
        pairs = await transaction.edges([row.key], practice)
        above = sorted({source for source, target in pairs if target == row.key}, key=str)
        for facts in await transaction.facts(above, practice):
            key = f"{facts.resource_type}/{facts.id}"
            found += _from(key, facts.visibility_class.labels & left, "list")
    return found


def _from(key: str, held: frozenset[str], source: str) -> Iterator[dict[str, Any]]:
    for one in sorted(held - UNSETTLED):
        yield {"code": one, "source": source, "from": {"reference": key}}


def _told(row: Row) -> list[str]:
    """Return the labels of a row for staff to read."""
    held = row.facts.visibility_class.labels
    unsettled = set() if held.isdisjoint(UNSETTLED) else {WITHHELD}
    return sorted((held - UNSETTLED) | unsettled)


def _coding(given: Any, name: str) -> dict[str, Any]:
    """Return a label of a call. Raises `Unprocessable` for what hides nothing, or is none."""
    system, code = given.get("system"), given.get("code")
    found = {"system": system, "code": code}
    if system not in _SYSTEMS or (name == "add" and not _hides(found)):
        message = "a confidentiality (R or V) or a sensitivity out of v3-ActCode"
        raise Unprocessable(message, expression=parameter(name))
    return found


def _hides(coding: Mapping[str, Any]) -> bool:
    return labels_of({"meta": {"security": [coding]}}) not in (frozenset(), {"-unknown"})


def _is_same(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    return (one["system"], one["code"]) == (other.get("system"), other.get("code"))


def _normal() -> dict[str, str]:
    """Say that it is open: without ``security`` what it had before would stay (FHIR §3.1.0.4)."""
    return {"system": CONFIDENTIALITY, "code": "N"}


def _everything(call: Call, name: str) -> Visibility:
    return Visibility.of_server(name, practice=call.auth.practice)
