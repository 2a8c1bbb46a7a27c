"""Measure the server beside a bare one that returns the same bytes.

    python bench/run.py                     both, into bench/RESULTS.md   (about five minutes)
    python bench/run.py --reference-only    how fast HTTP alone is on this machine
    python bench/run.py --smoke             a few requests each; checks that all of them succeed

One server process on the first core, wrk on the second, 16 connections. Rounds alternate
between the two servers, so that what else the machine does meets both; the figures are medians
over the rounds, with the lowest and highest beside them. wrk is a Debian package
(``apt-get install wrk``); --smoke goes without it where it is missing.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import hashlib
import json
import os
import platform
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from html import unescape
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urljoin, urlsplit

import httpx
from joserfc import jwt
from joserfc.jwk import KeySet, import_key

HERE = Path(__file__).parent
RESULTS = HERE / "RESULTS.md"
FHIR_JSON = "application/fhir+json"
BARE_READS = 28_000  # what the bare server gave per second where the bars for writes were set
CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1


@dataclass(frozen=True)
class Answer:
    """What a server replied, to be replied again by the bare one."""

    status: int
    headers: list[tuple[str, str]]
    body: str


NO_ANSWER = Answer(0, [], "")
"""Of a request that is not held against the bare server."""


@dataclass(frozen=True)
class Scenario:
    """One kind of request, the answer the bare server gives to it, and the bar to reach.

    ``share`` is of the bare server's throughput; ``rate`` is per second on a core where the bare
    server manages `BARE_READS` reads, and is scaled by what it manages here. ``bodies`` are for
    requests that may be sent once each; where they do not suffice, the round is `UsedUp`.
    """

    name: str
    method: str
    targets: Sequence[str]
    answer: Answer
    body: str | None = None
    share: float | None = None
    rate: float | None = None
    content_type: str = FHIR_JSON
    bodies: Sequence[str] = ()


@dataclass(frozen=True)
class Round:
    """What one run of wrk measured: requests per second, latencies in milliseconds."""

    per_second: float
    p50: float
    p99: float


@dataclass(frozen=True)
class Ratio:
    """A request that may take so many times as long as another one of the same person's."""

    name: str
    target: str
    reads: Sequence[str]
    bar: float


class Failed(Exception):
    """A server that did not start, or an answer that was not a success."""


class UsedUp(Failed):
    """More requests could have been made than there were bodies to send once each."""


# --- the data ---------------------------------------------------------------------------------


def a_patient(number: int) -> dict[str, Any]:
    """An invented patient."""
    return {
        "resourceType": "Patient",
        "identifier": [{"system": "https://bench.example.org/mrn", "value": f"B{number:06}"}],
        "active": True,
        "name": [{"use": "official", "family": f"Bench{number}", "given": ["Robin"]}],
        "gender": "other",
        "birthDate": f"{1940 + number % 80}-07-0{1 + number % 9}",
    }


def an_observation(patient: str, number: int = 0) -> dict[str, Any]:
    """A heart rate of about 900 bytes, as an EHR would send it."""
    at = datetime(2024, 1, 1, 8, tzinfo=UTC) + timedelta(hours=number)
    loinc, units = "http://loinc.org", "http://unitsofmeasure.org"
    return {
        "resourceType": "Observation",
        "identifier": [{"system": "https://bench.example.org/obs", "value": f"{number:08}"}],
        "status": "final",
        "category": [
            {
                "coding": [
                    {
                        "system": "http://terminology.hl7.org/CodeSystem/observation-category",
                        "code": "vital-signs",
                        "display": "Vital Signs",
                    }
                ],
                "text": "Vital Signs",
            }
        ],
        "code": {
            "coding": [{"system": loinc, "code": "8867-4", "display": "Heart rate"}],
            "text": "Heart rate",
        },
        "subject": {"reference": patient},
        "effectiveDateTime": at.isoformat(),
        "issued": (at + timedelta(minutes=4)).isoformat(timespec="milliseconds"),
        "valueQuantity": {
            "value": 60 + number % 40,
            "unit": "beats/minute",
            "system": units,
            "code": "/min",
        },
        "interpretation": [{"text": "Within the expected range"}],
        "note": [{"text": "Seated, after five minutes of rest; cuff on the left."}],
        "referenceRange": [
            {"low": {"value": 50, "unit": "/min"}, "high": {"value": 100, "unit": "/min"}}
        ],
    }


def a_bundle(resources: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """A transaction that creates the resources."""
    return {
        "resourceType": "Bundle",
        "type": "transaction",
        "entry": [
            {
                "fullUrl": f"urn:uuid:{uuid.uuid4()}",
                "resource": resource,
                "request": {"method": "POST", "url": resource["resourceType"]},
            }
            for resource in resources
        ],
    }


def compact(tree: dict[str, Any]) -> str:
    return json.dumps(tree, separators=(",", ":"))


# --- the servers ------------------------------------------------------------------------------


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def on_core(core: int) -> list[str]:
    """Return the words that pin a command to a core, where there are two and a way to do it."""
    return ["taskset", "-c", str(core)] if CORES > 1 and shutil.which("taskset") else []


@contextlib.contextmanager
def running(command: Sequence[str], ready: str, **environment: str) -> Iterator[int]:
    """Run a server until the block ends; yields its process id once ``ready`` answers 200."""
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            [*on_core(0), *command],
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        try:
            deadline = time.monotonic() + 120
            while not answers(ready):
                if process.poll() is not None or time.monotonic() > deadline:
                    log.seek(0)
                    said = log.read().decode(errors="replace")[-2000:]
                    raise Failed(f"{' '.join(command)} did not become ready:\n{said}")
                time.sleep(0.02)
            yield process.pid
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def answers(url: str) -> bool:
    with contextlib.suppress(httpx.TransportError):
        return httpx.get(url, timeout=5).is_success
    return False


@contextlib.contextmanager
def the_reference(answer: Answer, folder: Path) -> Iterator[str]:
    """Run the bare server with this answer; yields its address."""
    port = free_port()
    file = folder / f"answer-{port}.json"
    file.write_text(json.dumps(vars(answer)))
    command = [sys.executable, str(HERE / "reference.py"), "--port", str(port)]
    url = f"http://127.0.0.1:{port}"
    with running([*command, "--answer", str(file)], f"{url}/"):
        yield url


@dataclass(frozen=True)
class Portal:
    """The real server, its backend client's credentials, and what a patient uses."""

    url: str
    process: int
    client: dict[str, Any]
    app: dict[str, Any]
    patient: dict[str, Any]

    def token(self) -> str:
        """Fetch an access token the way a backend service does (SMART 2.2)."""
        key = import_key(self.client["private_jwk"])
        algorithm = self.client["private_jwk"].get("alg") or (
            "RS384" if key.key_type == "RSA" else "ES384"
        )
        endpoint = f"{self.url}/oauth/token"
        client_id = self.client["client_id"]
        claims = {
            "iss": client_id,
            "sub": client_id,
            "aud": endpoint,
            "exp": int(time.time()) + 240,
            "jti": uuid.uuid4().hex,
        }
        header = {"alg": algorithm, "typ": "JWT", "kid": self.client["private_jwk"].get("kid")}
        assertion = jwt.encode(header, claims, KeySet([key]), algorithms=[algorithm])
        reply = httpx.post(
            endpoint,
            data={
                "grant_type": "client_credentials",
                "scope": self.client["scope"],
                "client_assertion_type": "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
                "client_assertion": assertion,
            },
        )
        if reply.status_code != httpx.codes.OK:
            raise Failed(f"no token: {reply.status_code} {reply.text}")
        token: str = reply.json()["access_token"]
        return token

    def token_of_patient(self) -> str:
        """Fetch an access token as an app does that the patient lets in (SMART 2.2)."""
        verifier, back_to = uuid.uuid4().hex * 2, self.app["redirect_uris"][0]
        challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest())
        asked = {
            "response_type": "code",
            "client_id": self.app["client_id"],
            "redirect_uri": back_to,
            "scope": "launch/patient openid fhirUser patient/*.rs",
            "aud": f"{self.url}/fhir",
            "state": "bench",
            "code_challenge": challenge.decode().rstrip("="),
            "code_challenge_method": "S256",
        }
        with httpx.Client(base_url=self.url, timeout=60) as browser:
            page = browser.get("/oauth/authorize", params=asked)
            for _ in range(12):
                while page.is_redirect:
                    location = urljoin(str(page.url), page.headers["location"])
                    if location.startswith(back_to):
                        return self._bought(browser, location, verifier, back_to)
                    page = browser.get(location)
                form = fields_of(page.text) | {"decision": "approve"}
                if "password" in form:
                    form |= {name: self.patient[name] for name in ("username", "password")}
                if "record" in form:
                    form["record"] = self.patient["records"][0]["patient"]
                page = browser.post(page.url.copy_with(query=None), data=form)
        raise Failed(f"no end to the pages before a token: {page.status_code} {page.url}")

    def _bought(self, browser: httpx.Client, location: str, verifier: str, back_to: str) -> str:
        given = {
            "grant_type": "authorization_code",
            "code": parse_qs(urlsplit(location).query)["code"][0],
            "redirect_uri": back_to,
            "client_id": self.app["client_id"],
            "code_verifier": verifier,
        }
        reply = browser.post("/oauth/token", data=given)
        if reply.status_code != httpx.codes.OK:
            raise Failed(f"no token for a patient: {reply.status_code} {reply.text}")
        token: str = reply.json()["access_token"]
        return token

    def memory(self) -> int:
        """Return the resident megabytes of the server's process and those it started."""
        pending, kilobytes = [self.process], 0
        while pending:
            process = Path(f"/proc/{pending.pop()}")
            found = re.search(r"VmRSS:\s+(\d+)", (process / "status").read_text())
            kilobytes += int(found[1]) if found else 0
            for children in process.glob("task/*/children"):
                pending += [int(child) for child in children.read_text().split()]
        return kilobytes // 1024


@contextlib.contextmanager
def the_portal(folder: Path) -> Iterator[Portal]:
    """Build the demo in ``folder``, serve it with one worker; yields it once it is ready."""
    program = str(Path(sys.executable).with_name("fhir-portal"))
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    environment = {
        "FHIR_PORTAL_DATA": str(folder / "portal.db"),
        "FHIR_PORTAL_BASE_URL": url,
        "FHIR_PORTAL_LOG_LEVEL": "warning",
    }
    ready = f"{url}/health/ready"
    began = time.monotonic()
    with running([program, "demo", "--reset", "--port", str(port)], ready, **environment):
        print(f"demo ready after {time.monotonic() - began:.1f} s")
        demo = json.loads((folder / "demo.json").read_text())
    backend = next(client for client in demo["clients"] if client["type"] == "backend")
    app = next(client for client in demo["clients"] if client["type"] == "public")
    patient = next(one for one in demo["accounts"] if one["role"] == "patient")
    began = time.monotonic()
    with running([program, "serve", "--port", str(port)], ready, **environment) as process:
        print(f"server ready after {time.monotonic() - began:.1f} s")
        yield Portal(url, process, backend, app, patient)


def fields_of(page: str) -> dict[str, Any]:
    """Return the fields of a page's form, as a browser would send them: enough for our pages."""
    fields: dict[str, Any] = {}
    for tag in re.findall(r"<input [^>]*>", page):
        told = {name: unescape(value) for name, value in re.findall(r'(\w+)="([^"]*)"', tag)}
        if told["type"] != "checkbox":
            fields.setdefault(told["name"], told.get("value", ""))
        elif tag.endswith(" checked>"):
            fields.setdefault(told["name"], []).append(told.get("value", ""))
    return fields


# --- the scenarios ----------------------------------------------------------------------------


def as_answer(reply: httpx.Response) -> Answer:
    """Keep what the bare server is to repeat; the date and its own name it says itself."""
    if not reply.is_success:
        raise Failed(f"{reply.request.method} {reply.url}: {reply.status_code} {reply.text}")
    own = {"date", "server", "x-request-id"}
    headers = [(name, value) for name, value in reply.headers.items() if name not in own]
    return Answer(reply.status_code, headers, reply.text)


def real_scenarios(portal: Portal, patients: int, observations: int) -> list[Scenario]:
    """Load the data through the server's own front door and take one answer of each kind."""
    headers = {
        "authorization": f"Bearer {portal.token()}",
        "content-type": FHIR_JSON,
        "accept-encoding": "identity",
    }
    with httpx.Client(base_url=portal.url, headers=headers, timeout=60) as client:
        began = time.monotonic()
        owners = created(client, [a_patient(number) for number in range(patients)])
        known: list[str] = []
        for start in range(0, observations, 100):
            numbers = range(start, min(start + 100, observations))
            known += created(client, [an_observation(owners[n % patients], n) for n in numbers])
        took = time.monotonic() - began
        print(f"{patients + observations} resources in {took:.1f} s by transactions of 100")
        read = [f"/fhir/{reference}" for reference in known[:: max(1, len(known) // 500)]]
        search = [
            f"/fhir/Observation?patient={owner}&category=vital-signs&_count=20" for owner in owners
        ]
        create = compact(an_observation(owners[0]))
        transaction = compact(a_bundle([an_observation(owners[0], n) for n in range(20)]))
        page = client.get(search[0])
        if page.is_success and len(page.json().get("entry", ())) != min(
            20, observations // patients
        ):
            raise Failed(f"{search[0]} did not fill its page: {page.text[:500]}")
        return scenarios(
            read,
            search,
            create,
            transaction,
            answers=[
                as_answer(client.get(read[0])),
                as_answer(page),
                as_answer(client.post("/fhir/Observation", content=create)),
                as_answer(client.post("/fhir", content=transaction)),
            ],
        )


def dashboard_of(portal: Portal) -> Ratio:
    """The dashboard of a demo patient with two years of visits, beside reads of their record."""
    patient = portal.patient["records"][0]["patient"]
    headers = {"authorization": f"Bearer {portal.token_of_patient()}"}
    with httpx.Client(base_url=portal.url, headers=headers, timeout=60) as client:
        found = client.get("/fhir/Observation", params={"_count": "100"})
        as_answer(found)
    reads = [f"/fhir/Observation/{one['resource']['id']}" for one in found.json()["entry"]]
    return Ratio("dashboard", f"/fhir/{patient}/$portal-dashboard", reads, bar=6)


def created(client: httpx.Client, resources: list[dict[str, Any]]) -> list[str]:
    """Create resources in one transaction; returns their references."""
    reply = client.post("/fhir", content=compact(a_bundle(resources)))
    if reply.status_code != httpx.codes.OK:
        raise Failed(f"transaction: {reply.status_code} {reply.text[:2000]}")
    locations = [entry["response"]["location"] for entry in reply.json()["entry"]]
    return ["/".join(location.split("/_history/")[0].split("/")[-2:]) for location in locations]


def likely_scenarios() -> list[Scenario]:
    """Return the scenarios with made-up answers of the size that the server's have."""
    patient = f"Patient/{uuid.UUID(int=1)}"
    stored = [
        {
            **an_observation(patient, number),
            "id": str(uuid.UUID(int=number)),
            "meta": {"versionId": "1", "lastUpdated": "2024-01-01T08:00:00.000+00:00"},
        }
        for number in range(20)
    ]
    page = {
        "resourceType": "Bundle",
        "type": "searchset",
        "entry": [{"resource": one, "search": {"mode": "match"}} for one in stored],
    }
    receipts = [{"response": {"status": "201 Created", "etag": 'W/"1"'}} for _ in stored]
    done = {"resourceType": "Bundle", "type": "transaction-response", "entry": receipts}

    def answer(status: int, tree: dict[str, Any]) -> Answer:
        body = compact(tree)
        length = ("content-length", str(len(body)))
        return Answer(status, [("content-type", FHIR_JSON), length, ("etag", 'W/"1"')], body)

    return scenarios(
        [f"/fhir/Observation/{one['id']}" for one in stored],
        [f"/fhir/Observation?patient={patient}&category=vital-signs&_count=20"],
        compact(an_observation(patient)),
        compact(a_bundle([an_observation(patient, number) for number in range(20)])),
        answers=[
            answer(200, stored[0]),
            answer(200, page),
            answer(201, stored[0]),
            answer(200, done),
        ],
    )


def scenarios(
    read: Sequence[str],
    search: Sequence[str],
    create: str,
    transaction: str,
    *,
    answers: Sequence[Answer],
) -> list[Scenario]:
    """Name the four kinds of request and the bars they have to reach."""
    reads, pages, creates, transactions = answers
    return [
        Scenario("read by id", "GET", read, reads, share=0.25),
        Scenario("search, page of 20", "GET", search, pages, share=0.08),
        Scenario("create", "POST", ["/fhir/Observation"], creates, create, rate=600),
        Scenario(
            "transaction of 20 creates", "POST", ["/fhir"], transactions, transaction, rate=45
        ),
    ]


# --- measuring --------------------------------------------------------------------------------


def ask(scenario: Scenario, url: str, token: str, count: int) -> None:
    """Send a few requests one after the other; raises `Failed` unless each is a success."""
    headers = {"authorization": f"Bearer {token}", "content-type": FHIR_JSON}
    with httpx.Client(base_url=url, headers=headers, timeout=60) as client:
        for turn in range(count):
            target = scenario.targets[turn % len(scenario.targets)]
            as_answer(client.request(scenario.method, target, content=scenario.body))


def drive(scenario: Scenario, url: str, token: str, seconds: float, folder: Path) -> Round:
    """Run wrk against one server; raises `Failed` unless every request is a success.

    Raises `UsedUp` where the bodies that may be sent once did not last.
    """
    targets, body = folder / "targets", folder / "body"
    targets.write_text("\n".join(scenario.targets))
    body.write_text("\n".join(scenario.bodies) or scenario.body or "")
    wrk = ["wrk", "--threads", "2", "--connections", "16", "--duration", f"{seconds:g}s"]
    wrk += ["--timeout", "30s", "--script", str(HERE / "wrk.lua")]
    wrk += ["--header", f"Authorization: Bearer {token}"] if token else []
    wrk += ["--header", f"Content-Type: {scenario.content_type}", url]
    wrk += ["--", scenario.method, str(targets)]
    wrk += [str(body)] if scenario.body or scenario.bodies else []
    said = subprocess.run(
        [*on_core(1), *wrk, *(["once"] if scenario.bodies else [])],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    figures = json.loads(said.strip().splitlines()[-1])
    if figures["used_up"]:
        raise UsedUp(f"{scenario.name} at {url}: {len(scenario.bodies)} bodies are too few")
    if figures["refused"] or figures["broken"] or not figures["requests"]:
        raise Failed(f"{scenario.name} at {url}: {figures}")
    return Round(
        figures["requests"] / figures["seconds"], figures["p50"] / 1000, figures["p99"] / 1000
    )


def median(rounds: Sequence[Round], name: str) -> float:
    return statistics.median(float(getattr(one, name)) for one in rounds)


def row(name: str, server: str, rounds: Sequence[Round]) -> str:
    rates = [one.per_second for one in rounds]
    p50, p99 = median(rounds, "p50"), median(rounds, "p99")
    return (
        f"| {name} | {server} | {statistics.median(rates):,.0f} | "
        f"{min(rates):,.0f} to {max(rates):,.0f} | {p50:.2f} | {p99:.2f} | {p99 / p50:.1f} |"
    )


def verdict(scenario: Scenario, bare: Sequence[Round], ours: Sequence[Round], reads: float) -> str:
    """Say how the server stands to the bar, and how even its answers are beside the bare one's."""
    rate, reference = median(ours, "per_second"), median(bare, "per_second")
    if scenario.share is not None:
        bar, stands = f"{scenario.share:.0%} of bare", f"{rate / reference:.1%} of bare"
        met = rate >= scenario.share * reference
    else:
        scaled = (scenario.rate or 0) * reads / BARE_READS
        bar, stands = f"{scaled:,.0f}/s", f"{rate:,.0f}/s"
        met = rate >= scaled
    spread = (median(ours, "p99") / median(ours, "p50")) / (
        median(bare, "p99") / median(bare, "p50")
    )
    return (
        f"| {scenario.name} | {bar} | {stands} | {'met' if met else 'missed'} | "
        f"{spread:.1f} times bare's | {'met' if spread <= 3 else 'missed'} |"  # noqa: PLR2004
    )


def compare(
    ratio: Ratio, portal: Portal, arguments: argparse.Namespace, folder: Path
) -> tuple[list[str], str]:
    """Drive both requests of a ratio in turn with one token; returns their rows and the verdict.

    How many times as long: of two neighbouring rounds each, so that what else the machine does
    meets both.
    """
    token = portal.token_of_patient()
    kinds = [
        Scenario("read by id (patient)", "GET", ratio.reads, NO_ANSWER),
        Scenario(f"{ratio.name} (patient)", "GET", [ratio.target], NO_ANSWER),
    ]
    rounds: list[list[Round]] = [[], []]
    for number in range(arguments.rounds + 1):
        for kind, found in zip(kinds, rounds, strict=True):
            one = drive(kind, portal.url, token, arguments.seconds if number else 1, folder)
            if number:
                found.append(one)
    times = [read.per_second / one.per_second for read, one in zip(*rounds, strict=True)]
    reached = statistics.median(times)
    told = f"{reached:.1f} ({min(times):.1f} to {max(times):.1f}) times"
    met = "met" if reached < ratio.bar else "missed"
    rows = [row(kind.name, "fhir-portal", found) for kind, found in zip(kinds, rounds, strict=True)]
    return rows, f"| {ratio.name} | under {ratio.bar:g} times a read | {told} | {met} | | |"


HEAD = [
    "| request | server | per second | lowest to highest | p50 ms | p99 ms | p99/p50 |",
    "| --- | --- | ---: | ---: | ---: | ---: | ---: |",
]
BARS = [
    "| request | bar | reached | | p99/p50 (bar: 3 times bare's) | |",
    "| --- | ---: | ---: | --- | ---: | --- |",
]


def machine() -> str:
    """Describe what was measured on, without naming the machine."""
    model = platform.machine()
    with contextlib.suppress(OSError):
        found = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text())
        model = found[1].strip() if found else model
    return f"Python {platform.python_version()}, {CORES} cores, {model}"


def measure(arguments: argparse.Namespace, folder: Path) -> str:
    """Run the rounds and return the section of the results they make."""
    lines = ["", f"{datetime.now(UTC):%Y-%m-%d}, {machine()}; ", ""]
    lines[1] += f"{arguments.rounds} rounds of {arguments.seconds:g} s, 16 connections."
    verdicts: list[str] = []
    with contextlib.ExitStack() as open_until_end:
        portal = None
        kinds = likely_scenarios()
        if not arguments.reference_only:
            portal = open_until_end.enter_context(the_portal(folder))
            kinds = real_scenarios(portal, arguments.patients, arguments.resources)
        lines += HEAD
        reads = 0.0
        for scenario in kinds:
            bare, ours = alternate(scenario, portal, arguments, folder)
            reads = reads or median(bare, "per_second")
            lines.append(row(scenario.name, "bare", bare))
            print(lines[-1], flush=True)
            if ours:
                lines.append(row(scenario.name, "fhir-portal", ours))
                verdicts.append(verdict(scenario, bare, ours, reads))
                print(lines[-1], verdicts[-1], sep="\n", flush=True)
        if portal:
            rows, told = compare(dashboard_of(portal), portal, arguments, folder)
            print(*rows, told, sep="\n", flush=True)
            lines += rows
            verdicts.append(told)
            memory = f"{portal.memory()} MB resident after the load (bar: under 200 MB)"
            lines += ["", *BARS, *verdicts, "", f"{memory}; {arguments.resources:,} observations."]
    return "\n".join([*lines, ""])


def alternate(
    scenario: Scenario, portal: Portal | None, arguments: argparse.Namespace, folder: Path
) -> tuple[list[Round], list[Round]]:
    """Drive the bare server and ours in turn, after one warming round each."""
    bare: list[Round] = []
    ours: list[Round] = []
    token = portal.token() if portal else "none"
    with the_reference(scenario.answer, folder) as reference:
        for number in range(arguments.rounds + 1):
            seconds = arguments.seconds if number else 1
            servers = [(reference, bare), (portal.url, ours)] if portal else [(reference, bare)]
            for url, rounds in servers:
                one = drive(scenario, url, token, seconds, folder)
                if number:
                    rounds.append(one)
    return bare, ours


def smoke(arguments: argparse.Namespace, folder: Path) -> None:
    """Check that every scenario can be measured; says nothing about time."""
    with contextlib.ExitStack() as open_until_end:
        portal = None
        kinds = likely_scenarios()
        if not arguments.reference_only:
            portal = open_until_end.enter_context(the_portal(folder))
            kinds = real_scenarios(portal, 2, 40)
        for scenario in kinds:
            token = portal.token() if portal else "none"
            with the_reference(scenario.answer, folder) as reference:
                for url in (reference, portal.url) if portal else (reference,):
                    ask(scenario, url, token, 5)
                    if shutil.which("wrk"):
                        drive(scenario, url, token, 1, folder)
            print(f"{scenario.name}: every answer was a success")
        if portal:
            ratio = dashboard_of(portal)
            asked = Scenario(ratio.name, "GET", [ratio.target, *ratio.reads[:4]], NO_ANSWER)
            ask(asked, portal.url, portal.token_of_patient(), 5)
            print(f"{ratio.name}: every answer was a success")


def record(name: str, section: str) -> None:
    """Replace the named section of the results; what people wrote around it stays."""
    text = RESULTS.read_text("utf-8")
    before, begin, rest = text.partition(f"<!-- {name} -->\n")
    _, end, after = rest.partition(f"<!-- end of {name} -->")
    if not end:
        raise Failed(f"{RESULTS} has no section {name}")
    RESULTS.write_text(before + begin + section + end + after, "utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only-dashboard", action="store_true", help="print its ratio alone")
    parser.add_argument("--smoke", action="store_true", help="a few requests, no figures")
    parser.add_argument("--reference-only", action="store_true", help="leave our server out")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=5, help="length of a round")
    parser.add_argument("--patients", type=int, default=100)
    parser.add_argument("--resources", type=int, default=10_000, help="observations to load")
    arguments = parser.parse_args()
    if not arguments.smoke and not shutil.which("wrk"):
        sys.exit("wrk is missing: apt-get install wrk")
    with tempfile.TemporaryDirectory() as folder:
        try:
            if arguments.smoke:
                smoke(arguments, Path(folder))
            elif arguments.only_dashboard:
                with the_portal(Path(folder)) as portal:
                    rows, told = compare(dashboard_of(portal), portal, arguments, Path(folder))
                print(*HEAD, *rows, "", *BARS, told, sep="\n")
            else:
                section = measure(arguments, Path(folder))
                record("reference" if arguments.reference_only else "server", section)
        except Failed as failure:
            sys.exit(str(failure))


if __name__ == "__main__":
    main()
