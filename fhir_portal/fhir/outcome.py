"""OperationOutcome, built in one place. Source: FHIR R4 §2.38 (OperationOutcome)."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from fhir_portal.fhir.errors import Issue

_MOST: int = 100


def outcome(issues: Sequence[Issue]) -> bytes:
    """Return an OperationOutcome with one entry per issue (the first hundred)."""
    rows = []
    for issue in issues[:_MOST]:
        row: dict[str, object] = {
            "severity": issue.severity,
            "code": issue.code,
            "diagnostics": issue.diagnostics,
        }
        if issue.expression:
            row["expression"] = [issue.expression]
        rows.append(row)
    return msgspec.json.encode({"resourceType": "OperationOutcome", "issue": rows})
