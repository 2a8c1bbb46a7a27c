"""Files that come with a message: looked at before the transaction, stored in it, seen with it.

Each becomes a Binary that belongs to the record of the message which it is attached to (DESIGN
§3.2), and so does the small picture of a picture.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import functools
import hashlib
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final

from fhir_portal.access.visibility import Visibility
from fhir_portal.consent.grant import IG
from fhir_portal.documents.malware_scan import Infected, MalwareScan, ScanUnavailable
from fhir_portal.documents.upload import (
    FILE_BYTES,
    LONGEST_SIDE,
    Taken,
    TooLargeToTake,
    UploadRefused,
    sniffed,
    take,
)
from fhir_portal.fhir.datetime import instant
from fhir_portal.fhir.errors import TooLarge, Unavailable, Unprocessable
from fhir_portal.operations.call import Call
from fhir_portal.resources.communication import count_written
from fhir_portal.resources.store import ResourceTransaction
from fhir_portal.resources.writing import create_in

MOST_FILES: Final = 5
BYTES_TOGETHER: Final = 10 * 1024 * 1024
THUMBNAIL: Final = f"{IG}/StructureDefinition/thumbnail"
_MICROSECONDS: Final = 1_000_000
_KNOWN: Final = frozenset({"id", "contentType", "data", "title", "size"})
_PICTURES: Final = ThreadPoolExecutor(1, thread_name_prefix="pictures")
"""One at a time: a picture takes as much memory as it has pixels."""
_PLACES: Final = threading.BoundedSemaphore(20)
"""For files that wait their turn, of all who send some to this worker."""


async def files_of(call: Call, *, what: str = "messages with files") -> list[Taken]:
    """Return the files of a call as they may be kept, after the scanner has looked at them.

    The attempt is counted before: to look at files is the dearest thing that somebody can ask for.

    Raises:
        TooManyRequests: somebody of the patient's side has tried often in this hour.
        Unprocessable: one is not taken; it says which, and why. TooLarge. Unavailable: there is a
            scanner, and it does not answer.
    """
    given: Sequence[Mapping[str, Any]] = call.arguments.all("attachment")
    if len(given) > MOST_FILES:
        message = f"a message has at most {MOST_FILES} files"
        raise Unprocessable(message, expression=_place(MOST_FILES))
    if not given:
        return []
    await count_files(call, what)
    contents = [_content(one, _place(index)) for index, one in enumerate(given)]
    if sum(map(len, contents)) > BYTES_TOGETHER:
        message = f"the files together are larger than {BYTES_TOGETHER // (1024 * 1024)} MiB"
        raise TooLarge(message)
    found = []
    for index, (one, content) in enumerate(zip(given, contents, strict=True)):
        await _scanned(call.collaborators.scan, content, _place(index))
        try:
            declared, name = str(one.get("contentType") or ""), str(one.get("title") or "")
            found.append(await _taken(content, declared=declared, name=name))
        except TooLargeToTake as error:
            raise TooLarge(f"file {index + 1}: {error}", expression=_place(index)) from None
        except UploadRefused as error:
            raise Unprocessable(f"file {index + 1}: {error}", expression=_place(index)) from None
    return found


async def picture_of(
    call: Call, one: Mapping[str, Any], place: str, *, longest_side: int = LONGEST_SIDE
) -> Taken:
    """Return one picture of a call as it may be kept, after the scanner has looked at it.

    Raises as `files_of` does; the caller has counted the attempt (`count_files`).
    """
    content = _content(one, place)
    await _scanned(call.collaborators.scan, content, place)
    declared, name = str(one.get("contentType") or ""), str(one.get("title") or "")
    try:
        found = await _taken(content, declared=declared, name=name, longest_side=longest_side)
    except TooLargeToTake as error:
        raise TooLarge(str(error), expression=place) from None
    except UploadRefused as error:
        raise Unprocessable(str(error), expression=place) from None
    if not found.content_type.startswith("image/"):
        message = "this is no picture"
        raise Unprocessable(message, expression=place)
    return found


async def count_files(call: Call, what: str = "messages with files") -> None:
    """Count that somebody of the patient's side sends files; raises `TooManyRequests`."""

    async def work(transaction: ResourceTransaction) -> None:
        await call.server.still(transaction, call.auth)
        await count_written(
            transaction, call.auth.practice, str(call.auth.fhir_user), call.auth.patient,
            now=call.server.clock(), what=what,
        )  # fmt: skip

    if call.auth.staff is None:
        await call.server.store.transact(work)


async def _taken(
    content: bytes, *, declared: str, name: str, longest_side: int = LONGEST_SIDE
) -> Taken:
    if not _PLACES.acquire(blocking=False):
        message = "many are sending files just now, so none more is taken: try again in a while"
        raise Unavailable(message)
    work = _PICTURES.submit(
        functools.partial(take, content, declared=declared, name=name, longest_side=longest_side)
    )
    work.add_done_callback(lambda _: _PLACES.release())
    return await asyncio.wrap_future(work)


async def stored(
    transaction: ResourceTransaction,
    call: Call,
    files: Sequence[Taken],
    *,
    context: str | None = None,
) -> list[dict[str, Any]]:
    """Store files as Binaries; return the Attachments that lead to them.

    ``context`` is the ``securityContext`` of the Binaries (FHIR R4 §2.45).
    """
    attachments = []
    for number, one in enumerate(files, 1):
        attachment = await store_content(
            transaction, call, one.content_type, one.content, context=context
        )
        attachment["title"] = one.name or f"File {number}"
        if one.thumbnail is not None:
            small = await store_content(
                transaction, call, "image/jpeg", one.thumbnail, context=context
            )
            attachment = {"extension": [{"url": THUMBNAIL, "valueAttachment": small}], **attachment}
        attachments.append(attachment)
    return attachments


async def store_content(
    transaction: ResourceTransaction,
    call: Call,
    content_type: str,
    content: bytes,
    *,
    context: str | None = None,
) -> dict[str, Any]:
    """Store a content as a Binary; return the Attachment that leads to it.

    ``context`` is what it is to be guarded like (``securityContext``).
    """
    tree = {
        "resourceType": "Binary",
        "contentType": content_type,
        **({"securityContext": {"reference": context}} if context else {}),
        "data": base64.b64encode(content).decode(),
    }
    visible = Visibility.of_server("Binary", practice=call.auth.practice)
    written = await create_in(
        transaction, call.server, call.as_practice, tree, visible,
        resource_id=call.server.new_id(),
    )  # fmt: skip
    return {
        "contentType": content_type,
        "url": str(written.row.key),
        "size": len(content),
        "hash": base64.b64encode(hashlib.sha1(content, usedforsecurity=False).digest()).decode(),
        "creation": instant(int(call.server.clock() * _MICROSECONDS)),
    }


def _content(one: Mapping[str, Any], place: str) -> bytes:
    """Return what an Attachment holds. Raises `Unprocessable` for one that only leads elsewhere."""
    data = one.get("data")
    if not isinstance(data, str) or not data or not set(one) <= _KNOWN:
        message = "send contentType, data and title of each file, and nothing else"
        raise Unprocessable(message, expression=place)
    if len(data) > FILE_BYTES * 2:
        raise TooLarge(f"a file is larger than {FILE_BYTES // (1024 * 1024)} MiB", expression=place)
    try:
        return base64.b64decode("".join(data.split()), validate=True)
    except (binascii.Error, ValueError):
        message = "the data of this file is not base64"
        raise Unprocessable(message, expression=place) from None


@dataclass(frozen=True, slots=True)
class TakenFiles:
    """`fhir_portal.resources.files.FileCheck`, by the rules for files of messages."""

    scanner: MalwareScan | None

    def kind(self, content: bytes) -> str | None:
        """Return the media type of a content that is taken."""
        found = sniffed(content)
        if found is None or found.startswith("image/"):
            return found
        try:
            return take(content, declared=found, name="").content_type
        except UploadRefused:
            return None

    async def written_anew(self, content: bytes) -> tuple[str, bytes] | None:
        """Return a picture as it may be kept."""
        found = sniffed(content)
        if found is None or not found.startswith("image/"):
            return None
        place = "QuestionnaireResponse"
        try:
            taken = await _taken(content, declared=found, name="")
        except TooLargeToTake as error:
            raise TooLarge(str(error), expression=place) from None
        except UploadRefused as error:
            raise Unprocessable(str(error), expression=place) from None
        return taken.content_type, taken.content

    async def scan(self, content: bytes) -> None:
        """Ask the scanner, where there is one."""
        await _scanned(self.scanner, content)


async def _scanned(scan: MalwareScan | None, content: bytes, place: str | None = None) -> None:
    if scan is None:
        return
    try:
        await scan(content)
    except Infected:
        message = "a file was refused: a scanner says that it does harm"
        raise Unprocessable(message, expression=place) from None
    except ScanUnavailable:
        message = "files cannot be looked at just now, so none is taken: try again in a while"
        raise Unavailable(message) from None


def _place(index: int) -> str:
    return f"Parameters.parameter.where(name='attachment')[{index}]"
