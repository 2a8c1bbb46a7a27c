"""Attacks and accidents around whose record a token is for."""

from __future__ import annotations

import dataclasses

import pytest

from fhir_portal.access.authenticate import Callers
from fhir_portal.embedded.store import EmbeddedStore
from tests.builders import (
    DERM,
    FAMILY,
    Caller,
    Clock,
    a_client,
    a_grant,
    a_patient,
    a_person,
    a_practice,
    a_proxy,
    a_related_person,
    an_access_token,
    an_account,
    an_observation,
    bearer_of,
    keep,
    oneself,
)


@pytest.fixture
async def ada(store: EmbeddedStore, ehr: Caller) -> None:
    """Ada with a token for her own record at one practice; the other practice knows her, too."""
    await keep(
        store,
        a_practice(DERM),
        a_practice(FAMILY),
        a_client("app"),
        an_account("ada", f"{DERM}/Person/ada", f"{FAMILY}/Person/ada"),
    )
    await ehr.store(a_patient("ada"), a_person("ada", links=["Patient/ada"]))
    await keep(
        store,
        an_access_token("ada", dataclasses.replace(oneself("ada"), account="ada")),
    )


@pytest.mark.usefixtures("ada")
async def test_a_practice_that_uses_the_same_patient_id_locks_nobody_out(
    store: EmbeddedStore, clock: Clock, other_ehr: Caller
) -> None:
    callers = Callers(store, clock)
    assert (await callers.of(bearer_of("ada"))).practice == DERM
    await other_ehr.store(a_patient("ada"), a_person("ada", links=["Patient/ada"]))
    found = await callers.of(bearer_of("ada"))
    assert found.record is not None
    assert (found.record.practice, found.record.patient) == (DERM, "Patient/ada")


@pytest.mark.usefixtures("ada")
async def test_a_proxy_whom_a_practice_calls_self_stays_a_proxy(
    store: EmbeddedStore, clock: Clock, ehr: Caller
) -> None:
    """What kind of relation it is says the grant, never the words of a RelatedPerson."""
    await ehr.store(
        a_patient("kit"),
        a_related_person("mother", of="kit", relationship="self"),
        a_grant(of="kit", to="mother", sections=["messages"]),
        a_person("ada", links=["Patient/ada", "RelatedPerson/mother"]),
        an_observation("o", of="kit"),
    )
    auth = a_proxy(sections=["messages"])
    await keep(store, an_access_token("kit", dataclasses.replace(auth, account="ada")))
    found = await Callers(store, clock).of(bearer_of("kit"))
    assert found.record is not None
    assert found.record.relation == "self"
    assert not found.is_self
    assert not found.record.is_own
    assert (await Caller(ehr.portal, found).get("Observation/o")).status == 404
