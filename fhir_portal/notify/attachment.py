"""A file that goes with a mail, and what sends it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

from fhir_portal.notify.letter import Letter
from fhir_portal.notify.outbox import OutboxMessage

_MEDIA: Final = re.compile(r"[A-Za-z0-9!#$&^_.+-]{1,100}/[A-Za-z0-9!#$&^_.+-]{1,100}")
_WHOLE: Final = frozenset({"message", "multipart"})
"""Types that are mail themselves: they are sent as files like any other."""
_ANY: Final = ("application", "octet-stream")


@dataclass(frozen=True, slots=True)
class Attachment:
    """``name`` is a file name of ours; ``media`` may be whatever somebody said that it is."""

    name: str
    media: str
    content: bytes = field(repr=False)

    @property
    def types(self) -> tuple[str, str]:
        """The media type in its two parts, as a header can have it (RFC 2045 §5.1)."""
        plain = self.media.partition(";")[0].strip().lower()
        if not _MEDIA.fullmatch(plain):
            return _ANY
        first, _, second = plain.partition("/")
        return _ANY if first in _WHOLE else (first, second)


class Post(Protocol):
    """Sends a letter to the address of a message, with files."""

    async def send(
        self, message: OutboxMessage, letter: Letter, attachments: Sequence[Attachment]
    ) -> None:
        """Hand it over. Raises what an `fhir_portal.notify.outbox.Delivery` raises."""
        ...
