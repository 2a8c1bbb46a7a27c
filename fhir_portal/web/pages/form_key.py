"""What a form calls what it sends: sent twice, it is there once."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from fhir_portal.fhir.errors import Invalid

_KEY: Final = re.compile(r"[A-Za-z0-9_-]{8,64}")
_SYSTEM: Final = "urn:ietf:rfc:3986"


def identifier_of(form: Mapping[str, str]) -> dict[str, str]:
    """Return the Identifier of what a form sends, by its key.

    Raises `Invalid` for a form that is not as we made it.
    """
    key = form.get("key", "")
    if not _KEY.fullmatch(key):
        raise Invalid("the form is out of date: go back and open it again")
    return {"system": _SYSTEM, "value": f"urn:fhir-portal:form:{key}"}
