"""Calls about invitations, said in a line: ``await invited(staff, "bo", channel="desk")``."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from fhir_portal.accounts.invitation import Invitation, InvitationSecrets
from fhir_portal.accounts.policy import PracticePolicy, changed
from fhir_portal.embedded.store import EmbeddedStore
from fhir_portal.notify.outbox import OutboxMessage
from fhir_portal.portal import Portal
from tests.builders import DERM, Answer, Caller, Json, keep, reference
from tests.staff import a_member_of_staff

KINDS = {
    "kind": "valueCode",
    "basis": "valueCode",
    "channel": "valueCode",
    "format": "valueCode",
    "language": "valueCode",
    "name": "valueHumanName",
    "relationship": "valueCodeableConcept",
    "telecom": "valueContactPoint",
    "period": "valuePeriod",
    "force": "valueBoolean",
    "no_more": "valueBoolean",
    "large_print": "valueBoolean",
    "lifetime_hours": "valueInteger",
    "contact": "valueString",
    "reason": "valueString",
    "idempotency_key": "valueString",
}
REFERENCES = ("patient", "related_person", "evidence")
NAN = {"family": "Quill", "given": ["Nan"]}
FATHER = {"text": "father"}


def body(**given: Any) -> Json:
    """Parameters: references by their text, sections as ``{"results": True}`` (act) or a list."""
    listed: list[Json] = []
    for name, value in given.items():
        own = name.replace("_", "-")
        values: Iterable[Any] = value if isinstance(value, list) else [value]
        if name in REFERENCES:
            listed += [{"name": own, "valueReference": reference(one)} for one in values]
        elif name == "sections":
            for section, act in value.items():
                part = [
                    {"name": "code", "valueCode": section},
                    {"name": "act", "valueBoolean": act},
                ]
                listed.append({"name": "section", "part": part})
        else:
            listed += [{"name": own, KINDS[name]: one} for one in values]
    return {"resourceType": "Parameters", "parameter": listed}


async def invite(caller: Caller, of: str, /, *, kind: str = "self", **given: Any) -> Answer:
    return await caller.ask("POST", f"Patient/{of}/$portal-invite", body(kind=kind, **given))


async def invited(caller: Caller, of: str, /, **given: Any) -> Json:
    answer = await invite(caller, of, **given)
    assert answer.status == 201, answer.body
    return values(answer)


async def call(caller: Caller, task: str, operation: str, **given: Any) -> Answer:
    """``task`` is ``Task/<id>``."""
    tree = body(**given) if given else None
    return await caller.ask("POST", f"{task}/${operation}", tree)


def values(answer: Answer) -> Json:
    """Each value by its name: references as text; of several, a list."""
    found: Json = {}
    for one in answer.json.get("parameter", ()):
        value = next(value for name, value in one.items() if name != "name")
        value = value["reference"] if isinstance(value, dict) else value
        if one["name"] in {"related-person", "grant"}:
            found.setdefault(one["name"], []).append(value)
        else:
            found[one["name"]] = value
    return found


def staff(portal: Portal, *permissions: str, **more: Any) -> Caller:
    return Caller(portal, a_member_of_staff(permissions=("view", *permissions), **more))


async def decided(store: EmbeddedStore, practice: str = DERM, **settings: str) -> None:
    """Set the policy of a practice."""
    named = {name.replace("_", "-"): value for name, value in settings.items()}
    await keep(store, changed(PracticePolicy(key=practice), named))


async def the_invitation(store: EmbeddedStore, task: str, practice: str = DERM) -> Invitation:
    found = await store.get(Invitation, f"{practice}/{task}")
    assert found is not None
    return found


async def messages(store: EmbeddedStore) -> list[OutboxMessage]:
    return await store.every(OutboxMessage)


def secrets_of(portal: Portal, invitation: Invitation) -> list[str]:
    """Every secret of every attempt up to the latest; a portal ID is a name, and none."""
    own = InvitationSecrets(portal.collaborators.derive("invitations"))
    found: list[str] = []
    for attempt in range(1, invitation.attempt + 1):
        one = own.of_attempt(invitation.key, attempt)
        found += [one.link, one.code, one.code.replace("-", ""), one.word]
    return found


async def everything_stored(store: EmbeddedStore) -> str:
    """All that a look into the file would show: records, resources, their versions, the log."""
    found: list[Any] = []
    for table in ("record", "record_field", "resource", "version"):
        found += await store.database.select(f"SELECT * FROM {table}")
    return "\n".join(repr(row) for row in found)
