"""What a merge of two Patients would move, and who would get or lose what by it.

It is made inside the transaction that carries it out, and shown as it is by a preview. What is in
it is about access alone: whose record a Person is linked to, who acts for whom by which grant, who
is invited. Clinical resources are moved by the practice's EHR.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import msgspec

from fhir_portal.access.owners import local_target
from fhir_portal.access.relation import PROVEN
from fhir_portal.access.visibility import Visibility
from fhir_portal.accounts.account import AccountPerson
from fhir_portal.accounts.at_practice import proxies_shut_out
from fhir_portal.accounts.invitation import Invitation, LiveInvitation, can_be_confirmed
from fhir_portal.consent.grant import Grant, is_grant
from fhir_portal.fhir import json
from fhir_portal.fhir.errors import Conflict, Unprocessable
from fhir_portal.fhir.reference import ResourceKey, references_in
from fhir_portal.operations.on_file import account_of_record
from fhir_portal.resources.store import ResourceTransaction, Row
from fhir_portal.search.registry import parameters_for

MOST: Final = 200
"""Persons, related persons or Consents of one record; with more of them it is not merged."""
REPLACED_BY, REPLACES = "replaced-by", "replaces"
_WAITING: Final = frozenset({"draft", "proposed"})
_ASSURANCES: Final = ("level1", "level2", "level3", "level4")

What = Literal["person", "related-person", "grant", "grant-ended", "invitation"]


@dataclass(frozen=True, slots=True)
class Move:
    """One resource as it is, and as it would be."""

    what: What
    row: Row
    tree: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Gain:
    """Somebody who would see something of the surviving record that they may not see now.

    ``who`` is the Person, the RelatedPerson, or the Task of an invitation; ``through`` what would
    let them.
    """

    who: str
    through: str
    text: str


@dataclass(frozen=True, slots=True)
class Loss:
    """Somebody who may use the record that goes, and would not use the surviving one by that."""

    who: str
    text: str


@dataclass(slots=True)
class MergePlan:
    """What a merge does. ``accounts`` are those whose own record moves.

    ``invitations`` are live ones and those that wait to be confirmed, each with what becomes of
    it; ``None``: it ends.
    """

    source: Row
    target: Row
    moves: list[Move] = field(default_factory=list)
    gains: list[Gain] = field(default_factory=list)
    losses: list[Loss] = field(default_factory=list)
    accounts: list[str] = field(default_factory=list)
    invitations: list[tuple[Invitation, Invitation | None]] = field(default_factory=list)


async def plan_merge(
    transaction: ResourceTransaction,
    practice: str,
    source: Row,
    target: Row,
    *,
    force_accounts: bool,
    now: float,
) -> MergePlan:
    """Find out what a merge of two Patients of a practice does.

    Raises:
        Unprocessable: it cannot be done: the same Patient twice, one of them merged already, a
            person who is one of them and acts for the other, two accounts, too much at once.
        Conflict: those who act for one of them are shut out at the moment.
    """
    return await _Planning(
        transaction, practice, MergePlan(source, target), now, force_accounts=force_accounts
    ).done()


def repointed(tree: Mapping[str, Any], source: str, target: str) -> dict[str, Any]:
    """Return a resource in which every reference to one Patient leads to the other."""
    copy: dict[str, Any] = json.parse(json.dumps(dict(tree)))
    for _, holder in references_in(copy):
        if holder["reference"] == source:
            holder["reference"] = target
    return copy


def linked(tree: Mapping[str, Any], other: str, kind: str) -> dict[str, Any]:
    """Return a Patient with one link to another Patient, of this type."""
    kept = [
        one for one in tree.get("link") or () if (one.get("other") or {}).get("reference") != other
    ]
    return {**tree, "link": [*kept, {"other": {"reference": other}, "type": kind}]}


def unlinked(tree: Mapping[str, Any], other: str) -> dict[str, Any]:
    """Return a Patient without a link to another one."""
    kept = [
        one for one in tree.get("link") or () if (one.get("other") or {}).get("reference") != other
    ]
    rest = {name: value for name, value in tree.items() if name != "link"}
    return rest | ({"link": kept} if kept else {})


def is_replaced(tree: Mapping[str, Any]) -> bool:
    """Whether another Patient has taken this one's place."""
    return any(one.get("type") == REPLACED_BY for one in tree.get("link") or ())


class _Planning:
    """One plan in the making."""

    def __init__(
        self,
        transaction: ResourceTransaction,
        practice: str,
        plan: MergePlan,
        now: float,
        *,
        force_accounts: bool,
    ) -> None:
        self._transaction = transaction
        self._practice = practice
        self._plan = plan
        self._now = now
        self._force_accounts = force_accounts
        self._source, self._target = str(plan.source.key), str(plan.target.key)

    async def done(self) -> MergePlan:
        await self._refuse()
        related = await self._referring("RelatedPerson", "patient", self._source)
        there = await self._referring("RelatedPerson", "patient", self._target)
        await self._persons({str(one.key) for one in related}, {str(one.key) for one in there})
        for row in related:
            tree = repointed(json.parse(row.body), self._source, self._target)
            self._plan.moves.append(Move("related-person", row, tree))
        await self._grants()
        await self._invitations([str(row.key) for row in related])
        return self._plan

    async def _refuse(self) -> None:
        if self._source == self._target:
            message = "a Patient is not merged into itself"
            raise Unprocessable(message)
        for row in (self._plan.source, self._plan.target):
            if is_replaced(json.parse(row.body)):
                message = f"{row.key} was merged into another Patient already"
                raise Unprocessable(message)
            await require_proxies_let_in(
                self._transaction, self._practice, str(row.key), now=self._now
            )

    async def _persons(self, related: set[str], there: set[str]) -> None:
        ours = await self._referring("Person", "patient", self._source)
        theirs = await self._referring("Person", "patient", self._target)
        for row, own, others in (
            *((row, self._source, there) for row in ours),
            *((row, self._target, related) for row in theirs),
        ):
            links = dict(_links(json.parse(row.body)))
            if links[own] in PROVEN and others & links.keys():
                message = f"{row.key} is one of them and acts for the other: these are two people"
                raise Unprocessable(message)
        holders = [account for row in theirs if (account := await self._holder(row, self._target))]
        for row in ours:
            account = await self._holder(row, self._source)
            is_second = account is not None and bool(holders) and account not in holders
            if is_second and not self._force_accounts:
                message = (
                    "two accounts hold these records as their own: see that they are one"
                    " person's, then say force-accounts; the account of the surviving one stays"
                )
                raise Unprocessable(message)
            self._person(row, account, carries=not is_second)

    def _person(self, row: Row, account: str | None, *, carries: bool) -> None:
        tree = json.parse(row.body)
        links = dict(_links(tree))
        before, there = links[self._source], links.get(self._target)
        kept = [one for one in tree["link"] if _target_of(one) != self._source]
        if carries:
            assurance = max((one for one in (before, there) if one), default=None)
            own = next(one for one in tree["link"] if _target_of(one) == self._source)
            moved = {**own, "target": {"reference": self._target}}
            moved |= {"assurance": assurance} if assurance else {}
            kept = [one for one in kept if _target_of(one) != self._target]
            kept.insert(tree["link"].index(own), moved)
            if before in PROVEN and there not in PROVEN:
                text = f"sees all of {self._target}, as the person whose record it is"
                self._plan.gains.append(Gain(str(row.key), str(row.key), text))
        elif before in PROVEN:
            text = f"holds no record here by it any more: {self._target} has an account"
            self._plan.losses.append(Loss(str(row.key), text))
        if account is not None:
            self._plan.accounts.append(account)
        rest = {name: value for name, value in tree.items() if name != "link"}
        self._plan.moves.append(Move("person", row, rest | ({"link": kept} if kept else {})))

    async def _grants(self) -> None:
        for row in await self._referring("Consent", "patient", self._source):
            tree = json.parse(row.body)
            if not is_grant(tree):
                continue
            grant = await self._transaction.get(Grant, f"{self._practice}/{row.key.id}")
            is_over = grant is None or (grant.end is not None and grant.end <= self._now)
            if is_over and tree.get("status") not in _WAITING:
                continue  # what conveys nothing stays where it was given
            if grant is not None and await has_a_way(
                self._transaction,
                self._practice,
                grant.related_person,
                source=self._source,
                target=self._target,
                now=self._now,
            ):
                ended = {**tree, "status": "inactive"}
                self._plan.moves.append(Move("grant-ended", row, ended))
                who = f"RelatedPerson/{grant.related_person.rpartition('/')[2]}"
                text = f"acts for {self._target} by what they have for it already"
                self._plan.losses.append(Loss(who, text))
                continue
            carried = repointed(tree, self._source, self._target)
            self._plan.moves.append(Move("grant", row, carried))
            if grant is not None:
                who = f"RelatedPerson/{grant.related_person.rpartition('/')[2]}"
                text = f"sees {', '.join(grant.sections)} of {self._target}"
                text += f", and acts in {', '.join(grant.act)}" if grant.act else ""
                self._plan.gains.append(Gain(who, str(row.key), text))

    async def _invitations(self, related: Sequence[str]) -> None:
        seen = set[str]()
        for name in (self._source, *related):
            live = await self._transaction.get(LiveInvitation, f"{self._practice}/{name}")
            if live is None or live.invitation in seen:
                continue
            seen.add(live.invitation)
            before = await self._transaction.get(Invitation, live.invitation)
            if before is not None and before.is_usable(self._now):
                await self._invitation(before)
        for name in related:
            for before in await self._awaiting(name):
                if before.key not in seen:
                    seen.add(before.key)
                    await self._invitation(before)

    async def _awaiting(self, person: str) -> list[Invitation]:
        """What somebody used to become a ``RelatedPerson/<id>``, and is to be confirmed yet."""
        key = ResourceKey.parse(person)
        holder = await account_of_record(self._transaction, self._practice, key)
        found = await self._transaction.find(Invitation, "redeemed_by", holder or "")
        return [
            one
            for one in found
            if one.practice == self._practice
            and person in one.persons
            and can_be_confirmed(one, self._now)
        ]

    async def _invitation(self, before: Invitation) -> None:
        where = f"{self._practice}/{self._target}"
        is_own = self._source in before.persons or before.invitee == (
            f"{self._practice}/{self._source}"
        )
        is_known = is_own and await self._is_taken(where)
        who = f"Task/{before.task}"
        if is_known or self._target in before.patients:
            self._plan.invitations.append((before, None))
            text = f"ends: {self._target} has an account or an invitation"
            self._plan.losses.append(Loss(who, text))
            return
        self._plan.invitations.append((before, renamed(before, self._source, self._target)))
        text = f"whoever redeems this invitation gets what it opens of {self._target}"
        if before.state == "awaiting":
            text = f"who used this invitation gets what it opens of {self._target} once confirmed"
        self._plan.gains.append(Gain(who, who, text))

    async def _is_taken(self, invitee: str) -> bool:
        """Whether the surviving record has, or will have, an account or an invitation."""
        if self._plan.accounts or await self._transaction.get(LiveInvitation, invitee) is not None:
            return True
        holders = [
            await self._holder(row, self._target)
            for row in await self._referring("Person", "patient", self._target)
        ]
        return any(holders)

    async def _holder(self, row: Row, patient: str) -> str | None:
        """The account that has this Patient as its own by a Person."""
        if dict(_links(json.parse(row.body))).get(patient) not in PROVEN:
            return None
        found = await self._transaction.get(AccountPerson, f"{self._practice}/{row.key}")
        return found.account if found is not None else None

    async def _referring(self, name: str, code: str, to: str) -> list[Row]:
        return await _referring(self._transaction, self._practice, name, code, to)


async def require_proxies_let_in(
    transaction: ResourceTransaction, practice: str, patient: str, *, now: float
) -> None:
    """Refuse to move who acts for a ``Patient/<id>`` while they are shut out. Raises `Conflict`.

    It is its record that is closed for them: by another one they would come in again.
    """
    if await proxies_shut_out(transaction, practice, patient, at=now):
        message = f"those who act for {patient} are shut out: open its account first"
        raise Conflict(message)


async def has_a_way(
    transaction: ResourceTransaction,
    practice: str,
    related_person: str,
    *,
    source: str,
    target: str,
    now: float,
) -> bool:
    """Whether whoever is a RelatedPerson of ``source`` has a way to ``target`` already.

    ``related_person`` ends with ``/<id>``, the others are ``Patient/<id>``. Two ways by grants are
    none (`fhir_portal.consent.record.way_to`), and the own one suffices.
    """
    key = f"RelatedPerson/{related_person.rpartition('/')[2]}"
    for row in await _referring(transaction, practice, "Person", "relatedperson", key):
        for link, assurance in _links(json.parse(row.body)):
            if assurance not in PROVEN:
                continue
            if link in (target, source):
                return True
            if link.startswith("RelatedPerson/"):
                own_id = link.partition("/")[2]
                found = await transaction.find(Grant, "related_person", f"{practice}/{own_id}")
                if any(
                    f"{one.practice}/Patient/{one.patient}" == f"{practice}/{target}"
                    and (one.end is None or one.end > now)
                    for one in found
                ):
                    return True
    return False


async def _referring(
    transaction: ResourceTransaction, practice: str, name: str, code: str, to: str
) -> list[Row]:
    found = await transaction.referring(
        parameters_for(name)[code],
        [ResourceKey.parse(to)],
        Visibility.of_server(name, practice=practice),
        limit=MOST + 1,
    )
    if len(found) > MOST:
        message = f"more than {MOST} resources of type {name} refer to {to}"
        raise Unprocessable(message)
    return sorted(found, key=lambda row: row.key)


def renamed(invitation: Invitation, source: str, target: str) -> Invitation:
    """Return an invitation that is for another Patient instead of the one it is for."""

    def name(text: str) -> str:
        return target if text == source else text

    invitee = invitation.invitee
    if invitee == f"{invitation.practice}/{source}":
        invitee = f"{invitation.practice}/{target}"
    return msgspec.structs.replace(
        invitation,
        invitee=invitee,
        patients=tuple(map(name, invitation.patients)),
        persons=tuple(map(name, invitation.persons)),
    )


def _links(tree: Mapping[str, Any]) -> Iterator[tuple[str, str | None]]:
    """The resources that a Person links, each with the best assurance that is said."""
    found: dict[str, str | None] = {}
    for link in tree.get("link") or ():
        target = _target_of(link)
        assurance = link.get("assurance")
        assurance = assurance if assurance in _ASSURANCES else None
        if target is not None:
            found[target] = max(
                (one for one in (found.get(target), assurance) if one), default=None
            )
    yield from found.items()


def _target_of(link: Mapping[str, Any]) -> str | None:
    key = local_target((link.get("target") or {}).get("reference") or "")
    return str(key) if key is not None else None
