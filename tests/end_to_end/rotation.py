"""Signing keys rotate and server processes are replaced while apps work: nobody is turned away.

``python -m tests.end_to_end.rotation --rounds 3`` prints the figures. The apps are as simple as
apps may be: none sends a request again, and none reads ``/oauth/jwks`` before the time is over for
which the server said it may be kept.
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
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode

import httpx
import msgspec
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet, import_key

from fhir_portal.resources.store import PortalStore
from fhir_portal.smart.keys import (
    JWKS_SECONDS,
    PUBLISHED_SECONDS,
    KeyInUse,
    ListedKey,
    SigningKey,
    list_signing_keys,
    retire_signing_key,
    rotate_signing_key,
)
from tests.end_to_end.demo import CALLBACK, EHR, PUBLIC, Demo
from tests.end_to_end.person import Person, parameters_of
from tests.end_to_end.running import an_observation, bearer
from tests.places import Place, ask_for_place, asked_place

SCOPE: Final = (
    "launch/patient openid fhirUser offline_access patient/Patient.rs patient/Observation.rs"
)
HOUR: Final = 3600
_WAIT_SECONDS: Final = 60.0
_ASSERTION: Final = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"


class CachedKeys:
    """The server's keys as an app has them, which reads them again when it must and not before."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._keys = KeySet([])
        self._good_until = 0.0
        self.read = 0

    def grow_older(self, seconds: float) -> None:
        """Let so much time pass."""
        self._good_until -= seconds

    async def kid_of(self, http: httpx.AsyncClient, id_token: str) -> str:
        """Verify an id_token; return the ``kid`` it was signed by. Raises `JoseError` or others."""
        if time.time() >= self._good_until:
            answer = await http.get(self._address)
            assert answer.headers["cache-control"] == f"public, max-age={JWKS_SECONDS}"
            self._keys = KeySet.import_key_set(answer.json())
            self._good_until = time.time() + JWKS_SECONDS
            self.read += 1
        return str(jwt.decode(id_token, self._keys, algorithms=["RS256"]).header["kid"])


@dataclass
class Load:
    """Apps at work until `stop`: what each got, by what it did, and the keys of the id_tokens."""

    demo: Demo
    answers: Counter[tuple[str, str]] = field(default_factory=Counter)
    kids: Counter[str] = field(default_factory=Counter)
    keys: CachedKeys = field(init=False)
    _stopped: bool = False

    def __post_init__(self) -> None:
        self.keys = CachedKeys(f"{self.demo.server.base}/oauth/jwks")

    @property
    def wrong(self) -> dict[tuple[str, str], int]:
        """What was not a success."""
        return {one: count for one, count in self.answers.items() if one[1] != "success"}

    def done(self, what: str) -> int:
        """How often something was done so far."""
        return sum(count for one, count in self.answers.items() if one[0] == what)

    @contextlib.asynccontextmanager
    async def at_work(self) -> AsyncIterator[None]:
        """Have all apps work until the block ends; each has connected once when it begins."""
        async with contextlib.AsyncExitStack() as stack:
            apps = [await stack.enter_async_context(self._app(one)) for one in ("mara", "silas")]
            works = [work for app in apps for work in app.works()]
            works += [("backend token", EhrApp(self.demo).token)]
            works += [("write", EhrApp(self.demo).write)]
            tasks = [asyncio.create_task(self._over_and_over(*work)) for work in works]
            try:
                await self.some_more()
                yield
            finally:
                self._stopped = True
                await asyncio.gather(*tasks)

    async def some_more(self, count: int = 3) -> None:
        """Wait until everything was done some more times."""
        names = {"read", "read on a new connection", "refresh", "id_token", "backend token"}
        wanted = {name: self.done(name) + count for name in names}
        deadline = time.monotonic() + _WAIT_SECONDS
        while any(self.done(name) < number for name, number in wanted.items()):
            assert time.monotonic() < deadline, self.answers
            await asyncio.sleep(0.02)

    async def _over_and_over(self, what: str, work: Callable[[], Awaitable[object]]) -> None:
        while not self._stopped:
            try:
                await work()
            except (httpx.HTTPError, JoseError, ValueError, AssertionError) as error:
                self.answers[what, f"{type(error).__name__}: {error}"[:200]] += 1
            else:
                self.answers[what, "success"] += 1
            await asyncio.sleep(0)

    @contextlib.asynccontextmanager
    async def _app(self, username: str) -> AsyncIterator[PatientApp]:
        with Person(username) as person:
            async with httpx.AsyncClient(timeout=30) as http:
                app = PatientApp(self, person, http)
                await app.sign_in()
                yield app


@dataclass
class PatientApp:
    """An app that one person uses, on connections it keeps."""

    load: Load
    person: Person
    http: httpx.AsyncClient
    access: str = ""
    refresh_token: str = ""

    def works(self) -> list[tuple[str, Callable[[], Awaitable[object]]]]:
        """What it does over and over, each with its name."""
        return [
            ("read", self.read),
            ("read", self.read),
            ("read on a new connection", self.read_anew),
            ("refresh", self.refresh),
            ("id_token", self.sign_in_again),
        ]

    async def read(self) -> None:
        """Read with a token that was there before anything rotated."""
        await self._read(self.http)

    async def read_anew(self) -> None:
        """The same on a connection of its own."""
        async with httpx.AsyncClient(timeout=30) as http:
            await self._read(http)

    async def refresh(self) -> None:
        """Turn the refresh token one further."""
        form = {
            "grant_type": "refresh_token",
            "client_id": PUBLIC,
            "refresh_token": self.refresh_token,
        }
        self.refresh_token = (await self._token(form))["refresh_token"]

    async def sign_in(self) -> None:
        """Get the tokens that it works with."""
        tokens = await self._tokens()
        self.access, self.refresh_token = tokens["access_token"], tokens["refresh_token"]

    async def sign_in_again(self) -> None:
        """Get new tokens, and verify the id_token with the keys as they were kept."""
        tokens = await self._tokens()
        self.load.kids[await self.load.keys.kid_of(self.http, tokens["id_token"])] += 1

    async def _read(self, http: httpx.AsyncClient) -> None:
        address = f"{self.load.demo.fhir}/Observation?patient={self.person.username}&_count=5"
        answer = await http.get(address, headers=bearer(self.access))
        assert answer.status_code == 200, (answer.status_code, answer.text)

    async def _tokens(self) -> dict[str, Any]:
        verifier = secrets.token_urlsafe(48)
        digest = hashlib.sha256(verifier.encode()).digest()
        query = {
            "response_type": "code",
            "client_id": PUBLIC,
            "redirect_uri": CALLBACK,
            "scope": SCOPE,
            "state": "state",
            "aud": self.load.demo.fhir,
            "code_challenge": base64.urlsafe_b64encode(digest).rstrip(b"=").decode(),
            "code_challenge_method": "S256",
        }
        address = f"{self.load.demo.server.base}/oauth/authorize?{urlencode(query)}"
        record = f"Patient/{self.person.username}"
        callback = await asyncio.to_thread(
            self.person.visit, address, back_to=CALLBACK, record=record
        )
        form = {
            "grant_type": "authorization_code",
            "client_id": PUBLIC,
            "code": parameters_of(callback)["code"],
            "redirect_uri": CALLBACK,
            "code_verifier": verifier,
        }
        return await self._token(form)

    async def _token(self, form: dict[str, str]) -> dict[str, Any]:
        return await token_response(self.http, self.load.demo, form)


class EhrApp:
    """A backend service (SMART 2.2 §5)."""

    def __init__(self, demo: Demo) -> None:
        self._demo = demo
        self._key = import_key(demo.client(EHR)["private_jwk"])
        self._token = ""
        self._count = 0

    async def token(self) -> None:
        """Fetch a token by an assertion of its own."""
        claims = {
            "iss": EHR,
            "sub": EHR,
            "aud": f"{self._demo.server.base}/oauth/token",
            "exp": int(time.time()) + 240,
            "jti": secrets.token_hex(16),
        }
        header = {"alg": "ES384", "typ": "JWT", "kid": self._key.kid}
        form = {
            "grant_type": "client_credentials",
            "scope": "system/*.cruds",
            "client_assertion_type": _ASSERTION,
            "client_assertion": jwt.encode(header, claims, self._key, algorithms=["ES384"]),
        }
        async with httpx.AsyncClient(timeout=30) as http:
            self._token = (await token_response(http, self._demo, form))["access_token"]

    async def write(self) -> None:
        """Store something, which has to be there."""
        if not self._token:
            await self.token()
        self._count += 1
        async with httpx.AsyncClient(timeout=30, headers=bearer(self._token)) as http:
            stored = await http.post(
                f"{self._demo.fhir}/Observation", json=an_observation(self._count, "teodor")
            )
            assert stored.status_code == 201, (stored.status_code, stored.text)
            found = await http.get(stored.headers["location"])
            assert found.status_code == 200, (found.status_code, found.text)


async def token_response(
    http: httpx.AsyncClient, demo: Demo, form: dict[str, str]
) -> dict[str, Any]:
    """Ask the token endpoint; it must answer with tokens."""
    answer = await http.post(f"{demo.server.base}/oauth/token", data=form)
    assert answer.status_code == 200, (answer.status_code, answer.text)
    return dict(answer.json())


# ---------------------------------------------------------------- what an operator does


@dataclass
class Operator:
    """Rotates the keys of a running demo. Time passes for them by moving what is stored."""

    demo: Demo

    @property
    def _secret(self) -> bytes:
        return bytes.fromhex((self.demo.folder / "secret.key").read_text("ascii"))

    async def rotate(self) -> ListedKey:
        """Make a new signing key, which signs once everybody can have read it."""
        async with self._store() as store:
            return await rotate_signing_key(
                store, self._secret, now=time.time(), random=secrets.token_bytes
            )

    async def keys(self) -> tuple[ListedKey, ...]:
        """The keys, the newest first."""
        async with self._store() as store:
            return await list_signing_keys(store, self._secret, now=time.time())

    async def retire(self, kid: str) -> ListedKey:
        """Stop publishing a key. Raises `KeyInUse` while tokens that it signed are good."""
        async with self._store() as store:
            return await retire_signing_key(store, self._secret, kid, now=time.time())

    async def let_pass(self, seconds: float) -> None:
        """Let the keys be older, as if so much time had passed."""

        async def work(transaction: Any) -> None:
            for key in await transaction.every(SigningKey):
                await transaction.put(
                    msgspec.structs.replace(
                        key, created=key.created - seconds, signs_from=key.signs_from - seconds
                    )
                )

        async with self._store() as store:
            await store.transact(work)

    @contextlib.asynccontextmanager
    async def _store(self) -> AsyncIterator[PortalStore]:
        store = await self.demo.place.open()
        try:
            yield store
        finally:
            await store.aclose()


async def rotate_under_load(load: Load, operator: Operator, *, restarting: bool) -> None:
    """One rotation from the new key to the old one's end; processes are replaced on the way."""
    server = load.demo.server
    (old,) = [one for one in await operator.keys() if one.state == "signing"]
    new = await operator.rotate()
    assert new.state == "next"
    load.kids.clear()
    await load.some_more()
    assert set(load.kids) == {old.kid}, "a key signs that apps may not know yet"

    # All that apps kept is over, and what they read now has both keys.
    load.keys.grow_older(JWKS_SECONDS)
    await operator.let_pass(JWKS_SECONDS)
    await load.some_more()
    assert set(load.kids) == {old.kid}
    if restarting:
        await server.replace_processes()
        await load.some_more()

    read = load.keys.read
    await operator.let_pass(PUBLISHED_SECONDS - JWKS_SECONDS)
    await load.some_more()  # what was under way is answered
    load.kids.clear()
    await load.some_more()
    assert set(load.kids) == {new.kid}
    assert load.keys.read == read, "an app had to read the keys again before the time"

    try:
        await operator.retire(old.kid)
    except KeyInUse:
        pass
    else:
        raise AssertionError("a key was retired whose tokens are good yet")
    if restarting:
        await server.replace_processes()
    await operator.let_pass(HOUR)
    assert (await operator.retire(old.kid)).state == "retired"
    await load.some_more()
    assert set(load.kids) == {new.kid}


async def run(folder: Path, place: Place, *, rounds: int) -> None:
    """Rotate and restart again and again under load, and print what the apps got."""
    demo = Demo(folder, place)
    try:
        await demo.start()
        load, operator = Load(demo), Operator(demo)
        started = time.monotonic()
        async with load.at_work():
            for number in range(rounds):
                before = demo.server.processes()
                await rotate_under_load(load, operator, restarting=True)
                after = demo.server.processes()
                print(
                    f"round {number + 1}: a new key signs, the old one is retired; "
                    f"processes {sorted(before)} became {sorted(after)} in two turns"
                )
        seconds = time.monotonic() - started
        print(
            f"{load.answers.total()} requests in {seconds:.0f} s, keys read {load.keys.read} times"
        )
        for (what, outcome), count in sorted(load.answers.items()):
            print(f"  {what}: {count} times {outcome}")
        print("nothing failed" if not load.wrong else f"FAILED: {load.wrong}")
    finally:
        demo.stop()
        await place.drop()


def main() -> None:
    """Run with the figures given."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    ask_for_place(parser)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        asyncio.run(run(folder, asked_place(given.place, folder), rounds=given.rounds))


if __name__ == "__main__":
    main()
