"""What a message gets when it is sent: its link or code, which no store holds (DESIGN §5)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Protocol

from fhir_portal.records import RecordReader

Maker = Callable[[RecordReader, str, int], Awaitable[Mapping[str, str] | None]]
"""Of what comes after the prefix of ``link_for``, and the attempt: the fields of a template
(``code``, ``link``), or ``None`` when what it is for is over."""


class Content(Protocol):
    """Makes the secret fields of a message, at each sending."""

    async def __call__(
        self, reader: RecordReader, link_for: str, attempt: int
    ) -> Mapping[str, str] | None:
        """Return the fields for a template; ``None`` when the message is not to be sent."""
        ...


class MadeBy:
    """`Content` by the first part of ``link_for``, up to and with its slash."""

    def __init__(self, makers: Mapping[str, Maker]) -> None:
        self._makers = makers

    async def __call__(
        self, reader: RecordReader, link_for: str, attempt: int
    ) -> Mapping[str, str] | None:
        prefix, slash, rest = link_for.partition("/")
        maker = self._makers.get(prefix + slash)
        return None if maker is None else await maker(reader, rest, attempt)
