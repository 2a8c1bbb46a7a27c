"""What one practice's help closed at another opens there by that one's own proof, over HTTP."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any

import msgspec
import pytest

from fhir_portal.access.relation import Relations
from fhir_portal.accounts.account import Account
from fhir_portal.accounts.assisted_recovery import Approved, Started
from fhir_portal.accounts.contacts import Contact
from fhir_portal.accounts.invitation import Invitation
from fhir_portal.consent.grant import Grant
from tests.builders import DERM, FAMILY, Caller, a_grant, a_related_person
from tests.operations.invitations import invite, staff, values
from tests.operations.proxies import number
from tests.smart.world import Browser
from tests.staff import a_member_of_staff
from tests.web.activating import GOOD, Town, fill
from tests.web.recovering import chooses, desk_of
from tests.web.signing_in import problem, submit

BORN, LATER = "1984-05-12", "eight quiet herons"


@pytest.fixture
async def town(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Town]:
    """Ada is a patient of both practices and Kit's mother at the dermatology, by one account."""
    town = await Town.begin()
    directory = Relations(town.world.store, town.world.clock)
    monkeypatch.setattr(town.world.directory, "birth_date_of", directory.birth_date_of)
    browser = town.browser()
    await town.by_link(browser, await town.invite_mother())
    await town.create(browser)
    elsewhere = await town.invite(
        "t-f", practice=FAMILY, patients=("Patient/ada-f",), persons=("Patient/ada-f",)
    )
    await town.by_link(browser, elsewhere)
    await fill(browser, "/activate/account/add")
    assert browser.heading == "The record is added"
    yield town
    town.close()


async def account_of(town: Town) -> Account:
    found = await town.account()
    assert found is not None
    return found


async def helped(town: Town, practice: str) -> Browser:
    """Staff of a practice help Ada back in, who has no contact: by birth date and word."""
    world, account = town.world, await account_of(town)
    desk, contacts = desk_of(world), await world.store.every(Contact)

    async def start(transaction: Any) -> Started:
        for one in contacts:
            await transaction.delete(Contact, one.key)
        return await desk.start(
            transaction, account, practice=practice, by="one", basis="photo-id", is_proxy=True
        )

    started = await world.store.transact(start)

    async def approve(transaction: Any) -> Approved:
        return await desk.approve(transaction, started.recovery.key, practice=practice, by="two")

    approved = await world.store.transact(approve)
    browser = world.browser()
    await browser.open("/recover/desk")
    await submit(browser, "/recover/desk", code=started.code)
    word = approved.word or ""
    await submit(browser, "/recover/birth-date", birth_date="1984-05-13", word=word)
    assert problem(browser)
    await submit(browser, "/recover/birth-date", birth_date=BORN, word=word)
    await chooses(browser, LATER)
    assert browser.heading == "You are signed in", browser.text
    return browser


async def opened(town: Town) -> set[str]:
    return {f"{one.practice}/{one.patient}" for one in await town.records()}


async def test_a_proxy_proves_again_and_keeps_the_grant_there_is(town: Town) -> None:
    assert await opened(town) == {f"{DERM}/Patient/kit", f"{FAMILY}/Patient/ada-f"}
    browser = await helped(town, FAMILY)
    assert await opened(town) == {f"{FAMILY}/Patient/ada-f"}
    made = await invite(
        town.ehr, "kit", kind="guardian", related_person="RelatedPerson/mother", channel="desk"
    )
    assert made.status == 201, made.body
    await uses(browser, values(made))
    assert browser.heading == "The record is added"
    assert await opened(town) == {f"{DERM}/Patient/kit", f"{FAMILY}/Patient/ada-f"}
    grants = await town.world.store.find(Grant, "related_person", f"{DERM}/mother")
    assert [one.consent for one in grants] == ["grant"]
    assert (await account_of(town)).closed_at == ()


async def uses(browser: Browser, handed: Mapping[str, str]) -> None:
    """Open the link that was handed over, and add the record to the account signed in to."""
    path = handed["link"].partition("8000")[2]
    await browser.open(path)
    born = {"month": "2", "day": "3", "year": "2018", "postal_code": "60601"}
    await fill(browser, path, code=handed["security-code"], **born)
    await browser.open("/activate/account")
    await fill(browser, "/activate/account/add")


async def test_invited_by_staff_it_takes_the_word_of_another(town: Town) -> None:
    """The old assurance of the link stays, and what is closed is closed until then."""
    browser = await helped(town, FAMILY)
    desk = staff(town.world.portal, "invite", "proxies")
    made = await invite(
        desk, "kit", kind="guardian", related_person="RelatedPerson/mother", channel="desk"
    )
    assert made.status == 201, made.body
    await uses(browser, values(made))
    assert browser.heading == "Show this number to the practice"
    assert await opened(town) == {f"{FAMILY}/Patient/ada-f"}
    task = values(made)["invitation"]
    waiting = await town.world.store.get(Invitation, f"{DERM}/{task}")
    assert waiting is not None
    right = {"name": "number", "valueString": number(town.world.portal, waiting)}
    body = {"resourceType": "Parameters", "parameter": [right]}
    for name, status in (("desk", 403), ("colleague", 200)):
        member = a_member_of_staff(name, permissions=("view", "proxies"))
        answer = await Caller(town.world.portal, member).ask("POST", f"{task}/$confirm-proxy", body)
        assert answer.status == status, answer.body
    assert await opened(town) == {f"{DERM}/Patient/kit", f"{FAMILY}/Patient/ada-f"}


async def test_terms_of_a_grant_that_goes_on_are_refused(town: Town) -> None:
    await helped(town, FAMILY)
    who: dict[str, Any] = {"kind": "guardian", "related_person": "RelatedPerson/mother"}
    for more in ({"basis": "parent"}, {"sections": {"results": True}}):
        refused = await invite(town.ehr, "kit", **who, **more, channel="desk")
        assert refused.status == 422
    assert await town.world.store.find(Grant, "patient", "lia") == []


async def test_who_is_not_shut_out_is_not_invited_to_what_they_have(town: Town) -> None:
    who: dict[str, Any] = {"kind": "guardian", "related_person": "RelatedPerson/mother"}
    assert (await invite(town.ehr, "kit", **who, channel="desk")).status == 409


async def test_somebody_elses_account_does_not_prove_it_again(town: Town) -> None:
    """A stranger who gets hold of the new sheet finds the mother's place taken."""
    await helped(town, FAMILY)
    made = await invite(
        town.ehr, "kit", kind="guardian", related_person="RelatedPerson/mother", channel="desk"
    )
    stranger = town.browser()
    handed = values(made)
    path = handed["link"].partition("8000")[2]
    await stranger.open(path)
    born = {"month": "2", "day": "3", "year": "2018", "postal_code": "60601"}
    await fill(stranger, path, code=handed["security-code"], **born)
    await fill(stranger, "/activate/contact", how="without")
    await town.create(stranger, username="stranger", password=GOOD)
    assert stranger.page.status_code == 403
    assert await opened(town) == {f"{FAMILY}/Patient/ada-f"}


async def test_the_birth_date_half_works_where_the_records_are_closed(town: Town) -> None:
    """At the practice that is closed, as what it knows of the person; there they open again."""
    await town.ehr.store(a_related_person("mother", of="kit", birthDate=BORN))
    account = await account_of(town)
    closed = msgspec.structs.replace(account, closed_at=(DERM,))
    await town.world.store.transact(lambda transaction: transaction.put(closed))
    await helped(town, DERM)
    assert (await account_of(town)).closed_at == (FAMILY,)
    assert await opened(town) == {f"{DERM}/Patient/kit"}


async def test_a_grant_that_ended_meanwhile_is_given_anew(town: Town) -> None:
    """Then there is nothing to go on, and what is proposed says what it is."""
    browser = await helped(town, FAMILY)
    await town.ehr.store(a_grant("grant", of="kit", to="mother", status="inactive"))
    made = await invite(
        town.ehr,
        "kit",
        kind="guardian",
        basis="parent",
        related_person="RelatedPerson/mother",
        channel="desk",
    )
    assert made.status == 201, made.body
    await uses(browser, values(made))
    assert await opened(town) == {f"{DERM}/Patient/kit", f"{FAMILY}/Patient/ada-f"}
