"""``/portal/immunizations/card``: the vaccines that were given, signed, to print or as a file.

What is printed beside a code is what is in it; only the names of vaccines, which cards do not
have, come from the record.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response

from fhir_portal.documents.health_card_print import CardSheet, PrintedCard, as_html, as_pdf
from fhir_portal.documents.wording import clean, day, person_name, words_of
from fhir_portal.fhir.errors import NotFound, Unprocessable
from fhir_portal.fhir.interaction import FhirRequest
from fhir_portal.smart.health_card import EXTENSION, MEDIA, bundle_in, card_file, qr_parts
from fhir_portal.web.pages.desk import Answer
from fhir_portal.web.pages.portal import IMMUNIZED, AtPortal, PatientRoom, portal_page
from fhir_portal.web.pages.refusals import Handler
from fhir_portal.web.pages.render import download, printed

CARD: Final = f"{IMMUNIZED}/card"
_FORMS: Final = frozenset({"file", "pdf", "html"})
_NAME: Final = "vaccines"
_AT_ONCE: Final = 200


class HealthCardPages:
    """The file, and the sheet as a page and as a PDF."""

    def __init__(self, room: PatientRoom) -> None:
        self._room = room

    def routes(self) -> Sequence[tuple[str, str, Handler]]:
        """Path, method and handler of each page."""
        return ((f"{CARD}/{{form}}", "GET", portal_page(self.show, back=IMMUNIZED)),)

    async def show(self, request: Request) -> Response:
        here = await self._room.at(request)
        form = request.path_params["form"]
        if form not in _FORMS:
            message = "there is nothing at this address"
            raise NotFound(message)
        asked = FhirRequest(
            "operation",
            "Patient",
            here.auth.patient,
            operation="health-cards-issue",
            query=(("credentialType", "Immunization"),),
            is_get=True,
            activity="view" if form == "html" else "download",
        )
        issued = await self._room.read(here, asked)
        cards = [str(one) for one in issued.values("verifiableCredential")]
        if not cards:
            message = "there is no vaccine with a code and a date on record for a signed card"
            raise Unprocessable(message)
        if form == "file":
            return download(card_file(cards), f"{_NAME}.{EXTENSION}", MEDIA)
        sheet = self._sheet(here, cards, await self._names(here, issued))
        if form == "html":
            return printed(await asyncio.to_thread(as_html, sheet))
        content = await asyncio.to_thread(as_pdf, sheet)
        return download(content, f"{_NAME}-signed.pdf", "application/pdf")

    def _sheet(
        self, here: AtPortal, cards: Sequence[str], names: Mapping[tuple[int, str], str]
    ) -> CardSheet:
        """What is in the cards, in words."""
        bundles = [bundle_in(one) for one in cards]
        patient = bundles[0]["entry"][0]["resource"]
        return CardSheet(
            practice=here.record.practice_name,
            zone=here.record.zone,
            made=self._room.clock(),
            name=person_name(patient.get("name")),
            born=day(patient.get("birthDate")),
            cards=[
                PrintedCard(
                    qr_parts(card),
                    tuple(
                        (
                            names.get((number, entry["fullUrl"]), "Vaccine"),
                            _given(entry["resource"]),
                        )
                        for entry in bundle["entry"][1:]
                    ),
                )
                for number, (card, bundle) in enumerate(zip(cards, bundles, strict=True))
            ],
        )

    async def _names(self, here: AtPortal, issued: Answer) -> dict[tuple[int, str], str]:
        """What the vaccines on the cards are called, by card and address there."""
        links = issued.values("resourceLink")
        called: dict[str, str] = {}
        ids = [str(one["hostedResource"]).rpartition("/")[2] for one in links]
        for start in range(0, len(ids), _AT_ONCE):
            some = ",".join(ids[start : start + _AT_ONCE])
            query = (("_id", some), ("_count", str(_AT_ONCE)))
            found = await self._room.ask(here, "search-type", "Immunization", query=query)
            called |= {one["id"]: words_of(one.get("vaccineCode")) for one in found.entries}
        return {
            (one["vcIndex"], one["bundledResource"]): called.get(own_id) or "Vaccine"
            for one, own_id in zip(links, ids, strict=True)
        }


def _given(tree: Mapping[str, Any]) -> str:
    when = day(tree.get("occurrenceDateTime")) or clean(tree.get("occurrenceString") or "")
    return f"{when} (reported)" if tree.get("primarySource") is False else when
