"""Task has behaviour of its own: of invitations, and of what staff have to see to.

That of an invitation stays for as long as somebody may use it, or waits to be confirmed. One for
staff keeps the tag that hides it from patients, whoever writes it; once it is not open any more,
what somebody typed beside it goes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from fhir_portal.accounts.invitation import LIVE, Invitation, can_be_confirmed
from fhir_portal.accounts.levels import Permission
from fhir_portal.accounts.matter import About, StaffMatter, settled
from fhir_portal.consent.grant import IG
from fhir_portal.consent.labels import FOR_STAFF, PORTAL_TAG
from fhir_portal.fhir.errors import Conflict
from fhir_portal.fhir.reference import ResourceKey
from fhir_portal.records import RecordReader, RecordTransaction

CODE: Final = f"{IG}/CodeSystem/portal-task"
SHOWN_TO: Final[Mapping[About, Permission]] = {
    "recovery-help": "recover",
    "activation-help": "invite",
    "undelivered-message": "invite",
    "payment-mismatch": "billing",
    "overlapping-appointments": "appointments",
}
"""The permission of an access level that shows a Task and lets its holder complete it."""
REVIEW_DOCUMENT: Final = "review-document"
"""The code of a Task by which staff with `documents` look at what somebody brought."""
OPEN: Final = frozenset(
    {"draft", "requested", "received", "accepted", "ready", "in-progress", "on-hold"}
)
"""The states of a Task that waits for somebody; an EHR may have moved it on."""


def about_of(tree: Mapping[str, Any]) -> About | None:
    """Return what a Task is about if it is one for staff."""
    for coding in (tree.get("code") or {}).get("coding") or ():
        for about in SHOWN_TO:
            if coding.get("system") == CODE and coding.get("code") == about:
                return about
    return None


def is_about(tree: Mapping[str, Any], code: str) -> bool:
    """Whether a Task has a code of `CODE`."""
    codings = (tree.get("code") or {}).get("coding") or ()
    return any((one.get("system"), one.get("code")) == (CODE, code) for one in codings)


def is_document_review(tree: Mapping[str, Any]) -> bool:
    """Whether a Task is for staff to look at a document that somebody brought."""
    return is_about(tree, REVIEW_DOCUMENT)


async def matter_of(reader: RecordReader, practice: str, task: str) -> StaffMatter | None:
    """Return what is known beside a Task of a practice, by its id, as long as it is kept."""
    found = await reader.find(StaffMatter, "task", f"{practice}/Task/{task}", limit=1)
    return found[0] if found else None


async def settle_matter(
    transaction: RecordTransaction, practice: str, task: str, *, now: float
) -> None:
    """Note that the Task of a matter was completed: noted once more, it is a new one."""
    matter = await matter_of(transaction, practice, task)
    if matter is not None and matter.settled is None:
        await transaction.put(settled(matter, at=now))


def put_tag(old: Mapping[str, Any], tree: dict[str, Any]) -> None:
    """Tag a Task for staff that is about to be stored, in place, whatever its writer says of it.

    ``old`` is the version before: what was for staff stays so, even with another code.
    """
    about = about_of(tree) or about_of(old)
    if about is not None:
        permission: Permission = SHOWN_TO[about]
    elif is_document_review(tree) or is_document_review(old):
        permission = "documents"
    else:
        return
    tag = {"system": PORTAL_TAG, "code": FOR_STAFF[permission]}
    meta = dict(tree.get("meta") or {})
    tags = list(meta.get("tag") or ())
    if not any(tag.items() <= one.items() for one in tags):
        tree["meta"] = meta | {"tag": [*tags, tag]}


async def after_change(
    transaction: RecordTransaction,
    practice: str,
    old: Mapping[str, Any],
    new: Mapping[str, Any],
    *,
    now: float,
) -> None:
    """Settle what a Task for staff tells of once it is not open: completed, called off or gone.

    ``new`` is empty for a deletion.
    """
    if about_of(old) is None and about_of(new) is None:
        return
    if new.get("status") not in OPEN:
        await settle_matter(transaction, practice, str(new.get("id") or old.get("id")), now=now)


async def before_deletion(
    reader: RecordReader, practice: str, key: ResourceKey, *, now: float
) -> None:
    """Let an invitation be taken back and not merely lost sight of.

    Raises:
        Conflict: the Task is that of an invitation which is not over.
    """
    if key.type != "Task":
        return
    invitation = await reader.get(Invitation, f"{practice}/{key}")
    if invitation is None:
        return
    if invitation.state in LIVE or can_be_confirmed(invitation, now):
        message = "this is an invitation that is not over: take it back by $invite-revoke first"
        raise Conflict(message)
