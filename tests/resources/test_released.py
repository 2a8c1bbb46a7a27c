"""A result that is released is a change: who follows changes learns of it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from fhir_portal.access.visibility import Visibility
from fhir_portal.consent.labels import PORTAL_TAG
from fhir_portal.fhir.reference import ResourceKey
from fhir_portal.notify import jobs
from fhir_portal.notify.lease import StaleLease
from fhir_portal.operations.label_jobs import label_jobs, release_due
from fhir_portal.resources.opening import Opening, Shown, disclosures
from fhir_portal.resources.passing_on import with_labels
from fhir_portal.resources.release import HOUR, RELEASE_JOB, Release
from fhir_portal.resources.writing import update_in
from tests.access.test_closure import labels
from tests.builders import (
    DERM,
    RESTRICTED,
    START,
    WITHHELD,
    Caller,
    Clock,
    Json,
    a_binary,
    a_practitioner,
    a_provenance,
    a_proxy,
    an_encounter,
    an_observation,
    oneself,
    reference,
)
from tests.operations.releasing import (
    DAY,
    HELD,
    LAB,
    OPEN,
    REPORT,
    bare,
    chart,
    desk,
    portal,
    released,
    since,
    store,
    version,
    waiting,
)
from tests.operations.test_label_rules import WAITS, a_report, a_result, iso, set_to, worked_off
from tests.operations.test_labels import called

__all__ = ["chart", "desk", "portal", "store", "waiting"]


# ---------------------------------------------------------------- an app that polls


@pytest.mark.requirement("portal", "S2-07")
async def test_an_app_that_polls_learns_of_what_the_job_released(
    waiting: Caller, portal: Any, clock: Clock
) -> None:
    ada = Caller(portal, oneself("ada"))
    clock.advance(1)
    asked = iso(clock())
    assert await since(ada, asked) == []
    await released(portal, clock)
    assert set(await since(ada, asked)) == {LAB, REPORT}
    for name, key in (("Observation", LAB), ("DiagnosticReport", REPORT)):
        found = await ada.get(f"{name}?_lastUpdated=gt{asked}&_total=accurate")
        assert (found.json["total"], found.ids) == (1, [key])
    lab = (await ada.get(LAB)).json
    assert lab["meta"]["lastUpdated"][:19] == iso(clock())[:19]
    assert lab["valueQuantity"] == (await waiting.get(f"{LAB}/_history/2")).json["valueQuantity"]


async def test_what_was_asked_for_under_the_earlier_version_is_sent_again(
    waiting: Caller, portal: Any, clock: Clock
) -> None:
    """A cache of the EHR's does not keep the old time."""
    before = await waiting.get(LAB)
    await released(portal, clock)
    tag = f'W/"{version(before.json)}"'
    again = await waiting.ask("GET", LAB, if_none_match=tag)
    assert (again.status, version(again.json)) == (200, "3")


@pytest.mark.usefixtures("waiting")
async def test_a_release_by_hand_is_in_the_feed_with_what_refers_to_it(
    desk: Caller, portal: Any, clock: Clock
) -> None:
    ada = Caller(portal, oneself("ada"))
    clock.advance(1)
    asked = iso(clock())
    answer = await called(desk, "release", LAB, reason="told")
    assert answer.status == 200, answer.body
    assert set(await since(ada, asked)) == {LAB, REPORT}
    assert (await called(desk, "release", LAB, reason="told")).status == 409
    assert version((await ada.get(LAB)).json) == "3"


async def test_a_report_is_opened_with_the_last_of_its_results(
    chart: Caller, desk: Caller, portal: Any, clock: Clock
) -> None:
    """Until then it has no new version that anybody could be told of."""
    ada = Caller(portal, oneself("ada"))
    await chart.store(an_observation("other"), a_result(iso(clock())))
    results = [reference(LAB), reference("Observation/other")]
    await called(desk, "hold-back", "Observation/other", **HELD)
    await chart.store(a_report(issued=iso(clock())) | {"result": results})
    await called(desk, "release", LAB, reason="told")
    assert version((await chart.get(REPORT)).json) == "1"
    assert version((await ada.get(LAB)).json) == "2"
    await called(desk, "release", "Observation/other", reason="told")
    assert version((await ada.get(REPORT)).json) == "2"
    assert version((await ada.get(LAB)).json) == "2", "it was open"


async def test_what_is_hidden_for_another_reason_as_well_stays_as_it_is(
    waiting: Caller, desk: Caller, clock: Clock, portal: Any
) -> None:
    await waiting.store(a_result(iso(clock()), meta=WITHHELD))
    before = (await waiting.get(LAB)).json
    assert (await called(desk, "release", LAB, reason="x")).status == 200
    await released(portal, clock)
    assert (await waiting.get(LAB)).json == before
    told = await waiting.get("Provenance?target=Observation/lab")
    assert [one["activity"]["coding"][0]["code"] for one in told.entries] == ["UPDATE"]
    await waiting.store(a_result(iso(clock() - 60 * DAY), meta=OPEN))
    assert (await Caller(portal, oneself("ada")).get(LAB)).status == 200


async def test_files_and_what_was_said_about_a_result_come_with_it(
    chart: Caller, desk: Caller, portal: Any, clock: Clock
) -> None:
    """Otherwise their time would tell when they were stored."""
    ada = Caller(portal, oneself("ada"))
    form = [{"contentType": "application/pdf", "url": "Binary/scan"}]
    await chart.store(
        a_binary("scan"), a_result(iso(clock())), a_report(presentedForm=form),
        a_provenance("source", about=[REPORT]),
    )  # fmt: skip
    assert (await ada.get("Binary/scan")).status == 404
    clock.advance(DAY)
    await called(desk, "release", LAB, reason="told")
    for key in (LAB, REPORT, "Binary/scan", "Provenance/source"):
        found = await ada.get(key)
        assert found.response is not None
        assert (found.status, found.response.version) == (200, 2), key
        assert (await ada.get(f"{key}/_history/1")).status == 404, key


async def test_a_rule_that_goes_shows_what_it_withheld_as_changes(
    store: Any, chart: Caller, portal: Any, clock: Clock
) -> None:
    ada = Caller(portal, oneself("ada"))
    hide = {"name": "notes", "label": "withheld", "types": ["Encounter"]}
    close = {"name": "close", "label": "R", "types": ["Condition"]}
    await set_to(store, {"labels": [hide, close], **WAITS}, now=clock())
    await worked_off(portal, clock)
    await chart.store(
        an_encounter("visit"), an_observation("there", encounter=reference("Encounter/visit")),
        a_report(issued=iso(clock())),
    )  # fmt: skip
    clock.advance(1)
    asked = iso(clock())
    await set_to(store, {}, now=clock())
    await worked_off(portal, clock)
    opened = {"Encounter/visit", "Observation/there", REPORT}
    assert set(await since(ada, asked)) == opened
    (told, other) = [
        one for one in (await chart.get(f"_history?_since={asked}")).entries
        if one["resourceType"] == "Provenance"
    ]  # fmt: skip
    named = {one["reference"] for tree in (told, other) for one in tree["target"]}
    assert named == {f"{key}/_history/2" for key in opened}
    assert {tree["agent"][0]["who"]["display"] for tree in (told, other)} == {"Dermatology"}


# ---------------------------------------------------------------- an EHR that follows the feed


async def test_an_ehr_tells_a_release_from_a_change(
    waiting: Caller, portal: Any, clock: Clock
) -> None:
    """The version has the same content, and a Provenance in the same place names it."""
    before = {key: (await waiting.get(key)).json for key in (LAB, REPORT)}
    clock.advance(1)
    asked = iso(clock())
    await released(portal, clock)
    told = {f"{one['resourceType']}/{one['id']}": one for one in (
        await waiting.get(f"_history?_since={asked}")
    ).entries}  # fmt: skip
    (why,) = [one for key, one in told.items() if key.startswith("Provenance/")]
    assert set(told) == {LAB, REPORT, f"Provenance/{why['id']}"}
    for key in (LAB, REPORT):
        now, then = told[key], before[key]
        assert (version(then), version(now)) == ("2", "3")
        meta = {k: v for k, v in now.pop("meta").items() if k not in {"versionId", "lastUpdated"}}
        then_meta = then.pop("meta")
        assert meta == {k: v for k, v in then_meta.items() if k in meta}
        assert now == then
    named = {one["reference"] for one in why["target"]}
    assert named == {f"{LAB}/_history/3", f"{REPORT}/_history/3"}
    assert why["activity"]["coding"][0]["code"] == "disclose"
    assert why["reason"] == [{"text": "released by the rule labs"}]
    assert why["agent"][0]["who"] == {"display": "Dermatology"}
    assert {"system": PORTAL_TAG, "code": "withheld"} in why["meta"]["tag"]


async def test_staff_who_released_it_are_named(waiting: Caller, desk: Caller) -> None:
    await called(desk, "release", LAB, reason="told by phone")
    (why,) = (await waiting.get("Provenance?target=Observation/lab")).entries
    assert why["agent"][0]["who"] == reference("Practitioner/desk")
    assert why["reason"] == [{"text": "told by phone"}]
    assert {one["reference"] for one in why["target"]} == {
        f"{LAB}/_history/3", f"{REPORT}/_history/3",
    }  # fmt: skip


async def test_who_writes_upon_the_version_before_is_told_to_read_again(
    waiting: Caller, portal: Any, clock: Clock
) -> None:
    await released(portal, clock)
    tree = a_result(iso(START), status="amended")
    late = await waiting.ask("PUT", LAB, tree, if_match='W/"2"')
    assert (late.status, late.json["issue"][0]["code"]) == (412, "conflict")
    again = await waiting.ask("PUT", LAB, tree, if_match='W/"3"')
    assert (again.status, version(again.json)) == (200, "4")
    assert await labels(waiting.portal.server.store, LAB) == [set()], "it stays released"


async def test_an_ehr_that_sends_back_what_it_read_begins_no_circle(
    waiting: Caller, portal: Any, clock: Clock
) -> None:
    await released(portal, clock)
    tree = (await waiting.get(LAB)).json
    await waiting.put(tree)
    assert version((await waiting.get(LAB)).json) == "4"
    assert version((await waiting.get(REPORT)).json) == "3"


async def test_an_ehr_that_takes_its_tag_away_shows_the_report_as_a_change(
    chart: Caller, portal: Any, clock: Clock
) -> None:
    ada = Caller(portal, oneself("ada"))
    await chart.store(an_observation("there", meta=WITHHELD))
    await chart.store(a_report() | {"result": [reference("Observation/there")]})
    clock.advance(1)
    asked = iso(clock())
    await chart.store(an_observation("there", meta=OPEN))
    assert set(await since(ada, asked)) == {"Observation/there", REPORT}
    (why,) = (await chart.get("Provenance?target=DiagnosticReport/report")).entries
    assert why["target"] == [{"reference": f"{REPORT}/_history/2"}]
    assert why["reason"] == [{"text": "Observation/there/_history/2 hides it no more"}]
    assert why["agent"][0]["who"] == {"display": "ehr-of-dermatology"}


async def test_a_transaction_is_held_against_the_versions_that_its_sender_knew(
    chart: Caller, portal: Any
) -> None:
    """One entry opens what another one changes: that is no conflict of the sender's with itself."""
    await chart.store(an_encounter("visit", meta=WITHHELD))
    there = an_observation("there", encounter=reference("Encounter/visit"))
    await chart.store(there)
    changed = an_observation("there", encounter=reference("Encounter/visit"), value=73)
    entries = [
        {"resource": an_encounter("visit", meta=OPEN),
         "request": {"method": "PUT", "url": "Encounter/visit", "ifMatch": 'W/"1"'}},
        {"resource": changed,
         "request": {"method": "PUT", "url": "Observation/there", "ifMatch": 'W/"1"'}},
    ]  # fmt: skip
    bundle = {"resourceType": "Bundle", "type": "transaction", "entry": entries}
    answer = await chart.ask("POST", "", bundle)
    assert answer.status == 200, answer.body
    etag = answer.json["entry"][1]["response"]["etag"]
    now = (await Caller(portal, oneself("ada")).get("Observation/there")).json
    assert (etag, now["valueQuantity"]["value"]) == (f'W/"{version(now)}"', 73)
    stale = {**bundle, "entry": entries[1:]}
    assert (await chart.ask("POST", "", stale)).status == 412


def put(tree: Json, **more: str) -> Json:
    url = f"{tree['resourceType']}/{tree['id']}"
    return {"resource": tree, "request": {"method": "PUT", "url": url, **more}}


def transaction(*entries: Json) -> Json:
    return {"resourceType": "Bundle", "type": "transaction", "entry": list(entries)}


async def test_what_a_transaction_opens_and_corrects_shows_the_correction_alone(
    chart: Caller, portal: Any
) -> None:
    """Nobody was to see the value of before."""
    visit = reference("Encounter/visit")
    await chart.store(an_encounter("visit", meta=WITHHELD))
    await chart.store(an_observation("there", encounter=visit))
    answer = await chart.ask("POST", "", transaction(
        put(an_encounter("visit", meta=OPEN)),
        put(an_observation("there", encounter=visit, value=73), ifMatch='W/"1"'),
    ))  # fmt: skip
    assert answer.status == 200, answer.body
    assert answer.json["entry"][1]["response"]["etag"] == 'W/"2"'
    ada = Caller(portal, oneself("ada"))
    history = await ada.get("Observation/there/_history")
    assert [one["valueQuantity"]["value"] for one in history.entries] == [73]
    assert [version(one) for one in history.entries] == ["2"]
    assert (await chart.get("Provenance?target=Observation/there")).entries == []


async def test_what_a_transaction_opens_and_holds_back_is_not_shown_later(
    chart: Caller, portal: Any
) -> None:
    ada = Caller(portal, oneself("ada"))
    visit = reference("Encounter/visit")
    await chart.store(an_encounter("visit", meta=WITHHELD))
    await chart.store(an_observation("there", encounter=visit))
    await chart.ask("POST", "", transaction(
        put(an_encounter("visit", meta=OPEN)),
        put(an_observation("there", encounter=visit, meta=WITHHELD)),
    ))  # fmt: skip
    assert (await ada.get("Observation/there")).status == 404
    await chart.store(an_observation("there", encounter=visit, value=74, meta=OPEN))
    history = await ada.get("Observation/there/_history")
    assert [one["valueQuantity"]["value"] for one in history.entries] == [74]


async def test_an_import_that_opens_and_corrects_shows_the_correction_alone(
    store: Any, chart: Caller, portal: Any
) -> None:
    """It does not know beforehand what it will write: the version between stays hidden."""
    visit = reference("Encounter/visit")
    await chart.store(an_encounter("visit", meta=WITHHELD))
    await chart.store(an_observation("there", encounter=visit))
    server, auth = chart.portal.server, chart.auth

    async def work(changes: Any) -> None:
        for tree in (
            an_encounter("visit", meta=OPEN), an_observation("there", encounter=visit, value=73),
        ):  # fmt: skip
            key = ResourceKey(tree["resourceType"], tree["id"])
            visible = Visibility.of_server(key.type, practice=DERM)
            await update_in(
                changes, server, auth, tree, visible,
                key=key, if_match='W/"1"', if_none_match=None,
            )  # fmt: skip

    await store.transact(work)
    ada = Caller(portal, oneself("ada"))
    history = await ada.get("Observation/there/_history")
    assert [one["valueQuantity"]["value"] for one in history.entries] == [73]


async def test_what_a_transaction_opens_and_deletes_is_not_shown_when_it_comes_again(
    chart: Caller, portal: Any
) -> None:
    """The file of a hidden report and of one that is seen: the deletion of the first opens it."""
    ada = Caller(portal, oneself("ada"))
    form = [{"contentType": "application/pdf", "url": "Binary/scan"}]
    await chart.store(
        a_binary("scan"), bare(issued=iso(START), presentedForm=form, meta=WITHHELD),
        bare(issued=iso(START), presentedForm=form) | {"id": "seen"},
    )  # fmt: skip
    assert (await ada.get("Binary/scan")).status == 404
    answer = await chart.ask("POST", "", transaction(*(
        {"request": {"method": "DELETE", "url": url}} for url in (REPORT, "Binary/scan")
    )))  # fmt: skip
    assert answer.status == 200, answer.body
    assert (await ada.get("Binary/scan")).status == 404
    await chart.store(a_binary("scan", content="JVBERi0y"))
    history = await ada.get("Binary/scan/_history")
    assert [one["data"] for one in history.entries if "data" in one] == ["JVBERi0y"]


async def test_what_a_transaction_itself_wrote_has_the_version_that_was_answered(
    chart: Caller, portal: Any
) -> None:
    await chart.store(an_encounter("visit", meta=WITHHELD))
    there = an_observation("a-there", encounter=reference("Encounter/visit"))
    entries = [
        {"resource": tree, "request": {"method": "PUT", "url": url}}
        for url, tree in (
            ("Observation/a-there", there),
            ("Encounter/visit", an_encounter("visit", meta=OPEN)),
        )
    ]  # fmt: skip
    answer = await chart.ask(
        "POST", "", {"resourceType": "Bundle", "type": "transaction", "entry": entries}
    )
    assert answer.status == 200, answer.body
    now = await Caller(portal, oneself("ada")).get("Observation/a-there")
    assert (now.status, version(now.json)) == (200, "1")


async def test_a_label_that_only_keeps_proxies_out_makes_no_version_of_what_it_reached(
    chart: Caller, portal: Any, desk: Caller
) -> None:
    """The patient's app, which may have no scope for the visit, would learn of its label."""
    await chart.store(
        an_encounter("visit", meta=RESTRICTED),
        an_observation("there", encounter=reference("Encounter/visit")),
    )
    before = (await Caller(portal, oneself("ada")).get("Observation/there")).body
    gone = {"system": RESTRICTED["security"][0]["system"], "code": "R"}
    answer = await called(desk, "label", "Encounter/visit", remove=gone, reason="x")
    assert answer.status == 200
    friend = Caller(portal, a_proxy("ada", "friend", grant="g", sections=["results"]))
    assert (await Caller(portal, oneself("ada")).get("Observation/there")).body == before
    assert (await friend.get("Observation/there")).body == before


# ---------------------------------------------------------------- two workers, and one that dies


async def test_two_workers_release_it_once(
    store: Any, waiting: Caller, portal: Any, clock: Clock
) -> None:
    clock.advance(48 * HOUR)
    work = dict(label_jobs(portal.server))
    done = await asyncio.gather(
        *(jobs.work_off(store, work, worker=one, clock=clock) for one in ("a", "b"))
    )
    assert sum(done) == 1
    assert version((await waiting.get(LAB)).json) == "3"
    assert len((await waiting.get("Provenance?target=Observation/lab")).entries) == 1


async def test_a_worker_that_lost_its_turn_releases_nothing_a_second_time(
    store: Any, waiting: Caller, portal: Any, clock: Clock
) -> None:
    clock.advance(48 * HOUR)
    work = dict(label_jobs(portal.server))
    slow = await jobs.claim(store, RELEASE_JOB, "slow", clock())
    assert slow is not None
    clock.advance(jobs.LEASE_SECONDS + 1)
    await worked_off(portal, clock)
    with pytest.raises(StaleLease):
        await work[RELEASE_JOB](slow)
    await store.transact(lambda t: release_due(t, portal.server, DERM, LAB))
    assert version((await waiting.get(LAB)).json) == "3"


async def test_a_release_that_broke_off_left_nothing_and_is_done_again(
    store: Any, waiting: Caller, portal: Any, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever comes after the version is in its transaction: all of it, or none."""
    clock.advance(48 * HOUR)
    asked = iso(clock())

    async def torn(*_: Any, **__: Any) -> None:
        raise RuntimeError

    with monkeypatch.context() as patched:
        patched.setattr("fhir_portal.operations.label_jobs.record_disclosure", torn)
        await worked_off(portal, clock)
    assert (await store.get(Release, f"{DERM}/{LAB}")).state == "waits"
    assert await labels(store, LAB, REPORT) == [{"withheld"}, {"withheld"}]
    assert await since(waiting, asked) == []
    assert await store.find(Shown, "record", f"{DERM}/ada") == []
    clock.advance(60)
    await worked_off(portal, clock)
    assert version((await waiting.get(LAB)).json) == "3"
    assert await labels(store, LAB, REPORT) == [set(), set()]


async def test_staff_and_the_job_at_once_release_it_once(
    waiting: Caller, desk: Caller, portal: Any, clock: Clock
) -> None:
    clock.advance(48 * HOUR)
    answer, _ = await asyncio.gather(
        called(desk, "release", LAB, reason="told"), worked_off(portal, clock)
    )
    assert answer.status in {200, 409}
    assert version((await waiting.get(LAB)).json) == "3"


# ---------------------------------------------------------------- its parts


async def test_what_was_nobodys_is_not_opened_to_anybody(store: Any, chart: Caller) -> None:
    await chart.store(a_practitioner("doc", meta=WITHHELD))
    visible = Visibility.of_server("Practitioner", practice=DERM)
    row = await store.read(ResourceKey("Practitioner", "doc"), visible)

    async def work(transaction: Any) -> bool:
        opening = Opening(transaction, now=START)
        return await opening.version(row.facts, with_labels(row.facts, frozenset()))

    assert not await store.transact(work)


async def test_many_versions_are_named_by_several_provenances_and_records_apart(
    store: Any, chart: Caller
) -> None:
    rows = []
    for own_id, of in (("a", "ada"), ("b", "bo"), ("c", "ada")):
        await chart.store(an_observation(own_id, of=of))
        rows.append(
            await store.read(
                ResourceKey("Observation", own_id),
                Visibility.of_server("Observation", practice=DERM),
            )
        )
    trees = list(disclosures(rows * 60, at=START, agent={"who": {"display": "x"}}, reason="y"))
    assert [len(one["target"]) for one in trees] == [100, 20, 60]
