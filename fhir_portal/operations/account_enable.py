"""``Person/[id]/$account-enable``: a practice opens its records for an account again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fhir_portal.accounts.at_practice import enable_at
from fhir_portal.fhir.interaction import FhirResponse
from fhir_portal.operations.account_status import follow_status
from fhir_portal.operations.call import Call
from fhir_portal.operations.person import (
    account_behind,
    also_told,
    asked_by,
    moment,
    new_name,
    notices_of,
    patients_acted_for,
    reason_of,
)
from fhir_portal.resources.store import ResourceTransaction, Row


async def account_enable(call: Call) -> FhirResponse:
    """Open the practice's records again. What ended with the closing stays ended.

    What an operator shut as a whole stays shut.
    """
    reason, text = reason_of(call)
    now, practice, name = call.server.clock(), call.auth.practice, new_name(call)

    async def work(transaction: ResourceTransaction) -> tuple[Row, dict[str, Any], Sequence[str]]:
        row, account = await account_behind(call, transaction)
        opened, is_news = await enable_at(
            transaction,
            account,
            practice=practice,
            now=now,
            by=asked_by(call.auth),
            reason=reason,
            text=text,
        )
        await follow_status(transaction, call.server, practice, str(row.key))
        if is_news:
            tell = notices_of(call).about(
                account, "enabled-at-practice", now=now, once=name, practice=practice
            )
            await tell(transaction)
        values = {
            "status": "disabled" if account.disabled else "enabled",
            "since": moment(opened.since) if opened is not None else None,
        }
        acted_for = await patients_acted_for(call, transaction, account) if is_news else ()
        return row, values, acted_for

    row, values, acted_for = await call.server.store.transact(work)
    return also_told(call, call.answer(values, row), acted_for)
