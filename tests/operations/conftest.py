from __future__ import annotations

import pytest

from fhir_portal.accounts.account import AccountPerson
from fhir_portal.embedded.store import EmbeddedStore
from tests.access.conftest import family
from tests.builders import DERM, FAMILY, keep

__all__ = ["family"]


@pytest.fixture
async def accounts(family: EmbeddedStore) -> EmbeddedStore:
    """Ada's account is the Person of both practices."""
    await keep(
        family,
        AccountPerson(key=f"{DERM}/Person/ada", account="ada"),
        AccountPerson(key=f"{FAMILY}/Person/ada", account="ada"),
    )
    return family
