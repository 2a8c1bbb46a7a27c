"""``fhir-portal keys``: the keys that sign id_tokens, and their rotation with overlap."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Awaitable, Callable
from typing import Annotated, Any, TypeVar

import typer

from fhir_portal.commands.store import moment, print_found, refusal, run_in_store
from fhir_portal.resources.store import PortalStore
from fhir_portal.settings import InvalidSettings, load
from fhir_portal.smart.keys import (
    KeyInUse,
    ListedKey,
    UnknownKey,
    WrongSecret,
    list_signing_keys,
    retire_signing_key,
    rotate_signing_key,
)

keys_commands = typer.Typer(
    name="keys",
    help="The keys that sign id_tokens.",
    no_args_is_help=True,
)

T = TypeVar("T")
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@keys_commands.command("rotate")
def rotate(
    *,
    at_once: Annotated[
        bool,
        typer.Option(
            "--now", help="For a key that leaked: sign with the new one before everybody has it."
        ),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Make a new signing key. It is published now, and signs when everybody can have read it.

    The old one goes on verifying until it is retired. No server has to be started again.
    """

    async def work(store: PortalStore) -> dict[str, Any]:
        made = await rotate_signing_key(
            store, _secret(), now=time.time(), random=secrets.token_bytes, at_once=at_once
        )
        return _shown(made)

    print_found(_run(work), as_json=as_json)


@keys_commands.command("list")
def list_(*, as_json: AsJson = False) -> None:
    """List the keys, the newest first: next, signing, verifying or retired."""

    async def work(store: PortalStore) -> list[dict[str, Any]]:
        listed = await list_signing_keys(store, _secret(), now=time.time())
        return [_shown(key) for key in listed]

    keys = _run(work)
    if as_json:
        typer.echo(json.dumps(keys, indent=2))
        return
    for key in keys:
        until = f", retired {key['retired']}" if key["retired"] else ""
        typer.echo(f"{key['kid']}  {key['state']:9}  signs from {key['signs_from']}{until}")


# A kid may begin with a dash (it is base64url), and is no option then.
@keys_commands.command("retire", context_settings={"ignore_unknown_options": True})
def retire(
    kid: Annotated[str, typer.Argument(metavar="KID", show_default=False)],
    *,
    at_once: Annotated[
        bool,
        typer.Option(
            "--now", help="For a key that leaked: tokens it signed stop verifying before they end."
        ),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Stop publishing a key and forget its private half, once all it signed has ended."""

    async def work(store: PortalStore) -> dict[str, Any]:
        retired = await retire_signing_key(store, _secret(), kid, now=time.time(), at_once=at_once)
        return _shown(retired)

    print_found(_run(work), as_json=as_json)


def _run(work: Callable[[PortalStore], Awaitable[T]]) -> T:
    """Do something with the keys; every refusal is one line and exit status 2."""
    try:
        return run_in_store(work)
    except UnknownKey as error:
        message = f"there is no key '{error}'; see fhir-portal keys list"
    except (KeyInUse, WrongSecret, InvalidSettings) as error:
        message = str(error)
    except OSError as error:
        message = f"the server's key cannot be read: {error.strerror}"
    raise refusal(message)


def _secret() -> bytes:
    return load().secret_key()


def _shown(key: ListedKey) -> dict[str, Any]:
    return {
        "kid": key.kid,
        "state": key.state,
        "created": moment(key.created),
        "signs_from": moment(key.signs_from),
        "retired": None if key.retired is None else moment(key.retired),
    }
