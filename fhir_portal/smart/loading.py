"""What a request to the token, introspection or revocation endpoint names, before Authlib runs.

Nothing is decided here but what stands in the way of reading: who asks, and whether they may, is
for the `Exchange`. What a person's access rests on is read as it is now, so that a right that was
taken away is missing in what is `Loaded`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any, TypeVar

from fhir_portal.accounts.account import Account
from fhir_portal.consent.record import Access, RecordAccess, RecordDirectory
from fhir_portal.records import RecordStore
from fhir_portal.smart import errors
from fhir_portal.smart.authorization_details import ConsentedRecord, identifier_of
from fhir_portal.smart.client import Client
from fhir_portal.smart.client_auth.basic import basic_client_id
from fhir_portal.smart.client_auth.private_key_jwt import Asserted, asserted
from fhir_portal.smart.client_keys import ClientKeys, KeysUnavailable, was_looked_at
from fhir_portal.smart.code import AuthorizationCode
from fhir_portal.smart.exchange import TOKEN_EXCHANGE, FormRequest, Loaded
from fhir_portal.smart.issuer import Issuer
from fhir_portal.smart.keys import ServerKeys
from fhir_portal.smart.right import Right, ends_of, is_staffs, still
from fhir_portal.smart.token import (
    AccessToken,
    RefreshToken,
    TokenFamily,
    authenticate,
    derive_access_token,
    token_hash,
)

C = TypeVar("C", ConsentedRecord, TokenFamily)


class Loader:
    """Reads from the store; without ``client_keys`` never from an address of a client's.

    ``clock`` gives seconds since 1970 UTC.
    """

    def __init__(
        self,
        store: RecordStore,
        directory: RecordDirectory,
        *,
        issuer: Issuer,
        keys: ServerKeys,
        client_keys: ClientKeys | None,
        clock: Callable[[], float],
    ) -> None:
        self._store = store
        self._directory = directory
        self._issuer = issuer
        self._keys = keys
        self._client_keys = client_keys
        self._clock = clock

    async def identified(self, request: FormRequest) -> FormRequest:
        """Name the public client of a refresh that names none.

        RFC 6749 §6 asks for no ``client_id`` there, and fhirclient (npm) sends none: the token
        alone says whose it is. A client that can authenticate has to.
        """
        form = request.form
        named = not form.keys().isdisjoint(("client_id", "client_secret", "client_assertion"))
        if form["grant_type"] != "refresh_token" or request.authorization is not None or named:
            return request
        presented = RefreshToken.parse(form.get("refresh_token", ""))
        if presented is None or not presented.is_genuine(self._keys):
            return request
        family = await self._store.get(TokenFamily, presented.family)
        client = await self._store.get(Client, family.client_id) if family is not None else None
        if client is None or client.type != "public":
            return request
        return replace(request, form={**form, "client_id": client.key})

    async def for_token(self, request: FormRequest) -> Loaded:
        """Load what a grant at the token endpoint is about. Raises as `clients` does."""
        loaded = await self.clients(request)
        form = request.form
        if form["grant_type"] == "authorization_code" and "code" in form:
            return await self._for_code(loaded, form["code"])
        if form["grant_type"] == "refresh_token" and "refresh_token" in form:
            return await self._for_refresh(loaded, form["refresh_token"])
        if form["grant_type"] == TOKEN_EXCHANGE:
            return await self._for_exchange(loaded, form)
        return loaded

    async def token_shown(self, request: FormRequest, *, in_force_only: bool) -> Loaded:
        """Load the token that is introspected or revoked, of either kind.

        With ``in_force_only`` one that `/fhir` would not take is none, and one that it takes comes
        with all that is told of it. Raises as `clients` does.
        """
        loaded = await self.clients(request)
        text = request.form.get("token", "")
        found: AccessToken | TokenFamily | None = await self._store.get(
            AccessToken, token_hash(text)
        )
        presented = RefreshToken.parse(text) if found is None else None
        if presented is not None and presented.is_genuine(self._keys):
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

    async def clients(self, request: FormRequest) -> Loaded:
        """Load every client the request names, and its keys; refuse one that claims to be two.

        Raises `errors.InvalidRequest`, and `errors.InvalidClient` for a header or an assertion that
        cannot be read, or keys that cannot.
        """
        form = request.form
        basic = basic_client_id(request.authorization)
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
            jwks = await self._keys_of(clients[signer.client_id], signer)
        return Loaded(clients, jwks)

    async def _keys_of(self, client: Client, signer: Asserted) -> dict[str, dict[str, Any]]:
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

    async def _for_code(self, loaded: Loaded, text: str) -> Loaded:
        """Load a code, and by what it was given; of a consent for several, what still stands."""
        code = await self._store.get(AuthorizationCode, token_hash(text))
        if code is None:
            return loaded
        account, right = await self._access(code.account, code.access, code.client_id)
        if code.records:
            right = None
        records = await self._still_theirs(account, code.records)
        return replace(loaded, code=code, account=account, right=right, records=records)

    async def _for_refresh(self, loaded: Loaded, text: str) -> Loaded:
        """Load the family of a refresh token, and its newest access token."""
        presented = RefreshToken.parse(text)
        if presented is None:
            return loaded
        family = await self._store.get(TokenFamily, presented.family)
        if family is None:
            return loaded
        account, right = await self._access(family.account, family.access, family.client_id)
        newest = derive_access_token(self._keys, presented.handle, family.generation)
        return replace(
            loaded,
            records=await self._still_theirs(account, await self._below(family)),
            family=family,
            presented=presented,
            current=await self._store.get(AccessToken, token_hash(newest)),
            account=account,
            right=right,
        )

    async def _for_exchange(self, loaded: Loaded, form: Mapping[str, str]) -> Loaded:
        """Load what an exchange is about: the token that lists, and the record that is named."""
        identifier = identifier_of(form.get("authorization_details", ""), self._issuer)
        subject = await authenticate(self._store, form.get("subject_token", ""), self._clock())
        family = await self._store.get(TokenFamily, subject.family) if subject else None
        if family is None or not family.is_list:
            return loaded
        found = await self._store.find(TokenFamily, "parent", family.key)
        child = next((one for one in found if one.identifier == identifier), None)
        if child is None:
            account = await self._store.get(Account, family.account)
            return replace(loaded, subject=subject, family=family, account=account)
        account, right = await self._access(child.account, child.access, child.client_id)
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

    async def _access(
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
        _, right = await self._access(token.account, token.access, token.client_id)
        ends = ends_of(right)
        return right is not None and (ends is None or self._clock() < ends)

    async def _right_of(self, token: AccessToken | TokenFamily) -> Right | None:
        """The right that a token is used by, as its person has it now."""
        if token.account is None or token.access is None:
            return None
        _, right = await self._access(token.account, token.access, token.client_id)
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
