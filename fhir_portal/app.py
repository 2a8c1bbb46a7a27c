"""The application: opens the store, puts the rooms together, and sends each request to its room.

``/fhir`` and the endpoints that clients talk to are plain ASGI apps called before FastAPI, which
serves everything else (DESIGN: layout).
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import secrets
import time
from collections.abc import Awaitable, Callable, MutableMapping
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

import msgspec
import structlog

from fhir_portal.access.policy import understands
from fhir_portal.access.relation import Relations
from fhir_portal.access.writes import WriteTableScopes
from fhir_portal.accounts.credentials import Passwords, SignIn
from fhir_portal.accounts.sessions import Sessions
from fhir_portal.accounts.throttle import Throttle
from fhir_portal.embedded.store import EmbeddedStore
from fhir_portal.fhir.definitions import served_types
from fhir_portal.fhir.errors import Unavailable
from fhir_portal.logs import configure
from fhir_portal.portal import Portal, fault
from fhir_portal.records import drop_expired
from fhir_portal.resources.catalog import capability_statement
from fhir_portal.settings import Settings, load
from fhir_portal.smart.discovery import capability_security
from fhir_portal.smart.issuer import DAY, Issuer, Lifetimes
from fhir_portal.smart.keys import ServerKeys, load_server_keys
from fhir_portal.smart.server import AuthorizationServer
from fhir_portal.web.brands import brands_router
from fhir_portal.web.developers import developers_router
from fhir_portal.web.fhir import PREFIX, FhirApi
from fhir_portal.web.health import health_router
from fhir_portal.web.oauth import OAuthEndpoints
from fhir_portal.web.pages import pages_router
from fhir_portal.web.pages.apps import apps_router
from fhir_portal.web.site import behind_proxy, site

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


_log = structlog.get_logger(__name__)

HOUSEKEEPING_SECONDS = 60.0


def open_store(settings: Settings, clock: Callable[[], float] = time.time) -> EmbeddedStore:
    """Open the store the settings name.

    Raises:
        Unavailable: it cannot be opened safely, or is of a kind that is not there yet.
    """
    if settings.mongodb_uri is not None:
        message = "MongoDB is not supported by this version; unset FHIR_PORTAL_MONGODB_URI"
        raise Unavailable(message)
    return EmbeddedStore.open(str(settings.data), clock=clock)


class Application:
    """The ASGI application over one store. `open` it, or let the ASGI lifespan do so.

    While it is open, what has expired is removed every `HOUSEKEEPING_SECONDS`; ``pause`` waits
    for so long.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        clock: Callable[[], float] = time.time,
        pause: Callable[[float], Awaitable[Any]] = asyncio.sleep,
    ) -> None:
        self.settings = settings
        self.clock = clock
        self._pause = pause
        self._housekeeping: asyncio.Task[None] | None = None
        self.store: EmbeddedStore
        self.portal: Portal
        self.authorization: AuthorizationServer
        self.keys: ServerKeys
        self._is_open = False

    async def open(self) -> None:
        """Open the store and put everything together."""
        settings, clock = self.settings, self.clock
        issuer = Issuer(settings.base_url, settings.aliases)
        self.store = store = open_store(settings, clock)
        self.keys = await load_server_keys(
            store, settings.secret_key(), now=clock(), random=secrets.token_bytes
        )
        self.portal = Portal.over(
            store,
            store.log,
            clock=clock,
            base=issuer.fhir,
            aliases=tuple(f"{alias}/fhir" for alias in settings.aliases),
            page_key=self.keys.derive("page-links"),
        )
        directory = Relations(store, clock)
        self.authorization = AuthorizationServer(
            store=store,
            directory=directory,
            policy=WriteTableScopes(),
            keys=self.keys,
            issuer=issuer,
            resource_types=served_types(),
            understands=understands,
            lifetimes=Lifetimes(
                access_token=settings.access_token_seconds,
                refresh_token=settings.refresh_token_days * DAY,
                refresh_in_all=settings.refresh_token_days_in_all * DAY,
            ),
            clock=clock,
        )
        self._fhir = FhirApi(
            self.portal,
            capabilities=functools.cache(self._capabilities),
            smart_configuration=functools.cache(self.authorization.smart_configuration),
            max_body=settings.max_body_bytes,
            max_transaction=settings.max_transaction_bytes,
        )
        sessions = Sessions(store, clock=clock, random=secrets.token_bytes)
        pages = pages_router(
            server=self.authorization,
            sessions=sessions,
            sign_in=SignIn(store, Passwords(), Throttle(store, clock)),
        )
        apps = apps_router(
            server=self.authorization,
            sessions=sessions,
            store=store,
            directory=directory,
            log=store.log,
            clock=clock,
            random=secrets.token_bytes,
        )
        brands = brands_router(store=store, issuer=issuer, clock=clock)
        developers = developers_router(
            server=self.authorization, store=store, clock=clock, random=secrets.token_bytes
        )
        # Only the pages and the endpoints of the authorization server count by address.
        self._oauth = behind_proxy(OAuthEndpoints(self.authorization, store))
        self._site = behind_proxy(
            site(
                [health_router(self._faults), pages, apps, brands, developers],
                version=version("fhir-portal"),
            )
        )
        self._housekeeping = asyncio.create_task(self._keep_house())
        self._is_open = True

    async def close(self) -> None:
        """Close the store."""
        if self._is_open:
            self._is_open = False
            if self._housekeeping is not None:
                self._housekeeping.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await self._housekeeping
            await self.store.database.settle()
            self.store.close()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
            return
        path: str = scope["path"]
        if path == PREFIX or path.startswith(f"{PREFIX}/"):
            await self._fhir(scope, receive, send)
        elif path in OAuthEndpoints.PATHS:
            await self._oauth(scope, receive, send)
        else:
            await self._site(scope, receive, send)

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        while True:
            message = await receive()
            if message["type"] == "lifespan.startup":
                try:
                    if not self._is_open:
                        await self.open()
                except Exception as error:  # noqa: BLE001 - said to whoever started the server
                    await send({"type": "lifespan.startup.failed", "message": str(error)})
                    return
                # What is there now stays: the collector need not look at it on every round.
                gc.collect()
                gc.freeze()
                gc.set_threshold(20_000, 20, 50)
                await send({"type": "lifespan.startup.complete"})
            else:
                await self.close()
                await send({"type": "lifespan.shutdown.complete"})
                return

    async def _keep_house(self) -> None:
        while True:
            await self._pause(HOUSEKEEPING_SECONDS)
            try:
                await drop_expired(self.store, self.clock())
            except Exception as error:  # noqa: BLE001 - whatever it is, the next round comes
                _log.error("housekeeping failed", **fault(error))

    async def _faults(self) -> list[str]:
        try:
            stale = await self.store.stale()
        except Exception:  # noqa: BLE001 - whatever it is, the store does not answer
            return ["the store does not answer"]
        found = [f"{stale} resources wait for a reindex"] if stale else []
        return found + ([self.store.log.fault] if self.store.log.fault else [])

    def _capabilities(self) -> bytes:
        issuer = self.authorization.issuer
        return msgspec.json.encode(
            capability_statement(
                base=issuer.fhir,
                version=version("fhir-portal"),
                date=datetime.fromtimestamp(self.clock(), UTC).strftime("%Y-%m-%d"),
                security=capability_security(issuer),
            )
        )


def create_app() -> Application:
    """Make the application from the environment; what ``uvicorn --factory`` is given."""
    settings = load()
    configure(settings.log_level)
    return Application(settings)
