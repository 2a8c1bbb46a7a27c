"""An app with a list of records is told of its end at a practice whose staff can see it."""

from __future__ import annotations

from collections import Counter
from typing import Any

from fhir_portal.notify.outbox import OutboxMessage
from fhir_portal.smart.revocation import revoke_family
from fhir_portal.smart.token import TokenFamily, grant_id
from tests.smart.several import a_family, listed
from tests.smart.world import World


async def test_the_message_about_a_list_is_of_a_practice_in_it() -> None:
    """Planted fault: it has no practice, so that nobody sees whether it arrived."""
    world = await World.begin()
    await a_family(world)
    app = await world.public_app(backchannel_revocation_uri="https://app.example/events")
    await listed(app)
    families = await world.store.every(TokenFamily)
    (of_all,) = [family for family in families if family.is_list]

    async def end(transaction: Any) -> None:
        await revoke_family(transaction, of_all.key, now=world.clock(), because="by-person")

    await world.store.transact(end)
    messages = await world.store.every(OutboxMessage)
    assert all(message.practice for message in messages)
    told = Counter(message.values["grant_id"] for message in messages)
    assert told == {grant_id(family.key): 1 for family in families}
    (about_all,) = [one for one in messages if one.values["grant_id"] == grant_id(of_all.key)]
    assert about_all.practice == "family"  # the first of the two
    assert await world.store.find(OutboxMessage, "practice", "") == []
    world.close()
