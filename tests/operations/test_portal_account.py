"""``$portal-account``: how an account stands, to the practice whose Person it is; no secrets."""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from fhir_portal.access.log import AccessRow, LoggedAccess
from fhir_portal.accounts.contacts import Contact
from fhir_portal.accounts.sessions import Session
from fhir_portal.embedded.store import EmbeddedStore
from fhir_portal.fhir.errors import Unavailable
from fhir_portal.resources.audit_event import render
from tests.builders import START, Answer, Caller, Clock, Json, a_person, a_portal, keep, oneself
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


async def test_the_patient_whose_own_the_person_is_finds_the_call_in_their_record(
    accounts: EmbeddedStore, ehr: Caller
) -> None:
    """What Ada uses for another Patient is nobody else's business."""
    assert accounts is not None
    for path in ("Person/ada/$portal-account", "Person/$portal-accounts?status=enabled"):
        assert (await ehr.get(path)).status == 200
    for patient, expected in (("ada", ["portal-accounts", "portal-account"]), ("kit", [])):
        events = (await Caller(ehr.portal, oneself(patient)).get("AuditEvent")).entries
        called = [one for one in events if one["subtype"][0]["code"] == "operation"]
        assert [one["subtype"][1]["code"] for one in called] == expected


async def test_a_person_whose_link_nobody_proved_is_in_nobodys_record(
    accounts: EmbeddedStore, ehr: Caller
) -> None:
    assert accounts is not None
    await ehr.store(a_person("bo", links=["Patient/bo"], assurance="level1"))
    await ehr.get("Person/bo/$portal-account")
    events = (await Caller(ehr.portal, oneself("bo")).get("AuditEvent")).entries
    assert "operation" not in [one["subtype"][0]["code"] for one in events]


async def test_what_was_asked_for_in_a_query_is_in_the_log_for_those_who_see_whole_lines(
    accounts: EmbeddedStore, ehr: Caller
) -> None:
    assert accounts is not None
    await ehr.get("Person/$portal-accounts?status=enabled&name=Quill")

    def queries(events: list[Json]) -> list[str]:
        entities = [one for event in events for one in event.get("entity", ())]
        return [b64decode(one["query"]).decode() for one in entities if "query" in one]

    whole = (await ehr.get("AuditEvent?subtype=portal-accounts")).entries
    assert whole
    for one in queries(whole):
        assert one == "Person/$portal-accounts?status=enabled&name=Quill"
    theirs = Caller(ehr.portal, oneself("ada"))
    assert "Quill" not in str(queries((await theirs.get("AuditEvent")).entries))


def test_a_line_about_one_resource_says_what_was_asked_of_an_operation() -> None:
    row = AccessRow(1, "p", "ada", "$x", "Person/ada", 200, "ehr", "system", detail="a=b")
    entity = render(LoggedAccess("1", row))["entity"][-1]
    assert b64decode(entity["query"]) == b"Person/ada/$x?a=b"
    assert "query" not in str(render(LoggedAccess("1", row), whole=False))


class _Full:
    """A log that takes nothing."""

    async def append(self, rows: Sequence[AccessRow]) -> None:
        assert rows
        message = "the access could not be recorded"
        raise Unavailable(message)


@pytest.mark.parametrize(
    ("method", "path", "may_have_changed"),
    [
        ("GET", "Person/ada/$portal-account", False),
        ("POST", "Person/ada/$portal-account", False),
        ("POST", "Person/ada/$end-session", True),
    ],
)
async def test_only_what_may_have_changed_something_is_said_to_be_stored(
    accounts: EmbeddedStore, ehr: Caller, clock: Clock, method: str, path: str, *,
    may_have_changed: bool,
) -> None:  # fmt: skip
    portal = a_portal(accounts, clock)
    server = replace(portal.server, log=_Full())  # type: ignore[arg-type]
    blocked = Caller(replace(portal, server=server), ehr.auth)
    tree = {"resourceType": "Parameters", "parameter": [{"name": "all", "valueBoolean": True}]}
    answer = await blocked.ask(method, path, tree if may_have_changed else None)
    assert answer.status == 503
    assert ("stored" in answer.words[0]) == may_have_changed


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
