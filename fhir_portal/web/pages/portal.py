"""``/portal``: the patient portal's pages, their way in, and what all of them do.

The pages are a SMART app of this server (`fhir_portal.smart.portal_pages`). Patient data is read
and written through `fhir_portal.portal.Portal.perform`, by the token that the session holds for the
one record that is open. A page shows what it was answered, and a button where whoever is there may
press it; the server decides anew when it is pressed. No address names a record.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from typing import Any, Final
from zoneinfo import ZoneInfo

from starlette.requests import Request
from starlette.responses import Response

from fhir_portal.access.context import AuthContext
from fhir_portal.access.operations import ANY_SECTION, OPERATIONS, person_letters
from fhir_portal.access.owners import OWNERS
from fhir_portal.access.relation import name_of
from fhir_portal.access.writes import PERSON_WRITES
from fhir_portal.accounts.policy import FEATURES, policy_of
from fhir_portal.consent.record import RecordAccess, RecordDirectory, usable
from fhir_portal.documents.chart import CHART_TYPES, NAMED_TYPES
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
from fhir_portal.portal import Portal
from fhir_portal.records import RecordStore
from fhir_portal.smart.page_session import PortalSession
from fhir_portal.smart.portal_pages import (
    PORTAL,
    NoSuchRecord,
    PortalOff,
    PortalSessions,
)
from fhir_portal.smart.token import base64url
from fhir_portal.web.downloads import Downloads
from fhir_portal.web.form import Pairs, came_once, once_each
from fhir_portal.web.pages.browser import FORM_TOKEN, Browser, Cookies, posted
from fhir_portal.web.pages.desk import Answer, Elsewhere, parameters
from fhir_portal.web.pages.refusals import Handler, refusing
from fhir_portal.web.pages.render import page, redirect
from fhir_portal.web.pages.signin import SIGN_IN, SIGN_OUT, local
from fhir_portal.web.upload_form import Uploaded, read_upload

HOME: Final = PORTAL
RECORD: Final = f"{PORTAL}/record"
APPOINTMENTS: Final = f"{PORTAL}/appointments"
MESSAGES: Final = f"{PORTAL}/messages"
FORMS: Final = f"{PORTAL}/forms"
BILLS: Final = f"{PORTAL}/bills"
EXPORT: Final = f"{PORTAL}/export"
DOCUMENTS: Final = f"{PORTAL}/documents"
VISITS: Final = f"{PORTAL}/visits"
ACTIVITY: Final = f"{PORTAL}/activity"
DETAILS: Final = f"{PORTAL}/details"
INSURANCE: Final = f"{PORTAL}/insurance"
SHARING: Final = f"{PORTAL}/sharing"
RESULTS: Final = f"{PORTAL}/results"
REPORT: Final = f"{RESULTS}/report"
TIMELINE: Final = f"{PORTAL}/timeline"
HEALTH: Final = f"{PORTAL}/health"
MEDICINES: Final = f"{PORTAL}/medications"
IMMUNIZED: Final = f"{PORTAL}/immunizations"

PAGES: Final = (
    ("appointments", APPOINTMENTS, "Appointments"),
    ("messages", MESSAGES, "Messages"),
    ("results", RESULTS, "Results"),
    ("medications", MEDICINES, "Medicines"),
    ("health-summary", HEALTH, "Problems and allergies"),
    ("immunizations", IMMUNIZED, "Vaccines"),
    ("visits", VISITS, "Visits"),
    ("documents", DOCUMENTS, "Documents"),
    ("forms", FORMS, "Forms"),
    ("billing", BILLS, "Bills"),
    ("insurance", INSURANCE, "Insurance"),
    ("demographics", DETAILS, "Your details"),
    ("documents", SHARING, "Sharing"),
    (ANY_SECTION, EXPORT, "Take your record with you"),
    ("sharing", ACTIVITY, "Activity"),
)
"""Section, address and name of what the portal has beside its start page; `ANY_SECTION` stands for
whoever sees any."""

_READ: Final = (
    *("Appointment", "Location", "Patient", "Practitioner", "PractitionerRole", "RelatedPerson"),
    *("HealthcareService", "Questionnaire", "QuestionnaireResponse", "Task"),
    *("AllergyIntolerance", "AuditEvent", "Binary", "ChargeItem", "Claim", "ClaimResponse"),
    *("Communication", "Composition", "Condition", "Consent", "Coverage", "DiagnosticReport"),
    *("DocumentReference", "Encounter", "Immunization", "Invoice", "Medication"),
    *("MedicationRequest", "MedicationStatement", "Observation", "Organization"),
    *("PaymentNotice", "Provenance", *CHART_TYPES, *NAMED_TYPES),
)
_AT_ONCE: Final = 100
_NOT_THERE: Final = "There is nothing at this address, or it is not part of this record."
_CLOSED: Final = "The record is not open any more. Open it again."
_OFF: Final = "These pages are switched off. Call the practice."
_LOST: Final = "You may not use this record any more, or nobody's. Choose another one."


def portal_page_scope() -> str:
    """Return the scopes of the pages: what they show, and what people do on them.

    A record is taken along whole, so they read all that can be in one.
    """
    letters = dict.fromkeys((*_READ, *OWNERS), "rs")
    needed = {name for rule in OPERATIONS.values() if rule.section for name, _ in rule.by_type}
    for name in needed | set(PERSON_WRITES):
        rule = PERSON_WRITES.get(name)
        found = {*letters.get(name, ""), *person_letters(name), *(rule.letters if rule else "")}
        letters[name] = "".join(letter for letter in "cruds" if letter in found)
    return " ".join(f"patient/{name}.{letters[name]}" for name in sorted(letters))


@dataclass(frozen=True, slots=True)
class AtPortal:
    """Somebody at the portal, at one request, with one record open."""

    browser: Browser
    session: PortalSession
    auth: AuthContext
    record: RecordAccess
    several: bool
    features: frozenset[str] = frozenset(FEATURES)

    def sees(self, section: str) -> bool:
        """Whether the grant shows them a section; their own record has them all."""
        sections = self.record.sections
        if sections is None:
            return True
        return bool(sections) if section == ANY_SECTION else section in sections

    def has(self, section: str) -> bool:
        """Whether they see a section, and the practice has not switched its page off."""
        is_off = section in FEATURES and section not in self.features
        return self.sees(section) and not is_off

    def acts(self, section: str) -> bool:
        """Whether they may act there."""
        return self.auth.is_self or section in self.record.act

    def require_act(self, section: str) -> None:
        """Raise `Forbidden` for whoever may not act there."""
        if not self.acts(section):
            raise Forbidden("whoever is there may look, and change nothing")

    @property
    def zone(self) -> ZoneInfo:
        """The practice's time zone: an appointment is where the practice is."""
        return ZoneInfo(self.record.zone)

    def midnight(self, day: date) -> str:
        """The beginning of a day by the practice's clock, as a search has it.

        Raises `OverflowError` at the ends of the calendar.
        """
        there = datetime.combine(day, time(), self.zone)
        # Not by strftime, to which the year 202 has three digits.
        return f"{there.astimezone(UTC).replace(tzinfo=None).isoformat()}Z"

    def moment(self, text: str | None) -> str:
        """A FHIR instant or dateTime in plain words, by the practice's clock and with its zone."""
        if not text:
            return ""
        try:
            found = datetime.fromisoformat(text)
        except ValueError:
            return text
        if "T" not in text or found.tzinfo is None:
            return f"{found:%A} {found.day} {found:%B %Y}" if "T" not in text else text
        try:
            there = found.astimezone(self.zone)
        except OverflowError:
            return text
        return f"{there:%A} {there.day} {there:%B %Y}, {_clock(there)}"

    def called(self, who: Mapping[str, Any], names: Mapping[str, str]) -> str:
        """What to call who a Reference names: ``You``, whose record it is, or somebody's name."""
        reference = str(who.get("reference") or "")
        if reference == self.auth.fhir_user:
            return "You"
        if reference == self.record.patient:
            return self.record.patient_name
        if reference.startswith("RelatedPerson/"):
            return f"Somebody who acts for {self.record.patient_name}"
        return names.get(reference) or str(who.get("display") or self.record.practice_name)

    def clock(self, at: float) -> str:
        """The time of day, of seconds since 1970 UTC, by the practice's clock."""
        return _clock(datetime.fromtimestamp(at, self.zone))


class PatientRoom:
    """What all pages of the portal do: who is there, what they ask, how they are answered."""

    def __init__(
        self,
        portal: Portal,
        cookies: Cookies,
        sessions: PortalSessions,
        directory: RecordDirectory,
        store: RecordStore,
        clock: Callable[[], float],
        random: Callable[[int], bytes],
        downloads: Downloads | None = None,
    ) -> None:
        self.random = random
        self.downloads = downloads or Downloads(portal)
        self.portal = portal
        self.cookies = cookies
        self.sessions = sessions
        self.directory = directory
        self.store = store
        self.clock = clock

    # --- who is there --------------------------------------------------------------------------

    async def at(self, request: Request) -> AtPortal:
        """Return who is there; raises `Elsewhere` for whoever has to do something first."""
        browser = await self.cookies.browser(request)
        then = local(request.url.path) if request.method == "GET" else ""
        if browser.visitor.account is None:
            raise Elsewhere(redirect(f"{SIGN_IN}?then={then or HOME}"))
        session = await self.sessions.find(browser.visitor)
        if session is not None:
            try:
                auth = await self.portal.callers.held(session.token)
            except Unauthenticated:
                await self.sessions.end(browser.visitor)
            else:
                return await self._there(browser, session, auth)
        if request.method != "GET":
            raise Elsewhere(_problem(403, _CLOSED, HOME))
        records = usable(await self.directory.records_of(browser.visitor.account))
        if not records:
            raise Elsewhere(page("portal_none.html", status=403))
        if len(records) > 1:
            raise Elsewhere(redirect(RECORD))
        session = await self.open(browser, records[0])
        return await self._there(browser, session, await self.portal.callers.held(session.token))

    async def acting(self, request: Request, section: str) -> AtPortal:
        """Return who is there; raises `Forbidden` too for whoever may not act in a section."""
        here = await self.at(request)
        here.require_act(section)
        return here

    async def posted(
        self, request: Request, action: str, about: str = ""
    ) -> tuple[AtPortal, dict[str, str]]:
        """Read a form of somebody who is there; it has to be ours, for this record and thing."""
        return await self.sent(request, await posted(request), action, about)

    async def sent(
        self, request: Request, pairs: Pairs, action: str, about: str = ""
    ) -> tuple[AtPortal, dict[str, str]]:
        """The same, of a form that was read already: that may have taken its time."""
        here = await self.at(request)
        sent = once_each([pair for pair in pairs if pair[0] == FORM_TOKEN]).get(FORM_TOKEN, "")
        self.cookies.check_form(request, here.browser, action, self._handle(here, about), sent)
        return here, came_once(pairs)

    async def received(
        self, request: Request, action: str, about: str = ""
    ) -> tuple[AtPortal, dict[str, str], list[Uploaded]]:
        """Read a form with files, and texts whose lines end as ours do."""
        here, form, files = await self.with_files(request, action, about)
        return here, {name: text.replace("\r\n", "\n") for name, text in form.items()}, files

    async def with_files(
        self, request: Request, action: str, about: str = ""
    ) -> tuple[AtPortal, dict[str, str], list[Uploaded]]:
        """Read a form with files; it has to be ours, for this record and thing."""
        await self.at(request)  # nothing of nobody's is read
        pairs, files = await read_upload(
            request.receive,
            request.headers.get("content-type", ""),
            length=request.headers.get("content-length"),
        )
        here, form = await self.sent(request, pairs, action, about)
        return here, form, files

    def new_key(self) -> str:
        """Return what a form's message is called: sent twice, it is one message."""
        return base64url(self.random(18))

    async def names_of(self, here: AtPortal, practitioners: Sequence[str]) -> dict[str, str]:
        """Return names by ``Practitioner/<id>``, as far as they may be seen."""
        try:
            found = await self.ask(
                here,
                "search-type",
                "Practitioner",
                query=(("_id", ",".join(practitioners[:_AT_ONCE])), ("_count", str(_AT_ONCE))),
            )
        except Forbidden:
            return {}
        return {f"Practitioner/{one['id']}": name_of(one) for one in found.entries}

    def form_token(self, here: AtPortal, action: str, about: str = "") -> str:
        """The hidden field of a form, for this record and what it is about alone."""
        return self.cookies.form_token(here.browser, action, self._handle(here, about))

    @staticmethod
    def _handle(here: AtPortal, about: str) -> str:
        return f"{here.session.practice}|{here.session.patient}|{about}"

    async def open(self, browser: Browser, record: RecordAccess) -> PortalSession:
        """Open a record in a browser; raises `Elsewhere` with a page that says why not."""
        try:
            return await self.sessions.open(browser.visitor, record.practice, record.patient)
        except NoSuchRecord:
            raise Elsewhere(_problem(403, _LOST, RECORD)) from None
        except PortalOff:
            raise Elsewhere(_problem(403, _OFF, "/account/apps")) from None

    async def _there(self, browser: Browser, session: PortalSession, auth: AuthContext) -> AtPortal:
        assert auth.record is not None  # noqa: S101 - the token is of one record
        records = usable(await self.directory.records_of(browser.visitor.account))
        policy = await policy_of(self.store, session.practice)
        return AtPortal(
            browser,
            session,
            auth,
            auth.record,
            several=len(records) > 1,
            features=frozenset(policy.features),
        )

    # --- what they ask -------------------------------------------------------------------------

    async def perform(self, here: AtPortal, request: FhirRequest) -> FhirResponse:
        """Carry out an interaction as whoever is there. Raises `FhirError`."""
        return await self.portal.perform(request, here.auth)

    async def ask(
        self,
        here: AtPortal,
        interaction: str,
        resource_type: str,
        own_id: str | None = None,
        *,
        query: Sequence[tuple[str, str]] = (),
        body: bytes = b"",
        activity: Activity = "",
    ) -> Answer:
        """The same, with the answer read. ``activity`` is for the access log."""
        request = FhirRequest(
            interaction, resource_type, own_id, query=tuple(query), body=body, activity=activity
        )
        return answer_of(await self.perform(here, request))

    async def read(self, here: AtPortal, request: FhirRequest) -> Answer:
        """Carry out an interaction, with the answer read."""
        return answer_of(await self.perform(here, request))

    async def dashboard(self, here: AtPortal) -> Answer:
        """What is first on the portal, and new."""
        request = FhirRequest(
            "operation", "Patient", here.auth.patient, operation="portal-dashboard", is_get=True
        )
        return await self.read(here, request)

    async def call(
        self, here: AtPortal, operation: str, target: str, *given: tuple[str, str, Any]
    ) -> Answer:
        """Call an operation on ``Type/<id>`` or a type; see `desk.parameters` for what is given."""
        name, _, own_id = target.partition("/")
        request = FhirRequest(
            "operation", name, own_id or None, operation=operation, body=parameters(*given)
        )
        return answer_of(await self.perform(here, request))

    # --- how they are answered -----------------------------------------------------------------

    def page(self, here: AtPortal, template: str, *, status: int = 200, **context: Any) -> Response:
        """Render a page of the portal, with what all of them show."""
        return page(
            template,
            status=status,
            room={
                "name": here.record.patient_name,
                "relation": "" if here.auth.is_self else here.record.relation,
                "practice": here.record.practice_name,
                "several": here.several,
                "sign_out": SIGN_OUT,
                "sign_out_token": self.cookies.form_token(here.browser, SIGN_OUT, ""),
                "pages": [(HOME, "Start"), *pages_of(here)],
            },
            here=here,
            **context,
        )

    # --- whose record ------------------------------------------------------

    def routes(self) -> Sequence[tuple[str, str, Handler]]:
        """Path, method and handler of each page."""
        return (
            (RECORD, "GET", portal_page(self.show_records)),
            (RECORD, "POST", portal_page(self.choose_record)),
        )

    async def show_records(self, request: Request) -> Response:
        return await self._records(await self._signed_in(request))

    async def choose_record(self, request: Request) -> Response:
        form = once_each(await posted(request))
        browser = await self._signed_in(request)
        account = browser.visitor.account
        key = account.key if account is not None else ""
        self.cookies.check_form(request, browser, RECORD, key, form.get(FORM_TOKEN, ""))
        records = usable(await self.directory.records_of(account))
        wanted = form.get("record", "")
        chosen = next((one for one in records if _name(one) == wanted), None)
        if chosen is None:
            return await self._records(browser, problem="Choose a record.")
        await self.open(browser, chosen)
        return redirect(HOME)

    async def _records(self, browser: Browser, *, problem: str = "") -> Response:
        account = browser.visitor.account
        records = usable(await self.directory.records_of(account))
        if not records:
            return page("portal_none.html", status=403)
        session = await self.sessions.find(browser.visitor)
        there = None if session is None else f"{session.practice}/{session.patient}"
        return page(
            "portal_record.html",
            status=400 if problem else 200,
            problem=problem,
            action=RECORD,
            records=[(_name(one), one, _name(one) == there) for one in records],
            form_token=self.cookies.form_token(browser, RECORD, account.key if account else ""),
        )

    async def _signed_in(self, request: Request) -> Browser:
        browser = await self.cookies.browser(request)
        if browser.visitor.account is None:
            raise Elsewhere(redirect(f"{SIGN_IN}?then={RECORD}"))
        return browser


def pages_of(here: AtPortal) -> list[tuple[str, str]]:
    """Address and name of the pages whose section whoever is there may see, if there are any."""
    return [(address, name) for section, address, name in PAGES if here.has(section)]


def has_page(address: str) -> bool:
    """Whether an address is that of a section's page."""
    return any(address == one for _, one, _ in PAGES)


def answer_of(response: FhirResponse) -> Answer:
    """Read what the FHIR API answered."""
    tree = json.parse(response.body) if response.body else {}
    return Answer(tree, response.version, response.labelled)


def portal_page(handler: Handler, *, back: str = HOME) -> Handler:
    """Answer every refusal of the API, and every fault, with a page that says what to do."""

    @functools.wraps(handler)
    async def answer(request: Request) -> Response:
        try:
            return await handler(request)
        except Elsewhere as sent:
            return sent.response
        except (NoSuchRecord, PortalOff, Unauthenticated):
            return _problem(403, _CLOSED, HOME)
        except Unavailable:
            raise
        except FhirError as error:
            return refused(error, back)

    return refusing(answer, back=back, signed_out=f"{SIGN_IN}?then={HOME}")


def refused(error: FhirError, back: str) -> Response:
    """A page for a refusal of the API."""
    words = "; ".join(dict.fromkeys(one.diagnostics for one in error.issues if one.diagnostics))
    fatal = any(one.severity == "fatal" for one in error.issues)
    if isinstance(error, (NotFound, Gone)) and not fatal:
        return _problem(404, _NOT_THERE, back)
    if isinstance(error, Forbidden):
        return _problem(403, "You may not do this in this record. Ask the practice.", back)
    if isinstance(error, (Conflict, PreconditionFailed)):
        return _problem(error.status, f"It was not done: {words or error}.", back)
    return _problem(error.status, _sentence(words or str(error)), back)


def _clock(there: datetime) -> str:
    clock = f"{there:%I:%M %p}".removeprefix("0")
    return f"{clock} {there.tzname()}"


def _sentence(words: str) -> str:
    return f"{words[:1].upper()}{words[1:]}." if words else ""


def _problem(status: int, message: str, back: str) -> Response:
    return page("problem.html", status=status, message=message, back=back)


def _name(record: RecordAccess) -> str:
    return f"{record.practice}/{record.patient}"
