"""Who did something with an invitation, on whose behalf, when and why: its Provenance.

Source: FHIR R4 §6.3 (Provenance). It names who acted for the practice; no secret and no contact.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from fhir_portal.access.context import AuthContext
from fhir_portal.access.owners import local_target
from fhir_portal.access.visibility import Visibility
from fhir_portal.accounts.policy import Beginner
from fhir_portal.accounts.practice import Practice
from fhir_portal.consent.labels import CONFIDENTIALITY
from fhir_portal.fhir.datetime import instant
from fhir_portal.operations.call import acting_for
from fhir_portal.resources.server import Server
from fhir_portal.resources.store import ResourceTransaction
from fhir_portal.resources.writing import create_in

_MICROSECONDS: Final = 1_000_000
_OPERATION: Final = "http://terminology.hl7.org/CodeSystem/v3-DataOperation"
_AGENT: Final = "http://terminology.hl7.org/CodeSystem/provenance-participant-type"


def restricted() -> dict[str, Any]:
    """Return ``meta`` that keeps a resource from everybody who acts for the patient.

    One parent must not learn what another is invited to.
    """
    return {"security": [{"system": CONFIDENTIALITY, "code": "R"}]}


@dataclass(frozen=True, slots=True)
class Author:
    """Who acts for a practice: a Reference to them, and one to the practice.

    ``account`` is that of a member of staff, ``""`` of nobody. ``is_rule`` says that
    nobody does, but a rule of the practice's.
    """

    beginner: Beginner
    client: str
    who: dict[str, Any]
    practice: dict[str, Any]
    account: str = ""
    is_rule: bool = False

    @classmethod
    def of(cls, auth: AuthContext, practice: Practice) -> Author:
        """Return who stands behind a call: a member of staff, or the practice's EHR."""
        organization = organization_of(practice)
        if auth.staff is not None:
            who = {"reference": auth.staff.fhir_user}
            return cls("staff", auth.client, who, organization, auth.account or "")
        return cls("ehr", auth.client, {"display": auth.client}, organization)

    @classmethod
    def of_event(cls, practice: Practice) -> Author:
        """Return the practice itself, which follows a rule of its own."""
        organization = organization_of(practice)
        return cls("ehr", "", organization, organization, is_rule=True)

    @property
    def kind(self) -> str:
        """Return in a word who this is: ``staff``, ``ehr`` or ``rule``."""
        return "rule" if self.is_rule else self.beginner

    @property
    def requester(self) -> dict[str, Any]:
        """Return the ``Task.requester``: a client is none, the practice it works for is."""
        return self.who if "reference" in self.who else self.practice

    def provenance(
        self, targets: Sequence[str], *, at: float, activity: str, reason: str
    ) -> dict[str, Any]:
        """Return the Provenance of what was just done; ``activity`` is ``CREATE`` or ``UPDATE``."""
        tree: dict[str, Any] = {
            "resourceType": "Provenance",
            "meta": restricted(),
            "target": [{"reference": one} for one in targets],
            "recorded": instant(int(at * _MICROSECONDS)),
        }
        if reason:
            tree["reason"] = [{"text": reason}]
        return tree | {
            "activity": {"coding": [{"system": _OPERATION, "code": activity}]},
            "agent": [
                {
                    "type": {"coding": [{"system": _AGENT, "code": "author"}]},
                    "who": self.who,
                    "onBehalfOf": self.practice,
                }
            ],
        }


def organization_of(practice: Practice) -> dict[str, Any]:
    """Return a Reference to a practice's Organization, or its name where it has none."""
    key = local_target(practice.organization or "")
    if key is not None and key.type == "Organization":
        return {"reference": str(key)}
    return {"display": practice.name}


async def record_provenance(
    transaction: ResourceTransaction,
    server: Server,
    practice: str,
    author: Author,
    targets: Sequence[str],
    *,
    activity: str,
    reason: str,
) -> None:
    """Store who did what, on whose behalf, when and why."""
    tree = author.provenance(targets, at=server.clock(), activity=activity, reason=reason)
    await create_in(
        transaction, server, acting_for(practice, author.client), tree,
        Visibility.of_server("Provenance", practice=practice),
        resource_id=server.new_id(),
    )  # fmt: skip
