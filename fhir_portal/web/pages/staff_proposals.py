"""``/staff/proposals``: what patients propose to change, decided about field by field."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response

from fhir_portal.access.owners import local_target
from fhir_portal.accounts.policy import policy_of
from fhir_portal.fhir.errors import (
    Conflict,
    Forbidden,
    Gone,
    NotFound,
    PreconditionFailed,
    Unprocessable,
)
from fhir_portal.fhir.reference import attachments_in
from fhir_portal.operations.on_file import contacts_on_file, last_day_under
from fhir_portal.resources.forms.request import OPEN
from fhir_portal.resources.proposal import (
    CODES,
    Proposed,
    is_open,
    is_same,
    proposed_in,
    section_of,
    value_of,
    with_value,
)
from fhir_portal.web.downloads import while_allowed
from fhir_portal.web.pages.desk import FIND, PROPOSALS, AtDesk, Desk, desk_page
from fhir_portal.web.pages.proposal_words import (
    FIELDS,
    contacts_of,
    facts,
    outcomes,
    title_of,
    words_of,
)
from fhir_portal.web.pages.refusals import Handler
from fhir_portal.web.pages.render import attached, redirect
from fhir_portal.web.pages.staff_patients import described

_ID: Final = re.compile(r"[A-Za-z0-9.-]{1,64}")
_MOST: Final = 100
_MOST_LEAVES: Final = 40
_LONGEST: Final = 500
_FIXED: Final = frozenset(
    {"system", "use", "url", "contentType", "hash", "size", "creation", "code", "reference"}
)
"""What nobody edits as text."""
_KEPT: Final = frozenset({"resourceType", "id", "meta", "status", "derivedFrom", "dateAsserted"})
_DECIDED: Final = "Decided. What was accepted is part of the record, and whoever asked is told."


class ProposalPages:
    """The queue, and the page on which one is decided about."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def routes(self) -> Sequence[tuple[str, str, Handler]]:
        """Path, method and handler of each page."""
        one = f"{PROPOSALS}/{{task}}"
        return (
            (PROPOSALS, "GET", desk_page(self.show)),
            (one, "GET", desk_page(self.show_one, back=PROPOSALS)),
            (one, "POST", desk_page(self.decide, back=PROPOSALS)),
            (f"{one}/picture/{{number}}", "GET", desk_page(self.picture, back=PROPOSALS)),
        )

    async def show(self, request: Request) -> Response:
        """What waits, the longest first."""
        here = await self._at(request)
        tasks = await self._desk.search_all(
            here,
            "Task",
            ("code", CODES),
            ("status", ",".join(OPEN)),
            ("_sort", "authored-on"),
        )
        names = await self._desk.names_of_patients(here, map(_patient, tasks))
        done = request.query_params.get("done", "")
        return self._desk.page(
            here,
            "staff_proposals.html",
            waiting=[
                {
                    "address": f"{PROPOSALS}/{one['id']}",
                    "who": names.get(_patient(one), "a patient"),
                    "when": here.moment(one.get("authoredOn")),
                    "what": ", ".join(map(title_of, proposed_in(one))),
                }
                for one in tasks
            ],
            full=len(tasks) >= _MOST,
            done=_DECIDED if done == "decided" else "",
        )

    async def show_one(self, request: Request) -> Response:
        here = await self._at(request)
        return await self._one(here, request.path_params["task"])

    async def decide(self, request: Request) -> Response:
        """Carry out what was decided about each field."""
        own_id = request.path_params["task"]
        here, _, form = await self._desk.posted(request, "review-proposal", own_id)
        self._require(here)
        task = await self._task(here, own_id)
        decisions = []
        for one in proposed_in(task):
            for field in one.fields or ("",):
                parts = _decision(one, field, form)
                if parts is None:
                    return await self._one(here, own_id, problem="Decide about each of them.")
                decisions.append(("decision", "part", parts))
        reason = " ".join(form.get("reason", "").split())[:_LONGEST] or None
        try:
            await self._desk.call(
                here,
                "review-proposal",
                f"Task/{own_id}",
                *decisions,
                ("reason", "valueString", reason),
            )
        except PreconditionFailed:
            message = "The record was changed meanwhile. This is how it is now: decide again."
            return await self._one(here, own_id, problem=message)
        except (Unprocessable, Conflict) as error:
            return await self._one(here, own_id, problem=f"It was not done: {error}.")
        return redirect(f"{PROPOSALS}?done=decided")

    async def picture(self, request: Request) -> Response:
        """A picture that came with it."""
        here = await self._at(request)
        task = await self._task(here, request.path_params["task"])
        number = request.path_params["number"]
        found = _pictures(task)
        if not re.fullmatch(r"[0-9]{1,2}", number) or int(number) >= len(found):
            raise NotFound
        key = local_target(found[int(number)])
        if key is None or key.type != "Binary":
            raise NotFound
        tree = (await self._desk.ask(here, "read", "Binary", key.id)).tree
        content = base64.b64decode(tree.get("data", ""))
        answer = attached(content, "picture", str(tree.get("contentType", "")))
        return while_allowed(self._desk.downloads, here.auth, answer)

    async def _one(self, here: AtDesk, own_id: str, *, problem: str = "") -> Response:
        task = await self._task(here, own_id)
        patient = (await self._desk.ask(here, "read", "Patient", _patient(task))).tree
        by = str((task.get("requester") or {}).get("reference", ""))
        proposals = [await self._shown(here, one) for one in proposed_in(task)]
        return self._desk.page(
            here,
            "staff_proposal.html",
            status=400 if problem else 200,
            problem=problem,
            patient=described(here, patient),
            address=f"{FIND}/{patient['id']}",
            said_by="the patient" if by.startswith("Patient/") else "somebody who acts for them",
            when=here.moment(task.get("authoredOn")),
            note="; ".join(str(one.get("text", "")) for one in task.get("note") or ()),
            invites=await self._invites(here, task, patient),
            is_open=is_open(task),
            outcomes=outcomes(task),
            contacts=contacts_of(task),
            proposals=proposals,
            pictures=[f"{PROPOSALS}/{own_id}/picture/{at}" for at in range(len(_pictures(task)))],
            action=f"{PROPOSALS}/{own_id}",
            back=PROPOSALS,
            form_token=self._desk.form_token(here, "review-proposal", own_id),
        )

    async def _invites(
        self, here: AtDesk, task: Mapping[str, Any], patient: Mapping[str, Any]
    ) -> str:
        """Return where the patient's own invitation may go by what somebody else proposes.

        A machine invites nobody under age, and nobody whose age is not known.
        """
        by = str((task.get("requester") or {}).get("reference", ""))
        policy = await policy_of(self._desk.store, here.session.practice)
        if by.startswith("Patient/") or not is_open(task) or not policy.invite_on_mail_address:
            return ""
        now = self._desk.clock()
        proposals = [one for one in proposed_in(task) if "telecom" in one.fields]
        born = [one.get("birthDate") for one in (patient, *(one.tree for one in proposals))]
        ends = [last_day_under(policy.adult_age, one) for one in born]
        today = datetime.fromtimestamp(now, here.zone).date().isoformat()
        if not any(end is not None and end < today for end in ends):
            return ""
        there = contacts_on_file(patient, country=policy.country, now=now)
        asked = [
            contact.value
            for one in proposals
            for contact in contacts_on_file(one.tree, country=policy.country, now=now)
            if contact not in there
        ]
        return " and ".join(dict.fromkeys(asked))

    async def _shown(self, here: AtDesk, one: Proposed) -> dict[str, Any]:
        """Return a proposal as it is shown: old, proposed and now, where that is another one."""
        now: Mapping[str, Any] = {}
        version = ""
        if one.base is not None:
            try:
                found = await self._desk.ask(here, "read", one.base.type, one.base.id)
                now, version = found.tree, str(found.version)
            except (NotFound, Gone):
                now = {}
        fields = []
        for field in one.fields:
            before = value_of(one.before or {}, field)
            there = value_of(now, field)
            fields.append(
                {
                    "name": f"{one.name}.{field}",
                    "label": FIELDS[field],
                    "before": words_of(before) or "nothing",
                    "after": words_of(value_of(one.tree, field)) or "nothing",
                    "now": words_of(there) or "nothing",
                    "conflict": not is_same(before, there),
                    "edits": _edits(one, field),
                }
            )
        if not one.fields:
            fields.append(
                {"name": f"{one.name}.", "label": title_of(one), "edits": _edits(one, "")}
            )
        return {
            "name": one.name,
            "title": title_of(one),
            "facts": [] if one.fields else facts(one.tree),
            "fields": fields,
            "version": version,
        }

    # --- who is there --------------------------------------------------------------------------

    async def _at(self, request: Request) -> AtDesk:
        here = await self._desk.at(request)
        self._require(here)
        return here

    @staticmethod
    def _require(here: AtDesk) -> None:
        if not (here.may("view") and here.calls("review-proposal")):
            level = here.staff.level
            raise Forbidden(f"the level '{level}' does not let its holders see proposals")

    async def _task(self, here: AtDesk, own_id: str) -> Mapping[str, Any]:
        if not _ID.fullmatch(own_id):
            raise NotFound
        task = (await self._desk.ask(here, "read", "Task", own_id)).tree
        if section_of(task) is None:
            raise NotFound
        return task


def _decision(one: Proposed, field: str, form: Mapping[str, str]) -> list[dict[str, Any]] | None:
    """Return the decision about a field as it was made in the form; ``None`` for none."""
    name = f"{one.name}.{field}"
    action = form.get(f"{name}.action", "")
    if action not in {"accept", "refuse"}:
        return None
    parts: list[dict[str, Any]] = [
        {"name": "proposal", "valueString": one.name},
        {"name": "action", "valueCode": action},
    ]
    if field:
        parts.append({"name": "field", "valueString": field})
    reason = " ".join(form.get(f"{name}.reason", "").split())[:_LONGEST]
    if reason:
        parts.append({"name": "reason", "valueString": reason})
    if action == "accept":
        version = form.get(f"{one.name}.version", "")[:20]
        if field and version:
            parts.append({"name": "version", "valueString": version})
        edited = _edited(one, field, form)
        if edited is not None:
            parts.append({"name": "resource", "resource": edited})
    return parts


def _edits(one: Proposed, field: str) -> list[tuple[str, str, str]]:
    """Return name, label and value of each text of a field that staff may put right."""
    found = list(_leaves(_value(one, field), ()))
    if len(found) > _MOST_LEAVES:
        return []
    return [
        (f"{one.name}.{field}.edit.{'.'.join(map(str, path))}", _label(path), text)
        for path, text in found
    ]


def _edited(one: Proposed, field: str, form: Mapping[str, str]) -> dict[str, Any] | None:
    """Return what is accepted in the place of a proposal; ``None`` where nothing was put right."""
    value = _value(one, field)
    edits = {
        path: " ".join(form[name].split())[:_LONGEST]
        for path, text in _leaves(value, ())
        if (name := f"{one.name}.{field}.edit.{'.'.join(map(str, path))}") in form
        and form[name] != text
    }
    if not edits:
        return None
    changed = _with(value, (), edits)
    if not field:
        kept = {n: v for n, v in one.tree.items() if n in _KEPT and n != "id"}
        return {**kept, **changed}
    tree = {n: v for n, v in one.tree.items() if n != "id"}
    with_value(tree, field, changed)
    return tree


def _value(one: Proposed, field: str) -> Any:
    if field:
        return value_of(one.tree, field)
    return {n: v for n, v in one.tree.items() if n not in _KEPT}


def _leaves(node: Any, path: tuple[Any, ...]) -> Iterator[tuple[tuple[Any, ...], str]]:
    if isinstance(node, str):
        yield path, node
    elif isinstance(node, list):
        for at, one in enumerate(node):
            yield from _leaves(one, (*path, at))
    elif isinstance(node, Mapping) and not {"contentType", "reference"} & node.keys():
        for name, one in node.items():
            if name not in _FIXED:
                yield from _leaves(one, (*path, name))


def _with(node: Any, path: tuple[Any, ...], edits: Mapping[tuple[Any, ...], str]) -> Any:
    if isinstance(node, list):
        return [_with(one, (*path, at), edits) for at, one in enumerate(node)]
    if isinstance(node, Mapping):
        return {name: _with(one, (*path, name), edits) for name, one in node.items()}
    return edits.get(path, node)


_WORDS: Final[Mapping[str, str]] = {
    "postalCode": "postal code",
    "subscriberId": "member number",
    "valueString": "text",
    "birthDate": "date",
}


def _label(path: tuple[Any, ...]) -> str:
    names = [_WORDS.get(one, str(one)) for one in path if isinstance(one, str)]
    numbers = [one + 1 for one in path if isinstance(one, int)]
    label = " ".join(names[-2:]) or "text"
    return f"{label} {numbers[0]}" if numbers else label


def _pictures(task: Mapping[str, Any]) -> list[str]:
    """Return where the pictures of a Task's proposals are; not those that were there before."""
    return [
        holder["url"]
        for one in proposed_in(task)
        for _, holder in attachments_in(one.tree)
        if str(holder.get("contentType", "")).startswith("image/")
    ]


def _patient(task: Mapping[str, Any]) -> str:
    return str((task.get("for") or {}).get("reference", "")).rpartition("/")[2]
