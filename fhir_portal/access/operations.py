"""Who may call which operation: one row for each, held against the caller before anything is read.

The rows say what no OperationDefinition can: which letters of a scope an operation needs (SMART App
Launch 2.2 has no scopes for operations), which permission of an access level, and whether an EHR
may call it with a ``system/`` token. What nobody wrote a row for is offered to nobody.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from fhir_portal.accounts.levels import Permission
from fhir_portal.accounts.policy import Feature

ANY_SECTION: Final = "*"


@dataclass(frozen=True, slots=True)
class OperationRule:
    """``target`` is the type the operation is called on, ``letters`` are letter and type in pairs.

    ``staff`` is the permission that a member of staff needs; ``None``: it is not for them.
    ``system`` says whether an EHR may call it in its practice, ``grant_writing`` that its client
    then needs the grant-writing permission: it gives access to somebody, or ends a grant.
    ``shows`` says that the answer holds resources, or counts them: staff see that only if their
    level lets them view, too.
    ``feature`` is what a practice may have switched off for its patients.
    ``section`` is the portal section in which patients, and proxies who see it, may call it;
    ``None``: it is not for them; `ANY_SECTION`: whoever sees any, and
    the letters are for others alone. With ``acts`` a proxy must be allowed to act there.
    ``parts`` are, of an operation for any section, the sections that it decides on one by one
    (`fhir_portal.access.policy.decide_part`), each with its letters.
    """

    target: str
    letters: tuple[tuple[str, str], ...]
    staff: Permission | None = None
    system: bool = True
    grant_writing: bool = False
    shows: bool = False
    section: str | None = None
    acts: bool = True
    feature: Feature | None = None
    parts: Mapping[str, tuple[tuple[str, str], ...]] = field(default_factory=dict)

    def letters_in(self, sections: frozenset[str] | None) -> tuple[tuple[str, str], ...]:
        """Return the letters that patients need, in these sections alone (``None``: in any)."""
        if self.section is None:
            return ()
        if sections is None or self.section in sections:
            return self.letters
        return tuple(
            one for name in sorted(self.parts.keys() & sections) for one in self.parts[name]
        )

    @property
    def by_type(self) -> tuple[tuple[str, str], ...]:
        """Each type with all the letters needed on it, as a scope writes them."""
        found: dict[str, str] = {}
        for letter, name in self.letters:
            found[name] = found.get(name, "") + letter
        return tuple(
            (name, "".join(one for one in "cruds" if one in letters))
            for name, letters in found.items()
        )


_ON_PERSON: Final = (("r", "Person"), ("u", "Person"))
_MERGING: Final = (
    ("r", "Patient"),
    *(("u", name) for name in ("Patient", "Person", "RelatedPerson", "Consent", "Task")),
)

_CHANGING: Final = (("r", "Appointment"), ("c", "Appointment"), ("u", "Appointment"))
_ON_APPOINTMENTS: Final = OperationRule(
    "Appointment", _CHANGING, staff="appointments", shows=True, section="appointments"
)
_APPOINTMENTS: Final = {
    "find": OperationRule(
        "Appointment",
        (("r", "Appointment"), ("s", "Appointment")),
        staff="appointments",
        section="appointments",
        acts=False,
    ),
    "hold": _ON_APPOINTMENTS,
    "book": _ON_APPOINTMENTS,
    "check-in": OperationRule(
        "Appointment",
        (("r", "Appointment"), ("u", "Appointment")),
        staff="appointments",
        shows=True,
        section="appointments",
    ),
    "calendar": OperationRule(
        "Appointment",
        (("r", "Appointment"),),
        staff="appointments",
        shows=True,
        section="appointments",
        acts=False,
    ),
}

_BILLS: Final = {
    "amount-due": OperationRule(
        "Invoice",
        (("r", "Invoice"), ("r", "PaymentNotice")),
        staff="billing",
        section="billing",
        acts=False,
    ),
    "pay": OperationRule(
        "Invoice",
        (("r", "Invoice"), ("c", "PaymentNotice")),
        system=False,
        section="billing",
        feature="bill-pay",
    ),
    "payment": OperationRule(
        "Invoice",
        (("r", "Invoice"), ("r", "PaymentNotice")),
        system=False,
        section="billing",
        acts=False,
    ),
    "balance": OperationRule(
        "Account",
        (("r", "Account"), ("r", "Invoice"), ("s", "Invoice"), ("r", "PaymentNotice")),
        staff="billing",
        shows=True,
        section="billing",
        acts=False,
    ),
    "payments": OperationRule("Invoice", (("r", "Invoice"),), staff="billing"),
    "dispute": OperationRule(
        "Invoice", (("r", "Invoice"), ("c", "Task")), system=False, section="billing"
    ),
    "answer-dispute": OperationRule(
        "Task", (("r", "Task"), ("u", "Task")), staff="billing", system=False
    ),
    "payment-plan": OperationRule(
        "Invoice",
        (("r", "Invoice"), ("r", "PaymentNotice"), ("c", "Task")),
        staff="billing",
        system=False,
        section="billing",
        feature="bill-pay",
    ),
    "cancel-plan": OperationRule(
        "Task", (("r", "Task"), ("u", "Task")), staff="billing", system=False, section="billing"
    ),
    "receipt": OperationRule(
        "PaymentNotice",
        (("r", "PaymentNotice"), ("r", "Invoice")),
        staff="billing",
        section="billing",
        acts=False,
    ),
}

_DOCUMENTS: Final = {
    "summary": OperationRule(
        "Patient",
        (("r", "Patient"),),
        staff="view",
        shows=True,
        section="health-summary",
        acts=False,
    ),
    "ccd": OperationRule(
        "Patient", (("r", "Patient"),), staff="view", shows=True, section="documents", acts=False
    ),
    "immunization-certificate": OperationRule(
        "Patient",
        (("r", "Patient"), ("s", "Immunization")),
        staff="view",
        shows=True,
        section="immunizations",
        acts=False,
    ),
    "health-cards-issue": OperationRule(
        "Patient",
        (("r", "Patient"), ("s", "Immunization")),
        staff="view",
        shows=True,
        section="immunizations",
        acts=False,
    ),
    "docref": OperationRule(
        "DocumentReference",
        (("r", "DocumentReference"), ("s", "DocumentReference")),
        staff="view",
        shows=True,
        section="documents",
        acts=False,
    ),
    "render": OperationRule(
        "DocumentReference",
        (("r", "DocumentReference"),),
        staff="view",
        shows=True,
        section="documents",
        acts=False,
    ),
    "upload": OperationRule(
        "DocumentReference",
        (("r", "DocumentReference"), ("c", "DocumentReference")),
        system=False,
        section="documents",
    ),
    "review-document": OperationRule(
        "DocumentReference",
        (("r", "DocumentReference"), ("u", "DocumentReference"), ("u", "Task")),
        staff="documents",
    ),
}

_ON_MESSAGES: Final = (("r", "Communication"), ("c", "Communication"))
_WRITTEN: Final = OperationRule(
    "Communication",
    _ON_MESSAGES,
    staff="messages",
    system=False,
    section="messages",
    feature="messages",
)
_READ: Final = OperationRule(
    "Communication",
    (("r", "Communication"),),
    staff="messages",
    system=False,
    section="messages",
    acts=False,
)
_OF_DESK: Final = OperationRule(
    "Communication",
    (("r", "Communication"), ("u", "Communication")),
    staff="messages",
    system=False,
)
_MESSAGES: Final = {
    "message-options": _READ,
    "send": _WRITTEN,
    "reply": _WRITTEN,
    "mark-read": _READ,
    "close": _WRITTEN,
    "reopen": _WRITTEN,
    "assign": _OF_DESK,
    "thread": _READ,
    "threads": _READ,
    "message-events": _READ,
    "attachment": _READ,
    "save-draft": _WRITTEN,
    "drafts": _READ,
    "discard-draft": _WRITTEN,
    "file-attachment": OperationRule(
        "Communication",
        (("r", "Communication"), ("c", "DocumentReference")),
        staff="documents",
        system=False,
    ),
    "request-refill": OperationRule(
        "MedicationRequest",
        (("r", "MedicationRequest"), ("c", "MedicationRequest")),
        system=False,
        section="medications",
        feature="refills",
    ),
    "refill-status": OperationRule(
        "MedicationRequest",
        (("r", "MedicationRequest"),),
        system=False,
        section="medications",
        acts=False,
    ),
    "answer-refill": OperationRule(
        "Task", (("r", "Task"), ("u", "Task")), staff="messages", system=False
    ),
}

_ON_FORM_TASK: Final = (("r", "Task"), ("u", "Task"))
_FORMS: Final = {
    "request-form": OperationRule(
        "Patient", (("r", "Patient"), ("r", "Questionnaire"), ("c", "Task")), staff="forms"
    ),
    "cancel-form": OperationRule("Task", _ON_FORM_TASK, staff="forms"),
    "populate": OperationRule(
        "Questionnaire",
        (("r", "Questionnaire"), ("r", "QuestionnaireResponse")),
        staff="forms",
        shows=True,
        section="forms",
        acts=False,
        feature="forms",
    ),
    "next-question": OperationRule(
        "Questionnaire",
        (("r", "Questionnaire"), ("r", "QuestionnaireResponse")),
        staff="forms",
        shows=True,
        section="forms",
        acts=False,
    ),
    "extract": OperationRule(
        "QuestionnaireResponse",
        (("r", "QuestionnaireResponse"), ("c", "Task")),
        staff="forms",
        shows=True,
    ),
    "review-form": OperationRule(
        "Task",
        (
            *_ON_FORM_TASK,
            ("u", "Patient"),
            *(
                ("c", name)
                for name in (
                    *("AllergyIntolerance", "Condition", "Coverage"),
                    *("FamilyMemberHistory", "MedicationStatement"),
                )
            ),
        ),
        staff="forms",
    ),
}

_PROPOSED: Final = {
    "demographics": (("r", "Patient"), ("u", "Patient")),
    "insurance": (("r", "Coverage"), ("c", "Coverage")),
    "medications": (("r", "MedicationRequest"), ("c", "MedicationStatement")),
}
_PROPOSALS: Final = {
    "propose-update": OperationRule(
        "Patient",
        tuple(one for letters in _PROPOSED.values() for one in letters),
        system=False,
        section=ANY_SECTION,
        parts=_PROPOSED,
    ),
    "cancel-proposal": OperationRule(
        "Task",
        (("r", "Task"), *(one for letters in _PROPOSED.values() for one in letters)),
        system=False,
        section=ANY_SECTION,
        parts={name: (("r", "Task"), *letters) for name, letters in _PROPOSED.items()},
    ),
    "prove-contact": OperationRule(
        "Task",
        (("r", "Task"), *_PROPOSED["demographics"]),
        system=False,
        section=ANY_SECTION,
        parts={"demographics": (("r", "Task"), *_PROPOSED["demographics"])},
    ),
    "review-proposal": OperationRule(
        "Task",
        (
            *_ON_FORM_TASK,
            ("u", "Patient"),
            ("c", "Coverage"),
            ("u", "Coverage"),
            ("c", "DocumentReference"),
            ("c", "MedicationStatement"),
        ),
        staff="forms",
    ),
}

_SHARED: Final = (("r", "Patient"), ("r", "DocumentReference"))
_SHARING: Final = {
    # A scope that only reads shows nothing to others: sharing needs the letter that adds.
    "share-link": OperationRule(
        "Patient", (*_SHARED, ("c", "DocumentReference")), system=False, section="documents"
    ),
    "share-links": OperationRule("Patient", _SHARED, system=False, section="documents", acts=False),
    "end-share": OperationRule(
        "Patient", (*_SHARED, ("c", "DocumentReference")), system=False, section="documents"
    ),
    "transmit": OperationRule(
        "DocumentReference",
        (*_SHARED, ("c", "DocumentReference")),
        system=False,
        section="documents",
    ),
    "transmit-options": OperationRule(
        "Patient", _SHARED, system=False, section="documents", acts=False
    ),
    "transmissions": OperationRule(
        "Patient", _SHARED, system=False, section="documents", acts=False
    ),
}

_BY_HAND: Final = OperationRule(
    "Patient", (("r", "Patient"), ("u", "Patient")), staff="documents", system=False
)
_LABELS: Final = {
    "label-rules": OperationRule("Patient", (("r", "Patient"),), staff="view"),
    # Its preview counts what is in records, and it answers what $label-rules does: that is to view.
    "set-label-rules": OperationRule(
        "Patient",
        (("r", "Patient"), ("u", "Patient")),
        staff="administer",
        system=False,
        shows=True,
    ),
    # What it lists is what the caller could search for, type by type.
    "labelled": OperationRule("Patient", (("r", "Patient"),), staff="view"),
    "labels": OperationRule("Patient", (("r", "Patient"),), staff="view"),
    "label": _BY_HAND,
    "release": _BY_HAND,
    "hold-back": _BY_HAND,
}

OPERATIONS: Final[Mapping[str, OperationRule]] = {
    "portal-account": OperationRule("Person", (("r", "Person"),), staff="view"),
    "account-disable": OperationRule("Person", _ON_PERSON, staff="revoke"),
    "account-enable": OperationRule("Person", _ON_PERSON, staff="administer", grant_writing=True),
    "require-credential-renewal": OperationRule("Person", _ON_PERSON, staff="recover"),
    "end-session": OperationRule("Person", _ON_PERSON, staff="revoke"),
    "revoke-app": OperationRule("Person", _ON_PERSON, staff="revoke"),
    "portal-accounts": OperationRule("Person", (("r", "Person"), ("s", "Person")), staff="view"),
    "merge": OperationRule("Patient", _MERGING, staff="administer", grant_writing=True, shows=True),
    "undo-merge": OperationRule("Patient", _MERGING, staff="administer", grant_writing=True),
    "portal-invite": OperationRule(
        "Patient",
        (
            ("r", "Patient"),
            ("c", "Task"),
            ("c", "RelatedPerson"),
            ("r", "RelatedPerson"),
            ("c", "Consent"),
        ),
        staff="invite",
    ),
    "invite-resend": OperationRule("Task", (("r", "Task"), ("u", "Task")), staff="invite"),
    "invite-revoke": OperationRule("Task", (("r", "Task"), ("u", "Task")), staff="revoke"),
    "print-instructions": OperationRule("Task", (("r", "Task"), ("u", "Task")), staff="invite"),
    "match": OperationRule(
        "Patient", (("r", "Patient"), ("s", "Patient")), staff="invite", shows=True
    ),
    "start-recovery": OperationRule("Person", _ON_PERSON, staff="recover", system=False),
    "approve-recovery": OperationRule("Person", _ON_PERSON, staff="recover", system=False),
    "portal-people": OperationRule(
        "Patient", (("r", "Patient"), ("r", "Person"), ("r", "RelatedPerson")), staff="view"
    ),
    "confirm-proxy": OperationRule(
        "Task", (("r", "Task"), ("u", "Task")), staff="proxies", system=False
    ),
    "cancel-recovery": OperationRule("Person", _ON_PERSON, staff="recover", system=False),
    **_APPOINTMENTS,
    **_BILLS,
    # Each part of its answer is decided on by itself.
    "portal-dashboard": OperationRule(
        "Patient", (("r", "Patient"),), staff="view", section=ANY_SECTION, acts=False
    ),
    # What it holds is what the caller could search for, type by type.
    "export-self": OperationRule(
        "Patient",
        (("r", "Patient"),),
        staff="view",
        system=False,
        shows=True,
        section=ANY_SECTION,
        acts=False,
    ),
    # Which Tasks there are to be done is for the permission that each one's tag names.
    "task-done": OperationRule("Task", (("r", "Task"), ("u", "Task")), staff="view"),
    **_DOCUMENTS,
    "account-close": OperationRule(
        "Person",
        (*_ON_PERSON, ("u", "Consent"), ("u", "Task")),
        staff="administer",
        grant_writing=True,
    ),
    "end-grant": OperationRule(
        "Consent", (("r", "Consent"), ("u", "Consent")), staff="proxies", grant_writing=True
    ),
    **_MESSAGES,
    **_FORMS,
    **_PROPOSALS,
    **_SHARING,
    **_LABELS,
}


def person_letters(resource_type: str, sections: frozenset[str] | None = None) -> str:
    """Return the letters on a type that operations for patients need (``cruds`` order).

    With ``sections`` only those that are called in one of them. What of them no plain interaction
    is for can be granted under ``patient/`` for that alone.
    """
    found = {
        letter
        for rule in OPERATIONS.values()
        for letter, name in rule.letters_in(sections)
        if name == resource_type
    }
    return "".join(letter for letter in "cruds" if letter in found)


def staff_letters(resource_type: str) -> str:
    """Return the letters on a type that operations for staff need (``cruds`` order).

    They can be granted under ``user/`` for that alone: by a plain interaction staff change nothing.
    """
    found = {
        letter
        for rule in OPERATIONS.values()
        if rule.staff is not None
        for letter, name in rule.letters
        if name == resource_type
    }
    return "".join(letter for letter in "cruds" if letter in found)
