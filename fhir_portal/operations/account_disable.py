"""``Person/[id]/$account-disable``: a practice closes its records for an account, at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from fhir_portal.accounts.at_practice import disable_at, is_known_only_at
from fhir_portal.accounts.devices import forget_devices
from fhir_portal.accounts.sessions import end_sessions
from fhir_portal.accounts.staff import staff_of_account
from fhir_portal.fhir.interaction import FhirResponse
from fhir_portal.operations.account_status import follow_later, follow_status
from fhir_portal.operations.call import Call
from fhir_portal.operations.links import links_of
from fhir_portal.operations.person import (
    account_behind,
    also_told,
    asked_by,
    moment,
    new_name,
    notices_of,
    patients_acted_for,
    reason_of,
    until_of,
)
from fhir_portal.resources.store import ResourceTransaction, Row
from fhir_portal.smart.revocation import revoke_at_practice, revoke_where
from fhir_portal.smart.token import TokenFamily

BECAUSE: Final = "disabled-at-practice"
WARNING: Final = (
    "The person can no longer use the portal for records of this practice. Their right to see and"
    " to get copies of their record stands all the same: they have to be able to ask for it in"
    " another way, and to be told how."
)


async def account_disable(call: Call) -> FhirResponse:
    """Close the practice's records for the account of a Person, and end what it holds for them.

    The sign-in stays for other practices and for work as staff; if it leads to nothing else, its
    sessions end too. Those who act for the person are left alone unless ``include-proxies``.
    """
    reason, text = reason_of(call)
    until, now = until_of(call), call.server.clock()
    with_proxies = bool(call.arguments.one("include-proxies"))
    practice, name = call.auth.practice, new_name(call)

    async def work(transaction: ResourceTransaction) -> tuple[Row, dict[str, Any], Sequence[str]]:
        row, account = await account_behind(call, transaction)
        acted_for = await patients_acted_for(call, transaction, account)
        own = [one for one in links_of(row, proven=True) if one.startswith("Patient/")]
        closed, is_news = await disable_at(
            transaction,
            account,
            practice=practice,
            person=str(row.key),
            now=now,
            by=asked_by(call.auth),
            reason=reason,
            text=text,
            until=until,
            proxies_of=own if with_proxies else (),
        )
        await follow_status(transaction, call.server, practice, str(row.key))
        if until is not None:
            await follow_later(transaction, practice, str(row.key), at=until, now=now)
        apps = await revoke_at_practice(
            transaction, account.key, practice, now=now, because=BECAUSE
        )
        for patient in closed.proxies_of:
            apps += await _revoke_of_proxies(call, transaction, patient)
        if is_known_only_at(practice, account, await staff_of_account(transaction, account.key)):
            # How many is not told: none would say that they are known elsewhere.
            await end_sessions(transaction, account.key)
            await forget_devices(transaction, account.key)
        if is_news:
            tell = notices_of(call).about(
                account, "disabled-at-practice", now=now, once=name, practice=practice
            )
            await tell(transaction)
        values = {
            "status": "disabled",
            "since": moment(closed.since),
            "until": moment(closed.until),
            "ended-apps": apps,
            "warning": WARNING,
        }
        return row, values, acted_for

    row, values, acted_for = await call.server.store.transact(work)
    return also_told(call, call.answer(values, row), acted_for)


async def _revoke_of_proxies(call: Call, transaction: ResourceTransaction, patient: str) -> int:
    """End what those hold who act for a patient; their own records and others' stay theirs."""
    practice, now = call.auth.practice, call.server.clock()
    found = await transaction.find(TokenFamily, "patient", patient, limit=1_000_000)
    grants = {one.grant for one in found if one.practice == practice and one.grant is not None}
    ended = 0
    for grant in sorted(grants):
        ended += await revoke_where(
            transaction, "grant", grant, practice=practice, now=now, because=BECAUSE
        )
    return ended
