"""Headless Chromium, spoken to by the WebDriver protocol (W3C) that chromedriver serves."""

from __future__ import annotations

import base64
import contextlib
import functools
import http.server
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx

from tests.end_to_end.chromium import Chromium, Context

ROOT: Final = Path(__file__).parents[2]
APP: Final = Path(__file__).parent / "app"
NODE_MODULES: Final = ROOT / "build" / "browser" / "node_modules"
FHIR_CLIENT: Final = NODE_MODULES / "fhirclient" / "build" / "fhir-client.min.js"
OIDC_CLIENT: Final = NODE_MODULES / "oidc-client-ts" / "dist" / "browser" / "oidc-client-ts.min.js"
AXE: Final = NODE_MODULES / "axe-core" / "axe.min.js"
_SERVED: Final = {"/fhir-client.js": FHIR_CLIENT, "/oidc-client.js": OIDC_CLIENT}
_FOR_NODE: Final = (
    *("openid-client", "fhir-kit-client", "@medplum/ccda", "@medplum/react-hooks"),
    *("kill-the-clipboard", "jsqr"),
)
_ELEMENT: Final = "element-6066-11e4-a52e-4f735466cecf"  # WebDriver §11
_KEYS: Final = {"Tab": "\ue004", "Enter": "\ue007", "Space": "\ue00d"}  # WebDriver §17.4.2
_PATIENCE: Final = 20.0

# What nobody reads is left in the page: it would be copied piece by piece.
_RUN_AXE: Final = """
window.axe?.run(document, {runOnly: arguments[0], resultTypes: ["violations"]}).then((found) => ({
  passes: found.passes.length,
  violations: found.violations.flatMap((one) =>
    one.nodes.map((node) => `${one.id}: ${one.help}: ${node.html}`)),
}))
"""


@functools.cache
def _axe() -> str:
    return AXE.read_text("utf-8")


def missing() -> str:
    """What of the browser's lane is not installed here; ``""`` when all is."""
    wanted = [name for name in ("chromium", "chromedriver", "node") if shutil.which(name) is None]
    files = [FHIR_CLIENT, OIDC_CLIENT, AXE, *(NODE_MODULES / name for name in _FOR_NODE)]
    wanted += [
        f"npm's {file.relative_to(NODE_MODULES).parts[0]}" for file in files if not file.exists()
    ]
    return f"{', '.join(wanted)} missing: `.ci/run browser` installs them" if wanted else ""


@dataclass
class Driver:
    """A running chromedriver, and the Chromium that it drives."""

    http: httpx.Client
    chromium: Chromium

    @classmethod
    @contextlib.contextmanager
    def running(cls, profile: Path) -> Iterator[Driver]:
        """Start both, on free ports of loopback."""
        command = ["chromedriver", "--port=0"]
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        try:
            assert process.stdout is not None
            line = next(line for line in process.stdout if "started successfully" in line)
            port = int(line.split()[-1].rstrip("."))
            base = f"http://127.0.0.1:{port}"
            with (
                httpx.Client(base_url=base, timeout=60, trust_env=False) as client,
                Chromium.running(profile) as chromium,
            ):
                yield cls(client, chromium)
        finally:
            process.terminate()
            process.wait(timeout=20)
            assert process.stdout is not None
            process.stdout.close()

    @contextlib.contextmanager
    def browser(self) -> Iterator[Browser]:
        """A browser that nothing is kept in yet, as of somebody who has just bought it."""
        options = {"debuggerAddress": self.chromium.address}
        wanted = {"capabilities": {"alwaysMatch": {"goog:chromeOptions": options}}}
        with self.chromium.context() as context:
            session = _value(self.http.post("/session", json=wanted))["sessionId"]
            try:
                browser = Browser(self.http, f"/session/{session}", self.chromium, context)
                browser.turn_to(context.tab)
                yield browser
            finally:
                self.http.delete(f"/session/{session}")


@dataclass
class Browser:
    """One browser with cookies of its own. CSS selectors name what is on the page."""

    http: httpx.Client
    session: str
    chromium: Chromium
    context: Context

    def turn_to(self, tab: str) -> None:
        """Look at another tab."""
        self._post("window", handle=tab)

    def open(self, address: str) -> None:
        """Go to an address and wait until the page is loaded."""
        self._post("url", url=address)

    @property
    def address(self) -> str:
        """Where it is."""
        return str(_value(self.http.get(f"{self.session}/url")))

    def text(self, selector: str) -> str:
        """The visible text of an element, as one line."""
        found = _value(self.http.get(f"{self.session}/element/{self._find(selector)}/text"))
        return " ".join(str(found).split())

    def has(self, selector: str) -> bool:
        """Whether the page has such an element."""
        return bool(self._post("elements", using="css selector", value=selector))

    def click(self, selector: str) -> None:
        """Click an element that leaves the page where it is."""
        self._post(f"element/{self._find(selector)}/click")

    def follow(self, selector: str) -> None:
        """Click what leads to another page, and wait until that is loaded."""
        before = self._find("html")
        self.click(selector)
        deadline = time.monotonic() + _PATIENCE
        while self.http.get(f"{self.session}/element/{before}/name").status_code == 200:
            assert time.monotonic() < deadline, f"{selector} led nowhere from {self.address}"
            time.sleep(0.02)
        while self.evaluate("return document.readyState") != "complete":
            assert time.monotonic() < deadline, f"{self.address} does not load"
            time.sleep(0.02)

    def saved(self, selector: str, folder: Path) -> bytes:
        """Click what the browser saves as a file; return what is in the file."""
        folder.mkdir(parents=True)
        self._tell("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(folder))
        self.click(selector)
        deadline = time.monotonic() + _PATIENCE
        while not (found := [one for one in folder.iterdir() if not _is_partial(one)]):
            assert time.monotonic() < deadline, f"{selector} of {self.address} saves nothing"
            time.sleep(0.02)
        return found[0].read_bytes()

    def type(self, selector: str, text: str) -> None:
        """Type into a field, over what it holds."""
        element = self._find(selector)
        self._post(f"element/{element}/clear")
        self._post(f"element/{element}/value", text=text)

    def press(self, *keys: str) -> None:
        """Press ``Tab``, ``Enter`` or ``Space``, or type any other text, where the focus is."""
        typed = "".join(_KEYS.get(key, key) for key in keys)
        strokes = [{"type": kind, "value": key} for key in typed for kind in ("keyDown", "keyUp")]
        self._post("actions", actions=[{"type": "key", "id": "keyboard", "actions": strokes}])

    @property
    def focused(self) -> str:
        """The text of what has the focus."""
        return str(self.evaluate("return document.activeElement.textContent.trim()"))

    @property
    def outlined(self) -> bool:
        """Whether what has the focus can be seen to have it."""
        style = "getComputedStyle(document.activeElement)"
        return self.evaluate(f"return {style}.outlineStyle") not in ("none", "")

    def wait_for(self, selector: str, *texts: str) -> str:
        """Wait until the text of an element begins with one of these; return it."""
        deadline = time.monotonic() + _PATIENCE
        seen = ""
        while time.monotonic() < deadline:
            with contextlib.suppress(AssertionError):  # on its way from one page to the next
                seen = self.text(selector)
                if seen.startswith(texts):
                    return seen
            time.sleep(0.05)
        raise AssertionError(f"{self.address}: {selector} says {seen!r}, not {texts}")

    def evaluate(self, script: str, *arguments: Any) -> Any:
        """Run a function body in the page, also where the page's own scripts may not."""
        return self._post("execute/sync", script=script, args=list(arguments))

    def awaited(self, expression: str, *arguments: Any) -> Any:
        """The value of a promise; ``arguments`` are in scope."""
        script = (
            f"const done = arguments[arguments.length - 1];"
            f"Promise.resolve({expression}).then(done, (error) => done(`failed: ${{error}}`));"
        )
        return self._post("execute/async", script=script, args=list(arguments))

    def without_javascript(self) -> None:
        """Let no page run scripts from now on."""
        self._command("Emulation.setScriptExecutionDisabled", value=True)

    def resize(self, width: int, height: int = 800) -> None:
        """Make the viewport so wide, in CSS pixels."""
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self._command("Emulation.setDeviceMetricsOverride", **metrics)

    def prefer(self, scheme: str) -> None:
        """Say that the person prefers a ``light`` or ``dark`` page."""
        feature = {"name": "prefers-color-scheme", "value": scheme}
        self._command("Emulation.setEmulatedMedia", features=[feature])

    def screenshot(self, file: Path) -> None:
        """Keep a picture of the whole page."""
        taken = self._command(
            "Page.captureScreenshot", captureBeyondViewport=True, optimizeForSpeed=True
        )
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(base64.b64decode(taken["data"]))

    @property
    def overhang(self) -> int:
        """By how many pixels the page is wider than the window."""
        root = "document.documentElement"
        return int(self.evaluate(f"return {root}.scrollWidth - {root}.clientWidth"))

    def axe(self) -> list[str]:
        """What axe-core finds wrong with the page: WCAG 2.2 A and AA, and its best practices."""
        tags = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
        found = self.awaited(_RUN_AXE, tags)
        if found is None:  # the first time on this page
            self.evaluate(_axe())
            found = self.awaited(_RUN_AXE, tags)
        assert found["passes"], "axe looked at nothing"
        return list(found["violations"])

    @property
    def cookies(self) -> list[dict[str, Any]]:
        """What it has been given to keep, of every site."""
        return list(self._tell("Storage.getCookies")["cookies"])

    def keep(self, cookies: Sequence[Mapping[str, Any]]) -> None:
        """Keep cookies that another browser was given."""
        self._tell("Storage.setCookies", cookies=cookies)

    def _find(self, selector: str) -> str:
        return str(self._post("element", using="css selector", value=selector)[_ELEMENT])

    def _command(self, name: str, **parameters: Any) -> Any:
        return self._post("goog/cdp/execute", cmd=name, params=parameters)

    def _tell(self, name: str, **parameters: Any) -> dict[str, Any]:
        return self.chromium.tell(name, browserContextId=self.context.id, **parameters)

    def _post(self, command: str, **body: Any) -> Any:
        return _value(self.http.post(f"{self.session}/{command}", json=body))


def _is_partial(file: Path) -> bool:
    """Whether Chromium is still writing it."""
    return file.suffix == ".crdownload" or file.name.startswith(".")


def _value(answer: httpx.Response) -> Any:
    value = answer.json()["value"]
    assert answer.status_code == 200, f"{value['error']}: {value['message']}"
    return value


@contextlib.contextmanager
def served_app(host: str = "localhost") -> Iterator[str]:
    """Serve the pages of ``app/`` on loopback; yields their origin."""
    handler = functools.partial(_AppFiles, directory=str(APP))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://{host}:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


class _AppFiles(http.server.SimpleHTTPRequestHandler):
    def translate_path(self, path: str) -> str:
        return str(_SERVED.get(path) or super().translate_path(path))

    def log_message(self, *_: Any) -> None:
        """Quiet."""
