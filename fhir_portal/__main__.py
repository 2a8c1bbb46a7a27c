"""``python -m fhir_portal``: the same as ``fhir-portal``."""

from fhir_portal.cli import main

main()
