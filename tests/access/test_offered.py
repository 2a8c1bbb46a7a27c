"""What a practice has switched off: hidden where it is listed, refused where it is called."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from fhir_portal.access.offered import WORDS
from fhir_portal.access.operations import OPERATIONS
from fhir_portal.accounts.policy import FEATURES, PracticePolicy
from fhir_portal.smart.scope import ScopeSet
from tests.access.conftest import family
from tests.builders import DERM, Caller, Json, a_proxy, an_invoice, keep, oneself
from tests.operations.examples import EXAMPLES

__all__ = ["family"]

OFF = {code: rule.feature for code, rule in OPERATIONS.items() if rule.feature}


async def only(family: Any, *features: Any) -> None:
    await keep(family, PracticePolicy(key=DERM, features=features, plan_months=6))


def caller(ehr: Caller, code: str, auth: Any = None) -> Caller:
    scopes = " ".join(f"patient/{name}.{them}" for name, them in OPERATIONS[code].by_type)
    return Caller(ehr.portal, replace(auth or oneself("ada"), scopes=ScopeSet.parse(scopes)))


def body(code: str) -> Json:
    return {"resourceType": "Parameters", "parameter": EXAMPLES[code]} if code in EXAMPLES else {}


def test_each_feature_has_words_and_something_that_it_is_of() -> None:
    assert set(WORDS) == set(FEATURES) == set(OFF.values())


@pytest.mark.requirement("portal", "S2-06")
@pytest.mark.parametrize("code", OFF)
async def test_what_is_off_is_refused_by_name_and_nothing_else_is(
    family: Any, ehr: Caller, code: str
) -> None:
    await ehr.store(an_invoice("bill"))
    target = OPERATIONS[code].target
    on = f"{target}/bill/${code}" if code in {"pay", "payment-plan"} else f"{target}/${code}"
    await only(family, *(one for one in FEATURES if one != OFF[code]))
    answer = await caller(ehr, code).ask("POST", on, body(code))
    if answer.json["issue"][0]["details"]["coding"][0]["code"] == "unknown-operation":
        on = f"{target}/nothing/${code}"
        answer = await caller(ehr, code).ask("POST", on, body(code))
    (issue,) = answer.json["issue"]
    assert (answer.status, issue["code"]) == (404, "not-supported")
    assert issue["details"]["coding"][0]["code"] == "not-offered-by-practice"
    assert WORDS[OFF[code]] in issue["diagnostics"]
    await only(family, *FEATURES)
    again = await caller(ehr, code).ask("POST", on, body(code))
    assert "not-offered-by-practice" not in str(again.json)


async def test_who_may_not_call_it_at_all_is_not_told_what_is_offered(
    family: Any, ehr: Caller
) -> None:
    await only(family)
    looking = a_proxy(sections=("results",), act=("results",))
    answer = await caller(ehr, "pay", looking).ask("POST", "Invoice/bill/$pay", body("pay"))
    assert answer.status == 403


async def test_reading_and_the_practices_own_work_go_on(family: Any, ehr: Caller) -> None:
    await ehr.store(an_invoice("bill"))
    await only(family)
    due = await caller(ehr, "amount-due").ask("GET", "Invoice/bill/$amount-due")
    assert due.status == 200
    answers = {
        "resourceType": "QuestionnaireResponse", "id": "answers", "status": "completed",
        "subject": {"reference": "Patient/ada"},
    }  # fmt: skip
    await ehr.store(answers)
    scopes = ScopeSet.parse("patient/QuestionnaireResponse.crus")
    ada = Caller(ehr.portal, replace(oneself("ada"), scopes=scopes))
    mine = {name: value for name, value in answers.items() if name != "id"}
    mine["source"] = mine["author"] = mine["subject"]
    made = await ada.ask("POST", "QuestionnaireResponse", mine)
    assert (made.status, made.json["issue"][0]["code"]) == (404, "not-supported")
    assert (await ada.ask("GET", "QuestionnaireResponse/answers")).status == 200
