"""What every way of activation works with: what is due, and how a step of it is stored."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from fhir_portal.access.owners import local_target
from fhir_portal.access.visibility import Visibility
from fhir_portal.accounts import invitation as invitations
from fhir_portal.accounts.account import Account
from fhir_portal.accounts.activation import Activation, FileContact, activation_of, step_in
from fhir_portal.accounts.assurance import level_of, reaches
from fhir_portal.accounts.front_door import FrontDoor
from fhir_portal.accounts.invitation import InvitationSecrets
from fhir_portal.accounts.one_time_code import KEY_PURPOSE, Challenge, OneTimeCodes, link_for
from fhir_portal.accounts.policy import PracticePolicy, policy_of
from fhir_portal.accounts.policy import Way as PolicyWay
from fhir_portal.accounts.practice import Practice
from fhir_portal.accounts.practice_list import PracticeList
from fhir_portal.accounts.throttle import network_of
from fhir_portal.fhir import json
from fhir_portal.notify import outbox
from fhir_portal.notify.recipients import to_address
from fhir_portal.operations.call import Collaborators
from fhir_portal.operations.inviting import invitation_secrets
from fhir_portal.operations.on_file import contacts_on_file
from fhir_portal.records import RecordTransaction
from fhir_portal.resources.server import Server

PER_NETWORK: Final = "60 per hour"
"""Tries of all ways from one network."""

LONGEST_TYPED: Final = 200
_NETWORK_SIGNS: Final = 32

Step = Literal["code", "proof", "contact", "account"]
Tree = Mapping[str, Any]


class NotMatched(Exception):
    """Something was not right, or can no longer be used; nobody is told what."""


@dataclass(frozen=True, slots=True)
class Activations:
    """What begins activations, takes proofs, and ends them in an account works with this."""

    server: Server
    collaborators: Collaborators
    door: FrontDoor
    listing: PracticeList

    @property
    def secrets(self) -> InvitationSecrets:
        """What makes and knows the secrets of invitations."""
        return invitation_secrets(self.collaborators.derive)

    @property
    def codes(self) -> OneTimeCodes:
        """What makes and knows one-time codes."""
        return OneTimeCodes(
            self.collaborators.derive(KEY_PURPOSE),
            clock=self.server.clock,
            random=self.collaborators.random,
        )

    async def practices(self, way: PolicyWay) -> list[Practice]:
        """Return the practices at which somebody may begin this way."""
        known = (await self.listing.now()).practices
        return [practice for practice, policy in known if policy.lets_begin(way)]

    async def waiting(self, account: Account) -> list[tuple[Practice, str]]:
        """Return where an account's use of an invitation waits to be confirmed, and the number."""
        store, now = self.server.store, self.server.clock()
        found = []
        for one in await invitations.awaiting_of(store, account.key, now=now):
            practice = await store.get(Practice, one.practice)
            if practice is not None:
                found.append((practice, self.secrets.number(one)))
        return found

    async def current(self, browser: str) -> Activation | None:
        """Return what is under way in a browser."""
        return await activation_of(self.server.store, browser, self.server.clock())

    async def due(self, activation: Activation) -> Step:
        """Return what the person has to do next."""
        if activation.challenge:
            return "code"
        if not activation.persons:
            return "proof"
        policy = await policy_of(self.server.store, activation.practice)
        level = level_of(activation.evidence)
        for person in activation.persons:
            own = person.startswith("Patient/")
            if not reaches(level, policy.assurance if own else policy.assurance_for_others):
                return "proof"
        decided = activation.contact or activation.without_contact or activation.proved_contacts
        return "account" if decided else "contact"

    async def open_at(self, practice: str, way: PolicyWay) -> str:
        """The key of the practice that somebody means, if one may begin there this way."""
        meant = (await self.listing.now()).meant(practice)
        return meant[0].key if meant is not None and meant[1].lets_begin(way) else ""

    async def resource(self, practice: str, reference: str) -> dict[str, Any] | None:
        """Return a resource of a practice, read as the server itself; ``None``: there is none."""
        key = local_target(reference)
        if key is None:
            return None
        visible = Visibility.of_server(key.type, practice=practice)
        row = await self.server.store.read(key, visible)
        return None if row is None or row.deleted else json.parse(row.body)

    def network_sign(self, address: str) -> str:
        """What stands for a network and does not tell which it is."""
        network = network_of(address).encode()
        return self.collaborators.derive("network-of-strangers", network).hex()[:_NETWORK_SIGNS]

    async def limit_network(self, address: str) -> None:
        """Count a try from a network. Raises `TooManyAttempts`."""
        await self.door.password.throttle.limit(
            PER_NETWORK, f"activation from {network_of(address)}"
        )

    async def store_step(self, before: Activation, after: Activation) -> Activation:
        """Store the next state. Raises `ActivationOver` if it changed meanwhile."""
        now = self.server.clock()

        async def step(transaction: RecordTransaction) -> Activation:
            return await step_in(transaction, before, after, now=now)

        return await self.server.store.transact(step)

    async def enqueue_code(
        self, transaction: RecordTransaction, practice: str, challenge: Challenge, now: float
    ) -> None:
        """Write the message of a one-time code; one that is for nobody goes nowhere."""
        await outbox.enqueue(
            transaction,
            key=f"one-time-code.{challenge.key}.{challenge.attempt}",
            practice=practice,
            channel=challenge.medium,
            to=outbox.NOBODY
            if challenge.for_nobody
            else to_address(challenge.medium, challenge.to),
            template="one-time-code",
            now=now,
            link_for=link_for(challenge),
            link_attempt=challenge.attempt,
        )


def file_contacts_of(person: Tree, policy: PracticePolicy, now: float) -> tuple[FileContact, ...]:
    """The mail addresses and mobile numbers that the practice has of a person."""
    found = contacts_on_file(person, country=policy.country, now=now)
    return tuple(FileContact(one.medium, one.value) for one in found)


def typed_date(birth_date: str) -> dict[str, str]:
    """A date as the three fields of a form."""
    year, _, rest = birth_date.partition("-")
    month, _, day = rest.partition("-")
    return {"year": year, "month": month, "day": day}
