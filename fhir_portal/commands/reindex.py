"""``fhir-portal reindex``: rows of an earlier release, indexed and classified as this one does."""

from __future__ import annotations

import json
import time
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from fhir_portal.commands.store import run_in_store
from fhir_portal.resources.reindex import reindex
from fhir_portal.resources.store import PortalStore


def reindex_command(
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print the figures as JSON.")] = False,
) -> None:
    """Index anew what an earlier release stored; a server does so before it serves.

    Run it first where there is much: nothing is served meanwhile. Interrupted, it goes on where
    it was when it is run again.
    """
    found = run_in_store(_reindex)
    if as_json:
        typer.echo(json.dumps(found))
        return
    typer.echo(f"{found['rows']:,} resources in {found['seconds']:.1f} s")


async def _reindex(store: PortalStore) -> dict[str, float]:
    started = time.monotonic()
    with Progress(
        TextColumn("indexing"),
        BarColumn(),
        TextColumn("{task.completed:,} of {task.total:,} resources"),
        TimeRemainingColumn(),
        console=Console(stderr=True),
    ) as progress:
        task = progress.add_task("indexing", total=await store.stale())
        rows = await reindex(store, told=lambda done: progress.update(task, completed=done))
    return {"rows": rows, "seconds": round(time.monotonic() - started, 3)}
