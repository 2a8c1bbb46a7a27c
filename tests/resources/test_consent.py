"""What happens to tokens when the grant they were given under changes (DESIGN: the grant)."""

from __future__ import annotations

from typing import Any

import pytest

from fhir_portal.embedded.store import EmbeddedStore
from fhir_portal.smart.code import AuthorizationCode
from fhir_portal.smart.token import AccessToken, TokenFamily, token_hash
from tests.builders import (
    DERM,
    FAMILY,
    START,
    Caller,
    a_grant,
    a_patient,
    a_practice,
    a_proxy,
    a_related_person,
    an_access_token,
    bearer_of,
    changed,
    keep,
)

GRANT: dict[str, Any] = {"sections": ["results", "messages"], "act": ["messages"]}


@pytest.fixture
async def granted(store: EmbeddedStore, ehr: Caller, other_ehr: Caller) -> EmbeddedStore:
    """Kit's mother has one grant at either practice, of the same ids, and an app under each."""
    for caller, practice in ((ehr, DERM), (other_ehr, FAMILY)):
        await keep(store, a_practice(practice))
        await caller.store(a_patient("kit"), a_related_person("mother", of="kit"), a_grant(**GRANT))
        auth = a_proxy(practice=practice)
        assert auth.record is not None
        tokens: dict[str, Any] = {
            "expires": START + 1e8,
            "client_id": "app",
            "account": "mother",
            "practice": practice,
            "patient": "Patient/kit",
            "fhir_user": "RelatedPerson/mother",
            "grant": "Consent/grant",
            "scope": "patient/*.rs",
        }
        await keep(
            store,
            changed(an_access_token(practice, auth), family=practice),
            TokenFamily(key=practice, issued=START, rotated=START, **tokens),
            AuthorizationCode(
                key=practice,
                good_until=START + 1e8,
                redirect_uri="https://app.example/callback",
                code_challenge="",
                nonce=None,
                auth_time=START,
                **tokens,
            ),
        )
    return store


async def is_alive(store: EmbeddedStore, practice: str = DERM) -> bool:
    """Whether code, refresh token and access token are there; they go together."""
    family = await store.get(TokenFamily, practice)
    token = await store.get(AccessToken, token_hash(bearer_of(practice)))
    code = await store.get(AuthorizationCode, practice)
    assert family is not None
    alive = {family.ended is None, token is not None, code is not None}
    assert len(alive) == 1, (family, token, code)
    return alive.pop()


@pytest.mark.parametrize(
    "change",
    [
        {"status": "inactive"},
        {"modifierExtension": [{"url": "https://x.example", "valueBoolean": True}]},
        {"sections": ["results", "messages", "billing"]},
        {"act": ["messages", "results"]},
        {"end": "2041-01-01"},
        {"end": None},
        {"start": "2019-01-01"},
        {"to": "father"},
        {"of": "bo"},
    ],
    ids=str,
)
async def test_a_grant_that_ends_or_goes_further_ends_what_was_given_under_it(
    granted: EmbeddedStore, ehr: Caller, change: dict[str, Any]
) -> None:
    await ehr.store(a_patient("bo"), a_related_person("father", of="kit"))
    await ehr.store(a_grant(**GRANT | change))
    assert not await is_alive(granted)


async def test_a_deleted_grant_ends_what_was_given_under_it(
    granted: EmbeddedStore, ehr: Caller
) -> None:
    await ehr.delete("Consent/grant")
    assert not await is_alive(granted)
    family = await granted.get(TokenFamily, DERM)
    assert family is not None
    assert (family.ended, family.ended_because) == (START, "grant-ended")


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"dateTime": "2026-02-01T00:00:00Z"},
        {"sections": ["results"], "act": []},
        {"act": []},
        {"end": "2035-01-01"},
        {"start": "2021-01-01"},
    ],
    ids=str,
)
async def test_a_grant_that_gets_narrower_takes_its_tokens_along(
    granted: EmbeddedStore, ehr: Caller, change: dict[str, Any]
) -> None:
    await ehr.store(a_grant(**GRANT | change))
    assert await is_alive(granted)


async def test_a_grant_of_the_same_id_at_another_practice_is_another_one(
    granted: EmbeddedStore, ehr: Caller
) -> None:
    await ehr.delete("Consent/grant")
    assert await is_alive(granted, FAMILY)


async def test_what_was_taken_back_does_not_come_back_when_it_is_given_again(
    granted: EmbeddedStore, ehr: Caller
) -> None:
    await ehr.store(a_grant(**GRANT, status="inactive"))
    await ehr.store(a_grant(**GRANT))
    assert not await is_alive(granted)


async def test_a_change_that_is_undone_ends_nothing(granted: EmbeddedStore, ehr: Caller) -> None:
    answer = await ehr.put(a_grant(**GRANT, status="inactive"), if_match='W/"7"')
    assert answer.status == 412
    assert await is_alive(granted)
