"""``Patient/[id]/$labelled``: what of a record is hidden from somebody, and by what.

What a resource has by itself is listed: what it carries, what a rule gives it, that it waits for
its release. What it has from others is counted; ``$labels`` says of one from where. Types that the
caller may not search are in neither.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any, Final

from fhir_portal.access.visibility import Visibility
from fhir_portal.consent.label_rules import label_rules_of
from fhir_portal.consent.labels import FOR_STAFF
from fhir_portal.documents.titles import resource_date, resource_title
from fhir_portal.fhir import json
from fhir_portal.fhir.interaction import FhirResponse
from fhir_portal.operations.call import Call
from fhir_portal.operations.labels import LABELLED_BY_HAND, of_itself
from fhir_portal.resources.permission import checked, permitted_or_none
from fhir_portal.resources.store import Row
from fhir_portal.search.request import SearchRequest

MOST: Final = 500
"""Resources that are listed."""
_PAGE: Final = 200
_MATTERS: Final = frozenset(FOR_STAFF.values())
"""What is for staff alone is no part of what a patient might see."""


async def labelled(call: Call) -> FhirResponse:
    """List what carries labels by itself, and count by type what has them from others."""
    patient = await call.target(call.server.store)
    rules = await label_rules_of(call.server.store, call.auth.practice)
    found: list[dict[str, Any]] = []
    rows: list[Row] = []
    inherited = Counter[str]()
    more = False
    for name in sorted(LABELLED_BY_HAND):
        visible = permitted_or_none(call.server, call.auth, "s", name)
        if visible is None:
            continue
        async for row in _labelled(call, replace(visible.own(), record=patient.key.id)):
            tree = json.parse(row.body)
            own = await of_itself(call.server.store, rules, row.key, tree)
            own = [one for one in own if one["code"] not in _MATTERS]
            if row.facts.visibility_class.labels - _MATTERS - {one["code"] for one in own}:
                inherited[name] += 1
            if own and len(rows) == MOST:
                more = True
            elif own:
                rows.append(row)
                said = {
                    "resource": {"reference": str(row.key)},
                    "title": resource_title(tree) or None,
                    "date": resource_date(tree) or None,
                }
                found += [said | one for one in own]
    answer = {
        "label": found,
        "inherited": [{"type": name, "count": count} for name, count in inherited.items()],
        "more": more,
    }
    return call.answer(answer, patient, *rows)


async def _labelled(call: Call, visible: Visibility) -> AsyncIterator[Row]:
    """Yield the rows of one type of the record that have a label for patients to miss."""
    request, after = SearchRequest(visible.resource_type, count=_PAGE), None
    while True:
        page = await call.server.reader.search(request, visible, after=after)
        for row in checked(page.rows, visible):
            if row.facts.visibility_class.labels - _MATTERS:
                yield row
        after = page.next
        if after is None:
            return
