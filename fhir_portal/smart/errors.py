"""Refusals of the authorization server, as data.

Each class names an ``error`` code and an HTTP status; ``web/oauth.py`` renders them as JSON and
`redirect_uri`, when there is one, says where a browser takes the error instead.

    OAuthError
    ├── InvalidRequest              400 invalid_request
    ├── InvalidClient               401 invalid_client
    ├── InvalidGrant                400 invalid_grant
    ├── UnauthorizedClient          400 unauthorized_client
    ├── UnsupportedGrantType        400 unsupported_grant_type
    ├── UnsupportedResponseType     400 unsupported_response_type
    ├── InvalidScope                400 invalid_scope
    ├── AccessDenied                403 access_denied
    ├── LoginRequired               400 login_required              prompt=none, nobody signed in
    ├── InteractionRequired         400 interaction_required        prompt=none, something to choose
    ├── ConsentRequired             400 consent_required            prompt=none, consent to ask for
    ├── RequestNotSupported         400 request_not_supported       OpenID Connect request objects
    ├── RequestUriNotSupported      400 request_uri_not_supported
    ├── InvalidRequestUri           400 invalid_request_uri         pushed requests
    ├── InvalidRedirectUri          400 invalid_redirect_uri        registration
    ├── InvalidClientMetadata       400 invalid_client_metadata     registration
    ├── InvalidSoftwareStatement    400 invalid_software_statement  registration
    ├── UnapprovedSoftwareStatement 400 unapproved_software_statement
    ├── InvalidToken                401 invalid_token               management of a registration
    ├── InvalidDpopProof            400 invalid_dpop_proof
    ├── UseDpopNonce                400 use_dpop_nonce
    ├── InvalidAuthorizationDetails 400 invalid_authorization_details
    ├── InvalidTarget               400 invalid_target              token exchange
    ├── TooManyRequests             429 temporarily_unavailable
    ├── Unavailable                 503 temporarily_unavailable
    ├── ServerError                 500 server_error
    ├── TooLarge                    413 invalid_request
    └── MethodNotAllowed            405 invalid_request

Source: RFC 6749 §4.1.2.1 and §5.2, OpenID Connect Core §3.1.2.6, RFC 7591 §3.2.2, RFC 9101 §7,
RFC 9396 §5, RFC 9449.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar


class OAuthError(Exception):
    """Base refusal: an OAuth error code, a status, and what is wrong in plain ASCII.

    ``unchecked_app`` is the name of the app behind `redirect_uri` when it registered itself.
    """

    error: ClassVar[str] = "invalid_request"
    status: ClassVar[int] = 400

    def __init__(
        self,
        description: str = "",
        *,
        redirect_uri: str | None = None,
        state: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(description)
        self.description = description
        self.redirect_uri = redirect_uri
        self.state = state
        self.unchecked_app: str | None = None
        self.headers = dict(headers or {})


class InvalidRequest(OAuthError):
    """A parameter is missing, repeated, malformed or not allowed."""


class InvalidClient(OAuthError):
    """The client is not known, or could not prove that it is itself."""

    error, status = "invalid_client", 401


class InvalidGrant(OAuthError):
    """The code or refresh token is not good, or not this client's."""

    error = "invalid_grant"


class UnauthorizedClient(OAuthError):
    """This client may not use this grant."""

    error = "unauthorized_client"


class UnsupportedGrantType(OAuthError):
    """Not a grant type of this server."""

    error = "unsupported_grant_type"


class UnsupportedResponseType(OAuthError):
    """Not a response type of this server."""

    error = "unsupported_response_type"


class InvalidScope(OAuthError):
    """A scope that is not understood, or that nobody of this kind may have."""

    error = "invalid_scope"


class AccessDenied(OAuthError):
    """The person said no."""

    error, status = "access_denied", 403


class LoginRequired(OAuthError):
    """``prompt=none``, and nobody is signed in."""

    error = "login_required"


class InteractionRequired(OAuthError):
    """``prompt=none``, and there is a record to choose."""

    error = "interaction_required"


class ConsentRequired(OAuthError):
    """``prompt=none``, and there is something to consent to."""

    error = "consent_required"


class RequestNotSupported(OAuthError):
    """Request objects are not offered (OpenID Connect Core §6.1)."""

    error = "request_not_supported"


class RequestUriNotSupported(OAuthError):
    """Request objects by reference are not offered (OpenID Connect Core §6.2)."""

    error = "request_uri_not_supported"


class InvalidRequestUri(OAuthError):
    """A pushed request that is over, was used, or is another client's (RFC 9101 §7)."""

    error = "invalid_request_uri"


class InvalidRedirectUri(OAuthError):
    """A redirect URI that this server will not register."""

    error = "invalid_redirect_uri"


class InvalidClientMetadata(OAuthError):
    """Client metadata that this server will not register."""

    error = "invalid_client_metadata"


class InvalidSoftwareStatement(OAuthError):
    """A software statement that is no signed JWT (RFC 7591 §3.2.2)."""

    error = "invalid_software_statement"


class UnapprovedSoftwareStatement(OAuthError):
    """A software statement of an issuer that this server does not know (RFC 7591 §3.2.2)."""

    error = "unapproved_software_statement"


class InvalidToken(OAuthError):
    """The registration access token is missing, or not this client's (RFC 7592 §2)."""

    error, status = "invalid_token", 401


class InvalidDpopProof(OAuthError):
    """A DPoP proof that is missing, or proves nothing for this request (RFC 9449 §5)."""

    error = "invalid_dpop_proof"


class UseDpopNonce(OAuthError):
    """The DPoP proof needs the nonce that comes with this answer (RFC 9449 §8)."""

    error = "use_dpop_nonce"


class InvalidAuthorizationDetails(OAuthError):
    """Authorization details of another type or shape than is offered (RFC 9396 §5)."""

    error = "invalid_authorization_details"


class InvalidTarget(OAuthError):
    """No token can be exchanged for this resource (RFC 8693 §2.2.2)."""

    error = "invalid_target"


class TooManyRequests(OAuthError):
    """Slow down."""

    error, status = "temporarily_unavailable", 429


class Unavailable(OAuthError):
    """The store cannot be reached or is too busy."""

    error, status = "temporarily_unavailable", 503


class ServerError(OAuthError):
    """A fault of ours; it says nothing of the inside."""

    error, status = "server_error", 500


class TooLarge(OAuthError):
    """The body is over the limit."""

    status = 413


class MethodNotAllowed(OAuthError):
    """This endpoint does not take this method."""

    status = 405
