"""Several records in one consent: the authorization detail that asks for them (RFC 9396).

An app that looks after a family asks once. The person ticks records; what is allowed holds for
each of them, as far as each allows it. The token of such a consent lists the records and reads
none; each record's own token comes by token exchange (``grants/token_exchange.py``).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

import jsonschema
import msgspec

from fhir_portal.consent.record import Access
from fhir_portal.smart.errors import InvalidAuthorizationDetails
from fhir_portal.smart.issuer import Issuer

TYPE_PATH: Final = "/oauth/authorization-details/smart-record"
"""Where the type is described; under the base URL it is the type's name."""
MOST_RECORDS: Final = 20
_LONGEST: Final = 4000


class ConsentedRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One record of a consent for several, and what was allowed on it.

    ``identifier`` names it among the others: it is what the picker called it.
    """

    identifier: str
    practice: str
    patient: str
    fhir_user: str
    grant: str | None
    scope: str

    @property
    def access(self) -> Access:
        """By what right of the person's it was given."""
        return self.practice, self.patient, self.fhir_user, self.grant


def type_of(issuer: Issuer) -> str:
    """The name of the type."""
    return issuer.at(TYPE_PATH)


def schema(issuer: Issuer) -> dict[str, Any]:
    """The description that is published under the name of the type: a JSON Schema."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": type_of(issuer),
        "title": "Records of patients, chosen by the person who signs in",
        "description": (
            "In an authorization request, beside patient/ scopes and openid: the person may choose "
            "several records, and the scopes are asked for on each of them. In the token response "
            "and in introspection: one object for each record that was chosen, with what was "
            "allowed on it. In a token exchange: identifier names the record that a token is for."
        ),
        "type": "object",
        "required": ["type"],
        "properties": {
            "type": {"const": type_of(issuer)},
            "locations": {
                "type": "array",
                "items": {"enum": [*issuer.everywhere("/fhir")]},
                "maxItems": 1 + len(issuer.aliases),
            },
            "identifier": {
                "type": "string",
                "maxLength": 300,
                "description": "A record, as the token response named it. Exchange only.",
            },
        },
        "additionalProperties": False,
    }


def check_request(text: str, issuer: Issuer) -> None:
    """Refuse ``authorization_details`` of an authorization request that is not ours.

    Raises `InvalidAuthorizationDetails` (RFC 9396 §5).
    """
    if "identifier" in _one(text, issuer):
        raise InvalidAuthorizationDetails("the person chooses the records: leave identifier out")


def identifier_of(text: str, issuer: Issuer) -> str:
    """The record that a token exchange asks for. Raises `InvalidAuthorizationDetails`."""
    identifier = _one(text, issuer).get("identifier")
    if not identifier:
        raise InvalidAuthorizationDetails("identifier names the record that the token is for")
    return str(identifier)


def detail(
    issuer: Issuer, *, identifier: str, patient: str, fhir_user: str, scope: str
) -> dict[str, Any]:
    """What is told of one record that was chosen (RFC 9396 §7)."""
    return {
        "type": type_of(issuer),
        "locations": [issuer.fhir],
        "identifier": identifier,
        "patient": patient.partition("/")[2],
        "fhirUser": issuer.url_of(fhir_user),
        "scope": scope,
    }


def _one(text: str, issuer: Issuer) -> Mapping[str, Any]:
    """The one object that ``authorization_details`` may hold."""
    if len(text) > _LONGEST:
        raise InvalidAuthorizationDetails("authorization_details is too long")
    try:
        listed = json.loads(text, object_pairs_hook=_each_once)
    except (ValueError, RecursionError):
        raise InvalidAuthorizationDetails("authorization_details is not JSON") from None
    if not isinstance(listed, list) or len(listed) != 1 or not isinstance(listed[0], dict):
        raise InvalidAuthorizationDetails("authorization_details is an array of one object")
    if listed[0].get("type") != type_of(issuer):
        raise InvalidAuthorizationDetails(f"the type supported here is {type_of(issuer)}")
    error = jsonschema.exceptions.best_match(
        jsonschema.Draft202012Validator(schema(issuer)).iter_errors(listed[0])
    )
    if error is not None:
        where = ".".join(str(step) for step in error.absolute_path) or "the object"
        raise InvalidAuthorizationDetails(f"{where} is not as {type_of(issuer)} describes it")
    found: dict[str, Any] = listed[0]
    return found


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a member came more than once")
    return found
