"""What follows from answers, in the transaction that stores them.

Open requests for the form are in progress, or done. What a person hands in gets its Provenance,
and where the form says how, a Task by which staff decide what of it becomes part of the record.
Of what an EHR writes nothing is proposed: it is the record already.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from fhir_portal.access.context import AuthContext, acting_for
from fhir_portal.access.owners import own_patients
from fhir_portal.access.visibility import Visibility
from fhir_portal.consent.grant import IG
from fhir_portal.consent.labels import CONFIDENTIALITY, PROXY_LABELS, SELF_LABELS
from fhir_portal.fhir import json
from fhir_portal.fhir.datetime import instant
from fhir_portal.fhir.errors import Unprocessable
from fhir_portal.fhir.reference import ResourceKey
from fhir_portal.resources.forms.extract import Proposal, is_extractable, proposals
from fhir_portal.resources.forms.known import known_form
from fhir_portal.resources.forms.questionnaire_response import DONE
from fhir_portal.resources.forms.request import (
    FORM_TASK,
    OPEN,
    REVIEW,
    answered_by,
    concept,
    open_requests,
    tasks_of,
    with_answers,
)
from fhir_portal.resources.server import Server
from fhir_portal.resources.store import ResourceReader, ResourceTransaction, Row

BASE: Final = f"{IG}/StructureDefinition/proposal-base"
_AGENT: Final = "http://terminology.hl7.org/CodeSystem/provenance-participant-type"
_OPERATION: Final = "http://terminology.hl7.org/CodeSystem/v3-DataOperation"
_MICROSECONDS: Final = 1_000_000
_MOST_WAITING: Final = 50
_FOLLOWED: Final = frozenset({"in-progress", *DONE})


@dataclass(frozen=True, slots=True)
class Writing:
    """`fhir_portal.resources.writing`, which calls this and is called by it."""

    create_in: Callable[..., Awaitable[Any]]
    update_in: Callable[..., Awaitable[Any]]


async def require_asked(
    transaction: ResourceTransaction, auth: AuthContext, tree: Mapping[str, Any]
) -> None:
    """Let a form that was asked of certain people be answered by them alone.

    Raises `Unprocessable`.
    """
    patients, canonical = own_patients(tree), tree.get("questionnaire")
    if auth.context == "system" or len(patients) != 1 or not canonical:
        return
    rows = await known_requests(transaction, auth, patients[0], canonical)
    named = [
        await answered_by(transaction, auth.practice, str(row.key), json.parse(row.body))
        for row in rows
    ]
    if named and all(one and auth.fhir_user not in one for one in named):
        message = "the practice has asked somebody else to fill in this form"
        raise Unprocessable(message, expression="QuestionnaireResponse.source")


async def keep_confidential(
    transaction: ResourceTransaction, auth: AuthContext, tree: dict[str, Any]
) -> None:
    """Give a person's answers the labels of the request that they answer, in place."""
    patients, canonical = own_patients(tree), tree.get("questionnaire")
    if auth.context == "system" or len(patients) != 1 or not canonical:
        return
    labels = list[Any]()
    for row in await known_requests(transaction, auth, patients[0], canonical):
        if row.facts.visibility_class.labels:
            labels += (json.parse(row.body).get("meta") or {}).get("security") or ()
    meta = tree.get("meta") or {}
    added = [one for one in labels if one not in (meta.get("security") or ())]
    if added:
        tree["meta"] = {**meta, "security": [*(meta.get("security") or ()), *added]}


async def follow(
    transaction: ResourceTransaction,
    server: Server,
    auth: AuthContext,
    old: Mapping[str, Any],
    row: Row,
    writing: Writing,
) -> None:
    """Do what follows from a response that was just stored; ``old`` is the version before."""
    tree = json.parse(row.body)
    status, canonical = tree.get("status"), tree.get("questionnaire")
    is_same = old.get("status") in DONE and old.get("item") == tree.get("item")
    if old.get("status") in DONE and not (status in DONE and is_same):
        # What was proposed of them is not what they say any more. A person's are proposed anew.
        await _withdraw(transaction, server, auth, row, writing)
    if status not in _FOLLOWED or not canonical or len(row.facts.owners) != 1:
        return
    (patient,) = row.facts.owners
    for request in await known_requests(transaction, auth, patient, canonical):
        changed = with_answers(json.parse(request.body), row.key, str(status))
        if changed is not None:
            changed["lastModified"] = _moment(server)
            await _update(transaction, server, auth.practice, request.key, changed, writing)
    if auth.context != "system" and status in DONE and not is_same:
        await _create(transaction, server, auth.practice, _said(server, row, tree), writing)
        await propose(transaction, server, auth.practice, row, writing)


async def known_requests(
    reader: ResourceReader, auth: AuthContext, patient: str, canonical: str
) -> list[Row]:
    """Return the open requests that a writer may know about.

    By what becomes of their answers a proxy must not learn that the patient is asked in confidence.
    """
    found = await open_requests(reader, auth.practice, patient, canonical)
    if auth.context == "system":
        return found
    shown = SELF_LABELS if auth.is_self else PROXY_LABELS
    return [row for row in found if row.facts.visibility_class.labels <= shown]


async def _withdraw(
    transaction: ResourceTransaction,
    server: Server,
    auth: AuthContext,
    row: Row,
    writing: Writing,
) -> None:
    """End the Task about answers whose EHR has changed them, or taken them back."""
    if auth.context != "system" or len(row.facts.owners) != 1:
        return
    for waiting in await open_reviews(transaction, auth.practice, row.facts.owners[0]):
        if _is_about(waiting, row):
            await _cancel(transaction, server, auth.practice, waiting, writing)


async def propose(
    transaction: ResourceTransaction, server: Server, practice: str, row: Row, writing: Writing
) -> tuple[list[Proposal], Row | None]:
    """Make the Task by which staff decide about answers; return what they propose, and the Task.

    A Task about the same answers that nobody has decided about is replaced, unless it proposes the
    same. ``None``: there is nothing to decide about.
    """
    tree = json.parse(row.body)
    form = await known_form(transaction, practice, str(tree.get("questionnaire", "")))
    if form is None or len(row.facts.owners) != 1:
        return [], None
    key = ResourceKey("Patient", row.facts.owners[0])
    patient = await transaction.read(key, Visibility.of_server("Patient", practice=practice))
    if patient is None or patient.deleted:
        return [], None
    found = list[Proposal]()
    if is_extractable(form):
        found = proposals(form, tree, json.parse(patient.body), now=server.clock())
    task = review_task(server, row, tree, found, patient) if found else None
    reviews = await open_reviews(transaction, practice, key.id)
    before = [waiting for waiting in reviews if _is_about(waiting, row)]
    for waiting in before:
        if task is not None and json.parse(waiting.body).get("contained") == task["contained"]:
            return found, waiting
        await _cancel(transaction, server, practice, waiting, writing)
    # Of others staff may have more than enough to decide about this one record.
    if task is None or len(reviews) - len(before) >= _MOST_WAITING:
        return found, None
    return found, await _create(transaction, server, practice, task, writing)


def _is_about(review: Row, answers: Row) -> bool:
    focus = json.parse(review.body).get("focus") or {}
    return bool(focus.get("reference") == str(answers.key))


async def _cancel(
    transaction: ResourceTransaction, server: Server, practice: str, review: Row, writing: Writing
) -> None:
    over = {**json.parse(review.body), "status": "cancelled", "lastModified": _moment(server)}
    over["statusReason"] = {"text": "the answers were changed"}
    await _update(transaction, server, practice, review.key, over, writing)


async def open_reviews(transaction: ResourceTransaction, practice: str, patient: str) -> list[Row]:
    """Return the Tasks by which staff are to decide about a patient's answers."""
    return await tasks_of(transaction, practice, patient, f"{FORM_TASK}|{REVIEW}", OPEN)


def review_task(
    server: Server,
    row: Row,
    answers: Mapping[str, Any],
    found: list[Proposal],
    patient: Row,
) -> dict[str, Any]:
    """Return the Task; each proposal is contained in it, ``p1`` and on.

    What is proposed about the Patient shows more than a form does: the Task is kept from whoever
    acts for the patient.
    """
    inputs = []
    for at, one in enumerate(found, 1):
        told: dict[str, Any] = {
            "type": concept("proposal"),
            "valueReference": {"reference": f"#p{at}"},
        }
        if one.is_update:
            base = {"reference": f"{patient.key}/_history/{patient.version}"}
            told = {"extension": [{"url": BASE, "valueReference": base}], **told}
        inputs.append(told)
    tree: dict[str, Any] = {
        "resourceType": "Task",
        "meta": {"security": [{"system": CONFIDENTIALITY, "code": "R"}]},
        "contained": [
            {"resourceType": one.tree["resourceType"], "id": f"p{at}", **_inside(one.tree)}
            for at, one in enumerate(found, 1)
        ],
        "status": "requested",
        "intent": "order",
        "code": concept(REVIEW),
        "focus": {"reference": str(row.key)},
        "for": {"reference": str(patient.key)},
        "authoredOn": _moment(server),
    }
    if "source" in answers:
        tree["requester"] = answers["source"]
    return tree | {"input": inputs}


def _inside(tree: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in tree.items() if name != "resourceType"}


def _said(server: Server, row: Row, tree: Mapping[str, Any]) -> dict[str, Any]:
    """Return the Provenance of what was handed in: who said so, and on whose behalf."""
    agent: dict[str, Any] = {
        "type": {"coding": [{"system": _AGENT, "code": "author"}]},
        "who": tree["source"],
    }
    if tree["source"] != tree["subject"]:
        agent["onBehalfOf"] = tree["subject"]
    return {
        "resourceType": "Provenance",
        "target": [{"reference": f"{row.key}/_history/{row.version}"}],
        "recorded": _moment(server),
        "activity": {
            "coding": [{"system": _OPERATION, "code": "CREATE" if row.version == 1 else "UPDATE"}]
        },
        "agent": [agent],
    }


def _moment(server: Server) -> str:
    return instant(int(server.clock() * _MICROSECONDS))


async def _create(
    transaction: ResourceTransaction,
    server: Server,
    practice: str,
    tree: dict[str, Any],
    writing: Writing,
) -> Row:
    written = await writing.create_in(
        transaction,
        server,
        acting_for(practice, ""),
        tree,
        Visibility.of_server(tree["resourceType"], practice=practice),
        resource_id=server.new_id(),
    )
    row: Row = written.row
    return row


async def _update(
    transaction: ResourceTransaction,
    server: Server,
    practice: str,
    key: ResourceKey,
    tree: dict[str, Any],
    writing: Writing,
) -> None:
    await writing.update_in(
        transaction,
        server,
        acting_for(practice, ""),
        tree,
        Visibility.of_server(key.type, practice=practice),
        key=key,
        if_match=None,
        if_none_match=None,
    )
