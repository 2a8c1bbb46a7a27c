"""The log: one JSON object per line on standard error, without what may be about a person.

`configure` is called once, where a server process starts. Exceptions are named by their class
and where they were raised; their words and the values around them stay out, because those hold
passwords, tokens and patient data. That goes for the libraries we use, too.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import MutableMapping
from typing import Any, Final, Literal, TextIO

import structlog

from fhir_portal.portal import fault

Level = Literal["debug", "info", "warning", "error"]

_SHARED: Final[tuple[structlog.types.Processor, ...]] = (
    structlog.stdlib.add_log_level,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
)


def configure(level: Level, stream: TextIO | None = None) -> None:
    """Have everything from ``level`` on written to ``stream``, by default standard error.

    Libraries are heard from ``warning`` on: what they say below that names addresses and values.
    """
    out = stream or sys.stderr
    number = logging.getLevelNamesMapping()[level.upper()]
    structlog.configure(
        processors=[*_SHARED, _without_words, structlog.processors.JSONRenderer()],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.WriteLoggerFactory(out),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(out)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*_SHARED, _first_line],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                _without_words,
                structlog.processors.JSONRenderer(),
            ],
        )
    )
    logging.basicConfig(handlers=[handler], level=max(number, logging.WARNING), force=True)
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access"):  # it may have brought its own
        logging.getLogger(name).handlers.clear()
        logging.getLogger(name).propagate = True


def _without_words(
    _logger: Any, _method: str, event: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    """Put an exception's class and place where structlog would put its traceback."""
    found = event.pop("exc_info", None)
    event.pop("stack_info", None)
    if found is True:
        found = sys.exc_info()
    error = found[1] if isinstance(found, tuple) else found
    if isinstance(error, BaseException):
        event.update(fault(error))
    return event


def _first_line(
    _logger: Any, _method: str, event: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    """Keep what a library says happened; below, asyncio repeats the exception with its words."""
    event["event"] = str(event["event"]).partition("\n")[0]
    return event
