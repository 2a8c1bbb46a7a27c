"""From a bearer token to an `AuthContext`.

It holds what the token, its client, its account and the relation to the record say at this moment.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Protocol

from fhir_portal.access.context import AuthContext
from fhir_portal.access.relation import IdentityReader, Relations
from fhir_portal.accounts.account import Account
from fhir_portal.fhir.errors import Unauthenticated
from fhir_portal.smart.client import Client
from fhir_portal.smart.scope import ScopeSet
from fhir_portal.smart.token import AccessToken, authenticate

_REFUSED: Final = "the access token is not valid, has expired, or its access was ended"
_REMEMBERED: Final = 10_000


class EpochReader(IdentityReader, Protocol):
    """A store that tells when anything was committed."""

    def epoch(self) -> object:
        """Return a value that differs whenever anything was committed."""
        ...


class Callers:
    """Authenticates callers, remembering the answer for as long as nothing was committed.

    A remembered answer is used only in a request that has read the store's epoch, so a
    revocation bites on the next request at every worker.
    """

    def __init__(self, store: EpochReader, clock: Callable[[], float]) -> None:
        self._store = store
        self._clock = clock
        self._epoch: object = None
        self._known: dict[str, AuthContext] = {}
        self._current: dict[str, AuthContext] = {}
        """By the hash of the token, the contexts resolved under the epoch last seen."""

    async def of(self, bearer: str) -> AuthContext:
        """Return the caller behind a bearer token (RFC 6750).

        Raises:
            Unauthenticated: unknown, expired or revoked token; disabled account or client;
                a grant that has ended. The words are the same for all.
        """
        epoch = self._store.epoch()
        if epoch != self._epoch or len(self._known) > _REMEMBERED:
            self._known.clear()
            self._current.clear()
            self._epoch = epoch
        now = self._clock()
        known = self._known.get(bearer)
        if known is None:
            token = await authenticate(self._store, bearer, now)
            if token is None:
                raise Unauthenticated(_REFUSED)
            known = await resolve(self._store, token, self._clock)
            if self._store.epoch() != epoch:
                return await self.of(bearer)  # something was committed while this looked
            if self._epoch == epoch:
                self._known[bearer] = self._current[known.token] = known
        if now >= known.expires or _ended(known, now):
            self._known.pop(bearer, None)
            raise Unauthenticated(_REFUSED)
        return known

    async def confirm(self, auth: AuthContext) -> None:
        """Ask again outside a transaction: after a body was awaited, before each batch entry.

        Raises:
            Unauthenticated: the caller's rights have changed.
        """
        is_current = self._current.get(auth.token) is auth and self._store.epoch() == self._epoch
        if not auth.token or is_current:
            if _ended(auth, self._clock()):
                raise Unauthenticated(_REFUSED)
            return
        await self.still(self._store, auth)

    async def still(self, transaction: Any, auth: AuthContext) -> None:
        """Ask again inside a transaction whether the caller's rights stand unchanged.

        Raises:
            Unauthenticated: they do not.
        """
        if not auth.token:
            return  # an operator at the command line holds no token
        now = self._clock()
        token = await transaction.get(AccessToken, auth.token)
        if token is None or now >= token.expires or _ended(auth, now):
            raise Unauthenticated(_REFUSED)
        if await resolve(transaction, token, self._clock) != auth:
            raise Unauthenticated(_REFUSED)


async def resolve(
    reader: IdentityReader, token: AccessToken, clock: Callable[[], float]
) -> AuthContext:
    """Return the caller a token stands for, as the reader shows client, account and relation."""
    client = await reader.get(Client, token.client_id)
    if client is None or client.disabled:
        raise Unauthenticated(_REFUSED)
    record = None
    if token.context == "patient":
        account = await reader.get(Account, token.account) if token.account else None
        if account is None or account.disabled or token.patient is None:
            raise Unauthenticated(_REFUSED)
        record = await Relations(reader, clock).record_of(account, token.practice, token.patient)
        if record is None or record.access != token.access:
            raise Unauthenticated(_REFUSED)
    return AuthContext(
        client=token.client_id,
        context=token.context,
        scopes=ScopeSet.parse(token.scope),
        practice=token.practice,
        expires=token.expires,
        token=token.key,
        record=record,
        account=token.account,
        permissions=frozenset(client.permissions),
    )


def _ended(auth: AuthContext, now: float) -> bool:
    return auth.record is not None and auth.record.until is not None and now >= auth.record.until
