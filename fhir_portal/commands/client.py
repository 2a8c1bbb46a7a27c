"""``fhir-portal client``: the apps and EHRs that may ask for tokens."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from fhir_portal.commands.store import (
    Refused,
    known_practices,
    moment,
    print_found,
    refusal,
    run_in_store,
)
from fhir_portal.resources.store import PortalStore
from fhir_portal.settings import load
from fhir_portal.smart.client import (
    INITIATE_LOGIN,
    INTROSPECT,
    AuthMethod,
    ChangedSinceReview,
    Client,
    ClientType,
    DuplicateClient,
    UnknownClient,
    add_client,
    approve_client,
    disable_client,
    enable_client,
    fingerprint,
    new_client_secret,
    withdraw_approval,
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
_PERMISSIONS = "label, grant-writing, introspect or launch; may be repeated."


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
        list[str] | None,
        typer.Option(
            help="The practice a backend client belongs to. Of an app, a practice whose staff may "
            "use it; may be repeated, and is needed for user/ scopes."
        ),
    ] = None,
    jwks: Annotated[
        Path | None, typer.Option(help="File with its public keys as a JWK Set (or one JWK).")
    ] = None,
    jwks_uri: Annotated[
        str | None, typer.Option(help="Address at which it keeps its public keys.")
    ] = None,
    permission: Annotated[list[str] | None, typer.Option(help=_PERMISSIONS)] = None,
    require_pushed_authorization_requests: Annotated[
        bool,
        typer.Option(
            "--require-pushed-authorization-requests",
            help="Take authorization requests from it by PAR only (RFC 9126).",
        ),
    ] = False,
    dpop_bound_access_tokens: Annotated[
        bool,
        typer.Option(
            "--dpop-bound-access-tokens", help="Give it no bearer tokens, only DPoP (RFC 9449)."
        ),
    ] = False,
    backchannel_revocation_uri: Annotated[
        str | None, typer.Option(help="Where it is told that access has ended.")
    ] = None,
    initiate_login_uri: Annotated[
        str | None, typer.Option(help="Where an EHR opens it, to launch it.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Register a client. A secret is shown here and never again."""
    keys = _jwk_set(jwks) if jwks is not None else None
    named, allowed = practice or [], permission or []

    async def work(store: PortalStore) -> dict[str, Any]:
        await known_practices(store, named)
        belongs = type_ == "backend" or INTROSPECT in allowed
        if belongs and len(named) > 1:
            raise Refused("this client belongs to one practice, and to no other")
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
            practice=named[0] if belongs and named else None,
            approved_at=() if type_ == "backend" else named,
            jwks=keys,
            jwks_uri=jwks_uri,
            permissions=allowed,
            require_pushed_authorization_requests=require_pushed_authorization_requests,
            dpop_bound_access_tokens=dpop_bound_access_tokens,
            backchannel_revocation_uri=backchannel_revocation_uri,
            metadata={INITIATE_LOGIN: initiate_login_uri} if initiate_login_uri else {},
            loopback=load().apps_on_loopback,
        )
        shown = _shown(added.client)
        return shown | ({"client_secret": added.secret} if added.secret else {})

    _print(_run(work), as_json=as_json)


@client_commands.command("list")
def list_(
    *,
    waiting: Annotated[
        bool, typer.Option("--waiting", help="Only those that wait for a review.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """List the clients."""

    async def work(store: PortalStore) -> list[dict[str, Any]]:
        found: list[Client] = []
        while page := await store.every(Client, after=found[-1].key if found else ""):
            found += page
        return [_shown(client) for client in found if client.awaits_review or not waiting]

    clients = _run(work)
    if as_json:
        typer.echo(json.dumps(clients, indent=2))
        return
    width = max((len(client["client_id"]) for client in clients), default=0)
    for client in clients:
        states = [("disabled", client["disabled"]), ("waits for review", client["awaits_review"])]
        state = ", ".join(name for name, holds in states if holds)
        line = f"{client['client_id']:{width}}  {client['type']:12}  {client['client_name']}"
        typer.echo(f"{line}  ({state})" if state else line)


@client_commands.command("show")
def show(client_id: Id, *, as_json: AsJson = False) -> None:
    """Show what is registered of a client; secrets are kept as hashes and cannot be shown.

    The fingerprint is of all that the client says of itself; an approval names it.
    """

    async def work(store: PortalStore) -> dict[str, Any]:
        client = await store.get(Client, client_id)
        if client is None:
            raise UnknownClient(client_id)
        return _shown(client)

    _print(_run(work), as_json=as_json)


@client_commands.command("approve")
def approve(
    client_id: Id,
    *,
    practice: Annotated[
        list[str] | None,
        typer.Option(
            help="The practice a backend client is to belong to. Of an app, a practice whose staff "
            "may use it; may be repeated. Practices that approved it before stay."
        ),
    ] = None,
    permission: Annotated[
        list[str] | None, typer.Option(help=f"In place of those it has: {_PERMISSIONS}")
    ] = None,
    reviewed: Annotated[
        str | None,
        typer.Option(
            metavar="FINGERPRINT",
            help="That of what you looked at (client show); demanded of a client that registered "
            "itself. One that has changed since is not approved.",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Approve a client for practices, as it is registered now.

    Look at it first (client show). When it changes its registration it waits for a review again.
    """

    async def work(store: PortalStore) -> dict[str, Any]:
        await known_practices(store, practice or ())
        client = await store.get(Client, client_id)
        if client is None:
            raise UnknownClient(client_id)
        if not (client.awaits_review or practice or permission):
            raise Refused("it does not wait for a review; name a practice or a permission")
        if client.self_registered and reviewed is None:
            raise Refused(
                f"it registered itself: look at it (fhir-portal client show {client_id}) and "
                "name the fingerprint of what you saw (--reviewed)"
            )
        return _shown(
            await approve_client(
                store,
                client_id,
                practices=practice or (),
                permissions=permission or None,
                reviewed=reviewed,
            )
        )

    _print(_run(work), as_json=as_json)


@client_commands.command("withdraw")
def withdraw(
    client_id: Id,
    *,
    practice: Annotated[list[str], typer.Option(help="Whose approval ends; may be repeated.")],
    as_json: AsJson = False,
) -> None:
    """Take the approval of practices back, and end what was given by it, from the next request on.

    A backend client waits for a review again, and so does an app with user/ scopes that no practice
    approves any more. What patients allowed an app stays.
    """

    async def work(store: PortalStore) -> dict[str, Any]:
        await known_practices(store, practice)
        client, ended = await withdraw_approval(
            store, client_id, practices=practice, now=time.time()
        )
        return {**_shown(client), "ended": ended}

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
    """Let a disabled client in again; people have to connect it anew.

    The token with which it managed its registration is not good again.
    """

    async def work(store: PortalStore) -> dict[str, Any]:
        await enable_client(store, client_id)
        return {"client_id": client_id, "disabled": False}

    _print(_run(work), as_json=as_json)


def _run(work: Callable[[PortalStore], Awaitable[T]]) -> T:
    """Do something in the store; every refusal is one line and exit status 2."""
    try:
        return run_in_store(work)
    except UnknownClient as error:
        message = f"there is no client '{error}'"
    except DuplicateClient as error:
        message = f"there is a client '{error}' already"
    except ChangedSinceReview as error:
        message = (
            "it is registered otherwise than what --reviewed names; look again "
            f"(fhir-portal client show {error})"
        )
    except OAuthError as error:
        message = error.description or error.error or "this cannot be registered"
    raise refusal(message)


def _jwk_set(file: Path) -> dict[str, Any]:
    try:
        keys: Any = json.loads(file.read_text("utf-8"))
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not JSON"
        raise refusal(f"{file}: {reason}") from None
    if isinstance(keys, dict) and "kty" in keys:
        return {"keys": [keys]}
    if not isinstance(keys, dict):
        raise refusal(f"{file}: not a JWK Set (RFC 7517 section 5)")
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
        "approved_at": list(client.approved_at),
        "permissions": list(client.permissions),
        "jwks": client.jwks,
        "jwks_uri": client.jwks_uri,
        "require_pushed_authorization_requests": client.require_pushed_authorization_requests,
        "dpop_bound_access_tokens": client.dpop_bound_access_tokens,
        "backchannel_revocation_uri": client.backchannel_revocation_uri,
        "registered": moment(client.registered),
        "self_registered": client.self_registered,
        "awaits_review": client.awaits_review,
        "disabled": client.disabled,
        **client.metadata,
        "fingerprint": fingerprint(client),
    }
    return {name: value for name, value in shown.items() if value not in (None, [], {}, "")}


def _print(found: dict[str, Any], *, as_json: bool) -> None:
    print_found(found, as_json=as_json)
    if "client_secret" in found and not as_json:
        typer.echo("Keep the secret now: it is not shown again.", err=True)
