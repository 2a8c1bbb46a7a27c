"""Inviting somebody: all that one invitation makes, in the transaction of whoever invites.

An operation and an event rule both come here. What is made: the `Invitation` and its Task in each
record, the RelatedPerson where there is none, a proposed grant for each record, the messages, the
job that ends it, and the Provenance of all this. The caller has decided who may do so, and shows
the patients' rows as the one who invites may see them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fhir_portal.access.visibility import Visibility
from fhir_portal.accounts.invitation import (
    LIVE,
    AlreadyInvited,
    Invitation,
    InvitationSecrets,
    LiveInvitation,
    issue,
    with_handler,
)
from fhir_portal.accounts.policy import PracticePolicy, policy_of
from fhir_portal.accounts.practice import Practice
from fhir_portal.fhir import json
from fhir_portal.fhir.errors import Conflict, Forbidden, Issue, Unprocessable
from fhir_portal.fhir.reference import ResourceKey
from fhir_portal.operations.authorship import Author, record_provenance
from fhir_portal.operations.call import acting_for
from fhir_portal.operations.definition import parameter
from fhir_portal.operations.four_eyes import require_another_invites
from fhir_portal.operations.invitation_count import count_attempt
from fhir_portal.operations.invitation_end import expire_later
from fhir_portal.operations.invitation_messages import send, stream_of
from fhir_portal.operations.invitation_task import (
    InvitationTask,
    follow,
    hand_over,
    has_grant,
    reject_grants,
    task_of,
)
from fhir_portal.operations.invitation_way import HANDED_OVER, Way, lifetime_of, way_of
from fhir_portal.operations.invitation_wish import ForAnother, Wish
from fhir_portal.operations.no_more_invitations import NoMoreInvitations
from fhir_portal.operations.on_file import (
    account_of_record,
    contacts_on_file,
    has_account,
    may_be_invited,
    related_persons_of,
    seem_the_same,
)
from fhir_portal.operations.proposed_grant import propose_grant
from fhir_portal.operations.unproved_links import free_again
from fhir_portal.resources.server import Server
from fhir_portal.resources.store import ResourceTransaction, Row
from fhir_portal.resources.writing import create_in


@dataclass(frozen=True, slots=True)
class Invited:
    """What was made."""

    invitation: Invitation
    rows: tuple[Row, ...] = field(default=())


async def invite(
    transaction: ResourceTransaction,
    server: Server,
    secrets: InvitationSecrets,
    wish: Wish,
    *,
    patients: Sequence[Row],
    author: Author,
    practice: Practice,
) -> Invited:
    """Invite somebody to the records of ``patients``, of one practice.

    Raises:
        Forbidden: the practice lets nobody of this kind begin. Unprocessable: what is asked cannot
        be. Conflict: the person is invited already, has access already, or seems to be known.
        TooManyRequests: the practice has invited too many this hour.
    """
    return await _Inviting(
        transaction, server, secrets, wish, author, practice,
        policy=await policy_of(transaction, practice.key), now=server.clock(),
    ).invite(patients)  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Inviting:
    """One invitation on its way."""

    transaction: ResourceTransaction
    server: Server
    secrets: InvitationSecrets
    wish: Wish
    author: Author
    practice: Practice
    policy: PracticePolicy
    now: float

    async def invite(self, patients: Sequence[Row]) -> Invited:
        if not self.policy.lets_invite(self.author.beginner):
            message = "this practice does not let you begin an invitation"
            raise Forbidden(message)
        await count_attempt(self.transaction, self.policy, self.author.beginner, now=self.now)
        records = [(row, json.parse(row.body)) for row in patients]
        for _, tree in records:
            if tree.get("active") is False:
                message = "this Patient is not active"
                raise Unprocessable(message)
        made: list[Row] = []
        if self.wish.another is None:
            persons = [await self._oneself(*record) for record in records]
        else:
            persons = [await self._another(row, made) for row in patients]
        way = way_of(
            self.policy, channel=self.wish.channel, contact=self.wish.contact,
            on_file=contacts_on_file(persons[0][1], country=self.policy.country, now=self.now),
        )  # fmt: skip
        names = [person for person, _ in persons]
        if self.wish.another is not None:
            for _, invited in persons:
                await require_another_invites(
                    self.transaction, self.practice.key, self.author.account, invited,
                    to=[way.to, way.code.value if way.code is not None else ""],
                    country=self.policy.country, now=self.now,
                )  # fmt: skip
        await self._not_unwanted(names)
        grants: list[Row] = []
        if self.wish.another is not None:
            for (row, tree), person in zip(records, names, strict=True):
                if not await self._proves_again(row.key.id, person):
                    grants.append(await self._proposed(row, tree, person))
        kept = await self._issue([str(row.key) for row in patients], names, grants, way)
        tasks = await self._tasks(kept)
        await self._told_of(tasks, [*made, *grants])
        stream = stream_of(self.policy, self.author)
        await send(self.transaction, self.server, kept, way, now=self.now, stream=stream)
        await expire_later(self.transaction, kept, now=self.now)
        if kept.channel in HANDED_OVER:
            kept = await hand_over(self.transaction, self.server, kept)
        return Invited(kept, (*patients, *made, *grants, *tasks))

    async def _proposed(self, row: Row, patient: Mapping[str, Any], person: str) -> Row:
        return await propose_grant(
            self.transaction, self.server, self.wish, row, patient, person, author=self.author,
            practice=self.practice, policy=self.policy, now=self.now,
        )  # fmt: skip

    async def _oneself(self, row: Row, tree: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
        if not may_be_invited(tree):
            message = "this Patient is recorded as deceased"
            raise Unprocessable(message)
        if await has_account(self.transaction, self.practice.key, row.key):
            message = "this person has an account; help them back into it instead"
            raise Conflict(message)
        return str(row.key), tree

    async def _another(self, row: Row, made: list[Row]) -> tuple[str, Mapping[str, Any]]:
        """Return the RelatedPerson for a patient, made if there is none."""
        another = self.wish.another
        assert another is not None  # noqa: S101 - the caller asked
        given = another.persons.get(row.key.id)
        if given is not None:
            await self._free(ResourceKey("RelatedPerson", given["id"]))
            found = await has_grant(
                self.transaction, self.practice.key, row.key.id, given["id"], now=self.now
            )
            if found is not None and await self._is_closed(f"RelatedPerson/{given['id']}"):
                self._refuse_terms(another)
            elif found is not None:
                message = f"this person has access by Consent/{found.consent}; end that one first"
                raise Conflict(message)
            return f"RelatedPerson/{given['id']}", given
        tree = self._new_person(row, another)
        await self._not_known(row, tree)
        written = await create_in(
            self.transaction, self.server, acting_for(self.practice.key, self.author.client), tree,
            Visibility.of_server("RelatedPerson", practice=self.practice.key),
            resource_id=self.server.new_id(),
        )  # fmt: skip
        made.append(written.row)
        return str(written.row.key), tree

    async def _free(self, person: ResourceKey) -> None:
        """Let go of a RelatedPerson whom somebody has by an invitation that nobody confirmed."""
        holder = await account_of_record(self.transaction, self.practice.key, person)
        if holder is not None:
            await free_again(self.transaction, self.server, self.secrets, self.practice.key, holder)

    async def _is_closed(self, person: str) -> bool:
        """Whether a RelatedPerson's account has to prove again here who it belongs to.

        Another practice helped to recover it (DESIGN §3.6).
        """
        whose = (self.transaction, self.practice.key, ResourceKey.parse(person))
        return await account_of_record(*whose) is not None and not await has_account(*whose)

    async def _proves_again(self, patient: str, person: str) -> bool:
        """Whether an invitation renews the proof alone: the grant that there is goes on."""
        found = await has_grant(
            self.transaction, self.practice.key, patient, person.partition("/")[2], now=self.now
        )
        return found is not None and await self._is_closed(person)

    def _refuse_terms(self, another: ForAnother) -> None:
        """Refuse what would change a grant that only goes on."""
        given: dict[str, Any] = {
            "section": another.sections,
            "period": another.start or another.end,
            "basis": another.basis,
            "evidence": another.evidence,
        }
        for name, value in given.items():
            if value:
                message = (
                    "this person proves again who they are, and their access stays as it is: "
                    f"leave {name} out"
                )
                raise Unprocessable(message, expression=parameter(name))

    def _new_person(self, row: Row, another: ForAnother) -> dict[str, Any]:
        model = next(iter(another.persons.values()), {})
        name = another.name or next(iter(model.get("name") or ()), None)
        relationship = another.relationship or next(iter(model.get("relationship") or ()), None)
        if not name or not any(name.get(part) for part in ("text", "family", "given")):
            message = "say who is invited: a related-person, or the name of a new one"
            raise Unprocessable(message, expression=parameter("name"))
        if not relationship:
            message = "say what the new RelatedPerson is to the patient"
            raise Unprocessable(message, expression=parameter("relationship"))
        tree: dict[str, Any] = {
            "resourceType": "RelatedPerson",
            "active": True,
            "patient": {"reference": str(row.key)},
            "relationship": [relationship],
            "name": [name],
        }
        telecom = list(another.telecom) or list(model.get("telecom") or ())
        return tree | ({"telecom": telecom} if telecom else {})

    async def _not_known(self, row: Row, tree: Mapping[str, Any]) -> None:
        if self.wish.force:
            return
        issues = [
            Issue("duplicate", f"{one.key} {why}: invite that one, or use force")
            for one, other in await related_persons_of(self.transaction, self.practice.key, row.key)
            if (why := seem_the_same(tree, other, country=self.policy.country, now=self.now))
        ]
        if issues:
            raise Conflict(issues=issues)

    async def _not_unwanted(self, persons: Sequence[str]) -> None:
        for person in persons:
            key = f"{self.practice.key}/{person}"
            found = await self.transaction.get(NoMoreInvitations, key)
            if found is None:
                continue
            if not self.wish.force:
                message = "this person wanted no more invitations; use force if they do now"
                if found.closed:
                    message = "the portal was ended for this person; use force to invite them again"
                raise Conflict(message)
            if not found.closed:  # that stands until the invitation is redeemed
                await self.transaction.delete(NoMoreInvitations, key)

    async def _issue(
        self,
        patients: Sequence[str],
        persons: Sequence[str],
        grants: Sequence[Row],
        way: Way,
    ) -> Invitation:
        task, *further = (self.server.new_id() for _ in patients)
        key = f"{self.practice.key}/Task/{task}"
        invitation = Invitation(
            key=key,
            practice=self.practice.key,
            invitee=f"{self.practice.key}/{persons[0]}",
            patients=tuple(patients),
            persons=tuple(persons),
            relation=self.wish.kind,
            channel=way.channel,
            created=self.now,
            ends=self.now + lifetime_of(self.policy, way.channel, self.wish.lifetime),
            grants=tuple(str(row.key) for row in grants),
            tasks=tuple(further),
            to=way.to,
            is_named=way.is_named,
            code_by=way.code_by,
            code_to=way.code.value if way.code is not None else "",
            by=self.author.who.get("reference", ""),
            changed=self.now,
            handled_by=with_handler((), self.author.account),
        )
        over = await self._over(invitation)
        try:
            kept = await issue(self.transaction, self.secrets, invitation)
        except AlreadyInvited as error:
            message = (
                f"this person has an invitation that can be used, {error.key.partition('/')[2]}: "
                "send that one again, or revoke it"
            )
            raise Conflict(message) from None
        for one in over:
            ended = await self.transaction.get(Invitation, one)
            if ended is not None:
                await follow(self.transaction, self.server, ended)
                await reject_grants(self.transaction, self.server, ended)
        for own_id in further:
            await self.transaction.insert(
                InvitationTask(key=f"{self.practice.key}/Task/{own_id}", invitation=key)
            )
        return kept

    async def _over(self, invitation: Invitation) -> list[str]:
        """Return the invitations that this one takes the place of: live by name, and over."""
        found: dict[str, None] = {}
        for invitee in invitation.invitees:
            live = await self.transaction.get(LiveInvitation, invitee)
            there = await self.transaction.get(Invitation, live.invitation) if live else None
            if there is not None and there.state in LIVE and not there.is_usable(self.now):
                found[there.key] = None
        return list(found)

    async def _tasks(self, invitation: Invitation) -> list[Row]:
        rows = []
        tasks = (invitation.task, *invitation.tasks)
        for own_id, patient, person in zip(
            tasks, invitation.patients, invitation.persons, strict=True
        ):
            written = await create_in(
                self.transaction, self.server, acting_for(self.practice.key, self.author.client),
                task_of(invitation, patient, person, requester=self.author.requester),
                Visibility.of_server("Task", practice=self.practice.key),
                resource_id=own_id,
            )  # fmt: skip
            rows.append(written.row)
        return rows

    async def _told_of(self, tasks: Sequence[Row], made: Sequence[Row]) -> None:
        """Store one Provenance in each record: nobody learns of the others."""
        for row in tasks:
            targets = [one.key for one in (row, *made) if one.facts.owners == row.facts.owners]
            await record_provenance(
                self.transaction, self.server, self.practice.key, self.author,
                [str(key) for key in targets], activity="CREATE", reason=self.wish.reason,
            )  # fmt: skip


def invitation_secrets(derive: Callable[..., bytes]) -> InvitationSecrets:
    """Return what makes the secrets of invitations, by the server's key for them."""
    return InvitationSecrets(derive("invitations"))
