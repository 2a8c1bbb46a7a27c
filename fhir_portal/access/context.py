"""Who is asking: one frozen value, built once per token from what the stores say now."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Literal

from fhir_portal.accounts.levels import Permission
from fhir_portal.consent.record import RecordAccess, StaffAccess
from fhir_portal.smart.scope import ScopeSet

LABEL = "label"
GRANT_WRITING = "grant-writing"


@dataclass(frozen=True, slots=True)
class AuthContext:
    """The caller of one request (SMART App Launch 2.2 §2: scopes of one context per token).

    ``record`` is the record that a person's ``patient/`` token is bound to and the relation under
    which it is used now: themselves, or a grant. ``staff`` is the practice that somebody uses a
    token in as its staff. Then ``record`` is ``None``, so that what is a person's right is never
    taken for theirs; a ``user/`` token is bound to the practice, and ``staff_patient`` is the id
    of the Patient that their ``patient/`` token is bound to. ``permissions`` are the client's own
    (``label``, ``grant-writing``). ``token`` is the token's hash: it names the token in the log.
    ``jkt`` is the DPoP key that the token is bound to. ``is_server`` says that the server itself
    acts for a practice, within what it has permitted somebody: that is nobody's token. ``share`` is
    the key of the link by which somebody outside is shown what the person may see, ``recipient``
    what they call themselves.
    """

    client: str
    context: Literal["patient", "user", "system"]
    scopes: ScopeSet
    practice: str
    expires: float
    token: str
    record: RecordAccess | None = None
    account: str | None = None
    permissions: frozenset[str] = frozenset()
    jkt: str | None = None
    staff: StaffAccess | None = None
    staff_patient: str | None = None
    is_server: bool = False
    share: str = ""
    recipient: str = field(default="", compare=False)
    decided: dict[tuple[str, str], Any] = field(
        default_factory=dict, init=False, compare=False, repr=False
    )
    """What `decide` found for (letter, type), apart from what time changes: the rest is constant
    for as long as this context is."""

    @property
    def patient(self) -> str | None:
        """The id of the Patient whose record a person uses, as themselves or by a grant."""
        return self.record.patient.partition("/")[2] if self.record else None

    @property
    def fhir_user(self) -> str | None:
        """``Patient``, ``RelatedPerson`` or ``Practitioner/<id>`` of the person using the token."""
        if self.staff is not None:
            return self.staff.fhir_user
        return self.record.fhir_user if self.record else None

    @property
    def is_self(self) -> bool:
        """Whether the person uses their own record."""
        return self.record is not None and self.record.is_own

    def may(self, permission: Permission) -> bool:
        """Whether a member of staff uses it whose access level has a permission."""
        return self.staff is not None and permission in self.staff.permissions


def acting_for(practice: str, client: str) -> AuthContext:
    """Return the server acting for a practice, because of a client or of itself (``""``).

    It is for what was decided on already, and never becomes a caller.
    """
    return AuthContext(
        client=client,
        context="system",
        scopes=ScopeSet.parse("system/*.cruds"),
        practice=practice,
        expires=math.inf,
        token="",
        permissions=frozenset({GRANT_WRITING, LABEL}),
        is_server=True,
    )
