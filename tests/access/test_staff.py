"""Whom staff are, on every request anew; what they hold ends with what it was given for."""

from __future__ import annotations

from typing import Any

import pytest

from fhir_portal.access.authenticate import Callers
from fhir_portal.access.context import AuthContext
from fhir_portal.access.relation import Relations, works
from fhir_portal.accounts.account import Account
from fhir_portal.accounts.levels import OPERATOR
from fhir_portal.accounts.practice import Practice
from fhir_portal.accounts.staff import NotStaff, StaffMember, suspend_where_closed
from fhir_portal.consent.record import RecordAccess, StaffAccess
from fhir_portal.embedded.store import EmbeddedStore
from fhir_portal.fhir.errors import Unauthenticated
from fhir_portal.smart.client import Client
from fhir_portal.smart.code import AuthorizationCode
from fhir_portal.smart.revocation import disable_account, remove_staff
from fhir_portal.smart.token import AccessToken, TokenFamily
from tests.builders import (
    DERM,
    FAMILY,
    START,
    Caller,
    Clock,
    a_patient,
    a_practice,
    a_practitioner,
    a_proxy,
    an_access_token,
    an_account,
    bearer_of,
    changed,
    keep,
    oneself,
)
from tests.staff import (
    CHART,
    a_chart_app,
    a_member_of_staff,
    a_membership,
    a_staff_token,
    records_of_staff,
)

DESK = a_member_of_staff()
BOUND = a_member_of_staff(patient="kit", account="desk")


@pytest.fixture
async def practice(family: EmbeddedStore, ehr: Caller, other_ehr: Caller) -> EmbeddedStore:
    """Both practices with a member of staff each, and tokens of one of them."""
    await ehr.store(a_practitioner("desk"), a_practitioner("nurse"))
    await other_ehr.store(a_practitioner("desk"))
    await keep(family, an_account("desk", role="staff"), a_chart_app())
    await keep(family, *records_of_staff(("whole", DESK), ("bound", BOUND)))
    return family


@pytest.fixture
def callers(practice: EmbeddedStore, clock: Clock) -> Callers:
    return Callers(practice, clock)


async def account_of(store: EmbeddedStore, key: str = "desk") -> Account:
    account = await store.get(Account, key)
    assert account is not None
    return account


async def staff_of(
    store: EmbeddedStore, clock: Clock, key: str = "desk"
) -> tuple[StaffAccess, ...]:
    relations, account = Relations(store, clock), await account_of(store, key)
    found = await relations.staff_of(account)
    at = [await relations.staff_at(account, practice) for practice in (DERM, FAMILY)]
    assert tuple(one for one in at if one is not None) == found
    return found


async def as_staff(
    store: EmbeddedStore, clock: Clock, patient: str, practice: str = DERM
) -> RecordAccess | None:
    account = await account_of(store)
    return await Relations(store, clock).staff_record_of(account, practice, patient)


async def refuses(callers: Callers, name: str) -> str:
    with pytest.raises(Unauthenticated) as refusal:
        await callers.of(bearer_of(name))
    return str(refusal.value)


# ---------------------------------------------------------------- who is staff


async def test_a_member_is_the_practitioner_of_that_practice(
    practice: EmbeddedStore, clock: Clock
) -> None:
    (found,) = await staff_of(practice, clock)
    assert (found.practice, found.fhir_user, found.name) == (DERM, "Practitioner/desk", "Lark")
    assert found.access == (DERM, "", "Practitioner/desk", None)


async def test_whom_an_earlier_release_shut_out_is_suspended_once(
    practice: EmbeddedStore, clock: Clock
) -> None:
    """Where the practice was closed for the account; who works again since is not asked again."""
    await keep(practice, a_practice(), a_practice(FAMILY), a_membership("desk", FAMILY))
    await keep(practice, changed(await account_of(practice), closed_at=(DERM,)))
    assert await suspend_where_closed(practice, now=clock()) == 1
    assert [one.practice for one in await staff_of(practice, clock)] == [FAMILY]
    member = await practice.get(StaffMember, f"{DERM}/desk")
    assert member is not None
    assert (member.suspended, member.helped_by) == (clock(), ())
    await keep(practice, changed(member, suspended=None))
    assert await suspend_where_closed(practice, now=clock()) == 0
    assert len(await staff_of(practice, clock)) == 2


async def test_one_account_is_staff_and_patient_and_at_two_practices(
    practice: EmbeddedStore, clock: Clock
) -> None:
    await keep(practice, a_membership("ada"), a_membership("ada", FAMILY))
    assert [one.practice for one in await staff_of(practice, clock, "ada")] == [DERM, FAMILY]
    records = await Relations(practice, clock).records_of(await account_of(practice, "ada"))
    assert not any(one.is_staff for one in records)
    assert {one.patient for one in records} == {"Patient/ada", "Patient/kit", "Patient/ada-f"}


async def test_staff_use_a_record_of_their_practice_to_read(
    practice: EmbeddedStore, clock: Clock
) -> None:
    found = await as_staff(practice, clock, "Patient/kit")
    assert found is not None
    assert (found.is_staff, found.is_own, found.is_proxy) == (True, False, False)
    assert (found.sections, found.act, found.grant) == (None, frozenset(), None)
    assert found.access == (DERM, "Patient/kit", "Practitioner/desk", None)


@pytest.mark.parametrize(
    ("patient", "where"),
    [
        ("Patient/ada-f", DERM),  # of the other practice
        ("Patient/ada-f", FAMILY),
        ("Patient/kit", FAMILY),
        ("Patient/nobody", DERM),
        ("Patient/kit/_history/1", DERM),
        ("http://127.0.0.1:8000/fhir/Patient/kit", DERM),
        ("RelatedPerson/mother", DERM),
        ("Practitioner/desk", DERM),
        ("Patient/", DERM),
        ("", DERM),
    ],
)
async def test_what_is_no_patient_of_the_practice_is_no_record(
    practice: EmbeddedStore, clock: Clock, patient: str, where: str
) -> None:
    assert await as_staff(practice, clock, patient, where) is None


async def test_a_deleted_patient_is_no_record(
    practice: EmbeddedStore, clock: Clock, ehr: Caller
) -> None:
    await ehr.store(a_patient("brief"))
    assert await as_staff(practice, clock, "Patient/brief")
    await ehr.delete("Patient/brief")
    assert await as_staff(practice, clock, "Patient/brief") is None


async def _delete(store: EmbeddedStore, kind: Any, key: str) -> None:
    async def work(transaction: Any) -> None:
        assert await transaction.delete(kind, key)

    await store.transact(work)


async def _put(store: EmbeddedStore, kind: Any, key: str, **changes: Any) -> None:
    await keep(store, changed(await store.get(kind, key), **changes))


Change = Any
NO_LONGER_STAFF: dict[str, Change] = {
    "the membership is gone": lambda store, _: _delete(store, StaffMember, f"{DERM}/desk"),
    "the account is disabled": lambda store, _: _put(store, Account, "desk", disabled=True),
    "the practitioner is inactive": lambda _, ehr: ehr.store(a_practitioner("desk", active=False)),
    "the practitioner is deleted": lambda _, ehr: ehr.delete("Practitioner/desk"),
    "the practitioner was never there": lambda store, _: keep(
        store, a_membership(practitioner="nobody")
    ),
    "the membership is of something else": lambda store, _: keep(
        store, changed(a_membership(), practitioner="Patient/kit")
    ),
    "the level is not known": lambda store, _: keep(store, a_membership(level="everything")),
    "the practice is gone": lambda store, _: _delete(store, Practice, DERM),
}
REFUSED: dict[str, Change] = NO_LONGER_STAFF | {
    "the client is disabled": lambda store, _: _put(store, Client, CHART, disabled=True),
    "the client awaits review": lambda store, _: _put(store, Client, CHART, awaits_review=True),
    "the client is approved elsewhere": lambda store, _: keep(store, a_chart_app(FAMILY)),
    "the client is approved nowhere": lambda store, _: _put(store, Client, CHART, approved_at=()),
    "another practitioner takes its place": lambda store, _: keep(
        store, a_membership(practitioner="nurse")
    ),
}


@pytest.mark.parametrize("ending", NO_LONGER_STAFF)
async def test_who_is_no_longer_staff_is_at_no_practice_and_in_no_record(
    practice: EmbeddedStore, clock: Clock, ehr: Caller, ending: str
) -> None:
    await NO_LONGER_STAFF[ending](practice, ehr)
    assert await staff_of(practice, clock) == ()
    assert await as_staff(practice, clock, "Patient/kit") is None


async def test_an_inactive_practitioner_elsewhere_changes_nothing(
    practice: EmbeddedStore, clock: Clock, other_ehr: Caller
) -> None:
    await other_ehr.store(a_practitioner("desk", active=False))
    assert len(await staff_of(practice, clock)) == 1


# ---------------------------------------------------------------- their tokens


async def test_a_user_token_is_of_the_practice_and_no_record(callers: Callers) -> None:
    found = await callers.of(bearer_of("whole"))
    assert found.staff is not None
    assert (found.context, found.staff.practice) == ("user", DERM)
    assert (found.fhir_user, found.record, found.patient) == ("Practitioner/desk", None, None)
    assert found.staff_patient is None
    assert found.account == "desk"


async def test_the_patient_an_ehr_had_open_is_no_bound(
    callers: Callers, practice: EmbeddedStore
) -> None:
    token = changed(a_staff_token("open", DESK), patient="Patient/kit")
    await keep(practice, token)
    found = await callers.of(bearer_of("open"))
    assert (found.record, found.staff_patient) == (None, None)


async def test_a_patient_token_of_staff_is_bound_and_nobodys_own(callers: Callers) -> None:
    found = await callers.of(bearer_of("bound"))
    assert (found.context, found.staff_patient) == ("patient", "kit")
    assert (found.record, found.is_self, found.patient) == (None, False, None)
    assert found.fhir_user == "Practitioner/desk"


@pytest.mark.parametrize("name", ["whole", "bound"])
@pytest.mark.parametrize("ending", REFUSED)
async def test_rights_of_staff_end_on_the_next_request_at_every_worker(
    callers: Callers, practice: EmbeddedStore, clock: Clock, ehr: Caller, ending: str, name: str
) -> None:
    elsewhere = Callers(practice, clock)
    before = await callers.of(bearer_of(name))
    await elsewhere.of(bearer_of(name))
    await REFUSED[ending](practice, ehr)
    words = {await refuses(callers, name), await refuses(elsewhere, name)}
    assert words == {await refuses(callers, "unknown")}

    async def write(transaction: Any) -> None:
        await callers.still(transaction, before)

    with pytest.raises(Unauthenticated):
        await practice.transact(write)
    with pytest.raises(Unauthenticated):
        await callers.confirm(before)


async def test_a_patient_token_of_staff_ends_with_its_patient(
    callers: Callers, ehr: Caller
) -> None:
    await callers.of(bearer_of("bound"))
    await ehr.delete("Patient/kit")
    await refuses(callers, "bound")
    await callers.of(bearer_of("whole"))


async def test_a_token_of_staff_expires_at_its_instant(
    callers: Callers, practice: EmbeddedStore, clock: Clock
) -> None:
    for name, auth in (("whole", DESK), ("bound", BOUND)):
        await keep(practice, changed(a_staff_token(name, auth), expires=START + 10))
    clock.advance(9.999)
    await callers.of(bearer_of("whole"))
    await callers.of(bearer_of("bound"))
    clock.advance(0.001)
    await refuses(callers, "whole")
    await refuses(callers, "bound")


@pytest.mark.parametrize("auth", [DESK, BOUND], ids=["user", "patient"])
@pytest.mark.parametrize(
    "changes",
    [
        {"practice": FAMILY},
        {"practice": "nowhere"},
        {"fhir_user": "Practitioner/nurse"},
        {"fhir_user": "Patient/kit"},
        {"fhir_user": None},
        {"grant": "Consent/grant"},
        {"account": None},
        {"account": "ada"},
        {"account": "nobody"},
        {"client_id": "app"},  # an app for patients: nobody approved it for staff
        {"client_id": "unknown"},
    ],
    ids=str,
)
async def test_a_token_that_says_anything_else_is_refused(
    callers: Callers, practice: EmbeddedStore, auth: AuthContext, changes: dict[str, Any]
) -> None:
    await keep(practice, changed(a_staff_token("odd", auth), **changes))
    await refuses(callers, "odd")


@pytest.mark.parametrize(
    "patient", ["Patient/ada-f", "Patient/nobody", "Practitioner/desk", "kit", "", None]
)
async def test_a_patient_token_of_staff_needs_a_patient_of_the_practice(
    callers: Callers, practice: EmbeddedStore, patient: str | None
) -> None:
    await keep(practice, changed(a_staff_token("odd", BOUND), patient=patient))
    await refuses(callers, "odd")


async def test_being_staff_gives_a_persons_token_nothing(
    callers: Callers, practice: EmbeddedStore
) -> None:
    """Neither the own token of somebody on the staff, nor one that only claims to be."""
    await keep(practice, a_membership("ada"))
    mine = changed(an_access_token("mine", oneself("ada")), account="ada")
    theirs = changed(an_access_token("theirs", oneself("bo")), account="ada")
    proxy = changed(an_access_token("proxy", a_proxy("kit", "mother")), account="ada")
    await keep(practice, mine, theirs, proxy)
    own = await callers.of(bearer_of("mine"))
    assert (own.is_self, own.staff) == (True, None)
    assert (await callers.of(bearer_of("proxy"))).staff is None
    await refuses(callers, "theirs")


async def test_a_system_token_with_a_persons_name_is_no_staff(
    callers: Callers, practice: EmbeddedStore
) -> None:
    token = changed(a_staff_token("odd", DESK), context="system")
    await keep(practice, token)
    assert (await callers.of(bearer_of("odd"))).staff is None


# ---------------------------------------------------------------- taking somebody off the staff


def a_family(key: str, auth: AuthContext, **changes: Any) -> TokenFamily:
    token = a_staff_token(key, auth)
    given: dict[str, Any] = {
        "key": key,
        "expires": START + 1e8,
        "issued": START,
        "rotated": START,
        "client_id": CHART,
        "account": "desk",
        "patient": token.patient or "",
        "practice": auth.practice,
        "fhir_user": token.fhir_user or "",
        "grant": token.grant,
        "scope": token.scope,
    }
    return TokenFamily(**given | changes)


def a_code(key: str, auth: AuthContext) -> AuthorizationCode:
    return AuthorizationCode(
        key=key,
        good_until=START + 60,
        client_id=CHART,
        redirect_uri="https://chart.example/callback",
        code_challenge="c" * 43,
        scope=str(auth.scopes),
        account="desk",
        practice=auth.practice,
        patient="",
        fhir_user=auth.fhir_user or "",
        grant=None,
        nonce=None,
        auth_time=START,
    )


@pytest.fixture
async def busy(practice: EmbeddedStore) -> EmbeddedStore:
    """The member of staff is a patient too, and on the staff of the other practice."""
    elsewhere = a_member_of_staff(practice=FAMILY)
    own = oneself("ada")
    for name, auth in (("whole", DESK), ("bound", BOUND), ("own", own), ("other", elsewhere)):
        token = changed(a_staff_token(name, auth), family=name, account="desk")
        await keep(practice, token, a_family(name, auth), a_code(name, auth))
    await keep(practice, a_membership("desk", FAMILY))
    return practice


async def _held(store: EmbeddedStore) -> dict[str, set[str]]:
    families = [one for one in await store.every(TokenFamily) if one.ended is None]
    return {
        "families": {one.key for one in families},
        "tokens": {one.family for one in await store.every(AccessToken)},
        "codes": {one.key for one in await store.every(AuthorizationCode)},
    }


async def test_taking_somebody_off_the_staff_ends_what_they_hold_as_that(
    busy: EmbeddedStore,
) -> None:
    ended = await remove_staff(
        busy, account="desk", practice=DERM, now=START, by=OPERATOR, works=works
    )
    assert ended == 2
    left = {"own", "other"}
    assert await _held(busy) == {"families": left, "tokens": left, "codes": left}
    found = [await busy.get(TokenFamily, name) for name in ("whole", "bound")]
    assert {one.ended_because for one in found if one is not None} == {"staff-removed"}
    assert await busy.get(StaffMember, f"{DERM}/desk") is None
    assert await busy.get(StaffMember, f"{FAMILY}/desk") is not None


async def test_who_comes_back_to_the_staff_has_to_connect_anew(
    busy: EmbeddedStore, clock: Clock
) -> None:
    await remove_staff(busy, account="desk", practice=DERM, now=START, by=OPERATOR, works=works)
    await keep(busy, a_membership())
    for name in ("whole", "bound"):
        await refuses(Callers(busy, clock), name)


async def test_disabling_the_account_ends_everything_it_holds(busy: EmbeddedStore) -> None:
    assert await disable_account(busy, "desk", now=START) == 4
    assert await _held(busy) == {"families": set(), "tokens": set(), "codes": set()}


async def test_who_is_not_on_the_staff_cannot_be_taken_off_it(busy: EmbeddedStore) -> None:
    before = await _held(busy)
    for account, practice in (("ada", DERM), ("desk", "nowhere"), ("nobody", DERM)):
        with pytest.raises(NotStaff):
            await remove_staff(
                busy, account=account, practice=practice, now=START, by=OPERATOR, works=works
            )
    assert await _held(busy) == before
