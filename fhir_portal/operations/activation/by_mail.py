"""Beginning with the mail address on file, without an invitation."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Final, Literal
from zoneinfo import ZoneInfo

from fhir_portal.access.visibility import Visibility
from fhir_portal.accounts.account import account_of_person
from fhir_portal.accounts.activation import (
    Activation,
    FileContact,
    activation_key,
    begin_in,
    help_key,
    help_matter,
)
from fhir_portal.accounts.assurance import Evidence
from fhir_portal.accounts.contacts import mail_address
from fhir_portal.accounts.one_time_code import link_for
from fhir_portal.accounts.policy import policy_of
from fhir_portal.accounts.practice import Practice
from fhir_portal.fhir import json
from fhir_portal.fhir.reference import ResourceKey
from fhir_portal.notify import outbox
from fhir_portal.notify.recipients import to_address
from fhir_portal.operations.activation.activations import (
    LONGEST_TYPED,
    Activations,
    Tree,
    file_contacts_of,
    typed_date,
)
from fhir_portal.operations.activation.help import MATTERS
from fhir_portal.operations.matching import Match, Said, match
from fhir_portal.operations.no_more_invitations import is_closed_for
from fhir_portal.records import RecordTransaction
from fhir_portal.search.criterion import Criterion
from fhir_portal.search.registry import parameters_for
from fhir_portal.search.request import SearchRequest
from fhir_portal.search.values import Token

BY_MAIL: Final = "5 per hour"
"""Tries with one mail address at one practice, from one network; the sixth locks it there, and
staff are told."""
BY_MAIL_ANYWHERE: Final = "20 per hour"
"""The same from all networks together: whoever has few cannot lock somebody else out."""
_MOST: Final = 20


async def by_mail(
    activations: Activations, browser: str, address: str, practice_id: str, said: Said
) -> Activation:
    """Begin with the mail address on file; the same happens whether it is there or not.

    Raises `TooManyAttempts`, and `InvalidContact` for what is no mail address.
    """
    mail = mail_address(said.mail)
    said = Said(mail, said.first, said.last, said.birth_date)
    await activations.limit_network(address)
    store, now = activations.server.store, activations.server.clock()
    key = await activations.open_at(practice_id, "mail")
    practice = await store.get(Practice, key)
    policy = await policy_of(store, key)
    result, patient = await _matched(activations, key, said)
    taken = await _is_taken(activations, key, result)
    closed = await is_closed_for(store, f"{key}/{result.patient or 'Patient/-'}")
    reason = _why_not(result, patient, practice, policy.adult_age, now, taken=taken, closed=closed)
    may_send = await activations.door.password.throttle.allows(
        BY_MAIL,
        BY_MAIL_ANYWHERE,
        f"activation by mail {key} {mail}",
        address=address,
        device=None,
    )
    is_locked, is_real = not may_send, reason is None and may_send
    to = FileContact("mail", mail)
    challenge = activations.codes.challenge(
        "activation",
        subject=result.patient or "",
        browser=browser,
        medium="mail",
        to=mail,
        for_nobody=not is_real,
    )
    facts = [Evidence(what, "record", now) for what in ("name", "birth-date")]
    persons = (str(result.patient),) if is_real else ()
    activation = Activation(
        key=activation_key(browser),
        expires=0.0,
        begun=now,
        browser=browser,
        way="mail",
        practice=key,
        patients=persons,
        persons=persons,
        evidence=tuple(facts) if is_real else (),
        file_contacts=file_contacts_of(patient, policy, now)
        if is_real and patient is not None
        else (),
        challenge=challenge.key,
        challenge_to=to,
        network=activations.network_sign(address),
        typed={
            "mail": mail,
            "first": said.first,
            "last": said.last,
            "practice_id": practice_id,
            **typed_date(said.birth_date),
        },
    )
    about = f"mail {mail}"

    async def begin(transaction: RecordTransaction) -> Activation:
        await activations.codes.keep(transaction, challenge, lane=" by mail")
        if not key or (reason is None and not is_locked):
            await MATTERS.settle(transaction, help_key(key, about), now=now)
        else:
            await MATTERS.note(
                transaction,
                help_matter(
                    key,
                    about,
                    reason or "locked",
                    now=now,
                    patient=result.patient,
                    network=activation.network,
                    candidates=result.candidates,
                    typed={
                        "mail": mail,
                        "first": said.first[:LONGEST_TYPED],
                        "last": said.last[:LONGEST_TYPED],
                        "birth-date": said.birth_date,
                    },
                ),
            )
        has_one = reason == "has-account" and may_send
        await outbox.enqueue(
            transaction,
            key=f"one-time-code.{challenge.key}.1",
            practice=key,
            channel="mail",
            to=to_address("mail", mail) if is_real or has_one else outbox.NOBODY,
            template="account-exists" if has_one else "one-time-code",
            now=now,
            link_for=None if has_one else link_for(challenge),
            link_attempt=0 if has_one else challenge.attempt,
        )
        return await begin_in(transaction, activation, now=now)

    return await store.transact(begin)


async def _matched(
    activations: Activations, practice: str, said: Said
) -> tuple[Match, Tree | None]:
    """Look up who has this mail address, and hold what was said against them."""
    store = activations.server.store
    mail = Criterion(parameters_for("Patient")["email"], "", (Token(None, said.mail),))
    page = await store.search(
        SearchRequest("Patient", (mail,), count=_MOST),
        Visibility.of_server("Patient", practice=practice),
    )
    trees = [json.parse(row.body) for row in page.rows]
    patients = {f"Patient/{one['id']}": one for one in trees if one.get("active") is not False}
    keys = [ResourceKey.parse(key) for key in patients or ("Patient/-",)]
    rows = await store.referring(
        parameters_for("Coverage")["beneficiary"],
        keys,
        Visibility.of_server("Coverage", practice=practice),
        limit=_MOST,
    )
    cards: dict[str, list[str]] = {}
    for row in rows:
        owner, name = _own_card(json.parse(row.body))
        cards.setdefault(owner, []).append(name)
    result = match(said, list(patients.values()), cards)
    chosen = result.candidates[0].patient if result.candidates else ""
    return result, patients.get(chosen)


async def _is_taken(activations: Activations, practice: str, result: Match) -> bool:
    """Whether some account is this Patient already."""
    chosen = result.candidates[0].patient if result.candidates else "Patient/-"
    rows = await activations.server.store.referring(
        parameters_for("Person")["link"],
        [ResourceKey.parse(chosen)],
        Visibility.of_server("Person", practice=practice),
        limit=_MOST,
    )
    keys = [f"{practice}/{row.key}" for row in rows] or [f"{practice}/Person/-"]
    found = [await account_of_person(activations.server.store, key) for key in keys]
    return any(one is not None for one in found)


def _own_card(coverage: Tree) -> tuple[str, str]:
    """Whose card a Coverage is, by Patient id, and the name on it, if it is the holder's own.

    The name of another subscriber, such as a parent, is not the patient's.
    """
    owner = (coverage.get("beneficiary") or {}).get("reference", "").partition("/")[2]
    subscriber = coverage.get("subscriber") or {}
    codes = {one.get("code") for one in (coverage.get("relationship") or {}).get("coding") or ()}
    is_own = subscriber.get("reference") == f"Patient/{owner}" or "self" in codes
    return owner, str(subscriber.get("display") or "") if is_own else ""


def _why_not(
    result: Match,
    patient: Tree | None,
    practice: Practice | None,
    adult_age: int,
    now: float,
    *,
    taken: bool,
    closed: bool,
) -> Literal["near-miss", "ambiguous", "not-found", "minor", "has-account", "closed"] | None:
    if practice is None or result.outcome != "exact" or patient is None:
        return "not-found" if result.outcome == "exact" else result.outcome
    if taken:
        return "has-account"
    if closed:
        return "closed"
    if patient.get("deceasedBoolean") or "deceasedDateTime" in patient:
        return "near-miss"
    today = datetime.fromtimestamp(now, UTC).astimezone(ZoneInfo(practice.zone)).date()
    return None if _age(str(patient.get("birthDate", "")), today) >= adult_age else "minor"


def _age(birth_date: str, today: date) -> int:
    try:
        born = date.fromisoformat(birth_date)
    except ValueError:
        return 0
    return today.year - born.year - ((today.month, today.day) < (born.month, born.day))
