"""On every store: passcodes that are tried at the same moment are all counted."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from fhir_portal.accounts.throttle import TooManyAttempts
from fhir_portal.operations.open_share import WrongPasscode
from fhir_portal.resources.store import PortalStore
from fhir_portal.smart.sharing import TRIES, ShareLink, ShareView
from tests.builders import (
    DERM,
    Caller,
    Clock,
    a_client,
    a_patient,
    a_person,
    a_portal,
    a_practice,
    an_account,
    an_ehr,
    keep,
    oneself,
)
from tests.operations.sharing import HERE, a_link, shares_of, signed_in

pytestmark = pytest.mark.requirement("portal", "S2-15")


async def test_tries_at_the_same_moment_are_all_counted(store: PortalStore, clock: Clock) -> None:
    """Right ones too: each is a view, and none of them costs a try."""
    portal = a_portal(store, clock)
    await keep(store, a_practice(), a_client("app"), an_account("ada", f"{DERM}/Person/ada"))
    ehr = Caller(portal, an_ehr())
    await ehr.store(a_patient("ada"), a_person("ada", links=["Patient/ada"]))
    ada = await signed_in(portal, replace(oneself(), account="ada"), family="")
    link, shares = await a_link(ada), shares_of(portal)

    async def comes(passcode: str, address: str = HERE) -> str:
        try:
            await shares.open(link.handle, passcode, recipient="x", way="app", address=address)
        except WrongPasscode:
            return "wrong"
        except TooManyAttempts:
            return "waits"
        return "open"

    right = await asyncio.gather(*(comes(link.passcode) for _ in range(TRIES)))
    assert right == ["open"] * TRIES
    found = await store.get(ShareLink, link.key)
    assert found is not None
    assert (found.failed, found.views) == (0, TRIES)
    (view,) = await store.find(ShareView, "link", link.key)
    assert view.times == TRIES
    wrong = await asyncio.gather(*(comes("22222222") for _ in range(2 * TRIES)))
    assert (wrong.count("wrong"), wrong.count("waits")) == (TRIES, TRIES)
    assert await comes(link.passcode) == "waits"
    assert await comes(link.passcode, "198.51.100.7") == "open"
