"""Every way in which access ends or is narrowed bites on the next request at each process.

Downloads that are running end with it (`downloads`).

``python -m tests.end_to_end.revocation --rounds 50`` prints the figures. ``--place motor`` runs
them on MongoDB (`tests.places`). Before access ends, both processes have answered with the token,
so whatever they remember of it, they remember. At each of them a search has given a link to its
next page, and a batch has arrived but for its last byte. Then access is ended, by a request to one
of them in turn or by an operator's own process; and each process is asked by all three.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import hashlib
import secrets
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode, urlsplit

import msgspec
from joserfc import jwt
from joserfc.jwk import import_key

from fhir_portal.accounts.account import Account, account_named, enable_account
from fhir_portal.accounts.credentials import Passwords
from fhir_portal.resources.store import PortalStore
from fhir_portal.smart.client import add_client, disable_client, enable_client
from fhir_portal.smart.revocation import disable_account, revoke_where
from fhir_portal.smart.token import AccessToken, RefreshToken, TokenFamily
from tests.end_to_end.demo import CALLBACK, EHR, Demo, forget_tries
from tests.end_to_end.person import PASSWORD, Person, parameters_of
from tests.end_to_end.processes import Connection, Reply, connections, request
from tests.end_to_end.tab import Tab, form_of
from tests.places import Place, ask_for_place, asked_place

PERSON, PATIENT = "petra", "Patient/silas"
"""A mother and her son: she has his record by a grant, which the practice can take back."""
GRANT, HER_PERSON = "Consent/silas-mother-grant", "Person/petra"
PRACTICE: Final = "marrowbrook"
SCOPE: Final = (
    "launch/patient openid fhirUser offline_access patient/Patient.rs patient/Observation.rs"
)
WRITER: Final = "Patient/teodor"
WRITING: Final = "launch/patient openid fhirUser offline_access patient/QuestionnaireResponse.crus"
ENTRIES: Final = 100
_ASSERTION: Final = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
_DAY: Final = 86_400
APP_SCOPE: Final = (
    f"{SCOPE} patient/QuestionnaireResponse.crus patient/DocumentReference.cr patient/*.rs"
)


@dataclass(frozen=True)
class Tokens:
    """What one consent gave the app, and what it was exchanged for."""

    access: str
    refresh: str
    code: str
    verifier: str

    @property
    def family(self) -> str:
        """The key under which the server keeps what the consent gave."""
        presented = RefreshToken.parse(self.refresh)
        assert presented is not None
        return presented.family


@dataclass
class Asked:
    """What one process had been asked when access ended, and the connections for the rest."""

    read: Connection
    held: Connection
    following: str
    last_byte: bytes


@dataclass
class World:
    """A demo, an app that Petra uses, and everybody who may end that."""

    demo: Demo
    held: dict[int, list[Connection]]
    operator: PortalStore
    """The store in this process, which is none of the server's."""
    app: str = field(default_factory=lambda: f"revocation-{secrets.token_hex(4)}")
    turn: int = 0
    sections: Any = None

    @property
    def at(self) -> Connection:
        """A connection to the process whose turn it is to be asked to end access."""
        return list(self.held.values())[self.turn % len(self.held)][0]

    async def tokens(
        self, username: str = PERSON, record: str = PATIENT, scope: str = SCOPE
    ) -> Tokens:
        """Have somebody, by default Petra, allow the app everything it asks for."""
        verifier = secrets.token_urlsafe(48)
        digest = hashlib.sha256(verifier.encode()).digest()
        query = {
            "response_type": "code",
            "client_id": self.app,
            "redirect_uri": CALLBACK,
            "scope": scope,
            "state": "state",
            "aud": self.demo.fhir,
            "code_challenge": base64.urlsafe_b64encode(digest).rstrip(b"=").decode(),
            "code_challenge_method": "S256",
        }
        address = f"{self.demo.server.base}/oauth/authorize?{urlencode(query)}"
        with Person(username) as person:
            callback = await asyncio.to_thread(
                person.visit, address, back_to=CALLBACK, record=record
            )
        code = parameters_of(callback)["code"]
        answered = await self.token_request(
            grant_type="authorization_code",
            code=code,
            redirect_uri=CALLBACK,
            code_verifier=verifier,
        )
        return Tokens(answered["access_token"], answered["refresh_token"], code, verifier)

    async def token_request(self, **form: str) -> dict[str, Any]:
        """Ask the token endpoint as the app; it must answer with tokens."""
        sent = request("POST", "/oauth/token", form={"client_id": self.app, **form})
        reply = await self.at.ask(sent)
        assert reply.status == 200, reply.body
        return dict(reply.json())

    async def refused(self, **form: str) -> None:
        """Ask the token endpoint as the app for what it does not get."""
        sent = request("POST", "/oauth/token", form={"client_id": self.app, **form})
        reply = await self.at.ask(sent)
        assert reply.json()["error"] == "invalid_grant", reply.body

    async def signed_in(self, username: str = PERSON) -> Tab:
        """Somebody's browser, by default Petra's, signed in."""
        tab = Tab()
        await tab.sign_in(self.at, username)
        return tab

    async def petra(self) -> Account:
        """Her account."""
        found = await account_named(self.operator, PERSON)
        assert found is not None
        return found

    async def ehr_token(self) -> str:
        """A token of the practice's EHR."""
        key = import_key(self.demo.client(EHR)["private_jwk"])
        claims = {
            "iss": EHR,
            "sub": EHR,
            "aud": f"{self.demo.server.base}/oauth/token",
            "exp": int(time.time()) + 240,
            "jti": secrets.token_hex(16),
        }
        header = {"alg": "ES384", "typ": "JWT", "kid": key.kid}
        form = {
            "grant_type": "client_credentials",
            "scope": "system/*.cruds",
            "client_assertion_type": _ASSERTION,
            "client_assertion": jwt.encode(header, claims, key, algorithms=["ES384"]),
        }
        reply = await self.at.ask(request("POST", "/oauth/token", form=form))
        return str(reply.json()["access_token"])

    async def as_ehr(self, change: Callable[[dict[str, Any]], object], reference: str) -> None:
        """Change a resource as the practice's EHR does."""
        token = await self.ehr_token()
        path = f"/fhir/{reference}"
        resource = (await self.at.ask(request("GET", path, token=token))).json()
        change(resource)
        reply = await self.at.ask(request("PUT", path, token=token, resource=resource))
        assert reply.status == 200, reply.body

    # --- asking --------------------------------------------------------------------------------

    async def warm(self, tokens: Tokens) -> list[Asked]:
        """Use the token at each process, as far as a page walk and a batch that has not ended."""
        asked = []
        for read, held in self.held.values():
            reply = await read.ask(get("Patient/silas", tokens))
            assert reply.status == 200, reply.body
            page = (await read.ask(get("Observation?patient=silas&_count=1", tokens))).json()
            (following,) = (one["url"] for one in page["link"] if one["relation"] == "next")
            batch = a_batch(tokens)
            await held.awake()
            held.writer.write(batch[:-1])
            await held.writer.drain()
            address = urlsplit(following)
            asked.append(Asked(read, held, f"{address.path}?{address.query}", batch[-1:]))
        return asked

    async def told(self, tokens: Tokens, asked: Asked, first: str) -> Mapping[str, int]:
        """Ask by all three, beginning with one; the statuses."""
        found = {}
        for what in (first, *(one for one in WHAT if one != first)):
            if what == "batch":
                asked.held.writer.write(asked.last_byte)
                reply = await asked.held.reply()
            elif what == "next page":
                reply = await asked.read.ask(request("GET", asked.following, token=tokens.access))
            else:
                reply = await asked.read.ask(get("Observation?patient=silas&_count=1", tokens))
            found[what] = EMPTY if reply.status == 200 and not shows(reply) else reply.status
        return found


WHAT: Final = ("read", "next page", "batch")
EMPTY: Final = 204
"""Stands for a Bundle with nothing in it: what somebody may not see is not found."""


def shows(reply: Reply) -> bool:
    """Whether a Bundle holds any resource."""
    return any("resource" in entry for entry in reply.json().get("entry", ()))


def get(what: str, tokens: Tokens) -> bytes:
    """A read with the token."""
    return request("GET", f"/fhir/{what}", token=tokens.access)


def a_batch(tokens: Tokens) -> bytes:
    """Many searches in one request."""
    one = {"request": {"method": "GET", "url": "Observation?patient=silas&_count=1"}}
    batch = {"resourceType": "Bundle", "type": "batch", "entry": [one] * ENTRIES}
    return request("POST", "/fhir", token=tokens.access, resource=batch)


# ---------------------------------------------------------------- the ways


@dataclass(frozen=True)
class Way:
    """One way to end access, what undoes it for the next round, and what an app is answered then.

    ``ends`` is whether there is an end at all: what must change nothing is tried, too.
    """

    name: str
    end: Callable[[World, Tokens], Awaitable[None]]
    undo: Callable[[World], Awaitable[None]] | None = None
    refusals: frozenset[int] = frozenset({401})
    left: Mapping[str, int] = field(default_factory=dict)
    ends: bool = True


async def end_on_page(
    world: World,
    tokens: Tokens,  # noqa: ARG001 - as all ways
    username: str = PERSON,
) -> None:
    """The person presses "End access"."""
    tab = await world.signed_in(username)
    form = form_of(await tab.get(world.at, "/account/apps"), "/end")
    reply = await tab.post(world.at, form.action, form.fields)
    assert reply.status == 303, reply.body


async def narrow_on_page(world: World, *, drop: Sequence[str] = (), until: str = "") -> None:
    """The person unticks types, or chooses an earlier end."""
    tab = await world.signed_in()
    end = form_of(await tab.get(world.at, "/account/apps"), "/end").action
    page = await tab.get(world.at, end.removesuffix("/end"))
    form = form_of(page, "/change")
    fields = [pair for pair in form.fields if pair[0] != "until" and pair[1] not in drop]
    reply = await tab.post(world.at, form.action, [*fields, ("until", until)])
    assert reply.status == 303, (reply.status, reply.body)


async def narrow_types(world: World, tokens: Tokens) -> None:  # noqa: ARG001
    await narrow_on_page(world, drop=["Observation"])


async def narrow_end(world: World, tokens: Tokens) -> None:
    """The last day she chose passes: the rows lie a day further back."""
    today = time.strftime("%Y-%m-%d", time.gmtime(time.time() - 6 * 3600))
    await narrow_on_page(world, until=today)

    async def work(transaction: Any) -> None:
        for kind, key in ((TokenFamily, tokens.family), (AccessToken, None)):
            found = (
                [await transaction.get(kind, key)]
                if key is not None
                else await transaction.find(kind, "family", tokens.family)
            )
            for row in found:
                assert row.until is not None
                older = {"expires": row.expires - _DAY, "until": row.until - _DAY}
                await transaction.put(msgspec.structs.replace(row, **older))

    await world.operator.transact(work)


async def revoke_access_token(world: World, tokens: Tokens) -> None:
    await _revoke(world, tokens.access)


async def revoke_refresh_token(world: World, tokens: Tokens) -> None:
    await _revoke(world, tokens.refresh)


async def _revoke(world: World, token: str) -> None:
    form = {"client_id": world.app, "token": token}
    reply = await world.at.ask(request("POST", "/oauth/revoke", form=form))
    assert reply.status == 200, reply.body


async def reuse_refresh_token(world: World, tokens: Tokens) -> None:
    """A thief uses the old refresh token after its successor was used."""
    newer = await world.token_request(grant_type="refresh_token", refresh_token=tokens.refresh)
    await world.token_request(grant_type="refresh_token", refresh_token=newer["refresh_token"])
    await world.refused(grant_type="refresh_token", refresh_token=tokens.refresh)


async def replay_code(world: World, tokens: Tokens) -> None:
    """A thief exchanges the code again."""
    await world.refused(
        grant_type="authorization_code",
        code=tokens.code,
        redirect_uri=CALLBACK,
        code_verifier=tokens.verifier,
    )


async def grant_revoked(world: World, tokens: Tokens) -> None:  # noqa: ARG001
    await world.as_ehr(lambda consent: consent.update(status="inactive"), GRANT)


async def grant_restored(world: World) -> None:
    await world.as_ehr(lambda consent: consent.update(status="active"), GRANT)


async def sections_taken(world: World, tokens: Tokens) -> None:  # noqa: ARG001
    """The practice takes everything out of the grant but who he is."""

    def change(consent: dict[str, Any]) -> None:
        world.sections = consent["provision"]["provision"]
        consent["provision"]["provision"] = [
            one for one in world.sections if one["code"][0]["coding"][0]["code"] == "demographics"
        ]

    await world.as_ehr(change, GRANT)


async def sections_given(world: World) -> None:
    await world.as_ehr(lambda consent: consent["provision"].update(provision=world.sections), GRANT)


async def unlinked(world: World, tokens: Tokens) -> None:  # noqa: ARG001
    """The practice finds that she is not who it took her for."""
    await world.as_ehr(lambda person: person.update(active=False), HER_PERSON)


async def linked_again(world: World) -> None:
    await world.as_ehr(lambda person: person.update(active=True), HER_PERSON)


async def account_disabled(world: World, tokens: Tokens) -> None:  # noqa: ARG001
    await disable_account(world.operator, (await world.petra()).key, now=time.time())


async def account_enabled(world: World) -> None:
    await enable_account(world.operator, (await world.petra()).key)


async def client_disabled(world: World, tokens: Tokens) -> None:  # noqa: ARG001
    await disable_client(world.operator, world.app, now=time.time())


async def client_enabled(world: World) -> None:
    await enable_client(world.operator, world.app)


async def operator_ends(world: World, tokens: Tokens) -> None:  # noqa: ARG001
    """An operator ends whatever any app has of a record."""
    await world.operator.transact(
        lambda transaction: revoke_where(
            transaction,
            "patient",
            PATIENT,
            now=time.time(),
            because="operator",
            practice=PRACTICE,
        )
    )


async def password_changed(world: World, tokens: Tokens) -> None:  # noqa: ARG001
    """A new password ends sessions, and no app that she allowed."""
    tab = await world.signed_in()
    form = form_of(await tab.get(world.at, "/account/security/password"), "/password")
    new = "seven wet sparrows sing"
    filled = form.filled(password=PASSWORD, new_password=new, repeated=new)
    reply = await tab.post(world.at, form.action, filled)
    assert reply.status == 303, reply.body


async def password_as_before(world: World) -> None:
    store, petra = world.operator, await world.petra()
    passwords = Passwords()
    again = msgspec.structs.replace(petra, password_hash=await passwords.hash_unchecked(PASSWORD))
    passwords.close()
    assert await store.transact(lambda transaction: transaction.replace(petra, again))


NARROWED: Final = frozenset({401, 403})
WAYS: Final = (
    Way("ended at /account/apps", end_on_page),
    Way("types unticked there", narrow_types, refusals=NARROWED, left={"Patient/silas": 200}),
    Way("earlier end chosen there, which passes", narrow_end),
    Way("access token revoked by the app", revoke_access_token),
    Way("refresh token revoked by the app", revoke_refresh_token),
    Way("refresh token used again", reuse_refresh_token),
    Way("code used again", replay_code),
    Way("grant ended by the EHR", grant_revoked, grant_restored),
    Way(
        "sections taken from the grant by the EHR",
        sections_taken,
        sections_given,
        refusals=NARROWED | {EMPTY},
        left={"Patient/silas": 200},
    ),
    Way("person's link ended by the EHR", unlinked, linked_again),
    Way("account disabled", account_disabled, account_enabled),
    Way("client disabled", client_disabled, client_enabled),
    Way("record's apps ended by an operator", operator_ends),
    Way("password changed (ends nothing)", password_changed, password_as_before, ends=False),
)


QUICK: Final = tuple(one for one in WAYS if one.end in (revoke_access_token, operator_ends))
"""Those that are over before a batch is."""


@dataclass
class Outcome:
    """What each process answered: by what it was asked first, and what else; by status."""

    first: dict[int, Counter[tuple[str, int]]] = field(default_factory=dict)
    later: Counter[tuple[str, int]] = field(default_factory=Counter)
    left: Counter[tuple[str, int]] = field(default_factory=Counter)

    def wrong(self, way: Way) -> list[str]:
        """What was not answered as it must be."""
        fine = way.refusals if way.ends else {200}
        found = [
            f"{what} at {process}: {status}, {count} times"
            for process, counted in self.first.items()
            for (what, status), count in counted.items()
            if status not in fine
        ]
        found += [f"then {w}: {s}, {n} times" for (w, s), n in self.later.items() if s not in fine]
        found += [
            f"{what}: {status}, {count} times"
            for (what, status), count in self.left.items()
            if status != way.left[what]
        ]
        return found


async def try_way(world: World, way: Way, rounds: int) -> Outcome:
    """End access in one way again and again; count what each process says next."""
    outcome = Outcome({process: Counter() for process in world.held})
    for number in range(rounds):
        world.turn = number
        await forget_tries(world.operator)
        tokens = await world.tokens()
        asked = await world.warm(tokens)
        await way.end(world, tokens)
        for (process, counted), one in zip(outcome.first.items(), asked, strict=True):
            assert one.read.process == process
            first = WHAT[number % len(WHAT)]
            statuses = await world.told(tokens, one, first)
            counted.update([(first, statuses[first])])
            outcome.later.update((w, s) for w, s in statuses.items() if w != first)
            for what in way.left:
                reply = await one.read.ask(get(what, tokens))
                outcome.left.update([(what, reply.status)])
        if way.undo is not None:
            await way.undo(world)
    return outcome


async def try_reading_only(world: World, rounds: int) -> Counter[tuple[str, int]]:
    """Let an app that writes forms read only; what each process says to its next writing."""
    answer = {
        "resourceType": "QuestionnaireResponse",
        "status": "completed",
        "subject": {"reference": WRITER},
        "source": {"reference": WRITER},
    }
    found: Counter[tuple[str, int]] = Counter()
    for number in range(rounds):
        world.turn = number
        await forget_tries(world.operator)
        username = WRITER.removeprefix("Patient/")
        tokens = await world.tokens(username, WRITER, WRITING)
        write = request("POST", "/fhir/QuestionnaireResponse", token=tokens.access, resource=answer)
        for one, _ in world.held.values():
            assert (await one.ask(write)).status == 201
        tab = await world.signed_in(username)
        end = form_of(await tab.get(world.at, "/account/apps"), "/end").action
        form = form_of(await tab.get(world.at, end.removesuffix("/end")), "/change")
        reply = await tab.post(world.at, form.action, [*form.fields, ("read_only", "yes")])
        assert reply.status == 303, reply.body
        for one, _ in world.held.values():
            found["write", (await one.ask(write)).status] += 1
            found[
                "read", (await one.ask(get("QuestionnaireResponse?_count=1", tokens))).status
            ] += 1
        await _revoke(world, tokens.refresh)
    return found


async def end_during_batch(
    world: World, way: Way, rounds: int, *, until_cut: int = 0
) -> Counter[str]:
    """End access while a process carries out a batch; how the batch went on.

    If every batch was over first, which shows nothing, there are further rounds: ``until_cut``
    at the most, of all.
    """
    found: Counter[str] = Counter()
    for number in range(max(rounds, until_cut)):
        if number >= rounds and found["whole"] < number:
            break
        world.turn = number
        await forget_tries(world.operator)
        tokens = await world.tokens()
        here, there = (one[1] for one in world.held.values())
        runs = there if number % len(world.held) == 0 else here
        running = asyncio.create_task(runs.ask(a_batch(tokens)))
        await way.end(world, tokens)
        reply = await running
        if way.undo is not None:
            await way.undo(world)
        if reply.status == 200:
            statuses = [entry["response"]["status"][:3] for entry in reply.json()["entry"]]
            answered = statuses.count("200")
            assert set(statuses[answered:]) <= {"401"}, statuses  # never again after a refusal
            found["cut" if 0 < answered < ENTRIES else "whole" if answered else "none"] += 1
        else:
            assert reply.status == 401
            found["refused"] += 1
    return found


@contextlib.asynccontextmanager
async def world_of(demo: Demo) -> AsyncIterator[World]:
    """A world over a demo that runs; the app is registered, and gone again afterwards."""
    store = await demo.place.open()
    async with contextlib.aclosing(store), connections(demo.server, 2, lasting=True) as held:
        world = World(demo, held, store)
        await add_client(
            store,
            client_id=world.app,
            name="Revocation app",
            type="public",
            redirect_uris=[CALLBACK],
            scope=APP_SCOPE,
            now=time.time(),
            random=secrets.token_bytes,
        )
        try:
            yield world
        finally:
            await disable_client(world.operator, world.app, now=time.time())


async def run(folder: Path, place: Place, *, rounds: int, downloads: int) -> None:
    """Try every way, and print what the processes said."""
    from tests.end_to_end import revocation_of_links as links  # noqa: PLC0415 - it imports this

    demo = Demo(folder, place)
    try:
        await demo.start()
        async with world_of(demo) as world:
            print(f"{len(WAYS)} ways, {rounds} rounds of each, {len(world.held)} processes")
            for way in WAYS:
                began = time.monotonic()
                outcome = await try_way(world, way, rounds)
                tell(way, outcome, time.monotonic() - began)
            counted = await try_reading_only(world, rounds)
            print(f"reading only, chosen at /account/apps: writes and reads then {dict(counted)}")
            for way in QUICK:
                ran = await end_during_batch(world, way, rounds)
                print(f"{way.name}, while a batch runs: {dict(ran)}")
            await end_during_downloads(world, downloads)
            await links.run(world, rounds)
    finally:
        demo.stop()
        await place.drop()


async def end_during_downloads(world: World, rounds: int) -> None:
    """End access while somebody reads what is long; print when it was cut."""
    from tests.end_to_end import downloads  # noqa: PLC0415 - it is made of what is here

    if not rounds:
        return
    files = await downloads.Files.put(world.demo, downloads.FILE)
    print(f"files of {downloads.FILE / 2**20:.0f} MiB, read by somebody slow, {rounds} rounds:")
    for name in downloads.READERS:
        print(await downloads.try_reader(world, files, name, rounds))


def tell(way: Way, outcome: Outcome, seconds: float) -> None:
    """Print what came of one way."""
    fine = way.refusals if way.ends else {200}
    parts = [
        f"{sum(n for (_, s), n in counted.items() if s in fine)} of {counted.total()}"
        for counted in outcome.first.values()
    ]
    word = "refused" if way.ends else "answered"
    later = sum(n for (_, s), n in outcome.later.items() if s in fine)
    print(
        f"{way.name}: next request {word} {' and '.join(parts)}; "
        f"then {later} of {outcome.later.total()}; {seconds:.0f} s"
    )
    for wrong in outcome.wrong(way):
        print(f"  WRONG: {wrong}")


def main() -> None:
    """Run with the figures given."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--downloads", type=int, default=10, help="rounds of running downloads")
    ask_for_place(parser)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        place = asked_place(given.place, folder)
        asyncio.run(run(folder, place, rounds=given.rounds, downloads=given.downloads))


if __name__ == "__main__":
    main()
