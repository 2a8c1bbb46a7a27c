"""Write docs/conformance.md from the tests' ``requirement`` markers.

    python docs/conformance.py            write it
    python docs/conformance.py --check    fail if what is checked in says something else

A test says which statements it checks: ``@pytest.mark.requirement("hl7.fhir.r4", "3.1.0.1", ...)``,
the set and the statements' own ids. Tests are only collected here; `make test` runs them.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import re
import sys
from collections import defaultdict
from pathlib import Path

import pytest

PAGE = Path(__file__).with_name("conformance.md")
HEAD = """\
# Conformance

Printed by `make conformance` from the tests: each row is a statement of a specification, named by
the specification's own identifier, and the tests that check it. A statement whose only tests are
skipped or expected to fail is a gap. A statement that no test names is not listed yet.
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


def page(markers: Markers) -> str:
    """Return the whole page."""
    lines = [HEAD]
    heading = ""
    for requirement in sorted(markers.tests, key=natural):
        requirements, one = requirement
        if requirements != heading:
            heading = requirements
            lines += [f"## {heading}\n", "| statement | status | test |", "| --- | --- | --- |"]
        tests = markers.tests[requirement]
        status = "gap" if all(tests.values()) else "tested"
        names = [f"`{test}`" + (f" ({gap})" if gap else "") for test, gap in sorted(tests.items())]
        lines.append(f"| {one} | {status} | {'<br>'.join(names)} |")
    return "\n".join(lines).rstrip("\n") + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true")
    check = parser.parse_args().check
    now = page(collect())
    if not check:
        PAGE.write_text(now, "utf-8")
        print(now)
    elif not PAGE.exists() or PAGE.read_text("utf-8") != now:
        sys.exit(f"{PAGE.name} does not say what the tests say: run make conformance")


if __name__ == "__main__":
    main()
