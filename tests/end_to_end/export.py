"""A large record is taken along whole, and the server holds no more of it than a page.

``python -m tests.end_to_end.export --resources 100000`` makes up a record, has a server send it as
one archive, and prints how long that took and what the process held at most (its resident set, as
Linux tells it). ``--place`` as in `tests.places`.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from zipfile import ZipFile

import httpx
import msgspec

from tests.end_to_end.running import (
    PATIENT_TOKEN,
    PRACTICE,
    Running,
    an_observation,
    bearer,
    prepare,
    settings_of,
)
from tests.places import Place, ask_for_place, asked_place, environment

EXPORT = "/fhir/Patient/ida/$export-self"
CAN_TELL = Path("/proc/self/status").exists()
_SECONDS = 600.0


@dataclass(frozen=True)
class Taken:
    """What came, and what the server held (KiB) before it and at most while it came."""

    resources: int
    size: int
    seconds: float
    before: int
    most: int


def resident(process: int) -> int:
    """The resident set of a process, in KiB."""
    for line in Path(f"/proc/{process}/status").read_text("ascii").splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1])
    raise LookupError(process)


def made_up(count: int) -> Iterator[bytes]:
    """Observations of a record, one after the other, each of about a kilobyte."""
    for number in range(count):
        tree = an_observation(number)
        words = hashlib.sha256(str(number).encode()).hexdigest()
        tree |= {"id": f"made-up-{number}", "note": [{"text": words * 8}]}
        yield msgspec.json.encode(tree)


def fill(folder: Path, place: Place, count: int) -> None:
    """Import a record of so many Observations into a prepared store."""
    lines = folder / "Observation.ndjson"
    with lines.open("wb") as out:
        for one in made_up(count):
            out.write(one + b"\n")
    subprocess.run(
        [sys.executable, "-m", "fhir_portal", "import", "--practice", PRACTICE, str(lines)],
        env=environment(settings_of(folder, place)),
        capture_output=True,
        check=True,
    )
    lines.unlink()


async def take(server: Running, to: Path, *, pause: float = 0) -> Taken:
    """Fetch the archive into a file, with a pause after each piece that came."""
    assert server.process is not None
    process = server.process.pid
    async with httpx.AsyncClient(base_url=server.base, timeout=_SECONDS) as client:
        headers = bearer(PATIENT_TOKEN)
        assert (await client.get("/fhir/Patient/ida", headers=headers)).status_code == 200
        before = most = resident(process)
        began, size = time.monotonic(), 0
        async with client.stream("GET", EXPORT, headers=headers) as answer:
            assert answer.status_code == 200
            with to.open("wb") as out:
                async for chunk in answer.aiter_raw():
                    size += out.write(chunk)
                    most = max(most, resident(process))
                    if pause:
                        await asyncio.sleep(pause)
        seconds = time.monotonic() - began
    with ZipFile(to) as found:
        assert found.testzip() is None
        manifest = msgspec.json.decode(found.read("manifest.json"))
    return Taken(manifest["resources"]["Observation"], size, seconds, before, most)


async def run(folder: Path, place: Place, count: int) -> Taken:
    """Prepare a store, and take its record along."""
    await prepare(folder, place)
    await asyncio.to_thread(fill, folder, place, count)
    server = Running(folder, place)
    await server.start()
    try:
        return await take(server, folder / "record.zip")
    finally:
        server.stop()
        await place.drop()


def main() -> None:
    """Run with the figures given."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--resources", type=int, default=100_000)
    ask_for_place(parser)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        place = asked_place(given.place, folder)
        taken = asyncio.run(run(folder, place, given.resources))
    print(
        f"{taken.resources} Observations, an archive of {taken.size / 2**20:.1f} MiB in "
        f"{taken.seconds:.1f} s; the server held {taken.before / 1024:.0f} MiB before and "
        f"{taken.most / 1024:.0f} MiB at most"
    )


if __name__ == "__main__":
    main()
