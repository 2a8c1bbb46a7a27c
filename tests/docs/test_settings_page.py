from __future__ import annotations

import re
from pathlib import Path

from fhir_portal.settings import PREFIX, Settings

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "settings.md"
PARTS = dict(
    re.findall(r"^### (\S+)\n(.*?)(?=^#|\Z)", PAGE.read_text("utf-8"), re.MULTILINE | re.DOTALL)
)


def test_every_setting_has_a_heading_and_every_heading_is_a_setting() -> None:
    assert set(PARTS) == {PREFIX + name.upper() for name in Settings.model_fields}


def test_every_default_is_the_one_the_page_names() -> None:
    for name, field in Settings.model_fields.items():
        if field.default not in (None, ()):
            default = str(field.default)
            if isinstance(field.default, bool):
                default = default.lower()  # as the file writes it
            assert f"`{default}`" in PARTS[PREFIX + name.upper()].split("Default:")[1], name
