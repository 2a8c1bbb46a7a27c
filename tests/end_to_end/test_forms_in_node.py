"""Which questions are asked, compared with an implementation that is not ours: Medplum's, in node.

It looks at the whole form where FHIR R4 says the nearest occurrence, takes a condition on an
unanswered question as met when all have to be, keeps the answers of what is not asked, and takes
``!=`` as not met without an answer. These are all that differs.
"""

from __future__ import annotations

import pytest

from fhir_portal.resources.forms.enabled import Response
from fhir_portal.resources.forms.fhirpath import plain
from tests.builders import START, Json
from tests.end_to_end.browser import NODE_MODULES, missing
from tests.end_to_end.node import Script
from tests.resources.forms.test_questionnaire_response import form_in, read
from tests.resources.forms.twenty import QUESTIONNAIRES, RIGHT, WRONG, response

PACKAGE = NODE_MODULES / "@medplum" / "react-hooks"
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(not PACKAGE.exists(), reason=missing() or "all is there"),
]
DIFFERS: dict[str, set[str]] = {
    "allergies": {"other"},  # a group that repeats: the nearest occurrence counts
    "both": {"weeks"},  # all conditions: what is not answered does not equal anything
    "chain": {"three"},  # what is not asked counts as not answered
    "nested": {"worst", "score"},  # under an answer that is not there nothing is asked
    "not": {"why"},  # no answer is equal to the one named
}
"""Form to the items of which the other one thinks otherwise with some answers, and why."""


async def test_another_implementation_asks_the_same_questions() -> None:
    compared, different = 0, dict[str, set[str]]()
    with Script.running("questionnaire") as script:
        for name, tree in QUESTIONNAIRES.items():
            responses: list[Json] = [
                *(one for one in RIGHT if one["questionnaire"] == tree["url"]),
                *(response(name, *one.items) for one in WRONG if one.form == name),  # type: ignore[arg-type]
            ]
            told = script("shown", questionnaire=tree, responses=responses)
            form = await form_in(tree)
            for one, theirs in zip(responses, told, strict=True):
                asked = Response(form, plain(read(one)), now=START).asked()
                apart = {item.link_id for item, _ in asked} ^ set(theirs)
                compared += 1
                if apart:
                    different.setdefault(name, set()).update(apart)
    assert compared >= 90
    assert different == DIFFERS
