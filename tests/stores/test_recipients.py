"""Messages to accounts and records become messages to contacts; what never arrives is noted."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec
import pytest

from fhir_portal.accounts.account import Account, insert_account
from fhir_portal.accounts.contacts import Contact, RemovedContact
from fhir_portal.accounts.invitation import LINK_PREFIX
from fhir_portal.accounts.practice import Practice
from fhir_portal.accounts.preferences import (
    AlwaysTold,
    ContactPreferences,
    preferences_of,
    set_preference,
)
from fhir_portal.notify import lease, outbox, words
from fhir_portal.notify.faults import Undelivered
from fhir_portal.notify.matters import QueuedMatters
from fhir_portal.notify.outbox import (
    CHANNELS,
    Bounced,
    Channel,
    OutboxMessage,
    Superseded,
    deliver_due,
)
from fhir_portal.notify.recipients import (
    AccountRecipients,
    own_accounts,
    proxies_who_see,
    to_account,
)
from fhir_portal.notify.words import BUILT_IN, Words
from tests.builders import (
    DERM,
    FAMILY,
    START,
    Caller,
    Clock,
    a_grant,
    a_patient,
    a_person,
    a_portal,
    an_account,
    an_ehr,
    keep,
)
from tests.matters import open_matters


def a_contact(account: str, value: str, **more: Any) -> Contact:
    medium = "sms" if value.startswith("+") else "mail"
    given: dict[str, Any] = {"medium": medium, "added": START, "verified": START} | more
    return Contact(key=f"{account}-{value[:3].strip('+')}", account=account, value=value, **given)


class Post:
    """Delivers what is due and remembers what was handed over."""

    def __init__(self, store: Any, channels: Iterable[Channel] = CHANNELS) -> None:
        self.store = store
        self.clock = Clock()
        self.channels = frozenset(channels)
        self.sent: list[OutboxMessage] = []
        self.refuses: Exception | None = None

    async def __call__(self, message: OutboxMessage) -> None:
        if self.refuses is not None:
            raise self.refuses
        self.sent.append(message)

    async def work(self) -> list[str]:
        """Deliver everything; return where what arrived this time went to."""
        before = len(self.sent)
        for _ in range(2):
            await deliver_due(
                self.store,
                self,
                worker="one",
                clock=self.clock,
                recipients=AccountRecipients(self.clock, self.channels),
                given_up=Undelivered(QueuedMatters()),
            )
        return sorted(one.to for one in self.sent[before:])

    async def send(self, key: str = "m1", to: str = "account:ada", **more: Any) -> None:
        given: dict[str, Any] = {"practice": DERM, "channel": "mail", "template": "app-ended"}

        async def work(transaction: Any) -> None:
            await outbox.enqueue(transaction, key=key, to=to, now=self.clock(), **given | more)

        await self.store.transact(work)

    async def states(self) -> dict[str, tuple[str, str]]:
        return {one.key: (one.state, one.fault) for one in await self.store.every(OutboxMessage)}


@pytest.fixture
def post(store: Any) -> Post:
    return Post(store)


async def ada_with(store: Any, *contacts: Contact) -> None:
    await keep(store, an_account("ada"), *contacts)


# ---------------------------------------------------------------- an account's contacts


async def test_one_that_was_taken_away_gets_notices_and_no_code(store: Any, post: Post) -> None:
    gone = a_contact("ada", "old@people.example")
    ends = START + 60
    await ada_with(store, a_contact("ada", "new@people.example"))
    await keep(store, RemovedContact(key="r", account="ada", contact=gone, expires=ends))
    code: dict[str, Any] = {"link_for": "one-time-code/x", "link_attempt": 1}
    await post.send("code", template="one-time-code", **code)
    await post.send("linked", template="security-contact-added", **code)
    await post.send("app")
    assert await post.work() == ["mail:new@people.example"] * 3
    await post.send("notice", template="security-contact-added")
    assert await post.work() == ["mail:new@people.example", "mail:old@people.example"]
    post.clock.advance(60)
    await post.send("late", template="security-contact-added")
    assert await post.work() == ["mail:new@people.example"]


async def test_each_verified_contact_of_an_account_gets_a_message(store: Any, post: Post) -> None:
    await ada_with(
        store,
        a_contact("ada", "one@people.example"),
        a_contact("ada", "two@people.example"),
        a_contact("ada", "+13125550100"),
        a_contact("ada", "new@people.example", verified=None),
        a_contact("ben", "ben@people.example"),
    )
    await post.send(
        template="one-time-code", link_for="one-time-code/x", link_attempt=2, values={"a": "b"}
    )
    assert await post.work() == [
        "mail:one@people.example",
        "mail:two@people.example",
        "sms:+13125550100",
    ]
    for one in post.sent:
        assert (one.template, one.link_for, one.link_attempt, one.values) == (
            "one-time-code",
            "one-time-code/x",
            2,
            {"a": "b"},
        )
        assert one.channel == one.to.partition(":")[0]
    assert {state for state, _ in (await post.states()).values()} == {"done"}


async def test_addressing_a_message_twice_sends_it_once(store: Any, post: Post) -> None:
    """A worker lost its lease after it had written the messages to the contacts."""
    await ada_with(store, a_contact("ada", "one@people.example"))
    await post.send()
    assert await post.work() == ["mail:one@people.example"]
    (parent,) = [one for one in await store.every(OutboxMessage) if one.key == "m1"]
    again = msgspec.structs.replace(parent, state="waiting", due=START, expires=None)
    turn = lease.Turn.of(again)
    assert turn is not None
    await keep(store, again, turn)
    assert await post.work() == []
    assert len(await store.every(OutboxMessage)) == 2


async def test_a_long_key_makes_keys_that_fit(store: Any, post: Post) -> None:
    await ada_with(store, a_contact("ada", "one@people.example"))
    await post.send("k" * 150)
    assert await post.work() == ["mail:one@people.example"]
    assert all(len(key) <= 150 for key in await post.states())


async def test_addressing_is_all_or_nothing(
    store: Any, post: Post, monkeypatch: pytest.MonkeyPatch
) -> None:
    await ada_with(
        store, a_contact("ada", "one@people.example"), a_contact("ada", "two@people.example")
    )
    await post.send()
    enqueue, calls = lease.enqueue, []

    async def breaks(transaction: Any, message: Any) -> bool:
        calls.append(message.key)
        if len(calls) == 2:
            raise RuntimeError("the store went away")
        return bool(await enqueue(transaction, message))

    with monkeypatch.context() as patch:
        patch.setattr(lease, "enqueue", breaks)
        assert await post.work() == []
    assert await post.states() == {"m1": ("waiting", "RuntimeError")}
    post.clock.advance(60)
    assert len(await post.work()) == 2


async def test_a_channel_that_is_not_set_up_is_left_out(store: Any) -> None:
    post = Post(store, ["mail"])
    await ada_with(store, a_contact("ada", "one@people.example"), a_contact("ada", "+13125550100"))
    await post.send()
    assert await post.work() == ["mail:one@people.example"]


async def test_whom_nothing_reaches_staff_are_told_of(store: Any, post: Post) -> None:
    await ada_with(
        store,
        a_contact("ada", "new@people.example", verified=None),
        a_contact("ada", "old@people.example", bounced=START),
    )
    await post.send()
    assert await post.work() == []
    state, fault = (await post.states())["m1"]
    assert state == "failed"
    assert "no contact of the account is verified" in fault
    (noted,) = await open_matters(store)
    assert (noted.reason, noted.accounts, noted.contact) == ("no-contact", ("ada",), "")


async def test_a_message_to_nobody_ends_like_any_other(store: Any, post: Post) -> None:
    await post.send(to="nobody:")
    assert await post.work() == ["nobody:"]
    assert await post.states() == {"m1": ("done", "")}
    assert await open_matters(store) == []


async def test_a_message_to_an_account_that_is_gone_is_nobodys_matter(
    store: Any, post: Post
) -> None:
    await post.send()
    assert await post.work() == []
    assert (await post.states())["m1"] == ("failed", "the account is gone")
    assert await open_matters(store) == []


# ---------------------------------------------------------------- preferences


@pytest.fixture
def reminder(monkeypatch: pytest.MonkeyPatch) -> str:
    """A message that is not about security: there will be some."""
    made = dict(BUILT_IN) | {"a-reminder": Words("S", "B", "M", topic="reminders")}
    monkeypatch.setattr(words, "BUILT_IN", made)
    return "a-reminder"


async def test_what_is_switched_off_is_not_sent(store: Any, post: Post, reminder: str) -> None:
    await ada_with(store, a_contact("ada", "one@people.example"), a_contact("ada", "+13125550100"))
    await store.transact(lambda one: set_preference(one, "ada", "reminders", "mail", wanted=False))
    await post.send(template=reminder)
    assert await post.work() == ["sms:+13125550100"]
    await store.transact(lambda one: set_preference(one, "ada", "reminders", "sms", wanted=False))
    await post.send("m2", template=reminder)
    assert await post.work() == []
    assert (await post.states())["m2"] == ("done", "")
    assert await open_matters(store) == []
    await store.transact(lambda one: set_preference(one, "ada", "reminders", "mail", wanted=True))
    await post.send("m3", template=reminder)
    assert await post.work() == ["mail:one@people.example"]


async def test_security_is_always_told(store: Any, post: Post) -> None:
    with pytest.raises(AlwaysTold):
        await store.transact(
            lambda one: set_preference(one, "ada", "security", "mail", wanted=False)
        )
    # Planted fault: a record that says it all the same.
    await ada_with(store, a_contact("ada", "one@people.example"))
    await keep(store, ContactPreferences(key="ada", off=("security/mail",)))
    await post.send()
    assert await post.work() == ["mail:one@people.example"]


async def test_preferences_are_one_accounts(store: Any) -> None:
    await store.transact(lambda one: set_preference(one, "ada", "messages", "sms", wanted=False))
    assert (await preferences_of(store, "ada")).off == ("messages/sms",)
    assert (await preferences_of(store, "ben")).off == ()


# ---------------------------------------------------------------- whose record it is


async def world(store: Any, *, assurance: str = "level3", practice: str = DERM) -> None:
    """Ada's record; Ben is linked to it as her representative; their accounts and contacts."""
    ehr = Caller(a_portal(store, Clock()), an_ehr(practice))
    for tree in (
        a_patient("ada"),
        {"resourceType": "RelatedPerson", "id": "ben", "patient": {"reference": "Patient/ada"}},
        a_person("ada-person", links=["Patient/ada"], assurance=assurance),
        a_person("ben-person", links=["RelatedPerson/ben"]),
    ):
        assert (await ehr.put(tree)).status == 201
    await keep(store, Practice(key=practice, name="Hill Street"))

    async def add(transaction: Any) -> None:
        for name in ("ada", "ben"):
            account = an_account(name, f"{practice}/Person/{name}-person")
            await insert_account(transaction, account)
            await transaction.put(a_contact(name, f"{name}@people.example"))

    await store.transact(add)


async def test_a_message_to_a_record_goes_to_whose_record_it_is_and_to_no_proxy(
    store: Any, post: Post
) -> None:
    await world(store)
    await post.send(to=f"record:{DERM}/Patient/ada", template="app-made-by-proxy")
    assert await post.work() == ["mail:ada@people.example"]


@pytest.mark.parametrize(
    ("granted", "found"),
    [
        ({"sections": ["appointments"]}, ["ben"]),
        ({"sections": ["results"]}, []),
        ({"sections": ["appointments"], "status": "inactive"}, []),
        ({"sections": ["appointments"], "end": "2025-01-01"}, []),
    ],
)
async def test_proxies_who_see_a_section_are_those_whose_grant_shows_it_now(
    store: Any, granted: dict[str, Any], found: list[str]
) -> None:
    await world(store)
    ehr = Caller(a_portal(store, Clock()), an_ehr())
    assert (await ehr.put(a_grant("g", of="ada", to="ben", **granted))).status == 201
    for practice, patient, expected in (
        (DERM, "Patient/ada", found),
        (FAMILY, "Patient/ada", []),
        (DERM, "Patient/nobody", []),
        (DERM, "Person/ada-person", []),
    ):
        seen = await proxies_who_see(store, practice, patient, "appointments", clock=Clock())
        assert [one.key for one in seen] == expected


async def test_a_link_that_nobody_proved_leads_to_no_account(store: Any, post: Post) -> None:
    await world(store, assurance="level1")
    await post.send(to=f"record:{DERM}/Patient/ada", template="app-made-by-proxy")
    assert await post.work() == []
    assert (await post.states())["m1"] == ("failed", "whose record it is has no account")


async def test_a_record_of_the_same_id_at_another_practice_is_another(
    store: Any, post: Post
) -> None:
    await world(store)
    await post.send(to=f"record:{FAMILY}/Patient/ada", template="app-made-by-proxy")
    assert await post.work() == []


async def test_an_account_that_is_disabled_is_not_told_of_its_record(
    store: Any, post: Post
) -> None:
    await world(store)
    account = await store.get(Account, "ada")
    await keep(store, msgspec.structs.replace(account, disabled=True))
    await post.send(to=f"record:{DERM}/Patient/ada", template="app-made-by-proxy")
    assert await post.work() == []


@pytest.mark.parametrize("patient", ["", "ada", "Person/ada-person", "Patient/ada/x", "Patient/"])
async def test_what_is_no_patient_is_nobodys(store: Any, patient: str) -> None:
    await world(store)
    assert await own_accounts(store, DERM, patient, clock=Clock()) == []


async def test_an_account_that_gave_its_person_away_has_the_record_no_more(store: Any) -> None:
    """Planted fault: the entry that finds the account is still there."""
    await world(store)
    (ada,) = await own_accounts(store, DERM, "Patient/ada", clock=Clock())
    await keep(store, msgspec.structs.replace(ada, persons=()))
    assert await own_accounts(store, DERM, "Patient/ada", clock=Clock()) == []


# ---------------------------------------------------------------- what never arrives


async def test_a_bounce_is_noted_at_the_contact_and_for_staff(store: Any, post: Post) -> None:
    await ada_with(
        store, a_contact("ada", "one@people.example"), a_contact("ada", "two@people.example")
    )
    post.refuses = Bounced("the address takes no mail")
    await post.send(to="mail:one@people.example", link_for=f"{LINK_PREFIX}{DERM}/Task/7")
    assert await post.work() == []
    contacts = {one.value: one.bounced for one in await store.every(Contact)}
    assert contacts == {"one@people.example": START, "two@people.example": None}
    (fault,) = await open_matters(store)
    assert (fault.reason, fault.contact, fault.accounts, fault.invitation) == (
        "bounced",
        "o•••@p•••",
        ("ada",),
        f"{DERM}/Task/7",
    )
    assert "one@people" not in repr(fault)
    post.refuses = None
    await post.send("m2")
    assert await post.work() == ["mail:two@people.example"]


async def test_one_address_is_one_matter_until_somebody_has_seen_to_it(
    store: Any, post: Post
) -> None:
    post.refuses = Bounced("the address takes no mail")
    for n in range(3):
        await post.send(f"m{n}", to="mail:one@people.example")
        await post.work()
        post.clock.advance(60)
    (fault,) = await open_matters(store)
    assert (fault.times, fault.since, fault.latest) == (3, START, START + 120)
    assert await open_matters(store, practice=FAMILY) == []
    await store.transact(lambda one: QueuedMatters().settle(one, fault.key, now=START + 500))
    assert await open_matters(store) == []
    await post.send("m9", to="mail:one@people.example")
    await post.work()
    (again,) = await open_matters(store)
    assert (again.times, again.since, again.turn) == (1, START + 180, 5)


async def test_what_is_given_up_after_many_tries_is_noted_and_bounces_nobody(
    store: Any, post: Post
) -> None:
    await ada_with(store, a_contact("ada", "one@people.example"))
    post.refuses = ConnectionRefusedError("words that may repeat the mail")
    await post.send(to="mail:one@people.example")
    for _ in range(60):
        await post.work()
        post.clock.advance(3600)
    (fault,) = await open_matters(store)
    assert (fault.reason, (await post.states())["m1"][1]) == (
        "not-delivered",
        "ConnectionRefusedError",
    )
    assert [one.bounced for one in await store.every(Contact)] == [None]


async def test_what_is_over_is_no_matter_for_staff(store: Any, post: Post) -> None:
    post.refuses = Superseded("what it was for is over")
    await post.send(to="mail:one@people.example")
    await post.work()
    assert (await post.states())["m1"] == ("failed", "what it was for is over")
    assert await open_matters(store) == []


async def test_to_account_is_where_notices_go() -> None:
    assert to_account("ada") == "account:ada"


async def test_whom_nothing_reaches_is_one_matter_however_many_notices(
    store: Any, post: Post
) -> None:
    """Not one for each notice, nor once more when staff have seen to it, nor for the record too."""
    await world(store)
    ada = a_contact("ada", "ada@people.example")
    await store.transact(lambda one: one.delete(Contact, ada.key))
    for number, template in enumerate(("app-ended", "security-password-changed", "app-ended")):
        await post.send(f"m{number}", template=template)
        await post.work()
        post.clock.advance(60)
    await post.send("of-record", to=f"record:{DERM}/Patient/ada", template="app-made-by-proxy")
    await post.work()
    (noted,) = await open_matters(store)
    assert (noted.reason, noted.times, noted.accounts) == ("no-contact", 1, ("ada",))
    assert (noted.template, noted.contact) == ("", "")
    await store.transact(lambda one: QueuedMatters().settle(one, noted.key, now=post.clock()))
    await post.send("m9")
    await post.work()
    assert await open_matters(store) == []
    await post.send("m10", practice=FAMILY)
    await post.work()
    assert [one.practice for one in await open_matters(store)] == [FAMILY]


async def test_what_came_back_is_not_told_once_more_as_no_contact(store: Any, post: Post) -> None:
    await ada_with(store, a_contact("ada", "one@people.example"))
    post.refuses = Bounced("the address takes no mail")
    await post.send()
    await post.work()
    post.refuses = None
    await post.send("m2")
    await post.work()
    assert (await post.states())["m2"][0] == "failed"
    assert [one.reason for one in await open_matters(store)] == ["bounced"]


async def test_an_account_that_could_be_reached_has_a_contact(store: Any, post: Post) -> None:
    """Words that nobody wrote are no matter of whom they were for."""
    await ada_with(store, a_contact("ada", "one@people.example"))
    await post.send(template="no-such-words")
    await post.work()
    (noted,) = await open_matters(store)
    assert (noted.reason, noted.template) == ("not-delivered", "no-such-words")
