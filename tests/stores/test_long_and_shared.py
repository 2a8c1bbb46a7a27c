"""Long bodies and texts, odd characters, orders of several keys, and what practices share."""

from __future__ import annotations

from typing import Any

import pytest

from fhir_portal.access.visibility import SHARED
from tests.builders import DERM, FAMILY, a_patient, an_observation, resource
from tests.stores.rows import KEY, a_row, asked, found, of_practice, of_record, walked, write

A = KEY("Observation/a")
BOTH = KEY("Organization/both")
LONG = "".join(chr(0x61 + n % 26) for n in range(700))


# ---------------------------------------------------------------- bodies


@pytest.mark.parametrize("size", [2**20 - 1_000, 2**20 + 1, 9 * 2**20])
async def test_long_bodies_come_back_as_they_were_written(store: Any, size: int) -> None:
    tree = an_observation("a") | {"note": [{"text": "x" * size}]}
    short = a_row(an_observation("b"))
    first, second = a_row(tree), a_row(tree, version=2, updated=2_000)
    await write(store, first, short, second)
    assert await store.read(A, of_record()) == second.row
    assert await store.vread(A, 1, of_record()) == first.row
    page = await store.search(asked("_sort=_id"), of_record())
    assert page.rows == (second.row, short.row)
    history = await store.history(A, of_record(), count=5, after=None)
    assert history.rows == (second.row, first.row)
    feed = await store.feed({"Observation": of_record()}, since=2_000, count=5, after=None)
    assert feed.rows == (second.row,)
    await write(store, a_row(tree, version=3, deleted=True))
    assert (await store.read(A, of_record())).body == b""
    assert await store.vread(A, 2, of_record()) == second.row


# ---------------------------------------------------------------- texts


async def test_long_texts_are_searched_whole(store: Any) -> None:
    await write(
        store,
        a_row(a_patient("p1", family=f"{LONG}one")),
        a_row(a_patient("p2", family=f"{LONG}two")),
        a_row(a_patient("p3", family="short")),
    )
    patients = of_practice("Patient")
    assert await found(store, f"family={LONG[:390]}", patients) == ["p1", "p2"]
    assert await found(store, f"family={LONG}", patients) == ["p1", "p2"]
    assert await found(store, f"family={LONG}o", patients) == ["p1"]
    assert await found(store, f"family={LONG[:450]}zz", patients) == []
    assert await found(store, "family:contains=two", patients) == ["p2"]
    assert await found(store, f"family:contains={LONG[380:]}t", patients) == ["p2"]
    assert await found(store, f"family:exact={LONG}one", patients) == ["p1"]
    assert await found(store, f"family:exact={LONG}three", patients) == []


async def test_a_text_is_not_found_by_what_stands_for_its_end(store: Any) -> None:
    """Not by a digit of whatever hash a store may keep of it."""
    await write(store, a_row(a_patient("p1", family=LONG)))
    for digit in "0123456789":
        assert await found(store, f"family:contains={digit}", of_practice("Patient")) == []


@pytest.mark.parametrize("text", ["a\x00b", "a\x1fb", "a\x1e_b", "a\U0010ffffb", "a\\Eb", "a.b"])
async def test_odd_characters_are_only_themselves(store: Any, text: str) -> None:
    texts = ["a\x00b", "a\x1fb", "a\x1e_b", "a\U0010ffffb", "a\\Eb", "a.b", "ab", "a"]
    trees = [a_patient(f"p{n}", family=one) for n, one in enumerate(texts)]
    await write(store, *map(a_row, trees))
    own_id = f"p{texts.index(text)}"
    written = text.replace("\\", "\\\\").replace("\x00", "%00").replace("\x1f", "%1F")
    patients = of_practice("Patient")
    for modifier in ("", ":exact", ":contains"):
        assert await found(store, f"family{modifier}={written}", patients) == [own_id], modifier


async def test_a_code_in_another_parameter_or_system_is_another(store: Any) -> None:
    coded = {"coding": [{"system": "urn:a", "code": "x"}, {"code": "y"}]}
    await write(store, a_row(an_observation("a") | {"code": coded}))
    everything = of_practice()
    for query in ("code=x", "code=X", "code=urn:a|x", "code=urn:a|", "code=|y", "code:not=z"):
        assert await found(store, query, everything) == ["a"], query
    for query in ("code=|x", "code=urn:a|y", "code=urn:b|", "code:not=x", "code:not=z,Y"):
        assert await found(store, query, everything) == [], query


# ---------------------------------------------------------------- order


async def test_orders_of_several_keys_have_the_rows_without_one_last(store: Any) -> None:
    def one(own_id: str, on: str | None, value: int | None) -> Any:
        tree = an_observation(own_id, value=value or 0, on=on or "2020-01-01")
        for name, given in (("effectiveDateTime", on), ("valueQuantity", value)):
            if given is None:
                del tree[name]
        return a_row(tree)

    await write(
        store,
        one("a", "2020-01-01", 1),
        one("b", "2020-01-01", -2),
        one("c", "2020-01-01", None),
        one("d", "2021-01-01", 10),
        one("e", None, 3),
        one("f", None, None),
        one("g", "2021-01-01", 9),
    )
    for count in (1, 2, 3, 50):
        for visible in (of_record(), of_practice()):
            for sort, order in (
                ("date,value-quantity", "bacgdef"),
                ("-date,value-quantity", "gdbacef"),
                ("date,-value-quantity", "abcdgef"),
                ("-value-quantity,date", "dgeabcf"),
                ("value-quantity,-date", "baegdcf"),
                ("-value-quantity,-_id", "dgeabfc"),
            ):
                ids = await walked(store, f"_sort={sort}&_count={count}", visible)
                assert "".join(ids) == order, (sort, count)


@pytest.mark.parametrize(
    "sort", ["date", "-date", "_lastUpdated", "-_lastUpdated", "value-quantity"]
)
@pytest.mark.parametrize("change", ["deleted", "has another value"])
async def test_a_page_goes_on_where_the_last_row_stood(store: Any, sort: str, change: str) -> None:
    trees = [an_observation(f"o{n}", on=f"2020-01-0{n + 1}", value=n) for n in range(6)]
    await write(store, *(a_row(tree, updated=1_000 + n) for n, tree in enumerate(trees)))
    page = await store.search(asked(f"_sort={sort}&_count=2"), of_record())
    last = page.rows[-1]
    other = an_observation(last.facts.id, on="1999-01-01", value=-1)
    deleted = change == "deleted"
    await write(store, a_row(other, version=2, updated=last.updated, deleted=deleted))
    page = await store.search(asked(f"_sort={sort}&_count=2"), of_record(), after=page.next)
    expected = ["o3", "o2"] if sort.startswith("-") else ["o2", "o3"]
    assert [row.facts.id for row in page.rows] == expected


# ---------------------------------------------------------------- what practices share


def organization(name: str, **more: Any) -> Any:
    return a_row(resource("Organization", "both", name=name), owners=(), **more)


async def seen(store: Any, practice: str) -> list[str]:
    """The practice whose row each call returns."""
    visible = of_practice("Organization", practice)
    rows = list((await store.search(asked("", "Organization"), visible)).rows)
    assert len(rows) < 2
    by_name = await store.search(asked("name=o&_total=accurate", "Organization"), visible)
    assert list(by_name.rows) == rows
    assert by_name.total == len(rows)
    assert await store.read_many([BOTH], visible) == rows
    one = await store.read(BOTH, visible)
    if one is not None and not one.deleted:
        assert [one] == rows
        assert await store.vread(BOTH, one.version, visible) == one
    history = await store.history(BOTH, visible, count=9, after=None)
    assert {row.facts.practice for row in history.rows} <= {one.facts.practice}
    feed = await store.feed({"Organization": visible}, since=None, count=9, after=None)
    assert feed.rows == history.rows
    return [row.facts.practice for row in rows]


@pytest.mark.parametrize("order", ["shared first", "own first", "at once"])
async def test_an_own_id_stands_before_a_shared_one_however_they_came(
    store: Any, order: str
) -> None:
    ours, theirs = organization("ours"), organization("others", practice=SHARED)
    match order:
        case "shared first":
            await write(store, theirs)
            assert await seen(store, DERM) == [SHARED]
            await write(store, ours)
        case "own first":
            await write(store, ours)
            await write(store, theirs)
        case _:
            await write(store, theirs, ours)
    assert await seen(store, DERM) == [DERM]
    assert await seen(store, FAMILY) == [SHARED]
    await write(store, organization("others again", practice=SHARED, version=2))
    assert await seen(store, DERM) == [DERM]
    await write(store, organization("ours", version=2, deleted=True))
    assert await seen(store, DERM) == []
    assert await seen(store, FAMILY) == [SHARED]
    await write(store, organization("ours", version=3))
    assert await seen(store, DERM) == [DERM]


# ---------------------------------------------------------------- the feed


async def test_the_feed_looks_on_past_what_is_hidden_now(store: Any) -> None:
    hidden = [an_observation(f"h{n}") for n in range(40)]
    await write(
        store,
        a_row(an_observation("first"), updated=500),
        *(a_row(tree, updated=1_000) for tree in hidden),
        a_row(an_observation("last"), updated=2_000),
        *(a_row(tree, version=2, updated=3_000, sections=["visits"]) for tree in hidden),
    )
    visible = {"Observation": of_record(sections={"results"})}
    seen: list[str] = []
    after = None
    while True:
        page = await store.feed(visible, since=None, count=1, after=after)
        seen += [row.facts.id for row in page.rows]
        after = page.next
        if after is None:
            break
    assert seen == ["last", "first"]
