"""What of a record is labelled, and results that wait: shown, labelled and released by hand."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response

from fhir_portal.consent.label_rules import EXCEPTIONS, RELEASABLE
from fhir_portal.documents.titles import resource_date, resource_title
from fhir_portal.fhir import json
from fhir_portal.fhir.errors import Conflict, FhirError, Forbidden, Invalid, NotFound, Unprocessable
from fhir_portal.operations.labels import LABELLED_BY_HAND
from fhir_portal.web.pages.desk import FIND, AtDesk, Desk, desk_page
from fhir_portal.web.pages.label_words import (
    BY_HAND,
    coding_of,
    hidden_from,
    label_words,
    origin_words,
    seen_by,
)
from fhir_portal.web.pages.refusals import Handler
from fhir_portal.web.pages.render import redirect
from fhir_portal.web.pages.staff_patients import PatientPages, described
from fhir_portal.web.pages.words import type_words

_ON_A_PAGE: Final = 25
_SHOWN: Final = 50
"""Labels of one thing that are explained: it may refer to very many."""
_ID: Final = re.compile(r"[A-Za-z0-9.-]{1,64}")
_PAGE: Final = re.compile(r"[A-Za-z0-9_-]{1,2000}")
_FIRST: Final = ("Encounter", "Observation", "DiagnosticReport", "DocumentReference", "Condition")
_BY_SUBJECT: Final = frozenset({"AdverseEvent", "SupplyRequest"})
"""They have no search parameter ``patient``."""
_OPERATION: Final[Mapping[str, str]] = {
    "add": "label",
    "remove": "label",
    "release": "release",
    "hold": "hold-back",
}
_DONE: Final[Mapping[str, str]] = {
    "add": "It is labelled. What refers to it is as hidden.",
    "remove": "The label was taken away.",
    "release": "It is released: it is shown, unless something else hides it.",
    "hold": "It is held back until somebody releases it.",
}
_CHANGED: Final = (
    "This was changed meanwhile, by somebody else or by sending the form twice. "
    "Below is how it is now."
)
_NO_REASON: Final = "Give a reason."
_ON: Final = frozenset({"resource", "title", "date"})
"""What ``$labelled`` says of a label beside what ``$labels`` does."""


class RecordLabelPages:
    """A record's labels, a list to choose from, and the page of one thing in it."""

    def __init__(self, desk: Desk, patients: PatientPages) -> None:
        self._desk = desk
        self._patients = patients

    def routes(self) -> Sequence[tuple[str, str, Handler]]:
        """Path, method and handler of each page."""
        all_of = f"{FIND}/{{patient}}/labels"
        one = f"{all_of}/{{type}}/{{id}}"
        return (
            (all_of, "GET", desk_page(self.show, back=FIND)),
            (f"{all_of}/of", "GET", desk_page(self.show_list, back=FIND)),
            (f"{all_of}/of", "POST", desk_page(self.more, back=FIND)),
            (one, "GET", desk_page(self.show_one, back=FIND)),
            (one, "POST", desk_page(self.change, back=FIND)),
        )

    # --- lists ---------------------------------------------------------------------------------

    async def show(self, request: Request) -> Response:
        """What waits for its release, what is labelled by itself, and how much by that."""
        here = await self._desk.at(request)
        return await self._all(here, request, done=request.query_params.get("done", ""))

    async def _all(
        self,
        here: AtDesk,
        request: Request,
        *,
        done: str = "",
        problem: str = "",
        status: int = 200,
    ) -> Response:
        patient = await self._patients.patient(here, request)
        own_id = patient["id"]
        found = await self._desk.call(here, "labelled", f"Patient/{own_id}")
        rules = await self._desk.call(here, "label-rules", "Patient")
        things = _grouped(here, own_id, found.values("label"))
        return self._desk.page(
            here,
            "staff_labels.html",
            status=status,
            problem=problem,
            done=_DONE.get(done, ""),
            patient=described(here, patient),
            running=rules.value("running"),
            hides=rules.value("hides"),
            waiting=[
                one
                | {"form_token": self._desk.form_token(here, "label", f"{own_id}/{one['what']}")}
                for one in things
                if one["waits"]
            ],
            labelled=[one for one in things if not one["waits"]],
            inherited=[
                (type_words(one["type"]), one["count"]) for one in found.values("inherited")
            ],
            more=found.value("more"),
            may_release=here.calls("release"),
            may_label=here.calls("label"),
            kinds=_kinds(),
            choose=f"{FIND}/{own_id}/labels/of",
            rules="/staff/labels",
            back=f"{FIND}/{own_id}",
        )

    async def show_list(self, request: Request) -> Response:
        """What there is of a type in the record, the latest first."""
        here = await self._desk.at(request)
        patient = await self._patients.patient(here, request)
        name = request.query_params.get("type")
        if name is None:  # a sign-in keeps an address without its query
            return redirect(f"{FIND}/{patient['id']}/labels")
        who = "subject" if name in _BY_SUBJECT else "patient"
        query = (
            (who, f"Patient/{patient['id']}"),
            ("_sort", "-_lastUpdated"),
            ("_count", str(_ON_A_PAGE)),
        )
        return await self._list(here, patient, name, query)

    async def more(self, request: Request) -> Response:
        own_id = request.path_params["patient"]
        here, _, form = await self._desk.posted(request, "labels-of", own_id)
        patient = await self._patients.patient(here, request)
        following = form.get("page", "")
        if not _PAGE.fullmatch(following):
            raise Invalid("this paging link is not valid; start again")
        return await self._list(here, patient, form.get("type", ""), (("_page", following),))

    async def _list(
        self,
        here: AtDesk,
        patient: Mapping[str, Any],
        name: str,
        query: Sequence[tuple[str, str]],
    ) -> Response:
        if name not in LABELLED_BY_HAND:
            raise NotFound
        own_id = patient["id"]
        answer = await self._desk.ask(here, "search-type", name, query=query)
        return self._desk.page(
            here,
            "staff_labels_of.html",
            patient=described(here, patient),
            kind=type_words(name),
            things=[
                {
                    "address": _address(own_id, f"{name}/{one['id']}"),
                    "title": resource_title(one) or type_words(name),
                    "date": here.moment(resource_date(one)),
                    "labelled": f"{name}/{one['id']}" in answer.labelled,
                }
                for one in answer.entries
            ],
            type=name,
            more=answer.next,
            action=f"{FIND}/{own_id}/labels/of",
            form_token=self._desk.form_token(here, "labels-of", own_id),
            back=f"{FIND}/{own_id}/labels",
        )

    # --- one thing -----------------------------------------------------------------------------

    async def show_one(self, request: Request) -> Response:
        here = await self._desk.at(request)
        return await self._one(here, request, done=request.query_params.get("done", ""))

    async def change(self, request: Request) -> Response:
        """Label it, take a label away, release it or hold it back."""
        own_id = request.path_params["patient"]
        what = _named(request)
        here, _, form = await self._desk.posted(request, "label", f"{own_id}/{what}")
        do, reason = form.get("do", ""), form.get("reason", "").strip()
        in_list = form.get("from") == "list"
        if do not in _OPERATION:
            raise Invalid("this page has no such button")
        if not here.calls(_OPERATION[do]):
            raise Forbidden(f"the level '{here.staff.level}' does not let its holders do this")
        again = self._all if in_list else self._one
        version, labels = await self._looked_at(here, own_id, what)
        now = _release_of(labels) if in_list else _version(version, labels)
        if form.get("seen") != now:
            return await again(here, request, problem=_CHANGED, status=412)
        if not reason:
            return await again(here, request, problem=_NO_REASON, status=400)
        given: list[tuple[str, str, Any]] = [
            ("resource", "valueReference", {"reference": what}),
            ("reason", "valueString", reason),
        ]
        if do in {"add", "remove"}:
            if form.get("label", "") not in BY_HAND:
                return await self._one(here, request, problem="Choose a label.", status=400)
            given.append((do, "valueCoding", coding_of(form["label"])))
        if do == "hold":
            given.append(("exception", "valueCode", form.get("exception") or None))
        try:
            await self._desk.call(here, _OPERATION[do], f"Patient/{own_id}", *given)
        except Conflict:
            return await again(here, request, problem=_CHANGED, status=409)
        except (Invalid, Unprocessable) as error:
            words = f"It was not done: {_words(error)}."
            return await again(here, request, problem=words, status=400)
        there = f"{FIND}/{own_id}/labels" if in_list else _address(own_id, what)
        return redirect(f"{there}?done={do}")

    async def _one(
        self,
        here: AtDesk,
        request: Request,
        *,
        done: str = "",
        problem: str = "",
        status: int = 200,
    ) -> Response:
        patient = await self._patients.patient(here, request)
        own_id, what = patient["id"], _named(request)
        version, labels = await self._looked_at(here, own_id, what)
        name, _, thing = what.partition("/")
        tree = (await self._desk.ask(here, "read", name, thing)).tree
        return self._desk.page(
            here,
            "staff_label.html",
            status=status,
            problem=problem,
            done=_DONE.get(done, ""),
            patient=described(here, patient),
            kind=type_words(name),
            title=resource_title(tree) or type_words(name),
            date=here.moment(resource_date(tree)),
            seen_by=seen_by({one["code"] for one in labels}),
            labels=await self._explained(here, own_id, labels),
            is_visit=name == "Encounter",
            waits=any(one["source"] == "release" for one in labels),
            elsewhere=any(one["source"] not in {"own", "release"} for one in labels),
            may_label=here.calls("label"),
            may_release=here.calls("release"),
            may_hold=here.calls("hold-back") and name in RELEASABLE and not _is_held(labels),
            by_hand=_by_hand(labels),
            removable=[
                (one["code"], label_words(one["code"]))
                for one in labels
                if one["source"] == "own" and one["code"] in BY_HAND
            ],
            exceptions=EXCEPTIONS,
            seen=_version(version, labels),
            action=_address(own_id, what),
            form_token=self._desk.form_token(here, "label", f"{own_id}/{what}"),
            back=f"{FIND}/{own_id}/labels",
        )

    async def _explained(
        self, here: AtDesk, patient: str, labels: Sequence[Mapping[str, Any]]
    ) -> list[dict[str, Any]]:
        """Return labels in words, with what those from elsewhere come from.

        What it has by itself it gives to others, which are then no reason for it.
        """
        own = {one["code"] for one in labels if "from" not in one}
        shown = [one for one in labels if "from" not in one or one["code"] not in own][:_SHOWN]
        ids: dict[str, set[str]] = {}
        for one in shown:
            name, _, own_id = str((one.get("from") or {}).get("reference", "")).partition("/")
            if name in LABELLED_BY_HAND:
                ids.setdefault(name, set()).add(own_id)
        titles = {
            f"{name}/{tree['id']}": f"{resource_title(tree) or type_words(name)}"
            for name, wanted in ids.items()
            for tree in await self._desk.search_all(here, name, ("_id", ",".join(sorted(wanted))))
        }
        return [_told(here, patient, one, titles) for one in shown]

    async def _looked_at(
        self, here: AtDesk, patient: str, what: str
    ) -> tuple[int | None, list[Mapping[str, Any]]]:
        """Return the version of something in a record, and its labels.

        Raises `NotFound` for what is of another record, or of none.
        """
        if not _ID.fullmatch(patient):
            raise NotFound
        given = ("resource", "valueReference", {"reference": what})
        labels = await self._desk.call(here, "labels", f"Patient/{patient}", given)
        name, _, own_id = what.partition("/")
        return (await self._desk.ask(here, "read", name, own_id)).version, labels.values("label")


def _named(request: Request) -> str:
    """Return what an address names. Raises `NotFound` for what is not labelled by hand."""
    name, own_id = request.path_params["type"], request.path_params["id"]
    if name not in LABELLED_BY_HAND or not _ID.fullmatch(own_id):
        raise NotFound
    return f"{name}/{own_id}"


def _address(patient: str, what: str) -> str:
    return f"{FIND}/{patient}/labels/{what}"


def _version(version: int | None, labels: Sequence[Mapping[str, Any]]) -> str:
    """What stands for something as somebody saw it."""
    told = sorted(json.dumps(dict(one)) for one in labels)
    return hashlib.sha256(str(version).encode() + b"".join(told)).hexdigest()[:32]


def _release_of(labels: Sequence[Mapping[str, Any]]) -> str:
    """What stands for why something waits: a rule's delay is no doctor's word that came since.

    ``labels`` are those of ``$labels``, or of ``$labelled``, which says besides what they are on.
    """
    waits = [one for one in labels if one["source"] == "release"]
    return _version(None, [{k: v for k, v in one.items() if k not in _ON} for one in waits])


def _grouped(
    here: AtDesk, patient: str, listed: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """Put the labels of ``$labelled`` together by what they are on."""
    found: dict[str, dict[str, Any]] = {}
    for one in listed:
        what = one["resource"]["reference"]
        name = what.partition("/")[0]
        thing = found.setdefault(
            what,
            {
                "what": what,
                "address": _address(patient, what),
                "kind": type_words(name),
                "title": one.get("title") or type_words(name),
                "date": here.moment(one.get("date")),
                "labels": [],
                "waits": False,
                "seen": "",
            },
        )
        thing["labels"].append(_told(here, patient, one))
        if one["source"] == "release":  # once at most
            thing |= {"waits": True, "seen": _release_of([one])}
    return list(found.values())


def _told(
    here: AtDesk,
    patient: str,
    label: Mapping[str, Any],
    titles: Mapping[str, str] = MappingProxyType({}),
) -> dict[str, Any]:
    """Return a label in words, with where it comes from and why.

    ``titles`` are those of what it may come from, by reference.
    """
    source = str((label.get("from") or {}).get("reference", ""))
    name = source.partition("/")[0]
    is_release = label["source"] == "release"
    return {
        "words": label_words(label["code"]),
        "hides": hidden_from(label["code"]),
        "origin": origin_words(label),
        "from": titles.get(source) or (type_words(name) if name else ""),
        "address": _address(patient, source) if name in LABELLED_BY_HAND else "",
        "reason": label.get("reason", ""),
        "exception": EXCEPTIONS.get(label.get("exception", ""), ""),
        "until": (here.moment(label.get("until")) or "staff release it") if is_release else "",
    }


def _is_held(labels: Sequence[Mapping[str, Any]]) -> bool:
    """Whether staff hold it back already, whatever the rules say."""
    return any(one["source"] == "release" and not one.get("name") for one in labels)


def _by_hand(labels: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    own = {one["code"] for one in labels if one["source"] == "own"}
    return [(code, words) for code, words in BY_HAND.items() if code not in own]


def _kinds() -> list[tuple[str, str]]:
    """What can be labelled by hand, what is asked for most first."""
    rest = sorted(LABELLED_BY_HAND - {*_FIRST}, key=type_words)
    return [(name, type_words(name)) for name in (*_FIRST, *rest)]


def _words(error: FhirError) -> str:
    return "; ".join(one.diagnostics for one in error.issues if one.diagnostics).rstrip(".")
