"""A practice whose portal is off: nothing of it opens for patients and proxies, from now on."""

from __future__ import annotations

import functools

import pytest

from fhir_portal.access.authenticate import Callers
from fhir_portal.access.relation import Relations
from fhir_portal.accounts.account import Account
from fhir_portal.accounts.policy import PracticePolicy
from fhir_portal.embedded.store import EmbeddedStore
from fhir_portal.fhir.errors import Unauthenticated
from tests.builders import (
    DERM,
    FAMILY,
    Caller,
    Clock,
    a_client,
    a_proxy,
    an_access_token,
    an_account,
    an_ehr,
    bearer_of,
    changed,
    keep,
    oneself,
)
from tests.staff import a_chart_app, a_member_of_staff, records_of_staff

SWITCHED_OFF = PracticePolicy(key=DERM, portal=False)


async def seen(store: EmbeddedStore) -> list[tuple[str, str]]:
    ada = await store.get(Account, "ada")
    assert ada is not None
    found = await Relations(store, Clock()).records_of(ada)
    return [(one.practice, one.patient) for one in found]


async def test_own_records_and_grants_of_that_practice_are_closed_and_no_other(
    family: EmbeddedStore,
) -> None:
    before = await seen(family)
    assert {practice for practice, _ in before} == {DERM, FAMILY}
    await keep(family, SWITCHED_OFF)
    assert await seen(family) == [(FAMILY, "Patient/ada-f")]
    ada = await family.get(Account, "ada")
    assert ada is not None
    relations = Relations(family, Clock())
    for patient in ("Patient/ada", "Patient/kit"):
        assert await relations.record_of(ada, DERM, patient) is None
    await keep(family, PracticePolicy(key=DERM, portal=True))
    assert await seen(family) == before


async def test_tokens_of_people_are_refused_at_once_and_those_of_staff_and_ehrs_go_on(
    family: EmbeddedStore, ehr: Caller, clock: Clock
) -> None:
    own = changed(an_access_token("own", oneself("ada")), account="ada")
    proxy = changed(an_access_token("proxy", a_proxy("kit", "mother")), account="ada")
    elsewhere = changed(an_access_token("elsewhere", oneself("ada-f", FAMILY)), account="ada")
    backend = a_client("ehr-of-dermatology")
    await keep(family, own, proxy, elsewhere, backend, an_access_token("backend", an_ehr()))
    desk = a_member_of_staff()
    practitioner = {"resourceType": "Practitioner", "id": "desk", "active": True}
    await ehr.store(practitioner)
    await keep(family, a_chart_app(), an_account("desk"), *records_of_staff(("desk", desk)))
    callers = Callers(family, clock)
    known = {name: await callers.of(bearer_of(name)) for name in ("own", "proxy", "desk")}
    await keep(family, SWITCHED_OFF)
    for name in ("own", "proxy"):
        with pytest.raises(Unauthenticated):
            await callers.of(bearer_of(name))
        with pytest.raises(Unauthenticated):
            await family.transact(functools.partial(callers.still, auth=known[name]))
    assert (await callers.of(bearer_of("desk"))).staff is not None
    assert (await callers.of(bearer_of("backend"))).context == "system"
    assert (await callers.of(bearer_of("elsewhere"))).patient == "ada-f"
