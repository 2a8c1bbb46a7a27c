"""``Person/[id]/$account-close``: a practice ends the portal for somebody, and keeps the history.

It is what "delete the record" of a portal means (nothing is erased): the Person is active no more
and links nobody, the grants by which they act here are inactive, invitations that could still be
used are taken back, and what their account holds of this practice ends. The account is then no
account of this practice. Its sign-in, and what it has at other practices, stay.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from fhir_portal.access.visibility import Visibility
from fhir_portal.accounts.account import Account, account_of_person, remove_person
from fhir_portal.accounts.assisted_recovery import AssistedRecovery
from fhir_portal.accounts.at_practice import (
    ClosedPerson,
    closing_of,
    is_known_only_at,
    standing,
)
from fhir_portal.accounts.devices import forget_devices
from fhir_portal.accounts.invitation import (
    LIVE,
    Invitation,
    LiveInvitation,
    invitations_of,
)
from fhir_portal.accounts.sessions import end_sessions
from fhir_portal.accounts.staff import staff_of_account
from fhir_portal.consent.grant import Grant
from fhir_portal.fhir import json
from fhir_portal.fhir.errors import Conflict
from fhir_portal.fhir.interaction import FhirResponse
from fhir_portal.fhir.reference import ResourceKey
from fhir_portal.operations.authorship import Author, record_provenance
from fhir_portal.operations.call import Call
from fhir_portal.operations.end_grant import end_grant_in, holders_of
from fhir_portal.operations.invitation_end import take_back
from fhir_portal.operations.inviting import invitation_secrets
from fhir_portal.operations.links import links_of
from fhir_portal.operations.merge import write
from fhir_portal.operations.no_more_invitations import NoMoreInvitations
from fhir_portal.operations.on_file import account_of_record
from fhir_portal.operations.person import (
    account_reasons,
    also_told,
    asked_by,
    connections_of,
    moment,
    new_name,
    notices_of,
    patients_acted_for,
    person_key,
    reason_of,
)
from fhir_portal.operations.portal_invite import practice_of
from fhir_portal.resources.store import ResourceTransaction, Row
from fhir_portal.smart.connection import is_of_practice
from fhir_portal.smart.revocation import revoke_at_practice

BECAUSE: Final = "closed-at-practice"
WARNING: Final = (
    "Nothing was erased. The person's right to see and to get copies of their record stands all the"
    " same: they have to be able to ask for it in another way, and to be told how."
)
_NEUTRAL: Final = "The practice ended the portal for this person"
"""What others may read of it, in whose record something ends by it."""
_OVER: Final = LIVE | {"expired", "awaiting"}
"""States of an invitation by which somebody could come back: one that expired can be renewed, one
that a colleague has not confirmed yet would open its records then."""


@dataclass(slots=True)
class _Closing:
    """What ends for one Person of the practice, as it is found in the transaction."""

    row: Row
    account: Account | None
    closed: ClosedPerson | None
    links: tuple[str, ...] = ()
    grants: list[Row] = field(default_factory=list)
    invitations: list[Invitation] = field(default_factory=list)
    acted_for: Sequence[str] = ()
    apps: int = 0


async def account_close(call: Call) -> FhirResponse:
    """End the portal for a Person of the practice, or show what that would end.

    Said again, it stays closed since the first time, and nobody is told again.
    """
    reason, text = reason_of(call)
    is_preview = bool(call.arguments.one("preview"))
    name = new_name(call)

    async def work(transaction: ResourceTransaction) -> _Closing:
        await call.server.still(transaction, call.auth)
        found = await _found(call, transaction)
        if found.closed is not None:
            return found
        if is_preview:
            await _counted(call, found)
            return found
        found.closed = ClosedPerson(
            key=person_key(call, found.row),
            at=call.server.clock(),
            by=asked_by(call.auth),
            reason=reason,
            text=text,
        )
        await _carry_out(call, transaction, found, found.closed, name)
        return found

    found = await call.server.store.transact(work)
    values = {
        "status": "closed" if found.closed is not None else "open",
        "since": moment(found.closed.at) if found.closed is not None else None,
        "link": [{"reference": one} for one in found.links],
        "grant": [{"reference": str(one.key)} for one in found.grants],
        "invitation": [{"reference": f"Task/{one.task}"} for one in found.invitations],
        "ended-apps": found.apps,
        "warning": WARNING,
    }
    return also_told(call, call.answer(values, found.row), found.acted_for)


async def _found(call: Call, transaction: ResourceTransaction) -> _Closing:
    """Find out what there is to end. Raises `Conflict`: others are shut out by this account."""
    row = await call.target(transaction)
    person, now = person_key(call, row), call.server.clock()
    account = await account_of_person(transaction, person)
    closed = await closing_of(transaction, person, json.parse(row.body))
    if closed is not None and account is None:
        return _Closing(row, None, closed)
    if account is not None:
        here = await standing(transaction, call.auth.practice, account.key)
        if here is not None and here.is_disabled(now) and here.proxies_of:
            message = (
                "those who act for this person are shut out with the account: disable it without"
                " include-proxies first, or end their grants"
            )
            raise Conflict(message)
    return _Closing(
        row,
        account,
        None,
        links=tuple(links_of(row, proven=False)),
        grants=await _grants(call, transaction, row, account),
        invitations=await _invitations(call, transaction, row, account),
        acted_for=await patients_acted_for(call, transaction, account) if account else (),
    )


async def _grants(
    call: Call, transaction: ResourceTransaction, row: Row, account: Account | None
) -> list[Row]:
    """The Consents by which this Person acts, and nobody else's account does."""
    practice, found = call.auth.practice, list[Row]()
    visible = Visibility.of_server("Consent", practice=practice)
    for link in links_of(row, proven=True):
        key = ResourceKey.parse(link)
        if key.type != "RelatedPerson":
            continue
        holders = {one.key for one in await holders_of(call, transaction, key)}
        if holders - {account.key if account is not None else ""}:
            continue
        for grant in await transaction.find(Grant, "related_person", f"{practice}/{key.id}"):
            consent = await transaction.read(ResourceKey("Consent", grant.consent), visible)
            if consent is not None and not consent.deleted:
                found.append(consent)
    return found


async def _invitations(
    call: Call, transaction: ResourceTransaction, row: Row, account: Account | None
) -> list[Invitation]:
    """What somebody could still become this Person by."""
    found: dict[str, Invitation] = {}
    for link in links_of(row, proven=False):
        invitee = f"{call.auth.practice}/{link}"
        live = await transaction.get(LiveInvitation, invitee)
        there = await transaction.get(Invitation, live.invitation) if live is not None else None
        earlier = await invitations_of(transaction, invitee)
        for one in (there, *earlier):
            if one is not None and one.state in _OVER:
                found[one.key] = one
    used = account.key if account is not None else ""
    for one in await transaction.find(Invitation, "redeemed_by", used):
        if one.practice == call.auth.practice and one.state in _OVER:
            found[one.key] = one
    return list(found.values())


async def _counted(call: Call, found: _Closing) -> None:
    """Count what would end, for a preview: nothing is changed by it."""
    if found.account is None:
        return
    practice, account = call.auth.practice, found.account
    connections = await connections_of(call).of(account)
    found.apps = sum(one.is_mine and is_of_practice(one, practice) for one in connections)


async def _carry_out(
    call: Call,
    transaction: ResourceTransaction,
    found: _Closing,
    closed: ClosedPerson,
    name: str,
) -> None:
    practice, row = call.auth.practice, found.row
    author = Author.of(call.auth, await practice_of(transaction, practice))
    secrets = invitation_secrets(call.collaborators.derive)
    if found.account is not None:
        await _end_account(call, transaction, found, found.account, name)
    for grant in found.grants:
        found.apps += await end_grant_in(call, transaction, grant, name=name)
    changed = [str(one.key) for one in found.grants]
    for invitation in found.invitations:
        _, tasks = await take_back(transaction, call.server, secrets, invitation, reason=_NEUTRAL)
        changed += [str(one.key) for one in tasks]
    proven = set(links_of(row, proven=True))
    for link in links_of(row, proven=False):
        # What nobody proved says nothing of somebody whom another account was proved to be.
        key = ResourceKey.parse(link)
        if link not in proven and await account_of_record(transaction, practice, key) is not None:
            continue
        await transaction.put(
            NoMoreInvitations(key=f"{practice}/{link}", since=closed.at, closed=True)
        )
    await transaction.put(closed)
    tree = {one: value for one, value in json.parse(row.body).items() if one != "link"}
    await write(call, transaction, row, {**tree, "active": False})
    # One in each record: nobody learns of the others, and why is for the practice alone.
    said = ": ".join(filter(None, (account_reasons()[closed.reason], closed.text)))
    for target, reason in ((str(row.key), said), *((one, _NEUTRAL) for one in changed)):
        await record_provenance(
            transaction, call.server, practice, author, [target], activity="UPDATE", reason=reason
        )


async def _end_account(
    call: Call, transaction: ResourceTransaction, found: _Closing, account: Account, name: str
) -> None:
    """End what the account holds of this practice; it is then no account of the practice."""
    practice, now = call.auth.practice, call.server.clock()
    found.apps = await revoke_at_practice(
        transaction, account.key, practice, now=now, because=BECAUSE
    )
    if is_known_only_at(practice, account, await staff_of_account(transaction, account.key)):
        # How many is not told: none would say that they are known elsewhere.
        await end_sessions(transaction, account.key)
        await forget_devices(transaction, account.key)
    for recovery in await transaction.find(AssistedRecovery, "account", account.key):
        if recovery.practice == practice:
            await transaction.delete(AssistedRecovery, recovery.key)
    await remove_person(transaction, account, person_key(call, found.row))
    tell = notices_of(call).about(
        account, "closed-at-practice", now=now, once=name, practice=practice
    )
    await tell(transaction)
