"""What a practice has decided about messages: topics, who answers, how soon, what to read first."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, ClassVar, Final
from zoneinfo import ZoneInfo

import msgspec

from fhir_portal.records import Record, RecordReader, RecordStore, RecordTransaction

LONGEST_WARNING: Final = 1000
LONGEST_AWAY: Final = 200
MOST_TOPICS: Final = 30
LONGEST_ANSWER: Final = 30 * 24
PRESENT_SECONDS: Final = 300.0
"""Whoever looked into the inbox is taken to be there for so long."""
_NOTED_SECONDS: Final = 60.0
_SATURDAY: Final = 5
_HOUR: Final = 3600
_CODE: Final = re.compile(r"[a-z][a-z0-9-]{0,39}")
_ANSWERING: Final = re.compile(
    r"(?:Practitioner|PractitionerRole|CareTeam|Organization)/[A-Za-z0-9.-]{1,64}"
)
_PRACTITIONER: Final = re.compile(r"Practitioner/[A-Za-z0-9.-]{1,64}")


class InvalidMessaging(Exception):
    """A practice's settings cannot be used; the words say which, to whoever wrote them."""


class MessageTopic(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``recipient`` is who answers: a reference, or ``""`` for the practice as a whole."""

    code: str
    name: str
    recipient: str = ""
    answer_hours: int = 48


DEFAULT_TOPICS: Final = (
    MessageTopic("medical", "A medical question"),
    MessageTopic("medicine", "A medicine"),
    MessageTopic("results", "A test result"),
    MessageTopic("appointment", "An appointment"),
    MessageTopic("billing", "A bill"),
    MessageTopic("other", "Something else"),
)
DEFAULT_WARNING: Final = (
    "Do not use messages in an emergency: call your local emergency number. If it cannot wait "
    "until the practice answers, call the practice."
)


class Messaging(Record, frozen=True, kw_only=True):
    """The settings of the practice that is the ``key``.

    ``warning`` is what patients acknowledge before they begin a conversation. With
    ``read_receipts`` the patient's side is told when the practice has read something. ``away`` has
    words by ``Practitioner/<id>`` for who is out of the office.
    """

    kind: ClassVar[str] = "messaging"

    topics: tuple[MessageTopic, ...] = DEFAULT_TOPICS
    warning: str = DEFAULT_WARNING
    read_receipts: bool = False
    away: dict[str, str] = msgspec.field(default_factory=dict)

    @property
    def warning_code(self) -> str:
        """What stands for having read these very words."""
        return hashlib.sha256(self.warning.encode()).hexdigest()[:16]

    def topic(self, code: str | None) -> MessageTopic | None:
        """Return the topic of a code."""
        return next((one for one in self.topics if one.code == code), None)


class StaffPresence(Record, frozen=True, kw_only=True):
    """That somebody of the practice that is the ``key`` looks into the inbox, until ``expires``."""

    kind: ClassVar[str] = "staff-presence"

    expires: float


async def is_present(reader: RecordReader, practice: str, *, now: float) -> bool:
    """Whether somebody of a practice looked into its inbox in the last minutes."""
    found = await reader.get(StaffPresence, practice)
    return found is not None and now < found.expires


async def be_present(store: RecordStore, practice: str, *, now: float) -> None:
    """Note that somebody looks; written once a minute, however many look however often."""
    found = await store.get(StaffPresence, practice)
    if found is not None and now < found.expires - PRESENT_SECONDS + _NOTED_SECONDS:
        return

    async def put(transaction: RecordTransaction) -> None:
        await transaction.put(StaffPresence(key=practice, expires=now + PRESENT_SECONDS))

    await store.transact(put)


async def messaging_of(reader: RecordReader, practice: str) -> Messaging:
    """Return a practice's settings, those of who decided nothing among them."""
    return await reader.get(Messaging, practice) or Messaging(key=practice)


def read_messaging(practice: str, tree: Mapping[str, Any]) -> Messaging:
    """Read settings that somebody wrote down; what they leave out is as it is without settings.

    Raises `InvalidMessaging`.
    """
    known = {"topics", "warning", "read_receipts", "away"}
    unknown = set(tree) - known
    if unknown:
        raise InvalidMessaging(f"there is no {', '.join(sorted(unknown))} among the settings")
    try:
        found = msgspec.convert({**tree, "key": practice}, Messaging)
    except msgspec.ValidationError as error:
        raise InvalidMessaging(str(error)) from None
    if not _is_words(found.warning, LONGEST_WARNING, lines=True):
        raise InvalidMessaging(f"the warning has 1 to {LONGEST_WARNING} signs")
    if not 1 <= len(found.topics) <= MOST_TOPICS:
        raise InvalidMessaging(f"there are 1 to {MOST_TOPICS} topics")
    if len({one.code for one in found.topics}) < len(found.topics):
        raise InvalidMessaging("a topic's code is there twice")
    for one in found.topics:
        if not _CODE.fullmatch(one.code) or not _is_words(one.name, LONGEST_AWAY):
            raise InvalidMessaging(f"the topic '{one.code[:40]}' needs a code and a name")
        if one.recipient and not _ANSWERING.fullmatch(one.recipient):
            raise InvalidMessaging(f"the topic '{one.code}' leads to nobody who can answer")
        if not 1 <= one.answer_hours <= LONGEST_ANSWER:
            raise InvalidMessaging(f"an answer comes within 1 to {LONGEST_ANSWER} hours")
    for who, words in found.away.items():
        if not _PRACTITIONER.fullmatch(who) or not _is_words(words, LONGEST_AWAY):
            raise InvalidMessaging("away has words by Practitioner/<id>")
    return found


def answer_by(now: float, hours: int, zone: str) -> float:
    """Return the moment ``hours`` of working days from ``now`` on (both seconds since 1970 UTC).

    Saturdays and Sundays of the practice's zone do not count.
    """
    place = ZoneInfo(zone)
    left, moment = float(hours * _HOUR), now
    while True:
        here = datetime.fromtimestamp(moment, place)
        day = here.replace(hour=0, minute=0, second=0, microsecond=0, tzinfo=None)
        tomorrow = (day + timedelta(days=1)).replace(tzinfo=place).timestamp()
        if here.weekday() >= _SATURDAY:
            moment = tomorrow
        elif left <= tomorrow - moment:
            return moment + left
        else:
            left -= tomorrow - moment
            moment = tomorrow


def _is_words(text: str, longest: int, *, lines: bool = False) -> bool:
    plain = text.replace("\n", " ") if lines else text
    return bool(plain.strip()) and len(text) <= longest and plain.isprintable()
