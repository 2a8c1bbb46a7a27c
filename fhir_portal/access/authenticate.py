"""From a bearer token to an `AuthContext`.

It holds what the token, its client, its account and the relation to the record say at this moment.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any, Final, Protocol, TypeVar

from fhir_portal.access.context import AuthContext
from fhir_portal.access.relation import IdentityReader, Relations
from fhir_portal.accounts.account import Account
from fhir_portal.accounts.policy import policy_of
from fhir_portal.accounts.sessions import is_signed_in
from fhir_portal.consent.record import RecordAccess, StaffAccess, shared_part
from fhir_portal.fhir.errors import Unauthenticated
from fhir_portal.records import DuplicateRecord
from fhir_portal.smart.client import Client
from fhir_portal.smart.dpop import Shown, UsedProof, used_before, verify
from fhir_portal.smart.errors import OAuthError
from fhir_portal.smart.revocation import is_of_staff
from fhir_portal.smart.scope import ScopeSet
from fhir_portal.smart.sharing import SECTION, ShareLink, family_stands
from fhir_portal.smart.token import AccessToken, authenticate

_UNBOUND: Final = "use the token as it was issued: as Bearer, or as DPoP with a proof"
_REFUSED: Final = "the access token is not valid, has expired, or its access was ended"
_REMEMBERED: Final = 10_000

_Remembered = tuple[object, AuthContext]
"""The epoch under which a context was found, and the context."""

T = TypeVar("T")


class ProofRefused(Unauthenticated):
    """The token is bound to a key, and the request does not prove it (RFC 9449 §7).

    ``error`` is the code for the challenge; ``nonce`` what the next proof is to be made with.
    """

    def __init__(self, message: str, *, error: str, nonce: str | None = None) -> None:
        super().__init__(message)
        self.error = error
        self.nonce = nonce


class EpochReader(IdentityReader, Protocol):
    """A store that tells when anything was committed."""

    async def transact(self, work: Callable[[Any], Awaitable[T]]) -> T:
        """Run ``work`` in a transaction."""
        ...

    async def epoch(self) -> object:
        """Return a value that differs whenever anything was committed."""
        ...


class Callers:
    """Authenticates callers, remembering the answer for as long as nothing was committed.

    A remembered answer is used only in a request that has itself read the epoch which the answer
    was found under, so a revocation bites on the next request at every worker.
    """

    def __init__(self, store: EpochReader, clock: Callable[[], float]) -> None:
        self._store = store
        self._clock = clock
        self._by_bearer: dict[str, _Remembered] = {}
        self._by_token: dict[str, _Remembered] = {}
        """By the hash of the token, which is what contexts know."""
        self.nonces: Callable[[float], tuple[str, ...]] | None = None
        """The DPoP nonces that count at a moment, where proofs have to be made with one."""

    async def of(self, bearer: str, shown: Shown | None = None) -> AuthContext:
        """Return the caller behind a bearer token (RFC 6750), or one shown with a proof (RFC 9449).

        Raises:
            Unauthenticated: unknown, expired or revoked token; disabled account or client;
                a grant that has ended. The words are the same for all.
            ProofRefused: the token is bound to a key and comes without, with a bad, or with a
                used proof; or it is not bound and comes with one.
        """
        epoch = await self._store.epoch()
        remembered = self._by_bearer.get(bearer)
        if remembered is None:
            found = await self._look_up(bearer, epoch, None)
        elif remembered[0] == epoch:
            found = remembered[1]
        else:
            found = await self._look_up(bearer, epoch, remembered[1])
        now = self._clock()
        if now >= found.expires or _ended(found, now):
            self._by_bearer.pop(bearer, None)
            raise Unauthenticated(_REFUSED)
        if found.jkt is not None or shown is not None:
            await self._prove(found, bearer, shown)
        return found

    async def held(self, key: str) -> AuthContext:
        """Return the caller behind a token that the server itself holds, by the token's key.

        For our own pages, whose session names the token (``smart/page_session.py``): nobody knows
        the value of such a token, and its key opens nothing from outside. It is held against what a
        bearer is held against. Raises `Unauthenticated`.
        """
        return await self._held(key, lambda token: token.browser is not None)

    async def shared(self, key: str, recipient: str) -> AuthContext:
        """Return the caller whose right a link shows to a recipient, by the key of its token.

        It may see what who made the link may see now, within the link's sections, and changes
        nothing. Raises `Unauthenticated`: the link, or the right behind it, is over.
        """
        found = await self._held(key, lambda token: token.share is not None)
        return replace(found, recipient=recipient)

    async def _held(self, key: str, is_kind: Callable[[AccessToken], bool]) -> AuthContext:
        async def load() -> AccessToken | None:
            token = await self._store.get(AccessToken, key)
            # No token that was given out is used by what is stored of it.
            if token is None or not is_kind(token) or self._clock() >= token.expires:
                return None
            return token

        _, found = await self._settled(load, await self._store.epoch(), None)
        now = self._clock()
        if now >= found.expires or _ended(found, now) or found.jkt is not None:
            raise Unauthenticated(_REFUSED)
        return found

    async def _look_up(self, bearer: str, epoch: object, before: AuthContext | None) -> AuthContext:
        """Resolve the caller behind a bearer token, and remember it if it can be."""

        async def load() -> AccessToken | None:
            return await authenticate(self._store, bearer, self._clock())

        settled, found = await self._settled(load, epoch, before)
        if settled is not None:
            if len(self._by_bearer) >= _REMEMBERED:
                self._by_bearer.clear()
                self._by_token.clear()
            self._by_bearer[bearer] = self._by_token[found.token] = (settled, found)
        return found

    async def _settled(
        self,
        load: Callable[[], Awaitable[AccessToken | None]],
        epoch: object,
        before: AuthContext | None,
    ) -> tuple[object, AuthContext]:
        """Resolve a caller to what was true at one moment after this request came.

        Nothing was committed during the look, or the look found what the one ``before`` it had
        found: then that was true when this one began. (Where others commit all the time, waiting
        for a look that nobody disturbs would never end.) Returned with the epoch of that moment,
        or ``None`` where it is not known.
        """
        while True:
            token = await load()
            if token is None:
                raise Unauthenticated(_REFUSED)
            found = await resolve(self._store, token, self._clock)
            began, epoch = epoch, await self._store.epoch()
            if epoch == began:
                return epoch, found
            if found == before:
                return None, found
            before = found

    async def _prove(self, known: AuthContext, bearer: str, shown: Shown | None) -> None:
        """Hold a proof against the token's key and use it up."""
        if known.jkt is None or shown is None:
            raise ProofRefused(_UNBOUND, error="invalid_token")
        now, used = self._clock(), list[UsedProof]()
        try:
            jkt = verify(
                shown,
                now=now,
                seen=used.append,
                access_token=bearer,
                nonces=self.nonces(now) if self.nonces is not None else None,
            )
            if jkt != known.jkt:
                raise ProofRefused("the token is bound to another key", error="invalid_token")

            async def use_up(transaction: Any) -> None:
                await self.still(transaction, known)  # what was committed while this waited
                await transaction.insert(used[0])

            await self._store.transact(use_up)
        except DuplicateRecord:
            raise ProofRefused(used_before().description, error="invalid_dpop_proof") from None
        except OAuthError as error:
            nonce = error.headers.get("DPoP-Nonce")
            raise ProofRefused(error.description, error=error.error, nonce=nonce) from None

    async def confirm(self, auth: AuthContext) -> None:
        """Ask again outside a transaction: after a body was awaited, before each batch entry.

        Raises:
            Unauthenticated: the caller's rights have changed.
        """
        if auth.token:
            epoch = await self._store.epoch()
            remembered = self._by_token.get(auth.token)
            if remembered is None or remembered[1] is not auth or remembered[0] != epoch:
                await self.still(self._store, auth)
                return
        if _ended(auth, self._clock()):
            raise Unauthenticated(_REFUSED)

    async def still(self, transaction: Any, auth: AuthContext) -> None:
        """Ask again inside a transaction whether the caller's rights stand unchanged.

        Raises:
            Unauthenticated: they do not.
        """
        if not auth.token:
            return  # an operator at the command line holds no token
        now = self._clock()
        token = await transaction.get(AccessToken, auth.token)
        if token is None or now >= token.expires or _ended(auth, now):
            raise Unauthenticated(_REFUSED)
        if await resolve(transaction, token, self._clock) != auth:
            raise Unauthenticated(_REFUSED)


async def resolve(
    reader: IdentityReader, token: AccessToken, clock: Callable[[], float]
) -> AuthContext:
    """Return the caller a token stands for, as the reader shows client, account and relation."""
    client = await reader.get(Client, token.client_id)
    if client is None or not client.is_open:
        raise Unauthenticated(_REFUSED)
    record: RecordAccess | None = None
    staff: StaffAccess | None = None
    if token.context != "system":
        account = await reader.get(Account, token.account) if token.account else None
        if account is None or account.disabled:
            raise Unauthenticated(_REFUSED)
        if token.browser is not None and not await is_signed_in(
            reader, account.key, token.browser, clock()
        ):
            raise Unauthenticated(_REFUSED)
        relations = Relations(reader, clock)
        if is_of_staff(token):
            if client.serves_staff_of(token.practice):
                staff = await _as_staff(relations, account, token)
        elif token.patient is not None:
            record = await relations.record_of(account, token.practice, token.patient)
            record = record if record is not None and record.access == token.access else None
        if staff is None and record is None:
            raise Unauthenticated(_REFUSED)
    scopes = ScopeSet.parse(token.scope)
    if token.share is not None:
        record, scopes = await _shared(reader, token, record, scopes, clock())
    bound_to = token.patient if staff is not None and token.context == "patient" else None
    return AuthContext(
        client=token.client_id,
        context=token.context,
        scopes=scopes,
        practice=token.practice,
        expires=token.expires,
        token=token.key,
        record=record,
        account=token.account,
        permissions=frozenset(client.permissions),
        jkt=token.jkt,
        staff=staff,
        staff_patient=bound_to.partition("/")[2] if bound_to is not None else None,
        share=token.share or "",
    )


async def _shared(
    reader: IdentityReader,
    token: AccessToken,
    record: RecordAccess | None,
    scopes: ScopeSet,
    now: float,
) -> tuple[RecordAccess, ScopeSet]:
    """Return what a link shows of the record of who made it: no more than they may share now.

    One that an app made shows no more than the app may see now, either.
    """
    link = await reader.get(ShareLink, token.share or "")
    if link is None or record is None or link.state(now) != "active" or link.token != token.key:
        raise Unauthenticated(_REFUSED)
    if not (await policy_of(reader, link.practice)).sharing:
        raise Unauthenticated(_REFUSED)
    if link.family is not None:
        family = await family_stands(reader, link, now)
        if family is None or (family.until is not None and now >= family.until):
            raise Unauthenticated(_REFUSED)
        scopes = scopes.within(ScopeSet.parse(family.scope))
    part = shared_part(record, link.sections, within=SECTION)
    if part is None:
        raise Unauthenticated(_REFUSED)
    return part, scopes


async def _as_staff(
    relations: Relations, account: Account, token: AccessToken
) -> StaffAccess | None:
    """Return the membership under which a token of staff is used, if it is what it was given for.

    The patient of a ``user/`` token is the one the EHR had open: context, and no bound.
    """
    staff = await relations.staff_at(account, token.practice)
    if staff is None or (token.fhir_user, token.grant) != (staff.fhir_user, None):
        return None
    if token.context == "user":
        return staff
    # Whether they may view it is for `decide` to say, in words; here is asked what it is bound to.
    if token.patient is None or not await relations.has_patient(token.practice, token.patient):
        return None
    return staff


def _ended(auth: AuthContext, now: float) -> bool:
    return auth.record is not None and auth.record.until is not None and now >= auth.record.until
