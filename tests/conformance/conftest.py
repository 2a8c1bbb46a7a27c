from __future__ import annotations

from tests.web.conftest import as_anyone, as_ehr, as_patient, fhir

__all__ = ["as_anyone", "as_ehr", "as_patient", "fhir"]
