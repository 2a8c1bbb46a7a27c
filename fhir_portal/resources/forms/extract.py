"""What answers say, as resources: taken out by definition and by template (SDC ``$extract``).

Nothing of it is part of the record: it is what staff decide about. Only the types below can come
out of a form; each is about the patient of the answers, whatever the form says, and names whoever
answered as the one it comes from.
Source: SDC 3.0 (itemExtractionContext, definition-based), SDC 4.0 (definitionExtract,
templateExtract).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from fhir_portal.access.closure import links_at
from fhir_portal.consent.grant import IG
from fhir_portal.fhir import json
from fhir_portal.fhir.definitions import Element, structures
from fhir_portal.resources.forms.enabled import Place, Response
from fhir_portal.resources.forms.fhirpath import plain, sent
from fhir_portal.resources.forms.questionnaire import SDC, Item, Questionnaire, option_key
from fhir_portal.resources.validation import validate

PATIENT_REPORTED: Final = {
    "system": f"{IG}/CodeSystem/information-origin",
    "code": "patient-reported",
}
DEMOGRAPHICS: Final = (
    *("name", "telecom", "gender", "birthDate", "address", "maritalStatus", "communication"),
    *("contact", "photo"),
)
"""The elements of a Patient that answers may propose."""

_STATUS: Final = "http://terminology.hl7.org/CodeSystem/"
_CONTEXT: Final = f"{SDC}itemExtractionContext"
_DEFINITION: Final = f"{SDC}definitionExtract"
_FIXED: Final = f"{SDC}definitionExtractValue"
_TEMPLATE: Final = f"{SDC}templateExtract"
_TEMPLATE_CONTEXT: Final = f"{SDC}templateExtractContext"
_TEMPLATE_VALUE: Final = f"{SDC}templateExtractValue"
_MOST: Final = 100


@dataclass(frozen=True, slots=True)
class _Rule:
    """Where a type names its patient and its source, and what it is if the form does not say."""

    patient: str
    source: str | None
    dated: str | None
    default: Mapping[str, Any]


def _concept(system: str, code: str) -> dict[str, Any]:
    return {"coding": [{"system": f"{_STATUS}{system}", "code": code}]}


_RULES: Final[Mapping[str, _Rule]] = {
    "Condition": _Rule(
        "subject",
        "asserter",
        "recordedDate",
        {
            "clinicalStatus": _concept("condition-clinical", "active"),
            "verificationStatus": _concept("condition-ver-status", "unconfirmed"),
        },
    ),
    "AllergyIntolerance": _Rule(
        "patient",
        "asserter",
        "recordedDate",
        {
            "clinicalStatus": _concept("allergyintolerance-clinical", "active"),
            "verificationStatus": _concept("allergyintolerance-verification", "unconfirmed"),
        },
    ),
    "MedicationStatement": _Rule(
        "subject", "informationSource", "dateAsserted", {"status": "active"}
    ),
    "FamilyMemberHistory": _Rule("patient", None, "date", {"status": "completed"}),
    "Coverage": _Rule("beneficiary", None, None, {"status": "active"}),
    "Patient": _Rule("", None, None, {}),
}
TYPES: Final = frozenset(_RULES)


@dataclass(frozen=True, slots=True)
class Proposal:
    """One thing that answers say; ``changes`` are the elements of the Patient that it changes."""

    tree: dict[str, Any]
    changes: tuple[str, ...] = ()

    @property
    def is_update(self) -> bool:
        """Whether it changes the Patient, and makes nothing new."""
        return bool(self.tree["resourceType"] == "Patient")


def is_extractable(form: Questionnaire) -> bool:
    """Whether anything can be taken out of answers to a form."""
    urls = {_CONTEXT, _DEFINITION, _TEMPLATE}
    trees: list[Mapping[str, Any]] = [form.tree, *(one.tree for one in form.every())]
    found = (one.get("url") for tree in trees for one in tree.get("extension") or ())
    return not urls.isdisjoint(found)


def proposals(
    form: Questionnaire,
    answers: Mapping[str, Any],
    patient: Mapping[str, Any],
    *,
    now: float,
) -> list[Proposal]:
    """Return what answers say that the record does not, as far as it makes valid resources.

    ``answers`` is the stored QuestionnaireResponse, ``patient`` the stored Patient, both as
    `fhir_portal.fhir.json` reads them.
    """
    response = Response(form, _worded(form, plain(answers)), now=now)
    found = [*_by_definition(response), *_by_template(response)]
    kept = list[Proposal]()
    # What was typed as words is no reference and no file: nobody has looked at where it leads.
    known = {key for tree in (answers, form.tree) for _, _, key in links_at(tree)}
    for made in found[:_MOST]:
        tree = finished(made, answers)
        if tree is None or any(key not in known for _, _, key in links_at(tree)):
            continue
        if tree["resourceType"] != "Patient":
            body = json.dumps(tree)
            if not any(
                one.severity in {"error", "fatal"} for one in validate(json.parse(body), body)
            ):
                kept.append(Proposal(tree))
            continue
        changes = changed(patient, tree)
        whole = merged(patient, tree, changes)
        body = json.dumps(whole)
        if changes and not validate(json.parse(body), body):
            only = {name: value for name, value in tree.items() if name in changes}
            kept.append(Proposal({"resourceType": "Patient", **only}, changes))
    return kept


def _worded(form: Questionnaire, node: dict[str, Any]) -> dict[str, Any]:
    """Give codes that were chosen the words of the form, in place, where they came without."""
    item = form.by_link.get(str(node.get("linkId")))
    words = {one.key: one.value for one in (item.options or () if item is not None else ())}
    for answer in node.get("answer") or ():
        if "valueCoding" in answer:
            offered = words.get(option_key("valueCoding", answer["valueCoding"]), {})
            answer["valueCoding"] = {**offered, **answer["valueCoding"]}
        _worded(form, answer)
    for one in node.get("item") or ():
        _worded(form, one)
    return node


def finished(made: Mapping[str, Any], answers: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return a resource as one of this patient and this source; ``None``: its type is not taken."""
    rule = _RULES.get(str(made.get("resourceType")))
    if rule is None:
        return None
    tree: dict[str, Any] = sent(made)
    for name in ("id", "meta", "implicitRules", "modifierExtension", "contained", "text"):
        tree.pop(name, None)
    if tree["resourceType"] == "Patient":
        return {
            "resourceType": "Patient",
            **{name: value for name, value in tree.items() if name in DEMOGRAPHICS},
        }
    tree = {"resourceType": tree.pop("resourceType"), "meta": {"tag": [PATIENT_REPORTED]}, **tree}
    for name, value in rule.default.items():
        tree.setdefault(name, value)
    tree[rule.patient] = dict(answers["subject"])
    if rule.source is not None and "source" in answers:
        tree[rule.source] = dict(answers["source"])
    if rule.dated is not None and "authored" in answers:
        tree.setdefault(rule.dated, answers["authored"])
    return tree


def changed(patient: Mapping[str, Any], proposed: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the elements in which a Patient would be another one."""
    return tuple(
        name
        for name in DEMOGRAPHICS
        if name in proposed
        and _merged(name, patient.get(name), proposed[name]) != patient.get(name)
    )


def merged(
    patient: Mapping[str, Any], proposed: Mapping[str, Any], names: Sequence[str]
) -> dict[str, Any]:
    """Return a Patient with these elements as proposed; nothing that was not asked is lost.

    Of names, addresses and contacts those of the same use (and kind) are replaced.
    """
    tree = dict(patient)
    for name in names:
        tree[name] = _merged(name, patient.get(name), proposed[name])
    return tree


def _merged(name: str, before: Any, proposed: Any) -> Any:
    if name not in {"name", "telecom", "address"} or not isinstance(before, list):
        return proposed
    result = list(before)
    for one in proposed:
        at = next((at for at, old in enumerate(result) if _alike(name, old, one)), None)
        if at is None:
            result.append(one)
        else:
            result[at] = {**result[at], **one}
            if name != "telecom" and "text" not in one:
                result[at].pop("text", None)
    return result


def _alike(name: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> bool:
    if old.get("use") == "old" or ("period" in old and "end" in old["period"]):
        return False
    if name == "telecom" and old.get("system") != new.get("system"):
        return False
    return "use" not in new or old.get("use") == new.get("use")


# ---- by definition


@dataclass(frozen=True, slots=True)
class _Node:
    """A resource or element that is being made, and its path: ``FamilyMemberHistory.condition``."""

    path: str
    tree: dict[str, Any]


def _by_definition(response: Response) -> Iterator[dict[str, Any]]:
    made = list[dict[str, Any]]()
    stack = list[_Node]()
    _begin(response.form.tree, made, stack)
    _fixed(response, response.form.tree, response.tree, stack)
    _define(response, response.top, stack, made)
    return (one for one in made if len(one) > 1)


def _begin(tree: Mapping[str, Any], made: list[dict[str, Any]], stack: list[_Node]) -> None:
    for one in tree.get("extension") or ():
        name = None
        if one.get("url") == _CONTEXT:
            value = one.get("valueExpression", {}).get("expression", "").partition("?")[0]
            name = one.get("valueCode") or value
        elif one.get("url") == _DEFINITION:
            parts = {part.get("url"): part for part in one.get("extension") or ()}
            name = str(parts.get("definition", {}).get("valueCanonical", "")).rpartition("/")[2]
        if name in TYPES:
            resource: dict[str, Any] = {"resourceType": name}
            made.append(resource)
            stack.append(_Node(str(name), resource))


def _fixed(
    response: Response, tree: Mapping[str, Any], node: Mapping[str, Any], stack: list[_Node]
) -> None:
    """Set what the form gives itself, whatever is answered."""
    for one in tree.get("extension") or ():
        if one.get("url") != _FIXED:
            continue
        parts = {part.get("url"): part for part in one.get("extension") or ()}
        path = _path_of(parts.get("definition", {}).get("valueUri"))
        values: list[Any] = []
        for name, value in parts.get("fixed-value", {}).items():
            if name.startswith("value"):
                values = [plain(value)]
        if "expression" in parts:
            text = parts["expression"].get("valueExpression", {}).get("expression", "")
            values = response.value_of(text, node)
        for value in values:
            _set(stack, path, "", value)


def _define(
    response: Response, place: Place, stack: list[_Node], made: list[dict[str, Any]]
) -> None:
    for item in place.items:
        if not response.is_enabled(item, place):
            continue
        path = _path_of(item.tree.get("definition"))
        if item.is_question:
            answers = response.answers(item, place)
            unders: list[Place | None] = [*response.below(item, place)] or [None] * len(answers)
            for answer, under in zip(answers, unders, strict=False):
                own = list(stack)
                _begin(item.tree, made, own)
                _fixed(response, item.tree, answer, own)
                ((member, value),) = list(answer.items())[:1]
                _set(own, path, member, value)
                if under is not None:
                    _define(response, under, own, made)
            continue
        nodes = place.of(item)
        if not item.items or not nodes:
            continue
        for (_, node), under in zip(nodes, response.below(item, place), strict=False):
            if not any(response.has_answers(one, under) for one in item.items):
                continue
            own = list(stack)
            _begin(item.tree, made, own)
            element = _element(own, path) if path else None
            if element is not None:
                own.append(element)
            _fixed(response, item.tree, node, own)
            _define(response, under, own, made)


def _path_of(definition: Any) -> str:
    """Return ``Patient.name.given`` of ``…/StructureDefinition/Patient#Patient.name.given``."""
    text = str(definition or "").partition("#")[2]
    return ".".join(part.partition(":")[0].removesuffix("[x]") for part in text.split("."))


def _within(stack: Sequence[_Node], path: str) -> tuple[_Node, list[str]] | None:
    for node in reversed(stack):
        if path.startswith(f"{node.path}."):
            return node, path.removeprefix(f"{node.path}.").split(".")
    return None


def _element(stack: Sequence[_Node], path: str) -> _Node | None:
    """Make the element that a group stands for; each occurrence of the group makes one."""
    found = _within(stack, path)
    if found is None:
        return None
    parent, names = found
    below = _descend(parent, names[:-1])
    if below is None:
        return None
    tree, kind = below
    element = structures().get(kind, {}).get(names[-1])
    if element is None or element.type not in structures():
        return None
    made: dict[str, Any] = {}
    if element.is_list:
        tree.setdefault(names[-1], []).append(made)
    else:
        tree[names[-1]] = made
    return _Node(path, made)


def _set(stack: Sequence[_Node], path: str, member: str, value: Any) -> None:
    """Set an answer at a path; what does not fit there is left out."""
    found = _within(stack, path) if path else None
    if found is None:
        return
    node, names = found
    below = _descend(node, names[:-1])
    if below is None:
        return
    tree, kind = below
    name, element = _member(kind, names[-1], member)
    if element is None:
        return
    fitting = _converted(value, element.type)
    if fitting is None:
        return
    if element.is_list:
        listed = tree.setdefault(name, [])
        if fitting not in listed:
            listed.append(fitting)
    else:
        tree[name] = fitting


def _descend(node: _Node, names: Sequence[str]) -> tuple[dict[str, Any], str] | None:
    """Return the element below, made on the way, and its type; in a list it is the first."""
    tree, kind = node.tree, _type_at(node.path)
    for name in names:
        element = structures().get(kind, {}).get(name)
        if element is None:
            return None
        if element.is_list:
            listed = tree.setdefault(name, [])
            if not listed:
                listed.append({})
            tree = listed[0]
        else:
            tree = tree.setdefault(name, {})
        kind = element.type
    return tree, kind


def _type_at(path: str) -> str:
    kind, *names = path.split(".")
    for name in names:
        kind = structures()[kind][name].type
    return kind


def _member(kind: str, name: str, member: str) -> tuple[str, Element | None]:
    elements = structures().get(kind, {})
    if name in elements:
        return name, elements[name]
    suffixes = [member.removeprefix("value")] if member else []
    if member in {"valueCoding", "valueString"}:
        suffixes.append("CodeableConcept")
    if member == "valueDate":
        suffixes.append("DateTime")
    for suffix in suffixes:
        found = elements.get(f"{name}{suffix}")
        if found is not None and found.choice == name:
            return f"{name}{suffix}", found
    return name, None


def _converted(value: Any, kind: str) -> Any:
    if isinstance(value, Mapping):
        if kind == "CodeableConcept" and ("code" in value or "display" in value):
            return {
                "coding": [dict(value)],
                **({"text": value["display"]} if "display" in value else {}),
            }
        if kind in {"code", "string", "uri"}:
            return value.get("code") or (value.get("display") if kind == "string" else None)
        return dict(value) if kind in structures() else None
    if kind == "CodeableConcept":
        return {"text": str(value)}
    if kind in {"Annotation", "Narrative"}:
        return {"text": str(value)} if kind == "Annotation" else None
    if kind == "Reference":
        return {"display": str(value)}
    if kind == "boolean":
        return value if isinstance(value, bool) else None
    if kind in structures():
        return None
    if kind in {"string", "markdown", "code"} and not isinstance(value, bool):
        return str(value)
    return value


# ---- by template


def _by_template(response: Response) -> Iterator[dict[str, Any]]:
    contained = {f"#{one.get('id')}": one for one in response.form.tree.get("contained") or ()}
    for template in _templates(response.form.tree, contained):
        yield from _filled(response, template, response.tree)
    for item, node in _answered(response):
        for template in _templates(item.tree, contained):
            yield from _filled(response, template, node)


def _answered(response: Response) -> Iterator[tuple[Item, Mapping[str, Any]]]:
    for item, place in response.asked():
        for _, node in place.of(item):
            yield item, node


def _templates(
    tree: Mapping[str, Any], contained: Mapping[str, Mapping[str, Any]]
) -> Iterator[Mapping[str, Any]]:
    for one in tree.get("extension") or ():
        if one.get("url") == _TEMPLATE:
            for part in one.get("extension") or ():
                name = str((part.get("valueReference") or {}).get("reference"))
                if part.get("url") == "template" and name in contained:
                    yield contained[name]


def _filled(
    response: Response, template: Mapping[str, Any], node: Mapping[str, Any]
) -> Iterator[dict[str, Any]]:
    for found in _fill(response, plain(template), node):
        if isinstance(found, dict) and len(found) > 1:
            yield found


def _fill(response: Response, template: Mapping[str, Any], node: Any) -> list[Any]:
    """Return what a template becomes: nothing, itself, or one for each node of its context."""
    rest, context, value = _own(template)
    nodes = [node] if context is None else response.value_of(context, node)
    if value is not None:
        return [found for one in nodes for found in response.value_of(value, one)]
    filled = []
    for one in nodes:
        tree: dict[str, Any] = {}
        for name, child in rest.items():
            if name.startswith("_") and isinstance(child, Mapping):
                _, within, primitive = _own(child)
                if primitive is not None:
                    places = [one] if within is None else response.value_of(within, one)
                    values = [v for place in places for v in response.value_of(primitive, place)]
                    if values:
                        tree[name[1:]] = values[0]
                    continue
            if isinstance(child, Mapping):
                found = _fill(response, child, one)
                if found and found[0] not in ({}, None):
                    tree[name] = found[0]
            elif isinstance(child, list):
                listed = [
                    found
                    for part in child
                    for found in (
                        _fill(response, part, one) if isinstance(part, Mapping) else [part]
                    )
                    if found not in ({}, None)
                ]
                if listed:
                    tree[name] = listed
            elif name not in tree:
                tree[name] = child
        # What holds nothing but fixed codes says something only where its context is there.
        filled.append(tree)
    return filled


def _own(
    template: Mapping[str, Any],
) -> tuple[dict[str, Any], str | None, str | None]:
    """Return a template without its instructions, the context's expression, and the value's."""
    context = value = None
    kept = []
    for one in template.get("extension") or ():
        text = one.get("valueString") or (one.get("valueExpression") or {}).get("expression")
        if one.get("url") == _TEMPLATE_CONTEXT:
            context = text
        elif one.get("url") == _TEMPLATE_VALUE:
            value = text
        else:
            kept.append(one)
    rest = {name: child for name, child in template.items() if name != "extension"}
    if kept:
        rest["extension"] = kept
    return rest, context, value
