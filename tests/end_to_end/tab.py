"""A person's browser whose every request goes to the server process that a test chooses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lxml import html

from tests.end_to_end.person import PASSWORD
from tests.end_to_end.processes import Connection, Reply, request

_MOST_PAGES = 6
_HEADERS = {"Accept": "text/html", "Origin": "null", "Sec-Fetch-Site": "same-origin"}


@dataclass(frozen=True)
class Form:
    """A form as it would be sent: where to, and the fields with what they hold."""

    action: str
    fields: Sequence[tuple[str, str]]

    def filled(self, **fields: str) -> Sequence[tuple[str, str]]:
        """The fields, with these in place of what they held."""
        return [*(pair for pair in self.fields if pair[0] not in fields), *fields.items()]


@dataclass
class Tab:
    """Cookies and nothing else: no redirect is followed."""

    host: str = "127.0.0.1"
    cookies: dict[str, str] = field(default_factory=dict)

    async def get(self, at: Connection, path: str) -> Reply:
        """Open a page."""
        return self._kept(await at.ask(self.asking("GET", path)))

    async def post(
        self, at: Connection, path: str, fields: Sequence[tuple[str, str]] | Mapping[str, str]
    ) -> Reply:
        """Send a form."""
        return self._kept(await at.ask(self.asking("POST", path, fields)))

    def asking(
        self,
        method: str,
        path: str,
        fields: Sequence[tuple[str, str]] | Mapping[str, str] | None = None,
    ) -> bytes:
        """The request of either."""
        cookies = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        headers = {**_HEADERS, "Host": self.host} | ({"Cookie": cookies} if cookies else {})
        return request(method, path, form=fields, headers=headers)

    async def sign_in(self, at: Connection, username: str, password: str = PASSWORD) -> None:
        """Sign in by user name and password."""
        form = form_of(await self.get(at, "/signin"), "/signin")
        reply = await self.post(at, form.action, form.filled(username=username, password=password))
        assert reply.status == 303, (reply.status, reply.body)

    async def consent_page(
        self, at: Connection, address: str, *, username: str, records: Sequence[str] = ()
    ) -> Reply:
        """Go where an app sends, up to the consent page; choose these records, or all."""
        path = address
        for _ in range(_MOST_PAGES):
            page = await self.get(at, path)
            while page.status == 303:
                path = page.headers["location"]
                page = await self.get(at, path)
            if path.startswith("/oauth/consent"):
                return page
            if path.startswith("/signin"):
                form = form_of(page, "/signin")
                fields = form.filled(username=username, password=PASSWORD)
            else:
                form = form_of(page, "/oauth/record")
                document: Any = html.document_fromstring(page.body.decode())
                chosen = records or document.xpath('//input[@name="record"]/@value')
                fields = [pair for pair in form.fields if pair[0] != "record"]
                fields = [*fields, *(("record", str(one)) for one in chosen)]
            page = await self.post(at, form.action, fields)
            assert page.status == 303, (page.status, page.body)
            path = page.headers["location"]
        raise AssertionError(f"no consent page; the last was {path}")

    def _kept(self, reply: Reply) -> Reply:
        self.cookies |= reply.cookies
        return reply


def form_of(reply: Reply, action: str) -> Form:
    """The one form of a page whose address ends so."""
    (form,) = forms_of(reply, action)
    return form


def forms_of(reply: Reply, action: str) -> list[Form]:
    """The forms of a page whose addresses end so, from top to bottom."""
    assert reply.status == 200, (reply.status, reply.headers)
    document: Any = html.document_fromstring(reply.body.decode())
    return [
        Form(form.action, form.form_values())
        for form in document.forms
        if form.action.endswith(action)
    ]
