"""Which files an import reads, and the JSON documents in them with the lines they start on.

A file holds one JSON document, or one on each line (NDJSON), plain or gzip. What it is shows in
its content; only ``.ndjson`` and ``.jsonl`` are taken by their name as well, so that one bad first
line does not make a single document out of many.
"""

from __future__ import annotations

import gzip
import hashlib
import re
import zlib
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import Final

import msgspec

_LINES: Final = frozenset({".ndjson", ".jsonl"})
_SUFFIXES: Final = _LINES | {".json"}
_GZIP: Final = b"\x1f\x8b"

_skim = msgspec.json.Decoder(msgspec.Raw).decode
"""Reads to the end of one JSON value without building it."""


@dataclass(frozen=True, slots=True)
class Document:
    """One JSON document: the line it starts on (from 1), and how far into the file it ends."""

    line: int
    data: bytes
    offset: int


class DamagedFile(Exception):
    """A gzip file that breaks off or is corrupt; ``line`` is the first that could not be read."""

    def __init__(self, line: int, reason: str) -> None:
        super().__init__(f"The file is damaged from here on: {reason}.")
        self.line = line


def files_in(paths: Iterable[Path]) -> list[Path]:
    """Return the files to read: those named, and what of FHIR JSON is in the folders named.

    A folder is walked in the order of names, but those of Appointments come last, as Bulk Data
    names them (``Appointment.ndjson``, ``1.Appointment.ndjson``): whose time they take is said in
    others. Hidden files and folders are left out.

    Raises:
        FileNotFoundError: a path does not exist, or a folder holds no such file.
    """
    found: dict[Path, None] = {}
    for path in paths:
        if path.is_file():
            found[path] = None
            continue
        if not path.is_dir():
            raise FileNotFoundError(f"{path} does not exist")
        wanted = (
            file
            for file in path.rglob("*")
            if _is_wanted(file.relative_to(path)) and file.is_file()
        )
        inside = sorted(wanted, key=lambda file: ("Appointment" in _words(file), file))
        if not inside:
            raise FileNotFoundError(f"{path} holds no .json, .ndjson or .jsonl file")
        found.update(dict.fromkeys(inside))
    return list(found)


def _words(file: Path) -> list[str]:
    return re.findall("[A-Za-z]+", file.name)


def digest_of(path: Path) -> str:
    """Return the SHA-256 of a file's content, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def documents(path: Path) -> Iterator[Document]:
    """Yield the documents of a file; blank lines are passed over.

    Raises:
        DamagedFile: after the documents that could be read.
        OSError: the file cannot be read.
    """
    line = 0
    with ExitStack() as stack:
        raw = stack.enter_context(path.open("rb"))
        content: BufferedReader | gzip.GzipFile = raw
        if raw.peek(len(_GZIP)).startswith(_GZIP):
            content = stack.enter_context(gzip.GzipFile(fileobj=raw))
        try:
            in_lines = None if _LINES.isdisjoint(path.suffixes) else True
            for text in content:
                line += 1
                if not text.strip():
                    continue
                if in_lines is None:
                    in_lines = _is_whole(text)
                if not in_lines:
                    yield Document(line, (text + content.read()).rstrip(), raw.tell())
                    return
                yield Document(line, text.rstrip(), raw.tell())
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise DamagedFile(line + 1, str(error)) from None


def _is_wanted(path: Path) -> bool:
    name = path.with_suffix("") if path.suffix == ".gz" else path
    return name.suffix in _SUFFIXES and not any(part.startswith(".") for part in path.parts)


def _is_whole(text: bytes) -> bool:
    try:
        _skim(text)
    except msgspec.DecodeError:
        return False
    return True
