"""People who use invitations to act for somebody, said in a line."""

from __future__ import annotations

from typing import Any

from fhir_portal.accounts.activation import Activation
from fhir_portal.accounts.assurance import Evidence
from fhir_portal.accounts.invitation import Invitation, InvitationSecrets
from fhir_portal.operations.redeem import Redemption, redeem
from fhir_portal.portal import Portal
from tests.builders import START, an_account, keep


async def uses(
    portal: Portal, store: Any, key: str, account: str, *, proved: str = ""
) -> Invitation:
    """Make a new account by an invitation, all of which was proved; and a mail address, maybe."""
    found = await store.get(Invitation, key)
    assert found is not None
    evidence = [Evidence("security-code", "desk", START), Evidence("birth-date", "record", START)]
    if proved:
        evidence.append(Evidence("one-time-code", "mail", START, proved))
    activation = Activation(
        key=f"of-{account}",
        expires=START + 1e9,
        begun=START,
        browser="x",
        way="link",
        practice=found.practice,
        invitation=found.key,
        attempt=found.attempt,
        patients=found.patients,
        persons=found.persons,
        evidence=tuple(evidence),
    )
    await keep(store, activation)
    made = an_account(account)
    await redeem(portal.server, portal.collaborators, Redemption(activation, made))
    stored: Invitation | None = await store.get(Invitation, key)
    assert stored is not None
    return stored


def number(portal: Portal, invitation: Invitation) -> str:
    """What the page of who used an invitation shows."""
    return InvitationSecrets(portal.collaborators.derive("invitations")).number(invitation)
