"""Communication has behaviour of its own: threads and their messages are told from other ones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from fhir_portal.consent.grant import IG
from fhir_portal.fhir.datetime import period_of

CATEGORY: Final = f"{IG}/CodeSystem/portal-conversation"
THREAD: Final = "thread"
MESSAGE: Final = "message"
SENT: Final = "message-sent"
"""The name of the job that tells the other side of a message; its argument is its ``message``."""
_MICROSECONDS: Final = 1_000_000


def is_thread(tree: Mapping[str, Any]) -> bool:
    """Whether a Communication is the header of a thread, and of somebody's."""
    of_somebody = bool((tree.get("subject") or {}).get("reference"))
    return THREAD in _codes(tree) and not tree.get("partOf") and of_somebody


def is_message(tree: Mapping[str, Any]) -> bool:
    """Whether a Communication is a message of a thread."""
    return MESSAGE in _codes(tree) and bool(tree.get("partOf"))


def stands_in(tree: Mapping[str, Any]) -> bool:
    """Whether a message was sent and not taken back."""
    return tree.get("status") == "completed"


def sent_before(tree: Mapping[str, Any], moment: float) -> bool:
    """Whether a message says that it was sent before a moment (seconds since 1970 UTC)."""
    try:
        return period_of(str(tree.get("sent") or ""))[1] < moment * _MICROSECONDS
    except ValueError:
        return False


def _codes(tree: Mapping[str, Any]) -> set[str]:
    return {
        str(coding.get("code"))
        for concept in tree.get("category") or ()
        for coding in concept.get("coding") or ()
        if coding.get("system") == CATEGORY
    }
