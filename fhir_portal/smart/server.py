"""The authorization server: its endpoints, in the order in which an app meets them.

What a request names is loaded (`loading`), Authlib decides over it (`exchange`, ``grants/``,
`endpoints`), and the outcome is committed (`outcome`). A person is led through an authorization
request (`in_flight`) by the way to a right (`way`) to their approval (`approval`), within what can
be granted at all (`grantable`).
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from typing import Any, Final

import msgspec
import structlog

from fhir_portal.accounts.sessions import Visitor
from fhir_portal.accounts.throttle import Throttle, TooManyAttempts, network_of
from fhir_portal.consent.record import RecordDirectory, ScopePolicy, StaffAccess
from fhir_portal.records import RecordStore
from fhir_portal.smart import authorization_details, errors, security_event
from fhir_portal.smart.approval import Approvals
from fhir_portal.smart.authorization import (
    AskConsent,
    AuthorizationRequest,
    FindVisits,
    Finished,
    Sees,
    SignInFirst,
    Step,
    collect,
    needed,
    redirect_uri_of,
)
from fhir_portal.smart.client import Client
from fhir_portal.smart.client_auth.private_key_jwt import assertion_used
from fhir_portal.smart.client_configuration import delete_client, read_client, update_client
from fhir_portal.smart.client_keys import ClientKeys
from fhir_portal.smart.connection_notices import ConnectionNotices
from fhir_portal.smart.discovery import openid_configuration, scopes_supported, smart_configuration
from fhir_portal.smart.dpop import DpopPolicy
from fhir_portal.smart.endpoints import Introspection, Revocation
from fhir_portal.smart.exchange import TOKEN_EXCHANGE, Exchange, FormRequest, Insert, Setting
from fhir_portal.smart.grantable import Grantable
from fhir_portal.smart.grants.authorization_code import AuthorizationCodeGrant
from fhir_portal.smart.grants.client_credentials import ClientCredentialsGrant
from fhir_portal.smart.grants.refresh_token import RefreshTokenGrant
from fhir_portal.smart.grants.token_exchange import TokenExchangeGrant
from fhir_portal.smart.id_token import IdToken
from fhir_portal.smart.in_flight import RequestsInFlight, unchecked_app
from fhir_portal.smart.issuer import Issuer, Lifetimes
from fhir_portal.smart.keys import KeyRing, ServerKeys
from fhir_portal.smart.loading import Loader
from fhir_portal.smart.narrowing import NOT_NARROWED, EndDates, Narrowing
from fhir_portal.smart.outcome import answer, commit
from fhir_portal.smart.par import (
    LIFETIME_SECONDS,
    PAR_PATH,
    PUSHED_REQUEST,
    REFERENCE_BYTES,
    PushedRequest,
    PushedRequests,
    find_pushed,
    key_of,
    request_uri_of,
)
from fhir_portal.smart.pkce import RequiredS256
from fhir_portal.smart.registration import register_client
from fhir_portal.smart.right import is_staffs
from fhir_portal.smart.scope import Scope
from fhir_portal.smart.token import base64url
from fhir_portal.smart.way import Way, Ways

REGISTRATIONS_PER_ADDRESS: Final = "20 per hour"
REQUESTS_PER_ADDRESS: Final = "2000 per hour"
"""Authorization requests: each is kept until it is answered or over."""
_CREDENTIALS: Final = frozenset({"client_secret", "client_assertion", "client_assertion_type"})
_TRIES: Final = 5

log = structlog.get_logger(__name__)


class AuthorizationServer:
    """Issues, refreshes, introspects and revokes tokens, and leads a person through consent.

    ``resource_types`` are what a wildcard stands for; ``understands`` says whether the search
    parameters of a granular scope exist; ``client_keys`` reads the keys that clients keep at an
    address of their own, which without it are never read. With ``loopback``, for development, that
    may be on this machine. ``notices`` tells people of apps that others connected to their record.
    ``visits`` finds those to choose from; without it no app is told of one that was chosen.
    ``sees`` says whether a person may read, within scopes, what an EHR refers to; without it they
    are told nothing of it.
    ``clock`` gives seconds since 1970 UTC.
    """

    def __init__(
        self,
        *,
        store: RecordStore,
        directory: RecordDirectory,
        policy: ScopePolicy,
        keys: ServerKeys,
        issuer: Issuer,
        resource_types: Sequence[str],
        understands: Callable[[Scope], bool],
        lifetimes: Lifetimes | None = None,
        client_keys: ClientKeys | None = None,
        loopback: bool = False,
        dpop: DpopPolicy | None = None,
        notices: ConnectionNotices,
        visits: FindVisits | None = None,
        sees: Sees | None = None,
        clock: Callable[[], float] = time.time,
        random: Callable[[int], bytes] = secrets.token_bytes,
    ) -> None:
        self.issuer = issuer
        self.keys = keys
        self.directory = directory
        self.lifetimes = lifetimes or Lifetimes()
        self._store = store
        self._loopback = loopback
        self._clock = clock
        self._random = random
        self._key_ring = KeyRing(store, keys, clock)
        self._throttle = Throttle(store, clock)
        self._grantable = Grantable(
            policy, tuple(resource_types), understands, visits=visits is not None
        )
        self._setting = Setting(
            issuer, self.lifetimes, keys, self._grantable.narrowed, random, dpop or DpopPolicy()
        )
        self._loader = Loader(
            store, directory, issuer=issuer, keys=keys, client_keys=client_keys, clock=clock
        )
        self._in_flight = RequestsInFlight(
            store, self._setting, grantable=self._grantable, clock=clock
        )
        self._ways = Ways(
            store,
            directory,
            in_flight=self._in_flight,
            grantable=self._grantable,
            visits=visits,
            clock=clock,
        )
        self._approvals = Approvals(
            store,
            self._setting,
            in_flight=self._in_flight,
            grantable=self._grantable,
            notices=notices,
            sees=sees,
            clock=clock,
        )

    # --- documents -----------------------------------------------------------------------------

    def smart_configuration(self) -> dict[str, Any]:
        """The document at ``/fhir/.well-known/smart-configuration``."""
        return smart_configuration(self.issuer, self._scopes_supported())

    def openid_configuration(self) -> dict[str, Any]:
        """The document at ``/.well-known/openid-configuration``."""
        return openid_configuration(self.issuer, self._scopes_supported())

    async def signing_keys(self) -> ServerKeys:
        """The keys to sign with now: an operator may have rotated them since the start."""
        return await self._key_ring.now()

    async def jwks(self) -> dict[str, Any]:
        """The document at ``/oauth/jwks``."""
        return (await self.signing_keys()).jwks()

    def authorization_details(self) -> dict[str, Any]:
        """What authorization details are made of, as a JSON Schema."""
        return authorization_details.schema(self.issuer)

    def revocation_event(self) -> dict[str, Any]:
        """What an app is told when access ends, as a JSON Schema."""
        return security_event.schema(self.issuer)

    def _scopes_supported(self) -> tuple[str, ...]:
        return scopes_supported(self._grantable.policy, self._grantable.resource_types)

    # --- token, introspection, revocation, registration ----------------------------------------

    async def token(self, request: FormRequest) -> dict[str, Any]:
        """Answer the token endpoint (RFC 6749 §3.2) or raise an `errors.OAuthError`."""
        if not request.form.get("grant_type"):
            raise errors.InvalidRequest("grant_type is missing")
        if "authorization_details" in request.form and request.form["grant_type"] != TOKEN_EXCHANGE:
            raise errors.InvalidAuthorizationDetails("authorization_details go with an exchange")
        grants = (
            (AuthorizationCodeGrant, (RequiredS256(required=True), IdToken())),
            (RefreshTokenGrant, ()),
            (ClientCredentialsGrant, ()),
            (TokenExchangeGrant, ()),
        )
        request = await self._loader.identified(request)
        setting = self._setting
        if request.form["grant_type"] == "authorization_code":  # it may buy an id_token
            setting = replace(setting, keys=await self.signing_keys())
        for _ in range(_TRIES):
            loaded = await self._loader.for_token(request)
            exchange = Exchange(setting, loaded, self._clock(), grants=grants)
            if request.dpop is not None:
                exchange.prove(request.dpop)
            response = await answer(exchange, request, store=self._store, clock=self._clock)
            if await commit(exchange, self._store):
                return dict(response.body)
        raise errors.InvalidGrant("the grant is being used elsewhere at this moment")

    async def introspect(self, request: FormRequest) -> dict[str, Any]:
        """Answer the introspection endpoint (RFC 7662 §2.2) or raise an `errors.OAuthError`."""
        loaded = await self._loader.token_shown(request, in_force_only=True)
        exchange = Exchange(
            self._setting,
            loaded,
            self._clock(),
            path="/oauth/introspect",
            endpoints=(Introspection,),
        )
        response = await answer(
            exchange, request, Introspection.ENDPOINT_NAME, store=self._store, clock=self._clock
        )
        if not await commit(exchange, self._store):
            raise assertion_used()
        return dict(response.body)

    async def revoke(self, request: FormRequest) -> None:
        """Answer the revocation endpoint (RFC 7009 §2.2) or raise an `errors.OAuthError`.

        An unknown token is no error: it is as good as revoked.
        """
        loaded = await self._loader.token_shown(request, in_force_only=False)
        exchange = Exchange(
            self._setting, loaded, self._clock(), path="/oauth/revoke", endpoints=(Revocation,)
        )
        await answer(
            exchange, request, Revocation.ENDPOINT_NAME, store=self._store, clock=self._clock
        )
        if not await commit(exchange, self._store):
            raise assertion_used()

    async def register(self, metadata: Any, *, address: str) -> dict[str, Any]:
        """Answer the registration endpoint (RFC 7591 §3) or raise an `errors.OAuthError`."""
        await self._limit(REGISTRATIONS_PER_ADDRESS, "registrations", address)
        information = await register_client(
            self._store,
            metadata,
            issuer=self.issuer,
            now=self._clock(),
            random=self._random,
            loopback=self._loopback,
        )
        log.info("client registered", client_id=information["client_id"])
        return information

    async def registration(self, client_id: str, token: str | None) -> dict[str, Any]:
        """Read a registration (RFC 7592 §2.1) or raise `errors.InvalidToken`."""
        return await read_client(self._store, client_id, token, issuer=self.issuer)

    async def change_registration(
        self, client_id: str, token: str | None, metadata: Any
    ) -> dict[str, Any]:
        """Replace a registration (RFC 7592 §2.2) or raise an `errors.OAuthError`."""
        information = await update_client(
            self._store,
            client_id,
            token,
            metadata,
            issuer=self.issuer,
            now=self._clock(),
            random=self._random,
            loopback=self._loopback,
        )
        log.info("client changed its registration", client_id=client_id)
        return information

    async def end_registration(self, client_id: str, token: str | None) -> None:
        """End a registration (RFC 7592 §2.3) or raise `errors.InvalidToken`."""
        await delete_client(self._store, client_id, token, now=self._clock())
        log.info("client ended its registration", client_id=client_id)

    async def push(self, request: FormRequest) -> dict[str, Any]:
        """Answer the pushed authorization request endpoint (RFC 9126 §2) or raise an `OAuthError`.

        The request is judged as the authorization endpoint would judge it.
        """
        exchange = Exchange(
            self._setting,
            await self._loader.clients(request),
            self._clock(),
            path=PAR_PATH,
            endpoints=(PushedRequests,),
        )
        answered = await answer(
            exchange, request, PUSHED_REQUEST, store=self._store, clock=self._clock
        )
        client: Client = answered.body
        if "request_uri" in request.form:
            raise errors.InvalidRequest("request_uri cannot be pushed")  # RFC 9126 §2.1
        parameters = {n: v for n, v in request.form.items() if n not in _CREDENTIALS}
        parameters["client_id"] = client.key
        redirect_uri_of(client, parameters, frozenset())
        if request.dpop is not None:
            exchange.prove(request.dpop)
            if parameters.setdefault("dpop_jkt", exchange.jkt or "") != exchange.jkt:
                raise errors.InvalidDpopProof("dpop_jkt is another key than the proof's")
        await self._limit(REQUESTS_PER_ADDRESS, "requests", request.address)
        kept = await self._in_flight.judged(client, parameters, frozenset())
        reference = base64url(self._random(REFERENCE_BYTES))
        request_uri = request_uri_of(reference)
        pushed = PushedRequest(
            key=key_of(request_uri),
            expires=exchange.now + LIFETIME_SECONDS,
            client_id=client.key,
            parameters=kept,
        )
        exchange.writes.append(Insert(pushed))
        if not await commit(exchange, self._store):
            raise errors.InvalidClient("the client was changed at this moment; try again")
        return {"request_uri": request_uri, "expires_in": LIFETIME_SECONDS}

    # --- authorization -------------------------------------------------------------------------

    async def begin(
        self, pairs: Sequence[tuple[str, str]], *, browser: str = "", address: str = ""
    ) -> str:
        """Judge an authorization request and keep it; return the handle for the pages.

        ``browser`` binds it to a session; ``""`` leaves that to the first `resume`. ``address`` is
        where it came from. Raises `errors.OAuthError`: with ``redirect_uri`` set the app is told,
        otherwise a page says it.
        """
        parameters, repeated = collect(pairs)
        pushed = await find_pushed(self._store, parameters, repeated, now=self._clock())
        if pushed is not None:  # what else the browser brings does not count (RFC 9101 §6.3)
            parameters, repeated = pushed.parameters, frozenset()
        client = await self._store.get(Client, parameters.get("client_id", ""))
        redirect_uri = redirect_uri_of(client, parameters, repeated)
        assert client is not None  # noqa: S101 - redirect_uri_of refuses
        await self._limit(REQUESTS_PER_ADDRESS, "requests", address)
        try:
            if pushed is None and client.require_pushed_authorization_requests:
                raise errors.InvalidRequest("this client has to push its requests to /oauth/par")
            kept = await self._in_flight.judged(
                client, parameters, repeated, was_pushed=pushed is not None
            )
        except errors.OAuthError as error:
            error.redirect_uri = redirect_uri
            error.state = parameters.get("state")
            error.unchecked_app = unchecked_app(client)
            raise
        return await self._in_flight.keep(kept, browser=browser, pushed=pushed)

    async def resume(self, handle: str, browser: str) -> AuthorizationRequest:
        """Return the request of a handle in the browser it began in.

        Raises `errors.InvalidRequest` when it is unknown, over, answered, or another browser's.
        """
        return await self._in_flight.resume(handle, browser)

    async def is_unbound(self, handle: str) -> bool:
        """Whether a request waits under this handle for the browser it will belong to."""
        return await self._in_flight.is_unbound(handle)

    async def step(self, request: AuthorizationRequest, visitor: Visitor) -> Step:
        """Say what comes next for this request and this person.

        Raises `errors.OAuthError` with ``redirect_uri`` when the request cannot go on.
        """
        silent = "none" in request.prompt
        client = await self._in_flight.client_of(request)
        account = visitor.account
        if account is None or not request.accepts_sign_in_of(visitor.auth_time, now=self._clock()):
            if silent:
                raise await self._in_flight.given_up(
                    request, errors.LoginRequired("nobody is signed in")
                )
            return SignInFirst(client, request.login_hint)
        found = await self._ways.find(request, client, account)
        if not isinstance(found, Way):
            if silent:
                raise await self._in_flight.given_up(request, needed(found))
            return found
        offer = self._approvals.offer(request, client, found)
        if request.scope.resource and not offer.scopes:
            raise await self._in_flight.given_up(
                request, errors.InvalidScope("none of these scopes can be granted on this record")
            )
        # Who comes back may want to allow less: the page is spared to staff, and where it is wanted
        # that nobody be asked.
        spared = silent or is_staffs(found.right)
        if spared and await self._approvals.may_be_skipped(
            self._store, request, client, account, found.right, offer
        ):
            location = await self._approvals.give(
                request, visitor, found, offer.everything, skipped=offer
            )
            return Finished(location)
        if silent:
            raise await self._in_flight.given_up(
                request, errors.ConsentRequired("consent is needed")
            )
        return AskConsent(
            client,
            found.record,
            offer,
            other_records=found.other_records,
            about=self._approvals.about(found),
            others=found.others,
            staff=found.right if isinstance(found.right, StaffAccess) else None,
            visit=found.visit,
            other_visits=found.other_visits,
        )

    async def choose_record(
        self, request: AuthorizationRequest, visitor: Visitor, value: str
    ) -> None:
        """Keep the picker's answer: the value of one of `ChooseRecord.records`.

        Raises `errors.AccessDenied` for a record that this account may not use.
        """
        await self.choose_records(request, visitor, [value])

    async def choose_records(
        self, request: AuthorizationRequest, visitor: Visitor, values: Sequence[str]
    ) -> None:
        """Keep the answer of a picker in which several could be ticked (`ChooseRecord.several`).

        Raises `errors.AccessDenied` for a record that this account may not use,
        `errors.InvalidRequest` for none, or for more than may be chosen.
        """
        await self._ways.choose_records(request, visitor, values)

    async def choose_practice(
        self, request: AuthorizationRequest, visitor: Visitor, practice: str
    ) -> None:
        """Keep which of `ChoosePractice.practices` was chosen.

        Raises `errors.AccessDenied` for a practice that this account cannot choose.
        """
        await self._ways.choose_practice(request, visitor, practice)

    async def choose_visit(
        self, request: AuthorizationRequest, visitor: Visitor, encounter: str
    ) -> None:
        """Keep which of `ChooseVisit.visits` was chosen, by its reference.

        Raises `errors.AccessDenied` for a visit that was not offered.
        """
        unchosen = msgspec.structs.replace(request, encounter=None)
        step = await self.step(unchosen, visitor)
        await self._ways.choose_visit(request, step, encounter)

    async def decide(
        self,
        request: AuthorizationRequest,
        visitor: Visitor,
        *,
        approve: bool,
        about: str = "",
        ticked: Collection[str] = (),
        narrowing: Narrowing = NOT_NARROWED,
    ) -> str:
        """Answer the request as the person decided; return where the browser goes.

        ``about`` is what `AskConsent` said the page was about. Raises `NothingTicked`,
        `NarrowingRefused`, `RecordChanged`, `errors.InvalidRequest` for a scope that was not
        offered or a request answered before, `errors.AccessDenied` with ``redirect_uri`` for a no.
        """
        if not approve:
            raise await self._in_flight.given_up(request, errors.AccessDenied("the person said no"))
        step = await self.step(request, visitor)
        if not isinstance(step, AskConsent):
            raise errors.InvalidRequest("There is something else to answer first.")
        scope, until = self._approvals.allowed(step, ticked, about=about, narrowing=narrowing)
        launch = await self._ways.launch_of(request)
        # It is not told which visit to whom no visits are shown.
        shown = any(one.allows("r", "Encounter") for one in scope.resource)
        visit = step.visit if shown else None
        way = Way(step.rights[0], step.record, step.others, launch=launch, visit=visit)
        return await self._approvals.give(request, visitor, way, scope, until=until)

    def end_dates(self, step: AskConsent) -> EndDates:
        """The days that may be chosen as the last of the access."""
        return self._approvals.end_dates(step)

    async def _limit(self, rule: str, what: str, address: str) -> None:
        try:
            await self._throttle.limit(rule, f"{what}:{network_of(address)}")
        except TooManyAttempts as error:
            raise errors.TooManyRequests(
                f"too many {what}", headers={"Retry-After": str(error.retry_after)}
            ) from None
