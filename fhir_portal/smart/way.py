"""The way to a right: as whom a person can answer a request, and for which record, practice, visit.

An EHR launch brings its record with it; otherwise the person chooses where there is more than one.
What was chosen is kept with the request and judged anew at every step, by the rights of whoever is
signed in: neither a launch nor a choice gives any.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import msgspec

from fhir_portal.accounts.account import Account
from fhir_portal.accounts.sessions import Visitor
from fhir_portal.consent.record import RecordAccess, RecordDirectory, way_to
from fhir_portal.records import RecordStore
from fhir_portal.smart import errors
from fhir_portal.smart.authorization import (
    AuthorizationRequest,
    ChoosePractice,
    ChooseRecord,
    ChooseVisit,
    FindVisits,
    NoRecord,
    NotAllowed,
    Step,
    Visit,
    values_of,
)
from fhir_portal.smart.authorization_details import MOST_RECORDS
from fhir_portal.smart.client import Client
from fhir_portal.smart.grantable import Grantable, sees_visits
from fhir_portal.smart.in_flight import RequestsInFlight
from fhir_portal.smart.launch import LAUNCH_ENCOUNTER, Launch, find_launch
from fhir_portal.smart.launch_context import LaunchContext
from fhir_portal.smart.right import Right, is_staffs
from fhir_portal.smart.scope import ScopeSet


@dataclass(frozen=True, slots=True)
class Way:
    """How a request can be answered: by what right, and what an EHR or the person chose for it.

    ``record`` is what is shown as in context; with a right of staff it is no boundary.
    """

    right: Right
    record: RecordAccess | None
    others: tuple[RecordAccess, ...] = ()
    other_records: bool = False
    launch: Launch | None = None
    visit: Visit | None = None
    other_visits: bool = False

    @property
    def rights(self) -> tuple[Right, ...]:
        """By what right each of the chosen records, or the practice, is used."""
        return (self.right, *self.others)

    @property
    def launched(self) -> LaunchContext | None:
        """What is told of it beside the record."""
        if self.launch is not None:
            return self.launch.context
        return LaunchContext(encounter=self.visit.reference) if self.visit is not None else None


class Ways:
    """Finds the way for a request, and keeps what the person chose on it.

    ``visits`` finds those to choose from; without it none is chosen. ``clock`` gives seconds since
    1970 UTC.
    """

    def __init__(
        self,
        store: RecordStore,
        directory: RecordDirectory,
        *,
        in_flight: RequestsInFlight,
        grantable: Grantable,
        visits: FindVisits | None,
        clock: Callable[[], float],
    ) -> None:
        self._store = store
        self._directory = directory
        self._in_flight = in_flight
        self._grantable = grantable
        self._visits = visits
        self._clock = clock

    async def find(
        self, request: AuthorizationRequest, client: Client, account: Account
    ) -> Way | Step:
        """Return the way, its visit chosen where the app asks for one; otherwise what is to do.

        Raises `errors.InvalidRequest` for a launch that is over: the request is given up.
        """
        found = await self._right(request, client, account)
        if isinstance(found, Way):
            return await self._visited(request, client, account, found)
        return found

    async def launch_of(self, request: AuthorizationRequest) -> Launch | None:
        """The launch of a request that goes on.

        Raises `errors.InvalidRequest` when it is over: the request is given up.
        """
        if request.launch is None:
            return None
        try:
            client = await self._in_flight.client_of(request)
            return await find_launch(self._store, request.launch, client, now=self._clock())
        except errors.InvalidRequest as error:
            raise await self._in_flight.given_up(request, error) from None

    async def choose_records(
        self, request: AuthorizationRequest, visitor: Visitor, values: Sequence[str]
    ) -> None:
        """Keep the answer of a picker in which several could be ticked (`ChooseRecord.several`).

        Raises `errors.AccessDenied` for a record that this account may not use,
        `errors.InvalidRequest` for none, or for more than may be chosen.
        """
        if visitor.account is None:
            raise errors.LoginRequired("nobody is signed in")
        if request.launch is not None or request.is_for_staff:
            raise errors.InvalidRequest("There is no record to choose here.")
        if not 0 < len(set(values)) <= (MOST_RECORDS if request.wants_several else 1):
            raise errors.InvalidRequest("This is not a choice of records.")
        known = values_of(await self._directory.records_of(visitor.account))
        if not known.keys() >= set(values):
            raise errors.AccessDenied("This record cannot be chosen.")
        first, *others = [known[value] for value in dict.fromkeys(values)]
        chosen = msgspec.structs.replace(
            request,
            practice=first.practice,
            patient=first.patient,
            others=tuple((one.practice, one.patient) for one in others),
            encounter=None,
        )
        await self._in_flight.replace(request, chosen)

    async def choose_practice(
        self, request: AuthorizationRequest, visitor: Visitor, practice: str
    ) -> None:
        """Keep which of `ChoosePractice.practices` was chosen.

        Raises `errors.AccessDenied` for a practice that this account cannot choose.
        """
        if visitor.account is None:
            raise errors.LoginRequired("nobody is signed in")
        if request.launch is not None or not request.is_for_staff:
            raise errors.InvalidRequest("There is no practice to choose here.")
        client = await self._in_flight.client_of(request)
        staff = await self._directory.staff_at(visitor.account, practice)
        if staff is None or not client.serves_staff_of(practice):
            raise errors.AccessDenied("This practice cannot be chosen.")
        await self._in_flight.replace(
            request, msgspec.structs.replace(request, practice=staff.practice)
        )

    async def choose_visit(self, request: AuthorizationRequest, step: Step, encounter: str) -> None:
        """Keep which of `ChooseVisit.visits` was chosen, by its reference.

        Raises `errors.AccessDenied` for a visit that was not offered.
        """
        if not isinstance(step, ChooseVisit):
            raise errors.InvalidRequest("There is no visit to choose here.")
        if encounter not in {visit.reference for visit in step.visits}:
            raise errors.AccessDenied("This visit cannot be chosen.")
        await self._in_flight.replace(
            request, msgspec.structs.replace(request, encounter=encounter)
        )

    async def _right(
        self, request: AuthorizationRequest, client: Client, account: Account
    ) -> Way | Step:
        """Find by what right this person can answer; otherwise what they have to do first."""
        launch = await self.launch_of(request)
        if launch is not None:
            return await self._right_at_launch(request, client, account, launch)
        if request.is_for_staff:
            return await self._right_of_staff(request, client, account)
        values = values_of(await self._directory.records_of(account))
        chosen = _chosen(request, tuple(values.values()))
        if chosen:
            others = chosen[1:]
            return Way(chosen[0], chosen[0], others, other_records=len(values) > len(chosen))
        if not values:
            return NoRecord(client)
        return ChooseRecord(client, values, several=request.wants_several)

    async def _right_at_launch(
        self, request: AuthorizationRequest, client: Client, account: Account, launch: Launch
    ) -> Way | Step:
        """Who they are as: the patient, staff of the practice, or by a grant for this very record.

        For their own record staff are patients, unless they ask as staff or the EHR says so.
        """
        practice, patient = launch.practice, launch.patient
        if not request.is_for_staff:
            own = await self._directory.record_of(account, practice, patient)
            if own is not None and own.is_own and launch.fhir_user in (None, own.fhir_user):
                return Way(own, own, launch=launch)
        staff = await self._directory.staff_at(account, practice)
        right: Right | None
        if staff is not None:
            record = await self._directory.staff_record_of(account, practice, patient)
            right = staff if request.is_for_staff and record is not None else record
        else:
            record = await self._directory.record_of(account, practice, patient)
            right = None if request.is_for_staff else record
        if right is None or launch.fhir_user not in (None, right.fhir_user):
            return NotAllowed(client, "launch")
        if is_staffs(right) and not client.serves_staff_of(practice):
            return NotAllowed(client, "app")
        return Way(right, record, launch=launch)

    async def _right_of_staff(
        self, request: AuthorizationRequest, client: Client, account: Account
    ) -> Way | Step:
        """The practice of a standalone launch: the only one, or the one that was chosen."""
        staff = await self._directory.staff_of(account)
        served = {one.practice: one for one in staff if client.serves_staff_of(one.practice)}
        if not served:
            return NotAllowed(client, "app" if staff else "staff")
        chosen = served.get(request.practice or "")
        if chosen is None and len(served) == 1:
            (chosen,) = served.values()
        if chosen is None:
            return ChoosePractice(client, served)
        return Way(chosen, None, other_records=len(served) > 1)

    async def _visited(
        self, request: AuthorizationRequest, client: Client, account: Account, way: Way
    ) -> Way | Step:
        """Have a visit chosen where the app asks for one, and there is one that it would see."""
        asked = self._grantable.askable(request.scope.within(client.may_ask_for), way.launch)
        record = way.record
        if (
            way.launch is not None
            or self._visits is None
            or record is None
            or way.others
            or request.wants_several
            or LAUNCH_ENCOUNTER not in asked.identity
        ):
            return way
        allowed = self._grantable.narrowed(asked, record)
        seen = tuple(one for one in allowed.resource if one.resource_type == "Encounter")
        if not sees_visits(ScopeSet((), seen)):
            return way
        visits = await self._visits(account, record, ScopeSet((), seen))
        chosen = [one for one in visits if one.reference == request.encounter] or list(visits)
        if len(chosen) > 1:
            return ChooseVisit(client, record, visits)
        if not chosen:
            return way
        return replace(way, visit=chosen[0], other_visits=len(visits) > 1)


def _chosen(
    request: AuthorizationRequest, records: Sequence[RecordAccess]
) -> tuple[RecordAccess, ...]:
    """The records that were picked, or the only one if it is the person's own.

    None when one of the picked is not theirs any more: they choose again.
    """
    if request.patient is not None:
        picked = ((request.practice, request.patient), *request.others)
        found = [way_to(records, practice, patient) for practice, patient in picked]
        return tuple(one for one in found if one is not None) if None not in found else ()
    return (records[0],) if len(records) == 1 and records[0].is_own else ()
