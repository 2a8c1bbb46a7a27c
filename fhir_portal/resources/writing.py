"""The one way a resource version comes to be: checked, classified, indexed, stored, passed on.

`draft` does everything that needs no store; the ``*_in`` functions run inside one transaction,
so that what a write depends on cannot change under it. A transaction Bundle calls the same
functions for its entries.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from fhir_portal.access.classify import binaries_of, classify, edges_of, kept_edges, unowned
from fhir_portal.access.closure import links_at
from fhir_portal.access.context import LABEL, AuthContext, acting_for
from fhir_portal.access.policy import Ask, Deny, decide
from fhir_portal.access.visibility import Visibility
from fhir_portal.access.writes import wrong_author
from fhir_portal.consent.labels import labels_of
from fhir_portal.fhir import json
from fhir_portal.fhir.errors import (
    Forbidden,
    Gone,
    Invalid,
    NotFound,
    PreconditionFailed,
    Unprocessable,
)
from fhir_portal.fhir.reference import (
    Reference,
    ResourceKey,
    attachments_in,
    links_in,
    references_in,
)
from fhir_portal.resources import appointment, communication, consent, release, task
from fhir_portal.resources.event_rules import EVENT_RULES
from fhir_portal.resources.files import require_no_files
from fhir_portal.resources.forms import answering, handing_in
from fhir_portal.resources.hand_labels import keep_by_hand
from fhir_portal.resources.opening import Opening, as_known, disclosures, hide_again
from fhir_portal.resources.passing_on import Surroundings, pass_on, with_labels
from fhir_portal.resources.portal_status import put_status, without_status
from fhir_portal.resources.server import Server
from fhir_portal.resources.stamp import stamp
from fhir_portal.resources.store import NewVersion, ResourceTransaction, Row
from fhir_portal.resources.validation import status_for, validate
from fhir_portal.search.criterion import Criterion
from fhir_portal.search.evaluate import matches
from fhir_portal.search.indexer import IndexEntries, extract

_LONG: Final = 64 * 1024
"""Bytes of a body that is not validated on the event loop."""


@dataclass(frozen=True, slots=True)
class Written:
    """What a write stored, and whether it made the resource."""

    row: Row
    created: bool


async def parsed(body: bytes, resource_type: str) -> dict[str, Any]:
    """Read and validate a body that must hold a resource of one type; a long one in a thread.

    Raises:
        Invalid, Unprocessable: with one issue per fault, each naming its element.
    """
    if not body:
        message = f"the body is empty; it must hold a {resource_type} as FHIR JSON"
        raise Invalid(message)
    if len(body) > _LONG:
        return await asyncio.to_thread(_validated, json.parse(body), body, resource_type)
    return _validated(json.parse(body), body, resource_type)


async def parsed_tree(tree: dict[str, Any], body: bytes, resource_type: str) -> dict[str, Any]:
    """Validate what was read already; see `parsed`."""
    if len(body) > _LONG:
        return await asyncio.to_thread(_validated, tree, body, resource_type)
    return _validated(tree, body, resource_type)


def _validated(tree: dict[str, Any], body: bytes, resource_type: str) -> dict[str, Any]:
    found = tree.get("resourceType")
    if found != resource_type:
        message = f"the body must hold a {resource_type}"
        raise Invalid(message, expression="resourceType")
    issues = [issue for issue in validate(tree, body) if issue.severity in {"error", "fatal"}]
    if issues:
        raise (Invalid if status_for(issues) == Invalid.status else Unprocessable)(issues=issues)
    return tree


def relative(tree: dict[str, Any], server: Server) -> None:
    """Write references and attachments under our own base as relative ones, in place."""
    for holder, member in links_in(tree):
        text = holder[member]
        if "://" not in text:
            continue
        for base in (server.base, *server.aliases):
            if text.startswith(f"{base}/"):
                holder[member] = str(Reference.parse(text).seen_from(base))


def draft(server: Server, auth: AuthContext, tree: dict[str, Any]) -> None:
    """Judge a validated resource by everything that needs no store; relativises in place.

    Raises:
        Forbidden: written in somebody else's name, or labelled by one who may not.
    """
    relative(tree, server)
    reason = wrong_author(auth, tree)
    if reason:
        raise Forbidden(reason)


async def create_in(
    transaction: ResourceTransaction,
    server: Server,
    auth: AuthContext,
    tree: dict[str, Any],
    visible: Visibility,
    *,
    resource_id: str,
) -> Written:
    """Store a new resource under an id of the server's."""
    if auth.context != "system" or LABEL not in auth.permissions:
        _refuse_label_change({}, tree)
    row = await _store(
        transaction, server, auth, with_id(tree, resource_id), visible, version=1, method="POST"
    )
    return Written(row, created=True)


async def update_in(
    transaction: ResourceTransaction,
    server: Server,
    auth: AuthContext,
    tree: dict[str, Any],
    visible: Visibility,
    *,
    key: ResourceKey,
    if_match: str | None,
    if_none_match: str | None,
) -> Written:
    """Store the next version, or the first under an id a ``system/`` client chose."""
    before = await transaction.read(key, visible)
    if before is None and (auth.context != "system" or visible.any_of is not None):
        # Only a writer from whom nothing in the practice is hidden may choose an id.
        message = f"{key} is not known"
        raise NotFound(message)
    living = before is not None and not before.deleted
    check_if_match(if_match, None if before is None else as_known(transaction, before), key)
    if if_none_match is not None and before is not None and living:
        check_if_none_match(if_none_match, before)
    if before is not None and before.deleted and auth.context != "system":
        raise gone(before)
    old = json.parse(before.body) if before is not None and living else {}
    labelled: Mapping[str, Any] = old
    if before is not None and not living:
        labelled = await _last_living(transaction, before)
    _carry_labels(labelled, tree)
    if auth.context != "system" or LABEL not in auth.permissions:
        _refuse_label_change(labelled, tree)
    elif not auth.is_server:
        await keep_by_hand(transaction, auth.practice, key, labelled, tree)
    if old and auth.context != "system":
        reason = wrong_author(auth, old)
        if reason:
            raise Forbidden(reason)
    row = await _store(
        transaction,
        server,
        auth,
        with_id(tree, key.id),
        visible,
        version=before.version + 1 if before is not None else 1,
        method="PUT",
        old=old,
        held=before.facts.visibility_class.labels if before is not None else frozenset(),
    )
    return Written(row, created=not living)


async def delete_in(
    transaction: ResourceTransaction,
    server: Server,
    auth: AuthContext,
    visible: Visibility,
    *,
    key: ResourceKey,
    if_match: str | None,
) -> Row:
    """Store a deletion as the next version; deleting again changes nothing."""
    before = await transaction.read(key, visible)
    if before is None:
        message = f"{key} is not known"
        raise NotFound(message)
    check_if_match(if_match, as_known(transaction, before), key)
    if before.deleted:
        return before
    old = json.parse(before.body)
    await task.before_deletion(transaction, before.facts.practice, key, now=server.clock())
    await consent.before_change(
        transaction, auth, before.facts.practice, old, None, now=server.clock()
    )
    await appointment.before_change(
        transaction, before.facts.practice, old, None, now=server.clock(), may_take_twice=False
    )
    await appointment.before_calendar_change(
        transaction, before.facts.practice, old, None, now=server.clock()
    )
    facts = await hide_again(transaction, key) or before.facts
    row = Row(
        unowned(facts),
        before.version + 1,
        await transaction.next_instant(_milliseconds(server)),
        "DELETE",
        b"",
    )
    await transaction.write(NewVersion(row, IndexEntries(), kept_edges(old)))
    opening = Opening(transaction, now=server.clock())
    await pass_on(
        Surroundings(transaction),
        row.facts,
        None,
        old=old,
        held=facts.visibility_class.labels,
        binaries=binaries_of(old),
        opening=opening,
    )
    await _record_opened(transaction, server, auth, row, opening.rows)
    await task.after_change(transaction, row.facts.practice, old, {}, now=server.clock())
    return row


def check_if_match(if_match: str | None, before: Row | None, key: ResourceKey) -> None:
    """Hold ``If-Match`` against the current version (FHIR R4 §3.1.0.5).

    Raises:
        PreconditionFailed: another version is current, or none.
    """
    if if_match is None:
        return
    if before is None or before.deleted or not names_version(if_match, before.version):
        message = f"{key} is not at the version of If-Match; read it again and repeat your change"
        raise PreconditionFailed(message)


def check_if_none_match(if_none_match: str, before: Row) -> None:
    """Hold ``If-None-Match`` of a write against the living current version.

    Raises:
        PreconditionFailed: it is ``*``, or names this version.
    """
    if names_version(if_none_match, before.version):
        message = f"{before.key} exists already"
        raise PreconditionFailed(message)


def names_version(tags: str, version: int) -> bool:
    """Whether a list of entity tags, weak or strong, names a version, or is ``*`` (RFC 9110 §13.1).

    Versions are compared, not bytes: weak tags match too, and so does a bare number.
    """
    known = {"*", f'W/"{version}"', f'"{version}"', str(version)}
    return any(tag.strip() in known for tag in tags.split(","))


def gone(row: Row) -> Gone:
    """Return the refusal for a resource whose deletion the caller may know about."""
    return Gone(f"{row.key} was deleted")


async def _store(
    transaction: ResourceTransaction,
    server: Server,
    auth: AuthContext,
    tree: dict[str, Any],
    visible: Visibility,
    *,
    version: int,
    method: str,
    old: Mapping[str, Any] | None = None,
    held: frozenset[str] = frozenset(),
) -> Row:
    if tree["resourceType"] == "QuestionnaireResponse":
        await handing_in.keep_confidential(transaction, auth, tree)
    entries = extract(tree["resourceType"], tree)
    return await store_extracted(
        transaction, server, auth, tree, entries, visible,
        version=version, method=method, old=old, held=held,
    )  # fmt: skip


async def store_extracted(
    transaction: ResourceTransaction,
    server: Server,
    auth: AuthContext,
    tree: dict[str, Any],
    entries: IndexEntries,
    visible: Visibility,
    *,
    version: int,
    method: str,
    old: Mapping[str, Any] | None = None,
    held: frozenset[str] = frozenset(),
) -> Row:
    """Store a version of a resource that was validated and whose index entries are known.

    ``tree`` has its id and gets its ``meta``; ``old`` is what the version before says, empty
    after a deletion, and ``held`` the labels of that version. Raises `Forbidden` for what the
    caller may not write, `Unprocessable` when too much depends on it.
    """
    if tree["resourceType"] == "Person":
        await put_status(transaction, auth.practice, tree, now=server.clock())
        entries = extract("Person", tree)
    if tree["resourceType"] == "Task":
        task.put_tag(old or {}, tree)
        entries = extract("Task", tree)
    around = Surroundings(transaction)
    is_released = await release.before_write(
        transaction, await around.rules(auth.practice), old or {}, tree, now=server.clock()
    )
    links = links_at(tree)  # one walk: it is done for every write
    facts = await classify(tree, auth.practice, around, links=links)
    updated = await transaction.next_instant(_milliseconds(server))

    def holds(criteria: tuple[Criterion, ...]) -> bool:
        return matches(criteria, entries, id=facts.id, last_updated=updated * 1000)

    if auth.context != "system":
        # Labels from elsewhere come last: what is hidden must answer as what is not there.
        visible.require(with_labels(facts, labels_of(tree)), holds)
        await _require_known_references(transaction, server, auth, tree)
    visible.require(facts, holds)
    if auth.context != "system" and facts.resource_type == "Communication":
        await communication.count_written(
            transaction, auth.practice, str(auth.fhir_user), auth.patient, now=server.clock()
        )
    await consent.before_change(
        transaction, auth, auth.practice, old or {}, tree, now=server.clock()
    )
    if facts.resource_type in {"Appointment", "Slot"}:
        if auth.patient is not None and facts.resource_type == "Appointment":
            await appointment.before_request(transaction, auth.practice, tree, patient=auth.patient)
        await appointment.before_change(
            transaction, auth.practice, old or {}, tree, now=server.clock(),
            may_take_twice=auth.context == "system" and not auth.is_server,
        )  # fmt: skip
    await answering.before_change(transaction, auth, old or {}, tree, now=server.clock())
    await appointment.before_calendar_change(
        transaction, auth.practice, old or {}, tree, now=server.clock()
    )
    if auth.context != "system":
        require_no_files(server.files, old or {}, tree)
    rule = EVENT_RULES.get(facts.resource_type)
    if rule is not None:
        await rule(transaction, auth.practice, old or {}, tree, now=server.clock())
    stamp(tree, version, updated)
    row = Row(facts, version, updated, method, json.dumps(tree))
    edges = edges_of(tree, links)
    await hide_again(transaction, row.key)
    await transaction.write(NewVersion(row, entries, edges))
    touched = [ResourceKey.parse(edge) for edge in edges if edge.startswith("Binary/")]
    opening = Opening(transaction, now=server.clock())
    now = await pass_on(
        around,
        facts,
        tree,
        old=old or {},
        held=held,
        is_released=is_released,
        binaries=[*(binaries_of(old) if old else ()), *touched],
        opening=opening,
    )
    await _record_opened(transaction, server, auth, row, opening.rows)
    if now != facts:
        row = msgspec.structs.replace(row, facts=now)
    if facts.resource_type == "Task":
        await task.after_change(transaction, auth.practice, old or {}, tree, now=server.clock())
    if facts.resource_type == "QuestionnaireResponse":
        await handing_in.follow(transaction, server, auth, old or {}, row, _FOLLOWING)
    return row


async def record_disclosure(
    transaction: ResourceTransaction,
    server: Server,
    practice: str,
    rows: Sequence[Row],
    *,
    agent: Mapping[str, Any],
    reason: str,
) -> None:
    """Store who opened these versions, for staff and EHRs; ``agent`` is ``who``, for whom."""
    visible = Visibility.of_server("Provenance", practice=practice)
    for tree in disclosures(rows, at=server.clock(), agent=agent, reason=reason):
        await create_in(
            transaction, server, acting_for(practice, ""), tree, visible,
            resource_id=server.new_id(),
        )  # fmt: skip


async def _record_opened(
    transaction: ResourceTransaction,
    server: Server,
    auth: AuthContext,
    because: Row,
    rows: Sequence[Row],
) -> None:
    """Store that what was written hides these no more."""
    who = {"reference": str(auth.fhir_user)} if auth.fhir_user else {"display": auth.client}
    if who == {"display": ""}:
        who = {"display": auth.practice}
    reason = f"{because.key}/_history/{because.version} hides it no more"
    await record_disclosure(
        transaction, server, auth.practice, rows, agent={"who": who}, reason=reason
    )


async def _require_known_references(
    transaction: ResourceTransaction, server: Server, auth: AuthContext, tree: Mapping[str, Any]
) -> None:
    """A person's write may refer only to what that person can see.

    Otherwise it would tell what exists, or draw a Binary of another record into this one.
    """
    own = {auth.record.patient, auth.record.fhir_user} if auth.record else set()
    texts = [(path, h["reference"]) for path, h in references_in(tree)]
    texts += [(f"{path}.url", h["url"]) for path, h in attachments_in(tree)]
    for path, text in texts:
        reference = Reference.parse(text)
        key = reference.key
        if reference.query is not None or (key is None and reference.url is None):
            if reference.contained is not None:
                continue
            message = "conditional references are not taken here"
            raise Unprocessable(message, expression=path)
        if key is None or str(key) in own:
            continue
        if key.type == "Binary":
            # A second parent would narrow who sees the first one's content.
            message = "send what you attach with it, not as a Binary"
            raise Unprocessable(message, expression=path)
        answer = decide(auth, Ask("r", key.type, server.clock()))
        row = None if isinstance(answer, Deny) else await transaction.read(key, answer.visible)
        if row is None or row.deleted:
            message = "this reference does not lead to anything known"
            raise Unprocessable(message, expression=path)


def with_id(tree: dict[str, Any], resource_id: str) -> dict[str, Any]:
    """Return the tree with its id set, in the sender's place or behind ``resourceType``."""
    if "id" in tree:
        return {**tree, "id": resource_id}
    named = {"resourceType": tree["resourceType"], "id": resource_id}
    if next(iter(tree)) == "resourceType":
        return named | tree
    return tree | {"id": resource_id}


async def _last_living(transaction: ResourceTransaction, deleted: Row) -> Mapping[str, Any]:
    """Return what a deleted resource was: a write over the deletion is held against its labels."""
    everything = Visibility.of_server(deleted.facts.resource_type, practice=deleted.facts.practice)
    row = await transaction.vread(deleted.key, deleted.version - 1, everything)
    return json.parse(row.body) if row is not None and row.body else {}


def _carry_labels(old: Mapping[str, Any], tree: dict[str, Any]) -> None:
    """Keep labels and tags where the sender says nothing about them (FHIR R4 §3.1.0.4)."""
    before = old.get("meta") or {}
    kept = {n: before[n] for n in ("security", "tag") if n in before}
    if kept:
        tree["meta"] = kept | (tree.get("meta") or {})


def _refuse_label_change(old: Mapping[str, Any], tree: Mapping[str, Any]) -> None:
    before = without_status(old).get("meta") or {}
    after = without_status(tree).get("meta") or {}
    for name in ("security", "tag"):
        if (before.get(name) or []) != (after.get(name) or []):
            message = f"this client may not change meta.{name}"
            raise Forbidden(message, expression=f"{tree['resourceType']}.meta.{name}")


def _milliseconds(server: Server) -> int:
    return int(server.clock() * 1000)


_FOLLOWING: Final = handing_in.Writing(create_in, update_in)
"""By what is written that follows from answers."""
