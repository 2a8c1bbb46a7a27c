"""What holds for each operation: defined, claimed, ruled on, and refused to everybody else."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from fhir_portal.access.operations import ANY_SECTION
from fhir_portal.access.operations import OPERATIONS as RULES
from fhir_portal.access.owners import DIRECTORY
from fhir_portal.access.policy import OPERATION_TARGETS, Ask, Deny, Permit, decide, decide_operation
from fhir_portal.access.writes import WriteTableScopes
from fhir_portal.accounts.levels import PERMISSIONS
from fhir_portal.fhir.definitions import served_types
from fhir_portal.fhir.interaction import FhirRequest
from fhir_portal.operations.catalog import OPERATIONS, operations_of
from fhir_portal.operations.definition import definition_of
from fhir_portal.smart.scope import ScopeSet
from tests.builders import (
    START,
    Caller,
    a_billing_account,
    a_document,
    a_grant,
    a_patient,
    a_payment,
    a_person,
    a_proxy,
    a_task,
    an_appointment,
    an_ehr,
    an_invoice,
    oneself,
    resource,
    some_answers,
)
from tests.operations.examples import EXAMPLES
from tests.operations.messages import a_prescription, a_thread
from tests.staff import a_member_of_staff

CODES = sorted(OPERATIONS)
NO_SECTION = (None, ANY_SECTION)


def scopes_of(context: str, code: str, *, without: tuple[str, str] | None = None) -> ScopeSet:
    """The scopes that an operation needs, one of them left out."""
    letters = [one for one in RULES[code].letters if one != without]
    return ScopeSet.parse(" ".join(f"{context}/{name}.{letter}" for letter, name in letters))


def caller_of(kind: str, code: str, **changes: Any) -> Any:
    """Somebody who may call an operation: an EHR, or staff who have the permission and no other."""
    if kind == "system":
        return replace(an_ehr(), scopes=scopes_of("system", code), **changes)
    member = a_member_of_staff()
    assert member.staff is not None
    permissions = {RULES[code].staff or ""}
    if RULES[code].shows:
        permissions.add("view")
    staff = replace(member.staff, permissions=frozenset(permissions))
    return replace(member, scopes=scopes_of("user", code), staff=staff, **changes)


def callers(code: str) -> list[str]:
    rule = RULES[code]
    return [
        kind for kind, may in (("system", rule.system), ("user", rule.staff is not None)) if may
    ]


PAIRS = [(code, kind) for code in CODES for kind in callers(code)]


@pytest.mark.parametrize("code", CODES)
def test_each_asks_for_the_letter_to_read_what_it_is_called_on(code: str) -> None:
    assert ("r", RULES[code].target) in RULES[code].letters


@pytest.mark.parametrize("code", CODES)
def test_staff_who_may_call_it_read_no_record_by_that(code: str) -> None:
    auth = caller_of("user", code)
    if auth.may("view"):
        pytest.skip("its level holds view")
    for name in served_types():
        found = decide(auth, Ask("r", name, START))
        assert isinstance(found, Deny) or name == "Practitioner"


@pytest.mark.parametrize("code", CODES)
def test_staff_bound_to_one_record_call_it_there_alone(code: str) -> None:
    if RULES[code].staff is None:
        pytest.skip("it is not for staff")
    auth = caller_of("user", code)
    scopes = scopes_of("patient", code)
    bound = replace(auth, context="patient", staff_patient="kit", scopes=scopes)
    found = decide_operation(bound, code, START)
    if RULES[code].target in OPERATION_TARGETS:
        assert isinstance(found, Deny)
    elif RULES[code].target in DIRECTORY:
        assert isinstance(found, Permit)
        assert found.visible.record is None  # nobody's record
    else:
        assert isinstance(found, Permit)
        assert found.visible.record == "kit"
        assert found.visible.practices == (auth.practice,)


def test_each_has_a_rule_and_each_rule_has_an_operation() -> None:
    assert set(RULES) == set(OPERATIONS)


@pytest.mark.parametrize("code", CODES)
def test_each_is_defined_in_the_guide_and_claimed(code: str) -> None:
    definition = definition_of(code)
    assert definition.code == code
    assert definition.url.endswith((f"/ig/OperationDefinition/{code}", f"-{code}"))
    assert RULES[code].target in definition.types
    for name in definition.types:
        assert {"name": code, "definition": definition.url} in operations_of(name)


@pytest.mark.parametrize(("code", "kind"), PAIRS)
def test_whoever_has_all_it_needs_may_call_it(code: str, kind: str) -> None:
    assert isinstance(decide_operation(caller_of(kind, code), code, START), Permit)


@pytest.mark.parametrize(("code", "kind"), PAIRS)
def test_each_letter_is_needed_on_all_of_its_type(code: str, kind: str) -> None:
    auth = caller_of(kind, code)
    for letter, name in RULES[code].letters:
        narrower = replace(auth, scopes=scopes_of(kind, code, without=(letter, name)))
        assert isinstance(decide_operation(narrower, code, START), Deny), (letter, name)
        part = ScopeSet.parse(f"{narrower.scopes} {kind}/{name}.{letter}?identifier=urn:x|1")
        assert isinstance(decide_operation(replace(auth, scopes=part), code, START), Deny)


@pytest.mark.parametrize("code", CODES)
def test_staff_need_the_very_permission(code: str) -> None:
    member = a_member_of_staff()
    assert member.staff is not None
    others = frozenset(PERMISSIONS) - {RULES[code].staff}
    staff = replace(member.staff, permissions=others)
    auth = replace(member, scopes=scopes_of("user", code), staff=staff)
    assert isinstance(decide_operation(auth, code, START), Deny)


@pytest.mark.parametrize(("code", "kind"), PAIRS)
def test_an_expired_token_calls_nothing(code: str, kind: str) -> None:
    auth = caller_of(kind, code, expires=START)
    assert isinstance(decide_operation(auth, code, START), Deny)


@pytest.mark.parametrize("code", CODES)
def test_patients_and_proxies_may_not_do_what_a_practice_does(code: str) -> None:
    if RULES[code].section is not None:
        pytest.skip("it is for them, too: see the tests of its section")
    scopes = scopes_of("patient", code)
    for auth in (oneself(), a_proxy(sections=("results",), act=("results",))):
        denied = decide_operation(replace(auth, scopes=scopes), code, START)
        assert isinstance(denied, Deny)


@pytest.mark.parametrize("code", [one for one in CODES if RULES[one].section not in NO_SECTION])
def test_what_is_for_people_is_for_a_proxy_with_the_section_who_may_act(code: str) -> None:
    rule, scopes = RULES[code], scopes_of("patient", code)
    section = rule.section or ""

    def answer(auth: Any, **changes: Any) -> Permit | Deny:
        return decide_operation(replace(auth, scopes=scopes, **changes), code, START)

    acting = a_proxy(sections=(section,), act=(section,))
    for auth in (oneself(), acting):
        found = answer(auth)
        assert isinstance(found, Permit)
        if rule.target in DIRECTORY:
            assert found.visible.referrers is not None
        else:
            assert (found.visible.record, found.visible.practices) == (
                auth.patient,
                (auth.practice,),
            )
        assert isinstance(answer(auth, expires=START), Deny)
        for letter, name in rule.letters:
            narrower = scopes_of("patient", code, without=(letter, name))
            assert isinstance(decide_operation(replace(auth, scopes=narrower), code, START), Deny)
    assert isinstance(answer(a_proxy(sections=("results",), act=("results",))), Deny)
    reading = answer(a_proxy(sections=(section,), act=("results",)))
    assert isinstance(reading, Deny if rule.acts else Permit)
    ended = a_proxy(sections=(section,), act=(section,), until=START)
    assert isinstance(answer(ended), Deny)
    policy = WriteTableScopes()
    for letter, name in rule.letters:
        for record in (None, oneself().record, acting.record):
            assert letter in policy.grantable("patient", name, record)


@pytest.mark.parametrize("code", CODES)
def test_its_letters_can_be_granted_to_whoever_may_call_it(code: str) -> None:
    policy, rule = WriteTableScopes(), RULES[code]
    for letter, name in rule.letters:
        if rule.staff is not None:
            assert letter in policy.grantable("user", name, None)
        if rule.system:
            assert letter in policy.grantable("system", name, None)


@pytest.mark.parametrize("code", CODES)
async def test_what_is_not_there_and_what_is_another_practices_are_answered_alike(
    accounts: object, ehr: Caller, other_ehr: Caller, code: str
) -> None:
    assert accounts is not None
    target = RULES[code].target
    elsewhere = {
        "Patient": a_patient("elsewhere"),
        "Person": a_person("elsewhere", links=["Patient/ada-f"]),
        "Task": a_task("elsewhere", of="ada-f"),
        "Appointment": an_appointment("elsewhere", of=["ada-f"]),
        "Invoice": an_invoice("elsewhere", of="ada-f"),
        "DocumentReference": a_document("elsewhere", of="ada-f"),
        "Consent": a_grant("elsewhere", of="ada-f", to="mother"),
        "Communication": a_thread("elsewhere", of="ada-f"),
        "MedicationRequest": a_prescription("elsewhere", of="ada-f"),
        "Questionnaire": resource("Questionnaire", "elsewhere", status="active"),
        "QuestionnaireResponse": some_answers("elsewhere", of="ada-f", source="Patient/ada-f"),
        "Account": a_billing_account("elsewhere", of="ada-f"),
        "PaymentNotice": a_payment("elsewhere", of="bill-elsewhere"),
    }[target]
    await other_ehr.store(an_invoice("bill-elsewhere", of="ada-f"))
    await other_ehr.store(elsewhere)
    if not definition_of(code).on_instance:
        pytest.skip("it is not called on a resource")
    if RULES[code].system:
        caller = ehr
    elif RULES[code].staff is not None:
        caller = Caller(ehr.portal, caller_of("user", code))
    else:
        caller = Caller(ehr.portal, replace(oneself(), scopes=scopes_of("patient", code)))
    answers = []
    for own_id in ("nobody", "elsewhere"):
        tree = {"resourceType": "Parameters", "parameter": EXAMPLES.get(code, [])}
        body = json.dumps(tree).encode() if EXAMPLES.get(code) else b""
        asked = FhirRequest("operation", target, own_id, operation=code, body=body)
        answer = await caller.perform(asked)
        answers.append((answer.status, answer.body.replace(own_id.encode(), b"X")))
    assert answers[0] == answers[1]
    assert answers[0][0] == 404


async def test_an_unknown_operation_is_named_as_such(ehr: Caller) -> None:
    for path in ("Person/ada/$nothing", "Observation/1/$portal-account", "$portal-account"):
        answer = await ehr.ask("POST", path)
        assert answer.status == 404
        assert answer.json["issue"][0]["code"] == "not-supported"
