"""$labels, $label, $release, $hold-back: for staff, on one record, with a reason that is kept."""

from __future__ import annotations

from typing import Any

import pytest

from fhir_portal.resources.hand_labels import HandLabels
from fhir_portal.resources.release import Release
from tests.access.test_closure import labels
from tests.builders import (
    DERM,
    FAMILY,
    RESTRICTED,
    WITHHELD,
    Caller,
    Clock,
    Json,
    a_communication,
    a_patient,
    a_portal,
    a_practitioner,
    a_proxy,
    a_task,
    an_ehr,
    an_encounter,
    an_observation,
    oneself,
    reference,
)
from tests.operations.test_label_rules import WAITS, a_report, a_result, iso, set_to
from tests.staff import a_member_of_staff

R = {"system": "http://terminology.hl7.org/CodeSystem/v3-Confidentiality", "code": "R"}
N = {"system": "http://terminology.hl7.org/CodeSystem/v3-Confidentiality", "code": "N"}
SDV = {"system": "http://terminology.hl7.org/CodeSystem/v3-ActCode", "code": "SDV"}
VISIT = reference("Encounter/visit")


@pytest.fixture
def portal(store: Any, clock: Clock) -> Any:
    return a_portal(store, clock)


@pytest.fixture
async def staff(portal: Any, ehr: Caller) -> Caller:
    await ehr.store(
        a_practitioner("desk"),
        a_patient("ada"),
        a_patient("bo"),
        an_encounter("visit"),
        an_observation("there", encounter=VISIT),
        an_observation("of-bo", of="bo"),
    )
    await Caller(portal, an_ehr(FAMILY)).store(a_patient("ada"), an_observation("elsewhere"))
    return Caller(portal, a_member_of_staff("desk", permissions=("view", "documents")))


async def called(caller: Caller, code: str, resource: str, **given: Any) -> Any:
    listed: list[Json] = [{"name": "resource", "valueReference": reference(resource)}]
    for name, value in given.items():
        for one in value if isinstance(value, list) else [value]:
            kind = "valueCoding" if isinstance(one, dict) else "valueString"
            kind = "valueCode" if name == "exception" else kind
            listed.append({"name": name, kind: one})
    tree = {"resourceType": "Parameters", "parameter": listed}
    return await caller.ask("POST", f"Patient/ada/${code}", tree)


def told(answer: Any) -> list[dict[str, Any]]:
    def value(one: Json) -> Any:
        return next(v for name, v in one.items() if name.startswith("value"))

    return [
        {part["name"]: value(part) for part in one["part"]}
        for one in answer.json.get("parameter", [])
    ]


async def test_a_label_by_hand_reaches_what_refers_to_it_and_is_taken_away_again(
    store: Any, ehr: Caller, staff: Caller
) -> None:
    answer = await called(staff, "label", "Encounter/visit", add=[R, SDV], reason="asked by Ada")
    assert answer.status == 200, answer.body
    assert [one["valueCode"] for one in answer.json["parameter"]] == ["R", "SDV"]
    assert await labels(store, "Observation/there") == [{"R", "SDV"}]
    (written,) = (await ehr.get("Provenance?target=Encounter/visit")).entries
    assert written["reason"] == [{"text": "asked by Ada"}]
    assert written["agent"][0]["who"]["reference"] == "Practitioner/desk"
    assert await labels(store, f"Provenance/{written['id']}") == [{"R", "SDV", "withheld"}]
    why = told(await called(staff, "labels", "Observation/there"))
    assert why == [{"code": code, "source": "reference", "from": VISIT} for code in ("R", "SDV")]
    not_here = await called(staff, "label", "Observation/there", remove=R, reason="no")
    assert not_here.status == 422
    answer = await called(staff, "label", "Encounter/visit", remove=[R, SDV], reason="a mistake")
    assert answer.status == 200
    assert await labels(store, "Observation/there", "Encounter/visit") == [set(), set()]


async def test_a_label_by_hand_stays_whatever_the_ehr_sends(
    store: Any, ehr: Caller, staff: Caller
) -> None:
    """One that may label sends its own labels with each update, and knows nothing of this one."""
    sent = an_encounter("visit", meta={"security": [SDV]})
    await ehr.store(sent)
    assert (await called(staff, "label", "Encounter/visit", add=R, reason="Ada")).status == 200
    await ehr.store(sent)
    assert await labels(store, "Encounter/visit", "Observation/there") == [{"R", "SDV"}] * 2
    assert (await ehr.get("Encounter/visit")).json["meta"]["security"] == [SDV, R]
    assert [one.key for one in await store.every(HandLabels)] == [f"{DERM}/Encounter/visit"]
    # What the EHR put there itself it takes away; and a deletion is no way around it.
    await ehr.store(an_encounter("visit", meta={"security": [N]}))
    assert await labels(store, "Encounter/visit") == [{"R"}]
    await ehr.delete("Encounter/visit")
    await ehr.store(an_encounter("visit", meta={"security": [N]}))
    assert await labels(store, "Encounter/visit") == [{"R"}]
    bundle = {
        "resourceType": "Bundle",
        "type": "transaction",
        "entry": [
            {
                "resource": an_encounter("visit", meta={"security": [SDV]}),
                "request": {"method": "PUT", "url": "Encounter/visit"},
            }
        ],
    }
    assert (await ehr.ask("POST", "", bundle)).status == 200
    assert await labels(store, "Encounter/visit") == [{"R", "SDV"}]
    # Staff take it away, and then it is gone.
    assert (await called(staff, "label", "Encounter/visit", remove=R, reason="Ada")).status == 200
    assert await store.every(HandLabels) == []
    await ehr.store(sent)
    assert await labels(store, "Encounter/visit") == [{"SDV"}]


async def test_a_label_that_both_put_there_stays_when_the_ehr_leaves_it_out(
    store: Any, ehr: Caller, staff: Caller
) -> None:
    await ehr.store(an_encounter("visit", meta={"security": [R]}))
    assert (await called(staff, "label", "Encounter/visit", add=R, reason="Ada")).status == 200
    await ehr.store(an_encounter("visit", meta={"security": [N]}))
    assert await labels(store, "Encounter/visit") == [{"R"}]


@pytest.mark.requirement("portal", "S2-07")
async def test_a_result_is_held_back_without_a_version_and_released_with_one(
    store: Any, portal: Any, ehr: Caller, staff: Caller
) -> None:
    ada = Caller(portal, oneself("ada"))
    held = {"reason": "the doctor calls first", "exception": "preventing-harm"}
    assert (await called(staff, "hold-back", "Observation/there", **held)).status == 200
    assert (await ada.get("Observation/there")).status == 404
    assert (await ada.get("Observation?_total=accurate")).json["total"] == 0
    release = await store.get(Release, f"{DERM}/Observation/there")
    assert (release.state, release.reason, release.by) == (
        "held", "preventing-harm", "Practitioner/desk",
    )  # fmt: skip
    (why,) = told(await called(staff, "labels", "Observation/there"))
    assert (why["source"], why["reason"]) == ("release", "the doctor calls first")
    await ehr.store(an_observation("there", encounter=VISIT, value=73))
    assert (await ada.get("Observation/there")).status == 404, "a new version is held, too"
    assert (await called(staff, "release", "Observation/there", reason="called")).status == 200
    found = await ada.get("Observation/there")
    assert (found.status, found.json["meta"]["versionId"]) == (200, "3")
    for before in ("1", "2"):
        hidden = await ada.get(f"Observation/there/_history/{before}")
        assert hidden.status == 404, "it never was released"
    assert (await ada.get("Provenance?target=Observation/there")).entries == []
    again = await called(staff, "release", "Observation/there", reason="called")
    assert again.status == 409


@pytest.mark.requirement("portal", "S2-07")
async def test_staff_release_early_what_waits_by_a_rule(
    store: Any, clock: Clock, ehr: Caller, staff: Caller
) -> None:
    await set_to(store, WAITS)
    await ehr.store(a_result(iso(clock())), a_report(issued=iso(clock())))
    (why, of_result) = told(await called(staff, "labels", "DiagnosticReport/report"))
    assert (why["source"], why["name"]) == ("release", "reports")
    assert why["reason"].startswith("Preventing Harm")
    assert of_result["from"] == reference("Observation/lab")
    (why,) = told(await called(staff, "labels", "Observation/lab"))
    assert why["until"].startswith(iso(clock() + 48 * 3600)[:13])
    for key in ("Observation/lab", "DiagnosticReport/report"):
        assert (await called(staff, "release", key, reason="told")).status == 200
    assert await labels(store, "Observation/lab", "DiagnosticReport/report") == [set(), set()]


async def test_what_an_ehr_withholds_stays_withheld(store: Any, ehr: Caller, staff: Caller) -> None:
    await ehr.store(an_observation("there", meta=WITHHELD))
    assert (await called(staff, "release", "Observation/there", reason="x")).status == 409
    held = {"reason": "x", "exception": "privacy"}
    assert (await called(staff, "hold-back", "Observation/there", **held)).status == 200
    assert (await called(staff, "release", "Observation/there", reason="x")).status == 200
    assert await labels(store, "Observation/there") == [{"withheld"}]


OF_OTHERS = (
    "Observation/of-bo",
    "Observation/elsewhere",
    "Observation/none",
    "Schedule/x",
    "x",
    "",
)


@pytest.mark.parametrize("code", ["labels", "label", "release", "hold-back"])
@pytest.mark.parametrize("resource", OF_OTHERS)
async def test_what_is_not_of_the_record_is_not_known(
    staff: Caller, code: str, resource: str
) -> None:
    given = _given(code)
    answer = await called(staff, code, resource, **given)
    assert answer.status in ({400, 404, 422} if not resource else {404, 422, 400}), answer.body
    if resource.startswith("Observation/"):
        assert answer.status == 404
        gone = await called(staff, code, "Observation/never", **given)
        words = answer.body.replace(resource.encode(), b"?")
        assert words == gone.body.replace(b"Observation/never", b"?")


def _given(code: str) -> dict[str, Any]:
    given: dict[str, dict[str, Any]] = {
        "labels": {},
        "label": {"add": R, "reason": "x"},
        "release": {"reason": "x"},
        "hold-back": {"reason": "x", "exception": "privacy"},
    }
    return given[code]


@pytest.mark.parametrize("code", ["labels", "label", "release", "hold-back"])
async def test_nobody_but_staff_with_the_permission_may(
    portal: Any, staff: Caller, code: str, clock: Clock
) -> None:
    others = {
        "the patient": oneself("ada"),
        "a proxy": a_proxy("ada", "friend", grant="g", sections=["results"], act=["results"]),
        "no permission": a_member_of_staff("desk", permissions=("messages",)),
        "another practice": a_member_of_staff("desk", FAMILY, permissions=("messages",)),
        "narrow": a_member_of_staff(
            "desk", permissions=("view", "documents"), scope="openid user/Observation.rs"
        ),
    }
    for who, auth in others.items():
        answer = await called(Caller(portal, auth), code, "Observation/there", **_given(code))
        assert answer.status == 403, who
    clock.advance(1e9)
    answer = await called(staff, code, "Observation/there", **_given(code))
    assert answer.status in {401, 403}


BAD: dict[str, dict[str, Any]] = {
    "no reason": {"add": R},
    "a long reason": {"add": R, "reason": "x" * 501},
    "nothing": {"reason": "x"},
    "opens": {"add": {**R, "code": "N"}, "reason": "x"},
    "unknown": {"add": {**R, "code": "X"}, "reason": "x"},
    "no system": {"add": {"code": "R"}, "reason": "x"},
    "not there": {"remove": SDV, "reason": "x"},
}


@pytest.mark.parametrize("case", BAD)
async def test_what_cannot_be_done_is_refused_by_name(store: Any, staff: Caller, case: str) -> None:
    answer = await called(staff, "label", "Encounter/visit", **BAD[case])
    assert answer.status in {400, 422}
    assert answer.json["resourceType"] == "OperationOutcome"
    assert await labels(store, "Encounter/visit") == [set()]


@pytest.mark.parametrize(
    ("code", "key"),
    [
        ("label", "Patient/ada"),
        ("label", "Provenance/x"),
        ("release", "Encounter/visit"),
        ("hold-back", "Encounter/visit"),
    ],
)
async def test_types_that_are_not_for_it_are_refused(staff: Caller, code: str, key: str) -> None:
    assert (await called(staff, code, key, **_given(code))).status == 422
    wrong = await called(staff, "hold-back", "Observation/there", reason="x", exception="because")
    assert wrong.status == 422


async def test_what_is_for_other_staff_is_as_absent(ehr: Caller, staff: Caller) -> None:
    tag = {"tag": [{"system": "https://fhir-portal.example/ig/CodeSystem/portal-tag",
                    "code": "staff-invite"}]}  # fmt: skip
    await ehr.store(a_task("invited", meta=tag))
    assert (await called(staff, "labels", "Task/invited")).status == 404


@pytest.mark.usefixtures("staff")
async def test_a_writer_cannot_tell_a_labelled_target_from_none(portal: Any, ehr: Caller) -> None:
    """A proxy who refers to what a label hides is answered as if it were not there."""
    await ehr.store(an_encounter("hidden", meta=RESTRICTED))
    proxy = Caller(
        portal,
        a_proxy("ada", "friend", grant="g", sections=["messages", "visits"], act=["messages"]),
    )
    answers = []
    for key in ("Encounter/hidden", "Encounter/nothing"):
        tree = a_communication(None, sender="RelatedPerson/friend", about=[reference(key)])
        answers.append(await proxy.post(tree))
    assert {one.status for one in answers} == {422}
    assert answers[0].body == answers[1].body
