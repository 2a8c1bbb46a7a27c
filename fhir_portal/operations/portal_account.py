"""``Person/[id]/$portal-account``: how the account behind a Person stands; never a secret."""

from __future__ import annotations

from fhir_portal.accounts.account import account_of_person
from fhir_portal.accounts.contacts import contacts_of
from fhir_portal.accounts.passkeys import Passkey
from fhir_portal.accounts.recovery_codes import RecoveryCodes
from fhir_portal.accounts.sessions import Session
from fhir_portal.accounts.totp import Totp
from fhir_portal.fhir.datetime import instant
from fhir_portal.fhir.interaction import FhirResponse
from fhir_portal.operations.call import Call

_MICROSECONDS = 1_000_000


async def portal_account(call: Call) -> FhirResponse:
    """Return the state of the account that a Person of the practice stands for.

    What other practices know of the same human is left out: only what holds for the one sign-in.
    """
    reader = call.server.store
    row = await call.target(reader)
    account = await account_of_person(reader, f"{call.auth.practice}/{row.key}")
    if account is None:
        return call.answer({"status": "none"}, row)
    sessions = [
        one
        for one in await reader.find(Session, "account", account.key)
        if one.expires > call.server.clock()
    ]
    codes = await reader.get(RecoveryCodes, account.key)
    contacts = await contacts_of(reader, account.key)
    passkeys = await reader.find(Passkey, "account", account.key)
    latest = max((one.auth_time for one in sessions), default=0.0)
    return call.answer(
        {
            "status": "disabled" if account.disabled else "enabled",
            "created": instant(int(account.created * _MICROSECONDS)),
            "signed-in": instant(int(latest * _MICROSECONDS)) if latest else None,
            "sessions": len(sessions),
            "password": account.password_hash is not None,
            "passkeys": len(passkeys),
            "authenticator": await reader.get(Totp, account.key) is not None,
            "recovery-codes": len(codes.hashes) if codes is not None else 0,
            "contacts": len([one for one in contacts if one.verified is not None]),
        },
        row,
    )
