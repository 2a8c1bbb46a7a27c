"""Everything by date: in order, by years, and of each section only what may be seen."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.builders import (
    RESTRICTED,
    WITHHELD,
    Json,
    a_document,
    a_grant,
    an_encounter,
)
from tests.charts import an_immunization
from tests.operations.test_portal_dashboard import a_report
from tests.smart.world import Browser
from tests.web.portal_world import ADA, BO, PortalWorld
from tests.web.staff_world import links

TIMELINE = "/portal/timeline"
KINDS = {
    "visits": "Visit",
    "results": "Result",
    "documents": "Document",
    "immunizations": "Vaccine",
}


def chart(of: str, year: int, *, meta: Json | None = None, mark: str = "") -> list[Json]:
    more: Json = {"meta": meta} if meta else {}
    return [
        an_encounter(f"{of}-v{year}{mark}", of=of, period={"start": f"{year}-04-01"}, **more),
        a_report(f"{of}-r{year}{mark}", f"{year}-03-02T10:00:00Z", of=of, **more),
        a_document(f"{of}-d{year}{mark}", of=of, date=f"{year}-05-01T10:00:00Z", **more),
        an_immunization(
            f"{of}-i{year}{mark}", of=of, occurrenceDateTime=f"{year}-02-03", **more
        ),
    ]  # fmt: skip


@pytest.fixture
async def portal() -> AsyncIterator[PortalWorld]:
    found = await PortalWorld.begin()
    await found.put(*chart("bo", 2029), *chart("bo", 2025), *chart("kit", 2029))
    yield found
    found.close()


def kinds(browser: Browser, heading: str = "year") -> list[str]:
    """What stands on the page, in its order."""
    found = browser.document.xpath(
        f"//section[@aria-labelledby='{heading}']//li//span[@class='detail']"
    )
    return [one.text_content().partition(",")[0] for one in found]


@pytest.mark.requirement("portal", "S2-05")
async def test_all_types_stand_on_one_line_of_time(portal: PortalWorld) -> None:
    browser = await portal.at(TIMELINE, BO)
    assert browser.document.xpath("//h2/text()") == ["2029"]
    assert kinds(browser) == ["Document", "Visit", "Result", "Vaccine"]
    assert "?year=2025" in links(browser)
    await browser.open(f"{TIMELINE}?year=2025")
    assert kinds(browser) == ["Document", "Visit", "Result", "Vaccine"]
    assert "?year=2029" in links(browser)
    await browser.open(f"{TIMELINE}?year=2027")
    assert "There is nothing of this year" in browser.text
    assert {"?year=2025", "?year=2029"} <= set(links(browser))


async def test_a_result_leads_to_its_report(portal: PortalWorld) -> None:
    browser = await portal.at(TIMELINE, BO)
    assert "/portal/results/report/bo-r2029" in links(browser)
    await browser.open("/portal/results/report/bo-r2029")
    assert browser.page.status_code == 200
    for own_id in ("kit-r2029", "no-such-report"):
        await browser.open(f"/portal/results/report/{own_id}")
        assert browser.page.status_code == 404


async def test_a_year_begins_where_the_practice_is(portal: PortalWorld) -> None:
    """It is in Chicago: at three in the morning UTC the year before is not over."""
    await portal.put(
        an_encounter("late", of="bo", period={"start": "2027-01-01T03:00:00Z"}),
        an_encounter("day", of="bo", period={"start": "2027-01-01"}),
    )
    browser = await portal.at(TIMELINE, BO)
    await browser.open(f"{TIMELINE}?year=2026")
    assert kinds(browser) == ["Visit"]
    assert "?year=2027" in links(browser)
    await browser.open(f"{TIMELINE}?year=2027")
    assert kinds(browser) == ["Visit"]
    assert "?year=2026" in links(browser)


async def test_nothing_is_there_twice_or_silently_missing(portal: PortalWorld) -> None:
    undated = an_encounter("undated", of="bo")
    undated.pop("period", None)
    both = a_report("both", "2029-06-01T10:00:00Z", of="bo", effectiveDateTime="2028-12-31")
    only_issued = a_report("issued", "2028-07-01T10:00:00Z", of="bo")
    await portal.put(undated, both, only_issued)
    browser = await portal.at(TIMELINE, BO)
    assert kinds(browser, "undated") == ["Visit"]
    assert kinds(browser) == ["Document", "Visit", "Result", "Vaccine"]
    await browser.open(f"{TIMELINE}?year=2028")
    assert kinds(browser) == ["Result", "Result"]


async def test_what_was_a_mistake_or_is_only_planned_is_not_on_it(portal: PortalWorld) -> None:
    await portal.put(
        an_encounter("planned", of="bo", status="planned", period={"start": "2031-01-01"}),
        a_report("wrong", "2031-02-01T10:00:00Z", of="bo") | {"status": "entered-in-error"},
    )
    browser = await portal.at(TIMELINE, BO)
    assert browser.document.xpath("//h2/text()") == ["2029"]
    await browser.open(f"{TIMELINE}?year=2031")
    assert kinds(browser) == []


async def test_more_than_a_page_of_a_search_is_on_it(portal: PortalWorld) -> None:
    await portal.put(
        *(
            an_immunization(f"many-{n}", of="bo", occurrenceDateTime=f"2020-06-{1 + n % 28:02}")
            for n in range(210)
        )
    )
    browser = await portal.at(TIMELINE, BO)
    await browser.open(f"{TIMELINE}?year=2020")
    assert len(kinds(browser)) == 210


@pytest.mark.parametrize(
    "year", ["", "0000", "9999", "20299", "abcd", "\uff12\uff10\uff12\uff19", "-001"]
)
async def test_an_odd_year_is_the_latest_one(portal: PortalWorld, year: str) -> None:
    browser = await portal.at("/portal", BO)
    await browser.open(f"{TIMELINE}?year={year}")
    assert browser.page.status_code == 200
    assert browser.document.xpath("//h2/text()") == ["2029"]
    for edge in ("0001", "9998"):
        await browser.open(f"{TIMELINE}?year={edge}")
        assert browser.page.status_code == 200


@pytest.mark.parametrize("section", KINDS)
async def test_a_proxy_sees_of_each_section_what_the_grant_shows(
    portal: PortalWorld, section: str
) -> None:
    await portal.put(a_grant("grant", of="kit", to="mother", sections=[section]))
    browser = await portal.at(TIMELINE, ADA, "kit")
    assert kinds(browser) == [KINDS[section]]
    await browser.open("/portal")
    assert TIMELINE in links(browser)
    await portal.put(a_grant("grant", of="kit", to="mother", sections=["messages"]))
    await browser.open("/portal")
    assert TIMELINE not in links(browser)
    await browser.open(TIMELINE)
    assert "There is nothing here yet" in browser.text


@pytest.mark.parametrize("meta", [WITHHELD, RESTRICTED])
async def test_what_is_kept_from_a_proxy_leaves_it_as_it_is(
    portal: PortalWorld, meta: Json
) -> None:
    await portal.put(a_grant("grant", of="kit", to="mother", sections=list(KINDS)))
    browser = await portal.at(TIMELINE, ADA, "kit")
    before = browser.text
    await portal.put(*chart("kit", 2029, meta=meta, mark="x"), *chart("kit", 2028, meta=meta))
    await browser.open(TIMELINE)
    assert browser.text == before


async def test_of_another_record_or_after_the_grant_there_is_nothing(portal: PortalWorld) -> None:
    browser = await portal.at(TIMELINE, ADA, "ada")
    assert "There is nothing here yet" in browser.text
    await portal.put(a_grant("grant", of="kit", to="mother", sections=list(KINDS)))
    other = await portal.at(TIMELINE, ADA, "kit")
    assert len(kinds(other)) == 4
    await portal.put(a_grant("grant", of="kit", to="mother", status="inactive"))
    await other.open(TIMELINE)
    assert "2029" not in other.text
    signed_out = portal.world.browser()
    await signed_out.open(TIMELINE)
    assert signed_out.page.url.path == "/signin"
