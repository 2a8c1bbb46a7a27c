"""``Person/[id]/$account-enable``: a practice opens its records for an account again."""

from __future__ import annotations

from typing import Any

from fhir_portal.accounts.at_practice import enable_at
from fhir_portal.fhir.interaction import FhirResponse
from fhir_portal.operations.call import Call
from fhir_portal.operations.person import (
    account_behind,
    asked_by,
    moment,
    new_name,
    notices_of,
    reason_of,
)
from fhir_portal.resources.store import ResourceTransaction, Row


async def account_enable(call: Call) -> FhirResponse:
    """Open the practice's records again. What ended with the closing stays ended.

    What an operator shut as a whole stays shut.
    """
    reason, text = reason_of(call)
    now, practice, name = call.server.clock(), call.auth.practice, new_name(call)

    async def work(transaction: ResourceTransaction) -> tuple[Row, dict[str, Any]]:
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
        if is_news:
            tell = notices_of(call).about(
                account, "enabled-at-practice", now=now, once=name, practice=practice
            )
            await tell(transaction)
        return row, {
            "status": "disabled" if account.disabled else "enabled",
            "since": moment(opened.since) if opened is not None else None,
        }

    row, values = await call.server.store.transact(work)
    return call.answer(values, row)
