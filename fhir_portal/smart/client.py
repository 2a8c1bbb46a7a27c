"""Clients: the registered apps and EHRs, and what an operator does with them.

RFC 6749 §2, RFC 7591. Open registration is in ``registration.py``; backend clients, which act
without a person, are added by an operator only.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final, Literal

import msgspec

from fhir_portal.records import (
    DuplicateRecord,
    Record,
    RecordReader,
    RecordStore,
    RecordTransaction,
)
from fhir_portal.smart.client_auth.secret import new_secret, secret_hash
from fhir_portal.smart.errors import InvalidClientMetadata
from fhir_portal.smart.jwks import BadKeys, registered
from fhir_portal.smart.outbound import AddressRefused, check_address
from fhir_portal.smart.redirect import check_registrable, is_registered, origin_of
from fhir_portal.smart.revocation import RevocationListener, revoke_where
from fhir_portal.smart.scope import ScopeSet

ClientType = Literal["public", "confidential", "backend"]
AuthMethod = Literal["none", "client_secret_basic", "client_secret_post", "private_key_jwt"]

DEFAULT_SCOPE: Final = "openid fhirUser launch/patient offline_access patient/*.rs"
PERMISSIONS: Final = frozenset({"label", "grant-writing", "introspect"})
SECRET_METHODS: Final = frozenset({"client_secret_basic", "client_secret_post"})
_CLIENT_ID: Final = re.compile(r"[A-Za-z0-9._~-]{1,100}")


class DuplicateClient(Exception):
    """A client with this id exists already."""


class UnknownClient(Exception):
    """There is no client with this id."""


class Client(Record, frozen=True, kw_only=True):
    """One registered client; ``key`` is its ``client_id``.

    ``scope`` is the most it may ask for. ``practice`` is the one practice a backend client, or a
    client that introspects other clients' tokens, belongs to. ``self_registered`` clients came
    through open registration: nobody has looked at them, and one that ``awaits_review`` gets
    nothing until somebody has. ``registration_hash`` is of the token that manages the registration
    (RFC 7592). ``require_pushed_authorization_requests`` is RFC 9126 §6: what a browser brings
    itself is refused. ``dpop_bound_access_tokens`` is RFC 9449 §5.2: it never gets bearer tokens.
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

    def may_redirect_to(self, uri: str) -> bool:
        """Whether a response may be sent to ``uri``."""
        return is_registered(uri, self.redirect_uris, any_port=self.type == "public")

    @property
    def may_ask_for(self) -> ScopeSet:
        """The bound on every scope this client requests."""
        return ScopeSet.parse(self.scope)


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
            key=client_id or base64.urlsafe_b64encode(random(18)).decode(),
            name=name,
            type=type,
            auth_method=method,
            scope=scope or ("" if type == "backend" else DEFAULT_SCOPE),
            registered=now,
            secret_hash=secret_hash(secret) if secret else None,
            redirect_uris=tuple(redirect_uris),
            practice=practice,
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

    Raises `UnknownClient`.
    """

    async def change(transaction: RecordTransaction) -> int:
        client = await transaction.get(Client, client_id)
        if client is None:
            raise UnknownClient(client_id)
        await transaction.put(msgspec.structs.replace(client, disabled=True))
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
    practice: str | None = None,
    permissions: Sequence[str] | None = None,
) -> Client:
    """Let in a client that waited for review; returns it as it is now.

    A backend client is approved for one ``practice``. What it was registered with is judged
    again; approving twice changes nothing. Raises `UnknownClient` or `InvalidClientMetadata`.
    """

    async def change(transaction: RecordTransaction) -> Client:
        client = await transaction.get(Client, client_id)
        if client is None:
            raise UnknownClient(client_id)
        if practice is not None and client.practice not in (None, practice):
            raise InvalidClientMetadata("this client belongs to another practice")
        approved = msgspec.structs.replace(
            client,
            awaits_review=False,
            practice=practice or client.practice,
            permissions=client.permissions if permissions is None else tuple(permissions),
        )
        # Its addresses were judged when it was registered, by the setting of then.
        approved = checked(approved, loopback=True)
        await transaction.put(approved)
        return approved

    return await store.transact(change)


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
    if not client.name.strip() or not client.name.isprintable():
        raise InvalidClientMetadata("a client needs a name of printable characters")
    if not PERMISSIONS.issuperset(client.permissions):
        raise InvalidClientMetadata("permissions are label, grant-writing and introspect")
    for uri in client.redirect_uris:
        check_registrable(uri)
    asks = client.may_ask_for
    if client.type == "backend":
        if client.auth_method != "private_key_jwt" or client.redirect_uris:
            raise InvalidClientMetadata("a backend client has keys, and no redirect URI")
        if not client.practice and not client.awaits_review:
            raise InvalidClientMetadata("a backend client belongs to a practice")
        if asks.context != "system" or asks.identity:
            raise InvalidClientMetadata("a backend client asks for system/ scopes only")
    else:
        if not client.redirect_uris:
            raise InvalidClientMetadata("a client that people use needs a redirect URI")
        if (client.auth_method == "none") != (client.type == "public"):
            raise InvalidClientMetadata("a public client, and no other, authenticates by none")
        if asks.context == "system":
            raise InvalidClientMetadata("system/ scopes are for backend clients")
    if client.backchannel_revocation_uri is not None:
        try:
            check_address(client.backchannel_revocation_uri, loopback=loopback)
        except AddressRefused as error:
            raise InvalidClientMetadata(f"backchannel_revocation_uri: {error}") from None
    return msgspec.structs.replace(client, jwks=_checked_keys(client, loopback=loopback))


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
