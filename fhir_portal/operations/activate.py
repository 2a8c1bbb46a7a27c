"""Activation: the ways by which somebody who has no account here proves who they are.

By the link of an invitation and its security code, by the code alone, by a printed sheet, or by the
mail address that the practice has. Whatever is wrong has one refusal, `NotMatched`, and takes the
same look-ups and one commit, whether there is such an invitation or not. Every try is counted
before it is looked at; the fifth wrong one locks, and staff are told. Patients are read as the
server itself, and nothing of that reaches a page but a name's initials, for who has the link.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any, Final, Literal
from zoneinfo import ZoneInfo

import msgspec

from fhir_portal.access.owners import local_target
from fhir_portal.access.visibility import Visibility
from fhir_portal.accounts import invitation as invitations
from fhir_portal.accounts.account import (
    Account,
    DuplicateAccount,
    account_named,
    account_of_person,
    new_account,
)
from fhir_portal.accounts.activation import (
    TRIES,
    Activation,
    ActivationOver,
    FileContact,
    Reason,
    Way,
    activation_key,
    activation_of,
    begin_in,
    count_typed,
    help_key,
    help_matter,
    step_in,
)
from fhir_portal.accounts.assurance import Evidence, Over, level_of, reaches
from fhir_portal.accounts.contacts import (
    InvalidContact,
    mail_address,
    telephone_number,
)
from fhir_portal.accounts.front_door import FrontDoor
from fhir_portal.accounts.invitation import LIFETIME, Invitation, InvitationSecrets, NotUsable
from fhir_portal.accounts.matter import Candidate
from fhir_portal.accounts.one_time_code import (
    KEY_PURPOSE,
    Challenge,
    OneTimeCodes,
    WrongOneTimeCode,
    link_for,
)
from fhir_portal.accounts.passkeys import Site
from fhir_portal.accounts.policy import PracticePolicy, policy_of
from fhir_portal.accounts.policy import Way as PolicyWay
from fhir_portal.accounts.practice import Practice
from fhir_portal.accounts.practice_list import PracticeList
from fhir_portal.accounts.proof import Spent, Write
from fhir_portal.accounts.sessions import Session, Visitor
from fhir_portal.accounts.throttle import TooManyAttempts, network_of
from fhir_portal.accounts.user_name import chosen_name
from fhir_portal.fhir import json
from fhir_portal.fhir.reference import ResourceKey
from fhir_portal.notify import outbox
from fhir_portal.notify.matters import QueuedMatters
from fhir_portal.notify.recipients import to_address
from fhir_portal.operations.call import Collaborators
from fhir_portal.operations.invitation_end import expire_later
from fhir_portal.operations.invitation_messages import send
from fhir_portal.operations.invitation_task import follow, progress
from fhir_portal.operations.invitation_way import SENT_BY_US
from fhir_portal.operations.invitation_way import Way as InvitationWay
from fhir_portal.operations.inviting import invitation_secrets
from fhir_portal.operations.matching import Match, Said, match
from fhir_portal.operations.no_more_invitations import is_closed_for
from fhir_portal.operations.on_file import OnFile, contacts_on_file, has_account, may_be_invited
from fhir_portal.operations.redeem import Redemption, redeem
from fhir_portal.operations.same_person import initials, postal_code, same_initials
from fhir_portal.records import RecordReader, RecordTransaction
from fhir_portal.resources.server import Server
from fhir_portal.resources.store import ResourceTransaction
from fhir_portal.search.criterion import Criterion
from fhir_portal.search.registry import parameters_for
from fhir_portal.search.request import SearchRequest
from fhir_portal.search.values import Token

PER_NETWORK: Final = "60 per hour"
"""Tries of all ways from one network."""
SENDINGS: Final = "10 per hour"
"""One-time codes to the contacts of one person."""
BY_MAIL: Final = "5 per hour"
"""Tries with one mail address at one practice, from one network; the sixth locks it there, and
staff are told."""
BY_MAIL_ANYWHERE: Final = "20 per hour"
"""The same from all networks together: whoever has few cannot lock somebody else out."""
RENEWALS: Final = "1 per hour"
"""New messages for one link that is over."""
NAMES: Final = "20 per hour"
"""User names that one activation tries: each answer tells whether somebody has it."""
_ON_PAPER: Final = frozenset({"letter", "paper", "desk"})
_MOST: Final = 20

Step = Literal["code", "proof", "contact", "account"]

Found = Callable[[RecordReader], Awaitable[Invitation | None]]
Tree = Mapping[str, Any]


class NotMatched(Exception):
    """Something was not right, or can no longer be used; nobody is told what."""


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


@dataclass(frozen=True, slots=True)
class Activations:
    """Begins activations, takes proofs, and ends them in an account."""

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

    # --- beginning -----------------------------------------------------------------------------

    async def greeting(self, link: str) -> Greeting | None:
        """Return what the page of a link shows; looking uses nothing up. ``None``: it is over."""
        store = self.server.store
        found = await self.secrets.by_link(store, link)
        if found is None or not found.is_usable(self.server.clock()):
            return None
        practice = await store.get(Practice, found.practice)
        if practice is None or not (await policy_of(store, practice.key)).portal:
            return None
        person = await self._tree(found.practice, found.persons[0])
        return Greeting(
            practice,
            initials((person or {}).get("name") or ()),
            is_self=found.relation == "self",
            ends=found.ends,
        )

    async def by_link(
        self, browser: str, address: str, link: str, code: str, said: BirthAndPlace
    ) -> Activation:
        """Begin with the link of an invitation. Raises `NotMatched` and `TooManyAttempts`."""

        async def find(reader: RecordReader) -> Invitation | None:
            return await self.secrets.by_link(reader, link)

        def judge(found: Invitation, patients: Sequence[Tree], _: Tree) -> list[Evidence] | None:
            facts = _facts(said, patients, now := self.server.clock())
            if not self.secrets.is_code(found, code) or not facts:
                return None
            return [
                Evidence("link", found.channel, now, _written(found.channel, found.to)),
                self._code_proof(found, now),
                *facts,
            ]

        typed = {"postal_code": said.postal_code or "", **_dated(said.birth_date)}
        return await self._begun(browser, address, "link", find, judge, typed=typed, what=link)

    async def by_code(
        self, browser: str, address: str, practice_id: str, code: str, said: BirthAndPlace
    ) -> Activation:
        """Begin with a security code and the practice ID. Raises as `by_link` does."""
        key = await self._open_at(practice_id, "username")

        async def find(reader: RecordReader) -> Invitation | None:
            found = await self.secrets.by_code(reader, code)
            if found is None or found.practice != key:
                return None
            return found

        def judge(found: Invitation, patients: Sequence[Tree], _: Tree) -> list[Evidence] | None:
            facts = _facts(said, patients, now := self.server.clock())
            return [self._code_proof(found, now), *facts] if facts else None

        typed = {"practice_id": practice_id, **_dated(said.birth_date)}
        return await self._begun(browser, address, "code", find, judge, typed=typed, what=code)

    async def by_sheet(
        self, browser: str, address: str, practice_id: str, sheet: Sheet
    ) -> Activation:
        """Begin with a printed sheet. Raises as `by_link` does.

        Portal ID, initials and birth date alone open nothing: the activation word does.
        """
        key = await self._open_at(practice_id, "portal-id")

        async def find(reader: RecordReader) -> Invitation | None:
            return await self.secrets.by_portal_id(reader, key, sheet.portal_id)

        def judge(found: Invitation, patients: Sequence[Tree], me: Tree) -> list[Evidence] | None:
            now = self.server.clock()
            facts = _facts(BirthAndPlace(sheet.birth_date), patients, now)
            typed = (sheet.first_initial, sheet.last_initial)
            same = same_initials(typed, me.get("name") or ())
            if not self.secrets.is_word(found, sheet.word) or not facts or not same:
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
            **_dated(sheet.birth_date),
        }
        what = f"{key} {sheet.portal_id}"
        return await self._begun(browser, address, "sheet", find, judge, typed=typed, what=what)

    async def by_mail(self, browser: str, address: str, practice_id: str, said: Said) -> Activation:
        """Begin with the mail address on file; the same happens whether it is there or not.

        Raises `TooManyAttempts`, and `InvalidContact` for what is no mail address.
        """
        mail = mail_address(said.mail)
        said = Said(mail, said.first, said.last, said.birth_date)
        await self._limit_network(address)
        store, now = self.server.store, self.server.clock()
        key = await self._open_at(practice_id, "mail")
        practice = await store.get(Practice, key)
        policy = await policy_of(store, key)
        result, patient = await self._matched(key, said)
        taken = await self._is_taken(key, result)
        closed = await is_closed_for(store, f"{key}/{result.patient or 'Patient/-'}")
        reason = _why_not(
            result, patient, practice, policy.adult_age, now, taken=taken, closed=closed
        )
        may_send = await self.door.password.throttle.allows(
            BY_MAIL,
            BY_MAIL_ANYWHERE,
            f"activation by mail {key} {mail}",
            address=address,
            device=None,
        )
        is_locked, is_real = not may_send, reason is None and may_send
        to = FileContact("mail", mail)
        challenge = self.codes.challenge(
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
            file_contacts=_contacts_of(patient, policy, now)
            if is_real and patient is not None
            else (),
            challenge=challenge.key,
            challenge_to=to,
            network=self._network(address),
            typed={
                "mail": mail,
                "first": said.first,
                "last": said.last,
                "practice_id": practice_id,
                **_dated(said.birth_date),
            },
        )
        about = f"mail {mail}"

        async def begin(transaction: RecordTransaction) -> Activation:
            await self.codes.keep(transaction, challenge, lane=" by mail")
            if not key or (reason is None and not is_locked):
                await _MATTERS.settle(transaction, help_key(key, about), now=now)
            else:
                await _ask_for_help(
                    transaction,
                    key,
                    about,
                    reason or "locked",
                    now=now,
                    patient=result.patient,
                    network=activation.network,
                    candidates=result.candidates,
                    typed={
                        "mail": mail,
                        "first": said.first[:_LONGEST_TYPED],
                        "last": said.last[:_LONGEST_TYPED],
                        "birth-date": said.birth_date,
                    },
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

    async def renew(self, address: str, link: str) -> None:
        """Send a new invitation in place of one that is over, to where that went, if there is one.

        The answer is the same for every link. Raises `TooManyAttempts` for a network.
        """
        await self._limit_network(address)
        store, now = self.server.store, self.server.clock()
        found = await self.secrets.by_link(store, link)
        try:
            about = found.key if found is not None else link
            await self.door.password.throttle.limit(RENEWALS, f"renewals of {about[:200]}")
        except TooManyAttempts:
            return

        async def again(transaction: ResourceTransaction) -> None:
            await count_typed(transaction, f"renewal {link[:200]}", now=now)
            there = await transaction.get(Invitation, found.key if found is not None else "")
            if there is None or found is None or there.attempt != found.attempt:
                return
            is_over = there.state == "expired" or there.state in invitations.LIVE
            if not is_over or now < there.ends:
                return
            if not (await policy_of(transaction, there.practice)).portal:
                return
            medium, code = SENT_BY_US.get(there.channel), there.code_by
            is_sent = medium is not None and bool(there.code_to)
            if (
                code == "hand"
                or not is_sent
                or not await self._is_as_it_was(transaction, there, now)
            ):
                # A new link makes the code void that the person was given, and where a contact is
                # not on file any more somebody else may have it: only staff can help.
                await _ask_for_help(
                    transaction,
                    there.practice,
                    there.key,
                    "expired",
                    now=now,
                    invitation=there.key,
                )
                return
            sent = await invitations.issue_again(
                transaction,
                self.secrets,
                there,
                ends=now + LIFETIME,
                channel=there.channel,
                to=there.to,
                is_named=there.is_named,
                code_by=code,
                code_to=there.code_to,
                now=now,
            )
            way = InvitationWay(there.channel, there.to, OnFile(code, there.code_to))
            await follow(transaction, self.server, sent)
            await send(transaction, self.server, sent, way, now=now, template="invitation-resent")
            await expire_later(transaction, sent, now=now)

        try:
            await store.transact(again)
        except (NotUsable, invitations.AlreadyInvited):
            return

    async def _is_as_it_was(
        self, transaction: ResourceTransaction, invitation: Invitation, now: float
    ) -> bool:
        """Whether who was invited may be still, and is reached as they were."""
        key = ResourceKey.parse(invitation.persons[0])
        visible = Visibility.of_server(key.type, practice=invitation.practice)
        row = await transaction.read(key, visible)
        tree = json.parse(row.body) if row is not None and not row.deleted else {}
        policy = await policy_of(transaction, invitation.practice)
        if invitation.relation == "self" and await has_account(
            transaction, invitation.practice, key
        ):
            return False
        there = {one.value for one in contacts_on_file(tree, country=policy.country, now=now)}
        to_is_known = invitation.is_named or invitation.to in there
        return may_be_invited(tree) and to_is_known and invitation.code_to in there

    # --- going on ------------------------------------------------------------------------------

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

    def open_contacts(self, activation: Activation) -> list[FileContact]:
        """Return the contacts on file from which nothing came back yet, each mailbox once."""
        known = {one.mailbox for one in activation.proved_contacts}
        found: list[FileContact] = []
        for one in activation.file_contacts:
            if one.mailbox not in known:
                known.add(one.mailbox)
                found.append(one)
        return found

    async def send_code(self, activation: Activation, choice: str) -> Activation:
        """Send a one-time code to one of the `open_contacts`, by its number, from 0 on.

        Raises `ActivationOver`, `NotMatched` for no such contact, and `TooManyAttempts`.
        """
        if activation.way == "mail" and not _has_code(activation):
            raise NotMatched  # the mailbox comes first
        known = self.open_contacts(activation)
        if not choice.isascii() or not choice.isdigit() or int(choice[:3]) >= len(known):
            raise NotMatched
        to = known[int(choice[:3])]
        whose = activation.persons[0] if activation.persons else activation.key
        await self.door.password.throttle.limit(
            SENDINGS, f"activation codes of {activation.practice}/{whose}"
        )
        now = self.server.clock()
        challenge = self.codes.challenge(
            "activation",
            subject=whose,
            browser=activation.browser,
            medium=to.medium,
            to=to.value,
        )
        after = msgspec.structs.replace(activation, challenge=challenge.key, challenge_to=to)

        async def send(transaction: RecordTransaction) -> Activation:
            await self.codes.keep(transaction, challenge)
            await self._enqueue(transaction, activation.practice, challenge, now)
            return await step_in(transaction, activation, after, now=now)

        return await self.server.store.transact(send)

    async def send_again(self, activation: Activation) -> None:
        """Send the awaited code once more; the one before is void.

        Raises `ActivationOver` and `fhir_portal.accounts.one_time_code.SentTooOften`.
        """
        now = self.server.clock()

        async def again(transaction: RecordTransaction) -> None:
            found = await transaction.get(Challenge, activation.challenge)
            if found is None:
                raise ActivationOver
            sent = await self.codes.again(transaction, found)
            await self._enqueue(transaction, activation.practice, sent, now)
            await step_in(transaction, activation, activation, now=now)

        await self.server.store.transact(again)

    async def give_code(self, activation: Activation, typed: str) -> Activation:
        """Take a one-time code. Raises `NotMatched` and `ActivationOver`."""
        store, now, to = self.server.store, self.server.clock(), activation.challenge_to
        try:
            challenge, spend = await self.codes.prove(
                store,
                activation.challenge,
                typed,
                purpose="activation",
                browser=activation.browser,
            )
        except WrongOneTimeCode:
            await self._tell_of_guesses(activation, now)
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

    async def other_proof(self, activation: Activation) -> Activation:
        """Leave the awaited code, to choose another proof. Raises `ActivationOver`.

        Who began by mail has to prove that mailbox first.
        """
        if not activation.evidence or (activation.way == "mail" and not _has_code(activation)):
            return activation
        after = msgspec.structs.replace(activation, challenge="", challenge_to=None)
        now = self.server.clock()

        async def leave(transaction: RecordTransaction) -> Activation:
            return await step_in(transaction, activation, after, now=now)

        return await self.server.store.transact(leave)

    async def give_security_code(self, activation: Activation, code: str) -> Activation:
        """Take the security code that the practice handed over, as a further proof.

        It must be that of an invitation of the same person. Raises `NotMatched` and
        `ActivationOver`.
        """
        store, now = self.server.store, self.server.clock()
        found = await self.secrets.by_code(store, code)
        whose = f"{activation.practice}/{activation.persons[0] if activation.persons else ''}"

        async def count(transaction: RecordTransaction) -> bool:
            tries = await count_typed(transaction, f"code after {activation.key}", now=now)
            if tries >= TRIES:
                await _ask_for_help(
                    transaction, activation.practice, activation.key, "no-second-proof", now=now,
                    network=activation.network,
                )  # fmt: skip
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
            evidence=(*activation.evidence, self._code_proof(found, now)),
        )

        async def take(transaction: RecordTransaction) -> Activation:
            return await step_in(transaction, activation, after, now=now)

        return await store.transact(take)

    async def ask_staff(self, activation: Activation) -> None:
        """Leave word that somebody has no second proof."""
        now = self.server.clock()

        async def leave(transaction: RecordTransaction) -> None:
            await _ask_for_help(
                transaction,
                activation.practice,
                activation.key,
                "no-second-proof",
                now=now,
                invitation=activation.invitation,
                network=activation.network,
            )

        await self.server.store.transact(leave)

    async def choose_contact(self, activation: Activation, mail: str | None) -> Activation:
        """Note a mail address to be proved later, or (``None``) that there is none.

        Raises `ActivationOver` and `InvalidContact`.
        """
        contact = mail_address(mail) if mail is not None else ""
        after = msgspec.structs.replace(activation, contact=contact, without_contact=mail is None)
        return await self._stepped(activation, after)

    async def choose_name(self, activation: Activation, username: str) -> Activation:
        """Keep the user name somebody wants; see `name_for`.

        Raises `ActivationOver` besides, while something is still to be proved.
        """
        await self._require_ready(activation)
        await self.name_for(activation, username)
        typed = {**activation.typed, "username": username}
        return await self._stepped(activation, msgspec.structs.replace(activation, typed=typed))

    async def name_for(self, activation: Activation, username: str) -> str:
        """Return a user name that the person may have.

        Raises `InvalidUsername`, `DuplicateAccount` and `TooManyAttempts`.
        """
        proved = [one.value for one in activation.proved_contacts if one.medium == "mail"]
        name = chosen_name(username, proved=proved)
        await self.door.password.throttle.limit(NAMES, f"names of {activation.key}")
        if await account_named(self.server.store, name) is not None:
            raise DuplicateAccount(name)
        return name

    # --- ending --------------------------------------------------------------------------------

    async def with_password(
        self, activation: Activation, username: str, password: str
    ) -> tuple[Account, list[str]]:
        """Make the account; return it, and recovery codes for whoever has no contact.

        Raises `UnacceptablePassword`, what `name_for` raises, and what `redeem` does.
        """
        await self._require_ready(activation)
        name = await self.name_for(activation, username)
        practice = await self.server.store.get(Practice, activation.practice)
        hashed = await self.door.password.passwords.hash(
            password, username=name, names=[practice.name] if practice is not None else []
        )
        account = new_account(
            username=name,
            password_hash=hashed,
            now=self.server.clock(),
            random=self.collaborators.random,
        )
        return await self._made(activation, account, [])

    async def begin_passkey(
        self, activation: Activation, session: Session, site: Site
    ) -> tuple[Activation, str]:
        """Return what the browser is to make, as JSON, for the user name chosen before."""
        await self._require_ready(activation)
        name = await self.name_for(activation, activation.typed.get("username", ""))
        account = new_account(
            username=name,
            password_hash=None,
            now=self.server.clock(),
            random=self.collaborators.random,
        )
        options = await self.door.passkeys.begin_adding(session, account, site)
        after = msgspec.structs.replace(activation, draft=account.key)
        return await self._stepped(activation, after), options

    async def with_passkey(
        self, activation: Activation, session: Session, answer: str, name: str
    ) -> tuple[Account, list[str]]:
        """Make an account that signs in by passkey; as `with_password`.

        Raises `PasskeyRefused` besides.
        """
        await self._require_ready(activation)
        username = await self.name_for(activation, activation.typed.get("username", ""))
        drawn = new_account(
            username=username,
            password_hash=None,
            now=self.server.clock(),
            random=self.collaborators.random,
        )
        account = msgspec.structs.replace(drawn, key=activation.draft or drawn.key)
        added = await self.door.passkeys.added(session, account, answer, name)
        return await self._made(activation, account, [added])

    async def into(self, activation: Activation, visitor: Visitor) -> Account:
        """Add what was proved to the account that is signed in. Raises what `redeem` does."""
        if visitor.account is None:
            raise ActivationOver
        await self._require_ready(activation, adding=True)
        return await redeem(
            self.server, self.collaborators, Redemption(activation, visitor.account, visitor)
        )

    async def _made(
        self, activation: Activation, account: Account, also: list[Write]
    ) -> tuple[Account, list[str]]:
        codes: list[str] = []
        if activation.without_contact and not activation.proved_contacts:
            codes, keep = await self.door.second_factor.codes.new(account.key)
            also = [*also, keep]
        redemption = Redemption(activation, account, also=tuple(also))
        return await redeem(self.server, self.collaborators, redemption), codes

    async def _require_ready(self, activation: Activation, *, adding: bool = False) -> None:
        """Raise `ActivationOver` while something is still to be proved or decided."""
        step = await self.due(activation)
        if step != "account" and not (adding and step == "contact"):
            raise ActivationOver

    # --- what all of them do -------------------------------------------------------------------

    async def _begun(
        self,
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
        await self._limit_network(address)
        store, now = self.server.store, self.server.clock()
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
                await _ask_for_help(
                    transaction,
                    found.practice,
                    found.key,
                    "locked",
                    now=now,
                    invitation=found.key,
                )
            is_open = (await policy_of(transaction, found.practice)).portal
            return counted if is_open and found.is_usable(now) else None

        counted = await store.transact(count)
        where = found if found is not None else _NOBODYS
        patients = [await self._tree(where.practice, one) or {} for one in where.patients]
        person = await self._tree(where.practice, where.persons[0]) or {}
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
            file_contacts=_contacts_of(person, policy, now),
            typed={name: text[:_LONGEST_TYPED] for name, text in typed.items()},
        )

        async def begin(transaction: ResourceTransaction) -> Activation:
            await invitations.take_back_try(transaction, found.key, attempt=found.attempt)
            key = help_key(found.practice, found.key)
            await _MATTERS.settle(transaction, key, now=now)
            await progress(transaction, self.server, found.key, "opened", attempt=found.attempt)
            return await begin_in(transaction, activation, now=now)

        return await store.transact(begin)

    def _network(self, address: str) -> str:
        """What stands for a network and does not tell which it is."""
        network = network_of(address).encode()
        return self.collaborators.derive("network-of-strangers", network).hex()[:_NETWORK_SIGNS]

    async def _limit_network(self, address: str) -> None:
        await self.door.password.throttle.limit(
            PER_NETWORK, f"activation from {network_of(address)}"
        )

    async def _stepped(self, before: Activation, after: Activation) -> Activation:
        now = self.server.clock()

        async def step(transaction: RecordTransaction) -> Activation:
            return await step_in(transaction, before, after, now=now)

        return await self.server.store.transact(step)

    async def _enqueue(
        self, transaction: RecordTransaction, practice: str, challenge: Challenge, now: float
    ) -> None:
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

    async def _tell_of_guesses(self, activation: Activation, now: float) -> None:
        """Leave word for staff when the tries on a code are used up, for whomever it was."""
        store = self.server.store
        challenge = await store.get(Challenge, activation.challenge)
        if challenge is None or challenge.tries < TRIES:
            return

        async def leave(transaction: ResourceTransaction) -> None:
            await _ask_for_help(
                transaction,
                activation.practice,
                activation.key,
                "locked",
                now=now,
                invitation=activation.invitation,
                network=activation.network,
            )

        await store.transact(leave)

    def _code_proof(self, found: Invitation, now: float) -> Evidence:
        if found.channel in _ON_PAPER:
            return Evidence("security-code", found.channel, now)
        return Evidence("security-code", found.code_by, now, _written(found.code_by, found.code_to))

    async def _open_at(self, practice: str, way: PolicyWay) -> str:
        """The key of the practice that somebody means, if one may begin there this way."""
        meant = (await self.listing.now()).meant(practice)
        return meant[0].key if meant is not None and meant[1].lets_begin(way) else ""

    async def _tree(self, practice: str, reference: str) -> dict[str, Any] | None:
        key = local_target(reference)
        if key is None:
            return None
        visible = Visibility.of_server(key.type, practice=practice)
        row = await self.server.store.read(key, visible)
        return None if row is None or row.deleted else json.parse(row.body)

    async def _matched(self, practice: str, said: Said) -> tuple[Match, Tree | None]:
        """Look up who has this mail address, and hold what was said against them."""
        store = self.server.store
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

    async def _is_taken(self, practice: str, result: Match) -> bool:
        """Whether some account is this Patient already."""
        chosen = result.candidates[0].patient if result.candidates else "Patient/-"
        rows = await self.server.store.referring(
            parameters_for("Person")["link"],
            [ResourceKey.parse(chosen)],
            Visibility.of_server("Person", practice=practice),
            limit=_MOST,
        )
        keys = [f"{practice}/{row.key}" for row in rows] or [f"{practice}/Person/-"]
        found = [await account_of_person(self.server.store, key) for key in keys]
        return any(one is not None for one in found)


_LONGEST_TYPED: Final = 200
_NETWORK_SIGNS: Final = 32
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


_MATTERS: Final = QueuedMatters()


async def _ask_for_help(
    transaction: RecordTransaction,
    practice: str,
    about: str,
    reason: Reason,
    *,
    now: float,
    invitation: str | None = None,
    patient: str | None = None,
    network: str = "",
    candidates: tuple[Candidate, ...] = (),
    typed: Mapping[str, str] | None = None,
) -> None:
    """Leave word for staff, by `help_matter`."""
    matter = help_matter(
        practice, about, reason, now=now, network=network,
        invitation=invitation, patient=patient, candidates=candidates, typed=typed,
    )  # fmt: skip
    await _MATTERS.note(transaction, matter)


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


def _contacts_of(person: Tree, policy: PracticePolicy, now: float) -> tuple[FileContact, ...]:
    """The mail addresses and mobile numbers that the practice has of a person."""
    found = contacts_on_file(person, country=policy.country, now=now)
    return tuple(FileContact(one.medium, one.value) for one in found)


def _written(over: Over, to: str) -> str:
    """A contact as it is compared: one mailbox is not two for being written in two ways."""
    try:
        if over == "mail":
            return mail_address(to)
        return telephone_number(to) if over == "sms" else ""
    except InvalidContact:
        return ""


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


def _dated(birth_date: str) -> dict[str, str]:
    """A date as the three fields of a form."""
    year, _, rest = birth_date.partition("-")
    month, _, day = rest.partition("-")
    return {"year": year, "month": month, "day": day}


def _has_code(activation: Activation) -> bool:
    return any(one.what == "one-time-code" for one in activation.evidence)
