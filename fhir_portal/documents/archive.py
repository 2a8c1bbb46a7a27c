"""A zip that is written as a stream: nothing of it is held but what has not left yet.

The standard library writes one to what cannot seek: sizes stand behind each file, and the directory
comes last. So an archive that was cut has no directory, and opens as a broken one.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import IO, Final
from zipfile import ZIP_DEFLATED, ZipFile, ZipInfo

PIECE: Final = 64 * 1024
"""So much is packed at one go: others get their turn between two of them."""
_EARLIEST: Final = 315_532_800
"""1 January 1980: what a zip can say of a time begins there."""
_PLAIN_FILE: Final = 0o100644 << 16
_EXTENSIONS: Final = {
    "application/cda+xml": "xml",
    "application/dicom": "dcm",
    "application/hl7-cda+xml": "xml",
    "application/msword": "doc",
    "application/pdf": "pdf",
    "application/rtf": "rtf",
    "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet": "xlsx",
    "application/vnd.openxmlformats-officedocument.wordprocessingml.document": "docx",
    "audio/mp4": "m4a",
    "audio/mpeg": "mp3",
    "image/bmp": "bmp",
    "image/gif": "gif",
    "image/heic": "heic",
    "image/heif": "heif",
    "image/jpeg": "jpg",
    "image/jpg": "jpg",
    "image/png": "png",
    "image/tiff": "tif",
    "image/webp": "webp",
    "text/csv": "csv",
    "text/plain": "txt",
    "text/rtf": "rtf",
    "video/mp4": "mp4",
}
"""What may be opened as what it is. All else, and whatever a browser would run, is ``.bin``."""


@dataclass(frozen=True, slots=True)
class Member:
    """A file of an archive that is whole: its name there, its size, and its SHA-256 (hex)."""

    name: str
    size: int
    sha256: str


class Archive:
    """A zip on its way: begin a file, write it, end it; take what can leave in between.

    ``moment`` is the time of all files, in seconds since 1970 UTC.
    """

    def __init__(self, moment: float) -> None:
        self._out = _Out()
        self._zip = ZipFile(self._out, "w", ZIP_DEFLATED)
        self._at = time.gmtime(max(int(moment), _EARLIEST))[:6]
        self._file: IO[bytes] | None = None
        self._name = ""
        self._size = 0
        self._hash = hashlib.sha256()

    def begin(self, name: str) -> None:
        """Begin a file."""
        info = ZipInfo(name, self._at)
        info.compress_type = ZIP_DEFLATED
        info.create_system = 3  # wherever this runs, the same bytes
        info.external_attr = _PLAIN_FILE
        self._file = self._zip.open(info, "w")
        self._name, self._size, self._hash = name, 0, hashlib.sha256()

    def write(self, data: bytes | memoryview) -> int:
        """Write some of the file that was begun; return its size up to here."""
        assert self._file is not None  # noqa: S101 - one was begun
        self._file.write(data)
        self._hash.update(data)
        self._size += len(data)
        return self._size

    def end(self) -> Member:
        """End the file."""
        assert self._file is not None  # noqa: S101
        self._file.close()
        self._file = None
        return Member(self._name, self._size, self._hash.hexdigest())

    def taken(self) -> bytes:
        """Return what is ready to leave."""
        return self._out.taken()

    def finish(self) -> bytes:
        """Write the directory, without which it is no archive; return what is left."""
        self._zip.close()
        return self._out.taken()

    def abandon(self) -> None:
        """Let go of it as it is: what is written now leaves no more."""
        with suppress(Exception):
            if self._file is not None:
                self._file.close()
            self._zip.close()
        self._out.taken()


class _Out:
    """What the zip is written to: it cannot seek, and gives up what it has been given."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def write(self, data: bytes) -> int:
        self._parts.append(bytes(data))
        return len(data)

    def flush(self) -> None:
        pass

    def close(self) -> None:
        pass

    def taken(self) -> bytes:
        found = b"".join(self._parts)
        self._parts.clear()
        return found


def pieces(data: bytes, size: int = PIECE) -> Sequence[memoryview]:
    """Return bytes in pieces, none of them copied."""
    whole = memoryview(data)
    return [whole[start : start + size] for start in range(0, len(data), size)]


def extension_of(media: str) -> str:
    """Return the end of the name of a file of a media type."""
    return _EXTENSIONS.get(media.partition(";")[0].strip().lower(), "bin")
