"""Parameters with which each operation can be called; one that needs none is not here."""

from __future__ import annotations

from tests.builders import Json

EXAMPLES: dict[str, list[Json]] = {
    "portal-invite": [{"name": "kind", "valueCode": "self"}],
    "invite-revoke": [{"name": "reason", "valueString": "the wrong person"}],
}
