"""A small world for the authorization server: a family, its apps, and browsers that click."""

from __future__ import annotations

import base64
import functools
import hashlib
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import httpx
from fastapi import FastAPI
from joserfc import jwt
from joserfc.jwk import ECKey, Key, KeySet, RSAKey
from lxml import html

from fhir_portal.access.policy import understands
from fhir_portal.access.writes import WriteTableScopes
from fhir_portal.accounts.account import Account, add_account
from fhir_portal.accounts.credentials import SignIn
from fhir_portal.accounts.one_time_code import KEY_PURPOSE, OneTimeCodes
from fhir_portal.accounts.sessions import Sessions
from fhir_portal.accounts.throttle import Throttle
from fhir_portal.consent.record import RecordAccess, StaffAccess, way_to
from fhir_portal.embedded.store import EmbeddedStore
from fhir_portal.notify.connection import OutboxConnectionNotices
from fhir_portal.portal import Portal
from fhir_portal.records import Record
from fhir_portal.smart.authorization import AuthorizationRequest, values_of
from fhir_portal.smart.client import Client, add_client
from fhir_portal.smart.client_auth.private_key_jwt import UsedAssertion
from fhir_portal.smart.client_keys import ClientKeys
from fhir_portal.smart.code import AuthorizationCode
from fhir_portal.smart.dpop import DpopPolicy, UsedProof
from fhir_portal.smart.issuer import Issuer
from fhir_portal.smart.keys import ServerKeys
from fhir_portal.smart.launch import Launch, Launches
from fhir_portal.smart.outbound import Outbound
from fhir_portal.smart.server import AuthorizationServer
from fhir_portal.smart.token import AccessToken, TokenFamily, authenticate
from fhir_portal.web.launch import EhrLaunches, sees_by, visits_by
from fhir_portal.web.oauth import OAuthEndpoints
from fhir_portal.web.pages import pages_router
from fhir_portal.web.site import site
from tests.builders import passwords
from tests.smart.hosts import Hosts

BASE = "http://127.0.0.1:8000"
REDIRECT = "https://app.example/callback"
PASSWORD = "correct horse battery"
START = 1_900_000_000.0
SCOPE = "launch/patient openid fhirUser offline_access patient/Patient.rs patient/Observation.rs"

TYPES = ("Condition", "Coverage", "Goal", "Observation", "Patient", "QuestionnaireResponse")
CHILD_SECTIONS = frozenset({"results", "demographics", "forms"})


class Clock:
    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds


@dataclass
class Directory:
    """Who may use which record; tests change it as life goes on.

    ``staff`` are the practices on whose staff an account is; ``patients`` what they may open
    there, as ``<practice>/Patient/<id>``, with the name.
    """

    access: dict[str, tuple[RecordAccess, ...]] = field(default_factory=dict)
    staff: dict[str, tuple[StaffAccess, ...]] = field(default_factory=dict)
    patients: dict[str, str] = field(
        default_factory=lambda: {
            "skin/Patient/mara": "Mara Quill",
            "family/Patient/pip": "Pip Quill",
        }
    )

    async def records_of(self, account: Any) -> tuple[RecordAccess, ...]:
        return self.access.get(account.key, ())

    async def record_of(self, account: Any, practice: str, patient: str) -> RecordAccess | None:
        return way_to(await self.records_of(account), practice, patient)

    async def staff_of(self, account: Any) -> tuple[StaffAccess, ...]:
        return self.staff.get(account.key, ())

    async def staff_at(self, account: Any, practice: str) -> StaffAccess | None:
        found = await self.staff_of(account)
        return next((one for one in found if one.practice == practice), None)

    async def staff_record_of(
        self, account: Any, practice: str, patient: str
    ) -> RecordAccess | None:
        staff = await self.staff_at(account, practice)
        if staff is None or (staff.permissions and "view" not in staff.permissions):
            return None
        return await self.staff_bound_to(account, practice, patient)

    async def birth_date_of(self, account: Any, practice: str) -> str | None:
        for record in await self.records_of(account):
            if record.practice == practice and record.is_own:
                return record.birth_date
        return None

    async def staff_bound_to(
        self, account: Any, practice: str, patient: str
    ) -> RecordAccess | None:
        staff = await self.staff_at(account, practice)
        name = self.patients.get(f"{practice}/{patient}")
        if staff is None or name is None:
            return None
        return replace(
            own_record(patient, name),
            practice=practice,
            practice_name=staff.practice_name,
            relation="staff",
            fhir_user=staff.fhir_user,
        )


def own_record(patient: str = "Patient/mara", name: str = "Mara Quill") -> RecordAccess:
    return RecordAccess(
        patient=patient,
        practice="skin",
        practice_name="Hillside Dermatology",
        patient_name=name,
        birth_date="1984-05-12",
        relation="self",
        fhir_user=patient,
        grant=None,
        sections=None,
        act=frozenset(),
        until=None,
    )


def childs_record(until: float | None = None) -> RecordAccess:
    return RecordAccess(
        patient="Patient/pip",
        practice="family",
        practice_name="Brook Family Medicine",
        patient_name="Pip Quill",
        birth_date="2018-02-03",
        relation="mother",
        fhir_user="RelatedPerson/mara-for-pip",
        grant="Consent/pip-to-mara",
        sections=CHILD_SECTIONS,
        act=frozenset(),
        until=until,
    )


@functools.cache
def signing_key() -> RSAKey:
    return RSAKey.generate_key(2048, auto_kid=False)


@functools.cache
def password_hash() -> str:
    return passwords()._hasher.hash(PASSWORD)  # noqa: SLF001 - once for all tests


@functools.cache
def client_key(kind: str, kid: str) -> Key:
    if kind == "RS384":
        return RSAKey.generate_key(2048, {"kid": kid})
    return ECKey.generate_key("P-384", {"kid": kid})


KINDS: tuple[type[Record], ...] = (
    AuthorizationCode,
    TokenFamily,
    AccessToken,
    UsedAssertion,
    UsedProof,
    AuthorizationRequest,
    Launch,
    Client,
)


class World:
    """Server, store, clock and people. `World.begin` makes it."""

    store: EmbeddedStore
    portal: Portal
    server: AuthorizationServer
    sessions: Sessions
    codes: OneTimeCodes
    app: FastAPI
    asgi: Any
    mara: Account

    @classmethod
    async def begin(
        cls,
        *,
        base: str = BASE,
        aliases: Sequence[str] = ("http://localhost:8000",),
        dpop: DpopPolicy | None = None,
    ) -> World:
        world = cls()
        world.clock = Clock()
        world.random = random.Random(7).randbytes
        world.base = base
        world.store = EmbeddedStore.open(":memory:", clock=world.clock)
        world.directory = Directory()
        world.keys = ServerKeys(b"a server secret of thirty-two by", signing_key())
        world.hosts = Hosts()
        outbound = Outbound(world.hosts.http, resolve=world.hosts.resolve)
        issuer = Issuer(base, tuple(aliases))
        world.portal = Portal.over(
            world.store,
            world.store.log,
            clock=world.clock,
            base=issuer.fhir,
            aliases=tuple(f"{alias}/fhir" for alias in aliases),
            derive=world.keys.derive,
            passwords=passwords(),
        )
        world.server = AuthorizationServer(
            store=world.store,
            directory=world.directory,
            policy=WriteTableScopes(),
            keys=world.keys,
            issuer=issuer,
            resource_types=TYPES,
            understands=understands,
            client_keys=ClientKeys(outbound, world.clock),
            dpop=dpop,
            notices=OutboxConnectionNotices(),
            visits=visits_by(world.portal, world.clock),
            sees=sees_by(world.portal, world.clock),
            clock=world.clock,
            random=world.random,
        )
        world.sessions = Sessions(world.store, clock=world.clock, random=world.random)
        sign_in = SignIn(world.store, passwords(), Throttle(world.store, world.clock))
        world.codes = OneTimeCodes(
            world.keys.derive(KEY_PURPOSE), clock=world.clock, random=world.random
        )
        pages = pages_router(
            server=world.server, sessions=world.sessions, sign_in=sign_in, codes=world.codes
        )
        world.app = site([pages], version="test")
        launches = Launches(
            world.store, issuer=issuer, loopback=True, clock=world.clock, random=world.random
        )
        endpoints = OAuthEndpoints(
            world.server, world.store, launches=EhrLaunches(world.portal, launches, issuer)
        )

        async def asgi(scope: Any, receive: Any, send: Any) -> None:
            chosen = endpoints if OAuthEndpoints.serves(scope.get("path", "")) else world.app
            await chosen(scope, receive, send)

        world.asgi = asgi
        world.mara = await world.account("mara@example.org", own_record())
        return world

    def __init__(self) -> None:
        self.clock: Clock
        self.directory: Directory
        self.hosts: Hosts
        self.keys: ServerKeys
        self.random: Any
        self.base: str

    def close(self) -> None:
        self.store.close()

    def http(self, **options: Any) -> httpx.AsyncClient:
        """A client without cookies of anybody else."""
        return httpx.AsyncClient(
            transport=httpx.ASGITransport(self.asgi), base_url=self.base, **options
        )

    def browser(self, address: str = "127.0.0.1") -> Browser:
        """A browser without cookies, on some network."""
        transport = httpx.ASGITransport(self.asgi, client=(address, 123))
        return Browser(self, httpx.AsyncClient(transport=transport, base_url=self.base))

    async def account(self, username: str, *records: RecordAccess) -> Account:
        account = await add_account(
            self.store,
            username=username,
            password_hash=password_hash(),
            now=self.clock(),
            random=self.random,
        )
        self.directory.access[account.key] = records
        return account

    async def public_app(self, client_id: str = "app", **changes: Any) -> App:
        return await self._app(client_id, "public", changes)

    async def confidential_app(self, client_id: str = "web-app", **changes: Any) -> App:
        return await self._app(client_id, "confidential", changes)

    async def backend(self, client_id: str = "ehr", alg: str = "ES384", **changes: Any) -> App:
        key = client_key(alg, f"{client_id}-key")
        options: dict[str, Any] = {
            "scope": "system/*.cruds",
            "practice": "skin",
            "jwks": {"keys": [key.as_dict(private=False)]},
            **changes,
        }
        added = await add_client(
            self.store,
            name="EHR",
            type="backend",
            client_id=client_id,
            now=self.clock(),
            random=self.random,
            **options,
        )
        return App(self, added.client, None, key, alg)

    async def _app(self, client_id: str, kind: Any, changes: Mapping[str, Any]) -> App:
        options: dict[str, Any] = {
            "name": "Heart Diary",
            "redirect_uris": [REDIRECT],
            "scope": "launch/patient openid fhirUser offline_access patient/*.cruds",
            **changes,
        }
        added = await add_client(
            self.store,
            type=kind,
            client_id=client_id,
            now=self.clock(),
            random=self.random,
            **options,
        )
        return App(self, added.client, added.secret)

    async def rows(self) -> dict[str, list[Record]]:
        """Every record that a token request could have touched."""
        return {kind.kind: await self.store.every(kind) for kind in KINDS}

    async def only_family(self) -> TokenFamily:
        (family,) = await self.store.every(TokenFamily)
        return family

    async def is_alive(self, access_token: str) -> bool:
        return await authenticate(self.store, access_token, self.clock()) is not None


@dataclass
class App:
    """A registered client and what it does at the token endpoint."""

    world: World
    client: Client
    secret: str | None
    key: Key | None = None
    alg: str = "ES384"
    verifier: str = "v" * 64

    @property
    def client_id(self) -> str:
        return self.client.key

    @property
    def challenge(self) -> str:
        digest = hashlib.sha256(self.verifier.encode()).digest()
        return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()

    def parameters(self, **changes: str | None) -> dict[str, str]:
        """Valid authorization parameters; a change to ``None`` leaves one out."""
        valid: dict[str, str | None] = {
            "response_type": "code",
            "client_id": self.client_id,
            "redirect_uri": REDIRECT,
            "scope": SCOPE,
            "state": "a state/+=",
            "aud": f"{self.world.base}/fhir",
            "code_challenge": self.challenge,
            "code_challenge_method": "S256",
            **changes,
        }
        return {name: value for name, value in valid.items() if value is not None}

    async def code(self, **changes: str | None) -> str:
        """Have the first account that signed up approve everything, without pages."""
        handle = await self.world.server.begin(list(self.parameters(**changes).items()))
        opened = await self.world.sessions.open()
        opened = await self.world.sessions.sign_in(opened.visitor.session, self.world.mara)
        request = await self.world.server.resume(handle, opened.visitor.browser)
        records = await self.world.directory.records_of(self.world.mara)
        value = next(v for v, r in values_of(records).items() if r == records[0])
        await self.world.server.choose_record(request, opened.visitor, value)
        request = await self.world.server.resume(handle, opened.visitor.browser)
        step: Any = await self.world.server.step(request, opened.visitor)
        ticked = [str(one.scope) for one in step.offer.scopes]
        ticked += ["offline_access"] if step.offer.offline else []
        location = await self.world.server.decide(
            request, opened.visitor, approve=True, about=step.about, ticked=ticked
        )
        return query_of(location)["code"]

    async def post(self, path: str, form: Mapping[str, str | None], **more: Any) -> httpx.Response:
        """Post a form with this client's own authentication."""
        data = {name: value for name, value in form.items() if value is not None}
        auth = None
        if self.secret is not None and "client_secret" not in data:
            auth = (self.client_id, self.secret)
        elif self.key is not None:
            data.setdefault(
                "client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
            )
            data.setdefault("client_assertion", self.assertion())
        elif self.secret is None:
            data.setdefault("client_id", self.client_id)
        async with self.world.http() as http:
            return await http.post(path, data=data, auth=more.pop("auth", auth), **more)

    async def exchange(
        self, code: str, *, headers: Mapping[str, str] | None = None, **changes: str | None
    ) -> httpx.Response:
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": REDIRECT,
            "code_verifier": self.verifier,
            **changes,
        }
        return await self.post("/oauth/token", form, headers=headers)

    async def tokens(self, **changes: str | None) -> dict[str, Any]:
        response = await self.exchange(await self.code(**changes))
        assert response.status_code == 200, response.text
        found: dict[str, Any] = response.json()
        return found

    async def refresh(
        self,
        refresh_token: str,
        *,
        headers: Mapping[str, str] | None = None,
        **changes: str | None,
    ) -> httpx.Response:
        form = {"grant_type": "refresh_token", "refresh_token": refresh_token, **changes}
        return await self.post("/oauth/token", form, headers=headers)

    def claims(self, **changes: Any) -> dict[str, Any]:
        valid = {
            "iss": self.client_id,
            "sub": self.client_id,
            "aud": f"{self.world.base}/oauth/token",
            "exp": int(self.world.clock()) + 300,
            "jti": self.world.random(16).hex(),
            **changes,
        }
        return {name: value for name, value in valid.items() if value is not None}

    def assertion(
        self, key: Any = None, header: Mapping[str, Any] | None = None, **changes: Any
    ) -> str:
        key = key or self.key
        full = {"alg": self.alg, "kid": f"{self.client_id}-key", "typ": "JWT", **(header or {})}
        return jwt.encode(full, self.claims(**changes), key, algorithms=[full["alg"]])

    async def backend_token(self, assertion: str | None = None, **form: str) -> httpx.Response:
        return await self.post(
            "/oauth/token",
            {
                "grant_type": "client_credentials",
                "scope": "system/*.rs",
                "client_assertion": assertion,
                **form,
            },
        )


class Browser:
    """Follows redirects within the server and fills in its forms, by their field names."""

    def __init__(self, world: World, http: httpx.AsyncClient) -> None:
        self.world = world
        self.http = http
        self.page: httpx.Response

    async def open(self, url: str, **options: Any) -> httpx.Response:
        return await self._follow(await self.http.get(url, **options))

    async def authorize(self, app: App, **changes: str | None) -> httpx.Response:
        return await self.open("/oauth/authorize?" + urlencode(app.parameters(**changes)))

    async def submit(
        self, fields: Mapping[str, Any] | None = None, *, drop: Sequence[str] = ()
    ) -> httpx.Response:
        """Submit the page's form: its hidden fields, and these."""
        form = self.form
        data: dict[str, Any] = {
            one.get("name"): one.get("value") for one in form.xpath('.//input[@type="hidden"]')
        }
        data |= fields or {}
        sent = {name: value for name, value in data.items() if name not in drop}
        return await self._follow(await self.http.post(form.get("action"), data=sent))

    async def sign_in(
        self, username: str = "mara@example.org", password: str = PASSWORD
    ) -> httpx.Response:
        return await self.submit({"username": username, "password": password})

    @property
    def document(self) -> Any:
        return html.document_fromstring(self.page.text)

    @property
    def form(self) -> Any:
        (form,) = self.document.xpath("//form")
        return form

    @property
    def heading(self) -> str:
        (heading,) = self.document.xpath("//h1")
        return str(" ".join(heading.text_content().split()))

    @property
    def text(self) -> str:
        return " ".join(self.document.text_content().split())

    def boxes(self, *, ticked: bool = False) -> list[str]:
        checked = "[@checked]" if ticked else ""
        return [
            str(box.get("value")) for box in self.document.xpath(f'//input[@name="scope"]{checked}')
        ]

    async def _follow(self, response: httpx.Response) -> httpx.Response:
        while response.is_redirect:
            location = response.headers["location"]
            if not location.startswith("/"):
                break
            response = await self.http.get(location)
        self.page = response
        return response


def published_keys(jwks: Any) -> KeySet:
    """A JWK Set as a client reads it."""
    return KeySet.import_key_set(jwks)


def query_of(location: str) -> dict[str, str]:
    """The query parameters of a redirect, each once."""
    found = parse_qs(urlsplit(location).query, strict_parsing=True, keep_blank_values=True)
    assert all(len(values) == 1 for values in found.values()), found
    return {name: values[0] for name, values in found.items()}


def assert_oauth_error(response: httpx.Response, error: str, status: int = 400) -> None:
    assert response.json()["error"] == error, response.text
    assert response.status_code == status
    assert response.headers["content-type"] == "application/json"
    assert response.headers["cache-control"] == "no-store"
    assert response.headers["pragma"] == "no-cache"


def assert_redirect_error(response: httpx.Response, error: str, state: str = "a state/+=") -> None:
    location = response.headers["location"]
    assert location.startswith(f"{REDIRECT}?")
    query = query_of(location)
    assert query["error"] == error
    assert query["state"] == state
    assert query["iss"] == BASE
    assert "code" not in query
