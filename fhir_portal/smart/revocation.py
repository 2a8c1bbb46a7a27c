"""Ending tokens: by a client (RFC 7009), by a person, by an operator, or because of misuse.

A family ends as a whole: its access tokens are deleted in the transaction that ends it, so the
next request with one of them is refused at every worker. So end the links by which somebody shows
the record to others (``sharing.py``). An app that asked for it is told, by a
message that the same transaction leaves in the outbox.
"""

from __future__ import annotations

from typing import ClassVar, Final, Literal

import msgspec

from fhir_portal.accounts.account import Account, UnknownAccount
from fhir_portal.accounts.at_practice import note_closed
from fhir_portal.accounts.devices import forget_devices
from fhir_portal.accounts.levels import Editor
from fhir_portal.accounts.proof import Write
from fhir_portal.accounts.sessions import end_sessions
from fhir_portal.accounts.staff import Works, take_off_staff
from fhir_portal.notify import outbox
from fhir_portal.records import Record, RecordStore, RecordTransaction
from fhir_portal.smart.code import SEVERAL, AuthorizationCode
from fhir_portal.smart.page_session import StaffSession, end_page_sessions
from fhir_portal.smart.sharing import end_shares
from fhir_portal.smart.token import AccessToken, TokenFamily, grant_id

BY_CLIENT: Final = "by-client"
ACCESS_ENDED: Final = "access-ended"
"""The template of the message to an app."""
_PAGE = 1000
_ALL = 1_000_000
_OF_A_PRACTICE = frozenset({"patient", "grant"})


class RevocationListener(Record, frozen=True, kw_only=True):
    """Where a client wants to be told that access has ended; ``key`` is its ``client_id``."""

    kind: ClassVar[str] = "revocation-listener"

    uri: str


async def revoke_family(
    transaction: RecordTransaction, family: str, *, now: float, because: str
) -> bool:
    """End one family, and those below it, inside a transaction; true if it was alive."""
    if not family:
        raise ValueError("a backend client's token has no family")
    found = await transaction.get(TokenFamily, family)
    below = await transaction.find(TokenFamily, "parent", family, limit=_ALL)
    for one in below:
        await revoke_family(transaction, one.key, now=now, because=because)
    await _delete_access_tokens(transaction, "family", family)
    await end_shares(transaction, "family", family, now=now, because=because)
    if found is None or found.ended is not None:
        return False
    await transaction.put(msgspec.structs.replace(found, ended=now, ended_because=because))
    if because != BY_CLIENT:
        # A list is of no practice itself; its message is seen at one of those in it.
        practice = found.practice or min((one.practice for one in below), default="")
        await _tell_client(transaction, found, practice, now=now, because=because)
    return True


async def _tell_client(
    transaction: RecordTransaction, family: TokenFamily, practice: str, *, now: float, because: str
) -> None:
    listener = await transaction.get(RevocationListener, family.client_id)
    if listener is None:
        return
    told = grant_id(family.key)
    await outbox.enqueue(
        transaction,
        key=f"{ACCESS_ENDED}.{told}",
        practice=practice,
        channel="webhook",
        to=listener.uri,
        template=ACCESS_ENDED,
        now=now,
        values={"client_id": family.client_id, "grant_id": told, "because": because},
    )


async def revoke_where(
    transaction: RecordTransaction,
    field: Literal["account", "client_id", "patient", "grant"],
    value: str,
    *,
    now: float,
    because: str,
    practice: str | None = None,
) -> int:
    """End every family of an account, client, record or grant; returns how many were alive.

    ``value`` is as in `TokenFamily`: a ``patient`` is ``Patient/<id>``, a ``grant``
    ``Consent/<id>``. Those two are unique in a practice only, so they need its key. Codes that
    were not exchanged yet go too, and for a client the tokens without a family.
    """
    if (practice is None) == (field in _OF_A_PRACTICE):
        raise ValueError("a practice belongs to a patient or a grant")
    ended = 0
    # All of them: families that ended stay, and must not hide live ones behind a page's end.
    families = await transaction.find(TokenFamily, field, value, limit=_ALL)
    for family in families:
        if practice is not None and family.practice != practice:
            continue
        ended += await revoke_family(transaction, family.key, now=now, because=because)
    for code in await transaction.find(AuthorizationCode, field, value, limit=_ALL):
        # A code that was exchanged stays: its replay must be known as one.
        if not code.family and (practice is None or code.practice == practice):
            await transaction.delete(AuthorizationCode, code.key)
    if field in _OF_A_PRACTICE:
        await _take_from_codes(transaction, field, value, practice)
    if field == "client_id":
        await _delete_access_tokens(transaction, "client_id", value)
    await end_shares(transaction, field, value, now=now, because=because, practice=practice)
    return ended


async def forget_codes_of_record(
    transaction: RecordTransaction, practice: str, patient: str
) -> None:
    """Delete codes for a record that were not exchanged yet; one for several loses the record."""
    for code in await transaction.find(AuthorizationCode, "patient", patient, limit=_ALL):
        if code.practice == practice and code.context == "patient" and not code.family:
            await transaction.delete(AuthorizationCode, code.key)
    await _take_from_codes(transaction, "patient", patient, practice)


async def _take_from_codes(
    transaction: RecordTransaction, field: str, value: str, practice: str | None
) -> None:
    """Take a record, or what a grant opens, out of codes for several that were not exchanged."""
    for code in await transaction.find(AuthorizationCode, "for_several", SEVERAL, limit=_ALL):
        left = tuple(
            one for one in code.records if (one.practice, getattr(one, field)) != (practice, value)
        )
        if not left:
            await transaction.delete(AuthorizationCode, code.key)
        elif left != code.records:
            await transaction.put(msgspec.structs.replace(code, records=left))


def is_of_staff(one: AccessToken | TokenFamily | AuthorizationCode) -> bool:
    """Whether somebody uses it, or would, as a member of a practice's staff."""
    return (one.fhir_user or "").startswith("Practitioner/") or (
        isinstance(one, AccessToken) and one.context == "user"
    )


async def revoke_of_staff(
    transaction: RecordTransaction, account: str, practice: str, *, now: float, because: str
) -> int:
    """End every family that an account has as staff of a practice; returns how many were alive.

    What the same person has as a patient or by a grant stays. Codes not exchanged yet go too.
    """
    ended = 0
    for family in await transaction.find(TokenFamily, "account", account, limit=_ALL):
        if family.practice == practice and is_of_staff(family):
            ended += await revoke_family(transaction, family.key, now=now, because=because)
    for code in await transaction.find(AuthorizationCode, "account", account, limit=_ALL):
        if not code.family and code.practice == practice and is_of_staff(code):
            await transaction.delete(AuthorizationCode, code.key)
    return ended


async def revoke_at_practice(
    transaction: RecordTransaction, account: str, practice: str, *, now: float, because: str
) -> int:
    """End every family that an account has for a practice's records; returns how many were alive.

    For its own and for those it uses by a grant. What it has as staff of the practice stays, and
    what it has at others. A list of several records ends with the last of those below it. Codes not
    exchanged yet go too; one for several that begins elsewhere loses the records of this practice.
    """
    ended, above = 0, set[str]()
    for family in await transaction.find(TokenFamily, "account", account, limit=_ALL):
        if family.practice == practice and not family.is_list and not is_of_staff(family):
            ended += await revoke_family(transaction, family.key, now=now, because=because)
            above |= {family.parent} if family.parent is not None else set()
    for key in above:
        below = await transaction.find(TokenFamily, "parent", key, limit=_ALL)
        if all(one.ended is not None for one in below):
            await revoke_family(transaction, key, now=now, because=because)
    for code in await transaction.find(AuthorizationCode, "account", account, limit=_ALL):
        if code.family or is_of_staff(code):
            continue  # one that was exchanged stays: its replay must be known as one
        left = tuple(one for one in code.records if one.practice != practice)
        if code.practice == practice:
            await transaction.delete(AuthorizationCode, code.key)
        elif left != code.records:
            await transaction.put(msgspec.structs.replace(code, records=left))
    await end_shares(transaction, "account", account, now=now, because=because, practice=practice)
    return ended


async def revoke_from_record(
    transaction: RecordTransaction,
    account: str,
    practice: str,
    patient: str,
    *,
    now: float,
    because: str,
) -> int:
    """End every family that an account has for one ``Patient/<id>``; returns how many were alive.

    What it has as staff stays. Codes not exchanged yet go too.
    """
    ended = 0
    for family in await transaction.find(TokenFamily, "account", account, limit=_ALL):
        if (family.practice, family.patient) == (practice, patient) and not is_of_staff(family):
            ended += await revoke_family(transaction, family.key, now=now, because=because)
    for code in await transaction.find(AuthorizationCode, "account", account, limit=_ALL):
        left = tuple(
            one for one in code.records if (one.practice, one.patient) != (practice, patient)
        )
        if code.family or is_of_staff(code):
            continue
        if (code.practice, code.patient) == (practice, patient):
            await transaction.delete(AuthorizationCode, code.key)
        elif left != code.records:
            await transaction.put(msgspec.structs.replace(code, records=left))
    await end_shares(
        transaction,
        "account",
        account,
        now=now,
        because=because,
        practice=practice,
        patient=patient,
    )
    return ended


async def remove_staff(
    store: RecordStore,
    *,
    account: str,
    practice: str,
    by: Editor,
    now: float,
    works: Works,
    even_last: bool = False,
    also: Write | None = None,
) -> int:
    """Take a person off a practice's staff and end what they hold as that, in one transaction.

    ``also`` is written with it. Returns how many token families ended. The rest is as in
    `fhir_portal.accounts.staff.take_off_staff`.
    """

    async def change(transaction: RecordTransaction) -> int:
        await take_off_staff(
            transaction,
            account=account,
            practice=practice,
            by=by,
            now=now,
            works=works,
            even_last=even_last,
        )
        await end_page_sessions(transaction, StaffSession, account, practice=practice)
        if also is not None:
            await also(transaction)
        return await revoke_of_staff(
            transaction, account, practice, now=now, because="staff-removed"
        )

    return await store.transact(change)


async def disable_account(
    store: RecordStore,
    account_id: str,
    *,
    now: float,
    first: Write | None = None,
    last: Write | None = None,
) -> int:
    """Shut a person out everywhere at once, in one transaction, for the operator.

    Account, sessions, remembered browsers and tokens. ``first`` may refuse it in the transaction
    (`fhir_portal.accounts.staff.require_administrators_without`), ``last`` follows it there.

    Returns how many token families ended. Raises `UnknownAccount`.
    """

    async def change(transaction: RecordTransaction) -> int:
        account = await transaction.get(Account, account_id)
        if account is None:
            raise UnknownAccount(account_id)
        if first is not None:
            await first(transaction)
        await transaction.put(msgspec.structs.replace(account, disabled=True))
        await note_closed(transaction, account)
        await end_sessions(transaction, account_id)
        await end_page_sessions(transaction, StaffSession, account_id)
        await forget_devices(transaction, account_id)
        ended = await revoke_where(
            transaction, "account", account_id, now=now, because="account-disabled"
        )
        if last is not None:
            await last(transaction)
        return ended

    return await store.transact(change)


async def _delete_access_tokens(
    transaction: RecordTransaction, field: Literal["family", "client_id"], value: str
) -> None:
    while tokens := await transaction.find(AccessToken, field, value, limit=_PAGE):
        for token in tokens:
            await transaction.delete(AccessToken, token.key)
