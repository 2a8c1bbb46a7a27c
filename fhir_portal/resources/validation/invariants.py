"""FHIR R4's invariants, by the type or backbone element they belong to.

Each rule has the key that the definition gives it. They are asked only about well-formed elements,
so they need not doubt the JSON types they meet. Left out: rules that need other resources, rules
that only warn, and those about the inside of StructureDefinition and TestScript.
Source: ElementDefinition.constraint in hl7.fhir.r4.core 4.0.1.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from fhir_portal.fhir.datetime import period_of
from fhir_portal.fhir.definitions import Element, structures
from fhir_portal.fhir.json import decimal

Node = dict[str, Any]
_Elements = Mapping[str, Element]
_Test = Callable[[Node], bool]

_ALL_PERCENT = 100
_UCUM = "http://unitsofmeasure.org"
_TERMINOLOGY = "http://terminology.hl7.org/CodeSystem/"


class Invariant(NamedTuple):
    """One rule: its key in the definition, what it asks for, and whether an element keeps it."""

    key: str
    words: str
    holds: _Test


_Rule = Callable[[_Elements], Invariant]


@functools.cache
def invariants_of(structure: str) -> tuple[Invariant, ...]:
    """The rules for a resource type, data type or backbone path such as ``Patient.contact``."""
    elements = structures()[structure]
    return tuple(rule(elements) for rule in _RULES.get(structure, ()))


def invariant_keys() -> Iterator[tuple[str, str]]:
    """Every (structure, key) there is a rule for."""
    for structure in _RULES:
        for invariant in invariants_of(structure):
            yield structure, invariant.key


# ---- ways to say a rule. `value[x]` stands for all types of a choice; an element that has only
# ---- extensions (`_value`) is there, as FHIRPath's exists() says.


def _names(elements: _Elements, names: Iterable[str]) -> frozenset[str]:
    found = set()
    for name in names:
        if name.endswith("[x]"):
            found |= {json for json, element in elements.items() if element.choice == name[:-3]}
        else:
            found.add(name)
    return frozenset(found | {f"_{name}" for name in found})


def _listed(names: tuple[str, ...], word: str) -> str:
    return f"{', '.join(names[:-1])} {word} {names[-1]}" if len(names) > 1 else names[0]


def _rule(key: str, words: str, holds: _Test) -> _Rule:
    return lambda _: Invariant(key, words, holds)


def _needs(key: str, name: str, *others: str) -> _Rule:
    """When ``name`` is there, one of the others must be."""

    def build(elements: _Elements) -> Invariant:
        asking, answering = _names(elements, [name]), _names(elements, others)
        return Invariant(
            key,
            f"{name} needs {_listed(others, 'or')}.",
            lambda node: node.keys().isdisjoint(asking) or not node.keys().isdisjoint(answering),
        )

    return build


def _any_of(key: str, *names: str) -> _Rule:
    def build(elements: _Elements) -> Invariant:
        wanted = _names(elements, names)
        words = f"{_listed(names, 'or')} must be present."
        return Invariant(key, words, lambda node: not node.keys().isdisjoint(wanted))

    return build


def _not_both(key: str, one: str, other: str) -> _Rule:
    def build(elements: _Elements) -> Invariant:
        first, second = _names(elements, [one]), _names(elements, [other])
        return Invariant(
            key,
            f"{one} and {other} may not both be present.",
            lambda node: node.keys().isdisjoint(first) or node.keys().isdisjoint(second),
        )

    return build


def _one_of(key: str, *names: str) -> _Rule:
    def build(elements: _Elements) -> Invariant:
        groups = [_names(elements, [name]) for name in names]
        return Invariant(
            key,
            f"Exactly one of {_listed(names, 'and')} must be present.",
            lambda node: sum(not node.keys().isdisjoint(group) for group in groups) == 1,
        )

    return build


def _together(key: str, one: str, other: str) -> _Rule:
    def build(elements: _Elements) -> Invariant:
        first, second = _names(elements, [one]), _names(elements, [other])
        return Invariant(
            key,
            f"{one} and {other} must both be present, or neither.",
            lambda node: node.keys().isdisjoint(first) == node.keys().isdisjoint(second),
        )

    return build


def _only_if(key: str, name: str, element: str, *values: object) -> _Rule:
    """``name`` may be there only when ``element`` has one of the values."""

    def build(elements: _Elements) -> Invariant:
        asking = _names(elements, [name])
        allowed = _listed(tuple(str(value).lower() for value in values), "or")
        return Invariant(
            key,
            f"{name} may be present only when {element} is {allowed}.",
            lambda node: node.keys().isdisjoint(asking) or node.get(element) in values,
        )

    return build


def _never_if(key: str, name: str, element: str, *values: object) -> _Rule:
    """``name`` may not be there when ``element`` has one of the values."""

    def build(elements: _Elements) -> Invariant:
        asking = _names(elements, [name])
        refused = _listed(tuple(str(value).lower() for value in values), "or")
        return Invariant(
            key,
            f"{name} may not be present when {element} is {refused}.",
            lambda node: node.keys().isdisjoint(asking) or node.get(element) not in values,
        )

    return build


def _not_after(key: str, earlier: str, later: str) -> _Rule:
    """Fails only when it is certain: partial dates that overlap are in order."""

    def holds(node: Node) -> bool:
        start, end = node.get(earlier), node.get(later)
        return not start or not end or period_of(start)[0] <= period_of(end)[1]

    return _rule(key, f"{earlier} may not be after {later}.", holds)


def _distinct(values: Iterable[object]) -> bool:
    listed = list(values)
    return len(set(listed)) == len(listed)


def _values(nodes: Iterable[Node], name: str) -> Iterator[object]:
    return (node[name] for node in nodes if name in node)


def _has_code(concept: Node | None, system: str, codes: Iterable[str]) -> bool:
    codings = concept.get("coding", ()) if concept else ()
    return any(coding.get("system") == system and coding.get("code") in codes for coding in codings)


# ---- rules that need words of their own


def _is_entered_in_error(node: Node, system: str) -> bool:
    return _has_code(
        node.get("verificationStatus"), f"{_TERMINOLOGY}{system}", {"entered-in-error"}
    )


def _ucum_if_system(node: Node) -> bool:
    return bool(node.get("system", _UCUM) == _UCUM)


def _coded_quantity(node: Node) -> bool:
    return ("value" not in node or "code" in node) and _ucum_if_system(node)


def _age(node: Node) -> bool:
    return _coded_quantity(node) and ("value" not in node or decimal(node["value"]) > 0)


def _count(node: Node) -> bool:
    value = node.get("value", 0)
    whole = isinstance(value, int) or decimal(value) == decimal(value).to_integral_value()
    return _coded_quantity(node) and node.get("code", "1") == "1" and whole


def _duration(node: Node) -> bool:
    return "code" not in node or ("value" in node and _ucum_if_system(node))


def _range(node: Node) -> bool:
    low, high = node.get("low", {}), node.get("high", {})
    if "value" not in low or "value" not in high:
        return True
    same_unit = all(low.get(part) == high.get(part) for part in ("system", "code", "unit"))
    return not same_unit or decimal(low["value"]) <= decimal(high["value"])


def _ratio(node: Node) -> bool:
    if ("numerator" in node) != ("denominator" in node):
        return False
    return "numerator" in node or "extension" in node


def _not_negative(name: str) -> _Test:
    return lambda node: name not in node or decimal(node[name]) >= 0


def _offset(node: Node) -> bool:
    if "offset" not in node:
        return True
    return "when" in node and {"C", "CM", "CD", "CV"}.isdisjoint(node["when"])


def _condition_abated(node: Node) -> bool:
    if not any(name.removeprefix("_").startswith("abatement") for name in node):
        return True
    ended = {"resolved", "remission", "inactive"}
    return _has_code(node.get("clinicalStatus"), f"{_TERMINOLOGY}condition-clinical", ended)


def _appointment_times(node: Node) -> bool:
    timed = "start" in node and "end" in node
    return timed or node.get("status") in {"proposed", "cancelled", "waitlist"}


def _component_codes(node: Node) -> bool:
    if not any(name.removeprefix("_").startswith("value") for name in node):
        return True
    own: list[Node] = node["code"].get("coding", [])
    return not any(
        coding in own
        for component in node.get("component", ())
        for coding in component["code"].get("coding", ())
    )


def _entries(bundle: Node) -> list[Node]:
    found: list[Node] = bundle.get("entry", [])
    return found


def _entries_have(name: str, *types: str) -> _Test:
    return lambda bundle: all(
        (name in entry) == (bundle.get("type") in types) for entry in _entries(bundle)
    )


def _first_is(bundle_type: str, resource_type: str) -> _Test:
    def holds(bundle: Node) -> bool:
        if bundle.get("type") != bundle_type:
            return True
        entries = _entries(bundle)
        first = entries[0].get("resource", {}) if entries else {}
        return bool(first.get("resourceType") == resource_type)

    return holds


def _distinct_urls(bundle: Node) -> bool:
    return bundle.get("type") == "history" or _distinct(
        (entry["fullUrl"], entry.get("resource", {}).get("meta", {}).get("versionId"))
        for entry in _entries(bundle)
        if "fullUrl" in entry
    )


def _document_identified(bundle: Node) -> bool:
    if bundle.get("type") != "document":
        return True
    identifier: Node = bundle.get("identifier", {})
    return {"system", "value"} <= identifier.keys()


def _below(node: Node, name: str) -> Iterator[Node]:
    """All descendants under a repeating element: ``item.item``, ``concept.concept``."""
    for child in node.get(name, ()):
        yield child
        yield from _below(child, name)


def _not_home(name: str) -> _Test:
    return lambda node: all(one.get("use") != "home" for one in node.get(name, ()))


def _group_items(node: Node) -> bool:
    kind = node.get("type")
    return "item" in node if kind == "group" else kind != "display" or "item" not in node


def _only_percent(node: Node) -> bool:
    bounds = node.get("probabilityRange", {})
    return all(
        bounds[end].get("code") == "%" and bounds[end].get("system") == _UCUM
        for end in ("low", "high")
        if end in bounds
    )


def _at_most_100(node: Node) -> bool:
    return "probabilityDecimal" not in node or decimal(node["probabilityDecimal"]) <= _ALL_PERCENT


def _named_trigger(node: Node) -> bool:
    kind = node.get("type", "")
    if kind == "named-event":
        return "name" in node
    if kind == "periodic":
        return any(name.startswith("timing") for name in node)
    return not kind.startswith("data-") or "data" in node


def _groupings(node: Node) -> bool:
    known = {one["id"] for one in node.get("grouping", ()) if "id" in one}
    return all(
        one["groupingId"] in known for one in node.get("resource", ()) if "groupingId" in one
    )


def _measure_groups(node: Node) -> bool:
    return all(
        any(name in one for name in ("code", "description", "criteria")) != ("component" in one)
        for group in node.get("group", ())
        for one in group.get("stratifier", ())
    )


def _report_strata(node: Node) -> bool:
    return all(
        ("value" in stratum) != ("component" in stratum)
        for group in node.get("group", ())
        for stratifier in group.get("stratifier", ())
        for stratum in stratifier.get("stratum", ())
    )


def _positive_or_any(node: Node) -> bool:
    most = node.get("max", "*")
    return bool(most == "*" or (most.isdecimal() and int(most) > 0))


def _quantity_rules(*rules: _Rule) -> tuple[_Rule, ...]:
    return (_needs("qty-3", "code", "system"), *rules)


_SIMPLE_QUESTIONS = (
    "boolean", "decimal", "integer", "string", "text", "url", "open-choice"
)  # fmt: skip
_OPTION_QUESTIONS = (
    "choice", "open-choice", "decimal", "integer", "date", "dateTime", "time", "string", "quantity"
)  # fmt: skip

_RULES: Mapping[str, tuple[_Rule, ...]] = {
    # data types
    "Age": _quantity_rules(
        _rule("age-1", "An age needs a UCUM code of time and a value above 0.", _age)
    ),
    "Attachment": (_needs("att-1", "data", "contentType"),),
    "ContactPoint": (_needs("cpt-2", "value", "system"),),
    "Count": _quantity_rules(
        _rule("cnt-3", "A count needs the UCUM code 1 and a whole value.", _count)
    ),
    "DataRequirement.codeFilter": (_one_of("drq-1", "path", "searchParam"),),
    "DataRequirement.dateFilter": (_one_of("drq-2", "path", "searchParam"),),
    "Distance": _quantity_rules(
        _rule("dis-1", "A distance needs a UCUM code of length.", _coded_quantity)
    ),
    "Duration": _quantity_rules(
        _rule("drt-1", "A duration with a code needs a value, and UCUM as its system.", _duration)
    ),
    "Expression": (_any_of("exp-1", "expression", "reference"),),
    "Extension": (_one_of("ext-1", "extension", "value[x]"),),
    "Period": (_not_after("per-1", "start", "end"),),
    "Quantity": _quantity_rules(),
    "Range": (_rule("rng-2", "low may not be above high.", _range),),
    "Ratio": (_rule("rat-1", "numerator and denominator go together; without, say why.", _ratio),),
    "Timing.repeat": (
        _needs("tim-1", "duration", "durationUnit"),
        _needs("tim-2", "period", "periodUnit"),
        _rule("tim-4", "duration may not be negative.", _not_negative("duration")),
        _rule("tim-5", "period may not be negative.", _not_negative("period")),
        _needs("tim-6", "periodMax", "period"),
        _needs("tim-7", "durationMax", "duration"),
        _needs("tim-8", "countMax", "count"),
        _rule("tim-9", "offset needs a when that is not a meal itself.", _offset),
        _not_both("tim-10", "timeOfDay", "when"),
    ),
    "TriggerDefinition": (
        _not_both("trd-1", "data", "timing[x]"),
        _needs("trd-2", "condition", "data"),
        _rule("trd-3", "The trigger lacks what its type needs.", _named_trigger),
    ),
    # clinical
    "AllergyIntolerance": (
        _rule(
            "ait-1",
            "clinicalStatus must be present unless the record was entered in error.",
            lambda node: (
                "clinicalStatus" in node
                or _is_entered_in_error(node, "allergyintolerance-verification")
            ),
        ),
        _rule(
            "ait-2",
            "clinicalStatus may not be present when the record was entered in error.",
            lambda node: (
                "clinicalStatus" not in node
                or not _is_entered_in_error(node, "allergyintolerance-verification")
            ),
        ),
    ),
    "CarePlan.activity": (_not_both("cpl-3", "detail", "reference"),),
    "Condition": (
        _rule(
            "con-4",
            "A condition with an abatement is inactive, resolved or in remission.",
            _condition_abated,
        ),
        _rule(
            "con-5",
            "clinicalStatus may not be present when the record was entered in error.",
            lambda node: (
                "clinicalStatus" not in node
                or not _is_entered_in_error(node, "condition-ver-status")
            ),
        ),
    ),
    "Condition.evidence": (_any_of("con-2", "code", "detail"),),
    "Condition.stage": (_any_of("con-1", "summary", "assessment"),),
    "FamilyMemberHistory": (
        _not_both("fhs-1", "age[x]", "born[x]"),
        _needs("fhs-2", "estimatedAge", "age[x]"),
    ),
    "Goal.target": (_needs("gol-1", "detail[x]", "measure"),),
    "Immunization.education": (_any_of("imm-1", "documentType", "reference"),),
    "ImmunizationRecommendation.recommendation": (
        _any_of("imr-1", "vaccineCode", "targetDisease"),
    ),
    "List": (
        _not_both("lst-1", "emptyReason", "entry"),
        _rule(
            "lst-2",
            "An entry may be deleted only when mode is changes.",
            lambda node: (
                node.get("mode") == "changes"
                or not any("deleted" in entry for entry in node.get("entry", ()))
            ),
        ),
        _rule(
            "lst-3",
            "An entry may have a date only when mode is working.",
            lambda node: (
                node.get("mode") == "working"
                or not any("date" in entry for entry in node.get("entry", ()))
            ),
        ),
    ),
    "MedicationAdministration.dosage": (_any_of("mad-1", "dose", "rate[x]"),),
    "MedicationDispense": (_not_after("mdd-1", "whenPrepared", "whenHandedOver"),),
    "MolecularSequence": (
        _rule(
            "msq-3",
            "coordinateSystem must be 0 or 1.",
            lambda node: node.get("coordinateSystem") in (0, 1),
        ),
    ),
    "MolecularSequence.referenceSeq": (
        _together("msq-5", "chromosome", "genomeBuild"),
        _one_of(
            "msq-6", "genomeBuild", "referenceSeqId", "referenceSeqPointer", "referenceSeqString"
        ),
    ),
    "Observation": (
        _not_both("obs-6", "dataAbsentReason", "value[x]"),
        _rule(
            "obs-7",
            "A component may not have the observation's own code beside its value.",
            _component_codes,
        ),
    ),
    "Observation.referenceRange": (_any_of("obs-3", "low", "high", "text"),),
    "RiskAssessment.prediction": (
        _rule("ras-1", "The bounds of a probability must be in percent.", _only_percent),
        _rule("ras-2", "A probability may not be above 100.", _at_most_100),
    ),
    "ServiceRequest": (_needs("prr-1", "orderDetail", "code"),),
    # people, visits, permissions
    "Appointment": (
        _together("app-2", "start", "end"),
        _rule(
            "app-3",
            "start and end may be missing only when proposed, cancelled or waitlisted.",
            _appointment_times,
        ),
        _only_if("app-4", "cancelationReason", "status", "noshow", "cancelled"),
    ),
    "Appointment.participant": (_any_of("app-1", "type", "actor"),),
    "AppointmentResponse": (_any_of("apr-1", "participantType", "actor"),),
    "AuditEvent.entity": (_not_both("sev-1", "name", "query"),),
    "Consent": (_any_of("ppc-1", "policy", "policyRule"),),
    "CoverageEligibilityResponse.insurance.item": (
        _one_of("ces-1", "category", "productOrService"),
    ),
    "Group": (
        _rule(
            "grp-1",
            "Only an actual group may have members.",
            lambda node: "member" not in node or node.get("actual") is True,
        ),
    ),
    "InsurancePlan": (_any_of("ipn-1", "identifier", "name"),),
    "Linkage": (_rule("lnk-1", "item must repeat.", lambda node: len(node.get("item", ())) > 1),),
    "Organization": (
        _any_of("org-1", "identifier", "name"),
        _rule("org-2", "No address may have the use home.", _not_home("address")),
        _rule("org-3", "No telecom may have the use home.", _not_home("telecom")),
    ),
    "Patient.contact": (_any_of("pat-1", "name", "telecom", "address", "organization"),),
    "RequestGroup.action": (_one_of("rqg-1", "resource", "action"),),
    "Task": (_not_after("inv-1", "authoredOn", "lastModified"),),
    # forms
    "Questionnaire": (
        _rule(
            "que-2",
            "Each linkId may be used once.",
            lambda node: _distinct(_values(_below(node, "item"), "linkId")),
        ),
    ),
    "Questionnaire.item": (
        _rule("que-1", "A group must have items, a display may not.", _group_items),
        _never_if("que-3", "code", "type", "display"),
        _not_both("que-4", "answerOption", "answerValueSet"),
        _only_if("que-5", "answerOption", "type", *_OPTION_QUESTIONS),
        _only_if("que-5", "answerValueSet", "type", *_OPTION_QUESTIONS),
        _never_if("que-6", "required", "type", "display"),
        _never_if("que-6", "repeats", "type", "display"),
        _never_if("que-8", "initial", "type", "group", "display"),
        _never_if("que-9", "readOnly", "type", "display"),
        _only_if("que-10", "maxLength", "type", *_SIMPLE_QUESTIONS),
        _not_both("que-11", "answerOption", "initial"),
        _rule(
            "que-12",
            "enableBehavior must say how several enableWhen go together.",
            # the definition's expression says more than two, its words more than one
            lambda node: len(node.get("enableWhen", ())) <= 2 or "enableBehavior" in node,  # noqa: PLR2004
        ),
        _rule(
            "que-13",
            "Only an item that repeats may have several initial values.",
            lambda node: node.get("repeats") is True or len(node.get("initial", ())) <= 1,
        ),
    ),
    "Questionnaire.item.enableWhen": (
        _rule(
            "que-7",
            "The operator exists asks for a boolean answer.",
            lambda node: node.get("operator") != "exists" or "answerBoolean" in node,
        ),
    ),
    "QuestionnaireResponse.item": (_not_both("qrs-1", "answer", "item"),),
    # exchange
    "Bundle": (
        _only_if("bdl-1", "total", "type", "searchset", "history"),
        _rule(
            "bdl-2",
            "entry.search may be present only in a searchset.",
            lambda node: (
                node.get("type") == "searchset"
                or not any("search" in one for one in _entries(node))
            ),
        ),
        _rule(
            "bdl-3",
            "entry.request must be present in a batch, transaction or history, and only there.",
            _entries_have("request", "batch", "transaction", "history"),
        ),
        _rule(
            "bdl-4",
            "entry.response must be present in a batch or transaction response or a history, and"
            " only there.",
            _entries_have("response", "batch-response", "transaction-response", "history"),
        ),
        _rule("bdl-7", "Each fullUrl may be used once for each version.", _distinct_urls),
        _rule("bdl-9", "A document needs an identifier.", _document_identified),
        _rule(
            "bdl-10",
            "A document needs a timestamp.",
            lambda node: node.get("type") != "document" or "timestamp" in node,
        ),
        _rule(
            "bdl-11",
            "A document starts with its Composition.",
            _first_is("document", "Composition"),
        ),
        _rule(
            "bdl-12",
            "A message starts with its MessageHeader.",
            _first_is("message", "MessageHeader"),
        ),
    ),
    "Bundle.entry": (
        _any_of("bdl-5", "resource", "request", "response"),
        _rule(
            "bdl-8",
            "fullUrl may not name a version.",
            lambda node: "/_history/" not in node.get("fullUrl", ""),
        ),
    ),
    "Composition.section": (
        _any_of("cmp-1", "text", "entry", "section"),
        _not_both("cmp-2", "emptyReason", "entry"),
    ),
    "Parameters.parameter": (_one_of("inv-1", "value[x]", "resource", "part"),),
    # definitions
    "CapabilityStatement": (
        _any_of("cpb-1", "rest", "messaging", "document"),
        _any_of("cpb-2", "description", "software", "implementation"),
        _rule(
            "cpb-7",
            "Each profile and mode of document may be named once.",
            lambda node: _distinct(
                (one.get("profile"), one.get("mode")) for one in node.get("document", ())
            ),
        ),
        _rule(
            "cpb-14",
            "An instance needs an implementation.",
            lambda node: node.get("kind") != "instance" or "implementation" in node,
        ),
        _rule(
            "cpb-15",
            "A capability needs software and may have no implementation.",
            lambda node: (
                node.get("kind") != "capability"
                or ("software" in node and "implementation" not in node)
            ),
        ),
        _never_if("cpb-16", "implementation", "kind", "requirements"),
        _never_if("cpb-16", "software", "kind", "requirements"),
    ),
    "CapabilityStatement.rest": (
        _rule(
            "cpb-9",
            "Each resource type may be described once.",
            lambda node: _distinct(_values(node.get("resource", ()), "type")),
        ),
    ),
    "CapabilityStatement.rest.resource": (
        _rule(
            "cpb-12",
            "Each search parameter may be named once.",
            lambda node: _distinct(_values(node.get("searchParam", ()), "name")),
        ),
    ),
    "CodeSystem": (
        _rule(
            "csd-1",
            "Each code may be defined once.",
            lambda node: _distinct(_values(_below(node, "concept"), "code")),
        ),
    ),
    "ConceptMap.group.element.target": (
        _rule(
            "cmd-1",
            "A narrower or inexact target needs a comment.",
            lambda node: (
                "comment" in node or node.get("equivalence") not in {"narrower", "inexact"}
            ),
        ),
    ),
    "ConceptMap.group.unmapped": (
        _rule(
            "cmd-2",
            "The mode fixed needs a code.",
            lambda node: node.get("mode") != "fixed" or "code" in node,
        ),
        _rule(
            "cmd-3",
            "The mode other-map needs a url.",
            lambda node: node.get("mode") != "other-map" or "url" in node,
        ),
    ),
    "ImplementationGuide.definition": (
        _rule("ig-1", "A groupingId must name one of the groupings.", _groupings),
    ),
    "Measure": (
        _rule("mea-1", "A stratifier has criteria or components, not both.", _measure_groups),
    ),
    "MeasureReport": (
        _never_if("mrp-1", "group", "type", "data-collection"),
        _rule("mrp-2", "A stratum has a value or components, not both.", _report_strata),
    ),
    "MessageDefinition.focus": (
        _rule("md-1", "max must be a number above 0, or *.", _positive_or_any),
    ),
    "NamingSystem": (
        _rule(
            "nsd-1",
            "The root of a naming system may have no uuid.",
            lambda node: (
                node.get("kind") != "root" or "uuid" not in _values(node["uniqueId"], "type")
            ),
        ),
        _rule(
            "nsd-2",
            "Each type may have one preferred identifier.",
            lambda node: _distinct(
                one.get("type") for one in node["uniqueId"] if one.get("preferred") is True
            ),
        ),
    ),
    "OperationDefinition.parameter": (
        _any_of("opd-1", "type", "part"),
        _only_if("opd-2", "searchType", "type", "string"),
        _only_if("opd-3", "targetProfile", "type", "Reference", "canonical"),
    ),
    "SearchParameter": (
        _needs("spd-1", "xpath", "xpathUsage"),
        _only_if("spd-2", "chain", "type", "reference"),
    ),
    "StructureMap.group.rule.target": (
        _needs("smp-1", "element", "context"),
        _needs("smp-2", "context", "contextType"),
    ),
    "TerminologyCapabilities": (
        _any_of("tcp-2", "description", "software", "implementation"),
        _rule(
            "tcp-3",
            "An instance needs an implementation.",
            lambda node: node.get("kind") != "instance" or "implementation" in node,
        ),
        _rule(
            "tcp-4",
            "A capability needs software and may have no implementation.",
            lambda node: (
                node.get("kind") != "capability"
                or ("software" in node and "implementation" not in node)
            ),
        ),
        _never_if("tcp-5", "implementation", "kind", "requirements"),
        _never_if("tcp-5", "software", "kind", "requirements"),
    ),
    "TestReport.setup.action": (_one_of("inv-1", "operation", "assert"),),
    "TestReport.test.action": (_one_of("inv-2", "operation", "assert"),),
    "ValueSet.compose.include": (
        _any_of("vsd-1", "valueSet", "system"),
        _needs("vsd-2", "concept", "system"),
        _needs("vsd-2", "filter", "system"),
        _not_both("vsd-3", "concept", "filter"),
    ),
    "ValueSet.expansion.contains": (
        _any_of("vsd-6", "code", "display"),
        _rule(
            "vsd-9",
            "Without a code it must be abstract.",
            lambda node: "code" in node or node.get("abstract") is True,
        ),
        _needs("vsd-10", "code", "system"),
    ),
}
