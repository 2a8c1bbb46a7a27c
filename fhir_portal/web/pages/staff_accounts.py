"""The accounts of a practice: filters, a file, and what is done with several by preview."""

from __future__ import annotations

import csv
import functools
import io
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final
from urllib.parse import quote

import structlog
from starlette.requests import Request
from starlette.responses import Response

from fhir_portal.access.relation import name_of
from fhir_portal.accounts.assisted_recovery import Basis
from fhir_portal.fhir.definitions import ig_resource
from fhir_portal.fhir.errors import FhirError, Forbidden, Invalid, Unauthenticated, Unavailable
from fhir_portal.web.form import Pairs
from fhir_portal.web.pages.desk import ACCOUNTS, FIND, Answer, AtDesk, Desk, desk_page
from fhir_portal.web.pages.recover import DESK as RECOVER_DESK
from fhir_portal.web.pages.refusals import Handler
from fhir_portal.web.pages.render import download, page, redirect
from fhir_portal.web.pages.shown_once import ShownOnce

EXPORT: Final = f"{ACCOUNTS}/export"
PREVIEW: Final = f"{ACCOUNTS}/preview"
CHANGE: Final = f"{ACCOUNTS}/change"
SESSION: Final = f"{ACCOUNTS}/session"
APP: Final = f"{ACCOUNTS}/app"
RESULTS: Final = f"{ACCOUNTS}/results"
RECOVERY: Final = f"{ACCOUNTS}/recovery"
APPROVE: Final = f"{RECOVERY}/approve"
CLOSE: Final = f"{ACCOUNTS}/close"
CLOSED: Final = f"{CLOSE}/confirmed"
CANCEL: Final = f"{RECOVERY}/cancel"

ACTS: Final[Mapping[str, tuple[str, str]]] = {
    "disable": ("account-disable", "Disable"),
    "enable": ("account-enable", "Enable again"),
    "renew": ("require-credential-renewal", "Require a new password or passkey"),
}
"""What can be done with several accounts: the operation, and what its button says."""
RENEWALS: Final[Mapping[str, str]] = {
    "staff-request": "Asked for by staff",
    "suspected-compromise": "Somebody else may know how to sign in",
}
IDENTIFIED_BY: Final[Mapping[Basis, str]] = {
    "photo-id": "by a photo ID, here",
    "known-in-person": "known in person, here",
    "video-call-with-photo-id": "by a photo ID in a video call",
}
"""How staff made sure of somebody whom they help back in."""
_STATUSES: Final = {
    "enabled": "enabled",
    "disabled": "disabled",
    "closed": "ended for good",
    "none": "no account",
}
_KINDS: Final = {"self": "patient", "proxy": "acts for a patient"}
_FILTERS: Final = ("status", "kind", "name", "before")
_MOST: Final = 50
_LONGEST_NAME: Final = 200
_EXPORTED_AT_ONCE: Final = 200
_MOST_EXPORTED: Final = 20_000
"""Accounts in one file; it is made as a whole before it is sent."""
_EXPORTED_PAGES: Final = 500
"""Pages of the API that one file takes: with a filter most of them hold little or nothing."""
_PAGE: Final = re.compile(r"[A-Za-z0-9_-]{1,2000}")
_PERSON: Final = re.compile(r"Person/[A-Za-z0-9.-]{1,64}")
_BACK: Final = re.compile(rf"{FIND}/[A-Za-z0-9.-]{{1,64}}")
_HANDLE: Final = re.compile(r"[A-Za-z0-9_-]{24}")
_FORMULA: Final = (*"=+-@", *"\uff1d\uff0b\uff0d\uff20", "\t", "\r", "\n")
"""What tables take for the begin of a formula, some of them in full width, too (OWASP)."""
_COLUMNS: Final = (
    *("person", "name", "status", "kind", "created", "signed-in"),
    *("since", "by", "reason", "text", "until"),
)
_SHOWN: Final = "This was shown already, or too long ago. Start again for a new code."
_NOT_WHOLE: Final = "the form is not whole; load the page again"
_OVER: Final = "These results were shown already. What was done is in the list of accounts."

_log = structlog.get_logger(__name__)


class AccountPages:
    """The list, its file, and the changes: preview, then a list of what became of each."""

    def __init__(self, desk: Desk, once: ShownOnce) -> None:
        self._desk = desk
        self._once = once

    def routes(self) -> Sequence[tuple[str, str, Handler]]:
        """Path, method and handler of each page."""
        return (
            (ACCOUNTS, "GET", desk_page(self.show)),
            (ACCOUNTS, "POST", desk_page(self.search, back=ACCOUNTS)),
            (EXPORT, "POST", desk_page(self.export, back=ACCOUNTS)),
            (PREVIEW, "POST", desk_page(self.preview, back=ACCOUNTS)),
            (CHANGE, "POST", desk_page(self.change, back=ACCOUNTS)),
            (SESSION, "POST", desk_page(self.end_session, back=ACCOUNTS)),
            (APP, "POST", desk_page(self.revoke_app, back=ACCOUNTS)),
            (RECOVERY, "POST", desk_page(self.start_recovery, back=ACCOUNTS)),
            (APPROVE, "POST", desk_page(self.approve_recovery, back=ACCOUNTS)),
            (CLOSE, "POST", desk_page(self.preview_close, back=ACCOUNTS)),
            (CLOSED, "POST", desk_page(self.close, back=ACCOUNTS)),
            (CANCEL, "POST", desk_page(self.cancel_recovery, back=ACCOUNTS)),
            (f"{RECOVERY}/{{handle}}", "GET", desk_page(self.hand_over, back=ACCOUNTS)),
            (f"{RESULTS}/{{handle}}", "GET", desk_page(self.results, back=ACCOUNTS)),
        )

    # --- the list ------------------------------------------------------------------------------

    async def show(self, request: Request) -> Response:
        here = await self._desk.at(request)
        return await self._list(here, dict.fromkeys(_FILTERS, ""))

    async def search(self, request: Request) -> Response:
        here, _, form = await self._desk.posted(request, ACCOUNTS)
        asked = {name: form.get(name, "").strip() for name in _FILTERS}
        return await self._list(here, asked, following=form.get("page", ""))

    async def export(self, request: Request) -> Response:
        """Give the list as a file: no field of it is taken for a formula (CWE-1236)."""
        here, _, form = await self._desk.posted(request, EXPORT)
        asked = {name: form.get(name, "").strip() for name in _FILTERS}
        given = _given(here, asked, count=_EXPORTED_AT_ONCE)
        text, written = io.StringIO(), 0
        writer = csv.writer(text, quoting=csv.QUOTE_ALL)
        writer.writerow(_COLUMNS)
        for _ in range(_EXPORTED_PAGES):
            answer = await self._desk.call(here, "portal-accounts", "Person", *given)
            for one in answer.values("account"):
                row = {**one, "person": one["person"]["reference"], "kind": ", ".join(_kinds(one))}
                writer.writerow([_plain(row.get(name)) for name in _COLUMNS])
            written += len(answer.values("account"))
            following = answer.value("page")
            if not following or written > _MOST_EXPORTED:
                break
            given = [("page", "valueString", following)]
        if following:
            raise Invalid("there are too many accounts for one file; filter them")
        return download(text.getvalue().encode("utf-8-sig"), "accounts.csv", "text/csv")

    async def _list(
        self, here: AtDesk, asked: Mapping[str, str], *, following: str = ""
    ) -> Response:
        problem, accounts, more = "", list[dict[str, Any]](), ""
        if following and not _PAGE.fullmatch(following):
            raise Invalid("this paging link is not valid; start again")
        try:
            given = [("page", "valueString", following)] if following else _given(here, asked)
            answer = await self._desk.call(here, "portal-accounts", "Person", *given)
        except Invalid as error:
            problem = f"{error}."
        else:
            found = answer.values("account")
            names = await self._desk.names_of_staff(here, [one.get("by") for one in found])
            accounts = [described(here, one, names) for one in found]
            more = answer.value("page") or ""
        return self._desk.page(
            here,
            "staff_accounts.html",
            status=400 if problem else 200,
            problem=problem,
            asked=asked,
            statuses=_STATUSES,
            kinds=_KINDS,
            accounts=accounts,
            more=more,
            action=ACCOUNTS,
            form_token=self._desk.form_token(here, ACCOUNTS),
            export=EXPORT,
            export_token=self._desk.form_token(here, EXPORT),
            preview=PREVIEW,
            preview_token=self._desk.form_token(here, PREVIEW),
            acts=acts_of(here),
        )

    # --- several of them -----------------------------------------------------------------------

    async def preview(self, request: Request) -> Response:
        """Show whom it is about and what it does, before it is done."""
        here, pairs, form = await self._desk.posted(request, PREVIEW)
        act, people = form.get("act", ""), _people(pairs)
        if act not in acts_of(here):
            raise Forbidden(f"the level '{here.staff.level}' does not let its holders do this")
        if not people:
            raise Invalid("choose at least one account")
        shown = []
        for person, name in people:
            answer = await self._desk.call(here, "portal-account", person)
            shown.append(
                {
                    "person": person,
                    "name": name,
                    "value": f"{person} {name}",
                    "status": answer.value("at-practice") or answer.value("status"),
                    "has_account": answer.value("status") != "none",
                    "signed_in": here.moment(answer.value("signed-in")),
                    "sessions": answer.value("sessions") or 0,
                }
            )
        back = form.get("back", "")
        return self._desk.page(
            here,
            "staff_accounts_preview.html",
            act=act,
            title=ACTS[act][1],
            people=shown,
            reasons=RENEWALS if act == "renew" else account_reasons(),
            action=CHANGE,
            form_token=self._desk.form_token(here, CHANGE),
            back=back if _BACK.fullmatch(back) else ACCOUNTS,
        )

    async def change(self, request: Request) -> Response:
        """Do it, one account after the other; each is all or nothing, and told of."""
        here, pairs, form = await self._desk.posted(request, CHANGE)
        act = form.get("act", "")
        if act not in acts_of(here):
            raise Forbidden(f"the level '{here.staff.level}' does not let its holders do this")
        given = _why(here, act, form)
        results = list[tuple[str, str, bool]]()
        ended: Unauthenticated | Unavailable | None = None
        for person, name in _people(pairs):
            if ended is not None:
                results.append((name, "not done", False))
                continue
            try:
                answer = await self._desk.call(here, ACTS[act][0], person, *given)
            except (Unauthenticated, Unavailable) as error:
                if not results:
                    raise
                ended = error
                results.append((name, f"not done: {error}", False))
            except FhirError as error:
                results.append((name, f"not done: {error}", False))
            else:
                results.append((name, _became(here, act, answer), True))
        _log.info("accounts changed", act=act, done=sum(done for _, _, done in results))
        content = {"title": ACTS[act][1], "results": results, "back": _back(form)}
        if ended is not None:  # there may be nobody any more to whom another page would open
            status = 403 if isinstance(ended, Unauthenticated) else ended.status
            return self._desk.page(here, "staff_accounts_results.html", status=status, **content)
        handle = await self._once.keep(here.browser, content)
        return redirect(f"{RESULTS}/{handle}")

    async def results(self, request: Request) -> Response:
        here = await self._desk.at(request)
        handle, kept = request.path_params["handle"], None
        if request.method == "GET" and _HANDLE.fullmatch(handle):
            kept = await self._once.take(here.browser, handle)
        if kept is None:
            return page("problem.html", status=410, message=_OVER, back=ACCOUNTS)
        return self._desk.page(here, "staff_accounts_results.html", **kept)

    # --- one of them ---------------------------------------------------------------------------

    async def end_session(self, request: Request) -> Response:
        here, _, form = await self._desk.posted(request, SESSION)
        session = form.get("session", "")
        if not session:  # not all of them, for want of the name of one
            raise Invalid(_NOT_WHOLE)
        what = ("session", "valueString", session)
        await self._desk.call(here, "end-session", _person(form), what)
        return redirect(_done(form, "session"))

    async def revoke_app(self, request: Request) -> Response:
        here, _, form = await self._desk.posted(request, APP)
        app = ("app", "valueString", form.get("app", ""))
        await self._desk.call(here, "revoke-app", _person(form), app)
        return redirect(_done(form, "app"))

    # --- for good ------------------------------------------------------------------------------

    async def preview_close(self, request: Request) -> Response:
        """Show what would end for somebody, and ask why, before anything does."""
        here, pairs, form = await self._desk.posted(request, CLOSE)
        people = _people(pairs)
        if len(people) != 1:
            raise Invalid(_NOT_WHOLE)
        ((person, name),) = people
        answer = await self._desk.call(
            here,
            "account-close",
            person,
            ("reason", "valueCode", "other"),  # nothing is done, so nothing is said by it
            ("preview", "valueBoolean", True),
        )
        return self._desk.page(
            here,
            "staff_close.html",
            person=person,
            name=name,
            links=[await self._linked(here, one["reference"]) for one in answer.values("link")],
            grants=len(answer.values("grant")),
            invitations=len(answer.values("invitation")),
            apps=answer.value("ended-apps"),
            reasons=account_reasons(),
            action=CLOSED,
            form_token=self._desk.form_token(here, CLOSED),
            back=_back(form),
        )

    async def close(self, request: Request) -> Response:
        here, _, form = await self._desk.posted(request, CLOSED)
        given = [
            ("reason", "valueCode", form.get("reason") or None),
            ("text", "valueString", form.get("text", "").strip() or None),
        ]
        await self._desk.call(here, "account-close", _person(form), *given)
        return redirect(_done(form, "closed"))

    async def _linked(self, here: AtDesk, reference: str) -> str:
        """Whom a Person is linked to, in words."""
        kind, _, own_id = reference.partition("/")
        try:
            found = (await self._desk.ask(here, "read", kind, own_id)).tree
            if kind == "Patient":
                return f"{name_of(found)}, as the patient"
            whose = str((found.get("patient") or {}).get("reference", "")).partition("/")[2]
            patient = (await self._desk.ask(here, "read", "Patient", whose)).tree
        except FhirError:
            return "a record that is gone, or that you may not read"
        return f"{name_of(patient)}, acting for them"

    # --- back in -------------------------------------------------------------------------------

    async def start_recovery(self, request: Request) -> Response:
        here, _, form = await self._desk.posted(request, RECOVERY)
        basis = ("basis", "valueCode", form.get("basis") or None)
        answer = await self._desk.call(here, "start-recovery", _person(form), basis)
        return await self._handed_over(here, form, answer)

    async def approve_recovery(self, request: Request) -> Response:
        here, _, form = await self._desk.posted(request, APPROVE)
        recovery = ("recovery", "valueString", form.get("recovery", ""))
        answer = await self._desk.call(here, "approve-recovery", _person(form), recovery)
        return await self._handed_over(here, form, answer)

    async def cancel_recovery(self, request: Request) -> Response:
        here, _, form = await self._desk.posted(request, CANCEL)
        recovery = ("recovery", "valueString", form.get("recovery", ""))
        await self._desk.call(here, "cancel-recovery", _person(form), recovery)
        return redirect(_done(form, "cancelled"))

    async def _handed_over(self, here: AtDesk, form: Mapping[str, str], answer: Answer) -> Response:
        """Show the half that is to be handed over, once."""
        handle = await self._once.keep(
            here.browser,
            {
                "back": _back(form),
                "code": answer.value("desk-code"),
                "word": answer.value("activation-word"),
                "half": answer.value("half"),
                "awaits": answer.value("needs-approval"),
                "removes": answer.value("removes-second-factor"),
                "opens": here.moment(answer.value("opens")),
                "until": here.moment(answer.value("until")),
            },
        )
        return redirect(f"{RECOVERY}/{handle}")

    async def hand_over(self, request: Request) -> Response:
        here = await self._desk.at(request)
        handle, kept = request.path_params["handle"], None
        if request.method == "GET" and _HANDLE.fullmatch(handle):
            kept = await self._once.take(here.browser, handle)
        if kept is None:
            return page("problem.html", status=410, message=_SHOWN, back=ACCOUNTS)
        return self._desk.page(here, "staff_recovery.html", desk_at=RECOVER_DESK, **kept)


def acts_of(here: AtDesk) -> dict[str, str]:
    """What somebody may do with accounts, and what the buttons say."""
    return {act: words for act, (operation, words) in ACTS.items() if here.calls(operation)}


def described(here: AtDesk, one: Mapping[str, Any], staff: Mapping[str, str]) -> dict[str, Any]:
    """One line of the list, in words; ``staff`` are names by reference."""
    name = one.get("name") or one["person"]["reference"]
    return {
        "value": f"{one['person']['reference']} {name}",
        "person": one["person"]["reference"],
        "name": name,
        "status": _STATUSES.get(one["status"], one["status"]),
        "kind": ", ".join(_KINDS.get(kind, kind) for kind in _kinds(one)),
        "created": here.moment(one.get("created")),
        "signed_in": here.moment(one.get("signed-in")),
        "since": here.moment(one.get("since")),
        "by": staff.get(one.get("by", ""), one.get("by", "")),
        "reason": account_reasons().get(one.get("reason", ""), ""),
        "text": one.get("text", ""),
        "until": here.moment(one.get("until")),
    }


def _kinds(one: Mapping[str, Any]) -> list[str]:
    """For whom an account is: the person themselves, others, or both."""
    found = one.get("kind") or []
    return found if isinstance(found, list) else [found]


@functools.cache
def account_reasons() -> Mapping[str, str]:
    """Code and words of why an account is disabled or enabled."""
    listed = ig_resource("CodeSystem", "account-reason")["concept"]
    return {one["code"]: one["display"] for one in listed}


def _given(
    here: AtDesk, asked: Mapping[str, str], *, count: int = _MOST
) -> list[tuple[str, str, Any]]:
    """The filters as parameters. Raises `Invalid`."""
    before = None
    if asked["before"]:
        try:
            day = datetime.strptime(asked["before"], "%Y-%m-%d")  # noqa: DTZ007 - by the practice's
        except ValueError:
            raise Invalid("give the day as year, month and day, such as 2026-05-12") from None
        before = day.replace(tzinfo=here.zone).isoformat()
    return [
        ("status", "valueCode", asked["status"] or None),
        ("kind", "valueCode", asked["kind"] or None),
        ("name", "valueString", asked["name"] or None),
        ("signed-in-before", "valueInstant", before),
        ("count", "valueInteger", count),
    ]


def _why(here: AtDesk, act: str, form: Mapping[str, str]) -> list[tuple[str, str, Any]]:
    """Why something is done, as parameters. Raises `Invalid`."""
    given: list[tuple[str, str, Any]] = [("reason", "valueCode", form.get("reason") or None)]
    if act == "renew":
        return given
    given.append(("text", "valueString", form.get("text", "").strip() or None))
    if act == "disable":
        until = form.get("until", "")
        if until:
            try:
                day = datetime.strptime(until, "%Y-%m-%d")  # noqa: DTZ007 - by the practice's zone
            except ValueError:
                raise Invalid("give the day as year, month and day") from None
            until = day.replace(tzinfo=here.zone).isoformat()
        given.append(("until", "valueInstant", until or None))
        given.append(("include-proxies", "valueBoolean", True if form.get("proxies") else None))
    return given


def _became(here: AtDesk, act: str, answer: Answer) -> str:
    """What became of one account, in words."""
    if act == "disable":
        apps = answer.value("ended-apps")
        until = here.moment(answer.value("until"))
        words = f"disabled{f' until {until}' if until else ''}: {apps} apps"
        return f"{words} ended. {answer.value('warning')}"
    if act == "enable":
        return str(answer.value("status"))
    return "has to be renewed at the next sign-in"


def _people(pairs: Pairs) -> list[tuple[str, str]]:
    """The Persons that were chosen, each with the name it was shown by.

    The name is only shown again: whom it is about, the Person says.
    """
    found: dict[str, str] = {}
    for field, value in pairs:
        if field == "person":
            person, _, name = value.partition(" ")
            found.setdefault(person, name.strip()[:_LONGEST_NAME] or person)
    if len(found) > _MOST or not all(_PERSON.fullmatch(one) for one in found):
        raise Invalid(f"choose at most {_MOST} accounts of the list")
    return list(found.items())


def _person(form: Mapping[str, str]) -> str:
    person = form.get("person", "")
    if not _PERSON.fullmatch(person):
        raise Invalid(_NOT_WHOLE)
    return person


def _done(form: Mapping[str, str], what: str) -> str:
    return f"{_back(form)}?done={quote(what)}"


def _back(form: Mapping[str, str]) -> str:
    back = form.get("back", "")
    return back if _BACK.fullmatch(back) else ACCOUNTS


def _plain(value: Any) -> str:
    """A field of the file; what a table would take for a formula is kept from being one."""
    text = "" if value is None else str(value)
    begins = text.startswith(_FORMULA) or text.lstrip().startswith(_FORMULA)
    return f"'{text}" if begins else text
