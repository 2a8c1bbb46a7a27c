"""Invitations to an account: what is kept outside FHIR beside the invitation's Task.

The Task says who was invited to which records, by whom and until when; this record says how far the
invitation has come and what it takes to use it. No secret is stored anywhere: link, security code,
portal ID and activation word of each attempt are made of a key of the server when they are sent,
printed or typed. The stored look-ups hold hashes. A new attempt makes everything before it void,
and nothing that is merely looked at (a link that a mail scanner opens) uses anything up.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Final, Literal

import msgspec

from fhir_portal.accounts.practice import Practice, local_time
from fhir_portal.accounts.spoken_code import check_sign, number_in_signs, read_signs
from fhir_portal.records import DuplicateRecord, Record, RecordReader, RecordTransaction

Kind = Literal["self", "guardian", "representative", "caregiver", "payer"]
Channel = Literal["mail", "sms", "letter", "paper", "desk"]
CodeBy = Literal["mail", "sms", "hand"]
State = Literal[
    "queued", "sent", "delivered", "opened", "awaiting", "redeemed", "expired", "revoked"
]
"""``Task.businessStatus`` of an invitation. ``awaiting``: somebody proved what it asks, and the
practice has to confirm that they are who was invited."""

LIVE: Final[frozenset[State]] = frozenset({"queued", "sent", "delivered", "opened"})
TRIES: Final = 5
"""Wrong tries on one attempt; after that only a new attempt helps, and staff are told."""
HOUR: Final = 3600.0
DAY: Final = 24 * HOUR
LIFETIME: Final = 72 * HOUR
SHORTEST: Final = HOUR
LONGEST: Final = 21 * DAY
MOST_ATTEMPTS: Final = 10
CONFIRMABLE_SECONDS: Final = 14 * DAY
"""How long after it was used an invitation can be confirmed."""
KEPT_SECONDS: Final = 400 * DAY
"""How long an invitation that is over stays to be seen by staff."""
RENEWABLE_SECONDS: Final = 30 * DAY
"""How long after its end the link of an invitation still brings a new one to the same contact."""
_CODE_SIGNS: Final = 11  # and one to check: 30**11 is 54 bits
_PORTAL_ID_DIGITS: Final = 6
_NUMBER_DIGITS: Final = 6
_CONSONANTS: Final = "bdfgklmnprstvz"
_VOWELS: Final = "aeiou"
_SYLLABLES: Final = 6  # 70**6 is 36 bits, beside a birth date and five tries


class Invitation(Record, frozen=True, kw_only=True):
    """One invitation; ``key`` is ``<practice>/Task/<id>``.

    ``invitee`` is ``<practice>/Patient/<id>`` or ``<practice>/RelatedPerson/<id>``, of whom one
    invitation is live at most, as of each of ``persons``. ``patients`` are the records that it
    opens, as ``Patient/<id>``; ``persons`` who the invited person is to each of them, in the same
    order (``Patient`` or ``RelatedPerson/<id>``); ``grants`` the Consents that become active with
    it. ``tasks`` are the ids of the Tasks that stand for it in the further records, whose readers
    must not learn of each other. ``to`` is the address that it went to, ``""`` for what is handed
    over; ``is_named`` says that whoever invited named it, and it is not the one on file;
    ``code_by`` how the security code went: to another contact (``code_to``), or by hand.
    ``attempt`` counts issues, ``tries`` the wrong tries on the latest, or on its number while it
    is ``awaiting``. ``handled_by`` are the accounts of the staff who made an attempt and so may
    know its secrets; ``assurance`` is the level that was proved with it,
    ``confirmed_by`` that of who confirmed it. Times are seconds since 1970 UTC.
    """

    kind: ClassVar[str] = "invitation"
    indexed: ClassVar[tuple[str, ...]] = ("invitee", "practice", "redeemed_by")

    practice: str
    invitee: str
    patients: tuple[str, ...]
    persons: tuple[str, ...]
    relation: Kind
    channel: Channel
    created: float
    ends: float
    grants: tuple[str, ...] = ()
    tasks: tuple[str, ...] = ()
    to: str = ""
    is_named: bool = False
    code_by: CodeBy = "hand"
    code_to: str = ""
    state: State = "queued"
    attempt: int = 1
    tries: int = 0
    by: str = ""
    redeemed_by: str | None = None
    changed: float = 0.0
    handled_by: tuple[str, ...] = ()
    assurance: str = ""
    confirmed_by: str | None = None

    @property
    def task(self) -> str:
        """The id of the Task."""
        return self.key.rpartition("/")[2]

    @property
    def invitees(self) -> tuple[str, ...]:
        """Whom it invites to each record, as `LiveInvitation` names them."""
        others = (f"{self.practice}/{person}" for person in self.persons)
        return tuple(dict.fromkeys((self.invitee, *others)))

    @property
    def is_locked(self) -> bool:
        """Whether it was tried too often."""
        return self.tries >= TRIES

    def is_usable(self, at: float) -> bool:
        """Whether it can be redeemed at a moment."""
        return self.state in LIVE and at < self.ends and not self.is_locked


class LiveInvitation(Record, frozen=True, kw_only=True):
    """Makes one invitation of a person live at most: ``key`` is one of its ``invitees``."""

    kind: ClassVar[str] = "live-invitation"

    invitation: str


class InvitationSecret(Record, frozen=True, kw_only=True):
    """Where a link, a security code or a portal ID leads; ``key`` says which kind, and a hash."""

    kind: ClassVar[str] = "invitation-secret"

    invitation: str
    attempt: int


class AlreadyInvited(Exception):
    """The person has a live invitation; ``key`` is that one's."""

    def __init__(self, key: str) -> None:
        super().__init__("this person has an invitation that can be used")
        self.key = key


class NotUsable(Exception):
    """The invitation is over: redeemed, revoked, expired, locked, or superseded."""


@dataclass(frozen=True, slots=True)
class Secrets:
    """What an attempt of an invitation is used by. Shown once, never stored."""

    link: str
    code: str
    portal_id: str
    word: str


@dataclass(frozen=True, slots=True)
class InvitationSecrets:
    """Makes and recognises the secrets of invitations by a key of the server, of 32 bytes."""

    key: bytes

    def of(self, invitation: Invitation) -> Secrets:
        """Return the secrets of the latest attempt."""
        return self.of_attempt(invitation.key, invitation.attempt)

    def of_attempt(self, invitation: str, attempt: int) -> Secrets:
        """Return the secrets of an attempt. The link is the last part of a path."""
        return Secrets(
            link=self._mac("link", invitation, attempt).hex(),
            code=self._code(invitation, attempt),
            portal_id=self._portal_id(invitation, attempt),
            word=self._word(invitation, attempt),
        )

    async def keep(self, transaction: RecordTransaction, invitation: Invitation) -> Invitation:
        """Store where the secrets of the latest attempt lead; those of the one before go.

        Returns the invitation, at a further attempt if its portal ID was taken: six digits are few.
        """
        if invitation.attempt > 1:
            await self.forget(transaction, invitation, invitation.attempt - 1)
        for _ in range(_PORTAL_IDS_TRIED):
            secrets = self.of(invitation)
            held = InvitationSecret(
                key=self._portal_id_key(invitation.practice, secrets.portal_id),
                invitation=invitation.key,
                attempt=invitation.attempt,
                expires=invitation.ends,
            )
            if await transaction.get(InvitationSecret, held.key) is None:
                await transaction.insert(held)
                break
            invitation = msgspec.structs.replace(invitation, attempt=invitation.attempt + 1)
        else:
            raise NotUsable  # nobody can print a sheet for now; there are too many of them
        await transaction.put(msgspec.structs.replace(held, key=self._code_key(secrets.code)))
        link, until = self._link_key(secrets.link), invitation.ends + RENEWABLE_SECONDS
        await transaction.put(msgspec.structs.replace(held, key=link, expires=until))
        return invitation

    async def forget(
        self,
        transaction: RecordTransaction,
        invitation: Invitation,
        attempt: int,
        *,
        but_link: bool = False,
    ) -> None:
        """Make the secrets of an attempt lead nowhere.

        With ``but_link`` its link still leads to it: there the person may ask for a new one.
        """
        secrets = self.of_attempt(invitation.key, attempt)
        for key in (
            *(() if but_link else (self._link_key(secrets.link),)),
            self._code_key(secrets.code),
            self._portal_id_key(invitation.practice, secrets.portal_id),
        ):
            found = await transaction.get(InvitationSecret, key)
            if found is not None and found.invitation == invitation.key:
                await transaction.delete(InvitationSecret, key)

    async def by_link(self, reader: RecordReader, link: str) -> Invitation | None:
        """Return the invitation that a link leads to, usable or not; looking uses nothing up."""
        return await self._found(reader, self._link_key(link))

    async def by_code(self, reader: RecordReader, typed: str) -> Invitation | None:
        """Return the invitation that a security code leads to, however it is written."""
        code = read_code(typed)
        return await self._found(reader, self._code_key(code)) if code is not None else None

    async def by_portal_id(
        self, reader: RecordReader, practice: str, typed: str
    ) -> Invitation | None:
        """Return the invitation of a practice that a portal ID leads to."""
        digits = "".join(sign for sign in typed[:40] if sign.isascii() and sign.isdigit())
        if len(digits) != _PORTAL_ID_DIGITS:
            return None
        return await self._found(reader, self._portal_id_key(practice, digits))

    def is_code(self, invitation: Invitation, typed: str) -> bool:
        """Whether this is the security code of the latest attempt."""
        genuine = read_code(self.of(invitation).code) or ""
        return hmac.compare_digest(genuine.encode(), (read_code(typed) or "").encode())

    def is_word(self, invitation: Invitation, typed: str) -> bool:
        """Whether this is the activation word of the latest attempt."""
        said = "".join(sign for sign in typed[:80].casefold() if sign.isascii() and sign.isalpha())
        return hmac.compare_digest(self.of(invitation).word.encode(), said.encode())

    def number(self, invitation: Invitation) -> str:
        """Return the number by which staff know whose account used an invitation, in two groups.

        Its owner alone is shown it, and reads it to whoever confirms.
        """
        what = f"number {invitation.redeemed_by}"
        number = int.from_bytes(self._mac(what, invitation.key, invitation.attempt))
        digits = f"{number % 10**_NUMBER_DIGITS:0{_NUMBER_DIGITS}d}"
        return f"{digits[:3]} {digits[3:]}"

    def is_number(self, invitation: Invitation, typed: str) -> bool:
        """Whether this is the number of the account that used an invitation."""
        said = "".join(sign for sign in typed[:40] if sign.isascii() and sign.isdigit())
        genuine = self.number(invitation).replace(" ", "")
        return hmac.compare_digest(genuine.encode(), said.encode())

    async def _found(self, reader: RecordReader, key: str) -> Invitation | None:
        held = await reader.get(InvitationSecret, key)
        if held is None:
            return None
        invitation = await reader.get(Invitation, held.invitation)
        return invitation if invitation and invitation.attempt == held.attempt else None

    def _mac(self, what: str, invitation: str, attempt: int) -> bytes:
        return hmac.digest(self.key, f"{what} {invitation} {attempt}".encode(), hashlib.sha256)

    def _code(self, invitation: str, attempt: int) -> str:
        number = int.from_bytes(self._mac("code", invitation, attempt))
        code = number_in_signs(number, _CODE_SIGNS)
        code += check_sign(code)
        return "-".join(code[at : at + 4] for at in range(0, len(code), 4))

    def _portal_id(self, invitation: str, attempt: int) -> str:
        number = int.from_bytes(self._mac("portal-id", invitation, attempt))
        return f"{number % 10**_PORTAL_ID_DIGITS:0{_PORTAL_ID_DIGITS}d}"

    def _word(self, invitation: str, attempt: int) -> str:
        number = int.from_bytes(self._mac("word", invitation, attempt))
        signs = []
        for _ in range(_SYLLABLES):
            number, consonant = divmod(number, len(_CONSONANTS))
            number, vowel = divmod(number, len(_VOWELS))
            signs.append(_CONSONANTS[consonant] + _VOWELS[vowel])
        return "".join(signs)

    def _link_key(self, link: str) -> str:
        return f"link {hashlib.sha256(link[:200].encode()).hexdigest()}"

    def _code_key(self, code: str) -> str:
        text = (read_code(code) or "").encode()
        return f"code {hmac.digest(self.key, b'code-key ' + text, hashlib.sha256).hex()}"

    def _portal_id_key(self, practice: str, portal_id: str) -> str:
        # Keyed: of six digits a plain hash would hide nothing.
        text = f"portal-id-key {practice} {portal_id}".encode()
        return f"portal-id {hmac.digest(self.key, text, hashlib.sha256).hex()}"


_PORTAL_IDS_TRIED: Final = 50


def read_code(typed: str) -> str | None:
    """Return a security code as it is compared; ``None`` if its last sign says it was mistyped."""
    return read_signs(typed, _CODE_SIGNS + 1)


async def issue(
    transaction: RecordTransaction, secrets: InvitationSecrets, invitation: Invitation
) -> Invitation:
    """Store a new invitation and where its secrets lead; return it as stored.

    Raises `AlreadyInvited`: the same person has a live one.
    """
    for invitee in invitation.invitees:
        before = await transaction.get(LiveInvitation, invitee)
        if before is not None:
            there = await transaction.get(Invitation, before.invitation)
            if there is not None and there.is_usable(invitation.created):
                raise AlreadyInvited(there.key)
            if there is not None and there.state in LIVE:
                await end(transaction, secrets, there, "expired", now=invitation.created)
            await transaction.delete(LiveInvitation, invitee)
        try:
            await transaction.insert(LiveInvitation(key=invitee, invitation=invitation.key))
        except DuplicateRecord:
            raise AlreadyInvited(invitation.key) from None
    kept = await secrets.keep(transaction, invitation)
    await transaction.insert(kept)
    return kept


async def issue_again(
    transaction: RecordTransaction,
    secrets: InvitationSecrets,
    invitation: Invitation,
    *,
    ends: float,
    channel: Channel,
    to: str,
    now: float,
    is_named: bool = False,
    code_by: CodeBy = "hand",
    code_to: str = "",
    handled_by: str = "",
) -> Invitation:
    """Make another attempt of an invitation that nobody redeemed; return it. Raises `NotUsable`.

    What was sent before is void from now on; tries begin anew. ``handled_by`` is the account of
    the member of staff who makes it.
    """
    is_over = invitation.state in {"awaiting", "redeemed", "revoked"}
    if is_over or invitation.attempt >= MOST_ATTEMPTS:
        raise NotUsable
    for invitee in invitation.invitees:
        other = await transaction.get(LiveInvitation, invitee)
        if other is not None and other.invitation != invitation.key:
            raise AlreadyInvited(other.invitation)
        if other is None:
            await transaction.insert(LiveInvitation(key=invitee, invitation=invitation.key))
    again = msgspec.structs.replace(
        invitation,
        attempt=invitation.attempt + 1,
        tries=0,
        state="queued",
        ends=ends,
        channel=channel,
        to=to,
        is_named=is_named,
        code_by=code_by,
        code_to=code_to,
        changed=now,
        handled_by=with_handler(invitation.handled_by, handled_by),
        expires=None,
    )
    again = await secrets.keep(transaction, again)
    if not await transaction.replace(invitation, again):
        raise NotUsable
    return again


async def advance(
    transaction: RecordTransaction, key: str, state: State, *, attempt: int, now: float
) -> Invitation | None:
    """Note how far an attempt has come; ``None`` if it is over or has been there already."""
    order: Sequence[State] = ("queued", "sent", "delivered", "opened")
    found = await transaction.get(Invitation, key)
    if found is None or found.attempt != attempt or found.state not in LIVE:
        return None
    if order.index(state) <= order.index(found.state):
        return None
    changed = msgspec.structs.replace(found, state=state, changed=now)
    await transaction.put(changed)
    return changed


async def count_try(transaction: RecordTransaction, key: str, *, attempt: int) -> Invitation:
    """Count a try before what was typed is looked at. Raises `NotUsable` when none is left."""
    found = await transaction.get(Invitation, key)
    if found is None or found.attempt != attempt or found.is_locked or found.state not in LIVE:
        raise NotUsable
    counted = msgspec.structs.replace(found, tries=found.tries + 1)
    await transaction.put(counted)
    return counted


async def take_back_try(transaction: RecordTransaction, key: str, *, attempt: int) -> None:
    """Take a counted try back: it was right."""
    found = await transaction.get(Invitation, key)
    if found is not None and found.attempt == attempt and found.tries:
        await transaction.put(msgspec.structs.replace(found, tries=found.tries - 1))


async def end(
    transaction: RecordTransaction,
    secrets: InvitationSecrets,
    invitation: Invitation,
    state: Literal["awaiting", "redeemed", "revoked", "expired"],
    *,
    now: float,
    account: str | None = None,
    assurance: str = "",
) -> Invitation:
    """End an invitation; its secrets lead nowhere. Raises `NotUsable` if it has ended already.

    One that expired can be taken back still: its link would bring a new one; and one that awaits
    that it is confirmed. One that awaited that for too long expires.
    """
    found = await transaction.get(Invitation, invitation.key)
    may_end = LIVE | ({"expired", "awaiting"} if state == "revoked" else set())
    if state == "expired" and found is not None and is_unconfirmed(found, now):
        may_end |= {"awaiting"}
    if found is None or found.state not in may_end:
        raise NotUsable
    is_used = state in {"awaiting", "redeemed"}
    if is_used and (found.attempt != invitation.attempt or not found.is_usable(now)):
        raise NotUsable
    ended = msgspec.structs.replace(
        found,
        state=state,
        changed=now,
        redeemed_by=account if is_used else found.redeemed_by,
        tries=0 if state == "awaiting" else found.tries,
        assurance=assurance or found.assurance,
        expires=now + KEPT_SECONDS,
    )
    await secrets.forget(transaction, found, found.attempt, but_link=state == "expired")
    for invitee in found.invitees:
        live = await transaction.get(LiveInvitation, invitee)
        if live is not None and live.invitation == found.key:
            await transaction.delete(LiveInvitation, invitee)
    await transaction.put(ended)
    return ended


def with_handler(handlers: Sequence[str], account: str) -> tuple[str, ...]:
    """Return who handled an invitation, with one more, if it is anybody."""
    return tuple(dict.fromkeys((*handlers, *([account] if account else []))))


async def count_number(
    transaction: RecordTransaction, secrets: InvitationSecrets, invitation: Invitation, typed: str
) -> bool:
    """Count a try on the number of one that is awaiting; whether it was right.

    Raises `NotUsable` when no try is left, or it is not awaiting.
    """
    found = await transaction.get(Invitation, invitation.key)
    if found is None or found.state != "awaiting" or found.is_locked:
        raise NotUsable
    if secrets.is_number(found, typed):
        return True
    await transaction.put(msgspec.structs.replace(found, tries=found.tries + 1))
    return False


async def confirm(
    transaction: RecordTransaction, invitation: Invitation, *, by: str, now: float
) -> Invitation:
    """Note that the practice confirmed who used an invitation. Raises `NotUsable`."""
    found = await transaction.get(Invitation, invitation.key)
    if found is None or not can_be_confirmed(found, now):
        raise NotUsable
    confirmed = msgspec.structs.replace(
        found, state="redeemed", changed=now, confirmed_by=by, expires=now + KEPT_SECONDS
    )
    await transaction.put(confirmed)
    return confirmed


def can_be_confirmed(invitation: Invitation, at: float) -> bool:
    """Whether it waits for that, and not for too long."""
    return invitation.state == "awaiting" and at < invitation.changed + CONFIRMABLE_SECONDS


def is_unconfirmed(invitation: Invitation, at: float) -> bool:
    """Whether it waited for that too long: nobody can confirm it any more."""
    return invitation.state == "awaiting" and not can_be_confirmed(invitation, at)


async def awaiting_of(reader: RecordReader, account: str, *, now: float) -> list[Invitation]:
    """Return what an account used that the practice has to confirm yet."""
    found = await reader.find(Invitation, "redeemed_by", account)
    return [one for one in found if can_be_confirmed(one, now)]


LINK_PREFIX: Final = "invitation/"


def link_maker(
    secrets: InvitationSecrets, base: str, clock: Callable[[], float]
) -> Callable[[RecordReader, str, int], Awaitable[dict[str, str] | None]]:
    """Return what makes a message's link when it is sent; ``None`` once that attempt is over.

    ``link_for`` of a message is `LINK_PREFIX` and the invitation's key. A message never holds the
    security code beside the link: `code_maker` is for another one.
    """

    async def make(reader: RecordReader, key: str, attempt: int) -> dict[str, str] | None:
        found = await reader.get(Invitation, key)
        if found is None or found.attempt != attempt or not found.is_usable(clock()):
            return None
        link = f"{base}/activate/{secrets.of(found).link}"
        return {"link": link, "until": await _until(reader, found)}

    return make


CODE_PREFIX: Final = "invitation-code/"


def code_maker(
    secrets: InvitationSecrets, clock: Callable[[], float]
) -> Callable[[RecordReader, str, int], Awaitable[dict[str, str] | None]]:
    """Return what makes the message with the security code, which goes to another contact."""

    async def make(reader: RecordReader, key: str, attempt: int) -> dict[str, str] | None:
        found = await reader.get(Invitation, key)
        if found is None or found.attempt != attempt or not found.is_usable(clock()):
            return None
        return {"code": secrets.of(found).code, "until": await _until(reader, found)}

    return make


async def _until(reader: RecordReader, invitation: Invitation) -> str:
    """Return until when an attempt is good, in the practice's own time."""
    practice = await reader.get(Practice, invitation.practice)
    return local_time(practice.zone if practice else "UTC", invitation.ends)


async def invitations_of(reader: RecordReader, invitee: str) -> list[Invitation]:
    """Return a person's invitations, the latest first."""
    found = await reader.find(Invitation, "invitee", invitee)
    return sorted(found, key=lambda one: (one.created, one.key), reverse=True)
