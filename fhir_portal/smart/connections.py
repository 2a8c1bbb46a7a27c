"""Connections of people to apps: seen, narrowed, and ended with a receipt."""

from __future__ import annotations

import base64
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Final, Literal, Protocol

import msgspec

from fhir_portal.accounts.account import Account
from fhir_portal.accounts.proof import Write
from fhir_portal.consent.record import RecordAccess, RecordDirectory
from fhir_portal.records import RecordStore, RecordTransaction
from fhir_portal.smart.client import Client
from fhir_portal.smart.code import AuthorizationCode
from fhir_portal.smart.connection import (
    Change,
    Connection,
    NothingChanged,
    NothingLeft,
    UnknownConnection,
    WouldWiden,
    is_of_practice,
    line_of,
)
from fhir_portal.smart.connection_notices import ConnectionNotices, Event
from fhir_portal.smart.connection_receipt import Held, Receipt, UnknownReceipt
from fhir_portal.smart.connection_tokens import (
    ALL,
    ConnectionKey,
    connection_key,
    end_held,
    families_of,
    is_alive,
    narrow_held,
    resource_scopes,
)
from fhir_portal.smart.issuer import Lifetimes
from fhir_portal.smart.offer import OFFLINE_ACCESS
from fhir_portal.smart.revocation import forget_codes_of_record, is_of_staff, revoke_family
from fhir_portal.smart.right import Right, ends_of, is_staffs, still
from fhir_portal.smart.scope import ScopeSet, merged
from fhir_portal.smart.token import AccessToken, TokenFamily, base64url

_RECEIPT_BYTES: Final = 15


class KeyMaker(Protocol):
    """Makes keys of the server's secret: `fhir_portal.smart.keys.ServerKeys`."""

    def derive(self, purpose: str, *parts: bytes) -> bytes:
        """Return 32 bytes that only this server can compute."""
        ...


class Connections:
    """Finds, narrows and ends connections. The clock gives seconds since 1970 UTC."""

    def __init__(
        self,
        store: RecordStore,
        *,
        directory: RecordDirectory,
        keys: KeyMaker,
        notices: ConnectionNotices,
        lifetimes: Lifetimes,
        clock: Callable[[], float],
        random: Callable[[int], bytes],
    ) -> None:
        self._store = store
        self._directory = directory
        self._keys = keys
        self._notices = notices
        self._lifetimes = lifetimes
        self._clock = clock
        self._random = random

    async def of(self, account: Account) -> list[Connection]:
        """Return a person's connections, newest first; and those of proxies to their own record."""
        now = self._clock()
        records = await self._directory.records_of(account)
        families = await self._store.find(TokenFamily, "account", account.key, limit=ALL)
        for record in records:
            if record.is_own:
                found = await self._store.find(TokenFamily, "patient", record.patient, limit=ALL)
                families += [
                    one
                    for one in found
                    if one.practice == record.practice
                    and one.account != account.key
                    and not is_of_staff(one)
                ]
        grouped: dict[ConnectionKey, list[_Alive]] = {}
        for family in families:
            alive = await self._alive(family, now)
            if alive is not None:
                grouped.setdefault(connection_key(family), []).append(alive)
        connections = [
            connection
            for key, found_alive in grouped.items()
            if (connection := await self._connection(account, records, key, found_alive))
        ]
        return sorted(connections, key=lambda one: one.since, reverse=True)

    async def get(self, account: Account, connection: str) -> Connection:
        """Return one of `of`. Raises `UnknownConnection`, whether it is another's or nobody's."""
        for one in await self.of(account):
            if one.id == connection:
                return one
        raise UnknownConnection(connection)

    async def end(
        self,
        account: Account,
        connection: str,
        *,
        practice: str | None = None,
        first: Write | None = None,
    ) -> Receipt:
        """End a connection and return the receipt; of one that was ended already, the same again.

        One transaction ends everything the app could use: access and refresh tokens, and codes that
        were not exchanged yet. With ``practice`` it is this practice that ends it, which can end
        what is for its records and no others; ``first`` is what it has to hold in the transaction
        beforehand. Raises `UnknownConnection`.
        """
        try:
            found = await self.get(account, connection)
        except UnknownConnection:
            return await self._ended_before(account, connection, practice)
        if practice is not None and not is_of_practice(found, practice):
            raise UnknownConnection(connection)
        now, key = self._clock(), self._new_key()

        async def change(transaction: RecordTransaction) -> Receipt | None:
            if first is not None:
                await first(transaction)
            ended, held = await end_held(transaction, found, now=now)
            if not ended:
                return None
            receipt = self._receipt(found, account, key, now, held=held, action="ended")
            receipt = msgspec.structs.replace(receipt, by_practice=practice is not None)
            await transaction.insert(receipt)
            for tell in self._told(receipt):
                await tell(transaction)
            return receipt

        receipt = await self._store.transact(change)
        return receipt or await self._ended_before(account, connection, practice)

    async def end_of_record(
        self, transaction: RecordTransaction, practice: str, patient: str, *, now: float
    ) -> int:
        """End every connection to a practice's ``Patient/<id>``, whoever's; return how many.

        For a record that goes. Each holder gets a receipt and is told, and nothing is moved to
        another record: nobody allowed that.
        """
        grouped: dict[ConnectionKey, list[TokenFamily]] = {}
        for family in await transaction.find(TokenFamily, "patient", patient, limit=ALL):
            if family.practice == practice and family.access[1] and is_alive(family, now):
                grouped.setdefault(connection_key(family), []).append(family)
        for key, families in grouped.items():
            await self._end_group(
                transaction, key, families, now=now, by_practice=True, because="record-gone"
            )
        await forget_codes_of_record(transaction, practice, patient)
        return len(grouped)

    async def end_all_but(
        self, transaction: RecordTransaction, account: Account, kept: Collection[str], *, now: float
    ) -> int:
        """End every connection that an account made but those of these ids; return how many.

        For its owner who came back into it: whatever was allowed by it, even in this moment, and
        is not among what they looked at and kept, ends. Each gets a receipt, and the owner is told.
        """
        grouped: dict[ConnectionKey, list[TokenFamily]] = {}
        lists = list[TokenFamily]()
        for family in await transaction.find(TokenFamily, "account", account.key, limit=ALL):
            if is_alive(family, now) and family.is_list:
                lists.append(family)
            elif is_alive(family, now):
                grouped.setdefault(connection_key(family), []).append(family)
        staying = {key for key in grouped if self._id(key) in kept}
        above = {one.parent for key in staying for one in grouped[key]}
        for key, families in grouped.items():
            if key not in staying:
                await self._end_group(
                    transaction, key, families, now=now, by_practice=False, because="recovered"
                )
        for family in lists:
            if family.key not in above:
                await revoke_family(transaction, family.key, now=now, because="recovered")
        for code in await transaction.find(AuthorizationCode, "account", account.key, limit=ALL):
            if not code.family:
                await transaction.delete(AuthorizationCode, code.key)
        return len(grouped) - len(staying)

    async def _end_group(
        self,
        transaction: RecordTransaction,
        key: ConnectionKey,
        families: Sequence[TokenFamily],
        *,
        now: float,
        by_practice: bool,
        because: str,
    ) -> None:
        """End what one app holds, with a receipt; of an app that is gone, without."""
        account, practice, patient, client_id, as_staff = key
        client = await transaction.get(Client, client_id)
        maker = await transaction.get(Account, account)
        if client is None or maker is None:
            for family in families:
                await revoke_family(transaction, family.key, now=now, because=because)
            return
        gone = Connection(
            id=self._id(key),
            client=client,
            account=account,
            practice=practice,
            patient=patient,
            fhir_users=frozenset(one.fhir_user for one in families),
            record=None,
            made_by=None,
            is_mine=True,
            as_staff=as_staff,
            scope=ScopeSet((), merged(resource_scopes(families))),
            is_offline=False,
            since=min(one.issued for one in families),
            until=now,
            unused_until=now,
        )
        _, held = await end_held(transaction, gone, now=now)
        receipt = self._receipt(gone, maker, self._new_key(), now, held=held, action="ended")
        receipt = msgspec.structs.replace(receipt, by_practice=by_practice)
        await transaction.insert(receipt)
        for tell in self._told(receipt):
            await tell(transaction)

    async def narrow(self, account: Account, connection: str, change: Change) -> Receipt:
        """Leave an app less than it has and return the receipt.

        Raises `WouldWiden`, `NothingLeft`, `NothingChanged`, or `UnknownConnection`; nothing is
        changed then.
        """
        found = await self.get(account, connection)
        now, key = self._clock(), self._new_key()

        async def work(transaction: RecordTransaction) -> Receipt:
            families = await families_of(transaction, found, now)
            had = ScopeSet((), merged(resource_scopes(families)))
            if not families:
                raise UnknownConnection(connection)
            if not found.works or not change.keep <= {line_of(one) for one in had.resource}:
                raise WouldWiden
            if change.until is not None and not now < change.until <= found.until:
                raise WouldWiden
            left = change.of(had)
            if not left.resource:
                raise NothingLeft
            if left == had and change.until is None:
                raise NothingChanged
            held = await narrow_held(transaction, found, families, change, now=now)
            receipt = self._receipt(found, account, key, now, held=held, action="narrowed")
            receipt = msgspec.structs.replace(
                receipt, left=str(left), until=change.end_of(found.until)
            )
            await transaction.insert(receipt)
            for tell in self._told(receipt):
                await tell(transaction)
            return receipt

        return await self._store.transact(work)

    async def receipts(self, account: Account) -> list[Receipt]:
        """Return the receipts a person may open, newest first."""
        found = {
            receipt.key: receipt
            for field in ("account", "holder")
            for receipt in await self._store.find(Receipt, field, account.key, limit=ALL)
        }
        return sorted(found.values(), key=lambda one: one.at, reverse=True)

    async def receipt(self, account: Account, key: str) -> Receipt:
        """Return one of `receipts`. Raises `UnknownReceipt`, whether another's or nobody's."""
        found = await self._store.get(Receipt, key)
        if found is None or account.key not in (found.account, found.holder):
            raise UnknownReceipt(key)
        return found

    async def record_of(self, account: Account, receipt: Receipt) -> RecordAccess | None:
        """Return the record a receipt is about, if the person may use it now."""
        if receipt.as_staff:
            return await self._directory.staff_record_of(account, receipt.practice, receipt.patient)
        return await self._directory.record_of(account, receipt.practice, receipt.patient)

    # --- within --------------------------------------------------------------------------------

    async def _alive(self, family: TokenFamily, now: float) -> _Alive | None:
        """A family by which an app could get at a record, now or after a refresh."""
        if family.is_list or not is_alive(family, now):
            return None
        above = family
        if family.parent is not None:
            parent = await self._store.get(TokenFamily, family.parent)
            if parent is None or not is_alive(parent, now):
                return None
            above = parent
        is_offline = OFFLINE_ACCESS in ScopeSet.parse(above.scope).identity
        ends = 0.0
        for key in {family.key, above.key}:
            for token in await self._store.find(AccessToken, "family", key, limit=ALL):
                ends = max(ends, min(token.expires, family.expires))
        if not is_offline and now >= ends:
            return None
        if not is_offline:
            return _Alive(family, is_offline=False, until=ends, unused_until=ends)
        latest = above.issued + self._lifetimes.refresh_in_all
        for end in (family.until, above.until):
            latest = latest if end is None else min(latest, end)
        return _Alive(family, is_offline=True, until=latest, unused_until=family.expires)

    async def _connection(
        self,
        viewer: Account,
        records: Sequence[RecordAccess],
        key: ConnectionKey,
        alive: Sequence[_Alive],
    ) -> Connection | None:
        made_by_key, practice, patient, client_id, as_staff = key
        client = await self._store.get(Client, client_id)
        if client is None:
            return None
        is_mine = made_by_key == viewer.key
        rights = {one.family.access for one in alive}
        made_by: Right | None = None
        maker = viewer if is_mine else await self._store.get(Account, made_by_key)
        if maker is not None and not maker.disabled:
            for access in rights:
                made_by = made_by or await still(self._directory, maker, access)
        if made_by is not None and is_staffs(made_by) and not client.serves_staff_of(practice):
            made_by = None
        until = max(one.until for one in alive)
        ends = ends_of(made_by)
        until = until if ends is None else min(until, ends)
        of_record = [one for one in records if (one.practice, one.patient) == (practice, patient)]
        if as_staff:
            of_record = [made_by] if isinstance(made_by, RecordAccess) else []
            of_record = [one for one in of_record if one.patient_name]  # its holder may view it
        return Connection(
            id=self._id(key),
            client=client,
            account=made_by_key,
            practice=practice,
            patient=patient,
            fhir_users=frozenset(one.family.fhir_user for one in alive),
            record=next(iter(of_record), None),
            made_by=made_by,
            is_mine=is_mine,
            as_staff=as_staff,
            scope=ScopeSet((), merged(resource_scopes(one.family for one in alive))),
            is_offline=any(one.is_offline for one in alive),
            since=min(one.family.issued for one in alive),
            until=until,
            unused_until=min(until, max(one.unused_until for one in alive)),
        )

    def _id(self, key: ConnectionKey) -> str:
        """A name for the connection that tells nothing and cannot be made up."""
        *parts, as_staff = key
        what = "connection-of-staff" if as_staff else "connection"
        return base64url(self._keys.derive(what, *(str(one).encode() for one in parts)))[:22]

    def _new_key(self) -> str:
        return base64.b32encode(self._random(_RECEIPT_BYTES)).decode().lower()

    async def _ended_before(
        self, account: Account, connection: str, practice: str | None
    ) -> Receipt:
        found = [
            receipt
            for receipt in await self._store.find(Receipt, "connection", connection, limit=ALL)
            if receipt.action == "ended"
            and account.key in (receipt.account, receipt.holder)
            and (practice is None or (receipt.practice == practice and not receipt.as_staff))
        ]
        if not found:
            raise UnknownConnection(connection)
        return max(found, key=lambda one: one.at)

    @staticmethod
    def _receipt(
        connection: Connection,
        account: Account,
        key: str,
        now: float,
        *,
        held: dict[Held, int],
        action: Literal["ended", "narrowed"],
    ) -> Receipt:
        return Receipt(
            key=key,
            at=now,
            action=action,
            account=account.key,
            holder=connection.account,
            connection=connection.id,
            client_id=connection.client.key,
            app=connection.client.name,
            practice=connection.practice,
            patient=connection.patient,
            since=connection.since,
            scope=str(connection.scope),
            held=held,
            as_staff=connection.as_staff,
        )

    def _told(self, receipt: Receipt) -> list[Write]:
        """Whoever did it is told, in case it was somebody else; and whoever had made it."""
        event: Event = "ended" if receipt.action == "ended" else "narrowed"
        if receipt.by_practice:
            event = "ended-by-practice"
        told = {receipt.account: event}
        if receipt.is_for_proxy:
            told[receipt.holder] = "ended-by-record" if event == "ended" else event
        return [
            self._notices.about(
                what,
                to=f"account:{account}",
                practice=receipt.practice,
                once=f"{receipt.key}.{number}",
                now=receipt.at,
            )
            for number, (account, what) in enumerate(told.items())
        ]


@dataclass(frozen=True, slots=True)
class _Alive:
    """A family that is alive, and how long it can be."""

    family: TokenFamily
    is_offline: bool
    until: float
    unused_until: float
