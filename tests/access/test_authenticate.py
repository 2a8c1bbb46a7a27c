"""From a bearer token to a caller; revocation bites on the next request."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from fhir_portal.access.authenticate import Callers
from fhir_portal.access.context import AuthContext
from fhir_portal.accounts.account import Account
from fhir_portal.embedded.store import EmbeddedStore
from fhir_portal.fhir.errors import Unauthenticated
from fhir_portal.smart.client import Client
from fhir_portal.smart.token import AccessToken, token_hash
from tests.builders import (
    DERM,
    START,
    Caller,
    Clock,
    a_client,
    a_communication,
    a_grant,
    a_patient,
    a_person,
    a_portal,
    a_proxy,
    a_related_person,
    an_access_token,
    an_ehr,
    bearer_of,
    changed,
    keep,
    oneself,
)


@pytest.fixture
async def callers(family: EmbeddedStore, clock: Clock) -> Callers:
    own = changed(an_access_token("own", oneself("ada")), account="ada")
    proxy = changed(an_access_token("proxy", a_proxy("kit", "mother")), account="ada")
    backend = a_client("ehr-of-dermatology", permissions=("label",))
    await keep(family, own, proxy, backend, an_access_token("backend", an_ehr()))
    return Callers(family, clock)


def sections(auth: AuthContext) -> list[str]:
    assert auth.record is not None
    return sorted(auth.record.sections or ())


async def refuses(callers: Callers, name: str) -> str:
    with pytest.raises(Unauthenticated) as refusal:
        await callers.of(bearer_of(name))
    return str(refusal.value)


async def test_a_token_stands_for_what_the_stores_say_now(callers: Callers) -> None:
    own = await callers.of(bearer_of("own"))
    assert (own.patient, own.is_self, own.practice) == ("ada", True, DERM)
    proxy = await callers.of(bearer_of("proxy"))
    assert (proxy.patient, proxy.fhir_user) == ("kit", "RelatedPerson/mother")
    assert sections(proxy) == ["messages", "results"]
    ehr = await callers.of(bearer_of("backend"))
    assert (ehr.context, ehr.record, ehr.permissions) == ("system", None, frozenset({"label"}))
    assert ehr.token == token_hash(bearer_of("backend"))


@pytest.mark.parametrize(
    "bearer", ["", "x", "no-such-token-at-all-here", "' OR '1'='1' -- aaaaaaaaaaaaa", "a" * 5_000]
)
async def test_what_is_no_token_is_refused(callers: Callers, bearer: str) -> None:
    with pytest.raises(Unauthenticated):
        await callers.of(bearer)


async def test_the_stored_hash_is_not_a_token(callers: Callers) -> None:
    with pytest.raises(Unauthenticated):
        await callers.of(token_hash(bearer_of("own")))


async def _delete_token(store: EmbeddedStore, name: str) -> None:
    async def work(transaction: Any) -> None:
        await transaction.delete(AccessToken, token_hash(bearer_of(name)))

    await store.transact(work)


async def test_deleting_the_token_ends_it_on_the_next_request(
    callers: Callers, family: EmbeddedStore
) -> None:
    await callers.of(bearer_of("own"))
    await _delete_token(family, "own")
    await refuses(callers, "own")
    await callers.of(bearer_of("proxy"))


Change = Any
ENDINGS: dict[str, Change] = {
    "the account is disabled": lambda store, _: _put(store, Account, "ada", disabled=True),
    "the client is disabled": lambda store, _: _put(store, Client, "app", disabled=True),
    "the grant is withdrawn": lambda _, ehr: ehr.store(
        a_grant("grant", of="kit", to="mother", status="inactive")
    ),
    "the grant is deleted": lambda _, ehr: ehr.delete("Consent/grant"),
    "the related person is inactive": lambda _, ehr: ehr.store(
        a_related_person("mother", of="kit", active=False)
    ),
    "the link is taken away": lambda _, ehr: ehr.store(a_person("ada", links=["Patient/ada"])),
    "the link is no longer proven": lambda _, ehr: ehr.store(
        a_person("ada", links=["Patient/ada", "RelatedPerson/mother"], assurance="level1")
    ),
    "the patient is deleted": lambda _, ehr: ehr.delete("Patient/kit"),
    "another grant takes its place": lambda _, ehr: _replaced(ehr),
    "a second grant makes it unclear": lambda _, ehr: ehr.store(
        a_grant("second", of="kit", to="mother")
    ),
}


async def _put(store: EmbeddedStore, kind: Any, key: str, **changes: Any) -> None:
    await keep(store, changed(await store.get(kind, key), **changes))


async def _replaced(ehr: Caller) -> None:
    await ehr.delete("Consent/grant")
    await ehr.store(a_grant("next", of="kit", to="mother", sections=["billing"]))


@pytest.mark.parametrize("ending", ENDINGS)
async def test_rights_end_on_the_next_request_at_every_worker(
    callers: Callers, family: EmbeddedStore, clock: Clock, ehr: Caller, ending: str
) -> None:
    elsewhere = Callers(family, clock)
    before = await callers.of(bearer_of("proxy"))
    await elsewhere.of(bearer_of("proxy"))
    await ENDINGS[ending](family, ehr)
    words = {await refuses(callers, "proxy"), await refuses(elsewhere, "proxy")}
    assert len(words) == 1

    async def write(transaction: Any) -> None:
        await callers.still(transaction, before)

    with pytest.raises(Unauthenticated):
        await family.transact(write)


async def test_every_refusal_has_the_same_words(
    callers: Callers, family: EmbeddedStore, clock: Clock
) -> None:
    unknown = await refuses(callers, "unknown")
    await _put(family, Account, "ada", disabled=True)
    disabled = await refuses(callers, "own")
    clock.now = START + 2e8
    expired = await refuses(callers, "backend")
    assert unknown == disabled == expired


async def test_narrowing_a_grant_narrows_the_next_request(callers: Callers, ehr: Caller) -> None:
    before = await callers.of(bearer_of("proxy"))
    await ehr.store(a_grant("grant", of="kit", to="mother", sections=["results"]))
    after = await callers.of(bearer_of("proxy"))
    assert sections(before) == ["messages", "results"]
    assert sections(after) == ["results"]


async def test_a_token_expires_at_its_instant(
    callers: Callers, family: EmbeddedStore, clock: Clock
) -> None:
    token = changed(an_access_token("short", oneself("ada"), expires=START + 10), account="ada")
    await keep(family, token)
    await callers.of(bearer_of("short"))
    clock.advance(9.999)
    await callers.of(bearer_of("short"))
    clock.advance(0.001)
    await refuses(callers, "short")


async def test_a_grant_that_ends_ends_the_token_without_any_write(
    callers: Callers, ehr: Caller, clock: Clock
) -> None:
    await ehr.store(a_grant("grant", of="kit", to="mother", end="2030-03-17"))
    await callers.of(bearer_of("proxy"))
    clock.now = 1_900_022_400.0  # 2030-03-18T00:00:00Z
    await refuses(callers, "proxy")


async def test_what_is_remembered_is_used_only_while_nothing_was_committed(
    callers: Callers, family: EmbeddedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads = 0
    get = family.get

    async def counting(kind: Any, key: str) -> Any:
        nonlocal reads
        reads += 1
        return await get(kind, key)

    monkeypatch.setattr(family, "get", counting)
    first = await callers.of(bearer_of("own"))
    looked = reads
    assert looked > 0
    assert await callers.of(bearer_of("own")) is first
    assert reads == looked
    await keep(family, a_client("unrelated"))
    assert await callers.of(bearer_of("own")) == first
    assert reads > looked


async def test_a_commit_while_looking_is_not_missed(
    callers: Callers, family: EmbeddedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The token is revoked between the look-up of the token and that of the account."""
    get = family.get

    async def slow(kind: Any, key: str) -> Any:
        found = await get(kind, key)
        if kind is AccessToken and found is not None:
            await _delete_token(family, "own")
        return found

    monkeypatch.setattr(family, "get", slow)
    await refuses(callers, "own")


class Restless:
    """A store that is far away, in which somebody commits whenever the loop turns.

    Each reading of the epoch gives way to the other tasks, as a question to a server does; with
    ``moving`` the epoch has moved on by the next reading.
    """

    def __init__(self, store: EmbeddedStore, *, moving: bool) -> None:
        self.store = store
        self.moving = moving
        self.count = 0
        self.looks = 0

    async def epoch(self) -> int:
        self.count += self.moving
        seen = self.count
        await asyncio.sleep(0)
        return seen

    async def get(self, kind: Any, key: str) -> Any:
        await asyncio.sleep(0)
        self.looks += kind is AccessToken
        return await self.store.get(kind, key)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.store, name)


async def test_a_caller_is_found_although_others_never_stop_committing(
    callers: Callers, family: EmbeddedStore, clock: Clock
) -> None:
    restless = Restless(family, moving=True)
    there = Callers(restless, clock)
    first = await there.of(bearer_of("proxy"))
    assert first == await callers.of(bearer_of("proxy"))
    assert restless.looks == 2  # both found the same, so that was true between them
    await there.of(bearer_of("proxy"))
    assert restless.looks == 4  # nothing of it was remembered
    await there.confirm(first)
    await _delete_token(family, "proxy")
    await refuses(there, "proxy")
    with pytest.raises(Unauthenticated):
        await there.confirm(first)


@pytest.mark.usefixtures("callers")
async def test_what_was_found_before_the_last_commit_saves_a_second_look_only(
    family: EmbeddedStore, clock: Clock, ehr: Caller
) -> None:
    restless = Restless(family, moving=False)
    there = Callers(restless, clock)
    await there.of(bearer_of("proxy"))
    restless.moving = True
    await there.of(bearer_of("proxy"))
    assert restless.looks == 2
    await ehr.store(a_grant("grant", of="kit", to="mother", sections=["results"]))
    assert sections(await there.of(bearer_of("proxy"))) == ["results"]


@pytest.mark.usefixtures("callers")
async def test_an_answer_is_never_taken_from_another_epoch(
    family: EmbeddedStore, clock: Clock
) -> None:
    """A request that read the epoch before a commit ends after one that read it later."""
    restless = Restless(family, moving=False)
    there = Callers(restless, clock)
    before = await there.of(bearer_of("own"))
    slow = asyncio.create_task(there.of(bearer_of("proxy")))
    await asyncio.sleep(0)  # it has asked for the epoch
    await _delete_token(family, "own")
    restless.count += 1
    await refuses(there, "own")
    await slow
    await refuses(there, "own")
    with pytest.raises(Unauthenticated):
        await there.confirm(before)


async def test_only_so_many_answers_are_remembered(
    callers: Callers, family: EmbeddedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fhir_portal.access.authenticate._REMEMBERED", 2)
    names = [f"app-{number}" for number in range(5)]
    await keep(family, *(an_access_token(name, an_ehr()) for name in names))
    found = [await callers.of(bearer_of(name)) for name in names]
    assert await callers.of(bearer_of(names[-1])) is found[-1]
    assert await callers.of(bearer_of(names[0])) is not found[0]
    assert await callers.of(bearer_of(names[0])) == found[0]


async def test_a_token_for_a_relation_that_changed_is_refused(
    callers: Callers, family: EmbeddedStore
) -> None:
    for changes in (
        {"practice": "family-medicine"},
        {"fhir_user": "RelatedPerson/father"},
        {"fhir_user": "Patient/kit"},
        {"grant": None},
        {"patient": "Patient/bo"},
        {"patient": None},
        {"account": None},
        {"account": "nobody"},
        {"client_id": "unknown"},
    ):
        token = an_access_token("odd", a_proxy("kit", "mother"))
        token = changed(token, **{"account": "ada"} | changes)
        await keep(family, token)
        await refuses(callers, "odd")


async def test_a_write_by_rights_that_ended_meanwhile_stores_nothing(
    callers: Callers, family: EmbeddedStore, clock: Clock
) -> None:
    portal = a_portal(family, clock)
    before = Caller(portal, await callers.of(bearer_of("own")))
    await _delete_token(family, "own")
    answer = await before.post(a_communication(of="ada"))
    assert answer.status == 401
    assert (await Caller(portal, an_ehr()).get("Communication")).entries == []


async def test_an_operator_without_a_token_is_not_asked_again(
    callers: Callers, family: EmbeddedStore
) -> None:
    operator: AuthContext = an_ehr()
    await family.transact(lambda transaction: callers.still(transaction, operator))


async def test_a_change_of_the_patient_does_not_disturb_the_caller(
    callers: Callers, ehr: Caller
) -> None:
    await callers.of(bearer_of("own"))
    await ehr.store(a_patient("bo", family="Other"))
    await callers.of(bearer_of("own"))
