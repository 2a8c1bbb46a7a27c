"""``/portal``: what is next and what is new, from one call of the dashboard; who has access.

What whoever is there may not see is not on the page: nothing of it is said to be none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response

from fhir_portal.access.relation import name_of
from fhir_portal.accounts.preferences import PagePreferences, wants_tour
from fhir_portal.billing.amount import Amount, NoAmount
from fhir_portal.consent.grant import CATEGORY, is_current, read_grant
from fhir_portal.records import RecordTransaction
from fhir_portal.smart.connections import Connections
from fhir_portal.web.form import parse_pairs
from fhir_portal.web.pages.portal import (
    ACTIVITY,
    APPOINTMENTS,
    BILLS,
    DETAILS,
    DOCUMENTS,
    EXPORT,
    FORMS,
    HEALTH,
    HOME,
    IMMUNIZED,
    INSURANCE,
    MEDICINES,
    MESSAGES,
    PAGES,
    RESULTS,
    SHARING,
    TIMELINE,
    VISITS,
    AtPortal,
    PatientRoom,
    has_page,
    pages_of,
    portal_page,
)
from fhir_portal.web.pages.portal_timeline import SECTIONS
from fhir_portal.web.pages.refusals import Handler
from fhir_portal.web.pages.render import redirect

TOUR: Final = f"{HOME}/tour"
_MOST: Final = 50
_TOLD: Final[Mapping[str, str]] = {
    APPOINTMENTS: "See what is to come, say that you are here, and ask for an appointment.",
    MESSAGES: "Write to the practice, and read what it answers.",
    RESULTS: "See your results and how they change over time.",
    MEDICINES: "Look up medicines, and ask for a refill.",
    HEALTH: "Look up health problems and allergies.",
    IMMUNIZED: "Look up vaccines, and print them for a school.",
    VISITS: "Read again what was found and said at a visit.",
    DOCUMENTS: "Read documents of the practice, and send yours.",
    FORMS: "Fill in what the practice asks for, before you come.",
    BILLS: "See what is due, and pay it.",
    INSURANCE: "See what the practice has on file, and say what changed.",
    DETAILS: "Put your name, address and telephone right.",
    SHARING: "Show part of the record to somebody outside, and end it again.",
    EXPORT: "Save all of it as one file.",
    ACTIVITY: "See who looked at what, and when.",
}
"""What one can do on a page, for the tour, by its address."""


class StartPage:
    """The page on which everybody begins."""

    def __init__(self, room: PatientRoom, connections: Connections) -> None:
        self._room = room
        self._connections = connections

    def routes(self) -> Sequence[tuple[str, str, Handler]]:
        """Path, method and handler of each page."""
        return (
            (HOME, "GET", portal_page(self.show)),
            (TOUR, "POST", portal_page(self.end_tour)),
        )

    async def show(self, request: Request) -> Response:
        here = await self._room.at(request)
        found = await self._room.dashboard(here)
        parts: Mapping[str, Any] = {
            one["name"]: found.value(one["name"]) for one in found.tree.get("parameter") or ()
        }
        given = dict(parse_pairs(request.scope["query_string"]))
        wanted = given.get("tour") == "again" or await wants_tour(
            self._room.store, here.session.account
        )
        return self._room.page(
            here,
            "portal_home.html",
            pages=pages_of(here),
            lines=[*_visits(here, parts), *_to_do(here, parts), *_new(here, parts)],
            write=f"{MESSAGES}/new" if here.acts("messages") and here.has("messages") else "",
            tour=_tour(here) if wanted else [],
            tour_action=TOUR,
            form_token=self._room.form_token(here, TOUR) if wanted else "",
            timeline=TIMELINE if any(here.sees(one) for one in SECTIONS) else "",
            access=await self._access(here),
        )

    async def end_tour(self, request: Request) -> Response:
        """Note that somebody has seen enough; it can be had again by a link."""
        here, _ = await self._room.posted(request, TOUR)

        async def work(transaction: RecordTransaction) -> None:
            await transaction.put(PagePreferences(key=here.session.account, tour=False))

        await self._room.store.transact(work)
        return redirect(HOME)

    async def _access(self, here: AtPortal) -> Mapping[str, Any]:
        """Which apps get something of this record, and who may see it beside its person.

        A proxy is told of the own apps alone: who else there is, is not theirs to know.
        """
        account = here.browser.visitor.account
        connections = [] if account is None else await self._connections.of(account)
        apps = [
            {"name": one.client.name, "mine": one.is_mine}
            for one in connections
            if one.works
            and not one.as_staff
            and (one.practice, one.patient) == (here.record.practice, here.record.patient)
        ]
        return {"apps": apps, "people": await self._people(here) if here.auth.is_self else []}

    async def _people(self, here: AtPortal) -> list[Mapping[str, Any]]:
        found = await self._room.ask(
            here,
            "search-type",
            "Consent",
            query=(
                ("category", "|".join(CATEGORY)),
                ("status", "active"),
                ("_include", "Consent:actor"),
                ("_count", str(_MOST)),
            ),
        )
        others = {
            f"RelatedPerson/{one['id']}": one
            for one in found.entries
            if one["resourceType"] == "RelatedPerson"
        }
        people: list[Mapping[str, Any]] = []
        for tree in found.entries:
            if tree["resourceType"] != "Consent":
                continue
            grant = read_grant(tree, practice=here.record.practice, zone=here.zone)
            if grant is None or not is_current(grant, self._room.clock()):
                continue
            other = others.get(f"RelatedPerson/{grant.related_person.rpartition('/')[2]}")
            until = None if grant.end is None else datetime.fromtimestamp(grant.end, here.zone)
            people.append(
                {
                    "name": name_of(other) if other is not None else "Somebody",
                    "until": "" if until is None else here.moment(until.isoformat()),
                }
            )
        return people


def _tour(here: AtPortal) -> list[tuple[str, str, str]]:
    """Address, name and words of what whoever is there finds in the portal."""
    shown = {section for section, _, _ in PAGES if here.has(section)}
    return [(address, name, _TOLD[address]) for section, address, name in PAGES if section in shown]


def _visits(here: AtPortal, parts: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The next visit, and the last one. That there is none is said to who may know that."""
    lines: list[dict[str, Any]] = []
    following = parts.get("next-appointment")
    if following is not None:
        address = f"{APPOINTMENTS}/one/{_id(following['appointment'])}"
        details = [following.get("purpose") or "", _with(following.get("with"))]
        lines.append(
            {
                "title": "Your next visit" if here.auth.is_self else "The next visit",
                "text": here.moment(following.get("start")),
                "details": [one for one in details if one],
                "address": address,
                "act": (f"{address}#here", "I am here") if following["check-in"] else None,
            }
        )
    elif here.sees("appointments"):
        lines.append(_line("The next visit", "No appointment to come", APPOINTMENTS))
    last = parts.get("last-visit")
    if last is not None:
        when = here.moment(last.get("start")) or "It does not say when"
        lines.append(_line("The last visit", when, _page_at(VISITS)))
    elif here.sees("visits"):
        lines.append(_line("The last visit", "No visit yet", _page_at(VISITS)))
    return lines


def _to_do(here: AtPortal, parts: Mapping[str, Any]) -> list[dict[str, Any]]:
    lines: list[dict[str, Any]] = []
    messages = parts.get("messages")
    if messages is not None and here.has("messages"):
        text = _count(messages["unread"], "unread message", more=messages["more"])
        lines.append(_line("Messages", text, MESSAGES))
    forms = parts.get("forms-due")
    if forms is not None and here.has("forms"):
        text = _count(forms["count"], "form to fill in", "forms to fill in", more=forms["more"])
        due = here.moment(forms.get("due"))
        lines.append(
            _line("Forms", text, FORMS, f"The first one is wanted by {due}" if due else "")
        )
    balance = parts.get("balance")
    if balance is not None:
        lines.append(_balance(balance))
    return lines


def _balance(balance: Mapping[str, Any]) -> dict[str, Any]:
    """What is due, in sums by currency; that nothing is due is said only where that is known."""
    due = [text for text, units in _sums(balance.get("due")) if units]
    waiting = [text for text, units in _sums(balance.get("under-way")) if units]
    bills, unsure = int(balance["bills"]), int(balance["not-reckoned"])
    text = ", ".join(due) + " due" if due else "Nothing is due"
    if unsure and not due:
        text = "What is due cannot be added up"
    if balance["more"]:
        text = f"More than {text}" if due else f"More than {bills} open bills"
    details = [
        f"On {_count(bills, 'open bill')}" if bills else "",
        f"Being paid: {', '.join(waiting)}" if waiting else "",
        f"{_count(unsure, 'bill')} not in the sum: ask the practice" if unsure else "",
    ]
    return _line("Bills", text, _page_at(BILLS), *details)


def _sums(given: Any) -> list[tuple[str, int]]:
    listed = given if isinstance(given, list) else [] if given is None else [given]
    found = []
    for one in listed:
        try:
            amount = Amount.of(one)
        except NoAmount:
            continue
        found.append((str(amount), amount.units))
    return found


def _new(here: AtPortal, parts: Mapping[str, Any]) -> list[dict[str, Any]]:
    results = parts.get("new-results")
    if results is None:
        return []
    text = _count(results["count"], "new report", more=results["more"])
    return [_line("Results", text, RESULTS, f"Since {here.moment(results['since'][:10])}")]


def _page_at(address: str) -> str:
    return address if has_page(address) else ""


def _line(title: str, text: str, address: str, *details: str) -> dict[str, Any]:
    return {
        "title": title,
        "text": text,
        "address": address,
        "details": [one for one in details if one],
        "act": None,
    }


def _count(number: int, one: str, several: str = "", *, more: bool = False) -> str:
    """A number in words: at least so many, where not all were counted."""
    if number == 0 and not more:
        return f"No {several or one + 's'}"
    words = one if number == 1 and not more else several or f"{one}s"
    return f"At least {number} {words}" if more else f"{number} {words}"


def _with(names: str | None) -> str:
    return f"With {names}" if names else ""


def _id(reference: Mapping[str, Any]) -> str:
    return str(reference["reference"]).rpartition("/")[2]
