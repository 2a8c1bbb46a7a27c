"""docs/reference/operations.md: its table says what the rules say; every operation is told of."""

from __future__ import annotations

from pathlib import Path

from fhir_portal.access.operations import OPERATIONS
from fhir_portal.operations.definition import definition_of

PAGE = (Path(__file__).parents[2] / "docs" / "reference" / "operations.md").read_text("utf-8")


def row(code: str) -> str:
    rule, definition = OPERATIONS[code], definition_of(code)
    on = [f"`{rule.target}/id`"] * definition.on_instance + [
        f"`{rule.target}`"
    ] * definition.on_type
    letters = ", ".join(f"`{name}.{letters}`" for name, letters in rule.by_type)
    ehr = "yes" if rule.system else "no"
    return f"| `${code}` | {', '.join(on)} | {letters} | {rule.staff or ''} | {ehr} |"


def test_the_table_is_that_of_the_rules() -> None:
    listed = [line for line in PAGE.splitlines() if line.startswith("| `$")]
    assert sorted(listed) == sorted(row(code) for code in OPERATIONS)


def test_every_operation_is_told_of() -> None:
    assert all(f"## `${code}`" in PAGE for code in OPERATIONS)
