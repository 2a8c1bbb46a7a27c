"""A real server process on loopback, over a small prepared store, for tests from outside."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import msgspec

from fhir_portal.accounts.account import Account
from fhir_portal.accounts.practice import Practice
from fhir_portal.app import Application
from fhir_portal.fhir.interaction import FhirRequest
from fhir_portal.settings import load
from fhir_portal.smart.client import Client
from fhir_portal.smart.token import AccessToken, token_hash
from tests.places import Place, environment

EHR_TOKEN = "ehr-" * 10
PATIENT_TOKEN = "ida-" * 10
PRACTICE = "dermatology"
_START_SECONDS = 90.0
"""A server without transactions waits until whoever held the turn is known to be dead."""


def free_port() -> int:
    """Return a loopback port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def an_observation(number: int, patient: str = "ida") -> dict[str, Any]:
    """Return a vital-signs Observation that differs by its number."""
    system = "http://terminology.hl7.org/CodeSystem/observation-category"
    return {
        "resourceType": "Observation",
        "status": "final",
        "category": [{"coding": [{"system": system, "code": "vital-signs"}]}],
        "code": {"coding": [{"system": "http://loinc.org", "code": "8867-4"}]},
        "subject": {"reference": f"Patient/{patient}"},
        "effectiveDateTime": "2026-01-05T08:30:00+01:00",
        "valueQuantity": {
            "value": number,
            "unit": "beats/minute",
            "system": "http://unitsofmeasure.org",
            "code": "/min",
        },
    }


def settings_of(folder: Path, place: Place) -> dict[str, Any]:
    """The settings of a server over a store; what lies beside the store lies in a folder."""
    return {"data": folder / "portal.db", **place.settings}


async def prepare(folder: Path, place: Place) -> None:
    """Make a store with one practice, its EHR, one patient, and a token for either."""
    app = Application(load(**settings_of(folder, place)))
    await app.open()
    now = time.time()

    async def keep(transaction: Any) -> None:
        await transaction.put(Practice(key=PRACTICE, name="Hill Street Dermatology"))
        await transaction.put(
            Client(
                key="ehr",
                name="EHR",
                type="backend",
                auth_method="private_key_jwt",
                scope="system/*.cruds",
                registered=now,
                practice=PRACTICE,
                permissions=("label", "grant-writing"),
            )
        )
        await transaction.put(
            Client(
                key="app",
                name="App",
                type="public",
                auth_method="none",
                scope="patient/*.rs",
                registered=now,
            )
        )
        await transaction.put(
            Account(key="ida", username="ida", created=now, persons=(f"{PRACTICE}/Person/ida",))
        )
        common: dict[str, Any] = {"expires": now + 86_400, "issued": now, "practice": PRACTICE}
        await transaction.put(
            AccessToken(
                key=token_hash(EHR_TOKEN),
                client_id="ehr",
                context="system",
                scope="system/*.cruds",
                **common,
            )
        )
        await transaction.put(
            AccessToken(
                key=token_hash(PATIENT_TOKEN),
                client_id="app",
                context="patient",
                scope="openid fhirUser patient/*.rs",
                family="family",
                patient="Patient/ida",
                fhir_user="Patient/ida",
                account="ida",
                **common,
            )
        )

    await app.store.transact(keep)
    ehr = await app.portal.callers.of(EHR_TOKEN)
    link = {"target": {"reference": "Patient/ida"}, "assurance": "level3"}
    resources: tuple[dict[str, Any], ...] = (
        {"resourceType": "Patient", "id": "ida", "name": [{"family": "Adler", "given": ["Ida"]}]},
        {"resourceType": "Person", "id": "ida", "link": [link]},
        {**an_observation(0), "id": "first"},
    )
    for resource in resources:
        address = FhirRequest("update", resource["resourceType"], resource["id"])
        request = msgspec.structs.replace(address, body=msgspec.json.encode(resource))
        await app.portal.perform(request, ehr)
    await app.close()


@dataclass
class Running:
    """One server over a prepared store; its key and what it says lie in ``folder``.

    ``settings`` are further ones.
    """

    folder: Path
    place: Place
    port: int = field(default_factory=free_port)
    workers: int = 1
    before: Sequence[str] = ()
    process: subprocess.Popen[bytes] | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def base(self) -> str:
        """The origin it answers on."""
        return f"http://127.0.0.1:{self.port}"

    async def start(self) -> None:
        """Start it in a process group of its own and wait until it is ready."""
        self._spawn()
        assert self.process is not None
        deadline = time.monotonic() + _START_SECONDS
        async with httpx.AsyncClient() as client:
            while time.monotonic() < deadline:
                try:
                    if (await client.get(f"{self.base}/health/ready")).status_code == 200:
                        return
                except httpx.TransportError:
                    pass
                if self.process.poll() is not None:
                    break
                await asyncio.sleep(0.05)
        message = f"the server did not get ready; see {self.folder / 'server.log'}"
        raise AssertionError(message)

    def _spawn(self) -> None:
        command = [*self.before, sys.executable, "-m", "fhir_portal", "serve"]
        options = ["--port", str(self.port), "--workers", str(self.workers)]
        with (self.folder / "server.log").open("ab") as errors:
            self.process = subprocess.Popen(
                [*command, *options],
                env=environment({**settings_of(self.folder, self.place), **self.settings}),
                start_new_session=True,
                stdout=subprocess.DEVNULL,
                stderr=errors,
            )

    def kill(self) -> None:
        """End every process of the group at once (SIGKILL)."""
        assert self.process is not None
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def processes(self) -> set[int]:
        """The server processes that are there now (Linux)."""
        assert self.process is not None
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        found = map(int, children.read_text("ascii").split())
        return {one for one in found if b"spawn_main" in _command_line(one)}

    async def replace_processes(self) -> set[int]:
        """Have it replace its processes one by one, as an operator would; return the new ones."""
        assert self.process is not None
        before = self.processes()
        os.kill(self.process.pid, signal.SIGHUP)
        deadline = time.monotonic() + _START_SECONDS
        while len(now := self.processes()) != self.workers or now & before:
            assert time.monotonic() < deadline, f"{before} became {now}"
            await asyncio.sleep(0.05)
        return now

    def stop(self) -> None:
        """Ask it to stop, as an operator would."""
        if self.process is None:
            return  # it never started
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGTERM)
        self.process.wait(timeout=20)


def _command_line(process: int) -> bytes:
    try:
        return Path(f"/proc/{process}/cmdline").read_bytes()
    except OSError:
        return b""  # it has ended


def bearer(token: str) -> dict[str, str]:
    """Return the header that carries a token."""
    return {"Authorization": f"Bearer {token}"}
