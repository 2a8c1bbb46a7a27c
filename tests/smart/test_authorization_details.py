"""What authorization details are taken, RFC 9396 §5."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import pytest

from fhir_portal.smart.authorization_details import (
    check_request,
    identifier_of,
    schema,
    type_of,
)
from fhir_portal.smart.errors import InvalidAuthorizationDetails
from fhir_portal.smart.issuer import Issuer
from tests.smart.world import BASE

ISSUER = Issuer(BASE, ("http://localhost:8000",))
TYPE = f"{BASE}/oauth/authorization-details/smart-record"


def test_the_type_is_an_address_of_ours_and_describes_itself() -> None:
    assert type_of(ISSUER) == TYPE
    assert schema(ISSUER)["$id"] == TYPE
    jsonschema.Draft202012Validator.check_schema(schema(ISSUER))


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"locations": [f"{BASE}/fhir"]},
        {"locations": ["http://localhost:8000/fhir", f"{BASE}/fhir"]},
        {"locations": []},
    ],
)
def test_a_request_names_the_type_and_perhaps_the_place(more: dict[str, Any]) -> None:
    check_request(json.dumps([{"type": TYPE, **more}]), ISSUER)


def test_an_exchange_names_the_record() -> None:
    text = json.dumps([{"type": TYPE, "identifier": "Patient/pip"}])
    assert identifier_of(text, ISSUER) == "Patient/pip"


BAD = [
    "",
    "x",
    "{}",
    "[]",
    "7",
    "null",
    "[7]",
    "[[]]",
    "[{}]",
    "[" * 3000,
    f'[{{"type": "{TYPE}", "x": "' + "x" * 4000 + '"}]',
    json.dumps({"type": TYPE}),
    json.dumps([{"type": TYPE}, {"type": TYPE}]),
    json.dumps([{"type": "account_information"}]),
    json.dumps([{"type": 7}]),
    json.dumps([{"type": [TYPE]}]),
    json.dumps([{"type": TYPE.replace("127.0.0.1", "localhost")}]),
    json.dumps([{"type": TYPE, "actions": ["read"]}]),
    json.dumps([{"type": TYPE, "locations": "x"}]),
    json.dumps([{"type": TYPE, "locations": ["https://elsewhere.example/fhir"]}]),
    json.dumps([{"type": TYPE, "identifier": 7}]),
    json.dumps([{"type": TYPE, "identifier": "x" * 301}]),
    f'[{{"type": "other", "type": "{TYPE}"}}]',
]


@pytest.mark.parametrize("text", BAD, ids=range(len(BAD)))
def test_what_is_not_understood_is_refused(text: str) -> None:
    """A detail that is passed over would be thought to be granted.

    Planted fault: members that are not known are ignored.
    """
    with pytest.raises(InvalidAuthorizationDetails):
        check_request(text, ISSUER)
    with pytest.raises(InvalidAuthorizationDetails):
        identifier_of(text, ISSUER)


def test_the_app_does_not_choose_the_records() -> None:
    """Planted fault: an identifier in the request is let through."""
    with pytest.raises(InvalidAuthorizationDetails):
        check_request(json.dumps([{"type": TYPE, "identifier": "Patient/pip"}]), ISSUER)


def test_an_exchange_without_a_record_is_refused() -> None:
    for more in ({}, {"identifier": ""}):
        with pytest.raises(InvalidAuthorizationDetails):
            identifier_of(json.dumps([{"type": TYPE, **more}]), ISSUER)
