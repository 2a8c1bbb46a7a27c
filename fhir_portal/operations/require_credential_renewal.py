"""``Person/[id]/$require-credential-renewal``: a new credential at the next sign-in.

Nobody but the owner sees or chooses one.
"""

from __future__ import annotations

from typing import Final

from fhir_portal.accounts.renewal import RenewalReason, require_renewal
from fhir_portal.fhir.errors import Invalid
from fhir_portal.fhir.interaction import FhirResponse
from fhir_portal.operations.call import Call
from fhir_portal.operations.person import (
    account_behind,
    count_sign_out_of,
    new_name,
    notices_of,
)
from fhir_portal.resources.store import ResourceTransaction, Row

REASONS: Final[tuple[RenewalReason, ...]] = ("suspected-compromise", "staff-request")


async def require_credential_renewal(call: Call) -> FhirResponse:
    """Have the owner of an account renew what they sign in with; sessions end at once."""
    given = call.arguments.one("reason")
    reason = next((one for one in REASONS if one == given), None)
    if reason is None:
        message = f"reason is one of {', '.join(REASONS)}"
        raise Invalid(message, expression="Parameters.parameter.where(name='reason')")
    now, name = call.server.clock(), new_name(call)

    async def work(transaction: ResourceTransaction) -> Row:
        row, account = await account_behind(call, transaction)
        await count_sign_out_of(call, transaction, account, now=now)
        await require_renewal(transaction, account.key, reason)
        if account.renewal != reason:
            tell = notices_of(call).about(
                account, "renewal-required", now=now, once=name, practice=call.auth.practice
            )
            await tell(transaction)
        return row

    row = await call.server.store.transact(work)
    return call.answer({"renewal": reason}, row)
