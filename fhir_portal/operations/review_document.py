"""``DocumentReference/[id]/$review-document``: staff take in what somebody brought, or do not."""

from __future__ import annotations

from typing import Any, Final

from fhir_portal.access.owners import local_target
from fhir_portal.access.relation import Relations
from fhir_portal.access.visibility import Visibility
from fhir_portal.accounts.account import Account
from fhir_portal.consent.labels import PROXY_LABELS, SELF_LABELS, is_supplied
from fhir_portal.fhir import json
from fhir_portal.fhir.datetime import instant
from fhir_portal.fhir.errors import Conflict, Unprocessable
from fhir_portal.fhir.interaction import FhirResponse
from fhir_portal.notify import outbox
from fhir_portal.notify.recipients import RECORD, to_account
from fhir_portal.operations.authorship import Author
from fhir_portal.operations.call import Call
from fhir_portal.operations.definition import parameter
from fhir_portal.operations.message_thread import LONGEST_SUBJECT, plain_text
from fhir_portal.operations.on_file import account_of_record
from fhir_portal.operations.portal_invite import practice_of
from fhir_portal.operations.upload import written_on
from fhir_portal.resources.store import ResourceTransaction, Row
from fhir_portal.resources.task import CODE, OPEN, REVIEW_DOCUMENT
from fhir_portal.resources.writing import create_in, update_in
from fhir_portal.search.request import parse_search

_LONGEST_REASON: Final = 500
_MICROSECONDS: Final = 1_000_000
_STATUS: Final = {"accept": "final", "refuse": "entered-in-error"}


async def review_document(call: Call) -> FhirResponse:
    """Say what becomes of it, end its Task and tell whose it is, in one transaction.

    Raises:
        Unprocessable: it is no document that somebody brought, or what is said of it is wrong.
        Conflict: it was decided about already, in another way.
    """
    decision = str(call.arguments.one("decision"))
    if decision not in _STATUS:
        message = f"decision is one of {', '.join(_STATUS)}"
        raise Unprocessable(message, expression=parameter("decision"))
    reason = _words(call, "reason", _LONGEST_REASON)
    if decision == "refuse" and not reason:
        message = "say why: the patient reads it"
        raise Unprocessable(message, expression=parameter("reason"))
    changes = _changes(call, decision)

    async def work(transaction: ResourceTransaction) -> Row:
        await call.server.still(transaction, call.auth)
        row = await call.target(transaction)
        tree = json.parse(row.body)
        if not is_supplied(tree):
            message = "this is no document that somebody of the patient's side sent"
            raise Unprocessable(message)
        if tree.get("docStatus") == _STATUS[decision] and not changes:
            await _end_tasks(transaction, call, row, reason)  # an EHR may have decided by itself
            return row
        if tree.get("docStatus") != "preliminary" or tree.get("status") != "current":
            message = "this document was decided about already"
            raise Conflict(message)
        decided = await _decided(transaction, call, row, tree, decision, changes)
        await _note(transaction, call, decided, reason)
        await _end_tasks(transaction, call, row, reason)
        for to in await _to_tell(transaction, call, decided, tree):
            await outbox.enqueue(
                transaction,
                key=f"document.{row.key.id}.{to.partition(':')[0]}",
                practice=call.auth.practice,
                channel="mail",
                to=to,
                template="document-reviewed",
                now=call.server.clock(),
            )
        return decided

    row = await call.server.store.transact(work)
    values = {"document": {"reference": str(row.key)}, "status": _STATUS[decision]}
    return call.answer(values, row)


async def _to_tell(
    transaction: ResourceTransaction, call: Call, row: Row, tree: dict[str, Any]
) -> list[str]:
    """Return whom to tell: the patient, and who sent it for them; each as far as they see it."""
    labels, practice = row.facts.visibility_class.labels, call.auth.practice
    if len(row.facts.owners) != 1 or not labels <= SELF_LABELS:
        return []
    patient = f"Patient/{row.facts.owners[0]}"
    found = [f"{RECORD}{practice}/{patient}"]
    author = local_target(str(((tree.get("author") or [{}])[0]).get("reference") or ""))
    if author is None or author.type != "RelatedPerson" or not labels <= PROXY_LABELS:
        return found
    key = await account_of_record(transaction, practice, author)
    account = await transaction.get(Account, key or "")
    if account is None:
        return found
    relations = Relations(transaction, call.server.clock)
    record = await relations.record_of(account, practice, patient)
    if record is not None and record.fhir_user == str(author):
        sections = record.sections
        if sections is None or "documents" in sections:
            found.append(to_account(account.key))
    return found


def _changes(call: Call, decision: str) -> dict[str, Any]:
    """Return what staff say of it in the place of what was said: of what is accepted alone."""
    title = _words(call, "title", LONGEST_SUBJECT)
    kind, written = call.arguments.one("type"), written_on(call)
    found = {
        name: value
        for name, value in (("title", title), ("type", kind), ("date", written))
        if value
    }
    if found and decision == "refuse":
        message = "what is not taken has no other kind, title or date"
        raise Unprocessable(message, expression=parameter(next(iter(found))))
    if kind is not None and not (
        kind.get("text") or any(one.get("code") for one in kind.get("coding") or ())
    ):
        message = "give the kind a code or words"
        raise Unprocessable(message, expression=parameter("type"))
    return found


async def _decided(
    transaction: ResourceTransaction,
    call: Call,
    row: Row,
    tree: dict[str, Any],
    decision: str,
    changes: dict[str, Any],
) -> Row:
    tree["docStatus"] = _STATUS[decision]
    if decision == "refuse":
        tree["status"] = "entered-in-error"
    if call.auth.staff is not None:
        tree["authenticator"] = {"reference": call.auth.staff.fhir_user}
    if "title" in changes:
        tree["description"] = changes["title"]
    if "type" in changes:
        tree["type"] = changes["type"]
    if "date" in changes:
        tree["content"][0]["attachment"]["creation"] = changes["date"]
    written = await update_in(
        transaction, call.server, call.as_practice, tree,
        Visibility.of_server("DocumentReference", practice=call.auth.practice),
        key=row.key, if_match=f'W/"{row.version}"', if_none_match=None,
    )  # fmt: skip
    return written.row


async def _note(transaction: ResourceTransaction, call: Call, row: Row, reason: str) -> None:
    """Store the Provenance. It is seen with the document: whoever sent it reads why."""
    practice = await practice_of(transaction, call.auth.practice)
    said = Author.of(call.auth, practice).provenance(
        [str(row.key)], at=call.server.clock(), activity="UPDATE", reason=reason
    )
    del said["meta"]
    await create_in(
        transaction, call.server, call.as_practice, said,
        Visibility.of_server("Provenance", practice=call.auth.practice),
        resource_id=call.server.new_id(),
    )  # fmt: skip


async def _end_tasks(transaction: ResourceTransaction, call: Call, row: Row, reason: str) -> None:
    visible = Visibility.of_server("Task", practice=call.auth.practice)
    search = parse_search(
        "Task",
        [
            ("focus", str(row.key)),
            ("code", f"{CODE}|{REVIEW_DOCUMENT}"),
            ("status", ",".join(sorted(OPEN))),
        ],
        base=call.server.base,
    )
    page = await transaction.search(search, visible)
    for task in page.rows:
        tree = json.parse(task.body)
        tree["status"] = "completed"
        tree["lastModified"] = instant(int(call.server.clock() * _MICROSECONDS))
        if call.auth.staff is not None:
            tree["owner"] = {"reference": call.auth.staff.fhir_user}
        if reason:
            tree["statusReason"] = {"text": reason}
        await update_in(
            transaction, call.server, call.as_practice, tree, visible,
            key=task.key, if_match=f'W/"{task.version}"', if_none_match=None,
        )  # fmt: skip


def _words(call: Call, name: str, longest: int) -> str:
    given = call.arguments.one(name)
    return "" if given is None else plain_text(given, name, longest)
