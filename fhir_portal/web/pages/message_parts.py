"""What a message of a conversation holds, for a page: its lines and its files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class MessageFile:
    """A file by its number in the message, from 1 on, and whether there is a small picture."""

    number: int
    name: str
    has_small: bool


def lines_of(message: Mapping[str, Any]) -> list[str]:
    """Return what is said in a message, line by line."""
    return [
        line
        for part in message.get("payload") or ()
        for line in str(part.get("contentString") or "").splitlines()
    ]


def files_of(message: Mapping[str, Any]) -> list[MessageFile]:
    """Return what came with a message."""
    payload = message.get("payload") or ()
    files = [part["contentAttachment"] for part in payload if "contentAttachment" in part]
    return [
        MessageFile(number, file.get("title") or f"File {number}", "extension" in file)
        for number, file in enumerate(files, 1)
    ]
