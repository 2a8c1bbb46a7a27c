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

import httpx
import msgspec
import structlog
from pydantic import SecretStr

from fhir_portal.access.owed import pay_due
from fhir_portal.access.policy import understands
from fhir_portal.access.relation import Relations
from fhir_portal.access.writes import WriteTableScopes
from fhir_portal.accounts import invitation
from fhir_portal.accounts.account import fill_in_persons
from fhir_portal.accounts.credentials import Passwords, SignIn
from fhir_portal.accounts.one_time_code import KEY_PURPOSE, LINK_PREFIX, OneTimeCodes, code_maker
from fhir_portal.accounts.sessions import SessionLimits, Sessions
from fhir_portal.accounts.staff import suspend_where_closed
from fhir_portal.accounts.throttle import Throttle
from fhir_portal.billing.ledger import Ledger
from fhir_portal.billing.provider import HttpProvider, PaymentProvider
from fhir_portal.documents.malware_scan import CommandScan, HttpScan, MalwareScan
from fhir_portal.embedded.store import EmbeddedStore
from fhir_portal.fhir.definitions import served_types
from fhir_portal.logs import configure
from fhir_portal.notify import jobs
from fhir_portal.notify.composition import Compose, Composer
from fhir_portal.notify.connection import OutboxConnectionNotices
from fhir_portal.notify.content import MadeBy, Maker
from fhir_portal.notify.faults import Undelivered
from fhir_portal.notify.folder import FolderDelivery
from fhir_portal.notify.mail import MailDelivery, MailServer
from fhir_portal.notify.matters import QueuedMatters
from fhir_portal.notify.outbox import (
    CHANNELS,
    PRIORITIES,
    Channel,
    Delivery,
    OutboxMessage,
    Priority,
    deliver_channel,
    deliver_due,
)
from fhir_portal.notify.recipients import AccountRecipients
from fhir_portal.notify.recovery import USERNAME_PREFIX, username_fields
from fhir_portal.notify.revocation_events import RevocationEvents, by_channel
from fhir_portal.notify.sms import SmsDelivery, SmsGateway
from fhir_portal.operations.account_status import fill_in_statuses, status_jobs
from fhir_portal.operations.appointment_jobs import appointment_jobs
from fhir_portal.operations.catalog import operations_of
from fhir_portal.operations.dispute_jobs import dispute_jobs
from fhir_portal.operations.form_request import form_jobs
from fhir_portal.operations.invitation_jobs import invitation_jobs
from fhir_portal.operations.invitation_task import received, sent
from fhir_portal.operations.inviting import invitation_secrets
from fhir_portal.operations.label_jobs import label_jobs
from fhir_portal.operations.message_jobs import message_jobs
from fhir_portal.operations.open_share import Shares
from fhir_portal.operations.payment_plan import plan_jobs
from fhir_portal.operations.proposal_jobs import proposal_jobs
from fhir_portal.operations.refill_jobs import refill_jobs
from fhir_portal.operations.sending import SendLog
from fhir_portal.operations.settlement import settlement_jobs
from fhir_portal.operations.settling_jobs import settling_jobs
from fhir_portal.operations.staff_task import staff_task_jobs
from fhir_portal.operations.transmission import Transmissions
from fhir_portal.operations.transmit import LINK_PREFIX as TRANSMIT_LINK
from fhir_portal.operations.transmit_delivery import (
    TransmitDelivery,
    endpoint_secret,
    link_maker,
)
from fhir_portal.portal import Portal, fault
from fhir_portal.records import drop_expired
from fhir_portal.resources.appointment import reserve_stored
from fhir_portal.resources.catalog import capability_statement
from fhir_portal.resources.reindex import reindex
from fhir_portal.resources.store import PortalStore, ResourceTransaction
from fhir_portal.settings import Settings, load
from fhir_portal.smart import outbound
from fhir_portal.smart.brands import BRANDS_PATH
from fhir_portal.smart.client_keys import ClientKeys
from fhir_portal.smart.discovery import capability_security
from fhir_portal.smart.dpop import DpopPolicy, nonces_at
from fhir_portal.smart.issuer import DAY, Issuer, Lifetimes
from fhir_portal.smart.keys import ServerKeys, load_server_keys
from fhir_portal.smart.launch import Launches
from fhir_portal.smart.portal_pages import register_portal_pages
from fhir_portal.smart.server import AuthorizationServer
from fhir_portal.smart.staff_pages import register_staff_pages
from fhir_portal.smart.unused_clients import UnusedClients
from fhir_portal.web.brands import brands_router
from fhir_portal.web.developers import developers_router
from fhir_portal.web.downloads import Downloads
from fhir_portal.web.fhir import PREFIX, FhirApi
from fhir_portal.web.health import health_router
from fhir_portal.web.health_cards import health_cards_router
from fhir_portal.web.launch import EhrLaunches, sees_by, visits_by
from fhir_portal.web.notify import notify_router
from fhir_portal.web.oauth import OAuthEndpoints
from fhir_portal.web.pages import pages_router
from fhir_portal.web.pages.about import about_router
from fhir_portal.web.pages.activation import activation_router
from fhir_portal.web.pages.apps import APPS, apps_router
from fhir_portal.web.pages.demo_outbox import demo_outbox_router
from fhir_portal.web.pages.demo_payments import DEMO_PAYMENTS, demo_payments_router
from fhir_portal.web.pages.desk import staff_page_scope
from fhir_portal.web.pages.go import go_router
from fhir_portal.web.pages.help import help_router
from fhir_portal.web.pages.portal import portal_page_scope
from fhir_portal.web.pages.portal_rooms import portal_router
from fhir_portal.web.pages.staff import staff_router
from fhir_portal.web.payments import payments_router
from fhir_portal.web.shared import shared_router
from fhir_portal.web.site import behind_proxy, site

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


_log = structlog.get_logger(__name__)

HOUSEKEEPING_SECONDS = 60.0
DELIVERY_SECONDS = 5.0
JOB_SECONDS = 10.0
TRANSMIT_SECONDS = 30.0
"""For a record to be handed over to an endpoint: less than the lease of its message."""
MINUTE = 60.0
HOUR = 60 * MINUTE
ANSWER_SECONDS = 5.0
"""A store that does not say within this time how it is does not answer."""


async def open_store(settings: Settings, clock: Callable[[], float] = time.time) -> PortalStore:
    """Open the store the settings name, and fill in what an earlier release did not store yet.

    Raises:
        Unavailable: it cannot be opened safely.
    """
    store = await _opened(settings, clock)
    try:
        await fill_in_persons(store)
    except BaseException:
        await store.aclose()
        raise
    return store


async def _opened(settings: Settings, clock: Callable[[], float]) -> PortalStore:
    if settings.mongodb_uri is None:
        return EmbeddedStore.open(str(settings.data), clock=clock)
    # Only here, so that nobody who keeps to the embedded store loads a MongoDB driver.
    from fhir_portal.mongo.store import MongoStore  # noqa: PLC0415

    return await MongoStore.open(
        settings.mongodb_uri.get_secret_value(),
        driver=settings.mongodb_driver,
        transactions=settings.mongodb_transactions,
        clock=clock,
    )


async def faults_of(store: PortalStore) -> list[str]:
    """Return why a store is not ready, within `ANSWER_SECONDS` even if it hangs."""
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            return await store.faults()
    except Exception:  # noqa: BLE001 - whatever it is, the store does not answer
        return ["the store does not answer"]


class Application:
    """The ASGI application over one store. `open` it, or let the ASGI lifespan do so.

    While it is open and has a ``background``, what has expired is removed every
    `HOUSEKEEPING_SECONDS`, what waits in the outbox is sent every `DELIVERY_SECONDS`, and jobs are
    done every `JOB_SECONDS`; ``pause`` waits for so long, and ``at_once`` begins with a round.
    Without, somebody else does that: ``fhir-portal worker``, or `work_once`.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        clock: Callable[[], float] = time.time,
        pause: Callable[[float], Awaitable[Any]] = asyncio.sleep,
        background: bool | None = None,
        at_once: bool = False,
    ) -> None:
        self.settings = settings
        self._background = settings.worker if background is None else background
        self._at_once = at_once
        self.makers: dict[str, Maker] = {}
        """What makes the codes and links of messages, by the beginning of their ``link_for``."""
        self.jobs: dict[str, jobs.Work] = {}
        """The function of each kind of job."""
        self.clock = clock
        self._pause = pause
        self._worker = secrets.token_hex(8)
        self._tasks: list[asyncio.Task[None]] = []
        self.store: PortalStore
        self.portal: Portal
        self.authorization: AuthorizationServer
        self.keys: ServerKeys
        self._http: httpx.AsyncClient
        self._ledger: PortalStore | None = None
        self._is_open = False

    async def open(self) -> None:
        """Open the store and put everything together."""
        self.store = await open_store(self.settings, self.clock)
        self._http = outbound.client()
        try:
            await self._put_together()
        except BaseException:
            await self._http.aclose()
            if self._ledger is not None:
                await self._ledger.aclose()
            await self.store.aclose()
            raise
        self._is_open = True
        if not self._background:
            return
        rounds: list[tuple[float, str, Callable[[], Awaitable[object]]]] = [
            (HOUSEKEEPING_SECONDS, "housekeeping", self._keep_house),
            (JOB_SECONDS, "jobs", self._do_jobs),
        ]
        rounds += [
            (
                DELIVERY_SECONDS,
                f"delivery of {one}",
                functools.partial(self._deliver, one, priority),
            )
            for one in CHANNELS
            for priority in PRIORITIES
        ]
        self._tasks = [asyncio.create_task(self._every(*one)) for one in rounds]

    async def _put_together(self) -> None:
        settings, clock, store = self.settings, self.clock, self.store
        issuer = Issuer(settings.base_url, settings.aliases)
        self.keys = await load_server_keys(
            store, settings.secret_key(), now=clock(), random=secrets.token_bytes
        )
        await reserve_stored(store, now=clock())
        lifetimes = Lifetimes(
            access_token=settings.access_token_seconds,
            refresh_token=settings.refresh_token_days * DAY,
            refresh_in_all=settings.refresh_token_days_in_all * DAY,
        )
        passwords = Passwords()
        self.portal = Portal.over(
            store,
            store.log,
            clock=clock,
            base=issuer.fhir,
            aliases=tuple(f"{alias}/fhir" for alias in settings.aliases),
            derive=self.keys.derive,
            lifetimes=lifetimes,
            payments=self._payments(),
            scan=self._scan(),
            passwords=passwords,
            direct=settings.direct_host is not None,
        )
        if settings.dpop_nonce:
            self.portal.callers.nonces = functools.partial(nonces_at, self.keys)
        directory = Relations(store, clock)
        asking = functools.partial(
            outbound.Outbound, self._http, loopback=settings.apps_on_loopback
        )
        self.authorization = AuthorizationServer(
            store=store,
            directory=directory,
            policy=WriteTableScopes(),
            keys=self.keys,
            issuer=issuer,
            resource_types=served_types(),
            understands=understands,
            lifetimes=lifetimes,
            client_keys=ClientKeys(asking(), clock, strangers=asking(site_at_once=1)),
            loopback=settings.apps_on_loopback,
            dpop=DpopPolicy(required=settings.dpop_required, nonce=settings.dpop_nonce),
            notices=OutboxConnectionNotices(),
            visits=visits_by(self.portal, clock),
            sees=sees_by(self.portal, clock),
            clock=clock,
        )
        self._unused_clients = UnusedClients(store)
        self.codes = OneTimeCodes(
            key=self.keys.derive(KEY_PURPOSE), clock=clock, random=secrets.token_bytes
        )
        self.makers[LINK_PREFIX] = code_maker(self.codes)
        self.makers[USERNAME_PREFIX] = username_fields
        invitations = invitation_secrets(self.keys.derive)
        self.makers[invitation.LINK_PREFIX] = invitation.link_maker(
            invitations, settings.base_url, clock
        )
        self.makers[invitation.CODE_PREFIX] = invitation.code_maker(invitations, clock)
        await suspend_where_closed(store, now=clock())
        await fill_in_statuses(store, self.portal.server)
        if await reindex(store, told=lambda done: _log.info("indexed anew", rows=done)):
            _log.info("the index is of this release")
        self.jobs.update(status_jobs(self.portal.server))
        self.jobs.update(invitation_jobs(self.portal.server, self.portal.collaborators))
        self.jobs.update(appointment_jobs(self.portal.server))
        provider = self.portal.collaborators.payments
        self.jobs.update(settlement_jobs(self.portal.server, provider))
        self.jobs.update(plan_jobs(self.portal.server))
        self.jobs.update(staff_task_jobs(self.portal.server))
        self.jobs.update(message_jobs(self.portal.server))
        self.jobs.update(form_jobs(self.portal.server))
        self.jobs.update(refill_jobs(self.portal.server))
        self.jobs.update(proposal_jobs(self.portal.server))
        self.jobs.update(dispute_jobs(self.portal.server))
        self.jobs.update(label_jobs(self.portal.server))
        self.jobs.update(settling_jobs(self.portal.server))
        compose = Composer(store, MadeBy(self.makers), settings.base_url)
        mail, deliveries = self._deliveries(compose)
        shares = Shares(
            store,
            self.portal,
            passwords,
            self.keys.derive,
            clock=clock,
            random=secrets.token_bytes,
        )
        self.makers[TRANSMIT_LINK] = link_maker(self.keys.derive, shares, settings.base_url, clock)
        self._transmissions = Transmissions(self.portal.server)
        transmitting = TransmitDelivery(
            store,
            self._transmissions,
            shares,
            compose,
            mail=mail,
            direct=self._direct(compose),
            outbound=asking(seconds=TRANSMIT_SECONDS),
            secret_of=endpoint_secret(self.keys.derive),
            clock=clock,
        )
        deliveries["mail"] = transmitting.mails(mail)
        deliveries["webhook"] = transmitting.webhooks(
            RevocationEvents(asking(), self.authorization.signing_keys, issuer)
        )
        self._delivery = by_channel(deliveries)
        self._recipients = AccountRecipients(clock, frozenset(deliveries))
        self._undelivered = Undelivered(QueuedMatters())
        self._sends = SendLog(self.portal.server)
        downloads = Downloads(self.portal)
        self._fhir = FhirApi(
            self.portal,
            capabilities=functools.cache(self._capabilities),
            smart_configuration=functools.cache(self.authorization.smart_configuration),
            max_body=settings.max_body_bytes,
            max_transaction=settings.max_transaction_bytes,
            dpop_required=settings.dpop_required,
            downloads=downloads,
        )
        sessions = Sessions(
            store,
            clock=clock,
            random=secrets.token_bytes,
            limits=SessionLimits(
                idle=settings.session_idle_minutes * MINUTE, absolute=settings.session_hours * HOUR
            ),
        )
        sign_in = SignIn(store, passwords, Throttle(store, clock))
        pages = pages_router(
            server=self.authorization, sessions=sessions, sign_in=sign_in, codes=self.codes
        )
        activation = activation_router(
            portal=self.portal,
            server=self.authorization,
            sessions=sessions,
            sign_in=sign_in,
            home=APPS,
        )
        staff = staff_router(
            portal=self.portal,
            server=self.authorization,
            sessions=sessions,
            sign_in=sign_in,
            directory=directory,
            store=store,
            log=store.log,
            clock=clock,
            random=secrets.token_bytes,
        )
        await register_staff_pages(
            store, issuer, scope=staff_page_scope(), now=clock(), random=secrets.token_bytes
        )
        patients = portal_router(
            portal=self.portal,
            server=self.authorization,
            sessions=sessions,
            directory=directory,
            store=store,
            clock=clock,
            random=secrets.token_bytes,
            downloads=downloads,
        )
        await register_portal_pages(
            store, issuer, scope=portal_page_scope(), now=clock(), random=secrets.token_bytes
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
            server=self.authorization,
            store=store,
            clock=clock,
            random=secrets.token_bytes,
            dpop_required=settings.dpop_required,
        )
        told = notify_router(
            store=store,
            given_up=self._given_up,
            received=self._received,
            clock=clock,
            sms_secret=_revealed(settings.sms_secret),
            mail_secret=_revealed(settings.smtp_bounce_secret),
        )
        demo = []
        if settings.shows_outbox:
            demo.append(demo_outbox_router(settings.outbox_folder, portal=settings.base_url))
        if settings.takes_test_payments:
            self._ledger = EmbeddedStore.open(str(settings.ledger), clock=clock)
            demo.append(
                demo_payments_router(
                    Ledger(self._ledger, secrets.token_bytes),
                    base=settings.base_url,
                    secret=self._payments_secret() or "",
                    clock=clock,
                    http=self._http,
                )
            )
        # Only the pages and the endpoints of the authorization server count by address.
        launches = Launches(
            store,
            issuer=issuer,
            loopback=settings.apps_on_loopback,
            clock=clock,
            random=secrets.token_bytes,
        )
        self._oauth = behind_proxy(
            OAuthEndpoints(
                self.authorization, store, launches=EhrLaunches(self.portal, launches, issuer)
            )
        )
        self._site = behind_proxy(
            site(
                [
                    health_router(lambda: faults_of(store)),
                    pages,
                    activation,
                    apps,
                    staff,
                    patients,
                    brands,
                    health_cards_router(store),
                    developers,
                    told,
                    shared_router(
                        shares,
                        throttle=Throttle(store, clock),
                        base=settings.base_url,
                        downloads=downloads,
                    ),
                    payments_router(
                        self.portal.server, secret=self._payments_secret(), clock=clock
                    ),
                    *demo,
                    help_router(store),
                    about_router(),
                    go_router(),
                ],
                version=version("fhir-portal"),
            )
        )

    def _payments_secret(self) -> str | None:
        """What a payment provider and this server both know; ``None`` where there is none."""
        if self.settings.takes_test_payments:
            return self.keys.derive("test-payments").hex()
        return _revealed(self.settings.payments_secret)

    def _payments(self) -> PaymentProvider | None:
        """What takes payments, where something is set up to."""
        settings, secret = self.settings, self._payments_secret()
        url = settings.payments_url
        if settings.takes_test_payments:
            url = f"{settings.base_url}{DEMO_PAYMENTS}"
        if url is None or secret is None:
            return None
        return HttpProvider(url, secret, self._http, self.clock)

    def _scan(self) -> MalwareScan | None:
        """What looks at the files that people send, if anything is set up to."""
        if self.settings.malware_scan_command:
            return CommandScan(self.settings.malware_scan_command)
        if self.settings.malware_scan_url is not None:
            return HttpScan(self.settings.malware_scan_url, self._http)
        return None

    def _direct(self, compose: Compose) -> MailDelivery | None:
        """What takes mail to Direct addresses, if a relay is set up: it encrypts and signs."""
        settings = self.settings
        if settings.direct_host is None or settings.direct_from is None:
            return None
        server = MailServer(
            host=settings.direct_host,
            port=settings.direct_port,
            security=settings.direct_tls,
            sender=settings.direct_from,
            username=settings.direct_username,
            password=_revealed(settings.direct_password),
        )
        return MailDelivery(server, compose)

    def _deliveries(
        self, compose: Compose
    ) -> tuple[MailDelivery | FolderDelivery, dict[Channel, Delivery]]:
        """What sends mail, and that with what sends SMS; without, they are left in a folder.

        With mail set up and no SMS, nothing is said by SMS: nobody would look for it there.
        """
        settings = self.settings
        folder = FolderDelivery(settings.outbox_folder, compose)
        mail: MailDelivery | FolderDelivery = folder
        deliveries: dict[Channel, Delivery] = {"mail": folder}
        if settings.smtp_host is not None and settings.smtp_from is not None:
            server = MailServer(
                host=settings.smtp_host,
                port=settings.smtp_port,
                security=settings.smtp_tls,
                sender=settings.smtp_from,
                reply_to=settings.smtp_reply_to,
                username=settings.smtp_username,
                password=_revealed(settings.smtp_password),
            )
            deliveries["mail"] = mail = MailDelivery(server, compose)
        else:
            deliveries["sms"] = folder
        secret = _revealed(settings.sms_secret)
        if settings.sms_url is not None and secret is not None:
            gateway = SmsGateway(settings.sms_url, secret)
            deliveries["sms"] = SmsDelivery(gateway, self._http, compose, self.clock)
        return mail, deliveries

    async def close(self) -> None:
        """Close the store."""
        if self._is_open:
            self._is_open = False
            for task in self._tasks:
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task
            await self._http.aclose()
            if self._ledger is not None:
                await self._ledger.aclose()
            await self.store.aclose()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
            return
        path: str = scope["path"]
        if path == PREFIX or path.startswith(f"{PREFIX}/"):
            await self._fhir(scope, receive, send)
        elif OAuthEndpoints.serves(path):
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

    async def _every(
        self, seconds: float, what: str, work: Callable[[], Awaitable[object]]
    ) -> None:
        if not self._at_once:
            await self._pause(seconds)
        while True:
            try:
                await work()
            except Exception as error:  # noqa: BLE001 - whatever it is, the next round comes
                _log.error(f"{what} failed", **fault(error))
            await self._pause(seconds)

    async def work_once(self) -> int:
        """Remove what has expired, do the jobs and send what is due; return how much arrived."""
        await self._keep_house()
        await self._do_jobs()
        arrived = 0
        for _ in range(2):  # what is for an account becomes messages, maybe on another channel
            arrived += await deliver_due(
                self.store,
                self._delivery,
                worker=self._worker,
                clock=self.clock,
                recipients=self._recipients,
                given_up=self._given_up,
                arrived=self._arrived,
                addressed=self._sends.addressed,
                dropped=self._dropped,
            )
        return arrived

    async def _arrived(self, transaction: ResourceTransaction, message: OutboxMessage) -> None:
        if await self._transmissions.completed(transaction, message):
            return
        await sent(transaction, self.portal.server, message)
        await self._sends.completed(transaction, message)

    async def _dropped(self, transaction: ResourceTransaction, message: OutboxMessage) -> None:
        if not await self._transmissions.cancelled(transaction, message):
            await self._sends.superseded(transaction, message)

    async def _given_up(
        self,
        transaction: Any,
        message: OutboxMessage,
        why: str,
        bounced: bool,  # noqa: FBT001 - the signature of `GivenUp`
        now: float,
    ) -> None:
        if await self._transmissions.failed(transaction, message, why):
            return  # it is told to who sent it, and no matter for the staff
        await self._undelivered(transaction, message, why, bounced, now)
        await self._sends.given_up(transaction, message, bounced=bounced)

    async def _received(self, transaction: ResourceTransaction, message: OutboxMessage) -> None:
        await received(transaction, self.portal.server, message)

    async def _do_jobs(self) -> None:
        await jobs.work_off(self.store, self.jobs, worker=self._worker, clock=self.clock)

    async def _keep_house(self) -> None:
        await self._unused_clients.sweep(self.clock())
        await drop_expired(self.store, self.clock())
        await pay_due(self.store, self.store.log, self.clock())

    async def _deliver(self, channel: Channel, priority: Priority) -> None:
        await deliver_channel(
            self.store,
            channel,
            self._delivery,
            worker=self._worker,
            clock=self.clock,
            recipients=self._recipients,
            given_up=self._given_up,
            arrived=self._arrived,
            priorities=[priority],
            addressed=self._sends.addressed,
            dropped=self._dropped,
        )

    def _capabilities(self) -> bytes:
        issuer = self.authorization.issuer
        return msgspec.json.encode(
            capability_statement(
                base=issuer.fhir,
                version=version("fhir-portal"),
                date=datetime.fromtimestamp(self.clock(), UTC).strftime("%Y-%m-%d"),
                security=capability_security(issuer),
                operations=operations_of,
                brands=issuer.at(BRANDS_PATH),
            )
        )


def _revealed(secret: SecretStr | None) -> str | None:
    return None if secret is None else secret.get_secret_value()


def create_app() -> Application:
    """Make the application from the environment; what ``uvicorn --factory`` is given."""
    settings = load()
    configure(settings.log_level)
    return Application(settings)
