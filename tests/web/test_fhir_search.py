"""Searches over HTTP: GET and POST, encodings, paging links. Source: FHIR R4 §3.1.1."""

from __future__ import annotations

import pytest

from fhir_portal.search.request import MAX_VALUES
from tests.web.fhir_world import (
    BASE,
    LOINC,
    FhirWorld,
    assert_outcome,
    ids,
    link,
    observation,
    pages,
)


@pytest.fixture
async def charted(fhir: FhirWorld, as_ehr):
    for n in range(7):
        fhir.clock.advance(1)
        body = observation(f"o{n}", value=60 + n, at=f"2020-01-0{n + 1}T10:00:00+01:00")
        assert (await as_ehr.put(f"/fhir/Observation/o{n}", json=body)).status_code == 201
    return as_ehr


async def test_a_post_finds_what_the_get_finds(charted):
    for query in (
        {"patient": "anna", "code": f"{LOINC}|8867-4"},
        {"value-quantity": ["ge62", "lt65"]},
        {"_id": "o1,o2", "_sort": "-date"},
        {},
    ):
        got = await charted.get("/fhir/Observation", params=query)
        posted = await charted.post("/fhir/Observation/_search", data=query)
        assert got.status_code == posted.status_code == 200
        assert posted.content == got.content


async def test_a_reference_may_name_the_server_as_the_searcher_does(charted):
    """By each of its addresses; the condition of a create is a search, too."""
    for base in (BASE, "http://localhost:8000/fhir"):
        found = await charted.get("/fhir/Observation", params={"patient": f"{base}/Patient/anna"})
        assert len(ids(found.json())) == 7
        once = await charted.post(
            "/fhir/Observation",
            json=observation(),
            headers={"If-None-Exist": f"_id=o0&patient={base}/Patient/anna"},
        )
        assert once.status_code == 200
    other = "http://elsewhere.example/fhir/Patient/anna"
    found = await charted.get("/fhir/Observation", params={"patient": other})
    assert ids(found.json()) == []


async def test_parameters_of_the_address_and_of_the_form_count_together(charted):
    response = await charted.post(
        "/fhir/Observation/_search?value-quantity=ge62", data={"value-quantity": "lt65"}
    )
    assert ids(response.json()) == [f"Observation/o{n}" for n in (2, 3, 4)]


async def test_a_form_is_the_only_body_of_a_search(charted):
    for content_type in ("application/fhir+json", "application/json", "text/plain"):
        response = await charted.post(
            "/fhir/Observation/_search",
            content=b'{"code":"x"}',
            headers={"Content-Type": content_type},
        )
        assert_outcome(response, 415, "not-supported")


@pytest.mark.parametrize("raw", [b"name=%ff", b"name=\xff", b"na%fe=x", b"&".join([b"a=b"] * 501)])
async def test_a_query_or_form_that_cannot_be_read_is_400(fhir: FhirWorld, raw):
    assert_outcome(await fhir.raw("GET", b"/fhir/Patient?" + raw), 400, "invalid")
    form = [("Content-Type", "application/x-www-form-urlencoded")]
    answer = await fhir.raw("POST", "/fhir/Patient/_search", headers=form, body=[raw])
    assert_outcome(answer, 400, "invalid")


async def test_a_huge_form_is_413(fhir: FhirWorld):
    form = [("Content-Type", "application/x-www-form-urlencoded")]
    answer = await fhir.raw(
        "POST", "/fhir/Patient/_search", headers=form, body=[b"name=" + b"x" * 1000] * 1100
    )
    assert_outcome(answer, 413, "too-long")


async def test_a_huge_query_is_an_answer_all_the_same(as_ehr):
    ids_ = ",".join(f"id-{n}" for n in range(MAX_VALUES))
    assert (await as_ehr.get(f"/fhir/Patient?_id={ids_}")).status_code == 200
    too_many = await as_ehr.get(f"/fhir/Patient?_id={ids_},one-more")
    assert_outcome(too_many, 400, "invalid")
    long = await as_ehr.get("/fhir/Patient?name=" + "x" * 60_000)
    assert long.status_code == 200


async def test_plus_signs_and_escapes_are_decoded_once(charted):
    encoded = await charted.get("/fhir/Observation?date=ge2020-01-03T10:00:00%2B01:00")
    assert ids(encoded.json()) == [f"Observation/o{n}" for n in range(2, 7)]
    assert_outcome(
        await charted.get("/fhir/Observation?date=ge2020-01-03T10:00:00+01:00"), 400, "invalid"
    )
    twice = await charted.get("/fhir/Observation?code=8867%252D4")
    assert ids(twice.json()) == []


async def test_pages_follow_one_another_by_absolute_links(charted):
    found, self_links = [], set()
    async for page in pages(charted, f"{BASE}/Observation?patient=anna&_count=2&_sort=-date"):
        found += ids(page)
        self_links.add(link(page, "self"))
    assert found == [f"Observation/o{n}" for n in reversed(range(7))]
    assert self_links == {f"{BASE}/Observation?patient=anna&_sort=-date&_count=2"}


async def test_a_walk_begun_by_post_goes_on_by_get(charted):
    first = (await charted.post("/fhir/Observation/_search", data={"_count": "3"})).json()
    assert len(ids(first)) == 3
    assert len(ids((await charted.get(link(first, "next"))).json())) == 3


async def test_paging_links_say_nothing_and_cannot_be_changed(charted):
    first = (await charted.get("/fhir/Observation?patient=anna&_count=2")).json()
    following = link(first, "next") or ""
    assert following.startswith(f"{BASE}/Observation?_page=")
    assert "anna" not in following
    token = following.partition("_page=")[2]
    for forged in (
        token[:-4],
        token[::-1],
        ("A" if token[0] != "A" else "B") + token[1:],
        token + "AAAA",
        "",
    ):
        assert_outcome(await charted.get(f"/fhir/Observation?_page={forged}"), 400, "invalid")
    assert_outcome(await charted.get(f"{following}&patient=ben"), 400, "invalid")
    assert_outcome(await charted.get(f"{following}&_count=200"), 400, "invalid")
    assert_outcome(await charted.get(f"{following}&_page={token}"), 400, "invalid")
    assert_outcome(await charted.get(f"/fhir/Patient?_page={token}"), 400, "invalid")
    shaped = await charted.get(f"{following}&_format=json&_pretty=true")
    assert shaped.status_code == 200


async def test_equal_searches_have_equal_answers(charted):
    answers = {(await charted.get("/fhir/Observation?_count=2")).content for _ in range(3)}
    assert len(answers) == 1


async def test_the_last_page_has_no_next_link(charted):
    bundle = (await charted.get("/fhir/Observation?_count=7")).json()
    assert len(ids(bundle)) == 7
    assert link(bundle, "next") is None


async def test_lenient_and_strict_are_told_apart_per_request(charted):
    for prefer, status in (("handling=lenient", 200), ("handling=strict", 400)):
        for response in (
            await charted.get("/fhir/Observation?x=1", headers={"Prefer": prefer}),
            await charted.post(
                "/fhir/Observation/_search", data={"x": "1"}, headers={"Prefer": prefer}
            ),
        ):
            assert response.status_code == status


@pytest.mark.parametrize(
    "address",
    [
        "Observation?{}=x",
        "Observation?_sort={}",
        "Observation?code:{}=x",
        "Observation?_has:{}:patient:code=x",
        "Observation?patient.{}=x",
        "Observation?_include={}:subject",
        "Observation?_include=Observation:{}",
        "Observation?_include:{}=x",
        "Observation?subject={}/1",
        "{}",
        "{}/x",
    ],
)
@pytest.mark.parametrize("typed", ["Mizifanenenapa", "c2rW8Sv0yGglFnWxlhDExMImv3UDBYSDeXhKc5GGBXk"])
async def test_what_stands_in_the_place_of_a_name_is_neither_repeated_nor_kept(
    fhir: FhirWorld, as_ehr, address: str, typed: str
):
    """A token or somebody's name in the wrong place gets into no answer, and so into no log."""
    response = await as_ehr.get(f"/fhir/{address.format(typed)}")
    assert response.status_code in {400, 404}
    assert typed not in response.text
    rows = await fhir.store.log.of_record(
        "derm", None, agent=None, told=False, low=0, high=2**60, before=None, limit=100
    )
    assert not [one for one in rows if typed in repr(one.row)]


async def test_a_name_that_is_almost_one_is_helped(as_ehr):
    response = await as_ehr.get("/fhir/Observation?pateint=x")
    words = "… is not a search parameter of Observation here. Did you mean patient?"
    assert response.json()["issue"][0]["diagnostics"] == words
