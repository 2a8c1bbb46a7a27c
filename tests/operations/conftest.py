from __future__ import annotations

import pytest

from fhir_portal.accounts.account import AccountPerson
from fhir_portal.embedded.store import EmbeddedStore
from fhir_portal.portal import Portal
from tests.access.conftest import family
from tests.builders import DERM, FAMILY, Caller, a_patient, a_practice, changed, keep, resource
from tests.images import once
from tests.operations.invitations import staff

__all__ = ["family"]

PHONE = {"system": "phone", "value": "(312) 555-0199", "use": "work"}


@pytest.fixture
async def accounts(family: EmbeddedStore) -> EmbeddedStore:
    """Ada's account is the Person of both practices."""
    await keep(
        family,
        AccountPerson(key=f"{DERM}/Person/ada", account="ada"),
        AccountPerson(key=f"{FAMILY}/Person/ada", account="ada"),
    )
    return family


@pytest.fixture
async def practice(accounts: EmbeddedStore, ehr: Caller) -> EmbeddedStore:
    """The practice has an Organization; Bo has a mail address and a telephone, Cy the first alone.

    Kit is a child, and Lia another one; neither Bo nor Cy has an account.
    """

    async def write() -> None:
        await ehr.store(
            resource("Organization", "derm", name="Dermatology", telecom=[PHONE]),
            a_patient(
                "bo", family="Reed", telecom=[mail("bo@mail.example"), mobile("+13125550142")]
            ),
            a_patient("cy", family="Sorrel", telecom=[mail("cy@mail.example")]),
            a_patient("di", family="Thrift"),
            a_patient("kit", birthDate="2020-03-01"),
            a_patient("lia", birthDate="2022-08-19"),
        )
        zone = a_practice(zone="America/Chicago")
        await keep(accounts, changed(zone, organization="Organization/derm"))

    await once("practice", accounts, write, portal=ehr.portal)
    return accounts


@pytest.fixture
def desk(practice: EmbeddedStore, portal: Portal) -> Caller:
    """Staff of that practice who invite and take invitations back."""
    assert practice is not None
    return staff(portal, "invite", "revoke", "proxies")


def mail(value: str) -> dict[str, str]:
    return {"system": "email", "value": value}


def mobile(value: str) -> dict[str, str]:
    return {"system": "phone", "value": value, "use": "mobile"}
