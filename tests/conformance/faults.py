"""``python -m tests.conformance.faults``: plant each fault of `planted` and see who notices.

    --item S12 --item G5    only the faults of these items
    --write                 keep what was seen in faults_seen.json, for docs/conformance.md
    --keep-going            go on though tests fail without any fault

The tree is copied; in the copy one fault at a time is planted, the tests marked with its items are
run, and the file is put back. A fault counts as seen when a marked test itself fails: an import
that breaks, or a fixture, proves nothing.
"""

# ruff: noqa: T201 - it prints what was seen

from __future__ import annotations

import argparse
import importlib
import json
import multiprocessing
import os
import shutil
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, Final

import pytest

from tests.conformance.planted import PLANTED, Fault

ROOT: Final = Path(__file__).parents[2]
SEEN: Final = Path(__file__).with_name("faults_seen.json")
SETS: Final = ("inferno", "attacks")
_COPIED: Final = ("fhir_portal", "tests")
_LINKED: Final = ("ig", "docs", "examples", "deploy", "requirements", "bench", "README.md")
_SECONDS: Final = 1200
_FORK: Final = multiprocessing.get_context("fork")


def items_of(test: pytest.Item) -> set[str]:
    """What a test is marked with, of the sets whose tests have to fail once."""
    return {
        str(one)
        for marker in test.iter_markers("requirement")
        for one in marker.args[1:]
        if marker.args[0] in SETS
    }


class Within:
    """A pytest plugin: keeps the tests of some items and notes which of them failed, where."""

    def __init__(self, items: Collection[str]) -> None:
        self.items = set(items)
        self.marked: dict[str, list[str]] = {}
        self.failed: set[str] = set()
        self.broken: set[str] = set()

    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[Any]) -> None:
        wanted = [one for one in items if items_of(one) & self.items or not self.items]
        wanted = [one for one in wanted if items_of(one)]
        config.hook.pytest_deselected(items=[one for one in items if one not in wanted])
        items[:] = wanted
        self.marked = {_name(one.nodeid): sorted(items_of(one)) for one in wanted}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            (self.failed if report.when == "call" else self.broken).add(_name(report.nodeid))


def _name(node: str) -> str:
    return node.partition("[")[0]


def run_marked(items: Collection[str], files: Sequence[str]) -> dict[str, Any]:
    """Run the tests of these items in the current folder, which has to be what is imported."""
    import fhir_portal  # noqa: PLC0415 - the copy's, and this is where that is made sure of

    assert Path(str(fhir_portal.__file__)).is_relative_to(Path.cwd()), fhir_portal.__file__
    noting = Within(items)
    status = pytest.main(
        ["-q", "-p", "no:cacheprovider", "--tb=line", "--assert=plain", *files], [noting]
    )
    return {
        "status": int(status),
        "marked": noting.marked,
        "failed": sorted(noting.failed),
        "broken": sorted(noting.broken),
    }


def forget_ours() -> None:
    """Have our own modules imported anew; other people's stay."""
    for name in [*sys.modules]:
        if name.partition(".")[0] in _COPIED:
            del sys.modules[name]


class Copy:
    """A copy of the tree in which faults are planted, as the folder we are in from now on.

    Each run is a process of its own, forked from this one, which has other people's modules loaded
    and none of ours.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.now = int(time.time())
        ignored = shutil.ignore_patterns(".hypothesis")
        for name in _COPIED:
            shutil.copytree(ROOT / name, folder / name, ignore=ignored)
        shutil.copy2(ROOT / "pyproject.toml", folder)
        for name in _LINKED:
            (folder / name).symlink_to(ROOT / name)
        os.chdir(folder)
        sys.path.insert(0, str(folder))
        forget_ours()
        importlib.import_module("fhir_portal.app")
        importlib.import_module("tests.conformance.whole")
        forget_ours()
        self.files = [
            str(path.relative_to(folder))
            for path in sorted((folder / "tests").rglob("test_*.py"))
            if "mark.requirement(" in path.read_text("utf-8")
        ]

    def run(self, items: Collection[str], files: Sequence[str] = ()) -> dict[str, Any]:
        """Run what is marked with these items, or everything that is marked."""
        answer, said = self.folder / "answer.json", self.folder / "said.txt"
        answer.unlink(missing_ok=True)
        running = _FORK.Process(target=_in_child, args=(items, files or self.files, answer, said))
        running.start()
        running.join(_SECONDS)
        if running.is_alive():
            running.kill()
            running.join()
        if not answer.exists():
            words = said.read_text("utf-8")[-2000:] if said.exists() else ""
            return {"marked": {}, "failed": [], "broken": ["no end"], "said": words}
        found: dict[str, Any] = json.loads(answer.read_text("utf-8"))
        return found

    def with_fault(self, fault: Fault, files: Sequence[str]) -> dict[str, Any]:
        """Plant a fault, run the tests of its items, put the files back."""
        before = {file: (self.folder / file).read_text("utf-8") for file, _, _ in fault.edits}
        for file, old, new in fault.edits:
            assert before[file].count(old) == 1, f"{file} no longer has: {old}"
            self._write(self.folder / file, before[file].replace(old, new))
        try:
            return self.run(fault.items, files)
        finally:
            for file, text in before.items():
                self._write(self.folder / file, text)

    def _write(self, path: Path, text: str) -> None:
        """Each text has a time of its own: what was compiled of another one is not taken."""
        path.write_text(text, "utf-8")
        self.now += 1
        os.utime(path, (self.now, self.now))


def _in_child(items: Collection[str], files: Sequence[str], answer: Path, said: Path) -> None:
    with said.open("w", encoding="utf-8") as output:
        os.dup2(output.fileno(), 1)
        os.dup2(output.fileno(), 2)
        found = run_marked(items, files)
    answer.write_text(json.dumps(found), "utf-8")


def chosen(items: Collection[str]) -> list[Fault]:
    """The faults of these items; all of them when none is named."""
    return [fault for fault in PLANTED if not items or set(items) & set(fault.items)]


def plant(items: Collection[str], *, keep_going: bool, write: bool) -> int:
    """Plant the faults and print who noticed; how many nobody did."""
    started = time.monotonic()
    missed = 0
    seen = {one["breaks"]: one["tests"] for one in read_seen()} if items else {}
    with tempfile.TemporaryDirectory() as folder:
        copy = Copy(Path(folder))
        asked = {one for fault in chosen(items) for one in fault.items} if items else set()
        baseline = copy.run(asked)
        failing = [*baseline["failed"], *baseline["broken"]]
        if failing or not baseline["marked"]:
            print("fail without any fault:", *failing, baseline.get("said", ""), sep="\n  ")
            if not keep_going or not baseline["marked"]:
                return 1
        files_of: defaultdict[str, set[str]] = defaultdict(set)
        for test, marked in baseline["marked"].items():
            for one in marked:
                files_of[one].add(test.partition("::")[0])
        for fault in chosen(items):
            files = sorted({file for one in fault.items for file in files_of[one]})
            found = copy.with_fault(fault, files) if files else {"failed": [], "broken": []}
            failed = sorted(set(found["failed"]) - set(failing))
            seen[fault.breaks] = failed
            missed += not failed
            names = ", ".join(test.partition("::")[2] for test in failed)
            problem = f" ({', '.join(found['broken'])} broke)" if found["broken"] else ""
            print(f"{', '.join(fault.items):24} {fault.breaks}", flush=True)
            print(f"{'':24}   {names or 'NOT SEEN'}{problem}", flush=True)
    unseen = sorted(set(baseline["marked"]) - {test for tests in seen.values() for test in tests})
    print(f"{len(seen)} faults, {missed} not seen, {time.monotonic() - started:.0f} s")
    if unseen and not items:
        print("marked tests that no fault made fail:", *unseen, sep="\n  ")
    if write:
        kept = [
            {"breaks": one.breaks, "items": list(one.items), "tests": seen[one.breaks]}
            for one in PLANTED
            if one.breaks in seen
        ]
        SEEN.write_text(json.dumps(kept, indent=1) + "\n", "utf-8")
    return missed


def read_seen() -> list[dict[str, Any]]:
    """Which tests failed on which fault when the faults were last planted."""
    found: list[dict[str, Any]] = json.loads(SEEN.read_text("utf-8")) if SEEN.exists() else []
    return found


def main() -> int:
    parser = argparse.ArgumentParser(prog="tests.conformance.faults", description=__doc__)
    parser.add_argument("--item", action="append", default=[])
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--keep-going", action="store_true")
    asked = parser.parse_args()
    return plant(asked.item, keep_going=asked.keep_going, write=asked.write)


if __name__ == "__main__":
    sys.exit(main())
