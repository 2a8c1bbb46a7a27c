"""fhirclient from PyPI, as it is published: it finds the server by its CapabilityStatement.

It reads only the ``oauth-uris`` extension there. Version 4.4 sends PKCE (S256) by itself.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from fhirclient.client import FHIRClient, scope_default
from fhirclient.models.documentreference import DocumentReference
from fhirclient.models.observation import Observation
from fhirclient.models.patient import Patient
from fhirclient.models.relatedperson import RelatedPerson
from fhirclient.server import (
    FHIRNotFoundException,
    FHIRPermissionDeniedException,
    FHIRUnauthorizedException,
)

from tests.end_to_end.demo import CALLBACK, CONFIDENTIAL, PUBLIC, Demo, ids
from tests.end_to_end.person import Person, parameters_of

HELD = "Observation/mara-a1c-held"  # a result that the practice has not released
SCOPE = "openid fhirUser offline_access patient/*.rs"


Launch = Callable[..., FHIRClient]
People = Callable[[str], Person]


@pytest.fixture
def start(demo: Demo) -> Iterator[Launch]:
    """fhirclient, up to where it wants to send somebody to the pages."""
    with contextlib.ExitStack() as sessions:

        def started(client: str = PUBLIC, scope: str = SCOPE) -> FHIRClient:
            settings = {
                "app_id": client,
                "app_secret": demo.client(client).get("client_secret"),
                "api_base": demo.fhir,
                "redirect_uri": CALLBACK,
                "scope": scope,
            }
            smart = FHIRClient(settings=settings)
            sessions.enter_context(smart.server.session)
            assert not smart.prepare()  # it has read /metadata, and knows that it has no token
            return smart

        yield started


@pytest.fixture
def launch(start: Launch) -> Launch:
    """A standalone launch, from discovery to the token."""

    def launched(person: Person, *, record: str, untick: str = "", **options: str) -> FHIRClient:
        smart = start(**options)
        callback = person.visit(
            smart.authorize_url, back_to=CALLBACK, record=record, untick=untick.split()
        )
        smart.handle_callback(callback)
        assert smart.ready
        return smart

    return launched


def found(smart: FHIRClient, kind: Any, **search: str) -> set[str]:
    """Search as fhirclient does, through all pages."""
    return {
        f"{one.resource_type}/{one.id}"
        for one in kind.where(search).perform_resources_iter(smart.server)
    }


def expected(demo: Demo, search: str) -> list[dict[str, Any]]:
    return asyncio.run(demo.searched(search))


def test_a_patient_reads_the_own_record(demo: Demo, launch: Launch, person: People) -> None:
    mara = person("mara")
    smart = launch(mara, record="Patient/mara")
    assert mara.pages == ["Sign in", "Whose record?", "Allow Sample app to use your record?"]

    assert smart.patient_id == "mara"
    assert smart.patient.name[0].family == "Ellwick"
    for kind in (Observation, DocumentReference):
        everything = ids(expected(demo, f"{kind.resource_type}?patient=mara"))
        everything.discard(HELD)
        assert len(everything) > 5
        assert found(smart, kind, patient="mara") == everything


def test_a_patient_reads_no_other_record(demo: Demo, launch: Launch, person: People) -> None:
    smart = launch(person("mara"), record="Patient/mara")
    with pytest.raises(FHIRNotFoundException):
        Patient.read("silas", smart.server)
    assert ids(expected(demo, "Observation?patient=silas"))
    assert found(smart, Observation, patient="silas") == set()


def test_what_was_unticked_is_not_granted(launch: Launch, person: People) -> None:
    smart = launch(person("mara"), record="Patient/mara", untick="patient/DocumentReference.rs")
    assert found(smart, Observation, patient="mara")
    with pytest.raises(FHIRPermissionDeniedException):
        found(smart, DocumentReference, patient="mara")


def test_a_proxy_reads_the_sections_of_the_grant(
    demo: Demo, launch: Launch, person: People
) -> None:
    """Juno's mother sees results and documents; her father results, and no documents."""
    mother = person("mara")
    smart = launch(mother, record="Patient/juno")
    assert mother.pages[-1].startswith("Allow Sample app to use the record of Juno")
    assert smart.patient_id == "juno"
    documents = ids(expected(demo, "DocumentReference?patient=juno"))
    assert documents
    assert found(smart, DocumentReference, patient="juno") == documents
    assert found(smart, Observation, patient="juno")
    with pytest.raises(FHIRNotFoundException):
        Patient.read("mara", smart.server)  # her own record is another token's


def test_a_proxy_gets_nothing_of_a_missing_section(
    demo: Demo, launch: Launch, person: People
) -> None:
    assert demo.sections("oskar", "Patient/juno").isdisjoint({"documents", "visits"})
    father = person("oskar")
    smart = launch(father, record="Patient/juno")
    assert smart.patient.id == "juno"

    results = {
        f"Observation/{one['id']}"
        for one in expected(demo, "Observation?patient=juno")
        if any(
            coding["code"] in ("laboratory", "vital-signs")
            for category in one.get("category", [])
            for coding in category["coding"]
        )
    }
    assert results
    assert found(smart, Observation, patient="juno") == results
    documents = ids(expected(demo, "DocumentReference?patient=juno"))
    assert documents
    assert not [scope for scope in father.offered if "DocumentReference" in scope]
    with pytest.raises(FHIRPermissionDeniedException):
        found(smart, DocumentReference, patient="juno")
    for document in documents:
        with pytest.raises(FHIRPermissionDeniedException):
            DocumentReference.read(document.partition("/")[2], smart.server)


def test_a_proxy_reads_itself_and_no_other_proxy(
    demo: Demo, launch: Launch, person: People
) -> None:
    smart = launch(person("oskar"), record="Patient/juno")
    related = ids(expected(demo, "RelatedPerson?patient=juno"))
    assert len(related) > 1
    (own,) = found(smart, RelatedPerson, patient="juno")
    assert own in related
    for other in related - {own}:
        with pytest.raises(FHIRNotFoundException):
            RelatedPerson.read(other.partition("/")[2], smart.server)


def test_a_confidential_client_refreshes(launch: Launch, person: People) -> None:
    """fhirclient sends Basic and an equal ``client_id`` in the body; both together are accepted."""
    smart = launch(person("mara"), client=CONFIDENTIAL, record="Patient/mara")
    before = smart.server.auth.access_token
    smart.reauthorize()
    assert smart.server.auth.access_token != before
    assert smart.patient.id == "mara"
    smart.server.auth.access_token = before + "x"
    with pytest.raises(FHIRUnauthorizedException):
        Patient.read("mara", smart.server)


def test_a_person_says_no(start: Launch, person: People) -> None:
    smart = start()
    callback = person("mara").visit(
        smart.authorize_url, back_to=CALLBACK, record="Patient/mara", decision="deny"
    )
    assert parameters_of(callback)["error"] == "access_denied"
    with pytest.raises(Exception, match="said no"):
        smart.handle_callback(callback)
    assert not smart.ready


def test_scopes_of_version_1_are_understood(launch: Launch, person: People) -> None:
    smart = launch(person("mara"), record="Patient/mara", scope="patient/*.read openid profile")
    granted = smart.launch_context["scope"].split()
    assert "patient/Observation.read" in granted
    assert "profile" not in granted
    assert found(smart, Observation, patient="mara")


def test_its_default_scope_is_two_contexts_in_one_and_is_refused(
    start: Launch, person: People
) -> None:
    """``user/*.* patient/*.read …``: an app says which it means by a scope of its own."""
    smart = start(scope=scope_default)
    callback = person("mara").visit(smart.authorize_url, back_to=CALLBACK)
    assert parameters_of(callback)["error"] == "invalid_scope"
