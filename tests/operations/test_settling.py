"""Too much depends on a write: hidden with it, in nobody's answer meanwhile, right at the end."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from fhir_portal.consent.label_rules import Relabelling
from fhir_portal.consent.labels import SETTLED, SETTLING, UNSETTLED
from fhir_portal.fhir.errors import Unavailable
from fhir_portal.notify import jobs
from fhir_portal.notify.jobs import Job
from fhir_portal.notify.lease import StaleLease, fail
from fhir_portal.operations import settling_jobs as module
from fhir_portal.operations.label_jobs import relabel_practice
from fhir_portal.operations.settling_jobs import settle_step, settling_jobs
from fhir_portal.resources import passing_on, settling
from fhir_portal.resources.reindex import reindex
from fhir_portal.resources.settling import SETTLE_JOB, Settling, SettlingPiece
from tests.access.test_closure import NORMAL, labelled, labels
from tests.builders import (
    DERM,
    RESTRICTED,
    WITHHELD,
    Caller,
    Clock,
    Json,
    a_binary,
    a_communication,
    a_document,
    a_patient,
    a_portal,
    a_practitioner,
    a_provenance,
    a_proxy,
    an_encounter,
    an_observation,
    concept,
    oneself,
    reference,
    resource,
)
from tests.operations.test_label_rules import Resolved, as_person, set_to  # noqa: F401 - a fixture
from tests.operations.test_labels import called, told
from tests.staff import a_member_of_staff
from tests.stores.rows import a_row, write

VISIT = reference("Encounter/visit")
RESULTS = [f"Observation/o{n}" for n in range(12)]
FAR = ("DiagnosticReport/r", "Communication/c", "DocumentReference/d", "Binary/b", "Provenance/p")
HIDDEN = ("Encounter/visit", *RESULTS, *FAR)
TREES: tuple[Json, ...] = (
    a_patient("ada"),
    a_practitioner("desk"),
    an_encounter("visit"),
    *(an_observation(f"o{n}", encounter=VISIT) for n in range(12)),
    resource(
        "DiagnosticReport", "r", status="final", code=concept("http://loinc.org", "58410-2"),
        subject=reference("Patient/ada"), result=[reference(RESULTS[0])],
    ),
    a_communication("c", about=[reference("DiagnosticReport/r")]),
    a_binary("b"),
    a_document("d", binary="b", context={"encounter": [VISIT]}),
    a_provenance("p", about=["DocumentReference/d"]),
    an_observation("open"),
)  # fmt: skip


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passing_on, "MOST", 5)
    monkeypatch.setattr(settling, "PIECE", 4)
    monkeypatch.setattr(module, "HIDDEN_IN_A_STEP", 3)
    monkeypatch.setattr(module, "SHOWN_IN_A_STEP", 1)


@pytest.fixture
async def chart(store: Any, ehr: Caller, small: None) -> Caller:  # noqa: ARG001 - it patches
    await ehr.store(*TREES)
    assert await store.get(Settling, DERM) is None, "nothing was labelled"
    return ehr


async def step(store: Any) -> bool:
    found: bool = await store.transact(lambda t: settle_step(t, DERM))
    return found


async def worked_off(store: Any, clock: Clock, **more: Any) -> int:
    known = {**settling_jobs(a_portal(store, clock).server), **more}
    return await jobs.work_off(store, known, worker="w", clock=clock)


async def marked(store: Any) -> set[str]:
    found = await labels(store, *HIDDEN, "Observation/open")
    keys = (*HIDDEN, "Observation/open")
    return {key for key, held in zip(keys, found, strict=True) if held & UNSETTLED}


async def test_the_write_succeeds_and_all_that_depends_on_it_is_hidden_with_it(
    store: Any, chart: Caller, clock: Clock
) -> None:
    answer = await chart.put(an_encounter("visit", meta=RESTRICTED))
    assert answer.status == 200
    assert await marked(store) == set(HIDDEN), "and nothing else"
    assert await labels(store, *HIDDEN) == [{SETTLING}] * len(HIDDEN)
    assert await worked_off(store, clock) == 1
    assert await labels(store, *HIDDEN) == [{"R"}] * len(HIDDEN)
    assert await store.every(SettlingPiece) == []
    await chart.store(an_encounter("visit", meta=NORMAL))
    assert await marked(store) == set(HIDDEN)
    assert await worked_off(store, clock) == 1
    assert await labels(store, *HIDDEN, "Observation/open") == [set()] * (len(HIDDEN) + 1)


ASKED = (
    *HIDDEN,
    *(f"{key}/_history" for key in HIDDEN),
    *(f"{key}/_history/1" for key in HIDDEN),
)
SEARCHES = (
    "Observation", "Encounter", "DiagnosticReport", "Communication", "DocumentReference",
    "Provenance", "Observation?_summary=count", "Observation?_total=accurate&_count=1",
    "Observation?_include=Observation:encounter", "Observation?encounter=Encounter/visit",
    "Observation?_has:DiagnosticReport:result:status=final", "Provenance?target:missing=false",
    "Patient?_id=ada&_revinclude=Observation:subject", "Observation?encounter:missing=false",
    "DiagnosticReport?result.status=final", "_history",
    "Patient/ada/$everything", "Patient/ada/$portal-dashboard",
    "Patient/ada/$export-self", "Patient/ada/$summary",
)  # fmt: skip


def said_of(answer: Any, path: str) -> list[str]:
    """Return what an answer tells of what is hidden: names, and counts above those shown."""
    body = answer.body.decode(errors="replace")
    found = [key for key in HIDDEN if f'"{key}"' in body or f"/{key}" in body]
    found += [one for one in HIDDEN if f'"id":"{one.partition("/")[2]}"' in body]
    total = answer.json.get("total") if body.startswith("{") else None
    if total and path.startswith("Observation?") and total > 1:
        found.append(f"total {total}")
    return found


@pytest.mark.parametrize("who", ["self", "proxy", "link", "limited", "bound"])
async def test_no_answer_shows_any_of_it_until_the_job_is_through(
    portal: Any, store: Any, chart: Caller, who: str
) -> None:
    sections = ["results", "visits", "documents", "messages", "health-summary"]
    auth = {
        "self": oneself("ada"),
        "proxy": a_proxy("ada", "friend", sections=sections),
        "link": Caller(portal, a_proxy("ada", "friend", sections=sections)).who(share="l").auth,
        "limited": a_member_of_staff("desk", permissions=("view",)),
        "bound": a_member_of_staff("desk", permissions=("view",), patient="ada"),
    }[who]
    reader = Caller(portal, auth)
    if who != "link":
        assert (await reader.get("Observation/o1")).status == 200
        assert said_of(await reader.get("Observation"), "Observation")
    # The label is one that this reader may see, and yet nothing is shown before it is known.
    await chart.store(an_encounter("visit", meta=NORMAL | {"security": RESTRICTED["security"]}))
    looked = 0
    while True:
        for path in ASKED:
            assert (await reader.get(path)).status in {403, 404}, (looked, path)
        for path in SEARCHES:
            answer = await reader.get(path)
            assert said_of(answer, path) == [], (looked, path)
        if who in {"self", "limited"}:
            assert (await reader.get("Observation/open")).status == 200, "the rest is shown"
        if (await store.every(SettlingPiece)) == [] or looked > 40:
            break
        looked += 1
        await step(store)
        if SETTLING not in set().union(*await labels(store, *HIDDEN)) and not await _compute_left(
            store
        ):
            break  # from here on it is shown piece by piece
    assert looked >= 4
    while await step(store):
        pass
    shown = [(await reader.get(key)).status for key in ("Observation/o1", "Encounter/visit")]
    assert shown == ([404, 404] if who in {"proxy", "link"} else [200, 200])


async def _compute_left(store: Any) -> bool:
    return any("/compute/" in piece.key for piece in await store.every(SettlingPiece))


async def test_who_may_not_see_the_label_sees_it_at_no_time(
    portal: Any, store: Any, chart: Caller
) -> None:
    """Each row after each step: what is not to be seen at the end is not seen before."""
    ada = Caller(portal, oneself("ada"))
    await chart.store(an_encounter("visit", meta=WITHHELD))
    while await step(store):
        for key in HIDDEN:
            assert (await ada.get(key)).status == 404
    assert await labels(store, *HIDDEN) == [{"withheld"}] * len(HIDDEN)


async def test_what_is_too_much_to_hide_shuts_the_practice_until_it_is_hidden(
    store: Any,
    chart: Caller,
    monkeypatch: pytest.MonkeyPatch,
    as_person: Callable[..., Any],  # noqa: F811
) -> None:
    monkeypatch.setattr(settling, "HIDDEN_AT_ONCE", 3)
    ada: Resolved = await as_person()
    assert (await ada.get("Observation/open")).status == 200
    await chart.store(an_encounter("visit", meta=WITHHELD))
    seen: list[tuple[int, bool, bool]] = []
    while True:
        marker = await store.get(Relabelling, DERM)
        for key in HIDDEN:
            assert (await ada.get(key)).status == 404
        shown = (await ada.get("Observation/open")).status == 200
        assert (await ada.get("Patient/ada")).status == 200
        assert shown == (marker is None)
        seen.append((len(await marked(store)), marker is not None, shown))
        if not await step(store):
            break
    hidden = [count for count, shuts, _ in seen if shuts]
    assert hidden[0] == 4
    assert hidden == sorted(hidden)
    assert max(hidden) == len(HIDDEN), "the practice is open when all of it is hidden"
    assert seen[-1] == (0, False, True)
    assert await labels(store, *HIDDEN) == [{"withheld"}] * len(HIDDEN)


async def test_rules_set_meanwhile_and_the_shut_practice_do_not_open_each_other(
    store: Any, chart: Caller, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settling, "HIDDEN_AT_ONCE", 3)
    server = a_portal(store, clock).server
    await chart.store(an_encounter("visit", meta=WITHHELD))
    await set_to(store, {"labels": [{"name": "all", "label": "SDV", "types": ["Communication"]}]})
    await relabel_practice(server, DERM)
    marker = await store.get(Relabelling, DERM)
    assert (marker.shuts, marker.hides, marker.spreads) == (True, False, True)
    assert await relabel_practice(server, DERM) == 0
    await set_to(store, {"labels": [{"name": "all", "label": "SEX", "types": ["Communication"]}]})
    while (await store.get(Relabelling, DERM)).spreads:
        await step(store)
    assert (await store.get(Relabelling, DERM)).shuts, "the rule is not carried out"
    await relabel_practice(server, DERM)
    assert await store.get(Relabelling, DERM) is None
    await worked_off(store, clock)
    assert await labels(store, "Communication/c", "Observation/o1") == [
        {"SEX", "withheld"}, {"withheld"}
    ]  # fmt: skip


async def test_a_worker_that_is_killed_half_way_is_followed_by_another(
    store: Any, chart: Caller, clock: Clock
) -> None:
    """It has a lease and some steps behind it; what it does late is refused and changes nothing."""
    known = settling_jobs(a_portal(store, clock).server)
    await chart.store(an_encounter("visit", meta=RESTRICTED))
    await step(store)
    lost = await jobs.claim(store, SETTLE_JOB, "lost", clock())
    assert lost is not None
    assert await worked_off(store, clock) == 0, "one at a time"
    assert await marked(store)
    clock.advance(jobs.LEASE_SECONDS + 1)
    other = await jobs.claim(store, SETTLE_JOB, "other", clock())
    assert other is not None
    before = await store.every(SettlingPiece)
    with pytest.raises(StaleLease):
        await known[SETTLE_JOB](lost)
    assert await store.every(SettlingPiece) == before
    clock.advance(jobs.LEASE_SECONDS + 1)
    await worked_off(store, clock)
    assert await labels(store, *HIDDEN) == [{"R"}] * len(HIDDEN)


async def test_a_step_that_fails_leaves_all_as_it_was_and_is_done_again(
    store: Any, chart: Caller, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    await chart.store(an_encounter("visit", meta=RESTRICTED))
    await step(store)
    before = [await labels(store, *HIDDEN), await store.every(SettlingPiece)]

    async def failing(*_: Any, **__: Any) -> None:
        message = "the last thing that a step does"
        raise RuntimeError(message)

    with monkeypatch.context() as broken:
        broken.setattr(module, "add_pieces", failing)
        assert await worked_off(store, clock) == 0
    assert [await labels(store, *HIDDEN), await store.every(SettlingPiece)] == before
    clock.advance(3600)
    await worked_off(store, clock)
    assert await labels(store, *HIDDEN) == [{"R"}] * len(HIDDEN)


async def test_a_job_that_was_given_up_is_there_again_with_the_next_write(
    store: Any, chart: Caller, clock: Clock
) -> None:
    await chart.store(an_encounter("visit", meta=RESTRICTED))
    (job,) = [one for one in await store.every(Job) if one.name == SETTLE_JOB]
    lost = await jobs.claim(store, SETTLE_JOB, "w", clock())
    assert lost is not None
    await fail(store, lost, retry_at=None)
    assert await worked_off(store, clock) == 0
    await chart.store(an_encounter("visit", meta=WITHHELD))
    await worked_off(store, clock)
    assert await marked(store) == set()
    assert (await store.get(Job, job.key)).state == "failed"


async def test_a_job_that_gets_on_is_not_given_up_for_what_failed_before(
    store: Any, chart: Caller, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A database that has no time now and then, over some hundred steps, or none for a day."""
    await chart.store(an_encounter("visit", meta=RESTRICTED))
    looks = 0

    async def busy(*of: Any, **more: Any) -> bool:
        nonlocal looks
        looks += 1
        if looks % 2 or looks > 20:
            message = "try again later"
            raise Unavailable(message)
        return await settle_step(*of, **more)

    with monkeypatch.context() as flaky:
        flaky.setattr(module, "settle_step", busy)
        for _ in range(60):
            await worked_off(store, clock)
            clock.advance(1_000)
        assert looks > 60, "it is tried all the time"
    (job,) = [one for one in await store.every(Job) if one.name == SETTLE_JOB]
    assert (job.state, job.fault) == ("waiting", "Unavailable")
    assert "Tell whoever runs the server" in (await settling.under_way(store, DERM))[-1]
    await worked_off(store, clock)
    assert await marked(store) == set()
    assert await settling.under_way(store, DERM) == []


async def test_what_is_too_much_is_neither_read_nor_looked_up_again_with_every_step(
    store: Any, chart: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Memory and time for a hundred thousand rows: their edges once, what they say not at all."""
    monkeypatch.setattr(settling, "HIDDEN_AT_ONCE", 3)
    read: list[str] = []
    looked: list[str] = []

    async def write(work: Any) -> Any:
        async def spied(transaction: Any) -> Any:
            referrers, edges = transaction.referrers, transaction.edges

            async def read_referrers(*of: Any, **more: Any) -> Any:
                found = await referrers(*of, **more)
                read.extend(str(row.key) for row in found)
                return found

            async def look_at_edges(keys: Any, practice: str) -> Any:
                looked.extend(map(str, keys))
                return await edges(keys, practice)

            transaction.referrers, transaction.edges = read_referrers, look_at_edges
            return await work(transaction)

        return await store.__class__.transact(store, spied)

    with monkeypatch.context() as spy:
        spy.setattr(store, "transact", write)
        assert (await chart.put(an_encounter("visit", meta=RESTRICTED))).status == 200
        assert set(read) <= {"Binary/b"}
        while (marker := await store.get(Relabelling, DERM)) is not None and marker.spreads:
            await step(store)
    assert looked.count("Encounter/visit") == 3, "to count them, to hide them, and last itself"
    while await step(store):
        pass
    assert await labels(store, *HIDDEN) == [{"R"}] * len(HIDDEN)


async def test_other_jobs_have_their_turn_between_the_steps(
    store: Any, chart: Caller, clock: Clock
) -> None:
    await chart.store(an_encounter("visit", meta=RESTRICTED))
    for number in range(3):
        await store.transact(
            lambda t, n=number: jobs.enqueue(
                t, key=f"mail/{n}", practice=DERM, name="mail", now=clock()
            )
        )
    during: list[int] = []

    async def mail(_: Any) -> None:
        during.append(len(await marked(store)))

    await worked_off(store, clock, mail=mail)
    assert len(during) == 3
    assert all(during), "none of them waited for the end"


async def test_what_is_written_meanwhile_and_refers_to_it_is_hidden_too(
    portal: Any, store: Any, chart: Caller
) -> None:
    """In another record as well, which the job was not at."""
    bo = Caller(portal, oneself("bo"))
    await chart.store(a_patient("bo"), an_encounter("visit", meta=WITHHELD))
    await step(store)
    about = a_communication("new", of="bo", about=[reference("Observation/o7")])
    after = a_communication("after", of="bo", about=[reference("Communication/new")])
    await chart.store(after, about)
    while True:
        assert (await bo.get("Communication/new")).status == 404
        assert (await bo.get("Communication/after")).status == 404
        if not await step(store):
            break
    assert await labels(store, "Communication/new", "Communication/after") == [{"withheld"}] * 2


async def test_a_label_that_is_added_and_one_that_is_removed_meanwhile_count(
    store: Any, chart: Caller, clock: Clock
) -> None:
    await chart.store(an_encounter("visit", meta=RESTRICTED))
    for _ in range(4):
        await step(store)
    await chart.store(labelled(an_observation("o3", encounter=VISIT), WITHHELD))
    for _ in range(3):
        await step(store)
    await chart.store(an_encounter("visit", meta=NORMAL))
    for _ in range(5):
        await step(store)
    await chart.store(an_observation("o4"))
    assert (await chart.delete("Observation/o5")).status in {200, 204}
    await worked_off(store, clock)
    assert await labels(store, *HIDDEN) == [
        {"withheld"} if key == "Observation/o3" else set() for key in HIDDEN
    ]


async def test_what_is_computed_already_follows_what_changes_beside_it(
    store: Any, chart: Caller, clock: Clock
) -> None:
    """The other visit is no part of it, and yet what is computed takes labels from there."""
    other = reference("Encounter/other")
    await chart.store(
        labelled(an_encounter("other")), an_observation("o6", encounter=VISIT, focus=[other])
    )
    await worked_off(store, clock)
    await chart.store(an_encounter("visit", meta=WITHHELD))
    while SETTLED not in set().union(*await labels(store, "Observation/o6")):
        await step(store)
    assert await labels(store, "Observation/o6") == [{"R", "withheld", SETTLED}]
    await chart.store(an_encounter("other", meta=NORMAL))
    assert await marked(store) >= {"Observation/o6"}
    await worked_off(store, clock)
    assert await labels(store, "Observation/o6") == [{"withheld"}]
    await chart.store(an_encounter("visit", meta=NORMAL))
    await worked_off(store, clock)
    assert await labels(store, "Observation/o6") == [set()]


async def test_a_write_that_changes_no_label_does_not_begin_it_anew(
    store: Any, chart: Caller
) -> None:
    await chart.store(an_encounter("visit", meta=RESTRICTED))
    for _ in range(3):
        await step(store)
    before = await labels(store, *HIDDEN)
    pieces = await store.every(SettlingPiece)
    again = an_encounter("visit", meta=RESTRICTED, period={"start": "2030-01-01"})
    assert (await chart.put(again)).status == 200
    assert await labels(store, *HIDDEN) == before
    assert await store.every(SettlingPiece) == pieces


async def test_rows_that_are_indexed_anew_meanwhile_stay_hidden(
    store: Any, chart: Caller, clock: Clock
) -> None:
    await chart.store(an_encounter("visit", meta=RESTRICTED))
    for _ in range(4):
        await step(store)
    store.database.writer.execute("UPDATE resource SET index_version = 0")
    await reindex(store)
    assert await marked(store) == set(HIDDEN)
    await worked_off(store, clock)
    assert await labels(store, *HIDDEN, "Observation/open") == [
        *([{"R"}] * len(HIDDEN)), set()
    ]  # fmt: skip


async def test_a_release_that_concerns_too_much_is_carried_out(
    store: Any, chart: Caller, portal: Any, clock: Clock
) -> None:
    """Staff hold back a result that much depends on, and release it again."""
    staff = Caller(portal, a_member_of_staff("desk", permissions=("view", "documents")))
    await chart.store(
        *(a_communication(f"m{n}", about=[reference("Observation/open")]) for n in range(9))
    )
    keys = ["Observation/open", *(f"Communication/m{n}" for n in range(9))]
    held = await called(
        staff, "hold-back", keys[0], exception="preventing-harm", reason="first a talk"
    )
    assert held.status == 200, held.body
    assert await labels(store, *keys) == [{SETTLING}] * 10
    await worked_off(store, clock)
    assert await labels(store, *keys) == [{"withheld"}] * 10
    released = await called(staff, "release", keys[0], reason="we talked")
    assert released.status == 200
    assert [one["valueCode"] for one in released.json["parameter"]] == ["withheld"], "till then"
    await worked_off(store, clock)
    assert await labels(store, *keys) == [set()] * 10


async def test_what_is_released_meanwhile_has_a_new_version_when_it_is_shown(
    store: Any, chart: Caller, portal: Any, clock: Clock
) -> None:
    """Who polls learns of it: by its old version it would be older than the last question."""
    every = ("view", "documents", "appointments", "invite", "recover", "billing")
    staff = Caller(portal, a_member_of_staff("desk", permissions=every))
    ada = Caller(portal, oneself("ada"))
    for number in (1, 2):
        await called(
            staff, "hold-back", f"Observation/o{number}", exception="preventing-harm", reason="talk"
        )
    await chart.store(an_encounter("visit", meta=RESTRICTED))
    await step(store)
    for number in (1, 2):
        answer = await called(staff, "release", f"Observation/o{number}", reason="we talked")
        assert answer.status == 200
    await called(
        staff, "hold-back", "Observation/o2", exception="preventing-harm", reason="not yet"
    )
    clock.advance(60)
    asked = (await chart.get("Patient/ada")).json["meta"]["lastUpdated"]
    await worked_off(store, clock)
    found = await ada.get(f"Observation?_lastUpdated=gt{asked}&_total=accurate")
    assert [one["id"] for one in found.entries if one["meta"]["versionId"] == "2"] == ["o1"]
    assert (await ada.get("Observation/o1/_history/1")).status == 404
    limited = Caller(portal, a_member_of_staff("desk", permissions=("view",)))
    assert (await limited.get("Observation/o1/_history/1")).status == 200
    assert (await ada.get("Observation/o2")).status == 404
    assert await labels(store, "Observation/o1", "Observation/o2") == [{"R"}, {"R", "withheld"}]
    assert await store.every(settling.SettlingOpened) == []


async def test_staff_are_told_that_it_is_being_worked_out(
    portal: Any, store: Any, chart: Caller, clock: Clock
) -> None:
    every = ("view", "documents", "appointments", "invite", "recover", "billing")
    staff = Caller(portal, a_member_of_staff("desk", permissions=every))
    await chart.store(an_encounter("visit", meta=RESTRICTED))
    for _ in range(3):
        answer = await called(staff, "labels", "Observation/o1")
        (one,) = [one for one in told(answer) if one["source"] == "settling"]
        assert "not shown to patients" in one["reason"]
        assert "-sett" not in answer.body.decode()
        await step(store)
    written = await called(staff, "label", "Observation/o2", add=_SDV, reason="as asked")
    assert "-sett" not in written.body.decode()
    await worked_off(store, clock)
    found = told(await called(staff, "labels", "Observation/o1"))
    assert [one["source"] for one in found] == ["reference"]


_SDV = {"system": "http://terminology.hl7.org/CodeSystem/v3-ActCode", "code": "SDV"}


async def test_over_the_true_bound(store: Any, ehr: Caller, portal: Any) -> None:
    """More than 10,000 rows: the write is taken, and none of them is shown."""
    count = passing_on.MOST + 1
    await ehr.store(a_patient("ada"), an_encounter("visit"))
    rows = (a_row(an_observation(f"o{n}", encounter=VISIT)) for n in range(count))
    await write(store, *rows)
    ada = Caller(portal, oneself("ada"))
    assert (await ada.get("Observation?_summary=count")).json["total"] == count
    assert (await ehr.put(an_encounter("visit", meta=WITHHELD))).status == 200
    for _ in range(2):
        assert (await ada.get("Observation?_summary=count")).json["total"] == 0
        assert await step(store)
    assert (await ehr.get("Observation?_summary=count")).json["total"] == count
    assert await store.get(Relabelling, DERM) is None, "the practice is not shut for it"
