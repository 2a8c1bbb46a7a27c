"""``$start-recovery`` and ``$approve-recovery``: one half for each member of staff, no password."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from fhir_portal.access.operations import OPERATIONS
from fhir_portal.accounts.account import AccountPerson
from fhir_portal.accounts.assisted_recovery import AssistedRecovery
from fhir_portal.accounts.contacts import Contact
from fhir_portal.embedded.store import EmbeddedStore
from fhir_portal.notify.outbox import OutboxMessage
from tests.builders import DERM, FAMILY, Caller, a_person, an_account, keep
from tests.operations.holding import parameters, values
from tests.staff import a_member_of_staff

START_IT, APPROVE = "Person/ada/$start-recovery", "Person/ada/$approve-recovery"
SEEN = parameters(basis_Code="photo-id")

pytestmark = [
    pytest.mark.requirement("portal", "S2-34"),
    pytest.mark.requirement("portal", "S4-25"),
]


def staff(ehr: Caller, name: str = "desk", *permissions: str) -> Caller:
    member = a_member_of_staff(name)
    assert member.staff is not None
    held = frozenset({"view", *(permissions or ("recover",))})
    return Caller(ehr.portal, replace(member, staff=replace(member.staff, permissions=held)))


async def test_what_is_handed_over_is_one_half_and_no_password(
    accounts: EmbeddedStore, ehr: Caller
) -> None:
    contact = Contact(
        key="c",
        account="ada",
        medium="mail",
        value="a@b.example",
        added=1.0,
        verified=1.0,
        recovers_from=1.0,
    )
    await keep(accounts, contact)
    await ehr.store(a_person("ada", links=["Patient/ada"]))
    answer = await staff(ehr).ask("POST", START_IT, SEEN)
    found = values(answer)
    assert (found["half"], found["needs-approval"]) == ("contact", False)
    assert len(found["desk-code"].replace("-", "")) == 12
    assert b"a@b.example" not in answer.body
    (recovery,) = await accounts.every(AssistedRecovery)
    assert (recovery.account, recovery.practice, recovery.by) == ("ada", DERM, "desk")
    assert found["desk-code"].replace("-", "") not in repr(recovery)
    (told,) = await accounts.every(OutboxMessage)
    assert (told.template, told.to) == ("security-recovery-started", "account:ada")


async def test_who_acts_for_others_needs_a_second_member_of_staff(
    accounts: EmbeddedStore, ehr: Caller
) -> None:
    """Ada acts for Kit, and has no contact: the word is the second one's to hand over."""
    assert accounts is not None
    started = values(await staff(ehr).ask("POST", START_IT, SEEN))
    assert (started["half"], started["needs-approval"]) == ("birth-date", True)
    assert "activation-word" not in started
    body = parameters(recovery_String=started["recovery"])
    assert (await staff(ehr).ask("POST", APPROVE, body)).status == 403
    owner = staff(ehr, "own").who(account="ada")
    assert (await owner.ask("POST", APPROVE, body)).status == 403
    approved = values(await staff(ehr, "second").ask("POST", APPROVE, body))
    assert approved["needs-approval"] is False
    assert "desk-code" not in approved
    assert len(approved["activation-word"]) == 12
    assert (await staff(ehr, "third").ask("POST", APPROVE, body)).status == 403


async def test_nobody_helps_themselves(accounts: EmbeddedStore, ehr: Caller) -> None:
    oneself = staff(ehr).who(account="ada")
    assert (await oneself.ask("POST", START_IT, SEEN)).status == 403
    assert not await accounts.every(AssistedRecovery)


def a_contact(account: str, value: str) -> Contact:
    given = {"added": 1.0, "verified": 1.0, "recovers_from": 1.0}
    return Contact(key=f"of-{account}", account=account, medium="mail", value=value, **given)


async def test_two_accounts_of_one_human_are_no_second_pair_of_eyes(
    accounts: EmbeddedStore, ehr: Caller
) -> None:
    """Whoever began it does not approve by another account of theirs; nor does the owner."""
    started = values(await staff(ehr, "eve").ask("POST", START_IT, SEEN))
    body = parameters(recovery_String=started["recovery"])
    for other in ("eve", "ada"):
        both = [a_contact(one, f"{other}@mail.example") for one in (other, "second")]
        await keep(accounts, *both)
        assert (await staff(ehr, "second").ask("POST", APPROVE, body)).status == 403
    assert (await staff(ehr, "second").ask("POST", START_IT, SEEN)).status == 403
    (kept,) = await accounts.every(AssistedRecovery)
    assert (kept.by, kept.approved_by) == ("eve", None)
    assert (await staff(ehr, "third").ask("POST", APPROVE, body)).status == 200


async def test_a_recovery_is_of_the_person_it_was_started_for(
    accounts: EmbeddedStore, ehr: Caller
) -> None:
    await ehr.store(a_person("bo", links=["Patient/bo"]))
    await keep(
        accounts,
        an_account("bo", f"{DERM}/Person/bo"),
        AccountPerson(key=f"{DERM}/Person/bo", account="bo"),
    )
    started = values(await staff(ehr).ask("POST", START_IT, SEEN))
    for name in (started["recovery"], "no-such"):
        body = parameters(recovery_String=name)
        answer = await staff(ehr, "second").ask("POST", "Person/bo/$approve-recovery", body)
        assert answer.status == 422
    (recovery,) = await accounts.every(AssistedRecovery)
    assert recovery.approved_by is None


@pytest.mark.parametrize("body", [None, parameters(basis_Code="by-telephone")])
async def test_how_it_was_made_sure_is_said(
    accounts: EmbeddedStore, ehr: Caller, body: Any
) -> None:
    assert (await staff(ehr).ask("POST", START_IT, body)).status == 400
    assert not await accounts.every(AssistedRecovery)


async def test_an_ehr_and_staff_without_the_permission_start_none(
    accounts: EmbeddedStore, ehr: Caller
) -> None:
    assert not OPERATIONS["start-recovery"].system
    assert (await ehr.ask("POST", START_IT, SEEN)).status == 403
    assert (await staff(ehr, "desk", "invite", "revoke").ask("POST", START_IT, SEEN)).status == 403
    assert not await accounts.every(AssistedRecovery)


async def test_who_may_help_too_learns_that_it_was_begun_and_nobody_else(
    accounts: EmbeddedStore, ehr: Caller
) -> None:
    """Neither an EHR, nor a level that may not help, nor another practice's staff."""
    assert accounts is not None
    started = values(await staff(ehr).ask("POST", START_IT, SEEN))
    state = "Person/ada/$portal-account"
    told = (await staff(ehr, "second").ask("POST", state)).json["parameter"]
    (found,) = [one["part"] for one in told if one["name"] == "recovery"]
    parts = {one["name"]: one for one in found}
    assert parts["id"]["valueString"] == started["recovery"]
    assert parts["needs-approval"]["valueBoolean"] is True
    for caller in (ehr, staff(ehr, "third", "view", "revoke")):
        answer = await caller.ask("POST", state)
        assert answer.status == 200
        assert started["recovery"].encode() not in answer.body


CANCEL = "Person/ada/$cancel-recovery"


async def test_staff_take_back_what_they_began(accounts: EmbeddedStore, ehr: Caller) -> None:
    """Whoever may help, whoever began it; the owner is told, and approval comes too late."""
    started = values(await staff(ehr).ask("POST", START_IT, SEEN))
    body = parameters(recovery_String=started["recovery"])
    answer = values(await staff(ehr, "third").ask("POST", CANCEL, body))
    assert answer["recovery"] == started["recovery"]
    assert await accounts.every(AssistedRecovery) == []
    told = [one.template for one in await accounts.every(OutboxMessage)]
    assert told.count("security-recovery-cancelled") == 1
    for caller, path in ((staff(ehr, "second"), APPROVE), (staff(ehr), CANCEL)):
        assert (await caller.ask("POST", path, body)).status == 422


async def test_nobody_takes_back_what_is_not_theirs_to(
    accounts: EmbeddedStore, ehr: Caller
) -> None:
    """Not an EHR, a level that may not help, another practice, nor by another Person."""
    await ehr.store(a_person("bo", links=["Patient/bo"]))
    await keep(
        accounts,
        an_account("bo", f"{DERM}/Person/bo"),
        AccountPerson(key=f"{DERM}/Person/bo", account="bo"),
    )
    started = values(await staff(ehr).ask("POST", START_IT, SEEN))
    body = parameters(recovery_String=started["recovery"])
    assert (await ehr.ask("POST", CANCEL, body)).status == 403
    weak = staff(ehr, "weak", "invite", "revoke", "administer")
    assert (await weak.ask("POST", CANCEL, body)).status == 403
    far = a_member_of_staff("far", FAMILY, permissions=("view", "recover"))
    assert (await Caller(ehr.portal, far).ask("POST", CANCEL, body)).status == 422
    assert (await staff(ehr).ask("POST", "Person/bo/$cancel-recovery", body)).status == 422
    assert len(await accounts.every(AssistedRecovery)) == 1
