"""A practice's staff: who they are as callers, and what is stored of them."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import Any

from fhir_portal.access.context import AuthContext
from fhir_portal.accounts.levels import AccessLevel, level_key
from fhir_portal.accounts.staff import StaffMember, staff_key
from fhir_portal.consent.record import RecordAccess, StaffAccess
from fhir_portal.records import Record
from fhir_portal.smart.client import Client
from fhir_portal.smart.scope import ScopeSet
from fhir_portal.smart.token import AccessToken
from tests.builders import (
    DERM,
    FAMILY,
    START,
    a_client,
    a_practice,
    an_access_token,
    changed,
    oneself,
)

CHART = "chart"
"""The client that staff use, approved at both practices."""
USER_SCOPE = "openid fhirUser user/*.cruds"
PATIENT_SCOPE = "openid fhirUser patient/*.cruds"


def a_member_of_staff(
    practitioner: str = "desk",
    practice: str = DERM,
    *,
    patient: str | None = None,
    scope: str | None = None,
    account: str | None = None,
    level: str = "read",
    permissions: Collection[str] = ("view",),
) -> AuthContext:
    """Somebody with a ``user/`` token, or with a ``patient/`` token bound to ``patient``."""
    return AuthContext(
        client=CHART,
        context="user" if patient is None else "patient",
        scopes=ScopeSet.parse(scope or (USER_SCOPE if patient is None else PATIENT_SCOPE)),
        practice=practice,
        expires=START + 1e8,
        token="",
        account=account or practitioner,
        staff=StaffAccess(
            practice=practice,
            practice_name=a_practice(practice).name,
            fhir_user=f"Practitioner/{practitioner}",
            name=practitioner,
            level=level,
            permissions=frozenset(permissions),
        ),
        staff_patient=patient,
    )


def staff_record(patient: str, practice: str = DERM, *, practitioner: str = "desk") -> RecordAccess:
    """How a member of staff uses one record."""
    own = oneself(patient, practice).record
    assert own is not None
    fhir_user = f"Practitioner/{practitioner}"
    return replace(own, relation="staff", fhir_user=fhir_user, act=frozenset())


def a_staff_token(name: str, auth: AuthContext) -> AccessToken:
    """The stored token under which a member of staff comes in."""
    token = an_access_token(name, auth)
    if auth.staff_patient is not None:
        token = changed(token, patient=f"Patient/{auth.staff_patient}")
    return token


def a_membership(
    account: str = "desk", practice: str = DERM, practitioner: str = "desk", level: str = "read"
) -> StaffMember:
    return StaffMember(
        key=staff_key(practice, account),
        account=account,
        practice=practice,
        practitioner=f"Practitioner/{practitioner}",
        added=START,
        level=level,
    )


async def at_work(reader: Any, member: StaffMember) -> bool:
    """`fhir_portal.access.relation.works` of a practice all of whose Practitioners are active."""
    return reader is not None and bool(member.practitioner)


def a_level(name: str, *permissions: str, practice: str = DERM, version: int = 1) -> AccessLevel:
    return AccessLevel(
        key=level_key(practice, name),
        practice=practice,
        name=name,
        permissions=tuple(sorted(permissions)),
        version=version,
        changed=START,
        changed_by="operator",
    )


def a_chart_app(*practices: str) -> Client:
    """The client that staff use; unless told otherwise it is approved at both practices."""
    return a_client(
        CHART, scope="openid fhirUser user/*.rs", approved_at=practices or (DERM, FAMILY)
    )


def records_of_staff(*tokens: tuple[str, AuthContext]) -> list[Record]:
    """What the store holds for these callers, by name: token and membership."""
    found: list[Record] = []
    for name, auth in tokens:
        assert auth.staff is not None
        assert auth.account is not None
        practitioner = auth.staff.fhir_user.partition("/")[2]
        found.append(a_staff_token(name, auth))
        found.append(a_membership(auth.account, auth.practice, practitioner))
    return found
