"""``fhir-portal terms``: the terms of use, the portal's and each practice's."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from fhir_portal.accounts import terms
from fhir_portal.accounts.practice import Practice
from fhir_portal.accounts.terms import InvalidTerms, Terms
from fhir_portal.commands.store import Refused, run_in_store
from fhir_portal.records import RecordTransaction
from fhir_portal.resources.store import PortalStore

terms_commands = typer.Typer(
    name="terms",
    help="The terms of use that people accept when they sign in.",
    no_args_is_help=True,
)

OfPractice = Annotated[
    str | None, typer.Option("--practice", help="Those of a practice, not the portal's own.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@terms_commands.command("publish")
def publish(
    text: Annotated[Path, typer.Argument(help="A text file: paragraphs with empty lines between.")],
    *,
    summary: Annotated[Path, typer.Option(help="A text file: the same in short.")],
    practice: OfPractice = None,
    as_json: AsJson = False,
) -> None:
    """Publish a new version. Everybody it concerns is asked at the next sign-in."""
    contents = [_read(text), _read(summary)]

    async def work(store: PortalStore) -> dict[str, Any]:
        scope = await _scope(store, practice)

        async def put(transaction: RecordTransaction) -> Terms:
            return await terms.publish(
                transaction, scope, text=contents[0], summary=contents[1], now=time.time()
            )

        try:
            return _shown(await store.transact(put))
        except InvalidTerms as error:
            raise Refused(str(error)) from None

    published = run_in_store(work)
    typer.echo(json.dumps(published, indent=2) if as_json else _line(published))


@terms_commands.command("show")
def show(*, practice: OfPractice = None, as_json: AsJson = False) -> None:
    """Show the version that is current."""

    async def work(store: PortalStore) -> dict[str, Any]:
        found = await terms.current(store, await _scope(store, practice))
        if found is None:
            raise Refused("there are no terms yet")
        return {**_shown(found), "summary": found.summary, "text": found.text}

    found = run_in_store(work)
    if as_json:
        typer.echo(json.dumps(found, indent=2))
        return
    typer.echo(_line(found))
    typer.echo(f"\n{found['summary']}\n\n{found['text']}")


async def _scope(store: PortalStore, practice: str | None) -> str:
    if practice is None:
        return terms.PORTAL
    if await store.get(Practice, practice) is None:
        raise Refused(f"there is no practice '{practice}'")
    return terms.scope_of(practice)


def _read(file: Path) -> str:
    try:
        return file.read_text("utf-8")
    except (OSError, UnicodeDecodeError):
        raise typer.BadParameter(f"{file} is no text file that can be read") from None


def _shown(found: Terms) -> dict[str, Any]:
    return {"of": found.scope, "version": found.version}


def _line(found: dict[str, Any]) -> str:
    return f"{found['of']}, version {found['version']}"
