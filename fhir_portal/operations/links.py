"""What a ``Person`` links: whose record an account may use, and in whose log its matters go."""

from __future__ import annotations

from collections.abc import Iterator

from fhir_portal.access.owners import local_target
from fhir_portal.access.relation import PROVEN
from fhir_portal.fhir import json
from fhir_portal.resources.store import Row


def links_of(row: Row, *, proven: bool) -> Iterator[str]:
    """Return the ``Patient/<id>`` and ``RelatedPerson/<id>`` of this server that a Person links.

    With ``proven`` only those by which somebody may use a record.
    """
    seen = set[str]()
    for link in json.parse(row.body).get("link") or ():
        target = local_target((link.get("target") or {}).get("reference") or "")
        if target is None or str(target) in seen:
            continue
        if proven and link.get("assurance") not in PROVEN:
            continue
        seen.add(str(target))
        yield str(target)


def touched_by(row: Row) -> tuple[tuple[str, bool], ...]:
    """Return in whose access log a call on a resource goes, each with whether they may read that.

    A Person belongs to no record. What is done about its account is the matter of whoever proved
    that a Patient is them; of the Patients that they act for it is not.
    """
    if row.facts.resource_type != "Person":
        return row.facts.touched
    linked = [one.partition("/") for one in links_of(row, proven=True)]
    return tuple((own_id, True) for name, _, own_id in linked if name == "Patient")
