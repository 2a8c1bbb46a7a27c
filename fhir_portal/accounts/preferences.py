"""What an account's owner wants to be told, and how: by topic and by medium; and to be shown.

What keeps an account safe is always told. Everything else is told until its owner says no.
"""

from __future__ import annotations

from typing import ClassVar, Final, Literal, get_args

import msgspec

from fhir_portal.accounts.contacts import Medium
from fhir_portal.records import Record, RecordReader, RecordTransaction

Topic = Literal["security", "reminders", "messages", "documents"]
TOPICS: Final[tuple[Topic, ...]] = get_args(Topic)
MEDIA: Final[tuple[Medium, ...]] = get_args(Medium)
ALWAYS: Final[Topic] = "security"


class AlwaysTold(Exception):
    """Messages about the security of an account cannot be switched off."""


class ContactPreferences(Record, frozen=True, kw_only=True):
    """Of the account that is the ``key``: ``off`` has ``<topic>/<medium>`` of what is unwanted."""

    kind: ClassVar[str] = "contact-preferences"

    off: tuple[str, ...] = ()

    def wants(self, topic: Topic, medium: Medium) -> bool:
        """Whether a message of this topic may be sent this way."""
        return topic == ALWAYS or f"{topic}/{medium}" not in self.off


class PagePreferences(Record, frozen=True, kw_only=True):
    """Of the account that is the ``key``: whether it wants to see the tour of the portal."""

    kind: ClassVar[str] = "page-preferences"

    tour: bool = True


async def wants_tour(reader: RecordReader, account: str) -> bool:
    """Whether somebody is to be shown around: until they say that they have seen enough."""
    found = await reader.get(PagePreferences, account)
    return found is None or found.tour


async def preferences_of(reader: RecordReader, account: str) -> ContactPreferences:
    """Return an account's preferences; of who never said anything, those that allow all."""
    return await reader.get(ContactPreferences, account) or ContactPreferences(key=account)


async def set_preference(
    transaction: RecordTransaction, account: str, topic: Topic, medium: Medium, *, wanted: bool
) -> ContactPreferences:
    """Store one choice and return all of them. Raises `AlwaysTold` for a no to security."""
    if topic == ALWAYS and not wanted:
        raise AlwaysTold
    before = await preferences_of(transaction, account)
    choice = f"{topic}/{medium}"
    off = {one for one in before.off if one != choice} | (set() if wanted else {choice})
    after = msgspec.structs.replace(before, off=tuple(sorted(off)))
    await transaction.put(after)
    return after
