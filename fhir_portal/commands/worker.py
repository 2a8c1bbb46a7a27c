"""``fhir-portal worker``: delivery, jobs and housekeeping, without serving anybody."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from fhir_portal.app import Application
from fhir_portal.fhir.errors import Unavailable
from fhir_portal.logs import configure
from fhir_portal.settings import InvalidSettings, Settings, load


def worker_command(
    *,
    data: Annotated[Path | None, typer.Option(help="The embedded store's file.")] = None,
    once: Annotated[
        bool, typer.Option("--once", help="Do what is due now, say how much arrived, and end.")
    ] = False,
) -> None:
    """Send what waits in the outbox, do the jobs, and remove what has expired.

    Any number may run, beside any number of servers. SIGTERM and SIGINT end it; what was being
    sent then is taken over by another when its lease is over.
    """
    try:
        settings = load(data=data)
        configure(settings.log_level)
        if once:
            typer.echo(f"{asyncio.run(_once(settings))} arrived")
        else:
            asyncio.run(run_worker(settings))
    except (InvalidSettings, Unavailable) as error:
        typer.echo(f"fhir-portal: {error}", err=True)
        raise typer.Exit(2) from None


async def run_worker(
    settings: Settings,
    *,
    clock: Callable[[], float] = time.time,
    prepare: Callable[[Application], None] = lambda _: None,
) -> None:
    """Work until a signal says to stop; ``prepare`` may add to what the application knows."""
    application = Application(settings, clock=clock, background=True, at_once=True)
    prepare(application)
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    await application.open()
    try:
        await stopped.wait()
    finally:
        await application.close()


async def _once(settings: Settings) -> int:
    application = Application(settings, background=False)
    await application.open()
    try:
        return await application.work_once()
    finally:
        await application.close()
