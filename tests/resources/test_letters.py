"""The published table of letters is what the interactions ask for."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from fhir_portal.resources.catalog import INTERACTIONS
from fhir_portal.resources.letters import NEEDED
from tests.builders import Caller, a_patient, an_observation

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "scopes.md"
REQUESTS: Mapping[str, tuple[str, str, Any, Mapping[str, str]]] = {
    "read": ("GET", "Observation/one", None, {}),
    "vread": ("GET", "Observation/one/_history/1", None, {}),
    "history-instance": ("GET", "Observation/one/_history", None, {}),
    "search-type": ("GET", "Observation?patient=ada", None, {}),
    "create": ("POST", "Observation", an_observation(None), {}),
    "conditional create": (
        "POST",
        "Observation",
        an_observation(None),
        {"if_none_exist": "identifier=none"},
    ),
    "update": ("PUT", "Observation/one", an_observation("one"), {}),
    "delete": ("DELETE", "Observation/one", None, {}),
    "history-system": ("GET", "_history", None, {}),
}


def letters_of(interaction: str) -> str:
    return next(one.letters for one in NEEDED if one.interaction == interaction)


@pytest.mark.parametrize("interaction", REQUESTS)
async def test_the_letters_that_are_named_are_enough_and_needed(
    ehr: Caller, interaction: str
) -> None:
    """Planted fault: the table leaves out the s of a conditional create."""
    await ehr.store(a_patient("ada"), an_observation("one"))
    method, url, tree, headers = REQUESTS[interaction]
    letters = letters_of(interaction)
    for missing in letters:
        without = "".join(one for one in "cruds" if one != missing)
        caller = ehr.with_scope(f"system/Observation.{without}")
        answer = await caller.ask(method, url, tree, **headers)
        assert answer.status == 403, (interaction, missing)
    caller = ehr.with_scope(f"system/Observation.{letters}")
    answer = await caller.ask(method, url, tree, **headers)
    assert answer.status < 300


async def test_what_is_added_to_a_search_needs_s_on_its_own_type(ehr: Caller) -> None:
    await ehr.store(a_patient("ada"), an_observation("one"))
    url = "Observation?_include=Observation:subject"
    for scope, added in (("cru", 0), ("s", 1)):
        caller = ehr.with_scope(f"system/Observation.s system/Patient.{scope}")
        answer = await caller.ask("GET", url)
        entries = answer.json["entry"]
        assert len([one for one in entries if one["search"]["mode"] == "include"]) == added


def test_every_interaction_is_in_the_table() -> None:
    named = {one.interaction for one in NEEDED}
    assert named >= INTERACTIONS.keys()
    assert named >= REQUESTS.keys()


def test_the_table_is_published() -> None:
    """Planted fault: a row that is on the page and not in the table, or the other way."""
    rows = [
        f"| {one.interaction} | `{one.request}` | {f'`{one.letters}`' if one.letters else ''} "
        f"| {one.of or 'the type of the request'} |"
        for one in NEEDED
    ]
    text = PAGE.read_text("utf-8")
    start = text.index("| interaction |")
    table = text[start : text.index("\n\n", start)].splitlines()[2:]
    assert table == rows
