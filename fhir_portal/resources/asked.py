"""A search as it was asked: read from its parameters, or from the paging link that carries them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any
from urllib.parse import quote_plus

from fhir_portal.fhir.errors import Invalid
from fhir_portal.fhir.interaction import FhirRequest
from fhir_portal.resources.server import Server
from fhir_portal.search.registry import SHOWN
from fhir_portal.search.request import SearchRequest, parse_search

_quoted = lru_cache(maxsize=4096)(quote_plus)
"""The names of parameters, which repeat in every search."""


def _written(value: str) -> str:
    return value if value.isascii() and value.isalnum() else quote_plus(value)


@dataclass(frozen=True, slots=True)
class Asked:
    """A search as understood: its request, the pairs it was read from, and where to go on.

    Pairs that were ignored are gone: neither links nor the log repeat what nobody understood.
    """

    request: SearchRequest
    pairs: tuple[tuple[str, str], ...]
    after: Sequence[Any] | None


def understood(server: Server, request: FhirRequest) -> Asked:
    """Read a search, or open the paging link that carries one.

    Raises:
        Invalid, InvalidSearch: for what is not understood or not offered.
    """
    name = request.type or ""
    pairs: Sequence[tuple[str, str]] = request.query
    after = None
    if any(parameter == "_page" for parameter, _ in pairs):
        if len(pairs) != 1:
            message = "a paging link is used as it is"
            raise Invalid(message)
        pairs, after = server.pages.open(pairs[0][1], name)
    asked = parse_search(
        name, pairs, base=server.base, aliases=server.aliases, lenient=request.lenient
    )
    known = tuple(pair for pair in pairs if pair[0][:SHOWN] not in asked.ignored)
    return Asked(asked, known, after)


def links(server: Server, asked: Asked, following: Sequence[Any] | None) -> list[tuple[str, str]]:
    """Return the self link, as understood, and the next one if there is more."""
    name = asked.request.resource_type
    query = "&".join(
        [f"{_quoted(code)}={_written(text)}" for code, text in asked.request.parameters_text()]
    )
    found = [("self", server.url(f"{name}?{query}"))]
    if following is not None:
        sealed = server.pages.seal(asked.pairs, following, name)
        found.append(("next", server.url(f"{name}?_page={sealed}")))
    return found
