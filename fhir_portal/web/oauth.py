"""The endpoints that clients talk to, as one plain ASGI app: tokens, registration, discovery.

What people see, ``/oauth/authorize`` and the pages behind it, is in ``web/pages``.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping, MutableMapping, Sequence
from typing import Any, Final

import structlog

from fhir_portal.fhir import errors as store_errors
from fhir_portal.portal import fault
from fhir_portal.records import RecordReader
from fhir_portal.smart.errors import (
    InvalidRequest,
    MethodNotAllowed,
    OAuthError,
    ServerError,
    Unavailable,
)
from fhir_portal.smart.exchange import FormRequest
from fhir_portal.smart.registration import MAX_BYTES as MAX_REGISTRATION
from fhir_portal.smart.server import AuthorizationServer
from fhir_portal.web import cors
from fhir_portal.web.form import Receive, once_each, parse_form, read_body

Scope = MutableMapping[str, Any]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Answer = tuple[int, bytes, cors.Headers]

_log = structlog.get_logger(__name__)

JSON: Final = "application/json"
NO_STORE: Final = [("cache-control", "no-store"), ("pragma", "no-cache")]
_PUBLIC: Final = [("cache-control", "public, max-age=300")]
_ONCE: Final = frozenset({b"authorization", b"content-type", b"origin"})


class OAuthEndpoints:
    """ASGI app for `PATHS`; each answer is JSON, each refusal an `OAuthError`.

    ``reader`` knows the registered origins, for CORS.
    """

    PATHS: Final = frozenset(
        {
            "/oauth/token",
            "/oauth/introspect",
            "/oauth/revoke",
            "/oauth/register",
            "/oauth/jwks",
            "/.well-known/openid-configuration",
        }
    )

    def __init__(self, server: AuthorizationServer, reader: RecordReader) -> None:
        self._server = server
        self._reader = reader
        self._documents: Mapping[str, Callable[[], dict[str, Any]]] = {
            "/oauth/jwks": server.jwks,
            "/.well-known/openid-configuration": server.openid_configuration,
        }
        self._forms: Mapping[str, Callable[[FormRequest], Awaitable[Any]]] = {
            "/oauth/token": server.token,
            "/oauth/introspect": server.introspect,
            "/oauth/revoke": server.revoke,
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = {
            name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]
        }
        allowed: cors.Headers = []
        try:
            if scope["path"] in self._documents:
                allowed = cors.OPEN
                status, content, own = self._document(scope["path"], scope["method"])
            else:
                _refuse_repeats(scope["headers"])
                allowed = await cors.registered_only(self._reader, headers.get("origin"))
                status, content, own = await self._answer(scope, headers, receive)
        except OAuthError as error:
            status, content, own = _refusal(error)
        except store_errors.Unavailable:
            status, content, own = _refusal(Unavailable("try again later"))
        except Exception as error:  # noqa: BLE001 - whatever it is, the client gets OAuth JSON
            _log.error("request failed", path=scope["path"], **fault(error))
            status, content, own = _refusal(ServerError("something went wrong on our side"))
        if scope["method"] == "OPTIONS":
            methods = "GET, HEAD" if scope["path"] in self._documents else "POST"
            allowed = cors.preflight(allowed, methods=methods)
        await _respond(send, status, content, [*own, *allowed])

    def _document(self, path: str, method: str) -> Answer:
        if method == "OPTIONS":
            return 204, b"", [("allow", "GET, HEAD, OPTIONS")]
        if method not in ("GET", "HEAD"):
            raise MethodNotAllowed("use GET", headers={"Allow": "GET, HEAD, OPTIONS"})
        content = _encode(self._documents[path]())
        headers = [*_json(len(content)), *_PUBLIC]
        return 200, b"" if method == "HEAD" else content, headers

    async def _answer(self, scope: Scope, headers: Mapping[str, str], receive: Receive) -> Answer:
        if scope["method"] == "OPTIONS":
            return 204, b"", [("allow", "POST, OPTIONS")]
        if scope["method"] != "POST":
            raise MethodNotAllowed("use POST", headers={"Allow": "POST, OPTIONS"})
        status, answered = await self._post(scope["path"], headers, scope, receive)
        content = _encode(answered)
        return status, content, [*_json(len(content)), *NO_STORE]

    async def _post(
        self, path: str, headers: Mapping[str, str], scope: Scope, receive: Receive
    ) -> tuple[int, Any]:
        if scope.get("query_string") and path != "/oauth/register":
            raise InvalidRequest("parameters belong in the body")
        register = path == "/oauth/register"
        body = await read_body(receive, MAX_REGISTRATION) if register else await read_body(receive)
        content_type = headers.get("content-type", "")
        if register:
            if content_type.partition(";")[0].strip().lower() != JSON:
                raise InvalidRequest(f"Content-Type must be {JSON}")
            address = scope["client"][0] if scope.get("client") else ""
            return 201, await self._server.register(_decode(body), address=address)
        parameters = once_each(parse_form(body, content_type))
        # One without a value is as good as none (RFC 6749 §3.1).
        form = {name: value for name, value in parameters.items() if value}
        answered = await self._forms[path](FormRequest(form, headers.get("authorization")))
        return 200, {} if answered is None else answered


def _refuse_repeats(headers: Sequence[tuple[bytes, bytes]]) -> None:
    """Two of one of these would be read differently by whoever stands before us."""
    names = [name for name, _ in headers if name in _ONCE]
    if len(set(names)) < len(names):
        raise InvalidRequest("a header came more than once")


def _decode(body: bytes) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        raise InvalidRequest("the body is not JSON") from None


def _encode(body: Any) -> bytes:
    return json.dumps(body, separators=(",", ":")).encode()


def _json(length: int) -> cors.Headers:
    return [
        ("content-type", JSON),
        ("content-length", str(length)),
        ("x-content-type-options", "nosniff"),
    ]


def _refusal(error: OAuthError) -> Answer:
    """Render a refusal (RFC 6749 §5.2): the one place where that is done."""
    body: dict[str, str] = {"error": error.error}
    if error.description:
        body["error_description"] = error.description
    content = _encode(body)
    own = [(name.lower(), value) for name, value in error.headers.items()]
    return error.status, content, [*own, *_json(len(content)), *NO_STORE]


async def _respond(send: Send, status: int, body: bytes, headers: cors.Headers) -> None:
    encoded = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers]
    await send({"type": "http.response.start", "status": status, "headers": encoded})
    await send({"type": "http.response.body", "body": body})
