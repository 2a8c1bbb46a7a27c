"""A small world for the FHIR surface: one practice, an EHR, two patients, and what they send."""

from __future__ import annotations

import asyncio
import functools
import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self
from urllib.parse import unquote_to_bytes

import httpx
import msgspec

from fhir_portal.access.context import AuthContext
from fhir_portal.access.writes import WriteTableScopes
from fhir_portal.accounts.account import Account
from fhir_portal.accounts.practice import Practice
from fhir_portal.embedded.store import EmbeddedStore
from fhir_portal.fhir.definitions import ig_resource, served_types
from fhir_portal.fhir.interaction import FhirRequest, FhirResponse
from fhir_portal.fhir.outcome import ERROR_SYSTEM
from fhir_portal.operations.catalog import operations_of
from fhir_portal.portal import Portal
from fhir_portal.records import Record
from fhir_portal.resources.catalog import capability_statement
from fhir_portal.smart.client import Client, ClientOrigin
from fhir_portal.smart.discovery import capability_security, scopes_supported, smart_configuration
from fhir_portal.smart.issuer import Issuer
from fhir_portal.smart.keys import derive
from fhir_portal.smart.token import AccessToken, token_hash
from fhir_portal.web.fhir import FhirApi
from tests.images import lay_in_file, take_of_file

ORIGIN = "http://127.0.0.1:8000"
BASE = f"{ORIGIN}/fhir"
START = 1_900_000_000.0  # 2030-03-17T17:46:40Z
EHR = "backend-token-of-the-ehr"
ANNA = "patient-token-of-anna-x"
BEN = "patient-token-of-ben-xx"
APP_ORIGIN = "https://app.example"
MAX_BODY = 64 * 1024
MAX_TRANSACTION = 4 * 1024 * 1024
FHIR_JSON = "application/fhir+json"
PORTAL_ERRORS = {one["code"] for one in ig_resource("CodeSystem", "portal-error")["concept"]}

CATEGORY = "http://terminology.hl7.org/CodeSystem/observation-category"
LOINC = "http://loinc.org"


class Clock:
    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds


@dataclass
class Answer:
    """What came over the wire, for requests that no well-behaved client would send."""

    status_code: int
    headers: httpx.Headers
    content: bytes

    def json(self) -> Any:
        return json.loads(self.content)


@dataclass
class FhirWorld:
    """One practice (``derm``), its patients ``anna`` and ``ben``; tokens for an EHR and both."""

    clock: Clock
    store: EmbeddedStore
    portal: Portal
    api: FhirApi
    _clients: list[httpx.AsyncClient] = field(default_factory=list)

    @classmethod
    async def begin(cls, path: Path) -> Self:
        clock = Clock()
        written = lay_in_file("fhir world", path / "portal.db")
        store = EmbeddedStore.open(str(path / "portal.db"), clock=clock)
        portal = Portal.over(
            store,
            store.log,
            clock=clock,
            base=BASE,
            aliases=("http://localhost:8000/fhir",),
            derive=functools.partial(derive, b"k" * 32),
        )
        api = FhirApi(
            portal,
            capabilities=capabilities,
            smart_configuration=configuration,
            max_body=MAX_BODY,
            max_transaction=MAX_TRANSACTION,
        )
        world = cls(clock, store, portal, api)
        if not written:
            await world._write()
            take_of_file("fhir world", store)
        return world

    async def _write(self) -> None:
        """What is there on the first day."""
        await self.insert(*_records())
        ehr = await self.ehr()
        for resource in (
            patient("anna", name=[{"family": "Adler", "given": ["Anna"]}], birthDate="1980-02-03"),
            patient("ben", name=[{"family": "Berg", "given": ["Ben"]}]),
            person("pa", "anna"),
            person("pb", "ben"),
        ):
            name, own_id = resource["resourceType"], resource["id"]
            await self.perform(ehr, "update", name, own_id, body=resource)

    def close(self) -> None:
        self.store.close()

    async def insert(self, *records: Record) -> None:
        async def keep(transaction: Any) -> None:
            for record in records:
                await transaction.insert(record)

        await self.store.transact(keep)

    # --- below HTTP

    async def auth(self, token: str) -> AuthContext:
        return await self.portal.callers.of(token)

    async def ehr(self) -> AuthContext:
        return await self.auth(EHR)

    async def anna(self) -> AuthContext:
        return await self.auth(ANNA)

    async def perform(
        self,
        auth: AuthContext,
        interaction: str,
        type: str | None = None,  # noqa: A002 - FhirRequest calls it so
        id: str | None = None,  # noqa: A002
        *,
        body: Any = None,
        query: Sequence[tuple[str, str]] = (),
        **more: Any,
    ) -> FhirResponse:
        raw = b"" if body is None else body if isinstance(body, bytes) else encoded(body)
        request = FhirRequest(interaction, type, id, query=tuple(query), body=raw, **more)
        return await self.portal.perform(request, auth)

    # --- over HTTP

    def client(self, token: str | None = EHR, **headers: str) -> httpx.AsyncClient:
        if token is not None:
            headers["Authorization"] = f"Bearer {token}"
        return httpx.AsyncClient(
            transport=httpx.ASGITransport(app=self.api), base_url=ORIGIN, headers=headers
        )

    async def raw(
        self,
        method: str,
        target: bytes | str,
        *,
        headers: Sequence[tuple[str, str | bytes]] = (),
        body: Sequence[bytes] = (b"",),
        token: str | None = EHR,
    ) -> Answer:
        """Send a request exactly as given: target not normalised, the body in these chunks."""
        raw_target = target.encode() if isinstance(target, str) else target
        raw_path, _, query = raw_target.partition(b"?")
        sent: list[tuple[bytes, bytes]] = [
            (name.lower().encode(), value.encode() if isinstance(value, str) else value)
            for name, value in headers
        ]
        if token is not None:
            sent.append((b"authorization", f"Bearer {token}".encode()))
        scope = {
            "type": "http",
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": unquote_to_bytes(raw_path).decode("utf-8", "replace"),
            "raw_path": raw_path,
            "query_string": query,
            "headers": sent,
            "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 8000),
        }
        parts = list(body)
        read = 0
        answers: list[Any] = []

        async def receive() -> dict[str, Any]:
            nonlocal read
            if read == len(parts):
                await asyncio.Event().wait()  # nobody hangs up
            part = parts[read]
            read += 1
            return {"type": "http.request", "body": part, "more_body": read < len(parts)}

        async def send(message: Any) -> None:
            answers.append(message)

        await self.api(scope, receive, send)
        start, *rest = answers
        self.chunks_read = read
        return Answer(
            start["status"],
            httpx.Headers(start["headers"]),
            b"".join(part.get("body", b"") for part in rest),
        )

    def rows(self) -> dict[str, int]:
        """How many rows each table of the store has, the access log left out."""
        tables = ("resource", "version", "term", "string", "span", "edge", "record")
        reader = self.store.database.reader
        return {t: reader.execute(f"SELECT count(*) FROM {t}").fetchone()[0] for t in tables}


def _records() -> list[Record]:
    def token(text: str, client: str, context: Any, scope: str, **more: Any) -> AccessToken:
        return AccessToken(
            key=token_hash(text),
            expires=START + 3600,
            issued=START,
            client_id=client,
            context=context,
            scope=scope,
            practice="derm",
            **more,
        )

    reading = "openid fhirUser launch/patient patient/*.rs patient/QuestionnaireResponse.cruds"
    return [
        Practice(key="derm", name="Derm"),
        Client(
            key="ehr",
            name="EHR",
            type="backend",
            auth_method="private_key_jwt",
            scope="system/*.cruds",
            registered=START,
            practice="derm",
            permissions=("label", "grant-writing"),
        ),
        Client(
            key="app",
            name="App",
            type="public",
            auth_method="none",
            scope="patient/*.cruds",
            registered=START,
            redirect_uris=(f"{APP_ORIGIN}/callback",),
        ),
        ClientOrigin(key=f"{APP_ORIGIN} app", origin=APP_ORIGIN, client_id="app"),
        Account(key="acc-a", username="anna", created=START, persons=("derm/Person/pa",)),
        Account(key="acc-b", username="ben", created=START, persons=("derm/Person/pb",)),
        token(EHR, "ehr", "system", "system/*.cruds"),
        token(
            ANNA,
            "app",
            "patient",
            reading,
            patient="Patient/anna",
            fhir_user="Patient/anna",
            account="acc-a",
        ),
        token(
            BEN,
            "app",
            "patient",
            reading,
            patient="Patient/ben",
            fhir_user="Patient/ben",
            account="acc-b",
        ),
    ]


@functools.cache
def capabilities() -> bytes:
    return msgspec.json.encode(
        capability_statement(
            base=BASE,
            version="0.1.0",
            date="2030-03-17",
            security=capability_security(Issuer(ORIGIN)),
            brands=f"{ORIGIN}/brands",
            operations=operations_of,
        )
    )


def configuration() -> dict[str, Any]:
    return smart_configuration(Issuer(ORIGIN), scopes_supported(WriteTableScopes(), served_types()))


# --- what is sent


def encoded(resource: Any) -> bytes:
    return json.dumps(resource, ensure_ascii=False).encode()


def patient(own_id: str | None = None, **more: Any) -> dict[str, Any]:
    return {"resourceType": "Patient", **({"id": own_id} if own_id else {}), **more}


def person(own_id: str, of: str) -> dict[str, Any]:
    link = {"target": {"reference": f"Patient/{of}"}, "assurance": "level3"}
    return {"resourceType": "Person", "id": own_id, "link": [link]}


def observation(
    own_id: str | None = None,
    *,
    of: str = "anna",
    category: str = "vital-signs",
    code: str = "8867-4",
    value: float = 70,
    at: str = "2020-01-01",
    **more: Any,
) -> dict[str, Any]:
    return {
        "resourceType": "Observation",
        **({"id": own_id} if own_id else {}),
        "status": "final",
        "category": [{"coding": [{"system": CATEGORY, "code": category}]}],
        "code": {"coding": [{"system": LOINC, "code": code}]},
        "subject": {"reference": f"Patient/{of}"},
        "effectiveDateTime": at,
        "valueQuantity": {
            "value": value,
            "unit": "beats/min",
            "system": "http://unitsofmeasure.org",
            "code": "/min",
        },
        **more,
    }


def transaction(*entries: dict[str, Any], kind: str = "transaction") -> dict[str, Any]:
    return {"resourceType": "Bundle", "type": kind, "entry": list(entries)}


def entry(
    method: str,
    url: str,
    resource: dict[str, Any] | None = None,
    *,
    full_url: str | None = None,
    **request: Any,
) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if full_url is not None:
        found["fullUrl"] = full_url
    if resource is not None:
        found["resource"] = resource
    return {**found, "request": {"method": method, "url": url, **request}}


# --- what comes back


def ids(bundle: Any, *, mode: str = "match") -> list[str]:
    """``Type/id`` of the entries of a searchset."""
    return [
        f"{e['resource']['resourceType']}/{e['resource']['id']}"
        for e in bundle.get("entry", ())
        if e["search"]["mode"] == mode
    ]


def link(bundle: Any, relation: str) -> str | None:
    return next((one["url"] for one in bundle["link"] if one["relation"] == relation), None)


async def pages(client: httpx.AsyncClient, url: str) -> AsyncIterator[Any]:
    """Follow ``next`` from a first address."""
    following: str | None = url
    while following is not None:
        response = await client.get(following)
        assert response.status_code == 200, response.text
        bundle = response.json()
        yield bundle
        following = link(bundle, "next")


def assert_outcome(
    response: httpx.Response | Answer, status: int, code: str, expression: str | None = None
) -> str:
    """A refusal in the right family; returns its first diagnostics."""
    assert response.status_code == status, response.content[:500]
    assert response.headers["content-type"] == "application/fhir+json; charset=utf-8"
    assert response.headers["x-content-type-options"] == "nosniff"
    body = response.json()
    assert set(body) == {"resourceType", "issue"}
    assert body["resourceType"] == "OperationOutcome"
    for issue in body["issue"]:
        assert set(issue) <= {"severity", "code", "details", "diagnostics", "expression"}
        (coding,) = issue["details"]["coding"]
        assert coding["system"] == ERROR_SYSTEM
        assert coding["code"] in PORTAL_ERRORS
        assert issue["severity"] in {"error", "fatal"}
        assert issue["diagnostics"]
        assert "Traceback" not in issue["diagnostics"]
        assert "sqlite" not in issue["diagnostics"].lower()
    assert body["issue"][0]["code"] == code, body
    if expression is not None:
        found = [e for issue in body["issue"] for e in issue.get("expression", ())]
        assert expression in found, body
    diagnostics: str = body["issue"][0]["diagnostics"]
    return diagnostics
