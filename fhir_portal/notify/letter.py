"""A message with everything filled in.

Values are put in once and never read again, so what looks like a placeholder in one stays as it is;
they cannot begin a line, and so no header either.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from fhir_portal.notify.words import Words

_LONGEST_VALUE: Final = 200
_LONGEST_NAME_IN_SMS: Final = 40
_LONGEST_LINK: Final = 1000
PLACEHOLDER: Final = re.compile(r"\{([a-z]+)\}")
_CODE: Final = re.compile(r"[0-9A-Za-z]+(?:[ -][0-9A-Za-z]+)*")
_LINK: Final = re.compile(r"https?://[A-Za-z0-9\-._~:/?#\[\]@!$&'()*+,;=%]+")


class UnfitValue(Exception):
    """A code or link is missing, or is none."""


@dataclass(frozen=True, slots=True)
class Letterhead:
    """Who writes: the practice's name, the telephone for questions (or ``""``), the portal."""

    practice: str
    phone: str
    portal: str


@dataclass(frozen=True, slots=True)
class Letter:
    """A message with everything filled in, from ``sender``; ``repr`` shows none of it."""

    sender: str = field(repr=False)
    subject: str = field(repr=False)
    text: str = field(repr=False)
    sms: str = field(repr=False)
    code: str | None = field(default=None, repr=False)
    link: str | None = field(default=None, repr=False)


def render(words: Words, letterhead: Letterhead, fields: Mapping[str, str]) -> Letter:
    """Return the letter; ``fields`` may hold its code or link, and ``until`` when that is good.

    What else they hold is left out.

    Raises `UnfitValue` when what the message is made to carry is missing or malformed.
    """
    secret = _secret(words, letterhead, fields)
    common = {"practice": _value(letterhead.practice), "portal": letterhead.portal}
    values = common | secret | _others(words, fields)
    call = f" at {_value(letterhead.phone)}" if letterhead.phone else ""
    footer = (
        "Please do not reply to this message: nobody reads the answers. "
        f"If you have questions, call {common['practice']}{call}."
    )
    until = f"It is good until {_value(fields['until'])}." if fields.get("until") else ""
    short = common["practice"]
    if len(short) > _LONGEST_NAME_IN_SMS:
        short = short[: _LONGEST_NAME_IN_SMS - 3].rstrip() + "..."
    return Letter(
        sender=common["practice"],
        subject=_filled(words.subject, common),
        text="\n\n".join(filter(None, (_filled(words.body, values), until, footer))) + "\n",
        sms=" ".join(filter(None, (_filled(words.sms, values | {"practice": short}), until))),
        code=secret.get("code"),
        link=secret.get("link"),
    )


def _others(words: Words, fields: Mapping[str, str]) -> dict[str, str]:
    found = {name: _value(fields.get(name, "")) for name in words.values}
    if not all(found[name] for name in words.values[:1]):
        raise UnfitValue(f"the message has no {words.values[0]}")
    return found


def _secret(words: Words, letterhead: Letterhead, fields: Mapping[str, str]) -> dict[str, str]:
    if words.needs is None:
        return {}
    value = fields.get(words.needs, "")
    if words.needs == "code":
        if len(value) > _LONGEST_VALUE or not _CODE.fullmatch(value):
            raise UnfitValue("the message has no code")
    elif (
        len(value) > _LONGEST_LINK
        or not _LINK.fullmatch(value)
        or not value.startswith(f"{letterhead.portal}/")
    ):
        raise UnfitValue("the message has no link to this portal")
    return {words.needs: value}


def _filled(pattern: str, values: Mapping[str, str]) -> str:
    """Fill a pattern in one pass: what stands in a value is not looked at again."""
    return PLACEHOLDER.sub(lambda match: values.get(match[1], ""), pattern)


def _value(text: str) -> str:
    """A value in one line, without what could steer a header, a terminal or the reading order."""
    plain = "".join(" " if is_control(sign) else sign for sign in text[: 4 * _LONGEST_VALUE])
    return " ".join(plain.split())[:_LONGEST_VALUE]


def is_control(sign: str) -> bool:
    """Whether a sign could steer a header, a terminal or the reading order."""
    return unicodedata.category(sign) in {"Cc", "Cf", "Cs", "Co", "Zl", "Zp"}
