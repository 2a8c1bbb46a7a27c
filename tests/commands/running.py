"""Running a command as an operator does, and looking at what it says."""

from __future__ import annotations

import json
from typing import Any

from typer.testing import CliRunner, Result

from fhir_portal.cli import cli


def run(*arguments: str, given: str | None = None) -> Result:
    """Run it; ``given`` is what it finds on standard input."""
    result = CliRunner().invoke(cli, arguments, input=given)
    assert "Traceback" not in result.output
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def told(*arguments: str, given: str | None = None, status: int = 0) -> Any:
    result = run(*arguments, "--json", given=given)
    assert result.exit_code == status, result.output
    return json.loads(result.stdout)


def refused(*arguments: str, given: str | None = None) -> str:
    result = run(*arguments, given=given)
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    return result.stderr
