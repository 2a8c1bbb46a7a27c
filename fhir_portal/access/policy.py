"""The one decision: scopes, relation to the record, access level, labels and the write table.

`decide` is asked once per resource type that a request touches: the searched type, each
``_include`` and ``_revinclude``, each entry of a batch. It answers with data: what may be seen,
which the stores compile into the query, or why not, which goes to the access log.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import msgspec

from fhir_portal.access.context import GRANT_WRITING, AuthContext
from fhir_portal.access.operations import ANY_SECTION, OPERATIONS, OperationRule
from fhir_portal.access.owners import DERIVED, DIRECTORY, OF_STAFF, OWNERS, Directory
from fhir_portal.access.visibility import NO_SECTION, Visibility
from fhir_portal.access.writes import writable
from fhir_portal.consent.labels import OWN_GRANT_LABELS, PROXY_LABELS, SELF_LABELS, staff_labels
from fhir_portal.consent.record import StaffAccess
from fhir_portal.consent.sections import section_displays
from fhir_portal.fhir.definitions import served_types
from fhir_portal.fhir.errors import FhirError
from fhir_portal.search.criterion import Criterion
from fhir_portal.search.request import parse_query
from fhir_portal.smart.scope import Scope


class Ask(msgspec.Struct, frozen=True):
    """One question: a letter out of ``cruds`` (SMART App Launch 2.2 §2.0.2) on a type, now."""

    letter: str
    resource_type: str
    at: float


class Permit(msgspec.Struct, frozen=True):
    """The caller may, within this visibility."""

    visible: Visibility


class Deny(msgspec.Struct, frozen=True):
    """The caller may not. The reason speaks of the token and the type, never of stored data."""

    reason: str


def decide(auth: AuthContext, ask: Ask) -> Permit | Deny:
    """Decide one question; what nothing permits is denied."""
    if ask.resource_type not in _SERVED:
        return Deny("there is no such resource type here")
    if ask.at >= auth.expires:
        return Deny("the access token has expired")
    record = auth.record
    if record is not None and record.until is not None and ask.at >= record.until:
        return Deny("the grant has ended")
    if ask.letter in "cud":
        reason = writable(auth, ask.letter, ask.resource_type)
        if reason:
            return Deny(reason)
    return _within(auth, ask.letter, ask.resource_type)


def decide_operation(auth: AuthContext, operation: str, at: float) -> Permit | Deny:
    """Decide whether a caller may carry out an operation now; what no rule permits is denied.

    A permit's visibility is that of the resource the operation is called on, so that an absent one
    and one of another record are answered alike. Staff need the permission of the operation alone:
    nothing implies anything else, and no answer holds more than the operation is for.
    """
    rule = OPERATIONS.get(operation)
    if rule is None:
        return Deny(f"${operation} is not offered")
    if at >= auth.expires:
        return Deny("the access token has expired")
    record = auth.record
    if record is not None and record.until is not None and at >= record.until:
        return Deny("the grant has ended")
    reason = _not_called_by(auth, rule)
    if reason:
        return Deny(reason)
    if rule.section == ANY_SECTION and auth.patient is not None and auth.staff is None:
        # That the record is there is known to whoever holds a token for it.
        known: Permit | None = auth.decided.get((ANY_SECTION, rule.target))
        if known is None:
            whole = Visibility.of_record(
                rule.target, practice=auth.practice, record=auth.patient, sections=None, labels=None
            )
            known = auth.decided[ANY_SECTION, rule.target] = Permit(whole.own())
        return known
    for letter, name in rule.letters:
        # Part of a type is not enough: what an operation writes is not held against criteria.
        if _granted(auth, letter, name) is not None:
            return Deny(f"no scope grants {letter} on all of {name}")
    if rule.target in OPERATION_TARGETS:
        if auth.staff_patient is not None:
            return Deny(f"{rule.target} is not part of a patient's record")
        practice = auth.practice
        return Permit(Visibility.of_practice(rule.target, practice=practice, labels=None).own())
    if auth.staff is not None and not rule.shows:
        return _where_staff_work(auth, auth.staff, rule.target, None)
    found = _within(auth, "r", rule.target)
    if isinstance(found, Deny) or rule.target in DIRECTORY:
        return found  # what all practices share is used in each of them
    return Permit(found.visible.own())


def decide_part(auth: AuthContext, operation: str, section: str) -> Deny | None:
    """Return why a person may not do this part of an operation for any section, if they may not.

    `decide_operation` has let them call it: that they see some section is all that says.
    """
    rule = OPERATIONS[operation]
    reason = _not_called_by(auth, replace(rule, section=section))
    if reason:
        return Deny(reason)
    for letter, name in rule.parts[section]:
        if _granted(auth, letter, name) is not None:
            return Deny(f"no scope grants {letter} on all of {name}")
    return None


def _not_called_by(auth: AuthContext, rule: OperationRule) -> str:
    """Return why this kind of caller may not call an operation, or ``""`` when it may."""
    if auth.context == "system":
        if not rule.system:
            return "this operation is for people"
        if rule.grant_writing and GRANT_WRITING not in auth.permissions:
            return "this client may not give access to anybody"
        return ""
    if auth.staff is not None:
        if rule.staff is None:
            return "this operation is not for a practice's staff"
        return "" if auth.may(rule.staff) else f"this access level does not hold '{rule.staff}'"
    if rule.section is None or auth.record is None:
        return "this operation is for a practice"
    if auth.is_self:
        return ""
    if auth.share and not rule.acts:
        return ""  # the link's sections bound each type it reads
    if rule.section == ANY_SECTION:
        return ""
    if rule.section not in (auth.record.sections or ()):
        return f"the grant does not show this person '{rule.section}'"
    if rule.acts and rule.section not in auth.record.act:
        return f"the grant does not let this person act in '{rule.section}'"
    return ""


def _within(auth: AuthContext, letter: str, resource_type: str) -> Permit | Deny:
    """The part of the decision that time does not change, remembered with its context."""
    found: Permit | Deny | None = auth.decided.get((letter, resource_type))
    if found is None:
        found = auth.decided[letter, resource_type] = _decided(auth, letter, resource_type)
    return found


def _decided(auth: AuthContext, letter: str, resource_type: str) -> Permit | Deny:
    any_of = _granted(auth, letter, resource_type)
    if auth.context == "system":
        if any_of == ():
            return Deny(f"no scope grants {letter} on {resource_type}")
        visible = Visibility.of_practice(
            resource_type, practice=auth.practice, labels=None, any_of=any_of
        )
        # What all practices share is read by each, and written by none of them.
        return Permit(visible.own() if letter in "cud" else visible)
    if auth.staff is not None:
        return _as_staff(auth, auth.staff, letter, resource_type, any_of)
    if auth.context != "patient" or auth.record is None or auth.patient is None:
        return Deny("no patient in the launch context")
    own = _own_identity(auth, letter, resource_type) if any_of == () else None
    if own is not None:
        return Permit(own)
    if any_of == ():
        return Deny(f"no scope grants {letter} on {resource_type}")
    rule = OWNERS.get(resource_type)
    if rule is None:
        return Deny(f"{resource_type} is not part of a patient's record")
    if isinstance(rule, Directory):
        return Permit(
            Visibility.of_directory(
                resource_type, practice=auth.practice, referrers=_referrers(auth), any_of=any_of
            )
        )
    return Permit(_of_record(auth, resource_type, any_of))


def _of_record(
    auth: AuthContext, resource_type: str, any_of: tuple[tuple[Criterion, ...], ...] | None
) -> Visibility:
    record, patient = auth.record, auth.patient
    assert record is not None  # noqa: S101 - narrowed by the caller
    assert patient is not None  # noqa: S101
    ids: frozenset[str] | None = None
    sections = record.sections
    labels = SELF_LABELS if auth.is_self else PROXY_LABELS
    if not auth.is_self:
        # A proxy sees only the own RelatedPerson and grant, whatever the sections say.
        if resource_type == "RelatedPerson":
            ids, sections = frozenset({record.fhir_user.partition("/")[2]}), None
        elif resource_type == "Consent":
            ids, sections = frozenset({(record.grant or "/").partition("/")[2]}), None
            labels = OWN_GRANT_LABELS
        elif resource_type == "AuditEvent":
            sections = None  # bounded to the own lines where the log is read
    if record.is_settling and resource_type not in _SHOWN_MEANWHILE:
        sections = frozenset()
    return Visibility.of_record(
        resource_type,
        practice=auth.practice,
        record=patient,
        sections=sections,
        labels=labels,
        any_of=any_of,
        ids=ids,
    )


def _as_staff(
    auth: AuthContext,
    staff: StaffAccess,
    letter: str,
    resource_type: str,
    any_of: tuple[tuple[Criterion, ...], ...] | None,
) -> Permit | Deny:
    """All records of the practice, or the one a ``patient/`` token is bound to; all labels.

    Without the permission to view there is nothing but the own Practitioner. Who looked at what is
    for those with the permission to audit, by a token for the whole practice.
    """
    views = auth.may("view")
    own = _own_practitioner(auth, letter, resource_type) if any_of == () or not views else None
    if own is not None:
        return Permit(own)
    if not views:
        return Deny(f"the access level '{staff.level}' does not let its holders read records")
    if any_of == ():
        return Deny(f"no scope grants {letter} on {resource_type}")
    if resource_type == "AuditEvent" and auth.context == "user" and auth.may("audit"):
        practice = auth.practice
        log = Visibility.of_practice(resource_type, practice=practice, labels=None, any_of=any_of)
        return Permit(log.own())
    if resource_type not in OF_STAFF:
        return Deny(f"{resource_type} is not for a practice's staff")
    if resource_type in DIRECTORY:
        labels = staff_labels(staff.permissions)
        return Permit(
            Visibility.of_practice(
                resource_type, practice=auth.practice, labels=labels, any_of=any_of
            )
        )
    return _where_staff_work(auth, staff, resource_type, any_of)


def _where_staff_work(
    auth: AuthContext,
    staff: StaffAccess,
    resource_type: str,
    any_of: tuple[tuple[Criterion, ...], ...] | None,
) -> Permit | Deny:
    """All records of the practice, or the one that the token is bound to.

    Of what is for staff with a permission (`FOR_STAFF`) others see nothing.
    """
    practice, labels = auth.practice, staff_labels(staff.permissions)
    # A derived row that nobody classified may follow what is no patient's, such as a Person.
    sections = _ANY_SECTION if resource_type in DERIVED else None
    if auth.context == "user":
        whole = Visibility.of_practice(
            resource_type, practice=practice, labels=labels, any_of=any_of
        )
        return Permit(replace(whole.own(), sections=sections))
    if auth.staff_patient is None:
        return Deny("no patient in the launch context")
    return Permit(
        Visibility.of_record(
            resource_type,
            practice=practice,
            record=auth.staff_patient,
            sections=sections,
            labels=labels,
            any_of=any_of,
        )
    )


def _own_practitioner(auth: AuthContext, letter: str, resource_type: str) -> Visibility | None:
    """What `_own_identity` is for a person."""
    name, _, own_id = (auth.fhir_user or "").partition("/")
    if letter != "r" or name != resource_type or "fhirUser" not in auth.scopes.identity:
        return None
    own = Visibility.of_practice(resource_type, practice=auth.practice, labels=None).own()
    return own.only({own_id})


def _own_identity(auth: AuthContext, letter: str, resource_type: str) -> Visibility | None:
    """With the ``fhirUser`` scope a token may read exactly that resource (SMART 2.2 §5.1)."""
    user = auth.fhir_user
    if letter != "r" or user is None or "fhirUser" not in auth.scopes.identity:
        return None
    name, _, own_id = user.partition("/")
    if name != resource_type:
        return None
    return _of_record(auth, resource_type, None).only({own_id})


def _referrers(auth: AuthContext) -> tuple[Visibility, ...]:
    """What this token can see that may refer to directory types."""
    found = []
    for name in OWNERS:
        if name in DIRECTORY:
            continue
        for letter in "rs":
            permit = _within(auth, letter, name)
            if isinstance(permit, Permit):
                found.append(permit.visible)
                break
    return tuple(found)


def _granted(
    auth: AuthContext, letter: str, resource_type: str
) -> tuple[tuple[Criterion, ...], ...] | None:
    """The conjunctions that granular scopes allow: ``None`` for all rows, ``()`` for no scope."""
    found: list[tuple[Criterion, ...]] = []
    for scope in auth.scopes.resource:
        if scope.context == auth.context and scope.allows(letter, resource_type):
            if not scope.query:
                return None
            found.append(parse_query(resource_type, scope.query))
    if len(found) > _MAX_GRANULAR:
        return ()
    return tuple(dict.fromkeys(found))


OPERATION_TARGETS: Final = frozenset({"Person"})
"""Types that operations are called on though nobody but an EHR may read them: no answer of these
operations holds the resource."""

_ANY_SECTION: Final = frozenset(section_displays()) | {NO_SECTION}

_MAX_GRANULAR: Final = 100
"""Granular scopes on one type; a token with more of them sees nothing of it."""


_SHOWN_MEANWHILE: Final = frozenset({"Patient", "RelatedPerson", "Consent"})
"""Who somebody is and what they were granted: shown while labels are computed anew, too."""

_SERVED = frozenset(served_types())


def understands(scope: Scope) -> bool:
    """Whether a granular scope can be enforced: its parameters exist and are indexed."""
    if not scope.query:
        return True
    try:
        parse_query(scope.resource_type, scope.query)
    except FhirError:
        return False
    return True
