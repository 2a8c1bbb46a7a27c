"""Insurances and pictures that people propose: cards as CARIN has them, photos, what they keep."""

from __future__ import annotations

import base64
import io
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from PIL import Image

from fhir_portal.accounts.policy import PracticePolicy
from fhir_portal.embedded.store import EmbeddedStore
from fhir_portal.notify import jobs
from fhir_portal.notify.outbox import OutboxMessage
from fhir_portal.operations.proposal_jobs import proposal_jobs
from fhir_portal.portal import Portal
from tests.builders import (
    DERM,
    RESTRICTED,
    START,
    WITHHELD,
    Caller,
    Clock,
    Json,
    a_binary,
    a_document,
    a_grant,
    a_patient,
    a_proxy,
    keep,
    oneself,
    reference,
)
from tests.operations.invitations import staff
from tests.operations.proposing import (
    a_picture,
    attached,
    cleared,
    decision,
    inside,
    part,
    proposed,
    reviewed,
    task_of,
    version,
)

CARD = "http://hl7.org/fhir/us/insurance-card/StructureDefinition/C4DIC-SupportingImage-extension"


def a_coverage(own_id: str | None = None, *, of: str = "ada", **more: Any) -> Json:
    return {
        "resourceType": "Coverage",
        **({"id": own_id} if own_id else {}),
        "status": "active",
        "beneficiary": reference(f"Patient/{of}"),
        "payor": [{"display": "Sample Health"}],
        **more,
    }


def new(*, of: str = "ada", front: bytes | None = None, **more: Any) -> Json:
    pictures = {"front_Attachment": attached(front)} if front is not None else {}
    return part("coverage", action_Code="new", coverage=a_coverage(of=of, **more), **pictures)


def change(target: str, seen: int, **given: Any) -> Json:
    pictures = {name: given.pop(name) for name in list(given) if name.endswith("_Attachment")}
    return part(
        "coverage",
        action_Code="change",
        target_Reference=reference(target),
        version_String=str(seen),
        coverage=a_coverage(**given),
        **pictures,
    )


def ends(target: str, day: str) -> Json:
    return part("coverage", action_Code="end", target_Reference=reference(target), end_Date=day)


@pytest.fixture(autouse=True)
async def on_file(practice: EmbeddedStore, ehr: Caller) -> None:
    assert practice is not None
    await ehr.store(
        a_patient("ada"),
        a_coverage("plan", order=1, subscriberId="M-1", period={"start": "2029-01-01"}),
        a_coverage("hidden", meta=WITHHELD),
        a_coverage("kits", of="kit"),
    )


@pytest.fixture
def ada(portal: Portal) -> Caller:
    return Caller(portal, oneself("ada"))


@pytest.fixture
def front(practice: EmbeddedStore, portal: Portal) -> Caller:
    assert practice is not None
    return staff(portal, "forms")


def a_mother(portal: Portal, *sections: str) -> Caller:
    return Caller(portal, replace(a_proxy(sections=sections, act=sections), account="ada"))


async def accepted(caller: Caller, front: Caller, *given: Json, of: str = "ada") -> Json:
    task = await task_of(caller, await proposed(caller, *given, of=of))
    answer = await reviewed(front, task, {"name": "others", "valueCode": "accept"})
    assert answer.status == 200, answer.body
    return task


@pytest.mark.requirement("portal", "S0-41")
async def test_several_insurances_are_added_changed_and_ended(ada: Caller, front: Caller) -> None:
    group: Json = {
        "type": {
            "coding": [
                {"system": "http://terminology.hl7.org/CodeSystem/coverage-class", "code": "group"}
            ]
        },
        "value": "G-7",
    }
    spouse: Json = {"subscriber": {"display": "Rowan Quill"}, "subscriberId": "R-1"}
    second: Json = spouse | {"order": 2, "class": [group]}
    task = await accepted(
        ada,
        front,
        new(**second),
        change("Coverage/plan", 1, subscriberId="M-2", order=1, period={"start": "2029-01-01"}),
        ends("Coverage/plan", "2031-01-31"),
    )
    assert task["code"]["coding"][0]["code"] == "propose-insurance"
    assert inside(task, "p2")["subscriberId"] == "M-2"
    assert inside(task, "b2")["subscriberId"] == "M-1"
    found = (await ada.get("Coverage")).entries
    (added,) = [one for one in found if one["id"] != "plan"]
    (plan,) = [one for one in found if one["id"] == "plan"]
    assert (added["order"], added["subscriberId"], added["class"]) == (2, "R-1", [group])
    assert added["subscriber"] == {"display": "Rowan Quill"}
    assert added["beneficiary"] == reference("Patient/ada")
    assert added["meta"]["tag"][0]["code"] == "patient-reported"
    assert (plan["subscriberId"], plan["order"]) == ("M-2", 1)
    assert plan["period"] == {"start": "2029-01-01", "end": "2031-01-31"}


@pytest.mark.requirement("portal", "S0-41")
async def test_the_pictures_of_a_card_are_documents_that_the_coverage_refers_to(
    ada: Caller, front: Caller, portal: Portal
) -> None:
    kit, mother = Caller(portal, oneself("kit")), a_mother(portal, "insurance")
    task = await accepted(kit, front, new(of="kit", front=a_picture(camera=True)), of="kit")
    proposed_url = inside(task, "p1")["extension"][0]["extension"][2]["valueAttachment"]["url"]
    (coverage,) = [one for one in (await kit.get("Coverage")).entries if one["id"] != "kits"]
    (card,) = coverage["extension"]
    assert card["url"] == CARD
    parts = {one["url"]: one for one in card["extension"]}
    assert parts["label"]["valueString"] == "Front"
    assert "insurance card" in parts["description"]["valueString"]
    key = parts["image"]["valueReference"]["reference"]
    document = (await mother.get(key)).json
    assert document["category"][0]["coding"][0]["code"] == "insurance-card"
    assert document["content"][0]["attachment"]["url"] == proposed_url
    binary = await mother.get(proposed_url)
    assert binary.status == 200
    assert binary.json["securityContext"] == reference("Patient/kit")
    content = base64.b64decode(binary.json["data"])
    assert b"Tell-Tale" not in content
    assert not Image.open(io.BytesIO(content)).getexif()
    # Whoever sees other sections sees none of it.
    for other in (a_mother(portal, "documents", "demographics", "forms"), ada):
        for target in (key, proposed_url, f"Coverage/{coverage['id']}", f"Task/{task['id']}"):
            assert (await other.get(target)).status == 404, target
        assert key not in (await other.get("DocumentReference")).ids


async def test_one_side_of_a_card_takes_the_place_of_that_side(ada: Caller, front: Caller) -> None:
    both = {"front_Attachment": attached(a_picture()), "back_Attachment": attached(a_picture(30))}
    await accepted(ada, front, part("coverage", action_Code="new", coverage=a_coverage(), **both))
    (coverage,) = [
        one for one in (await ada.get("Coverage")).entries if one["id"] not in {"plan", "hidden"}
    ]

    def images(tree: Json) -> dict[str, str]:
        found = {}
        for one in tree["extension"]:
            parts = {e["url"]: e for e in one["extension"]}
            reference_ = parts["image"]["valueReference"]["reference"]
            found[parts["label"]["valueString"]] = reference_
        return found

    before = images(coverage)
    target = f"Coverage/{coverage['id']}"
    picture = attached(a_picture(50))
    await accepted(ada, front, change(target, 1, back_Attachment=picture))
    after = images((await ada.get(target)).json)
    assert after["Front"] == before["Front"]
    assert after["Back"] != before["Back"]


async def test_what_is_proposed_of_a_labelled_insurance_stays_hidden(
    portal: Portal, front: Caller, ehr: Caller
) -> None:
    await ehr.store(a_coverage("secret", of="kit", meta=RESTRICTED))
    kit, mother = Caller(portal, oneself("kit")), a_mother(portal, "insurance")
    given = change("Coverage/secret", 1, of="kit", front_Attachment=attached(a_picture()))
    task = await accepted(kit, front, given, of="kit")
    (url,) = [
        one["extension"][2]["valueAttachment"]["url"]
        for one in inside(task, "p1")["extension"]
        if one["url"] == CARD
    ]
    coverage = (await kit.get("Coverage/secret")).json
    key = coverage["extension"][0]["extension"][2]["valueReference"]["reference"]
    for target in (f"Task/{task['id']}", "Coverage/secret", key, url):
        assert (await kit.get(target)).status == 200, target
        assert (await mother.get(target)).status == 404, target


@pytest.mark.requirement("portal", "S0-37")
async def test_a_photo_is_made_smaller_stripped_and_marked(ada: Caller, front: Caller) -> None:
    given = {"name": "photo", "valueAttachment": attached(a_picture(2000, camera=True))}
    task = await task_of(ada, await proposed(ada, given))
    (photo,) = inside(task, "p1")["photo"]
    content = base64.b64decode((await ada.get(photo["url"])).json["data"])
    picture = Image.open(io.BytesIO(content))
    assert max(picture.size) == 1024
    assert not picture.getexif()
    assert b"Tell-Tale" not in content
    await reviewed(front, task, decision("p1", "accept"))
    (kept,) = (await ada.get("Patient/ada")).json["photo"]
    assert kept["extension"][0]["url"].endswith("/patient-supplied")
    assert (await front.get(photo["url"])).status == 200
    bare = await task_of(ada, await proposed(ada, cleared("photo"), version(3)))
    await reviewed(front, bare, decision("p1", "accept"))
    assert "photo" not in (await ada.get("Patient/ada")).json


async def test_a_picture_that_was_refused_is_still_theirs_alone(
    ada: Caller, front: Caller, portal: Portal
) -> None:
    given = {"name": "photo", "valueAttachment": attached(a_picture())}
    task = await task_of(ada, await proposed(ada, given))
    url = inside(task, "p1")["photo"][0]["url"]
    await reviewed(front, task, decision("p1", "refuse"))
    assert (await ada.get(url)).status == 200
    bo = Caller(portal, oneself("bo"))
    assert (await bo.get(url)).status == 404


PICTURES: dict[str, tuple[Json, int]] = {
    "markup": (attached(b"<svg onload='x()'/>", "image/svg+xml"), 422),
    "markup that says it is a picture": (attached(b"<svg onload='x()'/>"), 422),
    "something else than it says": (attached(a_picture(), "image/png"), 422),
    "no picture": (attached(b"words", "text/plain"), 422),
    "cut off": (attached(a_picture()[:100]), 422),
    "elsewhere": ({"contentType": "image/png", "url": "https://x.example/p.png"}, 422),
    "no base64": ({"contentType": "image/png", "data": "@@"}, 400),
    "empty": ({"contentType": "image/png", "title": "x"}, 422),
    "too large": (attached(b"\xff\xd8\xff" + bytes(6 * 1024 * 1024)), 413),
}


@pytest.mark.parametrize("given", PICTURES.values(), ids=PICTURES)
async def test_what_is_no_picture_is_refused_with_everything_else(
    ada: Caller, ehr: Caller, given: tuple[Json, int]
) -> None:
    attachment, status = given
    for parameter in (
        {"name": "photo", "valueAttachment": attachment},
        part(
            "coverage",
            action_Code="new",
            coverage=a_coverage(),
            front_Attachment=attachment,
        ),
    ):
        answer = await proposed(ada, parameter)
        assert answer.status == status, answer.body
    assert (await ehr.get("Task")).entries == []


WRONG: dict[str, tuple[Json, int]] = {
    "another action": (part("coverage", action_Code="delete"), 422),
    "new without anything": (part("coverage", action_Code="new"), 422),
    "new with a target": (
        part(
            "coverage",
            action_Code="new",
            coverage=a_coverage(),
            target_Reference=reference("Coverage/plan"),
        ),
        422,
    ),
    "for somebody else": (new(of="kit"), 422),
    "a status of its own": (new(status="cancelled"), 422),
    "a payor by reference": (new(payor=[reference("Organization/derm")]), 422),
    "a subscriber who is another patient": (new(subscriber=reference("Patient/kit")), 422),
    "a card by its address": (
        new(
            extension=[
                {
                    "url": CARD,
                    "extension": [
                        {
                            "url": "image",
                            "valueAttachment": {"contentType": "image/png", "url": "Binary/x"},
                        }
                    ],
                }
            ]
        ),
        422,
    ),
    "an end of nothing": (ends("Coverage/none", "2031-01-01"), 404),
    "an end of somebody else's": (ends("Coverage/kits", "2031-01-01"), 404),
    "an end of what is withheld": (ends("Coverage/hidden", "2031-01-01"), 404),
    "an end before the beginning": (ends("Coverage/plan", "2028-01-01"), 422),
    "no day": (
        part("coverage", action_Code="end", target_Reference=reference("Coverage/plan")),
        422,
    ),
    "a change without the version": (
        part(
            "coverage",
            action_Code="change",
            target_Reference=reference("Coverage/plan"),
            coverage=a_coverage(subscriberId="M-2"),
        ),
        400,
    ),
    "a change of a patient": (
        part(
            "coverage",
            action_Code="change",
            target_Reference=reference("Patient/ada"),
            version_String="1",
            coverage=a_coverage(),
        ),
        422,
    ),
    "a version that is none": (change("Coverage/plan", 7, subscriberId="M-2"), 422),
}


@pytest.mark.parametrize("given", WRONG.values(), ids=WRONG)
async def test_an_insurance_that_is_proposed_wrongly_is_refused(
    ada: Caller, ehr: Caller, given: tuple[Json, int]
) -> None:
    parameter, status = given
    answer = await proposed(ada, parameter)
    assert answer.status == status, answer.body
    assert (await ehr.get("Task")).entries == []
    assert (await ehr.get("Coverage/plan")).json["meta"]["versionId"] == "1"


async def test_an_insurance_that_the_ehr_changed_meanwhile_is_not_overwritten(
    ada: Caller, front: Caller, ehr: Caller
) -> None:
    task = await task_of(ada, await proposed(ada, ends("Coverage/plan", "2031-01-31")))
    await ehr.store(a_coverage("plan", period={"start": "2029-01-01", "end": "2030-06-30"}))
    others: Json = {"name": "others", "valueCode": "accept"}
    assert (await reviewed(front, task, others)).status == 412
    assert (await ada.get("Coverage/plan")).json["period"]["end"] == "2030-06-30"
    looked = await reviewed(front, task, decision("p1", "accept", version_String="2"))
    assert looked.status == 200, looked.body
    assert (await ada.get("Coverage/plan")).json["period"]["end"] == "2031-01-31"


# ---------------------------------------------------------------- what ends


async def told(portal: Portal, store: EmbeddedStore) -> list[OutboxMessage]:
    """Who is told by now that an insurance ends."""
    functions = proposal_jobs(portal.server)
    await jobs.work_off(store, functions, worker="w", clock=portal.server.clock)
    return [one for one in await store.every(OutboxMessage) if one.template == "coverage-ends"]


def in_days(days: int) -> str:
    return (datetime.fromtimestamp(START, UTC) + timedelta(days=days)).date().isoformat()


@pytest.mark.requirement("portal", "S0-41")
async def test_people_are_told_once_that_an_insurance_ends(
    portal: Portal, practice: EmbeddedStore, ehr: Caller, clock: Clock
) -> None:
    await ehr.store(a_coverage("plan", period={"end": in_days(60)}))
    assert await told(portal, practice) == []
    clock.advance(31 * 86_400)
    (one,) = await told(portal, practice)
    assert one.to == f"record:{DERM}/Patient/ada"
    assert one.values == {}
    assert "Sample" not in repr(one)
    await ehr.store(a_coverage("plan", period={"end": in_days(60)}, subscriberId="M-3"))
    clock.advance(86_400)
    assert len(await told(portal, practice)) == 1
    await ehr.store(a_coverage("plan", period={"end": in_days(400)}))
    clock.advance(345 * 86_400)
    assert len(await told(portal, practice)) == 2


async def test_who_sees_the_insurance_of_somebody_is_told_too(
    portal: Portal, practice: EmbeddedStore, ehr: Caller
) -> None:
    await ehr.store(
        a_grant("grant", of="kit", to="mother", sections=["insurance"]),
        a_coverage("kits", of="kit", period={"end": in_days(3)}),
    )
    assert {one.to for one in await told(portal, practice)} == {
        f"record:{DERM}/Patient/kit",
        "account:ada",
    }
    await ehr.store(a_grant("grant", of="kit", to="mother", sections=["results"]))
    await ehr.store(a_coverage("kits", of="kit", period={"end": in_days(4)}))
    assert len(await told(portal, practice)) == 3


@pytest.mark.parametrize(
    "changed",
    [
        {"status": "cancelled"},
        {"period": {"end": in_days(-1)}},
        {"period": {"end": "2030"}},
        {"period": {"start": "2029-01-01"}},
        {"meta": RESTRICTED},
        {"meta": WITHHELD},
    ],
)
async def test_nobody_is_told_of_what_does_not_end_or_is_hidden(
    portal: Portal, practice: EmbeddedStore, ehr: Caller, changed: Json
) -> None:
    await ehr.store(a_coverage("plan", **{"period": {"end": in_days(5)}, **changed}))
    assert await told(portal, practice) == []


async def test_a_practice_may_want_nobody_to_be_told(
    portal: Portal, practice: EmbeddedStore, ehr: Caller
) -> None:
    await keep(practice, PracticePolicy(key=DERM, coverage_reminder_days=0))
    await ehr.store(a_coverage("plan", period={"end": in_days(5)}))
    assert await told(portal, practice) == []


async def test_staff_accept_no_file_of_another_record(
    portal: Portal, ada: Caller, ehr: Caller
) -> None:
    """The file would be of two records then, and its own patient would lose it."""
    await ehr.store(a_binary("kits"), a_document("kits", of="kit", binary="kits"))
    kit, front = Caller(portal, oneself("kit")), staff(portal, "forms")
    photo = {"name": "photo", "valueAttachment": attached(a_picture())}
    task = await task_of(ada, await proposed(ada, photo))
    leads = [{"contentType": "image/png", "url": "Binary/kits"}]
    other = {"resourceType": "Patient", "photo": leads}
    answer = await reviewed(front, task, decision("p1", "accept", "photo", resource=other))
    assert (answer.status, "no other file" in str(answer.json)) == (422, True)
    assert (await kit.get("Binary/kits")).status == 200
    own = {"resourceType": "Patient", "photo": inside(task, "p1")["photo"]}
    assert (await reviewed(front, task, decision("p1", "accept", resource=own))).status == 200
    task = await task_of(ada, await proposed(ada, new(front=a_picture())))
    tree = a_coverage(extension=[{"url": "https://x.example", "valueAttachment": leads[0]}])
    answer = await reviewed(front, task, decision("p1", "accept", resource=tree))
    assert (answer.status, "no other file" in str(answer.json)) == (422, True)
