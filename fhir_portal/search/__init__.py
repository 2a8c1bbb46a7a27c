"""FHIR search as values: parameters, requests, and the entries that are searched. No I/O here."""
