"""Inviting somebody: all that one invitation makes, in the transaction of whoever invites.

An operation and an event rule both come here. What is made: the `Invitation` and its Task in each
record, the RelatedPerson where there is none, a proposed grant for each record, the messages, the
job that ends it, and the Provenance of all this. The caller has decided who may do so, and shows
the patients' rows as the one who invites may see them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, ClassVar, Final
from zoneinfo import ZoneInfo

import msgspec

from fhir_portal.access.owners import local_target
from fhir_portal.access.visibility import Visibility
from fhir_portal.accounts.contacts import (
    InvalidContact,
    Medium,
    mail_address,
    telephone_number,
)
from fhir_portal.accounts.invitation import (
    CODE_PREFIX,
    CONFIRMABLE_SECONDS,
    HOUR,
    LINK_PREFIX,
    LIVE,
    LONGEST,
    SHORTEST,
    AlreadyInvited,
    Channel,
    CodeBy,
    Invitation,
    InvitationSecrets,
    Kind,
    LiveInvitation,
    State,
    advance,
    end,
    issue,
    with_handler,
)
from fhir_portal.accounts.policy import Beginner, PracticePolicy, policy_of
from fhir_portal.accounts.practice import Practice
from fhir_portal.consent.grant import CATEGORY, read_grant
from fhir_portal.consent.presets import BASES, PRESETS, Basis, ProxyKind
from fhir_portal.consent.sections import SECTION_SYSTEM, section_displays
from fhir_portal.fhir import json
from fhir_portal.fhir.datetime import instant
from fhir_portal.fhir.errors import (
    Conflict,
    Forbidden,
    Issue,
    TooManyRequests,
    Unprocessable,
)
from fhir_portal.fhir.reference import ResourceKey
from fhir_portal.notify import jobs, outbox
from fhir_portal.notify.outbox import Stream
from fhir_portal.operations.authorship import Author, restricted
from fhir_portal.operations.call import acting_for
from fhir_portal.operations.four_eyes import require_another_invites
from fhir_portal.operations.invitation_task import (
    InvitationTask,
    follow,
    has_grant,
    reject_grants,
    task_of,
)
from fhir_portal.operations.on_file import (
    OnFile,
    account_of_record,
    contacts_on_file,
    has_account,
    last_day_under,
    may_be_invited,
    related_persons_of,
    seem_the_same,
)
from fhir_portal.operations.sending import Addressee, SendLog
from fhir_portal.operations.unproved_links import free_again
from fhir_portal.records import Record, RecordReader, RecordTransaction
from fhir_portal.resources.server import Server
from fhir_portal.resources.store import ResourceTransaction, Row
from fhir_portal.resources.writing import create_in

EXPIRE: Final = "expire-invitation"
"""The name of the job that ends an invitation."""
SENT_BY_US: Final[Mapping[Channel, Medium]] = {"mail": "mail", "sms": "sms"}
HANDED_OVER: Final[frozenset[Channel]] = frozenset({"letter", "paper", "desk"})
_MICROSECONDS: Final = 1_000_000
_ACTION: Final = "http://terminology.hl7.org/CodeSystem/consentaction"
_BASES_OF: Final[Mapping[ProxyKind, frozenset[Basis]]] = {
    "guardian": frozenset({"parent", "guardian", "court-order"}),
    "representative": frozenset({"guardian", "court-order", "power-of-attorney", "consent-form"}),
    "caregiver": frozenset(BASES),
    "payer": frozenset(BASES),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ForAnother:
    """What is asked for somebody who acts for the patients.

    ``persons`` and ``evidence`` are by Patient id: the RelatedPerson's resource, and the text of
    the reference to a DocumentReference of that patient. ``telecom``, ``name`` and ``relationship``
    are a new RelatedPerson's. Without ``sections`` (code, whether to act) the preset counts.
    """

    persons: Mapping[str, Mapping[str, Any]]
    basis: Basis | None
    evidence: Mapping[str, str]
    name: Mapping[str, Any] | None = None
    relationship: Mapping[str, Any] | None = None
    telecom: Sequence[Mapping[str, Any]] = ()
    sections: Sequence[tuple[str, bool]] = ()
    start: str | None = None
    end: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What is asked for; ``lifetime`` is in seconds, ``another`` is for all kinds but ``self``."""

    kind: Kind
    another: ForAnother | None = None
    channel: Channel | None = None
    contact: str | None = None
    lifetime: float | None = None
    reason: str = ""
    force: bool = False


@dataclass(frozen=True, slots=True)
class Way:
    """How an invitation goes out: where the link goes, and where the security code."""

    channel: Channel
    to: str
    code: OnFile | None
    is_named: bool = False

    @property
    def code_by(self) -> CodeBy:
        """How the security code goes."""
        return self.code.medium if self.code is not None else "hand"


@dataclass(frozen=True, slots=True)
class Invited:
    """What was made."""

    invitation: Invitation
    rows: tuple[Row, ...] = field(default=())


class InvitationCount(Record, frozen=True, kw_only=True):
    """How many attempts a practice made in an hour: ``key`` is ``<practice>/<hour since 1970>``.

    Everybody who invites for the practice changes it, so that two of them never decide at once.
    ``later`` counts those that had no room in it and were given a time in another hour.
    """

    kind: ClassVar[str] = "invitation-count"

    count: int = 0
    later: int = 0


class NoMoreInvitations(Record, frozen=True, kw_only=True):
    """Whoever is the ``key`` (as `Invitation.invitee`) wants none; ``since`` when.

    With ``closed`` it was the practice that ended the portal for them: they come back by an
    invitation that was made on purpose, and not by themselves.
    """

    kind: ClassVar[str] = "no-more-invitations"

    since: float
    closed: bool = False


async def is_closed_for(reader: RecordReader, invitee: str) -> bool:
    """Whether a practice ended the portal for somebody who has not come back by invitation."""
    found = await reader.get(NoMoreInvitations, invitee)
    return found is not None and found.closed


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
                    grants.append(await self._grant(row, tree, person))
        kept = await self._issue([str(row.key) for row in patients], names, grants, way)
        tasks = await self._tasks(kept)
        await self._told_of(tasks, [*made, *grants])
        stream = stream_of(self.policy, self.author)
        await send(self.transaction, self.server, kept, way, now=self.now, stream=stream)
        await expire_later(self.transaction, kept, now=self.now)
        if kept.channel in HANDED_OVER:
            kept = await hand_over(self.transaction, self.server, kept)
        return Invited(kept, (*patients, *made, *grants, *tasks))

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

    async def _grant(self, row: Row, patient: Mapping[str, Any], person: str) -> Row:
        """Store the proposed grant of one record."""
        another = self.wish.another
        assert another is not None  # noqa: S101 - the caller asked
        assert self.wish.kind != "self"  # noqa: S101
        zone = ZoneInfo(self.practice.zone)
        period = {
            "start": another.start or datetime.fromtimestamp(self.now, zone).date().isoformat()
        }
        end = self._end(patient, another)
        if end is not None:
            period["end"] = end
        basis = checked_basis(self.wish.kind, another, row.key.id)
        evidence = another.evidence.get(row.key.id)
        source = {"reference": evidence} if evidence else {"display": BASES[basis]}
        tree = {
            "resourceType": "Consent",
            "status": "proposed",
            "scope": _concept(
                "http://terminology.hl7.org/CodeSystem/consentscope", "patient-privacy"
            ),
            "category": [_concept(*CATEGORY)],
            "patient": {"reference": str(row.key)},
            "dateTime": instant(int(self.now * _MICROSECONDS)),
            "performer": [self.author.requester],
            "sourceReference": source,
            "policyRule": _concept("http://terminology.hl7.org/CodeSystem/v3-ActCode", "OPTOUT"),
            "provision": {
                "period": period,
                "actor": [
                    {
                        "role": _concept(
                            "http://terminology.hl7.org/CodeSystem/v3-RoleCode", "GRANTEE"
                        ),
                        "reference": {"reference": person},
                    }
                ],
                "provision": [
                    {
                        "type": "permit",
                        "action": [_concept(_ACTION, "access")]
                        + ([_concept(_ACTION, "correct")] if act else []),
                        "code": [_concept(SECTION_SYSTEM, section)],
                    }
                    for section, act in checked_sections(self.wish.kind, another.sections)
                ],
            },
        }
        # Read as it will be read when it is active, so that nobody redeems what conveys nothing.
        grant = read_grant(
            tree | {"id": "x", "status": "active"}, practice=self.practice.key, zone=zone
        )
        place = parameter("period")
        if grant is None:
            message = "a grant cannot have this period"
            raise Unprocessable(message, expression=place)
        if grant.end is None and self.wish.kind == "representative":
            message = "a representative's access has an end"
            raise Unprocessable(message, expression=place)
        if grant.end is not None and grant.end <= max(self.now, grant.start or 0.0):
            message = "the period has ended, or ends before it begins"
            raise Unprocessable(message, expression=place)
        written = await create_in(
            self.transaction, self.server, acting_for(self.practice.key, self.author.client),
            {**tree, "meta": restricted()},
            Visibility.of_server("Consent", practice=self.practice.key),
            resource_id=self.server.new_id(),
        )  # fmt: skip
        return written.row

    def _end(self, patient: Mapping[str, Any], another: ForAnother) -> str | None:
        """Return the end of a grant: a guardian's, by age, comes when the child is grown."""
        if self.wish.kind != "guardian":
            return another.end
        grown = last_day_under(self.policy.adult_age, patient.get("birthDate"))
        today = datetime.fromtimestamp(self.now, ZoneInfo(self.practice.zone)).date().isoformat()
        if another.basis == "parent":
            if grown is None:
                message = "the patient's birth date is not recorded: a parent's access has to end"
                raise Unprocessable(message)
            if grown < today:
                message = "the patient is of age: invite a representative, on evidence"
                raise Unprocessable(message, expression=parameter("basis"))
            return min(another.end or grown, grown)
        if another.end is None and (grown is None or grown < today):
            message = "the access of a guardian of somebody who is of age has an end"
            raise Unprocessable(message, expression=parameter("period"))
        return another.end or grown

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


def parameter(name: str) -> str:
    """Return where a parameter stands, for an OperationOutcome."""
    return f"Parameters.parameter.where(name='{name}')"


def checked_sections(kind: Kind, given: Sequence[tuple[str, bool]]) -> tuple[tuple[str, bool], ...]:
    """Return the sections of a grant, and in which to act; of the preset if none are given.

    Raises `Unprocessable` for what is no section, is said twice, or is not for the kind.
    """
    if kind == "self":
        return ()
    preset = PRESETS[kind]
    if not given:
        return tuple((section, section in preset.act) for section in preset.see)
    place = parameter("section")
    if len({section for section, _ in given}) < len(given):
        message = "a section is given twice"
        raise Unprocessable(message, expression=place)
    for section, act in given:
        if section not in section_displays():
            message = f"there is no section '{section[:40]}'"
            raise Unprocessable(message, expression=place)
        if section not in preset.most or (act and section not in preset.most_act):
            message = f"a {kind} is not given this in the section '{section}'"
            raise Unprocessable(message, expression=place)
    return tuple(given)


def checked_basis(kind: Kind, another: ForAnother, patient: str) -> Basis:
    """Return on what a grant stands. Raises `Unprocessable` where that is not enough."""
    basis = another.basis
    if kind == "self" or basis is None:
        message = "say on what the access stands"
        raise Unprocessable(message, expression=parameter("basis"))
    if basis not in _BASES_OF[kind]:
        message = f"the access of a {kind} does not stand on '{basis}'"
        raise Unprocessable(message, expression=parameter("basis"))
    if kind == "representative" and patient not in another.evidence:
        message = "a representative's access needs a DocumentReference of the patient as evidence"
        raise Unprocessable(message, expression=parameter("evidence"))
    return basis


def lifetime_of(policy: PracticePolicy, channel: Channel, asked: float | None) -> float:
    """Return how long an invitation lasts, in seconds. Raises `Unprocessable`."""
    if asked is None:
        return policy.lifetime(channel)
    if not SHORTEST <= asked <= LONGEST:
        message = f"an invitation lasts {SHORTEST / HOUR:.0f} to {LONGEST / HOUR:.0f} hours"
        raise Unprocessable(message, expression=parameter("lifetime-hours"))
    return asked


def way_of(
    policy: PracticePolicy,
    *,
    channel: Channel | None,
    contact: str | None,
    on_file: Sequence[OnFile],
) -> Way:
    """Return how an invitation goes out.

    The code goes to the first contact on file of another medium, where the practice writes by that;
    where there is none it is handed over. Raises `Unprocessable`.
    """
    if channel is None:
        channel = _first_channel(policy, contact, on_file)
    if channel not in policy.invite_channels:
        message = f"this practice does not invite by {channel}"
        raise Unprocessable(message, expression=parameter("channel"))
    medium = SENT_BY_US.get(channel)
    if medium is None:
        if contact is not None:
            message = f"an invitation by {channel} goes to no address"
            raise Unprocessable(message, expression=parameter("contact"))
        return Way(channel, "", None)
    to = _address(medium, contact, policy) if contact is not None else None
    if to is None:
        to = next((one.value for one in on_file if one.medium == medium), None)
    if to is None:
        message = f"there is no contact on file for {channel}: give one, or another channel"
        raise Unprocessable(message, expression=parameter("contact"))
    others = (
        one for one in on_file if one.medium != medium and one.medium in policy.invite_channels
    )
    return Way(channel, to, next(others, None), is_named=contact is not None)


def _first_channel(
    policy: PracticePolicy, contact: str | None, on_file: Sequence[OnFile]
) -> Channel:
    media = {one.medium for one in on_file}
    if contact is not None:
        media = {"mail" if "@" in contact else "sms"}
    for channel in policy.invite_channels:
        if SENT_BY_US.get(channel) in media:
            return channel
    message = "there is no contact on file by which this practice invites: give a channel"
    raise Unprocessable(message, expression=parameter("channel"))


def _address(medium: Medium, text: str, policy: PracticePolicy) -> str:
    try:
        if medium == "mail":
            return mail_address(text)
        return telephone_number(text, region=policy.country or None)
    except InvalidContact:
        message = "this is not a mail address" if medium == "mail" else "this is not a number"
        raise Unprocessable(message, expression=parameter("contact")) from None


async def count_attempt(
    transaction: RecordTransaction, policy: PracticePolicy, beginner: Beginner, *, now: float
) -> None:
    """Count one attempt of a practice's. Raises `TooManyRequests`; then nothing is counted."""
    hour, counted = await _count_of(transaction, policy, now)
    most = policy.invitations_by(beginner)
    if counted.count >= most:
        wait = int((hour + 1) * HOUR - now) + 1
        message = (
            f"the practice has made as many invitations this hour as it may ({most}): "
            f"try again in {wait} seconds"
        )
        raise TooManyRequests(message, retry_after=wait)
    await transaction.put(msgspec.structs.replace(counted, count=counted.count + 1))


async def time_later(
    transaction: RecordTransaction, policy: PracticePolicy, beginner: Beginner, *, now: float
) -> float:
    """Return when there is room for one more attempt that had none: the first to ask comes first.

    So whatever waits by the thousand asks again once, and not all of it every hour.
    """
    hour, counted = await _count_of(transaction, policy, now)
    await transaction.put(msgspec.structs.replace(counted, later=counted.later + 1))
    return (hour + 1 + counted.later // policy.invitations_by(beginner)) * HOUR


async def _count_of(
    transaction: RecordTransaction, policy: PracticePolicy, now: float
) -> tuple[int, InvitationCount]:
    hour = int(now // HOUR)
    key = f"{policy.key}/{hour}"
    found = await transaction.get(InvitationCount, key)
    return hour, found or InvitationCount(key=key, expires=(hour + 2) * HOUR)


def stream_of(policy: PracticePolicy, author: Author) -> Stream:
    """Return to which messages those of an invitation belong: none waits for other beginners'."""
    return Stream(f"invitations.{author.kind}", policy.messages_a_minute)


async def send(
    transaction: ResourceTransaction,
    server: Server,
    invitation: Invitation,
    way: Way,
    *,
    now: float,
    template: str = "invitation-link",
    stream: Stream | None = None,
) -> None:
    """Write the messages of an attempt: the link, and to another contact the code.

    Each record that it opens tells of them, and of nobody else's.
    """
    link = SENT_BY_US.get(way.channel)
    if link is not None:
        await _send(
            transaction, server, invitation, template, link, way.to, LINK_PREFIX,
            now=now, stream=stream,
        )  # fmt: skip
    if way.code is not None:
        await _send(
            transaction, server, invitation, "invitation-code", way.code.medium, way.code.value,
            CODE_PREFIX, now=now, stream=stream,
        )  # fmt: skip


async def _send(
    transaction: ResourceTransaction,
    server: Server,
    invitation: Invitation,
    template: str,
    medium: Medium,
    to: str,
    prefix: str,
    *,
    now: float,
    stream: Stream | None,
) -> None:
    what = "link" if prefix == LINK_PREFIX else "code"
    key = f"invitation.{invitation.practice}.{invitation.task}.{invitation.attempt}.{what}"
    await outbox.enqueue(
        transaction,
        key=key,
        practice=invitation.practice,
        channel=medium,
        to=to,
        template=template,
        now=now,
        stream=stream,
        link_for=prefix + invitation.key,
        link_attempt=invitation.attempt,
    )
    tasks = (invitation.task, *invitation.tasks)
    await SendLog(server).log(
        transaction,
        key,
        practice=invitation.practice,
        channel=medium,
        template=template,
        addressees=[
            Addressee(patient, (person,), f"Task/{task}")
            for patient, person, task in zip(
                invitation.patients, invitation.persons, tasks, strict=True
            )
        ],
    )


async def expire_later(
    transaction: RecordTransaction, invitation: Invitation, *, now: float
) -> None:
    """Write the job that ends an attempt when its time is over."""
    await jobs.enqueue(
        transaction,
        key=f"{EXPIRE}.{invitation.practice}.{invitation.task}.{invitation.attempt}",
        practice=invitation.practice,
        name=EXPIRE,
        now=now,
        due=invitation.ends,
        arguments={"invitation": invitation.key, "attempt": str(invitation.attempt)},
    )


async def expire_unconfirmed_later(
    transaction: RecordTransaction, invitation: Invitation, *, now: float
) -> None:
    """Write the job that ends an invitation if nobody confirms in time who used it."""
    await jobs.enqueue(
        transaction,
        key=f"{EXPIRE}.{invitation.practice}.{invitation.task}.{invitation.attempt}.used",
        practice=invitation.practice,
        name=EXPIRE,
        now=now,
        due=invitation.changed + CONFIRMABLE_SECONDS,
        arguments={"invitation": invitation.key, "attempt": str(invitation.attempt)},
    )


async def hand_over(
    transaction: ResourceTransaction, server: Server, invitation: Invitation
) -> Invitation:
    """Note that an attempt was printed or handed over, in the Task too.

    At the desk it was given into the person's own hand, and so it has arrived.
    """
    now = server.clock()
    state: State = "delivered" if invitation.channel == "desk" else "sent"
    changed = await advance(transaction, invitation.key, state, attempt=invitation.attempt, now=now)
    if changed is None:
        return invitation
    await follow(transaction, server, changed)
    return changed


async def take_back(
    transaction: ResourceTransaction,
    server: Server,
    secrets: InvitationSecrets,
    invitation: Invitation,
    *,
    reason: str,
) -> tuple[Invitation, list[Row]]:
    """End an invitation that nobody has redeemed, with its Tasks and the grants it proposed.

    Returns it and its Tasks as they are then. Raises `NotUsable`: it is over.
    """
    ended = await end(transaction, secrets, invitation, "revoked", now=server.clock())
    rows = await follow(transaction, server, ended, reason=reason)
    await reject_grants(transaction, server, ended)
    return ended, rows


async def record_provenance(
    transaction: ResourceTransaction,
    server: Server,
    practice: str,
    author: Author,
    targets: Sequence[str],
    *,
    activity: str,
    reason: str,
) -> None:
    """Store who did what, on whose behalf, when and why."""
    tree = author.provenance(targets, at=server.clock(), activity=activity, reason=reason)
    await create_in(
        transaction, server, acting_for(practice, author.client), tree,
        Visibility.of_server("Provenance", practice=practice),
        resource_id=server.new_id(),
    )  # fmt: skip


def invitation_secrets(derive: Callable[..., bytes]) -> InvitationSecrets:
    """Return what makes the secrets of invitations, by the server's key for them."""
    return InvitationSecrets(derive("invitations"))


def patient_of(tree: Mapping[str, Any], path: str) -> ResourceKey | None:
    """Return the Patient that a resource is of, at one of its members."""
    key = local_target((tree.get(path) or {}).get("reference") or "")
    return key if key is not None and key.type == "Patient" else None


def _concept(system: str, code: str) -> dict[str, Any]:
    return {"coding": [{"system": system, "code": code}]}
