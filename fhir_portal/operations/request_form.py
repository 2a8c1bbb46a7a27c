"""``Patient/[id]/$request-form``: ask for a form, or for the set of a visit type."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final
from zoneinfo import ZoneInfo

from fhir_portal.access.visibility import Visibility
from fhir_portal.fhir import json
from fhir_portal.fhir.errors import Unprocessable
from fhir_portal.fhir.interaction import FhirResponse
from fhir_portal.operations.authorship import Author
from fhir_portal.operations.call import Call
from fhir_portal.operations.definition import parameter
from fhir_portal.operations.form_request import REMINDERS, remind_later, request_task
from fhir_portal.operations.portal_invite import practice_of, words
from fhir_portal.resources.forms.answering import not_filled_in_here
from fhir_portal.resources.forms.known import form_of, questionnaire_row
from fhir_portal.resources.forms.request import FormRecipients, answered_by, open_requests
from fhir_portal.resources.store import ResourceTransaction, Row
from fhir_portal.resources.writing import create_in
from fhir_portal.search.request import parse_search

_MOST_FORMS: Final = 20
_FARTHEST: Final = 60
_FULL_DATE: Final = 10


async def request_form(call: Call) -> FhirResponse:
    """Make a Task for each form that is not asked for already; 201 when one is new."""
    due = call.arguments.one("due")
    if due is not None and len(due) != _FULL_DATE:
        message = "say the day"
        raise Unprocessable(message, expression=parameter("due"))
    reminders = call.arguments.all("reminder") or REMINDERS
    if any(not 0 <= one <= _FARTHEST for one in reminders):
        message = f"a reminder is 0 to {_FARTHEST} days before the due date"
        raise Unprocessable(message, expression=parameter("reminder"))
    note = words(call, "note")

    async def work(transaction: ResourceTransaction) -> tuple[Row, list[Row], int]:
        await call.server.still(transaction, call.auth)
        patient = await call.target(transaction)
        practice = await practice_of(transaction, call.auth.practice)
        if due is not None and due < _today(call, practice.zone):
            message = "due has passed already"
            raise Unprocessable(message, expression=parameter("due"))
        answer_by = await _answer_by(call, transaction, patient)
        appointment = await _appointment(call, transaction, patient)
        author = Author.of(call.auth, practice)
        tasks, made = list[Row](), list[Row]()
        for canonical, questionnaire in await _forms(call, transaction):
            open_now = await open_requests(transaction, practice.key, patient.key.id, canonical)
            same = [
                row
                for row in open_now
                if await _is_same(call, transaction, row, answer_by, appointment)
            ]
            if same:
                tasks.append(same[0])
                continue
            tree = request_task(
                questionnaire,
                canonical,
                patient=str(patient.key),
                requester=author.requester,
                now=call.server.clock(),
                due=due,
                confidential=answer_by == [str(patient.key)],
                appointment=appointment,
                reminders=sorted(set(reminders), reverse=True) if due else (),
                note=note,
            )
            row = await _create(call, transaction, tree)
            if answer_by:
                await transaction.insert(
                    FormRecipients(key=f"{practice.key}/{row.key}", who=tuple(answer_by))
                )
            await remind_later(transaction, row, practice, now=call.server.clock())
            tasks.append(row)
            made.append(row)
        if made:
            provenance = author.provenance(
                [str(row.key) for row in made],
                at=call.server.clock(),
                activity="CREATE",
                reason="a form was asked for",
            )
            await _create(call, transaction, provenance)
        return patient, tasks, len(made)

    patient, tasks, new = await call.server.store.transact(work)
    values = {"task": [{"reference": str(row.key)} for row in tasks], "asked": new}
    return call.answer(values, patient, *tasks, status=201 if new else 200)


async def _forms(call: Call, transaction: ResourceTransaction) -> list[tuple[str, Row]]:
    """Return the forms that are meant, each as the canonical that was asked for and its row."""
    practice = call.auth.practice
    found: dict[str, Row] = {}
    for canonical in call.arguments.all("questionnaire"):
        row = await questionnaire_row(transaction, practice, canonical)
        if row is None:
            message = "the practice has no such form"
            raise Unprocessable(message, expression=parameter("questionnaire"))
        found[canonical] = row
    visit = call.arguments.one("visit-type")
    if visit is not None:
        found |= await _set_of(call, transaction, visit)
    if not found:
        message = "name a form, or a visit type that has a set of them"
        raise Unprocessable(message, expression=parameter("questionnaire"))
    if len(found) > _MOST_FORMS:
        message = f"at most {_MOST_FORMS} forms are asked for at once"
        raise Unprocessable(message, expression=parameter("questionnaire"))
    for row in found.values():
        tree = json.parse(row.body)
        if tree.get("status") != "active":
            message = "a form that is asked for is active"
            raise Unprocessable(message, expression=parameter("questionnaire"))
        form = await form_of(transaction, practice, row)
        if form.faults:
            raise Unprocessable(issues=not_filled_in_here(form))
    return list(found.items())


async def _set_of(
    call: Call, transaction: ResourceTransaction, visit: Mapping[str, Any]
) -> dict[str, Row]:
    query = [
        ("context", f"{visit.get('system', '')}|{visit.get('code', '')}"),
        ("status", "active"),
        ("_count", str(_MOST_FORMS + 1)),
    ]
    visible = Visibility.of_practice("Questionnaire", practice=call.auth.practice, labels=None)
    page = await transaction.search(parse_search("Questionnaire", query, base=""), visible)
    found = {}
    for row in page.rows:
        tree = json.parse(row.body)
        if "url" in tree:
            version = tree.get("version")
            found[f"{tree['url']}|{version}" if version else tree["url"]] = row
    return found


async def _answer_by(call: Call, transaction: ResourceTransaction, patient: Row) -> list[str]:
    """Return who may answer: the patient, or RelatedPersons of this very patient."""
    found = []
    for one in call.arguments.all("answer-by"):
        text = str(one.get("reference", ""))
        name, _, own_id = text.partition("/")
        known = text == str(patient.key)
        if name == "RelatedPerson":
            query = [("_id", own_id), ("patient", str(patient.key))]
            visible = Visibility.of_server("RelatedPerson", practice=call.auth.practice)
            asked = parse_search("RelatedPerson", query, base="")
            known = bool((await transaction.search(asked, visible)).rows)
        if not known:
            message = "who answers is the patient, or a RelatedPerson of the patient"
            raise Unprocessable(message, expression=parameter("answer-by"))
        found.append(text)
    return list(dict.fromkeys(found))


async def _appointment(call: Call, transaction: ResourceTransaction, patient: Row) -> str | None:
    given = call.arguments.one("appointment")
    if given is None:
        return None
    name, _, own_id = str(given.get("reference", "")).partition("/")
    query = [("_id", own_id), ("patient", str(patient.key))]
    visible = Visibility.of_server("Appointment", practice=call.auth.practice)
    page = await transaction.search(parse_search("Appointment", query, base=""), visible)
    if name != "Appointment" or not page.rows:
        message = "the patient has no such appointment"
        raise Unprocessable(message, expression=parameter("appointment"))
    return f"Appointment/{own_id}"


async def _is_same(
    call: Call,
    transaction: ResourceTransaction,
    row: Row,
    answer_by: list[str],
    appointment: str | None,
) -> bool:
    tree = json.parse(row.body)
    focus = (tree.get("focus") or {}).get("reference")
    named = await answered_by(transaction, call.auth.practice, str(row.key), tree)
    return named == answer_by and focus == appointment


def _today(call: Call, zone: str) -> str:
    return datetime.fromtimestamp(call.server.clock(), ZoneInfo(zone)).date().isoformat()


async def _create(call: Call, transaction: ResourceTransaction, tree: dict[str, Any]) -> Row:
    visible = Visibility.of_server(tree["resourceType"], practice=call.auth.practice)
    written = await create_in(
        transaction,
        call.server,
        call.as_practice,
        tree,
        visible,
        resource_id=call.server.new_id(),
    )
    return written.row
