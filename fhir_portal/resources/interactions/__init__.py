"""One file per FHIR interaction (FHIR R4 §3.1.0)."""
