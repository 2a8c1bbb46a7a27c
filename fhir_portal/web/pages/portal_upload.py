"""The portal's page by which a document is sent to the practice."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from fhir_portal.documents.upload import FILE_BYTES
from fhir_portal.fhir.errors import FhirError, Forbidden, Invalid, TooLarge, Unprocessable
from fhir_portal.operations.upload import A_DAY, kinds
from fhir_portal.web.pages.form_key import identifier_of
from fhir_portal.web.pages.portal import DOCUMENTS, AtPortal, PatientRoom, portal_page
from fhir_portal.web.pages.portal_documents import NEW
from fhir_portal.web.pages.refusals import Handler
from fhir_portal.web.pages.render import redirect
from fhir_portal.web.upload_form import attachments_of

_LONGEST: Final = 150


class PortalUploadPages:
    """The form, and what becomes of it."""

    def __init__(self, room: PatientRoom) -> None:
        self._room = room

    def routes(self) -> Sequence[tuple[str, str, Handler]]:
        """Path, method and handler of each page."""
        return (
            (NEW, "GET", portal_page(self.show, back=DOCUMENTS)),
            (NEW, "POST", portal_page(self.send, back=DOCUMENTS)),
        )

    async def show(self, request: Request) -> Response:
        here = await self._room.at(request)
        return self._form(here, {})

    async def send(self, request: Request) -> Response:
        """Send it. Of a form that is sent twice the document is there once."""
        here, form, files = await self._room.received(request, NEW)
        if len(files) != 1:
            return self._form(here, form, problem="Choose one file.")
        try:
            await self._room.call(
                here,
                "upload",
                "DocumentReference",
                ("identifier", "valueIdentifier", identifier_of(form)),
                *attachments_of(files),
                ("title", "valueString", form.get("title") or None),
                ("type", "valueCode", form.get("type") or None),
                ("date", "valueDate", form.get("date") or None),
                ("confidential", "valueBoolean", form.get("confidential") == "yes" or None),
            )
        except (Invalid, Unprocessable, TooLarge) as error:
            return self._form(here, form, problem=_words(error))
        return redirect(f"{DOCUMENTS}?done=sent")

    def _form(self, here: AtPortal, given: Mapping[str, str], *, problem: str = "") -> Response:
        if not here.acts("documents"):
            raise Forbidden("this person may not send documents here")
        return self._room.page(
            here,
            "portal_upload.html",
            status=400 if problem else 200,
            problem=problem,
            action=NEW,
            form_token=self._room.form_token(here, NEW),
            key=self._room.new_key(),
            kinds=list(kinds().items()),
            own=here.auth.is_self,
            megabytes=FILE_BYTES // (1024 * 1024),
            a_day=A_DAY,
            given={
                name: given.get(name, "")[:_LONGEST]
                for name in ("title", "type", "date", "confidential")
            },
            back=DOCUMENTS,
        )


def _words(error: FhirError) -> str:
    words = "; ".join(one.diagnostics for one in error.issues if one.diagnostics)
    return f"{words[:1].upper()}{words[1:]}".rstrip(".") + "."
