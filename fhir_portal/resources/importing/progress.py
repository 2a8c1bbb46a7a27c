"""How far an import got, written in the transactions that got it there.

A record of each file begun, found by the file's content, and one of each resource refused. When
all files of an import are through, its records go; until then a later import takes up from them.
"""

from __future__ import annotations

from typing import Any, ClassVar, Final

from fhir_portal.records import Record, RecordReader, RecordTransaction

KEPT_SECONDS: Final = 7 * 24 * 3600.0
"""An import not taken up within a week starts over."""
_PAGE: Final = 1000


class ImportProgress(Record, frozen=True, kw_only=True):
    """One file on its way into one practice; ``key`` is ``practice/SHA-256 of the content``.

    What lies before ``line`` and ``entry`` is done; ``done`` says that the file is.
    """

    kind: ClassVar[str] = "import-progress"

    line: int = 0
    entry: int = 0
    created: int = 0
    updated: int = 0
    unchanged: int = 0
    done: bool = False


class ImportRejection(Record, frozen=True, kw_only=True):
    """One resource, or unreadable document, that was not stored; ``issues`` say why.

    ``line`` counts from 1, ``index`` is the entry of the Bundle on that line, from 0.
    """

    kind: ClassVar[str] = "import-rejection"

    file: str
    line: int
    index: int | None
    type: str | None
    id: str | None
    issues: tuple[dict[str, str | None], ...]

    def shown(self) -> dict[str, Any]:
        """Return it as it stands in the summary."""
        return {
            "file": self.file,
            "line": self.line,
            "index": self.index,
            "type": self.type,
            "id": self.id,
            "issues": list(self.issues),
        }


def rejection_key(file_key: str, number: int) -> str:
    """Return the key of a file's ``number``-th rejection; keys sort as numbers do."""
    return f"{file_key}/{number:09}"


async def rejections_of(reader: RecordReader, file_key: str) -> list[ImportRejection]:
    """Return what was refused of a file so far, in the order of the file."""
    found: list[ImportRejection] = []
    prefix = after = f"{file_key}/"
    while True:
        page = await reader.every(ImportRejection, after=after, limit=_PAGE)
        ours = [one for one in page if one.key.startswith(prefix)]
        found += ours
        if len(ours) < _PAGE:
            return found
        after = ours[-1].key


async def forget(transaction: RecordTransaction, file_key: str) -> None:
    """Remove all that was kept of a file's import."""
    for rejection in await rejections_of(transaction, file_key):
        await transaction.delete(ImportRejection, rejection.key)
    await transaction.delete(ImportProgress, file_key)
