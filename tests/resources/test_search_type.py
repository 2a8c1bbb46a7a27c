"""``search-type`` as an interaction: order, pages, totals, includes. Source: FHIR R4 §3.1.1.

What each parameter type matches is held against an oracle in ``tests/search``.
"""

from __future__ import annotations

from urllib.parse import quote

import pytest

from fhir_portal.resources.interactions import search_type
from fhir_portal.search.request import MAX_VALUES
from tests.builders import (
    BASE,
    DIRECTORY,
    a_condition,
    a_patient,
    a_practitioner,
    an_encounter,
    an_observation,
    assert_outcome,
    resource,
)


@pytest.fixture
async def chart(ehr):
    """Ada with nine Observations of rising value and date, one of Kit's."""
    await ehr.store(
        a_patient("ada"),
        a_patient("kit", family="Årsén", birthDate="2015-06-01", gender="female"),
        a_practitioner("lark"),
        *(
            an_observation(
                f"o{n}",
                code="8867-4" if n % 2 else "8480-6",
                category="vital-signs" if n % 3 else "laboratory",
                value=60 + n,
                on=f"2029-0{n}-15",
                performer="Practitioner/lark" if n < 4 else None,
            )
            for n in range(1, 10)
        ),
        an_observation("k1", of="kit", value=100, on="2029-05-15"),
    )
    return ehr


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("code=8867-4&patient=ada", "o1 o3 o5 o7 o9"),
        ("code=http://loinc.org|8867-4&patient=Patient/ada", "o1 o3 o5 o7 o9"),
        (f"code=8867-4&patient={BASE}/Patient/ada", "o1 o3 o5 o7 o9"),
        ("code=|8867-4", ""),
        ("code=8867-4,8480-6&patient=ada&value-quantity=lt63", "o1 o2"),
        ("code=8867-4&code=8480-6", ""),
        ("category=laboratory&code=8867-4", "o3 o9"),
        ("category:not=laboratory&value-quantity=ge67", "o7 o8 k1"),
        ("value-quantity=61", "o1"),
        ("value-quantity=ne61&patient=ada&date=lt2029-04", "o2 o3"),
        ("value-quantity=gt68", "o9 k1"),
        ("value-quantity=sa68", "o9 k1"),
        ("value-quantity=eb62", "o1"),
        ("value-quantity=ap60&patient=ada&date=lt2029-03", "o1 o2"),
        ("value-quantity=61|http://unitsofmeasure.org|/min", "o1"),
        ("value-quantity=61||mmHg", ""),
        ("date=2029-05", "o5 k1"),
        ("date=ge2029-08-15", "o8 o9"),
        ("date=gt2029-08-15&patient=ada", "o9"),
        ("date=ge2029-02-01&date=le2029-03-31", "o2 o3"),
        ("date=sa2029-08-31", "o9"),
        ("date=eb2029-02-01", "o1"),
        ("performer:missing=false", "o1 o2 o3"),
        ("performer:missing=true&value-quantity=lt66", "o4 o5"),
        ("performer:Practitioner=lark&value-quantity=gt62", "o3"),
        ("_id=o1,o3,k1,nobody", "o1 o3 k1"),
        ("_id=o1&_id=o3", ""),
        ("subject=Patient/kit", "k1"),
        ("patient=kit,ada&value-quantity=gt68", "o9 k1"),
        ("method=x", ""),
        ("method:missing=true&value-quantity=100", "k1"),
        ("method:not=x&value-quantity=100", "k1"),
        ("derived-from=Observation/o1&code=8867-4", ""),
    ],
)
async def test_a_search_finds_what_matches_every_parameter(chart, query, expected):
    answer = await chart.get(f"Observation?{query}")
    assert answer.status == 200, answer.body
    assert [one["id"] for one in answer.entries] == expected.split()


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("name=arsen", "kit"),
        ("family=ÅRS", "kit"),
        ("family:exact=Årsén", "kit"),
        ("family:exact=Arsén", ""),
        ("family:exact=Års", ""),
        ("name:contains=uil", "ada"),
        ("name=x,quill", "ada"),
        ("given=ada&family=quill", "ada"),
        ("birthdate=2015", "kit"),
        ("birthdate=lt1990-01-01", "ada"),
        ("gender=FEMALE", "kit"),
        ("gender:missing=true", "ada"),
        ("_lastUpdated=ge2030-03-17", "ada kit"),
        ("_lastUpdated=gt2030-03-17T17:46:40.000Z", ""),
        ("_lastUpdated=2030-03-17T17:46:40.000Z", "ada kit"),
        ("phone=1", ""),
    ],
)
async def test_a_search_of_people(chart, query, expected):
    answer = await chart.get(f"Patient?{query}")
    assert answer.status == 200, answer.body
    assert [one["id"] for one in answer.entries] == expected.split()


@pytest.mark.parametrize("name", ["Device", "Immunization", "Library", "Binary"])
async def test_a_search_where_nothing_was_ever_stored_finds_nothing(ehr, ada, name):
    for query in ("", "?_id=x", "?_lastUpdated=ge2020", "?_summary=count", "?_sort=-_lastUpdated"):
        answer = await ehr.get(f"{name}{query}")
        assert (answer.status, answer.entries) == (200, [])
    if name in {"Device", "Immunization"}:
        assert (await ada.get(name)).entries == []


async def test_a_search_by_what_nobody_has_finds_nothing(chart, ada):
    """Nothing is indexed under these parameters yet."""
    for caller in (chart, ada):
        for query in (
            "identifier=7",
            "identifier=7,8&name=quill",
            "organization=Organization/x",
            "identifier=7&_sort=birthdate",
            "identifier=7&_summary=count",
            "identifier=7&_lastUpdated=ge2020",
            "identifier=7&_id=ada",
            "identifier:not=7&email=x",
        ):
            answer = await caller.get(f"Patient?{query}")
            assert (answer.status, answer.entries) == (200, []), query


@pytest.mark.parametrize(
    ("sort", "expected"),
    [
        ("value-quantity", "o1 o2 o3 o4 o5 o6 o7 o8 o9 k1"),
        ("-value-quantity", "k1 o9 o8 o7 o6 o5 o4 o3 o2 o1"),
        ("-date", "o9 o8 o7 o6 o5 k1 o4 o3 o2 o1"),
        ("code,-date", "o8 o6 o4 o2 o9 o7 o5 k1 o3 o1"),
        ("-code,value-quantity", "o1 o3 o5 o7 o9 k1 o2 o4 o6 o8"),
        ("category,-value-quantity", "o9 o6 o3 k1 o8 o7 o5 o4 o2 o1"),
        ("_id", "k1 o1 o2 o3 o4 o5 o6 o7 o8 o9"),
        ("-_lastUpdated,-_id", "o9 o8 o7 o6 o5 o4 o3 o2 o1 k1"),
        ("patient,-_id", "o9 o8 o7 o6 o5 o4 o3 o2 o1 k1"),
        ("performer,-value-quantity", "o3 o2 o1 k1 o9 o8 o7 o6 o5 o4"),
        ("-performer,-value-quantity", "o3 o2 o1 k1 o9 o8 o7 o6 o5 o4"),
    ],
)
@pytest.mark.parametrize("count", [3, 200])
async def test_sorting_holds_over_all_pages(chart, sort, expected, count):
    found = await chart.everything(f"Observation?_sort={sort}&_count={count}")
    assert [one.partition("/")[2] for one in found] == expected.split()


async def test_a_walk_shows_each_resource_once_while_others_come_and_change(chart):
    answer = await chart.get("Observation?_count=2")
    found, late = list(answer.ids), 0
    while answer.next and late < 20:
        late += 1
        await chart.store(an_observation(f"late{late}", of="kit"))
        await chart.store(an_observation("o1", value=late), an_observation("o9", value=late))
        answer = await chart.get(answer.next)
        found += answer.ids
        if late > 12:
            break
    assert len(found) == len(set(found))
    assert {f"Observation/o{n}" for n in range(1, 10)} <= set(found)


async def test_a_walk_goes_on_behind_a_resource_that_was_deleted(chart):
    answer = await chart.get("Observation?_count=3&_sort=value-quantity&patient=ada")
    assert answer.ids[-1] == "Observation/o3"
    await chart.delete("Observation/o3")
    following = await chart.get(answer.next)
    assert following.ids == ["Observation/o4", "Observation/o5", "Observation/o6"]


async def test_a_count_bounds_the_matches_of_a_page(chart):
    assert len((await chart.get("Observation?_count=1")).entries) == 1
    assert len((await chart.get("Observation?_count=10")).entries) == 10
    full = await chart.get("Observation?_count=10")
    assert full.next is None
    assert (await chart.get("Observation?_count=9")).next is not None


@pytest.mark.parametrize("count", ["201", "99999", "9" * 5000, "0000000000201"])
async def test_a_count_over_the_cap_gets_the_cap_and_says_so(chart, count):
    answer = await chart.get(f"Observation?_count={count}")
    assert len(answer.entries) == 10
    assert answer.json["link"][0]["url"] == f"{BASE}/Observation?_count=200"


async def test_only_the_total_is_given_for_summary_count_and_for_count_0(chart):
    for query in ("_summary=count", "_count=0"):
        answer = await chart.get(f"Observation?patient=ada&{query}")
        assert answer.json["total"] == 9
        assert "entry" not in answer.json
        assert answer.next is None


async def test_a_total_is_given_when_asked_for_and_is_that_of_all_pages(chart):
    assert "total" not in (await chart.get("Observation")).json
    assert "total" not in (await chart.get("Observation?_total=none")).json
    for word in ("accurate", "estimate"):
        answer = await chart.get(f"Observation?patient=ada&_total={word}&_count=4")
        assert (answer.json["total"], len(answer.entries)) == (9, 4)
        assert (await chart.get(answer.next)).json["total"] == 9


async def test_a_self_link_says_what_was_understood(chart):
    answer = await chart.get(
        "Observation?patient=ada&code=8867-4,8480-6&date=ge2029-01-01&_sort=-date,code"
        "&_include=Observation:performer&_total=accurate"
    )
    url = answer.json["link"][0]["url"]
    again = await chart.get(url)
    assert again.body == answer.body
    assert url.startswith(f"{BASE}/Observation?patient=")
    assert url.endswith("_count=20")


async def test_entries_say_how_they_came_to_be_there(chart):
    answer = await chart.get("Observation?_id=o1&_include=Observation:performer")
    assert [(one["fullUrl"], one["search"]["mode"]) for one in answer.json["entry"]] == [
        (f"{BASE}/Observation/o1", "match"),
        (f"{BASE}/Practitioner/lark", "include"),
    ]


# --- includes


async def test_an_include_comes_once_however_many_matches_refer_to_it(chart):
    answer = await chart.get(
        "Observation?patient=ada&_include=Observation:performer&_include=Observation:subject"
    )
    assert sorted(one for one in answer.ids if "Observation" not in one) == [
        "Patient/ada",
        "Practitioner/lark",
    ]


async def test_an_include_may_be_narrowed_to_a_type(chart):
    found = await chart.get("Observation?_id=o1&_include=Observation:subject:Patient")
    assert found.ids == ["Observation/o1", "Patient/ada"]
    other = await chart.get("Observation?_id=o1&_include=Observation:subject:Group")
    assert other.ids == ["Observation/o1"]


async def test_a_page_has_its_own_includes_and_they_do_not_count(chart):
    query = "_count=1&_sort=-value-quantity&_include=Observation:subject"
    answer = await chart.get(f"Observation?{query}")
    assert answer.ids == ["Observation/k1", "Patient/kit"]
    assert (await chart.get(answer.next)).ids == ["Observation/o9", "Patient/ada"]


async def test_a_revinclude_brings_what_refers_to_the_matches(chart):
    answer = await chart.get("Patient?_id=kit&_revinclude=Observation:patient")
    assert answer.ids == ["Patient/kit", "Observation/k1"]
    both = await chart.get(
        "Patient?_id=kit&_revinclude=Observation:patient&_revinclude=Condition:patient"
    )
    assert both.ids == answer.ids


async def test_what_is_deleted_is_not_included(chart):
    await chart.delete("Practitioner/lark")
    await chart.delete("Observation/k1")
    assert (await chart.get("Observation?_id=o1&_include=Observation:performer")).ids == [
        "Observation/o1"
    ]
    assert (await chart.get("Patient?_id=kit&_revinclude=Observation:patient")).ids == [
        "Patient/kit"
    ]


@pytest.mark.usefixtures("chart")
async def test_an_include_never_brings_what_the_token_may_not_search(ada):
    only = ada.with_scope("patient/Observation.rs")
    found = await only.get(
        "Observation?_id=o1&_include=Observation:performer&_include=Observation:subject"
    )
    assert found.ids == ["Observation/o1"]
    back = await ada.with_scope("patient/Patient.rs").get("Patient?_revinclude=Observation:patient")
    assert back.ids == ["Patient/ada"]


async def test_a_person_is_shown_the_own_record_only_however_it_is_asked(chart, ada):
    await chart.store(an_encounter("e", of="kit"), a_condition("c", of="kit"))
    for query in (
        "Observation?_id=k1",
        "Observation?patient=kit",
        "Observation?subject=Patient/kit",
        "Patient?_id=kit&_revinclude=Observation:patient",
        "Patient?name=arsen",
        "Encounter",
        "Condition?subject=kit",
    ):
        answer = await ada.get(query)
        assert (answer.status, answer.entries) == (200, []), query
    assert (await ada.get("Observation?_summary=count")).json["total"] == 9
    assert len(await ada.everything("Observation?_count=2")) == 9


async def test_a_paging_link_gives_its_bearer_no_more_than_his_own(chart, ada):
    following = (await chart.get("Observation?_count=1&_sort=-value-quantity")).next
    found = await ada.get(following)
    assert found.status == 200
    assert not [one for one in found.ids if one == "Observation/k1"]
    narrowed = ada.with_scope("patient/Patient.rs")
    assert_outcome(await narrowed.get(following), 403, "forbidden")


@pytest.mark.usefixtures("chart")
async def test_a_granular_scope_bounds_search_read_and_includes(ada):
    only = ada.with_scope(
        "patient/Patient.rs patient/Observation.rs?category="
        "http://terminology.hl7.org/CodeSystem/observation-category|laboratory"
    )
    assert await only.everything("Observation?_count=2") == [
        "Observation/o3",
        "Observation/o6",
        "Observation/o9",
    ]
    assert (await only.get("Observation?code=8480-6")).ids == ["Observation/o6"]
    assert (await only.get("Patient?_revinclude=Observation:patient")).ids == [
        "Patient/ada",
        "Observation/o3",
        "Observation/o6",
        "Observation/o9",
    ]
    assert (await only.get("Observation/o3")).status == 200
    assert_outcome(await only.get("Observation/o1"), 404, "not-found")


async def test_a_directory_entry_is_found_when_listed_or_referred_to(chart, ada):
    await chart.store(a_practitioner("listed", meta=DIRECTORY), a_practitioner("unlisted"))
    assert (await ada.get("Practitioner?_sort=_id")).ids == [
        "Practitioner/lark",
        "Practitioner/listed",
    ]


@pytest.mark.parametrize(
    ("query", "named"),
    [
        ("favourite=red", "… is not a search parameter"),
        ("code:above=x", ":above"),
        ("code:text=x", ":text"),
        ("code:=x", "code:"),
        ("date=yesterday", "date"),
        ("date=xx2020", "date"),
        ("date=ge", "date"),
        ("date=2029-13", "date"),
        ("value-quantity=ge", "value-quantity"),
        ("value-quantity=five", "value-quantity"),
        ("value-quantity=1e999999999", "value-quantity"),
        ("value-quantity=NaN", "value-quantity"),
        ("code=", "code"),
        ("code=a,,b", "code"),
        ("code=|", "code"),
        ("patient=Patient/a/b/c", "patient"),
        ("performer:Patient.name=x", "chained"),
        ("patient.name=x", "patient.name"),
        ("_has:Provenance:target:agent=x", "_has"),
        ("performer:missing=maybe", "performer:missing"),
        ("_id=system|x", "_id"),
        ("_id:missing=true", "_id"),
        ("_lastUpdated:not=2020", "_lastUpdated"),
        ("_sort=favourite", "_sort: '…' is not"),
        ("_sort=date,date", "date"),
        ("_sort=", "_sort"),
        ("_sort=-", "_sort"),
        ("_sort=date&_sort=code", "_sort"),
        ("_count=-1", "_count"),
        ("_count=1.5", "_count"),
        ("_count=ten", "_count"),
        ("_count=", "_count"),
        ("_count=1&_count=2", "_count"),
        ("_total=maybe", "_total"),
        ("_summary=true", "_summary"),
        ("_summary=text", "_summary"),
        ("_elements=code", "_elements"),
        ("_include=*", "_include"),
        ("_include=Observation:*", "_include"),
        ("_include=Observation", "_include"),
        ("_include=Observation:code", "_include"),
        ("_include=Observation:favourite", "_include"),
        ("_include=Observation:subject:Encounter", "_include"),
        ("_include=Patient:general-practitioner", "_include"),
        ("_include:iterate=Observation:subject", "_include:iterate"),
        ("_include=Nothing:subject", "_include"),
        ("_revinclude=Patient:general-practitioner", "_revinclude"),
        ("_revinclude=*:*", "_revinclude"),
        ("_text=x", "_text"),
        ("_content=x", "_content"),
        ("_filter=x", "_filter"),
        ("_list=x", "_list"),
        ("_type=Patient", "_type"),
        ("_query=x", "_query"),
        ("component-code-value-quantity=x$1", "component-code-value-quantity"),
        ("$where=1", "… is not a search parameter"),
        ("code[$ne]=x", "… is not a search parameter"),
        ("_page=forged", "paging"),
        ("_page=" + "A" * 5000, "paging"),
        ("code=" + ",".join(map(str, range(MAX_VALUES + 1))), str(MAX_VALUES)),
    ],
)
async def test_what_is_not_understood_is_refused_by_name(ehr, query, named):
    answer = await ehr.get(f"Observation?{query}")
    assert_outcome(answer, 400, "invalid")
    assert named in answer.words[0]


@pytest.mark.parametrize(
    "text",
    [
        "' OR 1=1 --",
        '") OR ("1"="1',
        '{"$gt":""}',
        "%",
        "_",
        "*",
        "a'); DROP TABLE term; --",
        "\\",
        "ada\x00",
        "\U0001f600",
        "x" * 20_000,
    ],
)
async def test_operator_text_in_values_finds_nothing_more(chart, text):
    for parameter in ("name", "name:exact", "name:contains", "identifier", "_id", "organization"):
        answer = await chart.get(f"Patient?{parameter}={quote(text)}")
        assert answer.status in {200, 400}, (parameter, answer.body)
        if answer.status == 200:
            assert answer.entries == []
    assert len((await chart.get("Patient")).entries) == 2


async def test_too_many_revincludes_are_refused_not_cut(ehr, monkeypatch):
    monkeypatch.setattr(search_type, "MAX_INCLUDED", 3)
    await ehr.store(a_patient("ada"), *(an_observation(f"o{n}") for n in range(4)))
    answer = await ehr.get("Patient?_revinclude=Observation:patient")
    assert_outcome(answer, 400, "invalid")
    assert "_count" in answer.words[0]


async def test_a_type_without_an_owner_is_no_part_of_a_record(ehr, ada):
    await ehr.store(resource("Library", "l", status="active", type={"text": "x"}))
    assert_outcome(await ada.get("Library"), 403, "forbidden")
    assert_outcome(await ada.get("Library/l"), 403, "forbidden")


@pytest.mark.parametrize(
    ("name", "parameter", "value"),
    [
        ("Patient", "_id", "id-{}"),
        ("Patient", "_lastUpdated", "{:04}"),
        ("Patient", "name", "name {}"),
        ("Patient", "name:contains", "name {}"),
        ("Patient", "birthdate", "{:04}"),
        ("Observation", "code", "http://loinc.org|{}"),
        ("Observation", "code:not", "{}"),
        ("Observation", "subject", "id-{}"),
        ("Observation", "value-quantity", "{}.5"),
        ("Observation", "date", "ap{:04}-01-01"),
    ],
)
async def test_as_many_values_as_are_allowed_are_searched(chart, name, parameter, value):
    text = ",".join(value.format(n) for n in range(1, MAX_VALUES + 1))
    for more in ("", "&_total=accurate&_sort=-_lastUpdated"):
        answer = await chart.get(f"{name}?{parameter}={text}{more}")
        assert answer.status == 200, answer.body


async def test_a_parameter_may_come_hundreds_of_times(chart):
    answer = await chart.get("Observation?" + "&".join(f"code=c{n}" for n in range(MAX_VALUES)))
    assert (answer.status, answer.entries) == (200, [])
