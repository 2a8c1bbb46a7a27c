"""Token exchange (RFC 8693): one record's token for the token that lists the records.

The subject is the access token of a consent for several records; `authorization_details` names one
of them (RFC 9396 §6). What comes out is that record's own token, inside what was allowed on it. It
is short-lived and comes without a refresh token: whoever holds the list can exchange again.
"""

from __future__ import annotations

from typing import Any, ClassVar, Final

from authlib.oauth2.rfc6749 import (
    BaseGrant,
    InvalidRequestError,
    InvalidScopeError,
    TokenEndpointMixin,
    UnauthorizedClientError,
)

from fhir_portal.smart import errors
from fhir_portal.smart.exchange import TOKEN_AUTH_METHODS, TOKEN_EXCHANGE, Insert, Replace
from fhir_portal.smart.grants.issue import (
    access_token_row,
    detail_of,
    launch_context,
    launch_display,
    named_grant,
    narrowed_scope,
    token_type,
)
from fhir_portal.smart.scope import MOST_REQUESTED, ScopeSet
from fhir_portal.smart.token import base64url, token_hash

ACCESS_TOKEN: Final = "urn:ietf:params:oauth:token-type:access_token"  # noqa: S105 - a name
_TOKEN_BYTES: Final = 32


class TokenExchangeGrant(BaseGrant, TokenEndpointMixin):  # type: ignore[misc] # Authlib is untyped
    """The grant in Authlib's frame; Authlib has none of its own."""

    GRANT_TYPE = TOKEN_EXCHANGE
    TOKEN_ENDPOINT_AUTH_METHODS: ClassVar = list(TOKEN_AUTH_METHODS)

    def validate_token_request(self) -> None:
        client = self.authenticate_token_endpoint_client()
        if not client.check_grant_type(self.GRANT_TYPE):
            raise UnauthorizedClientError("This client has no tokens to exchange.")
        self.request.client = client
        form = self.request.form
        if form.get("subject_token_type") != ACCESS_TOKEN:
            raise InvalidRequestError(f"subject_token_type must be {ACCESS_TOKEN}")
        if form.get("requested_token_type", ACCESS_TOKEN) != ACCESS_TOKEN:
            raise InvalidRequestError(f"requested_token_type must be {ACCESS_TOKEN}")
        if "actor_token" in form or "actor_token_type" in form:
            raise InvalidRequestError("Nobody acts for anybody here: leave actor_token out.")
        for name in ("resource", "audience"):
            if name in form and not self.server.setting.issuer.is_audience(form[name]):
                raise errors.InvalidTarget(f"{name} must be {self.server.setting.issuer.fhir}")

    def create_token_response(self) -> tuple[int, dict[str, Any], list[tuple[str, str]]]:
        exchange, loaded = self.server, self.server.loaded
        subject, listing, child = loaded.subject, loaded.family, loaded.child
        if (
            subject is None
            or listing is None
            or not listing.is_list
            or subject.client_id != self.request.client.client_id
            or listing.ended is not None
            or exchange.now >= listing.expires
            or loaded.account is None
            or loaded.account.disabled
        ):
            raise InvalidRequestError("subject_token is not a token that lists records, or is over")
        if subject.jkt not in (None, exchange.jkt):
            raise errors.InvalidDpopProof("subject_token is bound to another DPoP key")
        if child is None:
            raise errors.InvalidAuthorizationDetails("identifier names no record of this consent")
        if child.ended is not None or exchange.now >= child.expires or loaded.right is None:
            raise errors.InvalidTarget("access to this record has ended")
        granted = narrowed_scope(exchange, self._asked(child.scope))
        token = base64url(exchange.setting.random(_TOKEN_BYTES))
        row = access_token_row(exchange, child, token_hash(token), granted)
        # Both as they were read: whoever ends either meanwhile has the exchange judged again.
        exchange.writes += [Replace(listing, listing), Replace(child, child), Insert(row)]
        response = {
            "access_token": token,
            "issued_token_type": ACCESS_TOKEN,
            "token_type": token_type(row.jkt),
            "expires_in": round(row.expires - row.issued),
            "scope": row.scope,
            **launch_context(exchange, child),
            **launch_display(exchange, child),
            **named_grant(exchange, child),
            "authorization_details": [detail_of(exchange, child, scope=row.scope)],
        }
        return 200, response, self.TOKEN_RESPONSE_HEADER

    def _asked(self, allowed: str) -> str:
        """The scope that was asked for, or all that was allowed on the record."""
        text = self.request.payload.scope
        if not text:
            return allowed
        try:
            asked = ScopeSet.parse(text, at_most=MOST_REQUESTED)
        except errors.InvalidScope:
            raise InvalidScopeError from None
        if not asked.resource or not ScopeSet.parse(allowed).covers(asked):
            raise InvalidScopeError
        return str(asked)
