"""``/account/apps``: the apps that are connected to a person's records, and their receipts.

Works without JavaScript. Ending is easy on purpose: one button, no proof asked for again; nothing
here gives an app more than it has.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime, time, timedelta
from typing import Any, Final
from zoneinfo import ZoneInfo

import structlog
from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from fhir_portal.access.app_use import AppUse, app_use, person_name
from fhir_portal.access.log import AccessLog
from fhir_portal.access.relation import IdentityReader
from fhir_portal.accounts.account import Account
from fhir_portal.accounts.invitation import awaiting_of
from fhir_portal.accounts.practice import Practice
from fhir_portal.accounts.sessions import Sessions, SignedOutMeanwhile
from fhir_portal.consent.record import RecordAccess, RecordDirectory
from fhir_portal.notify.connection import OutboxConnectionNotices
from fhir_portal.smart.connection import (
    Change,
    Connection,
    NothingChanged,
    NothingLeft,
    UnknownConnection,
    WouldWiden,
)
from fhir_portal.smart.connection_receipt import UnknownReceipt
from fhir_portal.smart.connections import Connections
from fhir_portal.smart.offer import ConsentOffer, OfferedScope
from fhir_portal.smart.scope import Scope, ScopeSet
from fhir_portal.smart.server import AuthorizationServer
from fhir_portal.web.form import once_each
from fhir_portal.web.pages.browser import FORM_TOKEN, Browser, Cookies, posted
from fhir_portal.web.pages.refusals import Handler, refusing
from fhir_portal.web.pages.render import page, redirect
from fhir_portal.web.pages.signin import SIGN_IN
from fhir_portal.web.pages.words import SectionWords, ago, duration, offer_words, type_words

APPS: Final = "/account/apps"
RECEIPTS: Final = f"{APPS}/receipts"
END: Final = f"{APPS}/end"
CHANGE: Final = f"{APPS}/change"

NOT_THERE: Final = "There is no such connection or receipt, or it is not yours to see."
_OUT_OF_DATE: Final = "What the app may use has changed. Look at it again."
_NOT_EARLIER: Final = "Choose a day from today on, and not after the day on which it ends already."
_NOTHING_LEFT: Final = "That leaves the app nothing to use. End its access instead."
_NOTHING_CHANGED: Final = "That changes nothing. Untick something, or choose an earlier end."
_DAY: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")

_log = structlog.get_logger(__name__)


def apps_router(
    *,
    server: AuthorizationServer,
    sessions: Sessions,
    store: Any,
    directory: RecordDirectory,
    log: AccessLog,
    clock: Callable[[], float],
    random: Callable[[int], bytes],
) -> APIRouter:
    """The pages as routes for FastAPI. ``store`` keeps records and resources."""
    connections = Connections(
        store,
        directory=directory,
        keys=server.keys,
        notices=OutboxConnectionNotices(),
        lifetimes=server.lifetimes,
        clock=clock,
        random=random,
    )
    cookies = Cookies(server.issuer, server.keys, sessions)
    pages = AppPages(server, cookies, connections, store, log, clock)
    router = APIRouter(include_in_schema=False)
    for path, method, handler in pages.routes():
        router.add_route(path, handler, methods=[method])
    return router


class AppPages:
    """The list of connections, the page of each, and the receipts."""

    def __init__(
        self,
        server: AuthorizationServer,
        cookies: Cookies,
        connections: Connections,
        reader: IdentityReader,
        log: AccessLog,
        clock: Callable[[], float],
    ) -> None:
        self._server = server
        self._cookies = cookies
        self._connections = connections
        self._reader = reader
        self._log = log
        self._clock = clock

    def routes(self) -> Sequence[tuple[str, str, Handler]]:
        """Path, method and handler of each page."""
        routes: Sequence[tuple[str, str, Handler]] = (
            (APPS, "GET", self.show),
            (f"{RECEIPTS}/{{receipt}}", "GET", self.show_receipt),
            (f"{APPS}/{{connection}}", "GET", self.show_connection),
            (f"{APPS}/{{connection}}/change", "POST", self.change),
            (f"{APPS}/{{connection}}/end", "POST", self.end),
        )
        return [
            (path, method, refusing(_finding(one), back=APPS, signed_out=f"{SIGN_IN}?then={APPS}"))
            for path, method, one in routes
        ]

    # --- what there is -------------------------------------------------------------------------

    async def show(self, request: Request) -> Response:
        browser, account = await self._signed_in(request)
        connections = await self._connections.of(account)
        return page(
            "apps.html",
            waits=await awaiting_of(self._reader, account.key, now=self._clock()),
            connections=[await self._words(browser, one) for one in connections],
            receipts=[
                (f"{RECEIPTS}/{one.key}", one, _moment(one.at, await self._zone(one.practice)))
                for one in await self._connections.receipts(account)
            ],
        )

    async def show_connection(self, request: Request) -> Response:
        browser, account = await self._signed_in(request)
        found = await self._connections.get(account, request.path_params["connection"])
        return await self._connection_page(browser, found)

    async def show_receipt(self, request: Request) -> Response:
        _, account = await self._signed_in(request)
        receipt = await self._connections.receipt(account, request.path_params["receipt"])
        zone = await self._zone(receipt.practice)
        record = await self._connections.record_of(account, receipt)
        practice = await self._reader.get(Practice, receipt.practice)
        return page(
            "receipt.html",
            receipt=receipt,
            number=" ".join(receipt.key[at : at + 4] for at in range(0, len(receipt.key), 4)),
            moment=_moment(receipt.at, zone),
            since=_moment(receipt.since, zone),
            record=record,
            practice=practice.name if practice is not None else "",
            mine=receipt.account == account.key,
            username=account.username,
            had=_sections(ScopeSet.parse(receipt.scope).resource),
            left=_sections(ScopeSet.parse(receipt.left).resource),
            until=_last_day(receipt.until, zone) if receipt.until is not None else None,
        )

    # --- what people do ------------------------------------------------------------------------

    async def end(self, request: Request) -> Response:
        connection = request.path_params["connection"]
        _, account, _ = await self._posted(request, END, connection)
        receipt = await self._connections.end(account, connection)
        _log.info("access of an app ended", client_id=receipt.client_id)
        return redirect(f"{RECEIPTS}/{receipt.key}")

    async def change(self, request: Request) -> Response:
        connection = request.path_params["connection"]
        browser, account, pairs = await self._posted(request, CHANGE, connection)
        form = once_each([pair for pair in pairs if pair[0] != "keep"])
        keep = frozenset(value for name, value in pairs if name == "keep")
        found = await self._connections.get(account, connection)
        try:
            change = Change(
                keep,
                read_only=form.get("read_only") == "yes",
                until=await self._end_of(found, form.get("until", "")),
            )
            receipt = await self._connections.narrow(account, connection, change)
        except _NotADay:
            problem = _NOT_EARLIER
        except NothingLeft:
            problem = _NOTHING_LEFT
        except NothingChanged:
            problem = _NOTHING_CHANGED
        except WouldWiden:
            problem = _OUT_OF_DATE
        else:
            _log.info("access of an app narrowed", client_id=receipt.client_id)
            return redirect(f"{RECEIPTS}/{receipt.key}")
        found = await self._connections.get(account, connection)
        return await self._connection_page(browser, found, problem=problem, kept=keep)

    async def _end_of(self, found: Connection, text: str) -> float | None:
        """The end of the day that was chosen, by the practice's clock; ``None`` for no change."""
        if not text:
            return None
        try:
            chosen = date.fromisoformat(text) if _DAY.fullmatch(text) else None
        except ValueError:
            chosen = None
        zone = await self._zone(found.practice)
        today = datetime.fromtimestamp(self._clock(), zone).date()
        ends = _date(found.until, zone)
        if chosen is None or not today <= chosen <= ends:
            raise _NotADay
        if chosen == ends:
            return None
        return datetime.combine(chosen + timedelta(days=1), time(), zone).timestamp()

    # --- in words ------------------------------------------------------------------------------

    async def _connection_page(
        self,
        browser: Browser,
        found: Connection,
        *,
        problem: str = "",
        kept: frozenset[str] | None = None,
    ) -> Response:
        zone = await self._zone(found.practice)
        return page(
            "apps_connection.html",
            status=400 if problem else 200,
            problem=problem,
            kept=kept,
            lines={str(scope): line for line, scope in found.lines.items()},
            writes=found.writes,
            change=f"{APPS}/{found.id}/change",
            change_token=self._cookies.form_token(browser, CHANGE, found.id),
            today=datetime.fromtimestamp(self._clock(), zone).date().isoformat(),
            last=_date(found.until, zone).isoformat(),
            one=await self._words(browser, found),
        )

    async def _words(self, browser: Browser, found: Connection) -> dict[str, Any]:
        """What the pages say of a connection."""
        zone, now = await self._zone(found.practice), self._clock()
        shown = found.record is not None and (found.works or not found.is_mine)
        use = await self._use(found) if shown else None
        maker = ""
        if not found.is_mine:
            names = [
                await person_name(self._reader, found.practice, one)
                for one in sorted(found.fhir_users)
            ]
            maker = ", ".join(name for name in names if name)
        return {
            "address": f"{APPS}/{found.id}",
            "end": f"{APPS}/{found.id}/end",
            "end_token": self._cookies.form_token(browser, END, found.id),
            "name": found.client.name,
            "checked": not found.client.self_registered,
            "record": found.record,
            "of_practice": await self._practice_name(found) if not found.patient else "",
            "as_staff": found.as_staff,
            "is_mine": found.is_mine,
            "works": found.works,
            "maker": maker,
            "relation": found.made_by.relation if isinstance(found.made_by, RecordAccess) else "",
            "since": _last_day(found.since + 1, zone),
            "last": ago(now - use.last) if use is not None and use.last is not None else None,
            "use": use,
            "looked": _counted(use.looked) if use is not None else [],
            "wrote": _counted(use.wrote) if use is not None else [],
            "sections": _sections(found.scope.resource),
            "offline": found.is_offline,
            "until": _last_day(found.until, zone),
            "at": _moment(found.until, zone),
            "unused_for": duration(self._server.lifetimes.refresh_token),
        }

    async def _use(self, found: Connection) -> AppUse:
        use = AppUse()
        for fhir_user in sorted(found.fhir_users):
            one = await app_use(
                self._log,
                practice=found.practice,
                patient=found.patient,
                fhir_user=fhir_user,
                client=found.client.key,
                account=found.account,
                since=found.since,
                now=self._clock(),
            )
            use.last = max((at for at in (use.last, one.last) if at is not None), default=None)
            use.looked += one.looked
            use.wrote += one.wrote
            use.refused += one.refused
            use.is_all &= one.is_all
        return use

    async def _practice_name(self, found: Connection) -> str:
        practice = await self._reader.get(Practice, found.practice)
        return practice.name if practice is not None else found.practice

    async def _zone(self, practice: str) -> ZoneInfo:
        found = await self._reader.get(Practice, practice)
        return ZoneInfo(found.zone if found is not None else "UTC")

    # --- what all of them do -------------------------------------------------------------------

    async def _signed_in(self, request: Request) -> tuple[Browser, Account]:
        browser = await self._cookies.browser(request)
        if browser.visitor.account is None:
            raise SignedOutMeanwhile
        return browser, browser.visitor.account

    async def _posted(
        self, request: Request, action: str, connection: str
    ) -> tuple[Browser, Account, list[tuple[str, str]]]:
        """Read a form of somebody signed in; it has to be ours, for this connection."""
        pairs = await posted(request)
        browser, account = await self._signed_in(request)
        sent = once_each([pair for pair in pairs if pair[0] == FORM_TOKEN]).get(FORM_TOKEN, "")
        self._cookies.check_form(request, browser, action, connection, sent)
        return browser, account, pairs


class _NotADay(Exception):
    """No day, or not one that would be an earlier end."""


def _finding(handler: Handler) -> Handler:
    """Answer for what is not there and for what is another's alike."""

    async def answer(request: Request) -> Response:
        try:
            return await handler(request)
        except (UnknownConnection, UnknownReceipt):
            return page(
                "problem.html", status=404, message=NOT_THERE, error="unknown-page", back=APPS
            )

    return answer


def _sections(scopes: Sequence[Scope]) -> list[SectionWords]:
    """Scopes in the words of the consent page."""
    return offer_words(ConsentOffer((), offline=False, scopes=tuple(map(OfferedScope, scopes))))


def _counted(counts: Any) -> list[tuple[str, int]]:
    """Types in plain words, and how often: the most first."""
    return [(type_words(name), number) for name, number in counts.most_common()]


def _date(until: float, zone: ZoneInfo) -> date:
    """The last day before a moment: what ends at midnight ends with the day before."""
    return datetime.fromtimestamp(until - 1, zone).date()


def _last_day(until: float, zone: ZoneInfo) -> str:
    day = _date(until, zone)
    return f"{day.day} {day:%B %Y}"


def _moment(at: float, zone: ZoneInfo) -> str:
    moment = datetime.fromtimestamp(at, UTC).astimezone(zone)
    return f"{moment.day} {moment:%B %Y, %H:%M} {moment.tzname()}"
