"""Messages as files in a folder, where nothing is set up to send them: the demo, and tests."""

from __future__ import annotations

import asyncio
import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from fhir_portal.notify.attachment import Attachment
from fhir_portal.notify.composition import Compose
from fhir_portal.notify.letter import Letter
from fhir_portal.notify.outbox import OutboxMessage

_ENDING: Final = ".json"


class FolderDelivery:
    """Leaves each message as one file, named by its key: a repetition is the same file.

    The file holds what the addressee would get, so it is readable by its owner alone.
    """

    def __init__(self, folder: Path, compose: Compose) -> None:
        self._folder = folder
        self._compose = compose

    async def __call__(self, message: OutboxMessage) -> None:
        """Write the file, whole or not at all; that of nobody's message does not stay."""
        await self.send(message, await self._compose(message), ())

    async def send(
        self, message: OutboxMessage, letter: Letter, attachments: Sequence[Attachment]
    ) -> None:
        """The same of a letter with files, which are named and not kept."""
        await asyncio.to_thread(  # what waits for a disk holds up nobody else
            self._write,
            message.key,
            {
                "key": message.key,
                "channel": message.channel,
                "to": message.to,
                "template": message.template,
                "created": message.created,
                "subject": letter.subject if message.channel == "mail" else None,
                "text": letter.text if message.channel == "mail" else letter.sms,
                "link": letter.link,
                "code": letter.code,
                "attachments": [
                    {"name": one.name, "media": one.media, "bytes": len(one.content)}
                    for one in attachments
                ],
            },
            is_for_nobody=message.is_for_nobody,
        )

    def _write(self, key: str, content: Mapping[str, Any], *, is_for_nobody: bool) -> None:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor, draft = tempfile.mkstemp(dir=self._folder, prefix=".")  # mode 0600
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                json.dump(content, file, ensure_ascii=False, indent=2)
                file.write("\n")
                file.flush()
                os.fsync(file.fileno())
            if is_for_nobody:
                Path(draft).unlink()
            else:
                Path(draft).replace(self._folder / f"{key}{_ENDING}")
        except BaseException:
            Path(draft).unlink(missing_ok=True)
            raise


def messages_in(folder: Path, *, limit: int) -> list[dict[str, Any]]:
    """Return the messages that `FolderDelivery` left in a folder, the latest first."""
    files: list[tuple[float, Path]] = []
    if folder.is_dir():
        for file in folder.glob(f"*{_ENDING}"):
            with suppress(OSError):
                files.append((file.stat().st_mtime, file))
    found: list[dict[str, Any]] = []
    for _, file in sorted(files, reverse=True)[:limit]:
        with suppress(OSError, ValueError):
            content = json.loads(file.read_text("utf-8"))
            if isinstance(content, dict):
                found.append(content)
    return found
