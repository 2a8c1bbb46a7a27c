"""``/staff/labels``: what a practice labels by rule, and when its results are released."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response

from fhir_portal.consent.label_rules import EXCEPTIONS, RELEASABLE
from fhir_portal.fhir.errors import Conflict, FhirError, Forbidden, Invalid, NotFound, Unprocessable
from fhir_portal.web.form import Pairs
from fhir_portal.web.pages.desk import LABELS, Answer, AtDesk, Desk, desk_page
from fhir_portal.web.pages.label_words import LABEL_WORDS, hidden_from
from fhir_portal.web.pages.refusals import Handler
from fhir_portal.web.pages.render import redirect
from fhir_portal.web.pages.rule_words import (
    CODE_SYSTEMS,
    COMMON,
    EDITABLE,
    LABEL,
    RELEASE,
    Rule,
    read_form,
    types_of,
    without,
)
from fhir_portal.web.pages.words import type_words

PREVIEW: Final = f"{LABELS}/preview"
SAVE: Final = f"{LABELS}/save"
_FIELDS: Final = (
    *("kind", "do", "was", "name", "label", "type", "codes", "system"),
    *("until", "hours", "reason"),
)
"""What goes from a form through its preview."""
_DONE: Final[Mapping[str, str]] = {"saved": "The rules were changed. They count from now on."}
_CHANGED: Final = (
    "The rules were changed meanwhile, by somebody else or by sending the form twice. "
    "Below is how they are now."
)
_NOTHING: Final = "That changes nothing."
_TWICE: Final = "There is a rule of this name already. Change that one, or take another name."


class LabelRulePages:
    """The rules of a practice, a form for one of them, and the preview of a change."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def routes(self) -> Sequence[tuple[str, str, Handler]]:
        """Path, method and handler of each page."""
        return (
            (LABELS, "GET", desk_page(self.show)),
            (PREVIEW, "POST", desk_page(self.show_preview, back=LABELS)),
            (SAVE, "POST", desk_page(self.save, back=LABELS)),
            (f"{LABELS}/{{kind}}", "GET", desk_page(self.show_form, back=LABELS)),
            (f"{LABELS}/{{kind}}/{{name}}", "GET", desk_page(self.show_form, back=LABELS)),
        )

    async def show(self, request: Request) -> Response:
        here = await self._desk.at(request)
        return await self._page(here, done=_DONE.get(request.query_params.get("done", ""), ""))

    async def show_form(self, request: Request) -> Response:
        """The form for a new rule, or for one that there is."""
        here = await self._desk.at(request)
        _require_setting(here)
        kind, name = request.path_params["kind"], request.path_params.get("name", "")
        told, rules = await self._rules(here)
        if kind not in {LABEL, RELEASE}:
            raise NotFound
        rule = next((one for one in rules if (one.kind, one.name) == (kind, name)), None)
        if name and rule is None:
            raise NotFound
        return self._form(here, kind, rule, was=name, seen=str(told.value("change")))

    async def show_preview(self, request: Request) -> Response:
        """Show what a form would change, and how much that concerns."""
        here, pairs, form = await self._desk.posted(request, PREVIEW)
        _require_setting(here)
        told, rules = await self._rules(here)
        if form.get("seen") != str(told.value("change")):
            return await self._page(here, problem=_CHANGED, status=412)
        before, rule, problem, wrong = _draft(rules, pairs, form)
        if problem and rule is not None:
            return self._form(
                here,
                rule.kind,
                rule,
                was=before.name if before else "",
                seen=form["seen"],
                problem=problem,
                wrong=wrong,
                given=form,
            )
        if rule == before:
            return await self._page(here, problem=_NOTHING, status=400)
        wanted = _with(rules, before, rule)
        try:
            answer = await self._set(here, wanted, form["seen"], preview=True)
        except Conflict:
            return await self._page(here, problem=_CHANGED, status=412)
        about = rule or before
        assert about is not None  # noqa: S101 - a change is of a rule
        return self._desk.page(
            here,
            "staff_label_rules_preview.html",
            before=before.told if before else None,
            after=rule.told if rule else None,
            name=about.name,
            hides=rule is not None and rule.kind == LABEL,
            is_release=about.kind == RELEASE,
            waiting=before.waiting if before else 0,
            foreseen=answer.value("foreseen"),
            fields=[(name, value) for name, value in pairs if name in _FIELDS],
            seen=form["seen"],
            action=SAVE,
            form_token=self._desk.form_token(here, SAVE),
            back=LABELS,
        )

    async def save(self, request: Request) -> Response:
        """Set what was looked at, if nobody has set the rules since."""
        here, pairs, form = await self._desk.posted(request, SAVE)
        _require_setting(here)
        told, rules = await self._rules(here)
        if form.get("seen") != str(told.value("change")):
            return await self._page(here, problem=_CHANGED, status=412)
        before, rule, problem, _ = _draft(rules, pairs, form)
        if problem or rule == before:
            return await self._page(here, problem=problem or _NOTHING, status=400)
        try:
            await self._set(here, _with(rules, before, rule), form["seen"])
        except Conflict:
            return await self._page(here, problem=_CHANGED, status=412)
        except (Invalid, Unprocessable) as error:
            return await self._page(here, problem=_words(error), status=400)
        return redirect(f"{LABELS}?done=saved")

    # --- what is shown -------------------------------------------------------------------------

    async def _page(
        self, here: AtDesk, *, done: str = "", problem: str = "", status: int = 200
    ) -> Response:
        told, rules = await self._rules(here)
        sets = here.calls("set-label-rules")
        return self._desk.page(
            here,
            "staff_label_rules.html",
            status=status,
            done=done,
            problem=problem,
            running=told.value("running"),
            hides=told.value("hides"),
            labels=[one.told for one in rules if one.kind == LABEL],
            releases=[one.told for one in rules if one.kind == RELEASE],
            change=f"{LABELS}/label" if sets else "",
            change_release=f"{LABELS}/release" if sets else "",
            seen=told.value("change"),
            action=PREVIEW,
            form_token=self._desk.form_token(here, PREVIEW) if sets else "",
        )

    def _form(
        self,
        here: AtDesk,
        kind: str,
        rule: Rule | None,
        *,
        was: str,
        seen: str,
        problem: str = "",
        wrong: str = "",
        given: Mapping[str, str] | None = None,
    ) -> Response:
        """``given`` is what was sent, where it is shown again with what is ``wrong`` in it."""
        return self._desk.page(
            here,
            "staff_label_rule.html",
            status=400 if problem else 200,
            problem=problem,
            wrong=wrong,
            kind=kind,
            was=was,
            rule=rule,
            codes=given.get("codes", "") if given else "\n".join(rule.codes) if rule else "",
            system=given.get("system", "") if given else "",
            until=given.get("until", "")
            if given
            else ("hours" if rule.hours else "staff")
            if rule
            else "",
            hours=given.get("hours", "") if given else rule.hours if rule and rule.hours else "",
            too_long=not given and rule is not None and len(rule.codes) > EDITABLE,
            labels=[(code, words, hidden_from(code)) for code, words in LABEL_WORDS.items()],
            common=[(name, type_words(name)) for name in COMMON],
            others=types_of(rule),
            results=[(name, type_words(name)) for name in RELEASABLE],
            systems=CODE_SYSTEMS,
            reasons=EXCEPTIONS,
            seen=seen,
            action=PREVIEW,
            form_token=self._desk.form_token(here, PREVIEW),
            back=LABELS,
        )

    # --- what is asked -------------------------------------------------------------------------

    async def _rules(self, here: AtDesk) -> tuple[Answer, list[Rule]]:
        told = await self._desk.call(here, "label-rules", "Patient")
        rules = [Rule.of(kind, one) for kind in (LABEL, RELEASE) for one in told.values(kind)]
        return told, rules

    async def _set(
        self, here: AtDesk, rules: Sequence[Rule], seen: str, *, preview: bool = False
    ) -> Answer:
        given: list[tuple[str, str, Any]] = [("change", "valueInteger", int(seen))]
        given += [("preview", "valueBoolean", True)] if preview else []
        given += [one.parameter for one in rules]
        return await self._desk.call(here, "set-label-rules", "Patient", *given)


def _draft(
    rules: Sequence[Rule], pairs: Pairs, form: Mapping[str, str]
) -> tuple[Rule | None, Rule | None, str, str]:
    """Return the rule that a form is about, what it would be, and what is wrong with that.

    Raises `NotFound` for one that there is not.
    """
    kind, was = form.get("kind", ""), form.get("was", "")
    before = next((one for one in rules if (one.kind, one.name) == (kind, was)), None)
    if kind not in {LABEL, RELEASE} or (was and before is None):
        raise NotFound
    if form.get("do") == "remove":
        if before is None:
            raise NotFound
        return before, None, "", ""
    rule, problem, wrong = read_form(kind, pairs, {**form, "name": was} if was else form)
    if not was and not problem and any((one.kind, one.name) == (kind, rule.name) for one in rules):
        return None, rule, _TWICE, "name"
    return before, rule, problem, wrong


def _with(rules: Sequence[Rule], before: Rule | None, rule: Rule | None) -> list[Rule]:
    kept = without(rules, before.kind, before.name) if before is not None else [*rules]
    return [*kept, rule] if rule is not None else kept


def _require_setting(here: AtDesk) -> None:
    if not here.calls("set-label-rules"):
        raise Forbidden(f"the level '{here.staff.level}' does not let its holders set rules")


def _words(error: FhirError) -> str:
    return "; ".join(one.diagnostics for one in error.issues if one.diagnostics)
