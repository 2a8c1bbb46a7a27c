"""``fhir-portal practice``: the practices on this deployment."""

from __future__ import annotations

import functools
import json
import re
import time
from pathlib import Path
from typing import Annotated, Any, Final
from zoneinfo import ZoneInfo

import msgspec
import typer

from fhir_portal.access.visibility import SHARED
from fhir_portal.accounts.contacts import InvalidContact, telephone_number
from fhir_portal.accounts.messaging import InvalidMessaging, messaging_of, read_messaging
from fhir_portal.accounts.policy import (
    PracticePolicy,
    UnknownPolicy,
    changed,
    policy_of,
    shown,
)
from fhir_portal.accounts.portal_switch import concerned
from fhir_portal.accounts.practice import Practice
from fhir_portal.accounts.practice_contact import PracticeContact
from fhir_portal.accounts.security_questions import RecoveryPolicy
from fhir_portal.commands.store import (
    Refused,
    known_practices,
    portal_over,
    print_found,
    run_in_store,
)
from fhir_portal.consent.label_rules import InvalidRules, label_rules_of, read_rules
from fhir_portal.operations.label_jobs import relabel_practice, set_rules
from fhir_portal.operations.transmit_delivery import endpoint_secret
from fhir_portal.records import DuplicateRecord, RecordTransaction
from fhir_portal.resources.practice_directory import (
    NotInDirectory,
    contact_in_directory,
    publish_contact,
)
from fhir_portal.resources.store import PortalStore, ResourceTransaction
from fhir_portal.settings import load
from fhir_portal.smart.keys import derive
from fhir_portal.smart.outbound import AddressRefused, check_address

practice_commands = typer.Typer(
    name="practice",
    help="The practices on this deployment.",
    no_args_is_help=True,
)

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Key = Annotated[str, typer.Argument(help="The practice.")]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Say what would change, and change nothing.")
]
_ORGANIZATION: Final = re.compile(r"Organization/[A-Za-z0-9.-]{1,64}")
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
    organization: Annotated[
        str, typer.Option(help="Its own Organization/<id>, as its EHR will write it.")
    ] = "",
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
        if organization and not _ORGANIZATION.fullmatch(organization):
            raise Refused(f"'{organization}' is no reference such as Organization/elm")
        try:
            number = telephone_number(phone) if phone is not None else None
        except InvalidContact as error:
            raise Refused(str(error)) from None
        practice = Practice(
            key=key,
            name=name.strip(),
            zone=zone,
            organization=organization or None,
            phone=number,
        )

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


@practice_commands.command("messages")
def messages(
    key: Key,
    *,
    set_from: Annotated[
        Path | None, typer.Option("--set-from", help="A file of JSON that says all of it anew.")
    ] = None,
) -> None:
    """Show or set what patients can write about, who answers and how soon."""

    async def work(store: PortalStore) -> dict[str, Any]:
        await known_practices(store, [key])
        if set_from is None:
            found = await messaging_of(store, key)
        else:
            try:
                found = read_messaging(key, json.loads(set_from.read_bytes()))
            except (InvalidMessaging, OSError, ValueError, TypeError) as error:
                raise Refused(str(error)) from None

            async def put(transaction: RecordTransaction) -> None:
                await transaction.put(found)

            await store.transact(put)
        shown: dict[str, Any] = msgspec.to_builtins(found)
        return {name: value for name, value in shown.items() if name not in {"key", "expires"}}

    typer.echo(json.dumps(run_in_store(work), indent=2, ensure_ascii=False))


@practice_commands.command("labels")
def labels(
    key: Key,
    *,
    set_from: Annotated[
        Path | None, typer.Option("--set-from", help="A file of JSON that says all of it anew.")
    ] = None,
) -> None:
    """Show or set what is labelled by rule, and when results are released.

    What is stored is labelled before this ends; meanwhile patients and those who act for them see
    nothing of the practice's records.
    """

    async def work(store: PortalStore) -> dict[str, Any]:
        await known_practices(store, [key])
        if set_from is not None:
            try:
                wanted = read_rules(key, json.loads(set_from.read_bytes()))
            except (InvalidRules, OSError, ValueError) as error:
                raise Refused(str(error)) from None
            await store.transact(functools.partial(set_rules, wanted=wanted, now=time.time()))
            await relabel_practice(portal_over(store).server, key)
        shown: dict[str, Any] = msgspec.to_builtins(await label_rules_of(store, key))
        return {name: shown[name] for name in ("labels", "release")}

    typer.echo(json.dumps(run_in_store(work), indent=2, ensure_ascii=False))


@practice_commands.command("portal")
def portal(
    key: Key,
    *,
    on: Annotated[
        bool | None,
        typer.Option("--on/--off", help="Let its patients use the portal, or nobody of them."),
    ] = None,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Say whether a practice's patients may use the portal, and whom a change concerns."""

    async def work(store: PortalStore) -> dict[str, Any]:
        await known_practices(store, [key])
        before = await policy_of(store, key)
        whom = await concerned(store, key, now=time.time())
        effect = {"accounts": whom.accounts, "invitations": whom.invitations}
        wanted = before.portal if on is None else on
        found = {"practice": key, "portal": _switch(before.portal), **effect}
        if wanted == before.portal:
            return found | {"change": "none"}
        if dry_run:
            return found | {"change": f"{_switch(wanted)}, not done"}

        async def switch(transaction: RecordTransaction) -> None:
            policy = await transaction.get(PracticePolicy, key) or PracticePolicy(key=key)
            await transaction.put(msgspec.structs.replace(policy, portal=wanted))

        await store.transact(switch)
        return found | {"portal": _switch(wanted), "change": f"{_switch(wanted)}, done"}

    print_found(run_in_store(work), as_json=as_json)


@practice_commands.command("publish")
def publish(key: Key, *, dry_run: DryRun = False, as_json: AsJson = False) -> None:
    """Publish on its help page how to reach a practice, as its directory says now.

    That is its own Organization, and the HealthcareServices of that which are in the directory.
    """

    async def work(store: PortalStore) -> PracticeContact:
        await known_practices(store, [key])
        now = time.time()

        async def put(transaction: ResourceTransaction) -> PracticeContact:
            return await publish_contact(transaction, key, now=now)

        try:
            if dry_run:
                return await contact_in_directory(store, key, now=now)
            return await store.transact(put)
        except NotInDirectory as error:
            raise Refused(str(error)) from None

    found = msgspec.to_builtins(run_in_store(work))
    for name in ("expires", "published"):
        found.pop(name)
    if as_json:
        typer.echo(json.dumps(found, indent=2))
        return
    for line in _public_lines(found):
        typer.echo(line)


@practice_commands.command("endpoint-secret")
def endpoint_secret_of(
    key: Key,
    address: Annotated[str, typer.Argument(help="The address of the Endpoint, as it is stored.")],
    *,
    as_json: AsJson = False,
) -> None:
    """Print the secret by which an endpoint knows that what is posted to it is from here.

    It is for the address and the practice alone, and not stored: it is made of the server's secret.
    """

    async def work(store: PortalStore) -> dict[str, Any]:
        await known_practices(store, [key])
        try:
            check_address(address)
        except AddressRefused as error:
            raise Refused(str(error)) from None
        secret = endpoint_secret(functools.partial(derive, load().secret_key()))
        return {"practice": key, "address": address, "secret": secret(key, address)}

    print_found(run_in_store(work), as_json=as_json)


def _switch(on: bool) -> str:  # noqa: FBT001 - what is said of it
    return "on" if on else "off"


def _public_lines(found: dict[str, Any]) -> list[str]:
    lines = [f"{'address':10}  {found['address']}"] if found["address"] else []
    for where in (found, *found["services"]):
        if where.get("name"):
            lines.append(f"{'service':10}  {where['name']}")
        lines += [
            f"{one['kind']:10}  {one['value']}{'  ' + one['note'] if one['note'] else ''}"
            for one in where["lines"]
        ]
        for one in where.get("hours", ()):
            span = f"{one['opens']}-{one['closes']}" if one["opens"] else "all day"
            lines.append(f"{'hours':10}  {' '.join(one['days'])}  {span}")
        lines += [f"{'closed':10}  {one}" for one in where.get("closed", ())]
    return lines or ["nothing: the directory has no contact of it"]


def _shown(practice: Practice) -> dict[str, Any]:
    shown = {"key": practice.key, "name": practice.name, "zone": practice.zone}
    return shown if practice.phone is None else {**shown, "phone": practice.phone}


def _line(practice: dict[str, Any]) -> str:
    return f"{practice['key']:20}  {practice['zone']:20}  {practice['name']}"
