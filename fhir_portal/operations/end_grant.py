"""``Consent/[id]/$end-grant``: a practice ends that somebody acts for a patient.

The Consent becomes inactive and the standing grant goes in one transaction, and with it every token
and code that was given under it (`fhir_portal.resources.consent`). Nothing brings it back: who is
to act again is invited again.
"""

from __future__ import annotations

from typing import Final

from fhir_portal.access.owners import local_target
from fhir_portal.access.relation import PROVEN
from fhir_portal.access.visibility import Visibility
from fhir_portal.accounts.account import Account, account_of_person
from fhir_portal.consent.grant import Grant, is_grant
from fhir_portal.fhir import json
from fhir_portal.fhir.errors import Conflict, Unprocessable
from fhir_portal.fhir.interaction import FhirResponse
from fhir_portal.fhir.reference import ResourceKey
from fhir_portal.notify import outbox
from fhir_portal.notify.recipients import RECORD
from fhir_portal.operations.authorship import Author, record_provenance
from fhir_portal.operations.call import Call
from fhir_portal.operations.definition import parameter
from fhir_portal.operations.merge import write
from fhir_portal.operations.person import new_name, notices_of
from fhir_portal.operations.portal_invite import practice_of, words
from fhir_portal.resources.store import ResourceTransaction, Row
from fhir_portal.search.registry import parameters_for
from fhir_portal.smart.token import TokenFamily

_ACTIVE: Final = "active"
_ENDED: Final = "inactive"
_MOST_PERSONS: Final = 20
_ALL: Final = 1_000_000


async def end_grant(call: Call) -> FhirResponse:
    """End a grant; said again of one that has ended, nothing changes and nobody is told.

    With it end all others by which the same person acts for the same patient: of two neither opens
    anything (`fhir_portal.access.relation`), so that the one that is left would open the record.
    """
    reason, name = words(call, "reason"), new_name(call)
    if not reason:
        message = "say why"
        raise Unprocessable(message, expression=parameter("reason"))

    async def work(transaction: ResourceTransaction) -> tuple[list[Row], str, int]:
        await call.server.still(transaction, call.auth)
        row = await call.target(transaction)
        tree = json.parse(row.body)
        if not is_grant(tree):
            message = "this Consent is no grant by which somebody acts for the patient"
            raise Unprocessable(message)
        if tree.get("status") == "proposed":
            message = "nobody acts by this grant yet: take its invitation back"
            raise Conflict(message)
        if tree.get("status") != _ACTIVE:
            return [row], tree["status"], 0
        rows = [row, *await _others(call, transaction, row)]
        author = Author.of(call.auth, await practice_of(transaction, call.auth.practice))
        ended = 0
        for one in rows:
            ended += await end_grant_in(call, transaction, one, name=name, tells=one is row)
            await record_provenance(
                transaction, call.server, call.auth.practice, author, [str(one.key)],
                activity="UPDATE", reason=reason,
            )  # fmt: skip
        holder = grantee(row)
        for number, account in enumerate(await holders_of(call, transaction, holder)):
            tell = notices_of(call).about(
                account, "acting-ended", now=call.server.clock(), once=f"{name}.{number}",
                practice=call.auth.practice,
            )  # fmt: skip
            await tell(transaction)
        return rows, _ENDED, ended

    rows, status, ended = await call.server.store.transact(work)
    return call.answer({"status": status, "ended-apps": ended}, *rows)


async def _others(call: Call, transaction: ResourceTransaction, row: Row) -> list[Row]:
    """The other active Consents by which the same RelatedPerson acts, or will, for the patient."""
    practice, holder = call.auth.practice, grantee(row)
    patient = json.parse(row.body)["patient"]["reference"]
    visible, found = Visibility.of_server("Consent", practice=practice), list[Row]()
    own_id = holder.id if holder is not None else ""
    for grant in await transaction.find(Grant, "related_person", f"{practice}/{own_id}"):
        if f"Patient/{grant.patient}" != patient or grant.consent == row.key.id:
            continue
        other = await transaction.read(ResourceKey("Consent", grant.consent), visible)
        if other is not None and not other.deleted:
            found.append(other)
    return [one for one in found if json.parse(one.body).get("status") == _ACTIVE]


async def end_grant_in(
    call: Call, transaction: ResourceTransaction, row: Row, *, name: str, tells: bool = True
) -> int:
    """End the grant of an active Consent; return how many authorizations of apps end with it.

    Whose record it is, is told if it ``tells``; ``name`` makes that one notice. Who acted is the
    caller's to tell.
    """
    practice, own_id = call.auth.practice, row.key.id
    families = await transaction.find(TokenFamily, "grant", f"Consent/{own_id}", limit=_ALL)
    ending = [one for one in families if one.practice == practice and one.ended is None]
    tree = json.parse(row.body)
    await write(call, transaction, row, {**tree, "status": _ENDED})
    if not tells:
        return len(ending)
    await outbox.enqueue(
        transaction,
        key=f"proxy-ended.{own_id}.{name}",
        practice=practice,
        channel="mail",
        to=f"{RECORD}{practice}/{tree['patient']['reference']}",
        template="proxy-ended",
        now=call.server.clock(),
    )
    return len(ending)


def grantee(row: Row) -> ResourceKey | None:
    """Return the RelatedPerson who acts by a Consent that claims to be a grant."""
    actors = (json.parse(row.body).get("provision") or {}).get("actor") or [{}]
    key = local_target(str((actors[0].get("reference") or {}).get("reference", "")))
    return key if key is not None and key.type == "RelatedPerson" else None


async def holders_of(
    call: Call, transaction: ResourceTransaction, person: ResourceKey | None
) -> list[Account]:
    """Return the accounts whose owner was proved to be a RelatedPerson of the practice."""
    if person is None:
        return []
    practice, found = call.auth.practice, dict[str, Account]()
    rows = await transaction.referring(
        parameters_for("Person")["link"],
        [person],
        Visibility.of_server("Person", practice=practice),
        limit=_MOST_PERSONS,
    )
    for row in rows:
        tree = json.parse(row.body)
        proven = {
            (link.get("target") or {}).get("reference")
            for link in tree.get("link") or ()
            if link.get("assurance") in PROVEN
        }
        account = await account_of_person(transaction, f"{practice}/{row.key}")
        if account is not None and str(person) in proven and tree.get("active") is not False:
            found[account.key] = account
    return list(found.values())
