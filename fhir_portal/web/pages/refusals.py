"""Refusals and faults on pages that belong to no app: always a page that says what to do."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable

import structlog
from starlette.requests import Request
from starlette.responses import Response

from fhir_portal.accounts.sessions import SignedOutMeanwhile
from fhir_portal.fhir.errors import FhirError, Unavailable
from fhir_portal.portal import fault
from fhir_portal.smart.errors import OAuthError
from fhir_portal.web.pages.errors import error_of
from fhir_portal.web.pages.render import page, redirect

Handler = Callable[[Request], Awaitable[Response]]

_log = structlog.get_logger(__name__)


def refusal_words(error: FhirError) -> str:
    """Return what a refusal of the FHIR API says, as a sentence."""
    words = "; ".join(one.diagnostics for one in error.issues if one.diagnostics) or str(error)
    return f"{words[:1].upper()}{words[1:]}."


def refusing(handler: Handler, *, back: str, signed_out: str) -> Handler:
    """Answer every refusal and fault of a handler with a page.

    ``back`` is where its link leads, ``signed_out`` where somebody goes whose session is over.
    """

    @functools.wraps(handler)
    async def answer(request: Request) -> Response:
        try:
            return await handler(request)
        except OAuthError as error:
            response = page(
                "problem.html",
                status=error.status,
                message=error.description,
                error=error_of(error),
                back=back,
            )
            if "Retry-After" in error.headers:
                response.headers["Retry-After"] = error.headers["Retry-After"]
            return response
        except SignedOutMeanwhile:
            return redirect(signed_out)
        except Unavailable:
            message = "The portal is too busy. Try again in a minute."
            return page("problem.html", status=503, message=message, error="try-later", back=back)
        except Exception as error:  # noqa: BLE001 - whatever it is, a person gets a page
            # The route's pattern: the path itself may hold the secret of a link.
            _log.error("page failed", path=_pattern(request), **fault(error))
            message = "Something went wrong on our side."
            return page("problem.html", status=500, message=message, error="fault", back=back)

    return answer


def _pattern(request: Request) -> str:
    """What addresses of this kind look like, without what is in this one."""
    return str(getattr(request.scope.get("route"), "path", ""))
