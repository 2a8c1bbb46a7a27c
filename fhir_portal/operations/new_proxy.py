"""Telling whose record it is that somebody may use it from now on.

It says that somebody new may, and not who: who reads it may be the other parent. The page of who
may see the record says more, to whom it may be told.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fhir_portal.access.visibility import Visibility
from fhir_portal.accounts.contacts import verified_contacts
from fhir_portal.accounts.invitation import Invitation
from fhir_portal.accounts.policy import policy_of
from fhir_portal.consent.grant import Grant, is_current
from fhir_portal.consent.presets import PRESETS
from fhir_portal.fhir import json
from fhir_portal.fhir.reference import ResourceKey
from fhir_portal.notify import outbox
from fhir_portal.notify.outbox import Channel
from fhir_portal.notify.recipients import own_accounts, to_account, to_address
from fhir_portal.operations.on_file import account_of_record, contacts_on_file
from fhir_portal.resources.server import Server
from fhir_portal.resources.store import ResourceTransaction

TEMPLATE = "security-proxy-added"


async def tell_of_proxy(
    transaction: ResourceTransaction, server: Server, invitation: Invitation, *, once: str
) -> int:
    """Tell of everybody who may use a record by an invitation, in the transaction that opens it.

    The patient is told, at every contact of their account. Who has none is told at the contacts on
    file that are not the new person's own, and so are those who act for the patient in full.
    Returns how many messages there are: with 0 nobody could be told. ``once`` names this telling.
    """
    now, number = server.clock(), 0
    for patient, person in zip(invitation.patients, invitation.persons, strict=True):
        for channel, to in await _whom(transaction, server, invitation, patient, person):
            await outbox.enqueue(
                transaction,
                key=f"proxy-added.{invitation.practice}.{invitation.task}.{once}.{number}",
                practice=invitation.practice,
                channel=channel,
                to=to,
                template=TEMPLATE,
                now=now,
            )
            number += 1
    return number


async def tell_of_gain(
    transaction: ResourceTransaction, server: Server, practice: str, patient: str, *, once: str
) -> int:
    """Tell whose record it is that somebody will use it whose record was merged into it.

    To be called before that is done: who is told are the accounts and contacts of then.
    ``patient`` is ``Patient/<id>``, ``once`` names this telling. Returns how many messages there
    are.
    """
    accounts = await own_accounts(transaction, practice, patient, clock=server.clock)
    told: list[tuple[Channel, str]] = [("mail", to_account(one.key)) for one in accounts]
    country = (await policy_of(transaction, practice)).country
    tree = await _tree(transaction, practice, patient)
    if not accounts:
        told = [
            (one.medium, to_address(one.medium, one.value))
            for one in contacts_on_file(tree, country=country, now=server.clock())
        ]
    for number, (channel, to) in enumerate(told):
        await outbox.enqueue(
            transaction, key=f"merged-into.{practice}.{once}.{number}", practice=practice,
            channel=channel, to=to, template=TEMPLATE, now=server.clock(),
        )  # fmt: skip
    return len(told)


async def _whom(
    transaction: ResourceTransaction,
    server: Server,
    invitation: Invitation,
    patient: str,
    person: str,
) -> list[tuple[Channel, str]]:
    practice, now = invitation.practice, server.clock()
    accounts = await own_accounts(transaction, practice, patient, clock=server.clock)
    if accounts:
        return [("mail", to_account(one.key)) for one in accounts]
    country = (await policy_of(transaction, practice)).country
    new = await _tree(transaction, practice, person)
    theirs = {one.value for one in contacts_on_file(new, country=country, now=now)}
    own = await verified_contacts(transaction, invitation.redeemed_by or "")
    theirs |= {one.value for one in own}
    on_file = contacts_on_file(
        await _tree(transaction, practice, patient), country=country, now=now
    )
    told: list[tuple[Channel, str]] = [
        (one.medium, to_address(one.medium, one.value))
        for one in on_file
        if one.value not in theirs
    ]
    in_full = set(PRESETS["guardian"].see)
    for grant in await transaction.find(Grant, "patient", patient.partition("/")[2]):
        related = ResourceKey("RelatedPerson", grant.related_person.partition("/")[2])
        if (
            grant.practice != practice
            or not is_current(grant, now)
            or str(related) == person
            or not in_full <= set(grant.sections)
        ):
            continue
        holder = await account_of_record(transaction, practice, related)
        if holder is not None and holder != invitation.redeemed_by:
            told.append(("mail", to_account(holder)))
    return list(dict.fromkeys(told))


async def _tree(transaction: ResourceTransaction, practice: str, of: str) -> Mapping[str, Any]:
    key = ResourceKey.parse(of)
    row = await transaction.read(key, Visibility.of_server(key.type, practice=practice))
    return json.parse(row.body) if row is not None and not row.deleted else {}
