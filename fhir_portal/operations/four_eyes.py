"""Nobody on a practice's staff opens a patient's record for themselves, under whatever name.

Whoever invites somebody to act for a patient may hold all the secrets of the invitation, and can
use them with an account that nobody knows to be theirs. So two things hold: what opens such a
record is the word of a second member of staff, about the account that used the invitation
(`fhir_portal.operations.confirm_proxy`); and no two of the parts in it are played by one human, as
far as accounts, contacts, names and birth dates tell. Why so: docs/decisions/0014.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from fhir_portal.access.owners import local_target
from fhir_portal.access.relation import works
from fhir_portal.access.visibility import Visibility
from fhir_portal.accounts.account import Account
from fhir_portal.accounts.contacts import mailbox_of, verified_contacts
from fhir_portal.accounts.invitation import Invitation
from fhir_portal.accounts.levels import NotPermitted
from fhir_portal.accounts.policy import policy_of
from fhir_portal.accounts.practice import Practice
from fhir_portal.accounts.staff import (
    ANOTHER_RESUMES,
    StaffMember,
    members_with,
    staff_key,
    staff_of_practice,
)
from fhir_portal.fhir import json
from fhir_portal.fhir.errors import Forbidden
from fhir_portal.fhir.reference import ResourceKey
from fhir_portal.operations.on_file import contacts_on_file, folded_names
from fhir_portal.resources.store import ResourceReader, ResourceTransaction
from fhir_portal.search.criterion import Criterion
from fhir_portal.search.registry import parameters_for
from fhir_portal.search.request import SearchRequest
from fhir_portal.search.values import Token

_MOST: Final = 50
ANOTHER_INVITES: Final = (
    "whoever invites is not who is invited: this has your name, or an address or number of yours; "
    "another member of staff can invite"
)
ANOTHER_CONFIRMS: Final = (
    "whoever invited, printed or sent the invitation, or used it, does not confirm it: another "
    "member of staff has to, with an account that shares no contact with theirs"
)

ANOTHER_MERGES: Final = (
    "whoever would see more by a merge does not carry it out, by whatever account: another member "
    "of staff can, or the practice's EHR"
)


class InvitedThemselves(Exception):
    """Whoever uses an invitation is one of the staff who made it, or seems to be."""


async def waits_for_confirmation(transaction: ResourceTransaction, invitation: Invitation) -> bool:
    """Whether what an invitation opens stays closed until somebody else confirmed who used it.

    Only of people who act for a patient, invited by staff: an EHR that may write grants could
    write them itself.
    """
    if invitation.relation == "self" or not invitation.handled_by:
        return False
    return (await policy_of(transaction, invitation.practice)).proxy_confirmation


async def require_another_invites(
    transaction: ResourceTransaction,
    practice: str,
    by: str,
    person: Mapping[str, Any],
    *,
    to: Iterable[str],
    country: str,
    now: float,
) -> None:
    """Refuse an invitation of a RelatedPerson that is one of the staff's own. Raises `Forbidden`.

    ``by`` is the account of who invites, ``""`` for none; ``to`` are the addresses and numbers that
    it goes to.
    """
    if not by:
        return
    own = await marks_of(transaction, practice, by, country=country, now=now, at_work=True)
    theirs = _marks_in(person, country=country, now=now) | {_contact(one) for one in to if one}
    tree = await _practitioner(transaction, practice, by)
    if own & theirs or set(folded_names(tree)) & set(folded_names(person)):
        raise Forbidden(ANOTHER_INVITES)


async def require_another_merges(
    transaction: ResourceTransaction,
    practice: str,
    by: str,
    *,
    accounts: Iterable[str],
    persons: Iterable[Mapping[str, Any]],
    now: float,
) -> None:
    """Refuse a merge by which the account ``by`` would see more. Raises `Forbidden`.

    ``accounts`` are those that would, ``persons`` the RelatedPersons and those who are invited.
    """
    for one in accounts:
        if await is_one_human(transaction, practice, by, one, now=now):
            raise Forbidden(ANOTHER_MERGES)
    country = (await policy_of(transaction, practice)).country
    own = await marks_of(transaction, practice, by, country=country, now=now, at_work=True)
    names = set(folded_names(await _practitioner(transaction, practice, by)))
    for tree in persons:
        if own & _marks_in(tree, country=country, now=now) or names & set(folded_names(tree)):
            raise Forbidden(ANOTHER_MERGES)


async def require_another_resumes(
    transaction: ResourceTransaction, member: StaffMember, by: str, *, now: float
) -> None:
    """Refuse who helped with a recovery, or is the member, to end what followed of it.

    By whatever account of theirs. Raises `NotPermitted`.
    """
    for one in (*member.helped_by, member.account):
        if await is_one_human(transaction, member.practice, by, one, now=now):
            raise NotPermitted(ANOTHER_RESUMES)


async def require_not_their_own(
    transaction: ResourceTransaction,
    invitation: Invitation,
    account: Account,
    persons: Iterable[Mapping[str, Any]],
    *,
    proved: Iterable[str],
    now: float,
) -> None:
    """Refuse that who made an invitation uses it themselves. Raises `InvitedThemselves`.

    ``persons`` are who the invited person is in the records, ``proved`` the contacts that were
    proved just now.
    """
    if account.key in invitation.handled_by:
        raise InvitedThemselves
    if invitation.relation == "self":
        return
    practice = invitation.practice
    country = (await policy_of(transaction, practice)).country
    theirs = await marks_of(transaction, practice, account.key, country=country, now=now)
    theirs |= {_contact(one) for one in proved}
    for tree in persons:
        theirs |= {(born, name) for born, name in _births_in(tree)}
    for one in invitation.handled_by:
        if theirs & await marks_of(transaction, practice, one, country=country, now=now):
            raise InvitedThemselves


async def require_another_confirms(
    transaction: ResourceTransaction, invitation: Invitation, by: str, *, now: float
) -> None:
    """Refuse whoever had another part in an invitation. Raises `Forbidden`."""
    for other in (*invitation.handled_by, invitation.redeemed_by or ""):
        if await is_one_human(transaction, invitation.practice, by, other, now=now):
            raise Forbidden(ANOTHER_CONFIRMS)


async def others_there(transaction: ResourceTransaction, invitation: Invitation, by: str) -> int:
    """Return how many of the practice's staff beside ``by`` could confirm such an invitation.

    Also those who had a part in this one: else whoever wants to be alone would only have to get a
    colleague to print it. It can be taken back and made anew, without them. Each account that is
    another Practitioner counts, whatever it shares with that of ``by``: where two may be one human
    or two, somebody is there.
    """
    practice = invitation.practice
    own = await transaction.get(StaffMember, staff_key(practice, by))
    mine = own.practitioner if own is not None else ""
    return sum(
        one.account not in (by, invitation.redeemed_by) and one.practitioner != mine
        for one in await members_with(transaction, practice, "proxies", works=works)
    )


async def is_one_human(
    reader: ResourceTransaction, practice: str, one: str, other: str, *, now: float
) -> bool:
    """Whether two accounts are one human's, as far as what is known of them at a practice tells."""
    if one == other:
        return True
    country = (await policy_of(reader, practice)).country
    found = [
        await marks_of(reader, practice, each, country=country, now=now) for each in (one, other)
    ]
    return not found[0].isdisjoint(found[1])


async def marks_of(
    reader: ResourceTransaction,
    practice: str,
    account: str,
    *,
    country: str,
    now: float,
    at_work: bool = False,
) -> frozenset[tuple[str, str]]:
    """Return by what the human behind an account is known, to tell whether two are one.

    Their proved contacts; name with birth date of the Patients that a practice knows them as, and
    of the Practitioner they are there, with its contacts: not those of the practice itself or of
    colleagues too, and those that are for work only with ``at_work``. Of no account: nothing.
    """
    found = {_contact(one.value) for one in await verified_contacts(reader, account)}
    tree = await _practitioner(reader, practice, account)
    shared = await _shared(reader, practice, tree, country=country, now=now)
    points = [one for one in tree.get("telecom") or () if at_work or one.get("use") != "work"]
    found |= _marks_in({**tree, "telecom": points}, country=country, now=now) - shared
    kept = await reader.get(Account, account)
    for entry in kept.persons if kept is not None else ():
        where, _, key = entry.partition("/")
        person = await _read(reader, practice, ResourceKey.parse(key)) if where == practice else {}
        for link in person.get("link") or ():
            target = local_target((link.get("target") or {}).get("reference") or "")
            if target is not None and target.type == "Patient":
                found |= set(_births_in(await _read(reader, practice, target)))
    return frozenset(found)


async def _shared(
    reader: ResourceTransaction,
    practice: str,
    tree: Mapping[str, Any],
    *,
    country: str,
    now: float,
) -> frozenset[tuple[str, str]]:
    """Return the contacts of the practice's Organization, and of its other Practitioners.

    One of the same name is no other: some have two entries in a directory.
    """
    values = [str(one["value"]) for one in tree.get("telecom") or () if one.get("value")]
    if not values:
        return frozenset()
    own = await reader.get(Practice, practice)
    organization = local_target(own.organization or "") if own is not None else None
    house = await _read(reader, practice, organization) if organization is not None else {}
    others = [{"telecom": house.get("telecom") or ()}]
    staff = await staff_of_practice(reader, practice)
    others += [await _practitioner(reader, practice, one.account) for one in staff]
    written = tuple(Token(None, one) for one in values)
    page = await reader.search(
        SearchRequest(
            "Practitioner",
            (Criterion(parameters_for("Practitioner")["telecom"], "", written),),
            count=_MOST,
        ),
        Visibility.of_server("Practitioner", practice=practice),
    )
    others += [json.parse(row.body) for row in page.rows]
    names, found = set(folded_names(tree)), set[tuple[str, str]]()
    for other in others:
        is_itself = other.get("id") == tree.get("id")
        if not is_itself and names.isdisjoint(folded_names(other)):
            telecom = {"telecom": other.get("telecom") or ()}
            found |= _marks_in(telecom, country=country, now=now)
    return frozenset(found)


def _marks_in(tree: Mapping[str, Any], *, country: str, now: float) -> frozenset[tuple[str, str]]:
    contacts = {_contact(one.value) for one in contacts_on_file(tree, country=country, now=now)}
    return frozenset(contacts | set(_births_in(tree)))


def _births_in(tree: Mapping[str, Any]) -> list[tuple[str, str]]:
    born = tree.get("birthDate")
    return [(str(born), name) for name in folded_names(tree)] if born else []


def _contact(value: str) -> tuple[str, str]:
    """A contact as one of one human's: all addresses of one mailbox are the same."""
    return "contact", mailbox_of("mail" if "@" in value else "sms", value)


async def _practitioner(reader: ResourceTransaction, practice: str, account: str) -> dict[str, Any]:
    member = await reader.get(StaffMember, staff_key(practice, account))
    key = local_target(member.practitioner) if member is not None else None
    return await _read(reader, practice, key) if key is not None else {}


async def _read(reader: ResourceReader, practice: str, key: ResourceKey) -> dict[str, Any]:
    row = await reader.read(key, Visibility.of_server(key.type, practice=practice))
    return {} if row is None or row.deleted else json.parse(row.body)
