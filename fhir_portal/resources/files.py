"""Files in what people write by a plain create or update.

A person's write brings no address to go to, and no file but the answer to a question of a form:
that is one of the kinds that are taken, and the scanner has looked at it before it is stored. What
a picture says of place and time is gone then.
Messages with files are sent by ``$send`` and ``$reply``.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Iterator, Mapping
from typing import Any, Protocol

from fhir_portal.access.context import AuthContext
from fhir_portal.fhir.errors import Unprocessable
from fhir_portal.fhir.reference import attachments_in


class FileCheck(Protocol):
    """What a content is, and whether it does harm."""

    def kind(self, content: bytes) -> str | None:
        """Return the media type that its bytes say; ``None`` for one that is not taken."""
        ...

    async def written_anew(self, content: bytes) -> tuple[str, bytes] | None:
        """Return a picture without what its camera wrote into it, and its media type.

        ``None`` for what is no picture. Raises `Unprocessable` for one that cannot be read,
        `TooLarge`, and `Unavailable` where many wait.
        """
        ...

    async def scan(self, content: bytes) -> None:
        """Raise `Unprocessable` for what does harm, `Unavailable` where that cannot be told."""
        ...


async def scanned(
    check: FileCheck | None,
    auth: AuthContext,
    tree: Mapping[str, Any],
    *,
    before: Mapping[str, Any] | None = None,
) -> None:
    """Have a person's files looked at, before the transaction that stores them.

    A picture is written anew, in place; one that stood in the version ``before`` is left as it is.
    Raises `Unprocessable`, `TooLarge`, `Unavailable`.
    """
    if auth.context == "system" or check is None:
        return
    known = {one["data"] for one in _answers(before)} if before else set()
    for one in _answers(tree):
        content = None if one["data"] in known else _content(one)
        if content is None:
            continue
        await check.scan(content)
        if check.kind(content) != one.get("contentType"):
            continue  # it is not what it says, and is refused
        made = await check.written_anew(content)
        if made is not None:
            media_type, pixels = made
            one["contentType"], one["data"] = media_type, base64.b64encode(pixels).decode()
            if "size" in one:
                one["size"] = len(pixels)
            if "hash" in one:
                digest = hashlib.sha1(pixels, usedforsecurity=False).digest()
                one["hash"] = base64.b64encode(digest).decode()


def has_files(tree: Mapping[str, Any]) -> bool:
    """Whether a file answers a question of a form."""
    return any(True for _ in _answers(tree))


def require_no_files(
    check: FileCheck | None, old: Mapping[str, Any], tree: Mapping[str, Any]
) -> None:
    """Refuse a person's write with a file that is not taken; what stood there before may stay.

    Raises `Unprocessable`.
    """
    before = set(_files(old))
    taken = {
        ("data", one["data"]) for one in _answers(tree) if check is not None and _is_one(check, one)
    }
    for file in _files(tree):
        if file not in before and file not in taken:
            message = "this file is not taken here: send files with a message, by $send or $reply"
            raise Unprocessable(message, expression=tree["resourceType"])


def _is_one(check: FileCheck, attachment: Mapping[str, Any]) -> bool:
    content = _content(attachment)
    kind = None if content is None else check.kind(content)
    return kind is not None and kind == attachment.get("contentType")


def _content(attachment: Mapping[str, Any]) -> bytes | None:
    try:
        return base64.b64decode("".join(attachment["data"].split()), validate=True)
    except (binascii.Error, ValueError):
        return None


def _answers(tree: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the files that answer a question."""
    if tree["resourceType"] != "QuestionnaireResponse":
        return
    waiting = list(tree.get("item") or ())
    while waiting:
        node = waiting.pop()
        for answer in node.get("answer") or ():
            attachment = answer.get("valueAttachment") or {}
            if isinstance(attachment.get("data"), str) and not attachment.get("extension"):
                yield attachment
            waiting += answer.get("item") or ()
        waiting += node.get("item") or ()


def _files(tree: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for _, holder in attachments_in(tree):
        yield "url", holder["url"]
    stack: list[Any] = [tree]
    while stack:
        node = stack.pop()
        if isinstance(node, list):
            stack += node
        elif isinstance(node, Mapping):
            if node.get("data").__class__ is str:
                yield "data", node["data"]
            if node is not tree and node.get("resourceType") == "Binary":
                yield "contained", str(node.get("id"))
            stack += node.values()
