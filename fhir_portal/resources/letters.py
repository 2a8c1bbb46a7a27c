"""Which letters of a scope each interaction needs (SMART App Launch 2.2 §3.0.2), for apps to read.

A table to publish: what is asked when a request comes stands in the interactions themselves, and a
test has each of them refused without one of its letters.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from fhir_portal.access.operations import OPERATIONS


@dataclass(frozen=True, slots=True)
class Needed:
    """``letters`` on the type of the request, or, where ``of`` says so, on others."""

    interaction: str
    request: str
    letters: str
    of: str = ""


NEEDED: Final = (
    Needed("read", "GET Type/id", "r"),
    Needed("vread", "GET Type/id/_history/version", "r"),
    Needed("history-instance", "GET Type/id/_history", "r"),
    Needed("search-type", "GET Type?…, POST Type/_search", "s"),
    Needed(
        "_include, _revinclude",
        "in a search",
        "s",
        "the type that is added; without it nothing is added",
    ),
    Needed("create", "POST Type", "c"),
    Needed("conditional create", "POST Type with If-None-Exist", "cs"),
    Needed("update", "PUT Type/id", "u"),
    Needed("delete", "DELETE Type/id", "d"),
    Needed("history-system", "GET _history", "s", "each type that is to be in it"),
    Needed("batch, transaction", "POST a Bundle to the base", "", "each entry, as if sent alone"),
    Needed(
        "conditional reference",
        "Type?identifier=… in a transaction",
        "s",
        "the type that is referred to",
    ),
    Needed(
        "reference in what a person writes",
        "POST Type, PUT Type/id",
        "r",
        "the type that is referred to",
    ),
    Needed("EHR launch", "POST /oauth/launch", "r", "each type that the launch refers to"),
)
NEEDED_BY_OPERATIONS: Final = tuple(
    Needed(f"${code}", f"on {rule.target}", letters, name)
    for code, rule in sorted(OPERATIONS.items())
    for name, letters in rule.by_type
)
"""The same for operations, printed from their rules."""
