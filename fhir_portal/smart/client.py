"""Clients: the registered apps and EHRs, and what an operator does with them.

RFC 6749 §2, RFC 7591. Open registration is in ``registration.py``.

Who is let in: an app for patients, at once, for it sees what a patient shows it. A client with
``system/`` scopes acts without a person and one with ``user/`` scopes serves a practice's staff;
both wait until an operator approves them for that practice.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final, Literal
from urllib.parse import parse_qsl, urlsplit

import msgspec

from fhir_portal.records import (
    DuplicateRecord,
    Record,
    RecordReader,
    RecordStore,
    RecordTransaction,
)
from fhir_portal.smart.client_auth.secret import new_secret, secret_hash
from fhir_portal.smart.code import AuthorizationCode
from fhir_portal.smart.errors import InvalidClientMetadata, InvalidRedirectUri
from fhir_portal.smart.jwks import BadKeys, registered
from fhir_portal.smart.outbound import AddressRefused, check_address
from fhir_portal.smart.redirect import check_registrable, is_registered, origin_of
from fhir_portal.smart.revocation import (
    RevocationListener,
    is_of_staff,
    revoke_family,
    revoke_where,
)
from fhir_portal.smart.scope import ScopeSet
from fhir_portal.smart.token import TokenFamily

ClientType = Literal["public", "confidential", "backend"]
AuthMethod = Literal["none", "client_secret_basic", "client_secret_post", "private_key_jwt"]

DEFAULT_SCOPE: Final = "openid fhirUser launch/patient offline_access patient/*.rs"
INTROSPECT: Final = "introspect"
LAUNCH: Final = "launch"
"""The permission of an EHR to make launch contexts (``launch.py``)."""
PERMISSIONS: Final = frozenset({"label", "grant-writing", INTROSPECT, LAUNCH})
INITIATE_LOGIN: Final = "initiate_login_uri"
"""Where an EHR opens an app (OpenID Connect Dynamic Client Registration §2)."""
WITHDRAWN: Final = "approval-withdrawn"
SECRET_METHODS: Final = frozenset({"client_secret_basic", "client_secret_post"})
_ALL: Final = 1_000_000
_ID_BYTES: Final = 18
_CLIENT_ID: Final = re.compile(r"[A-Za-z0-9._~-]{1,100}")
_LEGIBLE: Final = re.compile(r"[^\W_\u115f\u1160\u3164\uffa0\U00013441\U00013442]")
"""A letter or digit; those named are letters by Unicode, and blank."""
_FINGERPRINT_DIGITS: Final = 40
"""Of SHA-256: who registers makes both versions that must not have the same (2^80 tries)."""


class DuplicateClient(Exception):
    """A client with this id exists already."""


class UnknownClient(Exception):
    """There is no client with this id."""


class ChangedSinceReview(Exception):
    """The client with this id is no longer registered as whoever approves it saw it."""


class Client(Record, frozen=True, kw_only=True):
    """One registered client; ``key`` is its ``client_id``.

    ``scope`` is the most it may ask for. ``practice`` is the one practice a backend client, or a
    client that introspects other clients' tokens, belongs to; ``approved_at`` are those whose staff
    may use an app. ``self_registered`` clients came through open registration: nobody has looked
    at them, and one that ``awaits_review`` gets nothing until somebody has. ``registration_hash``
    is of the token that manages the registration (RFC 7592).
    ``require_pushed_authorization_requests`` is RFC 9126 §6: what a browser brings itself is
    refused. ``dpop_bound_access_tokens`` is RFC 9449 §5.2: it never gets bearer tokens.
    ``backchannel_revocation_uri`` is told when access ends (``security_event.py``).
    """

    kind: ClassVar[str] = "client"
    indexed: ClassVar[tuple[str, ...]] = ("practice",)

    name: str
    type: ClientType
    auth_method: AuthMethod
    scope: str
    registered: float
    secret_hash: str | None = None
    redirect_uris: tuple[str, ...] = ()
    practice: str | None = None
    approved_at: tuple[str, ...] = ()
    jwks: dict[str, Any] | None = None
    jwks_uri: str | None = None
    permissions: tuple[str, ...] = ()
    disabled: bool = False
    self_registered: bool = False
    awaits_review: bool = False
    registration_hash: str | None = None
    require_pushed_authorization_requests: bool = False
    dpop_bound_access_tokens: bool = False
    backchannel_revocation_uri: str | None = None
    metadata: dict[str, Any] = msgspec.field(default_factory=dict)

    @property
    def is_open(self) -> bool:
        """Whether it gets and keeps anything: neither shut out nor waiting for its review."""
        return not (self.disabled or self.awaits_review)

    def serves_staff_of(self, practice: str) -> bool:
        """Whether the staff of a practice may use it now: with ``user/`` scopes, or in a launch."""
        return self.is_open and practice in self.approved_at

    def may_redirect_to(self, uri: str) -> bool:
        """Whether a response may be sent to ``uri``."""
        return is_registered(uri, self.redirect_uris, any_port=self.type == "public")

    @property
    def may_ask_for(self) -> ScopeSet:
        """The bound on every scope this client requests."""
        return ScopeSet.parse(self.scope)


def fingerprint(client: Client) -> str:
    """What a client says of itself, all that somebody who approves it looks at, as one short text.

    Not what a practice gave it, and not what is at its ``jwks_uri``.
    """
    reviewed = (
        client.name,
        client.type,
        client.auth_method,
        client.scope,
        client.redirect_uris,
        client.jwks,
        client.jwks_uri,
        client.require_pushed_authorization_requests,
        client.dpop_bound_access_tokens,
        client.backchannel_revocation_uri,
        client.metadata,
    )
    written = msgspec.json.encode(reviewed, order="deterministic")
    return hashlib.sha256(written).hexdigest()[:_FINGERPRINT_DIGITS]


class ClientOrigin(Record, frozen=True, kw_only=True):
    """A web origin that a client's redirect URIs name; CORS lets it in. ``key`` is both."""

    kind: ClassVar[str] = "client-origin"
    indexed: ClassVar[tuple[str, ...]] = ("origin", "client_id")

    origin: str
    client_id: str


@dataclass(frozen=True, slots=True)
class NewClient:
    """A client just registered, with its secret: the only time anyone sees it."""

    client: Client
    secret: str | None


async def add_client(
    store: RecordStore,
    *,
    name: str,
    type: ClientType,  # noqa: A002 - RFC 6749 §2.1 calls it client type
    now: float,
    random: Callable[[int], bytes],
    client_id: str | None = None,
    auth_method: AuthMethod | None = None,
    redirect_uris: Sequence[str] = (),
    scope: str = "",
    practice: str | None = None,
    approved_at: Sequence[str] = (),
    jwks: Mapping[str, Any] | None = None,
    jwks_uri: str | None = None,
    permissions: Sequence[str] = (),
    self_registered: bool = False,
    awaits_review: bool = False,
    registration_hash: str | None = None,
    require_pushed_authorization_requests: bool = False,
    dpop_bound_access_tokens: bool = False,
    backchannel_revocation_uri: str | None = None,
    metadata: Mapping[str, Any] | None = None,
    loopback: bool = False,
) -> NewClient:
    """Register a client.

    ``auth_method`` defaults to ``none`` for a public client, ``client_secret_basic`` for a
    confidential and ``private_key_jwt`` for a backend one; ``scope`` to reading a patient's
    record for the first two. ``loopback`` is as in `checked`. Raises `DuplicateClient`,
    `InvalidClientMetadata`, `InvalidRedirectUri` or `InvalidScope`; nothing is stored then.
    """
    method = auth_method or _default_method(type)
    secret = new_secret(random) if method in SECRET_METHODS else None
    client = checked(
        Client(
            key=client_id or random(_ID_BYTES).hex(),
            name=name,
            type=type,
            auth_method=method,
            scope=scope or ("" if type == "backend" else DEFAULT_SCOPE),
            registered=now,
            secret_hash=secret_hash(secret) if secret else None,
            redirect_uris=tuple(redirect_uris),
            practice=practice,
            approved_at=tuple(sorted(set(approved_at))),
            jwks=dict(jwks) if jwks is not None else None,
            jwks_uri=jwks_uri,
            permissions=tuple(permissions),
            self_registered=self_registered,
            awaits_review=awaits_review,
            registration_hash=registration_hash,
            require_pushed_authorization_requests=require_pushed_authorization_requests,
            dpop_bound_access_tokens=dpop_bound_access_tokens,
            backchannel_revocation_uri=backchannel_revocation_uri,
            metadata=dict(metadata or {}),
        ),
        loopback=loopback,
    )

    async def keep(transaction: RecordTransaction) -> None:
        await transaction.insert(client)
        await keep_addresses(transaction, client)

    try:
        await store.transact(keep)
    except DuplicateRecord:
        raise DuplicateClient(client.key) from None
    return NewClient(client, secret)


async def keep_addresses(transaction: RecordTransaction, client: Client) -> None:
    """Keep the addresses of a client by which it is looked up, and no others of this client.

    The web origins of its redirect URIs, which CORS lets in, and where it is told of ended access.
    """
    for kept in await transaction.find(ClientOrigin, "client_id", client.key):
        await transaction.delete(ClientOrigin, kept.key)
    for origin in {origin for uri in client.redirect_uris if (origin := origin_of(uri))}:
        await transaction.put(
            ClientOrigin(key=f"{origin} {client.key}", origin=origin, client_id=client.key)
        )
    if client.backchannel_revocation_uri is None:
        await transaction.delete(RevocationListener, client.key)
    else:
        await transaction.put(
            RevocationListener(key=client.key, uri=client.backchannel_revocation_uri)
        )


async def new_client_secret(
    store: RecordStore, client_id: str, *, random: Callable[[int], bytes]
) -> str:
    """Give a client another secret and return it; the old one stops working.

    Raises `UnknownClient`, or `InvalidClientMetadata` for a client that has no secret.
    """
    secret = new_secret(random)

    async def change(transaction: RecordTransaction) -> None:
        client = await transaction.get(Client, client_id)
        if client is None:
            raise UnknownClient(client_id)
        if client.auth_method not in SECRET_METHODS:
            raise InvalidClientMetadata("this client does not use a secret")
        await transaction.put(msgspec.structs.replace(client, secret_hash=secret_hash(secret)))

    await store.transact(change)
    return secret


async def disable_client(store: RecordStore, client_id: str, *, now: float) -> int:
    """Shut a client out and revoke all it holds; returns how many token families ended.

    Its registration access token may have leaked: let in again, it is managed by nobody. Raises
    `UnknownClient`.
    """

    async def change(transaction: RecordTransaction) -> int:
        client = await transaction.get(Client, client_id)
        if client is None:
            raise UnknownClient(client_id)
        shut_out = msgspec.structs.replace(client, disabled=True, registration_hash=None)
        await transaction.put(shut_out)
        return await revoke_where(
            transaction, "client_id", client_id, now=now, because="client-disabled"
        )

    return await store.transact(change)


async def enable_client(store: RecordStore, client_id: str) -> None:
    """Let a disabled client in again; it has to ask for new tokens. Raises `UnknownClient`."""

    async def change(transaction: RecordTransaction) -> None:
        client = await transaction.get(Client, client_id)
        if client is None:
            raise UnknownClient(client_id)
        await transaction.put(msgspec.structs.replace(client, disabled=False))
        await keep_addresses(transaction, client)

    await store.transact(change)


async def approve_client(
    store: RecordStore,
    client_id: str,
    *,
    practices: Sequence[str] = (),
    permissions: Sequence[str] | None = None,
    reviewed: str | None = None,
) -> Client:
    """Approve a client for practices; returns it as it is now.

    A backend client is approved for the one it then belongs to. An app may from now on be used by
    the staff of ``practices``, beside those it was approved for before. What it was registered
    with is judged again; approving twice changes nothing. ``reviewed`` is the `fingerprint` of
    what was looked at: a client that registered itself may have changed since. Raises
    `UnknownClient`, `ChangedSinceReview` or `InvalidClientMetadata`.
    """

    async def change(transaction: RecordTransaction) -> Client:
        client = await transaction.get(Client, client_id)
        if client is None:
            raise UnknownClient(client_id)
        if reviewed is not None and reviewed != fingerprint(client):
            raise ChangedSinceReview(client_id)
        allowed = client.permissions if permissions is None else tuple(permissions)
        practice, approved_at = client.practice, client.approved_at
        if client.type == "backend" or INTROSPECT in allowed:
            practice = _the_one(practice, practices)
        if client.type != "backend":
            approved_at = tuple(sorted({*approved_at, *practices}))
        approved = msgspec.structs.replace(
            client,
            awaits_review=False,
            practice=practice,
            approved_at=approved_at,
            permissions=allowed,
        )
        # Its addresses were judged when it was registered, by the setting of then.
        approved = checked(approved, loopback=True)
        await transaction.put(approved)
        return approved

    return await store.transact(change)


async def withdraw_approval(
    store: RecordStore, client_id: str, *, practices: Collection[str], now: float
) -> tuple[Client, int]:
    """Take the approval of practices back and end what was given by it, in one transaction.

    A backend client waits for another review; so does an app with ``user/`` scopes that no practice
    approves any more. What patients allowed an app stays. Returns the client as it is now, and how
    many token families ended. Raises `UnknownClient`, or `InvalidClientMetadata` for a client that
    is not approved at all of them.
    """

    async def change(transaction: RecordTransaction) -> tuple[Client, int]:
        client = await transaction.get(Client, client_id)
        if client is None:
            raise UnknownClient(client_id)
        held = {client.practice, *client.approved_at}
        if client.awaits_review or not practices or not held.issuperset(practices):
            raise InvalidClientMetadata("this client is not approved there")
        left = tuple(one for one in client.approved_at if one not in practices)
        after = msgspec.structs.replace(client, approved_at=left)
        if client.type == "backend":
            waits = True  # it stays this practice's: nobody else can approve it
        else:
            waits = client.may_ask_for.context == "user" and not left
            if client.practice in practices:
                kept = tuple(one for one in client.permissions if one != INTROSPECT)
                after = msgspec.structs.replace(after, practice=None, permissions=kept)
        after = msgspec.structs.replace(after, awaits_review=waits)
        await transaction.put(after)
        if waits:
            ended = await revoke_where(
                transaction, "client_id", client_id, now=now, because=WITHDRAWN
            )
        else:
            ended = await end_staff_use(
                transaction, client_id, practices=practices, now=now, because=WITHDRAWN
            )
        return after, ended

    return await store.transact(change)


async def end_staff_use(
    transaction: RecordTransaction,
    client_id: str,
    *,
    practices: Collection[str],
    now: float,
    because: str,
) -> int:
    """End what the staff of practices allowed a client; returns how many families were alive."""
    ended = 0
    for family in await transaction.find(TokenFamily, "client_id", client_id, limit=_ALL):
        if family.practice in practices and is_of_staff(family):
            ended += await revoke_family(transaction, family.key, now=now, because=because)
    for code in await transaction.find(AuthorizationCode, "client_id", client_id, limit=_ALL):
        # One that was exchanged stays: its replay must be known as one.
        if code.practice in practices and is_of_staff(code) and not code.family:
            await transaction.delete(AuthorizationCode, code.key)
    return ended


async def is_registered_origin(reader: RecordReader, origin: str) -> bool:
    """Whether some client's redirect URI is of this web origin."""
    return bool(await reader.find(ClientOrigin, "origin", origin, limit=1))


def checked(client: Client, *, loopback: bool = False) -> Client:
    """Return a client as it is kept, by the rules that hold for every way of registering.

    With ``loopback``, for development, it may keep its keys on this machine. Raises
    `InvalidClientMetadata`, `InvalidRedirectUri` or `InvalidScope` for what cannot work or must
    not be.
    """
    if not _CLIENT_ID.fullmatch(client.key):
        raise InvalidClientMetadata("a client_id has letters, digits and . _ ~ - only")
    if not client.name.isprintable() or not _LEGIBLE.search(client.name):
        raise InvalidClientMetadata("a client needs a printable name with a letter or a digit")
    if not PERMISSIONS.issuperset(client.permissions):
        raise InvalidClientMetadata(f"permissions are {', '.join(sorted(PERMISSIONS))}")
    for uri in client.redirect_uris:
        check_registrable(uri)
    if INITIATE_LOGIN in client.metadata:
        try:
            check_registrable(client.metadata[INITIATE_LOGIN])
        except InvalidRedirectUri as error:
            raise InvalidClientMetadata(f"{INITIATE_LOGIN}: {error.description}") from None
        if LAUNCH in dict(
            parse_qsl(urlsplit(client.metadata[INITIATE_LOGIN]).query, keep_blank_values=True)
        ):
            raise InvalidClientMetadata(f"{INITIATE_LOGIN} has no launch of its own")
    asks = client.may_ask_for
    if client.type == "backend":
        if client.auth_method != "private_key_jwt" or client.redirect_uris:
            raise InvalidClientMetadata("a backend client has keys, and no redirect URI")
        if not client.practice and not client.awaits_review:
            raise InvalidClientMetadata("a backend client belongs to a practice")
        if client.approved_at:
            raise InvalidClientMetadata("a backend client is approved for one practice")
        if asks.context != "system" or asks.identity:
            raise InvalidClientMetadata("a backend client asks for system/ scopes only")
    else:
        if not client.redirect_uris:
            raise InvalidClientMetadata("a client that people use needs a redirect URI")
        if (client.auth_method == "none") != (client.type == "public"):
            raise InvalidClientMetadata("a public client, and no other, authenticates by none")
        if asks.context == "system":
            raise InvalidClientMetadata("system/ scopes are for backend clients")
        if asks.context == "user" and not client.approved_at and not client.awaits_review:
            raise InvalidClientMetadata(
                "a client with user/ scopes is approved for the practices whose staff use it"
            )
        if LAUNCH in client.permissions:
            raise InvalidClientMetadata("launches are made by an EHR's backend client")
        if INTROSPECT in client.permissions and not client.practice:
            raise InvalidClientMetadata("a client that introspects belongs to a practice")
    if client.backchannel_revocation_uri is not None:
        try:
            check_address(client.backchannel_revocation_uri, loopback=loopback)
        except AddressRefused as error:
            raise InvalidClientMetadata(f"backchannel_revocation_uri: {error}") from None
    return msgspec.structs.replace(client, jwks=_checked_keys(client, loopback=loopback))


def _the_one(practice: str | None, named: Sequence[str]) -> str | None:
    """The practice a client belongs to: the one it has, or the one that is named."""
    if len(set(named)) > 1 or (practice is not None and not {practice}.issuperset(named)):
        raise InvalidClientMetadata("this client belongs to one practice, and to no other")
    return practice or next(iter(named), None)


def _checked_keys(client: Client, *, loopback: bool) -> dict[str, Any] | None:
    kept = [client.jwks is not None, client.jwks_uri is not None]
    if (client.auth_method == "private_key_jwt") != any(kept) or all(kept):
        raise InvalidClientMetadata(
            "private_key_jwt needs a JWK Set, by value or at jwks_uri, and nothing else does"
        )
    try:
        if client.jwks_uri is not None:
            check_address(client.jwks_uri, loopback=loopback)
        return None if client.jwks is None else registered(client.jwks)
    except BadKeys as error:
        raise InvalidClientMetadata(str(error)) from None
    except AddressRefused as error:
        raise InvalidClientMetadata(f"jwks_uri: {error}") from None


def _default_method(client_type: ClientType) -> AuthMethod:
    if client_type == "public":
        return "none"
    return "client_secret_basic" if client_type == "confidential" else "private_key_jwt"
