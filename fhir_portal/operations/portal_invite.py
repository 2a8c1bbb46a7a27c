"""``Patient/[id]/$portal-invite``: invite a patient, or somebody who acts for them."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Final, get_args

from fhir_portal.access.context import GRANT_WRITING
from fhir_portal.access.owners import local_target
from fhir_portal.access.visibility import Visibility
from fhir_portal.accounts.invitation import HOUR, Channel, Invitation, InvitationSecrets, Kind
from fhir_portal.accounts.policy import PracticePolicy, policy_of
from fhir_portal.accounts.practice import Practice
from fhir_portal.consent.presets import BASES
from fhir_portal.fhir import json
from fhir_portal.fhir.datetime import instant
from fhir_portal.fhir.errors import Conflict, Forbidden, NotFound, Unprocessable
from fhir_portal.fhir.interaction import FhirResponse
from fhir_portal.fhir.reference import ResourceKey
from fhir_portal.operations.authorship import Author
from fhir_portal.operations.call import Call
from fhir_portal.operations.definition import parameter
from fhir_portal.operations.invitation_way import HANDED_OVER
from fhir_portal.operations.invitation_wish import ForAnother, Wish
from fhir_portal.operations.inviting import Invited, invitation_secrets, invite
from fhir_portal.operations.on_file import contact_of
from fhir_portal.records import DuplicateRecord, Record
from fhir_portal.resources.interactions.read import unknown
from fhir_portal.resources.permission import permitted
from fhir_portal.resources.store import ResourceTransaction, Row

KEPT_SECONDS: Final = 30 * 86_400.0
"""How long an idempotency key is remembered."""
_LONGEST_KEY: Final = 100
_LONGEST_WORDS: Final = 200
_FULL_DATE: Final = 10
_MICROSECONDS: Final = 1_000_000
_ONLY_FOR_ANOTHER: Final = (
    *("patient", "related-person", "name", "relationship", "telecom", "section", "period"),
    *("basis", "evidence"),
)


class InvitationRequest(Record, frozen=True, kw_only=True):
    """What a caller asked for under an idempotency key, as a hash, and what came of it."""

    kind: ClassVar[str] = "invitation-request"

    asked: str
    invitation: str


async def portal_invite(call: Call) -> FhirResponse:
    """Invite somebody; the answer holds what has to be handed over, this once."""
    wish_for = _wish(call)
    key = call.arguments.one("idempotency-key")
    if key is not None and not 1 <= len(key) <= _LONGEST_KEY:
        message = f"an idempotency key has 1 to {_LONGEST_KEY} signs"
        raise Unprocessable(message, expression=parameter("idempotency-key"))
    secrets = invitation_secrets(call.collaborators.derive)
    request = _request_of(call, secrets, key) if key is not None else None

    async def work(transaction: ResourceTransaction) -> tuple[Invited, bool]:
        await call.server.still(transaction, call.auth)
        target = await call.target(transaction)
        before = None
        if request is not None:
            before = await transaction.get(InvitationRequest, request.key)
            if before is not None and call.server.clock() < (before.expires or 0.0):
                return Invited(await _the_same(transaction, request, before), (target,)), True
        practice = await practice_of(transaction, call.auth.practice)
        policy = await policy_of(transaction, practice.key)
        patients = [target, *await _further(call, transaction, target)]
        wish = await wish_for(transaction, patients, policy)
        made = await invite(
            transaction, call.server, secrets, wish,
            patients=patients, author=Author.of(call.auth, practice), practice=practice,
        )  # fmt: skip
        if request is not None:
            if before is not None:
                await transaction.delete(InvitationRequest, request.key)
            await transaction.insert(
                InvitationRequest(
                    key=request.key,
                    asked=request.asked,
                    invitation=made.invitation.key,
                    expires=call.server.clock() + KEPT_SECONDS,
                )
            )
        return made, False

    try:
        made, is_again = await call.server.store.transact(work)
    except DuplicateRecord:
        # Of two that came at the same moment the other was first: this one is its repetition.
        made, is_again = await call.server.store.transact(work)
    invitation = made.invitation
    values = state_of(invitation)
    if invitation.relation != "self":
        values["related-person"] = [{"reference": one} for one in invitation.persons]
        values["grant"] = [{"reference": one} for one in invitation.grants]
    if not is_again:
        values |= handed_out(invitation, secrets, call.collaborators.base)
    return call.answer(values, *made.rows, status=200 if is_again else 201)


def state_of(invitation: Invitation) -> dict[str, Any]:
    """Return how an invitation stands, for an answer; no secret and no address."""
    return {
        "invitation": {"reference": f"Task/{invitation.task}"},
        "status": invitation.state,
        "channel": invitation.channel,
        "code-by": invitation.code_by,
        "expires": instant(int(invitation.ends * _MICROSECONDS)),
    }


def handed_out(invitation: Invitation, secrets: InvitationSecrets, base: str) -> dict[str, Any]:
    """Return what the practice hands over, in the answer that made the attempt and in no other.

    Where the link is sent, the code alone is handed over, and only if it goes nowhere else.
    """
    own = secrets.of(invitation)
    if invitation.channel in HANDED_OVER:
        return {
            "link": f"{base}/activate/{own.link}",
            "security-code": own.code,
            "portal-id": own.portal_id,
            "activation-word": own.word,
        }
    return {"security-code": own.code} if invitation.code_by == "hand" else {}


async def practice_of(transaction: ResourceTransaction, key: str) -> Practice:
    """Return the practice whose record a call is in. Raises `NotFound`."""
    found = await transaction.get(Practice, key)
    if found is None:
        message = "this practice is not on this deployment"
        raise NotFound(message)
    return found


def words(call: Call, name: str) -> str:
    """Return a text that staff wrote. Raises `Unprocessable` for what is too long or no text."""
    text = str(call.arguments.one(name) or "").strip()
    if len(text) > _LONGEST_WORDS or not text.isprintable():
        message = f"{name} is one line of at most {_LONGEST_WORDS} signs"
        raise Unprocessable(message, expression=parameter(name))
    return text


def channel_of(call: Call) -> Channel | None:
    """Return the channel that was asked for. Raises `Unprocessable`."""
    channel = call.arguments.one("channel")
    for one in get_args(Channel):
        if channel == one:
            return one  # type: ignore[no-any-return]
    if channel is not None:
        message = f"channel is one of {', '.join(get_args(Channel))}"
        raise Unprocessable(message, expression=parameter("channel"))
    return None


NOT_FOR_OTHERS: Final = "this access level does not hold 'proxies': it invites patients alone"


def hours_of(call: Call) -> float | None:
    """Return the lifetime that was asked for, in seconds."""
    hours = call.arguments.one("lifetime-hours")
    return None if hours is None else float(hours) * HOUR


def _wish(call: Call) -> Any:
    """Return what makes the `Wish`, once the patients are known; what can be, is checked now."""
    kind = next((one for one in get_args(Kind) if one == call.arguments.one("kind")), None)
    if kind is None:
        message = f"kind is one of {', '.join(get_args(Kind))}"
        raise Unprocessable(message, expression=parameter("kind"))
    if kind == "self":
        for name in _ONLY_FOR_ANOTHER:
            if call.arguments.all(name):
                message = "this is not for somebody's own record"
                raise Unprocessable(message, expression=parameter(name))
    elif call.auth.context == "system" and GRANT_WRITING not in call.auth.permissions:
        message = "this client may not give grants"
        raise Forbidden(message)
    elif call.auth.staff is not None and not call.auth.may("proxies"):
        raise Forbidden(NOT_FOR_OTHERS)
    _refuse_controls(call.arguments.one("name"), "name")
    _refuse_controls(call.arguments.one("relationship"), "relationship")
    reason, channel = words(call, "reason"), channel_of(call)
    basis = next((one for one in BASES if one == call.arguments.one("basis")), None)
    if basis is None and call.arguments.one("basis") is not None:
        message = f"basis is one of {', '.join(BASES)}"
        raise Unprocessable(message, expression=parameter("basis"))
    period = call.arguments.one("period") or {}
    start, end = _edge(period, "start"), _edge(period, "end")
    sections = [(one.one("code"), one.one("act") is True) for one in call.arguments.all("section")]

    async def make(
        transaction: ResourceTransaction, patients: Sequence[Row], policy: PracticePolicy
    ) -> Wish:
        another = None
        if kind != "self":
            another = ForAnother(
                persons=await _persons(call, transaction, patients),
                basis=basis,
                evidence=await _evidence(call, transaction, patients),
                name=call.arguments.one("name"),
                relationship=call.arguments.one("relationship"),
                telecom=_telecom(call, policy),
                sections=sections,
                start=start,
                end=end,
            )
        return Wish(
            kind=kind,
            another=another,
            channel=channel,
            contact=call.arguments.one("contact"),
            lifetime=hours_of(call),
            reason=reason,
            force=call.arguments.one("force") is True,
        )

    return make


def _edge(period: Mapping[str, Any], name: str) -> str | None:
    text = period.get(name)
    if text is not None and len(text) < _FULL_DATE:
        message = "say the day"
        raise Unprocessable(message, expression=parameter("period"))
    return text


def _refuse_controls(value: Any, name: str) -> None:
    """Refuse line breaks and the like in what people read."""
    if isinstance(value, str) and (len(value) > _LONGEST_WORDS or not value.isprintable()):
        message = f"{name} is of printable text, of at most {_LONGEST_WORDS} signs"
        raise Unprocessable(message, expression=parameter(name))
    if isinstance(value, Mapping):
        for one in value.values():
            _refuse_controls(one, name)
    if isinstance(value, list):
        for one in value:
            _refuse_controls(one, name)


def _telecom(call: Call, policy: PracticePolicy) -> list[dict[str, Any]]:
    found = []
    for point in call.arguments.all("telecom"):
        contact = contact_of(point, country=policy.country)
        if contact is None:
            message = "telecom is a mail address (email) or a mobile telephone (phone, sms)"
            raise Unprocessable(message, expression=parameter("telecom"))
        system = "email" if contact.medium == "mail" else point["system"]
        use = {"use": "mobile"} if system == "phone" else {}
        found.append({"system": system, "value": contact.value} | use)
    return found


async def _further(call: Call, transaction: ResourceTransaction, target: Row) -> list[Row]:
    rows: dict[ResourceKey, Row] = {}
    for one in call.arguments.all("patient"):
        row = await call.named(transaction, one, "Patient")
        if row.key != target.key:
            rows[row.key] = row
    return list(rows.values())


async def _persons(
    call: Call, transaction: ResourceTransaction, patients: Sequence[Row]
) -> dict[str, Mapping[str, Any]]:
    """Return the RelatedPersons that were named, by the id of their patient."""
    found: dict[str, Mapping[str, Any]] = {}
    for one in call.arguments.all("related-person"):
        visible = permitted(call.server, call.auth, "r", "RelatedPerson").own()
        row = await _named(transaction, one, visible)
        tree = json.parse(row.body)
        own = _patient_of(tree, "patient")
        if own not in {patient.key for patient in patients} or own is None:
            raise unknown(row.key)
        if tree.get("active") is False or own.id in found:
            message = "this RelatedPerson is not active, or the patient has another one here"
            raise Unprocessable(message, expression=parameter("related-person"))
        found[own.id] = tree
    return found


async def _evidence(
    call: Call, transaction: ResourceTransaction, patients: Sequence[Row]
) -> dict[str, str]:
    """Return the DocumentReferences that were named, by the id of their patient."""
    found: dict[str, str] = {}
    for one in call.arguments.all("evidence"):
        visible = permitted(call.server, call.auth, "r", "DocumentReference").own()
        row = await _named(transaction, one, visible)
        tree = json.parse(row.body)
        own = _patient_of(tree, "subject")
        if own not in {patient.key for patient in patients} or own is None:
            raise unknown(row.key)
        if tree.get("status") != "current" or own.id in found:
            message = "this document is not current, or the patient has another one here"
            raise Unprocessable(message, expression=parameter("evidence"))
        found[own.id] = str(row.key)
    return found


async def _named(transaction: ResourceTransaction, reference: Any, visible: Visibility) -> Row:
    text = str(reference.get("reference") or "") if isinstance(reference, Mapping) else ""
    wanted = visible.resource_type
    key = ResourceKey.parse(text) if text.startswith(f"{wanted}/") else None
    if key is None:
        message = f"this parameter refers to a {wanted} of the practice: {wanted}/id"
        raise Unprocessable(message)
    row = await transaction.read(key, visible)
    if row is None or row.deleted:
        raise unknown(key)
    return row


def _request_of(call: Call, secrets: InvitationSecrets, key: str) -> InvitationRequest:
    """Return the record of a request: of this caller, and with no word of what it says."""
    caller = call.auth.account or call.auth.client
    said = f"{call.request.id}\n".encode() + call.request.body
    name = hashlib.sha256(f"{caller}\n{key}".encode()).hexdigest()
    asked = hmac.digest(secrets.key, b"request " + said, hashlib.sha256).hex()
    return InvitationRequest(key=f"{call.auth.practice}/{name}", asked=asked, invitation="")


async def _the_same(
    transaction: ResourceTransaction, request: InvitationRequest, before: InvitationRequest
) -> Invitation:
    found = await transaction.get(Invitation, before.invitation)
    if request.asked != before.asked or found is None:
        message = "something else was asked for under this idempotency key"
        raise Conflict(message, expression=parameter("idempotency-key"))
    return found


def _patient_of(tree: Mapping[str, Any], path: str) -> ResourceKey | None:
    """Return the Patient that a resource is of, at one of its members."""
    key = local_target((tree.get(path) or {}).get("reference") or "")
    return key if key is not None and key.type == "Patient" else None
