"""The inbox of staff: what waits for an answer, a conversation, and what can be done with it."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response

from fhir_portal.accounts.messaging import messaging_of
from fhir_portal.fhir.errors import FhirError, Forbidden, Invalid, NotFound, Unprocessable
from fhir_portal.operations.assign import answering_staff
from fhir_portal.web.downloads import while_allowed
from fhir_portal.web.form import parse_pairs
from fhir_portal.web.pages.desk import FIND, INBOX, AtDesk, Desk, desk_page
from fhir_portal.web.pages.form_key import identifier_of
from fhir_portal.web.pages.message_parts import files_of, lines_of
from fhir_portal.web.pages.refusals import Handler
from fhir_portal.web.pages.render import attached, redirect

COUNT: Final = 50
_ID: Final = re.compile(r"[A-Za-z0-9.-]{1,64}")
_NUMBER: Final = re.compile(r"[1-9]")
_FROM: Final = re.compile(r"[0-9]{1,3}")
_LONGEST: Final = 10_000
_STATES: Final[Mapping[str, str]] = {
    "in-progress": "waits for an answer",
    "on-hold": "answered",
    "completed": "closed",
}
_SHOWN: Final = (
    ("", "Waiting for an answer"),
    ("on-hold", "Answered"),
    ("completed", "Closed"),
    ("all", "All"),
)
_WHOSE: Final = (("", "Everybody's"), ("me", "Mine"), ("nobody", "Nobody's yet"))
_DONE: Final[Mapping[str, str]] = {
    "reply": "Your answer was sent.",
    "send": "Your message was sent.",
    "close": "The conversation is closed.",
    "reopen": "The conversation is open again.",
    "assign": "It was given on.",
    "file": "The file is in the chart now.",
}


class InboxPages:
    """The list, a conversation, its buttons, and the files that came with messages."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def routes(self) -> Sequence[tuple[str, str, Handler]]:
        """Path, method and handler of each page."""
        return (
            (INBOX, "GET", desk_page(self.show)),
            (INBOX, "POST", desk_page(self.search, back=INBOX)),
            (f"{INBOX}/to/{{patient}}", "GET", desk_page(self.show_new, back=FIND)),
            (f"{INBOX}/to/{{patient}}", "POST", desk_page(self.send, back=FIND)),
            (f"{INBOX}/{{thread}}", "GET", desk_page(self.show_one, back=INBOX)),
            (f"{INBOX}/{{thread}}", "POST", desk_page(self.act, back=INBOX)),
            (f"{INBOX}/{{message}}/file/{{number}}", "GET", desk_page(self.file, back=INBOX)),
            (f"{INBOX}/{{message}}/small/{{number}}", "GET", desk_page(self.small, back=INBOX)),
        )

    # --- the list ------------------------------------------------------------------------------

    async def show(self, request: Request) -> Response:
        here = await self._desk.at(request)
        return await self._list(here, dict(parse_pairs(request.scope["query_string"])))

    async def search(self, request: Request) -> Response:
        """Find words; they stand in no address."""
        here, _, form = await self._desk.posted(request, INBOX)
        return await self._list(here, form)

    async def _list(self, here: AtDesk, asked: Mapping[str, str]) -> Response:
        status, assigned = asked.get("status", ""), asked.get("assigned", "")
        topic, text = asked.get("topic", ""), " ".join(asked.get("text", "").split())
        start = asked.get("from", "")
        start_at = int(start) if _FROM.fullmatch(start) else 0
        practice = await messaging_of(self._desk.store, here.session.practice)
        topics = [("", "All topics"), *((one.code, one.name) for one in practice.topics)]
        problem = ""
        if status not in dict(_SHOWN) or assigned not in dict(_WHOSE) or topic not in dict(topics):
            problem = "Choose from the lists."
            status, assigned, topic = "", "", ""
        found = await self._desk.call(
            here,
            "threads",
            "Communication",
            ("status", "valueCode", status or None),
            ("assigned", "valueCode", assigned or None),
            ("topic", "valueCode", topic or None),
            ("text", "valueString", text[:100] or None),
            ("count", "valueInteger", COUNT),
            ("from", "valueInteger", start_at),
        )
        threads = found.values("thread")
        people = await self._names(here, [one.get("assigned") for one in threads])
        total = int(str(found.value("total")))
        return self._desk.page(
            here,
            "staff_inbox.html",
            status=400 if problem else 200,
            problem=problem,
            action=INBOX,
            form_token=self._desk.form_token(here, INBOX),
            threads=[self._line(here, one, people) for one in threads],
            total=total,
            asked={"status": status, "assigned": assigned, "topic": topic, "text": text[:100]},
            shown=_SHOWN,
            whose=_WHOSE,
            topics=topics,
            more=start_at + COUNT if total > start_at + COUNT else 0,
        )

    @staticmethod
    def _line(here: AtDesk, one: Mapping[str, Any], people: Mapping[str, str]) -> dict[str, Any]:
        patient = one.get("patient") or {}
        return {
            "address": f"{INBOX}/{one['what']['reference'].partition('/')[2]}",
            "subject": one["subject"],
            "patient": patient.get("display") or "name not recorded",
            "topic": one.get("topic") or "",
            "status": _STATES.get(one["status"], one["status"]),
            "assigned": _named(one.get("assigned"), people),
            "due": here.moment(one.get("answer-by")),
            "overdue": one.get("overdue") is True,
            "confidential": one.get("confidential") is True,
            "last": here.moment(one["last"]),
        }

    # --- a conversation ------------------------------------------------------------------------

    async def show_one(self, request: Request) -> Response:
        """Show it. Who opens it has read it."""
        here = await self._desk.at(request)
        target = _target(request, "thread")
        done = _DONE.get(request.query_params.get("done", ""), "")
        shown = await self._thread(here, target, done=done)
        await self._desk.call(here, "mark-read", target)
        return shown

    async def act(self, request: Request) -> Response:
        """Answer, close, open again, give on, or file a photo: one button each."""
        target = _target(request, "thread")
        here, _, form = await self._desk.posted(request, INBOX, target)
        do = form.get("do", "")
        text = form.get("text", "")
        try:
            await self._do(here, do, target, form)
        except (Invalid, Unprocessable) as error:
            return await self._thread(here, target, problem=_words(error), text=text, status=400)
        return redirect(f"{INBOX}/{target.partition('/')[2]}?done={do}")

    async def _do(self, here: AtDesk, do: str, target: str, form: Mapping[str, str]) -> None:
        if do == "reply":
            await self._desk.call(
                here,
                "reply",
                target,
                ("identifier", "valueIdentifier", identifier_of(form)),
                ("text", "valueString", form.get("text", "").replace("\r\n", "\n") or None),
            )
        elif do in {"close", "reopen"}:
            await self._desk.call(here, do, target)
        elif do == "assign":
            await self._assign(here, target, form)
        elif do == "file":
            message = f"Communication/{_checked(form.get('message', ''))}"
            number = form.get("number", "")
            if not _NUMBER.fullmatch(number):
                raise NotFound("there is no such file")
            await self._desk.call(
                here, "file-attachment", message, ("number", "valuePositiveInt", int(number))
            )
        else:
            raise Invalid("there is no such button")

    async def _assign(self, here: AtDesk, target: str, form: Mapping[str, str]) -> None:
        to = form.get("to", "")
        await self._desk.call(
            here,
            "assign",
            target,
            ("to", "valueReference", {"reference": to} if to else None),
            ("topic", "valueCode", form.get("topic") or None),
        )

    async def _thread(
        self,
        here: AtDesk,
        target: str,
        *,
        done: str = "",
        problem: str = "",
        text: str = "",
        status: int = 200,
    ) -> Response:
        found = await self._desk.call(here, "thread", target)
        thread, messages = found.value("thread"), found.values("message")
        practice = here.session.practice
        staff = await answering_staff(self._desk.portal.server.store, practice)
        read = [
            one for one in found.values("read") if one["who"]["reference"] != here.staff.fhir_user
        ]
        everybody = [
            *(one.get("sender") for one in messages),
            *(thread.get("recipient") or ()),
            *({"reference": one} for one in staff),
            *(one["who"] for one in read),
        ]
        people = await self._names(here, everybody)
        patient = found.value("patient") or {}
        whose = patient.get("display") or "the patient"
        own = thread["subject"]["reference"]
        assigned = next(iter(thread.get("recipient") or ()), None)
        topics = (await messaging_of(self._desk.store, practice)).topics
        own_id = target.partition("/")[2]
        return self._desk.page(
            here,
            "staff_thread.html",
            status=status,
            done=done,
            problem=problem,
            action=f"{INBOX}/{own_id}",
            form_token=self._desk.form_token(here, INBOX, target),
            key=self._desk.new_key(),
            subject=(thread.get("payload") or [{}])[0].get("contentString") or "(no subject)",
            state=_STATES.get(thread["status"], thread["status"]),
            closed=thread["status"] not in {"in-progress", "on-hold"},
            patient=whose,
            record=f"{FIND}/{own.partition('/')[2]}" if here.may("view") else "",
            confidential=bool((thread.get("meta") or {}).get("security")),
            topic=(thread.get("topic") or {}).get("text") or "",
            assigned=_named(assigned, people),
            assigned_to=(assigned or {}).get("reference") or "",
            staff=[(one, people.get(one, one)) for one in staff],
            topics=[(one.code, one.name) for one in topics],
            messages=[self._message(here, one, people, own, whose) for one in messages],
            more=found.value("more") is True,
            read=[(_who(one["who"], people, own, whose), here.moment(one["upto"])) for one in read],
            files=here.calls("file-attachment"),
            text=text[:_LONGEST],
            back=INBOX,
        )

    @staticmethod
    def _message(
        here: AtDesk, one: Mapping[str, Any], people: Mapping[str, str], own: str, whose: str
    ) -> dict[str, Any]:
        sender = one.get("sender") or {}
        return {
            "id": one["id"],
            "from": _who(sender, people, own, whose),
            "ours": not str(sender.get("reference")).startswith(("Patient/", "RelatedPerson/")),
            "when": here.moment(one.get("sent")),
            "taken_back": one.get("status") == "entered-in-error",
            "lines": lines_of(one),
            "files": [
                {
                    "number": file.number,
                    "name": file.name,
                    "address": f"{INBOX}/{one['id']}/file/{file.number}",
                    "small": f"{INBOX}/{one['id']}/small/{file.number}" if file.has_small else "",
                }
                for file in files_of(one)
            ],
        }

    # --- a new one -----------------------------------------------------------------------------

    async def show_new(self, request: Request) -> Response:
        here = await self._desk.at(request)
        if not here.calls("send"):
            raise Forbidden("this access level does not hold 'messages'")
        return self._new(here, request.path_params["patient"])

    async def send(self, request: Request) -> Response:
        """Begin a conversation with a patient."""
        patient = _checked(request.path_params["patient"])
        here, _, form = await self._desk.posted(request, INBOX, f"Patient/{patient}")
        form = {name: value.replace("\r\n", "\n") for name, value in form.items()}
        confidential = form.get("confidential") == "yes"
        try:
            sent = await self._desk.call(
                here,
                "send",
                "Communication",
                ("patient", "valueReference", {"reference": f"Patient/{patient}"}),
                ("identifier", "valueIdentifier", identifier_of(form)),
                ("subject", "valueString", form.get("subject") or None),
                ("text", "valueString", form.get("text") or None),
                ("confidential", "valueBoolean", True if confidential else None),
            )
        except (Invalid, Unprocessable) as error:
            return self._new(here, patient, problem=_words(error), form=form)
        own_id = sent.value("thread")["reference"].partition("/")[2]
        return redirect(f"{INBOX}/{own_id}?done=send")

    def _new(
        self,
        here: AtDesk,
        patient: str,
        *,
        problem: str = "",
        form: Mapping[str, str] | None = None,
    ) -> Response:
        patient, given = _checked(patient), form or {}
        return self._desk.page(
            here,
            "staff_new_message.html",
            status=400 if problem else 200,
            problem=problem,
            action=f"{INBOX}/to/{patient}",
            form_token=self._desk.form_token(here, INBOX, f"Patient/{patient}"),
            key=self._desk.new_key(),
            given={
                "subject": given.get("subject", "")[:_LONGEST],
                "text": given.get("text", "")[:_LONGEST],
                "confidential": given.get("confidential") == "yes",
            },
        )

    # --- files ---------------------------------------------------------------------------------

    async def file(self, request: Request) -> Response:
        return await self._content(request, small=False)

    async def small(self, request: Request) -> Response:
        return await self._content(request, small=True)

    async def _content(self, request: Request, *, small: bool) -> Response:
        here = await self._desk.at(request)
        number = request.path_params["number"]
        if not _NUMBER.fullmatch(number):
            raise NotFound("there is no such file")
        found = await self._desk.call(
            here,
            "attachment",
            _target(request, "message"),
            ("number", "valueInteger", int(number)),
            ("small", "valueBoolean", True if small else None),
        )
        content = base64.b64decode(found.tree["data"])
        answer = attached(content, f"file-{number}", str(found.tree["contentType"]))
        return while_allowed(self._desk.downloads, here.auth, answer)

    async def _names(
        self, here: AtDesk, people: Sequence[Mapping[str, Any] | None]
    ) -> Mapping[str, str]:
        references = [one.get("reference") for one in people if one]
        return await self._desk.names_of_staff(here, references)


def _named(who: Mapping[str, Any] | None, people: Mapping[str, str]) -> str:
    """Who is to answer, in words: a person, or the practice."""
    reference = (who or {}).get("reference") or ""
    if reference.startswith("Practitioner/"):
        return people.get(reference, "a member of staff")
    return str((who or {}).get("display") or "the practice")


def _who(who: Mapping[str, Any], people: Mapping[str, str], own: str, whose: str) -> str:
    reference = who.get("reference") or ""
    if reference == own:
        return whose
    if reference.startswith("RelatedPerson/"):
        return f"somebody who acts for {whose}"
    return _named(who, people)


def _target(request: Request, name: str) -> str:
    return f"Communication/{_checked(request.path_params[name])}"


def _checked(own_id: str) -> str:
    if not _ID.fullmatch(own_id):
        raise NotFound("there is nothing at this address")
    return own_id


def _words(error: FhirError) -> str:
    return "; ".join(one.diagnostics for one in error.issues if one.diagnostics)
