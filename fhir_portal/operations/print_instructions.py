"""``Task/[id]/$print-instructions``: a sheet to hand over or to post; each one is a new attempt."""

from __future__ import annotations

import asyncio
import base64
from typing import Final

from fhir_portal.access.visibility import Visibility
from fhir_portal.accounts.invitation import Channel, Invitation
from fhir_portal.accounts.practice import Practice
from fhir_portal.documents.instruction_sheet import LANGUAGES, Sheet, as_html, as_pdf
from fhir_portal.fhir import json
from fhir_portal.fhir.errors import Unprocessable
from fhir_portal.fhir.interaction import FhirResponse
from fhir_portal.fhir.reference import ResourceKey
from fhir_portal.notify.letterhead import letterhead_of
from fhir_portal.operations.attempts import attempt_again
from fhir_portal.operations.call import Call
from fhir_portal.operations.definition import parameter
from fhir_portal.operations.invitation_task import invitation_of
from fhir_portal.operations.invitation_way import HANDED_OVER
from fhir_portal.operations.inviting import invitation_secrets
from fhir_portal.operations.on_file import initials
from fhir_portal.operations.portal_invite import hours_of, practice_of, words
from fhir_portal.resources.store import ResourceTransaction, Row

_FORMATS: Final = {"pdf": "application/pdf", "html": "text/html; charset=utf-8"}
_PAPER: Final[Channel] = "paper"


async def print_instructions(call: Call) -> FhirResponse:
    """Print the instructions of an invitation, as a Binary that is stored nowhere.

    What was sent or printed before is void. That it was printed is in the access log, and with who
    did it and why in the Provenance.
    """
    secrets = invitation_secrets(call.collaborators.derive)
    form = call.arguments.one("format") or "pdf"
    language = call.arguments.one("language") or "en"
    for name, value, known in (("format", form, _FORMATS), ("language", language, LANGUAGES)):
        if value not in known:
            message = f"{name} is one of {', '.join(known)}"
            raise Unprocessable(message, expression=parameter(name))
    reason = words(call, "reason") or "instructions printed"

    async def work(
        transaction: ResourceTransaction,
    ) -> tuple[Invitation, list[Row], Practice, str, str]:
        await call.server.still(transaction, call.auth)
        row = await call.target(transaction)
        channel = await _channel(call, transaction, row)
        again, rows = await attempt_again(
            call, transaction, secrets,
            channel=channel, contact=None, lifetime=hours_of(call), reason=reason,
        )  # fmt: skip
        practice = await practice_of(transaction, call.auth.practice)
        head = await letterhead_of(transaction, practice.key, portal=call.collaborators.base)
        return again, rows, practice, head.phone, await _initials(transaction, again)

    again, rows, practice, phone, whom = await call.server.store.transact(work)
    own = secrets.of(again)
    site = call.collaborators.base
    sheet = Sheet(
        practice=practice.name,
        phone=phone,
        zone=practice.zone,
        portal=f"{site}/activate",
        link=f"{site}/activate/{own.link}",
        code=own.code,
        portal_id=own.portal_id,
        word=own.word,
        initials=whom,
        expires=again.ends,
        language=language,
        large=call.arguments.one("large-print") is True,
    )
    if form == "html":
        content = as_html(sheet)
    else:  # it takes some tenths of a second
        content = await asyncio.to_thread(as_pdf, sheet, now=call.server.clock())
    tree = {
        "resourceType": "Binary",
        "contentType": _FORMATS[form],
        "data": base64.b64encode(content).decode(),
    }
    return call.answered(tree, *rows)


async def _channel(call: Call, transaction: ResourceTransaction, row: Row) -> Channel:
    """Return by which channel a printed sheet goes: as before, where that was on paper."""
    found = await invitation_of(transaction, call.auth.practice, row.key.id)
    return found.channel if found is not None and found.channel in HANDED_OVER else _PAPER


async def _initials(transaction: ResourceTransaction, invitation: Invitation) -> str:
    key = ResourceKey.parse(invitation.persons[0])
    visible = Visibility.of_server(key.type, practice=invitation.practice)
    row = await transaction.read(key, visible)
    return initials(json.parse(row.body)) if row is not None and not row.deleted else ""
