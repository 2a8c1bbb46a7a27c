"""A release tells those who may see the result, and nobody else anything; and it is new."""

from __future__ import annotations

from typing import Any

import pytest

from fhir_portal.access.context import AuthContext
from fhir_portal.resources.release import HOUR
from tests.builders import (
    FAMILY,
    RESTRICTED,
    START,
    WITHHELD,
    Caller,
    Clock,
    Json,
    a_proxy,
    an_ehr,
    an_observation,
    oneself,
    reference,
)
from tests.operations.holding import values
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
from tests.operations.test_label_rules import a_report, iso, worked_off
from tests.operations.test_labels import called
from tests.staff import a_member_of_staff

__all__ = ["chart", "desk", "portal", "store", "waiting"]


# ---------------------------------------------------------------- what nobody may learn by it


async def test_neither_numbers_nor_history_tell_when_or_what_was_stored(
    waiting: Caller, portal: Any, clock: Clock
) -> None:
    ada = Caller(portal, oneself("ada"))
    before = (await waiting.get(LAB)).json["meta"]["lastUpdated"]
    await released(portal, clock)
    history = await ada.get(f"{LAB}/_history")
    assert (history.json["total"], [version(one) for one in history.entries]) == (1, ["3"])
    gone = await ada.get(f"{LAB}/_history/9")
    for number in (1, 2):
        hidden = await ada.get(f"{LAB}/_history/{number}")
        assert hidden.status == 404
        words = hidden.body.replace(f"/{number}".encode(), b"/9")
        assert words.replace(f" {number} ".encode(), b" 9 ") == gone.body
    everything = await ada.get("_history?_count=200")
    assert before not in everything.body.decode() + (await ada.get(LAB)).body.decode()
    assert (await ada.get("Provenance?target=Observation/lab")).entries == []
    assert (await ada.get("Provenance?_total=accurate")).json["total"] == 0


@pytest.fixture
def others() -> dict[str, AuthContext]:
    """Who must see the same before and after Ada's result was released."""
    return {
        "another patient": oneself("bo"),
        "a proxy without the section": a_proxy("ada", "friend", grant="g", sections=["messages"]),
        "a proxy of another": a_proxy("bo", "friend", grant="g", sections=["results"]),
        "a right that ended": a_proxy("ada", "ex", grant="g", sections=["results"], until=START),
        "a narrower scope": oneself("ada", scope="openid patient/Condition.rs"),
        "another category": oneself(
            "ada",
            scope="patient/Observation.rs?category=vital-signs patient/Condition.rs",
        ),
        "another practice": oneself("ada", FAMILY),
        "another practice's EHR": an_ehr(FAMILY),
    }


QUESTIONS = (
    "_history?_count=100", "Observation?_total=accurate", "DiagnosticReport?_total=accurate",
    "Observation?_lastUpdated=gt2000-01-01", "Provenance?target=Observation/lab",
    LAB, f"{LAB}/_history", f"{LAB}/_history/3", REPORT, f"{REPORT}/_history/3",
    "Patient/ada/$portal-dashboard",
)  # fmt: skip


@pytest.mark.parametrize("by", ["hand", "job"])
@pytest.mark.usefixtures("waiting")
async def test_nobody_else_notices_a_release(
    others: Any, desk: Caller, portal: Any, clock: Clock, by: str
) -> None:
    clock.advance(1)

    async def seen() -> dict[str, list[Any]]:
        found: dict[str, list[Any]] = {}
        for who, auth in others.items():
            there = Caller(portal, auth)
            answers = [await there.ask("GET", one) for one in QUESTIONS]
            found[who] = [(one.status, one.body) for one in answers]
        return found

    if by == "job":
        clock.advance(47 * HOUR)  # the same day, and as near to its time as it gets
    before = await seen()
    if by == "hand":
        assert (await called(desk, "release", LAB, reason="told")).status == 200
    else:
        clock.advance(HOUR)
        await worked_off(portal, clock)
    assert (await Caller(portal, oneself("ada")).get(LAB)).status == 200
    after = await seen()
    for who, answers in before.items():
        assert after[who] == answers, who


async def test_an_expired_token_and_one_who_may_not_release_change_nothing(
    waiting: Caller, portal: Any, clock: Clock
) -> None:
    before = (await waiting.get(LAB)).body
    for auth in (
        oneself("ada"),
        a_proxy("ada", "friend", grant="g", sections=["results"], act=["results"]),
        a_member_of_staff("desk", permissions=("view",)),
        a_member_of_staff("desk", permissions=("view", "documents"), scope="user/Observation.rs"),
    ):
        assert (await called(Caller(portal, auth), "release", LAB, reason="x")).status == 403
    late = Caller(portal, oneself("ada")).who(expires=clock())
    assert (await late.get(LAB)).status in {401, 403}
    assert (await waiting.get(LAB)).body == before


@pytest.mark.usefixtures("waiting")
async def test_a_proxy_with_the_section_sees_the_version_of_now_alone(
    portal: Any, clock: Clock
) -> None:
    friend = Caller(portal, a_proxy("ada", "friend", grant="g", sections=["results"]))
    clock.advance(1)
    asked = iso(clock())
    await released(portal, clock)
    assert set(await since(friend, asked)) == {LAB, REPORT}
    history = await friend.get(f"{LAB}/_history")
    assert [version(one) for one in history.entries] == ["3"]


# ---------------------------------------------------------------- what is new


async def shown(by: Caller) -> Json:
    found: Json = values(await by.ask("GET", "Patient/ada/$portal-dashboard"))["new-results"]
    return found


@pytest.mark.requirement("portal", "S1-36")
async def test_a_result_that_was_held_back_for_long_is_new_when_it_is_released(
    chart: Caller, desk: Caller, portal: Any, clock: Clock
) -> None:
    ada = Caller(portal, oneself("ada"))
    friend = Caller(portal, a_proxy("ada", "friend", grant="g", sections=["results"]))
    await chart.store(an_observation("there"))
    await chart.store(a_report(issued=iso(clock())) | {"result": [reference("Observation/there")]})
    await called(desk, "hold-back", "Observation/there", **HELD)
    clock.advance(50 * DAY)
    await chart.store(bare(issued=iso(clock())) | {"id": "recent"})
    for by in (ada, friend):
        assert (await shown(by))["count"] == 1
    await called(desk, "release", "Observation/there", reason="told")
    for by in (ada, friend):
        new = await shown(by)
        assert (new["count"], new["latest"]) == (2, reference("DiagnosticReport/recent"))
        assert new["report"] == [reference("DiagnosticReport/recent"), reference(REPORT)]
    clock.advance(29 * DAY)
    assert (await shown(ada))["count"] == 2
    clock.advance(3 * DAY)
    assert (await shown(ada))["count"] == 0


@pytest.mark.usefixtures("waiting")
async def test_what_was_released_and_is_hidden_again_is_not_new(
    desk: Caller, portal: Any, clock: Clock
) -> None:
    ada = Caller(portal, oneself("ada"))
    clock.advance(40 * DAY)
    before = (await ada.ask("GET", "Patient/ada/$portal-dashboard")).body
    await called(desk, "release", LAB, reason="told")
    assert (await shown(ada))["count"] == 1
    await called(desk, "hold-back", LAB, **HELD)
    assert (await ada.ask("GET", "Patient/ada/$portal-dashboard")).body == before


async def test_a_proxy_whom_a_label_keeps_out_is_told_of_nothing_new(
    waiting: Caller, desk: Caller, portal: Any, clock: Clock
) -> None:
    friend = Caller(portal, a_proxy("ada", "friend", grant="g", sections=["results"]))
    await waiting.store(a_report(issued=iso(clock()), meta=RESTRICTED))
    clock.advance(40 * DAY)
    await called(desk, "release", LAB, reason="told")
    assert (await shown(Caller(portal, oneself("ada"))))["count"] == 1
    assert (await shown(friend))["count"] == 0


async def test_a_file_of_history_is_not_new(chart: Caller, portal: Any, clock: Clock) -> None:
    """What comes today and was issued long ago was never withheld."""
    await chart.store(bare(issued=iso(clock() - 100 * DAY)))
    assert (await shown(Caller(portal, oneself("ada"))))["count"] == 0


async def test_what_an_ehr_opens_itself_is_new(chart: Caller, portal: Any, clock: Clock) -> None:
    old = iso(clock() - 100 * DAY)
    await chart.store(bare(issued=old, meta=WITHHELD))
    await chart.store(bare(issued=old, meta=OPEN))
    assert (await shown(Caller(portal, oneself("ada"))))["count"] == 1


async def test_more_reports_than_are_counted_are_said_to_be_more(
    chart: Caller, portal: Any, clock: Clock
) -> None:
    old = iso(clock() - 100 * DAY)
    for number in range(52):
        tree = bare(issued=old) | {"id": f"r-{number:02}"}
        await chart.store(tree | {"meta": WITHHELD})
        await chart.store(tree | {"meta": OPEN})
    new = await shown(Caller(portal, oneself("ada")))
    assert (new["count"], new["more"], len(new["report"])) == (50, True, 50)
