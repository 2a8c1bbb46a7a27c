"""The FHIR API as a plain ASGI app, called before FastAPI. HTTP in, `FhirRequest` on.

Source: FHIR R4 §3.1.0 (RESTful API), RFC 6750 (bearer tokens). Cookies are never read here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import replace
from email.utils import formatdate
from typing import Any, Final
from urllib.parse import parse_qsl

import msgspec
import structlog

from fhir_portal.fhir.errors import (
    FhirError,
    Invalid,
    MethodNotAllowed,
    NotAcceptable,
    NotFound,
    TooLarge,
    Unauthenticated,
    UnsupportedMedia,
)
from fhir_portal.fhir.interaction import FhirRequest, FhirResponse, etag, interaction_at
from fhir_portal.portal import Portal
from fhir_portal.web import cors
from fhir_portal.web.errors import failure, refusal

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]

PREFIX: Final = "/fhir"
_log = structlog.get_logger()

_FHIR_JSON: Final = b"application/fhir+json; charset=utf-8"
_JSON_FORMATS: Final = frozenset(
    {"json", "application/json", "application/fhir+json", "application/fhir json", "text/json"}
)
_JSON_TYPES: Final = frozenset({"application/json", "application/fhir+json", "text/json"})
_ANY_TYPES: Final = frozenset({"*/*", "application/*", ""})
_INLINE: Final = frozenset({"image/png", "image/jpeg", "application/pdf"})
_COMMON: Final[Headers] = [
    (b"cache-control", b"no-store"),
    (b"x-content-type-options", b"nosniff"),
]
_WITH_BODY: Final = frozenset({"create", "update", "bundle"})


class FhirApi:
    """ASGI app for everything under ``/fhir``.

    ``capabilities`` and ``smart_configuration`` give the two public documents.
    """

    def __init__(
        self,
        portal: Portal,
        *,
        capabilities: Callable[[], bytes],
        smart_configuration: Callable[[], dict[str, Any]],
        max_body: int,
        max_transaction: int,
    ) -> None:
        self._portal = portal
        self._public: dict[str, Callable[[], tuple[bytes, bytes]]] = {
            "metadata": lambda: (capabilities(), _FHIR_JSON),
            ".well-known/smart-configuration": lambda: (
                msgspec.json.encode(smart_configuration()),
                b"application/json",
            ),
        }
        self._max_body = max_body
        self._max_transaction = max_transaction

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers: dict[bytes, bytes] = dict(scope["headers"])
        path: str = scope["path"][len(PREFIX) :].strip("/")
        if path in self._public:
            await self._document(scope, send, path)
            return
        origin = headers.get(b"origin")
        allowed: Headers = []
        if origin is not None:
            found = await cors.registered_only(self._portal.server.store, origin.decode("latin-1"))
            allowed = _encoded(found)
            if cors.is_preflight(scope["method"], scope["headers"]):
                await _respond(send, 204, _encoded(cors.preflight(found)), b"")
                return
        try:
            status, extra, body = await self._answer(scope, headers, path, receive)
        except FhirError as error:
            status, extra, body = refusal(error, had_token=b"authorization" in headers)
            extra.append((b"content-type", _FHIR_JSON))
        except asyncio.CancelledError:
            raise
        except Exception:  # noqa: BLE001 - whatever it is, the caller gets an OperationOutcome
            _log.exception("request failed", method=scope["method"])
            status, extra, body = 500, [(b"content-type", _FHIR_JSON)], failure()
        if scope["method"] == "HEAD":
            extra.append((b"content-length", str(len(body)).encode()))
            await _respond(send, status, _COMMON + extra + allowed, b"", length=False)
            return
        await _respond(send, status, _COMMON + extra + allowed, body)

    async def _document(self, scope: Scope, send: Send, path: str) -> None:
        open_to_all = _encoded(cors.OPEN)
        if cors.is_preflight(scope["method"], scope["headers"]):
            methods = cors.preflight(cors.OPEN, methods="GET, HEAD")
            await _respond(send, 204, _encoded(methods), b"")
            return
        if scope["method"] not in {"GET", "HEAD"}:
            error = MethodNotAllowed("use GET")
            status, extra, body = refusal(error, had_token=False)
            await _respond(send, status, [*extra, (b"content-type", _FHIR_JSON)], body)
            return
        body, content_type = self._public[path]()
        headers = [
            (b"content-type", content_type),
            (b"cache-control", b"public, max-age=300"),
            (b"x-content-type-options", b"nosniff"),
            *open_to_all,
        ]
        if scope["method"] == "HEAD":
            headers.append((b"content-length", str(len(body)).encode()))
            await _respond(send, 200, headers, b"", length=False)
            return
        await _respond(send, 200, headers, body)

    async def _answer(
        self, scope: Scope, headers: dict[bytes, bytes], path: str, receive: Receive
    ) -> tuple[int, Headers, bytes]:
        auth = await self._portal.callers.of(_bearer(headers))
        method = "GET" if scope["method"] == "HEAD" else scope["method"]
        address = interaction_at(method, path)
        if address is None:
            if any(interaction_at(other, path) for other in ("GET", "POST", "PUT")):
                message = f"{method[:10]} is not offered here"
                raise MethodNotAllowed(message)
            message = "there is nothing at this address"
            raise NotFound(message)
        pairs = _pairs(scope["query_string"])
        body = b""
        if address.interaction in _WITH_BODY:
            _require_json(headers)
            body = await self._body(headers, receive, address)
        elif method == "POST":
            pairs += await self._form(headers, receive)
        request, pretty, wants_json = _request(address, headers, pairs, body)
        response = await self._portal.perform(request, auth)
        return _http(response, pretty=pretty, native=not wants_json)

    async def _body(
        self, headers: dict[bytes, bytes], receive: Receive, address: FhirRequest | None
    ) -> bytes:
        bundle = address is not None and address.interaction == "bundle"
        limit = self._max_transaction if bundle else self._max_body
        declared = headers.get(b"content-length", b"0")
        if not declared.isdigit() or int(declared[:20]) > limit:
            message = f"the body is larger than {limit} bytes"
            raise TooLarge(message)
        parts: list[bytes] = []
        size = 0
        while True:
            message_ = await receive()
            if message_["type"] == "http.disconnect":
                message = "the body ended early"
                raise Invalid(message)
            part = message_.get("body", b"")
            size += len(part)
            if size > limit:
                message = f"the body is larger than {limit} bytes"
                raise TooLarge(message)
            parts.append(part)
            if not message_.get("more_body"):
                return b"".join(parts)

    async def _form(self, headers: dict[bytes, bytes], receive: Receive) -> list[tuple[str, str]]:
        content_type = headers.get(b"content-type", b"").partition(b";")[0].strip().lower()
        if content_type not in {b"application/x-www-form-urlencoded", b""}:
            message = "_search takes application/x-www-form-urlencoded"
            raise UnsupportedMedia(message)
        return _pairs(await self._body(headers, receive, None))


def _bearer(headers: dict[bytes, bytes]) -> str:
    scheme, _, token = headers.get(b"authorization", b"").partition(b" ")
    if scheme.lower() != b"bearer" or not token:
        message = "send an access token: Authorization: Bearer …"
        raise Unauthenticated(message)
    return token.strip().decode("latin-1")


def _pairs(query: bytes) -> list[tuple[str, str]]:
    if not query:
        return []
    try:
        return parse_qsl(
            query.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=500
        )
    except (UnicodeDecodeError, ValueError):
        message = "the query is not percent-encoded UTF-8, or has too many parameters"
        raise Invalid(message) from None


def _require_json(headers: dict[bytes, bytes]) -> None:
    content_type = headers.get(b"content-type", b"").decode("latin-1")
    media, _, rest = content_type.partition(";")
    if media.strip().lower() not in _JSON_TYPES:
        message = "send FHIR JSON: Content-Type: application/fhir+json"
        raise UnsupportedMedia(message)
    charset = rest.lower().replace(" ", "").replace('"', "")
    if "charset=" in charset and "charset=utf-8" not in charset:
        message = "FHIR JSON is UTF-8"
        raise UnsupportedMedia(message)


def _request(
    address: FhirRequest,
    headers: dict[bytes, bytes],
    pairs: list[tuple[str, str]],
    body: bytes,
) -> tuple[FhirRequest, bool, bool]:
    """Return the request without what is about its representation, and that: pretty, JSON."""
    accept = {
        part.partition(b";")[0].strip().decode("latin-1").lower()
        for part in headers.get(b"accept", b"*/*").split(b",")
    }
    asked_json = bool(accept & _JSON_TYPES)
    pretty = False
    query = []
    formatted = False
    for name, value in pairs:
        if name == "_format":
            if value.partition(";")[0].strip().lower() not in _JSON_FORMATS:
                message = "only JSON is served: _format=json"
                raise NotAcceptable(message)
            formatted = asked_json = True
        elif name == "_pretty":
            pretty = value == "true"
        else:
            query.append((name, value))
    is_binary = address.type == "Binary" and address.interaction in {"read", "vread"}
    if not (formatted or is_binary or asked_json or accept & _ANY_TYPES):
        message = "only JSON is served: Accept: application/fhir+json"
        raise NotAcceptable(message)
    if query and address.interaction not in _QUERIED:
        message = f"{query[0][0][:64]} is not supported here"
        raise Invalid(message)
    request = replace(address, query=tuple(query), body=body)
    conditional = {
        member: headers[name].decode("latin-1")
        for name, member in _CONDITIONAL.items()
        if name in headers
    }
    if conditional:
        request = replace(request, **conditional)  # type: ignore[arg-type]  # all are text
    prefer = headers.get(b"prefer")
    if prefer is not None:
        request = _preferred(request, prefer.decode("latin-1"))
    return request, pretty, asked_json or not is_binary


_QUERIED: Final = frozenset({"search-type", "history-instance", "history-system"})
_CONDITIONAL: Final = {
    b"if-match": "if_match",
    b"if-none-match": "if_none_match",
    b"if-modified-since": "if_modified_since",
    b"if-none-exist": "if_none_exist",
}


def _preferred(request: FhirRequest, prefer: str) -> FhirRequest:
    """Apply ``Prefer`` (RFC 7240); what is not known is ignored, as it asks."""
    for part in prefer.replace(";", ",").split(","):
        name, _, value = part.strip().partition("=")
        if name == "return" and value in {"minimal", "representation", "OperationOutcome"}:
            request = replace(request, prefer=value)  # type: ignore[arg-type]  # just looked at
        elif name == "handling" and value in {"strict", "lenient"}:
            request = replace(request, lenient=value == "lenient")
    return request


def _http(response: FhirResponse, *, pretty: bool, native: bool) -> tuple[int, Headers, bytes]:
    headers: Headers = []
    if response.version is not None:
        headers.append((b"etag", etag(response.version).encode()))
    if response.updated is not None:
        modified = formatdate(response.updated / 1000, usegmt=True)
        headers.append((b"last-modified", modified.encode()))
    if response.location is not None:
        headers.append((b"location", response.location.encode()))
    if native and response.binary is not None:
        media, content = response.binary
        plain = media.partition(";")[0].strip().lower()
        safe = media.encode("ascii", "replace").replace(b"\n", b"").replace(b"\r", b"")
        headers += [
            (b"content-type", safe or b"application/octet-stream"),
            (b"content-security-policy", b"sandbox; default-src 'none'"),
        ]
        if plain not in _INLINE:
            headers.append((b"content-disposition", b"attachment"))
        return response.status, headers, content
    body = response.body
    if body:
        headers.append((b"content-type", _FHIR_JSON))
        if pretty:
            body = msgspec.json.format(body, indent=2)
    return response.status, headers, body


def _encoded(headers: cors.Headers) -> Headers:
    return [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers]


async def _respond(
    send: Send, status: int, headers: Headers, body: bytes, *, length: bool = True
) -> None:
    if length and status not in {204, 304}:
        headers = [*headers, (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
