"""``fhir-portal client``: the apps and EHRs that may ask for tokens."""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from fhir_portal.accounts.practice import Practice
from fhir_portal.commands.store import Refused, in_store
from fhir_portal.fhir.errors import Unavailable
from fhir_portal.resources.store import PortalStore
from fhir_portal.smart.client import (
    AuthMethod,
    Client,
    ClientType,
    DuplicateClient,
    UnknownClient,
    add_client,
    disable_client,
    enable_client,
    new_client_secret,
)
from fhir_portal.smart.errors import OAuthError

client_commands = typer.Typer(
    name="client",
    help="The apps and EHRs that may ask for tokens.",
    no_args_is_help=True,
)

T = TypeVar("T")
Id = Annotated[str, typer.Argument(metavar="CLIENT_ID", show_default=False)]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@client_commands.command("add")
def add(
    name: Annotated[str, typer.Argument(help="What people read on the consent page.")],
    *,
    type_: Annotated[
        ClientType,
        typer.Option(
            "--type", help="Whether it can keep a secret; 'backend' acts without a person."
        ),
    ] = "public",
    redirect_uri: Annotated[
        list[str] | None, typer.Option(help="Where the app takes its answer; may be repeated.")
    ] = None,
    scope: Annotated[str, typer.Option(help="The most it may ask for.")] = "",
    client_id: Annotated[str | None, typer.Option(help="Its id; by default a random one.")] = None,
    auth_method: Annotated[
        AuthMethod | None,
        typer.Option(help="How it authenticates; by default what suits its type."),
    ] = None,
    practice: Annotated[
        str | None, typer.Option(help="The one practice a backend client belongs to.")
    ] = None,
    jwks: Annotated[
        Path | None, typer.Option(help="File with its public keys as a JWK Set (or one JWK).")
    ] = None,
    permission: Annotated[
        list[str] | None,
        typer.Option(help="label, grant-writing or introspect; may be repeated."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Register a client. A secret is shown here and never again."""
    keys = _jwk_set(jwks) if jwks is not None else None

    async def work(store: PortalStore) -> dict[str, Any]:
        if practice is not None and await store.get(Practice, practice) is None:
            known = ", ".join(one.key for one in await store.every(Practice)) or "none"
            raise Refused(f"there is no practice '{practice}' (known: {known})")
        added = await add_client(
            store,
            name=name,
            type=type_,
            now=time.time(),
            random=secrets.token_bytes,
            client_id=client_id,
            auth_method=auth_method,
            redirect_uris=redirect_uri or (),
            scope=scope,
            practice=practice,
            jwks=keys,
            permissions=permission or (),
        )
        shown = _shown(added.client)
        return shown | ({"client_secret": added.secret} if added.secret else {})

    _print(_run(work), as_json=as_json)


@client_commands.command("list")
def list_(*, as_json: AsJson = False) -> None:
    """List the clients."""

    async def work(store: PortalStore) -> list[dict[str, Any]]:
        found: list[Client] = []
        while page := await store.every(Client, after=found[-1].key if found else ""):
            found += page
        return [_shown(client) for client in found]

    clients = _run(work)
    if as_json:
        typer.echo(json.dumps(clients, indent=2))
        return
    width = max((len(client["client_id"]) for client in clients), default=0)
    for client in clients:
        state = "  disabled" if client["disabled"] else ""
        typer.echo(
            f"{client['client_id']:{width}}  {client['type']:12}  {client['client_name']}{state}"
        )


@client_commands.command("show")
def show(client_id: Id, *, as_json: AsJson = False) -> None:
    """Show what is registered of a client; secrets are kept as hashes and cannot be shown."""

    async def work(store: PortalStore) -> dict[str, Any]:
        client = await store.get(Client, client_id)
        if client is None:
            raise UnknownClient(client_id)
        return _shown(client)

    _print(_run(work), as_json=as_json)


@client_commands.command("rotate-secret")
def rotate_secret(client_id: Id, *, as_json: AsJson = False) -> None:
    """Give a client another secret and show it once; the old one stops working now."""

    async def work(store: PortalStore) -> dict[str, Any]:
        secret = await new_client_secret(store, client_id, random=secrets.token_bytes)
        return {"client_id": client_id, "client_secret": secret}

    _print(_run(work), as_json=as_json)


@client_commands.command("disable")
def disable(client_id: Id, *, as_json: AsJson = False) -> None:
    """Shut a client out and end every access it has, from the next request on."""

    async def work(store: PortalStore) -> dict[str, Any]:
        ended = await disable_client(store, client_id, now=time.time())
        return {"client_id": client_id, "disabled": True, "ended": ended}

    _print(_run(work), as_json=as_json)


@client_commands.command("enable")
def enable(client_id: Id, *, as_json: AsJson = False) -> None:
    """Let a disabled client in again; people have to connect it anew."""

    async def work(store: PortalStore) -> dict[str, Any]:
        await enable_client(store, client_id)
        return {"client_id": client_id, "disabled": False}

    _print(_run(work), as_json=as_json)


def _run(work: Callable[[PortalStore], Awaitable[T]]) -> T:
    """Do something in the store; every refusal is one line and exit status 2."""
    try:
        return asyncio.run(in_store(work))
    except (Refused, Unavailable) as error:
        message = str(error)
    except UnknownClient as error:
        message = f"there is no client '{error}'"
    except DuplicateClient as error:
        message = f"there is a client '{error}' already"
    except OAuthError as error:
        message = error.description or error.error or "this cannot be registered"
    typer.echo(f"fhir-portal: {message}", err=True)
    raise typer.Exit(2)


def _jwk_set(file: Path) -> dict[str, Any]:
    try:
        keys: Any = json.loads(file.read_text("utf-8"))
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not JSON"
        typer.echo(f"fhir-portal: {file}: {reason}", err=True)
        raise typer.Exit(2) from None
    if isinstance(keys, dict) and "kty" in keys:
        return {"keys": [keys]}
    if not isinstance(keys, dict):
        typer.echo(f"fhir-portal: {file}: not a JWK Set (RFC 7517 section 5)", err=True)
        raise typer.Exit(2)
    return keys


def _shown(client: Client) -> dict[str, Any]:
    """What may be shown of a client, by the names of RFC 7591 where it has them."""
    shown = {
        "client_id": client.key,
        "client_name": client.name,
        "type": client.type,
        "token_endpoint_auth_method": client.auth_method,
        "redirect_uris": list(client.redirect_uris),
        "scope": client.scope,
        "practice": client.practice,
        "permissions": list(client.permissions),
        "jwks": client.jwks,
        "registered": datetime.fromtimestamp(client.registered, UTC).isoformat(timespec="seconds"),
        "self_registered": client.self_registered,
        "disabled": client.disabled,
        **client.metadata,
    }
    return {name: value for name, value in shown.items() if value not in (None, [], {}, "")}


def _print(found: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(found, indent=2))
        return
    width = max(map(len, found))
    for name, value in found.items():
        text = value if isinstance(value, str) else json.dumps(value)
        typer.echo(f"{name:{width}}  {text}")
    if "client_secret" in found:
        typer.echo("Keep the secret now: it is not shown again.", err=True)
