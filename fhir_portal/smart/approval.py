"""The approval of a request: what is offered for it, when nobody need be asked, what it gives."""

from __future__ import annotations

import hmac
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from typing import Any, Final

import msgspec

from fhir_portal.accounts.account import Account
from fhir_portal.accounts.sessions import SignedOutMeanwhile, Visitor, still_signed_in
from fhir_portal.consent.record import RecordAccess
from fhir_portal.records import RecordReader, RecordStore, RecordTransaction
from fhir_portal.smart import errors
from fhir_portal.smart.authorization import AskConsent, AuthorizationRequest, Sees, values_of
from fhir_portal.smart.authorization_details import ConsentedRecord
from fhir_portal.smart.client import Client
from fhir_portal.smart.connection_notices import ConnectionNotices, made_by_proxy
from fhir_portal.smart.exchange import Exchange, Insert, Setting
from fhir_portal.smart.grantable import Grantable
from fhir_portal.smart.grants.authorization_code import Approval, consent_grant
from fhir_portal.smart.in_flight import RequestsInFlight
from fhir_portal.smart.launch import LAUNCH_ENCOUNTER, Launch, launch_over
from fhir_portal.smart.launch_context import LaunchContext
from fhir_portal.smart.narrowing import EndDates, Narrowing
from fhir_portal.smart.offer import OFFLINE_ACCESS, ConsentOffer
from fhir_portal.smart.redirect import answer_at
from fhir_portal.smart.right import Right, is_staffs
from fhir_portal.smart.scope import ScopeSet, merged
from fhir_portal.smart.token import TokenFamily, base64url
from fhir_portal.smart.way import Way

_ALL: Final = 1_000_000


class NothingTicked(Exception):
    """Approved, but with no scope ticked: the page is shown again and says so."""


class RecordChanged(errors.InvalidRequest):
    """The person saw one record, or one way to it, and the answer would be about another."""

    def __init__(self) -> None:
        super().__init__("What this page was about has changed. Look at it again.")


class Approvals:
    """What the consent page says, and what an answer to it gives.

    ``notices`` tells people of apps that others connected to their record. ``sees`` says whether a
    person may read, within scopes, what an EHR refers to; without it they are told nothing of it.
    ``clock`` gives seconds since 1970 UTC.
    """

    def __init__(
        self,
        store: RecordStore,
        setting: Setting,
        *,
        in_flight: RequestsInFlight,
        grantable: Grantable,
        notices: ConnectionNotices,
        sees: Sees | None,
        clock: Callable[[], float],
    ) -> None:
        self._store = store
        self._setting = setting
        self._in_flight = in_flight
        self._grantable = grantable
        self._notices = notices
        self._sees = sees
        self._clock = clock

    def offer(self, request: AuthorizationRequest, client: Client, way: Way) -> ConsentOffer:
        """What can be allowed on any of the chosen records; each gets what it allows itself."""
        asked = self._grantable.askable(request.scope.within(client.may_ask_for), way.launch)
        if way.launch is None and way.visit is None:
            words = tuple(word for word in asked.identity if word != LAUNCH_ENCOUNTER)
            asked = replace(asked, identity=words)
        if not way.others:
            return ConsentOffer.of(self._grantable.narrowed(asked, way.right))
        allowed = [self._grantable.narrowed(asked, right) for right in way.rights]
        resource = merged(scope for one in allowed for scope in one.resource)
        return ConsentOffer.of(ScopeSet(asked.identity, resource))

    def about(self, way: Way) -> str:
        """Name what a consent page is about, in a way that only this server can."""
        parts: list[bytes] = []
        for right in way.rights:
            allowed: Any = None
            if isinstance(right, RecordAccess):
                allowed = (sorted(right.sections or ()), sorted(right.act), right.until)
            parts += [msgspec.json.encode((*right.access, allowed))]
        told = (way.record.patient if way.record is not None else "", way.launched)
        parts += [msgspec.json.encode(told)]
        return base64url(self._setting.keys.derive("consent-page", *parts))

    def end_dates(self, step: AskConsent) -> EndDates:
        """The days that may be chosen as the last of the access."""
        return EndDates.of(step.rights, now=self._clock(), lifetimes=self._setting.lifetimes)

    def allowed(
        self, step: AskConsent, ticked: Collection[str], *, about: str, narrowing: Narrowing
    ) -> tuple[ScopeSet, float | None]:
        """What was allowed on a page, and until when (seconds since 1970 UTC).

        ``about`` is what `AskConsent` said the page was about. Raises `RecordChanged`,
        `NothingTicked`, `NarrowingRefused`, `errors.InvalidRequest` for a scope that was not
        offered.
        """
        if not hmac.compare_digest(step.about.encode(), about.encode("utf-8", "replace")):
            raise RecordChanged
        scope = step.offer.granted(ticked)
        if step.offer.scopes and not scope.resource:
            raise NothingTicked
        scope = narrowing.applied(scope, step.rights[0].zone)
        return scope, self.end_dates(step).end_of(narrowing.until)

    async def may_be_skipped(
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

    async def give(
        self,
        request: AuthorizationRequest,
        visitor: Visitor,
        way: Way,
        scope: ScopeSet,
        *,
        until: float | None = None,
        skipped: ConsentOffer | None = None,
    ) -> str:
        """Answer the request with a code; return where the browser goes.

        ``until`` is the end that was chosen, in seconds since 1970 UTC. With ``skipped``, nobody
        was asked: what `may_be_skipped` found has to stand still. Raises `NothingTicked`,
        `RecordChanged`, or another `errors.OAuthError`, when the request, the launch or the sign-in
        ended meanwhile.
        """
        client = await self._in_flight.client_of(request)
        account = visitor.account
        assert account is not None  # noqa: S101 - every caller has asked
        grant = consent_grant(self._setting, client, request.parameters, now=self._clock())
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
            if skipped is not None and not await self.may_be_skipped(
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
            raise await self._in_flight.given_up(request, launch_over()) from None
        except SignedOutMeanwhile:
            raise errors.LoginRequired("You were signed out meanwhile. Sign in again.") from None
        issuer = self._setting.issuer
        parameters = {"code": exchange.code, "state": request.state, "iss": issuer.base}
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
            allowed = self._grantable.narrowed(ScopeSet(rest, scope.resource), record)
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


class _LaunchUsed(Exception):
    """Another request got its code for this launch."""
