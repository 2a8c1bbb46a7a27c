"""``fhir-portal practice``: its portal on and off, and what is published of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fhir_portal.access.relation import Relations
from fhir_portal.accounts.account import account_named, add_account
from fhir_portal.accounts.invitation import Invitation
from fhir_portal.accounts.practice_contact import PracticeContact
from fhir_portal.commands.store import run_in_store
from fhir_portal.portal import random_id
from tests.builders import (
    DIRECTORY,
    START,
    Caller,
    Clock,
    a_patient,
    a_person,
    a_portal,
    an_ehr,
    resource,
)
from tests.commands.running import refused, run, told

pytestmark = pytest.mark.usefixtures("own_store", "two_practices")


@pytest.fixture
def two_practices(own_store: Path) -> None:
    assert not own_store.exists()
    run("practice", "add", "elm", "Elm Street", "--organization", "Organization/elm")
    run("practice", "add", "oak", "Oak Street")


def filled(*trees: Any) -> None:
    """Put resources into the practice, as its EHR does."""

    async def work(store: Any) -> None:
        portal = a_portal(store, Clock())
        await Caller(portal, an_ehr("elm")).store(*trees)

    run_in_store(work)


def with_an_account() -> None:
    filled(a_patient("ada"), a_person("ada", links=["Patient/ada"]))

    async def work(store: Any) -> None:
        await add_account(
            store,
            username="ada",
            password_hash=None,
            now=START,
            random=bytes,
            persons=("elm/Person/ada",),
        )
        invitation = Invitation(
            key=random_id(),
            practice="elm",
            invitee="elm/Patient/ada",
            patients=("Patient/ada",),
            persons=("Patient/ada",),
            relation="self",
            channel="paper",
            created=START,
            ends=START * 2,
        )

        async def insert(transaction: Any) -> None:
            await transaction.insert(invitation)

        await store.transact(insert)

    run_in_store(work)


def records() -> list[str]:
    async def work(store: Any) -> list[str]:
        account = await account_named(store, "ada")
        assert account is not None
        found = await Relations(store, Clock()).records_of(account)
        return [one.patient for one in found]

    return run_in_store(work)


@pytest.mark.requirement("portal", "S3-01")
def test_the_portal_is_switched_with_its_effect_shown_first() -> None:
    with_an_account()
    assert records() == ["Patient/ada"]
    assert told("practice", "portal", "elm") == {
        "practice": "elm",
        "portal": "on",
        "accounts": 1,
        "invitations": 1,
        "change": "none",
    }
    shown = told("practice", "portal", "elm", "--off", "--dry-run")
    assert (shown["portal"], shown["accounts"], shown["change"]) == ("on", 1, "off, not done")
    assert records() == ["Patient/ada"]
    assert told("practice", "portal", "elm", "--off")["change"] == "off, done"
    assert records() == []
    assert told("practice", "portal", "oak")["portal"] == "on"
    shown = told("practice", "portal", "elm", "--on", "--dry-run")
    assert (shown["invitations"], shown["change"]) == (1, "on, not done")
    assert records() == []
    told("practice", "portal", "elm", "--on")
    assert records() == ["Patient/ada"]


def test_a_practice_that_is_not_there_is_not_switched() -> None:
    assert "no practice 'ash'" in refused("practice", "portal", "ash", "--off")


def organization(**more: Any) -> Any:
    return resource(
        "Organization",
        "elm",
        name="Elm Street",
        telecom=[{"system": "phone", "value": "+1 555 555 0142"}],
        **({"meta": DIRECTORY} | more),
    )


def service(own_id: str, **more: Any) -> Any:
    return resource(
        "HealthcareService",
        own_id,
        **{
            "meta": DIRECTORY,
            "name": own_id,
            "providedBy": {"reference": "Organization/elm"},
            "availableTime": [{"daysOfWeek": ["mon"], "allDay": True}],
        }
        | more,
    )


def published() -> PracticeContact | None:
    async def work(store: Any) -> PracticeContact | None:
        found: PracticeContact | None = await store.get(PracticeContact, "elm")
        return found

    return run_in_store(work)


def test_what_is_in_the_directory_is_published_and_nothing_else() -> None:
    filled(
        organization(),
        service("desk"),
        service("untold", meta=None),
        service("closed", active=False),
        resource("Organization", "other", name="Another", meta=DIRECTORY),
        service("theirs", providedBy={"reference": "Organization/other"}),
    )
    dry = told("practice", "publish", "elm", "--dry-run")
    assert published() is None
    found = told("practice", "publish", "elm")
    assert found == dry
    assert [one["name"] for one in found["services"]] == ["desk"]
    assert found["lines"][0]["value"] == "+1 555 555 0142"
    assert json.dumps(found).count("untold") == 0
    contact = published()
    assert contact is not None
    assert contact.published > 0
    assert "hours" in run("practice", "publish", "elm").stdout


def test_without_an_organization_in_the_directory_nothing_is_published() -> None:
    assert "names no Organization" in refused("practice", "publish", "oak")
    assert "not in the practice's directory" in refused("practice", "publish", "elm")
    filled(organization(meta=None))
    assert "not in the practice's directory" in refused("practice", "publish", "elm")
    assert published() is None


def test_an_organization_is_a_reference() -> None:
    words = refused("practice", "add", "ash", "Ash Lane", "--organization", "https://x/y")
    assert "is no reference" in words
