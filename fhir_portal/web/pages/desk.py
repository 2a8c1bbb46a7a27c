"""Whoever is at the staff pages: their session, what they ask of the FHIR API, their forms.

Patient data is read and written through `fhir_portal.portal.Portal.perform`, by the token that the
session holds (`fhir_portal.smart.staff_pages`). A page shows what it was answered, and a button
where the access level lets its holder press it; the server decides anew when it is pressed.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, TypeVar
from zoneinfo import ZoneInfo

from starlette.requests import Request
from starlette.responses import Response

from fhir_portal.access.context import AuthContext
from fhir_portal.access.log import AccessLog, AccessRow
from fhir_portal.access.operations import OPERATIONS, staff_letters
from fhir_portal.access.owed import owe, pay
from fhir_portal.access.owners import OF_STAFF
from fhir_portal.access.relation import name_of
from fhir_portal.accounts.levels import Permission
from fhir_portal.accounts.step_up import Need
from fhir_portal.consent.record import RecordDirectory, StaffAccess
from fhir_portal.fhir import json
from fhir_portal.fhir.errors import (
    Conflict,
    FhirError,
    Forbidden,
    Gone,
    NotFound,
    PreconditionFailed,
    Unauthenticated,
    Unavailable,
)
from fhir_portal.fhir.interaction import Activity, FhirRequest, FhirResponse
from fhir_portal.operations.labels import LABELLED_BY_HAND
from fhir_portal.portal import Portal
from fhir_portal.records import RecordStore, RecordTransaction
from fhir_portal.resources.task import SHOWN_TO
from fhir_portal.smart.page_session import StaffSession
from fhir_portal.smart.server import AuthorizationServer
from fhir_portal.smart.staff_pages import (
    IDLE_SECONDS,
    STAFF,
    NotOnStaff,
    StaffSessions,
    SwitchedOff,
)
from fhir_portal.smart.token import base64url
from fhir_portal.web.downloads import Downloads
from fhir_portal.web.form import Pairs, came_once, once_each
from fhir_portal.web.pages.browser import FORM_TOKEN, Browser, Cookies, posted
from fhir_portal.web.pages.refusals import Handler, refusing
from fhir_portal.web.pages.render import page, redirect
from fhir_portal.web.pages.signin import SIGN_IN, SIGN_OUT, local
from fhir_portal.web.pages.step_up import StepUp

T = TypeVar("T")

HOME: Final = STAFF
PRACTICE: Final = f"{STAFF}/practice"
FIND: Final = f"{STAFF}/patients"
ACCOUNTS: Final = f"{STAFF}/accounts"
_AT_ONCE: Final = 100
LEVELS: Final = f"{STAFF}/levels"
MEMBERS: Final = f"{STAFF}/members"
MESSAGES: Final = f"{STAFF}/messages"
MATTERS: Final = f"{STAFF}/matters"
INBOX: Final = f"{STAFF}/inbox"
SETTINGS: Final = f"{STAFF}/settings"
APPOINTMENTS: Final = f"{STAFF}/appointments"
FORMS: Final = f"{STAFF}/forms"
DOCUMENTS: Final = f"{STAFF}/documents"
PROPOSALS: Final = f"{STAFF}/proposals"
BILLS: Final = f"{STAFF}/bills"
LABELS: Final = f"{STAFF}/labels"

_PROVED: Final = Need(within=IDLE_SECONDS)
_READ: Final = (
    *("Consent", "DocumentReference", "Patient", "Practitioner", "RelatedPerson", "Task"),
    *("Binary", "Coverage", "Invoice", "PaymentNotice", "Questionnaire", "QuestionnaireResponse"),
    *sorted(LABELLED_BY_HAND),
)
_NOT_THERE: Final = "There is nothing at this address, or it is not your practice's."
_CLOSED: Final = "Your access to the staff pages has ended or changed. Open them again."


def staff_page_scope() -> str:
    """Return the scopes of the pages: what they show, and what the operations for staff need."""
    letters = {name: "rs" for name in _READ if name in OF_STAFF} | {"AuditEvent": "rs"}
    needed = {name for rule in OPERATIONS.values() if rule.staff for name, _ in rule.by_type}
    for name in needed:
        found = {*letters.get(name, ""), *staff_letters(name)}
        letters[name] = "".join(letter for letter in "cruds" if letter in found)
    return " ".join(f"user/{name}.{letters[name]}" for name in sorted(letters))


class Elsewhere(Exception):
    """The browser is to see something else first."""

    def __init__(self, response: Response) -> None:
        super().__init__()
        self.response = response


@dataclass(frozen=True, slots=True)
class AtDesk:
    """Somebody of a practice's staff, at one request."""

    browser: Browser
    session: StaffSession
    auth: AuthContext
    staff: StaffAccess
    several: bool

    def may(self, permission: Permission) -> bool:
        """Whether their access level has a permission."""
        return self.auth.may(permission)

    def calls(self, operation: str) -> bool:
        """Whether they may call an operation, if it is offered at all."""
        rule = OPERATIONS.get(operation)
        return rule is not None and rule.staff is not None and rule.staff in self.staff.permissions

    @property
    def zone(self) -> ZoneInfo:
        """The practice's time zone."""
        return ZoneInfo(self.staff.zone)

    def moment(self, text: str | None) -> str:
        """A FHIR instant or dateTime in plain words, by the practice's clock."""
        if not text:
            return ""
        try:
            found = datetime.fromisoformat(text)
        except ValueError:
            return text
        if "T" not in text:
            return f"{found.day} {found:%B %Y}"
        if found.tzinfo is None:
            return text
        try:
            there = found.astimezone(self.zone)
        except OverflowError:  # an EHR's "from ever" or "for ever", beyond the calendar there
            return text
        return f"{there.day} {there:%B %Y, %H:%M} {there.tzname()}"

    def moment_at(self, at: float) -> str:
        """Seconds since 1970 UTC in plain words, by the practice's clock."""
        return self.moment(datetime.fromtimestamp(at, self.zone).isoformat())


@dataclass(frozen=True, slots=True)
class Answer:
    """What the FHIR API answered: the tree, and the version where it is a resource.

    ``labelled`` names what in it carries a label, its own or one from elsewhere (``Type/id``).
    """

    tree: Mapping[str, Any]
    version: int | None
    labelled: frozenset[str] = frozenset()

    @property
    def entries(self) -> list[Mapping[str, Any]]:
        """The resources of a Bundle."""
        return [one["resource"] for one in self.tree.get("entry") or ()]

    @property
    def next(self) -> str:
        """What ``_page`` the page after this one has, or ``""``."""
        for link in self.tree.get("link") or ():
            if link.get("relation") == "next":
                found = re.search(r"[?&]_page=([A-Za-z0-9_-]+)", link["url"])
                return found[1] if found else ""
        return ""

    def values(self, name: str) -> list[Any]:
        """The values of a parameter; one that consists of parts is a mapping.

        Of a part that is there several times, that holds a list.
        """
        return _values(self.tree.get("parameter") or (), name)

    def value(self, name: str) -> Any:
        """The first value of a parameter, or ``None``."""
        return next(iter(self.values(name)), None)


def _values(parameters: Sequence[Mapping[str, Any]], name: str) -> list[Any]:
    return [_value(one) for one in parameters if one["name"] == name]


def _value(parameter: Mapping[str, Any]) -> Any:
    if "part" in parameter:
        parts: dict[str, Any] = {}
        for part in parameter["part"]:
            name, value = part["name"], _value(part)
            if name in parts:
                before = parts[name]
                value = [*(before if isinstance(before, list) else [before]), value]
            parts[name] = value
        return parts
    return next((value for name, value in parameter.items() if name not in {"name", "id"}), None)


def parameters(*given: tuple[str, str, Any]) -> bytes:
    """Return Parameters of (name, type as in ``value[x]``, value); without the values ``None``."""
    listed = [{"name": name, kind: value} for name, kind, value in given if value is not None]
    return json.dumps({"resourceType": "Parameters", "parameter": listed}) if listed else b""


class Desk:
    """What all staff pages do: who is there, what they ask, how they are answered."""

    def __init__(
        self,
        portal: Portal,
        server: AuthorizationServer,
        cookies: Cookies,
        staff: StaffSessions,
        directory: RecordDirectory,
        step_up: StepUp,
        store: RecordStore,
        log: AccessLog,
        clock: Callable[[], float],
        random: Callable[[int], bytes],
    ) -> None:
        self.random = random
        self.store = store
        self.portal = portal
        self.downloads = Downloads(portal)
        self.server = server
        self.cookies = cookies
        self.staff = staff
        self.directory = directory
        self.step_up = step_up
        self.log = log
        self.clock = clock

    # --- who is there --------------------------------------------------------------------------

    async def at(self, request: Request) -> AtDesk:
        """Return who is at the desk; raises `Elsewhere` for whoever has to do something first."""
        browser = await self.cookies.browser(request)
        then = local(request.url.path) if request.method == "GET" else ""
        if browser.visitor.account is None:
            raise Elsewhere(redirect(f"{SIGN_IN}?then={then or HOME}"))
        session = await self.staff.find(browser.visitor)
        if session is not None:
            try:
                auth = await self.portal.callers.held(session.token)
            except Unauthenticated:
                await self.staff.end(browser.visitor)
            else:
                return await self._there(browser, session, auth)
        if request.method != "GET":
            raise Elsewhere(_problem(403, _CLOSED, HOME))
        session = await self._opened(browser, then or HOME)
        return await self._there(browser, session, await self.portal.callers.held(session.token))

    async def posted(
        self, request: Request, action: str, about: str = ""
    ) -> tuple[AtDesk, Pairs, dict[str, str]]:
        """Read a form of somebody at the desk; it has to be ours, for this practice and thing.

        Returns who sent it, all its pairs, and those of names that came once.
        """
        pairs = await posted(request)  # first: it may take its time
        here = await self.at(request)
        sent = once_each([pair for pair in pairs if pair[0] == FORM_TOKEN]).get(FORM_TOKEN, "")
        self.cookies.check_form(request, here.browser, action, self._handle(here, about), sent)
        return here, pairs, came_once(pairs)

    def form_token(self, here: AtDesk, action: str, about: str = "") -> str:
        """The hidden field of a form, for this practice and what it is about alone."""
        return self.cookies.form_token(here.browser, action, self._handle(here, about))

    @staticmethod
    def _handle(here: AtDesk, about: str) -> str:
        return f"{here.session.practice}|{about}"

    async def may_open(self, browser: Browser, then: str) -> None:
        """Raise `Elsewhere` unless somebody proved who they are a short while ago."""
        if sent := await self.step_up.to(browser, _PROVED, then=then):
            raise Elsewhere(sent)

    async def _opened(self, browser: Browser, then: str) -> StaffSession:
        account = browser.visitor.account
        there = await self.directory.staff_of(account)
        if not there:
            raise Elsewhere(page("staff_none.html", status=403))
        await self.may_open(browser, then)
        if len(there) > 1:
            raise Elsewhere(redirect(PRACTICE))
        return await self.open(browser, there[0].practice)

    async def open(self, browser: Browser, practice: str) -> StaffSession:
        """Open a practice in a browser; raises `Elsewhere` with a page that says why not."""
        try:
            return await self.staff.open(browser.visitor, practice)
        except NotOnStaff:
            raise Elsewhere(page("staff_none.html", status=403)) from None
        except SwitchedOff:
            raise Elsewhere(switched_off()) from None

    async def _there(self, browser: Browser, session: StaffSession, auth: AuthContext) -> AtDesk:
        assert auth.staff is not None  # noqa: S101 - the token is of staff
        there = await self.directory.staff_of(browser.visitor.account)
        return AtDesk(browser, session, auth, auth.staff, several=len(there) > 1)

    # --- what they ask -------------------------------------------------------------------------

    async def ask(
        self,
        here: AtDesk,
        interaction: str,
        resource_type: str,
        own_id: str | None = None,
        *,
        query: Sequence[tuple[str, str]] = (),
        body: bytes = b"",
        activity: Activity = "",
    ) -> Answer:
        """Carry out an interaction as whoever is at the desk. Raises `FhirError`."""
        request = FhirRequest(
            interaction, resource_type, own_id, query=tuple(query), body=body, activity=activity
        )
        return _answer(await self.portal.perform(request, here.auth))

    async def call(
        self, here: AtDesk, operation: str, target: str, *given: tuple[str, str, Any]
    ) -> Answer:
        """Call an operation on ``Type/<id>`` or a type as whoever is at the desk."""
        name, _, own_id = target.partition("/")
        request = FhirRequest(
            "operation", name, own_id or None, operation=operation, body=parameters(*given)
        )
        return _answer(await self.portal.perform(request, here.auth))

    async def search_all(
        self, here: AtDesk, resource_type: str, *query: tuple[str, str], most: int = 100
    ) -> list[Mapping[str, Any]]:
        """Return what a search finds, up to a bound; nothing where the level may not search."""
        try:
            found = await self.ask(
                here, "search-type", resource_type, query=(*query, ("_count", str(most)))
            )
        except Forbidden:
            return []
        return found.entries

    async def by_ids(
        self, here: AtDesk, resource_type: str, ids: Iterable[str]
    ) -> dict[str, Mapping[str, Any]]:
        """Return resources by their ids, as far as the level shows them; ``""`` names none."""
        wanted, found = sorted({*ids} - {""}), dict[str, Mapping[str, Any]]()
        for at in range(0, len(wanted), _AT_ONCE):
            listed = ",".join(wanted[at : at + _AT_ONCE])
            for one in await self.search_all(here, resource_type, ("_id", listed)):
                found[one["id"]] = one
        return found

    async def names_of_patients(self, here: AtDesk, ids: Iterable[str]) -> dict[str, str]:
        """Names of patients by their ids, as far as the level shows them."""
        found = await self.by_ids(here, "Patient", ids)
        return {own_id: name_of(tree) for own_id, tree in found.items()}

    async def names_of_staff(
        self, here: AtDesk, practitioners: Sequence[str | None]
    ) -> Mapping[str, str]:
        """Names by ``Practitioner/<id>``, as far as the level may read them."""
        prefix, found = "Practitioner/", dict[str, str]()
        wanted = sorted({one for one in practitioners if one and one.startswith(prefix)})
        for at in range(0, len(wanted), _AT_ONCE):
            ids = ",".join(one.removeprefix(prefix) for one in wanted[at : at + _AT_ONCE])
            for one in await self.search_all(here, "Practitioner", ("_id", ids)):
                found[f"{prefix}{one['id']}"] = name_of(one)
        return found

    async def change(
        self,
        here: AtDesk,
        work: Callable[[RecordTransaction], Awaitable[T]],
        *,
        interaction: str,
        what: str,
        detail: str | Callable[[T], str] = "",
    ) -> T:
        """Change what is outside FHIR, in one transaction that asks again who is there.

        Its line of the access log is written with it; ``detail`` may depend on what was done.
        """
        key = self.new_key()

        async def checked(transaction: RecordTransaction) -> T:
            await self.portal.callers.still(transaction, here.auth)
            done = await work(transaction)
            said = detail if isinstance(detail, str) else detail(done)
            line = self._line(here, interaction, what, said)
            await owe(transaction, key, [line], now=self.clock())
            return done

        done = await self.store.transact(checked)
        await pay(self.store, self.log, key)
        return done

    async def note(self, here: AtDesk, interaction: str, what: str, detail: str = "") -> None:
        """Write down in the access log what was read that is no interaction of the API."""
        await self.log.append([self._line(here, interaction, what, detail)])

    def _line(self, here: AtDesk, interaction: str, what: str, detail: str) -> AccessRow:
        return AccessRow(
            at=int(self.clock() * 1000),
            practice=here.session.practice,
            record="",
            interaction=interaction,
            what=what,
            status=200,
            client=here.auth.client,
            context=here.auth.context,
            agent=here.staff.fhir_user,
            account=here.session.account,
            grant="",
            token=here.session.token[:16],
            detail=detail,
            told=False,
        )

    def new_key(self) -> str:
        """Return an idempotency key for a form: sent twice, it is done once."""
        return base64url(self.random(18))

    # --- how they are answered -----------------------------------------------------------------

    def page(self, here: AtDesk, template: str, *, status: int = 200, **context: Any) -> Response:
        """Render a page of the desk, with what all of them show."""
        return page(
            template,
            status=status,
            desk={
                "practice": here.staff.practice_name,
                "name": here.staff.name,
                "level": here.staff.level,
                "several": here.several,
                "sign_out": SIGN_OUT,
                "sign_out_token": self.cookies.form_token(here.browser, SIGN_OUT, ""),
                "pages": pages_of(here),
            },
            here=here,
            **context,
        )


def pages_of(here: AtDesk) -> list[tuple[str, str]]:
    """Address and name of the pages that an access level has something to do on."""
    found = [(HOME, "Start")]
    if here.may("view"):
        found.append((FIND, "Patients"))
    if here.may("view") and here.calls("book"):
        found.append((APPOINTMENTS, "Appointments"))
    if here.calls("threads"):
        found.append((INBOX, "Inbox"))
    if here.calls("portal-accounts"):
        found.append((ACCOUNTS, "Accounts"))
    if here.may("view") and any(map(here.may, set(SHOWN_TO.values()))):
        found.append((MATTERS, "To see to"))
    if here.may("view") and here.may("forms"):
        found.append((FORMS, "Forms"))
        found.append((PROPOSALS, "Changes"))
    if here.may("view") and here.calls("review-document"):
        found.append((DOCUMENTS, "Documents"))
    if here.may("view") and here.may("billing"):
        found.append((BILLS, "Bills"))
    if here.may("view") and (here.calls("label") or here.calls("set-label-rules")):
        found.append((LABELS, "Labels"))
    if here.may("administer"):
        found += [(LEVELS, "Access levels"), (MEMBERS, "Staff"), (MESSAGES, "Messages")]
        found.append((SETTINGS, "Settings"))
    return found


def desk_page(handler: Handler, *, back: str = HOME) -> Handler:
    """Answer every refusal of the API, and every fault, with a page that says what to do."""

    @functools.wraps(handler)
    async def answer(request: Request) -> Response:
        try:
            return await handler(request)
        except Elsewhere as sent:
            return sent.response
        except (NotOnStaff, SwitchedOff, Unauthenticated):
            return _problem(403, _CLOSED, HOME)
        except Unavailable:
            raise
        except FhirError as error:
            return refused(error, back)

    return refusing(answer, back=back, signed_out=f"{SIGN_IN}?then={HOME}")


def refused(error: FhirError, back: str) -> Response:
    """A page for a refusal of the API."""
    if isinstance(error, (NotFound, Gone)):
        return _problem(404, _NOT_THERE, back)
    if isinstance(error, Forbidden):
        return _problem(403, f"Your access level does not allow this: {error}.", back)
    if isinstance(error, (Conflict, PreconditionFailed)):
        message = f"Somebody changed this meanwhile, so it was not done: {error}."
        return _problem(error.status, f"{message} Go back, look at it again, then decide.", back)
    words = "; ".join(dict.fromkeys(one.diagnostics for one in error.issues if one.diagnostics))
    return _problem(error.status, words or str(error), back)


def switched_off() -> Response:
    """The page for a practice whose staff pages an operator has switched off."""
    message = "The staff pages are switched off for this practice. Ask whoever runs the portal."
    return _problem(403, message, "/account/security")


def _problem(status: int, message: str, back: str) -> Response:
    return page("problem.html", status=status, message=message, back=back)


def _answer(response: FhirResponse) -> Answer:
    tree = json.parse(response.body) if response.body else {}
    return Answer(tree, response.version, response.labelled)
