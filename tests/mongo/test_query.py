"""What searches and visibilities become: filters, and the indexes they are sent with."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from fhir_portal.access.visibility import SHARED, Visibility, VisibilityClass
from fhir_portal.fhir.definitions import served_types
from fhir_portal.fhir.errors import Invalid, InvalidSearch
from fhir_portal.fhir.reference import ResourceKey
from fhir_portal.mongo.driver import Document
from fhir_portal.mongo.entries import escaped, fields, inverted
from fhir_portal.mongo.query import (
    Compiled,
    alike,
    allowed,
    compile_search,
    every,
    leading,
    matching,
    then,
)
from fhir_portal.mongo.reading import Reading
from fhir_portal.mongo.schema import RESOURCE, index_named
from fhir_portal.search.indexer import IndexEntries, extract
from fhir_portal.search.registry import COLUMNS, parameters_for
from fhir_portal.search.request import parse_query
from tests.builders import DERM, FAMILY
from tests.stores.rows import OPEN, asked, of_practice, of_record

NOW = 1_750_000_000_000_000
YEAR = 1_704_067_200_000_000  # 2024-01-01
YEAR_END = 1_735_689_599_999_999


class Asked(Reading):
    """Answers reads and counts with what it is given, and keeps what it was asked."""

    def __init__(self, *found: Document, counts: Iterable[int] = ()) -> None:
        self.clock = lambda: NOW / 1_000_000
        self.found = list(found)
        self.counts = list(counts)
        self.filters: list[Document] = []
        self.hints: list[Any] = []

    async def find(
        self,
        collection: str,
        filter: Document,  # noqa: A002 - MongoDB's word
        **options: Any,
    ) -> list[Document]:
        self._keep(collection, filter, options)
        return self.found

    async def count(
        self,
        collection: str,
        filter: Document,  # noqa: A002
        **options: Any,
    ) -> int:
        self._keep(collection, filter, options)
        return self.counts.pop(0)

    def _keep(self, collection: str, wanted: Document, options: Document) -> None:
        assert collection == RESOURCE
        self.filters.append(wanted)
        self.hints.append(options["hint"])


async def compiled(
    query: str, visible: Visibility, *, after: Any = None, reading: Reading | None = None
) -> Compiled:
    request = asked(query, visible.resource_type)
    found = await compile_search(reading or Asked(), request, visible, after)
    assert found is not None
    return found


def filter_of(query: str, name: str) -> Any:
    (criterion,) = asked(query, name).criteria
    return matching(criterion, NOW)


# ---------------------------------------------------------------- criteria


FILTERS: dict[tuple[str, str], Any] = {
    ("Observation", "code=http://loinc.org|8867-4"): {"s": "code\x1f8867-4\x1fhttp://loinc.org"},
    ("Observation", "code=8867-4"): {"s": "code\x1f8867-4"},
    ("Observation", "code=|8867-4"): {"s": "code\x1f8867-4\x1f"},
    ("Observation", "code=http://loinc.org|"): {"s": "code\x1dhttp://loinc.org"},
    ("Observation", "code=B,A"): {"s": {"$in": ["code\x1fa", "code\x1fb"]}},
    ("Observation", "code:not=A"): {"s": {"$ne": "code\x1fa"}},
    ("Observation", "code:not=A,B"): {"s": {"$nin": ["code\x1fa", "code\x1fb"]}},
    ("Observation", "code:missing=true"): {"s": {"$ne": "code"}},
    ("Observation", "code:missing=false"): {"s": "code"},
    ("Observation", "date:missing=false"): {"s": "date"},
    ("Observation", "_id=a,b"): {"i": {"$in": ["a", "b"]}},
    ("Observation", "encounter=Encounter/7"): {"s": "encounter\x1fEncounter/7"},
    ("Observation", "patient=7"): {"s": "patient\x1fPatient/7"},
    ("Observation", "specimen=https://other.example/Specimen/7"): {
        "s": "specimen\x1fhttps://other.example/Specimen/7"
    },
    ("Observation", "subject=7"): {
        "s": {"$in": [f"subject\x1f{t}/7" for t in ("Device", "Group", "Location", "Patient")]}
    },
    ("Observation", "subject:Patient=7"): {"s": "subject\x1fPatient/7"},
    ("Patient", "family=O'Hára (x)"): {"s": {"$regex": "^family\x1fo'hara \\(x\\)"}},
    ("Patient", "family=a,b"): {
        "$or": [{"s": {"$regex": "^family\x1fa"}}, {"s": {"$regex": "^family\x1fb"}}]
    },
    ("Patient", "family:exact=O'Hára"): {"s": "family\x1fo'hara\x1fO'Hára"},
    ("Patient", "family:contains=.*"): {
        "$or": [
            {"s": {"$regex": "^family\x1f[^\x1f\x1c]*\\.\\*"}},
            {"w": {"$regex": "^family\x1f[^\x1f\x1c]*\\.\\*"}},
        ]
    },
    ("ValueSet", "url=http://a.example/x"): {"s": "url\x1fhttp://a.example/x"},
    ("Observation", "date=2024"): {
        "r": {
            "$elemMatch": {
                "c": "date",
                "l": {"$lte": YEAR_END, "$gte": YEAR},
                "h": {"$gte": YEAR, "$lte": YEAR_END},
            }
        }
    },
    ("Observation", "date=gt2024"): {"r": {"$elemMatch": {"c": "date", "h": {"$gt": YEAR_END}}}},
    ("Observation", "date=ne2024"): {
        "$or": [
            {"r": {"$elemMatch": {"c": "date", "l": {"$lt": YEAR}}}},
            {"r": {"$elemMatch": {"c": "date", "h": {"$gt": YEAR_END}}}},
        ]
    },
    ("Observation", "date=ge2024"): {
        "$or": [
            {"r": {"$elemMatch": {"c": "date", "h": {"$gt": YEAR_END}}}},
            {"r": {"$elemMatch": {"c": "date", "l": {"$gte": YEAR}, "h": {"$gte": YEAR}}}},
        ]
    },
    ("Observation", "value-quantity=lt5|http://unitsofmeasure.org|mg"): {
        "r": {
            "$elemMatch": {
                "c": "value-quantity",
                "l": {"$lt": "d500005"},
                "u": "mg",
                "y": "http://unitsofmeasure.org",
            }
        }
    },
    ("Observation", "value-quantity=gt5||mg"): {
        "r": {"$elemMatch": {"c": "value-quantity", "h": {"$gt": "d500005"}, "u": "mg"}}
    },
    ("RiskAssessment", "probability=lt0.5"): {
        "r": {"$elemMatch": {"c": "probability", "l": {"$lt": "d499995"}}}
    },
    ("Observation", "_lastUpdated=2024"): {"u": {"$gte": YEAR // 1000, "$lte": YEAR_END // 1000}},
    ("Observation", "_lastUpdated=ge2024"): {"u": {"$gte": YEAR // 1000, "$lte": 2**62}},
    ("Observation", "_lastUpdated=ne2024"): {
        "$or": [
            {"u": {"$gte": -(2**62), "$lte": YEAR // 1000 - 1}},
            {"u": {"$gte": YEAR_END // 1000 + 1, "$lte": 2**62}},
        ]
    },
    ("Observation", "_lastUpdated=2023,2024"): {
        "u": {"$gte": 1_672_531_200_000, "$lte": YEAR_END // 1000}
    },
}


@pytest.mark.parametrize(("name", "query"), FILTERS)
def test_a_criterion_is_this_filter(name: str, query: str) -> None:
    assert filter_of(query, name) == FILTERS[name, query]


@pytest.mark.parametrize(
    "text", ["$ne", '{"$gt":""}', "a\x00b", "a\x1fb", "\\Q.\\E", "(", "^$|[x]"]
)
@pytest.mark.parametrize("modifier", ["", ":exact", ":contains"])
def test_what_a_user_writes_is_a_value(text: str, modifier: str) -> None:
    """No operator comes from it, no separator, and nothing that an expression cannot hold."""
    written = text.replace("\\", "\\\\").replace("|", "\\|").replace("$", "\\$")
    found = filter_of(f"family{modifier}={written}", "Patient")
    for operator, value in operators(found):
        assert operator in {"$or", "$regex"}
        if operator == "$regex":
            assert "\x00" not in value
            assert value.count("\x1f") == (2 if modifier else 1), value


def operators(part: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(part, dict):
        for name, value in part.items():
            if name.startswith("$"):
                yield name, value
            yield from operators(value)
    elif isinstance(part, list):
        for one in part:
            yield from operators(one)


def test_too_long_a_part_of_a_text_is_refused() -> None:
    with pytest.raises(InvalidSearch, match="at most 4000"):
        filter_of(f"family:contains={'x' * 4001}", "Patient")


# ---------------------------------------------------------------- entries


def test_entries_are_texts_ranges_and_sort_keys() -> None:
    found = fields(
        IndexEntries(
            tokens=[("code", "", "x"), ("code", "urn:a", "b")],
            strings=[("text", "long", "Long")],
            references=[("subject", "Patient/7")],
            dates=[("date", -5, 7), ("date", 3, 9)],
            quantities=[("value", "d1", "d2", "", "mg")],
        )
    )
    assert found == {
        "s": [
            "code",
            "code\x1durn:a",
            "code\x1fb",
            "code\x1fb\x1furn:a",
            "code\x1fx",
            "code\x1fx\x1f",
            "date",
            "subject",
            "subject\x1fPatient/7",
            "text",
            "text\x1flong\x1fLong",
            "value",
        ],
        "r": [
            {"c": "date", "l": -5, "h": 7},
            {"c": "date", "l": 3, "h": 9},
            {"c": "value", "l": "d1", "h": "d2", "y": "", "u": "mg"},
        ],
        "k": {
            "code": {"a": inverted("b"), "z": "x"},
            "text": {"a": inverted("long"), "z": "long"},
            "subject": {"a": inverted("Patient/7"), "z": "Patient/7"},
            "date": {"a": 5, "z": 9},
            "value": {"a": inverted("d1"), "z": "d2"},
        },
    }


def test_inverted_texts_are_in_the_other_order() -> None:
    texts = ["", "\x00", "a", "ab", "a\U0010ffff", "b", "\x7f", "é", "\uffff", "\U00010000"]
    by_bytes = sorted(texts, key=str.encode)
    assert sorted(texts, key=lambda text: inverted(text).encode(), reverse=True) == by_bytes


def test_no_text_forges_a_separator() -> None:
    texts = ["a\x1fb", "a\x1e_b", "a", "\x00", "\x1e@", "a\x1cb"]
    assert len({escaped(text) for text in texts}) == len(texts)
    assert not any(set(escaped(text)) & set("\x00\x1c\x1d\x1f") for text in texts)


def test_a_long_text_is_cut_and_told_from_others() -> None:
    one, other = (fields(IndexEntries(uris=[("url", "u" * 500 + end)])) for end in "ab")
    assert one["s"] != other["s"]
    assert max(map(len, one["s"])) < 450
    assert filter_of(f"url={'u' * 500}a", "ValueSet")["s"] in one["s"]


def test_a_long_string_is_kept_whole_beside_its_entry() -> None:
    name = "x" * 500 + "y"
    found = fields(extract("Organization", {"resourceType": "Organization", "name": name}))
    assert found["w"] == [f"name\x1f{name}"]
    start = filter_of(f"name={name}", "Organization")
    assert start["s"] == {"$regex": f"^name\x1f{'x' * 400}"}
    assert start["w"]["$elemMatch"]["$gte"] == f"name\x1f{name}"


def test_every_code_can_be_the_name_of_a_field() -> None:
    codes = {code for name in served_types() for code in parameters_for(name)} - COLUMNS
    assert not [code for code in codes if "." in code or code.startswith("$") or not code]
    assert all(code.isprintable() for code in codes)


# ---------------------------------------------------------------- visibility


async def test_a_visibility_is_a_filter() -> None:
    visible = of_record(sections={"visits", "results"}, labels=())
    assert await allowed(Asked(), visible, ["Observation"]) == {
        "p": DERM,
        "t": "Observation",
        "o": "ada",
        "sec": {"$exists": True, "$not": {"$elemMatch": {"$nin": ["results", "visits"]}}},
        "lab": {"$size": 0},
    }
    assert await allowed(Asked(), of_practice(), ["Observation"]) == {
        "p": {"$in": [DERM, SHARED]},
        "t": "Observation",
        "hid": {"$ne": DERM},
    }


async def test_ids_become_the_ids_of_every_practice() -> None:
    visible = of_practice().only({"a", "b"})
    found = await allowed(Asked(), visible, ["Observation"], [ResourceKey("Observation", "a")])
    assert found is not None
    assert found["_id"] == {"$in": [f"{DERM}/Observation/a", f"{SHARED}/Observation/a"]}


@pytest.mark.parametrize(
    "visible",
    [
        of_record(ids=frozenset()),
        of_record(any_of=()),
        of_record(ids=frozenset({"b"})),
        Visibility.of_directory("Observation", practice=DERM, referrers=()).only(()),
    ],
)
async def test_what_nobody_can_see_is_not_asked_for(visible: Visibility) -> None:
    keys = [ResourceKey("Observation", "a")]
    assert await allowed(Asked(), visible, ["Observation"], keys) is None


async def test_granular_scopes_are_alternatives() -> None:
    first = parse_query("Observation", "category=laboratory&code=x")
    second = parse_query("Observation", "category=vital-signs")
    one = await allowed(Asked(), of_record(any_of=(first,)), ["Observation"])
    assert one is not None
    assert one["s"] == "category\x1flaboratory"
    assert one["$and"] == [{"s": "code\x1fx"}]
    both = await allowed(Asked(), of_record(any_of=(first, second)), ["Observation"])
    assert both is not None
    assert both["$or"][1] == {"s": "category\x1fvital-signs"}


DIRECTORY = Visibility.of_directory(
    "Practitioner",
    practice=DERM,
    referrers=(of_record(), of_record("Condition"), of_record("Patient", sections=())),
)


async def test_what_is_referred_to_is_looked_up_under_the_referrers() -> None:
    reading = Asked({"e": ["Practitioner/lark", "Patient/ada"]})
    found = await allowed(reading, DIRECTORY, ["Practitioner"])
    assert found is not None
    assert found["$or"] == [
        {"d": True},
        {"_id": {"$in": [f"{DERM}/Practitioner/lark", f"{SHARED}/Practitioner/lark"]}},
    ]
    assert reading.hints == ["place", "place"]
    assert [one["t"] for one in reading.filters] == [
        {"$in": ["Condition", "Observation"]},
        "Patient",
    ]
    for asked_for in reading.filters:
        assert asked_for["p"] == DERM
        assert asked_for["o"] == "ada"
        assert asked_for["x"] is False
        assert asked_for["e"] == {"$regex": "^Practitioner/"}
    assert reading.filters[1]["sec"] == {"$size": 0}


async def test_only_edges_to_what_is_asked_for_are_looked_up() -> None:
    reading = Asked({"e": ["Practitioner/lark", "Practitioner/wren"]})
    found = await allowed(
        reading, DIRECTORY, ["Practitioner"], [ResourceKey("Practitioner", "wren")]
    )
    assert found is not None
    assert reading.filters[0]["e"] == "Practitioner/wren"
    assert reading.hints == ["edge", "edge"]
    assert not any("lark" in str(one) for one in found["$or"])


async def test_nothing_referred_to_leaves_the_directory() -> None:
    found = await allowed(Asked(), DIRECTORY, ["Practitioner"])
    assert found is not None
    assert found["d"] is True


def test_versions_are_judged_by_what_they_say_themselves() -> None:
    visible = of_record(labels=(), ids=frozenset({"a"}), any_of=())
    assert then(visible, ["Observation", "Condition"]) == {
        "p": DERM,
        "t": {"$in": ["Condition", "Observation"]},
        "o": "ada",
        "lab": {"$size": 0},
    }


def test_types_with_the_same_bounds_are_asked_for_together() -> None:
    groups = alike(
        [
            ("Observation", of_record()),
            ("Condition", of_record("Condition")),
            ("Patient", of_record("Patient", record="bo")),
        ]
    )
    assert [names for names, _ in groups] == [["Observation", "Condition"], ["Patient"]]


@pytest.mark.parametrize(
    ("held", "seen"), [((), True), (("a",), True), (("b",), False), (("a", "b"), False)]
)
def test_sections_are_filtered_as_a_visibility_says(held: tuple[str, ...], *, seen: bool) -> None:
    """``$not: {$elemMatch: {$nin: …}}``: no section outside of the permitted ones."""
    visible = of_record(sections={"a"})
    permitted = then(visible, ["Observation"])["sec"]["$not"]["$elemMatch"]["$nin"]
    assert (not any(section not in permitted for section in held)) is seen
    assert visible.permits_class(VisibilityClass(frozenset(held), frozenset())) is seen


def test_filters_of_one_field_are_kept_apart() -> None:
    assert every({"s": 1, "$or": [1]}, {"s": 2, "t": 3}, {"$or": [2], "$and": [4]}) == {
        "s": 1,
        "t": 3,
        "$or": [1],
        "$and": [4, {"s": 2}, {"$or": [2]}],
    }


# ---------------------------------------------------------------- indexes


LED: dict[str, tuple[Visibility, str, tuple[str, ...]]] = {
    "": (of_practice(), "place", ("p", "t")),
    "_sort=date": (of_record(), "place", ("p", "t", "o")),
    "_id=a": (of_practice(), "_id_", ("_id",)),
    "_id=a&code=x": (of_record(), "_id_", ("_id",)),
    "code=urn:a|x": (of_practice(), "term", ("p", "t", "s")),
    "code=x,y": (of_practice(), "term", ("p", "t", "s")),
    "code=x&date=2024": (of_record(), "term", ("p", "t", "s", "o")),
    "date=2024": (of_record(), "place", ("p", "t", "o")),
    "date=2024&": (of_practice(), "low", ("p", "t", "r.c", "r.l")),
    "date=ge2024": (of_practice(), "high", ("p", "t", "r.c", "r.h")),
    "date=lt2024": (of_practice(), "low", ("p", "t", "r.c", "r.l")),
    "date=eb2024": (of_practice(), "low", ("p", "t", "r.c", "r.l")),
    "date=ap2024": (of_practice(), "high", ("p", "t", "r.c", "r.h")),
    "date=2023,gt2024": (of_practice(), "high", ("p", "t", "r.c", "r.h")),
    "date=ne2024": (of_practice(), "place", ("p", "t")),
    "value-quantity=5": (of_practice(), "low", ("p", "t", "r.c", "r.l")),
    "value-string=x": (of_practice(), "term", ("p", "t", "s")),
    "value-string:contains=x": (of_practice(), "place", ("p", "t")),
    "code:not=x": (of_practice(), "place", ("p", "t")),
    "code:missing=false": (of_practice(), "place", ("p", "t")),
    "_lastUpdated=gt2024": (of_practice(), "updated", ("p", "t", "u")),
    "_lastUpdated=ne2024": (of_practice(), "place", ("p", "t")),
    "_sort=-_lastUpdated": (of_practice(), "updated", ("p", "t")),
}


@pytest.mark.parametrize("query", LED)
async def test_a_search_seeks_the_beginning_of_an_index(query: str) -> None:
    visible, hint, leads = LED[query]
    found = await compiled(query.rstrip("&"), visible)
    assert (found.hint, found.leads) == (hint, leads)
    assert index_named(RESOURCE, hint)[: len(leads)] == leads
    bound = set(named(found.filter))
    assert bound.issuperset(leads), "the filter says something of each of them"


def named(part: Any, before: str = "") -> Iterator[str]:
    """The fields that a filter, or every alternative in it, says something of."""
    for name, value in part.items():
        if name == "$and":
            for one in value:
                yield from named(one, before)
        elif name == "$or":
            yield from set.intersection(*(set(named(one, before)) for one in value))
        elif name.startswith("$"):
            continue
        elif isinstance(value, dict) and isinstance(value.get("$elemMatch"), dict):
            yield before + name
            yield from named(value["$elemMatch"], f"{before}{name}.")
        else:
            yield before + name


async def test_a_date_seeks_what_begins_within_it() -> None:
    (criterion,) = asked("date=2024").criteria
    lead = leading(criterion, NOW)
    assert lead is not None
    assert lead.filter["r"]["$elemMatch"]["l"] == {"$gte": YEAR, "$lte": YEAR_END}


async def test_alternatives_are_led_by_what_covers_them_all() -> None:
    (criterion,) = asked("date=ge2024").criteria
    lead = leading(criterion, NOW)
    assert lead is not None
    assert lead.filter == {
        "r": {"$elemMatch": {"c": "date", "h": {"$gte": YEAR}}},
        **matching(criterion, NOW),
    }


async def test_the_criterion_with_fewest_keys_leads() -> None:
    reading = Asked(counts=[500, 500, 3])
    found = await compiled("date=2024&code=urn:a|x&status=final", of_practice(), reading=reading)
    assert reading.hints == ["term", "term", "low"]
    assert reading.filters[0] == {
        "p": {"$in": [DERM, SHARED]},
        "t": "Observation",
        "s": "code\x1fx\x1furn:a",
    }
    assert found.hint == "low"
    reading = Asked(counts=[499])
    found = await compiled("date=2024&code=x", of_practice(), reading=reading)
    assert (found.hint, len(reading.hints)) == ("term", 1)


async def test_no_criterion_is_lost_or_asked_twice() -> None:
    found = await compiled("code=x&status=final&date=gt2024", of_record())
    assert found.filter == {
        "s": "code\x1fx",
        "p": DERM,
        "t": "Observation",
        "o": "ada",
        "lab": {"$exists": True, "$not": {"$elemMatch": {"$nin": sorted(OPEN)}}},
        "x": False,
        "r": {"$elemMatch": {"c": "date", "h": {"$gt": YEAR_END}}},
        "$and": [{"s": "status\x1ffinal"}],
    }


async def test_several_ids_must_all_be_it() -> None:
    found = await compiled("_id=a,b&_id=b,c", of_record())
    assert found.filter["_id"] == f"{DERM}/Observation/b"
    request = asked("_id=a&_id=b")
    assert await compile_search(Asked(), request, of_record(), None) is None


async def test_a_search_of_another_type_than_may_be_seen_finds_nothing() -> None:
    found = await compile_search(Asked(), asked(""), of_record("Condition"), None)
    assert found is None


# ---------------------------------------------------------------- order and pages


@pytest.mark.parametrize(
    ("sort", "order"),
    [
        ("", (("o", 1), ("_id", 1))),
        ("date", (("k.date.a", -1), ("_id", 1))),
        ("-date", (("k.date.z", -1), ("_id", 1))),
        ("_lastUpdated", (("u", 1), ("_id", 1))),
        ("-_lastUpdated", (("u", -1), ("_id", -1))),
        ("-_lastUpdated,_id", (("u", -1), ("i", 1), ("_id", 1))),
        ("code,-value-quantity", (("k.code.a", -1), ("k.value-quantity.z", -1), ("_id", 1))),
    ],
)
async def test_an_order_ends_with_the_id(sort: str, order: Any) -> None:
    found = await compiled(f"_sort={sort}" if sort else "", of_practice())
    assert found.order == order


ROW = f"{DERM}/Observation/a"
BEHIND: dict[tuple[str, tuple[Any, ...]], Any] = {
    ("", ()): {"_id": {"$gt": ROW}},
    ("", ("bo",)): {
        "o": {"$gte": "bo"},
        "$or": [{"o": {"$gt": "bo"}}, {"o": "bo", "_id": {"$gt": ROW}}],
    },
    ("date", (7,)): {
        "$or": [
            {"k.date.a": {"$lt": 7}},
            {"k.date.a": 7, "_id": {"$gt": ROW}},
            {"k.date.a": None},
        ]
    },
    ("date", (None,)): {"k.date.a": None, "_id": {"$gt": ROW}},
    ("-_lastUpdated", (7,)): {
        "u": {"$lte": 7},
        "$or": [{"u": {"$lt": 7}}, {"u": 7, "_id": {"$lt": ROW}}],
    },
    ("date,-code", (7, None)): {
        "$or": [
            {"k.date.a": {"$lt": 7}},
            {"k.date.a": 7, "k.code.z": None, "_id": {"$gt": ROW}},
            {"k.date.a": None},
        ]
    },
}


@pytest.mark.parametrize(("sort", "values"), BEHIND)
async def test_a_page_starts_behind_the_values_of_the_last_row(
    sort: str, values: tuple[Any, ...]
) -> None:
    """Not behind the row: it may be gone, or elsewhere, by then."""
    query = f"_sort={sort}" if sort else ""
    # Without a sort a practice's rows come by their owners; a record's have the same one.
    visible = of_practice() if values and not sort else of_record()
    found = await compiled(query, visible, after=(*values, DERM, "a"))
    assert found.behind == BEHIND[sort, values]


@pytest.mark.parametrize("after", [(), ("a",), (DERM, "a"), (1, 2, DERM, "a")])
async def test_a_page_of_another_order_is_refused(after: Any) -> None:
    with pytest.raises(Invalid, match="paging link"):
        await compiled("_sort=date", of_record(), after=after)


async def test_practices_other_than_the_shared_one_hide_it_together() -> None:
    visible = replace(of_practice(), practices=(DERM, FAMILY, SHARED))
    found = await allowed(Asked(), visible, ["Observation"])
    assert found is not None
    assert found["hid"] == {"$nin": sorted([DERM, FAMILY])}
