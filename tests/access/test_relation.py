"""Which records an account may use: own ones, and one current grant per RelatedPerson."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from fhir_portal.access.relation import Relations
from fhir_portal.accounts.account import Account
from fhir_portal.consent.record import RecordAccess
from fhir_portal.embedded.store import EmbeddedStore
from tests.builders import (
    DERM,
    FAMILY,
    START,
    Caller,
    Clock,
    a_grant,
    a_patient,
    a_person,
    a_practice,
    a_related_person,
    an_account,
    an_ehr,
    changed,
    keep,
    reference,
)

KIT = "Patient/kit"


async def records(store: EmbeddedStore, clock: Clock, key: str = "ada") -> tuple[str, ...]:
    account = await store.get(Account, key)
    assert account is not None
    return tuple(one.patient for one in await Relations(store, clock).records_of(account))


async def kit_of(store: EmbeddedStore, clock: Clock) -> RecordAccess | None:
    account = await store.get(Account, "ada")
    assert account is not None
    return await Relations(store, clock).record_of(account, DERM, KIT)


async def test_own_records_come_first_and_each_with_its_relation(
    family: EmbeddedStore, clock: Clock
) -> None:
    assert await records(family, clock) == ("Patient/ada", "Patient/ada-f", KIT)
    found = await kit_of(family, clock)
    assert found is not None
    assert found.practice == DERM
    assert found.fhir_user == "RelatedPerson/mother"
    assert (found.grant, found.relation) == ("Consent/grant", "mother")
    assert sorted(found.sections or ()) == ["messages", "results"]
    assert found.act == {"messages"}
    assert found.until == pytest.approx(2209075200.0)  # 2040-01-02T00:00:00Z


async def test_a_record_that_is_not_ones_own_is_none(family: EmbeddedStore, clock: Clock) -> None:
    account = await family.get(Account, "ada")
    relations = Relations(family, clock)
    for patient in ("Patient/bo", "kit", "Patient/", "", "RelatedPerson/mother", "Patient/kit/x"):
        assert await relations.record_of(account, DERM, patient) is None  # type: ignore[arg-type]  # just stored


@pytest.mark.parametrize("assurance", ["level1", None])
async def test_a_link_nobody_proved_opens_nothing(
    family: EmbeddedStore, clock: Clock, ehr: Caller, assurance: str | None
) -> None:
    links = ["Patient/ada", "RelatedPerson/mother"]
    await ehr.store(a_person("ada", links=links, assurance=assurance))
    assert await records(family, clock) == ("Patient/ada-f",)


@pytest.mark.parametrize("assurance", ["level2", "level3", "level4"])
async def test_a_proven_link_opens_the_record(
    family: EmbeddedStore, clock: Clock, ehr: Caller, assurance: str
) -> None:
    await ehr.store(a_person("ada", links=["Patient/ada"], assurance=assurance))
    assert await records(family, clock) == ("Patient/ada", "Patient/ada-f")


async def test_a_person_of_another_practice_opens_nothing_here(
    family: EmbeddedStore, clock: Clock, other_ehr: Caller
) -> None:
    """Its links mean resources of its own practice, whatever their ids."""
    await other_ehr.store(a_person("ada", links=["Patient/ada", "RelatedPerson/mother"]))
    assert await records(family, clock) == ("Patient/ada", KIT)
    await other_ehr.store(a_person("ada", links=["Patient/kit"]))
    found = [one for one in await _all(family, clock) if one.patient == KIT]
    assert {one.practice for one in found} == {DERM, FAMILY}
    assert {one.fhir_user for one in found} == {"RelatedPerson/mother", KIT}


async def _all(store: EmbeddedStore, clock: Clock) -> tuple[RecordAccess, ...]:
    account = await store.get(Account, "ada")
    assert account is not None
    return await Relations(store, clock).records_of(account)


async def test_one_patient_id_at_two_practices_is_two_records(
    family: EmbeddedStore, clock: Clock, other_ehr: Caller
) -> None:
    await other_ehr.store(a_patient("ada"), a_person("ada", links=["Patient/ada"]))
    account = await family.get(Account, "ada")
    assert account is not None
    for practice in (DERM, FAMILY):
        found = await Relations(family, clock).record_of(account, practice, "Patient/ada")
        assert found is not None
        assert found.practice == practice
    assert await Relations(family, clock).record_of(account, "nowhere", "Patient/ada") is None


async def test_links_of_links_are_not_followed(
    family: EmbeddedStore, clock: Clock, ehr: Caller
) -> None:
    await ehr.store(
        a_person("bo", links=["Patient/bo"]),
        a_person("ada", links=["Patient/ada", "Person/bo"]),
        a_patient("ada", link=[{"other": reference("Patient/bo"), "type": "seealso"}]),
    )
    assert await records(family, clock) == ("Patient/ada", "Patient/ada-f")


async def test_an_inactive_person_opens_nothing(
    family: EmbeddedStore, clock: Clock, ehr: Caller
) -> None:
    await ehr.store(a_person("ada", links=["Patient/ada"], active=False))
    assert await records(family, clock) == ("Patient/ada-f",)


async def test_a_deleted_person_patient_or_related_person_opens_nothing(
    family: EmbeddedStore, clock: Clock, ehr: Caller, other_ehr: Caller
) -> None:
    await other_ehr.delete("Person/ada")
    assert await records(family, clock) == ("Patient/ada", KIT)
    await ehr.delete("Patient/ada")
    assert await records(family, clock) == (KIT,)
    await ehr.delete("RelatedPerson/mother")
    assert await records(family, clock) == ()


async def test_an_unknown_practice_opens_nothing(family: EmbeddedStore, clock: Clock) -> None:
    await keep(family, an_account("ada", "nowhere/Person/ada", f"{DERM}/Person/unknown"))
    assert await records(family, clock) == ()


async def test_a_disabled_account_opens_nothing(family: EmbeddedStore, clock: Clock) -> None:
    await keep(family, changed(await family.get(Account, "ada"), disabled=True))
    assert await records(family, clock) == ()
    assert await kit_of(family, clock) is None


async def test_an_inactive_related_person_has_no_grant(
    family: EmbeddedStore, clock: Clock, ehr: Caller
) -> None:
    await ehr.store(a_related_person("mother", of="kit", active=False))
    assert await kit_of(family, clock) is None


async def test_the_grant_must_be_for_the_related_persons_own_patient(
    family: EmbeddedStore, clock: Clock, ehr: Caller
) -> None:
    await ehr.store(a_grant("grant", of="bo", to="mother"))
    assert await records(family, clock) == ("Patient/ada", "Patient/ada-f")


async def test_moving_the_related_person_does_not_take_the_grant_along(
    family: EmbeddedStore, clock: Clock, ehr: Caller
) -> None:
    await ehr.store(a_related_person("mother", of="bo"))
    assert await records(family, clock) == ("Patient/ada", "Patient/ada-f")


async def test_two_matching_grants_refuse(family: EmbeddedStore, clock: Clock, ehr: Caller) -> None:
    await ehr.store(a_grant("second", of="kit", to="mother", sections=["visits"]))
    assert await kit_of(family, clock) is None
    await ehr.store(a_grant("second", of="kit", to="mother", status="inactive"))
    assert await kit_of(family, clock) is not None


async def test_a_second_grant_that_begins_later_ends_the_first_in_time(
    family: EmbeddedStore, clock: Clock, ehr: Caller
) -> None:
    await ehr.store(a_grant("second", of="kit", to="mother", start="2030-06-01"))
    found = await kit_of(family, clock)
    assert found is not None
    assert found.until is not None
    clock.now = found.until - 1
    assert await kit_of(family, clock) is not None
    clock.now = found.until
    assert await kit_of(family, clock) is None


async def test_an_expired_or_future_or_ended_grant_is_none(
    family: EmbeddedStore, clock: Clock, ehr: Caller
) -> None:
    for period in ({"end": "2030-03-16"}, {"start": "2030-03-18"}):
        await ehr.store(a_grant("grant", of="kit", to="mother", **period))
        assert await kit_of(family, clock) is None
    await ehr.store(a_grant("grant", of="kit", to="mother", end="2030-03-17"))
    assert await kit_of(family, clock) is not None
    clock.advance(86_400)
    assert await kit_of(family, clock) is None


async def test_the_end_is_midnight_where_the_practice_is(
    family: EmbeddedStore, clock: Clock, ehr: Caller
) -> None:
    await keep(family, a_practice(DERM, zone="Pacific/Auckland"))
    await ehr.store(a_grant("grant", of="kit", to="mother", end="2030-03-18"))
    clock.now = 1_900_062_000.0  # 2030-03-18T11:00:00Z: midnight in Auckland
    assert await kit_of(family, clock) is None
    clock.now -= 1
    assert await kit_of(family, clock) is not None


async def test_deleting_the_consent_ends_the_grant(
    family: EmbeddedStore, clock: Clock, ehr: Caller
) -> None:
    assert (await ehr.delete("Consent/grant")).status == 204
    assert await kit_of(family, clock) is None


async def test_a_consent_by_a_writer_without_the_permission_grants_nothing(
    family: EmbeddedStore, clock: Clock, ehr: Caller
) -> None:
    await ehr.delete("Consent/grant")
    plain = Caller(ehr.portal, an_ehr(DERM, "label"))
    await plain.store(a_grant("planted", of="kit", to="mother"))
    assert await kit_of(family, clock) is None
    # Nor does it begin to when such a writer touches it again.
    await plain.store(a_grant("planted", of="kit", to="mother", sections=["visits"]))
    assert await kit_of(family, clock) is None


async def test_a_standing_grant_is_not_changed_without_the_permission(
    family: EmbeddedStore, clock: Clock, ehr: Caller
) -> None:
    plain = Caller(ehr.portal, an_ehr(DERM, "label"))
    wider: dict[str, Any] = a_grant("grant", of="kit", to="mother", sections=["billing"])
    assert (await plain.put(wider)).status == 403
    assert (await plain.delete("Consent/grant")).status == 403
    found = await kit_of(family, clock)
    assert found is not None
    assert sorted(found.sections or ()) == ["messages", "results"]


async def test_a_grant_at_another_practice_with_the_same_ids_opens_nothing_here(
    family: EmbeddedStore, clock: Clock, ehr: Caller, other_ehr: Caller
) -> None:
    await ehr.delete("Consent/grant")
    await other_ehr.store(
        a_related_person("mother", of="kit"), a_grant("grant", of="kit", to="mother")
    )
    assert await kit_of(family, clock) is None


async def test_a_proxy_who_is_also_the_patient_uses_their_own_record(
    family: EmbeddedStore, clock: Clock, ehr: Caller
) -> None:
    await ehr.store(
        a_related_person("self", of="ada"),
        a_grant("odd", of="ada", to="self", sections=["billing"]),
        a_person("ada", links=["RelatedPerson/self", "Patient/ada"]),
    )
    account = await family.get(Account, "ada")
    assert account is not None
    found = await Relations(family, clock).record_of(account, DERM, "Patient/ada")
    assert found is not None
    assert (found.relation, found.sections) == ("self", None)


def test_the_clock_of_these_tests_stands_on_the_17th_of_march_2030() -> None:
    assert START == 1_900_000_000.0


async def test_a_practice_that_is_closed_shows_no_record_and_no_staff_access(
    family: EmbeddedStore, clock: Clock
) -> None:
    """Another practice helped to recover the account; this one's own proof is not repeated yet."""
    account = await family.get(Account, "ada")
    assert account is not None
    closed = msgspec.structs.replace(account, closed_at=(DERM,))
    await family.transact(lambda transaction: transaction.put(closed))
    assert await records(family, clock) == ("Patient/ada-f",)
    assert await kit_of(family, clock) is None
    relations = Relations(family, clock)
    assert await relations.staff_at(closed, DERM) is None
    assert [one.practice for one in await relations.staff_of(closed)] == []
