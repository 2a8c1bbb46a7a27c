"""Planted faults: each takes one piece of the authorization out, as a careless change might.

The second belt (`fhir_portal.resources.permission.checked`) catches most faults of a store by
answering 500; where it would, the fault takes it off too (``belt_off``), so that what is tested is
the run over the pairs and not the belt.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any
from unittest.mock import patch

import msgspec

from fhir_portal import portal
from fhir_portal.access import classify, closure, policy
from fhir_portal.access.owners import OF_STAFF
from fhir_portal.access.visibility import (
    UNCLASSIFIED,
    RowFacts,
    Visibility,
    VisibilityClass,
)
from fhir_portal.consent import label_rules
from fhir_portal.consent.labels import SELF_LABELS
from fhir_portal.embedded import query, resources
from fhir_portal.embedded.log import EmbeddedLog
from fhir_portal.embedded.query import Interned, Where
from fhir_portal.embedded.resources import ResourceChanges, Resources
from fhir_portal.fhir.errors import Forbidden
from fhir_portal.operations import exporting
from fhir_portal.resources import audit_event, passing_on, writing
from fhir_portal.resources.catalog import INTERACTIONS
from fhir_portal.resources.interactions import create, history, read, search_type, vread
from fhir_portal.resources.server import PageLinks
from fhir_portal.resources.store import Page
from fhir_portal.smart.scope import ScopeSet
from tests.builders import DERM, FAMILY, an_ehr
from tests.places import Database, Place

Loosen = Callable[[Visibility], Visibility]


class Ground(ExitStack):
    """What faults are planted in: the parts of the embedded store, or of another one."""

    resources: Any = Resources
    changes: Any = ResourceChanges
    log: Any = EmbeddedLog

    def where(self, loosen: Loosen) -> None:
        """Compile another visibility than the one that was decided."""
        _swap(self, query, "visible_where", lambda old: lambda i, v, *a: old(i, loosen(v), *a))

    def then(self) -> None:
        """Ask nothing of a version itself."""
        _swap(self, resources, "_then", lambda _: lambda *_: Where(""))

    def classes(self) -> None:
        """Permit every class."""

        def make(_: Any) -> Any:
            def permitted(self: Any, visible: Any) -> list[int]:
                del visible
                rows = self._connection.execute("SELECT class FROM class").fetchall()
                return [number for (number,) in rows]

            return permitted

        _swap(self, Interned, "permitted", make)

    def numbers(self) -> None:
        """Number the lines of the log through, over all records."""

        def make(old: Any) -> Any:
            def numbered(self: Any, rows: Any) -> list[tuple[Any, ...]]:
                (count,) = self._connection.execute("SELECT count(*) FROM access").fetchone()
                values = enumerate(old(self, rows), count + 1)
                return [(stream, turn, *rest) for turn, (stream, _, *rest) in values]

            return numbered

        _swap(self, self.log, "_numbered", make)


class MongoGround(Ground):
    """The parts of the MongoDB store."""

    def __init__(self) -> None:
        super().__init__()
        from fhir_portal import mongo  # noqa: PLC0415 - most tests need no driver
        from fhir_portal.mongo import store  # noqa: F401, PLC0415 - which loads the others

        self._mongo: Any = mongo
        self.resources = mongo.resources.Resources
        self.changes = mongo.resources.ResourceChanges
        self.log = mongo.log.MongoLog

    def where(self, loosen: Loosen) -> None:
        for module in (self._mongo.query, self._mongo.resources):
            _swap(self, module, "allowed", lambda old: lambda r, v, *a: old(r, loosen(v), *a))

    def then(self) -> None:
        one_of = self._mongo.query.one_of
        _swap(self, self._mongo.resources, "then", lambda _: lambda _, types: {"t": one_of(types)})

    def classes(self) -> None:
        _swap(self, self._mongo.query, "_only", lambda _: lambda _: {"$exists": True})

    def numbers(self) -> None:
        async def last_turns(log: Any, streams: Any) -> dict[str, int]:
            return dict.fromkeys(streams, await log._driver.count("access", {}))  # noqa: SLF001

        _swap(self, self.log, "_last_turns", lambda _: last_turns)


Fault = Callable[[Ground], None]


@dataclass(frozen=True)
class Planted:
    """A fault, what it breaks, and whether the second belt is off as well."""

    name: str
    breaks: str
    belt_off: bool
    on_write: bool
    """Whether it bites when the world is built, not when it is read."""
    plant: Fault


PLANTED: dict[str, Planted] = {}


def planted(
    breaks: str, *, belt_off: bool = False, on_write: bool = False
) -> Callable[[Fault], Fault]:
    def keep(fault: Fault) -> Fault:
        name = fault.__name__.replace("_", " ")
        PLANTED[name] = Planted(name, breaks, belt_off, on_write, fault)
        return fault

    return keep


@contextmanager
def with_fault(name: str, place: Place | None = None) -> Iterator[None]:
    """Run with one fault planted in the kind of store that is at a place."""
    fault = PLANTED[name]
    with MongoGround() if isinstance(place, Database) else Ground() as stack:
        if fault.belt_off:
            for module in (read, vread, history, search_type, create, exporting):
                stack.enter_context(patch.object(module, "checked", _unchecked))
        fault.plant(stack)
        yield


def _unchecked(rows: Iterable[Any], _: Visibility) -> list[Any]:
    return list(rows)


def _open(visible: Visibility) -> Visibility:
    """Everything of the type in the practice."""
    return Visibility.of_server(visible.resource_type, practice=visible.practices[0])


def _swap(stack: ExitStack, target: Any, name: str, make: Callable[[Any], Any]) -> None:
    stack.enter_context(patch.object(target, name, make(getattr(target, name))))


# ---------------------------------------------------------------- the store's queries


@planted("read_many, which fetches the targets of _include, ignores the visibility", belt_off=True)
def include(ground: Ground) -> None:
    _swap(
        ground, ground.resources, "read_many", lambda old: lambda s, keys, v: old(s, keys, _open(v))
    )


@planted("referring, which finds what _revinclude adds, ignores the visibility", belt_off=True)
def revinclude(ground: Ground) -> None:
    _swap(
        ground,
        ground.resources,
        "referring",
        lambda old: lambda s, p, t, v, *, limit: old(s, p, t, _open(v), limit=limit),
    )


@planted("pages after the first are searched without the visibility", belt_off=True)
def paging(ground: Ground) -> None:
    def make(old: Any) -> Any:
        async def search(self: Any, request: Any, visible: Any, *, after: Any = None) -> Any:
            bound = visible if after is None else _open(visible)
            return await old(self, request, bound, after=after)

        return search

    _swap(ground, ground.resources, "search", make)


@planted("Bundle.total counts what is hidden too")
def total(ground: Ground) -> None:
    def make(old: Any) -> Any:
        async def search(self: Any, request: Any, visible: Any, *, after: Any = None) -> Any:
            page = await old(self, request, visible, after=after)
            if page.total is None:
                return page
            whole = await old(self, replace(request, summary="count"), _open(visible))
            return Page(page.rows, whole.total, page.next)

        return search

    _swap(ground, ground.resources, "search", make)


@planted("vread ignores the visibility", belt_off=True)
def version_read(ground: Ground) -> None:
    _swap(ground, ground.resources, "vread", lambda old: lambda s, k, n, v: old(s, k, n, _open(v)))


@planted("history of one resource ignores the visibility", belt_off=True)
def instance_history(ground: Ground) -> None:
    _swap(
        ground,
        ground.resources,
        "history",
        lambda old: lambda s, k, v, **more: old(s, k, _open(v), **more),
    )


@planted("the feed ignores the visibility", belt_off=True)
def feed(ground: Ground) -> None:
    _swap(
        ground,
        ground.resources,
        "feed",
        lambda old: lambda s, v, **more: old(s, {n: _open(x) for n, x in v.items()}, **more),
    )


@planted("a version is judged by what the current one is, not by what it was", belt_off=True)
def earlier_versions(ground: Ground) -> None:
    ground.then()


@planted("sections and labels are not compiled: every class is permitted", belt_off=True)
def class_list(ground: Ground) -> None:
    ground.classes()


@planted("rows of the other practice are not kept out", belt_off=True)
def practice(ground: Ground) -> None:
    both = (DERM, FAMILY)
    ground.where(lambda v: replace(v, practices=both) if v.record is not None else v)
    ground.then()


@planted("rows of other records are not kept out", belt_off=True)
def owners(ground: Ground) -> None:
    ground.where(lambda v: replace(v, record=None))
    ground.then()


@planted("the list of ids (own RelatedPerson, own grant) is not compiled", belt_off=True)
def ids(ground: Ground) -> None:
    ground.where(lambda v: replace(v, ids=None))


@planted("granular scopes are not compiled: ?category=… is ignored")
def granular(ground: Ground) -> None:
    ground.where(lambda v: replace(v, any_of=None))


@planted("directory types are visible without being listed or referred to")
def directory(ground: Ground) -> None:
    ground.where(lambda v: replace(v, referrers=None))


@planted("directory entries are visible through what the caller cannot see")
def hidden_referrers(ground: Ground) -> None:
    def loosen(visible: Visibility) -> Visibility:
        if visible.referrers is None:
            return visible
        loose = (replace(r, sections=None, labels=None, any_of=None) for r in visible.referrers)
        return replace(visible, referrers=tuple(loose))

    ground.where(loosen)


# ---------------------------------------------------------------- the interactions


@planted("entries of a batch run with the rights of the server")
def batch(ground: Ground) -> None:
    def make(old: Any) -> Any:
        async def bundle(server: Any, request: Any, auth: Any, perform: Any) -> Any:
            async def as_server(inner: Any, _: Any) -> Any:
                return await perform(inner, an_ehr(auth.practice))

            return await old(server, request, auth, as_server)

        return bundle

    _swap(ground, portal, "bundle_interaction", make)


@planted("included types are not held against the scopes")
def scope_of_included(ground: Ground) -> None:
    def make(old: Any) -> Any:
        def permitted_or_none(server: Any, auth: Any, letter: str, name: str) -> Any:
            wide = replace(auth, scopes=ScopeSet.parse("patient/*.rs"))
            return old(server, wide if auth.context == "patient" else auth, letter, name)

        return permitted_or_none

    _swap(ground, search_type, "permitted_or_none", make)


@planted("a read of what is hidden says forbidden instead of not found")
def existence_words(ground: Ground) -> None:
    def make(old: Any) -> Any:
        async def found(self: Any, key: Any, visible: Any) -> Any:
            row = await old(self, key, visible)
            if row is None and await old(self, key, _open(visible)) is not None:
                raise Forbidden("this is not yours")
            return row

        return found

    _swap(ground, ground.resources, "read", make)


@planted("a deletion in another record answers 410", belt_off=True)
def hidden_deletions(ground: Ground) -> None:
    def make(old: Any) -> Any:
        async def found(self: Any, key: Any, visible: Any) -> Any:
            row = await old(self, key, visible)
            if row is None:
                hidden = await old(self, key, _open(visible))
                return hidden if hidden is not None and hidden.deleted else None
            return row

        return found

    _swap(ground, ground.resources, "read", make)


@planted("If-None-Exist matches what the writer cannot see", belt_off=True)
def conditional_match(ground: Ground) -> None:
    _swap(
        ground,
        create,
        "conditional_match",
        lambda old: lambda server, reader, name, text, v: old(server, reader, name, text, _open(v)),
    )


@planted("a write's new image is not held against the visibility")
def new_image(ground: Ground) -> None:
    ground.enter_context(patch.object(Visibility, "require", lambda *_: None))


@planted("an update looks for the old version without the visibility")
def update_of_hidden(ground: Ground) -> None:
    _swap(
        ground,
        writing,
        "update_in",
        lambda old: lambda t, s, a, tree, v, **more: old(_Seeing(t, v), s, a, tree, v, **more),
    )
    from fhir_portal.resources.interactions import update  # noqa: PLC0415

    ground.enter_context(patch.object(update, "update_in", writing.update_in))


class _Seeing:
    """A transaction whose reads ignore one visibility."""

    def __init__(self, inner: Any, visible: Visibility) -> None:
        self._inner = inner
        self._visible = visible

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    async def read(self, key: Any, visible: Visibility) -> Any:
        return await self._inner.read(key, _open(visible) if visible == self._visible else visible)


@planted("references of a person's write are not looked up")
def reference_check(ground: Ground) -> None:
    async def unchecked(*_: Any) -> None:
        return None

    ground.enter_context(patch.object(writing, "_require_known_references", unchecked))


@planted("a person may write in somebody else's name")
def author(ground: Ground) -> None:
    ground.enter_context(patch.object(writing, "wrong_author", lambda *_: ""))


@planted("a paging link proves a right: it carries its owner's visibility", belt_off=True)
def links_as_rights(ground: Ground) -> None:
    def make(old: Any) -> Any:
        def permitted(server: Any, auth: Any, letter: str, name: str) -> Any:
            visible = old(server, auth, letter, name)
            return _open(visible) if links_as_rights_open[0] and letter == "s" else visible

        return permitted

    links_as_rights_open = [False]

    def unsealing(old: Any) -> Any:
        def opened(self: Any, text: str, scope: str) -> Any:
            links_as_rights_open[0] = True
            return old(self, text, scope)

        return opened

    def understanding(old: Any) -> Any:
        async def search(server: Any, request: Any, auth: Any) -> Any:
            links_as_rights_open[0] = any(name == "_page" for name, _ in request.query)
            try:
                return await old(server, request, auth)
            finally:
                links_as_rights_open[0] = False

        return search

    _swap(ground, search_type, "permitted", make)
    _swap(ground, PageLinks, "open", unsealing)
    ground.enter_context(
        patch.dict(INTERACTIONS, {"search-type": understanding(search_type.search_type)})
    )


# ---------------------------------------------------------------- the log


@planted("a proxy sees every line of the record's log")
def agents_of_the_log(ground: Ground) -> None:
    _swap(
        ground,
        ground.log,
        "of_record",
        lambda old: lambda s, p, r, **more: old(s, p, r, **{**more, "agent": None}),
    )
    _swap(
        ground,
        audit_event,
        "_may_see",
        lambda _: lambda line, v, auth: auth.context == "system" or line.row.record == v.record,
    )


@planted("a line of the log is read by its id alone")
def line_of_the_log(ground: Ground) -> None:
    ground.enter_context(patch.object(audit_event, "_may_see", lambda *_: True))


@planted("lines of the log are numbered through, over all records", on_write=True)
def ids_of_the_log(ground: Ground) -> None:
    ground.numbers()


@planted("lines about what is hidden from a person are in that person's log", on_write=True)
def lines_about_hidden(ground: Ground) -> None:
    touched = property(lambda facts: tuple((owner, True) for owner in facts.owners))
    ground.enter_context(patch.object(RowFacts, "touched", touched))


# ---------------------------------------------------------------- what is computed on write


def _classified(ground: Ground, alter: Callable[[RowFacts], RowFacts]) -> None:
    def make(old: Any) -> Any:
        async def classified(*given: Any, **known: Any) -> RowFacts:
            return alter(await old(*given, **known))

        return classified

    for module in (writing, passing_on):
        _swap(ground, module, "classify", make)


def _with(facts: RowFacts, **changes: Any) -> RowFacts:
    return msgspec.structs.replace(facts, **changes)


@planted("a Binary does not take over the labels of its document", on_write=True)
def labels_of_binaries(ground: Ground) -> None:
    def alter(facts: RowFacts) -> RowFacts:
        if facts.resource_type != "Binary":
            return facts
        sections = facts.visibility_class.sections
        return _with(facts, visibility_class=VisibilityClass(sections, frozenset()))

    _classified(ground, alter)


@planted("a resource of several records belongs to the first", on_write=True)
def several_owners(ground: Ground) -> None:
    _classified(ground, lambda facts: _with(facts, owners=facts.owners[:1]))


@planted("what no section claims is in all of them", on_write=True)
def unclassified(ground: Ground) -> None:
    def alter(facts: RowFacts) -> RowFacts:
        held = facts.visibility_class
        kept = VisibilityClass(held.sections - {UNCLASSIFIED}, held.labels)
        return _with(facts, visibility_class=kept)

    _classified(ground, alter)


@planted("labels are not read from meta", on_write=True)
def labels(ground: Ground) -> None:
    ground.enter_context(patch.object(label_rules, "labels_of", lambda _: frozenset()))


@planted("a resource takes no labels from what it refers to", on_write=True)
def labels_of_targets(ground: Ground) -> None:
    nothing = iter(())
    _swap(ground, classify, "conveying", lambda _: lambda *_: nothing)
    _swap(ground, classify, "conveyed_by", lambda _: lambda *_: frozenset())


@planted("what a labelled resource lists takes no labels from it", on_write=True)
def labels_of_lists(ground: Ground) -> None:
    _swap(ground, classify, "LISTED_BY", lambda _: {})


def _without_edge(name: str, path: str) -> None:
    """Plant one more fault: this edge conveys nothing."""

    def fault(ground: Ground) -> None:
        def make(old: Any) -> Any:
            def conveying(tree: Any, *links: Any) -> list[Any]:
                dropped = (name, path)
                found = old(tree, *links)
                return [one for one in found if (tree["resourceType"], one[0]) != dropped]

            return conveying

        for module in (closure, classify):
            _swap(ground, module, "conveying", make)

    fault.__name__ = f"edge_{name}.{path}"
    planted(f"{name}.{path} conveys no label", on_write=True)(fault)


for _edge in (
    "Observation.encounter",
    "Observation.hasMember",
    "Observation.derivedFrom",
    "Condition.encounter",
    "DocumentReference.context.encounter",
    "Communication.encounter",
    "Communication.about",
    "QuestionnaireResponse.encounter",
    "Immunization.encounter",
):
    _without_edge(*_edge.split(".", 1))


@planted("derived rows are not recomputed when what they follow changes", on_write=True)
def recomputation(ground: Ground) -> None:
    async def nothing(_: Any, facts: Any, *__: Any, **___: Any) -> Any:
        return facts

    ground.enter_context(patch.object(writing, "pass_on", nothing))


@planted("recomputed rows keep their old class", on_write=True)
def reclassification(ground: Ground) -> None:
    async def nothing(*_: Any) -> None:
        return None

    ground.enter_context(patch.object(ground.changes, "reclassify", nothing))


# ---------------------------------------------------------------- the decision


@planted("the sections of a grant are not applied")
def sections_of_grant(ground: Ground) -> None:
    _swap(
        ground,
        policy,
        "_of_record",
        lambda old: lambda auth, name, any_of: replace(old(auth, name, any_of), sections=None),
    )


@planted("a proxy sees labelled items like the person")
def labels_for_proxies(ground: Ground) -> None:
    ground.enter_context(patch.object(policy, "PROXY_LABELS", SELF_LABELS))


@planted("scopes are not held against the type")
def scopes(ground: Ground) -> None:
    _swap(
        ground,
        policy,
        "_granted",
        lambda old: lambda auth, letter, name: old(auth, letter, name) or None,
    )


def _for_staff(ground: Ground, loosen: Loosen) -> None:
    def make(old: Any) -> Any:
        def decided(*given: Any) -> Any:
            answer = old(*given)
            return policy.Permit(loosen(answer.visible)) if hasattr(answer, "visible") else answer

        return decided

    _swap(ground, policy, "_as_staff", make)


@planted("staff are not bounded to their practice")
def practices_of_staff(ground: Ground) -> None:
    _for_staff(ground, lambda visible: replace(visible, practices=(DERM, FAMILY)))


@planted("a patient/ token of staff is not bounded to its record")
def record_of_staff(ground: Ground) -> None:
    _for_staff(ground, lambda visible: replace(visible, record=None))


@planted("granular scopes of staff are not in the query")
def granular_for_staff(ground: Ground) -> None:
    _for_staff(ground, lambda visible: replace(visible, any_of=None))


@planted("staff see what belongs to no record")
def records_of_nobody(ground: Ground) -> None:
    ground.enter_context(patch.object(policy, "_ANY_SECTION", None))


@planted("staff see identity")
def identity_for_staff(ground: Ground) -> None:
    ground.enter_context(patch.object(policy, "OF_STAFF", OF_STAFF | {"Person"}))
