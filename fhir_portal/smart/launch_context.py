"""What an app is told of where it was launched: by an EHR, or by the choice of a visit.

SMART App Launch 2.2 §2.0.11. It goes with a code and then with all that the code buys: the token
response, what refreshing answers, and introspection tell it.
"""

from __future__ import annotations

from typing import Any

import msgspec


class LaunchContext(msgspec.Struct, frozen=True, kw_only=True):
    """``encounter`` is ``Encounter/<id>``; ``fhir_context`` what the EHR put into ``fhirContext``.

    ``need_patient_banner`` says that whoever launched the app does not show whose record it is.
    """

    encounter: str | None = None
    intent: str | None = None
    need_patient_banner: bool = True
    smart_style_url: str | None = None
    fhir_context: tuple[dict[str, Any], ...] = ()

    @property
    def told(self) -> dict[str, Any]:
        """The launch context parameters that are not about whose record it is."""
        found = {"intent": self.intent, "smart_style_url": self.smart_style_url}
        return {
            **{name: value for name, value in found.items() if value is not None},
            "need_patient_banner": self.need_patient_banner,
        }
