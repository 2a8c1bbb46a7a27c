"""``/portal/details``: the personal details on file, where each is from, and changes of them."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response

from fhir_portal.access.owners import local_target
from fhir_portal.accounts.policy import policy_of
from fhir_portal.fhir.errors import (
    Conflict,
    Forbidden,
    NotFound,
    PreconditionFailed,
    TooLarge,
    Unprocessable,
)
from fhir_portal.operations.direct_change import direct_fields
from fhir_portal.resources.proposal import FIELDS, value_of
from fhir_portal.web.downloads import while_allowed
from fhir_portal.web.form import parse_pairs
from fhir_portal.web.pages.desk import Answer
from fhir_portal.web.pages.detail_fields import (
    CONTACTS,
    MARITAL,
    PRONOUNS,
    WrongField,
    details_in,
    details_of,
    emptied,
)
from fhir_portal.web.pages.portal import DETAILS, AtPortal, PatientRoom, portal_page
from fhir_portal.web.pages.portal_proposals import MEDICINES, ProposalList, Proposals
from fhir_portal.web.pages.proposal_words import FIELDS as LABELS
from fhir_portal.web.pages.proposal_words import LANGUAGES, words_of
from fhir_portal.web.pages.refusals import Handler, refusal_words
from fhir_portal.web.pages.render import attached, redirect
from fhir_portal.web.upload_form import attachment_of

SECTION: Final = "demographics"
CHANGE: Final = f"{DETAILS}/change"
PHOTO: Final = f"{DETAILS}/photo"
_ON_FILE: Final = tuple(one for one in FIELDS["Patient"] if one != "photo")
_NOTHING: Final = "Nothing was changed."
_MEANWHILE: Final = "The record was changed meanwhile. This is how it is now: change it again."
_DONE: Final[Mapping[str, str]] = {
    "proposed": "Thank you. The practice looks at it, and you are told when there is an answer.",
    "changed": "Your details are changed.",
    "partly": "Some of it is changed now. The practice looks at the rest, and you are told when "
    "there is an answer.",
    "to-prove": "A code is on its way. Type it below, and your details are changed.",
    "several": "Thank you. A code is on its way: type it below. What else waits, and what is "
    "changed already, stands there, too.",
    "cancelled": "It was taken back.",
    "code-sent": "Another code is on its way.",
    "proved": "Thank you. The code was right.",
    "no-code": "Type the code that came.",
}


class DetailPages:
    """The details of the record that is open."""

    def __init__(self, room: PatientRoom, proposals: ProposalList) -> None:
        self._room = room
        self._proposals = proposals

    def routes(self) -> Sequence[tuple[str, str, Handler]]:
        """Path, method and handler of each page."""
        return (
            (DETAILS, "GET", portal_page(self.show)),
            (CHANGE, "GET", portal_page(self.show_form, back=DETAILS)),
            (CHANGE, "POST", portal_page(self.change, back=CHANGE)),
            (PHOTO, "GET", portal_page(self.photo, back=DETAILS)),
            (PHOTO, "POST", portal_page(self.change_photo, back=DETAILS)),
        )

    async def show(self, request: Request) -> Response:
        here = await self._room.at(request)
        if not here.sees(SECTION):
            raise Forbidden("the grant does not show this section")
        given = dict(parse_pairs(request.scope["query_string"]))
        return await self._page(here, done=_DONE.get(given.get("done", ""), ""))

    async def _page(self, here: AtPortal, *, done: str = "", problem: str = "") -> Response:
        patient, _ = await self._patient(here)
        proposals = await self._proposals.of(here, SECTION)
        return self._room.page(
            here,
            "portal_details.html",
            status=400 if problem else 200,
            done=done,
            problem=problem,
            on_file=[
                (LABELS[field], words_of(value), self._source(here, patient, field, proposals))
                for field in _ON_FILE
                if (value := value_of(patient, field)) is not None
            ],
            photo=PHOTO if _photo_of(patient) else "",
            photo_source=self._source(here, patient, "photo", proposals),
            proposals=self._proposals.shown(here, SECTION, proposals),
            change=CHANGE if here.acts(SECTION) else "",
            photo_at_once="photo" in await self._direct(here),
            not_taken=MEDICINES if here.sees("medications") else "",
            photo_action=PHOTO,
            photo_token=self._room.form_token(here, PHOTO),
        )

    def _source(
        self, here: AtPortal, patient: Mapping[str, Any], field: str, proposals: Proposals
    ) -> str:
        """Say where a value comes from: who proposed it and when, or the practice."""
        key = f"Patient/{patient['id']}"
        task = proposals.source_of(key, field, value_of(patient, field))
        if task is None:
            return f"from {here.record.practice_name}"
        by = str((task.get("requester") or {}).get("reference", ""))
        who = "you" if by == here.auth.fhir_user else "somebody else of the patient's side"
        return f"proposed by {who} on {here.moment(task.get('authoredOn'))}"

    # --- changing ------------------------------------------------------------------------------

    async def show_form(self, request: Request) -> Response:
        here = await self._room.acting(request, SECTION)
        patient, version = await self._patient(here)
        return self._form(here, details_in(patient), version)

    async def change(self, request: Request) -> Response:
        """Propose what the form changes."""
        here, form = await self._room.posted(request, CHANGE)
        here.require_act(SECTION)
        patient, version = await self._patient(here)
        typed = details_in(patient) | {
            name: value for name, value in form.items() if name in details_in(patient)
        }
        seen = form.get("version", "")[:20]
        try:
            tree = details_of(patient, typed)
            cleared = emptied(patient, typed)
        except WrongField as error:
            return self._form(here, typed, seen, problem=str(error), wrong=error.field)
        if set(tree) == {"resourceType"} and not cleared:
            return self._form(here, typed, version, problem=_NOTHING)
        note = " ".join(form.get("note", "").split())[:500]
        try:
            found = await self._room.call(
                here,
                "propose-update",
                here.record.patient,
                ("patient", "resource", tree if len(tree) > 1 else None),
                *(("clear", "valueCode", one) for one in cleared),
                ("version", "valueString", seen or version),
                ("note", "valueString", note or None),
            )
        except PreconditionFailed:
            return self._form(here, details_in(patient), version, problem=_MEANWHILE)
        except (Unprocessable, Conflict) as error:
            return self._form(here, typed, seen, problem=refusal_words(error))
        return redirect(f"{DETAILS}?done={await self._done(here, found)}")

    def _form(
        self,
        here: AtPortal,
        values: Mapping[str, str],
        version: str,
        *,
        problem: str = "",
        wrong: str = "",
    ) -> Response:
        return self._room.page(
            here,
            "portal_details_change.html",
            status=400 if problem else 200,
            problem=problem,
            wrong=wrong,
            given=values,
            contacts=[(field, label) for field, (_, _, label) in CONTACTS.items()],
            languages=_with_own(LANGUAGES, values["language"]),
            marital=_with_own(MARITAL, values["marital"]),
            pronouns=PRONOUNS,
            version=version,
            action=CHANGE,
            back=DETAILS,
            form_token=self._room.form_token(here, CHANGE),
        )

    # --- the photo -----------------------------------------------------------------------------

    async def photo(self, request: Request) -> Response:
        """The picture on file, for the page."""
        here = await self._room.at(request)
        patient, _ = await self._patient(here)
        key = local_target(str((_photo_of(patient) or {}).get("url", "")))
        if key is None or key.type != "Binary":
            raise NotFound
        found = (await self._room.ask(here, "read", "Binary", key.id)).tree
        content = base64.b64decode(found.get("data", ""))
        answer = attached(content, "photo", str(found.get("contentType", "")))
        return while_allowed(self._room.downloads, here.auth, answer)

    async def change_photo(self, request: Request) -> Response:
        """Propose another picture, or none."""
        here, form, files = await self._room.with_files(request, PHOTO)
        here.require_act(SECTION)
        patient, version = await self._patient(here)
        given: tuple[tuple[str, str, Any], ...]
        if form.get("do") == "remove":
            given = (("clear", "valueCode", "photo"), ("version", "valueString", version))
            if not _photo_of(patient):
                return await self._page(here, problem="There is no photo.")
        else:
            if len(files) != 1:
                return await self._page(here, problem="Choose one picture.")
            given = (("photo", "valueAttachment", attachment_of(files[0])),)
        try:
            found = await self._room.call(here, "propose-update", here.record.patient, *given)
        except (Unprocessable, Conflict, TooLarge) as error:
            return await self._page(here, problem=refusal_words(error))
        return redirect(f"{DETAILS}?done={await self._done(here, found)}")

    async def _done(self, here: AtPortal, found: Answer) -> str:
        """Return what became of a proposal: changed at once, as soon as a code comes, or not yet.

        What was changed has one Task, what is to be proved has another.
        """
        changed = bool(found.values("changed"))
        proves = bool(found.values("to-prove")) and "telecom" in await self._direct(here)
        waits = len(found.values("task")) > changed + proves
        if proves:
            return "several" if changed or waits else "to-prove"
        if changed:
            return "partly" if waits else "changed"
        return "proposed"

    async def _direct(self, here: AtPortal) -> Sequence[str]:
        """Return the fields that whoever is there changes without the practice."""
        policy = await policy_of(self._room.store, here.session.practice)
        return direct_fields(policy, here.auth)

    # --- who is there --------------------------------------------------------------------------

    async def _patient(self, here: AtPortal) -> tuple[Mapping[str, Any], str]:
        own_id = here.record.patient.partition("/")[2]
        found = await self._room.ask(here, "read", "Patient", own_id)
        return found.tree, str(found.version)


def _photo_of(patient: Mapping[str, Any]) -> Mapping[str, Any] | None:
    return next(iter(patient.get("photo") or ()), None)


def _with_own(known: Mapping[str, str], own: str) -> dict[str, str]:
    """A choice with what is on file, if it is none of the list."""
    return dict(known) if not own or own in known else {own: own, **known}
