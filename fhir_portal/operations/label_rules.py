"""``Patient/$label-rules``, ``$set-label-rules``: what is labelled by rule, and released when.

They are set as a whole, in place of those that somebody has looked at: `LabelRules.change` tells
whether these are still the ones. `fhir_portal.operations.label_jobs` carries them out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from fhir_portal.access.owners import DIRECTORY, OWNERS
from fhir_portal.consent.label_rules import (
    InvalidRules,
    LabelRules,
    Relabelling,
    ReleaseRule,
    label_rules_of,
    read_rules,
)
from fhir_portal.fhir.definitions import served_types
from fhir_portal.fhir.errors import Conflict, Forbidden, Unprocessable
from fhir_portal.fhir.interaction import FhirResponse
from fhir_portal.operations.call import Call
from fhir_portal.operations.definition import Arguments, parameter
from fhir_portal.operations.label_jobs import Foreseen, foreseen, set_rules
from fhir_portal.resources.permission import permitted_or_none
from fhir_portal.resources.release import Release
from fhir_portal.resources.store import ResourceTransaction

MOST_WAITING: Final = 10_000
"""Results that wait by a rule are counted up to so many in a practice."""


async def label_rules(call: Call) -> FhirResponse:
    """Return the rules, and whether what is stored is labelled by them yet."""
    _require_practice(call)
    return call.answer(await _standing(call))


async def set_label_rules(call: Call) -> FhirResponse:
    """Set the rules in place of those that the caller has seen, or count what that would do.

    Raises:
        Conflict: they have been set since. Unprocessable: they cannot be used; names which.
    """
    _require_practice(call)
    wanted, seen = _wanted(call), call.arguments.one("change")
    if call.arguments.one("preview"):
        _still(await label_rules_of(call.server.store, wanted.key), seen)
        found = await foreseen(call.server, wanted, _counted(call))
        return call.answer(await _standing(call) | {"foreseen": _told(found)})

    async def work(transaction: ResourceTransaction) -> str:
        await call.server.still(transaction, call.auth)
        before = await label_rules_of(transaction, wanted.key)
        _still(before, seen)
        changed = _changed(before, wanted)
        if changed:
            await set_rules(transaction, wanted=wanted, now=call.server.clock())
        return ",".join(changed)

    detail = await call.server.store.transact(work)
    return msgspec.structs.replace(call.answer(await _standing(call)), detail=detail)


def _require_practice(call: Call) -> None:
    if call.auth.staff_patient is not None:
        message = "this token is for one record, and the rules are for all of the practice"
        raise Forbidden(message)


async def _standing(call: Call) -> dict[str, Any]:
    store, practice = call.server.store, call.auth.practice
    rules = await label_rules_of(store, practice)
    marker = await store.get(Relabelling, practice)
    waiting = Counter(
        one.rule
        for one in await store.find(Release, "withheld", practice, limit=MOST_WAITING)
        if one.state == "waits"
    )
    return {
        "change": rules.change,
        "running": marker is not None and bool(marker.change),
        "hides": marker is not None and marker.hides,
        "label": [
            {"name": one.name, "label": one.label, "type": [*one.types], "code": [*one.codes]}
            for one in rules.labels
        ],
        "release": [_release(one, waiting) for one in rules.release],
    }


def _release(rule: ReleaseRule, waiting: Mapping[str, int]) -> dict[str, Any]:
    return {
        "name": rule.name,
        "type": rule.type,
        "reason": rule.reason,
        "code": [*rule.codes],
        "hours": rule.hours,
        "waiting": waiting.get(rule.name, 0),
    }


def _counted(call: Call) -> frozenset[str]:
    """Return the types of which a preview may count: of records, those to be searched in whole."""
    of_records = OWNERS.keys() - DIRECTORY
    hidden = {
        name
        for name in of_records
        if (visible := permitted_or_none(call.server, call.auth, "s", name)) is None
        or visible.any_of is not None
    }
    return frozenset(served_types()) - hidden


def _told(found: Foreseen) -> dict[str, Any]:
    return {
        "labelled": found.labelled,
        "opened": found.opened,
        "released": found.released,
        "looked-at": found.looked_at,
        "whole": found.is_whole,
    }


def _still(rules: LabelRules, seen: int) -> None:
    if rules.change != seen:
        message = "the rules have been set since: look at them again with $label-rules"
        raise Conflict(message, expression=parameter("change"))


def _wanted(call: Call) -> LabelRules:
    tree: dict[str, Any] = {
        "labels": [_given(one, ("name", "label")) for one in call.arguments.all("label")],
        "release": [
            _given(one, ("name", "type", "reason", "hours"))
            for one in call.arguments.all("release")
        ],
    }
    for given, one in zip(call.arguments.all("label"), tree["labels"], strict=True):
        one.update({"types": list(types)} if (types := given.all("type")) else {})
        if "types" not in one and "codes" not in one:
            message = f"{one['name']}: name types, codes or both: a rule is not for everything"
            raise Unprocessable(message, expression=parameter("label"))
    try:
        return read_rules(call.auth.practice, tree)
    except InvalidRules as error:
        place = "release" if str(error).startswith("release") else "label"
        raise Unprocessable(str(error), expression=parameter(place)) from None


def _given(one: Arguments, names: Sequence[str]) -> dict[str, Any]:
    found = {name: value for name in names if (value := one.one(name)) is not None}
    return found | ({"codes": list(codes)} if (codes := one.all("code")) else {})


def _changed(before: LabelRules, after: LabelRules) -> list[str]:
    """Return the names of the rules that differ."""
    labels = {*before.labels} ^ {*after.labels}
    release = {*before.release} ^ {*after.release}
    return sorted({rule.name for rule in labels} | {rule.name for rule in release})
