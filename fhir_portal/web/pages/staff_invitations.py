"""Inviting from a patient's page: the form, what is handed over, sending again, taking back."""

from __future__ import annotations

import base64
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, Final, get_args

from starlette.requests import Request
from starlette.responses import Response

from fhir_portal.access.relation import name_of
from fhir_portal.accounts.invitation import Channel, Kind
from fhir_portal.consent.presets import BASES, PRESETS
from fhir_portal.consent.sections import section_displays
from fhir_portal.fhir.errors import FhirError, Forbidden, NotFound, Unauthenticated, Unavailable
from fhir_portal.web.form import Pairs
from fhir_portal.web.pages.desk import FIND, Answer, AtDesk, Desk, desk_page
from fhir_portal.web.pages.refusals import Handler
from fhir_portal.web.pages.render import download, page, printed, redirect
from fhir_portal.web.pages.shown_once import ShownOnce
from fhir_portal.web.pages.staff_candidates import candidates
from fhir_portal.web.pages.staff_patients import KINDS, PatientPages, described

SHOWN: Final = "/staff/shown"
CHANNELS: Final[Mapping[Channel, str]] = {
    "desk": "Handed over at the desk",
    "paper": "On a printed sheet",
    "letter": "By letter",
    "mail": "By mail to an address on file",
    "sms": "By SMS to a number on file",
}
_OVER: Final = "This was shown already, or too long ago. Send the invitation again for new codes."
_PROBABLE: Final = 0.6
_LONGEST: Final = 200
_HANDLE: Final = re.compile(r"[A-Za-z0-9_-]{24}")
_TASK: Final = re.compile(r"[A-Za-z0-9.-]{1,64}")


class InvitationPages:
    """The form of an invitation, and what is done with one that was made."""

    def __init__(self, desk: Desk, patients: PatientPages, once: ShownOnce) -> None:
        self._desk = desk
        self._patients = patients
        self._once = once

    def routes(self) -> Sequence[tuple[str, str, Handler]]:
        """Path, method and handler of each page."""
        at = f"{FIND}/{{patient}}"
        return (
            (f"{at}/invite/{{kind}}", "GET", desk_page(self.show, back=FIND)),
            (f"{at}/invite/{{kind}}", "POST", desk_page(self.invite, back=FIND)),
            (f"{at}/prove/{{related}}", "POST", desk_page(self.prove, back=FIND)),
            (f"{at}/invitations/{{task}}/again", "POST", desk_page(self.again, back=FIND)),
            (f"{at}/invitations/{{task}}/back", "POST", desk_page(self.take_back, back=FIND)),
            (f"{at}/invitations/{{task}}/confirm", "POST", desk_page(self.confirm, back=FIND)),
            (f"{at}/invitations/{{task}}/print", "POST", desk_page(self.print, back=FIND)),
            (f"{SHOWN}/{{handle}}", "GET", desk_page(self.shown, back=FIND)),
        )

    # --- a new one -----------------------------------------------------------------------------

    async def show(self, request: Request) -> Response:
        here = await self._desk.at(request)
        return await self._form(here, request, [])

    async def invite(self, request: Request) -> Response:
        kind, own_id = request.path_params["kind"], request.path_params["patient"]
        here, pairs, form = await self._desk.posted(request, "invite", f"{own_id}/{kind}")
        patient = await self._patients.patient(here, request)
        people = await self._people(here, patient)
        try:
            answer = await self._desk.call(
                here,
                "portal-invite",
                f"Patient/{own_id}",
                *_asked(kind, pairs, form, people),
            )
        except (NotFound, Forbidden, Unauthenticated, Unavailable):
            raise
        except FhirError as error:
            return await self._form(here, request, pairs, problem=f"Not invited: {error}.")
        return await self._handed_out(here, own_id, patient, answer)

    async def prove(self, request: Request) -> Response:
        """Have somebody who acts for the patient prove again who they are; a grant goes on."""
        own_id, related = request.path_params["patient"], request.path_params["related"]
        here, _, _ = await self._desk.posted(request, "prove", f"{own_id}/{related}")
        patient = await self._patients.patient(here, request)
        if not _TASK.fullmatch(related):
            raise NotFound
        answer = await self._desk.call(
            here,
            "portal-invite",
            f"Patient/{own_id}",
            ("kind", "valueCode", "caregiver"),  # of whichever kind: it says nothing of the grant
            ("related-person", "valueReference", {"reference": f"RelatedPerson/{related}"}),
            ("channel", "valueCode", "desk"),
        )
        return await self._handed_out(here, own_id, patient, answer)

    async def _form(
        self, here: AtDesk, request: Request, pairs: Pairs, *, problem: str = ""
    ) -> Response:
        kind = next((one for one in get_args(Kind) if one == request.path_params["kind"]), None)
        if kind is None:
            raise NotFound
        if not here.calls("portal-invite"):
            raise Forbidden(f"the level '{here.staff.level}' does not let its holders invite")
        patient = await self._patients.patient(here, request)
        own_id = patient["id"]
        given = defaultdict(str, reversed(pairs))
        preset = PRESETS.get(kind) if kind != "self" else None
        whose = ("subject", f"Patient/{own_id}")
        documents = []
        if kind != "self":
            documents = await self._desk.search_all(here, "DocumentReference", whose)
        return self._desk.page(
            here,
            "staff_invite.html",
            status=400 if problem else 200,
            problem=problem,
            patient=described(here, patient),
            same=await candidates(self._desk, here, patient, least=_PROBABLE)
            if kind == "self"
            else [],
            may_merge=here.calls("merge"),
            kind=kind,
            title=dict(KINDS)[kind],
            given=given,
            people=await self._people(here, patient) if kind != "self" else [],
            sections=[
                {
                    "code": code,
                    "title": title,
                    "see": ("see", code) in pairs if pairs else code in preset.see,
                    "act": ("act", code) in pairs if pairs else code in preset.act,
                    "may_act": code in preset.most_act,
                }
                for code, title in section_displays().items()
                if preset is not None and code in preset.most
            ],
            bases=BASES,
            documents=[(f"DocumentReference/{one['id']}", _title(here, one)) for one in documents],
            channels=CHANNELS,
            action=f"{FIND}/{own_id}/invite/{kind}",
            back=f"{FIND}/{own_id}",
            form_token=self._desk.form_token(here, "invite", f"{own_id}/{kind}"),
            key=given.get("key") or self._desk.new_key(),
        )

    async def _people(
        self, here: AtDesk, patient: Mapping[str, Any]
    ) -> list[tuple[str, str, Mapping[str, Any]]]:
        """Whom one may have in mind: related people first, then contacts of the record."""
        whose = ("patient", f"Patient/{patient['id']}")
        found = [
            (f"RelatedPerson/{one['id']}", name_of(one), one)
            for one in await self._desk.search_all(here, "RelatedPerson", whose)
            if one.get("active") is not False
        ]
        for number, contact in enumerate(patient.get("contact") or ()):
            if contact.get("name"):
                words = name_of({"name": [contact["name"]]})
                found.append((f"contact-{number}", f"{words} (contact on file)", contact))
        return found

    # --- one that was made ---------------------------------------------------------------------

    async def again(self, request: Request) -> Response:
        here, patient, form, target = await self._about(request, "again")
        answer = await self._desk.call(
            here,
            "invite-resend",
            target,
            ("channel", "valueCode", form.get("channel") or None),
            ("reason", "valueString", _text(form, "reason")),
        )
        return await self._handed_out(here, patient["id"], patient, answer)

    async def take_back(self, request: Request) -> Response:
        here, patient, form, target = await self._about(request, "back")
        await self._desk.call(
            here,
            "invite-revoke",
            target,
            ("reason", "valueString", _text(form, "reason") or "taken back by staff"),
            ("no-more", "valueBoolean", True if form.get("no_more") else None),
        )
        return redirect(f"{FIND}/{patient['id']}?done=back")

    async def confirm(self, request: Request) -> Response:
        """Confirm who used an invitation, by the number that their page shows."""
        here, patient, form, target = await self._about(request, "confirm")
        answer = await self._desk.call(
            here,
            "confirm-proxy",
            target,
            ("number", "valueString", _text(form, "number") or "-"),
            ("alone", "valueString", _text(form, "alone")),
        )
        done = "confirmed" if answer.value("told") else "confirmed-untold"
        return redirect(f"{FIND}/{patient['id']}?done={done}")

    async def print(self, request: Request) -> Response:
        here, _, form, target = await self._about(request, "print")
        answer = await self._desk.call(
            here,
            "print-instructions",
            target,
            ("format", "valueCode", form.get("format") or None),
            ("language", "valueCode", form.get("language") or None),
            ("large-print", "valueBoolean", True if form.get("large") else None),
        )
        handle = await self._once.keep(
            here.browser,
            {
                "sheet": base64.b64decode(answer.tree["data"]),
                "type": answer.tree["contentType"],
            },
        )
        return redirect(f"{SHOWN}/{handle}")

    async def shown(self, request: Request) -> Response:
        here = await self._desk.at(request)
        handle = request.path_params["handle"]
        kept = None
        if request.method == "GET" and _HANDLE.fullmatch(handle):
            kept = await self._once.take(here.browser, handle)
        if kept is None:
            return page("problem.html", status=410, message=_OVER, back=FIND)
        if "sheet" in kept:
            if kept["type"].startswith("text/html"):
                return printed(kept["sheet"])
            return download(kept["sheet"], "instructions.pdf", "application/pdf")
        return self._desk.page(here, "staff_handed_out.html", **kept)

    async def _about(
        self, request: Request, action: str
    ) -> tuple[AtDesk, Mapping[str, Any], dict[str, str], str]:
        """Who sent a form about an invitation; that has to be of the patient in the address."""
        own_id, task = request.path_params["patient"], request.path_params["task"]
        here, _, form = await self._desk.posted(request, f"invitation-{action}", f"{own_id}/{task}")
        patient = await self._patients.patient(here, request)
        if not _TASK.fullmatch(task):
            raise NotFound
        found = await self._desk.ask(here, "read", "Task", task)
        if (found.tree.get("for") or {}).get("reference") != f"Patient/{own_id}":
            raise NotFound
        return here, patient, form, f"Task/{task}"

    async def _handed_out(
        self, here: AtDesk, own_id: str, patient: Mapping[str, Any], answer: Answer
    ) -> Response:
        """Show what is to be handed over, once; or go back where there is nothing."""
        code, link = answer.value("security-code"), answer.value("link")
        if not (code or link):
            return redirect(f"{FIND}/{own_id}?done=invited")
        task = str(answer.value("invitation")["reference"]).partition("/")[2]
        handle = await self._once.keep(
            here.browser,
            {
                "patient": described(here, patient),
                "back": f"{FIND}/{own_id}",
                "link": link,
                "code": code,
                "portal_id": answer.value("portal-id"),
                "word": answer.value("activation-word"),
                "expires": here.moment(answer.value("expires")),
                "print_at": f"{FIND}/{own_id}/invitations/{task}/print",
                "print_token": self._desk.form_token(here, "invitation-print", f"{own_id}/{task}"),
                "may_print": here.calls("print-instructions"),
            },
        )
        return redirect(f"{SHOWN}/{handle}")


def _asked(
    kind: str,
    pairs: Pairs,
    form: Mapping[str, str],
    people: Sequence[tuple[str, str, Mapping[str, Any]]],
) -> list[tuple[str, str, Any]]:
    """What the form asks for, as parameters of ``$portal-invite``."""
    asked: list[tuple[str, str, Any]] = [
        ("kind", "valueCode", kind),
        ("channel", "valueCode", form.get("channel") or None),
        ("contact", "valueString", _text(form, "contact")),
        ("reason", "valueString", _text(form, "reason")),
        ("idempotency-key", "valueString", _text(form, "key")),
    ]
    if kind == "self":
        return asked
    who = form.get("who", "")
    chosen = next((tree for value, _, tree in people if value == who), None)
    if chosen is not None and who.startswith("RelatedPerson/"):
        asked.append(("related-person", "valueReference", {"reference": who}))
    elif chosen is not None:
        asked.append(("name", "valueHumanName", chosen["name"]))
        relationship = next(iter(chosen.get("relationship") or ()), None)
        asked.append(("relationship", "valueCodeableConcept", relationship))
        asked += [("telecom", "valueContactPoint", one) for one in chosen.get("telecom") or ()]
    else:
        asked += _somebody_new(form)
    for code in (value for name, value in pairs if name == "see"):
        parts: list[dict[str, Any]] = [{"name": "code", "valueCode": code}]
        if ("act", code) in pairs:
            parts.append({"name": "act", "valueBoolean": True})
        asked.append(("section", "part", parts))
    period = {name: form[name] for name in ("start", "end") if form.get(name)}
    return [
        *asked,
        ("period", "valuePeriod", period or None),
        ("basis", "valueCode", form.get("basis") or None),
        ("evidence", "valueReference", _reference(form.get("evidence"))),
        ("force", "valueBoolean", True if form.get("force") else None),
    ]


def _somebody_new(form: Mapping[str, str]) -> list[tuple[str, str, Any]]:
    given, family = _text(form, "given"), _text(form, "family")
    name: dict[str, Any] = {}
    if family:
        name["family"] = family
    if given:
        name["given"] = given.split()
    relationship = _text(form, "relationship")
    return [
        ("name", "valueHumanName", name or None),
        ("relationship", "valueCodeableConcept", {"text": relationship} if relationship else None),
        *(
            ("telecom", "valueContactPoint", {"system": system, "value": value})
            for system, value in (("email", _text(form, "mail")), ("sms", _text(form, "mobile")))
            if value
        ),
    ]


def _reference(text: str | None) -> dict[str, str] | None:
    return {"reference": text} if text else None


def _text(form: Mapping[str, str], name: str) -> str | None:
    return form.get(name, "").strip()[: _LONGEST + 1] or None


def _title(here: AtDesk, document: Mapping[str, Any]) -> str:
    words = document.get("description") or (document.get("type") or {}).get("text") or "Document"
    when = here.moment(document.get("date"))
    return f"{words}, {when}" if when else str(words)
