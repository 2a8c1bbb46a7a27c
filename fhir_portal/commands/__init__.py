"""One file for each command of ``fhir-portal`` that is more than a call."""
