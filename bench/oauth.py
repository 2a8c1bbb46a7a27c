"""Measure what authorization costs: the token check of a read, and the token endpoint.

    python -m bench.oauth              into bench/RESULTS.md   (about three minutes)
    python -m bench.oauth --smoke      a little of each; checks that all of it succeeds

The check: the very application of a server, in process, reads by id with a token as a request
brings it, and again with the caller it stands for put in the place of `Callers.of` and `confirm`.
All else is the same: the process, the store, the addresses, decision, filter and access log. Rounds
alternate; what the check adds is the difference of two neighbours. There is no HTTP in it, which
would only make the share smaller. With FHIR_PORTAL_TEST_MONGODB_URI the same on MongoDB.

The token endpoint: over HTTP, every request its own token, code or assertion, beside the bare
server that reads the same requests and returns the same bytes (`bench/run.py`, wrk). Forms for a
round are made by what the round before it used; one in which they do not last counts for nothing
and is run again with twice as many.
Needs what the tests need (``make .venv/.test``).
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import functools
import hashlib
import itertools
import math
import secrets
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final, NamedTuple
from urllib.parse import urlencode

import httpx
import msgspec
import uvloop
from joserfc import jwt
from joserfc.jwk import ECKey, Key, RSAKey

from bench import run
from fhir_portal.access.context import AuthContext
from fhir_portal.app import Application
from fhir_portal.fhir.interaction import FhirRequest
from fhir_portal.records import Record
from fhir_portal.settings import load
from fhir_portal.smart.client import Client, add_client
from fhir_portal.smart.code import AuthorizationCode
from fhir_portal.smart.dpop import Shown
from fhir_portal.smart.token import (
    HANDLE_BYTES,
    AccessToken,
    RefreshToken,
    TokenFamily,
    family_key,
    token_hash,
)
from tests.end_to_end.running import (
    EHR_TOKEN,
    PATIENT_TOKEN,
    PRACTICE,
    an_observation,
    prepare,
    settings_of,
)
from tests.places import SERVER, TRANSACTIONS, Database, File, Place
from tests.smart.proofs import Holder

Act = Callable[[], Awaitable[None]]
Make = Callable[[int], list[str]]
"""Makes so many forms that nobody has used."""

SECTION: Final = "oauth"
BASE: Final = "http://127.0.0.1:8000"
BOUND_TOKEN: Final = "bound-" * 8
READS: Final = 200
"""So many different resources are read in turn."""
BAR: Final = 0.15
"""What the check may add to a read on the embedded store."""
REDIRECT: Final = "https://app.example.org/callback"
VERIFIER: Final = "v" * 64
SCOPE: Final = "openid fhirUser launch/patient offline_access patient/Observation.rs"
DAY: Final = 86_400
BATCH: Final = 500
MARGIN: Final = 1.5
"""Forms for a round, beside what the round before it used: threads are not even, nor rounds."""

CHECKED: Final = (
    (
        "| read by id, in process | store | at once | us, given the caller | us, checked | added "
        "| lowest to highest | CPU us, given | checked | added | bar: 15% |"
    ),
    "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | --- |",
)
BESIDE: Final = (
    "| check | store | at once | us for one read | per second |",
    "| --- | --- | ---: | ---: | ---: |",
)
ENDPOINT: Final = (
    "| token endpoint | bare/s | ours/s | of bare | p50 ms | p99 ms |",
    "| --- | ---: | ---: | ---: | ---: | ---: |",
)


# --- the token check --------------------------------------------------------------------------


@dataclass
class Reader:
    """An application in process, and reads of it."""

    app: Application
    callers: dict[str, AuthContext]
    checks: Mapping[str, Any]

    @classmethod
    async def over(cls, folder: Path, place: Place) -> Reader:
        """An application that has answered with every token."""
        app = Application(load(**settings_of(folder, place), base_url=BASE))
        await app.open()
        found = cls(app, {}, {})
        for token in (PATIENT_TOKEN, EHR_TOKEN):
            found.callers[token] = await app.portal.callers.of(token)
        return found

    def read(self, number: int, token: str, **headers: str) -> Act:
        """Return what reads one Observation."""
        path = f"/fhir/Observation/o{number % READS}"
        sent = {"host": "127.0.0.1:8000", "authorization": f"Bearer {token}", **headers}
        raw = [(name.encode(), value.encode()) for name, value in sent.items()]

        async def act() -> None:
            statuses: list[int] = []

            async def receive() -> dict[str, Any]:
                return {"type": "http.request", "body": b"", "more_body": False}

            async def send(message: Mapping[str, Any]) -> None:
                if message["type"] == "http.response.start":
                    statuses.append(message["status"])

            scope = {
                "type": "http",
                "http_version": "1.1",
                "method": "GET",
                "scheme": "http",
                "path": path,
                "raw_path": path.encode(),
                "query_string": b"",
                "headers": raw,
                "client": ("127.0.0.1", 1),
                "server": ("127.0.0.1", 8000),
                "state": {},
            }
            await self.app(scope, receive, send)
            if statuses != [200]:
                raise run.Failed(f"GET {path}: {statuses}")

        return act

    @contextlib.contextmanager
    def given(self, token: str) -> Iterator[None]:
        """Have the caller be known before the request comes: no check at all."""
        caller, callers = self.callers[token], self.app.portal.callers

        async def of(bearer: str, shown: Shown | None = None) -> AuthContext:  # noqa: ARG001
            return caller

        async def confirm(auth: AuthContext) -> None:
            pass

        callers.of, callers.confirm = of, confirm  # type: ignore[method-assign]
        try:
            yield
        finally:
            del callers.of, callers.confirm

    def forgetting(self, act: Act) -> Act:
        """What finds the caller anew each time, as the first read after any commit does."""
        callers = self.app.portal.callers

        async def anew() -> None:
            callers._by_bearer.clear()  # noqa: SLF001 - nothing else makes it forget but a commit
            await act()

        return anew


class Took(NamedTuple):
    """Microseconds for one request: by the clock, and of this process's CPU."""

    wall: float
    cpu: float


async def per_request(acts: Sequence[Act], at_once: int, seconds: float) -> Took:
    """Do them in turn for a time, so many at once."""
    turn, done = itertools.cycle(acts), 0
    began, cpu = time.perf_counter(), time.process_time()
    ends = began + seconds

    async def work() -> None:
        nonlocal done
        while time.perf_counter() < ends:
            await next(turn)()
            done += 1

    await asyncio.gather(*(work() for _ in range(at_once)))
    return Took(
        (time.perf_counter() - began) / done * 1e6, (time.process_time() - cpu) / done * 1e6
    )


async def checks(place: Place, folder: Path, arguments: argparse.Namespace) -> list[list[str]]:
    """Measure reads with and without the check, and what the check is when it is not remembered."""
    kind = place.driver if isinstance(place, Database) else "embedded"
    await stocked(place, folder)
    reader = await Reader.over(folder, place)
    beside, found = [*CHECKED], [*BESIDE]
    for who, token in {"a person": PATIENT_TOKEN, "an EHR": EHR_TOKEN}.items():
        acts = [reader.read(number, token) for number in range(READS)]
        for at_once in (1, 16):
            pairs = []
            for number in range(arguments.pairs + 1):
                with reader.given(token):
                    given = await per_request(acts, at_once, arguments.in_process)
                checked = await per_request(acts, at_once, arguments.in_process)
                if number:
                    pairs.append((given, checked))
            beside.append(row(who, kind, at_once, pairs))
            print(beside[-1], flush=True)
        anew = [reader.forgetting(act) for act in acts]
        for at_once in (1, 16):
            took = await medians(anew, at_once, arguments)
            found.append(figure(f"{who}, first read after a commit", kind, at_once, took))
            print(found[-1], flush=True)
    for at_once in (1, 16):
        took = statistics.median(
            [await bound(reader, at_once, arguments) for _ in range(arguments.pairs)]
        )
        found.append(figure("an EHR's token bound to a key, a proof each", kind, at_once, took))
        print(found[-1], flush=True)
    await reader.app.close()
    return [beside, found]


async def medians(acts: Sequence[Act], at_once: int, arguments: argparse.Namespace) -> float:
    rounds = [
        await per_request(acts, at_once, arguments.in_process) for _ in range(arguments.pairs)
    ]
    return statistics.median(one.wall for one in rounds)


async def bound(reader: Reader, at_once: int, arguments: argparse.Namespace) -> float:
    """Read with proofs that were made before the clock starts; each is good once."""
    holder = Holder(SimpleNamespace(clock=time.time), HOLDER)
    acts = []
    for number in range(arguments.proofs):
        url = f"{BASE}/fhir/Observation/o{number % READS}"
        proof = holder.proof("GET", url, token=BOUND_TOKEN, jti=secrets.token_hex(12))
        acts.append(
            reader.read(number, BOUND_TOKEN, authorization=f"DPoP {BOUND_TOKEN}", dpop=proof)
        )
    began = time.perf_counter()
    waiting = iter(acts)

    async def work() -> None:
        for act in waiting:
            await act()

    await asyncio.gather(*(work() for _ in range(at_once)))
    return (time.perf_counter() - began) / len(acts) * 1e6


HOLDER: Final = ECKey.generate_key("P-256")


def row(who: str, kind: str, at_once: int, pairs: Sequence[tuple[Took, Took]]) -> str:
    wall, cpu = (
        [checked[at] / given[at] - 1 for given, checked in pairs] for at in range(len(Took._fields))
    )
    added, of_cpu = statistics.median(wall), statistics.median(cpu)
    bar = ("met" if max(added, of_cpu) < BAR else "missed") if kind == "embedded" else ""
    given, checked = zip(*pairs, strict=True)
    return (
        f"| {who} | {kind} | {at_once} | {statistics.median(one.wall for one in given):,.1f} | "
        f"{statistics.median(one.wall for one in checked):,.1f} | {added:.1%} | "
        f"{min(wall):.1%} to {max(wall):.1%} | {statistics.median(one.cpu for one in given):,.1f} "
        f"| {statistics.median(one.cpu for one in checked):,.1f} | {of_cpu:.1%} | {bar} |"
    )


def figure(what: str, kind: str, at_once: int, took: float) -> str:
    return f"| {what} | {kind} | {at_once} | {took:,.0f} | {1e6 / took:,.0f} |"


async def stocked(place: Place, folder: Path) -> None:
    """Make the store of `prepare`, with more to read and a token that is bound to a key."""
    await prepare(folder, place)
    app = Application(load(**settings_of(folder, place), base_url=BASE))
    await app.open()
    ehr = await app.portal.callers.of(EHR_TOKEN)
    entries = [
        {
            "resource": {**an_observation(number), "id": f"o{number}"},
            "request": {"method": "PUT", "url": f"Observation/o{number}"},
        }
        for number in range(READS)
    ]
    bundle = {"resourceType": "Bundle", "type": "transaction", "entry": entries}
    await app.portal.perform(FhirRequest("bundle", body=msgspec.json.encode(bundle)), ehr)
    now = time.time()
    token = AccessToken(
        key=token_hash(BOUND_TOKEN),
        client_id="ehr",
        context="system",
        scope="system/*.rs",
        practice=PRACTICE,
        issued=now,
        expires=now + DAY,
        jkt=HOLDER.thumbprint(),
    )
    await app.store.transact(lambda transaction: transaction.put(token))
    await app.close()


# --- the token endpoint -----------------------------------------------------------------------


OF_IDA: Final[Mapping[str, Any]] = {
    "client_id": "app",
    "account": "ida",
    "patient": "Patient/ida",
    "practice": PRACTICE,
    "fhir_user": "Patient/ida",
    "grant": None,
    "scope": SCOPE,
}
KEYS: Final[Mapping[str, Key]] = {
    "ES384": ECKey.generate_key("P-384", {"kid": "es"}),
    "RS384": RSAKey.generate_key(2048, {"kid": "rs"}),
}


@contextlib.asynccontextmanager
async def opened(place: Place, folder: Path) -> AsyncIterator[Application]:
    """An application on the store, for as long as something is written there."""
    app = Application(load(**settings_of(folder, place), base_url=BASE))
    await app.open()
    try:
        yield app
    finally:
        await app.close()


async def registered(place: Place, folder: Path) -> None:
    """Keep the clients whose forms are sent, with their keys."""
    async with opened(place, folder) as app:
        jwks = {"keys": [key.as_dict(private=False) for key in KEYS.values()]}
        await add_client(
            app.store,
            client_id="backend",
            name="Backend",
            type="backend",
            scope="system/*.rs",
            practice=PRACTICE,
            jwks=jwks,
            now=time.time(),
            random=secrets.token_bytes,
        )
        client = await app.store.get(Client, "app")
        assert client is not None  # noqa: S101 - `prepare` made it
        allowed = msgspec.structs.replace(client, scope=SCOPE, redirect_uris=(REDIRECT,))
        await app.store.transact(lambda transaction: transaction.put(allowed))


async def refresh_tokens(place: Place, folder: Path, count: int) -> list[str]:
    """Keep so many families; return the forms that refresh them."""
    forms, rows = [], []
    async with opened(place, folder) as app:
        for _ in range(count):
            handle, now = secrets.token_bytes(HANDLE_BYTES), time.time()
            rows.append(
                TokenFamily(
                    key=family_key(handle), expires=now + DAY, issued=now, rotated=now, **OF_IDA
                )
            )
            token = str(RefreshToken.derive(app.keys, handle, 0))
            form = {"client_id": "app", "grant_type": "refresh_token", "refresh_token": token}
            forms.append(urlencode(form))
        await kept(app, rows)
    return forms


async def codes(place: Place, folder: Path, count: int) -> list[str]:
    """Keep so many codes; return the forms that exchange them."""
    digest = base64.urlsafe_b64encode(hashlib.sha256(VERIFIER.encode()).digest())
    forms, rows = [], []
    for _ in range(count):
        code, now = secrets.token_urlsafe(32), time.time()
        rows.append(
            AuthorizationCode(
                key=token_hash(code),
                expires=now + DAY,
                good_until=now + DAY,
                redirect_uri=REDIRECT,
                code_challenge=digest.rstrip(b"=").decode(),
                nonce=None,
                auth_time=now,
                **OF_IDA,
            )
        )
        form = {
            "client_id": "app",
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": REDIRECT,
            "code_verifier": VERIFIER,
        }
        forms.append(urlencode(form))
    async with opened(place, folder) as app:
        await kept(app, rows)
    return forms


async def kept(app: Application, rows: Sequence[Record]) -> None:
    for low in range(0, len(rows), BATCH):

        async def keep(transaction: Any, low: int = low) -> None:
            for one in rows[low : low + BATCH]:
                await transaction.put(one)

        await app.store.transact(keep)


def assertions(url: str, alg: str, count: int) -> list[str]:
    """Forms of a backend client, each with an assertion of its own (SMART 2.2 §5)."""
    forms = []
    for _ in range(count):
        claims = {
            "iss": "backend",
            "sub": "backend",
            "aud": f"{url}/oauth/token",
            "exp": int(time.time()) + 290,
            "jti": secrets.token_hex(12),
        }
        header = {"alg": alg, "typ": "JWT", "kid": KEYS[alg].kid}
        forms.append(
            urlencode(
                {
                    "grant_type": "client_credentials",
                    "scope": "system/*.rs",
                    "client_assertion_type": (
                        "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
                    ),
                    "client_assertion": jwt.encode(header, claims, KEYS[alg], algorithms=[alg]),
                }
            )
        )
    return forms


def endpoint(place: Place, folder: Path, arguments: argparse.Namespace) -> list[str]:
    """Measure the token endpoint beside the bare server."""
    lines = [*ENDPOINT]
    with (
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
        serving(place, folder) as url,
    ):
        runner.run(registered(place, folder))
        kinds: dict[str, Make] = {
            "refresh": lambda count: runner.run(refresh_tokens(place, folder, count)),
            "code exchange": lambda count: runner.run(codes(place, folder, count)),
            **{
                f"client_credentials, {alg}": functools.partial(assertions, url, alg)
                for alg in KEYS
            },
        }
        for kind, make in kinds.items():
            lines.append(one_kind(kind, url, make, arguments, folder))
            print(lines[-1], flush=True)
    return lines


def one_kind(kind: str, url: str, make: Make, arguments: argparse.Namespace, folder: Path) -> str:
    """Drive both servers in turn with the same kind of form; ours never sees one twice."""
    form = {"content-type": "application/x-www-form-urlencoded", "accept-encoding": "identity"}
    (first,) = make(1)
    reply = httpx.post(f"{url}/oauth/token", content=first, headers=form)
    scenario = run.Scenario(
        kind,
        "POST",
        ["/oauth/token"],
        run.as_answer(reply),
        body=first,
        content_type=form["content-type"],
    )
    count = arguments.forms
    bare: list[run.Round] = []
    ours: list[run.Round] = []
    with run.the_reference(scenario.answer, folder) as reference:
        for _ in range(arguments.rounds + 1):
            bare.append(run.drive(scenario, reference, "", arguments.seconds, folder))
            ours.append(with_enough(scenario, url, make, count, arguments.seconds, folder))
            count = math.ceil(ours[-1].per_second * arguments.seconds * MARGIN)
    bare, ours = bare[1:] or bare, ours[1:] or ours
    rate, of = run.median(ours, "per_second"), run.median(bare, "per_second")
    return (
        f"| {kind} | {of:,.0f} | {rate:,.0f} | {rate / of:.1%} | "
        f"{run.median(ours, 'p50'):.2f} | {run.median(ours, 'p99'):.2f} |"
    )


def with_enough(
    scenario: run.Scenario, url: str, make: Make, count: int, seconds: float, folder: Path
) -> run.Round:
    """One round; again, and with twice as many forms, where they did not last to its end."""
    while True:
        try:
            return run.drive(replace(scenario, bodies=make(count)), url, "", seconds, folder)
        except run.UsedUp:
            count *= 2


@contextlib.contextmanager
def serving(place: Place, folder: Path) -> Iterator[str]:
    """Run a server on a store; yields its address."""
    port = run.free_port()
    url = f"http://127.0.0.1:{port}"
    settings = settings_of(folder, place)
    environment = {f"FHIR_PORTAL_{name.upper()}": str(value) for name, value in settings.items()}
    environment |= {"FHIR_PORTAL_BASE_URL": url, "FHIR_PORTAL_LOG_LEVEL": "warning"}
    command = [sys.executable, "-m", "fhir_portal", "serve", "--port", str(port)]
    with run.running(command, f"{url}/health/ready", **environment):
        yield url


# --- all of it --------------------------------------------------------------------------------


def measure(arguments: argparse.Namespace, folder: Path) -> str:
    """Measure everything and return the section of the results it makes."""
    tables: list[list[str]] = []
    places: list[Place] = [File(folder / "portal.db")]
    if SERVER:
        places.append(Database.new(SERVER, "motor", transactions=TRANSACTIONS))
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        for number, place in enumerate(places):
            own = folder / str(number)
            own.mkdir()
            try:
                found = runner.run(checks(place, own, arguments))
            finally:
                if number:
                    runner.run(place.drop())
            if number:
                found = [[*one, *more[2:]] for one, more in zip(tables, found, strict=True)]
            tables = found
    if shutil.which("wrk"):
        tables.append(endpoint(places[0], folder / "0", arguments))
    else:
        print("wrk is missing: the token endpoint was not measured")
    today = time.strftime("%Y-%m-%d", time.gmtime())
    head = (
        f"{today}, {run.machine()}; {arguments.pairs} pairs of {arguments.in_process:g} s in "
        f"process, {arguments.rounds} rounds of {arguments.seconds:g} s over HTTP, 16 connections."
    )
    return "\n".join(["", head, *itertools.chain(*(["", *table] for table in tables)), ""])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--smoke", action="store_true", help="a little of each, no figures")
    parser.add_argument("--pairs", type=int, default=15)
    parser.add_argument("--in-process", type=float, default=0.4, help="length of a round")
    parser.add_argument("--proofs", type=int, default=300, help="proofs in a round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=2, help="length of a round over HTTP")
    parser.add_argument("--forms", type=int, default=4000, help="forms for a first round")
    arguments = parser.parse_args()
    if arguments.smoke:
        arguments.pairs, arguments.in_process, arguments.proofs = 1, 0.05, 20
        arguments.rounds, arguments.seconds, arguments.forms = 0, 1, 1000
    elif not shutil.which("wrk"):
        sys.exit("wrk is missing: apt-get install wrk")
    with tempfile.TemporaryDirectory() as folder:
        try:
            section = measure(arguments, Path(folder))
            if not arguments.smoke:
                run.record(SECTION, section)
        except run.Failed as failure:
            sys.exit(str(failure))


if __name__ == "__main__":
    main()
