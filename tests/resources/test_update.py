"""``update``. Source: FHIR R4 §3.1.0.4, §3.1.0.5."""

from __future__ import annotations

import asyncio

import pytest

from tests.builders import (
    BASE,
    a_communication,
    a_patient,
    an_observation,
    assert_outcome,
    some_answers,
)
from tests.resources.test_transaction import versions


async def test_an_ehr_may_choose_the_id_of_what_is_new(ehr):
    answer = await ehr.put(a_patient("of-the-ehr"))
    assert answer.status == 201
    assert answer.json["id"] == "of-the-ehr"
    assert answer.response.location == f"{BASE}/Patient/of-the-ehr/_history/1"


async def test_an_update_is_the_next_version(ehr, clock):
    await ehr.store(a_patient("ada"))
    clock.advance(1.5)
    answer = await ehr.put(a_patient("ada", family="Two"))
    assert answer.status == 200
    assert answer.response.location is None
    assert answer.json["meta"] == {"versionId": "2", "lastUpdated": "2030-03-17T17:46:41.500Z"}
    assert (await ehr.get("Patient?name=two")).ids == ["Patient/ada"]
    assert (await ehr.get("Patient?name=quill")).ids == []


async def test_time_never_runs_backwards_in_versions(ehr, clock):
    await ehr.store(a_patient("ada"))
    clock.advance(-60)
    answer = await ehr.put(a_patient("ada"))
    assert answer.json["meta"]["lastUpdated"] == "2030-03-17T17:46:40.000Z"


async def test_of_parallel_updates_from_one_version_one_is_made(ehr):
    await ehr.store(a_patient("ada"))
    answers = await asyncio.gather(
        *(ehr.put(a_patient("ada", family=f"F{n}"), if_match='W/"1"') for n in range(20))
    )
    assert sorted(answer.status for answer in answers) == [200] + [412] * 19
    winner = next(answer for answer in answers if answer.status == 200)
    assert (await ehr.get("Patient/ada")).body == winner.body


async def test_parallel_updates_without_a_condition_lose_no_version(ehr):
    await ehr.store(a_patient("ada"))
    await asyncio.gather(*(ehr.put(a_patient("ada", family=f"F{n}")) for n in range(20)))
    history = await ehr.get("Patient/ada/_history?_count=50")
    assert history.json["total"] == 21
    assert {one["name"][0]["family"] for one in history.entries} == {
        "Quill",
        *(f"F{n}" for n in range(20)),
    }


async def test_labels_are_carried_where_the_sender_may_not_label(ehr, store):
    labelled = a_patient("ada", meta={"tag": [{"system": "http://t.example", "code": "x"}]})
    await ehr.store(labelled)
    plain = ehr.who(permissions=frozenset())
    answer = await plain.put(a_patient("ada", family="Two"))
    assert answer.status == 200
    assert answer.json["meta"]["tag"] == labelled["meta"]["tag"]
    before = versions(store)
    removed = await plain.put(a_patient("ada", meta={"tag": []}))
    assert removed.status == 400
    other = await plain.put(
        a_patient("ada", meta={"tag": [{"system": "http://t.example", "code": "y"}]})
    )
    assert_outcome(other, 403, "forbidden")
    assert versions(store) == before


# --- people


async def test_a_person_corrects_own_answers(ehr, ada):
    await ehr.store(a_patient("ada"))
    made = await ada.post(some_answers())
    changed = await ada.put(some_answers(made.json["id"], authored="2030-01-01"))
    assert changed.status == 200
    assert changed.json["meta"]["versionId"] == "2"


async def test_a_person_creates_nothing_by_update(ehr, ada, store):
    await ehr.store(a_patient("ada"), some_answers("theirs", of="kit", source="Patient/kit"))
    before = versions(store)
    answers = [await ada.put(some_answers(own_id)) for own_id in ("absent", "theirs")]
    for answer in answers:
        assert_outcome(answer, 404, "not-found")
    assert answers[0].body == answers[1].body.replace(b"theirs", b"absent")
    assert versions(store) == before


@pytest.mark.parametrize(
    "change",
    [
        {"subject": {"reference": "Patient/kit"}},
        {"source": {"reference": "Patient/kit"}},
        {"subject": {"reference": "Patient/ada", "type": "Patient"}, "source": {"display": "me"}},
    ],
)
async def test_an_update_moves_nothing_to_another_record(ehr, ada, store, change):
    await ehr.store(a_patient("ada"), a_patient("kit"), some_answers("mine"))
    before = versions(store)
    answer = await ada.put(some_answers("mine") | change)
    assert_outcome(answer, 403, "forbidden")
    assert versions(store) == before


async def test_a_person_does_not_take_over_what_somebody_else_answered(ehr, ada, store):
    await ehr.store(a_patient("ada"), some_answers("theirs", source="RelatedPerson/mother"))
    before = versions(store)
    assert_outcome(await ada.put(some_answers("theirs")), 403, "forbidden")
    assert versions(store) == before


async def test_a_person_changes_no_message_and_no_chart(ehr, ada, store):
    await ehr.store(a_patient("ada"), a_communication("sent"), an_observation("o"))
    before = versions(store)
    for tree in (a_communication("sent"), an_observation("o"), a_patient("ada")):
        assert_outcome(await ada.put(tree), 403, "forbidden")
    assert versions(store) == before
