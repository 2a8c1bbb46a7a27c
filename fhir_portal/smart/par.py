"""Pushed authorization requests (RFC 9126): an app sends its request here, its browser a reference.

What the browser carries cannot be read or changed on the way. A reference is bound to the client
that pushed, lives `LIFETIME_SECONDS`, and is used up by the authorization request it buys.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Final

from authlib.oauth2.rfc6749.endpoint import Endpoint, EndpointRequest

from fhir_portal.records import Record, RecordStore
from fhir_portal.smart import errors
from fhir_portal.smart.exchange import TOKEN_AUTH_METHODS
from fhir_portal.smart.token import token_hash

PAR_PATH: Final = "/oauth/par"
LIFETIME_SECONDS: Final = 60
REFERENCE_BYTES: Final = 32
PUSHED_REQUEST: Final = "pushed_authorization_request"
_PREFIX: Final = "urn:ietf:params:oauth:request_uri:"


class PushedRequest(Record, frozen=True, kw_only=True):
    """A request that waits for its browser; ``key`` is the hash of its reference."""

    kind: ClassVar[str] = "pushed-request"

    expires: float
    client_id: str
    parameters: dict[str, str]


def request_uri_of(reference: str) -> str:
    """The ``request_uri`` that stands for a reference (RFC 9126 §2.2)."""
    return f"{_PREFIX}{reference}"


def is_pushed(request_uri: str) -> bool:
    """Whether a ``request_uri`` claims to be one of ours, and not a request object's address."""
    return request_uri.startswith(_PREFIX)


def key_of(request_uri: str) -> str:
    """The key under which the request behind a ``request_uri`` is stored."""
    return token_hash(request_uri.removeprefix(_PREFIX))


async def find_pushed(
    store: RecordStore, parameters: Mapping[str, str], repeated: frozenset[str], *, now: float
) -> PushedRequest | None:
    """Return the request that was pushed before, when the browser refers to one.

    Raises `errors.InvalidRequestUri` when there is none for this client.
    """
    request_uri = parameters.get("request_uri", "")
    if not is_pushed(request_uri):
        return None
    if repeated & {"client_id", "request_uri"}:
        raise errors.InvalidRequest("a parameter came more than once")
    found = await store.get(PushedRequest, key_of(request_uri))
    if found is None or found.client_id != parameters.get("client_id") or now >= found.expires:
        raise pushed_over()
    return found


def pushed_over() -> errors.InvalidRequestUri:
    """The refusal of a reference that is unknown, over, used or another app's: the same words."""
    return errors.InvalidRequestUri(
        "This request is over, was used before, or was not pushed by this app."
    )


class PushedRequests(Endpoint):  # type: ignore[misc] # Authlib has no type information
    """Authlib's frame of an endpoint: it authenticates the client as the token endpoint does.

    The request itself is judged by the rules of the authorization endpoint: `in_flight.judged`.
    """

    ENDPOINT_NAME = PUSHED_REQUEST

    def validate_request(self, request: Any) -> EndpointRequest:
        client = self.server.authenticate_client(
            request, list(TOKEN_AUTH_METHODS), self.ENDPOINT_NAME
        )
        return EndpointRequest(request, client)

    def create_response(self, validated_request: EndpointRequest) -> tuple[int, Any, list[Any]]:
        return 201, validated_request.client.record, []
