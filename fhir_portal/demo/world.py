"""Builds the demo world.

Everything that is FHIR goes through the one front door, as each practice's EHR, so that every
check and every rule applies to it.
"""

from __future__ import annotations

import asyncio
import functools
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any, ClassVar, Final

import msgspec
from joserfc.jwk import ECKey

from fhir_portal.access.context import GRANT_WRITING, LABEL, AuthContext
from fhir_portal.access.relation import works
from fhir_portal.accounts.account import Account, add_account, add_alias
from fhir_portal.accounts.contacts import add_contact, new_contact, verify_contact
from fhir_portal.accounts.credentials import Passwords
from fhir_portal.accounts.level_changes import Edit, change_levels
from fhir_portal.accounts.levels import OPERATOR
from fhir_portal.accounts.staff import add_staff
from fhir_portal.demo.codes import Json
from fhir_portal.demo.marrowbrook import marrowbrook, taken_back
from fhir_portal.demo.people import (
    ACCOUNTS,
    LEVELS,
    MARROWBROOK,
    PASSWORD,
    POLICIES,
    PRACTICES,
    DemoAccount,
)
from fhir_portal.demo.quillfern import quillfern
from fhir_portal.fhir.interaction import FhirRequest
from fhir_portal.operations.account_status import follow_statuses
from fhir_portal.portal import Portal
from fhir_portal.records import Record, RecordTransaction
from fhir_portal.resources.practice_directory import publish_contact
from fhir_portal.resources.store import PortalStore
from fhir_portal.smart.client import LAUNCH, ClientType, NewClient, add_client
from fhir_portal.smart.keys import derive
from fhir_portal.smart.scope import ScopeSet

CALLBACKS: Final = (
    "http://127.0.0.1:8765/callback",
    "http://localhost:8765/callback",
    "http://[::1]:8765/callback",
)
"""On these loopback addresses any port will do (RFC 8252 section 7.3)."""

_APP_SCOPE: Final = "openid fhirUser launch/patient offline_access patient/*.cruds"
_STAFF_SCOPE: Final = "openid fhirUser launch launch/patient offline_access user/*.rs"
_SYSTEM_SCOPE: Final = "system/*.cruds"
_PERMISSIONS: Final = (LABEL, GRANT_WRITING)
_SECONDS_OF_BUILDING: Final = 600


class DemoBegun(Record, frozen=True, kw_only=True):
    """Marks a store in which the demo world is, or was, being built."""

    kind: ClassVar[str] = "demo-begun"


class DemoStore(Record, frozen=True, kw_only=True):
    """Marks a store that holds the demo world; written when the world is whole."""

    kind: ClassVar[str] = "demo-store"

    day: str


@dataclass(frozen=True, slots=True)
class World:
    """The world that was built: its day, and its clients with what they authenticate by."""

    day: date
    accounts: tuple[DemoAccount, ...]
    clients: tuple[Mapping[str, Any], ...]


async def build_world(
    store: PortalStore,
    *,
    clock: Callable[[], float],
    base: str,
    random: Callable[[int], bytes] = secrets.token_bytes,
) -> World:
    """Fill an empty store with both practices, their people, accounts and clients.

    ``base`` is the FHIR base, by which links in what is written are recognised as our own. The
    day is the clock's, in UTC; charts of the same day are the same.
    """
    portal = Portal.over(
        store,
        store.log,
        clock=clock,
        base=base,
        aliases=(),
        derive=functools.partial(derive, random(32)),
        random=random,
    )
    day = datetime.fromtimestamp(clock(), UTC).date()
    passwords = Passwords()
    # Hashing takes its time in threads, meanwhile the charts are written.
    hashes = asyncio.gather(
        *(passwords.hash(PASSWORD, username=account.username) for account in ACCOUNTS)
    )
    try:
        await _open_practices(store, now=clock())
        for chart in (marrowbrook(day), quillfern(day)):
            await _write(portal, chart.practice, chart.resources)
            if chart.practice == MARROWBROOK.key:
                await _write(portal, chart.practice, [taken_back(chart)])
            await store.transact(
                functools.partial(publish_contact, practice=chart.practice, now=clock())
            )
        for account, password_hash in zip(ACCOUNTS, await hashes, strict=True):
            added = await add_account(
                store,
                username=account.username,
                password_hash=password_hash,
                now=clock(),
                random=random,
                persons=account.persons,
                role=account.role,
            )
            await store.transact(
                functools.partial(follow_statuses, server=portal.server, account=added)
            )
            await _give_contact(store, added, now=clock(), random=random)
            if account.works_as is not None:
                await _put_on_staff(
                    store, added.key, account.works_as, level=account.level, now=clock()
                )
    finally:
        hashes.cancel()
        passwords.close()
    clients = await _add_clients(store, now=clock(), random=random)

    async def finish(transaction: RecordTransaction) -> None:
        await transaction.insert(DemoStore(key="demo", day=day.isoformat()))

    await store.transact(finish)
    return World(day, ACCOUNTS, clients)


async def _open_practices(store: PortalStore, *, now: float) -> None:
    async def insert(transaction: RecordTransaction) -> None:
        await transaction.insert(DemoBegun(key="demo"))
        for practice in PRACTICES:
            await transaction.insert(practice)
            edits = [
                Edit(name, frozenset(permissions), seen=0)
                for name, permissions in LEVELS[practice.key].items()
            ]
            await change_levels(transaction, practice.key, edits, by=OPERATOR, now=now, works=works)
        for policy in POLICIES:
            await transaction.insert(policy)

    await store.transact(insert)


async def _give_contact(
    store: PortalStore, account: Account, *, now: float, random: Callable[[int], bytes]
) -> None:
    """Have mail for an account reach its owner, at an address that cannot exist (RFC 2606)."""
    address = f"{account.username}@people.example"
    contact = new_contact(account.key, "mail", address, now=now, random=random)

    async def put(transaction: RecordTransaction) -> None:
        await add_contact(transaction, contact)
        await verify_contact(transaction, account.key, contact.key, now=now, is_first=True)
        await add_alias(transaction, account.key, address)

    await store.transact(put)


async def _put_on_staff(
    store: PortalStore, account: str, works_as: str, *, level: str, now: float
) -> None:
    practice, _, practitioner = works_as.partition("/")

    async def put(transaction: RecordTransaction) -> None:
        await add_staff(
            transaction,
            account=account,
            practice=practice,
            practitioner=practitioner,
            now=now,
            level=level,
            by=OPERATOR,
        )

    await store.transact(put)


async def _write(portal: Portal, practice: str, resources: Sequence[Json]) -> None:
    """Write resources in one transaction, as the practice's EHR."""
    bundle = {
        "resourceType": "Bundle",
        "type": "transaction",
        "entry": [
            {
                "resource": resource,
                "request": {"method": "PUT", "url": f"{resource['resourceType']}/{resource['id']}"},
            }
            for resource in resources
        ],
    }
    ehr = AuthContext(
        client=f"{practice}-ehr",
        context="system",
        scopes=ScopeSet.parse(_SYSTEM_SCOPE),
        practice=practice,
        expires=portal.server.clock() + _SECONDS_OF_BUILDING,
        token="",
        permissions=frozenset(_PERMISSIONS),
    )
    await portal.perform(FhirRequest("bundle", body=msgspec.json.encode(bundle)), ehr)


async def _add_clients(
    store: PortalStore, *, now: float, random: Callable[[int], bytes]
) -> tuple[Mapping[str, Any], ...]:
    """Register an EHR for each practice and apps for people; describe them for demo.json."""
    found: list[Mapping[str, Any]] = []
    for practice in PRACTICES:
        key = ECKey.generate_key("P-384", {"alg": "ES384", "use": "sig"}, auto_kid=True)
        added = await add_client(
            store,
            client_id=f"{practice.key}-ehr",
            name=f"EHR of {practice.name}",
            type="backend",
            scope=_SYSTEM_SCOPE,
            practice=practice.key,
            jwks={"keys": [key.as_dict(private=False)]},
            permissions=(*_PERMISSIONS, LAUNCH),
            now=now,
            random=random,
        )
        found.append(_described(added, private_jwk=key.as_dict(private=True)))
    for client_id, name, kind, scope in _APPS:
        added = await add_client(
            store,
            client_id=client_id,
            name=name,
            type=kind,
            redirect_uris=CALLBACKS,
            scope=scope,
            approved_at=[one.key for one in PRACTICES] if scope == _STAFF_SCOPE else (),
            now=now,
            random=random,
        )
        found.append(_described(added))
    return tuple(found)


_APPS: Final[tuple[tuple[str, str, ClientType, str], ...]] = (
    ("sample-app", "Sample app", "public", _APP_SCOPE),
    ("sample-web-app", "Sample web app", "confidential", _APP_SCOPE),
    ("sample-staff-app", "Sample staff app", "public", _STAFF_SCOPE),
)


def _described(added: NewClient, private_jwk: Mapping[str, Any] | None = None) -> dict[str, Any]:
    client = added.client
    return {
        "client_id": client.key,
        **({"client_secret": added.secret} if added.secret else {}),
        **({"private_jwk": private_jwk} if private_jwk else {}),
        "type": client.type,
        "redirect_uris": list(client.redirect_uris),
        "scope": client.scope,
    }
