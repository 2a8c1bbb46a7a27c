"""``fhir-portal staff``: who may sign in as a member of a practice's staff.

A password is never an argument: arguments are in the list of processes, and in the shell's history.
"""

from __future__ import annotations

import json
import secrets
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Annotated, Any, TypeVar
from urllib.parse import urlencode

import typer

from fhir_portal.access.log import STAFF_LEVEL, STAFF_RESUMED, AccessRow
from fhir_portal.access.owed import owe, pay
from fhir_portal.access.owners import local_target
from fhir_portal.access.relation import Relations, name_of, works
from fhir_portal.access.visibility import Visibility
from fhir_portal.accounts.account import (
    Account,
    DuplicateAccount,
    InvalidUsername,
    account_named,
    enable_account,
    insert_account,
    new_account,
)
from fhir_portal.accounts.credentials import Passwords, UnacceptablePassword
from fhir_portal.accounts.levels import OPERATOR, READ, LevelRefused, level_of, levels_of
from fhir_portal.accounts.practice import Practice
from fhir_portal.accounts.proof import Write
from fhir_portal.accounts.staff import (
    AlreadyStaff,
    NotStaff,
    StaffMember,
    add_staff,
    require_administrators_without,
    resume_staff,
    set_level,
    staff_key,
    staff_of_account,
    staff_of_practice,
)
from fhir_portal.commands.store import (
    Refused,
    known_practices,
    moment,
    portal_over,
    print_found,
    run_in_store,
)
from fhir_portal.fhir.errors import FhirError, Unavailable
from fhir_portal.fhir.interaction import FhirRequest
from fhir_portal.fhir.json import parse
from fhir_portal.fhir.reference import ResourceKey
from fhir_portal.operations.account_status import follow_statuses
from fhir_portal.records import RecordTransaction
from fhir_portal.resources.importing import operator
from fhir_portal.resources.store import PortalStore
from fhir_portal.smart.revocation import disable_account, remove_staff

staff_commands = typer.Typer(
    name="staff",
    help="Who may sign in as a member of a practice's staff.",
    no_args_is_help=True,
)

T = TypeVar("T")
Username = Annotated[str, typer.Argument(metavar="USERNAME", show_default=False)]
Where = Annotated[str, typer.Option("--practice", show_default=False, help="Key of the practice.")]
Level = Annotated[str, typer.Option(help="Their access level: see `fhir-portal level`.")]
EvenLast = Annotated[
    bool,
    typer.Option(
        "--even-last", help="Even if nobody is left there who may administer access levels."
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
_GENERATED_BYTES = 15


@staff_commands.command("add")
def add(
    username: Username,
    *,
    practice: Where,
    practitioner: Annotated[
        str | None,
        typer.Option(
            metavar="Practitioner/ID",
            help="Who they are in the practice's records, if known there.",
        ),
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="Their name, to make a Practitioner of when there is none.")
    ] = None,
    level: Level = READ,
    existing_account: Annotated[
        bool,
        typer.Option(
            "--existing-account",
            help="They sign in here already, as a patient or at another practice.",
        ),
    ] = False,
    generate_password: Annotated[
        bool, typer.Option("--generate-password", help="Make a password and show it once.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Put somebody on a practice's staff: they sign in, and may what their access level says.

    A new account gets the password that is asked for, or that is sent on standard input.
    """

    async def work(store: PortalStore) -> dict[str, Any]:
        await known_practices(store, [practice])
        if (practitioner is None) == (name is None):
            raise Refused(
                "say who they are: --practitioner Practitioner/ID for one of the practice's "
                "records, or --name for somebody who is not in them"
            )
        if existing_account and generate_password:
            raise Refused("an account that exists keeps its password")
        await _require_level(store, practice, level)
        account = await account_named(store, username)
        if account is not None and not existing_account:
            raise Refused(
                f"there is an account '{username}' already; if it is the same person's, repeat "
                "this with --existing-account"
            )
        if account is None and existing_account:
            raise Refused(f"there is no account '{username}'")
        if account is not None:
            await _require_not_on_staff(store, account, practice)
        if practitioner is not None:
            await _require_practitioner(store, practice, practitioner)
        shown: dict[str, Any] = {}
        added = account
        if added is None:
            password = secrets.token_urlsafe(_GENERATED_BYTES) if generate_password else _asked()
            added = await _new_account(store, username, password, practice)
            shown = {"password": password} if generate_password else {}
        who = practitioner or await _new_practitioner(store, practice, name or "")
        now = time.time()

        async def keep(transaction: RecordTransaction) -> StaffMember:
            if account is None:
                await insert_account(transaction, added)
            new = await add_staff(
                transaction,
                account=added.key,
                practice=practice,
                practitioner=who,
                now=now,
                level=level,
                by=OPERATOR,
            )
            await line.owe(transaction, new, new.level)
            return new

        line = _Line(now)
        member = await store.transact(keep)
        await pay(store, store.log, line.key)
        return await _shown(store, member) | shown

    found = _run(work)
    print_found(found, as_json=as_json)
    if "password" in found:
        typer.echo("Keep the password now: it is not shown again.", err=True)


@staff_commands.command("list")
def list_(
    *,
    practice: Annotated[str | None, typer.Option(help="Of this practice only.")] = None,
    as_json: AsJson = False,
) -> None:
    """List the staff, and whether they can use what their practice has."""

    async def work(store: PortalStore) -> list[dict[str, Any]]:
        if practice is not None:
            await known_practices(store, [practice])
            members = await staff_of_practice(store, practice)
        else:
            members = []
            while page := await store.every(StaffMember, after=members[-1].key if members else ""):
                members += page
        return [await _shown(store, member) for member in members]

    staff = _run(work)
    if as_json:
        typer.echo(json.dumps(staff, indent=2))
        return
    width = max((len(one["username"]) for one in staff), default=0)
    places = max((len(one["practice"]) for one in staff), default=0)
    levels = max((len(one["level"]) for one in staff), default=0)
    for one in staff:
        state = "" if one["state"] == "active" else f"  ({one['state']})"
        who = f"{one['practitioner']}  {one['name']}".rstrip()
        level = f"{one['level']:{levels}}"
        typer.echo(f"{one['username']:{width}}  {one['practice']:{places}}  {level}  {who}{state}")


@staff_commands.command("set-level")
def set_level_(
    username: Username,
    *,
    practice: Where,
    level: Annotated[
        str, typer.Option(show_default=False, help="The access level they are to have.")
    ],
    as_json: AsJson = False,
) -> None:
    """Give a member of staff another access level; it holds from their next request on."""

    async def work(store: PortalStore) -> dict[str, Any]:
        await known_practices(store, [practice])
        account = await _account(store, username)
        await _require_level(store, practice, level)

        now = time.time()

        async def change(transaction: RecordTransaction) -> StaffMember:
            changed = await set_level(
                transaction,
                practice=practice,
                account=account.key,
                level=level,
                by=OPERATOR,
                now=now,
                works=works,
            )
            await line.owe(transaction, changed, changed.level)
            return changed

        line = _Line(now)
        member = await store.transact(change)
        await pay(store, store.log, line.key)
        return await _shown(store, member)

    print_found(_run(work, username, practice), as_json=as_json)


@staff_commands.command("remove")
def remove(
    username: Username, *, practice: Where, even_last: EvenLast = False, as_json: AsJson = False
) -> None:
    """Take somebody off a practice's staff; what they let apps do there ends at once.

    The account stays: it may be a patient's, or on another practice's staff.
    """

    async def work(store: PortalStore) -> dict[str, Any]:
        await known_practices(store, [practice])
        account = await _account(store, username)
        now = time.time()
        line = _Line(now)
        member = await store.get(StaffMember, staff_key(practice, account.key))

        async def owe_line(transaction: RecordTransaction) -> None:
            if member is not None:
                await line.owe(transaction, member, "")

        ended = await remove_staff(
            store,
            account=account.key,
            practice=practice,
            by=OPERATOR,
            now=now,
            works=works,
            even_last=even_last,
            also=owe_line,
        )
        await pay(store, store.log, line.key)
        return {"username": account.username, "practice": practice, "ended": ended}

    print_found(_run(work, username, practice), as_json=as_json)


@staff_commands.command("disable")
def disable(username: Username, *, even_last: EvenLast = False, as_json: AsJson = False) -> None:
    """Shut a member of staff out everywhere: sessions and every access end at once.

    That is the whole account, a patient's own records included.
    """

    async def work(store: PortalStore) -> dict[str, Any]:
        account = await _of_staff(store, username)

        async def first(transaction: RecordTransaction) -> None:
            if not even_last:
                await require_administrators_without(transaction, account.key, works=works)

        ended = await disable_account(
            store, account.key, now=time.time(), first=first, last=_followed(store, account)
        )
        return {"username": account.username, "disabled": True, "ended": ended}

    print_found(_run(work), as_json=as_json)


@staff_commands.command("enable")
def enable(username: Username, *, as_json: AsJson = False) -> None:
    """Let a disabled member of staff sign in again; apps have to be connected anew."""

    async def work(store: PortalStore) -> dict[str, Any]:
        account = await _of_staff(store, username)
        await enable_account(store, account.key, last=_followed(store, account))
        return {"username": account.username, "disabled": False}

    print_found(_run(work), as_json=as_json)


def _followed(store: PortalStore, account: Account) -> Write:
    """Return the write by which the account's Persons say how it stands."""
    server = portal_over(store).server

    async def follow(transaction: Any) -> None:
        await follow_statuses(transaction, server, account)

    return follow


@staff_commands.command("resume")
def resume(username: Username, *, practice: Where, as_json: AsJson = False) -> None:
    """Let somebody work again whose account was recovered with the help of staff.

    Make sure first that it is them: this is what keeps staff from becoming somebody else.
    """

    async def work(store: PortalStore) -> dict[str, Any]:
        await known_practices(store, [practice])
        account = await _account(store, username)
        line = _Line(time.time(), STAFF_RESUMED)

        async def change(transaction: RecordTransaction) -> StaffMember:
            resumed = await resume_staff(
                transaction, practice=practice, account=account.key, by=OPERATOR
            )
            await line.owe(transaction, resumed, resumed.level)
            return resumed

        member = await store.transact(change)
        await pay(store, store.log, line.key)
        return await _shown(store, member)

    print_found(_run(work, username, practice), as_json=as_json)


class _Line:
    """The line of the access log that says which level somebody has now, ``""`` for none."""

    def __init__(self, now: float, interaction: str = STAFF_LEVEL) -> None:
        self.key = secrets.token_urlsafe(_GENERATED_BYTES)
        self._now = now
        self._interaction = interaction

    async def owe(self, transaction: RecordTransaction, member: StaffMember, level: str) -> None:
        """Leave it in the transaction of the change."""
        line = AccessRow(
            at=int(self._now * 1000),
            practice=member.practice,
            record="",
            interaction=self._interaction,
            what=member.practitioner,
            status=200,
            client="operator",
            context="system",
            detail=urlencode({"level": level}),
            told=False,
        )
        await owe(transaction, self.key, [line], now=self._now)


def _run(work: Callable[[PortalStore], Awaitable[T]], username: str = "", practice: str = "") -> T:
    """Do something in the store; every refusal is one line and exit status 2."""

    async def refusing(store: PortalStore) -> T:
        try:
            return await work(store)
        except NotStaff:
            raise Refused(f"'{username}' is not on the staff of '{practice}'") from None
        except DuplicateAccount as error:
            raise Refused(f"there is an account '{error}' already") from None
        except (AlreadyStaff, InvalidUsername, LevelRefused, UnacceptablePassword) as error:
            raise Refused(str(error)) from None
        except FhirError as error:
            if isinstance(error, Unavailable):
                raise
            raise Refused(f"no Practitioner can be made of this name: {error}") from None

    return run_in_store(refusing)


def _asked() -> str:
    """Read a password: from whoever sits there, twice, or the first line of standard input."""
    if sys.stdin.isatty():
        password: str = typer.prompt("Password", hide_input=True, confirmation_prompt=True)
        return password
    return sys.stdin.readline().rstrip("\r\n")


async def _new_account(
    store: PortalStore, username: str, password: str, practice_key: str
) -> Account:
    """Return the account that is to be stored, its name and password judged."""
    practice = await store.get(Practice, practice_key)
    passwords = Passwords()
    try:
        return new_account(
            username=username,
            password_hash=await passwords.hash(
                password, username=username, names=[practice.name] if practice else []
            ),
            now=time.time(),
            random=secrets.token_bytes,
            role="staff",
        )
    finally:
        passwords.close()


async def _new_practitioner(store: PortalStore, practice: str, name: str) -> str:
    """Make a Practitioner with this name, through the front door; return the reference to it."""
    tree = {"resourceType": "Practitioner", "active": True, "name": [{"text": name.strip()}]}
    made = await portal_over(store).perform(
        FhirRequest("create", type="Practitioner", body=json.dumps(tree).encode()),
        replace(operator(practice), client="operator"),
    )
    return str(ResourceKey("Practitioner", parse(made.body)["id"]))


async def _require_not_on_staff(store: PortalStore, account: Account, practice: str) -> None:
    if await store.get(StaffMember, staff_key(practice, account.key)) is not None:
        raise Refused(f"'{account.username}' is on the staff of '{practice}' already")


async def _require_practitioner(store: PortalStore, practice: str, practitioner: str) -> None:
    key = local_target(practitioner)
    if key is None or key.type != "Practitioner" or str(key) != practitioner:
        raise Refused("--practitioner is written Practitioner/ID")
    found = await _practitioner(store, practice, key)
    if found is None:
        raise Refused(f"'{practice}' has no {practitioner}; give --name instead, and one is made")
    if found.get("active") is False:
        raise Refused(f"{practitioner} of '{practice}' is not active")


async def _require_level(store: PortalStore, practice: str, level: str) -> None:
    if await level_of(store, practice, level) is None:
        known = ", ".join(one.name for one in await levels_of(store, practice))
        raise Refused(f"there is no access level '{level}' in '{practice}' (there are: {known})")


async def _practitioner(store: PortalStore, practice: str, key: ResourceKey) -> Any:
    row = await store.read(key, Visibility.of_server(key.type, practice=practice))
    return None if row is None or row.deleted else parse(row.body)


async def _account(store: PortalStore, username: str) -> Account:
    account = await account_named(store, username)
    if account is None:
        raise Refused(f"there is no account '{username}'")
    return account


async def _of_staff(store: PortalStore, username: str) -> Account:
    """Return an account that staff sign in with: a patient's is not this command's business."""
    account = await _account(store, username)
    if account.role not in {"staff", "admin"} and not await staff_of_account(store, account.key):
        raise Refused(f"'{username}' is on no practice's staff")
    return account


async def _shown(store: PortalStore, member: StaffMember) -> dict[str, Any]:
    account = await store.get(Account, member.account)
    key = ResourceKey.parse(member.practitioner)
    practitioner = await _practitioner(store, member.practice, key)
    level = await level_of(store, member.practice, member.level)
    state = "active"
    if account is None or account.disabled:
        state = "account disabled"
    elif level is None:
        state = "access level unknown"
    elif member.suspended is not None:
        state = "suspended since staff helped to recover the account"
    elif await Relations(store, time.time).staff_at(account, member.practice) is None:
        state = "Practitioner inactive or deleted"
    return {
        "username": account.username if account else member.account,
        "practice": member.practice,
        "practitioner": member.practitioner,
        "name": name_of(practitioner) if practitioner else "",
        "level": level.name if level else member.level,
        "added": moment(member.added),
        "state": state,
    }
