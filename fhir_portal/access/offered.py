"""What a practice offers its patients on the portal, and what it has switched off."""

from __future__ import annotations

from fhir_portal.access.context import AuthContext
from fhir_portal.accounts.policy import Feature, policy_of
from fhir_portal.fhir.errors import NotOfferedHere
from fhir_portal.records import RecordReader

WORDS = {
    "bill-pay": "paying bills",
    "messages": "writing to the practice",
    "forms": "filling in forms",
    "refills": "asking for more of a medicine",
}


async def require_offered(reader: RecordReader, auth: AuthContext, feature: Feature) -> None:
    """Refuse patients, and who acts for them, what their practice does not offer here.

    Staff and systems of the practice go on. Raises `NotOfferedHere`.
    """
    if auth.record is None:
        return
    policy = await policy_of(reader, auth.practice)
    if feature not in policy.features:
        message = f"this practice does not offer {WORDS[feature]} on the portal: ask it"
        raise NotOfferedHere(message)
