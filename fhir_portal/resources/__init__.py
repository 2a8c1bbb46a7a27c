"""FHIR resources as a server sees them: checks, versions, interactions and their store."""
