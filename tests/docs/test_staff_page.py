"""docs/reference/staff.md tells the permissions as the portal does."""

from __future__ import annotations

import re
from pathlib import Path

from fhir_portal.accounts.levels import MEANS

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "staff.md"
ROW = re.compile(r"^\| `([a-z]+)` \| (.+) \|$", re.MULTILINE)


def test_the_page_has_every_permission_in_the_words_of_the_portal() -> None:
    """Planted fault: a permission, or what it lets people do, that the page does not know."""
    assert dict(ROW.findall(PAGE.read_text("utf-8"))) == dict(MEANS)
