"""``fhir-portal demo``: two invented practices to try everything on."""

from __future__ import annotations

import asyncio
import socket
from typing import Annotated

import typer

from fhir_portal.commands.serve import run_server
from fhir_portal.demo.people import ACCOUNTS, PASSWORD, PRACTICES
from fhir_portal.demo.place import NotTheDemo, Placed, place_demo
from fhir_portal.fhir.errors import Unavailable
from fhir_portal.settings import InvalidSettings, Settings, load
from fhir_portal.web.pages.demo_outbox import DEMO_OUTBOX


def demo_command(
    *,
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on.")] = None,
    reset: Annotated[
        bool, typer.Option("--reset", help="Build the demo anew; what was done in it is lost.")
    ] = False,
    serve: Annotated[
        bool, typer.Option("--serve/--no-serve", help="Serve it, or build it only.")
    ] = True,
) -> None:
    """Serve two invented practices with everything that is needed to try an app.

    They are built when the store is new. An existing demo is kept as it is; a store that holds
    anything else is left alone.
    """
    try:
        settings = load(host=host, port=port, demo_outbox=True, demo_payments=True)
        if serve:
            _require_free(settings)
        placed = asyncio.run(place_demo(settings, reset=reset))
    except (InvalidSettings, NotTheDemo, Unavailable, PortTaken) as error:
        raise _refusal(str(error)) from None
    except OSError as error:
        raise _refusal(f"cannot write into {settings.data.parent}: {error.strerror}") from None
    typer.echo(in_words(settings, placed))
    if serve:
        run_server(settings)


class PortTaken(Exception):
    """Somebody listens on the port already."""


def in_words(settings: Settings, placed: Placed) -> str:
    """Say where everything is and who can sign in."""
    store, anew = str(settings.data), "--reset"
    if settings.mongodb_uri is not None:
        store, anew = "MongoDB (FHIR_PORTAL_MONGODB_URI)", "an empty database"
    state = "built just now" if placed.new else f"built on {placed.day}, kept as it is"
    width = max(len(account.username) for account in ACCOUNTS)
    longest = max(len(account.name) for account in ACCOUNTS)
    described = str(settings.demo_file)
    if not placed.described:
        described += f" is gone, and with it the clients' keys: {anew} builds all anew"
    return "\n".join(
        [
            " and ".join(practice.name for practice in PRACTICES) + f": {state}.",
            "",
            f"  FHIR API      {settings.base_url}/fhir",
            f"  sign in       {settings.base_url}/signin",
            *(
                [f"  mail and SMS  {settings.base_url}{DEMO_OUTBOX}"]
                if settings.shows_outbox and settings.smtp_host is None
                else []
            ),
            f"  store         {store}",
            f"  for scripts   {described}",
            "",
            f"Everybody's password is {PASSWORD}",
            "",
            *(
                f"  {account.username:{width}}  {account.name:{longest}}  {account.note}"
                for account in ACCOUNTS
            ),
            "",
        ]
    )


def _require_free(settings: Settings) -> None:
    """Find out before anything is built whether the server will be able to listen."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind((settings.host, settings.port))
        except OSError as error:
            raise PortTaken(
                f"cannot listen on {settings.host} port {settings.port}: {error.strerror}. "
                "Choose another: fhir-portal demo --port 9000 (make run PORT=9000)"
            ) from None


def _refusal(message: str) -> typer.Exit:
    typer.echo(f"fhir-portal: {message}", err=True)
    return typer.Exit(2)
