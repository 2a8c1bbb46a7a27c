"""``Patient/$merge``: one human has two Patients; what is about access goes to the one that stays.

Accounts, grants, related persons and live invitations go over in one transaction. Connections of
apps end, each with a receipt: an app was allowed one record, and nobody asked its owner about the
other. Parameters are those of FHIR R5 (``Patient/$merge``) as far as they have a meaning here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Final

import msgspec

from fhir_portal.access.visibility import Visibility
from fhir_portal.accounts.account import Account, account_of_person
from fhir_portal.accounts.activation import Activation, FileContact
from fhir_portal.accounts.invitation import DAY, Invitation, LiveInvitation
from fhir_portal.accounts.policy import policy_of
from fhir_portal.fhir import json
from fhir_portal.fhir.errors import Conflict, Forbidden, Invalid, Issue, Unprocessable
from fhir_portal.fhir.interaction import FhirResponse
from fhir_portal.fhir.outcome import outcome
from fhir_portal.fhir.reference import ResourceKey
from fhir_portal.operations.call import Call
from fhir_portal.operations.four_eyes import require_another_merges
from fhir_portal.operations.invitation_end import take_back
from fhir_portal.operations.inviting import invitation_secrets
from fhir_portal.operations.merge_plan import (
    MOST,
    REPLACED_BY,
    REPLACES,
    MergePlan,
    linked,
    plan_merge,
    repointed,
)
from fhir_portal.operations.new_proxy import tell_of_gain
from fhir_portal.operations.no_more_invitations import NoMoreInvitations
from fhir_portal.operations.on_file import contacts_on_file
from fhir_portal.operations.person import (
    asked_by,
    connections_of,
    moment,
    new_name,
    notices_of,
)
from fhir_portal.operations.unproved_links import drop_links
from fhir_portal.records import Record
from fhir_portal.resources.store import ResourceTransaction, Row
from fhir_portal.resources.writing import parsed_tree, update_in
from fhir_portal.search.registry import parameters_for
from fhir_portal.smart.token import base64url

UNDO_SECONDS: Final = DAY
_ACCEPT_SIGNS: Final = 22


class Changed(msgspec.Struct, frozen=True):
    """One resource that a merge changed: ``Type/<id>``, and its versions before and after."""

    key: str
    before: int
    after: int


class MovedInvitation(msgspec.Struct, frozen=True):
    """One invitation that went over, and what it said before.

    It ``waited`` where somebody had used it and nobody had confirmed that yet.
    """

    key: str
    invitee: str
    patients: tuple[str, ...]
    persons: tuple[str, ...]
    waited: bool = False


class EndedMark(msgspec.Struct, frozen=True):
    """What a `NoMoreInvitations` says, of whoever it is."""

    since: float
    closed: bool


class RecordMerge(Record, frozen=True, kw_only=True):
    """A merge of two Patients; ``key`` is ``<practice>/Patient/<id>`` of the one that went.

    ``at`` is when, ``undone`` when it was taken back (seconds since 1970 UTC). ``accounts`` are
    those whose own record went over. ``mark`` is that the one that went was to get no more
    invitations, as the one that stays has it now, and ``mark_before`` what that one had.
    """

    kind: ClassVar[str] = "record-merge"

    practice: str
    source: str
    target: str
    at: float
    by: str
    changed: tuple[Changed, ...]
    invitations: tuple[MovedInvitation, ...] = ()
    accounts: tuple[str, ...] = ()
    mark: EndedMark | None = None
    mark_before: EndedMark | None = None
    undone: float | None = None


async def merge(call: Call) -> FhirResponse:
    """Merge two Patients, or show what that would do.

    Whoever would see something by it that they may not see now is named in a preview, and has to be
    accepted by the value that the preview gives for them.
    """
    result = await _result_patient(call)
    now, practice, name = call.server.clock(), call.auth.practice, new_name(call)
    is_preview = bool(call.arguments.one("preview"))

    async def work(transaction: ResourceTransaction) -> tuple[MergePlan, dict[str, Any]]:
        await call.server.still(transaction, call.auth)
        source = await call.named(transaction, call.arguments.one("source-patient"), "Patient")
        target = await call.named(transaction, call.arguments.one("target-patient"), "Patient")
        plan = await plan_merge(
            transaction,
            practice,
            source,
            target,
            force_accounts=bool(call.arguments.one("force-accounts")),
            now=now,
        )
        accept = _accept(call, plan)
        shown = _shown(plan) | {"accept": accept}
        if is_preview:
            return plan, shown | _said("nothing was changed: this is what a merge would do")
        await _require_another(call, transaction, plan)
        _require_accepted(call, accept)
        told = 0
        if plan.gains:
            told = await tell_of_gain(
                transaction, call.server, practice, str(target.key), once=name
            )
        # Before the grants go over: with a grant its families end, and nobody would get a receipt.
        apps = await connections_of(call).end_of_record(
            transaction, practice, str(source.key), now=now
        )
        done = await _carry_out(call, transaction, plan, result)
        await transaction.put(done)
        for number, key in enumerate(done.accounts):
            account = await transaction.get(Account, key)
            if account is not None:
                tell = notices_of(call).about(
                    account, "record-merged", now=now, once=f"{name}.{number}", practice=practice
                )
                await tell(transaction)
        after = await transaction.read(target.key, _whole("Patient", practice))
        return plan, shown | _said("the Patients were merged") | {
            "result": json.parse(after.body) if after is not None else None,
            "ended-apps": apps,
            "told": told,
            "undo-until": moment(now + UNDO_SECONDS),
        }

    plan, values = await call.server.store.transact(work)
    return call.answer(values, plan.source, plan.target)


async def _result_patient(call: Call) -> dict[str, Any] | None:
    """What the surviving Patient is to say, by its EHR; labels stay as they are."""
    tree: dict[str, Any] | None = call.arguments.one("result-patient")
    if tree is None:
        return None
    if call.auth.context != "system":
        message = "what a Patient says is written by the practice's EHR"
        raise Forbidden(message)
    target = (call.arguments.one("target-patient") or {}).get("reference")
    if f"Patient/{tree.get('id')}" != target:
        message = "result-patient is the target-patient, with its id"
        raise Invalid(message, expression="Parameters.parameter.where(name='result-patient')")
    tree = {name: value for name, value in tree.items() if name != "meta"}
    return await parsed_tree(tree, json.dumps(tree), "Patient")


async def _require_another(call: Call, transaction: ResourceTransaction, plan: MergePlan) -> None:
    """Refuse that staff give themselves a record by merging. Raises `Forbidden`."""
    by, practice = call.auth.account, call.auth.practice
    if call.auth.staff is None or by is None:
        return
    accounts, persons = set[str](), list[Mapping[str, Any]]()
    for gain in plan.gains:
        found = [ResourceKey.parse(gain.who)]
        if found[0].type == "Task":
            there = await transaction.get(Invitation, f"{practice}/{gain.who}")
            accounts.add((there.redeemed_by if there is not None else None) or "")
            found = [ResourceKey.parse(one) for one in there.persons] if there is not None else []
        rows = await transaction.referring(
            parameters_for("Person")["link"], found, _whole("Person", practice), limit=MOST
        )
        names = {str(row.key) for row in rows} | {gain.who}
        holders = [await account_of_person(transaction, f"{practice}/{one}") for one in names]
        accounts |= {one.key for one in holders if one is not None}
        for key in found:
            row = await transaction.read(key, _whole(key.type, practice))
            if row is not None and not row.deleted and key.type != "Person":
                persons.append(json.parse(row.body))
    await require_another_merges(
        transaction, practice, by,
        accounts=accounts - {""}, persons=persons, now=call.server.clock(),
    )  # fmt: skip


def _require_accepted(call: Call, accept: str | None) -> None:
    given = call.arguments.one("accept")
    if accept == given:
        return
    if given is None:
        message = "somebody would see more by this: call with preview, then give its accept"
        raise Unprocessable(message)
    message = "who would see more is not what was accepted any more: call with preview again"
    raise Conflict(message)


def _accept(call: Call, plan: MergePlan) -> str | None:
    """What stands for exactly these gains of exactly these two Patients; ``None`` for no gain."""
    if not plan.gains:
        return None
    said = [call.auth.practice, str(plan.source.key), str(plan.target.key)]
    for one in sorted(plan.gains, key=lambda one: (one.who, one.through, one.text)):
        said += [one.who, one.through, one.text]
    made = call.collaborators.derive("merge-gains", *(part.encode() for part in said))
    return base64url(made)[:_ACCEPT_SIGNS]


def _shown(plan: MergePlan) -> dict[str, Any]:
    moved: list[dict[str, Any]] = [
        {"what": {"reference": str(one.row.key)}, "change": one.what} for one in plan.moves
    ]
    for before, after in plan.invitations:
        change = "invitation" if after is not None else "invitation-ended"
        moved.append({"what": {"reference": f"Task/{before.task}"}, "change": change})
    return {
        "moved": moved,
        "gains": [
            {
                "who": {"reference": one.who},
                "through": {"reference": one.through},
                "record": {"reference": str(plan.target.key)},
                "text": one.text,
            }
            for one in plan.gains
        ],
        "loses": [{"who": {"reference": one.who}, "text": one.text} for one in plan.losses],
    }


def _said(words: str) -> dict[str, Any]:
    said = outcome([Issue("informational", words, severity="information")])
    return {"outcome": json.parse(said)}


async def _carry_out(
    call: Call,
    transaction: ResourceTransaction,
    plan: MergePlan,
    result: Mapping[str, Any] | None,
) -> RecordMerge:
    """Write all of a plan; return what is kept of it, so that it can be taken back."""
    source, target = str(plan.source.key), str(plan.target.key)
    gone = {**json.parse(plan.source.body), "active": False}
    stays = dict(result) if result is not None else json.parse(plan.target.body)
    changed = [
        await write(call, transaction, plan.source, linked(gone, target, REPLACED_BY)),
        await write(call, transaction, plan.target, linked(stays, source, REPLACES)),
    ]
    changed += [await write(call, transaction, one.row, one.tree) for one in plan.moves]
    moved, secrets = list[MovedInvitation](), invitation_secrets(call.collaborators.derive)
    for before, after in plan.invitations:
        if after is None:
            reason = f"{source} was merged into {target}"
            ended, _ = await take_back(transaction, call.server, secrets, before, reason=reason)
            if before.state == "awaiting":
                await drop_links(transaction, call.server, ended)
            continue
        await rename_invitation(transaction, before, after, now=call.server.clock())
        for task in await _tasks(call, transaction, before):
            tree = json.parse(task.body)
            there = repointed(tree, source, target)
            if there != tree:
                changed.append(await write(call, transaction, task, there))
        waited = before.state == "awaiting"
        said = (before.key, before.invitee, before.patients, before.persons)
        moved.append(MovedInvitation(*said, waited=waited))
    mark, mark_before = await _carry_mark(transaction, call.auth.practice, source, target)
    return RecordMerge(
        key=f"{call.auth.practice}/{source}",
        practice=call.auth.practice,
        source=source,
        target=target,
        at=call.server.clock(),
        by=asked_by(call.auth),
        changed=tuple(changed),
        invitations=tuple(moved),
        accounts=tuple(dict.fromkeys(plan.accounts)),
        mark=mark,
        mark_before=mark_before,
    )


async def mark_of(
    transaction: ResourceTransaction, practice: str, patient: str
) -> EndedMark | None:
    """Return what says that a ``Patient/<id>`` gets no more invitations, if anything does."""
    found = await transaction.get(NoMoreInvitations, f"{practice}/{patient}")
    return EndedMark(found.since, found.closed) if found is not None else None


async def put_mark(
    transaction: ResourceTransaction, practice: str, patient: str, mark: EndedMark | None
) -> None:
    """Say of a ``Patient/<id>`` what a mark does; ``None``: nothing."""
    key = f"{practice}/{patient}"
    if mark is None:
        await transaction.delete(NoMoreInvitations, key)
        return
    await transaction.put(NoMoreInvitations(key=key, since=mark.since, closed=mark.closed))


async def _carry_mark(
    transaction: ResourceTransaction, practice: str, source: str, target: str
) -> tuple[EndedMark | None, EndedMark | None]:
    """Let the portal stay ended for whom it was ended; return what is said now, and was before.

    ``None`` first where nothing was carried: that a practice ended it outweighs all else.
    """
    theirs = await mark_of(transaction, practice, source)
    before = await mark_of(transaction, practice, target)
    if theirs is None or (before is not None and (before.closed or not theirs.closed)):
        return None, before
    await put_mark(transaction, practice, target, theirs)
    return theirs, before


async def write(
    call: Call, transaction: ResourceTransaction, row: Row, tree: dict[str, Any]
) -> Changed:
    """Write the next version of a resource of the practice, as the practice."""
    written = await update_in(
        transaction,
        call.server,
        call.as_practice,
        tree,
        _whole(row.key.type, call.auth.practice),
        key=row.key,
        if_match=str(row.version),
        if_none_match=None,
    )
    return Changed(str(row.key), row.version, written.row.version)


async def rename_invitation(
    transaction: ResourceTransaction, before: Invitation, after: Invitation, *, now: float
) -> None:
    """Store an invitation that is for another Patient now. Raises `Conflict`: it has changed."""
    if not await transaction.replace(before, after):
        message = "an invitation has changed meanwhile: try again"
        raise Conflict(message)
    for gone in set(before.invitees) - set(after.invitees):
        live = await transaction.get(LiveInvitation, gone)
        if live is not None and live.invitation == before.key:
            await transaction.delete(LiveInvitation, gone)
    for new in set(after.invitees) - set(before.invitees):
        await transaction.put(LiveInvitation(key=new, invitation=after.key))
    await _rename_activations(transaction, after, now=now)


async def _rename_activations(
    transaction: ResourceTransaction, invitation: Invitation, *, now: float
) -> None:
    """Let whoever has begun with an invitation end with the record that it is for now.

    What was proved stays; where codes go from now on is what that record says.
    """
    found = await transaction.find(Activation, "invitation", invitation.key)
    if not found:
        return
    key = ResourceKey.parse(invitation.persons[0])
    row = await transaction.read(key, _whole(key.type, invitation.practice))
    tree = json.parse(row.body) if row is not None and not row.deleted else {}
    policy = await policy_of(transaction, invitation.practice)
    contacts = tuple(
        FileContact(one.medium, one.value)
        for one in contacts_on_file(tree, country=policy.country, now=now)
    )
    for one in found:
        await transaction.put(
            msgspec.structs.replace(
                one,
                patients=invitation.patients,
                persons=invitation.persons,
                file_contacts=contacts,
                challenge="",
                challenge_to=None,
            )
        )


async def _tasks(call: Call, transaction: ResourceTransaction, invitation: Invitation) -> list[Row]:
    keys = [ResourceKey("Task", one) for one in (invitation.task, *invitation.tasks)]
    return await transaction.read_many(keys, _whole("Task", call.auth.practice))


def _whole(name: str, practice: str) -> Visibility:
    return Visibility.of_server(name, practice=practice)
