from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import msgspec
import pytest

from fhir_portal.access.visibility import SHARED, Visibility, VisibilityClass
from fhir_portal.fhir.errors import Conflict, FhirError
from fhir_portal.resources.server import PageLinks
from fhir_portal.resources.store import INDEX_VERSION
from fhir_portal.search.registry import parameters_for
from fhir_portal.search.request import parse_query
from tests.builders import (
    BASE,
    DERM,
    FAMILY,
    OBSERVATION_CATEGORY,
    a_condition,
    a_patient,
    a_practitioner,
    a_provenance,
    an_observation,
    reference,
    resource,
)
from tests.places import Place
from tests.stores.rows import KEY, a_row, asked, found, of_practice, of_record, walked, write

A = KEY("Observation/a")


# ---------------------------------------------------------------- one resource


async def test_bytes_come_back_as_they_were_written(store: Any) -> None:
    new = a_row(an_observation("a", value=1), updated=77)
    await write(store, new)
    row = await store.read(A, of_record())
    assert row == new.row
    assert row.key == A
    assert not row.deleted


async def test_an_absent_resource_is_none_everywhere(store: Any) -> None:
    visible = of_record()
    assert await store.read(A, visible) is None
    assert await store.vread(A, 1, visible) is None
    assert await store.read_many([A], visible) == []
    page = await store.history(A, visible, count=10, after=None)
    assert (page.rows, page.total, page.next) == ((), 0, None)
    assert await found(store, "", visible) == []


async def test_versions_are_kept(store: Any) -> None:
    first = a_row(an_observation("a", value=1))
    second = a_row(an_observation("a", value=2), version=2, updated=2_000)
    await write(store, first, second)
    assert await store.read(A, of_record()) == second.row
    assert await store.vread(A, 1, of_record()) == first.row
    assert await store.vread(A, 2, of_record()) == second.row
    assert await store.vread(A, 3, of_record()) is None
    page = await store.history(A, of_record(), count=10, after=None)
    assert (page.rows, page.total) == ((second.row, first.row), 2)


async def test_a_version_cannot_be_written_twice(store: Any) -> None:
    await write(store, a_row(an_observation("a", value=1)))
    with pytest.raises(Conflict):
        await write(store, a_row(an_observation("a", value=2)))
    row = await store.read(A, of_record())
    assert b'"value":1' in row.body


async def test_history_pages_from_the_newest(store: Any) -> None:
    await write(store, *(a_row(an_observation("a"), version=n, updated=n) for n in range(1, 6)))
    seen, after = [], None
    while True:
        page = await store.history(A, of_record(), count=2, after=after)
        assert page.total == 5
        seen += [row.version for row in page.rows]
        after = page.next
        if after is None:
            break
    assert seen == [5, 4, 3, 2, 1]


async def test_a_deleted_resource_is_read_but_not_found(store: Any) -> None:
    await write(
        store,
        a_row(an_observation("a")),
        a_row(an_observation("a"), version=2, updated=2_000, deleted=True),
    )
    row = await store.read(A, of_record())
    assert row.deleted
    assert row.body == b""
    assert await store.read_many([A], of_record()) == []
    assert await found(store, "", of_record()) == []
    assert await found(store, "_id=a", of_practice()) == []
    assert (await store.vread(A, 1, of_record())).version == 1
    assert [
        r.version
        for r in (
            await store.feed({"Observation": of_record()}, since=None, count=9, after=None)
        ).rows
    ] == [2, 1]


async def test_a_deleted_resource_can_be_written_again(store: Any) -> None:
    await write(
        store,
        a_row(an_observation("a")),
        a_row(an_observation("a"), version=2, deleted=True),
        a_row(an_observation("a", value=9), version=3),
    )
    assert await found(store, "value-quantity=9", of_record()) == ["a"]


# ---------------------------------------------------------------- visibility, in every call

SETTLED = an_observation(
    "a", performer="Practitioner/lark", category="laboratory", derivedFrom=[reference("Media/m")]
)
HIDING: dict[str, tuple[dict[str, Any], Visibility]] = {
    "another record": ({"owners": ["bo"]}, of_record()),
    "no record": ({"owners": []}, of_record()),
    "two records": ({"owners": ["ada", "bo"]}, of_record()),
    "another practice": ({"practice": FAMILY}, of_record()),
    "what all practices share": ({"practice": SHARED}, of_record()),
    "a withheld section": ({"sections": ["visits"]}, of_record(sections={"results"})),
    "one of two sections withheld": (
        {"sections": ["results", "visits"]},
        of_record(sections={"results"}),
    ),
    "unclassified": ({"sections": ["-unclassified"]}, of_record(sections={"results"})),
    "no section": ({"sections": ["-none"]}, of_record(sections={"results"})),
    "a label": ({"labels": ["R"]}, of_record(labels=())),
    "one label too many": ({"labels": ["R", "withheld"]}, of_record()),
    "no sections granted": ({}, of_record(sections=())),
    "an id that is not listed": ({}, of_record(ids=frozenset({"b"}))),
    "no ids": ({}, of_record(ids=frozenset())),
    "a granular scope": (
        {},
        of_record(
            any_of=(parse_query("Observation", f"category={OBSERVATION_CATEGORY}|vital-signs"),)
        ),
    ),
    "no granular alternative": ({}, of_record(any_of=())),
    "another type": ({}, of_record("Condition")),
    "no referrer": (
        {"owners": []},
        Visibility.of_directory("Observation", practice=DERM, referrers=()),
    ),
}

Call = Callable[[Any, Visibility], Awaitable[Any]]


async def _search(store: Any, visible: Visibility) -> Any:
    return await found(store, "", visible) if visible.resource_type == "Observation" else []


async def _total(store: Any, visible: Visibility) -> Any:
    if visible.resource_type != "Observation":
        return 0
    return (await store.search(asked("_summary=count"), visible)).total


async def _referring(store: Any, visible: Visibility) -> Any:
    if visible.resource_type != "Observation":
        return []
    performer = parameters_for("Observation")["performer"]
    return await store.referring(performer, [KEY("Practitioner/lark")], visible, limit=10)


async def _feed(store: Any, visible: Visibility) -> Any:
    page = await store.feed({visible.resource_type: visible}, since=None, count=10, after=None)
    return page.rows


async def _by_criterion(store: Any, visible: Visibility) -> Any:
    if visible.resource_type != "Observation":
        return []
    return await found(store, "category=laboratory&_sort=date", visible)


CALLS: dict[str, Call] = {
    "read": lambda s, v: s.read(A, v),
    "read_many": lambda s, v: s.read_many([A], v),
    "vread": lambda s, v: s.vread(A, 1, v),
    "search": _search,
    "search by a criterion": _by_criterion,
    "total": _total,
    "referring": _referring,
    "feed": _feed,
}


@pytest.mark.parametrize("call", CALLS)
async def test_what_is_visible_is_returned_by(store: Any, call: str) -> None:
    await write(store, a_row(SETTLED))
    assert await CALLS[call](store, of_record(sections={"results"}))
    assert await CALLS[call](store, of_practice())


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("why", HIDING)
async def test_what_is_hidden_is_not_returned(store: Any, why: str, call: str) -> None:
    facts, visible = HIDING[why]
    await write(store, a_row(SETTLED, **facts))
    assert not await CALLS[call](store, visible)


@pytest.mark.parametrize("why", HIDING)
async def test_what_is_hidden_has_no_history(store: Any, why: str) -> None:
    facts, visible = HIDING[why]
    await write(store, a_row(SETTLED, **facts))
    page = await store.history(A, visible, count=10, after=None)
    assert (page.rows, page.total) == ((), 0)


THEN = ["another record", "two records", "a withheld section", "unclassified", "a label"]


@pytest.mark.parametrize("why", THEN)
async def test_a_version_must_have_been_visible_then(store: Any, why: str) -> None:
    facts, visible = HIDING[why]
    await write(store, a_row(SETTLED, **facts), a_row(SETTLED, version=2, updated=2_000))
    assert await store.vread(A, 1, visible) is None
    assert (await store.vread(A, 2, visible)).version == 2
    page = await store.history(A, visible, count=10, after=None)
    assert ([row.version for row in page.rows], page.total) == ([2], 1)
    assert [row.version for row in await _feed(store, visible)] == [2]


@pytest.mark.parametrize("why", THEN)
async def test_a_version_must_be_visible_now(store: Any, why: str) -> None:
    facts, visible = HIDING[why]
    await write(store, a_row(SETTLED), a_row(SETTLED, version=2, updated=2_000, **facts))
    assert await store.vread(A, 1, visible) is None
    assert (await store.history(A, visible, count=10, after=None)).rows == ()
    assert await _feed(store, visible) == ()


async def test_an_earlier_version_is_not_shown_where_only_the_current_one_can_be_judged(
    store: Any,
) -> None:
    """Granular criteria and referrers use the index of the current version."""
    vitals = of_record(any_of=(parse_query("Observation", "category=vital-signs"),))
    await write(store, a_row(SETTLED), a_row(an_observation("a"), version=2, updated=2_000))
    assert await store.vread(A, 1, vitals) is None
    assert (await store.vread(A, 2, vitals)).version == 2


async def test_who_may_see_nothing_labelled_sees_no_earlier_version(store: Any) -> None:
    """What it refers to may be labelled by now, and that is known of the current one alone."""
    proxy = of_record(labels=())
    await write(store, a_row(SETTLED), a_row(SETTLED, version=2, updated=2_000))
    assert await store.vread(A, 1, proxy) is None
    assert (await store.vread(A, 2, proxy)).version == 2
    page = await store.history(A, proxy, count=10, after=None)
    assert ([row.version for row in page.rows], page.total) == ([2], 1)
    assert [row.version for row in await _feed(store, proxy)] == [2]


# ---------------------------------------------------------------- practices


async def test_two_practices_use_one_id_and_do_not_meet(store: Any) -> None:
    mine = a_row(an_observation("a", value=1))
    theirs = a_row(an_observation("a", value=2), practice=FAMILY)
    await write(store, mine, theirs, a_row(an_observation("a"), practice=FAMILY, version=2))
    assert await store.read(A, of_record()) == mine.row
    assert (await store.read(A, of_record(practice=FAMILY))).version == 2
    assert await store.vread(A, 2, of_record()) is None
    assert (await store.history(A, of_record(), count=9, after=None)).total == 1
    assert await found(store, "", of_record()) == ["a"]
    assert await found(store, "value-quantity=2", of_practice()) == []


async def test_what_practices_share_is_seen_by_each_and_an_own_id_comes_first(store: Any) -> None:
    visible = of_practice("Organization")
    await write(
        store,
        a_row(resource("Organization", "union", name="Union"), practice=SHARED, owners=()),
        a_row(resource("Organization", "both", name="Theirs"), practice=SHARED, owners=()),
        a_row(resource("Organization", "both", name="Ours"), owners=()),
    )
    assert (await store.read(KEY("Organization/union"), visible)).facts.practice == SHARED
    assert (await store.read(KEY("Organization/both"), visible)).facts.practice == DERM
    elsewhere = of_practice("Organization", FAMILY)
    assert (await store.read(KEY("Organization/both"), elsewhere)).facts.practice == SHARED


# ---------------------------------------------------------------- the directory


def directory(*referrers: Visibility) -> Visibility:
    return Visibility.of_directory("Practitioner", practice=DERM, referrers=referrers)


LARK = KEY("Practitioner/lark")


async def test_a_practitioner_is_seen_through_what_is_seen(store: Any) -> None:
    lark = a_row(a_practitioner("lark"), owners=(), sections=["-none"])
    mine = an_observation("a", performer="Practitioner/lark")
    await write(store, lark, a_row(mine))
    assert await store.read(LARK, directory(of_record()))
    assert await found(store, "family=Lark", directory(of_record())) == ["lark"]
    assert not await store.read(LARK, directory(of_record(record="bo")))
    assert not await store.read(LARK, directory(of_record(sections=())))
    assert not await store.read(LARK, directory(of_record("Condition")))
    assert not await store.read(LARK, directory(of_record(practice=FAMILY)))
    narrow = of_record(any_of=(parse_query("Observation", "category=laboratory"),))
    assert not await store.read(LARK, directory(narrow))
    assert await store.read(LARK, directory(of_record("Condition"), of_record()))


async def test_deleting_or_moving_the_referrer_hides_the_practitioner(store: Any) -> None:
    lark = a_row(a_practitioner("lark"), owners=(), sections=["-none"])
    mine = an_observation("a", performer="Practitioner/lark")
    await write(store, lark, a_row(mine), a_row(mine, version=2, owners=["bo"]))
    assert not await store.read(LARK, directory(of_record()))
    await write(store, a_row(mine, version=3), a_row(mine, version=4, deleted=True))
    assert not await store.read(LARK, directory(of_record()))


async def test_a_listed_practitioner_is_seen_without_a_referrer(store: Any) -> None:
    await write(
        store,
        a_row(a_practitioner("lark"), owners=(), sections=["-none"], directory=True),
        a_row(a_practitioner("wren"), owners=(), sections=["-none"], directory=True, labels=["R"]),
    )
    assert await found(store, "", directory(of_record(record="bo"))) == ["lark"]
    assert await found(store, "", directory()) == ["lark"]


# ---------------------------------------------------------------- reclassification and neighbours


async def test_reclassifying_changes_who_sees_it_and_no_byte(store: Any) -> None:
    new = a_row(SETTLED)
    await write(store, new, a_row(a_practitioner("lark"), owners=(), sections=["-none"]))
    facts = msgspec.structs.replace(
        new.row.facts,
        owners=("bo",),
        visibility_class=VisibilityClass(frozenset({"visits"}), frozenset({"SEX"})),
    )

    async def work(transaction: Any) -> None:
        await transaction.reclassify(A, facts)

    await store.transact(work)
    assert await store.read(A, of_record()) is None
    theirs = of_record(record="bo", labels={"SEX"}, sections={"visits"})
    row = await store.read(A, theirs)
    assert (row.facts, row.body, row.version) == (facts, new.row.body, 1)
    assert await store.vread(A, 1, theirs)
    assert await store.read(LARK, directory(theirs))
    assert not await store.read(LARK, directory(of_record()))


async def test_reclassifying_leaves_earlier_versions_as_they_were(store: Any) -> None:
    await write(store, a_row(SETTLED), a_row(SETTLED, version=2))
    facts = msgspec.structs.replace(a_row(SETTLED).row.facts, owners=("bo",))

    async def work(transaction: Any) -> None:
        await transaction.reclassify(A, facts)

    await store.transact(work)
    assert await store.vread(A, 1, of_record(record="bo")) is None
    assert await store.vread(A, 2, of_record(record="bo"))


async def test_referrers_are_current_rows_of_the_practice(store: Any) -> None:
    about = a_provenance("p", about=["Observation/a"])
    await write(
        store,
        a_row(about),
        a_row(a_provenance("q", about=["Observation/a"])),
        a_row(a_provenance("q", about=["Observation/b"]), version=2),
        a_row(a_provenance("r", about=["Observation/a"])),
        a_row(about | {"id": "r"}, version=2, deleted=True),
        a_row(about, practice=FAMILY),
    )

    async def work(transaction: Any) -> Any:
        return await transaction.referrers(A, DERM)

    assert [str(row.key) for row in await store.transact(work)] == ["Provenance/p"]


async def test_referrers_may_be_of_some_types_and_deleted_with_their_edges(store: Any) -> None:
    about = a_provenance("p", about=["Observation/a"])
    gone = msgspec.structs.replace(
        a_row(about | {"id": "r"}, version=2, deleted=True), edges=("Observation/a",)
    )
    follows = an_observation("b", derivedFrom=[reference("Observation/a")])
    await write(store, a_row(about), a_row(about | {"id": "r"}), gone, a_row(follows))

    async def work(transaction: Any, **more: Any) -> list[str]:
        return sorted(str(row.key) for row in await transaction.referrers(A, DERM, **more))

    async def asked(**more: Any) -> list[str]:
        found: list[str] = await store.transact(lambda transaction: work(transaction, **more))
        return found

    assert await asked() == ["Observation/b", "Provenance/p"]
    assert await asked(types={"Provenance"}) == ["Provenance/p"]
    assert await asked(types=set()) == []
    assert await asked(types=["Provenance"], deleted=True) == ["Provenance/p", "Provenance/r"]
    assert await asked(deleted=True) == ["Observation/b", "Provenance/p", "Provenance/r"]


async def test_facts_of_rows_are_those_of_deleted_ones_too(store: Any) -> None:
    b, c = KEY("Observation/b"), KEY("Condition/c")

    async def work(transaction: Any) -> Any:
        await transaction.write(a_row(a_condition("c"), labels=["SEX"]))
        return await transaction.facts([A, b, c, KEY("Observation/none")], DERM)

    gone = a_row(an_observation("b"), version=2, labels=["R"], deleted=True)
    await write(
        store,
        a_row(an_observation("a"), labels=["V"]),
        a_row(an_observation("b")),
        gone,
        a_row(an_observation("none"), practice=FAMILY),
    )
    found = {str(one.resource_type + "/" + one.id): one for one in await store.transact(work)}
    assert found.keys() == {str(A), str(b), str(c)}
    assert [found[str(key)].visibility_class.labels for key in (A, b, c)] == [{"V"}, {"R"}, {"SEX"}]
    assert found[str(b)] == gone.row.facts


async def test_a_row_is_indexed_anew_without_a_new_version(
    store: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = a_row(an_observation("a", category="laboratory", value=4))
    large = a_row(a_condition("large", note=[{"text": "x" * 2_000_000}]))
    await write(store, old, large)
    for name, module in list(sys.modules.items()):
        if name.startswith("fhir_portal.") and hasattr(module, "INDEX_VERSION"):
            monkeypatch.setattr(module, "INDEX_VERSION", INDEX_VERSION + 1)
    assert await store.stale_keys(1) != []
    assert sorted(await store.stale_keys(9)) == [(DERM, large.row.key), (DERM, A)]
    indexed = a_row(an_observation("a", performer="Practitioner/lark"), labels=["R"])
    row = msgspec.structs.replace(
        indexed, row=msgspec.structs.replace(indexed.row, body=old.row.body)
    )

    async def work(transaction: Any) -> None:
        await transaction.reindex(row)
        await transaction.reindex(large)

    await store.transact(work)
    assert (await store.stale(), await store.stale_keys(9)) == (0, [])
    labelled = of_record(labels={"R"})
    assert await store.read(A, of_record(labels=())) is None
    assert (await store.read(A, labelled)).body == old.row.body
    assert (await store.vread(A, 1, labelled)).body == old.row.body
    assert await store.read(large.row.key, of_record("Condition")) == large.row
    assert await found(store, "category=vital-signs", labelled) == ["a"]
    assert await found(store, "category=laboratory", labelled) == []

    async def pointing(transaction: Any) -> Any:
        return await transaction.referrers(LARK, DERM)

    assert [one.key for one in await store.transact(pointing)] == [A]


async def test_targets_are_the_local_references_of_a_parameter(store: Any) -> None:
    tree = an_observation(
        "a",
        performer="Practitioner/lark",
        derivedFrom=[reference("Observation/b"), reference("https://other.example/Observation/c")],
    )
    await write(store, a_row(tree), a_row(an_observation("b", performer="Practitioner/lark")))
    rows = (await store.search(asked("_sort=_id"), of_record())).rows
    parameters = parameters_for("Observation")
    assert await store.targets(rows, parameters["performer"]) == [LARK]
    assert await store.targets(rows, parameters["derived-from"]) == [KEY("Observation/b")]
    assert await store.targets([], parameters["performer"]) == []


async def test_searches_made_together_find_what_each_finds(store: Any) -> None:
    await write(
        store,
        *(a_row(an_observation(f"o{n}", value=n)) for n in range(5)),
        a_row(an_observation("hidden", value=9), sections=("visits",), labels=["withheld"]),
        a_row(an_observation("bos", value=10), owners=("bo",)),
        a_row(a_condition("c")),
    )
    together = [
        (asked("_count=2&_sort=-value-quantity"), of_record()),
        (asked("_count=2&_sort=-value-quantity"), of_practice()),
        (asked("", "Condition"), of_record("Condition")),
        (asked("value-quantity=7"), of_record()),
        (asked("performer=Practitioner/lark"), of_record(record="bo")),
        (asked("_id=bos"), of_record()),
    ]
    pages = await store.search_all(together)
    assert pages == [await store.search(request, visible) for request, visible in together]
    assert [[row.facts.id for row in page.rows] for page in pages] == [
        *(["o4", "o3"], ["bos", "hidden"], ["c"]),
        *([], [], []),
    ]
    assert pages[0].next is not None
    assert await store.search_all([]) == []


async def test_a_canonical_of_the_servers_own_is_found(store: Any) -> None:
    """As it was written, while a reference by its address is kept as ``Type/id``."""
    form = f"{BASE}/Questionnaire/skin"
    said = {"resourceType": "QuestionnaireResponse", "id": "r", "status": "completed"}
    await write(store, a_row(said | {"questionnaire": f"{form}|2.0"}))
    for visible in (of_record("QuestionnaireResponse"), of_practice("QuestionnaireResponse")):
        for text in (form, f"{form}|2.0", f"https://other.example/x,{form}"):
            assert await found(store, f"questionnaire={text}", visible) == ["r"]
        assert await found(store, f"questionnaire={form}s", visible) == []


async def test_referring_gives_no_more_than_its_limit(store: Any) -> None:
    await write(
        store,
        *(a_row(an_observation(f"o{n}", performer="Practitioner/lark")) for n in range(5)),
    )
    performer = parameters_for("Observation")["performer"]
    rows = await store.referring(performer, [LARK], of_record(), limit=3)
    assert len(rows) == 3


@pytest.mark.parametrize("writing", ["this process", "another"])
async def test_what_nothing_was_indexed_by_is_found_once_something_is(
    store: Any, opened: Any, writing: str
) -> None:
    """Also if another process wrote it, and if what came first was undone."""
    writer = await opened() if writing == "another" else store
    await write(store, a_row(an_observation("none")))
    performer = parameters_for("Observation")["performer"]

    async def known() -> list[str]:
        rows = await store.referring(performer, [LARK], of_record(), limit=9)
        assert await found(store, "performer=Practitioner/lark", of_record()) == [
            row.facts.id for row in rows
        ]
        return [row.facts.id for row in rows]

    async def undone(transaction: Any) -> None:
        await transaction.write(a_row(an_observation("undone", performer="Practitioner/lark")))
        raise RuntimeError("stopped")

    assert await known() == []
    with pytest.raises(RuntimeError, match="stopped"):
        await writer.transact(undone)
    assert await known() == []
    await write(writer, a_row(an_observation("one", performer="Practitioner/lark")))
    assert await known() == ["one"]


# ---------------------------------------------------------------- transactions


async def test_a_failed_transaction_leaves_nothing(store: Any) -> None:
    """Not even the number of a class or a search slot that was new in it."""

    async def failing(transaction: Any) -> None:
        await transaction.write(a_row(SETTLED, sections=["visits"], labels=["SEX"]))
        await transaction.write(a_row(a_condition("c"), sections=["forms"]))
        assert await transaction.read(A, of_record(labels={"SEX"}))
        assert await found(transaction, "category=laboratory", of_practice()) == ["a"]
        raise FhirError("no")

    with pytest.raises(FhirError):
        await store.transact(failing)
    assert await store.read(A, of_practice()) is None
    assert await found(store, "", of_practice()) == []
    assert not (
        await store.feed({"Observation": of_practice()}, since=None, count=9, after=None)
    ).rows

    # What is interned next may be given the same numbers, and must not be mistaken.
    await write(
        store,
        a_row(a_patient("ada", family="Visible"), sections=["demographics"]),
        a_row(SETTLED, sections=["results"]),
    )
    assert await store.read(A, of_record(sections={"results"}, labels=()))
    assert not await store.read(A, of_record(sections={"visits"}))
    assert await found(store, "category=laboratory", of_record()) == ["a"]
    assert await found(store, "family=visible", of_record("Patient")) == ["ada"]
    assert await found(store, "family=laboratory", of_record("Patient")) == []


async def test_a_failed_transaction_takes_no_neighbour_with_it(store: Any) -> None:
    async def failing(transaction: Any) -> None:
        await transaction.write(a_row(an_observation("bad"), sections=["new-section"]))
        raise FhirError("no")

    def good(n: int) -> Any:
        async def work(transaction: Any) -> None:
            await transaction.write(a_row(an_observation(f"g{n}"), sections=[f"s{n % 3}"]))

        return work

    works = [good(n) if n % 2 else failing for n in range(20)]
    await asyncio.gather(*(store.transact(work) for work in works), return_exceptions=True)
    seen = {}
    for n in range(3):
        for own_id in await found(store, "_count=200", of_record(sections={f"s{n}"})):
            seen[own_id] = n
    assert seen == {f"g{n}": n % 3 for n in range(20) if n % 2}


async def test_writers_of_one_row_take_turns(store: Any) -> None:
    await write(store, a_row(an_observation("a")))

    async def next_version(transaction: Any) -> None:
        row = await transaction.read(A, of_practice())
        await transaction.write(a_row(an_observation("a"), version=row.version + 1))

    await asyncio.gather(*(store.transact(next_version) for _ in range(30)))
    page = await store.history(A, of_record(), count=100, after=None)
    assert [row.version for row in page.rows] == list(range(31, 0, -1))


async def test_another_process_sees_a_commit_at_once(store: Any, second: Any) -> None:
    assert await second.read(A, of_record(sections={"results"})) is None
    await write(store, a_row(SETTLED))
    assert await second.read(A, of_record(sections={"results"}))
    await write(second, a_row(SETTLED, version=2, sections=["brand-new"]))
    assert not await store.read(A, of_record(sections={"results"}))
    assert await store.read(A, of_record(sections={"brand-new"}))
    assert await found(store, "category=laboratory", of_record()) == ["a"]


async def test_instants_never_go_back(store: Any) -> None:
    await write(store, a_row(an_observation("a"), updated=5_000))

    async def ask(transaction: Any) -> list[int]:
        return [await transaction.next_instant(now) for now in (4_000, 5_000, 6_000)]

    assert await store.transact(ask) == [5_000, 5_000, 6_000]


# ---------------------------------------------------------------- paging


async def test_pages_hold_everything_once_in_every_order(store: Any) -> None:
    await write(
        store,
        *(
            a_row(
                an_observation(f"o{n:02}", value=n % 4, on=f"20{20 + n % 3}-01-01", of="ada"),
                updated=1_000 + n % 5,
            )
            for n in range(23)
        ),
    )
    for sort in ("", "date", "-date", "value-quantity", "-value-quantity", "_id", "-_lastUpdated"):
        query = f"_count=4&_sort={sort}" if sort else "_count=4"
        for visible in (of_record(), of_practice()):
            ids = await walked(store, query, visible)
            assert sorted(ids) == [f"o{n:02}" for n in range(23)], sort


async def test_rows_without_the_sort_value_come_last_and_once(store: Any) -> None:
    rows = [an_observation(f"o{n}", on=f"2020-01-0{n + 1}") for n in range(6)]
    for n in (1, 4):
        del rows[n]["effectiveDateTime"]
    await write(store, *map(a_row, rows))
    assert await walked(store, "_count=2&_sort=date", of_record()) == [
        "o0",
        "o2",
        "o3",
        "o5",
        "o1",
        "o4",
    ]
    assert await walked(store, "_count=1&_sort=-date", of_record()) == [
        "o5",
        "o3",
        "o2",
        "o0",
        "o1",
        "o4",
    ]


async def test_pages_stay_stable_while_rows_come_and_go(store: Any) -> None:
    """What was there all along is met exactly once."""
    await write(store, *(a_row(an_observation(f"o{n:02}", on="2020-01-01")) for n in range(12)))
    seen: list[str] = []
    after, turn = None, 0
    while True:
        page = await store.search(asked("_count=3&_sort=date"), of_record(), after=after)
        seen += [row.facts.id for row in page.rows]
        after = page.next
        if after is None:
            break
        last = page.rows[-1].facts.id
        await write(
            store,
            a_row(an_observation(f"new{turn}", on="2019-01-01")),
            a_row(an_observation(last, on="2020-01-01"), version=2, deleted=True),
        )
        turn += 1
    assert seen == [f"o{n:02}" for n in range(12)]


@pytest.mark.parametrize(
    "sort", ["", "date", "-value-quantity", "code", "patient", "_lastUpdated", "_id"]
)
async def test_where_a_page_ends_can_be_sealed_into_a_link(store: Any, sort: str) -> None:
    now = 1_900_000_000_000
    await write(
        store, *(a_row(an_observation(f"o{n}", value=n), updated=now + n) for n in range(3))
    )
    pages = [
        await store.search(asked(f"_count=2&_sort={sort}" if sort else "_count=2"), of_practice()),
        await store.feed({"Observation": of_practice()}, since=None, count=2, after=None),
    ]
    await write(store, a_row(an_observation("o0"), version=2, updated=now + 3))
    pages.append(await store.history(KEY("Observation/o0"), of_practice(), count=1, after=None))
    for page in pages:
        links = PageLinks(b"0123456789abcdef" * 2)
        _, after = links.open(links.seal([], page.next, "x"), "x")
        assert tuple(after) == tuple(page.next)


async def test_the_total_is_of_what_is_visible_and_matches(store: Any) -> None:
    await write(
        store,
        *(a_row(an_observation(f"a{n}", category="laboratory")) for n in range(5)),
        *(a_row(an_observation(f"b{n}", category="laboratory"), owners=["bo"]) for n in range(7)),
        a_row(an_observation("v")),
    )
    page = await store.search(asked("category=laboratory&_total=accurate&_count=2"), of_record())
    assert (page.total, len(page.rows)) == (5, 2)
    assert (await store.search(asked("_summary=count"), of_practice())).total == 13


# ---------------------------------------------------------------- the feed


async def test_the_feed_gives_versions_of_several_types_newest_first(store: Any) -> None:
    await write(
        store,
        a_row(an_observation("a"), updated=1_000),
        a_row(a_condition("c"), updated=2_000, sections=["health-summary"]),
        a_row(an_observation("a"), version=2, updated=2_000),
        a_row(an_observation("x"), updated=2_500, owners=["bo"]),
        a_row(an_observation("a"), version=3, updated=3_000, deleted=True),
    )
    visible = {"Observation": of_record(), "Condition": of_record("Condition")}
    page = await store.feed(visible, since=None, count=10, after=None)
    assert [(str(row.key), row.version) for row in page.rows] == [
        ("Observation/a", 3),
        ("Observation/a", 2),
        ("Condition/c", 1),
        ("Observation/a", 1),
    ]
    page = await store.feed(visible, since=2_000, count=10, after=None)
    assert len(page.rows) == 3


async def test_the_feed_pages_without_loss_or_repeat_within_one_instant(store: Any) -> None:
    await write(store, *(a_row(an_observation(f"o{n:02}"), updated=1_000) for n in range(17)))
    visible = {"Observation": of_record(), "Condition": of_record("Condition")}
    seen: list[str] = []
    after = None
    while True:
        page = await store.feed(visible, since=None, count=5, after=after)
        seen += [row.facts.id for row in page.rows]
        after = page.next
        if after is None:
            break
        await write(store, a_row(an_observation(f"late{len(seen)}"), updated=1_000))
    assert seen == [f"o{n:02}" for n in reversed(range(17))]


async def test_a_follower_of_the_feed_misses_nothing_while_two_processes_write(
    store: Any, second: Any, clock: Any
) -> None:
    """It asks again from the latest instant it has; clocks of the writers differ."""
    clock.now = 1_000.0

    async def writing(one: Any, name: str, skew: int) -> None:
        for n in range(25):

            async def work(transaction: Any, own_id: str = f"{name}{n}") -> None:
                clock.now += 0.001
                at = await transaction.next_instant(int(clock.now * 1000) + skew)
                await transaction.write(a_row(an_observation(own_id), updated=at))

            await one.transact(work)
            await asyncio.sleep(0)

    known: set[str] = set()

    async def follow(rounds: int) -> None:
        since = 0
        for _ in range(rounds):
            after, newest = None, since
            while True:
                page = await store.feed(
                    {"Observation": of_practice()}, since=since, count=7, after=after
                )
                known.update(row.facts.id for row in page.rows)
                newest = max([newest, *(row.updated for row in page.rows)])
                after = page.next
                if after is None:
                    break
            since = newest
            await asyncio.sleep(0)

    await asyncio.gather(writing(store, "a", 0), writing(second, "b", -50), follow(40))
    await follow(1)
    assert known == {f"{name}{n}" for name in "ab" for n in range(25)}


async def test_a_follower_misses_nothing_while_other_processes_write(
    place: Place, store: Any
) -> None:
    if str(place) == "memory":
        pytest.skip("a store in memory belongs to one process")
    writers = [
        await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.stores.writer", str(place), name, "100"
        )
        for name in "ab"
    ]
    known: set[str] = set()
    since = 0
    done = False
    while True:
        after, newest = None, since
        while True:
            page = await store.feed(
                {"Observation": of_practice()}, since=since, count=20, after=after
            )
            known.update(row.facts.id for row in page.rows)
            newest = max([newest, *(row.updated for row in page.rows)])
            after = page.next
            if after is None:
                break
        since = newest
        if done:
            break
        done = all(writer.returncode is not None for writer in writers)
        await asyncio.sleep(0.002)  # the other processes need the processor
    assert [writer.returncode for writer in writers] == [0, 0]
    assert known == {f"{name}{n}" for name in "ab" for n in range(100)}


# ---------------------------------------------------------------- text, sizes, readiness


@pytest.mark.parametrize(
    "text",
    [
        "' OR 1=1 --",
        '"; DROP TABLE resource; --',
        "$ne",
        '{"$gt":""}',
        "%",
        "_",
        "\\",
        "x\x1f",
        "`",
    ],
)
@pytest.mark.parametrize("parameter", ["code", "patient", "code-value-concept", "_id", "date"])
async def test_operator_text_in_a_search_finds_nothing_and_breaks_nothing(
    store: Any, parameter: str, text: str
) -> None:
    await write(store, a_row(SETTLED))
    try:
        page = await store.search(asked(f"{parameter}={text}"), of_practice())
    except FhirError:
        pass
    else:
        assert page.rows == ()
    assert await found(store, "", of_practice()) == ["a"]


async def test_strings_are_matched_as_text_not_as_patterns(store: Any) -> None:
    await write(
        store,
        a_row(a_patient("p1", family="100% O'Hara_x")),
        a_row(a_patient("p2", family="100 OHara")),
    )
    patients = of_practice("Patient")
    assert await found(store, "family=100%25", patients) == ["p1"]
    assert await found(store, "family:contains=o'hara_", patients) == ["p1"]
    assert await found(store, "family:contains=%25", patients) == ["p1"]
    assert await found(store, "family:exact=100%25 O'Hara_x", patients) == ["p1"]


async def test_a_store_is_stale_while_rows_have_another_index_version(
    store: Any, monkeypatch: Any
) -> None:
    await write(store, a_row(SETTLED))
    assert await store.stale() == 0
    for name, module in list(sys.modules.items()):
        if name.startswith("fhir_portal.") and hasattr(module, "INDEX_VERSION"):
            monkeypatch.setattr(module, "INDEX_VERSION", INDEX_VERSION + 1)
    assert await store.stale() == 1
    await write(store, a_row(SETTLED, version=2))
    assert await store.stale() == 0


async def test_many_keys_are_read_at_once(store: Any) -> None:
    keys = [KEY(f"Observation/o{n}") for n in range(450)]
    await write(store, *(a_row(an_observation(key.id)) for key in keys[::2]))
    rows = await store.read_many(keys, of_record())
    assert {row.key for row in rows} == set(keys[::2])


async def test_narrowing_a_visibility_never_shows_more(store: Any) -> None:
    await write(
        store,
        a_row(an_observation("a")),
        a_row(an_observation("b"), sections=["visits"]),
        a_row(an_observation("c"), labels=["R"]),
    )
    wide = of_record()
    seen = set(await found(store, "", wide))
    for narrow in (
        replace(wide, sections=frozenset({"results"})),
        replace(wide, labels=frozenset()),
        wide.only({"a", "c"}),
        replace(wide, record="bo"),
    ):
        assert set(await found(store, "", narrow)) < seen
