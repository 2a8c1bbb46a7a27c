"""What the operations on a ``Person`` share: the account behind it, who asks, and why."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec

from fhir_portal.access.context import AuthContext
from fhir_portal.access.relation import Relations
from fhir_portal.accounts.account import Account, account_of_person
from fhir_portal.accounts.at_practice import (
    AccountAtPractice,
    ClosedPerson,
    SignedOutTooOften,
    count_sign_out,
)
from fhir_portal.accounts.proof import Write
from fhir_portal.accounts.sessions import Session
from fhir_portal.fhir.datetime import instant, period_of
from fhir_portal.fhir.definitions import ig_resource
from fhir_portal.fhir.errors import Invalid, TooManyRequests, Unprocessable
from fhir_portal.fhir.interaction import FhirResponse
from fhir_portal.notify.connection import OutboxConnectionNotices
from fhir_portal.notify.security import OutboxNotices
from fhir_portal.operations.call import Call
from fhir_portal.resources.store import ResourceTransaction, Row
from fhir_portal.smart.connections import Connections
from fhir_portal.smart.token import base64url

_MICROSECONDS: Final = 1_000_000
_LONGEST_TEXT: Final = 1000
_NAME_BYTES: Final = 12
_OPAQUE: Final = 22


async def account_behind(call: Call, transaction: ResourceTransaction) -> tuple[Row, Account]:
    """Return the Person that was called on, and its account, inside the transaction of a change.

    The caller's rights are asked for once more first. Raises `Unprocessable`: nobody has an account
    as this Person.
    """
    await call.server.still(transaction, call.auth)
    row = await call.target(transaction)
    account = await account_of_person(transaction, person_key(call, row))
    if account is None:
        message = "nobody has an account as this Person"
        raise Unprocessable(message)
    return row, account


def person_key(call: Call, row: Row) -> str:
    """Return ``<practice>/Person/<id>``."""
    return f"{call.auth.practice}/{row.key}"


async def patients_acted_for(
    call: Call, transaction: ResourceTransaction, account: Account
) -> tuple[str, ...]:
    """Return the ``Patient/<id>`` of the practice that an account may act for now."""
    relations = Relations(transaction, call.server.clock)
    found = await relations.records_of(account)
    practice = call.auth.practice
    return tuple(one.patient for one in found if one.is_proxy and one.practice == practice)


def also_told(call: Call, answer: FhirResponse, patients: Iterable[str]) -> FhirResponse:
    """Return an answer that goes into the log of further ``Patient/<id>`` of the practice as well.

    It is for those whose record somebody else got or lost the use of by the call: their line names
    them, and not the Person it was called on.
    """
    lines = [
        (
            msgspec.structs.replace(call.request, type="Patient", id=own_id, query=(), body=b""),
            FhirResponse(answer.status, records=((own_id, True),)),
        )
        for own_id in sorted({one.partition("/")[2] for one in patients})
        if (own_id, True) not in answer.records
    ]
    return msgspec.structs.replace(answer, parts=[(call.request, answer), *lines])


def asked_by(auth: AuthContext) -> str:
    """Return who asks, as it is kept: ``Practitioner/<id>`` or ``client:<client_id>``."""
    return auth.fhir_user or f"client:{auth.client}"


@functools.cache
def account_reasons() -> Mapping[str, str]:
    """Code to display of the reasons for which an account is disabled or enabled."""
    listed = ig_resource("CodeSystem", "account-reason")["concept"]
    return {one["code"]: one["display"] for one in listed}


def reason_of(call: Call) -> tuple[str, str]:
    """Return the code and the words that were given. Raises `Invalid`."""
    code, text = call.arguments.one("reason"), call.arguments.one("text") or ""
    known = account_reasons()
    if code not in known:
        message = f"reason is one of {', '.join(known)}"
        raise Invalid(message, expression="Parameters.parameter.where(name='reason')")
    if len(text) > _LONGEST_TEXT:
        message = f"text has at most {_LONGEST_TEXT} characters"
        raise Invalid(message, expression="Parameters.parameter.where(name='text')")
    return code, text


def until_of(call: Call) -> float | None:
    """Return the end that was given in seconds since 1970 UTC. Raises `Invalid`: it has passed."""
    given = call.arguments.one("until")
    if given is None:
        return None
    until = period_of(given)[0] / _MICROSECONDS
    if until <= call.server.clock():
        message = "until has passed already"
        raise Invalid(message, expression="Parameters.parameter.where(name='until')")
    return until


def moment(seconds: float | None) -> str | None:
    """Return seconds since 1970 UTC as a FHIR ``instant``."""
    return None if seconds is None else instant(int(seconds * _MICROSECONDS))


def said_of(found: AccountAtPractice | None) -> dict[str, Any] | None:
    """Return the parts that tell since when an account stands as it does, by whom and why."""
    if found is None:
        return None
    return {
        "since": moment(found.since),
        "by": found.by,
        "reason": found.reason,
        "text": found.text or None,
        "until": moment(found.until),
        "proxies": found.state == "disabled" and bool(found.proxies_of),
    }


def ended_of(found: ClosedPerson | None) -> dict[str, Any] | None:
    """Return the parts of `said_of` of somebody for whom the practice ended the portal."""
    if found is None:
        return None
    return {
        "since": moment(found.at),
        "by": found.by,
        "reason": found.reason,
        "text": found.text or None,
        "until": None,
        "proxies": False,
    }


async def count_sign_out_of(
    call: Call, transaction: ResourceTransaction, account: Account, *, now: float
) -> None:
    """Count that the practice ends sessions of an account. Raises `TooManyRequests`."""
    try:
        await count_sign_out(transaction, call.auth.practice, account.key, now=now)
    except SignedOutTooOften as error:
        message = "the practice signed this person out too often today: it can close its records"
        raise TooManyRequests(message, retry_after=int(error.retry_after) + 1) from None


def notices_of(call: Call) -> OutboxNotices:
    """Return what writes notices to an account's owner."""
    return OutboxNotices(call.collaborators.random)


def new_name(call: Call) -> str:
    """Return a name for a notice, to be drawn outside of the transaction, which may run twice."""
    return call.collaborators.random(_NAME_BYTES).hex()


def connections_of(call: Call) -> Connections:
    """Return the connections of accounts to apps."""
    store: Any = call.server.store  # records too: `fhir_portal.resources.store.PortalStore`
    return Connections(
        store,
        directory=Relations(call.server.store, call.server.clock),
        keys=call.collaborators,
        notices=OutboxConnectionNotices(),
        lifetimes=call.collaborators.lifetimes,
        clock=call.server.clock,
        random=call.collaborators.random,
    )


def session_name(call: Call, session: Session) -> str:
    """Return a name for a session that tells nothing, and opens nothing.

    It stays the same when the cookie changes.
    """
    made = call.collaborators.derive("session-name", session.browser.encode())
    return base64url(made)[:_OPAQUE]


def first_still(call: Call) -> Write:
    """Return the write that holds in a transaction, before it changes anything, that this may be.

    The caller's rights stand, and the Person is still the same account's.
    """

    async def still(transaction: Any) -> None:
        await account_behind(call, transaction)

    return still
