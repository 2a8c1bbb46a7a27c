"""Write docs/conformance.md and docs/features.md from the tests' ``requirement`` markers.

    python docs/conformance.py            write them
    python docs/conformance.py --check    fail if what is checked in says something else

A test says which statements it checks: ``@pytest.mark.requirement("hl7.fhir.r4", "3.1.0.1", ...)``,
the set and the statements' own ids. Tests are only collected here; `make test` runs them. Where a
fault was planted for a statement (``python -m tests.conformance.faults``), the page says which, and
which tests failed on it.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import re
import sys
import tomllib
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

PAGE = Path(__file__).with_name("conformance.md")
FEATURES_PAGE = Path(__file__).with_name("features.md")
FEATURES = Path(__file__).parents[1] / "tests" / "portal_features.toml"
PORTAL = "portal"
"""The set whose ids are rows of `FEATURES`."""
TESTS = Path(__file__).parents[1] / "tests" / "conformance"
SEEN, CHECKLIST = TESTS / "faults_seen.json", TESTS / "checklist.toml"
HEAD = """\
# Conformance

Printed by `make conformance` from the tests: each row is a statement of a specification, named by
the specification's own identifier, and the tests that check it. A statement whose only tests are
skipped or expected to fail is a gap. A statement that no test names is not listed yet.

Where a row has planted faults, each of them was put into the server by
`python -m tests.conformance.faults`, and the tests whose numbers follow it were seen to fail on it;
without a fault all of them passed.
"""

FEATURES_HEAD = """\
# Features

Printed by `make conformance` from the tests: what portals of today let people and practices do, row
by row, and the tests that walk it here. A row without a test says so.
"""

Requirement = tuple[str, str]


class Markers:
    """A pytest plugin that keeps, for each requirement, the tests that name it and their gaps."""

    def __init__(self) -> None:
        self.tests: defaultdict[Requirement, dict[str, str]] = defaultdict(dict)

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        for item in session.items:
            test = item.nodeid.partition("[")[0]
            gaps = [
                str(mark.kwargs.get("reason") or mark.name)
                for name in ("skip", "xfail")
                for mark in item.iter_markers(name)
            ]
            for marker in item.iter_markers("requirement"):
                requirements, *ids = marker.args
                for one in ids:
                    known = self.tests[str(requirements), str(one)]
                    known[test] = known.get(test, "") or "; ".join(gaps)


@dataclass
class Planted:
    """What was seen when faults were planted, and what the items are about.

    ``faults`` are, by item, what each one breaks and the tests that failed on it.
    """

    faults: dict[str, dict[str, list[str]]] = field(default_factory=dict)
    words: Mapping[str, str] = field(default_factory=dict)
    open: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def read(cls) -> Planted:
        seen: list[dict[str, Any]] = json.loads(SEEN.read_text("utf-8"))
        checklist = tomllib.loads(CHECKLIST.read_text("utf-8"))
        faults: defaultdict[str, dict[str, list[str]]] = defaultdict(dict)
        for one in seen:
            for item in one["items"]:
                faults[item][one["breaks"]] = one["tests"]
        return cls(dict(faults), checklist["words"], checklist["open"])


def collect() -> Markers:
    """Collect every test; exits with pytest's own words when it cannot."""
    markers = Markers()
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        status = pytest.main(["--collect-only", "--quiet", "-p", "no:cacheprovider"], [markers])
    if status not in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
        sys.exit(said.getvalue())
    return markers


def natural(requirement: Requirement) -> list[list[str | int]]:
    """Sort ``2.10`` after ``2.9``."""
    return [
        [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", text)]
        for text in requirement
    ]


def page(markers: Markers, planted: Planted) -> str:
    """Return the whole page."""
    by_set: defaultdict[str, list[str]] = defaultdict(list)
    for requirements, one in sorted(markers.tests, key=natural):
        if requirements != PORTAL:
            by_set[requirements].append(one)
    lines = [HEAD]
    for requirements, ids in by_set.items():
        lines.append(f"## {requirements}\n")
        if planted.faults.keys() & ids:
            lines += ["| item | status | tests | planted faults |", "| --- | --- | --- | --- |"]
            lines += [_with_faults(one, markers.tests[requirements, one], planted) for one in ids]
        else:
            lines += ["| statement | status | test |", "| --- | --- | --- |"]
            lines += [_row(one, markers.tests[requirements, one]) for one in ids]
        lines.append("")
    return "\n".join(lines).rstrip("\n") + "\n"


def features_page(markers: Markers, rows: Mapping[str, Mapping[str, str]]) -> str:
    """Return the page of features; a test may name no row that is not there."""
    named = {one for requirements, one in markers.tests if requirements == PORTAL}
    unknown = sorted(named - rows["words"].keys())
    if unknown:
        sys.exit(f"no such row in {FEATURES.name}: {', '.join(unknown)}")
    lines = [FEATURES_HEAD, "| row | status | tests |", "| --- | --- | --- |"]
    for one, words in rows["words"].items():
        tests = markers.tests.get((PORTAL, one), {})
        names = "<br>".join(_named(test, gap) for test, gap in sorted(tests.items()))
        status = _status(tests) if tests else "no test"
        status += f"; open: {rows['open'][one]}" if one in rows["open"] else ""
        lines.append(f"| {one}: {words} | {status} | {names} |")
    return "\n".join(lines) + "\n"


def _row(one: str, tests: Mapping[str, str]) -> str:
    names = [_named(test, gap) for test, gap in sorted(tests.items())]
    return f"| {one} | {_status(tests)} | {'<br>'.join(names)} |"


def _with_faults(one: str, tests: Mapping[str, str], planted: Planted) -> str:
    """A row of an item for which faults were planted, or that has words of its own."""
    order = sorted(tests)
    names = [f"{n}. {_named(test, tests[test])}" for n, test in enumerate(order, 1)]
    faults = []
    for breaks, failed in sorted(planted.faults.get(one, {}).items()):
        numbers = [str(order.index(test) + 1) for test in failed if test in tests]
        if numbers:
            faults.append(f"{breaks} ({', '.join(numbers)})")
    status = "pass" if faults and not any(tests.values()) else _status(tests)
    status += f"; open: {planted.open[one]}" if one in planted.open else ""
    title = f"{one}: {planted.words[one]}" if one in planted.words else one
    return f"| {title} | {status} | {'<br>'.join(names)} | {'<br>'.join(faults)} |"


def _status(tests: Mapping[str, str]) -> str:
    return "gap" if all(tests.values()) else "tested"


def _named(test: str, gap: str) -> str:
    return f"`{test}`" + (f" ({gap})" if gap else "")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true")
    check = parser.parse_args().check
    markers = collect()
    rows = tomllib.loads(FEATURES.read_text("utf-8"))
    pages = {PAGE: page(markers, Planted.read()), FEATURES_PAGE: features_page(markers, rows)}
    for place, now in pages.items():
        if not check:
            place.write_text(now, "utf-8")
            print(now)
        elif not place.exists() or place.read_text("utf-8") != now:
            sys.exit(f"{place.name} does not say what the tests say: run make conformance")


if __name__ == "__main__":
    main()
