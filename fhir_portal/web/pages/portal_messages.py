"""The portal's pages about messages: conversations, a new one, answers, files and drafts."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response

from fhir_portal.fhir.errors import FhirError, Invalid, NotFound, TooLarge, Unprocessable
from fhir_portal.web.downloads import while_allowed
from fhir_portal.web.form import parse_pairs
from fhir_portal.web.pages.form_key import identifier_of
from fhir_portal.web.pages.message_parts import files_of, lines_of
from fhir_portal.web.pages.portal import MESSAGES, AtPortal, PatientRoom, portal_page
from fhir_portal.web.pages.refusals import Handler
from fhir_portal.web.pages.render import attached, redirect
from fhir_portal.web.upload_form import attachments_of

NEW: Final = f"{MESSAGES}/new"
THREAD: Final = f"{MESSAGES}/thread"
FILE: Final = f"{MESSAGES}/file"
COUNT: Final = 50
_ID: Final = re.compile(r"[A-Za-z0-9.-]{1,64}")
_NUMBER: Final = re.compile(r"[1-9]")
_FROM: Final = re.compile(r"[0-9]{1,3}")
_LONGEST: Final = 10_000
_STATES: Final[Mapping[str, str]] = {
    "in-progress": "waits for the practice",
    "on-hold": "the practice wrote last",
    "completed": "closed",
}
_DONE: Final[Mapping[str, str]] = {
    "send": "Your message was sent.",
    "reply": "Your answer was sent.",
    "close": "The conversation is closed.",
    "reopen": "The conversation is open again.",
    "draft": "Your draft is kept. Nobody but you sees it.",
    "discard": "The draft is gone.",
}


class PortalMessagePages:
    """The list, a conversation, a new one, and what came with messages."""

    def __init__(self, room: PatientRoom) -> None:
        self._room = room

    def routes(self) -> Sequence[tuple[str, str, Handler]]:
        """Path, method and handler of each page."""
        return (
            (MESSAGES, "GET", portal_page(self.show)),
            (MESSAGES, "POST", portal_page(self.search, back=MESSAGES)),
            (NEW, "GET", portal_page(self.show_new, back=MESSAGES)),
            (NEW, "POST", portal_page(self.send, back=MESSAGES)),
            (f"{THREAD}/{{thread}}", "GET", portal_page(self.show_one, back=MESSAGES)),
            (f"{THREAD}/{{thread}}", "POST", portal_page(self.act, back=MESSAGES)),
            (f"{FILE}/{{message}}/{{number}}", "GET", portal_page(self.file, back=MESSAGES)),
            (f"{FILE}/{{message}}/{{number}}/small", "GET", portal_page(self.small, back=MESSAGES)),
        )

    # --- the list ------------------------------------------------------------------------------

    async def show(self, request: Request) -> Response:
        here = await self._room.at(request)
        query = dict(parse_pairs(request.scope["query_string"]))
        return await self._list(here, "", 0, done=_DONE.get(query.get("done", ""), ""))

    async def search(self, request: Request) -> Response:
        """Find words; they stand in no address."""
        here, form = await self._room.posted(request, MESSAGES)
        start = form.get("from", "")
        text = " ".join(form.get("text", "").split())[:100]
        return await self._list(here, text, int(start) if _FROM.fullmatch(start) else 0)

    async def _list(self, here: AtPortal, text: str, start: int, *, done: str = "") -> Response:
        found = await self._room.call(
            here,
            "threads",
            "Communication",
            ("text", "valueString", text or None),
            ("count", "valueInteger", COUNT),
            ("from", "valueInteger", start),
        )
        total = int(str(found.value("total")))
        begun = await self._room.call(here, "drafts", "Communication")
        return self._room.page(
            here,
            "portal_messages.html",
            done=done,
            action=MESSAGES,
            form_token=self._room.form_token(here, MESSAGES),
            text=text,
            total=total,
            unread=int(str(found.value("unread") or 0)),
            threads=[
                {
                    "address": f"{THREAD}/{_id_of(one['what'])}",
                    "subject": one["subject"],
                    "topic": one.get("topic") or "",
                    "status": _STATES.get(one["status"], one["status"]),
                    "unread": int(str(one.get("unread") or 0)),
                    "due": here.moment(one.get("answer-by")),
                    "confidential": one.get("confidential") is True,
                    "last": here.moment(one["last"]),
                }
                for one in found.values("thread")
            ],
            more=start + COUNT if total > start + COUNT else 0,
            drafts=[
                (_draft_address(one), here.moment(one["meta"]["lastUpdated"]))
                for one in begun.values("draft")
            ],
            new=NEW if here.acts("messages") else "",
        )

    # --- a new one -----------------------------------------------------------------------------

    async def show_new(self, request: Request) -> Response:
        here = await self._room.at(request)
        query = dict(parse_pairs(request.scope["query_string"]))
        draft = await self._draft(here, query.get("draft", ""))
        return await self._new(here, draft)

    async def send(self, request: Request) -> Response:
        """Send a first message, or keep it as a draft, or throw the draft away."""
        here, form, files = await self._room.received(request, NEW)
        do = form.get("do", "")
        to = form.get("to", "")
        topic = to.removeprefix("topic:") if to.startswith("topic:") else None
        person = to if to.startswith(("Practitioner/", "PractitionerRole/")) else None
        address = (
            ("topic", "valueCode", topic or None),
            ("recipient", "valueReference", {"reference": person} if person else None),
        )
        words = (
            ("subject", "valueString", form.get("subject") or None),
            ("text", "valueString", form.get("text") or None),
        )
        draft = ("draft", "valueId", form.get("draft") or None)
        try:
            if do == "discard":
                await self._room.call(here, "discard-draft", "Communication", draft)
            elif do == "draft":
                await self._room.call(here, "save-draft", "Communication", draft, *address, *words)
            else:
                read = form.get("read") == "yes"
                confidential = form.get("confidential") == "yes"
                sent = await self._room.call(
                    here,
                    "send",
                    "Communication",
                    ("identifier", "valueIdentifier", identifier_of(form)),
                    *address,
                    *words,
                    draft,
                    ("warning", "valueCode", form.get("warning") if read else None),
                    ("confidential", "valueBoolean", True if confidential else None),
                    *attachments_of(files),
                )
                return redirect(f"{THREAD}/{_id_of(sent.value('thread'))}?done=send")
        except (Invalid, Unprocessable, TooLarge) as error:
            return await self._new(here, form, problem=_words(error))
        return redirect(f"{MESSAGES}?done={do}")

    async def _new(
        self, here: AtPortal, given: Mapping[str, str], *, problem: str = ""
    ) -> Response:
        options = await self._room.call(here, "message-options", "Communication")
        choices = [
            (f"topic:{one['code']}", one["name"], _hours(one["answer-hours"]))
            for one in options.values("topic")
        ]
        people = [
            (one["who"]["reference"], one["who"].get("display") or "", one.get("away") or "")
            for one in options.values("person")
        ]
        return self._room.page(
            here,
            "portal_new_message.html",
            status=400 if problem else 200,
            problem=problem,
            action=NEW,
            form_token=self._room.form_token(here, NEW),
            key=self._room.new_key(),
            warning=options.value("warning"),
            warning_code=options.value("warning-code"),
            present=options.value("staff-present") is True,
            topics=choices,
            people=people,
            own=here.auth.is_self,
            files=int(str(options.value("most-files"))),
            megabytes=int(str(options.value("file-bytes"))) // (1024 * 1024),
            given={
                name: given.get(name, "")[:_LONGEST]
                for name in ("to", "subject", "text", "draft", "confidential")
            },
        )

    async def _draft(self, here: AtPortal, own_id: str) -> dict[str, str]:
        if not own_id:
            return {}
        found = await self._room.call(here, "drafts", "Communication")
        for one in found.values("draft"):
            if one["id"] == own_id and "partOf" not in one:
                return {**_begun(one), "draft": own_id}
        raise NotFound("there is no such draft")

    # --- a conversation ------------------------------------------------------------------------

    async def show_one(self, request: Request) -> Response:
        """Show it. Who opens it has read it."""
        here = await self._room.at(request)
        target = _target(request, "thread")
        done = _DONE.get(request.query_params.get("done", ""), "")
        shown = await self._thread(here, target, done=done)
        await self._room.call(here, "mark-read", target)
        return shown

    async def act(self, request: Request) -> Response:
        """Answer, close or open again: one button each."""
        target = _target(request, "thread")
        here, form, files = await self._room.received(request, THREAD, target)
        do = form.get("do", "")
        try:
            if do == "reply":
                await self._room.call(
                    here,
                    "reply",
                    target,
                    ("identifier", "valueIdentifier", identifier_of(form)),
                    ("text", "valueString", form.get("text") or None),
                    *attachments_of(files),
                )
            elif do in {"close", "reopen"}:
                await self._room.call(here, do, target)
            else:
                raise NotFound("there is no such button")
        except (Invalid, Unprocessable, TooLarge) as error:
            text = form.get("text", "")
            return await self._thread(here, target, problem=_words(error), text=text)
        return redirect(f"{THREAD}/{target.partition('/')[2]}?done={do}")

    async def _thread(
        self, here: AtPortal, target: str, *, done: str = "", problem: str = "", text: str = ""
    ) -> Response:
        found = await self._room.call(here, "thread", target)
        tree, messages = found.value("thread"), found.values("message")
        names = await self._names(here, [one.get("sender") for one in messages])
        own_id = target.partition("/")[2]
        read = [
            here.moment(one["upto"])
            for one in found.values("read")
            if one["who"]["reference"].startswith("Practitioner/")
        ]
        return self._room.page(
            here,
            "portal_thread.html",
            status=400 if problem else 200,
            done=done,
            problem=problem,
            action=f"{THREAD}/{own_id}",
            form_token=self._room.form_token(here, THREAD, target),
            key=self._room.new_key(),
            subject=(tree.get("payload") or [{}])[0].get("contentString") or "(no subject)",
            topic=(tree.get("topic") or {}).get("text") or "",
            state=_STATES.get(tree["status"], tree["status"]),
            closed=tree["status"] not in {"in-progress", "on-hold"},
            confidential=bool((tree.get("meta") or {}).get("security")),
            messages=[self._message(here, one, names) for one in messages],
            more=found.value("more") is True,
            read=max(read, default=""),
            acts=here.acts("messages"),
            text=text[:_LONGEST],
            back=MESSAGES,
        )

    @staticmethod
    def _message(
        here: AtPortal, one: Mapping[str, Any], names: Mapping[str, str]
    ) -> dict[str, Any]:
        return {
            "from": here.called(one.get("sender") or {}, names),
            "when": here.moment(one.get("sent")),
            "taken_back": one.get("status") == "entered-in-error",
            "lines": lines_of(one),
            "files": [
                {
                    "name": file.name,
                    "address": f"{FILE}/{one['id']}/{file.number}",
                    "small": f"{FILE}/{one['id']}/{file.number}/small" if file.has_small else "",
                }
                for file in files_of(one)
            ],
        }

    async def _names(
        self, here: AtPortal, senders: Sequence[Mapping[str, Any] | None]
    ) -> Mapping[str, str]:
        """Names of those of the practice who wrote: they are seen with what they wrote."""
        prefix = "Practitioner/"
        references = [str((one or {}).get("reference") or "") for one in senders]
        wanted = sorted({one.removeprefix(prefix) for one in references if one.startswith(prefix)})
        return await self._room.names_of(here, wanted) if wanted else {}

    # --- files ---------------------------------------------------------------------------------

    async def file(self, request: Request) -> Response:
        return await self._content(request, small=False)

    async def small(self, request: Request) -> Response:
        return await self._content(request, small=True)

    async def _content(self, request: Request, *, small: bool) -> Response:
        here = await self._room.at(request)
        number = request.path_params["number"]
        if not _NUMBER.fullmatch(number):
            raise NotFound("there is no such file")
        found = await self._room.call(
            here,
            "attachment",
            _target(request, "message"),
            ("number", "valueInteger", int(number)),
            ("small", "valueBoolean", True if small else None),
        )
        content = base64.b64decode(found.tree["data"])
        answer = attached(content, f"file-{number}", str(found.tree["contentType"]))
        return while_allowed(self._room.downloads, here.auth, answer)


def _begun(draft: Mapping[str, Any]) -> dict[str, str]:
    payload = [str(one.get("contentString") or "") for one in draft.get("payload") or ()]
    given = {"text": payload[-1] if payload else ""}
    if len(payload) > 1:
        given["subject"] = payload[0]
    for coding in (draft.get("topic") or {}).get("coding") or ():
        given["to"] = f"topic:{coding.get('code')}"
    for one in draft.get("recipient") or ():
        given["to"] = str(one.get("reference") or "")
    return given


def _draft_address(draft: Mapping[str, Any]) -> str:
    thread = next((one.get("reference") or "" for one in draft.get("partOf") or ()), "")
    if thread:
        return f"{THREAD}/{thread.partition('/')[2]}"
    return f"{NEW}?draft={draft['id']}"


def _hours(hours: Any) -> str:
    count = int(str(hours))
    if count % 24 == 0:
        return f"an answer within {count // 24} working day{'s' if count > 24 else ''}"  # noqa: PLR2004
    return f"an answer within {count} hour{'s' if count > 1 else ''} of working days"


def _id_of(reference: Mapping[str, Any]) -> str:
    return str(reference["reference"]).partition("/")[2]


def _target(request: Request, name: str) -> str:
    own_id = request.path_params[name]
    if not _ID.fullmatch(own_id):
        raise NotFound("there is nothing at this address")
    return f"Communication/{own_id}"


def _words(error: FhirError) -> str:
    words = "; ".join(one.diagnostics for one in error.issues if one.diagnostics)
    return f"{words[:1].upper()}{words[1:]}."
