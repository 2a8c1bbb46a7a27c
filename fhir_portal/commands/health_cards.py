"""``fhir-portal health-cards``: the keys that sign SMART Health Cards, and revocation of cards."""

from __future__ import annotations

import functools
import json
import re
import secrets
import time
from collections.abc import Awaitable, Callable
from typing import Annotated, Any, Final, TypeVar

import typer

from fhir_portal.commands.store import (
    Refused,
    known_practices,
    moment,
    print_found,
    refusal,
    run_in_store,
)
from fhir_portal.fhir.reference import ResourceKey
from fhir_portal.resources.store import PortalStore, ResourceTransaction
from fhir_portal.settings import InvalidSettings, load
from fhir_portal.smart.health_card_keys import CardKeys, HealthCardKey, keys_of, state_of
from fhir_portal.smart.keys import UnknownKey, WrongSecret, derive, load_server_keys

health_card_commands = typer.Typer(
    name="health-cards",
    help="The keys that sign SMART Health Cards, and cards that are revoked.",
    no_args_is_help=True,
)

T = TypeVar("T")
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
OfPractice = Annotated[str, typer.Argument(metavar="PRACTICE", show_default=False)]
_ID: Final = re.compile(r"[A-Za-z0-9.-]{1,64}")


@health_card_commands.command("keys")
def keys(practice: OfPractice, *, as_json: AsJson = False) -> None:
    """List the keys of a practice, the newest first: next, signing, verifying or withdrawn."""

    async def work(store: PortalStore) -> list[dict[str, Any]]:
        await known_practices(store, [practice])
        found = await keys_of(store, practice)
        return [_shown(key, found) for key in found]

    listed = _run(work)
    if as_json:
        typer.echo(json.dumps(listed, indent=2))
        return
    for key in listed:
        typer.echo(f"{key['kid']}  {key['state']:9}  signs from {key['signs_from']}")


@health_card_commands.command("rotate")
def rotate(
    practice: OfPractice,
    *,
    at_once: Annotated[
        bool, typer.Option("--now", help="Sign with the new one before everybody has it.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Make a new key. It is published now, and signs when everybody can have read it.

    Cards that the old one signed stay good; its private half is destroyed once it signs no more.
    """

    async def work(store: PortalStore) -> dict[str, Any]:
        await known_practices(store, [practice])
        made = await (await _card_keys(store)).rotate(practice, now=time.time(), at_once=at_once)
        return _shown(made, await keys_of(store, practice))

    print_found(_run(work), as_json=as_json)


# A kid may begin with a dash (it is base64url), and is no option then.
@health_card_commands.command("withdraw", context_settings={"ignore_unknown_options": True})
def withdraw(
    practice: OfPractice,
    kid: Annotated[str, typer.Argument(metavar="KID", show_default=False)],
    *,
    as_json: AsJson = False,
) -> None:
    """For a key that leaked: stop publishing it. No card that it signed is good any more."""

    async def work(store: PortalStore) -> dict[str, Any]:
        await known_practices(store, [practice])
        ended = await (await _card_keys(store)).withdraw(practice, kid, now=time.time())
        return _shown(ended, [ended])

    print_found(_run(work), as_json=as_json)


@health_card_commands.command("revoke")
def revoke(
    practice: OfPractice,
    patient: Annotated[str, typer.Argument(metavar="PATIENT", show_default=False)],
    *,
    as_json: AsJson = False,
) -> None:
    """Revoke every card of a patient (the id of the Patient) up to now; later ones are good."""

    async def work(store: PortalStore) -> dict[str, Any]:
        await known_practices(store, [practice])
        own_id = patient.removeprefix("Patient/")
        if not _ID.fullmatch(own_id):
            raise Refused(f"'{patient}' is no id of a Patient")
        if not await _was_ever(store, practice, own_id):
            raise Refused(f"there is no patient '{own_id}' at '{practice}', nor was there one")
        count = await (await _card_keys(store)).revoke(practice, own_id, now=time.time())
        if not count:
            raise Refused(f"'{practice}' has no key that signed cards")
        return {"patient": own_id, "lists": count}

    print_found(_run(work), as_json=as_json)


def _run(work: Callable[[PortalStore], Awaitable[T]]) -> T:
    """Do something with the keys; every refusal is one line and exit status 2."""
    try:
        return run_in_store(work)
    except UnknownKey as error:
        message = f"there is no key '{error}'; see fhir-portal health-cards keys"
    except (WrongSecret, InvalidSettings) as error:
        message = str(error)
    except OSError as error:
        message = f"the server's key cannot be read: {error.strerror}"
    raise refusal(message)


async def _was_ever(store: PortalStore, practice: str, patient: str) -> bool:
    """Whether a Patient is or was here: cards of one who was deleted are revoked, too."""
    key = ResourceKey("Patient", patient)

    async def look(transaction: ResourceTransaction) -> bool:
        return bool(await transaction.facts([key], practice))

    return await store.transact(look)


async def _card_keys(store: PortalStore) -> CardKeys:
    """Raises `WrongSecret`: what it sealed the server could not open, nor know what it revoked."""
    secret = load().secret_key()
    await load_server_keys(store, secret, now=time.time(), random=secrets.token_bytes)
    return CardKeys(store, functools.partial(derive, secret), secrets.token_bytes)


def _shown(key: HealthCardKey, among: list[HealthCardKey]) -> dict[str, Any]:
    return {
        "kid": key.kid,
        "state": state_of(key, among, time.time()),
        "created": moment(key.created),
        "signs_from": moment(key.signs_from),
        "withdrawn": None if key.withdrawn is None else moment(key.withdrawn),
    }
