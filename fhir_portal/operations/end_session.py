"""``Person/[id]/$end-session``: sign somebody out, in one browser or in all of them."""

from __future__ import annotations

from fhir_portal.accounts.devices import forget_devices
from fhir_portal.accounts.sessions import Session, end_sessions
from fhir_portal.fhir.errors import Invalid, Unprocessable
from fhir_portal.fhir.interaction import FhirResponse
from fhir_portal.operations.call import Call
from fhir_portal.operations.person import (
    account_behind,
    count_sign_out_of,
    new_name,
    notices_of,
    session_name,
)
from fhir_portal.resources.store import ResourceTransaction, Row


async def end_session(call: Call) -> FhirResponse:
    """End the sessions that ``$portal-account`` names, or all; with all, browsers are forgotten.

    The sign-in is one for all practices, and so is its end. Raises `Unprocessable` when a name is
    none of the account's: nothing ends then; and `TooManyRequests`.
    """
    names = frozenset(call.arguments.all("session"))
    everywhere = bool(call.arguments.one("all"))
    if everywhere == bool(names):
        message = "give session, or all"
        raise Invalid(message, expression="Parameters.parameter")
    now, name = call.server.clock(), new_name(call)

    async def work(transaction: ResourceTransaction) -> tuple[Row, int]:
        row, account = await account_behind(call, transaction)
        await count_sign_out_of(call, transaction, account, now=now)
        if everywhere:
            ended = await end_sessions(transaction, account.key)
            await forget_devices(transaction, account.key)
        else:
            found = {
                session_name(call, one): one
                for one in await transaction.find(Session, "account", account.key)
                if one.expires > now
            }
            if not names <= set(found):
                message = "one of these is no session of this account, or has ended"
                raise Unprocessable(message)
            for one in sorted(names):
                await transaction.delete(Session, found[one].key)
            ended = len(names)
        if ended:
            tell = notices_of(call).about(
                account, "sessions-ended", now=now, once=name, practice=call.auth.practice
            )
            await tell(transaction)
        return row, ended

    row, ended = await call.server.store.transact(work)
    return call.answer({"ended": ended}, row)
