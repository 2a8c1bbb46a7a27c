"""The words of messages: the server's own."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

import pytest

from fhir_portal.accounts.notice import Event as SecurityEvent
from fhir_portal.notify.letter import render
from fhir_portal.notify.template import checked
from fhir_portal.notify.words import BUILT_IN, UnknownTemplate, built_in
from fhir_portal.smart.connection_notices import Event as AppEvent
from tests.notify.letters import FIELDS, HEAD, LINK, OTHERS, PORTAL
from tests.notify.test_template import own

# GSM 03.38, the basic set: what a phone shows of an SMS with seven bits for each sign.
GSM = set(
    "@£$¥èéùìòÇ\nØø\rÅåΔ_ΦΓΛΩΠΨΣΘΞÆæßÉ !\"#¤%&'()*+,-./0123456789:;<=>?¡"
    "ABCDEFGHIJKLMNOPQRSTUVWXYZÄÖÑÜ§¿abcdefghijklmnopqrstuvwxyzäöñüà"
)


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


def test_only_messages_that_there_are_have_words() -> None:
    with pytest.raises(UnknownTemplate):
        own("marketing")


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
