"""``/portal/sharing/send``: the summary or a document is sent to somebody outside."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response

from fhir_portal.accounts.policy import policy_of
from fhir_portal.fhir.errors import Conflict, FhirError, Forbidden
from fhir_portal.web.form import Pairs, parse_pairs
from fhir_portal.web.pages.browser import posted
from fhir_portal.web.pages.portal import SHARING, AtPortal, PatientRoom, portal_page
from fhir_portal.web.pages.portal_sharing import (
    NEW,
    SECTION,
    SENT,
    documents_of,
    parts_of,
    sentence,
    value_of,
)
from fhir_portal.web.pages.refusals import Handler
from fhir_portal.web.pages.render import redirect
from fhir_portal.web.pages.shown_once import ShownOnce

SEND: Final = f"{SHARING}/send"
SUMMARY: Final = "summary"
WAYS: Final[Mapping[str, tuple[str, str]]] = {
    "link": (
        "By a link in a mail",
        "Nothing about the record is in the mail. You tell the passcode.",
    ),
    "email": ("By plain mail, as files", "Not encrypted: read the warning below first."),
    "direct": (
        "By Direct, as files",
        "Encrypted mail between practices. It needs a Direct address.",
    ),
    "endpoint": (
        "From system to system",
        "Straight into the system of an organization in the list.",
    ),
}
_LONGEST_NAME: Final = 100


class SendingPages:
    """The pages about sending what is in the record that is open."""

    def __init__(self, room: PatientRoom, once: ShownOnce) -> None:
        self._room = room
        self._once = once

    def routes(self) -> Sequence[tuple[str, str, Handler]]:
        """Path, method and handler of each page."""
        return (
            (SEND, "GET", portal_page(self.show, back=SHARING)),
            (SEND, "POST", portal_page(self.send, back=SEND)),
            (f"{SENT}/{{handle}}", "GET", portal_page(self.show_sent, back=SHARING)),
        )

    async def show(self, request: Request) -> Response:
        """The form; with ``name`` those of the directory whose name begins so."""
        given = dict(parse_pairs(request.scope["query_string"]))
        return await self._form(await self._room.at(request), [], find=given.get("name", ""))

    async def send(self, request: Request) -> Response:
        """Have it sent, and lead on to the page that shows the passcode once."""
        pairs = await posted(request)
        here, form = await self._room.sent(request, pairs, SEND)
        try:
            answer = await self._room.call(
                here, "transmit", self._what(here, form), *self._given(form)
            )
        except (Forbidden, Conflict):
            raise
        except FhirError as error:
            return await self._form(here, pairs, problem=sentence(error))
        made = {one["name"]: value_of(one) for one in answer.tree["parameter"]}
        if "passcode" not in made:
            done = "again" if form.get("channel") == "link" else "sending"
            return redirect(f"{SHARING}?done={done}")
        return redirect(f"{SENT}/{await self._once.keep(here.browser, made['passcode'])}")

    @staticmethod
    def _what(here: AtPortal, form: Mapping[str, str]) -> str:
        what = form.get("what", SUMMARY)
        return here.session.patient if what == SUMMARY else f"DocumentReference/{what}"

    @staticmethod
    def _given(form: Mapping[str, str]) -> list[tuple[str, str, Any]]:
        way, who = form.get("channel") or "-", form.get("recipient", "")
        to = form.get("to", "").strip()
        version = form.get("warning") if way == "email" and form.get("accepted") == "yes" else None
        return [
            ("channel", "valueCode", way),
            ("to", "valueString", to or None),
            ("recipient", "valueReference", {"reference": who} if who else None),
            ("warning", "valueCode", version or None),
            ("idempotency-key", "valueString", form.get("key") or None),
        ]

    async def _form(
        self, here: AtPortal, pairs: Pairs, *, problem: str = "", find: str = ""
    ) -> Response:
        policy = await policy_of(self._room.store, here.session.practice)
        if not here.acts(SECTION) or not policy.sharing:
            return redirect(SHARING)
        form = dict(pairs)
        asked = (("name", "valueString", find.strip()[:_LONGEST_NAME] or None),)
        options = await self._room.call(here, "transmit-options", here.session.patient, *asked)
        told = options.tree["parameter"]
        offered = [value_of(one) for one in told if one["name"] == "channel"]
        chosen = form.get("channel", "link")
        return self._room.page(
            here,
            "portal_send.html",
            status=400 if problem else 200,
            problem=problem,
            action=SEND,
            back=SHARING,
            key=form.get("key") or self._room.new_key(),
            documents=await documents_of(self._room, here),
            own=here.auth.is_self,
            narrower=NEW,
            what=form.get("what", SUMMARY),
            ways=[(way, *WAYS[way], way == chosen) for way in offered if way in WAYS],
            warning=next((value_of(o) for o in told if o["name"] == "warning"), ""),
            version=next((value_of(o) for o in told if o["name"] == "warning-version"), ""),
            recipients=[
                (one["who"]["reference"], one["who"]["display"], _by(one["reached-by"]))
                for one in parts_of(options.tree, "recipient")
            ],
            find=find,
            to=form.get("to", ""),
            recipient=form.get("recipient", ""),
            form_token=self._room.form_token(here, SEND),
        )

    async def show_sent(self, request: Request) -> Response:
        """The passcode of a link that was sent, once."""
        here = await self._room.at(request)
        passcode = await self._once.take(here.browser, request.path_params["handle"])
        return self._room.page(
            here,
            "portal_sent.html",
            status=404 if passcode is None else 200,
            passcode=passcode or "",
            back=SHARING,
        )


def _by(ways: Sequence[str]) -> str:
    words = {"link": "mail", "email": "mail", "direct": "Direct", "endpoint": "system to system"}
    return ", ".join(dict.fromkeys(words[one] for one in ways if one in words))
