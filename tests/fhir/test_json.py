"""fhir/json.py: nothing is lost on the way in and out, and what JSON leaves open is refused."""

from __future__ import annotations

import json as stdlib_json
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fhir_portal.fhir.errors import Invalid
from fhir_portal.fhir.json import MAX_DEPTH, decimal, dumps, parse, reread


@pytest.mark.parametrize(
    "number",
    [
        *("0", "-1", "1.50", "-0", "-0.0", "1e5", "1E+05", "0.10", "12345678901234567890.5"),
        *("1e-400", "18446744073709551616", "123456789012345678901234567890"),
        "-9223372036854775809",
    ],
)
def test_a_number_comes_out_with_the_digits_it_came_in_with(number):
    body = f'{{"value":{number}}}'.encode()
    assert dumps(parse(body)) == body
    assert dumps(reread(body)) == body, "as parse does, of what it found sound"


@pytest.mark.parametrize(("text", "kind"), [("5", int), ("-5", int), ("5.0", msgspec.Raw)])
def test_whole_numbers_are_integers_and_all_others_keep_their_text(text, kind):
    assert isinstance(parse(f'{{"value":{text}}}'.encode())["value"], kind)


def test_minus_zero_is_kept_next_to_what_only_looks_like_it():
    body = b'{"text":"1-0 ","value":-0,"day":"2020-01-05","list":[-0,1.50]}'
    assert dumps(parse(body)) == body


def test_decimal_gives_the_exact_value_with_its_zeros():
    values = parse(b'{"a":1.50,"b":3,"c":1E5}')
    assert [str(decimal(value)) for value in values.values()] == ["1.50", "3", "1E+5"]


def test_decimal_refuses_an_exponent_that_no_decimal_can_hold():
    with pytest.raises(Invalid, match="too large or too small"):
        decimal(msgspec.Raw(b"1e99999999999999999999"))


def test_members_keep_their_order():
    body = b'{"z":1,"a":{"y":true,"b":null},"m":["x","d"]}'
    assert dumps(parse(body)) == body


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "empty"),
        (b" \r\n", "empty"),
        (b"[]", "one JSON object"),
        (b"5", "one JSON object"),
        (b'"x"', "one JSON object"),
        (b"null", "one JSON object"),
        (b'{"a":1', "ends too early"),
        (b'{"a":1}x', r"trailing characters \(byte 8\)"),
        (b'{"a":1,}', "trailing comma"),
        (b'{"a":01}', "invalid number"),
        (b'{"a":+1}', "not valid JSON"),
        (b"{'a':1}", "not valid JSON"),
        (b'{"a":NaN}', "NaN and Infinity"),
        (b'{"a":Infinity}', "NaN and Infinity"),
        (b'{"a":-Infinity}', "NaN and Infinity"),
        (b'\xef\xbb\xbf{"a":1}', "byte-order mark"),
        ('{"a":1}'.encode("utf-16"), "not valid UTF-8"),
        (b'{"a":"\xff"}', r"UTF-8 \(byte 6\)"),
        (b'{"a":"\xed\xa0\x80"}', r"UTF-8 \(byte 6\)"),
        (rb'{"a":"\ud800"}', r"surrogate pair \(byte 6\)"),
        (rb'{"a":"x\udc00"}', r"surrogate pair \(byte 7\)"),
        (rb'{"a":"\\\ud83d\ud83d\ude00"}', r"surrogate pair \(byte 8\)"),
        (b'{"a":"\x01"}', "invalid character"),
        (b'{"a":' + b"9" * 5000 + b"}", "too many digits"),
    ],
)
def test_what_is_not_one_json_object_is_refused_in_plain_words(body, words):
    with pytest.raises(Invalid, match=words):
        parse(body)


def test_an_escaped_surrogate_pair_is_one_character():
    assert parse(rb'{"a":"\ud83d\ude00"}') == {"a": "\N{GRINNING FACE}"}


@pytest.mark.parametrize(
    "body",
    [
        b'{"status":1,"status":2}',
        b'{"status" : 1, "status": 2}',
        b'{"status":1,"st\\u0061tus":2}',
        b'{"a":{"b":[{"status":1,"x":0,"status":1}]}}',
        b'{"status":-0,"status":1}',
        b'{"status":{"a":1,"b":2,"c":3},"status":1}',
    ],
)
def test_a_member_name_twice_in_one_object_is_refused_by_name(body):
    with pytest.raises(Invalid, match='"status" appears twice'):
        parse(body)


def test_a_repeated_name_that_could_say_something_is_not_quoted():
    with pytest.raises(Invalid) as refused:
        parse(b'{"a secret":1,"a secret":2}')
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize(
    "body", [rb'{"a":"\":","b":1}', b'{"a":":","b":":x"}', b'{"a" :1,"b"\n:"\\\\"}', b'{"":{"":1}}']
)
def test_colons_and_quotes_inside_strings_are_no_members(body):
    assert parse(body) == stdlib_json.loads(body)


@pytest.mark.parametrize("opening", ['{"a":', "["])
def test_nesting_is_bounded(opening):
    def nested(depth: int) -> bytes:
        closing = "}" if opening != "[" else "]"
        return f'{{"x":{opening * (depth - 1)}1{closing * (depth - 1)}}}'.encode()

    assert parse(nested(MAX_DEPTH))
    for depth in (MAX_DEPTH + 1, 500, 100_000):
        with pytest.raises(Invalid, match="nested deeper"):
            parse(nested(depth))


numbers = st.from_regex(
    r"-?(?:0|[1-9][0-9]{0,30})(?:\.[0-9]{1,30})?(?:[eE][+-]?[0-9]{1,3})?", fullmatch=True
).map(lambda text: msgspec.Raw(text.encode()))
scalars = numbers | st.text(max_size=8) | st.booleans() | st.none()
trees = st.dictionaries(
    st.text(max_size=4),
    st.recursive(
        scalars,
        lambda inner: (
            st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4)
        ),
        max_leaves=20,
    ),
    max_size=4,
)


def spaced(tree: Any, blank: str) -> str:
    """The JSON text of a tree of Raw numbers, with blanks wherever JSON allows them."""
    if isinstance(tree, dict):
        members = (f"{spaced(name, blank)}:{spaced(value, blank)}" for name, value in tree.items())
        inside = f"{{{','.join(members)}}}"
    elif isinstance(tree, list):
        inside = f"[{','.join(spaced(value, blank) for value in tree)}]"
    else:
        inside = msgspec.json.encode(tree).decode()
    return f"{blank}{inside}{blank}"


@given(trees, st.text(" \t\r\n", max_size=2))
def test_whatever_is_parsed_is_written_back_with_every_number_as_it_was(tree, blank):
    compact = spaced(tree, "").encode()
    assert dumps(parse(spaced(tree, blank).encode())) == compact


@given(trees.filter(bool), st.text(" \t\r\n", max_size=1), st.data())
def test_any_repeated_name_is_found(tree, blank, data):
    name = data.draw(st.sampled_from(sorted(tree)))
    again = f"{{{spaced(name, blank)}:0,{spaced(tree, blank).strip()[1:]}"
    with pytest.raises(Invalid, match="twice"):
        parse(again.encode())


@given(st.binary(max_size=40) | st.text('{}[]:,"\\u0dac8e-+.1 x', max_size=20).map(str.encode))
def test_any_bytes_are_read_or_refused(body):
    try:
        parsed = parse(body)
    except Invalid:
        return
    assert dumps(parsed) == dumps(parse(dumps(parsed)))


def test_decimals_of_the_tree_equal_what_the_text_says():
    assert decimal(parse(b'{"a":0.1}')["a"]) == Decimal("0.1")
