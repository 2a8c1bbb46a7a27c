"""The portal's pages of results: nothing silently missing, nothing on a scale it is not of."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.builders import (
    OBSERVATION_CATEGORY,
    RESTRICTED,
    WITHHELD,
    Json,
    a_grant,
    an_observation,
    concept,
    reference,
)
from tests.operations.booking import DAY, at
from tests.operations.test_portal_dashboard import a_report
from tests.smart.world import Browser
from tests.web.portal_world import ADA, BO, SKIN, PortalWorld
from tests.web.signing_in import submit
from tests.web.staff_world import links

RESULTS = "/portal/results"
TESTS = f"{RESULTS}/tests"
TEST = f"{RESULTS}/test"
FILE = f"{RESULTS}/file"
LOINC, UCUM = "http://loinc.org", "http://unitsofmeasure.org"
INTERPRETATION = "http://terminology.hl7.org/CodeSystem/v3-ObservationInterpretation"
SCRIPT = "<script>alert(1)</script>"


def quantity(value: Any, unit: str = "mmol/L", **more: Any) -> Json:
    return {"value": value, "unit": unit, "system": UCUM, "code": unit, **more}


def sodium(own_id: str, days: float, value: Any, *, of: str = "bo", **more: Any) -> Json:
    tree = an_observation(own_id, of=of, category="laboratory", on=at(days * DAY))
    tree |= {
        "code": concept(LOINC, "2951-2") | {"text": "Sodium"},
        "valueQuantity": value if isinstance(value, dict) else quantity(value),
        "referenceRange": [{"low": quantity(135), "high": quantity(145)}],
    }
    return tree | more


def other(own_id: str, text: str, **value: Any) -> Json:
    """A result that is no number; without a code, so that it goes by its words."""
    tree = an_observation(own_id, of="bo", category="laboratory", on=at(-3 * DAY))
    del tree["valueQuantity"]
    return tree | {"code": {"text": text}, **value}


def pressure(own_id: str, days: float, systolic: int, diastolic: int) -> Json:
    tree = other(own_id, "Blood pressure", category=[concept(OBSERVATION_CATEGORY, "vital-signs")])
    parts = (("8480-6", "Systolic", systolic), ("8462-4", "Diastolic", diastolic))
    return tree | {
        "code": concept(LOINC, "85354-9") | {"text": "Blood pressure"},
        "effectiveDateTime": at(days * DAY),
        "component": [
            {
                "code": concept(LOINC, code) | {"text": text},
                "valueQuantity": quantity(value, "mmHg", code="mm[Hg]"),
            }
            for code, text, value in parts
        ],
    }


@pytest.fixture
async def portal() -> AsyncIterator[PortalWorld]:
    found = await PortalWorld.begin()
    high = [concept(INTERPRETATION, "H")]
    await found.put(
        sodium("na-1", -300, 138),
        sodium("na-2", -100, 141.50),
        sodium("na-3", -2, 150, interpretation=high),
        a_report("blood", at(-2 * DAY), of="bo", result=[reference("Observation/na-3")],
                 conclusion="Drink less salt water."),
        a_report("older", at(-100 * DAY), of="bo", result=[reference("Observation/na-2")]),
        pressure("bp-1", -50, 120, 80),
        pressure("bp-2", -5, 131, 85),
    )  # fmt: skip
    yield found
    found.close()


def table(browser: Browser) -> list[list[str]]:
    """The rows of the tables on the page."""
    return [
        [" ".join(cell.text_content().split()) for cell in row.xpath("th|td")]
        for row in browser.document.xpath("//main//tbody/tr")
    ]


def drawings(browser: Browser) -> list[Any]:
    return list(browser.document.xpath("//main//svg"))


def drawn(svg: Any) -> list[str]:
    return [str(one) for one in svg.xpath(".//circle/title/text()")]


# ---------------------------------------------------------------- reports


@pytest.mark.requirement("portal", "S2-07")
async def test_reports_show_their_values_the_latest_first(portal: PortalWorld) -> None:
    browser = await portal.at(RESULTS, BO)
    assert "1 new report since" in browser.text
    headings = browser.document.xpath("//main//h2")
    assert [one.text_content().endswith("(new)") for one in headings] == [True, False]
    assert "Drink less salt water." in browser.text
    rows = table(browser)
    assert rows[0] == ["Sodium", "150 mmol/L", "135 mmol/L to 145 mmol/L", "Higher than usual"]
    assert rows[1][:2] == ["Sodium", "141.5 mmol/L"]
    assert f"{TEST}/na-3" in links(browser)


@pytest.mark.requirement("portal", "S2-07")
async def test_a_report_that_was_released_is_new_however_long_ago_it_was_issued(
    portal: PortalWorld,
) -> None:
    kept = a_report("kept", at(-60 * DAY), of="bo", conclusion="Come and see us.")
    await portal.put(kept | {"meta": WITHHELD})
    browser = await portal.at(RESULTS, BO)
    assert "1 new report since" in browser.text
    assert "Come and see us." not in browser.text
    shown = {"tag": [{"system": "https://tags.example", "code": "released"}]}
    await portal.put(kept | {"meta": shown})
    await browser.open(RESULTS)
    assert "2 new reports since" in browser.text
    headings = browser.document.xpath("//main//h2")
    assert [one.text_content().endswith("(new)") for one in headings] == [True, True, False]
    await browser.open("/portal")
    assert "2 new reports" in browser.text


async def test_a_panel_shows_the_values_it_consists_of(portal: PortalWorld) -> None:
    panel = other("panel", "Electrolytes", hasMember=[reference("Observation/na-1")])
    await portal.put(
        panel, a_report("p", at(-1 * DAY), of="bo", result=[reference("Observation/panel")])
    )
    browser = await portal.at(RESULTS, BO)
    assert [row[:2] for row in table(browser)[:2]] == [
        ["Electrolytes", ""],
        ["Sodium", "138 mmol/L"],
    ]


@pytest.mark.requirement("portal", "S2-07")
@pytest.mark.parametrize(
    ("status", "words"),
    [
        ("preliminary", "may still change"),
        ("corrected", "Corrected"),
        ("amended", "Changed after it was final"),
        ("registered", "no result yet"),
        ("entered-in-error", "Recorded by mistake"),
        ("cancelled", "Not done"),
    ],
)
async def test_how_a_value_and_a_report_stand_is_said(
    portal: PortalWorld, status: str, words: str
) -> None:
    await portal.put(
        sodium("na-3", -2, 150, status=status),
        a_report("blood", at(-2 * DAY), of="bo", result=[reference("Observation/na-3")])
        | {"status": status},
    )
    browser = await portal.at(RESULTS, BO)
    assert browser.text.count(words) == 2
    assert ("150 mmol/L" in browser.text) == (status not in {"entered-in-error", "cancelled"})


async def test_reports_come_by_pages(portal: PortalWorld) -> None:
    await portal.put(
        *(a_report(f"r{n}", at((-200 - n) * DAY), of="bo") for n in range(12)),
    )
    browser = await portal.at(RESULTS, BO)
    assert len(browser.document.xpath("//main//section")) == 10
    (following,) = [one for one in links(browser) if "page=" in one]
    await browser.open(following)
    assert len(browser.document.xpath("//main//section")) == 4
    assert "new report" not in browser.text
    await browser.open(f"{RESULTS}?page=made-up")
    assert browser.page.status_code == 400


async def test_a_file_of_a_report_is_saved_and_never_run(portal: PortalWorld) -> None:
    html = {"contentType": "text/html", "data": "PHNjcmlwdD5hbGVydCgxKTwvc2NyaXB0Pg=="}
    png = {"contentType": "image/png", "data": "iVBORw0KGgo="}
    elsewhere = {"contentType": "application/pdf", "url": "https://lab.example.org/1"}
    await portal.put(
        a_report("blood", at(-2 * DAY), of="bo", presentedForm=[html, png, elsewhere]),
    )
    browser = await portal.at(RESULTS, BO)
    assert [f"{FILE}/blood/{n}" for n in (0, 1)] == [
        one for one in links(browser) if one.startswith(FILE)
    ]
    assert "kept elsewhere" in browser.text
    saved = await browser.http.get(f"{FILE}/blood/0")
    assert saved.headers["content-disposition"].startswith("attachment")
    assert "sandbox" in saved.headers["content-security-policy"]
    shown = await browser.http.get(f"{FILE}/blood/1")
    assert shown.headers["content-type"] == "image/png"
    for number in ("2", "3", "-1", "x", "9999"):
        assert (await browser.http.get(f"{FILE}/blood/{number}")).status_code == 404
    ada = await portal.at(RESULTS, ADA, "ada")
    assert (await ada.http.get(f"{FILE}/blood/0")).status_code == 404


# ---------------------------------------------------------------- tests


@pytest.mark.requirement("portal", "S2-07")
async def test_every_test_is_listed_once_with_its_latest_value(portal: PortalWorld) -> None:
    browser = await portal.at(TESTS, BO)
    assert browser.document.xpath("//main//h2/text()") == ["Laboratory", "Vital signs"]
    assert "Sodium 150 mmol/L (Higher than usual)" in browser.text
    assert "3 values" in browser.text
    assert "Systolic 131 mmHg; Diastolic 85 mmHg" in browser.text


@pytest.mark.requirement("portal", "S2-07")
async def test_a_trend_is_drawn_of_what_stands_in_the_table(portal: PortalWorld) -> None:
    browser = await portal.at(f"{TEST}/na-1", BO)
    assert browser.heading == "Sodium"
    rows = table(browser)
    assert [row[1] for row in rows] == ["150 mmol/L", "141.5 mmol/L", "138 mmol/L"]
    (svg,) = drawings(browser)
    assert [one.rpartition(": ")[2] for one in reversed(drawn(svg))] == [row[1] for row in rows]
    ids = {str(one) for one in svg.xpath("./title/@id | ./desc/@id")}
    assert set(svg.get("aria-labelledby").split()) == ids
    assert "lowest 138 mmol/L" in svg.xpath("string(./desc)")
    assert len(svg.xpath("./rect")) == 3
    assert browser.document.xpath("//main//@style") == []


@pytest.mark.requirement("portal", "S2-07")
async def test_values_of_different_units_are_not_on_one_scale(portal: PortalWorld) -> None:
    await portal.put(
        sodium("mg-1", -20, quantity(331, "mg/dL")), sodium("mg-2", -10, quantity(340, "mg/dL"))
    )
    browser = await portal.at(f"{TEST}/na-1", BO)
    assert [len(drawn(one)) for one in drawings(browser)] == [3, 2]
    assert "different units" in browser.text
    assert len(table(browser)) == 5
    per_unit = [one.xpath("count(./rect)") for one in drawings(browser)]
    assert per_unit == [3, 0]  # a range in another unit says nothing of these


async def test_components_are_values_of_their_own(portal: PortalWorld) -> None:
    browser = await portal.at(f"{TEST}/bp-2", BO)
    assert [row[1:3] for row in table(browser)[:2]] == [
        ["Blood pressure: Systolic", "131 mmHg"],
        ["Blood pressure: Diastolic", "85 mmHg"],
    ]
    assert [len(drawn(one)) for one in drawings(browser)] == [2, 2]


@pytest.mark.requirement("portal", "S2-07")
@pytest.mark.parametrize(
    ("value", "said"),
    [
        ({"valueString": "yellow"}, "yellow"),
        ({"valueCodeableConcept": {"text": "Not seen"}}, "Not seen"),
        ({"valueBoolean": False}, "no"),
        ({"valueInteger": 0}, "0"),
        ({"valueRange": {"low": quantity(1, "g"), "high": quantity(2, "g")}}, "1 g to 2 g"),
        ({"valueRatio": {"numerator": {"value": 1}, "denominator": {"value": 64}}}, "1 / 64"),
        ({"dataAbsentReason": {"text": "The tube broke"}}, "The tube broke"),
        ({"valueTime": "08:00:00"}, "08:00:00"),
        ({"valueQuantity": {"unit": "g"}}, "cannot be shown"),
        ({"valueSampledData": {"origin": {"value": 0}, "period": 1, "dimensions": 1}}, "cannot be"),
        ({}, "No value was sent"),
    ],
)
async def test_no_value_is_silently_missing(portal: PortalWorld, value: Json, said: str) -> None:
    await portal.put(other("odd", "A thing", **value))
    browser = await portal.at(f"{TEST}/odd", BO)
    (row,) = table(browser)
    assert said in row[1]
    assert drawings(browser) == []
    await browser.open(TESTS)
    assert "A thing" in browser.text
    assert said in browser.text


async def test_what_is_only_bounded_or_without_a_date_is_shown_as_it_is(
    portal: PortalWorld,
) -> None:
    undated = sodium("na-5", 0, 139)
    del undated["effectiveDateTime"]
    await portal.put(sodium("na-4", -1, quantity(5, comparator="<")), undated)
    browser = await portal.at(f"{TEST}/na-4", BO)
    (svg,) = drawings(browser)
    assert len(drawn(svg)) == 4
    assert len(svg.xpath("./circle[@class='bound']")) == 1
    assert ["No date", "139 mmol/L"] in [row[:2] for row in table(browser)]
    assert "< 5 mmol/L" in browser.text


@pytest.mark.parametrize("number", [1e300, 1e16, -1e-300])
async def test_numbers_beyond_all_scales_break_nothing(portal: PortalWorld, number: float) -> None:
    await portal.put(sodium("na-4", -1, number), sodium("na-5", -1, 0))
    browser = await portal.at(f"{TEST}/na-4", BO)
    assert browser.page.status_code == 200
    numbers = re.findall(r' (?:cx|cy|[xy]|width|height)="([^"]*)"', browser.page.text)
    assert all(float(one) < 1000 for one in numbers)


async def test_what_somebody_takes_for_a_code_is_looked_for_as_it_is(portal: PortalWorld) -> None:
    odd = other("odd", "x", valueString="one") | {"code": concept("urn:a|b", "c,d$e")}
    await portal.put(odd, {**odd, "id": "odd-2", "valueString": "two"})
    browser = await portal.at(f"{TEST}/odd", BO)
    assert {row[1] for row in table(browser)} == {"one", "two"}


async def test_what_others_write_is_text_on_the_pages(portal: PortalWorld) -> None:
    tree = sodium("na-4", -1, quantity(1, SCRIPT[:40]), note=[{"text": SCRIPT}])
    tree["code"]["text"] = SCRIPT
    await portal.put(
        tree,
        a_report("x", at(-1 * DAY), of="bo", result=[reference("Observation/na-4")],
                 conclusion=SCRIPT),
    )  # fmt: skip
    for path in (RESULTS, TESTS, f"{TEST}/na-4"):
        browser = await portal.at(path, BO)
        assert browser.page.status_code == 200
        assert "<script" not in browser.page.text
        assert "script-src" not in browser.page.headers["content-security-policy"]


# ---------------------------------------------------------------- who may see it


async def as_mother(portal: PortalWorld, *sections: str) -> Browser:
    await portal.put(a_grant("grant", of="kit", to="mother", sections=sections))
    return await portal.at("/portal", ADA, "kit")


async def test_a_proxy_sees_them_by_the_section_alone(portal: PortalWorld) -> None:
    await portal.put(sodium("kits", -2, 140, of="kit"), sodium("kits-2", -3, 141, of="kit"))
    browser = await as_mother(portal, "results")
    assert RESULTS in links(browser)
    await browser.open(f"{TEST}/kits")
    assert len(table(browser)) == 2
    await portal.put(a_grant("grant", of="kit", to="mother", sections=["visits"]))
    await browser.open("/portal")
    assert RESULTS not in links(browser)
    await browser.open(TESTS)
    assert "There are no results" in browser.text
    await browser.open(f"{TEST}/kits")
    assert browser.page.status_code == 404


@pytest.mark.parametrize("meta", [WITHHELD, RESTRICTED])
async def test_what_is_kept_from_a_proxy_leaves_the_pages_as_they_are(
    portal: PortalWorld, meta: Json
) -> None:
    await portal.put(
        sodium("kits", -2, 140, of="kit"),
        a_report("k", at(-2 * DAY), of="kit", result=[reference("Observation/kits")]),
    )
    browser = await as_mother(portal, "results")
    seen = []
    for path in (RESULTS, TESTS, f"{TEST}/kits"):
        await browser.open(path)
        seen.append(browser.text)
    await portal.put(
        sodium("secret", -1, 160, of="kit", meta=meta),
        a_report("s", at(-1 * DAY), of="kit", meta=meta),
    )
    for path, before in zip((RESULTS, TESTS, f"{TEST}/kits"), seen, strict=True):
        await browser.open(path)
        assert browser.text == before
    await browser.open(f"{TEST}/secret")
    assert browser.page.status_code == 404


async def test_another_record_and_what_was_revoked_show_nothing(portal: PortalWorld) -> None:
    ada = await portal.at(RESULTS, ADA, "ada")
    assert "There are no reports" in ada.text
    answers = []
    for own_id in ("na-1", "no-such-value"):
        await ada.open(f"{TEST}/{own_id}")
        answers.append((ada.page.status_code, ada.text.replace(own_id, "")))
    assert answers[0] == answers[1]
    assert answers[0][0] == 404
    browser = await as_mother(portal, "results")
    await portal.put(a_grant("grant", of="kit", to="mother", status="inactive"))
    await browser.open(RESULTS)
    assert "Kit" not in browser.text
    signed_out = portal.world.browser()
    for path in (RESULTS, TESTS, f"{TEST}/na-1", f"{FILE}/blood/0"):
        await signed_out.open(path)
        assert signed_out.page.url.path == "/signin"


async def test_the_other_record_is_chosen_by_its_own_page(portal: PortalWorld) -> None:
    browser = await portal.at(RESULTS, ADA, "ada")
    await browser.open("/portal/record")
    await submit(browser, "/portal/record", record=f"{SKIN}/Patient/kit")
    assert browser.heading == "Kit Quill"
