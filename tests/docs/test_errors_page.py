"""docs/reference/errors.md: its table is the CodeSystem's, and every code is one that is used."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from fhir_portal.fhir import errors
from fhir_portal.fhir.definitions import ig_resource
from fhir_portal.fhir.errors import FhirError
from fhir_portal.fhir.outcome import ERROR_SYSTEM
from fhir_portal.web.pages.errors import PAGE_ERRORS

PAGE = (Path(__file__).parents[2] / "docs" / "reference" / "errors.md").read_text("utf-8")
_FAULT = "fault"


def refusals(kind: type[FhirError] = FhirError) -> Iterator[type[FhirError]]:
    if kind.__module__ == errors.__name__:
        yield kind
    for below in kind.__subclasses__():
        yield from refusals(below)


def statuses() -> dict[str, int]:
    return {_FAULT: 500} | {one.portal_error: one.status for one in refusals()}


def rows() -> list[str]:
    found = []
    for one in ig_resource("CodeSystem", "portal-error")["concept"]:
        code = one["code"]
        status = str(statuses()[code]) if code in statuses() else ""
        on = [
            name for name, codes in (("API", statuses()), ("pages", PAGE_ERRORS)) if code in codes
        ]
        found.append(
            f"| `{code}` | {status} | {', '.join(on)} | {one['display']} | {one['definition']} |"
        )
    return found


def test_the_table_is_the_code_system() -> None:
    assert [line for line in PAGE.splitlines() if line.startswith("| `")] == rows()
    assert ig_resource("CodeSystem", "portal-error")["url"] == ERROR_SYSTEM
    assert ERROR_SYSTEM in PAGE


def test_every_code_is_used_and_every_refusal_has_one() -> None:
    listed = {one["code"] for one in ig_resource("CodeSystem", "portal-error")["concept"]}
    assert listed == set(statuses()) | set(PAGE_ERRORS)
    for kind in refusals():
        for issue in kind("words").issues:
            assert issue.portal_error == kind.portal_error
