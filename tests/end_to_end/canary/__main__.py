"""``python -m tests.end_to_end.canary``: walk, scan, print the figures.

``--place motor`` runs it on MongoDB (`tests.places`).
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from pathlib import Path

from tests.end_to_end.canary.scan import table
from tests.end_to_end.canary.show import Outcome, run
from tests.places import Place, ask_for_place, asked_place


def main() -> int:
    """Return 1 where a canary was found."""
    parser = argparse.ArgumentParser(prog="tests.end_to_end.canary", description=__doc__)
    parser.add_argument("--show", type=int, default=20, help="findings to print")
    ask_for_place(parser)
    given = parser.parse_args()
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        outcome = asyncio.run(_once(folder, asked_place(given.place, folder)))
    evidence = outcome.evidence
    print(table(outcome.canaries, outcome.texts, outcome.found))
    print(
        f"\n{len(evidence.exchanges)} requests, {evidence.pages_left} of them from a page, "
        f"{sum(bool(one.referer) for one in evidence.exchanges)} with a Referer; "
        f"{len(evidence.mails)} mails, {len(evidence.sms)} SMS; "
        f"{len(outcome.found)} found; {time.monotonic() - started:.0f} s"
    )
    for finding in outcome.found[: given.show]:
        print(finding)
    return bool(outcome.found)


async def _once(folder: Path, place: Place) -> Outcome:
    try:
        return await run(folder, place, say=lambda part: print(f"... {part}", file=sys.stderr))
    finally:
        await place.drop()


if __name__ == "__main__":
    sys.exit(main())
