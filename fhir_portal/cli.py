"""``fhir-portal``: one entry point for operators; each command is a file in ``commands``."""

from __future__ import annotations

import typer

from fhir_portal.commands.check import check_command
from fhir_portal.commands.client import client_commands
from fhir_portal.commands.demo import demo_command
from fhir_portal.commands.health_cards import health_card_commands
from fhir_portal.commands.import_ import import_command
from fhir_portal.commands.keys import keys_commands
from fhir_portal.commands.level import level_commands
from fhir_portal.commands.practice import practice_commands
from fhir_portal.commands.reindex import reindex_command
from fhir_portal.commands.serve import serve_command
from fhir_portal.commands.staff import staff_commands
from fhir_portal.commands.terms import terms_commands
from fhir_portal.commands.token import token_commands
from fhir_portal.commands.worker import worker_command

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
cli.command("worker")(worker_command)
cli.command("demo")(demo_command)
cli.command("import")(import_command)
cli.command("check")(check_command)
cli.command("reindex")(reindex_command)
cli.add_typer(client_commands)
cli.add_typer(practice_commands)
cli.add_typer(staff_commands)
cli.add_typer(level_commands)
cli.add_typer(keys_commands)
cli.add_typer(health_card_commands)
cli.add_typer(token_commands)
cli.add_typer(terms_commands)


def main() -> None:
    """Run the command line."""
    cli()
