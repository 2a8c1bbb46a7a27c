"""``fhir-portal serve``: the server, on one or more processes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
import uvicorn

from fhir_portal.app import Application
from fhir_portal.logs import configure
from fhir_portal.settings import InvalidSettings, Settings, hand_down, load


def serve_command(
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on.")] = None,
    data: Annotated[Path | None, typer.Option(help="The embedded store's file.")] = None,
    workers: Annotated[int | None, typer.Option(help="Server processes.")] = None,
) -> None:
    """Serve the FHIR API, the authorization server and the pages."""
    try:
        settings = load(host=host, port=port, data=data, workers=workers)
    except InvalidSettings as error:
        typer.echo(f"fhir-portal: {error}", err=True)
        raise typer.Exit(2) from None
    run_server(settings)


def run_server(settings: Settings) -> None:
    """Run uvicorn until it is told to stop; a start that fails ends with exit status 3."""
    common = {
        "host": settings.host,
        "port": settings.port,
        "log_config": None,  # ours is configured below; uvicorn would print tracebacks
        "log_level": "warning",
        "access_log": False,
        "server_header": False,
        "proxy_headers": False,  # the application reads them, where it needs the address
        "ws": "none",
        "timeout_graceful_shutdown": 10,
    }
    configure(settings.log_level)
    if settings.workers == 1:
        uvicorn.run(Application(settings), **common)  # type: ignore[arg-type]  # a dict of options
        return
    hand_down(settings)
    uvicorn.run(
        "fhir_portal.app:create_app",
        factory=True,
        workers=settings.workers,
        **common,  # type: ignore[arg-type]  # a dict of options
    )
