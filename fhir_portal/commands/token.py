"""``fhir-portal token``: what a token stands for, for whoever has to find out why it is refused.

A token is never an argument: arguments are in the list of processes, and in the shell's history.
"""

from __future__ import annotations

import secrets
import time
from typing import Annotated, Any, Final

import typer

from fhir_portal.access.authenticate import resolve
from fhir_portal.accounts.account import Account
from fhir_portal.accounts.practice import Practice
from fhir_portal.commands.store import moment, print_found, refusal, run_in_store
from fhir_portal.fhir.errors import Unauthenticated
from fhir_portal.resources.store import PortalStore
from fhir_portal.settings import InvalidSettings, load
from fhir_portal.smart.client import Client
from fhir_portal.smart.grants.issue import token_type
from fhir_portal.smart.issuer import Lifetimes
from fhir_portal.smart.keys import WrongSecret, load_server_keys
from fhir_portal.smart.revocation import is_of_staff
from fhir_portal.smart.token import AccessToken, RefreshToken, TokenFamily, grant_id, token_hash

token_commands = typer.Typer(
    name="token",
    help="The tokens that were issued.",
    no_args_is_help=True,
)

NOT_IN_FORCE: Final = 1
_LONGEST: Final = 4096
_UNKNOWN: Final = (
    "this is no access or refresh token that the store has: it was never issued here, was ended, "
    "or expired and was removed"
)


@token_commands.command("inspect", context_settings={"allow_extra_args": True})
def inspect(
    context: typer.Context,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Say what a token stands for, and whether it is in force or why not.

    The token is read from standard input, or asked for. It is not printed, and not used up.

    Exit status: 0 when it is in force, 1 when it is not, 2 when that cannot be found out.
    """
    if context.args:
        raise refusal(
            "a token on the command line can be read in the list of processes: send it on "
            "standard input, and end this one"
        )
    text = _token()

    async def work(store: PortalStore) -> dict[str, Any]:
        return await _inspected(store, text)

    try:
        found = run_in_store(work)
    except (InvalidSettings, WrongSecret) as error:
        raise refusal(str(error)) from None
    print_found(found, as_json=as_json)
    if not found["in_force"]:
        raise typer.Exit(NOT_IN_FORCE)


def _token() -> str:
    stream = typer.get_text_stream("stdin")
    if stream.isatty():
        text = str(typer.prompt("Token", hide_input=True))
    else:
        try:
            text = stream.read(_LONGEST + 1)
        except UnicodeDecodeError:
            text = ""
    text = text.strip()
    if not text or len(text) > _LONGEST or not text.isascii():
        raise refusal("standard input has no token")
    return text


async def _inspected(store: PortalStore, text: str) -> dict[str, Any]:
    now = time.time()
    access_token = await store.get(AccessToken, token_hash(text))
    if access_token is not None:
        return {
            "token": "access token",
            **_verdict(_over(access_token, now) or await _without_right(store, access_token)),
            **await _shown(store, access_token),
        }
    presented = RefreshToken.parse(text)
    family = None if presented is None else await store.get(TokenFamily, presented.family)
    if presented is None or family is None:
        return {"token": "unknown", **_verdict(_UNKNOWN)}
    keys = await load_server_keys(store, load().secret_key(), now=now, random=secrets.token_bytes)
    if not presented.is_genuine(keys):
        return {"token": "unknown", **_verdict(_UNKNOWN)}
    standing = _as_token(family)
    return {
        "token": "refresh token",
        **_verdict(
            _refused(family, presented.generation, now) or await _without_right(store, standing)
        ),
        **await _shown(store, standing),
        "use": presented.generation + 1,
    }


def _verdict(why_not: str) -> dict[str, Any]:
    return {"in_force": not why_not, **({"why_not": why_not} if why_not else {})}


def _over(token: AccessToken, now: float) -> str:
    ends = min(token.expires, token.expires if token.until is None else token.until)
    return f"it expired at {moment(ends)}" if now >= ends else ""


def _refused(family: TokenFamily, generation: int, now: float) -> str:
    """Why the token endpoint would not take a refresh token (``grants/refresh_token.py``)."""
    if family.ended is not None:
        return f"it was ended at {moment(family.ended)}: {family.ended_because}"
    if now >= family.expires:
        return f"it expired at {moment(family.expires)}"
    behind = family.generation - generation
    if behind == 0:
        return ""
    if behind == 1 and now - family.rotated <= Lifetimes().refresh_repeat:
        return "it was used a moment ago; only the same request, repeated, is answered again"
    return "it was used, and another took its place; to use it again ends all of them"


async def _without_right(store: PortalStore, token: AccessToken) -> str:
    """Why the API would not take a token that has not expired (``access/authenticate.py``)."""
    client = await store.get(Client, token.client_id)
    if client is None or client.disabled:
        return "its client is disabled" if client else "its client is not registered any more"
    if client.awaits_review:
        return "its client waits for a review"
    if token.context == "system":
        return ""
    account = None if token.account is None else await store.get(Account, token.account)
    if account is None or account.disabled:
        return "the account is disabled" if account else "the account is gone"
    if token.context == "patient" and token.patient is None:
        return ""  # of several records: it is exchanged for one of each
    if is_of_staff(token) and not client.serves_staff_of(token.practice):
        return "its client is not approved for the staff of this practice"
    try:
        await resolve(store, token, time.time)
    except Unauthenticated:
        return "the right it was given by has ended, or is another one now"
    return ""


def _as_token(family: TokenFamily) -> AccessToken:
    """An access token that the family would buy now."""
    return AccessToken(
        key=family.key,
        expires=family.expires,
        issued=family.issued,
        client_id=family.client_id,
        context=family.context,
        scope=family.scope,
        practice=family.practice,
        family=family.key,
        patient=family.patient or None,
        fhir_user=family.fhir_user,
        account=family.account,
        grant=family.grant,
        until=family.until,
        jkt=family.jkt,
    )


async def _shown(store: PortalStore, token: AccessToken) -> dict[str, Any]:
    """What a token stands for, by the names of RFC 7662 where it has them."""
    client = await store.get(Client, token.client_id)
    account = None if token.account is None else await store.get(Account, token.account)
    practice = await store.get(Practice, token.practice)
    shown = {
        "client_id": token.client_id,
        "client_name": client.name if client else None,
        "context": token.context,
        "scope": token.scope,
        "practice": token.practice,
        "practice_name": practice.name if practice else None,
        "username": account.username if account else None,
        "sub": token.account,
        "fhirUser": token.fhir_user,
        "patient": token.patient,
        "grant": token.grant,
        "grant_id": grant_id(token.family) if token.family else None,
        "token_type": token_type(token.jkt),
        "issued": moment(token.issued),
        "expires": moment(token.expires),
        "until": None if token.until is None else moment(token.until),
    }
    return {name: value for name, value in shown.items() if value}
