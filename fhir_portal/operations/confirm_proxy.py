"""``Task/[id]/$confirm-proxy``: a second member of staff opens a record for who was invited to it.

They have the person before them, or on the telephone, make sure of who it is, and type the number
that the person's own page shows: it stands for the account that used the invitation. Whoever made
the invitation does not confirm it (`fhir_portal.operations.four_eyes`).
"""

from __future__ import annotations

from typing import Final
from zoneinfo import ZoneInfo

from fhir_portal.accounts.account import Account
from fhir_portal.accounts.assisted_recovery import reopen
from fhir_portal.accounts.invitation import (
    Invitation,
    NotUsable,
    can_be_confirmed,
    confirm,
    count_number,
)
from fhir_portal.accounts.practice import Practice
from fhir_portal.fhir.errors import Conflict, Forbidden, Unprocessable
from fhir_portal.fhir.interaction import FhirResponse
from fhir_portal.notify import outbox
from fhir_portal.notify.recipients import to_account
from fhir_portal.operations.attempts import invitation_at
from fhir_portal.operations.authorship import Author, record_provenance
from fhir_portal.operations.call import Call
from fhir_portal.operations.definition import parameter
from fhir_portal.operations.four_eyes import (
    ANOTHER_CONFIRMS,
    is_one_human,
    others_there,
    require_another_confirms,
)
from fhir_portal.operations.invitation_task import activate_grants, follow
from fhir_portal.operations.inviting import invitation_secrets
from fhir_portal.operations.new_proxy import tell_of_proxy
from fhir_portal.operations.portal_invite import practice_of, words
from fhir_portal.operations.unproved_links import prove_links
from fhir_portal.resources.store import ResourceTransaction, Row

_NOT_WAITING: Final = (
    "this invitation does not wait to be confirmed, or waited too long: invite anew"
)
_WRONG: Final = "this is not the number that the person's page shows"
_ALONE: Final = "alone: "


async def confirm_proxy(call: Call) -> FhirResponse:
    """Open what was proposed with an invitation, for the account that used it."""
    secrets = invitation_secrets(call.collaborators.derive)
    typed, alone = str(call.arguments.one("number") or ""), words(call, "alone")
    by = call.auth.account
    if call.auth.staff is None or by is None:
        message = "this operation is for a practice's staff"
        raise Forbidden(message)
    once = call.collaborators.random(12).hex()

    async def work(
        transaction: ResourceTransaction,
    ) -> tuple[Invitation, list[Row], int] | None:
        await call.server.still(transaction, call.auth)
        now = call.server.clock()
        _, before = await invitation_at(call, transaction)
        if not can_be_confirmed(before, now):
            raise Conflict(_NOT_WAITING)
        if alone:
            await _require_alone(transaction, before, by, now=now)
        else:
            await require_another_confirms(transaction, before, by, now=now)
        try:
            if not await count_number(transaction, secrets, before, typed):
                return None
            practice = await practice_of(transaction, call.auth.practice)
            return await _open(call, transaction, before, practice, alone, by, once, now)
        except NotUsable:
            raise Conflict(_NOT_WAITING) from None

    done = await call.server.store.transact(work)
    if done is None:
        raise Unprocessable(_WRONG, expression=parameter("number"))
    invitation, rows, told = done
    return call.answer(
        {
            "invitation": {"reference": f"Task/{invitation.task}"},
            "status": invitation.state,
            "told": told,
        },
        *rows,
    )


async def _open(
    call: Call,
    transaction: ResourceTransaction,
    before: Invitation,
    practice: Practice,
    alone: str,
    by: str,
    once: str,
    now: float,
) -> tuple[Invitation, list[Row], int]:
    account = await transaction.get(Account, before.redeemed_by or "")
    if account is None or account.disabled:
        raise NotUsable
    were_proven = await prove_links(transaction, call.server, before, account)
    if practice.key in account.closed_at:
        # Another practice helped to recover the account: what opens all there is here again is to
        # be whom it was known as, and nobody else.
        if not were_proven:
            raise NotUsable
        await reopen(transaction, account, practice.key)
    await activate_grants(transaction, call.server, before, zone=ZoneInfo(practice.zone))
    confirmed = await confirm(transaction, before, by=by, now=now)
    said = f"{_ALONE}{alone}" if alone else "confirmed"
    rows = await follow(transaction, call.server, confirmed, reason=said if alone else "")
    author = Author.of(call.auth, practice)
    for row in rows:
        await record_provenance(
            transaction, call.server, practice.key, author, [str(row.key)],
            activity="UPDATE", reason=said,
        )  # fmt: skip
    await outbox.enqueue(
        transaction,
        key=f"record-added.{once}",
        practice=practice.key,
        channel="mail",
        to=to_account(account.key),
        template="record-added",
        now=now,
    )
    told = await tell_of_proxy(transaction, call.server, confirmed, once=once)
    return confirmed, rows, told


async def _require_alone(
    transaction: ResourceTransaction, invitation: Invitation, by: str, *, now: float
) -> None:
    """Refuse to do without a second member of staff where there is one, or for oneself.

    Raises `Forbidden`.
    """
    if await is_one_human(
        transaction, invitation.practice, by, invitation.redeemed_by or "", now=now
    ):
        raise Forbidden(ANOTHER_CONFIRMS)
    if others := await others_there(transaction, invitation, by):
        message = (
            f"there are others here who can confirm ({others}), so it is not done alone; if they "
            "had a part in this invitation, take it back and invite anew without them"
        )
        raise Forbidden(message)
