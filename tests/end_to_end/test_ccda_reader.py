"""@medplum/ccda from npm, in node: what it finds in the C-CDA of each sample record."""

from __future__ import annotations

from pathlib import Path

import pytest

from fhir_portal.documents.ccda.document import as_ccd
from tests.charts import a_chart, synthea_charts
from tests.documents.reading import entries_in
from tests.end_to_end.browser import missing
from tests.end_to_end.node import Script
from tests.search.corpus import has_data

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(bool(missing()), reason=missing() or "all is there"),
    pytest.mark.skipif(not has_data(), reason="no sample data; set FHIR_PORTAL_TEST_DATA"),
]


def test_every_section_of_every_record_comes_back_whole(tmp_path: Path) -> None:
    """31 records and one with something in every part: entries in are entries out."""
    charts = [a_chart(), *synthea_charts()]
    assert len(charts) == 32
    with Script.running("ccda_reader") as script:
        for number, chart in enumerate(charts):
            path = tmp_path / f"{number}.xml"
            path.write_bytes(as_ccd(chart))
            found = script("read", path=str(path))
            assert {k: v for k, v in found["sections"].items() if v} == entries_in(chart), number
            assert found["patient"] == chart.patient["name"][0]["family"]
