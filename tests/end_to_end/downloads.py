"""Downloads that are running end within a second after the access of who reads them does.

A part of ``python -m tests.end_to_end.revocation``. A reader begins a download at one process,
takes some of it, and then nothing more. Access is ended by a request to the other process. From
its answer on it is measured how long the connection stays open; then what came is read: it has to
be cut, and to look cut. Somebody else reads the same at the same process; theirs arrives whole.
"""

from __future__ import annotations

import asyncio
import io
import os
import select
import socket
import time
from base64 import b64encode
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Final
from zipfile import BadZipFile, ZipFile

import msgspec

from fhir_portal.access.context import acting_for
from fhir_portal.app import Application
from fhir_portal.fhir.interaction import FhirRequest
from fhir_portal.settings import load
from tests.end_to_end.demo import Demo, forget_tries
from tests.end_to_end.processes import Connection, Reply, holder, request
from tests.end_to_end.revocation import PRACTICE, World, end_on_page
from tests.end_to_end.running import settings_of
from tests.end_to_end.tab import Tab, form_of

WITHIN: Final = 1.0
FILE: Final = 50 * 1024 * 1024
SOME: Final = 256 * 1024
_WINDOW: Final = 64 * 1024
_TRIES: Final = 400
_PATIENCE: Final = 60.0
SCOPE: Final = "launch/patient openid fhirUser offline_access patient/*.rs"
SELF, PROXY = ("teodor", "Patient/teodor"), ("lorcan", "Patient/ottilie")
_MEDIA: Final = "application/dicom"
_NATIVE: Final = {"Accept": "*/*"}
PROXY_GRANT: Final = "Consent/ottilie-attorney-grant"
NURSE: Final = "cyril"
_CATEGORY: Final = "https://fhir-portal.example/ig/CodeSystem/portal-conversation"


class Slow:
    """A download of which its reader has taken some, and now takes nothing."""

    def __init__(self, connection: Connection, head: bytes, taken: bytes) -> None:
        self._connection = connection
        self.head = head
        self._taken = taken

    @classmethod
    async def begin(cls, world: World, process: int, sent: bytes) -> Slow:
        """Ask one process for it, over a connection that holds little."""
        made = await _narrow(world, process)
        made.writer.write(sent)
        async with asyncio.timeout(_PATIENCE):
            head = await made.reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200"), head
            taken = await made.reader.readexactly(SOME)
        return cls(made, head, taken)

    async def closed(self) -> float:
        """Wait, without reading, until the other end has closed; how long that took."""
        link = self._connection.writer.get_extra_info("socket")
        if link.fileno() < 0:  # there was room to go on reading, so the end was met already
            return 0.0
        hung_up = select.poll()
        hung_up.register(link.fileno(), 0)  # an error or the end alone
        began = time.monotonic()
        async with asyncio.timeout(_PATIENCE):
            while not hung_up.poll(0):
                await asyncio.sleep(0.002)
        return time.monotonic() - began

    async def rest(self) -> tuple[bytes, bool]:
        """Read what is there still; all that came, and whether the end of the answer did."""
        found, whole = bytearray(self._taken), False
        length = _header(self.head, b"content-length")
        try:
            async with asyncio.timeout(_PATIENCE):
                while not whole:
                    some = await self._connection.reader.read(_WINDOW)
                    if not some:
                        break
                    found += some
                    ends = found.endswith(b"\r\n0\r\n\r\n")
                    whole = len(found) >= int(length) if length else ends
        except ConnectionError:
            pass
        await self._connection.close()
        return bytes(found) if length else _unchunked(bytes(found)), whole


async def _narrow(world: World, process: int) -> Connection:
    server = world.demo.server
    for _ in range(_TRIES):
        link = socket.socket()
        link.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _WINDOW)
        link.setblocking(False)  # noqa: FBT003 - the standard library wants it so
        await asyncio.get_running_loop().sock_connect(link, ("127.0.0.1", server.port))
        made = Connection(*await asyncio.open_connection(sock=link, limit=_WINDOW))
        reply = await made.ask(request("GET", "/health/live"))
        assert reply.status == 200
        if await holder(server, made) == process:
            return made
        await made.close()
    raise AssertionError(f"no connection to process {process}")


def _header(head: bytes, name: bytes) -> bytes:
    for line in head.lower().split(b"\r\n"):
        key, _, value = line.partition(b":")
        if key == name:
            return value.strip()
    return b""


def _unchunked(body: bytes) -> bytes:
    """What chunks hold, as far as they came (RFC 9112 §7.1)."""
    found, at = [], 0
    while (end := body.find(b"\r\n", at)) > at:
        number = int(body[at:end], 16)
        if not number:
            break
        found.append(body[end + 2 : end + 2 + number])
        at = end + number + 4
    return b"".join(found)


# ---------------------------------------------------------------- who reads what


@dataclass
class Reading:
    """Somebody who has access at the moment: what they ask for, and what ends it."""

    ask: bytes
    end: Callable[[], Awaitable[None]]
    undo: Callable[[], Awaitable[None]] | None = None


@dataclass
class Measured:
    """What came of one way, round by round."""

    name: str
    seconds: list[float] = field(default_factory=list)
    bytes: list[int] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        most = max(self.seconds, default=0.0)
        typical = sorted(self.seconds)[len(self.seconds) // 2] if self.seconds else 0.0
        taken = max(self.bytes, default=0) / 2**20
        line = (
            f"{self.name}: {len(self.seconds)} cut, within {typical:.2f} s (median) and "
            f"{most:.2f} s at most; {taken:.1f} MiB had left at most"
        )
        return "\n  WRONG: ".join([line, *self.wrong])


@dataclass
class Files:
    """The large files of the records: what each holds."""

    content: bytes

    @classmethod
    async def put(cls, demo: Demo, size: int) -> Files:
        """Store a file in both records, and as one that came with a message, as the practice."""
        found = cls(os.urandom(size))
        app = Application(load(**settings_of(demo.folder, demo.place)), background=False)
        await app.open()
        practice = acting_for(PRACTICE, "")
        data = b64encode(found.content).decode()
        for patient in (SELF[1], PROXY[1]):
            name = patient.partition("/")[2]
            files = [
                {"resourceType": "Binary", "id": f"{name}-{one}", "contentType": _MEDIA}
                for one in ("scan", "knee")
            ]
            for tree in (
                *({**one, "data": data} for one in files),
                _document(name, {"contentType": _MEDIA, "url": f"Binary/{name}-scan"}),
                *_conversation(name, {"contentType": _MEDIA, "url": f"Binary/{name}-knee"}),
            ):
                asked = FhirRequest("update", str(tree["resourceType"]), str(tree["id"]))
                body = msgspec.json.encode(tree)
                await app.portal.perform(msgspec.structs.replace(asked, body=body), practice)
        await app.close()
        return found


def _document(name: str, attached: dict[str, str]) -> dict[str, Any]:
    return {
        "resourceType": "DocumentReference",
        "id": f"{name}-scan",
        "status": "current",
        "subject": {"reference": f"Patient/{name}"},
        "content": [{"attachment": attached}],
    }


def _conversation(name: str, attached: dict[str, str]) -> list[dict[str, Any]]:
    def one(own_id: str, code: str, status: str) -> dict[str, Any]:
        return {
            "resourceType": "Communication",
            "id": own_id,
            "status": status,
            "category": [{"coding": [{"system": _CATEGORY, "code": code}]}],
            "subject": {"reference": f"Patient/{name}"},
            "sender": {"reference": f"Patient/{name}"},
            "sent": "2026-01-05T09:00:00Z",
            "payload": [{"contentString": "The pictures of my knee"}],
        }

    message = one(f"{name}-scan", "message", "completed")
    message |= {
        "partOf": [{"reference": f"Communication/{name}-thread"}],
        "payload": [{"contentAttachment": attached}],
    }
    return [one(f"{name}-thread", "thread", "in-progress"), message]


async def app_of(world: World, who: tuple[str, str], path: str) -> Reading:
    """An app that reads a record; whoever allowed it ends that on their page."""
    username, patient = who
    tokens = await world.tokens(username, patient, SCOPE)
    asked = request("GET", path, token=tokens.access, headers=_NATIVE)
    if who == PROXY:

        async def end() -> None:
            await world.as_ehr(lambda consent: consent.update(status="inactive"), PROXY_GRANT)

        async def undo() -> None:
            await world.as_ehr(lambda consent: consent.update(status="active"), PROXY_GRANT)

        return Reading(asked, end, undo)
    return Reading(asked, lambda: end_on_page(world, tokens, username))


async def at_portal(world: World) -> Reading:
    """A person at the portal's own pages, who is signed out at the other process."""
    tab = await world.signed_in(SELF[0])
    page = await _followed(world, tab, "/portal/export")
    if page.status == 303 or b'name="record"' in page.body:
        form = form_of(await tab.get(world.at, "/portal/record"), "/portal/record")
        fields = [pair for pair in form.fields if pair[0] != "record"]
        chosen = [*fields, ("record", f"{PRACTICE}/{SELF[1]}")]
        assert (await tab.post(world.at, form.action, chosen)).status == 303
        page = await _followed(world, tab, "/portal/export")
    form = form_of(page, "/portal/export")
    return Reading(
        tab.asking("POST", form.action, form.fields), lambda: _sign_out(world, tab, page)
    )


async def at_desk(world: World) -> Reading:
    """A nurse who opens a file that came with a message, and is signed out at the other process."""
    tab = await world.signed_in(NURSE)
    page = await _followed(world, tab, "/staff")
    assert page.status == 200, (page.status, page.headers)
    path = f"/staff/inbox/{SELF[0]}-scan/file/1"
    return Reading(tab.asking("GET", path), lambda: _sign_out(world, tab, page))


async def _followed(world: World, tab: Tab, path: str) -> Reply:
    page = await tab.get(world.at, path)
    for _ in range(5):
        if page.status != 303:
            break
        page = await tab.get(world.at, page.headers["location"])
    return page


async def _sign_out(world: World, tab: Tab, page: Reply) -> None:
    form = form_of(page, "/signout")
    reply = await tab.post(world.at, form.action, form.fields)
    assert reply.status == 303, (reply.status, reply.body)


READERS: Final[dict[str, Callable[[World], Awaitable[Reading]]]] = {
    "an app's file": lambda world: app_of(world, SELF, "/fhir/Binary/teodor-scan"),
    "an app's archive": lambda world: app_of(world, SELF, f"/fhir/{SELF[1]}/$export-self"),
    "a proxy's file": lambda world: app_of(world, PROXY, "/fhir/Binary/ottilie-scan"),
    "a proxy's archive": lambda world: app_of(world, PROXY, f"/fhir/{PROXY[1]}/$export-self"),
    "an archive at the portal": at_portal,
    "a file at the desk": at_desk,
}


async def try_reader(world: World, files: Files, name: str, rounds: int) -> Measured:
    """Have somebody read, end their access at the other process, and see what came of it."""
    measured = Measured(name)
    for number in range(rounds):
        world.turn = number
        await forget_tries(world.operator)
        here = list(world.held)[(number + 1) % len(world.held)]
        reading = await READERS[name](world)
        ehr = await world.ehr_token()
        path = "/fhir/Binary/teodor-scan"
        beside = await Slow.begin(world, here, request("GET", path, token=ehr, headers=_NATIVE))
        slow = await Slow.begin(world, here, reading.ask)
        await reading.end()
        try:
            measured.seconds.append(await slow.closed())
        except TimeoutError:
            measured.wrong.append("it was never closed")
        content, whole = await slow.rest()
        measured.bytes.append(len(content))
        if whole or content == files.content or len(content) >= len(files.content):
            measured.wrong.append("it arrived whole")
        if "archive" in name and _opens(content):
            measured.wrong.append("what was cut opens as an archive")
        others, arrived = await beside.rest()
        if not arrived or len(others) < len(files.content):
            measured.wrong.append("somebody else's download was cut, too")
        if reading.undo is not None:
            await reading.undo()
    measured.wrong += [f"{one:.2f} s" for one in measured.seconds if one > WITHIN]
    return measured


def _opens(content: bytes) -> bool:
    try:
        ZipFile(io.BytesIO(content)).close()
    except BadZipFile:
        return False
    return True
