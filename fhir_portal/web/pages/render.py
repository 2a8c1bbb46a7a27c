"""Pages out of templates, with the headers that keep them from being misused."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from importlib import resources
from typing import Any, Final
from urllib.parse import urlsplit

from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.responses import RedirectResponse, Response

STYLESHEET: Final = (resources.files(__package__) / "static" / "portal.css").read_bytes()
STYLESHEET_PATH: Final = f"/static/portal-{hashlib.sha256(STYLESHEET).hexdigest()[:12]}.css"

_TEMPLATES: Final = Environment(
    loader=PackageLoader("fhir_portal.web.pages"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_TEMPLATES.globals["stylesheet"] = STYLESHEET_PATH

_HEADERS: Final = {
    "Cache-Control": "no-store",
    "Pragma": "no-cache",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}


def page(template: str, *, status: int = 200, then: str | None = None, **context: Any) -> Response:
    """Render a page. ``then`` is the redirect URI a form on it may lead to."""
    body = _TEMPLATES.get_template(template).render(context)
    return Response(
        body,
        status,
        headers={**_HEADERS, "Content-Security-Policy": _policy(then)},
        media_type="text/html; charset=utf-8",
    )


def redirect(location: str, *, headers: Mapping[str, str] | None = None) -> Response:
    """Send the browser on, by GET."""
    response = RedirectResponse("/", 303, headers={**_HEADERS, **(headers or {})})
    response.headers["location"] = location  # as it is: an app's redirect URI is not re-encoded
    return response


def stylesheet() -> Response:
    """The one stylesheet; its name changes with its content."""
    return Response(
        STYLESHEET,
        headers={
            "Cache-Control": "public, max-age=31536000, immutable",
            "X-Content-Type-Options": "nosniff",
        },
        media_type="text/css",
    )


def _policy(then: str | None) -> str:
    """Browsers hold a form's whole chain of redirects against ``form-action``: let the app in."""
    sources = ["'self'"]
    if then is not None:
        parts = urlsplit(then)
        if parts.scheme == "http" and parts.hostname != "::1":
            sources += ["https:", f"http://{parts.netloc}"]
        else:
            sources += ["https:"] if parts.scheme == "https" else ["https:", f"{parts.scheme}:"]
    return (
        "default-src 'none'; style-src 'self'; img-src 'self'; base-uri 'none'; "
        f"frame-ancestors 'none'; form-action {' '.join(sources)}"
    )
