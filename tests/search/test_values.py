from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from fhir_portal.fhir.datetime import period_of
from fhir_portal.fhir.errors import InvalidSearch
from fhir_portal.search.values import (
    MAX_INSTANT,
    MAX_NUMBER_KEY,
    MIN_INSTANT,
    MIN_NUMBER_KEY,
    PREFIXES,
    Conditions,
    DateValue,
    Missing,
    NumberValue,
    QuantityValue,
    ReferenceValue,
    StringValue,
    Token,
    UriValue,
    escape,
    fold_code,
    normalise,
    number_key,
    split_unescaped,
    unescape,
)

NOW = period_of("2026-07-01T12:00:00Z")[0]


def within(conditions: Conditions, low: int | str, high: int | str) -> bool:
    ends = {"low": low, "high": high}
    return any(all(bound.holds(ends[bound.end]) for bound in bounds) for bounds in conditions)


# --- escaping (R4 §3.1.1.4.19) --------------------------------------------------------------------


@given(st.text())
def test_escaped_text_comes_back_and_is_never_split(text: str) -> None:
    assert unescape(escape(text)) == text
    for separator in ",|$":
        assert split_unescaped(escape(text), separator) == [escape(text)]


@given(st.lists(st.text()))
def test_joined_values_are_split_where_they_were_joined(texts: list[str]) -> None:
    joined = ",".join(map(escape, texts))
    assert [unescape(part) for part in split_unescaped(joined, ",")] == (texts or [""])


@pytest.mark.parametrize("text", ["xx\\xx", "\\", "a,b\\", "\\n", "\\\\\\"])
def test_a_backslash_before_anything_else_is_refused(text: str) -> None:
    with pytest.raises(InvalidSearch, match="backslash"):
        unescape(text)


# --- token (§3.1.1.4.10) --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "token"),
    [
        ("male", Token(None, "male")),
        ("http://s|c", Token("http://s", "c")),
        ("|c", Token("", "c")),
        ("http://s|", Token("http://s", None)),
        (r"a\|b", Token(None, "a|b")),
        (r"a\,b|c\$\\", Token("a,b", "c$\\")),
        ("gt5", Token(None, "gt5")),
    ],
)
def test_a_token_is_read(text: str, token: Token) -> None:
    assert Token.parse(text) == token


@pytest.mark.parametrize("text", ["", "|", "a|b|c"])
def test_a_token_of_nothing_or_of_three_parts_is_refused(text: str) -> None:
    with pytest.raises(InvalidSearch, match="token"):
        Token.parse(text)


@pytest.mark.parametrize(
    ("token", "system", "code", "matches"),
    [
        ("ABC", "http://s", "abc", True),
        ("abc", "", "abc", True),
        ("ab", "", "abc", False),
        ("http://s|abc", "http://s", "abc", True),
        ("http://S|abc", "http://s", "abc", False),
        ("|abc", "", "abc", True),
        ("|abc", "http://s", "abc", False),
        ("http://s|", "http://s", "anything", True),
        ("http://s|", "", "anything", False),
        ("STRASSE", "", "strasse", True),
    ],
)
def test_tokens_match_by_exact_system_and_folded_code(
    token: str, system: str, code: str, *, matches: bool
) -> None:
    assert Token.parse(token).matches(system, code) is matches


def test_codes_are_folded_beyond_ascii() -> None:
    assert fold_code("STRAßE") == fold_code("strasse")


# --- string (§3.1.1.4.8) --------------------------------------------------------------------------


@given(st.text())
@example("İstanbul")
@example("ﬃ ǅ ᾳ\u0345")
def test_normalising_twice_changes_nothing_more(text: str) -> None:
    assert normalise(normalise(text)) == normalise(text)


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("Núñez", "nunez"),
        ("Nu\u0301n\u0303ez", "nunez"),
        ("  Anna \t Lena\n", "anna lena"),
        ("Straße", "strasse"),
        ("O'Neil-Smith", "o'neil-smith"),
        ("ÅSA", "asa"),
        ("İpek", "ipek"),
        ("\u0301", ""),
    ],
)
def test_strings_lose_case_accents_and_repeated_spaces(text: str, normal: str) -> None:
    assert normalise(text) == normal


@given(st.text(alphabet="aAäÄ éÉßçñ", min_size=1), st.integers(1, 5))
def test_a_string_starts_with_its_own_beginning_once_both_are_normalised(
    text: str, length: int
) -> None:
    assert normalise(text).startswith(normalise(text[:length]))


# --- reference (§3.1.1.4.12) ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("23", ReferenceValue(None, "23", None)),
        ("Patient/23", ReferenceValue("Patient", "23", None)),
        ("http://h/fhir/Patient/23", ReferenceValue(None, None, "http://h/fhir/Patient/23")),
        ("http://c/ValueSet/x|1.0", ReferenceValue(None, None, "http://c/ValueSet/x|1.0")),
        (r"http://c/ValueSet/x\|1.0", ReferenceValue(None, None, "http://c/ValueSet/x|1.0")),
        ("urn:oid:1.2.3", ReferenceValue(None, None, "urn:oid:1.2.3")),
    ],
)
def test_a_reference_is_read(text: str, value: ReferenceValue) -> None:
    assert ReferenceValue.parse(text) == value


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Patient/",
        "Patient/a b",
        "Foo/1",
        "patient/1",
        "gtPatient/1",
        "Patient/1/_history/2",
        "http://h/fhir/Patient/1/_history/2",
        "#contained",
        "Patient?identifier=1",
        "Patient/../Patient/1",
        "x" * 65,
    ],
)
def test_what_is_no_reference_is_refused(text: str) -> None:
    with pytest.raises(InvalidSearch):
        ReferenceValue.parse(text)


def test_a_url_below_the_base_is_the_same_as_the_relative_reference() -> None:
    inside = ReferenceValue.parse("http://h/fhir/Patient/23").seen_from("http://h/fhir")
    assert inside == ReferenceValue("Patient", "23", None)
    url = "http://h/fhir/Questionnaire/q"
    canonical = ReferenceValue.parse(url).seen_from("http://h/fhir", also_url=True)
    assert canonical.targets(("Questionnaire",)) == ("Questionnaire/q", url)
    assert str(canonical) == url
    elsewhere = ReferenceValue.parse("http://h/fhir2/Patient/23")
    assert elsewhere.seen_from("http://h/fhir") == elsewhere


def test_a_bare_id_may_be_of_any_type_the_parameter_can_refer_to() -> None:
    value = ReferenceValue.parse("23")
    assert value.targets(("Patient", "Group")) == ("Patient/23", "Group/23")
    assert ReferenceValue.parse("Patient/23").targets(("Group",)) == ("Patient/23",)


def test_a_type_modifier_narrows_an_id_and_nothing_else() -> None:
    assert str(ReferenceValue.parse("23").narrowed_to("Patient")) == "Patient/23"
    for text in ("Group/23", "http://h/fhir/Patient/23"):
        with pytest.raises(InvalidSearch):
            ReferenceValue.parse(text).narrowed_to("Patient")


# --- date (§3.1.1.4.7) ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "target", "matches"),
    [  # the specification's own examples
        ("eq2013-01-14", "2013-01-14T00:00", True),
        ("eq2013-01-14", "2013-01-14T10:00", True),
        ("eq2013-01-14", "2013-01-15T00:00", False),
        ("ne2013-01-14", "2013-01-15T00:00", True),
        ("ne2013-01-14", "2013-01-14T00:00", False),
        ("ne2013-01-14", "2013-01-14T10:00", False),
        ("lt2013-01-14T10:00", "2013-01-14", True),
        ("gt2013-01-14T10:00", "2013-01-14", True),
        ("ge2013-03-14", "2013-01-21 onwards", True),
        ("le2013-03-14", "2013-01-21 onwards", True),
        ("sa2013-03-14", "2013-03-15 onwards", True),
        ("sa2013-03-14", "2013-01-21 onwards", False),
        ("sa2013-03-14", "up to 2013-01-21", False),
        ("eb2013-03-14", "2013-03-15 onwards", False),
        ("eb2013-03-14", "2013-01-21 onwards", False),
        ("eb2013-03-14", "up to 2013-01-21", True),
        ("ap2013-03-14", "2013-03-14", True),
        ("ap2013-03-14", "2015-06-15", False),
        # and what follows from its words
        ("2013", "2013-06", True),
        ("2013-06", "2013", False),
        ("gt2013-01-14", "2013-01-14T23:59:59", False),
        ("gt2013-01-14", "2013-01-15T00:00:00Z", True),
        ("lt2013-01-14", "2013-01-14T00:00:00Z", False),
        ("ge2013-01-14", "2013-01-14T00:00:00Z", True),
        ("le2013-01-14", "2013-01-14T23:59:59Z", True),
        ("ge2013-01-14", "2013-01-14T10:00:00+14:00", False),
        ("eq2013-01-14T10:00:00+02:00", "2013-01-14T08:00:00Z", True),
        ("eq2013-01-14", "2013-01-14 onwards", False),
        ("eq2013-01-14", "up to 2013-01-14", False),
        ("ne2013-01-14", "2013-01-14 onwards", True),
        ("gt9999", "2013-01-14 onwards", True),
        ("lt0001", "up to 2013-01-14", True),
    ],
)
def test_dates_compare_as_ranges(asked: str, target: str, *, matches: bool) -> None:
    low, high = period_of(target.removeprefix("up to ").removesuffix(" onwards"))
    if target.endswith("onwards"):
        high = MAX_INSTANT
    elif target.startswith("up to"):
        low = MIN_INSTANT
    assert within(DateValue.parse(asked).conditions(now=NOW), low, high) is matches


def test_an_approximate_date_reaches_a_tenth_of_its_distance_to_now() -> None:
    asked = DateValue.parse("ap2016-07-01")  # ten years back: one year to either side
    for target, matches in [("2015-07-03", True), ("2015-06-01", False), ("2017-06-30", True)]:
        assert within(asked.conditions(now=NOW), *period_of(target)) is matches


def test_an_approximate_date_around_now_is_just_that_date() -> None:
    today = DateValue.parse("ap2026-07-01")
    assert within(today.conditions(now=NOW), *period_of("2026-07-01T23:00:00Z"))
    assert not within(today.conditions(now=NOW), *period_of("2026-07-02"))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("zz2020", "zz is not a search prefix"),
        ("EQ2020", "EQ is not a search prefix"),
        ("ge", "date"),
        ("", "date"),
        ("2020-13", "date"),
        ("2021-02-29", "date"),
        ("2020-01-01T10", "date"),
        ("20200101", "date"),
        ("23 May 2009", "date"),
        ("2022-01-31T10:00:00 05:00", "%2B"),
        ("0001-01-01T00:00:00+14:00", "years"),
        ("9999-12-31T23:59:59-14:00", "years"),
    ],
)
def test_what_is_no_date_is_refused(text: str, words: str) -> None:
    with pytest.raises(InvalidSearch, match=words):
        DateValue.parse(text)


# --- number and quantity (§3.1.1.4.6, §3.1.1.4.11) ------------------------------------------------


@pytest.mark.parametrize(
    ("text", "low", "high"),
    [
        ("100", "99.5", "100.5"),
        ("100.00", "99.995", "100.005"),
        ("1.00e2", "99.5", "100.5"),
        ("1e2", "50", "150"),
        ("5.40e-3", "0.005395", "0.005405"),
        ("-5", "-5.5", "-4.5"),
        ("0", "-0.5", "0.5"),
    ],
)
def test_the_digits_of_a_number_are_its_precision(text: str, low: str, high: str) -> None:
    value = NumberValue.parse(text)
    assert (value.low, value.high) == (Decimal(low), Decimal(high))


@pytest.mark.parametrize(
    ("asked", "target", "matches"),
    [
        ("100", "99.5", True),
        ("100", "100.4999", True),
        ("100", "100.5", False),
        ("ne100", "100.4", False),
        ("ne100", "100.5", True),
        ("gt100", "100", False),
        ("gt100", "100.0001", True),
        ("lt100", "99.9999", True),
        ("ge100", "100.00", True),
        ("le100", "100.0001", False),
        ("sa100", "100.1", True),
        ("eb100", "100", False),
        ("ap100", "110", True),
        ("ap100", "110.1", False),
        ("ap-100", "-90", True),
        ("ap1", "1.5", True),
        ("2", "2", True),
        ("1.5", "2", False),
    ],
)
def test_numbers_compare_by_precision_or_exactly(asked: str, target: str, *, matches: bool) -> None:
    key = number_key(Decimal(target))
    assert within(NumberValue.parse(asked).conditions(), key, key) is matches


@pytest.mark.parametrize(
    ("asked", "matches"),
    [("4", False), ("gt4", True), ("lt4", True), ("sa2", True), ("eb6", True), ("ap3", True)],
)
def test_a_stored_range_compares_as_a_whole(asked: str, *, matches: bool) -> None:
    three_to_five = number_key(Decimal(3)), number_key(Decimal(5))
    assert within(NumberValue.parse(asked).conditions(), *three_to_five) is matches


@pytest.mark.parametrize(
    "text", ["", "five", "05", "+5", ".5", "5.", "1e", "0x10", "NaN", "1e99999", "1" * 65, "5,5"]
)
def test_what_is_no_number_is_refused(text: str) -> None:
    with pytest.raises(InvalidSearch):
        NumberValue.parse(text)


NUMBERS = st.one_of(
    st.decimals(allow_nan=False, allow_infinity=False),
    st.builds(
        lambda digits, exponent: Decimal(digits).scaleb(exponent),
        st.integers(-(10**25), 10**25),
        st.integers(-300, 300),
    ),
    st.sampled_from([Decimal(0), Decimal("-0"), Decimal("0E+5"), Decimal("-1E-245")]),
)


@given(NUMBERS, NUMBERS)
@example(Decimal("-1.2"), Decimal("-1.23"))
@example(Decimal("9.99"), Decimal(10))
@example(Decimal("5.40"), Decimal("5.4"))
def test_keys_are_ordered_as_their_numbers(first: Decimal, second: Decimal) -> None:
    one, other = number_key(first), number_key(second)
    assert (one < other) is (first < second)
    assert (one == other) is (first == second)
    assert MIN_NUMBER_KEY < one < MAX_NUMBER_KEY
    assert one.isascii()


@given(NUMBERS)
def test_a_number_equals_itself_under_every_inclusive_prefix(number: Decimal) -> None:
    text = str(number)
    assume(len(text) <= 60)
    key = number_key(number)
    for prefix in ("eq", "ge", "le", "ap"):
        assert within(NumberValue.parse(prefix + text).conditions(), key, key)
    for prefix in ("ne", "gt", "lt", "sa", "eb"):
        assert not within(NumberValue.parse(prefix + text).conditions(), key, key)


@pytest.mark.parametrize(
    ("text", "system", "code", "matches"),
    [
        ("5.4|http://unitsofmeasure.org|mg", "http://unitsofmeasure.org", "mg", True),
        ("5.4|http://unitsofmeasure.org|mg", "", "mg", False),
        ("5.4||mg", "http://unitsofmeasure.org", "mg", True),
        ("5.4||mg", "", "mg", True),
        ("5.4||MG", "", "mg", False),
        ("5.4", "", "anything", True),
        ("5.4|http://unitsofmeasure.org|", "http://unitsofmeasure.org", "kg", True),
    ],
)
def test_units_match_by_system_and_code_or_by_either_name(
    text: str, system: str, code: str, *, matches: bool
) -> None:
    assert QuantityValue.parse(text).matches_unit(system, code) is matches


@pytest.mark.parametrize("text", ["5.4|mg", "5.4|a|b|c", "|s|c", "zz5.4||mg"])
def test_what_is_no_quantity_is_refused(text: str) -> None:
    with pytest.raises(InvalidSearch):
        QuantityValue.parse(text)


# --- uri, :missing --------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["", "http://a b", "a\tb"])
def test_what_is_no_uri_is_refused(text: str) -> None:
    with pytest.raises(InvalidSearch):
        UriValue.parse(text)


@pytest.mark.parametrize("text", ["", "TRUE", "1", "yes"])
def test_missing_is_true_or_false(text: str) -> None:
    with pytest.raises(InvalidSearch):
        Missing.parse(text)


# --- all of them: str() is a spelling that parses to the same value -------------------------------

TEXTS = st.text(min_size=1)
DAYS = st.dates().map(str)
PREFIXED = st.sampled_from(["", *PREFIXES])
DATES = st.builds(
    lambda prefix, moment, length: prefix + moment[:length] + ("Z" if length > 10 else ""),
    PREFIXED,
    st.datetimes().map(lambda moment: moment.isoformat(timespec="microseconds")),
    st.sampled_from([4, 7, 10, 16, 19, 21, 22, 23, 24, 25, 26]),
)
DIGITS = st.from_regex(
    r"-?(0|[1-9][0-9]{0,20})(\.[0-9]{1,20})?([eE][+-]?[0-9]{1,2})?", fullmatch=True
)


@given(st.one_of(st.none(), TEXTS), TEXTS)
def test_tokens_keep_their_meaning_when_written(system: str | None, code: str) -> None:
    assert_round_trip(Token(system, code))


@given(TEXTS)
def test_strings_keep_their_meaning_when_written(text: str) -> None:
    assert_round_trip(StringValue(text))


@given(st.from_regex(r"https?://[a-z]{1,9}(/[a-zA-Z0-9,$|\\]{1,9}){1,3}", fullmatch=True))
def test_uris_and_canonicals_keep_their_meaning_when_written(text: str) -> None:
    assert_round_trip(UriValue(text))
    assert_round_trip(ReferenceValue(None, None, text))


@given(DATES)
@example("2016-12-31T23:59:60Z")
@example("sa9999-12-31T23:59:59.999999Z")
def test_dates_keep_their_meaning_when_written(text: str) -> None:
    assert_round_trip(DateValue.parse(text))


@given(PREFIXED, DIGITS)
def test_numbers_keep_their_meaning_when_written(prefix: str, digits: str) -> None:
    assert_round_trip(NumberValue.parse(prefix + digits))


@given(PREFIXED, DIGITS, st.text(), st.text())
def test_quantities_keep_their_meaning_when_written(
    prefix: str, digits: str, system: str, code: str
) -> None:
    assert_round_trip(QuantityValue.parse(f"{prefix}{digits}|{escape(system)}|{escape(code)}"))


@pytest.mark.parametrize("text", ["Patient/23", "23", "true", "false"])
def test_references_and_truths_keep_their_meaning_when_written(text: str) -> None:
    kind = Missing if text in ("true", "false") else ReferenceValue
    assert str(kind.parse(text)) == text


def assert_round_trip(value: Any) -> None:
    assert type(value).parse(str(value)) == value
