"""fhirpy from PyPI: the FHIR API by aiohttp, for who already has a token."""

from __future__ import annotations

import pytest
from fhirpy import AsyncFHIRClient
from fhirpy.base.exceptions import (
    AuthorizationError,
    ForbiddenError,
    OperationOutcome,
    ResourceNotFound,
)

from tests.end_to_end.demo import Demo, ids
from tests.end_to_end.running import an_observation


@pytest.fixture
def fhir(demo: Demo, patient_token: str) -> AsyncFHIRClient:
    """The library with the token of an app that Mara let read her record."""
    return AsyncFHIRClient(demo.fhir, authorization=f"Bearer {patient_token}")


async def test_it_reads_and_follows_references(fhir: AsyncFHIRClient) -> None:
    patient = await fhir.get("Patient", "mara")
    assert patient["name"][0]["family"] == "Ellwick"
    observation = await fhir.resources("Observation").search(patient="mara").first()
    assert observation is not None
    assert (await observation["subject"].to_resource())["id"] == "mara"


async def test_it_walks_the_pages_of_a_search(fhir: AsyncFHIRClient, demo: Demo) -> None:
    search = fhir.resources("Observation").search(patient="mara").limit(3)
    found = [dict(one) async for one in search]
    assert len(found) > 6
    held = "Observation/mara-a1c-held"  # a result that the practice has not released
    everything = ids(await demo.searched("Observation?patient=mara")) - {held}
    assert ids(found) == everything
    assert len(found) == len(everything)


async def test_a_record_of_somebody_else_is_not_there(fhir: AsyncFHIRClient) -> None:
    for who in ("silas", "nobody"):
        with pytest.raises(ResourceNotFound):
            await fhir.get("Patient", who)
    assert await fhir.resources("Observation").search(patient="silas").fetch_all() == []


async def test_what_was_not_granted_is_refused(fhir: AsyncFHIRClient) -> None:
    with pytest.raises(ForbiddenError, match="forbidden"):
        await fhir.resource("Observation", **an_observation(70, "mara")).create()
    with pytest.raises(AuthorizationError):
        await AsyncFHIRClient(fhir.url, authorization="Bearer guessed").get("Patient", "mara")


async def test_a_parameter_that_the_server_does_not_know_is_refused_by_name(
    fhir: AsyncFHIRClient,
) -> None:
    """The library's ``count()`` sends ``_totalMethod``, which no version of FHIR has."""
    with pytest.raises(OperationOutcome, match="_totalMethod"):
        await fhir.resources("Observation").search(patient="mara").count()
