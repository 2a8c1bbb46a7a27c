"""``fhir-portal``, and ``python -m fhir_portal``.

Processes that an import starts load this file anew (`multiprocessing`, spawn). So it loads nothing
by itself: they need the checks, not the server.
"""

from __future__ import annotations


def main() -> None:
    """Run the command line."""
    from fhir_portal.cli import main as run  # noqa: PLC0415 - see above

    run()


if __name__ == "__main__":
    main()
