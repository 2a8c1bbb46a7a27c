"""Links by which an app shares a record end with the app's access, at each process at once.

What `tests.end_to_end.revocation` tries on tokens is tried here on a link that was made with one:
each process has answered with the link's manifest, and given the address of a file. Then access is
ended, and each is asked for both.
"""

from __future__ import annotations

import base64
import json
import time
from collections import Counter
from typing import Any, Final
from urllib.parse import urlsplit

from fhir_portal.consent.sections import SECTION_SYSTEM
from fhir_portal.smart.sharing import ShareLink
from tests.end_to_end.demo import forget_tries
from tests.end_to_end.processes import Connection, Reply, request
from tests.end_to_end.revocation import (
    GRANT,
    PATIENT,
    SCOPE,
    WAYS,
    Tokens,
    Way,
    World,
    narrow_types,
)

ACTION: Final = "http://terminology.hl7.org/CodeSystem/consentaction"
SHARING: Final = f"{SCOPE} patient/DocumentReference.cr"
LINK_WAYS: Final = tuple(way for way in WAYS if way.end is not narrow_types)
"""All but the one that leaves the app something of the record: the link shows that, then."""


class Shared:
    """A link that the app made, as whoever was given it has it."""

    def __init__(self, reply: Reply) -> None:
        assert reply.status == 200, reply.body
        found = {
            one["name"]: next(value for name, value in one.items() if name.startswith("value"))
            for one in reply.json()["parameter"]
        }
        text = found["shlink"].removeprefix("shlink:/")
        payload = json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
        self.passcode = found["passcode"]
        self.path = urlsplit(payload["url"]).path

    async def manifest(self, at: Connection) -> Reply:
        """Ask a process for the manifest, with no file in it."""
        asked = {"recipient": "Dr. Abel", "passcode": self.passcode, "embeddedLengthMax": 0}
        return await at.ask(request("POST", self.path, resource=asked))


async def made(world: World, tokens: Tokens) -> Shared:
    """Have the app make a link; earlier ones are forgotten, for only so many are made in a day."""

    async def forget(transaction: Any) -> None:
        for one in await transaction.every(ShareLink):
            await transaction.delete(ShareLink, one.key)

    await world.operator.transact(forget)
    tree = {"resourceType": "Parameters"}
    asked = request("POST", f"/fhir/{PATIENT}/$share-link", token=tokens.access, resource=tree)
    return Shared(await world.at.ask(asked))


def lets_share(consent: dict[str, Any]) -> None:
    """Have a grant let its holder act in the documents."""
    listed = consent["provision"]["provision"]
    coding = {"system": SECTION_SYSTEM, "code": "documents"}
    actions = [{"system": ACTION, "code": code} for code in ("access", "correct")]
    others = [one for one in listed if one["code"][0]["coding"][0]["code"] != "documents"]
    documents = {
        "type": "permit",
        "action": [{"coding": [one]} for one in actions],
        "code": [{"coding": [coding]}],
    }
    consent["provision"]["provision"] = [*others, documents]


async def try_links(world: World, way: Way, rounds: int) -> Counter[tuple[str, int]]:
    """End access in one way again and again; what each process says of the link then."""
    found: Counter[tuple[str, int]] = Counter()
    await world.as_ehr(lets_share, GRANT)
    for number in range(rounds):
        world.turn = number
        await forget_tries(world.operator)
        tokens = await world.tokens(scope=SHARING)
        link = await made(world, tokens)
        files = []
        for one, _ in world.held.values():
            reply = await link.manifest(one)
            assert reply.status == 200, reply.body
            files.append(urlsplit(reply.json()["files"][0]["location"]).path)
        await way.end(world, tokens)
        for (one, _), path in zip(world.held.values(), files, strict=True):
            found["manifest", (await link.manifest(one)).status] += 1
            found["file", (await one.ask(request("GET", path))).status] += 1
        if way.undo is not None:
            await way.undo(world)
            if way.ends and way.end.__name__ not in STAY_OPEN:
                found["after", (await link.manifest(world.at)).status] += 1
    return found


STAY_OPEN: Final = frozenset({"unlinked", "client_disabled", "sections_taken"})
"""What is undone by those opens tokens again, too, where it did not end them."""


async def run(world: World, rounds: int) -> None:
    """Try every way, and print what the processes said."""
    for way in LINK_WAYS:
        began = time.monotonic()
        counted = await try_links(world, way, rounds)
        print(f"link, {way.name}: {dict(counted)}; {time.monotonic() - began:.0f} s")
