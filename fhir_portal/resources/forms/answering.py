"""QuestionnaireResponse has behaviour of its own: answers are held against their form.

Whoever writes them: a person's in full, an EHR's own for their shape alone, since it may hold more
about a form than the form says. A form that is not known here is not judged.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from fhir_portal.access.context import AuthContext
from fhir_portal.access.offered import require_offered
from fhir_portal.fhir.errors import Issue, Unprocessable
from fhir_portal.resources.forms.enabled import quoted
from fhir_portal.resources.forms.handing_in import require_asked
from fhir_portal.resources.forms.known import known_form
from fhir_portal.resources.forms.questionnaire import Questionnaire
from fhir_portal.resources.forms.questionnaire_response import DONE, Rules, faults_of
from fhir_portal.resources.store import ResourceTransaction

OPEN: Final = "in-progress"


async def before_change(
    transaction: ResourceTransaction,
    auth: AuthContext,
    old: Mapping[str, Any],
    tree: Mapping[str, Any],
    *,
    now: float,
) -> None:
    """Hold a response that is about to be stored against its form.

    Raises:
        Unprocessable: one issue for each fault, at its item.
    """
    if tree.get("resourceType") != "QuestionnaireResponse":
        return
    is_person = auth.context != "system"
    if is_person:
        await require_offered(transaction, auth, "forms")
        _refuse_turning_back(old, tree)
        await require_asked(transaction, auth, tree)
    canonical = tree.get("questionnaire")
    form = await known_form(transaction, auth.practice, canonical) if canonical else None
    if form is None and is_person and canonical and "|" in canonical:
        url = canonical.partition("|")[0]
        if await known_form(transaction, auth.practice, url) is not None:
            message = "this version of the form is not known here"
            raise Unprocessable(message, expression="QuestionnaireResponse.questionnaire")
    if form is not None:
        rules = Rules(now=now, strict=is_person, signer=auth.fhir_user)
        require_answers(form, tree, rules)


def require_answers(form: Questionnaire, tree: Mapping[str, Any], rules: Rules) -> None:
    """Refuse a response that does not answer its form. Raises `Unprocessable`."""
    if rules.strict and form.faults:
        raise Unprocessable(issues=not_filled_in_here(form))
    issues = faults_of(form, tree, rules)
    if issues:
        raise Unprocessable(issues=issues)


def not_filled_in_here(form: Questionnaire) -> list[Issue]:
    """Return why nobody can be asked to fill in a form, an issue for each item."""
    return [
        Issue(
            "not-supported",
            f"{link_id or 'the form'}: {text}; it cannot be filled in here",
            f"Questionnaire.descendants().where(linkId='{quoted(link_id)}')" if link_id else None,
        )
        for link_id, text in form.faults
    ]


def _refuse_turning_back(old: Mapping[str, Any], tree: Mapping[str, Any]) -> None:
    """What somebody has handed in stays handed in: it can be amended, and nothing else."""
    where = "QuestionnaireResponse"
    if old and old.get("questionnaire") != tree.get("questionnaire"):
        message = "answers stay answers to the form they were begun for"
        raise Unprocessable(message, expression=f"{where}.questionnaire")
    if old.get("status") in DONE and tree.get("status") not in DONE:
        message = "these answers were handed in: they are completed, or amended"
        raise Unprocessable(message, expression=f"{where}.status")
    if not old and tree.get("status") not in {OPEN, *DONE}:
        message = f"answers are {OPEN}, or completed"
        raise Unprocessable(message, expression=f"{where}.status")
