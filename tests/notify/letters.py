"""A letterhead, and what is filled in."""

from __future__ import annotations

from fhir_portal.notify.letter import Letterhead

PORTAL = "https://portal.example.org"
LINK = f"{PORTAL}/activate/cG9ydGFsLWxpbmstb2YtZm9ydHktdGhyZWUtc2lnbnM"
FIELDS = {"code": "1234 5678", "link": LINK}
OTHERS = {"username": "mara", "practices": "Hill Street Dermatology"}
HEAD = Letterhead("Hill Street Dermatology", "+1 312 555 0100", PORTAL)
