"""A practice's chart, written down resource by resource.

Every date is counted from the day the world is built, every value follows from its id: the same
day gives the same world.
"""

from __future__ import annotations

from dataclasses import dataclass

from fhir_portal.demo.chart_clinical import ClinicalSheet
from fhir_portal.demo.chart_directory import DirectorySheet
from fhir_portal.demo.chart_office import OfficeSheet
from fhir_portal.demo.chart_people import PeopleSheet


@dataclass(slots=True)
class Chart(DirectorySheet, PeopleSheet, ClinicalSheet, OfficeSheet):
    """The resources of one practice, in the order they are written."""
