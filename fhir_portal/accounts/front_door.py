"""The ways in: a password, a second factor where there is one, a recovery code beside a password.

Each way ends in one transaction that uses up what was proved and opens the session. A password
alone opens nothing for an account with an authenticator app, unless the browser is remembered.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from fhir_portal.accounts.account import Account, account_named, folded
from fhir_portal.accounts.credentials import SignIn, SignInRefused
from fhir_portal.accounts.devices import RememberedDevices
from fhir_portal.accounts.notice import Notices
from fhir_portal.accounts.passkeys import Passkeys
from fhir_portal.accounts.proof import PASSWORD, Proof, Write
from fhir_portal.accounts.second_factor import SecondFactor
from fhir_portal.accounts.sessions import Opened, Session, Sessions, SignedOutMeanwhile, Visitor
from fhir_portal.accounts.totp import WrongCode


@dataclass(frozen=True, slots=True)
class Place:
    """Where a try comes from.

    ``known`` names the browser if this account signed in there before; ``device`` are the words
    for it on the security page.
    """

    address: str
    known: str | None = None
    device: str = ""


@dataclass(frozen=True, slots=True)
class FrontDoor:
    """Signs people in and has them confirm who they are."""

    sessions: Sessions
    password: SignIn
    second_factor: SecondFactor
    devices: RememberedDevices
    passkeys: Passkeys
    notices: Notices

    async def by_password(
        self,
        before: Session,
        username: str,
        password: str,
        place: Place,
        *,
        remembered: Callable[[Account], str] = lambda _: "",
    ) -> Opened:
        """Open a session for a user name and password.

        Nobody is signed in to it yet if a second factor is awaited: go on with `by_code`.
        ``remembered`` gives the token by which a browser says that an account remembers it.
        Raises `SignInRefused`, `SignedOutMeanwhile`, `Spent` and `TooManyAttempts`.
        """
        account = await self.password(username, password, address=place.address, device=place.known)
        proofs: tuple[Proof, ...] = (PASSWORD,)
        if await self.second_factor.is_asked_of(account.key):
            device = await self.devices.prove(account.key, remembered(account))
            if device is None:
                return await self.sessions.await_second_factor(before, account, device=place.device)
            proofs = (PASSWORD, device)
        return await self.sessions.sign_in(before, account, proofs=proofs, device=place.device)

    async def by_code(
        self, pending: Session, typed: str, place: Place, *, remember: bool = False
    ) -> tuple[Opened, str | None]:
        """Open a session where a password was given already, for a code.

        With ``remember`` the browser's new token comes with it. Raises `WrongCode`,
        `SignedOutMeanwhile`, `Spent` and `TooManyAttempts`.
        """
        account = await self.awaited(pending)
        if account is None:
            raise SignedOutMeanwhile
        proof = await self.second_factor.prove(
            account, typed, address=place.address, device=place.known
        )
        also, token = self._told(account, proof), None
        if remember:
            token, keep = self.devices.remember(account.key, pending.device)
            also.append(keep)
        opened = await self.sessions.sign_in(
            pending,
            account,
            proofs=(PASSWORD, proof),
            device=pending.device,
            also=also,
            is_awaited=True,
        )
        return opened, token

    async def awaited(self, pending: Session) -> Account | None:
        """Return the account whose second factor this session waits for."""
        if pending.pending is None:
            return None
        account = await self.sessions.store.get(Account, pending.pending)
        return None if account is None or account.disabled else account

    async def by_recovery_code(
        self, before: Session, username: str, password: str, code: str, place: Place
    ) -> Opened:
        """Open a session for a user name, password and recovery code at once.

        The code cannot be guessed and is looked at first, so this way stays open while strangers
        use up the tries on the password. Raises `SignInRefused`, `SignedOutMeanwhile`, `Spent`
        and `TooManyAttempts`.
        """
        store, throttle = self.sessions.store, self.password.throttle
        attempt = await throttle.attempt(
            f"recovery {folded(username)}",
            address=place.address,
            device=place.known,
            guessable=False,
        )
        found = await account_named(store, username)
        account = None if found is None or found.disabled else found
        codes = self.second_factor.codes
        try:
            async with throttle.looking_at(attempt):
                proof = await codes.prove(account.key if account is not None else None, code)
        except WrongCode:
            raise SignInRefused from None
        assert account is not None  # noqa: S101 - a code was right
        holder = await throttle.attempt(
            folded(username), address=place.address, device=f"recovery code of {account.key}"
        )
        async with throttle.looking_at(attempt), throttle.looking_at(holder):
            matches = await self.password.passwords.verify(account.password_hash, password)
        if not matches:
            raise SignInRefused
        await throttle.succeeded(attempt)
        await throttle.succeeded(holder)
        return await self.sessions.sign_in(
            before,
            account,
            proofs=(PASSWORD, proof),
            device=place.device,
            also=self._told(account, proof),
        )

    async def by_passkey(self, before: Session, answer: str, place: Place) -> Opened:
        """Open a session for a passkey, which says whose it is; it is both factors at once.

        Nobody can use up anything that this way needs. Raises `PasskeyRefused`,
        `SignedOutMeanwhile` and `Spent`.
        """
        account, proof = await self.passkeys.prove(before, answer)
        return await self.sessions.sign_in(before, account, proofs=(proof,), device=place.device)

    async def confirm_by_passkey(self, visitor: Visitor, answer: str) -> tuple[Opened, Write]:
        """Draft the session of a person who proved again who they are, by their passkey.

        Raises `PasskeyRefused` and `SignedOutMeanwhile`.
        """
        if visitor.account is None:
            raise SignedOutMeanwhile
        _, proof = await self.passkeys.prove(visitor.session, answer, visitor.account)
        return self.sessions.confirmed(visitor, [proof])

    async def confirm(
        self, visitor: Visitor, password: str, code: str, place: Place
    ) -> tuple[Opened, Write]:
        """Draft the session of a person who proved again who they are; see `Sessions.confirmed`.

        ``code`` is asked of accounts with an authenticator app. Tries count for this session
        alone. Raises `SignInRefused`, `WrongCode`, `SignedOutMeanwhile` and `TooManyAttempts`.
        """
        account = visitor.account
        if account is None:
            raise SignedOutMeanwhile
        here = f"session {visitor.browser}"
        await self.password.again(account, password, address=place.address, device=here)
        proofs, also = [PASSWORD], list[Write]()
        if await self.second_factor.is_asked_of(account.key):
            proof = await self.second_factor.prove(
                account, code, address=place.address, device=here
            )
            proofs, also = [PASSWORD, proof], self._told(account, proof)
        return self.sessions.confirmed(visitor, proofs, also)

    def _told(self, account: Account, proof: Proof) -> list[Write]:
        """What the owner is told of a proof: that a recovery code is used up."""
        if proof.factor != "recovery-code":
            return []
        now = self.sessions.clock()
        return [self.notices.about(account, "recovery-code-used", now=now)]
