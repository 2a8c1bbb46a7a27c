"""What people change themselves, where the practice lets them: in their own name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fhir_portal.access.context import AuthContext
from fhir_portal.access.visibility import Visibility
from fhir_portal.accounts.policy import PracticePolicy
from fhir_portal.fhir import json
from fhir_portal.operations.call import Call
from fhir_portal.operations.changed_contacts import tell_removed
from fhir_portal.operations.deciding import require_valid
from fhir_portal.operations.message_thread import record_provenance
from fhir_portal.resources.forms.request import concept
from fhir_portal.resources.proposal import FIELD, value_of, with_value
from fhir_portal.resources.store import ResourceTransaction, Row
from fhir_portal.resources.writing import update_in


def direct_fields(policy: PracticePolicy, auth: AuthContext) -> tuple[str, ...]:
    """Return the fields that the practice lets a caller change.

    A proxy's word on how the patient is reached is for staff, whoever proved the contact: to a
    contact on file the practice sends the patient's own invitation.
    """
    return tuple(one for one in policy.direct_changes if auth.is_self or one != "telecom")


async def change_patient(
    transaction: ResourceTransaction,
    call: Call,
    row: Row,
    proposed: Mapping[str, Any],
    fields: Sequence[str],
    *,
    key: str,
) -> Row:
    """Store a Patient with these fields as proposed, and who did it; ``key`` names the change."""
    before = json.parse(row.body)
    tree = json.parse(row.body)
    for field in fields:
        with_value(tree, field, value_of(proposed, field))
    require_valid(tree)
    written = await update_in(
        transaction, call.server, call.as_practice, tree,
        Visibility.of_server("Patient", practice=call.auth.practice),
        key=row.key, if_match=f'W/"{row.version}"', if_none_match=None,
    )  # fmt: skip
    target = f"{row.key}/_history/{written.row.version}"
    await record_provenance(transaction, call, [target], "UPDATE")
    await tell_removed(transaction, call, before, tree, key=key)
    return written.row


def accepted_outputs(row: Row, fields: Sequence[str]) -> list[dict[str, Any]]:
    """Return what a Task says of fields that became part of the record."""
    return [
        {
            "extension": [{"url": FIELD, "valueString": field}],
            "type": concept("accepted"),
            "valueReference": {"reference": str(row.key)},
        }
        for field in fields
    ]
