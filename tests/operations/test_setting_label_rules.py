"""$label-rules, $set-label-rules, $labelled: read and set as a whole, by who administers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from fhir_portal.consent.label_rules import LabelRule, LabelRules, Relabelling, label_rules_of
from fhir_portal.operations import label_jobs as label_jobs_module
from fhir_portal.operations.label_jobs import relabel_practice
from fhir_portal.resources.release import Release
from tests.access.test_closure import labels
from tests.builders import (
    DERM,
    FAMILY,
    RESTRICTED,
    START,
    WITHHELD,
    Caller,
    Clock,
    Json,
    a_patient,
    a_portal,
    a_practitioner,
    a_proxy,
    a_task,
    an_ehr,
    an_encounter,
    an_observation,
    keep,
    oneself,
    reference,
)
from tests.operations.booking import a_schedule, a_slot
from tests.operations.test_label_rules import WAITS, a_report, a_result, iso, set_to, worked_off
from tests.staff import a_member_of_staff

HIV = "http://loinc.org|75622-1"
VISIT = reference("Encounter/visit")
IN_CHARGE = ("view", "documents", "administer")


@pytest.fixture
def portal(store: Any, clock: Clock) -> Any:
    return a_portal(store, clock)


@pytest.fixture
async def staff(portal: Any, ehr: Caller) -> Caller:
    await ehr.store(a_practitioner("desk"), a_patient("ada"), a_patient("bo"))
    await Caller(portal, an_ehr(FAMILY)).store(a_practitioner("desk"), a_patient("ada"))
    return Caller(portal, a_member_of_staff("desk", permissions=IN_CHARGE))


def rule(name: str, **given: Any) -> Json:
    """A rule as a parameter with parts."""
    parts: list[Json] = [{"name": "name", "valueString": name}]
    kinds = {"code": "valueString", "hours": "valueInteger"}
    for member, value in given.items():
        values = value if isinstance(value, list) else [value]
        parts += [{"name": member, kinds.get(member, "valueCode"): one} for one in values]
    return {"name": "release" if "reason" in given else "label", "part": parts}


HIV_RULE = rule("hiv", label="HIV", code=[HIV])
LAB_WAITS = rule("labs", type="Observation", reason="preventing-harm", hours=48)


async def set_as(caller: Caller, *rules: Json, change: int = 0, preview: bool = False) -> Any:
    given: list[Json] = [{"name": "change", "valueInteger": change}, *rules]
    if preview:
        given.append({"name": "preview", "valueBoolean": True})
    tree = {"resourceType": "Parameters", "parameter": given}
    return await caller.ask("POST", "Patient/$set-label-rules", tree)


def told(listed: Any) -> dict[str, Any]:
    """Parameters as values by name, those of a name that comes often as a list."""
    found: dict[str, Any] = {"label": [], "release": [], "type": [], "code": [], "inherited": []}
    for one in listed:
        value = (
            {k: v for k, v in told(one["part"]).items() if v != []}
            if "part" in one
            else next(v for name, v in one.items() if name.startswith("value"))
        )
        kept = found.get(one["name"])
        if isinstance(kept, list):
            kept.append(value)
        else:
            found[one["name"]] = value
    return found


async def standing(caller: Caller) -> Mapping[str, Any]:
    answer = await caller.get("Patient/$label-rules")
    assert answer.status == 200, answer.body
    return told(answer.json["parameter"])


async def test_rules_are_set_read_and_carried_out(
    store: Any, portal: Any, ehr: Caller, staff: Caller, clock: Clock
) -> None:
    await ehr.store(an_observation("test", code="75622-1"), an_observation("open"))
    none = await standing(staff)
    assert (none["change"], none["running"], none["hides"], none["label"]) == (0, False, False, [])
    answer = await set_as(staff, HIV_RULE, LAB_WAITS)
    assert answer.status == 200, answer.body
    found = await standing(staff)
    assert (found["change"], found["running"], found["hides"]) == (1, True, True)
    assert found["label"] == [{"name": "hiv", "label": ["HIV"], "code": [HIV]}]
    assert found["release"] == [
        {"name": "labs", "type": ["Observation"], "reason": "preventing-harm", "hours": 48,
         "waiting": 0}
    ]  # fmt: skip
    assert await worked_off(portal, clock) == 1
    assert not (await standing(staff))["running"]
    assert await labels(store, "Observation/test", "Observation/open") == [{"HIV"}, set()]
    rows = await store.log.of_record(
        DERM, None, agent=None, told=False, low=0, high=2**62, before=None, limit=50
    )
    (line,) = [one.row for one in rows if one.row.interaction == "$set-label-rules"]
    assert (line.detail, line.agent) == ("hiv,labs", "Practitioner/desk")


async def test_rules_that_were_set_meanwhile_are_not_overwritten(store: Any, staff: Caller) -> None:
    assert (await set_as(staff, HIV_RULE)).status == 200
    for preview in (False, True):
        answer = await set_as(staff, LAB_WAITS, change=0, preview=preview)
        assert answer.status == 409
        assert "change" in answer.json["issue"][0]["expression"][0]
    rules = await label_rules_of(store, DERM)
    assert ([one.name for one in rules.labels], rules.release, rules.change) == (["hiv"], (), 1)


async def test_the_same_rules_once_more_change_nothing(store: Any, staff: Caller) -> None:
    await set_as(staff, HIV_RULE)
    await relabel_practice(staff.portal.server, DERM)
    answer = await set_as(staff, HIV_RULE, change=1)
    assert answer.status == 200
    assert (await label_rules_of(store, DERM)).change == 1
    assert await store.get(Relabelling, DERM) is None


async def test_a_preview_counts_and_changes_nothing(store: Any, ehr: Caller, staff: Caller) -> None:
    await ehr.store(
        an_observation("test", code="75622-1"),
        an_observation("second", of="bo", code="75622-1"),
        an_observation("open"),
    )
    answer = await set_as(staff, HIV_RULE, preview=True)
    found = told(answer.json["parameter"])["foreseen"]
    assert found == {
        "labelled": 2, "opened": 0, "released": 0, "looked-at": found["looked-at"], "whole": True
    }  # fmt: skip
    assert (await label_rules_of(store, DERM)).change == 0
    assert await store.get(Relabelling, DERM) is None
    await set_as(staff, HIV_RULE)
    await relabel_practice(staff.portal.server, DERM)
    answer = await set_as(staff, change=1, preview=True)
    found = told(answer.json["parameter"])["foreseen"]
    assert (found["labelled"], found["opened"]) == (0, 2)
    assert await labels(store, "Observation/test") == [{"HIV"}]


async def test_a_preview_counts_what_the_token_may_search(
    store: Any, portal: Any, ehr: Caller, staff: Caller, clock: Clock
) -> None:
    await set_to(store, WAITS)
    await relabel_practice(staff.portal.server, DERM)
    await ehr.store(an_observation("test", code="75622-1"), a_report(issued=iso(clock())))
    counts = {}
    for scope in (
        *("", "user/Observation.rs", "user/Observation.rs?category=laboratory"),
        "user/DiagnosticReport.rs",
    ):
        narrow = a_member_of_staff(
            "desk", permissions=IN_CHARGE, scope=f"user/Patient.ru {scope}".strip()
        )
        answer = await set_as(Caller(portal, narrow), HIV_RULE, change=1, preview=True)
        found = told(answer.json["parameter"])["foreseen"]
        counts[scope.partition(".")[0] + "?" * ("?" in scope)] = (
            found["labelled"], found["released"],
        )  # fmt: skip
    assert counts == {
        "": (0, 0),
        "user/Observation": (1, 0),
        "user/Observation?": (0, 0),
        "user/DiagnosticReport": (0, 1),
    }
    slots = rule("slots", label="R", type=["Slot"])
    await ehr.store(a_schedule("lark", "Practitioner/desk"), a_slot("free", clock()))
    answer = await set_as(staff, slots, change=1, preview=True)
    assert told(answer.json["parameter"])["foreseen"]["labelled"] == 1, "it is of no record"


async def test_a_preview_of_much_says_that_it_is_not_all(
    ehr: Caller, staff: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(label_jobs_module, "LOOKED_AT", 3)
    await ehr.store(*(an_observation(f"test{n}", code="75622-1") for n in range(3)))
    typed = rule("hiv", label="HIV", type=["Observation"], code=[HIV])
    (exact,) = [told((await set_as(staff, typed, preview=True)).json["parameter"])["foreseen"]]
    assert (exact["labelled"], exact["whole"]) == (3, True)
    await ehr.store(an_observation("fourth", code="75622-1"))
    found = told((await set_as(staff, typed, preview=True)).json["parameter"])["foreseen"]
    assert (found["labelled"], found["looked-at"], found["whole"]) == (3, 3, False)


async def test_a_preview_tells_what_would_be_released(
    store: Any, ehr: Caller, staff: Caller, clock: Clock
) -> None:
    await set_to(store, WAITS)
    await relabel_practice(staff.portal.server, DERM)
    await ehr.store(a_result(iso(clock())), a_report(issued=iso(clock())))
    rules = (await standing(staff))["release"]
    assert {one["name"]: one["waiting"] for one in rules}["reports"] == 1
    foreseen = told((await set_as(staff, change=1, preview=True)).json["parameter"])["foreseen"]
    assert foreseen["released"] == sum(one["waiting"] for one in rules)
    renamed = rule("named-otherwise", type="DiagnosticReport", reason="privacy")
    answer = await set_as(staff, renamed, change=1, preview=True)
    kept = told(answer.json["parameter"])["foreseen"]["released"]
    assert kept == foreseen["released"] - 1, "another rule says that the report waits"
    assert len(await store.find(Release, "withheld", DERM)) == foreseen["released"]


async def test_what_waits_by_a_rule_that_is_gone_is_found_among_very_many(
    store: Any, ehr: Caller, staff: Caller
) -> None:
    """A rule that stays may hold more results than one look for them finds."""
    await ehr.store(an_observation("zz"))
    await keep(
        store,
        LabelRules(key=DERM, holds=True),
        *(
            Release(
                key=f"{DERM}/Observation/{name}", practice=DERM, what=f"Observation/{name}",
                state="waits", at=START, rule=by, withheld=DERM,
            )
            for name, by in [*((f"a{n:05}", "stays") for n in range(1_050)), ("zz", "gone")]
        ),
    )  # fmt: skip
    await set_as(staff, rule("stays", type="Observation", reason="privacy"))
    await relabel_practice(staff.portal.server, DERM)
    assert (await store.get(Release, f"{DERM}/Observation/zz")).rule == "stays"
    assert (await store.get(Release, f"{DERM}/Observation/a00000")).state == "waits"
    # The rule that stayed is for all observations: nothing was shown by going through them.
    await set_as(staff, change=1)
    await relabel_practice(staff.portal.server, DERM)
    assert await store.find(Release, "withheld", DERM) == []


BAD: dict[str, list[Json]] = {
    "no such label": [rule("x", label="N", code=[HIV])],
    "no such type": [rule("x", label="HIV", type=["Nothing"])],
    "for everything": [rule("x", label="HIV")],
    "no such name": [rule("Not a name", label="HIV", code=[HIV])],
    "code without a bar": [rule("x", label="HIV", code=["75622-1"])],
    "twice": [HIV_RULE, HIV_RULE],
    "no such reason": [rule("x", type="Observation", reason="because", hours=1)],
    "not to be released": [rule("x", type="Encounter", reason="privacy", hours=1)],
    "no time": [rule("x", type="Observation", reason="privacy", hours=0)],
    "a long time": [rule("x", type="Observation", reason="privacy", hours=721)],
    "release twice": [LAB_WAITS, LAB_WAITS],
    "unknown part": [{"name": "label", "part": [{"name": "colour", "valueString": "red"}]}],
    "no parts": [{"name": "label", "valueString": "HIV"}],
}


@pytest.mark.parametrize("case", BAD)
async def test_rules_that_cannot_be_are_refused_by_name(
    store: Any, staff: Caller, case: str
) -> None:
    for preview in (False, True):
        answer = await set_as(staff, *BAD[case], preview=preview)
        assert answer.status in {400, 422}, answer.body
        assert answer.json["resourceType"] == "OperationOutcome"
        assert answer.json["issue"][0].get("expression"), answer.body
    assert (await label_rules_of(store, DERM)).change == 0


async def test_rules_are_set_by_who_administers_alone(
    store: Any, portal: Any, staff: Caller, clock: Clock
) -> None:
    others = {
        "no permission": a_member_of_staff("desk", permissions=("view", "documents")),
        "the patient": oneself("ada"),
        "a proxy": a_proxy("ada", "friend", grant="g", sections=["results"], act=["results"]),
        "narrow": a_member_of_staff("desk", permissions=IN_CHARGE, scope="user/Patient.r"),
        "one record": a_member_of_staff("desk", permissions=IN_CHARGE, patient="ada"),
        "an EHR": an_ehr(),
    }
    for who, auth in others.items():
        for preview in (False, True):
            answer = await set_as(Caller(portal, auth), HIV_RULE, preview=preview)
            assert answer.status == 403, who
    for who in ("the patient", "a proxy", "one record"):
        answer = await Caller(portal, others[who]).get("Patient/$label-rules")
        assert answer.status == 403, who
    unseeing = Caller(portal, a_member_of_staff("desk", permissions=("administer",)))
    assert (await unseeing.get("Patient/$label-rules")).status == 403
    for preview in (False, True):
        answer = await set_as(unseeing, HIV_RULE, preview=preview)
        assert answer.status == 403, "it tells the rules, and how much they concern"
    assert (await Caller(portal, an_ehr()).get("Patient/$label-rules")).status == 200
    elsewhere = Caller(portal, a_member_of_staff("desk", FAMILY, permissions=IN_CHARGE))
    await set_as(elsewhere, HIV_RULE)
    assert (await label_rules_of(store, DERM)).change == 0, "it is another practice's"
    assert (await label_rules_of(store, FAMILY)).labels == (LabelRule("hiv", "HIV", (), (HIV,)),)
    clock.advance(1e9)
    assert (await set_as(staff, HIV_RULE)).status in {401, 403}


async def labelled(caller: Caller, patient: str = "ada") -> Any:
    return await caller.get(f"Patient/{patient}/$labelled")


@pytest.mark.requirement("portal", "S2-07")
async def test_what_is_labelled_is_listed_with_why_and_the_rest_counted(
    store: Any, ehr: Caller, staff: Caller, clock: Clock
) -> None:
    await set_to(store, {"labels": [{"name": "hiv", "label": "HIV", "codes": [HIV]}], **WAITS})
    await ehr.store(
        an_encounter("visit", meta=RESTRICTED),
        an_observation("there", encounter=VISIT),
        an_observation("test", code="75622-1", issued="2001-01-01T00:00:00Z"),
        an_observation("tagged", meta=WITHHELD),
        an_observation("of-bo", of="bo", meta=RESTRICTED),
        a_report(issued=iso(clock())),
        a_task("internal", meta={"tag": [{
            "system": "https://fhir-portal.example/ig/CodeSystem/portal-tag",
            "code": "staff-invite"}]}),
    )  # fmt: skip
    found = told((await labelled(staff)).json["parameter"])
    listed = {
        (one["resource"]["reference"], one["code"][0], one["source"], one.get("name"))
        for one in found["label"]
    }
    assert listed == {
        ("Encounter/visit", "R", "own", None),
        ("Observation/test", "HIV", "rule", "hiv"),
        ("Observation/tagged", "withheld", "own", None),
        ("DiagnosticReport/report", "withheld", "release", "reports"),
    }
    (waits,) = [one for one in found["label"] if one["source"] == "release"]
    assert waits["exception"] == "preventing-harm"
    assert {"type": ["Observation"], "count": 1} in found["inherited"]
    assert found["more"] is False


async def test_what_is_labelled_is_told_of_what_the_token_may_search(
    portal: Any, ehr: Caller, staff: Caller
) -> None:
    await ehr.store(an_encounter("visit", meta=RESTRICTED), an_observation("x", meta=RESTRICTED))
    narrow = a_member_of_staff("desk", scope="user/Patient.r user/Encounter.rs")
    found = told((await labelled(Caller(portal, narrow))).json["parameter"])
    assert [one["resource"]["reference"] for one in found["label"]] == ["Encounter/visit"]
    assert len(told((await labelled(staff)).json["parameter"])["label"]) == 2


async def test_what_is_labelled_is_for_staff_who_read_and_for_their_own_patients(
    portal: Any, ehr: Caller, staff: Caller
) -> None:
    await ehr.store(an_encounter("visit", meta=RESTRICTED))
    others = {
        "the patient": oneself("ada"),
        "a proxy": a_proxy("ada", "friend", grant="g", sections=["visits"], act=["visits"]),
        "no permission": a_member_of_staff("desk", permissions=("documents",)),
    }
    for who, auth in others.items():
        assert (await labelled(Caller(portal, auth))).status == 403, who
    elsewhere = Caller(portal, a_member_of_staff("desk", FAMILY, permissions=IN_CHARGE))
    found = told((await labelled(elsewhere)).json["parameter"])
    assert found["label"] == [], "the patient of the same id at another practice"
    gone, hidden = await labelled(staff, "nobody"), await labelled(elsewhere, "bo")
    assert (gone.status, hidden.status) == (404, 404)
    assert gone.body.replace(b"nobody", b"?") == hidden.body.replace(b"Patient/bo", b"Patient/?")


async def test_more_than_are_listed_is_said(
    ehr: Caller, staff: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fhir_portal.operations.labelled.MOST", 2)
    await ehr.store(*(an_observation(f"x{n}", meta=RESTRICTED) for n in range(3)))
    found = told((await labelled(staff)).json["parameter"])
    assert (len(found["label"]), found["more"]) == (2, True)
