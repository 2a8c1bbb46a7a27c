"""Links of a Person that stand while nobody has confirmed who that is: they open nothing.

They have the lowest assurance, so that no grant that is written meanwhile opens anything either.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fhir_portal.access.relation import PROVEN
from fhir_portal.access.visibility import Visibility
from fhir_portal.accounts.account import Account
from fhir_portal.accounts.assurance import LEVELS, higher
from fhir_portal.accounts.invitation import (
    Invitation,
    InvitationSecrets,
    NotUsable,
    end,
    is_unconfirmed,
)
from fhir_portal.fhir import json
from fhir_portal.fhir.reference import ResourceKey
from fhir_portal.operations.call import acting_for
from fhir_portal.operations.invitation_task import follow, reject_grants
from fhir_portal.operations.on_file import may_be_invited
from fhir_portal.resources.server import Server
from fhir_portal.resources.store import ResourceReader, ResourceTransaction
from fhir_portal.resources.writing import update_in


async def prove_links(
    transaction: ResourceTransaction, server: Server, invitation: Invitation, account: Account
) -> bool:
    """Give the links of who used an invitation the assurance that they proved.

    Returns whether one of them was proved before. Raises `NotUsable`: it is not as it was any more,
    in whatever way.
    """
    were_proven = False
    key, tree = await _person(transaction, invitation.practice, account)
    level = invitation.assurance
    if key is None or tree.get("active") is False or level not in LEVELS:
        raise NotUsable
    for patient, person in zip(invitation.patients, invitation.persons, strict=True):
        related = await _read(transaction, invitation.practice, ResourceKey.parse(person))
        of = (related.get("patient") or {}).get("reference")
        link = next((one for one in tree.get("link") or () if _target(one) == person), None)
        if link is None or not may_be_invited(related) or of != patient:
            raise NotUsable
        were_proven = were_proven or link.get("assurance") in PROVEN
        link["assurance"] = higher([link.get("assurance")], level)
    await _write(transaction, server, invitation.practice, key, tree)
    return were_proven


async def drop_links(
    transaction: ResourceTransaction, server: Server, invitation: Invitation
) -> None:
    """Take the links away that nobody confirmed; the RelatedPersons are nobody's again."""
    account = await transaction.get(Account, invitation.redeemed_by or "")
    if account is None:
        return
    key, tree = await _person(transaction, invitation.practice, account)
    links = tree.get("link") or []
    kept = [
        one
        for one in links
        if _target(one) not in invitation.persons or one.get("assurance") in PROVEN
    ]
    if key is None or len(kept) == len(links):
        return
    tree.pop("link")
    if kept:
        tree["link"] = kept
    await _write(transaction, server, invitation.practice, key, tree)


async def expire_unconfirmed(
    transaction: ResourceTransaction, server: Server, secrets: InvitationSecrets, key: str
) -> Invitation | None:
    """End an invitation that nobody confirmed in time, with what it proposed and its links.

    Else whoever used it would keep out for good who was meant. ``None``: there is nothing to end.
    """
    found, now = await transaction.get(Invitation, key), server.clock()
    if found is None or not is_unconfirmed(found, now):
        return None
    ended = await end(transaction, secrets, found, "expired", now=now)
    await follow(transaction, server, ended, reason="nobody confirmed in time who used it")
    await reject_grants(transaction, server, ended)
    await drop_links(transaction, server, ended)
    return ended


async def free_again(
    transaction: ResourceTransaction,
    server: Server,
    secrets: InvitationSecrets,
    practice: str,
    account: str,
) -> None:
    """End what an account used at a practice and nobody confirmed in time."""
    for one in await transaction.find(Invitation, "redeemed_by", account):
        if one.practice == practice:
            await expire_unconfirmed(transaction, server, secrets, one.key)


def _target(link: Mapping[str, Any]) -> str:
    return str((link.get("target") or {}).get("reference") or "")


async def _person(
    transaction: ResourceTransaction, practice: str, account: Account
) -> tuple[ResourceKey | None, dict[str, Any]]:
    own = next((one for one in account.persons if one.partition("/")[0] == practice), None)
    if own is None:
        return None, {}
    key = ResourceKey.parse(own.partition("/")[2])
    tree = await _read(transaction, practice, key)
    return (key, tree) if tree else (None, {})


async def _read(reader: ResourceReader, practice: str, key: ResourceKey) -> dict[str, Any]:
    row = await reader.read(key, Visibility.of_server(key.type, practice=practice))
    return {} if row is None or row.deleted else json.parse(row.body)


async def _write(
    transaction: ResourceTransaction,
    server: Server,
    practice: str,
    key: ResourceKey,
    tree: dict[str, Any],
) -> None:
    await update_in(
        transaction, server, acting_for(practice, ""), tree,
        Visibility.of_server("Person", practice=practice),
        key=key, if_match=None, if_none_match=None,
    )  # fmt: skip
