"""``$start-recovery``, ``$approve-recovery``, ``$cancel-recovery`` on a ``Person``: help back in.

Staff see one half each at most, and no password ever (`fhir_portal.accounts.assisted_recovery`).
They are for people: who did it is a member of staff, by name.
"""

from __future__ import annotations

from typing import Final, get_args

from fhir_portal.accounts.assisted_recovery import (
    Approved,
    AssistedRecoveries,
    AssistedRecovery,
    Basis,
    NoSuchRecovery,
    NotByThem,
    Started,
)
from fhir_portal.fhir.errors import Forbidden, Invalid, Unprocessable
from fhir_portal.fhir.interaction import FhirResponse
from fhir_portal.operations.call import Call
from fhir_portal.operations.four_eyes import is_one_human
from fhir_portal.operations.links import links_of
from fhir_portal.operations.person import account_behind, moment, notices_of
from fhir_portal.resources.store import ResourceTransaction, Row

BASES: Final[tuple[Basis, ...]] = get_args(Basis)
_NO_SUCH: Final = "there is no such recovery of this account here, or it is over"


async def start_recovery(call: Call) -> FhirResponse:
    """Start a recovery for whoever staff have made sure of; the desk code is shown this once."""
    given, by = call.arguments.one("basis"), _member(call)
    basis = next((one for one in BASES if one == given), None)
    if basis is None:
        message = f"basis is one of {', '.join(BASES)}"
        raise Invalid(message, expression="Parameters.parameter.where(name='basis')")

    async def work(transaction: ResourceTransaction) -> tuple[Row, Started]:
        row, account = await account_behind(call, transaction)
        await _require_another(call, transaction, by, account.key)
        is_proxy = any(one.startswith("RelatedPerson/") for one in links_of(row, proven=False))
        started = await _recoveries(call).start(
            transaction,
            account,
            practice=call.auth.practice,
            by=by,
            basis=basis,
            is_proxy=is_proxy,
        )
        return row, started

    try:
        row, started = await call.server.store.transact(work)
    except NotByThem:
        message = "nobody helps themselves: another member of staff has to do this"
        raise Forbidden(message) from None
    return call.answer(_told(started.recovery) | {"desk-code": started.code}, row)


async def approve_recovery(call: Call) -> FhirResponse:
    """Approve, as a second member of staff, of a recovery that another one started."""
    name, by = call.arguments.one("recovery"), _member(call)

    async def work(transaction: ResourceTransaction) -> tuple[Row, Approved]:
        row, account = await account_behind(call, transaction)
        found = await transaction.get(AssistedRecovery, name)
        if found is None or found.account != account.key:
            raise NoSuchRecovery
        await _require_another(call, transaction, by, found.by, account.key)
        approved = await _recoveries(call).approve(
            transaction, name, practice=call.auth.practice, by=by
        )
        return row, approved

    try:
        row, approved = await call.server.store.transact(work)
    except NoSuchRecovery:
        raise Unprocessable(_NO_SUCH) from None
    except NotByThem:
        message = "it takes a second member of staff, and one approval"
        raise Forbidden(message) from None
    return call.answer(_told(approved.recovery) | {"activation-word": approved.word}, row)


async def cancel_recovery(call: Call) -> FhirResponse:
    """Take a recovery back that staff of the practice started; whoever may help may."""
    name, now = call.arguments.one("recovery"), call.server.clock()
    _member(call)

    async def work(transaction: ResourceTransaction) -> Row:
        row, account = await account_behind(call, transaction)
        found = await transaction.get(AssistedRecovery, name)
        if found is None or found.account != account.key:
            raise NoSuchRecovery
        await _recoveries(call).withdraw(transaction, name, practice=call.auth.practice)
        tell = notices_of(call).about(
            account, "recovery-cancelled", now=now, once=name, practice=call.auth.practice
        )
        await tell(transaction)
        return row

    try:
        row = await call.server.store.transact(work)
    except NoSuchRecovery:
        raise Unprocessable(_NO_SUCH) from None
    return call.answer({"recovery": name, "ended": moment(now)}, row)


async def _require_another(
    call: Call, transaction: ResourceTransaction, by: str, *others: str
) -> None:
    """Refuse whoever is one of the others by another account. Raises `NotByThem`."""
    for one in others:
        if await is_one_human(transaction, call.auth.practice, by, one, now=call.server.clock()):
            raise NotByThem


def _member(call: Call) -> str:
    """The account of the member of staff who asks; the rule lets nobody else come here."""
    if call.auth.staff is None or call.auth.account is None:
        message = "this operation is for a practice's staff"
        raise Forbidden(message)
    return call.auth.account


def _recoveries(call: Call) -> AssistedRecoveries:
    return AssistedRecoveries(
        call.collaborators.derive("desk-code"),
        notices_of(call),
        call.server.clock,
        call.collaborators.random,
    )


def _told(recovery: AssistedRecovery) -> dict[str, object]:
    return {
        "recovery": recovery.key,
        "half": recovery.half,
        "needs-approval": recovery.needs_approval and recovery.approved_by is None,
        "removes-second-factor": recovery.removes_second,
        "opens": moment(recovery.opens_at),
        "until": moment(recovery.expires),
    }
