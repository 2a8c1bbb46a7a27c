"""The FHIR API as a plain ASGI app, called before FastAPI. HTTP in, `FhirRequest` on.

Source: FHIR R4 §3.1.0 (RESTful API), RFC 6750 (bearer tokens). Cookies are never read here.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping, MutableMapping, Sequence
from email.utils import formatdate
from functools import lru_cache
from typing import Any, Final
from urllib.parse import parse_qsl, quote

import msgspec
import structlog
from msgspec.structs import replace

from fhir_portal.access.context import AuthContext
from fhir_portal.fhir.definitions import served_types
from fhir_portal.fhir.errors import (
    FhirError,
    Invalid,
    MethodNotAllowed,
    NotAcceptable,
    NotFound,
    RangeNotSatisfiable,
    TooLarge,
    Unauthenticated,
    UnsupportedMedia,
)
from fhir_portal.fhir.interaction import FhirRequest, FhirResponse, Stream, etag, interaction_at
from fhir_portal.operations.catalog import NATIVE, STREAMED, methods_at
from fhir_portal.portal import Portal, fault
from fhir_portal.resources.catalog import interactions_of
from fhir_portal.smart.dpop import Shown
from fhir_portal.web import cors, events
from fhir_portal.web.downloads import LONG, Downloads, Room, in_pieces, saved_as
from fhir_portal.web.errors import failure, refusal
from fhir_portal.web.events import EventStreams

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
_MEDIA_TYPE: Final = re.compile(
    r"[\w.+-]+/[\w.+-]+(?: *; *[\w.+-]+=(?:[\w.+:-]+|\"[\w .+:-]*\"))*", re.ASCII
)
_INLINE: Final = frozenset({"image/png", "image/jpeg", "application/pdf"})
_COMMON: Final[Headers] = [
    (b"cache-control", b"no-store"),
    (b"x-content-type-options", b"nosniff"),
]
_BODY_SECONDS: Final = 60
_WITH_BODY: Final = frozenset({"create", "update", "bundle"})
_METHODS: Final = {
    "GET": ("GET", "HEAD"),
    "POST": ("POST",),
    "PUT": ("PUT",),
    "DELETE": ("DELETE",),
}
_ONCE: Final = frozenset(
    {
        b"authorization",
        b"content-length",
        b"content-type",
        b"dpop",
        b"if-modified-since",
        b"if-none-exist",
        b"origin",
    }
)
_SERVED: Final = frozenset(served_types())
_MAX_FORM: Final = 1024 * 1024
_SHORT: Final = 200


class _Answer(msgspec.Struct, frozen=True):
    """What is to be sent, and to whom; a ``stream`` instead of a body holds a ``room``."""

    status: int
    headers: Headers
    body: bytes
    auth: AuthContext
    stream: Stream | None = None
    room: Room | None = None


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
        dpop_required: bool = False,
        event_turn_seconds: float = events.TURN_SECONDS,
        downloads: Downloads | None = None,
    ) -> None:
        self._portal = portal
        self._dpop_required = dpop_required
        self._public: dict[str, tuple[Callable[[], bytes], bytes]] = {
            "metadata": (lru_cache(1)(capabilities), _FHIR_JSON),
            ".well-known/smart-configuration": (
                lru_cache(1)(lambda: msgspec.json.encode(smart_configuration())),
                b"application/json",
            ),
        }
        self._streams = EventStreams(portal, event_turn_seconds)
        self._downloads = downloads or Downloads(portal)
        self._max_body = max_body
        self._max_transaction = max_transaction

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers: dict[bytes, bytes] = dict(scope["headers"])
        twice = b""
        if len(headers) < len(scope["headers"]):
            headers, twice = _combined(scope["headers"])
        path = _path(scope)
        if path in self._public:
            await self._document(scope, headers, send, path)
            return
        origin = headers.get(b"origin")
        allowed: Headers = []
        if origin is not None:
            found = await cors.registered_only(self._portal.server.store, origin.decode("latin-1"))
            allowed = _encoded(found)
            if cors.is_preflight(scope["method"], scope["headers"]):
                await _respond(send, 204, _encoded(cors.preflight(found)), b"")
                return
        if scope["method"] == "OPTIONS" and (methods := _methods_at(path)):
            await _respond(send, 204, [_allow(methods), *allowed], b"")
            return
        try:
            if twice:
                message = f"the header {twice.decode()} is given twice"
                raise Invalid(message)  # noqa: TRY301 - answered like any other refusal
            if path == events.PATH and _asks_for_events(scope, headers):
                auth = await self._event_stream(scope, headers, path)
                await self._streams.run(auth, scope, receive, send, [*events.HEADERS, *allowed])
                return
            answer = await self._answer(scope, headers, path, receive)
            if answer.stream is not None or len(answer.body) > LONG:
                await self._send_long(answer, allowed, scope, receive, send)
                return
            status, extra, body = answer.status, answer.headers, answer.body
        except FhirError as error:
            had_token = _token(headers) is not None
            status, extra, body = refusal(
                error,
                had_token=had_token,
                dpop=_is_dpop(headers),
                dpop_required=self._dpop_required,
                allow=_methods_at(path),
            )
            extra.append((b"content-type", _FHIR_JSON))
        except asyncio.CancelledError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is, the caller gets an outcome
            _log.error("request failed", method=scope["method"], **fault(error))
            status, extra, body = 500, [(b"content-type", _FHIR_JSON)], failure()
        await _respond(
            send, status, _COMMON + extra + allowed, body, head=scope["method"] == "HEAD"
        )

    async def _document(
        self, scope: Scope, headers: dict[bytes, bytes], send: Send, path: str
    ) -> None:
        open_to_all = _encoded(cors.OPEN)
        head = scope["method"] == "HEAD"
        if cors.is_preflight(scope["method"], scope["headers"]):
            methods = cors.preflight(cors.OPEN, methods="GET, HEAD")
            await _respond(send, 204, _encoded(methods), b"")
            return
        if scope["method"] == "OPTIONS":
            await _respond(send, 204, [_allow(_READING), *open_to_all], b"")
            return
        document, content_type = self._public[path]
        try:
            if scope["method"] not in {"GET", "HEAD"}:
                message = "use GET"
                raise MethodNotAllowed(message)
            body = document()
            if path == "metadata":
                pairs = _pairs(scope["query_string"])
                _, pretty, _ = _representation(headers, pairs, native=False)
                body = msgspec.json.format(body, indent=2) if pretty else body
        except FhirError as error:
            status, extra, body = refusal(error, had_token=False, allow=_READING)
            extra = [*_COMMON, *extra, (b"content-type", _FHIR_JSON), *open_to_all]
            await _respond(send, status, extra, body, head=head)
            return
        answered = [
            (b"content-type", content_type),
            (b"cache-control", b"public, max-age=300"),
            (b"x-content-type-options", b"nosniff"),
            *open_to_all,
        ]
        await _respond(send, 200, answered, body, head=head)

    async def _answer(
        self, scope: Scope, headers: dict[bytes, bytes], path: str, receive: Receive
    ) -> _Answer:
        auth = await self._portal.callers.of(_bearer(headers), self._shown(scope, headers))
        method = "GET" if scope["method"] == "HEAD" else scope["method"]
        address = interaction_at(method, path)
        if address is None:
            if _methods_at(path):
                message = f"{method[:10]} is not offered here"
                raise MethodNotAllowed(message)
            message = "there is nothing at this address"
            raise NotFound(message)
        pairs = _pairs(scope["query_string"])
        body = b""
        if address.interaction in _WITH_BODY:
            _require_json(headers)
            body = await self._body(headers, receive, address)
        elif address.operation is not None and method == "POST":
            body = await self._body(headers, receive, address)
            if body:  # an operation may be given nothing
                _require_json(headers)
        elif method == "POST":
            pairs += await self._form(headers, receive)
        request, pretty, wants_json = _request(address, headers, pairs, body)
        if method in {"POST", "PUT"}:
            await self._portal.callers.confirm(auth)  # the body may have taken its time
        if request.operation in STREAMED:
            return await self._archive(request, auth)
        response = await self._portal.perform(request, auth)
        status, extra, content = _http(response, pretty=pretty, native=not wants_json)
        stored = request.interaction in {"read", "vread"} and response.binary is not None
        if status == _OK and stored and not wants_json:
            asked = headers if scope["method"] == "GET" else {}
            status, extra, content = _in_part(asked, extra, content)
        return _Answer(status, extra, content, auth)

    async def _archive(self, request: FhirRequest, auth: AuthContext) -> _Answer:
        """Perform what is answered with a stream, and take the place that it needs."""
        room = self._downloads.room(auth)
        try:
            response = await self._portal.perform(request, auth)
        except BaseException:
            room.close()
            raise
        headers = [] if response.stream is None else saved_as(response.stream)
        return _Answer(response.status, headers, response.body, auth, response.stream, room)

    async def _send_long(
        self, answer: _Answer, allowed: Headers, scope: Scope, receive: Receive, send: Send
    ) -> None:
        """Send what is long while the caller may have it; of HEAD the headers alone."""
        headers = _COMMON + answer.headers + allowed
        stream = answer.stream
        if stream is None:
            headers.append((b"content-length", str(len(answer.body)).encode()))
        try:
            if scope["method"] == "HEAD":
                start = {"type": "http.response.start", "status": answer.status}
                await send({**start, "headers": headers})
                await send({"type": "http.response.body", "body": b""})
                return
            await self._downloads.send(
                answer.auth,
                in_pieces(answer.body) if stream is None else stream.chunks(),
                status=answer.status,
                headers=headers,
                scope=scope,
                receive=receive,
                send=send,
            )
        finally:
            if answer.room is not None:
                answer.room.close()

    async def _event_stream(
        self, scope: Scope, headers: dict[bytes, bytes], path: str
    ) -> AuthContext:
        """Let a caller in to a stream of events; that it was opened is in the access log."""
        auth = await self._portal.callers.of(_bearer(headers), self._shown(scope, headers))
        self._streams.make_room(auth)
        address = interaction_at("GET", path)
        assert address is not None  # noqa: S101 - it is one of ours
        await self._portal.perform(address, auth)
        return auth

    def _shown(self, scope: Scope, headers: dict[bytes, bytes]) -> Shown | None:
        """The DPoP proof of a request, and the request's own address (RFC 9449 §7.1)."""
        if not _is_dpop(headers):
            return None
        server = self._portal.server
        raw: bytes = scope.get("raw_path") or quote(scope["path"]).encode()
        path = raw.decode("latin-1").removeprefix(PREFIX)
        return Shown(
            proof=headers.get(b"dpop", b"").decode("latin-1"),
            method=scope["method"],
            urls=tuple(f"{base}{path}" for base in (server.base, *server.aliases)),
        )

    async def _body(
        self, headers: dict[bytes, bytes], receive: Receive, address: FhirRequest | None
    ) -> bytes:
        bundle = address is not None and address.interaction == "bundle"
        limit = self._max_transaction if bundle else self._max_body
        if address is None:
            limit = min(limit, _MAX_FORM)
        declared = headers.get(b"content-length", b"0")
        if not declared.isdigit():
            message = "Content-Length is not a number"
            raise Invalid(message)
        if int(declared[:20]) > limit:
            message = f"the body is larger than {limit} bytes"
            raise TooLarge(message)
        parts: list[bytes] = []
        size = 0
        ends = asyncio.get_running_loop().time() + _BODY_SECONDS
        while True:
            try:
                async with asyncio.timeout_at(ends):
                    message_ = await receive()
            except TimeoutError:
                message = f"the body took longer than {_BODY_SECONDS} seconds"
                raise Invalid(message) from None
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


def _asks_for_events(scope: Scope, headers: dict[bytes, bytes]) -> bool:
    accepted = headers.get(b"accept", b"").lower().split(b",")
    return scope["method"] == "GET" and any(
        one.partition(b";")[0].strip() == events.MEDIA for one in accepted
    )


def _path(scope: Scope) -> str:
    """Return the path under the base without slashes at its ends.

    An encoded slash stands for no slash of ours, so what holds one leads nowhere.
    """
    raw: bytes = scope.get("raw_path") or b""
    if b"%" in raw and b"%2f" in raw.lower():
        return "%2f"
    path: str = scope["path"]
    return path[len(PREFIX) :].strip("/")


def _combined(headers: Sequence[tuple[bytes, bytes]]) -> tuple[dict[bytes, bytes], bytes]:
    """Join repeated headers to lists (RFC 9110 §5.3); name one that may not be repeated."""
    found: dict[bytes, bytes] = {}
    twice = b""
    for name, value in headers:
        if name not in found:
            found[name] = value
        elif name in _ONCE:
            twice = name
        else:
            found[name] += b", " + value
    return found, twice


_READING: Final = ("GET", "HEAD", "OPTIONS")


def _methods_at(path: str) -> tuple[str, ...]:
    """Return the methods offered at a path; none when it means nothing."""
    found: list[str] = []
    for method, names in _METHODS.items():
        at = interaction_at(method, path)
        if at is None:
            continue
        if at.operation is not None:
            found += [name for name in names if name in methods_at(at)]
            continue
        if at.type in _SERVED and at.interaction not in interactions_of(at.type):
            continue
        found += names
    return (*found, "OPTIONS") if found else ()


def _token(headers: dict[bytes, bytes]) -> str | None:
    scheme, _, token = headers.get(b"authorization", b"").partition(b" ")
    token = token.strip()
    return token.decode("latin-1") if token and scheme.lower() in _SCHEMES else None


def _is_dpop(headers: dict[bytes, bytes]) -> bool:
    return headers.get(b"authorization", b"")[:5].lower() == b"dpop "


def _bearer(headers: dict[bytes, bytes]) -> str:
    token = _token(headers)
    if token is None:
        message = "send an access token: Authorization: Bearer …"
        raise Unauthenticated(message)
    return token


_SCHEMES: Final = frozenset({b"bearer", b"dpop"})
_MAX_PAIRS: Final = 500


def _pairs(query: bytes) -> list[tuple[str, str]]:
    if not query:
        return []
    try:
        if b"%" not in query and b"+" not in query and query.count(b"&") < _MAX_PAIRS:
            parts = [part.partition("=") for part in query.decode("ascii").split("&") if part]
            return [(name, value) for name, _, value in parts]
        return parse_qsl(
            query.decode("ascii"),
            keep_blank_values=True,
            errors="strict",
            max_num_fields=_MAX_PAIRS,
        )
    except (UnicodeDecodeError, ValueError):
        message = "the query is not percent-encoded UTF-8, or has too many parameters"
        raise Invalid(message) from None


def _require_json(headers: dict[bytes, bytes]) -> None:
    if headers.get(b"content-encoding", b"identity").lower() != b"identity":
        message = "send the body as it is, without Content-Encoding"
        raise UnsupportedMedia(message)
    content_type = headers.get(b"content-type", b"").decode("latin-1")
    media, _, rest = content_type.partition(";")
    if media.strip().lower() not in _JSON_TYPES:
        message = "send FHIR JSON: Content-Type: application/fhir+json"
        raise UnsupportedMedia(message)
    parameters = rest.lower().replace(" ", "").replace('"', "")
    if "charset=" in parameters and "charset=utf-8" not in parameters:
        message = "FHIR JSON is UTF-8"
        raise UnsupportedMedia(message)
    if any(_OTHER_VERSION.fullmatch(text) for text in parameters.split(";")):
        message = "FHIR R4 is served: fhirVersion=4.0"
        raise UnsupportedMedia(message)


def _request(
    address: FhirRequest,
    headers: dict[bytes, bytes],
    pairs: list[tuple[str, str]],
    body: bytes,
) -> tuple[FhirRequest, bool, bool]:
    """Return the request without what is about its representation, and that: pretty, JSON."""
    native = address.type == "Binary" and address.interaction in {"read", "vread"}
    formats = NATIVE.get(address.operation or "")
    chosen = False
    if formats is not None:
        native = True
        if address.is_get:
            pairs, chosen = _formatted(headers, pairs, formats)
    query, pretty, wants_json = _representation(headers, pairs, native=native)
    wants_json = wants_json and not chosen
    if query and address.interaction not in _QUERIED and not address.is_get:
        message = f"{query[0][0][:64]} is not supported here"
        raise Invalid(message)
    conditional = {
        member: _header(headers, name) for name, member in _CONDITIONAL.items() if name in headers
    }
    request = address
    if query or body or conditional:
        request = replace(address, query=tuple(query), body=body, **conditional)
    prefer = headers.get(b"prefer")
    if prefer is not None:
        request = _preferred(request, prefer.decode("latin-1"))
    return request, pretty, wants_json


def _formatted(
    headers: dict[bytes, bytes], pairs: list[tuple[str, str]], formats: Mapping[str, str]
) -> tuple[list[tuple[str, str]], bool]:
    """Say in ``format`` what ``_format`` or Accept asks an operation for, where that is not JSON.

    Returns the query and whether ``_format`` was it, which counts for more than Accept. An
    operation that has no such parameter says by itself what its content is.
    """
    asked = {name: value for name, value in pairs if name in {"format", "_format"}}
    media = asked.get("_format", "").partition(";")[0].strip().lower()
    if media in formats:
        rest = [pair for pair in pairs if pair[0] != "_format"]
        return (rest if "format" in asked else [*rest, ("format", formats[media])]), True
    if asked:
        return pairs, False
    header = headers.get(b"accept", b"*/*").decode("latin-1").lower()
    for part in header.split(","):
        name, *parameters = part.replace(" ", "").split(";")
        if any(_UNWANTED.fullmatch(text) for text in parameters):
            continue
        if name in _JSON_TYPES:
            break
        if name in formats:
            return [*pairs, ("format", formats[name])], False
    return pairs, False


def _representation(
    headers: dict[bytes, bytes], pairs: list[tuple[str, str]], *, native: bool
) -> tuple[list[tuple[str, str]], bool, bool]:
    """Take ``_format`` and ``_pretty`` out of the query and hold them and Accept against JSON.

    ``native`` says that there is a representation besides: a Binary's own content.
    Returns the rest of the query, whether to be pretty, and whether JSON is wanted.
    """
    header = headers.get(b"accept", b"*/*")
    parse = _accepted if len(header) <= _SHORT else _accepted.__wrapped__
    asked_json, any_type = parse(header)
    pretty = formatted = False
    query = []
    for name, value in pairs:
        if name == "_format":
            if value.partition(";")[0].strip().lower() not in _JSON_FORMATS:
                message = "only JSON is served: _format=json"
                raise NotAcceptable(message)
            formatted = True
        elif name == "_pretty":
            pretty = value == "true"
        else:
            query.append((name, value))
    if not (formatted or native or asked_json or any_type):
        message = "only JSON is served: Accept: application/fhir+json"
        raise NotAcceptable(message)
    return query, pretty, formatted or asked_json or not native


@lru_cache(maxsize=256)
def _accepted(header: bytes) -> tuple[bool, bool]:
    """Whether an Accept header names FHIR JSON, and whether it takes any (RFC 9110 §12.5.1)."""
    accepted = set()
    plain = header.decode("latin-1").lower().replace(" ", "").replace('"', "")
    for part in plain.split(","):
        media, *parameters = part.split(";")
        refused = any(_UNWANTED.fullmatch(text) for text in parameters)
        if not refused:
            accepted.add(media)
    return bool(accepted & _JSON_TYPES), bool(accepted & _ANY_TYPES)


_OTHER_VERSION: Final = re.compile(r"fhirversion=(?!4\.0(\.1)?$).*")
_UNWANTED: Final = re.compile(r"q=0(\.0*)?|" + _OTHER_VERSION.pattern)


def _header(headers: dict[bytes, bytes], name: bytes) -> str:
    try:
        return headers[name].decode()
    except UnicodeDecodeError:
        message = f"the header {name.decode()} is not UTF-8"
        raise Invalid(message) from None


@lru_cache(maxsize=4096)
def _http_date(seconds: int) -> bytes:
    return formatdate(seconds, usegmt=True).encode()


_QUERIED: Final = frozenset({"search-type", "history-instance", "history-system"})
_CONDITIONAL: Final = {
    b"if-match": "if_match",
    b"if-none-match": "if_none_match",
    b"if-modified-since": "if_modified_since",
    b"if-none-exist": "if_none_exist",
}


def _preferred(request: FhirRequest, prefer: str) -> FhirRequest:
    """Apply ``Prefer`` (RFC 7240): the first of a name counts, what is not known is ignored."""
    found: dict[str, str] = {}
    for part in prefer.replace(";", ",").split(","):
        name, _, value = part.partition("=")
        found.setdefault(name.strip().lower(), value.strip().strip('"'))
    wanted = found.get("return")
    if wanted in {"minimal", "representation", "OperationOutcome"}:
        request = replace(request, prefer=wanted)
    return replace(request, lenient=found.get("handling") == "lenient")


def _http(response: FhirResponse, *, pretty: bool, native: bool) -> tuple[int, Headers, bytes]:
    headers: Headers = []
    if response.version is not None:
        headers.append((b"etag", etag(response.version).encode()))
    if response.updated is not None:
        headers.append((b"last-modified", _http_date(response.updated // 1000)))
    if response.location is not None:
        headers.append((b"location", response.location.encode()))
    if native and response.binary is not None:
        media, content = response.binary
        if not _MEDIA_TYPE.fullmatch(media):
            media = "application/octet-stream"
        plain = media.partition(";")[0].strip().lower()
        headers += [
            (b"content-type", media.encode()),
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


def _in_part(
    asked: Mapping[bytes, bytes], extra: Headers, content: bytes
) -> tuple[int, Headers, bytes]:
    """Return the part of a stored Binary's content that ``Range`` asks for (RFC 9110 §14).

    Anything but one range of bytes is as if it were not there; so is a range that holds only if
    nothing has changed since (``If-Range``), unless that names the very time of the last change:
    the entity tags here are weak, which it must not match.

    Raises:
        RangeNotSatisfiable: the range lies behind the end.
    """
    extra = [*extra, (b"accept-ranges", b"bytes")]
    match = _RANGE.fullmatch(asked.get(b"range", b""))
    if_range = asked.get(b"if-range")
    if match is None or (if_range is not None and (b"last-modified", if_range) not in extra):
        return _OK, extra, content
    size = len(content)
    first, last = (int(text) if text else None for text in match.groups())
    if first is None:  # the last so many bytes
        if last is None:
            return _OK, extra, content
        start, end = max(size - last, 0), size - 1
    else:
        start, end = first, size - 1 if last is None else min(last, size - 1)
        if last is not None and last < first:
            return _OK, extra, content
    if start >= size or end < start:
        message = f"there are {size} bytes"
        raise RangeNotSatisfiable(message, size=size)
    extra.append((b"content-range", f"bytes {start}-{end}/{size}".encode()))
    return 206, extra, content[start : end + 1]


_OK: Final = 200
_RANGE: Final = re.compile(rb"bytes=(?:([0-9]{1,15})?-([0-9]{1,15})?)", re.IGNORECASE)


def _encoded(headers: cors.Headers) -> Headers:
    return [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers]


def _allow(methods: Sequence[str]) -> tuple[bytes, bytes]:
    return b"allow", ", ".join(methods).encode()


async def _respond(
    send: Send, status: int, headers: Headers, body: bytes, *, head: bool = False
) -> None:
    if status not in {204, 304}:
        headers = [*headers, (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": b"" if head else body})
