"""Redeeming: what somebody proved becomes an account's access to records, in one transaction.

With an invitation or, for one's own record, by the mail address that the practice has. Of two who
redeem one invitation the first wins; nothing is half done. Person, RelatedPerson, grants and Task
are the practice's own; no other practice's record is touched, and no session or token of anybody.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from zoneinfo import ZoneInfo

from fhir_portal.access.context import AuthContext
from fhir_portal.access.log import AccessRow
from fhir_portal.access.owed import owe, pay
from fhir_portal.access.owners import local_target
from fhir_portal.access.visibility import Visibility
from fhir_portal.accounts import invitation as invitations
from fhir_portal.accounts.account import (
    Account,
    UnknownAccount,
    account_of_person,
    add_alias,
    add_person,
    insert_account,
)
from fhir_portal.accounts.activation import Activation, ActivationOver
from fhir_portal.accounts.assisted_recovery import reopen
from fhir_portal.accounts.assurance import LEAST, Evidence, higher, level_of, reaches
from fhir_portal.accounts.contacts import (
    Contact,
    Medium,
    TooManyContacts,
    add_contact,
    new_contact,
    verify_contact,
)
from fhir_portal.accounts.invitation import Invitation, InvitationSecrets, NotUsable
from fhir_portal.accounts.policy import policy_of
from fhir_portal.accounts.practice import Practice
from fhir_portal.accounts.proof import Write
from fhir_portal.accounts.sessions import Visitor, still_signed_in
from fhir_portal.fhir import json
from fhir_portal.fhir.datetime import instant
from fhir_portal.fhir.reference import ResourceKey
from fhir_portal.notify import outbox
from fhir_portal.notify.recipients import to_account, to_address
from fhir_portal.operations.call import Collaborators, acting_for
from fhir_portal.operations.four_eyes import require_not_their_own, waits_for_confirmation
from fhir_portal.operations.invitation_end import expire_unconfirmed_later
from fhir_portal.operations.invitation_task import activate_grants, follow
from fhir_portal.operations.inviting import invitation_secrets
from fhir_portal.operations.new_proxy import tell_of_proxy
from fhir_portal.operations.no_more_invitations import NoMoreInvitations, is_closed_for
from fhir_portal.operations.on_file import may_be_invited
from fhir_portal.operations.sending import Addressee, SendLog
from fhir_portal.resources.server import Server
from fhir_portal.resources.store import ResourceReader, ResourceTransaction, Row
from fhir_portal.resources.writing import create_in, update_in
from fhir_portal.search.registry import parameters_for

CLIENT: Final = "portal"
"""Who the access log says it was."""
_ACTIVITY: Final = "http://terminology.hl7.org/CodeSystem/v3-DataOperation"
_MOST_PERSONS: Final = 20
_MICROSECONDS: Final = 1_000_000

_WORDS: Final[Mapping[str, str]] = {
    "link": "Opened the link of the invitation",
    "security-code": "Gave the security code",
    "activation-word": "Gave portal ID and activation word of the printed sheet",
    "one-time-code": "Gave a one-time code",
    "birth-date": "Gave the birth date",
    "postal-code": "Gave the postal code",
    "name": "Gave the name",
    "initials": "Gave the initials",
}
_OVER_WORDS: Final[Mapping[str, str]] = {
    "mail": "sent by mail",
    "sms": "sent by SMS",
    "letter": "sent by post",
    "paper": "printed",
    "hand": "told or shown by staff",
    "desk": "handed over at the desk",
    "record": "as it is on file",
}


class AlreadyTaken(Exception):
    """Another account is this person at the practice already."""


class ClosedHere(Exception):
    """The practice's records are closed for the account, and this does not prove its owner."""


@dataclass(frozen=True, slots=True)
class Redemption:
    """What is to be redeemed, and for whom.

    ``activation`` is used up. ``account`` is a new one (with its credentials in ``also``), or
    ``visitor`` is signed in to the one that gets the records.
    """

    activation: Activation
    account: Account
    visitor: Visitor | None = None
    also: tuple[Write, ...] = ()

    @property
    def is_new(self) -> bool:
        """Whether the account is made by it."""
        return self.visitor is None


async def redeem(server: Server, collaborators: Collaborators, redemption: Redemption) -> Account:
    """Carry a redemption out; return the account as it is then.

    Raises:
        ActivationOver: the activation was used, changed or is over; or too little was proved.
        NotUsable: the invitation was redeemed, revoked, sent again, or is over.
        AlreadyTaken: the person at the practice is another account's.
        ClosedHere: the account was recovered with another practice's help, and what was proved is
        not that it belongs to who this practice knows as its owner.
        InvitedThemselves: they are on the staff, and made the invitation.
        DuplicateAccount, InvalidUsername, SignedOutMeanwhile: about the account.
    """
    now, before = server.clock(), redemption.activation
    drafted = [
        new_contact(
            redemption.account.key, one.medium, one.value, now=now, random=collaborators.random
        )
        for one in before.proved_contacts
    ]
    unproved = [
        new_contact(redemption.account.key, "mail", text, now=now, random=collaborators.random)
        for text in [before.contact]
        if text
    ]
    work = _Work(
        server=server,
        secrets=invitation_secrets(collaborators.derive),
        redemption=redemption,
        now=now,
        auth=acting_for(before.practice, CLIENT),
        person_id=server.new_id(),
        provenance_id=server.new_id(),
        proved=tuple(drafted),
        unproved=tuple(unproved),
        once=collaborators.random(12).hex(),
    )
    store: Any = server.store  # records too: `fhir_portal.resources.store.PortalStore`
    account: Account = await store.transact(work)
    await pay(store, server.log, work.once)
    return account


def _lines(before: Activation, account: Account, *, now: float) -> list[AccessRow]:
    """What the log of each record says of it."""
    return [
        AccessRow(
            at=int(now * 1000),
            practice=before.practice,
            record=patient.partition("/")[2],
            interaction="$redeem-invite",
            what=person,
            status=200,
            client=CLIENT,
            context="patient",
            agent=person,
            account=account.key,
            detail=", ".join(f"{one.what} ({one.over})" for one in before.evidence),
        )
        for patient, person in zip(before.patients, before.persons, strict=True)
    ]


@dataclass(frozen=True, slots=True)
class _Work:
    """The transaction; what it draws by chance is drawn before, for it may be run again."""

    server: Server
    secrets: InvitationSecrets
    redemption: Redemption
    now: float
    auth: AuthContext
    person_id: str
    provenance_id: str
    proved: tuple[Contact, ...]
    unproved: tuple[Contact, ...]
    once: str

    async def __call__(self, transaction: ResourceTransaction) -> Account:
        redemption, before = self.redemption, self.redemption.activation
        if not before.persons or await transaction.get(Activation, before.key) != before:
            raise ActivationOver
        if self.now >= before.expires:
            raise ActivationOver
        practice = await transaction.get(Practice, before.practice)
        if practice is None:
            raise ActivationOver
        await transaction.delete(Activation, before.key)
        invitation = await self._invitation(transaction)
        persons = await self._persons(transaction)
        if redemption.visitor is None:
            await insert_account(transaction, redemption.account)
            account: Account | None = redemption.account
        else:
            await still_signed_in(transaction, redemption.visitor, self.now)
            account = await transaction.get(Account, redemption.account.key)
        if account is None or account.disabled:
            raise UnknownAccount(redemption.account.key)
        is_closed = practice.key in account.closed_at
        if is_closed and not await self._is_its_owner(transaction, account):
            raise ClosedHere
        waits = False
        if invitation is not None:
            await require_not_their_own(
                transaction, invitation, account, [tree for _, tree in persons],
                proved=[one.value for one in before.proved_contacts], now=self.now,
            )  # fmt: skip
            waits = await waits_for_confirmation(transaction, invitation)
        if is_closed and not waits:
            account = await reopen(transaction, account, practice.key)
        account, person = await self._person(
            transaction, account, practice, persons, () if waits else before.evidence
        )
        changed = [f"{person.key}/_history/{person.version}"]
        if invitation is not None:
            if not waits:
                zone = ZoneInfo(practice.zone)
                await activate_grants(transaction, self.server, invitation, zone=zone)
                changed += invitation.grants
            ended = await invitations.end(
                transaction, self.secrets, invitation, "awaiting" if waits else "redeemed",
                now=self.now, account=account.key, assurance=level_of(before.evidence),
            )  # fmt: skip
            for invitee in ended.invitees:  # whoever was not to come back has come back
                await transaction.delete(NoMoreInvitations, invitee)
            tasks = await follow(transaction, self.server, ended)
            changed += [f"{row.key}/_history/{row.version}" for row in tasks]
            if waits:
                await expire_unconfirmed_later(transaction, ended, now=self.now)
            if not waits and invitation.relation != "self":
                await tell_of_proxy(transaction, self.server, ended, once=self.once)
        await self._provenance(transaction, changed)
        for write in redemption.also:
            await write(transaction)
        await self._contacts(transaction, account)
        await self._tell(transaction, account, waits=waits)
        await owe(transaction, self.once, _lines(before, account, now=self.now), now=self.now)
        return account

    async def _invitation(self, transaction: ResourceTransaction) -> Invitation | None:
        """The invitation as it is now; somebody's own live one is redeemed with their record."""
        before = self.redemption.activation
        if not (await policy_of(transaction, before.practice)).portal:
            raise NotUsable
        key = before.invitation
        if key is None:
            invitee = f"{before.practice}/{before.persons[0]}"
            if await is_closed_for(transaction, invitee):
                raise NotUsable
            live = await transaction.get(invitations.LiveInvitation, invitee)
            found = await transaction.get(Invitation, live.invitation) if live else None
            is_theirs = found is not None and found.persons == before.persons
            return found if is_theirs and found is not None and found.is_usable(self.now) else None
        found = await transaction.get(Invitation, key)
        # Tries may be used up by now, but not by whoever proved so much: that is looked at by
        # `end`, with all else.
        if found is None or found.attempt != before.attempt or found.practice != before.practice:
            raise NotUsable
        # It may be for another record by now (`$merge`): that moves what is under way, too.
        if (found.patients, found.persons) != (before.patients, before.persons):
            raise NotUsable
        for invitee in found.invitees:
            ended = await transaction.get(NoMoreInvitations, invitee)
            if ended is not None and ended.closed and found.created < ended.since:
                raise NotUsable  # what was made before the portal ended for them brings nobody back
        return found

    async def _persons(
        self, transaction: ResourceTransaction
    ) -> list[tuple[ResourceKey, Mapping[str, Any]]]:
        """Who the person is at the practice, still; what was proved must open each of them."""
        before, level = self.redemption.activation, level_of(self.redemption.activation.evidence)
        policy = await policy_of(transaction, before.practice)
        found: list[tuple[ResourceKey, Mapping[str, Any]]] = []
        for patient, person in zip(before.patients, before.persons, strict=True):
            key = local_target(person)
            tree = await self._resource(transaction, key) if key is not None else None
            if key is None or tree is None or not may_be_invited(tree):
                raise NotUsable
            least = policy.assurance if key.type == "Patient" else policy.assurance_for_others
            of = person if key.type == "Patient" else (tree.get("patient") or {}).get("reference")
            if of != patient:
                raise NotUsable
            if not reaches(level, least):
                raise ActivationOver
            found.append((key, tree))
        return found

    async def _is_its_owner(self, transaction: ResourceTransaction, account: Account) -> bool:
        """Whether what was proved is to be whom the practice knows the account's owner as.

        Anybody else's record, such as that of whoever got hold of the account, proves nothing
        about its owner.
        """
        practice = self.auth.practice
        own = next((p for p in account.persons if p.partition("/")[0] == practice), None)
        if own is None:
            return False
        tree = await self._resource(transaction, ResourceKey.parse(own.partition("/")[2]))
        known = {
            (link.get("target") or {}).get("reference")
            for link in (tree or {}).get("link") or ()
            if reaches(link.get("assurance"), LEAST)
        }
        return not known.isdisjoint(self.redemption.activation.persons)

    async def _person(
        self,
        transaction: ResourceTransaction,
        account: Account,
        practice: Practice,
        persons: Sequence[tuple[ResourceKey, Mapping[str, Any]]],
        evidence: Sequence[Evidence],
    ) -> tuple[Account, Row]:
        """Link the account's Person at the practice to each of them; make it if there is none.

        Without ``evidence`` the links open nothing.
        """
        targets = [str(key) for key, _ in persons]
        own = next((p for p in account.persons if p.partition("/")[0] == practice.key), None)
        free: Row | None = None
        for row in await self._persons_of(transaction, [key for key, _ in persons]):
            whose = await account_of_person(transaction, f"{practice.key}/{row.key}")
            if whose is not None and whose.key != account.key:
                raise AlreadyTaken
            tree = json.parse(row.body)
            links = tree.get("link") or ()
            said = {(one.get("target") or {}).get("reference") for one in links}
            # One that an EHR made for these alone; with more links it would open more.
            is_usable = tree.get("active") is not False and said <= set(targets)
            if whose is None and free is None and is_usable:
                free = row
        visible = Visibility.of_server("Person", practice=practice.key)
        if own is not None:
            key = ResourceKey.parse(own.partition("/")[2])
            there = await transaction.read(key, visible)
            if there is None or there.deleted:
                raise NotUsable
        else:
            there = free
            key = there.key if there is not None else ResourceKey("Person", self.person_id)
            account = await add_person(transaction, account, f"{practice.key}/{key}")
        tree = json.parse(there.body) if there is not None else self._new_person(practice, persons)
        tree["link"] = _linked(
            tree.get("link") or (),
            targets,
            evidence,
            keep=own is not None,
        )
        if there is None:
            written = await create_in(
                transaction, self.server, self.auth, tree, visible, resource_id=key.id
            )
        else:
            written = await update_in(
                transaction,
                self.server,
                self.auth,
                tree,
                visible,
                key=key,
                if_match=None,
                if_none_match=None,
            )
        return account, written.row

    async def _persons_of(
        self, transaction: ResourceTransaction, keys: Sequence[ResourceKey]
    ) -> list[Row]:
        return await transaction.referring(
            parameters_for("Person")["link"],
            list(keys),
            Visibility.of_server("Person", practice=self.auth.practice),
            limit=_MOST_PERSONS,
        )

    def _new_person(
        self, practice: Practice, persons: Sequence[tuple[ResourceKey, Mapping[str, Any]]]
    ) -> dict[str, Any]:
        tree: dict[str, Any] = {"resourceType": "Person"}
        names = next((one["name"] for _, one in persons if one.get("name")), None)
        if names:
            tree["name"] = names
        if practice.organization:
            tree["managingOrganization"] = {"reference": practice.organization}
        return {**tree, "active": True}

    async def _provenance(self, transaction: ResourceTransaction, changed: Sequence[str]) -> None:
        """Record what was proved, over which channel and when; no contact is named."""
        before = self.redemption.activation
        evidence = [
            {
                "role": "source",
                "what": {
                    "display": f"{_WORDS[one.what]}, {_OVER_WORDS[one.over]}, {_instant(one.at)}"
                },
            }
            for one in before.evidence
        ]
        tree: dict[str, Any] = {
            "resourceType": "Provenance",
            "target": [{"reference": one} for one in changed],
            "recorded": _instant(self.now),
            "activity": {"coding": [{"system": _ACTIVITY, "code": "UPDATE"}]},
            "agent": [{"who": {"reference": before.persons[0]}}],
            "entity": evidence,
        }
        await create_in(
            transaction,
            self.server,
            self.auth,
            tree,
            Visibility.of_server("Provenance", practice=self.auth.practice),
            resource_id=self.provenance_id,
        )

    async def _contacts(self, transaction: ResourceTransaction, account: Account) -> None:
        is_news = False
        for contact in self.proved:
            try:
                kept = await add_contact(transaction, contact)
            except TooManyContacts:
                continue
            is_news = is_news or kept.verified is None
            await verify_contact(
                transaction,
                account.key,
                kept.key,
                now=self.now,
                is_first=self.redemption.is_new,
            )
            if kept.medium == "mail":
                await add_alias(transaction, account.key, kept.value)
        for contact in self.unproved:
            await add_contact(transaction, contact)
        if is_news and not self.redemption.is_new:
            await outbox.enqueue(
                transaction,
                key=f"contact-added.{self.once}",
                practice=self.auth.practice,
                channel="mail",
                to=to_account(account.key),
                template="security-contact-added",
                now=self.now,
            )

    async def _tell(
        self, transaction: ResourceTransaction, account: Account, *, waits: bool
    ) -> None:
        """Tell the owner, and every contact that the practice has of the person."""
        before = self.redemption.activation
        proved = {(one.medium, one.value) for one in before.proved_contacts}
        told: list[tuple[Medium, str]] = [("mail", to_account(account.key))]
        told += [
            (one.medium, to_address(one.medium, one.value))
            for one in before.file_contacts
            if (one.medium, one.value) not in proved
        ]
        event = "account-created" if self.redemption.is_new else "record-added"
        if waits and not self.redemption.is_new:
            told = []  # nothing was added yet
        whom = [
            Addressee(patient, (person,))
            for patient, person in zip(before.patients, before.persons, strict=True)
        ]
        for number, (medium, to) in enumerate(told):
            key = f"{event}.{self.once}.{number}"
            await outbox.enqueue(
                transaction,
                key=key,
                practice=before.practice,
                channel=medium,
                to=to,
                template=event,
                now=self.now,
            )
            if number:  # that to the account has no address yet
                await SendLog(self.server).log(
                    transaction,
                    key,
                    practice=before.practice,
                    channel=medium,
                    template=event,
                    addressees=whom,
                )
        if waits:
            await outbox.enqueue(
                transaction,
                key=f"record-waits.{self.once}",
                practice=before.practice,
                channel="mail",
                to=to_account(account.key),
                template="record-waits",
                now=self.now,
            )

    async def _resource(self, reader: ResourceReader, key: ResourceKey) -> dict[str, Any] | None:
        visible = Visibility.of_server(key.type, practice=self.auth.practice)
        row = await reader.read(key, visible)
        return None if row is None or row.deleted else json.parse(row.body)


def _linked(
    links: Sequence[Mapping[str, Any]],
    targets: Sequence[str],
    evidence: Sequence[Evidence],
    *,
    keep: bool,
) -> list[dict[str, Any]]:
    """The links with these among them; an assurance of before counts if ``keep`` says so."""
    level = level_of(evidence)
    found = [dict(one) for one in links]
    for target in targets:
        there = [one for one in found if (one.get("target") or {}).get("reference") == target]
        if not there:
            found.append({"target": {"reference": target}, "assurance": level})
        for one in there:
            before = one.get("assurance") if keep else None
            one["assurance"] = higher([before], level)
    return found


def _instant(at: float) -> str:
    return instant(int(at * _MICROSECONDS))
