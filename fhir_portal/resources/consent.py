"""Consent has behaviour of its own: a well-made proxy grant becomes a standing `Grant`.

Only a writer who may write grants makes, changes or ends one; the Grant changes in the same
transaction as its Consent. From any other writer a Consent conveys nothing (DESIGN: the grant).

A person consented to an app under the grant of that day. Tokens follow it when it gets narrower;
when it ends or becomes another one they end with it, so that nothing comes back to life when it
is given again, and nothing grows that nobody was asked about.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from zoneinfo import ZoneInfo

from fhir_portal.access.context import GRANT_WRITING, AuthContext
from fhir_portal.accounts.practice import Practice
from fhir_portal.consent.grant import Grant, goes_beyond, is_grant, read_grant
from fhir_portal.fhir.errors import Forbidden
from fhir_portal.records import RecordTransaction
from fhir_portal.smart.revocation import revoke_where


async def before_change(
    transaction: RecordTransaction,
    auth: AuthContext,
    practice: str,
    old: Mapping[str, Any],
    new: Mapping[str, Any] | None,
    *,
    now: float,
) -> None:
    """Keep the Grant of a Consent in step with what is about to be stored (``None``: deleted).

    Tokens given under a grant that ends, or that is widened, end in the same transaction.

    Raises:
        Forbidden: the Consent carries a standing grant and the writer may not write grants.
    """
    tree = new or old
    if tree.get("resourceType") != "Consent":
        return
    key = f"{practice}/{tree['id']}"
    standing = await transaction.get(Grant, key)
    may_write = GRANT_WRITING in auth.permissions
    if standing is not None and not may_write:
        message = "this client may not change a standing grant"
        raise Forbidden(message)
    if not may_write:
        if is_grant(old) and old.get("status") == "proposed":
            # It becomes active as it stands once an invitation is redeemed.
            message = "this client may not change a proposed grant"
            raise Forbidden(message)
        return
    grant = None
    if new is not None and is_grant(new):
        known = await transaction.get(Practice, practice)
        zone = ZoneInfo(known.zone if known else "UTC")
        grant = read_grant(new, practice=practice, zone=zone)
    if grant is not None:
        await transaction.put(grant)
    elif standing is not None:
        await transaction.delete(Grant, key)
    if standing is not None and (grant is None or goes_beyond(grant, standing)):
        await revoke_where(
            transaction,
            "grant",
            f"Consent/{standing.consent}",
            practice=practice,
            now=now,
            because="grant-ended" if grant is None else "grant-changed",
        )
