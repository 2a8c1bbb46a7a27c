"""The write table: who may create, update and delete what."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fhir_portal.access.context import AuthContext
from fhir_portal.access.operations import person_letters, staff_letters
from fhir_portal.access.owners import DIRECTORY, OWNERS
from fhir_portal.access.policy import Ask, Deny, Permit, decide
from fhir_portal.access.writes import (
    PERSON_WRITES,
    WriteTableScopes,
    writable,
    wrong_author,
)
from fhir_portal.consent.sections import types_in
from fhir_portal.fhir.definitions import served_types, structures
from tests.builders import (
    START,
    a_communication,
    a_proxy,
    an_ehr,
    oneself,
    reference,
    some_answers,
)
from tests.staff import a_member_of_staff, staff_record

MOTHER = a_proxy("kit", "mother", sections=["messages", "forms"], act=["messages"])
NEVER_BY_A_PERSON = [
    *("AuditEvent", "Consent", "Patient", "Person", "RelatedPerson", "Subscription", "Task"),
    *("Observation", "Provenance", "Binary", "Practitioner", "SearchParameter"),
]


def may(auth: AuthContext, letter: str, name: str) -> bool:
    return isinstance(decide(auth, Ask(letter, name, START)), Permit)


@pytest.mark.parametrize("name", served_types())
@pytest.mark.parametrize("letter", "cud")
def test_a_person_writes_only_what_the_table_says(name: str, letter: str) -> None:
    allowed = name in PERSON_WRITES and letter in PERSON_WRITES[name].letters
    assert may(oneself(), letter, name) is allowed


@pytest.mark.parametrize("name", NEVER_BY_A_PERSON)
def test_what_changes_through_operations_is_not_written_by_a_person(name: str) -> None:
    assert not any(may(oneself(), letter, name) for letter in "cud")


def test_nobody_deletes_in_a_persons_context() -> None:
    assert not any(may(oneself(), "d", name) for name in served_types())


def test_a_proxy_writes_nothing_unless_the_grant_says_act() -> None:
    silent = a_proxy(sections=["messages", "forms"])
    assert not any(may(silent, letter, name) for letter in "cud" for name in served_types())
    assert may(MOTHER, "c", "Communication")
    assert not may(MOTHER, "c", "QuestionnaireResponse")


@pytest.mark.parametrize("name", served_types())
def test_an_ehr_writes_its_practice_but_for_the_log_and_subscriptions(name: str) -> None:
    refused = {"AuditEvent", "Subscription"}
    assert may(an_ehr(), "c", name) is (name not in refused)


def test_person_is_identity_and_needs_the_permission() -> None:
    plain = an_ehr("dermatology", "none")
    assert plain.permissions == frozenset()
    assert not may(plain, "u", "Person")
    assert may(an_ehr(), "u", "Person")


@pytest.mark.parametrize("auth", [a_member_of_staff(), a_member_of_staff(patient="kit")])
def test_staff_write_nothing_yet(auth: AuthContext) -> None:
    assert all(writable(auth, letter, name) for letter in "cud" for name in PERSON_WRITES)
    assert not any(may(auth, letter, name) for letter in "cud" for name in served_types())


def test_a_user_context_without_a_membership_writes_nothing() -> None:
    nobody = replace(oneself(), context="user", record=None)
    assert all(writable(nobody, letter, name) for letter in "cud" for name in PERSON_WRITES)


def test_a_person_writes_in_their_own_name() -> None:
    ada = oneself()
    assert wrong_author(ada, a_communication(of="ada", sender="Patient/ada")) == ""
    for tree in (
        a_communication(of="ada", sender="Patient/bo"),
        a_communication(of="ada", sender="Practitioner/lark"),
        a_communication(of="ada", sender=None),
        a_communication(of="ada", sender="Patient/ada/_history/1"),
        a_communication(of="ada", sender="https://other.example/fhir/Patient/ada"),
        some_answers(of="ada", source="Patient/bo"),
        some_answers(of="ada", source="Patient/ada", author=reference("Practitioner/lark")),
    ):
        assert wrong_author(ada, tree), tree
    answers = some_answers(of="ada", source="Patient/ada", author=reference("Patient/ada"))
    assert wrong_author(ada, answers) == ""


def test_the_author_is_a_reference_and_nothing_that_names_somebody_else() -> None:
    named = a_communication(of="ada")
    named["sender"] = {"reference": "Patient/ada", "display": "Dr. Lark"}
    assert wrong_author(oneself(), named)


def test_a_proxy_writes_as_the_related_person_of_this_record() -> None:
    assert wrong_author(MOTHER, a_communication(of="kit", sender="RelatedPerson/mother")) == ""
    for sender in ("Patient/ada", "RelatedPerson/father", "Patient/kit"):
        assert wrong_author(MOTHER, a_communication(of="kit", sender=sender))
    assert wrong_author(MOTHER, some_answers(of="kit", source="RelatedPerson/mother"))


def test_the_table_names_elements_that_exist() -> None:
    for name, rule in PERSON_WRITES.items():
        for path in filter(None, (rule.required, *rule.allowed)):
            assert structures()[name][path].type == "Reference"
        assert set(rule.letters) <= set("cud")


@pytest.mark.parametrize("name", served_types())
def test_no_scope_can_be_granted_that_would_be_of_no_use(name: str) -> None:
    """What is offered is what `decide` would permit, letter by letter."""
    policy = WriteTableScopes()
    papers = {"AuditEvent", "Binary", "Consent", "Provenance", "RelatedPerson"}
    reachable = types_in(frozenset({"messages", "forms"})) | DIRECTORY | papers
    ehr = replace(an_ehr(), permissions=frozenset({"label", "grant-writing"}))
    for auth, context in ((oneself(), "patient"), (MOTHER, "patient"), (ehr, "system")):
        granted = policy.grantable(context, name, auth.record)
        for letter in "cruds":
            usable = may(auth, letter, name)
            if context == "patient" and letter in person_letters(name):
                # Of use for operations, where the grant lets them act.
                assert auth.record is not None
                usable = usable or auth.is_self or name in types_in(auth.record.act)
            if auth is MOTHER and name not in reachable:
                assert granted == ""  # what the grant's sections could never show
            else:
                assert usable is (letter in granted), (name, letter, context)
    member = a_member_of_staff()
    bound = a_member_of_staff(patient="kit")
    of_staff = staff_record("kit")
    for auth, context, record in (
        (member, "user", None),
        (member, "user", of_staff),
        (bound, "patient", of_staff),
    ):
        granted = policy.grantable(context, name, record)
        of_use = {letter for letter in "cruds" if may(auth, letter, name)}
        if context == "user" or name in OWNERS:  # these only let staff call operations
            of_use |= set(staff_letters(name))
        assert granted == "".join(letter for letter in "cruds" if letter in of_use)
    assert policy.grantable("user", name, oneself().record) == ""
    assert policy.grantable("user", name, MOTHER.record) == ""
    assert policy.grantable("patient", "NotAType", None) == ""


def test_a_refusal_speaks_of_token_and_type_only() -> None:
    answer = decide(MOTHER, Ask("c", "Consent", START))
    assert isinstance(answer, Deny)
    assert "kit" not in answer.reason
    assert "mother" not in answer.reason
