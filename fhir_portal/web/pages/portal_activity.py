"""The portal's page about what was done with a record: viewed, downloaded, sent; by whom, when.

It is what a search for AuditEvents finds as whoever is there: a person sees every line about their
record, somebody who acts for them their own.
"""

from __future__ import annotations

import base64
import binascii
import itertools
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response

from fhir_portal.documents.titles import title_of
from fhir_portal.fhir.errors import Forbidden, NotFound
from fhir_portal.resources.audit_event import ACTIVITY as SYSTEM
from fhir_portal.smart.client import Client
from fhir_portal.smart.portal_pages import CLIENT
from fhir_portal.web.pages.portal import ACTIVITY, AtPortal, PatientRoom, portal_page
from fhir_portal.web.pages.refusals import Handler
from fhir_portal.web.pages.words import type_words

COUNT: Final = 100
_PAGE: Final = re.compile(r"[A-Za-z0-9_-]{1,4000}")
_DID: Final[Mapping[str, str]] = {
    "view": "viewed",
    "download": "downloaded",
    "transmit": "sent to somebody",
}
_KINDS: Final = (("", "Everything"), ("view", "Viewed"), ("download", "Downloaded"),
                 ("transmit", "Sent"))  # fmt: skip
_MADE: Final[Mapping[str, str]] = {
    "summary": "a summary of the record",
    "ccd": "the record, or a visit, as C-CDA",
    "docref": "documents of the record",
    "everything": "the whole record",
    "export": "the whole record",
    "transmit": "a summary of the record",
}
"""What operations make of a record, in words."""


class ActivityPages:
    """The list, by what was done."""

    def __init__(self, room: PatientRoom) -> None:
        self._room = room

    def routes(self) -> Sequence[tuple[str, str, Handler]]:
        """Path, method and handler of each page."""
        return (
            (ACTIVITY, "GET", portal_page(self.show)),
            (ACTIVITY, "POST", portal_page(self.more, back=ACTIVITY)),
        )

    async def show(self, request: Request) -> Response:
        here = await self._room.at(request)
        kind = request.query_params.get("did", "")
        if kind and kind not in _DID:
            raise NotFound("there is nothing at this address")
        wanted = ",".join(f"{SYSTEM}|{one}" for one in ([kind] if kind else _DID))
        return await self._list(here, kind, ("subtype", wanted), ("_count", str(COUNT)))

    async def more(self, request: Request) -> Response:
        """Earlier ones."""
        here, form = await self._room.posted(request, ACTIVITY)
        kind = form.get("did", "")
        if not _PAGE.fullmatch(form.get("page", "")) or (kind and kind not in _DID):
            raise NotFound("there is no such page")
        return await self._list(here, kind, ("_page", form["page"]))

    async def _list(self, here: AtPortal, kind: str, *query: tuple[str, str]) -> Response:
        found = await self._room.ask(here, "search-type", "AuditEvent", query=query)
        titles = await self._titles(here, found.entries)
        names = await self._names(here, found.entries)
        apps = await self._apps(found.entries)
        lines = [
            _line(here, one, titles, names, apps)
            for one in found.entries
            if not _is_about_this(one)
        ]
        return self._room.page(
            here,
            "portal_activity.html",
            kinds=[(f"{ACTIVITY}?did={code}" if code else ACTIVITY, name, code == kind)
                   for code, name in _KINDS],
            kind=kind,
            own=here.auth.is_self,
            lines=[
                {**first, "times": 1 + sum(1 for _ in rest)}
                for _, (first, *rest) in itertools.groupby(lines, key=_as_told)
            ],
            more=found.next,
            action=ACTIVITY,
            form_token=self._room.form_token(here, ACTIVITY),
        )  # fmt: skip

    async def _titles(
        self, here: AtPortal, events: Sequence[Mapping[str, Any]]
    ) -> Mapping[str, str]:
        """Titles of documents by ``DocumentReference/<id>``, and by the Binaries they hold."""
        things = {one for event in events for one in _things(event)}
        titles = dict[str, str]()
        for name, parameter in (("DocumentReference", "_id"), ("Binary", "location")):
            wanted = sorted(one for one in things if one.startswith(f"{name}/"))
            if parameter == "_id":
                wanted = [one.partition("/")[2] for one in wanted]
            if not wanted:
                continue
            query = ((parameter, ",".join(wanted)), ("_count", str(COUNT)))
            try:
                answer = await self._room.ask(here, "search-type", "DocumentReference", query=query)
            except Forbidden:
                continue
            for one in answer.entries:
                titles[f"DocumentReference/{one['id']}"] = title_of(one)
                for content in one.get("content") or ():
                    url = str((content.get("attachment") or {}).get("url") or "")
                    titles[url] = title_of(one)
        return titles

    async def _names(
        self, here: AtPortal, events: Sequence[Mapping[str, Any]]
    ) -> Mapping[str, str]:
        prefix = "Practitioner/"
        agents = {_agent(event) for event in events}
        wanted = sorted(one.removeprefix(prefix) for one in agents if one.startswith(prefix))
        return await self._room.names_of(here, wanted) if wanted else {}

    async def _apps(self, events: Sequence[Mapping[str, Any]]) -> Mapping[str, str]:
        """What apps are called, by their id; the pages of this portal are no app to a patient."""
        found = {CLIENT: ""}
        for own_id in {_app(event) for event in events} - {CLIENT}:
            client = await self._room.store.get(Client, own_id)
            found[own_id] = client.name if client is not None else own_id
        return found


def _line(
    here: AtPortal,
    event: Mapping[str, Any],
    titles: Mapping[str, str],
    names: Mapping[str, str],
    apps: Mapping[str, str],
) -> dict[str, Any]:
    activity = next(iter(_codes(event, SYSTEM)), "")
    agent = _agent(event)
    app = apps[_app(event)]
    what = [titles.get(one) or type_words(one.partition("/")[0]) for one in _things(event)]
    asked = [_query_of(one).partition("?")[0] for one in event.get("entity") or ()]
    what = what or [type_words(one) for one in asked if one]
    made = next((_MADE[one] for one in _codes(event, "OperationDefinition") if one in _MADE), "")
    return {
        "when": here.moment(event.get("recorded")),
        "who": here.called({"reference": agent}, names) if agent else app,
        "by": app if agent else "",
        "did": _DID.get(activity, ""),
        "what": made or ", ".join(dict.fromkeys(what)) or "parts of the record",
        "download": activity == "download",
    }


def _as_told(line: Mapping[str, Any]) -> tuple[Any, ...]:
    """What makes lines that follow each other one: the day, who, by what, and what of what."""
    day = str(line["when"]).rpartition(", ")[0]
    return (day, line["who"], line["by"], line["did"], line["what"])


def _codes(event: Mapping[str, Any], system: str) -> list[str]:
    return [
        str(one.get("code"))
        for one in event.get("subtype") or ()
        if str(one.get("system") or "").endswith(system)
    ]


def _things(event: Mapping[str, Any]) -> list[str]:
    """What was looked at, but for the patient themselves."""
    return [
        str(one["what"]["reference"])
        for one in event.get("entity") or ()
        if (one.get("role") or {}).get("code") == "4" and "what" in one
    ]


def _is_about_this(event: Mapping[str, Any]) -> bool:
    """Whether a line is about looking at the log: it would fill the page that it is on."""
    return any(one.startswith("AuditEvent") for one in _things(event)) or any(
        _query_of(one).startswith("AuditEvent") for one in event.get("entity") or ()
    )


def _query_of(entity: Mapping[str, Any]) -> str:
    """What was searched for, as far as the line says it."""
    try:
        return base64.b64decode(str(entity.get("query") or "")).decode()
    except (binascii.Error, ValueError):
        return ""


def _agent(event: Mapping[str, Any]) -> str:
    return next(
        (
            str(one["who"]["reference"])
            for one in event.get("agent") or ()
            if "reference" in (one.get("who") or {})
        ),
        "",
    )


def _app(event: Mapping[str, Any]) -> str:
    return next(
        (
            str(one["who"]["display"])
            for one in event.get("agent") or ()
            if "display" in (one.get("who") or {})
        ),
        "a program",
    )
