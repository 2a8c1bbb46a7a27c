"""A practice's own words, and what they cannot do."""

from __future__ import annotations

import re
from typing import Any

import pytest

from fhir_portal.embedded.store import EmbeddedStore
from fhir_portal.notify.letter import Letter, render
from fhir_portal.notify.template import (
    ChangedMeanwhile,
    InvalidTemplate,
    checked,
    drop_template,
    store_template,
    words_of,
)
from fhir_portal.notify.words import Words, built_in
from tests.builders import DERM, FAMILY, START
from tests.notify.letters import FIELDS, HEAD


def own(template: str = "one-time-code", **changes: str) -> Words:
    given = {"subject": "Code", "body": "It is {code}", "sms": "{practice} {code}"} | changes
    return checked(template, **given)


def test_a_practices_words_are_taken() -> None:
    assert own(body="Line\r\n\r\n{code} {practice} {portal}\n").body == (
        "Line\n\n{code} {practice} {portal}"
    )


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"subject": ""}, "The subject is empty"),
        ({"subject": "  "}, "The subject is empty"),
        ({"subject": "Code\nBcc: x"}, "line breaks"),
        ({"subject": "Code\r\nBcc: x"}, "line breaks"),
        ({"subject": "Code\u2028Bcc: x"}, "line breaks"),
        ({"subject": "Code \u202eedoc"}, "control characters"),
        ({"subject": "{code}"}, "cannot have {code}"),
        ({"subject": "C" * 151}, "longer than 150"),
        ({"body": ""}, "The text is empty"),
        ({"body": "No code"}, "has to have {code}"),
        ({"body": "{code} {link}"}, "cannot have {link}"),
        ({"body": "{code} {name}"}, "cannot have {name}"),
        ({"body": "{code} {code.__class__}"}, "brace"),
        ({"body": "{code} {0}"}, "brace"),
        ({"body": "{{code}}"}, "brace"),
        ({"body": "{code} {"}, "brace"),
        ({"body": "{code} \x00"}, "control characters"),
        ({"body": "{code}" + "x" * 4000}, "longer than 4000"),
        ({"sms": "No code"}, "has to have {code}"),
        ({"sms": "{code}\n"}, ""),
        ({"sms": "{code}\nx"}, "line breaks"),
        ({"sms": "{code}" + "x" * 300}, "longer than 300"),
    ],
)
def test_words_that_could_do_harm_are_refused_and_it_is_said_why(
    changes: dict[str, str], words: str
) -> None:
    if not words:
        assert own(**changes).sms == "{code}"
        return
    with pytest.raises(InvalidTemplate, match=re.escape(words)):
        own(**changes)


async def store_own(store: EmbeddedStore, version: int = 0, **changes: Any) -> Any:
    given = {"subject": "Code", "body": "It is {code}", "sms": "{code}"} | changes

    async def work(transaction: Any) -> Any:
        return await store_template(
            transaction, DERM, "one-time-code", version=version, now=START, by="noor", **given
        )

    return await store.transact(work)


async def test_a_practices_words_are_its_own(store: EmbeddedStore) -> None:
    await store_own(store)
    assert (await words_of(store, DERM, "one-time-code")).subject == "Code"
    assert await words_of(store, FAMILY, "one-time-code") == built_in("one-time-code")
    assert (await words_of(store, DERM, "one-time-code")).needs == "code"


async def test_words_are_numbered_and_nobodys_are_lost(store: EmbeddedStore) -> None:
    assert (await store_own(store)).version == 1
    assert (await store_own(store, 1, subject="Second")).version == 2
    for stale in (0, 1):
        with pytest.raises(ChangedMeanwhile):
            await store_own(store, stale, subject="Late")
    assert (await words_of(store, DERM, "one-time-code")).subject == "Second"


async def test_refused_words_change_nothing(store: EmbeddedStore) -> None:
    await store_own(store)
    with pytest.raises(InvalidTemplate):
        await store_own(store, 1, subject="Two\nlines")
    assert (await words_of(store, DERM, "one-time-code")).subject == "Code"


async def test_a_practice_can_go_back_to_the_servers_words(store: EmbeddedStore) -> None:
    await store_own(store)
    await store.transact(lambda one: drop_template(one, DERM, "one-time-code"))
    assert await words_of(store, DERM, "one-time-code") == built_in("one-time-code")


def test_a_practice_cannot_take_the_footer_away() -> None:
    letter: Letter = render(own(), HEAD, FIELDS)
    assert letter.text.startswith("It is 1234 5678\n\nPlease do not reply")
