"""docs/reference/operations.md: its table says what the rules say; every operation is told of."""

from __future__ import annotations

from pathlib import Path

from fhir_portal.access.operations import OPERATIONS
from fhir_portal.consent.presets import PRESETS
from fhir_portal.consent.sections import section_displays
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


def test_what_patients_may_call_is_that_of_the_rules() -> None:
    listed = [line for line in PAGE.splitlines() if line.count("|") == 4 and " | `$" in line]
    assert sorted(listed) == sorted(
        f"| {rule.section} | `${code}` | {'yes' if rule.acts else 'no'} |"
        for code, rule in OPERATIONS.items()
        if rule.section is not None
    )


def test_every_operation_is_told_of() -> None:
    assert all(f"## `${code}`" in PAGE for code in OPERATIONS)


def test_the_presets_are_published_as_they_are() -> None:
    for kind, preset in PRESETS.items():
        (line,) = [one for one in PAGE.splitlines() if one.startswith(f"| `{kind}` |")]
        sees, acts = line.split(" | ")[1:3]
        if sees == "as a guardian":
            assert preset == PRESETS["guardian"]
            continue
        assert sees == ", ".join(preset.see)
        assert acts == ", ".join(preset.act)


def test_what_a_kind_is_given_at_the_most_holds_its_preset_and_never_sharing() -> None:
    for preset in PRESETS.values():
        assert set(preset.act) <= set(preset.see) <= preset.most
        assert set(preset.act) <= preset.most_act <= preset.most
        assert preset.most <= set(section_displays()) - {"sharing"}
