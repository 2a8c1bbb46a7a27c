"""``history-instance`` and ``history-system``. Source: FHIR R4 §3.1.0.12."""

from __future__ import annotations

import pytest

from tests.builders import BASE, a_patient, an_observation, assert_outcome


async def test_the_history_of_a_resource_is_newest_first_and_says_what_happened(ehr, clock):
    await ehr.post(a_patient(None))
    clock.advance(60)
    await ehr.put(a_patient("new-1", family="Two"))
    clock.advance(60)
    await ehr.delete("Patient/new-1")
    await ehr.put(a_patient("new-1", family="Again"))
    answer = await ehr.get("Patient/new-1/_history")
    assert (answer.json["type"], answer.json["total"]) == ("history", 4)
    found = [
        (
            one["request"]["method"],
            one["request"]["url"],
            one["response"]["status"],
            one["response"]["etag"],
            one["response"]["lastModified"],
            "resource" in one,
        )
        for one in answer.json["entry"]
    ]
    assert found == [
        ("PUT", "Patient/new-1", "200 OK", 'W/"4"', "2030-03-17T17:48:40.000Z", True),
        ("DELETE", "Patient/new-1", "204 No Content", 'W/"3"', "2030-03-17T17:48:40.000Z", False),
        ("PUT", "Patient/new-1", "200 OK", 'W/"2"', "2030-03-17T17:47:40.000Z", True),
        ("POST", "Patient", "201 Created", 'W/"1"', "2030-03-17T17:46:40.000Z", True),
    ]
    assert {one["fullUrl"] for one in answer.json["entry"]} == {f"{BASE}/Patient/new-1"}


async def test_the_history_of_nothing_is_404(ehr, ada):
    await ehr.store(a_patient("kit"))
    assert_outcome(await ehr.get("Patient/nobody/_history"), 404, "not-found")
    assert_outcome(await ada.get("Patient/kit/_history"), 404, "not-found")


async def test_the_history_of_a_resource_is_paged(ehr):
    for n in range(7):
        await ehr.store(a_patient("ada", family=f"F{n}"))
    first = await ehr.get("Patient/ada/_history?_count=3")
    assert first.json["link"][0] == {
        "relation": "self",
        "url": f"{BASE}/Patient/ada/_history?_count=3",
    }
    assert len(first.entries) == 3
    await ehr.store(a_patient("ada", family="later"))
    found = list(first.entries)
    while first.next:
        first = await ehr.get(first.next)
        found += first.entries
    assert [one["meta"]["versionId"] for one in found] == ["7", "6", "5", "4", "3", "2", "1"]


async def test_the_feed_has_every_version_of_every_type_newest_first(ehr, clock):
    await ehr.store(a_patient("ada"), an_observation("o"))
    clock.advance(10)
    await ehr.store(a_patient("ada"))
    await ehr.delete("Observation/o")
    answer = await ehr.get("_history")
    assert [
        (one["request"]["method"], one["request"]["url"], one["response"]["etag"])
        for one in answer.json["entry"]
    ] == [
        ("DELETE", "Observation/o", 'W/"2"'),
        ("PUT", "Patient/ada", 'W/"2"'),
        ("PUT", "Observation/o", 'W/"1"'),
        ("PUT", "Patient/ada", 'W/"1"'),
    ]
    assert "total" not in answer.json


async def test_the_feed_since_an_instant_includes_that_instant(ehr, clock):
    await ehr.store(a_patient("one"))
    clock.advance(10)
    await ehr.store(a_patient("two"))
    clock.advance(10)
    await ehr.store(a_patient("three"))
    for since, expected in (
        ("2030-03-17T17:46:50.000Z", ["three", "two"]),
        ("2030-03-17T17:46:50.001Z", ["three"]),
        ("2030-03-17T18:46:50%2B01:00", ["three", "two"]),
        ("2030-03-17", ["three", "two", "one"]),
        ("2031", []),
    ):
        answer = await ehr.get(f"_history?_since={since}")
        assert [one["id"] for one in answer.entries] == expected, since


async def test_the_feed_is_paged_without_loss_while_it_grows(ehr, clock):
    for n in range(25):
        await ehr.store(an_observation(f"o{n}"))
        if n % 3 == 0:
            clock.advance(0.001)
    answer = await ehr.get("_history?_count=4")
    found = list(answer.ids)
    late = 0
    while answer.next:
        late += 1
        await ehr.store(an_observation(f"late{late}"), an_observation("o3"))
        answer = await ehr.get(answer.next)
        found += answer.ids
    assert found == [f"Observation/o{n}" for n in reversed(range(25))]


@pytest.mark.parametrize("path", ["_history", "Patient/ada/_history"])
@pytest.mark.parametrize(
    "query",
    [
        "_count=0",
        "_count=-1",
        "_count=x",
        "_count=",
        "_count=1&_count=2",
        "_since=yesterday",
        "_since=",
        "_since=2030-13-01",
        "_at=2030",
        "_list=x",
        "_sort=_lastUpdated",
        "name=x",
        "_page=x",
        "_page=",
        "_page=" + "A" * 200,
        "_page=%C3%A4",
        "_page=x&_count=2",
        "_count=" + "9" * 5000 + "x",
    ],
)
async def test_what_a_history_does_not_understand_is_400(ehr, path, query):
    await ehr.store(a_patient("ada"))
    assert_outcome(await ehr.get(f"{path}?{query}"), 400, "invalid")


@pytest.mark.parametrize("path", ["_history", "Patient/ada/_history"])
@pytest.mark.parametrize("count", ["500", "501", "9" * 30, "9" * 5000, "000000001" + "0" * 5000])
async def test_a_count_over_the_cap_gets_the_cap(ehr, path, count):
    await ehr.store(a_patient("ada"))
    answer = await ehr.get(f"{path}?_count={count}")
    assert answer.status == 200
    assert len(answer.entries) == 1


async def test_a_paging_link_serves_only_its_own_path(ehr):
    await ehr.store(a_patient("ada"), a_patient("ada"), an_observation("o"), an_observation("o"))
    following = (await ehr.get("Patient/ada/_history?_count=1")).next
    query = following.partition("?")[2]
    for path in ("Observation/o/_history", "_history", "Patient"):
        assert_outcome(await ehr.get(f"{path}?{query}"), 400, "invalid")


async def test_a_person_follows_only_the_own_record(ehr, ada):
    await ehr.store(
        a_patient("ada"),
        a_patient("kit"),
        an_observation("mine", of="ada"),
        an_observation("theirs", of="kit"),
    )
    answer = await ada.get("_history")
    assert answer.ids == ["Observation/mine", "Patient/ada"]


async def test_a_feed_without_any_right_to_search_is_403(ehr):
    assert_outcome(await ehr.with_scope("system/*.r").get("_history"), 403, "forbidden")
    await ehr.store(a_patient("ada"), an_observation("o"))
    assert (await ehr.with_scope("system/Patient.s").get("_history")).ids == ["Patient/ada"]
