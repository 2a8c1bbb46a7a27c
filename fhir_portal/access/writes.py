"""Who may create, update and delete what (DESIGN: the write table). It also bounds scopes.

``system/`` clients write their own practice's resources; people write the few types below, in
their own name, and everything else through operations. What is in neither table is not written.
A practice's staff read, and write nothing yet.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from fhir_portal.access.context import GRANT_WRITING, AuthContext
from fhir_portal.access.operations import person_letters, staff_letters
from fhir_portal.access.owners import DIRECTORY, OF_STAFF, OWNERS
from fhir_portal.consent.grant import IG
from fhir_portal.consent.record import RecordAccess
from fhir_portal.consent.sections import sections_of, types_in
from fhir_portal.fhir.definitions import served_types


@dataclass(frozen=True, slots=True)
class PersonWrites:
    """What the person in context may do with a type.

    ``letters`` out of ``cud``; the path that must name that person (``required``, ``""`` where the
    type has none), and paths that, where present, may name nobody else (``allowed``). ``fault``
    says what else is wrong with one, or ``""``.
    """

    letters: str
    required: str
    allowed: tuple[str, ...] = ()
    fault: Callable[[AuthContext, Mapping[str, Any]], str] | None = None


_REQUEST: Final = frozenset(
    (
        "resourceType id meta language text status serviceCategory serviceType specialty "
        "appointmentType reasonCode description comment created minutesDuration requestedPeriod "
        "participant"
    ).split()
)
_ASKED_FOR: Final = ("Practitioner/", "PractitionerRole/", "Location/", "HealthcareService/")


def request_fault(auth: AuthContext, tree: Mapping[str, Any]) -> str:
    """Return what keeps an Appointment from being a request for one, or ``""``.

    A person says what they wish for (``proposed``), or that they wait (``waitlist``): for this
    record, with whom, and when it would suit. The time itself is given by ``$hold`` and ``$book``,
    or by the practice.
    """
    if tree.get("status") not in {"proposed", "waitlist"}:
        return "a request for an appointment is proposed, or waits: book by $hold and $book"
    for name in tree:
        if name.removeprefix("_") not in _REQUEST:
            return f"a request for an appointment has no {name}"
    record = auth.record
    own = "" if record is None else record.patient
    patients = 0
    for one in tree.get("participant") or ():
        actor = one.get("actor") or {}
        text = actor.get("reference") or ""
        patients += text == own
        if text != own and one.get("status") != "needs-action":
            return "nobody but the patient has said yes to a request"
        if set(actor) - {"reference", "display"} or not (
            text in {own, auth.fhir_user} or text.startswith(_ASKED_FOR)
        ):
            return "who takes part is this patient, and whom the appointment is to be with"
    return "" if patients == 1 else f"{own} takes part, once"


PERSON_WRITES: Final[Mapping[str, PersonWrites]] = {
    "Communication": PersonWrites("c", required="sender"),
    "Appointment": PersonWrites("c", required="", fault=request_fault),
    "QuestionnaireResponse": PersonWrites("cu", required="source", allowed=("author",)),
}

NEVER_WRITTEN: Final = frozenset({"AuditEvent"})
"""Rendered from the access log, append-only for everybody."""

OPERATION_ONLY: Final = frozenset({"Subscription"})
"""Changed by operations only, also under ``system/``."""

IDENTITY: Final = frozenset({"Person"})
"""Written under ``system/`` only by clients that hold the grant-writing permission."""

SYSTEM_WRITES: Final = frozenset(served_types()) - NEVER_WRITTEN - OPERATION_ONLY


def writable(auth: AuthContext, letter: str, resource_type: str) -> str:
    """Return why this caller may not do this to this type at all, or ``""`` when it may."""
    if auth.context == "system":
        if resource_type not in SYSTEM_WRITES:
            return f"{resource_type} is not written through this API"
        if resource_type in IDENTITY and GRANT_WRITING not in auth.permissions:
            return f"this client may not write {resource_type}"
        return ""
    if auth.context != "patient" or auth.record is None:
        return "this token writes nothing"
    rule = PERSON_WRITES.get(resource_type)
    if rule is None or letter not in rule.letters:
        return f"{resource_type} is changed through the portal's operations only"
    if not auth.is_self and not (types_in(auth.record.act) & {resource_type}):
        return f"the grant does not let this person act on {resource_type}"
    return ""


def wrong_author(auth: AuthContext, tree: Mapping[str, Any]) -> str:
    """Return what is wrong with the author of a person's write, or ``""``.

    Under ``system/`` nothing is. A person writes in their own name: a proxy as the RelatedPerson
    of this very record, so that what they wrote never lands in their own record.
    """
    if auth.context == "system":
        return ""
    if tree["resourceType"] == "Communication" and _belongs_to_operations(tree):
        return "threads, their messages and what is attached are written by $send and $reply"
    rule = PERSON_WRITES[tree["resourceType"]]
    # Nothing but the reference: an identifier or a display could name somebody else.
    own = {"reference": auth.fhir_user}
    if rule.required and tree.get(rule.required) != own:
        return f"{rule.required} must be a reference to {auth.fhir_user}, and nothing more"
    for path in rule.allowed:
        if path in tree and tree[path] != own:
            return f"{path} must be a reference to {auth.fhir_user}, and nothing more"
    if rule.fault is not None and (fault := rule.fault(auth, tree)):
        return fault
    if not auth.is_self and auth.record is not None:
        sections = sections_of(tree)
        if not sections or not sections <= auth.record.act:
            return "the grant does not let this person act here"
    return ""


def _belongs_to_operations(tree: Mapping[str, Any]) -> bool:
    """Whether a Communication is of a thread, or brings a file that nobody has looked at."""
    codings = [
        coding for concept in tree.get("category") or () for coding in concept.get("coding") or ()
    ]
    return (
        "partOf" in tree
        or "inResponseTo" in tree
        or any(coding.get("system") == _PORTAL_MESSAGE for coding in codings)
        or any("data" in (one.get("contentAttachment") or {}) for one in tree.get("payload") or ())
    )


class WriteTableScopes:
    """`fhir_portal.consent.record.ScopePolicy` printed from the two tables."""

    def grantable(self, context: str, resource_type: str, record: RecordAccess | None) -> str:
        """Return the letters that a scope of this context and type can grant (``cruds`` order).

        ``record`` narrows a person's letters to the sections of the grant, and a member of staff's
        to what staff can do; ``None`` asks what anybody could be granted.
        """
        if resource_type not in _SERVED:
            return ""
        if context == "system":
            return "cruds" if resource_type in SYSTEM_WRITES else "rs"
        of_staff = record is not None and record.is_staff
        if context == "user" and (record is None or of_staff):
            return _of_staff(resource_type)
        if context != "patient" or resource_type not in OWNERS:
            return ""
        if of_staff:
            return _of_staff(resource_type)
        rule = PERSON_WRITES.get(resource_type)
        letters = "rs" + (rule.letters if rule else "") + person_letters(resource_type)
        if record is not None and not record.is_own:
            if resource_type not in _OF_ANY_SECTION | types_in(record.sections):
                # What operations of their sections need of it, which shows them none.
                named = person_letters(resource_type, record.sections)
                return "".join(letter for letter in "rs" if letter in named)
            if resource_type not in types_in(record.act):
                letters = "rs"
        return "".join(letter for letter in "cruds" if letter in letters)


def _of_staff(resource_type: str) -> str:
    """What staff read, and what lets them call operations."""
    found = set(staff_letters(resource_type)) | set("rs" if resource_type in OF_STAFF else "")
    return "".join(letter for letter in "cruds" if letter in found)


_PORTAL_MESSAGE: Final = f"{IG}/CodeSystem/portal-conversation"
_SERVED: Final = frozenset(served_types())
_OF_ANY_SECTION: Final = DIRECTORY | frozenset(
    {"AuditEvent", "Binary", "Consent", "Provenance", "RelatedPerson"}
)
"""What a proxy may see whatever the sections: the own lines, grant and RelatedPerson, and what is
seen with something else."""
