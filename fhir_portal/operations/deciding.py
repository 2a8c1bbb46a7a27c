"""Staff decide about what people propose: what the decisions on answers and on changes share.

Everything is written in the one transaction of the call, as the practice; what is accepted has a
Provenance that names who said so (author) and who accepted it (verifier).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from fhir_portal.access.classify import binaries_of
from fhir_portal.access.owners import local_target
from fhir_portal.access.visibility import Visibility
from fhir_portal.fhir import json
from fhir_portal.fhir.datetime import instant
from fhir_portal.fhir.errors import Unprocessable
from fhir_portal.fhir.reference import ResourceKey
from fhir_portal.operations.authorship import Author
from fhir_portal.operations.call import Call
from fhir_portal.operations.definition import parameter
from fhir_portal.operations.portal_invite import practice_of
from fhir_portal.resources.store import ResourceTransaction, Row
from fhir_portal.resources.validation import validate
from fhir_portal.resources.writing import create_in, update_in

ACTIONS: Final = ("accept", "refuse")
_AGENT: Final = "http://terminology.hl7.org/CodeSystem/provenance-participant-type"
_MICROSECONDS: Final = 1_000_000


class Deciding:
    """One Task that is being decided about in a transaction."""

    def __init__(
        self, call: Call, transaction: ResourceTransaction, task: dict[str, Any], reason: str
    ) -> None:
        self.call, self.transaction, self.task, self.reason = call, transaction, task, reason
        self.practice = call.auth.practice
        self.patient = named(task, "for", "Patient")
        self.outputs = list[dict[str, Any]]()

    async def close(self, row: Row, accepted: Sequence[Row], source: Mapping[str, Any]) -> None:
        """Write how it was decided into the Task, and the Provenance of what was accepted.

        ``source`` is a reference to where it was said.
        """
        now = self.call.server.clock()
        task = {
            **self.task,
            "status": "completed" if accepted else "rejected",
            "lastModified": instant(int(now * _MICROSECONDS)),
            **({"output": self.outputs} if self.outputs else {}),
        }
        if self.reason:
            task["statusReason"] = {"text": self.reason}
        await self.update(row.key, task, if_match=f'W/"{row.version}"')
        practice = await practice_of(self.transaction, self.practice)
        author = Author.of(self.call.auth, practice)
        provenance = author.provenance(
            [str(row.key)], at=now, activity="UPDATE", reason=self.reason
        )
        await self.create(provenance)
        if accepted:
            told = author.provenance(
                [f"{one.key}/_history/{one.version}" for one in accepted],
                at=now, activity="CREATE", reason=self.reason,
            )  # fmt: skip
            # It follows what it is about: whoever sees that may know who said so.
            del told["meta"]
            (verifier,) = told["agent"]
            verifier["type"] = {"coding": [{"system": _AGENT, "code": "verifier"}]}
            teller = self.task.get("requester")
            if teller is not None:
                said = {"type": {"coding": [{"system": _AGENT, "code": "author"}]}, "who": teller}
                told["agent"] = [said, verifier]
            told["entity"] = [{"role": "source", "what": dict(source)}]
            await self.create(told)

    async def create(self, tree: dict[str, Any]) -> Row:
        """Store something new as the practice."""
        written = await create_in(
            self.transaction, self.call.server, self.call.as_practice, tree,
            Visibility.of_server(tree["resourceType"], practice=self.practice),
            resource_id=self.call.server.new_id(),
        )  # fmt: skip
        return written.row

    async def update(self, key: ResourceKey, tree: dict[str, Any], *, if_match: str) -> Row:
        """Store the next version as the practice. Raises `PreconditionFailed`."""
        written = await update_in(
            self.transaction, self.call.server, self.call.as_practice, tree,
            Visibility.of_server(key.type, practice=self.practice),
            key=key, if_match=if_match, if_none_match=None,
        )  # fmt: skip
        return written.row


def others_of(call: Call) -> str | None:
    """Return what to do with what no decision names. Raises `Unprocessable`."""
    others: str | None = call.arguments.one("others")
    if others is not None and others not in ACTIONS:
        message = f"others is one of {', '.join(ACTIONS)}"
        raise Unprocessable(message, expression=parameter("others"))
    return others


def named(task: Mapping[str, Any], member: str, resource_type: str) -> ResourceKey:
    """Return what a Task names; an EHR may have written one that names nothing."""
    key = local_target(str((task.get(member) or {}).get("reference", "")))
    if key is None or key.type != resource_type:
        message = f"this Task names no {resource_type} in its {member}"
        raise Unprocessable(message)
    return key


def require_own_files(given: Mapping[str, Any], *known: Mapping[str, Any]) -> None:
    """Refuse what leads to another file than these do: it would take it from whose it is.

    Raises `Unprocessable`.
    """
    there = {key for tree in known for key in binaries_of(tree)}
    if not there.issuperset(binaries_of(given)):
        message = "what is accepted has no other file than what was proposed, or is on file"
        raise Unprocessable(message, expression=parameter("decision"))


def require_valid(tree: dict[str, Any]) -> None:
    """Refuse a resource that cannot be stored as it is. Raises `Unprocessable`."""
    body = json.dumps(tree)
    issues = [one for one in validate(json.parse(body), body) if one.severity in {"error", "fatal"}]
    if issues:
        raise Unprocessable(issues=issues)
