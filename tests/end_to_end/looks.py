"""What every page is looked at for, narrow and wide, by day and by night."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from tests.end_to_end.browser import ROOT, Browser

PICTURES: Final = ROOT / "build" / "browser"
NARROW: Final = 320
WIDE: Final = 1280


def looked_at(browser: Browser, folder: Path, name: str) -> None:
    """No sideways scrolling at 320 px (WCAG 1.4.10), and nothing that axe-core objects to.

    A picture of each state is left in the folder.
    """
    for scheme in ("light", "dark"):
        browser.prefer(scheme)
        for width in (NARROW, WIDE):
            browser.resize(width)
            browser.screenshot(folder / f"{name}-{width}-{scheme}.png")
            assert browser.overhang <= 0, f"{width} px, {scheme}"
            assert browser.axe() == [], f"{width} px, {scheme}"
