"""The forms of personal details and insurance: what is on file as fields, and fields as elements.

What a form has no field for stays as it is: a name of another use, a telephone that is old.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from typing import Any, Final

from fhir_portal.resources.proposal import IN_EXTENSIONS, value_of, with_value
from fhir_portal.web.pages.proposal_words import LANGUAGES, words_of

LONGEST: Final = 200
CONTACTS: Final[Mapping[str, tuple[str, str, str]]] = {
    "mobile": ("phone", "mobile", "Mobile telephone"),
    "home": ("phone", "home", "Telephone at home"),
    "work": ("phone", "work", "Telephone at work"),
    "mail": ("email", "", "Mail address"),
}
"""By field: system and use of a ContactPoint, and the label."""
MARITAL: Final[Mapping[str, str]] = {
    "S": "Never married",
    "M": "Married",
    "T": "Domestic partner",
    "L": "Legally separated",
    "D": "Divorced",
    "W": "Widowed",
}
_MARITAL_SYSTEM: Final = "http://terminology.hl7.org/CodeSystem/v3-MaritalStatus"
PRONOUNS: Final = ("she/her", "he/him", "they/them")
_LANGUAGE_SYSTEM: Final = "urn:ietf:bcp:47"
_CLASS: Final = "http://terminology.hl7.org/CodeSystem/coverage-class"
_RELATION: Final = "http://terminology.hl7.org/CodeSystem/subscriber-relationship"
RELATIONS: Final[Mapping[str, str]] = {
    "self": "The patient",
    "spouse": "Their husband or wife",
    "parent": "Their parent",
    "child": "Their child",
    "other": "Somebody else",
}
"""Who holds an insurance, as a form says it, by code of the patient's relation to them."""
_NOT_THESE: Final = frozenset({"old", "temp"})


class WrongField(Exception):
    """A field does not hold what it should: its name, and words for whoever typed it."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field


def details_in(patient: Mapping[str, Any]) -> dict[str, str]:
    """Return the fields of the form about personal details, as they are on file."""
    name = _name(patient)
    address = _first(patient.get("address") or (), lambda one: one.get("use") not in _NOT_THESE)
    lines = address.get("line") or []
    person = _first(patient.get("contact") or (), lambda _: True)
    found = {
        "given": " ".join(name.get("given") or ()),
        "family": str(name.get("family", "")),
        "pronouns": words_of(value_of(patient, "pronouns")),
        "line1": str(lines[0]) if lines else "",
        "line2": ", ".join(map(str, lines[1:])),
        "city": str(address.get("city", "")),
        "state": str(address.get("state", "")),
        "postal": str(address.get("postalCode", "")),
        "country": str(address.get("country", "")),
        "language": _language(patient),
        "marital": _code(patient.get("maritalStatus") or {}),
        "call-name": words_of(person.get("name")),
        "call-relation": words_of(person.get("relationship")),
        "call-phone": str(_phone(person).get("value", "")),
    }
    for field in CONTACTS:
        found[field] = str(_contact(patient, field).get("value", ""))
    return found


def details_of(patient: Mapping[str, Any], form: Mapping[str, str]) -> dict[str, Any]:
    """Return a Patient with the elements that the form changes, each whole; and no others."""
    before = details_in(patient)
    typed = {field: _typed(form, field) for field in before}
    changed = {field for field in before if typed[field] != before[field]}
    tree: dict[str, Any] = {"resourceType": "Patient"}
    if changed & {"given", "family"}:
        if not typed["family"] and not typed["given"]:
            raise WrongField("family", "Give a name.")
        old = _name(patient)
        new = {n: v for n, v in old.items() if n not in {"given", "family", "text"}}
        new |= {"given": typed["given"].split()} if typed["given"] else {}
        new |= {"family": typed["family"]} if typed["family"] else {}
        tree["name"] = _replaced(patient.get("name") or [], old, new)
    points = [field for field in CONTACTS if field in changed]
    if points:
        listed = list(patient.get("telecom") or [])
        for field in points:
            old, value = _contact(patient, field), typed[field]
            system, use, label = CONTACTS[field]
            if value and system == "email" and "@" not in value:
                raise WrongField(field, f"{label}: this is not a mail address.")
            if value and system == "phone" and not any(sign.isdigit() for sign in value):
                raise WrongField(field, f"{label}: this is not a telephone number.")
            new = {**(old or _point(system, use)), "value": value} if value else {}
            listed = _replaced(listed, old, new)
        tree["telecom"] = listed
    if changed & {"line1", "line2", "city", "state", "postal", "country"}:
        old = _first(patient.get("address") or (), lambda one: one.get("use") not in _NOT_THESE)
        new = {n: v for n, v in old.items() if n in {"use", "type", "district", "period"}}
        lines = [one for one in (typed["line1"], typed["line2"]) if one]
        new |= {"line": lines} if lines else {}
        for field, member in (
            ("city", "city"),
            ("state", "state"),
            ("postal", "postalCode"),
            ("country", "country"),
        ):
            new |= {member: typed[field]} if typed[field] else {}
        is_something = bool(set(new) & {"line", "city", "state", "postalCode", "country"})
        new = {"use": "home", **new} if is_something else {}
        tree["address"] = _replaced(patient.get("address") or [], old, new)
    if "language" in changed:
        tree["communication"] = _languages(patient, typed["language"])
    if "marital" in changed:
        code = typed["marital"]
        if code not in MARITAL:
            raise WrongField("marital", "Choose one of the list.")
        coding = {"system": _MARITAL_SYSTEM, "code": code, "display": MARITAL[code]}
        tree["maritalStatus"] = {"coding": [coding], "text": MARITAL[code]}
    if "pronouns" in changed:
        (url,) = IN_EXTENSIONS["pronouns"]
        inner = {"url": "value", "valueCodeableConcept": {"text": typed["pronouns"]}}
        said = [{"url": url, "extension": [inner]}] if typed["pronouns"] else None
        with_value(tree, "pronouns", said)
    if changed & {"call-name", "call-relation", "call-phone"}:
        tree["contact"] = _people(patient, typed)
    return {name: value for name, value in tree.items() if value != []}


def emptied(patient: Mapping[str, Any], form: Mapping[str, str]) -> list[str]:
    """Return the fields that the form leaves empty and that are on file."""
    whole = details_of(patient, form)
    before, found = details_in(patient), list[str]()
    for field, names in (
        ("pronouns", ("pronouns",)),
        ("telecom", tuple(CONTACTS)),
        ("address", ("line1", "line2", "city", "state", "postal", "country")),
        ("contact", ("call-name", "call-relation", "call-phone")),
    ):
        is_other = any(_typed(form, name) != before[name] for name in names)
        if is_other and value_of(whole, field) is None and value_of(patient, field) is not None:
            found.append(field)
    return found


def insurance_in(coverage: Mapping[str, Any]) -> dict[str, str]:
    """Return the fields of the form about an insurance, as they are on file."""
    period = coverage.get("period") or {}
    classes = {_code(one.get("type") or {}): one for one in coverage.get("class") or ()}
    return {
        "payor": words_of(coverage.get("payor")),
        "member": str(coverage.get("subscriberId", "")),
        "group": str((classes.get("group") or {}).get("value", "")),
        "plan": str((classes.get("plan") or {}).get("name", ""))
        or str((classes.get("plan") or {}).get("value", "")),
        "holder": _code(coverage.get("relationship") or {}),
        "holder-name": str((coverage.get("subscriber") or {}).get("display", "")),
        "start": str(period.get("start", ""))[:10],
        "order": str(coverage.get("order", "")),
    }


def insurance_of(
    coverage: Mapping[str, Any], form: Mapping[str, str], patient: str
) -> dict[str, Any]:
    """Return a Coverage with the elements that the form changes; ``patient`` is ``Patient/<id>``.

    ``coverage`` is the one on file; empty for a new one.
    """
    before = insurance_in(coverage)
    typed = {field: _typed(form, field) for field in before}
    changed = {field for field in before if typed[field] != before[field]}
    tree: dict[str, Any] = {"resourceType": "Coverage", "status": coverage.get("status", "active")}
    tree["beneficiary"] = coverage.get("beneficiary") or {"reference": patient}
    tree["payor"] = coverage.get("payor") or []
    if not typed["payor"]:
        raise WrongField("payor", "Say which health plan or company it is with.")
    if "payor" in changed:
        tree["payor"] = [{"display": typed["payor"]}]
    if "member" in changed and typed["member"]:
        tree["subscriberId"] = typed["member"]
    if changed & {"group", "plan"}:
        tree["class"] = [
            *(
                one
                for one in coverage.get("class") or ()
                if _code(one.get("type") or {}) not in {"group", "plan"}
            ),
            *(
                {
                    "type": {"coding": [{"system": _CLASS, "code": code}]},
                    "value": typed[code],
                }
                for code in ("group", "plan")
                if typed[code]
            ),
        ]
    if changed & {"holder", "holder-name"}:
        if typed["holder"] not in RELATIONS:
            raise WrongField("holder", "Say who holds the insurance.")
        tree["relationship"] = {"coding": [{"system": _RELATION, "code": typed["holder"]}]}
        if typed["holder"] == "self":
            tree["subscriber"] = {"reference": patient}
        elif typed["holder-name"]:
            tree["subscriber"] = {"display": typed["holder-name"]}
        else:
            raise WrongField("holder-name", "Give the name of who holds it.")
    if "start" in changed and typed["start"]:
        tree["period"] = {**(coverage.get("period") or {}), "start": day(typed, "start")}
    if "order" in changed and typed["order"]:
        if typed["order"] not in {"1", "2", "3", "4", "5"}:
            raise WrongField("order", "Choose which insurance comes first, second and so on.")
        tree["order"] = int(typed["order"])
    return {name: value for name, value in tree.items() if value != []}


def day(form: Mapping[str, str], field: str) -> str:
    """Return a day that was typed. Raises `WrongField`."""
    text = _typed(form, field)
    try:
        return date.fromisoformat(text).isoformat()
    except ValueError:
        raise WrongField(field, "Give the day as 2027-01-31.") from None


def _typed(form: Mapping[str, str], field: str) -> str:
    text = " ".join(form.get(field, "").split())
    if len(text) > LONGEST or not text.isprintable():
        raise WrongField(field, f"At most {LONGEST} signs, please.")
    return text


def _name(patient: Mapping[str, Any]) -> Mapping[str, Any]:
    names = [one for one in patient.get("name") or () if one.get("use") not in {"old", "maiden"}]
    official = _first(names, lambda one: one.get("use") == "official")
    return official or (names[0] if names else {})


def _contact(patient: Mapping[str, Any], field: str) -> Mapping[str, Any]:
    system, use, _ = CONTACTS[field]

    def fits(one: Mapping[str, Any]) -> bool:
        if one.get("system") != system or one.get("use") == "old":
            return False
        return not use or one.get("use") == use

    return _first(patient.get("telecom") or (), fits)


def _point(system: str, use: str) -> dict[str, Any]:
    return {"system": system, **({"use": use} if use else {})}


def _phone(person: Mapping[str, Any]) -> Mapping[str, Any]:
    return _first(person.get("telecom") or (), lambda one: one.get("system") == "phone")


def _language(patient: Mapping[str, Any]) -> str:
    spoken = patient.get("communication") or ()
    preferred = _first(spoken, lambda one: one.get("preferred") is True)
    return _code((preferred or _first(spoken, lambda _: True)).get("language") or {})


def _languages(patient: Mapping[str, Any], code: str) -> list[Any]:
    if code not in LANGUAGES:
        raise WrongField("language", "Choose one of the list.")
    coding = {"system": _LANGUAGE_SYSTEM, "code": code, "display": LANGUAGES[code]}
    kept = [
        {name: value for name, value in one.items() if name != "preferred"}
        for one in patient.get("communication") or ()
        if _code(one.get("language") or {}) != code
    ]
    return [{"language": {"coding": [coding]}, "preferred": True}, *kept]


def _people(patient: Mapping[str, Any], typed: Mapping[str, str]) -> list[Any]:
    listed = list(patient.get("contact") or [])
    old = listed[0] if listed else {}
    if not typed["call-name"]:
        if typed["call-phone"] or typed["call-relation"]:
            raise WrongField("call-name", "Say who is to be called.")
        return _replaced(listed, old, {})
    before = details_in(patient)
    new = dict(old)
    if typed["call-name"] != before["call-name"]:
        new["name"] = {"text": typed["call-name"]}
    if typed["call-relation"] != before["call-relation"]:
        new.pop("relationship", None)
        if typed["call-relation"]:
            new["relationship"] = [{"text": typed["call-relation"]}]
    if typed["call-phone"] != before["call-phone"]:
        phone = {**(_phone(old) or {"system": "phone"}), "value": typed["call-phone"]}
        points = _replaced(old.get("telecom") or [], _phone(old), phone if phone["value"] else {})
        new["telecom"] = points
        if not points:
            del new["telecom"]
    return _replaced(listed, old, new)


def _replaced(listed: Any, old: Mapping[str, Any], new: Mapping[str, Any]) -> list[Any]:
    """Return a list with one of its things in the place of another; an empty one is none."""
    if not old:
        return [*listed, new] if new else list(listed)
    found = [new if one is old else one for one in listed]
    return [one for one in found if one]


def _first(listed: Any, fits: Any) -> Mapping[str, Any]:
    return next((one for one in listed if fits(one)), {})


def _code(concept: Mapping[str, Any]) -> str:
    return next((str(one.get("code", "")) for one in concept.get("coding") or ()), "")
