"""Two people and a child at one practice, and the child's id at another."""

from __future__ import annotations

import pytest

from fhir_portal.embedded.store import EmbeddedStore
from fhir_portal.portal import Portal
from tests.builders import (
    DIRECTORY,
    WITHHELD,
    Caller,
    a_binary,
    a_communication,
    a_condition,
    a_document,
    a_grant,
    a_patient,
    a_person,
    a_practitioner,
    a_provenance,
    a_proxy,
    a_related_person,
    an_encounter,
    an_observation,
    oneself,
    resource,
    some_answers,
)
from tests.images import once


@pytest.fixture
async def as_ehr(store: EmbeddedStore, ehr: Caller, other_ehr: Caller) -> Caller:
    """The EHR, once it has written everybody's records."""

    async def write() -> None:
        await ehr.store(
            resource("Organization", "house", name="House", meta=DIRECTORY),
            a_practitioner("lark"),
            a_practitioner("wren"),
            a_patient("ada"),
            a_patient("bo", family="Berg"),
            a_patient("kit", birthDate="2021-01-01"),
        )
        for own_id, doctor in (("ada", "lark"), ("bo", "wren"), ("kit", "wren")):
            await ehr.store(
                an_observation(f"pulse-{own_id}", of=own_id, performer=f"Practitioner/{doctor}"),
                an_observation(f"lab-{own_id}", of=own_id, category="laboratory"),
                an_observation(f"kept-{own_id}", of=own_id, meta=WITHHELD),
                a_condition(f"rash-{own_id}", of=own_id),
                an_encounter(f"visit-{own_id}", of=own_id),
                a_binary(f"scan-{own_id}"),
                a_document(f"letter-{own_id}", of=own_id, binary=f"scan-{own_id}"),
                a_provenance(f"source-{own_id}", about=[f"Observation/lab-{own_id}"]),
                a_communication(f"hello-{own_id}", of=own_id, sender=f"Patient/{own_id}"),
                some_answers(f"form-{own_id}", of=own_id, source=f"Patient/{own_id}"),
            )
        await ehr.store(
            a_related_person("mother", of="kit"),
            a_related_person("father", of="kit", relationship="father"),
            a_grant("grant-mother", of="kit", to="mother", sections=["results", "messages"]),
            a_grant("grant-father", of="kit", to="father", sections=["visits"]),
            a_person("ada", links=["Patient/ada", "RelatedPerson/mother"]),
        )
        await other_ehr.store(
            a_patient("kit", family="Stranger"),
            an_observation("lab-kit", of="kit", category="laboratory", value=999),
            an_observation("elsewhere", of="kit", category="laboratory"),
        )

    await once("boundaries", store, write, portal=ehr.portal)
    return ehr


@pytest.fixture
def as_ada(as_ehr: Caller) -> Caller:
    return Caller(as_ehr.portal, oneself("ada"))


@pytest.fixture
def as_bo(as_ehr: Caller) -> Caller:
    return Caller(as_ehr.portal, oneself("bo"))


@pytest.fixture
def as_mother(as_ehr: Caller) -> Caller:
    """Ada for Kit: results and messages; may write messages."""
    auth = a_proxy(
        "kit",
        "mother",
        sections=["results", "messages"],
        act=["messages"],
        grant="grant-mother",
    )
    return Caller(as_ehr.portal, auth)


@pytest.fixture
def as_father(as_ehr: Caller) -> Caller:
    return Caller(
        as_ehr.portal, a_proxy("kit", "father", sections=["visits"], grant="grant-father")
    )


@pytest.fixture
def front_door(as_ehr: Caller) -> Portal:
    return as_ehr.portal
