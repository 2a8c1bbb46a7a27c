"""The portal's page about what was done with a record: viewed, downloaded, sent; by whom, when.

It is what a search for AuditEvents finds as whoever is there: a person sees every line about their
record, somebody who acts for them their own.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping, Sequence
from datetime import date, datetime, timedelta
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response

from fhir_portal.access.owners import DIRECTORY
from fhir_portal.documents.titles import title_of
from fhir_portal.fhir.errors import Forbidden, NotFound, Unavailable
from fhir_portal.resources.audit_event import ACTIVITY as SYSTEM
from fhir_portal.resources.audit_event import SHARE_LINK
from fhir_portal.smart.client import Client
from fhir_portal.smart.portal_pages import CLIENT
from fhir_portal.web.pages.desk import Answer
from fhir_portal.web.pages.portal import ACTIVITY, AtPortal, PatientRoom, portal_page
from fhir_portal.web.pages.refusals import Handler
from fhir_portal.web.pages.words import type_words

COUNT: Final = 100
_DAY: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_WINDOW: Final = timedelta(days=30)
_FURTHEST: Final = timedelta(days=3650)
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
    "export-self": "the record as one file",
    "immunization-certificate": "a certificate of vaccinations",
    "health-cards-issue": "a signed card of vaccinations",
    "receipt": "a receipt",
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
        until = self._day(here, request.query_params.get("until", ""))
        if kind and kind not in _DID:
            raise NotFound("there is nothing at this address")
        wanted = ",".join(f"{SYSTEM}|{one}" for one in ([kind] if kind else _DID))
        return await self._list(
            here,
            kind,
            until,
            ("subtype", wanted),
            ("date", f"ge{here.midnight(until - _WINDOW)}"),
            ("date", f"lt{here.midnight(until)}"),
            ("_count", str(COUNT)),
        )

    async def more(self, request: Request) -> Response:
        """Earlier ones of the same days."""
        here, form = await self._room.posted(request, ACTIVITY)
        kind, until = form.get("did", ""), self._day(here, form.get("until", ""))
        if not _PAGE.fullmatch(form.get("page", "")) or (kind and kind not in _DID):
            raise NotFound("there is no such page")
        return await self._list(here, kind, until, ("_page", form["page"]))

    async def _list(
        self, here: AtPortal, kind: str, until: date, *query: tuple[str, str]
    ) -> Response:
        found, too_much = Answer({}, None), False
        try:
            found = await self._room.ask(here, "search-type", "AuditEvent", query=query)
        except Unavailable:  # an app may have read it thousands of times in these days
            too_much = True
        titles = await self._titles(here, found.entries)
        names = await self._names(here, found.entries)
        apps = await self._apps(found.entries)
        lines = [
            _line(here, one, titles, names, apps) for one in found.entries if _is_of_the_record(one)
        ]
        latest = self._day(here, "")
        return self._room.page(
            here,
            "portal_activity.html",
            kinds=[(_address(code, until, latest), name, code == kind) for code, name in _KINDS],
            kind=kind,
            until=until.isoformat(),
            days=f"{here.moment((until - _WINDOW).isoformat())} to "
            f"{here.moment((until - timedelta(days=1)).isoformat())}",
            own=here.auth.is_self,
            too_much=too_much,
            lines=_told_once(lines),
            more=found.next,
            earlier=_address(kind, until - _WINDOW, latest),
            later=_address(kind, min(until + _WINDOW, latest), latest) if until < latest else "",
            action=ACTIVITY,
            form_token=self._room.form_token(here, ACTIVITY),
        )

    def _day(self, here: AtPortal, text: str) -> date:
        """Return the day that a list ends before; tomorrow if none is given. Raises `NotFound`."""
        now = datetime.fromtimestamp(self._room.clock(), here.zone)
        latest = now.date() + timedelta(days=1)
        if not text:
            return latest
        try:
            found = date.fromisoformat(text) if _DAY.fullmatch(text) else date.min
        except ValueError:
            found = date.min
        if not latest - _FURTHEST <= found <= latest:
            raise NotFound("there is nothing of these days")
        return found

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


def _address(kind: str, until: date, latest: date) -> str:
    given = [f"did={kind}"] if kind else []
    given += [f"until={until.isoformat()}"] if until < latest else []
    return f"{ACTIVITY}?{'&'.join(given)}" if given else ACTIVITY


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
    who = here.called({"reference": agent}, names) if agent else app
    recipient = _recipient(event)
    what = [titles.get(one) or type_words(one.partition("/")[0]) for one in _things(event)]
    asked = [_query_of(one).partition("?")[0] for one in event.get("entity") or ()]
    what = what or [type_words(one) for one in asked if one]
    made = next((_MADE[one] for one in _codes(event, "OperationDefinition") if one in _MADE), "")
    return {
        "when": here.moment(event.get("recorded")),
        "who": recipient or who,
        "link": who if recipient else "",
        "by": app if agent and not recipient else "",
        "did": _DID.get(activity, ""),
        "what": made or ", ".join(dict.fromkeys(what)) or "parts of the record",
        "download": activity == "download",
    }


def _told_once(lines: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return lines of one day that say the same as one line, at the latest time, with a count."""
    found = dict[tuple[Any, ...], dict[str, Any]]()
    for line in lines:
        day = str(line["when"]).rpartition(", ")[0]
        key = (day, line["who"], line["link"], line["by"], line["did"], line["what"])
        told = found.setdefault(key, {**line, "times": 0})
        told["times"] += 1
    return list(found.values())


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


def _is_of_the_record(event: Mapping[str, Any]) -> bool:
    """Whether a line tells of the record: not of names in the directory, nor of the log itself.

    A page looks those up to show the rest, and they would fill this one.
    """
    types = {one.partition("/")[0] for one in _things(event)}
    asked = {_query_of(one) for one in event.get("entity") or ()}
    types |= {re.split(r"[/?]", one)[0] for one in asked if one}
    return not types or not types <= {*DIRECTORY, "AuditEvent"}


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


def _recipient(event: Mapping[str, Any]) -> str:
    """What somebody called themselves who used a link that the agent made, or ``""``."""
    return next(
        (
            str(one.get("name") or "")
            for one in event.get("agent") or ()
            if (one.get("type") or {}).get("text") == SHARE_LINK
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
