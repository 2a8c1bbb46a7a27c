"""Which questions of a form are asked, given the answers so far (``enableWhen``).

A condition looks at the nearest occurrence of its question: on the way up through what the item
stands in, at what stands beside. A question that is not asked counts as not answered, whatever the
response holds. Source: FHIR R4 Questionnaire.item.enableWhen; SDC 3.0 enableWhenExpression.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any, Final

from fhir_portal.fhir.datetime import period_of
from fhir_portal.resources.forms.fhirpath import Effort, ExpressionFault, compiled
from fhir_portal.resources.forms.questionnaire import Condition, Item, Questionnaire, option_key

_ORDERED: Final = frozenset({">", "<", ">=", "<="})
_DATES: Final = frozenset({"valueDate", "valueDateTime"})
_NUMBERS: Final = frozenset({"valueInteger", "valueDecimal"})


class Place:
    """One level of a response: the items of the form that belong there, and those answered.

    There is one for the top, for each group that is there and for what is under each answer;
    ``owner`` is the item it is under, ``path`` the FHIRPath of the response item or answer that
    holds it.
    """

    __slots__ = ("items", "nodes", "owner", "parent", "path")

    def __init__(
        self,
        items: Sequence[Item],
        nodes: Sequence[Mapping[str, Any]],
        *,
        path: str,
        owner: Item | None = None,
        parent: Place | None = None,
    ) -> None:
        self.items, self.nodes = items, nodes
        self.owner, self.parent, self.path = owner, parent, path

    def of(self, item: Item) -> list[tuple[int, Mapping[str, Any]]]:
        """Return the response items for an item of the form, with their positions."""
        return [(at, one) for at, one in enumerate(self.nodes) if one.get("linkId") == item.link_id]


class Response:
    """The answers to a form as places, and what is asked because of them.

    ``tree`` is plain JSON (`fhir_portal.resources.forms.fhirpath.plain`); ``now`` is in seconds
    since 1970 UTC, ``variables`` are those of expressions.
    """

    def __init__(
        self,
        form: Questionnaire,
        tree: Mapping[str, Any],
        *,
        now: float,
        variables: Mapping[str, Any] | None = None,
        effort: Effort | None = None,
    ) -> None:
        self.form, self.tree, self.now = form, tree, now
        self.effort = effort or Effort()
        self._variables = {**(variables or {}), "resource": tree, "questionnaire": form.tree}
        self._left = list(form.variables)
        self.top = Place(form.items, tree.get("item", ()), path="QuestionnaireResponse")
        self._below: dict[tuple[int, str], list[Place]] = {}
        self._enabled: dict[tuple[int, str], bool | None] = {}
        self._values: dict[str, list[Any]] = {}

    @property
    def variables(self) -> Mapping[str, Any]:
        """Those of expressions; the form's own are evaluated once one is needed."""
        while self._left:
            name, text = self._left.pop(0)
            self._variables[name] = self._evaluated(text, self.tree, self._variables)
        return self._variables

    def having(self, name: str, value: Any) -> Response:
        """Return the same with one more variable."""
        variables = {**self.variables, name: value}
        found = Response(
            self.form, self.tree, now=self.now, variables=variables, effort=self.effort
        )
        found._left.clear()
        return found

    def value_of(self, text: str, node: Any) -> list[Any]:
        """Evaluate an expression; what cannot be, has no value. Raises `TooCostly`."""
        if node is self.tree and text in self._values:
            return self._values[text]
        found = self._evaluated(text, node, self.variables)
        if node is self.tree:
            self._values[text] = found
        return found

    def _evaluated(self, text: str, node: Any, variables: Mapping[str, Any]) -> list[Any]:
        self.effort.spend()
        try:
            return compiled(text)(node, variables, now=self.now, effort=self.effort)
        except ExpressionFault:
            return []

    def below(self, item: Item, place: Place) -> list[Place]:
        """Return the places under an item of a place: one for each group or answer that is there.

        Under a group that is not there is one place without answers, unless it repeats.
        """
        key = (id(place), item.link_id)
        found = self._below.get(key)
        if found is None:
            found = self._below[key] = list(self._places(item, place))
        return found

    def is_enabled(self, item: Item, place: Place) -> bool:
        """Whether an item is asked in a place. What depends on itself is not."""
        key = (id(place), item.link_id)
        if key in self._enabled:
            return self._enabled[key] is True
        self._enabled[key] = None
        found = self._decide(item, place)
        self._enabled[key] = found
        return found

    def answers(self, item: Item, place: Place) -> list[Mapping[str, Any]]:
        """Return the answers that count: none of a question that is not asked."""
        if not self.is_enabled(item, place):
            return []
        return [
            {name: value for name, value in answer.items() if name.startswith("value")}
            for _, node in place.of(item)
            for answer in node.get("answer", ())
            if any(name.startswith("value") for name in answer)
        ]

    def has_answers(self, item: Item, place: Place) -> bool:
        """Whether an item, or anything below it, has an answer that counts."""
        if self.answers(item, place):
            return True
        if not self.is_enabled(item, place):
            return False
        return any(
            self.has_answers(one, under) for under in self.below(item, place) for one in under.items
        )

    def asked(self) -> Iterator[tuple[Item, Place]]:
        """Yield every item that is asked, in the order of the form."""
        yield from self._asked(self.top)

    def _asked(self, place: Place) -> Iterator[tuple[Item, Place]]:
        for item in place.items:
            if self.is_enabled(item, place):
                yield item, place
                for under in self.below(item, place):
                    yield from self._asked(under)

    def _places(self, item: Item, place: Place) -> Iterator[Place]:
        nodes = place.of(item)
        if not item.items:
            return
        if item.is_question:
            for at, node in nodes:
                for number, answer in enumerate(node.get("answer", ())):
                    path = f"{place.path}.item[{at}].answer[{number}]"
                    yield Place(
                        item.items, answer.get("item", ()), path=path, owner=item, parent=place
                    )
            return
        for at, node in nodes:
            path = f"{place.path}.item[{at}]"
            yield Place(item.items, node.get("item", ()), path=path, owner=item, parent=place)
        if not nodes and not (item.repeats and item.least == 0):
            path = f"{place.path}.item.where(linkId='{quoted(item.link_id)}')"
            yield Place(item.items, (), path=path, owner=item, parent=place)

    def _decide(self, item: Item, place: Place) -> bool:
        owner, above = place.owner, place.parent
        if owner is not None and above is not None and not self.is_enabled(owner, above):
            return False
        if item.enabled_if is not None:
            found = self.value_of(item.enabled_if, self.tree)
            if found[:1] != [True]:
                return False
        if not item.conditions:
            return True
        met = (self._is_met(one, place) for one in item.conditions)
        return all(met) if item.all_conditions else any(met)

    def _is_met(self, condition: Condition, place: Place) -> bool:
        given = self._nearest(condition.question, place)
        if condition.operator == "exists":
            return bool(given) is (condition.answer.get("valueBoolean") is True)
        if condition.operator == "=":
            return any(same(one, condition.answer) for one in given)
        if condition.operator == "!=":
            return not any(same(one, condition.answer) for one in given)
        return any(_holds(one, condition.operator, condition.answer) for one in given)

    def _nearest(self, question: str, place: Place) -> list[Mapping[str, Any]]:
        start: Place | None = place
        while start is not None:
            found = list(self._within(question, start))
            if found:
                item = found[0][0]
                if not item.is_question:  # exists: a group is there when anything in it is
                    return [{} for one, at in found if self.has_answers(one, at)]
                return [answer for one, at in found for answer in self.answers(one, at)]
            start = start.parent
        return []

    def _within(self, question: str, place: Place) -> Iterator[tuple[Item, Place]]:
        above = set[str]()
        known = self.form.by_link.get(question)
        while known is not None and known.parent:
            above.add(known.parent)
            known = self.form.by_link.get(known.parent)
        yield from self._under(question, place, frozenset(above))

    def _under(
        self, question: str, place: Place, above: frozenset[str]
    ) -> Iterator[tuple[Item, Place]]:
        for item in place.items:
            if item.link_id == question:
                yield item, place
            elif item.link_id in above:
                for under in self.below(item, place):
                    yield from self._under(question, under, above)


def same(given: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    """Whether two answers are equal, each ``valueX`` to its value."""
    for member, value in given.items():
        for other, expected in wanted.items():
            if {member, other} <= _NUMBERS or {member, other} <= _DATES or member == other:
                return _equal(member, value, expected)
    return False


def compared(member: str, value: Any, other: Any) -> int | None:
    """Return -1, 0 or 1 for less, equal and more; ``None`` where there is no order."""
    if member in _NUMBERS:
        return _order(Decimal(str(value)), Decimal(str(other)))
    if member in _DATES:
        try:
            first, second = period_of(str(value)), period_of(str(other))
        except ValueError:
            return None
        if first == second:
            return 0
        if first[1] < second[0]:
            return -1
        return 1 if first[0] > second[1] else None
    if member == "valueTime":
        return _order(str(value), str(other))
    if member == "valueQuantity":
        if _unit(value) != _unit(other) or "value" not in value or "value" not in other:
            return None
        return _order(Decimal(str(value["value"])), Decimal(str(other["value"])))
    return None


def quoted(text: str) -> str:
    """Return a text as it stands between the quotes of a FHIRPath string."""
    return text.replace("\\", "\\\\").replace("'", "\\'")


def _equal(member: str, value: Any, expected: Any) -> bool:
    if member == "valueCoding":
        wanted = expected.get("system")
        if wanted is not None and wanted != value.get("system"):
            return False
        if "code" in expected:
            return bool(value.get("code") == expected["code"])
        return bool(value.get("display") == expected.get("display"))
    if member == "valueReference":
        return option_key(member, value) == option_key(member, expected)
    order = compared(member, value, expected)
    return order == 0 if order is not None else bool(value == expected)


def _holds(given: Mapping[str, Any], operator: str, wanted: Mapping[str, Any]) -> bool:
    if operator not in _ORDERED:
        return False
    for member, value in given.items():
        for other, expected in wanted.items():
            if not ({member, other} <= _NUMBERS or {member, other} <= _DATES or member == other):
                continue
            order = compared(member, value, expected)
            if order is None:
                return False
            return {">": order > 0, "<": order < 0, ">=": order >= 0, "<=": order <= 0}[operator]
    return False


def _unit(quantity: Mapping[str, Any]) -> tuple[Any, ...]:
    if "code" in quantity:
        return quantity.get("system"), quantity["code"]
    return None, quantity.get("unit")


def _order(one: Any, other: Any) -> int:
    return int(one > other) - int(one < other)
