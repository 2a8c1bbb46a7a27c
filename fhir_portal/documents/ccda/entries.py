"""Entries of a C-CDA 2.1 document, one function for each template. Source: C-CDA R2.1, Volume 2.

Each takes an `Item` of a part and where its row stands in the narrative, and returns the clinical
statement. An entry says what its resource says; what that leaves open is ``nullFlavor`` ``UNK``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Final

from fhir_portal.documents import wording
from fhir_portal.documents.ccda.xml import (
    ACT_CODE,
    LOINC,
    SNOMED,
    Element,
    at,
    code,
    concept,
    element,
    identifier,
    lasting,
    moment,
    quantity,
    status,
    template,
    value,
)
from fhir_portal.documents.chart import SMOKING_STATUS, Chart, Item, is_current, when
from fhir_portal.documents.wording import Json, code_of, words_of

_VITAL_SIGN: Final = "4.27"
OF_2014: Final = "2014-06-09"
OF_2015: Final = "2015-08-01"
_RXNORM: Final = "2.16.840.1.113883.6.88"
_CVX: Final = "2.16.840.1.113883.12.292"
_CPT: Final = "2.16.840.1.113883.6.12"


@dataclass(frozen=True, slots=True)
class Row:
    """An item, and the ID of its row in the section's narrative."""

    item: Item
    anchor: str

    @property
    def tree(self) -> Json:
        """The resource."""
        return self.item.tree


def _text(row: Row) -> Element:
    return element("text", None, element("reference", {"value": f"#{row.anchor}"}))


def _assertion() -> Element:
    return element("code", {"code": "ASSERTION", "codeSystem": ACT_CODE})


def _concern(
    root: str, version: str, row: Row, chart: Chart, start: str | None, end: str | None,
    observation: Element,
) -> Element:  # fmt: skip
    """The act that keeps a problem or an allergy in view for as long as it is one."""
    active = is_current(row.tree)
    return element(
        "act",
        {"classCode": "ACT", "moodCode": "EVN"},
        *template(root, version),
        identifier(chart.base, f"{row.item.key}/concern"),
        code("code", "CONC", "2.16.840.1.113883.5.6", "ActClass", "Concern"),
        status("active" if active else "completed"),
        lasting("effectiveTime", start, end, over=not active),
        element("entryRelationship", {"typeCode": "SUBJ"}, observation),
    )


def _span(tree: Json, name: str) -> tuple[str | None, str | None]:
    """Start and end of ``<name>DateTime`` or ``<name>Period``."""
    period = tree.get(f"{name}Period")
    if isinstance(period, Mapping):
        return period.get("start"), period.get("end")
    return tree.get(f"{name}DateTime"), None


def problems(rows: Sequence[Row], chart: Chart) -> Iterator[Element]:
    """Problem Concern Act with a Problem Observation (4.3, 4.4)."""
    for row in rows:
        tree = row.tree
        start = _span(tree, "onset")[0]
        end = _span(tree, "abatement")[0] or _span(tree, "onset")[1]
        kind = code("code", "55607006", SNOMED, "SNOMED CT", "Problem")
        kind.append(code("translation", "75326-9", LOINC, "LOINC", "Problem"))
        observation = element(
            "observation",
            {"classCode": "OBS", "moodCode": "EVN"},
            *template("4.4", OF_2015),
            identifier(chart.base, row.item.key),
            kind,
            _text(row),
            status("completed"),
            lasting("effectiveTime", start, end, over=not is_current(tree)),
            concept("value", tree.get("code"), prefer=(SNOMED,), reference=row.anchor, kind="CD"),
        )
        since = tree.get("recordedDate") or start
        yield _concern("4.3", OF_2015, row, chart, since, end, observation)


_ALLERGIES: Final[Mapping[tuple[str, str], tuple[str, str]]] = {
    ("medication", "allergy"): ("416098002", "Allergy to drug"),
    ("food", "allergy"): ("414285001", "Allergy to food"),
    ("", "allergy"): ("419199007", "Allergy to substance"),
    ("medication", "intolerance"): ("59037007", "Intolerance to drug"),
    ("food", "intolerance"): ("235719002", "Intolerance to food"),
}
_SEVERITY: Final = {
    "mild": ("255604002", "Mild"),
    "moderate": ("6736007", "Moderate"),
    "severe": ("24484000", "Severe"),
}
_CRITICALITY: Final = {
    "low": ("CRITL", "low criticality"),
    "high": ("CRITH", "high criticality"),
    "unable-to-assess": ("CRITU", "unable to assess criticality"),
}


def allergies(rows: Sequence[Row], chart: Chart) -> Iterator[Element]:
    """Allergy Concern Act with an Allergy - Intolerance Observation (4.30, 4.7)."""
    for row in rows:
        tree = row.tree
        start, end = _span(tree, "onset")
        category = next(iter(tree.get("category") or ()), "")
        kind = tree.get("type") or ("allergy" if category in {"medication", "food"} else "")
        number, named = _ALLERGIES.get(
            (category, kind), ("420134006", "Propensity to adverse reaction")
        )
        if kind == "allergy" and category not in {"medication", "food"}:
            number, named = _ALLERGIES["", "allergy"]
        substance = element(
            "participant",
            {"typeCode": "CSM"},
            element(
                "participantRole",
                {"classCode": "MANU"},
                element(
                    "playingEntity",
                    {"classCode": "MMAT"},
                    concept("code", tree.get("code"), prefer=(_RXNORM,), reference=row.anchor),
                ),
            ),
        )
        observation = element(
            "observation",
            {"classCode": "OBS", "moodCode": "EVN"},
            *template("4.7", OF_2014),
            identifier(chart.base, row.item.key),
            _assertion(),
            _text(row),
            status("completed"),
            lasting("effectiveTime", start, end, over=False),
            _value(number, SNOMED, "SNOMED CT", named),
            substance,
            *_reactions(row, chart),
            _criticality(tree),
        )
        since = tree.get("recordedDate") or start
        yield _concern("4.30", OF_2015, row, chart, since, None, observation)


def _value(number: str, system: str, system_name: str, display: str) -> Element:
    found = code("value", number, system, system_name, display)
    found.set("{http://www.w3.org/2001/XMLSchema-instance}type", "CD")
    return found


def _reactions(row: Row, chart: Chart) -> Iterator[Element]:
    """Reaction Observation with its Severity Observation (4.9, 4.8)."""
    for place, reaction in enumerate(row.tree.get("reaction") or ()):
        known = _SEVERITY.get(reaction.get("severity", ""))
        severity = None
        if known is not None:
            severity = element(
                "entryRelationship",
                {"typeCode": "SUBJ", "inversionInd": "true"},
                element(
                    "observation",
                    {"classCode": "OBS", "moodCode": "EVN"},
                    *template("4.8", OF_2014),
                    code("code", "SEV", ACT_CODE, "ActCode", "Severity Observation"),
                    status("completed"),
                    _value(known[0], SNOMED, "SNOMED CT", known[1]),
                ),
            )
        for index, manifestation in enumerate(reaction.get("manifestation") or ()):
            key = f"{row.item.key}/reaction/{place}/{index}"
            yield element(
                "entryRelationship",
                {"typeCode": "MFST", "inversionInd": "true"},
                element(
                    "observation",
                    {"classCode": "OBS", "moodCode": "EVN"},
                    *template("4.9", OF_2014),
                    identifier(chart.base, key),
                    _assertion(),
                    status("completed"),
                    at("effectiveTime", reaction.get("onset")) if reaction.get("onset") else None,
                    concept("value", manifestation, prefer=(SNOMED,), kind="CD"),
                    severity if index == 0 else None,
                ),
            )


def _criticality(tree: Json) -> Element | None:
    """Criticality Observation (4.145)."""
    known = _CRITICALITY.get(tree.get("criticality", ""))
    if known is None:
        return None
    return element(
        "entryRelationship",
        {"typeCode": "SUBJ", "inversionInd": "true"},
        element(
            "observation",
            {"classCode": "OBS", "moodCode": "EVN"},
            *template("4.145"),
            code("code", "82606-5", LOINC, "LOINC", "Criticality"),
            status("completed"),
            _value(known[0], "2.16.840.1.113883.5.1063", "ObservationValue", known[1]),
        ),
    )


_MEDICINE_STATES: Final = {
    "active": "active", "intended": "active", "unknown": "active", "on-hold": "suspended",
    "completed": "completed", "stopped": "aborted",
}  # fmt: skip


def medications(rows: Sequence[Row], chart: Chart) -> Iterator[Element]:
    """Medication Activity with its Medication Information (4.16, 4.23)."""
    for row in rows:
        tree = row.tree
        ordered = tree["resourceType"] == "MedicationRequest"
        start, end = _span(tree, "effective")
        dosages = tree.get("dosageInstruction") or tree.get("dosage") or ()
        dosage: Json = next(iter(dosages), {})
        amount = next(
            (one.get("doseQuantity") for one in dosage.get("doseAndRate") or ()), None
        )  # fmt: skip
        words = row.item.cells[1]
        yield element(
            "substanceAdministration",
            {"classCode": "SBADM", "moodCode": "INT" if ordered else "EVN"},
            *template("4.16", OF_2014),
            identifier(chart.base, row.item.key),
            _text(row),
            status(_MEDICINE_STATES.get(str(tree.get("status")), "active")),
            lasting(
                "effectiveTime", tree.get("authoredOn") or start, end,
                over=not is_current(tree), kind="IVL_TS",
            ),
            _frequency(dosage),
            concept("routeCode", dosage["route"]) if dosage.get("route") else None,
            _dose(amount),
            _product("4.23", chart.medicine(tree), (_RXNORM,), row, chart),
            _free_text(words, row) if words else None,
        )  # fmt: skip


def _dose(amount: Json | None) -> Element:
    found = quantity("doseQuantity", amount)
    return element("doseQuantity", {"nullFlavor": "UNK"}) if found is None else found


_PERIOD_UNITS: Final = {"s", "min", "h", "d", "wk", "mo", "a"}


def _frequency(dosage: Json) -> Element | None:
    repeat = (dosage.get("timing") or {}).get("repeat") or {}
    often, every, unit = (repeat.get(one) for one in ("frequency", "period", "periodUnit"))
    if often != 1 or every is None or unit not in _PERIOD_UNITS:
        return None  # several times in a period have no exact form here: the text says it
    return element(
        "effectiveTime",
        {"type": "PIVL_TS", "institutionSpecified": "true", "operator": "A"},
        element("period", {"value": wording.number(every), "unit": unit}),
    )


def _product(
    root: str, named: Json, prefer: Sequence[str], row: Row, chart: Chart, lot: str | None = None
) -> Element:
    material = element(
        "manufacturedMaterial",
        None,
        concept("code", named, prefer=prefer, reference=row.anchor),
        element("lotNumberText", text=lot) if lot else None,
    )
    return element(
        "consumable",
        None,
        element(
            "manufacturedProduct",
            {"classCode": "MANU"},
            *template(root, OF_2014),
            identifier(chart.base, f"{row.item.key}/product"),
            material,
        ),
    )


def _free_text(words: str, row: Row) -> Element:
    """Medication Free Text Sig (4.147)."""
    return element(
        "entryRelationship",
        {"typeCode": "COMP"},
        element(
            "substanceAdministration",
            {"classCode": "SBADM", "moodCode": "INT"},
            *template("4.147"),
            code("code", "76662-6", LOINC, "LOINC", "Instructions Medication"),
            element("text", None, element("reference", {"value": f"#{row.anchor}.sig"}))
            if words
            else None,
            element(
                "consumable",
                None,
                element(
                    "manufacturedProduct",
                    None,
                    element("manufacturedLabeledDrug", {"nullFlavor": "NA"}),
                ),
            ),
        ),
    )


def immunizations(rows: Sequence[Row], chart: Chart) -> Iterator[Element]:
    """Immunization Activity with its Immunization Medication Information (4.52, 4.54)."""
    for row in rows:
        tree = row.tree
        yield element(
            "substanceAdministration",
            {
                "classCode": "SBADM",
                "moodCode": "EVN",
                "negationInd": "true" if tree.get("status") == "not-done" else "false",
            },
            *template("4.52", OF_2015),
            identifier(chart.base, row.item.key),
            _text(row),
            status("completed"),
            at("effectiveTime", tree.get("occurrenceDateTime")),
            concept("routeCode", tree["route"]) if tree.get("route") else None,
            quantity("doseQuantity", tree.get("doseQuantity")),
            _product(
                "4.54", tree.get("vaccineCode") or {}, (_CVX,), row, chart, tree.get("lotNumber")
            ),
        )


_PROCEDURE_STATES: Final = {"completed": "completed", "stopped": "aborted"}


def procedures(rows: Sequence[Row], chart: Chart) -> Iterator[Element]:
    """Procedure Activity Procedure (4.14)."""
    for row in rows:
        tree = row.tree
        start, end = _span(tree, "performed")
        single = tree.get("performedDateTime") is not None or start is None
        yield element(
            "procedure",
            {"classCode": "PROC", "moodCode": "EVN"},
            *template("4.14", OF_2014),
            identifier(chart.base, row.item.key),
            concept("code", tree.get("code"), prefer=(SNOMED, LOINC, _CPT), reference=row.anchor),
            status(_PROCEDURE_STATES.get(str(tree.get("status")), "active")),
            at("effectiveTime", start)
            if single
            else lasting("effectiveTime", start, end, over=False),
        )


def encounters(rows: Sequence[Row], chart: Chart) -> Iterator[Element]:
    """Encounter Activity (4.49)."""
    for row in rows:
        tree = row.tree
        period = tree.get("period") or {}
        kinds = [coding for one in tree.get("type") or () for coding in one.get("coding") or ()]
        kind = {"coding": [*kinds, *([tree["class"]] if tree.get("class") else [])]}
        yield element(
            "encounter",
            {"classCode": "ENC", "moodCode": "EVN"},
            *template("4.49", OF_2015),
            identifier(chart.base, row.item.key),
            concept("code", kind, reference=row.anchor),
            _text(row),
            lasting("effectiveTime", period.get("start"), period.get("end"), over=False),
        )


def results(rows: Sequence[Row], chart: Chart) -> Iterator[Element]:
    """Result Organizer with Result Observations (4.1, 4.2): a report, or a test by itself."""
    by_key = {row.item.key: row for row in rows}
    for report in chart.resources.get("DiagnosticReport", ()):
        named = [str(one.get("reference")) for one in report.get("result") or ()]
        held = [by_key.pop(key) for key in dict.fromkeys(named) if key in by_key]
        if held:
            key = f"DiagnosticReport/{report['id']}"
            yield _battery(key, report, held, chart)
    for row in by_key.values():
        yield _battery(f"{row.item.key}/organizer", row.tree, [row], chart)


def _battery(key: str, named: Json, rows: Sequence[Row], chart: Chart) -> Element:
    times = sorted(filter(None, (moment(when(row.tree)) for row in rows)))
    return element(
        "organizer",
        {"classCode": "BATTERY", "moodCode": "EVN"},
        *template("4.1", OF_2015),
        identifier(chart.base, key),
        concept("code", named.get("code"), prefer=(LOINC,)),
        status("completed"),
        _between(times),
        *_measured(rows, chart, "4.2", OF_2015),
    )


def _between(times: Sequence[str]) -> Element:
    if not times:
        return element("effectiveTime", {"nullFlavor": "UNK"})
    low, high = element("low", {"value": times[0]}), element("high", {"value": times[-1]})
    return element("effectiveTime", None, low, high)


def vital_signs(rows: Sequence[Row], chart: Chart) -> Iterator[Element]:
    """Vital Signs Organizer with Vital Sign Observations (4.26, 4.27): what was taken together."""
    for time, held in _taken_together(rows):
        kind = code("code", "46680005", SNOMED, "SNOMED CT", "Vital signs")
        kind.append(code("translation", "74728-7", LOINC, "LOINC", "Vital signs"))
        value_of_time = moment(time)
        yield element(
            "organizer",
            {"classCode": "CLUSTER", "moodCode": "EVN"},
            *template("4.26", OF_2015),
            identifier(chart.base, f"{held[0].item.key}/organizer"),
            kind,
            status("completed"),
            _between([value_of_time] if value_of_time else []),
            *_measured(held, chart, _VITAL_SIGN, OF_2014),
        )


def _taken_together(rows: Sequence[Row]) -> Iterator[tuple[str, list[Row]]]:
    """Yield measurements of one time; what was measured twice then, apart.

    Readers put the values of one organizer together, such as those of a blood pressure.
    """
    for time, group in groupby(rows, key=lambda row: when(row.tree)):
        sets: list[tuple[set[str], list[Row]]] = []
        for row in group:
            codes = {code_of(part.get("code")) for _, part in values_in(row.item)}
            for known, held in sets:
                if known.isdisjoint(codes):
                    known.update(codes)
                    held.append(row)
                    break
            else:
                sets.append((codes, [row]))
        yield from ((time, held) for _, held in sets)


_OPEN_RESULTS: Final = frozenset({"registered", "preliminary"})


def _measured(rows: Sequence[Row], chart: Chart, root: str, version: str) -> Iterator[Element]:
    """One observation for each value: that of the Observation, and of each of its components."""
    for row in rows:
        for key, part in values_in(row.item):
            yield element(
                "component",
                None,
                element(
                    "observation",
                    {"classCode": "OBS", "moodCode": "EVN"},
                    *template(root, version),
                    identifier(chart.base, key),
                    concept("code", part.get("code"), prefer=(LOINC,)),
                    _text(row),
                    status("active" if row.tree.get("status") in _OPEN_RESULTS else "completed"),
                    at("effectiveTime", when(row.tree)),
                    value(part) if root != _VITAL_SIGN else _quantity(part),
                    _interpretation(part),
                    *_ranges(part),
                ),
            )


def values_in(item: Item) -> list[tuple[str, Json]]:
    """Return what an Observation has values of, each with its key: itself, and its components.

    A component that has none is in the narrative alone.
    """
    tree = item.tree
    found = [
        (f"{item.key}/component/{place}", one)
        for place, one in enumerate(tree.get("component") or ())
        if _has_value(one)
    ]
    return found if found and not _has_value(tree) else [(item.key, tree), *found]


def _has_value(tree: Json) -> bool:
    return any(name.startswith("value") for name in tree)


def _quantity(tree: Json) -> Element:
    """Return the value of a vital sign, which is a quantity; what is none is in the narrative."""
    found = quantity("value", tree.get("valueQuantity"), kind="PQ")
    if found is not None:
        return found
    flavor = "OTH" if _has_value(tree) else "UNK"
    return element("value", {"type": "PQ", "nullFlavor": flavor})


def _interpretation(tree: Json) -> Element | None:
    number = next(filter(None, map(code_of, tree.get("interpretation") or ())), "")
    if not number:
        return None
    return element("interpretationCode", {"code": number, "codeSystem": "2.16.840.1.113883.5.83"})


def _ranges(tree: Json) -> Iterator[Element]:
    for one in tree.get("referenceRange") or ():
        words = wording.clean(one["text"]) if one.get("text") else wording.span(one)
        low, high = quantity("low", one.get("low")), quantity("high", one.get("high"))
        bounds = None
        if low is not None or high is not None:
            bounds = element("value", {"type": "IVL_PQ"}, low, high)
        if words or bounds is not None:
            text = element("text", text=words) if words else None
            yield element("referenceRange", None, element("observationRange", None, text, bounds))


def social_history(rows: Sequence[Row], chart: Chart) -> Iterator[Element]:
    """Smoking Status (4.78) and Social History Observation (4.38)."""
    for row in rows:
        tree = row.tree
        smoking = any(
            one.get("code") == SMOKING_STATUS
            for one in (tree.get("code") or {}).get("coding") or ()
        )
        root, version = ("4.78", OF_2014) if smoking else ("4.38", OF_2015)
        for key, part in values_in(row.item):
            yield element(
                "observation",
                {"classCode": "OBS", "moodCode": "EVN"},
                *template(root, version),
                identifier(chart.base, key),
                concept("code", part.get("code"), prefer=(LOINC, SNOMED)),
                _text(row),
                status("completed"),
                at("effectiveTime", when(tree)),
                value(part),
            )


def plan(rows: Sequence[Row], chart: Chart) -> Iterator[Element]:
    """Goal Observation (4.121), and Planned Act (4.39) for a care plan."""
    for row in rows:
        tree = row.tree
        if tree["resourceType"] == "Goal":
            yield element(
                "observation",
                {"classCode": "OBS", "moodCode": "GOL"},
                *template("4.121"),
                identifier(chart.base, row.item.key),
                concept("code", tree.get("description"), prefer=(LOINC,)),
                _text(row),
                status("active"),
                at("effectiveTime", tree.get("startDate")),
                element("value", {"type": "ST"}, text=words_of(tree.get("description"))),
            )
            continue
        start, end = ((tree.get("period") or {}).get(one) for one in ("start", "end"))
        yield element(
            "act",
            {"classCode": "ACT", "moodCode": "INT"},
            *template("4.39", OF_2014),
            identifier(chart.base, row.item.key),
            code("code", "734163000", SNOMED, "SNOMED CT", "Care plan"),
            _text(row),
            status("active"),
            lasting("effectiveTime", start, end, over=False),
        )
