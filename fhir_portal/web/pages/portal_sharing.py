"""``/portal/sharing``: links that show part of the record: making one, who used it, ending it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

import segno
from starlette.requests import Request
from starlette.responses import Response

from fhir_portal.accounts.policy import policy_of
from fhir_portal.consent.sections import section_displays
from fhir_portal.fhir.datetime import instant
from fhir_portal.fhir.errors import Conflict, FhirError, Forbidden
from fhir_portal.operations.share_link import LONGEST_LABEL, MOST_DOCUMENTS, USUAL_DAYS
from fhir_portal.operations.shared_files import title_of
from fhir_portal.smart.sharing import DAY
from fhir_portal.web.form import Pairs, parse_pairs
from fhir_portal.web.pages.browser import posted
from fhir_portal.web.pages.portal import SHARING, AtPortal, PatientRoom, portal_page
from fhir_portal.web.pages.refusals import Handler
from fhir_portal.web.pages.render import redirect
from fhir_portal.web.pages.shown_once import ShownOnce

SECTION: Final = "documents"
NEW: Final = f"{SHARING}/new"
MADE: Final = f"{SHARING}/made"
END: Final = f"{SHARING}/end"
SENT: Final = f"{SHARING}/sent"
_MOST_SHOWN: Final = 50
_MICROSECONDS: Final = 1_000_000
_LASTS: Final = ((1, "1 day"), (7, "1 week"), (30, "30 days"), (90, "90 days"), (365, "1 year"))
_STATES: Final[Mapping[str, str]] = {
    "active": "Works",
    "expired": "Its time is over",
    "ended": "Ended",
}
_DONE: Final[Mapping[str, str]] = {
    "ended": "The link was ended. It shows nothing any more.",
    "again": "This was sent already. If you did not see the passcode, end the link and send anew.",
    "sending": "It is being sent. Look below for how it goes.",
}
_SENDING: Final[Mapping[str, str]] = {
    "requested": "Waits to be sent",
    "in-progress": "Is being sent",
    "completed": "Sent",
    "failed": "Did not arrive",
    "cancelled": "Not sent",
}
_BY: Final[Mapping[str, str]] = {
    "link": "a link by mail",
    "email": "plain mail",
    "direct": "Direct",
    "endpoint": "system to system",
}
_NO_SECTION: Final = "Choose of which parts of the record: at least one."
_GONE: Final = (
    "Link and passcode are shown once, and were shown already. If you did not keep them, end the "
    "link and make another one."
)


class SharingPages:
    """The pages about links of the record that is open."""

    def __init__(self, room: PatientRoom, once: ShownOnce) -> None:
        self._room = room
        self._once = once

    def routes(self) -> Sequence[tuple[str, str, Handler]]:
        """Path, method and handler of each page."""
        return (
            (SHARING, "GET", portal_page(self.show)),
            (NEW, "GET", portal_page(self.show_new, back=SHARING)),
            (NEW, "POST", portal_page(self.make, back=NEW)),
            (f"{MADE}/{{handle}}", "GET", portal_page(self.show_made, back=SHARING)),
            (END, "POST", portal_page(self.end, back=SHARING)),
        )

    async def show(self, request: Request) -> Response:
        """The links, the latest first, with who used them."""
        here = await self._room.at(request)
        given = dict(parse_pairs(request.scope["query_string"]))
        found = (await self._room.call(here, "share-links", _patient(here))).tree
        views: dict[str, list[str]] = {}
        for one in parts_of(found, "view"):
            how = "in an app" if one["way"] == "app" else "in a browser"
            often = f" ({one['times']} times that day)" if one["times"] > 1 else ""
            if "recipient" not in one:
                often = f", {one['times']} times: more than are listed, this was the last"
            views.setdefault(one["link"], []).append(
                f"{here.moment(one['at'])}: {one.get('recipient', 'others')}, {how}{often}"
            )
        lines = [self._line(here, one, views) for one in parts_of(found, "link")]
        policy = await policy_of(self._room.store, here.session.practice)
        sent = (await self._room.call(here, "transmissions", _patient(here))).tree
        return self._room.page(
            here,
            "portal_sharing.html",
            sent=[
                {
                    "to": one["to"],
                    "state": _SENDING[one["status"]],
                    "reason": one.get("reason", ""),
                    "by": _BY[one["channel"]],
                    "what": "the summary"
                    if one["what"]["reference"] == _patient(here)
                    else "a document",
                    "when": here.moment(one["at"]),
                }
                for one in parts_of(sent, "transmission")
            ],
            send=f"{SHARING}/send",
            done=_DONE.get(given.get("done", ""), ""),
            new=NEW if here.acts(SECTION) and policy.sharing else "",
            off=not policy.sharing,
            now=[one for one in lines if one["works"]],
            over=[one for one in lines if not one["works"]],
            end=END,
            form_token=self._room.form_token(here, END),
        )

    def _line(
        self, here: AtPortal, one: Mapping[str, Any], views: Mapping[str, Sequence[str]]
    ) -> dict[str, Any]:
        displays = section_displays()
        shown = ["the summary"] if one["summary"] else []
        documents = len(one.get("document", ()))
        shown += [f"{documents} document{'s' if documents > 1 else ''}"] if documents else []
        days = [
            f"{word} {here.moment(one[name])}"
            for name, word in (("start", "from"), ("end", "to"))
            if one.get(name)
        ]
        return {
            "id": one["id"],
            "label": one.get("label") or "Link without a name",
            "works": one["status"] == "active",
            "state": _STATES[one["status"]],
            "mine": one["by"]["reference"] == here.session.fhir_user,
            "made": here.moment(one["made"]),
            "until": here.moment(one.get("ended") or one["expires"]),
            "shown": " and ".join(shown),
            "sections": [displays[code] for code in one.get("section", ()) if code in displays],
            "days": " ".join(days),
            "views": one["views"],
            "wrong": one["wrong-tries"],
            "listed": views.get(one["id"], ()),
        }

    # --- making one ----------------------------------------------------------------------------

    async def show_new(self, request: Request) -> Response:
        return await self._new(await self._room.at(request), [])

    async def make(self, request: Request) -> Response:
        """Make a link, and lead on to the page that shows it once."""
        pairs = await posted(request)
        here, form = await self._room.sent(request, pairs, NEW)
        if not any(name == "section" for name, _ in pairs):
            # The operation would take that for all of them: here each was unticked.
            return await self._new(here, pairs, problem=_NO_SECTION)
        try:
            answer = await self._room.call(here, "share-link", _patient(here),
                                           *self._given(form, pairs))  # fmt: skip
        except (Forbidden, Conflict):
            raise
        except FhirError as error:
            return await self._new(here, pairs, problem=sentence(error))
        made = {one["name"]: value_of(one) for one in answer.tree["parameter"]}
        kept = [made[name] for name in ("link", "passcode", "expires")]
        return redirect(f"{MADE}/{await self._once.keep(here.browser, kept)}")

    def _given(self, form: Mapping[str, str], pairs: Pairs) -> list[tuple[str, str, Any]]:
        given: list[tuple[str, str, Any]] = [
            ("section", "valueCode", value) for name, value in pairs if name == "section"
        ]
        given += [
            ("document", "valueReference", {"reference": f"DocumentReference/{value}"})
            for name, value in pairs
            if name == "document"
        ]
        given += [(name, "valueDate", form.get(name) or None) for name in ("start", "end")]
        label = form.get("label", "").strip()
        given.append(("label", "valueString", label or None))
        given.append(("summary", "valueBoolean", form.get("summary") == "yes"))
        days = form.get("days", "")
        if days in {str(number) for number, _ in _LASTS}:
            until = self._room.clock() + int(days) * DAY
            given.append(("expires", "valueDateTime", instant(int(until * _MICROSECONDS))))
        return given

    async def _new(self, here: AtPortal, pairs: Pairs, *, problem: str = "") -> Response:
        policy = await policy_of(self._room.store, here.session.practice)
        if not here.acts(SECTION) or not policy.sharing:
            return redirect(SHARING)
        ticked = {value for name, value in pairs if name in {"section", "document"}}
        form = dict(pairs)
        return self._room.page(
            here,
            "portal_share.html",
            status=400 if problem else 200,
            problem=problem,
            action=NEW,
            back=SHARING,
            sections=[
                (code, name, not pairs or code in ticked)
                for code, name in section_displays().items()
                if here.sees(code) and code != "sharing"
            ],
            documents=[
                (own_id, title, when, own_id in ticked)
                for own_id, title, when in await documents_of(self._room, here)
            ],
            most=MOST_DOCUMENTS,
            own=here.auth.is_self,
            summary=not pairs or form.get("summary") == "yes",
            lasts=[one for one in _LASTS if one[0] <= policy.share_days],
            days=form.get("days", str(min(USUAL_DAYS, policy.share_days))),
            longest=LONGEST_LABEL,
            given={name: form.get(name, "") for name in ("label", "start", "end")},
            today=datetime.fromtimestamp(self._room.clock(), here.zone).date().isoformat(),
            form_token=self._room.form_token(here, NEW),
        )

    async def show_made(self, request: Request) -> Response:
        """Link, passcode and QR code, once."""
        here = await self._room.at(request)
        kept = await self._once.take(here.browser, request.path_params["handle"])
        if kept is None:
            return self._room.page(here, "portal_shared.html", status=404, gone=_GONE, back=SHARING)
        link, passcode, expires = kept
        drawn = segno.make(link, error="l", micro=False)
        return self._room.page(
            here,
            "portal_shared.html",
            gone="",
            link=link,
            passcode=passcode,
            until=here.moment(expires),
            qr=drawn.svg_inline(scale=4, border=4, dark="#000", light="#fff", omitsize=True),
            back=SHARING,
        )

    # --- ending one ----------------------------------------------------------------------------

    async def end(self, request: Request) -> Response:
        here, form = await self._room.posted(request, END)
        given = ("id", "valueString", form.get("id") or "-")
        await self._room.call(here, "end-share", _patient(here), given)
        return redirect(f"{SHARING}?done=ended")


async def documents_of(room: PatientRoom, here: AtPortal) -> list[tuple[str, str, str]]:
    """Return id, title and day of the documents that may be chosen, the latest first."""
    query = (("_sort", "-date"), ("_count", str(_MOST_SHOWN)))
    try:
        found = await room.ask(here, "search-type", "DocumentReference", query=query)
    except Forbidden:
        return []
    return [(one["id"], title_of(one), here.moment(one.get("date"))) for one in found.entries]


def _patient(here: AtPortal) -> str:
    return here.session.patient


def parts_of(tree: Mapping[str, Any], name: str) -> list[dict[str, Any]]:
    """Return the parts of each parameter of a name; those that repeat as a list."""
    return [_read(one.get("part", ())) for one in tree.get("parameter", ()) if one["name"] == name]


_REPEATED: Final = frozenset({"section", "document", "reached-by"})


def _read(parts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for part in parts:
        if part["name"] in _REPEATED:
            found.setdefault(part["name"], []).append(value_of(part))
        else:
            found[part["name"]] = value_of(part)
    return found


def value_of(one: Mapping[str, Any]) -> Any:
    """Return the value of a parameter."""
    return next(value for name, value in one.items() if name.startswith("value"))


def sentence(error: FhirError) -> str:
    """Return the words of a refusal, for the form that it is about."""
    words = "; ".join(one.diagnostics for one in error.issues if one.diagnostics) or str(error)
    return f"{words[:1].upper()}{words[1:]}."
