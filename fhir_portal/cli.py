"""``fhir-portal``: one entry point for operators; each command is a file in ``commands``."""

from __future__ import annotations

import typer

from fhir_portal.commands.serve import serve_command

cli = typer.Typer(
    name="fhir-portal",
    help="A FHIR-native patient access server.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@cli.callback()
def about() -> None:
    """A FHIR-native patient access server."""


cli.command("serve")(serve_command)


def main() -> None:
    """Run the command line."""
    cli()
