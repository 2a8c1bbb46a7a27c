"""``fhir-portal practice``: the practices on this deployment."""

from __future__ import annotations

import json
import re
from typing import Annotated, Any, Final
from zoneinfo import ZoneInfo

import typer

from fhir_portal.access.visibility import SHARED
from fhir_portal.accounts.contacts import InvalidContact, telephone_number
from fhir_portal.accounts.policy import (
    PracticePolicy,
    UnknownPolicy,
    changed,
    policy_of,
    shown,
)
from fhir_portal.accounts.practice import Practice
from fhir_portal.accounts.security_questions import RecoveryPolicy
from fhir_portal.commands.store import Refused, run_in_store
from fhir_portal.records import DuplicateRecord, RecordTransaction
from fhir_portal.resources.store import PortalStore

practice_commands = typer.Typer(
    name="practice",
    help="The practices on this deployment.",
    no_args_is_help=True,
)

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
_KEY: Final = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,62}[a-z0-9])?")


@practice_commands.command("add")
def add(
    key: Annotated[str, typer.Argument(help="Its key: lower-case letters, digits, hyphens.")],
    name: Annotated[str, typer.Argument(help="Its name, as people read it.")],
    *,
    zone: Annotated[
        str, typer.Option(help="Its time zone, in which a grant's last day ends.")
    ] = "UTC",
    phone: Annotated[
        str | None,
        typer.Option(help="Where people call who cannot sign in: + and the country code."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Add a practice."""

    async def work(store: PortalStore) -> dict[str, Any]:
        if _KEY.fullmatch(key) is None or key == SHARED:
            raise Refused(
                "a practice key has 1 to 64 lower-case letters, digits and inner hyphens, "
                f"and is not '{SHARED}'"
            )
        if not name.strip() or not name.isprintable():
            raise Refused("a practice needs a name of printable characters")
        try:
            ZoneInfo(zone)
        except (KeyError, ValueError, OSError):
            raise Refused(f"'{zone}' is no time zone such as America/Chicago") from None
        try:
            number = telephone_number(phone) if phone is not None else None
        except InvalidContact as error:
            raise Refused(str(error)) from None
        practice = Practice(key=key, name=name.strip(), zone=zone, phone=number)

        async def insert(transaction: RecordTransaction) -> None:
            await transaction.insert(practice)

        try:
            await store.transact(insert)
        except DuplicateRecord:
            raise Refused(f"there is a practice '{key}' already") from None
        return _shown(practice)

    added = run_in_store(work)
    typer.echo(json.dumps(added, indent=2) if as_json else _line(added))


@practice_commands.command("list")
def list_(*, as_json: AsJson = False) -> None:
    """List the practices."""

    async def work(store: PortalStore) -> list[dict[str, Any]]:
        found: list[Practice] = []
        while page := await store.every(Practice, after=found[-1].key if found else ""):
            found += page
        return [_shown(practice) for practice in found]

    practices = run_in_store(work)
    if as_json:
        typer.echo(json.dumps(practices, indent=2))
    for practice in practices if not as_json else ():
        typer.echo(_line(practice))


@practice_commands.command("recovery")
def recovery(
    key: Annotated[str, typer.Argument(help="The practice's key.")],
    *,
    security_questions: Annotated[
        bool, typer.Option(help="Ask security questions beside a code, of people who chose some.")
    ],
    as_json: AsJson = False,
) -> None:
    """Say what is asked of people who recover their accounts."""
    policy = RecoveryPolicy(key=key, security_questions=security_questions)

    async def work(store: PortalStore) -> None:
        async def put(transaction: RecordTransaction) -> None:
            if await transaction.get(Practice, key) is None:
                raise Refused(f"there is no practice '{key}'")
            await transaction.put(policy)

        await store.transact(put)

    run_in_store(work)
    shown = {"key": key, "security_questions": security_questions}
    asked = "asked" if security_questions else "not asked"
    typer.echo(json.dumps(shown, indent=2) if as_json else f"security questions are {asked}")


@practice_commands.command("policy")
def policy(
    key: Annotated[str, typer.Argument(help="The practice's key.")],
    *,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="Set one; may be repeated."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show what a practice has decided about invitations and accounts, or set some of it."""

    async def work(store: PortalStore) -> dict[str, Any]:
        wanted: dict[str, str] = {}
        for one in settings or ():
            name, equals, value = one.partition("=")
            if not equals:
                raise Refused(f"--set takes NAME=VALUE, and not '{one}'")
            wanted[name.strip()] = value

        async def change(transaction: RecordTransaction) -> PracticePolicy:
            if await transaction.get(Practice, key) is None:
                raise Refused(f"there is no practice '{key}'")
            before = await policy_of(transaction, key)
            after = changed(before, wanted)
            if after != before:
                await transaction.put(after)
            return after

        try:
            return shown(await store.transact(change))
        except UnknownPolicy as error:
            raise Refused(str(error)) from None

    found = run_in_store(work)
    if as_json:
        typer.echo(json.dumps(found, indent=2))
    for name, value in found.items() if not as_json else ():
        typer.echo(f"{name:24}  {_told(value)}".rstrip())


def _told(value: Any) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    return ",".join(value) if isinstance(value, list | tuple) else str(value)


def _shown(practice: Practice) -> dict[str, Any]:
    shown = {"key": practice.key, "name": practice.name, "zone": practice.zone}
    return shown if practice.phone is None else {**shown, "phone": practice.phone}


def _line(practice: dict[str, Any]) -> str:
    return f"{practice['key']:20}  {practice['zone']:20}  {practice['name']}"
