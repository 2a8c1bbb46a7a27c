"""Going on: codes that come back from a contact, a security code, and help where there is none."""

from __future__ import annotations

from typing import Final

import msgspec

from fhir_portal.accounts.activation import (
    TRIES,
    Activation,
    ActivationOver,
    FileContact,
    count_typed,
    help_matter,
    step_in,
)
from fhir_portal.accounts.assurance import Evidence
from fhir_portal.accounts.contacts import mail_address
from fhir_portal.accounts.one_time_code import Challenge, WrongOneTimeCode
from fhir_portal.accounts.proof import Spent
from fhir_portal.operations.activation.activations import Activations, NotMatched
from fhir_portal.operations.activation.by_invitation import security_code_proof
from fhir_portal.operations.activation.help import MATTERS
from fhir_portal.records import RecordTransaction
from fhir_portal.resources.store import ResourceTransaction

SENDINGS: Final = "10 per hour"
"""One-time codes to the contacts of one person."""


def open_contacts(activation: Activation) -> list[FileContact]:
    """Return the contacts on file from which nothing came back yet, each mailbox once."""
    known = {one.mailbox for one in activation.proved_contacts}
    found: list[FileContact] = []
    for one in activation.file_contacts:
        if one.mailbox not in known:
            known.add(one.mailbox)
            found.append(one)
    return found


async def send_code(activations: Activations, activation: Activation, choice: str) -> Activation:
    """Send a one-time code to one of the `open_contacts`, by its number, from 0 on.

    Raises `ActivationOver`, `NotMatched` for no such contact, and `TooManyAttempts`.
    """
    if activation.way == "mail" and not _has_code(activation):
        raise NotMatched  # the mailbox comes first
    known = open_contacts(activation)
    if not choice.isascii() or not choice.isdigit() or int(choice[:3]) >= len(known):
        raise NotMatched
    to = known[int(choice[:3])]
    whose = activation.persons[0] if activation.persons else activation.key
    await activations.door.password.throttle.limit(
        SENDINGS, f"activation codes of {activation.practice}/{whose}"
    )
    now = activations.server.clock()
    challenge = activations.codes.challenge(
        "activation",
        subject=whose,
        browser=activation.browser,
        medium=to.medium,
        to=to.value,
    )
    after = msgspec.structs.replace(activation, challenge=challenge.key, challenge_to=to)

    async def send(transaction: RecordTransaction) -> Activation:
        await activations.codes.keep(transaction, challenge)
        await activations.enqueue_code(transaction, activation.practice, challenge, now)
        return await step_in(transaction, activation, after, now=now)

    return await activations.server.store.transact(send)


async def send_again(activations: Activations, activation: Activation) -> None:
    """Send the awaited code once more; the one before is void.

    Raises `ActivationOver` and `fhir_portal.accounts.one_time_code.SentTooOften`.
    """
    now = activations.server.clock()

    async def again(transaction: RecordTransaction) -> None:
        found = await transaction.get(Challenge, activation.challenge)
        if found is None:
            raise ActivationOver
        sent = await activations.codes.again(transaction, found)
        await activations.enqueue_code(transaction, activation.practice, sent, now)
        await step_in(transaction, activation, activation, now=now)

    await activations.server.store.transact(again)


async def give_code(activations: Activations, activation: Activation, typed: str) -> Activation:
    """Take a one-time code. Raises `NotMatched` and `ActivationOver`."""
    store, now, to = activations.server.store, activations.server.clock(), activation.challenge_to
    try:
        challenge, spend = await activations.codes.prove(
            store,
            activation.challenge,
            typed,
            purpose="activation",
            browser=activation.browser,
        )
    except WrongOneTimeCode:
        await _tell_of_guesses(activations, activation, now)
        raise NotMatched from None
    after = msgspec.structs.replace(
        activation,
        challenge="",
        challenge_to=None,
        evidence=(
            *activation.evidence,
            Evidence("one-time-code", challenge.medium, now, to.value if to else ""),
        ),
    )

    async def take(transaction: RecordTransaction) -> Activation:
        await spend(transaction)
        return await step_in(transaction, activation, after, now=now)

    try:
        return await store.transact(take)
    except Spent:
        raise NotMatched from None


async def other_proof(activations: Activations, activation: Activation) -> Activation:
    """Leave the awaited code, to choose another proof. Raises `ActivationOver`.

    Who began by mail has to prove that mailbox first.
    """
    if not activation.evidence or (activation.way == "mail" and not _has_code(activation)):
        return activation
    after = msgspec.structs.replace(activation, challenge="", challenge_to=None)
    now = activations.server.clock()

    async def leave(transaction: RecordTransaction) -> Activation:
        return await step_in(transaction, activation, after, now=now)

    return await activations.server.store.transact(leave)


async def give_security_code(
    activations: Activations, activation: Activation, code: str
) -> Activation:
    """Take the security code that the practice handed over, as a further proof.

    It must be that of an invitation of the same person. Raises `NotMatched` and
    `ActivationOver`.
    """
    store, now = activations.server.store, activations.server.clock()
    found = await activations.secrets.by_code(store, code)
    whose = f"{activation.practice}/{activation.persons[0] if activation.persons else ''}"

    async def count(transaction: RecordTransaction) -> bool:
        tries = await count_typed(transaction, f"code after {activation.key}", now=now)
        if tries >= TRIES:
            await MATTERS.note(
                transaction,
                help_matter(
                    activation.practice,
                    activation.key,
                    "no-second-proof",
                    now=now,
                    network=activation.network,
                ),
            )
        return tries <= TRIES

    is_allowed = await store.transact(count)
    fits = found is not None and found.invitee == whose and found.is_usable(now)
    if not is_allowed or not fits or found is None or activation.challenge:
        raise NotMatched
    after = msgspec.structs.replace(
        activation,
        invitation=found.key,
        attempt=found.attempt,
        patients=found.patients,
        persons=found.persons,
        evidence=(*activation.evidence, security_code_proof(found, now)),
    )

    async def take(transaction: RecordTransaction) -> Activation:
        return await step_in(transaction, activation, after, now=now)

    return await store.transact(take)


async def ask_staff(activations: Activations, activation: Activation) -> None:
    """Leave word that somebody has no second proof."""
    now = activations.server.clock()

    async def leave(transaction: RecordTransaction) -> None:
        await MATTERS.note(
            transaction,
            help_matter(
                activation.practice,
                activation.key,
                "no-second-proof",
                now=now,
                invitation=activation.invitation,
                network=activation.network,
            ),
        )

    await activations.server.store.transact(leave)


async def choose_contact(
    activations: Activations, activation: Activation, mail: str | None
) -> Activation:
    """Note a mail address to be proved later, or (``None``) that there is none.

    Raises `ActivationOver` and `InvalidContact`.
    """
    contact = mail_address(mail) if mail is not None else ""
    after = msgspec.structs.replace(activation, contact=contact, without_contact=mail is None)
    return await activations.store_step(activation, after)


async def _tell_of_guesses(activations: Activations, activation: Activation, now: float) -> None:
    """Leave word for staff when the tries on a code are used up, for whomever it was."""
    store = activations.server.store
    challenge = await store.get(Challenge, activation.challenge)
    if challenge is None or challenge.tries < TRIES:
        return

    async def leave(transaction: ResourceTransaction) -> None:
        await MATTERS.note(
            transaction,
            help_matter(
                activation.practice,
                activation.key,
                "locked",
                now=now,
                invitation=activation.invitation,
                network=activation.network,
            ),
        )

    await store.transact(leave)


def _has_code(activation: Activation) -> bool:
    return any(one.what == "one-time-code" for one in activation.evidence)
