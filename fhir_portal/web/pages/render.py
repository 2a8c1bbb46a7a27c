"""Pages out of templates, with the headers that keep them from being misused."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Awaitable, Callable, Mapping
from importlib import resources
from typing import Any, Final
from urllib.parse import urlsplit

from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from fhir_portal.web.pages.errors import next_step

_MEDIA_TYPE: Final = re.compile(
    r"[A-Za-z0-9!#$&^_.+-]{1,100}/[A-Za-z0-9!#$&^_.+-]{1,100}(; ?charset=[A-Za-z0-9-]{1,40})?"
)
_KINDS: Final = {"css": "text/css", "js": "text/javascript"}


def _asset(name: str) -> tuple[str, bytes]:
    """A static file's address, which changes with its content, and that content."""
    content = (resources.files(__package__) / "static" / name).read_bytes()
    stem, _, kind = name.partition(".")
    return f"/static/{stem}-{hashlib.sha256(content).hexdigest()[:12]}.{kind}", content


STYLESHEET_PATH, STYLESHEET = _asset("portal.css")
SCRIPT_PATH, SCRIPT = _asset("portal.js")

_TEMPLATES: Final = Environment(
    loader=PackageLoader("fhir_portal.web.pages"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_TEMPLATES.globals.update(stylesheet=STYLESHEET_PATH, script=SCRIPT_PATH, step_after=next_step)

SHOWN: Final = frozenset({"image/png", "image/jpeg"})
"""What of that which people attached is shown in a page."""

_HEADERS: Final = {
    "Cache-Control": "no-store",
    "Pragma": "no-cache",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}


def page(
    template: str,
    *,
    status: int = 200,
    then: str | None = None,
    scripted: bool = False,
    **context: Any,
) -> Response:
    """Render a page. ``then`` is the redirect URI a form on it may lead to.

    ``error`` in the context is the code of what was refused: the page says what to do next.

    A ``scripted`` page has the one script, which adds what a page can do without: showing a
    password, and passkeys.
    """
    body = _TEMPLATES.get_template(template).render({"error": "", **context}, scripted=scripted)
    return Response(
        body,
        status,
        headers={**_HEADERS, "Content-Security-Policy": _policy(then, scripted=scripted)},
        media_type="text/html; charset=utf-8",
    )


def json_text(text: str) -> Response:
    """An answer to a page's script, with the headers of a page."""
    return Response(text, headers=_HEADERS, media_type="application/json")


def download(content: bytes, name: str, media_type: str) -> Response:
    """Give a file to save: it is never shown as a page of ours, whatever it says that it is."""
    if not _MEDIA_TYPE.fullmatch(media_type):
        media_type = "application/octet-stream"  # an EHR may have said anything
    headers = {
        **_HEADERS,
        "Content-Security-Policy": "sandbox; default-src 'none'",
        "Content-Disposition": f'attachment; filename="{name}"',
    }
    return Response(content, headers=headers, media_type=media_type)


def file_headers() -> list[tuple[bytes, bytes]]:
    """Return what all answers of pages say, for a file that says by itself what it is."""
    return [(name.lower().encode(), value.encode()) for name, value in _HEADERS.items()]


def attached(content: bytes, name: str, media_type: str) -> Response:
    """Give what somebody attached: a picture of ours is shown, everything else is saved.

    What it is was told when it came; nothing of it can run here (DESIGN §3.11).
    """
    if media_type not in SHOWN:
        return download(content, name, media_type)
    headers = {**_HEADERS, "Content-Security-Policy": "sandbox; default-src 'none'"}
    return Response(content, headers=headers, media_type=media_type)


def printed(content: bytes) -> Response:
    """Show a sheet to print: a whole document of ours, with a style of its own and no script."""
    policy = (
        "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; "
        "form-action 'none'; frame-ancestors 'none'; sandbox"
    )
    headers = {**_HEADERS, "Content-Security-Policy": policy}
    return Response(content, headers=headers, media_type="text/html; charset=utf-8")


def redirect(location: str, *, headers: Mapping[str, str] | None = None) -> Response:
    """Send the browser on, by GET."""
    response = RedirectResponse("/", 303, headers={**_HEADERS, **(headers or {})})
    response.headers["location"] = location  # as it is: an app's redirect URI is not re-encoded
    return response


def _served(path: str, content: bytes) -> Callable[[Request], Awaitable[Response]]:
    headers = {
        "Cache-Control": "public, max-age=31536000, immutable",
        "X-Content-Type-Options": "nosniff",
    }
    kind = _KINDS[path.rpartition(".")[2]]

    async def serve(request: Request) -> Response:  # noqa: ARG001 - Starlette's signature
        return Response(content, headers=headers, media_type=kind)

    return serve


ASSETS: Final = {
    path: _served(path, content)
    for path, content in ((STYLESHEET_PATH, STYLESHEET), (SCRIPT_PATH, SCRIPT))
}
"""Handlers of the static files, by address."""


def _policy(then: str | None, *, scripted: bool) -> str:
    """Browsers hold a form's whole chain of redirects against ``form-action``: let the app in."""
    sources = ["'self'"]
    if then is not None:
        parts = urlsplit(then)
        if parts.scheme == "http" and parts.hostname != "::1":
            sources += ["https:", f"http://{parts.netloc}"]
        else:
            sources += ["https:"] if parts.scheme == "https" else ["https:", f"{parts.scheme}:"]
    scripts = "script-src 'self'; connect-src 'self'; " if scripted else ""
    return (
        f"default-src 'none'; {scripts}style-src 'self'; img-src 'self'; base-uri 'none'; "
        f"frame-ancestors 'none'; form-action {' '.join(sources)}"
    )
