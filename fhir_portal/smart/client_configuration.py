"""Management of a registration by its client (RFC 7592): read it, replace it, end it.

The registration access token is known as a hash. Replacing the registration replaces the token
too, by one compare-and-set, so that of two who hold the same token one wins and is noticed.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable
from typing import Any, Final

import msgspec

from fhir_portal.records import RecordReader, RecordStore, RecordTransaction
from fhir_portal.smart.client import (
    SECRET_METHODS,
    Client,
    checked,
    end_staff_use,
    fingerprint,
    keep_addresses,
)
from fhir_portal.smart.client_auth.secret import is_secret, new_secret, secret_hash
from fhir_portal.smart.errors import InvalidClientMetadata, InvalidRequest, InvalidToken
from fhir_portal.smart.issuer import Issuer
from fhir_portal.smart.registration import Registration, information, new_registration_token
from fhir_portal.smart.revocation import revoke_where
from fhir_portal.smart.scope import ScopeSet
from fhir_portal.smart.token import token_hash

_CHANGED: Final = "client-changed"
_NOT_SENT: Final = frozenset(
    {
        "registration_access_token",
        "registration_client_uri",
        "client_secret_expires_at",
        "client_id_issued_at",
    }
)


async def read_client(
    reader: RecordReader, client_id: str, token: str | None, *, issuer: Issuer
) -> dict[str, Any]:
    """Return the client information (RFC 7592 §2.1). Raises `InvalidToken`."""
    client, token = await _managed(reader, client_id, token)
    return information(client, issuer, token=token)


async def update_client(
    store: RecordStore,
    client_id: str,
    token: str | None,
    metadata: Any,
    *,
    issuer: Issuer,
    now: float,
    random: Callable[[int], bytes],
    loopback: bool = False,
) -> dict[str, Any]:
    """Replace a registration as a whole; return it with a new token (RFC 7592 §2.2).

    A client that needs a review and changes waits for another one, and what a practice approved is
    approved no more; but for a backend client, which has to wait, permissions go with that. What it
    held ends when it has to wait, asks for less than before, or authenticates otherwise (a change
    of type is one); what staff allowed it ends with its approval. Raises `InvalidToken`,
    `InvalidRequest`, and what registering does; nothing is changed then.
    """
    before, _ = await _managed(store, client_id, token)
    asked = Registration.of(metadata)
    _check_identity(before, metadata)
    if (asked.type == "backend") != (before.type == "backend"):
        raise InvalidClientMetadata("grant_types: register a client of the other kind anew")
    new_token = new_registration_token(random)
    secret = None
    kept_hash = before.secret_hash
    if asked.auth_method not in SECRET_METHODS:
        kept_hash = None
    elif kept_hash is None:
        secret = new_secret(random)
        kept_hash = secret_hash(secret)
    after = checked(
        msgspec.structs.replace(
            before,
            name=asked.name,
            type=asked.type,
            auth_method=asked.auth_method,
            scope=asked.scope,
            secret_hash=kept_hash,
            redirect_uris=asked.redirect_uris,
            jwks=asked.jwks,
            jwks_uri=asked.jwks_uri,
            awaits_review=True,  # decided below, over what is kept of the keys
            require_pushed_authorization_requests=asked.require_pushed_authorization_requests,
            dpop_bound_access_tokens=asked.dpop_bound_access_tokens,
            backchannel_revocation_uri=asked.backchannel_revocation_uri,
            metadata=asked.metadata,
        ),
        loopback=loopback,
    )
    changed = fingerprint(after) != fingerprint(before)
    if changed and after.type != "backend":
        after = msgspec.structs.replace(after, practice=None, permissions=())
    after = msgspec.structs.replace(
        after,
        awaits_review=asked.awaits_review and (before.awaits_review or changed),
        approved_at=() if changed else before.approved_at,
        registration_hash=token_hash(new_token),
    )

    async def change(transaction: RecordTransaction) -> None:
        if not await transaction.replace(before, after):
            raise InvalidToken("the registration was changed at this moment")
        await keep_addresses(transaction, after)
        if _ends_tokens(before, after):
            await revoke_where(transaction, "client_id", client_id, now=now, because=_CHANGED)
        elif before.approved_at != after.approved_at:
            await end_staff_use(
                transaction, client_id, practices=before.approved_at, now=now, because=_CHANGED
            )

    await store.transact(change)
    return information(after, issuer, token=new_token, secret=secret)


async def delete_client(
    store: RecordStore, client_id: str, token: str | None, *, now: float
) -> None:
    """End a registration and all it holds (RFC 7592 §2.3). Raises `InvalidToken`.

    What it was called stays, shut out, for those who read later who had access.
    """
    before, _ = await _managed(store, client_id, token)
    after = msgspec.structs.replace(
        before,
        disabled=True,
        registration_hash=None,
        secret_hash=None,
        redirect_uris=(),
        backchannel_revocation_uri=None,
    )

    async def change(transaction: RecordTransaction) -> None:
        if not await transaction.replace(before, after):
            raise InvalidToken("the registration was changed at this moment")
        await keep_addresses(transaction, after)
        await revoke_where(
            transaction, "client_id", client_id, now=now, because="client-deregistered"
        )

    await store.transact(change)


async def _managed(reader: RecordReader, client_id: str, token: str | None) -> tuple[Client, str]:
    """Return the client whose token this is; the words are the same for all others."""
    if token is None:
        raise InvalidToken(
            "send the registration access token: Authorization: Bearer ...",
            headers={"WWW-Authenticate": "Bearer"},
        )
    client = await reader.get(Client, client_id)
    expected = client.registration_hash if client is not None and not client.disabled else None
    if client is None or expected is None or not hmac.compare_digest(token_hash(token), expected):
        raise InvalidToken(
            "the registration access token is not this client's",
            headers={"WWW-Authenticate": 'Bearer error="invalid_token"'},
        )
    return client, token


def _check_identity(client: Client, metadata: dict[str, Any]) -> None:
    """RFC 7592 §2.2: it says which client it is, and sets nothing that is ours to set."""
    if not _NOT_SENT.isdisjoint(metadata):
        raise InvalidRequest(f"an update has none of {', '.join(sorted(_NOT_SENT))}")
    if metadata.get("client_id") != client.key:
        raise InvalidRequest("client_id must be that of the client")
    if "client_secret" in metadata:
        secret = metadata["client_secret"]
        known = isinstance(secret, str) and secret.isascii()
        if not (known and is_secret(secret, client.secret_hash)):
            raise InvalidRequest("client_secret must be the present one; leave it out")


def _ends_tokens(before: Client, after: Client) -> bool:
    return (
        after.awaits_review
        or before.auth_method != after.auth_method
        or not ScopeSet.parse(after.scope).covers(ScopeSet.parse(before.scope))
    )
