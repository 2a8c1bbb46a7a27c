"""``fhir-portal check``: what the store is that the settings name, and whether it is well."""

from __future__ import annotations

import asyncio
from typing import Annotated, Final

import typer

from fhir_portal.app import faults_of, open_store
from fhir_portal.fhir.errors import Unavailable
from fhir_portal.settings import InvalidSettings, Settings, load

WRONG: Final = 1
USAGE: Final = 2


def check_command(
    *,
    indexes: Annotated[
        bool,
        typer.Option("--indexes", help="Create indexes that are missing, and list all of them."),
    ] = False,
) -> None:
    """Say which store the settings name and what is wrong with it.

    Exit status: 0 when a server could serve it, 1 when something is wrong, 2 when a setting is.
    """
    try:
        settings = load()
    except InvalidSettings as error:
        typer.echo(f"fhir-portal: {error}", err=True)
        raise typer.Exit(USAGE) from None
    found, faults = asyncio.run(_check(settings, indexes=indexes))
    for line in found:
        typer.echo(line)
    for fault in faults:
        typer.echo(f"fhir-portal: {fault}", err=True)
    if faults:
        raise typer.Exit(WRONG)
    typer.echo("ready")


async def _check(settings: Settings, *, indexes: bool) -> tuple[list[str], list[str]]:
    """Return what the store says of itself, and what is wrong."""
    if settings.mongodb_uri is None and not settings.data.exists():
        # Opening it would make one, and where the path is misspelt say that all is well.
        return [], [f"there is no store at {settings.data} yet; the first start makes it"]
    try:
        store = await open_store(settings)
    except Unavailable as error:
        return [], [str(error)]
    except OSError as error:
        return [], [f"the store cannot be opened: {error.strerror}"]
    found = store.about()
    try:
        if indexes:
            found += await store.check_indexes()
        return found, await faults_of(store)
    except Unavailable as error:
        return found, [str(error)]
    finally:
        await store.aclose()
