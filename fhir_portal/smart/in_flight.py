"""Authorization requests in flight: judged, kept for one browser, changed, and given up."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import msgspec

from fhir_portal.records import RecordStore, RecordTransaction
from fhir_portal.smart import errors
from fhir_portal.smart.authorization import (
    HANDLE_BYTES,
    AuthorizationRequest,
    check_parameters,
    redirect_uri_of,
)
from fhir_portal.smart.client import Client
from fhir_portal.smart.exchange import Setting
from fhir_portal.smart.grantable import Grantable
from fhir_portal.smart.grants.authorization_code import consent_grant
from fhir_portal.smart.launch import LAUNCH, find_launch
from fhir_portal.smart.par import PushedRequest, pushed_over
from fhir_portal.smart.scope import MOST_OF_UNCHECKED, MOST_REQUESTED, ScopeSet
from fhir_portal.smart.token import base64url, token_hash


class RequestsInFlight:
    """Keeps each from its judgement to its answer. ``clock`` gives seconds since 1970 UTC."""

    def __init__(
        self,
        store: RecordStore,
        setting: Setting,
        *,
        grantable: Grantable,
        clock: Callable[[], float],
    ) -> None:
        self._store = store
        self._setting = setting
        self._grantable = grantable
        self._clock = clock

    async def judged(
        self,
        client: Client,
        parameters: Mapping[str, str],
        repeated: frozenset[str],
        *,
        was_pushed: bool = False,
    ) -> dict[str, str]:
        """Refuse an authorization request that cannot be granted; return what to keep of it.

        Of ``launch`` the hash is kept; in a request that ``was_pushed`` it is that already.
        Raises `errors.OAuthError`.
        """
        kept = check_parameters(parameters, repeated, self._setting.issuer)
        most = MOST_OF_UNCHECKED if client.self_registered else MOST_REQUESTED
        scope = ScopeSet.parse(kept.get("scope", ""), at_most=most)
        launch = None
        if LAUNCH in kept:
            if not was_pushed:
                kept[LAUNCH] = token_hash(kept[LAUNCH])
            launch = await find_launch(self._store, kept[LAUNCH], client, now=self._clock())
            if LAUNCH not in scope.within(client.may_ask_for).identity:
                raise errors.InvalidScope("with launch ask for the scope launch")
            if "authorization_details" in kept:
                raise errors.InvalidRequest("a launch is for one record: no authorization_details")
        if "authorization_details" in kept and not (
            scope.context == "patient" and "openid" in scope.identity
        ):
            raise errors.InvalidScope(
                "with authorization_details ask for openid and patient/ scopes"
            )
        grant = consent_grant(self._setting, client, kept, now=self._clock())
        allowed = self._grantable.askable(ScopeSet.parse(grant.request.scope), launch)
        allowed = self._grantable.narrowed(allowed, None)
        if not allowed or (scope.resource and not allowed.resource):
            raise errors.InvalidScope("none of these scopes can be granted to this client")
        return kept

    async def keep(
        self, parameters: Mapping[str, str], *, browser: str, pushed: PushedRequest | None
    ) -> str:
        """Keep a request that was judged; return its handle. Uses up the one that was pushed.

        Raises `errors.InvalidRequestUri` when another got that first.
        """
        handle, now = base64url(self._setting.random(HANDLE_BYTES)), self._clock()
        request = AuthorizationRequest(
            key=token_hash(handle),
            expires=now + self._setting.lifetimes.authorization_request,
            issued=now,
            parameters=dict(parameters),
            browser=browser,
        )

        async def insert(transaction: RecordTransaction) -> None:
            if pushed is not None and not await transaction.delete(PushedRequest, pushed.key):
                raise pushed_over()
            await transaction.insert(request)

        await self._store.transact(insert)
        return handle

    async def resume(self, handle: str, browser: str) -> AuthorizationRequest:
        """Return the request of a handle in the browser it began in.

        Raises `errors.InvalidRequest` when it is unknown, over, answered, or another browser's.
        """
        request = await self._store.get(AuthorizationRequest, token_hash(handle))
        if request is not None and not request.browser:
            bound = msgspec.structs.replace(request, browser=browser)
            request = bound if await self.replace(request, bound) else None
        if request is None or self._clock() >= request.expires or request.browser != browser:
            raise errors.InvalidRequest("This request is over, or was opened in another browser.")
        return request

    async def is_unbound(self, handle: str) -> bool:
        """Whether a request waits under this handle for the browser it will belong to."""
        request = await self._store.get(AuthorizationRequest, token_hash(handle))
        return request is not None and not request.browser and self._clock() < request.expires

    async def client_of(self, request: AuthorizationRequest) -> Client:
        """Its app, as far as that may still be answered. Raises as `redirect_uri_of` does."""
        client = await self._store.get(Client, request.client_id)
        redirect_uri_of(client, request.parameters, frozenset())
        assert client is not None  # noqa: S101 - redirect_uri_of refuses
        return client

    async def replace(self, old: AuthorizationRequest, new: AuthorizationRequest) -> bool:
        """Put another in its place; false when it was answered, or changed by somebody else."""

        async def change(transaction: RecordTransaction) -> bool:
            return await transaction.replace(old, new)

        return await self._store.transact(change)

    async def given_up(
        self, request: AuthorizationRequest, error: errors.OAuthError
    ) -> errors.OAuthError:
        """Forget the request; return the error addressed to its app."""

        async def forget(transaction: RecordTransaction) -> bool:
            return await transaction.delete(AuthorizationRequest, request.key)

        if not await self._store.transact(forget):
            return errors.InvalidRequest("This request was answered before.")
        error.redirect_uri, error.state = request.redirect_uri, request.state
        error.unchecked_app = unchecked_app(await self._store.get(Client, request.client_id))
        return error


def unchecked_app(client: Client | None) -> str | None:
    """The name of an app that nobody has looked at."""
    return client.name if client is not None and client.self_registered else None
