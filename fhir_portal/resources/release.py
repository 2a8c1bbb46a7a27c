"""When results are released: at once, some hours after they were issued, or when staff say so.

What waits carries the label ``withheld`` in its class, as if the practice had tagged it, so that no
query and no total tells of it. A job takes the label away at the moment that was said; where it is
late, the result is hidden longer. What an EHR tags ``withheld`` itself stays so.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Final, Literal

import msgspec

from fhir_portal.consent.label_rules import RELEASABLE, LabelRules, ReleaseRule
from fhir_portal.consent.labels import is_supplied
from fhir_portal.fhir.datetime import period_of
from fhir_portal.fhir.reference import ResourceKey
from fhir_portal.notify import jobs
from fhir_portal.records import Record, RecordReader, RecordTransaction

RELEASE_JOB: Final = "release"
HOUR: Final = 3600.0
OLD_SECONDS: Final = 30 * 24 * HOUR
"""What was issued longer ago than this when it comes is history: no rule holds it back."""
_MICROSECONDS: Final = 1_000_000
_ISSUED: Final = ("issued", "date", "started")
"""Not when a sample was taken: its result may be weeks younger."""
_UNDER_WAY: Final = frozenset(
    {"registered", "partial", "preliminary", "preparation", "in-progress"}
)

State = Literal["waits", "held", "released"]


class Release(Record, frozen=True, kw_only=True):
    """What was decided about the release of one resource: the ``key`` is ``practice/Type/id``.

    It ``waits`` by a ``rule`` until ``due`` (``None``: until staff release it), ``held`` by staff
    whatever the rules say, or ``released``. ``by`` is who of the staff said so, ``at`` when.
    ``withheld`` is the practice while it is not released.
    """

    kind: ClassVar[str] = "release"
    indexed: ClassVar[tuple[str, ...]] = ("withheld",)

    practice: str
    what: str
    state: State
    at: float
    rule: str = ""
    reason: str = ""
    words: str = ""
    due: float | None = None
    by: str = ""
    withheld: str | None = None


def release_key(practice: str, key: ResourceKey) -> str:
    """The key of a `Release`."""
    return f"{practice}/{key}"


async def is_held(reader: RecordReader, rules: LabelRules, key: ResourceKey) -> bool:
    """Whether a resource is not released yet."""
    if key.type not in RELEASABLE or not (rules.release or rules.holds):
        return False
    found = await reader.get(Release, release_key(rules.key, key))
    return found is not None and found.withheld is not None


async def before_write(
    transaction: RecordTransaction,
    rules: LabelRules,
    old: Mapping[str, Any],
    tree: Mapping[str, Any],
    *,
    now: float,
) -> bool:
    """Decide about the release of what is being written; return whether that changes anything.

    It is decided when a resource comes, when it is issued anew, and when it is no more under way.
    What staff held stays held.
    """
    key = ResourceKey(tree["resourceType"], tree["id"])
    if key.type not in RELEASABLE or not (rules.release or rules.holds):
        return False
    found = await transaction.get(Release, release_key(rules.key, key))
    if found is not None and found.state == "held":
        return False
    if is_supplied(tree):
        return False  # it is no result, and who sent it knows it
    waits = found is not None and found.state == "waits"
    is_new = not old or _issued(old) != _issued(tree) or _is_done(tree) > _is_done(old)
    if not is_new and not waits:
        return False
    rule = rules.release_of(tree)
    issued = _issued(tree)
    issued = now if issued is None else min(issued, now)
    stays = waits and rule is not None and rule.hours is None  # it came when it was new
    if rule is None or (not stays and _is_over(rule, issued, now)):
        if found is None or not waits:
            return False
        await transaction.put(
            msgspec.structs.replace(found, state="released", at=now, withheld=None)
        )
        return True
    if not is_new and found is not None and found.rule == rule.name and _issued(tree) is None:
        return False  # it has no time of its own: the first one stands
    await _put_waiting(transaction, rules, key, rule, issued=issued, now=now)
    return True


async def after_rules(
    transaction: RecordTransaction,
    rules: LabelRules,
    found: Release,
    tree: Mapping[str, Any] | None,
    *,
    now: float,
) -> bool:
    """Decide anew about what waits by a rule that is no more; return whether it is released.

    It waits on where another rule says so: one that was only named otherwise shows nothing.
    ``tree`` is what it says now, ``None`` after a deletion.
    """
    rule, issued = waits_on(rules, found, tree, now=now)
    if rule is None:
        await transaction.put(
            msgspec.structs.replace(found, state="released", at=now, withheld=None)
        )
        return True
    key = ResourceKey.parse(found.what)
    await _put_waiting(transaction, rules, key, rule, issued=issued, now=now)
    return False


def waits_on(
    rules: LabelRules, found: Release, tree: Mapping[str, Any] | None, *, now: float
) -> tuple[ReleaseRule | None, float]:
    """Return the rule by which what waits would wait on, ``None`` for none, and since when."""
    rule = None if tree is None else rules.release_of(tree)
    issued = None if tree is None else _issued(tree)
    issued = found.at if issued is None else min(issued, found.at)
    if rule is not None and rule.hours is not None and issued + rule.hours * HOUR <= now:
        rule = None
    return rule, issued


async def _put_waiting(
    transaction: RecordTransaction,
    rules: LabelRules,
    key: ResourceKey,
    rule: ReleaseRule,
    *,
    issued: float,
    now: float,
) -> None:
    due = None if rule.hours is None else issued + rule.hours * HOUR
    await transaction.put(
        Release(
            key=release_key(rules.key, key),
            practice=rules.key,
            what=str(key),
            state="waits",
            at=now,
            rule=rule.name,
            reason=rule.reason,
            due=due,
            withheld=rules.key,
        )
    )
    if due is not None:
        await jobs.enqueue(
            transaction,
            key=f"release/{rules.key}/{key}/{due:.0f}",
            practice=rules.key,
            name=RELEASE_JOB,
            now=now,
            arguments={"what": str(key)},
            due=due,
        )


def _is_done(tree: Mapping[str, Any]) -> bool:
    return tree.get("status") not in _UNDER_WAY


def _is_over(rule: ReleaseRule, issued: float, now: float) -> bool:
    if rule.hours is None:
        return issued < now - OLD_SECONDS
    return issued + rule.hours * HOUR <= now


def _issued(tree: Mapping[str, Any]) -> float | None:
    """Return when a result was issued, in seconds since 1970 UTC, or ``None``."""
    for name in _ISSUED:
        value = tree.get(name)
        if isinstance(value, str):
            return period_of(value)[0] / _MICROSECONDS
    return None
