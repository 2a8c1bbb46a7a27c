"""Rules of a practice: what is labelled by them, from when on, and how what is stored follows."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from fhir_portal.access.authenticate import resolve
from fhir_portal.consent.label_rules import (
    InvalidRules,
    LabelRules,
    Relabelling,
    label_rules_of,
    read_rules,
)
from fhir_portal.notify import jobs
from fhir_portal.operations import label_jobs as label_jobs_module
from fhir_portal.operations.label_jobs import label_jobs, relabel_practice, set_rules
from fhir_portal.operations.settling_jobs import settling_jobs
from fhir_portal.resources import passing_on
from fhir_portal.resources.release import HOUR, Release
from tests.access.test_closure import labels
from tests.builders import (
    DERM,
    START,
    Caller,
    Clock,
    Json,
    a_client,
    a_patient,
    a_person,
    a_portal,
    a_practice,
    an_access_token,
    an_account,
    an_ehr,
    an_encounter,
    an_observation,
    changed,
    concept,
    keep,
    oneself,
    reference,
    resource,
)

HIV = "http://loinc.org|75622-1"
RULES: Json = {
    "labels": [
        {"name": "hiv", "label": "HIV", "codes": [HIV]},
        {"name": "teen-visits", "label": "R", "types": ["Encounter"], "codes": ["urn:kind|teen"]},
        {"name": "flags", "label": "withheld", "types": ["Flag"]},
    ]
}


def a_teen_visit(**more: Any) -> Json:
    return an_encounter("visit", type=[concept("urn:kind", "Teen")], **more)


TREES = (
    a_patient("ada"),
    an_observation("test", code="75622-1", category="laboratory"),
    a_teen_visit(),
    an_observation("there", encounter=reference("Encounter/visit")),
    an_observation("open"),
    resource(
        "Flag", "flag", status="active", code=concept("urn:x", "y"),
        subject=reference("Patient/ada"),
    ),
)  # fmt: skip
KEYS = ("Observation/test", "Encounter/visit", "Observation/there", "Observation/open", "Flag/flag")
LABELLED = [{"HIV"}, {"R"}, {"R"}, set[str](), {"withheld"}]


async def set_to(store: Any, tree: Json, *, now: float = START) -> None:
    wanted = read_rules(DERM, tree)
    await store.transact(lambda t: set_rules(t, wanted=wanted, now=now))


async def worked_off(portal: Any, clock: Clock) -> int:
    return await jobs.work_off(
        portal.server.store,
        {**label_jobs(portal.server), **settling_jobs(portal.server)},
        worker="w",
        clock=clock,
    )


async def test_what_is_written_is_labelled_by_the_rules(store: Any, ehr: Caller) -> None:
    await set_to(store, RULES)
    await ehr.store(*TREES)
    assert await labels(store, *KEYS) == LABELLED


async def test_what_is_stored_is_labelled_when_rules_are_set_and_opened_when_they_go(
    store: Any, ehr: Caller, clock: Clock
) -> None:
    portal = a_portal(store, clock)
    await ehr.store(*TREES)
    await set_to(store, RULES)
    assert await worked_off(portal, clock) == 1
    assert await labels(store, *KEYS) == LABELLED
    assert await store.get(Relabelling, DERM) is None
    await set_to(store, {"labels": RULES["labels"][1:]})
    marker = await store.get(Relabelling, DERM)
    assert not marker.hides, "taking a rule away hides nothing"
    assert await worked_off(portal, clock) == 1
    assert await labels(store, *KEYS) == [set(), *LABELLED[1:]]
    await set_to(store, {})
    await worked_off(portal, clock)
    assert await labels(store, *KEYS) == [set()] * 5


async def test_rules_set_twice_before_the_job_are_carried_out_as_they_stand(
    store: Any, ehr: Caller, clock: Clock
) -> None:
    portal = a_portal(store, clock)
    await ehr.store(*TREES)
    await set_to(store, RULES)
    await worked_off(portal, clock)
    await set_to(store, {"labels": RULES["labels"][:1]})
    await set_to(store, {"labels": RULES["labels"][2:]})
    assert await relabel_practice(portal.server, DERM) == 2
    assert await labels(store, *KEYS) == [set(), set(), set(), set(), {"withheld"}]


async def test_a_rule_is_carried_out_however_much_depends_on_what_it_labels(
    store: Any, ehr: Caller, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is too much for one transaction is left to the job of what depends on it."""
    portal = a_portal(store, clock)
    await ehr.store(a_patient("ada"))
    keys: list[str] = []
    for visit, results in (("a", 3), ("b", 3), ("c", 12)):
        await ehr.store(an_encounter(visit))
        for number in range(results):
            there = an_observation(
                f"{visit}-{number}", encounter=reference(f"Encounter/{visit}"),
                category="laboratory", issued=iso(START),
            )  # fmt: skip
            await ehr.store(there)
            keys.append(f"Observation/{visit}-{number}")
    monkeypatch.setattr(passing_on, "MOST", 6)
    await set_to(store, {"labels": [{"name": "visits", "label": "R", "types": ["Encounter"]}]})
    assert await worked_off(portal, clock) == 2
    assert await store.get(Relabelling, DERM) is None
    assert await labels(store, *keys) == [{"R"}] * 18
    await set_to(store, {})
    assert await worked_off(portal, clock) == 2
    assert await labels(store, *keys) == [set()] * 18


async def test_nothing_of_a_record_is_shown_until_a_new_rule_is_carried_out(
    store: Any, ehr: Caller, clock: Clock, as_person: Callable[..., Any]
) -> None:
    await ehr.store(*TREES)
    ada = await as_person()
    assert (await ada.get("Observation/open")).status == 200
    await set_to(store, RULES)
    for key in KEYS:
        assert (await ada.get(key)).status in {404, 410}
    for name in ("Observation", "Encounter"):
        found = await ada.get(f"{name}?_total=accurate")
        assert (found.json["total"], found.json.get("entry", [])) == (0, [])
    assert (await ada.get("Patient/ada")).status == 200
    assert (await ehr.get("Observation/open")).status == 200
    await worked_off(a_portal(store, clock), clock)
    assert (await ada.get("Observation/open")).status == 200
    assert (await ada.get("Observation/test")).status == 200
    assert (await ada.get("Flag/flag")).status == 404


@pytest.fixture
def as_person(store: Any, clock: Clock) -> Callable[..., Any]:
    async def made() -> Caller:
        portal = a_portal(store, clock)
        await Caller(portal, an_ehr(DERM, "grant-writing")).store(
            a_person("ada", links=["Patient/ada"])
        )
        await keep(
            store, a_client("app"), an_account("ada", f"{DERM}/Person/ada"), a_practice(DERM)
        )
        token = changed(an_access_token("ada", oneself("ada")), account="ada")
        await keep(store, token)
        return Resolved(portal, store, token, clock)

    return made


class Resolved(Caller):
    """A caller whose rights are looked up for each request, as of a token."""

    def __init__(self, portal: Any, store: Any, token: Any, clock: Clock) -> None:
        super().__init__(portal, oneself("ada"))
        self._store, self._token, self._clock = store, token, clock

    async def get(self, *given: Any, **more: Any) -> Any:
        auth = await resolve(self._store, self._token, self._clock)
        return await Caller(self.portal, auth).get(*given, **more)


@pytest.mark.parametrize(
    "tree",
    [
        [],
        {"label": []},
        {"labels": [{"name": "x", "label": "R"}]},
        {"labels": [{"name": "x", "label": "N", "types": ["Flag"]}]},
        {"labels": [{"name": "x", "label": "R", "types": ["Nothing"]}]},
        {"labels": [{"name": "x", "label": "R", "types": []}]},
        {"labels": [{"name": "x", "label": "R", "codes": ["no-system"]}]},
        {"labels": [{"name": "x", "label": "R", "valueSet": {"resourceType": "ValueSet"}}]},
        {"labels": [{"name": "X x", "label": "R", "types": ["Flag"]}]},
        {"labels": [{"name": "x", "label": "R", "types": ["Flag"]}] * 2},
        {"release": [{"name": "x", "type": "Observation"}]},
        {"release": [{"name": "x", "type": "Patient", "reason": "privacy"}]},
        {"release": [{"name": "x", "type": "Observation", "reason": "because"}]},
        {"release": [{"name": "x", "type": "Observation", "reason": "privacy", "hours": 0}]},
    ],
)
def test_rules_that_cannot_be_used_are_refused(tree: Any) -> None:
    with pytest.raises(InvalidRules):
        read_rules(DERM, tree)


def test_the_codes_of_a_value_set_are_those_it_lists() -> None:
    listed = {
        "resourceType": "ValueSet",
        "compose": {"include": [{"system": "http://loinc.org", "concept": [{"code": "75622-1"}]}]},
    }
    expanded = {
        "resourceType": "ValueSet",
        "expansion": {"contains": [{"system": "http://loinc.org", "code": "75622-1"}]},
    }
    for value_set in (listed, expanded):
        rules = read_rules(
            DERM, {"labels": [{"name": "hiv", "label": "HIV", "valueSet": value_set}]}
        )
        assert rules.labels[0].codes == (HIV,)
        assert rules.of(TREES[1]) == {"HIV"}
        assert rules.of(TREES[4]) == set()
    filtered = {
        "resourceType": "ValueSet",
        "compose": {"include": [{"system": "http://loinc.org"}]},
    }
    with pytest.raises(InvalidRules):
        read_rules(DERM, {"labels": [{"name": "x", "label": "HIV", "valueSet": filtered}]})


@pytest.mark.parametrize("code", ["75622-1|HIV", "y" * 101, " 75622-1", ""])
def test_a_value_set_holds_what_can_be_set_again(code: str) -> None:
    """The rules are set as a whole: with one that is refused, none could be changed."""
    listed = {
        "resourceType": "ValueSet",
        "compose": {"include": [{"system": "http://loinc.org", "concept": [{"code": code}]}]},
    }
    with pytest.raises(InvalidRules, match="hiv"):
        read_rules(DERM, {"labels": [{"name": "hiv", "label": "HIV", "valueSet": listed}]})


# ---------------------------------------------------------------- release

WAITS: Json = {
    "release": [
        {"name": "labs", "type": "Observation", "codes": ["http://loinc.org|718-7"],
         "reason": "preventing-harm", "hours": 48},
        {"name": "reports", "type": "DiagnosticReport", "reason": "preventing-harm"},
    ]
}  # fmt: skip


def a_result(issued: str = "2030-01-01T00:00:00Z", **more: Any) -> Json:
    return an_observation("lab", category="laboratory", code="718-7", issued=issued, **more)


def a_report(**more: Any) -> Json:
    return resource(
        "DiagnosticReport", "report", status="final", code=concept("http://loinc.org", "58410-2"),
        subject=reference("Patient/ada"), result=[reference("Observation/lab")], **more,
    )  # fmt: skip


async def test_a_result_waits_for_its_hours_and_is_released_by_the_job(
    store: Any, ehr: Caller, clock: Clock
) -> None:
    portal = a_portal(store, clock)
    await set_to(store, WAITS)
    await worked_off(portal, clock)
    issued = iso(clock() - HOUR)
    await ehr.store(a_patient("ada"), a_result(issued), an_observation("pulse"))
    assert await labels(store, "Observation/lab", "Observation/pulse") == [{"withheld"}, set()]
    await ehr.store(a_result(issued, status="amended"))
    clock.advance(46 * HOUR)
    await worked_off(portal, clock)
    assert await labels(store, "Observation/lab") == [{"withheld"}]
    clock.advance(1 * HOUR + 1)
    assert await labels(store, "Observation/lab") == [{"withheld"}], "late is hidden"
    assert await worked_off(portal, clock) >= 1
    assert await labels(store, "Observation/lab") == [set()]
    release = await store.get(Release, f"{DERM}/Observation/lab")
    assert (release.state, release.reason) == ("released", "preventing-harm")
    await ehr.store(a_result(issued, status="corrected"))
    assert await labels(store, "Observation/lab") == [set()], "what was shown stays"
    await ehr.store(a_result(iso(clock()), status="corrected"))
    assert await labels(store, "Observation/lab") == [{"withheld"}], "issued anew"


async def test_what_waits_hides_the_report_that_holds_it(
    store: Any, ehr: Caller, clock: Clock
) -> None:
    portal = a_portal(store, clock)
    await set_to(store, {"release": WAITS["release"][:1]})
    await ehr.store(a_patient("ada"), a_result(iso(clock())), a_report())
    assert await labels(store, "DiagnosticReport/report") == [{"withheld"}]
    clock.advance(49 * HOUR)
    await worked_off(portal, clock)
    assert await labels(store, "DiagnosticReport/report", "Observation/lab") == [set(), set()]


async def test_what_waits_for_staff_stays_and_goes_with_its_rule(
    store: Any, ehr: Caller, clock: Clock
) -> None:
    portal = a_portal(store, clock)
    await set_to(store, WAITS)
    await ehr.store(a_patient("ada"), a_report(issued=iso(clock())))
    clock.advance(1000 * HOUR)
    await worked_off(portal, clock)
    assert await labels(store, "DiagnosticReport/report") == [{"withheld"}]
    await set_to(store, {"release": WAITS["release"][:1]}, now=clock())
    await worked_off(portal, clock)
    assert await labels(store, "DiagnosticReport/report") == [set()]


async def test_what_goes_with_its_rule_is_found_among_much_that_waits_on(
    store: Any, ehr: Caller, clock: Clock
) -> None:
    await set_to(store, WAITS)
    await ehr.store(a_patient("ada"), a_result(iso(clock())))
    others = (f"DiagnosticReport/r{number:04}" for number in range(1001))
    await keep(
        store,
        *(
            Release(
                key=f"{DERM}/{what}", practice=DERM, what=what, state="waits", at=START,
                rule="reports", withheld=DERM,
            )
            for what in others
        ),
    )  # fmt: skip
    await set_to(store, {"release": WAITS["release"][1:]}, now=clock())
    await worked_off(a_portal(store, clock), clock)
    assert await labels(store, "Observation/lab") == [set()]


async def test_what_waits_for_staff_is_not_released_by_a_late_amendment(
    store: Any, ehr: Caller, clock: Clock
) -> None:
    """What was issued long ago is history when it comes, not when it has waited for long."""
    issued = iso(clock())
    await set_to(store, WAITS)
    await ehr.store(a_patient("ada"), a_report(issued=issued))
    clock.advance(31 * 24 * HOUR)
    await ehr.store(a_report(issued=issued, conclusion="no change"))
    assert await labels(store, "DiagnosticReport/report") == [{"withheld"}]
    await ehr.delete("DiagnosticReport/report")
    await ehr.store(a_report(issued=issued))
    assert await labels(store, "DiagnosticReport/report") == [{"withheld"}]


async def test_a_rule_that_has_another_name_now_shows_nothing(
    store: Any, ehr: Caller, clock: Clock
) -> None:
    portal = a_portal(store, clock)
    await set_to(store, WAITS)
    issued = iso(clock())
    await ehr.store(a_patient("ada"), a_result(issued), a_report(issued=issued))
    clock.advance(40 * 24 * HOUR)  # the job has not run: the result waits, though its time came
    renamed = [{**rule, "name": f"{rule['name']}-now"} for rule in WAITS["release"]]
    await set_to(store, {"release": renamed}, now=clock())
    await relabel_practice(portal.server, DERM)
    release = await store.get(Release, f"{DERM}/DiagnosticReport/report")
    assert (release.state, release.rule) == ("waits", "reports-now")
    assert await labels(store, "DiagnosticReport/report") == [{"withheld"}]
    assert (await store.get(Release, f"{DERM}/Observation/lab")).state == "released"
    again = iso(clock())
    await ehr.store(a_result(again))
    longer = [{**rule, "name": "other"} for rule in WAITS["release"]][:1]
    await set_to(store, {"release": [{**longer[0], "hours": 72}]}, now=clock())
    await relabel_practice(portal.server, DERM)
    assert await labels(store, "Observation/lab") == [{"withheld"}]
    clock.advance(71 * HOUR)
    await worked_off(portal, clock)
    assert await labels(store, "Observation/lab") == [{"withheld"}]
    clock.advance(2 * HOUR)
    await worked_off(portal, clock)
    assert await labels(store, "Observation/lab") == [set()]


async def test_a_rule_set_while_the_job_before_runs_is_kept(
    store: Any, ehr: Caller, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it holds back is not released by the job that began without it."""
    portal = a_portal(store, clock)
    await ehr.store(a_patient("ada"))
    await set_to(store, RULES)
    pages = vars(label_jobs_module)["_pages"]

    async def meanwhile(*args: Any) -> Any:
        monkeypatch.setattr(label_jobs_module, "_pages", pages)
        await set_to(store, WAITS)
        await ehr.store(a_report(issued=iso(clock())))
        async for page in pages(*args):
            yield page

    monkeypatch.setattr(label_jobs_module, "_pages", meanwhile)
    await relabel_practice(portal.server, DERM)
    assert await labels(store, "DiagnosticReport/report") == [{"withheld"}]


async def test_history_and_what_was_issued_long_ago_is_not_held_back(
    store: Any, ehr: Caller, clock: Clock
) -> None:
    await ehr.store(a_patient("ada"), a_result(iso(clock())))
    await set_to(store, WAITS)
    await ehr.store(a_result(iso(clock()), status="amended"))
    assert await labels(store, "Observation/lab") == [set()], "it was shown before the rule"
    await ehr.store(a_report(issued=iso(clock() - 31 * 24 * HOUR)))
    assert await labels(store, "DiagnosticReport/report") == [set()]


async def test_when_a_sample_was_taken_is_not_when_its_result_was_issued(
    store: Any, ehr: Caller, clock: Clock
) -> None:
    await set_to(store, WAITS)
    late = a_result() | {"effectiveDateTime": "2029-12"}
    del late["issued"]
    await ehr.store(a_patient("ada"), late)
    release = await store.get(Release, f"{DERM}/Observation/lab")
    assert release.due == pytest.approx(clock() + 48 * HOUR)


async def test_a_result_that_was_shown_under_way_waits_when_it_is_done(
    store: Any, ehr: Caller, clock: Clock
) -> None:
    """It does not say when it was issued, and is there since the order was taken."""
    portal = a_portal(store, clock)
    await set_to(store, WAITS)
    awaited = a_result(status="registered")
    del awaited["issued"]
    await ehr.store(a_patient("ada"), awaited)
    clock.advance(47 * HOUR)
    await ehr.store(awaited | {"note": [{"text": "taken"}]})
    clock.advance(2 * HOUR)
    await worked_off(portal, clock)
    assert await labels(store, "Observation/lab") == [set()]
    done = awaited | {"status": "final"}
    await ehr.store(done)
    assert await labels(store, "Observation/lab") == [{"withheld"}]
    clock.advance(47 * HOUR)
    await ehr.store(done | {"note": [{"text": "looked at"}]})
    clock.advance(2 * HOUR)
    await worked_off(portal, clock)
    assert await labels(store, "Observation/lab") == [set()]
    await ehr.store(done | {"status": "amended"})
    assert await labels(store, "Observation/lab") == [set()]


async def test_a_time_to_come_does_not_hold_longer(store: Any, ehr: Caller, clock: Clock) -> None:
    await set_to(store, WAITS)
    await ehr.store(a_patient("ada"), a_result(iso(clock() + 1000 * HOUR)))
    release = await store.get(Release, f"{DERM}/Observation/lab")
    assert release.due == pytest.approx(clock() + 48 * HOUR)


def iso(seconds: float) -> str:
    return datetime.fromtimestamp(int(seconds), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


async def test_who_has_no_rules_has_none(store: Any) -> None:
    assert await label_rules_of(store, DERM) == LabelRules(key=DERM)
