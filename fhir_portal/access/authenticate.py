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

_Remembered = tuple[object, AuthContext]
"""The epoch under which a context was found, and the context."""


class EpochReader(IdentityReader, Protocol):
    """A store that tells when anything was committed."""

    async def epoch(self) -> object:
        """Return a value that differs whenever anything was committed."""
        ...


class Callers:
    """Authenticates callers, remembering the answer for as long as nothing was committed.

    A remembered answer is used only in a request that has itself read the epoch which the answer
    was found under, so a revocation bites on the next request at every worker.
    """

    def __init__(self, store: EpochReader, clock: Callable[[], float]) -> None:
        self._store = store
        self._clock = clock
        self._by_bearer: dict[str, _Remembered] = {}
        self._by_token: dict[str, _Remembered] = {}
        """By the hash of the token, which is what contexts know."""

    async def of(self, bearer: str) -> AuthContext:
        """Return the caller behind a bearer token (RFC 6750).

        Raises:
            Unauthenticated: unknown, expired or revoked token; disabled account or client;
                a grant that has ended. The words are the same for all.
        """
        epoch = await self._store.epoch()
        remembered = self._by_bearer.get(bearer)
        if remembered is None:
            found = await self._look_up(bearer, epoch, None)
        elif remembered[0] == epoch:
            found = remembered[1]
        else:
            found = await self._look_up(bearer, epoch, remembered[1])
        now = self._clock()
        if now >= found.expires or _ended(found, now):
            self._by_bearer.pop(bearer, None)
            raise Unauthenticated(_REFUSED)
        return found

    async def _look_up(self, bearer: str, epoch: object, before: AuthContext | None) -> AuthContext:
        """Resolve a caller to what was true at one moment after this request came.

        Nothing was committed during the look, or the look found what the one ``before`` it had
        found: then that was true when this one began. (Where others commit all the time, waiting
        for a look that nobody disturbs would never end.)
        """
        while True:
            token = await authenticate(self._store, bearer, self._clock())
            if token is None:
                raise Unauthenticated(_REFUSED)
            found = await resolve(self._store, token, self._clock)
            began, epoch = epoch, await self._store.epoch()
            if epoch == began:
                if len(self._by_bearer) >= _REMEMBERED:
                    self._by_bearer.clear()
                    self._by_token.clear()
                self._by_bearer[bearer] = self._by_token[found.token] = (epoch, found)
                return found
            if found == before:
                return found
            before = found

    async def confirm(self, auth: AuthContext) -> None:
        """Ask again outside a transaction: after a body was awaited, before each batch entry.

        Raises:
            Unauthenticated: the caller's rights have changed.
        """
        if auth.token:
            epoch = await self._store.epoch()
            remembered = self._by_token.get(auth.token)
            if remembered is None or remembered[1] is not auth or remembered[0] != epoch:
                await self.still(self._store, auth)
                return
        if _ended(auth, self._clock()):
            raise Unauthenticated(_REFUSED)

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
