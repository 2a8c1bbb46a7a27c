"""What of a record stands on a SMART Health Card: the vaccines that were given, and no more.

Cards are as small as the specification asks of those that become QR codes ("Health Cards are
compact"): no ids, narratives, texts of concepts or displays of codes, and short references. Of
the Patient there are name and birth date. What does not fit one card goes on a further one,
which is signed by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from fhir_portal.documents.chart import ordered
from fhir_portal.documents.wording import Json
from fhir_portal.fhir.datetime import period_of

CVX: Final = "http://hl7.org/fhir/sid/cvx"
SNOMED: Final = "http://snomed.info/sct"
ICD11: Final = "http://id.who.int/icd11/mms"
CLAIMS: Final = ("Patient.name", "Patient.birthDate")
"""What says whose a card is."""
_USES: Final = ("official", "usual", "", "temp", "nickname")
"""Of the names that somebody has, which is rather on a card, by ``HumanName.use``."""
_NOT_NOW: Final = frozenset({"old", "maiden", "anonymous"})
_UNKNOWN: Final = frozenset(
    {
        "http://terminology.hl7.org/CodeSystem/data-absent-reason",
        "http://terminology.hl7.org/CodeSystem/v3-NullFlavor",
    }
)
"""Code systems that say why there is no code."""
_MODIFIERS: Final = frozenset({"modifierExtension", "implicitRules"})
"""What may turn the meaning of all that stands beside it; no card has it."""
_DAY_LENGTH: Final = 10
_COVID: Final = frozenset(
    {"207", "208", "210", "211", "212", "217", "218", "219", "221", "225", "226", "227", "228"}
    | {"229", "230", "300", "301", "302"}
    | {str(code) for code in range(501, 521)}
)
_ORTHOPOX: Final = frozenset({"75", "206"})
_SETS: Final[Mapping[str, tuple[str, frozenset[str] | None]]] = {
    "immunization-all-cvx": (CVX, None),
    "immunization-all-snomed": (SNOMED, None),
    "immunization-all-icd11": (ICD11, None),
    "immunization-covid-all": (CVX, _COVID),
    "immunization-covid-cvx": (CVX, _COVID),
    "immunization-orthopoxvirus-all": (CVX, _ORTHOPOX),
    "immunization-orthopoxvirus-cvx": (CVX, _ORTHOPOX),
}
"""Code system and codes of the value sets that cards are asked for by; ``None`` has them all."""
_PUBLISHED: Final = (
    "https://terminology.smarthealth.cards/ValueSet/",
    "http://hl7.org/fhir/uv/smart-health-cards-and-links/ValueSet/",
)
COVID: Final = f"{_PUBLISHED[0]}immunization-covid-all"

Codings = Sequence[Mapping[str, str]]


class NotIdentified(Exception):
    """Name or birth date, which a card was to have, are not known to who asks for it."""


@dataclass(frozen=True, slots=True)
class Dose:
    """A vaccine that was given, as it stands on a card, and the id of its Immunization."""

    own_id: str
    content: dict[str, Any]

    @property
    def codings(self) -> Codings:
        """The codes of the vaccine."""
        codings: Codings = self.content["vaccineCode"]["coding"]
        return codings


@dataclass(frozen=True, slots=True)
class Card:
    """The Bundle of one card, and the ids of its Immunizations in the order they stand there."""

    bundle: dict[str, Any]
    sources: tuple[str, ...]


def doses_of(immunizations: Iterable[Json], *, since: str | None = None) -> list[Dose]:
    """Return what can stand on a card, the latest first.

    That was given, with a code and a time; with ``since`` (FHIR dateTime) not before that.
    """
    given = [dict(one) for one in immunizations if one.get("status") == "completed"]
    return [
        Dose(str(one["id"]), content)
        for one in ordered(given)
        if (content := _minimal(one)) is not None and (since is None or _is_since(one, since))
    ]


def is_value_set(canonical: str) -> bool:
    """Whether vaccines can be asked for by a value set; a version says nothing here."""
    return _set_of(canonical) is not None


def within(doses: Sequence[Dose], value_sets: Collection[str]) -> list[Dose]:
    """Return the doses of these value sets; none unless each of the sets has one of them."""
    if not value_sets:
        return list(doses)
    found = [[one for one in doses if _is_in(one.codings, name)] for name in value_sets]
    if not all(found):
        return []
    ids = {one.own_id for some in found for one in some}
    return [one for one in doses if one.own_id in ids]


def identity_of(patient: Json, claims: Collection[str], *, now: float) -> dict[str, Any]:
    """Return the Patient of a card. Raises `NotIdentified` if any of the claims is not known."""
    tree: dict[str, Any] = {"resourceType": "Patient"}
    if "Patient.name" in claims:
        name = _name(patient.get("name") or (), now)
        if name is None:
            raise NotIdentified
        tree["name"] = [name]
    if "Patient.birthDate" in claims:
        if not patient.get("birthDate"):
            raise NotIdentified
        tree["birthDate"] = patient["birthDate"]
    return tree


def cards_of(
    doses: Sequence[Dose],
    patient: Mapping[str, Any],
    fits: Callable[[Mapping[str, Any]], bool] | None,
) -> list[Card]:
    """Return the cards: on each as many doses, in their order, as fit; but for a single one.

    Without ``fits`` all of them are on one.
    """
    if fits is None:
        return [_card(doses, patient)]
    found: list[Card] = []
    taken: list[Dose] = []
    for one in doses:
        if taken and not fits(_bundle([*taken, one], patient)):
            found.append(_card(taken, patient))
            taken = []
        taken.append(one)
    if taken:
        found.append(_card(taken, patient))
    return found


def _card(doses: Sequence[Dose], patient: Mapping[str, Any]) -> Card:
    return Card(_bundle(doses, patient), tuple(one.own_id for one in doses))


def _bundle(doses: Sequence[Dose], patient: Mapping[str, Any]) -> dict[str, Any]:
    resources = [patient, *(one.content for one in doses)]
    return {
        "resourceType": "Bundle",
        "type": "collection",
        "entry": [
            {"fullUrl": f"resource:{index}", "resource": one} for index, one in enumerate(resources)
        ],
    }


def _minimal(tree: Json) -> dict[str, Any] | None:
    """Return an Immunization as a card has it.

    ``None`` for one without a code or a time, and one that says more than a card can say.
    """
    codings = _codings(tree.get("vaccineCode") or {})
    when = {
        name: tree[name] for name in ("occurrenceDateTime", "occurrenceString") if tree.get(name)
    }
    if not codings or not when or not _MODIFIERS.isdisjoint(tree):
        return None
    if "occurrenceDateTime" in when:
        when["occurrenceDateTime"] = when["occurrenceDateTime"][:_DAY_LENGTH]
    content: dict[str, Any] = {
        "resourceType": "Immunization",
        "status": "completed",
        "vaccineCode": {"coding": codings},
        "patient": {"reference": "resource:0"},
        **when,
    }
    if tree.get("primarySource") is False:
        content["primarySource"] = False  # the practice did not give it, and does not say so
    if tree.get("lotNumber"):
        content["lotNumber"] = tree["lotNumber"]
    place = _organization(tree.get("performer") or ())
    if place:
        content["performer"] = [{"actor": {"display": place}}]
    if tree.get("isSubpotent") is True:
        content["isSubpotent"] = True
    return content


def _codings(concept: Json) -> list[dict[str, str]]:
    """Codes by system, once each; where there is one of a system for vaccines, only such."""
    found: dict[str, str] = {}
    for one in concept.get("coding") or ():
        if one.get("code") and one.get("system") and one["system"] not in _UNKNOWN:
            found.setdefault(one["system"], one["code"])
    known = [name for name in found if name in {CVX, SNOMED, ICD11}]
    return [{"system": name, "code": found[name]} for name in known or found]


def _organization(performers: Iterable[Json]) -> str:
    """Where it was given; who gave it is nobody's business."""
    for one in performers:
        if not _MODIFIERS.isdisjoint(one):
            continue
        actor = one.get("actor") or {}
        name = str(actor.get("reference") or "").rpartition("/")[0].rpartition("/")[2]
        if "Organization" in {name, actor.get("type")} and actor.get("display"):
            return str(actor["display"])
    return ""


def _name(names: Iterable[Json], now: float) -> dict[str, Any] | None:
    """The official name, or the usual one, or another; none that somebody does not have now."""
    known = [one for one in names if one.get("use") not in _NOT_NOW and not _is_over(one, now)]
    known.sort(key=lambda one: _USES.index(one.get("use", "")))
    for one in known:
        given = [part for part in one.get("given") or () if part]
        parts = {"family": one.get("family"), "given": given}
        found = {name: part for name, part in parts.items() if part}
        if not found and one.get("text"):
            found = {"text": one["text"]}
        if found:
            return found
    return None


def _is_over(name: Json, now: float) -> bool:
    end = str((name.get("period") or {}).get("end") or "")
    return bool(end) and period_of(end)[1] < now * 1_000_000


def _is_since(tree: Json, since: str) -> bool:
    given = str(tree.get("occurrenceDateTime") or "")
    return bool(given) and period_of(given)[1] >= period_of(since)[0]


def _set_of(canonical: str) -> tuple[str, frozenset[str] | None] | None:
    url = canonical.partition("|")[0]
    for start in _PUBLISHED:
        if url.startswith(start):
            return _SETS.get(url.removeprefix(start))
    return None


def _is_in(codings: Codings, canonical: str) -> bool:
    found = _set_of(canonical)
    if found is None:
        return False
    system, codes = found
    return any(one["system"] == system and (not codes or one["code"] in codes) for one in codings)
