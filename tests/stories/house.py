"""One deployment with two practices, and who uses it: patients, staff, an EHR for each of them.

Everybody comes in by the front door: pages for signing in and allowing an app, the token endpoint,
and the FHIR API with the token they were given there. Nothing is put into the store behind it but
what an operator does by command: practices, staff, clients.
"""

from __future__ import annotations

import base64
import hashlib
import json
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode

import httpx
from joserfc import jwt
from joserfc.jwk import ECKey

from fhir_portal.accounts.account import add_account
from fhir_portal.accounts.levels import OPERATOR
from fhir_portal.accounts.policy import PracticePolicy
from fhir_portal.accounts.practice import Practice
from fhir_portal.accounts.staff import add_staff
from fhir_portal.app import Application
from fhir_portal.billing.provider import PaymentProvider
from fhir_portal.embedded.store import EmbeddedStore
from fhir_portal.notify.folder import messages_in
from fhir_portal.settings import load
from fhir_portal.smart.client import add_client
from tests.builders import Clock, Json, a_bundle, keep
from tests.operations.paying import Provider
from tests.smart.world import PASSWORD, Browser, password_hash, query_of
from tests.staff import a_level
from tests.stories.chart import at
from tests.stories.record import Recorder
from tests.web.signing_in import submit

BASE: Final = "https://portal.example"
CALLBACK: Final = "https://app.example/callback"
SKIN, FAMILY = "skin", "family"
NAMES: Final = {SKIN: "Hillside Dermatology", FAMILY: "Brook Family Medicine"}
APP, DESK_APP = "pocket-record", "desk"
OF_PATIENTS: Final = "launch/patient openid fhirUser patient/*.cruds"
OF_STAFF: Final = "openid fhirUser user/*.cruds"
GOOD: Final = "seven quiet otters"
FHIR_JSON: Final = "application/fhir+json"
_JWT_BEARER: Final = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
_ASSERTION_SECONDS: Final = 240


class _Paying(Application):
    """The application with a payment provider that a test can look into."""

    provider: Provider

    def _payments(self) -> PaymentProvider:
        return self.provider


@dataclass
class House:
    """The server in this process, over a store of its own; `begin` opens it."""

    folder: Path
    clock: Clock = field(default_factory=Clock)
    base: str = BASE
    recorder: Recorder = field(init=False)
    app: _Paying = field(init=False)

    def __post_init__(self) -> None:
        self.random = random.Random(11).randbytes
        self.began = self.clock()
        self.recorder = Recorder(self.clock)
        self._keys = {name: ECKey.generate_key("P-384", {"kid": name}) for name in NAMES}
        self._ledger = EmbeddedStore.open(":memory:", clock=self.clock)

    @classmethod
    async def begin(cls, folder: Path) -> House:
        house = cls(folder)
        settings = load(base_url=BASE, data=folder / "portal.db", secret_key_file=folder / "secret")
        house.app = _Paying(settings, clock=house.clock, background=False)
        house.app.provider = Provider.over(house._ledger)
        await house.app.open()
        await keep(
            house.app.store,
            *(Practice(key=key, name=name, zone="America/Chicago") for key, name in NAMES.items()),
        )
        for key in NAMES:
            await house._add(
                f"{key}-ehr",
                "backend",
                scope="system/*.cruds",
                practice=key,
                permissions=["label", "grant-writing"],
                jwks={"keys": [house._keys[key].as_dict(private=False)]},
            )
        of_people: Json = {"redirect_uris": [CALLBACK]}
        await house._add(APP, "public", scope=OF_PATIENTS, **of_people)
        await house._add(DESK_APP, "public", scope=OF_STAFF, approved_at=[*NAMES], **of_people)
        return house

    async def close(self) -> None:
        await self.app.close()
        self._ledger.close()

    async def _add(self, client_id: str, kind: Any, **options: Any) -> None:
        await add_client(
            self.app.store,
            client_id=client_id,
            name=client_id.replace("-", " ").title(),
            type=kind,
            now=self.clock(),
            random=self.random,
            **options,
        )

    async def decide(self, practice: str, **policy: Any) -> None:
        """Set the policy of a practice, as its operator does."""
        await keep(self.app.store, PracticePolicy(key=practice, country="US", **policy))

    def after(self, seconds: float) -> str:
        """The time in a while, by the server's clock."""
        return at(self.clock() - self.began + seconds)

    # --- who comes in ---------------------------------------------------------------------------

    def http(self, **options: Any) -> httpx.AsyncClient:
        """A client without cookies of anybody else."""
        return httpx.AsyncClient(
            transport=httpx.ASGITransport(self.app), base_url=self.base, **options
        )

    def browser(self) -> Browser:
        return Browser(self, self.http())  # type: ignore[arg-type] # it keeps its world, no more

    async def ehr(self, practice: str, scope: str = "system/*.cruds") -> Fhir:
        """The practice's EHR with a token of its own: nobody signs in (SMART Backend Services)."""
        key, client_id = self._keys[practice], f"{practice}-ehr"
        claims = {
            "iss": client_id,
            "sub": client_id,
            "aud": f"{self.base}/oauth/token",
            "exp": int(self.clock()) + _ASSERTION_SECONDS,
            "jti": self.random(16).hex(),
        }
        header = {"alg": "ES384", "typ": "JWT", "kid": practice}
        assertion = jwt.encode(header, claims, key, algorithms=["ES384"])
        told = await self._token(
            grant_type="client_credentials",
            scope=scope,
            client_assertion_type=_JWT_BEARER,
            client_assertion=assertion,
        )
        return Fhir(self, told["access_token"], f"EHR of {practice}")

    async def staff(self, name: str, practice: str, *permissions: str) -> Fhir:
        """Somebody on a practice's staff, whose level holds these, with a ``user/`` token.

        Their Practitioner is to be in the EHR's directory.
        """
        store = self.app.store
        account = await add_account(
            store,
            username=name,
            password_hash=password_hash(),
            now=self.clock(),
            random=self.random,
        )
        level = f"{name} level"
        await keep(store, a_level(level, *permissions, practice=practice))
        await store.transact(
            lambda transaction: add_staff(
                transaction,
                account=account.key,
                practice=practice,
                practitioner=f"Practitioner/{name}",
                now=self.clock(),
                by=OPERATOR,
                level=level,
            )
        )
        browser = self.browser()
        token = await self.allowed(browser, DESK_APP, OF_STAFF, username=name, password=PASSWORD)
        return Fhir(self, token["access_token"], name)

    async def patient(
        self,
        browser: Browser,
        record: str = "",
        *,
        scope: str = OF_PATIENTS,
        practice: str = SKIN,
        **signing_in: str,
    ) -> Fhir:
        """Have an app be allowed for a record (``Patient/<id>``) by who is at a browser."""
        told = await self.allowed(
            browser, APP, scope, record=f"{practice}/{record}" if record else "", **signing_in
        )
        return Fhir(self, told["access_token"], f"app of {told['patient']}", self.recorder, told)

    async def allowed(
        self, browser: Browser, client_id: str, scope: str, *, record: str = "", **signing_in: str
    ) -> Json:
        """Go through sign-in, picker and consent as far as they are there; return the tokens."""
        verifier = base64.urlsafe_b64encode(self.random(48)).decode()
        digest = hashlib.sha256(verifier.encode()).digest()
        asked = {
            "response_type": "code",
            "client_id": client_id,
            "redirect_uri": CALLBACK,
            "scope": scope,
            "state": self.random(8).hex(),
            "aud": f"{self.base}/fhir",
            "code_challenge": base64.urlsafe_b64encode(digest).rstrip(b"=").decode(),
            "code_challenge_method": "S256",
        }
        page = await browser.open(f"/oauth/authorize?{urlencode(asked)}")
        if signing_in and not page.is_redirect and browser.heading == "Sign in":
            page = await browser.sign_in(**signing_in)
        if not page.is_redirect and browser.document.xpath('//input[@name="record"]'):
            page = await browser.submit({"record": record})
        if not page.is_redirect:
            assert browser.boxes(), browser.text
            page = await browser.submit({"scope": browser.boxes(), "decision": "approve"})
        assert page.is_redirect, browser.text
        answer = query_of(page.headers["location"])
        assert "code" in answer, answer
        return await self._token(
            grant_type="authorization_code",
            code=answer["code"],
            redirect_uri=CALLBACK,
            client_id=client_id,
            code_verifier=verifier,
        )

    async def _token(self, **form: str) -> Json:
        async with self.http() as http:
            response = await http.post("/oauth/token", data=form)
        assert response.status_code == 200, response.text
        found: Json = response.json()
        return found

    # --- what goes by mail ----------------------------------------------------------------------

    async def work(self) -> None:
        """Do what is due: jobs, mail, SMS."""
        while await self.app.work_once():
            pass

    async def mail(self, channel: str, to: str, template: str = "") -> Json:
        """The latest message that somebody was sent."""
        await self.work()
        found = [
            one
            for one in messages_in(self.app.settings.outbox_folder, limit=500)
            if (one["channel"], one["to"]) == (channel, to) and one["template"].startswith(template)
        ]
        latest: Json = max(found, key=lambda one: one["created"])
        return latest

    async def activate(
        self, link: str, code: str, username: str, *, postal_code: str, born: Sequence[int]
    ) -> Browser:
        """Open the link of an invitation and make an account; the browser is signed in after it."""
        browser = self.browser()
        path = link.removeprefix(self.base)
        await browser.open(path)
        year, month, day = map(str, born)
        await submit(
            browser,
            path,
            nth=0,
            code=code,
            postal_code=postal_code,
            year=year,
            month=month,
            day=day,
        )
        assert browser.heading == "Your account", browser.text
        self.clock.advance(1)
        await submit(
            browser,
            "/activate/account",
            nth=0,
            username=username,
            password=GOOD,
            repeated=GOOD,
            how="password",
        )
        assert browser.heading == "Your account is ready", browser.text
        self.recorder.done(username, "activated an account")
        return browser


@dataclass
class Fhir:
    """The FHIR API with somebody's token. What a patient does is noted down."""

    house: House
    token: str
    who: str
    recorder: Recorder | None = None
    told: Json = field(default_factory=dict)

    async def ask(
        self, method: str, path: str, tree: Json | None = None, **headers: str
    ) -> httpx.Response:
        headers = {"Authorization": f"Bearer {self.token}", "Accept": FHIR_JSON, **headers}
        if tree is not None:
            headers["Content-Type"] = FHIR_JSON
        content = None if tree is None else json.dumps(tree)
        writes = method in {"POST", "PUT"} and "_search" not in path
        if writes:  # each in a second of its own
            self.house.clock.advance(1)
        async with self.house.http() as http:
            response = await http.request(
                method, f"/fhir/{path}".rstrip("/"), content=content, headers=headers
            )
        if self.recorder is not None and writes and response.is_success:
            self.recorder.note(self.who, f"{method} {path}", response)
        return response

    async def get(self, path: str, status: int = 200) -> Json:
        return _body(await self.ask("GET", path), status)

    async def search(self, path: str) -> list[Json]:
        """The resources of a searchset."""
        found = await self.get(path)
        return [one["resource"] for one in found.get("entry", ())]

    async def one(self, path: str) -> Json:
        (found,) = await self.search(path)
        return found

    async def post(self, tree: Json, status: int = 201, **headers: str) -> Json:
        return _body(await self.ask("POST", tree["resourceType"], tree, **headers), status)

    async def put(self, tree: Json, status: int = 200) -> Json:
        path = f"{tree['resourceType']}/{tree['id']}"
        return _body(await self.ask("PUT", path, tree), status)

    async def call(self, path: str, *given: Json, status: int = 200) -> Json:
        """Call an operation; the values of its answer by name (`values_of`)."""
        body = {"resourceType": "Parameters", **({"parameter": list(given)} if given else {})}
        return values_of(_body(await self.ask("POST", path, body), status))

    async def transaction(self, *entries: tuple[str, str, Json]) -> Json:
        """Write several resources or none: method, address and resource of each."""
        return _body(await self.ask("POST", "", a_bundle("transaction", *entries)), 200)


def _body(response: httpx.Response, status: int) -> Json:
    assert response.status_code == status, (response.status_code, response.text)
    found: Json = response.json() if response.content else {}
    return found


def given(name: str, **value: Any) -> Json:
    """A parameter: ``given("kind", valueCode="self")``."""
    return {"name": name, **value}


def values_of(tree: Json) -> Json:
    """What an operation answered, by name; of what is there several times, a list."""
    if tree.get("resourceType") != "Parameters":
        return tree
    return _values(tree.get("parameter", []))


def _values(listed: list[Json]) -> Json:
    found: Json = {}
    for one in listed:
        value = next(value for name, value in one.items() if name != "name")
        if "part" in one:
            value = _values(one["part"])
        if one["name"] in found:
            before = found[one["name"]]
            found[one["name"]] = [*(before if isinstance(before, list) else [before]), value]
        else:
            found[one["name"]] = value
    return found
