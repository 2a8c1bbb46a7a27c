"""Communication has behaviour of its own: threads and their messages are told from other ones.

What people write is counted, by operations and without: so many an hour are enough.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, ClassVar, Final

import msgspec

from fhir_portal.consent.grant import IG
from fhir_portal.fhir.datetime import period_of
from fhir_portal.fhir.errors import TooManyRequests
from fhir_portal.records import Record, RecordTransaction

CATEGORY: Final = f"{IG}/CodeSystem/portal-conversation"
THREAD: Final = "thread"
MESSAGE: Final = "message"
SENT: Final = "message-sent"
"""The name of the job that tells the other side of a message; its argument is its ``message``."""
AN_HOUR: Final = 60
"""Messages that one person may write in an hour."""
_HOUR: Final = 3600
_DAY: Final = 86_400
_MICROSECONDS: Final = 1_000_000


class MessageCount(Record, frozen=True, kw_only=True):
    """How much somebody has written in the hour, or the day, that the ``key`` ends with."""

    kind: ClassVar[str] = "message-count"

    count: int


async def count_written(
    transaction: RecordTransaction,
    practice: str,
    agent: str,
    patient: str | None,
    *,
    now: float,
    what: str = "messages",
    a_day: int | None = None,
) -> None:
    """Count what a person writes in an hour, or in a day. Raises `TooManyRequests`."""
    most, seconds, span = (AN_HOUR, _HOUR, "an hour") if a_day is None else (a_day, _DAY, "a day")
    turn = int(now // seconds)
    said = msgspec.json.encode([practice, agent, patient, what])
    key = f"{hashlib.sha256(said).hexdigest()}/{turn}"
    before = await transaction.get(MessageCount, key)
    count = before.count + 1 if before else 1
    if count > most:
        message = f"{most} {what} {span} are enough: call the practice if it is urgent"
        raise TooManyRequests(message, retry_after=int((turn + 1) * seconds - now) + 1)
    await transaction.put(MessageCount(key=key, count=count, expires=float((turn + 1) * seconds)))


def is_thread(tree: Mapping[str, Any]) -> bool:
    """Whether a Communication is the header of a thread, and of somebody's."""
    of_somebody = bool((tree.get("subject") or {}).get("reference"))
    return THREAD in _codes(tree) and not tree.get("partOf") and of_somebody


def is_message(tree: Mapping[str, Any]) -> bool:
    """Whether a Communication is a message of a thread."""
    return MESSAGE in _codes(tree) and bool(tree.get("partOf"))


def stands_in(tree: Mapping[str, Any]) -> bool:
    """Whether a message was sent and not taken back."""
    return tree.get("status") == "completed"


def is_taken_back(tree: Mapping[str, Any]) -> bool:
    """Whether a message was never meant for this record: what it said is shown to nobody."""
    return tree.get("status") == "entered-in-error"


def sent_before(tree: Mapping[str, Any], moment: float) -> bool:
    """Whether a message says that it was sent before a moment (seconds since 1970 UTC)."""
    try:
        return period_of(str(tree.get("sent") or ""))[1] < moment * _MICROSECONDS
    except ValueError:
        return False


def _codes(tree: Mapping[str, Any]) -> set[str]:
    return {
        str(coding.get("code"))
        for concept in tree.get("category") or ()
        for coding in concept.get("coding") or ()
        if coding.get("system") == CATEGORY
    }
