from __future__ import annotations

import pytest

from fhir_portal.embedded.store import EmbeddedStore
from tests.builders import (
    DERM,
    FAMILY,
    Caller,
    a_client,
    a_grant,
    a_patient,
    a_person,
    a_practice,
    a_related_person,
    an_account,
    keep,
)
from tests.images import once


@pytest.fixture
async def family(store: EmbeddedStore, ehr: Caller, other_ehr: Caller) -> EmbeddedStore:
    """Ada, her child Kit with a grant to her, and Ada once more at the other practice."""

    async def write() -> None:
        await keep(store, a_practice(DERM), a_practice(FAMILY), a_client("app"))
        await keep(store, an_account("ada", f"{DERM}/Person/ada", f"{FAMILY}/Person/ada"))
        await ehr.store(
            a_patient("ada"),
            a_patient("kit"),
            a_patient("bo"),
            a_related_person("mother", of="kit"),
            a_grant(
                "grant", of="kit", to="mother", sections=["results", "messages"], act=["messages"]
            ),
            a_person("ada", links=["Patient/ada", "RelatedPerson/mother"]),
        )
        await other_ehr.store(
            a_patient("ada-f"), a_patient("kit"), a_person("ada", links=["Patient/ada-f"])
        )

    await once("family", store, write, portal=ehr.portal)
    return store
