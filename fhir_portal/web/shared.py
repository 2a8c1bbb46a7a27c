"""``/shared``: what somebody finds who was given a link to part of a record.

    GET  /shared/<handle>            a form for the passcode, the same for every address
    POST /shared/<handle>            what is shared, to read and to download
    POST /shared/<handle>/manifest   the manifest, for apps (SMART Health Links)
    GET  /shared/files/<ticket>      one file, for a while

Nobody signs in here and no cookie is looked at, so that every origin may ask for manifest and
files. What is unknown or over is answered alike.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final

import msgspec
from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from fhir_portal.accounts.throttle import Throttle, TooManyAttempts, network_of
from fhir_portal.fhir.errors import FhirError, Unauthenticated, Unavailable
from fhir_portal.operations.open_share import NoName, NotShared, Opened, Shares, WrongPasscode
from fhir_portal.operations.shared_files import content_of, health_file, health_files, listed
from fhir_portal.smart.errors import InvalidRequest, TooLarge
from fhir_portal.smart.health_link import FILE_TYPE, JOSE, sealed
from fhir_portal.web.cors import OPEN, is_preflight, preflight
from fhir_portal.web.downloads import Downloads, while_allowed
from fhir_portal.web.form import once_each, parse_form, read_body
from fhir_portal.web.pages.browser import address_of
from fhir_portal.web.pages.render import attached, download, page, printed
from fhir_portal.web.pages.signin import wait_words

SHARED: Final = "/shared"
FILES: Final = f"{SHARED}/files"
TRIES: Final = "120 per minute"
"""Times that one network may come with a passcode, or for a file, whatever link it is for."""
EMBEDDED: Final = 1024 * 1024
"""A file is in the manifest up to so many signs, and never longer than was asked for."""
_MAX_BODY: Final = 8 * 1024
_OVER: Final = "This link does not work, or no longer. Ask whoever gave it to you for a new one."
_WRONG: Final = "The passcode is not right. Tries left in this hour: {left}."
_BUSY: Final = "Too much is going on at this moment. Try again in a minute."
_NO_NAME: Final = "Say who you are, in 100 signs at most: whose record it is can read that."
_CHANGED: Final = "This file cannot be shown now. Go back and choose another one."
_HEADERS: Final = {
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    **dict(OPEN),
}

Handler = Callable[[Request], Awaitable[Response]]


class ManifestRequest(msgspec.Struct, frozen=True, rename="camel"):
    """The body of a request for a manifest."""

    recipient: str
    passcode: str = ""
    embedded_length_max: int | None = None


class SharedPages:
    """The pages and endpoints over the links."""

    def __init__(self, shares: Shares, throttle: Throttle, base: str, downloads: Downloads) -> None:
        self._shares = shares
        self._throttle = throttle
        self._base = base
        self._downloads = downloads

    def router(self) -> APIRouter:
        """Return the addresses as routes for FastAPI."""
        router = APIRouter(include_in_schema=False)
        one = f"{SHARED}/{{handle}}"
        for path, methods, handler in (
            (f"{FILES}/{{ticket}}", ["GET", "OPTIONS"], self.file),
            (one, ["GET"], self.show),
            (one, ["POST"], self.open),
            (f"{one}/manifest", ["POST", "OPTIONS"], self.manifest),
        ):
            router.add_route(path, handler, methods=methods)
        return router

    # --- for people ----------------------------------------------------------------------------

    async def show(self, request: Request) -> Response:  # noqa: ARG002 - a handler
        """The form. Whether there is such a link is told to who knows the passcode."""
        return page("shared.html", problem="", name="")

    async def open(self, request: Request) -> Response:
        """Show what is shared, to whoever has the passcode."""
        try:
            body = await read_body(request.receive, _MAX_BODY)
            form = once_each(parse_form(body, request.headers.get("content-type", "")))
        except (InvalidRequest, TooLarge):
            return page("shared.html", status=400, problem=_NO_NAME, name="")
        name = form.get("name", "")
        try:
            await self._limit(request)
            opened = await self._shares.open(
                request.path_params["handle"],
                form.get("passcode", ""),
                recipient=name,
                way="page",
                address=address_of(request),
            )
            files = await listed(opened.link, opened.perform)
            shown = [
                (f"{FILES}/{await self._shares.ticket(opened, one.name, sealed=False)}", one)
                for one in files
            ]
        except NoName:
            return page("shared.html", status=400, problem=_NO_NAME, name="")
        except WrongPasscode as error:
            problem = _WRONG.format(left=error.remaining)
            return page("shared.html", status=401, problem=problem, name=name)
        except TooManyAttempts as error:
            return page("shared.html", status=429, problem=wait_words(error), name=name)
        except Unavailable:
            return page("shared.html", status=503, problem=_BUSY, name=name)
        except (NotShared, FhirError):
            return _over()
        return page("shared_files.html", label=opened.link.label, files=shown)

    # --- for apps ------------------------------------------------------------------------------

    async def manifest(self, request: Request) -> Response:
        """Answer with the files: those that are short enough in it, the others by address."""
        if request.method == "OPTIONS":
            return _preflight(request, "POST")
        try:
            await self._limit(request)
            asked = msgspec.json.decode(
                await read_body(request.receive, _MAX_BODY), type=ManifestRequest
            )
            most = EMBEDDED if asked.embedded_length_max is None else asked.embedded_length_max
            if most < 0:
                return _refused(400, "embeddedLengthMax is a whole number from 0")
            opened = await self._shares.open(
                request.path_params["handle"],
                asked.passcode,
                recipient=asked.recipient,
                way="app",
                address=address_of(request),
            )
            files = await self._files(opened, min(most, EMBEDDED))
            answer = JSONResponse(files, headers=_HEADERS)
            return while_allowed(self._downloads, opened.auth, answer)
        except NoName:
            return _refused(400, "recipient is plain text of 1 to 100 signs")
        except WrongPasscode as error:
            return JSONResponse(
                {"remainingAttempts": error.remaining}, status_code=401, headers=_HEADERS
            )
        except (msgspec.MsgspecError, UnicodeDecodeError, InvalidRequest):
            return _refused(400, "the body is a manifest request in JSON")
        except TooLarge:
            return _refused(413, "the body is too long")
        except TooManyAttempts as error:
            return _refused(429, "wait", retry_after=error.retry_after)
        except Unavailable:
            return _refused(503, "too much is going on", retry_after=10)
        except (NotShared, FhirError):
            return _refused(404, "this link is not active")

    async def _files(self, opened: Opened, most: int) -> dict[str, Any]:
        found = []
        for name in await health_files(opened.link, opened.perform):
            content = await health_file(opened.link, name, opened.perform)
            if content is None:
                continue
            jwe = sealed(content, self._shares.file_key(opened.link))
            if len(jwe) <= most:
                found.append({"contentType": FILE_TYPE, "embedded": jwe})
                continue
            ticket = await self._shares.ticket(opened, name, sealed=True)
            found.append({"contentType": FILE_TYPE, "location": f"{self._base}{FILES}/{ticket}"})
        return {"status": "can-change", "files": found}

    async def file(self, request: Request) -> Response:
        """Give one file: encrypted to apps, as itself to people."""
        if request.method == "OPTIONS":
            return _preflight(request, "GET")
        try:
            await self._limit(request)
            opened, ticket = await self._shares.redeem(request.path_params["ticket"])
            if ticket.sealed:
                content = await health_file(opened.link, ticket.file, opened.perform)
                return _over() if content is None else self._sealed(opened, content)
            given = await content_of(opened.link, ticket.file, opened.perform)
        except TooManyAttempts as error:
            return _refused(429, "wait", retry_after=error.retry_after)
        except (NotShared, Unauthenticated):
            return _over()
        except FhirError as error:
            return page("problem.html", status=error.status, message=_CHANGED, back="/help")
        if given is None:
            return _over()
        return while_allowed(self._downloads, opened.auth, _shown(ticket.file, *given))

    def _sealed(self, opened: Opened, content: bytes) -> Response:
        jwe = sealed(content, self._shares.file_key(opened.link))
        answer = Response(jwe, headers=_HEADERS, media_type=JOSE)
        return while_allowed(self._downloads, opened.auth, answer)

    async def _limit(self, request: Request) -> None:
        await self._throttle.limit(TRIES, f"shared {network_of(address_of(request))}")


def _shown(name: str, media: str, content: bytes) -> Response:
    if name == "summary/html":
        return printed(content)
    file_name = {"summary/pdf": "summary.pdf", "summary/fhir": "summary.json"}.get(name)
    if name == "record/ccda":
        file_name = "record.xml"
    if file_name is not None:
        return download(content, file_name, media)
    return attached(content, "document", media)


def _over() -> Response:
    return page("problem.html", status=404, message=_OVER, back="/help")


def _refused(status: int, words: str, *, retry_after: int | None = None) -> Response:
    headers = _HEADERS if retry_after is None else {**_HEADERS, "Retry-After": str(retry_after)}
    return JSONResponse({"error": words}, status_code=status, headers=headers)


def _preflight(request: Request, method: str) -> Response:
    headers = dict(OPEN)
    if is_preflight(request.method, request.scope["headers"]):
        headers = dict(preflight(OPEN, methods=method))
    return Response(status_code=204, headers=headers)


def shared_router(
    shares: Shares, *, throttle: Throttle, base: str, downloads: Downloads
) -> APIRouter:
    """The addresses as routes for FastAPI. ``base`` is the address of the site."""
    return SharedPages(shares, throttle, base, downloads).router()
