"""Authorization codes: hashed, short-lived, used once (RFC 6749 §4.1.2, RFC 9700 §2.1.1)."""

from __future__ import annotations

from typing import ClassVar, Final, Literal

from fhir_portal.consent.record import Access
from fhir_portal.records import Record
from fhir_portal.smart.authorization_details import ConsentedRecord
from fhir_portal.smart.issuer import DAY
from fhir_portal.smart.launch_context import LaunchContext

KEPT_SECONDS: Final = DAY
SEVERAL: Final = "several"


class AuthorizationCode(Record, frozen=True, kw_only=True):
    """What one code stands for; ``key`` is its hash.

    ``records`` are those of a consent for several; the other fields then name the first of them,
    and ``for_several`` is `SEVERAL` until it is used: whoever ends one of them has to find it.
    In the ``user`` context it is for what a member of staff may use, and ``patient`` is only told,
    or ``""``. ``launched`` is where the app was launched, if there is more to tell than that.
    ``until`` is the end the person chose for what it buys; the code is not good after it.
    ``dpop_jkt`` is the DPoP key that alone can exchange it (RFC 9449 §10). ``family`` is ``""``
    until the code is used, then the key of the family it bought. The row outlives the code by
    `KEPT_SECONDS`, so that a replay is known as one and ends the family.
    """

    kind: ClassVar[str] = "authorization-code"
    indexed: ClassVar[tuple[str, ...]] = (
        "account",
        "client_id",
        "patient",
        "grant",
        "for_several",
    )

    good_until: float
    client_id: str
    redirect_uri: str
    code_challenge: str
    scope: str
    account: str
    practice: str
    patient: str
    fhir_user: str
    grant: str | None
    nonce: str | None
    auth_time: float
    until: float | None = None
    dpop_jkt: str | None = None
    records: tuple[ConsentedRecord, ...] = ()
    for_several: str | None = None
    context: Literal["patient", "user"] = "patient"
    launched: LaunchContext | None = None
    family: str = ""

    @property
    def access(self) -> Access:
        """By what right of the person's it was given."""
        patient = "" if self.context == "user" else self.patient
        return self.practice, patient, self.fhir_user, self.grant
