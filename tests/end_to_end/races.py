"""Whatever is good once, many askers at once, two server processes.

``python -m tests.end_to_end.races --parallel 50 --rounds 10`` prints the figures. Half of the
requests go to each process; each is sent up to its last byte before any is completed.
``--place motor`` runs them on MongoDB (`tests.places`).
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import hashlib
import json
import secrets
import tempfile
import time
import types
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import urlencode

import msgspec
import pyotp
from joserfc import jwt
from joserfc.jwk import import_key

from fhir_portal.accounts.account import Account, account_named
from fhir_portal.accounts.credentials import Passwords
from fhir_portal.accounts.passkeys import Passkeys
from fhir_portal.accounts.recovery_codes import RecoveryCodeBook
from fhir_portal.accounts.sessions import Sessions
from fhir_portal.accounts.totp import STEP_SECONDS, Totp, Totps
from fhir_portal.notify.outbox import OutboxMessage
from fhir_portal.resources.store import PortalStore
from fhir_portal.smart.client import Client, add_client
from fhir_portal.smart.connection_receipt import Receipt
from fhir_portal.smart.exchange import TOKEN_EXCHANGE
from fhir_portal.smart.grants.token_exchange import ACCESS_TOKEN
from fhir_portal.smart.keys import ServerKeys, load_server_keys
from fhir_portal.smart.token import RefreshToken, TokenFamily, base64url
from tests.accounts.authenticator import Authenticator
from tests.end_to_end.demo import CALLBACK, EHR, PUBLIC, Demo, forget_tries
from tests.end_to_end.person import PASSWORD, Person, parameters_of
from tests.end_to_end.processes import Connection, Reply, at_once, connections, request
from tests.end_to_end.tab import Tab, form_of, forms_of
from tests.places import Place, ask_for_place, asked_place
from tests.smart.proofs import Holder

SCOPE = "launch/patient offline_access patient/Patient.rs patient/Observation.rs"


@dataclass(frozen=True)
class Tokens:
    """What a token response gave."""

    access: str
    refresh: str

    @classmethod
    def of(cls, reply: Reply) -> Tokens:
        assert reply.status == 200, reply.body
        answered = reply.json()
        return cls(answered["access_token"], answered["refresh_token"])


@dataclass
class Outcome:
    """How many asked which process, what was answered, and what holds afterwards at each."""

    asked: Counter[int]
    answers: Counter[str]
    bodies: int
    seconds: float
    read: set[int] = field(default_factory=set)
    refreshed: set[str] = field(default_factory=set)
    ended: str | None = None


@dataclass
class Racers:
    """The same public app on many connections, and a person who says yes to it."""

    demo: Demo
    person: Person
    by_process: dict[int, list[Connection]]

    @property
    def all(self) -> list[Connection]:
        """Every connection, the processes taking turns."""
        return [one for turn in zip(*self.by_process.values(), strict=True) for one in turn]

    @property
    def one_each(self) -> list[Connection]:
        """One connection to each process."""
        return [held[0] for held in self.by_process.values()]

    async def code(self) -> tuple[str, str]:
        """A fresh authorization code and its verifier."""
        verifier = secrets.token_urlsafe(48)
        digest = hashlib.sha256(verifier.encode()).digest()
        query = self.query(base64.urlsafe_b64encode(digest).rstrip(b"=").decode())
        address = f"{self.demo.server.base}/oauth/authorize?{urlencode(query)}"
        callback = await asyncio.to_thread(
            self.person.visit, address, back_to=CALLBACK, record="Patient/mara"
        )
        return parameters_of(callback)["code"], verifier

    def query(self, challenge: str, **more: str) -> dict[str, str]:
        """An authorization request of the app's."""
        return {
            "response_type": "code",
            "client_id": PUBLIC,
            "redirect_uri": CALLBACK,
            "scope": SCOPE,
            "state": "state",
            "aud": self.demo.fhir,
            "code_challenge": challenge,
            "code_challenge_method": "S256",
            **more,
        }

    async def tokens(self) -> Tokens:
        """Fresh tokens."""
        return Tokens.of(await self.all[0].ask(exchange(*await self.code())))

    async def race(self, sent: bytes | Sequence[bytes]) -> tuple[Outcome, list[Reply]]:
        """Everybody sends a request at once: the same one, or each their own."""
        started = time.monotonic()
        replies = await at_once(self.all, sent)
        outcome = Outcome(
            asked=Counter(one.process for one in replies),
            answers=Counter(word(one) for one in replies),
            bodies=len({one.body for one in replies if one.status == 200}),
            seconds=time.monotonic() - started,
        )
        return outcome, replies

    async def look(self, outcome: Outcome, tokens: Sequence[Tokens]) -> None:
        """Note what each token is good for now, at each process."""
        for one in self.one_each:
            for held in tokens:
                outcome.read.add((await reads(one, held.access)).status)
            for held in tokens:
                outcome.refreshed.add(word(await one.ask(refresh(held.refresh))))
        outcome.ended = await ended(self.demo, tokens[0].refresh)


async def race_code(racers: Racers) -> Outcome:
    """Exchange one code many times at once."""
    outcome, replies = await racers.race(exchange(*await racers.code()))
    won = [Tokens.of(one) for one in replies if one.status == 200]
    await racers.look(outcome, won)
    return outcome


async def race_refresh(racers: Racers) -> tuple[Outcome, Tokens, Tokens]:
    """Refresh by one token many times at once; return it and its successor, which is unused."""
    first = await racers.tokens()
    outcome, replies = await racers.race(refresh(first.refresh))
    successor = Tokens.of(next(one for one in replies if one.status == 200))
    return outcome, first, successor


async def race_refresh_and_reuse(racers: Racers) -> Outcome:
    """The same; then the successor is used, and after that the first one again, as by a thief."""
    outcome, first, successor = await race_refresh(racers)
    here, there = racers.one_each
    newest = Tokens.of(await here.ask(refresh(successor.refresh)))
    assert (await reads(there, newest.access)).status == 200
    assert word(await there.ask(refresh(first.refresh))) == "invalid_grant"
    await racers.look(outcome, [newest, successor, first])
    return outcome


# ---------------------------------------------------------------- at the endpoints of clients


async def race_pushed_request(racers: Racers) -> Outcome:
    """Begin one pushed authorization request (RFC 9126) in many browsers at once."""
    form = racers.query("c" * 43)
    reply = await racers.all[0].ask(request("POST", "/oauth/par", form=form))
    assert reply.status == 201, reply.body
    query = urlencode({"client_id": PUBLIC, "request_uri": reply.json()["request_uri"]})
    outcome, _ = await racers.race(Tab().asking("GET", f"/oauth/authorize?{query}"))
    return outcome


async def race_client_assertion(racers: Racers) -> Outcome:
    """Authenticate by one assertion (RFC 7523) many times at once."""
    ehr = Ehr(racers.demo)
    outcome, _ = await racers.race(ehr.token_request(ehr.assertion()))
    return outcome


async def race_proof_at_token(racers: Racers) -> Outcome:
    """Show one DPoP proof (RFC 9449) with many assertions at once."""
    ehr, holder = Ehr(racers.demo), a_holder()
    proof = holder.proof(url=ehr.token_endpoint)
    sent = [ehr.token_request(ehr.assertion(), proof) for _ in racers.all]
    outcome, _ = await racers.race(sent)
    return outcome


async def race_proof_at_fhir(racers: Racers) -> Outcome:
    """Read by one DPoP proof many times at once."""
    ehr, holder = Ehr(racers.demo), a_holder()
    asked = ehr.token_request(ehr.assertion(), holder.proof(url=ehr.token_endpoint))
    reply = await racers.all[0].ask(asked)
    token = reply.json()["access_token"]
    assert reply.json()["token_type"] == "DPoP"
    headers = holder.headers("GET", f"{racers.demo.fhir}/Patient/mara", token)
    outcome, _ = await racers.race(request("GET", "/fhir/Patient/mara", headers=headers))
    return outcome


async def race_exchange(racers: Racers) -> Outcome:
    """Exchange one list of records (RFC 8693) many times at once, while the app ends it.

    As often as it was exchanged before the end, nothing is left of it.
    """
    here = racers.all[0]
    verifier = secrets.token_urlsafe(48)
    digest = hashlib.sha256(verifier.encode()).digest()
    challenge = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
    kind = f"{racers.demo.server.base}/oauth/authorization-details/smart-record"
    details = json.dumps([{"type": kind}])
    query = racers.query(challenge, authorization_details=details)
    query["scope"] = f"openid {SCOPE}"
    tab = Tab()
    page = await tab.consent_page(here, f"/oauth/authorize?{urlencode(query)}", username="teodor")
    form = form_of(page, "/oauth/consent")
    reply = await tab.post(here, form.action, [*form.fields, ("decision", "approve")])
    code = parameters_of(reply.headers["location"])["code"]
    listed = (await here.ask(exchange(code, verifier))).json()
    identifier = listed["authorization_details"][0]["identifier"]
    swap = request(
        "POST",
        "/oauth/token",
        form={
            "grant_type": TOKEN_EXCHANGE,
            "client_id": PUBLIC,
            "subject_token": listed["access_token"],
            "subject_token_type": ACCESS_TOKEN,
            "authorization_details": json.dumps([{"type": kind, "identifier": identifier}]),
        },
    )
    end = request(
        "POST", "/oauth/revoke", form={"client_id": PUBLIC, "token": listed["refresh_token"]}
    )
    count = len(racers.all)
    outcome, replies = await racers.race(
        [end if number == count // 2 else swap for number in range(count)]
    )
    for one in racers.one_each:
        for given in replies:
            if given.status == 200 and given.body.startswith(b'{"access_token"'):
                sent = request("GET", "/fhir/Observation", token=given.json()["access_token"])
                outcome.read.add((await one.ask(sent)).status)
        outcome.refreshed.add(word(await one.ask(swap)))
    return outcome


class Ehr:
    """A backend client's side of the token endpoint."""

    def __init__(self, demo: Demo) -> None:
        self._key = import_key(demo.client(EHR)["private_jwk"])
        self.token_endpoint = f"{demo.server.base}/oauth/token"

    def assertion(self) -> str:
        """A client assertion that nobody has seen."""
        claims = {
            "iss": EHR,
            "sub": EHR,
            "aud": self.token_endpoint,
            "exp": int(time.time()) + 240,
            "jti": secrets.token_hex(16),
        }
        header = {"alg": "ES384", "typ": "JWT", "kid": self._key.kid}
        return jwt.encode(header, claims, self._key, algorithms=["ES384"])

    def token_request(self, assertion: str, proof: str = "") -> bytes:
        """The request for a token."""
        form = {
            "grant_type": "client_credentials",
            "scope": "system/*.rs",
            "client_assertion_type": "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
            "client_assertion": assertion,
        }
        return request("POST", "/oauth/token", form=form, headers={"DPoP": proof} if proof else {})


def a_holder() -> Holder:
    """Somebody with a DPoP key."""
    return Holder(types.SimpleNamespace(clock=time.time))


# ---------------------------------------------------------------- on the pages


async def race_consent(racers: Racers) -> Outcome:
    """Answer one consent page many times at once."""
    tab, here = Tab(), racers.all[0]
    address = f"/oauth/authorize?{urlencode(racers.query('c' * 43, prompt='consent'))}"
    page = await tab.consent_page(here, address, username="mara", records=["Patient/mara"])
    form = form_of(page, "/oauth/consent")
    fields = [*form.fields, ("decision", "approve")]
    outcome, replies = await racers.race(tab.asking("POST", form.action, fields))
    outcome.bodies = sum("code=" in one.headers.get("location", "") for one in replies)
    return outcome


async def race_launch(racers: Racers) -> Outcome:
    """Use one launch of an EHR in many authorization requests, all of them answered at once."""
    app = f"launched-{secrets.token_hex(4)}"
    async with _store(racers.demo) as store:
        await add_client(
            store,
            client_id=app,
            name="Launched app",
            type="public",
            redirect_uris=[CALLBACK],
            scope="launch openid fhirUser patient/Observation.rs",
            now=time.time(),
            random=secrets.token_bytes,
        )
        found = await store.get(Client, EHR)
        assert found is not None
        permissions = tuple(dict.fromkeys((*found.permissions, "launch")))
        ehr = msgspec.structs.replace(found, permissions=permissions)
        await store.transact(lambda transaction: transaction.put(ehr))
    client, here = Ehr(racers.demo), await Connection.open(racers.demo.server)
    reply = await here.ask(client.token_request(client.assertion()))
    launched = request(
        "POST",
        "/oauth/launch",
        token=reply.json()["access_token"],
        resource={"patient": "Patient/mara", "client_id": app},
        headers={"Content-Type": "application/json"},
    )
    made = await here.ask(launched)
    assert made.status in (200, 201), made.body
    query = racers.query("c" * 43, launch=made.json()["launch"], prompt="consent")
    query |= {"client_id": app, "scope": "launch openid fhirUser patient/Observation.rs"}
    tab, sent = Tab(), []
    for _ in racers.all:
        page = await tab.consent_page(here, f"/oauth/authorize?{urlencode(query)}", username="mara")
        form = form_of(page, "/oauth/consent")
        sent.append(tab.asking("POST", form.action, [*form.fields, ("decision", "approve")]))
    await here.close()
    outcome, replies = await racers.race(sent)
    told = (parameters_of(one.headers["location"]) for one in replies if one.status == 303)
    outcome.answers = Counter("code" if "code" in one else one["error"] for one in told)
    return outcome


async def race_end_of_connection(racers: Racers) -> Outcome:
    """End one app's access many times at once: one receipt, which everybody is led to."""
    await racers.tokens()
    tab, here = Tab(), racers.all[0]
    await tab.sign_in(here, "mara")
    form, *_ = forms_of(await tab.get(here, "/account/apps"), "/end")  # the newest is on top
    outcome, replies = await racers.race(tab.asking("POST", form.action, form.fields))
    receipts = {one.headers["location"] for one in replies}
    connection = form.action.split("/")[-2]
    async with _store(racers.demo) as store:
        kept = await store.find(Receipt, "connection", connection, limit=1000)
        about = [one for one in await store.every(OutboxMessage, limit=10_000) if _is_of(one, kept)]
    mine = [one for one in kept if f"/account/apps/receipts/{one.key}" in receipts]
    outcome.bodies = len(receipts)
    outcome.ended = f"{len(mine)} receipt, {len(about)} notice"
    return outcome


def _is_of(message: OutboxMessage, receipts: Sequence[Receipt]) -> bool:
    """Whether it tells who ended it; if somebody else had let the app in, they are told, too."""
    newest = max(receipts, key=lambda one: one.at)
    return newest.key in message.key and message.to == f"account:{newest.account}"


async def race_recovery_code(racers: Racers) -> Outcome:
    """Sign in by one recovery code in many browsers at once; a known browser each."""
    async with _signing_in(racers.demo) as door:
        codes, keep = await door.codes.new(door.account.key)
        await door.store.transact(keep)
        sent = []
        for _ in racers.all:
            tab = Tab(cookies={"portal-device": await door.device()})
            form = form_of(
                await tab.get(door.here, "/signin/recovery-code"), "/signin/recovery-code"
            )
            fields = form.filled(username=door.account.username, password=PASSWORD, code=codes[0])
            sent.append(tab.asking("POST", form.action, fields))
        outcome, _ = await racers.race(sent)
        outcome.ended = f"{await door.codes.left(door.account.key)} codes left"
    return outcome


async def race_totp_code(racers: Racers) -> Outcome:
    """Give one code of an authenticator app in many browsers at once."""
    async with _signing_in(racers.demo) as door:
        session = door.sessions.drafted().visitor.session
        secret = pyotp.TOTP((await door.totps.offer(session, door.account)).secret)
        taken = await door.totps.accepted(session, door.account, secret.now())
        assert taken.spend is not None
        await door.store.transact(taken.spend)
        forms = []
        for _ in racers.all:
            waits = await door.sessions.await_second_factor(
                door.sessions.drafted().visitor.session, door.account
            )
            cookies = {"portal-session": waits.cookie, "portal-device": await door.device()}
            tab = Tab(cookies=cookies)
            form = form_of(await tab.get(door.here, "/signin/code"), "/signin/code")
            forms.append((tab, form))
        code = secret.at(time.time() + STEP_SECONDS)  # that of now may have set it up
        sent = [tab.asking("POST", form.action, form.filled(code=code)) for tab, form in forms]
        outcome, _ = await racers.race(sent)
        await door.store.transact(door.totps.removal(door.account.key))
        await forget_tries(door.store)
    return outcome


async def race_passkey(racers: Racers) -> Outcome:
    """Answer one passkey challenge many times at once."""
    host = f"localhost:{racers.demo.server.port}"
    async with _signing_in(racers.demo) as door:
        origins = (racers.demo.server.base, f"http://{host}")
        passkeys = Passkeys(
            door.store, origins=origins, name="P", clock=time.time, random=secrets.token_bytes
        )
        site = passkeys.site(host)
        assert site is not None
        session = door.sessions.drafted().visitor.session
        device = Authenticator(
            credential_id=secrets.token_bytes(16),
            origin=site.origin,
            domain=site.domain,
            handle=door.account.key.encode(),
        )
        made = device.make(await passkeys.begin_adding(session, door.account, site))
        await door.store.transact(await passkeys.added(session, door.account, made, "Key"))
        here, tab = door.here, Tab(host)
        form = form_of(await tab.get(here, "/signin"), "/signin")
        asked = await tab.post(here, "/signin/passkey/options", form.fields)
        fields = form.filled(credential=device.sign(asked.body.decode()))
        sent = [one for one in fields if one[0] in ("form_token", "credential")]
        outcome, _ = await racers.race(tab.asking("POST", "/signin/passkey", sent))
        for passkey in await passkeys.of(door.account.key):
            await door.store.transact(passkeys.removal(door.account.key, passkey.key))
    return outcome


@dataclass
class SigningIn:
    """What an account signs in by, over the store of a running server."""

    store: PortalStore
    keys: ServerKeys
    account: Account
    passwords: Passwords
    here: Connection
    """To one of the processes."""

    @property
    def sessions(self) -> Sessions:
        """Sessions of browsers."""
        return Sessions(self.store, clock=time.time, random=secrets.token_bytes)

    @property
    def totps(self) -> Totps:
        """Authenticator apps."""
        return Totps(
            self.store,
            key=self.keys.derive("totp"),
            issuer="P",
            clock=time.time,
            random=secrets.token_bytes,
        )

    @property
    def codes(self) -> RecoveryCodeBook:
        """Recovery codes."""
        return RecoveryCodeBook(
            self.store, self.passwords, clock=time.time, random=secrets.token_bytes
        )

    async def device(self) -> str:
        """The cookie of a browser in which the account signed in before: tries count for each."""
        name, since = secrets.token_urlsafe(16), f"{time.time():.0f}"
        mark = base64url(self.keys.derive("device-mark", name.encode(), since.encode()))[:22]
        totp = await self.store.get(Totp, self.account.key)
        account = self.account
        parts = (
            name,
            since,
            account.key,
            account.password_hash or "",
            f"{totp.added}" if totp is not None else "",
        )
        proof = base64url(self.keys.derive("device", *(part.encode() for part in parts)))
        return f"{name}.{since}.{mark}.{proof}"


@contextlib.asynccontextmanager
async def _signing_in(demo: Demo, username: str = "ruben") -> AsyncIterator[SigningIn]:
    secret = bytes.fromhex((demo.folder / "secret.key").read_text("ascii"))
    passwords = Passwords()
    async with _store(demo) as store:
        account = await account_named(store, username)
        assert account is not None
        keys = await load_server_keys(store, secret, now=time.time(), random=secrets.token_bytes)
        here = await Connection.open(demo.server)
        try:
            yield SigningIn(store, keys, account, passwords, here)
        finally:
            await here.close()
            passwords.close()


@dataclass(frozen=True)
class Race:
    """One race, and what comes of it: how many succeed, and what the others may be answered."""

    what: str
    run: Callable[[Racers], Awaitable[Outcome]]
    success: str
    others: frozenset[str]


RACES: Final = (
    Race("pushed request", race_pushed_request, "303", frozenset({"400"})),
    Race("client assertion", race_client_assertion, "granted", frozenset({"invalid_client"})),
    Race(
        "DPoP proof at the token endpoint",
        race_proof_at_token,
        "granted",
        frozenset({"invalid_dpop_proof"}),
    ),
    Race("DPoP proof at /fhir", race_proof_at_fhir, "granted", frozenset({"401"})),
    Race("consent page", race_consent, "303", frozenset({"400"})),
    Race("launch", race_launch, "code", frozenset({"invalid_request"})),
    Race("recovery code", race_recovery_code, "signed in", frozenset({"403", "429"})),
    Race("code of an authenticator app", race_totp_code, "signed in", frozenset({"403", "429"})),
    Race("passkey challenge", race_passkey, "signed in", frozenset({"403"})),
)
"""Of which one asker has success."""


def exchange(code: str, verifier: str) -> bytes:
    """The request that buys tokens for a code."""
    form = {
        "grant_type": "authorization_code",
        "client_id": PUBLIC,
        "code": code,
        "redirect_uri": CALLBACK,
        "code_verifier": verifier,
    }
    return request("POST", "/oauth/token", form=form)


def refresh(token: str, client_id: str = PUBLIC) -> bytes:
    """The request that buys tokens for a refresh token."""
    form = {"grant_type": "refresh_token", "client_id": client_id, "refresh_token": token}
    return request("POST", "/oauth/token", form=form)


async def reads(connection: Connection, access_token: str) -> Reply:
    """Read the patient with a token."""
    return await connection.ask(request("GET", "/fhir/Patient/mara", token=access_token))


def word(reply: Reply) -> str:
    """``granted``, the error that was answered, or the status of a page or a resource."""
    if reply.status == 200:
        return "granted"
    begun = "/oauth/continue" in reply.headers.get("location", "")
    if "portal-session" in reply.cookies and reply.status == 303 and not begun:
        return "signed in"
    if reply.headers.get("content-type") != "application/json":
        return str(reply.status)
    return str(reply.json()["error"])


async def ended(demo: Demo, refresh_token: str) -> str | None:
    """Why the family of a refresh token ended; ``None`` while it lives."""
    return (await _family(demo, refresh_token)).ended_because or None


async def grow_older(demo: Demo, refresh_token: str, seconds: float) -> None:
    """Let the family's last refresh lie further back, as if so much time had passed."""
    family = await _family(demo, refresh_token)
    older = msgspec.structs.replace(family, rotated=family.rotated - seconds)
    async with _store(demo) as store:
        assert await store.transact(lambda transaction: transaction.replace(family, older))


async def _family(demo: Demo, refresh_token: str) -> TokenFamily:
    presented = RefreshToken.parse(refresh_token)
    assert presented is not None
    async with _store(demo) as store:
        family = await store.get(TokenFamily, presented.family)
    assert family is not None
    return family


@contextlib.asynccontextmanager
async def _store(demo: Demo) -> AsyncIterator[PortalStore]:
    store = await demo.place.open()
    try:
        yield store
    finally:
        await store.aclose()


async def run(folder: Path, place: Place, *, parallel: int, rounds: int) -> None:
    """Race again and again, and print what came out."""
    demo = Demo(folder, place)
    try:
        await demo.start()
        print(f"{parallel} at once, {demo.workers} processes, {rounds} rounds of each", flush=True)
        races = [
            ("code", race_code),
            ("refresh token", race_refresh_and_reuse),
            *((race.what, race.run) for race in RACES),
            ("end of a connection", race_end_of_connection),
            ("list of records, ended meanwhile", race_exchange),
        ]
        with Person("mara") as person:
            for what, race in races:
                for _ in range(rounds):
                    async with connections(
                        demo.server, parallel // demo.workers, lasting=True
                    ) as held:
                        tell(what, await race(Racers(demo, person, held)))
    finally:
        demo.stop()
        await place.drop()


def tell(what: str, outcome: Outcome) -> None:
    """Print one race."""
    answers = ", ".join(f"{count} {answer}" for answer, count in sorted(outcome.answers.items()))
    asked = " + ".join(str(count) for count in outcome.asked.values())
    said = [f"one {what}, {asked} requests in {outcome.seconds * 1000:.0f} ms: {answers}"]
    if outcome.bodies:
        said.append(f"{outcome.bodies} distinct success")
    if outcome.read:
        said.append(f"afterwards a read gives {sorted(outcome.read)}")
    if outcome.refreshed:
        said.append(f"another use {sorted(outcome.refreshed)}")
    if outcome.ended:
        said.append(outcome.ended)
    print("; ".join(said), flush=True)


def main() -> None:
    """Run with the figures given."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--parallel", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=10)
    ask_for_place(parser)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        place = asked_place(given.place, folder)
        asyncio.run(run(folder, place, parallel=given.parallel, rounds=given.rounds))


if __name__ == "__main__":
    main()
