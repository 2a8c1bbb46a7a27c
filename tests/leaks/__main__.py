"""``python -m tests.leaks --pairs 2000 --seed 1``: run the pairs and print the figures.

``--place motor`` runs them on MongoDB (`tests.places`).
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from pathlib import Path

from tests.leaks.faults import PLANTED, with_fault
from tests.leaks.pairs import Figures, run
from tests.places import Place, ask_for_place, asked_place


def main() -> int:
    parser = argparse.ArgumentParser(prog="tests.leaks", description=__doc__)
    parser.add_argument("--pairs", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--show", type=int, default=10, help="findings to print")
    parser.add_argument("--faults", action="store_true", help="plant each fault and say who saw it")
    ask_for_place(parser)
    asked = parser.parse_args()
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        place = asked_place(asked.place, Path(folder))
        try:
            if asked.faults:
                return plant_all(asked.pairs, asked.seed, place)
            figures = run(
                asked.pairs,
                asked.seed,
                told=_progress if sys.stderr.isatty() else None,
                place=place,
            )
        finally:
            asyncio.run(place.drop())
    show(figures, time.monotonic() - started)
    for finding in figures.findings[: asked.show]:
        print(finding)
    return bool(figures.findings)


def plant_all(pairs: int, seed: int, place: Place) -> int:
    """Plant one fault after the other; returns how many were not caught."""
    missed = 0
    built = False
    for number, (name, fault) in enumerate(PLANTED.items(), 1):
        if fault.on_write or not built:
            asyncio.run(place.empty())
            built = False
        with with_fault(name, place):
            figures = run(pairs, seed, stop_at_first=True, place=place, built=built)
        built = not fault.on_write
        found = figures.findings[0] if figures.findings else None
        missed += found is None
        how = f"{found.sort}, {found.reader}, {found.ask}" if found else "NOT CAUGHT"
        belt = " (second belt off)" if fault.belt_off else ""
        print(f"{number:2} {name}: {fault.breaks}{belt}")
        print(f"     pair {figures.pairs}: {how}")
    return missed


def show(figures: Figures, seconds: float) -> None:
    lines = [
        f"pairs                  {figures.pairs}",
        f"answers compared       {figures.answers}",
        f"byte differences       {len(figures.differences)}",
        f"completeness twins     {figures.twins + figures.pairs}",
        f"incomplete or too much {len(figures.incomplete)}",
        f"seconds                {seconds:.1f}",
    ]
    for title, counted in (
        ("requests", figures.kinds),
        ("hidden changes", figures.changes),
        ("readers", figures.readers),
    ):
        rows = ", ".join(f"{name} {count}" for name, count in sorted(counted.items()))
        lines.append(f"{title}: {rows}")
    print("\n".join(lines))


def _progress(pairs: int) -> None:
    print(f"\r{pairs} pairs", end="", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
