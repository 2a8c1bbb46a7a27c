"""The commands for operators, one module each; ``fhir_portal.cli`` gathers them."""
