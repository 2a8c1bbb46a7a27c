"""``Patient/[id]/$propose-update``: people say what of a record is to be another way.

What they say of each section becomes a Task in it, with the labels of what it is about: whoever
may see that part of the record sees what is proposed of it, and nobody else. Staff decide by
``$review-proposal``, an EHR by writing the record and the Task.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from fhir_portal.access.policy import decide_part
from fhir_portal.access.visibility import Visibility
from fhir_portal.accounts.policy import policy_of
from fhir_portal.consent.labels import PROXY_LABELS, SELF_LABELS, labelling
from fhir_portal.documents.upload import Taken
from fhir_portal.fhir import json
from fhir_portal.fhir.datetime import instant
from fhir_portal.fhir.errors import Conflict, Forbidden, Unprocessable
from fhir_portal.fhir.interaction import FhirResponse
from fhir_portal.fhir.reference import ResourceKey
from fhir_portal.operations.attachments import count_files, picture_of, store_content
from fhir_portal.operations.call import Call
from fhir_portal.operations.changed_contacts import as_point, count_codes, new_contacts, send_code
from fhir_portal.operations.definition import parameter
from fhir_portal.operations.direct_change import accepted_outputs, change_patient, direct_fields
from fhir_portal.operations.message_thread import agent_of, plain_text, record_provenance
from fhir_portal.operations.on_file import OnFile
from fhir_portal.operations.proposing import (
    LONGEST_NOTE,
    Made,
    contained,
    details,
    insurance,
    not_taken,
    part_of,
    seen,
)
from fhir_portal.resources.communication import count_written
from fhir_portal.resources.forms.handing_in import BASE
from fhir_portal.resources.forms.request import OPEN, concept, tasks_of
from fhir_portal.resources.proposal import (
    CARD,
    CODES,
    FIELD,
    MOST_OPEN,
    PATIENT_SUPPLIED,
    SECTIONS,
    SYSTEM,
    Proposed,
    proposed_in,
)
from fhir_portal.resources.store import ResourceTransaction, Row
from fhir_portal.resources.writing import create_in

PHOTO_SIDE: Final = 1024
_MICROSECONDS: Final = 1_000_000
_CODE_OF: Final = {section: code for code, section in SECTIONS.items()}
_SIDES: Final = {"front": "Front", "back": "Back"}


async def propose_update(call: Call) -> FhirResponse:
    """Propose everything that is said, or nothing.

    Raises:
        Forbidden: a part that the grant or the scopes do not let the caller do. Unprocessable: what
            cannot be proposed. PreconditionFailed: it was changed since it was looked at.
            Conflict: it is proposed already, or a great deal is.
    """
    sections = _sections(call)
    given = call.arguments.one("note")
    note = "" if given is None else plain_text(given, "note", LONGEST_NOTE)
    photo, cards = await _pictures(call)
    contacts = await _to_prove(call) if "demographics" in sections else []

    async def work(transaction: ResourceTransaction) -> tuple[list[Row], list[str]]:
        await call.server.still(transaction, call.auth)
        await call.target(transaction)
        await count_written(
            transaction, call.auth.practice, agent_of(call), call.auth.patient,
            now=call.server.clock(), what="proposals",
        )  # fmt: skip
        waiting = await _waiting(transaction, call)
        made = await _made(transaction, call, photo, cards)
        if not any(made.values()):
            message = "all of this is on file already"
            raise Unprocessable(message, expression="Parameters")
        direct = direct_fields(await policy_of(transaction, call.auth.practice), call.auth)
        asked, changed = list[_Asked](), list[str]()
        for section in sections:
            _require_new(waiting, made[section])
            if section == "demographics":
                asked += _asked_of_details(made[section], direct, contacts)
            elif made[section]:
                asked.append(_Asked(section, made[section]))
        tasks = list[Row]()
        for one in asked:
            if not one.at_once and len(waiting) + len(tasks) >= MOST_OPEN:
                message = "a great deal waits for an answer already: wait, or call the practice"
                raise Conflict(message)
            tree = _task(call, one, note)
            own_id = call.server.new_id()
            if one.at_once:
                (it,) = one.made
                fields = it.proposed.fields
                row = await change_patient(
                    transaction, call, it.about, it.proposed.tree, fields, key=own_id
                )
                tree |= {"status": "completed", "output": accepted_outputs(row, fields)}
                changed += fields
            written = await create_in(
                transaction, call.server, call.as_practice, tree,
                Visibility.of_server("Task", practice=call.auth.practice),
                resource_id=own_id,
            )  # fmt: skip
            await record_provenance(transaction, call, [str(written.row.key)], "CREATE")
            for contact in one.contacts:
                await send_code(transaction, call, own_id, contact)
            tasks.append(written.row)
        return tasks, changed

    tasks, changed = await call.server.store.transact(work)
    answer = {
        "task": [{"reference": str(one.key)} for one in tasks],
        "changed": changed,
        "to-prove": [as_point(one) for one in contacts],
    }
    return call.answer(answer, *tasks)


@dataclass(frozen=True, slots=True)
class _Asked:
    """What becomes one Task: whether it is done at once, and which contacts are to be proved."""

    section: str
    made: Sequence[Made]
    at_once: bool = False
    contacts: Sequence[OnFile] = ()


def _asked_of_details(
    made: Sequence[Made], direct: Sequence[str], contacts: Sequence[OnFile]
) -> list[_Asked]:
    """Return the Tasks of a proposal about the Patient.

    What the practice lets people change is done at once, but for contacts that are to be proved:
    those have a Task of their own, which is done with the last of them.
    """
    found = list[_Asked]()
    for one in made:
        fields = one.proposed.fields
        proves = ["telecom"] if contacts and "telecom" in direct else []
        now = [field for field in fields if field in direct and field not in proves]
        rest = [field for field in fields if field not in now and field not in proves]
        for names, at_once in ((now, True), (proves, False), (rest, False)):
            part = part_of(one, names)
            if part is not None:
                its = contacts if "telecom" in names and not at_once else ()
                found.append(_Asked("demographics", [part], at_once, its))
    return found


async def _to_prove(call: Call) -> list[OnFile]:
    """Return the new contacts to which a code goes. Raises `TooManyRequests`, `Unprocessable`."""
    given = call.arguments.one("patient") or {}
    if "telecom" not in given:
        return []
    row = await seen(call.server.reader, call, ResourceKey("Patient", str(call.request.id)))
    contacts = await new_contacts(call, json.parse(row.body), given)
    await count_codes(call, contacts)
    return contacts


def _sections(call: Call) -> list[str]:
    """Return the sections that something is said of. Raises `Forbidden`, `Unprocessable`."""
    arguments = call.arguments
    found = [
        section
        for section, names in {
            "demographics": ("patient", "clear", "photo"),
            "insurance": ("coverage",),
            "medications": ("not-taken",),
        }.items()
        if any(arguments.all(name) for name in names)
    ]
    if not found:
        message = "say what is to be changed: patient, clear, photo, coverage or not-taken"
        raise Unprocessable(message, expression="Parameters")
    for section in found:
        denied = decide_part(call.auth, call.definition.code, section)
        if denied is not None:
            raise Forbidden(denied.reason)
    return found


async def _pictures(call: Call) -> tuple[Taken | None, list[dict[str, Taken]]]:
    """Return the photo, and of each insurance the pictures of its card by their sides."""
    photo = call.arguments.one("photo")
    cards: Sequence[Any] = call.arguments.all("coverage")
    if photo is not None or any(one.one(side) for one in cards for side in _SIDES):
        await count_files(call)
    taken = None
    if photo is not None:
        taken = await picture_of(call, photo, parameter("photo"), longest_side=PHOTO_SIDE)
    found = list[dict[str, Taken]]()
    for at, one in enumerate(cards):
        sides = dict[str, Taken]()
        for side in _SIDES:
            if one.one(side) is not None:
                place = f"{parameter('coverage')}[{at}].part.where(name='{side}')"
                sides[side] = await picture_of(call, one.one(side), place)
        found.append(sides)
    return taken, found


async def _made(
    transaction: ResourceTransaction,
    call: Call,
    photo: Taken | None,
    cards: Sequence[Mapping[str, Taken]],
) -> dict[str, list[Made]]:
    found: dict[str, list[Made]] = {section: [] for section in _CODE_OF}
    arguments = call.arguments
    if any(arguments.all(name) for name in ("patient", "clear", "photo")):
        picture = None if photo is None else [await _stored(transaction, call, photo, "A photo")]
        if picture is not None:
            picture[0]["extension"] = [{"url": PATIENT_SUPPLIED, "valueBoolean": True}]
        made = await details(transaction, call, "p1", photo=picture)
        found["demographics"] = [] if made is None else [made]
    for at, one in enumerate(arguments.all("coverage")):
        pictures = [await _card(transaction, call, side, file) for side, file in cards[at].items()]
        name = f"p{len(found['insurance']) + 1}"
        made = await insurance(transaction, call, one, at, name, cards=pictures)
        if made is not None:
            found["insurance"].append(made)
    for at, one in enumerate(arguments.all("not-taken")):
        found["medications"].append(await not_taken(transaction, call, one, at, f"p{at + 1}"))
    return found


async def _card(
    transaction: ResourceTransaction, call: Call, side: str, file: Taken
) -> dict[str, Any]:
    """Return a picture of a card as CARIN has it; its content is a Binary until it is accepted."""
    words = f"{_SIDES[side]} of the insurance card"
    return {
        "url": CARD,
        "extension": [
            {"url": "label", "valueString": _SIDES[side]},
            {"url": "description", "valueString": f"{words}, as the patient sent it"},
            {
                "url": "image",
                "valueAttachment": await _stored(transaction, call, file, words),
            },
        ],
    }


async def _stored(
    transaction: ResourceTransaction, call: Call, file: Taken, title: str
) -> dict[str, Any]:
    attachment = await store_content(
        transaction,
        call,
        file.content_type,
        file.content,
        context=f"Patient/{call.request.id}",
    )
    return {**attachment, "title": title}


async def _waiting(transaction: ResourceTransaction, call: Call) -> list[Proposed]:
    """Return what waits for an answer of this record, and does not hide from the caller."""
    rows = await tasks_of(transaction, call.auth.practice, str(call.request.id), CODES, OPEN)
    labels = SELF_LABELS if call.auth.is_self else PROXY_LABELS
    return [
        one
        for row in rows
        if row.facts.visibility_class.labels <= labels
        for one in proposed_in(json.parse(row.body))
    ]


def _require_new(waiting: Sequence[Proposed], made: Sequence[Made]) -> None:
    """Refuse what is proposed already; also twice in one call. Raises `Conflict`."""
    there = {name for one in waiting for name in _said(one)}
    for one in made:
        said = _said(one.proposed)
        both = sorted(there & said)
        if both:
            message = f"a change of this waits for an answer already: {both[0]}"
            raise Conflict(message)
        there |= said


def _said(proposed: Proposed) -> set[str]:
    """Return what a proposal is about, as far as there can be one alone."""
    if proposed.base is not None:
        return {f"{proposed.base.type} {proposed.base.id} {one}" for one in proposed.fields}
    origins = proposed.tree.get("derivedFrom") or ()
    return {f"not-taken {one.get('reference')}" for one in origins}


def _task(call: Call, asked: _Asked, note: str) -> dict[str, Any]:
    made = asked.made
    now = instant(int(call.server.clock() * _MICROSECONDS))
    labels = labelling(*(json.parse(one.about.body) for one in made))
    inputs = list[dict[str, Any]]()
    for one in made:
        proposed = one.proposed
        extensions = [{"url": FIELD, "valueString": field} for field in proposed.fields]
        if proposed.base is not None:
            version = f"{proposed.base}/_history/{proposed.base_version}"
            extensions.insert(0, {"url": BASE, "valueReference": {"reference": version}})  # type: ignore[dict-item]  # a value of its own kind
        inputs.append(
            {
                **({"extension": extensions} if extensions else {}),
                "type": concept("proposal"),
                "valueReference": {"reference": f"#{proposed.name}"},
            }
        )
        if proposed.before is not None:
            before = {"reference": f"#b{proposed.name[1:]}"}
            inputs.append({"type": concept("before"), "valueReference": before})
    for contact in asked.contacts:
        point = as_point(contact)
        inputs.append({"type": concept("contact-to-prove"), "valueContactPoint": point})
    return {
        "resourceType": "Task",
        **({"meta": labels} if labels else {}),
        "contained": [tree for one in made for tree in contained(one.proposed)],
        "status": "requested",
        "intent": "proposal",
        "code": {"coding": [{"system": SYSTEM, "code": _CODE_OF[asked.section]}]},
        "for": {"reference": f"Patient/{call.request.id}"},
        "authoredOn": now,
        "lastModified": now,
        "requester": {"reference": agent_of(call)},
        **({"note": [{"text": note}]} if note else {}),
        "input": inputs,
    }
