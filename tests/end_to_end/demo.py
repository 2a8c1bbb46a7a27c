"""The demo world behind a real server process, and what an operator does to it by command."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import warnings
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from authlib.deprecate import AuthlibDeprecationWarning
from authlib.oauth2.rfc7523 import PrivateKeyJWT, private_key_jwt_sign
from joserfc.jwk import import_key

from fhir_portal.accounts.throttle import AttemptCount
from fhir_portal.records import RecordTransaction
from fhir_portal.resources.store import PortalStore
from tests.end_to_end.running import Running, settings_of
from tests.places import Place, environment

warnings.simplefilter("ignore", AuthlibDeprecationWarning)  # httpx does; Authlib prefers httpx2

from authlib.integrations.httpx_client import AsyncOAuth2Client  # noqa: E402

__all__ = ["AsyncOAuth2Client", "Demo", "FiveMinutes", "ids", "resources"]

CALLBACK = "http://127.0.0.1:8765/callback"  # nobody listens: who follows the pages stops here
PUBLIC, CONFIDENTIAL, EHR = "sample-app", "sample-web-app", "marrowbrook-ehr"


@dataclass
class Demo:
    """The demo world, built anew at ``place`` and served by ``workers`` processes."""

    folder: Path
    place: Place
    workers: int = 2
    server: Running = field(init=False)
    signed_in: dict[tuple[str, str], tuple[float, list[Any]]] = field(default_factory=dict)
    """When somebody signed in, at a record or none, and the cookies they got (`entrance`)."""

    def __post_init__(self) -> None:
        self.server = Running(self.folder, self.place, workers=self.workers)

    @property
    def fhir(self) -> str:
        """The FHIR base."""
        return f"{self.server.base}/fhir"

    @property
    def description(self) -> dict[str, Any]:
        """What ``demo.json`` says."""
        found: dict[str, Any] = json.loads((self.folder / "demo.json").read_text("utf-8"))
        return found

    async def start(self) -> None:
        """Build the world and serve it."""
        self.command("demo", "--no-serve", "--port", str(self.server.port))
        await self.server.start()

    def stop(self) -> None:
        """Stop the server."""
        self.server.stop()

    def command(self, *arguments: str) -> str:
        """Run ``fhir-portal`` over this store; return what it prints."""
        done = subprocess.run(
            [sys.executable, "-m", "fhir_portal", *arguments],
            env=environment(settings_of(self.folder, self.place)),
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def client(self, client_id: str) -> dict[str, Any]:
        """What ``demo.json`` says of a client."""
        (found,) = (c for c in self.description["clients"] if c["client_id"] == client_id)
        return dict(found)

    def account(self, username: str) -> dict[str, Any]:
        """What ``demo.json`` says of an account."""
        (found,) = (a for a in self.description["accounts"] if a["username"] == username)
        return dict(found)

    def sections(self, username: str, patient: str) -> set[str]:
        """The sections of a record that ``demo.json`` says an account may see."""
        (record,) = (r for r in self.account(username)["records"] if r["patient"] == patient)
        return set(record["sections"])

    async def discovered(self) -> dict[str, Any]:
        """What the server says of itself in ``smart-configuration``."""
        async with httpx.AsyncClient() as http:
            found = await http.get(f"{self.fhir}/.well-known/smart-configuration")
            return dict(found.raise_for_status().json())

    @contextlib.asynccontextmanager
    async def ehr(
        self, client_id: str = EHR, jwk: dict[str, Any] | None = None, alg: str = "ES384"
    ) -> AsyncIterator[AsyncOAuth2Client]:
        """Authlib as a backend client that has its token (SMART 2.2 section 5)."""
        key = import_key(jwk or self.client(client_id)["private_jwk"])
        token_endpoint = (await self.discovered())["token_endpoint"]
        async with AsyncOAuth2Client(
            client_id,
            key,
            scope="system/*.cruds",
            token_endpoint_auth_method="private_key_jwt",
            timeout=20,
        ) as app:
            app.register_client_auth_method(FiveMinutes(token_endpoint, alg=alg, key=key))
            await app.fetch_token(token_endpoint, grant_type="client_credentials")
            yield app

    async def searched(self, search: str) -> list[dict[str, Any]]:
        """What the practice's EHR finds: the measure of what others are shown."""
        async with self.ehr() as ehr:
            return await resources(ehr, f"{self.fhir}/{search}")


class FiveMinutes(PrivateKeyJWT):  # type: ignore[misc] # Authlib has no type information
    """Authlib's ``private_key_jwt`` with ``kid`` and the short life that SMART 2.2 §5.1 demands.

    Authlib itself gives its assertions an hour.
    """

    def __init__(self, token_endpoint: str, *, alg: str, key: Any) -> None:
        super().__init__(token_endpoint, alg=alg, headers={"typ": "JWT", "kid": key.kid})

    def sign(self, auth: Any, token_endpoint: str) -> str:
        return str(
            private_key_jwt_sign(
                auth.client_secret,
                client_id=auth.client_id,
                token_endpoint=token_endpoint,
                header=dict(self.headers),
                alg=self.alg,
                expires_in=240,
            )
        )


async def resources(client: httpx.AsyncClient, address: str) -> list[dict[str, Any]]:
    """Follow a search through its pages."""
    found = []
    following: str | None = address
    while following:
        answer = await client.get(following)
        assert answer.status_code == 200, answer.text
        bundle = answer.json()
        found += [entry["resource"] for entry in bundle.get("entry", [])]
        following = next((one["url"] for one in bundle["link"] if one["relation"] == "next"), None)
    return found


def ids(found: list[dict[str, Any]]) -> set[str]:
    """``Type/id`` of each."""
    return {f"{one['resourceType']}/{one['id']}" for one in found}


async def forget_tries(store: PortalStore) -> None:
    """Take back what the throttle has counted: a test signs in more often than people do."""

    async def forget(transaction: RecordTransaction) -> None:
        for count in await transaction.every(AttemptCount, limit=10_000):
            await transaction.delete(AttemptCount, count.key)

    await store.transact(forget)
