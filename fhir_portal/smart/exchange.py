"""Authlib's server over preloaded values: no I/O, and its writes are collected, not made.

Authlib is synchronous. So for each request the client, code and tokens it can name are loaded
first (`Loaded`), then Authlib's own validation and grants run over them in an `Exchange`, and
what they want written comes out as a list of `Insert` and `Replace`, which `outcome.commit` makes
in one transaction. Whoever loses a compare-and-set there gets nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from authlib.oauth2.base import invalid_error_characters
from authlib.oauth2.rfc6749 import (
    AuthorizationServer,
    ClientMixin,
    OAuth2Payload,
    OAuth2Request,
    TokenMixin,
)
from authlib.oauth2.rfc6749 import errors as authlib_errors
from authlib.oauth2.rfc9207 import IssuerParameter

from fhir_portal.accounts.account import Account
from fhir_portal.consent.record import RecordAccess
from fhir_portal.records import Record
from fhir_portal.smart import errors
from fhir_portal.smart.authorization_details import ConsentedRecord
from fhir_portal.smart.client import SECRET_METHODS, Client
from fhir_portal.smart.client_auth.private_key_jwt import PrivateKeyJwt
from fhir_portal.smart.client_auth.secret import is_secret
from fhir_portal.smart.code import AuthorizationCode
from fhir_portal.smart.dpop import DpopPolicy, Shown, nonces_at, verify
from fhir_portal.smart.issuer import Issuer, Lifetimes
from fhir_portal.smart.keys import ServerKeys
from fhir_portal.smart.right import Right
from fhir_portal.smart.scope import MOST_REQUESTED, ScopeSet
from fhir_portal.smart.token import AccessToken, RefreshToken, TokenFamily

# At DEBUG, Authlib writes tokens into the log.
logging.getLogger("authlib").setLevel(logging.INFO)

TOKEN_AUTH_METHODS: Final = (
    "client_secret_basic",
    "client_secret_post",
    "private_key_jwt",
    "none",
)
TOKEN_PATH: Final = "/oauth/token"  # noqa: S105 - an address
TOKEN_EXCHANGE: Final = "urn:ietf:params:oauth:grant-type:token-exchange"  # noqa: S105 - a name


def audiences(issuer: Issuer, path: str) -> list[str]:
    """What a client assertion may name as ``aud`` at the endpoint with this path.

    SMART 2.2 §4 says the token endpoint; RFC 9126 §2 adds the issuer and the endpoint itself.
    """
    return list(
        dict.fromkeys(one for of in (TOKEN_PATH, path, "") for one in issuer.everywhere(of))
    )


@dataclass(frozen=True, slots=True)
class FormRequest:
    """A form posted to an endpoint: its parameters, each once, and the Authorization header.

    ``address`` is the network address it came from, ``dpop`` a DPoP proof that came with it.
    """

    form: Mapping[str, str]
    authorization: str | None = None
    address: str = ""
    dpop: str | None = None


@dataclass(frozen=True, slots=True)
class Insert:
    """A record that must be new."""

    record: Record


@dataclass(frozen=True, slots=True)
class Replace:
    """A record that must still be what was loaded."""

    old: Record
    new: Record


@dataclass(frozen=True, slots=True)
class Setting:
    """What stays the same from request to request."""

    issuer: Issuer
    lifetimes: Lifetimes
    keys: ServerKeys
    narrow: Callable[[ScopeSet, Right | None], ScopeSet]
    random: Callable[[int], bytes]
    dpop: DpopPolicy


@dataclass(frozen=True, slots=True)
class Loaded:
    """What was read from the store for one request, before Authlib runs.

    ``account`` and ``right`` belong to the code or the family; ``right`` is ``None`` when the
    account does not have it any more. ``presented`` is the refresh token of the request,
    ``current`` the access token of its family's generation. ``records`` are those of a consent for
    several that the account may still use. ``subject`` is the token of an exchange, ``child`` the
    family of the record it is exchanged for. ``token`` is what is introspected or revoked.
    ``jwks`` are the keys, by client, that were read from an address of the client's.
    """

    clients: Mapping[str, Client] = field(default_factory=dict)
    jwks: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    code: AuthorizationCode | None = None
    family: TokenFamily | None = None
    presented: RefreshToken | None = None
    current: AccessToken | None = None
    records: tuple[tuple[ConsentedRecord | TokenFamily, RecordAccess], ...] = ()
    subject: AccessToken | None = None
    child: TokenFamily | None = None
    token: AccessToken | TokenFamily | None = None
    account: Account | None = None
    right: Right | None = None


class Exchange(AuthorizationServer):  # type: ignore[misc] # Authlib has no type information
    """Authlib's authorization server for the length of one request.

    ``writes`` is what a success commits; ``code`` the authorization code that was made; ``ended``
    the family that must end whatever the answer is, and why. ``path`` is the endpoint's. ``jkt`` is
    the thumbprint of the DPoP key that was proved.
    """

    def __init__(
        self,
        setting: Setting,
        loaded: Loaded,
        now: float,
        *,
        path: str = TOKEN_PATH,
        grants: Sequence[tuple[type, Sequence[Any]]] = (),
        endpoints: Sequence[type] = (),
    ) -> None:
        super().__init__()
        self.setting = setting
        self.loaded = loaded
        self.now = now
        self.writes: list[Insert | Replace] = []
        self.code = ""
        self.ended: tuple[str, str] | None = None
        self.path = path
        self.jkt: str | None = None
        self.revoked: AccessToken | TokenFamily | None = None
        self.register_client_auth_method(
            "private_key_jwt",
            PrivateKeyJwt(
                audiences=audiences(setting.issuer, path),
                now=now,
                use=lambda used: self.writes.append(Insert(used)),
            ),
        )
        self.register_extension(_Iss(setting.issuer.base))
        for grant, extensions in grants:
            self.register_grant(grant, extensions)
        for endpoint in endpoints:
            self.register_endpoint(endpoint)

    def validated_grant(self, request: LoadedRequest) -> Any:
        """Return the grant for a valid authorization request, or raise our `errors.OAuthError`."""
        try:
            return self.get_consent_grant(request)
        except authlib_errors.OAuth2Error as error:
            raise refusal_of(error) from None

    def query_client(self, client_id: str) -> LoadedClient | None:
        client = self.loaded.clients.get(client_id)
        if client is None or client.disabled:
            return None
        return LoadedClient(client, self.loaded.jwks.get(client_id, client.jwks))

    def authenticate_client(
        self, request: LoadedRequest, methods: Sequence[str], endpoint: str = "token"
    ) -> LoadedClient:
        """Have Authlib find out who asks; tell a client that waits for its review so."""
        client: LoadedClient = super().authenticate_client(request, methods, endpoint)
        if client.record.awaits_review:
            raise errors.UnauthorizedClient(
                "This client waits until an operator of the portal has approved it."
            )
        wanted = self.setting.dpop.required or client.record.dpop_bound_access_tokens
        if wanted and self.jkt is None and self.path == TOKEN_PATH:
            raise errors.InvalidDpopProof("this client's tokens are bound: send a DPoP proof")
        return client

    def prove(self, proof: str) -> None:
        """Take a DPoP proof made for this endpoint; raises `errors.OAuthError`."""
        keys, policy = self.setting.keys, self.setting.dpop
        shown = Shown(proof, "POST", tuple(self.setting.issuer.everywhere(self.path)))
        self.jkt = verify(
            shown,
            now=self.now,
            seen=lambda used: self.writes.append(Insert(used)),
            nonces=nonces_at(keys, self.now) if policy.nonce else None,
        )

    def send_signal(self, name: str, *args: Any, **kwargs: Any) -> None:
        """Nobody listens to Authlib's signals."""

    def create_oauth2_request(self, request: OAuth2Request) -> OAuth2Request:
        return request

    def validate_requested_scope(self, scope: str | None) -> None:
        """Scopes are judged by `LoadedClient.get_allowed_scope`, which narrows them."""

    def handle_response(
        self, status: int, body: Any, headers: Sequence[tuple[str, str]]
    ) -> AuthlibResponse:
        return AuthlibResponse(status, body, dict(headers).get("Location"))

    def handle_error_response(
        self,
        request: Any,  # noqa: ARG002 - Authlib's signature
        error: authlib_errors.OAuth2Error,
    ) -> Any:
        raise refusal_of(error)


class _Iss(IssuerParameter):  # type: ignore[misc] # Authlib has no type information
    """``iss`` in every authorization response (RFC 9207)."""

    def __init__(self, issuer: str) -> None:
        self._issuer = issuer

    def get_issuer(self) -> str:
        return self._issuer


@dataclass(slots=True)
class AuthlibResponse:
    """What Authlib answers: JSON of the token endpoint, or a redirect."""

    status: int
    body: Any
    location: str | None


class LoadedClient(ClientMixin):  # type: ignore[misc] # Authlib has no type information
    """A `Client` as Authlib wants to ask it; ``jwks`` are its keys, wherever they are kept."""

    def __init__(self, record: Client, jwks: Mapping[str, Any] | None) -> None:
        self.record = record
        self.jwks = jwks

    @property
    def client_id(self) -> str:
        return self.record.key

    def get_client_id(self) -> str:
        return self.record.key

    def get_default_redirect_uri(self) -> None:
        """There is none: every request names its own."""

    def check_redirect_uri(self, redirect_uri: str) -> bool:
        return self.record.may_redirect_to(redirect_uri)

    def check_client_secret(self, client_secret: str) -> bool:
        return is_secret(client_secret, self.record.secret_hash)

    def check_endpoint_auth_method(self, method: str, endpoint: str) -> bool:  # noqa: ARG002
        """A secret may come by either of its two ways, whichever was registered."""
        if self.record.auth_method in SECRET_METHODS:
            return method in SECRET_METHODS
        return self.record.auth_method == method

    def check_response_type(self, response_type: str) -> bool:
        return response_type == "code" and self.record.type != "backend"

    def check_grant_type(self, grant_type: str) -> bool:
        if self.record.type == "backend":
            return grant_type == "client_credentials"
        return grant_type in ("authorization_code", "refresh_token", TOKEN_EXCHANGE)

    def get_allowed_scope(self, scope: str | None) -> str | None:
        """What of ``scope`` the client may ask for; ``None`` when nothing is left."""
        try:
            asked = ScopeSet.parse(scope or "", at_most=MOST_REQUESTED)
        except errors.InvalidScope:
            return None
        return str(asked.within(self.record.may_ask_for)) or None


class LoadedToken(TokenMixin):  # type: ignore[misc] # Authlib has no type information
    """An access token, or a family standing for its refresh token, as Authlib wants to ask it."""

    def __init__(self, record: AccessToken | TokenFamily, now: float) -> None:
        self.record = record
        self._now = now

    def check_client(self, client: LoadedClient) -> bool:
        return self.record.client_id == client.record.key

    def get_scope(self) -> str:
        return self.record.scope

    def is_expired(self) -> bool:
        return self._now >= (self.record.expires or 0)

    def is_revoked(self) -> bool:
        return isinstance(self.record, TokenFamily) and self.record.ended is not None


class _Parameters(OAuth2Payload):  # type: ignore[misc] # Authlib has no type information
    def __init__(self, data: Mapping[str, str]) -> None:
        self._data = dict(data)

    @property
    def data(self) -> dict[str, str]:
        return self._data

    @property
    def datalist(self) -> dict[str, list[str]]:
        return {name: [value] for name, value in self._data.items()}


class LoadedRequest(OAuth2Request):  # type: ignore[misc] # Authlib has no type information
    """A request whose parameters were parsed and checked for repeats before."""

    def __init__(
        self, method: str, uri: str, data: Mapping[str, str], authorization: str | None = None
    ) -> None:
        super().__init__(
            method, uri, headers={"Authorization": authorization} if authorization else {}
        )
        self.payload = _Parameters(data)

    @property
    def args(self) -> dict[str, str]:
        return dict(self.payload.data)

    @property
    def form(self) -> dict[str, str]:
        return dict(self.payload.data)


def refusal_of(error: authlib_errors.OAuth2Error) -> errors.OAuthError:
    """Turn Authlib's refusal into ours, which is rendered in one place."""
    kind = _KINDS.get(str(error.error), errors.InvalidRequest)
    description = error.get_error_description() or ""
    if kind in _REPEATS:
        description = _REPEATS[kind]
    elif invalid_error_characters(description):
        description = ""  # it repeats what was sent
    return kind(description, redirect_uri=error.redirect_uri, state=error.state)


_KINDS: Final = {
    kind.error: kind
    for kind in (
        errors.InvalidRequest,
        errors.InvalidClient,
        errors.InvalidGrant,
        errors.UnauthorizedClient,
        errors.UnsupportedGrantType,
        errors.UnsupportedResponseType,
        errors.InvalidScope,
        errors.AccessDenied,
    )
}

_REPEATS: Final[Mapping[type[errors.OAuthError], str]] = {
    errors.UnsupportedGrantType: "this grant_type is not supported",
    errors.UnsupportedResponseType: "this response_type is not supported",
}
"""Where Authlib's words repeat what was sent, which may be a token in the wrong field."""
