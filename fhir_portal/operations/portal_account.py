"""``Person/[id]/$portal-account``: how the account behind a Person stands; never a secret."""

from __future__ import annotations

from typing import Any, Final

from fhir_portal.accounts.account import Account, account_of_person
from fhir_portal.accounts.assisted_recovery import AssistedRecovery
from fhir_portal.accounts.at_practice import closing_of, standing
from fhir_portal.accounts.contacts import contacts_of
from fhir_portal.accounts.invitation import Invitation, LiveInvitation
from fhir_portal.accounts.passkeys import Passkey
from fhir_portal.accounts.recovery_codes import RecoveryCodes
from fhir_portal.accounts.sessions import LatestSignIn, Session
from fhir_portal.accounts.totp import Totp
from fhir_portal.fhir import json
from fhir_portal.fhir.interaction import FhirResponse
from fhir_portal.operations.call import Call
from fhir_portal.operations.links import links_of
from fhir_portal.operations.person import (
    connections_of,
    ended_of,
    moment,
    person_key,
    said_of,
    session_name,
)
from fhir_portal.resources.store import Row
from fhir_portal.smart.connection import Connection, is_of_practice

_LINES: Final = 20


async def portal_account(call: Call) -> FhirResponse:
    """Return the state of the account that a Person of the practice stands for.

    What other practices know of the same human is left out: only what holds for the one sign-in.
    """
    reader = call.server.store
    row = await call.target(reader)
    account = await account_of_person(reader, person_key(call, row))
    invitations = await _invitations(call, row)
    if account is None:
        closed = await closing_of(reader, person_key(call, row), json.parse(row.body))
        values = {"status": "none" if closed is None else "closed", "said": ended_of(closed)}
        return call.answer({**values, "invitation": invitations}, row)
    now, practice = call.server.clock(), call.auth.practice
    sessions = [
        one for one in await reader.find(Session, "account", account.key) if one.expires > now
    ]
    codes = await reader.get(RecoveryCodes, account.key)
    contacts = await contacts_of(reader, account.key)
    passkeys = await reader.find(Passkey, "account", account.key)
    signed_in = await reader.get(LatestSignIn, account.key)
    latest = max(
        (*(one.auth_time for one in sessions), signed_in.at if signed_in is not None else 0.0),
        default=0.0,
    )
    here = await standing(reader, practice, account.key)
    is_closed = here is not None and here.is_disabled(now)
    return call.answer(
        {
            "status": "disabled" if account.disabled else "enabled",
            "at-practice": _at_practice(account, practice, is_disabled=is_closed),
            "said": said_of(here),
            "created": moment(account.created),
            "signed-in": moment(latest) if latest else None,
            "sessions": len(sessions),
            "password": account.password_hash is not None,
            "passkeys": len(passkeys),
            "authenticator": await reader.get(Totp, account.key) is not None,
            "recovery-codes": len(codes.hashes) if codes is not None else 0,
            "contacts": len([one for one in contacts if one.verified is not None]),
            "renewal": account.renewal,
            "session": [
                {
                    "id": session_name(call, one),
                    "device": one.device or None,
                    "since": moment(one.auth_time),
                    "used": moment(one.seen),
                }
                for one in sorted(sessions, key=lambda one: one.seen, reverse=True)
            ],
            "app": [await _app(call, one) for one in await _apps(call, account)],
            "recovery": await _recoveries(call, account),
            "invitation": invitations,
        },
        row,
    )


def _at_practice(account: Account, practice: str, *, is_disabled: bool) -> str:
    if is_disabled or account.disabled:
        return "disabled"
    return "unproved" if practice in account.closed_at else "enabled"


async def _apps(call: Call, account: Account) -> list[Connection]:
    """The connections with this practice's records: what another one's are for is not told."""
    found = await connections_of(call).of(account)
    return [one for one in found if is_of_practice(one, call.auth.practice)]


async def _app(call: Call, one: Connection) -> dict[str, Any]:
    """What is told of a connection: its app is named to staff alone.

    What an app is called can say what somebody suffers from.
    """
    return {
        "id": one.id,
        "name": one.client.name if call.auth.may("view") else None,
        "since": moment(one.since),
        "used": moment(await _used(call, one)),
        "until": moment(one.until),
        "by-proxy": not one.is_mine,
    }


async def _recoveries(call: Call, account: Account) -> list[dict[str, Any]]:
    """What staff here have begun to help the owner back in, told to those who may do so too."""
    if call.auth.staff is None or not call.auth.may("recover"):
        return []
    found = await call.server.store.find(AssistedRecovery, "account", account.key)
    return [
        {
            "id": one.key,
            "half": one.half,
            "needs-approval": one.needs_approval and one.approved_by is None,
            "opens": moment(one.opens_at),
            "until": moment(one.expires),
        }
        for one in found
        if one.practice == call.auth.practice and call.server.clock() < one.expires
    ]


async def _used(call: Call, one: Connection) -> float | None:
    """When an app last did something with the record, by the access log."""
    latest = list[float]()
    for agent in sorted(one.fhir_users):
        lines = await call.server.log.of_app(
            one.practice,
            one.patient.partition("/")[2],
            agent=agent,
            client=one.client.key,
            account=one.account,
            low=int(one.since * 1000),
            high=int(call.server.clock() * 1000) + 1,
            before=None,
            limit=_LINES,
        )
        latest += [
            line.row.at / 1000
            for line in lines
            if (line.row.client, line.row.account) == (one.client.key, one.account)
        ]
    return max(latest, default=None)


async def _invitations(call: Call, row: Row) -> list[dict[str, Any]]:
    """The invitations that somebody could use now to become this Person."""
    reader, now = call.server.store, call.server.clock()
    found = list[dict[str, Any]]()
    for link in links_of(row, proven=False):
        live = await reader.get(LiveInvitation, f"{call.auth.practice}/{link}")
        one = await reader.get(Invitation, live.invitation) if live is not None else None
        if one is not None and one.is_usable(now):
            found.append(
                {
                    "task": {"reference": f"Task/{one.task}"},
                    "state": one.state,
                    "channel": one.channel,
                    "since": moment(one.created),
                    "until": moment(one.ends),
                }
            )
    return found
