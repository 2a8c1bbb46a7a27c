"""What commands that work in the store share: opening it, saying why not, and printing."""

from __future__ import annotations

import asyncio
import functools
import json
import secrets
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, TypeVar

import typer

from fhir_portal.accounts.practice import Practice
from fhir_portal.app import open_store
from fhir_portal.fhir.errors import Unavailable
from fhir_portal.portal import Portal
from fhir_portal.records import RecordReader
from fhir_portal.resources.store import PortalStore
from fhir_portal.settings import InvalidSettings, load
from fhir_portal.smart.issuer import Issuer
from fhir_portal.smart.keys import derive

T = TypeVar("T")


class Refused(Exception):
    """The command cannot be carried out; the message says why."""


async def in_store(work: Callable[[PortalStore], Awaitable[T]]) -> T:
    """Run ``work`` with the store that the settings name.

    Raises:
        Refused: settings that cannot be used, or a store that cannot be opened.
    """
    try:
        store = await open_store(load())
    except (InvalidSettings, Unavailable) as error:
        raise Refused(str(error)) from None
    except OSError as error:
        raise Refused(f"the store cannot be opened: {error.strerror}") from None
    try:
        return await work(store)
    finally:
        await store.aclose()


def run_in_store(work: Callable[[PortalStore], Awaitable[T]]) -> T:
    """Run ``work`` with the store; a refusal is one line and exit status 2."""
    try:
        return asyncio.run(in_store(work))
    except (Refused, Unavailable) as error:
        raise refusal(str(error)) from None


def portal_over(store: PortalStore) -> Portal:
    """Put together what writes need; nothing here gives out pages, so their key is a new one."""
    settings = load()
    issuer = Issuer(settings.base_url, settings.aliases)
    return Portal.over(
        store,
        store.log,
        clock=time.time,
        base=issuer.fhir,
        aliases=tuple(f"{alias}/fhir" for alias in settings.aliases),
        derive=functools.partial(derive, secrets.token_bytes(32)),
    )


def refusal(message: str) -> typer.Exit:
    """Say why a command is not carried out, in one line; what to raise then."""
    typer.echo(f"fhir-portal: {message}", err=True)
    return typer.Exit(2)


async def known_practices(reader: RecordReader, keys: Iterable[str]) -> None:
    """Refuse a practice that is not on this deployment.

    Raises:
        Refused: with the keys of those that are.
    """
    for key in keys:
        if await reader.get(Practice, key) is None:
            known = ", ".join(one.key for one in await reader.every(Practice)) or "none"
            raise Refused(f"there is no practice '{key}' (known: {known})")


def print_found(found: Mapping[str, Any], *, as_json: bool) -> None:
    """Print names and values: a line for each, or JSON."""
    if as_json:
        typer.echo(json.dumps(found, indent=2))
        return
    width = max(map(len, found))
    for name, value in found.items():
        text = value if isinstance(value, str) else json.dumps(value)
        typer.echo(f"{name:{width}}  {text}")


def moment(seconds: float) -> str:
    """A time as operators read it: UTC, to the second."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
