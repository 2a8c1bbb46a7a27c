from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from tests.web.fhir_world import ANNA, EHR, FhirWorld


@pytest.fixture
async def fhir(tmp_path: Path) -> AsyncIterator[FhirWorld]:
    world = await FhirWorld.begin(tmp_path)
    yield world
    world.close()


@pytest.fixture
async def as_ehr(fhir: FhirWorld) -> AsyncIterator[httpx.AsyncClient]:
    async with fhir.client(EHR) as client:
        yield client


@pytest.fixture
async def as_patient(fhir: FhirWorld) -> AsyncIterator[httpx.AsyncClient]:
    async with fhir.client(ANNA) as client:
        yield client


@pytest.fixture
async def as_anyone(fhir: FhirWorld) -> AsyncIterator[httpx.AsyncClient]:
    async with fhir.client(None) as client:
        yield client
