"""``fhir-portal practice endpoint-secret``: what an endpoint checks signatures with."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.commands.running import refused, run, told

pytestmark = pytest.mark.usefixtures("own_store")


def test_it_is_one_for_each_address_of_a_practice(own_store: Path) -> None:
    del own_store
    run("practice", "add", "elm", "Elm Street")
    run("practice", "add", "oak", "Oak Street")
    asked = [
        ("elm", "https://clinic.example/in"),
        ("elm", "https://clinic.example/in"),
        ("oak", "https://clinic.example/in"),
        ("elm", "https://clinic.example/other"),
    ]
    found = [told("practice", "endpoint-secret", *one)["secret"] for one in asked]
    assert found[0] == found[1]
    assert len(set(found)) == 3


def test_what_could_never_be_asked_is_refused(own_store: Path) -> None:
    del own_store
    run("practice", "add", "elm", "Elm Street")
    for address in ("http://clinic.example/in", "https://10.0.0.1/in", "nonsense"):
        refused("practice", "endpoint-secret", "elm", address)
    refused("practice", "endpoint-secret", "nobody", "https://clinic.example/in")
