"""Pictures in answers to a form: written anew when they come, and left alone after that."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from tests.builders import Caller, Json, a_bundle, oneself, reference, resource
from tests.operations.proposing import a_picture, attached


@pytest.fixture
def ada(practice: object, ehr: Caller) -> Caller:
    assert practice is not None
    return Caller(ehr.portal, oneself("ada"))


def answers(attachment: Json, own_id: str | None = None, **more: Any) -> Json:
    item = {"linkId": "1", "answer": [{"valueAttachment": attachment}]}
    return resource(
        "QuestionnaireResponse",
        own_id,
        **{
            "status": "in-progress",
            "subject": reference("Patient/ada"),
            "source": reference("Patient/ada"),
            "item": [{"linkId": "0", "item": [item]}],
        }
        | more,
    )


def the_picture(tree: Json) -> Json:
    found: Json = tree["item"][0]["item"][0]["answer"][0]["valueAttachment"]
    return found


async def test_a_picture_loses_what_its_camera_wrote(ada: Caller) -> None:
    given = attached(a_picture(camera=True)) | {"title": "arm.jpg", "size": 3, "hash": "AAAA"}
    assert b"Tell-Tale" in base64.b64decode(given["data"])
    made = await ada.post(answers(given))
    assert made.status == 201, made.body
    kept = the_picture((await ada.get("QuestionnaireResponse")).entries[0])
    content = base64.b64decode(kept["data"])
    assert b"Tell-Tale" not in content
    assert (kept["contentType"], kept["title"]) == ("image/jpeg", "arm.jpg")
    assert kept["size"] == len(content)
    assert kept["hash"] != "AAAA"


async def test_a_picture_that_is_there_is_not_written_again_and_again(ada: Caller) -> None:
    await ada.post(answers(attached(a_picture(camera=True))))
    stored = (await ada.get("QuestionnaireResponse")).entries[0]
    assert (await ada.put(stored)).status == 200
    after = (await ada.get(f"QuestionnaireResponse/{stored['id']}")).json
    assert the_picture(after)["data"] == the_picture(stored)["data"]
    other = answers(attached(a_picture(camera=True)), stored["id"])
    assert (await ada.put(other)).status == 200
    last = (await ada.get(f"QuestionnaireResponse/{stored['id']}")).json
    assert b"Tell-Tale" not in base64.b64decode(the_picture(last)["data"])


async def test_in_a_transaction_it_is_the_same(ada: Caller) -> None:
    given = answers(attached(a_picture(camera=True)))
    made = await ada.bundle(a_bundle("transaction", ("POST", "QuestionnaireResponse", given)))
    assert made.status == 200, made.body
    kept = the_picture((await ada.get("QuestionnaireResponse")).entries[0])
    assert b"Tell-Tale" not in base64.b64decode(kept["data"])


@pytest.mark.parametrize(
    "given",
    [
        attached(a_picture()[:80]),
        attached(a_picture(), "image/png"),
        attached(b"\x89PNG\r\n\x1a\n" + bytes(60), "image/png"),
    ],
)
async def test_what_cannot_be_read_is_refused(ada: Caller, given: Json) -> None:
    assert (await ada.post(answers(given))).status == 422
    assert (await ada.get("QuestionnaireResponse")).entries == []


async def test_what_an_ehr_stores_stays_as_it_is(ada: Caller, ehr: Caller) -> None:
    given = answers(attached(a_picture(camera=True)), "theirs")
    await ehr.store(given)
    kept = the_picture((await ada.get("QuestionnaireResponse/theirs")).json)
    assert kept == the_picture(given)
