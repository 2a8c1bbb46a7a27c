"""Pages that people see: sign-in, picker, consent, security. None of them depends on JavaScript."""

from __future__ import annotations

from fhir_portal.web.pages.authorize import pages_router

__all__ = ["pages_router"]
