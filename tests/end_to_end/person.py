"""A person at a browser without JavaScript: reads the pages and posts their forms."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any, Self
from urllib.parse import parse_qsl, urlencode, urljoin, urlsplit

import httpx
from lxml import html

PASSWORD = "demo-password"
_MOST_PAGES = 12


@dataclass
class Person:
    """Somebody with an account. Sessions last from visit to visit, as in a browser.

    ``pages`` has the heading of each page of the last visit, ``offered`` the scopes that could be
    ticked on its consent page.
    """

    username: str
    password: str = PASSWORD
    pages: list[str] = field(default_factory=list)
    offered: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._http = httpx.Client(headers={"Accept": "text/html"}, follow_redirects=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def visit(
        self,
        address: str,
        *,
        back_to: str,
        record: str | None = None,
        untick: Collection[str] = (),
        decision: str = "approve",
    ) -> str:
        """Go where an app sends; answer what is asked; return the address that leads back."""
        self.pages, self.offered = [], []
        page = self._http.get(address, headers={"Sec-Fetch-Site": "cross-site"})
        for _ in range(_MOST_PAGES):
            while page.is_redirect:
                location = urljoin(str(page.url), page.headers["location"])
                if location.startswith(back_to):
                    return location
                page = self._http.get(location)
            page = self._answer(page, record, untick, decision)
        raise AssertionError(f"no end to the pages: {self.pages}")

    def _answer(
        self, page: httpx.Response, record: str | None, untick: Collection[str], decision: str
    ) -> httpx.Response:
        document: Any = html.document_fromstring(page.text)
        (heading,) = document.xpath("//h1")
        self.pages.append(" ".join(heading.text_content().split()))
        assert page.status_code == 200, (page.status_code, self.pages)
        (form,) = document.forms
        if "password" in form.fields:
            form.fields["username"], form.fields["password"] = self.username, self.password
        elif "record" in form.fields:
            assert record is not None, "a record must be chosen"
            form.fields["record"] = record
        boxes = form.xpath('.//input[@name="scope"]')
        self.offered += [box.get("value") for box in boxes]
        for box in boxes:
            if box.get("value") in untick:
                box.checked = False
        return self._post(page, form, decision)

    def _post(self, page: httpx.Response, form: Any, decision: str) -> httpx.Response:
        pairs = form.form_values()  # what HTML calls the successful controls
        if form.xpath('.//button[@name="decision"]'):
            pairs.append(("decision", decision))
        return self._http.post(
            urljoin(str(page.url), form.action),
            content=urlencode(pairs),
            headers={
                "Content-Type": "application/x-www-form-urlencoded",
                "Origin": "null",  # that is what `Referrer-Policy: no-referrer` makes of it
                "Sec-Fetch-Site": "same-origin",
            },
        )


def parameters_of(address: str) -> dict[str, str]:
    """The query of an address."""
    return dict(parse_qsl(urlsplit(address).query, strict_parsing=True))
