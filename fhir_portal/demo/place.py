"""Puts the demo world where the settings say: the store, whole or not at all, and ``demo.json``.

For the embedded store the world is built in a folder of its own and moved into place at the end,
the store's file last: while that is missing, nothing is there, and what an interrupted start left
is built anew. In a MongoDB it is built in place, if nobody has used the database; what an
interrupted start left there is marked, and refused.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from fhir_portal.accounts.account import Account
from fhir_portal.accounts.practice import Practice
from fhir_portal.app import open_store
from fhir_portal.demo.people import ACCOUNTS, PASSWORD, DemoAccount
from fhir_portal.demo.world import DemoBegun, DemoStore, build_world
from fhir_portal.embedded.store import EmbeddedStore
from fhir_portal.records import DuplicateRecord
from fhir_portal.resources.store import PortalStore
from fhir_portal.settings import Settings

_BESIDE: Final = ("", "-wal", "-shm")
"""What SQLite may keep beside a file."""


class NotTheDemo(Exception):
    """The store holds something else than the demo world, which is not to be replaced."""


@dataclass(frozen=True, slots=True)
class Placed:
    """What stands in the store: its day, whether it was just built, whether demo.json is there."""

    day: str
    new: bool
    described: bool


async def place_demo(
    settings: Settings, *, reset: bool = False, clock: Callable[[], float] = time.time
) -> Placed:
    """Build the demo world if the store is new, or, with ``reset``, in place of another one.

    An existing demo world is kept as it is; its ``demo.json`` is given the address of now.

    Raises:
        NotTheDemo: the store holds anything that the demo did not put there.
        Unavailable: the store cannot be opened.
        OSError: the folder cannot be written.
    """
    settings.data.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if settings.mongodb_uri is not None:
        return await _place_in_mongodb(settings, clock, reset=reset)
    day = None
    if settings.data.exists():
        store = await open_store(settings, clock)
        try:
            day = await _day_of_existing(
                store,
                f"{settings.data} holds a store that is not the demo's; "
                "serve it with `fhir-portal serve`, or name another file by FHIR_PORTAL_DATA",
            )
        finally:
            await store.aclose()
    if day is not None and not reset:
        return _kept(settings, day)
    return Placed(await _build(settings, clock), new=True, described=True)


async def _place_in_mongodb(
    settings: Settings, clock: Callable[[], float], *, reset: bool
) -> Placed:
    if reset:
        raise NotTheDemo(
            "--reset does not empty a MongoDB; drop the database, or name another one in "
            "FHIR_PORTAL_MONGODB_URI"
        )
    store = await open_store(settings, clock)
    try:
        day = await _day_of_existing(
            store,
            "the database of FHIR_PORTAL_MONGODB_URI holds something that is not the demo's; "
            "serve it with `fhir-portal serve`, or name another database",
        )
        if day is not None:
            return _kept(settings, day)
        try:
            world = await build_world(store, clock=clock, base=f"{settings.base_url}/fhir")
        except DuplicateRecord:
            raise NotTheDemo("another process builds the demo in this database") from None
    finally:
        await store.aclose()
    _describe(settings, world.clients)
    return Placed(world.day.isoformat(), new=True, described=True)


async def _day_of_existing(store: PortalStore, other: str) -> str | None:
    """The day on which the demo in the store was built; ``None`` when nobody has used the store.

    Raises `NotTheDemo` with the words of ``other`` when the store is used for something else.
    """
    demo = await store.get(DemoStore, "demo")
    if demo is not None:
        return demo.day
    if await store.get(DemoBegun, "demo") is not None:
        raise NotTheDemo(
            "the demo was begun here and is not whole: its building was interrupted, or is under "
            "way; if it is not, drop the database and start again"
        )
    practices = await store.every(Practice, limit=1)
    accounts = await store.every(Account, limit=1)
    if practices or accounts:
        raise NotTheDemo(other)
    return None


def _kept(settings: Settings, day: str) -> Placed:
    clients = _known_clients(settings.demo_file)
    if clients is not None:
        _describe(settings, clients)
    return Placed(day, new=False, described=clients is not None)


async def _build(settings: Settings, clock: Callable[[], float]) -> str:
    data = settings.data
    site = data.parent / f".{data.name}.building"
    shutil.rmtree(site, ignore_errors=True)
    site.mkdir(mode=0o700)
    store = EmbeddedStore.open(str(site / data.name), clock=clock)
    try:
        world = await build_world(store, clock=clock, base=f"{settings.base_url}/fhir")
    finally:
        store.close()
    for file in (data, data.with_suffix(".log.db")):
        for end in _BESIDE:
            file.with_name(f"{file.name}{end}").unlink(missing_ok=True)
    _describe(settings, world.clients)
    for made in sorted(site.iterdir(), key=lambda file: file.name == data.name):
        made.replace(data.parent / made.name)
    site.rmdir()
    _sync(data.parent)
    return world.day.isoformat()


def _describe(settings: Settings, clients: Sequence[Mapping[str, Any]]) -> None:
    """Write ``demo.json``, for its owner alone: it holds passwords and keys."""
    text = json.dumps(
        {
            "base": f"{settings.base_url}/fhir",
            "accounts": [_account(account) for account in ACCOUNTS],
            "clients": clients,
            "outbox": str(settings.outbox_folder.resolve()),
        },
        indent=2,
    )
    file = settings.demo_file
    descriptor, draft = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.")  # mode 0600
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as opened:
            opened.write(f"{text}\n")
        Path(draft).replace(file)
    except BaseException:
        Path(draft).unlink(missing_ok=True)
        raise


def _account(account: DemoAccount) -> dict[str, Any]:
    return {
        "role": account.role,
        "username": account.username,
        "password": PASSWORD,
        "person": _person(account),
        "records": [
            {"patient": one.patient, "relation": one.relation, "sections": list(one.sections)}
            for one in account.records
        ],
        "note": f"{account.name}: {account.note}",
    }


def _person(account: DemoAccount) -> str:
    """The account as a FHIR resource: a Person, or of staff their Practitioner."""
    return (account.works_as or account.persons[0]).partition("/")[2]


def _known_clients(file: Path) -> list[dict[str, Any]] | None:
    """What an earlier ``demo.json`` says of the clients: their keys are written nowhere else."""
    try:
        clients: list[dict[str, Any]] = json.loads(file.read_text("utf-8"))["clients"]
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None
    return clients


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
