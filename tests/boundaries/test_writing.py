"""Attack stories on writes: nothing stored, nothing told."""

from __future__ import annotations

from typing import Any

import pytest

from tests.builders import (
    BASE,
    DERM,
    RESTRICTED,
    WITHHELD,
    Caller,
    Json,
    a_bundle,
    a_communication,
    a_document,
    a_grant,
    a_patient,
    a_person,
    a_related_person,
    an_ehr,
    an_observation,
    assert_outcome,
    reference,
    resource,
    some_answers,
)


async def everything(as_ehr: Caller) -> dict[str, str]:
    """Every version the practice has, to see that nothing was stored."""
    found: dict[str, str] = {}
    link: str | None = "_history?_count=200"
    while link:
        answer = await as_ehr.get(link)
        for entry in answer.json["entry"]:
            found[f"{entry['fullUrl']} {entry['response']['etag']}"] = str(entry.get("resource"))
        link = answer.next
    return found


@pytest.fixture
async def unchanged(as_ehr: Caller) -> Any:
    before = await everything(as_ehr)
    yield before
    assert await everything(as_ehr) == before


# ---------------------------------------------------------------- refused


@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize(
    "tree",
    [
        a_grant("planted", of="ada", to="mother"),
        a_grant("grant-mother", of="kit", to="mother", sections=["billing"]),
        a_related_person("planted", of="ada"),
        a_person("ada", links=["Patient/ada", "Patient/bo"]),
        a_patient("ada", link=[{"other": reference("Patient/bo"), "type": "seealso"}]),
        an_observation("lab-ada", of="ada"),
        resource(
            "Subscription",
            "s",
            status="active",
            reason="x",
            criteria="Observation",
            channel={"type": "rest-hook"},
        ),
        resource(
            "SearchParameter",
            "sp",
            url="https://x.example/sp",
            name="x",
            status="draft",
            description="x",
            code="x",
            base=["Patient"],
            type="token",
        ),
        resource(
            "Task", "t", status="requested", intent="order", **{"for": reference("Patient/ada")}
        ),
        resource("AuditEvent", "a", recorded="2029-01-01T00:00:00Z"),
    ],
    ids=lambda tree: tree["resourceType"],
)
async def test_what_a_person_does_not_write_is_refused_in_every_way(
    as_ada: Caller, as_mother: Caller, tree: Json
) -> None:
    name = tree["resourceType"]
    status = 405 if name in {"AuditEvent", "Subscription"} else 403
    url = f"{name}/{tree['id']}"
    for caller in (as_ada, as_mother):
        assert (await caller.put(tree)).status == status
        assert (await caller.post(tree)).status == status
        assert (await caller.delete(url)).status == status
        for kind in ("batch", "transaction"):
            for request in (("PUT", url, tree), ("POST", name, tree), ("DELETE", url)):
                answer = await caller.bundle(a_bundle(kind, request))
                if kind == "batch":
                    assert answer.json["entry"][0]["response"]["status"][:3] == str(status)
                else:
                    assert answer.status in {403, 405}


@pytest.mark.usefixtures("unchanged")
async def test_a_write_cannot_move_a_resource_to_another_record(
    as_ada: Caller, as_mother: Caller
) -> None:
    for caller, tree in (
        (as_ada, some_answers("form-ada", of="bo", source="Patient/ada")),
        (as_ada, some_answers("form-ada", of="kit", source="Patient/ada")),
        (as_ada, some_answers(None, of="bo", source="Patient/ada")),
        (as_ada, a_communication(of="bo", sender="Patient/ada")),
        (as_mother, a_communication(of="ada", sender="RelatedPerson/mother")),
    ):
        answer = await (caller.put(tree) if "id" in tree else caller.post(tree))
        assert_outcome(answer, 403, "forbidden")
        assert "bo" not in answer.words[0]


@pytest.mark.usefixtures("unchanged")
async def test_a_write_without_a_subject_belongs_to_nobody_and_is_refused(as_ada: Caller) -> None:
    tree = a_communication(of="ada")
    del tree["subject"]
    assert_outcome(await as_ada.post(tree), 403, "forbidden")


@pytest.mark.usefixtures("unchanged")
async def test_update_of_a_hidden_id_and_of_an_unused_one_have_the_same_answer(
    as_ada: Caller,
) -> None:
    answers = []
    for own_id in ("form-bo", "form-kit", "no-such-form"):
        for headers in ({}, {"if_match": 'W/"1"'}, {"if_none_match": "*"}):
            tree = some_answers(own_id, of="ada", source="Patient/ada")
            answer = await as_ada.put(tree, **headers)
            assert_outcome(answer, 404, "not-found")
            answers.append(answer.body.decode().replace(own_id, "…"))
    assert len(set(answers)) == 1


@pytest.mark.usefixtures("unchanged")
async def test_what_somebody_else_wrote_is_not_overwritten(
    as_ehr: Caller, as_mother: Caller
) -> None:
    acting = as_mother.who(
        record=as_mother.auth.record
        and _with(as_mother.auth.record, act={"forms"}, sections={"forms"})
    )
    tree = some_answers("form-kit", of="kit", source="RelatedPerson/mother")
    assert_outcome(await acting.put(tree), 403, "forbidden")
    del as_ehr


def _with(record: Any, *, act: set[str], sections: set[str]) -> Any:
    from dataclasses import replace  # noqa: PLC0415

    return replace(record, act=frozenset(act), sections=frozenset(sections))


@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize("name", ["security", "tag"])
async def test_labels_are_not_a_persons_to_set_or_take_away(as_ada: Caller, name: str) -> None:
    meta = {"security": RESTRICTED, "tag": WITHHELD}[name]
    assert_outcome(await as_ada.post(a_communication(of="ada", meta=meta)), 403, "forbidden")
    tree = some_answers("form-ada", of="ada", source="Patient/ada", meta=meta)
    answer = await as_ada.put(tree)
    assert_outcome(answer, 403, "forbidden")
    assert answer.json["issue"][0]["expression"] == [f"QuestionnaireResponse.meta.{name}"]


async def test_a_label_that_is_left_out_stays(as_ehr: Caller, as_ada: Caller) -> None:
    labelled = some_answers("form-ada", of="ada", source="Patient/ada", meta=RESTRICTED)
    await as_ehr.store(labelled)
    bare = some_answers("form-ada", of="ada", source="Patient/ada", authored="2029-05-05")
    assert (await as_ada.put(bare)).status == 200
    kept = (await as_ehr.get("QuestionnaireResponse/form-ada")).json
    assert kept["meta"]["security"] == RESTRICTED["security"]
    assert kept["authored"] == "2029-05-05"


async def test_a_label_survives_deletion_and_return(as_ehr: Caller, as_mother: Caller) -> None:
    await as_ehr.store(an_observation("lab-kit", of="kit", category="laboratory", meta=RESTRICTED))
    await as_ehr.delete("Observation/lab-kit")
    await as_ehr.store(an_observation("lab-kit", of="kit", category="laboratory"))
    assert (await as_mother.get("Observation/lab-kit")).status == 404


@pytest.mark.usefixtures("unchanged")
async def test_an_ehr_without_the_labelling_permission_changes_no_label(as_ehr: Caller) -> None:
    plain = Caller(as_ehr.portal, an_ehr(DERM, "none"))
    for tree in (
        an_observation("lab-ada", of="ada", meta=WITHHELD),
        an_observation("fresh", of="ada", meta=RESTRICTED),
        an_observation("kept-ada", of="ada", meta={"tag": [{"system": "urn:x", "code": "free"}]}),
    ):
        assert_outcome(await plain.put(tree), 403, "forbidden")


# ---------------------------------------------------------------- references


@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize(
    "target",
    [
        *("Observation/lab-bo", "Patient/bo", "Observation/kept-ada", "Practitioner/wren"),
        *("Binary/scan-bo", "Consent/grant-mother", "Person/ada", "Observation/no-such-thing"),
        *("NotAType/x", f"{BASE}/Observation/lab-bo", "http://localhost:8000/fhir/Patient/bo"),
        *("Observation/lab-bo/_history/1", "Patient?identifier=x"),
    ],
)
async def test_a_persons_write_refers_only_to_what_they_can_see(
    as_ada: Caller, target: str
) -> None:
    """Otherwise it would tell what exists, or draw another's data into this record."""
    tree = a_communication(of="ada", about=[reference(target)])
    answer = await as_ada.post(tree)
    assert answer.status in {400, 422}, answer.body
    nested = a_communication(
        of="ada", extension=[{"url": "https://x.example", "valueReference": reference(target)}]
    )
    assert (await as_ada.post(nested)).status == answer.status


async def test_hidden_and_absent_targets_have_the_same_answer(as_ada: Caller) -> None:
    bodies = {
        (
            await as_ada.post(a_communication(of="ada", about=[reference(f"Observation/{own_id}")]))
        ).body
        for own_id in ("lab-bo", "kept-ada", "no-such-thing")
    }
    assert len(bodies) == 1


async def test_a_persons_write_may_refer_to_their_own(as_ada: Caller) -> None:
    targets = ("Observation/lab-ada", "Practitioner/lark", "Organization/house", "Patient/ada")
    tree = a_communication(of="ada", about=[reference(target) for target in targets])
    assert (await as_ada.post(tree)).status == 201


@pytest.mark.parametrize("own_id", ["scan-bo", "scan-ada", "no-such-thing"])
async def test_a_persons_write_draws_no_binary_into_the_record(
    as_ehr: Caller, as_ada: Caller, as_bo: Caller, own_id: str
) -> None:
    attached = [
        {"contentAttachment": {"contentType": "application/pdf", "url": f"Binary/{own_id}"}}
    ]
    assert_outcome(
        await as_ada.post(a_communication(of="ada", payload=attached)), 422, "processing"
    )
    assert (await as_bo.get("Binary/scan-bo")).status == 200
    assert (await as_ada.get("Binary/scan-ada")).status == 200
    del as_ehr


# ---------------------------------------------------------------- conditional create


async def test_a_conditional_create_matches_within_what_the_writer_sees(
    as_ehr: Caller, as_ada: Caller
) -> None:
    await as_ehr.store(
        a_communication("theirs", of="bo", sender="Patient/ada"),
        a_communication("kept", of="ada", sender="Patient/ada", meta=WITHHELD),
    )
    await as_ehr.delete("Communication/hello-ada")
    answer = await as_ada.post(a_communication(of="ada"), if_none_exist="sender=Patient/ada")
    assert answer.status == 201
    again = await as_ada.post(a_communication(of="ada"), if_none_exist="sender=Patient/ada")
    assert (again.status, again.json["id"]) == (200, answer.json["id"])


@pytest.mark.parametrize(
    "condition", ["", "_count=1", "_sort=date", "_include=Communication:sender", "x=y", "_id=", "?"]
)
@pytest.mark.usefixtures("unchanged")
async def test_a_condition_that_conditions_nothing_is_refused(
    as_ada: Caller, condition: str
) -> None:
    answer = await as_ada.post(a_communication(of="ada"), if_none_exist=condition)
    assert_outcome(answer, 400, "invalid")


@pytest.mark.usefixtures("unchanged")
async def test_a_conditional_create_needs_the_right_to_search(as_ada: Caller) -> None:
    blind = as_ada.with_scope("patient/Communication.c")
    answer = await blind.post(a_communication(of="ada"), if_none_exist="sender=Patient/ada")
    assert_outcome(answer, 403, "forbidden")


# ---------------------------------------------------------------- practices


async def test_create_by_update_of_an_id_in_use_elsewhere_makes_an_own_one(
    as_ehr: Caller, other_ehr: Caller
) -> None:
    """Neither the status nor the version tells that another practice has it."""
    answer = await as_ehr.put(an_observation("elsewhere", of="ada"))
    fresh = await as_ehr.put(an_observation("nowhere", of="ada"))
    assert (answer.status, answer.json["meta"]["versionId"]) == (201, "1")
    assert fresh.status == answer.status
    untouched = (await other_ehr.get("Observation/elsewhere")).json
    assert untouched["subject"] == reference("Patient/kit")


async def test_an_ehr_deletes_nothing_of_another_practice(
    as_ehr: Caller, other_ehr: Caller
) -> None:
    assert_outcome(await as_ehr.delete("Observation/elsewhere"), 404, "not-found")
    assert (await other_ehr.get("Observation/elsewhere")).status == 200


async def test_what_all_practices_share_is_not_one_practices_to_change(
    as_ehr: Caller, front_door: Any
) -> None:
    shared = Caller(front_door, an_ehr("shared"))
    await shared.store(resource("Organization", "union", name="Union"))
    assert (await as_ehr.get("Organization/union")).status == 200
    assert (await as_ehr.delete("Organization/union")).status == 404
    await as_ehr.put(resource("Organization", "union", name="Ours"))
    assert (await shared.get("Organization/union")).json["name"] == "Union"


async def test_an_ehr_with_granular_scopes_writes_inside_them_only(as_ehr: Caller) -> None:
    from tests.builders import OBSERVATION_CATEGORY  # noqa: PLC0415

    vitals = as_ehr.with_scope(
        f"system/Observation.cruds?category={OBSERVATION_CATEGORY}|vital-signs"
    )
    assert (await vitals.post(an_observation(of="ada"))).status == 201
    assert (await vitals.post(an_observation(of="ada", category="laboratory"))).status == 403
    assert (
        await vitals.put(an_observation("pulse-ada", of="ada", category="laboratory"))
    ).status == 403
    assert (await vitals.put(an_observation("lab-ada", of="ada"))).status == 404
    assert (await vitals.delete("Observation/lab-ada")).status == 404


# ---------------------------------------------------------------- transactions


async def test_a_transaction_with_one_bad_entry_stores_none(as_ehr: Caller, as_ada: Caller) -> None:
    before = await everything(as_ehr)
    good: Any = ("POST", "Communication", a_communication(of="ada"))
    for bad in (
        ("POST", "Communication", a_communication(of="bo")),
        ("PUT", "QuestionnaireResponse/form-bo", some_answers("form-bo", of="ada")),
        ("DELETE", "Communication/hello-ada"),
        ("GET", "Observation/lab-bo"),
        ("POST", "Communication", a_communication(of="ada", about=[reference("Patient/bo")])),
    ):
        answer = await as_ada.bundle(a_bundle("transaction", good, bad))
        assert answer.status >= 400
        assert answer.json["issue"][0]["expression"][0].startswith("Bundle.entry[1]")
    assert await everything(as_ehr) == before


async def test_references_between_entries_reach_only_these_entries(
    as_ada: Caller, as_ehr: Caller
) -> None:
    first = "urn:uuid:11111111-1111-1111-1111-111111111111"
    bundle = a_bundle(
        "transaction",
        ("POST", "QuestionnaireResponse", some_answers(None, of="ada")),
        ("POST", "Communication", a_communication(of="ada", about=[reference(first)])),
    )
    bundle["entry"][0]["fullUrl"] = first
    answer = await as_ada.bundle(bundle)
    assert answer.status in {200, 422}
    before = await everything(as_ehr)
    bundle["entry"][1]["resource"]["about"] = [
        reference("urn:uuid:22222222-2222-2222-2222-222222222222")
    ]
    assert (await as_ada.bundle(bundle)).status == 400
    assert await everything(as_ehr) == before


async def test_a_full_url_cannot_stand_for_somebody_elses_resource(
    as_ada: Caller, as_ehr: Caller
) -> None:
    """A client's fullUrl that looks like a hidden resource maps to the entry, not to that."""
    bundle = a_bundle("transaction", ("POST", "Communication", a_communication(of="ada")))
    bundle["entry"][0]["fullUrl"] = f"{BASE}/Communication/hello-bo"
    answer = await as_ada.bundle(bundle)
    assert answer.status == 200
    assert (await as_ehr.get("Communication/hello-bo")).json["meta"]["versionId"] == "1"


async def test_server_ids_are_not_the_clients_to_choose(as_ada: Caller) -> None:
    tree = a_communication("hello-bo", of="ada")
    answer = await as_ada.post(tree)
    assert answer.status == 201
    assert answer.json["id"] != "hello-bo"


async def test_a_document_by_an_ehr_cannot_name_its_owner_for_the_server(
    as_ehr: Caller, as_ada: Caller
) -> None:
    """Owner and practice keys are the server's: nothing a client sends is taken for them."""
    tree = a_document("smuggle", of="bo")
    tree["meta"] = {"tag": [{"system": "urn:fhir-portal:owner", "code": "ada"}]}
    tree["extension"] = [{"url": "urn:fhir-portal:practice", "valueString": "family-medicine"}]
    await as_ehr.store(tree)
    assert (await as_ada.get("DocumentReference/smuggle")).status == 404
