"""What a person's connection to an app is: seen, narrowed, and ended with a receipt.

A connection is all that one app holds of one account for one record, on however many devices. It
belongs to whoever made it; one that a proxy made belongs to the person whose record it is, too.
What staff connect is for their work: it is listed for them alone, and apart from what is their own.
With ``user/`` scopes it is for all they may use at a practice.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from typing import ClassVar, Final, Literal, Protocol

import msgspec

from fhir_portal.accounts.account import Account
from fhir_portal.accounts.proof import Write
from fhir_portal.consent.record import RecordAccess, RecordDirectory
from fhir_portal.records import Record, RecordReader, RecordStore, RecordTransaction
from fhir_portal.smart.client import Client
from fhir_portal.smart.code import AuthorizationCode
from fhir_portal.smart.issuer import Lifetimes
from fhir_portal.smart.offer import OFFLINE_ACCESS
from fhir_portal.smart.revocation import forget_codes_of_record, is_of_staff, revoke_family
from fhir_portal.smart.right import Right, ends_of, is_staffs, still
from fhir_portal.smart.scope import Scope, ScopeSet, merged
from fhir_portal.smart.token import AccessToken, TokenFamily, base64url

READING: Final = "rs"
_WRITING: Final = frozenset("cud")
_RECEIPT_BYTES: Final = 15
_ADULT_YEARS: Final = 18
_ALL: Final = 1_000_000

Held = Literal["access-token", "refresh-token", "code"]
Event = Literal["ended", "ended-by-record", "ended-by-practice", "narrowed", "made-by-proxy"]


class UnknownConnection(Exception):
    """There is no such connection, or it is no business of this person's."""


class UnknownReceipt(Exception):
    """There is no such receipt, or it is not this person's."""


class WouldWiden(Exception):
    """A change asked for more than the app has: never made."""


class NothingLeft(Exception):
    """A change would leave the app nothing to read: that is ending it."""


class NothingChanged(Exception):
    """A change that leaves everything as it is."""


class ConnectionNotices(Protocol):
    """Writes down what people are told, in the transaction of what they are told of."""

    def about(self, event: Event, *, to: str, practice: str, once: str, now: float) -> Write:
        """Return the write of one notice.

        ``to`` is ``account:<id>``, or ``record:<practice>/Patient/<id>`` for the person whose
        record that is. Of the same event and ``once`` there is one notice only.
        """
        ...


class KeyMaker(Protocol):
    """Makes keys of the server's secret: `fhir_portal.smart.keys.ServerKeys`."""

    def derive(self, purpose: str, *parts: bytes) -> bytes:
        """Return 32 bytes that only this server can compute."""
        ...


class Receipt(Record, frozen=True, kw_only=True):
    """What was ended or narrowed, when and by whom; ``key`` is printed on it.

    ``account`` did it; ``holder`` had made the connection. Both may open it. With ``by_practice``
    the practice did it, and ``account`` is whose account it was at when it did. It names the record
    and holds nothing of it. ``held`` counts what was ended, by kind. ``scope`` is what the app had,
    ``left`` what a narrowing left it, until ``until``.
    """

    kind: ClassVar[str] = "receipt"
    indexed: ClassVar[tuple[str, ...]] = ("account", "holder", "connection")

    at: float
    action: Literal["ended", "narrowed"]
    account: str
    holder: str
    connection: str
    client_id: str
    app: str
    practice: str
    patient: str
    since: float
    scope: str
    held: dict[Held, int]
    left: str = ""
    until: float | None = None
    as_staff: bool = False
    by_practice: bool = False

    @property
    def is_for_proxy(self) -> bool:
        """Whether the person whose record it is did it to a proxy's connection."""
        return self.account != self.holder


@dataclass(frozen=True, slots=True)
class Connection:
    """One connection, as one of those whom it concerns sees it.

    ``record`` is how the person who looks may use the record now, ``None`` if they may not any
    more. ``made_by`` is the way of the one who made it, ``None`` if that way is closed: the app
    gets nothing then. ``until`` is when it ends at the latest, ``unused_until`` when it ends if it
    is not used before. ``patient`` is ``""`` for all that a member of staff may use.
    """

    id: str
    client: Client
    account: str
    practice: str
    patient: str
    fhir_users: frozenset[str]
    record: RecordAccess | None
    made_by: Right | None
    is_mine: bool
    as_staff: bool
    scope: ScopeSet
    is_offline: bool
    since: float
    until: float
    unused_until: float

    @property
    def works(self) -> bool:
        """Whether the app gets anything by it now."""
        return self.made_by is not None

    @property
    def writes(self) -> bool:
        """Whether the app may add or change anything."""
        return any(_WRITING & set(scope.letters) for scope in self.scope.resource)

    @property
    def lines(self) -> dict[str, Scope]:
        """What the app may use, a line for each type and query."""
        return {line_of(scope): scope for scope in self.scope.resource}


@dataclass(frozen=True, slots=True)
class Change:
    """A narrowing: the lines to keep, reading only, an earlier end. Nothing else can be said."""

    keep: frozenset[str]
    read_only: bool = False
    until: float | None = None

    def of(self, scope: ScopeSet) -> ScopeSet:
        """What it leaves of a scope: never anything that was not in it."""
        kept = [one for one in scope.resource if line_of(one) in self.keep]
        if self.read_only:
            kept = [less for one in kept if (less := one.limited_to(READING)) is not None]
        return replace(scope, resource=tuple(kept))

    def end_of(self, until: float) -> float:
        """The earlier of the ends."""
        return until if self.until is None else min(until, self.until)


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
        families = await self._store.find(TokenFamily, "account", account.key, limit=_ALL)
        for record in records:
            if record.is_own:
                found = await self._store.find(TokenFamily, "patient", record.patient, limit=_ALL)
                families += [
                    one
                    for one in found
                    if one.practice == record.practice
                    and one.account != account.key
                    and not is_of_staff(one)
                ]
        grouped: dict[_Key, list[_Alive]] = {}
        for family in families:
            alive = await self._alive(family, now)
            if alive is not None:
                grouped.setdefault(_key_of(family), []).append(alive)
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
            ended, held = await _end(transaction, found, now=now)
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
        grouped: dict[_Key, list[TokenFamily]] = {}
        for family in await transaction.find(TokenFamily, "patient", patient, limit=_ALL):
            if family.practice == practice and family.access[1] and _is_alive(family, now):
                grouped.setdefault(_key_of(family), []).append(family)
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
        grouped: dict[_Key, list[TokenFamily]] = {}
        lists = list[TokenFamily]()
        for family in await transaction.find(TokenFamily, "account", account.key, limit=_ALL):
            if _is_alive(family, now) and family.is_list:
                lists.append(family)
            elif _is_alive(family, now):
                grouped.setdefault(_key_of(family), []).append(family)
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
        for code in await transaction.find(AuthorizationCode, "account", account.key, limit=_ALL):
            if not code.family:
                await transaction.delete(AuthorizationCode, code.key)
        return len(grouped) - len(staying)

    async def _end_group(
        self,
        transaction: RecordTransaction,
        key: _Key,
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
            scope=ScopeSet((), merged(_resource(families))),
            is_offline=False,
            since=min(one.issued for one in families),
            until=now,
            unused_until=now,
        )
        _, held = await _end(transaction, gone, now=now)
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
            families = await _families(transaction, found, now)
            had = ScopeSet((), merged(_resource(families)))
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
            held = await _narrow(transaction, found, families, change, now=now)
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
            for receipt in await self._store.find(Receipt, field, account.key, limit=_ALL)
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
        if family.is_list or not _is_alive(family, now):
            return None
        above = family
        if family.parent is not None:
            parent = await self._store.get(TokenFamily, family.parent)
            if parent is None or not _is_alive(parent, now):
                return None
            above = parent
        is_offline = OFFLINE_ACCESS in ScopeSet.parse(above.scope).identity
        ends = 0.0
        for key in {family.key, above.key}:
            for token in await self._store.find(AccessToken, "family", key, limit=_ALL):
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
        key: _Key,
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
            scope=ScopeSet((), merged(_resource(one.family for one in alive))),
            is_offline=any(one.is_offline for one in alive),
            since=min(one.family.issued for one in alive),
            until=until,
            unused_until=min(until, max(one.unused_until for one in alive)),
        )

    def _id(self, key: _Key) -> str:
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
            for receipt in await self._store.find(Receipt, "connection", connection, limit=_ALL)
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


def is_of_practice(connection: Connection, practice: str) -> bool:
    """Whether a connection is for a patient's record at a practice, and not for a staff's work."""
    return connection.practice == practice and not connection.as_staff


def made_by_proxy(
    notices: ConnectionNotices, records: Iterable[RecordAccess], *, once: str, now: float
) -> list[Write]:
    """Return the notices that a consent owes: to each adult whose record a proxy gave an app.

    They belong into the transaction that issues the code; ``once`` names that consent. Whose age
    is not known is told.
    """
    return [
        notices.about(
            "made-by-proxy",
            to=f"record:{record.practice}/{record.patient}",
            practice=record.practice,
            once=f"{once}.{number}",
            now=now,
        )
        for number, record in enumerate(records)
        if record.is_proxy and is_adult(record.birth_date, now=now)
    ]


def is_adult(birth_date: str | None, *, now: float) -> bool:
    """Whether somebody is of age, by a FHIR date (a year, a month or a day) and in UTC.

    Where the date leaves it open, they count as of age: too much is told rather than too little.
    """
    parts = (birth_date or "").split("-")
    try:
        year, month, day = (int(part) for part in (*parts, "1", "1")[:3])
        born = date(year + _ADULT_YEARS, month, 1)
    except ValueError:
        return True
    today = datetime.fromtimestamp(now, UTC).date()
    return (today.year, today.month, today.day) >= (born.year, born.month, day)


def line_of(scope: Scope) -> str:
    """What names a line: type and query, whatever may be done there."""
    return f"{scope.resource_type}?{scope.query}" if scope.query else scope.resource_type


_Key = tuple[str, str, str, str, bool]
"""Account, practice, patient or ``""``, client, and whether it is used as staff."""


def _key_of(one: TokenFamily | AuthorizationCode) -> _Key:
    """The connection that something belongs to."""
    patient = one.access[1]
    return one.account, one.practice, patient, one.client_id, is_of_staff(one)


@dataclass(frozen=True, slots=True)
class _Alive:
    """A family that is alive, and how long it can be."""

    family: TokenFamily
    is_offline: bool
    until: float
    unused_until: float


def _is_alive(family: TokenFamily, now: float) -> bool:
    ends = _earlier(family.expires, family.until)
    return family.ended is None and (ends is None or now < ends)


def _resource(families: Iterable[TokenFamily]) -> list[Scope]:
    return [one for family in families for one in ScopeSet.parse(family.scope).resource]


async def _families(reader: RecordReader, of: Connection, now: float) -> list[TokenFamily]:
    """The families of a connection that have not ended."""
    return [
        family
        for family in await reader.find(TokenFamily, "account", of.account, limit=_ALL)
        if _key_of(family) == (of.account, of.practice, of.patient, of.client.key, of.as_staff)
        and _is_alive(family, now)
    ]


async def _end(
    transaction: RecordTransaction, of: Connection, *, now: float
) -> tuple[bool, dict[Held, int]]:
    """End all that a connection holds, whatever of it is stored now.

    Returns whether there was anything, and what, counted by kind: one record's share of a consent
    for several may hold nothing of its own at a moment.
    """
    held: dict[Held, int] = {"access-token": 0, "refresh-token": 0, "code": 0}
    above: set[str] = set()
    families = await _families(transaction, of, now)
    for family in families:
        await _end_family(transaction, family, held, now=now)
        if family.parent is not None:
            above.add(family.parent)
    for key in above:
        below = await transaction.find(TokenFamily, "parent", key, limit=_ALL)
        parent = await transaction.get(TokenFamily, key)
        # The list is of use for the other records; after the last of them it is of none.
        if parent is not None and all(one.ended is not None for one in below):
            await _end_family(transaction, parent, held, now=now)
    held["code"] = await _delete_codes(transaction, of)
    return bool(families) or bool(held["code"]), held


async def _end_family(
    transaction: RecordTransaction, family: TokenFamily, held: dict[Held, int], *, now: float
) -> None:
    held["access-token"] += len(
        await transaction.find(AccessToken, "family", family.key, limit=_ALL)
    )
    ended = await revoke_family(transaction, family.key, now=now, because="by-person")
    if ended and OFFLINE_ACCESS in ScopeSet.parse(family.scope).identity:
        held["refresh-token"] += 1


async def _delete_codes(transaction: RecordTransaction, of: Connection) -> int:
    """Codes that were not exchanged yet; one that was has to be known when it is replayed."""
    deleted = 0
    for code in await transaction.find(AuthorizationCode, "account", of.account, limit=_ALL):
        keys = {_key_of(code)}
        if code.records:
            keys = {
                (code.account, r.practice, r.patient, code.client_id, False) for r in code.records
            }
        is_of = (of.account, of.practice, of.patient, of.client.key, of.as_staff) in keys
        if is_of and not code.family:
            deleted += await transaction.delete(AuthorizationCode, code.key)
    return deleted


def _earlier(one: float | None, other: float | None) -> float | None:
    ends = [end for end in (one, other) if end is not None]
    return min(ends, default=None)


async def _narrow(
    transaction: RecordTransaction,
    of: Connection,
    families: Sequence[TokenFamily],
    change: Change,
    *,
    now: float,
) -> dict[Held, int]:
    """Narrow families and the access tokens they have; count what ended on the way."""
    held: dict[Held, int] = {"access-token": 0, "refresh-token": 0, "code": 0}
    for family in families:
        left = change.of(ScopeSet.parse(family.scope))
        if not left.resource:
            await _end_family(transaction, family, held, now=now)
            continue
        left_until = _earlier(family.until, change.until)
        narrowed = msgspec.structs.replace(
            family, scope=str(left), expires=change.end_of(family.expires), until=left_until
        )
        await transaction.put(narrowed)
        for token in await transaction.find(AccessToken, "family", family.key, limit=_ALL):
            fewer = change.of(ScopeSet.parse(token.scope))
            if not fewer.resource:
                held["access-token"] += await transaction.delete(AccessToken, token.key)
                continue
            await transaction.put(
                msgspec.structs.replace(
                    token,
                    scope=str(fewer),
                    expires=change.end_of(token.expires),
                    until=_earlier(token.until, change.until),
                )
            )
    held["code"] = await _delete_codes(transaction, of)
    return held
