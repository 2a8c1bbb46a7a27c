from __future__ import annotations

import pytest

from fhir_portal.fhir.errors import InvalidSearch, UnknownType
from fhir_portal.search.request import (
    DEFAULT_COUNT,
    MAX_COUNT,
    MAX_VALUES,
    REFUSED,
    SearchRequest,
    parse_query,
    parse_search,
)
from fhir_portal.search.values import Missing, ReferenceValue, StringValue, Token
from tests.search.corpus import BASE, small_corpus
from tests.search.queries import generate


def search(resource_type: str, *pairs: tuple[str, str], lenient: bool = False) -> SearchRequest:
    return parse_search(resource_type, pairs, base=BASE, lenient=lenient)


def test_a_search_without_parameters_finds_everything_by_the_page() -> None:
    request = search("Patient")
    assert request == SearchRequest("Patient")
    assert request.count == DEFAULT_COUNT
    assert request.parameters_text() == [("_count", "20")]


def test_a_whole_search_is_read_and_written_again() -> None:
    pairs = [
        ("patient", f"{BASE}/Patient/7"),
        ("category", "http://c|laboratory,survey"),
        ("code:not", "x"),
        ("date", "ge2026-01-01T00:00:00-05:00"),
        ("date", "lt2026-06"),
        ("value-quantity:missing", "false"),
        ("_lastUpdated", "gt2020"),
        ("_sort", "-date,_id,patient"),
        ("_include", "Observation:performer:Practitioner"),
        ("_include", "Observation:subject"),
        ("_include", "Observation:subject"),
        ("_revinclude", "Provenance:target"),
        ("_total", "estimate"),
        ("_summary", "count"),
        ("_count", "050"),
        ("_page", "opaque=="),
    ]
    assert search("Observation", *pairs).parameters_text() == [
        ("patient", "Patient/7"),
        ("category", "http://c|laboratory,survey"),
        ("code:not", "x"),
        ("date", "ge2026-01-01T05:00:00Z"),
        ("date", "lt2026-06"),
        ("value-quantity:missing", "false"),
        ("_lastUpdated", "gt2020"),
        ("_sort", "-date,_id,patient"),
        ("_include", "Observation:performer:Practitioner"),
        ("_include", "Observation:subject"),
        ("_revinclude", "Provenance:target"),
        ("_total", "accurate"),
        ("_summary", "count"),
        ("_count", "50"),
        ("_page", "opaque=="),
    ]


def test_what_is_written_reads_as_the_same_request() -> None:
    for query in generate(small_corpus(), 300, seed=3):
        request = search(query.resource_type, *query.pairs)
        assert search(query.resource_type, *request.parameters_text()) == request
        assert hash(request) == hash(search(query.resource_type, *query.pairs))


def test_values_are_read_by_the_type_of_their_parameter() -> None:
    values = {
        criterion.name: criterion.values
        for criterion in search(
            "Patient",
            ("name", r"O\,Neil,gt5"),
            ("identifier", r"http://s|a\|b"),
            ("name:exact", "Zoë"),
            ("general-practitioner:Practitioner", "1"),
            ("gender:missing", "true"),
        ).criteria
    }
    assert values == {
        "name": (StringValue("O,Neil"), StringValue("gt5")),
        "identifier": (Token("http://s", "a|b"),),
        "name:exact": (StringValue("Zoë"),),
        "general-practitioner:Practitioner": (ReferenceValue("Practitioner", "1", None),),
        "gender:missing": (Missing(missing=True),),
    }


@pytest.mark.parametrize(
    ("pairs", "words"),
    [
        ([("code", "a"), ("date", "2020"), ("kolor", "x")], "The 3rd search parameter: … is not"),
        ([("pateint", "x"), ("code", "a")], "The 1st search parameter: … is not .* mean patient"),
        ([("code", "a")] * 11 + [("kolor", "x")], "The 12th search parameter: … is not"),
        ([("code", "a")] * 20 + [("kolor", "x")], "The 21st search parameter: … is not"),
        ([("code", "a"), ("code:kolor", "b")], "The 2nd search parameter: .*:…"),
        ([("code", "a"), ("subject.kolor", "b")], "The 2nd search parameter: subject.…: chained"),
        ([("code", "a"), ("_include", "Kolor:x")], "The 2nd search parameter: _include: '…'"),
        ([("code", "a"), ("_sort", "date,-kolor")], "^_sort: '…', the 2nd of them, is not a"),
        ([("code", "a"), ("_sort", "kolor")], "^_sort: '…' is not a"),
        ([("kolor", "x")], "^… is not a search parameter"),
        ([("code", "a"), ("_kolor", "x")], "^_kolor is not a search parameter"),
    ],
)
def test_which_of_several_is_meant_is_said_by_its_number(
    pairs: list[tuple[str, str]], words: str
) -> None:
    """A name that is not repeated is found by it; it stands in no message."""
    with pytest.raises(InvalidSearch, match=words) as refused:
        search("Observation", *pairs)
    assert "kolor" not in str(refused.value).replace("_kolor", "").lower()


def test_which_of_several_in_a_scope_is_meant_is_said_too() -> None:
    with pytest.raises(InvalidSearch, match=r"^The 2nd search parameter: … cannot be used in a"):
        parse_query("Observation", "code=http://loinc.org|8867-4&kolor=x")


def test_a_reference_is_looked_for_under_every_form_it_may_have() -> None:
    (criterion,) = search("Observation", ("subject", f"7,Group/8,{BASE}/Patient/7")).criteria
    bare = [f"{type_}/7" for type_ in ("Device", "Group", "Location", "Patient")]
    assert criterion.targets() == (*bare, "Group/8")
    (patient,) = search("Observation", ("patient", "7")).criteria
    assert patient.targets() == ("Patient/7",)


@pytest.mark.parametrize(
    ("pair", "words"),
    [
        (("foo", "1"), "… is not a search parameter of Observation"),
        (("Code", "1"), "… is not a search parameter of Observation here. Did you mean code"),
        (("code-value-quantity", "a$b"), "code-value-quantity is not a search parameter"),
        (("code:in", "x"), "code of Observation does not support the modifier :in"),
        (("code:exact", "x"), ":exact; it has :missing :not"),
        (("code:", "x"), "code: has no modifier"),
        (("date:not", "2020"), "date of Observation does not support the modifier :not"),
        (("_id:not", "x"), "_id of Observation does not support the modifier :not; it has none"),
        (("subject:Practitioner", "1"), "does not support the modifier :Practitioner"),
        (("patient:Patient", "1"), "does not support the modifier :Patient"),
        (("subject.name", "x"), "subject.name: chained"),
        (("subject:Patient.name", "x"), "subject:Patient.name: chained"),
        (("_has:Observation:patient:code", "1"), "_has:Observation:patient:code is not supported"),
        (("code", ""), "code: an empty value"),
        (("code", ","), "code: an empty value"),
        (("code", "a,,b"), "code: an empty value"),
        (("code", "|"), "code: A token"),
        (("code", r"a\b"), "code: A backslash"),
        (("date", "zz2020"), "date: zz is not a search prefix"),
        (("date", "tomorrow"), "date: to is not a search prefix"),
        (("date", "2020-02-30"), "date: A date is"),
        (("value-quantity", "5|mg"), "value-quantity: A quantity"),
        (("value-quantity", "gt"), "value-quantity: A number"),
        (("value-string", "\u0301"), "value-string: only accents"),
        (("subject", "Foo/1"), "subject: What stands before the / is not a resource type"),
        (("subject:Patient", "Group/1"), "subject:Patient: With :Patient"),
        (("code:missing", "yes"), "code:missing: The value of :missing"),
        (("code:missing", "true,false"), "code:missing: The value of :missing"),
        (("_id", "http://s|a"), "_id: an id has no system"),
        (("_count", "-1"), "_count"),
        (("_count", "ten"), "_count"),
        (("_count", ""), "_count"),
        (("_count", "1.5"), "_count"),
        (("_count", "²"), "_count"),
        (("_count:exact", "1"), "_count:exact is not a search parameter"),
        (("_sort", "foo"), "_sort: '…' is not a search parameter"),
        (("_sort", ""), "_sort: '…' is not"),
        (("_sort", "date,-date"), "_sort: date stands there twice"),
        (("_sort", "date:asc"), "_sort: 'date:…' is not"),
        (("_sort", "--date"), "_sort: '…' is not"),
        (("_sort", "_score"), "_sort: '_score' is not"),
        (("_include", "*"), r"_include: \* is not supported"),
        (("_include", "Observation:*"), r"_include: \* is not supported"),
        (("_include", "Observation"), "_include is Type:parameter"),
        (("_include", ""), "_include is Type:parameter"),
        (("_include", "Observation:subject:"), "_include is Type:parameter"),
        (("_include", "Nothing:subject"), "_include: '…' is not a type"),
        (("_include", "Observation:code"), "_include: 'code' is not a reference parameter"),
        (("_include", "Observation:nothing"), "_include: '…' is not a reference parameter"),
        (("_include", "Observation:subject:Medication"), "cannot refer to 'Medication'"),
        (("_include", "Observation:subject:Patient:x"), "cannot refer to 'Patient:…'"),
        (("_include", "Patient:organization"), "does not start at the type searched, Observation"),
        (("_include:iterate", "Observation:subject"), "_include:iterate is not supported"),
        (("_include:recurse", "Observation:subject"), "_include:recurse is not supported"),
        (("_revinclude", "*"), r"_revinclude: \* is not supported"),
        (("_revinclude", "Observation:subject"), "does not lead to the type searched"),
        (("_revinclude", "Provenance:target:Patient"), "does not lead to the type searched"),
        (("_revinclude:iterate", "Provenance:target"), "_revinclude:iterate is not supported"),
        (("_total", "some"), "_total: it is none, estimate or accurate"),
        (("_summary", "true"), "_summary: only count and false"),
        (("_page", ""), "_page: it is empty"),
        (("", ""), "is not a search parameter"),
    ],
)
def test_what_is_not_understood_is_refused_by_name(pair: tuple[str, str], words: str) -> None:
    with pytest.raises(InvalidSearch, match=words):
        search("Observation", pair)


@pytest.mark.parametrize("name", ["_sort", "_count", "_total", "_summary", "_page"])
def test_a_control_may_not_be_given_twice(name: str) -> None:
    with pytest.raises(InvalidSearch, match=f"{name} may be given once"):
        search("Observation", (name, "1"), (name, "1"))


def test_more_values_than_a_search_may_have_are_refused() -> None:
    half = ("code", ",".join(f"c{n}" for n in range(MAX_VALUES // 2)))
    assert search("Observation", half, half).criteria
    with pytest.raises(InvalidSearch, match="at most"):
        search("Observation", half, half, ("code", "one-more"))


@pytest.mark.parametrize("name", sorted(REFUSED))
@pytest.mark.parametrize("lenient", [False, True])
def test_controls_of_r4_that_are_not_offered_are_refused_even_leniently(
    name: str, *, lenient: bool
) -> None:
    with pytest.raises(InvalidSearch, match=name):
        search("Observation", (name, "x"), lenient=lenient)


def test_leniency_drops_unknown_parameters_and_says_so() -> None:
    pairs = (("foo", "1"), ("status", "final"), ("code-value-quantity", "a$b"), ("foo", "2"))
    request = search("Observation", *pairs, lenient=True)
    assert [criterion.name for criterion in request.criteria] == ["status"]
    assert request.ignored == ("foo", "code-value-quantity")
    assert ("foo", "1") not in request.parameters_text()


@pytest.mark.parametrize(
    "pair",
    [
        ("status:in", "x"),
        ("status", ""),
        ("date", "never"),
        ("patient.name", "x"),
        ("unknown.name", "x"),
        ("_include", "Observation:nothing"),
        ("_include:iterate", "Observation:subject"),
        ("_sort", "foo"),
        ("_has:Provenance:target:agent", "x"),
    ],
)
def test_leniency_never_drops_what_could_widen_a_search_it_understands(
    pair: tuple[str, str],
) -> None:
    with pytest.raises(InvalidSearch):
        search("Observation", pair, lenient=True)


@pytest.mark.parametrize(
    ("text", "count", "only_total"),
    [("0", 0, True), ("1", 1, False), ("200", 200, False), ("201", MAX_COUNT, False)],
)
def test_a_page_is_as_long_as_asked_up_to_the_longest(
    text: str, count: int, *, only_total: bool
) -> None:
    request = search("Patient", ("_count", text))
    assert (request.count, request.only_total) == (count, only_total)
    assert search("Patient", ("_count", "9" * 5000)).count == MAX_COUNT


def test_a_long_name_is_not_repeated_whole() -> None:
    with pytest.raises(InvalidSearch) as refusal:
        search("Patient", ("x" * 5000, "1"))
    assert len(str(refusal.value)) < 200


def test_a_type_that_is_not_served_is_unknown() -> None:
    with pytest.raises(UnknownType):
        search("Nothing", ("_id", "1"))


# --- granular scopes ------------------------------------------------------------------------------


def test_the_query_of_a_scope_is_criteria_that_all_hold() -> None:
    category = "http://terminology.hl7.org/CodeSystem/observation-category"
    criteria = parse_query("Observation", f"category={category}|laboratory&status=final,amended")
    assert [(criterion.name, criterion.text) for criterion in criteria] == [
        ("category", f"{category}|laboratory"),
        ("status", "final,amended"),
    ]
    assert parse_query("Observation", "category=http%3A%2F%2Fc%7Clab")[0].text == "http://c|lab"


@pytest.mark.parametrize(
    "query",
    [
        "",
        "category",
        "category=",
        "=x",
        "&",
        "category:not=x",
        "category:missing=true",
        "category:in=http://v",
        "date=gt2020",
        "date=ap2020",
        "value-quantity=ne5",
        "subject.name=x",
        "unknown=x",
        "_id=x",
        "_lastUpdated=2020",
        "_sort=date",
        "_count=1",
        "_include=Observation:subject",
        "_has:Provenance:target:agent=x",
        "category=x&date=le2020",
        "date=sa2020",
        "value-quantity=lt5",
        "&".join(["category=x"] * 50),
    ],
)
def test_a_scope_may_not_say_more_than_that(query: str) -> None:
    with pytest.raises(InvalidSearch):
        parse_query("Observation", query)


def test_a_scope_may_name_a_period() -> None:
    criteria = parse_query("Observation", "date=ge2020-01-01&date=lt2021-01-01T05:00:00Z")
    assert [criterion.text for criterion in criteria] == ["ge2020-01-01", "lt2021-01-01T05:00:00Z"]


def test_a_scope_may_name_a_day_or_a_number_to_be_equal_to() -> None:
    criteria = parse_query("Observation", "date=2020-01&value-quantity=eq5||mg")
    assert [criterion.text for criterion in criteria] == ["2020-01", "5||mg"]
