"""Scripts that node runs with packages from npm, told one step at a time."""

from __future__ import annotations

import contextlib
import json
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

from tests.end_to_end.browser import NODE_MODULES

SCRIPTS: Final = Path(__file__).parent / "in_node"


class Thrown(Exception):
    """What a step threw: the ``name``, ``code``, ``error``, ``status``, ``resource`` it had."""

    def __init__(self, told: dict[str, Any]) -> None:
        super().__init__(json.dumps(told))
        self.name = str(told["name"])
        self.message = str(told["message"])
        self.code = str(told["code"])
        self.error = str(told["error"])
        self.status = int(told["status"])
        self.resource = told["resource"]


@dataclass
class Script:
    """A script of ``in_node/`` that runs; it keeps what one step leaves for the next."""

    process: subprocess.Popen[str]

    @classmethod
    @contextlib.contextmanager
    def running(cls, name: str) -> Iterator[Self]:
        """Start it."""
        command = ["node", str(SCRIPTS / f"{name}.mjs"), NODE_MODULES.as_uri()]
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as process:
            try:
                yield cls(process)
            finally:
                process.terminate()

    def __call__(self, step: str, **asked: Any) -> Any:
        """Take a step and return its result; raises `Thrown`. The script ends one that hangs."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{json.dumps({'step': step, **asked})}\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        assert line, "the script has ended"
        told = json.loads(line)
        if "thrown" in told:
            raise Thrown(told["thrown"])
        return told["result"]
