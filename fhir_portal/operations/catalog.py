"""The table of operations, and how a call reaches one of them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlencode

import msgspec

from fhir_portal.access.context import AuthContext
from fhir_portal.access.offered import require_offered
from fhir_portal.access.operations import OPERATIONS as RULES
from fhir_portal.access.policy import Deny, decide_operation
from fhir_portal.fhir.errors import Forbidden, MethodNotAllowed, NotSupported, UnknownOperation
from fhir_portal.fhir.interaction import FhirRequest, FhirResponse
from fhir_portal.operations.account_close import account_close
from fhir_portal.operations.account_disable import account_disable
from fhir_portal.operations.account_enable import account_enable
from fhir_portal.operations.amount_due import amount_due
from fhir_portal.operations.assign import assign
from fhir_portal.operations.attachment import attachment
from fhir_portal.operations.balance import balance
from fhir_portal.operations.book import book
from fhir_portal.operations.calendar import calendar
from fhir_portal.operations.call import Call, Collaborators, Operation
from fhir_portal.operations.cancel_form import cancel_form
from fhir_portal.operations.cancel_proposal import cancel_proposal
from fhir_portal.operations.ccd import ccd
from fhir_portal.operations.check_in import check_in
from fhir_portal.operations.close_thread import close, reopen
from fhir_portal.operations.confirm_proxy import confirm_proxy
from fhir_portal.operations.definition import definition_of, posted, queried
from fhir_portal.operations.dispute import answer_dispute, dispute
from fhir_portal.operations.docref import docref
from fhir_portal.operations.end_grant import end_grant
from fhir_portal.operations.end_session import end_session
from fhir_portal.operations.export_self import export_self
from fhir_portal.operations.extract import extract
from fhir_portal.operations.file_attachment import file_attachment
from fhir_portal.operations.find import find
from fhir_portal.operations.health_cards_issue import health_cards_issue
from fhir_portal.operations.hold import hold
from fhir_portal.operations.immunization_certificate import immunization_certificate
from fhir_portal.operations.invite_resend import invite_resend
from fhir_portal.operations.invite_revoke import invite_revoke
from fhir_portal.operations.label_rules import label_rules, set_label_rules
from fhir_portal.operations.labelled import labelled
from fhir_portal.operations.labels import hold_back, label, labels, release
from fhir_portal.operations.mark_read import mark_read
from fhir_portal.operations.match import match
from fhir_portal.operations.merge import merge
from fhir_portal.operations.message_drafts import discard_draft, drafts, save_draft
from fhir_portal.operations.message_events import message_events
from fhir_portal.operations.message_options import message_options
from fhir_portal.operations.next_question import next_question
from fhir_portal.operations.pay import pay
from fhir_portal.operations.payment_plan import cancel_plan, payment_plan
from fhir_portal.operations.payment_state import payment_state
from fhir_portal.operations.payments import payments
from fhir_portal.operations.populate import populate
from fhir_portal.operations.portal_account import portal_account
from fhir_portal.operations.portal_accounts import portal_accounts
from fhir_portal.operations.portal_dashboard import portal_dashboard
from fhir_portal.operations.portal_invite import portal_invite
from fhir_portal.operations.portal_people import portal_people
from fhir_portal.operations.print_instructions import print_instructions
from fhir_portal.operations.propose_update import propose_update
from fhir_portal.operations.prove_contact import prove_contact
from fhir_portal.operations.receipt import receipt
from fhir_portal.operations.refill import answer_refill, refill_status, request_refill
from fhir_portal.operations.render import render
from fhir_portal.operations.reply import reply
from fhir_portal.operations.request_form import request_form
from fhir_portal.operations.require_credential_renewal import require_credential_renewal
from fhir_portal.operations.review_document import review_document
from fhir_portal.operations.review_form import review_form
from fhir_portal.operations.review_proposal import review_proposal
from fhir_portal.operations.revoke_app import revoke_app
from fhir_portal.operations.send import send
from fhir_portal.operations.share_link import end_share_link, share_link, share_links
from fhir_portal.operations.start_recovery import (
    approve_recovery,
    cancel_recovery,
    start_recovery,
)
from fhir_portal.operations.summary import RENDERED, summary
from fhir_portal.operations.task_done import task_done
from fhir_portal.operations.thread import thread
from fhir_portal.operations.threads import threads
from fhir_portal.operations.transmit import transmissions, transmit, transmit_options
from fhir_portal.operations.undo_merge import undo_merge
from fhir_portal.operations.upload import upload
from fhir_portal.resources.server import Server
from fhir_portal.resources.writing import names_version

_OK: Final = 200

OPERATIONS: Final[Mapping[str, Operation]] = {
    "portal-account": portal_account,
    "account-disable": account_disable,
    "account-enable": account_enable,
    "require-credential-renewal": require_credential_renewal,
    "end-session": end_session,
    "revoke-app": revoke_app,
    "portal-accounts": portal_accounts,
    "merge": merge,
    "undo-merge": undo_merge,
    "portal-invite": portal_invite,
    "invite-resend": invite_resend,
    "invite-revoke": invite_revoke,
    "print-instructions": print_instructions,
    "match": match,
    "start-recovery": start_recovery,
    "approve-recovery": approve_recovery,
    "portal-people": portal_people,
    "find": find,
    "hold": hold,
    "book": book,
    "check-in": check_in,
    "amount-due": amount_due,
    "pay": pay,
    "payment": payment_state,
    "balance": balance,
    "payments": payments,
    "dispute": dispute,
    "answer-dispute": answer_dispute,
    "payment-plan": payment_plan,
    "cancel-plan": cancel_plan,
    "receipt": receipt,
    "portal-dashboard": portal_dashboard,
    "task-done": task_done,
    "account-close": account_close,
    "end-grant": end_grant,
    "confirm-proxy": confirm_proxy,
    "cancel-recovery": cancel_recovery,
    "summary": summary,
    "ccd": ccd,
    "immunization-certificate": immunization_certificate,
    "health-cards-issue": health_cards_issue,
    "docref": docref,
    "render": render,
    "calendar": calendar,
    "message-options": message_options,
    "send": send,
    "reply": reply,
    "mark-read": mark_read,
    "close": close,
    "reopen": reopen,
    "assign": assign,
    "thread": thread,
    "threads": threads,
    "message-events": message_events,
    "save-draft": save_draft,
    "drafts": drafts,
    "discard-draft": discard_draft,
    "file-attachment": file_attachment,
    "attachment": attachment,
    "request-refill": request_refill,
    "refill-status": refill_status,
    "answer-refill": answer_refill,
    "request-form": request_form,
    "cancel-form": cancel_form,
    "populate": populate,
    "next-question": next_question,
    "extract": extract,
    "review-form": review_form,
    "export-self": export_self,
    "upload": upload,
    "review-document": review_document,
    "propose-update": propose_update,
    "cancel-proposal": cancel_proposal,
    "prove-contact": prove_contact,
    "review-proposal": review_proposal,
    "share-link": share_link,
    "share-links": share_links,
    "end-share": end_share_link,
    "label-rules": label_rules,
    "set-label-rules": set_label_rules,
    "labelled": labelled,
    "labels": labels,
    "label": label,
    "release": release,
    "hold-back": hold_back,
    "transmit": transmit,
    "transmit-options": transmit_options,
    "transmissions": transmissions,
}

NATIVE: Final[Mapping[str, Mapping[str, str]]] = {
    "summary": {media.partition(";")[0]: word for word, (media, _) in RENDERED.items()},
    "ccd": {},
    "immunization-certificate": {"application/pdf": "pdf", "text/html": "html"},
    "render": {},
    "calendar": {},
    "receipt": {"application/pdf": "pdf", "text/html": "html"},
    "export-self": {},
}
"""Operations that can answer with a Binary's own content, and the ``format`` by which each media
type is asked for."""

STREAMED: Final = frozenset({"export-self"})
"""Those of them whose answer is a stream, which is no entry of a Bundle."""


def methods_at(request: FhirRequest) -> tuple[str, ...]:
    """Return the methods an operation has at its address; none when there is no such operation."""
    if not is_offered(request):
        return ()
    changes = definition_of(request.operation or "").affects_state
    return ("POST",) if changes else ("GET", "HEAD", "POST")


def is_offered(request: FhirRequest) -> bool:
    """Whether the operation of a request exists at its address."""
    code = request.operation
    if code is None or code not in OPERATIONS:
        return False
    return definition_of(code).is_at(request.type, instance=request.id is not None)


def changes_something(request: FhirRequest) -> bool:
    """Whether a request for an operation may have changed something when it was answered."""
    return is_offered(request) and definition_of(request.operation or "").affects_state


async def operate(
    server: Server, collaborators: Collaborators, request: FhirRequest, auth: AuthContext
) -> FhirResponse:
    """Carry out an operation for a caller; what a query asked for is said to the access log.

    Raises:
        UnknownOperation, MethodNotAllowed, NotSupported, Forbidden: before anything of the
            parameters is read. A condition would be ignored, so it is refused.
    """
    code = request.operation or ""
    if not is_offered(request):
        message = "there is no such operation at this address"
        raise UnknownOperation(message)
    definition = definition_of(code)
    if request.is_get and definition.affects_state:
        message = f"${code} changes something: use POST"
        raise MethodNotAllowed(message)
    if request.if_match is not None or request.if_none_exist is not None:
        message = "an operation takes no condition: send it without If-Match and If-None-Exist"
        raise NotSupported(message)
    decision = decide_operation(auth, code, server.clock())
    if isinstance(decision, Deny):
        raise Forbidden(decision.reason)
    feature = RULES[code].feature
    if feature is not None:
        await require_offered(server.store, auth, feature)
    if request.is_get:
        arguments = queried(definition, request.query)
    else:
        arguments = posted(definition, request.body)
    call = Call(server, collaborators, definition, request, auth, arguments, decision.visible)
    answer = await OPERATIONS[code](call)
    if request.is_get:
        answer = _tagged(answer, request.if_none_match)
    if request.is_get and request.query:
        return msgspec.structs.replace(answer, detail=urlencode(request.query))
    return answer


def _tagged(answer: FhirResponse, if_none_match: str | None) -> FhirResponse:
    """Return an answer with an entity tag of what it says, or 304 for who has that (RFC 9110 §13).

    What it was made of has no version of its own.
    """
    made = answer.binary is not None or answer.stream is not None
    if answer.version is not None or made or answer.status != _OK:
        return answer
    version = int.from_bytes(hashlib.sha256(answer.body).digest()[:6])
    if if_none_match is not None and names_version(if_none_match, version):
        return msgspec.structs.replace(answer, status=304, body=b"", version=version)
    return msgspec.structs.replace(answer, version=version)


def operations_of(resource_type: str | None) -> list[dict[str, Any]]:
    """Return what the CapabilityStatement says of a type's operations (``None``: the server's)."""
    found = [definition_of(code) for code in OPERATIONS]
    return [
        {"name": one.code, "definition": one.url}
        for one in sorted(found, key=lambda one: one.code)
        if one.is_at(resource_type, instance=True) or one.is_at(resource_type, instance=False)
    ]
