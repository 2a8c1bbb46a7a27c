"""What staff have open in a browser: a real token that nobody has, over when anything is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from fhir_portal.access.authenticate import Callers
from fhir_portal.access.relation import Relations, works
from fhir_portal.accounts.levels import OPERATOR
from fhir_portal.accounts.sessions import Opened, Sessions, SignedOutMeanwhile
from fhir_portal.embedded.store import EmbeddedStore
from fhir_portal.fhir.errors import Unauthenticated
from fhir_portal.smart.client import (
    Client,
    approve_client,
    disable_client,
    enable_client,
    withdraw_approval,
)
from fhir_portal.smart.issuer import Issuer
from fhir_portal.smart.launch import Launch
from fhir_portal.smart.launch_context import LaunchContext
from fhir_portal.smart.page_session import StaffSession
from fhir_portal.smart.revocation import disable_account, remove_staff
from fhir_portal.smart.staff_pages import (
    CLIENT,
    IDLE_SECONDS,
    LaunchRefused,
    NotOnStaff,
    StaffSessions,
    SwitchedOff,
)
from fhir_portal.smart.token import AccessToken, token_hash
from tests.builders import (
    DERM,
    FAMILY,
    START,
    Caller,
    Clock,
    a_patient,
    a_practice,
    a_practitioner,
    an_access_token,
    an_account,
    changed,
    keep,
    oneself,
)
from tests.staff import a_membership

SCOPE = "user/Patient.rs"


@dataclass
class Desk:
    store: EmbeddedStore
    clock: Clock
    sessions: Sessions
    staff: StaffSessions
    callers: Callers
    opened: Opened

    @property
    def visitor(self) -> Any:
        return self.opened.visitor

    async def caller(self) -> Any:
        """Who the open session stands for."""
        session = await self.staff.find(self.visitor)
        if session is None:
            raise Unauthenticated
        return await self.callers.held(session.token)

    async def launch(self, **changes: Any) -> str:
        handle = f"handle-{len(await self.store.every(Launch))}"
        launch = Launch(
            key=token_hash(handle),
            expires=START + 600,
            issued=START,
            made_by="ehr",
            practice=DERM,
            patient="Patient/ada",
            context=LaunchContext(),
        )
        await keep(self.store, changed(launch, **changes))
        return handle


@pytest.fixture
async def desk(store: EmbeddedStore, ehr: Caller, other_ehr: Caller, clock: Clock) -> Desk:
    """Somebody on the staff of one practice who has signed in."""
    await keep(store, a_practice(DERM), a_practice(FAMILY))
    await keep(store, an_account("desk"), a_membership())
    await ehr.store(a_practitioner("desk"), a_patient("ada"))
    await other_ehr.store(a_practitioner("desk"), a_patient("ada-f"))
    count = iter(range(1, 1000))

    def random(size: int) -> bytes:
        return next(count).to_bytes(size, "big")

    sessions = Sessions(store, clock=clock, random=random)
    account = an_account("desk")
    opened = await sessions.sign_in((await sessions.open()).visitor.session, account)
    staff = StaffSessions(
        store,
        directory=Relations(store, clock),
        issuer=Issuer("http://127.0.0.1:8000"),
        scope=SCOPE,
        clock=clock,
        random=random,
    )
    return Desk(store, clock, sessions, staff, Callers(store, clock), opened)


async def is_over(desk: Desk) -> bool:
    """Whether neither the browser nor the token's key opens anything."""
    keys = [one.token for one in await desk.store.every(StaffSession)]
    try:
        await desk.callers.held(keys[0] if keys else "no such key")
    except Unauthenticated:
        return True
    return False


async def test_the_token_is_the_pages_clients_for_the_practitioner_at_the_practice(
    desk: Desk,
) -> None:
    session = await desk.staff.open(desk.visitor, DERM)
    auth = await desk.callers.held(session.token)
    assert (auth.client, auth.context, auth.practice) == (CLIENT, "user", DERM)
    assert (auth.fhir_user, auth.account) == ("Practitioner/desk", "desk")
    assert str(auth.scopes) == SCOPE


async def test_what_is_stored_of_it_is_no_bearer_token(desk: Desk) -> None:
    session = await desk.staff.open(desk.visitor, DERM)
    for text in (session.token, session.key, desk.opened.cookie):
        with pytest.raises(Unauthenticated):
            await desk.callers.of(text)


async def test_no_token_that_was_given_out_is_held_by_its_key(desk: Desk) -> None:
    given = changed(an_access_token("own", oneself("ada")), account="desk")
    await keep(desk.store, given)
    with pytest.raises(Unauthenticated):
        await desk.callers.held(given.key)


async def test_nobody_opens_a_practice_on_whose_staff_they_are_not(desk: Desk) -> None:
    with pytest.raises(NotOnStaff):
        await desk.staff.open(desk.visitor, FAMILY)
    assert not await desk.store.every(AccessToken)


async def test_signing_out_ends_it(desk: Desk) -> None:
    await desk.staff.open(desk.visitor, DERM)
    await desk.sessions.sign_out(desk.visitor.session)
    assert await is_over(desk)


async def test_a_session_that_was_ended_elsewhere_ends_it(desk: Desk) -> None:
    await desk.staff.open(desk.visitor, DERM)
    await desk.sessions.end("desk", desk.visitor.session.key)
    assert await is_over(desk)
    with pytest.raises(SignedOutMeanwhile):
        await desk.staff.open(desk.visitor, DERM)


async def test_it_outlives_a_new_cookie_of_the_same_browser_session(desk: Desk) -> None:
    await desk.staff.open(desk.visitor, DERM)
    opened, write = desk.sessions.confirmed(desk.visitor, ())
    await desk.store.transact(write)
    desk.opened = opened
    assert (await desk.caller()).practice == DERM


async def test_another_account_in_the_same_browser_has_nothing_open(desk: Desk) -> None:
    await desk.staff.open(desk.visitor, DERM)
    await keep(desk.store, an_account("other"))
    desk.opened = await desk.sessions.sign_in(desk.visitor.session, an_account("other"))
    assert await desk.staff.find(desk.visitor) is None
    assert await is_over(desk)


async def test_removal_from_the_staff_ends_it_and_being_added_again_does_not_revive_it(
    desk: Desk,
) -> None:
    session = await desk.staff.open(desk.visitor, DERM)
    await remove_staff(
        desk.store, account="desk", practice=DERM, now=START, by=OPERATOR, works=works
    )
    with pytest.raises(Unauthenticated):
        await desk.callers.held(session.token)
    await keep(desk.store, a_membership())
    with pytest.raises(Unauthenticated):
        await desk.callers.held(session.token)
    assert await desk.staff.find(desk.visitor) is None


async def test_a_disabled_account_has_nothing_open(desk: Desk) -> None:
    await desk.staff.open(desk.visitor, DERM)
    await disable_account(desk.store, "desk", now=START)
    assert not await desk.store.every(StaffSession)
    assert not await desk.store.every(AccessToken)


async def test_fifteen_minutes_without_a_request_end_it(desk: Desk) -> None:
    session = await desk.staff.open(desk.visitor, DERM)
    desk.clock.advance(IDLE_SECONDS - 1)
    assert await desk.staff.find(desk.visitor) is not None
    with_another = await desk.staff.find(desk.visitor)
    assert with_another is not None
    assert with_another.token != session.token
    assert (await desk.callers.held(session.token)).practice == DERM  # what is under way goes on
    desk.clock.advance(2)
    with pytest.raises(Unauthenticated):
        await desk.callers.held(session.token)
    assert (await desk.caller()).practice == DERM
    desk.clock.advance(IDLE_SECONDS)
    assert await desk.staff.find(desk.visitor) is None
    assert await is_over(desk)


async def test_opening_another_practice_closes_the_first(desk: Desk) -> None:
    await keep(desk.store, a_membership(practice=FAMILY))
    first = await desk.staff.open(desk.visitor, DERM)
    await desk.staff.open(desk.visitor, FAMILY)
    with pytest.raises(Unauthenticated):
        await desk.callers.held(first.token)
    assert (await desk.caller()).practice == FAMILY


async def test_closing_ends_the_token(desk: Desk) -> None:
    await desk.staff.open(desk.visitor, DERM)
    await desk.staff.end(desk.visitor)
    assert not await desk.store.every(AccessToken)


async def test_a_membership_without_its_practitioner_conveys_nothing(
    desk: Desk, ehr: Caller
) -> None:
    await desk.staff.open(desk.visitor, DERM)
    await ehr.store(a_practitioner("desk", active=False))
    assert await is_over(desk)


# --- the client -----------------------------------------------------------------------------------


async def test_each_practice_approves_the_client_once_and_an_operator_may_withdraw(
    desk: Desk,
) -> None:
    await keep(desk.store, a_membership(practice=FAMILY))
    await desk.staff.open(desk.visitor, DERM)
    await withdraw_approval(desk.store, CLIENT, practices=[DERM], now=START)
    assert await is_over(desk)
    with pytest.raises(SwitchedOff):
        await desk.staff.open(desk.visitor, DERM)
    await desk.staff.open(desk.visitor, FAMILY)
    assert (await desk.caller()).practice == FAMILY
    await approve_client(desk.store, CLIENT, practices=[DERM])
    await desk.staff.open(desk.visitor, DERM)
    assert (await desk.caller()).practice == DERM


async def test_a_disabled_client_stays_disabled(desk: Desk) -> None:
    await desk.staff.open(desk.visitor, DERM)
    await disable_client(desk.store, CLIENT, now=START)
    assert await is_over(desk)
    with pytest.raises(SwitchedOff):
        await desk.staff.open(desk.visitor, DERM)
    await enable_client(desk.store, CLIENT)
    assert await is_over(desk)  # what it had is gone
    await desk.staff.open(desk.visitor, DERM)
    assert not await is_over(desk)


async def test_nobody_knows_the_clients_secret(desk: Desk) -> None:
    await desk.staff.open(desk.visitor, DERM)
    client = await desk.store.get(Client, CLIENT)
    assert client is not None
    assert (client.type, client.auth_method) == ("confidential", "client_secret_basic")
    assert client.secret_hash


# --- launches -------------------------------------------------------------------------------------


async def test_a_launch_opens_its_practice_once_and_brings_its_patient(desk: Desk) -> None:
    handle = await desk.launch()
    session, patient = await desk.staff.launched(desk.visitor, handle)
    assert (session.practice, patient) == (DERM, "ada")
    with pytest.raises(LaunchRefused):
        await desk.staff.launched(desk.visitor, handle)


@pytest.mark.parametrize(
    "changes",
    [
        {"client_id": "another-app"},
        {"fhir_user": "Practitioner/somebody-else"},
        {"expires": START},
    ],
)
async def test_a_launch_for_another_app_person_or_time_opens_nothing(
    desk: Desk, changes: dict[str, Any]
) -> None:
    handle = await desk.launch(**changes)
    with pytest.raises(LaunchRefused):
        await desk.staff.launched(desk.visitor, handle)
    assert await desk.store.every(Launch)
    assert not await desk.store.every(AccessToken)


async def test_a_launch_of_another_practice_opens_nothing(desk: Desk) -> None:
    handle = await desk.launch(practice=FAMILY)
    with pytest.raises(NotOnStaff):
        await desk.staff.launched(desk.visitor, handle)
    assert await desk.store.every(Launch)


async def test_a_launch_for_this_very_person_and_app_opens(desk: Desk) -> None:
    handle = await desk.launch(client_id=CLIENT, fhir_user="Practitioner/desk")
    _, patient = await desk.staff.launched(desk.visitor, handle)
    assert patient == "ada"


async def test_an_unknown_launch_is_refused(desk: Desk) -> None:
    with pytest.raises(LaunchRefused):
        await desk.staff.launched(desk.visitor, "x" * 43)
