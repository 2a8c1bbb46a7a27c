"""``fhir-portal serve``: the server, on one or more processes."""

from __future__ import annotations

import contextlib
import socket
import struct
from pathlib import Path
from typing import Annotated, cast

import typer
import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from fhir_portal.app import Application
from fhir_portal.logs import configure
from fhir_portal.settings import InvalidSettings, Settings, hand_down, load
from fhir_portal.web.downloads import CUT, DROP
from fhir_portal.web.events import PATH
from fhir_portal.web.fhir import PREFIX


def serve_command(
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on.")] = None,
    data: Annotated[Path | None, typer.Option(help="The embedded store's file.")] = None,
    workers: Annotated[int | None, typer.Option(help="Server processes.")] = None,
) -> None:
    """Serve the FHIR API, the authorization server and the pages.

    SIGTERM stops it when the requests under way are answered. SIGHUP, with two processes or more,
    replaces them one after the other; nobody is turned away meanwhile.
    """
    try:
        settings = load(host=host, port=port, data=data, workers=workers)
    except InvalidSettings as error:
        typer.echo(f"fhir-portal: {error}", err=True)
        raise typer.Exit(2) from None
    run_server(settings)


EVENTS = f"{PREFIX}/{PATH}"


class PoliteProtocol(HttpToolsProtocol):
    """uvicorn's HTTP/1.1, which says ``Connection: close`` before it ends (RFC 9112 §9.6).

    uvicorn closes connections that wait for their next request the moment a process is to stop,
    and a request that is on its way there is lost. Here whoever sends one in time is answered and
    told; whoever does not is let go by the keep-alive timeout, as on any other day.
    """

    _ends = False

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.scope["extensions"] = {CUT: {DROP: self._cut}}

    def _cut(self) -> None:
        """Drop the connection, and what waits to be sent in it: a reset, not an end."""
        link = self.transport.get_extra_info("socket")
        if link is not None:
            with contextlib.suppress(OSError):  # it has gone
                link.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.transport.abort()

    def shutdown(self) -> None:
        self._ends = True
        cycle = cast("RequestResponseCycle | None", self.cycle)
        if cycle is None:  # no request yet, and so no timeout
            self._wait_for_a_request()
        elif not cycle.response_started:
            cycle.keep_alive = False
        elif cycle.scope["path"] == EVENTS:
            # It would stay open for as long as its client does, who opens another elsewhere.
            self.transport.close()

    def on_headers_complete(self) -> None:
        super().on_headers_complete()
        if self._ends:
            self.cycle.keep_alive = False

    def _wait_for_a_request(self) -> None:
        self._unset_keepalive_if_required()
        self.timeout_keep_alive_task = self.loop.call_later(
            self.timeout_keep_alive, self.timeout_keep_alive_handler
        )


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
        "http": PoliteProtocol,
        "ws": "none",
        "timeout_graceful_shutdown": 30,  # longer than a connection may wait for its next request
        "timeout_worker_healthcheck": 30,  # a new process has so long to start
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
