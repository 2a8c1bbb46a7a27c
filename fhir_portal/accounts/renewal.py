"""Forced renewal: at the next sign-in, after all proofs, a new credential before anything else.

On suspicion or at staff's request, never by the calendar (NIST SP 800-63B-4 §3.1.1.2).
"""

from __future__ import annotations

from typing import Final, Literal, get_args

import msgspec

from fhir_portal.accounts.account import Account, UnknownAccount
from fhir_portal.accounts.devices import forget_devices
from fhir_portal.accounts.sessions import end_sessions
from fhir_portal.records import RecordTransaction

RenewalReason = Literal["suspected-compromise", "staff-request", "assisted-recovery"]
RENEWAL_REASONS: Final[tuple[RenewalReason, ...]] = get_args(RenewalReason)


async def require_renewal(
    transaction: RecordTransaction, account: str, reason: RenewalReason
) -> Account:
    """Have an account's owner renew what they sign in with; returns the account.

    All its sessions and remembered browsers end. Raises
    `fhir_portal.accounts.account.UnknownAccount`.
    """
    found = await transaction.get(Account, account)
    if found is None:
        raise UnknownAccount(account)
    marked = msgspec.structs.replace(found, renewal=reason)
    await transaction.put(marked)
    await end_sessions(transaction, account)
    await forget_devices(transaction, account)
    return marked
