"""Links in notices: each names a topic and the practice, and nothing of any person.

``/go/<topic>`` leads by way of the sign-in to the page meant, which decides for itself what whoever
signed in may see.
"""

from __future__ import annotations

from typing import Final, Literal, get_args
from urllib.parse import urlencode

Topic = Literal["apps", "security", "sign-in", "help", "appointments", "messages"]
TOPICS: Final[tuple[Topic, ...]] = get_args(Topic)
GO: Final = "/go"


def deep_link(base: str, topic: Topic, practice: str = "") -> str:
    """Return the address to put in a notice; ``base`` is that of the site, ``practice`` its key."""
    query = f"?{urlencode({'practice': practice})}" if practice else ""
    return f"{base}{GO}/{topic}{query}"
