"""``$portal-account``: how an account stands, to the practice whose Person it is; no secrets."""

from __future__ import annotations

from typing import Any

import pytest

from fhir_portal.accounts.contacts import Contact
from fhir_portal.accounts.sessions import Session
from fhir_portal.embedded.store import EmbeddedStore
from tests.builders import START, Answer, Caller, Json, a_person, keep
from tests.staff import a_member_of_staff


def values(answer: Answer) -> Json:
    assert answer.status == 200, answer.body
    return {
        one["name"]: next(value for name, value in one.items() if name != "name")
        for one in answer.json["parameter"]
    }


async def test_an_ehr_and_staff_learn_how_an_account_stands(
    accounts: EmbeddedStore, ehr: Caller
) -> None:
    session: dict[str, Any] = {"browser": "b", "created": START, "seen": START}
    await keep(
        accounts,
        Session(key="s", expires=START + 9, account="ada", auth_time=START, **session),
        Session(key="old", expires=START - 9, account="ada", auth_time=START, **session),
        Contact(
            key="c", account="ada", medium="mail", value="a@b.example", added=1.0, verified=2.0
        ),
        Contact(key="d", account="ada", medium="sms", value="+13125550142", added=1.0),
    )
    found = values(await ehr.get("Person/ada/$portal-account"))
    assert found["status"] == "enabled"
    assert (found["sessions"], found["contacts"], found["passkeys"]) == (1, 1, 0)
    assert found["signed-in"].startswith("2030-")
    staff = Caller(ehr.portal, a_member_of_staff())
    again = values(await staff.ask("POST", "Person/ada/$portal-account"))
    assert again == found


async def test_it_tells_neither_secrets_nor_who_the_account_is(
    accounts: EmbeddedStore, ehr: Caller
) -> None:
    await keep(
        accounts,
        Contact(
            key="c", account="ada", medium="mail", value="a@b.example", added=1.0, verified=2.0
        ),
    )
    answer = await ehr.get("Person/ada/$portal-account")
    for secret in (b"argon2", b"a@b.example", b"family-medicine"):
        assert secret not in answer.body


async def test_a_person_without_an_account_has_none(accounts: EmbeddedStore, ehr: Caller) -> None:
    assert accounts is not None
    await ehr.store(a_person("bo", links=["Patient/bo"]))
    assert values(await ehr.get("Person/bo/$portal-account")) == {"status": "none"}


async def test_a_person_of_the_same_id_at_another_practice_is_another_account(
    accounts: EmbeddedStore, ehr: Caller, other_ehr: Caller
) -> None:
    assert accounts is not None
    await other_ehr.store(a_person("bo", links=["Patient/kit"]))
    assert (await ehr.get("Person/bo/$portal-account")).status == 404


async def test_staff_bound_to_one_record_call_it_for_nobody(
    accounts: EmbeddedStore, ehr: Caller
) -> None:
    assert accounts is not None
    bound = Caller(ehr.portal, a_member_of_staff(patient="ada"))
    assert (await bound.get("Person/ada/$portal-account")).status == 403


async def test_the_call_is_in_the_access_log_under_its_name(
    accounts: EmbeddedStore, ehr: Caller
) -> None:
    assert accounts is not None
    staff = Caller(ehr.portal, a_member_of_staff())
    await staff.get("Person/ada/$portal-account")
    events = (await ehr.get("AuditEvent?_count=1")).entries
    codes = [coding["code"] for coding in events[0]["subtype"]]
    assert codes == ["operation", "portal-account"]
    assert events[0]["action"] == "E"


async def test_a_batch_may_call_it_and_a_transaction_may_not(
    accounts: EmbeddedStore, ehr: Caller
) -> None:
    assert accounts is not None
    entry = {"request": {"method": "GET", "url": "Person/ada/$portal-account"}}
    for kind, status in (("batch", 200), ("transaction", 400)):
        answer = await ehr.bundle({"resourceType": "Bundle", "type": kind, "entry": [entry]})
        assert answer.status == status
        if kind == "batch":
            assert answer.json["entry"][0]["response"]["status"].startswith("200")


@pytest.mark.parametrize("sent", [[], "Parameters", None, 0])
async def test_what_stands_for_parameters_in_a_batch_and_is_no_resource_is_refused(
    accounts: EmbeddedStore, ehr: Caller, sent: Any
) -> None:
    assert accounts is not None
    entry = {
        "request": {"method": "POST", "url": "Person/ada/$portal-account"},
        "resource": sent,
    }
    answer = await ehr.bundle({"resourceType": "Bundle", "type": "batch", "entry": [entry]})
    assert answer.json["entry"][0]["response"]["status"].startswith("400")
