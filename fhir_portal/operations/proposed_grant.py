"""The grant that an invitation proposes: what somebody who acts for a patient may see and do.

It is the ``proxy-grant`` of the guide, ``proposed`` until the invitation is redeemed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final
from zoneinfo import ZoneInfo

from fhir_portal.access.visibility import Visibility
from fhir_portal.accounts.invitation import Kind
from fhir_portal.accounts.policy import PracticePolicy
from fhir_portal.accounts.practice import Practice
from fhir_portal.consent.grant import CATEGORY, read_grant
from fhir_portal.consent.presets import BASES, PRESETS, Basis, ProxyKind
from fhir_portal.consent.sections import SECTION_SYSTEM, section_displays
from fhir_portal.fhir.datetime import instant
from fhir_portal.fhir.errors import Unprocessable
from fhir_portal.operations.authorship import Author, restricted
from fhir_portal.operations.call import acting_for
from fhir_portal.operations.definition import parameter
from fhir_portal.operations.invitation_wish import ForAnother, Wish
from fhir_portal.operations.on_file import last_day_under
from fhir_portal.resources.server import Server
from fhir_portal.resources.store import ResourceTransaction, Row
from fhir_portal.resources.writing import create_in

_MICROSECONDS: Final = 1_000_000
_ACTION: Final = "http://terminology.hl7.org/CodeSystem/consentaction"
_BASES_OF: Final[Mapping[ProxyKind, frozenset[Basis]]] = {
    "guardian": frozenset({"parent", "guardian", "court-order"}),
    "representative": frozenset({"guardian", "court-order", "power-of-attorney", "consent-form"}),
    "caregiver": frozenset(BASES),
    "payer": frozenset(BASES),
}


async def propose_grant(
    transaction: ResourceTransaction,
    server: Server,
    wish: Wish,
    row: Row,
    patient: Mapping[str, Any],
    person: str,
    *,
    author: Author,
    practice: Practice,
    policy: PracticePolicy,
    now: float,
) -> Row:
    """Store the grant that an invitation proposes for one record, and return it.

    ``row`` and ``patient`` are the Patient, ``person`` is who gets it (``RelatedPerson/<id>``).
    Raises `Unprocessable`: there can be no such grant.
    """
    another = wish.another
    assert another is not None  # noqa: S101 - the caller asked
    assert wish.kind != "self"  # noqa: S101
    zone = ZoneInfo(practice.zone)
    period = {"start": another.start or datetime.fromtimestamp(now, zone).date().isoformat()}
    end = _end_of(wish.kind, another, patient, practice=practice, policy=policy, now=now)
    if end is not None:
        period["end"] = end
    basis = checked_basis(wish.kind, another, row.key.id)
    evidence = another.evidence.get(row.key.id)
    source = {"reference": evidence} if evidence else {"display": BASES[basis]}
    tree = {
        "resourceType": "Consent",
        "status": "proposed",
        "scope": _concept("http://terminology.hl7.org/CodeSystem/consentscope", "patient-privacy"),
        "category": [_concept(*CATEGORY)],
        "patient": {"reference": str(row.key)},
        "dateTime": instant(int(now * _MICROSECONDS)),
        "performer": [author.requester],
        "sourceReference": source,
        "policyRule": _concept("http://terminology.hl7.org/CodeSystem/v3-ActCode", "OPTOUT"),
        "provision": {
            "period": period,
            "actor": [
                {
                    "role": _concept(
                        "http://terminology.hl7.org/CodeSystem/v3-RoleCode", "GRANTEE"
                    ),
                    "reference": {"reference": person},
                }
            ],
            "provision": [
                {
                    "type": "permit",
                    "action": [_concept(_ACTION, "access")]
                    + ([_concept(_ACTION, "correct")] if act else []),
                    "code": [_concept(SECTION_SYSTEM, section)],
                }
                for section, act in checked_sections(wish.kind, another.sections)
            ],
        },
    }
    # Read as it will be read when it is active, so that nobody redeems what conveys nothing.
    grant = read_grant(tree | {"id": "x", "status": "active"}, practice=practice.key, zone=zone)
    place = parameter("period")
    if grant is None:
        message = "a grant cannot have this period"
        raise Unprocessable(message, expression=place)
    if grant.end is None and wish.kind == "representative":
        message = "a representative's access has an end"
        raise Unprocessable(message, expression=place)
    if grant.end is not None and grant.end <= max(now, grant.start or 0.0):
        message = "the period has ended, or ends before it begins"
        raise Unprocessable(message, expression=place)
    written = await create_in(
        transaction, server, acting_for(practice.key, author.client),
        {**tree, "meta": restricted()},
        Visibility.of_server("Consent", practice=practice.key),
        resource_id=server.new_id(),
    )  # fmt: skip
    return written.row


def _end_of(
    kind: Kind,
    another: ForAnother,
    patient: Mapping[str, Any],
    *,
    practice: Practice,
    policy: PracticePolicy,
    now: float,
) -> str | None:
    """Return the end of a grant: a guardian's, by age, comes when the child is grown."""
    if kind != "guardian":
        return another.end
    grown = last_day_under(policy.adult_age, patient.get("birthDate"))
    today = datetime.fromtimestamp(now, ZoneInfo(practice.zone)).date().isoformat()
    if another.basis == "parent":
        if grown is None:
            message = "the patient's birth date is not recorded: a parent's access has to end"
            raise Unprocessable(message)
        if grown < today:
            message = "the patient is of age: invite a representative, on evidence"
            raise Unprocessable(message, expression=parameter("basis"))
        return min(another.end or grown, grown)
    if another.end is None and (grown is None or grown < today):
        message = "the access of a guardian of somebody who is of age has an end"
        raise Unprocessable(message, expression=parameter("period"))
    return another.end or grown


def checked_sections(kind: Kind, given: Sequence[tuple[str, bool]]) -> tuple[tuple[str, bool], ...]:
    """Return the sections of a grant, and in which to act; of the preset if none are given.

    Raises `Unprocessable` for what is no section, is said twice, or is not for the kind.
    """
    if kind == "self":
        return ()
    preset = PRESETS[kind]
    if not given:
        return tuple((section, section in preset.act) for section in preset.see)
    place = parameter("section")
    if len({section for section, _ in given}) < len(given):
        message = "a section is given twice"
        raise Unprocessable(message, expression=place)
    for section, act in given:
        if section not in section_displays():
            message = f"there is no section '{section[:40]}'"
            raise Unprocessable(message, expression=place)
        if section not in preset.most or (act and section not in preset.most_act):
            message = f"a {kind} is not given this in the section '{section}'"
            raise Unprocessable(message, expression=place)
    return tuple(given)


def checked_basis(kind: Kind, another: ForAnother, patient: str) -> Basis:
    """Return on what a grant stands. Raises `Unprocessable` where that is not enough."""
    basis = another.basis
    if kind == "self" or basis is None:
        message = "say on what the access stands"
        raise Unprocessable(message, expression=parameter("basis"))
    if basis not in _BASES_OF[kind]:
        message = f"the access of a {kind} does not stand on '{basis}'"
        raise Unprocessable(message, expression=parameter("basis"))
    if kind == "representative" and patient not in another.evidence:
        message = "a representative's access needs a DocumentReference of the patient as evidence"
        raise Unprocessable(message, expression=parameter("evidence"))
    return basis


def _concept(system: str, code: str) -> dict[str, Any]:
    return {"coding": [{"system": system, "code": code}]}
