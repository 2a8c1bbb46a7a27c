"""What becomes of an exchange: its answer, and its writes, which are made all or none.

Everything one-time is consumed by a compare-and-set in the transaction that issues what it buys.
Whoever loses it has to be judged again over what is stored then: a code is then a replayed code,
and a refresh token a repeated or reused one.
"""

from __future__ import annotations

from collections.abc import Callable

import structlog

from fhir_portal.accounts.account import Account
from fhir_portal.records import DuplicateRecord, RecordStore, RecordTransaction
from fhir_portal.smart import errors
from fhir_portal.smart.client import Client
from fhir_portal.smart.client_auth.basic import CHALLENGE
from fhir_portal.smart.client_auth.private_key_jwt import UsedAssertion, assertion_used
from fhir_portal.smart.dpop import UsedProof, used_before
from fhir_portal.smart.exchange import (
    TOKEN_PATH,
    AuthlibResponse,
    Exchange,
    FormRequest,
    Insert,
    Loaded,
    LoadedRequest,
)
from fhir_portal.smart.revocation import BY_CLIENT, revoke_family
from fhir_portal.smart.token import AccessToken

log = structlog.get_logger(__name__)


async def answer(
    exchange: Exchange,
    request: FormRequest,
    endpoint: str | None = None,
    *,
    store: RecordStore,
    clock: Callable[[], float],
) -> AuthlibResponse:
    """Have Authlib answer, at the token endpoint or at the ``endpoint`` of this name.

    Raises `errors.OAuthError`. A family that was found misused ends even though the answer is no.
    ``clock`` gives seconds since 1970 UTC.
    """
    # Hints are hints: an unknown one is ignored (RFC 7662 §2.1, RFC 7009 §2.1).
    form = {name: value for name, value in request.form.items() if name != "token_type_hint"}
    uri = exchange.setting.issuer.at(TOKEN_PATH)
    posted = LoadedRequest("POST", uri, form, request.authorization)
    try:
        answered: AuthlibResponse = (
            exchange.create_token_response(posted)
            if endpoint is None
            else exchange.create_endpoint_response(endpoint, posted)
        )
    except errors.InvalidClient as error:
        if request.authorization is not None:
            error.headers["WWW-Authenticate"] = CHALLENGE
        raise
    except errors.OAuthError:
        if exchange.ended is not None:
            await _end(store, *exchange.ended, now=clock())
        raise
    return answered


async def commit(exchange: Exchange, store: RecordStore) -> bool:
    """Make the collected writes, all or nothing; false when one found the world changed.

    Raises `errors.OAuthError` for an assertion or a DPoP proof that was used before.
    """
    if not exchange.writes and exchange.revoked is None:
        return True

    async def write(transaction: RecordTransaction) -> None:
        await _check_unchanged(transaction, exchange.loaded)
        for change in exchange.writes:
            if isinstance(change, Insert):
                await _insert(transaction, change)
            elif not await transaction.replace(change.old, change.new):
                raise _Lost
        revoked = exchange.revoked
        if isinstance(revoked, AccessToken) and not revoked.family:
            await transaction.delete(AccessToken, revoked.key)
        elif revoked is not None:
            family = revoked.family if isinstance(revoked, AccessToken) else revoked.key
            await revoke_family(transaction, family, now=exchange.now, because=BY_CLIENT)

    try:
        await store.transact(write)
    except _Lost:
        return False
    return True


async def _end(store: RecordStore, family: str, because: str, *, now: float) -> None:
    async def end(transaction: RecordTransaction) -> bool:
        return await revoke_family(transaction, family, now=now, because=because)

    if await store.transact(end):
        log.warning("token family ended", because=because)


class _Lost(Exception):
    """A compare-and-set found something else than what was loaded."""


async def _check_unchanged(transaction: RecordTransaction, loaded: Loaded) -> None:
    """Whoever was shut out after the values were loaded gets nothing any more."""
    for client in loaded.clients.values():
        if await transaction.get(Client, client.key) != client:
            raise _Lost
    account = loaded.account
    if account is not None and await transaction.get(Account, account.key) != account:
        raise _Lost


async def _insert(transaction: RecordTransaction, change: Insert) -> None:
    try:
        await transaction.insert(change.record)
    except DuplicateRecord:
        if isinstance(change.record, UsedAssertion):
            raise assertion_used() from None
        if isinstance(change.record, UsedProof):
            raise used_before() from None
        raise _Lost from None
