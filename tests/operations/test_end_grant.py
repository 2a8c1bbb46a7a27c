"""``$end-grant``: a practice ends that somebody acts for a patient, from the next request on."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from fhir_portal.access.relation import Relations
from fhir_portal.accounts.account import Account, AccountPerson
from fhir_portal.consent.grant import Grant
from fhir_portal.embedded.store import EmbeddedStore
from fhir_portal.notify.outbox import OutboxMessage
from fhir_portal.notify.recipients import own_accounts
from fhir_portal.portal import Portal
from fhir_portal.smart.code import AuthorizationCode
from fhir_portal.smart.token import TokenFamily
from tests.builders import (
    DERM,
    FAMILY,
    Caller,
    Clock,
    a_grant,
    a_person,
    a_proxy,
    a_related_person,
    an_account,
    an_ehr,
    assert_outcome,
    concept,
    keep,
    oneself,
    resource,
)
from tests.operations.holding import a_code, an_app_of, parameters, values, works
from tests.operations.invitations import invited
from tests.staff import a_member_of_staff

END = "Consent/grant/$end-grant"
BECAUSE = parameters(reason_String="Kit's father asked for it")
SEES = ("demographics", "results")


@pytest.fixture
async def world(accounts: EmbeddedStore, ehr: Caller) -> EmbeddedStore:
    """Ada acts for Kit, as their mother, and uses her own record."""
    await ehr.store(a_grant("grant", of="kit", to="mother", sections=SEES))
    mother = replace(a_proxy(sections=SEES), account="ada")
    own = replace(oneself("ada"), account="ada")
    await an_app_of(accounts, "kit", mother)
    await an_app_of(accounts, "own", own)
    elsewhere = replace(a_proxy(sections=SEES), account="bo", practice=FAMILY)
    await an_app_of(accounts, "elsewhere", elsewhere)
    await keep(accounts, a_code("for-kit", mother), a_code("own", own))
    assert [await works(ehr.portal, one) for one in ("kit", "own")] == [True, True]
    return accounts


@pytest.fixture
def desk(portal: Portal) -> Caller:
    return Caller(portal, a_member_of_staff(permissions=("proxies",)))


async def told(store: EmbeddedStore) -> list[tuple[str, str]]:
    return sorted((one.template, one.to) for one in await store.every(OutboxMessage))


async def test_tokens_are_dead_at_the_next_request_and_nothing_else_is(
    world: EmbeddedStore, ehr: Caller, desk: Caller
) -> None:
    assert values(await desk.ask("POST", END, BECAUSE)) == {"status": "inactive", "ended-apps": 1}
    assert [await works(ehr.portal, one) for one in ("kit", "own")] == [False, True]
    assert [one.key for one in await world.every(AuthorizationCode)] == ["own"]
    (ended,) = [one for one in await world.every(TokenFamily) if one.ended is not None]
    assert (ended.key, ended.ended_because) == ("family-kit", "grant-ended")
    assert await world.every(Grant) == []
    versions = (await ehr.get("Consent/grant/_history")).json["entry"]
    assert [one["resource"]["status"] for one in versions] == ["inactive", "active", "active"]


@pytest.mark.parametrize("start", ["2020-01-01", "2040-01-01"])
async def test_ending_one_of_two_opens_nothing_by_the_other(
    world: EmbeddedStore, ehr: Caller, desk: Caller, start: str
) -> None:
    """Of two neither opens the record; both end, each with its Provenance, told once.

    Also one that begins later. What the same person has for another patient stays, and so does what
    another one has for this patient.
    """
    await ehr.store(
        a_related_person("aunt", of="kit"),
        a_grant("other", of="kit", to="mother", sections=["results"], start=start),
        a_grant("aunts", of="kit", to="aunt", sections=["results"]),
    )
    answer = await desk.ask("POST", END, BECAUSE)
    assert values(answer)["status"] == "inactive"
    stands = {
        name: (await ehr.get(f"Consent/{name}")).json["status"] for name in ("other", "aunts")
    }
    assert stands == {"other": "inactive", "aunts": "active"}
    account = await world.get(Account, "ada")
    assert account is not None
    found = await Relations(world, ehr.portal.server.clock).records_of(account)
    assert "Patient/kit" not in {one.patient for one in found}
    for name in ("grant", "other"):
        assert len((await ehr.get(f"Provenance?target=Consent/{name}")).entries) == 1
    told = [one.template for one in await world.every(OutboxMessage)]
    assert told.count("proxy-ended") == 1


async def test_the_reason_is_kept_with_who_it_was(
    world: EmbeddedStore, ehr: Caller, desk: Caller
) -> None:
    assert world is not None
    await desk.ask("POST", END, BECAUSE)
    (found,) = (await ehr.get("Provenance?target=Consent/grant")).entries
    assert found["reason"] == [{"text": "Kit's father asked for it"}]
    assert found["agent"][0]["who"] == {"reference": "Practitioner/desk"}
    events = (await Caller(ehr.portal, oneself("kit")).get("AuditEvent")).entries
    codes = [code["code"] for one in events for code in one["subtype"]]
    assert codes.count("end-grant") == 1


async def test_both_sides_are_told_once(
    world: EmbeddedStore, ehr: Caller, desk: Caller, clock: Clock
) -> None:
    """Kit has an account of their own here; a Person that was not proved is told nothing."""
    await ehr.store(
        a_person("kit", links=["Patient/kit"]),
        a_person("claims", links=["RelatedPerson/mother"], assurance="level1"),
    )
    for name in ("kit", "claims"):
        person = f"{DERM}/Person/{name}"
        await keep(world, an_account(name, person), AccountPerson(key=person, account=name))
    for _ in range(2):
        assert (await desk.ask("POST", END, BECAUSE)).status == 200
    assert await told(world) == [
        ("proxy-ended", f"record:{DERM}/Patient/kit"),
        ("security-acting-ended", "account:ada"),
    ]
    assert await own_accounts(world, DERM, "Patient/bo", clock=clock) == []


async def test_it_can_be_given_again_by_an_invitation_alone(
    world: EmbeddedStore, ehr: Caller, desk: Caller, portal: Portal
) -> None:
    await desk.ask("POST", END, BECAUSE)
    inviting = Caller(portal, a_member_of_staff(permissions=("view", "invite", "proxies")))
    made = await invited(
        inviting, "kit", kind="caregiver", basis="consent-form", channel="desk",
        related_person="RelatedPerson/mother",
    )  # fmt: skip
    assert made["grant"] != ["Consent/grant"]
    assert await world.every(Grant) == []
    assert not await works(ehr.portal, "kit")


@pytest.mark.parametrize("reason", [None, "", "  ", "x" * 201, "two\nlines"])
async def test_it_is_said_why(world: EmbeddedStore, desk: Caller, reason: str | None) -> None:
    body = parameters() if reason is None else parameters(reason_String=reason)
    assert (await desk.ask("POST", END, body)).status in {400, 422}
    assert len(await world.every(Grant)) == 1


@pytest.mark.parametrize(
    "permissions", [("view", "invite", "revoke", "recover", "administer", "audit"), ()]
)
async def test_a_level_without_proxies_ends_none(
    world: EmbeddedStore, portal: Portal, permissions: Any
) -> None:
    member = Caller(portal, a_member_of_staff(permissions=permissions))
    assert (await member.ask("POST", END, BECAUSE)).status == 403
    assert len(await world.every(Grant)) == 1


async def test_another_practice_finds_no_such_grant(
    world: EmbeddedStore, portal: Portal, other_ehr: Caller
) -> None:
    """Not even one of the same id: it is its own that it would end."""
    staff = Caller(portal, a_member_of_staff(practice=FAMILY, permissions=("proxies",)))
    absent = await staff.ask("POST", "Consent/nothing/$end-grant", BECAUSE)
    answer = await staff.ask("POST", END, BECAUSE)
    assert (answer.status, answer.body.replace(b"grant is", b"nothing is")) == (404, absent.body)
    await other_ehr.store(a_related_person("mother", of="kit"))
    await other_ehr.store(a_grant("grant", of="kit", to="mother"))
    assert (await staff.ask("POST", END, BECAUSE)).status == 200
    assert [one.practice for one in await world.every(Grant)] == [DERM]


async def test_who_is_bound_to_one_record_ends_no_grant_of_another(
    world: EmbeddedStore, portal: Portal
) -> None:
    """An EHR launch for Bo gives a token for Bo's record: Kit's grant is not there."""
    for patient, status in (("bo", 404), ("kit", 200)):
        bound = a_member_of_staff(patient=patient, permissions=("view", "proxies"))
        assert (await Caller(portal, bound).ask("POST", END, BECAUSE)).status == status
    assert await world.every(Grant) == []


async def test_neither_patient_nor_proxy_calls_it_nor_an_ehr_that_may_not_write_grants(
    world: EmbeddedStore, ehr: Caller, portal: Portal
) -> None:
    callers = [
        oneself("kit"),
        a_proxy(sections=("sharing",), act=("sharing",)),
        an_ehr(DERM, "label"),
    ]
    for one in callers:
        assert (await Caller(portal, one).ask("POST", END, BECAUSE)).status == 403
    assert len(await world.every(Grant)) == 1
    assert (await ehr.ask("POST", END, BECAUSE)).status == 200


async def test_what_is_no_grant_or_not_in_force_is_left_as_it_is(
    world: EmbeddedStore, ehr: Caller, desk: Caller
) -> None:
    scope = concept("http://terminology.hl7.org/CodeSystem/consentscope", "research")
    await ehr.store(
        resource(
            "Consent",
            "study",
            status="active",
            scope=scope,
            category=[concept("http://loinc.org", "59284-0")],
            patient={"reference": "Patient/kit"},
            policyRule=concept("http://terminology.hl7.org/CodeSystem/v3-ActCode", "OPTIN"),
        ),
        a_grant("waits", of="kit", to="mother", status="proposed"),
        a_grant("rejected", of="kit", to="mother", status="rejected"),
    )
    assert (await desk.ask("POST", "Consent/study/$end-grant", BECAUSE)).status == 422
    assert_outcome(await desk.ask("POST", "Consent/waits/$end-grant", BECAUSE), 409, "conflict")
    assert (await desk.ask("POST", "Consent/rejected/$end-grant", BECAUSE)).status == 200
    for own_id, status in (("study", "active"), ("waits", "proposed"), ("rejected", "rejected")):
        assert (await ehr.get(f"Consent/{own_id}")).json["status"] == status
    assert await told(world) == []
    assert await works(ehr.portal, "kit")
