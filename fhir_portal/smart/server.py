"""The authorization server: loads what a request names, lets Authlib decide, commits the outcome.

Everything one-time is consumed by a compare-and-set in the transaction that issues what it buys.
Whoever loses it is judged again over what is stored now: a code is then a replayed code, and a
refresh token a repeated or reused one.
"""

from __future__ import annotations

import base64
import hmac
import logging
import secrets
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, TypeVar
from urllib.parse import unquote

import msgspec
import structlog

from fhir_portal.accounts.account import Account
from fhir_portal.accounts.sessions import SignedOutMeanwhile, Visitor, still_signed_in
from fhir_portal.accounts.throttle import Throttle, TooManyAttempts, network_of
from fhir_portal.consent.record import (
    Access,
    RecordAccess,
    RecordDirectory,
    ScopePolicy,
    StaffAccess,
    way_to,
)
from fhir_portal.records import DuplicateRecord, RecordReader, RecordStore, RecordTransaction
from fhir_portal.smart import authorization_details, errors, security_event
from fhir_portal.smart.authorization import (
    HANDLE_BYTES,
    AskConsent,
    AuthorizationRequest,
    ChoosePractice,
    ChooseRecord,
    ChooseVisit,
    FindVisits,
    Finished,
    NoRecord,
    NotAllowed,
    Sees,
    SignInFirst,
    Step,
    Visit,
    check_parameters,
    collect,
    redirect_uri_of,
    values_of,
)
from fhir_portal.smart.authorization_details import (
    MOST_RECORDS,
    ConsentedRecord,
    identifier_of,
)
from fhir_portal.smart.client import Client
from fhir_portal.smart.client_auth.private_key_jwt import Asserted, UsedAssertion, asserted
from fhir_portal.smart.client_configuration import delete_client, read_client, update_client
from fhir_portal.smart.client_keys import ClientKeys, KeysUnavailable, was_looked_at
from fhir_portal.smart.code import AuthorizationCode
from fhir_portal.smart.connection import ConnectionNotices, made_by_proxy
from fhir_portal.smart.discovery import openid_configuration, scopes_supported, smart_configuration
from fhir_portal.smart.dpop import DpopPolicy, UsedProof, used_before
from fhir_portal.smart.endpoints import Introspection, Revocation
from fhir_portal.smart.exchange import (
    TOKEN_EXCHANGE,
    Exchange,
    FormRequest,
    Insert,
    Loaded,
    LoadedRequest,
    Setting,
)
from fhir_portal.smart.grants.authorization_code import Approval, AuthorizationCodeGrant
from fhir_portal.smart.grants.client_credentials import ClientCredentialsGrant
from fhir_portal.smart.grants.refresh_token import RefreshTokenGrant
from fhir_portal.smart.grants.token_exchange import TokenExchangeGrant
from fhir_portal.smart.id_token import IdToken
from fhir_portal.smart.issuer import Issuer, Lifetimes
from fhir_portal.smart.keys import KeyRing, ServerKeys
from fhir_portal.smart.launch import LAUNCH, LAUNCH_ENCOUNTER, LAUNCH_PATIENT, Launch
from fhir_portal.smart.launch_context import LaunchContext
from fhir_portal.smart.narrowing import NOT_NARROWED, EndDates, Narrowing
from fhir_portal.smart.offer import OFFLINE_ACCESS, ConsentOffer
from fhir_portal.smart.par import (
    LIFETIME_SECONDS,
    PAR_PATH,
    PUSHED_REQUEST,
    REFERENCE_BYTES,
    PushedRequest,
    PushedRequests,
    is_pushed,
    key_of,
    request_uri_of,
)
from fhir_portal.smart.pkce import RequiredS256
from fhir_portal.smart.redirect import answer_at
from fhir_portal.smart.registration import register_client
from fhir_portal.smart.revocation import BY_CLIENT, revoke_family
from fhir_portal.smart.right import Right, ends_of, is_staffs, still
from fhir_portal.smart.scope import (
    LETTERS,
    MOST_OF_UNCHECKED,
    MOST_REQUESTED,
    Scope,
    ScopeSet,
    merged,
)
from fhir_portal.smart.token import (
    AccessToken,
    RefreshToken,
    TokenFamily,
    authenticate,
    base64url,
    derive_access_token,
    token_hash,
)

REGISTRATIONS_PER_ADDRESS: Final = "20 per hour"
REQUESTS_PER_ADDRESS: Final = "2000 per hour"
"""Authorization requests: each is kept until it is answered or over."""
_CREDENTIALS: Final = frozenset({"client_secret", "client_assertion", "client_assertion_type"})
_TRIES: Final = 5
_ALL: Final = 1_000_000
_BASIC: Final = 'Basic realm="fhir-portal"'

# At DEBUG, Authlib writes tokens into the log.
logging.getLogger("authlib").setLevel(logging.INFO)

C = TypeVar("C", ConsentedRecord, TokenFamily)

log = structlog.get_logger(__name__)


class NothingTicked(Exception):
    """Approved, but with no scope ticked: the page is shown again and says so."""


class RecordChanged(errors.InvalidRequest):
    """The person saw one record, or one way to it, and the answer would be about another."""

    def __init__(self) -> None:
        super().__init__("What this page was about has changed. Look at it again.")


@dataclass(frozen=True, slots=True)
class Way:
    """How a request can be answered: by what right, and what an EHR or the person chose for it.

    ``record`` is what is shown as in context; with a right of staff it is no boundary.
    """

    right: Right
    record: RecordAccess | None
    others: tuple[RecordAccess, ...] = ()
    other_records: bool = False
    launch: Launch | None = None
    visit: Visit | None = None
    other_visits: bool = False

    @property
    def rights(self) -> tuple[Right, ...]:
        return (self.right, *self.others)

    @property
    def launched(self) -> LaunchContext | None:
        """What is told of it beside the record."""
        if self.launch is not None:
            return self.launch.context
        return LaunchContext(encounter=self.visit.reference) if self.visit is not None else None


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
        self._notices = notices
        self._visits = visits
        self._sees = sees
        self.keys = keys
        self._store = store
        self._directory = directory
        self._policy = policy
        self._resource_types = tuple(resource_types)
        self._understands = understands
        self._client_keys = client_keys
        self._key_ring = KeyRing(store, keys, clock)
        self._loopback = loopback
        self.lifetimes = lifetimes or Lifetimes()
        self._clock = clock
        self._random = random
        self._throttle = Throttle(store, clock)
        self._setting = Setting(
            issuer, self.lifetimes, keys, self.narrowed, random, dpop or DpopPolicy()
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
        return scopes_supported(self._policy, self._resource_types)

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
        request = await self._identified(request)
        setting = self._setting
        if request.form["grant_type"] == "authorization_code":  # it may buy an id_token
            setting = replace(setting, keys=await self.signing_keys())
        for _ in range(_TRIES):
            loaded = await self._load_for_token(request)
            exchange = Exchange(setting, loaded, self._clock(), grants=grants)
            if request.dpop is not None:
                exchange.prove(request.dpop)
            response = await self._run(exchange, request, exchange.create_token_response)
            if await self._commit(exchange):
                return dict(response.body)
        raise errors.InvalidGrant("the grant is being used elsewhere at this moment")

    async def introspect(self, request: FormRequest) -> dict[str, Any]:
        """Answer the introspection endpoint (RFC 7662 §2.2) or raise an `errors.OAuthError`."""
        loaded = await self._load_token_shown(request, in_force_only=True)
        exchange = Exchange(
            self._setting,
            loaded,
            self._clock(),
            path="/oauth/introspect",
            endpoints=(Introspection,),
        )
        response = await self._run(
            exchange, request, lambda r: exchange.create_endpoint_response("introspection", r)
        )
        if not await self._commit(exchange):
            raise _assertion_used()
        return dict(response.body)

    async def revoke(self, request: FormRequest) -> None:
        """Answer the revocation endpoint (RFC 7009 §2.2) or raise an `errors.OAuthError`.

        An unknown token is no error: it is as good as revoked.
        """
        loaded = await self._load_token_shown(request, in_force_only=False)
        exchange = Exchange(
            self._setting, loaded, self._clock(), path="/oauth/revoke", endpoints=(Revocation,)
        )
        await self._run(
            exchange, request, lambda r: exchange.create_endpoint_response("revocation", r)
        )
        if not await self._commit(exchange):
            raise _assertion_used()

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
            await self._load_clients(request),
            self._clock(),
            path=PAR_PATH,
            endpoints=(PushedRequests,),
        )
        answered = await self._run(
            exchange,
            request,
            lambda r: exchange.create_endpoint_response(PUSHED_REQUEST, r),
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
        kept = await self._judged(client, parameters, frozenset())
        reference = base64url(self._random(REFERENCE_BYTES))
        request_uri = request_uri_of(reference)
        pushed = PushedRequest(
            key=key_of(request_uri),
            expires=exchange.now + LIFETIME_SECONDS,
            client_id=client.key,
            parameters=kept,
        )
        exchange.writes.append(Insert(pushed))
        if not await self._commit(exchange):
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
        pushed = await self._pushed(parameters, repeated)
        if pushed is not None:  # what else the browser brings does not count (RFC 9101 §6.3)
            parameters, repeated = pushed.parameters, frozenset()
        client = await self._store.get(Client, parameters.get("client_id", ""))
        redirect_uri = redirect_uri_of(client, parameters, repeated)
        assert client is not None  # noqa: S101 - redirect_uri_of refuses
        await self._limit(REQUESTS_PER_ADDRESS, "requests", address)
        try:
            if pushed is None and client.require_pushed_authorization_requests:
                raise errors.InvalidRequest("this client has to push its requests to /oauth/par")
            kept = await self._judged(client, parameters, repeated, was_pushed=pushed is not None)
        except errors.OAuthError as error:
            error.redirect_uri = redirect_uri
            error.state = parameters.get("state")
            error.unchecked_app = _unchecked(client)
            raise
        handle, now = base64url(self._random(HANDLE_BYTES)), self._clock()
        request = AuthorizationRequest(
            key=token_hash(handle),
            expires=now + self.lifetimes.authorization_request,
            issued=now,
            parameters=kept,
            browser=browser,
        )

        async def keep(transaction: RecordTransaction) -> None:
            if pushed is not None and not await transaction.delete(PushedRequest, pushed.key):
                raise _pushed_over()
            await transaction.insert(request)

        await self._store.transact(keep)
        return handle

    async def resume(self, handle: str, browser: str) -> AuthorizationRequest:
        """Return the request of a handle in the browser it began in.

        Raises `errors.InvalidRequest` when it is unknown, over, answered, or another browser's.
        """
        request = await self._store.get(AuthorizationRequest, token_hash(handle))
        if request is not None and not request.browser:
            bound = msgspec.structs.replace(request, browser=browser)
            request = bound if await self._replaced(request, bound) else None
        if request is None or self._clock() >= request.expires or request.browser != browser:
            raise errors.InvalidRequest("This request is over, or was opened in another browser.")
        return request

    async def is_unbound(self, handle: str) -> bool:
        """Whether a request waits under this handle for the browser it will belong to."""
        request = await self._store.get(AuthorizationRequest, token_hash(handle))
        return request is not None and not request.browser and self._clock() < request.expires

    async def step(self, request: AuthorizationRequest, visitor: Visitor) -> Step:
        """Say what comes next for this request and this person.

        Raises `errors.OAuthError` with ``redirect_uri`` when the request cannot go on.
        """
        silent = "none" in request.prompt
        client = await self._client_of(request)
        account = visitor.account
        if account is None or not request.accepts_sign_in_of(visitor.auth_time, now=self._clock()):
            if silent:
                raise await self._given_up(request, errors.LoginRequired("nobody is signed in"))
            return SignInFirst(client, request.login_hint)
        found = await self._way(request, client, account)
        if isinstance(found, Way):
            found = await self._visited(request, client, account, found)
        if not isinstance(found, Way):
            if silent:
                raise await self._given_up(request, _needed(found))
            return found
        offer = self._offer(request, client, found)
        if request.scope.resource and not offer.scopes:
            raise await self._given_up(
                request, errors.InvalidScope("none of these scopes can be granted on this record")
            )
        # Who comes back may want to allow less: the page is spared to staff, and where it is wanted
        # that nobody be asked.
        spared = silent or is_staffs(found.right)
        if spared and await self._was_approved(
            self._store, request, client, account, found.right, offer
        ):
            location = await self._approve(request, visitor, found, offer.everything, skipped=offer)
            return Finished(location)
        if silent:
            raise await self._given_up(request, errors.ConsentRequired("consent is needed"))
        return AskConsent(
            client,
            found.record,
            offer,
            other_records=found.other_records,
            about=self._about(found),
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
        if visitor.account is None:
            raise errors.LoginRequired("nobody is signed in")
        if request.launch is not None or request.is_for_staff:
            raise errors.InvalidRequest("There is no record to choose here.")
        if not 0 < len(set(values)) <= (MOST_RECORDS if request.wants_several else 1):
            raise errors.InvalidRequest("This is not a choice of records.")
        known = values_of(await self._directory.records_of(visitor.account))
        if not known.keys() >= set(values):
            raise errors.AccessDenied("This record cannot be chosen.")
        first, *others = [known[value] for value in dict.fromkeys(values)]
        chosen = msgspec.structs.replace(
            request,
            practice=first.practice,
            patient=first.patient,
            others=tuple((one.practice, one.patient) for one in others),
            encounter=None,
        )
        await self._replaced(request, chosen)

    async def choose_practice(
        self, request: AuthorizationRequest, visitor: Visitor, practice: str
    ) -> None:
        """Keep which of `ChoosePractice.practices` was chosen.

        Raises `errors.AccessDenied` for a practice that this account cannot choose.
        """
        if visitor.account is None:
            raise errors.LoginRequired("nobody is signed in")
        if request.launch is not None or not request.is_for_staff:
            raise errors.InvalidRequest("There is no practice to choose here.")
        client = await self._client_of(request)
        staff = await self._directory.staff_at(visitor.account, practice)
        if staff is None or not client.serves_staff_of(practice):
            raise errors.AccessDenied("This practice cannot be chosen.")
        await self._replaced(request, msgspec.structs.replace(request, practice=staff.practice))

    async def choose_visit(
        self, request: AuthorizationRequest, visitor: Visitor, encounter: str
    ) -> None:
        """Keep which of `ChooseVisit.visits` was chosen, by its reference.

        Raises `errors.AccessDenied` for a visit that was not offered.
        """
        unchosen = msgspec.structs.replace(request, encounter=None)
        step = await self.step(unchosen, visitor)
        if not isinstance(step, ChooseVisit):
            raise errors.InvalidRequest("There is no visit to choose here.")
        if encounter not in {visit.reference for visit in step.visits}:
            raise errors.AccessDenied("This visit cannot be chosen.")
        await self._replaced(request, msgspec.structs.replace(request, encounter=encounter))

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
            raise await self._given_up(request, errors.AccessDenied("the person said no"))
        step = await self.step(request, visitor)
        if not isinstance(step, AskConsent):
            raise errors.InvalidRequest("There is something else to answer first.")
        if not hmac.compare_digest(step.about.encode(), about.encode("utf-8", "replace")):
            raise RecordChanged
        scope = step.offer.granted(ticked)
        if step.offer.scopes and not scope.resource:
            raise NothingTicked
        scope = narrowing.applied(scope, step.rights[0].zone)
        until = self.end_dates(step).end_of(narrowing.until)
        launch = await self._launch_of(request)
        visit = step.visit
        if visit is not None and not any(one.allows("r", "Encounter") for one in scope.resource):
            visit = None  # it is not told which visit to whom no visits are shown
            words = tuple(word for word in scope.identity if word != LAUNCH_ENCOUNTER)
            scope = replace(scope, identity=words)
        way = Way(step.rights[0], step.record, step.others, launch=launch, visit=visit)
        return await self._approve(request, visitor, way, scope, until=until)

    def end_dates(self, step: AskConsent) -> EndDates:
        """The days that may be chosen as the last of the access."""
        return EndDates.of(step.rights, now=self._clock(), lifetimes=self.lifetimes)

    def narrowed(self, scope: ScopeSet, right: Right | None) -> ScopeSet:
        """What of these scopes may be granted at all (``right`` ``None``) or by a right.

        Wildcards become one scope per type, except ``system/*``: there the FHIR side applies
        the same policy type by type.
        """
        context = scope.context
        if context is None:
            return scope
        if context != "system":
            scope = scope.expanded(self._resource_types)
        record = right if isinstance(right, RecordAccess) else None

        def letters(one: Scope) -> str:
            if one.query and not self._understands(one):
                return ""
            if one.resource_type != "*":
                return self._policy.grantable(one.context, one.resource_type, record)
            types = self._resource_types
            found = {c for t in types for c in self._policy.grantable(one.context, t, record)}
            return "".join(letter for letter in LETTERS if letter in found)

        return scope.limited_by(letters)

    # --- within --------------------------------------------------------------------------------

    async def _pushed(
        self, parameters: Mapping[str, str], repeated: frozenset[str]
    ) -> PushedRequest | None:
        """Return the request that was pushed before, when the browser refers to one."""
        request_uri = parameters.get("request_uri", "")
        if not is_pushed(request_uri):
            return None
        if repeated & {"client_id", "request_uri"}:
            raise errors.InvalidRequest("a parameter came more than once")
        found = await self._store.get(PushedRequest, key_of(request_uri))
        if (
            found is None
            or found.client_id != parameters.get("client_id")
            or self._clock() >= found.expires
        ):
            raise _pushed_over()
        return found

    async def _judged(
        self,
        client: Client,
        parameters: Mapping[str, str],
        repeated: frozenset[str],
        *,
        was_pushed: bool = False,
    ) -> dict[str, str]:
        """Refuse an authorization request that cannot be granted; return what to keep of it.

        Of ``launch`` the hash is kept; in a request that ``was_pushed`` it is that already.
        """
        kept = check_parameters(parameters, repeated, self.issuer)
        most = MOST_OF_UNCHECKED if client.self_registered else MOST_REQUESTED
        scope = ScopeSet.parse(kept.get("scope", ""), at_most=most)
        launch = None
        if LAUNCH in kept:
            if not was_pushed:
                kept[LAUNCH] = token_hash(kept[LAUNCH])
            launch = await self._launch(kept[LAUNCH], client)
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
        grant = self._consent_grant(kept, client)
        allowed = self._askable(ScopeSet.parse(grant.request.scope), launch)
        allowed = self.narrowed(allowed, None)
        if not allowed or (scope.resource and not allowed.resource):
            raise errors.InvalidScope("none of these scopes can be granted to this client")
        return kept

    async def _identified(self, request: FormRequest) -> FormRequest:
        """Name the public client of a refresh that names none.

        RFC 6749 §6 asks for no ``client_id`` there, and fhirclient (npm) sends none: the token
        alone says whose it is. A client that can authenticate has to.
        """
        form = request.form
        named = not form.keys().isdisjoint(("client_id", "client_secret", "client_assertion"))
        if form["grant_type"] != "refresh_token" or request.authorization is not None or named:
            return request
        presented = RefreshToken.parse(form.get("refresh_token", ""))
        if presented is None or not presented.is_genuine(self.keys):
            return request
        family = await self._store.get(TokenFamily, presented.family)
        client = await self._store.get(Client, family.client_id) if family is not None else None
        if client is None or client.type != "public":
            return request
        return replace(request, form={**form, "client_id": client.key})

    async def _load_for_token(self, request: FormRequest) -> Loaded:
        loaded = await self._load_clients(request)
        form = request.form
        if form["grant_type"] == "authorization_code" and "code" in form:
            code = await self._store.get(AuthorizationCode, token_hash(form["code"]))
            if code is None:
                return loaded
            account, right = await self._load_access(code.account, code.access, code.client_id)
            if code.records:
                right = None
            records = await self._still_theirs(account, code.records)
            return replace(loaded, code=code, account=account, right=right, records=records)
        if form["grant_type"] == "refresh_token" and "refresh_token" in form:
            presented = RefreshToken.parse(form["refresh_token"])
            if presented is None:
                return loaded
            family = await self._store.get(TokenFamily, presented.family)
            if family is None:
                return loaded
            account, right = await self._load_access(
                family.account, family.access, family.client_id
            )
            newest = derive_access_token(self.keys, presented.handle, family.generation)
            return replace(
                loaded,
                records=await self._still_theirs(account, await self._below(family)),
                family=family,
                presented=presented,
                current=await self._store.get(AccessToken, token_hash(newest)),
                account=account,
                right=right,
            )
        if form["grant_type"] == TOKEN_EXCHANGE:
            return await self._load_exchange(loaded, form)
        return loaded

    async def _load_exchange(self, loaded: Loaded, form: Mapping[str, str]) -> Loaded:
        """Load what an exchange is about: the token that lists, and the record that is named."""
        identifier = identifier_of(form.get("authorization_details", ""), self.issuer)
        subject = await authenticate(self._store, form.get("subject_token", ""), self._clock())
        family = await self._store.get(TokenFamily, subject.family) if subject else None
        if family is None or not family.is_list:
            return loaded
        found = await self._store.find(TokenFamily, "parent", family.key)
        child = next((one for one in found if one.identifier == identifier), None)
        if child is None:
            account = await self._store.get(Account, family.account)
            return replace(loaded, subject=subject, family=family, account=account)
        account, right = await self._load_access(child.account, child.access, child.client_id)
        return replace(
            loaded, subject=subject, family=family, child=child, account=account, right=right
        )

    async def _below(self, family: TokenFamily) -> list[TokenFamily]:
        """The families of the records that a family lists, as far as they have not ended."""
        if not family.is_list:
            return []
        found = await self._store.find(TokenFamily, "parent", family.key)
        return [one for one in found if one.ended is None]

    async def _still_theirs(
        self, account: Account | None, of: Iterable[C]
    ) -> tuple[tuple[C, RecordAccess], ...]:
        """Those records of a consent that the account may still use by the same right."""
        found = []
        for one in of:
            if account is None or account.disabled:
                break
            practice, patient, _, _ = one.access
            record = await self._directory.record_of(account, practice, patient)
            if record is not None and record.access == one.access:
                found.append((one, record))
        return tuple(found)

    async def _load_access(
        self, account_id: str, access: Access, client_id: str
    ) -> tuple[Account | None, Right | None]:
        """Load whom something was given to, and by what right, while that stands unchanged.

        What staff gave stands for as long as their practice lets its staff use the app.
        """
        account = await self._store.get(Account, account_id)
        if account is None or account.disabled:
            return account, None
        right = await still(self._directory, account, access)
        if right is not None and is_staffs(right):
            client = await self._store.get(Client, client_id)
            if client is None or not client.serves_staff_of(right.practice):
                return account, None
        return account, right

    async def _in_force(self, token: AccessToken | TokenFamily) -> bool:
        """Whether `/fhir` would take it: what `access/authenticate.resolve` asks, is asked here."""
        client = await self._store.get(Client, token.client_id)
        if client is None or not client.is_open:
            return False
        if isinstance(token, AccessToken) and token.context == "system":
            return True
        if token.account is None:
            return False
        lists = (
            token.is_list
            if isinstance(token, TokenFamily)
            else token.context == "patient" and token.patient is None
        )
        if lists:  # /fhir takes it for no record
            account = await self._store.get(Account, token.account)
            return account is not None and not account.disabled
        if token.access is None:
            return False
        _, right = await self._load_access(token.account, token.access, token.client_id)
        ends = ends_of(right)
        return right is not None and (ends is None or self._clock() < ends)

    async def _load_token_shown(self, request: FormRequest, *, in_force_only: bool) -> Loaded:
        loaded = await self._load_clients(request)
        text = request.form.get("token", "")
        found: AccessToken | TokenFamily | None = await self._store.get(
            AccessToken, token_hash(text)
        )
        presented = RefreshToken.parse(text) if found is None else None
        if presented is not None and presented.is_genuine(self.keys):
            family = await self._store.get(TokenFamily, presented.family)
            if family is not None and (
                not in_force_only or presented.generation == family.generation
            ):
                found = family
        if in_force_only and found is not None and not await self._in_force(found):
            found = None
        if in_force_only and found is not None:
            family = await self._family_of(found)
            loaded = replace(
                loaded,
                family=family,
                records=await self._records_of(family),
                right=await self._right_of(found),
            )
        return replace(loaded, token=found)

    async def _right_of(self, token: AccessToken | TokenFamily) -> Right | None:
        """The right that a token is used by, as its person has it now."""
        if token.account is None or token.access is None:
            return None
        _, right = await self._load_access(token.account, token.access, token.client_id)
        return right

    async def _family_of(self, token: AccessToken | TokenFamily) -> TokenFamily | None:
        """The family of a token; a backend client's has none."""
        if isinstance(token, TokenFamily):
            return token
        return await self._store.get(TokenFamily, token.family) if token.family else None

    async def _records_of(
        self, family: TokenFamily | None
    ) -> tuple[tuple[TokenFamily, RecordAccess], ...]:
        """The records that a family lists, or its own among those of its consent."""
        if family is None or not (family.is_list or family.parent):
            return ()
        account = await self._store.get(Account, family.account)
        below = [family] if family.parent else await self._below(family)
        return await self._still_theirs(account, below)

    async def _load_clients(self, request: FormRequest) -> Loaded:
        """Load every client the request names, and its keys; refuse one that claims to be two."""
        form = request.form
        basic = _basic_client_id(request.authorization)
        assertion = form.get("client_assertion")
        if sum((basic is not None, "client_secret" in form, assertion is not None)) > 1:
            raise errors.InvalidRequest("a client authenticates in one way at a time")
        signer = asserted(assertion) if assertion is not None else None
        names = (basic, signer.client_id if signer else None, form.get("client_id"))
        named = {name for name in names if name is not None}
        if len(named) > 1:
            raise errors.InvalidRequest("client_id is not the client that authenticates")
        clients = {}
        for name in named:
            client = await self._store.get(Client, name)
            if client is not None:
                clients[name] = client
        jwks = {}
        if signer is not None and signer.client_id in clients:
            jwks = await self._load_keys(clients[signer.client_id], signer)
        return Loaded(clients, jwks)

    async def _load_keys(self, client: Client, signer: Asserted) -> dict[str, dict[str, Any]]:
        """Read the keys of a client that keeps them at an address of its own."""
        if client.jwks_uri is None or client.disabled:
            return {}
        if self._client_keys is None:
            raise errors.InvalidClient("This server reads no keys at a client's jwks_uri.")
        try:
            return {
                client.key: await self._client_keys.of(
                    client.jwks_uri, signer.kid, looked_at=was_looked_at(client)
                )
            }
        except KeysUnavailable as error:
            raise errors.InvalidClient(
                f"The keys at the client's jwks_uri cannot be read: {error}."
            ) from None

    async def _run(
        self, exchange: Exchange, request: FormRequest, work: Callable[[LoadedRequest], Any]
    ) -> Any:
        """Let Authlib decide; a family it found misused ends even though the answer is no."""
        # Hints are hints: an unknown one is ignored (RFC 7662 §2.1, RFC 7009 §2.1).
        form = {name: value for name, value in request.form.items() if name != "token_type_hint"}
        uri = self.issuer.at("/oauth/token")
        try:
            return work(LoadedRequest("POST", uri, form, request.authorization))
        except errors.InvalidClient as error:
            if request.authorization is not None:
                error.headers["WWW-Authenticate"] = _BASIC
            raise
        except errors.OAuthError:
            if exchange.ended is not None:
                await self._end(*exchange.ended)
            raise

    async def _commit(self, exchange: Exchange) -> bool:
        """Make the collected writes, all or nothing; false when one found the world changed."""
        if not exchange.writes and exchange.revoked is None:
            return True

        async def write(transaction: RecordTransaction) -> None:
            await _check_unchanged(transaction, exchange.loaded)
            for change in exchange.writes:
                if isinstance(change, Insert):
                    await _insert(transaction, change)
                elif not await transaction.replace(change.old, change.new):
                    raise _Lost
            revoked = exchange.revoked
            if isinstance(revoked, AccessToken) and not revoked.family:
                await transaction.delete(AccessToken, revoked.key)
            elif revoked is not None:
                family = revoked.family if isinstance(revoked, AccessToken) else revoked.key
                await revoke_family(transaction, family, now=exchange.now, because=BY_CLIENT)

        try:
            await self._store.transact(write)
        except _Lost:
            return False
        return True

    async def _end(self, family: str, because: str) -> None:
        async def end(transaction: RecordTransaction) -> bool:
            return await revoke_family(transaction, family, now=self._clock(), because=because)

        if await self._store.transact(end):
            log.warning("token family ended", because=because)

    async def _client_of(self, request: AuthorizationRequest) -> Client:
        client = await self._store.get(Client, request.client_id)
        redirect_uri_of(client, request.parameters, frozenset())
        assert client is not None  # noqa: S101 - redirect_uri_of refuses
        return client

    def _consent_grant(
        self, parameters: Mapping[str, str], client: Client | None
    ) -> AuthorizationCodeGrant:
        """Have Authlib validate an authorization request."""
        exchange = Exchange(
            self._setting,
            Loaded({client.key: client} if client else {}),
            self._clock(),
            grants=((AuthorizationCodeGrant, (RequiredS256(required=True),)),),
        )
        request = LoadedRequest("GET", self.issuer.at("/oauth/authorize"), parameters)
        grant: AuthorizationCodeGrant = exchange.validated_grant(request)
        return grant

    async def _launch(self, key: str, client: Client) -> Launch:
        """Return the launch of a key for this app. Raises `errors.InvalidRequest`."""
        found = await self._store.get(Launch, key)
        if (
            found is None
            or self._clock() >= found.expires
            or found.client_id not in (None, client.key)
        ):
            raise _launch_over()
        ehr = await self._store.get(Client, found.made_by)
        if (
            ehr is None
            or not ehr.is_open
            or LAUNCH not in ehr.permissions
            or ehr.practice != found.practice
        ):
            raise _launch_over()
        return found

    async def _launch_of(self, request: AuthorizationRequest) -> Launch | None:
        """The launch of a request that goes on; gives the request up when it is over."""
        if request.launch is None:
            return None
        try:
            return await self._launch(request.launch, await self._client_of(request))
        except errors.InvalidRequest as error:
            raise await self._given_up(request, error) from None

    def _askable(self, scope: ScopeSet, launch: Launch | None) -> ScopeSet:
        """Leave out the launch scopes that nothing can be told for.

        ``launch`` goes with a launch by an EHR, and ``launch/patient`` without one is a choice of
        record, which staff do not make. A visit is the EHR's, or chosen from those the app may see.
        """
        if launch is not None:
            told = {LAUNCH, LAUNCH_PATIENT}
            told |= {LAUNCH_ENCOUNTER} if launch.context.encounter is not None else set()
        else:
            told = {LAUNCH_PATIENT} if scope.context != "user" else set()
            if self._visits is not None and _sees_visits(scope):
                told.add(LAUNCH_ENCOUNTER)
        words = tuple(
            word for word in scope.identity if not word.startswith(LAUNCH) or word in told
        )
        return replace(scope, identity=words)

    async def _way(
        self, request: AuthorizationRequest, client: Client, account: Account
    ) -> Way | Step:
        """Find by what right this person can answer; otherwise what they have to do first."""
        launch = await self._launch_of(request)
        if launch is not None:
            return await self._way_of_launch(request, client, account, launch)
        if request.is_for_staff:
            return await self._way_of_staff(request, client, account)
        values = values_of(await self._directory.records_of(account))
        chosen = _chosen(request, tuple(values.values()))
        if chosen:
            others = chosen[1:]
            return Way(chosen[0], chosen[0], others, other_records=len(values) > len(chosen))
        if not values:
            return NoRecord(client)
        return ChooseRecord(client, values, several=request.wants_several)

    async def _way_of_launch(
        self, request: AuthorizationRequest, client: Client, account: Account, launch: Launch
    ) -> Way | Step:
        """Who they are as: the patient, staff of the practice, or by a grant for this very record.

        For their own record staff are patients, unless they ask as staff or the EHR says so.
        """
        practice, patient = launch.practice, launch.patient
        if not request.is_for_staff:
            own = await self._directory.record_of(account, practice, patient)
            if own is not None and own.is_own and launch.fhir_user in (None, own.fhir_user):
                return Way(own, own, launch=launch)
        staff = await self._directory.staff_at(account, practice)
        right: Right | None
        if staff is not None:
            record = await self._directory.staff_record_of(account, practice, patient)
            right = staff if request.is_for_staff and record is not None else record
        else:
            record = await self._directory.record_of(account, practice, patient)
            right = None if request.is_for_staff else record
        if right is None or launch.fhir_user not in (None, right.fhir_user):
            return NotAllowed(client, "launch")
        if is_staffs(right) and not client.serves_staff_of(practice):
            return NotAllowed(client, "app")
        return Way(right, record, launch=launch)

    async def _way_of_staff(
        self, request: AuthorizationRequest, client: Client, account: Account
    ) -> Way | Step:
        """The practice of a standalone launch: the only one, or the one that was chosen."""
        staff = await self._directory.staff_of(account)
        served = {one.practice: one for one in staff if client.serves_staff_of(one.practice)}
        if not served:
            return NotAllowed(client, "app" if staff else "staff")
        chosen = served.get(request.practice or "")
        if chosen is None and len(served) == 1:
            (chosen,) = served.values()
        if chosen is None:
            return ChoosePractice(client, served)
        return Way(chosen, None, other_records=len(served) > 1)

    async def _visited(
        self, request: AuthorizationRequest, client: Client, account: Account, way: Way
    ) -> Way | Step:
        """Have a visit chosen where the app asks for one, and there is one that it would see."""
        asked = self._askable(request.scope.within(client.may_ask_for), way.launch)
        record = way.record
        if (
            way.launch is not None
            or self._visits is None
            or record is None
            or way.others
            or request.wants_several
            or LAUNCH_ENCOUNTER not in asked.identity
        ):
            return way
        allowed = self.narrowed(asked, record)
        seen = tuple(one for one in allowed.resource if one.resource_type == "Encounter")
        if not _sees_visits(ScopeSet((), seen)):
            return way
        visits = await self._visits(account, record, ScopeSet((), seen))
        chosen = [one for one in visits if one.reference == request.encounter] or list(visits)
        if len(chosen) > 1:
            return ChooseVisit(client, record, visits)
        if not chosen:
            return way
        return replace(way, visit=chosen[0], other_visits=len(visits) > 1)

    def _offer(self, request: AuthorizationRequest, client: Client, way: Way) -> ConsentOffer:
        """What can be allowed on any of the chosen records; each gets what it allows itself."""
        asked = self._askable(request.scope.within(client.may_ask_for), way.launch)
        if way.launch is None and way.visit is None:
            words = tuple(word for word in asked.identity if word != LAUNCH_ENCOUNTER)
            asked = replace(asked, identity=words)
        if not way.others:
            return ConsentOffer.of(self.narrowed(asked, way.right))
        allowed = [self.narrowed(asked, right) for right in way.rights]
        resource = merged(scope for one in allowed for scope in one.resource)
        return ConsentOffer.of(ScopeSet(asked.identity, resource))

    async def _was_approved(
        self,
        reader: RecordReader,
        request: AuthorizationRequest,
        client: Client,
        account: Account,
        right: Right,
        offer: ConsentOffer,
    ) -> bool:
        """Whether consent may be skipped: a client that can keep a secret asks again, to read.

        Only under what the person still sees and can end: access that was to last, and does. An app
        that nobody has looked at asks every time.
        """
        if client.type == "public" or client.self_registered or "consent" in request.prompt:
            return False
        if isinstance(right, RecordAccess) and right.is_proxy:
            return False
        if request.wants_several:
            return False
        everything = offer.everything
        if any(set(scope.letters) & set("cud") for scope in everything.resource):
            return False
        now = self._clock()
        return any(
            family.client_id == client.key
            and family.access == right.access
            and family.ended is None
            and family.until is None  # an end they chose is not moved without asking
            and family.parent is None
            and now < family.expires
            and OFFLINE_ACCESS in (had := ScopeSet.parse(family.scope)).identity
            and had.covers(everything)
            for family in await reader.find(TokenFamily, "account", account.key, limit=_ALL)
        )

    async def _approve(
        self,
        request: AuthorizationRequest,
        visitor: Visitor,
        way: Way,
        scope: ScopeSet,
        *,
        until: float | None = None,
        skipped: ConsentOffer | None = None,
    ) -> str:
        client = await self._client_of(request)
        account = visitor.account
        assert account is not None  # noqa: S101 - every caller has asked
        grant = self._consent_grant(request.parameters, client)
        launched = await self._launched(way, account, scope)
        if LAUNCH_ENCOUNTER in scope.identity and (launched is None or launched.encounter is None):
            words = tuple(word for word in scope.identity if word != LAUNCH_ENCOUNTER)
            scope = replace(scope, identity=words)
        approval = Approval(
            account.key,
            way.right,
            scope,
            visitor.auth_time,
            until,
            patient=way.record.patient if way.record is not None else "",
            launched=launched,
        )
        records = (way.record, *way.others) if way.record is not None else ()
        if request.wants_several:
            approval = self._for_several(approval, records)
        exchange: Exchange = grant.server
        exchange.create_authorization_response(grant.request, grant_user=approval, grant=grant)
        allowed = {(one.practice, one.patient) for one in approval.records}
        given = [one for one in records if not allowed or (one.practice, one.patient) in allowed]
        told = made_by_proxy(self._notices, given, once=request.key, now=exchange.now)

        async def answer(transaction: RecordTransaction) -> None:
            # The request may have begun long before its body came.
            await still_signed_in(transaction, visitor, self._clock())
            stored = await transaction.get(AuthorizationRequest, request.key)
            if stored is None:
                raise errors.InvalidRequest("This request was answered before.")
            if stored != request:
                raise RecordChanged  # another record was chosen meanwhile
            if skipped is not None and not await self._was_approved(
                transaction, request, client, account, way.right, skipped
            ):
                raise RecordChanged  # what was allowed before was ended meanwhile
            await transaction.delete(AuthorizationRequest, request.key)
            if way.launch is not None and not await transaction.delete(Launch, way.launch.key):
                raise _LaunchUsed
            for change in exchange.writes:
                if isinstance(change, Insert):
                    await transaction.insert(change.record)
            for tell in told:
                await tell(transaction)

        try:
            await self._store.transact(answer)
        except _LaunchUsed:
            raise await self._given_up(request, _launch_over()) from None
        except SignedOutMeanwhile:
            raise errors.LoginRequired("You were signed out meanwhile. Sign in again.") from None
        parameters = {"code": exchange.code, "state": request.state, "iss": self.issuer.base}
        return answer_at(request.redirect_uri, parameters)

    async def _launched(self, way: Way, account: Account, scope: ScopeSet) -> LaunchContext | None:
        """What an app is told of where it was launched.

        An EHR sees more than a patient or a proxy: theirs is told what they may read themselves,
        within what they allowed, and none of the EHR's own words.
        """
        context, record = way.launched, way.record
        if way.launch is None or context is None or record is None or is_staffs(way.right):
            return context
        referred = [one for one in context.fhir_context if "reference" in one]
        seen = {
            reference
            for reference in (context.encounter, *(one["reference"] for one in referred))
            if reference is not None
            and self._sees is not None
            and await self._sees(account, record, scope, reference)
        }
        return msgspec.structs.replace(
            context,
            encounter=context.encounter if context.encounter in seen else None,
            intent=None,
            fhir_context=tuple(
                {name: one[name] for name in ("reference", "type", "role") if name in one}
                for one in referred
                if one["reference"] in seen
            ),
        )

    def _for_several(self, approval: Approval, chosen: Sequence[RecordAccess]) -> Approval:
        """Share what was allowed out over the records: to each what it allows itself.

        A record on which nothing can be allowed is left out. Raises `NothingTicked` when that
        leaves none.
        """
        of_the_list = {"openid", "fhirUser", OFFLINE_ACCESS}
        scope = approval.scope
        listed = tuple(word for word in scope.identity if word in of_the_list)
        rest = tuple(word for word in scope.identity if word not in of_the_list)
        records = []
        for identifier, record in values_of(chosen).items():
            allowed = self.narrowed(ScopeSet(rest, scope.resource), record)
            if allowed.resource:
                records.append(
                    ConsentedRecord(
                        identifier=identifier,
                        practice=record.practice,
                        patient=record.patient,
                        fhir_user=record.fhir_user,
                        grant=record.grant,
                        scope=str(allowed),
                    )
                )
        if not records:
            raise NothingTicked
        return replace(approval, scope=ScopeSet(listed), records=tuple(records))

    def _about(self, way: Way) -> str:
        """Name what a consent page is about, in a way that only this server can."""
        parts: list[bytes] = []
        for right in way.rights:
            allowed: Any = None
            if isinstance(right, RecordAccess):
                allowed = (sorted(right.sections or ()), sorted(right.act), right.until)
            parts += [msgspec.json.encode((*right.access, allowed))]
        told = (way.record.patient if way.record is not None else "", way.launched)
        parts += [msgspec.json.encode(told)]
        return base64url(self.keys.derive("consent-page", *parts))

    async def _limit(self, rule: str, what: str, address: str) -> None:
        try:
            await self._throttle.limit(rule, f"{what}:{network_of(address)}")
        except TooManyAttempts as error:
            raise errors.TooManyRequests(
                f"too many {what}", headers={"Retry-After": str(error.retry_after)}
            ) from None

    async def _given_up(
        self, request: AuthorizationRequest, error: errors.OAuthError
    ) -> errors.OAuthError:
        """Forget the request; return the error addressed to its app."""

        async def forget(transaction: RecordTransaction) -> bool:
            return await transaction.delete(AuthorizationRequest, request.key)

        if not await self._store.transact(forget):
            return errors.InvalidRequest("This request was answered before.")
        error.redirect_uri, error.state = request.redirect_uri, request.state
        error.unchecked_app = _unchecked(await self._store.get(Client, request.client_id))
        return error

    async def _replaced(self, old: AuthorizationRequest, new: AuthorizationRequest) -> bool:
        async def change(transaction: RecordTransaction) -> bool:
            return await transaction.replace(old, new)

        return await self._store.transact(change)


class _LaunchUsed(Exception):
    """Another request got its code for this launch."""


class _Lost(Exception):
    """A compare-and-set found something else than what was loaded."""


async def _check_unchanged(transaction: RecordTransaction, loaded: Loaded) -> None:
    """Whoever was shut out after the values were loaded gets nothing any more."""
    for client in loaded.clients.values():
        if await transaction.get(Client, client.key) != client:
            raise _Lost
    account = loaded.account
    if account is not None and await transaction.get(Account, account.key) != account:
        raise _Lost


async def _insert(transaction: RecordTransaction, change: Insert) -> None:
    try:
        await transaction.insert(change.record)
    except DuplicateRecord:
        if isinstance(change.record, UsedAssertion):
            raise _assertion_used() from None
        if isinstance(change.record, UsedProof):
            raise used_before() from None
        raise _Lost from None


def _pushed_over() -> errors.InvalidRequestUri:
    return errors.InvalidRequestUri(
        "This request is over, was used before, or was not pushed by this app."
    )


def _launch_over() -> errors.InvalidRequest:
    return errors.InvalidRequest(
        "This launch is over, was used before, or is not for this app. Launch it again from the EHR"
    )


def _needed(step: Step) -> errors.OAuthError:
    """What an app is told that wanted nobody to be asked (OpenID Connect Core §3.1.2.6)."""
    if isinstance(step, NotAllowed):
        return errors.AccessDenied("the person cannot use this")
    what = {ChoosePractice: "a practice", ChooseVisit: "a visit"}.get(type(step), "a record")
    return errors.InteractionRequired(f"{what} must be chosen")


def _sees_visits(scope: ScopeSet) -> bool:
    """Whether an app with these scopes could look up and read visits of the record."""
    return all(
        any(one.context == "patient" and one.allows(letter, "Encounter") for one in scope.resource)
        for letter in "rs"
    )


def _assertion_used() -> errors.InvalidClient:
    return errors.InvalidClient("The assertion was used before.")


def _chosen(
    request: AuthorizationRequest, records: Sequence[RecordAccess]
) -> tuple[RecordAccess, ...]:
    """The records that were picked, or the only one if it is the person's own.

    None when one of the picked is not theirs any more: they choose again.
    """
    if request.patient is not None:
        picked = ((request.practice, request.patient), *request.others)
        found = [way_to(records, practice, patient) for practice, patient in picked]
        return tuple(one for one in found if one is not None) if None not in found else ()
    return (records[0],) if len(records) == 1 and records[0].is_own else ()


def _unchecked(client: Client | None) -> str | None:
    """The name of an app that nobody has looked at."""
    return client.name if client is not None and client.self_registered else None


def _basic_client_id(authorization: str | None) -> str | None:
    """The client that HTTP Basic names; ``None`` when it is not used.

    Refuses another scheme and a header that cannot be read, so that Authlib never sees one.
    """
    if authorization is None:
        return None
    scheme, _, encoded = authorization.partition(" ")
    try:
        credentials = base64.b64decode(encoded.strip(), validate=True).decode()
    except ValueError:
        credentials = ""
    user, colon, _ = credentials.partition(":")
    if scheme.lower() != "basic" or not colon:
        raise errors.InvalidClient(
            "the Authorization header is not HTTP Basic", headers={"WWW-Authenticate": _BASIC}
        )
    return unquote(user)
