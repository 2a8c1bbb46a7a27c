"""OperationOutcome, built in one place. Source: FHIR R4 §2.38 (OperationOutcome)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from fhir_portal.fhir.errors import Issue

ERROR_SYSTEM: Final = "https://fhir-portal.example/ig/CodeSystem/portal-error"
_MOST: Final = 100


def outcome(issues: Sequence[Issue]) -> bytes:
    """Return an OperationOutcome with one entry per issue (the first hundred)."""
    rows = []
    for issue in issues[:_MOST]:
        row: dict[str, object] = {
            "severity": issue.severity,
            "code": issue.code,
            "diagnostics": issue.diagnostics,
        }
        if issue.portal_error is not None:
            row["details"] = {"coding": [{"system": ERROR_SYSTEM, "code": issue.portal_error}]}
        if issue.expression:
            row["expression"] = [issue.expression]
        rows.append(row)
    return msgspec.json.encode({"resourceType": "OperationOutcome", "issue": rows})
