"""The event that tells an app that access it was given has ended: a security event token.

RFC 8417 (security event tokens), RFC 9493 (subject identifiers). An app that registers a
``backchannel_revocation_uri`` is told a ``grant_id`` with its tokens; the event names it. It says
nothing of the person, and of the reason no more than the app needs.
"""

from __future__ import annotations

from typing import Any, Final

from joserfc import jwt

from fhir_portal.smart.issuer import Issuer
from fhir_portal.smart.keys import ServerKeys

EVENT_PATH: Final = "/oauth/events/access-ended"
"""Where the event is described; under the base URL it is the event's name."""
CONTENT_TYPE: Final = "application/secevent+jwt"
_BY_PERSON: Final = frozenset({"by-person"})
_MISUSE: Final = frozenset({"code-replayed", "refresh-token-reused"})


def event_of(issuer: Issuer) -> str:
    """The name of the event."""
    return issuer.at(EVENT_PATH)


def reason_of(because: str) -> str:
    """What an app is told of why: somebody chose to, somebody misused a token, or else."""
    if because in _BY_PERSON:
        return "person"
    return "misuse" if because in _MISUSE else "portal"


def security_event(
    keys: ServerKeys,
    issuer: Issuer,
    *,
    name: str,
    client_id: str,
    grant_id: str,
    reason: str,
    at: float,
) -> str:
    """Sign the event; ``name`` is the same however often it is sent (``jti``)."""
    claims = {
        "iss": issuer.base,
        "aud": client_id,
        "iat": int(at),
        "toe": int(at),
        "jti": name,
        "sub_id": {"format": "opaque", "id": grant_id},
        "events": {event_of(issuer): {"reason": reason}},
    }
    header = {"alg": "RS256", "kid": keys.kid, "typ": "secevent+jwt"}
    return jwt.encode(header, claims, keys.signing, algorithms=["RS256"])


def schema(issuer: Issuer) -> dict[str, Any]:
    """The description that is published under the name of the event: a JSON Schema."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": event_of(issuer),
        "title": "Access that an app was given has ended",
        "description": (
            "Claims of a security event token (RFC 8417), posted as application/secevent+jwt to "
            "the backchannel_revocation_uri that a client registered (RFC 8935), and posted again "
            "with the same jti until it is answered with a status of 2xx. sub_id.id is the "
            "grant_id of the token response. The key is one of jwks_uri."
        ),
        "type": "object",
        "required": ["iss", "aud", "iat", "jti", "sub_id", "events"],
        "properties": {
            "iss": {"const": issuer.base},
            "aud": {"type": "string", "description": "The client_id."},
            "iat": {"type": "integer"},
            "toe": {"type": "integer", "description": "When access ended."},
            "jti": {"type": "string"},
            "sub_id": {
                "type": "object",
                "required": ["format", "id"],
                "properties": {"format": {"const": "opaque"}, "id": {"type": "string"}},
            },
            "events": {
                "type": "object",
                "required": [event_of(issuer)],
                "properties": {
                    event_of(issuer): {
                        "type": "object",
                        "properties": {"reason": {"enum": ["person", "misuse", "portal"]}},
                    }
                },
            },
        },
    }
