"""Pages that people see on the way to a token: sign-in, picker, consent. No JavaScript."""

from __future__ import annotations

from fhir_portal.web.pages.authorize import pages_router

__all__ = ["pages_router"]
