"""What a walk through the server leaves behind: requests, answers, messages, log and store."""

from __future__ import annotations

import html
import re
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qs, unquote, urlsplit

import httpx
import msgspec
from bson import encode
from pymongo import AsyncMongoClient

from fhir_portal.accounts import invitation
from fhir_portal.accounts.one_time_code import LINK_PREFIX
from fhir_portal.notify.outbox import OutboxMessage
from fhir_portal.notify.recovery import USERNAME_PREFIX
from fhir_portal.resources.store import PortalStore
from tests.end_to_end.canary.scan import Canaries, Text
from tests.notify.receiver import Taken
from tests.places import Database, Place

CALLBACK: Final = "http://127.0.0.1:8765/callback"
"""Where the apps are; nobody listens."""
_CARRIES: Final = {
    invitation.LINK_PREFIX: "link",
    invitation.CODE_PREFIX: "security code",
    LINK_PREFIX: "one-time code",
    USERNAME_PREFIX: "user name",
}
"""What a message was made to carry, by the beginning of what its outbox record names."""
_ONE_TIME: Final = ("authorization code",)
_ALERT: Final = re.compile(rb'role="alert"')


@dataclass(frozen=True, slots=True)
class Exchange:
    """A request and its answer; ``sent`` is the form that a person filled in.

    ``typed`` says that the test itself put a canary into the URL.
    """

    method: str
    target: str
    referer: str
    status: int
    headers: Sequence[tuple[str, str]]
    body: bytes
    sent: bytes = b""
    typed: bool = False

    @property
    def path(self) -> str:
        return urlsplit(self.target).path

    @property
    def without_what_was_typed(self) -> bytes:
        """The page without what a person typed and finds again in the same field."""
        page = self.body
        for name, values in parse_qs(self.sent.decode()).items():
            for value in values:
                spelt = re.escape(html.escape(value)).encode()
                field = re.escape(name).encode()
                page = re.sub(
                    rb'(<input[^>]* name="%b"[^>]* value=")%b"' % (field, spelt), rb'\1"', page
                )
                page = re.sub(
                    rb'(<textarea[^>]* name="%b"[^>]*>\s*)%b<' % (field, spelt), rb"\1<", page
                )
        return page

    @property
    def asks_again(self) -> bool:
        """Whether it is a form that is shown once more to somebody who is signed in."""
        own = f'action="{self.path}"'.encode()
        return self.path.startswith(("/account/", "/staff/")) and own in self.body

    @property
    def location(self) -> str:
        return next((value for name, value in self.headers if name == "location"), "")

    @property
    def is_error(self) -> bool:
        """Whether it says that something is wrong, whatever its status."""
        return (
            self.status >= 400
            or _ALERT.search(self.body) is not None
            or self.body.startswith(b'{"resourceType":"OperationOutcome"')
        )


@dataclass
class Evidence:
    """All that was collected. ``record`` is a response hook of httpx."""

    canaries: Canaries
    exchanges: list[Exchange] = field(default_factory=list)
    mails: list[Taken] = field(default_factory=list)
    sms: list[tuple[dict[str, str], bytes]] = field(default_factory=list)
    pages_left: int = 0

    def record(self, response: httpx.Response) -> None:
        """Write an exchange down, and collect the cookies it gives out."""
        response.read()
        request = response.request
        for value in response.headers.get_list("set-cookie"):
            name, _, content = value.partition(";")[0].partition("=")
            if content.strip('"'):
                self.canaries.add(
                    "session cookie" if name.endswith("session") else "device cookie", content
                )
        self.exchanges.append(
            Exchange(
                request.method,
                str(request.url),
                request.headers.get("referer", "") if "browser" in request.extensions else "",
                response.status_code,
                [(name.lower(), value) for name, value in response.headers.multi_items()],
                response.content,
                request.content if "browser" in request.extensions else b"",
                bool(request.extensions.get("typed")),
            )
        )

    # --- what was left where ---------------------------------------------------------------

    def of_exchanges(self) -> Iterator[Text]:
        """Request targets, redirects, Referer headers, headers of answers, and errors."""
        links = self.canaries.of("link")
        form_tokens = self.canaries.of("form token")
        carried: frozenset[str] = frozenset()
        for one in self.exchanges:
            # What somebody typed into a URL stays in the URLs of ours that it leads to.
            carried = self._typed(one) if one.typed else carried & self._typed(one)
            label = f"{one.method} {one.target[:160]}"
            own = frozenset(link for link in links if f"/activate/{link}" in one.target)
            if not one.typed:
                allowed = self._in_url(one.target) | carried
                yield Text("request targets", label, one.target.encode(), allowed)
            if one.location:
                allowed = self._in_url(one.location)
                if one.location.startswith("/"):
                    allowed |= carried
                yield Text("redirects", label, one.location.encode(), allowed)
            if one.referer:
                yield Text("Referer headers", label, one.referer.encode())
            shown = [
                f"{name}: {value}"
                for name, value in one.headers
                if name not in {"set-cookie", "location", "content-location"}
            ]
            yield Text("headers of answers", label, "\n".join(shown).encode())
            if one.is_error:
                kind = dict(one.headers).get("content-type", "")
                place = "error pages" if "html" in kind else "OperationOutcomes, OAuth errors"
                page, allowed = one.without_what_was_typed, own | form_tokens
                if one.path.startswith("/activate/"):
                    allowed |= carried  # in the address of its form
                if one.path == "/account/security/app":
                    allowed |= self.canaries.of("authenticator secret")
                yield Text(place, f"{one.status} {label}", page, allowed, one.asks_again)
            elif one.target.partition("?")[0].endswith(("/health/live", "/health/ready")):
                yield Text("health and metrics", label, one.body)

    def _typed(self, one: Exchange) -> frozenset[str]:
        target = unquote(one.target.replace("+", " "))
        return frozenset(value for value in self.canaries.kinds if value in target)

    def _in_url(self, url: str) -> frozenset[str]:
        """What may stand in this URL: it is the one-time URL that was made for it."""
        if url.startswith(CALLBACK):
            return self.canaries.of(*_ONE_TIME)
        if "/oauth/authorize?" in url or "/staff/launch" in unquote(url):
            return self.canaries.of("launch", "request URI")
        if match := re.fullmatch(r"/activate/([0-9a-f]{64})(?:/again)?", urlsplit(url).path):
            return frozenset({match[1]})
        return frozenset()

    async def of_messages(self, store: PortalStore) -> list[Text]:
        """Mails, SMS and the records of the outbox.

        The address that a message goes to stands on its envelope and in its own record.
        """
        sent = await store.every(OutboxMessage)
        by_mail = {one.mail_id: one for one in sent}
        by_key = {one.key: one for one in sent}
        found = []
        for taken in self.mails:
            mail = taken.mail
            record = by_mail[mail["Message-ID"].strip("<>").partition("@")[0]]
            head = "\n".join(f"{name}: {value}" for name, value in mail.items() if name != "To")
            text = f"{head}\n\n{taken.text}".encode()
            lines = taken.content.replace(str(mail["To"]).encode(), b"")
            label = record.template
            allowed = self._carried(record)
            found += [Text("mails", label, text, allowed), Text("mails", label, lines, allowed)]
        for headers, body in self.sms:
            said = msgspec.json.decode(body)
            record = by_key[said.pop("id")]
            said.pop("to")
            head = "\n".join(f"{name}: {value}" for name, value in headers.items())
            text = f"{head}\n\n{said}".encode()
            found.append(Text("SMS", record.template, text, self._carried(record)))
        for record in sent:
            tree = msgspec.to_builtins(record)
            tree.pop("to")
            found.append(Text("outbox records", record.template, msgspec.json.encode(tree)))
        return found

    def _carried(self, record: OutboxMessage) -> frozenset[str]:
        prefix, slash, _ = (record.link_for or "").partition("/")
        return self.canaries.of(_CARRIES.get(prefix + slash, ""))


async def stored(place: Place, folder: Path) -> list[Text]:
    """The bytes of a store, and of all that lies beside it but the log."""
    if isinstance(place, Database):
        found = []
        async with AsyncMongoClient[dict[str, Any]](place.uri) as client:
            database = client[place.name]
            for name in await database.list_collection_names():
                content = b"".join([encode(one) async for one in database[name].find()])
                found.append(Text("store", name, content, secrets_only=True))
        return found
    return _beside(folder)


def _beside(folder: Path) -> list[Text]:
    return [
        Text("store", file.name, file.read_bytes(), secrets_only=True)
        for file in sorted(folder.rglob("*"))
        if file.is_file() and file.suffix != ".log"
    ]


def logged(folder: Path) -> list[Text]:
    """The lines of the log, each without the time at its end or beginning."""
    lines = (folder / "server.log").read_bytes().splitlines()
    return [
        Text("log lines", str(number), re.sub(rb'"timestamp": ?"[^"]*"', b"", line))
        for number, line in enumerate(lines, 1)
    ]


@contextmanager
def gateway(taken: list[tuple[dict[str, str], bytes]]) -> Iterator[int]:
    """An SMS gateway on loopback that takes everything; its port."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            taken.append((dict(self.headers.items()), body))
            self.send_response(202)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            """It says nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield int(server.server_address[1])
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
