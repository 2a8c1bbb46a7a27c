"""fhir-kit-client from npm, in node: the FHIR API for who already has a token."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from tests.end_to_end.browser import missing
from tests.end_to_end.demo import Demo, ids
from tests.end_to_end.node import Script, Thrown
from tests.end_to_end.running import an_observation

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(bool(missing()), reason=missing() or "all is there"),
]


@pytest.fixture
def kit(demo: Demo, patient_token: str) -> Iterator[Script]:
    """The library with the token of an app that Mara let read her record."""
    with Script.running("fhir_kit_client") as script:
        script("open", base=demo.fhir, token=patient_token)
        yield script


def found(pages: list[dict[str, Any]]) -> list[str]:
    return [entry["resource"]["id"] for page in pages for entry in page["entry"]]


def test_it_finds_the_endpoints_by_itself(kit: Script, demo: Demo) -> None:
    told = kit("smart")
    assert told["tokenUrl"] == f"{demo.server.base}/oauth/token"
    assert told["authorizeUrl"] == f"{demo.server.base}/oauth/authorize"
    assert told["registerUrl"] == f"{demo.server.base}/oauth/register"
    assert kit("capabilities")["fhirVersion"] == "4.0.1"


def test_it_reads_a_resource_its_version_and_what_refers_to_it(kit: Script) -> None:
    patient = kit("read", type="Patient", id="mara")
    assert patient["id"] == "mara"
    version = patient["meta"]["versionId"]
    assert kit("vread", type="Patient", id="mara", version=version) == patient
    (page, *_) = kit("search", type="Observation", parameters={"patient": "mara", "_count": 1})
    subject = page["entry"][0]["resource"]["subject"]["reference"]
    assert kit("resolve", reference=subject) == patient


def test_it_walks_the_pages_of_a_search(kit: Script, demo: Demo) -> None:
    pages = kit("search", type="Observation", parameters={"patient": "mara", "_count": 3})
    assert len(pages) > 2
    everything = {f"Observation/{one}" for one in found(pages)}
    assert len(everything) == len(found(pages))
    held = "Observation/mara-a1c-held"  # a result that the practice has not released
    assert everything == ids(asyncio.run(demo.searched("Observation?patient=mara"))) - {held}


@pytest.mark.parametrize(("type", "id"), [("Patient", "silas"), ("Patient", "nobody")])
def test_a_record_of_somebody_else_is_not_there(kit: Script, type: str, id: str) -> None:  # noqa: A002
    with pytest.raises(Thrown) as refused:
        kit("read", type=type, id=id)
    assert refused.value.status == 404
    assert refused.value.resource["issue"][0]["code"] == "not-found"


def test_what_was_not_granted_is_refused(kit: Script) -> None:
    with pytest.raises(Thrown) as refused:
        kit("create", resource=an_observation(70, "mara"))
    assert refused.value.status == 403
    assert refused.value.resource["issue"][0]["code"] == "forbidden"
