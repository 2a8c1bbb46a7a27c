"""Contacts: written in one form, proved before they count, never down to none."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fhir_portal.accounts import contacts
from fhir_portal.accounts.contacts import (
    Contact,
    InvalidContact,
    LastContact,
    TooManyContacts,
    UnknownContact,
    mail_address,
    mailbox_of,
    masked_value,
    telephone_number,
)
from tests.accounts.house import House


async def do(house: House, work: Callable[..., Awaitable[Any]], *args: Any, **more: Any) -> Any:
    """Run one of the functions in a transaction of its own."""

    async def change(transaction: Any) -> Any:
        return await work(transaction, *args, **more)

    return await house.store.transact(change)


def a_contact(house: House, value: str = "mara@mail.example", account: str = "") -> Contact:
    return contacts.new_contact(
        account or house.mara.key, "mail", value, now=house.clock(), random=house.random
    )


def test_one_mailbox_is_written_in_one_way() -> None:
    assert mail_address(" Mara.Ellwick@MAIL.example ") == "mara.ellwick@mail.example"
    assert mail_address("mara@bücher.example") == mail_address("mara@xn--bcher-kva.example")


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("mara@mail.example", "mara+clinic@mail.example", True),
        ("mara+a@mail.example", "MARA+b+c@mail.example", True),
        ("mara@mail.example", "mara@post.example", False),
        ("mara@mail.example", "m.ara@mail.example", False),
        ("mara-clinic@mail.example", "mara@mail.example", False),
        ("m.a.ra@gmail.com", "mara+x@googlemail.com", True),
        ("mara@gmail.com", "mara@mail.example", False),
        ("+a@mail.example", "+b@mail.example", False),
    ],
)
def test_what_one_mailbox_takes_is_one_contact(one: str, other: str, same: bool) -> None:  # noqa: FBT001
    assert (mailbox_of("mail", one) == mailbox_of("mail", other)) is same


def test_a_number_is_a_contact_as_it_is() -> None:
    assert mailbox_of("sms", "+13125550142") == "+13125550142"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "mara",
        "mara@",
        "@mail.example",
        "a b@mail.example",
        "mara@mail.example\nBcc: all@mail.example",
        "mara@mail.example\r\nSubject: x",
        "Mara <mara@mail.example>",
        "mara@[127.0.0.1]",
        '"mara x"@mail.example',
        "mara@mail.example,oskar@mail.example",
        "m" * 300 + "@mail.example",
    ],
)
def test_what_is_no_address_or_could_begin_a_header_is_refused(text: str) -> None:
    with pytest.raises(InvalidContact):
        mail_address(text)


@given(st.text(max_size=80))
def test_an_address_that_is_taken_holds_nothing_that_ends_a_header(text: str) -> None:
    try:
        taken = mail_address(f"{text}@mail.example")
    except InvalidContact:
        return
    assert taken.isprintable()
    assert not set(taken) & set("\r\n\0 <>,;")


def test_a_number_is_read_as_its_country_writes_it() -> None:
    assert telephone_number("(312) 555-0142", region="US") == "+13125550142"
    assert telephone_number("+44 20 7946 0958") == "+442079460958"
    for wrong in ("", "555", "not a number", "312 555 0142", "+1 312 555 0142 ext. 9", "9" * 400):
        with pytest.raises(InvalidContact):
            telephone_number(wrong)


def test_a_masked_contact_tells_only_its_edges_and_never_its_length() -> None:
    assert masked_value("mail", "mara.ellwick@mail.example") == "m•••@m•••"
    assert masked_value("mail", "mo@medical.example") == "m•••@m•••"
    assert masked_value("sms", "+13125550142") == "••• 42"


async def test_a_contact_counts_for_recovery_a_day_after_it_was_proved(house: House) -> None:
    contact = await do(house, contacts.add_contact, a_contact(house))
    assert await contacts.verified_contacts(house.store, house.mara.key) == []
    proved = await do(
        house, contacts.verify_contact, house.mara.key, contact.key, now=house.clock()
    )
    assert not proved.recovers(house.clock())
    assert not proved.recovers(house.clock() + contacts.RECOVERY_AFTER_SECONDS - 1)
    assert proved.recovers(house.clock() + contacts.RECOVERY_AFTER_SECONDS)


async def test_proving_again_does_not_move_the_day(house: House) -> None:
    contact = await do(house, contacts.add_contact, a_contact(house))
    once = await do(
        house,
        contacts.verify_contact,
        house.mara.key,
        contact.key,
        now=house.clock(),
        is_first=True,
    )
    assert once.recovers(house.clock())
    again = await do(
        house, contacts.verify_contact, house.mara.key, contact.key, now=house.clock() + 9
    )
    assert again == once


async def test_the_same_contact_is_kept_once_and_there_is_an_end_to_them(house: House) -> None:
    first = await do(house, contacts.add_contact, a_contact(house))
    assert await do(house, contacts.add_contact, a_contact(house, "MARA@mail.example")) == first
    for number in range(contacts.MOST - 1):
        await do(house, contacts.add_contact, a_contact(house, f"m{number}@mail.example"))
    with pytest.raises(TooManyContacts):
        await do(house, contacts.add_contact, a_contact(house, "one-more@mail.example"))


async def test_nobody_changes_the_contact_of_another_account(house: House) -> None:
    contact = await do(house, contacts.add_contact, a_contact(house))
    with pytest.raises(UnknownContact):
        await do(house, contacts.verify_contact, "somebody", contact.key, now=house.clock())
    with pytest.raises(UnknownContact):
        await do(house, contacts.remove_contact, "somebody", contact.key, now=house.clock())


async def proved(house: House, value: str, *, is_first: bool = False) -> Contact:
    contact = await do(house, contacts.add_contact, a_contact(house, value))
    found: Contact = await do(
        house,
        contacts.verify_contact,
        house.mara.key,
        contact.key,
        now=house.clock(),
        is_first=is_first,
    )
    return found


async def removed(house: House, contact: Contact) -> None:
    await do(house, contacts.remove_contact, house.mara.key, contact.key, now=house.clock())


async def test_a_proved_contact_stays_until_another_one_helps_to_recover(house: House) -> None:
    """Whoever is in for a moment could else add their own, and take the owner's away."""
    owners = await proved(house, "mara@mail.example", is_first=True)
    unproved = await do(house, contacts.add_contact, a_contact(house, "third@mail.example"))
    with pytest.raises(LastContact):
        await removed(house, owners)
    other = await proved(house, "other@mail.example")
    with pytest.raises(LastContact):
        await removed(house, owners)
    house.clock.now += contacts.RECOVERY_AFTER_SECONDS
    await removed(house, owners)
    await removed(house, unproved)
    left = await contacts.contacts_of(house.store, house.mara.key)
    assert left == [other]


async def test_a_contact_that_bounced_stands_for_no_other(house: House) -> None:
    owners = await proved(house, "mara@mail.example", is_first=True)
    await proved(house, "other@mail.example", is_first=True)
    await do(house, contacts.note_bounce, "mail", "other@mail.example", now=house.clock())
    with pytest.raises(LastContact):
        await removed(house, owners)


async def test_one_that_was_taken_away_is_told_what_changes_for_a_week(house: House) -> None:
    async def told() -> list[str]:
        found = await contacts.told_of_changes(house.store, house.mara.key, now=house.clock())
        return sorted(one.value for one in found)

    owners = await proved(house, "mara@mail.example", is_first=True)
    await proved(house, "other@mail.example", is_first=True)
    await removed(house, owners)
    assert await told() == ["mara@mail.example", "other@mail.example"]
    await proved(house, "mara@mail.example")
    assert await told() == ["mara@mail.example", "other@mail.example"]  # once
    (again,) = [
        one
        for one in await contacts.contacts_of(house.store, house.mara.key)
        if one.value == "mara@mail.example"
    ]
    await removed(house, again)
    house.clock.now += contacts.REMOVED_TOLD_SECONDS
    assert await told() == ["other@mail.example"]


async def test_a_bounce_is_noted_wherever_the_address_stands(house: House) -> None:
    await do(house, contacts.add_contact, a_contact(house))
    await do(house, contacts.add_contact, a_contact(house, account="another-account"))
    noted = await do(house, contacts.note_bounce, "mail", "mara@mail.example", now=7.0)
    assert noted == 2
    assert [one.bounced for one in await contacts.contacts_of(house.store, house.mara.key)] == [7.0]
