"""FHIR vocabulary: references, interactions, errors, bundles, dates, JSON and definitions."""
