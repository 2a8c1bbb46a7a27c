"""``fhir-portal token inspect``: what an operator is told, and what nobody is shown."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from fhir_portal.commands import token as command
from fhir_portal.embedded.store import EmbeddedStore
from fhir_portal.settings import load
from fhir_portal.smart.client import Client
from fhir_portal.smart.keys import ServerKeys, load_server_keys
from fhir_portal.smart.token import AccessToken, RefreshToken, TokenFamily, grant_id, token_hash
from tests.builders import (
    DERM,
    START,
    Caller,
    Clock,
    a_client,
    a_patient,
    a_person,
    a_portal,
    a_practice,
    an_access_token,
    an_account,
    an_ehr,
    bearer_of,
    changed,
    keep,
    oneself,
)
from tests.commands.running import refused, run, told

HANDLE = b"0123456789abcdef"


class Place:
    """A store in a file, with Ada, her app and her EHR, and a clock that the command looks at."""

    def __init__(self, file: Path, clock: Clock) -> None:
        self.file = file
        self.clock = clock
        self.keys: ServerKeys

    async def build(self) -> None:
        store = EmbeddedStore.open(str(self.file), clock=self.clock)
        self.keys = await load_server_keys(
            store, load().secret_key(), now=START, random=lambda length: b"r" * length
        )
        ehr = Caller(a_portal(store, self.clock), an_ehr())
        await ehr.store(a_patient("ada"), a_person("ada", links=["Patient/ada"]))
        own = changed(an_access_token("own", oneself("ada")), account="ada", expires=START + 900)
        await keep(
            store,
            a_practice(DERM),
            a_client("app", name="Heart Diary"),
            a_client("ehr-of-dermatology"),
            an_account("ada", f"{DERM}/Person/ada"),
            own,
            an_access_token("backend", an_ehr()),
            self.family(),
        )
        await store.aclose()

    def family(self, **changes: Any) -> TokenFamily:
        family = TokenFamily(
            key=RefreshToken.derive(self.keys, HANDLE, 0).family,
            expires=START + 86_400,
            issued=START,
            rotated=START,
            client_id="app",
            account="ada",
            patient="Patient/ada",
            practice=DERM,
            fhir_user="Patient/ada",
            grant=None,
            scope="openid offline_access patient/*.rs",
            generation=2,
        )
        return msgspec.structs.replace(family, **changes)

    def refresh(self, generation: int = 2) -> str:
        return str(RefreshToken.derive(self.keys, HANDLE, generation))

    def put(self, *records: Any) -> None:
        async def work() -> None:
            store = EmbeddedStore.open(str(self.file), clock=self.clock)
            await keep(store, *records)
            await store.aclose()

        asyncio.run(work())

    def rows(self) -> list[Any]:
        async def work() -> list[Any]:
            store = EmbeddedStore.open(str(self.file), clock=self.clock)
            found: list[Any] = []
            for kind in (AccessToken, TokenFamily, Client):
                found += await store.every(kind)
            await store.aclose()
            return found

        return asyncio.run(work())


@pytest.fixture
def place(own_store: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> Place:
    monkeypatch.setattr(command, "time", SimpleNamespace(time=clock))
    place = Place(own_store, clock)
    asyncio.run(place.build())
    return place


def inspected(text: str, *, in_force: bool) -> dict[str, Any]:
    found = told("token", "inspect", given=text, status=0 if in_force else 1)
    assert found["in_force"] is in_force
    assert ("why_not" in found) is not in_force
    return dict(found)


@pytest.mark.usefixtures("place")
def test_an_access_token_is_told_with_whose_it_is() -> None:
    assert inspected(f"{bearer_of('own')}\n", in_force=True) == {
        "token": "access token",
        "in_force": True,
        "client_id": "app",
        "client_name": "Heart Diary",
        "context": "patient",
        "scope": "openid fhirUser patient/*.cruds",
        "practice": DERM,
        "practice_name": "Dermatology",
        "username": "ada",
        "sub": "ada",
        "fhirUser": "Patient/ada",
        "patient": "Patient/ada",
        "grant_id": grant_id("family"),
        "token_type": "Bearer",
        "issued": "2030-03-17T17:46:40+00:00",
        "expires": "2030-03-17T18:01:40+00:00",
    }


@pytest.mark.usefixtures("place")
def test_a_backends_token_is_nobodys() -> None:
    found = inspected(bearer_of("backend"), in_force=True)
    assert (found["context"], found["practice"]) == ("system", DERM)
    assert not {"sub", "username", "patient", "fhirUser", "grant_id"} & found.keys()


def test_a_refresh_token_is_told_with_its_use(place: Place) -> None:
    found = inspected(place.refresh(), in_force=True)
    assert (found["token"], found["use"]) == ("refresh token", 3)
    assert (found["username"], found["expires"]) == ("ada", "2030-03-18T17:46:40+00:00")
    assert found["grant_id"] == grant_id(place.family().key)


Change = Callable[[Place], None]
NOT_IN_FORCE: list[tuple[str, str, Change, str]] = [
    ("own", "over", lambda place: place.clock.advance(900), "expired at 2030-03-17T18:01:40"),
    ("own", "shut", lambda place: place.put(a_client("app", disabled=True)), "client is disabled"),
    (
        "own",
        "waits",
        lambda place: place.put(a_client("app", awaits_review=True)),
        "waits for a review",
    ),
    (
        "own",
        "account",
        lambda place: place.put(an_account("ada", f"{DERM}/Person/ada", disabled=True)),
        "account is disabled",
    ),
    ("own", "right", lambda place: place.put(an_account("ada")), "right it was given by has ended"),
    ("refresh", "over", lambda place: place.clock.advance(86_400), "expired at 2030-03-18"),
    (
        "refresh",
        "ended",
        lambda place: place.put(place.family(ended=START, ended_because="by-person")),
        "ended at 2030-03-17T17:46:40+00:00: by-person",
    ),
    ("refresh", "repeat", lambda place: place.put(place.family(generation=3)), "a moment ago"),
    (
        "refresh",
        "used",
        lambda place: place.put(place.family(generation=3, rotated=START - 31)),
        "another took its place",
    ),
    (
        "refresh",
        "used long ago",
        lambda place: place.put(place.family(generation=4)),
        "another took its place",
    ),
    ("refresh", "right", lambda place: place.put(an_account("ada")), "right it was given by"),
    (
        "backend",
        "waits",
        lambda place: place.put(a_client("ehr-of-dermatology", awaits_review=True)),
        "waits for a review",
    ),
]


@pytest.mark.parametrize(
    ("which", "change", "words"),
    [(which, change, words) for which, _, change, words in NOT_IN_FORCE],
    ids=[f"{which}-{name}" for which, name, _, _ in NOT_IN_FORCE],
)
def test_why_a_token_is_refused_is_said(
    place: Place, which: str, change: Change, words: str
) -> None:
    """Planted fault: what is in the store is in force."""
    text = place.refresh() if which == "refresh" else bearer_of(which)
    inspected(text, in_force=True)
    change(place)
    assert words in inspected(text, in_force=False)["why_not"]


def test_staff_are_told_that_their_app_is_not_approved(place: Place) -> None:
    own = changed(
        an_access_token("own", oneself("ada")),
        account="ada",
        context="user",
        patient=None,
        fhir_user="Practitioner/ada",
    )
    place.put(own)
    assert "not approved" in inspected(bearer_of("own"), in_force=False)["why_not"]


def test_what_is_no_token_of_ours_is_told_as_nothing(place: Place) -> None:
    """Planted fault: a refresh token is known by its handle alone."""
    forged = RefreshToken(HANDLE, 2, b"p" * 32)
    for text in (
        "x" * 43,
        token_hash(bearer_of("own")),
        place.family().key,
        str(forged),
        str(RefreshToken.derive(place.keys, b"another handle..", 0)),
    ):
        found = inspected(text, in_force=False)
        assert found.keys() == {"token", "in_force", "why_not"}
        assert found["token"] == "unknown"


def test_to_inspect_a_token_does_not_use_it(place: Place) -> None:
    before = place.rows()
    for text in (bearer_of("own"), place.refresh(), place.refresh(0)):
        run("token", "inspect", given=text)
    assert place.rows() == before


def test_no_secret_is_shown(place: Place) -> None:
    """Planted fault: the key of the family, from which its tokens are found, is printed."""
    for text in (bearer_of("own"), place.refresh()):
        for options in ((), ("--json",)):
            output = run("token", "inspect", *options, given=text).output
            assert "access" in output
            for secret in (text, token_hash(text), place.family().key, HANDLE.hex()):
                assert secret not in output


@pytest.mark.usefixtures("place")
def test_a_token_on_the_command_line_is_not_taken() -> None:
    """Planted fault: it is an argument, for everybody to read in the list of processes."""
    words = refused("token", "inspect", bearer_of("own"))
    assert "list of processes" in words
    assert bearer_of("own") not in words


@pytest.mark.parametrize("given", ["", " \n", "x" * 5000, "\u2603" * 20])
@pytest.mark.usefixtures("own_store")
def test_nothing_to_inspect_is_said(given: str) -> None:
    assert "no token" in refused("token", "inspect", given=given)
