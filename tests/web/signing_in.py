"""What a person does on the pages of sign-in and security, and what their devices hold."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

import httpx
import pyotp

from fhir_portal.accounts.account import Account
from fhir_portal.accounts.credentials import SignIn
from fhir_portal.accounts.front_door import FrontDoor
from fhir_portal.accounts.own import OwnSignIn
from fhir_portal.accounts.throttle import Throttle
from fhir_portal.notify.outbox import OutboxMessage
from fhir_portal.web.pages.signin import front_door
from tests.builders import passwords
from tests.smart.world import PASSWORD, Browser, World

SECURITY = "/account/security"
MARA = "mara@example.org"


@dataclass
class App:
    """An authenticator app on somebody's phone."""

    world: World
    secret: str

    @property
    def code(self) -> str:
        return pyotp.TOTP(self.secret).at(int(self.world.clock()))


class Resident:
    """Mara's devices, and what she does beside the pages."""

    def __init__(self, world: World) -> None:
        self.world = world
        throttle = Throttle(world.store, world.clock)
        sign_in = SignIn(world.store, passwords(), throttle)
        self.door: FrontDoor = front_door(world.server, world.sessions, sign_in)
        self.own = OwnSignIn(self.door)

    async def app(self, account: Account | None = None) -> App:
        """Set up an authenticator app, without recovery codes."""
        account = account or self.world.mara
        opened = await self.world.sessions.open()
        opened = await self.world.sessions.sign_in(opened.visitor.session, account)
        totps = self.door.second_factor.totps
        offer = await totps.offer(opened.visitor.session, account)
        app = App(self.world, offer.secret)
        proof = await totps.accepted(opened.visitor.session, account, app.code)
        assert proof.spend is not None
        await self.world.store.transact(proof.spend)
        await self.world.sessions.sign_out(opened.visitor.session)
        self.world.clock.advance(30)
        return app

    async def recovery_codes(self, account: Account | None = None) -> list[str]:
        key = (account or self.world.mara).key
        codes, keep = await self.door.second_factor.codes.new(key)
        await self.world.store.transact(keep)
        return codes

    async def told(self) -> list[str]:
        found = await self.world.store.every(OutboxMessage)
        return [one.template for one in sorted(found, key=lambda one: one.created)]


async def at_security(world: World, username: str = MARA, app: App | None = None) -> Browser:
    """A browser in which somebody signed in and sees the security page."""
    browser = world.browser()
    await browser.open(SECURITY)
    await submit(browser, "/signin", username=username, password=PASSWORD)
    if app is not None:
        await submit(browser, "/signin/code", code=app.code)
    assert browser.heading == "Security", browser.text
    return browser


class Held:
    """A form of which the head has come; `finish` sends its body."""

    def __init__(self, world: World, path: str, browser: Browser) -> None:
        sent = "; ".join(f"{one.name}={one.value}" for one in browser.http.cookies.jar)
        kind = b"application/x-www-form-urlencoded"
        self._body: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._answer: list[Any] = []
        host = browser.http.base_url.netloc
        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": "POST",
            "path": path,
            "raw_path": path.encode(),
            "root_path": "",
            "scheme": "http",
            "query_string": b"",
            "headers": [(b"host", host), (b"content-type", kind), (b"cookie", sent.encode())],
            "client": ("192.0.2.9", 1),
            "server": ("localhost", 8000),
        }
        self._task = asyncio.create_task(world.asgi(scope, self._receive, self._send))

    async def _receive(self) -> dict[str, Any]:
        return {"type": "http.request", "body": await self._body, "more_body": False}

    async def _send(self, message: Any) -> None:
        self._answer.append(message)

    async def begun(self) -> None:
        """Let the server do all that it can before the body."""
        for _ in range(50):
            await asyncio.sleep(0)

    async def finish(self, data: Mapping[str, str]) -> tuple[int, str]:
        """Send the body; return status and location."""
        await self.begun()
        self._body.set_result(urlencode(data).encode())
        await self._task
        start = self._answer[0]
        return start["status"], dict(start["headers"]).get(b"location", b"").decode()


def forms(browser: Browser, action: str) -> list[Any]:
    return [one for one in browser.document.xpath("//form") if one.get("action") == action]


def fields_of(form: Any) -> dict[str, str]:
    """The hidden fields of a form."""
    hidden = form.xpath('.//input[@type="hidden"]')
    return {one.get("name"): one.get("value") for one in hidden}


async def submit(browser: Browser, action: str, *, nth: int = 0, **fields: str) -> httpx.Response:
    """Fill in one of the page's forms and send it off."""
    form = forms(browser, action)[nth]
    return await post(browser, action, {**fields_of(form), **fields})


async def post(
    browser: Browser, path: str, data: Mapping[str, str], *, files: Any = None
) -> httpx.Response:
    """Post what one likes, and follow where it leads; ``files`` as httpx takes them."""
    browser.page = await browser.http.post(path, data=dict(data), files=files)
    while browser.page.is_redirect:
        location = browser.page.headers["location"]
        if not location.startswith("/"):
            break
        browser.page = await browser.http.get(location)
    return browser.page


def problem(browser: Browser) -> str:
    """What the page says is wrong; ``""`` when nothing is."""
    return " ".join(
        " ".join(one.text_content().split())
        for one in browser.document.xpath('//main/p[@role="alert"]')
    )


def done(browser: Browser) -> str:
    """What the page says was done."""
    return " ".join(
        " ".join(one.text_content().split())
        for one in browser.document.xpath('//main/p[@role="status"]')
    )
