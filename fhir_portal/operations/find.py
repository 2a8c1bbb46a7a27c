"""``Appointment/$find``: the times that can be held and booked.

Source: IHE ITI Scheduling 1.0.1, ITI-115. Of its parameters those are taken that say something
about Slots and Schedules; the others are refused by name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID, uuid5

import msgspec

from fhir_portal.access.visibility import Visibility
from fhir_portal.fhir import json
from fhir_portal.fhir.bundle import bundle
from fhir_portal.fhir.datetime import period_of
from fhir_portal.fhir.errors import Invalid, Unprocessable
from fhir_portal.fhir.interaction import FhirResponse
from fhir_portal.fhir.reference import ResourceKey
from fhir_portal.operations.appointments import (
    Offer,
    Offers,
    keys_named,
    known_patient,
    of_practice,
)
from fhir_portal.operations.call import Call
from fhir_portal.resources.interactions.read import unknown
from fhir_portal.search.request import parse_search

DEFAULT_COUNT: Final = 20
MOST: Final = 100
MOST_DAYS: Final = 31
MOST_SLOTS: Final = 3000
"""Slots that one call looks at: a longer list is refused, and not cut short in silence."""
_DAYS: Final = 14
_DAY: Final = 86_400
_PAGE: Final = 500
_MICROSECONDS: Final = 1_000_000
_LAST: Final = 32_503_680_000
"""The year 3000: a calendar's last day has no day after it."""
_PATH: Final = "Appointment/$find"
_NAMES: Final = UUID("6ba7b812-9dad-11d1-80b4-00c04fd430c8")
_REFERENCES: Final = {
    "practitioner": ("Practitioner", "PractitionerRole"),
    "location-reference": ("Location",),
    "patient-reference": ("Patient",),
}
_CODES: Final = {"visit-type": "serviceType", "specialty": "specialty"}
_ASKED: Final = ("start", "end", "_count", *_CODES, *_REFERENCES)

Given = Mapping[str, Sequence[str]]
"""What was asked for by name: any of the values of a name will do, and each name has to."""


async def find(call: Call) -> FhirResponse:
    """Return a page of the times on offer, in the order of time, and how many there are.

    Raises:
        Unprocessable: a window that is too long or has too much in it; a reference that is none.
        NotFound: no such patient, or not for this caller.
    """
    given, after = _given(call)
    first, last = _window(given, call.server.clock())
    patient = await _patient(call, given)
    count = int(given["_count"][0]) if "_count" in given else DEFAULT_COUNT
    if not 1 <= count <= MOST:
        message = f"_count is 1 to {MOST}"
        raise Unprocessable(message, expression="Parameters.parameter.value")
    found = await _on_offer(call, given, first, last)
    keys = [(one.slot["start"], one.slot["id"]) for one in found]
    moments = [(period_of(start)[0], own_id) for start, own_id in keys]
    begin = next((n for n, one in enumerate(moments) if list(one) > list(after)), len(found))
    page = found[begin : begin + count]
    links = [("self", call.server.url(_PATH))]
    if begin + count < len(found):
        fixed = {**given, "start": [_text(first)], "end": [_text(last)]}
        where = list(moments[begin + count - 1])
        pairs = [(name, value) for name, values in fixed.items() for value in values]
        sealed = call.server.pages.seal(pairs, where, _PATH)
        links.append(("next", call.server.url(f"{_PATH}?_page={sealed}")))
    body = bundle(
        "searchset",
        total=len(found),
        links=links,
        entries=[_entry(one, patient) for one in page],
    )
    return FhirResponse(200, body)


def _given(call: Call) -> tuple[Given, Sequence[Any]]:
    """Return what was asked for, here or on the page before, and where to go on."""
    given = {
        name: [_word(name, value) for value in call.arguments.all(name)]
        for name in _ASKED
        if call.arguments.all(name)
    }
    sealed = call.arguments.one("_page")
    if sealed is None:
        return given, ()
    if given:
        message = "a paging link is used as it is"
        raise Invalid(message)
    listed, after = call.server.pages.open(sealed, _PATH)
    before: dict[str, list[str]] = {}
    for name, value in listed:
        before.setdefault(name, []).append(value)
    return before, after


def _word(name: str, value: Any) -> str:
    """Return a value as text: of a Reference what it names (an identifier names nothing here)."""
    if name not in _REFERENCES:
        return str(value)
    return str(keys_named([value.get("reference") or ""], *_REFERENCES[name])[0])


async def _patient(call: Call, given: Given) -> str | None:
    """Return whom the times are for: a person's token is for its own record, and no other."""
    named = given.get("patient-reference", ())
    own = call.auth.record.patient if call.auth.record is not None else None
    if not named:
        return own
    key = ResourceKey.parse(named[0])
    if own is None:
        await known_patient(call, call.server.store, key)
    elif str(key) != own:
        raise unknown(key)
    return str(key)


def _window(given: Given, now: float) -> tuple[int, int]:
    """Return from when to when, in seconds since 1970 UTC."""
    now_s = int(now)
    first = period_of(given["start"][0])[0] // _MICROSECONDS if "start" in given else now_s
    first = max(first, now_s)
    last = first + _DAYS * _DAY
    if "end" in given:
        last = -(-period_of(given["end"][0])[1] // _MICROSECONDS)
    if last - first > MOST_DAYS * _DAY or last > _LAST:
        message = f"ask for {MOST_DAYS} days at a time, of this millennium"
        raise Unprocessable(message, expression="Parameters.parameter.value")
    return first, max(first, last)


async def _on_offer(call: Call, given: Given, first: int, last: int) -> list[Offer]:
    reader, practice = call.server.store, call.auth.practice
    pairs = [
        ("status", "free"),
        ("start", f"ge{_text(first)}"),
        ("start", f"lt{_text(last)}"),
        ("_sort", "start"),
        ("_count", str(_PAGE)),
    ]
    request = parse_search("Slot", pairs, base=call.server.base)
    visible = Visibility.of_server("Slot", practice=practice)
    offers = Offers(reader, call.auth, await of_practice(reader, call), now=call.server.clock())
    found: list[Offer] = []
    after: Sequence[Any] | None = None
    seen = 0
    while True:
        page = await reader.search(request, visible, after=after)
        seen += len(page.rows)
        if seen > MOST_SLOTS:
            message = "there are too many times in this window; ask for a shorter one"
            raise Unprocessable(message, expression="Parameters.parameter.value")
        for row in page.rows:
            offer = await offers.of(row)
            if offer is None or not _is_asked_for(offer, given):
                continue
            if await offers.is_free(offer):
                found.append(offer)
        if page.next is None:
            break
        after = page.next
    return sorted(found, key=lambda one: (period_of(one.slot["start"])[0], one.slot["id"]))


def _is_asked_for(offer: Offer, given: Given) -> bool:
    for name, element in _CODES.items():
        codings = [
            one
            for concept in offer.slot.get(element) or offer.schedule.get(element) or ()
            for one in concept.get("coding") or ()
        ]
        if name in given and not any(_has(codings, token) for token in given[name]):
            return False
    named = {one.get("reference") for one in offer.schedule.get("actor") or ()} | {*offer.actors}
    return all(
        named & {*given[name]} for name in ("practitioner", "location-reference") if name in given
    )


def _has(codings: Sequence[Mapping[str, Any]], token: str) -> bool:
    """Whether a code is there, as a search has it: ``code`` or ``system|code``."""
    system, bar, code = token.rpartition("|")
    return any(
        one.get("code") == code and (not bar or one.get("system", "") == system) for one in codings
    )


def _entry(offer: Offer, patient: str | None) -> bytes:
    """An entry with an Appointment that is stored nowhere; its name is that of its slot."""
    name = uuid5(_NAMES, f"{offer.slot['id']} {offer.slot['start']}")
    tree = offer.appointment("proposed", "needs-action", patient)
    return msgspec.json.encode(
        {
            "fullUrl": f"urn:uuid:{name}",
            "resource": msgspec.Raw(json.dumps(tree)),
            "search": {"mode": "match"},
        }
    )


def _text(moment: int) -> str:
    return datetime.fromtimestamp(moment, UTC).isoformat().replace("+00:00", "Z")
