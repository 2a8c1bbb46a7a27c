"""The tours of the README and the tutorials, typed in as they stand there."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

ROOT = Path(__file__).parents[2]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs" / "tutorial").glob("*.md")])
PORT = "8000"
STARTS_SERVER = "make run"

BLOCK = re.compile(r"^```console\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)#\s]+)")
MASKS = (
    (re.compile(r"\d{4}-\d\d-\d\d(T[\d:.]+(Z|[+-]\d\d:\d\d))?"), "DATE"),
    (re.compile(r"\b[a-z2-7]{24}\b"), "ID"),
)


def steps(page: Path) -> list[tuple[str, list[str]]]:
    """Each command of a page with the output shown below it."""
    found: list[tuple[str, list[str]]] = []
    for block in BLOCK.findall(page.read_text("utf-8")):
        for line in block.splitlines():
            if line.startswith("$ "):
                found.append((line[2:], []))
            else:
                found[-1][1].append(line)
    return found


def masked(lines: list[str]) -> list[str]:
    """The lines without what differs from day to day."""
    for pattern, name in MASKS:
        lines = [pattern.sub(name, line) for line in lines]
    return lines


class Window:
    """A shell in a folder that looks like the checkout, with a server of its own beside it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("examples", "pyproject.toml"):
            (folder / name).symlink_to(ROOT / name)
        (folder / ".venv").symlink_to(sys.prefix)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = str(free.getsockname()[1])
        self.environment = {
            name: value for name, value in os.environ.items() if not name.startswith("FHIR_PORTAL_")
        }
        self.server: subprocess.Popen[str] | None = None

    def start_server(self) -> list[str]:
        """Do what ``make run`` does once everything is installed; return what it prints."""
        printed = self.folder / "printed"
        with printed.open("w") as file:
            self.server = subprocess.Popen(
                [".venv/bin/fhir-portal", "demo", "--port", self.port],
                cwd=self.folder,
                env=self.environment,
                stdout=file,
                stderr=subprocess.STDOUT,
                text=True,
            )
        deadline = time.monotonic() + 60
        while not self.answers():
            assert self.server.poll() is None, printed.read_text()
            assert time.monotonic() < deadline, printed.read_text()
            time.sleep(0.05)
        return self.shown(printed.read_text().rstrip("\n"))

    def answers(self) -> bool:
        try:
            return httpx.get(f"http://127.0.0.1:{self.port}/health/ready").is_success
        except httpx.TransportError:
            return False

    def type(self, command: str) -> list[str]:
        """Run a command as it stands on the page, on the port this server has."""
        command = command.replace(f"127.0.0.1:{PORT}", f"127.0.0.1:{self.port}")
        if "standalone_app.py" in command:
            command += f" --base http://127.0.0.1:{self.port}/fhir"
        done = subprocess.run(
            ["bash", "-c", command],
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=60,
            check=False,
        )
        return self.shown(done.stdout)

    def shown(self, text: str) -> list[str]:
        return text.replace(f":{self.port}", f":{PORT}").splitlines()

    def close(self) -> None:
        if self.server is not None:
            self.server.terminate()
            self.server.wait(20)


@pytest.fixture
def window(tmp_path: Path) -> Iterator[Window]:
    window = Window(tmp_path)
    yield window
    window.close()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_what_a_page_shows_is_what_happens(window: Window, page: Path) -> None:
    if not any(command == STARTS_SERVER for command, _ in steps(page)):
        window.start_server()
    done = 0
    for command, shown in steps(page):
        if command.startswith("curl ") and not shutil.which("curl"):
            continue  # the example apps make the same request
        happened = window.start_server() if command == STARTS_SERVER else window.type(command)
        assert masked(happened) == masked(shown), command
        done += 1
    assert done > 2


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_what_a_page_points_at_is_there(page: Path) -> None:
    for target in LINK.findall(page.read_text("utf-8")):
        assert target.startswith("https://") or (page.parent / target).exists(), target


def test_the_two_commands_are_targets_of_the_makefile() -> None:
    readme, makefile = (ROOT / "README.md").read_text(), (ROOT / "Makefile").read_text()
    for target in ("run", "test"):
        assert f"\nmake {target} " in readme
        assert re.search(rf"^{target}:", makefile, re.MULTILINE)
