"""``fhir-portal import``: FHIR JSON files into one practice."""

from __future__ import annotations

import asyncio
import json
import os
import re
from collections.abc import Iterator, Sequence
from concurrent.futures import BrokenExecutor
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from fhir_portal.access.visibility import SHARED
from fhir_portal.accounts.practice import Practice
from fhir_portal.commands.store import Refused, in_store, portal_over
from fhir_portal.fhir.errors import Unavailable
from fhir_portal.records import RecordTransaction
from fhir_portal.resources.importing import (
    ImportRejection,
    Summary,
    files_in,
    import_files,
    operator,
)
from fhir_portal.resources.store import PortalStore

REJECTED: Final = 1
USAGE: Final = 2
INTERRUPTED: Final = 130
_PRACTICE: Final = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,62}[a-z0-9])?")
_MOST_JOBS: Final = 3
"""Beyond this the process that writes is the one the others wait for."""


def import_command(
    paths: Annotated[
        list[Path],
        typer.Argument(
            metavar="PATH…",
            show_default=False,
            help="Files or folders: Bundles and resources as FHIR JSON or NDJSON, plain or gzip.",
        ),
    ],
    *,
    practice: Annotated[
        str,
        typer.Option(
            show_default=False,
            help="Key of the practice whose records these are, or 'shared' for what all see.",
        ),
    ],
    create_practice: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Make the practice, under this name, if it is new."),
    ] = None,
    grants: Annotated[
        bool,
        typer.Option("--grants", help="Let Consents become proxy grants, and import Person."),
    ] = False,
    jobs: Annotated[
        int,
        typer.Option(
            min=0, max=64, help="Processes that check resources beside the one that writes."
        ),
    ] = min(_MOST_JOBS, max(1, (os.cpu_count() or 1) - 1)),
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON.")] = False,
) -> None:
    """Import FHIR resources into a practice.

    Bad resources are listed with their file, line and reason, and do not stop the rest. Importing
    again changes only what has changed; an interrupted import goes on where it stopped.

    Exit status: 0 when all is stored, 1 when something was rejected or the store could not be
    written, 2 when a path, a setting or the practice is wrong.
    """
    try:
        files = files_in(paths)
        summary = asyncio.run(
            in_store(
                lambda store: _import(
                    store, files, practice, create_practice, grants=grants, jobs=jobs
                )
            )
        )
    except (Refused, FileNotFoundError) as error:
        raise _stop(str(error), USAGE) from None
    except (Unavailable, OSError, BrokenExecutor) as error:
        raise _stop(f"{error}\nRun the same command again to go on.", REJECTED) from None
    except KeyboardInterrupt:
        raise _stop("interrupted; run the same command again to go on", INTERRUPTED) from None
    typer.echo(json.dumps(summary.shown(), indent=2) if as_json else _in_words(summary))
    if summary.rejected:
        raise typer.Exit(REJECTED)


async def _import(
    store: PortalStore,
    files: Sequence[Path],
    practice: str,
    name: str | None,
    *,
    grants: bool,
    jobs: int,
) -> Summary:
    await _require_practice(store, practice, name)
    with Progress(
        TextColumn("importing"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[read]:,} resources, {task.fields[rejected]:,} rejected"),
        TimeRemainingColumn(),
        console=Console(stderr=True),
    ) as progress:
        total = sum(file.stat().st_size for file in files)
        task = progress.add_task("importing", total=total, read=0, rejected=0)

        def report(done: int, summary: Summary) -> None:
            rejected = len(summary.rejected)
            progress.update(task, completed=done, read=summary.read, rejected=rejected)

        auth = operator(practice, grants=grants)
        return await import_files(portal_over(store).server, auth, files, jobs=jobs, report=report)


async def _require_practice(store: PortalStore, key: str, name: str | None) -> None:
    """Look the practice up, or make it when it is to have a name and is not there yet."""
    if key == SHARED:
        if name is not None:
            raise Refused(f"'{SHARED}' is no practice: it is what all practices see")
        return
    if await store.get(Practice, key) is not None:
        return
    if name is None:
        known = ", ".join(one.key for one in await store.every(Practice)) or "none"
        raise Refused(
            f"there is no practice '{key}' (known: {known}); --create-practice NAME makes it"
        )
    if _PRACTICE.fullmatch(key) is None:
        raise Refused("a practice key has 1 to 64 lower-case letters, digits and inner hyphens")

    async def make(transaction: RecordTransaction) -> None:
        if await transaction.get(Practice, key) is None:
            await transaction.insert(Practice(key=key, name=name))

    await store.transact(make)


def _stop(message: str, status: int) -> typer.Exit:
    typer.echo(f"fhir-portal: {message}", err=True)
    return typer.Exit(status)


def _in_words(summary: Summary) -> str:
    lines = [line for one in summary.rejected for line in _rejection_in_words(one)]
    counts = (
        f"{summary.read:,} resources read from {_count(summary.files, 'file')}: "
        f"{summary.created:,} created, {summary.updated:,} updated, "
        f"{summary.unchanged:,} unchanged, {len(summary.rejected):,} rejected"
    )
    if summary.resumed:
        counts += f"; {summary.resumed:,} of them by the import that was interrupted"
    speed = f"{summary.seconds:.1f} s, {summary.resources_per_second:,.0f} resources/s"
    return "\n".join((*lines, counts, speed))


def _rejection_in_words(one: ImportRejection) -> Iterator[str]:
    entry = "" if one.index is None else f", entry {one.index}"
    what = f" {one.type}/{one.id}" if one.type and one.id else f" {one.type}" if one.type else ""
    yield f"{one.file}, line {one.line}{entry}: rejected{what}"
    for issue in one.issues:
        place = f"{issue['expression']}: " if issue["expression"] else ""
        yield f"    {place}{issue['diagnostics']} [{issue['code']}]"


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"
