"""Links by which somebody outside is shown part of a record: their secrets, tries and ends.

A link stands for a right that somebody has now, and holds nothing of the record. Its address is
made of the server's secret and the link's id, and only its hash is stored; the passcode is stored
as passwords are; the key that files are encrypted with is made of the secret too, each time.
What it shows is read under an access token that only the server knows, so that it ends wherever a
token would. Source: SMART Health Cards and Links 1.0.0, "SMART Health Links".
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import datetime
from typing import ClassVar, Final, Literal
from zoneinfo import ZoneInfo

import msgspec

from fhir_portal.accounts.spoken_code import SIGNS, number_in_signs
from fhir_portal.records import Record, RecordReader, RecordTransaction
from fhir_portal.smart.token import AccessToken, TokenFamily, base64url, token_hash

SECTION: Final = "documents"
"""The section in which somebody who acts for a patient has to be allowed to act, to share."""
DAY: Final = 86_400.0
TRIES: Final = 10
"""Wrong passcodes that one network may try on a link in an hour."""
TRIES_ANYWHERE: Final = 1000
"""The same for all networks together.

Nobody who has the address alone ends the link by it.
"""
TRIES_IN_ALL: Final = 100_000
"""The same in all the life of a link, which ends with them.

SMART Health Links wants such a count. A passcode is one of 30^8 (656,100,000,000): whoever uses up
all of them has guessed it with a chance of 1 in 6 million. That takes at least a hundred networks,
and more than four days in which their tries keep everybody else from opening the link anyway.
"""
KEPT: Final = 400 * DAY
"""How long after its end a link and who used it are still listed."""
TICKET_SECONDS: Final = 15 * 60.0
"""How long a file can be fetched after the passcode was right; the specification allows an hour."""
MOST_LISTED: Final = 1000
MOST_NAMED: Final = 500
"""Who used a link is listed so often at most, by day, way and name; then it is only counted."""
_PASSCODE: Final = 8
_ALL: Final = 1_000_000
_HANDLE: Final = re.compile(r"[A-Za-z0-9_-]{43}")

Derive = Callable[..., bytes]
State = Literal["active", "expired", "ended"]


class ShareLink(Record, frozen=True, kw_only=True):
    """One link; ``key`` is the hash of what its address ends in, ``id`` what its maker calls it.

    ``patient`` and ``fhir_user`` are ``Type/<id>``; ``token`` is the key of the `AccessToken` by
    which it is read, ``family`` that of the authorization of the app that made it. ``start`` and
    ``end`` are FHIR dates, by the days of ``zone``, the practice's (IANA). ``failed`` counts the
    wrong passcodes that were looked at. With ``is_for_delivery`` it is no link for anybody, but the
    right by which the server reads what it is to send. ``listed`` counts its `ShareView`.
    """

    kind: ClassVar[str] = "share-link"
    indexed: ClassVar[tuple[str, ...]] = ("account", "patient", "grant", "family", "client_id")

    id: str
    practice: str
    patient: str
    fhir_user: str
    account: str
    grant: str | None
    client_id: str
    family: str | None
    token: str
    label: str
    sections: tuple[str, ...]
    start: str | None
    end: str | None
    summary: bool
    documents: tuple[str, ...]
    passcode_hash: str
    made: float
    until: float
    failed: int = 0
    views: int = 0
    last: float | None = None
    ended: float | None = None
    because: str = ""
    is_for_delivery: bool = False
    zone: str = "UTC"
    listed: int = 0

    def state(self, now: float) -> State:
        """How it stands; only an ``active`` one shows anything."""
        if self.ended is not None:
            return "ended"
        return "expired" if now >= self.until else "active"


class ShareView(Record, frozen=True, kw_only=True):
    """That the passcode of a link was right: of one day, way and name, how often.

    ``at`` is the last time, ``recipient`` who they said they are; ``""`` stands for all who came
    when `MOST_NAMED` were listed.
    """

    kind: ClassVar[str] = "share-view"
    indexed: ClassVar[tuple[str, ...]] = ("link",)

    link: str
    at: float
    recipient: str
    way: str
    times: int = 1


class ShareTicket(Record, frozen=True, kw_only=True):
    """A file that may be fetched for a while; ``key`` is the hash of what its address ends in.

    ``sealed`` says that it is given encrypted, and once.
    """

    kind: ClassVar[str] = "share-ticket"

    expires: float
    link: str
    file: str
    recipient: str
    sealed: bool


@dataclass(frozen=True, slots=True)
class ShareSecrets:
    """What is made of the server's secret for a link; none of it is stored."""

    derive: Derive

    def handle(self, own_id: str) -> str:
        """What the address of a link ends in: 256 bits that nobody guesses."""
        return base64url(self.derive("share-link", own_id.encode()))

    def file_key(self, own_id: str) -> bytes:
        """The key (A256GCM) of its files, which stands in the link itself."""
        return self.derive("share-file-key", own_id.encode())

    def key_of(self, own_id: str) -> str:
        """The key under which the link of an id is stored."""
        return token_hash(self.handle(own_id))


def stored_under(handle: str) -> str | None:
    """The key under which what an address ends in would be stored; ``None`` where it is none."""
    return token_hash(handle) if _HANDLE.fullmatch(handle) else None


def new_passcode(random: Callable[[int], bytes]) -> str:
    """Return a passcode to be read out and typed: eight signs."""
    return number_in_signs(int.from_bytes(random(24)), _PASSCODE)


def view_key(link: ShareLink, at: float, recipient: str, way: str) -> str:
    """The key of the `ShareView` that a use of a link is counted in; days are the practice's."""
    day = datetime.fromtimestamp(at, ZoneInfo(link.zone)).date().isoformat() if recipient else ""
    return token_hash(f"share-view {link.key} {day} {way} {recipient}")


def typed_passcode(text: str) -> str:
    """A passcode as it is compared: in capitals, without what people put between."""
    return "".join(sign for sign in text.upper() if sign in SIGNS)


def token_of(link: ShareLink, scope: str) -> AccessToken:
    """Return the token that a link is read by. Nobody knows the value of it."""
    return AccessToken(
        key=link.token,
        expires=link.until,
        issued=link.made,
        client_id=link.client_id,
        context="patient",
        scope=scope,
        practice=link.practice,
        patient=link.patient,
        fhir_user=link.fhir_user,
        account=link.account,
        grant=link.grant,
        share=link.key,
    )


async def links_of(reader: RecordReader, practice: str, patient: str) -> list[ShareLink]:
    """Return the links that show a record, ended ones too; the latest first."""
    found = await reader.find(ShareLink, "patient", patient, limit=_ALL)
    here = [one for one in found if one.practice == practice and not one.is_for_delivery]
    return sorted(here, key=lambda one: (one.made, one.id), reverse=True)[:MOST_LISTED]


async def links_by(reader: RecordReader, account: str, *, now: float) -> list[ShareLink]:
    """Return the links that an account made and that show something now; the latest first."""
    found = await reader.find(ShareLink, "account", account, limit=_ALL)
    works = [one for one in found if one.state(now) == "active" and not one.is_for_delivery]
    return sorted(works, key=lambda one: (one.made, one.id), reverse=True)


async def views_of(reader: RecordReader, link: ShareLink) -> list[ShareView]:
    """Return who used a link, the latest first."""
    found = await reader.find(ShareView, "link", link.key, limit=MOST_LISTED)
    return sorted(found, key=lambda one: (one.at, one.key), reverse=True)


async def family_stands(reader: RecordReader, link: ShareLink, now: float) -> TokenFamily | None:
    """Return the authorization that a link was made under, while it stands."""
    found = await reader.get(TokenFamily, link.family) if link.family is not None else None
    stands = found is not None and found.ended is None and now < found.expires
    return found if stands else None


async def end_share(
    transaction: RecordTransaction, link: ShareLink, *, now: float, because: str
) -> bool:
    """End a link inside a transaction; true if it was not ended before.

    The record stays, to say what was shown; the token goes, so that nothing is shown any more.
    """
    await transaction.delete(AccessToken, link.token)
    if link.ended is not None:
        return False
    await transaction.put(msgspec.structs.replace(link, ended=now, because=because))
    return True


async def end_shares_but(
    transaction: RecordTransaction, account: str, kept: Collection[str], *, now: float
) -> int:
    """End every link that an account made but those of these ids; return how many.

    For its owner who came back into it, as `Connections.end_all_but` does for apps.
    """
    ended = 0
    for link in await transaction.find(ShareLink, "account", account, limit=_ALL):
        if link.id not in kept:
            ended += await end_share(transaction, link, now=now, because="recovered")
    return ended


async def end_shares(
    transaction: RecordTransaction,
    field: Literal["account", "patient", "grant", "family", "client_id"],
    value: str,
    *,
    now: float,
    because: str,
    practice: str | None = None,
    patient: str | None = None,
) -> int:
    """End the links of an account, a record, a grant, an app or its authorization; return how many.

    ``practice`` and ``patient`` (``Patient/<id>``) narrow that.
    """
    ended = 0
    for link in await transaction.find(ShareLink, field, value, limit=_ALL):
        if practice in {None, link.practice} and patient in {None, link.patient}:
            ended += await end_share(transaction, link, now=now, because=because)
    return ended
