"""A system-call trace of one write: the sync comes before the answer.

``python -m tests.end_to_end.sync_trace`` needs ``strace``; it prints the calls in their order.
"""

from __future__ import annotations

import asyncio
import os
import re
import tempfile
from pathlib import Path

import httpx
import msgspec

from tests.end_to_end.running import EHR_TOKEN, Running, an_observation, bearer, prepare
from tests.places import File

_CALLS = "openat,pwrite64,pwritev,fdatasync,fsync,sendto,sendmsg,write,writev"
_LINE = re.compile(r"^\d+\s+(?P<at>[\d.]+)\s+(?P<call>\w+)\((?P<rest>.*)$")


async def trace(folder: Path) -> list[str]:
    """Return, in order, the writes to the store's log, the syncs of it, and the answer."""
    place = File(folder / "portal.db")
    await prepare(folder, place)
    out = folder / "trace"
    # -y names the file behind each descriptor, so that the store's log can be told.
    before = ("strace", "-f", "-ttt", "-y", "-s", "16", "-e", f"trace={_CALLS}", "-o", str(out))
    server = Running(folder, place, before=before)
    await server.start()
    async with httpx.AsyncClient(base_url=server.base, timeout=30) as client:
        mark = out.stat().st_size
        answer = await client.post(
            "/fhir/Observation",
            content=msgspec.json.encode(an_observation(1)),
            headers=bearer(EHR_TOKEN) | {"Content-Type": "application/fhir+json"},
        )
        assert answer.status_code == 201, answer.text
    server.stop()
    found: list[str] = []
    with out.open("rb") as lines:
        lines.seek(mark)
        for raw in lines:
            line = _LINE.match(raw.decode("utf-8", "replace"))
            if line is None:
                continue
            name, rest = line["call"], line["rest"]
            if "portal.db-wal" in rest and name in {"pwrite64", "pwritev"}:
                found.append("write to the store's log")
            elif "portal.db-wal" in rest and name in {"fdatasync", "fsync"}:
                found.append("sync of the store's log")
            elif "portal.log.db-wal" in rest and name in {"pwrite64", "pwritev"}:
                found.append("write to the access log")
            elif "HTTP/1.1 201" in rest:
                found.append("answer 201")
                break
    return found


def in_order(calls: list[str]) -> bool:
    """Whether every write to the store's log was synced before the answer left."""
    answer = calls.index("answer 201")
    last_write = max(i for i, c in enumerate(calls[:answer]) if c == "write to the store's log")
    logged = "write to the access log" in calls[:answer]
    return logged and "sync of the store's log" in calls[last_write + 1 : answer]


def main() -> None:
    """Trace one write and print the calls, repeats folded."""
    os.environ.setdefault("LC_ALL", "C")
    with tempfile.TemporaryDirectory() as folder:
        calls = asyncio.run(trace(Path(folder)))
    folded: list[list[object]] = []
    for call in calls:
        if folded and folded[-1][0] == call:
            folded[-1][1] = int(str(folded[-1][1])) + 1
        else:
            folded.append([call, 1])
    for name, times in folded:
        print(f"{times:>3} x {name}")
    print("synced before the answer:", in_order(calls))


if __name__ == "__main__":
    main()
