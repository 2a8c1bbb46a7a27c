"""Putting a letter together at the moment it is sent: words, letterhead, and its code or link."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from fhir_portal.access.relation import IdentityReader
from fhir_portal.notify.content import Content
from fhir_portal.notify.letter import Letter, UnfitValue, render
from fhir_portal.notify.letterhead import letterhead_of
from fhir_portal.notify.outbox import OutboxMessage, Superseded, UndeliverableMessage
from fhir_portal.notify.template import words_of
from fhir_portal.notify.words import UnknownTemplate

_NO_CODE: Final = {"code": "0000 0000"}

Compose = Callable[[OutboxMessage], Awaitable[Letter]]
"""Raises `UndeliverableMessage`, `Superseded`."""


@dataclass(frozen=True, slots=True)
class Composer:
    """`Compose` over a store; ``portal`` is the base URL, under which every link has to be."""

    reader: IdentityReader
    content: Content
    portal: str

    async def __call__(self, message: OutboxMessage) -> Letter:
        """Return the letter of a message. It is the same at every attempt to send it.

        That of nobody's message has a code that is none: it is for the time that it takes.

        Raises `UndeliverableMessage` where there are no words for it or nothing to put into them,
        and `Superseded` where what it was for is over.
        """
        try:
            words = await words_of(self.reader, message.practice, message.template)
        except UnknownTemplate as error:
            raise UndeliverableMessage(str(error)) from None
        letterhead = await letterhead_of(self.reader, message.practice, portal=self.portal)
        fields: dict[str, str] = {}
        if message.link_for is not None:
            made = await self.content(self.reader, message.link_for, message.link_attempt)
            if message.is_for_nobody:
                made = _NO_CODE
            if made is None:
                raise Superseded("what it was for is over")
            fields.update(made)
        try:
            return render(words, letterhead, fields)
        except UnfitValue as error:
            raise UndeliverableMessage(str(error)) from None
