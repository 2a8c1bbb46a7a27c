"""``/portal/results``: reports with their values, every test by name, how its values change."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence
from typing import Any, Final
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import Response

from fhir_portal.consent.sections import sections_of
from fhir_portal.documents import wording
from fhir_portal.documents.chart import categories, ordered, when
from fhir_portal.documents.wording import Json, clean, words_of
from fhir_portal.fhir.errors import NotFound
from fhir_portal.operations.portal_dashboard import new_since
from fhir_portal.web.downloads import while_allowed
from fhir_portal.web.form import parse_pairs
from fhir_portal.web.pages.portal import REPORT, RESULTS, AtPortal, PatientRoom, portal_page
from fhir_portal.web.pages.refusals import Handler
from fhir_portal.web.pages.render import attached
from fhir_portal.web.pages.trend import trends_of

SECTION: Final = "results"
TESTS: Final = f"{RESULTS}/tests"
TEST: Final = f"{RESULTS}/test"
FILE: Final = f"{RESULTS}/file"
_PAGE: Final = 10
_AT_ONCE: Final = 200
_MOST: Final = 1000
"""Values that are looked at for a list of all tests, or for one of them."""
_STATUS: Final[Mapping[str, str]] = {
    "registered": "Ordered, no result yet",
    "partial": "A part of it: more will come",
    "preliminary": "Preliminary: may still change",
    "amended": "Changed after it was final",
    "corrected": "Corrected",
    "appended": "Something was added later",
    "cancelled": "Not done",
    "entered-in-error": "Recorded by mistake: do not rely on it",
    "unknown": "It is not known how it stands",
}
"""What has to be said of a status; of what is final nothing."""
_VALUELESS: Final = frozenset({"entered-in-error", "cancelled"})
_INTERPRETATION_SYSTEM: Final = "http://terminology.hl7.org/CodeSystem/v3-ObservationInterpretation"
_INTERPRETATIONS: Final[Mapping[str, str]] = {
    "N": "Usual",
    "L": "Lower than usual",
    "H": "Higher than usual",
    "LL": "Much lower than usual",
    "HH": "Much higher than usual",
    "LU": "Much lower than usual",
    "HU": "Much higher than usual",
    "A": "Not as usual",
    "AA": "Very far from usual",
    "POS": "Positive",
    "NEG": "Negative",
    "DET": "Found",
    "ND": "Not found",  # codespell:ignore nd
    "IND": "Neither positive nor negative",
    "R": "Resistant",
    "S": "Susceptible",
    "I": "Intermediate",
    "B": "Better than before",
    "W": "Worse than before",
    "U": "Higher than before",
    "D": "Lower than before",
    "<": "Too low to be measured",
    ">": "Too high to be measured",
}
"""HL7 v3 ObservationInterpretation in plain words."""
_KINDS: Final = (
    ("laboratory", "Laboratory"),
    ("vital-signs", "Vital signs"),
    ("imaging", "Imaging"),
    ("exam", "Examination"),
    ("procedure", "Procedures"),
)
_OTHERS: Final = "Other"


class ResultPages:
    """The pages about results of the record that is open."""

    def __init__(self, room: PatientRoom) -> None:
        self._room = room

    def routes(self) -> Sequence[tuple[str, str, Handler]]:
        """Path, method and handler of each page."""
        return (
            (RESULTS, "GET", portal_page(self.show)),
            (f"{REPORT}/{{id}}", "GET", portal_page(self.show_report, back=RESULTS)),
            (TESTS, "GET", portal_page(self.show_tests, back=RESULTS)),
            (f"{TEST}/{{id}}", "GET", portal_page(self.show_test, back=TESTS)),
            (f"{FILE}/{{id}}/{{number}}", "GET", portal_page(self.file, back=RESULTS)),
        )

    # --- reports -------------------------------------------------------------------------------

    async def show(self, request: Request) -> Response:
        """The reports with their values, the latest first, and how many are new."""
        here = await self._room.at(request)
        given = dict(parse_pairs(request.scope["query_string"]))
        query: tuple[tuple[str, str], ...] = (("_page", given.get("page", "")),)
        if not given.get("page"):
            included = ("_include", "DiagnosticReport:result")
            query = (("_sort", "-issued,-date"), included, ("_count", str(_PAGE)))
        found = await self._room.ask(here, "search-type", "DiagnosticReport", query=query)
        values = {
            f"Observation/{one['id']}": one
            for one in found.entries
            if one["resourceType"] == "Observation"
        }
        values |= await self._members(here, values)
        # The first page counts them, too: both ask the same.
        first_page = await self._room.dashboard(here)
        new = first_page.value("new-results") or {"count": 0, "more": False}
        listed = new.get("report") or []
        listed = listed if isinstance(listed, list) else [listed]
        fresh = {one["reference"].rpartition("/")[2] for one in listed}
        reports = [
            self._report(here, one, values, is_new=one["id"] in fresh)
            for one in found.entries
            if one["resourceType"] == "DiagnosticReport"
        ]
        return self._room.page(
            here,
            "portal_results.html",
            reports=reports,
            new=new["count"],
            more_new=new["more"],
            since=here.moment(new_since(self._room.clock())[:10]),
            tests=TESTS,
            next=f"{RESULTS}?{urlencode({'page': found.next})}" if found.next else "",
            later=bool(given.get("page")),
            first=RESULTS,
        )

    async def show_report(self, request: Request) -> Response:
        """One report with its values."""
        here = await self._room.at(request)
        own_id = request.path_params["id"]
        query = (("_id", own_id), ("_include", "DiagnosticReport:result"))
        found = await self._room.ask(here, "search-type", "DiagnosticReport", query=query)
        tree = next((one for one in found.entries if one["id"] == own_id), None)
        if tree is None:
            message = f"DiagnosticReport/{own_id} is not known"
            raise NotFound(message)
        values = {f"{one['resourceType']}/{one['id']}": one for one in found.entries}
        values |= await self._members(here, values)
        return self._room.page(
            here,
            "portal_report.html",
            one=self._report(here, tree, values, is_new=False),
            back=RESULTS,
        )

    async def _members(self, here: AtPortal, values: Mapping[str, Json]) -> dict[str, Json]:
        """The values that panels consist of, and which no report names by itself."""
        wanted = {
            reference: None
            for one in values.values()
            for reference in _members_of(one)
            if reference not in values
        }
        ids = [one.partition("/")[2] for one in wanted][:_AT_ONCE]
        if not ids:
            return {}
        found = await self._room.ask(
            here,
            "search-type",
            "Observation",
            query=(("_id", ",".join(ids)), ("_count", str(_AT_ONCE))),
        )
        return {f"Observation/{one['id']}": one for one in found.entries}

    def _report(
        self, here: AtPortal, tree: Json, values: Mapping[str, Json], *, is_new: bool
    ) -> dict[str, Any]:
        shown: dict[str, Json] = {}
        for one in tree.get("result") or ():
            reference = str(one.get("reference") or "")
            if reference not in values:
                continue
            shown[reference] = values[reference]
            for member in _members_of(values[reference]):
                if member in values:
                    shown[member] = values[member]
        files = [
            f"{FILE}/{tree['id']}/{number}"
            for number, one in enumerate(tree.get("presentedForm") or ())
            if one.get("data")
        ]
        taken_back = tree.get("status") in _VALUELESS
        return {
            "address": f"{REPORT}/{tree['id']}",
            "title": words_of(tree.get("code")) or "Report",
            "when": here.moment(when(tree)),
            "is_new": is_new,
            "status": _STATUS.get(str(tree.get("status")), ""),
            "by": ", ".join(
                clean(one["display"]) for one in tree.get("performer") or () if one.get("display")
            ),
            "conclusion": "" if taken_back else clean(tree.get("conclusion") or ""),
            "findings": []
            if taken_back
            else [words_of(one) for one in tree.get("conclusionCode") or ()],
            "files": [] if taken_back else files,
            "other_files": any(not one.get("data") for one in tree.get("presentedForm") or ()),
            "rows": [row for one in shown.values() for row in _rows(here, one)],
        }

    async def file(self, request: Request) -> Response:
        """A file that stands in a report itself."""
        here = await self._room.at(request)
        own_id, number = request.path_params["id"], request.path_params["number"]
        asked = self._room.ask(here, "read", "DiagnosticReport", own_id, activity="download")
        tree = (await asked).tree
        forms = tree.get("presentedForm") or ()
        nth = int(number) if number.isascii() and number.isdigit() and len(number) < 4 else -1  # noqa: PLR2004
        one = forms[nth] if 0 <= nth < len(forms) else {}
        if not one.get("data") or tree.get("status") in _VALUELESS:
            message = f"DiagnosticReport/{own_id} has no such file"
            raise NotFound(message)
        try:
            content = base64.b64decode(one["data"])
        except (ValueError, binascii.Error):
            content = b""
        media = str(one.get("contentType") or "application/octet-stream")
        kind = {"application/pdf": "pdf", "image/png": "png", "image/jpeg": "jpg"}.get(media, "bin")
        answer = attached(content, f"report-{nth + 1}.{kind}", media)
        return while_allowed(self._room.downloads, here.auth, answer)

    # --- tests ---------------------------------------------------------------------------------

    async def show_tests(self, request: Request) -> Response:
        """Every test and measurement by name, with its latest value."""
        here = await self._room.at(request)
        found, more = await self._values(here)
        groups: dict[str, dict[tuple[str, str], dict[str, Any]]] = {}
        for tree in ordered([one for one in found if _is_result(one)]):
            of_kind = groups.setdefault(_kind(tree), {})
            known = of_kind.get(_key(tree))
            if known is None:
                rows = _rows(here, tree)
                of_kind[_key(tree)] = {
                    "address": f"{TEST}/{tree['id']}",
                    "name": words_of(tree.get("code")) or "Without a name",
                    "value": "; ".join(filter(None, (_said(row) for row in rows))),
                    "status": rows[0]["status"],
                    "when": here.moment(when(tree)),
                    "count": 1,
                }
            else:
                known["count"] += 1
        order = [title for _, title in _KINDS] + [_OTHERS]
        return self._room.page(
            here,
            "portal_results_tests.html",
            groups=[
                (title, sorted(groups[title].values(), key=lambda one: one["name"].casefold()))
                for title in order
                if title in groups
            ],
            more=_MOST if more else 0,
            back=RESULTS,
        )

    async def show_test(self, request: Request) -> Response:
        """All values of a test, in a table and drawn. The address names one of the values."""
        here = await self._room.at(request)
        own_id = request.path_params["id"]
        tree = (await self._room.ask(here, "read", "Observation", own_id)).tree
        found, more = await self._values(here, *_of_test(tree))
        same = ordered([one for one in found if _key(one) == _key(tree)])
        same = same if any(one["id"] == own_id for one in same) else [dict(tree), *same]
        rows = [row for one in same for row in _rows(here, one)]
        return self._room.page(
            here,
            "portal_results_test.html",
            title=words_of(tree.get("code")) or "Without a name",
            rows=rows,
            several=len({row["name"] for row in rows}) > 1,
            trends=trends_of(same),
            units=sorted({row["unit"] for row in rows if row["unit"]}),
            more=_MOST if more else 0,
            back=TESTS,
        )

    async def _values(
        self, here: AtPortal, *query: tuple[str, str]
    ) -> tuple[list[dict[str, Any]], bool]:
        """What the caller may see, the latest first: so many at most, and whether there is more."""
        asked: Sequence[tuple[str, str]] = (
            *query,
            ("_sort", "-date"),
            ("_count", str(_AT_ONCE)),
        )
        found: list[dict[str, Any]] = []
        while True:
            answer = await self._room.ask(here, "search-type", "Observation", query=asked)
            found += [dict(one) for one in answer.entries]
            if not answer.next or len(found) >= _MOST:
                return found, bool(answer.next)
            asked = (("_page", answer.next),)


def _members_of(tree: Json) -> list[str]:
    return [str(one.get("reference") or "") for one in tree.get("hasMember") or ()]


def _is_result(tree: Json) -> bool:
    """Whether a value is a result; what nobody classified is shown here, to who sees it at all."""
    found = sections_of(tree)
    return not found or SECTION in found


def _kind(tree: Json) -> str:
    found = categories(tree)
    return next((title for code, title in _KINDS if code in found), _OTHERS)


def _coding(tree: Json) -> tuple[str, str] | None:
    """The first code with a system."""
    for one in (tree.get("code") or {}).get("coding") or ():
        if one.get("system") and one.get("code"):
            return str(one["system"]), str(one["code"])
    return None


def _key(tree: Json) -> tuple[str, str]:
    """By what values are of the same test: a code, or else the words."""
    return _coding(tree) or ("", words_of(tree.get("code")).casefold())


def _of_test(tree: Json) -> list[tuple[str, str]]:
    """A search for the values of a test that has a code; of another one all are looked at."""
    coding = _coding(tree)
    if coding is None or set("".join(coding)) & set(",|$\\"):
        return []
    return [("code", "|".join(coding))]


def _rows(here: AtPortal, tree: Json) -> list[dict[str, Any]]:
    """One line for a value, and one for each component: nothing is left out.

    Of what was taken back it is said that it was, and not what it said.
    """
    named = words_of(tree.get("code")) or "Without a name"
    status = _STATUS.get(str(tree.get("status")), "")
    common = {
        "address": f"{TEST}/{tree['id']}",
        "when": here.moment(when(tree)) or "No date",
        "status": status,
    }
    if tree.get("status") in _VALUELESS:
        return [{**common, "name": named, **_nothing()}]
    parts = [one for one in tree.get("component") or () if isinstance(one, Mapping)]
    rows = []
    if _has_value(tree) or not parts:
        rows.append({**common, "name": named, **_value(tree, is_panel=bool(_members_of(tree)))})
    rows += [
        {**common, "name": f"{named}: {words_of(one.get('code'))}".strip(": "), **_value(one)}
        for one in parts
    ]
    rows[0]["note"] = "; ".join(
        clean(one["text"]) for one in tree.get("note") or () if one.get("text")
    )
    return rows


def _nothing() -> dict[str, str]:
    return dict.fromkeys(("value", "unit", "range", "meaning", "note"), "")


def _has_value(tree: Json) -> bool:
    return any(name.startswith("value") for name in tree) or "dataAbsentReason" in tree


def _value(tree: Json, *, is_panel: bool = False) -> dict[str, str]:
    quantity = tree.get("valueQuantity")
    unit = ""
    if isinstance(quantity, Mapping):
        unit = clean(quantity.get("unit") or quantity.get("code") or "")
    said = wording.value(tree)
    if not said and not is_panel:
        said = "No value was sent"
        if any(name.startswith("value") for name in tree):
            said = "A value that cannot be shown here: ask the practice"
    return {
        "value": said,
        "unit": unit,
        "range": wording.normal_range(tree),
        "meaning": ", ".join(filter(None, map(_meaning, tree.get("interpretation") or ()))),
        "note": "",
    }


def _meaning(concept: Json) -> str:
    """An interpretation in plain words, where there are any for its code; else as it was sent."""
    for coding in concept.get("coding") or ():
        if coding.get("system") == _INTERPRETATION_SYSTEM:
            found = _INTERPRETATIONS.get(str(coding.get("code")))
            if found:
                return found
    return words_of(concept)


def _said(row: Mapping[str, Any]) -> str:
    name = str(row["name"])
    part = name.rpartition(": ")[2] if ": " in name else ""
    said = f"{part} {row['value']}".strip() if part else str(row["value"])
    return f"{said} ({row['meaning']})" if row["meaning"] and row["meaning"] != "Usual" else said
