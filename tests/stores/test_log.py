from __future__ import annotations

import asyncio
from typing import Any

import msgspec

from fhir_portal.access.log import AccessRow
from tests.builders import DERM, FAMILY

LOWEST, HIGHEST = 0, 2**62


def a_line(
    at: int = 1, *, record: str = "ada", agent: str = "Patient/ada", **more: Any
) -> AccessRow:
    given: dict[str, Any] = {
        "practice": DERM,
        "interaction": "read",
        "what": "Observation/a",
        "status": 200,
        "client": "app",
        "context": "patient",
    }
    return AccessRow(at=at, record=record, agent=agent, **given | more)


async def lines(store: Any, record: str | None = "ada", **more: Any) -> list[Any]:
    given = {
        "agent": None,
        "told": record is not None,
        "low": LOWEST,
        "high": HIGHEST,
        "before": None,
        "limit": 100,
    }
    practice = more.pop("practice", DERM)
    found: list[Any] = await store.log.of_record(practice, record, **given | more)
    return found


async def test_lines_come_back_newest_first(store: Any) -> None:
    first, second = a_line(1), a_line(2, what="Observation/b", detail="x=ü&y='")
    await store.log.append([first])
    await store.log.append([second])
    found = await lines(store)
    assert [one.row for one in found] == [second, first]
    assert await store.log.read(found[1].id) == found[1]
    assert await store.log.read("unknown") is None


async def test_ids_differ_and_are_the_same_whatever_happens_to_other_records(
    store: Any, elsewhere: Any
) -> None:
    await store.log.append([a_line(1), a_line(2)])
    alone = [one.id for one in await lines(store)]
    assert len(set(alone)) == 2
    await elsewhere.log.append(
        [
            a_line(1, record="bo", agent="Patient/bo"),
            a_line(1),
            a_line(1, practice=FAMILY),
            a_line(1, agent="RelatedPerson/father"),
            a_line(1, agent="", told=False),
            a_line(2),
            a_line(2, record=""),
        ]
    )
    found = await lines(elsewhere, agent="Patient/ada")
    assert [one.id for one in found] == alone


async def test_what_a_person_must_not_read_is_not_told_and_is_kept(store: Any) -> None:
    await store.log.append([a_line(1), a_line(2, agent="", told=False), a_line(3)])
    assert [one.row.at for one in await lines(store)] == [3, 1]
    assert [one.row.at for one in await lines(store, record=None)] == [3, 2, 1]


async def test_lines_are_bounded_by_practice_record_agent_and_time(store: Any) -> None:
    await store.log.append(
        [
            a_line(1),
            a_line(2, record="bo"),
            a_line(3, practice=FAMILY),
            a_line(4, agent="RelatedPerson/x"),
        ]
    )
    assert [one.row.at for one in await lines(store)] == [4, 1]
    assert [one.row.at for one in await lines(store, agent="RelatedPerson/x")] == [4]
    assert [one.row.at for one in await lines(store, low=1, high=3)] == [1]
    assert [one.row.at for one in await lines(store, record=None)] == [4, 2, 1]
    assert [one.row.at for one in await lines(store, practice=FAMILY)] == [3]


async def test_paging_meets_each_line_once_while_lines_are_added(store: Any) -> None:
    await store.log.append([a_line(1_000, what=f"Observation/{n}") for n in range(11)])
    for record in ("ada", None):
        seen: list[str] = []
        before = None
        while True:
            page = await lines(store, record=record, before=before, limit=3)
            seen += [one.row.what for one in page]
            if len(page) < 3:
                break
            before = page[-1].id
            await store.log.append(
                [a_line(1_000, record="bo", what="later"), a_line(2_000, what="later")]
            )
        assert [one for one in seen if one != "later"] == [
            f"Observation/{n}" for n in range(10, -1, -1)
        ]


async def test_many_appends_at_once_are_all_kept(store: Any) -> None:
    await asyncio.gather(*(store.log.append([a_line(n)]) for n in range(200)))
    found = await lines(store, limit=1000)
    assert sorted(one.row.at for one in found) == list(range(200))
    assert len({one.id for one in found}) == 200


async def test_two_processes_append_to_one_log(store: Any, second: Any) -> None:
    await asyncio.gather(
        *(
            one.log.append([a_line(2 * n + offset)])
            for n in range(40)
            for offset, one in enumerate((store, second))
        )
    )
    for n in range(6):  # and in turns, each remembering what it wrote itself
        await (store, second)[n % 2].log.append([a_line(1_000 + n)])
    found = await lines(second, limit=1000)
    assert len({one.id for one in found}) == 86
    assert [one.row.at for one in found[:6]] == [1_005, 1_004, 1_003, 1_002, 1_001, 1_000]


async def test_a_row_of_an_earlier_version_is_read() -> None:
    """New fields go at the end; lines written before lack them."""
    line = a_line(7)
    older = msgspec.json.encode(msgspec.json.decode(msgspec.json.encode(line))[:8])
    assert msgspec.json.decode(older, type=AccessRow).told is True
    assert msgspec.json.decode(older, type=AccessRow).at == 7


async def of_app(store: Any, **more: Any) -> list[Any]:
    given = {
        "agent": "Patient/ada",
        "client": "app",
        "account": "a1",
        "low": LOWEST,
        "high": HIGHEST,
        "before": None,
        "limit": 100,
    }
    practice, record = more.pop("practice", DERM), more.pop("record", "ada")
    found: list[Any] = await store.log.of_app(practice, record, **given | more)
    return found


async def test_lines_of_an_app_are_found_among_any_number_of_others(store: Any) -> None:
    mine = [a_line(n, account="a1", what=f"Observation/{n}") for n in (1, 2, 3)]
    others = [
        a_line(4, account="a1", client="other"),
        a_line(5, account="a2"),
        a_line(6, account="a1", record="bo"),
        a_line(7, account="a1", practice=FAMILY),
        a_line(8, account="a1", agent="RelatedPerson/x"),
        a_line(9, account="a1", told=False),
        a_line(10, account="a1app", client=""),
    ]
    await store.log.append([*mine[:1], *others * 30, *mine[1:]])
    assert [one.row for one in await of_app(store)] == mine[::-1]
    assert [one.row.at for one in await of_app(store, low=2, high=2)] == [2]
    assert [one.row.at for one in await of_app(store, client="other", limit=1)] == [4]
    assert [one.row.at for one in await of_app(store, practice=FAMILY)] == [7] * 30
    assert {one.row.at for one in await of_app(store, agent="RelatedPerson/x")} == {8}
    assert await of_app(store, account="a3") == []


async def test_lines_of_an_app_are_paged(store: Any) -> None:
    await store.log.append([a_line(1_000 + n // 4, account="a1", what=str(n)) for n in range(11)])
    seen: list[str] = []
    before = None
    while True:
        page = await of_app(store, before=before, limit=3)
        seen += [one.row.what for one in page]
        if len(page) < 3:
            break
        before = page[-1].id
        await store.log.append([a_line(1_002, account="a2"), a_line(5_000, account="a1", what="+")])
    assert [one for one in seen if one != "+"] == [str(n) for n in range(10, -1, -1)]
    assert await of_app(store, before="unknown") == []
