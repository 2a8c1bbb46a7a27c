"""``Patient/[id]/$undo-merge``: take a merge back within a day, exactly as it was.

What was changed since by somebody else is not written over: then nothing is taken back, and the
answer names it. A grant that somebody ended meanwhile stays ended, and so does one that the merge
ended because its holder had another way to the surviving record, if that way was ended meanwhile.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from fhir_portal.access.visibility import Visibility
from fhir_portal.accounts.account import Account
from fhir_portal.accounts.invitation import LIVE, Invitation
from fhir_portal.consent.grant import Grant
from fhir_portal.fhir import json
from fhir_portal.fhir.errors import Conflict, Unprocessable
from fhir_portal.fhir.interaction import FhirResponse
from fhir_portal.fhir.reference import ResourceKey
from fhir_portal.operations.call import Call
from fhir_portal.operations.merge import (
    UNDO_SECONDS,
    Changed,
    RecordMerge,
    mark_of,
    put_mark,
    rename_invitation,
    write,
)
from fhir_portal.operations.merge_plan import (
    has_a_way,
    is_replaced,
    repointed,
    require_proxies_let_in,
    unlinked,
)
from fhir_portal.operations.person import new_name, notices_of
from fhir_portal.resources.portal_status import without_status
from fhir_portal.resources.store import ResourceTransaction, Row
from fhir_portal.smart.revocation import revoke_from_record


async def undo_merge(call: Call) -> FhirResponse:
    """Give back what the merge of this Patient into another one moved.

    What ended with the merge stays ended: apps are connected anew.
    """
    now, practice, name = call.server.clock(), call.auth.practice, new_name(call)

    async def work(transaction: ResourceTransaction) -> tuple[Row, Row, int]:
        await call.server.still(transaction, call.auth)
        row = await call.target(transaction)
        found = await transaction.get(RecordMerge, f"{practice}/{row.key}")
        if found is None or found.undone is not None:
            message = f"{row.key} was not merged into another Patient"
            raise Unprocessable(message)
        if now >= found.at + UNDO_SECONDS:
            message = "a merge can be taken back for a day, and that is over"
            raise Unprocessable(message)
        for patient in (found.source, found.target):
            await require_proxies_let_in(transaction, practice, patient, now=now)
        given_back = await _give_back(call, transaction, found)
        for key in found.accounts:
            await revoke_from_record(
                transaction, key, practice, found.target, now=now, because="merge-undone"
            )
        await transaction.put(msgspec.structs.replace(found, undone=now))
        for number, key in enumerate(found.accounts):
            account = await transaction.get(Account, key)
            if account is not None:
                tell = notices_of(call).about(
                    account, "merge-undone", now=now, once=f"{name}.{number}", practice=practice
                )
                await tell(transaction)
        target = await _read(transaction, practice, found.target)
        return row, target, given_back

    row, target, given_back = await call.server.store.transact(work)
    return call.answer({"given-back": given_back}, row, target)


async def _give_back(call: Call, transaction: ResourceTransaction, found: RecordMerge) -> int:
    practice = found.practice
    target = await _read(transaction, practice, found.target)
    if not target.deleted and is_replaced(json.parse(target.body)):
        message = f"{found.target} was merged on: take that back first"
        raise Conflict(message)
    given_back, in_the_way = 0, list[str]()
    for one in found.changed:
        row = await _read(transaction, practice, one.key)
        tree = await _tree_before(transaction, found, one, row, now=call.server.clock())
        if tree is None:
            in_the_way.append(one.key)
        elif tree:
            await write(call, transaction, row, tree)
            given_back += 1
    for moved in found.invitations:
        now_ = await transaction.get(Invitation, moved.key)
        waits = now_ is not None and now_.state == "awaiting" and moved.waited
        if now_ is None or (now_.state in {"awaiting", "redeemed"} and not waits):
            in_the_way.append(f"Task/{moved.key.rpartition('/')[2]}")
        elif waits or now_.state in LIVE:
            before = msgspec.structs.replace(
                now_, invitee=moved.invitee, patients=moved.patients, persons=moved.persons
            )
            await rename_invitation(transaction, now_, before, now=call.server.clock())
    if in_the_way:
        message = f"changed since the merge, so nothing was taken back: {', '.join(in_the_way)}"
        raise Conflict(message)
    if found.mark is not None and found.mark == await mark_of(transaction, practice, found.target):
        await put_mark(transaction, practice, found.target, found.mark_before)
    return given_back


async def _tree_before(
    transaction: ResourceTransaction, found: RecordMerge, one: Changed, row: Row, *, now: float
) -> dict[str, Any] | None:
    """What is to be written: ``None`` if something is in the way, empty for nothing."""
    if row.deleted:
        return None
    tree = json.parse(row.body)
    before = await _version(transaction, found, one.key, one.before)
    after = await _version(transaction, found, one.key, one.after)
    if before is None or after is None:
        return None
    if row.version == one.after or _without_meta_of(tree) == after:
        if row.key.type == "Consent" and before.get("status") != after.get("status"):
            return before if await _has_a_way_still(transaction, found, before, now=now) else {}
        return before  # nobody changed it, or what was changed is as it was
    if one.key == found.source:
        return {
            **unlinked(tree, found.target),
            "active": before.get("active") is not False,
        }
    if one.key == found.target:
        return unlinked(tree, found.source)
    if row.key.type == "Consent":
        standing = await transaction.get(Grant, f"{found.practice}/{row.key.id}")
        return {} if standing is None else None
    if row.key.type == "Task":  # it tells how far the invitation has come meanwhile
        return repointed(tree, found.target, found.source)
    return None


async def _has_a_way_still(
    transaction: ResourceTransaction, found: RecordMerge, consent: Mapping[str, Any], *, now: float
) -> bool:
    """Whether the holder of a grant still has the way for which the merge ended it."""
    (actor,) = consent["provision"]["actor"]
    return await has_a_way(
        transaction,
        found.practice,
        actor["reference"]["reference"],
        source=found.source,
        target=found.target,
        now=now,
    )


async def _version(
    transaction: ResourceTransaction, found: RecordMerge, text: str, version: int
) -> dict[str, Any] | None:
    key = ResourceKey.parse(text)
    everything = Visibility.of_server(key.type, practice=found.practice)
    row = await transaction.vread(key, version, everything)
    return _without_meta_of(json.parse(row.body)) if row is not None and row.body else None


def _without_meta_of(tree: dict[str, Any]) -> dict[str, Any]:
    """The resource without number and time of that version and what the server says of accounts.

    Labels and tags stay.
    """
    tree = without_status(tree)
    meta = {
        name: value
        for name, value in (tree.get("meta") or {}).items()
        if name not in {"versionId", "lastUpdated"}
    }
    rest = {name: value for name, value in tree.items() if name != "meta"}
    return rest | ({"meta": meta} if meta else {})


async def _read(transaction: ResourceTransaction, practice: str, text: str) -> Row:
    key = ResourceKey.parse(text)
    row = await transaction.read(key, Visibility.of_server(key.type, practice=practice))
    if row is None:
        message = f"{key} is gone"
        raise Conflict(message)
    return row
