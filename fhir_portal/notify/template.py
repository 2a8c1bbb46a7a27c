"""What a practice says instead of the server's own words."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar, Final

from fhir_portal.notify.letter import PLACEHOLDER, is_control
from fhir_portal.notify.words import Words, built_in
from fhir_portal.records import Record, RecordReader, RecordTransaction

LONGEST_SUBJECT: Final = 150
LONGEST_BODY: Final = 4000
LONGEST_SMS: Final = 300
"""Of what is stored; an SMS of 160 signs of the GSM alphabet is one part, longer ones are more."""
_COMMON: Final = frozenset({"practice", "portal"})


class InvalidTemplate(Exception):
    """A practice's words cannot be used. The words are for whoever wrote them."""


class ChangedMeanwhile(Exception):
    """Somebody else has stored other words since."""


class MessageTemplate(Record, frozen=True, kw_only=True):
    """A practice's own words; ``key`` is ``<practice>/<template>``, ``version`` counts from 1."""

    kind: ClassVar[str] = "message-template"
    indexed: ClassVar[tuple[str, ...]] = ("practice",)

    practice: str
    subject: str
    body: str
    sms: str
    version: int
    changed: float
    changed_by: str = ""


async def words_of(reader: RecordReader, practice: str, template: str) -> Words:
    """Return a practice's words for a message, or the server's. Raises `UnknownTemplate`."""
    words = built_in(template)
    own = await reader.get(MessageTemplate, f"{practice}/{template}")
    if own is None:
        return words
    return replace(words, subject=own.subject, body=own.body, sms=own.sms)


async def store_template(
    transaction: RecordTransaction,
    practice: str,
    template: str,
    *,
    subject: str,
    body: str,
    sms: str,
    version: int,
    now: float,
    by: str = "",
) -> MessageTemplate:
    """Store a practice's words and return them; ``version`` is what they replace, 0 for none.

    Raises `UnknownTemplate`, `InvalidTemplate` or `ChangedMeanwhile`; nothing is stored then.
    """
    words = checked(template, subject=subject, body=body, sms=sms)
    key = f"{practice}/{template}"
    before = await transaction.get(MessageTemplate, key)
    if (before.version if before is not None else 0) != version:
        raise ChangedMeanwhile
    stored = MessageTemplate(
        key=key,
        practice=practice,
        subject=words.subject,
        body=words.body,
        sms=words.sms,
        version=version + 1,
        changed=now,
        changed_by=by,
    )
    await transaction.put(stored)
    return stored


async def drop_template(transaction: RecordTransaction, practice: str, template: str) -> bool:
    """Go back to the server's words; false where a practice had none of its own."""
    return await transaction.delete(MessageTemplate, f"{practice}/{template}")


def checked(template: str, *, subject: str, body: str, sms: str) -> Words:
    """Return a practice's words as they may be stored. Raises `UnknownTemplate`, `InvalidTemplate`.

    The secret of a message has to be in the body and in the SMS, and must not be in the subject,
    which is shown on locked screens and in lists.
    """
    own = built_in(template)
    must = frozenset((*([own.needs] if own.needs else []), *own.values[:1]))
    may = _COMMON | must | frozenset(own.values)
    subject, sms = subject.strip(), sms.strip()
    body = body.replace("\r\n", "\n").strip()
    _check("subject", subject, LONGEST_SUBJECT, may=_COMMON, must=frozenset())
    _check("text", body, LONGEST_BODY, may=may, must=must, lines=True)
    _check("SMS", sms, LONGEST_SMS, may=may, must=must)
    return replace(own, subject=subject, body=body, sms=sms)


def _check(
    what: str,
    text: str,
    longest: int,
    *,
    may: frozenset[str],
    must: frozenset[str],
    lines: bool = False,
) -> None:
    if not text:
        raise InvalidTemplate(f"The {what} is empty.")
    if len(text) > longest:
        raise InvalidTemplate(f"The {what} is longer than {longest} characters.")
    if any(is_control(sign) and not (lines and sign == "\n") for sign in text):
        lead = "control characters" if lines else "line breaks or control characters"
        raise InvalidTemplate(f"The {what} must not have {lead}.")
    used = set(PLACEHOLDER.findall(text))
    rest = PLACEHOLDER.sub("", text)
    if "{" in rest or "}" in rest:
        raise InvalidTemplate(f"The {what} has a brace that belongs to no placeholder.")
    for name in sorted(used - may):
        known = ", ".join(f"{{{one}}}" for one in sorted(may))
        raise InvalidTemplate(f"The {what} cannot have {{{name}}}. It can have {known}.")
    for name in sorted(must - used):
        raise InvalidTemplate(f"The {what} has to have {{{name}}}: without it nobody can go on.")
