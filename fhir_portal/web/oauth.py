"""The endpoints that clients talk to, as one plain ASGI app: tokens, registration, discovery.

What people see, ``/oauth/authorize`` and the pages behind it, is in ``web/pages``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable, Mapping, MutableMapping, Sequence
from typing import Any, Final

import structlog

from fhir_portal.fhir import errors as store_errors
from fhir_portal.portal import fault
from fhir_portal.records import RecordReader
from fhir_portal.smart.authorization_details import TYPE_PATH
from fhir_portal.smart.discovery import AUTHORIZATION_SERVER, OPENID_CONFIGURATION
from fhir_portal.smart.errors import (
    InvalidDpopProof,
    InvalidRequest,
    MethodNotAllowed,
    OAuthError,
    ServerError,
    Unavailable,
)
from fhir_portal.smart.exchange import FormRequest
from fhir_portal.smart.keys import JWKS_SECONDS
from fhir_portal.smart.launch import LAUNCH_PATH
from fhir_portal.smart.par import PAR_PATH
from fhir_portal.smart.registration import MAX_BYTES as MAX_REGISTRATION
from fhir_portal.smart.registration import REGISTER_PATH
from fhir_portal.smart.security_event import EVENT_PATH
from fhir_portal.smart.server import AuthorizationServer
from fhir_portal.web import cors
from fhir_portal.web.form import Receive, once_each, parse_form, read_body
from fhir_portal.web.launch import EhrLaunches

Scope = MutableMapping[str, Any]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Answer = tuple[int, bytes, cors.Headers]

_log = structlog.get_logger(__name__)

JSON: Final = "application/json"
NO_STORE: Final = [("cache-control", "no-store"), ("pragma", "no-cache")]
_PUBLIC: Final = [("cache-control", f"public, max-age={JWKS_SECONDS}")]
_REGISTRATION: Final = re.compile(f"{REGISTER_PATH}/(?P<client_id>[A-Za-z0-9._~-]{{1,100}})")
_ONCE: Final = frozenset({b"authorization", b"content-type", b"origin"})


class OAuthEndpoints:
    """ASGI app for what it `serves`; each answer is JSON, each refusal an `OAuthError`.

    ``reader`` knows the registered origins, for CORS. Without ``launches`` no EHR can make one.
    """

    PATHS: Final = frozenset(
        {
            "/oauth/token",
            PAR_PATH,
            "/oauth/introspect",
            "/oauth/revoke",
            REGISTER_PATH,
            LAUNCH_PATH,
            "/oauth/jwks",
            TYPE_PATH,
            EVENT_PATH,
            OPENID_CONFIGURATION,
            AUTHORIZATION_SERVER,
        }
    )

    @classmethod
    def serves(cls, path: str) -> bool:
        """Whether a path is one of `PATHS`, or below one, where a client manages its own entry."""
        return path in cls.PATHS or _managed(path) is not None

    def __init__(
        self,
        server: AuthorizationServer,
        reader: RecordReader,
        *,
        launches: EhrLaunches | None = None,
    ) -> None:
        self._server = server
        self._reader = reader
        self._launches = launches
        self._documents: Mapping[str, Callable[[], Awaitable[dict[str, Any]]]] = {
            "/oauth/jwks": server.jwks,
            TYPE_PATH: _fixed(server.authorization_details),
            EVENT_PATH: _fixed(server.revocation_event),
            OPENID_CONFIGURATION: _fixed(server.openid_configuration),
            AUTHORIZATION_SERVER: _fixed(server.openid_configuration),
        }
        self._forms: Mapping[str, Callable[[FormRequest], Awaitable[Any]]] = {
            "/oauth/token": server.token,
            PAR_PATH: server.push,
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
                status, content, own = await self._document(scope["path"], scope["method"])
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
            allowed = cors.preflight(allowed, methods=self._methods(scope["path"]))
        await _respond(send, status, content, [*own, *allowed])

    async def _document(self, path: str, method: str) -> Answer:
        if method == "OPTIONS":
            return 204, b"", [("allow", "GET, HEAD, OPTIONS")]
        if method not in ("GET", "HEAD"):
            raise MethodNotAllowed("use GET", headers={"Allow": "GET, HEAD, OPTIONS"})
        content = _encode(await self._documents[path]())
        headers = [*_json(len(content)), *_PUBLIC]
        return 200, b"" if method == "HEAD" else content, headers

    def _methods(self, path: str) -> str:
        if path in self._documents:
            return "GET, HEAD"
        return "POST" if path in self.PATHS else "GET, PUT, DELETE"

    async def _answer(self, scope: Scope, headers: Mapping[str, str], receive: Receive) -> Answer:
        path, methods = scope["path"], self._methods(scope["path"])
        allow = f"{methods}, OPTIONS"
        if scope["method"] == "OPTIONS":
            return 204, b"", [("allow", allow)]
        if scope["method"] not in methods.split(", "):
            raise MethodNotAllowed(f"use {methods}", headers={"Allow": allow})
        client_id = _managed(path)
        if client_id is None:
            status, answered = await self._post(path, headers, scope, receive)
        else:
            status, answered = await self._manage(client_id, headers, scope, receive)
        if answered is None:
            return status, b"", list(NO_STORE)
        content = _encode(answered)
        return status, content, [*_json(len(content)), *NO_STORE]

    async def _manage(
        self, client_id: str, headers: Mapping[str, str], scope: Scope, receive: Receive
    ) -> tuple[int, Any]:
        """A client and its own registration (RFC 7592 §2)."""
        if scope.get("query_string"):
            raise InvalidRequest("there are no parameters here, and no tokens in addresses")
        scheme, _, token = headers.get("authorization", "").partition(" ")
        shown = token.strip() if scheme.lower() == "bearer" and token.strip() else None
        if scope["method"] == "GET":
            return 200, await self._server.registration(client_id, shown)
        if scope["method"] == "DELETE":
            await self._server.end_registration(client_id, shown)
            return 204, None
        metadata = await _json_body(headers, receive)
        return 200, await self._server.change_registration(client_id, shown, metadata)

    async def _post(
        self, path: str, headers: Mapping[str, str], scope: Scope, receive: Receive
    ) -> tuple[int, Any]:
        if scope.get("query_string") and path != REGISTER_PATH:
            raise InvalidRequest("parameters belong in the body")
        if path == LAUNCH_PATH:
            return 201, await self._launch(headers, _proof(scope["headers"]), receive)
        address = scope["client"][0] if scope.get("client") else ""
        if path == REGISTER_PATH:
            metadata = await _json_body(headers, receive)
            return 201, await self._server.register(metadata, address=address)
        body = await read_body(receive)
        parameters = once_each(parse_form(body, headers.get("content-type", "")))
        # One without a value is as good as none (RFC 6749 §3.1).
        form = {name: value for name, value in parameters.items() if value}
        request = FormRequest(form, headers.get("authorization"), address, _proof(scope["headers"]))
        answered = await self._forms[path](request)
        return 201 if path == PAR_PATH else 200, {} if answered is None else answered

    async def _launch(self, headers: Mapping[str, str], proof: str | None, receive: Receive) -> Any:
        """An EHR says what an app is opened on (`fhir_portal.smart.launch`)."""
        if self._launches is None:
            raise InvalidRequest("launches are not offered here")
        auth = await self._launches.caller(headers.get("authorization"), proof)
        return await self._launches.begin(auth, await _json_body(headers, receive))


def _fixed(document: Callable[[], dict[str, Any]]) -> Callable[[], Awaitable[dict[str, Any]]]:
    """A document that is made of settings alone."""

    async def made() -> dict[str, Any]:
        return document()

    return made


def _refuse_repeats(headers: Sequence[tuple[bytes, bytes]]) -> None:
    """Two of one of these would be read differently by whoever stands before us."""
    names = [name for name, _ in headers if name in _ONCE]
    if len(set(names)) < len(names):
        raise InvalidRequest("a header came more than once")


def _proof(headers: Sequence[tuple[bytes, bytes]]) -> str | None:
    """The DPoP proof of a request; there is not more than one (RFC 9449 §4.3)."""
    found = [value.decode("latin-1") for name, value in headers if name == b"dpop"]
    if len(found) > 1:
        raise InvalidDpopProof("a request has one DPoP proof")
    return found[0] if found else None


def _managed(path: str) -> str | None:
    """The client whose registration is at a path."""
    match = _REGISTRATION.fullmatch(path)
    return match["client_id"] if match else None


async def _json_body(headers: Mapping[str, str], receive: Receive) -> Any:
    body = await read_body(receive, MAX_REGISTRATION)
    if headers.get("content-type", "").partition(";")[0].strip().lower() != JSON:
        raise InvalidRequest(f"Content-Type must be {JSON}")
    try:
        return json.loads(body, object_pairs_hook=once_each)
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
