"""The words of messages: the server's own, a practice's instead, and what they cannot do."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, get_args

import pytest

from fhir_portal.accounts.notice import Event as SecurityEvent
from fhir_portal.embedded.store import EmbeddedStore
from fhir_portal.notify.words import (
    BUILT_IN,
    ChangedMeanwhile,
    InvalidTemplate,
    Letter,
    Letterhead,
    UnfitValue,
    UnknownTemplate,
    Words,
    built_in,
    checked,
    drop_template,
    render,
    store_template,
    words_of,
)
from fhir_portal.smart.connection_notices import Event as AppEvent
from tests.builders import DERM, FAMILY, START

PORTAL = "https://portal.example.org"
LINK = f"{PORTAL}/activate/cG9ydGFsLWxpbmstb2YtZm9ydHktdGhyZWUtc2lnbnM"
FIELDS = {"code": "1234 5678", "link": LINK}
OTHERS = {"username": "mara", "practices": "Hill Street Dermatology"}
HEAD = Letterhead("Hill Street Dermatology", "+1 312 555 0100", PORTAL)
# GSM 03.38, the basic set: what a phone shows of an SMS with seven bits for each sign.
GSM = set(
    "@£$¥èéùìòÇ\nØø\rÅåΔ_ΦΓΛΩΠΨΣΘΞÆæßÉ !\"#¤%&'()*+,-./0123456789:;<=>?¡"
    "ABCDEFGHIJKLMNOPQRSTUVWXYZÄÖÑÜ§¿abcdefghijklmnopqrstuvwxyzäöñüà"
)
INJECTIONS = [
    "Hill\r\nBcc: everybody@people.example",
    "Hill\nBcc: everybody@people.example",
    "Hill\rBcc: everybody@people.example",
    "Hill\u2028Bcc: everybody@people.example",
    "Hill\u2029Bcc: everybody@people.example",
    "Hill\x0bBcc: everybody@people.example",
    "Hill\x85Bcc: everybody@people.example",
    "Hill\x00\u202eelpmaxe",
]


def test_every_message_that_is_written_has_words() -> None:
    sources = "".join(
        path.read_text("utf-8")
        for path in Path(__file__).parents[2].joinpath("fhir_portal").rglob("*.py")
    )
    named = set(re.findall(r'template="([a-z-]+)"', sources))
    named |= {f"security-{event}" for event in get_args(SecurityEvent)}
    named |= {f"app-{event}" for event in get_args(AppEvent)}
    assert named <= set(BUILT_IN)


@pytest.mark.parametrize("template", BUILT_IN)
def test_the_servers_own_words_would_be_taken_from_a_practice(template: str) -> None:
    words = BUILT_IN[template]
    assert checked(template, subject=words.subject, body=words.body, sms=words.sms) == words


@pytest.mark.parametrize("template", BUILT_IN)
def test_each_message_names_the_practice_and_whom_to_call_and_leaves_nothing_open(
    template: str,
) -> None:
    letter = render(BUILT_IN[template], HEAD, FIELDS | OTHERS)
    for text in (letter.subject, letter.text, letter.sms):
        assert HEAD.practice in text
        assert "{" not in text
        assert "}" not in text
    assert letter.text.endswith(
        "Please do not reply to this message: nobody reads the answers. If you have questions, "
        "call Hill Street Dermatology at +1 312 555 0100.\n"
    )
    assert "\n" not in letter.subject + letter.sms


@pytest.mark.parametrize("template", BUILT_IN)
def test_each_sms_is_one_part_of_the_gsm_alphabet(template: str) -> None:
    """But for one with a link as long as ours are: then it is two."""
    letter = render(BUILT_IN[template], HEAD, FIELDS | OTHERS)
    assert set(letter.sms) <= GSM
    assert len(letter.sms) <= (160 if letter.link is None else 306)


@pytest.mark.parametrize("template", BUILT_IN)
def test_a_secret_is_in_the_text_once_and_never_in_the_subject(template: str) -> None:
    letter = render(BUILT_IN[template], HEAD, FIELDS | OTHERS)
    needs = BUILT_IN[template].needs
    for name, value in FIELDS.items():
        assert value not in letter.subject
        assert letter.text.count(value) == letter.sms.count(value) == (1 if needs == name else 0)
    assert (letter.code, letter.link) == (
        FIELDS["code"] if needs == "code" else None,
        LINK if needs == "link" else None,
    )
    assert "1234" not in repr(letter)
    assert LINK not in repr(letter)


def test_without_a_telephone_the_practice_is_named_all_the_same() -> None:
    letter = render(built_in("test"), Letterhead("Hill", "", PORTAL), {})
    assert letter.text.endswith("If you have questions, call Hill.\n")


def test_a_long_name_is_shortened_in_an_sms() -> None:
    letter = render(built_in("one-time-code"), Letterhead("Hill " * 60, "", PORTAL), FIELDS)
    assert len(letter.sms) <= 160
    assert "1234 5678" in letter.sms


# ---------------------------------------------------------------- what values cannot do


@pytest.mark.parametrize("name", INJECTIONS)
def test_no_value_begins_a_line(name: str) -> None:
    letter = render(built_in("test"), Letterhead(name, name, PORTAL), {})
    for text in (letter.sender, letter.subject, letter.sms):
        assert len(text.splitlines()) == 1
        assert text.isprintable()
    assert not any(line.startswith(("Bcc", "elp")) for line in letter.text.splitlines())


@pytest.mark.parametrize("name", ["{code}", "{link}", "{portal}", "{0.__class__}", "%s {{x}} {"])
def test_what_looks_like_a_placeholder_in_a_value_stays_as_it_is(name: str) -> None:
    letter = render(built_in("one-time-code"), Letterhead(name, name, PORTAL), FIELDS)
    assert name in letter.subject
    assert letter.text.count("1234 5678") == 1


@pytest.mark.parametrize(
    "code", ["", "1234\r\nBcc: x", "<b>1</b>", "1" * 300, "{code}", " 1", "1  2", "\uff11\uff12"]
)
def test_a_code_that_is_none_is_not_sent(code: str) -> None:
    with pytest.raises(UnfitValue):
        render(built_in("one-time-code"), HEAD, {"code": code})


@pytest.mark.parametrize(
    "link",
    [
        "",
        "https://elsewhere.example/activate/x",
        "https://portal.example.org.elsewhere.example/x",
        "https://portal.example.org@elsewhere.example/",
        f"{LINK}\r\nBcc: everybody@people.example",
        f"{LINK} x",
        f"{LINK}<",
        "javascript:alert(1)",
        f"{PORTAL}/{'a' * 1000}",
    ],
)
def test_a_link_that_leads_elsewhere_is_not_sent(link: str) -> None:
    with pytest.raises(UnfitValue):
        render(built_in("invitation-link"), HEAD, {"link": link})


def test_a_message_that_needs_a_code_is_not_sent_without_one() -> None:
    with pytest.raises(UnfitValue):
        render(built_in("one-time-code"), HEAD, {})


def test_a_user_name_is_filled_in_cleaned_and_not_left_out() -> None:
    words = built_in("username-reminder")
    letter = render(words, HEAD, {"username": "mara\r\nBcc: x {practice}", "practices": "Hill"})
    assert "    mara Bcc: x {practice}\n" in letter.text
    with pytest.raises(UnfitValue):
        render(words, HEAD, {"username": "", "practices": "Hill"})
    with pytest.raises(InvalidTemplate, match=re.escape("has to have {username}")):
        checked("username-reminder", subject="S", body="B", sms="{username}")


def test_what_a_message_does_not_carry_is_left_out() -> None:
    """Planted fault: a name that somebody put among the values."""
    letter = render(built_in("test"), HEAD, {"name": "Ada Quill", "code": "1234 5678"})
    assert "Ada" not in letter.text + letter.subject + letter.sms
    assert letter.code is None


# ---------------------------------------------------------------- a practice's own words


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


def test_only_messages_that_there_are_have_words() -> None:
    with pytest.raises(UnknownTemplate):
        own("marketing")


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


@pytest.mark.requirement("portal", "S2-21")
@pytest.mark.parametrize(
    "template", [one for one in BUILT_IN if one.startswith(("security-", "app-"))]
)
def test_a_notice_leads_to_the_page_it_is_about_and_nowhere_else(template: str) -> None:
    """Of who it is for its links say nothing; the page asks who is there."""
    text = render(built_in(template), HEAD, {}).text
    found = re.findall(rf"{PORTAL}(/\S*?)?(?=[,.\s])", text)
    where = "/go/apps" if template.startswith("app-") else "/go/security"
    if "Not you?" in built_in(template).sms or template.startswith("app-"):
        assert found == [where]
    assert set(found) <= {"", where}


def test_it_says_until_when_a_link_is_good_whatever_the_words() -> None:
    until = "Wednesday, March 20, 2030, 12:46 PM (CDT)\r\nBcc: x"
    link = "https://portal.elm.example/activate/abc"
    letter = render(
        built_in("invitation-link"),
        Letterhead("Elm Street", "", "https://portal.elm.example"),
        {"link": link, "until": until},
    )
    for text in (letter.text, letter.sms):
        assert "It is good until Wednesday, March 20, 2030, 12:46 PM (CDT)" in text
        assert "\nBcc" not in text
