"""A client that asks as Inferno's test kits ask: the same parameters, headers and order.

It stops where the kits stop: a person answers the pages in between.
"""

from __future__ import annotations

import base64
import hashlib
import uuid
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import urlencode, urlsplit

import httpx
from joserfc import jwt
from joserfc.jwk import Key

from tests.conformance.whole import (
    ANNA,
    ASYMMETRIC,
    BULK,
    CHART_APP,
    DOCTOR,
    EHR,
    INFERNO,
    PUBLIC,
    REDIRECT,
    SYMMETRIC,
    Whole,
    key_pair,
    sign_in,
)
from tests.smart.world import Browser, query_of

JWT_BEARER: Final = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
FORM: Final = "application/x-www-form-urlencoded"
STANDALONE: Final = (
    "launch/patient openid fhirUser offline_access patient/Patient.rs patient/Observation.rs"
)

Parameters = Mapping[str, str | None]


def given(parameters: Parameters) -> dict[str, str]:
    """Those that have a value; a change to ``None`` leaves one out."""
    return {name: value for name, value in parameters.items() if value is not None}


@dataclass
class Launched:
    """One authorization request, and what the redirect brought back."""

    verifier: str
    sent: Mapping[str, str]
    response: httpx.Response
    browser: Browser

    @property
    def answer(self) -> dict[str, str]:
        """The parameters at the redirect URI."""
        location = self.response.headers["location"]
        assert location.startswith(f"{REDIRECT}?"), location
        return query_of(location)

    @property
    def code(self) -> str:
        assert "error" not in self.answer, self.answer
        return self.answer["code"]


@dataclass
class Client:
    """One registered app, as Inferno would be typed in."""

    whole: Whole
    client_id: str = PUBLIC
    alg: str = "ES384"
    person: str = ANNA
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def endpoint(self) -> str:
        return f"{self.whole.base}/oauth/token"

    # --- launch

    async def launch(
        self,
        scope: str = STANDALONE,
        *,
        method: str = "POST",
        tick: Callable[[str], bool] | None = None,
        also: Collection[str] = (),
        record: str = "",
        **changes: str | None,
    ) -> Launched:
        """Ask for authorization and have the person allow it.

        ``tick`` says which of the boxes stay ticked, ``also`` are ticked beside them.
        """
        begun = await self.ask(scope, method=method, **changes)
        browser = begun.browser
        if "location" in begun.response.headers:
            return begun  # refused before anybody could be asked
        assert browser.heading == "Sign in", browser.text
        begun.response = await sign_in(browser, self.person)
        if "location" in begun.response.headers:
            return begun  # it was allowed before: there is nothing to ask
        if browser.document.xpath('//input[@name="record"]'):
            await browser.submit({"record": record})
        begun.response = await self.allow(browser, tick=tick, also=also)
        return begun

    async def ask(
        self, scope: str = STANDALONE, *, method: str = "POST", **changes: str | None
    ) -> Launched:
        """Send the browser to the authorization endpoint; see where it comes out."""
        verifier = f"{uuid.uuid4()}-{uuid.uuid4()}"
        digest = hashlib.sha256(verifier.encode()).digest()
        parameters: Parameters = {
            "response_type": "code",
            "client_id": self.client_id,
            "redirect_uri": REDIRECT,
            "scope": scope,
            "state": str(uuid.uuid4()),
            "aud": self.whole.fhir,
            "code_challenge": base64.urlsafe_b64encode(digest).rstrip(b"=").decode(),
            "code_challenge_method": "S256",
            **changes,
        }
        sent = given(parameters)
        browser = self.whole.browser()
        if method == "GET":
            response = await browser.open(f"/oauth/authorize?{urlencode(sent)}")
        else:  # a form on Inferno's own page
            headers = {"Origin": INFERNO, "Sec-Fetch-Site": "cross-site"}
            posted = await browser.http.post("/oauth/authorize", data=sent, headers=headers)
            response = posted
            if (location := posted.headers.get("location", "/")).startswith("/"):
                browser.page = posted
                response = await browser.open(location) if posted.is_redirect else posted
        return Launched(verifier, sent, response, browser)

    async def allow(
        self,
        browser: Browser,
        *,
        tick: Callable[[str], bool] | None = None,
        also: Collection[str] = (),
    ) -> httpx.Response:
        """Answer the consent page as it is ticked, or as told."""
        assert browser.heading.startswith("Allow Inferno"), browser.text
        ticked = [box for box in browser.boxes(ticked=True) if tick is None or tick(box)]
        return await browser.submit({"scope": [*ticked, *also], "decision": "approve"})

    # --- token endpoint

    async def post(
        self, form: Parameters, *, path: str = "/oauth/token", **options: Any
    ) -> httpx.Response:
        """Post a form with this client's own authentication (S19), and nothing else."""
        data = dict(form)
        headers = {"Accept": "application/json", **self.headers, **options.pop("headers", {})}
        if self.client_id == PUBLIC:
            data.setdefault("client_id", self.client_id)
            headers.setdefault("Origin", INFERNO)
        elif self.client_id in self.whole.secrets:
            raw = f"{self.client_id}:{self.whole.secrets[self.client_id]}"
            basic = base64.b64encode(raw.encode()).decode()
            headers.setdefault("Authorization", f"Basic {basic}")
        else:
            data.setdefault("client_assertion_type", JWT_BEARER)
            data.setdefault("client_assertion", self.assertion())
        async with self.whole.http() as http:
            return await http.post(
                path,
                content=urlencode(given(data)),
                headers={"Content-Type": FORM, **headers},
                **options,
            )

    async def exchange(self, launched: Launched, **changes: str | None) -> httpx.Response:
        form: Parameters = {
            "code": launched.code,
            "redirect_uri": REDIRECT,
            "grant_type": "authorization_code",
            "code_verifier": launched.verifier,
            **changes,
        }
        return await self.post(form)

    async def refresh(self, token: str, **more: str | None) -> httpx.Response:
        return await self.post({"grant_type": "refresh_token", "refresh_token": token, **more})

    async def tokens(self, scope: str = STANDALONE, **options: Any) -> dict[str, Any]:
        """Launch and exchange; the body of the token response."""
        response = await self.exchange(await self.launch(scope, **options))
        assert response.status_code == 200, response.text
        body: dict[str, Any] = response.json()
        return body

    def assertion(self, key: Key | None = None, **changes: Any) -> str:
        """A client assertion as the kits make it: no ``iat``, no ``nbf``, no ``jku``."""
        key = key or key_pair(self.alg)
        claims: dict[str, Any] = {
            "iss": self.client_id,
            "sub": self.client_id,
            "aud": self.endpoint,
            "exp": int(self.whole.clock()) + 300,
            "jti": self.whole.random(32).hex(),
            **changes,
        }
        header = {"alg": self.alg, "kid": key.kid, "typ": "JWT"}
        sent = {name: value for name, value in claims.items() if value is not None}
        return jwt.encode(header, sent, key, algorithms=[self.alg])

    async def backend(self, **changes: str | None) -> httpx.Response:
        """Ask as a backend service (S42)."""
        form: Parameters = {
            "scope": "system/*.rs",
            "grant_type": "client_credentials",
            "client_assertion_type": JWT_BEARER,
            **changes,
        }
        return await self.post(form)

    # --- FHIR

    def api(self, access_token: str | None, **headers: str) -> httpx.AsyncClient:
        """A client of the FHIR API with a token."""
        if access_token is not None:
            headers["Authorization"] = f"Bearer {access_token}"
        headers.setdefault("Accept", "application/fhir+json")
        return self.whole.http(headers=headers)

    async def read(self, access_token: str | None, reference: str, **headers: str) -> Any:
        async with self.api(access_token, **headers) as http:
            return await http.get(f"/fhir/{reference}")

    async def introspect(self, token: str) -> dict[str, Any]:
        response = await self.post({"token": token}, path="/oauth/introspect")
        assert response.status_code == 200, response.text
        body: dict[str, Any] = response.json()
        return body


def public(whole: Whole) -> Client:
    return Client(whole, PUBLIC)


def symmetric(whole: Whole) -> Client:
    return Client(whole, SYMMETRIC)


def asymmetric(whole: Whole, alg: str = "ES384") -> Client:
    return Client(whole, ASYMMETRIC, alg)


def bulk(whole: Whole, alg: str = "ES384") -> Client:
    return Client(whole, BULK, alg)


def on_a_chart(whole: Whole, client_id: str = CHART_APP) -> Client:
    """The app of the practice's staff, which an EHR launches."""
    return Client(whole, client_id, person=DOCTOR)


async def launched_by_ehr(whole: Whole, client_id: str = CHART_APP, **context: Any) -> str:
    """Have the EHR open the app on Anna's chart; the launch URL in the browser."""
    ehr = Client(whole, EHR)
    token = (await ehr.backend()).json()["access_token"]
    body = {"patient": "Patient/anna", "encounter": "Encounter/visit", **context}
    async with ehr.api(token) as http:
        response = await http.post("/oauth/launch", json={**body, "client_id": client_id})
    assert response.status_code == 201, response.text
    launch_url: str = response.json()["launch_url"]
    return launch_url


KINDS: Final = (public, symmetric, asymmetric)


def path_of(url: str) -> str:
    """What of an absolute address is asked of the server in this process."""
    parts = urlsplit(url)
    return parts.path + (f"?{parts.query}" if parts.query else "")


def resource_scopes(text: str) -> list[str]:
    return [word for word in text.split() if "/" in word and not word.startswith("launch/")]
