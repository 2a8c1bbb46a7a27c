"""Measure the MongoDB store beside its own driver finding the same, and beside the embedded store.

    python bench/mongo.py              into bench/RESULTS.md   (about five minutes)
    python bench/mongo.py --smoke      a little of each; checks that all of it succeeds

On the server that FHIR_PORTAL_TEST_MONGODB_URI names (FHIR_PORTAL_TEST_MONGODB_TRANSACTIONS=0 for
one without transactions), in a database of its own that is dropped at the end. Needs what the tests
need (``make .venv/.test``), and wrk, without which --smoke leaves out what goes over HTTP.

Rounds alternate between what is compared, so that what else the machine does meets both; figures
are medians over the rounds, with the lowest and highest beside them. In process one event loop does
everything; over HTTP one server process is on the first core and wrk on the second. Wherever the
database and its like run, they share these cores: the figures say how our part compares, not how
fast a MongoDB is.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import functools
import itertools
import secrets
import shutil
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, NamedTuple

import httpx
import uvloop
from pymongo import AsyncMongoClient, ReadPreference, monitoring
from pymongo.read_concern import ReadConcern

from bench import run, scale
from fhir_portal.access.context import AuthContext
from fhir_portal.access.policy import Ask, Permit, decide
from fhir_portal.accounts.practice import Practice
from fhir_portal.app import Application
from fhir_portal.fhir.interaction import FhirRequest
from fhir_portal.fhir.reference import ResourceKey
from fhir_portal.mongo.driver import MongoDriver, connect
from fhir_portal.mongo.store import MongoStore
from fhir_portal.portal import Portal
from fhir_portal.resources.store import PortalStore
from fhir_portal.search.request import parse_search
from fhir_portal.settings import load
from fhir_portal.smart.client import Client
from fhir_portal.smart.keys import derive
from fhir_portal.smart.token import AccessToken, token_hash
from tests.places import DRIVERS, NO_SERVER, SERVER, TRANSACTIONS, Database, File, Place

Act = Callable[[], Awaitable[Any]]
Question = Callable[[PortalStore, int], Awaitable[Any]]
"""Asks a store; the number says about which of its resources."""

SECTION: Final = "mongodb"
BASE: Final = "http://127.0.0.1:8000/fhir"
DIFFERENT: Final = 100
"""So many different reads, and searches, are done in turn."""
BAR: Final = 0.5
"""The share of the bare driver's finds per second that the store has to reach."""
BATCH: Final = 100
COUNTED: Final = 20
"""Requests whose commands are counted."""
PAGE: Final = 20
PATIENT: Final = "Patient/new"
"""Whose resources are written: not one whose are searched."""
CATEGORY: Final = f"{scale.CATEGORY}|vital-signs"

FOUND: Final = (
    (
        "| found, in process | driver | at once | bare/s | store/s | of bare | lowest to highest "
        "| bar: half | CPU us, bare | store |"
    ),
    "| --- | --- | ---: | ---: | ---: | ---: | ---: | --- | ---: | ---: |",
)
WRITTEN: Final = (
    "| written, in process | store | at once | resources/s | lowest to highest |",
    "| --- | --- | ---: | ---: | ---: |",
)
SENT: Final = (
    "| commands for one request | in all | |",
    "| --- | ---: | --- |",
)


# --- the data ---------------------------------------------------------------------------------


async def filled(place: Place, resources: int, token: str) -> None:
    """Store the Observations of `bench.scale`, a practice, and its EHR with a token."""
    store = await place.open()
    try:
        began = time.monotonic()
        portal = portal_over(store)
        for low in range(0, resources, BATCH):
            await scale.fill(portal, low, min(low + BATCH, resources))
        rate = resources / (time.monotonic() - began)
        await store.transact(lambda transaction: registered(transaction, token))
        print(f"{resources:,} resources at {rate:,.0f}/s into {kind_of(place)}", flush=True)
    finally:
        await store.aclose()


def portal_over(store: PortalStore) -> Portal:
    return Portal.over(
        store,
        store.log,
        clock=time.time,
        base=BASE,
        aliases=(),
        derive=functools.partial(derive, secrets.token_bytes(32)),
    )


async def registered(transaction: Any, token: str) -> None:
    """Keep what a server asks for before it lets the EHR in."""
    now = time.time()
    await transaction.put(Practice(key=scale.PRACTICE, name="Scale"))
    await transaction.put(
        Client(
            key="ehr",
            name="EHR",
            type="backend",
            auth_method="private_key_jwt",
            scope="system/*.cruds",
            registered=now,
            practice=scale.PRACTICE,
        )
    )
    await transaction.put(
        AccessToken(
            key=token_hash(token),
            client_id="ehr",
            context="system",
            scope="system/*.cruds",
            expires=now + 86_400,
            issued=now,
            practice=scale.PRACTICE,
        )
    )


def kind_of(place: Place) -> str:
    return place.driver if isinstance(place, Database) else "embedded"


async def what_it_is(place: Database) -> str:
    """Name the server."""
    async with AsyncMongoClient[dict[str, Any]](place.uri) as client:
        built = await client.admin.command("buildInfo")
    name = f"MongoDB {built['version']}"
    if "ferretdb" in built:
        name = f"FerretDB {built['ferretdb']['version']} (as {name})"
    return f"{name}, {'with' if place.transactions else 'without'} transactions"


# --- the store beside the driver --------------------------------------------------------------


class Bare(MongoDriver):
    """A driver whose client can be asked past us."""

    def __init__(self, client: Any, database: str, name: Any) -> None:
        super().__init__(client, database, name)
        self.database = client.get_database(
            database, read_preference=ReadPreference.PRIMARY, read_concern=ReadConcern("majority")
        )

    def found(self, command: Mapping[str, Any]) -> Act:
        """Return what sends this find and awaits its documents, and does nothing else."""
        options = {
            "projection": command["projection"],
            "hint": command["hint"],
            "max_time_ms": command["maxTimeMS"],
        }
        if "sort" in command:
            options["sort"] = list(command["sort"].items())
        if "limit" in command:
            options |= {"limit": command["limit"], "batch_size": command["limit"]}
        find = self.database[command["find"]].find
        return lambda: find(command["filter"], **options).to_list(None)


class Commands(monitoring.CommandListener):
    """Keeps the commands that are sent."""

    def __init__(self) -> None:
        self.sent: list[Mapping[str, Any]] = []

    def started(self, event: monitoring.CommandStartedEvent) -> None:
        self.sent.append(dict(event.command))

    def succeeded(self, event: monitoring.CommandSucceededEvent) -> None:
        pass

    def failed(self, event: monitoring.CommandFailedEvent) -> None:
        pass


def questions(resources: int) -> dict[str, Question]:
    """Return what the store is asked for."""
    patients = max(1, resources // scale.OF_ONE)
    people = [scale.a_person(f"p{number}") for number in range(patients)]
    ehr = scale.an_ehr()
    category = parse_search(
        "Observation", [("category", CATEGORY), ("_count", str(PAGE))], base=BASE
    )
    codes = [
        parse_search(
            "Observation",
            [("code", f"http://loinc.org|{8000 + number}-4"), ("_count", str(PAGE))],
            base=BASE,
        )
        for number in range(90)
    ]

    def read(store: PortalStore, number: int, auth: AuthContext) -> Awaitable[Any]:
        return store.read(ResourceKey("Observation", f"o{number}"), visible(auth, "r"))

    return {
        "read, a person": lambda store, n: read(store, n, people[n // scale.OF_ONE % patients]),
        "read, an EHR": lambda store, n: read(store, n, ehr),
        "search page of 20, a person, category": lambda store, n: store.search(
            category, visible(people[n // scale.OF_ONE % patients], "s")
        ),
        "search page of 20, an EHR, code": lambda store, n: store.search(
            codes[n % len(codes)], visible(ehr, "s")
        ),
    }


def visible(auth: AuthContext, letter: str) -> Any:
    permit = decide(auth, Ask(letter, "Observation", time.time()))
    if not isinstance(permit, Permit):
        raise run.Failed(str(permit))
    return permit.visible


async def sent_for(
    place: Database, ask: Question, numbers: Sequence[int]
) -> list[Mapping[str, Any]]:
    """Return the one find that each of these becomes."""
    commands = Commands()
    client: Any = AsyncMongoClient(place.uri, event_listeners=[commands])
    store = await MongoStore.over(
        MongoDriver(client, place.name, "pymongo"), transactions=place.transactions, expire=False
    )
    found = []
    for number in numbers:
        commands.sent.clear()
        answer = await ask(store, number)
        if answer is None or getattr(answer, "rows", True) == ():
            raise run.Failed(f"nothing was found for {number}")
        (command,) = commands.sent
        found.append(command)
    await store.aclose()
    return found


@contextlib.asynccontextmanager
async def store_on(place: Database) -> AsyncIterator[tuple[MongoStore, Bare]]:
    """Open the store on a driver that can be asked past it."""
    driver = connect(place.uri, place.driver, kind=Bare)
    store = await MongoStore.over(driver, transactions=place.transactions, expire=False)
    try:
        yield store, driver
    finally:
        await store.aclose()


class Rate(NamedTuple):
    """What a round gave: how many per second, and the CPU microseconds of this process for one."""

    per_second: float
    cpu: float


async def rate(acts: Sequence[Act], at_once: int, seconds: float) -> Rate:
    """Do these in turn, so many at once, for a while."""
    turns = itertools.cycle(acts)
    done = 0
    began, cpu = time.perf_counter(), time.process_time()

    async def one_after_another() -> None:
        nonlocal done
        while time.perf_counter() < began + seconds:
            await next(turns)()
            done += 1

    await asyncio.gather(*(one_after_another() for _ in range(at_once)))
    cpu = (time.process_time() - cpu) / done * 1e6
    return Rate(done / (time.perf_counter() - began), cpu)


async def alternate(
    sides: Mapping[str, Sequence[Act]], at_once: int, arguments: argparse.Namespace, seconds: float
) -> dict[str, list[Rate]]:
    """Measure each side in turn, round after round, after those for warming up."""
    found: dict[str, list[Rate]] = {name: [] for name in sides}
    for number in range(-arguments.warming, arguments.rounds):
        for name, acts in sides.items():
            one = await rate(acts, at_once, seconds)
            if number >= 0:
                found[name].append(one)
    return found


async def beside_the_driver(place: Database, arguments: argparse.Namespace) -> list[str]:
    """Compare what the store finds per second with what the driver alone does."""
    lines = [*FOUND]
    numbers = range(0, arguments.resources, max(1, arguments.resources // DIFFERENT))
    asked = questions(arguments.resources)
    sent = {name: await sent_for(place, ask, numbers) for name, ask in asked.items()}
    for driver in DRIVERS:
        async with store_on(replace(place, driver=driver)) as (store, bare):
            for (name, ask), at_once in itertools.product(asked.items(), arguments.at_once):
                sides: dict[str, Sequence[Act]] = {
                    "bare": [bare.found(command) for command in sent[name]],
                    "store": [functools.partial(ask, store, number) for number in numbers],
                }
                found = await alternate(sides, at_once, arguments, arguments.in_process)
                lines.append(beside(name, driver, at_once, found["bare"], found["store"]))
                print(lines[-1], flush=True)
    return lines


def beside(
    name: str, driver: str, at_once: int, bare: Sequence[Rate], store: Sequence[Rate]
) -> str:
    shares = [ours.per_second / its.per_second for its, ours in zip(bare, store, strict=True)]
    share = statistics.median(shares)
    return (
        f"| {name} | {driver} | {at_once} | {median(bare):,.0f} | {median(store):,.0f} | "
        f"{share:.0%} | {min(shares):.0%} to {max(shares):.0%} | "
        f"{'met' if share >= BAR else 'missed'} | "
        f"{statistics.median(one.cpu for one in bare):,.0f} | "
        f"{statistics.median(one.cpu for one in store):,.0f} |"
    )


def median(rates: Sequence[Rate]) -> float:
    return statistics.median(one.per_second for one in rates)


# --- writes -----------------------------------------------------------------------------------


async def writes(places: Sequence[Place], arguments: argparse.Namespace) -> list[str]:
    """Measure what is created per second through the front door, in process."""
    lines = [*WRITTEN]
    bundle = run.a_bundle([run.an_observation(PATIENT, number) for number in range(PAGE)])
    kinds = {
        "transactions of one create": (create_request(), 1),
        "transactions of 20 creates": (
            FhirRequest("bundle", body=run.compact(bundle).encode()),
            PAGE,
        ),
    }
    stores = {kind_of(place): await place.open() for place in places}
    portals = {kind: portal_over(store) for kind, store in stores.items()}
    for (name, (request, count)), at_once in itertools.product(kinds.items(), arguments.at_once):
        sides: dict[str, Sequence[Act]] = {
            kind: [functools.partial(portal.perform, request, scale.an_ehr())]
            for kind, portal in portals.items()
        }
        found = await alternate(sides, at_once, arguments, 2 * arguments.in_process)
        for kind, rates in found.items():
            written = [count * one.per_second for one in rates]
            lines.append(
                f"| {name} | {kind} | {at_once} | {statistics.median(written):,.0f} | "
                f"{min(written):,.0f} to {max(written):,.0f} |"
            )
            print(lines[-1], flush=True)
    for store in stores.values():
        await store.aclose()
    return lines


def create_request() -> FhirRequest:
    body = run.compact(run.an_observation(PATIENT)).encode()
    return FhirRequest("create", "Observation", body=body)


# --- over HTTP --------------------------------------------------------------------------------


def scenarios(url: str, token: str, resources: int) -> list[run.Scenario]:
    """Name what is asked for, after one answer of each kind."""
    patients = max(1, resources // scale.OF_ONE)
    step = max(1, resources // (5 * DIFFERENT))
    search = [
        f"/fhir/Observation?patient=p{number}&category=vital-signs&_count={PAGE}"
        for number in range(patients)
    ]
    create = create_request().body.decode()
    kinds = [
        ("read by id", "GET", [f"/fhir/Observation/o{n}" for n in range(0, resources, step)], None),
        ("search, page of 20", "GET", search, None),
        ("create", "POST", ["/fhir/Observation"], create),
    ]
    headers = {"authorization": f"Bearer {token}", "content-type": run.FHIR_JSON}
    with httpx.Client(base_url=url, headers=headers, timeout=60) as client:
        return [
            run.Scenario(
                name,
                method,
                targets,
                run.as_answer(client.request(method, targets[0], content=body)),
                body,
            )
            for name, method, targets, body in kinds
        ]


@contextlib.contextmanager
def serving(place: Place, folder: Path) -> Iterator[str]:
    """Run a server on a store; yields its address."""
    port = run.free_port()
    url = f"http://127.0.0.1:{port}"
    settings = {"data": folder / "portal.db", **place.settings}
    environment = {f"FHIR_PORTAL_{name.upper()}": str(value) for name, value in settings.items()}
    environment |= {"FHIR_PORTAL_BASE_URL": url, "FHIR_PORTAL_LOG_LEVEL": "warning"}
    program = str(Path(sys.executable).with_name("fhir-portal"))
    command = [program, "serve", "--port", str(port)]
    began = time.monotonic()
    with run.running(command, f"{url}/health/ready", **environment):
        print(f"server on {kind_of(place)} ready after {time.monotonic() - began:.1f} s")
        yield url


def over_http(
    places: Sequence[Place], token: str, arguments: argparse.Namespace, folder: Path
) -> list[str]:
    """Measure whole servers, one on each store."""
    lines = [*run.HEAD]
    with contextlib.ExitStack() as open_until_end:
        urls = {kind_of(p): open_until_end.enter_context(serving(p, folder)) for p in places}
        kinds: list[run.Scenario] = []
        for url in urls.values():
            kinds = scenarios(url, token, arguments.resources)  # the same, once each has answered
        for scenario in kinds:
            rounds: dict[str, list[run.Round]] = {kind: [] for kind in urls}
            for number in range(-arguments.warming, arguments.rounds):
                for kind, url in urls.items():
                    seconds = arguments.seconds if number >= 0 else 1
                    one = run.drive(scenario, url, token, seconds, folder)
                    if number >= 0:
                        rounds[kind].append(one)
            for kind, measured in rounds.items():
                lines.append(run.row(scenario.name, kind, measured))
                print(lines[-1], flush=True)
    return lines


async def commands_of_requests(
    place: Database, token: str, arguments: argparse.Namespace, folder: Path
) -> list[str]:
    """Count what the whole server sends to the database for one request at a time."""
    lines = [*SENT]
    commands = Commands()
    monitoring.register(commands)  # for every client from now on: nothing is measured any more
    url = "http://127.0.0.1:8000"
    app = Application(load(data=folder / "portal.db", base_url=url, **place.settings))
    await app.open()
    headers = {"authorization": f"Bearer {token}", "content-type": run.FHIR_JSON}
    patients = max(1, arguments.resources // scale.OF_ONE)
    body = create_request().body.decode()
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app), base_url=url, headers=headers
    ) as client:
        kinds: dict[str, Callable[[int], Awaitable[httpx.Response]]] = {
            "read by id": lambda n: client.get(f"/fhir/Observation/o{n}"),
            "search, page of 20": lambda n: client.get(
                f"/fhir/Observation?patient=p{n % patients}&category=vital-signs&_count={PAGE}"
            ),
            "create": lambda _: client.post("/fhir/Observation", content=body),
        }
        for name, request in kinds.items():
            for number in range(2 * COUNTED):
                if number == COUNTED:
                    commands.sent.clear()
                run.as_answer(await request(number % COUNTED))  # the second time all is known
            sent = Counter(described(command) for command in commands.sent)
            each = ", ".join(f"{what} {n / COUNTED:g}" for what, n in sent.most_common())
            lines.append(f"| {name} | {sent.total() / COUNTED:g} | {each} |")
            print(lines[-1], flush=True)
    await app.close()
    return lines


def described(command: Mapping[str, Any]) -> str:
    name = next(iter(command))
    return f"{name} {command[name]}" if isinstance(command[name], str) else name


# --- all of it --------------------------------------------------------------------------------


def measure(place: Database, arguments: argparse.Namespace, folder: Path) -> str:
    """Measure everything and return the section of the results it makes."""
    token = secrets.token_urlsafe(32)
    embedded = File(folder / "portal.db")
    every: list[Place] = [embedded, *(replace(place, driver=driver) for driver in DRIVERS)]
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        server = runner.run(what_it_is(place))
        for one in every[:2]:  # the database is the same for both drivers
            runner.run(filled(one, arguments.resources, token))
        tables = [
            runner.run(beside_the_driver(place, arguments)),
            runner.run(writes(every, arguments)),
        ]
        if shutil.which("wrk"):
            tables.append(over_http(every, token, arguments, folder))
        else:
            print("wrk is missing: nothing was measured over HTTP")
        tables.append(runner.run(commands_of_requests(place, token, arguments, folder)))
    today = time.strftime("%Y-%m-%d", time.gmtime())
    head = (
        f"{today}, {run.machine()}; {server}; {arguments.resources:,} observations; "
        f"{arguments.rounds} rounds of {arguments.in_process:g} s in process (writes: twice that) "
        f"and of {arguments.seconds:g} s over HTTP, 16 connections."
    )
    return "\n".join(["", head, *itertools.chain(*(["", *table] for table in tables)), ""])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--smoke", action="store_true", help="a little of each, no figures")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2, help="length of a round over HTTP")
    parser.add_argument("--in-process", type=float, default=0.4, help="length of one in process")
    parser.add_argument("--resources", type=int, default=10_000, help="observations to load")
    parser.set_defaults(warming=1, at_once=(1, 16))
    arguments = parser.parse_args()
    if not SERVER:
        sys.exit(NO_SERVER)
    if arguments.smoke:
        arguments.warming, arguments.rounds, arguments.resources = 0, 1, 200
        arguments.seconds, arguments.in_process, arguments.at_once = 1, 0.05, (1, 4)
    elif not shutil.which("wrk"):
        sys.exit("wrk is missing: apt-get install wrk")
    elif f"<!-- {SECTION} -->" not in run.RESULTS.read_text("utf-8"):
        sys.exit(f"{run.RESULTS} has no section {SECTION}")
    place = Database.new(SERVER, DRIVERS[0], transactions=TRANSACTIONS)
    with tempfile.TemporaryDirectory() as folder:
        try:
            section = measure(place, arguments, Path(folder))
            if not arguments.smoke:
                run.record(SECTION, section)
        except run.Failed as failure:
            sys.exit(str(failure))
        finally:
            asyncio.run(place.drop())


if __name__ == "__main__":
    main()
