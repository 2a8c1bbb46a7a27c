"""How an activation ends: in a new account, or in the one that is signed in."""

from __future__ import annotations

from typing import Final

import msgspec

from fhir_portal.accounts.account import Account, DuplicateAccount, account_named, new_account
from fhir_portal.accounts.activation import Activation, ActivationOver
from fhir_portal.accounts.passkeys import Site
from fhir_portal.accounts.practice import Practice
from fhir_portal.accounts.proof import Write
from fhir_portal.accounts.sessions import Session, Visitor
from fhir_portal.accounts.user_name import chosen_name
from fhir_portal.operations.activation.activations import Activations
from fhir_portal.operations.redeem import Redemption, redeem

NAMES: Final = "20 per hour"
"""User names that one activation tries: each answer tells whether somebody has it."""


async def choose_name(
    activations: Activations, activation: Activation, username: str
) -> Activation:
    """Keep the user name somebody wants; see `name_for`.

    Raises `ActivationOver` besides, while something is still to be proved.
    """
    await _require_ready(activations, activation)
    await name_for(activations, activation, username)
    typed = {**activation.typed, "username": username}
    return await activations.store_step(
        activation, msgspec.structs.replace(activation, typed=typed)
    )


async def name_for(activations: Activations, activation: Activation, username: str) -> str:
    """Return a user name that the person may have.

    Raises `InvalidUsername`, `DuplicateAccount` and `TooManyAttempts`.
    """
    proved = [one.value for one in activation.proved_contacts if one.medium == "mail"]
    name = chosen_name(username, proved=proved)
    await activations.door.password.throttle.limit(NAMES, f"names of {activation.key}")
    if await account_named(activations.server.store, name) is not None:
        raise DuplicateAccount(name)
    return name


async def with_password(
    activations: Activations, activation: Activation, username: str, password: str
) -> tuple[Account, list[str]]:
    """Make the account; return it, and recovery codes for whoever has no contact.

    Raises `UnacceptablePassword`, what `name_for` raises, and what `redeem` does.
    """
    await _require_ready(activations, activation)
    name = await name_for(activations, activation, username)
    practice = await activations.server.store.get(Practice, activation.practice)
    hashed = await activations.door.password.passwords.hash(
        password, username=name, names=[practice.name] if practice is not None else []
    )
    account = new_account(
        username=name,
        password_hash=hashed,
        now=activations.server.clock(),
        random=activations.collaborators.random,
    )
    return await _made(activations, activation, account, [])


async def begin_passkey(
    activations: Activations, activation: Activation, session: Session, site: Site
) -> tuple[Activation, str]:
    """Return what the browser is to make, as JSON, for the user name chosen before."""
    await _require_ready(activations, activation)
    name = await name_for(activations, activation, activation.typed.get("username", ""))
    account = new_account(
        username=name,
        password_hash=None,
        now=activations.server.clock(),
        random=activations.collaborators.random,
    )
    options = await activations.door.passkeys.begin_adding(session, account, site)
    after = msgspec.structs.replace(activation, draft=account.key)
    return await activations.store_step(activation, after), options


async def with_passkey(
    activations: Activations, activation: Activation, session: Session, answer: str, name: str
) -> tuple[Account, list[str]]:
    """Make an account that signs in by passkey; as `with_password`.

    Raises `PasskeyRefused` besides.
    """
    await _require_ready(activations, activation)
    username = await name_for(activations, activation, activation.typed.get("username", ""))
    drawn = new_account(
        username=username,
        password_hash=None,
        now=activations.server.clock(),
        random=activations.collaborators.random,
    )
    account = msgspec.structs.replace(drawn, key=activation.draft or drawn.key)
    added = await activations.door.passkeys.added(session, account, answer, name)
    return await _made(activations, activation, account, [added])


async def into_account(
    activations: Activations, activation: Activation, visitor: Visitor
) -> Account:
    """Add what was proved to the account that is signed in. Raises what `redeem` does."""
    if visitor.account is None:
        raise ActivationOver
    await _require_ready(activations, activation, adding=True)
    return await redeem(
        activations.server,
        activations.collaborators,
        Redemption(activation, visitor.account, visitor),
    )


async def _made(
    activations: Activations, activation: Activation, account: Account, also: list[Write]
) -> tuple[Account, list[str]]:
    codes: list[str] = []
    if activation.without_contact and not activation.proved_contacts:
        codes, keep = await activations.door.second_factor.codes.new(account.key)
        also = [*also, keep]
    redemption = Redemption(activation, account, also=tuple(also))
    return await redeem(activations.server, activations.collaborators, redemption), codes


async def _require_ready(
    activations: Activations, activation: Activation, *, adding: bool = False
) -> None:
    """Raise `ActivationOver` while something is still to be proved or decided."""
    step = await activations.due(activation)
    if step != "account" and not (adding and step == "contact"):
        raise ActivationOver
