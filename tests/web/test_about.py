"""``/about/licences``: what is said of the software of others is what is installed."""

from __future__ import annotations

from collections.abc import AsyncIterator
from importlib import metadata

import httpx
import pytest

from fhir_portal.web.pages.about import about_router, components
from fhir_portal.web.site import site


@pytest.fixture
async def http() -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(site([about_router()], version="test"))
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        yield client


@pytest.mark.requirement("portal", "S0-23")
async def test_everything_that_runs_is_named_with_its_licence(http: httpx.AsyncClient) -> None:
    """S0-23."""
    page = await http.get("/about/licences")
    assert page.status_code == 200
    for name in ("fastapi", "argon2-cffi", "starlette", "pydantic_core"):
        assert metadata.distribution(name).name in page.text
    assert {one.licence for one in components()} - {""} == {one.licence for one in components()}
    assert not any(one.name in {"pytest", "mypy", "fhir-portal"} for one in components())


async def test_the_bill_of_materials_is_cyclonedx(http: httpx.AsyncClient) -> None:
    answer = await http.get("/about/sbom.json")
    bill = answer.json()
    assert (bill["bomFormat"], bill["specVersion"]) == ("CycloneDX", "1.5")
    listed = {one["name"]: one for one in bill["components"]}
    assert listed["httpx"]["purl"] == f"pkg:pypi/httpx@{metadata.version('httpx')}"
    assert len(listed) == len(components())
