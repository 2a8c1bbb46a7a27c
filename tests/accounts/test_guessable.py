"""The blocklist: what leaked, and the words of the place."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fhir_portal.accounts.credentials import MAX_LENGTH, MIN_LENGTH, UnacceptablePassword
from fhir_portal.accounts.guessable import is_leaked, is_of_the_place
from tests.builders import passwords

NAMES = ("mara.quill@example.org", "Marrowbrook Family Medicine", "Fern & Co")


@pytest.mark.parametrize(
    "password",
    [
        "password1234",
        "Password1234!",
        "PASSWORD1234",
        "qwertyuiop123",
        "123456789012",
        "aaaaaaaaaaaa",
        "abcdefghijkl",
        "iloveyou1234",
        "correcthorsebatterystaple",
        "qwertyuiopasdfghjkl",
        "QwErTyUiOpAsDfGhJkL",  # on the list in small letters alone
    ],
)
async def test_what_leaked_is_not_taken(password: str) -> None:
    assert is_leaked(password)
    with pytest.raises(UnacceptablePassword, match="lists"):
        await passwords().hash(password)


@pytest.mark.parametrize(
    "password",
    [
        "mara.quill@example.org",
        "MARA.QUILL2026!",
        "maraquillmaraquill",
        "m4r4 qu1ll m4r4 qu1ll",
        "Marrowbrook2026!",
        "marrowbrook-family",
        "MarrowbrookFamilyMedicine1",
        "fhir-portal-2026",
        "PatientPortal1!",
        "p@tientp0rtal99",
    ],
)
async def test_the_words_of_the_place_are_not_taken(password: str) -> None:
    assert is_of_the_place(password, NAMES)
    with pytest.raises(UnacceptablePassword, match="little more than"):
        await passwords().hash(password, username=NAMES[0], names=NAMES[1:])


@pytest.mark.parametrize(
    "password",
    [
        "correct horse battery",
        "the portal at Marrowbrook bites",
        "seven quiet otters",
        "ααββγγδδεεζζ",
        "🦊🦉🐢🦔🦊🦉🐢🦔🦊🦉🐢🦔",
        ";-) (-; ;-) (-;",
        " leading and trailing ",
        "fern & co of the north",
    ],
)
async def test_whatever_else_is_long_enough_is_taken(password: str) -> None:
    """No kind of character is asked for, and none is refused."""
    stored = await passwords().hash(password, username=NAMES[0], names=NAMES[1:])
    assert await passwords().verify(stored, password)


def test_a_short_word_in_a_name_forbids_nothing() -> None:
    assert not is_of_the_place("co co co co co", ("Fern & Co",))


@pytest.mark.parametrize(
    ("length", "taken"),
    [(MIN_LENGTH - 1, False), (MIN_LENGTH, True), (MAX_LENGTH, True), (MAX_LENGTH + 1, False)],
)
async def test_the_length_is_counted_in_characters(length: int, *, taken: bool) -> None:
    password = "🦉ø漢x"[:4] * 40
    password = password[:length]
    if taken:
        stored = await passwords().hash(password)
        assert await passwords().verify(stored, password)
        assert not await passwords().verify(stored, password[:-1])  # nothing is cut off
    else:
        with pytest.raises(UnacceptablePassword, match="12 to 128 characters"):
            await passwords().hash(password)


def test_the_bounds_are_those_that_were_decided() -> None:
    assert (MIN_LENGTH, MAX_LENGTH) == (12, 128)


@pytest.mark.parametrize("character", ["\0", "\n", "\x7f", "\u0085", "\ud800"])
async def test_what_nobody_can_type_is_not_taken(character: str) -> None:
    with pytest.raises(UnacceptablePassword, match="nobody can type"):
        await passwords().hash(f"seven quiet {character} otters")


@pytest.mark.parametrize("space", ["\u00a0", "\u2003", "\u3000", "\u1680", "\u202f"])
async def test_every_kind_of_space_is_a_space(space: str) -> None:
    """RFC 8265 §4.2.2: a phone's keyboard may have another one."""
    stored = await passwords().hash("seven quiet otters")
    assert await passwords().verify(stored, f"seven{space}quiet{space}otters")


async def test_length_that_only_appears_when_normalised_is_too_long_all_the_same() -> None:
    """One ligature becomes eighteen characters."""
    with pytest.raises(UnacceptablePassword):
        await passwords().hash("\ufdfa" * 8)


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=10, max_size=160))
def test_any_text_can_be_asked_about(password: str) -> None:
    assert is_leaked(password) in (True, False)
    assert is_of_the_place(password, [password]) in (True, False)
