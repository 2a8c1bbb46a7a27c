from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LOCKS = sorted((ROOT / "requirements").glob("*.txt"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))


def normalised(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def pins(lock: Path) -> dict[str, str]:
    """Everything that the file installs, with the lines that belong to it."""
    text = re.sub(r"^ *#.*\n", "", lock.read_text("utf-8"), flags=re.MULTILINE)
    parts = re.split(r"\n(?=\S)", text.strip())
    return {normalised(re.split(r"[ =\[]", part)[0]): part for part in parts}


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.stem)
def test_every_locked_package_has_a_version_and_a_hash(lock: Path) -> None:
    for part in pins(lock).values():
        assert re.match(r"[\w.\[\]-]+==[\w.]+.*\\\n( +--hash=sha256:[0-9a-f]{64}( \\\n)?)+$", part)


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.stem)
def test_a_lock_names_no_registry_and_no_local_path(lock: Path) -> None:
    assert not re.search(r"://|--(?!hash)|file:|@ ", lock.read_text("utf-8"))


@pytest.mark.parametrize("name", ["run", "build", "test", "lint", "docs"])
def test_what_the_project_declares_is_locked(name: str) -> None:
    project, groups = PROJECT["project"], PROJECT["dependency-groups"]
    declared = project["dependencies"] if name == "run" else groups[name]
    wanted = {normalised(re.split(r"[ <>=!~;\[]", one)[0]) for one in declared}
    assert wanted <= set(pins(ROOT / "requirements" / f"{name}.txt"))


def test_all_locks_agree_so_that_they_fit_one_environment() -> None:
    agreed: dict[str, str] = {}
    for lock in LOCKS:
        for name, part in pins(lock).items():
            version = part.split(" ")[0]
            assert agreed.setdefault(name, version) == version, lock.name
