"""Somebody at a browser: follows redirects, posts forms, sends a Referer as browsers do."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urljoin, urlsplit

import httpx
from lxml import html

from tests.end_to_end.canary.evidence import CALLBACK, Evidence


@dataclass
class Visitor:
    """One browser. ``page`` is what it shows; ``left`` where a redirect led that is not ours."""

    base: str
    evidence: Evidence
    page: httpx.Response = field(init=False)
    left: str = ""

    def __post_init__(self) -> None:
        self.http = httpx.Client(
            base_url=self.base,
            headers={"Accept": "text/html"},
            event_hooks={"response": [self.evidence.record]},
            timeout=30,
        )
        self._shown: httpx.Response | None = None

    def open(self, path: str, *, typed: bool = False, **headers: str) -> Visitor:
        """Go to an address; ``typed`` says that a canary was put into it on purpose."""
        return self._follow("GET", path, typed=typed, headers=headers)

    def fill(self, action: str, *, button: str = "", **given: Any) -> Visitor:
        """Send the first form whose action ends like this, with some fields filled in.

        ``button`` is ``name=value`` of the one that is pressed.
        """
        forms = [one for one in self.document.forms if _path(one.action).endswith(action)]
        assert forms, f"{action} is not on {self.heading!r}: {self.actions}\n{self.text[:600]}"
        return self.send(forms[0], button=button, **given)

    def send(self, form: Any, *, button: str = "", **given: Any) -> Visitor:
        """Send a form of the page."""
        fields: dict[str, Any] = {}
        for name, value in form.form_values():
            fields.setdefault(name, []).append(value)
        if button:
            name, _, value = button.partition("=")
            fields[name] = value
        fields |= given
        return self._follow("POST", form.action, data=fields)

    def _follow(self, method: str, path: str, *, typed: bool = False, **more: Any) -> Visitor:
        self.left = ""
        response = self._ask(method, path, typed=typed, **more)
        while response.is_redirect:
            location = urljoin(str(response.url), response.headers["location"])
            if not location.startswith(f"{self.base}/"):
                self.left = location
                self._collect(location)
                break
            response = self._ask("GET", location)
        self.page = response
        self._shown = response
        if "html" in response.headers.get("content-type", ""):
            for token in re.findall(r'name="form_token" value="([^".]+)', response.text):
                self.evidence.canaries.add("form token", token)
        return self

    def _ask(self, method: str, path: str, *, typed: bool = False, **more: Any) -> httpx.Response:
        headers = {"Sec-Fetch-Site": "same-origin", **more.pop("headers", {})}
        if self._shown is not None:
            self.evidence.pages_left += 1
            # The default of browsers, where a page does not say otherwise.
            policy = self._shown.headers.get("referrer-policy", "strict-origin-when-cross-origin")
            if policy != "no-referrer":
                headers["Referer"] = str(self._shown.url)
        return self.http.request(
            method, path, headers=headers, extensions={"typed": typed, "browser": True}, **more
        )

    def _collect(self, location: str) -> None:
        if location.startswith(CALLBACK):
            code = httpx.URL(location).params.get("code")
            self.evidence.canaries.add("authorization code", code)

    # --- what the page says ------------------------------------------------------------------

    @property
    def document(self) -> Any:
        return html.document_fromstring(self.page.text)

    @property
    def actions(self) -> list[str]:
        return [one.action for one in self.document.forms]

    @property
    def heading(self) -> str:
        found = self.document.xpath("//h1")
        return " ".join(found[0].text_content().split()) if found else ""

    @property
    def text(self) -> str:
        return " ".join(self.document.xpath("//main")[0].text_content().split())

    def at(self, heading: str) -> Visitor:
        """Check where one is."""
        assert self.heading.startswith(heading), f"{self.heading!r}, not {heading!r}: {self.text}"
        return self

    @property
    def codes(self) -> dict[str, str]:
        """What a page shows once to be handed over."""
        return {
            one.xpath("./dt")[0].text_content(): one.xpath("./dd")[0].text_content()
            for one in self.document.xpath("//dl[contains(@class, 'codes')]/div")
        }

    def close(self) -> None:
        self.http.close()


def _path(action: str) -> str:
    return urlsplit(action).path
