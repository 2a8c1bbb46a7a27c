"""One headless Chromium for many tests, told over its pipe (Chrome DevTools Protocol).

Starting it costs more than most tests do. Each test has a browser context: cookies, storage and
cache of its own, which nobody else sees and which are gone at its end.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from select import select
from typing import Any, Final

_FLAGS: Final = (
    *("headless", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run", "hide-scrollbars"),
    *("disable-background-networking", "disable-component-update", "disable-sync"),
    # what chromedriver gives to a browser that it starts itself
    *("allow-pre-commit-input", "disable-client-side-phishing-detection", "disable-default-apps"),
    *("disable-hang-monitor", "disable-popup-blocking", "disable-prompt-on-repost"),
    *("enable-automation", "no-service-autorun", "password-store=basic", "test-type=webdriver"),
    # pages of its own that nobody sees without a head, made for each window: twice the work of ours
    "disable-features=WebUIOmniboxPopup,WebUIOmniboxAimPopup,WebUIOmniboxFullPopup",
    # by the pipe come our commands, by the port (any free one of loopback) chromedriver's
    *("remote-debugging-pipe", "remote-debugging-port=0"),
)
_PATIENCE: Final = 30.0
_READS_3_WRITES_4: Final = 'exec "$@" 3<&0 4>&1 </dev/null >/dev/null'
"""The numbers of the pipe's ends are fixed."""


@dataclass(frozen=True)
class Context:
    """A browser context with one empty tab."""

    id: str
    tab: str


@dataclass
class Chromium:
    """A running Chromium."""

    process: subprocess.Popen[bytes]
    profile: Path
    _told: int = 0
    _rest: bytes = field(default=b"", repr=False)

    @classmethod
    @contextlib.contextmanager
    def running(cls, profile: Path) -> Iterator[Chromium]:
        """Start it with a fresh profile."""
        flags = [*(f"--{flag}" for flag in _FLAGS), f"--user-data-dir={profile}"]
        with subprocess.Popen(
            ["sh", "-c", _READS_3_WRITES_4, "sh", "chromium", *flags, "about:blank"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
        ) as process:
            chromium = cls(process, profile)
            try:
                chromium.tell("Browser.getVersion")
                yield chromium
            finally:
                assert process.stdin is not None
                process.stdin.close()  # it ends with its pipe
                try:
                    process.wait(timeout=20)
                except subprocess.TimeoutExpired:
                    process.kill()
                    raise

    @property
    def address(self) -> str:
        """Where others may speak to it."""
        file, deadline = self.profile / "DevToolsActivePort", time.monotonic() + _PATIENCE
        while not (file.exists() and (lines := file.read_text("ascii").split())):
            assert time.monotonic() < deadline, "Chromium listens nowhere"
            time.sleep(0.02)
        return f"127.0.0.1:{lines[0]}"

    @contextlib.contextmanager
    def context(self) -> Iterator[Context]:
        """Open a context; its tabs close with it."""
        made = str(self.tell("Target.createBrowserContext")["browserContextId"])
        try:
            tab = self.tell("Target.createTarget", url="about:blank", browserContextId=made)
            yield Context(made, str(tab["targetId"]))
        finally:
            self.tell("Target.disposeBrowserContext", browserContextId=made)

    def tell(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Have the browser do something; return its answer."""
        self._told += 1
        message = {"id": self._told, "method": method, "params": parameters}
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(message).encode() + b"\0")
        while (answer := self._message()).get("id") != self._told:
            pass  # an event
        assert "error" not in answer, f"{method}: {answer['error']}"
        return dict(answer["result"])

    def _message(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        while b"\0" not in self._rest:
            assert select([self.process.stdout], [], [], _PATIENCE)[0], "Chromium says nothing"
            more = self.process.stdout.read(65_536)
            assert more, "Chromium has ended"
            self._rest += more
        message, _, self._rest = self._rest.partition(b"\0")
        return dict(json.loads(message))
