"""``Patient/[id]/$share-link``, ``$share-links`` and ``$end-share``: links that show a record.

A link shows somebody outside what its maker may see when it is used, within the sections and days
that were chosen. Source: SMART Health Cards and Links 1.0.0, "SMART Health Links".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from zoneinfo import ZoneInfo

import msgspec

from fhir_portal.access.context import AuthContext
from fhir_portal.access.owners import local_target
from fhir_portal.accounts.policy import PracticePolicy, policy_of
from fhir_portal.consent.record import shared_part
from fhir_portal.consent.sections import section_displays
from fhir_portal.fhir import json
from fhir_portal.fhir.datetime import instant, is_date, period_in
from fhir_portal.fhir.errors import Conflict, Forbidden, NotSupported, Unprocessable
from fhir_portal.fhir.interaction import FhirResponse
from fhir_portal.fhir.reference import ResourceKey
from fhir_portal.notify import outbox
from fhir_portal.notify.recipients import RECORD
from fhir_portal.operations.call import Call
from fhir_portal.operations.charting import subject_row
from fhir_portal.operations.definition import parameter
from fhir_portal.operations.message_thread import plain_text
from fhir_portal.operations.shared_files import is_within, was_an_error
from fhir_portal.resources.interactions.read import key_of, unknown
from fhir_portal.resources.permission import checked, permitted
from fhir_portal.resources.store import ResourceReader, ResourceTransaction, Row
from fhir_portal.smart.connection import is_adult
from fhir_portal.smart.health_link import health_link
from fhir_portal.smart.scope import ScopeSet
from fhir_portal.smart.sharing import (
    DAY,
    KEPT,
    SECTION,
    ShareLink,
    ShareSecrets,
    ShareView,
    end_share,
    family_stands,
    links_of,
    new_passcode,
    token_of,
    typed_passcode,
    views_of,
)
from fhir_portal.smart.token import AccessToken, base64url, token_hash

USUAL_DAYS: Final = 30
MOST_A_DAY: Final = 20
"""Links that one account makes for a record in a day."""
MOST_DOCUMENTS: Final = 20
LONGEST_LABEL: Final = 80
BY_OWNER: Final = "ended-by-person"
BY_PROXY: Final = "record-shared-by-proxy"
_MOST_REFERENCE: Final = 80
_MICROSECONDS: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a link is to show, as it was asked for and is allowed."""

    label: str
    sections: tuple[str, ...]
    start: str | None
    end: str | None
    summary: bool
    documents: tuple[ResourceKey, ...]


async def share_link(call: Call) -> FhirResponse:
    """Make a link; the answer is the only one that holds it, and its passcode.

    Raises:
        NotSupported: the practice has no sharing. Conflict: too many were made today.
        Unprocessable: for what the caller may not share, by the parameter.
    """
    wanted = wanted_of(call)
    made = await prepared(call, wanted, until_of(call, await policy_of_practice(call)))

    async def work(transaction: ResourceTransaction) -> tuple[ShareLink, list[Row]]:
        await call.server.still(transaction, call.auth)
        return await keep_link(call, transaction, wanted, made, of=key_of(call.request).id)

    link, rows = await call.server.store.transact(work)
    secrets = ShareSecrets(call.collaborators.derive)
    address = f"{call.collaborators.base}/shared/{secrets.handle(link.id)}"
    written = health_link(
        url=f"{address}/manifest",
        key=secrets.file_key(link.id),
        until=link.until,
        label=link.label,
    )
    values = {
        "id": link.id,
        "shlink": written,
        "link": f"{address}#{written}",
        "passcode": f"{made.passcode[:4]}-{made.passcode[4:]}",
        "expires": instant(int(link.until * _MICROSECONDS)),
    }
    return call.answer(values, *rows)


async def share_links(call: Call) -> FhirResponse:
    """List the links of a record, with who used them: all to its person, to others their own."""
    key, now = key_of(call.request), call.server.clock()
    row = await subject_row(call, key.id)
    own = [one for one in await links_of(call.server.store, call.auth.practice, str(key))
           if _is_for(call.auth, one)]  # fmt: skip
    views: list[dict[str, Any]] = []
    for link in own:
        views += [_viewed(link, one) for one in await views_of(call.server.store, link)]
    listed = [_told(link, now) for link in own]
    return call.answer({"link": listed, "view": views}, *([row] if row is not None else []))


async def end_share_link(call: Call) -> FhirResponse:
    """End a link now; said again of one that has ended, nothing changes.

    Raises `Unprocessable` for one that is not there, or that somebody else made.
    """
    given, key = str(call.arguments.one("id") or ""), key_of(call.request)
    secrets = ShareSecrets(call.collaborators.derive)

    async def work(transaction: ResourceTransaction) -> tuple[ShareLink, Row | None]:
        await call.server.still(transaction, call.auth)
        row = await subject_row(call, key.id)
        link = await transaction.get(ShareLink, secrets.key_of(given))
        here = (call.auth.practice, str(key))
        if link is None or (link.practice, link.patient) != here or not _is_for(call.auth, link):
            message = "there is no such link"
            raise Unprocessable(message, expression=parameter("id"))
        await end_share(transaction, link, now=call.server.clock(), because=BY_OWNER)
        return await transaction.get(ShareLink, link.key) or link, row

    link, row = await call.server.store.transact(work)
    ended = instant(int((link.ended or 0.0) * _MICROSECONDS))
    return call.answer({"id": link.id, "ended": ended}, *([row] if row is not None else []))


# --- what is asked for ---------------------------------------------------------------------------


def wanted_of(call: Call) -> Wanted:
    """Read what a link is to show. Raises `Unprocessable`, by the parameter."""
    label = call.arguments.one("label")
    start, end, zone = chosen_day(call, "start"), chosen_day(call, "end"), zone_of(call)
    if start and end and period_in(start, zone)[0] > period_in(end, zone)[1]:
        message = "the time ends before it starts"
        raise Unprocessable(message, expression=parameter("end"))
    documents = tuple(dict.fromkeys(_document(one) for one in call.arguments.all("document")))
    if len(documents) > MOST_DOCUMENTS:
        message = f"{MOST_DOCUMENTS} documents at most"
        raise Unprocessable(message, expression=parameter("document"))
    summary = call.arguments.one("summary") is not False
    if not summary and not documents:
        message = "choose what is shared: the summary, or documents"
        raise Unprocessable(message, expression=parameter("summary"))
    return Wanted(
        label="" if label is None else plain_text(label, "label", LONGEST_LABEL),
        sections=chosen_sections(call),
        start=start,
        end=end,
        summary=summary,
        documents=documents,
    )


def chosen_sections(call: Call) -> tuple[str, ...]:
    """Return the sections that were chosen; without a choice those that the caller sees.

    Raises `Unprocessable`.
    """
    record = call.auth.record
    seen = record.sections if record is not None else frozenset[str]()
    known = [one for one in section_displays() if seen is None or one in seen]
    given = list(dict.fromkeys(map(str, call.arguments.all("section"))))
    for one in given:
        if one not in known:
            message = f"{one[:40]} is no section that you may share"
            raise Unprocessable(message, expression=parameter("section"))
    return tuple(given or known)


def chosen_day(call: Call, name: str) -> str | None:
    """Read a day. Raises `Unprocessable`."""
    given = call.arguments.one(name)
    if given is None:
        return None
    if not is_date(str(given)):
        message = f"{name} is a day: YYYY-MM-DD"
        raise Unprocessable(message, expression=parameter(name))
    return str(given)


def _document(given: Any) -> ResourceKey:
    text = str(given.get("reference") or "") if isinstance(given, Mapping) else ""
    key = local_target(text)
    if key is None or str(key) != text or key.type != "DocumentReference":
        message = f"{text[:_MOST_REFERENCE]} is no reference to a DocumentReference"
        raise Unprocessable(message, expression=parameter("document"))
    return key


async def policy_of_practice(call: Call) -> PracticePolicy:
    """Return the practice's policy. Raises `NotSupported` where it has no sharing."""
    policy = await policy_of(call.server.store, call.auth.practice)
    if not policy.sharing:
        message = "this practice's portal does not share records by link: ask the practice"
        raise NotSupported(message)
    return policy


def zone_of(call: Call) -> ZoneInfo:
    """Return the time zone that days are meant in: the practice's."""
    return ZoneInfo(call.auth.record.zone if call.auth.record is not None else "UTC")


def until_of(call: Call, policy: PracticePolicy) -> float:
    """Return until when a link lasts: as asked, else `USUAL_DAYS`, never longer than the right."""
    now, record = call.server.clock(), call.auth.record
    until = now + min(USUAL_DAYS, policy.share_days) * DAY
    given = call.arguments.one("expires")
    if given is not None:
        until = period_in(given, zone_of(call))[0] / _MICROSECONDS
        if not now < until <= now + policy.share_days * DAY:
            message = f"a link lasts {policy.share_days} days at most, and ends after now"
            raise Unprocessable(message, expression=parameter("expires"))
    ends = record.until if record is not None else None
    return until if ends is None else min(until, ends)


# --- making it -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Prepared:
    """A link that is not stored yet, and its passcode, which is told once and stored nowhere."""

    link: ShareLink
    passcode: str


async def prepared(
    call: Call, wanted: Wanted, until: float, *, is_for_delivery: bool = False
) -> Prepared:
    """Make a link, before the transaction: hashing takes a while, and is done in turn."""
    record, account = call.auth.record, call.auth.account
    passwords = call.collaborators.passwords
    if record is None or account is None or passwords is None:
        message = "a link is made by a person who signed in"
        raise Forbidden(message)
    if shared_part(record, wanted.sections, within=SECTION) is None:
        message = f"the grant does not let this person act in '{SECTION}'"
        raise Forbidden(message)
    own_id, random = base64url(call.collaborators.random(16)), call.collaborators.random
    passcode = new_passcode(random)
    now = call.server.clock()
    link = ShareLink(
        key=ShareSecrets(call.collaborators.derive).key_of(own_id),
        expires=until + KEPT,
        id=own_id,
        practice=call.auth.practice,
        patient=record.patient,
        fhir_user=record.fhir_user,
        account=account,
        grant=record.grant,
        client_id=call.auth.client,
        family=None,
        token=token_hash(base64url(random(32))),
        label=wanted.label,
        sections=wanted.sections,
        start=wanted.start,
        end=wanted.end,
        zone=record.zone,
        summary=wanted.summary,
        documents=tuple(str(one) for one in wanted.documents),
        passcode_hash=await passwords.hash_unchecked(typed_passcode(passcode)),
        made=now,
        until=until,
        is_for_delivery=is_for_delivery,
    )
    return Prepared(link, passcode)


async def keep_link(
    call: Call, transaction: ResourceTransaction, wanted: Wanted, made: Prepared, *, of: str
) -> tuple[ShareLink, list[Row]]:
    """Store a link, if all that it is to show may be shared; return it and what was looked at.

    Raises:
        NotFound: the record, or a document; hidden and absent alike.
        Conflict: too many were made. Unprocessable: a document is outside of what was chosen.
    """
    now, row = call.server.clock(), await subject_row(call, of)
    visible = permitted(call.server, call.auth, "r", "DocumentReference")
    documents = [
        await _shareable(transaction, visible, one, wanted, zone_of(call))
        for one in wanted.documents
    ]
    mine = [
        one
        for one in await transaction.find(ShareLink, "account", made.link.account, limit=10_000)
        if (one.practice, one.patient) == (made.link.practice, made.link.patient)
    ]
    if sum(one.made > now - DAY for one in mine) >= MOST_A_DAY:
        message = f"{MOST_A_DAY} links were made in a day: end one that is not needed, or wait"
        raise Conflict(message)
    link = await _under_app(call, transaction, made.link)
    await transaction.insert(link)
    await _tell_person(call, transaction, link)
    scopes = [one.limited_to("rs") for one in call.auth.scopes.resource]
    scope = ScopeSet(resource=tuple(one for one in scopes if one is not None))
    await transaction.insert(token_of(link, str(scope)))
    return link, [*([row] if row is not None else []), *documents]


def what_is_shown(link: ShareLink) -> tuple[Any, ...]:
    """Return what makes two links show the same."""
    return frozenset(link.sections), link.start, link.end, link.summary, link.documents


async def _tell_person(call: Call, transaction: ResourceTransaction, link: ShareLink) -> None:
    """Tell an adult that somebody who acts for them shared their record, as of an app they add."""
    record, now = call.auth.record, call.server.clock()
    if record is None or not record.is_proxy or not is_adult(record.birth_date, now=now):
        return
    await outbox.enqueue(
        transaction,
        key=f"{BY_PROXY}.{link.id}",
        practice=link.practice,
        channel="mail",
        to=f"{RECORD}{link.practice}/{link.patient}",
        template=BY_PROXY,
        now=now,
    )


async def _under_app(call: Call, transaction: ResourceTransaction, link: ShareLink) -> ShareLink:
    """Bind a link that an app makes to what the app was allowed: it ends with that."""
    token = await transaction.get(AccessToken, call.auth.token) if call.auth.token else None
    if token is None or not token.family:
        return link
    bound = msgspec.structs.replace(link, family=token.family)
    family = await family_stands(transaction, bound, call.server.clock())
    if family is None:
        message = "this access has ended"
        raise Forbidden(message)
    is_offline = "offline_access" in ScopeSet.parse(family.scope).identity
    ends = [bound.until, *([family.until] if family.until is not None else [])]
    return msgspec.structs.replace(
        bound, until=min([*ends, *([] if is_offline else [token.expires])])
    )


async def _shareable(
    reader: ResourceReader, visible: Any, key: ResourceKey, wanted: Wanted, zone: ZoneInfo
) -> Row:
    row = await reader.read(key, visible)
    if row is None or row.deleted:
        raise unknown(key)
    checked([row], visible)
    tree = json.parse(row.body)
    if was_an_error(tree):
        message = f"{key} was taken back: it is not shown to anybody else"
        raise Unprocessable(message, expression=parameter("document"))
    outside = not row.facts.visibility_class.sections <= frozenset(wanted.sections)
    if outside or not is_within(tree, wanted.start, wanted.end, zone):
        message = f"{key} is in none of the sections and days that were chosen"
        raise Unprocessable(message, expression=parameter("document"))
    return row


# --- telling of it -------------------------------------------------------------------------------


def _is_for(auth: AuthContext, link: ShareLink) -> bool:
    """Whether a link is told to a caller: the person's record is theirs, to others their own."""
    return auth.is_self or (link.fhir_user, link.account) == (auth.fhir_user, auth.account)


def _told(link: ShareLink, now: float) -> dict[str, Any]:
    return {
        "id": link.id,
        "status": link.state(now),
        "label": link.label or None,
        "by": {"reference": link.fhir_user},
        "made": instant(int(link.made * _MICROSECONDS)),
        "expires": instant(int(link.until * _MICROSECONDS)),
        "ended": None if link.ended is None else instant(int(link.ended * _MICROSECONDS)),
        "section": list(link.sections),
        "start": link.start,
        "end": link.end,
        "summary": link.summary,
        "document": [{"reference": one} for one in link.documents],
        "views": link.views,
        "wrong-tries": link.failed,
    }


def _viewed(link: ShareLink, view: ShareView) -> dict[str, Any]:
    return {
        "link": link.id,
        "at": instant(int(view.at * _MICROSECONDS)),
        "recipient": view.recipient or None,
        "way": view.way,
        "times": view.times,
    }
