"""What people change themselves, and the new contacts that have to be proved first."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from fhir_portal.accounts.contacts import Contact
from fhir_portal.accounts.one_time_code import KEY_PURPOSE, Challenge, OneTimeCodes
from fhir_portal.accounts.policy import PracticePolicy
from fhir_portal.embedded.store import EmbeddedStore
from fhir_portal.notify.outbox import OutboxMessage
from fhir_portal.portal import Portal
from tests.builders import (
    DERM,
    START,
    Caller,
    Clock,
    Json,
    a_patient,
    a_proxy,
    keep,
    oneself,
    reference,
)
from tests.operations.invitations import staff
from tests.operations.proposing import (
    HOME,
    MAIL,
    NEW,
    OLD,
    call,
    decision,
    details,
    inside,
    outcomes,
    proposed,
    reviewed,
    task_of,
    version,
)

OTHER: Json = {"system": "email", "value": "quill@mail.example"}


@pytest.fixture(autouse=True)
async def on_file(practice: EmbeddedStore, ehr: Caller) -> None:
    await ehr.store(
        a_patient("ada", telecom=[OLD, MAIL], address=[HOME]),
        a_patient("kit", telecom=[OLD]),
    )
    await lets(practice)


async def lets(store: EmbeddedStore, *fields: str) -> None:
    """What the practice lets people change themselves."""
    await keep(store, PracticePolicy(key=DERM, country="US", direct_changes=fields))


@pytest.fixture
def ada(portal: Portal) -> Caller:
    return Caller(portal, oneself("ada"))


async def letters(store: EmbeddedStore, template: str) -> list[OutboxMessage]:
    return [one for one in await store.every(OutboxMessage) if one.template == template]


async def code_to(portal: Portal, store: EmbeddedStore, value: str) -> str:
    """The code that was sent to an address last."""
    codes = OneTimeCodes(
        portal.collaborators.derive(KEY_PURPOSE), clock=portal.server.clock, random=bytes
    )
    sent = [one for one in await store.every(Challenge) if one.to == value]
    latest = max(sent, key=lambda one: one.expires)
    return codes.code(latest.key, latest.attempt)


async def proved(caller: Caller, task: Json, contact: str, code: str | None) -> Any:
    given: list[Json] = [{"name": "contact", "valueString": contact}]
    if code is not None:
        given.append({"name": "code", "valueString": code})
    return await call(caller, f"Task/{task['id']}", "prove-contact", *given)


def to_prove(answer: Any) -> list[str]:
    return [
        one["valueContactPoint"]["value"]
        for one in answer.json["parameter"]
        if one["name"] == "to-prove"
    ]


async def telecom(caller: Caller) -> Any:
    return (await caller.get("Patient/ada")).json["telecom"]


@pytest.mark.requirement("portal", "S0-40")
async def test_what_the_practice_lets_people_change_is_changed_at_once(
    practice: EmbeddedStore, ada: Caller
) -> None:
    await lets(practice, "address", "communication")
    spoken = [{"language": {"text": "Spanish"}, "preferred": True}]
    moved = HOME | {"line": ["14 Oak"]}
    answer = await proposed(
        ada, details(address=[moved], communication=spoken, gender="female"), version(2)
    )
    assert answer.status == 200, answer.body
    named = [one for one in answer.json["parameter"] if one["name"] == "changed"]
    assert [one["valueString"] for one in named] == ["address", "communication"]
    record = (await ada.get("Patient/ada")).json
    assert (record["address"], record["communication"]) == ([moved], spoken)
    assert "gender" not in record, "that is the practice's to decide"
    done, waits = sorted((await ada.get("Task")).entries, key=lambda one: str(one["status"]))
    assert (done["status"], waits["status"]) == ("completed", "requested")
    assert [one[:2] for one in outcomes(done)] == [
        ("accepted", "address"),
        ("accepted", "communication"),
    ]
    found = (await ada.get("Provenance?target=Patient/ada")).entries
    (provenance,) = [
        one for one in found if one["target"][0]["reference"] == "Patient/ada/_history/3"
    ]
    assert provenance["agent"][0]["who"] == reference("Patient/ada")


@pytest.mark.requirement("portal", "S0-40")
async def test_a_new_contact_is_proved_before_it_changes_and_the_old_one_is_told(
    portal: Portal, practice: EmbeddedStore, ada: Caller
) -> None:
    await lets(practice, "telecom")
    answer = await proposed(ada, details(telecom=[NEW, OTHER]), version(2))
    assert to_prove(answer) == ["+13125550143", "quill@mail.example"]
    task = await task_of(ada, answer)
    assert task["status"] == "requested"
    assert await telecom(ada) == [OLD, MAIL]
    codes = await letters(practice, "one-time-code")
    assert {one.to for one in codes} == {"sms:+13125550143", "mail:quill@mail.example"}
    code = await code_to(portal, practice, "+13125550143")
    first = await proved(ada, task, "+13125550143", code)
    assert first.status == 200, first.body
    assert await telecom(ada) == [OLD, MAIL], "one of two"
    assert (await proved(ada, task, "+13125550143", code)).status == 422, "good once"
    other = await code_to(portal, practice, "quill@mail.example")
    assert (await proved(ada, task, "quill@mail.example", other)).status == 200
    assert await telecom(ada) == [NEW, OTHER]
    after = (await ada.get(f"Task/{task['id']}")).json
    assert after["status"] == "completed"
    told = await letters(practice, "security-contact-on-file")
    assert {one.to for one in told} == {"sms:+13125550142", "mail:ada@mail.example"}
    assert (await proved(ada, task, "quill@mail.example", other)).status in {409, 422}


async def test_where_the_practice_decides_it_sees_what_was_proved(
    portal: Portal, practice: EmbeddedStore, ada: Caller
) -> None:
    front = staff(portal, "forms")
    task = await task_of(ada, await proposed(ada, details(telecom=[NEW, MAIL]), version(2)))
    code = await code_to(portal, practice, "+13125550143")
    assert (await proved(ada, task, "+13125550143", code)).status == 200
    assert await telecom(ada) == [OLD, MAIL]
    seen = (await front.get(f"Task/{task['id']}")).json
    assert seen["output"][0]["valueContactPoint"]["value"] == "+13125550143"
    assert (await reviewed(front, task, decision("p1", "accept"))).status == 200
    assert await telecom(ada) == [NEW, MAIL]
    after = (await ada.get(f"Task/{task['id']}")).json
    assert [one["type"]["coding"][0]["code"] for one in after["output"]] == [
        *("contact-proved", "accepted"),
    ]
    (told,) = await letters(practice, "security-contact-on-file")
    assert told.to == "sms:+13125550142"


async def test_what_the_account_has_proved_needs_no_code(
    practice: EmbeddedStore, ada: Caller
) -> None:
    await lets(practice, "telecom")
    await keep(
        practice,
        Contact(
            key="hers",
            account="account-of-ada",
            medium="sms",
            value="+13125550143",
            added=START,
            verified=START,
        ),
    )
    answer = await proposed(ada, details(telecom=[NEW, MAIL]), version(2))
    assert to_prove(answer) == []
    assert await telecom(ada) == [NEW, MAIL]


async def test_a_wrong_code_proves_nothing_and_five_tries_are_all(
    portal: Portal, practice: EmbeddedStore, ada: Caller
) -> None:
    await lets(practice, "telecom")
    task = await task_of(ada, await proposed(ada, details(telecom=[NEW, MAIL]), version(2)))
    right = await code_to(portal, practice, "+13125550143")
    for wrong in ("0000 0000", "", "x" * 100, "²" * 8, right[:-1]):
        assert (await proved(ada, task, "+13125550143", wrong or " ")).status in {400, 422}
    assert (await proved(ada, task, "somebody@mail.example", right)).status == 422
    for _ in range(5):
        await proved(ada, task, "+13125550143", "1111 1111")
    assert (await proved(ada, task, "+13125550143", right)).status == 422
    again = await proved(ada, task, "+13125550143", None)
    assert again.status == 200
    assert await telecom(ada) == [OLD, MAIL]


async def test_a_code_ends_after_ten_minutes(
    portal: Portal, practice: EmbeddedStore, ada: Caller, clock: Clock
) -> None:
    task = await task_of(ada, await proposed(ada, details(telecom=[NEW, MAIL]), version(2)))
    code = await code_to(portal, practice, "+13125550143")
    clock.advance(601)
    assert (await proved(ada, task, "+13125550143", code)).status == 422


async def test_codes_are_not_sent_without_end(practice: EmbeddedStore, ada: Caller) -> None:
    task = await task_of(ada, await proposed(ada, details(telecom=[NEW, MAIL]), version(2)))
    answers = [(await proved(ada, task, "+13125550143", None)).status for _ in range(6)]
    assert answers == [200, 200, 200, 200, 429, 429]
    assert len(await letters(practice, "one-time-code")) == 5
    many = [{"system": "email", "value": f"a{at}@mail.example"} for at in range(4)]
    assert (await proposed(ada, details(telecom=many), version(2))).status == 422


async def test_a_code_is_good_for_who_proposed_it_alone(
    portal: Portal, practice: EmbeddedStore
) -> None:
    proxy = a_proxy(sections=["demographics"], act=["demographics"])
    mother = Caller(portal, replace(proxy, account="ada"))
    kit, bo = Caller(portal, oneself("kit")), Caller(portal, oneself("bo"))
    made = await proposed(mother, details(telecom=[NEW]), version(3), of="kit")
    task = await task_of(mother, made)
    code = await code_to(portal, practice, "+13125550143")
    assert (await proved(kit, task, "+13125550143", code)).status == 422
    assert (await proved(bo, task, "+13125550143", code)).status == 404
    looking = Caller(portal, a_proxy(sections=["demographics"]))
    assert (await proved(looking, task, "+13125550143", code)).status == 403
    narrow = mother.with_scope("patient/Task.rs patient/Patient.r")
    assert (await proved(narrow, task, "+13125550143", code)).status == 403
    ended = mother.who(expires=START)
    assert (await proved(ended, task, "+13125550143", code)).status == 403
    assert (await proved(mother, task, "+13125550143", code)).status == 200


async def test_what_changed_on_file_meanwhile_is_left_to_staff(
    portal: Portal, practice: EmbeddedStore, ada: Caller, ehr: Caller
) -> None:
    await lets(practice, "telecom")
    task = await task_of(ada, await proposed(ada, details(telecom=[NEW, MAIL]), version(2)))
    there = {n: v for n, v in (await ehr.get("Patient/ada")).json.items() if n != "meta"}
    await ehr.store(there | {"telecom": [OTHER]})
    code = await code_to(portal, practice, "+13125550143")
    answer = await proved(ada, task, "+13125550143", code)
    assert answer.status == 200
    assert await telecom(ada) == [OTHER]
    assert (await ada.get(f"Task/{task['id']}")).json["status"] == "requested"


async def test_what_was_taken_back_is_proved_no_more(
    portal: Portal, practice: EmbeddedStore, ada: Caller
) -> None:
    task = await task_of(ada, await proposed(ada, details(telecom=[NEW, MAIL]), version(2)))
    code = await code_to(portal, practice, "+13125550143")
    await call(ada, f"Task/{task['id']}", "cancel-proposal")
    assert (await proved(ada, task, "+13125550143", code)).status == 409
    assert (await proved(ada, task, "+13125550143", None)).status == 409


async def test_how_a_patient_is_reached_no_proxy_changes_without_staff(
    portal: Portal, practice: EmbeddedStore, ehr: Caller
) -> None:
    """Or the patient's own invitation would go to whoever acts in one section."""
    await lets(practice, "telecom", "address")
    await keep(
        practice,
        Contact(
            key="hers",
            account="mother",
            medium="mail",
            value="mother@mail.example",
            added=START,
            verified=START,
        ),
    )
    proxy = a_proxy(sections=["demographics"], act=["demographics"])
    mother = Caller(portal, replace(proxy, account="mother"))
    hers = {"system": "email", "value": "mother@mail.example"}
    for telecom_of in ([hers], [NEW]):
        looked_at = int((await mother.get("Patient/kit")).json["meta"]["versionId"])
        made = await proposed(
            mother, details(telecom=telecom_of, address=[HOME]), version(looked_at), of="kit"
        )
        assert made.status == 200, made.body
        (task,) = (await mother.get("Task?status=requested")).entries
        assert "telecom" in inside(task, "p1")
        for contact in to_prove(made):
            code = await code_to(portal, practice, contact)
            assert (await proved(mother, task, contact, code)).status == 200
        assert (await ehr.get("Patient/kit")).json["telecom"] == [OLD]
        assert (await call(mother, f"Task/{task['id']}", "cancel-proposal")).status == 200
    assert (await ehr.get("Patient/kit")).json["address"] == [HOME], "that may be changed"


async def test_what_a_proxy_proposed_stays_for_staff_when_the_patient_proves_the_last_of_it(
    portal: Portal, practice: EmbeddedStore, ehr: Caller, clock: Clock
) -> None:
    """Else a code to the patient's own number would bring in the proxy's address with it."""
    await lets(practice, "telecom")
    proxy = a_proxy(sections=["demographics"], act=["demographics"])
    mother = Caller(portal, replace(proxy, account="mother"))
    kit = Caller(portal, replace(oneself("kit"), account="kit"))
    hers = {"system": "email", "value": "mother@mail.example"}
    made = await proposed(mother, details(telecom=[NEW, hers]), version(3), of="kit")
    (task,) = (await mother.get("Task?status=requested")).entries
    first, last = sorted(to_prove(made), key=lambda one: "@" not in one)
    assert (await proved(mother, task, first, await code_to(portal, practice, first))).status == 200
    clock.advance(60)
    assert (await proved(kit, task, last, None)).status == 200
    code = await code_to(portal, practice, last)
    assert (await proved(kit, task, last, code)).status == 200
    assert (await ehr.get("Patient/kit")).json["telecom"] == [OLD]
    assert (await kit.get(f"Task/{task['id']}")).json["status"] == "requested"
