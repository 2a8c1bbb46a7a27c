"""``create``. Source: FHIR R4 §3.1.0.8."""

from __future__ import annotations

import asyncio

import pytest

from fhir_portal.access.writes import NEVER_WRITTEN, OPERATION_ONLY
from fhir_portal.fhir.definitions import served_types
from fhir_portal.portal import random_id
from fhir_portal.resources.catalog import interactions_of
from tests.builders import (
    BASE,
    a_communication,
    a_patient,
    a_related_person,
    an_observation,
    assert_outcome,
    resource,
    some_answers,
)
from tests.resources.test_transaction import versions


async def test_a_create_stores_version_one_under_an_id_of_the_servers(ehr):
    answer = await ehr.post(a_patient("mine"))
    assert answer.status == 201
    assert answer.json["id"] == "new-1"
    assert answer.json["meta"] == {"versionId": "1", "lastUpdated": "2030-03-17T17:46:40.000Z"}
    assert answer.response.location == f"{BASE}/Patient/new-1/_history/1"
    assert (await ehr.get("Patient/new-1")).body == answer.body
    assert_outcome(await ehr.get("Patient/mine"), 404, "not-found")


def test_ids_of_the_servers_are_unguessable():
    made = {random_id() for _ in range(1000)}
    assert len(made) == 1000
    assert all(len(one) == 24 and one.isalnum() and one.islower() for one in made)


async def test_id_and_meta_stand_behind_the_type(ehr):
    answer = await ehr.post(a_patient(None))
    assert list(answer.json) == ["resourceType", "id", "meta", "name", "birthDate"]


async def test_tags_profiles_and_labels_of_an_ehr_are_kept(ehr):
    meta = {
        "profile": ["http://p.example/x"],
        "security": [{"system": "http://s.example", "code": "x"}],
        "tag": [{"system": "http://t.example", "code": "y"}],
        "source": "urn:x:source",
    }
    answer = await ehr.post(a_patient(None, meta=meta))
    stored = answer.json["meta"]
    assert {name: stored[name] for name in meta} == meta


@pytest.mark.parametrize("member", ["security", "tag"])
async def test_who_may_not_label_creates_no_labels(ehr, store, member):
    before = versions(store)
    plain = ehr.who(permissions=frozenset())
    meta = {member: [{"system": "http://s.example", "code": "x"}]}
    answer = await plain.post(a_patient(None, meta=meta))
    assert_outcome(answer, 403, "forbidden")
    assert answer.json["issue"][0]["expression"] == [f"Patient.meta.{member}"]
    assert versions(store) == before


async def test_what_is_never_written_is_405(ehr):
    for name in NEVER_WRITTEN | OPERATION_ONLY:
        assert "create" not in interactions_of(name)
        assert_outcome(await ehr.post(resource(name, None)), 405, "not-supported")


async def test_of_many_equal_conditional_creates_at_once_one_is_made(ehr):
    identified = a_patient(None, identifier=[{"system": "urn:x:mrn", "value": "7"}])
    answers = await asyncio.gather(
        *(ehr.post(identified, if_none_exist="identifier=urn:x:mrn|7") for _ in range(20))
    )
    assert sorted(answer.status for answer in answers) == [200] * 19 + [201]
    assert len({answer.json["id"] for answer in answers}) == 1


async def test_a_condition_asks_for_the_right_to_search(ehr):
    writer = ehr.with_scope("system/Patient.c")
    assert (await writer.post(a_patient(None))).status == 201
    assert_outcome(await writer.post(a_patient(None), if_none_exist="name=x"), 403, "forbidden")


async def test_a_deleted_match_is_no_match(ehr):
    await ehr.store(a_patient("ada"))
    await ehr.delete("Patient/ada")
    assert (await ehr.post(a_patient(None), if_none_exist="name=quill")).status == 201


async def test_persons_and_grants_are_for_those_who_may_write_grants(ehr, store):
    before = versions(store)
    plain = ehr.who(permissions=frozenset({"label"}))
    answer = await plain.post(resource("Person", None))
    assert_outcome(answer, 403, "forbidden")
    assert versions(store) == before


# --- people


async def test_people_create_answers_and_messages_in_their_own_name(ehr, ada):
    await ehr.store(a_patient("ada"), a_patient("kit"))
    assert (await ada.post(some_answers())).status == 201
    assert (await ada.post(a_communication())).status == 201


@pytest.mark.parametrize(
    "tree",
    [
        some_answers(of="kit"),
        some_answers(source="Patient/kit"),
        some_answers(source="RelatedPerson/mother"),
        some_answers() | {"author": {"reference": "Patient/kit"}},
        some_answers() | {"subject": {"reference": "https://other.example/fhir/Patient/ada"}},
        a_communication(sender="Patient/kit"),
        a_communication(sender=None),
        a_communication(of="kit"),
        a_communication(meta={"tag": [{"system": "http://t.example", "code": "x"}]}),
        an_observation(of="ada"),
        a_patient(None),
        a_related_person(of="ada"),
        resource("Consent", None),
        resource("Person", None),
        resource("Task", None),
        resource("Provenance", None),
        resource("Binary", None),
    ],
)
async def test_people_create_nothing_else(ehr, ada, store, tree):
    await ehr.store(a_patient("ada"), a_patient("kit"))
    before = versions(store)
    answer = await ada.post(tree)
    assert_outcome(answer, 403, "forbidden")
    assert b"kit" not in answer.body
    assert versions(store) == before


async def test_a_reference_of_a_person_tells_nothing_of_what_exists(ehr, ada):
    await ehr.store(a_patient("ada"), a_patient("kit"), an_observation("theirs", of="kit"))
    answers = [
        await ada.post(some_answers(partOf=[{"reference": f"Observation/{own_id}"}]))
        for own_id in ("theirs", "absent")
    ]
    assert answers[0].status == answers[1].status == 422
    assert answers[0].body == answers[1].body


async def test_every_served_type_that_is_written_says_so(ehr):
    for name in served_types():
        offered = interactions_of(name)
        answer = await ehr.post(resource(name, None, nonsense=True))
        assert answer.status == (400 if "create" in offered else 405), (name, answer.body)
