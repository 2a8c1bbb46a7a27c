"""``/portal/export``: a person takes the record that is open along, as one file."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from fhir_portal.fhir.interaction import FhirRequest
from fhir_portal.web.downloads import Sent, saved_as
from fhir_portal.web.pages.portal import EXPORT, PatientRoom, portal_page
from fhir_portal.web.pages.refusals import Handler
from fhir_portal.web.pages.render import file_headers

OPERATION: Final = "export-self"


class ExportPages:
    """The page that says what is in the file, and the button that fetches it."""

    def __init__(self, room: PatientRoom) -> None:
        self._room = room

    def routes(self) -> Sequence[tuple[str, str, Handler]]:
        """Path, method and handler of each page."""
        return (
            (EXPORT, "GET", portal_page(self.show)),
            (EXPORT, "POST", portal_page(self.fetch, back=EXPORT)),
        )

    async def show(self, request: Request) -> Response:
        here = await self._room.at(request)
        return self._room.page(
            here,
            "portal_export.html",
            action=EXPORT,
            form_token=self._room.form_token(here, EXPORT),
        )

    async def fetch(self, request: Request) -> Response:
        """Send the file. The browser stays where it is, and asks where to keep it."""
        here, _ = await self._room.posted(request, EXPORT)
        patient = here.record.patient.partition("/")[2]
        asked = FhirRequest("operation", "Patient", patient, operation=OPERATION)
        room = self._room.downloads.room(here.auth)
        try:
            answer = await self._room.perform(here, asked)
            assert answer.stream is not None  # noqa: S101 - the operation always gives one
            headers = [*file_headers(), *saved_as(answer.stream)]
            chunks = answer.stream.chunks()
            return Sent(self._room.downloads, here.auth, chunks, headers=headers, room=room)
        except BaseException:
            room.close()
            raise
