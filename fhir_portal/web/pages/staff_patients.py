"""Finding a patient, and the page of how a patient and others come to the record by the portal."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response

from fhir_portal.access.relation import PROVEN, name_of
from fhir_portal.consent.grant import IG, Grant, is_current, is_grant, read_grant
from fhir_portal.consent.sections import section_displays
from fhir_portal.fhir.errors import Forbidden, Invalid, NotFound
from fhir_portal.web.pages.desk import FIND, INBOX, Answer, AtDesk, Desk, desk_page
from fhir_portal.web.pages.refusals import Handler
from fhir_portal.web.pages.render import redirect
from fhir_portal.web.pages.staff_accounts import (
    APP,
    APPROVE,
    CANCEL,
    CLOSE,
    IDENTIFIED_BY,
    PREVIEW,
    RECOVERY,
    SESSION,
    account_reasons,
    acts_of,
)
from fhir_portal.web.pages.staff_candidates import (
    Candidate,
    candidates,
    merged_into,
    record_number,
)
from fhir_portal.web.pages.words import type_words

COUNT: Final = 20
LINES: Final = 25
_DAY: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_ID: Final = re.compile(r"[A-Za-z0-9.-]{1,64}")
_PAGE: Final = re.compile(r"[A-Za-z0-9_-]{1,2000}")
_LONGEST: Final = 100
_MOST_WORDS: Final = 5
_FIELDS: Final = ("name", "born", "number")
_SPECIAL: Final = str.maketrans({sign: f"\\{sign}" for sign in "\\,|$"})
_LIKE_ENOUGH: Final = 0.4
"""A name and a birth date of which one is the same and the other comes near."""
_INTERACTIONS: Final[Mapping[str, str]] = {
    "read": "read",
    "vread": "read an earlier version of",
    "search-type": "searched",
    "history-instance": "read the history of",
    "history-type": "read the history of",
    "create": "added",
    "update": "changed",
    "patch": "changed",
    "delete": "deleted",
}


_INVITED: Final = f"{IG}/CodeSystem/portal-task|portal-invite"
_LIVE: Final = frozenset({"queued", "sent", "delivered", "opened"})
_STATES: Final[Mapping[str, str]] = {
    "queued": "waits to be sent",
    "sent": "sent or printed",
    "delivered": "arrived, or handed over at the desk",
    "opened": "begun by the invited person",
    "awaiting": "used: somebody else here has to confirm who used it",
    "redeemed": "used: there is an account by it",
    "expired": "expired",
    "revoked": "taken back",
}
_ACTIONS: Final = {
    "again": "invite-resend",
    "print": "print-instructions",
    "back": "invite-revoke",
    "confirm": "confirm-proxy",
}
_ACTIONS_IN: Final[Mapping[str, frozenset[str]]] = {
    **dict.fromkeys(_LIVE | {"expired"}, frozenset({"again", "print", "back"})),
    "awaiting": frozenset({"back", "confirm"}),
}
"""What can be done with an invitation, by its state."""
KINDS: Final = (
    ("self", "The patient"),
    ("guardian", "A parent or guardian"),
    ("representative", "A legal representative"),
    ("caregiver", "Somebody who helps with the care"),
    ("payer", "Somebody who pays the bills"),
)
_DONE: Final[Mapping[str, str]] = {
    "invited": "The invitation is on its way.",
    "back": "The invitation was taken back.",
    "confirmed": "Confirmed: the record is open for them, and the patient was told.",
    "confirmed-untold": "Confirmed: the record is open for them. Nobody could be told of it: write "
    "the patient a letter.",
    "cancelled": "The help was ended: what was handed over opens nothing any more.",
    "session": "The browser was signed out.",
    "app": "The app's access was ended. The owner finds the receipt among theirs.",
    "merged": "The records were merged. On the page of the one that went it can be taken back.",
    "unmerged": "The merge was taken back.",
    "closed": "The portal was ended for this person. To let them in again, invite them.",
    "grant": "The grant was ended. The patient and who had it are told.",
}


@dataclass(frozen=True, slots=True)
class Found:
    """A patient in a list."""

    address: str
    name: str
    born: str
    number: str


class PatientPages:
    """The search, a patient's page, and a view of what somebody who acts for them sees."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def routes(self) -> Sequence[tuple[str, str, Handler]]:
        """Path, method and handler of each page."""
        return (
            (FIND, "GET", desk_page(self.show_search)),
            (FIND, "POST", desk_page(self.search, back=FIND)),
            (f"{FIND}/{{patient}}", "GET", desk_page(self.show, back=FIND)),
            (f"{FIND}/{{patient}}/activity", "GET", desk_page(self.show_activity, back=FIND)),
            (f"{FIND}/{{patient}}/activity", "POST", desk_page(self.more_activity, back=FIND)),
            (f"{FIND}/{{patient}}/grant", "POST", desk_page(self.end_grant, back=FIND)),
            (f"{FIND}/{{patient}}/as/{{related}}", "GET", desk_page(self.view_as, back=FIND)),
        )

    # --- finding -------------------------------------------------------------------------------

    async def show_search(self, request: Request) -> Response:
        here = await self._desk.at(request)
        _require_view(here)
        return self._search_page(here, dict.fromkeys(_FIELDS, ""))

    async def search(self, request: Request) -> Response:
        """Search by POST: what is searched for is in no address and no log of addresses."""
        here, _, form = await self._desk.posted(request, FIND)
        _require_view(here)
        asked = {name: form.get(name, "").strip() for name in _FIELDS}
        following = form.get("page", "")
        if following:
            if not _PAGE.fullmatch(following):
                raise Invalid("this paging link is not valid; start the search again")
            query: list[tuple[str, str]] = [("_page", following)]
        else:
            problem, query = _query(asked)
            if problem:
                return self._search_page(here, asked, problem=problem)
        answer = await self._desk.ask(here, "search-type", "Patient", query=query)
        same: list[Candidate] = []
        if asked["name"] and asked["born"] and not following:
            listed = [one["id"] for one in answer.entries]
            same = await candidates(
                self._desk, here, _typed(asked), least=_LIKE_ENOUGH, without=listed
            )
        return self._search_page(here, asked, found=_listed(answer), more=answer.next, same=same)

    def _search_page(
        self,
        here: AtDesk,
        asked: Mapping[str, str],
        *,
        found: list[Found] | None = None,
        more: str = "",
        problem: str = "",
        same: Sequence[Candidate] = (),
    ) -> Response:
        return self._desk.page(
            here,
            "staff_find.html",
            status=400 if problem else 200,
            action=FIND,
            form_token=self._desk.form_token(here, FIND),
            asked=asked,
            found=found,
            more=more,
            problem=problem,
            same=same,
        )

    # --- one patient ---------------------------------------------------------------------------

    async def show(self, request: Request) -> Response:
        here = await self._desk.at(request)
        patient = await self.patient(here, request)
        people = await self._people(here, patient["id"])
        related, grants = await self._proxies(here, patient["id"])
        names = {f"RelatedPerson/{one['id']}": name_of(one) for one in related}
        names[f"Patient/{patient['id']}"] = name_of(patient)
        for one in people:
            one["name"] = names.get(one["as"], one["as"])
        return self._desk.page(
            here,
            "staff_patient.html",
            patient=described(here, patient),
            address=f"{FIND}/{patient['id']}",
            own=[one for one in people if one["as"].startswith("Patient/")],
            proxies=[self._proxy(here, patient["id"], one, grants, people) for one in related],
            end_grant=(
                f"{FIND}/{patient['id']}/grant",
                self._desk.form_token(here, "grant", patient["id"]),
            )
            if here.calls("end-grant")
            else None,
            matrix=_matrix(here, related, grants, self._desk.clock()),
            activity=f"{FIND}/{patient['id']}/activity" if here.may("audit") else "",
            forms=f"{FIND}/{patient['id']}/forms" if here.may("forms") else "",
            invitations=await self._invitations(here, patient["id"], names),
            invite=f"{FIND}/{patient['id']}/invite" if here.calls("portal-invite") else "",
            kinds=[one for one in KINDS if one[0] == "self" or here.may("proxies")],
            write=f"{INBOX}/to/{patient['id']}" if here.calls("send") else "",
            acts=acts_of(here),
            preview=(PREVIEW, self._desk.form_token(here, PREVIEW)),
            session=(SESSION, self._desk.form_token(here, SESSION))
            if here.calls("end-session")
            else None,
            app=(APP, self._desk.form_token(here, APP)) if here.calls("revoke-app") else None,
            close=(CLOSE, self._desk.form_token(here, CLOSE))
            if here.calls("account-close")
            else None,
            recovery=(RECOVERY, self._desk.form_token(here, RECOVERY))
            if here.calls("start-recovery")
            else None,
            approve=(
                *(APPROVE, self._desk.form_token(here, APPROVE)),
                *(CANCEL, self._desk.form_token(here, CANCEL)),
            ),
            identified_by=IDENTIFIED_BY,
            done=_DONE.get(request.query_params.get("done", ""), ""),
            same=f"{FIND}/{patient['id']}/same" if here.calls("match") else "",
            merged=f"{FIND}/{into}" if (into := merged_into(patient)) else "",
            unmerge=self._desk.form_token(here, "unmerge", patient["id"])
            if here.calls("undo-merge")
            else "",
        )

    async def end_grant(self, request: Request) -> Response:
        """End a grant of this patient's record; one of another is not there."""
        own_id = request.path_params["patient"]
        here, _, form = await self._desk.posted(request, "grant", own_id)
        patient, consent = await self.patient(here, request), form.get("grant", "")
        _, grants = await self._proxies(here, patient["id"])
        if consent not in {one["id"] for one, _ in grants}:
            raise NotFound
        reason = ("reason", "valueString", form.get("reason", "").strip() or None)
        await self._desk.call(here, "end-grant", f"Consent/{consent}", reason)
        return redirect(f"{FIND}/{patient['id']}?done=grant")

    async def view_as(self, request: Request) -> Response:
        """What somebody who acts for a patient sees, in words: no record is opened as them."""
        here = await self._desk.at(request)
        patient = await self.patient(here, request)
        related, grants = await self._proxies(here, patient["id"])
        wanted = request.path_params["related"]
        person = next((one for one in related if one["id"] == wanted), None)
        if person is None:
            raise NotFound
        current = _of(grants, wanted, here, self._desk.clock())
        return self._desk.page(
            here,
            "staff_view_as.html",
            patient=described(here, patient),
            back=f"{FIND}/{patient['id']}",
            who=name_of(person),
            relation=_relation(person),
            grant=current,
            sections=[(title, _what(current, code)) for code, title in section_displays().items()],
        )

    async def show_activity(self, request: Request) -> Response:
        here = await self._desk.at(request)
        patient = await self.patient(here, request)
        query = (("patient", f"Patient/{patient['id']}"), ("_count", str(LINES)))
        return await self._activity(here, patient, query)

    async def more_activity(self, request: Request) -> Response:
        own_id = request.path_params["patient"]
        here, _, form = await self._desk.posted(request, "activity", own_id)
        patient = await self.patient(here, request)
        following = form.get("page", "")
        if not _PAGE.fullmatch(following):
            raise Invalid("this paging link is not valid; start again")
        return await self._activity(here, patient, (("_page", following),))

    async def _activity(
        self, here: AtDesk, patient: Mapping[str, Any], query: Sequence[tuple[str, str]]
    ) -> Response:
        answer = await self._desk.ask(here, "search-type", "AuditEvent", query=query)
        own_id = patient["id"]
        who = [one for event in answer.entries for one in _agents(event, "reference")]
        names = await self._desk.names_of_staff(here, who)
        return self._desk.page(
            here,
            "staff_activity.html",
            patient=described(here, patient),
            back=f"{FIND}/{own_id}",
            action=f"{FIND}/{own_id}/activity",
            form_token=self._desk.form_token(here, "activity", own_id),
            lines=[_line(here, one, names) for one in answer.entries],
            more=answer.next,
        )

    async def patient(self, here: AtDesk, request: Request) -> Mapping[str, Any]:
        """Return the Patient that an address names. Raises `FhirError`."""
        own_id = request.path_params["patient"]
        if not _ID.fullmatch(own_id):
            raise NotFound
        return (await self._desk.ask(here, "read", "Patient", own_id)).tree

    async def _invitations(
        self, here: AtDesk, patient: str, names: Mapping[str, str]
    ) -> list[dict[str, Any]]:
        """The invitations to a record, the latest first, each with what became of it when."""
        query = (("patient", f"Patient/{patient}"), ("code", _INVITED), ("_sort", "-authored-on"))
        tasks = await self._desk.search_all(here, "Task", *query, most=LINES)
        found = []
        for task in tasks:
            own_id, state = task["id"], _task_state(task)
            owner = str((task.get("owner") or {}).get("reference", ""))
            found.append(
                {
                    "id": own_id,
                    "address": f"{FIND}/{patient}/invitations/{own_id}",
                    "state": _STATES.get(state, state),
                    "live": state in _LIVE,
                    "owner": names.get(owner, owner),
                    "made": here.moment(task.get("authoredOn")),
                    "ends": here.moment(
                        (task.get("restriction") or {}).get("period", {}).get("end")
                    ),
                    "why": str((task.get("statusReason") or {}).get("text", "")),
                    "history": _history(here, await self._versions(here, task)),
                    "tokens": {
                        action: self._desk.form_token(
                            here, f"invitation-{action}", f"{patient}/{own_id}"
                        )
                        for action, operation in _ACTIONS.items()
                        if action in _ACTIONS_IN.get(state, ()) and here.calls(operation)
                    },
                }
            )
        return found

    async def _versions(self, here: AtDesk, task: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
        """A Task as it was, the latest first; the first version has nothing before it to look up.

        Each look-up is an access, and a line of the patient's log.
        """
        if (task.get("meta") or {}).get("versionId") == "1":
            return [task]
        return (await self._desk.ask(here, "history-instance", "Task", task["id"])).entries

    async def _people(self, here: AtDesk, patient: str) -> list[dict[str, Any]]:
        """The Persons that may come to a record, each with how their account stands.

        Each is asked of once, by whatever ways they come.
        """
        answer = await self._desk.call(here, "portal-people", f"Patient/{patient}")
        people = answer.values("people")
        told = {
            person: await self._desk.call(here, "portal-account", person)
            for person in dict.fromkeys(
                one["person"]["reference"] for one in people if one["status"] != "none"
            )
        }
        by = [(one.value("said") or {}).get("by") for one in told.values()]
        names = await self._desk.names_of_staff(here, by)
        found = []
        for one in people:
            person = one["person"]["reference"]
            account = _account(here, told[person], names) if person in told else None
            found.append(
                {
                    "person": person,
                    "as": one["as"]["reference"],
                    "proven": one.get("assurance") in PROVEN,
                    "assurance": one.get("assurance", ""),
                    "status": one["status"],
                    "account": account,
                }
            )
        return found

    async def _proxies(
        self, here: AtDesk, patient: str
    ) -> tuple[list[Mapping[str, Any]], list[tuple[Mapping[str, Any], Grant | None]]]:
        """The RelatedPersons of a patient, and the grants as Consents and as they are read."""
        whose = ("patient", f"Patient/{patient}")
        related = await self._desk.search_all(here, "RelatedPerson", whose)
        consents = [
            one for one in await self._desk.search_all(here, "Consent", whose) if is_grant(one)
        ]
        practice = here.session.practice
        return related, [
            (one, read_grant(one, practice=practice, zone=here.zone)) for one in consents
        ]

    def _proxy(
        self,
        here: AtDesk,
        patient: str,
        related: Mapping[str, Any],
        grants: list[tuple[Mapping[str, Any], Grant | None]],
        people: list[dict[str, Any]],
    ) -> dict[str, Any]:
        own_id, now = related["id"], self._desk.clock()
        return {
            "name": name_of(related),
            "relation": _relation(related),
            "address": f"{FIND}/{patient}/as/{own_id}",
            "people": [one for one in people if one["as"] == f"RelatedPerson/{own_id}"],
            "grants": [
                _granted(here, consent, grant, now)
                for consent, grant in grants
                if _grantee(consent) == own_id
            ],
            "current": _of(grants, own_id, here, now) is not None,
            "prove_at": f"{FIND}/{patient}/prove/{own_id}",
            "prove_token": self._desk.form_token(here, "prove", f"{patient}/{own_id}")
            if here.calls("portal-invite") and here.may("proxies")
            else "",
        }


def described(here: AtDesk, patient: Mapping[str, Any]) -> dict[str, Any]:
    """What pages say of who a patient is."""
    return {
        "id": patient["id"],
        "name": name_of(patient),
        "born": here.moment(patient.get("birthDate")) or "not recorded",
        "number": record_number(patient),
        "deceased": bool(patient.get("deceasedBoolean") or patient.get("deceasedDateTime")),
        "inactive": patient.get("active") is False,
    }


def _query(asked: Mapping[str, str]) -> tuple[str, list[tuple[str, str]]]:
    """Return what is wrong with a search, and what is asked of the API."""
    name, born, number = asked["name"], asked["born"], asked["number"]
    if not (name or born or number):
        return "Give a name, a birth date or a record number.", []
    if max(map(len, (name, number))) > _LONGEST or len(name.split()) > _MOST_WORDS:
        return "That is too long to search for. Give a part of it.", []
    query = [("name", word.translate(_SPECIAL)) for word in name.split()]
    if born:
        try:
            valid = bool(_DAY.fullmatch(born)) and bool(date.fromisoformat(born))
        except ValueError:
            valid = False
        if not valid:
            return "Give the birth date as year, month and day, such as 1984-05-12.", []
        query.append(("birthdate", born))
    if number:
        query.append(("identifier", number.translate(_SPECIAL)))
    return "", [*query, ("_sort", "family"), ("_count", str(COUNT))]


def _typed(asked: Mapping[str, str]) -> dict[str, Any]:
    """What was typed of somebody, as a Patient: either end of the name may be the family name."""
    words = asked["name"].split()
    names = ((words[-1], words[:-1]), (words[0], words[1:]))
    return {
        "name": [
            {"family": family} | ({"given": given} if given else {}) for family, given in names
        ],
        "birthDate": asked["born"],
    }


def _listed(answer: Answer) -> list[Found]:
    return [
        Found(
            address=f"{FIND}/{one['id']}",
            name=name_of(one),
            born=str(one.get("birthDate", "")),
            number=record_number(one),
        )
        for one in answer.entries
    ]


def _relation(related: Mapping[str, Any]) -> str:
    for concept in related.get("relationship") or ():
        codings = concept.get("coding") or [{}]
        words = concept.get("text") or codings[0].get("display") or codings[0].get("code")
        if words:
            return str(words)
    return ""


def _account(here: AtDesk, answer: Answer, staff: Mapping[str, str]) -> dict[str, Any]:
    """How an account stands, as `$portal-account` tells it; ``staff`` are names by reference."""
    ways = []
    if answer.value("password"):
        ways.append("password")
    if passkeys := answer.value("passkeys"):
        ways.append("1 passkey" if passkeys == 1 else f"{passkeys} passkeys")
    if answer.value("authenticator"):
        ways.append("authenticator app")
    return {
        "created": here.moment(answer.value("created")),
        "signed_in": here.moment(answer.value("signed-in")),
        "ways": ", ".join(ways) or "nothing yet",
        "contacts": answer.value("contacts") or 0,
        "recovery_codes": answer.value("recovery-codes") or 0,
        "sessions": answer.value("sessions") or 0,
        "here": answer.value("at-practice") or answer.value("status"),
        "said": _said(here, answer.value("said"), staff),
        "renewal": answer.value("renewal") or "",
        "recoveries": [
            {
                "id": one["id"],
                "awaits": one["needs-approval"],
                "opens": here.moment(one["opens"]),
                "until": here.moment(one["until"]),
            }
            for one in answer.values("recovery")
        ],
        "open": [
            {
                "id": one["id"],
                "device": one.get("device", "A browser"),
                "used": here.moment(one.get("used")),
            }
            for one in answer.values("session")
        ],
        "apps": [
            {
                "id": one["id"],
                "name": one.get("name", "An app"),
                "since": here.moment(one.get("since")),
                "used": here.moment(one.get("used")),
                "until": here.moment(one.get("until")),
                "by_proxy": one.get("by-proxy", False),
            }
            for one in answer.values("app")
        ],
    }


def _said(here: AtDesk, said: Mapping[str, Any] | None, staff: Mapping[str, str]) -> str:
    """Since when the practice has an account like this, by whom and why."""
    if not said:
        return ""
    reason = account_reasons().get(said["reason"], said["reason"])
    text = f" ({said['text']})" if said.get("text") else ""
    until = f", until {here.moment(said['until'])}" if said.get("until") else ""
    by = staff.get(said["by"], said["by"])
    return f"since {here.moment(said['since'])} by {by}: {reason}{text}{until}"


def _grantee(consent: Mapping[str, Any]) -> str:
    actors = (consent.get("provision") or {}).get("actor") or [{}]
    name, _, own_id = str((actors[0].get("reference") or {}).get("reference", "")).partition("/")
    return own_id if name == "RelatedPerson" else ""


def _granted(
    here: AtDesk, consent: Mapping[str, Any], grant: Grant | None, now: float
) -> dict[str, Any]:
    titles = section_displays()
    period = (consent.get("provision") or {}).get("period") or {}
    return {
        "id": consent["id"],
        "active": consent.get("status") == "active",
        "state": _state(consent, grant, now),
        "since": here.moment(period.get("start")),
        "until": here.moment(period.get("end")),
        "see": [titles[one] for one in titles if grant and one in grant.sections],
        "act": [titles[one] for one in titles if grant and one in grant.act],
    }


def _state(consent: Mapping[str, Any], grant: Grant | None, now: float) -> str:
    """How a grant stands, in words."""
    if consent.get("status") == "active" and grant is not None:
        if is_current(grant, now):
            return "in force"
        return "not yet in force" if grant.start and grant.start > now else "over: its time is up"
    if consent.get("status") == "active":
        return "conveys nothing: it is not made as a grant has to be"
    return {
        "proposed": "waits for the invitation to be used",
        "rejected": "was not taken up, or was taken back",
        "inactive": "over: it was ended",
        "entered-in-error": "was entered in error",
    }.get(str(consent.get("status")), "not in force")


def _of(
    grants: list[tuple[Mapping[str, Any], Grant | None]], related: str, here: AtDesk, now: float
) -> Grant | None:
    """The one grant by which somebody may use the record now; two are none (DESIGN: the grant)."""
    person = f"{here.session.practice}/{related}"
    found = [
        grant
        for _, grant in grants
        if grant is not None and grant.related_person == person and is_current(grant, now)
    ]
    return found[0] if len(found) == 1 else None


def _what(grant: Grant | None, section: str) -> str:
    if grant is None or section not in grant.sections:
        return "does not see it"
    return "sees it and acts in it" if section in grant.act else "sees it"


def _matrix(
    here: AtDesk,
    related: list[Mapping[str, Any]],
    grants: list[tuple[Mapping[str, Any], Grant | None]],
    now: float,
) -> list[tuple[str, list[str]]]:
    """Each section with who sees it beside the patient."""
    sees = [(name_of(one), _of(grants, one["id"], here, now)) for one in related]
    return [
        (
            title,
            [
                f"{name} ({_what(grant, code)})"
                for name, grant in sees
                if grant is not None and code in grant.sections
            ],
        )
        for code, title in section_displays().items()
    ]


def _agents(event: Mapping[str, Any], by: str) -> list[str]:
    """What an AuditEvent names its agents by: ``reference`` or ``display``."""
    found = (one.get("who") or {} for one in event.get("agent") or ())
    return [str(one[by]) for one in found if by in one]


def _line(here: AtDesk, event: Mapping[str, Any], staff: Mapping[str, str]) -> dict[str, str]:
    """One line of the access log, in words; ``staff`` are names by reference."""
    codes = [str(one.get("code", "")) for one in event.get("subtype") or ()]
    things = [
        str(one["what"]["reference"])
        for one in event.get("entity") or ()
        if (one.get("role") or {}).get("code") == "4"
    ]
    verb = f"called ${codes[1]}" if codes[0] == "operation" and codes[1:] else ""
    return {
        "when": here.moment(event.get("recorded")),
        "who": ", ".join(staff.get(one, one) for one in _agents(event, "reference")) or "a program",
        "by": ", ".join(_agents(event, "display")),
        "did": verb or _INTERACTIONS.get(codes[0], codes[0]),
        "what": ", ".join(type_words(one.partition("/")[0]) for one in things),
        "refused": "" if event.get("outcome") == "0" else "refused",
    }


def _require_view(here: AtDesk) -> None:
    if not here.may("view"):
        raise Forbidden(f"the level '{here.staff.level}' does not let its holders read records")


def _task_state(task: Mapping[str, Any]) -> str:
    codings = (task.get("businessStatus") or {}).get("coding") or [{}]
    return str(codings[0].get("code", task.get("status", "")))


def _history(here: AtDesk, versions: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """When an invitation came to each state, the latest first."""
    found: list[tuple[str, str]] = []
    for one in reversed(versions):
        state = _task_state(one)
        when = here.moment((one.get("meta") or {}).get("lastUpdated"))
        found.append((when, _STATES.get(state, state)))
    return found[::-1]
