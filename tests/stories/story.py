"""A story goes through a document of features from the front to the end, step by step."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass
class Story:
    """Which rows of the table of features were shown, in the order of the story."""

    rows: list[str] = field(default_factory=list)
    is_told: bool = False

    @contextmanager
    def step(self, *rows: str) -> Iterator[None]:
        """A step that shows these rows. It counts once it has gone through."""
        yield
        self.rows += rows

    def end(self) -> None:
        """The story was told to its end."""
        self.is_told = True
