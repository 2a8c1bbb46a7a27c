"""docs/reference/commands.md: every command is there, and says what the page shows."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from fhir_portal.cli import cli
from fhir_portal.commands.store import run_in_store
from fhir_portal.resources.store import PortalStore
from fhir_portal.smart.client import add_client

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "commands.md"
BLOCK = re.compile(r"^```console\n(.*?)^```$", re.MULTILINE | re.DOTALL)
MASKS = (
    (re.compile(r"\d{4}-\d\d-\d\d(T[\d:.]+(Z|[+-]\d\d:\d\d))?"), "DATE"),
    (re.compile(r"(?<![\w-])[\w-]{43}(?![\w-])"), "SECRET-OR-KID"),
    (re.compile(r"good for \d+ seconds"), "good for N seconds"),
)
PIPED = re.compile(r"echo (\S+) \| (.*)")


def steps() -> Iterator[tuple[str, list[str]]]:
    """Each command of the page with the output shown below it."""
    for block in BLOCK.findall(PAGE.read_text("utf-8")):
        shown = block.replace("\\\n", "")
        for part in re.split(r"^\$ ", shown, flags=re.MULTILINE)[1:]:
            command, *lines = part.splitlines()
            yield " ".join(command.split()), lines


def masked(text: str) -> str:
    for pattern, name in MASKS:
        text = pattern.sub(name, text)
    return text


async def registers_itself(store: PortalStore) -> None:
    """The app of the page that no operator added."""
    await add_client(
        store,
        client_id="rounds",
        name="Rounds",
        type="public",
        redirect_uris=["https://rounds.example/callback"],
        scope="launch openid fhirUser user/*.rs",
        metadata={"policy_uri": "https://rounds.example/privacy"},
        self_registered=True,
        awaits_review=True,
        now=0,
        random=bytes,
    )


def test_what_the_page_shows_is_what_the_commands_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Planted fault: a line of the page that no command prints."""
    monkeypatch.setenv("FHIR_PORTAL_DATA", str(tmp_path / "portal.db"))
    run_in_store(registers_itself)
    ada = tmp_path / "ada.json"
    ada.write_text('{"resourceType": "Patient", "id": "ada"}', "utf-8")
    kids: list[str] = []
    run = 0
    for step, shown in steps():
        piped = PIPED.fullmatch(step)
        given, command = (piped[1], piped[2]) if piped else (None, step)
        program, *arguments = shlex.split(command)
        assert program == "fhir-portal"
        if arguments[:2] == ["keys", "retire"]:  # the page's own kid is another one
            arguments[2] = kids[0]
        if arguments[:2] == ["health-cards", "revoke"]:  # no command of the page brings a patient
            assert CliRunner().invoke(cli, ["import", str(ada), "--practice", "elm"]).exit_code == 0
        result = CliRunner().invoke(cli, arguments, input=given)
        printed = result.output.rstrip("\n").splitlines()
        assert masked("\n".join(printed)) == masked("\n".join(shown)), command
        kids += re.findall(r"^kid +(\S+)", result.output, re.MULTILINE)
        run += 1
    assert run > 15


def commands() -> list[str]:
    group = typer.main.get_command(cli)
    found = []
    for name, one in group.commands.items():  # type: ignore[attr-defined]  # it is a group
        below = getattr(one, "commands", None)
        found += [f"{name} {inner}" for inner in below] if below else [name]
    return found


@pytest.mark.parametrize("command", commands())
def test_every_command_has_a_heading_and_its_options(command: str) -> None:
    """Planted fault: a command, or an option, that the page does not know."""
    text = PAGE.read_text("utf-8")
    heading = f"\n### fhir-portal {command}\n"
    assert heading in text
    section = text.partition(heading)[2].partition("\n### ")[0].partition("\n## ")[0]
    found = typer.main.get_command(cli)
    for name in command.split():
        found = found.commands[name]  # type: ignore[attr-defined]  # it is a group
    for parameter in found.params:
        for option in parameter.opts:
            if option.startswith("--") and option != "--help":
                assert f"`{option}`" in section, option


@pytest.mark.parametrize("command", ["", *commands()])
def test_every_command_explains_itself(command: str) -> None:
    result = CliRunner().invoke(cli, [*command.split(), "--help"])
    assert result.exit_code == 0
    assert "Usage:" in result.stdout
