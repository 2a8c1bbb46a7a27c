from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def own_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file of a store that the commands of this test have for themselves."""
    file = tmp_path / "portal.db"
    monkeypatch.setenv("FHIR_PORTAL_DATA", str(file))
    return file
