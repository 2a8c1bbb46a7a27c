"""How an account stands to records: its own Patients, grants of its RelatedPersons, as staff.

Resolved inside the server from accounts, Persons, grants and memberships, never through the
guarded API, so that nobody needs rights to find out which rights they have.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import replace
from typing import Any, Final, Protocol

from fhir_portal.access.owners import local_target
from fhir_portal.access.visibility import Visibility
from fhir_portal.accounts.account import Account
from fhir_portal.accounts.assurance import LEAST, LEVELS, reaches
from fhir_portal.accounts.at_practice import is_open_at, proxies_shut_out
from fhir_portal.accounts.levels import level_of
from fhir_portal.accounts.policy import PracticePolicy, policy_of
from fhir_portal.accounts.practice import Practice
from fhir_portal.accounts.staff import StaffMember, staff_key
from fhir_portal.consent.grant import Grant, is_current
from fhir_portal.consent.label_rules import Relabelling
from fhir_portal.consent.record import RecordAccess, StaffAccess, way_to
from fhir_portal.consent.sections import section_displays
from fhir_portal.fhir import json
from fhir_portal.fhir.reference import ResourceKey
from fhir_portal.records import RecordReader

PROVEN: Final = frozenset(one for one in LEVELS if reaches(one, LEAST))
"""``Person.link.assurance`` that can open a record; a link nobody proved opens nothing. A practice
may ask for more (`fhir_portal.accounts.policy`)."""


class StoredResource(Protocol):
    """The part of a row that is looked at here."""

    @property
    def body(self) -> bytes: ...
    @property
    def deleted(self) -> bool: ...


class IdentityReader(RecordReader, Protocol):
    """Records and resources, as the store or a transaction shows them."""

    async def read(self, key: ResourceKey, visible: Visibility) -> StoredResource | None:
        """Return the current version."""
        ...


class Relations:
    """`fhir_portal.consent.record.RecordDirectory` over a store."""

    def __init__(self, reader: IdentityReader, clock: Callable[[], float]) -> None:
        self._reader = reader
        self._clock = clock

    async def records_of(self, account: Account) -> tuple[RecordAccess, ...]:
        """Return the records the account may use now, own records first.

        A practice whose portal is off has none: for no page and no app.
        """
        if account.disabled:
            return ()
        found = [record async for record in self._records(account)]
        return tuple(sorted(found, key=lambda record: not record.is_own))

    async def record_of(self, account: Account, practice: str, patient: str) -> RecordAccess | None:
        """Return the one way the account may use this practice's record, or ``None``."""
        if account.disabled:
            return None
        found = [record async for record in self._records(account, practice)]
        return way_to(found, practice, patient)

    async def staff_of(self, account: Account) -> tuple[StaffAccess, ...]:
        """Return the practices on whose staff the account is now, in the order of their keys."""
        if account.disabled:
            return ()
        members = await self._reader.find(StaffMember, "account", account.key)
        found = [await self._staff(member) for member in members]
        return tuple(one for one in found if one is not None)

    async def staff_at(self, account: Account, practice: str) -> StaffAccess | None:
        """Return the one of `staff_of` for a practice."""
        if account.disabled:
            return None
        member = await self._reader.get(StaffMember, staff_key(practice, account.key))
        return None if member is None else await self._staff(member)

    async def staff_record_of(
        self, account: Account, practice: str, patient: str
    ) -> RecordAccess | None:
        """Return how the account may use a record as staff of its practice, or ``None``.

        What it returns has the patient's name, so that it is only for who may view.
        """
        staff = await self.staff_at(account, practice)
        if staff is None or "view" not in staff.permissions:
            return None
        return await self._staff_record(staff, patient)

    async def staff_bound_to(
        self, account: Account, practice: str, patient: str
    ) -> RecordAccess | None:
        """Return how staff stand to a record that something of theirs is bound to, or ``None``.

        It stands while they are on the staff and the record is there, as `access.authenticate`
        says it: what their level does not let them view is for `decide` to refuse. Without the
        permission to view nothing about the patient is told.
        """
        staff = await self.staff_at(account, practice)
        return None if staff is None else await self._staff_record(staff, patient)

    async def _staff_record(self, staff: StaffAccess, patient: str) -> RecordAccess | None:
        found = await self._patient(staff.practice, patient)
        if found is None:
            return None
        views = "view" in staff.permissions
        return RecordAccess(
            patient=patient,
            practice=staff.practice,
            practice_name=staff.practice_name,
            patient_name=name_of(found) if views else "",
            birth_date=found.get("birthDate") if views else None,
            relation="staff",
            fhir_user=staff.fhir_user,
            grant=None,
            sections=None,
            act=frozenset(),
            until=None,
            zone=staff.zone,
        )

    async def birth_date_of(self, account: Account, practice: str) -> str | None:
        """Return the birth date on file of who an account was proved to be at a practice.

        Of a Patient, or else of a RelatedPerson; also while the practice's records are closed for
        the account, which is when it is asked for: it opens nothing by itself.
        """
        own = next((one for one in account.persons if one.partition("/")[0] == practice), None)
        person = None
        if own is not None:
            person = await self._resource(practice, ResourceKey.parse(own.partition("/")[2]))
        proven = [
            target
            for link in (person or {}).get("link") or ()
            if link.get("assurance") in PROVEN
            and (target := local_target((link.get("target") or {}).get("reference") or ""))
        ]
        for target in sorted(proven, key=lambda one: one.type != "Patient"):
            tree = await self._resource(practice, target)
            if tree is not None and tree.get("birthDate"):
                return str(tree["birthDate"])
        return None

    async def has_patient(self, practice: str, patient: str) -> bool:
        """Whether a practice has this ``Patient/<id>``; nothing else about it is told."""
        return await self._patient(practice, patient) is not None

    async def _patient(self, practice: str, patient: str) -> Mapping[str, Any] | None:
        key = local_target(patient)
        if key is None or str(key) != patient or key.type != "Patient":
            return None
        return await self._resource(practice, key)

    async def _staff(self, member: StaffMember) -> StaffAccess | None:
        """A membership conveys nothing without its practice, an active Practitioner and a level.

        Nor does one that is suspended since staff helped to recover the account.
        """
        if member.suspended is not None:
            return None
        practice = await self._reader.get(Practice, member.practice)
        practitioner = await _practitioner(self._reader, member)
        if practice is None or practitioner is None:
            return None
        level = await level_of(self._reader, practice.key, member.level)
        if level is None:
            return None
        return StaffAccess(
            practice=practice.key,
            practice_name=practice.name,
            fhir_user=member.practitioner,
            name=name_of(practitioner),
            level=level.name,
            permissions=level.conveys,
            zone=practice.zone,
        )

    async def _records(
        self, account: Account, practice_only: str | None = None
    ) -> AsyncIterator[RecordAccess]:
        for entry in account.persons:
            practice_key, _, key = entry.partition("/")
            if practice_only is not None and practice_key != practice_only:
                continue
            if practice_key in account.closed_at:
                continue  # another practice helped to recover the account (DESIGN §3.6)
            practice = await self._reader.get(Practice, practice_key)
            policy = await policy_of(self._reader, practice_key)
            if practice is None or not policy.portal:
                continue
            if not await is_open_at(self._reader, practice_key, account.key, at=self._clock()):
                continue
            person = await self._resource(practice_key, ResourceKey.parse(key))
            if person is None or person.get("active") is False:
                continue
            relabelling = await self._reader.get(Relabelling, practice_key)
            is_settling = relabelling is not None and relabelling.shuts
            seen: set[ResourceKey] = set()
            for link in person.get("link") or ():
                target = local_target((link.get("target") or {}).get("reference") or "")
                if target is None or target in seen or not _is_proven(policy, target, link):
                    continue
                seen.add(target)
                record = await self._record(practice, target)
                if record is not None:
                    yield replace(record, is_settling=True) if is_settling else record

    async def _record(self, practice: Practice, target: ResourceKey) -> RecordAccess | None:
        if target.type == "Patient":
            return await self._own(practice, target)
        if target.type == "RelatedPerson":
            return await self._granted(practice, target)
        return None

    async def _own(self, practice: Practice, key: ResourceKey) -> RecordAccess | None:
        patient = await self._resource(practice.key, key)
        if patient is None:
            return None
        return RecordAccess(
            patient=str(key),
            practice=practice.key,
            practice_name=practice.name,
            patient_name=name_of(patient),
            birth_date=patient.get("birthDate"),
            relation="self",
            fhir_user=str(key),
            grant=None,
            sections=None,
            act=frozenset(section_displays()),
            until=None,
            zone=practice.zone,
        )

    async def _granted(self, practice: Practice, key: ResourceKey) -> RecordAccess | None:
        related = await self._resource(practice.key, key)
        if related is None or related.get("active") is False:
            return None
        patient_key = local_target((related.get("patient") or {}).get("reference") or "")
        if patient_key is None or patient_key.type != "Patient":
            return None
        patient = await self._resource(practice.key, patient_key)
        now = self._clock()
        matching = [
            grant
            for grant in await self._reader.find(
                Grant, "related_person", f"{practice.key}/{key.id}"
            )
            if grant.practice == practice.key and grant.patient == patient_key.id
        ]
        grants = [grant for grant in matching if is_current(grant, now)]
        if patient is None or len(grants) != 1:
            return None
        if await proxies_shut_out(self._reader, practice.key, str(patient_key), at=now):
            return None
        grant = grants[0]
        # Where a second grant begins, two would match, and the relation has to be looked at anew.
        edges = [one.start for one in matching if one.start is not None and one.start > now]
        edges += [] if grant.end is None else [grant.end]
        return RecordAccess(
            patient=str(patient_key),
            practice=practice.key,
            practice_name=practice.name,
            patient_name=name_of(patient),
            birth_date=patient.get("birthDate"),
            relation=_relationship(related),
            fhir_user=str(key),
            grant=f"Consent/{grant.consent}",
            sections=frozenset(grant.sections),
            act=frozenset(grant.act),
            until=min(edges, default=None),
            zone=practice.zone,
        )

    async def _resource(self, practice: str, key: ResourceKey) -> Mapping[str, Any] | None:
        row = await self._reader.read(key, Visibility.of_server(key.type, practice=practice))
        return None if row is None or row.deleted else json.parse(row.body)


def _is_proven(policy: PracticePolicy, target: ResourceKey, link: Mapping[str, Any]) -> bool:
    """Whether who a link says a person is was proved as well as their practice asks."""
    own = target.type == "Patient"
    least = policy.assurance if own else policy.assurance_for_others
    return reaches(link.get("assurance"), least)


async def works(reader: IdentityReader, member: StaffMember) -> bool:
    """Whether a member of staff is an active Practitioner of the practice."""
    return await _practitioner(reader, member) is not None


async def _practitioner(reader: IdentityReader, member: StaffMember) -> Mapping[str, Any] | None:
    key = local_target(member.practitioner)
    if key is None or key.type != "Practitioner" or str(key) != member.practitioner:
        return None
    row = await reader.read(key, Visibility.of_server(key.type, practice=member.practice))
    tree = None if row is None or row.deleted else json.parse(row.body)
    return None if tree is None or tree.get("active") is False else tree


def name_of(resource: Mapping[str, Any]) -> str:
    """Return the name a person is known by, from ``name`` of a Patient, Practitioner and so on."""
    names = resource.get("name") or [{}]
    name = next((n for n in names if n.get("use") in {"official", "usual"}), names[0])
    text = name.get("text") or " ".join([*(name.get("given") or ()), name.get("family") or ""])
    return str(text).strip() or "name not recorded"


def _relationship(related: Mapping[str, Any]) -> str:
    for concept in related.get("relationship") or ():
        if concept.get("text"):
            return str(concept["text"])
        for coding in concept.get("coding") or ():
            if coding.get("display"):
                return str(coding["display"])
    return "representative"
