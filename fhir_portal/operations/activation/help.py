"""Where staff are told when somebody cannot go on by themselves."""

from __future__ import annotations

from typing import Final

from fhir_portal.notify.matters import QueuedMatters

MATTERS: Final = QueuedMatters()
