"""Attacks that go through the whole server; the others stand beside what they attack.

``docs/conformance.md`` lists them all, each with the fault it was seen to succeed on.
"""

from __future__ import annotations

import asyncio

import pytest

from tests.conformance.inferno import STANDALONE, public
from tests.conformance.whole import ANNA, Whole

ATTACKS = "attacks"


@pytest.mark.requirement(ATTACKS, "race on a consent")
async def test_of_fifty_answers_to_one_request_one_gets_a_code(whole: Whole) -> None:
    client = public(whole)
    begun = await client.ask(STANDALONE)
    await begun.browser.sign_in(ANNA)
    form = begun.browser.form
    fields = {one.get("name"): one.get("value") for one in form.xpath('.//input[@type="hidden"]')}
    data = {**fields, "decision": "approve", "scope": begun.browser.boxes(ticked=True)}
    answers = await asyncio.gather(
        *(begun.browser.http.post(form.get("action"), data=data) for _ in range(50))
    )
    codes = [one for one in answers if "code=" in one.headers.get("location", "")]
    assert len(codes) == 1
    assert {one.status_code for one in answers if one not in codes} == {400}
