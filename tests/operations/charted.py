"""Ada's record with something in every part, and who else may see some of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from fhir_portal.access.context import AuthContext
from fhir_portal.consent.sections import section_displays
from fhir_portal.embedded.store import EmbeddedStore
from fhir_portal.portal import Portal
from tests.builders import START, Caller, Json, a_practice, a_proxy, changed, keep, oneself
from tests.charts import PRACTICE_ORGANIZATION, a_record

SEEN = ("demographics", "documents", "results", "medications", "immunizations", "health-summary")


@pytest.fixture
async def record(accounts: EmbeddedStore, ehr: Caller) -> EmbeddedStore:
    """Ada's record has something in every part; the practice's Organization is in its directory."""
    await ehr.store(PRACTICE_ORGANIZATION, *a_record("ada"))
    await keep(accounts, changed(a_practice(), organization="Organization/derm"))
    return accounts


@pytest.fixture
def aunt(portal: Portal) -> Caller:
    """Somebody with a grant to Ada's record, for all sections but sharing."""
    sections = tuple(one for one in section_displays() if one != "sharing")
    return Caller(portal, a_proxy("ada", "aunt", sections=sections))


def narrowed(caller: Caller, *sections: str) -> Caller:
    assert caller.auth.record is not None
    record = replace(caller.auth.record, sections=frozenset(sections))
    return Caller(caller.portal, replace(caller.auth, record=record))


def key_of(tree: Json) -> str:
    return f"{tree['resourceType']}/{tree['id']}"


def hidden_by(section: str) -> set[str]:
    return {
        "medications": {"MedicationRequest/cream", "MedicationRequest/old-cream"},
        "results": {"Observation/pulse", "Observation/pulse-of-old", "Observation/sugar"},
        "immunizations": {"Immunization/flu"},
    }[section]


def refused(auth: AuthContext, *sections: str) -> Sequence[AuthContext]:
    """Callers of whom each lacks one thing; the third sees these sections and no other."""
    assert auth.record is not None
    return (
        replace(auth, expires=START),
        replace(auth, record=replace(auth.record, until=START)),
        replace(auth, record=replace(auth.record, sections=frozenset(sections))),
        replace(auth, scopes=oneself(scope="patient/Condition.rs").scopes),
        replace(auth, scopes=oneself(scope="patient/Patient.r?gender=female").scopes),
        replace(auth, scopes=oneself(scope="user/*.rs").scopes),
    )
