"""Forms: Questionnaires that patients answer, as far as SDC says how (HL7 SDC 3.0, FHIR R4)."""
