"""Beginning with an invitation: by its link and code, by the code alone, or by a printed sheet."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from fhir_portal.accounts import invitation as invitations
from fhir_portal.accounts.activation import (
    Activation,
    Way,
    activation_key,
    begin_in,
    count_typed,
    help_key,
    help_matter,
)
from fhir_portal.accounts.assurance import Evidence, Over
from fhir_portal.accounts.contacts import InvalidContact, mail_address, telephone_number
from fhir_portal.accounts.invitation import Invitation, NotUsable
from fhir_portal.accounts.policy import policy_of
from fhir_portal.accounts.practice import Practice
from fhir_portal.operations.activation.activations import (
    LONGEST_TYPED,
    Activations,
    NotMatched,
    Tree,
    file_contacts_of,
    typed_date,
)
from fhir_portal.operations.activation.help import MATTERS
from fhir_portal.operations.invitation_task import progress
from fhir_portal.operations.same_person import initials, postal_code, same_initials
from fhir_portal.records import RecordReader, RecordTransaction
from fhir_portal.resources.store import ResourceTransaction

_ON_PAPER: Final = frozenset({"letter", "paper", "desk"})
_NOBODYS: Final = Invitation(
    key="-/Task/-",
    practice="-",
    invitee="-/Patient/-",
    patients=("Patient/-",),
    persons=("Patient/-",),
    relation="self",
    channel="desk",
    created=0.0,
    ends=0.0,
    attempt=0,
)
"""Looked at where there is no invitation, so that this takes as long."""

Found = Callable[[RecordReader], Awaitable[Invitation | None]]


@dataclass(frozen=True, slots=True)
class Greeting:
    """What a page may show to who has a link: the practice, the initials of who was invited."""

    practice: Practice
    initials: str
    is_self: bool
    ends: float


@dataclass(frozen=True, slots=True)
class BirthAndPlace:
    """What somebody says of the person whose record it is; a date as FHIR writes it."""

    birth_date: str
    postal_code: str | None = None
    """``None``: it is not asked for."""


@dataclass(frozen=True, slots=True)
class Sheet:
    """What stands on a printed sheet, and who holds it."""

    portal_id: str
    first_initial: str
    last_initial: str
    birth_date: str
    word: str


async def greeting_for(activations: Activations, link: str) -> Greeting | None:
    """Return what the page of a link shows; looking uses nothing up. ``None``: it is over."""
    store = activations.server.store
    found = await activations.secrets.by_link(store, link)
    if found is None or not found.is_usable(activations.server.clock()):
        return None
    practice = await store.get(Practice, found.practice)
    if practice is None or not (await policy_of(store, practice.key)).portal:
        return None
    person = await activations.resource(found.practice, found.persons[0])
    return Greeting(
        practice,
        initials((person or {}).get("name") or ()),
        is_self=found.relation == "self",
        ends=found.ends,
    )


async def by_link(
    activations: Activations, browser: str, address: str, link: str, code: str, said: BirthAndPlace
) -> Activation:
    """Begin with the link of an invitation. Raises `NotMatched` and `TooManyAttempts`."""

    async def find(reader: RecordReader) -> Invitation | None:
        return await activations.secrets.by_link(reader, link)

    def judge(found: Invitation, patients: Sequence[Tree], _: Tree) -> list[Evidence] | None:
        facts = _facts(said, patients, now := activations.server.clock())
        if not activations.secrets.is_code(found, code) or not facts:
            return None
        return [
            Evidence("link", found.channel, now, _written(found.channel, found.to)),
            security_code_proof(found, now),
            *facts,
        ]

    typed = {"postal_code": said.postal_code or "", **typed_date(said.birth_date)}
    return await _begun(activations, browser, address, "link", find, judge, typed=typed, what=link)


async def by_code(
    activations: Activations,
    browser: str,
    address: str,
    practice_id: str,
    code: str,
    said: BirthAndPlace,
) -> Activation:
    """Begin with a security code and the practice ID. Raises as `by_link` does."""
    key = await activations.open_at(practice_id, "username")

    async def find(reader: RecordReader) -> Invitation | None:
        found = await activations.secrets.by_code(reader, code)
        if found is None or found.practice != key:
            return None
        return found

    def judge(found: Invitation, patients: Sequence[Tree], _: Tree) -> list[Evidence] | None:
        facts = _facts(said, patients, now := activations.server.clock())
        return [security_code_proof(found, now), *facts] if facts else None

    typed = {"practice_id": practice_id, **typed_date(said.birth_date)}
    return await _begun(activations, browser, address, "code", find, judge, typed=typed, what=code)


async def by_sheet(
    activations: Activations, browser: str, address: str, practice_id: str, sheet: Sheet
) -> Activation:
    """Begin with a printed sheet. Raises as `by_link` does.

    Portal ID, initials and birth date alone open nothing: the activation word does.
    """
    key = await activations.open_at(practice_id, "portal-id")

    async def find(reader: RecordReader) -> Invitation | None:
        return await activations.secrets.by_portal_id(reader, key, sheet.portal_id)

    def judge(found: Invitation, patients: Sequence[Tree], me: Tree) -> list[Evidence] | None:
        now = activations.server.clock()
        facts = _facts(BirthAndPlace(sheet.birth_date), patients, now)
        typed = (sheet.first_initial, sheet.last_initial)
        same = same_initials(typed, me.get("name") or ())
        if not activations.secrets.is_word(found, sheet.word) or not facts or not same:
            return None
        over: Over = found.channel if found.channel in _ON_PAPER else "paper"
        return [
            Evidence("activation-word", over, now),
            Evidence("initials", "record", now),
            *facts,
        ]

    typed = {
        "practice_id": practice_id,
        "portal_id": sheet.portal_id,
        "first_initial": sheet.first_initial,
        "last_initial": sheet.last_initial,
        **typed_date(sheet.birth_date),
    }
    what = f"{key} {sheet.portal_id}"
    return await _begun(activations, browser, address, "sheet", find, judge, typed=typed, what=what)


async def _begun(
    activations: Activations,
    browser: str,
    address: str,
    way: Way,
    find: Found,
    judge: Callable[[Invitation, Sequence[Tree], Tree], list[Evidence] | None],
    *,
    typed: Mapping[str, str],
    what: str,
) -> Activation:
    """Count a try, look at it, and begin. A failure costs one commit, whatever it is."""
    await activations.limit_network(address)
    store, now = activations.server.store, activations.server.clock()
    found = await find(store)

    async def count(transaction: RecordTransaction) -> Invitation | None:
        if found is None:
            await count_typed(transaction, f"{way} {what[:200]}", now=now)
            return None
        try:
            counted = await invitations.count_try(transaction, found.key, attempt=found.attempt)
        except NotUsable:
            await count_typed(transaction, f"{way} {what[:200]}", now=now)
            return None
        if counted.is_locked:
            await MATTERS.note(
                transaction,
                help_matter(
                    found.practice,
                    found.key,
                    "locked",
                    now=now,
                    invitation=found.key,
                ),
            )
        is_open = (await policy_of(transaction, found.practice)).portal
        return counted if is_open and found.is_usable(now) else None

    counted = await store.transact(count)
    where = found if found is not None else _NOBODYS
    patients = [await activations.resource(where.practice, one) or {} for one in where.patients]
    person = await activations.resource(where.practice, where.persons[0]) or {}
    evidence = judge(where, patients, person)
    if counted is None or found is None or evidence is None:
        raise NotMatched
    policy = await policy_of(store, found.practice)
    activation = Activation(
        key=activation_key(browser),
        expires=0.0,
        begun=now,
        browser=browser,
        way=way,
        practice=found.practice,
        invitation=found.key,
        attempt=found.attempt,
        patients=found.patients,
        persons=found.persons,
        evidence=tuple(evidence),
        file_contacts=file_contacts_of(person, policy, now),
        typed={name: text[:LONGEST_TYPED] for name, text in typed.items()},
    )

    async def begin(transaction: ResourceTransaction) -> Activation:
        await invitations.take_back_try(transaction, found.key, attempt=found.attempt)
        key = help_key(found.practice, found.key)
        await MATTERS.settle(transaction, key, now=now)
        await progress(transaction, activations.server, found.key, "opened", attempt=found.attempt)
        return await begin_in(transaction, activation, now=now)

    return await store.transact(begin)


def security_code_proof(found: Invitation, now: float) -> Evidence:
    """What the security code of an invitation proves: that something came by where it went."""
    if found.channel in _ON_PAPER:
        return Evidence("security-code", found.channel, now)
    return Evidence("security-code", found.code_by, now, _written(found.code_by, found.code_to))


def _facts(said: BirthAndPlace, patients: Sequence[Tree], now: float) -> list[Evidence]:
    """What of it stands in the record of one of the patients; nothing unless all of it does."""
    for patient in patients:
        born = patient.get("birthDate")
        if not said.birth_date or born != said.birth_date:
            continue
        facts = [Evidence("birth-date", "record", now)]
        codes = {
            postal_code(str(one["postalCode"]))
            for one in patient.get("address") or ()
            if one.get("postalCode") and one.get("use") != "old"
        }
        if said.postal_code is not None and codes:
            if postal_code(said.postal_code) not in codes:
                continue
            facts.append(Evidence("postal-code", "record", now))
        return facts
    return []


def _written(over: Over, to: str) -> str:
    """A contact as it is compared: one mailbox is not two for being written in two ways."""
    try:
        if over == "mail":
            return mail_address(to)
        return telephone_number(to) if over == "sms" else ""
    except InvalidContact:
        return ""
