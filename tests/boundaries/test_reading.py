"""Attack stories on reads and searches: what is hidden and what is absent look the same."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from fhir_portal.search.registry import repeated
from tests.builders import (
    BASE,
    OBSERVATION_CATEGORY,
    WITHHELD,
    Answer,
    Caller,
    a_binary,
    a_bundle,
    a_condition,
    a_document,
    a_practitioner,
    a_provenance,
    an_appointment,
    an_observation,
    assert_outcome,
    reference,
)

VITALS = f"patient/Observation.rs?category={OBSERVATION_CATEGORY}|vital-signs"
HIDDEN_FROM_ADA = [
    *("Patient/bo", "Observation/lab-bo", "Binary/scan-bo", "DocumentReference/letter-bo"),
    *("Provenance/source-bo", "Condition/rash-bo", "Observation/kept-ada", "Practitioner/wren"),
    *("RelatedPerson/mother", "Consent/grant-mother", "Communication/hello-bo"),
]


def worded(answer: Answer, own_id: str) -> str:
    """The whole answer with the id it was asked for taken out."""
    return f"{answer.status} {answer.body.decode().replace(own_id, '…')}"


@pytest.mark.parametrize("key", HIDDEN_FROM_ADA)
@pytest.mark.parametrize("path", ["", "/_history", "/_history/1", "/_history/9"])
async def test_hidden_and_absent_have_the_same_answer(as_ada: Caller, key: str, path: str) -> None:
    name, _, own_id = key.partition("/")
    hidden = await as_ada.get(f"{key}{path}")
    absent = await as_ada.get(f"{name}/no-such-thing{path}")
    assert hidden.status == 404
    assert worded(hidden, own_id) == worded(absent, "no-such-thing")


async def test_a_deletion_in_another_record_is_not_told(as_ehr: Caller, as_ada: Caller) -> None:
    await as_ehr.delete("Condition/rash-bo")
    await as_ehr.delete("Condition/rash-ada")
    assert_outcome(await as_ada.get("Condition/rash-bo"), 404, "not-found")
    assert_outcome(await as_ada.get("Condition/rash-ada"), 410, "deleted")


async def test_a_scope_is_checked_before_anything_is_looked_up(as_ada: Caller) -> None:
    """403 or 404 must not tell whether something is there."""
    narrow = as_ada.with_scope("patient/Patient.rs")
    answers = [
        await narrow.get(f"Observation/{own_id}")
        for own_id in ("lab-ada", "lab-bo", "kept-ada", "no-such-thing")
    ]
    assert {answer.status for answer in answers} == {403}
    assert len({answer.body for answer in answers}) == 1


async def test_a_patient_token_finds_its_own_patient_and_nobody_else(as_ada: Caller) -> None:
    assert await as_ada.everything("Patient") == ["Patient/ada"]
    assert await as_ada.everything("Patient?_id=ada,bo,kit") == ["Patient/ada"]
    assert await as_ada.everything("Patient?family=Berg") == []


async def test_a_list_of_patients_in_a_query_widens_nothing(as_ada: Caller) -> None:
    for query in (
        "patient=Patient/bo",
        "patient=Patient/ada,Patient/bo",
        "subject=Patient/bo,Patient/kit",
        f"patient={BASE}/Patient/bo",
        "patient=bo",
        "patient:missing=false",
        "code:not=x",
        "",
    ):
        found = await as_ada.everything(f"Observation?{query}")
        assert set(found) <= {"Observation/pulse-ada", "Observation/lab-ada"}, query


@pytest.mark.parametrize(
    "query",
    [
        "_has:Provenance:target:agent=x",
        "subject.name=Berg",
        "subject:Patient.name=Berg",
        "_filter=subject eq Patient/bo",
        "_include=*",
        "_include:iterate=Observation:subject",
        "_revinclude=*",
        "_compartment=Patient/bo",
        "_type=Patient",
        "_contained=both",
        "owners=bo",
        "practice=family-medicine",
    ],
)
async def test_what_could_ask_about_hidden_data_is_refused_by_name(
    as_ada: Caller, query: str
) -> None:
    answer = await as_ada.get(f"Observation?{query}")
    assert_outcome(answer, 400, "invalid")
    name = query.partition("=")[0].partition(":")[0].partition(".")[0]
    assert repeated(name) in answer.words[0]


@pytest.mark.parametrize("query", ["_tag=withheld", "_security=R", "_tag:missing=false"])
async def test_labels_can_be_searched_on_what_is_visible_only(as_ada: Caller, query: str) -> None:
    answer = await as_ada.get(f"Observation?{query}&_total=accurate")
    assert (answer.status, answer.ids, answer.json["total"]) == (200, [], 0)


async def test_a_lenient_search_cannot_drop_what_bounds_it(as_ada: Caller) -> None:
    answer = await as_ada.get("Observation?no-such-parameter=1", lenient=True)
    assert sorted(answer.ids) == ["Observation/lab-ada", "Observation/pulse-ada"]


# ---------------------------------------------------------------- include and revinclude


async def test_include_does_not_leave_the_record(as_ehr: Caller, as_ada: Caller) -> None:
    """Given my Observation that points at another's, an include brings only mine."""
    await as_ehr.store(
        an_observation(
            "mine",
            of="ada",
            derivedFrom=[reference(f"Observation/{one}") for one in ("lab-bo", "lab-ada")],
            performer="Patient/bo",
        ),
        an_observation("shadow", of="ada", derivedFrom=[reference("Observation/kept-ada")]),
    )
    assert (await as_ada.get("Observation/shadow")).status == 404
    found = await as_ada.everything(
        "Observation?_id=mine&_include=Observation:derived-from&_include=Observation:performer"
        "&_include=Observation:subject"
    )
    assert found == ["Observation/mine", "Observation/lab-ada", "Patient/ada"]


async def test_include_brings_no_type_the_token_may_not_search(as_ada: Caller) -> None:
    for scope in ("patient/Observation.rs", "patient/Observation.rs patient/Patient.r"):
        found = await as_ada.with_scope(scope).everything(
            "Observation?_include=Observation:subject"
        )
        assert set(found) == {"Observation/pulse-ada", "Observation/lab-ada"}


async def test_a_proxy_includes_no_patient_without_demographics(as_mother: Caller) -> None:
    found = await as_mother.everything("Observation?_include=Observation:patient")
    assert set(found) == {"Observation/pulse-kit", "Observation/lab-kit"}


async def test_revinclude_of_another_patients_provenance_brings_only_mine(
    as_ehr: Caller, as_ada: Caller
) -> None:
    """Given another's Provenance pointing at my Observation, my Bundle holds only mine."""
    await as_ehr.store(
        a_provenance("both", about=["Observation/lab-ada", "Observation/lab-bo"]),
        a_provenance("labelled", about=["Observation/lab-ada"], meta=WITHHELD),
        a_provenance("secret", about=["Observation/lab-ada", "Observation/kept-ada"]),
    )
    found = await as_ada.everything("Observation?_id=lab-ada&_revinclude=Provenance:target")
    assert found == ["Observation/lab-ada", "Provenance/source-ada"]


async def test_revinclude_from_a_practitioner_brings_only_mine(
    as_ehr: Caller, as_ada: Caller
) -> None:
    await as_ehr.store(an_observation("bo-by-lark", of="bo", performer="Practitioner/lark"))
    found = await as_ada.everything("Practitioner?_revinclude=Observation:performer")
    assert found == ["Practitioner/lark", "Observation/pulse-ada"]


async def test_granular_scopes_hold_for_includes_too(as_ehr: Caller, as_ada: Caller) -> None:
    await as_ehr.store(
        an_observation("sum", of="ada", derivedFrom=[reference("Observation/lab-ada")]),
        a_provenance("vital", about=["Observation/pulse-ada"]),
    )
    narrow = as_ada.with_scope(f"{VITALS} patient/Provenance.rs")
    found = await narrow.everything("Observation?_include=Observation:derived-from")
    assert sorted(found) == ["Observation/pulse-ada", "Observation/sum"]
    found = await narrow.everything("Provenance?_include=Provenance:target")
    assert "Observation/lab-ada" not in found
    assert "Observation/pulse-ada" in found


# ---------------------------------------------------------------- paging links


async def page_two(caller: Caller, url: str) -> str:
    following = (await caller.get(url)).next
    assert following is not None
    return following


async def test_another_tokens_paging_link_gives_ones_own_data(
    as_ehr: Caller, as_ada: Caller, as_bo: Caller
) -> None:
    for link in (
        await page_two(as_ehr, "Observation?_count=1"),
        await page_two(as_bo, "Observation?_count=1&_sort=-date"),
    ):
        answer = await as_ada.get(link)
        assert answer.status == 200
        assert set(answer.ids) <= {"Observation/lab-ada", "Observation/pulse-ada"}


async def test_a_paging_link_does_not_outlive_the_scope(as_ada: Caller) -> None:
    link = await page_two(as_ada, "Observation?_count=1")
    assert_outcome(await as_ada.with_scope("patient/Patient.rs").get(link), 403, "forbidden")
    rest = await as_ada.with_scope(f"{VITALS}").get(link)
    assert "Observation/lab-ada" not in rest.ids


async def test_a_paging_link_is_for_its_own_type(as_ada: Caller) -> None:
    link = await page_two(as_ada, "Observation?_count=1")
    for other in ("Condition", "Patient", "AuditEvent", "_history", "Observation/lab-ada/_history"):
        moved = link.replace("/Observation?", f"/{other}?")
        assert_outcome(await as_ada.get(moved), 400, "invalid")


async def test_a_paging_link_cannot_be_read_forged_or_added_to(as_ada: Caller) -> None:
    link = await page_two(as_ada, "Observation?_count=1&_sort=date")
    token = link.partition("_page=")[2]
    raw = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4))
    for word in (b"lab-ada", b"pulse-ada", b"date", b"2029", b"_count"):
        assert word not in raw
    for position in (0, len(raw) // 2, len(raw) - 1):
        changed = bytearray(raw)
        changed[position] ^= 1
        forged = base64.urlsafe_b64encode(bytes(changed)).decode().rstrip("=")
        assert_outcome(await as_ada.get(f"Observation?_page={forged}"), 400, "invalid")
    for other in ("", "x", "%", "é", "=" * 9, token[:-4], token * 2):
        assert_outcome(await as_ada.get(f"Observation?_page={other}"), 400, "invalid")
    assert_outcome(await as_ada.get(f"{link}&_count=100"), 400, "invalid")


async def test_equal_pages_have_equal_links(as_ehr: Caller, as_ada: Caller) -> None:
    before = await page_two(as_ada, "Observation?_count=1&_sort=date")
    await as_ehr.store(an_observation("other", of="bo"))
    assert await page_two(as_ada, "Observation?_count=1&_sort=date") == before


# ---------------------------------------------------------------- totals, versions, history


async def test_totals_count_what_is_visible(as_ada: Caller, as_mother: Caller) -> None:
    assert (await as_ada.get("Observation?_total=accurate")).json["total"] == 2
    assert (await as_ada.get("Observation?_summary=count&patient=Patient/bo")).json["total"] == 0
    assert (await as_mother.get("Condition?_summary=count")).json["total"] == 0


async def test_no_id_etag_or_link_counts_what_others_do(as_ehr: Caller, as_ada: Caller) -> None:
    before = [await as_ada.get(url) for url in ("Observation/lab-ada", "Observation")]
    for n in range(5):
        await as_ehr.store(an_observation(f"n{n}", of="bo"))
    after = [await as_ada.get(url) for url in ("Observation/lab-ada", "Observation")]
    assert [one.body for one in before] == [one.body for one in after]


async def test_versions_from_before_a_move_stay_hidden(as_ehr: Caller, as_ada: Caller) -> None:
    await as_ehr.store(an_observation("moved", of="bo", value=1), an_observation("moved", of="ada"))
    assert (await as_ada.get("Observation/moved")).status == 200
    assert (await as_ada.get("Observation/moved/_history/1")).status == 404
    history = (await as_ada.get("Observation/moved/_history")).json
    assert (history["total"], len(history["entry"])) == (1, 1)


async def test_versions_from_before_a_label_go_with_it(as_ehr: Caller, as_ada: Caller) -> None:
    await as_ehr.store(an_observation("lab-ada", of="ada", meta=WITHHELD))
    for url in ("", "/_history", "/_history/1", "/_history/2"):
        assert (await as_ada.get(f"Observation/lab-ada{url}")).status == 404


async def test_system_history_is_ones_own(
    as_ada: Caller, as_mother: Caller, as_ehr: Caller
) -> None:
    await as_ehr.store(an_observation("lab-bo", of="bo", value=5))

    async def keys(caller: Caller) -> set[str]:
        found: set[str] = set()
        link: str | None = "_history?_count=7"
        while link:
            answer = await caller.get(link)
            assert answer.status == 200
            found |= {e["fullUrl"].removeprefix(f"{BASE}/") for e in answer.json["entry"]}
            link = answer.next
        return found

    mine = await keys(as_ada)
    assert "Observation/lab-ada" in mine
    assert not {key for key in mine if key.endswith(("-bo", "-kit", "/bo", "/kit", "kept-ada"))}
    kits = await keys(as_mother)
    assert {key for key in kits if key.startswith("Observation")} == {
        "Observation/pulse-kit",
        "Observation/lab-kit",
    }
    assert "Patient/kit" not in kits
    assert "Consent/grant-father" not in kits
    assert_outcome(await as_ada.with_scope("openid").get("_history"), 403, "forbidden")


# ---------------------------------------------------------------- bundles


async def test_entries_of_a_batch_have_no_side_door(as_ada: Caller) -> None:
    urls = [
        *HIDDEN_FROM_ADA,
        "Patient/bo/_history/1",
        "Observation?patient=Patient/bo",
        "Person/ada",
    ]
    answer = await as_ada.bundle(a_bundle("batch", *(("GET", url) for url in urls)))
    assert answer.status == 200
    for url, entry in zip(urls, answer.json["entry"], strict=True):
        status = entry["response"]["status"][:3]
        if "?" in url:
            assert (status, "entry" in entry["resource"]) == ("200", False)
        else:
            assert status == ("403" if url.startswith("Person") else "404")
            assert "resource" not in entry


async def test_reads_in_a_transaction_have_no_side_door(as_ada: Caller) -> None:
    for url in ("Observation/lab-bo", "Binary/scan-bo", "Observation/kept-ada"):
        answer = await as_ada.bundle(a_bundle("transaction", ("GET", url)))
        assert_outcome(answer, 404, "not-found")
    answer = await as_ada.bundle(
        a_bundle("transaction", ("GET", "Observation?_include=Observation:subject"))
    )
    found = {e["resource"]["id"] for e in answer.json["entry"][0]["resource"]["entry"]}
    assert found == {"lab-ada", "pulse-ada", "ada"}


async def test_a_batch_within_a_batch_is_refused(as_ada: Caller) -> None:
    inner = a_bundle("batch", ("GET", "Patient/bo"))
    answer = await as_ada.bundle(a_bundle("batch", ("POST", "", inner)))
    assert answer.json["entry"][0]["response"]["status"].startswith("40")


# ---------------------------------------------------------------- Binary


async def test_bytes_are_seen_through_the_document_they_belong_to(
    as_ehr: Caller, as_ada: Caller, as_mother: Caller
) -> None:
    assert (await as_ada.get("Binary/scan-ada")).status == 200
    assert (await as_ada.get("Binary/scan-bo")).status == 404
    assert (await as_mother.get("Binary/scan-kit")).status == 404  # documents were not granted
    await as_ehr.store(a_binary("loose"))
    assert (await as_ada.get("Binary/loose")).status == 404


async def test_a_binary_named_by_documents_of_two_people_is_shown_to_neither(
    as_ehr: Caller, as_ada: Caller, as_bo: Caller
) -> None:
    await as_ehr.store(a_document("theft", of="bo", binary="scan-ada"))
    assert (await as_bo.get("Binary/scan-ada")).status == 404
    assert (await as_ada.get("Binary/scan-ada")).status == 404


async def test_withholding_the_document_withholds_its_bytes(as_ehr: Caller, as_ada: Caller) -> None:
    await as_ehr.store(a_document("letter-ada", of="ada", binary="scan-ada", meta=WITHHELD))
    assert (await as_ada.get("Binary/scan-ada")).status == 404
    assert (await as_ada.get("Binary/scan-ada/_history/1")).status == 404
    assert await as_ada.everything("Binary") == []


# ---------------------------------------------------------------- neighbours


async def test_staff_are_seen_through_ones_own_data(as_ehr: Caller, as_ada: Caller) -> None:
    assert (await as_ada.get("Practitioner/lark")).status == 200
    assert await as_ada.everything("Practitioner") == ["Practitioner/lark"]
    await as_ehr.store(
        a_practitioner("secret"),
        an_observation("kept-ada", of="ada", performer="Practitioner/secret", meta=WITHHELD),
    )
    assert (await as_ada.get("Practitioner/secret")).status == 404


async def test_an_appointment_of_two_patients_is_not_shown_to_either(
    as_ehr: Caller, as_ada: Caller, as_bo: Caller
) -> None:
    await as_ehr.store(an_appointment("group", of=["ada", "bo"]))
    for caller in (as_ada, as_bo):
        assert (await caller.get("Appointment/group")).status == 404
        assert await caller.everything("Appointment") == []


async def test_nothing_in_contained_resources_decides_whose_it_is(
    as_ehr: Caller, as_ada: Caller
) -> None:
    inner = an_observation("inner", of="ada")
    evidence = [{"detail": [reference("#inner")]}]
    await as_ehr.store(a_condition("smuggled", of="bo", contained=[inner], evidence=evidence))
    assert (await as_ada.get("Condition/smuggled")).status == 404


@pytest.mark.parametrize("scope", ["patient/*.rs", "patient/*.cruds", "patient/*.*"])
async def test_person_is_in_no_answer_to_a_patient(as_ada: Caller, scope: str) -> None:
    caller = as_ada.with_scope(scope)
    for url in ("Person", "Person/ada", "Person/ada/_history", "Person?link=Patient/ada"):
        assert (await caller.get(url)).status == 403
    found = await caller.everything("Patient?_revinclude=Person:link")
    assert found == ["Patient/ada"]


async def test_an_ehr_sees_its_own_practice_only(as_ehr: Caller, other_ehr: Caller) -> None:
    assert (await as_ehr.get("Observation/elsewhere")).status == 404
    assert (await other_ehr.get("Observation/pulse-kit")).status == 404
    there = (await other_ehr.get("Observation/lab-kit")).json
    here = (await as_ehr.get("Observation/lab-kit")).json
    assert (there["valueQuantity"]["value"], here["valueQuantity"]["value"]) == (999, 72)
    ids = await other_ehr.everything("Observation")
    assert sorted(ids) == ["Observation/elsewhere", "Observation/lab-kit"]


async def test_a_proxys_token_does_not_reach_the_childs_namesake_elsewhere(
    as_mother: Caller,
) -> None:
    assert (await as_mother.get("Observation/elsewhere")).status == 404
    assert (await as_mother.get("Observation/lab-kit")).json["valueQuantity"]["value"] == 72


# ---------------------------------------------------------------- the log


def what_of(answer: Answer) -> list[str]:
    found = []
    for line in answer.entries:
        for entity in line.get("entity", ()):
            if "query" in entity:
                found.append(base64.b64decode(entity["query"]).decode())
            found.append(entity.get("what", {}).get("reference", ""))
    return found


async def test_a_person_sees_who_looked_and_a_proxy_only_their_own_lines(
    as_ehr: Caller, as_mother: Caller, as_father: Caller, front_door: Any
) -> None:
    await as_mother.get("Observation/lab-kit")
    await as_father.get("Encounter/visit-kit")
    await as_ehr.get("Observation/lab-kit")
    mothers = what_of(await as_mother.get("AuditEvent?_count=100"))
    assert "Observation/lab-kit" in mothers
    assert "Encounter/visit-kit" not in mothers
    fathers = await as_father.get("AuditEvent?_count=100")
    agents = {a["who"].get("reference") for line in fathers.entries for a in line["agent"]}
    assert agents == {"RelatedPerson/father", None}
    from tests.builders import oneself  # noqa: PLC0415

    kit = Caller(front_door, oneself("kit"))
    whole = what_of(await kit.get("AuditEvent?_count=200"))
    assert {"Observation/lab-kit", "Encounter/visit-kit"} <= set(whole)


async def test_the_log_does_not_tell_a_person_of_what_is_hidden_from_them(
    as_ehr: Caller, as_ada: Caller
) -> None:
    await as_ehr.store(
        an_observation("kept-ada", of="ada", meta=WITHHELD, value=3),
        an_appointment("group", of=["ada", "bo"]),
    )
    await as_ehr.get("Observation/kept-ada")
    told = what_of(await as_ada.get("AuditEvent?_count=200"))
    assert not {"Observation/kept-ada", "Appointment/group"} & set(told)
    practice = what_of(await as_ehr.get("AuditEvent?_count=200"))
    assert {"Observation/kept-ada", "Appointment/group"} <= set(practice)


async def test_the_log_does_not_show_what_others_searched_for(
    as_ehr: Caller, as_ada: Caller
) -> None:
    """An EHR's search may name another patient."""
    await as_ehr.get("Observation?patient=Patient/ada,Patient/bo")
    await as_ada.get("Observation?code=8867-4")
    told = what_of(await as_ada.get("AuditEvent?_count=200"))
    assert "Observation?code=8867-4" in told
    assert not [one for one in told if "bo" in one]


async def test_a_line_of_anothers_log_is_not_there(as_ada: Caller, as_bo: Caller) -> None:
    await as_bo.get("Patient/bo")
    line = (await as_bo.get("AuditEvent?_count=1")).entries[0]
    assert (await as_bo.get(f"AuditEvent/{line['id']}")).status == 200
    assert_outcome(await as_ada.get(f"AuditEvent/{line['id']}"), 404, "not-found")


async def test_refusals_are_logged_with_their_reason_and_shown_to_the_person(
    as_ada: Caller,
) -> None:
    await as_ada.get("Observation/lab-bo")
    line = (await as_ada.get("AuditEvent?_count=1")).entries[0]
    assert line["outcome"] == "4"
    assert json.dumps(line).count("lab-bo") > 0  # their own question, in their own log
