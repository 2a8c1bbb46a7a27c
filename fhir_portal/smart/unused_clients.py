"""Registrations that came to nothing: open registration (RFC 7591) keeps no row for ever.

A client that nobody has looked at and nobody ever used goes after `KEPT_SECONDS`. What shows a use
expires: a code after a day, the tokens of an app without ``offline_access`` after an hour. So the
sweep notes each use while it can be seen, several times a day; a client that was used once stays,
for its id may be built into an app that people open again next year.
"""

from __future__ import annotations

from typing import ClassVar, Final

from fhir_portal.records import Record, RecordReader, RecordStore, RecordTransaction
from fhir_portal.smart.client import Client, ClientOrigin
from fhir_portal.smart.code import KEPT_SECONDS as CODE_KEPT_SECONDS
from fhir_portal.smart.code import AuthorizationCode
from fhir_portal.smart.issuer import DAY
from fhir_portal.smart.revocation import RevocationListener
from fhir_portal.smart.token import AccessToken, TokenFamily

KEPT_SECONDS: Final = 30 * DAY
SWEEP_SECONDS: Final = CODE_KEPT_SECONDS / 4
"""Often enough to see every code that was ever issued."""
_PAGE: Final = 200
_SHOWS_USE: Final = (TokenFamily, AuthorizationCode, AccessToken)


class ClientUse(Record, frozen=True, kw_only=True):
    """Somebody has used or approved this client, so that it stays; ``key`` is its id."""

    kind: ClassVar[str] = "client-use"


class UnusedClients:
    """Drops them, when it is time for it: call `sweep` as often as you like.

    Call it before what has expired is dropped, so that a server that was off for a day still sees
    what was used before.
    """

    def __init__(self, store: RecordStore) -> None:
        self._store = store
        self._next = float("-inf")

    async def sweep(self, now: float) -> int:
        """Look at every client that registered itself; returns how many went."""
        if now < self._next:
            return 0
        went, after = 0, ""
        while clients := await self._store.every(Client, after=after, limit=_PAGE):
            for client in clients:
                if not client.self_registered or await self._store.get(ClientUse, client.key):
                    continue
                if _was_touched(client) or await _is_used(self._store, client.key):
                    await self._note(client.key)
                elif now >= client.registered + KEPT_SECONDS:
                    went += await self._drop(client)
            after = clients[-1].key
        self._next = now + SWEEP_SECONDS
        return went

    async def _note(self, client_id: str) -> None:
        async def note(transaction: RecordTransaction) -> None:
            if await transaction.get(Client, client_id) is not None:
                await transaction.put(ClientUse(key=client_id))

        await self._store.transact(note)

    async def _drop(self, client: Client) -> bool:
        async def drop(transaction: RecordTransaction) -> bool:
            # Looked at again: it may have been approved, changed or used at this moment.
            if await transaction.get(Client, client.key) != client:
                return False
            if await _is_used(transaction, client.key):
                return False
            await transaction.delete(Client, client.key)
            for origin in await transaction.find(ClientOrigin, "client_id", client.key):
                await transaction.delete(ClientOrigin, origin.key)
            await transaction.delete(RevocationListener, client.key)
            return True

        return await self._store.transact(drop)


def _was_touched(client: Client) -> bool:
    """Whether an operator has had a hand in it: approved it, or allowed it something."""
    return bool(client.practice or client.approved_at or client.permissions)


async def _is_used(reader: RecordReader, client_id: str) -> bool:
    for kind in _SHOWS_USE:
        if await reader.find(kind, "client_id", client_id, limit=1):
            return True
    return False
