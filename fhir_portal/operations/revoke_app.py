"""``Person/[id]/$revoke-app``: end what an app was allowed on this practice's records."""

from __future__ import annotations

from fhir_portal.accounts.account import account_of_person
from fhir_portal.fhir.errors import Unprocessable
from fhir_portal.fhir.interaction import FhirResponse
from fhir_portal.operations.call import Call
from fhir_portal.operations.person import (
    also_told,
    connections_of,
    first_still,
    moment,
    person_key,
)
from fhir_portal.smart.connection import UnknownConnection

_NOT_THERE = "there is no such connection of this account with a record of this practice"


async def revoke_app(call: Call) -> FhirResponse:
    """End a connection that ``$portal-account`` names; the person finds the receipt among theirs.

    Of one that was ended already the same receipt is named again.
    """
    reader = call.server.store
    row = await call.target(reader)
    account = await account_of_person(reader, person_key(call, row))
    if account is None:
        message = "nobody has an account as this Person"
        raise Unprocessable(message)
    try:
        receipt = await connections_of(call).end(
            account,
            call.arguments.one("app"),
            practice=call.auth.practice,
            first=first_still(call),
        )
    except UnknownConnection:
        raise Unprocessable(_NOT_THERE) from None
    answer = call.answer({"receipt": receipt.key, "ended": moment(receipt.at)}, row)
    return also_told(call, answer, [receipt.patient] if receipt.patient else ())
